/*
 * The calls of libc that postgres makes on files, replaced. Each looks at what it is given and
 * either passes on or goes to the part that knows. Spellings: plain, 64-bit, fortified (__x_chk,
 * __open_2) and the versioned stat of glibc before 2.33. The file is compiled without
 * _FILE_OFFSET_BITS, or pwrite would be exported as pwrite64.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include "preload/lib.h"
#include "preload/pool.h"

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(of) __attribute__((visibility("default"), alias(#of)))
#define KEY_MAX (BOUGH_LAYERED_PATH_MAX * 2 + 1024)

/* ---- opening and closing ------------------------------------------------------------------------
 */

/* What was looked up may have been moved by a seal, or merged, before it was opened: look again. */
static bool is_moved(uint32_t epoch) {
    return errno == ENOENT && atomic_load(&bough.shm->epoch) != epoch;
}

static int open_dir(const char *key, int flags, mode_t mode) {
    char real[2048];
    for (;;) {
        uint32_t epoch = bough_gate_epoch(bough.shm);
        if (bough_real_path(real, sizeof real, key) != 0) return -1;
        if ((flags & O_CREAT) && (flags & O_EXCL)) {
            errno = EEXIST;
            return -1;
        }
        int fd = sys_open(real, flags & ~O_CREAT, mode);
        if (fd >= 0 || !is_moved(epoch)) return fd;
    }
}

static FILE *fopen_layered(const char *key, const char *mode) {
    char real[2048];
    for (;;) {
        uint32_t epoch = bough_gate_epoch(bough.shm);
        if (bough_real_path(real, sizeof real, key) != 0) return NULL;
        FILE *f = real_fopen(real, mode);
        if (f || !is_moved(epoch)) return f;
    }
}

static int open_any(const char *path, int flags, mode_t mode) {
    char key[KEY_MAX];
    bough_path_class class = bough_classify(path, key, sizeof key);
    switch (class) {
    case BOUGH_PATH_PAGES:
        return bough_open_pages(key, flags, mode);
    case BOUGH_PATH_WHOLE:
        return bough_open_whole(key, flags, mode);
    case BOUGH_PATH_DIR:
        return open_dir(key, flags, mode);
    case BOUGH_PATH_PLAIN:
    case BOUGH_PATH_MOVED:
        return bough_open_real(class, path, key, flags, mode);
    case BOUGH_PATH_OUTSIDE:
    case BOUGH_PATH_ROOT:
    default:
        return sys_open(path, flags, mode);
    }
}

static bool needs_mode(int flags) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

EXPORT int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (needs_mode(flags)) {
        va_list ap;
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    return open_any(path, flags, mode);
}
int open64(const char *path, int flags, ...) ALIAS(open);

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags) {
    return open_any(path, flags, 0);
}
int __open64_2(const char *path, int flags) ALIAS(__open_2);

