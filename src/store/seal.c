/*
 * Sealing: a head becomes the newest layer of its branch. The head's directories are renamed,
 * whatever their size; the file "stack" is replaced by rename, and that is the moment at which the
 * seal has happened.
 *
 *   before     branches/B/next/ has new empty directories, layers/B/L/data exists, stack.next is
 * written gate       rename head -> layer, next -> head, stack.next -> stack after      directories
 * synced, index written
 *
 * A crash before the stack was replaced is undone by renaming back (the new head is empty: the gate
 * was closed); one after it is finished by writing the index, for which the layer's directory has
 * all that is needed.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/seal.h"
#include "util/log.h"
#include "util/crashpoint.h"

int bough_layer_next(char *dir, size_t size, const bough_store *store, const char *group,
                     bough_error *err) {
    char path[BOUGH_PATH_MAX];
    unsigned highest = 0, last, n;
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, group);
    if (!rc) rc = bough_mkdirs(path, 0700, err);
    if (rc) return rc;
    DIR *d = opendir(path);
    if (!d) return bough_fail_sys(err, errno, "could not list \"%s\"", path);
    struct dirent *e;
    int failed = 0;
    while ((e = bough_list_next(d, &failed)) != NULL)
        if (sscanf(e->d_name, "%8u", &n) == 1 && n > highest) highest = n;
    closedir(d);
    if (failed) return bough_fail_sys(err, failed, "could not list \"%s\"", path);
    /* also the numbers of layers that are gone; after the listing, as they are noted before they go
     */
    rc = bough_layer_last(&last, store, group, err);
    if (rc) return rc;
    return bough_path(dir, size, err, "%s/%08u", group, (last > highest ? last : highest) + 1);
}

int bough_seal_begin(bough_seal *seal, bough_store *store, const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    memset(seal, 0, sizeof *seal);
    (void)snprintf(seal->branch, sizeof seal->branch, "%s", branch);
    int rc = bough_layers_read(&seal->below, store, branch, err);
    if (!rc) rc = bough_seal_complete(store, branch, &seal->below, err);
    if (!rc) rc = bough_layer_next(seal->layer, sizeof seal->layer, store, branch, err);
    if (!rc)
        rc = bough_path(seal->data, sizeof seal->data, err, "%s/layers/%s/data", store->dir,
                        seal->layer);
    if (!rc)
        rc = bough_path(seal->next, sizeof seal->next, err, "%s/branches/%s/next", store->dir,
                        branch);
    if (!rc) rc = bough_store_pgdata(seal->pgdata, store, branch, err);
    if (!rc) rc = bough_rmtree(seal->next, err);
    if (!rc) rc = bough_head_skeleton(seal->next, err);
    if (!rc) rc = bough_layers_write(store, branch, "stack.next", seal->layer, &seal->below, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, seal->layer);
    if (!rc) rc = bough_mkdirs(seal->data, 0700, err);
    BOUGH_POINT(rc, "seal.prepared");
    return rc;
}

/* Put the head's directories back; what was renamed last first. */
static bool undo(const bough_seal *seal, size_t renamed) {
    bool all = true;
    char head[BOUGH_PATH_MAX], layer[BOUGH_PATH_MAX];
    for (size_t i = renamed; i-- > 0;) {
        (void)snprintf(head, sizeof head, "%s/%s", seal->pgdata, bough_layered_dirs[i]);
        (void)snprintf(layer, sizeof layer, "%s/%s", seal->data, bough_layered_dirs[i]);
        if (access(layer, F_OK) != 0) continue;
        if (bough_rmtree(head, NULL) != 0 || rename(layer, head) != 0) {
            bough_log(BOUGH_LOG_ERROR, "could not undo a seal", "branch", seal->branch, "directory",
                      head, NULL);
            all = false;
        }
    }
    return all;
}

int bough_seal_switch(bough_seal *seal, const bough_store *store, bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
    int rc = BOUGH_OK;
    size_t i = 0;
    for (; !rc && i < BOUGH_LAYERED_COUNT; i++) {
        (void)snprintf(from, sizeof from, "%s/%s", seal->pgdata, bough_layered_dirs[i]);
        (void)snprintf(to, sizeof to, "%s/%s", seal->data, bough_layered_dirs[i]);
        if (rename(from, to) != 0) {
            rc = bough_fail_sys(err, errno, "could not move \"%s\" to \"%s\"", from, to);
            break;
        }
        BOUGH_POINT(rc, "seal.head-moved");
        (void)snprintf(to, sizeof to, "%s/%s", seal->next, bough_layered_dirs[i]);
        if (rename(to, from) != 0)
            rc = bough_fail_sys(err, errno, "could not move \"%s\" to \"%s\"", to, from);
        BOUGH_POINT(rc, "seal.head-replaced");
    }
    if (!rc) {
        (void)snprintf(from, sizeof from, "%s/branches/%s/stack.next", store->dir, seal->branch);
        (void)snprintf(to, sizeof to, "%s/branches/%s/stack", store->dir, seal->branch);
        if (rename(from, to) != 0) rc = bough_fail_sys(err, errno, "could not replace \"%s\"", to);
    }
    /* what could not be put back is in the layer: it must stay, for the next start to try again */
    seal->keep = rc && !undo(seal, i < BOUGH_LAYERED_COUNT ? i + 1 : i);
    seal->done = !rc;
    BOUGH_POINT(rc, "seal.stack-replaced");
    return rc;
}

