/*
 * The catalogue's connection, its schema and its transactions.
 *
 * Invariant: whoever is inside a transaction holds the (recursive) mutex, so that statements of
 * other threads never become part of it.
 */
#include "model/catalogue.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/query.h"

/* A statement is prepared once: its place is that of its text, which is a literal. */
enum { STATEMENTS = 256 };

typedef struct statement {
    char *sql;
    sqlite3_stmt *stmt;
} statement;

struct bough_catalogue {
    sqlite3 *db;
    pthread_mutex_t mutex;
    uint64_t commits;
    statement statements[STATEMENTS];
};

/* One entry per schema version; entry i brings version i to i + 1. Never change one that was
 * released. */
static const char *const migrations[] = {
    "CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, pg_major INTEGER NOT "
    "NULL,"
    " source TEXT NOT NULL, source_hash TEXT NOT NULL, created_ms INTEGER NOT NULL,"
    " updated_ms INTEGER NOT NULL) STRICT;"
    "CREATE TABLE branches (id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects ON "
    "DELETE CASCADE,"
    " name TEXT NOT NULL, parent_id TEXT REFERENCES branches, state TEXT NOT NULL, is_default "
    "INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, UNIQUE (project_id, name)) STRICT;"
    "CREATE INDEX branches_parent ON branches (parent_id);"
    "CREATE TABLE templates (id TEXT PRIMARY KEY) STRICT;"
    "CREATE TABLE endpoints (id TEXT PRIMARY KEY,"
    " project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE,"
    " branch_id TEXT NOT NULL UNIQUE REFERENCES branches ON DELETE CASCADE,"
    " suspend_timeout_seconds INTEGER NOT NULL, last_error TEXT, created_ms INTEGER NOT NULL,"
    " updated_ms INTEGER NOT NULL) STRICT;"
    "CREATE TABLE roles (branch_id TEXT NOT NULL REFERENCES branches ON DELETE CASCADE, name TEXT "
    "NOT NULL,"
    " secret BLOB, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,"
    " PRIMARY KEY (branch_id, name)) STRICT;"
    "CREATE TABLE databases (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " branch_id TEXT NOT NULL REFERENCES branches ON DELETE CASCADE, name TEXT NOT NULL, owner "
    "TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, UNIQUE (branch_id, name)) STRICT;"
    "CREATE TABLE operations (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE, branch_id TEXT, endpoint_id "
    "TEXT,"
    " action TEXT NOT NULL, status TEXT NOT NULL, failure TEXT, created_ms INTEGER NOT NULL,"
    " updated_ms INTEGER NOT NULL, duration_ms INTEGER NOT NULL) STRICT;"
    "CREATE INDEX operations_project ON operations (project_id, seq);"
    "CREATE TABLE api_keys (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,"
    " hash TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL) STRICT;",
    "ALTER TABLE projects ADD COLUMN history_retention_seconds INTEGER NOT NULL DEFAULT 604800;"
    "CREATE TABLE origins (branch_id TEXT PRIMARY KEY REFERENCES branches ON DELETE CASCADE,"
    " lsn TEXT NOT NULL, time_us INTEGER NOT NULL, restored_ms INTEGER NOT NULL) STRICT;"
    "CREATE TABLE swaps (branch_id TEXT PRIMARY KEY REFERENCES branches ON DELETE CASCADE,"
    " project_id TEXT NOT NULL, incoming_id TEXT NOT NULL, source_id TEXT NOT NULL,"
    " preserve_name TEXT NOT NULL, endpoint_id TEXT NOT NULL, lsn TEXT NOT NULL, time_us INTEGER "
    "NOT NULL) STRICT;",
    /* life cycle: a deleted branch keeps its name in freed_name, its row and its files */
    "ALTER TABLE branches ADD COLUMN is_protected INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE branches ADD COLUMN expires_ms INTEGER;"
    "ALTER TABLE branches ADD COLUMN ttl_seconds INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE branches ADD COLUMN expiry_cascades INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE branches ADD COLUMN expiry_warnings INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE branches ADD COLUMN deleted_ms INTEGER;"
    "ALTER TABLE branches ADD COLUMN freed_name TEXT;"
    "CREATE INDEX branches_expires ON branches (expires_ms) WHERE expires_ms IS NOT NULL;"
    "CREATE INDEX branches_deleted ON branches (deleted_ms) WHERE deleted_ms IS NOT NULL;"
    "CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), wall_ms INTEGER NOT NULL,"
    " boot_ms INTEGER NOT NULL, boot_id TEXT NOT NULL) STRICT;",
    "ALTER TABLE projects ADD COLUMN allowed_ips TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE projects ADD COLUMN protects_only INTEGER NOT NULL DEFAULT 0;",
    /* API keys with scopes; until now there was one, that of the store's file */
    "ALTER TABLE api_keys ADD COLUMN is_local INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE api_keys ADD COLUMN is_read_only INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE api_keys ADD COLUMN project_id TEXT REFERENCES projects ON DELETE CASCADE;"
    "ALTER TABLE api_keys ADD COLUMN branch_id TEXT REFERENCES branches ON DELETE CASCADE;"
    "ALTER TABLE api_keys ADD COLUMN expires_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE api_keys ADD COLUMN last_used_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE api_keys ADD COLUMN last_used_from TEXT;"
    "UPDATE api_keys SET is_local = 1;",
    /* snapshots: hidden rows of branches hold their contents (snapshots.h) */
    "ALTER TABLE branches ADD COLUMN is_snapshot INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE snapshots (id TEXT PRIMARY KEY REFERENCES branches ON DELETE CASCADE,"
    " project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE, source_id TEXT NOT NULL,"
    " name TEXT NOT NULL, lsn TEXT NOT NULL, time_us INTEGER NOT NULL, frequency TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL, expires_ms INTEGER, UNIQUE (project_id, name)) STRICT;"
    "CREATE INDEX snapshots_expires ON snapshots (expires_ms) WHERE expires_ms IS NOT NULL;"
    "CREATE TABLE schedules (branch_id TEXT NOT NULL REFERENCES branches ON DELETE CASCADE,"
    " seq INTEGER NOT NULL, frequency TEXT NOT NULL, hour INTEGER NOT NULL, day INTEGER NOT NULL,"
    " month INTEGER NOT NULL, retention_seconds INTEGER NOT NULL, next_ms INTEGER NOT NULL,"
    " PRIMARY KEY (branch_id, seq)) STRICT;"
    "CREATE TABLE restored (branch_id TEXT PRIMARY KEY REFERENCES branches ON DELETE CASCADE,"
    " snapshot_id TEXT NOT NULL, target_id TEXT NOT NULL, is_final INTEGER NOT NULL) STRICT;",
    "ALTER TABLE branches ADD COLUMN is_look INTEGER NOT NULL DEFAULT 0;",
    "CREATE TABLE annotations (branch_id TEXT PRIMARY KEY REFERENCES branches ON DELETE CASCADE,"
    " value TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT;",
    "ALTER TABLE endpoints ADD COLUMN least_quarters INTEGER NOT NULL DEFAULT 4;"
    "ALTER TABLE endpoints ADD COLUMN most_quarters INTEGER NOT NULL DEFAULT 4;",
    /* what new endpoints of a project get; 4 and 0 are what they got until now */
    "ALTER TABLE projects ADD COLUMN least_quarters INTEGER NOT NULL DEFAULT 4;"
    "ALTER TABLE projects ADD COLUMN most_quarters INTEGER NOT NULL DEFAULT 4;"
    "ALTER TABLE projects ADD COLUMN suspend_timeout_seconds INTEGER NOT NULL DEFAULT 0;",
    /* endpoints that only read: a branch has any number of them beside the one that writes */
    "CREATE TABLE endpoints_new (id TEXT PRIMARY KEY,"
    " project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE,"
    " branch_id TEXT NOT NULL REFERENCES branches ON DELETE CASCADE,"
    " suspend_timeout_seconds INTEGER NOT NULL, last_error TEXT, created_ms INTEGER NOT NULL,"
    " updated_ms INTEGER NOT NULL, least_quarters INTEGER NOT NULL, most_quarters INTEGER NOT NULL,"
    " is_read_only INTEGER NOT NULL) STRICT;"
    "INSERT INTO endpoints_new SELECT id, project_id, branch_id, suspend_timeout_seconds,"
    " last_error, created_ms, updated_ms, least_quarters, most_quarters, 0 FROM endpoints ORDER BY"
    " rowid;"
    "DROP TABLE endpoints;"
    "ALTER TABLE endpoints_new RENAME TO endpoints;"
    "CREATE UNIQUE INDEX endpoints_read_write ON endpoints (branch_id) WHERE is_read_only = 0;"
    "CREATE INDEX endpoints_branch ON endpoints (branch_id);",
    /* a branch's children are counted with each look at it: without their rows */
    "DROP INDEX IF EXISTS branches_parent;"
    "CREATE INDEX branches_parent ON branches (parent_id, deleted_ms, is_look);",
    /* a new password is recorded before PostgreSQL has it: whether it came to that is not known */
    "ALTER TABLE roles ADD COLUMN is_unsure INTEGER NOT NULL DEFAULT 0;",
    /* of a branch with a schema alone: asked for again, it must be known what it was made of */
    "ALTER TABLE branches ADD COLUMN schema_of TEXT;",
};
#define SCHEMA_VERSION ((int)(sizeof migrations / sizeof migrations[0]))