EXPORT int creat(const char *path, mode_t mode) {
    return open_any(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) ALIAS(creat);

EXPORT int openat(int dir, const char *path, int flags, ...) {
    mode_t mode = 0;
    if (needs_mode(flags)) {
        va_list ap;
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    if (dir == AT_FDCWD || (path && path[0] == '/')) return open_any(path, flags, mode);
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}
int openat64(int dir, const char *path, int flags, ...) ALIAS(openat);

EXPORT int close(int fd) {
    bough_file *f = bough_file_of(fd);
    if (f) bough_file_free(f);
    if (fd >= 0 && fd == bough_handed_fd) bough_handoff_closed();
    if (fd >= 0 && fd == bough_guarded_fd) bough_admit_closed();
    if (bough_is_pool) bough_pool_closed(fd);
    return sys_close(fd);
}

static bool is_pages(int fd) {
    bough_file *f = bough_file_of(fd);
    return f && f->kind == BOUGH_FILE_PAGES;
}

EXPORT int dup(int fd) {
    if (is_pages(fd)) {
        errno = EINVAL; /* the copy would read the wrong file */
        return -1;
    }
    return (int)syscall(SYS_dup, fd);
}

/* stdio calls the kernel behind our back, so it gets a real file; only reading, and creating
 * caches, is done so. */
EXPORT FILE *fopen(const char *path, const char *mode) {
    char key[KEY_MAX], real[2048];
    bough_path_class class = bough_classify(path, key, sizeof key);
    bool writes = mode[0] != 'r' || strchr(mode, '+');
    if (class == BOUGH_PATH_MOVED) {
        bough_head_path(real, sizeof real, key);
        return real_fopen(real, mode);
    }
    if (class == BOUGH_PATH_WHOLE || class == BOUGH_PATH_PAGES) {
        if (writes) {
            int flags = mode[0] == 'r' ? O_RDWR : O_RDWR | O_CREAT | (mode[0] == 'w' ? O_TRUNC : 0);
            int fd = open_any(path, flags | O_CLOEXEC, 0600);
            if (fd < 0) return NULL;
            close(fd);
        }
        if (class == BOUGH_PATH_PAGES) {
            /* no server of 13 to 18 reads a relation by stdio */
            if (bough_real_path(real, sizeof real, key) == 0) errno = EOPNOTSUPP;
            return NULL;
        }
        return fopen_layered(key, mode);
    }
    return real_fopen(path, mode);
}
FILE *fopen64(const char *path, const char *mode) ALIAS(fopen);

/* ---- reading
 * -------------------------------------------------------------------------------------- */

EXPORT ssize_t pread(int fd, void *buf, size_t n, off_t at) {
    bough_file *f = bough_file_of(fd);
    if (f && f->reads_wal) return bough_wal_read(f, buf, n, at);
    if (!f || f->kind != BOUGH_FILE_PAGES) return sys_pread(fd, buf, n, at);
    struct iovec iov = {buf, n};
    return bough_pages_read(f, &iov, 1, at);
}
ssize_t pread64(int fd, void *buf, size_t n, off64_t at) ALIAS(pread);

ssize_t __pread_chk(int fd, void *buf, size_t n, off_t at, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t n, off_t at, size_t room);
EXPORT ssize_t __pread_chk(int fd, void *buf, size_t n, off_t at, size_t room) {
    if (n > room) __builtin_trap();
    return pread(fd, buf, n, at);
}
ssize_t __pread64_chk(int fd, void *buf, size_t n, off_t at, size_t room) ALIAS(__pread_chk);

EXPORT ssize_t preadv(int fd, const struct iovec *iov, int n, off_t at) {
    bough_file *f = bough_file_of(fd);
    if (!f || f->kind != BOUGH_FILE_PAGES) return sys_preadv(fd, iov, n, at);
    return bough_pages_read(f, iov, n, at);
}
ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t at) ALIAS(preadv);

EXPORT ssize_t read(int fd, void *buf, size_t n) {
    bough_file *f = bough_file_of(fd);
    if (!f || f->kind != BOUGH_FILE_PAGES) return sys_read(fd, buf, n);
    struct iovec iov = {buf, n};
    ssize_t got = bough_pages_read(f, &iov, 1, f->position);
    if (got > 0) f->position += got;
    return got;
}
ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t room) {
    if (n > room) __builtin_trap();
    return read(fd, buf, n);
}

/* ---- writing
 * -------------------------------------------------------------------------------------- */

/* The postmaster tells by writing so into its pid file that it has all its memory and is about to
 * have children, and that it is ready. */
static void watch_pidfile(const void *buf, size_t n) {
    if (memmem(buf, n, "\nstarting", 9)) bough_memory_give();
    if (!memmem(buf, n, "\nready", 6)) return;
    atomic_store(&bough.shm->is_ready, 1);
    if (bough.ready_fd < 0) return;
    uint64_t one = 1;
    (void)!sys_write(bough.ready_fd, &one, sizeof one);
    sys_close(bough.ready_fd);
    bough.ready_fd = -1;
}

/* A whole file opened before a seal must not be written in the layer it now belongs to. Inside the
 * gate. */
static int follow_whole(bough_file *f) {
    /* again, where another seal came while the gate was left: the file just opened is a layer's */
    while (f->kind == BOUGH_FILE_WHOLE && f->epoch != bough.view.epoch) {
        off_t at = sys_lseek(f->fd, 0, SEEK_CUR);
        bough_leave();
        int flags = (f->flags & ~(O_CREAT | O_EXCL | O_TRUNC)) | O_CLOEXEC;
        int fd = bough_open_whole(f->path, flags, 0600);
        if (bough_enter() != 0 || fd < 0) return -1;
        bough_file *g = bough.files[fd];
        uint32_t opened = g ? g->epoch : bough.view.epoch;
        if (g) bough_file_free(g);
        int rc = sys_dup3(fd, f->fd, f->flags & O_CLOEXEC);
        sys_close(fd);
        if (rc < 0 || sys_lseek(f->fd, at, SEEK_SET) < 0) return -1;
        f->epoch = opened;
    }
    return 0;
}

