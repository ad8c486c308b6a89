/* Endpoints and operations. See include/bough/endpoint.h and operation.h. */
#include "bough/endpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bough/operation.h"
#include "client/box.h"
#include "client/find.h"
#include "client/request.h"
#include "util/error.h"

static void fill(void *item, void *box, const json_t *object) {
    bough_endpoint *e = item;
    e->id = bough_json_text(object, "id");
    e->branch_id = bough_json_text(object, "branch_id");
    e->host = bough_json_text(object, "host");
    e->type = bough_json_text(object, "type");
    e->state = bough_json_text(object, "current_state");
    e->created_at = bough_json_text(object, "created_at");
    e->json = bough_box_text(box, object);
}

static int boxed(bough_endpoint **endpoint, json_t *object, bough_error *err) {
    *endpoint = NULL;
    if (!json_is_object(object))
        return bough_fail(err, BOUGH_E_INTERNAL, "the server's answer lacks \"endpoint\"");
    *endpoint = bough_box_new(sizeof **endpoint, object);
    if (!*endpoint) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    fill(*endpoint, *endpoint, object);
    return BOUGH_OK;
}

static int read_all(json_t **all, bough_client *client, const char *project, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/endpoints", project);
    return rc ? rc : bough_find_pages(all, client, path, "endpoints", 0, err);
}

int bough_endpoint_get_all(bough_endpoint_list **list, bough_client *client, const char *project,
                           bough_error *err) {
    *list = NULL;
    json_t *all = NULL;
    int rc = read_all(&all, client, project, err);
    if (rc) return rc;
    *list = bough_box_list_new(all, all, sizeof(bough_endpoint), fill);
    json_decref(all);
    return *list ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

void bough_endpoint_list_free(bough_endpoint_list *list) {
    bough_box_free(list);
}

int bough_endpoint_find(bough_endpoint **endpoint, bough_client *client, const char *project,
                        const char *branch, bough_error *err) {
    *endpoint = NULL;
    json_t *all = NULL, *found = NULL;
    int rc = read_all(&all, client, project, err);
    if (rc) return rc;
    for (size_t i = 0; i < json_array_size(all) && !found; i++) {
        json_t *one = json_array_get(all, i);
        if (strcmp(bough_json_text(one, "branch_id"), branch) == 0 &&
            strcmp(bough_json_text(one, "type"), "read_only") != 0)
            found = one;
    }
    rc = found ? boxed(endpoint, found, err)
               : bough_fail(err, BOUGH_E_NOTFOUND, "branch \"%s\" has no endpoint", branch);
    json_decref(all);
    return rc;
}

int bough_endpoint_get(bough_endpoint **endpoint, bough_client *client, const char *project,
                       const char *id, bough_error *err) {
    json_t *answer = NULL;
    *endpoint = NULL;
    int rc = bough_request_get(&answer, client, err, "/projects/%s/endpoints/%s", project, id);
    if (!rc) rc = boxed(endpoint, json_object_get(answer, "endpoint"), err);
    json_decref(answer);
    return rc;
}

/* JSON has no number for what is not finite. */
static int check_size(double least, double most, bough_error *err) {
    if (isfinite(least) && isfinite(most)) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_INVALID, "the size of an endpoint must be a finite number");
}

