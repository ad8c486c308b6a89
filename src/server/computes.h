/**
 * The supervisor: which endpoints have a running compute, starting and stopping them, noticing
 * their end.
 *
 * A compute is known by its *home* (bough_endpoint_home()): the id of its branch, or for an
 * endpoint that only reads (server/standbys.h) its own.
 *
 * Any thread. Functions marked (locked) need the lock (server/locks.h) of the branch, of whichever
 * of its endpoints the compute is; it makes the calling thread the only one to use that branch's
 * bough_compute and bough_shm.
 */
#ifndef BOUGH_SERVER_COMPUTES_H
#define BOUGH_SERVER_COMPUTES_H

#include "pg/sql.h"
#include "server/server.h"

/** How long a start may take. Crash recovery counts. */
#define COMPUTE_READY_MS 600000
/** How long a clean stop may take before it is forced. */
#define COMPUTE_STOP_MS 60000

BOUGH_CHECK int computes_new(struct computes **computes, bough_error *err);
/** Forget all; the processes go on. */
void computes_free(struct computes *computes);

bool computes_is_active(const server *srv, const char *home);
/** Whether the compute of an endpoint is active, on the branch that the row says. */
bool computes_runs(const server *srv, const bough_endpoint_row *endpoint);
/** When the compute became active, in ms since 1970; 0 when it is not. */
int64_t computes_started_ms(const server *srv, const char *home);
int computes_count(const server *srv);

/**
 * (locked) Look at what writes to a home now.
 * @param[out] shm  The shared memory of the running compute; NULL: none runs, and no process of one
 * is left.
 */
BOUGH_CHECK int computes_shm(bough_shm **shm, server *srv, const char *home, bough_error *err);

/** What a client is handed to. */
typedef struct compute_hold {
    char home[BOUGH_ID_SIZE], endpoint[BOUGH_ID_SIZE], branch[BOUGH_ID_SIZE],
        project[BOUGH_ID_SIZE];
    int major;
    bool has_tls;
} compute_hold;

/**
 * Count a session of an active compute: it is not suspended for being idle until
 * computes_release(). Never blocks for long; for the loop thread.
 *
 * @param[out] hold  Whose session it is; with false unchanged.
 * @param endpoint   Of which it has to be; NULL: of the one that writes.
 * @param branch     Of which it has to be; NULL: of any.
 * @return Whether it is active.
 */
bool computes_hold(compute_hold *hold, server *srv, const char *endpoint, const char *branch);
/** Whether what is held runs still: who stops a compute asks nobody. For the loop thread, too. */
bool computes_is_held(const server *srv, const compute_hold *hold);
/** The session has ended. */
void computes_release(server *srv, const char *home);
/** Hold the active compute that a process belongs to: of a postmaster, or a child of one. */
bool computes_hold_process(compute_hold *hold, server *srv, pid_t pid);

/** Why a compute is awake or asleep, as far as this server knows. */
typedef struct compute_why {
    bool is_active;
    int64_t since_ms;      /**< since 1970; 0: not known */
    char cause[160];       /**< what woke it, or why it sleeps; "" when that is not known */
    int sessions;          /**< that came through the front door and go on */
    int64_t idle_since_ms; /**< when it was last seen in use */
    char busy[160];        /**< what kept it awake when that was looked at last; "" for nothing */
} compute_why;

void computes_why(compute_why *why, const server *srv, const char *home);

/** Seconds without use after which an endpoint is suspended; 0: never. */
int computes_suspend_seconds(const bough_endpoint_row *endpoint);

/** Socket directory of an endpoint, into BOUGH_PATH_MAX bytes. */
BOUGH_CHECK int computes_socket_dir(char *out, const server *srv, const char *endpoint,
                                    bough_error *err);
/** Where the compute of an endpoint listens, and by which name it lets the administrator in. */
BOUGH_CHECK int computes_place(bough_sql_place *place, const server *srv, const char *endpoint,
                               bough_error *err);
/** The directory within, mode 0700, of the socket to which clients are handed over. */
#define COMPUTE_HANDOFF_DIR "d"

/**
 * (locked) Exec postgres: configuration, shared memory, process. Not ready yet: call
 * computes_wait().
 * @param major    Of the branch's project.
 * @param carried  "name=value" settings; NULL: those that the branch has already.
 */
BOUGH_CHECK int computes_begin(server *srv, const bough_branch_row *branch,
                               const bough_endpoint_row *endpoint, int major,
                               const char *const *carried, bough_error *err);

/** The same, but nobody except the administrator may connect until computes_open(). */
BOUGH_CHECK int computes_begin_closed(server *srv, const bough_branch_row *branch,
                                      const bough_endpoint_row *endpoint, int major,
                                      const char *const *carried, bough_error *err);

