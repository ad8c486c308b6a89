/* What a SOURCE is, and whether a source server can be copied. */
#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "pg/cluster.h"
#include "pg/spawn.h"
#include "pg/sql.h"
#include "util/error.h"
#include "util/fs.h"

enum {
    HEAD_BYTES = 4096,
    TAR_BLOCK = 512,
    TAR_SIZE_AT = 124,
    TAR_SIZE_BYTES = 12,
    TAR_MAGIC_AT = 257
};

/* ---- detection ---- */

static bool is_url(const char *source) {
    return strncmp(source, "postgres://", 11) == 0 || strncmp(source, "postgresql://", 13) == 0;
}

/* libpq's own words may quote a password: only those about a parameter's name are passed on. */
static int check_url(const char *url, bough_error *err) {
    char *why = NULL, text[256] = "";
    PQconninfoOption *options = PQconninfoParse(url, &why);
    if (why && strncmp(why, "invalid URI query parameter", 27) == 0)
        bough_one_line(text, sizeof text, why);
    PQfreemem(why);
    PQconninfoFree(options);
    if (options) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_INVALID, "the source is not a valid connection URL%s%s",
                     text[0] ? ": " : "", text);
    (void)bough_hint(
        err,
        "Write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, special characters as %%XX.");
    return BOUGH_E_INVALID;
}

static int not_a_dump(const char *path, const char *hint, bough_error *err) {
    (void)bough_fail(err, BOUGH_E_INVALID,
                     "\"%s\" is neither a connection URL nor a dump made by pg_dump", path);
    (void)bough_hint(err, "%s", hint);
    return BOUGH_E_INVALID;
}

/* `head` is NUL-terminated. */
static int check_text(const char *path, const char *head, bough_error *err) {
    if (strstr(head, "PostgreSQL database cluster dump"))
        return not_a_dump(path, "It was made by pg_dumpall; use pg_dump for one database.", err);
    if (strstr(head, "PostgreSQL database dump")) return BOUGH_OK;
    return not_a_dump(path, "Give a postgres:// URL, or a file or directory made by pg_dump.", err);
}

static int check_gzip(const char *path, bough_error *err) {
    char head[HEAD_BYTES];
    gzFile f = gzopen(path, "rbe");
    if (!f) return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    int n = gzread(f, head, sizeof head - 1);
    (void)gzclose(f);
    if (n < 0) return not_a_dump(path, "It is damaged: it cannot be decompressed.", err);
    head[n] = '\0';
    if (n >= 5 && memcmp(head, "PGDMP", 5) == 0)
        return not_a_dump(path, "It holds an archive in gzip; decompress it with gunzip first.",
                          err);
    return check_text(path, head, err);
}

/* Octal digits, or for large members a binary number whose first bit is set (POSIX.1 pax, GNU tar).
 */
static uint64_t tar_size(const unsigned char *field) {
    uint64_t size = 0;
    if (field[0] & 0x80) {
        for (int i = TAR_SIZE_BYTES - 8; i < TAR_SIZE_BYTES; i++) size = size << 8 | field[i];
        return size;
    }
    for (int i = 0; i < TAR_SIZE_BYTES && field[i]; i++)
        if (field[i] >= '0' && field[i] <= '7') size = size * 8 + (uint64_t)(field[i] - '0');
    return size;
}

/* A tar archive holds its members whole and ends with a block of zeros. Some versions of pg_restore
 * never come to an end on one that was cut off. */
static int check_tar(const char *path, int fd, uint64_t bytes, bough_error *err) {
    unsigned char head[TAR_BLOCK];
    uint64_t at = 0;
    for (;;) {
        if (bytes < TAR_BLOCK || at > bytes - TAR_BLOCK ||
            bough_pread_full(fd, head, TAR_BLOCK, (off_t)at) != TAR_BLOCK)
            break;
        if (head[0] == '\0') return BOUGH_OK;
        if (memcmp(head + TAR_MAGIC_AT, "ustar", 5) != 0) break;
        uint64_t size = tar_size(head + TAR_SIZE_AT);
        if (size > bytes) break;
        at += TAR_BLOCK + ((size + TAR_BLOCK - 1) & ~(uint64_t)(TAR_BLOCK - 1));
    }
    (void)bough_fail(err, BOUGH_E_INVALID,
                     "\"%s\" is damaged or cut off: a tar archive's end is missing", path);
    (void)bough_hint(err, "Make the dump again.");
    return BOUGH_E_INVALID;
}

