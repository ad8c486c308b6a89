/* SQL inside a compute. Names are always quoted by libpq, passwords sent as SCRAM verifiers only.
 */
#include "server/inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pg/conf.h"
#include "pg/sql.h"
#include "server/computes.h"
#include "util/utf8.h"

#define SQL_MAX 8192

static int connect_to(PGconn **conn, const server *srv, const char *endpoint, const char *database,
                      bough_sql_limit limit, bough_error *err) {
    bough_sql_place place;
    int rc = computes_place(&place, srv, endpoint, err);
    return rc ? rc : bough_sql_connect(conn, &place, database, limit, err);
}

int inside_connect(PGconn **conn, const server *srv, const char *endpoint, const char *not_to,
                   bough_sql_limit limit, bough_error *err) {
    int rc = BOUGH_E_NOTFOUND;
    if (!not_to || strcmp(not_to, "postgres") != 0)
        rc = connect_to(conn, srv, endpoint, "postgres", limit, err);
    if (rc == BOUGH_E_NOTFOUND) rc = connect_to(conn, srv, endpoint, "template1", limit, err);
    return rc;
}

/* Run a statement: %I is an identifier, %L a literal; nothing else. */
static int run(PGconn *conn, bough_error *err, const char *fmt, ...) {
    char sql[SQL_MAX];
    size_t at = 0;
    int rc = BOUGH_OK;
    va_list ap;
    va_start(ap, fmt);
    for (; *fmt && !rc && at + 1 < sizeof sql; fmt++) {
        if (fmt[0] != '%') {
            sql[at++] = *fmt;
            continue;
        }
        const char *text = va_arg(ap, const char *);
        char *quoted = *++fmt == 'I' ? PQescapeIdentifier(conn, text, strlen(text))
                                     : PQescapeLiteral(conn, text, strlen(text));
        if (!quoted)
            rc = bough_fail(err, BOUGH_E_INVALID, "a name cannot be quoted");
        else
            at += (size_t)snprintf(sql + at, sizeof sql - at, "%s", quoted);
        PQfreemem(quoted);
    }
    va_end(ap);
    if (!rc && at + 1 >= sizeof sql)
        rc = bough_fail(err, BOUGH_E_INVALID, "a statement is too long");
    if (rc) return rc;
    sql[at] = '\0';
    rc = bough_sql_exec(conn, sql, err);
    explicit_bzero(sql, sizeof sql);
    return rc;
}

static int alter_password(PGconn *conn, const char *role, const char *password, bough_error *err) {
    char *verifier = PQencryptPasswordConn(conn, password, role, "scram-sha-256");
    if (!verifier) return bough_fail(err, BOUGH_E_PG, "could not make a password verifier");
    int rc = run(conn, err, "ALTER ROLE %I LOGIN PASSWORD %L", role, verifier);
    PQfreemem(verifier);
    return rc;
}

int inside_create_role(const server *srv, const char *endpoint, const char *role,
                       const char *password, bough_error *err) {
    PGconn *conn = NULL;
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_BRIEF, err);
    if (!rc) rc = run(conn, err, "BEGIN");
    if (!rc) rc = run(conn, err, "CREATE ROLE %I CREATEDB CREATEROLE NOSUPERUSER", role);
    if (!rc && password) rc = alter_password(conn, role, password, err);
    if (!rc) rc = run(conn, err, "COMMIT");
    PQfinish(conn);
    return rc;
}

int inside_admit_standby(const server *srv, const char *endpoint, const char *password,
                         bough_error *err) {
    PGconn *conn = NULL;
    PGresult *found = NULL;
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_BRIEF, err);
    if (!rc)
        rc = bough_sql_query(&found, conn,
                             "SELECT 1 FROM pg_roles WHERE rolname = '" BOUGH_STANDBY_ROLE "'", 0,
                             NULL, err);
    bool is_there = !rc && PQntuples(found) > 0;
    PQclear(found);
    if (!rc) rc = run(conn, err, "BEGIN");
    if (!rc && !is_there) rc = run(conn, err, "CREATE ROLE " BOUGH_STANDBY_ROLE " NOINHERIT");
    if (!rc) rc = run(conn, err, "ALTER ROLE " BOUGH_STANDBY_ROLE " REPLICATION");
    if (!rc) rc = alter_password(conn, BOUGH_STANDBY_ROLE, password, err);
    if (!rc) rc = run(conn, err, "COMMIT");
    PQfinish(conn);
    return rc;
}

