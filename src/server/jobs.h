/**
 * Worker threads: a pool takes jobs in order. Nothing that blocks may run on the loop thread; it
 * runs here.
 */
#ifndef BOUGH_SERVER_JOBS_H
#define BOUGH_SERVER_JOBS_H

#include "util/error.h"

typedef struct job_pool job_pool;

/** No more jobs wait than this; further ones are refused with BOUGH_E_BUSY. */
#define JOBS_MAX 4096

/**
 * Start `threads` threads with all signals blocked.
 *
 * A thread that waits for what others decide (util/waiting.h) gives its place away: another is
 * started where a job needs one, and ends when there are enough again. So those who wait for one
 * branch keep nobody else's jobs from running.
 *
 * @param waiting_most  So many may wait beside `threads` that work; 0: nobody takes the place of
 *                      one that waits.
 */
BOUGH_CHECK int job_pool_new(job_pool **pool, const char *name, int threads, int waiting_most,
                             bough_error *err);

/** Have a thread call run(arg). Any thread. @retval BOUGH_E_BUSY  Too many wait, or the pool is
 * ending. */
BOUGH_CHECK int job_pool_add(job_pool *pool, void (*run)(void *arg), void *arg, bough_error *err);

/**
 * Take no more jobs and let the threads finish those that wait.
 * @return 0 when all threads have ended; the pool is freed. Else threads still work after
 * timeout_ms, and the pool must be left alone: the process is about to exit.
 */
int job_pool_end(job_pool *pool, int timeout_ms);

#endif
