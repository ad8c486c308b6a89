/**
 * Endpoints: a branch's address and the compute behind it.
 */
#ifndef BOUGH_ENDPOINT_H
#define BOUGH_ENDPOINT_H

#include <stddef.h>

#include "bough/client.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An endpoint. Strings are "" where the server does not say. */
typedef struct bough_endpoint {
    const char *id; /**< e.g. "ep-silent-smoke-806639" */
    const char *branch_id;
    const char *host;
    const char *type;  /**< "read_write" or "read_only" */
    const char *state; /**< e.g. "active", "idle" */
    const char *created_at;
    const char *json; /**< the server's whole object as JSON text */
} bough_endpoint;

/** Several endpoints. */
typedef struct bough_endpoint_list {
    size_t count;
    bough_endpoint **items; /**< belong to the list */
} bough_endpoint_list;

/** All endpoints of a project (an id). Free with bough_endpoint_list_free(). */
BOUGH_API BOUGH_CHECK int bough_endpoint_get_all(bough_endpoint_list **list, bough_client *client,
                                                 const char *project, bough_error *err);

/** Free a list and its items. NULL is allowed. */
BOUGH_API void bough_endpoint_list_free(bough_endpoint_list *list);

/**
 * Find the read-write endpoint of a branch.
 *
 * @param[out] endpoint  Free with bough_endpoint_free().
 * @param project        Id of the project.
 * @param branch         Id of the branch.
 * @retval BOUGH_E_NOTFOUND  The branch has none.
 */
BOUGH_API BOUGH_CHECK int bough_endpoint_find(bough_endpoint **endpoint, bough_client *client,
                                              const char *project, const char *branch,
                                              bough_error *err);

/**
 * Find an endpoint by its id.
 *
 * @param[out] endpoint  Free with bough_endpoint_free().
 * @param project        Id of the project.
 * @param id             Id of the endpoint.
 * @retval BOUGH_E_NOTFOUND  The project has none of that id.
 */
