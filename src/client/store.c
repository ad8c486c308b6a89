/* The store as a whole: its bytes, what nothing needs. See include/bough/server.h. */
#include <stdlib.h>

#include "bough/server.h"
#include "client/request.h"
#include "util/error.h"
#include "util/jsontext.h"

static int ask(char **json, bough_client *client, const bough_request *request, bough_error *err) {
    json_t *answer = NULL;
    *json = NULL;
    int rc = bough_request_send(&answer, client, request, err);
    if (!rc && !(*json = bough_json_text_of(answer, JSON_COMPACT)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    json_decref(answer);
    return rc;
}

int bough_server_usage(char **json, bough_client *client, bough_error *err) {
    bough_request request = {.method = "GET", .path = "/bough/store/usage", .is_long = true};
    return ask(json, client, &request, err);
}

int bough_server_gc(char **json, bough_client *client, int dry_run, bough_error *err) {
    bough_request request = {
        .method = dry_run ? "GET" : "POST", .path = "/bough/store/gc", .is_long = true};
    return ask(json, client, &request, err);
}

void bough_server_text_free(char *json) {
    free(json);
}
