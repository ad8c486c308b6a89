/**
 * A running postgres: exec, readiness, stop, adoption. No pg_ctl on this path: it polls.
 *
 * The process is its own session and process group, so that it outlives the server that started it.
 * It is confined with Landlock where the kernel has it (bough_landlock_abi()).
 *
 * The preload library gets environment variables: BOUGH_SHM_FD (shared memory made by
 * bough_store_prepare()), BOUGH_HANDOFF_DIR (preload/handoff.h) and BOUGH_READY_FD (an eventfd; the
 * library writes 1 when the postmaster has put "ready" into postmaster.pid, so that nobody polls).
 *
 * Threads: a bough_compute is used by one thread at a time.
 */
#ifndef BOUGH_PG_COMPUTE_H
#define BOUGH_PG_COMPUTE_H

#include <stdbool.h>
#include <sys/types.h>

#include "pg/install.h"

/** What to start. All strings are borrowed for the call. */
typedef struct bough_compute_spec {
    const bough_pg *pg;
    const char *pgdata;      /**< absolute; configuration is in place (pg/conf.h) */
    const char *socket_dir;  /**< absolute; made by the caller, mode 0755 or stricter */
    const char *handoff_dir; /**< absolute, inside socket_dir, mode 0700: sockets by which clients
                                are handed over; NULL: none */
    const char *log_path;    /**< stdout and stderr are appended here; made with mode 0600 */
    const char
        *preload; /**< absolute path of libbough_pg.so; NULL: start a plain cluster (import) */
    int shm_fd;   /**< -1 without preload */
    const char *const *ro_paths; /**< NULL-terminated: may be read (layers); may be NULL */
    const char *const *rw_paths; /**< NULL-terminated: may be written, besides pgdata and
                                    socket_dir; may be NULL */
    const char *const *settings; /**< NULL-terminated "name=value", passed with -c; may be NULL */
    bool allow_network;          /**< leave TCP connect and bind free */
    const char *group;           /**< as in bough_spawn_spec */
    int *group_errno;            /**< likewise */
} bough_compute_spec;

typedef struct bough_compute bough_compute;

/** Version of Landlock in this kernel; 0 when there is none. */
int bough_landlock_abi(void);

/**
 * Exec postgres. Returns as soon as exec succeeded, before it is ready.
 * @param[out] compute  Ends with bough_compute_free(), which does not stop the process.
 */
BOUGH_CHECK int bough_compute_start(bough_compute **compute, const bough_compute_spec *spec,
                                    bough_error *err);

/** Whether postmaster.pid says that connections are taken; for a compute that was adopted. */
bool bough_compute_ready(const bough_compute *compute);

/**
 * Wait until it accepts connections.
 * @retval BOUGH_E_PG       It ended; the message holds the last FATAL, PANIC or ERROR line of its
 * log.
 * @retval BOUGH_E_TIMEOUT  Not ready after timeout_ms; still running.
 */
BOUGH_CHECK int bough_compute_wait_ready(bough_compute *compute, int timeout_ms, bough_error *err);

/**
 * Find a compute that is already running on a PGDATA, by postmaster.pid, checked against the
 * process.
 * @retval BOUGH_E_NOTFOUND  None runs.
 */
BOUGH_CHECK int bough_compute_adopt(bough_compute **compute, const char *pgdata, bough_error *err);

pid_t bough_compute_pid(const bough_compute *compute);

/** A descriptor that polls readable when the process has ended (pidfd). Borrowed. */
int bough_compute_pidfd(const bough_compute *compute);

/** Whether the process is still there. Reaps it when it was our child and has ended. */
bool bough_compute_running(bough_compute *compute);

typedef enum bough_stop { BOUGH_STOP_FAST, BOUGH_STOP_IMMEDIATE, BOUGH_STOP_KILL } bough_stop;

/** Stop: SIGINT, SIGQUIT, or SIGKILL to the whole group; waits until all is gone. @retval
 * BOUGH_E_TIMEOUT */
BOUGH_CHECK int bough_compute_stop(bough_compute *compute, bough_stop how, int timeout_ms,
                                   bough_error *err);

void bough_compute_free(bough_compute *compute);

#endif
