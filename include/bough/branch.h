/**
 * Branches: writable copies of a database.
 */
#ifndef BOUGH_BRANCH_H
#define BOUGH_BRANCH_H

#include <stddef.h>

#include "bough/client.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A branch. Strings are "" where the server does not say. */
typedef struct bough_branch {
    const char *id;   /**< e.g. "br-wispy-meadow-118737" */
    const char *name; /**< unique in its project */
    const char *project_id;
    const char *parent_id;         /**< "" for the root branch */
    const char *parent_name;       /**< "" for the root branch */
    const char *state;             /**< e.g. "ready" */
    const char *created_at;        /**< RFC 3339 */
    uint64_t own_bytes;            /**< allocated for this branch alone */
    uint64_t history_bytes;        /**< allocated for its past alone */
    const char *history_begins_at; /**< the earliest moment of its own history; "": it has none */
    uint64_t shared_bytes;         /**< in layers that other branches use too */
    int depth;                     /**< layers under its head */
    int is_default;                /**< non-zero for the project's default branch */
    int is_protected;
    const char *json;            /**< the server's whole object as JSON text */
    const char *expires_at;      /**< RFC 3339; "" where it does not expire */
    const char *expiry_state;    /**< "pending", "due", "waiting" or "held"; "" as above */
    int64_t expires_in_seconds;  /**< from now, by the server's account */
    int expiry_cascades;         /**< non-zero: its children end with it; else it waits for them */
    int expiry_warning;          /**< non-zero: within a day, or half of a short lifetime */
    const char *deleted_at;      /**< RFC 3339; "" where it is not deleted */
    int64_t recoverable_seconds; /**< a deleted one can be recovered for so long */
} bough_branch;

/** Several branches. */
typedef struct bough_branch_list {
    size_t count;
    bough_branch **items; /**< belong to the list */
} bough_branch_list;

/** When a branch is to expire. At most one of the first two. */
typedef struct bough_branch_expiry {
    const char *expires_at; /**< RFC 3339 with a zone; NULL: see ttl_seconds */
    int64_t ttl_seconds;    /**< so long from now; 0: see expires_at. Both unset: as it is */
    const char *mode;       /**< "wait": for the end of its children; "cascade": with them; NULL: as
                                 it is, or "wait" */
} bough_branch_expiry;

/** What is asked for in a new branch. Set everything to zero but `version` and `name`. */
typedef struct bough_branch_options {
    unsigned version;   /**< 1 */
    const char *name;   /**< 1 to 256 bytes */
    const char *parent; /**< id; NULL: the default branch */
    const char *moment; /**< of the parent's past: an LSN such as "0/A27BB60", or a time of RFC 3339
                           with its zone; NULL: its present */
    bough_branch_expiry
        expiry;       /**< all unset: by its name, "ci-..." and "tmp-..." after 24 hours */
    int is_protected; /**< non-zero: it cannot be deleted, nor expire */
    int is_look; /**< non-zero: read-only, and removed 10 minutes after its last use; `name` may
                      be NULL then */
    int is_schema_only; /**< non-zero: the schema without any row, as a root branch */
} bough_branch_options;

/** What came of bough_branch_create(). Times are the server's, in milliseconds; 0 when not said. */
typedef struct bough_branch_created {
    const bough_branch *branch;
    const char *connection_uri; /**< holds a password; "" when not said */
    double checkpoint_ms;       /**< the parent's checkpoint; it works on meanwhile */
    double seal_ms;             /**< sealing the parent, the gate included */
    double gate_ms;             /**< how long writes of a running parent stood still */
    double create_ms;           /**< making the branch's directory */
    double start_ms;            /**< from exec of postgres to its socket */
    double ready_ms;            /**< from there to the first answered query */
    double total_ms;
    int existing;     /**< non-zero: it was there already, from the same parent */
    const char *json; /**< the server's whole answer as JSON text */
} bough_branch_created;

/**
 * Create a branch and start its compute, or return the one of that name with the same parent.
 *
 * @param[out] created  Free with bough_branch_created_free().
 * @param project       Id of the project.
 * @param name          1 to 256 bytes.
 * @param parent        Id of the parent; NULL for the default branch.
 * @retval BOUGH_E_CONFLICT  The name is taken by a branch of another parent.
 */
