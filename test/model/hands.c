/* Doing operations on the two sides, and comparing what they show. See model.h. */
#include "model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define NAMES_MAX 64

typedef struct outcome {
    long rc;
    int err;
    uint64_t bytes; /* used of the buffer */
} outcome;

static char buffers[2][MODEL_BUFFER];

static void die(const char *what) {
    (void)fprintf(stderr, "model: %s: %s\n", what, strerror(errno));
    abort();
}

void model_hands_init(model_hands *h) {
    for (int s = 0; s < MODEL_SLOTS; s++) h->subject_fd[s] = h->plain_fd[s] = -1;
}

void model_hands_close(model_hands *h) {
    for (int s = 0; s < MODEL_SLOTS; s++) {
        if (h->subject_fd[s] >= 0) close(h->subject_fd[s]);
        if (h->plain_fd[s] >= 0) close(h->plain_fd[s]);
    }
    model_hands_init(h);
}

/* What a write of this operation carries: every byte tells where it belongs. */
static void fill(char *buf, uint64_t bytes, uint64_t seed) {
    uint64_t word = seed, i = 0;
    for (; i + 8 <= bytes; i += 8) {
        word = word * UINT64_C(6364136223846793005) + i + 1;
        memcpy(buf + i, &word, 8);
    }
    word = word * UINT64_C(6364136223846793005) + i + 1;
    memcpy(buf + i, &word, bytes - i); /* so that a shorter write is the beginning of a longer */
    /* now and then a page of zeros: it must not be taken for a hole */
    if (seed % 16 == 0) memset(buf, 0, bytes);
}

/* Cut a buffer into the operation's vector. */
static int cut(struct iovec *iov, char *buf, const model_op *op) {
    uint64_t part = op->bytes / (uint64_t)op->vectors, done = 0;
    for (int i = 0; i < op->vectors; i++) {
        iov[i].iov_base = buf + done;
        iov[i].iov_len = i + 1 < op->vectors ? part : op->bytes - done;
        done += iov[i].iov_len;
    }
    return op->vectors;
}

static int by_text(const void *a, const void *b) {
    return strcmp(a, b);
}

/* Names in a directory, sorted, one a line. */
static long list(const char *path, char *out, uint64_t *bytes) {
    char names[NAMES_MAX][64];
    size_t n = 0;
    DIR *dir = opendir(path);
    if (!dir) return -1;
    const struct dirent *d;
    while (n < NAMES_MAX && (d = readdir(dir)) != NULL)
        if (strcmp(d->d_name, "pg_control") != 0 && strncmp(d->d_name, "990", 3) != 0)
            (void)snprintf(names[n++], sizeof names[0], "%.63s", d->d_name);
    closedir(dir);
    qsort(names, n, sizeof names[0], by_text);
    *bytes = 0;
    for (size_t i = 0; i < n; i++)
        *bytes += (uint64_t)snprintf(out + *bytes, MODEL_BUFFER - *bytes, "%s\n", names[i]);
    return (long)n;
}

static long write_whole(const model_op *op, const char *path, char *buf) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    fill(buf, op->bytes, op->fill);
    long rc = write(fd, buf, op->bytes);
    int saved = errno;
    if (rc >= 0 && op->fill % 4 == 0 && fsync(fd) != 0) {
        rc = -1;
        saved = errno;
    }
    close(fd);
    errno = saved;
    return rc;
}

static long patch_whole(const model_op *op, const char *path, char *buf) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return -1;
    fill(buf, op->bytes, op->fill);
    long rc = pwrite(fd, buf, op->bytes, (off_t)op->at);
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

static long read_whole(const char *path, char *buf, uint64_t *bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    long rc = read(fd, buf, MODEL_BUFFER);
    int saved = errno;
    *bytes = rc > 0 ? (uint64_t)rc : 0;
    close(fd);
    errno = saved;
    return rc;
}

