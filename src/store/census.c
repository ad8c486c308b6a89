/*
 * What names each layer, and what a collection would remove. See census.h; the bytes are
 * census_bytes.c's.
 *
 * As in collect.c, layers are listed first and the stacks read after them, while no branches change
 * places and no merged layer waits for its first name.
 */
#include "store/census.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/census_internal.h"
#include "store/point.h"

static int by_dir(const void *a, const void *b) {
    return strcmp(((const bough_census_layer *)a)->dir, ((const bough_census_layer *)b)->dir);
}

static int by_id(const void *a, const void *b) {
    return strcmp(((const bough_census_branch *)a)->id, ((const bough_census_branch *)b)->id);
}

size_t bough_census_find_layer(const bough_census *census, const char *dir) {
    bough_census_layer key;
    (void)snprintf(key.dir, sizeof key.dir, "%s", dir);
    const bough_census_layer *found =
        census->n_layers
            ? bsearch(&key, census->layers, census->n_layers, sizeof *census->layers, by_dir)
            : NULL;
    return found ? (size_t)(found - census->layers) : census->n_layers;
}

size_t bough_census_find_branch(const bough_census *census, const char *id) {
    bough_census_branch key;
    (void)snprintf(key.id, sizeof key.id, "%s", id);
    const bough_census_branch *found =
        census->n_branches
            ? bsearch(&key, census->branches, census->n_branches, sizeof *census->branches, by_id)
            : NULL;
    return found ? (size_t)(found - census->branches) : census->n_branches;
}

/* ---- which layers there are ---- */

typedef struct listing {
    bough_census *census;
    const bough_store *store;
    size_t room;
} listing;

static int add_layer(void *context, const char *dir, bough_error *err) {
    listing *l = context;
    bough_census *c = l->census;
    bough_layers parts;
    if (c->n_layers == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        bough_census_layer *more = realloc(c->layers, room * sizeof *more);
        if (!more) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        c->layers = more;
        l->room = room;
    }
    int rc = bough_merged_read(&parts, l->store, dir, err);
    if (rc) return rc;
    bough_census_layer *layer = &c->layers[c->n_layers++];
    *layer = (bough_census_layer){.goes = true, .stands_for = parts.n};
    (void)snprintf(layer->dir, sizeof layer->dir, "%s", dir);
    bough_layers_free(&parts);
    return BOUGH_OK;
}

static int list_layers(bough_census *c, const bough_store *store, bough_error *err) {
    listing l = {.census = c, .store = store};
    int rc = bough_layers_each(store, add_layer, &l, err);
    if (!rc && c->n_layers > 1) qsort(c->layers, c->n_layers, sizeof *c->layers, by_dir);
    return rc;
}

/* ---- which branches, and what of their past is to go ---- */

static int look_at_past(bough_census_branch *b, const bough_store *store, int64_t keep_from_ms,
                        bough_error *err) {
    bough_point *points;
    size_t n;
    int rc = bough_store_points(&points, &n, store, b->id, err);
    if (rc == BOUGH_E_NOTFOUND) { /* deleted, or forgotten, meanwhile */
        bough_error_clear(err);
        return BOUGH_OK;
    }
    if (rc) return rc;
    b->points = (unsigned)n;
    if (n && keep_from_ms != INT64_MIN) {
        size_t keep = bough_points_kept(points, n, keep_from_ms);
        (void)snprintf(b->keep_point, sizeof b->keep_point, "%s", points[keep].name);
        b->keep_redo = points[keep].redo;
        b->going_points = (unsigned)keep;
    }
    free(points);
    return BOUGH_OK;
}

static int list_branches(bough_census *c, const bough_store *store, bough_keep_from keep_from,
                         void *context, bough_error *err) {
    char **names = NULL;
    size_t n = 0;
    int rc = bough_branch_dirs(&names, store, err);
    while (!rc && names[n]) n++;
    if (n) c->branches = calloc(n, sizeof *c->branches);
    if (n && !c->branches) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < n; i++) {
        bough_census_branch *b = &c->branches[c->n_branches++];
        (void)snprintf(b->id, sizeof b->id, "%s", names[i]);
        rc = look_at_past(b, store,
                          keep_from && !strchr(b->id, '~') ? keep_from(context, b->id) : INT64_MIN,
                          err);
    }
    bough_store_free_list(names);
    if (!rc && n > 1) qsort(c->branches, n, sizeof *c->branches, by_id);
    return rc;
}

/* ---- who names what ---- */

/* Stacks come branch by branch, so a branch that named the layer before is its last. */
static bough_naming *naming_of(bough_census_layer *layer, size_t branch) {
    if (layer->n_namings && layer->namings[layer->n_namings - 1].branch == branch)
        return &layer->namings[layer->n_namings - 1];
    bough_naming *more = realloc(layer->namings, (layer->n_namings + 1) * sizeof *more);
    if (!more) return NULL;
    layer->namings = more;
    more[layer->n_namings] = (bough_naming){.branch = branch};
    return &more[layer->n_namings++];
}

static int note_stack(void *context, const char *of, const bough_layers *layers, bough_error *err) {
    bough_census *c = context;
    char id[100];
    const char *slash = strchr(of, '/'), *point = slash ? strrchr(of, '/') + 1 : NULL;
    (void)snprintf(id, sizeof id, "%.*s", (int)strcspn(of, "/"), of);
    size_t branch = bough_census_find_branch(c, id);
    /* one that was made meanwhile has layers of another, which names them as well */
    if (branch == c->n_branches) return BOUGH_OK;
    const bough_census_branch *b = &c->branches[branch];
    bool is_going = point && b->going_points && strcmp(point, b->keep_point) < 0;
    for (size_t i = 0; i < layers->n; i++) {
        size_t at = bough_census_find_layer(c, layers->dir[i]);
        if (at == c->n_layers) continue; /* sealed meanwhile */
        bough_naming *naming = naming_of(&c->layers[at], branch);
        if (!naming) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        naming->is_below |= !point;
        naming->points += point != NULL;
        naming->going += is_going;
        if (!is_going) c->layers[at].goes = false;
    }
    return BOUGH_OK;
}

int bough_census_take(bough_census **out, bough_store *store, bough_keep_from keep_from,
                      void *context, bough_error *err) {
    *out = NULL;
    bough_census *c = calloc(1, sizeof *c);
    if (!c) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_mutex_lock(&store->places);
    int rc = list_layers(c, store, err);
    if (!rc) rc = list_branches(c, store, keep_from, context, err);
    if (!rc) rc = bough_stacks_each(store, note_stack, c, err);
    pthread_mutex_unlock(&store->places);
    if (!rc) rc = bough_census_weigh(c, store, err);
    if (rc)
        bough_census_free(c);
    else
        *out = c;
    return rc;
}

void bough_census_free(bough_census *census) {
    if (!census) return;
    for (size_t i = 0; i < census->n_layers; i++) free(census->layers[i].namings);
    free(census->layers);
    free(census->branches);
    free(census);
}
