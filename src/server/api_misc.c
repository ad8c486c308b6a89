/* Handlers: who am I, status, operations, connection strings; and what all handlers share. */
#include "server/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pg/compute.h"
#include "pg/install.h"
#include "server/access.h"
#include "server/answer.h"
#include "server/body.h"
#include "server/computes.h"
#include "server/pools.h"
#include "server/door.h"
#include "server/flows.h"
#include "util/lsn.h"
#include "util/when.h"

int api_project_of(bough_project_row *row, const request *rq, bough_error *err) {
    return bough_projects_get(row, rq->srv->cat, rq->params[0], err);
}

int api_branch_of(bough_branch_row *row, const request *rq, bough_error *err) {
    bough_project_row project;
    int rc = api_project_of(&project, rq, err);
    return rc ? rc : bough_branches_get(row, rq->srv->cat, project.id, rq->params[1], err);
}

int api_deleted_already(request *rq, int rc, bough_error *err) {
    if (rc != BOUGH_E_NOTFOUND) return rc;
    bough_error_clear(err);
    rq->status = 204;
    return BOUGH_OK;
}

int api_query_bool(bool *out, const request *rq, const char *name, bough_error *err) {
    const char *text = request_query(rq, name);
    *out = text && strcmp(text, "true") == 0;
    if (!text || !*text || *out || strcmp(text, "false") == 0) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_INVALID, "\"%s\" must be true or false", name);
}

int api_query_int(long long *out, const request *rq, const char *name, long long otherwise,
                  long long least, long long most, bough_error *err) {
    const char *text = request_query(rq, name);
    *out = otherwise;
    if (!text || !*text) return BOUGH_OK;
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (errno || *end || *out < least || *out > most)
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" must be a number from %lld to %lld", name,
                          least, most);
    return BOUGH_OK;
}

int api_read_moment(bough_target *moment, const char *lsn, const char *lsn_name, const char *time,
                    const char *time_name, bough_error *err) {
    if (lsn && !*lsn) lsn = NULL; /* as good as nothing */
    if (time && !*time) time = NULL;
    if (lsn && time)
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" and \"%s\" cannot be given both", lsn_name,
                          time_name);
    if (time) return bough_when_time_us(&moment->time_us, time, err);
    if (lsn && (!bough_lsn_read(&moment->lsn, lsn) || moment->lsn == 0))
        return bough_fail(err, BOUGH_E_INVALID, "\"%.40s\" is not an LSN such as 0/A27BB60", lsn);
    return BOUGH_OK;
}

json_t *api_pagination(const char *cursor) {
    json_t *pagination = cursor ? json_pack("{s:s}", "cursor", cursor) : NULL;
    if (cursor && !pagination) (void)answer_found(BOUGH_E_NOMEM);
    return pagination;
}

int api_record(json_t **operations, request *rq, const char *action, const char *project,
               const char *branch, const char *endpoint, bough_error *err) {
    bough_operation_row row;
    *operations = NULL;
    int rc = flow_operation(&row, action, project, branch, endpoint, rq->received_ms, err);
    if (!rc) rc = bough_operations_insert(rq->srv->cat, &row, err);
    if (!rc) *operations = answer_operations(&row, 1);
    return rc;
}

/* Neon's clients take it as the sign of a personal account; nothing is billed. */
static json_t *no_billing(const server *srv) {
    static const char *const empty[] = {
        "name",          "address_city",        "address_country", "address_line1",
        "address_line2", "address_postal_code", "address_state",   NULL};
    json_t *account =
        json_pack("{s:s,s:s,s:s,s:s,s:s,s:{s:s}}", "state", "active", "subscription_type",
                  "UNKNOWN", "payment_method", "none", "email", "bough@localhost",
                  "quota_reset_at_last", srv->started_at, "payment_source", "type", "none");
    for (size_t i = 0; account && empty[i]; i++) answer_set(account, empty[i], json_string(""));
    return account;
}

int api_user(request *rq, bough_error *err) {
    (void)err;
    rq->answer =
        json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:s,s:o,s:[]}", "id", "local", "login",
                  rq->srv->os_user, "email", "bough@localhost", "name", rq->srv->os_user,
                  "last_name", "", "image", "", "projects_limit", 1000000, "branches_limit",
                  1000000, "active_seconds_limit", 0, "max_autoscaling_limit", 1, "plan", "local",
                  "billing_account", no_billing(rq->srv), "auth_accounts");
    return BOUGH_OK;
}

int api_check_organization(const char *id, bough_error *err) {
    if (strcmp(id, "local") == 0) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_NOTFOUND, "no organization has the id \"%.100s\"", id);
}

static json_t *organization(const server *srv) {
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "id", "local", "name", "Local", "handle",
                     "local", "plan", "local", "managed_by", "console", "created_at",
                     srv->started_at, "updated_at", srv->started_at);
}

int api_organizations(request *rq, bough_error *err) {
    (void)err;
    rq->answer = json_pack("{s:[o]}", "organizations", organization(rq->srv));
    return BOUGH_OK;
}

int api_organization(request *rq, bough_error *err) {
    int rc = api_check_organization(rq->params[0], err);
    if (!rc) rq->answer = organization(rq->srv);
    return rc;
}

