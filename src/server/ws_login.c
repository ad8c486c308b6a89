/*
 * The part of a PostgreSQL client that logs in. Messages: "Message Formats" in PostgreSQL's manual;
 * SCRAM-SHA-256 (RFC 7677) is libgsasl's. There is no channel binding: it is a connection within
 * this machine.
 */
#include "server/ws_login.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gsasl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/door.h"
#include "server/hello.h"

enum {
    AUTH_OK = 0,
    AUTH_CLEARTEXT = 3,
    AUTH_SASL = 10,
    AUTH_SASL_CONTINUE = 11,
    AUTH_SASL_FINAL = 12
};

int ws_bytes_add(ws_bytes *b, const void *data, size_t size, size_t most) {
    if (b->size + size > most) return -1;
    if (b->size + size > b->room) {
        size_t room = b->room ? b->room : 1024;
        while (room < b->size + size) room *= 2;
        uint8_t *grown = realloc(b->data, room);
        if (!grown) return -1;
        b->data = grown;
        b->room = room;
    }
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    return 0;
}

void ws_bytes_drop(ws_bytes *b, size_t size) {
    if (size < b->size) memmove(b->data, b->data + size, b->size - size);
    b->size -= size;
}

static void put32(uint8_t *to, uint32_t value) {
    value = htonl(value);
    memcpy(to, &value, 4);
}

static uint32_t get32(const uint8_t *from) {
    uint32_t value;
    memcpy(&value, from, 4);
    return ntohl(value);
}

int ws_refusal(ws_bytes *out, const char *sqlstate, const char *message) {
    uint8_t head[5] = {'E'};
    char fields[1024];
    int n = snprintf(fields, sizeof fields, "SFATAL%cVFATAL%cC%s%cM%.800s%c", 0, 0, sqlstate, 0,
                     message, 0); /* and the NUL that snprintf() adds ends the list */
    put32(head + 1, (uint32_t)n + 5);
    return ws_bytes_add(out, head, 5, WS_MESSAGE_MAX) ||
                   ws_bytes_add(out, fields, (size_t)n + 1, WS_MESSAGE_MAX)
               ? -1
               : 0;
}

/* ---- bytes on sockets that do not block ---- */

int ws_wait(int fd, short events, const ws_limit *limit, bough_error *err) {
    for (;;) {
        struct pollfd fds[] = {{.fd = fd, .events = events},
                               {.fd = limit->stop_fd, .events = POLLIN}};
        double left = limit->until_ms - bough_now_ms();
        if (left <= 0) return bough_fail(err, BOUGH_E_TIMEOUT, "it took too long");
        int n = poll(fds, 2, left > 60000 ? 60000 : (int)left + 1);
        if (n < 0 && errno != EINTR) return bough_fail_sys(err, errno, "could not wait");
        if (n > 0 && fds[1].revents)
            return bough_fail(err, BOUGH_E_CANCELLED, "the server is ending");
        if (n > 0 && fds[0].revents) return BOUGH_OK;
    }
}

static int lost(bough_error *err) {
    return bough_fail(err, BOUGH_E_UNREACHABLE, "the connection to the compute was lost");
}

static int write_all(int fd, const uint8_t *data, size_t size, const ws_limit *limit,
                     bough_error *err) {
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int rc = ws_wait(fd, POLLOUT, limit, err);
            if (rc) return rc;
        } else {
            return lost(err);
        }
    }
    return BOUGH_OK;
}

static int read_all(int fd, uint8_t *data, size_t size, const ws_limit *limit, bough_error *err) {
    while (size > 0) {
        ssize_t n = recv(fd, data, size, 0);
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int rc = ws_wait(fd, POLLIN, limit, err);
            if (rc) return rc;
        } else {
            return lost(err);
        }
    }
    return BOUGH_OK;
}

int ws_connect(int *out, const server *srv, const char *from, const ws_limit *limit,
               bough_error *err) {
    struct sockaddr_in door = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)door_own_port(srv->door))};
    uint8_t request[HELLO_PASS_SIZE];
    char pass[DOOR_PASS_SIZE];
    int one = 1, failed = 0;
    socklen_t size = sizeof failed;
    *out = -1;
    if (inet_pton(AF_INET, DOOR_OWN_ADDRESS, &door.sin_addr) != 1)
        return bough_fail(err, BOUGH_E_INTERNAL, "\"%s\" is no address", DOOR_OWN_ADDRESS);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return bough_fail_sys(err, errno, "could not make a socket");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int rc = BOUGH_OK;
    if (connect(fd, (const struct sockaddr *)&door, sizeof door) != 0) {
        rc = errno == EINPROGRESS ? ws_wait(fd, POLLOUT, limit, err)
                                  : bough_fail_sys(err, errno, "could not connect");
        if (!rc && (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) != 0 || failed))
            rc = bough_fail_sys(err, failed, "could not connect");
    }
    if (!rc) rc = door_pass_make(pass, srv->door, from, err);
    if (!rc) {
        hello_pass_write(request, pass);
        rc = write_all(fd, request, sizeof request, limit, err);
    }
    if (rc)
        (void)close(fd);
    else
        *out = fd;
    return rc;
}

