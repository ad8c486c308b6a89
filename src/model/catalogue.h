/**
 * The catalogue: STORE/bough.db, SQLite. What exists and in which state; the files behind it are
 * the store's.
 *
 * Any thread: every function takes the connection's mutex, and a transaction keeps it from begin to
 * commit, so keep transactions short. A state change is one transaction and so one commit.
 *
 * Functions that read one record give BOUGH_E_NOTFOUND when there is none. Lists are malloc'ed;
 * free() them.
 */
#ifndef BOUGH_MODEL_CATALOGUE_H
#define BOUGH_MODEL_CATALOGUE_H

#include "model/records.h"
#include "util/error.h"

typedef struct bough_catalogue bough_catalogue;

/**
 * Open or make the catalogue.
 * @retval BOUGH_E_UNSUPPORTED  Made by a newer version of Bough.
 * @retval BOUGH_E_CORRUPT      Not a database, or damaged.
 */
BOUGH_CHECK int bough_catalogue_open(bough_catalogue **cat, const char *path, bough_error *err);
void bough_catalogue_close(bough_catalogue *cat);

/** Begin a transaction. The calling thread holds the catalogue until commit or rollback. */
BOUGH_CHECK int bough_catalogue_begin(bough_catalogue *cat, bough_error *err);
/** Commit, durably. On failure everything is rolled back. */
BOUGH_CHECK int bough_catalogue_commit(bough_catalogue *cat, bough_error *err);
void bough_catalogue_rollback(bough_catalogue *cat);
/** Commit when `rc` is BOUGH_OK, else roll back; returns what came of it. */
BOUGH_CHECK int bough_catalogue_end(bough_catalogue *cat, int rc, bough_error *err);

/** How many commits there were since opening. For tests. */
uint64_t bough_catalogue_commits(bough_catalogue *cat);

/** Now, in milliseconds since 1970. */
int64_t bough_now_epoch_ms(void);

/* Projects. A name that is taken gives BOUGH_E_CONFLICT. */
BOUGH_CHECK int bough_projects_insert(bough_catalogue *cat, const bough_project_row *row,
                                      bough_error *err);
BOUGH_CHECK int bough_projects_get(bough_project_row *row, bough_catalogue *cat, const char *id,
                                   bough_error *err);
BOUGH_CHECK int bough_projects_find(bough_project_row *row, bough_catalogue *cat, const char *name,
                                    bough_error *err);
/** Oldest first. `search` (part of name or id) may be NULL; `after` is the place of the last one
 * seen, which may be gone, or NULL. */
BOUGH_CHECK int bough_projects_list(bough_project_row **rows, size_t *n, bough_catalogue *cat,
                                    const char *search, const bough_project_place *after, int limit,
                                    bough_error *err);
BOUGH_CHECK int bough_projects_rename(bough_catalogue *cat, const char *id, const char *name,
                                      bough_error *err);
BOUGH_CHECK int bough_projects_set_retention(bough_catalogue *cat, const char *id, int64_t seconds,
                                             bough_error *err);
/** Who may connect: a checked list (model/allow.h). */
BOUGH_CHECK int bough_projects_set_allowed(bough_catalogue *cat, const char *id, const char *list,
                                           bool protects_only, bough_error *err);
/**
 * The same where the list is the expected one still.
 * @retval BOUGH_E_PRECONDITION  It is another one by now; nothing changed.
 */
BOUGH_CHECK int bough_projects_replace_allowed(bough_catalogue *cat, const char *id,
                                               const char *list, bool protects_only,
                                               const char *expected, bool expected_only,
                                               bough_error *err);
/** What its new endpoints get; those that there are stay as they are. */
BOUGH_CHECK int bough_projects_set_endpoints(bough_catalogue *cat, const char *id,
                                             const bough_endpoint_defaults *endpoints,
                                             bough_error *err);
