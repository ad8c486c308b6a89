/* Sealing a head, in steps, so that taking a moment can put its own work under the same closed
 * gate. */
#ifndef BOUGH_STORE_SEAL_H
#define BOUGH_STORE_SEAL_H

#include "store/internal.h"

typedef struct bough_seal {
    char branch[64];
    char layer[100]; /* "GROUP/LAYER" */
    char data[BOUGH_PATH_MAX];
    char next[BOUGH_PATH_MAX];
    char pgdata[BOUGH_PATH_MAX];
    bough_layers below;
    bool done; /* the stack names the layer */
    bool keep; /* a failed one that could not be undone: nothing may be removed */
} bough_seal;

/* Prepare everything that can be prepared. End with bough_seal_end() whatever happens. */
int bough_seal_begin(bough_seal *seal, bough_store *store, const char *branch, bough_error *err);
/* The renames; under the gate when the branch runs. On failure all is as before. */
int bough_seal_switch(bough_seal *seal, const bough_store *store, bough_error *err);
void bough_seal_publish(const bough_seal *seal, bough_header *live);
/* Make it durable and write the index. */
int bough_seal_finish(bough_seal *seal, bough_store *store, bough_header *live, bough_error *err);
void bough_seal_end(bough_seal *seal, const bough_store *store);

#endif
