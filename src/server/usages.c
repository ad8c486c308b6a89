/*
 * Bytes of branches, kept by branch. What may have changed is told by the locks: who works on a
 * branch holds its lock (lock_turns()); only a compute that runs changes its branch without.
 */
#include "server/usages.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/computes.h"
#include "util/fs.h"

enum { CHAINS = 1024, WAIT_MS = 500, REFRESH_MS = 5000, FORGET_MS = 60000, FIRST_MS = 500 };

/* Who stands on which layers, as long as nobody has worked on a branch since. */
typedef struct shared_uses {
    bough_uses *uses;
    uint64_t all_turns; /* of the locks, before the stacks were read */
    size_t holders;     /* the cache, and who measures */
} shared_uses;

typedef struct usage_entry {
    struct usage_entry *next;
    char branch[BOUGH_ID_SIZE];
    bough_usage usage;
    uint64_t turns, all_turns; /* of the locks, before it was measured */
    double measured_ms;
    uint64_t round; /* of refreshing, when it was seen last */
} usage_entry;

struct usage_cache {
    pthread_mutex_t mutex;
    usage_entry *chains[CHAINS];
    uint64_t round;
    atomic_bool is_refreshing;
    bool is_first_done;        /* all that there was at the start has been looked at */
    pthread_cond_t first_done; /* of CLOCK_MONOTONIC */
    struct timespec first_until;
    pthread_mutex_t reading; /* of all stacks; before `mutex` where both are held */
    shared_uses *uses;
};

int usage_cache_new(struct usage_cache **out, bough_error *err) {
    struct usage_cache *cache = *out = calloc(1, sizeof *cache);
    if (!cache) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_condattr_t attr;
    pthread_mutex_init(&cache->mutex, NULL);
    pthread_mutex_init(&cache->reading, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&cache->first_done, &attr);
    pthread_condattr_destroy(&attr);
    cache->is_first_done = true; /* until one begins */
    return BOUGH_OK;
}

/* ---- who stands on which layers ---- */

static void uses_drop(struct usage_cache *cache, shared_uses *s) {
    if (!s) return;
    pthread_mutex_lock(&cache->mutex);
    bool is_last = --s->holders == 0;
    pthread_mutex_unlock(&cache->mutex);
    if (!is_last) return;
    bough_uses_free(s->uses);
    free(s);
}

/* (reading) Put new ones in the place of those that are kept. */
static shared_uses *uses_read(server *srv, uint64_t all_turns) {
    struct usage_cache *cache = srv->usages;
    shared_uses *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return NULL;
    *fresh = (shared_uses){.all_turns = all_turns, .holders = 2};
    shared_uses *old = cache->uses;
    if (bough_uses_new(&fresh->uses, srv->store, old ? old->uses : NULL, NULL) != BOUGH_OK) {
        free(fresh);
        return NULL;
    }
    cache->uses = fresh;
    uses_drop(cache, old);
    return fresh;
}

/* As of now; uses_drop(). NULL where they cannot be read. */
static shared_uses *uses_take(server *srv) {
    struct usage_cache *cache = srv->usages;
    uint64_t all_turns;
    pthread_mutex_lock(&cache->reading); /* who waits here reads nothing */
    (void)lock_turns(&all_turns, srv->locks, "");
    shared_uses *s = cache->uses;
    if (s && s->all_turns == all_turns) {
        pthread_mutex_lock(&cache->mutex);
        s->holders++;
        pthread_mutex_unlock(&cache->mutex);
    } else {
        s = uses_read(srv, all_turns);
    }
    pthread_mutex_unlock(&cache->reading);
    return s;
}

void usage_cache_free(struct usage_cache *cache) {
    if (!cache) return;
    for (size_t i = 0; i < CHAINS; i++)
        for (usage_entry *e = cache->chains[i], *next; e; e = next) {
            next = e->next;
            free(e);
        }
    uses_drop(cache, cache->uses);
    pthread_cond_destroy(&cache->first_done);
    pthread_mutex_destroy(&cache->reading);
    pthread_mutex_destroy(&cache->mutex);
    free(cache);
}

/* ---- what is kept ---- */

/* With the mutex: where the entry of a branch is, or would be. */
static usage_entry **find(struct usage_cache *cache, const char *branch) {
    unsigned hash = 2166136261U; /* FNV-1a */
    for (const char *p = branch; *p; p++) hash = (hash ^ (unsigned char)*p) * 16777619U;
    usage_entry **at = &cache->chains[hash % CHAINS];
    while (*at && strcmp((*at)->branch, branch) != 0) at = &(*at)->next;
    return at;
}

static bool look(usage_entry *out, struct usage_cache *cache, const char *branch) {
    pthread_mutex_lock(&cache->mutex);
    const usage_entry *e = *find(cache, branch);
    if (e) *out = *e;
    pthread_mutex_unlock(&cache->mutex);
    return e != NULL;
}

static void keep(struct usage_cache *cache, const char *branch, const usage_entry *value) {
    pthread_mutex_lock(&cache->mutex);
    usage_entry **at = find(cache, branch);
    if (!*at && (*at = calloc(1, sizeof **at)))
        (void)snprintf((*at)->branch, sizeof(*at)->branch, "%s", branch);
    if (*at) {
        (*at)->usage = value->usage;
        (*at)->turns = value->turns;
        (*at)->all_turns = value->all_turns;
        (*at)->measured_ms = value->measured_ms;
        (*at)->round = cache->round;
    }
    pthread_mutex_unlock(&cache->mutex);
}

