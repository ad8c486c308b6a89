/*
 * Which endpoint is meant, and waking its compute.
 *
 * An errand is one piece of work on another thread, for all guests that want the same: looking up a
 * target in the catalogue, or waking an endpoint. It outlives its guests. A wake that failed is
 * kept for a moment, so that clients that try again at once do not start a compute each time.
 *
 * Between the two an endpoint may be given to another branch, or end: so a guest is given to no
 * compute but that of the branch and endpoint which its target meant together, or looks up again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/allow.h"
#include "server/door_internal.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/pools.h"
#include "util/crashpoint.h"
#include "util/log.h"

enum { FAILURE_KEPT_MS = 1000, TRIES_MAX = 6, RETRY_MS = 25 };

typedef struct errand {
    TAILQ_ENTRY(errand) link;
    struct errand *next_done;
    struct door *door;
    struct guest_list guests;
    bool is_wake, is_pooled, is_done;
    bool is_past;               /* a lookup for one that is to say its moment in TLS */
    bool is_stale;              /* a wake: the endpoint is not there any more */
    double kept_until_ms;       /* a failure */
    hello_target target;        /* of a lookup */
    char branch[BOUGH_ID_SIZE]; /* a lookup finds it, and the three that follow */
    char home[BOUGH_ID_SIZE], project[BOUGH_ID_SIZE]; /* of a wake: whose compute */
    char endpoint[BOUGH_ID_SIZE];   /* and for which endpoint; "" with a moment, and with that: */
    bough_target moment;            /* of that branch; all zero: the present */
    char look[BOUGH_ID_SIZE];       /* the look at it, where there is one */
    char allowed[BOUGH_ALLOW_SIZE]; /* of a lookup: who may connect */
    char cause[96];
    int rc;
    bough_error err;
} errand;

/* ---- on another thread ---- */

/* The branch of that name or id: of the project that was named, else the only one anywhere. */
static int find_branch(bough_branch_row *branch, server *srv, const hello_target *target,
                       const char *project, bough_error *err) {
    bough_branch_row *rows;
    size_t n, found = 0;
    int rc = bough_branches_list_live(&rows, &n, srv->cat, project, err);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++) {
        bool is_id = strcmp(rows[i].id, target->branch) == 0;
        if (!is_id && strcmp(rows[i].name, target->branch) != 0) continue;
        *branch = rows[i];
        found++;
        if (is_id) {
            found = 1;
            break;
        }
    }
    free(rows);
    if (found == 0)
        return bough_fail(err, BOUGH_E_NOTFOUND, "no branch is named \"%.200s\"", target->branch);
    if (found == 1) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_CONFLICT, "several projects have a branch named \"%.200s\"",
                     target->branch);
    return bough_hint(err, "Name the project, too: options=project=NAME.");
}

static int find_project(bough_project_row *project, server *srv, const char *name,
                        bough_error *err) {
    if (bough_projects_get(project, srv->cat, name, NULL) == BOUGH_OK ||
        bough_projects_find(project, srv->cat, name, NULL) == BOUGH_OK)
        return BOUGH_OK;
    return bough_fail(err, BOUGH_E_NOTFOUND, "no project is named \"%.200s\"", name);
}

/* Who may connect to that branch. */
static int read_list(errand *e, const bough_branch_row *branch, bough_error *err) {
    bough_project_row project;
    if (!atomic_load(&e->door->srv->has_lists)) return BOUGH_OK;
    int rc = bough_projects_get(&project, e->door->srv->cat, branch->project_id, err);
    if (!rc && (!project.protects_only || branch->is_protected))
        memcpy(e->allowed, project.allowed_ips, sizeof e->allowed);
    return rc;
}

/* The branch that is meant; and the endpoint, where the target names one. */
static int find_target(bough_branch_row *branch, bough_endpoint_row *endpoint, server *srv,
                       const hello_target *t, bough_error *err) {
    bough_project_row project;
    if (*t->endpoint) {
        int rc = bough_endpoints_find(endpoint, srv->cat, t->endpoint, err);
        return rc ? rc /* not of a deleted branch */
                  : bough_branches_get(branch, srv->cat, endpoint->project_id, endpoint->branch_id,
                                       err);
    }
    int rc = *t->project ? find_project(&project, srv, t->project, err) : BOUGH_OK;
    if (rc) return rc;
    return *t->branch ? find_branch(branch, srv, t, *t->project ? project.id : NULL, err)
                      : bough_branches_get_default(branch, srv->cat, project.id, err);
}

