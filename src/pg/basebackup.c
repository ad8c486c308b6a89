/*
 * Physical import: pg_basebackup, then recovery and tidying by a stock postgres confined to the
 * copy.
 *
 * The role bough_admin is made by a single-user backend, because nobody knows a superuser's
 * password of the source; that backend also replays the WAL. Nothing is fsynced until the end, then
 * everything is once.
 */
#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pg/cluster.h"
#include "pg/compute.h"
#include "pg/admin.h"
#include "pg/conf.h"
#include "pg/control.h"
#include "pg/landlock.h"
#include "pg/sql.h"
#include "pg/tool.h"
#include "util/error.h"
#include "util/fs.h"

enum { READY_STEP_MS = 100, STOP_MS = 600 * 1000, SOCKET_DIR_MAX = 85, CONNINFO_MAX = 8192 };

typedef struct import {
    const bough_pg *pg;
    const char *workdir;
    const char *phase;
    bough_pg_progress progress;
    void *context;
    uint64_t done_bytes, total_bytes;
    bough_words words;
    bough_source_info info;
    char run_dir[BOUGH_PATH_MAX]; /* sockets and log, mode 0700, beside the copy */
    char password[BOUGH_ADMIN_PASSWORD_SIZE];
} import;

static int report(import *im) {
    if (!im->progress) return 0;
    return im->progress(im->context, im->phase, im->done_bytes, im->total_bytes);
}

static int tick(void *context, pid_t pid) {
    (void)pid;
    return report(context);
}

static int sql_tick(void *context) {
    return report(context);
}

/* ---- pg_basebackup ---- */

/* "  48123/ 98765 kB (48%), 0/1 tablespace" is progress; everything else are its words. */
static void backup_line(void *context, const char *line) {
    import *im = context;
    unsigned long long done, total;
    if (sscanf(line, " %llu/%llu kB (", &done, &total) == 2) {
        im->total_bytes = (uint64_t)total * 1024U;
        im->done_bytes = (uint64_t)(done > total ? total : done) * 1024U;
        return;
    }
    bough_words_take(&im->words, line);
}

/* A URL's parameters as a connection string without its password, which goes into the environment.
 */
static int make_conninfo(char *out, size_t size, bough_env *env, const char *url,
                         bough_error *err) {
    PQconninfoOption *options = PQconninfoParse(url, NULL);
    size_t n = 0;
    int rc = options ? BOUGH_OK
                     : bough_fail(err, BOUGH_E_INVALID, "the source is not a valid connection URL");
    out[0] = '\0';
    for (PQconninfoOption *o = options; !rc && o && o->keyword; o++) {
        if (!o->val || !*o->val || strcmp(o->keyword, "application_name") == 0) continue;
        if (strcmp(o->keyword, "password") == 0) {
            bough_env_set(env, "PGPASSWORD", o->val);
            continue;
        }
        if (strcmp(o->keyword, "sslpassword") == 0) {
            (void)bough_fail(err, BOUGH_E_UNSUPPORTED,
                             "a client key with a passphrase cannot be used");
            rc = bough_hint(err, "Give a key without a passphrase in sslkey.");
            rc = BOUGH_E_UNSUPPORTED;
            break;
        }
        n += (size_t)snprintf(out + n, size - n, "%s%s='", n ? " " : "", o->keyword);
        for (const char *p = o->val; *p && n + 4 < size; p++) {
            if (*p == '\'' || *p == '\\') out[n++] = '\\';
            out[n++] = *p;
        }
        if (n + 64 + 8 > size) {
            rc = bough_fail(err, BOUGH_E_INVALID, "the connection URL is too long");
            break;
        }
        out[n++] = '\'';
        out[n] = '\0';
    }
    PQconninfoFree(options);
    return rc;
}

