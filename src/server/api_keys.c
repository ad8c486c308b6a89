/* Handlers: keys of the API. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/rules.h"
#include "server/answer.h"
#include "server/api.h"
#include "server/body.h"
#include "server/keys.h"
#include "util/when.h"

#define NAME_CHARACTERS_MAX 64

static void set_time(json_t *object, const char *name, int64_t ms) {
    char text[40];
    answer_time(text, sizeof text, ms);
    answer_set(object, name, ms ? json_string(text) : json_null());
}

static json_t *answer_key(const bough_api_key_row *row) {
    json_t *k = json_pack("{s:I,s:s,s:s,s:s,s:b,s:b}", "id", (json_int_t)row->id, "name", row->name,
                          "created_by", API_USER, "last_used_from_addr", row->last_used_from,
                          "read_only", row->is_read_only, "local", row->is_local);
    if (!k) return NULL;
    set_time(k, "created_at", row->created_ms);
    set_time(k, "last_used_at", row->last_used_ms);
    if (row->expires_ms) set_time(k, "expires_at", row->expires_ms);
    if (*row->project_id) answer_set(k, "project_id", json_string(row->project_id));
    if (*row->branch_id) answer_set(k, "branch_id", json_string(row->branch_id));
    return k;
}

static int check_organization(const request *rq, bough_error *err) {
    bool is_named = strncmp(rq->route->pattern, "/organizations/", 15) == 0;
    return is_named ? api_check_organization(rq->params[0], err) : BOUGH_OK;
}

int api_key_list(request *rq, bough_error *err) {
    bough_api_key_row *rows;
    size_t n;
    int rc = check_organization(rq, err);
    if (!rc) rc = keys_list(&rows, &n, rq->srv->keys, err);
    if (rc) return rc;
    rq->answer = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *one = answer_key(&rows[i]);
        json_t *user =
            json_pack("{s:s,s:s,s:s}", "id", API_USER, "name", rq->srv->os_user, "image", "");
        if (one) answer_set(one, "created_by", user);
        answer_append(rq->answer, one);
    }
    free(rows);
    return BOUGH_OK;
}

static int read_expiry(bough_api_key_row *row, const request *rq, bough_error *err) {
    const char *at = NULL;
    clock_moment moment;
    int rc = body_text(&at, rq->body, "expires_at", err);
    if (rc || !at) return rc;
    clock_look(&moment, rq->srv->clock);
    rc = bough_when_time(&row->expires_ms, at, err);
    if (!rc && row->expires_ms <= moment.latest_ms)
        rc = bough_fail(err, BOUGH_E_INVALID, "\"expires_at\" is not in the future");
    return rc;
}

/* What it is for exists, or the key would be for something that comes later. */
static int read_scope(bough_api_key_row *row, const request *rq, bough_error *err) {
    const char *project = NULL, *branch = NULL;
    bough_project_row project_row;
    bough_branch_row branch_row;
    int rc = body_text(&project, rq->body, "project_id", err);
    if (!rc) rc = body_text(&branch, rq->body, "branch_id", err);
    if (!rc && branch && !project)
        rc = bough_fail(err, BOUGH_E_INVALID, "\"branch_id\" needs \"project_id\"");
    if (!rc && project) rc = bough_projects_get(&project_row, rq->srv->cat, project, err);
    if (!rc && branch) rc = bough_branches_get(&branch_row, rq->srv->cat, project, branch, err);
    if (rc) return rc;
    (void)snprintf(row->project_id, sizeof row->project_id, "%s", project ? project : "");
    (void)snprintf(row->branch_id, sizeof row->branch_id, "%s", branch ? branch : "");
    return BOUGH_OK;
}

static size_t characters(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

int api_key_create(request *rq, bough_error *err) {
    static const char *const known[] = {"key_name",  "project_id", "branch_id",
                                        "read_only", "expires_at", NULL};
    bough_api_key_row row = {.created_ms = bough_now_epoch_ms()};
    const char *name = NULL;
    char key[BOUGH_API_KEY_SIZE] = "";
    int rc = check_organization(rq, err);
    if (!rc) rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_text(&name, rq->body, "key_name", err);
    if (!rc && !name) rc = bough_fail(err, BOUGH_E_INVALID, "\"key_name\" is missing");
    if (!rc) rc = bough_rule_name("API key", name, err);
    if (!rc && characters(name) > NAME_CHARACTERS_MAX)
        rc = bough_fail(err, BOUGH_E_INVALID, "\"key_name\" is longer than %d characters",
                        NAME_CHARACTERS_MAX);
    if (!rc) rc = body_bool(&row.is_read_only, rq->body, "read_only", false, err);
    if (!rc) rc = read_scope(&row, rq, err);
    if (!rc) rc = read_expiry(&row, rq, err);
    if (!rc) rc = bough_secret_api_key(key, err);
    if (!rc) rc = bough_secret_hash(row.hash, key, strlen(key), err);
    if (rc) return rc;
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    rc = bough_api_keys_insert(rq->srv->cat, &row, err);
    if (!rc) rc = keys_reload(rq->srv->keys, err);
    if (!rc && (rq->answer = answer_key(&row))) answer_set(rq->answer, "key", json_string(key));
    explicit_bzero(key, sizeof key);
    return rc;
}

/* The key of the store's file can only be changed there. */
int api_key_revoke(request *rq, bough_error *err) {
    bough_api_key_row *rows, found = {0};
    size_t n;
    const char *text = rq->params[strncmp(rq->route->pattern, "/organizations/", 15) == 0];
    char *end;
    errno = 0;
    long long id = strtoll(text, &end, 10);
    int rc = check_organization(rq, err);
    if (!rc) rc = keys_list(&rows, &n, rq->srv->keys, err);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++)
        if (!errno && !*end && rows[i].id == id) found = rows[i];
    free(rows);
    if (!found.id) return bough_fail(err, BOUGH_E_NOTFOUND, "no API key has the id %.40s", text);
    if (found.is_local) {
        (void)bough_fail(err, BOUGH_E_PRECONDITION, "this is the key in the store's file api_key");
        return bough_hint(err, "Remove the file and restart the server: it makes another one.");
    }
    /* made before, so that no revocation is told as a failure: asked for again, it would be gone */
    if ((rq->answer = answer_key(&found))) answer_set(rq->answer, "revoked", json_true());
    if (!rq->answer || !answer_is_whole()) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    return keys_revoke(rq->srv->keys, found.id, err);
}
