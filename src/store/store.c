/* Opening a store: layout, format version, lock, and the probe of its file system. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "store/internal.h"

const char *const bough_layered_dirs[BOUGH_LAYERED_COUNT] = BOUGH_LAYERED_DIRS;

static int unfit(bough_error *err, const char *dir, const char *why) {
    bough_fail(err, BOUGH_E_UNSUPPORTED, "the file system of \"%s\" is unfit for a store: %s", dir,
               why);
    return bough_hint(err, "Use ext4, XFS, Btrfs (without compression) or tmpfs for the store.");
}

/* A call of the probe failed: since the file system does not know it, or for another reason. */
static int refused(bough_error *err, const char *dir, const char *why) {
    switch (errno) {
    case ENOTSUP:
    case ENOSYS:
    case EPERM:
    case EINVAL:
    case EMLINK:
        return unfit(err, dir, why);
    default:
        return bough_fail_sys(err, errno, "could not try the file system of \"%s\"", dir);
    }
}

/* Write a block of zeros past a hole: is the hole seen as hole and the zeros as data? */
static int probe_holes(const char *dir, int fd, bough_error *err) {
    char zeros[BOUGH_BLOCK] = {0};
    if (bough_pwrite_full(fd, zeros, sizeof zeros, 4 * BOUGH_BLOCK) != 0 ||
        bough_ftruncate(fd, 16 * BOUGH_BLOCK) != 0 || bough_fsync(fd) != 0)
        return bough_fail_sys(err, errno, "could not write in \"%s\"", dir);
    struct statvfs fs;
    if (fstatvfs(fd, &fs) != 0)
        return bough_fail_sys(err, errno, "could not try the file system of \"%s\"", dir);
    if (fs.f_frsize < BOUGH_BLOCK) /* a power cut could leave a part of what is counted as one */
        return unfit(err, dir, "it allocates in units smaller than 4 KiB");
    off_t data = lseek(fd, 0, SEEK_DATA);
    if (data == 0) return unfit(err, dir, "it does not report holes in files");
    if (data != 4 * (off_t)BOUGH_BLOCK)
        return unfit(err, dir, "a block of zeros that was written became a hole");
    if (lseek(fd, data, SEEK_HOLE) != 5 * (off_t)BOUGH_BLOCK)
        return unfit(err, dir, "it allocates in units larger than 4 KiB");
    return BOUGH_OK;
}

/* Does a listing tell links from files, and them from directories? */
static int probe_types(const char *dir, const char *link, bough_error *err) {
    const char *name = strrchr(link, '/') + 1;
    DIR *d = opendir(dir);
    if (!d) return bough_fail_sys(err, errno, "could not list \"%s\"", dir);
    struct dirent *e;
    int failed = 0;
    bool is_told = false;
    while ((e = bough_list_next(d, &failed)) != NULL)
        if (strcmp(e->d_name, name) == 0) is_told = e->d_type == DT_LNK;
    closedir(d);
    if (failed) return bough_fail_sys(err, failed, "could not list \"%s\"", dir);
    return is_told ? BOUGH_OK : unfit(err, dir, "it does not tell the types of files in a listing");
}

static int probe(const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX], other[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/probe-%d", dir, (int)getpid());
    if (!rc) rc = bough_path(other, sizeof other, err, "%s/probe-%d.link", dir, (int)getpid());
    if (rc) return rc;
    unlink(path); /* of a process that had this number: perhaps the link that it made */
    int fd = bough_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return bough_fail_sys(err, errno, "could not create a file in \"%s\"", dir);
    rc = probe_holes(dir, fd, err);
    unlink(other);
    if (!rc && fsetxattr(fd, BOUGH_XATTR_LIMIT, "1", 1, 0) != 0)
        rc = refused(err, dir, "it has no extended attributes (user.*)");
    if (!rc && (link(path, other) != 0 || unlink(other) != 0))
        rc = refused(err, dir, "it has no hard links");
    if (!rc && symlink(BOUGH_WHITEOUT, other) != 0)
        rc = refused(err, dir, "it has no symbolic links");
    if (!rc) rc = probe_types(dir, other, err);
    if (!rc && renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE) != 0)
        rc = refused(err, dir, "it cannot exchange two names");
    close(fd);
    unlink(path);
    unlink(other);
    return rc;
}

