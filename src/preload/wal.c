/*
 * Real files of PGDATA: opening them for writing, and WAL segments.
 *
 * Branches share segments by hard link. PostgreSQL recycles a segment by renaming it and writing
 * over it; one that has other links must not be written over.
 *
 * PostgreSQL fills a new segment with 16 MiB of zeros, so that commits need not allocate blocks. A
 * branch that writes little should not own 16 MiB: a new segment is a hole, and whoever writes to
 * it (under PostgreSQL's WALWriteLock) writes zeros some way ahead. Every few hundred commits then
 * allocate, together.
 *
 * WAL before the redo point of a durable checkpoint serves nobody on a branch that nobody follows.
 * PostgreSQL keeps it until its segment is full, and then keeps the segment's blocks for the next
 * ones. For a branch that writes much that is right. A quiet one gives them back at each
 * checkpoint, or a small change would cost its pages twice: in the WAL and in the head.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "preload/lib.h"

/* How far ahead blocks are given. A branch that goes on writing gets more at a time, since each
 * time costs a commit of the file system's journal: after so many times twice as much, up to the
 * most. */
#define FILL_LEAST ((off_t)256 * 1024)
#define FILL_MOST ((off_t)1024 * 1024)
#define FILLS_PER_STEP 8

/* A branch is quiet if less WAL than this lies between its last two checkpoints: below it, giving
 * blocks back and allocating them again is cheap beside the checkpoint itself. */
#define QUIET_BYTES (UINT64_C(16) << 20)

/* Where pg_control has what a checkpoint says (PostgreSQL 13 to 18, catalog/pg_control.h). */
#define CONTROL_REDO_AT 40
#define CONTROL_TLI_AT 48
#define WAL_PAGE 8192

/* Of this process, which is the checkpointer if it ever makes a checkpoint. */
static uint64_t last_redo;
static bool is_quiet;

static const char zeros[65536];

static const char *wal_name(const char *key) {
    return strncmp(key, "pg_wal/", 7) == 0 ? key + 7 : "";
}

int bough_open_real(bough_path_class class, const char *path, const char *key, int flags,
                    mode_t mode) {
    char real[2048];
    if (class == BOUGH_PATH_MOVED) {
        bough_head_path(real, sizeof real, key);
        path = real;
        if (strcmp(key, BOUGH_TMP_NAME) != 0 &&
            strncmp(key, BOUGH_TMP_NAME "/", sizeof BOUGH_TMP_NAME) == 0)
            return sys_open(path, flags, mode); /* temporary files are never sealed */
    }
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC))) {
        unsigned t, l, s;
        bool is_segment = bough_parse_wal_name(wal_name(key), &t, &l, &s);
        if (is_segment) bough_memory_take();
        int fd = sys_open(path, flags, mode);
        if (fd < 0 || !is_segment) return fd;
        bough_file *f = bough_file_new(BOUGH_FILE_GATED, fd, flags, key);
        if (f) f->reads_wal = true;
        return f ? fd : -1;
    }
    if (bough_enter() != 0) return -1;
    /* children and restore points have links to the states of prepared transactions: recovery
     * writes its own anew, not theirs */
    struct stat linked;
    if ((flags & O_TRUNC) && strncmp(key, "pg_twophase/", 12) == 0 &&
        sys_stat(path, &linked, AT_SYMLINK_NOFOLLOW) == 0 && linked.st_nlink > 1)
        (void)sys_unlink(path);
    int fd = sys_open(path, flags, mode);
    bough_file *f = fd < 0 ? NULL : bough_file_new(BOUGH_FILE_GATED, fd, flags, key);
    if (f) {
        unsigned tli, log, seg;
        if (bough_parse_wal_name(wal_name(key), &tli, &log, &seg)) {
            struct stat st;
            /* a segment has its full size from the start; postgres made it or renamed it into place
             */
            if (sys_fstat(fd, &st) == 0 && st.st_size >= 1 << 20) {
                f->is_wal = true;
                f->wal_tli = tli;
                f->wal_start = ((uint64_t)log << 32) + (uint64_t)seg * (uint64_t)st.st_size;
            }
        }
        f->is_new_wal = strncmp(wal_name(key), "xlogtemp", 8) == 0;
        f->is_control = strcmp(key, BOUGH_CONTROL_NAME) == 0;
        f->is_pidfile = strcmp(key, "postmaster.pid") == 0;
    }
    bough_leave();
    return f ? fd : -1;
}

