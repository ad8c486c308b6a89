/*
 * The supervisor.
 *
 * Entries are one per branch that has had a compute; the list and its plain fields are guarded by
 * the mutex, `compute` and `shm` by the branch's lock. An entry is active from computes_wait() or
 * adoption on.
 *
 * A compute's pidfd is watched by the loop through a duplicate. When it fires, a background job
 * takes the branch's lock and looks whether the process it was told about is still the current one
 * and has ended; so a stop that was asked for is never taken for a crash.
 */
#include "server/computes.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "model/rules.h"
#include "pg/compute.h"
#include "pg/conf.h"
#include "pg/dynshm.h"
#include "pg/orphans.h"
#include "pg/pglog.h"
#include "pg/sql.h"
#include "server/door.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/inside.h"
#include "server/pools.h"
#include "server/tls.h"
#include "util/log.h"
#include "util/point.h"

/* Restart policy of a supervisor: at most so many unexpected ends within the time. */
enum { RESTARTS = 3, RESTARTS_MS = 60000, ROOM_WAIT_MS = 2000 };
/* How long a postmaster may take to read its configuration. */
enum { OPEN_MS = 30000 };
enum { CHAINS = 1024 };
/* After the end of a pooler. */
enum { LOOKS = 20, LOOK_MS = 50 };

typedef struct watch {
    server *srv;
    char branch[BOUGH_ID_SIZE];
    uint64_t generation;
    struct event *event;
    int fd;
} watch;

typedef struct entry {
    struct entry *next, *same; /* of all; of the same hash */
    bough_branch_row branch;
    bough_endpoint_row endpoint;
    int major;
    bough_compute *compute;
    bough_shm *shm;
    watch *watch;
    uint64_t generation, look; /* the look around for room that tried it last */
    bool is_active, has_tls;
    bool has_slot;    /* of `starts` */
    bool is_coming;   /* being started: counts as awake */
    pid_t postmaster; /* while active */
    int sessions;     /* holds */
    int64_t started_ms, idle_since_ms, since_ms;
    char cause[160], busy[160];
    double ends_ms[RESTARTS]; /* of the latest unexpected ends; 0 for none */
} entry;

struct computes {
    pthread_mutex_t mutex;
    entry *first, *chains[CHAINS];
    uint64_t generation, looks;
    sem_t starts; /* taken by computes_begin(), given back by computes_wait(), or when the process
                     is let go before: starting is bound to the processors */
};

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

static unsigned chain_of(const char *branch) {
    unsigned hash = 2166136261U; /* FNV-1a */
    for (; *branch; branch++) hash = (hash ^ (unsigned char)*branch) * 16777619U;
    return hash % CHAINS;
}

/* With the mutex. */
static entry *find(const struct computes *c, const char *branch) {
    entry *e = c->chains[chain_of(branch)];
    while (e && strcmp(e->branch.id, branch) != 0) e = e->same;
    return e;
}

static entry *get(const server *srv, const char *branch) {
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = find(srv->computes, branch);
    pthread_mutex_unlock(&srv->computes->mutex);
    return e;
}

/* The entry of a branch, made where there is none. */
static entry *obtain(server *srv, const bough_branch_row *branch,
                     const bough_endpoint_row *endpoint, int major) {
    struct computes *c = srv->computes;
    pthread_mutex_lock(&c->mutex);
    entry *e = find(c, branch->id);
    if (!e && (e = calloc(1, sizeof *e))) {
        entry **chain = &c->chains[chain_of(branch->id)];
        e->next = c->first;
        e->same = *chain;
        c->first = *chain = e;
    }
    if (e) {
        e->branch = *branch;
        e->endpoint = *endpoint;
        e->major = major;
    }
    pthread_mutex_unlock(&c->mutex);
    return e;
}

bool computes_is_active(const server *srv, const char *branch) {
    return computes_started_ms(srv, branch) != 0;
}

int64_t computes_started_ms(const server *srv, const char *branch) {
    pthread_mutex_lock(&srv->computes->mutex);
    const entry *e = find(srv->computes, branch);
    int64_t started_ms = e && e->is_active ? e->started_ms : 0;
    pthread_mutex_unlock(&srv->computes->mutex);
    return started_ms;
}

