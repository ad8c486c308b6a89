/*
 * Keys of the API.
 *
 * Limits are token buckets: of a key for a minute, and of a key and route for a second, which makes
 * Neon's "700 requests a minute, with bursts of 40 a second for each route". The key in the store's
 * file belongs to whoever owns the machine and has none unless that was asked for.
 */
#include "server/keys.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/clock.h"
#include "server/http.h"
#include "util/crashpoint.h"
#include "util/log.h"

typedef struct bucket {
    double tokens, at_ms;
} bucket;

/* A key, and what is left of its limits. */
typedef struct entry {
    bough_api_key_row row;
    bool is_used; /* since that was written down */
    bool is_begun;
    bucket minute;
    bucket *routes; /* made at the first request */
} entry;

struct keys {
    server *srv;
    pthread_mutex_t reading; /* of keys_reload(), with the rows; before the other */
    pthread_mutex_t mutex;
    entry *entries;
    size_t n;
};

static void entries_free(entry *entries, size_t n) {
    for (size_t i = 0; i < n; i++) free(entries[i].routes);
    free(entries);
}

static entry *find_id(struct keys *keys, int64_t id) {
    for (size_t i = 0; i < keys->n; i++)
        if (keys->entries[i].row.id == id) return &keys->entries[i];
    return NULL;
}

/* Put the rows in place of what there is. */
static int replace(struct keys *keys, bough_api_key_row *rows, size_t n, bough_error *err) {
    entry *fresh = calloc(n + 1, sizeof *fresh);
    if (!fresh) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_mutex_lock(&keys->mutex);
    for (size_t i = 0; i < n; i++) {
        entry *old = find_id(keys, rows[i].id);
        if (old) { /* what is only known here goes on */
            int64_t used_ms = old->row.last_used_ms;
            fresh[i] = *old;
            old->routes = NULL;
            if (used_ms > rows[i].last_used_ms) {
                rows[i].last_used_ms = used_ms;
                memcpy(rows[i].last_used_from, old->row.last_used_from,
                       sizeof rows[i].last_used_from);
            }
        }
        fresh[i].row = rows[i];
    }
    entries_free(keys->entries, keys->n);
    keys->entries = fresh;
    keys->n = n;
    pthread_mutex_unlock(&keys->mutex);
    return BOUGH_OK;
}

int keys_reload(struct keys *keys, bough_error *err) {
    bough_api_key_row *rows;
    size_t n;
    pthread_mutex_lock(&keys->reading); /* else rows of before a revocation could come after it */
    int rc = bough_api_keys_list(&rows, &n, keys->srv->cat, err);
    if (!rc) {
        BOUGH_WINDOW("keys.listed");
        rc = replace(keys, rows, n, err);
        free(rows);
    }
    pthread_mutex_unlock(&keys->reading);
    return rc;
}

int keys_revoke(struct keys *keys, int64_t id, bough_error *err) {
    pthread_mutex_lock(&keys->reading); /* else what was read before could come after */
    int rc = bough_api_keys_delete(keys->srv->cat, id, err);
    pthread_mutex_lock(&keys->mutex);
    /* in place, for nothing may fail once the row is gone */
    entry *e = rc && rc != BOUGH_E_NOTFOUND ? NULL : find_id(keys, id);
    if (e && !e->row.is_local) {
        free(e->routes);
        size_t after = (size_t)(keys->entries + --keys->n - e);
        memmove(e, e + 1, after * sizeof *e);
    }
    pthread_mutex_unlock(&keys->mutex);
    pthread_mutex_unlock(&keys->reading);
    return rc;
}

int keys_new(struct keys **out, server *srv, bough_error *err) {
    struct keys *keys = *out = calloc(1, sizeof *keys);
    if (!keys) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    keys->srv = srv;
    pthread_mutex_init(&keys->reading, NULL);
    pthread_mutex_init(&keys->mutex, NULL);
    return keys_reload(keys, err);
}

void keys_free(struct keys *keys) {
    if (!keys) return;
    entries_free(keys->entries, keys->n);
    pthread_mutex_destroy(&keys->mutex);
    pthread_mutex_destroy(&keys->reading);
    free(keys);
}

