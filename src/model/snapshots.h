/**
 * Snapshots: moments of branches that are kept until they are deleted or expire; schedules that
 * take them; and branches that were restored from them.
 *
 * A snapshot's files, roles and databases are those of a branch that nobody sees: table branches
 * has a row with its id (is_snapshot), which no list of branches shows.
 */
#ifndef BOUGH_MODEL_SNAPSHOTS_H
#define BOUGH_MODEL_SNAPSHOTS_H

#include "model/catalogue.h"

typedef struct bough_snapshot_row {
    char id[BOUGH_ID_SIZE];
    char project_id[BOUGH_ID_SIZE];
    char source_id[BOUGH_ID_SIZE]; /**< the branch it is of, which may be gone by now */
    char name[BOUGH_NAME_SIZE];    /**< unique in its project */
    char lsn[BOUGH_LSN_SIZE];      /**< its WAL ends here */
    int64_t time_us;               /**< the moment, microseconds since 1970 */
    char frequency[16];            /**< of the schedule that took it; "": somebody did */
    int64_t created_ms;
    int64_t expires_ms; /**< 0: never */
} bough_snapshot_row;

/** One line of a branch's schedule. Times are of UTC. */
typedef struct bough_schedule_row {
    char branch_id[BOUGH_ID_SIZE];
    int64_t seq;
    char frequency[16];        /**< hourly, daily, weekly, monthly, yearly */
    int hour;                  /**< 0 to 23; -1: not given */
    int day;                   /**< of the week (1: Monday) or the month; 0: not given */
    int month;                 /**< 1 to 12; 0: not given */
    int64_t retention_seconds; /**< 0: kept until deleted */
    int64_t next_ms;           /**< when the next one is due */
} bough_schedule_row;

enum { BOUGH_SCHEDULE_MAX = 32 }; /**< lines */

/** A branch that was restored from a snapshot. */
typedef struct bough_restored_row {
    char branch_id[BOUGH_ID_SIZE];
    char snapshot_id[BOUGH_ID_SIZE];
    char target_id[BOUGH_ID_SIZE]; /**< the branch that it replaces, or is to replace; "": none */
    bool is_final;                 /**< it has done so */
    bool is_transient;             /**< it does so at once: it is not meant to be seen before */
} bough_restored_row;

/** With the row of branches that holds its contents: those of `contents_of`. (in a transaction) */
BOUGH_CHECK int bough_snapshots_insert(bough_catalogue *cat, const bough_snapshot_row *row,
                                       const bough_branch_row *source, bough_error *err);
BOUGH_CHECK int bough_snapshots_get(bough_snapshot_row *row, bough_catalogue *cat,
                                    const char *project, const char *id, bough_error *err);
/** Newest first. */
BOUGH_CHECK int bough_snapshots_list(bough_snapshot_row **rows, size_t *n, bough_catalogue *cat,
                                     const char *project, bough_error *err);
BOUGH_CHECK int bough_snapshots_rename(bough_catalogue *cat, const char *id, const char *name,
                                       bough_error *err);
/** With its contents. `expired_by_ms`: only where it had expired by then; 0: in any case.
 * @retval BOUGH_E_NOTFOUND  There is none (any more). */
BOUGH_CHECK int bough_snapshots_delete(bough_catalogue *cat, const char *id, int64_t expired_by_ms,
                                       bough_error *err);

/** Ids of those whose expiry has come. */
BOUGH_CHECK int bough_snapshots_due(bough_id_list *ids, size_t *n, bough_catalogue *cat,
                                    int64_t now_ms, bough_error *err);
/** The next moment after `now_ms` at which one expires or is to be taken; 0: none. */
BOUGH_CHECK int bough_snapshots_next_event(int64_t *at_ms, bough_catalogue *cat, int64_t now_ms,
                                           bough_error *err);

/** Make these lines the branch's schedule. (in a transaction) */
BOUGH_CHECK int bough_schedules_set(bough_catalogue *cat, const char *branch,
                                    const bough_schedule_row *rows, size_t n, bough_error *err);
BOUGH_CHECK int bough_schedules_get(bough_schedule_row **rows, size_t *n, bough_catalogue *cat,
                                    const char *branch, bough_error *err);
/** Lines of live branches that are due. */
BOUGH_CHECK int bough_schedules_due(bough_schedule_row **rows, size_t *n, bough_catalogue *cat,
                                    int64_t now_ms, bough_error *err);
BOUGH_CHECK int bough_schedules_set_next(bough_catalogue *cat, const bough_schedule_row *row,
                                         int64_t next_ms, bough_error *err);
/** Let the schedule of one branch be another's. */
BOUGH_CHECK int bough_schedules_move(bough_catalogue *cat, const char *from, const char *to,
                                     bough_error *err);

/** Hold a line against the rules. */
BOUGH_CHECK int bough_rule_schedule(const bough_schedule_row *row, bough_error *err);
/** When a line is due next after a moment. In a month without that day, on its last one. */
int64_t bough_schedule_next(const bough_schedule_row *row, int64_t after_ms);

BOUGH_CHECK int bough_restored_set(bough_catalogue *cat, const bough_restored_row *row,
                                   bough_error *err);
BOUGH_CHECK int bough_restored_get(bough_restored_row *row, bough_catalogue *cat,
                                   const char *branch, bough_error *err);
/** At a start: what was to replace another at once and did not, since the server ended between, is
 * no branch. `*n` counts. Its files are then those of nobody. */
BOUGH_CHECK int bough_restored_drop_transient(int *n, bough_catalogue *cat, bough_error *err);

/**
 * Let `restored` stand in the place of `target`: with its name, endpoints, schedule, expiry, known
 * passwords and whether it is the default branch; the target is called `old_name`, has the other's
 * endpoints and keeps its expiry. (in a transaction)
 * @param restored  As it is in that transaction; `target`, too.
 * @param now_ms    From when on one lives whose name says that it expires.
 */
BOUGH_CHECK int bough_restored_replace(bough_catalogue *cat, const bough_branch_row *restored,
                                       const bough_branch_row *target, const char *old_name,
                                       int64_t now_ms, bough_error *err);

#endif
