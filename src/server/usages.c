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

enum { CHAINS = 1024, WAIT_MS = 500, REFRESH_MS = 5000, FORGET_MS = 60000 };

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
};

int usage_cache_new(struct usage_cache **cache, bough_error *err) {
    *cache = calloc(1, sizeof **cache);
    if (!*cache) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_mutex_init(&(*cache)->mutex, NULL);
    return BOUGH_OK;
}

void usage_cache_free(struct usage_cache *cache) {
    if (!cache) return;
    for (size_t i = 0; i < CHAINS; i++)
        for (usage_entry *e = cache->chains[i], *next; e; e = next) {
            next = e->next;
            free(e);
        }
    pthread_mutex_destroy(&cache->mutex);
    free(cache);
}

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
    e->turns = lock_turns(&e->all_turns, srv->locks, branch);
    e->measured_ms = bough_now_ms();
    bool known = bough_store_usage(&e->usage, srv->store, branch, NULL) == BOUGH_OK;
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

bool usage_get(bough_usage *usage, server *srv, const char *branch, int max_age_ms) {
    usage_entry e = {.next = NULL};
    bool is_stale = false;
    bool known = look(&e, srv->usages, branch);
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
    atomic_store(&cache->is_refreshing, false);
}

void usage_refresh(server *srv) {
    if (atomic_exchange(&srv->usages->is_refreshing, true)) return;
    if (job_pool_add(srv->background, on_refresh, srv, NULL) != BOUGH_OK)
        atomic_store(&srv->usages->is_refreshing, false);
}
