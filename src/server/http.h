/**
 * The HTTP side of boughd: libevent's evhttp on the loop thread, handlers on worker threads.
 *
 * A request is the loop thread's until its handler is queued, then the worker's until http_done()
 * posts it back. While a handler runs, the loop thread only sets `cancelled`.
 */
#ifndef BOUGH_SERVER_HTTP_H
#define BOUGH_SERVER_HTTP_H

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <netinet/in.h>

#include "server/server.h"

typedef struct request request;

/** Handle a request: on BOUGH_OK `status` and `answer` are set. */
typedef int (*request_handler)(request *rq, bough_error *err);

/** What a route needs. */
enum {
    ROUTE_BODY = 1, /**< a JSON object; else none, or an empty one */
    ROUTE_LONG = 2, /**< it may take hours */
    ROUTE_SQL = 4,  /**< POST /sql: not of the API; the body as it is, anybody may ask */
    /* which keys with a scope may use it (server/access.h) */
    ROUTE_ANY_KEY = 8,     /**< not of a project, but told to everybody */
    ROUTE_BRANCH_KEY = 16, /**< of a project, and keeps within the key's branch */
    ROUTE_OWNER = 32,      /**< of a project, but closed to all of them */
    ROUTE_SECRET = 64      /**< shows a password: closed to keys that may only read */
};

typedef struct route {
    enum evhttp_cmd_type method;
    const char *pattern; /**< below /api/v2; a segment "{}" matches any and is given in params */
    request_handler handle;
    unsigned flags;
} route;

#define REQUEST_PARAMS_MAX 4

struct request {
    server *srv;
    struct evhttp_request *http;
    struct event *closed; /**< watches for the client going away; may be NULL */
    const route *route;
    char *params[REQUEST_PARAMS_MAX];
    struct evkeyvalq query;
    json_t *body; /**< an object; without ROUTE_BODY an empty one or NULL */
    char *raw;    /**< with ROUTE_SQL: the body as it came */
    size_t raw_size;
    char
        from[INET6_ADDRSTRLEN]; /**< with ROUTE_SQL: whose request it is, through trusted proxies */
    int gone_fd; /**< with ROUTE_SQL: an eventfd, readable once the client has gone; else -1 */
    bough_api_key_row key; /**< whose request it is; no ids where it has no scope */
    char id[BOUGH_ID_SIZE];
    double received_ms;
    bool is_stream;        /**< the client wants lines of JSON with progress */
    bool is_started;       /**< the head of a stream has been sent; loop thread */
    atomic_bool cancelled; /**< the client has gone */
    int status;            /**< HTTP status of success */
    json_t *answer;
    char *text; /**< JSON, instead of `answer`; malloc'ed */
    size_t text_size;
    struct message *end; /**< what tells the loop that it is done: made before it begins */
    const char *slug;    /**< overrides the error's code in the answer */
    int error_status;    /**< overrides the error's HTTP status; 0: does not */
};

/** Find the route of a request; fills params. NULL when there is none. (router.c) */
const route *router_find(enum evhttp_cmd_type method, const char *path, char **params);

/** How many routes there are, and which one this is. (router.c) */
size_t router_count(void);
size_t router_index(const route *r);

/** The methods that a path has, "GET, POST", into `out`; false when it has none. (router.c) */
bool router_methods(char *out, size_t size, const char *path);

/** Listen. @retval BOUGH_E_CONFLICT  The port is taken. */
BOUGH_CHECK int http_open(struct http **http, server *srv, int port, bough_error *err);
void http_close(struct http *http);
/** Take no new connections. Loop thread. */
void http_stop_listening(struct http *http);

/**
 * The address of who asks (server/forwarded.h). Loop thread.
 * @param[out] out  INET6_ADDRSTRLEN bytes.
 */
void http_client_address(char *out, const server *srv, struct evhttp_request *http);

/** Send a line of progress. Worker thread. */
void http_progress(request *rq, const char *phase, uint64_t done_bytes, uint64_t total_bytes);

/** A header of the request, or NULL. */
const char *request_header(const request *rq, const char *name);
/** A query parameter, or NULL. */
const char *request_query(const request *rq, const char *name);

#endif
