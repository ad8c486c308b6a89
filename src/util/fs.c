/* File system helpers. */
#include "util/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int bough_path(char *out, size_t size, bough_error *err, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size)
        return bough_fail(err, BOUGH_E_INVALID, "path too long: \"%.200s...\"", out);
    return BOUGH_OK;
}

/* Make every directory of a path that is not there. */
static int make_each(const char *path, mode_t mode, bough_error *err) {
    char part[BOUGH_PATH_MAX];
    int rc = bough_path(part, sizeof part, err, "%s", path);
    if (rc) return rc;
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0') continue;
        char kept = *p;
        *p = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST) {
            int e = errno;
            struct stat st;
            if (stat(part, &st) != 0 || !S_ISDIR(st.st_mode))
                return bough_fail_sys(err, e, "could not create directory \"%s\"", part);
        }
        *p = kept;
        if (!kept) return BOUGH_OK;
    }
}

int bough_mkdirs(const char *path, mode_t mode, bough_error *err) {
    /* most often only the last one is missing */
    if (mkdir(path, mode) != 0 && errno != EEXIST) {
        int rc = make_each(path, mode, err);
        if (rc) return rc;
    }
    struct stat st;
    if (stat(path, &st) != 0) return bough_fail_sys(err, errno, "could not stat \"%s\"", path);
    if (!S_ISDIR(st.st_mode))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" is not a directory", path);
    return BOUGH_OK;
}

