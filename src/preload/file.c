/*
 * Pages of an open file. A write goes to the head's own sparse file at the same offset; a read of a
 * block the head lacks is answered by the newest level that has it. Nothing is ever copied where
 * writes are whole blocks.
 *
 * The descriptor postgres holds is the head's file once there is one, else the newest level's file,
 * opened read-only: a stand-in that gives the number. Reads are not gated: they check that the
 * epoch did not move.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "preload/lib.h"

enum { OWNER_HEAD = -1, OWNER_ZERO = -2 };

/* Beside -1: another process has given the head this file meanwhile, so look again. */
enum { LOOK_AGAIN = -2 };

bough_file *bough_file_new(bough_file_kind kind, int fd, int flags, const char *path) {
    bough_file *f = fd < BOUGH_MAX_FDS ? calloc(1, sizeof *f) : NULL;
    if (!f) {
        sys_close(fd);
        errno = fd < BOUGH_MAX_FDS ? ENOMEM : EMFILE;
        return NULL;
    }
    f->kind = kind;
    f->fd = fd;
    f->flags = flags;
    size_t n = strlen(path);
    memcpy(f->path, path, n < sizeof f->path ? n : sizeof f->path - 1);
    bough.files[fd] = f;
    if (fd >= bough.files_end) bough.files_end = fd + 1;
    return f;
}

static void close_levels(bough_file *f) {
    for (unsigned i = 0; i < f->n_levels; i++)
        if (f->levels[i].fd >= 0) {
            sys_close(f->levels[i].fd);
            f->levels[i].fd = -1;
            bough.level_fds--;
        }
}

/* Levels are read without the gate, so what they point at stays as long as they do. */
static void hold_levels(const bough_file *f) {
    for (unsigned i = 0; i < f->n_levels; i++) {
        f->levels[i].layer->uses++;
        if (f->levels[i].entry) bough_entry_hold(f->levels[i].entry);
    }
}

static void drop_levels(bough_file *f) {
    close_levels(f);
    for (unsigned i = 0; i < f->n_levels; i++) {
        f->levels[i].layer->uses--;
        if (f->levels[i].entry) bough_entry_put(bough.shm, f->levels[i].entry);
    }
    free(f->levels);
    f->levels = NULL;
    f->n_levels = 0;
}

void bough_file_forked(const bough_file *f) {
    if (f->entry) bough_entry_hold(f->entry);
    for (unsigned i = 0; i < f->n_levels; i++)
        if (f->levels[i].entry) bough_entry_hold(f->levels[i].entry);
}

void bough_file_free(bough_file *f) {
    drop_levels(f);
    if (f->entry) bough_entry_put(bough.shm, f->entry);
    bough.files[f->fd] = NULL;
    free(f);
}

/* Levels of a file may be many: keep their descriptors within what postgres leaves us. */
static void shed_levels(const bough_file *keep) {
    for (int fd = 0; fd < bough.files_end; fd++) {
        bough_file *f = bough.files[fd];
        if (f && f != keep) close_levels(f);
    }
}

void bough_levels_shed(void) {
    shed_levels(NULL);
}

void bough_levels_outdated(void) {
    for (int fd = 0; fd < bough.files_end; fd++) {
        bough_file *f = bough.files[fd];
        /* of what is unlinked, they may be all that there is */
        if (f && f->n_levels && f->epoch != bough.view.epoch &&
            atomic_load(&f->entry->state) != BOUGH_ENTRY_GONE)
            close_levels(f);
    }
}

static int level_fd(bough_file *f, unsigned i) {
    bough_level *level = &f->levels[i];
    if (level->fd >= 0) return level->fd;
    if (bough.level_fds >= bough.level_fds_max) shed_levels(f);
    char path[2048];
    bough_view_layer_path(path, sizeof path, &bough.view, level->layer, f->path);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
        shed_levels(f);
        fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    }
    if (fd >= 0) {
        level->fd = fd;
        bough.level_fds++;
    }
    return fd;
}

/* Put another file behind the number that postgres holds. `with` is closed. */
static int replace_fd(bough_file *f, int with) {
    int rc = sys_dup3(with, f->fd, f->flags & O_CLOEXEC);
    int saved = errno;
    sys_close(with);
    errno = saved;
    return rc < 0 ? -1 : 0;
}

