/**
 * The front door: one TCP port for all endpoints. It learns from a client's first bytes which
 * endpoint is meant (server/hello.h), wakes its compute where it sleeps, and hands the client's
 * socket to it (preload/handoff.h). After that it has no part in the connection but a pipe whose
 * end tells that the session has ended.
 *
 * Everything runs on the loop thread, but looking up and waking, which run on the pools `lookups`
 * and `wakes` of the server.
 */
#ifndef BOUGH_SERVER_DOOR_H
#define BOUGH_SERVER_DOOR_H

#include "server/server.h"

/**
 * Listen. Before the loop runs.
 * @retval BOUGH_E_CONFLICT  The port that was asked for is taken.
 */
BOUGH_CHECK int door_open(struct door **door, server *srv, const server_options *options,
                          bough_error *err);

/** Learn whether some project says who may connect. After each change of that; any thread. Where
 * the catalogue does not tell, one does: then each connection is held against its own project. */
void door_read_lists(server *srv);

/** Take the certificate into use (server/tls.h) and answer clients from now on. */
BOUGH_CHECK int door_begin(struct door *door, bough_error *err);

/** Take no new connections, and drop those that have not got through. Loop thread. */
void door_stop(struct door *door);

/** End the sessions that go through boughd. @return How many threads are left after so long. */
BOUGH_CHECK int door_end(struct door *door, int timeout_ms);

/** Free; the pools have ended. Sessions go on. */
void door_close(struct door *door);

/** How clients reach an endpoint. */
typedef struct door_address {
    char name[320]; /**< ID.domain, whether or not that resolves */
    char host[320];
    int port;
    bool needs_option; /**< the host does not say which endpoint: options=endpoint=ID, in clear */
} door_address;

void door_address_of(door_address *address, const struct door *door, const char *endpoint);

/**
 * Where boughd itself connects to: at a port of its own, where who has no pass is refused, so that
 * nobody for whom boughd connects is ever taken for this machine. In clear.
 */
#define DOOR_OWN_ADDRESS "127.0.0.1"
int door_own_port(const struct door *door);

#define DOOR_PASS_SIZE 33

/**
 * A word that says for whom one connection of boughd's own speaks, there: hello_pass_write() before
 * anything else, or for libpq, which says nothing of ours before, bough_pass=WORD as the first of
 * the options. Good once, and for a minute. Any thread.
 *
 * @param[out] word  DOOR_PASS_SIZE bytes.
 * @param address    Whose address lists and limits are to be about.
 */
BOUGH_CHECK int door_pass_make(char *word, struct door *door, const char *address,
                               bough_error *err);

/** "127.0.0.1:5433" */
const char *door_listens_on(const struct door *door);
/** Names and addresses that the server's certificate needs; NULL-terminated. */
const char *const *door_names(const struct door *door);

/** Numbers for status. Any thread; as of a moment ago. */
typedef struct door_counts {
    int handshakes, sessions;
} door_counts;

door_counts door_count(const struct door *door);

#endif
