/* Small blocking SQL calls to a compute. */
#include "pg/sql.h"

#include <errno.h>
#include <libpq-events.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pg/admin.h"
#include "pg/conf.h"
#include "pg/spawn.h"
#include "util/error.h"
#include "util/fs.h"
#include "util/waiting.h"

static void ignore_notice(void *context, const PGresult *result) {
    (void)context;
    (void)result;
}

/* ---- limits ---- */

enum {
    CONNECT_MS = 10000,
    LOCK_MS = 5000,
    GRACE_MS = 5000,  /* for the server to say that the time is over */
    PROBE_MS = 15000, /* of silence, after which a server is asked whether it is there */
    TICK_MS = 100
};

typedef struct limits {
    int statement_ms, lock_ms; /* 0: none */
    bool is_probed;
    const char *who;
} limits;

static const limits all_limits[] = {[BOUGH_SQL_GLANCE] = {10000, LOCK_MS, false, "the compute"},
                                    [BOUGH_SQL_BRIEF] = {30000, LOCK_MS, false, "the compute"},
                                    [BOUGH_SQL_LONG] = {3600000, LOCK_MS, true, "the compute"},
                                    [BOUGH_SQL_UNLIMITED] = {0, 0, false, "the compute"},
                                    [BOUGH_SQL_SOURCE] = {600000, LOCK_MS, false, "the source"}};

/* What libpq keeps with a connection. */
typedef struct session {
    const limits *limits;
    bough_sql_watch watch;
} session;

/* libpq gives the data up with the connection. */
static int on_event(PGEventId id, void *info, void *context) {
    (void)context;
    if (id == PGEVT_CONNDESTROY)
        free(PQinstanceData(((const PGEventConnDestroy *)info)->conn, on_event));
    return 1;
}

static session session_of(const PGconn *conn) {
    const session *its = PQinstanceData(conn, on_event);
    return its ? *its : (session){.limits = &all_limits[BOUGH_SQL_UNLIMITED]};
}

static const limits *limits_of(const PGconn *conn) {
    return session_of(conn).limits;
}