static int begin_write(bough_file *f) {
    if (bough_enter() != 0) return -1;
    if (follow_whole(f) == 0) return 0;
    bough_leave();
    return -1;
}

static ssize_t iov_bytes(const struct iovec *iov, int n) {
    ssize_t bytes = 0;
    for (int i = 0; i < n; i++) bytes += (ssize_t)iov[i].iov_len;
    return bytes;
}

/* A write to a real file at a place. */
static ssize_t write_real(bough_file *f, const struct iovec *iov, int n, off_t at) {
    if (f->is_wal) bough_wal_check_end(f, at);
    if (begin_write(f) != 0) return -1;
    ssize_t put;
    if (bough_wal_skip_zeros(f, iov, n, at))
        put = iov_bytes(iov, n);
    else
        put = n == 1 ? sys_pwrite(f->fd, iov->iov_base, iov->iov_len, at)
                     : sys_pwritev(f->fd, iov, n, at);
    bough_wal_written(f, at, put);
    bough_leave();
    if (f->is_pidfile && put > 0) watch_pidfile(iov->iov_base, iov->iov_len);
    return put;
}

EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at) {
    bough_file *f = bough_file_of(fd);
    if (!f) return sys_pwritev(fd, iov, n, at);
    if (f->kind == BOUGH_FILE_PAGES) return bough_pages_write(f, iov, n, at);
    return write_real(f, iov, n, at);
}
ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t at) ALIAS(pwritev);

EXPORT ssize_t pwrite(int fd, const void *buf, size_t n, off_t at) {
    bough_file *f = bough_file_of(fd);
    if (!f) return sys_pwrite(fd, buf, n, at);
    struct iovec iov = {(void *)(uintptr_t)buf, n};
    if (f->kind == BOUGH_FILE_PAGES) return bough_pages_write(f, &iov, 1, at);
    return write_real(f, &iov, 1, at);
}
ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at) ALIAS(pwrite);

EXPORT ssize_t write(int fd, const void *buf, size_t n) {
    bough_file *f = bough_file_of(fd);
    if (!f) return sys_write(fd, buf, n);
    struct iovec iov = {(void *)(uintptr_t)buf, n};
    if (f->kind == BOUGH_FILE_PAGES) {
        ssize_t put = bough_pages_write(f, &iov, 1, f->position);
        if (put > 0) f->position += put;
        return put;
    }
    if (f->is_wal || f->is_new_wal) {
        off_t at = sys_lseek(fd, 0, SEEK_CUR);
        ssize_t put = write_real(f, &iov, 1, at);
        if (put > 0) (void)sys_lseek(fd, at + put, SEEK_SET);
        return put;
    }
    if (begin_write(f) != 0) return -1;
    ssize_t put = sys_write(fd, buf, n);
    bough_leave();
    if (f->is_pidfile && put > 0) watch_pidfile(buf, n);
    return put;
}

EXPORT int ftruncate(int fd, off_t size) {
    bough_file *f = bough_file_of(fd);
    if (!f) return sys_ftruncate(fd, size);
    if (f->kind == BOUGH_FILE_PAGES) return bough_pages_truncate(f, size);
    if (begin_write(f) != 0) return -1;
    int rc = sys_ftruncate(fd, size);
    bough_leave();
    return rc;
}
int ftruncate64(int fd, off64_t size) ALIAS(ftruncate);

