/* Handlers: projects. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/rules.h"
#include "pg/install.h"
#include "server/access.h"
#include "server/answer.h"
#include "server/api.h"
#include "server/body.h"
#include "server/door.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/pages.h"
#include "util/crashpoint.h"

int api_project_list(request *rq, bough_error *err) {
    long long limit;
    bough_project_row *rows;
    bool is_scoped = *rq->key.project_id != '\0', is_recoverable = false;
    const char *organization = request_query(rq, "org_id"), *cursor = request_query(rq, "cursor");
    bough_project_place after;
    size_t n = 0;
    int rc = api_query_int(&limit, rq, "limit", 10, 1, 400, err);
    if (!rc) rc = api_query_bool(&is_recoverable, rq, "recoverable", err);
    if (!rc && organization) rc = api_check_organization(organization, err);
    if (cursor && !*cursor) cursor = NULL;
    if (!rc && cursor) rc = pages_read_project(&after, cursor, err);
    if (!rc)
        rc = bough_projects_list(&rows, &n, rq->srv->cat, request_query(rq, "search"),
                                 cursor ? &after : NULL, is_scoped ? INT_MAX : (int)limit, err);
    for (size_t i = 0, all = n; !rc && is_scoped && i < all; i++) { /* one, or none */
        if (i == 0) n = 0;
        if (access_sees_project(rq, rows[i].id)) rows[n++] = rows[i];
    }
    if (rc) return rc;
    if (is_recoverable) n = 0; /* a project is deleted for good */
    char next[PAGES_CURSOR_SIZE];
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) answer_append(array, answer_project(&rows[i]));
    if (n > 0) pages_write_project(next, &rows[n - 1]);
    rq->answer =
        json_pack("{s:o,s:{},s:{},s:[],s:o*}", "projects", array, "applications", "integrations",
                  "unavailable_project_ids", "pagination", api_pagination(n > 0 ? next : NULL));
    free(rows);
    return BOUGH_OK;
}

int api_project_list_shared(request *rq, bough_error *err) {
    (void)err;
    rq->answer = json_pack("{s:[],s:{},s:{}}", "projects", "applications", "integrations");
    return BOUGH_OK;
}

/* Harmless: what Neon's clients send about machines and accounts. What would restrict access is
 * refused. */
static int check_fields(json_t *project, bough_error *err) {
    static const char *const known[] = {"name",
                                        "source",
                                        "pg_version",
                                        "branch",
                                        "region_id",
                                        "org_id",
                                        "provisioner",
                                        "compute_provisioner",
                                        "autoscaling_limit_min_cu",
                                        "autoscaling_limit_max_cu",
                                        "default_endpoint_settings",
                                        "settings",
                                        "store_passwords",
                                        "history_retention_seconds",
                                        "platform_id",
                                        NULL};
    static const char *const branch_known[] = {"name", "role_name", "database_name", NULL};
    bool store_passwords = true;
    int rc = body_check(project, "project", known, err);
    if (!rc)
        rc = body_refuse(project, "settings", "project settings are for PATCH /projects/ID", err);
    if (!rc) rc = body_bool(&store_passwords, project, "store_passwords", true, err);
    if (!rc && !store_passwords)
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED,
                        "\"store_passwords\": passwords are always stored, encrypted");
    const json_t *branch = json_object_get(project, "branch");
    if (!rc && json_is_object(branch)) rc = body_check(branch, "project.branch", branch_known, err);
    return rc;
}

static int read_wish(project_wish *wish, const request *rq, json_t *project, json_t *branch,
                     bough_error *err) {
    long long major = 0, retention = BOUGH_RETENTION_SECONDS;
    int rc = body_text(&wish->name, project, "name", err);
    if (!rc) rc = body_text(&wish->source, project, "source", err);
    if (!rc) rc = body_int(&major, project, "pg_version", 0, err);
    if (!rc)
        rc = body_int(&retention, project, "history_retention_seconds", BOUGH_RETENTION_SECONDS,
                      err);
    if (!rc) rc = bough_rule_retention(retention, err);
    wish->history_retention_seconds = retention;
    wish->endpoints = (bough_endpoint_defaults){.least_quarters = BOUGH_SIZE_QUARTERS,
                                                .most_quarters = BOUGH_SIZE_QUARTERS};
    /* as older clients say it, then as newer ones do */
    if (!rc)
        rc = api_read_size(&wish->endpoints.least_quarters, &wish->endpoints.most_quarters, project,
                           err);
    if (!rc) rc = api_endpoint_defaults_read(&wish->endpoints, rq, project, err);
    if (!rc) rc = body_text(&wish->branch, branch, "name", err);
    if (!rc) rc = body_text(&wish->role, branch, "role_name", err);
    if (!rc) rc = body_text(&wish->database, branch, "database_name", err);
    if (rc) return rc;
    if (wish->source && !*wish->source)
        return bough_fail(err, BOUGH_E_INVALID, "\"source\" must not be empty");
    if (wish->source && strlen(wish->source) >= BOUGH_SOURCE_SIZE)
        return bough_fail(err, BOUGH_E_INVALID, "\"source\" is longer than %d bytes",
                          BOUGH_SOURCE_SIZE - 1);
    if (major && (major < BOUGH_PG_OLDEST || major > BOUGH_PG_NEWEST)) {
        (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "PostgreSQL %lld is not supported", major);
        return bough_hint(err, "Bough knows the versions %d to %d.", BOUGH_PG_OLDEST,
                          BOUGH_PG_NEWEST);
    }
    wish->pg_major = (int)major;
    if (!wish->branch) wish->branch = "main";
    if (!wish->database) wish->database = "neondb";
    rc = bough_rule_name("branch", wish->branch, err);
    if (!rc) rc = bough_rule_pg_name("database", wish->database, err);
    if (!rc && wish->role) rc = bough_rule_pg_name("role", wish->role, err);
    return rc;
}

