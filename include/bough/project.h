/**
 * Projects: a database with all of its branches.
 */
#ifndef BOUGH_PROJECT_H
#define BOUGH_PROJECT_H

#include <stddef.h>

#include "bough/client.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A project. Strings are "" where the server does not say. */
typedef struct bough_project {
    const char *id;     /**< e.g. "spring-example-302709" */
    const char *name;   /**< unique in a store */
    int pg_version;     /**< major version of PostgreSQL */
    const char *source; /**< where it was imported from, without password; "" for an empty one */
    const char *created_at;            /**< RFC 3339 */
    const char *json;                  /**< the server's whole object as JSON text */
    int64_t history_retention_seconds; /**< how long the past is kept; 0: it is not */
} bough_project;

/** Several projects. */
typedef struct bough_project_list {
    size_t count;
    bough_project **items; /**< belong to the list */
} bough_project_list;

/** What is asked for in a new project. Set everything to zero but `version` and `name`. */
typedef struct bough_project_options {
    unsigned version;   /**< 1 */
    const char *name;   /**< 1 to 256 bytes */
    const char *source; /**< NULL: empty. Else a postgres:// URL or the absolute path of a dump */
    int pg_version;     /**< major version; 0: the source's, or the newest installed */
} bough_project_options;

/** What came of bough_project_create(). */
typedef struct bough_project_created {
    const bough_project *project;
    const char *connection_uri; /**< of the default branch; holds a password; "" when not said */
    int existing;               /**< non-zero: it was there already, from the same source */
    const char *json;           /**< the server's whole answer as JSON text */
} bough_project_created;

/**
 * Create a project, or return the one of that name made from the same source.
 *
 * Reports progress (bough_client_set_progress()) and can be cancelled: the server then removes what
 * there is, and bough_project_find() says BOUGH_E_NOTFOUND once that is done.
 *
 * @param[out] created  Free with bough_project_created_free().
 * @retval BOUGH_E_CONFLICT  The name is taken by a project from another source.
 * @retval BOUGH_E_INVALID   Name or source break a rule.
 * @retval BOUGH_E_CANCELLED
 */
BOUGH_API BOUGH_CHECK int bough_project_create(bough_project_created **created,
                                               bough_client *client,
                                               const bough_project_options *options,
                                               bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_project_created_free(bough_project_created *created);

/** All projects. Free with bough_project_list_free(). */
BOUGH_API BOUGH_CHECK int bough_project_get_all(bough_project_list **list, bough_client *client,
                                                bough_error *err);

/** Free a list and its items. NULL is allowed. */
BOUGH_API void bough_project_list_free(bough_project_list *list);

/**
 * Find a project by id or name.
 *
 * @param[out] project  Free with bough_project_free().
 * @param name          Id, or name; NULL for the only project there is.
 * @retval BOUGH_E_NOTFOUND  No such project; the hint names the nearest.
 * @retval BOUGH_E_USAGE     `name` is NULL and there are several.
 */
BOUGH_API BOUGH_CHECK int bough_project_find(bough_project **project, bough_client *client,
                                             const char *name, bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_project_free(bough_project *project);

/**
 * Say who may connect to a project's endpoints.
 *
 * @param[out] project         As it is then; free with bough_project_free(). NULL: not wanted.
 * @param id                   An id, not a name.
 * @param rules                Addresses, networks (192.0.2.0/24) or ranges (192.0.2.1-192.0.2.9).
 * @param n                    How many; 0: everybody may connect.
 * @param protected_only       Non-zero: the list is for protected branches alone.
 * @retval BOUGH_E_INVALID     A rule is none.
 */
BOUGH_API BOUGH_CHECK int bough_project_set_allowed(bough_project **project, bough_client *client,
                                                    const char *id, const char *const *rules,
                                                    size_t n, int protected_only, bough_error *err);

/** Who may connect to a project's endpoints. */
typedef struct bough_allowed {
    const char *const *rules; /**< addresses, networks (192.0.2.0/24) or ranges */
    size_t n;                 /**< how many; 0: everybody may connect */
    int protected_only;       /**< non-zero: the list is for protected branches alone */
} bough_allowed;

/**
 * The same as bough_project_set_allowed(), where the list is still the one that was read.
 *
 * @param from  As it was read; what is to be changed of it was decided by that.
 * @param to    As it is to be.
 * @retval BOUGH_E_PRECONDITION  Somebody else has changed it since; nothing changed. Read it again.
 */
BOUGH_API BOUGH_CHECK int bough_project_replace_allowed(bough_project **project,
                                                        bough_client *client, const char *id,
                                                        const bough_allowed *from,
                                                        const bough_allowed *to, bough_error *err);

/** What is to change of a project. */
typedef struct bough_project_changes {
    unsigned version;                  /**< 1 */
    const char *name;                  /**< NULL: as it is */
    int64_t history_retention_seconds; /**< 0: no past is kept; -1: as it is */
} bough_project_changes;

/**
 * Change a project.
 *
 * @param[out] project  As it is then; free with bough_project_free().
 * @param id            An id, not a name.
 * @retval BOUGH_E_CONFLICT  The name is taken.
 * @retval BOUGH_E_INVALID   More than 35 days.
 */
BOUGH_API BOUGH_CHECK int bough_project_update(bough_project **project, bough_client *client,
                                               const char *id, const bough_project_changes *changes,
                                               bough_error *err);

/** Delete a project and all of its branches. `id` is an id, not a name. */
BOUGH_API BOUGH_CHECK int bough_project_delete(bough_client *client, const char *id,
                                               bough_error *err);

#ifdef __cplusplus
}
#endif
#endif
