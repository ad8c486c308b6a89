/**
 * Keys of the API.
 */
#ifndef BOUGH_KEY_H
#define BOUGH_KEY_H

#include <stddef.h>

#include "bough/client.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A key. Strings are "" where the server does not say. */
typedef struct bough_key {
    int id;
    const char *name;
    const char *key;        /**< the key itself; only when it was just made */
    const char *project_id; /**< it sees this project alone */
    const char *branch_id;  /**< it sees this branch alone */
    int is_read_only;
    int is_local; /**< the one in the store's file */
    const char *created_at;
    const char *last_used_at;
    const char *expires_at;
    const char *json; /**< the server's whole object as JSON text */
} bough_key;

/** Several keys. */
typedef struct bough_key_list {
    size_t count;
    bough_key **items; /**< belong to the list */
} bough_key_list;

/** What a new key is for. Unset members are NULL or 0. */
typedef struct bough_key_options {
    unsigned version; /**< 1 */
    const char *name;
    const char *project; /**< id */
    const char *branch;  /**< id; with `project` */
    int read_only;
    const char *expires_at; /**< RFC 3339 */
} bough_key_options;

/** Make a key. Free with bough_key_free(). */
BOUGH_API BOUGH_CHECK int bough_key_create(bough_key **key, bough_client *client,
                                           const bough_key_options *options, bough_error *err);

/** All keys. Free with bough_key_list_free(). */
BOUGH_API BOUGH_CHECK int bough_key_get_all(bough_key_list **list, bough_client *client,
                                            bough_error *err);

/** End a key. @param[out] key  As it was; free with bough_key_free(). */
BOUGH_API BOUGH_CHECK int bough_key_revoke(bough_key **key, bough_client *client, const char *id,
                                           bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_key_free(bough_key *key);

/** Free a list and its items. NULL is allowed. */
BOUGH_API void bough_key_list_free(bough_key_list *list);

#ifdef __cplusplus
}
#endif
#endif