void ws_cancel(int fd, const uint8_t *packet, size_t size, const ws_limit *limit) {
    bough_error err;
    uint8_t byte;
    if (write_all(fd, packet, size, limit, &err) == BOUGH_OK)
        bough_ignore(read_all(fd, &byte, 1, limit, &err)); /* there are no answers but its end */
}

/* ---- StartupMessage ---- */

int ws_startup(ws_bytes *out, const uint8_t *packet, size_t size, const char *endpoint,
               const char *from, bough_error *err) {
    hello_target target;
    const char *why;
    char words[HELLO_ENDPOINT_SIZE + 16], name[64];
    uint8_t length[4];
    size_t copy_size = size;
    uint8_t *copy = malloc(size);
    if (!copy) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    memcpy(copy, packet, size);
    hello_result result = hello_startup(&target, &why, copy, &copy_size);
    free(copy);
    if (result != HELLO_DONE) return bough_fail(err, BOUGH_E_INVALID, "%s", why);
    bool adds = *endpoint && !*target.endpoint && !*target.project && !*target.branch;
    bool is_named = false;
    (void)snprintf(words, sizeof words, "endpoint=%s", endpoint);
    (void)snprintf(name, sizeof name, "WebSocket from %s", from);
    int failed = ws_bytes_add(out, packet, 8, HELLO_STARTUP_MAX);
    const char *p = (const char *)packet + 8, *end = (const char *)packet + size - 1;
    while (p < end && *p) {
        const char *value = p + strlen(p) + 1, *next = value + strlen(value) + 1;
        is_named |= strcmp(p, "application_name") == 0;
        failed |= ws_bytes_add(out, p, (size_t)(value - p), HELLO_STARTUP_MAX);
        if (adds && strcmp(p, "options") == 0) { /* before theirs, which may end with a backslash */
            failed |= ws_bytes_add(out, words, strlen(words), HELLO_STARTUP_MAX) ||
                      ws_bytes_add(out, " ", 1, HELLO_STARTUP_MAX);
            adds = false;
        }
        failed |= ws_bytes_add(out, value, (size_t)(next - value), HELLO_STARTUP_MAX);
        p = next;
    }
    if (adds)
        failed |= ws_bytes_add(out, "options", 8, HELLO_STARTUP_MAX) ||
                  ws_bytes_add(out, words, strlen(words) + 1, HELLO_STARTUP_MAX);
    if (!is_named)
        failed |= ws_bytes_add(out, "application_name", 17, HELLO_STARTUP_MAX) ||
                  ws_bytes_add(out, name, strlen(name) + 1, HELLO_STARTUP_MAX);
    failed |= ws_bytes_add(out, "", 1, HELLO_STARTUP_MAX);
    if (failed) return bough_fail(err, BOUGH_E_INVALID, "the startup packet is too long");
    put32(length, (uint32_t)out->size);
    memcpy(out->data, length, 4);
    return BOUGH_OK;
}

/* ---- SCRAM ---- */

typedef struct exchange {
    int fd;
    const char *password;
    const ws_limit *limit;
    Gsasl *gsasl;
    Gsasl_session *session;
    bool is_broken; /* the session: libgsasl may free twice what a step without memory has freed */
} exchange;

/* A message of type 'p', in one piece: PgBouncer takes no half ones before a session begins. */
static int send_password(exchange *x, const void *data, size_t size, bough_error *err) {
    uint8_t head[5] = {'p'};
    ws_bytes message = {0};
    put32(head + 1, (uint32_t)size + 4);
    int rc = ws_bytes_add(&message, head, 5, WS_MESSAGE_MAX) ||
                     ws_bytes_add(&message, data, size, WS_MESSAGE_MAX)
                 ? bough_fail(err, BOUGH_E_NOMEM, "out of memory")
                 : write_all(x->fd, message.data, message.size, x->limit, err);
    if (message.data) explicit_bzero(message.data, message.size);
    free(message.data);
    return rc;
}

static int fail_scram(exchange *x, int code, bough_error *err) {
    x->is_broken = true;
    if (code == GSASL_MALLOC_ERROR) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    return bough_fail(err, BOUGH_E_AUTH, "SCRAM failed: %s", gsasl_strerror(code));
}

