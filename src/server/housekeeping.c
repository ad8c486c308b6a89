/*
 * Rounds of merging layers. See store/store.h for what a round does, store/merge.c for which
 * layers.
 *
 * A round has a thread of its own, since a merge may take long. It holds a branch's lock only to
 * change its stacks, and passes over a branch that is in use: the next round comes. A branch has
 * one run of its layers merged in a round, so that no branch waits for another's; while there are
 * more, the next round follows at once.
 */
#include "server/housekeeping.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/rules.h"
#include "server/computes.h"
#include "server/flows.h"
#include "server/leftovers.h"
#include "util/log.h"

/** Between two rounds. */
#define ROUND_MS 20000

static int is_cancelled(void *context) {
    server *srv = context;
    return atomic_load(&srv->stopping);
}

static void complain(const char *what, const char *branch, const bough_error *err) {
    bough_log(BOUGH_LOG_WARN, what, "branch", branch, "error", err->message, NULL);
}

/* Let the stacks of a branch name what is merged. */
static void apply_one(server *srv, bough_tidy *tidy, const char *branch) {
    bough_error err = {0};
    bough_shm *live;
    size_t changed;
    if (!bough_tidy_wants(tidy, branch, computes_is_active(srv, branch)) ||
        lock_take(srv->locks, branch, 0, NULL) != BOUGH_OK)
        return;
    int rc = BOUGH_OK;
    if (bough_store_has_branch(srv->store, branch)) {
        rc = computes_shm(&live, srv, branch, &err);
        if (!rc) rc = bough_tidy_apply(&changed, tidy, branch, live, &err);
    }
    lock_drop(srv->locks, branch);
    if (rc) complain("could not shorten the stacks of a branch", branch, &err);
}

/* (locked) */
static int commit(size_t *layers, server *srv, bough_merge *merge, const char *branch,
                  bough_error *err) {
    bough_shm *live;
    if (!bough_store_has_branch(srv->store, branch)) return BOUGH_OK;
    int rc = computes_shm(&live, srv, branch, err);
    return rc ? rc : bough_tidy_commit(layers, merge, live, err);
}

/* Whether there may be more. */
static bool merge_one(server *srv, bough_tidy *tidy, const char *branch) {
    bough_error err = {0};
    bough_merge *merge;
    size_t layers = 0;
    char text[24];
    double before = bough_now_ms();
    int rc = bough_tidy_merge(&merge, tidy, branch, is_cancelled, srv, &err);
    if (!rc && merge && (rc = lock_take(srv->locks, branch, LOCK_WAIT_MS, &err)) == BOUGH_OK) {
        rc = commit(&layers, srv, merge, branch, &err);
        lock_drop(srv->locks, branch);
    }
    bough_tidy_drop(merge);
    (void)snprintf(text, sizeof text, "%zu in %.0f ms", layers, bough_now_ms() - before);
    if (rc && rc != BOUGH_E_CANCELLED && bough_store_has_branch(srv->store, branch))
        complain("could not merge layers", branch, &err);
    else if (layers)
        bough_log(BOUGH_LOG_INFO, "layers merged", "branch", branch, "layers", text, NULL);
    return layers > 0;
}

/* What a branch stands on could not be made durable when it was made: for want of room, say. Until
 * it is, the branch keeps all its WAL. What the disk refused is mended (mending.c). */
static void sync_again(server *srv, const bough_branch_row *branch) {
    if (computes_waits_for_sync(srv, branch->id)) computes_sync_later(srv, branch);
}

/* Returns whether something was merged, so that there may be more. */
static bool round_of_all(server *srv) {
    bough_branch_row *rows = NULL;
    size_t n = 0;
    bough_tidy *tidy = NULL;
    bough_error err = {0};
    bool is_more = false;
    int rc = bough_tidy_begin(&tidy, srv->store, &err);
    if (!rc) rc = bough_branches_list(&rows, &n, srv->cat, NULL, &err);
    for (size_t i = 0; !rc && i < n && !is_cancelled(srv); i++) sync_again(srv, &rows[i]);
    for (size_t i = 0; !rc && i < n && !is_cancelled(srv); i++) apply_one(srv, tidy, rows[i].id);
    for (size_t i = 0; !rc && i < n && !is_cancelled(srv); i++)
        is_more |= merge_one(srv, tidy, rows[i].id);
    bough_tidy_end(tidy);
    free(rows);
    if (rc) complain("could not look after layers", "", &err);
    return is_more;
}

static void round_job(void *arg) {
    server *srv = arg;
    bough_error err = {0};
    /* what the last job made needless: by now no process of a compute is still opening it */
    if (bough_store_collect_all(srv->store, &err) != BOUGH_OK)
        complain("could not collect layers", "", &err);
    leftovers_try(srv);
    flow_purge_later(srv); /* what was collected, and what could not be removed before */
    while (round_of_all(srv) && !is_cancelled(srv)) continue;
    bool is_test = srv->least_suspend_seconds < BOUGH_SUSPEND_LEAST_SECONDS; /* which cannot wait */
    srv->next_round_ms = bough_now_ms() + (is_test ? 0 : ROUND_MS);
    atomic_store(&srv->is_housekeeping, false);
}

void housekeeping_tick(server *srv) {
    if (atomic_exchange(&srv->is_housekeeping, true)) return;
    if (bough_now_ms() < srv->next_round_ms ||
        job_pool_add(srv->housekeeper, round_job, srv, NULL) != BOUGH_OK)
        atomic_store(&srv->is_housekeeping, false);
}