EXPORT int truncate(const char *path, off_t size) {
    char key[KEY_MAX];
    if (bough_classify(path, key, sizeof key) == BOUGH_PATH_OUTSIDE)
        return (int)syscall(SYS_truncate, path, size);
    int fd = open_any(path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int rc = ftruncate(fd, size), saved = errno;
    close(fd);
    errno = saved;
    return rc;
}
int truncate64(const char *path, off64_t size) ALIAS(truncate);

static int allocate(int fd, int mode, off_t at, off_t n) {
    bough_file *f = bough_file_of(fd);
    /* shared memory: postgres wants to know of an interruption */
    if (!f) return (int)syscall(SYS_fallocate, fd, mode, at, n);
    if (f->kind == BOUGH_FILE_PAGES) {
        if (mode == 0) return bough_pages_allocate(f, at, n);
        errno = EOPNOTSUPP;
        return -1;
    }
    if (begin_write(f) != 0) return -1;
    int rc = sys_fallocate(fd, mode, at, n);
    bough_leave();
    return rc;
}

EXPORT int posix_fallocate(int fd, off_t at, off_t n) {
    int saved = errno;
    int rc = allocate(fd, 0, at, n) == 0 ? 0 : errno;
    errno = saved;
    return rc;
}
int posix_fallocate64(int fd, off64_t at, off64_t n) ALIAS(posix_fallocate);
EXPORT int fallocate(int fd, int mode, off_t at, off_t n) {
    return allocate(fd, mode, at, n);
}
int fallocate64(int fd, int mode, off64_t at, off64_t n) ALIAS(fallocate);

EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n,
                               unsigned flags) {
    if (!is_pages(in) && !bough_file_of(out))
        return syscall(SYS_copy_file_range, in, in_at, out, out_at, n, flags);
    char buf[65536];
    size_t want = n < sizeof buf ? n : sizeof buf;
    ssize_t got = in_at ? pread(in, buf, want, *in_at) : read(in, buf, want);
    if (got <= 0) return got;
    ssize_t put = out_at ? pwrite(out, buf, (size_t)got, *out_at) : write(out, buf, (size_t)got);
    if (put < 0) return -1;
    if (in_at) *in_at += put;
    if (!in_at && put < got) (void)lseek(in, put - got, SEEK_CUR);
    if (out_at) *out_at += put;
    return put;
}

/* ---- durability, hints, positions
 * ------------------------------------------------------------------ */

EXPORT int fsync(int fd) {
    const bough_file *f = bough_file_of(fd);
    if (f && f->kind == BOUGH_FILE_PAGES) return bough_pages_sync(bough.files[fd], false);
    int rc = sys_fsync(fd);
    if (rc == 0 && f && f->is_control) bough_wal_checkpointed(f);
    return rc;
}
EXPORT int fdatasync(int fd) {
    return is_pages(fd) ? bough_pages_sync(bough.files[fd], true) : sys_fdatasync(fd);
}
EXPORT int syncfs(int fd) {
    return bough.active ? bough_sync_all() : (int)syscall(SYS_syncfs, fd);
}

EXPORT int sync_file_range(int fd, off64_t at, off64_t n, unsigned flags) {
    if (is_pages(fd) && (!bough.files[fd]->fd_is_head || atomic_load(&bough.shm->defers_sync)))
        return 0;
    return (int)syscall(SYS_sync_file_range, fd, at, n, flags);
}

EXPORT int posix_fadvise(int fd, off_t at, off_t n, int advice) {
    int saved = errno;
    int rc = (int)syscall(SYS_fadvise64, fd, at, n, advice) == 0 ? 0 : errno;
    errno = saved;
    return rc;
}
int posix_fadvise64(int fd, off64_t at, off64_t n, int advice) ALIAS(posix_fadvise);

EXPORT off_t lseek(int fd, off_t at, int whence) {
    return is_pages(fd) ? bough_pages_seek(bough.files[fd], at, whence) : sys_lseek(fd, at, whence);
}
off64_t lseek64(int fd, off64_t at, int whence) ALIAS(lseek);

EXPORT void *mmap(void *hint, size_t n, int protection, int flags, int fd, off_t at) {
    if (!(flags & MAP_ANONYMOUS) && is_pages(fd)) {
        errno = ENODEV;
        return MAP_FAILED;
    }
    void *memory = (void *)syscall(SYS_mmap, hint, n, protection, flags, fd, at);
    if (bough.active && memory != MAP_FAILED && (flags & MAP_SHARED) && (flags & MAP_ANONYMOUS))
        bough_memory_mapped(memory, n);
    return memory;
}
void *mmap64(void *hint, size_t n, int protection, int flags, int fd, off64_t at) ALIAS(mmap);

/* ---- names
 * ------------------------------------------------------------------------------------------ */

static bool layered(bough_path_class class) {
    return class == BOUGH_PATH_PAGES || class == BOUGH_PATH_WHOLE || class == BOUGH_PATH_DIR;
}

