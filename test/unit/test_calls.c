/*
 * The calls on files that the model does not make: other spellings, other arguments, and names that
 * are not layered (WAL, pg_control, temporary files, what lies outside). Each case is done twice,
 * by a process of a compute and in a plain directory; both must tell the same story. Then it is
 * done with its first call refused, its second, and so on, and with each allocation: whatever it
 * says, the memory and the disk must agree afterwards.
 *
 * The library is linked in, as for the fuzzer's model (test/model/inside.h).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/inside.h"
#include "preload/lib.h"
#include "store/internal.h"
#include "util/log.h"

/* What the compiler of postgres may make of a call; no header of today's glibc declares all. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t n, off_t at, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t n, off_t at, size_t room);
int __xstat(int version, const char *path, struct stat *st);
int __lxstat(int version, const char *path, struct stat *st);
int __fxstat(int version, int fd, struct stat *st);
int __xstat64(int version, const char *path, struct stat *st);
int __lxstat64(int version, const char *path, struct stat *st);
int __fxstat64(int version, int fd, struct stat *st);

void bough_fault_arm(int action, long nth, int err);
bool bough_fault_fired(void);
void bough_fault_meanwhile(void (*what)(void));

#define WAL "pg_wal/000000010000000000000010"
#define PAGES "base/1/1000" /* 1 page or more, in a layer below */
#define WHOLE "base/1/PG_VERSION"
#define CONTROL "global/pg_control"
#define TEMPORARY "base/pgsql_tmp"

static bough_store *store;
static bough_shm *shm;
static char dir[64], home[BOUGH_PATH_MAX];
static unsigned branches;
static char branch[16];

_Noreturn void model_fail(const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    (void)vfprintf(stderr, format, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    abort();
}

/* ---- allocations that fail ---- */

static long allocations; /* until one fails; 0: none does */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t n);

static bool fails_now(void) {
    if (allocations == 0 || --allocations > 0) return false;
    errno = ENOMEM;
    return true;
}
void *__wrap_malloc(size_t n) {
    return fails_now() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
    return fails_now() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *old, size_t n) {
    return fails_now() ? NULL : __real_realloc(old, n);
}

/* ---- the story of a case ---- */

static char story[2][65536];
static size_t told[2];
static int side; /* 0: a compute, 1: a plain directory */

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(story[side] + told[side], sizeof story[0] - told[side], format, ap);
    va_end(ap);
    told[side] += (size_t)n;
    if (told[side] >= sizeof story[0]) model_fail("the story is too long");
}

/* What it returned; a failure with its reason. */
static long say(const char *what, long rc, int err) {
    if (rc < 0)
        tell("%s: %s\n", what, strerrorname_np(err));
    else
        tell("%s: %ld\n", what, rc);
    return rc;
}

/* In this order: errno is of the call. */
#define SAY_OF(what, call)                                                                         \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long rc_ = (long)(call);                                                                   \
        (void)say(what, rc_, errno);                                                               \
    } while (0)
#define SAY(call) SAY_OF(#call, call)
/* Of a descriptor only whether it was had. */
#define OPENED(call) (errno = 0, had(#call, call))
static int had(const char *what, int fd) {
    (void)say(what, fd < 0 ? -1 : 0, errno);
    return fd;
}

static void say_stat(const char *what, int rc, const struct stat *st) {
    if (say(what, rc, errno) < 0) return;
    tell("  %s, %lld bytes\n", S_ISDIR(st->st_mode) ? "directory" : "file",
         S_ISDIR(st->st_mode) ? 0LL : (long long)st->st_size);
}
#define STAT(call) (memset(&st, 0, sizeof st), errno = 0, say_stat(#call, call, &st))

static void say_bytes(const char *what, const void *data, long n) {
    if (say(what, n, errno) > 0) tell("  crc %08x\n", bough_crc32c(0, data, (size_t)n));
}
#define BYTES(call) (errno = 0, say_bytes(#call, buf, (long)(call)))

static char buf[4 * MODEL_PAGE];

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void say_list(const char *path, bool again) {
    char *names[200];
    size_t n = 0;
    errno = 0;
    DIR *d = opendir(path);
    (void)say(path, d ? 0 : -1, errno);
    if (!d) return;
    for (int round = 0; round <= (int)again; round++) {
        const struct dirent *e;
        for (; n; n--) free(names[n - 1]);
        if (round) rewinddir(d);
        while ((e = readdir(d)) != NULL && n < sizeof names / sizeof names[0])
            /* these are elsewhere; postgres asks for them by name */
            if (strcmp(e->d_name, "pgsql_tmp") != 0 && strcmp(e->d_name, "pg_control") != 0)
                names[n++] = strdup(e->d_name);
    }
    qsort(names, n, sizeof names[0], compare_names);
    for (size_t i = 0; i < n; i++) tell("  %s\n", names[i]);
    for (; n; n--) free(names[n - 1]);
    SAY(closedir(d));
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return; /* a fault */
    (void)!write(fd, text, strlen(text));
    close(fd);
}

