/*
 * POST /sql. A worker of a small pool drives one libpq connection with poll(), so that a client
 * that goes away, the time limit and the server's end cancel the query.
 */
#include "server/http_sql.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/door.h"
#include "server/hello.h"
#include "server/sql_body.h"

enum {
    TICK_MS = 250,
    LOGIN_SIZE = 512,
    OPTIONS_SIZE = 1024,
    WORDS_SIZE = HELLO_ENDPOINT_SIZE + DOOR_PASS_SIZE + 32 /* of ours, before them */
};

typedef struct session {
    request *rq;
    PGconn *conn;
    double until_ms;
    sql_text out;
    bool has_failed; /* `out` tells of PostgreSQL's error */
} session;

/* ---- who, and to what ---- */

/* What counts of a connection string; all else in it (files, services, addresses) is ignored. */
typedef struct login {
    char user[LOGIN_SIZE], password[LOGIN_SIZE], database[LOGIN_SIZE], host[LOGIN_SIZE];
    char application[LOGIN_SIZE], options[OPTIONS_SIZE];
} login;

static int take(login *l, const PQconninfoOption *o, bough_error *err) {
    const struct {
        const char *keyword;
        char *to;
        size_t size;
    } wanted[] = {{"user", l->user, sizeof l->user},
                  {"password", l->password, sizeof l->password},
                  {"dbname", l->database, sizeof l->database},
                  {"host", l->host, sizeof l->host},
                  {"application_name", l->application, sizeof l->application},
                  {"options", l->options, sizeof l->options}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (!o->val || strcmp(o->keyword, wanted[i].keyword) != 0) continue;
        int n = snprintf(wanted[i].to, wanted[i].size, "%s", o->val);
        if (n < 0 || (size_t)n >= wanted[i].size)
            return bough_fail(err, BOUGH_E_INVALID, "\"%s\" of the connection string is too long",
                              o->keyword);
    }
    return BOUGH_OK;
}

static int read_login(login *l, const request *rq, bough_error *err) {
    const char *text = request_header(rq, "Neon-Connection-String");
    char *why = NULL;
    memset(l, 0, sizeof *l);
    if (!text || !*text)
        return bough_fail(err, BOUGH_E_INVALID, "the header \"Neon-Connection-String\" is missing");
    PQconninfoOption *options = PQconninfoParse(text, &why);
    PQfreemem(why); /* it may hold the password */
    if (!options) return bough_fail(err, BOUGH_E_INVALID, "the connection string is malformed");
    int rc = BOUGH_OK;
    for (const PQconninfoOption *o = options; o->keyword && !rc; o++) rc = take(l, o, err);
    PQconninfoFree(options);
    if (!rc && (!*l->user || !*l->password))
        rc = bough_fail(err, BOUGH_E_INVALID,
                        "the connection string must have a user and a password");
    if (!rc && !*l->database) (void)snprintf(l->database, sizeof l->database, "%s", l->user);
    return rc;
}

/* ---- waiting ---- */

/* Until the connection's socket is ready. BOUGH_E_CANCELLED, BOUGH_E_TIMEOUT. */
static int wait_for(session *s, short events, bough_error *err) {
    for (;;) {
        struct pollfd fds[] = {{.fd = PQsocket(s->conn), .events = events},
                               {.fd = s->rq->gone_fd, .events = POLLIN}};
        double left = s->until_ms - bough_now_ms();
        if (atomic_load(&s->rq->cancelled))
            return bough_fail(err, BOUGH_E_CANCELLED, "the client has gone");
        if (atomic_load(&s->rq->srv->stopping))
            return bough_fail(err, BOUGH_E_UNREACHABLE, "the server is ending");
        if (left <= 0)
            return bough_fail(err, BOUGH_E_TIMEOUT, "the query took longer than %d seconds",
                              s->rq->srv->sql_seconds);
        int n = poll(fds, 2, left < TICK_MS ? (int)left + 1 : TICK_MS);
        if (n < 0 && errno != EINTR) return bough_fail_sys(err, errno, "could not wait");
        if (n > 0 && fds[0].revents) return BOUGH_OK;
    }
}

