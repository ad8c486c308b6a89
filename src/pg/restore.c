/*
 * Logical import: a dump made by pg_dump into a running compute.
 *
 * It is run as a temporary superuser, so that what the dump leaves without an owner belongs to that
 * role alone and can be handed to the owner in one statement. The tools themselves are confined: a
 * dump is foreign code.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "pg/cluster.h"
#include "pg/dumpscan.h"
#include "pg/landlock.h"
#include "pg/sql.h"
#include "pg/tool.h"
#include "util/error.h"
#include "util/fs.h"

enum { CHUNK = 65536, MOST_JOBS = 4, SECRET_BYTES = 24, MOST_WORKERS = 64 };

typedef struct restore {
    const bough_pg *pg;
    const char *path;
    bough_source_kind kind;
    const bough_restore_target *target;
    bough_pg_progress progress;
    void *context;
    const char *phase;
    uint64_t done_bytes, total_bytes;
    PGconn *conn;
    char role[64];
    char secret[SECRET_BYTES * 2 + 1];
    bool role_made;
    gzFile file;
    bough_dumpscan *scan;
    char **made; /* roles that the cluster lacked */
    size_t made_count;
    bough_words words;
} restore;

static int report(restore *r) {
    return r->progress ? r->progress(r->context, r->phase, r->done_bytes, r->total_bytes) : 0;
}

static int tick(void *context, pid_t pid) {
    (void)pid;
    return report(context);
}

static int sql_tick(void *context) {
    return report(context);
}

static void take_line(void *context, const char *line) {
    bough_words_take(&((restore *)context)->words, line);
}

/* A statement with quoted names in place of each "%s". */
static int exec_named(restore *r, const char *shape, const char *a, const char *b,
                      bough_error *err) {
    char quoted_a[512], quoted_b[512], sql[2048];
    int rc = bough_sql_ident(quoted_a, sizeof quoted_a, r->conn, a, err);
    if (!rc) rc = bough_sql_ident(quoted_b, sizeof quoted_b, r->conn, b, err);
    size_t n = 0;
    const char *const names[] = {quoted_a, quoted_b};
    int next = 0;
    for (const char *p = shape; !rc && *p && n + 1 < sizeof sql; p++) {
        if (p[0] == '%' && p[1] == 's') {
            int wrote = snprintf(sql + n, sizeof sql - n, "%s", names[next++ & 1]);
            n += wrote > 0 ? (size_t)wrote : 0;
            p++;
        } else {
            sql[n++] = *p;
        }
    }
    if (rc) return rc;
    if (n + 1 >= sizeof sql) return bough_fail(err, BOUGH_E_INVALID, "a role's name is too long");
    sql[n] = '\0';
    return bough_sql_exec(r->conn, sql, err);
}

/* ---- the temporary superuser ---- */

static int make_role(restore *r, bough_error *err) {
    unsigned char bytes[SECRET_BYTES + 4];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return bough_fail_sys(err, errno, "could not get random bytes");
    for (size_t i = 0; i < SECRET_BYTES; i++)
        (void)snprintf(r->secret + i * 2, 3, "%02x", bytes[i]);
    const unsigned char *tail = bytes + SECRET_BYTES;
    (void)snprintf(r->role, sizeof r->role, "bough_import_%02x%02x%02x%02x", tail[0], tail[1],
                   tail[2], tail[3]);
    /* Hashed here: the secret reaches neither a log nor pg_stat_activity. */
    char *hashed = PQencryptPasswordConn(r->conn, r->secret, r->role, "scram-sha-256");
    if (!hashed) return bough_fail(err, BOUGH_E_PG, "could not hash a password");
    char sql[1024];
    (void)snprintf(sql, sizeof sql, "CREATE ROLE %s SUPERUSER LOGIN PASSWORD '%s'", r->role,
                   hashed);
    PQfreemem(hashed);
    int rc = bough_sql_exec(r->conn, sql, err);
    r->role_made = rc == BOUGH_OK;
    return rc;
}

/*
 * Roles made for the dump are superusers no longer; what only a superuser can own goes to
 * bough_admin, and so do functions that superusers run unnamed. These call what users may replace:
 * they must not run as bough_admin by themselves.
 */
