/**
 * What Bough does inside a running compute, by SQL as its administrator: roles, databases,
 * discovery. Worker threads, with the branch's lock; so all of it has limits (pg/sql.h), whatever
 * goes on in the branch.
 */
#ifndef BOUGH_SERVER_INSIDE_H
#define BOUGH_SERVER_INSIDE_H

#include "pg/sql.h"
#include "server/server.h"

/**
 * Connect for statements about the cluster: to "postgres", or where that is missing or `not_to`, to
 * "template1".
 *
 * @param[out] conn  PQfinish() it, also after a failure.
 * @param not_to     NULL: none.
 */
BOUGH_CHECK int inside_connect(PGconn **conn, const server *srv, const char *endpoint,
                               const char *not_to, bough_sql_limit limit, bough_error *err);

/** CREATE ROLE, with CREATEDB and CREATEROLE; `password` NULL: NOLOGIN. */
BOUGH_CHECK int inside_create_role(const server *srv, const char *endpoint, const char *role,
                                   const char *password, bough_error *err);
/** Set the password and let it log in. */
BOUGH_CHECK int inside_set_password(const server *srv, const char *endpoint, const char *role,
                                    const char *password, bough_error *err);
/**
 * Drop a role. What it owns goes to the owner of the database that it is in, and its privileges go.
 * @retval BOUGH_E_PG  It owns a database.
 */
BOUGH_CHECK int inside_drop_role(const server *srv, const char *endpoint, const char *role,
                                 bough_error *err);
/** CREATE DATABASE, and let its owner use the schema public fully. */
BOUGH_CHECK int inside_create_database(const server *srv, const char *endpoint,
                                       const char *database, const char *owner, bough_error *err);
/** Rename and change the owner; `name` and `owner` may be what they were. */
BOUGH_CHECK int inside_alter_database(const server *srv, const char *endpoint,
                                      const bough_database_row *row, const char *name,
                                      const char *owner, bough_error *err);
BOUGH_CHECK int inside_drop_database(const server *srv, const char *endpoint, const char *database,
                                     bough_error *err);

/** Let the role of standbys come in by this password; the role is made where it is missing. */
BOUGH_CHECK int inside_admit_standby(const server *srv, const char *endpoint, const char *password,
                                     bough_error *err);
/** Whether a standby receives WAL and replays it. */
BOUGH_CHECK int inside_follows(bool *follows, const server *srv, const char *endpoint,
                               bough_error *err);

/** CHECKPOINT, for at most `timeout_ms`. */
BOUGH_CHECK int inside_checkpoint(const server *srv, const char *endpoint, int timeout_ms,
                                  bough_error *err);

/**
 * What goes on in a compute, for people: "2 client sessions", "autovacuum is at work"; "" when
 * nothing does that would miss it. Our own sessions do not count.
 */
BOUGH_CHECK int inside_activity(char *out, size_t size, const server *srv, const char *endpoint,
                                bough_error *err);

/** What an imported cluster holds. */
typedef struct inside_contents {
    bough_database_row *databases;
    size_t n_databases;
    bough_role_row *roles;
    size_t n_roles;
    bool *is_super; /**< per database: whether its owner is a superuser */
} inside_contents;

/** Read databases that one can connect to (without "postgres" where there are others) and roles
 * that log in. What has a name that is no UTF-8 is left out: no answer could tell of it. */
BOUGH_CHECK int inside_discover(inside_contents *contents, const server *srv, const char *endpoint,
                                bough_error *err);
void inside_contents_free(inside_contents *contents);

/** Give `owner` the database and everything in it that a superuser owns. Nobody else may know the
 * branch yet: it takes as long as it takes, or until `watch` gives up. */
BOUGH_CHECK int inside_take_over(const server *srv, const char *endpoint, const char *database,
                                 const char *owner, bough_sql_watch watch, bough_error *err);

#endif
