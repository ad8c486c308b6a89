/*
 * boughd in the background: double fork, setsid, output to a log, readiness by a byte on a pipe.
 *
 * Until it is ready, bough is the subreaper of what it starts: the orphaned boughd becomes its
 * child, so that its exit status can be read where it fails. SIGINT and SIGTERM are blocked
 * meanwhile and come in within ppoll() alone, so that none is counted just before a wait that then
 * knows nothing of it.
 */
#include "cli/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/error.h"
#include "util/fs.h"

#define LOG_TAIL_MAX ((size_t)1024 * 1024)
#define STOP_MS 10000

/* A file to be found: by a variable, else at one of these places below the executable's directory.
 */
typedef struct wanted {
    const char *name, *variable, *places[6];
    int access_mode;
} wanted;

static const wanted server_program = {"boughd",
                                      "BOUGH_BOUGHD",
                                      {"boughd", "../server/boughd", "../libexec/bough/boughd",
                                       "../" BOUGH_LIBEXECDIR "/bough/boughd",
                                       BOUGH_PREFIX "/" BOUGH_LIBEXECDIR "/bough/boughd", NULL},
                                      X_OK};
static const wanted preload_library = {
    "libbough_pg.so",
    "BOUGH_PRELOAD",
    {"libbough_pg.so", "../preload/libbough_pg.so", "../lib/bough/libbough_pg.so",
     "../" BOUGH_LIBDIR "/bough/libbough_pg.so",
     BOUGH_PREFIX "/" BOUGH_LIBDIR "/bough/libbough_pg.so", NULL},
    R_OK};

static int find_file(char *out, size_t size, const wanted *what, bough_error *err) {
    char self[BOUGH_PATH_MAX], path[2 * BOUGH_PATH_MAX];
    const char *given = getenv(what->variable);
    if (given && *given) {
        char *real = access(given, what->access_mode) == 0 ? realpath(given, NULL) : NULL;
        if (!real)
            return bough_fail_sys(err, errno, "could not use \"%s\" ($%s)", given, what->variable);
        int rc = bough_path(out, size, err, "%s", real);
        free(real);
        return rc;
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return bough_fail_sys(err, errno, "could not read \"/proc/self/exe\"");
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) *slash = '\0';
    for (const char *const *place = what->places; *place; place++) {
        if (**place == '/')
            (void)snprintf(path, sizeof path, "%s", *place);
        else
            (void)snprintf(path, sizeof path, "%s/%s", self, *place);
        if (access(path, what->access_mode) != 0) continue;
        char *real = realpath(path, NULL);
        if (!real) continue;
        int rc = bough_path(out, size, err, "%s", real);
        free(real);
        return rc;
    }
    (void)bough_fail(err, BOUGH_E_NOTFOUND, "\"%s\" is neither beside bough nor installed",
                     what->name);
    return bough_hint(err, "Reinstall Bough, or set $%s to where it is.", what->variable);
}

/* Make the store directory; as root, for the user that boughd becomes. */
static int make_store(bool *is_made, const char *store, bough_error *err) {
    struct stat st;
    *is_made = stat(store, &st) != 0;
    int rc = bough_mkdirs(store, 0755, err);
    if (rc || !*is_made) return rc;
    if (chmod(store, 0700) != 0) return bough_fail_sys(err, errno, "could not chmod \"%s\"", store);
    const struct passwd *pw = geteuid() == 0 ? getpwnam("postgres") : NULL;
    if (pw && chown(store, pw->pw_uid, pw->pw_gid) != 0)
        return bough_fail_sys(err, errno, "could not chown \"%s\"", store);
    return BOUGH_OK;
}