/** Whether any project has a list of who may connect. */
BOUGH_CHECK int bough_projects_have_allowed(bool *have, bough_catalogue *cat, bough_error *err);
/** With all its branches and what belongs to them. */
BOUGH_CHECK int bough_projects_delete(bough_catalogue *cat, const char *id, bough_error *err);

/* Branches. */
BOUGH_CHECK int bough_branches_insert(bough_catalogue *cat, const bough_branch_row *row,
                                      bough_error *err);
/** One that is not deleted. */
BOUGH_CHECK int bough_branches_get(bough_branch_row *row, bough_catalogue *cat, const char *project,
                                   const char *id, bough_error *err);
/** One that is deleted and can be recovered. */
BOUGH_CHECK int bough_branches_get_deleted(bough_branch_row *row, bough_catalogue *cat,
                                           const char *project, const char *id, bough_error *err);
/** Deleted or not, of any project. */
BOUGH_CHECK int bough_branches_get_any(bough_branch_row *row, bough_catalogue *cat, const char *id,
                                       bough_error *err);
BOUGH_CHECK int bough_branches_find(bough_branch_row *row, bough_catalogue *cat,
                                    const char *project, const char *name, bough_error *err);
BOUGH_CHECK int bough_branches_get_default(bough_branch_row *row, bough_catalogue *cat,
                                           const char *project, bough_error *err);
/**
 * Of one project, or of all with NULL; newest first. With deleted ones, whose files are still
 * needed, and with those that hold snapshots.
 */
BOUGH_CHECK int bough_branches_list(bough_branch_row **rows, size_t *n, bough_catalogue *cat,
                                    const char *project, bough_error *err);
/** The same without deleted ones. */
BOUGH_CHECK int bough_branches_list_live(bough_branch_row **rows, size_t *n, bough_catalogue *cat,
                                         const char *project, bough_error *err);
BOUGH_CHECK int bough_branches_rename(bough_catalogue *cat, const char *id, const char *name,
                                      bough_error *err);
/**
 * Whether no branch has a name, and none is to have it when its restore is over. (in a transaction)
 * Inserting, renaming and recovering hold to the same.
 * @param id  Of the branch that may have what is reserved for it; NULL: none.
 */
BOUGH_CHECK int bough_branches_is_free(bool *is_free, bough_catalogue *cat, const char *project,
                                       const char *name, const char *id, bough_error *err);
/** That a name is taken, in the words that Neon's clients know. @return BOUGH_E_CONFLICT. */
int bough_branches_fail_taken(const char *name, bough_error *err);
BOUGH_CHECK int bough_branches_set_state(bough_catalogue *cat, const char *id, const char *state,
                                         bough_error *err);
/** With deleted ones: whoever has any cannot be removed. */
BOUGH_CHECK int bough_branches_count_children(int64_t *n, bough_catalogue *cat, const char *id,
                                              bough_error *err);
BOUGH_CHECK int bough_branches_delete(bough_catalogue *cat, const char *id, bough_error *err);
/** Copy roles (with passwords) and databases of one branch to another. */
BOUGH_CHECK int bough_branches_copy_contents(bough_catalogue *cat, const char *from, const char *to,
                                             bough_error *err);

/* Origins: of branches that begin at a moment of the past. */
BOUGH_CHECK int bough_origins_insert(bough_catalogue *cat, const bough_origin_row *row,
                                     bough_error *err);
/** The same, in place of what was there. */
BOUGH_CHECK int bough_origins_set(bough_catalogue *cat, const bough_origin_row *row,
                                  bough_error *err);
/** Let the origin of one branch, if it has one, be another's. */
BOUGH_CHECK int bough_origins_move(bough_catalogue *cat, const char *from, const char *to,
                                   bough_error *err);
/** It has no parent any more. */
BOUGH_CHECK int bough_origins_forget(bough_catalogue *cat, const char *branch, bough_error *err);
BOUGH_CHECK int bough_origins_get(bough_origin_row *row, bough_catalogue *cat, const char *branch,
                                  bough_error *err);