/* Tell the processes of a running compute: their head is a layer now, whose index is this
 * generation. Also what a boughd that died within it began. */
void bough_seal_publish(const bough_seal *seal, bough_header *live) {
    uint32_t depth = atomic_load(&live->depth), gen = atomic_load(&live->gen);
    if (depth && strcmp(live->stack[depth - 1].dir, seal->layer) == 0) depth--;
    bough_stack_item *item = &live->stack[depth];
    (void)snprintf(item->dir, sizeof item->dir, "%s", seal->layer);
    atomic_store(&item->gen, gen);
    atomic_store(&item->needs_sync, 1);
    atomic_store(&live->depth, depth + 1);
    atomic_store(&live->gen, gen + 1);
    atomic_store(&live->changes, 0);
}

/* All that makes a seal durable. The index comes last: a layer that has one is complete, and knows
 * its boot. */
int bough_seal_finish(bough_seal *seal, bough_store *store, bough_header *live, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_fsync_path(seal->pgdata, err);
    if (!rc) rc = bough_fsync_path(seal->data, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, seal->branch);
    if (!rc) rc = bough_fsync_path(path, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/branches/%s", store->dir, seal->branch);
    if (!rc) rc = bough_fsync_path(path, err);
    if (!rc) rc = bough_layer_set_boot(store, seal->layer, err);
    BOUGH_POINT(rc, "seal.directories-synced");
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, seal->layer);
    if (!rc && live) rc = bough_index_write(live, atomic_load(&live->gen) - 1, path, err);
    if (!rc && !live) rc = bough_index_rebuild(store, seal->layer, &seal->below, err);
    BOUGH_POINT(rc, "seal.indexed");
    return rc;
}

int bough_seal_complete(bough_store *store, const char *branch, const bough_layers *layers,
                        bough_error *err) {
    char path[BOUGH_PATH_MAX];
    size_t n = strlen(branch);
    int rc = BOUGH_OK;
    for (size_t i = layers->n; !rc && i-- > 0;) {
        const char *dir = layers->dir[i];
        if (strncmp(dir, branch, n) != 0 || dir[n] != '/') continue;
        rc = bough_path(path, sizeof path, err, "%s/layers/%s/index", store->dir, dir);
        if (rc || access(path, F_OK) == 0) continue;
        bough_log(BOUGH_LOG_WARN, "finishing an interrupted seal", "branch", branch, "layer", dir,
                  NULL);
        bough_seal seal = {.below = {layers->dir + i + 1, layers->n - i - 1}};
        (void)snprintf(seal.branch, sizeof seal.branch, "%s", branch);
        (void)snprintf(seal.layer, sizeof seal.layer, "%s", dir);
        rc = bough_store_pgdata(seal.pgdata, store, branch, err);
        if (!rc)
            rc = bough_path(seal.data, sizeof seal.data, err, "%s/layers/%s/data", store->dir, dir);
        if (!rc) rc = bough_seal_finish(&seal, store, NULL, err);
    }
    return rc;
}

void bough_seal_end(bough_seal *seal, const bough_store *store) {
    char path[BOUGH_PATH_MAX];
    if (seal->keep) {
        bough_layers_free(&seal->below);
        return;
    }
    if (!seal->done && seal->layer[0] &&
        bough_path(path, sizeof path, NULL, "%s/layers/%s", store->dir, seal->layer) == 0)
        bough_ignore(bough_rmtree(path, NULL));
    if (seal->next[0] && bough_rmtree(seal->next, NULL) != BOUGH_OK &&
        bough_path(path, sizeof path, NULL, "%s/next", seal->branch) == BOUGH_OK)
        bough_ignore(bough_store_discard(store, "branches", path, NULL)); /* to try again there */
    if (!seal->done && bough_path(path, sizeof path, NULL, "%s/branches/%s/stack.next", store->dir,
                                  seal->branch) == 0)
        unlink(path);
    bough_layers_free(&seal->below);
}

/* ---- taking a moment
 * ------------------------------------------------------------------------------------ */

/* How long writers may take to come to rest; one write() on a slow disk. */
#define GATE_TIMEOUT_MS 2000

static int under_gate(bough_seal *seal, bough_moment *moment, const bough_store *store,
                      bough_header *live, bough_seal_link link, void *context, bough_error *err) {
    int rc = bough_moment_read(moment, seal->pgdata, live, err);
    BOUGH_POINT(rc, "seal.gate-closed");
    if (!rc) rc = link(context, moment, seal->pgdata, err);
    BOUGH_POINT(rc, "seal.moment-linked");
    if (live) seal->wanted = atomic_load(&live->changes) > 0;
    if (!rc && seal->wanted) rc = bough_seal_switch(seal, store, err);
    if (!rc && seal->wanted && live) {
        bough_stack_settle(live, store);
        bough_seal_publish(seal, live);
    }
    BOUGH_POINT(rc, "seal.published");
    return rc;
}

