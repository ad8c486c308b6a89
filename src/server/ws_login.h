/**
 * Logging in to a compute for a client that spoke its password in clear: edge drivers send
 * StartupMessage, password and query in one go, to save journeys, which no SCRAM exchange allows.
 * So boughd does that exchange in their place. Blocking, with limits; any thread.
 */
#ifndef BOUGH_SERVER_WS_LOGIN_H
#define BOUGH_SERVER_WS_LOGIN_H

#include <stdint.h>

#include "server/server.h"

/** Most bytes of one message before a session begins. */
#define WS_MESSAGE_MAX ((size_t)65536)

/** Bytes that grow; initialise with zeros, free `data`. */
typedef struct ws_bytes {
    uint8_t *data;
    size_t size, room;
} ws_bytes;

/** @return 0, or -1 when memory ran out or it would be larger than `most`. */
BOUGH_CHECK int ws_bytes_add(ws_bytes *b, const void *data, size_t size, size_t most);
/** Remove from the front. */
void ws_bytes_drop(ws_bytes *b, size_t size);

/** When to give up: one's own time limit, or a descriptor that becomes readable. */
typedef struct ws_limit {
    double until_ms; /**< of bough_now_ms() */
    int stop_fd;
} ws_limit;

/** Wait until a descriptor is ready. @retval BOUGH_E_TIMEOUT, BOUGH_E_CANCELLED */
BOUGH_CHECK int ws_wait(int fd, short events, const ws_limit *limit, bough_error *err);

/**
 * Write the StartupMessage that the front door gets: the client's, with an endpoint where it names
 * no target itself.
 *
 * @param packet    Whole and well-formed (hello_startup()).
 * @param endpoint  From the host name; "" for none.
 * @param from      Their address: for pg_stat_activity, where the client gives no
 *                  application_name.
 */
BOUGH_CHECK int ws_startup(ws_bytes *out, const uint8_t *packet, size_t size, const char *endpoint,
                           const char *from, bough_error *err);

/**
 * Connect to the front door and say for whom: lists and limits are about them.
 * @param from  Their address.
 */
BOUGH_CHECK int ws_connect(int *fd, const server *srv, const char *from, const ws_limit *limit,
                           bough_error *err);

/**
 * Send a CancelRequest, and wait until it has been done, as libpq does: the other side closes then,
 * and PgBouncer (1.18) ends itself over a client that leaves before.
 */
void ws_cancel(int fd, const uint8_t *packet, size_t size, const ws_limit *limit);

/**
 * Send the StartupMessage and authenticate.
 *
 * @param[out] answer  For the client: from AuthenticationOk on, as far as it has come; or the
 *                     server's ErrorResponse.
 * @retval BOUGH_E_PG    Refused: `answer` says why.
 */
BOUGH_CHECK int ws_login(ws_bytes *answer, int fd, const ws_bytes *startup, const char *password,
                         const ws_limit *limit, bough_error *err);

/** Add an ErrorResponse. */
BOUGH_CHECK int ws_refusal(ws_bytes *out, const char *sqlstate, const char *message);

#endif