BOUGH_API BOUGH_CHECK int bough_endpoint_get(bough_endpoint **endpoint, bough_client *client,
                                             const char *project, const char *id, bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_endpoint_free(bough_endpoint *endpoint);

/** What is asked for in a new endpoint. Set everything to zero but `version` and `branch`. */
typedef struct bough_endpoint_options {
    unsigned version;   /**< 1 */
    const char *branch; /**< id of the branch */
    int is_read_only;   /**< beside the one that writes: it follows that one, and only reads */
    double least, most; /**< compute units, multiples of 0.25 up to 16; 0: the usual */
} bough_endpoint_options;

/**
 * Make an endpoint of a branch and start its compute.
 *
 * @param[out] endpoint  Free with bough_endpoint_free().
 * @param project        Id of the project.
 * @param options        What is asked for.
 * @retval BOUGH_E_CONFLICT      The branch has one that writes already.
 * @retval BOUGH_E_PRECONDITION  It has as many as there may be that only read.
 */
BOUGH_API BOUGH_CHECK int bough_endpoint_create(bough_endpoint **endpoint, bough_client *client,
                                                const char *project,
                                                const bough_endpoint_options *options,
                                                bough_error *err);

/** Stop the compute of an endpoint and delete the endpoint. `project` and `id` are ids. */
BOUGH_API BOUGH_CHECK int bough_endpoint_delete(bough_client *client, const char *project,
                                                const char *id, bough_error *err);

/**
 * Start the compute; returns when it answers queries. One that runs already is success.
 *
 * @param[out] endpoint  The endpoint afterwards; free with bough_endpoint_free().
 * @param project        Id of the project.
 * @param id             Id of the endpoint.
 */
BOUGH_API BOUGH_CHECK int bough_endpoint_start(bough_endpoint **endpoint, bough_client *client,
                                               const char *project, const char *id,
                                               bough_error *err);

/** Stop the compute cleanly. The same parameters; one that sleeps already is success. */
BOUGH_API BOUGH_CHECK int bough_endpoint_suspend(bough_endpoint **endpoint, bough_client *client,
                                                 const char *project, const char *id,
                                                 bough_error *err);

/**
 * Say how large the compute is from its next start on. The same parameters, and:
 * @param least, most  Compute units, multiples of 0.25 up to 16.
 */
BOUGH_API BOUGH_CHECK int bough_endpoint_resize(bough_endpoint **endpoint, bough_client *client,
                                                const char *project, const char *id, double least,
                                                double most, bough_error *err);

/** Stop the compute and start it again. The same parameters as bough_endpoint_start(). */
BOUGH_API BOUGH_CHECK int bough_endpoint_restart(bough_endpoint **endpoint, bough_client *client,
                                                 const char *project, const char *id,
                                                 bough_error *err);

/** Why a compute is awake or asleep. Strings are "" where the server does not say. */
typedef struct bough_endpoint_reason {
    const char *state;          /**< "active" or "idle" */
    const char *since;          /**< RFC 3339: when it became so */
    const char *cause;          /**< what woke it, or why it sleeps; for people */
    const char *busy;           /**< what keeps it awake now; "" for nothing */
    long sessions;              /**< connections that came through the server's port */
    long suspend_after_seconds; /**< without use; 0: never */
    const char *suspends_at;    /**< RFC 3339: when nobody uses it until then */
    const char *json;           /**< the server's whole object as JSON text */
} bough_endpoint_reason;

/**
 * Ask why a compute is awake or asleep.
 *
 * @param[out] reason  Free with bough_endpoint_reason_free().
 * @param project      Id of the project.
 * @param id           Id of the endpoint.
 */
BOUGH_API BOUGH_CHECK int bough_endpoint_why(bough_endpoint_reason **reason, bough_client *client,
                                             const char *project, const char *id, bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_endpoint_reason_free(bough_endpoint_reason *reason);

/**
 * Get a URI that reaches a branch by its pooler (PgBouncer in transaction mode), which starts when
 * somebody connects. The same parameters as bough_uri_get().
 */
BOUGH_API BOUGH_CHECK int bough_uri_get_pooled(char **uri, bough_client *client,
                                               const char *project, const char *branch,
                                               const char *database, const char *role,
                                               bough_error *err);

/**
 * Get a URI that reaches a branch's compute by its Unix socket, for programs of this machine that
 * may use the store's directory. Starts the compute; nothing would when somebody connects. The same
 * parameters as bough_uri_get().
 */
BOUGH_API BOUGH_CHECK int bough_uri_get_socket(char **uri, bough_client *client,
                                               const char *project, const char *branch,
                                               const char *database, const char *role,
                                               bough_error *err);

/**
 * Get a connection URI of a branch. It need not be awake: it wakes when somebody connects.
 *
 * @param[out] uri  Holds a password; free with bough_uri_free().
 * @param project   Id of the project.
 * @param branch    Id of the branch.
 * @param database  NULL: the branch's first database.
 * @param role      NULL: the owner of that database.
 */
BOUGH_API BOUGH_CHECK int bough_uri_get(char **uri, bough_client *client, const char *project,
                                        const char *branch, const char *database, const char *role,
                                        bough_error *err);

/** Which connection URI is asked for. Set everything to zero but `version` and one of `branch` and
 * `endpoint`. */
typedef struct bough_uri_options {
    unsigned version;     /**< 1 */
    const char *branch;   /**< id of a branch: by the endpoint that writes */
    const char *endpoint; /**< id of an endpoint */
    const char *database; /**< NULL: the branch's first database */
    const char *role;     /**< NULL: the owner of that database */
    int by_socket;        /**< as bough_uri_get_socket() */
    int is_pooled;        /**< as bough_uri_get_pooled(); not with `by_socket` */
} bough_uri_options;

/** Get a connection URI. @param[out] uri  Holds a password; free with bough_uri_free(). */
BOUGH_API BOUGH_CHECK int bough_uri_get_with(char **uri, bough_client *client, const char *project,
                                             const bough_uri_options *options, bough_error *err);

/** Overwrite and free a URI. NULL is allowed. */
BOUGH_API void bough_uri_free(char *uri);

#ifdef __cplusplus
}
#endif
#endif