static int detect_file(bough_source_kind *kind, const char *path, bough_error *err) {
    char head[HEAD_BYTES];
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0)
        return bough_fail(err, BOUGH_E_NOTFOUND, "could not open \"%s\": %s", path,
                          strerror(errno));
    struct stat st;
    ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode)
                    ? bough_pread_full(fd, head, sizeof head - 1, 0)
                    : -1;
    head[n > 0 ? n : 0] = '\0';
    bool tar = n > TAR_MAGIC_AT + 5 && memcmp(head + TAR_MAGIC_AT, "ustar", 5) == 0 &&
               strcmp(head, "toc.dat") == 0;
    int rc = tar ? check_tar(path, fd, (uint64_t)st.st_size, err) : BOUGH_OK;
    close(fd);
    if (rc) return rc;
    if (n < 0) return not_a_dump(path, "It is not a regular file.", err);
    if (n >= 5 && (memcmp(head, "PGDMP", 5) == 0 || tar)) {
        *kind = BOUGH_SOURCE_DUMP_CUSTOM; /* pg_restore tells a tar archive by itself */
        return BOUGH_OK;
    }
    if (n >= 2 && (unsigned char)head[0] == 0x1f && (unsigned char)head[1] == 0x8b) {
        *kind = BOUGH_SOURCE_DUMP_GZIP;
        return check_gzip(path, err);
    }
    *kind = BOUGH_SOURCE_DUMP_PLAIN;
    return check_text(path, head, err);
}

int bough_source_detect(bough_source_kind *kind, const char *source, bough_error *err) {
    struct stat st;
    *kind = BOUGH_SOURCE_URL;
    if (is_url(source)) return check_url(source, err);
    const char *scheme_end = strstr(source, "://");
    if (scheme_end) { /* it may hold a password: only its scheme is repeated */
        (void)bough_fail(err, BOUGH_E_INVALID, "a \"%.*s://\" URL cannot be imported",
                         (int)(scheme_end - source), source);
        (void)bough_hint(err, "Give a postgres:// URL, or a file or directory made by pg_dump.");
        return BOUGH_E_INVALID;
    }
    if (stat(source, &st) != 0) {
        (void)bough_fail(err, BOUGH_E_NOTFOUND, "could not open \"%s\": %s", source,
                         strerror(errno));
        (void)bough_hint(err, "Give a postgres:// URL, or a file or directory made by pg_dump.");
        return BOUGH_E_NOTFOUND;
    }
    if (!S_ISDIR(st.st_mode)) return detect_file(kind, source, err);
    char toc[BOUGH_PATH_MAX];
    int rc = bough_path(toc, sizeof toc, err, "%s/toc.dat", source);
    if (rc) return rc;
    *kind = BOUGH_SOURCE_DUMP_DIRECTORY;
    if (access(source, R_OK | X_OK) != 0)
        return bough_fail(err, BOUGH_E_NOTFOUND, "could not open \"%s\": %s", source,
                          strerror(errno));
    if (access(toc, R_OK) == 0) return BOUGH_OK;
    return not_a_dump(source, "A directory made by pg_dump -Fd holds a file toc.dat.", err);
}

/* ---- a source server ---- */