int inside_follows(bool *follows, const server *srv, const char *endpoint, bough_error *err) {
    PGconn *conn = NULL;
    PGresult *result = NULL;
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_GLANCE, err);
    if (!rc)
        rc = bough_sql_query(&result, conn,
                             "SELECT NOT pg_is_wal_replay_paused() AND EXISTS (SELECT 1 FROM"
                             " pg_stat_wal_receiver WHERE status = 'streaming')",
                             0, NULL, err);
    if (!rc) *follows = PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    PQfinish(conn);
    return rc;
}

int inside_checkpoint(const server *srv, const char *endpoint, int timeout_ms, bough_error *err) {
    PGconn *conn = NULL;
    char timeout[32];
    (void)snprintf(timeout, sizeof timeout, "%d", timeout_ms);
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_LONG, err);
    if (!rc) rc = run(conn, err, "SET statement_timeout = %L", timeout);
    if (!rc) rc = run(conn, err, "CHECKPOINT");
    PQfinish(conn);
    return rc;
}

/* A standby of ours is none: who reads there keeps that one awake. Parallel workers belong to a
 * client; the launchers, writers and idle workers of extensions are always there. */
static const char activity[] =
    "SELECT format(CASE WHEN backend_type = 'autovacuum worker' THEN 'autovacuum is at work'"
    " WHEN backend_type = 'walsender' THEN 'a replication connection is open'"
    " WHEN state = 'active' THEN 'a query is running'"
    " WHEN state LIKE 'idle in transaction%' THEN 'a transaction is open'"
    " ELSE '%s client session' || CASE count(*) OVER () WHEN 1 THEN '' ELSE 's' END END,"
    " count(*) OVER ()) FROM pg_stat_activity WHERE NOT (usename = '" BOUGH_ADMIN_ROLE "' AND"
    " application_name = 'bough') IS TRUE AND NOT (usename = '" BOUGH_STANDBY_ROLE "') IS TRUE AND"
    " backend_type IN"
    " ('client backend', 'walsender', 'autovacuum worker', 'logical replication worker')"
    " ORDER BY CASE WHEN backend_type <> 'client backend' THEN 0 WHEN state = 'active' THEN 1"
    " WHEN state LIKE 'idle in%' THEN 2 ELSE 3 END LIMIT 1";

int inside_activity(char *out, size_t size, const server *srv, const char *endpoint,
                    bough_error *err) {
    PGconn *conn = NULL;
    PGresult *result = NULL;
    *out = '\0';
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_GLANCE, err);
    if (!rc) rc = bough_sql_query(&result, conn, activity, 0, NULL, err);
    if (!rc && PQntuples(result) > 0) (void)snprintf(out, size, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    PQfinish(conn);
    return rc;
}

int inside_set_password(const server *srv, const char *endpoint, const char *role,
                        const char *password, bough_error *err) {
    PGconn *conn = NULL;
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_BRIEF, err);
    if (!rc) rc = alter_password(conn, role, password, err);
    PQfinish(conn);
    return rc;
}

/* What it owns in this database, and its privileges here and on what all databases share; before
 * that its objects go to another one, unless that is NULL. */
static int drop_owned(PGconn *conn, const char *role, const char *to, bough_error *err) {
    PGresult *silenced;
    int rc = bough_sql_begin_ddl(&silenced, conn, err);
    if (!rc && to) rc = run(conn, err, "REASSIGN OWNED BY %I TO %I", role, to);
    if (!rc) rc = run(conn, err, "DROP OWNED BY %I", role);
    return bough_sql_end_ddl(silenced, conn, rc, err);
}

/* In one database: to its owner, with all privileges gone. */
static int leave_database(const server *srv, const char *endpoint, const char *database,
                          const char *owner, const char *role, bough_error *err) {
    PGconn *conn = NULL;
    int rc = connect_to(&conn, srv, endpoint, database, BOUGH_SQL_LONG, err);
    if (!rc) rc = drop_owned(conn, role, owner, err);
    PQfinish(conn);
    return rc;
}

