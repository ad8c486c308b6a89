/*
 * A running postgres.
 *
 * The hot path (start, wait until ready) makes no poll of its own: the preload library tells
 * through an eventfd, the kernel through a pidfd. Only a plain cluster, which has no library, is
 * asked by its postmaster.pid.
 *
 * Backends put themselves into sessions of their own, so signalling the postmaster's group does not
 * reach them: for SIGKILL they are looked up as its children.
 */
#include "pg/compute.h"

#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pg/landlock.h"
#include "pg/pglog.h"
#include "pg/pidfile.h"
#include "pg/spawn.h"
#include "util/error.h"
#include "util/fs.h"
#include "util/waiting.h"

#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif

enum {
    MOST_ARGS = 256,
    PLAIN_POLL_MS = 5,
    SPARE_POLL_MS = 100,
    PING_MS = 2000,
    PING_MOST_MS = 30000,
    MOST_CHILDREN = 4096
};

struct bough_compute {
    pid_t pid;
    int pidfd;
    int ready; /* eventfd the library writes to; -1: look into postmaster.pid */
    bool ours; /* our child: to be reaped */
    bool ended;
    int status;   /* of waitpid(), when ours and ended */
    off_t log_at; /* where this run's log begins */
    char log_path[BOUGH_PATH_MAX];
    char pgdata[BOUGH_PATH_MAX];
};

static bough_compute *compute_new(const char *pgdata, bough_error *err) {
    bough_compute *c = calloc(1, sizeof *c);
    if (!c) {
        (void)bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        return NULL;
    }
    c->pidfd = c->ready = -1;
    (void)snprintf(c->pgdata, sizeof c->pgdata, "%s", pgdata);
    return c;
}

void bough_compute_free(bough_compute *compute) {
    if (!compute) return;
    if (compute->pidfd >= 0) close(compute->pidfd);
    if (compute->ready >= 0) close(compute->ready);
    free(compute);
}

pid_t bough_compute_pid(const bough_compute *compute) {
    return compute->pid;
}
int bough_compute_pidfd(const bough_compute *compute) {
    return compute->pidfd;
}

/* ---- starting ---- */

static int make_args(const char **argv, char *program, size_t size, const bough_compute_spec *spec,
                     bough_error *err) {
    int rc = bough_path(program, size, err, "%s/postgres", spec->pg->bindir);
    if (rc) return rc;
    size_t n = 0;
    argv[n++] = program;
    argv[n++] = "-D";
    argv[n++] = spec->pgdata;
    for (size_t i = 0; spec->settings && spec->settings[i]; i++) {
        if (n + 3 > MOST_ARGS)
            return bough_fail(err, BOUGH_E_INVALID, "too many settings for a compute");
        argv[n++] = "-c";
        argv[n++] = spec->settings[i];
    }
    argv[n] = NULL;
    return BOUGH_OK;
}

/* A library of a test's behind ours, which sees the calls that the kernel gets. */
static const char *preload_last(void) {
#ifdef BOUGH_CRASH_POINTS
    return getenv("BOUGH_PRELOAD_LAST");
#else
    return NULL;
#endif
}

static void make_env(bough_env *env, const bough_compute_spec *spec, int ready) {
    char number[16], preload[BOUGH_PATH_MAX];
    bough_env_init(env, spec->pg->bindir);
    if (!spec->preload) return;
    /* A library built with AddressSanitizer needs its runtime loaded first. */
    const char *first = getenv("BOUGH_PRELOAD_FIRST");
    const char *last = preload_last();
    (void)snprintf(preload, sizeof preload, "%s%s%s%s%s", first ? first : "", first ? ":" : "",
                   spec->preload, last ? ":" : "", last ? last : "");
    bough_env_set(env, "LD_PRELOAD", preload);
    (void)snprintf(number, sizeof number, "%d", spec->shm_fd);
    bough_env_set(env, "BOUGH_SHM_FD", number);
    (void)snprintf(number, sizeof number, "%d", ready);
    bough_env_set(env, "BOUGH_READY_FD", number);
    if (spec->handoff_dir) bough_env_set(env, "BOUGH_HANDOFF_DIR", spec->handoff_dir);
}

