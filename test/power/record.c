/*
 * Records what boughd and its computes do to the files of a store, so that cut.py can build the
 * directory that a disk may hold after a power cut.
 *
 * The library is preloaded, in computes behind libbough_pg.so: what that one lets through as a
 * system call comes to syscall() here. So what is recorded are the calls that the kernel gets.
 *
 * One file takes the records of all processes, by appending: its order is the order of the world.
 * A change is recorded when it has been done, a sync before it begins and when it has succeeded:
 * what a sync promises is then never more than what it did. Changes of names are made one at a time
 * in all processes, since they depend on each other. The first page of the file is shared memory.
 *
 *   BOUGH_RECORD       the file, which exists and has one page
 *   BOUGH_RECORD_ROOT  the store; nothing outside is recorded
 *
 * A compute can open neither: it inherits the descriptor, and the root from the first page.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define RECORD_FD 1021
#define PAGE 4096
#define PATH_BYTES 2048
#define MAGIC 0x42524543U /* CERB, so that a torn file is noticed */
#define AT_FD(dir) ((long)(dir))

enum operation { /* the same numbers are in log.py */
                 OP_CREATE = 1,
                 OP_WRITE,
                 OP_TRUNCATE,
                 OP_PUNCH,
                 OP_SYNC_BEGIN,
                 OP_SYNC_END,
                 OP_SYNCFS_BEGIN,
                 OP_SYNCFS_END,
                 OP_RENAME,
                 OP_EXCHANGE,
                 OP_LINK,
                 OP_UNLINK,
                 OP_MKDIR,
                 OP_SYMLINK,
                 OP_XATTR,
                 OP_UNXATTR,
                 OP_CHMOD,
                 OP_UNKNOWN = 99
};

typedef struct record {
    uint32_t magic;
    uint16_t op;
    uint16_t path_bytes; /* then the second path, then data */
    uint32_t other_bytes;
    uint32_t data_bytes;
    uint64_t inode;
    uint64_t a, b; /* offset and so on */
} record;

typedef struct shared {
    atomic_int names; /* lock of changes of names: 0 or a thread's id */
    atomic_uint_least64_t syncs;
    char root[PATH_BYTES];
} shared;

static shared *world;
static dev_t device;

/* ---- system calls as such: this library replaces libc's own syscall() ---- */

static long raw(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long rc;
    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    if (rc < 0 && rc > -4096) {
        errno = (int)-rc;
        return -1;
    }
    return rc;
}
#define P(pointer) ((long)(uintptr_t)(pointer))

static void attach(void) {
    static atomic_int done;
    if (atomic_load(&done)) return;
    struct stat st;
    int saved = errno;
    const char *path = getenv("BOUGH_RECORD"), *root = getenv("BOUGH_RECORD_ROOT");
    if (path && root && raw(SYS_fstat, RECORD_FD, P(&st), 0, 0, 0, 0) != 0) {
        long fd = raw(SYS_openat, AT_FDCWD, P(path), O_RDWR | O_APPEND | O_CLOEXEC, 0, 0, 0);
        if (fd >= 0) {
            (void)raw(SYS_dup3, fd, RECORD_FD, O_CLOEXEC, 0, 0, 0);
            (void)raw(SYS_close, fd, 0, 0, 0, 0, 0);
        }
    }
    long at = raw(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, RECORD_FD, 0);
    if (at != -1) {
        shared *w = (shared *)(uintptr_t)at;
        if (path && root) (void)snprintf(w->root, sizeof w->root, "%s", root);
        if (raw(SYS_newfstatat, AT_FDCWD, P(w->root), P(&st), 0, 0, 0) == 0) device = st.st_dev;
        (void)fcntl(RECORD_FD, F_SETFD, FD_CLOEXEC);
        world = w;
    }
    atomic_store(&done, 1);
    errno = saved;
}

__attribute__((constructor)) static void begin(void) {
    attach();
}

/* ---- records ---- */

