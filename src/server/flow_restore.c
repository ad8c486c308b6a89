/*
 * Restoring a branch in place: it goes on under its id, its name and its endpoint with what another
 * moment, or another branch, shows; what it showed before may be kept as a branch.
 *
 *   files of a new branch N are made          nothing names them: a crash leaves them to start-up
 *   a row in "swaps" says what is meant to be one commit, which looks whether it may be
 *   the directories of X and N change places  one step (renameat2)
 *   the catalogue is changed, the row goes    one commit
 *
 * A crash after the row is finished or undone at start-up, by where the directories are. So nothing
 * may be refused once there is the row: whatever could be is looked at in the commit that makes it,
 * and held until it goes, the name of what is kept (bough_branches_is_free()) and that X is not
 * protected (api_lifecycle.c).
 */
#include "server/flow_restore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "model/ids.h"
#include "pg/conf.h"
#include "server/answer.h"
#include "server/clock.h"
#include "server/computes.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/leftovers.h"
#include "server/lifecycle.h"
#include "server/passwords.h"
#include "server/standbys.h"
#include "util/log.h"
#include "util/lsn.h"
#include "util/crashpoint.h"

typedef struct restoring {
    request *rq;
    server *srv;
    const bough_project_row *project;
    const restore_wish *wish;
    bough_branch_row branch, source;
    bough_swap_row swap;
    char base[BOUGH_ID_SIZE];
    bough_role_row *roles; /* with new passwords, of what comes from a protected branch */
    size_t n_roles;
    bool was_active;
    bool is_undecided; /* which directory shows what is for the next start to settle */
} restoring;

/* ---- the last step, also of start-up ---- */

/* Roles of a branch that came from a protected one: `renewed` are its passwords. After a crash
 * nobody knows them: the roles have none that is known. */
static int set_secrets(server *srv, const bough_swap_row *s, bough_role_row *renewed, size_t n,
                       bough_error *err) {
    bough_role_row *rows = NULL;
    bough_branch_row source;
    int rc = BOUGH_OK;
    if (!renewed) {
        rc = bough_branches_get_any(&source, srv->cat, s->source_id, err);
        if (rc && rc != BOUGH_E_NOTFOUND) return rc;
        if (!rc && !source.is_protected) return BOUGH_OK;
        bough_error_clear(err); /* where the source is gone, too: who knows what it was */
        rc = bough_roles_list(&rows, &n, srv->cat, s->branch_id, err);
        for (size_t i = 0; !rc && i < n; i++) rows[i].secret_size = 0;
        renewed = rows;
    }
    for (size_t i = 0; !rc && i < n; i++) {
        (void)snprintf(renewed[i].branch_id, sizeof renewed[i].branch_id, "%s", s->branch_id);
        rc = bough_roles_set_secret(srv->cat, &renewed[i], err);
    }
    free(rows);
    return rc;
}

/* What it showed becomes a branch of its own. */
static int keep(server *srv, const bough_swap_row *s, const bough_branch_row *row,
                const clock_moment *moment, bough_error *err) {
    bough_project_row project;
    bough_catalogue *cat = srv->cat;
    bough_branch_row kept = *row;
    bool is_free;
    int rc = bough_projects_get(&project, cat, s->project_id, err);
    (void)snprintf(kept.id, sizeof kept.id, "%s", s->incoming_id);
    (void)snprintf(kept.name, sizeof kept.name, "%s", s->preserve_name);
    (void)snprintf(kept.state, sizeof kept.state, "ready"); /* whatever it was until now */
    if (!rc)
        rc = bough_branches_is_free(&is_free, cat, s->project_id, s->preserve_name, kept.id, err);
    if (!rc && !is_free) /* of a server that reserved no names */
        rc = flow_free_name(kept.name, srv, s->project_id, s->preserve_name, "kept", err);
    if (rc) return rc;
    kept.is_default = false;
    kept.updated_ms = bough_now_epoch_ms();
    bough_expiry_default(&kept, moment->latest_ms);
    rc = bough_branches_insert(cat, &kept, err);
    bough_endpoint_row endpoint = {.created_ms = kept.updated_ms,
                                   .updated_ms = kept.updated_ms,
                                   .least_quarters = project.endpoints.least_quarters,
                                   .most_quarters = project.endpoints.most_quarters,
                                   .suspend_timeout_seconds =
                                       project.endpoints.suspend_timeout_seconds};
    (void)snprintf(endpoint.id, sizeof endpoint.id, "%s", s->endpoint_id);
    (void)snprintf(endpoint.project_id, sizeof endpoint.project_id, "%s", s->project_id);
    (void)snprintf(endpoint.branch_id, sizeof endpoint.branch_id, "%s", kept.id);
    if (!rc) rc = bough_endpoints_insert(cat, &endpoint, err);
    if (!rc) rc = bough_branches_copy_contents(cat, s->branch_id, s->incoming_id, err);
    if (!rc) rc = bough_branches_move_children(cat, s->branch_id, s->incoming_id, err);
    return rc ? rc : bough_origins_move(cat, s->branch_id, s->incoming_id, err);
}

