/* Heads: scanning one into the shared memory of the compute that is about to start. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "preload/path.h"
#include "store/internal.h"

int bough_head_skeleton(const char *at, bough_error *err) {
    static const char *const dirs[] = {"base",
                                       "global",
                                       "pg_xact",
                                       "pg_commit_ts",
                                       "pg_multixact",
                                       "pg_multixact/offsets",
                                       "pg_multixact/members"};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        char path[BOUGH_PATH_MAX];
        int rc = bough_path(path, sizeof path, err, "%s/%s", at, dirs[i]);
        if (!rc) rc = bough_mkdirs(path, 0700, err);
        if (rc) return rc;
    }
    return BOUGH_OK;
}

/* Depth-first walk of the layered directories. `visit` gets the key and what lstat() said. */
typedef int (*visitor)(void *context, const char *path, const char *key, const struct stat *st,
                       bough_error *err);

static int walk(const char *root, const char *key, visitor visit, void *context, bough_error *err) {
    char path[BOUGH_PATH_MAX], below[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/%s", root, key);
    if (rc) return rc;
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? BOUGH_OK
                               : bough_fail_sys(err, errno, "could not list \"%s\"", path);
    struct dirent *d;
    int failed = 0;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
        struct stat st;
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
        rc = bough_path(below, sizeof below, err, "%s/%s", key, d->d_name);
        if (!rc) rc = bough_path(path, sizeof path, err, "%s/%s", root, below);
        if (!rc && lstat(path, &st) != 0)
            rc = bough_fail_sys(err, errno, "could not stat \"%s\"", path);
        if (!rc) rc = visit(context, path, below, &st, err);
        if (!rc && S_ISDIR(st.st_mode) && !strstr(d->d_name, BOUGH_TEMP_MARK))
            rc = walk(root, below, visit, context, err);
    }
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s/%s\"", root, key);
    closedir(dir);
    return rc;
}

static int walk_head(const char *root, visitor visit, void *context, bough_error *err) {
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < BOUGH_LAYERED_COUNT; i++) {
        char path[BOUGH_PATH_MAX];
        struct stat st;
        rc = bough_path(path, sizeof path, err, "%s/%s", root, bough_layered_dirs[i]);
        if (!rc && lstat(path, &st) == 0)
            rc = visit(context, path, bough_layered_dirs[i], &st, err);
        if (!rc) rc = walk(root, bough_layered_dirs[i], visit, context, err);
    }
    return rc;
}

static int visit_any(void *context, const char *path, const char *key, const struct stat *st,
                     bough_error *err) {
    (void)path;
    (void)err;
    /* a directory of a database may be new, or hide one: it is no less a change than a file */
    if (!S_ISDIR(st->st_mode) || strncmp(key, "base/", 5) == 0) *(bool *)context = false;
    return BOUGH_OK;
}

int bough_head_is_empty(bool *empty, const char *pgdata, bough_error *err) {
    *empty = true;
    return walk_head(pgdata, visit_any, empty, err);
}

static uint64_t limit_of(const char *path, uint64_t below) {
    char text[32];
    ssize_t n = lgetxattr(path, BOUGH_XATTR_LIMIT, text, sizeof text - 1);
    if (n <= 0) return below;
    text[n] = '\0';
    uint64_t limit = strtoull(text, NULL, 10);
    return limit < below ? limit : below;
}