static void put(record *r, const char *path, const char *other, const struct iovec *data, int n,
                size_t bytes) {
    struct iovec all[64];
    r->magic = MAGIC;
    r->path_bytes = (uint16_t)(path ? strlen(path) : 0);
    r->other_bytes = (uint32_t)(other ? strlen(other) : 0);
    r->data_bytes = (uint32_t)bytes;
    int k = 0;
    all[k++] = (struct iovec){r, sizeof *r};
    if (path) all[k++] = (struct iovec){(void *)(uintptr_t)path, r->path_bytes};
    if (other) all[k++] = (struct iovec){(void *)(uintptr_t)other, r->other_bytes};
    for (int i = 0; i < n && bytes; i++) {
        if (k == 64) abort();
        size_t part = data[i].iov_len < bytes ? data[i].iov_len : bytes;
        all[k++] = (struct iovec){data[i].iov_base, part};
        bytes -= part;
    }
    size_t want = sizeof *r + r->path_bytes + r->other_bytes + r->data_bytes;
    /* a record that is torn makes all that follow worthless */
    if (raw(SYS_writev, RECORD_FD, P(all), k, 0, 0, 0) != (long)want) abort();
}

static void note(enum operation op, uint64_t inode, uint64_t a, uint64_t b, const char *path,
                 const char *other) {
    record r = {.op = (uint16_t)op, .inode = inode, .a = a, .b = b};
    put(&r, path, other, NULL, 0, 0);
}

/* Whether a descriptor is a file or directory on the store's device. */
static bool is_ours(int fd, struct stat *st) {
    int saved = errno;
    bool is = world && raw(SYS_fstat, fd, P(st), 0, 0, 0, 0) == 0 && st->st_dev == device &&
              (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode));
    errno = saved;
    return is;
}

/* The path in the store, from its root on, or NULL. */
static const char *ours(char *out, int dir, const char *path) {
    size_t n = world ? strlen(world->root) : 0;
    if (n == 0 || !path) return NULL;
    if (path[0] == '/') {
        (void)snprintf(out, PATH_BYTES, "%s", path);
    } else if (dir == AT_FDCWD) {
        long length = raw(SYS_getcwd, P(out), PATH_BYTES, 0, 0, 0, 0);
        if (length <= 0) return NULL;
        (void)snprintf(out + length - 1, (size_t)(PATH_BYTES - length + 1), "/%s", path);
    } else {
        char link[64];
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        long length = raw(SYS_readlinkat, AT_FDCWD, P(link), P(out), PATH_BYTES - 1, 0, 0);
        if (length <= 0) return NULL;
        (void)snprintf(out + length, (size_t)(PATH_BYTES - length), "/%s", path);
    }
    return strncmp(out, world->root, n) == 0 && out[n] == '/' ? out + n + 1 : NULL;
}

static void lock_names(void) {
    int me = (int)raw(SYS_gettid, 0, 0, 0, 0, 0, 0), none = 0;
    for (long tries = 0; !atomic_compare_exchange_weak(&world->names, &none, me); tries++) {
        /* its holder was killed, or this is a signal's handler */
        if (tries > 2000000) {
            atomic_store(&world->names, me);
            return;
        }
        none = 0;
        sched_yield();
    }
}

static void unlock_names(void) {
    atomic_store(&world->names, 0);
}

/* ---- the calls ---- */

static long do_open(int dir, const char *path, int flags, long mode) {
    char buf[PATH_BYTES];
    struct stat st;
    bool changes = (flags & (O_CREAT | O_TRUNC)) && (flags & O_TMPFILE) != O_TMPFILE;
    const char *name = changes ? ours(buf, dir, path) : NULL;
    if (!name) return raw(SYS_openat, AT_FD(dir), P(path), flags, mode, 0, 0);
    lock_names();
    bool was = raw(SYS_newfstatat, AT_FD(dir), P(path), P(&st), 0, 0, 0) == 0;
    long fd = raw(SYS_openat, AT_FD(dir), P(path), flags, mode, 0, 0);
    if (fd >= 0 && is_ours((int)fd, &st) && S_ISREG(st.st_mode)) {
        if (!was) note(OP_CREATE, st.st_ino, st.st_mode & 07777, 0, name, NULL);
        if (was && (flags & O_TRUNC)) note(OP_TRUNCATE, st.st_ino, 0, 0, NULL, NULL);
    }
    unlock_names();
    return fd;
}

static void wrote(int fd, const struct iovec *iov, int n, int64_t at, long done) {
    struct stat st;
    if (done <= 0 || fd == RECORD_FD || !is_ours(fd, &st) || !S_ISREG(st.st_mode)) return;
    if (at < 0) at = raw(SYS_lseek, fd, 0, SEEK_CUR, 0, 0, 0) - done;
    record r = {.op = OP_WRITE, .inode = st.st_ino, .a = (uint64_t)at};
    int saved = errno;
    put(&r, NULL, NULL, iov, n, (size_t)done);
    errno = saved;
}

