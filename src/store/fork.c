/* Branching: adopting a plain cluster, taking a moment of a parent. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/point.h"
#include "store/seal.h"
#include "util/crashpoint.h"

int bough_child_check(const bough_store *store, const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    if (!bough_store_id_is_valid(branch))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" is not a branch id", branch);
    int rc = bough_branch_path(path, store, branch, "", err);
    if (!rc && access(path, F_OK) == 0)
        rc = bough_fail(err, BOUGH_E_CONFLICT, "branch \"%s\" exists", branch);
    return rc;
}

int bough_child_name(bough_store *store, const char *temp, const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_branch_path(path, store, branch, "", err);
    if (rc) return rc;
    pthread_mutex_lock(&store->places);
    if (rename(temp, path) != 0) rc = bough_fail_sys(err, errno, "could not rename \"%s\"", temp);
    pthread_mutex_unlock(&store->places);
    if (rc) return rc;
    *strrchr(path, '/') = '\0';
    rc = bough_fsync_path(path, err);
    /* nobody will be told of it: it must not keep the next one from its name */
    if (rc) bough_ignore(bough_store_discard(store, "branches", branch, NULL));
    return rc;
}

/* ---- adopting a plain cluster
 * ------------------------------------------------------------------------- */

static int check_plain(const char *pgdata, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    struct stat st;
    int rc = bough_path(path, sizeof path, err, "%s/postmaster.pid", pgdata);
    if (!rc && access(path, F_OK) == 0)
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "a server runs, or ran, on \"%s\"", pgdata);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_tblspc", pgdata);
    /* empty: two names; a tablespace is a link in it */
    if (!rc && stat(path, &st) == 0 && rmdir(path) != 0) {
        bough_fail(err, BOUGH_E_PRECONDITION, "the cluster has tablespaces");
        return bough_hint(err,
                          "Move their tables into pg_default first, or restore a dump instead.");
    }
    if (!rc && mkdir(path, 0700) != 0 && errno != EEXIST)
        rc = bough_fail_sys(err, errno, "could not create \"%s\"", path);
    return rc;
}

int bough_store_adopt(bough_store *store, const char *branch, const char *pgdata,
                      bough_error *err) {
    char temp[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX], control[BOUGH_PATH_MAX], dir[100];
    bough_moment *m = malloc(sizeof *m);
    bough_layers none = {NULL, 0}, one = {NULL, 0};
    int rc =
        m ? bough_child_check(store, branch, err) : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = check_plain(pgdata, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/global/pg_control", pgdata);
    if (!rc) rc = bough_path(control, sizeof control, err, "%s/%s", pgdata, BOUGH_CONTROL_NAME);
    if (!rc && rename(path, control) != 0)
        rc = bough_fail_sys(err, errno, "could not rename \"%s\"", path);
    BOUGH_POINT(rc, "adopt.control-moved");
    if (!rc) rc = bough_moment_read(m, pgdata, NULL, err);
    if (!rc && !m->clean)
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "the cluster \"%s\" was not shut down cleanly",
                        pgdata);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/base/pgsql_tmp", pgdata);
    if (!rc) rc = bough_rmtree(path, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/%s", pgdata, BOUGH_TMP_NAME);
    if (!rc) rc = bough_mkdirs(path, 0700, err);
    /* the branch's directory, under another name, with a stack that names the layer before there is
     * one: who collects layers meanwhile must find it referenced */
    char suffixed[80];
    (void)snprintf(suffixed, sizeof suffixed, "%s.new~", branch);
    if (!rc) rc = bough_branch_path(temp, store, suffixed, "", err);
    if (!rc) rc = bough_rmtree(temp, err);
    if (!rc) rc = bough_mkdirs(temp, 0700, err);
    if (!rc) rc = bough_path(dir, sizeof dir, err, "%s/%08u", branch, 1U);
    if (!rc) rc = bough_layers_write(store, suffixed, "stack", dir, &none, err);
    /* the layer: its files, then its index */
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s/data", store->dir, dir);
    if (!rc) {
        pthread_mutex_lock(&store->places); /* or the group's directory is removed while empty */
        rc = bough_mkdirs(path, 0700, err);
        pthread_mutex_unlock(&store->places);
    }
    for (size_t i = 0; !rc && i < BOUGH_LAYERED_COUNT; i++) {
        char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
        rc = bough_path(from, sizeof from, err, "%s/%s", pgdata, bough_layered_dirs[i]);
        if (!rc) rc = bough_path(to, sizeof to, err, "%s/%s", path, bough_layered_dirs[i]);
        if (!rc && rename(from, to) != 0)
            rc = bough_fail_sys(err, errno, "could not move \"%s\"", from);
        BOUGH_POINT(rc, "adopt.directory-moved");
    }
    if (!rc) rc = bough_head_skeleton(pgdata, err);
    if (!rc) rc = bough_index_rebuild(store, dir, &none, err);
    BOUGH_POINT(rc, "adopt.indexed");
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, branch);
    if (!rc) rc = bough_fsync_tree(path, err);
    if (!rc) rc = bough_layer_set_durable(store, dir, err);
    BOUGH_POINT(rc, "adopt.layer-durable");
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pgdata", temp);
    if (!rc && rename(pgdata, path) != 0)
        rc = bough_fail_sys(err, errno, "could not move \"%s\"", pgdata);
    BOUGH_POINT(rc, "adopt.pgdata-moved");
    if (!rc) rc = bough_layers_read(&one, store, suffixed, err);
    if (!rc) rc = bough_child_settle(store, suffixed, m, &one, 0, err);
    bough_layers_free(&one);
    if (!rc) rc = bough_fsync_tree(temp, err);
    BOUGH_POINT(rc, "adopt.stacked");
    if (!rc) rc = bough_child_name(store, temp, branch, err);
    BOUGH_POINT(rc, "adopt.named");
    if (rc && rc != BOUGH_E_CONFLICT) {
        bough_error ignored;
        if (bough_path(path, sizeof path, &ignored, "%s/layers/%s", store->dir, branch) == 0)
            bough_ignore(bough_rmtree(path, &ignored));
        if (bough_branch_path(temp, store, branch, ".new~", &ignored) == 0)
            bough_ignore(bough_rmtree(temp, &ignored));
    }
    free(m);
    return rc;
}

