/*
 * Makes calls fail: the nth write, fsync, open and so on of a program, as its test wishes
 * (fault.h).
 *
 * Preloaded, in computes behind libbough_pg.so: what that one asks of the kernel comes to syscall()
 * here, so what fails are the calls of Bough's library, as a file system would fail them. In boughd
 * and in tools that it starts, it is libc's functions that are replaced. A test program in C may
 * also be linked with it.
 *
 *   BOUGH_FAULT  file of one page, which exists
 *
 * A compute cannot open it: it inherits the descriptor. What does not match is passed on, at the
 * price of one look at the page.
 */
#include "fault.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define FAULT_FD 1020

fault_page *fault_control;
static bool is_attached, is_over;
static char program[32]; /* postgres writes over its arguments later */
static __thread bool is_inside __attribute__((tls_model("initial-exec")));

#define REAL(name)                                                                                 \
    static __typeof__(name) *real;                                                                 \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

/* libc's own, whoever else may have one of the same name. */
static long (*kernel)(long number, ...);

static void attach(void) {
    if (is_attached) return;
    *(void **)&kernel = dlsym(RTLD_NEXT, "syscall");
    if (!kernel) abort();
    is_attached = true;
    (void)snprintf(program, sizeof program, "%s", program_invocation_short_name);
    int saved = errno;
    const char *path = getenv("BOUGH_FAULT");
    if (path) {
        long fd = kernel(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        if (fd >= 0) {
            (void)kernel(SYS_dup3, fd, FAULT_FD, O_CLOEXEC);
            (void)kernel(SYS_close, fd);
        }
    }
    long at = kernel(SYS_mmap, 0L, (long)FAULT_PAGE, (long)(PROT_READ | PROT_WRITE),
                     (long)MAP_SHARED, (long)FAULT_FD, 0L);
    if (at != -1) {
        (void)kernel(SYS_fcntl, FAULT_FD, F_SETFD, FD_CLOEXEC);
        fault_control = (fault_page *)(uintptr_t)at;
    }
    errno = saved;
}

__attribute__((constructor)) static void begin(void) {
    attach();
}

/* When main() has returned, and what the program wanted done at its end is done, nothing fails any
 * more: gcc's coverage, which writes what it counted after that, has no answer to it. */
static int (*program_main)(int, char **, char **);

static void end(void) {
    is_over = true;
}

static int main_with_end(int argc, char **argv, char **environment) {
    (void)atexit(end); /* the first of main()'s, so the last that is called of them */
    return program_main(argc, argv, environment);
}

typedef int (*start_main)(int (*main)(int, char **, char **), int argc, char **argv,
                          void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                          void *stack_end);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end);
EXPORT int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
                             void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                             void *stack_end) {
    start_main real;
    *(void **)&real = dlsym(RTLD_NEXT, "__libc_start_main");
    program_main = main;
    return real(main_with_end, argc, argv, init, fini, rtld_fini, stack_end);
}

/* ---- whether a call is the one ---- */

static const char *path_of(char *out, size_t size, int fd) {
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = kernel(SYS_readlinkat, AT_FDCWD, link, out, (long)size - 1);
    out[n > 0 ? n : 0] = '\0';
    return out;
}

