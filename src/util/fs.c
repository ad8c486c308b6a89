/* File system helpers. */
#include "util/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
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

int bough_mkdirs(const char *path, mode_t mode, bough_error *err) {
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
        if (!kept) break;
    }
    struct stat st;
    if (stat(path, &st) != 0) return bough_fail_sys(err, errno, "could not stat \"%s\"", path);
    if (!S_ISDIR(st.st_mode))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" is not a directory", path);
    return BOUGH_OK;
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
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    int rc = fsync(fd) == 0 ? BOUGH_OK : bough_fail_sys(err, errno, "could not fsync \"%s\"", path);
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
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) return bough_fail_sys(err, errno, "could not create \"%s\"", temp);
    if (fchmod(fd, mode) != 0 || bough_write_full(fd, data, size) != 0 ||
        (is_durable && fsync(fd) != 0)) {
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
    (void)snprintf(out, BOUGH_BOOT_ID_SIZE, "%.40s", text);
    free(text);
    return BOUGH_OK;
}

int bough_read_file(char **data, size_t *size, const char *path, size_t max_bytes,
                    bough_error *err) {
    *data = NULL;
    *size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
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

int bough_fsync_tree(const char *path, bough_error *err) {
    char *roots[] = {(char *)(uintptr_t)path, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (!fts) return bough_fail_sys(err, errno, "could not walk \"%s\"", path);
    int rc = BOUGH_OK;
    FTSENT *e;
    while (!rc && (e = fts_read(fts)) != NULL) {
        if (e->fts_info == FTS_F || e->fts_info == FTS_DP) rc = bough_fsync_path(e->fts_path, err);
        if (e->fts_info == FTS_ERR || e->fts_info == FTS_DNR)
            rc = bough_fail_sys(err, e->fts_errno, "could not walk \"%s\"", e->fts_path);
    }
    fts_close(fts);
    return rc;
}

int bough_rmtree(const char *path, bough_error *err) {
    struct stat st;
    if (lstat(path, &st) != 0) {
        if (errno == ENOENT) return BOUGH_OK;
        return bough_fail_sys(err, errno, "could not stat \"%s\"", path);
    }
    char *roots[] = {(char *)(uintptr_t)path, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT, NULL);
    if (!fts) return bough_fail_sys(err, errno, "could not walk \"%s\"", path);
    int rc = BOUGH_OK;
    FTSENT *e;
    while (!rc && (e = fts_read(fts)) != NULL) {
        int bad = 0;
        switch (e->fts_info) {
        case FTS_D:
            (void)chmod(e->fts_path, 0700);
            break;
        case FTS_DP:
            bad = rmdir(e->fts_path);
            break;
        case FTS_ERR:
        case FTS_DNR:
            errno = e->fts_errno;
            bad = -1;
            break;
        default:
            bad = unlink(e->fts_path);
        }
        if (bad && errno != ENOENT)
            rc = bough_fail_sys(err, errno, "could not remove \"%s\"", e->fts_path);
    }
    fts_close(fts);
    return rc;
}

int bough_tree_bytes(uint64_t *bytes, const char *path, bough_error *err) {
    *bytes = 0;
    char *roots[] = {(char *)(uintptr_t)path, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (!fts) return bough_fail_sys(err, errno, "could not walk \"%s\"", path);
    FTSENT *e;
    while ((e = fts_read(fts)) != NULL)
        if (e->fts_info == FTS_F || e->fts_info == FTS_D || e->fts_info == FTS_SL)
            *bytes += (uint64_t)e->fts_statp->st_blocks * 512U;
    fts_close(fts);
    return BOUGH_OK;
}

double bough_now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}