int64_t bough_now_epoch_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Turn SQLite's last failure into ours. */
static int fail_sqlite(bough_catalogue *cat, int code, bough_error *err) {
    const char *message = sqlite3_errmsg(cat->db);
    switch (code & 0xff) {
    case SQLITE_CONSTRAINT:
        if (sqlite3_extended_errcode(cat->db) == SQLITE_CONSTRAINT_UNIQUE ||
            sqlite3_extended_errcode(cat->db) == SQLITE_CONSTRAINT_PRIMARYKEY)
            return bough_fail(err, BOUGH_E_CONFLICT, "exists already");
        return bough_fail(err, BOUGH_E_CONFLICT, "something depends on it");
    case SQLITE_NOMEM:
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    case SQLITE_FULL:
        (void)bough_fail(err, BOUGH_E_NOSPACE, "the disk is full: could not write the catalogue");
        (void)bough_hint(err, "Free space on that file system, then retry.");
        return BOUGH_E_NOSPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return bough_fail(err, BOUGH_E_CORRUPT, "the catalogue is damaged: %s", message);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
        return bough_fail(err, BOUGH_E_SYS, "could not use the catalogue: %s", message);
    default:
        return bough_fail(err, BOUGH_E_INTERNAL, "catalogue: %s", message);
    }
}

