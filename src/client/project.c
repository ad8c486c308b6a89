/* Projects. See include/bough/project.h. */
#include "bough/project.h"

#include <stdlib.h>
#include <string.h>

#include "client/box.h"
#include "client/find.h"
#include "client/request.h"
#include "util/error.h"

#define PAGE 400

static void fill(void *item, void *box, const json_t *object) {
    bough_project *p = item;
    p->id = bough_json_text(object, "id");
    p->name = bough_json_text(object, "name");
    p->pg_version = bough_json_int(object, "pg_version");
    p->source = bough_json_text(object, "source");
    p->created_at = bough_json_text(object, "created_at");
    p->json = bough_box_text(box, object);
    p->history_retention_seconds = (int64_t)bough_json_count(object, "history_retention_seconds");
}

/* POST /projects; NULL members are left out. */
static json_t *body_of(const bough_project_options *options) {
    json_t *project = json_object();
    bool ok = project && json_object_set_new(project, "name", json_string(options->name)) == 0;
    if (options->pg_version)
        ok = ok &&
             json_object_set_new(project, "pg_version", json_integer(options->pg_version)) == 0;
    if (options->source)
        ok = ok && json_object_set_new(project, "source", json_string(options->source)) == 0;
    json_t *body = ok ? json_pack("{s:O}", "project", project) : NULL;
    json_decref(project);
    return body;
}

int bough_project_create(bough_project_created **created, bough_client *client,
                         const bough_project_options *options, bough_error *err) {
    *created = NULL;
    if (options->version != 1)
        return bough_fail(err, BOUGH_E_INVALID, "unknown version of bough_project_options: %u",
                          options->version);
    json_t *answer = NULL, *body = body_of(options);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID,
                          "the name or the source is not valid UTF-8, or memory ran out");
    bough_request request = {
        .method = "POST", .path = "/projects?if_exists=return", .body = body, .is_long = true};
    int rc = bough_request_send(&answer, client, &request, err);
    json_decref(body);
    if (rc) return rc;
    bough_project *project;
    bough_project_created *c = bough_box_new(sizeof *c, answer);
    if (c && (project = bough_box_new(sizeof *project, answer))) {
        fill(project, project, json_object_get(answer, "project"));
        c->project = project;
        c->connection_uri = bough_json_uri(answer);
        c->existing = json_is_true(json_object_get(answer, "existing"));
        c->json = bough_box_text(c, answer);
    } else {
        bough_box_free(c);
        c = NULL;
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    json_decref(answer);
    *created = c;
    return rc;
}

void bough_project_created_free(bough_project_created *created) {
    if (!created) return;
    bough_project *project;
    memcpy(&project, &created->project, sizeof project); /* ours: const for the caller only */
    bough_box_free(project);
    bough_box_free(created);
}

