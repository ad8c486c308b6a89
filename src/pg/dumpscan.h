/**
 * Reading a dump in SQL before it is run: which roles it names, and whether it does what a restore
 * into one database must not (connect elsewhere, create databases, run programs through psql's own
 * commands).
 *
 * It is fed piece by piece and skips the data of COPY, so that a dump of any size can be read. One
 * thread.
 */
#ifndef BOUGH_PG_DUMPSCAN_H
#define BOUGH_PG_DUMPSCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "bough/error.h"

typedef struct bough_dumpscan bough_dumpscan;

/** NULL when memory ran out. */
bough_dumpscan *bough_dumpscan_new(void);
void bough_dumpscan_free(bough_dumpscan *scan);

/**
 * Read on.
 * @retval BOUGH_E_UNSUPPORTED  The dump connects to or creates databases, holds a command of psql's
 * own, or something that psql's versions, or encodings, read in more than one way.
 */
BOUGH_CHECK int bough_dumpscan_feed(bough_dumpscan *scan, const char *data, size_t size,
                                    bough_error *err);

/** Roles named so far, each once; NULL-terminated; borrowed until the next call. */
const char *const *bough_dumpscan_roles(const bough_dumpscan *scan);

/**
 * Whether the comment with which pg_dump ends was read. psql takes the end of a file for the end of
 * COPY's data, so that a dump which was cut off would be restored without an error.
 */
bool bough_dumpscan_is_complete(const bough_dumpscan *scan);

#endif
