/*
 * Snapshots.
 *
 * A snapshot is a branch that no compute runs on and no list shows: its directory links what its
 * moment needs (control image, stack, WAL), so neither history retention nor the deletion of its
 * branch takes anything away from it, and a branch is made from it as from any other that sleeps.
 * It is in the catalogue, in one commit, when its files are complete.
 */
#include "server/flow_snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "model/ids.h"
#include "model/rules.h"
#include "pg/conf.h"
#include "server/answer.h"
#include "server/computes.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/lifecycle.h"
#include "server/standbys.h"
#include "util/log.h"
#include "util/lsn.h"
#include "util/crashpoint.h"

/** A scheduled snapshot that failed is tried again after so long. */
#define AGAIN_MS 60000

/* ---- taking ---- */

typedef struct taking {
    server *srv;
    const bough_project_row *project;
    const snapshot_wish *wish;
    bough_branch_row branch;
    bough_snapshot_row *row;
    char base[BOUGH_ID_SIZE]; /* whose history has the moment; "" for the present */
    bool has_files;
} taking;

/* (locked) */
static int make_files(taking *t, bough_error *err) {
    char **carried = NULL, pgdata[BOUGH_PATH_MAX];
    double checkpoint_ms;
    bough_cut cut;
    bough_point *points = NULL;
    size_t n = 0;
    bough_store *store = t->srv->store;
    int rc;
    t->row->time_us = bough_now_epoch_ms() * 1000;
    if (*t->base) {
        rc = history_check_base(t->base, t->srv, t->project, &t->branch, &t->wish->moment, err);
        if (!rc) rc = history_fork(&cut, t->srv, t->base, &t->wish->moment, t->row->id, err);
        if (!rc) rc = bough_store_pgdata(pgdata, store, t->base, err);
        if (!rc) rc = flow_carried(&carried, pgdata, err);
        if (!rc) bough_lsn_write(t->row->lsn, cut.lsn);
        if (!rc && (t->wish->moment.time_us || cut.last_commit_us))
            t->row->time_us =
                t->wish->moment.time_us ? t->wish->moment.time_us : cut.last_commit_us;
    } else {
        rc = flow_fork(NULL, &checkpoint_ms, &carried, t->srv, t->branch.id, t->row->id, err);
        if (!rc) rc = bough_store_points(&points, &n, store, t->row->id, err);
        if (n) bough_lsn_write(t->row->lsn, points[0].lsn);
        free(points);
    }
    t->has_files = rc == BOUGH_OK;
    BOUGH_POINT(rc, "snapshot.forked");
    if (!rc)
        rc = flow_write_conf(t->srv, t->project->pg_major, t->row->id, t->row->id, carried, err);
    flow_free_carried(carried);
    return rc;
}

static int commit(taking *t, bough_operation_row *operation, double started_ms, bough_error *err) {
    bough_catalogue *cat = t->srv->cat;
    int rc = flow_operation(operation, "create_snapshot", t->project->id, t->branch.id, NULL,
                            started_ms, err);
    if (!rc) rc = bough_catalogue_begin(cat, err);
    if (rc) return rc;
    rc = bough_snapshots_insert(cat, t->row, &t->branch, err);
    if (!rc) rc = bough_operations_insert(cat, operation, err);
    return bough_catalogue_end(cat, rc, err);
}

/* (locked) */
static int take_locked(taking *t, bough_operation_row *operation, bough_error *err) {
    server *srv = t->srv;
    double started_ms = bough_now_ms();
    int rc = bough_branches_get(&t->branch, srv->cat, t->project->id, t->wish->branch, err);
    if (!rc && strcmp(t->branch.state, "ready") != 0)
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "branch \"%.200s\" is in state \"%s\"",
                        t->branch.name, t->branch.state);
    if (!rc) rc = make_files(t, err);
    if (!rc) rc = commit(t, operation, started_ms, err);
    BOUGH_POINT(rc, "snapshot.committed");
    if (rc && t->has_files) flow_remove_files(srv, t->row->id, NULL);
    return rc;
}

