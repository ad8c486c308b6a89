/**
 * postmaster.pid: who runs on a PGDATA, and whether that is still true. Any thread.
 */
#ifndef BOUGH_PG_PIDFILE_H
#define BOUGH_PG_PIDFILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "bough/error.h"

/** Its lines (PostgreSQL src/include/utils/pidfile.h) as far as we need them. */
typedef struct bough_pidfile {
    pid_t pid;
    bool ready;            /**< the status line says "ready" or "standby" */
    char port[16];         /**< "": not there yet, */
    char socket_dir[1024]; /**< as is this */
} bough_pidfile;

/** Read PGDATA/postmaster.pid. Returns 0, or -1 when there is none or it is not complete yet. */
BOUGH_CHECK int bough_pidfile_read(bough_pidfile *file, const char *pgdata);

/** System V shared memory that a postgres notes there. */
typedef struct bough_pidfile_segment {
    pid_t pid; /**< who made it: a postmaster, or a standalone backend as initdb starts it */
    unsigned long key;
    int id;
} bough_pidfile_segment;

/** Returns 0, or -1 when there is none. */
BOUGH_CHECK int bough_pidfile_read_segment(bough_pidfile_segment *segment, const char *pgdata);

/** Whether process `pid` is a postgres whose working directory is `pgdata`. */
bool bough_pidfile_process_is(pid_t pid, const char *pgdata);

/**
 * After a restart of the machine another program may have the number of a dead postmaster, and
 * postgres would refuse to start. Where that is certain, put our own number there: postgres takes
 * its parent's number for stale, and still makes its other checks (shared memory of surviving
 * backends). A file without any number, which postgres refuses too, is removed: a power cut left
 * it. The caller knows that no postmaster runs on `pgdata`; the lock file of a socket that a living
 * postgres of another directory holds stays as it is, so that postgres refuses to start.
 */
void bough_pidfile_repair(const char *pgdata, const char *socket_dir);

#endif
