/**
 * The past of branches: restore points, branching from a moment, forgetting. Worker threads.
 */
#ifndef BOUGH_SERVER_HISTORY_H
#define BOUGH_SERVER_HISTORY_H

#include "server/server.h"

/**
 * Of WAL between two restore points: as much as between two checkpoints (pg/conf.c), whose page
 * images are compressed. What lies between two of them is replayed by a branch of a moment.
 */
#define HISTORY_POINT_BYTES ((uint64_t)32 << 20)

/** One that is replayed from the same checkpoint as the one before gains little: it is made after
 * so much WAL without a checkpoint. */
#define HISTORY_POINT_LATEST_BYTES ((uint64_t)128 << 20)

/** Whether a target names a moment; none is the present. */
static inline bool history_is_wanted(const bough_target *target) {
    return target->lsn || target->time_us;
}

/**
 * The branch whose history has the moment: `branch`, or where the moment is before it began, the
 * one that it was made from. What a branch had itself and has forgotten is looked for nowhere else:
 * the same LSN, or the same time, of its parent is of other data.
 *
 * @param[out] base  BOUGH_ID_SIZE bytes.
 * @retval BOUGH_E_INVALID       It is to come, or older than the history that the project keeps.
 * @retval BOUGH_E_PRECONDITION  The project keeps no history.
 * @retval BOUGH_E_NOTFOUND      The history does not reach back so far.
 */
BOUGH_CHECK int history_base(char *base, server *srv, const bough_project_row *project,
                             const bough_branch_row *branch, const bough_target *target,
                             bough_error *err);

/**
 * (locked: branch, base) Whether what history_base() said before is still so: a restore in place
 * that had the locks meanwhile gives a branch another past.
 * @retval BOUGH_E_BUSY  It is not.
 */
BOUGH_CHECK int history_check_base(const char *base, server *srv, const bough_project_row *project,
                                   const bough_branch_row *branch, const bough_target *target,
                                   bough_error *err);

/** (locked: base) Make the files of `child` from a moment of `base`; see bough_store_fork_at(). */
BOUGH_CHECK int history_fork(bough_cut *cut, server *srv, const char *base,
                             const bough_target *target, const char *child, bough_error *err);

/**
 * (locked) Make what the catalogue knows of a branch of the past true: roles and databases that
 * were not there yet, or are there still, and passwords as they are known now. Its compute runs.
 */
BOUGH_CHECK int history_settle(server *srv, const char *branch, const char *endpoint,
                               bough_error *err);

/** (locked) The same without passwords: what SQL has made, dropped or given away meanwhile. */
BOUGH_CHECK int history_look(server *srv, const char *branch, const char *endpoint,
                             bough_error *err);

/** Whether the branch keeps history, by its project. */
bool history_is_kept(server *srv, const bough_branch_row *branch);

/** A project's retention has changed: computes that run learn it, and what is too old goes.
 * Branches that are in use follow with history_tick(). */
void history_changed(server *srv, const bough_project_row *project);

/** From when on the branches of a project keep their past, milliseconds since 1970; by the guarded
 * clock: no jump makes history old. */
int64_t history_keep_from(server *srv, const bough_project_row *project);

/**
 * Forget now what is older, of all branches.
 * @return How many were in use meanwhile and were passed over.
 */
unsigned history_forget(server *srv);

/** Called by the clock: what projects keep, restore points by WAL volume, forgetting. */
void history_tick(server *srv);

/** Called often: a restore point just after a checkpoint, from where little is to be replayed. */
void history_checkpoints(server *srv);

#endif
