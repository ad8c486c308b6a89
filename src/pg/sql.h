/**
 * Small blocking SQL calls to a compute as BOUGH_ADMIN_ROLE over its Unix socket, by libpq. Worker
 * threads only.
 */
#ifndef BOUGH_PG_SQL_H
#define BOUGH_PG_SQL_H

#include <libpq-fe.h>

#include "bough/error.h"

/**
 * Connect. Caller ends with PQfinish().
 * @retval BOUGH_E_UNREACHABLE  No server, or it is starting.
 * @retval BOUGH_E_NOTFOUND     No such database.
 */
BOUGH_CHECK int bough_sql_connect(PGconn **conn, const char *socket_dir, const char *database,
                                  bough_error *err);

/**
 * Run statements without parameters. The message is PostgreSQL's own.
 *
 * @retval BOUGH_E_CONFLICT     The object exists (42710, 42P04).
 * @retval BOUGH_E_NOTFOUND     The object or database does not exist (42704, 3D000).
 * @retval BOUGH_E_NOSPACE      The disk is full (53100).
 * @retval BOUGH_E_UNREACHABLE  The connection was lost.
 * @retval BOUGH_E_PG           Any other error.
 */
BOUGH_CHECK int bough_sql_exec(PGconn *conn, const char *sql, bough_error *err);

/** Run one statement with text parameters. `result` may be NULL; else the caller PQclear()s it. */
BOUGH_CHECK int bough_sql_query(PGresult **result, PGconn *conn, const char *sql, int n_params,
                                const char *const *params, bough_error *err);

/** Quote an identifier into `out` (NAMEDATALEN * 2 + 3 is enough for any). `conn` may be NULL. */
BOUGH_CHECK int bough_sql_ident(char *out, size_t size, PGconn *conn, const char *name,
                                bough_error *err);

#endif