static int visit_scan(void *context, const char *path, const char *key, const struct stat *st,
                      bough_error *err) {
    bough_view *view = context;
    bough_header *shm = view->shm;
    char text[BOUGH_PATH_MAX];
    if (strstr(key, BOUGH_TEMP_MARK)) return bough_rmtree(path, err); /* a crash left it */
    bough_path_class class = bough_path_classify(key, text, sizeof text);
    if (class == BOUGH_PATH_MOVED) return BOUGH_OK;
    size_t length = strlen(key);
    bough_entry *e = bough_entry_get(shm, key, length, 0);
    if (!e) return bough_fail_sys(err, errno, "could not index \"%s\"", path);
    atomic_store(&e->refs, 0);
    if (S_ISLNK(st->st_mode)) {
        atomic_store(&e->flags, BOUGH_FLAG_WHITEOUT);
        atomic_store(&e->state, BOUGH_ENTRY_GONE);
        atomic_fetch_add(&shm->changes, 1);
        return BOUGH_OK;
    }
    if (S_ISDIR(st->st_mode)) {
        char one[2];
        bool opaque = lgetxattr(path, BOUGH_XATTR_OPAQUE, one, sizeof one) > 0;
        atomic_store(&e->flags, BOUGH_FLAG_DIR | (opaque ? BOUGH_FLAG_OPAQUE : 0U));
        atomic_store(&e->state, BOUGH_ENTRY_HEAD);
        /* one that no layer has is new; others are there for what is in them */
        if (opaque || bough_view_below(view, key, NULL, 0, NULL) == BOUGH_BELOW_NONE)
            atomic_fetch_add(&shm->changes, 1);
        return BOUGH_OK;
    }
    bool whole = class != BOUGH_PATH_PAGES;
    bough_level top;
    unsigned n = 0;
    (void)bough_view_below(view, key, &top, 1, &n);
    atomic_store(&e->size, (uint64_t)st->st_size);
    atomic_store(&e->limit, whole ? 0 : limit_of(path, n ? top.size : 0));
    atomic_store(&e->flags, BOUGH_FLAG_NEW_NAME | (whole ? BOUGH_FLAG_WHOLE : 0U));
    atomic_store(&e->state, BOUGH_ENTRY_HEAD);
    atomic_fetch_add(&shm->changes, 1);
    if (whole) return BOUGH_OK;
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    int rc = fd >= 0 && bough_entry_scan(shm, e, fd) == 0
                 ? BOUGH_OK
                 : bough_fail_sys(err, errno, "could not scan \"%s\"", path);
    if (fd >= 0) close(fd);
    return rc;
}

int bough_head_scan(bough_shm **out, int *out_fd, bough_store *store, const char *group,
                    const char *pgdata, const bough_layers *layers, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    *out = NULL;
    *out_fd = -1;
    bough_shm *shm = calloc(1, sizeof *shm);
    bough_view *view = calloc(1, sizeof *view);
    int rc = shm && view ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int fd = rc ? -1 : memfd_create("bough", MFD_CLOEXEC);
    if (!rc && fd < 0) rc = bough_fail_sys(err, errno, "could not make shared memory");
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers", store->dir);
    if (!rc && !(shm->header = bough_table_create(fd, pgdata, path)))
        rc = bough_fail_sys(err, errno, "could not map shared memory");
    for (size_t i = 0; !rc && i < layers->n; i++) {
        bough_stack_item *item = &shm->header->stack[layers->n - 1 - i];
        const char *dir = layers->dir[i];
        size_t n = strlen(group);
        rc = bough_layer_verify(store, dir, err);
        (void)snprintf(item->dir, sizeof item->dir, "%s", dir);
        atomic_store(&item->gen, BOUGH_NO_GEN);
        bool own = strncmp(dir, group, n) == 0 && dir[n] == '/';
        /* where it was refused, postgres has got over that, or does so now by its WAL */
        bool needs_sync =
            own && !bough_layer_is_durable(store, dir) && !bough_layer_is_refused(store, dir);
        atomic_store(&item->needs_sync, needs_sync ? BOUGH_SYNC_NEEDED : BOUGH_SYNC_DONE);
    }
    if (!rc) {
        atomic_store(&shm->header->depth, (uint32_t)layers->n);
        view->shm = shm->header;
        view->epoch = 1;
        if (bough_view_refresh(view) != 0)
            rc = bough_fail_sys(err, errno, "could not read a layer under \"%s\"", pgdata);
    }
    if (!rc) rc = walk_head(pgdata, visit_scan, view, err);
    if (view) bough_view_clear(view);
    free(view);
    if (rc) {
        bough_shm_close(shm);
        if (fd >= 0) close(fd);
        return rc;
    }
    *out = shm;
    *out_fd = fd;
    return BOUGH_OK;
}

int bough_store_prepare(bough_shm **shm, int *fd, bough_store *store, const char *branch,
                        bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    bough_layers layers;
    *shm = NULL;
    *fd = -1;
    uint64_t replay_end = 0;
    int rc = bough_store_settle(store, branch, err);
    if (!rc) rc = bough_point_read_end(&replay_end, store, branch, err);
    if (!rc) rc = bough_store_pgdata(pgdata, store, branch, err);
    if (!rc) rc = bough_layers_read(&layers, store, branch, err);
    if (rc) return rc;
    rc = bough_seal_complete(store, branch, &layers, err);
    if (!rc) rc = bough_head_scan(shm, fd, store, branch, pgdata, &layers, err);
    bough_layers_free(&layers);
    if (!rc) bough_pending_tell((*shm)->header, store, branch);
    if (!rc) atomic_store(&(*shm)->header->replay_end, replay_end);
    return rc;
}

