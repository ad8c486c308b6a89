/*
 * Layers that were not durable when the machine went down. Their extents are the truth: a block
 * that the index names and the disk lost must fall through again. Nothing may read such a layer, or
 * make it durable, before its index has been made anew; so that is done for all of them at the
 * start of the server, whoever names them: the branch that they were sealed from may be gone, or
 * stand on a merged layer now, while a snapshot, a child or a restore point still has them.
 *
 * An index is made over the layers below, of whose files it needs the sizes: they come first. The
 * note of the boot comes last, so that a crash before it leaves all to be done again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"
#include "util/crashpoint.h"
#include "util/log.h"

typedef struct outlived {
    bough_store *store;
    char (*dir)[100];
    size_t n;
} outlived;

/* (bough_layer_visitor) */
static int look_at(void *context, const char *dir, bough_error *err) {
    outlived *o = context;
    if (!bough_layer_outlived_boot(o->store, dir)) return BOUGH_OK;
    char(*more)[100] = realloc(o->dir, (o->n + 1) * sizeof *more);
    if (!more) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    o->dir = more;
    (void)snprintf(more[o->n++], sizeof *more, "%s", dir);
    return BOUGH_OK;
}

/* Take a layer from those that are left. */
static bool take(outlived *o, const char *dir) {
    for (size_t i = 0; i < o->n; i++) {
        if (strcmp(o->dir[i], dir) != 0) continue;
        memmove(o->dir[i], o->dir[--o->n], sizeof *o->dir);
        return true;
    }
    return false;
}

/* (bough_stack_visitor) From the bottom. What is below a layer is the same in all stacks that have
 * it, or merged from the same. */
static int reindex_stack(void *context, const char *of, const bough_layers *layers,
                         bough_error *err) {
    outlived *o = context;
    int rc = BOUGH_OK;
    for (size_t i = layers->n; !rc && o->n && i-- > 0;) {
        const char *dir = layers->dir[i];
        if (!take(o, dir)) continue;
        bough_log(BOUGH_LOG_WARN, "indexing a layer anew", "branch", of, "layer", dir, NULL);
        const bough_layers below = {layers->dir + i + 1, layers->n - i - 1};
        rc = bough_index_rebuild(o->store, dir, &below, err);
        BOUGH_POINT(rc, "reindex.indexed");
        if (!rc) rc = bough_layer_set_boot(o->store, dir, err);
    }
    return rc;
}

int bough_layers_reindex(bough_store *store, bough_error *err) {
    outlived o = {.store = store};
    int rc = bough_layers_each(store, look_at, &o, err);
    /* those that no stack names are collected */
    if (!rc && o.n) rc = bough_stacks_each(store, reindex_stack, &o, err);
    free(o.dir);
    return rc;
}