int bough_project_get_all(bough_project_list **list, bough_client *client, bough_error *err) {
    *list = NULL;
    json_t *all = NULL;
    int rc = bough_find_pages(&all, client, "/projects", "projects", PAGE, err);
    if (rc) return rc;
    *list = bough_box_list_new(all, all, sizeof(bough_project), fill);
    json_decref(all);
    return *list ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

void bough_project_list_free(bough_project_list *list) {
    bough_box_free(list);
}

/* The only project of a list. */
static int only_one(json_t **found, const json_t *all, bough_error *err) {
    int rc;
    switch (json_array_size(all)) {
    case 0:
        rc = bough_fail(err, BOUGH_E_NOTFOUND, "there is no project yet");
        (void)bough_hint(err, "Create one with `bough project create NAME`.");
        return rc;
    case 1:
        *found = json_array_get(all, 0);
        return BOUGH_OK;
    default:
        rc = bough_fail(err, BOUGH_E_USAGE, "there are several projects; say which one");
        (void)bough_hint(err, "Add --project, e.g. `--project %.100s`.",
                         bough_json_text(json_array_get(all, 0), "name"));
        return rc;
    }
}

int bough_project_find(bough_project **project, bough_client *client, const char *name,
                       bough_error *err) {
    *project = NULL;
    json_t *all = NULL, *found = NULL;
    int rc = bough_find_pages(&all, client, "/projects", "projects", PAGE, err);
    if (!rc)
        rc =
            name ? bough_find_named(&found, all, "project", name, err) : only_one(&found, all, err);
    if (!rc) {
        *project = bough_box_new(sizeof **project, found);
        if (*project)
            fill(*project, *project, found);
        else
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    json_decref(all);
    return rc;
}

void bough_project_free(bough_project *project) {
    bough_box_free(project);
}

/* NULL where a rule is no UTF-8, or memory ran out. */
static json_t *allowed_json(const bough_allowed *allowed) {
    json_t *ips = json_array();
    bool ok = ips != NULL;
    for (size_t i = 0; i < allowed->n && ok; i++)
        ok = json_array_append_new(ips, json_string(allowed->rules[i])) == 0;
    json_t *value = ok ? json_pack("{s:O,s:b}", "ips", ips, "protected_branches_only",
                                   allowed->protected_only != 0)
                       : NULL;
    json_decref(ips);
    return value;
}

/* `from` NULL: whatever the list is. */
static int send_allowed(bough_project **project, bough_client *client, const char *id,
                        const bough_allowed *from, const bough_allowed *to, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL, *wish = allowed_json(to), *expected = from ? allowed_json(from) : NULL;
    bool ok = wish && (!from || (expected && json_object_set(wish, "expected", expected) == 0));
    json_t *body =
        ok ? json_pack("{s:{s:{s:O}}}", "project", "settings", "allowed_ips", wish) : NULL;
    if (project) *project = NULL;
    json_decref(expected);
    json_decref(wish);
    int rc = body
                 ? bough_request_path(path, sizeof path, err, "/projects/%s", id)
                 : bough_fail(err, BOUGH_E_INVALID, "a rule is not valid UTF-8, or memory ran out");
    bough_request request = {.method = "PATCH", .path = path, .body = body};
    if (!rc) rc = bough_request_send(&answer, client, &request, err);
    if (!rc && project) {
        json_t *found = json_object_get(answer, "project");
        *project = bough_box_new(sizeof **project, found);
        if (*project)
            fill(*project, *project, found);
        else
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    json_decref(body);
    json_decref(answer);
    return rc;
}

int bough_project_set_allowed(bough_project **project, bough_client *client, const char *id,
                              const char *const *rules, size_t n, int protected_only,
                              bough_error *err) {
    bough_allowed to = {.rules = rules, .n = n, .protected_only = protected_only};
    return send_allowed(project, client, id, NULL, &to, err);
}

int bough_project_replace_allowed(bough_project **project, bough_client *client, const char *id,
                                  const bough_allowed *from, const bough_allowed *to,
                                  bough_error *err) {
    return send_allowed(project, client, id, from, to, err);
}

int bough_project_update(bough_project **project, bough_client *client, const char *id,
                         const bough_project_changes *changes, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *project = NULL;
    if (changes->version != 1)
        return bough_fail(err, BOUGH_E_INVALID, "unknown version of bough_project_changes: %u",
                          changes->version);
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s", id);
    if (rc) return rc;
    bool is_whole = true;
    json_t *answer = NULL, *inner = bough_json_put(json_object(), "name", changes->name);
    if (inner && changes->history_retention_seconds >= 0)
        is_whole = json_object_set_new(inner, "history_retention_seconds",
                                       json_integer(changes->history_retention_seconds)) == 0;
    if (!is_whole) {
        json_decref(inner);
        inner = NULL;
    }
    json_t *body = inner ? json_pack("{s:o}", "project", inner) : NULL;
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    bough_request request = {.method = "PATCH", .path = path, .body = body};
    rc = bough_request_send(&answer, client, &request, err);
    json_t *changed = json_object_get(answer, "project");
    if (!rc && !(*project = bough_box_new(sizeof **project, changed)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) fill(*project, *project, changed);
    json_decref(answer);
    json_decref(body);
    return rc;
}

int bough_project_delete(bough_client *client, const char *id, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s", id);
    bough_request request = {.method = "DELETE", .path = path};
    if (!rc) rc = bough_request_send(&answer, client, &request, err);
    json_decref(answer);
    return rc;
}
