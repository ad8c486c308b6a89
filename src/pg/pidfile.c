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

enum {
    PID_LINE = 1,
    DATA_DIR_LINE = 2,
    PORT_LINE = 4,
    SOCKET_DIR_LINE = 5,
    SHMEM_LINE = 7,
    STATUS_LINE = 8,
    FILE_MAX = 8192
};

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
    if (rc || line_of(file->port, sizeof file->port, data, PORT_LINE) != 0 ||
        line_of(file->socket_dir, sizeof file->socket_dir, data, SOCKET_DIR_LINE) != 0)
        file->port[0] = file->socket_dir[0] = '\0';
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

static bool is_same_file(const char *a, const char *b) {
    struct stat of_a, of_b;
    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev &&
           of_a.st_ino == of_b.st_ino;
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
    (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    return is_same_file(path, pgdata);
}

/* How long the lines before line `number` are, together. */
static size_t before_line(const char *data, int number) {
    const char *at = data;
    for (int line = 1; line < number; line++) {
        at = strchr(at, '\n');
        if (!at) return 0;
        at++;
    }
    return (size_t)(at - data);
}

/*
 * Whether process `pid` has made the lock file of a socket: it is the postgres of the directory
 * that the file names, since the same time, and its socket is in ours. A number alone may be
 * anybody's, and a copy of a store names the directories of the original.
 */
static bool is_held(const char *data, pid_t pid, const char *socket_dir) {
    char its[BOUGH_PATH_MAX], dir[BOUGH_PATH_MAX], *own = NULL;
    if (line_of(its, sizeof its, data, DATA_DIR_LINE) != 0 ||
        line_of(dir, sizeof dir, data, SOCKET_DIR_LINE) != 0 || !is_same_file(dir, socket_dir) ||
        !bough_pidfile_process_is(pid, its) || read_text(&own, its) != 0)
        return false;
    /* what comes before the directory of sockets both files have from one function */
    size_t n = before_line(data, SOCKET_DIR_LINE);
    bool is = n > 0 && before_line(own, SOCKET_DIR_LINE) == n && memcmp(own, data, n) == 0;
    free(own);
    return is;
}

/* `socket_dir`: of a socket's lock file; NULL: PGDATA's. */
static void repair(const char *path, const char *pgdata, const char *socket_dir) {
    char *data = NULL;
    size_t size = 0;
    if (bough_read_file(&data, &size, path, FILE_MAX, NULL)) return;
    char line[64];
    pid_t pid = line_of(line, sizeof line, data, PID_LINE) == 0 ? (pid_t)strtol(line, NULL, 10) : 0;
    if (pid < 0) pid = -pid;
    /* a postmaster writes its number before all else: what has none was spoiled by a power cut */
    if (atoi(data) == 0) (void)unlink(path);
    bool taken = pid > 0 && pid != getpid() && (kill(pid, 0) == 0 || errno == EPERM);
    if (taken && !bough_pidfile_process_is(pid, pgdata) &&
        !(socket_dir && is_held(data, pid, socket_dir))) {
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
    if (!bough_path(path, sizeof path, NULL, "%s/postmaster.pid", pgdata))
        repair(path, pgdata, NULL);
    if (!bough_path(path, sizeof path, NULL, "%s/.s.PGSQL.5432.lock", socket_dir))
        repair(path, pgdata, socket_dir);
}
