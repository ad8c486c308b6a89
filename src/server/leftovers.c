/* Files of branches that could not be removed. See leftovers.h. */
#include "server/leftovers.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/flows.h"
#include "server/locks.h"

typedef struct leftover {
    struct leftover *next;
    char branch[BOUGH_ID_SIZE], endpoint[BOUGH_ID_SIZE];
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

bool leftovers_add(server *srv, const char *branch, const char *endpoint) {
    leftover *one = calloc(1, sizeof *one);
    if (!one) return false;
    (void)snprintf(one->branch, sizeof one->branch, "%s", branch);
    (void)snprintf(one->endpoint, sizeof one->endpoint, "%s", endpoint ? endpoint : "");
    push(srv->leftovers, one);
    return true;
}

void leftovers_try(server *srv) {
    bough_branch_row row;
    for (leftover *one = take_all(srv->leftovers), *next; one; one = next) {
        next = one->next;
        int rc = lock_take(srv->locks, one->branch, 0, NULL);
        if (!rc) {
            /* an id is given once; to be sure all the same */
            rc = bough_branches_get_any(&row, srv->cat, one->branch, NULL);
            if (rc == BOUGH_E_NOTFOUND) flow_remove_files(srv, one->branch, one->endpoint);
            lock_drop(srv->locks, one->branch);
        }
        if (rc && rc != BOUGH_E_NOTFOUND)
            push(srv->leftovers, one); /* the next round */
        else
            free(one);
    }
}
