/**
 * Reading WAL: where it must end so that a branch shows a given moment.
 *
 * Formats are those of PostgreSQL 13 to 18: access/xlogrecord.h, access/xlog_internal.h,
 * access/xact.h. Recovery stops where the WAL ends, so a moment is a place to cut it. The rule for
 * times is that of recovery_target_time (recoveryStopsBefore() in xlogrecovery.c): cut before the
 * first commit or abort that is later.
 */
#ifndef BOUGH_STORE_WALSCAN_H
#define BOUGH_STORE_WALSCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"

/** Seconds from 1970 to 2000, where PostgreSQL's time begins (datatype/timestamp.h). */
#define BOUGH_PG_EPOCH_SECONDS INT64_C(946684800)

/** Where segments are found. */
typedef struct bough_wal_source {
    uint32_t tli;
    uint64_t segment_bytes;
    /** Open a segment for reading: its descriptor, or -1 with errno. The scan closes it. */
    int (*open)(void *context, uint32_t tli, uint64_t number);
    void *context;
} bough_wal_source;

/** What to look for. The scan ends at whatever comes first. */
typedef struct bough_wal_wish {
    uint64_t start;      /**< LSN of a record: a redo point */
    uint64_t not_before; /**< records that begin before it are always in: the base has them */
    uint64_t end;        /**< the WAL written so far ends here; 0: not known */
    uint64_t lsn;        /**< no record that ends behind it; 0: any */
    int64_t time_us;     /**< no commit later than this, microseconds since 1970; 0: any */
} bough_wal_wish;

typedef struct bough_wal_found {
    uint64_t cut;           /**< LSN behind the last record that is in */
    bool is_stopped;        /**< by `lsn` or `time_us`; false: the WAL ended before */
    int64_t last_commit_us; /**< time of the last commit that is in; 0: none seen */
    uint64_t commits;       /**< commits that are in, from not_before on */
    uint64_t missing; /**< number of the segment that could not be opened; 0: none was wanted */
    /** How far what is there tells of WAL: the next record's place, or where one of which only the
     * beginning is there would end. */
    uint64_t reach;
} bough_wal_found;

/**
 * Find the place to cut. CRCs are not checked: a torn record at the end of the WAL counts as in,
 * and recovery leaves it out. Whether the WAL ended where it should, only the caller can know: by
 * `reach`.
 *
 * @param[out] found
 * @retval BOUGH_E_NOTFOUND  There is no record at `start`, or a segment between it and not_before
 * is missing.
 * @retval BOUGH_E_SYS  A segment could not be read: where the WAL ends is not known.
 */
BOUGH_CHECK int bough_wal_scan(bough_wal_found *found, const bough_wal_source *source,
                               const bough_wal_wish *wish, bough_error *err);

/**
 * Where the last record ends on the page that ends at `limit`: PostgreSQL writes whole pages, so
 * that their end says less than could be known.
 *
 * @param[out] end  `limit` where the page is not of this WAL, or a record goes on behind it.
 * @param limit     End of what was written.
 * @retval BOUGH_E_SYS, BOUGH_E_NOMEM  Nobody knows.
 */
BOUGH_CHECK int bough_wal_last_end(uint64_t *end, const bough_wal_source *source, uint64_t limit,
                                   bough_error *err);

#endif