static long do_sync(long number, int fd) {
    struct stat st;
    bool all = number == SYS_syncfs;
    if (!is_ours(fd, &st)) return raw(number, fd, 0, 0, 0, 0, 0);
    uint64_t id = atomic_fetch_add(&world->syncs, 1);
    note(all ? OP_SYNCFS_BEGIN : OP_SYNC_BEGIN, st.st_ino, id, number == SYS_fdatasync, NULL, NULL);
    long rc = raw(number, fd, 0, 0, 0, 0, 0);
    if (rc == 0) note(all ? OP_SYNCFS_END : OP_SYNC_END, st.st_ino, id, 0, NULL, NULL);
    return rc;
}

static long do_truncate(long number, long target, int64_t size, int fd, const char *path) {
    struct stat st;
    long rc = raw(number, target, size, 0, 0, 0, 0);
    char buf[PATH_BYTES];
    if (rc == 0 && path && ours(buf, AT_FDCWD, path) &&
        raw(SYS_newfstatat, AT_FDCWD, P(path), P(&st), 0, 0, 0) == 0)
        note(OP_TRUNCATE, st.st_ino, (uint64_t)size, 0, NULL, NULL);
    if (rc == 0 && !path && is_ours(fd, &st))
        note(OP_TRUNCATE, st.st_ino, (uint64_t)size, 0, NULL, NULL);
    return rc;
}

/* Preallocated blocks are holes to SEEK_DATA: only the size changes. */
static long do_fallocate(int fd, int mode, int64_t at, int64_t n) {
    struct stat before, st;
    bool is = is_ours(fd, &before);
    long rc = raw(SYS_fallocate, fd, mode, at, n, 0, 0);
    if (rc != 0 || !is || !is_ours(fd, &st)) return rc;
    if (mode & FALLOC_FL_PUNCH_HOLE)
        note(OP_PUNCH, st.st_ino, (uint64_t)at, (uint64_t)n, NULL, NULL);
    else if (mode == 0) {
        if (st.st_size > before.st_size)
            note(OP_TRUNCATE, st.st_ino, (uint64_t)st.st_size, 0, NULL, NULL);
    } else if (mode != FALLOC_FL_KEEP_SIZE)
        note(OP_UNKNOWN, st.st_ino, (uint64_t)mode, 0, NULL, NULL);
    return rc;
}

/* Calls that change names: number and arguments as the kernel takes them. */
static long change_names(enum operation op, const char *path, const char *other, long number,
                         long a, long b, long c, long d, long e) {
    if (!path && !other) return raw(number, a, b, c, d, e, 0);
    lock_names();
    long rc = raw(number, a, b, c, d, e, 0);
    uint64_t inode = 0, mode = 0;
    if (rc == 0 && (op == OP_MKDIR || op == OP_SYMLINK)) {
        struct stat st;
        char full[PATH_BYTES * 2];
        (void)snprintf(full, sizeof full, "%s/%s", world->root, path);
        if (raw(SYS_newfstatat, AT_FDCWD, P(full), P(&st), AT_SYMLINK_NOFOLLOW, 0, 0) == 0) {
            inode = st.st_ino;
            mode = st.st_mode & 07777;
        } else { /* a record without them would be a directory that nobody may read */
            note(OP_UNKNOWN, 0, (uint64_t)errno, 0, path, NULL);
        }
    }
    if (rc == 0) note(op, inode, mode, 0, path, other);
    unlock_names();
    return rc;
}

static long do_rename(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char a[PATH_BYTES], b[PATH_BYTES];
    const char *x = ours(a, from_dir, from), *y = ours(b, to_dir, to);
    enum operation op = flags & RENAME_EXCHANGE ? OP_EXCHANGE : OP_RENAME;
    return change_names(op, x, y, SYS_renameat2, AT_FD(from_dir), P(from), AT_FD(to_dir), P(to),
                        (long)flags);
}

static long do_link(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char a[PATH_BYTES], b[PATH_BYTES];
    const char *x = ours(a, from_dir, from), *y = ours(b, to_dir, to);
    return change_names(OP_LINK, x, y, SYS_linkat, AT_FD(from_dir), P(from), AT_FD(to_dir), P(to),
                        flags);
}