static int copy(import *im, const char *url, bough_error *err) {
    bough_pg tool;
    bough_env env;
    char program[BOUGH_PATH_MAX], conninfo[CONNINFO_MAX];
    int status = 0;
    int rc = bough_pg_tool(&tool, "pg_basebackup", im->info.major, false, err);
    if (!rc) rc = bough_path(program, sizeof program, err, "%s/pg_basebackup", tool.bindir);
    if (rc) return rc;
    bough_env_init(&env, tool.bindir);
    bough_env_inherit(&env, "HOME");
    bough_env_set(&env, "PGAPPNAME", "bough");
    rc = make_conninfo(conninfo, sizeof conninfo, &env, url, err);
    if (rc) return rc;
    const char *const argv[] = {program,  "-D",        im->workdir,     "-X", "stream", "-c",
                                "fast",   "--no-sync", "--no-manifest", "-w", "-P",     "-d",
                                conninfo, NULL};
    bough_run run = {
        .argv = argv, .env = &env, .ruleset = -1, .context = im, .line = backup_line, .tick = tick};
    im->phase = "copying";
    im->total_bytes = im->info.bytes;
    rc = bough_run_tool(&status, &run, err);
    if (!rc && status != 0)
        rc = bough_words_fail(&im->words, BOUGH_E_PG, "pg_basebackup", status, err);
    return rc;
}

/* ---- the copy becomes ours ---- */

static int remove_files(const char *dir, const char *const *names, bough_error *err) {
    for (size_t i = 0; names[i]; i++) {
        char path[BOUGH_PATH_MAX];
        int rc = bough_path(path, sizeof path, err, "%s/%s", dir, names[i]);
        if (rc) return rc;
        if (unlink(path) != 0 && errno != ENOENT)
            return bough_fail_sys(err, errno, "could not remove \"%s\"", path);
    }
    return BOUGH_OK;
}

/* Libraries that the source preloads must be here, or postgres would not start. */
static int check_library(const bough_pg *pg, const char *name, size_t n, bough_error *err) {
    static const char *const dirs[] = {"/../lib/", "/../lib/postgresql/", "/../lib64/",
                                       "/../lib64/postgresql/"};
    while (n && *name == ' ') name++, n--;
    while (n && name[n - 1] == ' ') n--;
    if (n == 0 || memchr(name, '/', n)) return BOUGH_OK;
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        char path[BOUGH_PATH_MAX];
        int rc =
            bough_path(path, sizeof path, err, "%s%s%.*s.so", pg->bindir, dirs[i], (int)n, name);
        if (rc) return rc;
        if (access(path, R_OK) == 0) return BOUGH_OK;
    }
    (void)bough_fail(err, BOUGH_E_UNSUPPORTED,
                     "the source preloads the library \"%.*s\", which is not installed here",
                     (int)n, name);
    (void)bough_hint(err, "Install that extension's package for PostgreSQL %d on this machine.",
                     pg->major);
    return BOUGH_E_UNSUPPORTED;
}

static int check_libraries(const bough_pg *pg, const char *pgdata, bough_error *err) {
    static const char name[] = "shared_preload_libraries=";
    char **carried = NULL;
    int rc = bough_conf_carried(&carried, pgdata, err);
    for (size_t i = 0; !rc && carried && carried[i]; i++) {
        if (strncmp(carried[i], name, sizeof name - 1) != 0) continue;
        for (const char *p = carried[i] + sizeof name - 1; !rc && *p;) {
            size_t n = strcspn(p, ",");
            rc = check_library(pg, p, n, err);
            p += n;
            if (*p == ',') p++;
        }
    }
    for (size_t i = 0; carried && carried[i]; i++) free(carried[i]);
    free(carried);
    return rc;
}

static int configure(import *im, bough_error *err) {
    static const char *const leftovers[] = {
        "standby.signal",       "recovery.signal",    "postmaster.pid",
        "postmaster.opts",      "backup_manifest",    "current_logfiles",
        "postgresql.auto.conf", "bough_carried.conf", NULL};
    int rc = remove_files(im->workdir, leftovers, err);
    bough_conf conf = {.major = im->info.major,
                       .socket_dir = im->run_dir,
                       .carried = (const char *const *)im->info.carried};
    if (!rc) rc = bough_conf_write(im->workdir, &conf, err);
    if (!rc) rc = check_libraries(im->pg, im->workdir, err);
    return rc;
}

