/* The life cycle of branches. See include/bough/branch.h. */
#include <string.h>

#include "bough/server.h"
#include "client/box.h"
#include "client/branch.h"
#include "client/find.h"
#include "client/request.h"
#include "util/error.h"

bool bough_branch_pack_expiry(json_t *branch, const bough_branch_expiry *expiry) {
    bool ok = true;
    if (expiry->expires_at)
        ok = json_object_set_new(branch, "expires_at", json_string(expiry->expires_at)) == 0;
    if (ok && expiry->ttl_seconds)
        ok = json_object_set_new(branch, "ttl_interval_seconds",
                                 json_integer(expiry->ttl_seconds)) == 0;
    if (ok && expiry->mode)
        ok = json_object_set_new(branch, "expiry_mode", json_string(expiry->mode)) == 0;
    return ok;
}

/* Send, and give the answer's branch. Takes the body. */
static int change(bough_branch **branch, bough_client *client, const char *method, const char *path,
                  json_t *body, bough_error *err) {
    json_t *answer = NULL;
    bough_request request = {.method = method, .path = path, .body = body};
    int rc = bough_request_send(&answer, client, &request, err);
    if (!rc) rc = bough_branch_boxed(branch, json_object_get(answer, "branch"), err);
    json_decref(answer);
    json_decref(body);
    return rc;
}

static int patch(bough_branch **branch, bough_client *client, const char *project, const char *id,
                 json_t *body, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *branch = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s", project, id);
    if (!rc && !body)
        rc = bough_fail(err, BOUGH_E_INVALID, "a text is not valid UTF-8, or memory ran out");
    if (!rc) return change(branch, client, "PATCH", path, body, err);
    json_decref(body);
    return rc;
}

int bough_branch_set_expiry(bough_branch **branch, bough_client *client, const char *project,
                            const char *id, const bough_branch_expiry *expiry, bough_error *err) {
    json_t *body = NULL;
    if (expiry) {
        json_t *inner = json_object();
        if (inner && bough_branch_pack_expiry(inner, expiry))
            body = json_pack("{s:O}", "branch", inner);
        json_decref(inner);
    } else {
        body = json_pack("{s:{s:n}}", "branch", "expires_at");
    }
    return patch(branch, client, project, id, body, err);
}

int bough_branch_set_protected(bough_branch **branch, bough_client *client, const char *project,
                               const char *id, int is_protected, bough_error *err) {
    json_t *body = json_pack("{s:{s:b}}", "branch", "protected", is_protected);
    return patch(branch, client, project, id, body, err);
}

int bough_branch_set_default(bough_branch **branch, bough_client *client, const char *project,
                             const char *id, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *branch = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s/set_as_default",
                                project, id);
    return rc ? rc : change(branch, client, "POST", path, NULL, err);
}

int bough_branch_detach(bough_branch **branch, bough_client *client, const char *project,
                        const char *id, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *branch = NULL;
    int rc =
        bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s/detach", project, id);
    return rc ? rc : change(branch, client, "POST", path, NULL, err);
}

int bough_branch_undelete(bough_branch **branch, bough_client *client, const char *project,
                          const char *id, const char *name, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *branch = NULL;
    int rc =
        bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s/recover", project, id);
    if (rc) return rc;
    json_t *body = bough_json_put(json_object(), "name", name);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    return change(branch, client, "POST", path, body, err);
}

static int end(bough_client *client, const char *path, bough_error *err) {
    json_t *answer = NULL;
    bough_request request = {.method = "DELETE", .path = path};
    int rc = bough_request_send(&answer, client, &request, err);
    json_decref(answer);
    return rc;
}

int bough_branch_delete(bough_client *client, const char *project, const char *id,
                        bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s", project, id);
    return rc ? rc : end(client, path, err);
}

int bough_branch_purge(bough_client *client, const char *project, const char *id,
                       bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/branches/%s?hard_delete=true",
                                project, id);
    return rc ? rc : end(client, path, err);
}

/* Deleted branches as an array of their own. */
static int read_deleted(json_t **deleted, bough_client *client, const char *project,
                        bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL;
    *deleted = NULL;
    int rc = bough_request_path(path, sizeof path, err,
                                "/projects/%s/branches?include_deleted=true", project);
    bough_request request = {.method = "GET", .path = path};
    if (!rc) rc = bough_request_send(&answer, client, &request, err);
    if (rc) return rc;
    const json_t *all = json_object_get(answer, "branches");
    *deleted = json_array();
    if (!*deleted) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < json_array_size(all) && !rc; i++) {
        json_t *one = json_array_get(all, i);
        if (*bough_json_text(one, "deleted_at") && json_array_append(*deleted, one) != 0)
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    json_decref(answer);
    if (!rc) return BOUGH_OK;
    json_decref(*deleted);
    *deleted = NULL;
    return rc;
}

int bough_branch_get_deleted(bough_branch_list **list, bough_client *client, const char *project,
                             bough_error *err) {
    json_t *deleted;
    *list = NULL;
    int rc = read_deleted(&deleted, client, project, err);
    if (!rc) rc = bough_branch_listed(list, deleted, err);
    json_decref(deleted);
    return rc;
}

int bough_branch_find_deleted(bough_branch **branch, bough_client *client, const char *project,
                              const char *name, bough_error *err) {
    json_t *deleted, *found = NULL;
    size_t same = 0;
    *branch = NULL;
    int rc = read_deleted(&deleted, client, project, err);
    if (!rc) rc = bough_find_named(&found, deleted, "deleted branch", name, err);
    if (rc == BOUGH_E_NOTFOUND && json_array_size(deleted) == 0)
        (void)bough_hint(err, "No deleted branch can be recovered.");
    else if (rc == BOUGH_E_NOTFOUND && err && strncmp(err->hint, "See ", 4) == 0)
        (void)bough_hint(err, "See `bough branch list --deleted`.");
    for (size_t i = 0; !rc && i < json_array_size(deleted); i++)
        same += strcmp(bough_json_text(json_array_get(deleted, i), "name"), name) == 0;
    if (!rc && same > 1) {
        rc = bough_fail(err, BOUGH_E_CONFLICT, "%zu deleted branches are named \"%.200s\"", same,
                        name);
        (void)bough_hint(err, "Say which by its id; see `bough branch list --deleted`.");
    }
    if (!rc) rc = bough_branch_boxed(branch, found, err);
    json_decref(deleted);
    return rc;
}

int bough_server_confirm_clock(bough_client *client, bough_error *err) {
    json_t *answer = NULL;
    bough_request request = {.method = "POST", .path = "/bough/clock/confirm"};
    int rc = bough_request_send(&answer, client, &request, err);
    json_decref(answer);
    return rc;
}
