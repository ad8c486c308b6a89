/*
 * evhttp on the loop thread. Workers hand their results over by a queue and a user event.
 *
 * libevent detail: while a request is being handled, evhttp does not read from its connection
 * (2.1.12, http.c), so a client that goes away is noticed by an event of our own. When the
 * connection breaks meanwhile, evhttp detaches the request, and sending to it only frees it.
 */
#include "server/http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#include "model/ids.h"
#include "server/access.h"
#include "server/answer.h"
#include "server/body.h"
#include "server/forwarded.h"
#include "server/http_sql.h"
#include "server/keys.h"
#include "server/websocket.h"
#include "util/jsontext.h"
#include "util/log.h"

#define BODY_MAX ((size_t)1024 * 1024)
#define WRITE_MAX ((size_t)256 * 1024)
#define IDLE_SECONDS 300
#define PREFIX "/api/v2"

/* From a worker: a line of progress, or the end (line NULL). */
typedef struct message {
    struct message *next;
    request *rq;
    char *line;
} message;

struct http {
    server *srv;
    struct evhttp *evhttp;
    struct evhttp_bound_socket *socket;
    struct event *posted;
    pthread_mutex_t mutex;
    message *first, **last;
};

const char *request_header(const request *rq, const char *name) {
    return evhttp_find_header(evhttp_request_get_input_headers(rq->http), name);
}

const char *request_query(const request *rq, const char *name) {
    return evhttp_find_header(&rq->query, name);
}

static void unwatch_client(request *rq) {
    if (!rq->closed) return;
    int fd = event_get_fd(rq->closed);
    event_free(rq->closed);
    (void)close(fd);
    rq->closed = NULL;
}

static void request_free(request *rq) {
    unwatch_client(rq);
    for (int i = 0; i < REQUEST_PARAMS_MAX; i++) free(rq->params[i]);
    evhttp_clear_headers(&rq->query);
    json_decref(rq->body);
    json_decref(rq->answer);
    free(rq->end);
    if (rq->raw) explicit_bzero(rq->raw, rq->raw_size);
    free(rq->raw);
    free(rq->text);
    if (rq->gone_fd >= 0) close(rq->gone_fd);
    free(rq);
}

static bool is_sql(const request *rq) {
    return rq->route && rq->route->flags & ROUTE_SQL;
}

/* One line, whatever names a message repeats. */
static void flatten(char *text) {
    for (; *text; text++)
        if (iscntrl((unsigned char)*text)) *text = ' ';
}

static json_t *error_body(const request *rq, const bough_error *error) {
    bough_error copy = *error, *err = &copy;
    const char *slug = rq->slug ? rq->slug : bough_code_get(err->code)->slug;
    flatten(copy.message);
    flatten(copy.hint);
    json_t *body = json_pack("{s:s,s:s,s:o}", "request_id", rq->id, "code", slug, "message",
                             answer_text(err->message)); /* a file's name may be no UTF-8 */
    if (body && *err->hint) (void)json_object_set_new(body, "hint", answer_text(err->hint));
    return body;
}

static void add_headers(const request *rq, const char *type) {
    struct evkeyvalq *headers = evhttp_request_get_output_headers(rq->http);
    (void)evhttp_add_header(headers, "Content-Type", type);
    (void)evhttp_add_header(headers, "X-Request-Id", rq->id);
    (void)evhttp_add_header(headers, "X-Neon-Ret-Request-Id", rq->id);
    (void)evhttp_add_header(headers, "Cache-Control", "no-store");
    if (is_sql(rq)) /* a page of any origin may ask: it has to know a password */
        (void)evhttp_add_header(headers, "Access-Control-Allow-Origin", "*");
}

/* NULL where memory ran out: half an answer is none. */
static struct evbuffer *json_buffer(const json_t *value) {
    struct evbuffer *buffer = evbuffer_new();
    char *text = bough_json_text_of(value, JSON_COMPACT | JSON_REAL_PRECISION(6));
    bool is_whole = buffer && text && evbuffer_add(buffer, text, strlen(text)) == 0 &&
                    evbuffer_add(buffer, "\n", 1) == 0;
    if (text) explicit_bzero(text, strlen(text)); /* may hold a password */
    free(text);
    if (is_whole) return buffer;
    if (buffer) evbuffer_free(buffer);
    return NULL;
}

