/**
 * Starting boughd in the background, and finding out what is left of one that was killed.
 */
#ifndef BOUGH_CLI_DAEMON_H
#define BOUGH_CLI_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "bough/error.h"

#define DAEMON_OPTIONS_MAX 40

/**
 * Start boughd on a store and wait until it is ready. Its output is appended to STORE/boughd.log.
 *
 * @param store    Absolute; made if there is none, and removed again if the server refuses it.
 * @param options  More arguments of boughd, at most DAEMON_OPTIONS_MAX; NULL-terminated.
 * @return         The code of boughd's own failure, with its message and hint, where it ended.
 * @retval BOUGH_E_NOTFOUND   boughd or libbough_pg.so is not installed.
 * @retval BOUGH_E_CANCELLED  Interrupted; what had been started was stopped.
 */
BOUGH_CHECK int daemon_start(const char *store, const char *const *options, bough_error *err);

/**
 * Wait until a process is gone.
 * @retval BOUGH_E_TIMEOUT    It is still there.
 * @retval BOUGH_E_CANCELLED  Interrupted.
 */
BOUGH_CHECK int daemon_wait_gone(pid_t pid, int timeout_ms, bough_error *err);

/** Count the postgres servers that run on a store's branches. */
int daemon_count_computes(const char *store);

#endif
