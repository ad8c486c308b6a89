/**
 * Log sequence numbers as PostgreSQL writes them: "16/B374D848". No state; any thread.
 */
#ifndef BOUGH_UTIL_LSN_H
#define BOUGH_UTIL_LSN_H

#include <stdbool.h>
#include <stdint.h>

/** Room for the longest with its end: "FFFFFFFF/FFFFFFFF". */
#define BOUGH_LSN_SIZE 18

/** An LSN as text, as long as the statement that holds the call. */
#define BOUGH_LSN_TEXT(lsn) bough_lsn_write((char[BOUGH_LSN_SIZE]){0}, (lsn))

/** Write `lsn` as pg_lsn's output does: hexadecimal without leading zeros. @return `out`. */
const char *bough_lsn_write(char out[BOUGH_LSN_SIZE], uint64_t lsn);

/**
 * Read what pg_lsn's input takes (src/backend/utils/adt/pg_lsn.c): one to eight hexadecimal digits,
 * a slash, one to eight again, and nothing around them.
 *
 * @param[out] lsn  Unchanged where it is none.
 * @return Whether it is one.
 */
bool bough_lsn_read(uint64_t *lsn, const char *text);

#endif