static int demote(restore *r, bough_error *err) {
    static const char handing_up[] =
        "DO $$ DECLARE one record; BEGIN"
        " FOR one IN SELECT kind, name, lends FROM ("
        "  SELECT 'EVENT TRIGGER' AS kind, quote_ident(evtname) AS name, evtowner AS owner,"
        "   false AS lends FROM pg_event_trigger"
        "  UNION ALL SELECT 'FOREIGN DATA WRAPPER', quote_ident(fdwname), fdwowner, false"
        "   FROM pg_foreign_data_wrapper"
        "  UNION ALL SELECT 'PUBLICATION', quote_ident(pubname), pubowner, false"
        "   FROM pg_publication WHERE puballtables"
        "  UNION ALL SELECT 'ROUTINE', p.oid::regprocedure::text, proowner, " BOUGH_SQL_LENDS_RIGHTS
        "   FROM pg_proc p WHERE " BOUGH_SQL_RUN_UNNAMED ") AS all_kinds"
        "  JOIN pg_roles ON oid = owner WHERE NOT rolsuper OR rolname LIKE 'bough\\_import\\_%'"
        " LOOP IF one.lends THEN"
        "  EXECUTE format('ALTER ROUTINE %s SECURITY INVOKER', one.name); END IF;"
        "  EXECUTE format('ALTER %s %s OWNER TO bough_admin', one.kind, one.name);"
        " END LOOP; END $$";
    PGresult *silenced = NULL;
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < r->made_count; i++)
        rc = exec_named(r, "ALTER ROLE %s NOSUPERUSER", r->made[i], r->made[i], err);
    if (!rc) rc = bough_sql_begin_ddl(&silenced, r->conn, err);
    if (!rc) rc = bough_sql_exec(r->conn, handing_up, err);
    return bough_sql_end_ddl(silenced, r->conn, rc, err);
}

static int hand_over_one(restore *r, const char *from, bough_error *err) {
    PGresult *silenced;
    int rc = bough_sql_begin_ddl(&silenced, r->conn, err);
    if (!rc) rc = exec_named(r, "REASSIGN OWNED BY %s TO %s", from, r->target->owner, err);
    return bough_sql_end_ddl(silenced, r->conn, rc, err);
}

/*
 * All of it goes to the owner, who also becomes a member of the roles made for the dump: an archive
 * is restored without owners (pg_restore -O), and a dump in SQL must not differ.
 */
static int hand_over(restore *r, bough_error *err) {
    int rc = hand_over_one(r, r->role, err); /* one at a time: each object takes a lock */
    for (size_t i = 0; !rc && i < r->made_count; i++) {
        if (strcmp(r->made[i], r->target->owner) == 0) continue;
        rc = hand_over_one(r, r->made[i], err);
        if (!rc) rc = exec_named(r, "GRANT %s TO %s", r->made[i], r->target->owner, err);
    }
    return rc ? bough_context(err, "could not hand the restored objects to \"%s\"",
                              r->target->owner)
              : rc;
}

static int drop_role(restore *r, bough_error *err) {
    PGresult *silenced;
    int rc = bough_sql_begin_ddl(&silenced, r->conn, err);
    if (!rc) rc = exec_named(r, "DROP OWNED BY %s", r->role, r->role, err);
    rc = bough_sql_end_ddl(silenced, r->conn, rc, err);
    if (!rc) rc = exec_named(r, "DROP ROLE %s", r->role, r->role, err);
    /* It may still own something when the restore failed half-way: then at least nobody can use it.
     */
    if (rc &&
        exec_named(r, "ALTER ROLE %s NOSUPERUSER NOLOGIN PASSWORD NULL", r->role, r->role, NULL))
        return bough_context(err, "the temporary role \"%s\" is left", r->role);
    return rc;
}

/* ---- roles that the dump names ---- */

/* Superuser until hand_over(), because event triggers and their like can be given to no other;
 * nobody can log in. */
static int make_missing_role(restore *r, const char *name, bough_error *err) {
    PGresult *found = NULL;
    const char *const params[] = {name};
    int rc = bough_sql_query(&found, r->conn, "SELECT 1 FROM pg_roles WHERE rolname = $1", 1,
                             params, err);
    bool exists = !rc && PQntuples(found) > 0;
    PQclear(found);
    if (rc || exists || strncmp(name, "pg_", 3) == 0) return rc;
    rc = exec_named(r, "CREATE ROLE %s NOLOGIN SUPERUSER", name, name, err);
    if (!rc && !(r->made[r->made_count] = strdup(name)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) r->made_count++;
    return rc;
}

static int make_missing_roles(restore *r, bough_error *err) {
    const char *const *roles = bough_dumpscan_roles(r->scan);
    size_t n = 0;
    while (roles[n]) n++;
    r->made = calloc(n + 1, sizeof *r->made);
    if (!r->made) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < n; i++) rc = make_missing_role(r, roles[i], err);
    return rc;
}