/* Annotations of branches, given when they are made. */
BOUGH_CHECK int bough_annotations_insert(bough_catalogue *cat, const char *branch,
                                         const char *value, bough_error *err);
/** Of a project's branches, or of one ("" or NULL: all). */
BOUGH_CHECK int bough_annotations_list(bough_annotation_row **rows, size_t *n, bough_catalogue *cat,
                                       const char *project, const char *branch, bough_error *err);

/* Restores that are under way: at most one for each branch. The name under which what was there is
 * kept is nobody else's from then on. */
BOUGH_CHECK int bough_swaps_insert(bough_catalogue *cat, const bough_swap_row *row,
                                   bough_error *err);
BOUGH_CHECK int bough_swaps_list(bough_swap_row **rows, size_t *n, bough_catalogue *cat,
                                 bough_error *err);
BOUGH_CHECK int bough_swaps_has(bool *has, bough_catalogue *cat, const char *branch,
                                bough_error *err);
BOUGH_CHECK int bough_swaps_delete(bough_catalogue *cat, const char *branch, bough_error *err);

/** Make another branch the parent; NULL: none. */
BOUGH_CHECK int bough_branches_set_parent(bough_catalogue *cat, const char *id, const char *parent,
                                          bough_error *err);
/** Give the children of one branch to another. */
BOUGH_CHECK int bough_branches_move_children(bough_catalogue *cat, const char *from, const char *to,
                                             bough_error *err);
/** Roles and databases of `to` become those of `from`. */
BOUGH_CHECK int bough_branches_replace_contents(bough_catalogue *cat, const char *from,
                                                const char *to, bough_error *err);
/* Life cycle of branches (lifecycle.c). Nothing is checked here: see model/expiry.h. */

/** When it expires (0: never), how long that is from now, and whether with its children. Warnings
 * start anew. */
BOUGH_CHECK int bough_branches_set_expiry(bough_catalogue *cat, const bough_branch_row *row,
                                          bough_error *err);
BOUGH_CHECK int bough_branches_set_protected(bough_catalogue *cat, const char *id,
                                             bool is_protected, bough_error *err);
/** Make it the only default branch of its project. */
BOUGH_CHECK int bough_branches_set_default(bough_catalogue *cat, const char *project,
                                           const char *id, bough_error *err);
BOUGH_CHECK int bough_branches_set_warnings(bough_catalogue *cat, const char *id, int given,
                                            bough_error *err);
/** Delete it so that it can be recovered: its name is free, everything else stays. */
BOUGH_CHECK int bough_branches_bury(bough_catalogue *cat, const char *id, int64_t deleted_ms,
                                    bough_error *err);
/** Undo that. @retval BOUGH_E_CONFLICT  The name is taken. */
BOUGH_CHECK int bough_branches_recover(bough_catalogue *cat, const char *id, const char *name,
                                       bough_error *err);

/** Lists of ids are one allocation of n times BOUGH_ID_SIZE. */
typedef char (*bough_id_list)[BOUGH_ID_SIZE];

/** Branches whose expiry has come by `now_ms`, the longest overdue first; without those that wait
 * for their children. */
BOUGH_CHECK int bough_branches_due(bough_id_list *ids, size_t *n, bough_catalogue *cat,
                                   int64_t now_ms, bough_error *err);
/** Branches that were deleted by `deleted_ms` and that no other stands on. */
BOUGH_CHECK int bough_branches_purgeable(bough_id_list *ids, size_t *n, bough_catalogue *cat,
                                         int64_t deleted_ms, bough_error *err);
/** Branches that are to be warned of by `now_ms` (bough_expiry_stage() tells of what). */
BOUGH_CHECK int bough_branches_to_warn(bough_id_list *ids, size_t *n, bough_catalogue *cat,
                                       int64_t now_ms, bough_error *err);
/** A branch and all that stand on it and are not deleted: children before their parents. */
BOUGH_CHECK int bough_branches_subtree(bough_id_list *ids, size_t *n, bough_catalogue *cat,
                                       const char *id, bough_error *err);
