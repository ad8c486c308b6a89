/* Handlers: expiry, protection, recovery, the default branch, the clock. */
#include <stdio.h>
#include <string.h>

#include "model/expiry.h"
#include "model/rules.h"
#include "server/answer.h"
#include "server/api.h"
#include "server/body.h"
#include "server/computes.h"
#include "server/lifecycle.h"

/* Take the expiry from "expires_at" or "ttl_interval_seconds". */
static int read_expiry(bough_branch_row *row, const json_t *branch, const clock_moment *moment,
                       bough_error *err) {
    const char *at = NULL;
    long long seconds = 0;
    int rc = body_text(&at, branch, "expires_at", err);
    if (!rc) rc = body_int(&seconds, branch, "ttl_interval_seconds", 0, err);
    bool has_seconds = json_is_integer(json_object_get(branch, "ttl_interval_seconds"));
    if (!rc && at && has_seconds)
        rc = bough_fail(err, BOUGH_E_INVALID,
                        "\"expires_at\" and \"ttl_interval_seconds\" exclude each other");
    if (!rc && at) rc = bough_expiry_at(row, at, moment->wall_ms, err);
    if (!rc && has_seconds) rc = bough_expiry_in(row, seconds, moment->latest_ms, err);
    return rc;
}

static int read_mode(bough_branch_row *row, const json_t *branch, bough_error *err) {
    const char *mode = NULL;
    int rc = body_text(&mode, branch, "expiry_mode", err);
    if (rc || !mode) return rc;
    bool cascades = strcmp(mode, "cascade") == 0;
    if (!cascades && strcmp(mode, "wait") != 0)
        return bough_fail(err, BOUGH_E_INVALID, "\"expiry_mode\" must be wait or cascade");
    if (!row->expires_ms)
        return bough_fail(err, BOUGH_E_INVALID,
                          "\"expiry_mode\" is of a branch that expires, and this does not");
    row->expiry_cascades = cascades;
    return BOUGH_OK;
}

int api_life_moment(clock_moment *moment, request *rq, const json_t *branch, const char *name,
                    bough_error *err) {
    bool is_timed = json_is_string(json_object_get(branch, "expires_at")) ||
                    json_is_integer(json_object_get(branch, "ttl_interval_seconds")) ||
                    bough_expiry_is_temporary(name);
    if (is_timed) return clock_begin(moment, rq->srv->clock, err);
    clock_look(moment, rq->srv->clock);
    return BOUGH_OK;
}

int api_read_life(bough_branch_row *row, request *rq, const json_t *branch,
                  const clock_moment *moment, bough_error *err) {
    bool is_cleared = false;
    int rc = body_bool(&row->is_protected, branch, "protected", row->is_protected, err);
    if (!rc) rc = read_expiry(row, branch, moment, err);
    if (!rc && rq->route->method == EVHTTP_REQ_PATCH &&
        json_is_null(json_object_get(branch, "expires_at")) &&
        !json_is_integer(json_object_get(branch, "ttl_interval_seconds"))) {
        is_cleared = row->expires_ms != 0;
        row->expires_ms = row->ttl_seconds = 0;
        row->expiry_cascades = false;
    }
    if (!rc && !is_cleared) bough_expiry_default(row, moment->latest_ms);
    if (!rc) rc = read_mode(row, branch, err);
    if (!rc) rc = bough_rule_life(row, err);
    if (rc == BOUGH_E_PRECONDITION) rq->error_status = 422;
    return rc;
}

/* ---- changing ---- */

/* In the transaction. What is being replaced already cannot be protected from it any more. */
static int check_protection(request *rq, const bough_branch_row *row, bough_error *err) {
    bool has_swap;
    int rc = bough_swaps_has(&has_swap, rq->srv->cat, row->id, err);
    if (rc || !has_swap) return rc;
    (void)bough_fail(err, BOUGH_E_BUSY, "branch \"%.200s\" is being restored", row->name);
    (void)bough_hint(err, "Protect it when that is over.");
    return BOUGH_E_BUSY;
}

