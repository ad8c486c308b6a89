/*
 * Branches whose checkpoints do not vouch for their pages yet: those on layers that are not
 * durable, and those made at a moment of the past, whose first recovery writes so many pages that
 * nobody should wait for the disk. Such a branch keeps its first control ("control.first") and all
 * its WAL, and goes back to both where the machine is started anew before bough_store_sync() has
 * made what it stands on durable. The file "pending" says so.
 *
 * Whether it goes back is decided by the first server after such a start, of all branches and
 * before it makes anything durable: the layers are shared, and who asks later finds them durable by
 * another branch's sync or by a merge, though that could save only what was left.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/internal.h"
#include "util/log.h"
#include "util/crashpoint.h"

/* In "pending": the id of the boot, and HEAD with the bytes of WAL to replay where the branch's own
 * files may not be durable either; or MARK, for it goes back in any case. */
#define HEAD " head "
#define MARK "refused"

bool bough_layers_are_durable(const bough_store *store, const bough_layers *layers) {
    for (size_t i = 0; i < layers->n; i++)
        if (!bough_layer_is_durable(store, layers->dir[i])) return false;
    return true;
}

bool bough_layers_are_refused(const bough_store *store, const bough_layers *layers) {
    for (size_t i = 0; i < layers->n; i++)
        if (!bough_layer_is_durable(store, layers->dir[i]) &&
            bough_layer_is_refused(store, layers->dir[i]))
            return true;
    return false;
}

int bough_pending_write(const bough_moment *m, const char *dir, uint64_t replay_bytes,
                        bough_error *err) {
    char path[BOUGH_PATH_MAX], boot[BOUGH_BOOT_ID_SIZE], text[BOUGH_BOOT_ID_SIZE + 40];
    int rc = bough_boot_id(boot, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/control.first", dir);
    if (!rc) rc = bough_write_file(path, m->control, m->control_bytes, 0600, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pending", dir);
    if (rc) return rc;
    if (replay_bytes)
        (void)snprintf(text, sizeof text, "%s" HEAD "%" PRIu64, boot, replay_bytes);
    else
        (void)snprintf(text, sizeof text, "%s", boot);
    return bough_write_file(path, text, strlen(text), 0600, err);
}

bool bough_store_sync_pending(const bough_store *store, const char *branch) {
    char path[BOUGH_PATH_MAX];
    return bough_branch_path(path, store, branch, "/pending", NULL) == 0 && access(path, F_OK) == 0;
}

int bough_pending_mark(const bough_store *store, const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_branch_path(path, store, branch, "/pending", err);
    if (rc || access(path, F_OK) != 0) return rc;
    return bough_write_file(path, MARK, strlen(MARK), 0600, err);
}

/* What "pending" says. */
typedef struct pending {
    bool is_marked;
    bool has_head; /* the branch's own files may not be durable either */
    uint64_t replay_bytes;
    bool is_same_boot; /* the machine has not been started since */
} pending;

static int pending_read(pending *p, const bough_store *store, const char *branch,
                        bough_error *err) {
    char path[BOUGH_PATH_MAX], boot[BOUGH_BOOT_ID_SIZE], *text = NULL;
    size_t n;
    int rc = bough_boot_id(boot, err);
    if (!rc) rc = bough_branch_path(path, store, branch, "/pending", err);
    if (!rc) rc = bough_read_file(&text, &n, path, 4096, err);
    if (rc) return rc;
    size_t length = strcspn(text, " ");
    p->is_marked = strcmp(text, MARK) == 0;
    p->has_head = strncmp(text + length, HEAD, strlen(HEAD)) == 0;
    p->replay_bytes = p->has_head ? strtoull(text + length + strlen(HEAD), NULL, 10) : 0;
    p->is_same_boot = length == strlen(boot) && memcmp(text, boot, length) == 0;
    free(text);
    return BOUGH_OK;
}

bool bough_pending_is_marked(const bough_store *store, const char *branch) {
    pending p;
    return pending_read(&p, store, branch, NULL) == BOUGH_OK && p.is_marked;
}

void bough_pending_tell(bough_header *live, const bough_store *store, const char *branch) {
    pending p;
    if (pending_read(&p, store, branch, NULL) != BOUGH_OK || !p.has_head) return;
    atomic_store(&live->defers_sync, 1);
    atomic_store(&live->replay_bytes, p.replay_bytes);
}

/* Whether a branch that waits has to go back to its first control. That it was marked is all that
 * is known of an earlier boot. */
static int must_return(bool *must, const bough_store *store, const char *branch, bough_error *err) {
    pending p;
    bough_layers layers;
    *must = false;
    int rc = bough_layers_read(&layers, store, branch, err);
    if (rc) return rc;
    bool refused = bough_layers_are_refused(store, &layers);
    bough_layers_free(&layers);
    rc = pending_read(&p, store, branch, err);
    if (!rc) *must = p.is_marked || refused;
    return rc;
}

int bough_pending_mark_outlived(bough_store *store, const char *branch, bough_error *err) {
    pending p;
    bough_layers layers;
    if (!bough_store_sync_pending(store, branch)) return BOUGH_OK;
    int rc = pending_read(&p, store, branch, err);
    if (rc || p.is_marked || p.is_same_boot) return rc;
    rc = bough_layers_read(&layers, store, branch, err);
    if (rc) return rc;
    bool may_be_lost = p.has_head || !bough_layers_are_durable(store, &layers);
    bough_layers_free(&layers);
    if (!may_be_lost) return BOUGH_OK; /* the sync had come so far */
    pthread_mutex_lock(&store->places);
    rc = bough_pending_mark(store, branch, err);
    pthread_mutex_unlock(&store->places);
    BOUGH_POINT(rc, "settle.marked");
    return rc;
}

/*
 * The machine was started anew before what the branch stands on was made durable, or the disk
 * refused to make it so: pages may be lost. The branch's own checkpoints do not vouch for those, so
 * it goes back to its first pg_control; the WAL since then was kept.
 */
int bough_store_settle(bough_store *store, const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX], *text = NULL;
    size_t n;
    bool must;
    if (!bough_store_sync_pending(store, branch)) return BOUGH_OK;
    int rc = must_return(&must, store, branch, err);
    if (rc || !must) return rc;
    rc = bough_branch_path(path, store, branch, "/control.first", err);
    if (!rc) rc = bough_read_file(&text, &n, path, 8192, err);
    if (!rc) rc = bough_branch_path(path, store, branch, "/pgdata/" BOUGH_CONTROL_NAME, err);
    if (!rc) {
        rc = bough_write_file(path, text, n, 0600, err);
        free(text);
    }
    BOUGH_POINT(rc, "settle.control-written");
    /* from here on it is an ordinary recovery, whose fsyncs reach what it writes; the layers are as
     * they are */
    if (!rc) rc = bough_branch_path(path, store, branch, "/pending", err);
    if (rc) return rc;
    pthread_mutex_lock(&store->places); /* or it is marked when it is no more */
    if (unlink(path) != 0) rc = bough_fail_sys(err, errno, "could not remove \"%s\"", path);
    pthread_mutex_unlock(&store->places);
    return rc;
}

/* All is durable: the branch waits no more, but where it has to go back. */
static int end_pending(bool *was_pending, bough_store *store, const char *branch,
                       bough_error *err) {
    char path[BOUGH_PATH_MAX];
    pending p = {0};
    int rc = bough_branch_path(path, store, branch, "/pending", err);
    if (rc) return rc;
    pthread_mutex_lock(&store->places);
    if (bough_store_sync_pending(store, branch)) rc = pending_read(&p, store, branch, err);
    if (!rc && p.is_marked) {
        bough_fail(err, BOUGH_E_SYS,
                   "branch \"%s\" has to replay its WAL, since the disk had refused to write it: "
                   "Input/output error",
                   branch);
        rc = bough_hint(err, "It is stopped for that; retry then.");
    } else if (!rc) {
        *was_pending = unlink(path) == 0;
    }
    pthread_mutex_unlock(&store->places);
    return rc;
}

/* (bough_visit) The compute makes and removes files meanwhile. */
static int sync_name(void *context, const char *path, unsigned char type, bool is_after,
                     bough_error *err) {
    (void)context;
    if (type != DT_REG && !is_after) return BOUGH_OK;
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0 && (errno == ENOENT || errno == ELOOP)) return BOUGH_OK;
    if (fd < 0) return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    int rc = fsync(fd) == 0 ? BOUGH_OK : bough_fail_sys(err, errno, "could not fsync \"%s\"", path);
    close(fd);
    return rc;
}

