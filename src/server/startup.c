/* Opening and closing the server: store, catalogue, keys, what runs already, threads. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/rules.h"
#include "model/snapshots.h"
#include "pg/admin.h"
#include "pg/compute.h"
#include "pg/dynshm.h"
#include "pg/orphans.h"
#include "pg/spawn.h"
#include "server/answer.h"
#include "server/computes.h"
#include "server/door.h"
#include "server/flow_restore.h"
#include "server/flows.h"
#include "server/forwarded.h"
#include "server/history.h"
#include "server/http.h"
#include "server/http_sql.h"
#include "server/keys.h"
#include "server/leftovers.h"
#include "server/lifecycle.h"
#include "server/listed.h"
#include "server/pools.h"
#include "server/standbys.h"
#include "server/tls.h"
#include "server/usages.h"
#include "server/websocket.h"
#include "util/jsontext.h"
#include "util/log.h"
#include "util/process.h"

enum {
    LOOKUP_THREADS = 1,
    WAKE_THREADS = 16,
    REQUEST_THREADS = 8,
    LONG_THREADS = 8,
    SQL_THREADS = 16, /* each waits for one connection */
    BACKGROUND_THREADS = 4,
    WAITING_MOST = 160, /* of a pool, for locks and computes; two branches cannot be all of them */
    BACKGROUND_END_MS = 30000
};

/* ---- keys ---- */

/* Whether the key of the file is the one that was recorded. */
static int has_hash(bool *found, const server *srv, const char *hash, bough_error *err) {
    bough_api_key_row *rows;
    size_t n;
    *found = false;
    int rc = bough_api_keys_list(&rows, &n, srv->cat, err);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++)
        *found |= rows[i].is_local && bough_secret_hash_equal(rows[i].hash, hash);
    free(rows);
    return BOUGH_OK;
}

/*
 * The key file is the truth: whoever removes or changes it has another key, and the old one ends.
 * It is written before its hash is recorded: a crash between them is mended here.
 */
static int open_api_key(server *srv, bough_error *err) {
    char *text = NULL, hash[BOUGH_HASH_SIZE], key[BOUGH_API_KEY_SIZE];
    size_t size = 0;
    bool is_known = false;
    int rc =
        bough_path(srv->api_key_file, sizeof srv->api_key_file, err, "%s/api_key", srv->store_dir);
    if (rc) return rc;
    rc = bough_read_file(&text, &size, srv->api_key_file, 4096, err);
    if (rc == BOUGH_E_NOTFOUND) {
        bough_error_clear(err);
        rc = bough_secret_api_key(key, err);
        if (!rc) rc = bough_write_file(srv->api_key_file, key, strlen(key), 0600, err);
        if (!rc && !(text = strdup(key))) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    if (!rc) text[strcspn(text, "\r\n")] = '\0';
    if (!rc && strlen(text) < 16)
        rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" does not hold a key", srv->api_key_file);
    if (!rc) rc = bough_secret_hash(hash, text, strlen(text), err);
    if (!rc) rc = has_hash(&is_known, srv, hash, err);
    if (!rc && !is_known) rc = bough_api_keys_set_local(srv->cat, "default", hash, err);
    if (text) explicit_bzero(text, strlen(text));
    free(text);
    explicit_bzero(key, sizeof key);
    return rc;
}