static int leave_all(PGconn *conn, const server *srv, const char *endpoint, const char *role,
                     bough_error *err) {
    PGresult *found = NULL;
    const char *const params[] = {role};
    int rc = bough_sql_query(&found, conn,
                             "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = $1",
                             1, params, err);
    if (!rc && PQntuples(found) > 0)
        rc = bough_fail(err, BOUGH_E_PG, "role \"%s\" cannot be deleted: it owns database \"%s\"",
                        role, PQgetvalue(found, 0, 0));
    PQclear(found);
    found = NULL;
    if (!rc)
        rc = bough_sql_query(&found, conn,
                             "SELECT DISTINCT datname, pg_get_userbyid(datdba) FROM pg_shdepend s"
                             " JOIN pg_database d ON d.oid = dbid WHERE refclassid ="
                             " 'pg_authid'::regclass AND pg_get_userbyid(refobjid) = $1 AND"
                             " datallowconn",
                             1, params, err);
    for (int i = 0; !rc && i < PQntuples(found); i++)
        rc = leave_database(srv, endpoint, PQgetvalue(found, i, 0), PQgetvalue(found, i, 1), role,
                            err);
    PQclear(found);
    return rc;
}

int inside_drop_role(const server *srv, const char *endpoint, const char *role, bough_error *err) {
    PGconn *conn = NULL;
    PGresult *found = NULL;
    const char *const params[] = {role};
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_LONG, err);
    if (!rc)
        rc = bough_sql_query(&found, conn, "SELECT 1 FROM pg_roles WHERE rolname = $1", 1, params,
                             err);
    bool is_there = !rc && PQntuples(found) > 0;
    PQclear(found);
    if (is_there) rc = leave_all(conn, srv, endpoint, role, err);
    /* here it owns nothing any more: privileges on what all databases share */
    if (!rc && is_there) rc = drop_owned(conn, role, NULL, err);
    if (!rc && is_there) rc = run(conn, err, "DROP ROLE %I", role);
    PQfinish(conn);
    return rc;
}

/*
 * From 15 on the schema public belongs to whoever owns the database. Before, and in clusters that
 * were upgraded from there, it is a superuser's. A grant would not do: what the owner then grants
 * on it, no DROP OWNED takes back.
 */
static int give_public(PGconn *conn, const char *owner, bough_error *err) {
    PGresult *found = NULL;
    int rc = bough_sql_query(&found, conn,
                             "SELECT 1 FROM pg_namespace WHERE nspname = 'public' AND"
                             " pg_get_userbyid(nspowner) <> 'pg_database_owner'",
                             0, NULL, err);
    bool is_needed = !rc && PQntuples(found) > 0;
    PQclear(found);
    if (!is_needed) return rc;
    rc = bough_sql_begin_ddl(&found, conn, err);
    if (!rc) rc = run(conn, err, "ALTER SCHEMA public OWNER TO %I", owner);
    return bough_sql_end_ddl(found, conn, rc, err);
}

int inside_create_database(const server *srv, const char *endpoint, const char *database,
                           const char *owner, bough_error *err) {
    PGconn *conn = NULL;
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_LONG, err);
    if (!rc) rc = run(conn, err, "CREATE DATABASE %I OWNER %I", database, owner);
    PQfinish(conn);
    if (rc) return rc;
    conn = NULL;
    rc = connect_to(&conn, srv, endpoint, database, BOUGH_SQL_BRIEF, err);
    if (!rc) rc = give_public(conn, owner, err);
    PQfinish(conn);
    return rc;
}

int inside_alter_database(const server *srv, const char *endpoint, const bough_database_row *row,
                          const char *name, const char *owner, bough_error *err) {
    PGconn *conn = NULL;
    int rc = inside_connect(&conn, srv, endpoint, row->name, BOUGH_SQL_BRIEF, err);
    if (!rc) rc = run(conn, err, "BEGIN");
    if (!rc && strcmp(owner, row->owner) != 0)
        rc = run(conn, err, "ALTER DATABASE %I OWNER TO %I", row->name, owner);
    if (!rc && strcmp(name, row->name) != 0)
        rc = run(conn, err, "ALTER DATABASE %I RENAME TO %I", row->name, name);
    if (!rc) rc = run(conn, err, "COMMIT");
    PQfinish(conn);
    return rc;
}

