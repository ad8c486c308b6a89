/* Handlers: endpoints. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ids.h"
#include "model/rules.h"
#include "server/access.h"
#include "server/answer.h"
#include "server/api.h"
#include "server/body.h"
#include "server/computes.h"
#include "server/inside.h"
#include "util/crashpoint.h"

static int list(request *rq, const char *project, const char *branch, bough_error *err) {
    bough_endpoint_row *rows;
    size_t n;
    int rc = bough_endpoints_list_live(&rows, &n, rq->srv->cat, project, err);
    if (rc) return rc;
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        if (!access_sees_branch(rq, rows[i].branch_id) ||
            (branch && strcmp(rows[i].branch_id, branch) != 0))
            continue;
        json_t *one = answer_endpoint(rq->srv, &rows[i]);
        /* of one branch the first is that which writes: clients take it for the branch's address */
        answer_insert(array, branch && !rows[i].is_read_only ? 0 : json_array_size(array), one);
    }
    rq->answer = json_pack("{s:o}", "endpoints", array);
    free(rows);
    return BOUGH_OK;
}

int api_endpoint_list(request *rq, bough_error *err) {
    bough_project_row project;
    int rc = api_project_of(&project, rq, err);
    return rc ? rc : list(rq, project.id, NULL, err);
}

int api_endpoint_list_of_branch(request *rq, bough_error *err) {
    bough_branch_row branch;
    int rc = api_branch_of(&branch, rq, err);
    return rc ? rc : list(rq, branch.project_id, branch.id, err);
}

/* The endpoint that the path names, and its branch. */
static int get(bough_endpoint_row *row, bough_branch_row *branch, request *rq, bough_error *err) {
    bough_project_row project;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = bough_endpoints_get(row, rq->srv->cat, project.id, rq->params[1], err);
    if (!rc) rc = bough_branches_get(branch, rq->srv->cat, project.id, row->branch_id, err);
    return rc;
}

static int answer_with_operation(request *rq, const bough_endpoint_row *row, const char *action,
                                 bough_error *err) {
    json_t *operations = NULL;
    int rc =
        action ? api_record(&operations, rq, action, row->project_id, row->branch_id, row->id, err)
               : BOUGH_OK;
    if (!rc)
        rq->answer = json_pack("{s:o,s:o}", "endpoint", answer_endpoint(rq->srv, row), "operations",
                               operations ? operations : json_array());
    return rc;
}

static const char *const fields[] = {"branch_id",
                                     "type",
                                     "suspend_timeout_seconds",
                                     "autoscaling_limit_min_cu",
                                     "autoscaling_limit_max_cu",
                                     "region_id",
                                     "provisioner",
                                     "name",
                                     "disabled",
                                     "pooler_enabled",
                                     "pooler_mode",
                                     "passwordless_access",
                                     "settings",
                                     NULL};

int api_read_type(bool *is_read_only, const json_t *endpoint, bough_error *err) {
    const char *type = NULL;
    int rc = body_text(&type, endpoint, "type", err);
    if (rc || !type) return rc;
    *is_read_only = strcmp(type, "read_only") == 0;
    if (*is_read_only || strcmp(type, "read_write") == 0) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_INVALID, "the type of an endpoint is read_write or read_only");
}

/* What would act and does not is refused. */
static int check_fields(json_t *endpoint, bough_error *err) {
    int rc = body_check(endpoint, "endpoint", fields, err);
    if (!rc) rc = body_refuse(endpoint, "disabled", "endpoints cannot be disabled yet", err);
    if (!rc)
        rc = body_refuse(endpoint, "pooler_enabled",
                         "the pooler is reached by its own host, ID-pooler, always", err);
    if (!rc)
        rc =
            body_refuse(endpoint, "settings", "settings of an endpoint are not supported yet", err);
    return rc;
}