static const char *first_database(const import *im) {
    return im->info.databases[0] ? im->info.databases[0] : "template1";
}

/*
 * Replay the copy and make the role through which Bough speaks to it. It has a password of its own
 * until it is a compute: what runs in another one may reach its socket, too.
 */
static int make_admin(import *im, bough_error *err) {
    im->phase = "replaying";
    bough_admin_spec admin = {.pg = im->pg,
                              .pgdata = im->workdir,
                              .scratch = im->run_dir,
                              .database = first_database(im),
                              .password = im->password,
                              .tick = tick,
                              .context = im};
    int rc = bough_admin_make_password(im->password, err);
    if (!rc) rc = bough_admin_install(&admin, err);
    return rc == BOUGH_E_PG ? bough_context(err, "replaying the copy") : rc;
}

/* ---- tidying ---- */

static int await_ready(import *im, bough_compute *compute, bough_error *err) {
    for (;;) {
        int rc = bough_compute_wait_ready(compute, READY_STEP_MS, err);
        if (rc != BOUGH_E_TIMEOUT) return rc;
        if (report(im)) return bough_fail(err, BOUGH_E_CANCELLED, "interrupted");
    }
}

static int stop_in_order(import *im, bough_compute *compute, bough_error *err) {
    double until = bough_now_ms() + STOP_MS;
    for (;;) {
        int rc = bough_compute_stop(compute, BOUGH_STOP_FAST, READY_STEP_MS, err);
        if (rc != BOUGH_E_TIMEOUT || bough_now_ms() > until) return rc;
        if (report(im)) return bough_fail(err, BOUGH_E_CANCELLED, "interrupted");
    }
}

static int connect_to(PGconn **conn, import *im, const char *database, bough_error *err) {
    bough_sql_place place = {.user = BOUGH_ADMIN_ROLE,
                             .password = im->password,
                             .major = im->pg->major,
                             .watch = {sql_tick, im}};
    int rc = bough_path(place.socket_dir, sizeof place.socket_dir, err, "%s", im->run_dir);
    return rc ? rc : bough_sql_connect(conn, &place, database, BOUGH_SQL_UNLIMITED, err);
}

/* From its next start on it is a compute. */
static int set_password(import *im, bough_error *err) {
    PGconn *conn = NULL;
    char verifier[256], sql[512];
    int rc = bough_admin_verifier(verifier, sizeof verifier, err);
    if (!rc) rc = connect_to(&conn, im, first_database(im), err);
    (void)snprintf(sql, sizeof sql, "ALTER ROLE " BOUGH_ADMIN_ROLE " PASSWORD '%s'", verifier);
    if (!rc) rc = bough_sql_exec(conn, sql, err);
    PQfinish(conn);
    return rc;
}

static int tidy_databases(import *im, bough_error *err) {
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && im->info.databases[i]; i++) {
        PGconn *conn = NULL;
        rc = connect_to(&conn, im, im->info.databases[i], err);
        if (!rc) rc = bough_drop_subscriptions(conn, err);
        if (!rc)
            rc = bough_sql_exec(
                conn, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots", err);
        PQfinish(conn);
        if (!rc && report(im)) rc = bough_fail(err, BOUGH_E_CANCELLED, "interrupted");
    }
    return rc;
}

