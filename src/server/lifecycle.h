/**
 * The end of branches: deleting, recovering, and what the clock does by itself (warnings, expiry,
 * removal of what was deleted 7 days ago).
 *
 * flow_end.c does it to one branch: worker threads. lifecycle.c has the timer: it sleeps until the
 * next branch is due (a minute at most while any waits, for ever where none does), and then works
 * in small batches on a background thread, so that requests never queue behind it.
 */
#ifndef BOUGH_SERVER_LIFECYCLE_H
#define BOUGH_SERVER_LIFECYCLE_H

#include "server/clock.h"
#include "server/server.h"

/**
 * Delete a branch: recoverable, or for good.
 *
 * @param[out] is_refused  Set where the branch must not be deleted for what it is.
 * @param[out] operation   What was recorded.
 * @param id               With `for_good` also of a branch that is deleted already.
 * @retval BOUGH_E_CONFLICT  Others stand on it.
 */
BOUGH_CHECK int flow_branch_delete(bool *is_refused, bough_operation_row *operation, server *srv,
                                   const bough_project_row *project, const char *id, bool for_good,
                                   bough_error *err);

/** Remove a branch that was made for a request which failed afterwards, protected or not, and say
 * in the log where that cannot be: somebody has made it the default, or branches from it. */
void flow_branch_undo(server *srv, const char *project, const char *id);

/** End the looks at a branch, in use or not: they are no reason for it to stay. */
BOUGH_CHECK int flow_end_looks(server *srv, const char *project, const char *branch,
                               bough_error *err);

/**
 * Undo a deletion. Where its expiry has passed, the branch has its whole lifetime again.
 * @param name  NULL: the one it had.
 * @retval BOUGH_E_CONFLICT      The name is taken.
 * @retval BOUGH_E_PRECONDITION  Its parent is deleted, or its files are gone.
 */
BOUGH_CHECK int flow_branch_recover(bough_operation_row *operation, server *srv,
                                    const bough_project_row *project, const char *id,
                                    const char *name, bough_error *err);

/** Delete a branch whose expiry has come, with its children where it cascades. Nothing happens to
 * one that is in use by another operation (BOUGH_E_BUSY), or must stay. */
BOUGH_CHECK int flow_branch_expire(server *srv, const char *id, bough_error *err);

/** Remove a branch that was deleted at `deleted_ms` or before. */
BOUGH_CHECK int flow_branch_purge(server *srv, const char *id, int64_t deleted_ms,
                                  bough_error *err);

/** Whether a branch that is due and cascades has a child that must stay. */
bool flow_is_blocked(server *srv, const char *id);

/** Make the timer; lifecycle_wake() starts it. */
BOUGH_CHECK int lifecycle_new(struct lifecycle **life, server *srv, bough_error *err);
/** No background job may run any more. */
void lifecycle_free(struct lifecycle *life);
/** Something has changed: look what is due. Any thread. */
void lifecycle_wake(server *srv);

#endif