static int check_format(const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX], *text;
    size_t n;
    int rc = bough_path(path, sizeof path, err, "%s/format", dir);
    if (rc) return rc;
    rc = bough_read_file(&text, &n, path, 64, err);
    if (rc == BOUGH_E_NOTFOUND) {
        char now[32];
        bough_error_clear(err);
        int length = snprintf(now, sizeof now, "%d\n", BOUGH_STORE_FORMAT);
        return bough_write_file(path, now, (size_t)length, 0600, err);
    }
    if (rc) return rc;
    char *end;
    long version = strtol(text, &end, 10);
    if (end == text || (*end && *end != '\n'))
        rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" does not hold a format version", path);
    else if (version > BOUGH_STORE_FORMAT) {
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED,
                        "the store \"%s\" has format %ld, this Bough knows up to %d", dir, version,
                        BOUGH_STORE_FORMAT);
        bough_hint(err, "Use the newer Bough that made it.");
    }
    free(text);
    return rc;
}

static int take_lock(bough_store *s, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/lock", s->dir);
    if (rc) return rc;
    s->lock_fd = bough_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0) return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0) return BOUGH_OK;
    if (errno != EWOULDBLOCK) return bough_fail_sys(err, errno, "could not lock \"%s\"", path);
    bough_fail(err, BOUGH_E_BUSY, "another server has the store \"%s\"", s->dir);
    return bough_hint(err, "Stop it with \"bough down\", or use another --store.");
}

int bough_store_open(bough_store **store, const char *dir, bough_error *err) {
    static const char *const rooms[] = {"branches", "layers", "run", "trash", "tmp", "wal"};
    *store = NULL;
    if (dir[0] != '/')
        return bough_fail(err, BOUGH_E_INVALID, "the store's path \"%s\" is not absolute", dir);
    bough_store *s = calloc(1, sizeof *s);
    if (!s) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    s->lock_fd = -1;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_mutex_init(&s->places, NULL);
    for (size_t i = 0; i < BOUGH_LAYER_TURNS; i++) pthread_mutex_init(&s->turns[i], NULL);
    atomic_init(&s->has_refused, true); /* by an earlier server */
    int rc = strlen(dir) < 900 ? bough_path(s->dir, sizeof s->dir, err, "%s", dir)
                               : bough_fail(err, BOUGH_E_INVALID, "the store's path is too long");
    for (size_t n = strlen(s->dir); n > 1 && s->dir[n - 1] == '/'; n--) s->dir[n - 1] = '\0';
    if (!rc) rc = bough_mkdirs(s->dir, 0755, err);
    if (!rc) rc = take_lock(s, err);
    if (!rc) rc = check_format(s->dir, err);
    if (!rc) rc = probe(s->dir, err);
    for (size_t i = 0; !rc && i < sizeof rooms / sizeof rooms[0]; i++) {
        char path[BOUGH_PATH_MAX];
        rc = bough_path(path, sizeof path, err, "%s/%s", s->dir, rooms[i]);
        if (!rc) rc = bough_mkdirs(path, strcmp(rooms[i], "run") == 0 ? 0755 : 0700, err);
    }
    if (rc) {
        bough_store_close(s);
        return rc;
    }
    *store = s;
    return BOUGH_OK;
}

void bough_store_close(bough_store *s) {
    if (!s) return;
    if (s->lock_fd >= 0) close(s->lock_fd);
    for (size_t i = 0; i < s->n_verified; i++) free(s->verified[i]);
    free(s->verified);
    for (size_t i = 0; i < s->n_refused; i++) free(s->refused[i]);
    free(s->refused);
    pthread_mutex_destroy(&s->mutex);
    pthread_mutex_destroy(&s->places);
    for (size_t i = 0; i < BOUGH_LAYER_TURNS; i++) pthread_mutex_destroy(&s->turns[i]);
    free(s);
}

const char *bough_store_dir(const bough_store *store) {
    return store->dir;
}

bool bough_store_id_is_valid(const char *id) {
    size_t n = strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n > 0 && n <= 60 && id[n] == '\0';
}

int bough_branch_path(char out[BOUGH_PATH_MAX], const bough_store *store, const char *branch,
                      const char *suffix, bough_error *err) {
    return bough_path(out, BOUGH_PATH_MAX, err, "%s/branches/%s%s", store->dir, branch, suffix);
}

int bough_store_pgdata(char *out, const bough_store *store, const char *branch, bough_error *err) {
    return bough_path(out, BOUGH_PATH_MAX, err, "%s/branches/%s/pgdata", store->dir, branch);
}

bool bough_store_has_branch(const bough_store *store, const char *branch) {
    char path[BOUGH_PATH_MAX];
    struct stat st;
    return bough_store_id_is_valid(branch) &&
           bough_path(path, sizeof path, NULL, "%s/branches/%s/stack", store->dir, branch) == 0 &&
           stat(path, &st) == 0;
}

void bough_store_free_list(char **list) {
    if (!list) return;
    for (char **p = list; *p; p++) free(*p);
    free(list);
}
