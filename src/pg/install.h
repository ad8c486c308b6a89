/**
 * PostgreSQL installations on this machine. Any thread.
 */
#ifndef BOUGH_PG_INSTALL_H
#define BOUGH_PG_INSTALL_H

#include <stdbool.h>
#include <stddef.h>

#include "bough/error.h"

#define BOUGH_PG_OLDEST 13
#define BOUGH_PG_NEWEST 18

/** One installation. */
typedef struct bough_pg {
    int major;         /**< 15 */
    char version[32];  /**< "15.18" */
    char bindir[1024]; /**< holds postgres and initdb */
    bool has_lz4;      /**< wal_compression = lz4 is possible (15 and later, where built with it) */
    bool has_tls;      /**< built with OpenSSL */
    bool has_tools;    /**< pg_basebackup, pg_restore and psql of this version are there */
} bough_pg;

/**
 * Find an installation. Looks in the directories of $BOUGH_PG_PATH (colon-separated bin
 * directories), then /usr/lib/postgresql/N/bin, /usr/pgsql-N/bin, /usr/local/pgsql/bin, then $PATH.
 *
 * @param major  13 to 18, or 0 for the newest one that is installed.
 * @retval BOUGH_E_UNSUPPORTED  Not installed, or a version that Bough does not know; the hint names
 * the package.
 * @return Or why it could not be asked what it was built with, which another time it may be.
 */
BOUGH_CHECK int bough_pg_find(bough_pg *pg, int major, bough_error *err);

/** List all installations, newest first. Returns how many were written to `list` (at most `room`).
 */
size_t bough_pg_list(bough_pg *list, size_t room);

/**
 * Find a client program (psql, pg_restore, pg_basebackup): of version `major`, else of the nearest
 * newer one, else, where `older_too`, of the newest older one. It need not belong to a server
 * installation.
 *
 * @param[out] tool  tool->bindir holds the program; has_tools is not set.
 * @retval BOUGH_E_UNSUPPORTED  Not installed; the hint names the package.
 */
BOUGH_CHECK int bough_pg_tool(bough_pg *tool, const char *name, int major, bool older_too,
                              bough_error *err);

#endif
