/*
 * Starting programs.
 *
 * The child is made with CLONE_VM | CLONE_VFORK as posix_spawn() does it: no page table is copied,
 * and what posix_spawn() cannot do (Landlock, prctl, limits) can be done before exec. In the child
 * only async-signal-safe calls are made; everything they need is prepared before. Why it failed
 * comes back through a close-on-exec pipe.
 */
#include "pg/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pg/landlock.h"
#include "util/error.h"
#include "util/fs.h"

enum {
    CHILD_STACK = 128 * 1024,
    MOST_FILES = 65536,
    LINE_MAX_BYTES = 4096,
    TICK_MS = 100,
    END_MS = 5000,
    CLOSE_CLOEXEC = 1 << 2 /* CLOSE_RANGE_CLOEXEC, Linux 5.11 */
};

#ifndef __NR_close_range
#define __NR_close_range 436
#endif
#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif

/* ---- environment ---- */

void bough_env_set(bough_env *env, const char *name, const char *value) {
    size_t room = sizeof env->text - env->used;
    int n = snprintf(env->text + env->used, room, "%s=%s", name, value);
    if (n < 0 || (size_t)n >= room || env->count == BOUGH_ENV_MAX) {
        env->overflow = true;
        return;
    }
    env->vars[env->count++] = env->text + env->used;
    env->vars[env->count] = NULL;
    env->used += (size_t)n + 1;
}

static void copy_env(bough_env *env, const bough_env *from) {
    env->count = env->used = 0;
    env->overflow = from->overflow;
    env->vars[0] = NULL;
    for (size_t i = 0; i < from->count; i++) {
        size_t n = strlen(from->vars[i]) + 1;
        env->vars[env->count++] = memcpy(env->text + env->used, from->vars[i], n);
        env->vars[env->count] = NULL;
        env->used += n;
    }
}

void bough_env_inherit(bough_env *env, const char *name) {
    const char *value = getenv(name);
    if (value) bough_env_set(env, name, value);
}

void bough_env_init(bough_env *env, const char *bindir) {
    env->count = env->used = 0;
    env->overflow = false;
    env->vars[0] = NULL;
    char text[BOUGH_PATH_MAX * 2];
    (void)snprintf(text, sizeof text, "%s:/usr/local/bin:/usr/bin:/bin", bindir);
    bough_env_set(env, "PATH", text);
    bough_env_set(env, "LC_ALL", "C.UTF-8");
    bough_env_set(env, "TZ", "UTC");
    bough_env_inherit(env, "ASAN_OPTIONS");
    bough_env_inherit(env, "UBSAN_OPTIONS");
    bough_env_inherit(env, "LSAN_OPTIONS");

    char lib[BOUGH_PATH_MAX];
    (void)snprintf(text, sizeof text, "%s/../lib", bindir);
    if (realpath(text, lib) && strncmp(lib, "/usr/", 5) != 0 && strncmp(lib, "/lib", 4) != 0)
        bough_env_set(env, "LD_LIBRARY_PATH", lib);
}

/* ---- the primitive ---- */

typedef struct child_args {
    const bough_spawn_spec *spec;
    int report; /* write end of the pipe */
    int null;   /* /dev/null */
} child_args;

static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    rlim_t want = limit.rlim_max > MOST_FILES ? MOST_FILES : limit.rlim_max;
    if (limit.rlim_cur >= want) return;
    limit.rlim_cur = want;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* Before exec, so that all it ever uses counts. It starts without a limit rather than not at all.
 */
static void enter_group(const bough_spawn_spec *spec) {
    int fd = bough_open(spec->group, O_WRONLY | O_CLOEXEC, 0);
    if ((fd < 0 || write(fd, "0", 1) != 1) && spec->group_errno) *spec->group_errno = errno;
    if (fd >= 0) close(fd);
}

/* The child's descriptors 0 to 2 (open in every daemon, so none that we hand over is among them).
 */