/*
 * (in a transaction) What the catalogue says when the directories have changed places. Nothing is
 * refused any more, also not what a restore that was left to a later start finds: that the branch
 * was deleted meanwhile, or its source removed.
 */
static int apply(server *srv, const bough_swap_row *s, bough_role_row *renewed, size_t n,
                 bough_error *err) {
    bough_branch_row row, source;
    clock_moment moment;
    bough_catalogue *cat = srv->cat;
    clock_look(&moment, srv->clock);
    int rc = bough_branches_get_any(&row, cat, s->branch_id, err);
    if (!rc && *s->preserve_name) rc = keep(srv, s, &row, &moment, err);
    bool is_self = strcmp(s->source_id, s->branch_id) == 0, has_source = true;
    if (!rc && !is_self) {
        rc = bough_branches_get_any(&source, cat, s->source_id, err);
        has_source = rc != BOUGH_E_NOTFOUND;
        if (!has_source) {
            bough_error_clear(err);
            rc = BOUGH_OK;
        }
    }
    const char *parent = is_self ? s->incoming_id : has_source ? s->source_id : NULL;
    if (!rc) rc = bough_branches_set_parent(cat, s->branch_id, parent, err);
    if (!rc && !is_self && has_source)
        rc = bough_branches_replace_contents(cat, s->source_id, s->branch_id, err);
    if (!rc && !is_self) rc = set_secrets(srv, s, renewed, n, err);
    if (!rc && row.expires_ms) { /* it has its whole lifetime again */
        bough_expiry_renew(&row, moment.latest_ms);
        rc = bough_branches_set_expiry(cat, &row, err);
    }
    bough_origin_row origin = {.time_us = s->time_us};
    (void)snprintf(origin.branch_id, sizeof origin.branch_id, "%s", s->branch_id);
    (void)snprintf(origin.lsn, sizeof origin.lsn, "%s", s->lsn);
    origin.restored_ms = bough_now_epoch_ms();
    if (!rc) rc = bough_origins_set(cat, &origin, err);
    return rc ? rc : bough_swaps_delete(cat, s->branch_id, err);
}

static int apply_and_commit(server *srv, const bough_swap_row *s, bough_role_row *renewed, size_t n,
                            bough_error *err) {
    int rc = bough_catalogue_begin(srv->cat, err);
    return rc ? rc : bough_catalogue_end(srv->cat, apply(srv, s, renewed, n, err), err);
}

/* (in a transaction) `done`: the directories have changed places. Else the new one is one that
 * nothing knows. */
static int settle(server *srv, const bough_swap_row *s, bool done, bough_error *err) {
    bough_branch_row row;
    int rc = done ? apply(srv, s, NULL, 0, err) : bough_swaps_delete(srv->cat, s->branch_id, err);
    if (!rc) rc = bough_branches_get_any(&row, srv->cat, s->branch_id, err);
    if (rc || strcmp(row.state, "failed") != 0) return rc;
    return bough_branches_set_state(srv->cat, row.id, "ready", err); /* see give_up() */
}