/* In the last process before exec. Ends with exec or _exit. */
static void become_server(char *const *argv, int log_fd, int ready_fd) {
    int null_fd = open("/dev/null", O_RDONLY);
    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)
        _exit(71);
    if (fcntl(ready_fd, F_SETFD, 0) < 0 || chdir("/") != 0) _exit(71);
    if (null_fd > 2) close(null_fd);
    umask(077);
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    execv(argv[0], argv);
    dprintf(2, "boughd: error: could not execute \"%s\": %s\n", argv[0], strerror(errno));
    _exit(71);
}

/* What the process between tells of the last one. */
typedef struct started {
    pid_t pid;
    int failed; /* errno where there is none */
} started;

/* Fork twice; the server's pid comes back through `pid_pipe`. */
static int fork_server(pid_t *server, char *const *argv, int log_fd, int ready_fd,
                       bough_error *err) {
    int pid_pipe[2], status = 0;
    started last = {-1, 0};
    *server = -1;
    if (pipe2(pid_pipe, O_CLOEXEC) != 0) return bough_fail_sys(err, errno, "could not make a pipe");
    pid_t middle = fork();
    if (middle == 0) {
        last.pid = setsid() < 0 ? -1 : fork();
        if (last.pid == 0) become_server(argv, log_fd, ready_fd);
        last.failed = errno;
        (void)!write(pid_pipe[1], &last, sizeof last);
        _exit(0);
    }
    last.failed = errno;
    close(pid_pipe[1]);
    if (middle > 0) {
        ssize_t n;
        do n = read(pid_pipe[0], &last, sizeof last);
        while (n < 0 && errno == EINTR);
        if (n != (ssize_t)sizeof last) last = (started){-1, n < 0 ? errno : ECHILD};
        while (waitpid(middle, &status, 0) < 0 && errno == EINTR) continue;
    }
    close(pid_pipe[0]);
    *server = last.pid;
    return last.pid > 0 ? BOUGH_OK : bough_fail_sys(err, last.failed, "could not start a process");
}

static int interrupted(bough_error *err) {
    return bough_fail(err, BOUGH_E_CANCELLED, "cancelled");
}

/* What boughd wrote into its log since `from`: its last error line and hint. */
static void read_failure(bough_error *err, const char *log_path, off_t from) {
    int fd = open(log_path, O_RDONLY | O_CLOEXEC);
    char *text = fd >= 0 ? calloc(1, LOG_TAIL_MAX + 1) : NULL;
    if (text && bough_pread_full(fd, text, LOG_TAIL_MAX, from) > 0) {
        static const char error_mark[] = "boughd: error: ", hint_mark[] = "boughd: hint: ";
        for (char *save = NULL, *line = strtok_r(text, "\n", &save); line;
             line = strtok_r(NULL, "\n", &save)) {
            if (strncmp(line, error_mark, sizeof error_mark - 1) == 0) {
                (void)bough_fail(err, err->code, "%s", line + sizeof error_mark - 1);
            } else if (strncmp(line, hint_mark, sizeof hint_mark - 1) == 0) {
                (void)bough_hint(err, "%s", line + sizeof hint_mark - 1);
            }
        }
    }
    free(text);
    if (fd >= 0) close(fd);
}

static int code_of_exit(int exit_status) {
    if (exit_status == bough_code_get(BOUGH_E_INTERNAL)->exit_status) return BOUGH_E_INTERNAL;
    for (int code = BOUGH_E_NOMEM; code >= BOUGH_E_INTERNAL; code--)
        if (bough_code_get(code)->exit_status == exit_status) return code;
    return BOUGH_E_INTERNAL;
}

/* Wait for the end of a server that has closed the pipe: the kernel closes it just before. */
static int wait_end(int *status, pid_t server, const sigset_t *open_mask, bough_error *err) {
    double until = bough_now_ms() + STOP_MS;
    for (;;) {
        pid_t ended = waitpid(server, status, WNOHANG);
        if (ended == server) return BOUGH_OK;
        if (ended < 0 && errno != EINTR)
            return bough_fail_sys(err, errno, "could not wait for boughd");
        if (cli_interrupts()) return interrupted(err);
        if (bough_now_ms() > until)
            return bough_fail(err, BOUGH_E_TIMEOUT,
                              "boughd has neither become ready nor ended after %d s",
                              STOP_MS / 1000);
        struct timespec pause = {.tv_nsec = 2 * 1000 * 1000};
        (void)ppoll(NULL, 0, &pause, open_mask);
    }
}

