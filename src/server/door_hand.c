/*
 * The hand-off: one message to the compute's private socket (preload/handoff.h), then its word that
 * it has the client. Until that word comes the client's socket is ours as well, so a compute that
 * ends between can be tried again: nothing has been read but what the message holds.
 *
 * A session is the write end of a pipe whose read end the backend has. Nobody can write to it from
 * there; when the backend has ended, the kernel reports an error on ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "preload/handoff.h"
#include "server/door_internal.h"
#include "server/pools.h"
#include "util/log.h"

enum { FULL_MS = 10, FULL_MAX = 1000, PIPE_BYTES = 4096, POOL_TRIES = 3 };

typedef struct session {
    TAILQ_ENTRY(session) link;
    struct door *door;
    struct event *io;
    int fd;
    char home[BOUGH_ID_SIZE];
} session;

/* ---- sessions ---- */

static void session_free(session *s) {
    TAILQ_REMOVE(&s->door->sessions, s, link);
    atomic_fetch_sub(&s->door->n_sessions, 1);
    if (s->io) event_free(s->io);
    close(s->fd);
    free(s);
}

void sessions_free(struct door *d) {
    while (!TAILQ_EMPTY(&d->sessions)) session_free(TAILQ_FIRST(&d->sessions));
}

static void on_session_end(evutil_socket_t fd, short what, void *arg) {
    session *s = arg;
    (void)fd;
    (void)what;
    computes_release(s->door->srv, s->home);
    session_free(s);
}

/* The guest's hold and its end of the pipe become a session. Without memory for one, the session
 * goes on uncounted; what it does is seen inside before its compute is suspended. */
static void begin_session(guest *g) {
    struct door *d = g->door;
    session *s = calloc(1, sizeof *s);
    if (!s) return;
    s->door = d;
    s->fd = g->session;
    memcpy(s->home, g->hold.home, sizeof s->home);
    s->io = event_new(d->srv->loop, s->fd, EV_READ, on_session_end, s);
    if (!s->io || event_add(s->io, NULL) != 0) {
        if (s->io) event_free(s->io);
        free(s);
        return;
    }
    TAILQ_INSERT_TAIL(&d->sessions, s, link);
    atomic_fetch_add(&d->n_sessions, 1);
    g->session = -1;
    g->is_held = false;
}

/* ---- handing over ---- */

void guest_drop_hand(guest *g) {
    if (g->carrier_io) event_free(g->carrier_io);
    g->carrier_io = NULL;
    if (g->carrier >= 0) close(g->carrier);
    if (g->session >= 0) close(g->session);
    g->carrier = g->session = -1;
    if (g->is_held) computes_release(g->door->srv, g->hold.home);
    g->is_held = false;
}

static void on_word(evutil_socket_t fd, short what, void *arg) {
    guest *g = arg;
    char word = 0;
    (void)what;
    ssize_t n = recv(fd, &word, 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        (void)event_add(g->carrier_io, NULL);
    } else if (n == 1 && word == BOUGH_HANDOFF_ACK) {
        if (g->is_held) begin_session(g); /* else it was a CancelRequest */
        guest_end(g);
    } else { /* the compute ended with the message unread */
        guest_drop_hand(g);
        guest_route_again(g);
    }
}

/* The compute has the message, perhaps, and does not get to it: nothing can be told any more. */
static void on_late(evutil_socket_t fd, short what, void *arg) {
    guest *g = arg;
    (void)fd;
    (void)what;
    bough_log(BOUGH_LOG_WARN, "a compute does not take its clients", "endpoint", g->hold.endpoint,
              NULL);
    (void)shutdown(g->fd, SHUT_RDWR);
    guest_end(g);
}

static void on_full(evutil_socket_t fd, short what, void *arg) {
    guest *g = arg;
    (void)fd;
    (void)what;
    if (computes_is_held(g->door->srv, &g->hold)) {
        guest_hand(g);
    } else { /* what took its sockets may be another branch's */
        guest_drop_hand(g);
        guest_route_again(g);
    }
}