/* What is said where there is no memory for anything else. */
static struct evbuffer *last_words(bool is_stream) {
    static const char words[] = "{\"code\":\"OUT_OF_MEMORY\",\"message\":\"out of memory\"}\n";
    static const char line[] =
        "{\"status\":500,\"body\":{\"code\":\"OUT_OF_MEMORY\",\"message\":\"out of memory\"}}\n";
    struct evbuffer *buffer = evbuffer_new();
    if (buffer)
        (void)evbuffer_add_reference(buffer, is_stream ? line : words,
                                     (is_stream ? sizeof line : sizeof words) - 1, NULL, NULL);
    return buffer;
}

static void free_text(const void *data, size_t size, void *text) {
    (void)data;
    explicit_bzero(text, size); /* may hold a password */
    free(text);
}

/* The answer that is text already, not copied. */
static struct evbuffer *text_buffer(request *rq) {
    struct evbuffer *buffer = evbuffer_new();
    if (buffer &&
        evbuffer_add_reference(buffer, rq->text, rq->text_size, free_text, rq->text) == 0) {
        rq->text = NULL;
        return buffer;
    }
    if (buffer) evbuffer_free(buffer);
    return NULL;
}

/* Not 16 KiB in each round of the loop, which is what libevent does by itself. */
static void write_at_once(const request *rq) {
    struct evhttp_connection *connection = evhttp_request_get_connection(rq->http);
    struct bufferevent *bev = connection ? evhttp_connection_get_bufferevent(connection) : NULL;
    if (bev) (void)bufferevent_set_max_single_write(bev, WRITE_MAX);
}

/* Send a JSON answer and forget the request. */
static void finish(request *rq, int status, const json_t *body) {
    unwatch_client(rq);
    if (rq->is_stream) {
        json_t *line = json_pack("{s:i,s:O?}", "status", status, "body", body);
        struct evbuffer *buffer = body || status < 400 ? json_buffer(line) : NULL;
        if (!buffer) buffer = last_words(true);
        if (!rq->is_started) {
            add_headers(rq, "application/x-ndjson");
            evhttp_send_reply_start(rq->http, 200, "OK");
        }
        if (buffer) evhttp_send_reply_chunk(rq->http, buffer);
        evhttp_send_reply_end(rq->http);
        if (buffer) evbuffer_free(buffer);
        json_decref(line);
    } else {
        enum evhttp_cmd_type command = evhttp_request_get_command(rq->http);
        bool is_head = command == EVHTTP_REQ_HEAD; /* evhttp would send the body */
        bool has_body = status != 204 && (body || rq->text || command != EVHTTP_REQ_OPTIONS);
        struct evbuffer *buffer = is_head || !has_body ? NULL
                                  : rq->text           ? text_buffer(rq)
                                                       : json_buffer(body);
        if (!is_head && has_body && !buffer) {
            buffer = last_words(false);
            status = 500;
        }
        add_headers(rq, "application/json");
        write_at_once(rq);
        evhttp_send_reply(rq->http, status, status < 400 ? "OK" : "Error", buffer);
        if (buffer) evbuffer_free(buffer);
    }
    request_free(rq);
}

static void finish_error(request *rq, const bough_error *err, int status) {
    json_t *body = error_body(rq, err);
    finish(rq, status ? status : bough_code_get(err->code)->http_status, body);
    json_decref(body);
}

static void refuse(request *rq, int status, int code, const char *slug, const char *text) {
    bough_error err;
    (void)bough_fail(&err, code, "%s", text);
    if (code == BOUGH_E_AUTH)
        (void)bough_hint(&err, "Send the header \"Authorization: Bearer KEY\".");
    rq->slug = slug;
    finish_error(rq, &err, status);
}

/* Progress may be lost, the end of a request (line NULL) may not: it has its message already. */
static void post(request *rq, char *line) {
    struct http *h = rq->srv->http;
    message *m = line ? malloc(sizeof *m) : rq->end;
    if (!m) {
        free(line);
        return;
    }
    *m = (message){.rq = rq, .line = line};
    pthread_mutex_lock(&h->mutex);
    *h->last = m;
    h->last = &m->next;
    pthread_mutex_unlock(&h->mutex);
    event_active(h->posted, EV_READ, 1);
}

