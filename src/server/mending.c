/*
 * Mending what the disk refused. A layer's group is locked while those who trusted it are told;
 * then it is written anew, with no lock, since that takes long. A branch that was told while its
 * compute ran is stopped and settled under its own lock, never with another's.
 *
 * What cannot be done yet is tried again, some seconds later.
 */
#include "server/mending.h"

#include <stdio.h>
#include <string.h>

#include "model/rules.h"
#include "server/computes.h"
#include "util/log.h"

/** Between two attempts. */
#define AGAIN_MS 10000
#define AGAIN_TEST_MS 500

static int tell(server *srv, const char *dir, bough_error *err) {
    char group[BOUGH_ID_SIZE];
    bough_shm *live = NULL;
    (void)snprintf(group, sizeof group, "%.*s", (int)strcspn(dir, "/"), dir);
    int rc = lock_take(srv->locks, group, LOCK_WAIT_MS, err);
    if (rc) return rc;
    if (bough_store_has_branch(srv->store, group)) rc = computes_shm(&live, srv, group, err);
    if (!rc) rc = bough_store_mend_begin(srv->store, dir, live, err);
    lock_drop(srv->locks, group);
    return rc;
}

static bool mend_one(server *srv, const char *dir) {
    bough_error err = {0};
    int rc = tell(srv, dir, &err);
    if (!rc) rc = bough_store_mend(srv->store, dir, &err);
    if (rc == BOUGH_E_NOTFOUND) return true; /* it is collected */
    if (rc)
        bough_log(BOUGH_LOG_ERROR, "a layer that the disk refused cannot be mended yet", "layer",
                  dir, "error", err.message, NULL);
    else
        bough_log(BOUGH_LOG_WARN, "a layer that the disk refused is durable now", "layer", dir,
                  NULL);
    return !rc;
}

/* (locked) */
static int settle(server *srv, const char *branch, bough_error *err) {
    bough_shm *live = NULL;
    /* since they were listed it may have been settled, by its start: what runs then may go on */
    if (!bough_store_has_branch(srv->store, branch) ||
        !bough_store_sync_pending(srv->store, branch))
        return BOUGH_OK;
    int rc = computes_shm(&live, srv, branch, err);
    if (!rc && live)
        rc = computes_stop(srv, branch, true, "the disk refused what it stands on", err);
    return rc ? rc : bough_store_settle(srv->store, branch, err);
}

static bool settle_one(server *srv, const char *branch) {
    bough_error err = {0};
    int rc = lock_take(srv->locks, branch, LOCK_WAIT_MS, &err);
    if (!rc) {
        rc = settle(srv, branch, &err);
        lock_drop(srv->locks, branch);
    }
    if (rc)
        bough_log(BOUGH_LOG_ERROR, "a branch on what the disk refused cannot be settled yet",
                  "branch", branch, "error", err.message, NULL);
    return !rc;
}

/* Whether nothing is left to do. */
static bool mend_all(server *srv) {
    char **dirs = NULL, **branches = NULL;
    bough_error err = {0};
    bool all = true;
    int rc = bough_store_refused(&dirs, srv->store, &err);
    for (char **p = dirs; !rc && *p && !atomic_load(&srv->stopping); p++)
        all = mend_one(srv, *p) && all;
    if (!rc) rc = bough_store_returning(&branches, srv->store, &err);
    for (char **p = branches; !rc && *p && !atomic_load(&srv->stopping); p++) {
        /* what only reads is made anew at each start; what is being made has no name yet */
        if (strncmp(*p, "ep-", 3) == 0 || strchr(*p, '~')) continue;
        all = settle_one(srv, *p) && all;
    }
    bough_store_free_list(dirs);
    bough_store_free_list(branches);
    if (rc)
        bough_log(BOUGH_LOG_WARN, "could not look for refused layers", "error", err.message, NULL);
    return all && !rc;
}

static void mend_job(void *arg) {
    server *srv = arg;
    bool is_test = srv->least_suspend_seconds < BOUGH_SUSPEND_LEAST_SECONDS; /* which cannot wait */
    if (bough_store_take_refused(srv->store) && !mend_all(srv)) {
        bough_store_note_refused(srv->store);
        srv->next_mend_ms = bough_now_ms() + (is_test ? AGAIN_TEST_MS : AGAIN_MS);
    }
    atomic_store(&srv->is_mending, false);
}

void mending_tick(server *srv) {
    if (!bough_store_may_have_refused(srv->store) || atomic_exchange(&srv->is_mending, true))
        return;
    if (bough_now_ms() < srv->next_mend_ms ||
        job_pool_add(srv->background, mend_job, srv, NULL) != BOUGH_OK)
        atomic_store(&srv->is_mending, false);
}