static int stat_any(const char *path, struct stat *st, int flags) {
    char key[KEY_MAX], real[2048];
    bough_path_class class = bough_classify(path, key, sizeof key);
    if (layered(class)) return bough_do_stat(key, st);
    if (class == BOUGH_PATH_MOVED) {
        bough_head_path(real, sizeof real, key);
        path = real;
    }
    return sys_stat(path, st, flags);
}

EXPORT int stat(const char *path, struct stat *st) {
    return stat_any(path, st, 0);
}
EXPORT int lstat(const char *path, struct stat *st) {
    return stat_any(path, st, AT_SYMLINK_NOFOLLOW);
}
EXPORT int fstat(int fd, struct stat *st) {
    return is_pages(fd) ? bough_pages_stat(bough.files[fd], st) : sys_fstat(fd, st);
}
int stat64(const char *path, struct stat64 *st) ALIAS(stat);
int lstat64(const char *path, struct stat64 *st) ALIAS(lstat);
int fstat64(int fd, struct stat64 *st) ALIAS(fstat);

int __xstat(int version, const char *path, struct stat *st);
int __lxstat(int version, const char *path, struct stat *st);
int __fxstat(int version, int fd, struct stat *st);
int __xstat64(int version, const char *path, struct stat *st);
int __lxstat64(int version, const char *path, struct stat *st);
int __fxstat64(int version, int fd, struct stat *st);
EXPORT int __xstat(int version, const char *path, struct stat *st) {
    (void)version;
    return stat(path, st);
}
EXPORT int __lxstat(int version, const char *path, struct stat *st) {
    (void)version;
    return lstat(path, st);
}
EXPORT int __fxstat(int version, int fd, struct stat *st) {
    (void)version;
    return fstat(fd, st);
}
int __xstat64(int version, const char *path, struct stat *st) ALIAS(__xstat);
int __lxstat64(int version, const char *path, struct stat *st) ALIAS(__lxstat);
int __fxstat64(int version, int fd, struct stat *st) ALIAS(__fxstat);

EXPORT int fstatat(int dir, const char *path, struct stat *st, int flags) {
    if (path && path[0] && (dir == AT_FDCWD || path[0] == '/')) return stat_any(path, st, flags);
    if (path && !path[0] && (flags & AT_EMPTY_PATH)) return fstat(dir, st);
    return (int)syscall(SYS_newfstatat, dir, path, st, flags);
}
int fstatat64(int dir, const char *path, struct stat64 *st, int flags) ALIAS(fstatat);

EXPORT int access(const char *path, int mode) {
    char key[KEY_MAX], real[2048];
    bough_path_class class = bough_classify(path, key, sizeof key);
    if (layered(class)) return bough_real_path(real, sizeof real, key);
    if (class == BOUGH_PATH_MOVED) {
        bough_head_path(real, sizeof real, key);
        path = real;
    }
    return sys_access(path, mode);
}

/* A write-class call on a real name of PGDATA: through the gate. */
#define GATED(call)                                                                                \
    do {                                                                                           \
        if (bough_enter() != 0) return -1;                                                         \
        int rc_ = (call);                                                                          \
        bough_leave();                                                                             \
        return rc_;                                                                                \
    } while (0)

EXPORT int unlink(const char *path) {
    char key[KEY_MAX], real[2048];
    switch (bough_classify(path, key, sizeof key)) {
    case BOUGH_PATH_PAGES:
    case BOUGH_PATH_WHOLE:
        return bough_do_unlink(key);
    case BOUGH_PATH_DIR:
        errno = EISDIR;
        return -1;
    case BOUGH_PATH_MOVED:
        bough_head_path(real, sizeof real, key);
        GATED(sys_unlink(real));
    case BOUGH_PATH_PLAIN:
        return bough_unlink_real(path, key);
    case BOUGH_PATH_OUTSIDE:
    case BOUGH_PATH_ROOT:
    default:
        return sys_unlink(path);
    }
}

EXPORT int mkdir(const char *path, mode_t mode) {
    char key[KEY_MAX], real[2048];
    bough_path_class class = bough_classify(path, key, sizeof key);
    if (layered(class)) return bough_do_mkdir(key, mode);
    if (class == BOUGH_PATH_MOVED) {
        bough_head_path(real, sizeof real, key);
        GATED(sys_mkdir(real, mode));
    }
    if (class == BOUGH_PATH_PLAIN) GATED(sys_mkdir(path, mode));
    return sys_mkdir(path, mode);
}

