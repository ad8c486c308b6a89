/*
 * boughd: user, loop, signals.
 *
 * Ending: on SIGTERM, SIGINT or POST /bough/shutdown the loop stops listening and a drain thread
 * waits for the requests under way, while the loop still carries their answers; then the loop ends
 * and main() closes.
 */
#include <errno.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/computes.h"
#include "server/door.h"
#include "server/history.h"
#include "server/housekeeping.h"
#include "server/http.h"
#include "server/keys.h"
#include "server/mending.h"
#include "server/reserve.h"
#include "server/server.h"
#include "util/fs.h"
#include "util/log.h"

enum { DRAIN_MS = 60000, FLUSH_MS = 200, CLOCK_SECONDS = 5, CHECKPOINTS_MS = 500 };

/* ---- ending ---- */

static void end_loop(server *srv) {
    struct timeval soon = {.tv_usec = FLUSH_MS * 1000}; /* answers are still being written */
    (void)event_base_loopexit(srv->loop, &soon);
}

static void *drain(void *arg) {
    server *srv = arg;
    job_pool *requests = srv->requests, *longs = srv->longs, *sqls = srv->sqls;
    if (job_pool_end(requests, DRAIN_MS) == 0) srv->requests = NULL;
    if (job_pool_end(longs, DRAIN_MS) == 0) srv->longs = NULL;
    if (job_pool_end(sqls, DRAIN_MS) == 0) srv->sqls = NULL;
    end_loop(srv);
    return NULL;
}

/* Loop thread. */
static void on_stop(evutil_socket_t fd, short what, void *arg) {
    server *srv = arg;
    pthread_t thread;
    (void)fd;
    (void)what;
    if (!srv->http || atomic_exchange(&srv->stopping, true)) return;
    bough_log(BOUGH_LOG_INFO, "ending", NULL);
    http_stop_listening(srv->http);
    door_stop(srv->door);
    if (pthread_create(&thread, NULL, drain, srv) == 0)
        (void)pthread_detach(thread);
    else
        end_loop(srv);
}

static struct event *stop_event;

void server_stop(server *srv) {
    (void)srv;
    event_active(stop_event, EV_READ, 1);
}

/* ---- the clock ---- */

/* Computes are asked whether they are used, which may take a while where one is stuck: so nothing
 * else is behind it. */
static atomic_bool is_suspending, is_ticking;

static void suspend_job(void *arg) {
    computes_suspend_idle(arg);
    atomic_store(&is_suspending, false);
}

static void tick_job(void *arg) {
    history_tick(arg);
    keys_tick(((server *)arg)->keys);
    atomic_store(&is_ticking, false);
}

/* Unless the one before is still under way. */
static void begin_job(server *srv, atomic_bool *is_running, void (*run)(void *arg)) {
    if (atomic_exchange(is_running, true)) return;
    if (job_pool_add(srv->background, run, srv, NULL) != BOUGH_OK) atomic_store(is_running, false);
}

static void on_clock(evutil_socket_t fd, short what, void *arg) {
    server *srv = arg;
    (void)fd;
    (void)what;
    if (atomic_load(&srv->stopping)) return;
    reserve_refill();
    housekeeping_tick(srv);
    mending_tick(srv);
    begin_job(srv, &is_suspending, suspend_job);
    begin_job(srv, &is_ticking, tick_job);
}

static atomic_bool is_looking;

static void checkpoints_job(void *arg) {
    history_checkpoints(arg);
    atomic_store(&is_looking, false);
}

static void on_checkpoints(evutil_socket_t fd, short what, void *arg) {
    server *srv = arg;
    (void)fd;
    (void)what;
    if (!atomic_load(&srv->stopping)) begin_job(srv, &is_looking, checkpoints_job);
}

/* ---- main ---- */

static void tell_ready(const server_options *options) {
    if (options->ready_fd < 0) return;
    (void)!write(options->ready_fd, "1", 1);
    (void)close(options->ready_fd);
}

