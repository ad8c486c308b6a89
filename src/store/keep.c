/* Keeping a store in order: deletion, bytes, reconciliation after a crash. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "preload/path.h"
#include "store/internal.h"
#include "util/log.h"
#include "util/crashpoint.h"

/* Rename something into the trash, where it is nobody's any more. Missing is success. */
int bough_store_discard(const bough_store *store, const char *kind, const char *name,
                        bough_error *err) {
    static _Atomic unsigned counter;
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX], flat[256];
    (void)snprintf(flat, sizeof flat, "%s", name);
    for (char *p = flat; *p; p++)
        if (*p == '/') *p = '.';
    int rc = bough_path(from, sizeof from, err, "%s/%s/%s", store->dir, kind, name);
    if (!rc)
        rc = bough_path(to, sizeof to, err, "%s/trash/%s-%s-%ld-%d-%u", store->dir, kind, flat,
                        (long)time(NULL), (int)getpid(), atomic_fetch_add(&counter, 1));
    if (!rc && rename(from, to) != 0 && errno != ENOENT)
        rc = bough_fail_sys(err, errno, "could not move \"%s\" to the trash", from);
    return rc;
}

/* The groups of the layers that a branch stands on: they may be without use when it is gone. */
static int groups_of(char ***groups, const bough_store *store, const char *branch,
                     bough_error *err) {
    bough_layers layers;
    *groups = NULL;
    int rc = bough_layers_read(&layers, store, branch, err);
    if (rc) return rc;
    char **list = calloc(layers.n + 2, sizeof *list);
    if (!list) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    size_t n = 0;
    for (size_t i = 0; !rc && i <= layers.n; i++) {
        const char *of = i < layers.n ? layers.dir[i] : branch;
        int length = (int)strcspn(of, "/");
        bool known = false;
        for (size_t k = 0; k < n && !known; k++)
            known = strncmp(list[k], of, (size_t)length) == 0 && !list[k][length];
        if (!known && asprintf(&list[n++], "%.*s", length, of) < 0)
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    bough_layers_free(&layers);
    if (rc)
        bough_store_free_list(list);
    else
        *groups = list;
    return rc;
}

int bough_store_delete(bough_store *store, const char *branch, bough_error *err) {
    char **groups = NULL;
    if (!bough_store_id_is_valid(branch))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" is not a branch id", branch);
    int rc = groups_of(&groups, store, branch, err);
    if (rc == BOUGH_E_NOTFOUND || rc == BOUGH_E_CORRUPT) {
        bough_error_clear(err); /* what is left of it goes; start-up collects the rest */
        rc = BOUGH_OK;
    }
    if (!rc) rc = bough_store_discard(store, "branches", branch, err);
    BOUGH_POINT(rc, "delete.branch-discarded");
    if (!rc && groups) rc = bough_store_collect(store, groups, err);
    BOUGH_POINT(rc, "delete.layers-discarded");
    bough_store_free_list(groups);
    return rc;
}

static int followed_path(char *out, const bough_store *store, const char *branch,
                         bough_error *err) {
    return bough_path(out, BOUGH_PATH_MAX, err, "%s/branches/%s/" BOUGH_FOLLOWED_FILE, store->dir,
                      branch);
}

int bough_store_set_followed(bough_store *store, const char *branch, bool is_followed,
                             bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = followed_path(path, store, branch, err);
    if (!rc && is_followed) return bough_replace_file(path, "", 0, 0600, err);
    if (!rc && unlink(path) != 0 && errno != ENOENT)
        rc = bough_fail_sys(err, errno, "could not remove \"%s\"", path);
    return rc;
}

bool bough_store_is_followed(const bough_store *store, const char *branch) {
    char path[BOUGH_PATH_MAX];
    return followed_path(path, store, branch, NULL) == BOUGH_OK && access(path, F_OK) == 0;
}

int bough_store_purge(bough_store *store, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/trash", store->dir);
    if (rc) return rc;
    DIR *dir = opendir(path);
    if (!dir) return bough_fail_sys(err, errno, "could not list \"%s\"", path);
    struct dirent *d;
    int failed = 0, result = BOUGH_OK;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
        rc = bough_path(path, sizeof path, err, "%s/trash/%s", store->dir, d->d_name);
        if (!rc) rc = bough_rmtree(path, err);
        BOUGH_POINT(rc, "purge.one-removed");
        if (rc) result = rc; /* what can go goes */
        rc = BOUGH_OK;
    }
    if (failed) result = bough_fail_sys(err, failed, "could not list the trash");
    closedir(dir);
    return result;
}

