/*
 * Moments of the past with TLS. A host name BRANCH.domain, as Neon's connection strings have it,
 * says which branch; which moment is in the startup packet, within TLS. So boughd has to speak TLS
 * itself, and to carry bytes between the client and the look:
 *
 *   client = TLS = boughd = TLS = look
 *
 * Both ends see the same certificate, with the same key (tls_files_past()): so SCRAM with channel
 * binding goes through. The inner connection comes in by the front door like any other, with a pass
 * that says whose it is.
 *
 * The handshake, the packet, looking up and waking are the loop thread's, as for all guests; a
 * session is a thread's.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "server/door_internal.h"
#include "server/history.h"
#include "server/sessions.h"
#include "server/tls.h"
#include "server/ws_login.h"
#include "util/log.h"

enum {
    CONNECT_MS = 15000, /* to a look that runs already */
    LAST_WORDS_MS = 2000,
    CHUNK = 16384 /* a record of TLS */
};

struct pasts {
    sessions sessions;
    SSL_CTX *tls; /* of the inner connections */
};

typedef struct past {
    struct door *door;
    struct pasts *all;
    int client_fd, compute_fd;
    SSL *client, *compute;
    uint8_t *packet; /* the StartupMessage, or a CancelRequest */
    size_t size;
    bool is_cancel;
    char address[INET6_ADDRSTRLEN];
    compute_hold hold;
} past;

/* ---- on the loop thread ---- */

bool guest_is_past(guest *g, const char *name) {
    char branch[HELLO_ENDPOINT_SIZE];
    size_t n = strlen(name), m = strlen(g->door->domain);
    g->is_past = n > m && strcasecmp(name + n - m, g->door->domain) == 0 &&
                 name[n - m - 1] == '.' && hello_branch_of_name(branch, name);
    memset(g->target.endpoint, 0, sizeof g->target.endpoint);
    if (g->is_past) (void)snprintf(g->target.branch, sizeof g->target.branch, "%s", branch);
    return g->is_past;
}

int past_prepare(server *srv, const bough_branch_row *branch, bough_error *err) {
    tls_files files;
    door_address address;
    int rc = tls_files_past(&files, srv, branch->id, err);
    door_address_of(&address, srv->door, branch->id);
    return rc ? rc : tls_prepare(&files, srv, address.name, err);
}

void guest_past_begin(guest *g, const char *branch) {
    struct door *d = g->door;
    tls_files files;
    bough_error err;
    int one = 1;
    g->ssl = SSL_new(d->tls);
    bool ok = g->ssl && SSL_set_fd(g->ssl, g->fd) == 1 &&
              tls_files_past(&files, d->srv, branch, &err) == BOUGH_OK;
    if (ok && d->srv->authority) {
        SSL_set_cert_cb(g->ssl, NULL, NULL);
        ok = SSL_use_certificate_chain_file(g->ssl, files.cert) == 1 &&
             SSL_use_PrivateKey_file(g->ssl, files.key, SSL_FILETYPE_PEM) == 1;
    }
    ERR_clear_error();
    if (!ok) {
        bough_log(BOUGH_LOG_WARN, "could not speak TLS", "branch", branch, NULL);
        guest_end(g);
        return;
    }
    (void)setsockopt(g->fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one);
    guest_enter(g, GUEST_READING);
    guest_shake_hands(g);
}

/* The moment is all that the packet may say of where to go. */
static void read_startup(guest *g) {
    static const char hint[] = "Say options=neon_timestamp:2026-11-23T14:03:07Z or "
                               "options=neon_lsn:0/A27BB60; the branch as it is now has the host "
                               "name that begins with its endpoint's id. See `bough cs`.";
    hello_target target;
    const char *why = NULL;
    if (hello_startup(&target, &why, g->bytes, &g->size) != HELLO_DONE) {
        guest_refuse(g, "08P01", why, NULL);
    } else if (*target.endpoint || *target.project || *target.branch || *target.pass) {
        guest_refuse(g, "08004", "the host name says which branch, and something else does, too",
                     "Leave out the options endpoint and project, and @BRANCH of the database.");
    } else if (!*target.timestamp && !*target.lsn) {
        guest_refuse(g, "08004", "the host name names a branch, and nothing names a moment of it",
                     hint);
    } else {
        memcpy(target.branch, g->target.branch, sizeof target.branch);
        g->target = target;
        if (guest_read_moment(g)) guest_route(g);
    }
}

void guest_past_packet(guest *g, const uint8_t *data, size_t size) {
    size_t need = 0;
    hello_kind kind = hello_first(&need, data, size);
    free(g->bytes); /* an SSLRequest */
    g->bytes = need == size ? malloc(size) : NULL;
    if (!g->bytes || (kind != HELLO_STARTUP && kind != HELLO_CANCEL)) {
        guest_end(g);
        return;
    }
    memcpy(g->bytes, data, size);
    g->size = size;
    if (kind == HELLO_STARTUP)
        read_startup(g);
    else if (computes_hold_process(&g->hold, g->door->srv, (pid_t)hello_cancel_pid(g->bytes)))
        guest_past_hand(g, true);
    else
        guest_end(g);
}