static int recover_one(server *srv, const bough_swap_row *s, bough_error *err) {
    bool done;
    int rc = bough_store_is_marked(&done, srv->store, s->branch_id, s->incoming_id, err);
    if (rc) return rc;
    bough_log(BOUGH_LOG_WARN,
              done ? "finishing an interrupted restore" : "undoing an interrupted restore",
              "branch", s->branch_id, NULL);
    rc = bough_catalogue_begin(srv->cat, err);
    return rc ? rc : bough_catalogue_end(srv->cat, settle(srv, s, done, err), err);
}

/*
 * One branch is not worth the others: nobody uses it until a later start can end its restore. Its
 * row stays, and both directories.
 */
static int give_up(server *srv, const bough_swap_row *s, const bough_error *why, bough_error *err) {
    bough_operation_row operation;
    bough_log(BOUGH_LOG_ERROR, "a restore can neither be finished nor undone", "branch",
              s->branch_id, "error", why->message, NULL);
    int rc = flow_operation(&operation, "timeline_restore", s->project_id, s->branch_id, NULL,
                            bough_now_ms(), err);
    (void)snprintf(operation.status, sizeof operation.status, "failed");
    (void)snprintf(operation.failure, sizeof operation.failure, "%s", why->message);
    if (!rc) rc = bough_catalogue_begin(srv->cat, err);
    if (rc) return rc;
    rc = bough_branches_set_state(srv->cat, s->branch_id, "failed", err);
    if (!rc) rc = bough_operations_insert(srv->cat, &operation, err);
    return bough_catalogue_end(srv->cat, rc, err);
}

int flow_restore_recover(server *srv, bough_error *err) {
    bough_swap_row *rows;
    size_t n;
    int rc = bough_swaps_list(&rows, &n, srv->cat, err);
    for (size_t i = 0; !rc && i < n; i++) {
        bough_error why = {0};
        int left = recover_one(srv, &rows[i], &why);
        if (left == BOUGH_E_NOMEM || left == BOUGH_E_NOSPACE) /* of all, and it passes */
            rc = bough_fail(err, left, "%s", why.message);
        else if (left)
            rc = give_up(srv, &rows[i], &why, err);
    }
    free(rows);
    return rc;
}

/* ---- before it ---- */

static int fail_taken(const restoring *r, bough_error *err) {
    r->rq->slug = "BRANCH_ALREADY_EXISTS";
    return bough_branches_fail_taken(r->wish->preserve_under_name, err);
}

static int check(restoring *r, bough_error *err) {
    const restore_wish *w = r->wish;
    int64_t children = 0;
    bool has_swap = false, is_free = true;
    bool is_self = strcmp(r->source.id, r->branch.id) == 0;
    int rc = bough_rule_may_change(&r->branch, "restored", err);
    if (!rc) rc = bough_swaps_has(&has_swap, r->srv->cat, r->branch.id, err);
    if (rc) return rc;
    if (has_swap)
        return bough_fail(
            err, BOUGH_E_PRECONDITION,
            "an earlier restore of branch \"%.200s\" has not ended: it does when the"
            " catalogue can be written, at the latest when the server is started again",
            r->branch.name);
    if (strcmp(r->source.state, "ready") != 0)
        return bough_fail(err, BOUGH_E_PRECONDITION, "branch \"%.200s\" is in state \"%s\"",
                          r->source.name, r->source.state);
    if (is_self && !history_is_wanted(&w->moment))
        return bough_fail(err, BOUGH_E_INVALID,
                          "a branch that is restored from itself needs a moment of its past");
    rc = bough_branches_count_children(&children, r->srv->cat, r->branch.id, err);
    if (rc) return rc;
    if (!w->preserve_under_name && (is_self || children)) {
        (void)bough_fail(err, BOUGH_E_INVALID,
                         is_self ? "restoring a branch from its own past needs preserve_under_name"
                                 : "branch \"%.200s\" has children: restoring it needs "
                                   "preserve_under_name",
                         r->branch.name);
        return bough_hint(err, "What it shows now is kept as a branch of that name.");
    }
    if (w->preserve_under_name)
        rc = bough_branches_is_free(&is_free, r->srv->cat, r->project->id, w->preserve_under_name,
                                    NULL, err);
    return rc || is_free ? rc : fail_taken(r, err);
}

