/*
 * The supervisor: who uses computes, which of them give their place to another, and suspending
 * those that nobody uses. What it guards how: computes_internal.h.
 */
#include "server/computes_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model/rules.h"
#include "server/flows.h"
#include "server/inside.h"
#include "server/pools.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/process.h"

enum { ROOM_WAIT_MS = 2000 };
/* After the end of a pooler. */
enum { LOOKS = 20, LOOK_MS = 50 };

bool computes_is_active(const server *srv, const char *home) {
    return computes_started_ms(srv, home) != 0;
}

bool computes_runs(const server *srv, const bough_endpoint_row *endpoint) {
    pthread_mutex_lock(&srv->computes->mutex);
    const entry *e = computes_find(srv->computes, bough_endpoint_home(endpoint));
    bool runs = e && e->is_active && strcmp(e->endpoint.id, endpoint->id) == 0;
    pthread_mutex_unlock(&srv->computes->mutex);
    return runs;
}

int64_t computes_started_ms(const server *srv, const char *home) {
    pthread_mutex_lock(&srv->computes->mutex);
    const entry *e = computes_find(srv->computes, home);
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
    (void)snprintf(out->home, sizeof out->home, "%s", computes_home(e));
    memcpy(out->endpoint, e->endpoint.id, sizeof out->endpoint);
    memcpy(out->branch, e->branch.id, sizeof out->branch);
    memcpy(out->project, e->branch.project_id, sizeof out->project);
}

/* With the mutex. */
static bool is_that(const entry *e, const char *endpoint, const char *branch) {
    return e->is_active &&
           (endpoint ? strcmp(e->endpoint.id, endpoint) == 0 : !e->endpoint.is_read_only) &&
           (!branch || strcmp(e->branch.id, branch) == 0);
}

bool computes_hold(compute_hold *out, server *srv, const char *endpoint, const char *branch) {
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = srv->computes->first;
    while (e && !is_that(e, endpoint, branch)) e = e->next;
    if (e) hold(out, e);
    pthread_mutex_unlock(&srv->computes->mutex);
    return e != NULL;
}

bool computes_is_held(const server *srv, const compute_hold *held) {
    pthread_mutex_lock(&srv->computes->mutex);
    const entry *e = computes_find(srv->computes, held->home);
    bool is = e && is_that(e, held->endpoint, held->branch);
    pthread_mutex_unlock(&srv->computes->mutex);
    return is;
}

bool computes_hold_process(compute_hold *out, server *srv, pid_t pid) {
    pid_t parent = bough_process_parent(pid);
    if (pid <= 1 || parent <= 0) return false;
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = srv->computes->first;
    while (e && !(e->is_active && (e->postmaster == parent || e->postmaster == pid))) e = e->next;
    if (e) hold(out, e);
    pthread_mutex_unlock(&srv->computes->mutex);
    return e != NULL;
}

void computes_release(server *srv, const char *home) {
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = computes_find(srv->computes, home);
    if (e && e->sessions > 0) {
        e->sessions--;
        e->idle_since_ms = bough_now_epoch_ms();
    }
    pthread_mutex_unlock(&srv->computes->mutex);
}

