/**
 * Times and durations as people write them. No state; any thread.
 */
#ifndef BOUGH_UTIL_WHEN_H
#define BOUGH_UTIL_WHEN_H

#include <stdint.h>

#include "util/error.h"

/** No duration is longer: 100 years. */
#define BOUGH_LONGEST_SECONDS ((int64_t)36525 * 86400)

/**
 * Read a time of RFC 3339, with its zone: "2026-11-25T14:03:07.25+01:00"; a blank may stand for
 * the T, and case does not count (section 5.6). A leap second counts as the second after it.
 *
 * @param[out] ms  Milliseconds since 1970 (UTC); digits beyond are dropped.
 * @retval BOUGH_E_INVALID  It is none, or has no zone.
 */
BOUGH_CHECK int bough_when_time(int64_t *ms, const char *text, bough_error *err);
/** The same in microseconds, which is how exact PostgreSQL's times are. */
BOUGH_CHECK int bough_when_time_us(int64_t *us, const char *text, bough_error *err);

/**
 * Read a duration: whole numbers with the units w, d, h, m and s, each at most once and from the
 * greatest to the smallest: "7d", "1d12h", "90m".
 *
 * @param[out] seconds  At least 1.
 * @retval BOUGH_E_INVALID  It is none, is nothing, or is longer than 100 years.
 */
BOUGH_CHECK int bough_when_duration(int64_t *seconds, const char *text, bough_error *err);

#endif
