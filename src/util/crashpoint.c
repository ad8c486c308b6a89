/* Points at which tests kill or delay the process. See crashpoint.h. */
#include "util/crashpoint.h"

#include <pthread.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#ifdef BOUGH_CRASH_POINTS

/* NAME[:NUMBER] of the environment. */
typedef struct named {
    char name[64];
    long number;
} named;

enum { MOST_DELAYS = 4 };
static named killed, delayed[MOST_DELAYS];
static atomic_long countdown;
static char hold_in[PATH_MAX / 2]; /* "": nobody is held */

/* Milliseconds: between looks whether it may go on; and the most, should the test have died. */
enum { LOOK_MS = 5, HELD_MOST_MS = 120000 };

/* One of a list; returns what follows it. */
static const char *read_one(named *out, const char *text, long number) {
    size_t n = text ? strcspn(text, ":,") : 0;
    if (n == 0 || n >= sizeof out->name) return NULL;
    memcpy(out->name, text, n);
    out->number = text[n] == ':' ? atol(text + n + 1) : number;
    text = strchr(text, ',');
    return text ? text + 1 : NULL;
}

static void read_environment(void) {
    (void)read_one(&killed, getenv("BOUGH_CRASH_AT"), 1);
    const char *text = getenv("BOUGH_DELAY_AT");
    for (int i = 0; text && i < MOST_DELAYS; i++) text = read_one(&delayed[i], text, 100);
    const char *dir = getenv("BOUGH_HOLD_IN");
    (void)snprintf(hold_in, sizeof hold_in, "%s", dir ? dir : "");
    atomic_store(&countdown, killed.number);
}

static void sleep_ms(long ms) {
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0)
        ;
}

static void delay(long most_ms) {
    unsigned chance = 0;
    if (most_ms <= 0 || getrandom(&chance, sizeof chance, 0) != (ssize_t)sizeof chance) return;
    sleep_ms((long)(chance % (unsigned long)most_ms));
}

/* One thread for each file: who renames it. */
static void hold(const char *name) {
    char armed[PATH_MAX], held[PATH_MAX];
    (void)snprintf(armed, sizeof armed, "%s/%.64s", hold_in, name);
    (void)snprintf(held, sizeof held, "%s/%.64s.held", hold_in, name);
    if (rename(armed, held) != 0) return;
    for (long ms = 0; ms < HELD_MOST_MS && access(held, F_OK) == 0; ms += LOOK_MS)
        sleep_ms(LOOK_MS);
}

void bough_point_pass(const char *name) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_environment);
    for (int i = 0; i < MOST_DELAYS; i++)
        if (strcmp(name, delayed[i].name) == 0) delay(delayed[i].number);
    if (*hold_in) hold(name);
    if (strcmp(name, killed.name) == 0 && atomic_fetch_sub(&countdown, 1) == 1)
        (void)kill(getpid(), SIGKILL);
}

#endif
