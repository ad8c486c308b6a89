/* The nearest of several names: optimal string alignment distance with three rows. */
#include "client/nearest.h"

#include <ctype.h>
#include <string.h>

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static int lower(char c) {
    return tolower((unsigned char)c);
}

size_t bough_distance(const char *a, const char *b) {
    size_t na = strnlen(a, BOUGH_NEAREST_MAX), nb = strnlen(b, BOUGH_NEAREST_MAX);
    size_t rows[3][BOUGH_NEAREST_MAX + 1];
    for (size_t j = 0; j <= nb; j++) rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *now = rows[i % 3], *before = rows[(i + 2) % 3];
        const size_t *two_before = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t cost = lower(a[i - 1]) != lower(b[j - 1]);
            now[j] = least(least(before[j] + 1, now[j - 1] + 1), before[j - 1] + cost);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                lower(a[i - 2]) == lower(b[j - 1]))
                now[j] = least(now[j], two_before[j - 2] + 1);
        }
    }
    return rows[na % 3][nb];
}

/* Whether one is the beginning of the other, at least three bytes of it. */
static int begins(const char *a, const char *b) {
    size_t n = least(strlen(a), strlen(b));
    return n >= 3 && strncasecmp(a, b, n) == 0;
}

const char *bough_nearest(const char *wanted, const char *const *names, size_t count) {
    const char *best = NULL;
    size_t best_distance = (size_t)-1;
    for (size_t i = 0; i < count; i++) {
        if (!names[i]) continue;
        size_t longer = strnlen(names[i], BOUGH_NEAREST_MAX),
               n = strnlen(wanted, BOUGH_NEAREST_MAX);
        if (n > longer) longer = n;
        size_t distance = bough_distance(wanted, names[i]);
        size_t allowed = longer < 6 ? (longer > 1) : longer / 3;
        if (distance > allowed && !begins(wanted, names[i])) continue;
        if (distance >= best_distance) continue;
        best = names[i];
        best_distance = distance;
    }
    return best;
}
