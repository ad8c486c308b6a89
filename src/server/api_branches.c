/* Handlers: branches. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "model/ids.h"
#include "model/rules.h"
#include "server/access.h"
#include "server/answer.h"
#include "server/api.h"
#include "server/body.h"
#include "server/computes.h"
#include "server/flow_restore.h"
#include "server/flows.h"
#include "server/lifecycle.h"
#include "server/listed.h"
#include "server/pages.h"
#include "util/jsontext.h"

/* ---- annotations ---- */

enum { ANNOTATION_KEYS_MAX = 50 };

/* {branch id: annotation} of a project, or of one branch with `branch`. */
static int annotations_of(json_t **map, const request *rq, const char *project, const char *branch,
                          bough_error *err) {
    bough_annotation_row *rows;
    size_t n;
    char when[40];
    int rc = bough_annotations_list(&rows, &n, rq->srv->cat, project, branch, err);
    if (rc) return rc;
    *map = json_object();
    for (size_t i = 0; i < n; i++) {
        if (!access_sees_branch(rq, rows[i].branch_id)) continue;
        answer_time(when, sizeof when, rows[i].created_ms);
        json_t *value = bough_json_load(rows[i].value, strlen(rows[i].value), 0, NULL);
        answer_set(*map, rows[i].branch_id,
                   json_pack("{s:o,s:{s:s,s:s},s:s,s:s}", "value", value, "object", "type",
                             "console/branch", "id", rows[i].branch_id, "created_at", when,
                             "updated_at", when));
    }
    free(rows);
    return BOUGH_OK;
}

/* `*text` is to be freed; NULL where there is none. */
static int read_annotation(char **text, const request *rq, bough_error *err) {
    json_t *value = json_object_get(rq->body, "annotation_value");
    *text = NULL;
    if (!value || json_is_null(value)) return BOUGH_OK;
    if (!json_is_object(value) || json_object_size(value) > ANNOTATION_KEYS_MAX)
        return bough_fail(err, BOUGH_E_INVALID,
                          "\"annotation_value\" must be an object of at most %d strings",
                          ANNOTATION_KEYS_MAX);
    if (json_object_size(value) == 0) return BOUGH_OK;
    for (void *at = json_object_iter(value); at; at = json_object_iter_next(value, at))
        if (!json_is_string(json_object_iter_value(at)))
            return bough_fail(err, BOUGH_E_INVALID, "\"annotation_value.%.100s\" must be a string",
                              json_object_iter_key(at));
    *text = bough_json_text_of(value, JSON_COMPACT | JSON_SORT_KEYS);
    if (!*text) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (strlen(*text) < BOUGH_ANNOTATION_SIZE) return BOUGH_OK;
    free(*text);
    *text = NULL;
    return bough_fail(err, BOUGH_E_INVALID, "\"annotation_value\" is longer than %d bytes",
                      BOUGH_ANNOTATION_SIZE - 1);
}

/* ---- listing ---- */

/* Keep those whose name or id holds the text that is searched for, and that the key may see. */
static size_t filter(bough_branch_row *rows, size_t n, const request *rq) {
    const char *search = request_query(rq, "search");
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!rows[i].is_snapshot && access_sees_branch(rq, rows[i].id) &&
            (!search || strcasestr(rows[i].name, search) || strstr(rows[i].id, search)))
            rows[kept++] = rows[i];
    return kept;
}

/* As text at once: a tree of a thousand branches would be megabytes. `next`: the cursor of the
 * next page; NULL on the last: clients go on while it is there. */