void flow_snapshot_name(char *name, const char *branch, int64_t at_ms, const char *frequency) {
    char when[40], rest[96];
    answer_time(when, sizeof when, at_ms);
    (void)snprintf(rest, sizeof rest, *frequency ? " %s (%.32s)" : " %s", when, frequency);
    (void)snprintf(name, BOUGH_NAME_SIZE, "%.*s%s", bough_rule_name_room(branch, rest), branch,
                   rest);
}

int flow_snapshot_create(bough_snapshot_row *row, bough_operation_row *operation, server *srv,
                         const bough_project_row *project, const snapshot_wish *wish, int wait_ms,
                         bough_error *err) {
    taking t = {.srv = srv, .project = project, .wish = wish, .row = row};
    *row = (bough_snapshot_row){.created_ms = bough_now_epoch_ms(), .expires_ms = wish->expires_ms};
    /* whoever made it up: a name that no answer can tell would spoil the list for good */
    int rc = bough_rule_name("snapshot", wish->name, err);
    if (!rc) rc = bough_branches_get(&t.branch, srv->cat, project->id, wish->branch, err);
    if (!rc && history_is_wanted(&wish->moment))
        rc = history_base(t.base, srv, project, &t.branch, &wish->moment, err);
    if (!rc) rc = bough_ids_new(row->id, srv->cat, "snap-", err);
    if (rc) return rc;
    (void)snprintf(row->project_id, sizeof row->project_id, "%s", project->id);
    (void)snprintf(row->source_id, sizeof row->source_id, "%s", t.branch.id);
    (void)snprintf(row->name, sizeof row->name, "%s", wish->name);
    (void)snprintf(row->frequency, sizeof row->frequency, "%s", wish->frequency);
    const char *const names[] = {wish->branch, row->id, t.base};
    size_t n = *t.base && strcmp(t.base, wish->branch) != 0 ? 3 : 2;
    rc = locks_take(srv->locks, names, n, wait_ms, err);
    if (rc) return rc;
    rc = take_locked(&t, operation, err);
    locks_drop(srv->locks, names, n);
    if (rc) return rc;
    if (bough_store_sync_pending(srv->store, row->id)) {
        bough_branch_row hidden = {0};
        (void)snprintf(hidden.id, sizeof hidden.id, "%s", row->id);
        computes_sync_later(srv, &hidden);
    }
    bough_log(BOUGH_LOG_INFO, "snapshot taken", "snapshot", row->id, "branch", t.branch.id, NULL);
    if (row->expires_ms) lifecycle_wake(srv);
    return BOUGH_OK;
}

/* ---- deleting ---- */

/* (locked) */
static int delete_locked(bough_operation_row *operation, server *srv, const char *project,
                         const char *id, int64_t expired_by_ms, bough_error *err) {
    bough_snapshot_row row;
    int rc = bough_snapshots_get(&row, srv->cat, project, id, err);
    if (!rc)
        rc = flow_operation(operation, expired_by_ms ? "snapshot_expired" : "delete_snapshot",
                            project, row.source_id, NULL, bough_now_ms(), err);
    if (!rc) rc = bough_catalogue_begin(srv->cat, err);
    if (rc) return rc;
    rc = bough_snapshots_delete(srv->cat, id, expired_by_ms, err);
    if (!rc) rc = bough_operations_insert(srv->cat, operation, err);
    rc = bough_catalogue_end(srv->cat, rc, err);
    BOUGH_POINT(rc, "snapshot.deleted");
    if (rc) return rc;
    flow_remove_files(srv, id, NULL);
    bough_log(BOUGH_LOG_INFO, "snapshot deleted", "snapshot", id, "action", operation->action,
              NULL);
    return BOUGH_OK;
}

int flow_snapshot_delete(bough_operation_row *operation, server *srv, const char *project,
                         const char *id, int64_t expired_by_ms, bough_error *err) {
    int rc = lock_take(srv->locks, id, expired_by_ms ? 0 : LOCK_WAIT_MS, err);
    if (rc) return rc;
    rc = delete_locked(operation, srv, project, id, expired_by_ms, err);
    lock_drop(srv->locks, id);
    return rc;
}

/* ---- restoring ---- */

