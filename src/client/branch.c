/* Branches. See include/bough/branch.h. */
#include "bough/branch.h"

#include <stdbool.h>
#include <string.h>

#include "client/box.h"
#include "client/branch.h"
#include "client/find.h"
#include "client/request.h"
#include "util/error.h"

static void fill_brief(void *item, void *box, const json_t *object) {
    bough_branch *b = item;
    (void)box;
    b->id = bough_json_text(object, "id");
    b->name = bough_json_text(object, "name");
    b->project_id = bough_json_text(object, "project_id");
    b->parent_id = bough_json_text(object, "parent_id");
    b->parent_name = bough_json_text(object, "parent_name");
    b->state = bough_json_text(object, "current_state");
    if (!*b->state) b->state = bough_json_text(object, "state");
    b->created_at = bough_json_text(object, "created_at");
    b->own_bytes = bough_json_count(object, "own_bytes");
    b->history_bytes = bough_json_count(object, "history_bytes");
    b->history_begins_at = bough_json_text(object, "history_begins_at");
    b->shared_bytes = bough_json_count(object, "shared_bytes");
    b->depth = bough_json_int(object, "depth");
    b->is_default = json_is_true(json_object_get(object, "default"));
    b->is_protected = json_is_true(json_object_get(object, "protected"));
    b->json = "";
    b->expires_at = bough_json_text(object, "expires_at");
    b->expiry_state = bough_json_text(object, "expiry_state");
    b->expires_in_seconds = (int64_t)bough_json_count(object, "expires_in_seconds");
    b->expiry_cascades = strcmp(bough_json_text(object, "expiry_mode"), "cascade") == 0;
    b->expiry_warning = json_is_true(json_object_get(object, "expiry_warning"));
    b->deleted_at = bough_json_text(object, "deleted_at");
    b->recoverable_seconds = (int64_t)bough_json_count(object, "recoverable_seconds");
}

static void fill(void *item, void *box, const json_t *object) {
    fill_brief(item, box, object);
    ((bough_branch *)item)->json = bough_box_text(box, object);
}

/* A box of its own for one object, part of `object`'s answer. */
int bough_branch_boxed(bough_branch **branch, json_t *object, bough_error *err) {
    *branch = NULL;
    if (!json_is_object(object))
        return bough_fail(err, BOUGH_E_INTERNAL, "the server's answer lacks \"branch\"");
    *branch = bough_box_new(sizeof **branch, object);
    if (!*branch) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    fill(*branch, *branch, object);
    return BOUGH_OK;
}

