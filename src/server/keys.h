/**
 * Keys of the API: who asks, what he may, and how often. A copy of the catalogue's table is kept in
 * memory, so that the loop thread finds a key without the disk. Any thread.
 */
#ifndef BOUGH_SERVER_KEYS_H
#define BOUGH_SERVER_KEYS_H

#include "server/server.h"

/** Limits of a key, where the command line says nothing else: Neon's. */
enum { KEYS_PER_MINUTE = 700, KEYS_PER_SECOND = 40 };

BOUGH_CHECK int keys_new(struct keys **keys, server *srv, bough_error *err);
void keys_free(struct keys *keys);

/** Read the table again: after a change, and now and then for what went with a project. */
BOUGH_CHECK int keys_reload(struct keys *keys, bough_error *err);

/**
 * Delete a key from the table, and with that at once from memory: it never works on, however little
 * memory there is.
 * @retval BOUGH_E_NOTFOUND  There is none, or it is that of the store's file.
 */
BOUGH_CHECK int keys_revoke(struct keys *keys, int64_t id, bough_error *err);

/** Write down when keys were used last, and reload. Called by the clock, and at the end. */
void keys_tick(struct keys *keys);

/**
 * Find the key that a request shows, and note its use.
 *
 * @param[out] row  Without its hash.
 * @param from      Address of the client.
 * @retval BOUGH_E_AUTH  There is none, or it has expired.
 */
BOUGH_CHECK int keys_find(bough_api_key_row *row, struct keys *keys, const char *key,
                          const char *from, bough_error *err);

/**
 * Count a request against the limits of its key.
 * @param index  Of its route; any number stands for one.
 * @return 0, or for how many seconds the key has to wait.
 */
int keys_take(struct keys *keys, const bough_api_key_row *row, size_t index);

/** All keys with their last uses as they are now; free(). */
BOUGH_CHECK int keys_list(bough_api_key_row **rows, size_t *n, struct keys *keys, bough_error *err);

#endif