/* (in a transaction) From here on it happens: what may have changed since check() without a lock of
 * ours is looked at again. */
static int record(restoring *r, bough_error *err) {
    bough_branch_row now;
    bough_swap_row *s = &r->swap;
    bool is_free = true;
    int rc = bough_branches_get(&now, r->srv->cat, s->project_id, s->branch_id, err);
    if (!rc) rc = bough_rule_may_change(&now, "restored", err);
    if (!rc && *s->preserve_name)
        rc = bough_branches_is_free(&is_free, r->srv->cat, s->project_id, s->preserve_name, NULL,
                                    err);
    if (!rc && !is_free) rc = fail_taken(r, err);
    return rc ? rc : bough_swaps_insert(r->srv->cat, s, err);
}

static int record_and_commit(restoring *r, bough_error *err) {
    int rc = bough_catalogue_begin(r->srv->cat, err);
    return rc ? rc : bough_catalogue_end(r->srv->cat, record(r, err), err);
}

/* The files of what it is to show. */
static int make_files(restoring *r, bough_error *err) {
    bough_swap_row *s = &r->swap;
    bough_cut cut = {0};
    if (!*r->base) {
        bough_shm *live;
        int rc = computes_shm(&live, r->srv, r->source.id, err);
        return rc ? rc
                  : bough_store_fork(NULL, r->srv->store, r->source.id, s->incoming_id, live, err);
    }
    int rc = history_check_base(r->base, r->srv, r->project, &r->source, &r->wish->moment, err);
    if (!rc) rc = history_fork(&cut, r->srv, r->base, &r->wish->moment, s->incoming_id, err);
    bough_lsn_write(s->lsn, cut.lsn);
    s->time_us = r->wish->moment.time_us;
    return rc;
}

/* Settings that go with the data: those of the source. */
static int copy_settings(const restoring *r, bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX], socket_dir[BOUGH_PATH_MAX], **carried = NULL;
    int rc = bough_store_pgdata(from, r->srv->store, *r->base ? r->base : r->source.id, err);
    if (!rc) rc = bough_store_pgdata(to, r->srv->store, r->swap.incoming_id, err);
    if (!rc) rc = computes_socket_dir(socket_dir, r->srv, r->swap.incoming_id, err);
    if (!rc) rc = flow_carried(&carried, from, err);
    bough_conf conf = {.major = r->project->pg_major,
                       .socket_dir = socket_dir,
                       .hold_wal = true,
                       .carried = (const char *const *)carried};
    if (!rc) rc = bough_conf_write(to, &conf, err);
    for (size_t i = 0; carried && carried[i]; i++) free(carried[i]);
    free(carried);
    return rc;
}

/* What comes from a protected branch gets new passwords before anybody can connect to it. */
static int renew_passwords(restoring *r, bough_error *err) {
    char socket_dir[BOUGH_PATH_MAX];
    server *srv = r->srv;
    bough_branch_row row = r->branch;
    bough_endpoint_row endpoint = {0};
    if (!r->source.is_protected || strcmp(r->source.id, r->branch.id) == 0) return BOUGH_OK;
    memcpy(row.id, r->swap.incoming_id, sizeof row.id);
    memcpy(endpoint.id, r->swap.endpoint_id, sizeof endpoint.id);
    memcpy(endpoint.branch_id, row.id, sizeof endpoint.branch_id);
    memcpy(endpoint.project_id, r->project->id, sizeof endpoint.project_id);
    int rc = computes_begin_closed(srv, &row, &endpoint, r->project->pg_major, NULL, err);
    if (!rc) rc = computes_wait(srv, row.id, "passwords are renewed", err);
    if (!rc) rc = passwords_renew(&r->roles, &r->n_roles, srv, endpoint.id, r->source.id, err);
    int stopped =
        computes_stop(srv, row.id, rc != BOUGH_OK, "passwords were renewed", rc ? NULL : err);
    if (!rc) rc = stopped;
    if (computes_socket_dir(socket_dir, srv, endpoint.id, NULL) == BOUGH_OK)
        bough_ignore(bough_rmtree(socket_dir, NULL));
    return rc;
}

