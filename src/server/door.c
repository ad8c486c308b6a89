/*
 * Listening, and reading what clients say first.
 *
 * First bytes are looked at, not taken (MSG_PEEK): what is inside TLS is the compute's. Only
 * requests in clear are taken, to be answered or rewritten. How many bytes to wait for is told to
 * the kernel (SO_RCVLOWAT), so that a part of a ClientHello does not wake us again and again.
 *
 * Who says nothing costs a descriptor and 4 KiB for 15 seconds; when there are too many such, the
 * oldest goes, so that those who speak get through.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/door_internal.h"
#include "server/pools.h"
#include "util/log.h"

enum {
    DEFAULT_PORT = 5433,
    ACCEPTS_AT_ONCE = 64,
    RESUME_MS = 100,
    STALLS_MAX = 64,
    BEYOND = 16384,  /* bytes that nobody sends before an answer */
    RESOLVE_MS = 300 /* for the system to say whether our names lead here */
};

/* ---- guests ---- */

void guest_enter(guest *g, guest_state state) {
    struct door *d = g->door;
    TAILQ_REMOVE(&d->guests[g->state], g, link);
    d->counts[g->state]--;
    g->state = state;
    TAILQ_INSERT_TAIL(&d->guests[state], g, link);
    d->counts[state]++;
}

void guest_end(guest *g) {
    struct door *d = g->door;
    errand_leave(g);
    guest_drop_hand(g);
    if (g->ssl) SSL_free(g->ssl);
    if (g->io) event_free(g->io);
    if (g->timer) event_free(g->timer);
    if (g->fd >= 0) close(g->fd);
    TAILQ_REMOVE(&d->guests[g->state], g, link);
    d->counts[g->state]--;
    d->buckets[g->bucket]--;
    atomic_fetch_sub(&d->n_guests, 1);
    free(g->bytes);
    free(g);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    guest_end(arg);
}

void guest_set_timer(guest *g, int ms, event_callback_fn react) {
    struct timeval after = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    (void)event_del(g->timer);
    (void)event_assign(g->timer, g->door->srv->loop, -1, EV_TIMEOUT, react, g);
    (void)event_add(g->timer, &after);
}

