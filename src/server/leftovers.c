/* What could not be removed. See leftovers.h. */
#include "server/leftovers.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/flows.h"
#include "server/locks.h"

typedef struct leftover {
    struct leftover *next;
    char branch[BOUGH_ID_SIZE], endpoint[BOUGH_ID_SIZE];
    char restored[BOUGH_ID_SIZE]; /* whose row in "swaps" goes first; "": none */
} leftover;

struct leftovers {
    pthread_mutex_t mutex;
    leftover *first;
};

int leftovers_new(struct leftovers **left, bough_error *err) {
    *left = calloc(1, sizeof **left);
    if (!*left) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_mutex_init(&(*left)->mutex, NULL);
    return BOUGH_OK;
}

static leftover *take_all(struct leftovers *left) {
    pthread_mutex_lock(&left->mutex);
    leftover *all = left->first;
    left->first = NULL;
    pthread_mutex_unlock(&left->mutex);
    return all;
}

static void push(struct leftovers *left, leftover *one) {
    pthread_mutex_lock(&left->mutex);
    one->next = left->first;
    left->first = one;
    pthread_mutex_unlock(&left->mutex);
}

void leftovers_free(struct leftovers *left) {
    if (!left) return;
    for (leftover *one = take_all(left), *next; one; one = next) {
        next = one->next;
        free(one);
    }
    pthread_mutex_destroy(&left->mutex);
    free(left);
}

static bool add(server *srv, const char *branch, const char *endpoint, const char *restored) {
    leftover *one = calloc(1, sizeof *one);
    if (!one) return false;
    (void)snprintf(one->branch, sizeof one->branch, "%s", branch);
    (void)snprintf(one->endpoint, sizeof one->endpoint, "%s", endpoint ? endpoint : "");
    (void)snprintf(one->restored, sizeof one->restored, "%s", restored);
    push(srv->leftovers, one);
    return true;
}

bool leftovers_add(server *srv, const char *branch, const char *endpoint) {
    return add(srv, branch, endpoint, "");
}

bool leftovers_add_swap(server *srv, const char *branch, const char *incoming) {
    return add(srv, incoming, NULL, branch);
}

/* (locked) */
static int remove_one(server *srv, const leftover *one) {
    bough_branch_row row;
    int rc = *one->restored ? bough_swaps_delete(srv->cat, one->restored, NULL) : BOUGH_OK;
    if (rc) return rc;
    /* an id is given once; to be sure all the same */
    rc = bough_branches_get_any(&row, srv->cat, one->branch, NULL);
    if (rc != BOUGH_E_NOTFOUND) return rc;
    flow_remove_files(srv, one->branch, one->endpoint);
    return BOUGH_OK;
}

void leftovers_try(server *srv) {
    for (leftover *one = take_all(srv->leftovers), *next; one; one = next) {
        next = one->next;
        const char *names[] = {one->branch, one->restored};
        size_t n = *one->restored ? 2 : 1;
        int rc = locks_take(srv->locks, names, n, 0, NULL);
        if (!rc) {
            rc = remove_one(srv, one);
            locks_drop(srv->locks, names, n);
        }
        if (rc)
            push(srv->leftovers, one); /* the next round */
        else
            free(one);
    }
}