/* The oldest endpoint of a branch that only reads. */
static int find_reader(bough_endpoint_row *endpoint, server *srv, const bough_branch_row *branch,
                       bough_error *err) {
    bough_endpoint_row *rows;
    size_t n;
    int rc = bough_endpoints_list_reading(&rows, &n, srv->cat, branch->id, err);
    if (!rc && n == 0)
        rc = bough_fail(err, BOUGH_E_NOTFOUND, "branch \"%.200s\" has no read-only endpoint",
                        branch->name);
    if (!rc) *endpoint = rows[0];
    free(rows);
    return rc;
}

static int look_up(errand *e, bough_error *err) {
    server *srv = e->door->srv;
    bough_branch_row branch;
    bough_endpoint_row endpoint = {0};
    bool is_past = e->is_past || history_is_wanted(&e->moment);
    int rc = find_target(&branch, &endpoint, srv, &e->target, err);
    if (!rc && !is_past && strcmp(e->target.type, "read_only") == 0 && !endpoint.is_read_only)
        rc = find_reader(&endpoint, srv, &branch, err);
    if (!rc && !is_past && !*endpoint.id)
        rc = bough_endpoints_of_branch(&endpoint, srv->cat, branch.id, err);
    if (rc) return rc;
    (void)snprintf(e->home, sizeof e->home, "%s",
                   is_past ? branch.id : bough_endpoint_home(&endpoint));
    if (!is_past) memcpy(e->endpoint, endpoint.id, sizeof e->endpoint);
    memcpy(e->branch, branch.id, sizeof e->branch);
    memcpy(e->project, branch.project_id, sizeof e->project);
    if (e->is_past) rc = past_prepare(srv, &branch, err);
    if (rc) return rc;
    if (history_is_wanted(&e->moment)) look_find(e->look, srv, &branch, &e->moment);
    return read_list(e, &branch, err);
}

void door_read_lists(server *srv) {
    struct door *d = srv->door;
    bool have;
    bough_error err;
    pthread_mutex_lock(&d->lists_mutex); /* else what was read first could be written last */
    if (bough_projects_have_allowed(&have, srv->cat, &err) != BOUGH_OK) {
        have = true;
        bough_log(BOUGH_LOG_WARN, "could not read who may connect", "error", err.message, NULL);
    }
    BOUGH_WINDOW("lists.read");
    atomic_store(&srv->has_lists, have);
    pthread_mutex_unlock(&d->lists_mutex);
}

/* The endpoint, where it is still what the lookup has found. */
static int find_again(bough_endpoint_row *endpoint, const errand *e, bough_error *err) {
    int rc = bough_endpoints_get(endpoint, e->door->srv->cat, e->project, e->endpoint, err);
    if (!rc && strcmp(endpoint->branch_id, e->branch) != 0)
        rc = bough_fail(err, BOUGH_E_BUSY, "endpoint \"%s\" is of another branch now", e->endpoint);
    return rc;
}

static int wake(errand *e, bough_error *err) {
    server *srv = e->door->srv;
    bough_branch_row branch;
    bough_endpoint_row endpoint;
    int rc = BOUGH_OK;
    if (history_is_wanted(&e->moment)) {
        rc = bough_branches_get(&branch, srv->cat, e->project, e->home, err);
        return rc ? rc : look_use(e->look, srv, &branch, &e->moment, err);
    }
    rc = find_again(&endpoint, e, err);
    if (!rc) rc = bough_branches_get(&branch, srv->cat, e->project, e->branch, err);
    if (!rc)
        rc = (e->is_pooled ? computes_use_pooled : computes_use)(
            srv, &branch, &endpoint, (compute_cause){e->cause, false}, err);
    e->is_stale = rc && find_again(&endpoint, e, NULL) != BOUGH_OK;
    if (rc && !e->is_stale)
        bough_log(BOUGH_LOG_WARN, "could not wake a compute", "endpoint", e->endpoint, "error",
                  err->message, NULL);
    return rc;
}

/* So that the list of operations shows it. */
static void record_wake(server *srv, const char *project, const char *home, double started_ms) {
    bough_operation_row operation;
    bough_endpoint_row endpoint;
    bough_error err;
    int rc = bough_endpoints_at(&endpoint, srv->cat, home, &err);
    if (!rc)
        rc = flow_operation(&operation, "start_compute", project, endpoint.branch_id, endpoint.id,
                            started_ms, &err);
    if (!rc) rc = bough_operations_insert(srv->cat, &operation, &err);
    if (rc && rc != BOUGH_E_NOTFOUND && rc != BOUGH_E_CONFLICT) /* else deleted meanwhile */
        bough_log(BOUGH_LOG_WARN, "could not record a start", "branch", home, "error", err.message,
                  NULL);
}

