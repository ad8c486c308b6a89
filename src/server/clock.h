/**
 * What time it is, as far as deleting may rely on it (docs/adr/0007).
 *
 * Two clocks are asked: the wall clock, which anybody may set, and the time that has passed since
 * the wall clock was last trusted, by CLOCK_BOOTTIME. What has come by both has come; times are
 * counted from the later one. So no jump of the wall clock, in either direction, makes anything due
 * that is not. Any thread.
 */
#ifndef BOUGH_SERVER_CLOCK_H
#define BOUGH_SERVER_CLOCK_H

#include "model/catalogue.h"

typedef struct clock_guard clock_guard;

/** A moment. Milliseconds since 1970. */
typedef struct clock_moment {
    int64_t wall_ms;   /**< what the wall clock says */
    int64_t now_ms;    /**< the earlier of the clocks: what is due by it is due */
    int64_t latest_ms; /**< the later of the clocks: lifetimes are counted from it */
    bool is_held;      /**< the wall clock is not believed, for it has jumped */
} clock_moment;

/**
 * Make the guard from what the catalogue remembers.
 * @param test_file  NULL: the machine's clocks. Else a file "WALL_MS BOOT_MS BOOT_ID SYNCHRONISED",
 *                   read each time; for tests.
 */
BOUGH_CHECK int clock_new(clock_guard **guard, bough_catalogue *cat, const char *test_file,
                          bough_error *err);
void clock_free(clock_guard *guard);

/** Look at the clocks. */
void clock_look(clock_moment *moment, clock_guard *guard);

/**
 * Look, to count a lifetime from now. Where nothing waits for a time yet, the wall clock is
 * believed, whatever it did before.
 */
BOUGH_CHECK int clock_begin(clock_moment *moment, clock_guard *guard, bough_error *err);

/** Believe the wall clock as it is now: its owner says that it is right. */
BOUGH_CHECK int clock_confirm(clock_moment *moment, clock_guard *guard, bough_error *err);

/** Remember in the catalogue; not more than once a minute, unless `is_urgent`. */
BOUGH_CHECK int clock_save(clock_guard *guard, bool is_urgent, bough_error *err);

/** Whether the clocks are a test's. */
bool clock_is_test(const clock_guard *guard);

#endif
