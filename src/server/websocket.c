/*
 * Sessions over WebSockets. Framing is wslay's (RFC 6455); the handshake is here.
 *
 * libevent detail: evhttp cannot give a connection away. Its bufferevent is switched off, the
 * socket is duplicated, and another one put in its place, which evhttp may shut down and close.
 */
#include "server/websocket.h"

#include <ctype.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>
#include <wslay/wslay.h>

#include "server/door.h"
#include "server/hello.h"
#include "server/http.h"
#include "server/sessions.h"
#include "server/ws_login.h"
#include "util/fs.h"
#include "util/log.h"

enum {
    HANDSHAKE_MS = 15000, /* until it has said who it is */
    LOGIN_MS = 120000,    /* with waking */
    FLUSH_MS = 2000,      /* for the last words */
    CHUNK = 32768,
    KEY_LENGTH = 24 /* of Sec-WebSocket-Key: 16 bytes in base64 */
};
#define PENDING_MAX ((size_t)2 * CHUNK) /* from a client, before they are sent on */

struct websockets {
    sessions sessions;
    server *srv;
};

typedef struct session {
    struct websockets *all;
    int client, compute;
    char endpoint[HELLO_ENDPOINT_SIZE]; /* by the host name; "" for none */
    char from[INET6_ADDRSTRLEN];        /* whose it is */
    char accept[64];
    wslay_event_context_ptr ws;
    ws_bytes up;  /* from the client, in order */
    size_t taken; /* bytes of the socket, since read_frames() began */
    bool is_data, is_over, is_full;
} session;

/* ---- wslay's callbacks ---- */

/*
 * wslay reads on and on, and keeps an answer for each ping. The rest waits in the socket: where
 * enough is there to be sent on; where answers wait, so that who takes none gets no more of them
 * than one of wslay's buffers asks for; and after a chunk, so that limits of time are looked at.
 */
