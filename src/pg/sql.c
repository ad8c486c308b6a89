/* Small blocking SQL calls to a compute. */
#include "pg/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pg/admin.h"
#include "pg/conf.h"
#include "pg/spawn.h"
#include "util/error.h"

static void ignore_notice(void *context, const PGresult *result) {
    (void)context;
    (void)result;
}

int bough_sql_connect(PGconn **conn, const char *socket_dir, const char *database,
                      bough_error *err) {
    *conn = NULL;
    /* Every parameter that the environment could set is set here. */
    static const char *const names[] = {"host",
                                        "port",
                                        "user",
                                        "dbname",
                                        "options",
                                        "passfile",
                                        "connect_timeout",
                                        "application_name",
                                        "client_encoding",
                                        "gssencmode",
                                        "password",
                                        NULL};
    const char *const values[] = {socket_dir, "5432", BOUGH_ADMIN_ROLE, database,
                                  /* not what users have made; on a look, too */
                                  "-c search_path=pg_catalog -c default_transaction_read_only=off",
                                  "/nonexistent/.pgpass", "10", "bough", "UTF8", "disable",
                                  bough_admin_password(), NULL};
    PGconn *made = PQconnectdbParams(names, values, 0);
    if (!made) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (PQstatus(made) != CONNECTION_OK) {
        char why[384];
        bough_one_line(why, sizeof why, PQerrorMessage(made));
        int code = strstr(why, "does not exist") && strstr(why, "database \"")
                       ? BOUGH_E_NOTFOUND
                       : BOUGH_E_UNREACHABLE;
        PQfinish(made);
        return bough_fail(err, code, "could not connect to the compute: %s", why);
    }
    (void)PQsetNoticeReceiver(made, ignore_notice, NULL);
    *conn = made;
    return BOUGH_OK;
}

/* SQLSTATEs: PostgreSQL, Appendix A. */
static int code_of(const PGconn *conn, const PGresult *result) {
    static const struct {
        const char *state;
        int code;
    } map[] = {
        {"53100", BOUGH_E_NOSPACE},  {"42710", BOUGH_E_CONFLICT}, {"42P04", BOUGH_E_CONFLICT},
        {"42704", BOUGH_E_NOTFOUND}, {"3D000", BOUGH_E_NOTFOUND},
    };
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    for (size_t i = 0; state && i < sizeof map / sizeof *map; i++)
        if (strcmp(map[i].state, state) == 0) return map[i].code;
    return PQstatus(conn) == CONNECTION_OK ? BOUGH_E_PG : BOUGH_E_UNREACHABLE;
}

static int check(PGconn *conn, const PGresult *result, bough_error *err) {
    switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
    case PGRES_EMPTY_QUERY:
        return BOUGH_OK;
    case PGRES_BAD_RESPONSE:
    case PGRES_NONFATAL_ERROR:
    case PGRES_FATAL_ERROR:
    case PGRES_COPY_OUT:
    case PGRES_COPY_IN:
    case PGRES_COPY_BOTH:
    case PGRES_SINGLE_TUPLE:
    case PGRES_PIPELINE_SYNC:
    case PGRES_PIPELINE_ABORTED:
    default:
        break;
    }
    int code = code_of(conn, result);
    char text[384];
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    bough_one_line(text, sizeof text, primary ? primary : PQerrorMessage(conn));
    (void)bough_fail(err, code, "%s", text[0] ? text : "the compute did not answer");
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    if (hint) (void)bough_hint(err, "%s", hint);
    return code;
}

int bough_sql_exec(PGconn *conn, const char *sql, bough_error *err) {
    PGresult *result = PQexec(conn, sql);
    int rc = check(conn, result, err);
    PQclear(result);
    return rc;
}

int bough_sql_query(PGresult **result, PGconn *conn, const char *sql, int n_params,
                    const char *const *params, bough_error *err) {
    if (result) *result = NULL;
    PGresult *made = PQexecParams(conn, sql, n_params, NULL, params, NULL, NULL, 0);
    int rc = check(conn, made, err);
    if (rc || !result)
        PQclear(made);
    else
        *result = made;
    return rc;
}

/* Connections speak UTF-8, in which no character holds a quote as a trailing byte: doubling is
 * enough. */
int bough_sql_ident(char *out, size_t size, PGconn *conn, const char *name, bough_error *err) {
    (void)conn;
    size_t n = 0;
    if (!*name) return bough_fail(err, BOUGH_E_INVALID, "a name is empty");
    if (size < 3) return bough_fail(err, BOUGH_E_INVALID, "a name is too long");
    out[n++] = '"';
    for (const char *p = name; *p; p++) {
        size_t need = *p == '"' ? 2 : 1;
        if (n + need + 2 > size) return bough_fail(err, BOUGH_E_INVALID, "a name is too long");
        if (need == 2) out[n++] = '"';
        out[n++] = *p;
    }
    out[n++] = '"';
    out[n] = '\0';
    return BOUGH_OK;
}