/* The branch's own directories to write; its layers and the library to read; nothing of its
 * neighbours. */
static int make_rules(int *ruleset, const bough_compute_spec *spec, bough_error *err) {
    size_t n_rw = 0, n_ro = 0;
    while (spec->rw_paths && spec->rw_paths[n_rw]) n_rw++;
    while (spec->ro_paths && spec->ro_paths[n_ro]) n_ro++;
    const char **rw = calloc(n_rw + n_ro + 7, sizeof *rw);
    if (!rw) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    const char **ro = rw + n_rw + 3;
    size_t at = 0;
    rw[at++] = spec->pgdata;
    rw[at++] = spec->socket_dir;
    for (size_t i = 0; i < n_rw; i++) rw[at++] = spec->rw_paths[i];
    at = 0;
    if (spec->preload) ro[at++] = spec->preload;
    if (spec->preload && preload_last()) ro[at++] = preload_last();
    for (size_t i = 0; i < n_ro; i++) ro[at++] = spec->ro_paths[i];
    bough_landlock_rules rules = {
        .bindir = spec->pg->bindir, .rw = rw, .ro = ro, .allow_network = spec->allow_network};
    int rc = bough_landlock_prepare(ruleset, &rules, err);
    free(rw);
    return rc;
}

static int open_log(bough_compute *c, const char *path, int *fd, bough_error *err) {
    int rc = bough_path(c->log_path, sizeof c->log_path, err, "%s", path);
    if (rc) return rc;
    struct stat st;
    *fd = bough_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd < 0) return bough_fail_sys(err, errno, "could not open the log \"%s\"", path);
    if (fstat(*fd, &st) == 0) c->log_at = st.st_size;
    return BOUGH_OK;
}

int bough_compute_start(bough_compute **compute, const bough_compute_spec *spec, bough_error *err) {
    *compute = NULL;
    const char *argv[MOST_ARGS];
    char program[BOUGH_PATH_MAX];
    bough_env env;
    int log = -1, ruleset = -1;
    bough_compute *c = compute_new(spec->pgdata, err);
    if (!c) return BOUGH_E_NOMEM;
    int rc = make_args(argv, program, sizeof program, spec, err);
    if (!rc) rc = open_log(c, spec->log_path, &log, err);
    if (!rc && spec->preload) {
        c->ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (c->ready < 0) rc = bough_fail_sys(err, errno, "could not make an eventfd");
    }
    if (!rc) rc = make_rules(&ruleset, spec, err);
    if (rc) goto out;
    make_env(&env, spec, c->ready);
    bough_pidfile_repair(spec->pgdata, spec->socket_dir);
    if (spec->handoff_dir) bough_pidfile_repair(spec->pgdata, spec->handoff_dir);
    bough_spawn_spec child = {.argv = argv,
                              .env = &env,
                              .cwd = spec->pgdata,
                              .in = -1,
                              .out = log,
                              .err = log,
                              .keep = {spec->preload ? spec->shm_fd : -1, c->ready},
                              .ruleset = ruleset,
                              .dies_with_us = false,
                              .group = spec->group,
                              .group_errno = spec->group_errno};
    rc = bough_spawn(&c->pid, &c->pidfd, &child, err);
    c->ours = true;
out:
    if (log >= 0) close(log);
    if (ruleset >= 0) close(ruleset);
    if (rc)
        bough_compute_free(c);
    else
        *compute = c;
    return rc;
}

/* ---- being there ---- */

bool bough_compute_running(bough_compute *compute) {
    if (compute->ended) return false;
    struct pollfd p = {.fd = compute->pidfd, .events = POLLIN};
    if (poll(&p, 1, 0) <= 0) return true;
    if (compute->ours) (void)waitpid(compute->pid, &compute->status, WNOHANG);
    compute->ended = true;
    return false;
}