/* ---- on its thread ---- */

/* What to wait for, after a call of OpenSSL that did not get through; 0: it is over. */
static short wanted(const SSL *ssl, int result) {
    int why = SSL_get_error(ssl, result);
    return why == SSL_ERROR_WANT_READ ? POLLIN : why == SSL_ERROR_WANT_WRITE ? POLLOUT : 0;
}

static int fail_inner(bough_error *err) {
    ERR_clear_error();
    return bough_fail(err, BOUGH_E_UNREACHABLE, "the connection to the look was lost");
}

/* Ask for TLS, and begin it as the server name that leads to the look. */
static int begin_tls(past *p, const ws_limit *limit, bough_error *err) {
    static const uint8_t request[] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};
    char answer = 0;
    door_address address;
    door_address_of(&address, p->door, p->hold.endpoint);
    if (send(p->compute_fd, request, sizeof request, MSG_NOSIGNAL) != (ssize_t)sizeof request)
        return fail_inner(err);
    int rc = ws_wait(p->compute_fd, POLLIN, limit, err);
    if (rc) return rc;
    if (recv(p->compute_fd, &answer, 1, 0) != 1 || answer != 'S') return fail_inner(err);
    p->compute = SSL_new(p->all->tls);
    if (!p->compute || SSL_set_fd(p->compute, p->compute_fd) != 1 ||
        SSL_set_tlsext_host_name(p->compute, address.name) != 1)
        return fail_inner(err);
    for (;;) {
        ERR_clear_error();
        int done = SSL_connect(p->compute);
        if (done == 1) break;
        short events = wanted(p->compute, done);
        if (!events) return fail_inner(err);
        rc = ws_wait(p->compute_fd, events, limit, err);
        if (rc) return rc;
    }
    /* the very certificate that the client has seen: else who answers is not the look */
    X509 *theirs = SSL_get1_peer_certificate(p->compute);
    bool same = theirs && X509_cmp(theirs, SSL_get_certificate(p->client)) == 0;
    X509_free(theirs);
    return same ? BOUGH_OK
                : bough_fail(err, BOUGH_E_UNREACHABLE, "the look has another certificate");
}

static int write_all(SSL *ssl, int fd, const void *data, size_t size, const ws_limit *limit,
                     bough_error *err) {
    for (;;) {
        ERR_clear_error();
        int n = SSL_write(ssl, data, (int)size); /* all of it, or nothing yet */
        if (n > 0) return BOUGH_OK;
        short events = wanted(ssl, n);
        if (!events) return fail_inner(err);
        int rc = ws_wait(fd, events, limit, err);
        if (rc) return rc;
    }
}

/* One direction. */
typedef struct way {
    SSL *from, *to;
    int from_fd, to_fd;
    int at, size; /* what has been read and not been written */
    uint8_t data[CHUNK];
} way;

typedef enum carried {
    CARRIED_SOME,   /* it waits for one of its ends */
    CARRIED_ALL,    /* who sends has ended, and everything has gone through */
    CARRIED_NOTHING /* who receives has ended */
} carried;

/* Carry on as far as it goes; what it waits for is added to `fds`, the client's first. */
static carried carry(way *w, struct pollfd *fds) {
    for (;;) {
        ERR_clear_error();
        bool reads = w->at == w->size;
        int n = reads ? SSL_read(w->from, w->data, CHUNK)
                      : SSL_write(w->to, w->data + w->at, w->size - w->at);
        if (n <= 0) {
            short events = wanted(reads ? w->from : w->to, n);
            int fd = reads ? w->from_fd : w->to_fd;
            fds[fd == fds[0].fd ? 0 : 1].events |= events;
            return events ? CARRIED_SOME : reads ? CARRIED_ALL : CARRIED_NOTHING;
        }
        if (reads) {
            w->at = 0;
            w->size = n;
        } else {
            w->at += n;
        }
    }
}

static void carry_both(past *p) {
    way *ways = calloc(2, sizeof *ways);
    if (!ways) return;
    ways[0] =
        (way){.from = p->client, .to = p->compute, .from_fd = p->client_fd, .to_fd = p->compute_fd};
    ways[1] =
        (way){.from = p->compute, .to = p->client, .from_fd = p->compute_fd, .to_fd = p->client_fd};
    for (carried up = CARRIED_SOME;;) {
        struct pollfd fds[] = {{.fd = p->client_fd},
                               {.fd = p->compute_fd},
                               {.fd = p->all->sessions.stop_fd, .events = POLLIN}};
        if (up == CARRIED_SOME) up = carry(&ways[0], fds);
        if (up == CARRIED_ALL || carry(&ways[1], fds) != CARRIED_SOME) break;
        for (int i = 0; i < 2; i++) /* the end of one that nothing is waited for of would wake us */
            if (!fds[i].events) fds[i].fd = -1;
        /* a look that takes nothing any more may have said why: that much is waited for */
        int n = poll(fds, 3, up == CARRIED_SOME ? -1 : LAST_WORDS_MS);
        if (n == 0 || (n < 0 && errno != EINTR) || (n > 0 && fds[2].revents)) break;
    }
    explicit_bzero(ways, 2 * sizeof *ways);
    free(ways);
}

