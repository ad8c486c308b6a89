/* Branches as a tree. Without recursion: depth is the user's. */
#include "cli/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

#define NONE ((size_t)-1)

/* Index of a branch's parent in the list; NONE for a root. */
static size_t parent_of(const bough_branch_list *list, size_t i) {
    const char *id = list->items[i]->parent_id;
    for (size_t k = 0; *id && k < list->count; k++)
        if (k != i && strcmp(list->items[k]->id, id) == 0) return k;
    return NONE;
}

/* Of the branches not yet placed, the eldest child of `parent`; NONE where there is none. */
static size_t eldest(const bough_branch_list *list, const size_t *parents, const bool *placed,
                     size_t parent) {
    size_t best = NONE;
    for (size_t i = 0; i < list->count; i++) {
        if (placed[i] || parents[i] != parent) continue;
        if (best == NONE || strcmp(list->items[i]->created_at, list->items[best]->created_at) < 0)
            best = i;
    }
    return best;
}

/* The stem of a child follows from its parent's: the parent's arm becomes a line, or a gap. */
static void draw_stem(cli_tree_row *row, const char *before, bool is_last, bool utf8) {
    const char *arm = utf8 ? (is_last ? "└─ " : "├─ ") : (is_last ? "`- " : "|- ");
    if (strlen(before) + strlen(arm) >= sizeof row->stem) before = "";
    (void)snprintf(row->stem, sizeof row->stem, "%s%s", before, arm);
}

typedef struct walk {
    const bough_branch_list *list;
    size_t *parents, *path;      /* path: from the root down to where we are */
    char (*lines)[CLI_STEM_MAX]; /* what a child's arm is put behind, by branch */
    bool *placed;
} walk;

static void place(cli_tree_row *row, walk *w, size_t i, size_t depth, bool draw, bool utf8) {
    row->branch = w->list->items[i];
    row->level = (int)depth;
    w->placed[i] = true;
    if (!draw || !depth) return;
    size_t parent = w->path[depth - 1];
    bool is_last = eldest(w->list, w->parents, w->placed, parent) == NONE;
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
              .placed = calloc(room, sizeof(bool))};
    *rows = calloc(room, sizeof **rows);
    int rc = BOUGH_OK;
    if (!*rows || !w.parents || !w.path || !w.lines || !w.placed) {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        free(*rows);
        *rows = NULL;
        goto out;
    }
    for (size_t i = 0; i < n; i++) w.parents[i] = parent_of(list, i);
    size_t depth = 0;
    for (size_t row = 0; row < n;) {
        size_t next = eldest(list, w.parents, w.placed, depth ? w.path[depth - 1] : NONE);
        if (next == NONE && depth) {
            depth--;
            continue;
        }
        for (size_t i = 0; next == NONE && i < n; i++) /* only a cycle is left: break it */
            if (!w.placed[i]) next = i;
        place(&(*rows)[row++], &w, next, depth, draw, utf8);
        w.path[depth++] = next;
    }
out:
    free(w.parents);
    free(w.path);
    free(w.lines);
    free(w.placed);
    return rc;
}
