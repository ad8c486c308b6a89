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
    bool wanted; /* by bough_seal_take(): there was something to seal */
    bool done;   /* the stack names the layer */
    bool keep;   /* a failed one that could not be undone: nothing may be removed */
} bough_seal;

/* Prepare everything that can be prepared. End with bough_seal_end() whatever happens. */
int bough_seal_begin(bough_seal *seal, bough_store *store, const char *branch, bough_error *err);
/* The renames; under the gate when the branch runs. On failure all is as before. */
int bough_seal_switch(bough_seal *seal, const bough_store *store, bough_error *err);
void bough_seal_publish(const bough_seal *seal, bough_header *live);
/* Make it durable and write the index. */
int bough_seal_finish(bough_seal *seal, bough_store *store, bough_header *live, bough_error *err);
void bough_seal_end(bough_seal *seal, const bough_store *store);

/* What is linked while nothing moves, of the cluster at `pgdata` at `moment`. */
typedef int (*bough_seal_link)(void *context, const bough_moment *moment, const char *pgdata,
                               bough_error *err);
/* Take a moment of a branch, with `seal` begun: close the gate (a branch that does not run needs
 * none), read the moment, link, seal what the head has, open it, and make the layer durable as far
 * as a seal does. What it took is put into `result`. */
int bough_seal_take(bough_seal *seal, bough_moment *moment, bough_fork_result *result,
                    bough_store *store, bough_header *live, bough_seal_link link, void *context,
                    bough_error *err);

#endif
