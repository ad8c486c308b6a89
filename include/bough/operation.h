/**
 * Operations: what the server did to a project, newest first.
 */
#ifndef BOUGH_OPERATION_H
#define BOUGH_OPERATION_H

#include <stddef.h>

#include "bough/client.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An operation. Strings are "" where the server does not say. */
typedef struct bough_operation {
    const char *id;
    const char *branch_id;
    const char *endpoint_id;
    const char *action;     /**< e.g. "create_branch" */
    const char *status;     /**< scheduling, running, finished, failed, cancelled, skipped, ... */
    const char *failure;    /**< why it failed */
    const char *created_at; /**< RFC 3339 */
    double duration_ms;     /**< total so far */
    const char *json;       /**< the server's whole object as JSON text */
} bough_operation;

/** Several operations. */
typedef struct bough_operation_list {
    size_t count;
    bough_operation **items; /**< belong to the list */
} bough_operation_list;

/**
 * The newest operations of a project.
 *
 * @param[out] list  Free with bough_operation_list_free().
 * @param project    Id of the project.
 * @param limit      How many at most, 1 to 1000.
 */
BOUGH_API BOUGH_CHECK int bough_operation_get_newest(bough_operation_list **list,
                                                     bough_client *client, const char *project,
                                                     int limit, bough_error *err);

/** Free a list and its items. NULL is allowed. */
BOUGH_API void bough_operation_list_free(bough_operation_list *list);

#ifdef __cplusplus
}
#endif
#endif