static int run_script(bough_catalogue *cat, const char *sql, bough_error *err) {
    int code = sqlite3_exec(cat->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? BOUGH_OK : fail_sqlite(cat, code, err);
}

static void fill_int(void *record, sqlite3_stmt *stmt) {
    int64_t n = sqlite3_column_int64(stmt, 0);
    memcpy(record, &n, sizeof n);
}

static int migrate(bough_catalogue *cat, bough_error *err) {
    int64_t version = 0;
    int rc =
        bough_query_one(&version, sizeof version, fill_int, cat, err, "PRAGMA user_version", "");
    if (rc) return rc;
    if (version > SCHEMA_VERSION) {
        (void)bough_fail(err, BOUGH_E_UNSUPPORTED,
                         "the catalogue has schema version %lld, this server knows %d",
                         (long long)version, SCHEMA_VERSION);
        (void)bough_hint(err, "It was made by a newer version of Bough; use that one.");
        return BOUGH_E_UNSUPPORTED;
    }
    for (; version < SCHEMA_VERSION; version++) {
        char pragma[64];
        (void)snprintf(pragma, sizeof pragma, "PRAGMA user_version = %d", (int)version + 1);
        rc = bough_catalogue_begin(cat, err);
        if (rc) return rc;
        rc = run_script(cat, migrations[version], err);
        if (!rc) rc = run_script(cat, pragma, err);
        rc = bough_catalogue_end(cat, rc, err);
        if (rc) return rc;
    }
    return BOUGH_OK;
}

int bough_catalogue_open(bough_catalogue **out, const char *path, bough_error *err) {
    *out = NULL;
    bough_catalogue *cat = calloc(1, sizeof *cat);
    if (!cat) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&cat->mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    int code = sqlite3_open_v2(path, &cat->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                                   SQLITE_OPEN_EXRESCODE,
                               NULL);
    int rc = code == SQLITE_OK ? BOUGH_OK : fail_sqlite(cat, code, err);
    if (!rc) {
        (void)sqlite3_busy_timeout(cat->db, 5000);
        rc = run_script(
            cat,
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            "PRAGMA secure_delete = ON;",
            err);
    }
    if (!rc) rc = migrate(cat, err);
    if (rc) {
        (void)bough_context(err, "\"%s\"", path);
        bough_catalogue_close(cat);
        return rc;
    }
    *out = cat;
    return BOUGH_OK;
}

void bough_catalogue_close(bough_catalogue *cat) {
    if (!cat) return;
    for (size_t i = 0; i < STATEMENTS; i++) {
        (void)sqlite3_finalize(cat->statements[i].stmt);
        free(cat->statements[i].sql);
    }
    (void)sqlite3_close_v2(cat->db);
    pthread_mutex_destroy(&cat->mutex);
    free(cat);
}

int bough_catalogue_begin(bough_catalogue *cat, bough_error *err) {
    pthread_mutex_lock(&cat->mutex);
    int rc = run_script(cat, "BEGIN IMMEDIATE", err);
    if (rc) pthread_mutex_unlock(&cat->mutex);
    return rc;
}

int bough_catalogue_commit(bough_catalogue *cat, bough_error *err) {
    int rc = run_script(cat, "COMMIT", err);
    if (rc && !sqlite3_get_autocommit(cat->db)) (void)run_script(cat, "ROLLBACK", NULL);
    if (!rc) cat->commits++;
    pthread_mutex_unlock(&cat->mutex);
    return rc;
}

void bough_catalogue_rollback(bough_catalogue *cat) {
    if (!sqlite3_get_autocommit(cat->db)) (void)run_script(cat, "ROLLBACK", NULL);
    pthread_mutex_unlock(&cat->mutex);
}

int bough_catalogue_end(bough_catalogue *cat, int rc, bough_error *err) {
    if (!rc) return bough_catalogue_commit(cat, err);
    bough_catalogue_rollback(cat);
    return rc;
}

uint64_t bough_catalogue_commits(bough_catalogue *cat) {
    pthread_mutex_lock(&cat->mutex);
    uint64_t n = cat->commits;
    pthread_mutex_unlock(&cat->mutex);
    return n;
}

static int bind_params(sqlite3_stmt *stmt, const char *params, va_list ap) {
    int code = SQLITE_OK;
    for (int i = 0; params[i] && code == SQLITE_OK; i++) {
        const char *text;
        const void *blob;
        size_t size;
        switch (params[i]) {
        case 's':
        case 't':
            text = va_arg(ap, const char *);
            if (text && params[i] == 't' && !*text) text = NULL;
            code = sqlite3_bind_text(stmt, i + 1, text, -1, SQLITE_TRANSIENT);
            break;
        case 'b':
            blob = va_arg(ap, const void *);
            size = va_arg(ap, size_t);
            code = size ? sqlite3_bind_blob64(stmt, i + 1, blob, size, SQLITE_TRANSIENT)
                        : sqlite3_bind_null(stmt, i + 1);
            break;
        default:
            code = sqlite3_bind_int64(stmt, i + 1, va_arg(ap, int64_t));
            break;
        }
    }
    return code;
}

/* Where a statement is kept, taken out; its `stmt` is NULL when it was not there. */
static statement *place_of(bough_catalogue *cat, const char *sql) {
    statement *s = &cat->statements[((uintptr_t)sql >> 3) % STATEMENTS];
    if (s->sql && strcmp(s->sql, sql) == 0) return s;
    (void)sqlite3_finalize(s->stmt);
    free(s->sql);
    *s = (statement){.sql = strdup(sql)};
    return s;
}

static int begin_statement(sqlite3_stmt **stmt, bough_catalogue *cat, bough_error *err,
                           const char *sql, const char *params, va_list ap) {
    statement *s = place_of(cat, sql);
    int code = SQLITE_OK;
    if (!s->sql) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!s->stmt)
        code = sqlite3_prepare_v3(cat->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->stmt, NULL);
    *stmt = s->stmt;
    if (code == SQLITE_OK) code = bind_params(s->stmt, params, ap);
    if (code == SQLITE_OK) return BOUGH_OK;
    int rc = fail_sqlite(cat, code, err);
    if (s->stmt) (void)sqlite3_clear_bindings(s->stmt);
    *stmt = NULL;
    return rc;
}