/*
 * The branch's own files, of which its compute has made none durable so far. From now on it does:
 * what it writes while this goes on is its own to make durable, and what it was told without an
 * fsync was written before.
 */
static int sync_head(bough_store *store, const char *branch, bough_shm *live, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    bough_error why = {0};
    if (live) atomic_store(&live->header->defers_sync, 0);
    int rc = bough_store_pgdata(path, store, branch, err);
    if (rc) return rc;
    rc = bough_walk(path, false, sync_name, NULL, &why);
    if (!rc) return rc;
    if (err) *err = why;
    if (!bough_is_of_disk(&why)) return rc;
    /* the kernel tells of it once */
    pthread_mutex_lock(&store->places);
    if (bough_pending_mark(store, branch, &why) != BOUGH_OK)
        bough_log(BOUGH_LOG_ERROR, "could not note that the disk refused a branch", "branch",
                  branch, "error", why.message, NULL);
    pthread_mutex_unlock(&store->places);
    bough_store_note_refused(store);
    return rc;
}

int bough_store_sync(bough_store *store, const char *branch, bough_shm *live, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    bough_layers layers;
    pending p = {0};
    bool was_pending = false;
    BOUGH_POINT(BOUGH_OK, "sync.begun");
    /* what is made durable now is what is left, and that may be too little */
    int rc = live ? BOUGH_OK : bough_store_settle(store, branch, err);
    if (!rc) rc = bough_layers_read(&layers, store, branch, err);
    if (rc) return rc;
    for (size_t i = layers.n; !rc && i-- > 0;) {
        if (bough_layer_is_durable(store, layers.dir[i])) continue;
        rc = bough_layer_sync(store, layers.dir[i], err);
        BOUGH_POINT(rc, "sync.layer-durable");
    }
    bough_layers_free(&layers);
    /* what cannot be read says nothing: it must not be taken for "layers alone" */
    if (!rc && bough_store_sync_pending(store, branch)) rc = pending_read(&p, store, branch, err);
    if (!rc && p.has_head) {
        rc = sync_head(store, branch, live, err);
        BOUGH_POINT(rc, "sync.head-durable");
    }
    BOUGH_POINT(rc, "sync.all-durable");
    if (!rc) rc = end_pending(&was_pending, store, branch, err);
    if (rc || !was_pending) return rc;
    BOUGH_POINT(rc, "sync.pending-removed");
    rc = bough_branch_path(path, store, branch, "/control.first", err);
    if (!rc) unlink(path);
    return rc;
}