void guest_await(guest *g, size_t bytes, event_callback_fn react) {
    int low = (int)bytes;
    (void)setsockopt(g->fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
    (void)event_del(g->io);
    (void)event_assign(g->io, g->door->srv->loop, g->fd, EV_READ | EV_CLOSED, react, g);
    if (event_add(g->io, NULL) != 0) guest_set_timer(g, 0, on_timeout);
}

/* It has gone, or has sent what it should not have. */
static void on_gone(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    guest_end(arg);
}

void guest_watch(guest *g) {
    guest_await(g, g->seen + BEYOND, on_gone);
}

/* ---- first bytes ---- */

static void on_first(evutil_socket_t fd, short what, void *arg);

/* Take bytes that have been looked at. */
static bool take(guest *g, void *out, size_t size) {
    g->seen = 0;
    g->stalls = 0;
    return recv(g->fd, out, size, MSG_DONTWAIT) == (ssize_t)size;
}

static bool answer(const guest *g, char letter) {
    return send(g->fd, &letter, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

static void read_tls(guest *g, const uint8_t *data, size_t size) {
    char name[256], message[360];
    size_t need = 0;
    hello_result result = hello_tls(name, &need, data, size);
    if (result == HELLO_SHORT) {
        guest_await(g, need, on_first);
        return;
    }
    if (result == HELLO_WRONG) {
        guest_end(g);
        return;
    }
    if (hello_endpoint_of_name(g->target.endpoint, name) || guest_is_past(g, name)) {
        guest_route(g);
        return;
    }
    if (*name)
        (void)snprintf(message, sizeof message, "the host name \"%s\" names no endpoint", name);
    else
        (void)snprintf(message, sizeof message, "with TLS, the host name must name the endpoint");
    guest_refuse(g, "08004", message,
                 "Connect to a host name that begins with the endpoint's id; or without TLS "
                 "(sslmode=disable), with options=endpoint=ID. See `bough cs`.");
}

static void read_startup(guest *g, size_t size) {
    const char *why = NULL;
    g->bytes = malloc(size);
    g->size = size;
    if (!g->bytes || !take(g, g->bytes, size)) {
        guest_end(g);
        return;
    }
    if (hello_startup(&g->target, &why, g->bytes, &g->size) != HELLO_DONE)
        guest_refuse(g, "08P01", why, NULL);
    else if (!g->is_local && !g->is_own && !g->door->allow_cleartext)
        guest_refuse(g, "28000", "connections without TLS are not allowed from other machines",
                     "Use sslmode=require, or verify-full with the certificate of `bough ca`.");
    else if (!*g->target.endpoint && !*g->target.project && !*g->target.branch)
        guest_refuse(g, "08004", "no endpoint was named",
                     "Say options=endpoint=ID, or DATABASE@BRANCH as database, or use TLS with a "
                     "host name that begins with the endpoint's id. See `bough cs`.");
    else if (guest_read_moment(g))
        guest_route(g);
}

/* A guest of its own for the same client, whom nothing is known of but the address. */
static guest *guest_copy(const guest *from) {
    struct door *d = from->door;
    guest *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->door = d;
    g->carrier = g->session = -1;
    g->is_local = from->is_local;
    memcpy(g->address, from->address, sizeof g->address);
    g->bucket = from->bucket;
    g->fd = fcntl(from->fd, F_DUPFD_CLOEXEC, 3);
    g->io = event_new(d->srv->loop, g->fd, EV_READ, on_first, g);
    g->timer = event_new(d->srv->loop, -1, EV_TIMEOUT, on_timeout, g);
    g->bytes = malloc(from->size);
    if (g->bytes) memcpy(g->bytes, from->bytes, from->size);
    g->size = from->size;
    d->buckets[g->bucket]++;
    TAILQ_INSERT_TAIL(&d->guests[GUEST_READING], g, link);
    d->counts[GUEST_READING]++;
    atomic_fetch_add(&d->n_guests, 1);
    if (g->fd >= 0 && g->io && g->timer && g->bytes) return g;
    guest_end(g);
    return NULL;
}

/*
 * PgBouncer's keys tell nothing of where they are from, so all poolers that run are asked: those
 * that do not know the key do nothing. It is no use of a compute: nothing is held.
 * One at boughd's own port without a pass is of POST /sql itself, for a session that has logged in.
 */
static void ask_poolers(guest *g) {
    struct door *d = g->door;
    bough_id_list ids;
    size_t n;
    char key[INET6_ADDRSTRLEN];
    int wait_s;
    rates_address(key, g->address);
    if ((!g->is_local && !rates_take(&wait_s, d->cancels, key, bough_now_ms())) ||
        pools_list(&ids, &n, d->srv, NULL) != BOUGH_OK)
        return;
    for (size_t i = 0; i < n && i < CANCEL_POOLS_MAX; i++) {
        guest *copy = guest_copy(g);
        if (!copy) break;
        copy->is_pooled = true;
        memcpy(copy->hold.endpoint, ids[i], sizeof copy->hold.endpoint);
        guest_hand(copy);
    }
    free(ids);
}

static void read_cancel(guest *g, size_t size) {
    g->bytes = malloc(size);
    g->size = size;
    if (!g->bytes || !take(g, g->bytes, size)) {
        guest_end(g);
    } else if (computes_hold_process(&g->hold, g->door->srv, (pid_t)hello_cancel_pid(g->bytes))) {
        g->is_held = true;
        guest_hand(g);
    } else {
        ask_poolers(g);
        guest_end(g); /* as postgres does with a key that it does not know */
    }
}

/* SSLRequest: what follows is TLS; the compute shall receive the request, too. */
static void read_ssl_request(guest *g) {
    g->bytes = malloc(8);
    g->size = 8;
    g->swallow = 1;
    g->wants_tls = true;
    if (!g->bytes || !take(g, g->bytes, 8) || !answer(g, 'S'))
        guest_end(g);
    else
        guest_await(g, 5, on_first);
}

static void read_gss_request(guest *g) {
    char request[8];
    if (g->has_asked_gss || !take(g, request, sizeof request) || !answer(g, 'N')) {
        guest_end(g);
        return;
    }
    g->has_asked_gss = true;
    guest_await(g, 8, on_first);
}

/* Of boughd's own: the client for whom it speaks comes behind. */
static void read_pass(guest *g) {
    uint8_t request[HELLO_PASS_SIZE];
    if (!g->is_own || !take(g, request, sizeof request)) {
        guest_end(g);
        return;
    }
    hello_pass_read(g->target.pass, request);
    if (guest_use_pass(g)) guest_await(g, 1, on_first);
}

static void read_first(guest *g, const uint8_t *data, size_t size) {
    size_t need = 0;
    switch (hello_first(&need, data, size)) {
    case HELLO_MORE:
        guest_await(g, need, on_first);
        break;
    case HELLO_TLS:
        g->wants_tls = g->is_direct = true;
        read_tls(g, data, size);
        break;
    case HELLO_SSL_REQUEST:
        read_ssl_request(g);
        break;
    case HELLO_GSS_REQUEST:
        read_gss_request(g);
        break;
    case HELLO_CANCEL:
        read_cancel(g, need);
        break;
    case HELLO_PASS:
        read_pass(g);
        break;
    case HELLO_STARTUP:
        read_startup(g, need);
        break;
    case HELLO_OLD:
        guest_refuse(g, "0A000", "unsupported frontend protocol: 3.0 or later is needed", NULL);
        break;
    case HELLO_BAD:
    default:
        guest_end(g);
        break;
    }
}

/* Nothing new, though we were woken: the other side has closed its half, and says no more. */
static bool is_stuck(guest *g, size_t size) {
    struct pollfd p = {.fd = g->fd, .events = POLLRDHUP};
    if (size > g->seen) {
        g->seen = size;
        g->stalls = 0;
        return false;
    }
    return ++g->stalls > STALLS_MAX || poll(&p, 1, 0) > 0;
}

static void on_first(evutil_socket_t fd, short what, void *arg) {
    static uint8_t data[HELLO_TLS_MAX]; /* the loop thread's */
    guest *g = arg;
    (void)what;
    ssize_t n = recv(fd, data, sizeof data, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        if (is_stuck(g, 0))
            guest_end(g);
        else
            guest_await(g, 1, on_first);
    } else if (n <= 0 || is_stuck(g, (size_t)n)) {
        guest_end(g);
    } else if (g->wants_tls) {
        read_tls(g, data, (size_t)n);
    } else {
        read_first(g, data, (size_t)n);
    }
}

/* ---- accepting ---- */

static bool is_loopback(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    return address->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

bool is_local_text(const char *address) {
    struct sockaddr_storage parsed = {.ss_family = AF_UNSPEC};
    struct sockaddr_in *in = (struct sockaddr_in *)&parsed;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&parsed;
    if (inet_pton(AF_INET, address, &in->sin_addr) == 1)
        parsed.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1)
        parsed.ss_family = AF_INET6;
    return is_loopback(&parsed);
}

static void print_address(char *out, size_t size, const struct sockaddr_storage *address) {
    const void *bytes = address->ss_family == AF_INET6
                            ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                            : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
    if (!inet_ntop(address->ss_family, bytes, out, (socklen_t)size)) (void)snprintf(out, size, "?");
}

static unsigned bucket_of(const char *address) {
    char key[INET6_ADDRSTRLEN];
    unsigned hash = 2166136261U; /* FNV-1a */
    rates_address(key, address);
    for (const char *p = key; *p; p++) hash = (hash ^ (unsigned char)*p) * 16777619U;
    return hash % BUCKETS;
}

static void admit(struct door *d, int fd, const struct sockaddr_storage *address, bool is_own) {
    guest *g = calloc(1, sizeof *g);
    if (!g) {
        close(fd);
        return;
    }
    g->door = d;
    g->fd = fd;
    g->carrier = g->session = -1;
    g->is_local = is_loopback(address);
    g->is_own = is_own;
    print_address(g->address, sizeof g->address, address);
    g->bucket = bucket_of(g->address);
    g->io = event_new(d->srv->loop, fd, EV_READ, on_first, g);
    g->timer = event_new(d->srv->loop, -1, EV_TIMEOUT, on_timeout, g);
    bool is_full = !g->is_local && d->buckets[g->bucket] >= ADDRESS_MAX;
    d->buckets[g->bucket]++;
    TAILQ_INSERT_TAIL(&d->guests[GUEST_READING], g, link);
    d->counts[GUEST_READING]++;
    atomic_fetch_add(&d->n_guests, 1);
    if (!g->io || !g->timer || is_full) {
        guest_end(g);
        return;
    }
    guest_set_timer(g, HANDSHAKE_MS, on_timeout);
    guest_await(g, 1, on_first);
    if (d->counts[GUEST_READING] > READING_MAX) guest_end(TAILQ_FIRST(&d->guests[GUEST_READING]));
}

static void on_resume(evutil_socket_t fd, short what, void *arg) {
    struct door *d = arg;
    (void)fd;
    (void)what;
    if (d->listener < 0) return;
    (void)event_add(d->io, NULL);
    (void)event_add(d->own_io, NULL);
}

static void on_accept(evutil_socket_t listener, short what, void *arg) {
    struct door *d = arg;
    (void)what;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
        socklen_t size = sizeof address;
        int fd =
            accept4(listener, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(d, fd, &address, listener == d->own_listener);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            /* not again at once: the one that waits would wake us without end */
            struct timeval soon = {.tv_usec = RESUME_MS * 1000};
            if (!TAILQ_EMPTY(&d->guests[GUEST_READING]))
                guest_end(TAILQ_FIRST(&d->guests[GUEST_READING]));
            (void)event_del(d->io);
            (void)event_del(d->own_io);
            (void)event_add(d->resume, &soon);
            return;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

/* ---- listening ---- */

/* "ADDRESS:PORT", "[ADDRESS]:PORT"; numbers only, but for localhost. */
static int parse_listen(struct sockaddr_storage *address, socklen_t *size, const char *text,
                        bough_error *err) {
    char host[128];
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *found = NULL;
    bool in_brackets = n >= 2 && text[0] == '[' && text[n - 1] == ']';
    if (in_brackets) {
        text++;
        n -= 2;
    }
    bool ok = colon && colon[1] && n > 0 && n < sizeof host;
    if (ok) {
        memcpy(host, text, n);
        host[n] = '\0';
        if (strcmp(host, "localhost") == 0) (void)snprintf(host, sizeof host, "127.0.0.1");
        ok = strspn(colon + 1, "0123456789") == strlen(colon + 1) && atoi(colon + 1) <= 65535 &&
             strlen(colon + 1) <= 5 && (in_brackets || !strchr(host, ':')) &&
             getaddrinfo(host, colon + 1, &hints, &found) == 0;
    }
    if (!ok) {
        (void)bough_fail(err, BOUGH_E_USAGE, "\"%.100s\" is no address and port to listen on",
                         text);
        return bough_hint(err, "Say for example 127.0.0.1:5433, 0.0.0.0:5433 or [::]:5433.");
    }
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *size = found->ai_addrlen;
    freeaddrinfo(found);
    return BOUGH_OK;
}

/* The address gets the port that it is. */
static int open_listener(int *listener, struct sockaddr_storage *address, socklen_t size,
                         const char *text, bough_error *err) {
    int one = 1;
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return bough_fail_sys(err, errno, "could not make a socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (address->ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)address, size) != 0 || listen(fd, SOMAXCONN) != 0) {
        int failed = errno;
        close(fd);
        if (failed != EADDRINUSE)
            return bough_fail_sys(err, failed, "could not listen on %s", text);
        (void)bough_fail(err, BOUGH_E_CONFLICT, "%s is taken", text);
        return bough_hint(err, "Choose another address or port with --listen.");
    }
    size = sizeof *address;
    (void)getsockname(fd, (struct sockaddr *)address, &size);
    *listener = fd;
    return BOUGH_OK;
}

static int port_of(const struct sockaddr_storage *address) {
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

/* For boughd's own connections: any free port. */
static int listen_for_own(struct door *d, bough_error *err) {
    static const char any[] = DOOR_OWN_ADDRESS ":0";
    struct sockaddr_storage address;
    socklen_t size;
    int rc = parse_listen(&address, &size, any, err);
    if (!rc) rc = open_listener(&d->own_listener, &address, size, any, err);
    if (!rc) d->own_port = port_of(&address);
    return rc;
}

static int listen_on(struct door *d, const char *text, bough_error *err) {
    struct sockaddr_storage address;
    socklen_t size;
    int rc = parse_listen(&address, &size, text, err);
    if (!rc) rc = open_listener(&d->listener, &address, size, text, err);
    if (rc) return rc;
    bool is_v6 = address.ss_family == AF_INET6;
    print_address(d->address, sizeof d->address, &address);
    d->port = port_of(&address);
    (void)snprintf(d->listens_on, sizeof d->listens_on, is_v6 ? "[%s]:%d" : "%s:%d", d->address,
                   d->port);
    return BOUGH_OK;
}

/* ---- names ---- */

/* Asking the system may take long, and must not keep the server: another thread does it, and who
 * comes last frees. */
typedef struct question {
    pthread_mutex_t mutex;
    pthread_cond_t answered;
    int users;
    bool is_answered, leads_here;
    char name[300];
    bool must_be_local;
} question;

static void question_drop(question *q) {
    bool is_last = --q->users == 0;
    pthread_mutex_unlock(&q->mutex);
    if (!is_last) return;
    pthread_cond_destroy(&q->answered);
    pthread_mutex_destroy(&q->mutex);
    free(q);
}

static void *resolve(void *arg) {
    question *q = arg;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    bool leads = getaddrinfo(q->name, NULL, &hints, &found) == 0;
    for (const struct addrinfo *a = found; a && leads && q->must_be_local; a = a->ai_next) {
        struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
        memcpy(&address, a->ai_addr, a->ai_addrlen);
        leads = is_loopback(&address);
    }
    if (found) freeaddrinfo(found);
    pthread_mutex_lock(&q->mutex);
    q->leads_here = leads;
    q->is_answered = true;
    pthread_cond_signal(&q->answered);
    question_drop(q);
    return NULL;
}

/* Whether names of endpoints resolve; no answer in time is none. */
static bool names_resolve(const char *domain) {
    question *q = calloc(1, sizeof *q);
    pthread_t thread;
    struct timespec until;
    if (!q) return false;
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->answered, NULL);
    q->users = 2;
    q->must_be_local = strcmp(domain, "localhost") == 0;
    (void)snprintf(q->name, sizeof q->name, "ep-any.%s", domain);
    if (pthread_create(&thread, NULL, resolve, q) != 0) {
        pthread_mutex_lock(&q->mutex);
        q->users = 1;
        question_drop(q);
        return false;
    }
    (void)pthread_detach(thread);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += RESOLVE_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&q->mutex);
    while (!q->is_answered)
        if (pthread_cond_timedwait(&q->answered, &q->mutex, &until) != 0) break;
    bool leads = q->leads_here;
    question_drop(q);
    return leads;
}

static bool is_wildcard(const char *address) {
    return strcmp(address, "0.0.0.0") == 0 || strcmp(address, "::") == 0;
}

void door_address_of(door_address *out, const struct door *d, const char *endpoint) {
    out->port = d->port;
    out->needs_option = !d->has_names;
    (void)snprintf(out->name, sizeof out->name, "%s.%s", endpoint, d->domain);
    if (d->has_names)
        memcpy(out->host, out->name, sizeof out->host);
    else if (strcmp(d->address, "::") == 0)
        (void)snprintf(out->host, sizeof out->host, "::1");
    else
        (void)snprintf(out->host, sizeof out->host, "%s",
                       is_wildcard(d->address) ? "127.0.0.1" : d->address);
}

int door_own_port(const struct door *d) {
    return d->own_port;
}

const char *door_listens_on(const struct door *d) {
    return d->listens_on;
}

const char *const *door_names(const struct door *d) {
    return d->names;
}

door_counts door_count(const struct door *d) {
    return (door_counts){.handshakes = atomic_load(&d->n_guests),
                         .sessions = atomic_load(&d->n_sessions)};
}

/* ---- opening and closing ---- */

/* A session costs a descriptor. */
static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int set_domain(struct door *d, const char *domain, bough_error *err) {
    size_t n = strlen(domain);
    if (n == 0 || n >= sizeof d->domain - 64 || domain[0] == '.' || domain[0] == '-' ||
        strspn(domain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != n)
        return bough_fail(err, BOUGH_E_USAGE, "\"%.100s\" is no domain name", domain);
    (void)snprintf(d->domain, sizeof d->domain, "%s", domain);
    (void)snprintf(d->wild, sizeof d->wild, "*.%s", domain);
    size_t at = 0;
    d->names[at++] = d->domain;
    d->names[at++] = d->wild;
    if (!is_wildcard(d->address)) d->names[at++] = d->address;
    return BOUGH_OK;
}

int door_open(struct door **out, server *srv, const server_options *options, bough_error *err) {
    struct door *d = *out = calloc(1, sizeof *d);
    if (!d) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    d->srv = srv;
    d->listener = d->own_listener = -1;
    d->allow_cleartext = options->allow_cleartext;
    d->done_last = &d->done;
    d->limits_local = options->wakes_per_address > 0;
    d->endpoint_wakes =
        rates_new(options->wakes_per_endpoint ? options->wakes_per_endpoint : WAKES_PER_ENDPOINT);
    d->cancels = rates_new(CANCELS_PER_ADDRESS);
    d->address_wakes =
        rates_new(options->wakes_per_address ? options->wakes_per_address : WAKES_PER_ADDRESS);
    pthread_mutex_init(&d->mutex, NULL);
    pthread_mutex_init(&d->lists_mutex, NULL);
    TAILQ_INIT(&d->errands);
    TAILQ_INIT(&d->sessions);
    TAILQ_INIT(&d->passes);
    for (int i = 0; i < GUEST_STATES; i++) TAILQ_INIT(&d->guests[i]);
    raise_file_limit();
    char usual[32];
    (void)snprintf(usual, sizeof usual, "127.0.0.1:%d", DEFAULT_PORT);
    int rc = listen_on(d, options->listen ? options->listen : usual, err);
    if (rc == BOUGH_E_CONFLICT && !options->listen) rc = listen_on(d, "127.0.0.1:0", err);
    if (!rc) rc = listen_for_own(d, err);
    if (!rc) rc = pasts_new(&d->pasts, err);
    if (!rc) rc = set_domain(d, options->domain ? options->domain : "localhost", err);
    if (rc) return rc;
    d->has_names = names_resolve(d->domain);
    d->io = event_new(srv->loop, d->listener, EV_READ | EV_PERSIST, on_accept, d);
    d->own_io = event_new(srv->loop, d->own_listener, EV_READ | EV_PERSIST, on_accept, d);
    d->resume = event_new(srv->loop, -1, EV_TIMEOUT, on_resume, d);
    d->posted = event_new(srv->loop, -1, EV_PERSIST | EV_READ, errands_on_posted, d);
    return d->io && d->own_io && d->resume && d->posted && d->endpoint_wakes && d->address_wakes &&
                   d->cancels
               ? BOUGH_OK
               : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

int door_begin(struct door *d, bough_error *err) {
    int rc = refuse_open(d, err);
    if (!rc) door_read_lists(d->srv);
    if (!rc && (event_add(d->io, NULL) != 0 || event_add(d->own_io, NULL) != 0))
        rc = bough_fail(err, BOUGH_E_INTERNAL, "could not watch a socket");
    return rc;
}

void door_stop(struct door *d) {
    if (d->io) event_free(d->io);
    d->io = NULL;
    if (d->own_io) event_free(d->own_io);
    d->own_io = NULL;
    if (d->resume) event_free(d->resume);
    d->resume = NULL;
    if (d->listener >= 0) close(d->listener);
    if (d->own_listener >= 0) close(d->own_listener);
    d->listener = d->own_listener = -1;
    for (int i = 0; i < GUEST_STATES; i++)
        while (!TAILQ_EMPTY(&d->guests[i])) guest_end(TAILQ_FIRST(&d->guests[i]));
}

int door_end(struct door *d, int timeout_ms) {
    int left = d ? pasts_end(d->pasts, timeout_ms) : 0;
    if (d && !left) d->pasts = NULL;
    return left;
}

void door_close(struct door *d) {
    if (!d) return;
    door_stop(d);
    passes_free(d);
    errands_free(d);
    sessions_free(d);
    if (d->posted) event_free(d->posted);
    if (d->tls) SSL_CTX_free(d->tls);
    rates_free(d->endpoint_wakes);
    rates_free(d->address_wakes);
    rates_free(d->cancels);
    pthread_mutex_destroy(&d->lists_mutex);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}