/* A size in compute units, a multiple of a quarter. */
static int read_units(int *quarters, const json_t *object, const char *name, bough_error *err) {
    const json_t *value = json_object_get(object, name);
    if (!value || json_is_null(value)) return BOUGH_OK;
    double units = json_number_value(value) * 4;
    if (!json_is_number(value) || units < 0 || units > 1e6 || units != (double)(int)units)
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" must be a multiple of 0.25", name);
    *quarters = (int)units;
    return BOUGH_OK;
}

int api_read_size(int *least, int *most, const json_t *endpoint, bough_error *err) {
    int given_least = 0, given_most = 0;
    int rc = read_units(&given_least, endpoint, "autoscaling_limit_min_cu", err);
    if (!rc) rc = read_units(&given_most, endpoint, "autoscaling_limit_max_cu", err);
    if (given_least && !given_most && given_least > *most) given_most = given_least;
    if (given_most && !given_least && given_most < *least) given_least = given_most;
    if (given_least) *least = given_least;
    if (given_most) *most = given_most;
    return rc ? rc : bough_rule_size(*least, *most, err);
}

static int check_number(request *rq, const bough_branch_row *branch, bough_error *err) {
    bough_endpoint_row *rows;
    size_t n;
    int rc = bough_endpoints_list_reading(&rows, &n, rq->srv->cat, branch->id, err);
    if (rc) return rc;
    free(rows);
    if (n < BOUGH_READ_ONLY_MOST) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_PRECONDITION,
                      "branch \"%.200s\" has %d read-only endpoints, as"
                      " many as there may be",
                      branch->name, BOUGH_READ_ONLY_MOST);
}

/* Make the row, with the branch's lock held. */
static int create_locked(bough_endpoint_row *row, request *rq, const bough_branch_row *branch,
                         bough_error *err) {
    bough_branch_row fresh;
    int rc = bough_branches_get(&fresh, rq->srv->cat, branch->project_id, branch->id, err);
    if (!rc && row->is_read_only) rc = check_number(rq, &fresh, err);
    if (!rc) rc = bough_ids_new(row->id, rq->srv->cat, "ep-", err);
    if (rc) return rc;
    row->created_ms = row->updated_ms = bough_now_epoch_ms();
    memcpy(row->project_id, branch->project_id, sizeof row->project_id);
    memcpy(row->branch_id, branch->id, sizeof row->branch_id);
    rc = bough_endpoints_insert(rq->srv->cat, row, err);
    if (rc) return rc;
    rc = computes_use_locked(rq->srv, &fresh, row,
                             (compute_cause){"its endpoint was created", true}, err);
    char socket_dir[BOUGH_PATH_MAX];
    if (rc && bough_endpoints_delete(rq->srv->cat, row->id, NULL) == BOUGH_OK &&
        computes_socket_dir(socket_dir, rq->srv, row->id, NULL) == BOUGH_OK)
        bough_ignore(bough_rmtree(socket_dir, NULL));
    return rc;
}

