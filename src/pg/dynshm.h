/**
 * Where a compute keeps dynamic shared memory (parallel query, statistics).
 *
 * PostgreSQL's "posix" way shares one directory, /dev/shm, between all servers of a user, and
 * Landlock cannot tell theirs apart; its "mmap" way keeps files in PGDATA/pg_dynshmem, which costs
 * disk and writeback. So pg_dynshmem of a running compute is a link to a directory of its own in
 * /dev/shm.
 */
#ifndef BOUGH_PG_DYNSHM_H
#define BOUGH_PG_DYNSHM_H

#include <stddef.h>

#include "bough/error.h"

/**
 * Make that directory and link PGDATA/pg_dynshmem to it. Where /dev/shm cannot be used, pg_dynshmem
 * is an ordinary directory and `dir` is "".
 *
 * @param[out] dir  The directory, of BOUGH_PATH_MAX bytes.
 * @param branch    Becomes part of its name; a link to a directory of another branch is not
 * followed.
 */
BOUGH_CHECK int bough_dynshm_begin(char *dir, const char *pgdata, const char *branch,
                                   bough_error *err);

/** Remove the directory, when nothing runs on the PGDATA; the link stays. */
void bough_dynshm_end(const char *pgdata, const char *branch);

#endif