/* In the transaction. */
static int update(bough_branch_row *row, request *rq, const json_t *branch, const char *name,
                  const clock_moment *moment, bough_error *err) {
    bough_catalogue *cat = rq->srv->cat;
    bough_branch_row before;
    int rc = bough_branches_get(&before, cat, row->project_id, row->id, err);
    if (rc) return rc;
    *row = before;
    if (name) (void)snprintf(row->name, sizeof row->name, "%s", name);
    rc = api_read_life(row, rq, branch, moment, err);
    if (!rc && strcmp(row->name, before.name) != 0) {
        rc = bough_branches_rename(cat, row->id, row->name, err);
        if (rc == BOUGH_E_CONFLICT) rq->slug = "BRANCH_ALREADY_EXISTS";
    }
    if (!rc && row->is_protected && !before.is_protected) rc = check_protection(rq, row, err);
    if (!rc && row->is_protected != before.is_protected)
        rc = bough_branches_set_protected(cat, row->id, row->is_protected, err);
    if (!rc &&
        (row->expires_ms != before.expires_ms || row->expiry_cascades != before.expiry_cascades ||
         row->ttl_seconds != before.ttl_seconds))
        rc = bough_branches_set_expiry(cat, row, err);
    return rc;
}

int api_branch_update(request *rq, bough_error *err) {
    static const char *const known[] = {"branch", NULL};
    static const char *const branch_known[] = {
        "name", "protected", "expires_at", "ttl_interval_seconds", "expiry_mode", NULL};
    bough_branch_row row;
    clock_moment moment;
    json_t *branch = NULL, *keep = NULL;
    const char *name = NULL;
    int rc = api_branch_of(&row, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_object(&branch, &keep, rq->body, "branch", err);
    if (!rc) rc = body_check(branch, "branch", branch_known, err);
    if (!rc) rc = body_text(&name, branch, "name", err);
    if (!rc && name) rc = bough_rule_name("branch", name, err);
    if (!rc) rc = api_life_moment(&moment, rq, branch, name ? name : row.name, err);
    if (!rc) rc = bough_catalogue_begin(rq->srv->cat, err);
    if (!rc)
        rc = bough_catalogue_end(rq->srv->cat, update(&row, rq, branch, name, &moment, err), err);
    if (!rc) lifecycle_wake(rq->srv);
    /* whatever it is by now: its expiry may have been due */
    if (!rc) rc = bough_branches_get_any(&row, rq->srv->cat, row.id, err);
    if (!rc)
        rq->answer =
            json_pack("{s:o,s:[]}", "branch", answer_branch(rq->srv, &row, false), "operations");
    json_decref(keep);
    return rc;
}

/* In the transaction. */
static int set_default(request *rq, const bough_branch_row *old, bough_error *err) {
    bough_branch_row row;
    int rc = bough_branches_get(&row, rq->srv->cat, old->project_id, old->id, err);
    row.is_default = true;
    if (!rc) rc = bough_rule_life(&row, err);
    if (rc == BOUGH_E_PRECONDITION) rq->error_status = 422;
    return rc ? rc : bough_branches_set_default(rq->srv->cat, row.project_id, row.id, err);
}

int api_branch_set_default(request *rq, bough_error *err) {
    bough_branch_row row;
    json_t *operations = NULL;
    int rc = api_branch_of(&row, rq, err);
    bool is_default = !rc && row.is_default;
    if (!rc && !is_default) {
        rc = bough_catalogue_begin(rq->srv->cat, err);
        if (!rc) {
            rc = set_default(rq, &row, err);
            if (!rc)
                rc = api_record(&operations, rq, "set_default_branch", row.project_id, row.id, NULL,
                                err);
            rc = bough_catalogue_end(rq->srv->cat, rc, err);
        }
        if (!rc) rc = api_branch_of(&row, rq, err);
    }
    if (!rc)
        rq->answer = json_pack("{s:o,s:O}", "branch", answer_branch(rq->srv, &row, false),
                               "operations", operations ? operations : (operations = json_array()));
    json_decref(operations);
    return rc;
}

/* ---- detaching ---- */

/* In the transaction. */
static int detach(json_t **operations, request *rq, const bough_branch_row *old, bough_error *err) {
    bough_branch_row row;
    bough_catalogue *cat = rq->srv->cat;
    int rc = bough_branches_get(&row, cat, old->project_id, old->id, err);
    if (rc || !*row.parent_id) return rc;
    rc = bough_branches_set_parent(cat, row.id, NULL, err);
    if (!rc) rc = bough_origins_forget(cat, row.id, err);
    return rc ? rc
              : api_record(operations, rq, "detach_parent_branch", row.project_id, row.id, NULL,
                           err);
}

int api_branch_detach(request *rq, bough_error *err) {
    static const char *const known[] = {NULL};
    bough_branch_row row;
    json_t *operations = NULL;
    server *srv = rq->srv;
    int rc = api_branch_of(&row, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = lock_take(srv->locks, row.id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    /* what it stands on is durable, and does not ask who made it */
    bough_shm *live = NULL;
    rc = computes_shm(&live, srv, row.id, err);
    if (!rc) rc = bough_store_sync(srv->store, row.id, live, err);
    if (!rc) rc = bough_catalogue_begin(srv->cat, err);
    if (!rc) rc = bough_catalogue_end(srv->cat, detach(&operations, rq, &row, err), err);
    lock_drop(srv->locks, row.id);
    if (!rc) rc = api_branch_of(&row, rq, err);
    if (!rc) lifecycle_wake(srv); /* its parent may have waited for it */
    if (!rc)
        rq->answer = json_pack("{s:o,s:O}", "branch", answer_branch(srv, &row, false), "operations",
                               operations ? operations : (operations = json_array()));
    json_decref(operations);
    return rc;
}

/* ---- deleting and recovering ---- */

int api_branch_delete(request *rq, bough_error *err) {
    bough_project_row project;
    bough_branch_row row;
    bough_operation_row operation;
    bool is_refused = false, for_good;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = api_query_bool(&for_good, rq, "hard_delete", err);
    if (rc) return rc;
    rc = bough_branches_get(&row, rq->srv->cat, project.id, rq->params[1], err);
    if (rc == BOUGH_E_NOTFOUND && for_good)
        rc = bough_branches_get_deleted(&row, rq->srv->cat, project.id, rq->params[1], err);
    if (!rc)
        rc = flow_branch_delete(&is_refused, &operation, rq->srv, &project, row.id, for_good, err);
    if (is_refused) rq->error_status = 422;
    if (rc) return api_deleted_already(rq, rc, err);
    if (!for_good) { /* with the time of its deletion, where it is not recovered already */
        bough_branch_row now;
        if (bough_branches_get_any(&now, rq->srv->cat, row.id, NULL) == BOUGH_OK) row = now;
    }
    rq->answer = json_pack("{s:o,s:o}", "branch", answer_branch(rq->srv, &row, true), "operations",
                           answer_operations(&operation, 1));
    return BOUGH_OK;
}

int api_branch_recover(request *rq, bough_error *err) {
    static const char *const known[] = {"name", NULL};
    bough_project_row project;
    bough_branch_row row;
    bough_operation_row operation;
    const char *name = NULL;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_text(&name, rq->body, "name", err);
    if (!rc && name) rc = bough_rule_name("branch", name, err);
    if (!rc) rc = flow_branch_recover(&operation, rq->srv, &project, rq->params[1], name, err);
    if (rc == BOUGH_E_CONFLICT) rq->slug = "BRANCH_ALREADY_EXISTS";
    if (!rc) rc = bough_branches_get(&row, rq->srv->cat, project.id, rq->params[1], err);
    if (!rc)
        rq->answer = json_pack("{s:o,s:o}", "branch", answer_branch(rq->srv, &row, false),
                               "operations", answer_operations(&operation, 1));
    return rc;
}

/* ---- the clock ---- */

int api_clock_confirm(request *rq, bough_error *err) {
    static const char *const known[] = {NULL};
    clock_moment moment;
    char text[40];
    int rc = body_check(rq->body, "", known, err);
    if (!rc) rc = clock_confirm(&moment, rq->srv->clock, err);
    if (rc) return rc;
    lifecycle_wake(rq->srv);
    answer_time(text, sizeof text, moment.now_ms);
    rq->answer = json_pack("{s:s,s:b}", "time", text, "is_held", moment.is_held);
    return BOUGH_OK;
}