int inside_drop_database(const server *srv, const char *endpoint, const char *database,
                         bough_error *err) {
    PGconn *conn = NULL;
    int rc = inside_connect(&conn, srv, endpoint, database, BOUGH_SQL_LONG, err);
    if (!rc) rc = run(conn, err, "DROP DATABASE IF EXISTS %I WITH (FORCE)", database);
    PQfinish(conn);
    return rc;
}

void inside_contents_free(inside_contents *contents) {
    free(contents->databases);
    free(contents->roles);
    free(contents->is_super);
    *contents = (inside_contents){0};
}

static int discover_databases(inside_contents *c, PGconn *conn, bough_error *err) {
    PGresult *result = NULL;
    int rc = bough_sql_query(
        &result, conn,
        "SELECT datname, rolname, rolsuper FROM pg_database d JOIN pg_roles r ON"
        " r.oid = d.datdba WHERE datallowconn AND NOT datistemplate AND (datname <>"
        " 'postgres' OR NOT EXISTS (SELECT 1 FROM pg_database WHERE datallowconn AND NOT"
        " datistemplate AND datname <> 'postgres')) ORDER BY d.oid",
        0, NULL, err);
    if (rc) return rc;
    int n = PQntuples(result);
    c->databases = calloc((size_t)n + 1, sizeof *c->databases);
    c->is_super = calloc((size_t)n + 1, sizeof *c->is_super);
    if (!c->databases || !c->is_super) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (int i = 0; !rc && i < n; i++) {
        const char *name = PQgetvalue(result, i, 0);
        if (!bough_utf8_is(name)) continue;
        bough_database_row *d = &c->databases[c->n_databases];
        (void)snprintf(d->name, sizeof d->name, "%s", name);
        (void)snprintf(d->owner, sizeof d->owner, "%s", PQgetvalue(result, i, 1));
        c->is_super[c->n_databases++] = PQgetvalue(result, i, 2)[0] == 't';
    }
    PQclear(result);
    return rc;
}

int inside_discover(inside_contents *c, const server *srv, const char *endpoint, bough_error *err) {
    PGconn *conn = NULL;
    PGresult *result = NULL;
    *c = (inside_contents){0};
    int rc = inside_connect(&conn, srv, endpoint, NULL, BOUGH_SQL_BRIEF, err);
    if (!rc) rc = discover_databases(c, conn, err);
    if (!rc)
        rc = bough_sql_query(&result, conn,
                             "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <>"
                             " '" BOUGH_ADMIN_ROLE "' AND rolname <> '" BOUGH_STANDBY_ROLE "' AND"
                             " NOT rolsuper ORDER BY oid",
                             0, NULL, err);
    if (!rc) {
        int n = PQntuples(result);
        c->roles = calloc((size_t)n + 1, sizeof *c->roles);
        if (!c->roles) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        for (int i = 0; !rc && i < n; i++) {
            const char *name = PQgetvalue(result, i, 0);
            if (!bough_utf8_is(name)) continue;
            bough_role_row *r = &c->roles[c->n_roles++];
            (void)snprintf(r->name, sizeof r->name, "%s", name);
        }
    }
    PQclear(result);
    PQfinish(conn);
    if (rc) inside_contents_free(c);
    return rc;
}

/*
 * Statements that give objects of superusers away, one a row. Objects of extensions and of the
 * system stay: whatever depends on an extension ('e' in pg_depend), and oids below 16384
 * (FirstNormalObjectId). So do functions that superusers run unnamed; these call what is given
 * away, so that they must not run as superusers by themselves.
 */