static void on_job(void *arg) {
    errand *e = arg;
    struct door *d = e->door;
    server *srv = d->srv;
    char home[BOUGH_ID_SIZE], project[BOUGH_ID_SIZE];
    double started_ms = bough_now_ms();
    bool starts = e->is_wake && !history_is_wanted(&e->moment) && !computes_is_active(srv, e->home);
    e->rc = e->is_wake ? wake(e, &e->err) : look_up(e, &e->err);
    starts = starts && e->rc == BOUGH_OK;
    memcpy(home, e->home, sizeof home);
    memcpy(project, e->project, sizeof project);
    pthread_mutex_lock(&d->mutex);
    *d->done_last = e;
    d->done_last = &e->next_done;
    pthread_mutex_unlock(&d->mutex);
    event_active(d->posted, EV_READ, 1); /* the errand is the loop thread's now */
    if (starts) record_wake(srv, project, home, started_ms);
}

/* ---- on the loop thread ---- */

static void errand_free(errand *e) {
    TAILQ_REMOVE(&e->door->errands, e, link);
    free(e);
}

void errand_leave(guest *g) {
    if (g->errand) TAILQ_REMOVE(&g->errand->guests, g, company);
    g->errand = NULL;
}

static void join(guest *g, errand *e) {
    guest_enter(g, GUEST_WAITING);
    (void)event_del(g->timer);
    guest_watch(g);
    g->errand = e;
    TAILQ_INSERT_TAIL(&e->guests, g, company);
}

static bool is_same(const errand *e, const errand *wanted) {
    if (e->is_wake != wanted->is_wake || e->is_pooled != wanted->is_pooled ||
        e->is_past != wanted->is_past)
        return false;
    return e->is_wake
               ? strcmp(e->home, wanted->home) == 0 && strcmp(e->endpoint, wanted->endpoint) == 0 &&
                     strcmp(e->branch, wanted->branch) == 0 &&
                     e->moment.time_us == wanted->moment.time_us &&
                     e->moment.lsn == wanted->moment.lsn
               : memcmp(&e->target, &wanted->target, sizeof e->target) == 0;
}

/* Whether one more wake is within the limits. */
static bool may_wake(guest *g, const char *home) {
    struct door *d = g->door;
    char key[INET6_ADDRSTRLEN], message[128], hint[64];
    const char *of = NULL;
    int wait_s = 0;
    double now = bough_now_ms();
    rates_address(key, g->address);
    if ((d->limits_local || !g->is_local) && !rates_take(&wait_s, d->address_wakes, key, now))
        of = "this address wakes endpoints";
    else if (!rates_take(&wait_s, d->endpoint_wakes, home, now))
        of = "this endpoint is woken";
    if (!of) return true;
    (void)snprintf(message, sizeof message, "%s too often", of);
    (void)snprintf(hint, sizeof hint, "Try again in %d s.", wait_s);
    bough_log(BOUGH_LOG_WARN, "refused to wake a compute", "branch", home, "address", g->address,
              "why", message, NULL);
    guest_refuse(g, "57P03", message, hint);
    return false;
}

/* Join an errand of that kind, or set out. `wanted` says what for. */
static void ask(guest *g, const errand *wanted) {
    struct door *d = g->door;
    bough_error err = {0};
    double now = bough_now_ms();
    errand *e = TAILQ_FIRST(&d->errands), *next;
    for (; e; e = next) {
        next = TAILQ_NEXT(e, link);
        if (e->is_done && e->kept_until_ms <= now) {
            errand_free(e);
            continue;
        }
        if (is_same(e, wanted)) break;
    }
    if (e && e->is_done) {
        guest_refuse_error(g, &e->err);
        return;
    }
    if (e) {
        join(g, e);
        return;
    }
    if (wanted->is_wake && !may_wake(g, wanted->home)) return;
    e = malloc(sizeof *e);
    if (!e) {
        guest_end(g);
        return;
    }
    *e = *wanted;
    e->door = d;
    TAILQ_INIT(&e->guests);
    TAILQ_INSERT_TAIL(&d->errands, e, link);
    job_pool *pool = e->is_wake ? d->srv->wakes : d->srv->lookups;
    if (job_pool_add(pool, on_job, e, &err) != BOUGH_OK) {
        errand_free(e);
        guest_refuse_error(g, &err);
        return;
    }
    join(g, e);
}

/* To the start of the compute that `where` says; with a moment, to that of a look at it. */
static void ask_wake(guest *g, const compute_hold *where, const bough_target *moment) {
    errand wanted = {.is_wake = true, .is_pooled = g->is_pooled, .moment = *moment};
    memcpy(wanted.home, where->home, sizeof wanted.home);
    memcpy(wanted.endpoint, where->endpoint, sizeof wanted.endpoint);
    memcpy(wanted.branch, where->branch, sizeof wanted.branch);
    memcpy(wanted.project, where->project, sizeof wanted.project);
    (void)snprintf(wanted.cause, sizeof wanted.cause, "a connection from %s", g->address);
    ask(g, &wanted);
}

