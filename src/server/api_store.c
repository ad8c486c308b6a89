/* Handlers: whose the store's bytes are, what of them is needless, and letting that go now. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/snapshots.h"
#include "server/api.h"
#include "server/body.h"
#include "server/history.h"
#include "store/census.h"

/* A branch of the catalogue with what its project says; or the fork of an endpoint that only reads,
 * under the endpoint's id and its branch's name. */
typedef struct known {
    bough_branch_row row;
    int64_t keep_from_ms;
    bool is_fork;
} known;

typedef struct catalogue_view {
    known *list; /* by id */
    size_t n;
} catalogue_view;

static int by_id(const void *a, const void *b) {
    return strcmp(((const known *)a)->row.id, ((const known *)b)->row.id);
}

static int add_forks(catalogue_view *view, const bough_endpoint_row *rows, size_t n) {
    known *more = realloc(view->list, (view->n + n + 1) * sizeof *more);
    if (!more) return -1;
    view->list = more;
    size_t n_branches = view->n;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; rows[i].is_read_only && k < n_branches; k++)
            if (strcmp(more[k].row.id, rows[i].branch_id) == 0) {
                known *fork = &more[view->n++];
                *fork = (known){.row = more[k].row, .keep_from_ms = INT64_MIN, .is_fork = true};
                memcpy(fork->row.id, rows[i].id, sizeof fork->row.id);
                break;
            }
    return 0;
}