/* Fill in entry and levels for the present epoch. Inside the gate. */
static int resolve(bough_file *f) {
    static bough_level scratch[BOUGH_MAX_DEPTH];
    unsigned n = 0;
    (void)bough_view_below(&bough.view, f->path, scratch, BOUGH_MAX_DEPTH, &n);
    bough_level *levels = NULL;
    if (n) {
        levels = malloc(n * sizeof *levels);
        if (!levels) return -1;
        memcpy(levels, scratch, n * sizeof *levels);
    }
    bough_entry *entry =
        bough_entry_get(bough.shm, f->path, strlen(f->path), n ? scratch[0].size : 0);
    if (!entry) {
        free(levels);
        return -1;
    }
    drop_levels(f);
    if (f->entry) bough_entry_put(bough.shm, f->entry);
    f->levels = levels;
    f->n_levels = n;
    f->entry = entry;
    hold_levels(f);
    f->fd_is_head = false;
    f->epoch = bough.view.epoch;
    return 0;
}

/* Make the descriptor the head's file, which exists. Inside the gate. */
static int adopt_head(bough_file *f) {
    char path[2048];
    bough_head_path(path, sizeof path, f->path);
    int fd = sys_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0 || replace_fd(f, fd) != 0) return -1;
    f->fd_is_head = true;
    return 0;
}

/* Bring a file opened in an older epoch up to date. Inside the gate. */
static int catch_up(bough_file *f) {
    if (f->epoch == bough.view.epoch) return 0;
    if (atomic_load(&f->entry->state) == BOUGH_ENTRY_GONE) { /* unlinked: it stays what it was */
        f->epoch = bough.view.epoch;
        return 0;
    }
    if (resolve(f) != 0) return -1;
    if (atomic_load(&f->entry->state) == BOUGH_ENTRY_HEAD) return adopt_head(f);
    return 0;
}

/* The same for a call that changes the file. */
static int begin_change(bough_file *f) {
    if (catch_up(f) != 0) return -1;
    if (atomic_load(&f->entry->state) != BOUGH_ENTRY_GONE) bough_changing(f->entry, NULL);
    return 0;
}

static int refresh(bough_file *f) {
    if (bough_enter() != 0) return -1;
    int rc = catch_up(f);
    if (rc == 0 && !f->fd_is_head && atomic_load(&f->entry->state) == BOUGH_ENTRY_HEAD)
        rc = adopt_head(f);
    bough_leave();
    return rc;
}

/* ---- the head's file --------------------------------------------------------------------------
 */

