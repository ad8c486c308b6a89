/* Branches. See include/bough/branch.h. */
#include "bough/branch.h"

#include <stdbool.h>
#include <string.h>

#include "client/box.h"
#include "client/find.h"
#include "client/request.h"
#include "util/error.h"

static void fill(void *item, void *box, const json_t *object) {
    bough_branch *b = item;
    b->id = bough_json_text(object, "id");
    b->name = bough_json_text(object, "name");
    b->project_id = bough_json_text(object, "project_id");
    b->parent_id = bough_json_text(object, "parent_id");
    b->parent_name = bough_json_text(object, "parent_name");
    b->state = bough_json_text(object, "current_state");
    if (!*b->state) b->state = bough_json_text(object, "state");
    b->created_at = bough_json_text(object, "created_at");
    b->own_bytes = bough_json_count(object, "own_bytes");
    b->shared_bytes = bough_json_count(object, "shared_bytes");
    b->depth = bough_json_int(object, "depth");
    b->is_default = json_is_true(json_object_get(object, "default"));
    b->is_protected = json_is_true(json_object_get(object, "protected"));
    b->json = bough_box_text(box, object);
}

/* A box of its own for one object, part of `object`'s answer. */
static int boxed(bough_branch **branch, json_t *object, bough_error *err) {
    *branch = NULL;
    if (!json_is_object(object))
        return bough_fail(err, BOUGH_E_INTERNAL, "the server's answer lacks \"branch\"");
    *branch = bough_box_new(sizeof **branch, object);
    if (!*branch) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    fill(*branch, *branch, object);
    return BOUGH_OK;
}

int bough_branch_create(bough_branch_created **created, bough_client *client, const char *project,
                        const char *name, const char *parent, const char *moment,
                        bough_error *err) {
    *created = NULL;
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches?if_exists=return",
                                project);
    if (rc) return rc;
    json_t *answer = NULL;
    const char *kind = moment && strchr(moment, '/') ? "parent_lsn" : "parent_timestamp";
    json_t *body = json_pack("{s:{s:s,s:s*,s:s*},s:[{s:s}]}", "branch", "name", name, "parent_id",
                             parent, kind, moment, "endpoints", "type", "read_write");
    if (!body) return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8");
    bough_request request = {.method = "POST", .path = path, .body = body};
    rc = bough_request_send(&answer, client, &request, err);
    json_decref(body);
    if (rc) return rc;
    bough_branch *branch = NULL;
    bough_branch_created *c = NULL;
    rc = boxed(&branch, json_object_get(answer, "branch"), err);
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
    *list = bough_box_list_new(all, all, sizeof(bough_branch), fill);
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

int bough_branch_find(bough_branch **branch, bough_client *client, const char *project,
                      const char *name, bough_error *err) {
    *branch = NULL;
    json_t *all = NULL, *found = NULL;
    int rc = read_all(&all, client, project, err);
    if (!rc)
        rc = name ? bough_find_named(&found, all, "branch", name, err)
                  : find_default(&found, all, err);
    if (!rc) rc = boxed(branch, found, err);
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
    json_t *body = json_pack("{s:s,s:s*,s:s*}", "source_branch_id", options->source, kind,
                             options->moment, "preserve_under_name", options->preserve_under_name);
    if (!body) return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8");
    bough_request request = {.method = "POST", .path = path, .body = body};
    rc = bough_request_send(&answer, client, &request, err);
    if (!rc) rc = boxed(restored, json_object_get(answer, "branch"), err);
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
    if (!body) return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8");
    bough_request request = {.method = "PATCH", .path = path, .body = body};
    rc = bough_request_send(&answer, client, &request, err);
    if (!rc) rc = boxed(renamed, json_object_get(answer, "branch"), err);
    json_decref(answer);
    json_decref(body);
    return rc;
}

int bough_branch_delete(bough_client *client, const char *project, const char *id,
                        bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s", project, id);
    bough_request request = {.method = "DELETE", .path = path};
    if (!rc) rc = bough_request_send(&answer, client, &request, err);
    json_decref(answer);
    return rc;
}

int bough_branch_export(bough_client *client, const char *project, const char *id,
                        const char *directory, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc =
        bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s/export", project, id);
    if (rc) return rc;
    json_t *answer = NULL, *body = json_pack("{s:s}", "path", directory);
    if (!body) return bough_fail(err, BOUGH_E_INVALID, "the directory's name is not valid UTF-8");
    bough_request request = {.method = "POST", .path = path, .body = body, .is_long = true};
    rc = bough_request_send(&answer, client, &request, err);
    json_decref(answer);
    json_decref(body);
    return rc;
}
