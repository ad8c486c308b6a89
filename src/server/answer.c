/* Records as JSON. */
#include "server/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/http.h>

#include "model/expiry.h"
#include "model/rules.h"
#include "model/snapshots.h"
#include "server/computes.h"
#include "server/door.h"
#include "server/lifecycle.h"
#include "server/pools.h"
#include "server/usages.h"
#include "util/utf8.h"

void answer_time(char *out, size_t size, int64_t ms) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];
    gmtime_r(&seconds, &tm);
    (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out, size, "%s.%03dZ", text, (int)(ms % 1000));
}

static _Thread_local bool is_torn;

void answer_begin(void) {
    is_torn = false;
}

bool answer_is_whole(void) {
    return !is_torn;
}

bool answer_found(int rc) {
    if (rc != BOUGH_OK && rc != BOUGH_E_NOTFOUND) is_torn = true;
    return rc == BOUGH_OK;
}

void answer_set(json_t *object, const char *name, json_t *value) {
    /* a list has thousands of members: their names are ours, and need no check */
    if (json_object_set_new_nocheck(object, name, value) != 0) is_torn = true;
}

json_t *answer_text(const char *text) {
    json_t *value = json_string(text);
    if (value) return value;
    size_t size = 3 * strlen(text) + 4;
    char *copy = malloc(size); /* no UTF-8; or no memory, and then this finds none either */
    if (copy) bough_utf8_mend(copy, size, text);
    value = copy ? json_string_nocheck(copy) : NULL;
    free(copy);
    return value;
}

void answer_insert(json_t *array, size_t at, json_t *value) {
    if (json_array_insert_new(array, at, value) != 0) is_torn = true;
}

void answer_append(json_t *array, json_t *value) {
    answer_insert(array, json_array_size(array), value);
}

static void set_times(json_t *object, int64_t created_ms, int64_t updated_ms) {
    char created[40], updated[40];
    answer_time(created, sizeof created, created_ms);
    answer_time(updated, sizeof updated, updated_ms);
    answer_set(object, "created_at", json_string_nocheck(created));
    answer_set(object, "updated_at", json_string_nocheck(updated));
}

/* Members that Neon's API requires and that mean nothing here: consumption is not measured. */
static void set_unmeasured(json_t *object, const char *const *names) {
    json_t *zero = json_integer(0);
    for (size_t i = 0; names[i]; i++) answer_set(object, names[i], json_incref(zero));
    json_decref(zero);
}

/* A list of addresses, from one a line. */
static json_t *rules_array(const char *list) {
    json_t *array = json_array();
    while (array && *list) {
        size_t n = strcspn(list, "\n");
        answer_append(array, json_stringn(list, n));
        list += n + (list[n] == '\n');
    }
    return array;
}

/* Compute units, of quarters. */
static json_t *units(int quarters) {
    if (!quarters) quarters = BOUGH_SIZE_QUARTERS;
    return quarters % 4 ? json_real(quarters / 4.0) : json_integer(quarters / 4);
}

json_t *answer_project(const bough_project_row *row) {
    static const char never[] =
        "0001-01-01T00:00:00Z"; /* as Neon says it where nothing is billed */
    static const char *const unmeasured[] = {"active_time",
                                             "active_time_seconds",
                                             "compute_time_seconds",
                                             "cpu_used_sec",
                                             "written_data_bytes",
                                             "data_transfer_bytes",
                                             "data_storage_bytes_hour",
                                             "branch_logical_size_limit",
                                             "branch_logical_size_limit_bytes",
                                             NULL};
    json_t *p =
        json_pack("{s:s,s:s,s:i,s:s,s:s,s:s,s:s,s:s,s:b,s:I,s:s,s:{s:{s:o,s:b}},s:s,s:s,s:s,s:s}",
                  "id", row->id, "name", row->name, "pg_version", row->pg_major, "source",
                  row->source, "platform_id", "local", "region_id", "local", "provisioner", "bough",
                  "owner_id", "local", "store_passwords", 1, "history_retention_seconds",
                  (json_int_t)row->history_retention_seconds, "org_id", "local", "settings",
                  "allowed_ips", "ips", rules_array(row->allowed_ips), "protected_branches_only",
                  row->protects_only, "proxy_host", "localhost", "creation_source", "bough",
                  "consumption_period_start", never, "consumption_period_end", never);
    answer_set(p, "default_endpoint_settings",
               json_pack("{s:o,s:o,s:i}", "autoscaling_limit_min_cu",
                         units(row->endpoints.least_quarters), "autoscaling_limit_max_cu",
                         units(row->endpoints.most_quarters), "suspend_timeout_seconds",
                         row->endpoints.suspend_timeout_seconds));
    set_times(p, row->created_ms, row->updated_ms);
    set_unmeasured(p, unmeasured);
    return p;
}

