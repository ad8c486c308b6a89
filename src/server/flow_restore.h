/** Restoring a branch in place. Worker threads. */
#ifndef BOUGH_SERVER_FLOW_RESTORE_H
#define BOUGH_SERVER_FLOW_RESTORE_H

#include "server/http.h"

/** What POST .../restore asks for. */
typedef struct restore_wish {
    const char *source;              /**< id; the branch itself or another one */
    bough_target moment;             /**< of the source's past; all zero: its present */
    const char *preserve_under_name; /**< NULL: what the branch shows now is deleted */
} restore_wish;

/**
 * Let a branch show what `source` shows, or showed; sets the request's answer. Its connections end;
 * its id, name and endpoint stay. Its children move to the branch that keeps what it showed.
 */
BOUGH_CHECK int flow_branch_restore(request *rq, const bough_project_row *project,
                                    const char *branch, const restore_wish *wish, bough_error *err);

/** At start-up, before the store is reconciled: finish or undo what a crash interrupted. */
BOUGH_CHECK int flow_restore_recover(server *srv, bough_error *err);

#endif