int api_organization_members(request *rq, bough_error *err) {
    int rc = api_check_organization(rq->params[0], err);
    if (!rc)
        rq->answer =
            json_pack("{s:[{s:{s:s,s:s,s:s,s:s,s:s},s:{s:s}}]}", "members", "member", "id",
                      API_USER, "user_id", API_USER, "org_id", "local", "role", "admin",
                      "joined_at", rq->srv->started_at, "user", "email", "bough@localhost");
    return rc;
}

int api_auth(request *rq, bough_error *err) {
    (void)err;
    rq->answer = json_pack("{s:s,s:s}", "account_id", "local", "auth_method", "api_key_user");
    return BOUGH_OK;
}

int api_regions(request *rq, bough_error *err) {
    (void)err;
    rq->answer = json_pack("{s:[{s:s,s:s,s:b,s:s,s:s}]}", "regions", "region_id", "local", "name",
                           "This machine", "default", 1, "geo_lat", "0", "geo_long", "0");
    return BOUGH_OK;
}

static json_t *list_postgresql(void) {
    bough_pg list[BOUGH_PG_NEWEST - BOUGH_PG_OLDEST + 1];
    size_t n = bough_pg_list(list, sizeof list / sizeof list[0]);
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        answer_append(array, json_pack("{s:i,s:s,s:s,s:b}", "major", list[i].major, "version",
                                       list[i].version, "bindir", list[i].bindir, "has_tools",
                                       list[i].has_tools));
    return array;
}

int api_status(request *rq, bough_error *err) {
    server *srv = rq->srv;
    bough_branch_row *rows;
    size_t n;
    int rc = bough_branches_list(&rows, &n, srv->cat, NULL, err);
    if (rc) return rc;
    size_t failed = 0, deleted = 0, snapshots = 0;
    for (size_t i = 0; i < n; i++) {
        failed += strcmp(rows[i].state, "ready") != 0;
        if (rows[i].is_snapshot) {
            snapshots++;
            continue;
        }
        deleted += rows[i].deleted_ms != 0;
    }
    free(rows);
    bool any_timed = false;
    rc = bough_branches_any_timed(&any_timed, srv->cat, err);
    if (rc) return rc;
    clock_moment moment;
    clock_look(&moment, srv->clock);
    bool is_held = any_timed && moment.is_held;
    int abi = bough_landlock_abi();
    json_t *warnings = json_array(), *postgresql = list_postgresql();
    if (abi == 0)
        answer_append(warnings,
                      json_string("this kernel has no Landlock: computes are not confined "
                                  "to their own files"));
    else if (abi < 4)
        answer_append(warnings,
                      json_string("this kernel's Landlock knows no network rules: computes "
                                  "may open TCP connections"));
    if (json_array_size(postgresql) == 0)
        answer_append(warnings, json_string("PostgreSQL is not installed"));
    if (failed) {
        char text[96];
        (void)snprintf(text, sizeof text, "%zu branches have failed: their files are missing",
                       failed);
        answer_append(warnings, json_string(text));
    }
    if (is_held)
        answer_append(warnings,
                      json_string("the clock has jumped: no branch expires by it until it has been "
                                  "synchronised for an hour, or `bough server confirm-clock`"));
    if (atomic_load(&srv->is_disk_low))
        answer_append(warnings,
                      json_string("the disk is nearly full: the oldest history is dropped, and no "
                                  "restore point is made until there is room"));
    door_counts door = door_count(srv->door);
    rq->answer = json_pack(
        "{s:s,s:s,s:i,s:s,s:s,s:i,s:i,s:s,s:s,s:I,s:I,s:I,s:b,s:i,s:i,s:{s:b,s:b,s:s},s:o,s:o}",
        "version", BOUGH_VERSION, "store", srv->store_dir, "pid", (int)getpid(), "api_url",
        srv->api_url, "postgres", door_listens_on(srv->door), "sessions", door.sessions,
        "handshakes", door.handshakes, "api_key_file", srv->api_key_file, "started_at",
        srv->started_at, "branches", (json_int_t)(n - deleted - snapshots), "deleted_branches",
        (json_int_t)deleted, "snapshots", (json_int_t)snapshots, "clock_held", is_held, "computes",
        computes_count(srv), "landlock_abi", abi, "limits", "cpu", srv->cgroup.has_cpu, "memory",
        srv->cgroup.has_memory, "why", srv->cgroup.why, "warnings", warnings, "postgresql",
        postgresql);
    return BOUGH_OK;
}

int api_shutdown(request *rq, bough_error *err) {
    static const char *const known[] = {"stop_computes", NULL};
    bool stop = false;
    int rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_bool(&stop, rq->body, "stop_computes", false, err);
    if (rc) return rc;
    rq->status = 202;
    rq->answer = json_pack("{s:b}", "stop_computes", stop);
    atomic_store(&rq->srv->stop_computes, stop);
    server_stop(rq->srv);
    return BOUGH_OK;
}