/* The directories are where they were: it has not happened. */
static void take_back(restoring *r) {
    const bough_swap_row *s = &r->swap;
    if (bough_swaps_delete(r->srv->cat, s->branch_id, NULL) == BOUGH_OK) return;
    r->is_undecided = !leftovers_add_swap(r->srv, s->branch_id, s->incoming_id);
    bough_log(BOUGH_LOG_WARN, "a restore that was taken back still stands in the catalogue",
              "branch", s->branch_id, "until",
              r->is_undecided ? "the next start" : "the next round", NULL);
}

/* (all locked) */
static int change_places(restoring *r, bough_error *err) {
    server *srv = r->srv;
    r->was_active = computes_is_active(srv, r->branch.id);
    /* WAL of what is there now and of what is to be there have the same numbers */
    int rc = standbys_end(srv, r->branch.id, "the branch was restored", err);
    if (!rc) rc = computes_stop(srv, r->branch.id, false, "the branch was restored", err);
    if (!rc) rc = bough_store_settle(srv->store, r->branch.id, err);
    if (!rc) rc = bough_store_settle(srv->store, r->swap.incoming_id, err);
    /* each stands on durable layers, so that neither needs to know who sealed them */
    if (!rc) rc = bough_store_sync(srv->store, r->branch.id, NULL, err);
    if (!rc) rc = bough_store_sync(srv->store, r->swap.incoming_id, NULL, err);
    if (!rc) rc = record_and_commit(r, err);
    BOUGH_POINT(rc, "restore.recorded");
    if (rc) return rc;
    rc = bough_store_exchange(&r->is_undecided, srv->store, r->branch.id, r->swap.incoming_id,
                              r->swap.incoming_id, err);
    if (rc) {
        if (!r->is_undecided)
            take_back(r);
        else
            bough_log(BOUGH_LOG_ERROR, "a restore is ended at the next start", "branch",
                      r->branch.id, NULL);
        return rc;
    }
    BOUGH_POINT(rc, "restore.exchanged");
    rc = apply_and_commit(srv, &r->swap, r->roles, r->n_roles, err);
    BOUGH_POINT(rc, "restore.committed");
    if (!rc) return BOUGH_OK;
    /* put it back; where that fails, the next start finishes the restore, and needs both */
    bool is_lost;
    r->is_undecided = bough_store_exchange(&is_lost, srv->store, r->branch.id, r->swap.incoming_id,
                                           "", NULL) != BOUGH_OK;
    if (!r->is_undecided) take_back(r);
    return rc;
}

static int restore_locked(restoring *r, bough_error *err) {
    server *srv = r->srv;
    bough_endpoint_row endpoint;
    int rc = check(r, err);
    if (!rc) rc = make_files(r, err);
    bool has_files = !rc;
    BOUGH_POINT(rc, "restore.files-made");
    if (!rc) rc = copy_settings(r, err);
    if (!rc) rc = renew_passwords(r, err);
    if (!rc) rc = change_places(r, err);
    if (has_files && !r->is_undecided && (rc || !r->wish->preserve_under_name))
        flow_remove_files(srv, r->swap.incoming_id, NULL);
    /* it starts at once, to learn which roles and databases there were */
    if (bough_endpoints_of_branch(&endpoint, srv->cat, r->branch.id, NULL) == BOUGH_OK &&
        (!rc || r->was_active)) {
        bough_error trouble;
        int started =
            bough_branches_get(&r->branch, srv->cat, r->project->id, r->branch.id, &trouble);
        if (!started)
            started =
                computes_use_locked(srv, &r->branch, &endpoint,
                                    (compute_cause){"the branch was restored", true}, &trouble);
        if (!started && !rc && *r->base)
            started = history_settle(srv, r->branch.id, endpoint.id, &trouble);
        if (started)
            bough_log(BOUGH_LOG_WARN, "could not start a restored branch", "branch", r->branch.id,
                      "error", trouble.message, NULL);
    }
    return rc;
}

