/*
 * Mending a layer whose fsync failed. The kernel tells of that once and takes the pages for
 * written: another fsync would succeed and mean nothing. Whoever relied on the layer is told first
 * (the branch that it was sealed from by its memory, what waits for it to be durable by its file
 * "pending"), so that they write anew, by their WAL, all that may be lost. Then what the layer
 * shows now is written over itself, which makes its pages dirty again, and an fsync says again what
 * the disk has.
 *
 * Each step may be the last one before a crash: the layer stays refused until all is done.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/internal.h"
#include "util/crashpoint.h"

/* What is read and written at once. */
enum { PIECE = 1 << 20 };

/* ---- which there are ---- */

typedef struct list {
    char **names; /* NULL-terminated */
    size_t n;
} list;

static int list_add(list *l, const char *name, bough_error *err) {
    char **more = realloc(l->names, (l->n + 2) * sizeof *more);
    if (more) l->names = more;
    char *copy = more ? strdup(name) : NULL;
    if (!copy) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    l->names[l->n++] = copy;
    l->names[l->n] = NULL;
    return BOUGH_OK;
}

typedef struct looking {
    const bough_store *store;
    list found;
} looking;

/* (bough_layer_visitor) */
static int look_at(void *context, const char *dir, bough_error *err) {
    looking *l = context;
    return bough_layer_is_refused(l->store, dir) ? list_add(&l->found, dir, err) : BOUGH_OK;
}

int bough_store_refused(char ***dirs, const bough_store *store, bough_error *err) {
    looking l = {.store = store};
    int rc = bough_layers_each(store, look_at, &l, err);
    if (!rc && !l.found.names && !(l.found.names = calloc(1, sizeof *l.found.names)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *dirs = rc ? NULL : l.found.names;
    if (rc) bough_store_free_list(l.found.names);
    return rc;
}

int bough_store_returning(char ***branches, const bough_store *store, bough_error *err) {
    char **all = NULL;
    list found = {calloc(1, sizeof *found.names), 0};
    int rc = found.names ? bough_branch_dirs(&all, store, err)
                         : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (char **p = all; !rc && *p; p++)
        if (bough_pending_is_marked(store, *p)) rc = list_add(&found, *p, err);
    bough_store_free_list(all);
    *branches = rc ? NULL : found.names;
    if (rc) bough_store_free_list(found.names);
    return rc;
}

void bough_store_note_refused(bough_store *store) {
    atomic_store(&store->has_refused, true);
}

bool bough_store_may_have_refused(const bough_store *store) {
    return atomic_load(&store->has_refused);
}

bool bough_store_take_refused(bough_store *store) {
    return atomic_exchange(&store->has_refused, false);
}

/* ---- telling ---- */

int bough_store_mend_begin(bough_store *store, const char *dir, bough_shm *live, bough_error *err) {
    char **branches = NULL;
    if (live) bough_shm_refuse(live, store);
    if (bough_layer_is_durable(store, dir)) return BOUGH_OK; /* they were told before */
    /* none of them gets its name, ends to wait, or is exchanged meanwhile */
    pthread_mutex_lock(&store->places);
    int rc = bough_branch_dirs(&branches, store, err);
    for (char **p = branches; !rc && *p; p++) {
        bough_layers layers;
        bool stands = false;
        if (!bough_store_sync_pending(store, *p)) continue;
        rc = bough_layers_read(&layers, store, *p, err);
        if (rc == BOUGH_E_NOTFOUND) { /* deleted meanwhile */
            bough_error_clear(err);
            rc = BOUGH_OK;
            continue;
        }
        for (size_t i = 0; !rc && i < layers.n && !stands; i++)
            stands = strcmp(layers.dir[i], dir) == 0;
        if (!rc) bough_layers_free(&layers);
        if (stands) rc = bough_pending_mark(store, *p, err);
    }
    pthread_mutex_unlock(&store->places);
    bough_store_free_list(branches);
    BOUGH_POINT(rc, "mend.told");
    return rc;
}

/* ---- writing ---- */

/* Write what a file shows over itself; holes stay holes. */
static int rewrite_file(const char *path, char *piece, bough_error *err) {
    int fd = bough_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0) return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    int rc = BOUGH_OK;
    for (off_t at = 0; !rc;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO) break;
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (hole < 0) {
            rc = bough_fail_sys(err, errno, "could not look for holes in \"%s\"", path);
            break;
        }
        for (at = data; !rc && at < hole;) {
            size_t wanted = hole - at < PIECE ? (size_t)(hole - at) : PIECE;
            ssize_t n = bough_pread_full(fd, piece, wanted, at);
            if (n < 0) rc = bough_fail_sys(err, errno, "could not read \"%s\"", path);
            if (n <= 0) break;
            if (bough_pwrite_full(fd, piece, (size_t)n, at) != 0)
                rc = bough_fail_sys(err, errno, "could not write \"%s\"", path);
            at += n;
        }
        if (at < hole) break;
    }
    if (!rc && bough_fsync(fd) != 0)
        rc = bough_fail_sys(err, errno, "could not fsync \"%s\"", path);
    close(fd);
    return rc;
}