/* ---- dumps in SQL ---- */

static int open_file(restore *r, bough_error *err) {
    struct stat st;
    if (r->file) (void)gzclose(r->file);
    r->file = gzopen(r->path, "rbe"); /* reads plain files as they are */
    if (!r->file)
        return bough_fail_sys(err, errno ? errno : ENOMEM, "could not open \"%s\"", r->path);
    r->total_bytes = stat(r->path, &st) == 0 ? (uint64_t)st.st_size : 0;
    r->done_bytes = 0;
    return BOUGH_OK;
}

static ssize_t read_file(void *context, char *buffer, size_t room, bough_error *err) {
    restore *r = context;
    int n = gzread(r->file, buffer, room > CHUNK ? CHUNK : (unsigned)room);
    int why = Z_OK;
    if (n == 0) (void)gzerror(r->file, &why);
    if (n < 0 || why == Z_BUF_ERROR)
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" is damaged: it cannot be decompressed",
                          r->path);
    z_off_t at = gzoffset(r->file);
    if (at > 0) r->done_bytes = (uint64_t)at;
    return n;
}

static int scan_file(restore *r, bough_error *err) {
    char *buffer = malloc(CHUNK);
    if (!buffer) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = open_file(r, err);
    r->phase = "reading";
    double next = 0;
    while (!rc) {
        ssize_t n = read_file(r, buffer, CHUNK, err);
        if (n < 0) rc = (int)n;
        if (n <= 0) break;
        rc = bough_dumpscan_feed(r->scan, buffer, (size_t)n, err);
        if (!rc && bough_now_ms() >= next) {
            next = bough_now_ms() + 100;
            if (report(r)) rc = bough_fail(err, BOUGH_E_CANCELLED, "interrupted");
        }
    }
    if (!rc) rc = bough_dumpscan_feed(r->scan, "\n", 1, err);
    free(buffer);
    if (rc || bough_dumpscan_is_complete(r->scan)) return rc;
    (void)bough_fail(err, BOUGH_E_INVALID, "\"%s\" is cut off: its last line is missing", r->path);
    (void)bough_hint(
        err, "Make the dump again; pg_dump ends it with \"PostgreSQL database dump complete\".");
    return BOUGH_E_INVALID;
}

/* ---- tools ---- */

/* Newer dumps set parameters that older servers do not know. */
static void explain(restore *r, bough_error *err) {
    if (!err || err->code != BOUGH_E_PG) return;
    if (strstr(r->words.error, "unrecognized configuration parameter"))
        (void)bough_hint(
            err, "The dump or the tools are newer than PostgreSQL %d: use a higher --pg-version.",
            r->pg->major);
    else if (strstr(r->words.error, "invalid command \\restrict"))
        (void)bough_hint(err, "Update the package postgresql-client: psql is older than the dump.");
    else if (strstr(r->words.error, "is not available") && strstr(r->words.error, "extension"))
        (void)bough_hint(err, "Install that extension's package for PostgreSQL %d on this machine.",
                         r->pg->major);
}

static int prepare_tool(restore *r, bough_env *env, int *ruleset, char *conninfo, size_t size,
                        const bough_pg *tool, bough_error *err) {
    bough_env_init(env, tool->bindir);
    bough_env_set(env, "PGPASSWORD", r->secret);
    bough_env_set(env, "PGPASSFILE", "/nonexistent/.pgpass");
    bough_env_set(env, "PGCLIENTENCODING", "UTF8");
    bough_env_set(env, "HOME", "/nonexistent");
    bough_env_set(env, "PGHOST", r->target->at->socket_dir);
    bough_env_set(env, "PGPORT", "5432");
    bough_env_set(env, "PGUSER", r->role);
    bough_env_set(env, "PGAPPNAME", "bough restore");
    size_t n = 0;
    n += (size_t)snprintf(conninfo, size, "dbname='");
    for (const char *p = r->target->database; *p && n + 4 < size; p++) {
        if (*p == '\'' || *p == '\\') conninfo[n++] = '\\';
        conninfo[n++] = *p;
    }
    (void)snprintf(conninfo + n, size - n, "'");
    bool archive = r->kind == BOUGH_SOURCE_DUMP_CUSTOM || r->kind == BOUGH_SOURCE_DUMP_DIRECTORY;
    const char *const ro[] = {archive ? r->path : NULL, NULL};
    bough_landlock_rules rules = {.bindir = tool->bindir, .ro = ro};
    return bough_landlock_prepare(ruleset, &rules, err);
}