/* Connect to the compute. 0, or -1 with errno. */
static int connect_carrier(const guest *g) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char dir[BOUGH_PATH_MAX];
    if ((g->is_pooled ? pools_dir : computes_socket_dir)(dir, g->door->srv, g->hold.endpoint,
                                                         NULL) != BOUGH_OK ||
        (size_t)snprintf(name.sun_path, sizeof name.sun_path, "%s/%s", dir,
                         g->is_pooled ? POOL_SOCKET : COMPUTE_HANDOFF_DIR "/.s.PGSQL.5432") >=
            sizeof name.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return connect(g->carrier, (const struct sockaddr *)&name, sizeof name);
}

static int send_message(guest *g, int session_there) {
    bough_handoff head = {
        .magic = BOUGH_HANDOFF_MAGIC, .swallow = g->swallow, .size = (uint32_t)g->size};
    struct iovec iov[2] = {{&head, BOUGH_HANDOFF_HEAD}, {g->bytes, g->size}};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control = {.room = {0}};
    struct msghdr message = {.msg_iov = iov,
                             .msg_iovlen = g->size ? 2 : 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    int fds[2] = {g->fd, session_there};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(c), fds, sizeof fds);
    ssize_t n = sendmsg(g->carrier, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n == (ssize_t)(BOUGH_HANDOFF_HEAD + g->size) ? 0 : -1;
}

/* What this compute cannot do for this client. */
static bool refuse_unable(guest *g) {
    char message[128];
    if (g->is_direct && g->is_pooled) {
        guest_refuse(g, "0A000", "the pooler does not take TLS without a request before",
                     "Leave out sslnegotiation=direct.");
        return true;
    }
    if (g->is_direct && g->hold.major < 17) {
        (void)snprintf(message, sizeof message,
                       "TLS without a request before needs PostgreSQL 17 or later; this is %d",
                       g->hold.major);
        guest_refuse(g, "0A000", message, "Leave out sslnegotiation=direct.");
        return true;
    }
    if (g->wants_tls && !g->hold.has_tls) {
        guest_refuse(g, "0A000", "the PostgreSQL of this branch was built without TLS",
                     "Use sslmode=disable.");
        return true;
    }
    return false;
}

/* A connection to be, and the pipe; so that the message can follow the connection at once. */
static bool make_carrier(guest *g, int *session_there) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
    (void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES); /* nothing goes through it */
    *session_there = ends[0];
    g->session = ends[1];
    g->carrier = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (g->carrier < 0) return false;
    g->carrier_io = event_new(g->door->srv->loop, g->carrier, EV_READ, on_word, g);
    return g->carrier_io != NULL;
}

/* Many come at once, and its backlog is full: it gets shorter. What is held stays so. */
static void wait_for_backlog(guest *g) {
    event_free(g->carrier_io);
    g->carrier_io = NULL;
    close(g->carrier);
    close(g->session);
    g->carrier = g->session = -1;
    guest_watch(g);
    guest_set_timer(g, FULL_MS, on_full);
}

void guest_hand(guest *g) {
    int one = 1, session_there = -1;
    if (g->ssl) {
        guest_past_hand(g, false);
        return;
    }
    if (refuse_unable(g)) return;
    if (g->state != GUEST_HANDING) guest_enter(g, GUEST_HANDING);
    (void)event_del(g->io);
    (void)setsockopt(g->fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one);
    bool ok = make_carrier(g, &session_there);
    bool is_full = ok && connect_carrier(g) != 0;
    int failed = errno;
    ok = ok && !is_full && send_message(g, session_there) == 0;
    if (session_there >= 0) close(session_there);
    if (ok && event_add(g->carrier_io, NULL) != 0) {
        (void)shutdown(g->fd, SHUT_RDWR); /* it may be the compute's by now */
        guest_end(g);
    } else if (ok) {
        guest_set_timer(g, HAND_MS, on_late);
    } else if (is_full && failed == EAGAIN && ++g->waits < FULL_MAX) {
        wait_for_backlog(g);
    } else if (is_full && g->is_pooled && *g->target.endpoint &&
               (failed == ENOENT || failed == ECONNREFUSED) && ++g->tries < POOL_TRIES) {
        guest_start_pool(g);
    } else {
        guest_drop_hand(g);
        guest_route_again(g);
    }
}
