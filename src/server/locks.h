/**
 * Locks by name: of branches (their id) and of names that are being created. Taking several is one
 * step, so no order can deadlock. Not recursive: never take a second set while holding one.
 *
 * Who has waited longest comes first: no stream of requests for a branch keeps another from its
 * turn. What a holder does is bounded by others (pg/sql.h): so is the wait.
 */
#ifndef BOUGH_SERVER_LOCKS_H
#define BOUGH_SERVER_LOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/error.h"

typedef struct lock_table lock_table;

BOUGH_CHECK int lock_table_new(lock_table **table, bough_error *err);
void lock_table_free(lock_table *table);

/** How long an operation waits for another one on the same branch. */
#define LOCK_WAIT_MS 60000
/** No more threads wait for one name: who comes then is refused. */
#define LOCK_WAITERS_MAX 64

/**
 * Take all of `names`, or none.
 * @param timeout_ms  0: do not wait.
 * @retval BOUGH_E_BUSY  Not within that time; or too many wait already.
 */
BOUGH_CHECK int locks_take(lock_table *table, const char *const *names, size_t n, int timeout_ms,
                           bough_error *err);
void locks_drop(lock_table *table, const char *const *names, size_t n);

/** The same for one name. */
BOUGH_CHECK int lock_take(lock_table *table, const char *name, int timeout_ms, bough_error *err);
void lock_drop(lock_table *table, const char *name);
/** Drop it after having looked only. */
void lock_drop_unchanged(lock_table *table, const char *name);

/** Whether the calling thread holds it; who takes a lock drops it. */
bool lock_is_ours(lock_table *table, const char *name);

/**
 * How often somebody has dropped this lock after work: while that is the same, nobody who needs the
 * lock has changed anything. Names may share a count.
 * @param[out] all  The same for all locks together.
 */
uint64_t lock_turns(uint64_t *all, lock_table *table, const char *name);

#endif