int api_endpoint_make(bough_endpoint_row *row, request *rq, const bough_branch_row *branch,
                      bough_error *err) {
    int rc = lock_take(rq->srv->locks, branch->id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    rc = create_locked(row, rq, branch, err);
    lock_drop(rq->srv->locks, branch->id);
    return rc;
}

int api_endpoint_create(request *rq, bough_error *err) {
    static const char *const known[] = {"endpoint", NULL};
    bough_project_row project;
    bough_branch_row branch;
    bough_endpoint_row row = {.least_quarters = 0};
    json_t *endpoint = NULL, *keep = NULL;
    const char *branch_id = NULL;
    long long seconds = 0;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_object(&endpoint, &keep, rq->body, "endpoint", err);
    if (!rc) rc = check_fields(endpoint, err);
    if (!rc) rc = body_text(&branch_id, endpoint, "branch_id", err);
    if (!rc && !branch_id)
        rc = bough_fail(err, BOUGH_E_INVALID, "\"endpoint.branch_id\" is missing");
    if (!rc)
        rc = body_int(&seconds, endpoint, "suspend_timeout_seconds",
                      project.endpoints.suspend_timeout_seconds, err);
    if (!rc) rc = bough_rule_suspend_timeout(seconds, rq->srv->least_suspend_seconds, err);
    row.suspend_timeout_seconds = (int)seconds;
    if (!rc) {
        row.least_quarters = project.endpoints.least_quarters;
        row.most_quarters = project.endpoints.most_quarters;
        rc = api_read_size(&row.least_quarters, &row.most_quarters, endpoint, err);
    }
    if (!rc) rc = api_read_type(&row.is_read_only, endpoint, err);
    if (!rc) rc = access_branch(rq, branch_id, err);
    if (!rc) rc = bough_branches_get(&branch, rq->srv->cat, project.id, branch_id, err);
    if (!rc) rc = api_endpoint_make(&row, rq, &branch, err);
    if (!rc) rc = answer_with_operation(rq, &row, "start_compute", err);
    rq->status = 201;
    json_decref(keep);
    return rc;
}

int api_endpoint_get(request *rq, bough_error *err) {
    bough_endpoint_row row;
    bough_branch_row branch;
    int rc = get(&row, &branch, rq, err);
    if (!rc) rq->answer = json_pack("{s:o}", "endpoint", answer_endpoint(rq->srv, &row));
    return rc;
}

/* In the transaction: the body says what is to be different from what there is now. */
static int update(bough_endpoint_row *row, request *rq, const json_t *endpoint, bough_error *err) {
    bough_branch_row branch;
    const char *branch_id = NULL;
    long long seconds = 0;
    int rc = get(row, &branch, rq, err);
    BOUGH_WINDOW("endpoint.read");
    bool is_read_only = !rc && row->is_read_only;
    if (!rc) rc = api_read_type(&is_read_only, endpoint, err);
    if (!rc && is_read_only != row->is_read_only)
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED, "the type of an endpoint cannot be changed");
    if (!rc) rc = body_text(&branch_id, endpoint, "branch_id", err);
    if (!rc && branch_id && strcmp(branch_id, row->branch_id) != 0)
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED, "an endpoint cannot move to another branch");
    if (!rc)
        rc = body_int(&seconds, endpoint, "suspend_timeout_seconds", row->suspend_timeout_seconds,
                      err);
    if (!rc) rc = bough_rule_suspend_timeout(seconds, rq->srv->least_suspend_seconds, err);
    if (!rc) rc = api_read_size(&row->least_quarters, &row->most_quarters, endpoint, err);
    if (!rc)
        rc = bough_endpoints_set_size(rq->srv->cat, row->id, row->least_quarters,
                                      row->most_quarters, err);
    if (!rc) rc = bough_endpoints_set_timeout(rq->srv->cat, row->id, (int)seconds, err);
    return rc ? rc : get(row, &branch, rq, err);
}