/* ---- sessions ---- */

/* With the mutex. */
static void hold(compute_hold *out, entry *e) {
    e->sessions++;
    e->idle_since_ms = bough_now_epoch_ms();
    *out = (compute_hold){.major = e->major, .has_tls = e->has_tls};
    memcpy(out->branch, e->branch.id, sizeof out->branch);
    memcpy(out->endpoint, e->endpoint.id, sizeof out->endpoint);
    memcpy(out->project, e->branch.project_id, sizeof out->project);
}

bool computes_hold(compute_hold *out, server *srv, const char *endpoint, const char *branch) {
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = srv->computes->first;
    while (e && !(e->is_active && (endpoint ? strcmp(e->endpoint.id, endpoint) == 0
                                            : strcmp(e->branch.id, branch) == 0)))
        e = e->next;
    if (e) hold(out, e);
    pthread_mutex_unlock(&srv->computes->mutex);
    return e != NULL;
}

static pid_t parent_of(pid_t pid) {
    char path[64], text[512];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) close(fd);
    if (n <= 0) return -1;
    text[n] = '\0';
    const char *name_end = strrchr(text, ')'); /* the name may hold anything */
    int parent = -1;
    return name_end && sscanf(name_end + 1, " %*c %d", &parent) == 1 ? (pid_t)parent : -1;
}

bool computes_hold_process(compute_hold *out, server *srv, pid_t pid) {
    pid_t parent = parent_of(pid);
    if (pid <= 1 || parent <= 0) return false;
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = srv->computes->first;
    while (e && !(e->is_active && (e->postmaster == parent || e->postmaster == pid))) e = e->next;
    if (e) hold(out, e);
    pthread_mutex_unlock(&srv->computes->mutex);
    return e != NULL;
}

void computes_release(server *srv, const char *branch) {
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = find(srv->computes, branch);
    if (e && e->sessions > 0) {
        e->sessions--;
        e->idle_since_ms = bough_now_epoch_ms();
    }
    pthread_mutex_unlock(&srv->computes->mutex);
}

