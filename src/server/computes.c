/*
 * The supervisor: starting, stopping, noticing the end. What it guards how: computes_internal.h.
 *
 * A compute's pidfd is watched by the loop through a duplicate. When it fires, a background job
 * takes the branch's lock and looks whether the process it was told about is still the current one
 * and has ended; so a stop that was asked for is never taken for a crash.
 */
#include "server/computes_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "model/ids.h"
#include "pg/dynshm.h"
#include "pg/orphans.h"
#include "pg/pglog.h"
#include "pg/sql.h"
#include "server/door.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/mending.h"
#include "server/pools.h"
#include "util/log.h"
#include "util/crashpoint.h"
#include "util/waiting.h"

/* How long a postmaster may take to read its configuration. */
enum { OPEN_MS = 30000 };
/* How long a start keeps its turn. */
enum { SLOT_MS = 10000 };

int computes_new(struct computes **out, bough_error *err) {
    struct computes *c = *out = calloc(1, sizeof *c);
    if (!c) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_mutex_init(&c->mutex, NULL);
    int n = get_nprocs();
    (void)sem_init(&c->starts, 0, (unsigned)(n < 2 ? 2 : n + 1));
    return BOUGH_OK;
}

static void watch_end(watch *w) {
    if (!w) return;
    if (w->event) event_free(w->event);
    if (w->fd >= 0) close(w->fd);
    free(w);
}