/* Where it begins, if at a moment of its parent's past. */
static void set_origin(json_t *branch, server *srv, const char *id) {
    bough_origin_row origin;
    char when[40];
    if (!answer_found(bough_origins_get(&origin, srv->cat, id, NULL))) return;
    if (*origin.lsn) answer_set(branch, "parent_lsn", json_string(origin.lsn));
    if (origin.time_us) {
        answer_time(when, sizeof when, origin.time_us / 1000);
        answer_set(branch, "parent_timestamp", json_string(when));
    }
    if (origin.restored_ms) {
        answer_time(when, sizeof when, origin.restored_ms);
        answer_set(branch, "last_reset_at", json_string(when));
    }
}

/* From which snapshot, if from any. */
static void set_restored(json_t *branch, server *srv, const char *id) {
    bough_restored_row r;
    if (!answer_found(bough_restored_get(&r, srv->cat, id, NULL))) return;
    answer_set(branch, "restored_from", json_string(r.snapshot_id));
    if (*r.target_id) answer_set(branch, "restored_as", json_string(r.target_id));
    answer_set(branch, "restore_status", json_string(r.is_final ? "finalized" : "restored"));
}

/* RFC 3339 in whole seconds. */
static json_t *seconds_text(int64_t ms) {
    char text[40];
    answer_time(text, sizeof text, ms);
    text[19] = 'Z';
    text[20] = '\0';
    return json_string(text);
}

static json_t *seconds_until(int64_t ms, int64_t now_ms) {
    return json_integer(ms > now_ms ? (ms - now_ms + 999) / 1000 : 0);
}

/* Where an expiry stands. */
static const char *expiry_state(server *srv, const bough_branch_row *row, const clock_moment *m) {
    if (row->expires_ms > m->now_ms)
        return m->is_held && row->expires_ms <= m->wall_ms ? "held" : "pending";
    if (!row->has_live_children) return "due";
    return !row->expiry_cascades || flow_is_blocked(srv, row->id) ? "waiting" : "due";
}

/* When the branch expires, or since when it is deleted. */
static void set_life(json_t *b, server *srv, const bough_branch_row *row) {
    clock_moment m;
    if (!row->expires_ms && !row->deleted_ms) return;
    clock_look(&m, srv->clock);
    if (row->deleted_ms) {
        int64_t until_ms = row->deleted_ms + BOUGH_RECOVERABLE_MS;
        answer_set(b, "deleted_at", seconds_text(row->deleted_ms));
        answer_set(b, "recoverable_until", seconds_text(until_ms));
        answer_set(b, "recoverable_seconds", seconds_until(until_ms, m.now_ms));
    }
    if (!row->expires_ms) return;
    answer_set(b, "expires_at", seconds_text(row->expires_ms));
    answer_set(b, "ttl_interval_seconds", json_integer(row->ttl_seconds));
    answer_set(b, "expiry_mode", json_string(row->expiry_cascades ? "cascade" : "wait"));
    if (row->deleted_ms) return;
    answer_set(b, "expires_in_seconds", seconds_until(row->expires_ms, m.now_ms));
    answer_set(b, "expiry_state", json_string(expiry_state(srv, row, &m)));
    answer_set(b, "expiry_warning", json_boolean(bough_expiry_stage(row, m.now_ms) > 0));
}

bool answer_history_begins(char *when, size_t size, const bough_project_row *project,
                           const bough_usage *usage) {
    if (!usage->history_begins_ms || !project->history_retention_seconds) return false;
    int64_t from_ms = bough_now_epoch_ms() - project->history_retention_seconds * 1000;
    answer_time(when, size,
                from_ms > usage->history_begins_ms ? from_ms : usage->history_begins_ms);
    return true;
}