static long do_unlink(int dir, const char *path, int flags) {
    char a[PATH_BYTES];
    return change_names(OP_UNLINK, ours(a, dir, path), NULL, SYS_unlinkat, AT_FD(dir), P(path),
                        flags, 0, 0);
}

static long do_mkdir(int dir, const char *path, long mode) {
    char a[PATH_BYTES];
    return change_names(OP_MKDIR, ours(a, dir, path), NULL, SYS_mkdirat, AT_FD(dir), P(path), mode,
                        0, 0);
}

static long do_symlink(const char *target, int dir, const char *path) {
    char a[PATH_BYTES];
    const char *name = ours(a, dir, path);
    return change_names(OP_SYMLINK, name, name ? target : NULL, SYS_symlinkat, P(target),
                        AT_FD(dir), P(path), 0, 0);
}

static long do_chmod(long rc, int fd, const char *path) {
    struct stat st;
    char buf[PATH_BYTES];
    if (rc != 0) return rc;
    if (path) {
        if (!ours(buf, AT_FDCWD, path) ||
            raw(SYS_newfstatat, AT_FDCWD, P(path), P(&st), 0, 0, 0) != 0)
            return rc;
    } else if (!is_ours(fd, &st)) {
        return rc;
    }
    note(OP_CHMOD, st.st_ino, st.st_mode & 07777, 0, NULL, NULL);
    return rc;
}

static void changed_xattr(int fd, const char *path, const char *name, const void *value,
                          size_t size, enum operation op) {
    struct stat st;
    char buf[PATH_BYTES];
    if (path) {
        if (!ours(buf, AT_FDCWD, path) ||
            raw(SYS_newfstatat, AT_FDCWD, P(path), P(&st), 0, 0, 0) != 0)
            return;
    } else if (!is_ours(fd, &st)) {
        return;
    }
    record r = {.op = (uint16_t)op, .inode = st.st_ino};
    struct iovec iov = {(void *)(uintptr_t)value, size};
    put(&r, name, NULL, &iov, value ? 1 : 0, size);
}

/* PostgreSQL goes on changing a page of an SLRU while it is written: the kernel and the record get
 * the same bytes. */
static void hold_still(struct iovec *iov, int fd) {
    static __thread char copy[65536];
    struct stat st;
    if (iov->iov_len > sizeof copy || !is_ours(fd, &st)) return;
    memcpy(copy, iov->iov_base, iov->iov_len);
    iov->iov_base = copy;
}

/* What libbough_pg.so lets through, and whoever else calls syscall(). */
EXPORT long syscall(long number, ...) {
    va_list ap;
    long v[6];
    va_start(ap, number);
    for (int i = 0; i < 6; i++) v[i] = va_arg(ap, long);
    va_end(ap);
    attach();
    struct iovec iov = {(void *)(uintptr_t)v[1], (size_t)v[2]};
    const char *first = (const char *)(uintptr_t)v[1];
    long rc;
    switch (number) {
    case SYS_openat:
        return do_open((int)v[0], first, (int)v[2], v[3]);
    case SYS_write:
    case SYS_pwrite64:
        hold_still(&iov, (int)v[0]);
        rc = raw(number, v[0], P(iov.iov_base), v[2], v[3], 0, 0);
        wrote((int)v[0], &iov, 1, number == SYS_write ? -1 : v[3], rc);
        return rc;
    case SYS_pwritev:
        rc = raw(number, v[0], v[1], v[2], v[3], v[4], 0);
        wrote((int)v[0], (const struct iovec *)(uintptr_t)v[1], (int)v[2], v[3], rc);
        return rc;
    case SYS_ftruncate:
        return do_truncate(number, v[0], v[1], (int)v[0], NULL);
    case SYS_truncate:
        return do_truncate(number, v[0], v[1], -1, (const char *)(uintptr_t)v[0]);
    case SYS_fallocate:
        return do_fallocate((int)v[0], (int)v[1], v[2], v[3]);
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_syncfs:
        return do_sync(number, (int)v[0]);
    case SYS_unlinkat:
        return do_unlink((int)v[0], first, (int)v[2]);
    case SYS_mkdirat:
        return do_mkdir((int)v[0], first, v[2]);
    case SYS_symlinkat:
        return do_symlink((const char *)(uintptr_t)v[0], (int)v[1], (const char *)(uintptr_t)v[2]);
    case SYS_linkat:
        return do_link((int)v[0], first, (int)v[2], (const char *)(uintptr_t)v[3], (int)v[4]);
    case SYS_renameat2:
        return do_rename((int)v[0], first, (int)v[2], (const char *)(uintptr_t)v[3],
                         (unsigned)v[4]);
    case SYS_copy_file_range: {
        struct stat st;
        if (is_ours((int)v[2], &st)) note(OP_UNKNOWN, st.st_ino, (uint64_t)number, 0, NULL, NULL);
        return raw(number, v[0], v[1], v[2], v[3], v[4], v[5]);
    }
    default:
        return raw(number, v[0], v[1], v[2], v[3], v[4], v[5]);
    }
}