/* A project without a name is called by its time, as Neon calls it by its id. */
static void make_name(char *name, size_t size) {
    char when[40];
    answer_time(when, sizeof when, bough_now_epoch_ms());
    (void)snprintf(name, size, "project %s", when);
}

int api_project_create(request *rq, bough_error *err) {
    static const char *const known[] = {"project", NULL};
    char name[64];
    project_wish wish = {0};
    json_t *project = NULL, *branch = NULL, *keep_project = NULL, *keep_branch = NULL;
    const char *if_exists = request_query(rq, "if_exists");
    int rc = body_check(rq->body, "", known, err);
    if (!rc && if_exists && strcmp(if_exists, "return") != 0)
        rc = bough_fail(err, BOUGH_E_INVALID, "\"if_exists\" can only be \"return\"");
    if (!rc) rc = body_object(&project, &keep_project, rq->body, "project", err);
    if (!rc) rc = check_fields(project, err);
    if (!rc) rc = body_object(&branch, &keep_branch, project, "branch", err);
    if (!rc) rc = read_wish(&wish, rq, project, branch, err);
    make_name(name, sizeof name);
    if (!rc && !wish.name) wish.name = name;
    if (!rc) rc = bough_rule_name("project", wish.name, err);
    wish.if_exists_return = if_exists != NULL;
    if (!rc) rc = flow_project_create(rq, &wish, err);
    json_decref(keep_project);
    json_decref(keep_branch);
    return rc;
}

int api_project_get(request *rq, bough_error *err) {
    bough_project_row row;
    int rc = api_project_of(&row, rq, err);
    if (!rc) rq->answer = json_pack("{s:o}", "project", answer_project(&row));
    return rc;
}

/* What a change of a project did. */
typedef struct project_change {
    bough_project_row row;
    settings_expected expected;
    bool has_settings, has_retention;
} project_change;

/* In the transaction, so that all of it is done or nothing, and what another request changes
 * meanwhile stays: the body says what is to be different from what there is now. */
static int update(project_change *c, request *rq, const json_t *project, const char *name,
                  bough_error *err) {
    bough_catalogue *cat = rq->srv->cat;
    bough_project_row *row = &c->row;
    long long retention = 0;
    int rc = api_project_of(row, rq, err);
    BOUGH_WINDOW("project.read");
    if (!rc)
        rc = body_int(&retention, project, "history_retention_seconds",
                      row->history_retention_seconds, err);
    if (!rc) rc = bough_rule_retention(retention, err);
    if (!rc) rc = api_settings_read(&c->has_settings, row, project, err);
    if (!rc) rc = api_endpoint_defaults_read(&row->endpoints, rq, project, err);
    if (!rc) rc = api_settings_read_expected(&c->expected, project, err);
    if (!rc && c->has_settings) rc = api_settings_store(cat, row, &c->expected, err);
    if (!rc && json_object_get(project, "default_endpoint_settings"))
        rc = bough_projects_set_endpoints(cat, row->id, &row->endpoints, err);
    if (!rc && name) rc = bough_projects_rename(cat, row->id, name, err);
    c->has_retention = !rc && retention != row->history_retention_seconds;
    if (c->has_retention) rc = bough_projects_set_retention(cat, row->id, retention, err);
    return rc ? rc : api_project_of(row, rq, err);
}

int api_project_update(request *rq, bough_error *err) {
    static const char *const known[] = {"project", NULL}, *const project_known[] = {
                                                              "name", "history_retention_seconds",
                                                              "settings",
                                                              "default_endpoint_settings", NULL};
    project_change c = {.has_settings = false};
    json_t *project = NULL, *keep = NULL;
    const char *name = NULL;
    int rc = api_project_of(&c.row, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_object(&project, &keep, rq->body, "project", err);
    if (!rc) rc = body_check(project, "project", project_known, err);
    if (!rc) rc = body_text(&name, project, "name", err);
    if (!rc && name) rc = bough_rule_name("project", name, err);
    if (!rc) rc = bough_catalogue_begin(rq->srv->cat, err);
    if (!rc) rc = bough_catalogue_end(rq->srv->cat, update(&c, rq, project, name, err), err);
    if (!rc && c.has_settings) door_read_lists(rq->srv);
    if (!rc && c.has_retention) history_changed(rq->srv, &c.row);
    if (!rc) rq->answer = json_pack("{s:o,s:[]}", "project", answer_project(&c.row), "operations");
    json_decref(keep);
    return rc;
}

int api_project_delete(request *rq, bough_error *err) {
    bough_project_row row;
    int rc = api_project_of(&row, rq, err);
    if (!rc) rc = flow_project_delete(rq->srv, &row, err);
    if (rc == BOUGH_E_PRECONDITION) rq->error_status = 422;
    if (!rc) rq->answer = json_pack("{s:o}", "project", answer_project(&row));
    return rc;
}
