/*
 * The guard of the clock.
 *
 * The anchor is a moment at which the wall clock was believed. `trusted` is the anchor's time and
 * what CLOCK_BOOTTIME says has passed since; across a reboot, at least the time since the boot.
 * The wall clock is believed again, and the anchor moves, when it
 * - is within TOLERANCE_MS of that, once in FOLLOW_MS: clocks drift, and many small jumps must not
 *   make a large one;
 * - has been synchronised by the kernel's account (adjtimex) for SETTLE_MS without another jump;
 * - is confirmed by its owner, or nothing waits for it.
 */
#include "server/clock.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>

#include "util/fs.h"
#include "util/log.h"

#define TOLERANCE_MS ((int64_t)600000)
#define FOLLOW_MS ((int64_t)3600000)
#define SETTLE_MS ((int64_t)3600000)
#define SAVE_MS ((int64_t)60000)
#define STEADY_MS ((int64_t)60000) /* an offset that moves less has not jumped */

typedef struct reading {
    int64_t wall_ms, boot_ms;
    char boot_id[BOUGH_ID_SIZE];
    bool is_synchronised;
} reading;

struct clock_guard {
    pthread_mutex_t mutex;
    bough_catalogue *cat;
    char *test_file;
    char boot_id[BOUGH_ID_SIZE];
    int64_t anchor_wall_ms, anchor_boot_ms;
    int64_t settled_boot_ms, settled_offset_ms; /* since when the offset is steady; -1: is not */
    int64_t saved_boot_ms;                      /* -1: never */
    bool was_held;
};

