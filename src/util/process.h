/**
 * Which process it is. The kernel gives the number of one that has ended to another. Any thread.
 */
#ifndef BOUGH_UTIL_PROCESS_H
#define BOUGH_UTIL_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "util/error.h"

#define BOUGH_PROCESS_MARK_SIZE 128

/**
 * What no other process of that number has had, or will: the boot, and the tick of it at which it
 * began.
 * @retval BOUGH_E_NOTFOUND  There is none that runs, or this user may not look.
 */
BOUGH_CHECK int bough_process_mark(char out[BOUGH_PROCESS_MARK_SIZE], pid_t pid, bough_error *err);

/** Its parent; -1 where it does not run. */
pid_t bough_process_parent(pid_t pid);

/** Whether it is a boughd that was started with this store, by the words that it was started with.
 * Not for what must be proved: any process may choose its own. */
bool bough_process_is_server(pid_t pid, const char *store);

#endif
