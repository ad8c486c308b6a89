/* Branches as a tree. Without recursion: depth is the user's. */
#include "cli/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

#define NONE ((size_t)-1)

/* A branch under a key: its id, or its place among the children of one parent. */
typedef struct place_of {
    const char *text; /* the id, or when it was made */
    size_t parent, index;
} place_of;

static int by_id(const void *a, const void *b) {
    return strcmp(((const place_of *)a)->text, ((const place_of *)b)->text);
}

/* By parent; the eldest first, and what is as old in the order of the list. */
static int by_age(const void *a, const void *b) {
    const place_of *x = a, *y = b;
    if (x->parent != y->parent) return x->parent < y->parent ? -1 : 1;
    int order = strcmp(x->text, y->text);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

typedef struct walk {
    const bough_branch_list *list;
    size_t *parents, *path;      /* path: from the root down to where we are */
    char (*lines)[CLI_STEM_MAX]; /* what a child's arm is put behind, by branch */
    bool *placed;
    place_of *places; /* by id, then by age */
    size_t *first;    /* of a branch's children, the first in `places` that is not placed; the last
                         one is of NONE: of roots */
} walk;

/* Index of each branch's parent in the list; NONE for a root. */
static void find_parents(walk *w) {
    const bough_branch_list *list = w->list;
    for (size_t i = 0; i < list->count; i++)
        w->places[i] = (place_of){.text = list->items[i]->id, .index = i};
    if (list->count > 1) qsort(w->places, list->count, sizeof *w->places, by_id);
    for (size_t i = 0; i < list->count; i++) {
        place_of key = {.text = list->items[i]->parent_id};
        const place_of *found =
            *key.text ? bsearch(&key, w->places, list->count, sizeof key, by_id) : NULL;
        w->parents[i] = found && found->index != i ? found->index : NONE;
    }
}

static size_t slot_of(const walk *w, size_t parent) {
    return parent == NONE ? w->list->count : parent;
}

static void sort_children(walk *w) {
    size_t n = w->list->count;
    for (size_t i = 0; i < n; i++)
        w->places[i] = (place_of){w->list->items[i]->created_at, w->parents[i], i};
    if (n > 1) qsort(w->places, n, sizeof *w->places, by_age);
    for (size_t i = 0; i <= n; i++) w->first[i] = n;
    for (size_t i = n; i-- > 0;) w->first[slot_of(w, w->places[i].parent)] = i;
}

/* Of the branches not yet placed, the eldest child of `parent`; NONE where there is none. */
static size_t eldest(walk *w, size_t parent) {
    size_t *at = &w->first[slot_of(w, parent)];
    while (*at < w->list->count && w->places[*at].parent == parent) {
        if (!w->placed[w->places[*at].index]) return w->places[*at].index;
        (*at)++;
    }
    return NONE;
}

/* The stem of a child follows from its parent's: the parent's arm becomes a line, or a gap. */
static void draw_stem(cli_tree_row *row, const char *before, bool is_last, bool utf8) {
    const char *arm = utf8 ? (is_last ? "└─ " : "├─ ") : (is_last ? "`- " : "|- ");
    if (strlen(before) + strlen(arm) >= sizeof row->stem) before = "";
    (void)snprintf(row->stem, sizeof row->stem, "%s%s", before, arm);
}

static void place(cli_tree_row *row, walk *w, size_t i, size_t depth, bool draw, bool utf8) {
    row->branch = w->list->items[i];
    row->level = (int)depth;
    w->placed[i] = true;
    if (!draw || !depth) return;
    size_t parent = w->path[depth - 1];
    bool is_last = eldest(w, parent) == NONE;
    draw_stem(row, w->lines[parent], is_last, utf8);
    const char *line = is_last ? "   " : utf8 ? "│  " : "|  ";
    const char *before = w->lines[parent];
    if (strlen(before) + strlen(line) >= CLI_STEM_MAX) before = "";
    (void)snprintf(w->lines[i], CLI_STEM_MAX, "%s%s", before, line);
}

int cli_tree_arrange(cli_tree_row **rows, const bough_branch_list *list, bool draw, bool utf8,
                     bough_error *err) {
    size_t n = list->count, room = n ? n : 1;
    walk w = {.list = list,
              .parents = calloc(room, sizeof(size_t)),
              .path = calloc(room, sizeof(size_t)),
              .lines = calloc(room, CLI_STEM_MAX),
              .placed = calloc(room, sizeof(bool)),
              .places = calloc(room, sizeof(place_of)),
              .first = calloc(room + 1, sizeof(size_t))};
    *rows = calloc(room, sizeof **rows);
    int rc = BOUGH_OK;
    if (!*rows || !w.parents || !w.path || !w.lines || !w.placed || !w.places || !w.first) {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        free(*rows);
        *rows = NULL;
        goto out;
    }
    find_parents(&w);
    sort_children(&w);
    size_t depth = 0, left = 0; /* all before `left` are placed */
    for (size_t row = 0; row < n;) {
        size_t next = eldest(&w, depth ? w.path[depth - 1] : NONE);
        if (next == NONE && depth) {
            depth--;
            continue;
        }
        if (next == NONE) { /* only a cycle is left: break it */
            while (w.placed[left]) left++;
            next = left;
        }
        place(&(*rows)[row++], &w, next, depth, draw, utf8);
        w.path[depth++] = next;
    }
out:
    free(w.parents);
    free(w.path);
    free(w.lines);
    free(w.placed);
    free(w.places);
    free(w.first);
    return rc;
}
