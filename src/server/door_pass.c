/*
 * Passes: whom boughd's own connections to the front door speak for.
 *
 * POST /sql, WebSockets and sessions with the past come in by a connection of boughd's own, from
 * this machine's address and to a port that is theirs alone. A word that nobody can guess, good
 * once and for a minute, tells the door whose address it is that lists and limits are about;
 * without it nothing is routed there.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ids.h"
#include "server/door_internal.h"

enum { PASS_MS = 60000, PASSES_MAX = 4096 };
_Static_assert((int)HELLO_PASS_SIZE == 8 + DOOR_PASS_SIZE - 1, "the message holds a word");

typedef struct pass {
    TAILQ_ENTRY(pass) link;
    char word[DOOR_PASS_SIZE];
    char address[INET6_ADDRSTRLEN];
    double until_ms;
} pass;

/* With the mutex. */
static void drop(struct door *d, pass *p) {
    TAILQ_REMOVE(&d->passes, p, link);
    d->n_passes--;
    free(p);
}

int door_pass_make(char *word, struct door *d, const char *address, bough_error *err) {
    uint64_t random[2];
    int rc = bough_random(random, sizeof random, err);
    if (rc) return rc;
    pass *p = calloc(1, sizeof *p), *oldest;
    if (!p) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    (void)snprintf(p->word, sizeof p->word, "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    (void)snprintf(p->address, sizeof p->address, "%s", address);
    (void)snprintf(word, DOOR_PASS_SIZE, "%s", p->word);
    double now = bough_now_ms();
    p->until_ms = now + PASS_MS;
    pthread_mutex_lock(&d->mutex);
    while ((oldest = TAILQ_FIRST(&d->passes)) &&
           (oldest->until_ms <= now || d->n_passes >= PASSES_MAX))
        drop(d, oldest);
    TAILQ_INSERT_TAIL(&d->passes, p, link);
    d->n_passes++;
    pthread_mutex_unlock(&d->mutex);
    return BOUGH_OK;
}

bool guest_use_pass(guest *g) {
    struct door *d = g->door;
    bool found = false, may = g->is_own && !g->has_pass;
    if (!*g->target.pass) {
        if (may) guest_refuse(g, "28000", "this port is boughd's own: no pass was given", NULL);
        return !may;
    }
    pthread_mutex_lock(&d->mutex);
    for (pass *p = TAILQ_FIRST(&d->passes), *next; may && p && !found; p = next) {
        next = TAILQ_NEXT(p, link);
        if (strcmp(p->word, g->target.pass) != 0) continue;
        found = p->until_ms > bough_now_ms();
        memcpy(g->address, p->address, sizeof g->address);
        drop(d, p);
    }
    pthread_mutex_unlock(&d->mutex);
    memset(g->target.pass, 0, sizeof g->target.pass); /* targets are compared as a whole */
    g->has_pass |= found;
    if (found)
        g->is_local = is_local_text(g->address);
    else
        guest_refuse(g, "28000", "the pass is not known", NULL);
    return found;
}

void passes_free(struct door *d) {
    while (!TAILQ_EMPTY(&d->passes)) drop(d, TAILQ_FIRST(&d->passes));
}