static int begin_scram(exchange *x, const uint8_t *list, size_t size, bough_error *err) {
    static const char name[] = "SCRAM-SHA-256";
    bool offered = false;
    for (size_t at = 0; at < size && list[at];
         at += strnlen((const char *)list + at, size - at) + 1)
        offered |= strncmp((const char *)list + at, name, size - at) == 0;
    if (!offered || x->session)
        return bough_fail(err, BOUGH_E_AUTH, "the server does not offer %s", name);
    int code = gsasl_init(&x->gsasl);
    if (code != GSASL_OK) x->gsasl = NULL; /* it may have been set, and freed */
    if (code == GSASL_OK) code = gsasl_client_start(x->gsasl, name, &x->session);
    /* PostgreSQL takes the role from the StartupMessage alone */
    if (code == GSASL_OK) code = gsasl_property_set(x->session, GSASL_AUTHID, "bough");
    if (code == GSASL_OK) code = gsasl_property_set(x->session, GSASL_PASSWORD, x->password);
    char *first = NULL;
    size_t first_size = 0;
    if (code == GSASL_OK) code = gsasl_step(x->session, NULL, 0, &first, &first_size);
    if (code != GSASL_OK && code != GSASL_NEEDS_MORE) return fail_scram(x, code, err);
    ws_bytes message = {0};
    uint8_t length[4];
    put32(length, (uint32_t)first_size);
    int failed = ws_bytes_add(&message, name, sizeof name, WS_MESSAGE_MAX) ||
                 ws_bytes_add(&message, length, 4, WS_MESSAGE_MAX) ||
                 ws_bytes_add(&message, first, first_size, WS_MESSAGE_MAX);
    int rc = failed ? bough_fail(err, BOUGH_E_NOMEM, "out of memory")
                    : send_password(x, message.data, message.size, err);
    gsasl_free(first);
    free(message.data);
    return rc;
}

static int go_on(exchange *x, const uint8_t *data, size_t size, bool is_final, bough_error *err) {
    char *next = NULL;
    size_t next_size = 0;
    if (!x->session) return fail_scram(x, GSASL_MECHANISM_CALLED_TOO_MANY_TIMES, err);
    int code = gsasl_step(x->session, (const char *)data, size, &next, &next_size);
    int rc = code == GSASL_OK || (code == GSASL_NEEDS_MORE && !is_final) ? BOUGH_OK
                                                                         : fail_scram(x, code, err);
    if (!rc && !is_final) rc = send_password(x, next, next_size, err);
    gsasl_free(next);
    return rc;
}

/* An authentication request. `*done`: it was AuthenticationOk. */
static int authenticate(exchange *x, bool *done, const uint8_t *body, size_t size,
                        bough_error *err) {
    if (size < 4) return lost(err);
    uint32_t what = get32(body);
    *done = what == AUTH_OK;
    switch (what) {
    case AUTH_OK:
        return BOUGH_OK;
    case AUTH_CLEARTEXT:
        return send_password(x, x->password, strlen(x->password) + 1, err);
    case AUTH_SASL:
        return begin_scram(x, body + 4, size - 4, err);
    case AUTH_SASL_CONTINUE:
    case AUTH_SASL_FINAL:
        return go_on(x, body + 4, size - 4, what == AUTH_SASL_FINAL, err);
    default:
        return bough_fail(err, BOUGH_E_UNSUPPORTED, "authentication method %u is not supported",
                          what);
    }
}

static int run(exchange *x, ws_bytes *answer, bough_error *err) {
    uint8_t head[5], *body = malloc(WS_MESSAGE_MAX);
    bool done = false;
    int rc = body ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    while (!rc && !done) {
        rc = read_all(x->fd, head, 5, x->limit, err);
        size_t size = rc ? 0 : get32(head + 1);
        if (!rc && (size < 4 || size - 4 > WS_MESSAGE_MAX)) rc = lost(err);
        if (rc) break;
        size -= 4;
        rc = read_all(x->fd, body, size, x->limit, err);
        if (!rc && head[0] == 'R') rc = authenticate(x, &done, body, size, err);
        if (rc || (head[0] == 'R' && !done)) continue;
        if (ws_bytes_add(answer, head, 5, WS_MESSAGE_MAX) ||
            ws_bytes_add(answer, body, size, WS_MESSAGE_MAX))
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        else if (head[0] == 'E')
            rc = bough_fail(err, BOUGH_E_PG, "the compute refused");
    }
    free(body);
    return rc;
}

int ws_login(ws_bytes *answer, int fd, const ws_bytes *startup, const char *password,
             const ws_limit *limit, bough_error *err) {
    exchange x = {.fd = fd, .password = password, .limit = limit};
    int rc = write_all(fd, startup->data, startup->size, limit, err);
    if (!rc) rc = run(&x, answer, err);
    if (x.session && !x.is_broken) gsasl_finish(x.session);
    if (x.gsasl) gsasl_done(x.gsasl);
    return rc;
}
