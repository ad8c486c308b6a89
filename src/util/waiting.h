/**
 * A thread that begins to wait for what others decide (a lock, a compute) says so; whoever lent it
 * the thread may have another take its place meanwhile (server/jobs.h). No state but the thread's.
 */
#ifndef BOUGH_UTIL_WAITING_H
#define BOUGH_UTIL_WAITING_H

#include <stdbool.h>

/** Told that the calling thread begins to wait, or ends. False: as many wait already as may. */
typedef bool (*bough_wait_listener)(void *context, bool begins);

/** From now on tell `listener` of the calling thread; NULL: nobody. */
void bough_wait_listen(bough_wait_listener listener, void *context);

/**
 * The calling thread is about to wait. May be nested; ends with bough_wait_end(), whatever is
 * returned.
 * @return False where nobody can take its place: a wait that can be refused should be.
 */
bool bough_wait_begin(void);
void bough_wait_end(void);

#endif
