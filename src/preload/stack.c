/* What a path shows. See stack.h. */
#include "preload/stack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload/table.h"

void bough_view_layer_path(char *out, size_t size, const bough_view *view, const bough_layer *layer,
                           const char *path) {
    (void)snprintf(out, size, "%s/%s/data/%s", view->shm->layers, layer->dir, path);
}

static bough_layer *layer_get(bough_view *view, const bough_stack_item *item) {
    uint32_t gen = atomic_load(&item->gen);
    for (bough_layer *l = view->known; l; l = l->next)
        if (l->gen == gen && strcmp(l->dir, item->dir) == 0) {
            l->item = item;
            return l;
        }
    bough_layer *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    (void)snprintf(l->dir, sizeof l->dir, "%s", item->dir);
    l->gen = gen;
    l->item = item;
    if (gen == BOUGH_NO_GEN) {
        char path[2048];
        (void)snprintf(path, sizeof path, "%s/%s/index", view->shm->layers, l->dir);
        int rc = bough_index_map(&l->index, path, false);
        if (rc != 0 && (errno == EMFILE || errno == ENFILE) && view->shed) {
            view->shed();
            rc = bough_index_map(&l->index, path, false);
        }
        if (rc != 0) {
            free(l);
            return NULL;
        }
    }
    l->next = view->known;
    view->known = l;
    return l;
}

static void layer_free(bough_layer *layer) {
    bough_index_unmap(&layer->index);
    free(layer);
}

/* Layers come and go for as long as a branch runs, and so must what is known of them. */
static void forget_layers(bough_view *view) {
    for (bough_layer **at = &view->known; *at;) {
        bough_layer *l = *at;
        if (l->epoch == view->epoch || l->uses) {
            at = &l->next;
            continue;
        }
        *at = l->next;
        layer_free(l);
    }
}

void bough_view_clear(bough_view *view) {
    while (view->known) {
        bough_layer *next = view->known->next;
        layer_free(view->known);
        view->known = next;
    }
}

int bough_view_refresh(bough_view *view) {
    for (;;) {
        uint32_t epoch = bough_gate_epoch(view->shm);
        if (epoch == view->epoch) return 0;
        unsigned depth = atomic_load(&view->shm->depth), i = 0;
        for (; i < depth; i++) {
            view->layers[i] = layer_get(view, &view->shm->stack[depth - 1 - i]);
            if (!view->layers[i]) break;
            view->layers[i]->epoch = epoch;
        }
        /* what is being changed may read as nonsense: look again */
        if (i < depth && atomic_load(&view->shm->epoch) == epoch) return -1;
        view->depth = i;
        if (atomic_load(&view->shm->epoch) == epoch) {
            view->epoch = epoch;
            forget_layers(view);
            if (view->moved) view->moved();
            return 0;
        }
    }
}

/* Length of the directory part that can be unlinked and made again: "base/OID" of "base/OID/x"; 0
 * for none. */
static size_t parent_length(const char *path) {
    if (strncmp(path, "base/", 5) != 0) return 0;
    const char *slash = strchr(path + 5, '/');
    return slash ? (size_t)(slash - path) : 0;
}

typedef enum { HERE_NOTHING, HERE_FILE, HERE_DIR, HERE_GONE, HERE_OPAQUE } here;

static here at_layer(bough_view *view, bough_layer *layer, const char *path, size_t length,
                     uint32_t hash, bough_level *level) {
    memset(level, 0, sizeof *level);
    level->layer = layer;
    level->fd = -1;
    if (layer->gen == BOUGH_NO_GEN) {
        const bough_record *r = bough_index_find(&layer->index, path, length, hash);
        if (!r) return HERE_NOTHING;
        if (r->kind == BOUGH_RECORD_WHITEOUT) return HERE_GONE;
        if (r->kind == BOUGH_RECORD_DIR) return HERE_DIR;
        if (r->kind == BOUGH_RECORD_DIR_OPAQUE) return HERE_OPAQUE;
        level->record = r;
        level->size = r->size;
        level->limit = r->limit;
        level->full = r->full;
        return HERE_FILE;
    }
    bough_entry *e = bough_entry_find(view->shm, layer->gen, path, length, hash);
    if (!e) return HERE_NOTHING;
    uint32_t state = atomic_load(&e->state), flags = atomic_load(&e->flags);
    if (state == BOUGH_ENTRY_LOWER) return HERE_NOTHING;
    if (state == BOUGH_ENTRY_GONE) return flags & BOUGH_FLAG_WHITEOUT ? HERE_GONE : HERE_NOTHING;
    if (flags & BOUGH_FLAG_DIR) return flags & BOUGH_FLAG_OPAQUE ? HERE_OPAQUE : HERE_DIR;
    level->entry = e;
    level->size = atomic_load(&e->size);
    level->limit = atomic_load(&e->limit);
    return HERE_FILE;
}

bough_below_kind bough_view_below(bough_view *view, const char *path, bough_level *levels,
                                  unsigned room, unsigned *n) {
    size_t length = strlen(path), parent = parent_length(path);
    uint32_t hash = bough_path_hash(path, length), parent_hash = bough_path_hash(path, parent);
    bough_level spare;
    unsigned count = 0;
    bough_below_kind kind = BOUGH_BELOW_NONE;
    if (parent) {
        /* the head itself may hide all below it */
        const bough_entry *e =
            bough_entry_find(view->shm, atomic_load(&view->shm->gen), path, parent, parent_hash);
        if (e && (atomic_load(&e->flags) & (BOUGH_FLAG_OPAQUE | BOUGH_FLAG_WHITEOUT))) {
            if (n) *n = 0;
            return BOUGH_BELOW_NONE;
        }
    }
    for (unsigned i = 0; i < view->depth; i++) {
        bough_level *level = levels && count < room ? &levels[count] : &spare;
        here h = at_layer(view, view->layers[i], path, length, hash, level);
        if (h == HERE_GONE) break;
        if (h == HERE_DIR || h == HERE_OPAQUE) {
            kind = BOUGH_BELOW_DIR;
            break;
        }
        if (h == HERE_FILE) {
            kind = BOUGH_BELOW_FILE;
            count++;
            /* nothing below can be seen: whole, opaque to what is below, or not divided into pages
             */
            if (level->full || level->limit == 0 || !levels) break;
            if (level->record ? level->record->kind == BOUGH_RECORD_WHOLE
                              : (atomic_load(&level->entry->flags) & BOUGH_FLAG_WHOLE) != 0)
                break;
        }
        if (parent) {
            here p = at_layer(view, view->layers[i], path, parent, parent_hash, &spare);
            if (p == HERE_GONE || p == HERE_OPAQUE) break;
        }
    }
    if (n) *n = count;
    return kind;
}