static int keep_session(PGconn *conn, const limits *l, bough_sql_watch watch, bough_error *err) {
    session *its = malloc(sizeof *its);
    if (its) *its = (session){.limits = l, .watch = watch};
    if (its && PQregisterEventProc(conn, on_event, "bough", NULL) &&
        PQsetInstanceData(conn, on_event, its)) {
        if (PQsetnonblocking(conn, 1) == 0) return BOUGH_OK;
    } else {
        free(its);
    }
    return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

/* Wait for the socket until then; 0: for ever. */
static int await(const PGconn *conn, short events, double until) {
    struct pollfd p = {.fd = PQsocket(conn), .events = events};
    while (p.fd >= 0) {
        double left = until - bough_now_ms();
        int n = poll(&p, 1, until <= 0 ? -1 : left > 0 ? (int)left + 1 : 0);
        if (n > 0) return BOUGH_OK;
        if (n < 0 && errno != EINTR) break;
        if (until > 0 && left <= 0) return BOUGH_E_TIMEOUT;
    }
    return BOUGH_E_UNREACHABLE;
}

/* The same, and whoever looks on may give up. */
static int await_watched(const PGconn *conn, short events, double until, bough_sql_watch watch) {
    for (;;) {
        double look = bough_now_ms() + TICK_MS;
        bool is_last = !watch.tick || (until > 0 && until <= look);
        int rc = await(conn, events, is_last ? until : look);
        if (rc != BOUGH_E_TIMEOUT || is_last) return rc;
        if (watch.tick(watch.context)) return BOUGH_E_CANCELLED;
    }
}

static int fail_waiting(int code, const limits *l, bough_error *err) {
    if (code == BOUGH_E_CANCELLED) return bough_fail(err, code, "interrupted");
    if (code != BOUGH_E_TIMEOUT)
        return bough_fail(err, code, "the connection to %s was lost", l->who);
    (void)bough_fail(err, code, "%s does not answer", l->who);
    if (l == &all_limits[BOUGH_SQL_SOURCE]) return code;
    return bough_hint(err, "Try again; if that does not help, restart its endpoint.");
}

/* ---- connecting ---- */

static int finish_connecting(PGconn *conn, bough_sql_watch watch, bough_error *err) {
    double until = bough_now_ms() + CONNECT_MS;
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    int rc = BOUGH_OK;
    while (!rc && PQstatus(conn) != CONNECTION_BAD && next != PGRES_POLLING_OK &&
           next != PGRES_POLLING_FAILED) {
        rc = await_watched(conn, next == PGRES_POLLING_READING ? POLLIN : POLLOUT, until, watch);
        if (!rc) next = PQconnectPoll(conn);
    }
    if (rc) return fail_waiting(rc, &all_limits[BOUGH_SQL_BRIEF], err);
    if (PQstatus(conn) == CONNECTION_OK) return BOUGH_OK;
    char why[384];
    bough_one_line(why, sizeof why, PQerrorMessage(conn));
    int code = strstr(why, "does not exist") && strstr(why, "database \"") ? BOUGH_E_NOTFOUND
                                                                           : BOUGH_E_UNREACHABLE;
    return bough_fail(err, code, "could not connect to the compute: %s", why);
}

void bough_sql_options(char *out, int major) {
    (void)snprintf(
        out, BOUGH_SQL_OPTIONS_SIZE,
        "-c role=none -c default_transaction_read_only=off"
        " -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off"
        " -c standard_conforming_strings=on -c local_preload_libraries= -c statement_timeout=0"
        " -c lock_timeout=0 -c idle_in_transaction_session_timeout=0%s%s%s",
        major >= 14 ? " -c idle_session_timeout=0" : "",
        major >= 17 ? " -c transaction_timeout=0" : "",
        major >= 17  ? " -c event_triggers=off" /* those on login, too */
        : major != 0 ? " -c session_replication_role=replica"
                     : "");
}

int bough_sql_connect(PGconn **conn, const bough_sql_place *place, const char *database,
                      bough_sql_limit limit, bough_error *err) {
    const limits *l = &all_limits[limit];
    char ours[BOUGH_SQL_OPTIONS_SIZE], options[sizeof ours + 128];
    *conn = NULL;
    bough_sql_options(ours, place->major);
    /* not what users have made */
    (void)snprintf(options, sizeof options,
                   "%s -c search_path=pg_catalog -c lock_timeout=%d -c statement_timeout=%d", ours,
                   l->lock_ms, l->statement_ms);
    /* Every parameter that the environment could set is set here. */
    const char *const names[] = {"host", "port", "user", "dbname", "options", "passfile",
                                 "connect_timeout", "application_name", "client_encoding",
                                 "gssencmode", "password",
                                 /* libpq 16; before, whoever listens may be told the
                                  * password: see admin.h for what it is good for */
                                 PQlibVersion() >= 160000 ? "require_auth" : NULL, NULL};
    const char *const values[] = {place->socket_dir,
                                  "5432",
                                  place->user,
                                  database,
                                  options,
                                  "/nonexistent/.pgpass",
                                  "10",
                                  "bough",
                                  "UTF8",
                                  "disable",
                                  place->password ? place->password : bough_admin_password(),
                                  "scram-sha-256",
                                  NULL};
    PGconn *made = PQconnectStartParams(names, values, 0);
    if (!made) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    (void)bough_wait_begin();
    int rc = finish_connecting(made, place->watch, err);
    bough_wait_end();
    if (!rc) rc = keep_session(made, l, place->watch, err);
    if (rc) {
        PQfinish(made);
        return rc;
    }
    (void)PQsetNoticeReceiver(made, ignore_notice, NULL);
    *conn = made;
    return BOUGH_OK;
}

int bough_sql_adopt(PGconn *conn, bough_sql_limit limit, bough_sql_watch watch, bough_error *err) {
    const limits *l = &all_limits[limit];
    char sql[128];
    (void)PQsetNoticeReceiver(conn, ignore_notice, NULL);
    (void)snprintf(sql, sizeof sql, "SET statement_timeout = %d; SET lock_timeout = %d",
                   l->statement_ms, l->lock_ms);
    int rc = keep_session(conn, l, watch, err);
    return rc ? rc : bough_sql_exec(conn, sql, err);
}

/* ---- statements ---- */

/* SQLSTATEs: PostgreSQL, Appendix A. */
static int code_of(const PGconn *conn, const PGresult *result) {
    static const struct {
        const char *state;
        int code;
    } map[] = {
        {"53100", BOUGH_E_NOSPACE},  {"42710", BOUGH_E_CONFLICT}, {"42P04", BOUGH_E_CONFLICT},
        {"42704", BOUGH_E_NOTFOUND}, {"3D000", BOUGH_E_NOTFOUND}, {"55P03", BOUGH_E_BUSY},
        {"57014", BOUGH_E_TIMEOUT},
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
    if (code == BOUGH_E_BUSY && limits_of(conn)->lock_ms) {
        (void)bough_fail(err, code, "a session in the branch has locked what is to be changed");
        return bough_hint(err, "End its transaction, or suspend the endpoint; then try again.");
    }
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    bough_one_line(text, sizeof text, primary ? primary : PQerrorMessage(conn));
    (void)bough_fail(err, code, "%s", text[0] ? text : "the compute did not answer");
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    if (hint) (void)bough_hint(err, "%s", hint);
    return code;
}

/*
 * Whether a server that has been silent for long still answers others. Of "template1" that cannot
 * be asked: CREATE DATABASE keeps everybody out of it.
 */
static bool is_alive(const PGconn *silent) {
    PGconn *conn = NULL;
    bough_sql_place place = {.password = PQpass(silent), .major = PQserverVersion(silent) / 10000};
    if (strcmp(PQdb(silent), "template1") == 0) return true;
    (void)snprintf(place.socket_dir, sizeof place.socket_dir, "%s", PQhost(silent));
    (void)snprintf(place.user, sizeof place.user, "%s", PQuser(silent));
    int rc = bough_sql_connect(&conn, &place, PQdb(silent), BOUGH_SQL_GLANCE, NULL);
    if (!rc) rc = bough_sql_exec(conn, "SELECT 1", NULL);
    PQfinish(conn);
    return rc != BOUGH_E_TIMEOUT;
}

/* Wait until the server says something. */
static int await_word(PGconn *conn, double until) {
    session its = session_of(conn);
    if (!its.limits->is_probed) return await_watched(conn, POLLIN, until, its.watch);
    for (;;) {
        double look = bough_now_ms() + PROBE_MS;
        bool is_last = until > 0 && until <= look;
        int rc = await_watched(conn, POLLIN, is_last ? until : look, its.watch);
        if (rc != BOUGH_E_TIMEOUT || is_last || !is_alive(conn)) return rc;
    }
}

static int send_all(PGconn *conn, double until) {
    while (PQflush(conn) > 0) { /* of an error tells what there is to read */
        int rc = await_watched(conn, POLLIN | POLLOUT, until, session_of(conn).watch);
        if (rc) return rc;
        if (!PQconsumeInput(conn)) break;
    }
    return BOUGH_OK;
}

/* What PQexec() would have returned, by then. */
static int receive(PGresult **result, PGconn *conn, double until) {
    int rc = send_all(conn, until);
    while (!rc) {
        while (!rc && PQisBusy(conn)) {
            rc = await_word(conn, until);
            if (!rc && !PQconsumeInput(conn)) break;
        }
        PGresult *next = rc ? NULL : PQgetResult(conn);
        if (!next) break;
        bool is_error = PQresultStatus(next) == PGRES_FATAL_ERROR;
        bool is_consequence = is_error && PQresultStatus(*result) == PGRES_FATAL_ERROR && *result;
        PQclear(is_consequence ? next : *result);
        if (is_consequence) continue;
        *result = next;
        ExecStatusType status = PQresultStatus(next);
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) break;
    }
    return rc;
}

/* `sent`: what PQsendQuery() has returned. */
static int finish(PGresult **result, PGconn *conn, int sent, bough_error *err) {
    int limit_ms = limits_of(conn)->statement_ms;
    PGresult *made = NULL;
    (void)bough_wait_begin();
    int rc =
        sent ? receive(&made, conn, limit_ms ? bough_now_ms() + limit_ms + GRACE_MS : 0) : BOUGH_OK;
    bough_wait_end();
    rc = rc ? fail_waiting(rc, limits_of(conn), err) : check(conn, made, err);
    if (rc || !result)
        PQclear(made);
    else
        *result = made;
    return rc;
}

int bough_sql_exec(PGconn *conn, const char *sql, bough_error *err) {
    return finish(NULL, conn, PQsendQuery(conn, sql), err);
}

int bough_sql_query(PGresult **result, PGconn *conn, const char *sql, int n_params,
                    const char *const *params, bough_error *err) {
    if (result) *result = NULL;
    return finish(result, conn, PQsendQueryParams(conn, sql, n_params, NULL, params, NULL, NULL, 0),
                  err);
}

/* ---- without event triggers ---- */

/* Those that fire in spite of session_replication_role; event_triggers = off holds for all. */
static const char waking[] =
    "SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname),"
    " format('ALTER EVENT TRIGGER %I ENABLE %s', evtname,"
    " CASE evtenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END)"
    " FROM pg_event_trigger WHERE evtenabled IN ('A', 'R')"
    " AND current_setting('server_version_num')::int < 170000 ORDER BY oid";

static int exec_column(PGconn *conn, const PGresult *statements, int column, bough_error *err) {
    int rc = BOUGH_OK;
    for (int i = 0; !rc && i < PQntuples(statements); i++)
        rc = bough_sql_exec(conn, PQgetvalue(statements, i, column), err);
    return rc;
}

int bough_sql_begin_ddl(PGresult **silenced, PGconn *conn, bough_error *err) {
    *silenced = NULL;
    int rc = bough_sql_exec(conn, "BEGIN", err);
    if (!rc) rc = bough_sql_query(silenced, conn, waking, 0, NULL, err);
    if (!rc) rc = exec_column(conn, *silenced, 0, err);
    if (!rc) return BOUGH_OK;
    PQclear(*silenced);
    *silenced = NULL;
    bough_ignore(bough_sql_exec(conn, "ROLLBACK", NULL));
    return rc;
}

int bough_sql_end_ddl(PGresult *silenced, PGconn *conn, int rc, bough_error *err) {
    if (!silenced) return rc;
    if (!rc) rc = exec_column(conn, silenced, 1, err);
    PQclear(silenced);
    if (!rc) return bough_sql_exec(conn, "COMMIT", err);
    bough_ignore(bough_sql_exec(conn, "ROLLBACK", NULL));
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