/* Whether it is recovery that reads: of a standby, which asks again or elsewhere, it is not. */
static bool is_recovering(void) {
    static const char lead[] = "postgres: ";
    return bough.title && strncmp(bough.title, lead, sizeof lead - 1) == 0 &&
           strstr(bough.title, "startup") && sys_access("standby.signal", F_OK) != 0;
}

/* As postgres would say it. */
_Noreturn static void end_recovery(const bough_file *f, int error) {
    char text[512];
    int n =
        snprintf(text, sizeof text,
                 "FATAL:  could not read WAL segment \"%s\": %s\n"
                 "HINT:  Recovery cannot go on without it. Nothing is lost: start again when it "
                 "can be read.\n",
                 f->path, strerror(error));
    (void)!sys_write(STDERR_FILENO, text, (size_t)n);
    _exit(1);
}

ssize_t bough_wal_read(const bough_file *f, void *buf, size_t n, off_t at) {
    size_t done = 0;
    while (done < n) {
        ssize_t got = sys_pread(f->fd, (char *)buf + done, n - done, at + (off_t)done);
        if (got < 0) {
            int error = errno;
            if (is_recovering()) end_recovery(f, error);
            errno = error;
            return -1;
        }
        if (got == 0) break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* PostgreSQL's own recovery to a moment ends so, too ("recovery ended before configured recovery
 * target was reached"). The first WAL that is written begins with the page in which recovery ended.
 */
void bough_wal_check_end(const bough_file *f, off_t at) {
    static const char text[] =
        "FATAL:  recovery ended before the moment of this branch was reached\n"
        "HINT:  WAL of the history that it was made of is damaged or cut off.\n";
    uint64_t end = atomic_load(&bough.shm->replay_end);
    if (end == 0 || f->wal_start + (uint64_t)at >= (end & ~(uint64_t)(WAL_PAGE - 1))) return;
    (void)!sys_write(STDERR_FILENO, text, sizeof text - 1);
    int32_t postmaster = atomic_load(&bough.shm->postmaster);
    if (postmaster > 0) (void)kill(postmaster, SIGQUIT); /* or it would begin again */
    _exit(1);
}

static bool is_zero(const char *data, size_t n) {
    while (n >= sizeof zeros) {
        if (memcmp(data, zeros, sizeof zeros) != 0) return false;
        data += sizeof zeros;
        n -= sizeof zeros;
    }
    return memcmp(data, zeros, n) == 0;
}

bool bough_wal_skip_zeros(const bough_file *f, const struct iovec *iov, int n, off_t at) {
    struct stat st;
    off_t end = at;
    if (!f->is_new_wal) return false;
    for (int i = 0; i < n; i++) {
        if (!is_zero(iov[i].iov_base, iov[i].iov_len)) return false;
        end += (off_t)iov[i].iov_len;
    }
    /* what lies within the file may hold something else */
    return sys_fstat(f->fd, &st) == 0 && at >= st.st_size && sys_ftruncate(f->fd, end) == 0;
}

/* Zeros from the first hole after `end` on. A failure does not matter: the write that gets there
 * will report it. */
static void fill_ahead(bough_file *f, off_t end) {
    off_t size = (off_t)sys_size(f->fd), position = sys_lseek(f->fd, 0, SEEK_CUR);
    off_t hole = sys_lseek(f->fd, end, SEEK_HOLE);
    f->wal_filled = hole < 0 ? size : hole;
    off_t ahead = FILL_LEAST;
    for (uint32_t n = atomic_load(&bough.shm->wal_fills); n >= FILLS_PER_STEP && ahead < FILL_MOST;
         n -= FILLS_PER_STEP)
        ahead *= 2;
    if (hole >= 0 && hole < size && hole < end + ahead) {
        atomic_fetch_add(&bough.shm->wal_fills, 1);
        off_t data = sys_lseek(f->fd, hole, SEEK_DATA), to = hole + ahead;
        if (data >= 0 && data < to) to = data;
        if (to > size) to = size;
        for (off_t at = hole; at < to;) {
            size_t bytes = (size_t)(to - at) < sizeof zeros ? (size_t)(to - at) : sizeof zeros;
            ssize_t put = sys_pwrite(f->fd, zeros, bytes, at);
            if (put <= 0) break;
            at += put;
            f->wal_filled = at;
        }
    }
    (void)sys_lseek(f->fd, position, SEEK_SET);
}

void bough_wal_written(bough_file *f, off_t at, ssize_t put) {
    if (!f->is_wal || put <= 0) return;
    off_t end = at + put;
    if (end > f->wal_filled) {
        int saved = errno;
        fill_ahead(f, end);
        errno = saved;
    }
    atomic_store(&bough.shm->wal_tli, f->wal_tli);
    atomic_store(&bough.shm->wal_end, f->wal_start + (uint64_t)end);
}

/*
 * A segment is about to leave pg_wal, by rename or unlink: the branch's history gets it first, by
 * link. Where that fails the history has a gap, which boughd reports; the branch goes on.
 */
static void remember(const char *path, const char *name) {
    char kept[2048];
    unsigned tli, log, seg;
    if (!atomic_load(&bough.shm->keeps_history) || !bough_parse_wal_name(name, &tli, &log, &seg))
        return;
    bough_head_path(kept, sizeof kept, BOUGH_HISTORY_DIR "/");
    size_t n = strlen(kept);
    (void)snprintf(kept + n, sizeof kept - n, "%s", name);
    bool is_new = sys_link(path, kept) == 0;
    if (!is_new && errno != EEXIST && errno != ENOENT)
        atomic_fetch_add(&bough.shm->history_lost, 1);
    kept[n] = '\0';
    int fd = is_new ? sys_open(kept, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0) : -1;
    if (fd < 0) return;
    (void)sys_fsync(fd); /* a failure shows at the branch's own next fsync */
    sys_close(fd);
}

int bough_unlink_real(const char *path, const char *key) {
    remember(path, wal_name(key));
    if (bough_enter() != 0) return -1;
    int rc = sys_unlink(path);
    bough_leave();
    return rc;
}

static bool has_mark(const char *name) {
    char path[2048];
    bough_head_path(path, sizeof path, name);
    return sys_access(path, F_OK) == 0 || errno != ENOENT;
}

/* Whether WAL is still needed whatever checkpoints say: all since the branch was made
 * (bough_store_sync()), or what standbys have not received yet (bough_store_set_followed()). */
static bool must_keep_wal(void) {
    return has_mark("../pending") || has_mark("../" BOUGH_FOLLOWED_FILE);
}

/* Give back what lies before `redo` in its segment, but for the first page, whose header is looked
 * at when the segment is read. Inside the gate: a fork that shares the segment has linked it. */
static void give_back(uint32_t tli, uint64_t redo) {
    char path[2048], name[64];
    struct stat st;
    bough_head_path(path, sizeof path, "pg_wal");
    size_t length = strlen(path);
    /* segments are of one size, so the name can be tried with each that is possible */
    for (uint64_t bytes = UINT64_C(1) << 20; bytes <= UINT64_C(1) << 30; bytes <<= 1) {
        uint64_t number = redo / bytes, per_log = (UINT64_C(1) << 32) / bytes;
        (void)snprintf(name, sizeof name, "/%08X%08X%08X", tli, (unsigned)(number / per_log),
                       (unsigned)(number % per_log));
        (void)snprintf(path + length, sizeof path - length, "%s", name);
        if (sys_stat(path, &st, AT_SYMLINK_NOFOLLOW) != 0 || (uint64_t)st.st_size != bytes)
            continue;
        off_t end = (off_t)(redo % bytes) & ~(off_t)(WAL_PAGE - 1);
        int fd = st.st_nlink == 1 && end > WAL_PAGE ? sys_open(path, O_WRONLY | O_CLOEXEC, 0) : -1;
        if (fd < 0) return;
        (void)sys_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, WAL_PAGE,
                            end - WAL_PAGE);
        sys_close(fd);
        return;
    }
}

static bool read_control(uint64_t *redo, uint32_t *tli, int fd) {
    unsigned char data[CONTROL_TLI_AT + sizeof *tli];
    if (sys_pread(fd, data, sizeof data, 0) != (ssize_t)sizeof data) return false;
    memcpy(redo, data + CONTROL_REDO_AT, sizeof *redo);
    memcpy(tli, data + CONTROL_TLI_AT, sizeof *tli);
    return true;
}

void bough_wal_begin(void) {
    char path[2048];
    uint32_t tli;
    bough_head_path(path, sizeof path, BOUGH_CONTROL_NAME);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0 || !read_control(&last_redo, &tli, fd)) last_redo = 0;
    if (fd >= 0) sys_close(fd);
    atomic_store(&bough.shm->redo, last_redo);
}

