/**
 * Small blocking SQL calls to a compute as BOUGH_ADMIN_ROLE over its Unix socket, by libpq. Worker
 * threads only.
 *
 * Whoever may use a branch can hold a lock in it for as long as he likes, and a server that is
 * stuck, or is not what it seems, says nothing at all. So each connection has a limit: PostgreSQL
 * is told it, and where it does not keep to it, the connection is given up.
 */
#ifndef BOUGH_PG_SQL_H
#define BOUGH_PG_SQL_H

#include <libpq-fe.h>

#include "pg/conf.h"
#include "util/fs.h"

/** Who looks on while a connection waits for its server. */
typedef struct bough_sql_watch {
    int (*tick)(void *context); /**< about ten times a second; non-zero gives up. NULL: nobody */
    void *context;
} bough_sql_watch;

/** Where a server listens, and how Bough comes in. */
typedef struct bough_sql_place {
    char socket_dir[BOUGH_PATH_MAX];
    char user[BOUGH_ADMIN_USER_SIZE]; /**< BOUGH_ADMIN_ROLE, and of a compute its key behind it */
    const char *password;             /**< borrowed; NULL: the store's */
    int major;                        /**< of the server; 0: not known, and none is there */
    bough_sql_watch watch;
} bough_sql_place;

/** Room for what bough_sql_options() makes. */
#define BOUGH_SQL_OPTIONS_SIZE 640

/**
 * Parameters of the sessions in which Bough works as a superuser, as PGOPTIONS has them. What
 * belongs to a branch may set any parameter for everybody (ALTER DATABASE ... SET; the
 * configuration that an import carries), and event triggers are its own code: neither is for these
 * sessions. Before 17 event triggers that are ENABLE ALWAYS or REPLICA fire none the less: see
 * bough_sql_begin_ddl().
 *
 * @param[out] out  BOUGH_SQL_OPTIONS_SIZE bytes.
 * @param major     Of the server.
 */
void bough_sql_options(char *out, int major);

/**
 * A condition on a row `p` of pg_proc: others run it without having named it, as what stands behind
 * an event trigger, a cast between types of the system, or a name in pg_catalog. Whoever owns such
 * a function acts as they do, superusers among them, so that no user is given one.
 */
#define BOUGH_SQL_RUN_UNNAMED                                                                      \
    "(EXISTS (SELECT FROM pg_event_trigger WHERE evtfoid = p.oid) OR EXISTS (SELECT FROM pg_cast"  \
    " WHERE castfunc = p.oid AND castsource < 16384 AND casttarget < 16384) OR p.pronamespace ="   \
    " 'pg_catalog'::regnamespace)"

/** And on one that is no extension's, runs as its owner, and calls what users may replace. */
#define BOUGH_SQL_LENDS_RIGHTS                                                                     \
    "(p.prosecdef AND p.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend WHERE classid ="        \
    " 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e'))"

/** How long a statement may take. All but the last wait five seconds for a lock. */
typedef enum bough_sql_limit {
    BOUGH_SQL_GLANCE,    /**< ten seconds: what is asked again later */
    BOUGH_SQL_BRIEF,     /**< half a minute: what takes milliseconds */
    BOUGH_SQL_LONG,      /**< what depends on the size of a database: an hour, and while the server
                              answers others */
    BOUGH_SQL_UNLIMITED, /**< to servers that nobody else uses yet, with a watch: what was imported
                              may do there what it likes */
    BOUGH_SQL_SOURCE     /**< ten minutes: of a server that is to be copied */
} bough_sql_limit;

/**
 * Connect, within ten seconds. Caller ends with PQfinish().
 * @retval BOUGH_E_CANCELLED    The watch gave up.
 * @retval BOUGH_E_UNREACHABLE  No server, or it is starting.
 * @retval BOUGH_E_NOTFOUND     No such database.
 * @retval BOUGH_E_TIMEOUT      It says nothing.
 */
BOUGH_CHECK int bough_sql_connect(PGconn **conn, const bough_sql_place *place, const char *database,
                                  bough_sql_limit limit, bough_error *err);

/**
 * Give a connection that is not of bough_sql_connect() its limit, which the server is told as well,
 * and its watch.
 */
BOUGH_CHECK int bough_sql_adopt(PGconn *conn, bough_sql_limit limit, bough_sql_watch watch,
                                bough_error *err);

/**
 * Run statements without parameters. The message is PostgreSQL's own.
 *
 * @retval BOUGH_E_CONFLICT     The object exists (42710, 42P04).
 * @retval BOUGH_E_NOTFOUND     The object or database does not exist (42704, 3D000).
 * @retval BOUGH_E_BUSY         Another session holds a lock that it needs (55P03).
 * @retval BOUGH_E_TIMEOUT      It took longer than its limit (57014), or the server says nothing;
 *                              then nothing more can be done with the connection.
 * @retval BOUGH_E_CANCELLED    The watch gave up; likewise. The server is told nothing, since it
 *                              might not listen: its end, or its own limit, ends the statement.
 * @retval BOUGH_E_NOSPACE      The disk is full (53100).
 * @retval BOUGH_E_UNREACHABLE  The connection was lost.
 * @retval BOUGH_E_PG           Any other error.
 */
BOUGH_CHECK int bough_sql_exec(PGconn *conn, const char *sql, bough_error *err);

/** Run one statement with text parameters. `result` may be NULL; else the caller PQclear()s it. */
BOUGH_CHECK int bough_sql_query(PGresult **result, PGconn *conn, const char *sql, int n_params,
                                const char *const *params, bough_error *err);

/**
 * Begin a transaction for statements on objects of a database, in which no event trigger fires.
 * What there is of them is as it was for everybody else, and after bough_sql_end_ddl().
 *
 * @param[out] silenced  For bough_sql_end_ddl(); NULL after an error.
 */
BOUGH_CHECK int bough_sql_begin_ddl(PGresult **silenced, PGconn *conn, bough_error *err);

/**
 * End it.
 *
 * @param silenced  Is cleared; NULL: nothing was begun, and `rc` is returned.
 * @param rc        What became of the statements: after an error, which is returned, all of it is
 *                  undone.
 */
BOUGH_CHECK int bough_sql_end_ddl(PGresult *silenced, PGconn *conn, int rc, bough_error *err);

/** Quote an identifier into `out` (NAMEDATALEN * 2 + 3 is enough for any). `conn` may be NULL. */
BOUGH_CHECK int bough_sql_ident(char *out, size_t size, PGconn *conn, const char *name,
                                bough_error *err);

#endif
