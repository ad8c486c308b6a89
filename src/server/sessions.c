/* Threads of sessions. See sessions.h. */
#include "server/sessions.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { STACK_BYTES = 256 * 1024 };

int sessions_begin(sessions *all, int most, bough_error *err) {
    pthread_condattr_t attr;
    all->most = most;
    pthread_mutex_init(&all->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&all->ended, &attr);
    pthread_condattr_destroy(&attr);
    all->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    all->is_ready = true;
    return all->stop_fd < 0 ? bough_fail_sys(err, errno, "could not make an eventfd") : BOUGH_OK;
}

bool sessions_enter(sessions *all) {
    pthread_mutex_lock(&all->mutex);
    bool ok = all->n < all->most;
    if (ok) all->n++;
    pthread_mutex_unlock(&all->mutex);
    return ok;
}

void sessions_leave(sessions *all) {
    pthread_mutex_lock(&all->mutex);
    all->n--;
    pthread_cond_signal(&all->ended);
    pthread_mutex_unlock(&all->mutex);
}

int sessions_run(void *(*work)(void *), void *arg, bough_error *err) {
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t every, before;
    sigfillset(&every);
    pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    (void)pthread_sigmask(SIG_SETMASK, &every, &before);
    int failed = pthread_create(&thread, &attr, work, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return failed ? bough_fail_sys(err, failed, "could not start a thread") : BOUGH_OK;
}

int sessions_end(sessions *all, int timeout_ms) {
    struct timespec until;
    if (!all->is_ready) return 0;
    if (all->stop_fd >= 0) (void)eventfd_write(all->stop_fd, 1);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&all->mutex);
    while (all->n > 0)
        if (pthread_cond_timedwait(&all->ended, &all->mutex, &until) == ETIMEDOUT) break;
    int left = all->n;
    pthread_mutex_unlock(&all->mutex);
    if (left) return left;
    if (all->stop_fd >= 0) (void)close(all->stop_fd);
    pthread_cond_destroy(&all->ended);
    pthread_mutex_destroy(&all->mutex);
    all->is_ready = false;
    return 0;
}