int bough_branch_listed(bough_branch_list **list, json_t *array, bough_error *err) {
    *list = bough_box_list_new(array, array, sizeof(bough_branch), fill);
    return *list ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

/* POST .../branches; members that were not given are left out. NULL where a text is no UTF-8. */
static json_t *body_of(const bough_branch_options *o) {
    const char *kind = o->moment && strchr(o->moment, '/') ? "parent_lsn" : "parent_timestamp";
    json_t *branch = bough_json_put(json_object(), "name", o->name);
    branch = bough_json_put(branch, "parent_id", o->parent);
    branch = bough_json_put(branch, kind, o->moment);
    bool ok = branch && bough_branch_pack_expiry(branch, &o->expiry);
    if (ok && o->is_look) ok = json_object_set_new(branch, "look", json_true()) == 0;
    if (ok && o->is_schema_only)
        ok = json_object_set_new(branch, "init_source", json_string("schema-only")) == 0;
    if (ok && o->is_protected) ok = json_object_set_new(branch, "protected", json_true()) == 0;
    json_t *body =
        ok ? json_pack("{s:O,s:[{s:s}]}", "branch", branch, "endpoints", "type", "read_write")
           : NULL;
    json_decref(branch);
    return body;
}

int bough_branch_create(bough_branch_created **created, bough_client *client, const char *project,
                        const char *name, const char *parent, bough_error *err) {
    bough_branch_options options = {.version = 1, .name = name, .parent = parent};
    return bough_branch_create_with(created, client, project, &options, err);
}

int bough_branch_create_with(bough_branch_created **created, bough_client *client,
                             const char *project, const bough_branch_options *options,
                             bough_error *err) {
    *created = NULL;
    if (options->version != 1)
        return bough_fail(err, BOUGH_E_INVALID, "unknown version of bough_branch_options: %u",
                          options->version);
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches?if_exists=return",
                                project);
    if (rc) return rc;
    json_t *answer = NULL;
    json_t *body = body_of(options);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    bough_request request = {.method = "POST", .path = path, .body = body};
    rc = bough_request_send(&answer, client, &request, err);
    json_decref(body);
    if (rc) return rc;
    bough_branch *branch = NULL;
    bough_branch_created *c = NULL;
    rc = bough_branch_boxed(&branch, json_object_get(answer, "branch"), err);
    if (!rc && !(c = bough_box_new(sizeof *c, answer)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (c) {
        const json_t *timings = json_object_get(answer, "timings_ms");
        c->branch = branch;
        c->connection_uri = bough_json_uri(answer);
        c->checkpoint_ms = bough_json_number(timings, "checkpoint");
        c->gate_ms = bough_json_number(timings, "gate");
        c->seal_ms = bough_json_number(timings, "seal");
        c->create_ms = bough_json_number(timings, "create");
        c->start_ms = bough_json_number(timings, "start");
        c->ready_ms = bough_json_number(timings, "ready");
        c->total_ms = bough_json_number(timings, "total");
        c->existing = json_is_true(json_object_get(answer, "existing"));
        c->json = bough_box_text(c, answer);
    } else {
        bough_box_free(branch);
    }
    json_decref(answer);
    *created = c;
    return rc;
}

void bough_branch_created_free(bough_branch_created *created) {
    if (!created) return;
    bough_branch *branch;
    memcpy(&branch, &created->branch, sizeof branch); /* ours: const for the caller only */
    bough_box_free(branch);
    bough_box_free(created);
}

/* All of a project's branches as the server's array. */
static int read_all(json_t **all, bough_client *client, const char *project, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches", project);
    return rc ? rc : bough_find_pages(all, client, path, "branches", 0, err);
}

int bough_branch_get_all(bough_branch_list **list, bough_client *client, const char *project,
                         bough_error *err) {
    *list = NULL;
    json_t *all = NULL;
    int rc = read_all(&all, client, project, err);
    if (rc) return rc;
    rc = bough_branch_listed(list, all, err);
    json_decref(all);
    return rc;
}

int bough_branch_get_brief(bough_branch_list **list, bough_client *client, const char *project,
                           bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *all = NULL;
    *list = NULL;
    int rc =
        bough_request_path(path, sizeof path, err, "/projects/%s/branches?brief=true", project);
    if (!rc) rc = bough_find_pages(&all, client, path, "branches", 0, err);
    if (rc) return rc;
    *list = bough_box_list_new(all, all, sizeof(bough_branch), fill_brief);
    json_decref(all);
    return *list ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

void bough_branch_list_free(bough_branch_list *list) {
    bough_box_free(list);
}

static int find_default(json_t **found, const json_t *all, bough_error *err) {
    for (size_t i = 0; i < json_array_size(all); i++) {
        *found = json_array_get(all, i);
        if (json_is_true(json_object_get(*found, "default"))) return BOUGH_OK;
    }
    *found = NULL;
    int rc = bough_fail(err, BOUGH_E_NOTFOUND, "the project has no default branch");
    (void)bough_hint(err, "Name a branch; see `bough branch list`.");
    return rc;
}

/* Those in whose name or id it is found. */
static int search(json_t **some, bough_client *client, const char *project, const char *text,
                  bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches?search=%s", project,
                                text);
    return rc ? rc : bough_find_pages(some, client, path, "branches", 0, err);
}

int bough_branch_find(bough_branch **branch, bough_client *client, const char *project,
                      const char *name, bough_error *err) {
    *branch = NULL;
    json_t *all = NULL, *found = NULL;
    int rc = name ? search(&all, client, project, name, err) : BOUGH_OK;
    if (!rc && name && bough_find_named(&found, all, "branch", name, NULL) != BOUGH_OK) {
        json_decref(all); /* the nearest may have another spelling */
        all = NULL;
    }
    if (!rc && !all) {
        rc = read_all(&all, client, project, err);
        if (!rc)
            rc = name ? bough_find_named(&found, all, "branch", name, err)
                      : find_default(&found, all, err);
    }
    if (!rc) rc = bough_branch_boxed(branch, found, err);
    json_decref(all);
    return rc;
}

void bough_branch_free(bough_branch *branch) {
    bough_box_free(branch);
}

int bough_branch_restore(bough_branch **restored, bough_client *client, const char *project,
                         const char *id, const bough_restore_options *options, bough_error *err) {
    *restored = NULL;
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc =
        bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s/restore", project, id);
    if (rc) return rc;
    const char *kind =
        options->moment && strchr(options->moment, '/') ? "source_lsn" : "source_timestamp";
    json_t *answer = NULL;
    json_t *body = bough_json_put(json_object(), "source_branch_id", options->source);
    body = bough_json_put(body, kind, options->moment);
    body = bough_json_put(body, "preserve_under_name", options->preserve_under_name);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    bough_request request = {.method = "POST", .path = path, .body = body};
    rc = bough_request_send(&answer, client, &request, err);
    if (!rc) rc = bough_branch_boxed(restored, json_object_get(answer, "branch"), err);
    json_decref(answer);
    json_decref(body);
    return rc;
}

int bough_branch_rename(bough_branch **renamed, bough_client *client, const char *project,
                        const char *id, const char *name, bough_error *err) {
    *renamed = NULL;
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s", project, id);
    if (rc) return rc;
    json_t *answer = NULL, *body = json_pack("{s:{s:s}}", "branch", "name", name);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    bough_request request = {.method = "PATCH", .path = path, .body = body};
    rc = bough_request_send(&answer, client, &request, err);
    if (!rc) rc = bough_branch_boxed(renamed, json_object_get(answer, "branch"), err);
    json_decref(answer);
    json_decref(body);
    return rc;
}

int bough_branch_export(bough_client *client, const char *project, const char *id,
                        const char *directory, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc =
        bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s/export", project, id);
    if (rc) return rc;
    json_t *answer = NULL, *body = json_pack("{s:s}", "path", directory);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID,
                          "the directory's name is not valid UTF-8, or memory ran out");
    bough_request request = {.method = "POST", .path = path, .body = body, .is_long = true};
    rc = bough_request_send(&answer, client, &request, err);
    json_decref(answer);
    json_decref(body);
    return rc;
}
