/**
 * The supervisor: which branches have a running compute, starting and stopping them, noticing their
 * end.
 *
 * Any thread. Functions marked (locked) need the branch's lock (server/locks.h), which makes the
 * calling thread the only one to use that branch's bough_compute and bough_shm.
 */
#ifndef BOUGH_SERVER_COMPUTES_H
#define BOUGH_SERVER_COMPUTES_H

#include "server/server.h"

/** How long a start may take. Crash recovery counts. */
#define COMPUTE_READY_MS 600000
/** How long a clean stop may take before it is forced. */
#define COMPUTE_STOP_MS 60000

BOUGH_CHECK int computes_new(struct computes **computes, bough_error *err);
/** Forget all; the processes go on. */
void computes_free(struct computes *computes);

bool computes_is_active(const server *srv, const char *branch);
/** When the compute became active, in ms since 1970; 0 when it is not. */
int64_t computes_started_ms(const server *srv, const char *branch);
int computes_count(const server *srv);

/**
 * (locked) Look at what writes to a branch now.
 * @param[out] shm  The shared memory of the running compute; NULL: none runs, and no process of one
 * is left.
 */
BOUGH_CHECK int computes_shm(bough_shm **shm, server *srv, const char *branch, bough_error *err);

/** Socket directory of an endpoint, into BOUGH_PATH_MAX bytes. */
BOUGH_CHECK int computes_socket_dir(char *out, const server *srv, const char *endpoint,
                                    bough_error *err);

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
BOUGH_CHECK int computes_open(server *srv, const char *branch, bough_error *err);

/** (locked) Wait until it accepts connections. On failure it has been stopped and forgotten. */
BOUGH_CHECK int computes_wait(server *srv, const char *branch, bough_error *err);

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

/** (locked) Stop it, cleanly if that can be; one that does not run is success. */
BOUGH_CHECK int computes_stop(server *srv, const char *branch, bool is_urgent, bough_error *err);

/**
 * Make sure the compute of a branch runs; takes the branch's lock when it does not.
 * @param is_asked  The user asked for the start: the limit of automatic restarts does not count.
 */
BOUGH_CHECK int computes_use(server *srv, const bough_branch_row *branch,
                             const bough_endpoint_row *endpoint, bool is_asked, bough_error *err);
/** (locked) The same for a caller that has the lock. `started` may be NULL. */
BOUGH_CHECK int computes_use_locked(bool *started, server *srv, const bough_branch_row *branch,
                                    const bough_endpoint_row *endpoint, bool is_asked,
                                    bough_error *err);

/** Find the compute of a branch that an earlier server started. At start-up. */
BOUGH_CHECK int computes_adopt(bool *found, server *srv, const bough_branch_row *branch,
                               const bough_endpoint_row *endpoint, bough_error *err);

/** Make the layers of a branch durable in the background, then let its compute drop old WAL. */
void computes_sync_later(server *srv, const bough_branch_row *branch);

/** Stop all, in parallel. At the end. */
void computes_stop_all(server *srv);

/** Suspend those whose endpoint says so and that no client uses. Called by the clock, on a worker.
 */
void computes_suspend_idle(server *srv);

#endif
