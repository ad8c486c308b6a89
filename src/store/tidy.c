/* One round of looking after all stacks: see store.h. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/internal.h"

struct bough_tidy {
    bough_store *store;
    bough_survey *survey; /* made when it is first asked for */
    bough_merged merged;
};

int bough_tidy_begin(bough_tidy **out, bough_store *store, bough_error *err) {
    *out = NULL;
    bough_tidy *t = calloc(1, sizeof *t);
    if (!t) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    t->store = store;
    int rc = bough_merged_load(&t->merged, store, err);
    if (rc)
        free(t);
    else
        *out = t;
    return rc;
}

void bough_tidy_end(bough_tidy *tidy) {
    if (!tidy) return;
    bough_survey_free(tidy->survey);
    bough_merged_free(&tidy->merged);
    free(tidy);
}

typedef struct question {
    const bough_tidy *tidy;
    const char *group;
    bool is_yes;
} question;

static int ask(void *context, const char *of, const bough_layers *layers, bough_error *err) {
    question *q = context;
    (void)err;
    q->is_yes = q->is_yes || bough_merged_fits(&q->tidy->merged, q->tidy->store, layers,
                                               strchr(of, '/') ? NULL : q->group);
    return BOUGH_OK;
}

bool bough_tidy_wants(const bough_tidy *tidy, const char *branch, bool is_awake) {
    question q = {.tidy = tidy, .group = is_awake ? branch : NULL};
    return tidy->merged.n && bough_stacks_of(tidy->store, branch, ask, &q, NULL) == BOUGH_OK &&
           q.is_yes;
}

int bough_tidy_apply(size_t *changed, bough_tidy *tidy, const char *branch, bough_shm *live,
                     bough_error *err) {
    *changed = 0;
    pthread_mutex_lock(&tidy->store->places);
    int rc = bough_merged_apply(changed, tidy->store, &tidy->merged, branch,
                                live ? live->header : NULL, err);
    pthread_mutex_unlock(&tidy->store->places);
    return rc;
}

int bough_tidy_merge(bough_merge **merge, bough_tidy *tidy, const char *branch,
                     int (*is_cancelled)(void *context), void *context, bough_error *err) {
    bough_layers stack;
    *merge = NULL;
    int rc = bough_layers_read(&stack, tidy->store, branch, err);
    if (rc) return rc;
    bool is_short = stack.n < BOUGH_LEAST_RUN;
    bough_layers_free(&stack);
    if (is_short) return BOUGH_OK;
    if (!tidy->survey) rc = bough_survey_new(&tidy->survey, tidy->store, err);
    return rc ? rc
              : bough_merge_begin(merge, tidy->store, tidy->survey, &tidy->merged, branch,
                                  is_cancelled, context, err);
}

int bough_tidy_commit(size_t *layers, bough_merge *merge, bough_shm *live, bough_error *err) {
    return bough_merge_commit(layers, merge, live ? live->header : NULL, err);
}

void bough_tidy_drop(bough_merge *merge) {
    bough_merge_end(merge);
}