static int open_inner(past *p, bough_error *err) {
    const ws_limit limit = {bough_now_ms() + CONNECT_MS, p->all->sessions.stop_fd};
    int rc = ws_connect(&p->compute_fd, p->door->srv, p->address, &limit, err);
    if (!rc && p->is_cancel) {
        ws_cancel(p->compute_fd, p->packet, p->size, &limit);
        return BOUGH_OK;
    }
    if (!rc) rc = begin_tls(p, &limit, err);
    return rc ? rc : write_all(p->compute, p->compute_fd, p->packet, p->size, &limit, err);
}

/* Nothing has come from the look: say why. */
static void tell(past *p, const bough_error *why) {
    const ws_limit limit = {bough_now_ms() + REFUSE_MS, -1};
    ws_bytes words = {0};
    if (ws_refusal(&words, bough_code_get(why->code)->sqlstate, why->message) == 0)
        bough_ignore(write_all(p->client, p->client_fd, words.data, words.size, &limit, NULL));
    free(words.data);
}

static void past_free(past *p) {
    if (p->client) {
        ERR_clear_error();
        (void)SSL_shutdown(p->client); /* close_notify; its answer is not waited for */
        SSL_free(p->client);
    }
    if (p->compute) SSL_free(p->compute);
    if (p->client_fd >= 0) (void)close(p->client_fd);
    if (p->compute_fd >= 0) (void)close(p->compute_fd);
    ERR_clear_error();
    free(p->packet);
    free(p);
}

static void *work(void *arg) {
    past *p = arg;
    struct pasts *all = p->all;
    bough_error err = {0};
    (void)pthread_setname_np(pthread_self(), "past");
    int rc = open_inner(p, &err);
    if (rc)
        tell(p, &err);
    else if (!p->is_cancel)
        carry_both(p);
    computes_release(p->door->srv, p->hold.home);
    past_free(p);
    sessions_leave(&all->sessions);
    return NULL;
}

/* ---- beginning ---- */

void guest_past_hand(guest *g, bool is_cancel) {
    struct door *d = g->door;
    bough_error err;
    int one = 1;
    g->is_held = true;
    if (!g->hold.has_tls) {
        guest_refuse(g, "0A000", "the PostgreSQL of this branch was built without TLS",
                     "Use sslmode=disable, and options=endpoint=ID.");
        return;
    }
    bool is_entered = sessions_enter(&d->pasts->sessions);
    past *p = is_entered ? calloc(1, sizeof *p) : NULL;
    if (!p) {
        if (is_entered) sessions_leave(&d->pasts->sessions);
        guest_refuse(g, "53300", "too many sessions look at the past", "Try again later.");
        return;
    }
    *p = (past){.door = d,
                .all = d->pasts,
                .client_fd = g->fd,
                .compute_fd = -1,
                .client = g->ssl,
                .packet = g->bytes,
                .size = g->size,
                .is_cancel = is_cancel,
                .hold = g->hold};
    memcpy(p->address, g->address, sizeof p->address);
    (void)event_del(g->io); /* before another may use the socket */
    (void)setsockopt(p->client_fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one);
    (void)setsockopt(p->client_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(p->client_fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    g->fd = -1;
    g->ssl = NULL;
    g->bytes = NULL;
    g->is_held = false;
    guest_end(g);
    if (sessions_run(work, p, &err) == BOUGH_OK) return;
    bough_log(BOUGH_LOG_WARN, "could not start a session with the past", "error", err.message,
              NULL);
    computes_release(d->srv, p->hold.home);
    past_free(p);
    sessions_leave(&d->pasts->sessions);
}

/* ---- all of them ---- */

int pasts_new(struct pasts **out, bough_error *err) {
    struct pasts *all = *out = calloc(1, sizeof *all);
    if (!all) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = sessions_begin(&all->sessions, PASTS_MAX, err);
    if (rc) return rc;
    all->tls = SSL_CTX_new(TLS_client_method());
    if (!all->tls || SSL_CTX_set_min_proto_version(all->tls, TLS1_2_VERSION) != 1)
        return bough_fail(err, BOUGH_E_NOMEM, "could not prepare TLS");
    return BOUGH_OK;
}

int pasts_end(struct pasts *all, int timeout_ms) {
    int left = all ? sessions_end(&all->sessions, timeout_ms) : 0;
    if (!all || left) return left;
    if (all->tls) SSL_CTX_free(all->tls);
    free(all);
    return 0;
}
