/** Which restore points are kept as the past grows long. No state; any thread. */
#ifndef BOUGH_MODEL_THINNING_H
#define BOUGH_MODEL_THINNING_H

#include "store/store.h"

/**
 * Older points may lie as far apart as they are from the newest, divided by this: 32 for the first
 * 32 times the least distance, and some 22 to 44 more each time that the history doubles.
 */
#define BOUGH_POINTS_PER_DISTANCE 32U

/**
 * Choose. The oldest stays, for the history begins there, and so does the newest.
 *
 * @param[out] keep    n of them.
 * @param points       Oldest first.
 * @param least_bytes  Points that are so far apart in WAL are kept while they are young.
 * @param least_ms     Points that are so far apart in time are kept whatever their WAL: history is
 * forgotten from one to the next.
 */
void bough_thinning_choose(bool *keep, const bough_point *points, size_t n, uint64_t least_bytes,
                           int64_t least_ms);

#endif