void computes_why(compute_why *why, const server *srv, const char *branch) {
    *why = (compute_why){0};
    pthread_mutex_lock(&srv->computes->mutex);
    const entry *e = find(srv->computes, branch);
    if (e) {
        why->is_active = e->is_active;
        why->since_ms = e->since_ms;
        why->sessions = e->sessions;
        why->idle_since_ms = e->idle_since_ms;
        memcpy(why->cause, e->cause, sizeof why->cause);
        memcpy(why->busy, e->busy, sizeof why->busy);
    }
    pthread_mutex_unlock(&srv->computes->mutex);
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

int computes_count(const server *srv) {
    int n = 0;
    pthread_mutex_lock(&srv->computes->mutex);
    for (const entry *e = srv->computes->first; e; e = e->next) n += e->is_active;
    pthread_mutex_unlock(&srv->computes->mutex);
    return n;
}

int computes_socket_dir(char *out, const server *srv, const char *endpoint, bough_error *err) {
    return bough_path(out, BOUGH_PATH_MAX, err, "%s/run/%s", srv->store_dir, endpoint);
}

/* (locked) */
static void give_slot(server *srv, entry *e) {
    if (e->has_slot) (void)sem_post(&srv->computes->starts);
    e->has_slot = false;
}

/* (locked) Drop what belongs to a process that has ended, and what it left. */
static void let_go(server *srv, entry *e) {
    char pgdata[BOUGH_PATH_MAX];
    bough_error err;
    give_slot(srv, e);
    (void)pools_stop(srv, e->endpoint.id);
    if (e->compute && bough_store_pgdata(pgdata, srv->store, e->branch.id, &err) == BOUGH_OK) {
        if (bough_orphans_end(pgdata, COMPUTE_STOP_MS, &err) == BOUGH_OK)
            bough_dynshm_end(pgdata, e->branch.id);
        else
            bough_log(BOUGH_LOG_WARN, "backends remain", "branch", e->branch.id, "error",
                      err.message, NULL);
    }
    pthread_mutex_lock(&srv->computes->mutex);
    e->is_active = e->is_coming = false;
    e->postmaster = 0;
    watch *w = e->watch;
    e->watch = NULL;
    pthread_mutex_unlock(&srv->computes->mutex);
    watch_end(w);
    bough_compute_free(e->compute);
    bough_shm_close(e->shm);
    e->compute = NULL;
    e->shm = NULL;
    cgroup_end(&srv->cgroup, e->endpoint.id);
}

/* ---- unexpected ends ---- */

typedef struct ended_job {
    server *srv;
    char branch[BOUGH_ID_SIZE];
    uint64_t generation;
} ended_job;

/* (locked) The compute has ended by itself: note it. */
static void note_end(server *srv, entry *e) {
    double now = bough_now_ms();
    int oldest = 0;
    for (int i = 1; i < RESTARTS; i++)
        if (e->ends_ms[i] < e->ends_ms[oldest]) oldest = i;
    e->ends_ms[oldest] = now;
    let_go(srv, e);
    change(srv, e, false, "it ended unexpectedly");
    bough_error err;
    if (bough_endpoints_set_error(srv->cat, e->endpoint.id, "the compute ended unexpectedly",
                                  &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not record the end of a compute", "error", err.message,
                  NULL);
    bough_log(BOUGH_LOG_WARN, "compute ended unexpectedly", "branch", e->branch.id, "endpoint",
              e->endpoint.id, NULL);
}

int computes_shm(bough_shm **shm, server *srv, const char *branch, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    entry *e = get(srv, branch);
    *shm = NULL;
    if (e && e->compute && bough_compute_running(e->compute)) {
        *shm = e->shm;
        return BOUGH_OK;
    }
    if (e && e->compute) note_end(srv, e);
    int rc = bough_store_pgdata(pgdata, srv->store, branch, err);
    return rc ? rc : bough_orphans_end(pgdata, COMPUTE_STOP_MS, err);
}

static void on_ended_job(void *arg) {
    ended_job *job = arg;
    server *srv = job->srv;
    bough_error err;
    if (lock_take(srv->locks, job->branch, LOCK_WAIT_MS, &err) == BOUGH_OK) {
        entry *e = get(srv, job->branch);
        if (e && e->compute && e->generation == job->generation &&
            !bough_compute_running(e->compute))
            note_end(srv, e);
        lock_drop(srv->locks, job->branch);
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
    memcpy(job->branch, w->branch, sizeof job->branch);
    if (job_pool_add(w->srv->background, on_ended_job, job, NULL) != BOUGH_OK) free(job);
}

/* (locked) Begin to watch a process. */
static int watch_begin(server *srv, entry *e, bough_error *err) {
    watch *w = calloc(1, sizeof *w);
    if (!w) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    w->srv = srv;
    memcpy(w->branch, e->branch.id, sizeof w->branch);
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

/* The two directories of sockets of an endpoint. */
typedef struct socket_dirs {
    char all[BOUGH_PATH_MAX], handoff[BOUGH_PATH_MAX];
} socket_dirs;

static int dirs_of(socket_dirs *dirs, const server *srv, const char *endpoint, bough_error *err) {
    int rc = computes_socket_dir(dirs->all, srv, endpoint, err);
    return rc ? rc
              : bough_path(dirs->handoff, sizeof dirs->handoff, err, "%s/%s", dirs->all,
                           COMPUTE_HANDOFF_DIR);
}

static bough_conf conf_of(const server *srv, int major, int quarters, const socket_dirs *dirs,
                          const tls_files *tls, const bough_branch_row *branch,
                          const char *const *carried) {
    bough_pg pg = {.has_lz4 = false};
    bough_ignore(bough_pg_find(&pg, major, NULL));
    return (bough_conf){.major = major,
                        .quarters = quarters,
                        .has_lz4 = pg.has_lz4,
                        .socket_dir = dirs->all,
                        .handoff_dir = dirs->handoff,
                        .tls_cert = pg.has_tls ? tls->cert : NULL,
                        .tls_key = tls->key,
                        .is_read_only = branch->is_look,
                        .hold_wal = bough_store_sync_pending(srv->store, branch->id),
                        .carried = carried};
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

/* ---- room ---- */

/* (locked) Note what the compute does now; "" for nothing. */
static void note_use(server *srv, entry *e, const char *busy) {
    pthread_mutex_lock(&srv->computes->mutex);
    if (*busy) e->idle_since_ms = bough_now_epoch_ms();
    (void)snprintf(e->busy, sizeof e->busy, "%s", busy);
    pthread_mutex_unlock(&srv->computes->mutex);
}

/* Take it from those who would be handed to it, unless somebody has come meanwhile. */
static bool close_door(server *srv, entry *e) {
    pthread_mutex_lock(&srv->computes->mutex);
    bool is_free = e->is_active && e->sessions == 0;
    if (is_free) e->is_active = false;
    pthread_mutex_unlock(&srv->computes->mutex);
    return is_free;
}

/* What goes on inside. The connections that an idle pooler keeps are none: it ends first, and the
 * backends notice soon. */
static int look_inside(char *busy, size_t size, server *srv, const char *endpoint,
                       bough_error *err) {
    bool had_pooler = pools_stop(srv, endpoint);
    int rc = inside_activity(busy, size, srv, endpoint, err);
    for (int i = 0; !rc && *busy && had_pooler && i < LOOKS; i++) {
        struct timespec pause = {.tv_nsec = LOOK_MS * 1000000};
        (void)nanosleep(&pause, NULL);
        rc = inside_activity(busy, size, srv, endpoint, err);
    }
    return rc;
}

/* (locked) Look inside; where nothing goes on, stop it. */
static void suspend_unused(server *srv, entry *e, const char *cause) {
    bough_error err = {0};
    bough_operation_row operation;
    char busy[sizeof e->busy] = "";
    double started_ms = bough_now_ms();
    int pooled = pools_clients(srv, e->endpoint.id), rc = BOUGH_OK;
    if (pooled)
        (void)snprintf(busy, sizeof busy, "%d client session%s by the pooler", pooled,
                       pooled == 1 ? "" : "s");
    else
        rc = look_inside(busy, sizeof busy, srv, e->endpoint.id, &err);
    if (!rc) note_use(srv, e, busy);
    if (!rc && !*busy && close_door(srv, e)) {
        bough_log(BOUGH_LOG_INFO, "suspending an unused compute", "branch", e->branch.id, "why",
                  cause, NULL);
        rc = computes_stop(srv, e->branch.id, false, cause, &err);
        if (!rc)
            rc = flow_operation(&operation, "suspend_compute", e->branch.project_id, e->branch.id,
                                e->endpoint.id, started_ms, &err);
        if (!rc) rc = bough_operations_insert(srv->cat, &operation, &err);
    }
    if (!rc) return;
    note_use(srv, e, "it could not be asked"); /* not again at once */
    bough_log(BOUGH_LOG_WARN, "could not suspend a compute", "branch", e->branch.id, "error",
              err.message, NULL);
}

/* With the mutex: take a place among those that may be awake. Else the one whose place might be
 * had: unused for longest, and not tried in this look around. */
static bool take_place(entry **candidate, server *srv, entry *e, uint64_t look) {
    int awake = 0;
    *candidate = NULL;
    for (entry *other = srv->computes->first; other; other = other->next) {
        if (other == e || (!other->is_active && !other->is_coming)) continue;
        awake++;
        if (other->is_active && other->sessions == 0 && other->look != look &&
            (!*candidate || other->idle_since_ms < (*candidate)->idle_since_ms))
            *candidate = other;
    }
    if (srv->max_awake > 0 && awake >= srv->max_awake) return false;
    e->is_coming = true;
    return true;
}

/* One look around. Returns whether a place was taken. */
static bool look_for_room(server *srv, entry *e, int lock_wait_ms) {
    struct computes *c = srv->computes;
    pthread_mutex_lock(&c->mutex);
    uint64_t look = ++c->looks;
    for (;;) {
        entry *candidate;
        bool taken = take_place(&candidate, srv, e, look);
        if (taken || !candidate) {
            pthread_mutex_unlock(&c->mutex);
            return taken;
        }
        candidate->look = look;
        pthread_mutex_unlock(&c->mutex);
        if (lock_take(srv->locks, candidate->branch.id, lock_wait_ms, NULL) == BOUGH_OK) {
            suspend_unused(srv, candidate, "another one needed its place");
            lock_drop(srv->locks, candidate->branch.id);
        }
        pthread_mutex_lock(&c->mutex);
    }
}

/*
 * (locked) Where as many are awake as may be, suspend the one that has been unused for longest.
 * Their locks are tried while we hold one: so first without waiting, then for a while only, as
 * another who looks for room may wait for ours.
 */
static int make_room(server *srv, entry *e, bough_error *err) {
    if (look_for_room(srv, e, 0) || look_for_room(srv, e, ROOM_WAIT_MS)) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_BUSY, "%d computes are awake, as many as may be, and in use",
                     srv->max_awake);
    return bough_hint(err, "Suspend one, or start the server with a larger --max-awake.");
}

/* Shared memory, then the process. */
static int spawn(server *srv, entry *e, const bough_pg *pg, const char *pgdata,
                 const socket_dirs *dirs, const char *tls_dir, bough_error *err) {
    char log_path[BOUGH_PATH_MAX], dynshm[BOUGH_PATH_MAX], history[BOUGH_PATH_MAX];
    char group[BOUGH_PATH_MAX], **layers = NULL;
    const char **readable = NULL;
    int fd = -1, group_errno = 0;
    int rc = bough_orphans_end(pgdata, COMPUTE_STOP_MS, err);
    if (!rc) rc = bough_dynshm_begin(dynshm, pgdata, e->branch.id, err);
    if (!rc) rc = log_of(log_path, srv, e->branch.id, err);
    if (!rc)
        rc = bough_path(history, sizeof history, err, "%s/branches/%s/history", srv->store_dir,
                        e->branch.id);
    if (!rc) rc = bough_mkdirs(history, 0700, err); /* branches of older versions have none */
    if (!rc) rc = bough_store_layer_dirs(&layers, srv->store, e->branch.id, err);
    if (!rc) rc = bough_store_prepare(&e->shm, &fd, srv->store, e->branch.id, err);
    if (!rc) {
        bough_shm_keep_history(e->shm, history_is_kept(srv, &e->branch));
        const char *const rw[] = {history, *dynshm ? dynshm : NULL, NULL};
        size_t n = 0;
        while (layers[n]) n++;
        readable = calloc(n + 2, sizeof *readable);
        if (readable) {
            memcpy(readable, layers, n * sizeof *readable);
            readable[n] = tls_dir;
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
    if (fd >= 0) close(fd);
    free(readable);
    bough_store_free_list(layers);
    return rc;
}

static int begin(server *srv, const bough_branch_row *branch, const bough_endpoint_row *endpoint,
                 int major, const char *const *carried, bool is_closed, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    socket_dirs dirs;
    door_address address;
    tls_files tls;
    bough_pg pg;
    entry *e = obtain(srv, branch, endpoint, major);
    if (!e) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = bough_pg_find(&pg, major, err);
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, branch->id, err);
    if (!rc) rc = make_room(srv, e, err);
    if (!rc) rc = dirs_of(&dirs, srv, endpoint->id, err);
    if (!rc) rc = bough_mkdirs(dirs.all, 0755, err);
    if (!rc) rc = bough_mkdirs(dirs.handoff, 0700, err);
    if (!rc) rc = tls_files_of(&tls, srv, branch, err);
    if (!rc) {
        door_address_of(&address, srv->door, tls_name_of(branch, endpoint->id));
        rc = tls_prepare(&tls, srv, address.name, err);
    }
    if (!rc) {
        bough_conf conf =
            conf_of(srv, major, endpoint->most_quarters, &dirs, &tls, branch, carried);
        conf.is_closed = is_closed;
        rc = bough_conf_write(pgdata, &conf, err);
    }
    BOUGH_POINT(rc, "start.configured");
    if (rc) {
        pthread_mutex_lock(&srv->computes->mutex);
        e->is_coming = false;
        pthread_mutex_unlock(&srv->computes->mutex);
        return rc;
    }
    while (sem_wait(&srv->computes->starts) != 0 && errno == EINTR) continue;
    e->has_slot = true;
    e->has_tls = pg.has_tls;
    rc = spawn(srv, e, &pg, pgdata, &dirs, tls.dir, err);
    if (!rc) {
        rc = watch_begin(srv, e, err);
        if (rc &&
            bough_compute_stop(e->compute, BOUGH_STOP_KILL, COMPUTE_STOP_MS, NULL) != BOUGH_OK)
            bough_log(BOUGH_LOG_WARN, "could not stop a compute", "branch", branch->id, NULL);
    }
    if (rc) let_go(srv, e);
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
static int load_time(char *out, size_t size, const char *socket_dir, bough_error *err) {
    PGconn *conn = NULL;
    PGresult *result = NULL;
    int rc = bough_sql_connect(&conn, socket_dir, "template1", err);
    if (!rc)
        rc = bough_sql_query(&result, conn, "SELECT extract(epoch FROM pg_conf_load_time())", 0,
                             NULL, err);
    if (!rc) (void)snprintf(out, size, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    PQfinish(conn);
    return rc;
}

int computes_open(server *srv, const char *branch, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX], before[64], now[64];
    socket_dirs dirs;
    tls_files tls;
    entry *e = get(srv, branch);
    if (!e || !e->compute) return bough_fail(err, BOUGH_E_INTERNAL, "no compute was begun");
    int rc = bough_store_pgdata(pgdata, srv->store, branch, err);
    if (!rc) rc = dirs_of(&dirs, srv, e->endpoint.id, err);
    if (!rc) rc = tls_files_of(&tls, srv, &e->branch, err);
    if (!rc) rc = load_time(before, sizeof before, dirs.all, err);
    if (rc) return rc;
    bough_conf conf =
        conf_of(srv, e->major, e->endpoint.most_quarters, &dirs, &tls, &e->branch, NULL);
    rc = bough_conf_rewrite(pgdata, &conf, bough_compute_pid(e->compute), err);
    /* the postmaster reads pg_hba.conf after its settings and before it forks another session */
    for (double until = bough_now_ms() + OPEN_MS; !rc;) {
        struct timespec pause = {.tv_nsec = 2000000};
        rc = load_time(now, sizeof now, dirs.all, err);
        if (!rc && strcmp(now, before) != 0) break;
        if (!rc && bough_now_ms() > until)
            rc = bough_fail(err, BOUGH_E_TIMEOUT, "the compute does not read its configuration");
        (void)nanosleep(&pause, NULL);
    }
    return rc;
}

/* (locked) Wait until connections are taken; a compute that does not get there is stopped. */
static int await_ready(server *srv, entry *e, const char *cause, bough_error *err) {
    int rc = bough_compute_wait_ready(e->compute, COMPUTE_READY_MS, err);
    if (rc) {
        if (bough_compute_stop(e->compute, BOUGH_STOP_KILL, COMPUTE_STOP_MS, NULL) != BOUGH_OK)
            bough_log(BOUGH_LOG_WARN, "could not stop a compute", "branch", e->branch.id, NULL);
        let_go(srv, e);
        return rc;
    }
    change(srv, e, true, cause);
    return BOUGH_OK;
}

int computes_wait(server *srv, const char *branch, const char *cause, bough_error *err) {
    entry *e = get(srv, branch);
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
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, branch->id, err);
    if (rc) return rc;
    entry *e = obtain(srv, branch, endpoint, project.pg_major);
    if (!e) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    rc = bough_compute_adopt(&e->compute, pgdata, err);
    if (rc == BOUGH_E_NOTFOUND) {
        (void)pools_stop(srv, endpoint->id); /* it cannot wake what it is in front of */
        bough_error_clear(err);
        return BOUGH_OK;
    }
    if (!rc) rc = bough_shm_attach(&e->shm, bough_compute_pid(e->compute), pgdata, err);
    if (!rc) rc = watch_begin(srv, e, err);
    if (rc) {
        let_go(srv, e);
        return rc;
    }
    bough_pg pg = {.has_tls = false};
    bough_ignore(bough_pg_find(&pg, project.pg_major, NULL));
    e->has_tls = pg.has_tls;
    if (bough_compute_ready(e->compute)) /* else its first use waits */
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
    return bough_hint(err, "Read its log, branches/%s/postgres.log; then start its endpoint.",
                      e->branch.id);
}

int computes_use_locked(server *srv, const bough_branch_row *branch,
                        const bough_endpoint_row *endpoint, compute_cause cause, bough_error *err) {
    bough_project_row project;
    entry *e = get(srv, branch->id);
    if (e && e->compute) {
        if (bough_compute_running(e->compute)) {
            int ready = computes_is_active(srv, branch->id) ? BOUGH_OK
                                                            : await_ready(srv, e, cause.text, err);
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
    int rc = cause.is_asked ? BOUGH_OK : check_restarts(e, err);
    if (!rc) rc = bough_projects_get(&project, srv->cat, branch->project_id, err);
    if (!rc) rc = computes_begin(srv, branch, endpoint, project.pg_major, NULL, err);
    if (!rc) rc = computes_wait(srv, branch->id, cause.text, err);
    if (rc) return rc;
    if (*endpoint->last_error &&
        bough_endpoints_set_error(srv->cat, endpoint->id, "", NULL) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not clear an endpoint's error", "endpoint", endpoint->id,
                  NULL);
    if (bough_store_sync_pending(srv->store, branch->id)) computes_sync_later(srv, branch);
    return BOUGH_OK;
}

int computes_use_pooled(server *srv, const bough_branch_row *branch,
                        const bough_endpoint_row *endpoint, compute_cause cause, bough_error *err) {
    bough_branch_row fresh;
    int rc = lock_take(srv->locks, branch->id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    rc = bough_branches_get(&fresh, srv->cat, branch->project_id, branch->id, err);
    if (!rc && !computes_is_active(srv, branch->id))
        rc = computes_use_locked(srv, &fresh, endpoint, cause, err);
    if (!rc) rc = pools_use(srv, endpoint->id, err);
    lock_drop(srv->locks, branch->id);
    return rc;
}

int computes_use(server *srv, const bough_branch_row *branch, const bough_endpoint_row *endpoint,
                 compute_cause cause, bough_error *err) {
    bough_branch_row fresh;
    if (computes_is_active(srv, branch->id)) return BOUGH_OK;
    int rc = lock_take(srv->locks, branch->id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    /* it may have been deleted while we waited */
    rc = bough_branches_get(&fresh, srv->cat, branch->project_id, branch->id, err);
    if (!rc) rc = computes_use_locked(srv, &fresh, endpoint, cause, err);
    lock_drop(srv->locks, branch->id);
    return rc;
}

/* ---- stopping ---- */

int computes_stop(server *srv, const char *branch, bool is_urgent, const char *cause,
                  bough_error *err) {
    entry *e = get(srv, branch);
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
    if (in_order && bough_store_trim(srv->store, branch, history_is_kept(srv, &e->branch),
                                     &trouble) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "WAL of a suspended branch keeps its space", "branch", branch,
                  "error", trouble.message, NULL);
    return BOUGH_OK;
}

typedef struct stop_job {
    server *srv;
    char branch[BOUGH_ID_SIZE];
} stop_job;

static void *stop_one(void *arg) {
    stop_job *job = arg;
    bough_error err = {0};
    if (lock_take(job->srv->locks, job->branch, LOCK_WAIT_MS, &err) == BOUGH_OK) {
        (void)(computes_stop(job->srv, job->branch, false, "the server ended", &err) == BOUGH_OK);
        lock_drop(job->srv->locks, job->branch);
    }
    if (err.code)
        bough_log(BOUGH_LOG_WARN, "could not stop a compute", "branch", job->branch, "error",
                  err.message, NULL);
    return NULL;
}

void computes_stop_all(server *srv) {
    pthread_mutex_lock(&srv->computes->mutex);
    size_t n = 0;
    for (const entry *e = srv->computes->first; e; e = e->next) n++;
    stop_job *jobs = calloc(n ? n : 1, sizeof *jobs);
    size_t i = 0;
    for (const entry *e = srv->computes->first; jobs && e; e = e->next) {
        jobs[i].srv = srv;
        memcpy(jobs[i++].branch, e->branch.id, BOUGH_ID_SIZE);
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

/* (locked) Sync, then write the configuration without hold_wal. */
static int sync_branch(server *srv, const char *branch, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    socket_dirs dirs;
    tls_files tls;
    bool advanced = false;
    int rc = bough_store_sync(&advanced, srv->store, branch, err);
    entry *e = get(srv, branch);
    if (rc || !advanced || !e || !e->compute || !bough_compute_running(e->compute)) return rc;
    rc = bough_store_pgdata(pgdata, srv->store, branch, err);
    if (!rc) rc = dirs_of(&dirs, srv, e->endpoint.id, err);
    if (!rc) rc = tls_files_of(&tls, srv, &e->branch, err);
    if (rc) return rc;
    bough_conf conf =
        conf_of(srv, e->major, e->endpoint.most_quarters, &dirs, &tls, &e->branch, NULL);
    conf.hold_wal = false;
    return bough_conf_release_wal(pgdata, &conf, bough_compute_pid(e->compute), err);
}

static void on_sync_job(void *arg) {
    stop_job *job = arg;
    bough_error err = {0};
    if (lock_take(job->srv->locks, job->branch, LOCK_WAIT_MS, &err) == BOUGH_OK) {
        if (bough_store_has_branch(job->srv->store, job->branch))
            (void)(sync_branch(job->srv, job->branch, &err) == BOUGH_OK);
        lock_drop(job->srv->locks, job->branch);
    }
    if (err.code)
        bough_log(BOUGH_LOG_WARN, "could not make layers durable yet", "branch", job->branch,
                  "error", err.message, NULL);
    free(job);
}

void computes_sync_later(server *srv, const bough_branch_row *branch) {
    stop_job *job = malloc(sizeof *job);
    if (!job) return; /* it stays pending; the next start asks again */
    job->srv = srv;
    memcpy(job->branch, branch->id, sizeof job->branch);
    if (job_pool_add(srv->background, on_sync_job, job, NULL) != BOUGH_OK) free(job);
}

/* ---- suspending ---- */

int computes_suspend_seconds(const bough_endpoint_row *endpoint) {
    if (endpoint->suspend_timeout_seconds == 0) return BOUGH_SUSPEND_DEFAULT_SECONDS;
    return endpoint->suspend_timeout_seconds > 0 ? endpoint->suspend_timeout_seconds : 0;
}

/* How long no session of the door has used it; 0 while one does. */
static long long quiet_seconds(server *srv, const entry *e) {
    pthread_mutex_lock(&srv->computes->mutex);
    long long ms = e->is_active && e->sessions == 0 ? bough_now_epoch_ms() - e->idle_since_ms : 0;
    pthread_mutex_unlock(&srv->computes->mutex);
    return ms < 0 ? 0 : ms / 1000; /* the clock may have been set back */
}

/* (locked) Where the front door has seen nobody for long enough, suspend it. */
static void suspend_if_idle(server *srv, entry *e, int timeout_seconds) {
    char cause[96];
    long long seconds = quiet_seconds(srv, e);
    if (seconds < timeout_seconds) return;
    (void)snprintf(cause, sizeof cause, "nobody used it for %lld seconds", seconds);
    suspend_unused(srv, e, cause);
}

void computes_suspend_idle(server *srv) {
    bough_endpoint_row *rows;
    size_t n;
    if (bough_endpoints_list(&rows, &n, srv->cat, NULL, NULL) != BOUGH_OK) return;
    for (size_t i = 0; i < n; i++) {
        int seconds = computes_suspend_seconds(&rows[i]);
        entry *e = get(srv, rows[i].branch_id);
        if (seconds == 0 || !e || quiet_seconds(srv, e) < seconds) continue;
        if (lock_take(srv->locks, rows[i].branch_id, 0, NULL) != BOUGH_OK) continue; /* in use */
        suspend_if_idle(srv, e, seconds);
        lock_drop(srv->locks, rows[i].branch_id);
    }
    free(rows);
}