static int run_psql(restore *r, bough_error *err) {
    bough_pg tool;
    bough_env env;
    char program[BOUGH_PATH_MAX], conninfo[1024];
    int ruleset = -1, status = 0;
    int rc = bough_pg_tool(&tool, "psql", r->pg->major, true, err);
    if (!rc) rc = bough_path(program, sizeof program, err, "%s/psql", tool.bindir);
    if (!rc) rc = prepare_tool(r, &env, &ruleset, conninfo, sizeof conninfo, &tool, err);
    if (!rc) rc = open_file(r, err);
    if (!rc) {
        const char *const argv[] = {program, "-X",        "-q", "-w",     "-v", "ON_ERROR_STOP=1",
                                    "-o",    "/dev/null", "-d", conninfo, NULL};
        bough_run run = {.argv = argv,
                         .env = &env,
                         .ruleset = ruleset,
                         .is_alone = true, /* whatever the scan has not seen */
                         .context = r,
                         .feed = read_file,
                         .line = take_line,
                         .tick = tick};
        r->phase = "restoring";
        rc = bough_run_tool(&status, &run, err);
        if (!rc && status != 0) {
            rc = bough_words_fail(&r->words, BOUGH_E_PG, "the restore", status, err);
            explain(r, err);
        }
    }
    if (ruleset >= 0) close(ruleset);
    return rc;
}

/* ---- archives ---- */

/* Bytes that pg_restore and its workers have read; the kernel adds those of ended workers to the
 * parent's. */
static uint64_t read_bytes(pid_t pid) {
    char path[64], line[128];
    uint64_t bytes = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/io", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    if (fgets(line, sizeof line, f) && sscanf(line, "rchar: %" SCNu64, &bytes) != 1) bytes = 0;
    (void)fclose(f);
    return bytes;
}

static int archive_tick(void *context, pid_t pid) {
    restore *r = context;
    char path[64];
    uint64_t bytes = read_bytes(pid);
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "re");
    if (f) {
        int worker;
        for (int i = 0; i < MOST_WORKERS && fscanf(f, "%d", &worker) == 1; i++)
            bytes += read_bytes((pid_t)worker);
        (void)fclose(f);
    }
    if (bytes > r->total_bytes) bytes = r->total_bytes;
    if (bytes > r->done_bytes) r->done_bytes = bytes;
    return report(r);
}

/* Oldest pg_restore that reads the archive (src/bin/pg_dump/pg_backup_archiver.h: 1.15 is 16, 1.16
 * is 17). */
static int needed_major(const restore *r) {
    char path[BOUGH_PATH_MAX];
    unsigned char head[7] = {0};
    bool dir = r->kind == BOUGH_SOURCE_DUMP_DIRECTORY;
    if (bough_path(path, sizeof path, NULL, "%s%s", r->path, dir ? "/toc.dat" : ""))
        return r->pg->major;
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return r->pg->major;
    bool read_all = bough_pread_full(fd, head, sizeof head, 0) == (ssize_t)sizeof head;
    close(fd);
    int needed = 0;
    if (read_all && memcmp(head, "PGDMP", 5) == 0)
        needed = head[5] > 1 || head[6] > 16 ? BOUGH_PG_NEWEST
                 : head[6] == 16             ? 17
                 : head[6] == 15             ? 16
                                             : 0;
    return needed;
}