/** The next moment after `now_ms` at which any of the above changes; 0: none. */
BOUGH_CHECK int bough_branches_next_event(int64_t *at_ms, bough_catalogue *cat, int64_t now_ms,
                                          bough_error *err);
/** Whether anything waits for a time: a branch, a snapshot, a schedule, or history that is to be
 * forgotten. */
BOUGH_CHECK int bough_branches_any_timed(bool *any, bough_catalogue *cat, bough_error *err);

/** @retval BOUGH_E_NOTFOUND  Nothing was recorded yet. */
BOUGH_CHECK int bough_clock_get(bough_clock_row *row, bough_catalogue *cat, bough_error *err);
BOUGH_CHECK int bough_clock_set(bough_catalogue *cat, const bough_clock_row *row, bough_error *err);

/* Directories sealed from initdb, from which empty projects start. */
BOUGH_CHECK int bough_templates_insert(bough_catalogue *cat, const char *id, bough_error *err);
/** `ids` is one allocation of n times BOUGH_ID_SIZE. */
BOUGH_CHECK int bough_templates_list(char (**ids)[BOUGH_ID_SIZE], size_t *n, bough_catalogue *cat,
                                     bough_error *err);

/* Endpoints: of a branch at most one that writes, and any number that only read. */
BOUGH_CHECK int bough_endpoints_insert(bough_catalogue *cat, const bough_endpoint_row *row,
                                       bough_error *err);
/** Not of a deleted branch. */
BOUGH_CHECK int bough_endpoints_get(bough_endpoint_row *row, bough_catalogue *cat,
                                    const char *project, const char *id, bough_error *err);
/** Of whatever project. */
BOUGH_CHECK int bough_endpoints_find(bough_endpoint_row *row, bough_catalogue *cat, const char *id,
                                     bough_error *err);
/** The one that writes. */
BOUGH_CHECK int bough_endpoints_of_branch(bough_endpoint_row *row, bough_catalogue *cat,
                                          const char *branch, bough_error *err);
/**
 * The directory of STORE/branches/ on which an endpoint's compute runs: the branch's own, or for
 * one that only reads a fork of it under the endpoint's id. Computes are known by it. Borrowed.
 */
const char *bough_endpoint_home(const bough_endpoint_row *row);
/** The endpoint whose home that is. */
BOUGH_CHECK int bough_endpoints_at(bough_endpoint_row *row, bough_catalogue *cat, const char *home,
                                   bough_error *err);
/** Those of a branch that only read, oldest first. */
BOUGH_CHECK int bough_endpoints_list_reading(bough_endpoint_row **rows, size_t *n,
                                             bough_catalogue *cat, const char *branch,
                                             bough_error *err);
/** Let two branches exchange those that only read. */
BOUGH_CHECK int bough_endpoints_swap_reading(bough_catalogue *cat, const char *a, const char *b,
                                             bough_error *err);
/** Of a project, or of all with NULL; with those of deleted branches. */
BOUGH_CHECK int bough_endpoints_list(bough_endpoint_row **rows, size_t *n, bough_catalogue *cat,
                                     const char *project, bough_error *err);
/** Of a project, without those of deleted branches. */
BOUGH_CHECK int bough_endpoints_list_live(bough_endpoint_row **rows, size_t *n,
                                          bough_catalogue *cat, const char *project,
                                          bough_error *err);
BOUGH_CHECK int bough_endpoints_set_timeout(bough_catalogue *cat, const char *id, int seconds,
                                            bough_error *err);
/** In quarters of a compute unit. */
BOUGH_CHECK int bough_endpoints_set_size(bough_catalogue *cat, const char *id, int least_quarters,
                                         int most_quarters, bough_error *err);
BOUGH_CHECK int bough_endpoints_set_error(bough_catalogue *cat, const char *id, const char *message,
                                          bough_error *err);
