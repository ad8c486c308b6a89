/* Keys of the API. See include/bough/key.h. */
#include "bough/key.h"

#include <string.h>

#include "client/box.h"
#include "client/request.h"
#include "util/error.h"

static void fill(void *item, void *box, const json_t *object) {
    bough_key *k = item;
    k->id = bough_json_int(object, "id");
    k->name = bough_json_text(object, "name");
    k->key = bough_json_text(object, "key");
    k->project_id = bough_json_text(object, "project_id");
    k->branch_id = bough_json_text(object, "branch_id");
    k->is_read_only = json_is_true(json_object_get(object, "read_only"));
    k->is_local = json_is_true(json_object_get(object, "local"));
    k->created_at = bough_json_text(object, "created_at");
    k->last_used_at = bough_json_text(object, "last_used_at");
    k->expires_at = bough_json_text(object, "expires_at");
    k->json = bough_box_text(box, object);
}

static int boxed(bough_key **key, json_t *answer, bough_error *err) {
    if (!json_is_object(answer))
        return bough_fail(err, BOUGH_E_INTERNAL, "the server's answer makes no sense");
    *key = bough_box_new(sizeof **key, answer);
    if (!*key) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    fill(*key, *key, answer);
    return BOUGH_OK;
}

static json_t *body_of(const bough_key_options *o) {
    json_t *body = json_pack("{s:s,s:b}", "key_name", o->name, "read_only", o->read_only);
    const struct {
        const char *name, *value;
    } members[] = {
        {"project_id", o->project}, {"branch_id", o->branch}, {"expires_at", o->expires_at}};
    for (size_t i = 0; body && i < sizeof members / sizeof members[0]; i++)
        if (members[i].value &&
            json_object_set_new(body, members[i].name, json_string(members[i].value)) != 0) {
            json_decref(body);
            body = NULL;
        }
    return body;
}

int bough_key_create(bough_key **key, bough_client *client, const bough_key_options *options,
                     bough_error *err) {
    *key = NULL;
    if (options->version != 1)
        return bough_fail(err, BOUGH_E_INVALID, "unknown version of bough_key_options: %u",
                          options->version);
    json_t *answer = NULL, *body = body_of(options);
    if (!body)
        return bough_fail(err, BOUGH_E_INVALID, "the name is not valid UTF-8, or memory ran out");
    bough_request request = {.method = "POST", .path = "/api_keys", .body = body};
    int rc = bough_request_send(&answer, client, &request, err);
    if (!rc) rc = boxed(key, answer, err);
    json_decref(answer);
    json_decref(body);
    return rc;
}

int bough_key_get_all(bough_key_list **list, bough_client *client, bough_error *err) {
    json_t *answer = NULL;
    *list = NULL;
    int rc = bough_request_get(&answer, client, err, "/api_keys");
    if (!rc && !json_is_array(answer))
        rc = bough_fail(err, BOUGH_E_INTERNAL, "the server's answer makes no sense");
    if (!rc && !(*list = bough_box_list_new(answer, answer, sizeof(bough_key), fill)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    json_decref(answer);
    return rc;
}

int bough_key_revoke(bough_key **key, bough_client *client, const char *id, bough_error *err) {
    char path[BOUGH_REQUEST_PATH_MAX];
    json_t *answer = NULL;
    *key = NULL;
    int rc = bough_request_path(path, sizeof path, err, "/api_keys/%s", id);
    if (!rc)
        rc = bough_request_send(&answer, client, &(bough_request){.method = "DELETE", .path = path},
                                err);
    if (!rc) rc = boxed(key, answer, err);
    json_decref(answer);
    return rc;
}

void bough_key_free(bough_key *key) {
    bough_box_free(key);
}

void bough_key_list_free(bough_key_list *list) {
    bough_box_free(list);
}
