/*
 * Between computes.c (starting, stopping), computes_idle.c (sessions, room, suspending) and
 * standbys.c (computes that follow another). Nobody else includes it.
 *
 * Entries are one per home (bough_endpoint_home()) that has had a compute, and are never freed; the
 * list and its plain fields are guarded by the mutex, `compute`, `shm` and `secret` by the branch's
 * lock. An entry is active from computes_wait() or adoption on.
 */
#ifndef BOUGH_SERVER_COMPUTES_INTERNAL_H
#define BOUGH_SERVER_COMPUTES_INTERNAL_H

#include <pthread.h>
#include <semaphore.h>

#include "pg/compute.h"
#include "pg/conf.h"
#include "server/computes.h"
#include "server/standbys.h"
#include "server/tls.h"

/** Restart policy of a supervisor: at most so many unexpected ends within the time. */
enum { RESTARTS = 3, RESTARTS_MS = 60000 };
enum { CHAINS = 1024 };

typedef struct watch {
    server *srv;
    char home[BOUGH_ID_SIZE], lock[BOUGH_ID_SIZE]; /**< the lock is the branch's */
    uint64_t generation;
    struct event *event;
    int fd;
} watch;

/** Of a compute that there is or was. It stays where it is as long as the server runs, since those
 * who found one look again whose it is (with the mutex, or the lock of its branch): where its
 * branch or endpoint is gone for good, it is blank, and becomes the next one's (computes_forget()).
 */
typedef struct entry {
    struct entry *next, *same; /**< of all; of the same hash, or of the spare ones */
    bough_branch_row branch;
    bough_endpoint_row endpoint;
    int major;
    bough_compute *compute;
    bough_shm *shm;
    watch *watch;
    uint64_t generation, look; /**< the look around for room that tried it last */
    uint64_t met;              /**< the look around for strays that met its endpoint last */
    bool is_active, has_tls;
    bool is_spare;
    bool has_slot;    /**< of `starts` */
    bool is_coming;   /**< being started: counts as awake */
    pid_t postmaster; /**< while active */
    int sessions;     /**< holds */
    int64_t started_ms, idle_since_ms, since_ms;
    char cause[160], busy[160];
    double ends_ms[RESTARTS];         /**< of the latest unexpected ends; 0 for none */
    char secret[STANDBY_SECRET_SIZE]; /**< by which its standbys come in; "": not known */
    char key[BOUGH_SHM_KEY_SIZE];     /**< by which the administrator comes in, while there is a
                                         process; guarded by the mutex */
    uint64_t seen_redo;               /**< (computes_checkpointed()) */
    int64_t checked_ms;               /**< of one that follows: when it was looked at last, and */
    int stalls;                       /**< how often in succession it did not follow */
} entry;

struct computes {
    pthread_mutex_t mutex;
    entry *first, *spare, *chains[CHAINS];
    uint64_t generation, looks;
    sem_t starts; /**< taken by computes_begin(), given back by computes_wait(), or when the process
                     is let go before: starting is bound to the processors */
};

/** What a compute runs on: an entry's home. Borrowed. */
const char *computes_home(const entry *e);
/** The entry of a home; NULL: it never had a compute here. Who does not hold the lock of its branch
 * looks for it within the mutex: computes_find(). */
entry *computes_get(const server *srv, const char *home);
/** (with the mutex) The same. */
entry *computes_find(const struct computes *c, const char *home);

/** The two directories of sockets of an endpoint. */
typedef struct socket_dirs {
    char all[BOUGH_PATH_MAX], handoff[BOUGH_PATH_MAX];
} socket_dirs;

/** A configuration with the texts that it borrows. */
typedef struct compute_conf {
    bough_conf conf;
    char pgdata[BOUGH_PATH_MAX];
    socket_dirs dirs;
    tls_files tls;
    standby_conf standby;
} compute_conf;

/** (locked) What the configuration of a compute is to be. */
BOUGH_CHECK int computes_conf(compute_conf *conf, server *srv, const entry *e, bough_error *err);
/** (locked) Write that of a running one, and let it be read. */
BOUGH_CHECK int computes_reconfigure(server *srv, const entry *e, bough_error *err);

/** (locked, of the entry's branch) Where as many are awake as may be, suspend one. */
BOUGH_CHECK int computes_make_room(server *srv, entry *e, bough_error *err);

#endif