BOUGH_CHECK int bough_endpoints_delete(bough_catalogue *cat, const char *id, bough_error *err);

/* Roles of a branch. */
BOUGH_CHECK int bough_roles_insert(bough_catalogue *cat, const bough_role_row *row,
                                   bough_error *err);
BOUGH_CHECK int bough_roles_get(bough_role_row *row, bough_catalogue *cat, const char *branch,
                                const char *name, bough_error *err);
BOUGH_CHECK int bough_roles_list(bough_role_row **rows, size_t *n, bough_catalogue *cat,
                                 const char *branch, bough_error *err);
/** The secret of a role, and whether it is unsure. */
BOUGH_CHECK int bough_roles_set_secret(bough_catalogue *cat, const bough_role_row *row,
                                       bough_error *err);
BOUGH_CHECK int bough_roles_delete(bough_catalogue *cat, const char *branch, const char *name,
                                   bough_error *err);

/* Databases of a branch; oldest first. The id is given on insertion. */
BOUGH_CHECK int bough_databases_insert(bough_catalogue *cat, const bough_database_row *row,
                                       bough_error *err);
BOUGH_CHECK int bough_databases_get(bough_database_row *row, bough_catalogue *cat,
                                    const char *branch, const char *name, bough_error *err);
BOUGH_CHECK int bough_databases_list(bough_database_row **rows, size_t *n, bough_catalogue *cat,
                                     const char *branch, bough_error *err);
BOUGH_CHECK int bough_databases_update(bough_catalogue *cat, int64_t id, const char *name,
                                       const char *owner, bough_error *err);
BOUGH_CHECK int bough_databases_delete(bough_catalogue *cat, const char *branch, const char *name,
                                       bough_error *err);

/* Operations: what was done, newest first. They outlive branches, not projects. */
BOUGH_CHECK int bough_operations_insert(bough_catalogue *cat, const bough_operation_row *row,
                                        bough_error *err);
BOUGH_CHECK int bough_operations_get(bough_operation_row *row, bough_catalogue *cat,
                                     const char *project, const char *id, bough_error *err);
/** `before` is the seq of the last one seen; 0: from the newest. */
BOUGH_CHECK int bough_operations_list(bough_operation_row **rows, size_t *n, bough_catalogue *cat,
                                      const char *project, int64_t before, int limit,
                                      bough_error *err);

/** The same of a branch. */
BOUGH_CHECK int bough_operations_list_of_branch(bough_operation_row **rows, size_t *n,
                                                bough_catalogue *cat, const char *branch,
                                                int64_t before, int limit, bough_error *err);

/* API keys: only their SHA-256 (hexadecimal). */

/** Make this the key of the store's file: the one before is valid no longer. */
BOUGH_CHECK int bough_api_keys_set_local(bough_catalogue *cat, const char *name, const char *hash,
                                         bough_error *err);
/** Another key; `row` comes back with its id. A key goes with its project, or its branch. */
BOUGH_CHECK int bough_api_keys_insert(bough_catalogue *cat, bough_api_key_row *row,
                                      bough_error *err);
/** Oldest first. */
BOUGH_CHECK int bough_api_keys_list(bough_api_key_row **rows, size_t *n, bough_catalogue *cat,
                                    bough_error *err);
/** Not the local one. @retval BOUGH_E_NOTFOUND */
BOUGH_CHECK int bough_api_keys_delete(bough_catalogue *cat, int64_t id, bough_error *err);
/** Record when and whence it was used last. One that is gone is success. */
BOUGH_CHECK int bough_api_keys_set_used(bough_catalogue *cat, const bough_api_key_row *row,
                                        bough_error *err);

/** Whether any table has this as an id. */
BOUGH_CHECK int bough_catalogue_has_id(bool *found, bough_catalogue *cat, const char *id,
                                       bough_error *err);
/** Whether any role has a stored password. */
BOUGH_CHECK int bough_catalogue_has_secrets(bool *found, bough_catalogue *cat, bough_error *err);

#endif