/* Putting one branch in the place of another. */
typedef struct replacing {
    server *srv;
    const bough_restored_row *row;
    const char *name; /* of what is replaced; NULL: one that is free */
    bough_branch_row restored, target;
    char old_name[BOUGH_NAME_SIZE];
} replacing;

/*
 * Whether it may be, by what the catalogue says at this moment: before computes are stopped, and in
 * the transaction, since names, protection and the default change without the branches' locks.
 */
static int check(replacing *r, const char *project, bough_error *err) {
    bough_catalogue *cat = r->srv->cat;
    bool is_free = true;
    int rc = bough_branches_get(&r->restored, cat, project, r->row->branch_id, err);
    if (rc) return rc;
    rc = bough_branches_get(&r->target, cat, project, r->row->target_id, err);
    if (rc == BOUGH_E_NOTFOUND) (void)bough_context(err, "the branch to replace");
    if (!rc) rc = bough_rule_may_change(&r->target, "replaced", err);
    if (rc) return rc;
    if (!r->name) return flow_free_name(r->old_name, r->srv, project, r->target.name, "old", err);
    (void)snprintf(r->old_name, sizeof r->old_name, "%s", r->name);
    rc = bough_branches_is_free(&is_free, cat, project, r->name, NULL, err);
    return rc || is_free ? rc : bough_branches_fail_taken(r->name, err);
}

/* (locked) */
static int commit_replace(bough_operation_row *operation, replacing *r, double started_ms,
                          bough_error *err) {
    char project[BOUGH_ID_SIZE];
    clock_moment moment; /* what is replaced may get an expiry by its new name */
    server *srv = r->srv;
    (void)snprintf(project, sizeof project, "%s", r->restored.project_id);
    int rc = clock_begin(&moment, srv->clock, err);
    if (!rc)
        rc = flow_operation(operation, "finalize_restore", project, r->restored.id, NULL,
                            started_ms, err);
    if (!rc) rc = bough_catalogue_begin(srv->cat, err);
    if (rc) return rc;
    rc = check(r, project, err);
    if (!rc)
        rc = bough_restored_replace(srv->cat, &r->restored, &r->target, r->old_name,
                                    moment.latest_ms, err);
    if (!rc) rc = bough_operations_insert(srv->cat, operation, err);
    return bough_catalogue_end(srv->cat, rc, err);
}

/* (locked) */
static int replace(bough_operation_row *operation, replacing *r, bough_error *err) {
    bough_endpoint_row endpoint;
    bough_branch_row now;
    bough_error trouble;
    server *srv = r->srv;
    const bough_branch_row *restored = &r->restored, *target = &r->target;
    double started_ms = bough_now_ms();
    static const char cause[] = "a restored branch took its place";
    int rc = standbys_end(srv, target->id, cause, err);
    if (!rc) rc = standbys_end(srv, restored->id, cause, err);
    if (!rc) rc = computes_stop(srv, target->id, false, cause, err);
    if (!rc) rc = computes_stop(srv, restored->id, false, "it took the place of another", err);
    BOUGH_POINT(rc, "finalize.stopped");
    if (!rc) rc = commit_replace(operation, r, started_ms, err);
    BOUGH_POINT(rc, "finalize.committed");
    if (rc) return rc;
    /* it starts at once, so that the passwords that were known go on being right */
    if (bough_endpoints_of_branch(&endpoint, srv->cat, restored->id, NULL) != BOUGH_OK)
        return BOUGH_OK;
    int started = bough_branches_get(&now, srv->cat, restored->project_id, restored->id, &trouble);
    if (!started)
        started =
            computes_use_locked(srv, &now, &endpoint,
                                (compute_cause){"the branch took another's place", true}, &trouble);
    if (!started) started = history_settle(srv, restored->id, endpoint.id, &trouble);
    if (started)
        bough_log(BOUGH_LOG_WARN, "could not start a restored branch", "branch", restored->id,
                  "error", trouble.message, NULL);
    return BOUGH_OK;
}

/* (locked) */
static int finalize_locked(bough_operation_row *operation, server *srv, const char *project,
                           const bough_restored_row *row, const char *name, bough_error *err) {
    replacing r = {.srv = srv, .row = row, .name = name};
    bough_restored_row now;
    int rc = bough_restored_get(&now, srv->cat, row->branch_id, err);
    if (!rc && now.is_final)
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "the restore is final already");
    if (!rc) rc = check(&r, project, err);
    return rc ? rc : replace(operation, &r, err);
}