EXPORT int rmdir(const char *path) {
    char key[KEY_MAX], real[2048];
    bough_path_class class = bough_classify(path, key, sizeof key);
    if (layered(class)) return bough_do_rmdir(key);
    if (class == BOUGH_PATH_MOVED) {
        bough_head_path(real, sizeof real, key);
        GATED(sys_rmdir(real));
    }
    if (class == BOUGH_PATH_PLAIN) GATED(sys_rmdir(path));
    return sys_rmdir(path);
}

/* rename() and link() of any two names. */
static int move_any(const char *from, const char *to, bool link_only) {
    char from_key[KEY_MAX], to_key[KEY_MAX], from_real[2048], to_real[2048];
    bough_path_class a = bough_classify(from, from_key, sizeof from_key);
    bough_path_class b = bough_classify(to, to_key, sizeof to_key);
    if (layered(a) || layered(b)) {
        bool both = layered(a) && layered(b) && a != BOUGH_PATH_DIR && b != BOUGH_PATH_DIR;
        if (both && !link_only) return bough_do_rename(from_key, to_key);
        errno = link_only ? EPERM : EXDEV;
        return -1;
    }
    if (a == BOUGH_PATH_OUTSIDE && b == BOUGH_PATH_OUTSIDE)
        return link_only ? sys_link(from, to) : sys_rename(from, to, 0);
    if (a == BOUGH_PATH_MOVED) {
        bough_head_path(from_real, sizeof from_real, from_key);
        from = from_real;
    }
    if (b == BOUGH_PATH_MOVED) {
        bough_head_path(to_real, sizeof to_real, to_key);
        to = to_real;
    }
    return bough_move_real(from, to, from_key, to_key, link_only);
}

EXPORT int rename(const char *from, const char *to) {
    return move_any(from, to, false);
}
EXPORT int link(const char *from, const char *to) {
    return move_any(from, to, true);
}

EXPORT int chdir(const char *path) {
    int rc = (int)syscall(SYS_chdir, path);
    char cwd[2048];
    if (rc == 0 && bough.active) {
        long n = syscall(SYS_getcwd, cwd, sizeof cwd);
        bough.at_pgdata = n > 0 && strcmp(cwd, bough.shm->pgdata) == 0;
    }
    return rc;
}

/* ---- directories
 * ------------------------------------------------------------------------------------ */

static const DIR *root_dir; /* PGDATA itself, open for listing: our own files are left out */

EXPORT DIR *opendir(const char *path) {
    char key[KEY_MAX], real[2048];
    bough_path_class class = bough_classify(path, key, sizeof key);
    struct stat st;
    if (layered(class) && class != BOUGH_PATH_DIR) {
        if (bough_do_stat(key, &st) != 0) return NULL;
        if (!S_ISDIR(st.st_mode)) {
            errno = ENOTDIR;
            return NULL;
        }
    }
    if (layered(class)) return (DIR *)(void *)bough_dir_open(key);
    if (class == BOUGH_PATH_MOVED) {
        bough_head_path(real, sizeof real, key);
        path = real;
    }
    DIR *dir = real_opendir(path);
    if (dir && class == BOUGH_PATH_ROOT) root_dir = dir;
    return dir;
}

EXPORT struct dirent *readdir(DIR *dir) {
    bough_dir *ours = bough_dir_of(dir);
    if (ours) return bough_dir_read(ours);
    struct dirent *d;
    do {
        d = real_readdir(dir);
    } while (
        d && dir == root_dir &&
        (strcmp(d->d_name, BOUGH_CONTROL_NAME) == 0 || strcmp(d->d_name, BOUGH_TMP_NAME) == 0));
    return d;
}
struct dirent64 *readdir64(DIR *dir) ALIAS(readdir);

EXPORT void rewinddir(DIR *dir) {
    bough_dir *ours = bough_dir_of(dir);
    if (ours)
        bough_dir_rewind(ours);
    else
        real_rewinddir(dir);
}

EXPORT int closedir(DIR *dir) {
    bough_dir *ours = bough_dir_of(dir);
    if (ours) {
        bough_dir_close(ours);
        return 0;
    }
    if (dir == root_dir) root_dir = NULL;
    return real_closedir(dir);
}
