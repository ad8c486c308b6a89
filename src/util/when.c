/* Times of RFC 3339, and durations. */
#include "util/when.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

/* Exactly n digits; moves on. */
static bool take_number(int *out, const char **at, int n) {
    *out = 0;
    for (int i = 0; i < n; i++, (*at)++) {
        if (!isdigit((unsigned char)**at)) return false;
        *out = *out * 10 + (**at - '0');
    }
    return true;
}

static bool take(const char **at, char wanted) {
    if (toupper((unsigned char)**at) != wanted) return false;
    (*at)++;
    return true;
}

static bool take_fraction(int *us, const char **at) {
    *us = 0;
    if (!take(at, '.')) return true;
    if (!isdigit((unsigned char)**at)) return false;
    for (int unit = 100000; isdigit((unsigned char)**at); (*at)++, unit /= 10)
        *us += (**at - '0') * unit;
    return true;
}

/* Minutes east of UTC. */
static bool take_zone(int *minutes, const char **at) {
    int hour, minute;
    *minutes = 0;
    if (take(at, 'Z')) return true;
    int sign = **at == '-' ? -1 : 1;
    if (!take(at, '+') && !take(at, '-')) return false;
    if (!take_number(&hour, at, 2) || !take(at, ':') || !take_number(&minute, at, 2)) return false;
    *minutes = sign * (hour * 60 + minute);
    return hour < 24 && minute < 60;
}

static bool is_date(int year, int month, int day) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month >= 1 && month <= 12 && day >= 1 &&
           day <= days[month - 1] + (month == 2 && is_leap);
}

int bough_when_time_us(int64_t *us, const char *text, bough_error *err) {
    struct tm tm = {0};
    const char *at = text;
    int year, month, fraction, zone;
    bool ok = take_number(&year, &at, 4) && take(&at, '-') && take_number(&month, &at, 2) &&
              take(&at, '-') && take_number(&tm.tm_mday, &at, 2) &&
              (take(&at, 'T') || take(&at, ' ')) && take_number(&tm.tm_hour, &at, 2) &&
              take(&at, ':') && take_number(&tm.tm_min, &at, 2) && take(&at, ':') &&
              take_number(&tm.tm_sec, &at, 2) && take_fraction(&fraction, &at) &&
              take_zone(&zone, &at) && *at == '\0';
    ok = ok && year >= 1970 && is_date(year, month, tm.tm_mday) && tm.tm_hour < 24 &&
         tm.tm_min < 60 && tm.tm_sec <= 60;
    if (!ok) {
        (void)bough_fail(err, BOUGH_E_INVALID, "\"%.60s\" is not a time with a zone", text);
        (void)bough_hint(err, "Write it like 2026-12-31T18:00:00+01:00 or 2026-12-31T17:00:00Z.");
        return BOUGH_E_INVALID;
    }
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    *us = ((int64_t)timegm(&tm) - (int64_t)zone * 60) * 1000000 + fraction;
    return BOUGH_OK;
}

int bough_when_time(int64_t *ms, const char *text, bough_error *err) {
    int64_t us = 0;
    int rc = bough_when_time_us(&us, text, err);
    *ms = us / 1000;
    return rc;
}

int bough_when_duration(int64_t *seconds, const char *text, bough_error *err) {
    static const struct {
        char letter;
        int64_t seconds;
    } units[] = {{'w', 604800}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
    enum { UNITS = sizeof units / sizeof units[0] };
    const char *at = text;
    size_t next = 0;
    bool ok = *at != '\0';
    *seconds = 0;
    while (ok && *at) {
        int64_t n = 0;
        ok = isdigit((unsigned char)*at);
        for (; isdigit((unsigned char)*at) && n <= BOUGH_LONGEST_SECONDS; at++)
            n = n * 10 + (*at - '0');
        while (next < UNITS && units[next].letter != *at) next++;
        ok = ok && next < UNITS && n <= BOUGH_LONGEST_SECONDS;
        if (!ok) break;
        *seconds += n * units[next++].seconds;
        ok = *seconds <= BOUGH_LONGEST_SECONDS;
        at++;
    }
    if (ok && *seconds > 0) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_INVALID, "\"%.60s\" is not a duration of 1 s to 100 years", text);
    (void)bough_hint(err, "Write it like 90m, 12h, 7d or 1d12h.");
    return BOUGH_E_INVALID;
}