int bough_temp_path(char *out, size_t size, const char *key) {
    int n = snprintf(out, size, "%s/%s" BOUGH_TEMP_MARK "%d", bough.shm->pgdata, key,
                     bough_table_pid());
    if (n < 0 || (size_t)n >= size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return 0;
}

/* The head has directories only where it has files: make the one this path needs, where a level
 * shows it. */
int bough_make_parent(const char *key) {
    char path[2048], parent[BOUGH_LAYERED_PATH_MAX];
    const char *slash = strrchr(key, '/');
    bough_found found;
    if (!slash) return 0;
    (void)snprintf(parent, sizeof parent, "%.*s", (int)(slash - key), key);
    bough_find(&found, parent);
    if (!found.exists) {
        errno = ENOENT;
        return -1;
    }
    int n = snprintf(path, sizeof path, "%s/%.*s", bough.shm->pgdata, (int)(slash - key), key);
    if (n < 0 || (size_t)n >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return sys_mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -1;
}

/* Keep the limit with the file, before what it protects from. */
static int store_limit(int fd, uint64_t limit) {
    char text[24];
    int n = snprintf(text, sizeof text, "%llu", (unsigned long long)limit);
    return fsetxattr(fd, BOUGH_XATTR_LIMIT, text, (size_t)n, 0);
}

/*
 * Make the head's file: under a temporary name until its size (and limit) are right, so that a
 * crash never leaves one that hides the levels below. `hidden`: nothing below shows through.
 */
static int make_head(const char *key, uint64_t size, bool hidden, mode_t mode) {
    char temp[2048], path[2048];
    if (bough_temp_path(temp, sizeof temp, key) != 0) return -1;
    bough_head_path(path, sizeof path, key);
    int fd = sys_open(temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0 && errno == ENOENT && bough_make_parent(key) == 0)
        fd = sys_open(temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) return -1;
    if ((size && sys_ftruncate(fd, (off_t)size) != 0) || (hidden && store_limit(fd, 0) != 0) ||
        sys_rename(temp, path, 0) != 0) {
        int saved = errno;
        sys_unlink(temp);
        sys_close(fd);
        errno = saved;
        return -1;
    }
    atomic_fetch_add(&bough.shm->changes, 1);
    return fd;
}

/* Before the first write: see that the head has this file and the descriptor is it. Inside the
 * gate. */
static int ensure_head(bough_file *f) {
    if (f->fd_is_head) return 0;
    bough_entry *e = f->entry;
    int rc = 0;
    bough_lock(&e->lock);
    uint32_t state = atomic_load(&e->state);
    if (state == BOUGH_ENTRY_GONE) {
        errno = EIO; /* unlinked by another process before this one ever wrote */
        rc = -1;
    } else if (state == BOUGH_ENTRY_LOWER) {
        int fd = make_head(f->path, atomic_load(&e->size), false, 0600);
        if (fd >= 0) { /* it is there, whether we get to use it or not */
            atomic_fetch_or(&e->flags, BOUGH_FLAG_NEW_NAME);
            atomic_store(&e->state, BOUGH_ENTRY_HEAD);
        }
        rc = fd < 0 ? -1 : replace_fd(f, fd);
        f->fd_is_head = rc == 0;
    }
    bough_unlock(&e->lock);
    if (rc == 0 && !f->fd_is_head) rc = adopt_head(f);
    return rc;
}

/* Enter a file that was just made. Inside the gate. */
static int enter_made(const char *key) {
    bough_entry *e = bough_entry_make(bough.shm, key, strlen(key), 0, BOUGH_FLAG_NEW_NAME, -1);
    if (e) bough_entry_put(bough.shm, e);
    return e ? 0 : -1;
}

int bough_open_pages(const char *key, int flags, mode_t mode) {
    bough_found found;
    if (bough_enter() != 0) return -1;
    bough_find(&found, key);
    int fd = -1;
    bool made = false, is_locked = !found.exists && (flags & O_CREAT);
    if (is_locked) { /* of processes that make it at once, one does */
        bough_name_lock(key);
        bough_find(&found, key);
    }
    if (!found.exists) {
        if (!(flags & O_CREAT)) {
            errno = ENOENT;
            goto out;
        }
        bool hidden = found.entry && (atomic_load(&found.entry->flags) & BOUGH_FLAG_WHITEOUT);
        bough_entry *path = bough_entry_get(bough.shm, key, strlen(key), 0);
        if (!path) goto out;
        bough_changing(path, NULL);
        fd = make_head(key, 0, hidden, mode);
        if (fd >= 0 && enter_made(key) != 0) {
            sys_close(fd);
            fd = -1;
        }
        bough_entry_put(bough.shm, path); /* named until the new entry tells what there is */
        made = fd >= 0;
    } else if ((flags & O_CREAT) && (flags & O_EXCL)) {
        errno = EEXIST;
        goto out;
    } else if (found.state == BOUGH_ENTRY_HEAD) {
        char path[2048];
        bough_head_path(path, sizeof path, key);
        fd = sys_open(path, O_RDWR | O_NOFOLLOW | (flags & (O_CLOEXEC | O_DIRECTORY)), 0);
    } else {
        char path[2048];
        bough_view_layer_path(path, sizeof path, &bough.view, found.top.layer, key);
        fd = sys_open(path, O_RDONLY | (flags & (O_CLOEXEC | O_DIRECTORY)), 0);
    }
    if (fd < 0) goto out;
    if (made && !(flags & O_CLOEXEC)) fcntl(fd, F_SETFD, 0);
    bough_file *f = bough_file_new(BOUGH_FILE_PAGES, fd, flags, key);
    if (!f || resolve(f) != 0) {
        int saved = errno;
        if (f) {
            bough_file_free(f);
            sys_close(fd);
        }
        errno = saved;
        fd = -1;
        goto out;
    }
    f->fd_is_head = made || found.state == BOUGH_ENTRY_HEAD;
out:
    if (is_locked) bough_name_unlock(key);
    bough_leave();
    if (fd >= 0 && (flags & O_TRUNC) && !made && bough_pages_truncate(bough.files[fd], 0) != 0) {
        int saved = errno;
        bough_file_free(bough.files[fd]);
        sys_close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Which level answers for a block. */
static int owner_of(const bough_file *f, uint64_t block) {
    const bough_entry *e = f->entry;
    uint64_t at = block << BOUGH_BLOCK_SHIFT;
    if (atomic_load_explicit(&e->state, memory_order_acquire) != BOUGH_ENTRY_LOWER) {
        if (bough_entry_has(bough.shm, e, block)) return OWNER_HEAD;
        if (at >= atomic_load(&e->limit)) return OWNER_ZERO;
    }
    for (unsigned i = 0; i < f->n_levels; i++) {
        const bough_level *level = &f->levels[i];
        if (at >= level->size) return OWNER_ZERO;
        if (bough_level_has(bough.shm, level, block)) return (int)i;
        if (at >= level->limit) return OWNER_ZERO;
    }
    return OWNER_ZERO;
}

/* Read a run that one level owns. Past that level's end there are zeros. 0, -1, or LOOK_AGAIN. */
static int read_run(bough_file *f, int owner, char *buf, size_t bytes, off_t at) {
    if (owner == OWNER_ZERO) {
        memset(buf, 0, bytes);
        return 0;
    }
    int fd = owner == OWNER_HEAD ? f->fd : level_fd(f, (unsigned)owner);
    if (owner == OWNER_HEAD && !f->fd_is_head) {
        errno = EIO; /* where it is unlinked, and another process had written it */
        return atomic_load(&f->entry->state) == BOUGH_ENTRY_HEAD ? LOOK_AGAIN : -1;
    }
    if (fd < 0) {
        /* unlinked, and its layer has been merged since: nobody has a name for it any more */
        if (errno == ENOENT && atomic_load(&f->entry->state) == BOUGH_ENTRY_GONE) errno = EIO;
        return -1;
    }
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = sys_pread(fd, buf + done, bytes - done, at + (off_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) {
            memset(buf + done, 0, bytes - done);
            break;
        }
        done += (size_t)n;
    }
    return 0;
}

/* Bytes from `at` on that the owner of the first block owns too, at most `bytes`. */
static size_t run_length(const bough_file *f, int owner, off_t at, size_t bytes) {
    uint64_t block = (uint64_t)at >> BOUGH_BLOCK_SHIFT;
    uint64_t last = ((uint64_t)at + bytes - 1) >> BOUGH_BLOCK_SHIFT;
    while (block < last && owner_of(f, block + 1) == owner) block++;
    size_t run = (size_t)(((block + 1) << BOUGH_BLOCK_SHIFT) - (uint64_t)at);
    return run < bytes ? run : bytes;
}

/* Fill `bytes` that all lie before the end of the file. 0, -1, or LOOK_AGAIN. */
static int read_span(bough_file *f, char *buf, size_t bytes, off_t at) {
    while (bytes) {
        int owner = owner_of(f, (uint64_t)at >> BOUGH_BLOCK_SHIFT);
        size_t run = run_length(f, owner, at, bytes);
        int rc = read_run(f, owner, buf, run, at);
        if (rc != 0) return rc;
        buf += run;
        at += (off_t)run;
        bytes -= run;
    }
    return 0;
}

static size_t iov_bytes(const struct iovec *iov, int n) {
    size_t total = 0;
    for (int i = 0; i < n; i++) total += iov[i].iov_len;
    return total;
}

/* One attempt at the present epoch. Bytes, -1, or LOOK_AGAIN. */
static ssize_t read_once(bough_file *f, const struct iovec *iov, int n, off_t at) {
    if (!f->fd_is_head && atomic_load(&f->entry->state) == BOUGH_ENTRY_HEAD && refresh(f) != 0)
        return -1;
    uint64_t size = atomic_load(&f->entry->size);
    if (at < 0) {
        errno = EINVAL;
        return -1;
    }
    if ((uint64_t)at >= size) return 0;
    size_t bytes = iov_bytes(iov, n);
    bool clipped = bytes > size - (uint64_t)at;
    if (clipped) bytes = (size_t)(size - (uint64_t)at);
    if (bytes == 0) return 0;
    int owner = owner_of(f, (uint64_t)at >> BOUGH_BLOCK_SHIFT);
    if (n > 1 && !clipped && owner != OWNER_ZERO && run_length(f, owner, at, bytes) == bytes) {
        /* one owner for the whole vector: one system call, as postgres meant it */
        int fd = owner == OWNER_HEAD ? (f->fd_is_head ? f->fd : -1) : level_fd(f, (unsigned)owner);
        ssize_t got = fd < 0 ? -1 : sys_preadv(fd, iov, n, at);
        if (got == (ssize_t)bytes) return got;
    }
    size_t left = bytes;
    for (int i = 0; i < n && left; i++) {
        size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;
        int rc = read_span(f, iov[i].iov_base, part, at);
        if (rc != 0) return rc;
        at += (off_t)part;
        left -= part;
    }
    return (ssize_t)bytes;
}

ssize_t bough_pages_read(bough_file *f, const struct iovec *iov, int n, off_t at) {
    if ((f->flags & O_ACCMODE) == O_WRONLY) {
        errno = EBADF;
        return -1;
    }
    for (;;) {
        if (f->epoch != atomic_load(&bough.shm->epoch) && refresh(f) != 0) return -1;
        ssize_t got = read_once(f, iov, n, at);
        if (got != LOOK_AGAIN && f->epoch == atomic_load(&bough.shm->epoch)) return got;
    }
}

/* ---- writing ----------------------------------------------------------------------------------
 */

/* Make a block that was written in part, and is not marked, a hole again. */
static void take_back(const bough_file *f, uint64_t block) {
    int saved = errno;
    (void)sys_fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)(block << BOUGH_BLOCK_SHIFT), BOUGH_BLOCK);
    errno = saved;
}

/* The head must own a block whole: where a write covers part of one, bring the rest up. Inside the
 * gate. */
static int copy_up_edge(bough_file *f, uint64_t block) {
    uint64_t at = block << BOUGH_BLOCK_SHIFT, size = atomic_load(&f->entry->size);
    if (at >= size || bough_entry_has(bough.shm, f->entry, block)) return 0;
    char buf[BOUGH_BLOCK];
    size_t bytes = size - at < BOUGH_BLOCK ? (size_t)(size - at) : BOUGH_BLOCK;
    if (owner_of(f, block) == OWNER_ZERO) return 0;
    if (read_span(f, buf, bytes, (off_t)at) != 0) return -1;
    if (bough_entry_reserve(bough.shm, f->entry, block, 1) != 0) return -1;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = sys_pwrite(f->fd, buf + done, bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n == 0) errno = ENOSPC;
            if (done) take_back(f, block);
            return -1;
        }
        done += (size_t)n;
    }
    return bough_entry_set(bough.shm, f->entry, block, 1);
}

