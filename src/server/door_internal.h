/**
 * Inside of the front door, between its parts:
 *
 *   door.c         listening, reading first bytes, limits
 *   door_route.c   which endpoint is meant; waking
 *   door_hand.c    the hand-off, sessions
 *   door_refuse.c  telling clients why not
 *
 * A guest is a client that has not got through. It is in one state, and freed by guest_end()
 * whatever its state. Loop thread.
 */
#ifndef BOUGH_SERVER_DOOR_INTERNAL_H
#define BOUGH_SERVER_DOOR_INTERNAL_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "server/computes.h"
#include "server/door.h"
#include "server/hello.h"
#include "server/rates.h"

enum {
    HANDSHAKE_MS = 15000, /**< until a client has said what it wants */
    HAND_MS = 15000,      /**< until a compute has taken it */
    REFUSE_MS = 5000,     /**< until it has heard why not */
    READING_MAX = 2048,   /**< clients that have not said what they want; then the oldest goes */
    WAITING_MAX = 4096,   /**< clients that wait for a compute, and those being refused */
    ADDRESS_MAX = 64,     /**< of both, from one address that is not this machine's */
    BUCKETS = 4096,
    WAKES_PER_ENDPOINT = 120, /**< a minute */
    WAKES_PER_ADDRESS = 60    /**< a minute, from other machines */
};

typedef enum guest_state {
    GUEST_READING,  /**< its first bytes */
    GUEST_WAITING,  /**< for an errand, or for a moment before the next try */
    GUEST_HANDING,  /**< for the compute's word that it has it */
    GUEST_REFUSING, /**< being told why not */
    GUEST_STATES
} guest_state;

struct errand;

typedef struct guest {
    TAILQ_ENTRY(guest) link;    /**< of its state's list */
    TAILQ_ENTRY(guest) company; /**< of its errand's list */
    struct door *door;
    struct errand *errand;
    guest_state state;
    int fd;
    struct event *io, *timer;
    char address[INET6_ADDRSTRLEN];
    unsigned bucket;
    bool is_local;  /**< from this machine, by the loopback interface */
    bool wants_tls; /**< what follows is TLS */
    bool is_direct; /**< without a request before */
    bool has_asked_gss;
    size_t seen; /**< bytes that wait in its socket, at the last look */
    int stalls;  /**< looks without anything new */
    hello_target target;
    bool is_pooled; /**< it is for the pooler in front of the compute */
    uint8_t *bytes; /**< read from it, for the compute to receive again */
    size_t size;
    uint32_t swallow; /**< bytes it has been sent that the compute will send, too */
    int tries, waits; /**< hand-offs that failed; looks at a full backlog */
    compute_hold hold;
    bool is_held;
    int carrier, session; /**< while being handed: connection to the compute, our end of a pipe */
    struct event *carrier_io;
    SSL *ssl; /**< while being refused in TLS */
    int step; /**< of being refused */
    size_t words_at, words_size, drained;
    char words[1400];
} guest;

TAILQ_HEAD(guest_list, guest);

struct door {
    server *srv;
    int listener;
    struct event *io, *resume, *posted;
    bool allow_cleartext, has_names;
    rates *endpoint_wakes, *address_wakes;
    bool limits_local; /**< wakes by this machine's own addresses, too */
    int port;
    char address[INET6_ADDRSTRLEN]; /**< that we listen on */
    char listens_on[INET6_ADDRSTRLEN + 16];
    char domain[256], wild[260];
    const char *names[4];
    SSL_CTX *tls;
    struct guest_list guests[GUEST_STATES];
    size_t counts[GUEST_STATES];
    uint16_t buckets[BUCKETS]; /**< guests by a hash of their address */
    TAILQ_HEAD(, errand) errands;
    TAILQ_HEAD(, session) sessions;
    atomic_int n_guests, n_sessions;
    pthread_mutex_t mutex; /**< of the errands that are done */
    struct errand *done, **done_last;
};

/* ---- door.c ---- */
/** Close and free, and whatever it holds. */
void guest_end(guest *g);
void guest_enter(guest *g, guest_state state);
/** Call `react` when so many bytes are there, or the client has gone. */
void guest_await(guest *g, size_t bytes, event_callback_fn react);
/** In so many milliseconds; replaces what was set before. */
void guest_set_timer(guest *g, int ms, event_callback_fn react);
/** End it when the client goes away or says more than it may. */
void guest_watch(guest *g);

/* ---- door_route.c ---- */
/** Its target is known: to the compute, or first to its wake. */
void guest_route(guest *g);
/** Its pooler does not run; to its start. */
void guest_start_pool(guest *g);
/** Once more: the compute did not take it. */
void guest_route_again(guest *g);
void errand_leave(guest *g);
void errands_free(struct door *door);
void errands_on_posted(evutil_socket_t fd, short what, void *arg);

/* ---- door_hand.c ---- */
/** `hold` is taken. */
void guest_hand(guest *g);
/** Undo what a hand-off under way holds. */
void guest_drop_hand(guest *g);
void sessions_free(struct door *door);

/* ---- door_refuse.c ---- */
/** Tell it in its protocol, then end it. `hint` may be NULL. */
void guest_refuse(guest *g, const char *sqlstate, const char *message, const char *hint);
void guest_refuse_error(guest *g, const bough_error *err);
BOUGH_CHECK int refuse_open(struct door *door, bough_error *err);

#endif