json_t *answer_branch_fixed(const bough_branch_row *row, const bough_usage *usage) {
    static const char *const unmeasured[] = {"cpu_used_sec",         "active_time_seconds",
                                             "compute_time_seconds", "written_data_bytes",
                                             "data_transfer_bytes",  NULL};
    json_t *b = json_object();
    if (!b) return NULL;
    answer_set(b, "id", json_string_nocheck(row->id));
    answer_set(b, "project_id", json_string_nocheck(row->project_id));
    answer_set(b, "name", answer_text(row->name));
    answer_set(b, "current_state", json_string_nocheck(row->state));
    answer_set(b, "default", json_boolean(row->is_default));
    answer_set(b, "primary", json_boolean(row->is_default));
    answer_set(b, "protected", json_boolean(row->is_protected));
    answer_set(b, "creation_source", json_string_nocheck("bough"));
    if (*row->parent_id) {
        answer_set(b, "parent_id", json_string_nocheck(row->parent_id));
        answer_set(b, "parent_name", answer_text(row->parent_name));
    }
    set_times(b, row->created_ms, row->updated_ms);
    if (row->is_look) answer_set(b, "look", json_true());
    set_unmeasured(b, unmeasured);
    json_t *updated = json_object_get(b, "updated_at"); /* a state changes with its row */
    answer_set(b, "state_changed_at", json_incref(updated));
    if (!usage) return b;
    answer_set(b, "own_bytes", json_integer((json_int_t)usage->own_bytes));
    answer_set(b, "shared_bytes", json_integer((json_int_t)usage->shared_bytes));
    answer_set(b, "history_bytes", json_integer((json_int_t)usage->history_bytes));
    answer_set(b, "depth", json_integer((json_int_t)usage->depth));
    answer_set(b, "logical_size",
               json_integer((json_int_t)(usage->own_bytes + usage->shared_bytes)));
    return b;
}

json_t *answer_branch_brief(const bough_branch_row *row, const bough_usage *usage) {
    char created[40];
    json_t *b = json_object();
    if (!b) return NULL;
    answer_set(b, "id", json_string_nocheck(row->id));
    answer_set(b, "name", answer_text(row->name));
    answer_set(b, "current_state", json_string_nocheck(row->state));
    answer_set(b, "default", json_boolean(row->is_default));
    answer_set(b, "protected", json_boolean(row->is_protected));
    if (*row->parent_id) {
        answer_set(b, "parent_id", json_string_nocheck(row->parent_id));
        answer_set(b, "parent_name", answer_text(row->parent_name));
    }
    answer_time(created, sizeof created, row->created_ms);
    answer_set(b, "created_at", json_string_nocheck(created));
    if (!usage) return b;
    answer_set(b, "own_bytes", json_integer((json_int_t)usage->own_bytes));
    answer_set(b, "shared_bytes", json_integer((json_int_t)usage->shared_bytes));
    return b;
}

bool answer_branch_has_more(const bough_branch_row *row) {
    return row->expires_ms || row->deleted_ms || row->has_origin || row->was_snapshot;
}

void answer_branch_more(json_t *branch, server *srv, const bough_branch_row *row) {
    if (!branch) return;
    set_life(branch, srv, row);
    if (row->has_origin) set_origin(branch, srv, row->id);
    if (row->was_snapshot) set_restored(branch, srv, row->id);
}

json_t *answer_branch(server *srv, const bough_branch_row *row, bool is_brief) {
    bough_usage usage;
    bough_project_row project;
    char when[40];
    bool is_measured = !is_brief && usage_get(&usage, srv, row->id, USAGE_EXACT_MS);
    json_t *b = answer_branch_fixed(row, is_measured ? &usage : NULL);
    answer_branch_more(b, srv, row);
    if (is_measured &&
        answer_found(bough_projects_get(&project, srv->cat, row->project_id, NULL)) &&
        answer_history_begins(when, sizeof when, &project, &usage))
        answer_set(b, "history_begins_at", json_string(when));
    return b;
}

/*
 * What Neon's clients put behind the '@' of a connection string: with the port, where that is not
 * PostgreSQL's own. It is the name, even where that does not resolve here: the address alone would
 * lead to no endpoint.
 */
static const char *host_of(char *out, size_t size, const door_address *address) {
    (void)snprintf(out, size, address->port == 5432 ? "%s" : "%s:%d", address->name, address->port);
    return out;
}