int bough_open(const char *path, int flags, mode_t mode) {
    int fd;
    do fd = open(path, flags, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

int bough_fsync(int fd) {
    int rc;
    do rc = fsync(fd);
    while (rc != 0 && errno == EINTR);
    return rc;
}

int bough_ftruncate(int fd, off_t size) {
    int rc;
    do rc = ftruncate(fd, size);
    while (rc != 0 && errno == EINTR);
    return rc;
}

struct dirent *bough_list_next(DIR *dir, int *failed) {
    errno = 0;
    struct dirent *d = readdir(dir);
    *failed = d ? 0 : errno;
    return d;
}

int bough_write_full(int fd, const void *data, size_t size) {
    const char *p = data;
    while (size) {
        ssize_t n = write(fd, p, size);
        if (n < 0) {
            if (errno == EINTR) continue;
            return -1;
        }
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

int bough_pwrite_full(int fd, const void *data, size_t size, off_t at) {
    const char *p = data;
    while (size) {
        ssize_t n = pwrite(fd, p, size, at);
        if (n < 0) {
            if (errno == EINTR) continue;
            return -1;
        }
        p += n;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

ssize_t bough_pread_full(int fd, void *data, size_t size, off_t at) {
    char *p = data;
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, p + done, size - done, at + (off_t)done);
        if (n < 0) {
            if (errno == EINTR) continue;
            return -1;
        }
        if (n == 0) break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int bough_fsync_path(const char *path, bough_error *err) {
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    int rc = bough_fsync(fd) == 0 ? BOUGH_OK
                                  : bough_fail_sys(err, errno, "could not fsync \"%s\"", path);
    close(fd);
    return rc;
}

static int fsync_parent(const char *path, bough_error *err) {
    char dir[BOUGH_PATH_MAX];
    int rc = bough_path(dir, sizeof dir, err, "%s", path);
    if (rc) return rc;
    char *slash = strrchr(dir, '/');
    if (!slash) return bough_fsync_path(".", err);
    slash[slash == dir ? 1 : 0] = '\0';
    return bough_fsync_path(dir, err);
}

/* Temporary names are of this process and this call: threads may replace one file at once. */
static int replace_file(const char *path, const void *data, size_t size, mode_t mode,
                        bool is_durable, bough_error *err) {
    static atomic_uint counter;
    char temp[BOUGH_PATH_MAX];
    int rc = bough_path(temp, sizeof temp, err, "%s.tmp-%d-%u", path, (int)getpid(),
                        atomic_fetch_add(&counter, 1));
    if (rc) return rc;
    int fd = bough_open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) return bough_fail_sys(err, errno, "could not create \"%s\"", temp);
    if (fchmod(fd, mode) != 0 || bough_write_full(fd, data, size) != 0 ||
        (is_durable && bough_fsync(fd) != 0)) {
        rc = bough_fail_sys(err, errno, "could not write \"%s\"", temp);
        close(fd);
        unlink(temp);
        return rc;
    }
    close(fd);
    if (rename(temp, path) != 0) {
        rc = bough_fail_sys(err, errno, "could not rename \"%s\" to \"%s\"", temp, path);
        unlink(temp);
        return rc;
    }
    return is_durable ? fsync_parent(path, err) : BOUGH_OK;
}

int bough_write_file(const char *path, const void *data, size_t size, mode_t mode,
                     bough_error *err) {
    return replace_file(path, data, size, mode, true, err);
}

int bough_replace_file(const char *path, const void *data, size_t size, mode_t mode,
                       bough_error *err) {
    return replace_file(path, data, size, mode, false, err);
}

int bough_hold_standard(void) {
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) continue;
        if (bough_open("/dev/null", O_RDWR, 0) != fd) return -1; /* the lowest that is free */
    }
    return 0;
}

int bough_boot_id(char out[BOUGH_BOOT_ID_SIZE], bough_error *err) {
    char *text;
    size_t n;
    const char *path = "/proc/sys/kernel/random/boot_id";
#ifdef BOUGH_CRASH_POINTS /* a test that plays a power cut says that the machine has been started  \
                             anew */
    const char *other = getenv("BOUGH_BOOT_ID_FILE");
    if (other) path = other;
#endif
    int rc = bough_read_file(&text, &n, path, 4096, err);
    if (rc) return rc;
    (void)snprintf(out, BOUGH_BOOT_ID_SIZE, "%.*s", (int)strcspn(text, "\n"), text);
    free(text);
    return BOUGH_OK;
}

int bough_read_file(char **data, size_t *size, const char *path, size_t max_bytes,
                    bough_error *err) {
    *data = NULL;
    *size = 0;
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        if (errno == ENOENT) return bough_fail(err, BOUGH_E_NOTFOUND, "no file \"%s\"", path);
        return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    }
    size_t have = 0, room = 4096;
    char *buf = malloc(room + 1);
    int rc = BOUGH_OK;
    while (buf) {
        if (have == room) {
            char *more = realloc(buf, room * 2 + 1);
            if (!more) break;
            buf = more;
            room *= 2;
        }
        ssize_t n = read(fd, buf + have, room - have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            rc = bough_fail_sys(err, errno, "could not read \"%s\"", path);
            goto out;
        }
        if (n == 0) {
            buf[have] = '\0';
            *data = buf;
            *size = have;
            buf = NULL;
            goto out;
        }
        have += (size_t)n;
        if (have > max_bytes) {
            rc = bough_fail(err, BOUGH_E_INVALID, "\"%s\" is larger than %zu bytes", path,
                            max_bytes);
            goto out;
        }
    }
    rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
out:
    free(buf);
    close(fd);
    return rc;
}

/* ---- trees; fts(3) of glibc 2.36 crashes where memory runs out ---- */

typedef struct walk {
    bough_visit visit;
    void *context;
    bool passes_closed;
    char path[BOUGH_PATH_MAX];
} walk;

/* What is at w->path, of `n` bytes. Gone meanwhile is as good as not there. */
static int walk_on(walk *w, size_t n, unsigned char type, bough_error *err) {
    int rc = w->visit(w->context, w->path, type, false, err);
    if (rc || type != DT_DIR) return rc;
    DIR *dir = opendir(w->path);
    if (!dir && (errno == ENOENT || (errno == EACCES && w->passes_closed))) return BOUGH_OK;
    if (!dir) return bough_fail_sys(err, errno, "could not list \"%s\"", w->path);
    const struct dirent *d;
    int failed = 0;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
        struct stat st;
        unsigned char kind = d->d_type;
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
        size_t length = strlen(d->d_name);
        if (n + length + 2 > sizeof w->path) {
            rc = bough_fail(err, BOUGH_E_INVALID, "path too long: \"%.200s...\"", w->path);
            break;
        }
        w->path[n] = '/';
        memcpy(w->path + n + 1, d->d_name, length + 1);
        if (kind == DT_UNKNOWN && lstat(w->path, &st) == 0)
            kind = S_ISDIR(st.st_mode) ? DT_DIR : S_ISREG(st.st_mode) ? DT_REG : DT_LNK;
        rc = walk_on(w, n + length + 1, kind, err);
        w->path[n] = '\0';
    }
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", w->path);
    closedir(dir);
    return rc ? rc : w->visit(w->context, w->path, DT_DIR, true, err);
}

int bough_walk(const char *path, bool passes_closed, bough_visit visit, void *context,
               bough_error *err) {
    struct stat st;
    size_t n = strlen(path);
    if (lstat(path, &st) != 0) return bough_fail_sys(err, errno, "could not stat \"%s\"", path);
    walk *w = malloc(sizeof *w);
    if (!w) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    w->visit = visit;
    w->context = context;
    w->passes_closed = passes_closed;
    int rc = bough_path(w->path, sizeof w->path, err, "%s", path);
    while (n > 1 && w->path[n - 1] == '/') w->path[--n] = '\0';
    if (!rc)
        rc = walk_on(w, n,
                     S_ISDIR(st.st_mode)   ? DT_DIR
                     : S_ISREG(st.st_mode) ? DT_REG
                                           : DT_LNK,
                     err);
    free(w);
    return rc;
}

static int sync_one(void *context, const char *path, unsigned char type, bool is_after,
                    bough_error *err) {
    (void)context;
    return type == DT_REG || is_after ? bough_fsync_path(path, err) : BOUGH_OK;
}

int bough_fsync_tree(const char *path, bough_error *err) {
    return bough_walk(path, false, sync_one, NULL, err);
}

static int remove_one(void *context, const char *path, unsigned char type, bool is_after,
                      bough_error *err) {
    (void)context;
    int bad = 0;
    if (type == DT_DIR && !is_after)
        (void)chmod(path, 0700);
    else
        bad = type == DT_DIR ? rmdir(path) : unlink(path);
    return bad && errno != ENOENT ? bough_fail_sys(err, errno, "could not remove \"%s\"", path)
                                  : BOUGH_OK;
}

int bough_rmtree(const char *path, bough_error *err) {
    struct stat st;
    if (lstat(path, &st) != 0 && errno == ENOENT) return BOUGH_OK;
    return bough_walk(path, false, remove_one, NULL, err);
}

static int remove_below(void *context, const char *path, unsigned char type, bool is_after,
                        bough_error *err) {
    const char *top = context;
    return strcmp(path, top) == 0 ? BOUGH_OK : remove_one(NULL, path, type, is_after, err);
}

int bough_empty_directory(const char *path, bough_error *err) {
    char top[BOUGH_PATH_MAX];
    int rc = bough_path(top, sizeof top, err, "%s", path);
    if (rc) return rc;
    for (size_t n = strlen(top); n > 1 && top[n - 1] == '/';)
        top[--n] = '\0'; /* as it is visited */
    return bough_walk(top, false, remove_below, top, err);
}

static int weigh_one(void *context, const char *path, unsigned char type, bool is_after,
                     bough_error *err) {
    struct stat st;
    (void)type;
    (void)err;
    if (!is_after && lstat(path, &st) == 0) *(uint64_t *)context += (uint64_t)st.st_blocks * 512U;
    return BOUGH_OK;
}

int bough_tree_bytes(uint64_t *bytes, const char *path, bough_error *err) {
    *bytes = 0;
    return bough_walk(path, true, weigh_one, bytes, err);
}

double bough_now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}