/* ---- bytes
 * -----------------------------------------------------------------------------------------------
 */

bool bough_wal_start(uint64_t *start, const char *name, uint64_t segment_bytes) {
    unsigned tli, log, seg;
    if (!bough_parse_wal_name(name, &tli, &log, &seg)) return false;
    *start = ((uint64_t)log << 32) + seg * segment_bytes;
    return true;
}

uint64_t bough_wal_past_bytes(const bough_moment *m, const char *name, const struct stat *st) {
    uint64_t bytes = (uint64_t)st->st_blocks * 512U, size = (uint64_t)st->st_size, start;
    if (!m->segment_bytes || size != m->segment_bytes || !bough_wal_start(&start, name, size) ||
        start >= m->redo)
        return 0;
    return m->redo - start < bytes ? m->redo - start : bytes;
}

typedef struct weighing {
    bough_usage *usage;
    const bough_moment *moment;
    size_t root; /* length of the branch's directory */
} weighing;

/* WAL segments that other branches link to count as shared. */
static int weigh_one(void *context, const char *path, unsigned char type, bool is_after,
                     bough_error *err) {
    const weighing *w = context;
    struct stat st;
    (void)err;
    if (is_after || lstat(path, &st) != 0) return BOUGH_OK;
    uint64_t bytes = (uint64_t)st.st_blocks * 512U, past = 0;
    const char *below = path + w->root;
    if (strncmp(below, "/history", 8) == 0 || strncmp(below, "/points", 7) == 0)
        past = bytes;
    else if (strncmp(below, "/pgdata/pg_wal/", 15) == 0 && type == DT_REG)
        past = bough_wal_past_bytes(w->moment, below + 15, &st);
    if (type == DT_REG && st.st_nlink > 1) {
        w->usage->shared_bytes += bytes;
        return BOUGH_OK;
    }
    w->usage->history_bytes += past;
    w->usage->own_bytes += bytes - past;
    return BOUGH_OK;
}

static int directory_bytes(bough_usage *usage, const char *path, const bough_moment *m,
                           bough_error *err) {
    weighing w = {usage, m, strlen(path)};
    return bough_walk(path, true, weigh_one, &w, err);
}

/* Layers that no present stack has, but restore points of this branch. */
typedef struct past_layers {
    const bough_store *store;
    const char *branch;
    const bough_uses *uses;
    const bough_layers *present;
    bough_layers found;
    uint64_t bytes;
} past_layers;

static bool has_layer(const bough_layers *layers, const char *dir) {
    for (size_t i = 0; i < layers->n; i++)
        if (strcmp(layers->dir[i], dir) == 0) return true;
    return false;
}

static int note_past(void *context, const char *of, const bough_layers *layers, bough_error *err) {
    past_layers *p = context;
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && strchr(of, '/') && i < layers->n; i++) {
        const char *dir = layers->dir[i];
        uint64_t bytes = 0;
        if (has_layer(p->present, dir) || has_layer(&p->found, dir)) continue;
        char(*more)[100] = realloc(p->found.dir, (p->found.n + 1) * sizeof *more);
        if (!more) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        p->found.dir = more;
        memcpy(more[p->found.n++], dir, sizeof *more);
        if (!bough_uses_shared(p->uses, p->branch, dir))
            rc = bough_layer_bytes(&bytes, p->store, dir, err);
        p->bytes += bytes;
    }
    return rc;
}

static int past_layer_bytes(uint64_t *bytes, const bough_store *store, const char *branch,
                            const bough_uses *uses, const bough_layers *present, bough_error *err) {
    past_layers p = {.store = store, .branch = branch, .uses = uses, .present = present};
    int rc = bough_stacks_of(store, branch, note_past, &p, err);
    *bytes = p.bytes;
    bough_layers_free(&p.found);
    return rc;
}

