/* New passwords for the copy of a protected branch. */
#include "server/passwords.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pg/conf.h"
#include "pg/sql.h"
#include "server/inside.h"

#define SQL_MAX 1024

/* ALTER ROLE name and what follows; NULL as `verifier`: PASSWORD NULL. */
static int alter(PGconn *conn, const char *role, const char *verifier, bough_error *err) {
    char sql[SQL_MAX], name[BOUGH_PG_NAME_SIZE * 2 + 3];
    int rc = bough_sql_ident(name, sizeof name, conn, role, err);
    if (rc) return rc;
    char *literal = verifier ? PQescapeLiteral(conn, verifier, strlen(verifier)) : NULL;
    if (verifier && !literal) return bough_fail(err, BOUGH_E_PG, "a verifier cannot be quoted");
    int size =
        snprintf(sql, sizeof sql, "ALTER ROLE %s PASSWORD %s", name, literal ? literal : "NULL");
    PQfreemem(literal);
    if (size < 0 || (size_t)size >= sizeof sql)
        return bough_fail(err, BOUGH_E_INTERNAL, "a statement is too long");
    rc = bough_sql_exec(conn, sql, err);
    explicit_bzero(sql, sizeof sql);
    return rc;
}

static int renew_one(PGconn *conn, bough_role_row *row, const server *srv, bough_error *err) {
    char password[BOUGH_PASSWORD_SIZE];
    int rc = bough_secret_password(password, err);
    if (rc) return rc;
    char *verifier = PQencryptPasswordConn(conn, password, row->name, "scram-sha-256");
    if (!verifier) rc = bough_fail(err, BOUGH_E_PG, "could not make a password verifier");
    if (!rc) rc = alter(conn, row->name, verifier, err);
    if (!rc)
        rc = bough_secret_seal(row->secret, &row->secret_size, &srv->key, row->name, password, err);
    PQfreemem(verifier);
    explicit_bzero(password, sizeof password);
    return rc;
}

static bough_role_row *find(bough_role_row *roles, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(roles[i].name, name) == 0) return &roles[i];
    return NULL;
}

/* In a transaction. */
static int renew_all(PGconn *conn, bough_role_row *roles, size_t n, const server *srv,
                     bough_error *err) {
    PGresult *found = NULL;
    int rc = bough_sql_query(&found, conn,
                             "SELECT rolname, rolcanlogin AND NOT rolsuper FROM pg_authid WHERE"
                             " rolname <> '" BOUGH_ADMIN_ROLE "' AND (rolcanlogin OR rolpassword"
                             " IS NOT NULL) ORDER BY oid",
                             0, NULL, err);
    for (int i = 0; !rc && i < PQntuples(found); i++) {
        const char *name = PQgetvalue(found, i, 0);
        bough_role_row *row = find(roles, n, name);
        bool logs_in = PQgetvalue(found, i, 1)[0] == 't';
        rc = row && logs_in ? renew_one(conn, row, srv, err) : alter(conn, name, NULL, err);
    }
    PQclear(found);
    return rc;
}

int passwords_renew(bough_role_row **roles, size_t *n, const server *srv, const char *endpoint,
                    const char *branch, bough_error *err) {
    PGconn *conn = NULL;
    int rc = bough_roles_list(roles, n, srv->cat, branch, err);
    if (rc) return rc;
    for (size_t i = 0; i < *n; i++) {
        (*roles)[i].secret_size = 0;
        (*roles)[i].is_unsure = false;
    }
    rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_LONG, err);
    /* statements with verifiers must not be logged, whatever ALTER DATABASE ... SET says */
    if (!rc) rc = bough_sql_exec(conn, "SET log_statement = 'none'", err);
    if (!rc) rc = bough_sql_exec(conn, "SET log_min_duration_statement = -1", err);
    if (!rc) rc = bough_sql_exec(conn, "BEGIN", err);
    if (!rc) rc = renew_all(conn, *roles, *n, srv, err);
    if (!rc) rc = bough_sql_exec(conn, "COMMIT", err);
    PQfinish(conn);
    if (!rc) return BOUGH_OK;
    free(*roles);
    *roles = NULL;
    *n = 0;
    return rc;
}