BOUGH_API BOUGH_CHECK int bough_branch_create(bough_branch_created **created, bough_client *client,
                                              const char *project, const char *name,
                                              const char *parent, bough_error *err);

/**
 * The same with more choices. A branch that exists is returned as it is: its expiry and protection
 * do not change.
 *
 * @param options  Copied.
 * @retval BOUGH_E_PRECONDITION  Protection and expiry exclude each other.
 */
BOUGH_API BOUGH_CHECK int bough_branch_create_with(bough_branch_created **created,
                                                   bough_client *client, const char *project,
                                                   const bough_branch_options *options,
                                                   bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_branch_created_free(bough_branch_created *created);

/** All branches of a project. Free with bough_branch_list_free(). */
BOUGH_API BOUGH_CHECK int bough_branch_get_all(bough_branch_list **list, bough_client *client,
                                               const char *project, bough_error *err);

/** The same, of each only what a table shows: `json` and the members that are not given are as
 * where the server does not say. Faster where there are very many. */
BOUGH_API BOUGH_CHECK int bough_branch_get_brief(bough_branch_list **list, bough_client *client,
                                                 const char *project, bough_error *err);

/** All deleted branches of a project that can be recovered. Free with bough_branch_list_free(). */
BOUGH_API BOUGH_CHECK int bough_branch_get_deleted(bough_branch_list **list, bough_client *client,
                                                   const char *project, bough_error *err);

/** Free a list and its items. NULL is allowed. */
BOUGH_API void bough_branch_list_free(bough_branch_list *list);

/**
 * Find a branch by id or name.
 *
 * @param[out] branch  Free with bough_branch_free().
 * @param project      Id of the project.
 * @param name         Id, or name; NULL for the default branch.
 * @retval BOUGH_E_NOTFOUND  No such branch; the hint names the nearest.
 */
BOUGH_API BOUGH_CHECK int bough_branch_find(bough_branch **branch, bough_client *client,
                                            const char *project, const char *name,
                                            bough_error *err);

/**
 * Find a deleted branch by id or name.
 *
 * @param[out] branch  Free with bough_branch_free().
 * @retval BOUGH_E_NOTFOUND  No such branch; the hint names the nearest.
 * @retval BOUGH_E_CONFLICT  Several had that name: an id is needed.
 */
BOUGH_API BOUGH_CHECK int bough_branch_find_deleted(bough_branch **branch, bough_client *client,
                                                    const char *project, const char *name,
                                                    bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_branch_free(bough_branch *branch);

/**
 * Give a branch another name.
 *
 * @param[out] renamed  The branch afterwards; free with bough_branch_free().
 * @param project       Id of the project.
 * @param id            Id of the branch.
 * @param name          The new name.
 * @retval BOUGH_E_CONFLICT  The name is taken.
 */
BOUGH_API BOUGH_CHECK int bough_branch_rename(bough_branch **renamed, bough_client *client,
                                              const char *project, const char *id, const char *name,
                                              bough_error *err);

/** What a branch is to show; zeroed members mean "not said". */
typedef struct bough_restore_options {
    const char *source; /**< id of the branch to take it from; the branch itself or another */
    const char *moment; /**< of its past, as in bough_branch_options; NULL: its present */
    const char *preserve_under_name; /**< keep what the branch shows now as a branch of this name */
} bough_restore_options;

/**
 * Let a branch show what another one shows, or what one showed at a moment of its past. Its id,
 * name and endpoint stay; its connections end; its children move to the branch that keeps what it
 * showed.
 *
 * @param[out] restored  bough_branch_free().
 * @retval BOUGH_E_INVALID   The moment is not in the history, or preserve_under_name is missing: it
 *                           must be given where the source is the branch itself or it has children.
 * @retval BOUGH_E_CONFLICT  preserve_under_name is taken.
 */
BOUGH_API BOUGH_CHECK int bough_branch_restore(bough_branch **restored, bough_client *client,
                                               const char *project, const char *id,
                                               const bough_restore_options *options,
                                               bough_error *err);

/**
 * Delete a branch; for 7 days bough_branch_undelete() brings it back. `project` and `id` are ids.
 * @retval BOUGH_E_CONFLICT      It has children.
 * @retval BOUGH_E_PRECONDITION  It is protected, the default branch or a root.
 */
BOUGH_API BOUGH_CHECK int bough_branch_delete(bough_client *client, const char *project,
                                              const char *id, bough_error *err);

/**
 * Remove a branch for good, also one that is deleted already. `project` and `id` are ids.
 * @retval BOUGH_E_CONFLICT      It has children; deleted ones that can be recovered count.
 * @retval BOUGH_E_PRECONDITION  As for bough_branch_delete().
 */
BOUGH_API BOUGH_CHECK int bough_branch_purge(bough_client *client, const char *project,
                                             const char *id, bough_error *err);

/**
 * Bring a deleted branch back, suspended.
 *
 * @param[out] branch  The branch afterwards; free with bough_branch_free().
 * @param project      Id of the project.
 * @param id           Id of the branch.
 * @param name         Its new name; NULL: the one it had.
 * @retval BOUGH_E_CONFLICT      The name is taken.
 * @retval BOUGH_E_PRECONDITION  Its parent is deleted.
 */
BOUGH_API BOUGH_CHECK int bough_branch_undelete(bough_branch **branch, bough_client *client,
                                                const char *project, const char *id,
                                                const char *name, bough_error *err);

/**
 * Say when a branch expires.
 *
 * @param[out] branch  The branch afterwards; free with bough_branch_free().
 * @param project      Id of the project.
 * @param id           Id of the branch.
 * @param expiry       NULL: never.
 * @retval BOUGH_E_INVALID       The time is none, or not in the future.
 * @retval BOUGH_E_PRECONDITION  It is protected, the default branch or a root; or must expire.
 */
BOUGH_API BOUGH_CHECK int bough_branch_set_expiry(bough_branch **branch, bough_client *client,
                                                  const char *project, const char *id,
                                                  const bough_branch_expiry *expiry,
                                                  bough_error *err);

/**
 * Protect a branch, or lift that.
 *
 * @param[out] branch   The branch afterwards; free with bough_branch_free().
 * @param project       Id of the project.
 * @param id            Id of the branch.
 * @param is_protected  Non-zero: protect.
 * @retval BOUGH_E_PRECONDITION  It expires.
 */
BOUGH_API BOUGH_CHECK int bough_branch_set_protected(bough_branch **branch, bough_client *client,
                                                     const char *project, const char *id,
                                                     int is_protected, bough_error *err);

/**
 * Make a branch the default one of its project.
 *
 * @param[out] branch  The branch afterwards; free with bough_branch_free().
 * @param project      Id of the project.
 * @param id           Id of the branch.
 * @retval BOUGH_E_PRECONDITION  It expires.
 */
BOUGH_API BOUGH_CHECK int bough_branch_set_default(bough_branch **branch, bough_client *client,
                                                   const char *project, const char *id,
                                                   bough_error *err);

/**
 * Make a branch independent of its parent, which can be deleted then. Moments before the branch was
 * made cannot be reached through it any more.
 *
 * @param[out] branch  The branch afterwards; free with bough_branch_free().
 * @param project      Id of the project.
 * @param id           Id of the branch.
 */
BOUGH_API BOUGH_CHECK int bough_branch_detach(bough_branch **branch, bough_client *client,
                                              const char *project, const char *id,
                                              bough_error *err);

/**
 * Write a branch as a plain PGDATA that a stock PostgreSQL starts on.
 *
 * Reports progress and can be cancelled. What was written by then the server removes, but not the
 * directory; it has a lock, flock(2), on that until it has. Where the server died it stays.
 *
 * @param project    Id of the project.
 * @param id         Id of the branch.
 * @param directory  Absolute path of an empty directory that the server's user can write to.
 */
BOUGH_API BOUGH_CHECK int bough_branch_export(bough_client *client, const char *project,
                                              const char *id, const char *directory,
                                              bough_error *err);

#ifdef __cplusplus
}
#endif
#endif