int bough_endpoint_create(bough_endpoint **endpoint, bough_client *client, const char *project,
                          const bough_endpoint_options *options, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL,
           *wish = json_pack("{s:s,s:s}", "branch_id", options->branch, "type",
                             options->is_read_only ? "read_only" : "read_write"),
           *body = json_pack("{s:O}", "endpoint", wish);
    *endpoint = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/endpoints", project);
    if (!rc && !body) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = check_size(options->least, options->most, err);
    /* what is no size is for the server to refuse, not for us to leave out */
    if (!rc && ((options->least != 0 && json_object_set_new(wish, "autoscaling_limit_min_cu",
                                                            json_real(options->least)) != 0) ||
                (options->most != 0 && json_object_set_new(wish, "autoscaling_limit_max_cu",
                                                           json_real(options->most)) != 0)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    bough_request request = {.method = "POST", .path = path, .body = body};
    if (!rc) rc = bough_request_send(&answer, client, &request, err);
    if (!rc) rc = boxed(endpoint, json_object_get(answer, "endpoint"), err);
    json_decref(wish);
    json_decref(body);
    json_decref(answer);
    return rc;
}

int bough_endpoint_delete(bough_client *client, const char *project, const char *id,
                          bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/endpoints/%s", project, id);
    bough_request request = {.method = "DELETE", .path = path};
    if (!rc) rc = bough_request_send(&answer, client, &request, err);
    json_decref(answer);
    return rc;
}

void bough_endpoint_free(bough_endpoint *endpoint) {
    bough_box_free(endpoint);
}

static int change(bough_endpoint **endpoint, bough_client *client, const char *path,
                  bough_error *err) {
    *endpoint = NULL;
    json_t *answer = NULL;
    int rc =
        bough_request_send(&answer, client, &(bough_request){.method = "POST", .path = path}, err);
    if (!rc) rc = boxed(endpoint, json_object_get(answer, "endpoint"), err);
    json_decref(answer);
    return rc;
}

int bough_endpoint_start(bough_endpoint **endpoint, bough_client *client, const char *project,
                         const char *id, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *endpoint = NULL;
    int rc =
        bough_request_path(path, sizeof path, err, "/projects/%s/endpoints/%s/start", project, id);
    return rc ? rc : change(endpoint, client, path, err);
}

int bough_endpoint_suspend(bough_endpoint **endpoint, bough_client *client, const char *project,
                           const char *id, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *endpoint = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/endpoints/%s/suspend",
                                project, id);
    return rc ? rc : change(endpoint, client, path, err);
}

int bough_endpoint_resize(bough_endpoint **endpoint, bough_client *client, const char *project,
                          const char *id, double least, double most, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *endpoint = NULL;
    if (check_size(least, most, err) != BOUGH_OK) return BOUGH_E_INVALID;
    json_t *answer = NULL,
           *body = json_pack("{s:{s:f,s:f}}", "endpoint", "autoscaling_limit_min_cu", least,
                             "autoscaling_limit_max_cu", most);
    if (!body) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/endpoints/%s", project, id);
    bough_request request = {.method = "PATCH", .path = path, .body = body};
    if (!rc) rc = bough_request_send(&answer, client, &request, err);
    if (!rc) rc = boxed(endpoint, json_object_get(answer, "endpoint"), err);
    json_decref(body);
    json_decref(answer);
    return rc;
}

int bough_endpoint_restart(bough_endpoint **endpoint, bough_client *client, const char *project,
                           const char *id, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    *endpoint = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/endpoints/%s/restart",
                                project, id);
    return rc ? rc : change(endpoint, client, path, err);
}

int bough_endpoint_why(bough_endpoint_reason **reason, bough_client *client, const char *project,
                       const char *id, bough_error *err) {
    json_t *answer = NULL;
    *reason = NULL;
    int rc = bough_request_get(&answer, client, err, "/projects/%s/endpoints/%s/why", project, id);
    if (rc) return rc;
    json_t *why = json_object_get(answer, "why");
    bough_endpoint_reason *r = json_is_object(why) ? bough_box_new(sizeof *r, why) : NULL;
    if (r) {
        r->state = bough_json_text(why, "state");
        r->since = bough_json_text(why, "since");
        r->cause = bough_json_text(why, "cause");
        r->busy = bough_json_text(why, "busy");
        r->sessions = bough_json_int(why, "sessions");
        r->suspend_after_seconds = bough_json_int(why, "suspend_after_seconds");
        r->suspends_at = bough_json_text(why, "suspends_at");
        r->json = bough_box_text(r, why);
    } else if (json_is_object(why)) {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    } else {
        rc = bough_fail(err, BOUGH_E_INTERNAL, "the server's answer lacks \"why\"");
    }
    *reason = r;
    json_decref(answer);
    return rc;
}