void guest_start_pool(guest *g) {
    compute_hold held = g->hold; /* a look already where one is wanted */
    guest_drop_hand(g);
    ask_wake(g, &held, &(bough_target){0});
}

/* ID-pooler is the pooler of ID. */
static void take_suffix(guest *g) {
    size_t n = strlen(g->target.endpoint), m = sizeof POOL_SUFFIX - 1;
    if (n <= m || strcmp(g->target.endpoint + n - m, POOL_SUFFIX) != 0) return;
    memset(g->target.endpoint + n - m, 0, m); /* targets are compared as a whole */
    g->is_pooled = true;
}

void guest_route(guest *g) {
    struct door *d = g->door;
    take_suffix(g);
    if (d->counts[GUEST_WAITING] + d->counts[GUEST_HANDING] + d->counts[GUEST_REFUSING] >=
        WAITING_MAX) {
        guest_end(g); /* not even told: that would take as long */
        return;
    }
    if (!guest_use_pass(g)) return;
    if (*g->target.endpoint && !*g->target.type && !history_is_wanted(&g->moment) &&
        !atomic_load(&d->srv->has_lists) &&
        computes_hold(&g->hold, d->srv, g->target.endpoint, NULL)) {
        g->is_held = true;
        guest_hand(g);
        return;
    }
    errand wanted = {.target = g->target, .moment = g->moment, .is_past = g->is_past && !g->ssl};
    ask(g, &wanted);
}

static void on_retry(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    guest_route(arg);
}

/* It was awake a moment ago. It may be stopping, or have crashed, and be noticed soon. */
void guest_route_again(guest *g) {
    if (!*g->target.endpoint && !*g->target.project && !*g->target.branch) {
        guest_end(g); /* a CancelRequest: what it is for has ended */
        return;
    }
    if (++g->tries > TRIES_MAX) {
        guest_refuse(g, "57P03", "the compute does not take connections", "Try again.");
        return;
    }
    if (g->state != GUEST_WAITING) guest_enter(g, GUEST_WAITING);
    guest_watch(g);
    guest_set_timer(g, RETRY_MS << g->tries, on_retry);
}

/* Its address is not in the list of those that may connect. */
static bool refuse_unlisted(guest *g, const errand *e) {
    char message[128];
    if (bough_allow_has(e->allowed, g->address)) return false;
    (void)snprintf(message, sizeof message, "the address %s is not allowed to connect", g->address);
    guest_refuse(g, "28000", message, "The project has a list of those that are: bough ip-allow.");
    return true;
}

/* An errand is done: each of its guests goes on, or hears why not. */
static void finish(errand *e) {
    struct door *d = e->door;
    struct guest_list guests;
    const char *branch = history_is_wanted(&e->moment) ? e->look : e->branch;
    const char *endpoint = *e->endpoint ? e->endpoint : NULL;
    TAILQ_INIT(&guests);
    TAILQ_CONCAT(&guests, &e->guests, company);
    for (guest *g; (g = TAILQ_FIRST(&guests));) {
        TAILQ_REMOVE(&guests, g, company);
        g->errand = NULL;
        if (e->is_stale) {
            guest_route_again(g);
        } else if (e->rc) {
            guest_refuse_error(g, &e->err);
        } else if (refuse_unlisted(g, e)) {
            continue;
        } else if (e->is_past) {
            guest_past_begin(g, e->branch);
        } else if (*branch && computes_hold(&g->hold, d->srv, endpoint, branch)) {
            g->is_held = true;
            guest_hand(g);
        } else if (!e->is_wake) {
            compute_hold where = {0};
            memcpy(where.home, e->home, sizeof where.home);
            memcpy(where.endpoint, e->endpoint, sizeof where.endpoint);
            memcpy(where.branch, e->branch, sizeof where.branch);
            memcpy(where.project, e->project, sizeof where.project);
            ask_wake(g, &where, &e->moment);
        } else {
            guest_route_again(g); /* suspended meanwhile */
        }
    }
    e->is_done = true; /* from now on ask() may free it */
    if (e->is_wake && e->rc && e->rc != BOUGH_E_NOTFOUND && !e->is_stale)
        e->kept_until_ms = bough_now_ms() + FAILURE_KEPT_MS;
    else
        errand_free(e);
}

void errands_on_posted(evutil_socket_t fd, short what, void *arg) {
    struct door *d = arg;
    (void)fd;
    (void)what;
    pthread_mutex_lock(&d->mutex);
    errand *e = d->done;
    d->done = NULL;
    d->done_last = &d->done;
    pthread_mutex_unlock(&d->mutex);
    for (errand *next; e; e = next) {
        next = e->next_done;
        finish(e);
    }
}

void errands_free(struct door *d) {
    while (!TAILQ_EMPTY(&d->errands)) errand_free(TAILQ_FIRST(&d->errands));
}