/* False while another operation has the branch for long. */
static bool measure(usage_entry *e, server *srv, const char *branch, int wait_ms) {
    if (lock_take(srv->locks, branch, wait_ms, NULL) != BOUGH_OK) return false;
    shared_uses *s = uses_take(srv);
    bool known = false;
    if (s) {
        e->turns = lock_turns(&e->all_turns, srv->locks, branch);
        e->all_turns = s->all_turns;
        e->measured_ms = bough_now_ms();
        known = bough_store_usage(&e->usage, srv->store, branch, s->uses, NULL) == BOUGH_OK;
    }
    uses_drop(srv->usages, s);
    lock_drop_unchanged(srv->locks, branch);
    if (known) keep(srv->usages, branch, e);
    return known;
}

/* Whether what is kept will do. */
static bool is_good(bool *is_stale, const usage_entry *e, server *srv, const char *branch,
                    int max_age_ms) {
    uint64_t all, turns = lock_turns(&all, srv->locks, branch);
    double age = bough_now_ms() - e->measured_ms;
    bool sleeps = !computes_is_active(srv, branch);
    *is_stale = false;
    if (e->turns != turns) return false;
    if ((sleeps && e->all_turns == all) || age <= max_age_ms) return true;
    *is_stale = sleeps && max_age_ms >= USAGE_LISTED_MS;
    return *is_stale;
}

/* For a list, of a branch that is not known: the server has just started and measures all of them.
 * Returns whether that has ended; with few branches it does at once. */
static bool wait_for_first(struct usage_cache *cache) {
    pthread_mutex_lock(&cache->mutex);
    while (!cache->is_first_done &&
           pthread_cond_timedwait(&cache->first_done, &cache->mutex, &cache->first_until) == 0)
        continue;
    bool is_done = cache->is_first_done;
    pthread_mutex_unlock(&cache->mutex);
    return is_done;
}

bool usage_get(bough_usage *usage, server *srv, const char *branch, int max_age_ms) {
    usage_entry e = {.next = NULL};
    bool is_stale = false;
    bool known = look(&e, srv->usages, branch);
    if (!known && max_age_ms >= USAGE_LISTED_MS) {
        bool is_first_done = wait_for_first(srv->usages);
        known = look(&e, srv->usages, branch);
        if (!known && !is_first_done) return false;
    }
    if (!known || !is_good(&is_stale, &e, srv, branch, max_age_ms))
        known = measure(&e, srv, branch, WAIT_MS) || known;
    if (is_stale && bough_now_ms() - e.measured_ms > REFRESH_MS) usage_refresh(srv);
    *usage = e.usage;
    return known;
}

/* ---- in the background ---- */

/* Those of branches that are gone. */
static void sweep(struct usage_cache *cache) {
    double now = bough_now_ms();
    pthread_mutex_lock(&cache->mutex);
    for (size_t i = 0; i < CHAINS; i++)
        for (usage_entry **at = &cache->chains[i]; *at;) {
            usage_entry *e = *at;
            if (e->round == cache->round || now - e->measured_ms < FORGET_MS) {
                at = &e->next;
                continue;
            }
            *at = e->next;
            free(e);
        }
    pthread_mutex_unlock(&cache->mutex);
}

static void end_first(struct usage_cache *cache) {
    pthread_mutex_lock(&cache->mutex);
    cache->is_first_done = true;
    pthread_cond_broadcast(&cache->first_done);
    pthread_mutex_unlock(&cache->mutex);
}

static void on_refresh(void *arg) {
    server *srv = arg;
    struct usage_cache *cache = srv->usages;
    bough_branch_row *rows = NULL;
    size_t n = 0;
    bool is_listed = bough_branches_list_live(&rows, &n, srv->cat, NULL, NULL) == BOUGH_OK;
    pthread_mutex_lock(&cache->mutex);
    cache->round++;
    pthread_mutex_unlock(&cache->mutex);
    for (size_t i = 0; i < n && !atomic_load(&srv->stopping); i++) {
        usage_entry e = {.next = NULL};
        bool is_stale = false, known = look(&e, cache, rows[i].id);
        if (known && is_good(&is_stale, &e, srv, rows[i].id, REFRESH_MS) && !is_stale)
            keep(cache, rows[i].id, &e);
        else if (!measure(&e, srv, rows[i].id, 0) && known)
            keep(cache, rows[i].id, &e);
    }
    if (is_listed && !atomic_load(&srv->stopping)) sweep(cache);
    free(rows);
    end_first(cache);
    atomic_store(&cache->is_refreshing, false);
}

void usage_refresh(server *srv) {
    if (atomic_exchange(&srv->usages->is_refreshing, true)) return;
    if (job_pool_add(srv->background, on_refresh, srv, NULL) != BOUGH_OK)
        atomic_store(&srv->usages->is_refreshing, false);
}

void usage_begin(server *srv) {
    struct usage_cache *cache = srv->usages;
    pthread_mutex_lock(&cache->mutex);
    cache->is_first_done = false;
    clock_gettime(CLOCK_MONOTONIC, &cache->first_until);
    cache->first_until.tv_nsec += FIRST_MS * 1000000L;
    cache->first_until.tv_sec += cache->first_until.tv_nsec / 1000000000;
    cache->first_until.tv_nsec %= 1000000000;
    pthread_mutex_unlock(&cache->mutex);
    usage_refresh(srv);
    if (!atomic_load(&cache->is_refreshing)) end_first(cache); /* nobody does it */
}