static long act_on_slot(const model_op *op, int fd, char *buf, uint64_t *bytes) {
    struct iovec iov[16];
    struct stat st;
    int n;
    long rc;
    switch ((int)op->kind) {
    case OP_READ:
        memset(buf, 0x55, op->bytes);
        n = cut(iov, buf, op);
        rc = n > 1 ? preadv(fd, iov, n, (off_t)op->at) : pread(fd, buf, op->bytes, (off_t)op->at);
        *bytes = op->bytes;
        return rc;
    case OP_WRITE:
        fill(buf, op->bytes, op->fill);
        n = cut(iov, buf, op);
        return n > 1 ? pwritev(fd, iov, n, (off_t)op->at)
                     : pwrite(fd, buf, op->bytes, (off_t)op->at);
    case OP_APPEND:
        fill(buf, op->bytes, op->fill);
        if (lseek(fd, 0, SEEK_END) < 0) return -1;
        return write(fd, buf, op->bytes);
    case OP_TRUNCATE:
        return ftruncate(fd, (off_t)op->bytes);
    case OP_ALLOCATE:
        n = posix_fallocate(fd, (off_t)op->at, (off_t)op->bytes);
        if (n) errno = n;
        return n ? -1 : 0;
    case OP_SYNC:
        return fsync(fd);
    case OP_DATASYNC:
        return fdatasync(fd);
    case OP_FSTAT:
        return fstat(fd, &st) == 0 ? (long)st.st_size : -1;
    case OP_SEEK:
        return (long)lseek(fd, op->at == 2 ? 0 : (off_t)op->at, op->at == 2 ? SEEK_END : SEEK_SET);
    default:
        errno = ENOSYS;
        return -2;
    }
}

static long act_on_name(const model_op *op, const char *root, char *buf, uint64_t *bytes) {
    char path[1200], other[1200];
    struct stat st;
    if (op->kind == OP_LIST || op->kind == OP_MKDIR || op->kind == OP_RMDIR)
        model_dir_path(path, sizeof path, root, op->dir);
    else
        model_path(path, sizeof path, root, op->name);
    model_path(other, sizeof other, root, op->other);
    switch ((int)op->kind) {
    case OP_STAT:
        return stat(path, &st) == 0 ? (long)st.st_size : -1;
    case OP_ACCESS:
        return access(path, F_OK);
    case OP_LIST:
        return list(path, buf, bytes);
    case OP_UNLINK:
        return unlink(path);
    case OP_RENAME:
        return rename(path, other);
    case OP_TRUNCATE_PATH:
        return truncate(path, (off_t)op->bytes);
    case OP_WHOLE_WRITE:
        return write_whole(op, path, buf);
    case OP_WHOLE_READ:
        return read_whole(path, buf, bytes);
    case OP_WHOLE_PATCH:
        return patch_whole(op, path, buf);
    case OP_MKDIR:
        return mkdir(path, 0700);
    case OP_RMDIR:
        return rmdir(path);
    default:
        errno = ENOSYS;
        return -2;
    }
}

static outcome act(const model_op *op, const char *root, int *fds, char *buf) {
    outcome o = {0};
    char path[1200];
    errno = 0;
    if (op->kind == OP_OPEN) {
        model_path(path, sizeof path, root, op->name);
        int fd = open(path, op->flags | O_CLOEXEC, 0600);
        fds[op->slot] = fd;
        o.rc = fd < 0 ? -1 : 0;
    } else if (op->kind == OP_CLOSE) {
        o.rc = close(fds[op->slot]);
        fds[op->slot] = -1;
    } else if (op->kind >= OP_READ && op->kind <= OP_SEEK) {
        o.rc = act_on_slot(op, fds[op->slot], buf, &o.bytes);
    } else {
        o.rc = act_on_name(op, root, buf, &o.bytes);
    }
    o.err = o.rc == -1 ? errno : 0;
    return o;
}

bool model_changes(model_kind kind) {
    return kind == OP_OPEN || kind == OP_WRITE || kind == OP_APPEND || kind == OP_TRUNCATE ||
           kind == OP_ALLOCATE || kind == OP_UNLINK || kind == OP_RENAME ||
           kind == OP_TRUNCATE_PATH || kind == OP_WHOLE_WRITE || kind == OP_WHOLE_PATCH ||
           kind == OP_MKDIR || kind == OP_RMDIR;
}

/* Relative names, as postgres uses, and absolute ones. */
static const char *subject_root(const model_hands *h, const model_op *op) {
    return op->fill & 64 ? h->subject : ".";
}

long model_do_subject(model_hands *h, const model_op *op, int *err) {
    outcome o = act(op, subject_root(h, op), h->subject_fd, buffers[0]);
    *err = o.err;
    return o.rc;
}

void model_do_plain(model_hands *h, const model_op *op) {
    (void)act(op, h->plain, h->plain_fd, buffers[1]);
}