int bough_store_usage(bough_usage *usage, bough_store *store, const char *branch,
                      const bough_uses *uses, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    bough_uses *own = NULL;
    bough_layers layers = {NULL, 0};
    memset(usage, 0, sizeof *usage);
    int rc = bough_path(path, sizeof path, err, "%s/branches/%s", store->dir, branch);
    if (!rc) rc = bough_layers_read(&layers, store, branch, err);
    bough_moment *m = rc ? NULL : malloc(sizeof *m);
    char pgdata[BOUGH_PATH_MAX];
    if (!rc && !m) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = bough_store_pgdata(pgdata, store, branch, err);
    if (!rc && bough_moment_read(m, pgdata, NULL, NULL) != BOUGH_OK) m->segment_bytes = 0;
    if (!rc) rc = directory_bytes(usage, path, m, err);
    free(m);
    if (!rc && !uses) rc = bough_uses_new(&own, store, NULL, err);
    if (own) uses = own;
    bool shared = false;
    for (size_t i = 0; !rc && i < layers.n; i++) {
        uint64_t bytes;
        /* stacks share their lower ends: below a shared layer all are shared */
        shared = shared || bough_uses_shared(uses, branch, layers.dir[i]);
        rc = bough_layer_bytes(&bytes, store, layers.dir[i], err);
        if (rc) break;
        if (shared)
            usage->shared_bytes += bytes;
        else
            usage->own_bytes += bytes;
    }
    uint64_t past = 0;
    if (!rc) rc = past_layer_bytes(&past, store, branch, uses, &layers, err);
    usage->history_bytes += past;
    bough_point *points = NULL;
    size_t n = 0;
    if (!rc) rc = bough_store_points(&points, &n, store, branch, err);
    if (!rc && n) usage->history_begins_ms = points[0].time_ms;
    free(points);
    usage->depth = (unsigned)layers.n;
    bough_uses_free(own);
    bough_layers_free(&layers);
    return rc;
}

/* ---- reconciliation
 * ---------------------------------------------------------------------------------------- */

static bool is_known(const char *name, const char *const *known, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(known[i], name) == 0) return true;
    return false;
}

static int discard_unknown(const bough_store *store, const char *kind, const char *const *known,
                           size_t n, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/%s", store->dir, kind);
    if (rc) return rc;
    DIR *dir = opendir(path);
    if (!dir) return bough_fail_sys(err, errno, "could not list \"%s\"", path);
    struct dirent *d;
    int failed = 0;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
            is_known(d->d_name, known, n))
            continue;
        bough_log(BOUGH_LOG_WARN, "discarding what the catalogue does not know", "kind", kind,
                  "name", d->d_name, NULL);
        rc = bough_store_discard(store, kind, d->d_name, err);
    }
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", path);
    closedir(dir);
    return rc;
}

/* What merges that did not end left. */
static int discard_merges(const bough_store *store, bough_error *err) {
    char path[BOUGH_PATH_MAX], **groups = NULL;
    int rc = bough_layer_groups(&groups, store, err);
    for (char **g = groups; !rc && *g; g++) {
        rc = bough_path(path, sizeof path, err, "%s/layers/%s/" BOUGH_MERGING, store->dir, *g);
        if (!rc) rc = bough_rmtree(path, err);
    }
    bough_store_free_list(groups);
    return rc;
}

int bough_store_reconcile(bough_store *store, const char *const *known, bough_shm *const *live,
                          bool *missing, size_t n, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < n; i++) {
        missing[i] = !bough_store_has_branch(store, known[i]);
        if (!missing[i]) rc = bough_pending_mark_outlived(store, known[i], err);
    }
    /* before an index is made, or read, over one that names what is lost */
    if (!rc) rc = bough_layers_reindex(store, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (!missing[i]) rc = bough_seal_mend(store, known[i], live ? live[i] : NULL, err);
    if (!rc) bough_store_sweep(store, known, n);
    if (!rc) rc = discard_unknown(store, "branches", known, n, err);
    if (!rc) rc = discard_merges(store, err);
    if (!rc) rc = bough_store_collect(store, NULL, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/tmp", store->dir);
    if (!rc) rc = bough_rmtree(path, err);
    if (!rc) rc = bough_mkdirs(path, 0700, err);
    return rc;
}
