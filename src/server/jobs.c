/* Worker threads: one queue, one mutex. */
#include "server/jobs.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "util/waiting.h"

typedef struct job {
    struct job *next;
    void (*run)(void *arg);
    void *arg;
} job;

struct job_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work, ended;
    job *first, **last;
    int waiting;       /* jobs */
    int threads, idle; /* there are, and of them without a job */
    int away;          /* threads that wait for what others decide */
    int places, away_most;
    bool ending;
    char name[16];
};

static void start_one_more(job_pool *pool);

/* Whether there are more threads than places: others have been started for those that waited. */
static bool is_surplus(const job_pool *pool) {
    return pool->threads - pool->away > pool->places;
}

/* The calling thread waits for what others decide, or does not any more. */
static bool on_wait(void *context, bool begins) {
    job_pool *pool = context;
    pthread_mutex_lock(&pool->mutex);
    bool is_noted = !begins || pool->away < pool->away_most;
    if (is_noted) pool->away += begins ? 1 : -1;
    if (is_noted && begins) start_one_more(pool);
    pthread_mutex_unlock(&pool->mutex);
    return is_noted;
}

static void *work(void *arg) {
    job_pool *pool = arg;
    if (pool->away_most > 0) bough_wait_listen(on_wait, pool);
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (!pool->first && !pool->ending && !is_surplus(pool)) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->mutex);
            pool->idle--;
        }
        job *j = pool->first;
        if (!j || (is_surplus(pool) && !pool->ending)) {
            if (j) pthread_cond_signal(&pool->work); /* what woke it may be needed by another */
            break;
        }
        pool->first = j->next;
        if (!pool->first) pool->last = &pool->first;
        pool->waiting--;
        pthread_mutex_unlock(&pool->mutex);
        j->run(j->arg);
        free(j);
        pthread_mutex_lock(&pool->mutex);
    }
    pool->threads--;
    pthread_cond_signal(&pool->ended);
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void destroy(job_pool *pool) {
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->ended);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

/* With the mutex. @return An errno. */
static int start(job_pool *pool) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, work, pool);
    if (!error) {
        (void)pthread_setname_np(thread, pool->name);
        (void)pthread_detach(thread);
        pool->threads++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* With the mutex: where jobs wait, a place is free and no thread is there to take it. Without
 * memory for one, the jobs wait. */
static void start_one_more(job_pool *pool) {
    if (pool->waiting > pool->idle && pool->threads - pool->away < pool->places) (void)start(pool);
}

int job_pool_new(job_pool **out, const char *name, int threads, int waiting_most,
                 bough_error *err) {
    *out = NULL;
    job_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_condattr_t attr;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->ended, &attr);
    pthread_condattr_destroy(&attr);
    pool->last = &pool->first;
    pool->places = threads;
    pool->away_most = waiting_most;
    (void)snprintf(pool->name, sizeof pool->name, "%s", name);
    int rc = BOUGH_OK;
    pthread_mutex_lock(&pool->mutex);
    for (int i = 0; i < threads && !rc; i++) {
        int error = start(pool);
        if (error) rc = bough_fail_sys(err, error, "could not start a thread");
    }
    pthread_mutex_unlock(&pool->mutex);
    if (rc) {
        (void)job_pool_end(pool, 1000);
        return rc;
    }
    *out = pool;
    return BOUGH_OK;
}

int job_pool_add(job_pool *pool, void (*run)(void *arg), void *arg, bough_error *err) {
    job *j = malloc(sizeof *j);
    if (!j) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *j = (job){.run = run, .arg = arg};
    pthread_mutex_lock(&pool->mutex);
    bool ok = !pool->ending && pool->waiting < JOBS_MAX;
    if (ok) {
        *pool->last = j;
        pool->last = &j->next;
        pool->waiting++;
        pthread_cond_signal(&pool->work);
        start_one_more(pool);
    }
    pthread_mutex_unlock(&pool->mutex);
    if (ok) return BOUGH_OK;
    free(j);
    return bough_fail(err, BOUGH_E_BUSY, "the server is too busy, or is ending");
}

int job_pool_end(job_pool *pool, int timeout_ms) {
    if (!pool) return 0;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->ending = true;
    pthread_cond_broadcast(&pool->work);
    while (pool->threads > 0)
        if (pthread_cond_timedwait(&pool->ended, &pool->mutex, &until) == ETIMEDOUT) break;
    int left = pool->threads;
    pthread_mutex_unlock(&pool->mutex);
    if (left == 0) destroy(pool);
    return left;
}