/* The server ended before it was ready: say why. */
static int explain_end(bough_error *err, pid_t server, const char *log_path, off_t log_from,
                       const sigset_t *open_mask) {
    int status = 0;
    bough_error failure = {0};
    int rc = wait_end(&status, server, open_mask, err);
    if (rc == BOUGH_E_TIMEOUT) (void)bough_hint(err, "See \"%.200s\".", log_path);
    if (rc) return rc;
    if (WIFSIGNALED(status))
        (void)bough_fail(&failure, BOUGH_E_INTERNAL, "boughd was ended by signal %d",
                         WTERMSIG(status));
    else
        (void)bough_fail(&failure, code_of_exit(WEXITSTATUS(status)),
                         "boughd ended with exit status %d before it was ready",
                         WEXITSTATUS(status));
    (void)bough_hint(&failure, "See \"%.200s\".", log_path);
    read_failure(&failure, log_path, log_from);
    if (err) *err = failure;
    return failure.code;
}

/* Wait for the ready byte, or for the end of the server. Signals come in as `open_mask` says. */
static int wait_ready(pid_t server, int ready_fd, const char *log_path, off_t log_from,
                      const sigset_t *open_mask, bough_error *err) {
    char ready = 0;
    for (;;) {
        struct pollfd p = {.fd = ready_fd, .events = POLLIN};
        if (cli_interrupts()) return interrupted(err);
        ssize_t n = ppoll(&p, 1, NULL, open_mask);
        if (n > 0) n = read(ready_fd, &ready, 1);
        if (n == 1) return BOUGH_OK;
        if (n == 0) return explain_end(err, server, log_path, log_from, open_mask);
        if (errno != EINTR) return bough_fail_sys(err, errno, "could not read from boughd");
    }
}

/* It has been started in vain, and may still run. */
static void stop_server(pid_t server) {
    if (waitpid(server, NULL, WNOHANG) != 0) return; /* ended, and its number may be another's */
    (void)kill(server, SIGTERM);
    if (daemon_wait_gone(server, STOP_MS, NULL) == BOUGH_E_TIMEOUT) (void)kill(server, SIGKILL);
}

int daemon_start(const char *store, const char *const *options, bough_error *err) {
    char program[BOUGH_PATH_MAX], preload[BOUGH_PATH_MAX], log_path[BOUGH_PATH_MAX];
    char fd_text[16];
    char *argv[DAEMON_OPTIONS_MAX + 8];
    bool is_made = false;
    int log_fd = -1, ready[2] = {-1, -1};
    pid_t server = -1;
    sigset_t ends, open_mask;
    int rc = find_file(program, sizeof program, &server_program, err);
    if (!rc) rc = find_file(preload, sizeof preload, &preload_library, err);
    if (!rc) rc = make_store(&is_made, store, err);
    if (!rc) rc = bough_path(log_path, sizeof log_path, err, "%s/boughd.log", store);
    if (rc) return rc;
    log_fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log_fd < 0) return bough_fail_sys(err, errno, "could not open \"%s\"", log_path);
    off_t log_from = lseek(log_fd, 0, SEEK_END);
    if (pipe2(ready, O_CLOEXEC) != 0) {
        rc = bough_fail_sys(err, errno, "could not make a pipe");
        goto out;
    }
    (void)snprintf(fd_text, sizeof fd_text, "%d", ready[1]);
    const char *const fixed[] = {program, "--store",    store,   "--preload",
                                 preload, "--ready-fd", fd_text, NULL};
    size_t n = 0;
    for (size_t i = 0; fixed[i]; i++) argv[n++] = (char *)(uintptr_t)fixed[i];
    for (size_t i = 0; options[i] && i < DAEMON_OPTIONS_MAX; i++)
        argv[n++] = (char *)(uintptr_t)options[i];
    argv[n] = NULL;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    sigemptyset(&ends);
    (void)sigaddset(&ends, SIGINT);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &ends, &open_mask);
    cli_interrupt_hold(true);
    rc = fork_server(&server, argv, log_fd, ready[1], err);
    close(ready[1]);
    ready[1] = -1;
    if (!rc) rc = wait_ready(server, ready[0], log_path, log_from, &open_mask, err);
    (void)sigprocmask(SIG_SETMASK, &open_mask, NULL);
    if (!rc && cli_interrupts()) rc = interrupted(err); /* it came as the server became ready */
    if (rc && server > 0) stop_server(server);
    cli_interrupt_hold(false);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
    if (rc && is_made) { /* nothing but our log: a refused store leaves nothing behind */
        DIR *dir = opendir(store);
        int names = 0;
        while (dir && readdir(dir)) names++;
        if (dir) closedir(dir);
        if (names == 3 && unlink(log_path) == 0) (void)rmdir(store);
    }
