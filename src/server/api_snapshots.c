/* Handlers: snapshots, their schedules, and branches restored from them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "model/rules.h"
#include "server/answer.h"
#include "server/api.h"
#include "server/body.h"
#include "server/flow_snapshot.h"
#include "server/flows.h"
#include "server/lifecycle.h"
#include "server/usages.h"
#include "util/when.h"

static json_t *answer_snapshot(server *srv, const bough_snapshot_row *row) {
    char created[40], moment[40], expires[40];
    bough_branch_row branch;
    answer_time(created, sizeof created, row->created_ms);
    answer_time(moment, sizeof moment, row->time_us / 1000);
    json_t *s = json_pack("{s:s,s:o,s:s,s:s,s:s,s:b}", "id", row->id, "name",
                          answer_text(row->name), "created_at", created, "timestamp", moment,
                          "source_branch_id", row->source_id, "manual", !*row->frequency);
    if (!s) return NULL;
    if (*row->lsn) answer_set(s, "lsn", json_string(row->lsn));
    if (*row->frequency) answer_set(s, "frequency", json_string(row->frequency));
    if (answer_found(bough_branches_get(&branch, srv->cat, row->project_id, row->source_id, NULL)))
        answer_set(s, "source_branch_name", answer_text(branch.name));
    bough_usage usage;
    if (usage_get(&usage, srv, row->id, USAGE_LISTED_MS)) {
        answer_set(s, "own_bytes",
                   json_integer((json_int_t)(usage.own_bytes + usage.history_bytes)));
        answer_set(s, "shared_bytes", json_integer((json_int_t)usage.shared_bytes));
    }
    if (row->expires_ms) {
        answer_time(expires, sizeof expires, row->expires_ms);
        answer_set(s, "expires_at", json_string(expires));
    }
    return s;
}

/* The snapshot that the second parameter names. */
static int snapshot_of(bough_snapshot_row *row, bough_project_row *project, const request *rq,
                       bough_error *err) {
    int rc = api_project_of(project, rq, err);
    return rc ? rc : bough_snapshots_get(row, rq->srv->cat, project->id, rq->params[1], err);
}

int api_snapshot_list(request *rq, bough_error *err) {
    bough_project_row project;
    bough_snapshot_row *rows = NULL;
    size_t n = 0;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = bough_snapshots_list(&rows, &n, rq->srv->cat, project.id, err);
    if (rc) return rc;
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) answer_append(array, answer_snapshot(rq->srv, &rows[i]));
    rq->answer = json_pack("{s:o}", "snapshots", array);
    free(rows);
    return BOUGH_OK;
}

int api_snapshot_get(request *rq, bough_error *err) {
    bough_project_row project;
    bough_snapshot_row row;
    int rc = snapshot_of(&row, &project, rq, err);
    if (!rc) rq->answer = json_pack("{s:o}", "snapshot", answer_snapshot(rq->srv, &row));
    return rc;
}

/* A query parameter; "" is as good as none. */
static const char *query(const request *rq, const char *name) {
    const char *text = request_query(rq, name);
    return text && *text ? text : NULL;
}

static int read_expiry(snapshot_wish *wish, request *rq, bough_error *err) {
    const char *at = query(rq, "expires_at");
    clock_moment moment;
    bough_branch_row row = {0};
    long long seconds = 0;
    if (query(rq, "ttl_interval_seconds")) {
        int rc =
            api_query_int(&seconds, rq, "ttl_interval_seconds", 0, 1, BOUGH_LONGEST_SECONDS, err);
        if (rc) return rc;
    }
    if (!at && !seconds) return BOUGH_OK;
    if (at && seconds)
        return bough_fail(err, BOUGH_E_INVALID,
                          "\"expires_at\" and \"ttl_interval_seconds\" exclude each other");
    int rc = clock_begin(&moment, rq->srv->clock, err);
    if (!rc)
        rc = at ? bough_expiry_at(&row, at, moment.wall_ms, err)
                : bough_expiry_in(&row, seconds, moment.latest_ms, err);
    wish->expires_ms = row.expires_ms;
    return rc;
}

