/** Snapshots: taking, deleting and restoring them, and what the clock does to them. Worker threads.
 */
#ifndef BOUGH_SERVER_FLOW_SNAPSHOT_H
#define BOUGH_SERVER_FLOW_SNAPSHOT_H

#include "model/snapshots.h"
#include "server/clock.h"
#include "server/http.h"

/** What is asked for in a snapshot. */
typedef struct snapshot_wish {
    const char *branch; /**< id */
    const char *name;
    bough_target moment;   /**< of its past; all zero: its present */
    int64_t expires_ms;    /**< 0: never */
    const char *frequency; /**< of the schedule that takes it; "": nobody's */
} snapshot_wish;

/**
 * The name of a snapshot that nobody named: "BRANCH MOMENT", with " (FREQUENCY)" where a schedule
 * takes it; the branch's name is cut where it leaves no room.
 * @param[out] name  BOUGH_NAME_SIZE bytes.
 */
void flow_snapshot_name(char *name, const char *branch, int64_t at_ms, const char *frequency);

/**
 * Take a snapshot: the branch is not disturbed, and not woken. It holds its moment whatever becomes
 * of the branch and of its history.
 *
 * @param wait_ms  How long to wait for another operation on the branch.
 * @retval BOUGH_E_CONFLICT  The name is taken.
 * @retval BOUGH_E_INVALID   It is none that a snapshot may have.
 */
BOUGH_CHECK int flow_snapshot_create(bough_snapshot_row *row, bough_operation_row *operation,
                                     server *srv, const bough_project_row *project,
                                     const snapshot_wish *wish, int wait_ms, bough_error *err);

/** Delete one. `expired_by_ms`: only where it had expired by then; 0: in any case. */
BOUGH_CHECK int flow_snapshot_delete(bough_operation_row *operation, server *srv,
                                     const char *project, const char *id, int64_t expired_by_ms,
                                     bough_error *err);

/** What is asked for in restoring one. */
typedef struct snapshot_restore_wish {
    const char *name; /**< of the new branch, or with `is_final` of the one replaced; NULL: made */
    const char *target; /**< id of the branch to replace; NULL: the snapshot's own */
    bool is_final;      /**< replace it at once */
} snapshot_restore_wish;

/** Make a branch from a snapshot; sets the request's answer. */
BOUGH_CHECK int flow_snapshot_restore(request *rq, const bough_project_row *project,
                                      const bough_snapshot_row *snapshot,
                                      const snapshot_restore_wish *wish, bough_error *err);

/**
 * Put a branch that was restored from a snapshot in the place of the one it is to replace: it has
 * its name and its endpoint then, whose connections end.
 *
 * @param name  How the branch that was replaced is called then; NULL: it is made.
 */
BOUGH_CHECK int flow_snapshot_finalize(bough_operation_row *operation, server *srv,
                                       const bough_project_row *project, const char *branch,
                                       const char *name, bough_error *err);

/** Take what schedules ask for, and delete what has expired; at most `most` of each. `*done`
 * counts. `*is_busy` is set where another operation stood in the way: what is due stays due. */
BOUGH_CHECK int flow_snapshots_tick(int *done, bool *is_busy, server *srv,
                                    const clock_moment *moment, int most, bough_error *err);

#endif
