/**
 * The WebSocket of edge drivers (@neondatabase/serverless): PostgreSQL's protocol in binary frames.
 *
 * This is the one place where a session's bytes pass through boughd: frames have to be unpacked,
 * and there is no socket that could be handed over. Each session has a thread of its own, which
 * ends with it; the loop is not disturbed. Sessions end with boughd.
 */
#ifndef BOUGH_SERVER_WEBSOCKET_H
#define BOUGH_SERVER_WEBSOCKET_H

#include <event2/http.h>

#include "server/server.h"

/** So many sessions at most; further ones are refused with status 503. */
#define WEBSOCKETS_MAX 256

BOUGH_CHECK int websockets_new(struct websockets **all, server *srv, bough_error *err);
/** End all sessions, and wait for their threads. @return How many still run; then nothing is freed.
 */
int websockets_end(struct websockets *all, int timeout_ms);

/**
 * Take a request that asks for an upgrade, if it does. Loop thread.
 * @return Whether it did: then the request is answered, and not the caller's any more.
 */
bool websocket_take(struct websockets *all, struct evhttp_request *http);

#endif
