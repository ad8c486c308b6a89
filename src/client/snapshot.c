/* Snapshots. See include/bough/snapshot.h. */
#include "bough/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/box.h"
#include "client/branch.h"
#include "client/find.h"
#include "client/request.h"
#include "util/error.h"
#include "util/jsontext.h"

static void fill(void *item, void *box, const json_t *object) {
    bough_snapshot *s = item;
    s->id = bough_json_text(object, "id");
    s->name = bough_json_text(object, "name");
    s->branch_id = bough_json_text(object, "source_branch_id");
    s->branch_name = bough_json_text(object, "source_branch_name");
    s->lsn = bough_json_text(object, "lsn");
    s->moment = bough_json_text(object, "timestamp");
    s->created_at = bough_json_text(object, "created_at");
    s->expires_at = bough_json_text(object, "expires_at");
    s->frequency = bough_json_text(object, "frequency");
    s->json = bough_box_text(box, object);
    s->own_bytes = bough_json_count(object, "own_bytes");
    s->shared_bytes = bough_json_count(object, "shared_bytes");
}

static int boxed(bough_snapshot **snapshot, json_t *object, bough_error *err) {
    if (!json_is_object(object))
        return bough_fail(err, BOUGH_E_INTERNAL, "the server's answer lacks \"snapshot\"");
    *snapshot = bough_box_new(sizeof **snapshot, object);
    if (!*snapshot) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    fill(*snapshot, *snapshot, object);
    return BOUGH_OK;
}

/* Send; `answer` may be NULL. Takes the body. */
static int exchange(json_t **answer, bough_client *client, const char *method, const char *path,
                    json_t *body, bough_error *err) {
    json_t *got = NULL;
    bough_request request = {.method = method, .path = path, .body = body};
    int rc = bough_request_send(&got, client, &request, err);
    json_decref(body);
    if (answer)
        *answer = got;
    else
        json_decref(got);
    return rc;
}

int bough_snapshot_create(bough_snapshot **snapshot, bough_client *client, const char *project,
                          const char *branch, const bough_snapshot_options *options,
                          bough_error *err) {
    static const bough_snapshot_options none = {.version = 1};
    const bough_snapshot_options *o = options ? options : &none;
    char path[BOUGH_REQUEST_PATH_MAX], ttl[32] = "";
    json_t *answer = NULL;
    *snapshot = NULL;
    if (o->version != 1)
        return bough_fail(err, BOUGH_E_INVALID, "unknown version of bough_snapshot_options: %u",
                          o->version);
    bool is_lsn = o->moment && strchr(o->moment, '/');
    if (o->ttl_seconds) (void)snprintf(ttl, sizeof ttl, "%" PRId64, o->ttl_seconds);
    int rc = bough_request_path(path, sizeof path, err,
                                "/projects/%s/branches/%s/snapshot?name=%s&lsn=%s&timestamp=%s"
                                "&expires_at=%s&ttl_interval_seconds=%s",
                                project, branch, o->name ? o->name : "", is_lsn ? o->moment : "",
                                o->moment && !is_lsn ? o->moment : "",
                                o->expires_at ? o->expires_at : "", ttl);
    if (!rc) rc = exchange(&answer, client, "POST", path, NULL, err);
    if (!rc) rc = boxed(snapshot, json_object_get(answer, "snapshot"), err);
    json_decref(answer);
    return rc;
}

static int read_all(json_t **answer, json_t **all, bough_client *client, const char *project,
                    bough_error *err) {
    int rc = bough_request_get(answer, client, err, "/projects/%s/snapshots", project);
    *all = rc ? NULL : json_object_get(*answer, "snapshots");
    return rc;
}

int bough_snapshot_get_all(bough_snapshot_list **list, bough_client *client, const char *project,
                           bough_error *err) {
    json_t *answer = NULL, *all;
    *list = NULL;
    int rc = read_all(&answer, &all, client, project, err);
    if (!rc && !(*list = bough_box_list_new(answer, all, sizeof(bough_snapshot), fill)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    json_decref(answer);
    return rc;
}

int bough_snapshot_find(bough_snapshot **snapshot, bough_client *client, const char *project,
                        const char *name, bough_error *err) {
    json_t *answer = NULL, *all, *found = NULL;
    *snapshot = NULL;
    int rc = read_all(&answer, &all, client, project, err);
    if (!rc) rc = bough_find_named(&found, all, "snapshot", name, err);
    if (!rc) rc = boxed(snapshot, found, err);
    json_decref(answer);
    return rc;
}

int bough_snapshot_rename(bough_snapshot **snapshot, bough_client *client, const char *project,
                          const char *id, const char *name, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL, *body = json_pack("{s:{s:s}}", "snapshot", "name", name);
    *snapshot = NULL;
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/snapshots/%s", project, id);
    if (rc)
        json_decref(body);
    else
        rc = exchange(&answer, client, "PATCH", path, body, err);
    if (!rc) rc = boxed(snapshot, json_object_get(answer, "snapshot"), err);
    json_decref(answer);
    return rc;
}

int bough_snapshot_delete(bough_client *client, const char *project, const char *id,
                          bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/snapshots/%s", project, id);
    return rc ? rc : exchange(NULL, client, "DELETE", path, NULL, err);
}

int bough_snapshot_restore(bough_branch **branch, bough_client *client, const char *project,
                           const char *id, const bough_snapshot_restore_options *o,
                           bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL;
    *branch = NULL;
    if (o->version != 1)
        return bough_fail(err, BOUGH_E_INVALID,
                          "unknown version of bough_snapshot_restore_options: %u", o->version);
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/snapshots/%s/restore",
                                project, id);
    if (rc) return rc;
    json_t *body = json_pack("{s:b}", "finalize_restore", o->finalize);
    body = bough_json_put(body, "name", o->name);
    body = bough_json_put(body, "target_branch_id", o->target);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    rc = exchange(&answer, client, "POST", path, body, err);
    if (!rc) rc = bough_branch_boxed(branch, json_object_get(answer, "branch"), err);
    json_decref(answer);
    return rc;
}

int bough_snapshot_finalize(bough_client *client, const char *project, const char *branch,
                            const char *old_name, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s/finalize_restore",
                                project, branch);
    if (rc) return rc;
    json_t *body = bough_json_put(json_object(), "name", old_name);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    return exchange(NULL, client, "POST", path, body, err);
}

int bough_snapshot_get_schedule(char **json, bough_client *client, const char *project,
                                const char *branch, bough_error *err) {
    json_t *answer = NULL;
    *json = NULL;
    int rc = bough_request_get(&answer, client, err, "/projects/%s/branches/%s/backup_schedule",
                               project, branch);
    if (!rc && !(*json = bough_json_text_of(answer, JSON_COMPACT)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    json_decref(answer);
    return rc;
}

int bough_snapshot_set_schedule(bough_client *client, const char *project, const char *branch,
                                const char *json, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s/backup_schedule",
                                project, branch);
    if (rc) return rc;
    json_error_t error;
    json_t *body = bough_json_load(json, strlen(json), 0, &error);
    if (!body && bough_json_lacked_memory(&error))
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!body) return bough_fail(err, BOUGH_E_INVALID, "the schedule is not valid JSON");
    return exchange(NULL, client, "PUT", path, body, err);
}

void bough_snapshot_free(bough_snapshot *snapshot) {
    bough_box_free(snapshot);
}

void bough_snapshot_list_free(bough_snapshot_list *list) {
    bough_box_free(list);
}

void bough_snapshot_text_free(char *json) {
    free(json);
}