/*
 * A write that ended early, within a block that the head did not have: the rest of that block would
 * be zeros in place of what is below. What was written of it is given up. Inside the gate.
 */
static ssize_t trim_short(const bough_file *f, off_t at, ssize_t put) {
    uint64_t end = (uint64_t)at + (uint64_t)put, block = end >> BOUGH_BLOCK_SHIFT;
    if (end % BOUGH_BLOCK == 0 || end >= atomic_load(&f->entry->size) ||
        bough_entry_has(bough.shm, f->entry, block) || owner_of(f, block) == OWNER_ZERO)
        return put;
    take_back(f, block);
    put -= (ssize_t)(end % BOUGH_BLOCK);
    if (put > 0) return put;
    errno = ENOSPC;
    return -1;
}

static ssize_t write_locked(bough_file *f, const struct iovec *iov, int n, off_t at) {
    size_t bytes = iov_bytes(iov, n);
    if (begin_change(f) != 0 || ensure_head(f) != 0) return -1;
    if (bytes == 0) return 0;
    if (at < 0 || (uint64_t)at + bytes > BOUGH_MAX_FILE) {
        errno = at < 0 ? EINVAL : EFBIG;
        return -1;
    }
    uint64_t end = (uint64_t)at + bytes;
    uint64_t first = (uint64_t)at >> BOUGH_BLOCK_SHIFT, last = (end - 1) >> BOUGH_BLOCK_SHIFT;
    if (bough_entry_reserve(bough.shm, f->entry, first, last - first + 1) != 0) return -1;
    if (at % BOUGH_BLOCK && copy_up_edge(f, first) != 0) return -1;
    if (end % BOUGH_BLOCK && end < atomic_load(&f->entry->size) && copy_up_edge(f, last) != 0)
        return -1;
    ssize_t put =
        n == 1 ? sys_pwrite(f->fd, iov[0].iov_base, bytes, at) : sys_pwritev(f->fd, iov, n, at);
    if (put > 0 && (size_t)put < bytes) put = trim_short(f, at, put);
    if (put > 0) {
        last = ((uint64_t)at + (uint64_t)put - 1) >> BOUGH_BLOCK_SHIFT;
        (void)bough_entry_set(bough.shm, f->entry, first, last - first + 1);
        bough_entry_grow(f->entry, (uint64_t)at + (uint64_t)put);
    }
    return put;
}