/* Have the backend stop: closing the connection alone would let it go on. */
static void cancel(session *s) {
    char why[256];
    PGcancel *what = PQgetCancel(s->conn);
    if (what) (void)PQcancel(what, why, sizeof why);
    PQfreeCancel(what);
}

/* ---- connecting ---- */

/* libpq: "... failed: FATAL:  28P01: message", with PQERRORS_VERBOSE. */
static void tell_refusal(session *s) {
    const char *text = PQerrorMessage(s->conn), *mark = strstr(text, "FATAL:  ");
    if (!mark) mark = strstr(text, "ERROR:  ");
    const char *at = mark ? mark + 8 : text, *message = at;
    bool has_code = mark && strspn(at, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && at[5] == ':';
    if (has_code) message = at + 7;
    s->has_failed = true;
    sql_text_format(&s->out, "{\"severity\":\"FATAL\",\"code\":");
    if (has_code)
        sql_text_string(&s->out, at, 5);
    else
        sql_text_format(&s->out, "null");
    sql_text_format(&s->out, ",\"message\":");
    sql_text_string(&s->out, message, strcspn(message, "\n"));
    sql_text_format(&s->out, "}");
}

/* What the front door reads: whose connection it is, for lists and limits are about them; and which
 * endpoint, where the host name says it. Before the client's own, whose last word may be half of
 * one. */
static int make_options(char *options, size_t size, const login *l, const request *rq,
                        bough_error *err) {
    char pass[DOOR_PASS_SIZE], endpoint[HELLO_ENDPOINT_SIZE];
    int rc = door_pass_make(pass, rq->srv->door, rq->from, err);
    if (rc) return rc;
    bool is_named = hello_endpoint_of_name(endpoint, l->host);
    (void)snprintf(options, size, "bough_pass=%s%s%s%s%s", pass, is_named ? " endpoint=" : "",
                   is_named ? endpoint : "", *l->options ? " " : "", l->options);
    return BOUGH_OK;
}

static int open_connection(session *s, login *l, bough_error *err) {
    char port[16], options[WORDS_SIZE + OPTIONS_SIZE];
    (void)snprintf(port, sizeof port, "%d", door_own_port(s->rq->srv->door));
    int rc = make_options(options, sizeof options, l, s->rq, err);
    if (rc) return rc;
    if (!*l->application) /* pg_stat_activity has our address, and not theirs */
        (void)snprintf(l->application, sizeof l->application, "/sql from %s", s->rq->from);
    const char *const names[] = {"host",
                                 "hostaddr",
                                 "port",
                                 "user",
                                 "password",
                                 "dbname",
                                 "options",
                                 "application_name",
                                 "sslmode",
                                 "gssencmode",
                                 "passfile",
                                 "client_encoding",
                                 "channel_binding",
                                 NULL};
    const char *const values[] = {*l->host ? l->host : DOOR_OWN_ADDRESS,
                                  DOOR_OWN_ADDRESS,
                                  port,
                                  l->user,
                                  l->password,
                                  l->database,
                                  options,
                                  l->application,
                                  "disable",
                                  "disable",
                                  "/nonexistent/.pgpass",
                                  "UTF8",
                                  "prefer",
                                  NULL};
    s->conn = PQconnectStartParams(names, values, 0);
    if (!s->conn) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    (void)PQsetErrorVerbosity(s->conn, PQERRORS_VERBOSE);
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (PQstatus(s->conn) != CONNECTION_BAD && next != PGRES_POLLING_OK) {
        rc = wait_for(s, next == PGRES_POLLING_READING ? POLLIN : POLLOUT, err);
        if (rc) return rc;
        next = PQconnectPoll(s->conn);
        if (next == PGRES_POLLING_FAILED) break;
    }
    if (next == PGRES_POLLING_OK && PQsetnonblocking(s->conn, 1) == 0) return BOUGH_OK;
    tell_refusal(s);
    return BOUGH_E_PG;
}

static void ignore_notice(void *context, const PGresult *result) {
    (void)context;
    (void)result;
}

/* ---- running ---- */

static int send_all(session *s, bough_error *err) {
    for (;;) {
        int left = PQflush(s->conn);
        if (left == 0) return BOUGH_OK;
        if (left < 0)
            return bough_fail(err, BOUGH_E_UNREACHABLE, "the connection to the compute was lost");
        int rc = wait_for(s, POLLIN | POLLOUT, err);
        if (!rc && !PQconsumeInput(s->conn))
            rc = bough_fail(err, BOUGH_E_UNREACHABLE, "the connection to the compute was lost");
        if (rc) return rc;
    }
}

/* The next result; NULL at the end. */
static int next_result(PGresult **result, session *s, bough_error *err) {
    *result = NULL;
    while (PQisBusy(s->conn)) {
        int rc = wait_for(s, POLLIN, err);
        if (rc) return rc;
        if (!PQconsumeInput(s->conn)) break; /* PQgetResult() tells why */
    }
    *result = PQgetResult(s->conn);
    return BOUGH_OK;
}

static int fail(session *s, const PGresult *result) {
    s->has_failed = true;
    s->out.size = 0;
    sql_text_error(&s->out, result);
    return BOUGH_E_PG;
}

/* What of a query has been written. */
typedef struct progress {
    bool has_head, has_row;
} progress;

static void write_head(session *s, progress *p, const PGresult *result) {
    if (p->has_head) return;
    p->has_head = true;
    sql_text_format(&s->out, "{\"fields\":");
    sql_text_fields(&s->out, result);
    sql_text_format(&s->out, ",\"rows\":[");
}

static int take_result(session *s, progress *p, const sql_query *q, PGresult *result,
                       bough_error *err) {
    switch (PQresultStatus(result)) {
    case PGRES_SINGLE_TUPLE:
        write_head(s, p, result);
        if (p->has_row) sql_text_add(&s->out, ",", 1);
        p->has_row = true;
        sql_text_row(&s->out, result, 0, &q->shape);
        break;
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
        write_head(s, p, result);
        sql_text_format(&s->out, "],");
        sql_text_tag(&s->out, PQcmdStatus(result), &q->shape);
        sql_text_format(&s->out, "}");
        break;
    case PGRES_FATAL_ERROR:
    case PGRES_BAD_RESPONSE:
    case PGRES_NONFATAL_ERROR:
    case PGRES_PIPELINE_SYNC:
    case PGRES_PIPELINE_ABORTED:
        if (PQstatus(s->conn) != CONNECTION_OK && !PQresultErrorField(result, PG_DIAG_SQLSTATE))
            return bough_fail(err, BOUGH_E_UNREACHABLE, "the connection to the compute was lost");
        return fail(s, result);
    case PGRES_COPY_OUT:
    case PGRES_COPY_IN:
    case PGRES_COPY_BOTH:
    default:
        return bough_fail(err, BOUGH_E_INVALID, "COPY is not possible over HTTP");
    }
    if (s->out.is_failed) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (s->out.is_full) {
        s->rq->error_status = 507;
        s->rq->slug = "RESPONSE_TOO_LARGE";
        return bough_fail(err, BOUGH_E_PG, "response is too large (max is %zu bytes)",
                          SQL_ANSWER_MAX);
    }
    return BOUGH_OK;
}

/* Run one query and write its result. */
static int run_query(session *s, const sql_query *q, bough_error *err) {
    progress p = {0};
    if (!PQsendQueryParams(s->conn, q->sql, q->n_params, NULL, (const char *const *)q->params, NULL,
                           NULL, 0) ||
        !PQsetSingleRowMode(s->conn))
        return bough_fail(err, BOUGH_E_UNREACHABLE, "the query could not be sent");
    int rc = send_all(s, err);
    while (!rc) {
        PGresult *result;
        rc = next_result(&result, s, err);
        if (rc || !result) break;
        rc = take_result(s, &p, q, result, err);
        PQclear(result);
    }
    return rc;
}

/* A statement whose result nobody sees. */
static int run_quietly(session *s, char *sql, bough_error *err) {
    size_t before = s->out.size;
    const sql_query q = {.sql = sql};
    int rc = run_query(s, &q, err);
    if (!s->has_failed) s->out.size = before;
    return rc;
}

/* ---- a batch ---- */

static bool is_on(const request *rq, const char *header) {
    const char *value = request_header(rq, header);
    return value && strcasecmp(value, "true") == 0;
}

static int begin_statement(char *sql, size_t size, const request *rq, bough_error *err) {
    static const struct {
        const char *name, *sql;
    } levels[] = {{"ReadUncommitted", "READ UNCOMMITTED"},
                  {"ReadCommitted", "READ COMMITTED"},
                  {"RepeatableRead", "REPEATABLE READ"},
                  {"Serializable", "SERIALIZABLE"}};
    const char *wanted = request_header(rq, "Neon-Batch-Isolation-Level"), *level = NULL;
    for (size_t i = 0; wanted && i < sizeof levels / sizeof levels[0]; i++)
        if (strcasecmp(wanted, levels[i].name) == 0) level = levels[i].sql;
    if (wanted && !level)
        return bough_fail(err, BOUGH_E_INVALID, "\"%.40s\" is not an isolation level", wanted);
    (void)snprintf(sql, size, "BEGIN%s%s%s%s", level ? " ISOLATION LEVEL " : "", level ? level : "",
                   is_on(rq, "Neon-Batch-Read-Only") ? " READ ONLY" : "",
                   is_on(rq, "Neon-Batch-Deferrable") ? " DEFERRABLE" : "");
    return BOUGH_OK;
}

/* One transaction; what fails is undone by the end of the connection. */
static int run_batch(session *s, const sql_body *body, char *begin, bough_error *err) {
    char commit[] = "COMMIT";
    int rc = run_quietly(s, begin, err);
    if (!rc) sql_text_format(&s->out, "{\"results\":[");
    for (size_t i = 0; i < body->n && !rc; i++) {
        if (i) sql_text_add(&s->out, ",", 1);
        rc = run_query(s, &body->queries[i], err);
    }
    if (!rc) rc = run_quietly(s, commit, err);
    if (!rc) sql_text_format(&s->out, "]}");
    return rc;
}

/* ---- all of it ---- */

static int run(session *s, const sql_body *body, login *l, char *begin, bough_error *err) {
    int rc = open_connection(s, l, err);
    if (rc) return rc;
    (void)PQsetNoticeReceiver(s->conn, ignore_notice, NULL);
    (void)PQsetErrorVerbosity(s->conn, PQERRORS_DEFAULT);
    rc = body->is_batch ? run_batch(s, body, begin, err) : run_query(s, body->queries, err);
    if (rc && PQtransactionStatus(s->conn) == PQTRANS_ACTIVE) cancel(s);
    return rc;
}

int sql_handle(request *rq, bough_error *err) {
    sql_shape shape = {is_on(rq, "Neon-Array-Mode"), is_on(rq, "Neon-Raw-Text-Output")};
    session s = {.rq = rq, .until_ms = rq->received_ms + rq->srv->sql_seconds * 1000.0};
    sql_body body = {0};
    login l;
    char begin[96];
    int rc = read_login(&l, rq, err);
    if (!rc) rc = begin_statement(begin, sizeof begin, rq, err);
    if (!rc) rc = sql_body_read(&body, rq->raw, rq->raw_size, &shape, err);
    if (!rc) rc = run(&s, &body, &l, begin, err);
    explicit_bzero(&l, sizeof l);
    PQfinish(s.conn);
    sql_body_free(&body);
    if (s.has_failed && !s.out.is_failed) { /* an answer, too */
        rc = BOUGH_OK;
        rq->status = 400;
    }
    if (rc || s.out.is_failed) {
        free(s.out.data);
        return rc ? rc : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    rq->text = s.out.data;
    rq->text_size = s.out.size;
    return BOUGH_OK;
}