static int write_list(request *rq, const bough_project_row *project, const bough_branch_row *rows,
                      size_t n, const json_t *annotations, const char *next, bool is_brief,
                      bough_error *err) {
    static const char head[] = "{\"branches\":[",
                      middle[] = "],\"annotations\":", tail[] = ",\"pagination\":";
    const char *by = request_query(rq, "sort_by"), *order = request_query(rq, "sort_order");
    bough_json_buffer out = {0};
    json_t *pagination = json_pack("{s:s*,s:s,s:s}", "next", next, "sort_by",
                                   by ? by : "updated_at", "sort_order", order ? order : "desc");
    bough_json_add(&out, head, sizeof head - 1);
    for (size_t i = 0; i < n && !out.failed; i++) {
        if (i) bough_json_add(&out, ",", 1);
        listed_add(&out, rq->srv, &rows[i], project, is_brief);
    }
    bough_json_add(&out, middle, sizeof middle - 1);
    bough_json_add_value(&out, annotations, JSON_COMPACT);
    bough_json_add(&out, tail, sizeof tail - 1);
    bough_json_add_value(&out, pagination, JSON_COMPACT);
    bough_json_add(&out, "}\n", 2);
    json_decref(pagination);
    rq->text = bough_json_take(&out, &rq->text_size);
    return rq->text ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

int api_branch_list(request *rq, bough_error *err) {
    bough_project_row project;
    bough_branch_row *rows = NULL;
    size_t n = 0, first = 0;
    long long limit;
    pages_order order;
    char next[PAGES_CURSOR_SIZE];
    bool with_deleted, is_brief;
    json_t *annotations = NULL;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = api_query_bool(&with_deleted, rq, "include_deleted", err);
    if (!rc) rc = api_query_bool(&is_brief, rq, "brief", err);
    if (!rc) rc = api_query_int(&limit, rq, "limit", 0, 1, 10000, err);
    if (!rc) rc = pages_order_of(&order, rq, err);
    if (!rc)
        rc = (with_deleted ? bough_branches_list
                           : bough_branches_list_live)(&rows, &n, rq->srv->cat, project.id, err);
    if (!rc) n = filter(rows, n, rq);
    if (!rc) rc = pages_sort_branches(&first, rows, n, &order, request_query(rq, "cursor"), err);
    if (!rc) rc = annotations_of(&annotations, rq, project.id, NULL, err);
    if (rc) {
        free(rows);
        return rc;
    }
    size_t last = limit && first + (size_t)limit < n ? first + (size_t)limit : n;
    if (last < n) pages_write_branch(next, &order, &rows[last - 1]);
    rc = write_list(rq, &project, rows + first, last - first, annotations, last < n ? next : NULL,
                    is_brief, err);
    json_decref(annotations);
    free(rows);
    return rc;
}

int api_branch_count(request *rq, bough_error *err) {
    bough_project_row project;
    bough_branch_row *rows = NULL;
    size_t n = 0;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = bough_branches_list_live(&rows, &n, rq->srv->cat, project.id, err);
    if (!rc) n = filter(rows, n, rq);
    if (!rc) rq->answer = json_pack("{s:I}", "count", (json_int_t)n);
    free(rows);
    return rc;
}

int api_branch_get(request *rq, bough_error *err) {
    bough_branch_row row;
    json_t *map = NULL;
    int rc = api_branch_of(&row, rq, err);
    if (!rc) rc = annotations_of(&map, rq, row.project_id, row.id, err);
    if (rc) return rc;
    json_t *annotation = json_object_get(map, row.id);
    annotation = annotation ? json_incref(annotation)
                            : json_pack("{s:{},s:{s:s,s:s}}", "value", "object", "type",
                                        "console/branch", "id", row.id);
    rq->answer = json_pack("{s:o,s:o}", "branch", answer_branch(rq->srv, &row, false), "annotation",
                           annotation);
    json_decref(map);
    return BOUGH_OK;
}

/* ---- creating ---- */

/* A moment of the past is another matter; so are branches without data. */
static int check_branch_fields(json_t *branch, bough_error *err) {
    static const char *const known[] = {"name",
                                        "parent_id",
                                        "parent_lsn",
                                        "parent_timestamp",
                                        "init_source",
                                        "expires_at",
                                        "ttl_interval_seconds",
                                        "expiry_mode",
                                        "protected",
                                        "archived",
                                        "look",
                                        NULL};
    const char *init = NULL;
    int rc = body_check(branch, "branch", known, err);
    if (!rc) rc = body_refuse(branch, "archived", "archived branches are not supported", err);
    if (!rc) rc = body_text(&init, branch, "init_source", err);
    if (!rc && init && strcmp(init, "parent-data") != 0 && strcmp(init, "schema-only") != 0)
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED,
                        "\"init_source\" can only be \"parent-data\" or \"schema-only\"");
    return rc;
}