static int answer(restoring *r, bough_error *err) {
    bough_operation_row operation;
    bough_branch_row row;
    int rc = flow_operation(&operation, "timeline_restore", r->project->id, r->branch.id, NULL,
                            r->rq->received_ms, err);
    if (!rc) rc = bough_operations_insert(r->srv->cat, &operation, err);
    if (!rc) rc = bough_branches_get(&row, r->srv->cat, r->project->id, r->branch.id, err);
    if (!rc)
        r->rq->answer = json_pack("{s:o,s:o}", "branch", answer_branch(r->srv, &row, false),
                                  "operations", answer_operations(&operation, 1));
    return rc;
}

int flow_branch_restore(request *rq, const bough_project_row *project, const char *branch,
                        const restore_wish *wish, bough_error *err) {
    server *srv = rq->srv;
    char name_lock[BOUGH_NAME_SIZE + BOUGH_ID_SIZE + 16], source[BOUGH_ID_SIZE];
    restoring *r = calloc(1, sizeof *r);
    if (!r) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *r = (restoring){.rq = rq, .srv = srv, .project = project, .wish = wish};
    bough_swap_row *s = &r->swap;
    int rc = bough_branches_get(&r->branch, srv->cat, project->id, branch, err);
    if (!rc) rc = bough_branches_get(&r->source, srv->cat, project->id, wish->source, err);
    if (!rc && history_is_wanted(&wish->moment))
        rc = history_base(r->base, srv, project, &r->source, &wish->moment, err);
    clock_moment moment; /* what is kept may get an expiry by its name */
    if (!rc && wish->preserve_under_name) rc = clock_begin(&moment, srv->clock, err);
    if (!rc && !wish->preserve_under_name) rc = flow_end_looks(srv, project->id, branch, err);
    if (!rc) rc = bough_ids_new(s->incoming_id, srv->cat, "br-", err);
    if (!rc) rc = bough_ids_new(s->endpoint_id, srv->cat, "ep-", err);
    if (rc) goto out;
    (void)snprintf(source, sizeof source, "%s", r->source.id);
    (void)snprintf(s->project_id, sizeof s->project_id, "%s", project->id);
    (void)snprintf(s->branch_id, sizeof s->branch_id, "%s", r->branch.id);
    (void)snprintf(s->source_id, sizeof s->source_id, "%s", source);
    (void)snprintf(s->preserve_name, sizeof s->preserve_name, "%s",
                   wish->preserve_under_name ? wish->preserve_under_name : "");
    (void)snprintf(name_lock, sizeof name_lock, "branch-name:%s/%s", project->id, s->preserve_name);
    const char *names[5] = {s->branch_id, s->incoming_id, name_lock};
    size_t n = 3;
    if (strcmp(source, s->branch_id) != 0) names[n++] = source;
    if (*r->base && strcmp(r->base, source) != 0 && strcmp(r->base, s->branch_id) != 0)
        names[n++] = r->base;
    rc = locks_take(srv->locks, names, n, LOCK_WAIT_MS, err);
    if (rc) goto out;
    rc = bough_branches_get(&r->branch, srv->cat, project->id, branch, err);
    if (!rc) rc = bough_branches_get(&r->source, srv->cat, project->id, source, err);
    if (!rc) rc = restore_locked(r, err);
    locks_drop(srv->locks, names, n);
    if (!rc) {
        bough_log(BOUGH_LOG_INFO, "branch restored", "branch", s->branch_id, "source", source,
                  "kept", s->preserve_name, NULL);
        lifecycle_wake(srv);
        rc = answer(r, err);
    }
out:
    if (r->roles) explicit_bzero(r->roles, r->n_roles * sizeof *r->roles);
    free(r->roles);
    free(r);
    return rc;
}
