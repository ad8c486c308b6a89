/* Locks by name: the list of names that are held, that of who waits, one mutex, one condition. */
#include "server/locks.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util/waiting.h"

enum { TURNS = 4096 };

typedef struct held_lock {
    char *name;
    pthread_t owner;
} held_lock;

/* A thread that waits, on its stack. */
typedef struct waiter {
    struct waiter *next;
    const char *const *names;
    size_t n;
} waiter;

struct lock_table {
    pthread_mutex_t mutex;
    pthread_cond_t dropped;
    held_lock *held;
    size_t n, room;
    waiter *waiters;                  /* in the order in which they came */
    uint64_t turns[TURNS], all_turns; /* dropped after work, by a hash of the name, and in all */
};

int lock_table_new(lock_table **out, bough_error *err) {
    lock_table *t = *out = calloc(1, sizeof *t);
    if (!t) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_condattr_t attr;
    pthread_mutex_init(&t->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->dropped, &attr);
    pthread_condattr_destroy(&attr);
    return BOUGH_OK;
}

void lock_table_free(lock_table *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n; i++) free(t->held[i].name);
    free(t->held);
    pthread_cond_destroy(&t->dropped);
    pthread_mutex_destroy(&t->mutex);
    free(t);
}

static size_t find(const lock_table *t, const char *name) {
    size_t i = 0;
    while (i < t->n && strcmp(t->held[i].name, name) != 0) i++;
    return i;
}

static bool any_held(const lock_table *t, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (find(t, names[i]) < t->n) return true;
    return false;
}

static bool share_any(const waiter *w, const char *const *names, size_t n) {
    for (size_t i = 0; i < w->n; i++)
        for (size_t k = 0; k < n; k++)
            if (strcmp(w->names[i], names[k]) == 0) return true;
    return false;
}

/* How many wait for any of the names, before `until`; NULL: at all. */
static size_t count_waiters(const lock_table *t, const char *const *names, size_t n,
                            const waiter *until) {
    size_t count = 0;
    for (const waiter *w = t->waiters; w && w != until; w = w->next)
        count += share_any(w, names, n);
    return count;
}

static bool may_take(const lock_table *t, const char *const *names, size_t n, const waiter *self) {
    return !any_held(t, names, n) && count_waiters(t, names, n, self) == 0;
}

static void forget(lock_table *t, const char *name) {
    size_t i = find(t, name);
    if (i == t->n) return;
    free(t->held[i].name);
    t->held[i] = t->held[--t->n];
}

/* Add all names; on failure none. */
static bool hold(lock_table *t, const char *const *names, size_t n) {
    if (t->n + n > t->room) {
        size_t room = (t->n + n) * 2;
        held_lock *grown = realloc(t->held, room * sizeof *grown);
        if (!grown) return false;
        t->held = grown;
        t->room = room;
    }
    for (size_t i = 0; i < n; i++) {
        char *copy = strdup(names[i]);
        if (!copy) {
            while (i-- > 0) forget(t, names[i]);
            return false;
        }
        t->held[t->n++] = (held_lock){copy, pthread_self()};
    }
    return true;
}

/* With the mutex, which others have meanwhile. */
static int await_turn(lock_table *t, const char *const *names, size_t n,
                      const struct timespec *until) {
    waiter self = {.names = names, .n = n}, **last = &t->waiters;
    if (count_waiters(t, names, n, NULL) >= LOCK_WAITERS_MAX) return BOUGH_E_BUSY;
    int rc = bough_wait_begin() ? BOUGH_OK : BOUGH_E_BUSY;
    while (*last) last = &(*last)->next;
    if (!rc) *last = &self;
    while (!rc && !may_take(t, names, n, &self))
        if (pthread_cond_timedwait(&t->dropped, &t->mutex, until) == ETIMEDOUT &&
            !may_take(t, names, n, &self))
            rc = BOUGH_E_BUSY;
    for (waiter **w = &t->waiters; *w; w = &(*w)->next)
        if (*w == &self) {
            *w = self.next;
            break;
        }
    /* who gives up has stood before others */
    if (rc) pthread_cond_broadcast(&t->dropped);
    bough_wait_end();
    return rc;
}

int locks_take(lock_table *t, const char *const *names, size_t n, int timeout_ms,
               bough_error *err) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    int rc = BOUGH_OK;
    pthread_mutex_lock(&t->mutex);
    if (!may_take(t, names, n, NULL))
        rc = timeout_ms == 0 ? BOUGH_E_BUSY : await_turn(t, names, n, &until);
    if (!rc && !hold(t, names, n)) {
        rc = BOUGH_E_NOMEM;
        pthread_cond_broadcast(&t->dropped);
    }
    pthread_mutex_unlock(&t->mutex);
    if (rc == BOUGH_E_NOMEM) return bough_fail(err, rc, "out of memory");
    /* the text that Neon's clients know, for which they try again */
    if (rc)
        return bough_fail(err, rc,
                          "project already has running conflicting operations, scheduling of new "
                          "ones is prohibited");
    return BOUGH_OK;
}

static uint64_t *turns_of(lock_table *t, const char *name) {
    unsigned hash = 2166136261U; /* FNV-1a */
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619U;
    return &t->turns[hash % TURNS];
}

void locks_drop(lock_table *t, const char *const *names, size_t n) {
    pthread_mutex_lock(&t->mutex);
    for (size_t i = 0; i < n; i++) {
        forget(t, names[i]);
        ++*turns_of(t, names[i]);
    }
    t->all_turns++;
    pthread_cond_broadcast(&t->dropped);
    pthread_mutex_unlock(&t->mutex);
}

int lock_take(lock_table *t, const char *name, int timeout_ms, bough_error *err) {
    return locks_take(t, &name, 1, timeout_ms, err);
}

void lock_drop(lock_table *t, const char *name) {
    locks_drop(t, &name, 1);
}

void lock_drop_unchanged(lock_table *t, const char *name) {
    pthread_mutex_lock(&t->mutex);
    forget(t, name);
    pthread_cond_broadcast(&t->dropped);
    pthread_mutex_unlock(&t->mutex);
}

bool lock_is_ours(lock_table *t, const char *name) {
    pthread_mutex_lock(&t->mutex);
    size_t i = find(t, name);
    bool is_ours = i < t->n && pthread_equal(t->held[i].owner, pthread_self());
    pthread_mutex_unlock(&t->mutex);
    return is_ours;
}

uint64_t lock_turns(uint64_t *all, lock_table *t, const char *name) {
    pthread_mutex_lock(&t->mutex);
    uint64_t turns = *turns_of(t, name);
    *all = t->all_turns;
    pthread_mutex_unlock(&t->mutex);
    return turns;
}
