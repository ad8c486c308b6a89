/**
 * Named points between the steps of an operation, for tests that kill the process there and look
 * whether the operation is wholly there or wholly not after a new start. Nothing where the build
 * has no -Dcrash_points=true.
 *
 * BOUGH_CRASH_AT=NAME[:N] in the environment ends the process by SIGKILL at the Nth time (default
 * 1) that it comes to point NAME. test/integration/test_points.py has a test for every name.
 * BOUGH_DELAY_AT=NAME[:MS][,NAME...] holds each thread that comes to NAME for less than MS
 * milliseconds (default 100), each time another: windows that are short in life become wide. A
 * BOUGH_WINDOW is for that alone: nothing is half done there, and no test kills.
 * BOUGH_HOLD_IN=DIR holds one thread for as long as a test wants: where there is a file DIR/NAME,
 * the first to come to point NAME makes it DIR/NAME.held, and goes on when that is gone.
 */
#ifndef BOUGH_UTIL_CRASHPOINT_H
#define BOUGH_UTIL_CRASHPOINT_H

#ifdef BOUGH_CRASH_POINTS
/** Any thread. Reads the environment at its first call. */
void bough_point_pass(const char *name);
/** Where the operation got here without a failure. */
#define BOUGH_POINT(rc, name)                                                                      \
    do {                                                                                           \
        if (!(rc)) bough_point_pass(name);                                                         \
    } while (0)
#define BOUGH_WINDOW(name) bough_point_pass(name)
#else
#define BOUGH_POINT(rc, name) ((void)(rc))
#define BOUGH_WINDOW(name) ((void)0)
#endif

#endif
