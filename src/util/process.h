/**
 * Which process it is. The kernel gives the number of one that has ended to another. Any thread.
 */
#ifndef BOUGH_UTIL_PROCESS_H
#define BOUGH_UTIL_PROCESS_H

#include <sys/types.h>

#include "util/error.h"

#define BOUGH_PROCESS_MARK_SIZE 128

/**
 * What no other process of that number has had, or will: the boot, and the tick of it at which it
 * began.
 * @retval BOUGH_E_NOTFOUND  There is none that runs, or this user may not look.
 */
BOUGH_CHECK int bough_process_mark(char out[BOUGH_PROCESS_MARK_SIZE], pid_t pid, bough_error *err);

#endif
