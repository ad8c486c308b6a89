/* The routes, as data. spec/openapi.yaml describes them; keep both the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api.h"

#define GET EVHTTP_REQ_GET
#define POST EVHTTP_REQ_POST
#define PATCH EVHTTP_REQ_PATCH
#define PUT EVHTTP_REQ_PUT
#define DELETE EVHTTP_REQ_DELETE
#define P "/projects/{}"
#define B P "/branches/{}"

static const route routes[] = {
    {GET, "/users/me", api_user, ROUTE_ANY_KEY},
    {GET, "/users/me/organizations", api_organizations, ROUTE_ANY_KEY},
    {GET, "/auth", api_auth, ROUTE_ANY_KEY},
    {GET, "/regions", api_regions, ROUTE_ANY_KEY},
    {GET, "/api_keys", api_key_list, 0},
    {POST, "/api_keys", api_key_create, ROUTE_BODY},
    {DELETE, "/api_keys/{}", api_key_revoke, 0},
    {GET, "/organizations/{}", api_organization, ROUTE_ANY_KEY},
    {GET, "/organizations/{}/members", api_organization_members, ROUTE_ANY_KEY},
    {GET, "/organizations/{}/api_keys", api_key_list, 0},
    {POST, "/organizations/{}/api_keys", api_key_create, ROUTE_BODY},
    {DELETE, "/organizations/{}/api_keys/{}", api_key_revoke, 0},
    {GET, "/bough/status", api_status, 0},
    {POST, "/bough/shutdown", api_shutdown, ROUTE_BODY},
    {POST, "/bough/clock/confirm", api_clock_confirm, ROUTE_BODY},
    {GET, "/bough/store/usage", api_store_usage, ROUTE_LONG},
    {GET, "/bough/store/gc", api_store_explain, ROUTE_LONG},
    {POST, "/bough/store/gc", api_store_collect, ROUTE_BODY | ROUTE_LONG},
    {GET, "/projects", api_project_list, ROUTE_ANY_KEY},
    {POST, "/projects", api_project_create, ROUTE_BODY | ROUTE_LONG},
    {GET, "/projects/shared", api_project_list_shared, ROUTE_ANY_KEY},
    {GET, P, api_project_get, ROUTE_BRANCH_KEY},
    {PATCH, P, api_project_update, ROUTE_BODY},
    {DELETE, P, api_project_delete, ROUTE_OWNER},
    {GET, P "/operations", api_operation_list, ROUTE_BRANCH_KEY},
    {GET, P "/operations/{}", api_operation_get, ROUTE_BRANCH_KEY},
    {GET, P "/connection_uri", api_connection_uri, ROUTE_BRANCH_KEY | ROUTE_SECRET},
    {GET, P "/branches", api_branch_list, ROUTE_BRANCH_KEY},
    {POST, P "/branches", api_branch_create, ROUTE_BODY},
    {GET, P "/branches/count", api_branch_count, ROUTE_BRANCH_KEY},
    {GET, B, api_branch_get, 0},
    {PATCH, B, api_branch_update, ROUTE_BODY},
    {DELETE, B, api_branch_delete, 0},
    {POST, B "/restore", api_branch_restore, ROUTE_BODY},
    {POST, B "/recover", api_branch_recover, ROUTE_BODY},
    {POST, B "/detach", api_branch_detach, ROUTE_BODY},
    {POST, B "/finalize_restore", api_branch_finalize, ROUTE_BODY},
    {POST, B "/snapshot", api_snapshot_create, ROUTE_BODY},
    {GET, B "/backup_schedule", api_schedule_get, 0},
    {PUT, B "/backup_schedule", api_schedule_set, ROUTE_BODY},
    {GET, P "/snapshots", api_snapshot_list, 0},
    {GET, P "/snapshots/{}", api_snapshot_get, 0},
    {PATCH, P "/snapshots/{}", api_snapshot_update, ROUTE_BODY},
    {DELETE, P "/snapshots/{}", api_snapshot_delete, 0},
    {POST, P "/snapshots/{}/restore", api_snapshot_restore, ROUTE_BODY},
    {POST, B "/set_as_default", api_branch_set_default, 0},
    {POST, B "/export", api_branch_export, ROUTE_BODY | ROUTE_LONG | ROUTE_OWNER},
    {GET, B "/schema", api_branch_schema, ROUTE_LONG},
    {GET, B "/compare_schema", api_branch_compare_schema, ROUTE_LONG},
    {GET, B "/endpoints", api_endpoint_list_of_branch, 0},
    {GET, B "/databases", api_database_list, 0},
    {POST, B "/databases", api_database_create, ROUTE_BODY},
    {GET, B "/databases/{}", api_database_get, 0},
    {PATCH, B "/databases/{}", api_database_update, ROUTE_BODY},
    {DELETE, B "/databases/{}", api_database_delete, 0},
    {GET, B "/roles", api_role_list, 0},
    {POST, B "/roles", api_role_create, ROUTE_BODY},
    {GET, B "/roles/{}", api_role_get, 0},
    {DELETE, B "/roles/{}", api_role_delete, 0},
    {GET, B "/roles/{}/reveal_password", api_role_reveal, ROUTE_SECRET},
    {POST, B "/roles/{}/reset_password", api_role_reset, 0},
    {GET, P "/endpoints", api_endpoint_list, ROUTE_BRANCH_KEY},
    {POST, P "/endpoints", api_endpoint_create, ROUTE_BODY | ROUTE_BRANCH_KEY},
    {GET, P "/endpoints/{}", api_endpoint_get, ROUTE_BRANCH_KEY},
    {PATCH, P "/endpoints/{}", api_endpoint_update, ROUTE_BODY | ROUTE_BRANCH_KEY},
    {DELETE, P "/endpoints/{}", api_endpoint_delete, ROUTE_BRANCH_KEY},
    {GET, P "/endpoints/{}/why", api_endpoint_why, ROUTE_BRANCH_KEY},
    {POST, P "/endpoints/{}/start", api_endpoint_start, ROUTE_BRANCH_KEY},
    {POST, P "/endpoints/{}/suspend", api_endpoint_suspend, ROUTE_BRANCH_KEY},
    {POST, P "/endpoints/{}/restart", api_endpoint_restart, ROUTE_BRANCH_KEY},
};

size_t router_count(void) {
    return sizeof routes / sizeof routes[0];
}

size_t router_index(const route *r) {
    return (size_t)(r - routes);
}

static void free_params(char **params) {
    for (int i = 0; i < REQUEST_PARAMS_MAX; i++) {
        free(params[i]);
        params[i] = NULL;
    }
}

/* Whether the path matches; fills params, percent-decoded. */
static bool match(const char *pattern, const char *path, char **params) {
    int n = 0;
    while (*pattern == '/' && *path == '/') {
        size_t a = strcspn(++pattern, "/"), b = strcspn(++path, "/");
        if (a == 2 && memcmp(pattern, "{}", 2) == 0) {
            if (b == 0 || n == REQUEST_PARAMS_MAX) return false;
            char *raw = strndup(path, b);
            size_t size = 0;
            params[n] = raw ? evhttp_uridecode(raw, 0, &size) : NULL;
            free(raw);
            if (!params[n] || strlen(params[n]) != size) return false; /* no embedded NUL */
            n++;
        } else if (a != b || memcmp(pattern, path, a) != 0) {
            return false;
        }
        pattern += a;
        path += b;
    }
    return *pattern == '\0' && *path == '\0';
}

static const char *method_name(enum evhttp_cmd_type method) {
    return method == GET     ? "GET"
           : method == POST  ? "POST"
           : method == PATCH ? "PATCH"
           : method == PUT   ? "PUT"
                             : "DELETE";
}

bool router_methods(char *out, size_t size, const char *path) {
    char *params[REQUEST_PARAMS_MAX] = {NULL};
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        bool found = match(routes[i].pattern, path, params);
        free_params(params);
        if (found && at < size && !strstr(out, method_name(routes[i].method)))
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "",
                                   method_name(routes[i].method));
    }
    return at > 0;
}

const route *router_find(enum evhttp_cmd_type method, const char *path, char **params) {
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (routes[i].method != method) continue;
        if (match(routes[i].pattern, path, params)) return &routes[i];
        free_params(params);
    }
    return NULL;
}
