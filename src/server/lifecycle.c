/*
 * What the clock does to branches.
 *
 * One timer, one job at a time. The job does at most BATCH deletions and removals, arms the timer
 * anew and ends, so that other background work has its turn. `woken` is set before the timer is
 * armed and looked at after: a wake during a job is never lost.
 */
#include "server/lifecycle.h"

#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "server/flow_snapshot.h"
#include "server/flows.h"
#include "util/log.h"

enum { BATCH = 8, WARNINGS = 64 };
/* Milliseconds: between batches; until a branch that was in use is tried again; the longest sleep
 * while anything waits (the machine may be suspended, the clock be set); and a test's. */
enum { SOON_MS = 5, RETRY_MS = 1000, LONGEST_MS = 60000, TEST_MS = 50, NEVER_MS = -1 };

struct lifecycle {
    server *srv;
    struct event *timer;
    atomic_bool is_running, woken;
};

/* ---- one batch ---- */

static int warn(server *srv, const char *id, int64_t now_ms, bough_error *err) {
    bough_branch_row row;
    bough_operation_row operation;
    int rc = bough_catalogue_begin(srv->cat, err);
    if (rc) return rc;
    rc = bough_branches_get_any(&row, srv->cat, id, err);
    int stage = rc || row.deleted_ms ? 0 : bough_expiry_stage(&row, now_ms);
    if (!rc && stage > row.expiry_warnings) {
        rc = flow_operation(&operation, "branch_expiring", row.project_id, id, NULL, bough_now_ms(),
                            err);
        if (!rc) rc = bough_operations_insert(srv->cat, &operation, err);
        if (!rc) rc = bough_branches_set_warnings(srv->cat, id, stage, err);
    }
    return bough_catalogue_end(srv->cat, rc, err);
}

static int warn_some(server *srv, int64_t now_ms, bool *more, bough_error *err) {
    bough_id_list ids;
    size_t n;
    int rc = bough_branches_to_warn(&ids, &n, srv->cat, now_ms, err);
    for (size_t i = 0; i < n && i < WARNINGS && !rc; i++) rc = warn(srv, ids[i], now_ms, err);
    *more |= n > WARNINGS;
    free(ids);
    return rc;
}

/* What became of some branches that are due. */
typedef struct tally {
    int done;
    bool more, is_busy;
} tally;

static void count(tally *t, server *srv, int rc, const char *id, const bough_error *err) {
    if (rc == BOUGH_OK)
        t->done++;
    else if (rc == BOUGH_E_BUSY)
        t->is_busy = !atomic_load(&srv->stopping);
    else if (rc != BOUGH_E_PRECONDITION && rc != BOUGH_E_CONFLICT && rc != BOUGH_E_NOTFOUND)
        bough_log(BOUGH_LOG_WARN, "could not end a branch that is due", "branch", id, "error",
                  err->message, NULL);
}

static int end_some(tally *t, server *srv, int64_t now_ms, bough_error *err) {
    bough_id_list ids;
    size_t n;
    bough_error trouble;
    int rc = bough_branches_due(&ids, &n, srv->cat, now_ms, err);
    for (size_t i = 0; i < n && t->done < BATCH && !atomic_load(&srv->stopping); i++)
        count(t, srv, flow_branch_expire(srv, ids[i], &trouble), ids[i], &trouble);
    free(ids);
    if (rc) return rc;
    int64_t deleted_ms = now_ms - BOUGH_RECOVERABLE_MS;
    rc = bough_branches_purgeable(&ids, &n, srv->cat, deleted_ms, err);
    for (size_t i = 0; i < n && t->done < BATCH && !atomic_load(&srv->stopping); i++)
        count(t, srv, flow_branch_purge(srv, ids[i], deleted_ms, &trouble), ids[i], &trouble);
    free(ids);
    t->more |= t->done > 0; /* also: a parent may have waited for what has ended */
    return rc;
}

/* Returns for how long to sleep. */
static int work(server *srv, bough_error *err) {
    clock_moment moment;
    tally t = {0};
    bool any = false;
    int64_t next_ms = 0;
    int64_t snapshot_ms = 0;
    int taken = 0;
    int rc = bough_branches_any_timed(&any, srv->cat, err);
    if (!rc && !any) return NEVER_MS;
    clock_look(&moment, srv->clock);
    if (!rc) rc = clock_save(srv->clock, false, err);
    if (!rc) rc = warn_some(srv, moment.now_ms, &t.more, err);
    if (!rc) rc = end_some(&t, srv, moment.now_ms, err);
    if (!rc) rc = flow_snapshots_tick(&taken, &t.is_busy, srv, &moment, BATCH, err);
    t.more |= taken > 0;
    if (!rc) rc = bough_branches_next_event(&next_ms, srv->cat, moment.now_ms, err);
    if (!rc) rc = bough_snapshots_next_event(&snapshot_ms, srv->cat, moment.now_ms, err);
    if (snapshot_ms && (!next_ms || snapshot_ms < next_ms)) next_ms = snapshot_ms;
    if (rc) {
        bough_log(BOUGH_LOG_WARN, "could not look what is due", "error", err->message, NULL);
        return LONGEST_MS;
    }
    if (t.more) return SOON_MS;
    if (clock_is_test(srv->clock)) return TEST_MS;
    if (t.is_busy) return RETRY_MS;
    int64_t left_ms = next_ms ? next_ms - moment.now_ms : LONGEST_MS;
    return left_ms < LONGEST_MS ? (int)left_ms : LONGEST_MS;
}

/* ---- the timer ---- */

static void arm(struct lifecycle *life, int ms) {
    struct timeval after = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    if (event_add(life->timer, &after) != 0)
        bough_log(BOUGH_LOG_ERROR, "could not set a timer: nothing expires", NULL);
}

static void on_job(void *arg) {
    struct lifecycle *life = arg;
    bough_error err = {0};
    atomic_store(&life->woken, false);
    int ms = work(life->srv, &err);
    atomic_store(&life->is_running, false);
    if (ms != NEVER_MS) arm(life, ms);
    if (atomic_load(&life->woken)) arm(life, 0);
}

/* Loop thread. */
static void on_timer(evutil_socket_t fd, short what, void *arg) {
    struct lifecycle *life = arg;
    (void)fd;
    (void)what;
    if (atomic_load(&life->srv->stopping) || atomic_exchange(&life->is_running, true)) return;
    if (job_pool_add(life->srv->background, on_job, life, NULL) == BOUGH_OK) return;
    atomic_store(&life->is_running, false);
    arm(life, RETRY_MS);
}

int lifecycle_new(struct lifecycle **out, server *srv, bough_error *err) {
    struct lifecycle *life = *out = calloc(1, sizeof *life);
    if (!life) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    life->srv = srv;
    life->timer = event_new(srv->loop, -1, 0, on_timer, life);
    return life->timer ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

void lifecycle_free(struct lifecycle *life) {
    if (!life) return;
    if (life->timer) event_free(life->timer);
    free(life);
}

void lifecycle_wake(server *srv) {
    atomic_store(&srv->lifecycle->woken, true);
    arm(srv->lifecycle, 0);
}
