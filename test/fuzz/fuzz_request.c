/*
 * libFuzzer target: requests of the HTTP API, by their real handlers, on a server without sockets
 * and computes: a catalogue with a project, a branch and its endpoint, and a store without their
 * files. The input is a line with the method and the path with its query, a line with headers that
 * do not matter, and the body.
 *
 * What makes a project, exports, or ends the server is left out: it would start programs.
 */
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/thread.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "model/catalogue.h"
#include "model/rules.h"
#include "server/access.h"
#include "server/api.h"
#include "server/clock.h"
#include "server/computes.h"
#include "server/door.h"
#include "server/http_sql.h"
#include "server/keys.h"
#include "server/leftovers.h"
#include "server/lifecycle.h"
#include "server/listed.h"
#include "server/usages.h"
#include "util/jsontext.h"
#include "util/log.h"

static char dir[] = "/tmp/bough-fuzz-request-XXXXXX";
static server srv;

/* as main.c has it */
void server_stop(server *unused) {
    (void)unused;
}

static void clean_up(void) {
    bough_ignore(bough_rmtree(dir, NULL));
}

static void need(int rc) {
    if (rc) abort();
}

static void fill_catalogue(bough_error *err) {
    bough_project_row project = {.id = "p-1", .name = "p", .pg_major = 15, .created_ms = 1};
    bough_branch_row branch = {
        .id = "br-1", .project_id = "p-1", .name = "main", .state = "ready", .is_default = true};
    bough_branch_row child = {
        .id = "br-2", .project_id = "p-1", .name = "child", .parent_id = "br-1", .state = "ready"};
    bough_endpoint_row endpoint = {.id = "ep-1",
                                   .project_id = "p-1",
                                   .branch_id = "br-1",
                                   .least_quarters = 1,
                                   .most_quarters = 1};
    bough_database_row database = {.branch_id = "br-1", .name = "d", .owner = "r"};
    bough_role_row role = {.branch_id = "br-1", .name = "r"};
    need(bough_projects_insert(srv.cat, &project, err));
    need(bough_branches_insert(srv.cat, &branch, err));
    need(bough_branches_insert(srv.cat, &child, err));
    need(bough_endpoints_insert(srv.cat, &endpoint, err));
    need(bough_roles_insert(srv.cat, &role, err));
    need(bough_databases_insert(srv.cat, &database, err));
}

static void set_up(void) {
    static int is_made;
    bough_error err;
    if (is_made++) return;
    bough_log_init(BOUGH_LOG_ERROR, false);
    if (!mkdtemp(dir)) abort();
    (void)atexit(clean_up);
    (void)evthread_use_pthreads();
    srv.loop = event_base_new();
    (void)snprintf(srv.store_dir, sizeof srv.store_dir, "%s", dir);
    (void)snprintf(srv.started_at, sizeof srv.started_at, "2026-01-01T00:00:00Z");
    const server_options options = {.api_rate = 0};
    need(door_open(&srv.door, &srv, &options, &err)); /* nobody comes: the loop does not run */
    need(bough_store_open(&srv.store, dir, &err));
    need(bough_catalogue_open(&srv.cat, ":memory:", &err));
    need(lock_table_new(&srv.locks, &err));
    need(clock_new(&srv.clock, srv.cat, NULL, &err));
    need(keys_new(&srv.keys, &srv, &err));
    need(lifecycle_new(&srv.lifecycle, &srv, &err));
    need(computes_new(&srv.computes, &err));
    need(usage_cache_new(&srv.usages, &err));
    need(listed_new(&srv.listed, &err));
    need(leftovers_new(&srv.leftovers, &err));
    need(job_pool_new(&srv.background, "background", 1, 0, &err));
    fill_catalogue(&err);
}

static bool is_left_out(const route *r) {
    return strstr(r->pattern, "/shutdown") || strstr(r->pattern, "/export") ||
           (r->method == EVHTTP_REQ_POST && strcmp(r->pattern, "/projects") == 0);
}

static enum evhttp_cmd_type method_of(const char *word) {
    static const struct {
        const char *name;
        enum evhttp_cmd_type method;
    } methods[] = {{"GET", EVHTTP_REQ_GET},
                   {"POST", EVHTTP_REQ_POST},
                   {"PATCH", EVHTTP_REQ_PATCH},
                   {"PUT", EVHTTP_REQ_PUT},
                   {"DELETE", EVHTTP_REQ_DELETE}};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(word, methods[i].name) == 0) return methods[i].method;
    return EVHTTP_REQ_GET;
}

/* As run_handler() does it. */
static void handle(request *rq) {
    bough_error err = {0};
    int rc = access_check(rq, &err);
    if (!rc) rc = rq->route->handle(rq, &err);
    if (rc && !err.message[0]) __builtin_trap();
    if (rc && (bough_code_get(rc)->http_status < 400)) __builtin_trap();
    if (!rc && rq->answer) {
        char *text = bough_json_text_of(rq->answer, JSON_COMPACT);
        if (!text) __builtin_trap();
        free(text);
    }
    if (!rc && !rq->answer && !rq->text && rq->status != 204) __builtin_trap();
}

static void run(request *rq, enum evhttp_cmd_type method, char *target, const char *body,
                size_t n) {
    char *query = strchr(target, '?');
    TAILQ_INIT(&rq->query);
    if (query) *query++ = '\0';
    if (query && evhttp_parse_query_str(query, &rq->query) != 0) return;
    rq->route = router_find(method, target, rq->params);
    if (!rq->route || is_left_out(rq->route)) return;
    if (rq->route->flags & ROUTE_BODY) {
        rq->body = n ? json_loadb(body, n, JSON_REJECT_DUPLICATES, NULL) : json_object();
        if (!json_is_object(rq->body)) return;
    }
    handle(rq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    set_up();
    char *text = fuzz_text(data, size), *end = text + size;
    char *space = strchr(text, ' '), *line = space ? strchr(space, '\n') : NULL;
    if (line) {
        *space = *line = '\0';
        request rq = {.srv = &srv, .gone_fd = -1, .status = 200, .id = "r"};
        rq.http = evhttp_request_new(NULL, NULL);
        if (!rq.http) abort();
        run(&rq, method_of(text), space + 1, line + 1, (size_t)(end - line - 1));
        for (int i = 0; i < REQUEST_PARAMS_MAX; i++) free(rq.params[i]);
        evhttp_clear_headers(&rq.query);
        json_decref(rq.body);
        json_decref(rq.answer);
        free(rq.text);
        evhttp_request_free(rq.http);
    }
    free(text);
    return 0;
}