int api_endpoint_update(request *rq, bough_error *err) {
    static const char *const known[] = {"endpoint", NULL};
    bough_endpoint_row row;
    bough_branch_row branch;
    json_t *endpoint = NULL, *keep = NULL;
    int rc = get(&row, &branch, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_object(&endpoint, &keep, rq->body, "endpoint", err);
    if (!rc) rc = check_fields(endpoint, err);
    if (!rc) rc = bough_catalogue_begin(rq->srv->cat, err);
    if (!rc) rc = bough_catalogue_end(rq->srv->cat, update(&row, rq, endpoint, err), err);
    if (!rc) rc = answer_with_operation(rq, &row, NULL, err);
    json_decref(keep);
    return rc;
}

/* Stop with the branch's lock, then start again or delete the row. */
static int stop(bough_endpoint_row *row, request *rq, bool is_restart, bool is_deletion,
                bough_error *err) {
    bough_branch_row branch;
    server *srv = rq->srv;
    const char *cause = is_restart    ? "a restart was asked for"
                        : is_deletion ? "its endpoint was deleted"
                                      : "a suspension was asked for";
    int rc = get(row, &branch, rq, err);
    if (!rc) rc = lock_take(srv->locks, branch.id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    rc = bough_branches_get(&branch, srv->cat, branch.project_id, branch.id, err);
    if (!rc) rc = bough_endpoints_get(row, srv->cat, branch.project_id, row->id, err);
    if (!rc && strcmp(row->branch_id, branch.id) != 0) /* while we waited for the lock */
        rc = bough_fail(err, BOUGH_E_BUSY, "the endpoint is of another branch now");
    if (!rc) rc = computes_stop(srv, bough_endpoint_home(row), false, cause, err);
    if (!rc && is_restart)
        rc = computes_use_locked(srv, &branch, row, (compute_cause){cause, true}, err);
    if (!rc && is_deletion) rc = bough_endpoints_delete(srv->cat, row->id, err);
    if (!rc && is_deletion) computes_forget(srv, branch.id, row->id);
    lock_drop(srv->locks, branch.id);
    return rc;
}

int api_endpoint_delete(request *rq, bough_error *err) {
    bough_endpoint_row row;
    bough_project_row project;
    char socket_dir[BOUGH_PATH_MAX];
    int rc = api_project_of(&project, rq, err);
    if (rc) return rc;
    rc = stop(&row, rq, false, true, err);
    if (rc) return api_deleted_already(rq, rc, err);
    rc = computes_socket_dir(socket_dir, rq->srv, row.id, err);
    if (!rc) rc = bough_rmtree(socket_dir, err);
    return rc ? rc : answer_with_operation(rq, &row, "suspend_compute", err);
}

/* Members of an answer that may be unknown. */
static void set_time(json_t *object, const char *name, int64_t ms) {
    char text[40];
    if (!object || ms <= 0) return;
    answer_time(text, sizeof text, ms);
    answer_set(object, name, json_string(text));
}

int api_endpoint_why(request *rq, bough_error *err) {
    bough_endpoint_row row;
    bough_branch_row branch;
    compute_why why;
    char busy[160];
    int rc = get(&row, &branch, rq, err);
    if (rc) return rc;
    computes_why(&why, rq->srv, bough_endpoint_home(&row));
    int seconds = computes_suspend_seconds(&row);
    if (why.is_active && inside_activity(busy, sizeof busy, rq->srv, row.id, NULL) == BOUGH_OK)
        memcpy(why.busy, busy, sizeof why.busy); /* else what was seen last */
    if (!*why.cause && !why.is_active)
        (void)snprintf(why.cause, sizeof why.cause, "nobody has used it since the server started");
    json_t *answer = json_pack("{s:s,s:s,s:s,s:o,s:i,s:o,s:i}", "endpoint_id", row.id, "branch_id",
                               branch.id, "state", why.is_active ? "active" : "idle", "cause",
                               answer_text(why.cause), "sessions", why.sessions, "busy",
                               answer_text(why.busy), "suspend_after_seconds", seconds);
    set_time(answer, "since", why.since_ms);
    if (why.is_active && !*why.busy && why.sessions == 0 && seconds > 0) {
        set_time(answer, "idle_since", why.idle_since_ms);
        set_time(answer, "suspends_at", why.idle_since_ms + (int64_t)seconds * 1000);
    }
    rq->answer = json_pack("{s:o}", "why", answer);
    return BOUGH_OK;
}

int api_endpoint_start(request *rq, bough_error *err) {
    bough_endpoint_row row;
    bough_branch_row branch;
    int rc = get(&row, &branch, rq, err);
    if (rc) return rc;
    if (computes_runs(rq->srv, &row)) return answer_with_operation(rq, &row, NULL, err);
    rc = computes_use(rq->srv, &branch, &row, (compute_cause){"a start was asked for", true}, err);
    row.last_error[0] = '\0';
    return rc ? rc : answer_with_operation(rq, &row, "start_compute", err);
}

int api_endpoint_suspend(request *rq, bough_error *err) {
    bough_endpoint_row row;
    int rc = stop(&row, rq, false, false, err);
    return rc ? rc : answer_with_operation(rq, &row, "suspend_compute", err);
}

int api_endpoint_restart(request *rq, bough_error *err) {
    bough_endpoint_row row;
    int rc = stop(&row, rq, true, false, err);
    return rc ? rc : answer_with_operation(rq, &row, "start_compute", err);
}