static int64_t of_clock(clockid_t id) {
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void read_boot_id(char *out) {
    char text[BOUGH_BOOT_ID_SIZE];
    (void)snprintf(out, BOUGH_ID_SIZE, "unknown");
    if (bough_boot_id(text, NULL) == BOUGH_OK)
        (void)snprintf(out, BOUGH_ID_SIZE, "%.*s", (int)strcspn(text, "\n"), text);
}

/* With the mutex, for the sake of the test file's last good reading. */
static void read_clocks(reading *r, const clock_guard *guard) {
    char *text = NULL;
    size_t size = 0;
    int synchronised = 0;
    if (!guard->test_file) {
        struct timex status = {0};
        r->wall_ms = of_clock(CLOCK_REALTIME);
        r->boot_ms = of_clock(CLOCK_BOOTTIME);
        memcpy(r->boot_id, guard->boot_id, sizeof r->boot_id);
        int state = adjtimex(&status);
        r->is_synchronised = state >= 0 && state != TIME_ERROR && !(status.status & STA_UNSYNC);
        return;
    }
    *r = (reading){0};
    if (bough_read_file(&text, &size, guard->test_file, 4096, NULL) != BOUGH_OK ||
        sscanf(text, "%" SCNd64 " %" SCNd64 " %63s %d", &r->wall_ms, &r->boot_ms, r->boot_id,
               &synchronised) != 4)
        bough_log(BOUGH_LOG_ERROR, "the test's clock makes no sense", "file", guard->test_file,
                  NULL);
    r->is_synchronised = synchronised != 0;
    free(text);
}

static void believe(clock_guard *guard, const reading *r) {
    guard->anchor_wall_ms = r->wall_ms;
    guard->anchor_boot_ms = r->boot_ms;
    guard->settled_boot_ms = -1;
}

/* Whether a wall clock that jumped has been right for long enough. */
static bool has_settled(clock_guard *guard, const reading *r, int64_t offset_ms) {
    bool is_steady =
        guard->settled_boot_ms >= 0 && llabs(offset_ms - guard->settled_offset_ms) <= STEADY_MS;
    if (!r->is_synchronised) {
        guard->settled_boot_ms = -1;
    } else if (!is_steady) {
        guard->settled_boot_ms = r->boot_ms;
        guard->settled_offset_ms = offset_ms;
    } else if (r->boot_ms - guard->settled_boot_ms >= SETTLE_MS) {
        return true;
    }
    return false;
}

static void tell(clock_guard *guard, bool is_held, int64_t offset_ms) {
    char text[32];
    if (is_held == guard->was_held) return;
    guard->was_held = is_held;
    (void)snprintf(text, sizeof text, "%" PRId64, offset_ms / 1000);
    if (is_held)
        bough_log(BOUGH_LOG_WARN, "the clock has jumped: nothing expires by it", "seconds", text,
                  NULL);
    else
        bough_log(BOUGH_LOG_INFO, "the clock is believed again", NULL);
}

/* With the mutex. */
static void look(clock_moment *m, clock_guard *guard) {
    reading r;
    read_clocks(&r, guard);
    int64_t passed_ms = r.boot_ms - guard->anchor_boot_ms;
    int64_t offset_ms = r.wall_ms - guard->anchor_wall_ms - passed_ms;
    bool is_near = llabs(offset_ms) <= TOLERANCE_MS;
    bool is_believed = is_near ? passed_ms >= FOLLOW_MS : has_settled(guard, &r, offset_ms);
    if (is_believed) believe(guard, &r);
    int64_t trusted_ms = guard->anchor_wall_ms + r.boot_ms - guard->anchor_boot_ms;
    *m = (clock_moment){.wall_ms = r.wall_ms,
                        .now_ms = r.wall_ms < trusted_ms ? r.wall_ms : trusted_ms,
                        .latest_ms = r.wall_ms > trusted_ms ? r.wall_ms : trusted_ms,
                        .is_held = !is_near && !is_believed};
    tell(guard, m->is_held, offset_ms);
}

void clock_look(clock_moment *moment, clock_guard *guard) {
    pthread_mutex_lock(&guard->mutex);
    look(moment, guard);
    pthread_mutex_unlock(&guard->mutex);
}

/* Believe the wall clock, and remember it. */
static int restart(clock_moment *moment, clock_guard *guard, bough_error *err) {
    reading r;
    pthread_mutex_lock(&guard->mutex);
    read_clocks(&r, guard);
    believe(guard, &r);
    look(moment, guard);
    pthread_mutex_unlock(&guard->mutex);
    return clock_save(guard, true, err);
}

int clock_begin(clock_moment *moment, clock_guard *guard, bough_error *err) {
    bool any;
    int rc = bough_branches_any_timed(&any, guard->cat, err);
    if (rc) return rc;
    if (!any) return restart(moment, guard, err);
    clock_look(moment, guard);
    return BOUGH_OK;
}

int clock_confirm(clock_moment *moment, clock_guard *guard, bough_error *err) {
    return restart(moment, guard, err);
}

int clock_save(clock_guard *guard, bool is_urgent, bough_error *err) {
    bough_clock_row row = {0};
    reading r;
    pthread_mutex_lock(&guard->mutex);
    read_clocks(&r, guard);
    bool is_due =
        is_urgent || guard->saved_boot_ms < 0 || r.boot_ms - guard->saved_boot_ms >= SAVE_MS;
    row.wall_ms = guard->anchor_wall_ms + r.boot_ms - guard->anchor_boot_ms;
    row.boot_ms = r.boot_ms;
    memcpy(row.boot_id, r.boot_id, sizeof row.boot_id);
    if (is_due) guard->saved_boot_ms = r.boot_ms;
    pthread_mutex_unlock(&guard->mutex);
    return is_due ? bough_clock_set(guard->cat, &row, err) : BOUGH_OK;
}

bool clock_is_test(const clock_guard *guard) {
    return guard->test_file != NULL;
}

/* Go on from what an earlier server, or an earlier boot, remembered. */
static int recall(clock_guard *guard, bough_error *err) {
    bough_clock_row row;
    reading r;
    bool any;
    read_clocks(&r, guard);
    believe(guard, &r);
    int rc = bough_branches_any_timed(&any, guard->cat, err);
    if (rc || !any) return rc;
    bough_error none;
    rc = bough_clock_get(&row, guard->cat, &none);
    if (rc == BOUGH_E_NOTFOUND) return BOUGH_OK;
    if (rc) {
        if (err) *err = none;
        return rc;
    }
    bool same_boot = strcmp(row.boot_id, r.boot_id) == 0;
    guard->anchor_wall_ms = row.wall_ms;
    /* a clock that counts back within a boot (a virtual machine that was restored) counts nothing
     */
    guard->anchor_boot_ms = !same_boot ? 0 : r.boot_ms < row.boot_ms ? r.boot_ms : row.boot_ms;
    return BOUGH_OK;
}

int clock_new(clock_guard **out, bough_catalogue *cat, const char *test_file, bough_error *err) {
    clock_guard *guard = *out = calloc(1, sizeof *guard);
    if (!guard) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    guard->cat = cat;
    guard->settled_boot_ms = guard->saved_boot_ms = -1;
    pthread_mutex_init(&guard->mutex, NULL);
    read_boot_id(guard->boot_id);
    if (test_file && !(guard->test_file = strdup(test_file)))
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = recall(guard, err);
    if (!rc) {
        clock_moment moment;
        clock_look(&moment, guard);
    }
    return rc;
}

void clock_free(clock_guard *guard) {
    if (!guard) return;
    pthread_mutex_destroy(&guard->mutex);
    free(guard->test_file);
    free(guard);
}