static int fail_ended(const bough_compute *c, bough_error *err) {
    char line[384], hint[sizeof((bough_error *)0)->hint];
    int code = BOUGH_E_PG;
    if (bough_pglog_failure(line, sizeof line, hint, sizeof hint, &code, c->log_path, c->log_at) ==
        0) {
        (void)bough_fail(err, code, "postgres ended: %s", line);
        if (hint[0]) {
            (void)bough_hint(err, "%s", hint);
            return code;
        }
    } else if (c->ours && WIFSIGNALED(c->status)) {
        (void)bough_fail(err, code, "postgres was ended by signal %d", WTERMSIG(c->status));
    } else if (c->ours && WIFEXITED(c->status)) {
        (void)bough_fail(err, code, "postgres ended with status %d", WEXITSTATUS(c->status));
    } else {
        (void)bough_fail(err, code, "postgres ended");
    }
    if (c->log_path[0]) (void)bough_hint(err, "See its log \"%s\".", c->log_path);
    return code;
}

static bool pidfile_says_ready(const bough_compute *c) {
    bough_pidfile file;
    return bough_pidfile_read(&file, c->pgdata) == 0 && file.pid == c->pid && file.ready;
}

/* Whether it takes connections, whatever its file says: where the postmaster could not write
 * "ready" there, it says so in its log and goes on. Asked rarely, as each refusal is a line of that
 * log. */
static bool answers(const bough_compute *c) {
    bough_pidfile file;
    if (bough_pidfile_read(&file, c->pgdata) != 0 || file.pid != c->pid || !*file.socket_dir)
        return false;
    const char *const names[] = {"host",     "port",       "user",
                                 "dbname",   "options",    "connect_timeout",
                                 "passfile", "gssencmode", NULL};
    const char *const values[] = {
        file.socket_dir,        file.port, "postgres", "template1", "", "2",
        "/nonexistent/.pgpass", "disable", NULL};
    return PQpingParams(names, values, 0) == PQPING_OK;
}

bool bough_compute_ready(const bough_compute *compute) {
    return pidfile_says_ready(compute);
}

static int wait_ready(bough_compute *compute, int timeout_ms, bough_error *err) {
    double until = bough_now_ms() + timeout_ms;
    /* The library's word is enough; postmaster.pid is looked at now and then in case it got lost.
     */
    int interval = compute->ready >= 0 ? SPARE_POLL_MS : PLAIN_POLL_MS;
    double look = compute->ready >= 0 ? bough_now_ms() + interval : 0;
    double wait = PING_MS, ping = bough_now_ms() + wait;
    for (;;) {
        double now = bough_now_ms();
        if (now >= look) {
            if (pidfile_says_ready(compute)) return BOUGH_OK;
            look = now + interval;
        }
        if (now >= ping) {
            if (answers(compute)) return BOUGH_OK;
            wait = wait * 2 < PING_MOST_MS ? wait * 2 : PING_MOST_MS;
            ping = bough_now_ms() + wait;
        }
        if (now >= until)
            return bough_fail(err, BOUGH_E_TIMEOUT, "postgres was not ready after %d ms",
                              timeout_ms);
        double next = look < ping ? look : ping, pause = (next < until ? next : until) - now;
        struct pollfd p[2] = {{.fd = compute->pidfd, .events = POLLIN},
                              {.fd = compute->ready, .events = POLLIN}};
        int n = poll(p, 2, (int)pause + 1);
        if (n < 0 && errno != EINTR)
            return bough_fail_sys(err, errno, "could not wait for postgres");
        if (n > 0 && (p[1].revents & POLLIN)) {
            close(compute->ready);
            compute->ready = -1;
            return BOUGH_OK;
        }
        if (!bough_compute_running(compute)) return fail_ended(compute, err);
    }
}

int bough_compute_wait_ready(bough_compute *compute, int timeout_ms, bough_error *err) {
    (void)bough_wait_begin();
    int rc = wait_ready(compute, timeout_ms, err);
    bough_wait_end();
    return rc;
}