json_t *answer_endpoint(server *srv, const bough_endpoint_row *row) {
    door_address address;
    char host[352];
    int64_t started_ms = computes_started_ms(srv, bough_endpoint_home(row));
    door_address_of(&address, srv->door, row->id);
    json_t *e = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:s,s:b,s:i,s:o,s:o,s:s,s:s,s:b,s:{},s:b,s:s,s:s,s:s}", "id", row->id,
        "project_id", row->project_id, "branch_id", row->branch_id, "host",
        host_of(host, sizeof host, &address), "type",
        row->is_read_only ? "read_only" : "read_write", "current_state",
        started_ms ? "active" : "idle", "disabled", 0, "suspend_timeout_seconds",
        row->suspend_timeout_seconds, "autoscaling_limit_min_cu", units(row->least_quarters),
        "autoscaling_limit_max_cu", units(row->most_quarters), "region_id", "local", "pooler_mode",
        "transaction", "pooler_enabled", 0, "settings", "passwordless_access", 0, "creation_source",
        "bough", "proxy_host", "localhost", "provisioner", "bough");
    if (!e) return NULL;
    set_times(e, row->created_ms, row->updated_ms);
    if (*row->last_error) answer_set(e, "last_error", answer_text(row->last_error));
    if (started_ms) {
        char text[40];
        answer_time(text, sizeof text, started_ms);
        answer_set(e, "started_at", json_string(text));
    }
    return e;
}

json_t *answer_role(const bough_role_row *row, const char *password) {
    json_t *r = json_pack("{s:s,s:o,s:b}", "branch_id", row->branch_id, "name",
                          answer_text(row->name), "protected", 0);
    set_times(r, row->created_ms, row->updated_ms);
    if (r && password) answer_set(r, "password", json_string(password));
    return r;
}

json_t *answer_database(const bough_database_row *row) {
    json_t *d =
        json_pack("{s:I,s:s,s:o,s:o}", "id", (json_int_t)row->id, "branch_id", row->branch_id,
                  "name", answer_text(row->name), "owner_name", answer_text(row->owner));
    set_times(d, row->created_ms, row->updated_ms);
    return d;
}

/*
 * The action that Neon's clients know for one that only we have: they may be generated from a
 * specification in which the names are an enumeration. What it really was is the member "event".
 */
static const char *known_action(const char *action) {
    static const char *const known[] = {"create_timeline",      "create_branch",
                                        "delete_timeline",      "start_compute",
                                        "suspend_compute",      "apply_config",
                                        "create_compute",       "import_data",
                                        "detach_parent_branch", "apply_schema_from_branch",
                                        "check_availability",   NULL};
    static const struct {
        const char *ours, *theirs;
    } map[] = {{"timeline_restore", "create_timeline"}, {"branch_expired", "delete_timeline"},
               {"branch_purged", "delete_timeline"},    {"branch_recovered", "timeline_unarchive"},
               {"create_snapshot", "create_timeline"},  {"delete_snapshot", "delete_timeline"},
               {"snapshot_expired", "delete_timeline"}, {"finalize_restore", "swap_binding_id"}};
    for (size_t i = 0; known[i]; i++)
        if (strcmp(known[i], action) == 0) return known[i];
    for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
        if (strcmp(map[i].ours, action) == 0) return map[i].theirs;
    return "update_catalog"; /* something that is only recorded */
}

json_t *answer_operation(const bough_operation_row *row) {
    const char *action = known_action(row->action);
    json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:i,s:I}", "id", row->id, "project_id", row->project_id,
                          "action", action, "status", row->status, "failures_count",
                          strcmp(row->status, "failed") == 0, "total_duration_ms",
                          (json_int_t)row->duration_ms);
    set_times(o, row->created_ms, row->updated_ms);
    if (o && *row->branch_id) answer_set(o, "branch_id", json_string(row->branch_id));
    if (o && *row->endpoint_id) answer_set(o, "endpoint_id", json_string(row->endpoint_id));
    if (o && strcmp(action, row->action) != 0) answer_set(o, "event", json_string(row->action));
    if (o && *row->failure) answer_set(o, "error", answer_text(row->failure));
    return o;
}

json_t *answer_operations(const bough_operation_row *rows, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; array && i < n; i++) answer_append(array, answer_operation(&rows[i]));
    return array;
}

/* ---- connection strings ---- */

