/*
 * System calls as such: the preload library replaces libc's wrappers, so it must not call them.
 * Each returns as libc does: -1 with errno.
 */
#ifndef BOUGH_PRELOAD_SYS_H
#define BOUGH_PRELOAD_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef BOUGH_FAULTS /* the build for tests, whose calls can fail: test/model/faults.c */
long bough_faulty_syscall(long number, ...);
#define syscall bough_faulty_syscall
#endif

/* What was interrupted before anything was done is done again. */
#define SYS_AGAIN(type, call)                                                                      \
    do {                                                                                           \
        type rc_;                                                                                  \
        do rc_ = (type)(call);                                                                     \
        while (rc_ == -1 && errno == EINTR);                                                       \
        return rc_;                                                                                \
    } while (0)

static inline int sys_open(const char *path, int flags, mode_t mode) {
    SYS_AGAIN(int, syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
static inline int sys_close(int fd) {
    return (int)syscall(SYS_close, fd);
}
static inline ssize_t sys_read(int fd, void *buf, size_t n) {
    return syscall(SYS_read, fd, buf, n);
}
static inline ssize_t sys_write(int fd, const void *buf, size_t n) {
    return syscall(SYS_write, fd, buf, n);
}
static inline ssize_t sys_pread(int fd, void *buf, size_t n, off_t at) {
    SYS_AGAIN(ssize_t, syscall(SYS_pread64, fd, buf, n, at));
}
static inline ssize_t sys_pwrite(int fd, const void *buf, size_t n, off_t at) {
    SYS_AGAIN(ssize_t, syscall(SYS_pwrite64, fd, buf, n, at));
}
static inline ssize_t sys_preadv(int fd, const struct iovec *iov, int n, off_t at) {
    SYS_AGAIN(ssize_t, syscall(SYS_preadv, fd, iov, (long)n, (long)at, 0L));
}
static inline ssize_t sys_pwritev(int fd, const struct iovec *iov, int n, off_t at) {
    SYS_AGAIN(ssize_t, syscall(SYS_pwritev, fd, iov, (long)n, (long)at, 0L));
}
static inline off_t sys_lseek(int fd, off_t at, int whence) {
    return syscall(SYS_lseek, fd, at, whence);
}
static inline int sys_ftruncate(int fd, off_t n) {
    SYS_AGAIN(int, syscall(SYS_ftruncate, fd, n));
}
static inline int sys_fallocate(int fd, int mode, off_t at, off_t n) {
    SYS_AGAIN(int, syscall(SYS_fallocate, fd, mode, at, n));
}
static inline int sys_fsync(int fd) {
    SYS_AGAIN(int, syscall(SYS_fsync, fd));
}
static inline int sys_fdatasync(int fd) {
    SYS_AGAIN(int, syscall(SYS_fdatasync, fd));
}
static inline int sys_stat(const char *path, struct stat *st, int flags) {
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, flags);
}
static inline int sys_fstat(int fd, struct stat *st) {
    return (int)syscall(SYS_fstat, fd, st);
}
static inline int sys_unlink(const char *path) {
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
static inline int sys_rmdir(const char *path) {
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}
static inline int sys_mkdir(const char *path, mode_t mode) {
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
static inline int sys_symlink(const char *target, const char *path) {
    return (int)syscall(SYS_symlinkat, target, AT_FDCWD, path);
}
static inline int sys_link(const char *from, const char *to) {
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}
static inline int sys_rename(const char *from, const char *to, unsigned flags) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}
static inline int sys_access(const char *path, int mode) {
    return (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}
static inline int sys_dup3(int from, int to, int flags) {
    return (int)syscall(SYS_dup3, from, to, flags);
}

/* Size of an open file, or -1 with errno. */
static inline int64_t sys_size(int fd) {
    struct stat st;
    return sys_fstat(fd, &st) == 0 ? (int64_t)st.st_size : -1;
}

#endif