static int make_loop(server *srv, struct event **events, bough_error *err) {
    struct timeval period = {.tv_sec = getenv("BOUGH_LEAST_SUSPEND_SECONDS") ? 1 : CLOCK_SECONDS};
    struct timeval often = {.tv_usec = CHECKPOINTS_MS * 1000};
    struct event_config *config = event_config_new();
    if (evthread_use_pthreads() != 0 || !config)
        return bough_fail(err, BOUGH_E_INTERNAL, "libevent has no threads");
    srv->loop = event_base_new_with_config(config);
    event_config_free(config);
    if (!srv->loop) return bough_fail(err, BOUGH_E_SYS, "could not make an event loop");
    events[0] = stop_event = event_new(srv->loop, -1, EV_PERSIST, on_stop, srv);
    events[1] = evsignal_new(srv->loop, SIGTERM, on_stop, srv);
    events[2] = evsignal_new(srv->loop, SIGINT, on_stop, srv);
    events[3] = event_new(srv->loop, -1, EV_PERSIST, on_clock, srv);
    events[4] = event_new(srv->loop, -1, EV_PERSIST, on_checkpoints, srv);
    for (int i = 0; i < 5; i++)
        if (!events[i]) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (event_add(events[1], NULL) || event_add(events[2], NULL) || event_add(events[3], &period) ||
        event_add(events[4], &often))
        return bough_fail(err, BOUGH_E_INTERNAL, "could not watch signals");
    return BOUGH_OK;
}

static int run(const server_options *options, bough_error *err) {
    struct event *events[5] = {NULL};
    server *srv = calloc(1, sizeof *srv);
    if (!srv) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = server_become_user(srv, options, err);
    reserve_begin();
    if (!rc) rc = make_loop(srv, events, err);
    if (!rc) rc = server_open(srv, options, err);
    if (!rc) {
        bough_log(BOUGH_LOG_INFO, "listening", "api_url", srv->api_url, "postgres",
                  door_listens_on(srv->door), "store", srv->store_dir, "version", BOUGH_VERSION,
                  NULL);
        tell_ready(options);
        (void)event_base_dispatch(srv->loop);
    }
    server_close(srv);
    bough_log(BOUGH_LOG_INFO, "ended", NULL);
    /* what is left of libevent and `srv` goes with the process; late threads may still use them */
    for (int i = 0; i < 5; i++)
        if (events[i]) (void)event_del(events[i]);
    return rc;
}

/*
 * With an arena for each of dozens of threads, and buffers of lists kept in them, the server of a
 * thousand sleeping branches holds twice the memory that it uses. Threads here wait for the disk
 * and for PostgreSQL, not for malloc(); and a number given once ends glibc's own growing of the
 * limit from which blocks are given back to the kernel when they are freed.
 */
static void keep_memory_small(void) {
#ifdef __GLIBC__
    (void)mallopt(M_ARENA_MAX, 2);
    (void)mallopt(M_MMAP_THRESHOLD, 256 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
#endif
}

int main(int argc, char **argv) {
    server_options options;
    bough_error err = {0};
    if (bough_hold_standard() != 0) return bough_code_get(BOUGH_E_SYS)->exit_status;
    keep_memory_small();
    (void)signal(SIGPIPE, SIG_IGN);
    umask(077);
    int rc = server_options_read(&options, argc, argv, &err);
    if (rc == 1) return 0;
    if (!rc) {
        bough_log_init(BOUGH_LOG_INFO, options.log_json);
        if (options.ready_fd >= 0) (void)fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC);
        rc = run(&options, &err);
    }
    if (!rc) return 0;
    (void)fprintf(stderr, "boughd: error: %s\n", err.message);
    if (err.hint[0]) (void)fprintf(stderr, "boughd: hint: %s\n", err.hint);
    return bough_code_get(rc)->exit_status;
}
