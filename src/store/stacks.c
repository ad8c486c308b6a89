/*
 * All the stacks there are: of branches (also of those in the making, and "stack.next", which names
 * the layer of a seal that is under way) and of restore points. Which layers they name, and where
 * they part.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/internal.h"

/* One stack; one that is gone meanwhile is none. */
static int call_one(const bough_store *store, const char *of, const char *file,
                    bough_stack_visitor call, void *context, bough_error *err) {
    bough_layers layers;
    int rc = bough_stack_read(&layers, store, of, file, err);
    if (rc == BOUGH_E_NOTFOUND) {
        bough_error_clear(err);
        return BOUGH_OK;
    }
    if (rc) return rc;
    rc = call(context, of, &layers, err);
    bough_layers_free(&layers);
    return rc;
}

int bough_stacks_of(const bough_store *store, const char *branch, bough_stack_visitor call,
                    void *context, bough_error *err) {
    char path[BOUGH_PATH_MAX], of[400], **points = NULL;
    /* stack.next before the stack that it becomes */
    int rc = call_one(store, branch, "stack.next", call, context, err);
    if (!rc) rc = call_one(store, branch, "stack", call, context, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/branches/%s/points", store->dir, branch);
    if (rc || access(path, F_OK) != 0) return rc;
    rc = bough_list_names(&points, path, err);
    if (rc && access(path, F_OK) != 0) { /* deleted meanwhile */
        bough_error_clear(err);
        return BOUGH_OK;
    }
    for (char **p = points; !rc && *p; p++) {
        (void)snprintf(of, sizeof of, "%s/points/%s", branch, *p);
        rc = call_one(store, of, "stack", call, context, err);
    }
    bough_store_free_list(points);
    return rc;
}

int bough_stacks_each(const bough_store *store, bough_stack_visitor call, void *context,
                      bough_error *err) {
    char **branches;
    int rc = bough_branch_dirs(&branches, store, err);
    if (rc) return rc;
    for (char **p = branches; *p && !rc; p++) rc = bough_stacks_of(store, *p, call, context, err);
    bough_store_free_list(branches);
    return rc;
}

/* ---- where stacks part ---- */

/* What lies on a layer in the stacks that have it. */
typedef struct place {
    char dir[100], above[100]; /* "" at the top of a stack */
    bool parts;                /* not the same in all of them */
} place;

struct bough_survey {
    place *places; /* a hash table, open addressing; dir "" is free */
    size_t slots, n;
};

static place *find_place(const bough_survey *s, const char *dir) {
    size_t at = bough_path_hash(dir, strlen(dir)) & (s->slots - 1);
    while (s->places[at].dir[0] && strcmp(s->places[at].dir, dir) != 0)
        at = (at + 1) & (s->slots - 1);
    return &s->places[at];
}

static int grow(bough_survey *s, bough_error *err) {
    bough_survey bigger = {.slots = s->slots ? s->slots * 2 : 256, .n = s->n};
    bigger.places = calloc(bigger.slots, sizeof *bigger.places);
    if (!bigger.places) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < s->slots; i++)
        if (s->places[i].dir[0]) *find_place(&bigger, s->places[i].dir) = s->places[i];
    free(s->places);
    *s = bigger;
    return BOUGH_OK;
}

static int note_stack(void *context, const char *of, const bough_layers *layers, bough_error *err) {
    bough_survey *s = context;
    (void)of;
    for (size_t i = 0; i < layers->n; i++) {
        const char *above = i ? layers->dir[i - 1] : "";
        if (s->n * 2 >= s->slots) {
            int rc = grow(s, err);
            if (rc) return rc;
        }
        place *p = find_place(s, layers->dir[i]);
        if (!p->dir[0]) {
            (void)snprintf(p->dir, sizeof p->dir, "%s", layers->dir[i]);
            (void)snprintf(p->above, sizeof p->above, "%s", above);
            s->n++;
        } else if (strcmp(p->above, above) != 0) {
            p->parts = true;
        }
    }
    return BOUGH_OK;
}

int bough_survey_new(bough_survey **out, const bough_store *store, bough_error *err) {
    *out = NULL;
    bough_survey *s = calloc(1, sizeof *s);
    if (!s) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = grow(s, err);
    if (!rc) rc = bough_stacks_each(store, note_stack, s, err);
    if (rc) {
        bough_survey_free(s);
        return rc;
    }
    *out = s;
    return BOUGH_OK;
}

void bough_survey_free(bough_survey *survey) {
    if (!survey) return;
    free(survey->places);
    free(survey);
}

bool bough_survey_parts(const bough_survey *survey, const bough_layers *stack, size_t i) {
    if (i == 0) return true;
    const place *p = find_place(survey, stack->dir[i]);
    /* a stack that came after the survey is told nothing of: nothing is merged there this time */
    return !p->dir[0] || p->parts || strcmp(p->above, stack->dir[i - 1]) != 0;
}
