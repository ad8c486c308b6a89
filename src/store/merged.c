/*
 * Merged layers, and the stacks that can do with them.
 *
 * A merged layer shows what the layers that it was made of show together, so a stack may name
 * either it or them, and each stack changes at a time that suits it: the branch's for which it was
 * made at once, under the gate where it runs; that of another branch when it sleeps, since a
 * running compute may only read what was there at its start. A crash between two stacks leaves
 * nothing wrong.
 *
 * The file "merged" beside a merged layer's data tells the layers that it stands for, down to those
 * that are not merged themselves; where they are all gone, no stack names them and nothing is left
 * to do. (The number of a layer is never used again, so the list can't come to mean another one.)
 *
 * A refusal of the disk is not lost with the layer that it was of: while a part is refused, stacks
 * go on naming it, since by that it is found who has to be told; and what a compute was told of a
 * part, and has not passed on to an fsync yet, it is told of the layer that takes the part's place.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/internal.h"
#include "util/crashpoint.h"

#define GATE_TIMEOUT_MS 2000

/* ---- which there are ---- */

static bool all_exist(const bough_store *store, const bough_layers *parts) {
    char path[BOUGH_PATH_MAX];
    for (size_t i = 0; i < parts->n; i++)
        if (bough_path(path, sizeof path, NULL, "%s/layers/%s", store->dir, parts->dir[i]) ||
            access(path, F_OK) != 0)
            return false;
    return true;
}

int bough_merged_read(bough_layers *parts, const bough_store *store, const char *dir,
                      bough_error *err) {
    char path[BOUGH_PATH_MAX];
    memset(parts, 0, sizeof *parts);
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s/" BOUGH_MERGED_FILE, store->dir, dir);
    if (rc || access(path, F_OK) != 0) return rc;
    rc = bough_layers_load(parts, path, err);
    if (rc == BOUGH_E_NOTFOUND) { /* collected meanwhile */
        bough_error_clear(err);
        return BOUGH_OK;
    }
    return rc;
}

typedef struct loading {
    bough_merged *merged;
    const bough_store *store;
} loading;