void bough_endpoint_reason_free(bough_endpoint_reason *reason) {
    bough_box_free(reason);
}

/* Append "&name=value" to a path. */
static int add_query(char *path, size_t size, const char *name, const char *value,
                     bough_error *err) {
    size_t used = strlen(path);
    return bough_request_path(path + used, size - used, err, "&%s=%s", name, value);
}

int bough_uri_get_with(char **uri, bough_client *client, const char *project,
                       const bough_uri_options *o, bough_error *err) {
    *uri = NULL;
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/projects/%s/connection_uri?pooled=%s",
                                project, o->is_pooled ? "true" : "false");
    const char *const of[] = {"branch_id", "endpoint_id", "database_name", "role_name"};
    const char *const values[] = {o->branch, o->endpoint, o->database, o->role};
    for (size_t i = 0; !rc && i < sizeof of / sizeof of[0]; i++)
        if (values[i]) rc = add_query(path, sizeof path, of[i], values[i], err);
    if (!rc && o->by_socket) rc = add_query(path, sizeof path, "socket", "true", err);
    if (!rc)
        rc = bough_request_send(&answer, client, &(bough_request){.method = "GET", .path = path},
                                err);
    if (rc) return rc;
    const char *text = bough_json_text(answer, "uri");
    if (!*text)
        rc = bough_fail(err, BOUGH_E_INTERNAL, "the server's answer lacks \"uri\"");
    else if (!(*uri = strdup(text)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    json_decref(answer);
    return rc;
}

int bough_uri_get(char **uri, bough_client *client, const char *project, const char *branch,
                  const char *database, const char *role, bough_error *err) {
    bough_uri_options o = {.version = 1, .branch = branch, .database = database, .role = role};
    return bough_uri_get_with(uri, client, project, &o, err);
}

int bough_uri_get_socket(char **uri, bough_client *client, const char *project, const char *branch,
                         const char *database, const char *role, bough_error *err) {
    bough_uri_options o = {
        .version = 1, .branch = branch, .database = database, .role = role, .by_socket = 1};
    return bough_uri_get_with(uri, client, project, &o, err);
}

int bough_uri_get_pooled(char **uri, bough_client *client, const char *project, const char *branch,
                         const char *database, const char *role, bough_error *err) {
    bough_uri_options o = {
        .version = 1, .branch = branch, .database = database, .role = role, .is_pooled = 1};
    return bough_uri_get_with(uri, client, project, &o, err);
}

void bough_uri_free(char *uri) {
    if (uri) explicit_bzero(uri, strlen(uri));
    free(uri);
}

static void fill_operation(void *item, void *box, const json_t *object) {
    bough_operation *o = item;
    o->id = bough_json_text(object, "id");
    o->branch_id = bough_json_text(object, "branch_id");
    o->endpoint_id = bough_json_text(object, "endpoint_id");
    o->action = bough_json_text(object, "event"); /* what Neon's API has no name for */
    if (!*o->action) o->action = bough_json_text(object, "action");
    o->status = bough_json_text(object, "status");
    o->failure = bough_json_text(object, "error");
    o->created_at = bough_json_text(object, "created_at");
    o->duration_ms = bough_json_number(object, "total_duration_ms");
    o->json = bough_box_text(box, object);
}

int bough_operation_get_newest(bough_operation_list **list, bough_client *client,
                               const char *project, int limit, bough_error *err) {
    *list = NULL;
    json_t *answer = NULL;
    int rc =
        bough_request_get(&answer, client, err, "/projects/%s/operations?limit=%d", project, limit);
    if (rc) return rc;
    const json_t *items = json_object_get(answer, "operations");
    *list = bough_box_list_new(answer, items, sizeof(bough_operation), fill_operation);
    json_decref(answer);
    return *list ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

void bough_operation_list_free(bough_operation_list *list) {
    bough_box_free(list);
}