static const char give_away[] =
    "WITH s AS (SELECT oid FROM pg_roles WHERE rolsuper), e AS (SELECT classid, objid FROM "
    "pg_depend WHERE"
    " deptype = 'e') "
    "SELECT format('ALTER SCHEMA %I OWNER TO %I', nspname, $1::text) FROM pg_namespace n WHERE "
    "nspowner IN"
    " (TABLE s) AND (n.oid >= 16384 OR nspname = 'public') AND nspname !~ '^pg_' AND NOT EXISTS "
    "(SELECT 1 FROM"
    " e WHERE classid = 'pg_namespace'::regclass AND objid = n.oid) "
    "UNION ALL SELECT format('ALTER %s %s OWNER TO %I', CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN "
    "'v' THEN"
    " 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, "
    "c.oid::regclass,"
    " $1) FROM pg_class c WHERE relowner IN (TABLE s) AND c.oid >= 16384 AND relkind IN"
    " ('r','p','S','v','m','f') AND relpersistence <> 't' AND NOT EXISTS (SELECT 1 FROM e WHERE "
    "classid ="
    " 'pg_class'::regclass AND objid = c.oid) AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE "
    "d.classid ="
    " 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S') "
    "UNION ALL SELECT format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, $1) FROM pg_proc "
    "p WHERE"
    " proowner IN (TABLE s) AND p.oid >= 16384 AND NOT EXISTS (SELECT 1 FROM e WHERE classid ="
    " 'pg_proc'::regclass AND objid = p.oid) AND NOT " BOUGH_SQL_RUN_UNNAMED
    " UNION ALL SELECT format('ALTER ROUTINE %s SECURITY INVOKER', p.oid::regprocedure) FROM"
    " pg_proc p WHERE proowner IN (TABLE s) AND " BOUGH_SQL_RUN_UNNAMED
    " AND " BOUGH_SQL_LENDS_RIGHTS " "
    "UNION ALL SELECT format('ALTER %s %s OWNER TO %I', CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE "
    "'TYPE' END,"
    " t.oid::regtype, $1) FROM pg_type t WHERE typowner IN (TABLE s) AND t.oid >= 16384 AND "
    "(typtype IN ('d',"
    " 'e', 'r') OR (typtype = 'c' AND EXISTS (SELECT 1 FROM pg_class WHERE oid = typrelid AND "
    "relkind = 'c')))"
    " AND NOT EXISTS (SELECT 1 FROM e WHERE classid = 'pg_type'::regclass AND objid = t.oid) "
    "UNION ALL SELECT format('ALTER LARGE OBJECT %s OWNER TO %I', oid, $1) FROM "
    "pg_largeobject_metadata WHERE"
    " lomowner IN (TABLE s)";

/* Each in its own transaction, some at a time: one for all would need a lock for every object. */
enum { AT_ONCE = 50 };

static int run_all(PGconn *conn, const PGresult *statements, bough_error *err) {
    int rc = BOUGH_OK, n = PQntuples(statements);
    for (int i = 0; i < n && !rc; i += AT_ONCE) {
        char *sql = NULL;
        size_t size = 0;
        PGresult *silenced = NULL;
        FILE *text = open_memstream(&sql, &size);
        if (!text) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        for (int k = i; k < n && k < i + AT_ONCE; k++)
            (void)fprintf(text, "%s;\n", PQgetvalue(statements, k, 0));
        if (fclose(text) != 0) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        if (!rc) rc = bough_sql_begin_ddl(&silenced, conn, err);
        if (!rc) rc = bough_sql_exec(conn, sql, err);
        rc = bough_sql_end_ddl(silenced, conn, rc, err);
        free(sql);
    }
    return rc;
}

int inside_take_over(const server *srv, const char *endpoint, const char *database,
                     const char *owner, bough_sql_watch watch, bough_error *err) {
    PGconn *conn = NULL;
    PGresult *statements = NULL;
    bough_sql_place place;
    int rc = computes_place(&place, srv, endpoint, err);
    place.watch = watch;
    if (!rc) rc = bough_sql_connect(&conn, &place, database, BOUGH_SQL_UNLIMITED, err);
    if (!rc) rc = run(conn, err, "ALTER DATABASE %I OWNER TO %I", database, owner);
    if (!rc) rc = bough_sql_query(&statements, conn, give_away, 1, &owner, err);
    if (!rc) rc = run_all(conn, statements, err);
    PQclear(statements);
    PQfinish(conn);
    return rc;
}