int api_operation_list(request *rq, bough_error *err) {
    bough_project_row project;
    bough_operation_row *rows;
    size_t n;
    long long limit, before;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = api_query_int(&limit, rq, "limit", 1000, 1, 1000, err);
    if (!rc) rc = api_query_int(&before, rq, "cursor", 0, 0, INT64_MAX, err);
    if (!rc && *rq->key.branch_id)
        rc = bough_operations_list_of_branch(&rows, &n, rq->srv->cat, rq->key.branch_id, before,
                                             (int)limit, err);
    else if (!rc)
        rc = bough_operations_list(&rows, &n, rq->srv->cat, project.id, before, (int)limit, err);
    if (rc) return rc;
    char cursor[32] = "";
    if (n > 0) (void)snprintf(cursor, sizeof cursor, "%lld", (long long)rows[n - 1].seq);
    rq->answer = json_pack("{s:o,s:o*}", "operations", answer_operations(rows, n), "pagination",
                           api_pagination(n > 0 ? cursor : NULL));
    free(rows);
    return BOUGH_OK;
}

int api_operation_get(request *rq, bough_error *err) {
    bough_project_row project;
    bough_operation_row row;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = bough_operations_get(&row, rq->srv->cat, project.id, rq->params[1], err);
    if (!rc) rq->answer = json_pack("{s:o}", "operation", answer_operation(&row));
    return rc;
}

/* The branch and endpoint that a connection_uri request means. */
static int find_target(bough_branch_row *branch, bough_endpoint_row *endpoint, request *rq,
                       const char *project, bough_error *err) {
    bough_catalogue *cat = rq->srv->cat;
    const char *branch_id = request_query(rq, "branch_id"),
               *endpoint_id = request_query(rq, "endpoint_id");
    int rc = endpoint_id ? bough_endpoints_get(endpoint, cat, project, endpoint_id, err) : BOUGH_OK;
    if (rc) return rc;
    if (endpoint_id && branch_id && strcmp(endpoint->branch_id, branch_id) != 0)
        return bough_fail(err, BOUGH_E_NOTFOUND, "endpoint \"%.60s\" is not of branch \"%.60s\"",
                          endpoint_id, branch_id);
    if (endpoint_id) return bough_branches_get(branch, cat, project, endpoint->branch_id, err);
    rc = branch_id ? bough_branches_get(branch, cat, project, branch_id, err)
                   : bough_branches_get_default(branch, cat, project, err);
    return rc ? rc : bough_endpoints_of_branch(endpoint, cat, branch->id, err);
}

/* The database and role: those named, else the first database and its owner. */
static int find_login(bough_database_row *database, bough_role_row *role, request *rq,
                      const char *branch, bough_error *err) {
    bough_catalogue *cat = rq->srv->cat;
    const char *database_name = request_query(rq, "database_name"),
               *role_name = request_query(rq, "role_name");
    int rc = BOUGH_OK;
    if (database_name) {
        rc = bough_databases_get(database, cat, branch, database_name, err);
    } else {
        bough_database_row *rows;
        size_t n;
        rc = bough_databases_list(&rows, &n, cat, branch, err);
        if (!rc && n == 0) rc = bough_fail(err, BOUGH_E_NOTFOUND, "the branch has no database");
        if (!rc) *database = rows[0];
        free(rows);
    }
    return rc ? rc
              : bough_roles_get(role, cat, branch, role_name ? role_name : database->owner, err);
}

int api_connection_uri(request *rq, bough_error *err) {
    bough_project_row project;
    bough_branch_row branch;
    bough_endpoint_row endpoint;
    bough_database_row database;
    bough_role_row role;
    char password[BOUGH_SECRET_SIZE] = "";
    bool by_socket, is_pooled = false;
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = api_query_bool(&by_socket, rq, "socket", err);
    if (!rc) rc = api_query_bool(&is_pooled, rq, "pooled", err);
    if (!rc && by_socket && is_pooled)
        rc = bough_fail(err, BOUGH_E_INVALID, "\"socket\" and \"pooled\" exclude each other");
    if (!rc) rc = find_target(&branch, &endpoint, rq, project.id, err);
    if (!rc) rc = access_branch(rq, branch.id, err);
    if (!rc) rc = find_login(&database, &role, rq, branch.id, err);
    if (!rc) rc = api_role_make_sure(&role, rq->srv, &branch, err);
    if (!rc && role.secret_size) rc = answer_password(password, rq->srv, &role, err);
    if (!rc && by_socket) /* nobody would wake it at the first connection */
        rc = computes_use(rq->srv, &branch, &endpoint,
                          (compute_cause){"its Unix socket was asked for", false}, err);
    if (!rc) {
        login who = {role.name, password, database.name};
        char host[BOUGH_ID_SIZE + sizeof POOL_SUFFIX];
        (void)snprintf(host, sizeof host, "%s%s", endpoint.id, is_pooled ? POOL_SUFFIX : "");
        char *uri = answer_uri(rq->srv, host, &who, by_socket);
        rq->answer = uri ? json_pack("{s:s}", "uri", uri) : NULL;
        if (uri) explicit_bzero(uri, strlen(uri));
        free(uri);
    }
    explicit_bzero(password, sizeof password);
    return rc;
}