static void send_progress(request *rq, char *line) {
    if (!rq->is_stream) return;
    struct evbuffer *buffer = evbuffer_new();
    if (!buffer) return;
    if (!rq->is_started) {
        add_headers(rq, "application/x-ndjson");
        evhttp_send_reply_start(rq->http, 200, "OK");
        rq->is_started = true;
    }
    (void)evbuffer_add_printf(buffer, "%s\n", line);
    evhttp_send_reply_chunk(rq->http, buffer);
    evbuffer_free(buffer);
}

/* Loop thread: take what workers have posted. */
static void on_posted(evutil_socket_t fd, short what, void *arg) {
    struct http *h = arg;
    (void)fd;
    (void)what;
    pthread_mutex_lock(&h->mutex);
    message *m = h->first;
    h->first = NULL;
    h->last = &h->first;
    pthread_mutex_unlock(&h->mutex);
    while (m) {
        message *next = m->next;
        if (m->line) {
            send_progress(m->rq, m->line);
            free(m->line);
            free(m);
        } else {
            finish(m->rq, m->rq->status, m->rq->answer); /* and with it the message */
        }
        m = next;
    }
}

void http_progress(request *rq, const char *phase, uint64_t done_bytes, uint64_t total_bytes) {
    if (!rq->is_stream) return;
    json_t *line = json_pack("{s:{s:s,s:I,s:I}}", "progress", "phase", phase, "done_bytes",
                             (json_int_t)done_bytes, "total_bytes", (json_int_t)total_bytes);
    char *text = line ? bough_json_text_of(line, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(line);
    if (text) post(rq, text);
}

/* On the worker what the loop would have to do else: a long list takes a while to write. */
static void write_answer(request *rq) {
    char *text = bough_json_text_of(rq->answer, JSON_COMPACT | JSON_REAL_PRECISION(6));
    size_t size = text ? strlen(text) : 0;
    char *line = text ? realloc(text, size + 2) : NULL;
    if (!line) {
        free(text); /* the loop tries again */
        return;
    }
    memcpy(line + size, "\n", 2);
    rq->text = line;
    rq->text_size = size + 1;
    json_decref(rq->answer); /* that takes a while, too */
    rq->answer = NULL;
}

/* What a route without a body is sent would be ignored; nothing is. */
static int check_no_body(const request *rq, bough_error *err) {
    static const char *const known[] = {NULL};
    bool is_free = !rq->body || rq->route->flags & ROUTE_BODY; /* its handler knows the members */
    return is_free ? BOUGH_OK : body_check(rq->body, "", known, err);
}

/* Worker thread. */
static void run_handler(void *arg) {
    request *rq = arg;
    bough_error err = {0};
    answer_begin();
    int rc = access_check(rq, &err);
    if (!rc) rc = check_no_body(rq, &err);
    if (!rc) rc = rq->route->handle(rq, &err);
    if (!rc && !answer_is_whole()) rc = bough_fail(&err, BOUGH_E_NOMEM, "out of memory");
    if (rc) {
        json_decref(rq->answer);
        rq->answer = error_body(rq, &err);
        rq->status = rq->error_status ? rq->error_status : bough_code_get(rc)->http_status;
        if (rq->status >= 500)
            bough_log(BOUGH_LOG_ERROR, "request failed", "request", rq->id, "route",
                      rq->route->pattern, "error", err.message, NULL);
    } else if (!rq->answer && !rq->text && rq->status != 204) {
        (void)bough_fail(&err, BOUGH_E_NOMEM, "out of memory");
        rq->answer = error_body(rq, &err);
        rq->status = 500;
    }
    if (rq->answer && !rq->text && !rq->is_stream) write_answer(rq);
    post(rq, NULL);
}

/* It has gone, or has sent what is not to be read yet. */
static void on_client(evutil_socket_t fd, short what, void *arg) {
    request *rq = arg;
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    (void)what;
    if (poll(&p, 1, 0) <= 0) return;
    (void)event_del(rq->closed);
    atomic_store(&rq->cancelled, true);
    if (rq->gone_fd >= 0) (void)eventfd_write(rq->gone_fd, 1);
}

/* Whose key it is. BOUGH_E_AUTH: nobody's. */
static int authorize(request *rq, bough_error *err) {
    const char *header = request_header(rq, "Authorization");
    struct evhttp_connection *connection = evhttp_request_get_connection(rq->http);
    char *from = NULL;
    ev_uint16_t port;
    bool has_key = header && strncasecmp(header, "Bearer ", 7) == 0;
    if (connection) evhttp_connection_get_peer(connection, &from, &port);
    return keys_find(&rq->key, rq->srv->keys, has_key ? header + 7 : "", from ? from : "", err);
}

/* Whether the key has to wait; then the request is answered. */
static bool is_too_fast(request *rq) {
    size_t index = rq->route ? router_index(rq->route) : router_count();
    int seconds = keys_take(rq->srv->keys, &rq->key, index);
    char text[16];
    if (seconds == 0) return false;
    (void)snprintf(text, sizeof text, "%d", seconds);
    (void)evhttp_add_header(evhttp_request_get_output_headers(rq->http), "Retry-After", text);
    refuse(rq, 429, BOUGH_E_BUSY, "TOO_MANY_REQUESTS", "too many requests with this API key");
    return true;
}

/* Parse the body into rq->body, which stays NULL where none came for a route without one. Returns
 * an HTTP status, 0 for good. */
static int read_body(request *rq, char *why, size_t room) {
    struct evbuffer *input = evhttp_request_get_input_buffer(rq->http);
    size_t size = evbuffer_get_length(input);
    if (size > BODY_MAX) {
        (void)snprintf(why, room, "the body is larger than %zu bytes", BODY_MAX);
        return 413;
    }
    if (size == 0) {
        if (rq->route->flags & ROUTE_BODY) rq->body = json_object();
        return 0;
    }
    json_error_t error;
    const char *text = (const char *)evbuffer_pullup(input, -1);
    rq->body = text ? bough_json_load(text, size, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (rq->body && json_is_object(rq->body)) return 0;
    if (!text || (!rq->body && bough_json_lacked_memory(&error))) {
        (void)snprintf(why, room, "out of memory");
        return 500;
    }
    (void)snprintf(why, room, "the body is not a JSON object%s%.100s", rq->body ? "" : ": ",
                   rq->body ? "" : error.text);
    return 400;
}

/*
 * Notice when the client goes, in whichever way: libevent tells of the end of what it sends as
 * EV_CLOSED, but of a connection that was reset as EV_READ and EV_WRITE alone (2.1.12, epoll.c),
 * and would do so without end. So the edge is waited for, not the state: what the client may have
 * sent already wakes us once. By a duplicate, for evhttp waits for states of its own descriptor.
 */
static void watch_client(request *rq) {
    struct evhttp_connection *connection = evhttp_request_get_connection(rq->http);
    struct bufferevent *bev = connection ? evhttp_connection_get_bufferevent(connection) : NULL;
    int of = bev ? bufferevent_getfd(bev) : -1, fd = of < 0 ? -1 : fcntl(of, F_DUPFD_CLOEXEC, 3);
    if (fd < 0) return;
    rq->closed =
        event_new(rq->srv->loop, fd, EV_READ | EV_CLOSED | EV_ET | EV_PERSIST, on_client, rq);
    if (!rq->closed)
        (void)close(fd);
    else if (event_add(rq->closed, NULL) != 0)
        unwatch_client(rq);
}

static void refuse_route(request *rq, const char *path) {
    char methods[64];
    if (!router_methods(methods, sizeof methods, path)) {
        refuse(rq, 404, BOUGH_E_NOTFOUND, NULL,
               "this route does not exist"); /* the words that Neon's clients know */
        return;
    }
    (void)evhttp_add_header(evhttp_request_get_output_headers(rq->http), "Allow", methods);
    refuse(rq, 405, BOUGH_E_INVALID, "METHOD_NOT_ALLOWED", "this route does not have this method");
}

static void dispatch(request *rq, const char *path) {
    char why[160] = "";
    enum evhttp_cmd_type method = evhttp_request_get_command(rq->http);
    bough_error err = {0};
    int rc = authorize(rq, &err);
    if (rc) {
        refuse(rq, rc == BOUGH_E_AUTH ? 401 : 500, rc, NULL, err.message);
        return;
    }
    size_t prefix = strlen(PREFIX);
    if (strncmp(path, PREFIX "/", prefix + 1) == 0)
        rq->route = router_find(method, path + prefix, rq->params);
    if (is_too_fast(rq)) return;
    if (!rq->route) {
        refuse_route(rq, strncmp(path, PREFIX "/", prefix + 1) == 0 ? path + prefix : "");
        return;
    }
    int status = read_body(rq, why, sizeof why);
    if (status) {
        refuse(rq, status, status == 500 ? BOUGH_E_NOMEM : BOUGH_E_INVALID, NULL, why);
        return;
    }
    if (atomic_load(&rq->srv->stopping)) {
        refuse(rq, 503, BOUGH_E_UNREACHABLE, NULL, "the server is ending");
        return;
    }
    bool is_long = rq->route->flags & ROUTE_LONG;
    if (is_long) {
        const char *accept =
            evhttp_find_header(evhttp_request_get_input_headers(rq->http), "Accept");
        rq->is_stream = accept && strstr(accept, "application/x-ndjson");
        watch_client(rq);
    }
    if (job_pool_add(is_long ? rq->srv->longs : rq->srv->requests, run_handler, rq, &err) !=
        BOUGH_OK)
        finish_error(rq, &err, 503);
}

/* ---- POST /sql ---- */

void http_client_address(char *out, const server *srv, struct evhttp_request *http) {
    struct evhttp_connection *connection = evhttp_request_get_connection(http);
    char *peer = NULL;
    ev_uint16_t port;
    const struct evkeyval *header;
    if (connection) evhttp_connection_get_peer(connection, &peer, &port);
    (void)snprintf(out, INET6_ADDRSTRLEN, "%s", peer ? peer : "?");
    TAILQ_FOREACH_REVERSE(header, evhttp_request_get_input_headers(http), evkeyvalq, next) {
        if (strcasecmp(header->key, "X-Forwarded-For") == 0 &&
            !forwarded_back(out, header->value, srv->trusted))
            break;
    }
}

static int take_raw(request *rq, bough_error *err) {
    struct evbuffer *input = evhttp_request_get_input_buffer(rq->http);
    size_t size = evbuffer_get_length(input);
    if (size > SQL_BODY_MAX)
        return bough_fail(err, BOUGH_E_INVALID, "request is too large (max is %zu bytes)",
                          SQL_BODY_MAX);
    rq->raw = malloc(size + 1);
    rq->gone_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!rq->raw || rq->gone_fd < 0) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    rq->raw_size = size;
    rq->raw[size] = '\0';
    if (evbuffer_remove(input, rq->raw, size) != (int)size)
        return bough_fail(err, BOUGH_E_INTERNAL, "the body cannot be read");
    return BOUGH_OK;
}

static void dispatch_sql(request *rq) {
    static const route sql_route = {EVHTTP_REQ_POST, "/sql", sql_handle, ROUTE_SQL};
    struct evkeyvalq *headers = evhttp_request_get_output_headers(rq->http);
    enum evhttp_cmd_type method = evhttp_request_get_command(rq->http);
    bough_error err;
    rq->route = &sql_route;
    if (method == EVHTTP_REQ_OPTIONS) { /* a browser asks first */
        (void)evhttp_add_header(headers, "Access-Control-Allow-Methods", "POST, OPTIONS");
        (void)evhttp_add_header(headers, "Access-Control-Allow-Headers",
                                "Content-Type, Authorization, Neon-Connection-String,"
                                " Neon-Raw-Text-Output, Neon-Array-Mode,"
                                " Neon-Batch-Isolation-Level, Neon-Batch-Read-Only,"
                                " Neon-Batch-Deferrable");
        (void)evhttp_add_header(headers, "Access-Control-Max-Age", "86400");
        finish(rq, 200, NULL);
        return;
    }
    if (method != EVHTTP_REQ_POST) {
        (void)evhttp_add_header(headers, "Allow", "POST, OPTIONS");
        refuse(rq, 405, BOUGH_E_INVALID, "METHOD_NOT_ALLOWED",
               "this route does not have this method");
        return;
    }
    int rc = take_raw(rq, &err);
    if (rc) {
        finish_error(rq, &err, rq->raw_size ? 0 : rc == BOUGH_E_INVALID ? 413 : 0);
        return;
    }
    if (atomic_load(&rq->srv->stopping)) {
        refuse(rq, 503, BOUGH_E_UNREACHABLE, NULL, "the server is ending");
        return;
    }
    http_client_address(rq->from, rq->srv, rq->http);
    watch_client(rq);
    if (job_pool_add(rq->srv->sqls, run_handler, rq, &err) != BOUGH_OK) finish_error(rq, &err, 503);
}

/* A client may name its request, to find it again in answers and logs. */
static void take_id(request *rq) {
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const char *id = request_header(rq, "X-Request-Id");
    size_t n = id ? strlen(id) : 0;
    if (n > 0 && n < sizeof rq->id && strspn(id, allowed) == n) memcpy(rq->id, id, n + 1);
}

static void on_request(struct evhttp_request *http, void *arg) {
    struct http *h = arg;
    if (websocket_take(h->srv->websockets, http)) return;
    request *rq = calloc(1, sizeof *rq);
    message *end = calloc(1, sizeof *end);
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    const char *query = uri ? evhttp_uri_get_query(uri) : NULL;
    if (!rq || !end || bough_ids_uuid(rq->id, NULL) != BOUGH_OK) {
        free(rq);
        free(end);
        evhttp_send_error(http, 500, NULL);
        return;
    }
    rq->srv = h->srv;
    rq->http = http;
    rq->end = end;
    rq->gone_fd = -1;
    take_id(rq);
    rq->received_ms = bough_now_ms();
    rq->status = 200;
    TAILQ_INIT(&rq->query);
    if (query && evhttp_parse_query_str(query, &rq->query) != 0) {
        refuse(rq, 400, BOUGH_E_INVALID, NULL, "the query is malformed");
        return;
    }
    if (path && strcmp(path, "/sql") == 0)
        dispatch_sql(rq);
    else
        dispatch(rq, path ? path : "");
}

int http_open(struct http **out, server *srv, int port, bough_error *err) {
    *out = NULL;
    struct http *h = calloc(1, sizeof *h);
    if (!h) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    h->srv = srv;
    h->last = &h->first;
    pthread_mutex_init(&h->mutex, NULL);
    h->evhttp = evhttp_new(srv->loop);
    h->posted = event_new(srv->loop, -1, EV_PERSIST | EV_READ, on_posted, h);
    if (!h->evhttp || !h->posted) {
        http_close(h);
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    evhttp_set_allowed_methods(h->evhttp, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_PATCH |
                                              EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | EVHTTP_REQ_HEAD |
                                              EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE);
    evhttp_set_max_headers_size(h->evhttp, 65536);
    evhttp_set_max_body_size(h->evhttp,
                             (ev_ssize_t)SQL_BODY_MAX); /* beyond, evhttp itself answers 413 */
    evhttp_set_timeout(h->evhttp, IDLE_SECONDS);
    evhttp_set_gencb(h->evhttp, on_request, h);
    h->socket = evhttp_bind_socket_with_handle(h->evhttp, "127.0.0.1", (ev_uint16_t)port);
    if (!h->socket) {
        int failed = errno;
        http_close(h);
        if (failed != EADDRINUSE)
            return bough_fail_sys(err, failed, "could not listen on 127.0.0.1:%d", port);
        (void)bough_fail(err, BOUGH_E_CONFLICT, "port %d is taken", port);
        return bough_hint(err, "Choose another one with --port.");
    }
    /* connections inherit it (Linux): without, the last piece of an answer of several waits for the
     * client's delayed acknowledgement, 40 ms */
    (void)setsockopt(evhttp_bound_socket_get_fd(h->socket), IPPROTO_TCP, TCP_NODELAY, &(int){1},
                     sizeof(int));
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    if (getsockname(evhttp_bound_socket_get_fd(h->socket), (struct sockaddr *)&address, &size) == 0)
        srv->port = ntohs(address.sin_port);
    *out = h;
    return BOUGH_OK;
}

void http_stop_listening(struct http *h) {
    if (h->socket) evhttp_del_accept_socket(h->evhttp, h->socket);
    h->socket = NULL;
}

void http_close(struct http *h) {
    if (!h) return;
    if (h->evhttp) evhttp_free(h->evhttp);
    if (h->posted) event_free(h->posted);
    pthread_mutex_destroy(&h->mutex);
    free(h);
}