void computes_free(struct computes *c) {
    if (!c) return;
    for (entry *e = c->first, *next; e; e = next) {
        next = e->next;
        watch_end(e->watch);
        bough_compute_free(e->compute);
        bough_shm_close(e->shm);
        free(e);
    }
    (void)sem_destroy(&c->starts);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

static unsigned chain_of(const char *home) {
    unsigned hash = 2166136261U; /* FNV-1a */
    for (; *home; home++) hash = (hash ^ (unsigned char)*home) * 16777619U;
    return hash % CHAINS;
}

const char *computes_home(const entry *e) {
    return bough_endpoint_home(&e->endpoint);
}

entry *computes_find(const struct computes *c, const char *home) {
    entry *e = c->chains[chain_of(home)];
    while (e && strcmp(computes_home(e), home) != 0) e = e->same;
    return e;
}

entry *computes_get(const server *srv, const char *home) {
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = computes_find(srv->computes, home);
    pthread_mutex_unlock(&srv->computes->mutex);
    return e;
}

/* With the mutex: one that is nobody's. */
static entry *new_entry(struct computes *c) {
    entry *e = c->spare;
    if (e) {
        c->spare = e->same;
        e->is_spare = false;
    } else if ((e = calloc(1, sizeof *e))) {
        e->next = c->first;
        c->first = e;
    }
    return e;
}

void computes_forget(server *srv, const char *branch, const char *endpoint) {
    struct computes *c = srv->computes;
    pthread_mutex_lock(&c->mutex);
    for (entry *e = c->first; e; e = e->next) {
        if (e->is_spare || strcmp(e->branch.id, branch) != 0 ||
            (endpoint && strcmp(e->endpoint.id, endpoint) != 0) || e->compute || e->is_coming)
            continue;
        entry **link = &c->chains[chain_of(computes_home(e))];
        while (*link && *link != e) link = &(*link)->same;
        if (*link) *link = e->same;
        *e = (entry){.next = e->next, .same = c->spare, .is_spare = true};
        c->spare = e;
    }
    pthread_mutex_unlock(&c->mutex);
}

/* The entry of an endpoint's home, made where there is none. */
static entry *obtain(server *srv, const bough_branch_row *branch,
                     const bough_endpoint_row *endpoint, int major) {
    struct computes *c = srv->computes;
    const char *home = endpoint->is_read_only ? endpoint->id : branch->id;
    pthread_mutex_lock(&c->mutex);
    entry *e = computes_find(c, home);
    if (!e && (e = new_entry(c))) {
        entry **chain = &c->chains[chain_of(home)];
        e->same = *chain;
        *chain = e;
    }
    if (e) {
        e->branch = *branch;
        e->endpoint = *endpoint;
        memcpy(e->endpoint.branch_id, branch->id, sizeof e->endpoint.branch_id);
        e->major = major;
    }
    pthread_mutex_unlock(&c->mutex);
    return e;
}

/* Note that a compute has become active or has ended, and why. */
static void change(server *srv, entry *e, bool is_active, const char *cause) {
    pthread_mutex_lock(&srv->computes->mutex);
    e->is_active = is_active;
    e->is_coming = false;
    e->postmaster = is_active ? bough_compute_pid(e->compute) : 0;
    e->since_ms = e->idle_since_ms = bough_now_epoch_ms();
    e->started_ms = is_active ? e->since_ms : 0;
    e->busy[0] = '\0';
    (void)snprintf(e->cause, sizeof e->cause, "%s", cause);
    pthread_mutex_unlock(&srv->computes->mutex);
}

int computes_socket_dir(char *out, const server *srv, const char *endpoint, bough_error *err) {
    return bough_path(out, BOUGH_PATH_MAX, err, "%s/run/%s", srv->store_dir, endpoint);
}

int computes_place(bough_sql_place *place, const server *srv, const char *endpoint,
                   bough_error *err) {
    *place = (bough_sql_place){.user = BOUGH_ADMIN_ROLE};
    pthread_mutex_lock(&srv->computes->mutex);
    const entry *e = srv->computes->first; /* an endpoint may have been another branch's */
    while (e && !(*e->key && strcmp(e->endpoint.id, endpoint) == 0)) e = e->next;
    if (e) (void)snprintf(place->user, sizeof place->user, BOUGH_ADMIN_ROLE ".%s", e->key);
    place->major = e ? e->major : 0;
    pthread_mutex_unlock(&srv->computes->mutex);
    return computes_socket_dir(place->socket_dir, srv, endpoint, err);
}

/* (locked) The key of the process that there is, or is about to be; "": none. */
static void set_key(server *srv, entry *e, const char *key) {
    pthread_mutex_lock(&srv->computes->mutex);
    (void)snprintf(e->key, sizeof e->key, "%s", key);
    pthread_mutex_unlock(&srv->computes->mutex);
}

/* (locked) A key for a compute that is about to start. */
static int make_key(server *srv, entry *e, bough_error *err) {
    unsigned char random[(BOUGH_SHM_KEY_SIZE - 1) / 2];
    char key[BOUGH_SHM_KEY_SIZE];
    int rc = bough_random(random, sizeof random, err);
    if (rc) return rc;
    for (size_t i = 0; i < sizeof random; i++)
        (void)snprintf(key + 2 * i, 3, "%02x", (unsigned)random[i]);
    bough_shm_set_key(e->shm, key);
    set_key(srv, e, key);
    explicit_bzero(key, sizeof key);
    return BOUGH_OK;
}

/* (locked) */
static void give_slot(server *srv, entry *e) {
    if (e->has_slot) (void)sem_post(&srv->computes->starts);
    e->has_slot = false;
}

int computes_clear(const server *srv, const char *home, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    int rc = bough_store_pgdata(pgdata, srv->store, home, err);
    if (!rc) rc = bough_orphans_end(pgdata, COMPUTE_STOP_MS, err);
    if (!rc) bough_dynshm_end(pgdata, home);
    return rc;
}

int computes_clear_rest(const server *srv, const char *home, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    int rc = bough_store_pgdata(pgdata, srv->store, home, err);
    if (rc || bough_orphans_have_memory(pgdata)) return rc ? rc : computes_clear(srv, home, err);
    bough_dynshm_end(pgdata, home); /* a postmaster that ended in order leaves it to us */
    return BOUGH_OK;
}

/* (locked) Drop what belongs to a process that has ended, and what it left. */
static void let_go(server *srv, entry *e) {
    bough_error err;
    const char *home = computes_home(e);
    give_slot(srv, e);
    (void)pools_stop(srv, e->endpoint.id);
    if (e->compute && computes_clear(srv, home, &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "backends remain", "branch", home, "error", err.message, NULL);
    pthread_mutex_lock(&srv->computes->mutex);
    e->is_active = e->is_coming = false;
    e->postmaster = 0;
    watch *w = e->watch;
    e->watch = NULL;
    bough_shm *shm = e->shm;
    e->shm = NULL;
    pthread_mutex_unlock(&srv->computes->mutex);
    watch_end(w);
    bough_compute_free(e->compute);
    bough_shm_close(shm);
    e->compute = NULL;
    set_key(srv, e, "");
    cgroup_end(&srv->cgroup, e->endpoint.id);
    explicit_bzero(e->secret, sizeof e->secret);
    if (e->endpoint.is_read_only)
        standby_discard(srv, e);
    else
        standbys_follow(srv, e->branch.id);
}

/* ---- unexpected ends ---- */

typedef struct ended_job {
    server *srv;
    char home[BOUGH_ID_SIZE], lock[BOUGH_ID_SIZE];
    uint64_t generation;
} ended_job;

/* (locked) The compute has ended by itself: note it. */
static void note_end(server *srv, entry *e) {
    double now = bough_now_ms();
    int oldest = 0;
    for (int i = 1; i < RESTARTS; i++)
        if (e->ends_ms[i] < e->ends_ms[oldest]) oldest = i;
    e->ends_ms[oldest] = now;
    bough_log(BOUGH_LOG_WARN, "compute ended unexpectedly", "branch", e->branch.id, "endpoint",
              e->endpoint.id, NULL);
    if (e->endpoint.is_read_only) standby_explain(srv, e); /* its log goes with its files */
    let_go(srv, e);
    change(srv, e, false, "it ended unexpectedly");
    bough_error err;
    if (bough_endpoints_set_error(srv->cat, e->endpoint.id, "the compute ended unexpectedly",
                                  &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not record the end of a compute", "error", err.message,
                  NULL);
}

int computes_shm(bough_shm **shm, server *srv, const char *home, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    entry *e = computes_get(srv, home);
    *shm = NULL;
    if (e && e->compute && bough_compute_running(e->compute)) {
        *shm = e->shm;
        return BOUGH_OK;
    }
    if (e && e->compute) note_end(srv, e);
    int rc = bough_store_pgdata(pgdata, srv->store, home, err);
    return rc ? rc : bough_orphans_end(pgdata, COMPUTE_STOP_MS, err);
}

static void on_ended_job(void *arg) {
    ended_job *job = arg;
    server *srv = job->srv;
    bough_error err;
    if (lock_take(srv->locks, job->lock, LOCK_WAIT_MS, &err) == BOUGH_OK) {
        entry *e = computes_get(srv, job->home);
        if (e && e->compute && e->generation == job->generation &&
            !bough_compute_running(e->compute))
            note_end(srv, e);
        lock_drop(srv->locks, job->lock);
    }
    free(job);
}

/* Loop thread. */
static void on_pidfd(evutil_socket_t fd, short what, void *arg) {
    const watch *w = arg;
    ended_job *job = malloc(sizeof *job);
    (void)fd;
    (void)what;
    if (!job) return;
    *job = (ended_job){.srv = w->srv, .generation = w->generation};
    memcpy(job->home, w->home, sizeof job->home);
    memcpy(job->lock, w->lock, sizeof job->lock);
    if (job_pool_add(w->srv->background, on_ended_job, job, NULL) != BOUGH_OK) free(job);
}

/* (locked) Begin to watch a process. */
static int watch_begin(server *srv, entry *e, bough_error *err) {
    watch *w = calloc(1, sizeof *w);
    if (!w) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    w->srv = srv;
    (void)snprintf(w->home, sizeof w->home, "%s", computes_home(e));
    memcpy(w->lock, e->branch.id, sizeof w->lock);
    w->fd = fcntl(bough_compute_pidfd(e->compute), F_DUPFD_CLOEXEC, 3);
    if (w->fd >= 0) w->event = event_new(srv->loop, w->fd, EV_READ, on_pidfd, w);
    if (!w->event) {
        watch_end(w);
        return bough_fail(err, BOUGH_E_NOMEM, "could not watch a process");
    }
    pthread_mutex_lock(&srv->computes->mutex);
    w->generation = e->generation = ++srv->computes->generation;
    e->watch = w;
    pthread_mutex_unlock(&srv->computes->mutex);
    (void)event_add(w->event, NULL);
    return BOUGH_OK;
}

/* ---- starting ---- */

static int dirs_of(socket_dirs *dirs, const server *srv, const char *endpoint, bough_error *err) {
    int rc = computes_socket_dir(dirs->all, srv, endpoint, err);
    return rc ? rc
              : bough_path(dirs->handoff, sizeof dirs->handoff, err, "%s/%s", dirs->all,
                           COMPUTE_HANDOFF_DIR);
}

static int tls_of(tls_files *files, const server *srv, const entry *e, bough_error *err) {
    char dir[BOUGH_PATH_MAX];
    if (!e->endpoint.is_read_only) return tls_files_of(files, srv, &e->branch, err);
    int rc = bough_path(dir, sizeof dir, err, "%s/branches/%s/tls", srv->store_dir, e->endpoint.id);
    return rc ? rc : tls_files_in(files, srv, dir, err);
}

int computes_conf(compute_conf *c, server *srv, const entry *e, bough_error *err) {
    const char *home = computes_home(e);
    bough_pg pg = {.has_lz4 = false};
    int rc = bough_pg_find(&pg, e->major, err);
    if (rc == BOUGH_E_UNSUPPORTED) { /* it was removed under a compute that runs */
        pg = (bough_pg){.has_tls = e->has_tls};
        bough_error_clear(err);
        rc = BOUGH_OK;
    }
    if (!rc) rc = bough_store_pgdata(c->pgdata, srv->store, home, err);
    if (!rc) rc = dirs_of(&c->dirs, srv, e->endpoint.id, err);
    if (!rc) rc = tls_of(&c->tls, srv, e, err);
    c->conf = (bough_conf){.major = e->major,
                           .quarters = e->endpoint.most_quarters,
                           .has_lz4 = pg.has_lz4,
                           .socket_dir = c->dirs.all,
                           .handoff_dir = c->dirs.handoff,
                           .tls_cert = pg.has_tls ? c->tls.cert : NULL,
                           .tls_key = c->tls.key,
                           .is_read_only = e->branch.is_look,
                           .hold_wal = bough_store_sync_pending(srv->store, home)};
    if (rc || !e->endpoint.is_read_only) {
        c->conf.is_followed = bough_store_is_followed(srv->store, home);
        return rc;
    }
    return standby_configure(&c->conf, &c->standby, srv, e, err);
}

int computes_reconfigure(server *srv, const entry *e, bough_error *err) {
    compute_conf *c = malloc(sizeof *c);
    if (!c) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = computes_conf(c, srv, e, err);
    if (!rc) rc = bough_conf_rewrite(c->pgdata, &c->conf, bough_compute_pid(e->compute), err);
    explicit_bzero(c, sizeof *c);
    free(c);
    return rc;
}

static int log_of(char *path, const server *srv, const char *branch, bough_error *err) {
    return bough_path(path, BOUGH_PATH_MAX, err, "%s/branches/%s/postgres.log", srv->store_dir,
                      branch);
}

int computes_explain(server *srv, const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX], line[384], hint[384];
    int code = err->code;
    if (code != BOUGH_E_PG || log_of(path, srv, branch, NULL) != BOUGH_OK) return code;
    if (bough_pglog_failure(line, sizeof line, hint, sizeof hint, &code, path, 0) != 0 ||
        code != BOUGH_E_NOSPACE)
        return err->code;
    (void)bough_fail(err, code, "no space left for the branch: %s", line);
    return bough_hint(err, "Free space on the file system of \"%s\", then retry.", srv->store_dir);
}

/* Shared memory, then the process. */
static int spawn(server *srv, entry *e, const bough_pg *pg, const char *pgdata,
                 const socket_dirs *dirs, const char *tls_dir, bough_error *err) {
    char log_path[BOUGH_PATH_MAX], dynshm[BOUGH_PATH_MAX], history[BOUGH_PATH_MAX];
    char group[BOUGH_PATH_MAX], **layers = NULL;
    const char **readable = NULL;
    const char *home = computes_home(e);
    int fd = -1, group_errno = 0;
    int rc = bough_orphans_end(pgdata, COMPUTE_STOP_MS, err);
    bool follows = e->endpoint.is_read_only;
    if (!rc) rc = bough_dynshm_begin(dynshm, pgdata, home, err);
    bool has_dynshm = !rc;
    if (!rc) rc = log_of(log_path, srv, home, err);
    if (!rc)
        rc = bough_path(history, sizeof history, err, "%s/branches/%s/history", srv->store_dir,
                        e->branch.id);
    if (!rc) rc = bough_mkdirs(history, 0700, err); /* branches of older versions have none */
    if (!rc) rc = bough_store_layer_dirs(&layers, srv->store, home, err);
    if (!rc) rc = bough_store_prepare(&e->shm, &fd, srv->store, home, err);
    if (!rc) rc = make_key(srv, e, err);
    bool keeps = !rc && !follows && history_is_kept(srv, &e->branch), is_changed = false;
    /* WAL behind a restore point will not stay */
    if (!rc && !follows && !keeps)
        rc = bough_store_forget_all(&is_changed, srv->store, e->branch.id, err);
    if (!rc) {
        bough_shm_keep_history(e->shm, keeps);
        const char *rw[3] = {NULL};
        size_t n = 0;
        if (!follows) rw[n++] = history;
        if (*dynshm) rw[n] = dynshm;
        n = 0;
        while (layers[n]) n++;
        readable = calloc(n + 3, sizeof *readable);
        if (readable) {
            memcpy(readable, layers, n * sizeof *readable);
            readable[n] = tls_dir;
            if (follows) readable[n + 1] = history;
        }
        cgroup_begin(group, &srv->cgroup, e->endpoint.id, e->endpoint.most_quarters);
        bough_compute_spec spec = {.pg = pg,
                                   .pgdata = pgdata,
                                   .socket_dir = dirs->all,
                                   .handoff_dir = dirs->handoff,
                                   .log_path = log_path,
                                   .preload = srv->preload,
                                   .shm_fd = fd,
                                   .ro_paths = readable,
                                   .rw_paths = rw,
                                   .group = *group ? group : NULL,
                                   .group_errno = &group_errno};
        rc = readable ? bough_compute_start(&e->compute, &spec, err)
                      : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    if (!rc) bough_shm_set_postmaster(e->shm, bough_compute_pid(e->compute));
    if (group_errno)
        bough_log(BOUGH_LOG_WARN, "a compute runs without limits", "endpoint", e->endpoint.id,
                  "error", strerror(group_errno), NULL);
    BOUGH_POINT(rc, "start.spawned");
    if (has_dynshm && !e->compute) bough_dynshm_end(pgdata, home); /* else let_go() does it */
    if (fd >= 0) close(fd);
    free(readable);
    bough_store_free_list(layers);
    return rc;
}

/* (locked) All that a start needs but the process; `made` are settings of what it follows. */
static int prepare(compute_conf *c, char ***made, server *srv, entry *e, bough_error *err) {
    door_address address;
    int rc = computes_make_room(srv, e, err);
    if (!rc && e->endpoint.is_read_only) rc = standby_make(made, srv, e, err);
    if (!rc) rc = computes_conf(c, srv, e, err);
    if (!rc) rc = bough_mkdirs(c->dirs.all, 0755, err);
    if (!rc) rc = bough_mkdirs(c->dirs.handoff, 0700, err);
    if (!rc) {
        door_address_of(&address, srv->door,
                        e->endpoint.is_read_only ? e->endpoint.id
                                                 : tls_name_of(&e->branch, e->endpoint.id));
        rc = tls_prepare(&c->tls, srv, address.name, err);
    }
    return rc;
}

static int begin(server *srv, const bough_branch_row *branch, const bough_endpoint_row *endpoint,
                 int major, const char *const *carried, bool is_closed, bough_error *err) {
    bough_pg pg;
    char **made = NULL;
    compute_conf *c = malloc(sizeof *c);
    entry *e = c ? obtain(srv, branch, endpoint, major) : NULL;
    int rc = e ? bough_pg_find(&pg, major, err) : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = prepare(c, &made, srv, e, err);
    if (!rc) {
        c->conf.carried = made ? (const char *const *)made : carried;
        c->conf.is_closed = is_closed;
        rc = bough_conf_write(c->pgdata, &c->conf, err);
    }
    flow_free_carried(made);
    BOUGH_POINT(rc, "start.configured");
    if (rc && e) {
        pthread_mutex_lock(&srv->computes->mutex);
        e->is_coming = false;
        pthread_mutex_unlock(&srv->computes->mutex);
        if (endpoint->is_read_only) standby_discard(srv, e);
    }
    if (rc) goto out;
    (void)bough_wait_begin();
    while (sem_wait(&srv->computes->starts) != 0 && errno == EINTR) continue;
    bough_wait_end();
    e->has_slot = true;
    e->has_tls = pg.has_tls;
    rc = spawn(srv, e, &pg, c->pgdata, &c->dirs, c->tls.dir, err);
    if (!rc) {
        rc = watch_begin(srv, e, err);
        if (rc &&
            bough_compute_stop(e->compute, BOUGH_STOP_KILL, COMPUTE_STOP_MS, NULL) != BOUGH_OK)
            bough_log(BOUGH_LOG_WARN, "could not stop a compute", "branch", branch->id, NULL);
    }
    if (rc) let_go(srv, e);
out:
    if (c) explicit_bzero(c, sizeof *c);
    free(c);
    return rc;
}

int computes_begin(server *srv, const bough_branch_row *branch, const bough_endpoint_row *endpoint,
                   int major, const char *const *carried, bough_error *err) {
    return begin(srv, branch, endpoint, major, carried, false, err);
}

int computes_begin_closed(server *srv, const bough_branch_row *branch,
                          const bough_endpoint_row *endpoint, int major, const char *const *carried,
                          bough_error *err) {
    return begin(srv, branch, endpoint, major, carried, true, err);
}

/* When the postmaster that forked this session last read its configuration. */
static int load_time(char *out, size_t size, const bough_sql_place *place, bough_error *err) {
    PGconn *conn = NULL;
    PGresult *result = NULL;
    int rc = bough_sql_connect(&conn, place, "template1", BOUGH_SQL_GLANCE, err);
    if (!rc)
        rc = bough_sql_query(&result, conn, "SELECT extract(epoch FROM pg_conf_load_time())", 0,
                             NULL, err);
    if (!rc) (void)snprintf(out, size, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    PQfinish(conn);
    return rc;
}

int computes_open(server *srv, const char *home, bough_error *err) {
    char before[64], now[64];
    bough_sql_place place;
    const entry *e = computes_get(srv, home);
    if (!e || !e->compute) return bough_fail(err, BOUGH_E_INTERNAL, "no compute was begun");
    int rc = computes_place(&place, srv, e->endpoint.id, err);
    if (!rc) rc = load_time(before, sizeof before, &place, err);
    if (!rc) rc = computes_reconfigure(srv, e, err);
    /* the postmaster reads pg_hba.conf after its settings and before it forks another session */
    for (double until = bough_now_ms() + OPEN_MS; !rc;) {
        struct timespec pause = {.tv_nsec = 2000000};
        rc = load_time(now, sizeof now, &place, err);
        if (!rc && strcmp(now, before) != 0) break;
        if (!rc && bough_now_ms() > until)
            rc = bough_fail(err, BOUGH_E_TIMEOUT, "the compute does not read its configuration");
        (void)nanosleep(&pause, NULL);
    }
    return rc;
}

/* (locked) Wait until connections are taken; a compute that does not get there is stopped. */
static int await_ready(server *srv, entry *e, const char *cause, bough_error *err) {
    int limit_ms = e->endpoint.is_read_only ? STANDBY_READY_MS : COMPUTE_READY_MS;
    int rc = bough_compute_wait_ready(e->compute, SLOT_MS, err);
    if (rc == BOUGH_E_TIMEOUT) { /* it has much to replay, or hangs: others start meanwhile */
        give_slot(srv, e);
        rc = bough_compute_wait_ready(e->compute, limit_ms - SLOT_MS, err);
    }
    if (rc) {
        if (bough_compute_stop(e->compute, BOUGH_STOP_KILL, COMPUTE_STOP_MS, NULL) != BOUGH_OK)
            bough_log(BOUGH_LOG_WARN, "could not stop a compute", "branch", e->branch.id, NULL);
        if (e->endpoint.is_read_only) {
            standby_explain(srv, e); /* its own log goes with its files */
            (void)bough_hint(err, "The server's log, boughd.log, says why.");
        }
        let_go(srv, e);
        return rc;
    }
    change(srv, e, true, cause);
    if (!e->endpoint.is_read_only) standbys_follow(srv, e->branch.id);
    return BOUGH_OK;
}

int computes_wait(server *srv, const char *home, const char *cause, bough_error *err) {
    entry *e = computes_get(srv, home);
    if (!e || !e->compute) return bough_fail(err, BOUGH_E_INTERNAL, "no compute was begun");
    int rc = await_ready(srv, e, cause, err);
    give_slot(srv, e);
    BOUGH_POINT(rc, "start.ready");
    return rc;
}

int computes_adopt(bool *found, server *srv, const bough_branch_row *branch,
                   const bough_endpoint_row *endpoint, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    bough_project_row project;
    *found = false;
    int rc = bough_projects_get(&project, srv->cat, branch->project_id, err);
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, bough_endpoint_home(endpoint), err);
    if (rc) return rc;
    entry *e = obtain(srv, branch, endpoint, project.pg_major);
    if (!e) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    rc = bough_compute_adopt(&e->compute, pgdata, err);
    if (rc == BOUGH_E_NOTFOUND) {
        (void)pools_stop(srv, endpoint->id); /* it cannot wake what it is in front of */
        bough_ignore(computes_clear_rest(srv, bough_endpoint_home(endpoint), NULL));
        bough_error_clear(err);
        return BOUGH_OK;
    }
    if (!rc) rc = bough_shm_attach(&e->shm, bough_compute_pid(e->compute), pgdata, err);
    if (!rc) bough_shm_refuse(e->shm, srv->store); /* what the server before could not say */
    if (!rc) {
        char key[BOUGH_SHM_KEY_SIZE];
        bough_shm_key(key, e->shm);
        set_key(srv, e, key);
    }
    if (!rc) rc = watch_begin(srv, e, err);
    if (rc && e->compute && endpoint->is_read_only) /* its files go with it */
        bough_ignore(bough_compute_stop(e->compute, BOUGH_STOP_KILL, COMPUTE_STOP_MS, NULL));
    if (rc) {
        let_go(srv, e);
        return rc;
    }
    e->has_tls = bough_conf_has_tls(pgdata); /* as it was started, whatever is installed now */
    if (bough_compute_ready(e->compute))     /* else its first use waits */
        change(srv, e, true, "it ran already when the server started");
    *found = true;
    return BOUGH_OK;
}

/* ---- using ---- */

static int check_restarts(const entry *e, bough_error *err) {
    double now = bough_now_ms();
    if (!e) return BOUGH_OK;
    for (int i = 0; i < RESTARTS; i++)
        if (e->ends_ms[i] <= 0 || now - e->ends_ms[i] > RESTARTS_MS) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_PRECONDITION,
                     "the compute of branch \"%.200s\" ended %d times within a minute",
                     e->branch.name, RESTARTS);
    if (e->endpoint.is_read_only)
        return bough_hint(err, "The server's log says why; then start its endpoint.");
    return bough_hint(err, "Read its log, branches/%s/postgres.log; then start its endpoint.",
                      e->branch.id);
}

/* (locked) It may have been deleted, or been given to another branch, while we waited for the lock:
 * that branch's compute has its sockets then. */
static int check_still_there(server *srv, const bough_branch_row *branch,
                             const bough_endpoint_row *endpoint, bough_error *err) {
    bough_endpoint_row now;
    int rc = bough_endpoints_get(&now, srv->cat, branch->project_id, endpoint->id, err);
    if (!rc && strcmp(now.branch_id, branch->id) != 0) {
        (void)bough_fail(err, BOUGH_E_BUSY, "endpoint \"%s\" is of another branch now",
                         endpoint->id);
        rc = bough_hint(err, "Try again.");
    }
    return rc;
}

/* (locked) Whether that compute runs for another endpoint than this one. */
static bool is_of_another(const server *srv, const entry *e, const bough_endpoint_row *endpoint) {
    pthread_mutex_lock(&srv->computes->mutex);
    bool is = strcmp(e->endpoint.id, endpoint->id) != 0;
    pthread_mutex_unlock(&srv->computes->mutex);
    return is;
}

int computes_use_locked(server *srv, const bough_branch_row *branch,
                        const bough_endpoint_row *endpoint, compute_cause cause, bough_error *err) {
    bough_project_row project;
    const char *home = bough_endpoint_home(endpoint);
    entry *e = computes_get(srv, home);
    int rc = check_still_there(srv, branch, endpoint, err);
    if (!rc && e && e->compute && is_of_another(srv, e, endpoint))
        rc = computes_stop(srv, home, false, "its endpoint is gone", err);
    if (rc) return rc;
    if (e && e->compute) {
        if (bough_compute_running(e->compute)) {
            int ready =
                computes_is_active(srv, home) ? BOUGH_OK : await_ready(srv, e, cause.text, err);
            /* an adopted one may have been stopping when its server died: start it anew */
            if (ready != BOUGH_E_PG) return ready;
            bough_error_clear(err);
        } else {
            note_end(srv, e);
        }
    }
    if (strcmp(branch->state, "ready") != 0)
        return bough_fail(err, BOUGH_E_PRECONDITION, "branch \"%.200s\" is in state \"%s\"",
                          branch->name, branch->state);
    rc = cause.is_asked ? BOUGH_OK : check_restarts(e, err);
    if (!rc) rc = bough_projects_get(&project, srv->cat, branch->project_id, err);
    if (!rc) rc = computes_begin(srv, branch, endpoint, project.pg_major, NULL, err);
    if (!rc) rc = computes_wait(srv, home, cause.text, err);
    if (rc) return rc;
    if (*endpoint->last_error &&
        bough_endpoints_set_error(srv->cat, endpoint->id, "", NULL) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not clear an endpoint's error", "endpoint", endpoint->id,
                  NULL);
    /* what follows another is made anew at each start */
    if (!endpoint->is_read_only && bough_store_sync_pending(srv->store, branch->id))
        computes_sync_later(srv, branch);
    return BOUGH_OK;
}

int computes_use_pooled(server *srv, const bough_branch_row *branch,
                        const bough_endpoint_row *endpoint, compute_cause cause, bough_error *err) {
    bough_branch_row fresh;
    int rc = lock_take(srv->locks, branch->id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    rc = bough_branches_get(&fresh, srv->cat, branch->project_id, branch->id, err);
    if (!rc && !computes_runs(srv, endpoint))
        rc = computes_use_locked(srv, &fresh, endpoint, cause, err);
    if (!rc) rc = pools_use(srv, endpoint->id, err);
    lock_drop(srv->locks, branch->id);
    return rc;
}

int computes_use(server *srv, const bough_branch_row *branch, const bough_endpoint_row *endpoint,
                 compute_cause cause, bough_error *err) {
    bough_branch_row fresh;
    if (computes_runs(srv, endpoint)) return BOUGH_OK;
    int rc = lock_take(srv->locks, branch->id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    /* it may have been deleted while we waited */
    rc = bough_branches_get(&fresh, srv->cat, branch->project_id, branch->id, err);
    if (!rc) rc = computes_use_locked(srv, &fresh, endpoint, cause, err);
    lock_drop(srv->locks, branch->id);
    return rc;
}

/* ---- stopping ---- */

int computes_stop(server *srv, const char *home, bool is_urgent, const char *cause,
                  bough_error *err) {
    entry *e = computes_get(srv, home);
    if (!e || !e->compute) return BOUGH_OK;
    bough_error trouble;
    change(srv, e, false, cause); /* from now on nobody is handed to it */
    int rc = is_urgent ? BOUGH_E_TIMEOUT
                       : bough_compute_stop(e->compute, BOUGH_STOP_FAST, COMPUTE_STOP_MS, err);
    bool in_order = rc == BOUGH_OK;
    if (rc) rc = bough_compute_stop(e->compute, BOUGH_STOP_KILL, COMPUTE_STOP_MS, err);
    BOUGH_POINT(rc, "stop.ended");
    if (rc) return rc;
    let_go(srv, e);
    BOUGH_POINT(rc, "stop.let-go");
    if (!in_order || e->endpoint.is_read_only) return BOUGH_OK;
    bool keeps =
        history_is_kept(srv, &e->branch) || bough_store_is_followed(srv->store, e->branch.id);
    if (bough_store_trim(srv->store, home, keeps, &trouble) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "WAL of a suspended branch keeps its space", "branch", home,
                  "error", trouble.message, NULL);
    return BOUGH_OK;
}

typedef struct stop_job {
    server *srv;
    char home[BOUGH_ID_SIZE], lock[BOUGH_ID_SIZE];
} stop_job;

static void *stop_one(void *arg) {
    stop_job *job = arg;
    bough_error err = {0};
    if (lock_take(job->srv->locks, job->lock, LOCK_WAIT_MS, &err) == BOUGH_OK) {
        (void)(computes_stop(job->srv, job->home, false, "the server ended", &err) == BOUGH_OK);
        lock_drop(job->srv->locks, job->lock);
    }
    if (err.code)
        bough_log(BOUGH_LOG_WARN, "could not stop a compute", "branch", job->home, "error",
                  err.message, NULL);
    return NULL;
}

void computes_stop_all(server *srv) {
    pthread_mutex_lock(&srv->computes->mutex);
    size_t n = 0;
    for (const entry *e = srv->computes->first; e; e = e->next) n += !e->is_spare;
    stop_job *jobs = calloc(n ? n : 1, sizeof *jobs);
    size_t i = 0;
    for (const entry *e = srv->computes->first; jobs && e; e = e->next) {
        if (e->is_spare) continue;
        jobs[i].srv = srv;
        (void)snprintf(jobs[i].home, BOUGH_ID_SIZE, "%s", computes_home(e));
        memcpy(jobs[i++].lock, e->branch.id, BOUGH_ID_SIZE);
    }
    pthread_mutex_unlock(&srv->computes->mutex);
    enum { AT_ONCE = 16 };
    for (i = 0; jobs && i < n; i += AT_ONCE) {
        pthread_t threads[AT_ONCE];
        bool made[AT_ONCE] = {false};
        for (size_t k = 0; k < AT_ONCE && i + k < n; k++) {
            made[k] = pthread_create(&threads[k], NULL, stop_one, &jobs[i + k]) == 0;
            if (!made[k]) (void)stop_one(&jobs[i + k]);
        }
        for (size_t k = 0; k < AT_ONCE && i + k < n; k++)
            if (made[k]) (void)pthread_join(threads[k], NULL);
    }
    free(jobs);
}

/* ---- durability ---- */

bool computes_waits_for_sync(server *srv, const char *branch) {
    char pgdata[BOUGH_PATH_MAX];
    if (bough_store_sync_pending(srv->store, branch))
        return !bough_store_is_refused(srv->store, branch);
    /* it waits for nothing, and could not be told so */
    return computes_is_active(srv, branch) &&
           bough_store_pgdata(pgdata, srv->store, branch, NULL) == BOUGH_OK &&
           bough_conf_holds_wal(pgdata);
}

/* (locked) Sync, then write the configuration without hold_wal, if it has it. */
static int sync_branch(server *srv, const char *branch, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    bough_shm *live;
    int rc = computes_shm(&live, srv, branch, err);
    if (!rc) rc = bough_store_sync(srv->store, branch, live, err);
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, branch, err);
    const entry *e = computes_get(srv, branch);
    if (rc || !e || !e->compute || !bough_compute_running(e->compute) ||
        !bough_conf_holds_wal(pgdata))
        return rc;
    return computes_reconfigure(srv, e, err);
}

/* (locked) The kernel tells one process once that it could not write: those who wrote, or read what
 * may be lost, must learn it from us. */
static void pass_refusal(server *srv, const char *branch) {
    bough_error err;
    const entry *e = computes_get(srv, branch);
    if (!e || !e->compute || !bough_store_is_refused(srv->store, branch)) return;
    if (e->shm) bough_shm_refuse(e->shm, srv->store);
    if (bough_store_sync_pending(srv->store, branch) &&
        computes_stop(srv, branch, true, "the disk refused what it stands on", &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_ERROR, "could not stop a compute", "branch", branch, "error",
                  err.message, NULL);
}

static void on_sync_job(void *arg) {
    stop_job *job = arg;
    bough_error err = {0};
    bough_branch_row row;
    if (lock_take(job->srv->locks, job->home, LOCK_WAIT_MS, &err) == BOUGH_OK) {
        int rc = bough_store_has_branch(job->srv->store, job->home)
                     ? sync_branch(job->srv, job->home, &err)
                     : BOUGH_OK;
        if (rc) pass_refusal(job->srv, job->home);
        lock_drop(job->srv->locks, job->home);
        if (rc && bough_branches_get_any(&row, job->srv->cat, job->home, NULL) == BOUGH_OK &&
            *row.parent_id &&
            lock_take(job->srv->locks, row.parent_id, LOCK_WAIT_MS, NULL) == BOUGH_OK) {
            pass_refusal(job->srv, row.parent_id);
            lock_drop(job->srv->locks, row.parent_id);
        }
    }
    if (err.code)
        bough_log(BOUGH_LOG_WARN, "could not make layers durable yet", "branch", job->home, "error",
                  err.message, NULL);
    mending_tick(job->srv);
    free(job);
}

void computes_sync_later(server *srv, const bough_branch_row *branch) {
    stop_job *job = malloc(sizeof *job);
    if (!job) return; /* it stays pending; the next start asks again */
    job->srv = srv;
    memcpy(job->home, branch->id, sizeof job->home);
    if (job_pool_add(srv->background, on_sync_job, job, NULL) != BOUGH_OK) free(job);
}

/* ---- checkpoints ---- */

size_t computes_checkpointed(computes_checkpoint **found, server *srv) {
    size_t n = 0, active = 0;
    *found = NULL;
    pthread_mutex_lock(&srv->computes->mutex);
    for (const entry *e = srv->computes->first; e; e = e->next) active += e->is_active;
    if (active) *found = calloc(active, sizeof **found);
    for (const entry *e = srv->computes->first; *found && e; e = e->next) {
        /* the memory of an active one is let go under the mutex */
        if (!e->is_active || e->endpoint.is_read_only || !e->shm) continue;
        uint64_t redo = bough_shm_redo(e->shm);
        if (redo == e->seen_redo) continue;
        memcpy((*found)[n].branch, e->branch.id, BOUGH_ID_SIZE);
        (*found)[n++].redo = redo;
    }
    pthread_mutex_unlock(&srv->computes->mutex);
    if (n) return n;
    free(*found);
    *found = NULL;
    return 0;
}

void computes_saw_checkpoint(server *srv, const computes_checkpoint *seen) {
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = computes_find(srv->computes, seen->branch);
    if (e) e->seen_redo = seen->redo;
    pthread_mutex_unlock(&srv->computes->mutex);
}