/* Endpoints that only read: they are made when the branch is there. */
typedef struct readers {
    bough_endpoint_row rows[BOUGH_READ_ONLY_MOST];
    size_t n;
} readers;

static int read_endpoint(bough_endpoint_row *row, const json_t *one, const request *rq,
                         const bough_project_row *project, bough_error *err) {
    static const char *const known[] = {"type",
                                        "autoscaling_limit_min_cu",
                                        "autoscaling_limit_max_cu",
                                        "suspend_timeout_seconds",
                                        "provisioner",
                                        "settings",
                                        NULL};
    long long seconds = 0;
    *row = (bough_endpoint_row){.least_quarters = project->endpoints.least_quarters,
                                .most_quarters = project->endpoints.most_quarters};
    if (!json_is_object(one))
        return bough_fail(err, BOUGH_E_INVALID, "an endpoint must be an object");
    int rc = body_check(one, "endpoints", known, err);
    if (!rc) rc = api_read_type(&row->is_read_only, one, err);
    if (!rc)
        rc = body_refuse(one, "settings", "settings of an endpoint are not supported yet", err);
    if (!rc) {
        /* a look is not to stay awake because the project's endpoints do */
        const json_t *branch = json_object_get(rq->body, "branch");
        bool is_look = json_is_true(json_object_get(branch, "look"));
        rc = body_int(&seconds, one, "suspend_timeout_seconds",
                      is_look ? 0 : project->endpoints.suspend_timeout_seconds, err);
    }
    if (!rc) rc = bough_rule_suspend_timeout(seconds, rq->srv->least_suspend_seconds, err);
    if (!rc) rc = api_read_size(&row->least_quarters, &row->most_quarters, one, err);
    row->suspend_timeout_seconds = (int)seconds;
    return rc;
}

/* At most one that writes. */
static int read_endpoints(branch_wish *wish, readers *r, const request *rq,
                          const bough_project_row *project, bough_error *err) {
    const json_t *endpoints = json_object_get(rq->body, "endpoints");
    if (!endpoints || json_is_null(endpoints)) return BOUGH_OK;
    if (!json_is_array(endpoints))
        return bough_fail(err, BOUGH_E_INVALID, "\"endpoints\" must be an array");
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < json_array_size(endpoints); i++) {
        bough_endpoint_row row;
        rc = read_endpoint(&row, json_array_get(endpoints, i), rq, project, err);
        if (!rc && row.is_read_only && r->n < BOUGH_READ_ONLY_MOST) {
            r->rows[r->n++] = row;
        } else if (!rc && row.is_read_only) {
            rc = bough_fail(err, BOUGH_E_INVALID, "a branch has at most %d read-only endpoints",
                            BOUGH_READ_ONLY_MOST);
        } else if (!rc && wish->with_endpoint) {
            rc = bough_fail(err, BOUGH_E_UNSUPPORTED, "a branch has one read_write endpoint");
        } else if (!rc) {
            wish->with_endpoint = true;
            wish->least_quarters = row.least_quarters;
            wish->most_quarters = row.most_quarters;
            wish->suspend_timeout_seconds = row.suspend_timeout_seconds;
        }
    }
    return rc;
}

