/**
 * The threads of sessions whose bytes go through boughd: so many at most, one each, all ended
 * together. (WebSockets, and the past with TLS.)
 */
#ifndef BOUGH_SERVER_SESSIONS_H
#define BOUGH_SERVER_SESSIONS_H

#include <pthread.h>
#include <stdbool.h>

#include "util/error.h"

/** Of one kind. Zeroed memory is a set that sessions_end() may be given. */
typedef struct sessions {
    int stop_fd; /**< readable from the moment at which all are to end */
    int n, most;
    bool is_ready;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
} sessions;

/**
 * @param most  Further ones are refused.
 * @return      BOUGH_E_IO where no descriptor is left. Call sessions_end() all the same.
 */
BOUGH_CHECK int sessions_begin(sessions *all, int most, bough_error *err);

/**
 * Take a place. Any thread.
 * @return  Whether there is one; it has to be given back by sessions_leave().
 */
BOUGH_CHECK bool sessions_enter(sessions *all);

/** Give a place back. A session's thread does so last: `all` may be gone afterwards. */
void sessions_leave(sessions *all);

/**
 * Run `work(arg)` in a thread of its own, all signals blocked, 256 KiB of stack. It owns `arg` then
 * and has the place that sessions_enter() took.
 * @return  BOUGH_E_IO where no thread can be had: `arg` and the place are still the caller's.
 */
BOUGH_CHECK int sessions_run(void *(*work)(void *), void *arg, bough_error *err);

/**
 * Tell all to end, and wait for them, up to `timeout_ms`.
 * @return  How many still run; where none does, what sessions_begin() took is freed.
 */
int sessions_end(sessions *all, int timeout_ms);

#endif
