/* postmaster.pid and the lock file of the socket: reading and, when certainly stale, repairing. */
#include "pg/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/fs.h"

enum { PID_LINE = 1, SHMEM_LINE = 7, STATUS_LINE = 8, FILE_MAX = 8192 };

/* Copy line `number` (from 1) without its newline; -1 when it is missing or unfinished. */
static int line_of(char *out, size_t size, const char *data, int number) {
    for (int at = 1; at < number; at++) {
        data = strchr(data, '\n');
        if (!data) return -1;
        data++;
    }
    size_t n = strcspn(data, "\n");
    if (data[n] != '\n' || n >= size) return -1;
    memcpy(out, data, n);
    out[n] = '\0';
    return 0;
}

static int read_text(char **data, const char *pgdata) {
    char path[BOUGH_PATH_MAX];
    size_t size = 0;
    if (bough_path(path, sizeof path, NULL, "%s/postmaster.pid", pgdata)) return -1;
    return bough_read_file(data, &size, path, FILE_MAX, NULL) ? -1 : 0;
}

int bough_pidfile_read(bough_pidfile *file, const char *pgdata) {
    char line[256], *data = NULL;
    memset(file, 0, sizeof *file);
    if (read_text(&data, pgdata) != 0) return -1;
    int rc = line_of(line, sizeof line, data, PID_LINE);
    if (rc == 0) file->pid = (pid_t)strtol(line, NULL, 10);
    if (file->pid <= 0) rc = -1; /* negative: a standalone backend */
    if (rc == 0 && line_of(line, sizeof line, data, STATUS_LINE) == 0)
        file->ready = strncmp(line, "ready", 5) == 0 || strncmp(line, "standby", 7) == 0;
    free(data);
    return rc;
}

int bough_pidfile_read_segment(bough_pidfile_segment *segment, const char *pgdata) {
    char pid[64], shmem[64], *data = NULL;
    memset(segment, 0, sizeof *segment);
    if (read_text(&data, pgdata) != 0) return -1;
    int rc = line_of(pid, sizeof pid, data, PID_LINE);
    if (rc == 0) rc = line_of(shmem, sizeof shmem, data, SHMEM_LINE);
    if (rc == 0 && sscanf(shmem, "%lu %d", &segment->key, &segment->id) != 2) rc = -1;
    long number = rc == 0 ? strtol(pid, NULL, 10) : 0;
    if (number < -INT_MAX || number > INT_MAX || number == 0) rc = -1;
    if (rc == 0) segment->pid = (pid_t)labs(number);
    free(data);
    return rc;
}

bool bough_pidfile_process_is(pid_t pid, const char *pgdata) {
    char path[64], exe[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    ssize_t n = readlink(path, exe, sizeof exe - 1);
    if (n <= 0) return false;
    exe[n] = '\0';
    const char *name = strrchr(exe, '/');
    name = name ? name + 1 : exe;
    if (strcmp(name, "postgres") != 0 && strcmp(name, "postgres (deleted)") != 0) return false;
    struct stat its, ours;
    (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    return stat(path, &its) == 0 && stat(pgdata, &ours) == 0 && its.st_dev == ours.st_dev &&
           its.st_ino == ours.st_ino;
}

static void repair(const char *path, const char *pgdata) {
    char *data = NULL;
    size_t size = 0;
    if (bough_read_file(&data, &size, path, FILE_MAX, NULL)) return;
    char line[64];
    pid_t pid = line_of(line, sizeof line, data, PID_LINE) == 0 ? (pid_t)strtol(line, NULL, 10) : 0;
    if (pid < 0) pid = -pid;
    /* a postmaster writes its number before all else: what has none was spoiled by a power cut */
    if (atoi(data) == 0) (void)unlink(path);
    bool taken = pid > 0 && pid != getpid() && (kill(pid, 0) == 0 || errno == EPERM);
    if (taken && !bough_pidfile_process_is(pid, pgdata)) {
        char text[FILE_MAX + 64];
        int n = snprintf(text, sizeof text, "%d%s", (int)getpid(), data + strcspn(data, "\n"));
        if (n > 0 && (size_t)n < sizeof text) {
            int fd = bough_open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0);
            if (fd >= 0) {
                (void)!bough_write_full(fd, text, (size_t)n);
                close(fd);
            }
        }
    }
    free(data);
}

void bough_pidfile_repair(const char *pgdata, const char *socket_dir) {
    char path[BOUGH_PATH_MAX];
    if (!bough_path(path, sizeof path, NULL, "%s/postmaster.pid", pgdata)) repair(path, pgdata);
    if (!bough_path(path, sizeof path, NULL, "%s/.s.PGSQL.5432.lock", socket_dir))
        repair(path, pgdata);
}