int api_snapshot_create(request *rq, bough_error *err) {
    static const char *const known[] = {NULL};
    bough_project_row project;
    bough_branch_row branch;
    bough_snapshot_row row;
    bough_operation_row operation;
    char name[BOUGH_NAME_SIZE];
    snapshot_wish wish = {.name = query(rq, "name"), .frequency = ""};
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = api_branch_of(&branch, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc)
        rc = api_read_moment(&wish.moment, request_query(rq, "lsn"), "lsn",
                             request_query(rq, "timestamp"), "timestamp", err);
    if (!rc && wish.name) rc = bough_rule_name("snapshot", wish.name, err);
    if (!rc) rc = read_expiry(&wish, rq, err);
    if (rc) return rc;
    flow_snapshot_name(name, branch.name, bough_now_epoch_ms(), "");
    if (!wish.name) wish.name = name;
    wish.branch = branch.id;
    rc = flow_snapshot_create(&row, &operation, rq->srv, &project, &wish, LOCK_WAIT_MS, err);
    if (!rc)
        rq->answer = json_pack("{s:o,s:o}", "snapshot", answer_snapshot(rq->srv, &row),
                               "operations", answer_operations(&operation, 1));
    return rc;
}

int api_snapshot_update(request *rq, bough_error *err) {
    static const char *const known[] = {"snapshot", NULL}, *const snapshot_known[] = {"name", NULL};
    bough_project_row project;
    bough_snapshot_row row;
    json_t *snapshot = NULL, *keep = NULL;
    const char *name = NULL;
    int rc = snapshot_of(&row, &project, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_object(&snapshot, &keep, rq->body, "snapshot", err);
    if (!rc) rc = body_check(snapshot, "snapshot", snapshot_known, err);
    if (!rc) rc = body_text(&name, snapshot, "name", err);
    if (!rc && name) rc = bough_rule_name("snapshot", name, err);
    if (!rc && name) rc = bough_snapshots_rename(rq->srv->cat, row.id, name, err);
    if (!rc) rc = snapshot_of(&row, &project, rq, err);
    if (!rc) rq->answer = json_pack("{s:o}", "snapshot", answer_snapshot(rq->srv, &row));
    json_decref(keep);
    return rc;
}

int api_snapshot_delete(request *rq, bough_error *err) {
    bough_project_row project;
    bough_snapshot_row row;
    bough_operation_row operation;
    int rc = snapshot_of(&row, &project, rq, err);
    if (!rc) rc = flow_snapshot_delete(&operation, rq->srv, project.id, row.id, 0, err);
    if (rc) return rc;
    rq->status = 202;
    rq->answer = json_pack("{s:o}", "operations", answer_operations(&operation, 1));
    return BOUGH_OK;
}

int api_snapshot_restore(request *rq, bough_error *err) {
    static const char *const known[] = {"name", "target_branch_id", "finalize_restore", NULL};
    bough_project_row project;
    bough_snapshot_row row;
    snapshot_restore_wish wish = {0};
    int rc = snapshot_of(&row, &project, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_text(&wish.name, rq->body, "name", err);
    if (!rc && !wish.name) wish.name = query(rq, "name"); /* as older clients say it */
    if (!rc && wish.name) rc = bough_rule_name("branch", wish.name, err);
    if (!rc) rc = body_text(&wish.target, rq->body, "target_branch_id", err);
    if (!rc) rc = body_bool(&wish.is_final, rq->body, "finalize_restore", false, err);
    if (!rc) rc = flow_snapshot_restore(rq, &project, &row, &wish, err);
    if (rc == BOUGH_E_PRECONDITION) rq->error_status = 422;
    return rc;
}

int api_branch_finalize(request *rq, bough_error *err) {
    static const char *const known[] = {"name", NULL};
    bough_project_row project;
    bough_operation_row operation;
    const char *name = NULL;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_text(&name, rq->body, "name", err);
    if (!rc && name) rc = bough_rule_name("branch", name, err);
    if (!rc) rc = flow_snapshot_finalize(&operation, rq->srv, &project, rq->params[1], name, err);
    if (rc == BOUGH_E_PRECONDITION) rq->error_status = 422;
    if (!rc) rq->answer = json_pack("{s:o}", "operations", answer_operations(&operation, 1));
    return rc;
}

/* ---- schedules ---- */

static int read_line(bough_schedule_row *row, const json_t *item, bough_error *err) {
    static const char *const known[] = {"frequency",         "hour", "day", "month",
                                        "retention_seconds", NULL};
    const char *frequency = NULL;
    long long hour, day, month, retention;
    if (!json_is_object(item))
        return bough_fail(err, BOUGH_E_INVALID, "a line of a schedule must be an object");
    int rc = body_check(item, "schedule", known, err);
    if (!rc) rc = body_text(&frequency, item, "frequency", err);
    if (!rc) rc = body_int(&hour, item, "hour", -1, err);
    if (!rc) rc = body_int(&day, item, "day", 0, err);
    if (!rc) rc = body_int(&month, item, "month", 0, err);
    if (!rc) rc = body_int(&retention, item, "retention_seconds", 0, err);
    if (rc) return rc;
    if (hour < -1 || hour > 99 || day < 0 || day > 99 || month < 0 || month > 99 || retention < 0 ||
        retention > BOUGH_LONGEST_SECONDS)
        return bough_fail(err, BOUGH_E_INVALID, "a number of the schedule is out of range");
    (void)snprintf(row->frequency, sizeof row->frequency, "%s", frequency ? frequency : "");
    row->hour = (int)hour;
    row->day = (int)day;
    row->month = (int)month;
    row->retention_seconds = retention;
    return bough_rule_schedule(row, err);
}

static json_t *answer_schedule(const bough_schedule_row *rows, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        char next[40];
        json_t *one = json_pack("{s:s}", "frequency", rows[i].frequency);
        answer_time(next, sizeof next, rows[i].next_ms);
        if (rows[i].hour >= 0) answer_set(one, "hour", json_integer(rows[i].hour));
        if (rows[i].day) answer_set(one, "day", json_integer(rows[i].day));
        if (rows[i].month) answer_set(one, "month", json_integer(rows[i].month));
        if (rows[i].retention_seconds)
            answer_set(one, "retention_seconds", json_integer(rows[i].retention_seconds));
        answer_set(one, "next_at", json_string(next));
        answer_append(array, one);
    }
    return json_pack("{s:o}", "schedule", array);
}

int api_schedule_get(request *rq, bough_error *err) {
    bough_branch_row branch;
    bough_schedule_row *rows = NULL;
    size_t n = 0;
    int rc = api_branch_of(&branch, rq, err);
    if (!rc) rc = bough_schedules_get(&rows, &n, rq->srv->cat, branch.id, err);
    if (!rc) rq->answer = answer_schedule(rows, n);
    free(rows);
    return rc;
}

int api_schedule_set(request *rq, bough_error *err) {
    static const char *const known[] = {"schedule", NULL};
    bough_branch_row branch;
    bough_schedule_row rows[BOUGH_SCHEDULE_MAX];
    clock_moment moment;
    memset(rows, 0, sizeof rows);
    int rc = api_branch_of(&branch, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    const json_t *lines = rc ? NULL : json_object_get(rq->body, "schedule");
    size_t n = json_array_size(lines);
    if (!rc && !json_is_array(lines))
        rc = bough_fail(err, BOUGH_E_INVALID, "\"schedule\" must be an array");
    if (!rc && n > BOUGH_SCHEDULE_MAX)
        rc =
            bough_fail(err, BOUGH_E_INVALID, "a schedule has at most %d lines", BOUGH_SCHEDULE_MAX);
    for (size_t i = 0; i < n && !rc; i++) rc = read_line(&rows[i], json_array_get(lines, i), err);
    if (!rc) rc = clock_begin(&moment, rq->srv->clock, err);
    for (size_t i = 0; i < n && !rc; i++)
        rows[i].next_ms = bough_schedule_next(&rows[i], moment.latest_ms);
    if (!rc) rc = bough_catalogue_begin(rq->srv->cat, err);
    if (!rc)
        rc = bough_catalogue_end(rq->srv->cat,
                                 bough_schedules_set(rq->srv->cat, branch.id, rows, n, err), err);
    if (rc) return rc;
    lifecycle_wake(rq->srv);
    rq->answer = json_object();
    return BOUGH_OK;
}
