/* Moments as people write them: an LSN, a time with or without its zone, "2 hours ago". */
#include "cli/moment.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "util/lsn.h"
#include "util/when.h"

static int refuse(const char *text, bough_error *err) {
    (void)bough_fail(err, BOUGH_E_USAGE, "\"%.100s\" is not a moment", text);
    return bough_hint(err, "Write it like '2026-11-23 14:03:07.25+01', '2 hours ago' or "
                           "0/A27BB60.");
}

/* "2 hours ago", "90 s ago", "10min ago": microseconds before now; 0 where it is something else. */
static int64_t ago(const char *text) {
    static const struct {
        const char *name;
        int64_t seconds;
    } units[] = {{"s", 1},     {"sec", 1},     {"second", 1}, {"m", 60},
                 {"min", 60},  {"minute", 60}, {"h", 3600},   {"hour", 3600},
                 {"d", 86400}, {"day", 86400}, {"w", 604800}, {"week", 604800}};
    char unit[16];
    int64_t n;
    int end = -1;
    if (!isdigit((unsigned char)*text) ||
        sscanf(text, "%9" SCNd64 " %15[A-Za-z] ago%n", &n, unit, &end) != 2 || end < 0 || text[end])
        return 0;
    size_t length = strlen(unit);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t known = strlen(units[i].name);
        bool plural = length == known + 1 && tolower((unsigned char)unit[known]) == 's';
        if (strncasecmp(unit, units[i].name, known) == 0 && (length == known || plural))
            return n <= BOUGH_LONGEST_SECONDS / units[i].seconds ? n * units[i].seconds * 1000000
                                                                 : 0;
    }
    return 0;
}

static void write_time(char *out, size_t size, int64_t us) {
    time_t seconds = (time_t)(us / 1000000);
    struct tm tm;
    char date[32];
    gmtime_r(&seconds, &tm);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out, size, "%s.%06dZ", date, (int)(us % 1000000));
}

/* Without a zone: local time. */
static int local(int64_t *us, const char *date, const char *fraction, const char *text,
                 bough_error *err) {
    struct tm tm = {.tm_isdst = -1};
    char utc[80];
    int64_t part;
    /* bough_when_time_us() knows which dates there are */
    (void)snprintf(utc, sizeof utc, "%s%sZ", date, fraction);
    if (bough_when_time_us(&part, utc, NULL) || !strptime(date, "%Y-%m-%dT%H:%M:%S", &tm))
        return refuse(text, err);
    time_t seconds = mktime(&tm);
    if (seconds == (time_t)-1) return refuse(text, err);
    *us = (int64_t)seconds * 1000000 + part % 1000000;
    return BOUGH_OK;
}

/* Date, time and zone as PostgreSQL writes them, too: "2026-11-23 14:03+01". */
static int date_and_time(int64_t *us, const char *text, bough_error *err) {
    char date[24] = "", fraction[16] = "", zone[16] = "";
    int at = -1, n = 0;
    if (sscanf(text, "%10[0-9-]%*1[ Tt]%n", date, &at) != 1 || at < 0) {
        /* a date alone is its first moment */
        if (sscanf(text, "%10[0-9-]%n", date, &at) != 1 || text[at]) return refuse(text, err);
        (void)snprintf(date + strlen(date), sizeof date - strlen(date), "T00:00:00");
        return local(us, date, "", text, err);
    }
    const char *p = text + at;
    char clock[12] = "";
    if (sscanf(p, "%8[0-9:]%n", clock, &n) != 1) return refuse(text, err);
    p += n;
    if (strlen(clock) == 5) (void)snprintf(clock + 5, sizeof clock - 5, ":00");
    (void)snprintf(date + strlen(date), sizeof date - strlen(date), "T%s", clock);
    if (*p == '.' && sscanf(p, "%13[.0-9]%n", fraction, &n) == 1) p += n;
    while (*p == ' ') p++;
    if (!*p) return local(us, date, fraction, text, err);
    int hours, minutes = 0, end = -1;
    char sign[2];
    if (strcasecmp(p, "Z") == 0 || strcasecmp(p, "UTC") == 0 || strcasecmp(p, "GMT") == 0)
        (void)snprintf(zone, sizeof zone, "Z");
    else if ((sscanf(p, "%1[+-]%2d:%2d%n", sign, &hours, &minutes, &end) == 3 ||
              sscanf(p, "%1[+-]%2d%2d%n", sign, &hours, &minutes, &end) == 3 ||
              sscanf(p, "%1[+-]%2d%n", sign, &hours, &end) == 2) &&
             end >= 0 && !p[end] && hours >= 0 && minutes >= 0) {
        (void)snprintf(zone, sizeof zone, "%s%02d:%02d", sign, hours, end == 3 ? 0 : minutes);
    } else {
        return refuse(text, err);
    }
    char whole[80];
    (void)snprintf(whole, sizeof whole, "%s%s%s", date, fraction, zone);
    return bough_when_time_us(us, whole, NULL) ? refuse(text, err) : BOUGH_OK;
}

int cli_moment(char *out, size_t size, const char *text, bough_error *err) {
    while (*text == ' ') text++;
    uint64_t lsn;
    if (bough_lsn_read(&lsn, text)) {
        (void)snprintf(out, size, "%s", text);
        return BOUGH_OK;
    }
    int64_t us = ago(text);
    if (us) {
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        us = (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000 - us;
        if (us < 0) return refuse(text, err);
    } else {
        int rc = date_and_time(&us, text, err);
        if (rc) return rc;
    }
    write_time(out, size, us);
    return BOUGH_OK;
}
