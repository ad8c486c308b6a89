/* Backends without a postmaster are known by their working directory, to which postgres changes;
 * tools without a server by their environment. */
#include "pg/orphans.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pg/pidfile.h"
#include "pg/spawn.h"
#include "util/error.h"
#include "util/fs.h"
#include "util/log.h"

#define ENVIRON_MAX ((size_t)1 << 20)
#define DETACH_MS 1000

#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif

typedef struct hunt {
    bool (*is_one)(pid_t pid, const char *of);
    const char *of;
    const char *what; /* for the log */
    double until;
    int found;
} hunt;

/* Kill one; the descriptor is taken before the check, so the number cannot become another process
 * between. */
static int end_one(hunt *h, pid_t pid, bough_error *err) {
    int fd = (int)syscall(__NR_pidfd_open, pid, 0);
    if (fd < 0) return BOUGH_OK;
    int rc = BOUGH_OK;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 0) == 0 && h->is_one(pid, h->of)) {
        h->found++;
        bough_log(BOUGH_LOG_WARN, "ending a process that is left", "what", h->what, "of", h->of,
                  NULL);
        (void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
        double left = h->until - bough_now_ms();
        if (poll(&p, 1, left > 0 ? (int)left + 1 : 0) <= 0)
            rc =
                bough_fail(err, BOUGH_E_TIMEOUT, "process %d, %s, does not end", (int)pid, h->what);
    }
    close(fd);
    return rc;
}

/* Look again until none is found: one may have been forked behind the listing. */
static int end_all(hunt *h, bough_error *err) {
    int rc = BOUGH_OK;
    do {
        h->found = 0;
        DIR *dir = opendir("/proc");
        if (!dir) return bough_fail_sys(err, errno, "could not list \"/proc\"");
        const struct dirent *d;
        int failed = 0;
        while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
            char *end;
            long pid = strtol(d->d_name, &end, 10);
            if (*end == '\0' && pid > 0) rc = end_one(h, (pid_t)pid, err);
        }
        if (failed) rc = bough_fail_sys(err, failed, "could not list \"/proc\"");
        closedir(dir);
    } while (!rc && h->found);
    return rc;
}

/* A number may have been given again, after a restart of the machine even to a stranger. */
static bool find_memory(bough_pidfile_segment *its, struct shmid_ds *found, const char *pgdata) {
    return bough_pidfile_read_segment(its, pgdata) == 0 && shmctl(its->id, IPC_STAT, found) == 0 &&
           (unsigned)found->shm_perm.__key == (unsigned)its->key && found->shm_cpid == its->pid;
}

bool bough_orphans_have_memory(const char *pgdata) {
    bough_pidfile_segment its;
    struct shmid_ds found;
    return find_memory(&its, &found, pgdata);
}

/* Who is ending has no name any more in /proc before the kernel takes its memory away. */
static void release_memory(const char *pgdata) {
    const struct timespec pause = {.tv_nsec = 2000000};
    bough_pidfile_segment its;
    struct shmid_ds found;
    double until = bough_now_ms() + DETACH_MS;
    bool is_there = find_memory(&its, &found, pgdata);
    while (is_there && found.shm_nattch != 0 && bough_now_ms() < until) {
        (void)nanosleep(&pause, NULL);
        is_there = find_memory(&its, &found, pgdata);
    }
    if (is_there && (found.shm_nattch != 0 || shmctl(its.id, IPC_RMID, NULL) != 0))
        bough_log(BOUGH_LOG_WARN, "shared memory of a dead postgres remains", "pgdata", pgdata,
                  NULL);
}

int bough_orphans_end(const char *pgdata, int timeout_ms, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    hunt h = {.is_one = bough_pidfile_process_is,
              .of = pgdata,
              .what = "a backend without a postmaster",
              .until = bough_now_ms() + timeout_ms};
    int rc = bough_path(path, sizeof path, err, "%s/postmaster.pid", pgdata);
    if (rc || access(path, F_OK) != 0) return rc;
    rc = end_all(&h, err);
    if (!rc) release_memory(pgdata);
    return rc;
}

static bool has_mark(pid_t pid, const char *mark) {
    char path[64], *text = NULL;
    size_t n = 0, length = strlen(mark);
    (void)snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    if (pid == getpid() || bough_read_file(&text, &n, path, ENVIRON_MAX, NULL) != BOUGH_OK)
        return false;
    static const char name[] = BOUGH_RUN_MARK "=";
    bool found = false;
    for (const char *p = text; !found && p < text + n; p += strlen(p) + 1)
        found = strncmp(p, name, sizeof name - 1) == 0 &&
                strncmp(p + sizeof name - 1, mark, length + 1) == 0;
    free(text);
    return found;
}

int bough_orphans_end_tools(const char *mark, int timeout_ms, bough_error *err) {
    hunt h = {.is_one = has_mark,
              .of = mark,
              .what = "a tool of a dead server",
              .until = bough_now_ms() + timeout_ms};
    return end_all(&h, err);
}
