/* Restore points: a moment of a branch kept beside it, without its WAL, which is in pg_wal or in
 * the branch's history. */
#ifndef BOUGH_STORE_POINT_H
#define BOUGH_STORE_POINT_H

#include "store/internal.h"

/*
 * Write the point of a moment into BRANCHES/DIR/points; durable. DIR may be the directory of a
 * branch that is being made; its stack is the moment's. `state_from` is a PGDATA that has the
 * moment's two-phase files.
 */
int bough_point_write(const bough_store *store, const char *dir, const bough_moment *moment,
                      const char *state_from, bough_error *err);
/*
 * The same for the first point of a branch that is being made, whose PGDATA has its WAL. From there
 * on an LSN means something else in the branch than in its parent, so the place is exact.
 */
int bough_point_write_first(const bough_store *store, const char *dir, const bough_moment *moment,
                            const char *pgdata, bough_error *err);

/* The oldest of `n` points that history from a time on needs; those before it are to go. n > 0. */
size_t bough_points_kept(const bough_point *points, size_t n, int64_t keep_from_ms);

#endif