static int view_new(catalogue_view *view, server *srv, bough_error *err) {
    bough_branch_row *rows = NULL;
    bough_project_row project = {0};
    size_t n = 0;
    int rc = bough_branches_list(&rows, &n, srv->cat, NULL, err);
    if (!rc && !(view->list = calloc(n + 1, sizeof *view->list)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < n; i++) {
        known *k = &view->list[view->n++];
        *k = (known){.row = rows[i], .keep_from_ms = INT64_MIN};
        if (strcmp(project.id, rows[i].project_id) == 0 ||
            bough_projects_get(&project, srv->cat, rows[i].project_id, NULL) == BOUGH_OK)
            k->keep_from_ms = history_keep_from(srv, &project);
        bough_snapshot_row snapshot;
        if (k->row.is_snapshot && bough_snapshots_get(&snapshot, srv->cat, k->row.project_id,
                                                      k->row.id, NULL) == BOUGH_OK)
            (void)snprintf(k->row.name, sizeof k->row.name, "%s", snapshot.name);
    }
    free(rows);
    bough_endpoint_row *endpoints = NULL;
    if (!rc) rc = bough_endpoints_list(&endpoints, &n, srv->cat, NULL, err);
    if (!rc && add_forks(view, endpoints, n) != 0)
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    free(endpoints);
    if (!rc && view->n > 1) qsort(view->list, view->n, sizeof *view->list, by_id);
    return rc;
}

static const known *find(const catalogue_view *view, const char *id) {
    for (size_t low = 0, high = view->n; low < high;) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(id, view->list[middle].row.id);
        if (order == 0) return &view->list[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static int64_t keep_from(void *context, const char *branch) {
    const known *k = find(context, branch);
    return k ? k->keep_from_ms : INT64_MIN;
}

/* ---- answers ---- */

/* Which branch it is, as every object here begins. */
static json_t *identity(const catalogue_view *view, const char *id) {
    const known *k = find(view, id);
    if (!k) { /* flow_project.c's, from which empty projects are made */
        bool is_template = strncmp(id, "pg", 2) == 0 && !strchr(id, '~');
        return json_pack("{s:s,s:s,s:s}", "branch_id", id, "kind",
                         is_template ? "template" : "unfinished", "name", id);
    }
    return json_pack("{s:s,s:s,s:s,s:s}", "branch_id", id, "kind",
                     k->is_fork           ? "read_only"
                     : k->row.is_snapshot ? "snapshot"
                     : k->row.deleted_ms  ? "deleted"
                                          : "branch",
                     "name", k->row.name, "project_id", k->row.project_id);
}

/* Takes the reference; false when memory ran out. */
static bool append(json_t *array, json_t *item) {
    return item && json_array_append_new(array, item) == 0;
}

static json_t *with(json_t *object, json_t *more) {
    if (!object || !more || json_object_update(object, more) != 0) {
        json_decref(object);
        object = NULL;
    }
    json_decref(more);
    return object;
}

static json_t *usage_answer(const bough_census *c, const catalogue_view *view) {
    json_t *branches = json_array();
    uint64_t own = 0, history = 0;
    bool ok = branches != NULL;
    for (size_t i = 0; ok && i < c->n_branches; i++) {
        const bough_census_branch *b = &c->branches[i];
        own += b->own_bytes;
        history += b->history_bytes;
        ok = append(branches, with(identity(view, b->id),
                                   json_pack("{s:I,s:I}", "own_bytes", (json_int_t)b->own_bytes,
                                             "history_bytes", (json_int_t)b->history_bytes)));
    }
    json_t *answer =
        ok ? json_pack("{s:O,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "branches", branches, "own_bytes",
                       (json_int_t)own, "history_bytes", (json_int_t)history, "shared_bytes",
                       (json_int_t)c->shared_bytes, "needless_bytes", (json_int_t)c->needless_bytes,
                       "trash_bytes", (json_int_t)c->trash_bytes, "other_bytes",
                       (json_int_t)c->other_bytes, "total_bytes", (json_int_t)c->total_bytes)
           : NULL;
    json_decref(branches);
    return answer;
}

static json_t *layer_answer(const bough_census *c, const bough_census_layer *layer,
                            const catalogue_view *view) {
    json_t *names = json_array();
    bool ok = names != NULL;
    for (size_t i = 0; ok && i < layer->n_namings; i++) {
        const bough_naming *n = &layer->namings[i];
        ok = append(names,
                    with(identity(view, c->branches[n->branch].id),
                         json_pack("{s:b,s:i,s:i}", "stands_on_it", n->is_below, "restore_points",
                                   (int)n->points, "old_restore_points", (int)n->going)));
    }
    json_t *answer = ok ? json_pack("{s:s,s:I,s:b,s:I,s:O}", "layer", layer->dir, "bytes",
                                    (json_int_t)layer->bytes, "goes", layer->goes, "stands_for",
                                    (json_int_t)layer->stands_for, "named_by", names)
                        : NULL;
    json_decref(names);
    return answer;
}

static json_t *explain_answer(const bough_census *c, const catalogue_view *view) {
    json_t *layers = json_array(), *history = json_array();
    uint64_t wal = 0;
    bool ok = layers && history;
    for (size_t i = 0; ok && i < c->n_layers; i++)
        ok = append(layers, layer_answer(c, &c->layers[i], view));
    for (size_t i = 0; ok && i < c->n_branches; i++) {
        const bough_census_branch *b = &c->branches[i];
        wal += b->going_wal_bytes;
        if (b->points)
            ok = append(history, with(identity(view, b->id),
                                      json_pack("{s:i,s:i,s:I}", "restore_points", (int)b->points,
                                                "old_restore_points", (int)b->going_points,
                                                "old_wal_bytes", (json_int_t)b->going_wal_bytes)));
    }
    json_t *answer = ok ? json_pack("{s:O,s:O,s:I,s:I,s:I}", "layers", layers, "history", history,
                                    "layer_bytes", (json_int_t)c->needless_bytes, "history_bytes",
                                    (json_int_t)wal, "trash_bytes", (json_int_t)c->trash_bytes)
                        : NULL;
    json_decref(layers);
    json_decref(history);
    return answer;
}

/* ---- handlers ---- */

static int take(bough_census **census, catalogue_view *view, request *rq, bool plans,
                bough_error *err) {
    int rc = view_new(view, rq->srv, err);
    return rc ? rc : bough_census_take(census, rq->srv->store, plans ? keep_from : NULL, view, err);
}

int api_store_usage(request *rq, bough_error *err) {
    catalogue_view view = {0};
    bough_census *census = NULL;
    int rc = take(&census, &view, rq, false, err);
    if (!rc) rq->answer = usage_answer(census, &view);
    bough_census_free(census);
    free(view.list);
    return rc;
}

int api_store_explain(request *rq, bough_error *err) {
    catalogue_view view = {0};
    bough_census *census = NULL;
    int rc = take(&census, &view, rq, true, err);
    if (!rc) rq->answer = explain_answer(census, &view);
    bough_census_free(census);
    free(view.list);
    return rc;
}

static size_t count_going(const bough_census *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_layers; i++) n += c->layers[i].goes;
    return n;
}

static size_t count_old_points(const bough_census *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_branches; i++) n += c->branches[i].going_points;
    return n;
}

int api_store_collect(request *rq, bough_error *err) {
    static const char *const members[] = {NULL};
    server *srv = rq->srv;
    catalogue_view view = {0};
    bough_census *before = NULL, *after = NULL;
    unsigned busy = 0;
    int rc = body_check(rq->body, "", members, err);
    if (!rc) rc = take(&before, &view, rq, true, err);
    if (!rc) {
        busy = history_forget(srv);
        rc = bough_store_collect_all(srv->store, err);
    }
    if (!rc) rc = bough_store_purge(srv->store, err);
    if (!rc) rc = bough_census_take(&after, srv->store, keep_from, &view, err);
    if (!rc) {
        size_t layers = count_going(before), left = count_going(after);
        size_t points = count_old_points(before), points_left = count_old_points(after);
        rq->answer = json_pack("{s:I,s:I,s:I,s:I,s:i}", "layers",
                               (json_int_t)(layers > left ? layers - left : 0), "restore_points",
                               (json_int_t)(points > points_left ? points - points_left : 0),
                               "bytes_before", (json_int_t)before->total_bytes, "bytes_after",
                               (json_int_t)after->total_bytes, "busy_branches", (int)busy);
    }
    bough_census_free(before);
    bough_census_free(after);
    free(view.list);
    return rc;
}