/* (bough_visit) */
static int rewrite_one(void *context, const char *path, unsigned char type, bool is_after,
                       bough_error *err) {
    return type == DT_REG && !is_after ? rewrite_file(path, context, err) : BOUGH_OK;
}

typedef struct base {
    const char *dir;
    bough_layers below;
    bool is_found;
} base;

/* (bough_stack_visitor) What is below a layer: the same in all stacks that have it. */
static int find_base(void *context, const char *of, const bough_layers *layers, bough_error *err) {
    base *b = context;
    (void)of;
    for (size_t i = 0; i < layers->n && !b->is_found; i++) {
        if (strcmp(layers->dir[i], b->dir) != 0) continue;
        size_t n = layers->n - i - 1;
        b->below.dir = calloc(n + 1, sizeof *b->below.dir);
        if (!b->below.dir) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        if (n) memcpy(b->below.dir, layers->dir + i + 1, n * sizeof *b->below.dir);
        b->below.n = n;
        b->is_found = true;
    }
    return BOUGH_OK;
}

/* All of the layer's content, then its index from that: a block that the file system gave up must
 * fall through. */
static int rewrite(bough_store *store, const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    base b = {.dir = dir};
    char *piece = malloc(PIECE);
    int rc = piece ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = bough_stacks_each(store, find_base, &b, err);
    if (!rc && !b.is_found)
        rc = bough_fail(err, BOUGH_E_NOTFOUND, "no stack names layer \"%s\"", dir);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s/data", store->dir, dir);
    if (!rc) rc = bough_walk(path, false, rewrite_one, piece, err);
    BOUGH_POINT(rc, "mend.rewritten");
    if (!rc) rc = bough_layer_set_boot(store, dir, err);
    if (!rc) rc = bough_index_rebuild(store, dir, &b.below, err);
    BOUGH_POINT(rc, "mend.indexed");
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, dir);
    if (!rc) rc = bough_fsync_tree(path, err);
    if (!rc) {
        *strrchr(path, '/') = '\0';
        rc = bough_fsync_path(path, err);
    }
    bough_layers_free(&b.below);
    free(piece);
    return rc;
}

int bough_store_mend(bough_store *store, const char *dir, bough_error *err) {
    if (!bough_layer_is_refused(store, dir)) return BOUGH_OK;
    pthread_mutex_t *turn = bough_layer_turn(store, dir);
    pthread_mutex_lock(turn);
    int rc = BOUGH_OK;
    if (!bough_layer_is_durable(store, dir)) {
        rc = rewrite(store, dir, err);
        if (!rc) rc = bough_layer_set_durable(store, dir, err);
        BOUGH_POINT(rc, "mend.durable");
    }
    if (!rc) rc = bough_layer_clear_refused(store, dir, err);
    pthread_mutex_unlock(turn);
    return rc;
}