void bough_wal_checkpointed(const bough_file *control) {
    uint64_t redo;
    uint32_t tli;
    int saved = errno;
    if (read_control(&redo, &tli, control->fd) && redo != last_redo) {
        is_quiet = redo - last_redo < QUIET_BYTES && !atomic_load(&bough.shm->keeps_history) &&
                   !must_keep_wal();
        last_redo = redo;
        atomic_store(&bough.shm->redo, redo);
        if (is_quiet) atomic_store(&bough.shm->wal_fills, 0);
        if (is_quiet && bough_enter() == 0) {
            give_back(tli, redo);
            bough_leave();
        }
    }
    errno = saved;
}

/* An empty segment beside `to`, durable, ready to be renamed into place. */
static int fresh_segment(char *temp, size_t size, off_t bytes) {
    (void)snprintf(temp, size, "%s/pg_wal/xlogtemp" BOUGH_TEMP_MARK "%d", bough.shm->pgdata,
                   bough_table_pid());
    sys_unlink(temp);
    int fd = sys_open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    int rc = sys_ftruncate(fd, bytes);
    if (rc == 0) rc = sys_fsync(fd);
    int saved = errno;
    sys_close(fd);
    if (rc != 0) sys_unlink(temp);
    errno = saved;
    return rc;
}

