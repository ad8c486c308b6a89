/* Which restore points are kept. See thinning.h. */
#include "model/thinning.h"

void bough_thinning_choose(bool *keep, const bough_point *points, size_t n, uint64_t least_bytes,
                           int64_t least_ms) {
    size_t kept = n - 1;
    if (n == 0) return;
    keep[0] = keep[n - 1] = true;
    for (size_t i = n - 1; i-- > 1;) {
        /* what would lie between its neighbours, and may */
        uint64_t gap = points[kept].lsn - points[i - 1].lsn;
        uint64_t most = (points[n - 1].lsn - points[i - 1].lsn) / BOUGH_POINTS_PER_DISTANCE;
        keep[i] = gap > (most > least_bytes ? most : least_bytes) ||
                  points[kept].time_ms - points[i - 1].time_ms > least_ms;
        if (keep[i]) kept = i;
    }
}