static ssize_t on_recv(wslay_event_context_ptr ws, uint8_t *data, size_t size, int flags,
                       void *arg) {
    session *s = arg;
    (void)flags;
    bool is_enough = s->up.size >= CHUNK || s->taken >= CHUNK || wslay_event_want_write(ws);
    ssize_t n = is_enough ? -1 : recv(s->client, data, size, MSG_DONTWAIT);
    if (n > 0) {
        s->taken += (size_t)n;
        return n;
    }
    bool waits = is_enough || (n < 0 && (errno == EAGAIN || errno == EINTR));
    if (n == 0) s->is_over = true;
    wslay_event_set_error(ws, waits ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static ssize_t on_send(wslay_event_context_ptr ws, const uint8_t *data, size_t size, int flags,
                       void *arg) {
    const session *s = arg;
    (void)flags;
    ssize_t n = send(s->client, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return n;
    wslay_event_set_error(ws, errno == EAGAIN || errno == EINTR ? WSLAY_ERR_WOULDBLOCK
                                                                : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static void on_frame(wslay_event_context_ptr ws,
                     const struct wslay_event_on_frame_recv_start_arg *frame, void *arg) {
    (void)ws;
    ((session *)arg)->is_data = !wslay_is_ctrl_frame(frame->opcode);
}

static void on_chunk(wslay_event_context_ptr ws,
                     const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *arg) {
    session *s = arg;
    (void)ws;
    if (s->is_data && ws_bytes_add(&s->up, chunk->data, chunk->data_length, PENDING_MAX) != 0)
        s->is_full = true;
}

static int open_frames(session *s) {
    static const struct wslay_event_callbacks callbacks = {.recv_callback = on_recv,
                                                           .send_callback = on_send,
                                                           .on_frame_recv_start_callback = on_frame,
                                                           .on_frame_recv_chunk_callback =
                                                               on_chunk};
    if (wslay_event_context_server_init(&s->ws, &callbacks, s) != 0) {
        s->ws = NULL; /* it may have been set, and freed */
        return -1;
    }
    wslay_event_config_set_no_buffering(s->ws, 1);
    return 0;
}

/* ---- frames ---- */

/* Read of what is there. False at the end of the connection: also by a frame that is wrong, after
 * which wslay takes nothing any more. */
static bool read_frames(session *s) {
    s->taken = 0;
    return wslay_event_recv(s->ws) == 0 && !s->is_over && !s->is_full &&
           wslay_event_get_read_enabled(s->ws);
}

static bool write_frames(session *s) {
    return wslay_event_send(s->ws) == 0;
}

static int queue(session *s, const void *data, size_t size) {
    struct wslay_event_msg message = {WSLAY_BINARY_FRAME, data, size};
    return wslay_event_queue_msg(s->ws, &message);
}

/* Send what is queued, for as long as that may take. */
static int flush(session *s, const ws_limit *limit, bough_error *err) {
    while (wslay_event_want_write(s->ws)) {
        if (!write_frames(s)) return bough_fail(err, BOUGH_E_UNREACHABLE, "the client has gone");
        if (!wslay_event_want_write(s->ws)) break;
        int rc = ws_wait(s->client, POLLOUT, limit, err);
        if (rc) return rc;
    }
    return BOUGH_OK;
}

/* Until `up` has so many bytes. */
static int need(session *s, size_t size, const ws_limit *limit, bough_error *err) {
    while (s->up.size < size) {
        int rc = flush(s, limit, err); /* answers to pings */
        if (!rc) rc = ws_wait(s->client, POLLIN, limit, err);
        if (rc) return rc;
        if (!read_frames(s)) return bough_fail(err, BOUGH_E_UNREACHABLE, "the client has gone");
    }
    return BOUGH_OK;
}

/* ---- the first packets ---- */

static int wrong(bough_error *err) {
    return bough_fail(err, BOUGH_E_INVALID, "what was sent is not PostgreSQL's protocol");
}

/* The StartupMessage; requests for encryption before it are refused, as within TLS. `*is_cancel`:
 * it was a CancelRequest, in `packet`. */
static int read_startup(session *s, ws_bytes *packet, bool *is_cancel, const ws_limit *limit,
                        bough_error *err) {
    for (;;) {
        size_t size = 8;
        int rc = need(s, size, limit, err);
        if (rc) return rc;
        hello_kind kind = hello_first(&size, s->up.data, s->up.size);
        if (kind == HELLO_SSL_REQUEST || kind == HELLO_GSS_REQUEST) {
            ws_bytes_drop(&s->up, 8);
            if (queue(s, "N", 1) != 0) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
            rc = flush(s, limit, err);
            if (rc) return rc;
            continue;
        }
        if (kind == HELLO_MORE) {
            rc = need(s, s->up.size + 1, limit, err);
            if (rc) return rc;
            continue;
        }
        if ((kind != HELLO_STARTUP && kind != HELLO_CANCEL) || size > HELLO_STARTUP_MAX)
            return wrong(err);
        rc = need(s, size, limit, err);
        if (rc) return rc;
        *is_cancel = kind == HELLO_CANCEL;
        bool ok = *is_cancel
                      ? ws_bytes_add(packet, s->up.data, size, HELLO_STARTUP_MAX) == 0
                      : ws_startup(packet, s->up.data, size, s->endpoint, s->from, err) == BOUGH_OK;
        ws_bytes_drop(&s->up, size);
        return ok ? BOUGH_OK : err->code ? err->code : bough_fail(err, BOUGH_E_NOMEM, "no memory");
    }
}

/* The PasswordMessage that answers our request for one; its text, to be freed. */
static int read_password(session *s, char **password, const ws_limit *limit, bough_error *err) {
    static const uint8_t question[] = {'R', 0, 0, 0, 8, 0, 0, 0, 3};
    if (queue(s, question, sizeof question) != 0)
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = flush(s, limit, err);
    if (!rc) rc = need(s, 5, limit, err);
    if (rc) return rc;
    const uint8_t *d = s->up.data;
    size_t size = (size_t)d[1] << 24 | (size_t)d[2] << 16 | (size_t)d[3] << 8 | d[4];
    if (d[0] != 'p' || size < 5 || size > 4096) return wrong(err);
    rc = need(s, size + 1, limit, err);
    if (rc) return rc;
    if (s->up.data[size] != '\0') return wrong(err);
    *password = strdup((const char *)s->up.data + 5);
    explicit_bzero(s->up.data + 5, size - 4);
    ws_bytes_drop(&s->up, size + 1);
    return *password ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

static int log_in(session *s, bool *is_cancel, bough_error *err) {
    ws_limit limit = {bough_now_ms() + HANDSHAKE_MS, s->all->sessions.stop_fd};
    ws_bytes packet = {0}, answer = {0};
    char *password = NULL;
    *is_cancel = false;
    int rc = read_startup(s, &packet, is_cancel, &limit, err);
    if (!rc && !*is_cancel) rc = read_password(s, &password, &limit, err);
    limit.until_ms = bough_now_ms() + (*is_cancel ? HANDSHAKE_MS : LOGIN_MS);
    if (!rc) rc = ws_connect(&s->compute, s->all->srv, s->from, &limit, err);
    if (!rc && *is_cancel)
        ws_cancel(s->compute, packet.data, packet.size, &limit);
    else if (!rc)
        rc = ws_login(&answer, s->compute, &packet, password, &limit, err);
    if (answer.size > 0 && queue(s, answer.data, answer.size) != 0)
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (password) explicit_bzero(password, strlen(password));
    free(password);
    free(packet.data);
    free(answer.data);
    return rc;
}

/* ---- the session ---- */

/* From the compute to the client. False at its end. */
static bool carry_down(session *s, uint8_t *chunk) {
    ssize_t n = recv(s->compute, chunk, CHUNK, MSG_DONTWAIT);
    if (n > 0) return queue(s, chunk, (size_t)n) == 0;
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static bool carry_up(session *s) {
    ssize_t n = send(s->compute, s->up.data, s->up.size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) ws_bytes_drop(&s->up, (size_t)n);
    return n > 0 || errno == EAGAIN || errno == EINTR;
}

/* Neither side is read while the other is slow, nor a client that does not take its answers, so
 * that no more than a chunk waits. */
static void carry(session *s) {
    uint8_t *chunk = malloc(CHUNK);
    bool goes_on = chunk != NULL;
    while (goes_on) {
        bool owes = wslay_event_want_write(s->ws), has_up = s->up.size > 0;
        short of_client = owes ? POLLOUT : has_up ? 0 : POLLIN;
        short of_compute = (short)((has_up ? POLLOUT : 0) | (owes ? 0 : POLLIN));
        struct pollfd fds[] = {
            {.fd = s->client, .events = of_client},
            /* the end of one that nothing is waited for of would wake us again and again */
            {.fd = of_compute ? s->compute : -1, .events = of_compute},
            {.fd = s->all->sessions.stop_fd, .events = POLLIN}};
        if (poll(fds, 3, -1) < 0 && errno != EINTR) break;
        goes_on = !fds[2].revents;
        if (goes_on && fds[0].revents & POLLOUT) goes_on = write_frames(s);
        if (goes_on && fds[0].revents & (POLLIN | POLLHUP | POLLERR))
            goes_on = of_client & POLLIN && read_frames(s); /* else it has gone */
        if (s->up.size && !carry_up(s)) goes_on = false;
        if (goes_on && !owes && fds[1].revents & (POLLIN | POLLHUP | POLLERR))
            goes_on = carry_down(s, chunk);
    }
    free(chunk);
}

static int answer_upgrade(session *s, bough_error *err) {
    const ws_limit limit = {bough_now_ms() + HANDSHAKE_MS, s->all->sessions.stop_fd};
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                     s->accept);
    for (int at = 0; at < n;) {
        ssize_t sent = send(s->client, head + at, (size_t)(n - at), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return bough_fail(err, BOUGH_E_UNREACHABLE, "the client has gone");
        if (sent > 0) at += (int)sent;
        int rc = at < n ? ws_wait(s->client, POLLOUT, &limit, err) : BOUGH_OK;
        if (rc) return rc;
    }
    return BOUGH_OK;
}

/* Tell why, if nobody has, and close as the protocol wants it. */
static void end(session *s, int rc, const bough_error *why) {
    ws_bytes words = {0};
    bough_error err;
    const ws_limit limit = {bough_now_ms() + FLUSH_MS, -1};
    if (rc && rc != BOUGH_E_PG &&
        ws_refusal(&words, bough_code_get(rc)->sqlstate, why->message) == 0)
        (void)queue(s, words.data, words.size);
    free(words.data);
    /* first what is queued: wslay lets a close frame go before */
    if (flush(s, &limit, &err) == BOUGH_OK &&
        wslay_event_queue_close(s->ws, WSLAY_CODE_NORMAL_CLOSURE, NULL, 0) == 0)
        (void)(flush(s, &limit, &err) == BOUGH_OK);
}

static void session_free(session *s) {
    if (s->ws) wslay_event_context_free(s->ws);
    if (s->client >= 0) (void)close(s->client);
    if (s->compute >= 0) (void)close(s->compute);
    free(s->up.data);
    free(s);
}

static void *work(void *arg) {
    session *s = arg;
    struct websockets *all = s->all;
    bough_error err = {0};
    bool is_cancel = false;
    (void)pthread_setname_np(pthread_self(), "websocket");
    int rc = answer_upgrade(s, &err);
    if (!rc && open_frames(s) != 0) rc = bough_fail(&err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = log_in(s, &is_cancel, &err);
    if (!rc && !is_cancel) carry(s);
    if (s->ws) end(s, rc, &err);
    session_free(s);
    sessions_leave(&all->sessions);
    return NULL;
}

/* ---- the upgrade ---- */

static bool has_token(const char *header, const char *token) {
    for (const char *p = header; p && *p;) {
        p += strspn(p, " \t,");
        size_t n = strcspn(p, ",");
        while (n && isspace((unsigned char)p[n - 1])) n--;
        if (n == strlen(token) && strncasecmp(p, token, n) == 0) return true;
        p += strcspn(p, ",");
    }
    return false;
}

/* RFC 6455, section 4.2.2 */
static bool make_accept(char *out, const char *key) {
    char text[128];
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    int n = snprintf(text, sizeof text, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    if (!EVP_Digest(text, (size_t)n, hash, &size, EVP_sha1(), NULL)) return false;
    return EVP_EncodeBlock((unsigned char *)out, hash, (int)size) > 0;
}

/* The socket, for us alone; -1 where it cannot be had. */
static int take_socket(struct evhttp_connection *connection) {
    struct bufferevent *bev = evhttp_connection_get_bufferevent(connection);
    int fd = bufferevent_getfd(bev), one = 1;
    if (fd < 0 || evbuffer_get_length(bufferevent_get_input(bev)) > 0) return -1; /* too early */
    int mine = fcntl(fd, F_DUPFD_CLOEXEC, 3),
        decoy = bough_open("/dev/null", O_RDWR | O_CLOEXEC, 0);
    if (mine >= 0 && decoy >= 0 && bufferevent_disable(bev, EV_READ | EV_WRITE) == 0 &&
        dup3(decoy, fd, O_CLOEXEC) == fd) {
        (void)setsockopt(mine, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        (void)setsockopt(mine, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    } else if (mine >= 0) {
        (void)close(mine);
        mine = -1;
    }
    if (decoy >= 0) (void)close(decoy);
    return mine;
}

static void on_free(evutil_socket_t fd, short what, void *connection) {
    (void)fd;
    (void)what;
    evhttp_connection_free(connection);
}

/* Which endpoint the address names: "?address=HOST:PORT", as proxies of Neon's driver have it, or
 * the header Host. */
static void read_endpoint(char *endpoint, struct evhttp_request *http) {
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(http));
    const char *host = evhttp_find_header(evhttp_request_get_input_headers(http), "Host");
    struct evkeyvalq values;
    TAILQ_INIT(&values);
    endpoint[0] = '\0';
    bool has_query = query && evhttp_parse_query_str(query, &values) == 0;
    const char *address = has_query ? evhttp_find_header(&values, "address") : NULL;
    if (address) host = address;
    if (host && !hello_endpoint_of_name(endpoint, host)) endpoint[0] = '\0';
    if (has_query) evhttp_clear_headers(&values);
}

bool websocket_take(struct websockets *all, struct evhttp_request *http) {
    const struct evkeyvalq *headers = evhttp_request_get_input_headers(http);
    const char *key = evhttp_find_header(headers, "Sec-WebSocket-Key");
    const char *version = evhttp_find_header(headers, "Sec-WebSocket-Version");
    struct evhttp_connection *connection = evhttp_request_get_connection(http);
    const struct timeval at_once = {0};
    bough_error err;
    if (!has_token(evhttp_find_header(headers, "Upgrade"), "websocket")) return false;
    if (evhttp_request_get_command(http) != EVHTTP_REQ_GET || !key || strlen(key) != KEY_LENGTH ||
        !has_token(evhttp_find_header(headers, "Connection"), "upgrade") || !version ||
        strcmp(version, "13") != 0) {
        (void)evhttp_add_header(evhttp_request_get_output_headers(http), "Sec-WebSocket-Version",
                                "13");
        evhttp_send_error(http, HTTP_BADREQUEST, NULL);
        return true;
    }
    bool is_entered = !atomic_load(&all->srv->stopping) && sessions_enter(&all->sessions);
    session *s = is_entered ? calloc(1, sizeof *s) : NULL;
    if (!s) {
        if (is_entered) sessions_leave(&all->sessions);
        evhttp_send_error(http, HTTP_SERVUNAVAIL, NULL);
        return true;
    }
    s->all = all;
    s->client = s->compute = -1;
    read_endpoint(s->endpoint, http);
    http_client_address(s->from, all->srv, http);
    if (make_accept(s->accept, key)) s->client = take_socket(connection);
    if (s->client < 0 || sessions_run(work, s, &err) != BOUGH_OK) {
        bough_log(BOUGH_LOG_WARN, "a WebSocket could not be opened", NULL);
        session_free(s);
        sessions_leave(&all->sessions);
    }
    /* not at once: evhttp is still inside of this connection */
    if (event_base_once(all->srv->loop, -1, EV_TIMEOUT, on_free, connection, &at_once) != 0)
        bough_log(BOUGH_LOG_WARN, "a connection is not freed", NULL);
    return true;
}

/* ---- all sessions ---- */

int websockets_new(struct websockets **out, server *srv, bough_error *err) {
    struct websockets *all = *out = calloc(1, sizeof *all);
    if (!all) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    all->srv = srv;
    return sessions_begin(&all->sessions, WEBSOCKETS_MAX, err);
}

int websockets_end(struct websockets *all, int timeout_ms) {
    int left = all ? sessions_end(&all->sessions, timeout_ms) : 0;
    if (!left) free(all);
    return left;
}
