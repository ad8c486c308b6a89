/**
 * Reading lists page by page, and finding things in them by id or name. Internal to libbough.
 */
#ifndef BOUGH_CLIENT_FIND_H
#define BOUGH_CLIENT_FIND_H

#include <jansson.h>

#include "bough/client.h"

/**
 * Read all pages of a list.
 *
 * @param[out] all  An array; the caller decrefs.
 * @param path      May have a query.
 * @param member    Member of the answer that holds the list.
 * @param page      Items asked for at a time; 0 leaves that to the server.
 */
BOUGH_CHECK int bough_find_pages(json_t **all, bough_client *client, const char *path,
                                 const char *member, int page, bough_error *err);

/**
 * Find an object by its "id", else by its "name".
 *
 * @param[out] found  Borrowed from `all`.
 * @param kind        What the objects are, for the message.
 * @retval BOUGH_E_NOTFOUND  The hint names the nearest.
 */
BOUGH_CHECK int bough_find_named(json_t **found, const json_t *all, const char *kind,
                                 const char *name, bough_error *err);

/** The first URI of an answer's "connection_uris"; "" where there is none. */
const char *bough_json_uri(const json_t *answer);

#endif