out:
    if (ready[0] >= 0) close(ready[0]);
    if (ready[1] >= 0) close(ready[1]);
    close(log_fd);
    return rc;
}

int daemon_wait_gone(pid_t pid, int timeout_ms, bough_error *err) {
    double until = bough_now_ms() + timeout_ms;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0), rc = BOUGH_OK;
    if (fd < 0 && errno == ESRCH) return BOUGH_OK;
    for (;;) {
        double left = until - bough_now_ms();
        /* without pidfds (before Linux 5.3), look now and then */
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = poll(&p, 1, left < 0 ? 0 : fd >= 0 ? (int)left : 20);
        if (n > 0 || (kill(pid, 0) != 0 && errno == ESRCH)) break;
        int before = cli_interrupts();
        if (n < 0 && before > 0) {
            rc = bough_fail(err, BOUGH_E_CANCELLED, "cancelled");
            break;
        }
        if (left <= 0) {
            rc = bough_fail(err, BOUGH_E_TIMEOUT, "process %ld has not ended after %d s", (long)pid,
                            timeout_ms / 1000);
            break;
        }
    }
    if (fd >= 0) close(fd);
    return rc;
}

/* Whether the process that a postmaster.pid names is a postgres on that directory. */
static bool is_running(const char *pgdata) {
    char path[BOUGH_PATH_MAX + 32], cwd[BOUGH_PATH_MAX], *text = NULL;
    size_t size = 0;
    (void)snprintf(path, sizeof path, "%s/postmaster.pid", pgdata);
    if (bough_read_file(&text, &size, path, 4096, NULL) != BOUGH_OK) return false;
    long pid = strtol(text, NULL, 10);
    free(text);
    if (pid <= 1) return false;
    (void)snprintf(path, sizeof path, "/proc/%ld/cwd",
                   pid); /* postgres works in its data directory */
    ssize_t n = readlink(path, cwd, sizeof cwd - 1);
    if (n < 0) return errno == EACCES && kill((pid_t)pid, 0) != 0 && errno == EPERM;
    cwd[n] = '\0';
    return strcmp(cwd, pgdata) == 0;
}

int daemon_count_computes(const char *store) {
    char path[BOUGH_PATH_MAX];
    int count = 0;
    if (bough_path(path, sizeof path, NULL, "%s/branches", store) != BOUGH_OK) return 0;
    DIR *dir = opendir(path);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        char pgdata[BOUGH_PATH_MAX];
        if (entry->d_name[0] != '.' && bough_path(pgdata, sizeof pgdata, NULL, "%s/%s/pgdata", path,
                                                  entry->d_name) == BOUGH_OK)
            count += is_running(pgdata);
    }
    if (dir) closedir(dir);
    return count;
}