static int place(const child_args *args) {
    const bough_spawn_spec *spec = args->spec;
    int from[3] = {spec->in, spec->out, spec->err};
    for (int i = 0; i < 3; i++)
        if (dup2(from[i] < 0 ? args->null : from[i], i) < 0) return -1;
    (void)syscall(__NR_close_range, 3U, ~0U, CLOSE_CLOEXEC);
    for (int i = 0; i < 2; i++)
        if (spec->keep[i] >= 0 && fcntl(spec->keep[i], F_SETFD, 0) != 0) return -1;
    return 0;
}

__attribute__((no_sanitize("address"))) static int child(void *data) {
    const child_args *args = data;
    const bough_spawn_spec *spec = args->spec;
    struct sigaction plain = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < NSIG; sig++)
        if (sig != SIGKILL && sig != SIGSTOP) (void)sigaction(sig, &plain, NULL);
    sigset_t none;
    sigemptyset(&none);
    umask(0077);
    raise_file_limit();
    if (spec->group) enter_group(spec);
    if (setsid() >= 0 && chdir(spec->cwd ? spec->cwd : "/") == 0 && place(args) == 0 &&
        (!spec->dies_with_us || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0) &&
        (!spec->is_alone || setrlimit(RLIMIT_NPROC, &(struct rlimit){0}) == 0) &&
        bough_landlock_enforce(spec->ruleset) == 0 && sigprocmask(SIG_SETMASK, &none, NULL) == 0)
        (void)execve(spec->argv[0], (char *const *)(uintptr_t)spec->argv,
                     (char *const *)(uintptr_t)spec->env->vars);
    int why = errno;
    (void)!write(args->report, &why, sizeof why);
    _exit(127);
}

static int pidfd_of(pid_t pid) {
    return (int)syscall(__NR_pidfd_open, pid, 0);
}

/* Clone with all signals blocked, so that no handler of ours runs in the child. */
static pid_t clone_child(child_args *args, bough_error *err) {
    char *stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
        (void)bough_fail_sys(err, errno, "could not start \"%s\"", args->spec->argv[0]);
        return -1;
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#ifdef __SANITIZE_THREAD__ /* which would take what the child does for something that we do */
    pid_t pid = fork();
    if (pid == 0) _exit(child(args));
#else
    pid_t pid = clone(child, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, args);
#endif
    if (pid < 0) (void)bough_fail_sys(err, errno, "could not start \"%s\"", args->spec->argv[0]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    munmap(stack, CHILD_STACK);
    return pid;
}

int bough_spawn(pid_t *pid, int *pidfd, const bough_spawn_spec *spec, bough_error *err) {
    *pid = -1;
    *pidfd = -1;
    if (spec->env->overflow)
        return bough_fail(err, BOUGH_E_INVALID, "the environment of \"%s\" is too large",
                          spec->argv[0]);
    int report[2] = {-1, -1}, null = -1, why = 0, rc = BOUGH_OK;
    pid_t made = -1;
    if (pipe2(report, O_CLOEXEC) != 0) return bough_fail_sys(err, errno, "could not make a pipe");
    null = bough_open("/dev/null", O_RDWR | O_CLOEXEC, 0);
    if (null < 0) {
        rc = bough_fail_sys(err, errno, "could not open \"/dev/null\"");
        goto out;
    }
    child_args args = {.spec = spec, .report = report[1], .null = null};
    made = clone_child(&args, err);
    if (made < 0) {
        rc = err ? err->code : BOUGH_E_SYS;
        goto out;
    }
    close(report[1]);
    report[1] = -1;
    ssize_t n;
    do n = read(report[0], &why, sizeof why);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        (void)waitpid(made, NULL, 0);
        rc = bough_fail_sys(err, why, "could not start \"%s\"", spec->argv[0]);
        goto out;
    }
    *pidfd = pidfd_of(made);
    if (*pidfd < 0) {
        rc = bough_fail_sys(err, errno, "could not watch process %d", (int)made);
        (void)kill(made, SIGKILL);
        (void)waitpid(made, NULL, 0);
        goto out;
    }
    *pid = made;
out:
    if (null >= 0) close(null);
    if (report[0] >= 0) close(report[0]);
    if (report[1] >= 0) close(report[1]);
    return rc;
}