static int connect_source(PGconn **conn, const char *url, bool replication, bough_error *err) {
    static const char *const names[] = {"dbname",          "connect_timeout", "application_name",
                                        "client_encoding", "replication",     NULL};
    /* The URL is first, so that ours win; a timeout in the URL is lost, which is fine. */
    const char *const values[] = {url, "10", "bough", "UTF8", replication ? "true" : NULL, NULL};
    *conn = PQconnectdbParams(names, values, 1);
    if (!*conn) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (PQstatus(*conn) == CONNECTION_OK) return BOUGH_OK;
    char why[384];
    bough_one_line(why, sizeof why, PQerrorMessage(*conn));
    PQfinish(*conn);
    *conn = NULL;
    (void)bough_fail(err, BOUGH_E_UNREACHABLE, "could not connect to the source%s: %s",
                     replication ? " for replication" : "", why);
    if (strstr(why, "pg_hba.conf") && replication)
        (void)bough_hint(err, "Add a line \"host replication USER ADDRESS scram-sha-256\" to the "
                              "source's pg_hba.conf.");
    else if (strstr(why, "password") || strstr(why, "authentication"))
        (void)bough_hint(err, "Check user and password in the URL.");
    else if (strstr(why, "max_wal_senders") || strstr(why, "connection slots"))
        (void)bough_hint(
            err,
            "The source has no free connection: raise max_wal_senders or max_connections there.");
    else
        (void)bough_hint(
            err,
            "Check host and port in the URL, and that the source accepts connections from here.");
    return BOUGH_E_UNREACHABLE;
}

static int refuse(bough_error *err, int code, const char *hint, const char *fmt, ...)
    BOUGH_PRINTF(4, 5);
static int refuse(bough_error *err, int code, const char *hint, const char *fmt, ...) {
    char text[384];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)bough_fail(err, code, "%s", text);
    (void)bough_hint(err, "%s", hint);
    return code;
}

/* One row with everything that can forbid a copy. */
static int check_rules(bough_source_info *info, PGconn *conn, bough_error *err) {
    static const char sql[] =
        "SELECT current_setting('block_size'), current_setting('wal_block_size'),"
        " current_setting('segment_size'), current_setting('wal_level'),"
        " (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),"
        " (SELECT string_agg(quote_ident(spcname), ', ') FROM pg_tablespace WHERE oid NOT IN "
        "(1663, 1664)),"
        " (SELECT coalesce(sum(pg_database_size(oid)), 0) FROM pg_database"
        "   WHERE has_database_privilege(oid, 'CONNECT')), current_user,"
        " pg_has_role(current_user, 'pg_read_all_settings', 'USAGE'), quote_ident(current_user)";
    PGresult *r = NULL;
    int rc = bough_sql_query(&r, conn, sql, 0, NULL, err);
    if (rc) return bough_context(err, "could not examine the source");
    info->bytes = strtoull(PQgetvalue(r, 0, 6), NULL, 10);
    if (strcmp(PQgetvalue(r, 0, 0), "8192") != 0 || strcmp(PQgetvalue(r, 0, 1), "8192") != 0 ||
        strcmp(PQgetvalue(r, 0, 2), "1GB") != 0)
        rc = refuse(err, BOUGH_E_UNSUPPORTED, "Import a dump made by pg_dump instead.",
                    "the source was built with block sizes %s, %s and segments of %s",
                    PQgetvalue(r, 0, 0), PQgetvalue(r, 0, 1), PQgetvalue(r, 0, 2));
    else if (PQgetvalue(r, 0, 4)[0] != 't')
        rc = refuse(err, BOUGH_E_PRECONDITION,
                    "Run there: ALTER ROLE ... REPLICATION, or import a dump.",
                    "the role \"%s\" of the source lacks REPLICATION", PQgetvalue(r, 0, 7));
    else if (PQgetvalue(r, 0, 8)[0] != 't') { /* a copy without its libraries would not do */
        (void)bough_fail(err, BOUGH_E_PRECONDITION,
                         "the role \"%s\" of the source may not see all settings, such as"
                         " shared_preload_libraries",
                         PQgetvalue(r, 0, 7));
        (void)bough_hint(err, "Run there: GRANT pg_read_all_settings TO %s.", PQgetvalue(r, 0, 9));
        rc = BOUGH_E_PRECONDITION;
    } else if (!PQgetisnull(r, 0, 5))
        rc = refuse(
            err, BOUGH_E_UNSUPPORTED,
            "Move their tables to pg_default and drop them, or import a dump made by pg_dump.",
            "the source has tablespaces: %s", PQgetvalue(r, 0, 5));
    else if (strcmp(PQgetvalue(r, 0, 3), "minimal") == 0)
        rc = refuse(err, BOUGH_E_PRECONDITION,
                    "Set wal_level = replica there and restart it, or import a dump.",
                    "the source has wal_level = minimal");
    PQclear(r);
    return rc;
}