/* ---- the cases ---- */

static void spellings_of_opening(void *context) {
    static const char *const paths[] = {
        PAGES, WHOLE,      CONTROL,     WAL,           "base/1",         "base",
        ".",   "base/9/1", "base/1/77", "pg_wal/none", TEMPORARY "/none"};
    (void)context;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        const char *path = paths[i];
        int fds[] = {OPENED(open(path, O_RDONLY | O_CLOEXEC)),
                     OPENED(open64(path, O_RDWR | O_CLOEXEC)),
                     OPENED(__open_2(path, O_RDONLY | O_CLOEXEC)),
                     OPENED(__open64_2(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)),
                     OPENED(openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC)),
                     OPENED(openat64(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
                     OPENED(open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600))};
        for (size_t k = 0; k < sizeof fds / sizeof fds[0]; k++) {
            if (fds[k] < 0) continue;
            SAY(fcntl(fds[k], F_GETFD));
            SAY(close(fds[k]));
        }
    }
    int room = OPENED(open("pg_wal", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int fd = OPENED(openat(room, "000000010000000000000010", O_RDONLY | O_CLOEXEC));
    BYTES(read(fd, buf, 3));
    SAY(close(fd));
    fd = OPENED(openat(room, "new", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    SAY(write(fd, "new", 3));
    SAY(close(fd));
    fd = OPENED(open("pg_wal", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    SAY(write(fd, "nameless", 8));
    SAY(close(fd));
    SAY(close(room));
    SAY(close(room));
    SAY(close(-1));
    fd = OPENED(creat("base/1/1005", 0600));
    SAY(pwrite(fd, buf, sizeof buf, 0));
    SAY(close(fd));
    fd = OPENED(creat64(WHOLE, 0600));
    SAY(write(fd, "16\n", 3));
    SAY(close(fd));
    fd = OPENED(creat("pg_wal/made", 0600));
    SAY(close(fd));
    fd = OPENED(creat("base/1", 0600));
    fd = OPENED(creat("base/9/1000", 0600));
}

static void streams(void *context) {
    static const char *const paths[] = {
        WHOLE,         "base/1/pg_internal.init",  CONTROL,
        "pg_wal/text", TEMPORARY "/text",          "base/9/PG_VERSION",
        "base/1",      "global/pg_internal.init.9"};
    static const char *const modes[] = {"re", "r+e", "ae", "a+e", "we", "w+e", "re"};
    (void)context;
    SAY(mkdir(TEMPORARY, 0700));
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        for (size_t k = 0; k < sizeof modes / sizeof modes[0]; k++) {
            errno = 0;
            FILE *f = k % 2 ? fopen64(paths[i], modes[k]) : fopen(paths[i], modes[k]);
            tell("%s %s: %s\n", paths[i], modes[k], f ? "open" : strerrorname_np(errno));
            if (!f) continue;
            size_t n = strchr("rw", modes[k][0]) ? fread(buf, 1, 100, f) : 0;
            tell("  %zu bytes, crc %08x\n", n, bough_crc32c(0, buf, n));
            (void)fclose(f);
            if (k == 5) write_file(paths[i], "some text");
        }
    }
}

/* Every kind of file, and what is none. */
static void reading_and_writing(void *context) {
    static const char *const paths[] = {PAGES, WHOLE, CONTROL, WAL, TEMPORARY "/9", "pg_wal/x"};
    (void)context;
    SAY(mkdir(TEMPORARY, 0700));
    for (size_t i = 0; i <= sizeof paths / sizeof paths[0]; i++) {
        const char *path = i < sizeof paths / sizeof paths[0] ? paths[i] : "/dev/null";
        int fd = OPENED(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        struct iovec iov[3] = {{buf, 100}, {buf + 100, 0}, {buf + 5000, 300}};
        for (size_t k = 0; k < sizeof buf; k++) buf[k] = (char)(k * 7 + i);
        SAY(write(fd, buf, 200));
        SAY(pwrite(fd, buf, 300, 8000));
        SAY(pwrite64(fd, buf, 0, 100));
        SAY(pwritev(fd, iov, 3, 4000));
        SAY(pwritev64(fd, iov, 1, 9000));
        SAY(pwritev(fd, iov, 0, 0));
        SAY(pwrite(fd, buf, 10, -1));
        SAY(lseek(fd, 0, SEEK_CUR));
        SAY(lseek64(fd, 5, SEEK_SET));
        SAY(lseek(fd, -100, SEEK_SET));
        SAY(lseek(fd, 0, 77));
        memset(buf, 0, sizeof buf);
        BYTES(read(fd, buf, 100));
        BYTES(__read_chk(fd, buf, 100, sizeof buf));
        BYTES(pread(fd, buf, 5000, 4000));
        BYTES(pread64(fd, buf, 0, 4000));
        BYTES(__pread_chk(fd, buf, 300, 8100, sizeof buf));
        BYTES(__pread64_chk(fd, buf, 300, 10000000, sizeof buf));
        BYTES(preadv(fd, iov, 3, 4000));
        BYTES(preadv64(fd, iov, 1, 0));
        BYTES(pread(fd, buf, 10, -1));
        BYTES(preadv(fd, iov, 0, 0));
        if (i < sizeof paths / sizeof paths[0]) SAY(lseek(fd, -7, SEEK_END));
        BYTES(read(fd, buf, 100));
        SAY(close(fd));
        fd = OPENED(open(path, O_RDONLY | O_CLOEXEC));
        SAY(pwrite(fd, buf, 10, 0));
        SAY(write(fd, buf, 10));
        if (i < sizeof paths / sizeof paths[0]) SAY(ftruncate(fd, 10));
        SAY(close(fd));
        fd = OPENED(open(path, O_WRONLY | O_APPEND | O_CLOEXEC));
        BYTES(pread(fd, buf, 10, 0));
        BYTES(read(fd, buf, 10));
        SAY(close(fd));
        BYTES(read(fd, buf, 10));
        SAY(write(fd, buf, 10));
        BYTES(pread(fd, buf, 10, 0));
    }
}

static void lengths(void *context) {
    static const char *const paths[] = {PAGES, WHOLE, WAL, TEMPORARY "/9", "pg_wal/x"};
    struct stat st;
    (void)context;
    SAY(mkdir(TEMPORARY, 0700));
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        int fd = OPENED(open(paths[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        SAY(ftruncate(fd, 3 * (off_t)MODEL_PAGE));
        STAT(fstat(fd, &st));
        SAY(ftruncate64(fd, 100));
        STAT(fstat64(fd, (struct stat64 *)&st));
        SAY(ftruncate(fd, -1));
        SAY(posix_fallocate(fd, 0, 2 * (off_t)MODEL_PAGE));
        SAY(posix_fallocate64(fd, 10, 0));
        SAY(posix_fallocate(fd, -5, 10));
        SAY(fallocate(fd, 0, MODEL_PAGE, 2 * (off_t)MODEL_PAGE));
        STAT(__fxstat(1, fd, &st));
        STAT(__fxstat64(1, fd, &st));
        SAY(close(fd));
        SAY(truncate(paths[i], MODEL_PAGE));
        SAY(truncate64(paths[i], 7));
        STAT(stat(paths[i], &st));
    }
    SAY(truncate("base/1", 0));
    SAY(truncate("base/1/77", 0));
    SAY(truncate("/dev/null", 0));
    SAY(posix_fallocate(-1, 0, 10));
    int fd = OPENED(open(WHOLE, O_RDWR | O_CLOEXEC));
    SAY(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100));
    SAY(close(fd));
}

static void copies_between_files(void *context) {
    static const char *const paths[] = {PAGES, "base/1/1005", "pg_wal/from", "pg_wal/to", WHOLE};
    enum { FILES = sizeof paths / sizeof paths[0] };
    int fds[FILES];
    (void)context;
    for (size_t i = 0; i < sizeof buf; i++) buf[i] = (char)(i * 3);
    for (int i = 0; i < FILES; i++)
        fds[i] = OPENED(open(paths[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SAY(pwrite(fds[0], buf, 2 * MODEL_PAGE, 0));
    SAY(pwrite(fds[2], buf, 3000, 0));
    for (int in = 0; in < FILES; in++) {
        for (int out = 0; out < FILES; out++) {
            if (in == out) continue;
            off64_t from = 100, to = 200;
            tell("%s to %s\n", paths[in], paths[out]);
            SAY(copy_file_range(fds[in], &from, fds[out], &to, 1000, 0));
            tell("  at %lld, %lld\n", (long long)from, (long long)to);
            SAY(lseek(fds[in], 10, SEEK_SET));
            SAY(lseek(fds[out], 20, SEEK_SET));
            SAY(copy_file_range(fds[in], NULL, fds[out], NULL, 500, 0));
            SAY(lseek(fds[in], 0, SEEK_CUR));
            SAY(lseek(fds[out], 0, SEEK_CUR));
            from = 100000000;
            SAY(copy_file_range(fds[in], &from, fds[out], NULL, 10, 0));
        }
    }
    int only = OPENED(open(PAGES, O_RDONLY | O_CLOEXEC));
    SAY(copy_file_range(fds[2], NULL, only, NULL, 10, 0));
    SAY(copy_file_range(-1, NULL, fds[0], NULL, 10, 0));
    SAY(close(only));
    for (int i = 0; i < FILES; i++) {
        BYTES(pread(fds[i], buf, sizeof buf, 0));
        SAY(close(fds[i]));
    }
}

static void durability_and_hints(void *context) {
    static const char *const paths[] = {PAGES,    WHOLE,  CONTROL,  WAL,
                                        "base/1", "base", "pg_wal", "."};
    (void)context;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        int fd = OPENED(open(paths[i], i < 4 ? O_RDWR | O_CLOEXEC : O_RDONLY | O_CLOEXEC));
        if (i < 4) SAY(pwrite(fd, "x", 1, 5));
        SAY(fsync(fd));
        SAY(fdatasync(fd));
        SAY(syncfs(fd));
        if (i < 4) {
            SAY(sync_file_range(fd, 0, MODEL_PAGE, SYNC_FILE_RANGE_WRITE));
            SAY(posix_fadvise(fd, 0, MODEL_PAGE, POSIX_FADV_WILLNEED));
            SAY(posix_fadvise64(fd, 0, 0, POSIX_FADV_DONTNEED));
        }
        SAY(close(fd));
    }
    SAY(fsync(-1));
    SAY(fdatasync(-1));
    SAY(posix_fadvise(-1, 0, 0, POSIX_FADV_WILLNEED));
}

static void looking_at_names(void *context) {
    static const char *const paths[] = {PAGES,
                                        "./base//1/1000",
                                        WHOLE,
                                        CONTROL,
                                        WAL,
                                        "base",
                                        "base/1",
                                        "base/",
                                        ".",
                                        "",
                                        "base/9",
                                        "base/1/77",

                                        "pg_wal",
                                        "pg_wal/none",
                                        TEMPORARY,
                                        TEMPORARY "/none",
                                        "pg_multixact",
                                        "pg_multixact/offsets",
                                        "pg_xact/0000",
                                        "/dev/null"};
    struct stat st;
    (void)context;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        const char *path = paths[i];
        tell("\"%s\"\n", path);
        if (*path != '/') {
            STAT(stat(path, &st));
            STAT(lstat(path, &st));
            STAT(stat64(path, (struct stat64 *)&st));
            STAT(lstat64(path, (struct stat64 *)&st));
            STAT(__xstat(1, path, &st));
            STAT(__lxstat(1, path, &st));
            STAT(__xstat64(1, path, &st));
            STAT(__lxstat64(1, path, &st));
            STAT(fstatat(AT_FDCWD, path, &st, 0));
            STAT(fstatat64(AT_FDCWD, path, (struct stat64 *)&st, AT_SYMLINK_NOFOLLOW));
        }
        SAY(access(path, F_OK));
        SAY(access(path, R_OK | W_OK));
    }
    int fd = OPENED(open(PAGES, O_RDONLY | O_CLOEXEC));
    int room = OPENED(open("pg_wal", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    STAT(fstatat(fd, "", &st, AT_EMPTY_PATH));
    STAT(fstatat(room, "000000010000000000000010", &st, 0));
    STAT(fstatat(room, "none", &st, 0));
    SAY(close(room));
    SAY(close(fd));
    STAT(fstat(-1, &st));
}

static void making_and_removing(void *context) {
    static const char *const paths[] = {
        "base/9", "base/1", "base", TEMPORARY, TEMPORARY "/x", "pg_wal/x",  "pg_wal",
        "global", PAGES,    WHOLE,  WAL,       "base/7/8",     "pg_none/x", "pg_multixact/offsets",
        CONTROL};
    (void)context;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        SAY_OF(paths[i], mkdir(paths[i], 0700));
    write_file("base/9/1000", "page");
    write_file("base/9/PG_VERSION", "15\n");
    write_file(TEMPORARY "/x/y", "rows");
    write_file("pg_wal/x/y", "wal");
    write_file("pg_wal/plain", "wal");
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (strcmp(paths[i], "base") != 0) SAY_OF(paths[i], rmdir(paths[i]));
    static const char *const files[] = {
        "base/9/1000", "base/9/1000", "base/9/PG_VERSION", TEMPORARY "/x/y", TEMPORARY "/x/y",
        "pg_wal/x/y",  "pg_wal/x/y",  "pg_wal/plain",      "base/9/none",    "base/8/none",
        "/none",       "pg_none/x",   "global/77"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) SAY_OF(files[i], unlink(files[i]));
    SAY(rmdir(TEMPORARY "/x"));
    SAY(rmdir(TEMPORARY));
    SAY(rmdir("base/9"));
    SAY(rmdir("pg_wal/x"));
    SAY(mkdir("base/9", 0700));
    SAY(rmdir("base/9"));
    say_list("base", false);
}

static void other_names(void *context) {
    char outside[3][BOUGH_PATH_MAX];
    (void)context;
    for (int i = 0; i < 3; i++)
        (void)snprintf(outside[i], sizeof outside[i], "%s/outside-%d-%d", dir, side, i);
    SAY(mkdir(TEMPORARY, 0700));
    write_file("pg_wal/a", "a");
    write_file(outside[0], "outside");
    write_file(TEMPORARY "/a", "temporary");
    struct {
        const char *from, *to;
    } moves[] = {{"pg_wal/a", "pg_wal/b"},
                 {"pg_wal/none", "pg_wal/b"},
                 {"pg_wal/b", "pg_none/b"},
                 {TEMPORARY "/a", TEMPORARY "/b"},
                 {TEMPORARY "/b", "pg_wal/c"},
                 {"pg_wal/c", TEMPORARY "/c"},
                 {outside[0], outside[1]},
                 {outside[1], "pg_wal/d"},
                 {"pg_wal/d", outside[2]},
                 {"pg_wal", "pg_wal/below"},
                 {"base/1/1000", "base/1/1006"},
                 {"base/1/1006", "base/1/1000"},
                 {"base/1/PG_VERSION", "base/1/pg_internal.init"},
                 {"base/1/none", "base/1/1006"}};
    for (size_t i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        tell("move %zu\n", i);
        SAY(rename(moves[i].from, moves[i].to));
    }
    SAY(link("pg_wal/b", "pg_wal/e"));
    SAY(link("pg_wal/b", "pg_wal/e"));
    SAY(link("pg_wal/none", "pg_wal/f"));
    SAY(link(outside[2], outside[0]));
    SAY(link(TEMPORARY "/c", TEMPORARY "/d"));
    for (int i = 0; i < 3; i++) SAY(unlink(outside[i]));
    say_list("pg_wal", true);
    say_list(TEMPORARY, false);
}

static void lists(void *context) {
    static const char *const paths[] = {
        "base",    "base/1",  "base/9",       "global",
        "pg_wal",  "pg_xact", "pg_multixact", "pg_multixact/members",
        TEMPORARY, "pg_none", PAGES,          WAL};
    (void)context;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) say_list(paths[i], i % 2 == 0);
    DIR *d = opendir(".");
    (void)say(".", d ? 0 : -1, errno);
    if (!d) return;
    const struct dirent *e;
    while ((e = readdir64(d) ? readdir(d) : NULL) != NULL)
        if (strcmp(e->d_name, "bough.control") == 0 || strcmp(e->d_name, "bough_tmp") == 0)
            tell("a file of ours shows: %s\n", e->d_name);
    SAY(closedir(d));
}

/* Paths are looked at from where the process is. */
static void other_directories(void *context) {
    struct stat st;
    char here[BOUGH_PATH_MAX], absolute[BOUGH_PATH_MAX + 64];
    (void)context;
    if (!getcwd(here, sizeof here)) return;
    (void)snprintf(absolute, sizeof absolute, "%s/" PAGES, here);
    SAY(chdir("pg_wal"));
    STAT(stat("000000010000000000000010", &st));
    STAT(stat("base/1/1000", &st));
    SAY_OF("absolute", stat(absolute, &st));
    tell("%lld bytes\n", (long long)st.st_size);
    int fd = OPENED(open(absolute, O_RDONLY | O_CLOEXEC));
    BYTES(pread(fd, buf, 100, 0));
    SAY(close(fd));
    SAY(chdir("none"));
    SAY(chdir(".."));
    STAT(stat("base/1/1000", &st));
    SAY_OF("back", chdir(here));
}

static void memory(void *context) {
    (void)context;
    int fd = OPENED(open(WAL, O_RDWR | O_CLOEXEC));
    char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    tell("WAL %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    if (p != MAP_FAILED) {
        tell("%.3s\n", p);
        (void)munmap(p, 4096);
    }
    SAY(close(fd));
    p = mmap64(NULL, 4096, PROT_READ, MAP_SHARED, -1, 0);
    tell("nothing %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    tell("anonymous %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    if (p != MAP_FAILED) (void)munmap(p, 1 << 20);
    fd = OPENED(open(WHOLE, O_RDONLY | O_CLOEXEC));
    int copy = OPENED(dup(fd));
    BYTES(pread(copy, buf, 10, 0));
    SAY(close(copy));
    SAY(close(fd));
    SAY(dup(-1) < 0 ? -1 : 0);
}

static const struct {
    const char *name;
    void (*body)(void *context);
} cases[] = {{"spellings of opening", spellings_of_opening},
             {"streams", streams},
             {"reading and writing", reading_and_writing},
             {"lengths", lengths},
             {"copies between files", copies_between_files},
             {"durability and hints", durability_and_hints},
             {"looking at names", looking_at_names},
             {"making and removing", making_and_removing},
             {"other names", other_names},
             {"lists", lists},
             {"other directories", other_directories},
             {"memory", memory}};
enum { CASES = sizeof cases / sizeof cases[0] };

/* ---- where they are done ---- */

static const char *in_dir(const char *name) {
    static char paths[4][BOUGH_PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void copy_file(const char *from, const char *to) {
    static char data[1 << 20];
    int in = open(from, O_RDONLY | O_CLOEXEC),
        out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n = read(in, data, sizeof data);
    if (in < 0 || out < 0 || n < 0 || write(out, data, (size_t)n) != n)
        model_fail("could not copy %s to %s", from, to);
    close(in);
    close(out);
}

static void start_compute(void) {
    char pgdata[BOUGH_PATH_MAX];
    int fd;
    bough_error err = {0};
    model_must(bough_store_prepare(&shm, &fd, store, branch, &err), &err, "prepare");
    close(fd);
    bough_shm_set_postmaster(shm, model_postmaster());
    model_must(bough_store_pgdata(pgdata, store, branch, &err), &err, "path");
    if (chdir(pgdata) != 0) model_fail("could not go to %s", pgdata);
    if (model_inside_begin(0, shm->header) != 0) model_fail("the process could not begin");
}

static void stop_compute(void) {
    model_inside_end(0, true);
    if (chdir(home) != 0) abort();
    bough_shm_close(shm);
    shm = NULL;
}

/* A child of the first branch, and a compute on it. */
static void begin(void) {
    bough_error err = {0};
    bough_fork_result result;
    (void)snprintf(branch, sizeof branch, "b%u", ++branches);
    model_must(bough_store_fork(&result, store, "b0", branch, NULL, &err), &err, "fork");
    start_compute();
}

static void end(void) {
    bough_error err = {0};
    stop_compute();
    model_must(bough_store_delete(store, branch, &err), &err, "delete");
}

static int set_up(void **state) {
    (void)state;
    bough_error err = {0};
    bough_log_init(BOUGH_LOG_ERROR, false);
    (void)snprintf(dir, sizeof dir, "%s/bough-calls-%d",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp", (int)getpid());
    if (!getcwd(home, sizeof home) || mkdir(dir, 0700) != 0) return -1;
    model_must(bough_store_open(&store, in_dir("store"), &err), &err, "open");
    model_make_cluster(dir);
    copy_file(in_dir("cluster/" CONTROL), in_dir("control"));
    copy_file(in_dir("cluster/" WAL), in_dir("wal"));
    model_must(bough_store_adopt(store, "b0", in_dir("cluster"), &err), &err, "adopt");
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    bough_store_close(store);
    bough_ignore(bough_rmtree(dir, NULL));
    return 0;
}

/* The plain directory: what the first branch holds. */
static void begin_plain(void) {
    bough_error err = {0};
    model_must(bough_mkdirs(in_dir("plain"), 0700, &err), &err, "plain");
    model_must(bough_store_export(store, "b0", in_dir("plain"), NULL, NULL, &err), &err, "export");
    if (chdir(in_dir("plain")) != 0 || mkdir(TEMPORARY, 0700) != 0)
        model_fail("no plain directory");
}

static void end_plain(void) {
    bough_error err = {0};
    if (chdir(home) != 0) abort();
    model_must(bough_rmtree(in_dir("plain"), &err), &err, "remove");
}

/* Cases write to the control file and to WAL, without which nothing can be exported. */
static void put_back(void) {
    char path[BOUGH_PATH_MAX];
    bough_error err = {0};
    model_must(bough_store_pgdata(path, store, branch, &err), &err, "path");
    size_t n = strlen(path);
    (void)snprintf(path + n, sizeof path - n, "/bough.control");
    copy_file(in_dir("control"), path);
    (void)snprintf(path + n, sizeof path - n, "/" WAL);
    copy_file(in_dir("wal"), path);
}

/* What the compute shows is what is on the disk. */
static void compare(void *context) {
    char why[2048];
    bool *differs = context;
    *differs = model_compare(".", in_dir("export"), MODEL_ALL, why, sizeof why) != MODEL_SAME;
    if (*differs) (void)fprintf(stderr, "memory and disk: %s\n", why);
}

static void assert_memory_is_as_disk(void) {
    bough_error err = {0};
    bool differs = true;
    size_t files;
    put_back();
    model_must(bough_store_audit(&files, shm, &err), &err, "audit");
    model_must(bough_mkdirs(in_dir("export"), 0700, &err), &err, "export");
    model_must(bough_store_export(store, branch, in_dir("export"), NULL, NULL, &err), &err,
               "export");
    assert_true(model_inside_call(0, false, compare, &differs));
    model_must(bough_rmtree(in_dir("export"), &err), &err, "export");
    assert_false(differs);
}

static void both_sides_tell_the_same(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        told[0] = told[1] = 0;
        side = 0;
        begin();
        assert_true(model_inside_call(0, false, cases[i].body, NULL));
        end();
        side = 1;
        begin_plain();
        cases[i].body(NULL);
        end_plain();
        if (strcmp(story[0], story[1]) == 0) continue;
        size_t at = 0, line = 0;
        for (; story[0][at] == story[1][at]; at++)
            if (story[0][at] == '\n') line = at + 1;
        const char *compute = story[0] + line, *plain = story[1] + line;
        fail_msg("%s: a compute tells \"%.*s\", a plain directory \"%.*s\"", cases[i].name,
                 (int)strcspn(compute, "\n"), compute, (int)strcspn(plain, "\n"), plain);
    }
}

/* Every case, with its nth call refused, and the one after it, until none is left to refuse. */
static void fail_each(void (*arm)(long nth), bool (*has_fired)(void), int least) {
    int failures = 0;
    side = 0;
    for (int i = 0; i < CASES; i++) {
        bool fired = true;
        for (long nth = 1; fired; nth++) {
            told[0] = 0;
            begin();
            arm(nth);
            bool lives = model_inside_call(0, false, cases[i].body, NULL);
            fired = has_fired();
            assert_true(lives);
            assert_memory_is_as_disk();
            end();
            failures += fired;
        }
    }
    assert_true(failures >= least);
}

static void refuse_call(long nth) {
    static const int errors[] = {EIO, ENOSPC, EMFILE, EINTR};
    bough_fault_arm(FAULT_FAIL, nth, errors[nth % 4]);
}

static bool call_was_refused(void) {
    bool fired = bough_fault_fired();
    bough_fault_arm(FAULT_OFF, 0, 0);
    return fired;
}

static void refuse_memory(long nth) {
    allocations = nth;
}

static bool memory_was_refused(void) {
    bool fired = allocations == 0;
    allocations = 0;
    return fired;
}

static void a_call_that_fails_leaves_memory_and_disk_agreed(void **state) {
    (void)state;
    fail_each(refuse_call, call_was_refused, 300);
}

static void so_does_memory_that_runs_out(void **state) {
    (void)state;
    fail_each(refuse_memory, memory_was_refused, 100);
}

/* ---- where a branch says no, and a file system would not ---- */

static void refusals(void *context) {
    (void)context;
    int fd = open(PAGES, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(dup(fd), -1); /* the copy would read the wrong file */
    assert_int_equal(errno, EINVAL);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(errno, ENODEV);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100), -1);
    assert_int_equal(errno, EOPNOTSUPP);
    close(fd);
    assert_null(fopen(PAGES, "re"));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_null(fopen(PAGES, "r+e"));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_null(fopen("base/1/none/1", "r+e"));
    assert_int_equal(link(PAGES, "base/1/1009"), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(rename(PAGES, "pg_wal/pages"), -1);
    assert_int_equal(errno, EXDEV);
    assert_int_equal(rename("base/1", "base/2"), -1);
    assert_int_equal(errno, EXDEV);
    assert_int_equal(unlink("base/1"), -1);
    assert_int_equal(errno, EISDIR);
}

static void a_branch_refuses_what_it_cannot_do(void **state) {
    (void)state;
    begin();
    assert_true(model_inside_call(0, false, refusals, NULL));
    assert_memory_is_as_disk();
    end();
}

/* A file that nobody knows would be written past the gate, and on into a layer. */
static void opening_without_memory(void *context) {
    static const char *const paths[] = {PAGES, WHOLE, WAL, CONTROL};
    (void)context;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        allocations = 1;
        assert_int_equal(open(paths[i], O_RDWR | O_CLOEXEC), -1);
        assert_int_equal(errno, ENOMEM);
        assert_int_equal(allocations, 0);
        int fd = open(paths[i], O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        close(fd);
    }
}

static void a_file_is_known_or_not_open(void **state) {
    (void)state;
    begin();
    assert_true(model_inside_call(0, false, opening_without_memory, NULL));
    end();
}

/* ---- what others do while a call is under way ---- */

static void move_epoch(void) {
    atomic_fetch_add(&shm->header->epoch, 2);
}

static void sync_while_the_stack_changes(void *context) {
    (void)context;
    int fd = open(PAGES, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, buf, MODEL_PAGE, 0), MODEL_PAGE);
    bough_fault_meanwhile(move_epoch);
    bough_fault_arm(FAULT_FAIL, 1, EIO);
    errno = 0;
    assert_int_equal(fsync(fd), -1);
    assert_int_equal(errno, EIO);
    bough_fault_arm(FAULT_PASS, 1, 0); /* and where nothing fails, it is done again and succeeds */
    assert_int_equal(fsync(fd), 0);
    bough_fault_arm(FAULT_OFF, 0, 0);
    bough_fault_meanwhile(NULL);
    close(fd);
}

static void what_the_disk_refused_is_told_though_the_stack_has_changed(void **state) {
    (void)state;
    begin();
    model_inside_call(0, false, sync_while_the_stack_changes, NULL);
    end();
}

static void write_second_page(void *context) {
    (void)context;
    int fd = open(PAGES, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    memset(buf, 'n', MODEL_PAGE);
    assert_int_equal(pwrite(fd, buf, MODEL_PAGE, MODEL_PAGE), MODEL_PAGE);
    close(fd);
}

static void let_another_write(void) {
    bough_fault_arm(FAULT_OFF, 0, 0);
    model_inside_call(1, false, write_second_page, NULL);
}

static void make_two_pages(void *context) {
    (void)context;
    int fd = open(PAGES, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    memset(buf, 'o', sizeof buf);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, buf, (size_t)MODEL_PAGE * 2, 0), MODEL_PAGE * 2);
    close(fd);
}

/* The first page comes from a layer; then the head gets this file, and the second page. */
static void read_while_another_writes(void *context) {
    static char first[MODEL_PAGE], second[MODEL_PAGE * 2];
    struct iovec parts[] = {{first, sizeof first}, {second, sizeof second}};
    (void)context;
    int fd = open(PAGES, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    bough_fault_meanwhile(let_another_write);
    bough_fault_arm(FAULT_PASS, 2, 0); /* the first call opens the layer's file */
    assert_int_equal(preadv(fd, parts, 2, 0), MODEL_PAGE * 2);
    bough_fault_meanwhile(NULL);
    assert_int_equal(first[0], 'o');
    assert_int_equal(second[0], 'n');
    close(fd);
}

static void a_read_goes_on_when_another_gives_the_head_the_file(void **state) {
    bough_error err = {0};
    bough_fork_result result;
    (void)state;
    begin();
    model_inside_call(0, false, make_two_pages, NULL);
    model_must(bough_store_fork(&result, store, branch, "sealed", shm, &err), &err, "fork");
    assert_true(result.sealed);
    if (model_inside_begin(1, shm->header) != 0) model_fail("a second process could not begin");
    model_inside_call(0, false, read_while_another_writes, NULL);
    model_inside_end(1, true);
    end();
    model_must(bough_store_delete(store, "sealed", &err), &err, "delete");
}

static void read_of_a_layer(void *context) {
    (void)context;
    int fd = open(PAGES, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, buf, MODEL_PAGE, 0), MODEL_PAGE);
    assert_true(bough.level_fds > 0);
}

static void do_something_else(void *context) {
    (void)context;
    write_file("base/1/1001", "other");
    assert_int_equal(bough.level_fds, 0);
}

static void no_layer_of_a_former_stack_is_kept_open(void **state) {
    bough_error err = {0};
    (void)state;
    begin();
    model_inside_call(0, false, read_of_a_layer, NULL);
    if (model_inside_begin(1, shm->header) != 0) model_fail("a second process could not begin");
    model_inside_call(1, false, make_two_pages, NULL);
    model_must(bough_store_fork(NULL, store, branch, "sealed", shm, &err), &err, "fork");
    model_inside_call(0, false, do_something_else, NULL);
    model_inside_end(1, true);
    end();
    model_must(bough_store_delete(store, "sealed", &err), &err, "delete");
}

static void write_prepared(void *context) {
    (void)context;
    write_file("pg_twophase/0000000A", "mine");
}

/* A branch has links to its parent's states of prepared transactions. */
static void a_prepared_transaction_is_not_written_into_what_others_share(void **state) {
    char path[BOUGH_PATH_MAX], text[32] = "";
    (void)state;
    begin();
    (void)snprintf(path, sizeof path, "%s/theirs", dir);
    FILE *f = fopen("pg_twophase/0000000A", "we");
    assert_non_null(f);
    (void)fputs("theirs", f);
    (void)fclose(f);
    assert_int_equal(link("pg_twophase/0000000A", path), 0);
    model_inside_call(0, false, write_prepared, NULL);
    f = fopen(path, "re");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    (void)fclose(f);
    assert_string_equal(text, "theirs");
    unlink(path);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_tell_the_same),
        cmocka_unit_test(a_call_that_fails_leaves_memory_and_disk_agreed),
        cmocka_unit_test(so_does_memory_that_runs_out),
        cmocka_unit_test(a_branch_refuses_what_it_cannot_do),
        cmocka_unit_test(a_file_is_known_or_not_open),
        cmocka_unit_test(what_the_disk_refused_is_told_though_the_stack_has_changed),
        cmocka_unit_test(a_read_goes_on_when_another_gives_the_head_the_file),
        cmocka_unit_test(no_layer_of_a_former_stack_is_kept_open),
        cmocka_unit_test(a_prepared_transaction_is_not_written_into_what_others_share),
    };
    return cmocka_run_group_tests(tests, set_up, clean_up);
}
