/* Who is told that a thread waits. See waiting.h. */
#include "util/waiting.h"

#include <stddef.h>

static _Thread_local struct {
    bough_wait_listener listener;
    void *context;
    unsigned depth;
    bool is_told; /* the listener has taken note of it */
} waiter;

void bough_wait_listen(bough_wait_listener listener, void *context) {
    waiter.listener = listener;
    waiter.context = context;
}

bool bough_wait_begin(void) {
    if (waiter.depth++ == 0)
        waiter.is_told = waiter.listener && waiter.listener(waiter.context, true);
    return waiter.is_told || !waiter.listener;
}

void bough_wait_end(void) {
    if (--waiter.depth > 0 || !waiter.is_told) return;
    waiter.is_told = false;
    (void)waiter.listener(waiter.context, false);
}