model_status model_do(model_hands *h, const model_op *op, char *why, size_t size) {
    outcome a = act(op, subject_root(h, op), h->subject_fd, buffers[0]);
    h->rc = a.rc;
    h->err = a.err;
    if (h->between) h->between();
    outcome b = act(op, h->plain, h->plain_fd, buffers[1]);
    if (op->orphan && a.rc == -1 && a.err == EIO) return MODEL_ORPHAN_LOST;
    if (a.rc != b.rc || a.err != b.err || a.bytes != b.bytes) {
        (void)snprintf(why, size, "returned %ld (%s), plain %ld (%s)", a.rc, strerror(a.err), b.rc,
                       strerror(b.err));
        return MODEL_DIFFERS;
    }
    if (memcmp(buffers[0], buffers[1], a.bytes) == 0) return MODEL_SAME;
    uint64_t i = 0;
    while (buffers[0][i] == buffers[1][i]) i++;
    (void)snprintf(why, size, "what was read differs from byte %llu on",
                   (unsigned long long)(op->at + i));
    return MODEL_DIFFERS;
}

void model_redo_plain(model_hands *h, const model_op *op) {
    char path[1200];
    if (op->kind < OP_READ || op->kind > OP_SEEK) {
        int kept = h->plain_fd[op->slot];
        model_do_plain(h, op);
        if (op->kind == OP_OPEN) {
            if (h->plain_fd[op->slot] >= 0) close(h->plain_fd[op->slot]);
            h->plain_fd[op->slot] = kept;
        }
        return;
    }
    model_path(path, sizeof path, h->plain, op->name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) die(path);
    uint64_t unused = 0;
    (void)act_on_slot(op, fd, buffers[1], &unused);
    close(fd);
}

/* ---- comparing ---- */

static model_status differs(char *why, size_t size, int name, const char *what, long a, long b) {
    char path[64];
    model_path(path, sizeof path, "", name);
    (void)snprintf(why, size, "%s: %s: %ld, other side %ld", path, what, a, b);
    return MODEL_DIFFERS;
}

bool model_exists(const char *root, int name, uint64_t *size) {
    char path[1200];
    struct stat st;
    model_path(path, sizeof path, root, name);
    *size = 0;
    if (stat(path, &st) != 0) return false;
    *size = (uint64_t)st.st_size;
    return true;
}

bool model_dir_exists(const char *root, int dir) {
    char path[1200];
    struct stat st;
    model_dir_path(path, sizeof path, root, dir);
    return stat(path, &st) == 0;
}

model_status model_compare_name(const char *a, const char *b, int name, char *why, size_t size) {
    char path[1200];
    uint64_t size_a, size_b;
    bool in_a = model_exists(a, name, &size_a), in_b = model_exists(b, name, &size_b);
    if (in_a != in_b) return differs(why, size, name, "exists", in_a, in_b);
    if (size_a != size_b) return differs(why, size, name, "size", (long)size_a, (long)size_b);
    if (!in_a) return MODEL_SAME;
    model_path(path, sizeof path, a, name);
    int fa = open(path, O_RDONLY | O_CLOEXEC);
    model_path(path, sizeof path, b, name);
    int fb = open(path, O_RDONLY | O_CLOEXEC);
    model_status status = MODEL_SAME;
    if (fa < 0 || fb < 0) status = differs(why, size, name, "could not open", fa, fb);
    for (uint64_t at = 0; status == MODEL_SAME && at < size_a;) {
        ssize_t n = pread(fa, buffers[0], MODEL_BUFFER, (off_t)at);
        ssize_t m = pread(fb, buffers[1], MODEL_BUFFER, (off_t)at);
        if (n != m || n <= 0) {
            status = differs(why, size, name, "read", n, m);
        } else if (memcmp(buffers[0], buffers[1], (size_t)n) != 0) {
            uint64_t i = 0;
            while (buffers[0][i] == buffers[1][i]) i++;
            status = differs(why, size, name, "contents differ at byte", (long)(at + i), -1);
        }
        at += n > 0 ? (uint64_t)n : 1;
    }
    if (fa >= 0) close(fa);
    if (fb >= 0) close(fb);
    return status;
}

