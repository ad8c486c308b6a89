/*
 * Telling a client why not, in its own protocol: an ErrorResponse, inside TLS where TLS began. This
 * is the only TLS that boughd itself speaks.
 *
 * The client's startup packet is read first and its end awaited last: closing a socket with unread
 * bytes would reset the connection, and the client would see that in place of the message.
 */
#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "server/door_internal.h"
#include "server/tls.h"
#include "util/log.h"

enum { DRAIN_MAX = 65536 };
enum { STEP_HANDSHAKE, STEP_PACKET, STEP_TELL, STEP_DRAIN };

static void go_on(guest *g);

static void on_ready(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    go_on(arg);
}

static void on_too_late(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    guest_end(arg);
}

static void await(guest *g, short what) {
    (void)event_del(g->io);
    (void)event_assign(g->io, g->door->srv->loop, g->fd, what, on_ready, g);
    if (event_add(g->io, NULL) != 0) guest_end(g);
}

/* Read, or write, in TLS or not: bytes; 0 at the end; -1 when it has to wait, which is arranged, or
 * when the guest is gone. */
static ssize_t transfer(guest *g, void *in, const void *out, size_t size) {
    ssize_t n;
    if (g->ssl) {
        ERR_clear_error();
        int got = in ? SSL_read(g->ssl, in, (int)size) : SSL_write(g->ssl, out, (int)size);
        if (got > 0) return got;
        int why = SSL_get_error(g->ssl, got);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
            await(g, why == SSL_ERROR_WANT_READ ? EV_READ : EV_WRITE);
            return -1;
        }
        if (why == SSL_ERROR_ZERO_RETURN) return 0;
        guest_end(g);
        return -1;
    }
    n = in ? recv(g->fd, in, size, MSG_DONTWAIT)
           : send(g->fd, out, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return n;
    if (errno == EAGAIN || errno == EINTR)
        await(g, in ? EV_READ : EV_WRITE);
    else
        guest_end(g);
    return -1;
}

/* Returns whether to go on with the next step now. */
static bool shake_hands(guest *g) {
    ERR_clear_error();
    int done = SSL_accept(g->ssl);
    if (done == 1) {
        g->step = STEP_PACKET;
        return true;
    }
    int why = SSL_get_error(g->ssl, done);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        await(g, why == SSL_ERROR_WANT_READ ? EV_READ : EV_WRITE);
    else
        guest_end(g); /* the client does not like our certificate, or is none */
    return false;
}

/* One read suffices: libpq and all others send the packet in one record. */
static bool read_packet(guest *g) {
    char packet[HELLO_STARTUP_MAX];
    ssize_t n = transfer(g, packet, NULL, sizeof packet);
    if (n < 0) return false;
    if (n == 0) {
        guest_end(g);
        return false;
    }
    if (g->is_past) {
        guest_past_packet(g, (const uint8_t *)packet, (size_t)n);
        return false;
    }
    g->step = STEP_TELL;
    return true;
}

static bool tell(guest *g) {
    while (g->words_at < g->words_size) {
        ssize_t n = transfer(g, NULL, g->words + g->words_at, g->words_size - g->words_at);
        if (n < 0) return false;
        g->words_at += (size_t)n;
    }
    if (g->ssl) {
        ERR_clear_error();
        (void)SSL_shutdown(g->ssl); /* close_notify; its answer is not waited for */
    }
    (void)shutdown(g->fd, SHUT_WR);
    g->step = STEP_DRAIN;
    return true;
}

static void drain(guest *g) {
    char rest[4096];
    for (;;) {
        ssize_t n = recv(g->fd, rest, sizeof rest, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            await(g, EV_READ);
            return;
        }
        if (n > 0) g->drained += (size_t)n;
        if (n <= 0 || g->drained > DRAIN_MAX) {
            guest_end(g);
            return;
        }
    }
}

static void go_on(guest *g) {
    if (g->step == STEP_HANDSHAKE && !shake_hands(g)) return;
    if (g->step == STEP_PACKET && !read_packet(g)) return;
    if (g->step == STEP_TELL && !tell(g)) return;
    drain(g);
}

void guest_shake_hands(guest *g) {
    guest_set_timer(g, HANDSHAKE_MS, on_too_late);
    g->step = STEP_HANDSHAKE;
    go_on(g);
}

/* ---- the message ---- */

