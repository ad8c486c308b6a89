/* Points at which tests kill the process. See point.h. */
#include "util/point.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef BOUGH_CRASH_POINTS

static char wanted[64];
static atomic_long countdown;

static void read_environment(void) {
    const char *text = getenv("BOUGH_CRASH_AT");
    size_t n = text ? strcspn(text, ":") : 0;
    if (n == 0 || n >= sizeof wanted) return;
    memcpy(wanted, text, n);
    atomic_store(&countdown, text[n] ? atol(text + n + 1) : 1);
}

void bough_point_pass(const char *name) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_environment);
    if (strcmp(name, wanted) == 0 && atomic_fetch_sub(&countdown, 1) == 1)
        (void)kill(getpid(), SIGKILL);
}

#endif