void computes_why(compute_why *why, const server *srv, const char *home) {
    *why = (compute_why){0};
    pthread_mutex_lock(&srv->computes->mutex);
    const entry *e = computes_find(srv->computes, home);
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

int computes_count(const server *srv) {
    int n = 0;
    pthread_mutex_lock(&srv->computes->mutex);
    for (const entry *e = srv->computes->first; e; e = e->next) n += e->is_active;
    pthread_mutex_unlock(&srv->computes->mutex);
    return n;
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
        rc = computes_stop(srv, computes_home(e), false, cause, &err);
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

/* (that branch locked) Whether it is that branch's: an endpoint may be given to another. */
static bool is_of(const server *srv, const entry *e, const char *branch) {
    pthread_mutex_lock(&srv->computes->mutex);
    bool is = strcmp(e->branch.id, branch) == 0;
    pthread_mutex_unlock(&srv->computes->mutex);
    return is;
}

/* `takes_ours`: also of a branch that the caller works on. */
static void give_up_place(server *srv, entry *e, int lock_wait_ms, bool takes_ours) {
    static const char cause[] = "another one needed its place";
    char branch[BOUGH_ID_SIZE];
    pthread_mutex_lock(&srv->computes->mutex);
    memcpy(branch, e->branch.id, sizeof branch);
    pthread_mutex_unlock(&srv->computes->mutex);
    bool is_ours = lock_is_ours(srv->locks, branch);
    if (is_ours && !takes_ours) return;
    if (!is_ours && lock_take(srv->locks, branch, lock_wait_ms, NULL) != BOUGH_OK) return;
    if (is_of(srv, e, branch)) suspend_unused(srv, e, cause);
    if (!is_ours) lock_drop(srv->locks, branch);
}

/* One look around. Returns whether a place was taken. */
static bool look_for_room(server *srv, entry *e, int lock_wait_ms, bool takes_ours) {
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
        give_up_place(srv, candidate, lock_wait_ms, takes_ours);
        pthread_mutex_lock(&c->mutex);
    }
}

/*
 * (locked) Where as many are awake as may be, suspend the one that has been unused for longest.
 * Their locks are tried while we hold others: so first without waiting, then for a while only, as
 * another who looks for room may wait for ours. What we hold a lock for is in use, and so the last
 * choice: a branch that is being branched, and its readers.
 */
int computes_make_room(server *srv, entry *e, bough_error *err) {
    if (look_for_room(srv, e, 0, false) || look_for_room(srv, e, ROOM_WAIT_MS, false) ||
        look_for_room(srv, e, 0, true))
        return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_BUSY, "%d computes are awake, as many as may be, and in use",
                     srv->max_awake);
    return bough_hint(err, "Suspend one, or start the server with a larger --max-awake.");
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

/* (locked) Stop it where its endpoint is not in the catalogue, or is of another branch there. */
static void stop_if_stray(server *srv, const entry *e) {
    bough_endpoint_row row;
    bough_error err = {0};
    int rc = bough_endpoints_find(&row, srv->cat, e->endpoint.id, &err);
    if (rc ? rc != BOUGH_E_NOTFOUND : strcmp(row.branch_id, e->branch.id) == 0) return;
    bough_log(BOUGH_LOG_ERROR, "stopping a compute whose endpoint is gone", "branch", e->branch.id,
              "endpoint", e->endpoint.id, NULL);
    if (computes_stop(srv, computes_home(e), false, "its endpoint is gone", &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_ERROR, "could not stop a compute", "branch", e->branch.id, "error",
                  err.message, NULL);
}

/* With the mutex. The next active one that this look around has not met in the catalogue. */
static entry *next_unmet(entry *e, uint64_t look) {
    while (e && !(e->is_active && e->met != look)) e = e->next;
    return e;
}

/* No row would ever say of these that they are idle. One that is being made has its lock held. */
static void stop_strays(server *srv, uint64_t look) {
    struct computes *c = srv->computes;
    char branch[BOUGH_ID_SIZE];
    pthread_mutex_lock(&c->mutex);
    for (entry *e = c->first; (e = next_unmet(e, look)); e = e->next) {
        memcpy(branch, e->branch.id, sizeof branch);
        pthread_mutex_unlock(&c->mutex);
        if (lock_take(srv->locks, branch, 0, NULL) == BOUGH_OK) { /* else the next time */
            if (is_of(srv, e, branch) && computes_is_active(srv, computes_home(e)))
                stop_if_stray(srv, e);
            lock_drop(srv->locks, branch);
        }
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
}

/* The entry of a row's compute; NULL where it has none. */
static entry *meet(server *srv, const bough_endpoint_row *row, uint64_t look) {
    pthread_mutex_lock(&srv->computes->mutex);
    entry *e = computes_find(srv->computes, bough_endpoint_home(row));
    if (e && strcmp(e->endpoint.id, row->id) == 0) e->met = look;
    pthread_mutex_unlock(&srv->computes->mutex);
    return e;
}

void computes_suspend_idle(server *srv) {
    bough_endpoint_row *rows;
    size_t n;
    pthread_mutex_lock(&srv->computes->mutex);
    uint64_t look = ++srv->computes->looks;
    pthread_mutex_unlock(&srv->computes->mutex);
    if (bough_endpoints_list(&rows, &n, srv->cat, NULL, NULL) != BOUGH_OK) return;
    for (size_t i = 0; i < n; i++) {
        int seconds = computes_suspend_seconds(&rows[i]);
        entry *e = meet(srv, &rows[i], look);
        bool is_due = seconds > 0 && e && quiet_seconds(srv, e) >= seconds;
        if (!is_due && !(e && standby_is_due(srv, e))) continue;
        if (lock_take(srv->locks, rows[i].branch_id, 0, NULL) != BOUGH_OK) continue; /* in use */
        if (is_of(srv, e, rows[i].branch_id)) {
            standby_check(srv, e);
            if (is_due) suspend_if_idle(srv, e, seconds);
        }
        lock_drop(srv->locks, rows[i].branch_id);
    }
    free(rows);
    stop_strays(srv, look);
}