model_status model_compare(const char *a, const char *b, int owner, char *why, size_t size) {
    char path[1200];
    for (int n = 0; n < model_n_names; n++)
        if (model_owns(owner, n) && model_compare_name(a, b, n, why, size) != MODEL_SAME)
            return MODEL_DIFFERS;
    for (int d = 0; d < MODEL_DIRS; d++) {
        if (!model_owns_dir(owner, d) || (owner != MODEL_ALL && d >= MODEL_REMOVABLE)) continue;
        uint64_t bytes_a = 0, bytes_b = 0;
        model_dir_path(path, sizeof path, a, d);
        long in_a = list(path, buffers[0], &bytes_a);
        model_dir_path(path, sizeof path, b, d);
        long in_b = list(path, buffers[1], &bytes_b);
        if (in_a == in_b && bytes_a == bytes_b && memcmp(buffers[0], buffers[1], bytes_a) == 0)
            continue;
        (void)snprintf(why, size, "%s lists %ld names, other side %ld:\n%.*s--\n%.*s",
                       model_dirs[d], in_a, in_b, (int)bytes_a, buffers[0], (int)bytes_b,
                       buffers[1]);
        return MODEL_DIFFERS;
    }
    return MODEL_SAME;
}

/* ---- plain directories ---- */

void model_plain_name(const char *root, int name) {
    model_world w;
    char path[1200], buf[8 * MODEL_PAGE];
    model_world_init(&w, model_of_seed(0), MODEL_ALL);
    model_path(path, sizeof path, root, name);
    if (!w.files[name]) {
        if (unlink(path) != 0 && errno != ENOENT) die(path);
        return;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fill(buf, w.sizes[name], (uint64_t)name + 1);
    if (fd < 0 || write(fd, buf, w.sizes[name]) != (ssize_t)w.sizes[name]) die(path);
    close(fd);
}

void model_plain_begin(const char *root) {
    model_world w;
    char path[1200];
    static const char *const dirs[] = {"", "/base", "/pg_multixact"};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s", root, dirs[i]);
        if (mkdir(path, 0700) != 0 && errno != EEXIST) die(path);
    }
    model_world_init(&w, model_of_seed(0), MODEL_ALL);
    for (int d = 0; d < MODEL_DIRS; d++) {
        model_dir_path(path, sizeof path, root, d);
        if (w.dirs[d] && mkdir(path, 0700) != 0 && errno != EEXIST) die(path);
    }
    for (int n = 0; n < model_n_names; n++)
        if (w.files[n]) model_plain_name(root, n);
}

void model_copy_name(const char *from, const char *to, int name) {
    char path[1200];
    uint64_t size;
    bool there = model_exists(from, name, &size);
    model_path(path, sizeof path, to, name);
    if (!there) {
        if (unlink(path) != 0 && errno != ENOENT) die(path);
        return;
    }
    int out = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* who has it open, goes on */
    model_path(path, sizeof path, from, name);
    int in = open(path, O_RDONLY | O_CLOEXEC);
    if (in < 0 || out < 0 || ftruncate(out, 0) != 0 || ftruncate(out, (off_t)size) != 0) die(path);
    for (uint64_t at = 0; at < size;) {
        ssize_t n = pread(in, buffers[0], MODEL_BUFFER, (off_t)at);
        if (n <= 0) die(path);
        bool zero = buffers[0][0] == 0 && memcmp(buffers[0], buffers[0] + 1, (size_t)n - 1) == 0;
        if (!zero && pwrite(out, buffers[0], (size_t)n, (off_t)at) != n) die(path);
        at += (uint64_t)n;
    }
    close(in);
    close(out);
}

static void copy_dir(const char *from, const char *to, int dir) {
    char path[1200];
    struct stat st;
    model_dir_path(path, sizeof path, from, dir);
    bool there = stat(path, &st) == 0;
    model_dir_path(path, sizeof path, to, dir);
    if (there && mkdir(path, 0700) != 0 && errno != EEXIST) die(path);
    for (int n = 0; n < model_n_names; n++)
        if (model_names[n].dir == dir && there) model_copy_name(from, to, n);
    if (!there && rmdir(path) != 0 && errno != ENOENT) die(path);
}

void model_copy_tree(const char *from, const char *to) {
    char path[1200];
    static const char *const dirs[] = {"", "/base", "/pg_multixact"};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s", to, dirs[i]);
        if (mkdir(path, 0700) != 0 && errno != EEXIST) die(path);
    }
    for (int d = 0; d < MODEL_DIRS; d++) copy_dir(from, to, d);
}