/* Ready for the next time, and without what was bound: it may be a secret. */
static void end_statement(sqlite3_stmt *stmt) {
    if (!stmt) return;
    (void)sqlite3_reset(stmt);
    (void)sqlite3_clear_bindings(stmt);
}

int bough_query_run(int *changes, bough_catalogue *cat, bough_error *err, const char *sql,
                    const char *params, ...) {
    sqlite3_stmt *stmt = NULL;
    va_list ap;
    pthread_mutex_lock(&cat->mutex);
    va_start(ap, params);
    int rc = begin_statement(&stmt, cat, err, sql, params, ap);
    va_end(ap);
    if (!rc) {
        bool alone = sqlite3_get_autocommit(cat->db);
        int code = sqlite3_step(stmt);
        if (code != SQLITE_DONE && code != SQLITE_ROW)
            rc = fail_sqlite(cat, code, err);
        else if (alone)
            cat->commits++;
        if (changes) *changes = rc ? 0 : sqlite3_changes(cat->db);
    }
    end_statement(stmt);
    pthread_mutex_unlock(&cat->mutex);
    return rc;
}

/* Records of any type in one growing allocation. */
typedef struct collector {
    char *records;
    size_t n, room, record_size;
} collector;

static int collect(collector *c, bough_row_fill fill, sqlite3_stmt *stmt, bough_error *err) {
    if (c->n == c->room) {
        size_t room = c->room ? c->room * 2 : 8;
        if (room > BOUGH_ROWS_MAX) return bough_fail(err, BOUGH_E_NOMEM, "a list is too long");
        char *grown = realloc(c->records, room * c->record_size);
        if (!grown) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        c->records = grown;
        c->room = room;
    }
    void *record = c->records + c->n++ * c->record_size;
    memset(record, 0, c->record_size);
    fill(record, stmt);
    return BOUGH_OK;
}

