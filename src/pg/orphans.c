/* Backends without a postmaster: they are known by their working directory, to which postgres
 * changes. */
#include "pg/orphans.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pg/pidfile.h"
#include "util/error.h"
#include "util/fs.h"
#include "util/log.h"

#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif

/* Kill one; the descriptor is taken before the check, so the number cannot become another process
 * between. */
static int end_one(pid_t pid, const char *pgdata, double until, bough_error *err) {
    int fd = (int)syscall(__NR_pidfd_open, pid, 0);
    if (fd < 0) return BOUGH_OK;
    int rc = BOUGH_OK;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 0) == 0 && bough_pidfile_process_is(pid, pgdata)) {
        bough_log(BOUGH_LOG_WARN, "ending a backend without a postmaster", "pgdata", pgdata, NULL);
        (void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
        double left = until - bough_now_ms();
        if (poll(&p, 1, left > 0 ? (int)left + 1 : 0) <= 0)
            rc = bough_fail(err, BOUGH_E_TIMEOUT, "process %d of a dead compute does not end",
                            (int)pid);
    }
    close(fd);
    return rc;
}

int bough_orphans_end(const char *pgdata, int timeout_ms, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    double until = bough_now_ms() + timeout_ms;
    int rc = bough_path(path, sizeof path, err, "%s/postmaster.pid", pgdata);
    if (rc || access(path, F_OK) != 0) return rc;
    DIR *dir = opendir("/proc");
    if (!dir) return bough_fail_sys(err, errno, "could not list \"/proc\"");
    const struct dirent *d;
    while (!rc && (d = readdir(dir)) != NULL) {
        char *end;
        long pid = strtol(d->d_name, &end, 10);
        if (*end == '\0' && pid > 0) rc = end_one((pid_t)pid, pgdata, until, err);
    }
    closedir(dir);
    return rc;
}