/* ---- the memory of a running compute ------------------------------------------------------------
 */

int bough_shm_attach(bough_shm **out, pid_t postmaster, const char *pgdata, bough_error *err) {
    char path[BOUGH_PATH_MAX], target[256];
    *out = NULL;
    int rc = bough_path(path, sizeof path, err, "/proc/%d/fd", (int)postmaster);
    if (rc) return rc;
    DIR *dir = opendir(path);
    if (!dir) return bough_fail_sys(err, errno, "could not look into process %d", (int)postmaster);
    bough_header *header = NULL;
    struct dirent *d;
    while (!header && (d = readdir(dir)) != NULL) {
        ssize_t n = readlinkat(dirfd(dir), d->d_name, target, sizeof target - 1);
        if (n <= 0) continue;
        target[n] = '\0';
        if (strncmp(target, "/memfd:bough", 12) != 0) continue;
        int fd;
        do fd = openat(dirfd(dir), d->d_name, O_RDWR | O_CLOEXEC);
        while (fd < 0 && errno == EINTR);
        if (fd < 0) continue;
        header = bough_table_map(fd);
        close(fd);
        if (header && strcmp(header->pgdata, pgdata) != 0) {
            bough_table_unmap(header);
            header = NULL;
        }
    }
    closedir(dir);
    bough_shm *shm = header ? calloc(1, sizeof *shm) : NULL;
    if (!shm) {
        bough_table_unmap(header);
        return bough_fail(err, BOUGH_E_NOTFOUND, "process %d is not a compute on \"%s\"",
                          (int)postmaster, pgdata);
    }
    shm->header = header;
    *out = shm;
    return BOUGH_OK;
}

void bough_shm_set_postmaster(bough_shm *shm, pid_t postmaster) {
    atomic_store(&shm->header->postmaster, (int32_t)postmaster);
}

_Static_assert(BOUGH_SHM_KEY_SIZE == BOUGH_ADMIN_KEY_SIZE, "one key");

void bough_shm_set_key(bough_shm *shm, const char *key) {
    (void)snprintf(shm->header->admin_key, sizeof shm->header->admin_key, "%s", key);
}

/* The compute may write there, and may not be what it was. */
void bough_shm_key(char *key, const bough_shm *shm) {
    memcpy(key, shm->header->admin_key, BOUGH_SHM_KEY_SIZE);
    key[BOUGH_SHM_KEY_SIZE - 1] = '\0';
    if (strspn(key, "0123456789abcdef") != BOUGH_SHM_KEY_SIZE - 1) key[0] = '\0';
}

void bough_shm_refuse(bough_shm *shm, const bough_store *store) {
    uint32_t depth = atomic_load(&shm->header->depth);
    for (uint32_t i = 0; i < depth; i++) {
        bough_stack_item *item = &shm->header->stack[i];
        uint32_t needed = BOUGH_SYNC_NEEDED;
        if (atomic_load(&item->needs_sync) == needed && bough_layer_is_refused(store, item->dir))
            (void)atomic_compare_exchange_strong(&item->needs_sync, &needed, BOUGH_SYNC_REFUSED);
    }
}

bool bough_store_is_refused(const bough_store *store, const char *branch) {
    bough_layers layers;
    if (bough_layers_read(&layers, store, branch, NULL) != BOUGH_OK) return false;
    bool is = bough_layers_are_refused(store, &layers);
    bough_layers_free(&layers);
    return is;
}

void bough_shm_keep_history(bough_shm *shm, bool keeps) {
    atomic_store(&shm->header->keeps_history, keeps);
}

bool bough_shm_keeps_history(const bough_shm *shm) {
    return atomic_load(&shm->header->keeps_history) != 0;
}

void bough_shm_history(uint64_t *wal_end, unsigned *lost, const bough_shm *shm) {
    *wal_end = atomic_load(&shm->header->wal_end);
    *lost = atomic_load(&shm->header->history_lost);
}

uint64_t bough_shm_redo(const bough_shm *shm) {
    return atomic_load(&shm->header->redo);
}

void bough_shm_close(bough_shm *shm) {
    if (!shm) return;
    bough_table_unmap(shm->header);
    free(shm);
}