static int tidy(import *im, bough_error *err) {
    char log_path[BOUGH_PATH_MAX];
    int rc = bough_path(log_path, sizeof log_path, err, "%s/log", im->run_dir);
    if (rc) return rc;
    const char *settings[] = {"fsync=off", "autovacuum=off", NULL};
    bough_compute_spec spec = {.pg = im->pg,
                               .pgdata = im->workdir,
                               .socket_dir = im->run_dir,
                               .log_path = log_path,
                               .shm_fd = -1,
                               .settings = settings};
    bough_compute *compute = NULL;
    im->phase = "preparing";
    rc = bough_compute_start(&compute, &spec, err);
    if (!rc) rc = await_ready(im, compute, err);
    if (!rc) rc = tidy_databases(im, err);
    if (!rc) rc = set_password(im, err);
    if (!rc) rc = stop_in_order(im, compute, err);
    if (rc && compute && bough_compute_stop(compute, BOUGH_STOP_KILL, STOP_MS, NULL))
        rc = bough_context(err, "a postgres was left running");
    bough_compute_free(compute);
    return rc;
}

static int finish(import *im, bough_error *err) {
    static const char *const leftovers[] = {"backup_label.old", "tablespace_map.old",
                                            "postmaster.opts", "backup_label", NULL};
    bool clean = false;
    im->phase = "syncing";
    int rc = remove_files(im->workdir, leftovers, err);
    if (!rc) rc = bough_control_clean(&clean, im->workdir, err);
    if (!rc && !clean) rc = bough_fail(err, BOUGH_E_PG, "the copy was not shut down cleanly");
    if (!rc && report(im)) rc = bough_fail(err, BOUGH_E_CANCELLED, "interrupted");
    if (!rc) rc = bough_fsync_tree(im->workdir, err);
    return rc;
}

/* ---- directories ---- */

static int check_empty(const char *dir, bough_error *err) {
    DIR *d = opendir(dir);
    if (!d && errno == ENOENT) return BOUGH_OK;
    if (!d) return bough_fail_sys(err, errno, "could not open \"%s\"", dir);
    int rc = BOUGH_OK, failed = 0;
    for (struct dirent *e; !rc && (e = bough_list_next(d, &failed)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = bough_fail(err, BOUGH_E_PRECONDITION, "\"%s\" is not empty", dir);
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", dir);
    closedir(d);
    return rc;
}

/* A socket's path has at most 107 bytes: where the store lies deep, use /tmp. */
static int make_run_dir(import *im, bough_error *err) {
    if (strlen(im->workdir) < SOCKET_DIR_MAX)
        (void)snprintf(im->run_dir, sizeof im->run_dir, "%s.XXXXXX", im->workdir);
    else
        (void)snprintf(im->run_dir, sizeof im->run_dir, "/tmp/bough-XXXXXX");
    if (mkdtemp(im->run_dir)) return BOUGH_OK;
    int rc = bough_fail_sys(err, errno, "could not create directory \"%s\"", im->run_dir);
    im->run_dir[0] = '\0';
    return rc;
}

int bough_cluster_import(const bough_pg *pg, const char *url, const char *workdir,
                         bough_pg_progress progress, void *context, bough_error *err) {
    int rc = check_empty(workdir, err);
    if (rc) return rc;
    import *im = calloc(1, sizeof *im);
    if (!im) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *im = (import){.pg = pg,
                   .workdir = workdir,
                   .progress = progress,
                   .context = context,
                   .phase = "checking the source"};
    rc = bough_source_check(&im->info, url, (bough_sql_watch){sql_tick, im}, err);
    if (!rc && im->info.major != pg->major) {
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED,
                        "the source is PostgreSQL %d, the project is for %d", im->info.major,
                        pg->major);
        (void)bough_hint(err, "Use --pg-version %d.", im->info.major);
    }
    bool begun = false;
    if (!rc) rc = make_run_dir(im, err);
    if (!rc) {
        begun = true;
        rc = copy(im, url, err);
    }
    if (!rc) rc = configure(im, err);
    if (!rc) rc = make_admin(im, err);
    if (!rc) rc = tidy(im, err);
    if (!rc) rc = finish(im, err);
    if (im->run_dir[0] && bough_rmtree(im->run_dir, NULL)) im->run_dir[0] = '\0';
    if (rc && begun && bough_cluster_remove(workdir, NULL))
        rc = bough_context(err, "\"%s\" could not be removed after a failure", workdir);
    bough_source_info_free(&im->info);
    free(im);
    return rc;
}