/* ---- tools ---- */

void bough_one_line(char *out, size_t size, const char *line) {
    size_t n = 0;
    bool space = true;
    for (const char *p = line; *p && n + 1 < size; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < ' ' || c == ' ' || c == 0x7f) {
            if (!space) out[n++] = ' ';
            space = true;
        } else {
            out[n++] = *p;
            space = false;
        }
    }
    while (n && (out[n - 1] == ' ' || out[n - 1] == '.')) n--;
    if (size) out[n] = '\0';
}

static const char *run_mark;

void bough_run_mark(const char *mark) {
    run_mark = mark;
}

typedef struct tool {
    const bough_run *run;
    bough_env env;
    pid_t pid;
    int pidfd, in, out, errors;
    char fed[65536];
    size_t fed_size, fed_at;
    char line[LINE_MAX_BYTES];
    size_t line_size;
} tool;

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void end_line(tool *t) {
    t->line[t->line_size] = '\0';
    if (t->line_size && t->run->line) t->run->line(t->run->context, t->line);
    t->line_size = 0;
}

static void take_errors(tool *t, const char *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\n' || data[i] == '\r')
            end_line(t);
        else if (t->line_size + 1 < sizeof t->line)
            t->line[t->line_size++] = data[i];
    }
}

/* Read what is there from one of the child's two outputs; closes it at its end. */
static int drain(tool *t, int *fd, bough_error *err) {
    char buffer[65536];
    for (;;) {
        ssize_t n = read(*fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return BOUGH_OK;
        if (n <= 0) {
            close_fd(fd);
            return BOUGH_OK;
        }
        if (fd == &t->out) {
            int rc = t->run->output(t->run->context, buffer, (size_t)n, err);
            if (rc) return rc;
        } else {
            take_errors(t, buffer, (size_t)n);
        }
    }
}

static int feed(tool *t, bough_error *err) {
    if (t->fed_at == t->fed_size) {
        ssize_t n = t->run->feed(t->run->context, t->fed, sizeof t->fed, err);
        if (n < 0) return (int)n;
        if (n == 0) {
            close_fd(&t->in);
            return BOUGH_OK;
        }
        t->fed_size = (size_t)n;
        t->fed_at = 0;
    }
    ssize_t n =
        send(t->in, t->fed + t->fed_at, t->fed_size - t->fed_at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0)
        t->fed_at += (size_t)n;
    else if (errno != EAGAIN && errno != EINTR)
        close_fd(&t->in); /* it has ended or will; its last words tell why */
    return BOUGH_OK;
}

static int await_end(tool *t, int timeout_ms) {
    struct pollfd p = {.fd = t->pidfd, .events = POLLIN};
    double until = bough_now_ms() + timeout_ms;
    for (;;) {
        double left = until - bough_now_ms();
        int n = poll(&p, 1, left > 0 ? (int)left + 1 : 0);
        if (n > 0) return 0;
        if (left <= 0) return -1;
    }
}

static void end_group(tool *t) {
    (void)kill(-t->pid, SIGTERM);
    if (await_end(t, END_MS) != 0) {
        (void)kill(-t->pid, SIGKILL);
        (void)await_end(t, END_MS);
    }
}

/*
 * The tool has ended; what it started may not have (pg_basebackup's WAL receiver, the postgres of
 * initdb), and would go on writing. All of them hold the pipe for errors: at its end there are
 * none. The group is killed before the tool is reaped, so that its number is still ours.
 */
static int end_rest(tool *t, bough_error *err) {
    double until = bough_now_ms() + END_MS;
    (void)kill(-t->pid, SIGKILL);
    while (t->errors >= 0) {
        struct pollfd p = {.fd = t->errors, .events = POLLIN};
        double left = until - bough_now_ms();
        if (left <= 0)
            return bough_fail(err, BOUGH_E_TIMEOUT, "what \"%s\" started does not end",
                              t->run->argv[0]);
        if (poll(&p, 1, (int)left + 1) > 0) (void)drain(t, &t->errors, NULL);
    }
    return BOUGH_OK;
}

static int loop(tool *t, bough_error *err) {
    double next = bough_now_ms() + TICK_MS;
    bool ended = false;
    while (!ended) {
        struct pollfd p[4] = {{.fd = t->pidfd, .events = POLLIN},
                              {.fd = t->out, .events = POLLIN},
                              {.fd = t->errors, .events = POLLIN},
                              {.fd = t->in, .events = POLLOUT}};
        double left = next - bough_now_ms();
        int n = poll(p, 4, left > 0 ? (int)left + 1 : 0);
        if (n < 0 && errno != EINTR)
            return bough_fail_sys(err, errno, "could not wait for a program");
        int rc = BOUGH_OK;
        ended = n > 0 && p[0].revents;
        if (t->out >= 0 && (ended || p[1].revents)) rc = drain(t, &t->out, err);
        if (!rc && t->errors >= 0 && (ended || p[2].revents)) rc = drain(t, &t->errors, err);
        if (!rc && !ended && t->in >= 0 && p[3].revents) rc = feed(t, err);
        if (rc) return rc;
        if (!ended && bough_now_ms() >= next) {
            next = bough_now_ms() + TICK_MS;
            if (t->run->tick && t->run->tick(t->run->context, t->pid))
                return bough_fail(err, BOUGH_E_CANCELLED, "interrupted");
        }
    }
    return BOUGH_OK;
}

int bough_run_tool(int *status, const bough_run *run, bough_error *err) {
    *status = 0;
    int in[2] = {-1, -1}, out[2] = {-1, -1}, errors[2] = {-1, -1}, rc = BOUGH_OK;
    tool *t = calloc(1, sizeof *t);
    if (!t) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *t = (tool){.run = run, .pid = -1, .pidfd = -1, .in = -1, .out = -1, .errors = -1};
    copy_env(&t->env, run->env);
    if (run_mark) bough_env_set(&t->env, BOUGH_RUN_MARK, run_mark);
#ifdef BOUGH_CRASH_POINTS /* a test's library, which a confined tool could not read */
    const char *test_library = getenv("BOUGH_PRELOAD_TOOLS");
    if (test_library && run->ruleset < 0) bough_env_set(&t->env, "LD_PRELOAD", test_library);
#endif
    if ((run->feed && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) != 0) ||
        (run->output && pipe2(out, O_CLOEXEC) != 0) || pipe2(errors, O_CLOEXEC) != 0 ||
        (out[0] >= 0 && fcntl(out[0], F_SETFL, O_NONBLOCK) != 0) ||
        fcntl(errors[0], F_SETFL, O_NONBLOCK) != 0) {
        rc = bough_fail_sys(err, errno, "could not make a pipe");
        goto out;
    }
    t->in = in[0];
    t->out = out[0];
    t->errors = errors[0];
    bough_spawn_spec spec = {.argv = run->argv,
                             .env = &t->env,
                             .in = in[1],
                             .out = run->output ? out[1] : errors[1],
                             .err = errors[1],
                             .keep = {-1, -1},
                             .ruleset = run->ruleset,
                             .dies_with_us = true,
                             .is_alone = run->is_alone};
    rc = bough_spawn(&t->pid, &t->pidfd, &spec, err);
    close_fd(&in[1]);
    close_fd(&out[1]);
    close_fd(&errors[1]);
    if (rc) goto out;
    rc = loop(t, err);
    if (rc) end_group(t);
    int left = end_rest(t, rc ? NULL : err);
    if (!rc) rc = left;
    end_line(t);
    (void)waitpid(t->pid, status, 0);
out:
    close_fd(&in[1]);
    close_fd(&out[1]);
    close_fd(&errors[1]);
    if (t->pid < 0) { /* never started: the other ends are still ours alone */
        t->in = in[0];
        t->out = out[0];
        t->errors = errors[0];
    }
    close_fd(&t->in);
    close_fd(&t->out);
    close_fd(&t->errors);
    close_fd(&t->pidfd);
    free(t);
    return rc;
}