/* ---- taking a moment
 * ------------------------------------------------------------------------------------ */

typedef struct taking {
    bough_store *store;
    const char *parent;
    bough_seal seal;
    bough_moment moment;
    char temp[BOUGH_PATH_MAX]; /* the child's directory while it is made */
    char dest[BOUGH_PATH_MAX]; /* temp/pgdata */
} taking;

/* (bough_seal_link) */
static int link_moment(void *context, const bough_moment *moment, const char *pgdata,
                       bough_error *err) {
    return bough_moment_link(moment, pgdata, context, false, err);
}

int bough_child_settle(bough_store *store, const char *dir, const bough_moment *moment,
                       const bough_layers *layers, uint64_t replay_bytes, bough_error *err) {
    char path[BOUGH_PATH_MAX], pgdata[BOUGH_PATH_MAX];
    int rc = bough_branch_path(path, store, dir, "/history", err);
    if (!rc) rc = bough_mkdirs(path, 0700, err);
    if (!rc) rc = bough_branch_path(pgdata, store, dir, "/pgdata", err);
    if (!rc) rc = bough_layers_write(store, dir, "stack", NULL, layers, err);
    BOUGH_POINT(rc, "fork.stack-written");
    if (!rc) rc = bough_point_write_first(store, dir, moment, pgdata, err);
    if (!rc) rc = bough_branch_path(path, store, dir, "", err);
    if (!rc && (replay_bytes || !bough_layers_are_durable(store, layers)))
        rc = bough_pending_write(moment, path, replay_bytes, err);
    return rc;
}

/* Give the child its stack and its name. */
static int settle_child(taking *t, const char *child, bough_error *err) {
    char suffixed[80];
    bough_layers layers = {NULL, 0};
    (void)snprintf(suffixed, sizeof suffixed, "%s.new~", child);
    int rc = bough_moment_finish(&t->moment, t->dest, BOUGH_CONTROL_NAME, err);
    BOUGH_POINT(rc, "fork.control-written");
    if (!rc) rc = bough_layers_read(&layers, t->store, t->parent, err);
    if (!rc) rc = bough_child_settle(t->store, suffixed, &t->moment, &layers, 0, err);
    bough_layers_free(&layers);
    BOUGH_POINT(rc, "fork.pending-written");
    if (!rc) rc = bough_child_name(t->store, t->temp, child, err);
    BOUGH_POINT(rc, "fork.child-named");
    return rc;
}

int bough_store_fork(bough_fork_result *result, bough_store *store, const char *parent,
                     const char *child, bough_shm *live, bough_error *err) {
    bough_fork_result spare;
    if (!result) result = &spare;
    memset(result, 0, sizeof *result);
    int rc = bough_child_check(store, child, err);
    if (rc) return rc;
    /* a child's first image must not depend on WAL that only its parent's first image has */
    if (!live && (rc = bough_store_settle(store, parent, err)) != 0) return rc;
    if (bough_store_sync_pending(store, parent) &&
        (rc = bough_store_sync(store, parent, live, err)) != 0)
        return rc;
    taking *t = calloc(1, sizeof *t);
    if (!t) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    t->store = store;
    t->parent = parent;
    rc = bough_branch_path(t->temp, store, child, ".new~", err);
    if (!rc) rc = bough_path(t->dest, sizeof t->dest, err, "%s/pgdata", t->temp);
    if (!rc) rc = bough_rmtree(t->temp, err);
    if (!rc) rc = bough_seal_begin(&t->seal, store, parent, err);
    if (!rc) rc = bough_moment_dirs(t->seal.pgdata, t->dest, err);
    if (!rc)
        rc = bough_seal_take(&t->seal, &t->moment, result, store, live ? live->header : NULL,
                             link_moment, t->dest, err);
    double before = bough_now_ms();
    if (!rc) rc = settle_child(t, child, err);
    result->create_ms = bough_now_ms() - before;
    if (rc) bough_ignore(bough_rmtree(t->temp, NULL));
    bough_seal_end(&t->seal, store);
    free(t);
    if (rc) bough_context(err, "could not branch from \"%s\"", parent);
    return rc;
}

int bough_store_redo_bytes(uint64_t *bytes, const bough_store *store, const char *branch,
                           const bough_shm *live, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    bough_moment *m = malloc(sizeof *m);
    *bytes = 0;
    if (!m) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = bough_store_pgdata(pgdata, store, branch, err);
    if (!rc) rc = bough_moment_read(m, pgdata, live->header, err);
    if (!rc && m->wal_end > m->redo) *bytes = m->wal_end - m->redo;
    free(m);
    return rc;
}
