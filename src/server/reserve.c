/* Memory for libevent that does not run out at once. See reserve.h. */
#include "server/reserve.h"

#include <stdatomic.h>
#include <stdlib.h>

#include <event2/event.h>

#include "util/log.h"

#define RESERVE_BYTES ((size_t)1 << 20) /* some dozens of connections with what they ask */

static _Atomic(void *) reserve;

static void give_back(void) {
    void *had = atomic_exchange(&reserve, NULL);
    if (!had) return;
    free(had);
    bough_log(BOUGH_LOG_WARN, "memory runs out", NULL);
}

static void *take(size_t n) {
    void *p = malloc(n);
    if (p || n == 0) return p;
    give_back();
    return malloc(n);
}

static void *grow(void *old, size_t n) {
    void *p = realloc(old, n);
    if (p || n == 0) return p;
    give_back();
    return realloc(old, n);
}

void reserve_refill(void) {
    void *none = NULL;
    if (atomic_load(&reserve)) return;
    void *p = malloc(RESERVE_BYTES);
    if (!p) return;
    if (!atomic_compare_exchange_strong(&reserve, &none, p)) free(p);
}

void reserve_begin(void) {
    event_set_mem_functions(take, grow, free);
    reserve_refill();
}