static bool is_tar(const restore *r) {
    char head[6] = "";
    if (r->kind != BOUGH_SOURCE_DUMP_CUSTOM) return false;
    int fd = bough_open(r->path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return false;
    bool tar = bough_pread_full(fd, head, 5, 0) == 5 && strcmp(head, "PGDMP") != 0;
    close(fd);
    return tar;
}

static int scan_output(void *context, const char *data, size_t size, bough_error *err) {
    return bough_dumpscan_feed(((restore *)context)->scan, data, size, err);
}

/* First its schema as SQL, to see which roles it names; then into the database, on several
 * connections. */
static int run_pg_restore(restore *r, bool scan, bough_error *err) {
    bough_pg tool;
    bough_env env;
    char program[BOUGH_PATH_MAX], conninfo[1024], jobs[16];
    int ruleset = -1, status = 0;
    int needed = needed_major(r);
    int rc = bough_pg_tool(&tool, "pg_restore", needed > r->pg->major ? needed : r->pg->major,
                           false, err);
    if (rc == BOUGH_E_UNSUPPORTED && needed < r->pg->major)
        rc = bough_pg_tool(&tool, "pg_restore", r->pg->major, true, err);
    if (!rc && tool.major < needed) {
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED, "the dump needs pg_restore of PostgreSQL %d",
                        needed);
        (void)bough_hint(err, "Install the package postgresql-client-%d.", needed);
    }
    if (!rc) rc = bough_path(program, sizeof program, err, "%s/pg_restore", tool.bindir);
    if (!rc) rc = prepare_tool(r, &env, &ruleset, conninfo, sizeof conninfo, &tool, err);
    if (rc) return rc;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (cpus > MOST_JOBS) cpus = MOST_JOBS;
    (void)snprintf(jobs, sizeof jobs, "-j%ld", is_tar(r) || cpus < 1 ? 1L : cpus);
    const char *const scanning[] = {program, "-s", "-O", "--no-comments", "-f", "-", r->path, NULL};
    const char *const restoring[] = {program,
                                     "-O",
                                     "-e",
                                     "-w",
                                     "--no-subscriptions",
                                     "--no-tablespaces",
                                     "--no-security-labels",
                                     jobs,
                                     "-d",
                                     conninfo,
                                     r->path,
                                     NULL};
    bough_run run = {.argv = scan ? scanning : restoring,
                     .env = &env,
                     .ruleset = ruleset,
                     .context = r,
                     .output = scan ? scan_output : NULL,
                     .line = take_line,
                     .tick = scan ? tick : archive_tick};
    r->phase = scan ? "reading" : "restoring";
    r->done_bytes = 0;
    memset(&r->words, 0, sizeof r->words);
    rc = bough_run_tool(&status, &run, err);
    if (!rc && status != 0) {
        rc = bough_words_fail(&r->words, BOUGH_E_PG, "the restore", status, err);
        explain(r, err);
    }
    if (ruleset >= 0) close(ruleset);
    return rc;
}

static int restore_archive(restore *r, bough_error *err) {
    struct stat st;
    int rc = BOUGH_OK;
    if (r->kind == BOUGH_SOURCE_DUMP_DIRECTORY)
        rc = bough_tree_bytes(&r->total_bytes, r->path, err);
    else if (stat(r->path, &st) == 0)
        r->total_bytes = (uint64_t)st.st_size;
    if (!rc) rc = run_pg_restore(r, true, err);
    if (!rc) rc = make_missing_roles(r, err);
    if (!rc) rc = run_pg_restore(r, false, err);
    return rc;
}

static int restore_sql(restore *r, bough_error *err) {
    int rc = scan_file(r, err);
    if (!rc) rc = make_missing_roles(r, err);
    if (!rc) rc = run_psql(r, err);
    return rc;
}

/* ---- interface ---- */

int bough_cluster_restore(const bough_pg *pg, bough_source_kind kind, const char *path,
                          const bough_restore_target *target, bough_pg_progress progress,
                          void *context, bough_error *err) {
    restore *r = calloc(1, sizeof *r);
    if (!r) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *r = (restore){.pg = pg,
                   .path = path,
                   .kind = kind,
                   .target = target,
                   .progress = progress,
                   .context = context,
                   .phase = "reading"};
    bough_sql_place at = *target->at;
    at.watch = (bough_sql_watch){sql_tick, r};
    int rc = BOUGH_OK;
    r->scan = bough_dumpscan_new();
    if (!r->scan) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc && kind == BOUGH_SOURCE_URL)
        rc = bough_fail(err, BOUGH_E_INVALID, "a URL is not a dump");
    if (!rc) rc = bough_sql_connect(&r->conn, &at, target->database, BOUGH_SQL_UNLIMITED, err);
    if (!rc) rc = make_role(r, err);
    if (!rc)
        rc = kind == BOUGH_SOURCE_DUMP_CUSTOM || kind == BOUGH_SOURCE_DUMP_DIRECTORY
                 ? restore_archive(r, err)
                 : restore_sql(r, err);
    if (!rc) rc = bough_drop_subscriptions(r->conn, err);
    r->phase = "finishing";
    if (r->made_count || !rc) {
        int demoted = demote(r, rc ? NULL : err);
        if (!rc) rc = demoted;
    }
    if (!rc) rc = hand_over(r, err);
    if (!rc) rc = bough_sql_exec(r->conn, "ANALYZE", err);
    if (r->role_made) {
        int dropped = drop_role(r, rc ? NULL : err);
        if (!rc) rc = dropped;
    }
    if (r->file) (void)gzclose(r->file);
    for (size_t i = 0; i < r->made_count; i++) free(r->made[i]);
    free(r->made);
    bough_dumpscan_free(r->scan);
    PQfinish(r->conn);
    free(r);
    return rc;
}