int bough_compute_adopt(bough_compute **compute, const char *pgdata, bough_error *err) {
    *compute = NULL;
    bough_pidfile file;
    if (bough_pidfile_read(&file, pgdata) != 0)
        return bough_fail(err, BOUGH_E_NOTFOUND, "no postgres runs on \"%s\"", pgdata);
    bough_compute *c = compute_new(pgdata, err);
    if (!c) return BOUGH_E_NOMEM;
    /* The descriptor first: what is checked then cannot become another process. */
    c->pid = file.pid;
    c->pidfd = (int)syscall(__NR_pidfd_open, file.pid, 0);
    struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
    if (c->pidfd < 0 || poll(&p, 1, 0) != 0 || !bough_pidfile_process_is(file.pid, pgdata)) {
        bough_compute_free(c);
        return bough_fail(err, BOUGH_E_NOTFOUND, "no postgres runs on \"%s\"", pgdata);
    }
    *compute = c;
    return BOUGH_OK;
}

/* ---- stopping ---- */

static int await_pidfd(int pidfd, double until) {
    for (;;) {
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        double left = until - bough_now_ms();
        if (poll(&p, 1, left > 0 ? (int)left + 1 : 0) > 0) return 0;
        if (left <= 0) return -1;
    }
}

/* Append the children of `pid`; the kernel lists them by thread, and postgres has one thread. */
static size_t add_children(pid_t *list, size_t count, pid_t pid) {
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "re");
    if (!f) return count;
    int child;
    while (count < MOST_CHILDREN && fscanf(f, "%d", &child) == 1) list[count++] = (pid_t)child;
    (void)fclose(f);
    return count;
}

/* SIGKILL to the postmaster and all below it. It is stopped first, so that none is born meanwhile.
 */
static int kill_tree(bough_compute *c, double until, bough_error *err) {
    pid_t *list = calloc(MOST_CHILDREN, sizeof *list);
    int *fds = calloc(MOST_CHILDREN, sizeof *fds);
    int rc = BOUGH_OK;
    size_t count = 0;
    if (!list || !fds) {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        goto out;
    }
    (void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGSTOP, NULL, 0);
    count = add_children(list, count, c->pid);
    for (size_t i = 0; i < count; i++) count = add_children(list, count, list[i]);
    for (size_t i = 0; i < count; i++) fds[i] = (int)syscall(__NR_pidfd_open, list[i], 0);
    (void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0) (void)syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0);
    bool gone = await_pidfd(c->pidfd, until) == 0;
    for (size_t i = 0; i < count; i++) {
        if (fds[i] < 0) continue;
        gone = await_pidfd(fds[i], until) == 0 && gone;
        close(fds[i]);
    }
    if (!gone) rc = bough_fail(err, BOUGH_E_TIMEOUT, "postgres did not end in time");
out:
    free(list);
    free(fds);
    return rc;
}

static int stop(bough_compute *compute, bough_stop how, int timeout_ms, bough_error *err) {
    double until = bough_now_ms() + timeout_ms;
    int rc = BOUGH_OK;
    if (how == BOUGH_STOP_KILL) {
        rc = kill_tree(compute, until, err);
    } else {
        int sig = how == BOUGH_STOP_FAST ? SIGINT : SIGQUIT;
        if (syscall(SYS_pidfd_send_signal, compute->pidfd, sig, NULL, 0) != 0 && errno != ESRCH)
            return bough_fail_sys(err, errno, "could not signal postgres");
        if (await_pidfd(compute->pidfd, until) != 0)
            rc = bough_fail(err, BOUGH_E_TIMEOUT, "postgres did not stop within %d ms", timeout_ms);
    }
    if (!rc) (void)bough_compute_running(compute);
    return rc;
}

int bough_compute_stop(bough_compute *compute, bough_stop how, int timeout_ms, bough_error *err) {
    if (!bough_compute_running(compute)) return BOUGH_OK;
    (void)bough_wait_begin();
    int rc = stop(compute, how, timeout_ms, err);
    bough_wait_end();
    return rc;
}