/* Only files: a pipe's or socket's calls are no file system's. */
static bool is_file(int fd) {
    struct stat st;
    return kernel(SYS_fstat, fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

static bool matches(const fault_page *page, fault_call call, const char *path) {
    char name[32] = "";
    if (page->program[0] && fnmatch(page->program, program, 0) != 0) return false;
    if (page->thread[0] && (prctl(PR_GET_NAME, name) != 0 || fnmatch(page->thread, name, 0) != 0))
        return false;
    return !page->path[0] || call == FAULT_MALLOC ||
           fnmatch(page->path, path ? path : "", FNM_EXTMATCH) == 0;
}

/* `path` or `fd` (-1: neither) says which file. True: `mode` is what happens to the call. */
static bool hits(fault_call call, const char *path, int fd, fault_mode *mode) {
    fault_page *page = fault_control;
    if (!page || is_inside || is_over) return false;
    *mode = (fault_mode)atomic_load_explicit(&page->mode, memory_order_acquire);
    if (*mode == FAULT_NONE || !(page->calls & FAULT_CALL(call))) return false;
    char text[512];
    int saved = errno;
    bool is_it = false;
    is_inside = true;
    if (fd < 0 || is_file(fd)) {
        if (fd >= 0 && !path) path = path_of(text, sizeof text, fd);
        if (matches(page, call, path)) {
            int64_t at = atomic_fetch_add(&page->seen, 1) + 1;
            is_it = *mode == FAULT_ON ? at >= page->nth : *mode != FAULT_COUNT && at == page->nth;
        }
        if (is_it && atomic_fetch_add(&page->fired, 1) == 0) {
            page->fired_call = (uint32_t)call;
            page->fired_pid = (int32_t)getpid();
            (void)snprintf(page->fired_path, sizeof page->fired_path, "%s", path ? path : "");
        }
    }
    is_inside = false;
    errno = saved;
    return is_it;
}

static bool fails(fault_call call, const char *path, int fd) {
    fault_mode mode;
    if (!hits(call, path, fd, &mode)) return false;
    if (mode == FAULT_SHORT) return false;
    errno = fault_control->error;
    return true;
}

/* The same for what may be done in part. */
static bool fails_or_halves(fault_call call, int fd, size_t *n) {
    fault_mode mode;
    if (!hits(call, NULL, fd, &mode)) return false;
    if (mode == FAULT_SHORT) {
        if (*n > 1) *n /= 2;
        return false;
    }
    errno = fault_control->error;
    return true;
}

/* ---- what libbough_pg.so lets through, and whoever else calls syscall() ---- */

static long vector(long number, const long v[6], fault_call call) {
    const struct iovec *iov = (const struct iovec *)(uintptr_t)v[1];
    size_t bytes = 0, want;
    for (long i = 0; i < v[2]; i++) bytes += iov[i].iov_len;
    want = bytes;
    if (fails_or_halves(call, (int)v[0], &want)) return -1;
    if (want == bytes) return kernel(number, v[0], v[1], v[2], v[3], v[4]);
    struct iovec cut[64];
    long n = 0;
    for (; n < v[2] && n < 64 && want; n++) {
        cut[n] = iov[n];
        if (cut[n].iov_len > want) cut[n].iov_len = want;
        want -= cut[n].iov_len;
    }
    return kernel(number, v[0], cut, n, v[3], v[4]);
}

static bool call_fails(long number, const long v[6]) {
    const char *first = (const char *)(uintptr_t)v[0], *second = (const char *)(uintptr_t)v[1];
    switch (number) {
    case SYS_openat:
        return fails(FAULT_OPEN, second, -1);
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_syncfs:
        return fails(FAULT_SYNC, NULL, (int)v[0]);
    case SYS_renameat2:
        return fails(FAULT_RENAME, second, -1);
    case SYS_linkat:
        return fails(FAULT_LINK, second, -1);
    case SYS_symlinkat:
        return fails(FAULT_LINK, (const char *)(uintptr_t)v[2], -1);
    case SYS_unlinkat:
        return fails(FAULT_UNLINK, second, -1);
    case SYS_mkdirat:
        return fails(FAULT_MKDIR, second, -1);
    case SYS_ftruncate:
        return fails(FAULT_TRUNCATE, NULL, (int)v[0]);
    case SYS_truncate:
        return fails(FAULT_TRUNCATE, first, -1);
    case SYS_fallocate:
        return fails(FAULT_ALLOCATE, NULL, (int)v[0]);
    case SYS_copy_file_range:
        return fails(FAULT_WRITE, NULL, (int)v[2]);
    case SYS_mmap:
        return fails(FAULT_MMAP, "", v[3] & MAP_ANONYMOUS ? -1 : (int)v[4]);
    default:
        return false;
    }
}

EXPORT long syscall(long number, ...) {
    va_list ap;
    long v[6];
    va_start(ap, number);
    for (int i = 0; i < 6; i++) v[i] = va_arg(ap, long);
    va_end(ap);
    attach();
    size_t n = (size_t)v[2];
    switch (number) {
    case SYS_read:
    case SYS_pread64:
        if (fails_or_halves(FAULT_READ, (int)v[0], &n)) return -1;
        return kernel(number, v[0], v[1], n, v[3]);
    case SYS_write:
    case SYS_pwrite64:
        if (fails_or_halves(FAULT_WRITE, (int)v[0], &n)) return -1;
        return kernel(number, v[0], v[1], n, v[3]);
    case SYS_preadv:
        return vector(number, v, FAULT_READ);
    case SYS_pwritev:
        return vector(number, v, FAULT_WRITE);
    default:
        if (call_fails(number, v)) return -1;
        return kernel(number, v[0], v[1], v[2], v[3], v[4], v[5]);
    }
}

/* ---- libc's functions, for boughd, for SQLite in it, and for a postgres without our library ----
 */

#define OPEN(name, dir, head)                                                                      \
    EXPORT int name(head const char *path, int flags, ...) {                                       \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        bool has_mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;                     \
        long mode = has_mode ? (long)va_arg(ap, mode_t) : 0;                                       \
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
EXPORT ssize_t read(int fd, void *buf, size_t n) {
    return syscall(SYS_read, (long)fd, buf, n);
}
ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t room) {
    if (n > room) abort();
    return read(fd, buf, n);
}
EXPORT ssize_t pread(int fd, void *buf, size_t n, off_t at) {
    return syscall(SYS_pread64, (long)fd, buf, n, at);
}
EXPORT ssize_t pread64(int fd, void *buf, size_t n, off64_t at) {
    return syscall(SYS_pread64, (long)fd, buf, n, at);
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
EXPORT ssize_t preadv(int fd, const struct iovec *iov, int n, off_t at) {
    return syscall(SYS_preadv, (long)fd, iov, (long)n, (long)at, 0L);
}
EXPORT ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t at) {
    return syscall(SYS_preadv, (long)fd, iov, (long)n, (long)at, 0L);
}
EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at) {
    return syscall(SYS_pwritev, (long)fd, iov, (long)n, (long)at, 0L);
}
EXPORT ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t at) {
    return syscall(SYS_pwritev, (long)fd, iov, (long)n, (long)at, 0L);
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
static int allocate(int fd, off_t at, off_t n) {
    int saved = errno;
    int rc = syscall(SYS_fallocate, (long)fd, 0L, at, n) == 0 ? 0 : errno;
    errno = saved;
    return rc;
}
EXPORT int posix_fallocate(int fd, off_t at, off_t n) {
    return allocate(fd, at, n);
}
EXPORT int posix_fallocate64(int fd, off64_t at, off64_t n) {
    return allocate(fd, at, n);
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
    return (int)syscall(SYS_unlinkat, (long)AT_FDCWD, path, 0L);
}
EXPORT int unlinkat(int dir, const char *path, int flags) {
    return (int)syscall(SYS_unlinkat, (long)dir, path, (long)flags);
}
EXPORT int rmdir(const char *path) {
    return (int)syscall(SYS_unlinkat, (long)AT_FDCWD, path, (long)AT_REMOVEDIR);
}
EXPORT int mkdir(const char *path, mode_t mode) {
    return (int)syscall(SYS_mkdirat, (long)AT_FDCWD, path, (long)mode);
}
EXPORT int mkdirat(int dir, const char *path, mode_t mode) {
    return (int)syscall(SYS_mkdirat, (long)dir, path, (long)mode);
}
EXPORT int symlink(const char *target, const char *path) {
    return (int)syscall(SYS_symlinkat, target, (long)AT_FDCWD, path);
}
EXPORT int link(const char *from, const char *to) {
    return (int)syscall(SYS_linkat, (long)AT_FDCWD, from, (long)AT_FDCWD, to, 0L);
}
EXPORT int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    return (int)syscall(SYS_linkat, (long)from_dir, from, (long)to_dir, to, (long)flags);
}
EXPORT int rename(const char *from, const char *to) {
    return (int)syscall(SYS_renameat2, (long)AT_FDCWD, from, (long)AT_FDCWD, to, 0L);
}
EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return (int)syscall(SYS_renameat2, (long)from_dir, from, (long)to_dir, to, (long)flags);
}
EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n,
                               unsigned flags) {
    return syscall(SYS_copy_file_range, (long)in, in_at, (long)out, out_at, n, (long)flags);
}
EXPORT int setxattr(const char *path, const char *name, const void *value, size_t n, int flags) {
    attach();
    if (fails(FAULT_XATTR, path, -1)) return -1;
    return (int)kernel(SYS_setxattr, path, name, value, n, (long)flags);
}
EXPORT int fsetxattr(int fd, const char *name, const void *value, size_t n, int flags) {
    attach();
    if (fails(FAULT_XATTR, NULL, fd)) return -1;
    return (int)kernel(SYS_fsetxattr, (long)fd, name, value, n, (long)flags);
}
EXPORT void *mmap(void *hint, size_t n, int protection, int flags, int fd, off_t at) {
    return (void *)syscall(SYS_mmap, hint, n, (long)protection, (long)flags, (long)fd, at);
}
EXPORT void *mmap64(void *hint, size_t n, int protection, int flags, int fd, off64_t at) {
    return (void *)syscall(SYS_mmap, hint, n, (long)protection, (long)flags, (long)fd, at);
}
EXPORT FILE *fopen(const char *path, const char *mode) {
    REAL(fopen);
    attach();
    return fails(FAULT_OPEN, path, -1) ? NULL : real(path, mode);
}
EXPORT FILE *fopen64(const char *path, const char *mode) {
    return fopen(path, mode);
}
EXPORT DIR *opendir(const char *path) {
    REAL(opendir);
    attach();
    return fails(FAULT_LIST, path, -1) ? NULL : real(path);
}
/* A directory that cannot be read to its end: NULL with errno. */
EXPORT struct dirent *readdir(DIR *dir) {
    REAL(readdir);
    attach();
    return fails(FAULT_LIST, NULL, dirfd(dir)) ? NULL : real(dir);
}
EXPORT struct dirent64 *readdir64(DIR *dir) {
    REAL(readdir64);
    attach();
    return fails(FAULT_LIST, NULL, dirfd(dir)) ? NULL : real(dir);
}

/* ---- memory; strdup(), asprintf() and so on ask these ---- */

#ifndef FAULT_NO_MALLOC
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
EXPORT void *malloc(size_t n) {
    return fails(FAULT_MALLOC, NULL, -1) ? NULL : __libc_malloc(n);
}
EXPORT void *calloc(size_t n, size_t size) {
    return fails(FAULT_MALLOC, NULL, -1) ? NULL : __libc_calloc(n, size);
}
EXPORT void *realloc(void *p, size_t n) {
    return fails(FAULT_MALLOC, NULL, -1) ? NULL : __libc_realloc(p, n);
}
#endif

/* A new program inherits the page. Called in a child that shares our memory. */
EXPORT int execve(const char *path, char *const argv[], char *const env[]) {
    attach();
    if (fault_control) (void)kernel(SYS_fcntl, FAULT_FD, F_SETFD, 0);
    return (int)kernel(SYS_execve, path, argv, env);
}