int bough_move_real(const char *from, const char *to, const char *from_key, const char *to_key,
                    bool link_only) {
    unsigned t, l, s;
    struct stat st;
    char temp[2048];
    if (bough_parse_wal_name(wal_name(to_key), &t, &l, &s)) remember(from, wal_name(from_key));
    bool fresh = bough_parse_wal_name(wal_name(from_key), &t, &l, &s) &&
                 bough_parse_wal_name(wal_name(to_key), &t, &l, &s) &&
                 sys_stat(from, &st, 0) == 0 && (st.st_nlink > 1 || is_quiet);
    if (fresh && fresh_segment(temp, sizeof temp, st.st_size) != 0) return -1;
    if (bough_enter() != 0) return -1;
    int rc;
    if (fresh) {
        rc = link_only ? sys_rename(temp, to, RENAME_NOREPLACE) : sys_rename(temp, to, 0);
        int saved = errno;
        if (rc != 0) sys_unlink(temp);
        if (rc == 0 && !link_only) sys_unlink(from);
        errno = saved;
    } else {
        rc = link_only ? sys_link(from, to) : sys_rename(from, to, 0);
    }
    bough_leave();
    return rc;
}

static int sync_dir(const char *name) {
    char path[2048], file[2048 + 256];
    bough_head_path(path, sizeof path, name);
    DIR *dir = real_opendir(path);
    if (!dir) return errno == ENOENT ? 0 : -1;
    int rc = 0;
    struct dirent *d;
    while (rc == 0 && (d = real_readdir(dir)) != NULL) {
        if (d->d_type != DT_REG) continue;
        (void)snprintf(file, sizeof file, "%s/%s", path, d->d_name);
        int fd = sys_open(file, O_RDONLY | O_CLOEXEC, 0);
        if (fd < 0 && errno == ENOENT) continue; /* gone meanwhile */
        rc = fd < 0 ? -1 : sys_fsync(fd);
        int saved = errno;
        if (fd >= 0) sys_close(fd);
        errno = saved;
    }
    int saved = errno;
    real_closedir(dir);
    errno = saved;
    if (rc != 0) return rc;
    int fd = sys_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return errno == ENOENT ? 0 : -1;
    rc = sys_fsync(fd);
    saved = errno;
    sys_close(fd);
    errno = saved;
    return rc;
}

/*
 * In place of syncfs(), which would wait for every write of every neighbour: make this branch
 * durable, and the layers sealed from it that may not be. The layers it got from its parent are
 * boughd's business.
 */
int bough_sync_all(void) {
    static const char *const real_dirs[] = {
        "pg_wal",  "pg_twophase",          "pg_logical",           "global",       "base",
        "pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_commit_ts", "."};
    if (bough_view_refresh(&bough.view) != 0) return -1;
    for (unsigned i = 0; i < bough.view.depth; i++)
        if (atomic_load(&bough.view.layers[i]->item->needs_sync)) {
            int fd = sys_open(bough.shm->pgdata, O_RDONLY | O_CLOEXEC, 0);
            int rc = fd < 0 ? -1 : (int)syscall(SYS_syncfs, fd);
            if (fd >= 0) sys_close(fd);
            return rc;
        }
    for (size_t i = 0; i < sizeof real_dirs / sizeof real_dirs[0]; i++)
        if (sync_dir(real_dirs[i]) != 0) return -1;
    char path[2048];
    bough_head_path(path, sizeof path, "base");
    DIR *dir = real_opendir(path);
    if (!dir) return -1;
    struct dirent *d;
    int rc = 0;
    while (rc == 0 && (d = real_readdir(dir)) != NULL) {
        char name[300];
        if (d->d_type != DT_DIR || d->d_name[0] == '.') continue;
        (void)snprintf(name, sizeof name, "base/%s", d->d_name);
        rc = sync_dir(name);
    }
    real_closedir(dir);
    return rc;
}
