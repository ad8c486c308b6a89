/**
 * All that a store holds: which layers there are, what names each, what nothing names, and whose
 * every byte is. Reads only.
 *
 * Bytes are allocated ones, and each file counts once, by its inode, as `du` counts: own and
 * history bytes of all branches, shared, needless, trash and other bytes add up to what `du` says
 * of the store.
 */
#ifndef BOUGH_STORE_CENSUS_H
#define BOUGH_STORE_CENSUS_H

#include "store/store.h"

/** That a branch, or restore points of it, name a layer. */
typedef struct bough_naming {
    size_t branch;   /**< of the census */
    bool is_below;   /**< the branch itself stands on it */
    unsigned points; /**< how many of its restore points do */
    unsigned going;  /**< of these, older than the history that is kept */
} bough_naming;

typedef struct bough_census_layer {
    char dir[100];     /**< "GROUP/LAYER" */
    uint64_t bytes;    /**< that no layer before it has already, by hard link */
    size_t stands_for; /**< a merged one: layers of which it was made; else 0 */
    bool goes;         /**< a collection now would remove it */
    bough_naming *namings;
    size_t n_namings;
} bough_census_layer;

typedef struct bough_census_branch {
    char id[100];           /**< of its directory; one with '~' is being made */
    uint64_t own_bytes;     /**< its directory, and layers that only it stands on */
    uint64_t history_bytes; /**< what only its past needs, layers too */
    uint64_t keep_redo;     /**< WAL before it is no history any more; 0: nothing is to go */
    char keep_point[20];    /**< restore points before it are to go; "" where none is there */
    unsigned points, going_points;
    uint64_t going_wal_bytes; /**< of history_bytes */
} bough_census_branch;

typedef struct bough_census {
    bough_census_branch *branches;
    size_t n_branches;
    bough_census_layer *layers; /**< by group and number */
    size_t n_layers;
    uint64_t shared_bytes;   /**< layers and WAL that several branches need */
    uint64_t needless_bytes; /**< layers that go */
    uint64_t trash_bytes;    /**< waits for deletion */
    uint64_t other_bytes;    /**< catalogue, logs, sockets, what is being made */
    uint64_t total_bytes;    /**< of all of the above */
} bough_census;

/**
 * From when on a branch's history is kept, milliseconds since 1970; INT64_MIN: all of it. `context`
 * is the caller's.
 */
typedef int64_t (*bough_keep_from)(void *context, const char *branch);

/**
 * Take a census. The store may be used meanwhile: what is made or removed in between may be counted
 * or not.
 *
 * @param[out] census  End with bough_census_free().
 * @param keep_from    May be NULL: no history is to go.
 */
BOUGH_CHECK int bough_census_take(bough_census **census, bough_store *store,
                                  bough_keep_from keep_from, void *context, bough_error *err);

/** Free; NULL is allowed. */
void bough_census_free(bough_census *census);

#endif
