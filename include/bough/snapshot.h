/**
 * Snapshots: moments of branches, kept until they are deleted or expire.
 */
#ifndef BOUGH_SNAPSHOT_H
#define BOUGH_SNAPSHOT_H

#include <stddef.h>

#include "bough/branch.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A snapshot. Strings are "" where the server does not say. */
typedef struct bough_snapshot {
    const char *id;          /**< e.g. "snap-wispy-meadow-118737" */
    const char *name;        /**< unique in its project */
    const char *branch_id;   /**< the branch it is of; it may be gone */
    const char *branch_name; /**< "" where it is gone */
    const char *lsn;
    const char *moment;     /**< RFC 3339 */
    const char *created_at; /**< RFC 3339 */
    const char *expires_at; /**< RFC 3339; "" where it does not expire */
    const char *frequency;  /**< of the schedule that took it; "": somebody did */
    const char *json;       /**< the server's whole object as JSON text */
    uint64_t own_bytes;     /**< allocated for it alone */
    uint64_t shared_bytes;  /**< in what branches use, too */
} bough_snapshot;

/** Several snapshots. */
typedef struct bough_snapshot_list {
    size_t count;
    bough_snapshot **items; /**< belong to the list */
} bough_snapshot_list;

/** What is asked for in a new snapshot. Set everything to zero but `version`. */
typedef struct bough_snapshot_options {
    unsigned version;       /**< 1 */
    const char *name;       /**< NULL: made from the branch's name and the time */
    const char *moment;     /**< as in bough_branch_options; NULL: now */
    const char *expires_at; /**< RFC 3339 with a zone; NULL: see ttl_seconds */
    int64_t ttl_seconds;    /**< so long from now; 0: see expires_at. Both unset: it stays */
} bough_snapshot_options;

/** What is asked for in a restore. */
typedef struct bough_snapshot_restore_options {
    unsigned version; /**< 1 */
    const char *name; /**< of the new branch, or with `finalize` of the one replaced; NULL: made */
    const char *target; /**< id of the branch to replace; NULL: the snapshot's own */
    int finalize;       /**< replace it at once */
} bough_snapshot_restore_options;

/**
 * Take a snapshot of a branch.
 *
 * @param[out] snapshot  Free with bough_snapshot_free().
 * @param project        Id of the project.
 * @param branch         Id of the branch.
 * @param options        NULL: of now, kept.
 * @retval BOUGH_E_CONFLICT  The name is taken.
 */
BOUGH_API BOUGH_CHECK int bough_snapshot_create(bough_snapshot **snapshot, bough_client *client,
                                                const char *project, const char *branch,
                                                const bough_snapshot_options *options,
                                                bough_error *err);

/** The snapshots of a project, newest first. Free with bough_snapshot_list_free(). */
BOUGH_API BOUGH_CHECK int bough_snapshot_get_all(bough_snapshot_list **list, bough_client *client,
                                                 const char *project, bough_error *err);

/** One by its id or name. Free with bough_snapshot_free(). @retval BOUGH_E_NOTFOUND */
BOUGH_API BOUGH_CHECK int bough_snapshot_find(bough_snapshot **snapshot, bough_client *client,
                                              const char *project, const char *name,
                                              bough_error *err);

/** Give it another name. Free with bough_snapshot_free(). */
BOUGH_API BOUGH_CHECK int bough_snapshot_rename(bough_snapshot **snapshot, bough_client *client,
                                                const char *project, const char *id,
                                                const char *name, bough_error *err);

/** Delete it. Branches that were made from it stay. */
BOUGH_API BOUGH_CHECK int bough_snapshot_delete(bough_client *client, const char *project,
                                                const char *id, bough_error *err);

/** Make a branch from it. Free with bough_branch_free(). */
BOUGH_API BOUGH_CHECK int bough_snapshot_restore(bough_branch **branch, bough_client *client,
                                                 const char *project, const char *id,
                                                 const bough_snapshot_restore_options *options,
                                                 bough_error *err);

/**
 * Put a restored branch in the place of the one it is to replace.
 * @param old_name  How that one is called then; NULL: made.
 */
BOUGH_API BOUGH_CHECK int bough_snapshot_finalize(bough_client *client, const char *project,
                                                  const char *branch, const char *old_name,
                                                  bough_error *err);

/**
 * The schedule of a branch, as JSON text {"schedule": [...]}.
 * @param[out] json  Free with bough_snapshot_text_free().
 */
BOUGH_API BOUGH_CHECK int bough_snapshot_get_schedule(char **json, bough_client *client,
                                                      const char *project, const char *branch,
                                                      bough_error *err);
/** Set it, from the same. */
BOUGH_API BOUGH_CHECK int bough_snapshot_set_schedule(bough_client *client, const char *project,
                                                      const char *branch, const char *json,
                                                      bough_error *err);

/** NULL is allowed. */
BOUGH_API void bough_snapshot_free(bough_snapshot *snapshot);
BOUGH_API void bough_snapshot_list_free(bough_snapshot_list *list);
BOUGH_API void bough_snapshot_text_free(char *json);

#ifdef __cplusplus
}
#endif
#endif