static int open_secrets(server *srv, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    bool has_secrets = false;
    int rc = bough_path(path, sizeof path, err, "%s/secret_key", srv->store_dir);
    if (!rc) rc = bough_catalogue_has_secrets(&has_secrets, srv->cat, err);
    if (!rc) rc = bough_secret_key_open(&srv->key, path, !has_secrets, err);
    if (!rc) rc = open_api_key(srv, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/admin_password", srv->store_dir);
    return rc ? rc : bough_admin_open(path, err);
}

/* ---- what an earlier server left ---- */

/* Stop a postgres that runs on a directory which nothing knows: its server died before it was
 * recorded. Of a branch's also goes what it keeps in /dev/shm. */
static void stop_stray(const char *pgdata, const char *home) {
    bough_compute *compute = NULL;
    bough_error err;
    if (bough_compute_adopt(&compute, pgdata, NULL) == BOUGH_OK) {
        bough_log(BOUGH_LOG_WARN, "stopping a postgres that nothing knows", "pgdata", pgdata, NULL);
        bough_ignore(bough_compute_stop(compute, BOUGH_STOP_KILL, COMPUTE_STOP_MS, NULL));
        bough_compute_free(compute);
    }
    if (bough_orphans_end(pgdata, COMPUTE_STOP_MS, &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not stop it", "pgdata", pgdata, "error", err.message,
                  NULL);
    else if (home)
        bough_dynshm_end(pgdata, home);
}

/* Call for every name in STORE/room that is not in the list of known ids. */
static void each_unknown(const server *srv, const char *room, const char *const *known, size_t n,
                         void (*call)(const char *path)) {
    char path[BOUGH_PATH_MAX];
    if (bough_path(path, sizeof path, NULL, "%s/%s", srv->store_dir, room) != BOUGH_OK) return;
    DIR *dir = opendir(path);
    for (const struct dirent *d; dir && (d = readdir(dir));) {
        bool found = d->d_name[0] == '.';
        for (size_t i = 0; i < n && !found; i++) found = strcmp(known[i], d->d_name) == 0;
        if (!found && bough_path(path, sizeof path, NULL, "%s/%s/%s", srv->store_dir, room,
                                 d->d_name) == BOUGH_OK)
            call(path);
    }
    if (dir) closedir(dir);
}

static void stop_stray_branch(const char *path) {
    char pgdata[BOUGH_PATH_MAX];
    if (bough_path(pgdata, sizeof pgdata, NULL, "%s/pgdata", path) == BOUGH_OK)
        stop_stray(pgdata, strrchr(path, '/') + 1);
}

static void remove_temporary(const char *path) {
    bough_error err;
    stop_stray(path, NULL);
    if (bough_rmtree(path, &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not remove an unfinished import", "path", path, "error",
                  err.message, NULL);
}

static void remove_directory(const char *path) {
    if (bough_rmtree(path, NULL) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not remove a directory", "path", path, NULL);
}

/* What the catalogue knows at start-up. */
typedef struct inventory {
    bough_branch_row *branches;
    bough_endpoint_row *endpoints;
    char (*templates)[BOUGH_ID_SIZE];
    bough_swap_row *swaps; /* restores that could not be ended */
    size_t n_branches, n_endpoints, n_templates, n_forks, n_swaps;
    const char **ids, **endpoint_ids; /* ids: of branches, templates, forks, then swaps */
    bough_shm **live;
    bool *missing;
} inventory;

/* Whether a compute runs on the fork of an endpoint that only reads; else the fork is nobody's. */
static bool runs(const server *srv, const char *id) {
    char pgdata[BOUGH_PATH_MAX];
    bough_compute *compute = NULL;
    if (!bough_store_has_branch(srv->store, id) ||
        bough_store_pgdata(pgdata, srv->store, id, NULL) != BOUGH_OK)
        return false;
    bool does = bough_compute_adopt(&compute, pgdata, NULL) == BOUGH_OK;
    bough_compute_free(compute);
    if (!does) bough_ignore(computes_clear(srv, id, NULL)); /* nobody would know of it any more */
    return does;
}

static int take_inventory(inventory *v, server *srv, bough_error *err) {
    int rc = bough_branches_list(&v->branches, &v->n_branches, srv->cat, NULL, err);
    if (!rc) rc = bough_endpoints_list(&v->endpoints, &v->n_endpoints, srv->cat, NULL, err);
    if (!rc) rc = bough_templates_list(&v->templates, &v->n_templates, srv->cat, err);
    if (!rc) rc = bough_swaps_list(&v->swaps, &v->n_swaps, srv->cat, err);
    if (rc) return rc;
    size_t n = v->n_branches + v->n_templates + v->n_endpoints + v->n_swaps;
    v->ids = calloc(n + 1, sizeof *v->ids);
    v->endpoint_ids = calloc(v->n_endpoints + 1, sizeof *v->endpoint_ids);
    v->live = calloc(n + 1, sizeof *v->live);
    v->missing = calloc(n + 1, sizeof *v->missing);
    if (!v->ids || !v->endpoint_ids || !v->live || !v->missing)
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < v->n_branches; i++) v->ids[i] = v->branches[i].id;
    for (size_t i = 0; i < v->n_templates; i++) v->ids[v->n_branches + i] = v->templates[i];
    n = v->n_branches + v->n_templates;
    for (size_t i = 0; i < v->n_endpoints; i++) {
        const bough_endpoint_row *e = &v->endpoints[i];
        v->endpoint_ids[i] = e->id;
        if (e->is_read_only && runs(srv, e->id)) v->ids[n + v->n_forks++] = e->id;
    }
    n += v->n_forks;
    for (size_t i = 0; i < v->n_swaps; i++) v->ids[n + i] = v->swaps[i].incoming_id;
    return BOUGH_OK;
}

static void inventory_free(inventory *v) {
    free(v->branches);
    free(v->endpoints);
    free(v->templates);
    free(v->swaps);
    free(v->ids);
    free(v->endpoint_ids);
    free(v->live);
    free(v->missing);
}

/* A compute whose memory cannot be attached must not go on beside us: it is stopped, its WAL keeps
 * everything. */
static void adopt_one(inventory *v, size_t i, server *srv) {
    bough_error err;
    bool found = false;
    const bough_endpoint_row *endpoint = NULL;
    char pgdata[BOUGH_PATH_MAX];
    for (size_t k = 0; k < v->n_endpoints; k++)
        if (!v->endpoints[k].is_read_only && strcmp(v->endpoints[k].branch_id, v->ids[i]) == 0)
            endpoint = &v->endpoints[k];
    if (!bough_store_has_branch(srv->store, v->ids[i])) return;
    if (!endpoint || v->branches[i].deleted_ms) {
        if (bough_store_pgdata(pgdata, srv->store, v->ids[i], &err) == BOUGH_OK)
            stop_stray(pgdata, v->ids[i]);
        return;
    }
    if (computes_adopt(&found, srv, &v->branches[i], endpoint, &err) != BOUGH_OK) {
        bough_log(BOUGH_LOG_WARN, "could not adopt a compute", "branch", v->ids[i], "error",
                  err.message, NULL);
        if (bough_store_pgdata(pgdata, srv->store, v->ids[i], &err) == BOUGH_OK)
            stop_stray(pgdata, v->ids[i]);
        return;
    }
    if (computes_shm(&v->live[i], srv, v->ids[i], &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "backends remain", "branch", v->ids[i], "error", err.message,
                  NULL);
    if (found) bough_log(BOUGH_LOG_INFO, "compute adopted", "branch", v->ids[i], NULL);
}

/* One that only reads, with the branch that it is of; false where it cannot be. */
static bool adopt_fork(const inventory *v, const char *id, server *srv) {
    const bough_endpoint_row *endpoint = NULL;
    const bough_branch_row *branch = NULL;
    bough_error err = {0};
    bool found = false;
    for (size_t k = 0; k < v->n_endpoints && !endpoint; k++)
        if (strcmp(v->endpoints[k].id, id) == 0) endpoint = &v->endpoints[k];
    for (size_t k = 0; k < v->n_branches && endpoint && !branch; k++)
        if (strcmp(v->branches[k].id, endpoint->branch_id) == 0) branch = &v->branches[k];
    if (branch && !branch->deleted_ms &&
        computes_adopt(&found, srv, branch, endpoint, &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not adopt a compute", "endpoint", id, "error", err.message,
                  NULL);
    if (found) bough_log(BOUGH_LOG_INFO, "compute adopted", "endpoint", id, NULL);
    return found;
}

/* After reconciliation, since what cannot be adopted goes with its files. */
static void adopt_forks(const inventory *v, server *srv) {
    char pgdata[BOUGH_PATH_MAX];
    bough_error err;
    for (size_t i = 0; i < v->n_forks; i++) {
        const char *id = v->ids[v->n_branches + v->n_templates + i];
        if (adopt_fork(v, id, srv) || !bough_store_has_branch(srv->store, id) ||
            bough_store_pgdata(pgdata, srv->store, id, NULL) != BOUGH_OK)
            continue;
        stop_stray(pgdata, id);
        if (bough_store_delete(srv->store, id, &err) != BOUGH_OK)
            bough_log(BOUGH_LOG_WARN, "files of a read-only endpoint remain until the next start",
                      "endpoint", id, "error", err.message, NULL);
    }
}

static void mark_missing(const bough_branch_row *branch, server *srv) {
    bough_operation_row operation;
    bough_error err;
    bough_log(BOUGH_LOG_ERROR, "the files of a branch are missing", "branch", branch->id, NULL);
    if (strcmp(branch->state, "failed") == 0) return;
    int rc = flow_operation(&operation, "check_availability", branch->project_id, branch->id, NULL,
                            bough_now_ms(), &err);
    (void)snprintf(operation.status, sizeof operation.status, "failed");
    (void)snprintf(operation.failure, sizeof operation.failure,
                   "the files of the branch are missing");
    if (!rc) rc = bough_catalogue_begin(srv->cat, &err);
    if (!rc) {
        rc = bough_branches_set_state(srv->cat, branch->id, "failed", &err);
        if (!rc) rc = bough_operations_insert(srv->cat, &operation, &err);
        rc = bough_catalogue_end(srv->cat, rc, &err);
    }
    if (rc)
        bough_log(BOUGH_LOG_ERROR, "could not record it", "branch", branch->id, "error",
                  err.message, NULL);
}

static int recover(server *srv, bough_error *err) {
    inventory v = {0};
    int dropped = 0;
    int rc = flow_restore_recover(srv, err);
    if (!rc) rc = bough_restored_drop_transient(&dropped, srv->cat, err);
    if (dropped) bough_log(BOUGH_LOG_WARN, "a restore had not replaced its branch: undone", NULL);
    if (!rc) rc = take_inventory(&v, srv, err);
    if (rc) goto out;
    rc = bough_orphans_end_tools(srv->store_dir, COMPUTE_STOP_MS, err);
    if (rc) goto out;
    size_t n = v.n_branches + v.n_templates + v.n_forks + v.n_swaps;
    each_unknown(srv, "branches", v.ids, n, stop_stray_branch);
    each_unknown(srv, "tmp", NULL, 0, remove_temporary);
    each_unknown(srv, "run", v.endpoint_ids, v.n_endpoints, remove_directory);
    each_unknown(srv, "pools", v.endpoint_ids, v.n_endpoints, pools_remove);
    for (size_t i = 0; i < v.n_branches; i++) adopt_one(&v, i, srv);
    rc = bough_store_reconcile(srv->store, v.ids, v.live, v.missing, n, err);
    if (!rc) adopt_forks(&v, srv);
    if (rc) goto out;
    for (size_t i = 0; i < v.n_branches; i++) {
        if (v.missing[i])
            mark_missing(&v.branches[i], srv);
        else if (bough_store_sync_pending(srv->store, v.ids[i]))
            computes_sync_later(srv, &v.branches[i]);
        if (!v.missing[i]) standbys_settle(srv, v.branches[i].id);
    }
    flow_purge_later(srv);
out:
    inventory_free(&v);
    return rc;
}

/* ---- all of it ---- */

static int announce(server *srv, bough_error *err) {
    char path[BOUGH_PATH_MAX], mark[BOUGH_PROCESS_MARK_SIZE];
    int rc = bough_path(path, sizeof path, err, "%s/run/server.json", srv->store_dir);
    if (!rc) rc = bough_process_mark(mark, getpid(), err);
    if (rc) return rc;
    json_t *value = json_pack("{s:i,s:s,s:s,s:i,s:s,s:s,s:s,s:s}", "pid", (int)getpid(), "process",
                              mark, "api_url", srv->api_url, "port", srv->port, "postgres",
                              door_listens_on(srv->door), "version", BOUGH_VERSION, "api_key_file",
                              srv->api_key_file, "started_at", srv->started_at);
    char *text = value ? bough_json_text_of(value, JSON_INDENT(2)) : NULL;
    if (!text) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = bough_write_file(path, text, strlen(text), 0644, err);
    srv->is_announced = rc == BOUGH_OK;
    free(text);
    json_decref(value);
    return rc;
}

static int listen_somewhere(server *srv, int port, bough_error *err) {
    enum { DEFAULT_PORT = 7117 };
    int rc = http_open(&srv->http, srv, port ? port : DEFAULT_PORT, err);
    if (rc == BOUGH_E_CONFLICT && !port) rc = http_open(&srv->http, srv, 0, err);
    if (!rc)
        (void)snprintf(srv->api_url, sizeof srv->api_url, "http://127.0.0.1:%d/api/v2", srv->port);
    return rc;
}

static void say_limits(const cgroup *g) {
    if (g->has_cpu || g->has_memory)
        bough_log(BOUGH_LOG_INFO, "computes have limits of their size", "processors",
                  g->has_cpu ? "yes" : "no", "memory", g->has_memory ? "yes" : "no", "group",
                  g->base, NULL);
    if (*g->why) bough_log(BOUGH_LOG_INFO, "not all limits can be had", "why", g->why, NULL);
}

int server_open(server *srv, const server_options *options, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    bough_run_mark(srv->store_dir);
    answer_time(srv->started_at, sizeof srv->started_at, bough_now_epoch_ms());
    const char *least = getenv("BOUGH_LEAST_SUSPEND_SECONDS"); /* tests cannot wait a minute */
    srv->max_awake = options->max_awake;
    uint64_t test_bytes = (uint64_t)options->test_point_kib << 10;
    srv->point_bytes = test_bytes ? test_bytes : HISTORY_POINT_BYTES;
    srv->point_latest_bytes = test_bytes ? test_bytes : HISTORY_POINT_LATEST_BYTES;
    srv->api_rate = options->api_rate < 0 ? KEYS_PER_MINUTE : options->api_rate;
    srv->api_burst = options->api_burst < 0 ? KEYS_PER_SECOND : options->api_burst;
    srv->limits_local_key = options->limits_local_key;
    srv->sql_seconds = options->sql_seconds ? options->sql_seconds : SQL_SECONDS;
    srv->least_suspend_seconds =
        least && atoi(least) > 0 ? atoi(least) : BOUGH_SUSPEND_LEAST_SECONDS;
    say_limits(&srv->cgroup);
    /* The ports first: where one is taken, no store is made. Requests wait until the loop runs. */
    int rc = forwarded_trust(srv->trusted, options->trusted_proxies, err);
    if (!rc) rc = listen_somewhere(srv, options->port, err);
    if (!rc) rc = door_open(&srv->door, srv, options, err);
    if (!rc) rc = bough_store_open(&srv->store, srv->store_dir, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/bough.db", srv->store_dir);
    if (!rc) rc = bough_catalogue_open(&srv->cat, path, err);
    if (!rc) rc = open_secrets(srv, err);
    if (!rc) rc = tls_open(srv, door_names(srv->door), err);
    if (!rc) rc = lock_table_new(&srv->locks, err);
    if (!rc) rc = clock_new(&srv->clock, srv->cat, options->test_clock_file, err);
    if (!rc) rc = keys_new(&srv->keys, srv, err);
    if (!rc) rc = lifecycle_new(&srv->lifecycle, srv, err);
    if (!rc) rc = computes_new(&srv->computes, err);
    if (!rc) rc = usage_cache_new(&srv->usages, err);
    if (!rc) rc = listed_new(&srv->listed, err);
    if (!rc) rc = leftovers_new(&srv->leftovers, err);
    if (!rc)
        rc = job_pool_new(&srv->background, "background", BACKGROUND_THREADS, WAITING_MOST, err);
    if (!rc) rc = job_pool_new(&srv->requests, "request", REQUEST_THREADS, WAITING_MOST, err);
    if (!rc) rc = job_pool_new(&srv->lookups, "lookup", LOOKUP_THREADS, 0, err);
    if (!rc) rc = job_pool_new(&srv->wakes, "wake", WAKE_THREADS, WAITING_MOST, err);
    if (!rc) rc = websockets_new(&srv->websockets, srv, err);
    if (!rc) rc = job_pool_new(&srv->sqls, "sql", SQL_THREADS, 0, err);
    if (!rc) rc = job_pool_new(&srv->longs, "long", LONG_THREADS, WAITING_MOST, err);
    if (!rc) rc = job_pool_new(&srv->housekeeper, "housekeeping", 1, 0, err);
    if (!rc) rc = recover(srv, err);
    if (!rc) rc = door_begin(srv->door, err);
    if (!rc) rc = announce(srv, err);
    if (!rc) lifecycle_wake(srv);
    if (!rc) usage_begin(srv);
    return rc;
}

/* So that the next server knows how much time has passed. */
static void save_clock(server *srv) {
    bough_error err;
    bool any = false;
    int rc = bough_branches_any_timed(&any, srv->cat, &err);
    if (!rc && any) rc = clock_save(srv->clock, true, &err);
    if (rc) bough_log(BOUGH_LOG_WARN, "could not record the time", "error", err.message, NULL);
}

void server_close(server *srv) {
    char path[BOUGH_PATH_MAX];
    if (srv->is_announced && /* the store may have another server */
        bough_path(path, sizeof path, NULL, "%s/run/server.json", srv->store_dir) == BOUGH_OK)
        (void)unlink(path);
    http_close(srv->http);
    if (srv->door) door_stop(srv->door);
    if (srv->computes && atomic_load(&srv->stop_computes)) computes_stop_all(srv);
    int left =
        job_pool_end(srv->requests, BACKGROUND_END_MS) +
        job_pool_end(srv->longs, BACKGROUND_END_MS) + job_pool_end(srv->sqls, BACKGROUND_END_MS) +
        websockets_end(srv->websockets, BACKGROUND_END_MS) +
        door_end(srv->door, BACKGROUND_END_MS) + job_pool_end(srv->lookups, BACKGROUND_END_MS) +
        job_pool_end(srv->wakes, BACKGROUND_END_MS) +
        job_pool_end(srv->background, BACKGROUND_END_MS) +
        job_pool_end(srv->housekeeper, BACKGROUND_END_MS);
    if (srv->clock && srv->lifecycle && srv->cat) save_clock(srv);
    if (srv->keys) keys_tick(srv->keys);
    if (left) { /* threads still use the rest, and the process ends */
        char number[16];
        (void)snprintf(number, sizeof number, "%d", left);
        bough_log(BOUGH_LOG_WARN, "threads still ran at the end", "number", number, NULL);
        return;
    }
    keys_free(srv->keys);
    lifecycle_free(srv->lifecycle);
    clock_free(srv->clock);
    door_close(srv->door);
    tls_close(srv);
    computes_free(srv->computes);
    leftovers_free(srv->leftovers);
    listed_free(srv->listed);
    usage_cache_free(srv->usages);
    lock_table_free(srv->locks);
    bough_catalogue_close(srv->cat);
    if (srv->store) bough_store_close(srv->store);
    explicit_bzero(&srv->key, sizeof srv->key);
}