char *answer_uri(server *srv, const char *endpoint, const login *who, bool by_socket) {
    char socket_dir[BOUGH_PATH_MAX], host[400], *uri = NULL;
    door_address address;
    if (computes_socket_dir(socket_dir, srv, endpoint, NULL) != BOUGH_OK) return NULL;
    door_address_of(&address, srv->door, endpoint);
    (void)snprintf(host, sizeof host, strchr(address.host, ':') ? "[%s]:%d" : "%s:%d", address.host,
                   address.port);
    const char *const parts[4] = {who->role, who->password, who->database, socket_dir};
    char *encoded[4] = {NULL};
    bool ok = true;
    for (int i = 0; i < 4; i++) ok &= (encoded[i] = evhttp_uriencode(parts[i], -1, 0)) != NULL;
    const char *colon = *who->password ? ":" : "";
    int n = -1;
    if (ok && by_socket)
        n = asprintf(&uri, "postgresql://%s%s%s@/%s?host=%s&port=5432", encoded[0], colon,
                     encoded[1], encoded[2], encoded[3]);
    else if (ok && address.needs_option) /* in TLS, boughd could not read the option */
        n = asprintf(&uri, "postgresql://%s%s%s@%s/%s?options=endpoint%%3D%s&sslmode=disable",
                     encoded[0], colon, encoded[1], host, encoded[2], endpoint);
    else if (ok)
        n = asprintf(&uri, "postgresql://%s%s%s@%s/%s?sslmode=require", encoded[0], colon,
                     encoded[1], host, encoded[2]);
    for (int i = 0; i < 4; i++) free(encoded[i]);
    return n < 0 ? NULL : uri;
}

json_t *answer_connection(server *srv, const char *endpoint, const login *who) {
    door_address address;
    char *uri = answer_uri(srv, endpoint, who, false), host[352], pooler[352], name[128];
    json_t *c = NULL;
    door_address_of(&address, srv->door, endpoint);
    (void)host_of(host, sizeof host, &address);
    (void)snprintf(name, sizeof name, "%s" POOL_SUFFIX, endpoint);
    door_address_of(&address, srv->door, name);
    (void)host_of(pooler, sizeof pooler, &address);
    if (uri)
        c = json_pack("{s:s,s:{s:s,s:s,s:s,s:s,s:s}}", "connection_uri", uri,
                      "connection_parameters", "database", who->database, "role", who->role,
                      "password", who->password, "host", host, "pooler_host", pooler);
    free(uri);
    return c;
}

int answer_password(char *out, const server *srv, const bough_role_row *role, bough_error *err) {
    if (role->secret_size == 0)
        return bough_fail(err, BOUGH_E_PRECONDITION, "the password of role \"%s\" is not stored",
                          role->name);
    return bough_secret_open(out, BOUGH_SECRET_SIZE, &srv->key, role->name, role->secret,
                             role->secret_size, err);
}

int answer_contents(json_t **databases, json_t **roles, server *srv, const char *branch,
                    bough_error *err) {
    bough_database_row *d = NULL;
    bough_role_row *r = NULL;
    size_t n_d = 0, n_r = 0;
    *databases = json_array();
    *roles = json_array();
    int rc = bough_databases_list(&d, &n_d, srv->cat, branch, err);
    if (!rc) rc = bough_roles_list(&r, &n_r, srv->cat, branch, err);
    for (size_t i = 0; !rc && i < n_d; i++) answer_append(*databases, answer_database(&d[i]));
    for (size_t i = 0; !rc && i < n_r; i++) answer_append(*roles, answer_role(&r[i], NULL));
    free(d);
    free(r);
    return rc;
}

int answer_connections(json_t **uris, server *srv, const char *branch, const char *endpoint,
                       bough_error *err) {
    bough_database_row *databases = NULL;
    bough_role_row role;
    size_t n = 0;
    char password[BOUGH_SECRET_SIZE];
    *uris = json_array();
    int rc = bough_databases_list(&databases, &n, srv->cat, branch, err);
    for (size_t i = 0; !rc && i < n; i++) {
        if (bough_roles_get(&role, srv->cat, branch, databases[i].owner, NULL) != BOUGH_OK ||
            role.secret_size == 0 || role.is_unsure || !bough_utf8_is(databases[i].name) ||
            !bough_utf8_is(role.name))
            continue;
        rc = answer_password(password, srv, &role, err);
        login who = {role.name, password, databases[i].name};
        if (!rc) answer_append(*uris, answer_connection(srv, endpoint, &who));
        break;
    }
    explicit_bzero(password, sizeof password);
    free(databases);
    return rc;
}