/* One endpoint that only reads, and what the answer says of it. */
static int add_reader(request *rq, const bough_branch_row *branch, bough_endpoint_row *row,
                      bough_error *err) {
    json_t *operations = NULL, *uris = NULL;
    int rc = api_endpoint_make(row, rq, branch, err);
    if (!rc)
        rc = api_record(&operations, rq, "start_compute", branch->project_id, branch->id, row->id,
                        err);
    if (!rc && !json_object_get(rq->answer, "connection_uris"))
        rc = answer_connections(&uris, rq->srv, branch->id, row->id, err);
    if (!rc && (json_array_append_new(json_object_get(rq->answer, "endpoints"),
                                      answer_endpoint(rq->srv, row)) != 0 ||
                json_array_extend(json_object_get(rq->answer, "operations"), operations) != 0 ||
                (uris && json_object_set(rq->answer, "connection_uris", uris) != 0)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    json_decref(operations);
    json_decref(uris);
    return rc;
}

/* The branch has just been made: without all that was asked for, it goes again. */
static int add_readers(request *rq, const bough_project_row *project, readers *r,
                       bough_error *err) {
    bough_branch_row branch;
    char id[BOUGH_ID_SIZE];
    if (!r->n || json_is_true(json_object_get(rq->answer, "existing"))) return BOUGH_OK;
    const char *made =
        json_string_value(json_object_get(json_object_get(rq->answer, "branch"), "id"));
    if (!made) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    (void)snprintf(id, sizeof id, "%s", made);
    int rc = bough_branches_get(&branch, rq->srv->cat, project->id, id, err);
    for (size_t i = 0; !rc && i < r->n; i++) rc = add_reader(rq, &branch, &r->rows[i], err);
    if (!rc) return BOUGH_OK;
    flow_branch_undo(rq->srv, project->id, id);
    json_decref(rq->answer);
    rq->answer = NULL;
    return rc;
}

static int read_wish(branch_wish *wish, request *rq, json_t *branch, const char *project,
                     char *default_parent, bough_error *err) {
    const char *if_exists = request_query(rq, "if_exists");
    bough_branch_row row;
    if (if_exists && strcmp(if_exists, "return") != 0)
        return bough_fail(err, BOUGH_E_INVALID, "\"if_exists\" can only be \"return\"");
    wish->if_exists_return = if_exists != NULL;
    int rc = body_text(&wish->name, branch, "name", err);
    if (!rc) rc = body_text(&wish->parent, branch, "parent_id", err);
    if (!rc && wish->name) rc = bough_rule_name("branch", wish->name, err);
    if (!rc && !wish->parent) {
        rc = bough_branches_get_default(&row, rq->srv->cat, project, err);
        if (!rc) memcpy(default_parent, row.id, BOUGH_ID_SIZE);
        wish->parent = default_parent;
    } else if (!rc) {
        rc = bough_branches_get(&row, rq->srv->cat, project, wish->parent, err);
    }
    return rc;
}

/* An LSN or a time, under their names. */
static int read_moment(bough_target *moment, const json_t *object, const char *lsn_name,
                       const char *time_name, bough_error *err) {
    const char *lsn = NULL, *time = NULL;
    int rc = body_text(&lsn, object, lsn_name, err);
    if (!rc) rc = body_text(&time, object, time_name, err);
    return rc ? rc : api_read_moment(moment, lsn, lsn_name, time, time_name, err);
}

/* Protection and expiry. */
static int read_life(branch_wish *wish, request *rq, const json_t *branch, bough_error *err) {
    bough_branch_row row = {0};
    clock_moment moment;
    (void)snprintf(row.name, sizeof row.name, "%s", wish->name);
    (void)snprintf(row.parent_id, sizeof row.parent_id, "%s", wish->parent);
    int rc = api_life_moment(&moment, rq, branch, row.name, err);
    if (!rc && wish->is_look) rc = bough_expiry_in(&row, BOUGH_LOOK_SECONDS, moment.latest_ms, err);
    if (!rc) rc = api_read_life(&row, rq, branch, &moment, err);
    wish->is_protected = row.is_protected;
    wish->expires_ms = row.expires_ms;
    wish->ttl_seconds = row.ttl_seconds;
    wish->expiry_cascades = row.expiry_cascades;
    return rc;
}

int api_branch_create(request *rq, bough_error *err) {
    static const char *const known[] = {"branch", "endpoints", "annotation_value", NULL};
    bough_project_row project;
    branch_wish wish = {0};
    char default_parent[BOUGH_ID_SIZE] = "", name[64], when[40], *annotation = NULL;
    json_t *branch = NULL, *keep = NULL;
    readers r = {.n = 0};
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = read_annotation(&annotation, rq, err);
    wish.annotation = annotation;
    if (!rc) rc = body_object(&branch, &keep, rq->body, "branch", err);
    if (!rc) rc = check_branch_fields(branch, err);
    if (!rc) rc = read_endpoints(&wish, &r, rq, &project, err);
    if (!rc) rc = read_wish(&wish, rq, branch, project.id, default_parent, err);
    if (!rc) rc = read_moment(&wish.moment, branch, "parent_lsn", "parent_timestamp", err);
    if (!rc) rc = body_bool(&wish.is_look, branch, "look", false, err);
    answer_time(when, sizeof when, bough_now_epoch_ms());
    (void)snprintf(name, sizeof name, "branch %s", when);
    if (!rc && wish.is_look) { /* nobody asks for it by its name */
        uint64_t random = 0;
        rc = bough_random(&random, sizeof random, err);
        (void)snprintf(name, sizeof name, "tmp-look-%016" PRIx64, random);
    }
    if (!wish.name) wish.name = name;
    if (!rc) rc = read_life(&wish, rq, branch, err);
    const char *init = json_string_value(json_object_get(branch, "init_source"));
    bool is_schema = init && strcmp(init, "schema-only") == 0;
    if (!rc && is_schema && wish.is_look)
        rc = bough_fail(err, BOUGH_E_INVALID, "a look is not of a schema alone");
    if (!rc)
        rc = (is_schema ? flow_schema_branch_create : flow_branch_create)(rq, &project, &wish, err);
    if (!rc) rc = add_readers(rq, &project, &r, err);
    free(annotation);
    json_decref(keep);
    return rc;
}

/* ---- exporting ---- */

int api_branch_export(request *rq, bough_error *err) {
    static const char *const known[] = {"path", NULL};
    bough_branch_row row;
    const char *path = NULL;
    double started_ms = bough_now_ms();
    int rc = api_branch_of(&row, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_text(&path, rq->body, "path", err);
    if (!rc && (!path || path[0] != '/'))
        rc = bough_fail(err, BOUGH_E_INVALID, "\"path\" must be an absolute path");
    if (!rc) rc = flow_branch_export(rq, &row, path, err);
    if (!rc)
        rq->answer = json_pack("{s:s,s:s,s:{s:f}}", "branch_id", row.id, "path", path, "timings_ms",
                               "total", bough_now_ms() - started_ms);
    return rc;
}

/* ---- restoring ---- */

int api_branch_restore(request *rq, bough_error *err) {
    static const char *const known[] = {"source_branch_id", "source_lsn", "source_timestamp",
                                        "preserve_under_name", NULL};
    bough_project_row project;
    bough_branch_row row;
    restore_wish wish = {0};
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = api_branch_of(&row, rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_text(&wish.source, rq->body, "source_branch_id", err);
    if (!rc && !wish.source)
        rc = bough_fail(err, BOUGH_E_INVALID, "\"source_branch_id\" is missing");
    if (!rc) rc = access_branch(rq, wish.source, err);
    if (!rc) rc = read_moment(&wish.moment, rq->body, "source_lsn", "source_timestamp", err);
    if (!rc) rc = body_text(&wish.preserve_under_name, rq->body, "preserve_under_name", err);
    if (!rc && wish.preserve_under_name)
        rc = bough_rule_name("branch", wish.preserve_under_name, err);
    return rc ? rc : flow_branch_restore(rq, &project, row.id, &wish, err);
}