static char **column(const PGresult *r) {
    int n = PQntuples(r);
    char **list = calloc((size_t)n + 1, sizeof *list);
    for (int i = 0; list && i < n; i++) {
        list[i] = strdup(PQgetvalue(r, i, 0));
        if (!list[i]) {
            while (i > 0) free(list[--i]);
            free(list);
            return NULL;
        }
    }
    return list;
}

static int take_list(char ***list, PGconn *conn, const char *sql, bough_error *err) {
    PGresult *r = NULL;
    int rc = bough_sql_query(&r, conn, sql, 0, NULL, err);
    if (rc) return bough_context(err, "could not examine the source");
    *list = column(r);
    if (!*list) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    PQclear(r);
    return rc;
}

static int take_lists(bough_source_info *info, PGconn *conn, bough_error *err) {
    int rc = take_list(&info->databases, conn,
                       "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"
                       " ORDER BY datname = 'postgres' DESC, datname",
                       err);
    /* ours are no settings of the source */
    if (!rc) rc = bough_sql_exec(conn, "RESET statement_timeout; RESET lock_timeout", err);
    if (!rc)
        rc = take_list(
            &info->carried, conn,
            "SELECT name || '=' || setting FROM pg_settings WHERE context <> 'internal'"
            " AND setting IS NOT NULL AND source IN"
            " ('configuration file', 'command line', 'environment variable') ORDER BY name",
            err);
    return rc;
}

int bough_source_check(bough_source_info *info, const char *url, bough_sql_watch watch,
                       bough_error *err) {
    memset(info, 0, sizeof *info);
    PGconn *conn = NULL, *walsender = NULL;
    int rc = check_url(url, err);
    if (!rc) rc = connect_source(&conn, url, false, err);
    if (rc) return rc;
    info->major = PQserverVersion(conn) / 10000;
    if (info->major < BOUGH_PG_OLDEST || info->major > BOUGH_PG_NEWEST)
        rc = refuse(err, BOUGH_E_UNSUPPORTED, "Import a dump made by pg_dump instead.",
                    "the source is PostgreSQL %d, which is not supported", info->major);
    if (!rc) rc = bough_sql_adopt(conn, BOUGH_SQL_SOURCE, watch, err);
    if (rc == BOUGH_E_TIMEOUT) rc = bough_context(err, "could not examine the source");
    /* ALTER DATABASE ... SET role is not for a walsender either; what else is set stays as it is,
     * for it is looked at */
    if (!rc) rc = bough_sql_exec(conn, "SET role = none", err);
    if (!rc) rc = check_rules(info, conn, err);
    if (!rc) rc = take_lists(info, conn, err);
    if (!rc && watch.tick && watch.tick(watch.context))
        rc = bough_fail(err, BOUGH_E_CANCELLED, "interrupted");
    if (!rc) rc = connect_source(&walsender, url, true, err);
    PQfinish(walsender);
    PQfinish(conn);
    if (rc) bough_source_info_free(info);
    return rc;
}

void bough_source_info_free(bough_source_info *info) {
    for (size_t i = 0; info->carried && info->carried[i]; i++) free(info->carried[i]);
    for (size_t i = 0; info->databases && info->databases[i]; i++) free(info->databases[i]);
    free(info->carried);
    free(info->databases);
    memset(info, 0, sizeof *info);
}