int bough_query_rows(void **records, size_t *n, size_t record_size, bough_row_fill fill,
                     bough_catalogue *cat, bough_error *err, const char *sql, const char *params,
                     ...) {
    collector c = {.record_size = record_size};
    sqlite3_stmt *stmt = NULL;
    va_list ap;
    *records = NULL;
    *n = 0;
    pthread_mutex_lock(&cat->mutex);
    va_start(ap, params);
    int rc = begin_statement(&stmt, cat, err, sql, params, ap);
    va_end(ap);
    while (!rc) {
        int code = sqlite3_step(stmt);
        if (code == SQLITE_DONE) break;
        rc = code == SQLITE_ROW ? collect(&c, fill, stmt, err) : fail_sqlite(cat, code, err);
    }
    end_statement(stmt);
    pthread_mutex_unlock(&cat->mutex);
    if (rc) {
        free(c.records);
        return rc;
    }
    *records = c.records;
    *n = c.n;
    return BOUGH_OK;
}

int bough_query_one(void *record, size_t record_size, bough_row_fill fill, bough_catalogue *cat,
                    bough_error *err, const char *sql, const char *params, ...) {
    sqlite3_stmt *stmt = NULL;
    va_list ap;
    pthread_mutex_lock(&cat->mutex);
    va_start(ap, params);
    int rc = begin_statement(&stmt, cat, err, sql, params, ap);
    va_end(ap);
    if (!rc) {
        int code = sqlite3_step(stmt);
        if (code == SQLITE_ROW) {
            memset(record, 0, record_size);
            fill(record, stmt);
        } else {
            rc = code == SQLITE_DONE ? bough_fail(err, BOUGH_E_NOTFOUND, "no such record")
                                     : fail_sqlite(cat, code, err);
        }
    }
    end_statement(stmt);
    pthread_mutex_unlock(&cat->mutex);
    return rc;
}

void bough_fill_bool(void *record, sqlite3_stmt *stmt) {
    bool *is = record;
    *is = sqlite3_column_int(stmt, 0) != 0;
}

void bough_fill_count(void *record, sqlite3_stmt *stmt) {
    int64_t *n = record;
    *n = sqlite3_column_int64(stmt, 0);
}

void bough_query_text(char *out, size_t size, sqlite3_stmt *stmt, int column) {
    const unsigned char *text = sqlite3_column_text(stmt, column);
    (void)snprintf(out, size, "%s", text ? (const char *)text : "");
}

int bough_catalogue_has_id(bool *found, bough_catalogue *cat, const char *id, bough_error *err) {
    int64_t n = 0;
    int rc = bough_query_one(&n, sizeof n, fill_int, cat, err,
                             "SELECT EXISTS (SELECT 1 FROM projects WHERE id = ?1 UNION ALL"
                             " SELECT 1 FROM branches WHERE id = ?1 UNION ALL"
                             " SELECT 1 FROM endpoints WHERE id = ?1)",
                             "s", id);
    *found = n != 0;
    return rc;
}

int bough_catalogue_has_secrets(bool *found, bough_catalogue *cat, bough_error *err) {
    int64_t n = 0;
    int rc = bough_query_one(&n, sizeof n, fill_int, cat, err,
                             "SELECT EXISTS (SELECT 1 FROM roles WHERE secret IS NOT NULL)", "");
    *found = n != 0;
    return rc;
}