ssize_t bough_pages_write(bough_file *f, const struct iovec *iov, int n, off_t at) {
    if ((f->flags & O_ACCMODE) == O_RDONLY) {
        errno = EBADF;
        return -1;
    }
    if (bough_enter() != 0) return -1;
    ssize_t put = write_locked(f, iov, n, at);
    bough_leave();
    return put;
}

static int truncate_locked(bough_file *f, uint64_t to) {
    if (begin_change(f) != 0) return -1;
    bough_entry *e = f->entry;
    if (to == atomic_load(&e->size)) return 0;
    if (to > BOUGH_MAX_FILE) {
        errno = EFBIG;
        return -1;
    }
    if (ensure_head(f) != 0) return -1;
    bool shrink = to < atomic_load(&e->size);
    if (shrink && to % BOUGH_BLOCK && copy_up_edge(f, to >> BOUGH_BLOCK_SHIFT) != 0) return -1;
    uint64_t limit = atomic_load(&e->limit);
    if (shrink && to < limit) {
        if (store_limit(f->fd, to) != 0) return -1;
        atomic_store(&e->limit, to);
    }
    if (sys_ftruncate(f->fd, (off_t)to) != 0) {
        /* the file is as it was, so what it shows must be */
        int saved = errno;
        if (to < limit && store_limit(f->fd, limit) == 0) atomic_store(&e->limit, limit);
        errno = saved;
        return -1;
    }
    /* the size last: who dies in between leaves a file that is shorter than its entry says */
    if (shrink) bough_entry_clear_from(bough.shm, e, (to + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT);
    atomic_store(&e->size, to);
    atomic_fetch_add(&bough.shm->changes, 1);
    return 0;
}

int bough_pages_truncate(bough_file *f, off_t size) {
    if (size < 0 || (f->flags & O_ACCMODE) == O_RDONLY) {
        errno = EINVAL;
        return -1;
    }
    if (bough_enter() != 0) return -1;
    int rc = truncate_locked(f, (uint64_t)size);
    bough_leave();
    return rc;
}

int bough_pages_allocate(bough_file *f, off_t at, off_t bytes) {
    if (at < 0 || bytes <= 0) {
        errno = EINVAL;
        return -1;
    }
    if (bough_enter() != 0) return -1;
    int rc = begin_change(f);
    if (rc == 0) rc = ensure_head(f);
    uint64_t end = (uint64_t)at + (uint64_t)bytes;
    if (rc == 0 && end > BOUGH_MAX_FILE) {
        errno = EFBIG;
        rc = -1;
    }
    if (rc == 0) {
        /*
         * Only where nothing below shows: a preallocated block that readahead has brought into the
         * page cache is data to SEEK_DATA, and zeros would take the place of what is below.
         */
        uint64_t limit = atomic_load(&f->entry->limit), from = (uint64_t)at;
        if (from < limit) from = (limit + BOUGH_BLOCK - 1) & ~(uint64_t)(BOUGH_BLOCK - 1);
        bool grows = end > atomic_load(&f->entry->size);
        if (from < end) rc = sys_fallocate(f->fd, 0, (off_t)from, (off_t)(end - from));
        if ((rc != 0 && errno == EOPNOTSUPP) || from >= end)
            rc = grows ? sys_ftruncate(f->fd, (off_t)end) : 0;
        if (rc == 0) bough_entry_grow(f->entry, end);
    }
    bough_leave();
    return rc;
}

int bough_pages_materialise(bough_file *f) {
    if (begin_change(f) != 0 || ensure_head(f) != 0) return -1;
    uint64_t blocks = (atomic_load(&f->entry->size) + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT;
    for (uint64_t b = 0; b < blocks; b++)
        if (copy_up_edge(f, b) != 0) return -1;
    if (store_limit(f->fd, 0) != 0) return -1;
    atomic_store(&f->entry->limit, 0);
    return 0;
}

/* ---- the rest ---------------------------------------------------------------------------------
 */

/*
 * fsync reaches the head's file and, below it, layers sealed from this branch that are not known to
 * be durable: what postgres asks to be safe may have been written before the seal.
 */
enum { DISK_REFUSED = -2 }; /* beside -1, which may be due to a stack that has changed meanwhile */

static int sync_once(bough_file *f, bool data_only) {
    if (atomic_load(&bough.shm->defers_sync)) return 0;
    if ((f->epoch != atomic_load(&bough.shm->epoch) ||
         (!f->fd_is_head && atomic_load(&f->entry->state) == BOUGH_ENTRY_HEAD)) &&
        refresh(f) != 0)
        return -1;
    bough_entry *e = f->entry;
    if (f->fd_is_head) {
        if ((data_only ? sys_fdatasync(f->fd) : sys_fsync(f->fd)) != 0) return DISK_REFUSED;
        /* an unlinked file has no name to keep, and perhaps no directory */
        if ((atomic_load(&e->flags) & BOUGH_FLAG_NEW_NAME) &&
            atomic_load(&e->state) == BOUGH_ENTRY_HEAD) {
            char path[2048];
            bough_head_path(path, sizeof path, f->path);
            *strrchr(path, '/') = '\0';
            int fd = sys_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
            int rc = fd < 0 ? -1 : sys_fsync(fd) != 0 ? DISK_REFUSED : 0;
            int saved = errno;
            if (fd >= 0) sys_close(fd);
            errno = saved;
            if (rc == 0) atomic_fetch_and(&e->flags, ~(uint32_t)BOUGH_FLAG_NEW_NAME);
            /* the directory may have been renamed by a seal: then boughd makes the layer durable */
            else if (rc == DISK_REFUSED || f->epoch == atomic_load(&bough.shm->epoch))
                return rc;
        }
    }
    /* without a name there is nothing that has to be found again */
    if (atomic_load(&e->state) == BOUGH_ENTRY_GONE) return 0;
    for (unsigned i = 0; i < f->n_levels; i++) {
        _Atomic uint32_t *needs = /* in the shared memory */
            (_Atomic uint32_t *)(uintptr_t)&f->levels[i].layer->item->needs_sync;
        uint32_t refused = BOUGH_SYNC_REFUSED;
        if (atomic_compare_exchange_strong(needs, &refused, BOUGH_SYNC_DONE)) {
            errno = EIO;
            return DISK_REFUSED;
        }
        if (atomic_load(needs) == BOUGH_SYNC_DONE) continue;
        int fd = level_fd(f, i);
        if (fd < 0) return -1;
        if (sys_fsync(fd) != 0) return DISK_REFUSED;
    }
    return 0;
}

/* Not gated, since it can take long: where the stack changed meanwhile, what was looked up may have
 * been of another level, and all is done again. What the disk refused is told in any case: the
 * kernel tells it once, and a second attempt would succeed without the pages. */
int bough_pages_sync(bough_file *f, bool data_only) {
    for (;;) {
        uint32_t epoch = atomic_load(&bough.shm->epoch);
        int rc = sync_once(f, data_only);
        if (rc == DISK_REFUSED) return -1;
        if (atomic_load(&bough.shm->epoch) == epoch) return rc;
    }
}

off_t bough_pages_seek(bough_file *f, off_t at, int whence) {
    if (f->epoch != atomic_load(&bough.shm->epoch) && refresh(f) != 0) return -1;
    off_t from = whence == SEEK_CUR   ? f->position
                 : whence == SEEK_END ? (off_t)atomic_load(&f->entry->size)
                                      : 0;
    if ((whence != SEEK_SET && whence != SEEK_CUR && whence != SEEK_END) || from + at < 0) {
        errno = EINVAL;
        return -1;
    }
    f->position = from + at;
    return f->position;
}

int bough_pages_stat(bough_file *f, struct stat *st) {
    if (f->epoch != atomic_load(&bough.shm->epoch) && refresh(f) != 0) return -1;
    if (sys_fstat(f->fd, st) != 0) return -1;
    st->st_size = (off_t)atomic_load(&f->entry->size);
    st->st_mode |= S_IRUSR | S_IWUSR;
    return 0;
}