/** (locked) Let everybody connect to one that was begun closed; on return they can. */
BOUGH_CHECK int computes_open(server *srv, const char *home, bough_error *err);

/** (locked) Wait until it accepts connections. On failure it has been stopped and forgotten. */
BOUGH_CHECK int computes_wait(server *srv, const char *home, const char *cause, bough_error *err);

/**
 * Find in the log of a branch's compute why work on it failed.
 *
 * A server that finds no space for its WAL ends, and its clients learn only that it did.
 *
 * @param[in,out] err  What the client saw.
 * @return The code in `err`: BOUGH_E_NOSPACE where the log says that the disk is full, else as it
 * was.
 */
int computes_explain(server *srv, const char *branch, bough_error *err);

/**
 * (locked) What a compute that has ended without doing so in order has left: backends, shared
 * memory, its directory in /dev/shm. Nothing may use its PGDATA where that fails.
 * @param err  May be NULL.
 */
BOUGH_CHECK int computes_clear(const server *srv, const char *home, bough_error *err);

/** The same, at no cost where nothing is left: of one that ended while no server was there, or
 * whose end could not be cleared up. */
BOUGH_CHECK int computes_clear_rest(const server *srv, const char *home, bough_error *err);

/**
 * (locked) Stop it, cleanly if that can be; one that does not run is success.
 * @param cause  For people: "it was suspended through the API".
 */
BOUGH_CHECK int computes_stop(server *srv, const char *home, bool is_urgent, const char *cause,
                              bough_error *err);

/** Who wants a compute to run. */
typedef struct compute_cause {
    const char *text; /**< for people: "a connection from 127.0.0.1" */
    bool is_asked;    /**< the user asked for a start: the limit of automatic restarts does not
                         count */
} compute_cause;

/**
 * Make sure that the compute of an endpoint runs; takes the branch's lock when it does not. The
 * rows may be older than that: with the lock they are read anew.
 * @retval BOUGH_E_BUSY      Among others: the endpoint is of another branch now. Look it up again.
 * @retval BOUGH_E_NOTFOUND  Branch or endpoint was deleted.
 */
BOUGH_CHECK int computes_use(server *srv, const bough_branch_row *branch,
                             const bough_endpoint_row *endpoint, compute_cause cause,
                             bough_error *err);
/** The same, with a pooler in front of it (server/pools.h). Always takes the lock. */
BOUGH_CHECK int computes_use_pooled(server *srv, const bough_branch_row *branch,
                                    const bough_endpoint_row *endpoint, compute_cause cause,
                                    bough_error *err);
/** (locked) The same for a caller that has the lock. */
BOUGH_CHECK int computes_use_locked(server *srv, const bough_branch_row *branch,
                                    const bough_endpoint_row *endpoint, compute_cause cause,
                                    bough_error *err);

/** Find the compute of an endpoint that an earlier server started. At start-up. */
BOUGH_CHECK int computes_adopt(bool *found, server *srv, const bough_branch_row *branch,
                               const bough_endpoint_row *endpoint, bough_error *err);

/** Whether computes_sync_later() has something to do that can be done: layers that are not durable
 * and not refused by the disk, or a compute that could not be told that they are. */
bool computes_waits_for_sync(server *srv, const char *branch);

/** Make the layers of a branch durable in the background, then let its compute drop old WAL. */
void computes_sync_later(server *srv, const bough_branch_row *branch);

/** (the branch's lock; what ran is stopped) A branch is gone for good, or one endpoint of it: what
 * is known of its computes is forgotten. @param endpoint  NULL: all of the branch. */
void computes_forget(server *srv, const char *branch, const char *endpoint);

/** A branch whose compute has completed a checkpoint. */
typedef struct computes_checkpoint {
    char branch[BOUGH_ID_SIZE];
    uint64_t redo; /**< its redo location */
} computes_checkpoint;

/**
 * Active computes that have completed a checkpoint since computes_saw_checkpoint(), or have had
 * none seen yet. Takes no branch's lock and never blocks for long.
 * @param[out] found  To be freed; NULL where there are none, or no memory.
 * @return How many.
 */
size_t computes_checkpointed(computes_checkpoint **found, server *srv);

/** This one has been looked after. */
void computes_saw_checkpoint(server *srv, const computes_checkpoint *seen);

/** Stop all, in parallel. At the end. */
void computes_stop_all(server *srv);

/**
 * Look whether those that follow another do (server/standbys.h), and suspend those that nobody has
 * used for as long as their endpoint says: no session of the front door, and inside no other
 * client, no query, open transaction, walsender or autovacuum worker. One whose endpoint is not in
 * the catalogue, which therefore says nothing, is stopped. Called by the clock, on a worker.
 */
void computes_suspend_idle(server *srv);

#endif
