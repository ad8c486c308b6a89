/*
 * What a path shows: the head of this generation and, below it, the levels of the stack. One view
 * per process (or per thread that owns it); it follows the epoch.
 */
#ifndef BOUGH_PRELOAD_STACK_H
#define BOUGH_PRELOAD_STACK_H

#include "preload/index.h"
#include "preload/layout.h"

/* A layer as this process sees it. Freed when it has left the stack and no level points at it. */
typedef struct bough_layer {
    char dir[100];
    uint32_t gen;   /* BOUGH_NO_GEN: `index` is mapped */
    uint32_t epoch; /* the last in which the stack had it */
    uint32_t uses;  /* levels of open files */
    bough_index index;
    const bough_stack_item *item;
    struct bough_layer *next;
} bough_layer;

typedef struct bough_view {
    bough_header *shm;
    uint32_t epoch; /* for which layers[] holds; odd: never read */
    unsigned depth;
    bough_layer *layers[BOUGH_MAX_DEPTH]; /* newest first */
    bough_layer *known;
    /* Close descriptors that can be opened again, for want of one; the epoch is another one. Or
     * NULL. */
    void (*shed)(void), (*moved)(void);
} bough_view;

/* One level of one file. */
typedef struct bough_level {
    bough_layer *layer;
    const bough_record *record; /* one of the two is set */
    bough_entry *entry;
    uint64_t size;
    uint64_t limit;
    int fd; /* -1: not opened */
    bool full;
} bough_level;

typedef enum bough_below_kind {
    BOUGH_BELOW_NONE,
    BOUGH_BELOW_FILE,
    BOUGH_BELOW_DIR
} bough_below_kind;

/* Follow the epoch: read the stack from shared memory. 0, or -1 with errno. */
int bough_view_refresh(bough_view *view);
/* Free all that is known of layers. No level may point at one any more. */
void bough_view_clear(bough_view *view);

/*
 * What the levels below the head show for a path.
 *
 * levels  filled, newest first, when not NULL; at most `room` (the depth of the view is always
 * enough) n       number of levels Returns the kind of what is there.
 */
bough_below_kind bough_view_below(bough_view *view, const char *path, bough_level *levels,
                                  unsigned room, unsigned *n);

/* Whether the level has this block. */
static inline bool bough_level_has(const bough_header *shm, const bough_level *level,
                                   uint64_t block);

/* Absolute path of a file of a layer: STORE/layers/GROUP/ID/data/PATH. */
void bough_view_layer_path(char *out, size_t size, const bough_view *view, const bough_layer *layer,
                           const char *path);

bool bough_entry_has(const bough_header *shm, const bough_entry *entry, uint64_t block);

static inline bool bough_level_has(const bough_header *shm, const bough_level *level,
                                   uint64_t block) {
    if (level->full) return (block << BOUGH_BLOCK_SHIFT) < level->size;
    if (level->record) return bough_record_has(&level->layer->index, level->record, block);
    return bough_entry_has(shm, level->entry, block);
}

#endif