int flow_snapshot_finalize(bough_operation_row *operation, server *srv,
                           const bough_project_row *project, const char *branch, const char *name,
                           bough_error *err) {
    bough_branch_row row;
    bough_restored_row restored;
    int rc = bough_branches_get(&row, srv->cat, project->id, branch, err);
    if (rc) return rc;
    rc = bough_restored_get(&restored, srv->cat, row.id, err);
    if (rc == BOUGH_E_NOTFOUND) rc = BOUGH_E_PRECONDITION;
    if (!rc && !*restored.target_id)
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "it is not known which branch to replace");
    if (rc) return rc;
    const char *const names[] = {restored.branch_id, restored.target_id};
    rc = locks_take(srv->locks, names, 2, LOCK_WAIT_MS, err);
    if (rc) return rc;
    rc = finalize_locked(operation, srv, project->id, &restored, name, err);
    locks_drop(srv->locks, names, 2);
    lifecycle_wake(srv);
    return rc;
}

/* What finalizing changed, in the answer of the restore. */
static int answer_final(request *rq, const char *branch, const bough_operation_row *operation,
                        bough_error *err) {
    bough_branch_row row;
    bough_endpoint_row endpoint;
    server *srv = rq->srv;
    int rc = bough_branches_get_any(&row, srv->cat, branch, err);
    if (rc || !rq->answer) return rc;
    json_t *endpoints = json_array();
    if (bough_endpoints_of_branch(&endpoint, srv->cat, branch, NULL) == BOUGH_OK)
        answer_append(endpoints, answer_endpoint(srv, &endpoint));
    answer_set(rq->answer, "branch", answer_branch(srv, &row, false));
    answer_set(rq->answer, "endpoints", endpoints);
    answer_append(json_object_get(rq->answer, "operations"), answer_operation(operation));
    return BOUGH_OK;
}

/* The expiry that a new branch has by its name. */
static int life_of(bough_branch_row *row, server *srv, const char *name, const char *parent,
                   bough_error *err) {
    clock_moment moment;
    (void)snprintf(row->name, sizeof row->name, "%s", name);
    (void)snprintf(row->parent_id, sizeof row->parent_id, "%s", parent);
    if (!bough_expiry_is_temporary(name)) return BOUGH_OK;
    int rc = clock_begin(&moment, srv->clock, err);
    if (!rc) bough_expiry_default(row, moment.latest_ms);
    return rc;
}

int flow_snapshot_restore(request *rq, const bough_project_row *project,
                          const bough_snapshot_row *snapshot, const snapshot_restore_wish *wish,
                          bough_error *err) {
    server *srv = rq->srv;
    bough_branch_row source, target = {0};
    bough_operation_row operation;
    char name[BOUGH_NAME_SIZE];
    bool has_source =
        bough_branches_get(&source, srv->cat, project->id, snapshot->source_id, NULL) == BOUGH_OK;
    int rc = BOUGH_OK;
    if (wish->target)
        rc = bough_branches_get(&target, srv->cat, project->id, wish->target, err);
    else if (has_source)
        target = source;
    else if (wish->is_final)
        rc = bough_fail(err, BOUGH_E_NOTFOUND, "the branch of the snapshot is gone");
    if (!rc && wish->is_final) rc = bough_rule_may_change(&target, "replaced", err);
    if (!rc && (wish->is_final || !wish->name))
        rc = flow_free_name(name, srv, project->id, snapshot->name, "restored", err);
    if (!rc && !wish->is_final && wish->name) (void)snprintf(name, sizeof name, "%s", wish->name);
    bough_branch_row life = {0};
    if (!rc) rc = life_of(&life, srv, name, has_source ? source.id : "", err);
    if (rc) return rc;
    branch_wish w = {.name = name,
                     .parent = has_source ? source.id : "",
                     .snapshot = snapshot->id,
                     .replaces = target.id,
                     .replaces_at_once = wish->is_final,
                     .with_endpoint = true,
                     .expires_ms = life.expires_ms,
                     .ttl_seconds = life.ttl_seconds,
                     .suspend_timeout_seconds = project->endpoints.suspend_timeout_seconds};
    rc = flow_branch_create(rq, project, &w, err);
    if (rc) return rc;
    static const char *const others[] = {"databases", "roles",      "connection_uris",
                                         "existing",  "timings_ms", NULL};
    for (int i = 0; others[i]; i++) (void)json_object_del(rq->answer, others[i]);
    rq->status = 200;
    if (!wish->is_final) return BOUGH_OK;
    const char *id =
        json_string_value(json_object_get(json_object_get(rq->answer, "branch"), "id"));
    if (!id) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    char branch[BOUGH_ID_SIZE];
    (void)snprintf(branch, sizeof branch, "%s", id);
    rc = flow_snapshot_finalize(&operation, srv, project, branch, wish->name, err);
    if (!rc) return answer_final(rq, branch, &operation, err);
    json_decref(rq->answer); /* nothing was replaced, and nothing is left of the attempt */
    rq->answer = NULL;
    flow_branch_undo(srv, project->id, branch);
    return rc;
}

