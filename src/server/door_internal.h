/**
 * Inside of the front door, between its parts:
 *
 *   door.c         listening, reading first bytes, limits
 *   door_route.c   which endpoint is meant; waking
 *   door_look.c    moments of the past: looks
 *   door_past.c    moments of the past with TLS: sessions that go through boughd
 *   door_pass.c    whom boughd's own connections speak for
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
    ADDRESS_MAX = 64,     /**< of both, of one rates_address() that is not this machine's */
    BUCKETS = 4096,
    WAKES_PER_ENDPOINT = 120,  /**< a minute */
    WAKES_PER_ADDRESS = 60,    /**< a minute, from other machines */
    CANCELS_PER_ADDRESS = 120, /**< a minute, from other machines, of queries by poolers */
    CANCEL_POOLS_MAX = 256,    /**< poolers asked for one */
    LOOKS_MAX = 8,             /**< of one branch, that clients have made */
    LOOK_KEPT_MS = 60000,      /**< an unused one, before it makes room for another */
    PASTS_MAX = 64             /**< sessions with the past that go through boughd */
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
    bool is_local; /**< from this machine, by the loopback interface */
    bool is_own;   /**< of boughd's own; has_pass: and it has said for whom it speaks */
    bool has_pass;
    bool wants_tls; /**< what follows is TLS */
    bool is_direct; /**< without a request before */
    bool has_asked_gss;
    size_t seen; /**< bytes that wait in its socket, at the last look */
    int stalls;  /**< looks without anything new */
    hello_target target;
    bough_target moment; /**< of the past, that it wants to see; all zero: the present */
    bool is_past;        /**< the server name says a branch: boughd speaks TLS with it */
    bool is_pooled;      /**< it is for the pooler in front of the compute */
    uint8_t *bytes;      /**< read from it, for the compute to receive again */
    size_t size;
    uint32_t swallow; /**< bytes it has been sent that the compute will send, too */
    int tries, waits; /**< hand-offs that failed; looks at a full backlog */
    compute_hold hold;
    bool is_held;
    int carrier, session; /**< while being handed: connection to the compute, our end of a pipe */
    struct event *carrier_io;
    SSL *ssl; /**< while being refused in TLS; or of one with a moment of the past */
    int step; /**< of that */
    size_t words_at, words_size, drained;
    char words[1400];
} guest;

TAILQ_HEAD(guest_list, guest);

struct door {
    server *srv;
    int listener, own_listener; /**< that of boughd's own connections */
    struct event *io, *own_io, *resume, *posted;
    bool allow_cleartext, has_names;
    rates *endpoint_wakes, *address_wakes, *cancels;
    bool limits_local; /**< wakes by this machine's own addresses, too */
    int port, own_port;
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
    pthread_mutex_t mutex; /**< of the errands that are done, and of the passes */
    struct errand *done, **done_last;
    TAILQ_HEAD(, pass) passes;
    size_t n_passes;
    pthread_mutex_t lists_mutex; /**< of door_read_lists(), with what it reads */
    struct pasts *pasts;
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
/** Whether an address is this machine's own, by the loopback interface. */
bool is_local_text(const char *address);

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

/* ---- door_look.c ---- */
/** Check the moment that its target names. False: it has been refused. Loop thread. */
bool guest_read_moment(guest *g);
/** The look that there is at a moment of a branch; "" where there is none. Worker threads. */
void look_find(char *look, server *srv, const bough_branch_row *branch, const bough_target *moment);
/**
 * Make sure that there is one and that its compute runs. Worker threads.
 *
 * It keeps the passwords of a protected branch, too: who comes in has to know them.
 * @param[out] look      Its id, BOUGH_ID_SIZE bytes.
 * @retval BOUGH_E_BUSY  The branch has LOOKS_MAX already, and all are in use or were just now.
 */
BOUGH_CHECK int look_use(char *look, server *srv, const bough_branch_row *branch,
                         const bough_target *moment, bough_error *err);

/* ---- door_past.c ---- */
/** Whether the server name is a branch's; then its target is that. */
bool guest_is_past(guest *g, const char *name);
/** Make the certificate for it. Worker threads. */
BOUGH_CHECK int past_prepare(server *srv, const bough_branch_row *branch, bough_error *err);
/** Its branch is there: speak TLS, to learn the moment. */
void guest_past_begin(guest *g, const char *branch);
/** The first packet within TLS. */
void guest_past_packet(guest *g, const uint8_t *data, size_t size);
/** `hold` is taken: the rest is a thread's. */
void guest_past_hand(guest *g, bool is_cancel);
BOUGH_CHECK int pasts_new(struct pasts **pasts, bough_error *err);
/** End all sessions, and free. @return How many threads are left after so long; then nothing is
 * freed. */
int pasts_end(struct pasts *pasts, int timeout_ms);

/* ---- door_pass.c ---- */
/** The pass in its target, if any: from now on it is the client of which that speaks. Who must have
 * one and has none is refused, as is who has one and may not. False: it has been. */
bool guest_use_pass(guest *g);
void passes_free(struct door *door);

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
/** Speak TLS by its `ssl`, then give the first packet to guest_past_packet(). */
void guest_shake_hands(guest *g);
BOUGH_CHECK int refuse_open(struct door *door, bough_error *err);

#endif