static int add_layer(void *context, const char *dir, bough_error *err) {
    const loading *l = context;
    bough_merged *merged = l->merged;
    bough_layers parts;
    int rc = bough_merged_read(&parts, l->store, dir, err);
    if (rc || parts.n == 0 || !all_exist(l->store, &parts)) {
        bough_layers_free(&parts);
        return rc;
    }
    struct bough_merged_layer *more = realloc(merged->layers, (merged->n + 1) * sizeof *more);
    if (!more) {
        bough_layers_free(&parts);
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    merged->layers = more;
    (void)snprintf(more[merged->n].dir, sizeof more->dir, "%s", dir);
    more[merged->n++].parts = parts;
    return BOUGH_OK;
}

static int by_parts(const void *a, const void *b) {
    const struct bough_merged_layer *x = a, *y = b;
    return (x->parts.n < y->parts.n) - (x->parts.n > y->parts.n);
}

int bough_merged_load(bough_merged *merged, const bough_store *store, bough_error *err) {
    loading l = {merged, store};
    memset(merged, 0, sizeof *merged);
    int rc = bough_layers_each(store, add_layer, &l, err);
    /* what stands for most comes first */
    if (!rc && merged->n > 1) qsort(merged->layers, merged->n, sizeof *merged->layers, by_parts);
    if (rc) bough_merged_free(merged);
    return rc;
}

void bough_merged_free(bough_merged *merged) {
    for (size_t i = 0; i < merged->n; i++) bough_layers_free(&merged->layers[i].parts);
    free(merged->layers);
    memset(merged, 0, sizeof *merged);
}

const bough_layers *bough_merged_parts(const bough_merged *merged, bough_layers *self,
                                       char (*dir)[100]) {
    for (size_t i = 0; i < merged->n; i++)
        if (strcmp(merged->layers[i].dir, *dir) == 0) return &merged->layers[i].parts;
    *self = (bough_layers){dir, 1};
    return self;
}

/* ---- stacks ---- */

/* How many layers of the stack from `at` on are just what a merged layer stands for; 0: they are
 * not. */
static size_t match(const bough_merged *merged, const bough_layers *stack, size_t at,
                    const bough_layers *parts) {
    size_t done = 0, i = at;
    while (done < parts->n && i < stack->n) {
        bough_layers self;
        const bough_layers *have = bough_merged_parts(merged, &self, &stack->dir[i++]);
        if (have->n > parts->n - done ||
            memcmp(have->dir, parts->dir + done, have->n * sizeof *have->dir) != 0)
            return 0;
        done += have->n;
    }
    return done == parts->n ? i - at : 0;
}

static bool exists(const bough_store *store, const char *dir) {
    char path[BOUGH_PATH_MAX];
    return bough_path(path, sizeof path, NULL, "%s/layers/%s", store->dir, dir) == 0 &&
           access(path, F_OK) == 0;
}

/* Whether a merged layer can take the place of `n` layers of the stack, from `at` on. `group`: only
 * layers of this group; NULL: of all. */
static bool fits(size_t *at, size_t *n, const bough_merged *merged, const bough_store *store,
                 size_t m, const bough_layers *stack, const char *group) {
    const struct bough_merged_layer *layer = &merged->layers[m];
    size_t length = group ? strlen(group) : 0;
    if (group && (strncmp(layer->dir, group, length) != 0 || layer->dir[length] != '/'))
        return false;
    for (*at = 0; *at < stack->n; ++*at)
        if ((*n = match(merged, stack, *at, &layer->parts)) > 1)
            return exists(store, layer->dir) && !bough_layers_are_refused(store, &layer->parts);
    return false;
}

bool bough_merged_fits(const bough_merged *merged, const bough_store *store,
                       const bough_layers *stack, const char *group) {
    size_t at, n;
    for (size_t m = 0; m < merged->n; m++)
        if (fits(&at, &n, merged, store, m, stack, group)) return true;
    return false;
}

static size_t shorten(bough_layers *stack, const bough_store *store, const bough_merged *merged,
                      const char *group) {
    size_t changed = 0, at, n;
    for (size_t m = 0; m < merged->n; m++) {
        if (!fits(&at, &n, merged, store, m, stack, group)) continue;
        memcpy(stack->dir[at], merged->layers[m].dir, sizeof *stack->dir);
        memmove(stack->dir[at + 1], stack->dir[at + n], (stack->n - at - n) * sizeof *stack->dir);
        stack->n -= n - 1;
        changed++;
    }
    return changed;
}

void bough_stack_settle(bough_header *live, const bough_store *store) {
    char path[BOUGH_PATH_MAX];
    unsigned depth = atomic_load(&live->depth);
    for (unsigned i = 0; i < depth; i++) {
        bough_stack_item *item = &live->stack[i];
        if (atomic_load(&item->gen) != BOUGH_NO_GEN &&
            bough_path(path, sizeof path, NULL, "%s/layers/%s/index", store->dir, item->dir) == 0 &&
            access(path, F_OK) == 0)
            atomic_store(&item->gen, BOUGH_NO_GEN);
    }
}

/* Whether a compute has yet to see a refusal of what it has from `at` on, up to a layer that it
 * keeps. */
static bool is_refused_from(const bough_header *live, size_t at, size_t old_n,
                            const bough_layers *stack) {
    for (; at < old_n; at++) {
        for (size_t i = 0; i < stack->n; i++)
            if (strcmp(live->stack[at].dir, stack->dir[i]) == 0) return false;
        if (atomic_load(&live->stack[at].needs_sync) == BOUGH_SYNC_REFUSED) return true;
    }
    return false;
}

void bough_stack_publish(bough_header *live, const bough_layers *stack) {
    size_t old_n = atomic_load(&live->depth);
    bool is_new = false, is_refused = false;
    /* the memory has the oldest first; what it has keeps its place in the order */
    for (size_t i = 0, from = 0; i < stack->n; i++) {
        const char *dir = stack->dir[stack->n - 1 - i];
        bough_stack_item *to = &live->stack[i];
        size_t k = from;
        while (k < old_n && strcmp(live->stack[k].dir, dir) != 0) k++;
        if (k < old_n) { /* k >= i: nothing that is still wanted has been overwritten */
            memmove(to->dir, live->stack[k].dir, sizeof to->dir);
            atomic_store(&to->gen, atomic_load(&live->stack[k].gen));
            atomic_store(&to->needs_sync, atomic_load(&live->stack[k].needs_sync));
            from = k + 1;
            is_new = false;
        } else {
            /* of several new ones side by side: before the first is written over what they replace;
             * one refusal too many is a recovery too many */
            if (!is_new) is_refused = is_refused_from(live, from, old_n, stack);
            is_new = true;
            (void)snprintf(to->dir, sizeof to->dir, "%s", dir);
            atomic_store(&to->gen, BOUGH_NO_GEN);
            atomic_store(&to->needs_sync, is_refused ? BOUGH_SYNC_REFUSED : BOUGH_SYNC_DONE);
        }
    }
    atomic_store(&live->depth, (uint32_t)stack->n);
}

/* Replace the branch's own stack; under the gate where it runs. */
static int replace(const bough_store *store, const char *branch, const bough_layers *stack,
                   bough_header *live, bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
    int rc = bough_path(from, sizeof from, err, "%s/branches/%s/stack.merged", store->dir, branch);
    if (!rc) rc = bough_path(to, sizeof to, err, "%s/branches/%s/stack", store->dir, branch);
    if (rc) return rc;
    rc = bough_layers_save(from, NULL, stack, err);
    if (rc) {
        (void)unlink(from);
        return rc;
    }
    if (live && bough_gate_close(live, GATE_TIMEOUT_MS) != 0) {
        (void)unlink(from);
        return bough_fail(err, BOUGH_E_TIMEOUT, "the writers of \"%s\" did not come to rest",
                          branch);
    }
    if (rename(from, to) != 0) rc = bough_fail_sys(err, errno, "could not replace \"%s\"", to);
    BOUGH_POINT(rc, "merge.stack-replaced");
    if (live && !rc) {
        bough_stack_publish(live, stack);
        bough_stack_settle(live, store);
    }
    if (live) {
        bough_gate_open(live);
        bough_table_sweep(live);
    }
    if (rc) (void)unlink(from);
    if (!rc) *strrchr(to, '/') = '\0';
    return rc ? rc : bough_fsync_path(to, err);
}

static int apply_to_points(size_t *changed, const bough_store *store, const bough_merged *merged,
                           const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX], of[400], **points = NULL;
    int rc = bough_path(path, sizeof path, err, "%s/branches/%s/points", store->dir, branch);
    if (!rc && access(path, F_OK) == 0) rc = bough_list_names(&points, path, err);
    for (char **p = points; !rc && p && *p; p++) {
        bough_layers stack;
        if (strchr(*p, '~')) continue;
        (void)snprintf(of, sizeof of, "%s/points/%s", branch, *p);
        rc = bough_layers_read(&stack, store, of, err);
        if (rc) break;
        size_t n = shorten(&stack, store, merged, NULL);
        /* a file of its own from now on: others have links to the old one */
        if (n) rc = bough_layers_write(store, of, "stack", NULL, &stack, err);
        if (!rc) *changed += n;
        bough_layers_free(&stack);
    }
    bough_store_free_list(points);
    return rc;
}

int bough_merged_apply(size_t *changed, bough_store *store, const bough_merged *merged,
                       const char *branch, bough_header *live, bough_error *err) {
    bough_layers stack;
    int rc = bough_layers_read(&stack, store, branch, err);
    if (rc) return rc;
    size_t n = shorten(&stack, store, merged, live ? branch : NULL);
    if (n) rc = replace(store, branch, &stack, live, err);
    bough_layers_free(&stack);
    if (rc) return rc;
    *changed += n;
    rc = apply_to_points(changed, store, merged, branch, err);
    BOUGH_POINT(rc, "merge.points-rewritten");
    return rc;
}