void keys_tick(struct keys *keys) {
    bough_api_key_row *rows;
    bough_error err = {0};
    size_t n;
    if (!keys) return;
    int rc = keys_list(&rows, &n, keys, &err);
    if (rc) goto out;
    for (size_t i = 0; i < n && !rc; i++) {
        pthread_mutex_lock(&keys->mutex);
        entry *e = find_id(keys, rows[i].id);
        bool is_used = e && e->is_used;
        if (e) e->is_used = false;
        pthread_mutex_unlock(&keys->mutex);
        if (is_used) rc = bough_api_keys_set_used(keys->srv->cat, &rows[i], &err);
    }
    free(rows);
    if (!rc) rc = keys_reload(keys, &err);
out:
    if (rc) bough_log(BOUGH_LOG_WARN, "could not keep the API keys", "error", err.message, NULL);
}

int keys_find(bough_api_key_row *row, struct keys *keys, const char *key, const char *from,
              bough_error *err) {
    char hash[BOUGH_HASH_SIZE];
    clock_moment moment;
    entry *found = NULL;
    int rc = bough_secret_hash(hash, key, strlen(key), err);
    if (rc) return rc;
    clock_look(&moment, keys->srv->clock);
    pthread_mutex_lock(&keys->mutex);
    for (size_t i = 0; i < keys->n; i++) /* all of them, so that time tells nothing */
        if (bough_secret_hash_equal(hash, keys->entries[i].row.hash)) found = &keys->entries[i];
    /* the later of the clocks: a key must not live on because one was set back */
    if (found && found->row.expires_ms && found->row.expires_ms <= moment.latest_ms) found = NULL;
    if (found) {
        int64_t now_ms = bough_now_epoch_ms();
        /* one commit a minute at most for who asks all the time */
        found->is_used |= now_ms - found->row.last_used_ms > 60000;
        if (found->is_used) found->row.last_used_ms = now_ms;
        (void)snprintf(found->row.last_used_from, sizeof found->row.last_used_from, "%s", from);
        *row = found->row;
        row->hash[0] = '\0';
    }
    pthread_mutex_unlock(&keys->mutex);
    return found ? BOUGH_OK : bough_fail(err, BOUGH_E_AUTH, "the API key is missing or wrong");
}

/* Seconds until the bucket has a token; 0 where it has one. */
static double look(bucket *b, double now_ms, double per_second, double most) {
    b->tokens = fmin(most, b->tokens + (now_ms - b->at_ms) / 1000 * per_second);
    b->at_ms = now_ms;
    return b->tokens >= 1 ? 0 : (1 - b->tokens) / per_second;
}

int keys_take(struct keys *keys, const bough_api_key_row *row, size_t index) {
    const server *srv = keys->srv;
    size_t n = router_count() + 1;
    double now_ms = bough_now_ms(), wait = 0;
    if (!srv->api_rate || (row->is_local && !srv->limits_local_key)) return 0;
    pthread_mutex_lock(&keys->mutex);
    entry *e = find_id(keys, row->id);
    if (e && !e->routes && (e->routes = calloc(n, sizeof *e->routes)))
        for (size_t i = 0; i < n; i++) e->routes[i] = (bucket){srv->api_burst, now_ms};
    if (e && !e->is_begun) {
        e->is_begun = true;
        e->minute = (bucket){srv->api_rate, now_ms};
    }
    if (e) {
        wait = look(&e->minute, now_ms, srv->api_rate / 60.0, srv->api_rate);
        bucket *b = e->routes ? &e->routes[index < n ? index : n - 1] : NULL;
        if (b) wait = fmax(wait, look(b, now_ms, srv->api_burst, srv->api_burst));
        if (wait <= 0) {
            e->minute.tokens--;
            if (b) b->tokens--;
        }
    }
    pthread_mutex_unlock(&keys->mutex);
    return wait > 0 ? (int)ceil(wait) : 0;
}

int keys_list(bough_api_key_row **rows, size_t *n, struct keys *keys, bough_error *err) {
    pthread_mutex_lock(&keys->mutex);
    *n = keys->n;
    *rows = calloc(keys->n + 1, sizeof **rows);
    for (size_t i = 0; *rows && i < keys->n; i++) (*rows)[i] = keys->entries[i].row;
    pthread_mutex_unlock(&keys->mutex);
    return *rows ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}