/* ---- libc's functions, for boughd and SQLite, and what libbough_pg.so does not replace ---- */

static long mode_of(int flags, va_list ap) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? (long)va_arg(ap, mode_t) : 0;
}
#define OPEN(name, dir, head)                                                                      \
    EXPORT int name(head const char *path, int flags, ...) {                                       \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        long mode = mode_of(flags, ap);                                                            \
        va_end(ap);                                                                                \
        return (int)syscall(SYS_openat, (long)(dir), path, (long)flags, mode);                     \
    }
#define DIR_ARGUMENT int dir,
OPEN(open, AT_FDCWD, )
OPEN(open64, AT_FDCWD, )
OPEN(openat, dir, DIR_ARGUMENT)
OPEN(openat64, dir, DIR_ARGUMENT)
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags) {
    return (int)syscall(SYS_openat, (long)AT_FDCWD, path, (long)flags, 0L);
}
EXPORT int __open64_2(const char *path, int flags) {
    return __open_2(path, flags);
}
EXPORT ssize_t write(int fd, const void *buf, size_t n) {
    return syscall(SYS_write, (long)fd, buf, n);
}
EXPORT ssize_t pwrite(int fd, const void *buf, size_t n, off_t at) {
    return syscall(SYS_pwrite64, (long)fd, buf, n, at);
}
EXPORT ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at) {
    return syscall(SYS_pwrite64, (long)fd, buf, n, at);
}
EXPORT int ftruncate(int fd, off_t n) {
    return (int)syscall(SYS_ftruncate, (long)fd, n);
}
EXPORT int ftruncate64(int fd, off64_t n) {
    return (int)syscall(SYS_ftruncate, (long)fd, n);
}
EXPORT int fallocate(int fd, int mode, off_t at, off_t n) {
    return (int)syscall(SYS_fallocate, (long)fd, (long)mode, at, n);
}
EXPORT int fallocate64(int fd, int mode, off64_t at, off64_t n) {
    return (int)syscall(SYS_fallocate, (long)fd, (long)mode, at, n);
}
EXPORT int posix_fallocate(int fd, off_t at, off_t n) {
    return syscall(SYS_fallocate, (long)fd, 0L, at, n) == 0 ? 0 : errno;
}
EXPORT int fsync(int fd) {
    return (int)syscall(SYS_fsync, (long)fd);
}
EXPORT int fdatasync(int fd) {
    return (int)syscall(SYS_fdatasync, (long)fd);
}
EXPORT int syncfs(int fd) {
    return (int)syscall(SYS_syncfs, (long)fd);
}
EXPORT int unlink(const char *path) {
    return (int)do_unlink(AT_FDCWD, path, 0);
}
EXPORT int unlinkat(int dir, const char *path, int flags) {
    return (int)do_unlink(dir, path, flags);
}
EXPORT int rmdir(const char *path) {
    return (int)do_unlink(AT_FDCWD, path, AT_REMOVEDIR);
}
EXPORT int mkdir(const char *path, mode_t mode) {
    return (int)do_mkdir(AT_FDCWD, path, (long)mode);
}
EXPORT int mkdirat(int dir, const char *path, mode_t mode) {
    return (int)do_mkdir(dir, path, (long)mode);
}
EXPORT int symlink(const char *target, const char *path) {
    return (int)do_symlink(target, AT_FDCWD, path);
}
EXPORT int link(const char *from, const char *to) {
    return (int)do_link(AT_FDCWD, from, AT_FDCWD, to, 0);
}
EXPORT int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    return (int)do_link(from_dir, from, to_dir, to, flags);
}
EXPORT int rename(const char *from, const char *to) {
    return (int)do_rename(AT_FDCWD, from, AT_FDCWD, to, 0);
}
EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return (int)do_rename(from_dir, from, to_dir, to, flags);
}
EXPORT int chmod(const char *path, mode_t mode) {
    return (int)do_chmod(raw(SYS_chmod, P(path), (long)mode, 0, 0, 0, 0), -1, path);
}
EXPORT int fchmod(int fd, mode_t mode) {
    return (int)do_chmod(raw(SYS_fchmod, fd, (long)mode, 0, 0, 0, 0), fd, NULL);
}
EXPORT int setxattr(const char *path, const char *name, const void *value, size_t n, int flags) {
    long rc = raw(SYS_setxattr, P(path), P(name), P(value), (long)n, flags, 0);
    if (rc == 0) changed_xattr(-1, path, name, value, n, OP_XATTR);
    return (int)rc;
}
EXPORT int fsetxattr(int fd, const char *name, const void *value, size_t n, int flags) {
    long rc = raw(SYS_fsetxattr, fd, P(name), P(value), (long)n, flags, 0);
    if (rc == 0) changed_xattr(fd, NULL, name, value, n, OP_XATTR);
    return (int)rc;
}
EXPORT int removexattr(const char *path, const char *name) {
    long rc = raw(SYS_removexattr, P(path), P(name), 0, 0, 0, 0);
    if (rc == 0) changed_xattr(-1, path, name, NULL, 0, OP_UNXATTR);
    return (int)rc;
}
EXPORT int fremovexattr(int fd, const char *name) {
    long rc = raw(SYS_fremovexattr, fd, P(name), 0, 0, 0, 0);
    if (rc == 0) changed_xattr(fd, NULL, name, NULL, 0, OP_UNXATTR);
    return (int)rc;
}
EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n,
                               unsigned flags) {
    return syscall(SYS_copy_file_range, (long)in, in_at, (long)out, out_at, n, (long)flags);
}