static void add_field(guest *g, char type, const char *text) {
    size_t room = sizeof g->words - g->words_size - 2; /* this field's end, and the message's */
    if (room < 2) return;
    g->words[g->words_size++] = type;
    size_t n = strnlen(text, room - 1);
    memcpy(g->words + g->words_size, text, n);
    g->words_size += n;
    g->words[g->words_size++] = '\0';
}

static void compose(guest *g, const char *sqlstate, const char *message, const char *hint) {
    g->words[0] = 'E';
    g->words_size = 5;
    add_field(g, 'S', "FATAL");
    add_field(g, 'V', "FATAL");
    add_field(g, 'C', sqlstate);
    add_field(g, 'M', message);
    if (hint && *hint) add_field(g, 'H', hint);
    g->words[g->words_size++] = '\0';
    size_t size = g->words_size - 1;
    g->words[1] = g->words[2] = 0;
    g->words[3] = (char)(size >> 8);
    g->words[4] = (char)(size & 0xff);
}

void guest_refuse(guest *g, const char *sqlstate, const char *message, const char *hint) {
    int one = 1;
    errand_leave(g);
    guest_drop_hand(g);
    guest_enter(g, GUEST_REFUSING);
    if (g->door->counts[GUEST_REFUSING] > WAITING_MAX) {
        guest_end(g);
        return;
    }
    compose(g, sqlstate, message, hint);
    (void)setsockopt(g->fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one);
    guest_set_timer(g, REFUSE_MS, on_too_late);
    g->step = STEP_TELL;
    if (g->wants_tls && !g->ssl) {
        g->is_past = false;
        g->step = STEP_HANDSHAKE;
        g->ssl = SSL_new(g->door->tls);
        if (!g->ssl || SSL_set_fd(g->ssl, g->fd) != 1) {
            guest_end(g);
            return;
        }
    }
    go_on(g);
}

void guest_refuse_error(guest *g, const bough_error *err) {
    const char *sqlstate = bough_code_get(err->code)->sqlstate;
    if (err->code == BOUGH_E_BUSY || err->code == BOUGH_E_TIMEOUT ||
        err->code == BOUGH_E_UNREACHABLE)
        sqlstate = "57P03"; /* cannot_connect_now: clients try again */
    guest_refuse(g, sqlstate, err->message, err->hint);
}

/* Direct TLS wants "postgresql" agreed on. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                           const unsigned char *in, unsigned in_size, void *arg) {
    static const unsigned char ours[] = "\012postgresql";
    (void)ssl;
    (void)arg;
    for (unsigned at = 0; at < in_size; at += in[at] + 1U)
        if (in_size - at >= sizeof ours - 1 && memcmp(in + at, ours, sizeof ours - 1) == 0) {
            *out = in + at + 1;
            *out_size = in[at];
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_NOACK;
}

/* Clients that verify names shall see why they are refused, not a certificate of another name. Any
 * name of ours will do: what endpoints there are is not told by it. */
static int choose_certificate(SSL *ssl, void *arg) {
    const struct door *d = arg;
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    char name[256];
    size_t n = asked ? strlen(asked) : 0, m = strlen(d->domain);
    if (n <= m + 1 || n >= sizeof name || asked[n - m - 1] != '.' ||
        strcasecmp(asked + n - m, d->domain) != 0)
        return 1;
    for (size_t i = 0; i <= n; i++) name[i] = (char)tolower((unsigned char)asked[i]);
    (void)tls_present(ssl, d->srv, name);
    return 1;
}

int refuse_open(struct door *d, bough_error *err) {
    d->tls = SSL_CTX_new(TLS_server_method());
    if (!d->tls || SSL_CTX_set_min_proto_version(d->tls, TLS1_2_VERSION) != 1 ||
        SSL_CTX_use_certificate_chain_file(d->tls, d->srv->tls_cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(d->tls, d->srv->tls_key, SSL_FILETYPE_PEM) != 1) {
        ERR_clear_error();
        return bough_fail(err, BOUGH_E_INTERNAL, "could not use the certificate \"%s\"",
                          d->srv->tls_cert);
    }
    SSL_CTX_set_cert_cb(d->tls, choose_certificate, d);
    SSL_CTX_set_alpn_select_cb(d->tls, choose_protocol, NULL);
    (void)SSL_CTX_set_session_cache_mode(d->tls, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_options(d->tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                                          SSL_OP_IGNORE_UNEXPECTED_EOF);
    return BOUGH_OK;
}