/* ---- by the clock ---- */

static int take_scheduled(server *srv, const bough_schedule_row *line, const clock_moment *moment,
                          bough_error *err) {
    bough_branch_row branch;
    bough_project_row project;
    bough_snapshot_row row;
    bough_operation_row operation;
    char name[BOUGH_NAME_SIZE];
    int rc = bough_branches_get_any(&branch, srv->cat, line->branch_id, err);
    if (!rc) rc = bough_projects_get(&project, srv->cat, branch.project_id, err);
    if (rc) return rc;
    flow_snapshot_name(name, branch.name, moment->now_ms, line->frequency);
    snapshot_wish wish = {.branch = branch.id,
                          .name = name,
                          .frequency = line->frequency,
                          .expires_ms = line->retention_seconds
                                            ? moment->latest_ms + line->retention_seconds * 1000
                                            : 0};
    return flow_snapshot_create(&row, &operation, srv, &project, &wish, 0, err);
}

int flow_snapshots_tick(int *done, bool *is_busy, server *srv, const clock_moment *moment, int most,
                        bough_error *err) {
    bough_schedule_row *lines = NULL;
    bough_id_list ids = NULL;
    size_t n = 0;
    bough_error trouble = {0};
    *done = 0;
    int rc = bough_schedules_due(&lines, &n, srv->cat, moment->now_ms, err);
    for (size_t i = 0; i < n && !rc && *done < most && !atomic_load(&srv->stopping); i++) {
        int taken = take_scheduled(srv, &lines[i], moment, &trouble);
        if (taken == BOUGH_E_BUSY) { /* another operation of the project: still due */
            *is_busy = true;
            continue;
        }
        if (taken)
            bough_log(BOUGH_LOG_WARN, "could not take a scheduled snapshot", "branch",
                      lines[i].branch_id, "error", trouble.message, NULL);
        int64_t next_ms = bough_schedule_next(&lines[i], moment->now_ms);
        if (taken && next_ms > moment->now_ms + AGAIN_MS) next_ms = moment->now_ms + AGAIN_MS;
        rc = bough_schedules_set_next(srv->cat, &lines[i], next_ms, err);
        ++*done;
    }
    free(lines);
    if (!rc) rc = bough_snapshots_due(&ids, &n, srv->cat, moment->now_ms, err);
    for (size_t i = 0; i < n && !rc && *done < most && !atomic_load(&srv->stopping); i++) {
        bough_branch_row row;
        bough_operation_row operation;
        int gone = bough_branches_get_any(&row, srv->cat, ids[i], &trouble);
        if (!gone)
            gone = flow_snapshot_delete(&operation, srv, row.project_id, ids[i], moment->now_ms,
                                        &trouble);
        if (!gone)
            ++*done;
        else if (gone == BOUGH_E_BUSY)
            *is_busy = true;
        else if (gone != BOUGH_E_NOTFOUND)
            bough_log(BOUGH_LOG_WARN, "could not delete a snapshot that has expired", "snapshot",
                      ids[i], "error", trouble.message, NULL);
    }
    free(ids);
    return rc;
}