/* stdio writes behind our back: what a file holds is recorded when it is closed. */
EXPORT FILE *fopen(const char *path, const char *mode) {
    static FILE *(*real)(const char *, const char *);
    if (!real) *(void **)(&real) = dlsym(RTLD_NEXT, "fopen");
    char buf[PATH_BYTES];
    attach();
    bool changes = (mode[0] == 'w' || mode[0] == 'a') && ours(buf, AT_FDCWD, path);
    if (changes) {
        int flags = O_CREAT | O_WRONLY | (mode[0] == 'w' ? O_TRUNC : 0) | O_CLOEXEC;
        long fd = do_open(AT_FDCWD, path, flags, 0666);
        if (fd < 0) return NULL;
        (void)raw(SYS_close, fd, 0, 0, 0, 0, 0);
    }
    return real(path, mode);
}
EXPORT FILE *fopen64(const char *path, const char *mode) {
    return fopen(path, mode);
}
EXPORT int fclose(FILE *f) {
    static int (*real)(FILE *);
    if (!real) *(void **)(&real) = dlsym(RTLD_NEXT, "fclose");
    int fd = fileno(f);
    struct stat st;
    if (fd < 0 || !is_ours(fd, &st) || !S_ISREG(st.st_mode) ||
        (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
        return real(f);
    int saved = errno;
    (void)fflush(f);
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long in = raw(SYS_openat, AT_FDCWD, P(link), O_RDONLY | O_CLOEXEC, 0, 0, 0);
    char data[65536];
    off_t at = 0;
    for (long n; in >= 0 && (n = raw(SYS_pread64, in, P(data), sizeof data, at, 0, 0)) > 0;
         at += n) {
        struct iovec iov = {data, (size_t)n};
        wrote(fd, &iov, 1, at, n);
    }
    if (in >= 0)
        (void)raw(SYS_close, in, 0, 0, 0, 0, 0);
    else
        note(OP_UNKNOWN, st.st_ino, 0, 0, NULL, NULL);
    errno = saved;
    return real(f);
}

/* A new program inherits the descriptor. Called in a child that shares our memory. */
EXPORT int execve(const char *path, char *const argv[], char *const env[]) {
    (void)raw(SYS_fcntl, RECORD_FD, F_SETFD, 0, 0, 0, 0);
    return (int)raw(SYS_execve, P(path), P(argv), P(env), 0, 0, 0);
}