int bough_seal_take(bough_seal *seal, bough_moment *moment, bough_fork_result *result,
                    bough_store *store, bough_header *live, bough_seal_link link, void *context,
                    bough_error *err) {
    double before = bough_now_ms();
    bool empty = false;
    int rc = live ? BOUGH_OK : bough_head_is_empty(&empty, seal->pgdata, err);
    seal->wanted = !empty;
    if (rc) return rc;
    double closing = bough_now_ms();
    if (live && bough_gate_close(live, GATE_TIMEOUT_MS) != 0)
        return bough_fail(err, BOUGH_E_TIMEOUT,
                          "the writers of branch \"%s\" did not come to rest within %d ms",
                          seal->branch, GATE_TIMEOUT_MS);
    rc = under_gate(seal, moment, store, live, link, context, err);
    if (live) bough_gate_open(live);
    result->gate_ms = live ? bough_now_ms() - closing : 0;
    if (!rc && seal->wanted && live) bough_table_sweep(live);
    if (!rc && seal->wanted) rc = bough_seal_finish(seal, store, live, err);
    if (!rc && seal->wanted && moment->clean) rc = bough_layer_set_durable(store, seal->layer, err);
    result->sealed = !rc && seal->wanted;
    result->seal_ms = bough_now_ms() - before;
    return rc;
}

/* ---- after a crash
 * -------------------------------------------------------------------------------- */

/*
 * "stack.next" is written before anything is renamed and becomes the stack with the last rename:
 * while it is there, the seal of the layer on its top has not happened. Other layers without a name
 * in the stack are none of ours: restore points and branches that were restored may stand on them.
 */
static int undo_begun(bough_store *store, const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX], next[160], line[256] = "";
    int rc = bough_path(path, sizeof path, err, "%s/branches/%s/stack.next", store->dir, branch);
    FILE *f = rc ? NULL : fopen(path, "re");
    if (!f) return rc;
    /* written at once and renamed into place: it is whole */
    bool is_named = fgets(line, sizeof line, f) && fgets(line, sizeof line, f);
    (void)fclose(f);
    line[strcspn(line, "\n")] = '\0';
    bough_seal seal = {.done = false};
    (void)snprintf(seal.branch, sizeof seal.branch, "%s", branch);
    (void)snprintf(next, sizeof next, "%s/", branch);
    if (is_named && strncmp(line, next, strlen(next)) == 0) {
        rc = bough_path(seal.layer, sizeof seal.layer, err, "%s", line);
        if (!rc)
            rc = bough_path(seal.data, sizeof seal.data, err, "%s/layers/%s/data", store->dir,
                            seal.layer);
        if (!rc) rc = bough_store_pgdata(seal.pgdata, store, branch, err);
        if (rc) return rc;
        bough_log(BOUGH_LOG_WARN, "undoing an interrupted seal", "branch", branch, "layer",
                  seal.layer, NULL);
        if (!undo(&seal, BOUGH_LAYERED_COUNT))
            return bough_fail(err, BOUGH_E_SYS, "could not undo an interrupted seal of \"%s\"",
                              branch);
    }
    rc = bough_path(seal.next, sizeof seal.next, err, "%s/branches/%s/next", store->dir, branch);
    bough_seal_end(&seal, store);
    (void)unlink(path);
    return rc;
}

int bough_seal_mend(bough_store *store, const char *branch, bough_shm *live, bough_error *err) {
    bough_layers layers;
    int rc = bough_layers_read(&layers, store, branch, err);
    if (rc) return rc;
    bough_header *h = live ? live->header : NULL;
    bool closed = h && (atomic_load(&h->epoch) & 1);
    rc = undo_begun(store, branch, err);
    if (!rc && closed) {
        /* the stack was replaced, and the processes do not know yet, or not all of it */
        unsigned depth = atomic_load(&h->depth);
        bool is_begun = depth && layers.n == depth &&
                        strcmp(h->stack[depth - 1].dir, layers.dir[0]) == 0 &&
                        atomic_load(&h->stack[depth - 1].gen) == atomic_load(&h->gen);
        if (layers.n == depth + 1U || is_begun) {
            bough_seal seal = {.done = true};
            (void)snprintf(seal.layer, sizeof seal.layer, "%s", layers.dir[0]);
            bough_seal_publish(&seal, h);
        } else {
            bough_stack_publish(h, &layers); /* by a merge, or not at all */
        }
        bough_gate_open(h);
        bough_table_sweep(h);
    }
    if (!rc) rc = bough_seal_complete(store, branch, &layers, err);
    bough_layers_free(&layers);
    return rc;
}
