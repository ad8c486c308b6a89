/* What Bough knows of PostgreSQL, as far as it can be tested without a server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pg/cluster.h"
#include "pg/conf.h"
#include "pg/dumpscan.h"
#include "pg/orphans.h"
#include "pg/pglog.h"
#include "pg/pidfile.h"
#include "pg/spawn.h"
#include "pg/sql.h"
#include "util/fs.h"

static char dir[64];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/bough-test-pg-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    return bough_rmtree(dir, NULL);
}

static const char *in_dir(const char *name) {
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text) {
    assert_int_equal(bough_write_file(in_dir(name), text, strlen(text), 0600, NULL), BOUGH_OK);
}

static char *get(const char *name) {
    char *data;
    size_t size;
    assert_int_equal(bough_read_file(&data, &size, in_dir(name), 1 << 20, NULL), BOUGH_OK);
    return data;
}

/* ---- sources ---- */

static void source_is_told_by_its_first_bytes(void **state) {
    (void)state;
    bough_source_kind kind;
    put("custom", "PGDMP\1\16\1");
    put("plain.sql", "--\n-- PostgreSQL database dump\n--\n");
    put("all.sql", "--\n-- PostgreSQL database cluster dump\n--\n");
    put("text", "hello\n");
    assert_int_equal(mkdir(in_dir("directory"), 0700), 0);
    put("directory/toc.dat", "PGDMP");
    assert_int_equal(bough_source_detect(&kind, "postgres://u:p@h/d", NULL), BOUGH_OK);
    assert_int_equal(kind, BOUGH_SOURCE_URL);
    assert_int_equal(bough_source_detect(&kind, in_dir("custom"), NULL), BOUGH_OK);
    assert_int_equal(kind, BOUGH_SOURCE_DUMP_CUSTOM);
    assert_int_equal(bough_source_detect(&kind, in_dir("plain.sql"), NULL), BOUGH_OK);
    assert_int_equal(kind, BOUGH_SOURCE_DUMP_PLAIN);
    assert_int_equal(bough_source_detect(&kind, in_dir("directory"), NULL), BOUGH_OK);
    assert_int_equal(kind, BOUGH_SOURCE_DUMP_DIRECTORY);
    assert_int_equal(bough_source_detect(&kind, in_dir("all.sql"), NULL), BOUGH_E_INVALID);
    assert_int_equal(bough_source_detect(&kind, in_dir("text"), NULL), BOUGH_E_INVALID);
    assert_int_equal(bough_source_detect(&kind, in_dir("missing"), NULL), BOUGH_E_NOTFOUND);
}

static void a_bad_url_is_refused_without_its_password(void **state) {
    (void)state;
    bough_error err;
    bough_source_kind kind;
    assert_int_equal(bough_source_detect(&kind, "postgres://u:s3cret%zz@h/d", &err),
                     BOUGH_E_INVALID);
    assert_null(strstr(err.message, "s3cret"));
}

/* ---- configuration ---- */

static void conf_drops_what_acts_outside(void **state) {
    (void)state;
    const char *const carried[] = {"archive_command=scp %p host:",
                                   "max_connections=200",
                                   "cron.database_name=x",
                                   "shared_preload_libraries=pg_cron, pg_stat_statements",
                                   "ssl_key_file=/k",
                                   "Primary_ConnInfo=host=x",
                                   "search_path=\"$user\", it's\\x",
                                   "bad name=1",
                                   NULL};
    bough_conf conf = {.major = 15, .socket_dir = "/run/x", .carried = carried};
    put("postgresql.auto.conf", "archive_mode = 'on'\nwork_mem = '8MB'\n");
    assert_int_equal(bough_conf_write(dir, &conf, NULL), BOUGH_OK);
    char **back;
    assert_int_equal(bough_conf_carried(&back, dir, NULL), BOUGH_OK);
    assert_string_equal(back[0], "max_connections=200");
    assert_string_equal(back[1], "shared_preload_libraries= pg_stat_statements");
    assert_string_equal(back[2], "search_path=\"$user\", it's\\x");
    assert_null(back[3]);
    for (int i = 0; i < 3; i++) free(back[i]);
    free(back);
    char *text = get("postgresql.auto.conf");
    assert_null(strstr(text, "archive_mode"));
    assert_non_null(strstr(text, "work_mem = '8MB'"));
    free(text);
}

static void conf_of_a_standby_has_the_connections_of_what_it_follows(void **state) {
    (void)state;
    int n = 0;
    bough_conf conf = {.major = 13, .quarters = 1, .socket_dir = "/run/x", .is_followed = true};
    assert_int_equal(bough_conf_connections(&n, dir, NULL), BOUGH_OK);
    assert_int_equal(n, 100); /* PostgreSQL's own */
    assert_int_equal(bough_conf_write(dir, &conf, NULL), BOUGH_OK);
    assert_int_equal(bough_conf_connections(&n, dir, NULL), BOUGH_OK);
    assert_int_equal(n, 50);
    char *text = get("postgresql.conf");
    assert_non_null(strstr(text, "wal_keep_size = '64MB'"));
    assert_non_null(strstr(text, "primary_conninfo = ''"));
    assert_null(strstr(text, "fsync = 'off'"));
    free(text);
    text = get("pg_hba.conf");
    assert_non_null(strstr(text, "local replication bough_standby scram-sha-256\n"));
    assert_non_null(strstr(text, "local all bough_standby reject\n"));
    free(text);
    conf = (bough_conf){.major = 13,
                        .quarters = 1,
                        .socket_dir = "/run/x",
                        .primary = "host=/run/y",
                        .restore = "cp %f %p",
                        .least_connections = 400};
    assert_int_equal(bough_conf_write(dir, &conf, NULL), BOUGH_OK);
    assert_int_equal(bough_conf_connections(&n, dir, NULL), BOUGH_OK);
    assert_int_equal(n, 400);
    text = get("postgresql.conf");
    assert_non_null(strstr(text, "primary_conninfo = 'host=/run/y'"));
    assert_non_null(strstr(text, "wal_retrieve_retry_interval = '500ms'"));
    free(text);
    conf.least_connections = 30;
    conf.primary = ""; /* it sleeps */
    assert_int_equal(bough_conf_write(dir, &conf, NULL), BOUGH_OK);
    assert_int_equal(bough_conf_connections(&n, dir, NULL), BOUGH_OK);
    assert_int_equal(n, 50);
    text = get("postgresql.conf");
    assert_non_null(strstr(text, "wal_retrieve_retry_interval = '60s'"));
    free(text);
    put("bough_carried.conf", "max_connections = '77'\n");
    assert_int_equal(bough_conf_connections(&n, dir, NULL), BOUGH_OK);
    assert_int_equal(n, 77);
    put("bough_carried.conf", "max_connections = 'many'\n");
    assert_int_equal(bough_conf_connections(&n, dir, NULL), BOUGH_E_CORRUPT);
}

static void conf_names_no_setting_the_version_lacks(void **state) {
    (void)state;
    bough_conf conf = {.major = 13, .socket_dir = "/run/x", .hold_wal = true};
    assert_int_equal(bough_conf_write(dir, &conf, NULL), BOUGH_OK);
    char *text = get("postgresql.conf");
    assert_null(strstr(text, "recovery_init_sync_method"));
    assert_null(strstr(text, "io_method"));
    assert_non_null(strstr(text, "wal_keep_size = '16TB'"));
    assert_non_null(strstr(text, "archive_mode = 'off'"));
    free(text);
    conf.major = 18;
    conf.hold_wal = false;
    assert_int_equal(bough_conf_write(dir, &conf, NULL), BOUGH_OK);
    text = get("postgresql.conf");
    assert_non_null(strstr(text, "io_method = 'worker'"));
    assert_non_null(strstr(text, "wal_keep_size = '0'"));
    free(text);
    text = get("pg_hba.conf");
    assert_non_null(strstr(text, "local all all scram-sha-256\n"));
    assert_null(strstr(text, "trust"));
    assert_null(strstr(text, "peer"));
    assert_null(strstr(text, "replication bough_standby"));
    free(text);
}

/* ---- names, installations, logs ---- */

static void names_are_quoted(void **state) {
    (void)state;
    char out[16];
    assert_int_equal(bough_sql_ident(out, sizeof out, NULL, "a\"b; c", NULL), BOUGH_OK);
    assert_string_equal(out, "\"a\"\"b; c\"");
    assert_int_equal(bough_sql_ident(out, sizeof out, NULL, "0123456789abcd", NULL),
                     BOUGH_E_INVALID);
    assert_int_equal(bough_sql_ident(out, sizeof out, NULL, "", NULL), BOUGH_E_INVALID);
}

static void an_unknown_version_is_not_looked_for(void **state) {
    (void)state;
    bough_pg pg;
    bough_error err;
    assert_int_equal(bough_pg_find(&pg, 9, &err), BOUGH_E_UNSUPPORTED);
    bough_pg list[16];
    size_t n = bough_pg_list(list, 16);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(bough_pg_find(&pg, list[i].major, &err), BOUGH_OK);
        assert_true(i == 0 || list[i].major <= list[i - 1].major);
    }
}

static void skip_without_descriptors_of_processes(void) {
    int self = (int)syscall(434 /* pidfd_open, which older headers lack */, getpid(), 0);
    if (self < 0) {
        print_message("no descriptors of processes here, as below valgrind\n");
        skip();
    }
    close(self);
}

/* A postgres of shell whose first answer about TLS does not come. */
static void what_postgres_could_not_say_is_asked_again(void **state) {
    (void)state;
    char script[512], path[256];
    bough_pg pg;
    bough_error err = {0};
    skip_without_descriptors_of_processes();
    const char *given = getenv("BOUGH_PG_PATH");
    char *before = given ? strdup(given) : NULL;
    (void)snprintf(script, sizeof script,
                   "#!/bin/sh\n"
                   "case \"$*\" in\n"
                   "--version) echo 'postgres (PostgreSQL) 15.99' ;;\n"
                   "*wal_compression*) echo 'FATAL: no \"wal_compression\"' >&2; exit 1 ;;\n"
                   "*) test -e %s/asked && echo on && exit; : > %s/asked; kill -9 $$ ;;\n"
                   "esac\n",
                   dir, dir);
    put("postgres", script);
    put("initdb", "");
    assert_int_equal(chmod(in_dir("postgres"), 0700), 0);
    assert_int_equal(chmod(in_dir("initdb"), 0700), 0);
    (void)snprintf(path, sizeof path, "%s", dir);
    assert_int_equal(setenv("BOUGH_PG_PATH", path, 1), 0);
    assert_int_equal(bough_pg_find(&pg, 15, &err), BOUGH_E_PG);
    assert_non_null(strstr(err.message, "did not say whether it takes \"ssl\""));
    assert_int_equal(bough_pg_find(&pg, 15, &err), BOUGH_OK);
    assert_string_equal(pg.version, "15.99");
    assert_true(pg.has_tls);
    assert_false(pg.has_lz4);
    assert_int_equal(before ? setenv("BOUGH_PG_PATH", before, 1) : unsetenv("BOUGH_PG_PATH"), 0);
    free(before);
}

static void a_log_tells_its_last_error(void **state) {
    (void)state;
    char line[128], hint[128];
    int code = BOUGH_E_PG;
    put("log",
        "x LOG:  old\nx FATAL:  could not write: No space left on device\nx HINT:  Buy a disk.\n"
        "x FATAL:  the database system is shutting down\nx LOG:  database system is shut down\n");
    assert_int_equal(
        bough_pglog_failure(line, sizeof line, hint, sizeof hint, &code, in_dir("log"), 0), 0);
    assert_string_equal(line, "could not write: No space left on device");
    assert_string_equal(hint, "Buy a disk");
    assert_int_equal(code, BOUGH_E_NOSPACE);
}

/* ---- dumps ---- */

static const char *scan(const char *sql, int want) {
    static char roles[256];
    bough_dumpscan *s = bough_dumpscan_new();
    assert_non_null(s);
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && sql[i]; i++) rc = bough_dumpscan_feed(s, sql + i, 1, NULL);
    assert_int_equal(rc, want);
    roles[0] = '\0';
    for (const char *const *r = bough_dumpscan_roles(s); *r; r++) {
        strcat(roles, *r);
        strcat(roles, " ");
    }
    bough_dumpscan_free(s);
    return roles;
}

static void a_dump_names_its_roles(void **state) {
    (void)state;
    assert_string_equal(scan("ALTER TABLE t OWNER TO Alice;", BOUGH_OK), "alice ");
    assert_string_equal(scan("GRANT SELECT ON t TO a,\"B \"\"c\" WITH GRANT OPTION;", BOUGH_OK),
                        "a B \"c ");
    assert_string_equal(scan("REVOKE ALL ON t FROM PUBLIC; -- GRANT x TO y;\n", BOUGH_OK), "");
    assert_string_equal(
        scan("ALTER DEFAULT PRIVILEGES FOR ROLE o IN SCHEMA s GRANT ALL ON TABLES TO p;", BOUGH_OK),
        "o p ");
    assert_string_equal(scan("CREATE POLICY p ON t TO q, r USING (true);", BOUGH_OK), "q r ");
    assert_string_equal(
        scan("CREATE FUNCTION f() AS $_$;GRANT a TO b;$_$; SELECT 'x;GRANT a TO c;';", BOUGH_OK),
        "");
    assert_string_equal(scan("COPY t FROM stdin;\nGRANT a TO b;\n\\.\nGRANT a TO c;", BOUGH_OK),
                        "c ");
}

static bool is_complete(const char *sql) {
    bough_dumpscan *s = bough_dumpscan_new();
    assert_non_null(s);
    assert_int_equal(bough_dumpscan_feed(s, sql, strlen(sql), NULL), BOUGH_OK);
    bool complete = bough_dumpscan_is_complete(s);
    bough_dumpscan_free(s);
    return complete;
}

static void a_dump_is_complete_with_its_last_comment(void **state) {
    (void)state;
#define LAST "-- PostgreSQL database dump complete\n"
    assert_true(is_complete("SELECT 1;\n--\n" LAST "--\n\\unrestrict x\n"));
    assert_true(is_complete("--\r\n-- PostgreSQL database dump complete\r\n--\r\n"));
    assert_false(is_complete("--\n-- PostgreSQL database dump\n--\nSELECT 1;\n"));
    assert_false(is_complete("COPY t FROM stdin;\n" LAST));
    assert_false(is_complete("SELECT '\n" LAST));
    assert_false(is_complete("-- PostgreSQL database dump comple"));
#undef LAST
}

static void a_dump_that_reaches_further_is_refused(void **state) {
    (void)state;
    (void)scan("\\restrict abc\nSELECT 1;\n\\unrestrict abc\n", BOUGH_OK);
    (void)scan("CREATE DATABASE x;", BOUGH_E_UNSUPPORTED);
    (void)scan("\\connect x\n", BOUGH_E_UNSUPPORTED);
    (void)scan("SELECT 1 \\! id\n", BOUGH_E_UNSUPPORTED);
    (void)scan("COPY \"x FROM stdin\" FROM '/x';\n\\! id\n", BOUGH_E_UNSUPPORTED);
    (void)scan("SELECT E'\\';', '\\'; \\! id\n", BOUGH_E_UNSUPPORTED);
}

/* Each but the last would be text for who reads otherwise than psql. */
static void a_dump_hides_no_command_of_psqls(void **state) {
    (void)state;
#define RUN "\\! id\n"
#define LONG_TAG "$abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij$"
    static const char *const hidden[] = {
        /* on the line of an allowed one */
        "\\restrict a \\unrestrict a " RUN,
        "\\restrict `id`\n",
        "\\unrestrict a\r" RUN,
        "\\unrestrict\n",
        "\\restrict 'a'\n",
        /* in a comment, which a carriage return ends */
        "-- x\r" RUN,
        "SELECT 1e--" RUN,
        /* in data that do not follow, or that end sooner */
        "COPY (SELECT 1 FROM stdin) TO stdout;\n" RUN "\\.\n",
        "SELECT (1; COPY t FROM stdin;\n" RUN,
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; COPY t FROM stdin;\n" RUN,
        "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC SELECT CASE 1 END; COPY t FROM stdin;\n" RUN,
        "CREATE FUNCTION f() RETURNS int RETURN 1::begin; COPY t FROM stdin;\n" RUN,
        "CREATE FUNCTION f() RETURNS int RETURN 1begin; COPY t FROM stdin;\n" RUN,
        "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1.end; COPY t FROM stdin;\n" RUN,
        "CREATE FUNCTION f() BEGIN ATOMIC :{?end}; COPY t FROM stdin;\n" RUN,
        "CREATE FUNCTION f() RETURN 0000000000000000000000000000begin; COPY t FROM stdin;\n" RUN,
        "E'' CREATE FUNCTION f() BEGIN ATOMIC; COPY t FROM stdin;\n" RUN,
        "U&\"a\" CREATE FUNCTION f() BEGIN ATOMIC; COPY t FROM stdin;\n" RUN,
        "COPY t FROM stdin; SELECT '\n\\.\n' " RUN "'",
        "\xef\xbb\xbf"
        "COPY t FROM stdin;\n$$\n\\.\n" RUN "$$",
        /* in what is no dollar quote, or none here */
        "SELECT 1$$ ' $$ " RUN "';",
        "SELECT $1$$ ' $$ " RUN "';",
        "SELECT 1a$$ ' $$ " RUN "';",
        "SELECT :x$$ ' $$ " RUN "';",
        "SELECT $E'\\' ' " RUN "';",
        "SELECT " LONG_TAG " ' " LONG_TAG " " RUN "';",
        /* in a string that has ended, or has not */
        "SELECT 1E'\\' ' " RUN "';",
        "SELECT E'a'\n'\\' ' " RUN "';",
        "SELECT E'a' -- b\r'\\' ' " RUN "';",
        "SET standard_conforming_strings = off;\nSELECT '\\' ' " RUN "';",
        "SET SESSION standard_conforming_strings = 'off';\n",
        "BEGIN;SET \"standard_conforming_strings\" = off;ROLLBACK;SELECT '\\' " RUN "';",
        "SET client_encoding = 'SJIS';\n",
        "SET NAMES 'Shift_JIS';\n",
        "SET client_encoding TO gbk;\n",
        "SELECT ':DBNAME', :DBNAME;\n",
        RUN,
    };
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        (void)scan(hidden[i], BOUGH_E_UNSUPPORTED);
#undef LONG_TAG
#undef RUN
    bough_dumpscan *s = bough_dumpscan_new(); /* of which psql reads no more than the beginning */
    assert_non_null(s);
    assert_int_equal(bough_dumpscan_feed(s, "SELECT 'a\0';\n", 13, NULL), BOUGH_E_UNSUPPORTED);
    bough_dumpscan_free(s);
}

/* Its words are pushed out neither by what is before them nor by what is behind. */
static void a_long_copy_is_seen_or_refused(void **state) {
    (void)state;
    enum { MANY = 70000 };
    char *sql = calloc(1, 6 * MANY), *at = sql;
    assert_non_null(sql);
    memset(sql, ' ', MANY);
    strcpy(sql + MANY, "COPY t FROM stdin;\nGRANT a TO b;\n\\.\nGRANT a TO c;");
    assert_string_equal(scan(sql, BOUGH_OK), "c ");
    at = stpcpy(at, "COPY t (");
    for (size_t i = 0; i < MANY / 2; i++) at = stpcpy(at, "a,");
    for (size_t i = 0; i < MANY; i++) at = stpcpy(at, "--\n");
    strcpy(at, ") FROM stdin;\n$$\n\\.\n\\! id\n$$");
    (void)scan(sql, BOUGH_E_UNSUPPORTED);
    free(sql);
}

static void what_pg_dump_writes_is_no_riddle(void **state) {
    (void)state;
    (void)scan("\xef\xbb\xbf\\restrict "
               "fBYNCzQVfwfdCChRhXhqd4kAVCPOzGhEPkIrRsAYZbA0IbTYtAdvNR9xNXvKTVo\r\n"
               "SET client_encoding = 'UTF8';\r\nSET standard_conforming_strings = on;\n",
               BOUGH_OK);
    (void)scan("SET standard_conforming_strings = off;\nINSERT INTO t VALUES ('a\\\\', 'b''');\n"
               "SET client_encoding = 'LATIN1';",
               BOUGH_OK);
    (void)scan("CREATE FUNCTION f(int) RETURNS int LANGUAGE sql BEGIN ATOMIC\n SELECT $1 + 2;\n"
               " SELECT CASE WHEN $1 > 1 THEN ($1)::int ELSE 1e5 + 1.5 + 0x1f + 1e-05 END;\nEND;\n"
               "COPY public.t (a, \"from  stdin\", stdin) FROM stdin;\n\\N\t\\\\.\n\\.\n",
               BOUGH_OK);
    (void)scan(
        "CREATE RULE r AS ON INSERT TO t DO ALSO ( SELECT 1;\n SELECT a[1:n], a[1].b FROM u;\n);\n"
        "ALTER TABLE t ADD CHECK ((a ~ '^\\d\\'::text)); SELECT E'a\\'', E'b' - 'c';\n"
        "CREATE FUNCTION a$b() AS $_X$ $1$$ $_$ \\! id\n $_X$;",
        BOUGH_OK);
    assert_string_equal(scan("ALTER TABLE t OWNER TO \"a  b\";", BOUGH_OK), "a  b ");
}

/* ---- programs ---- */

static ssize_t feed_once(void *context, char *buffer, size_t room, bough_error *err) {
    (void)room;
    (void)err;
    int *left = context;
    if (!(*left)--) return 0;
    memcpy(buffer, "exit 7\n", 7);
    return 7;
}

static void a_tool_reads_what_it_is_fed_and_its_status_is_told(void **state) {
    (void)state;
    bough_env env;
    bough_env_init(&env, "/usr/bin");
    int left = 1, status;
    const char *const argv[] = {"/bin/sh", NULL};
    skip_without_descriptors_of_processes();
    bough_run run = {.argv = argv, .env = &env, .ruleset = -1, .context = &left, .feed = feed_once};
    assert_int_equal(bough_run_tool(&status, &run, NULL), BOUGH_OK);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    const char *const missing[] = {"/nonexistent/x", NULL};
    run.argv = missing;
    assert_int_equal(bough_run_tool(&status, &run, NULL), BOUGH_E_SYS);
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

static void *write_often(void *failures) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/shared", dir);
    for (int i = 0; i < 500; i++)
        if (bough_replace_file(path, "whole", 5, 0400, NULL) != 0) ++*(int *)failures;
    return failures;
}

static void threads_may_write_one_file_at_once(void **state) {
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    int failures[THREADS] = {0};
    char *text = NULL;
    size_t size = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_often, &failures[i]), 0);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < THREADS; i++) assert_int_equal(failures[i], 0);
    assert_int_equal(bough_read_file(&text, &size, in_dir("shared"), 64, NULL), 0);
    assert_string_equal(text, "whole");
    free(text);
}

/* ---- what a killed postmaster leaves ---- */

/* A segment that a process made which has ended; its id, and whose it was. */
static int segment_of_the_dead(key_t key, pid_t *pid) {
    *pid = fork();
    if (*pid == 0) _exit(shmget(key, 56, IPC_CREAT | IPC_EXCL | 0600) < 0);
    int status;
    assert_int_equal(waitpid(*pid, &status, 0), *pid);
    assert_int_equal(status, 0);
    int id = shmget(key, 56, 0600);
    assert_true(id >= 0);
    return id;
}

/* postmaster.pid as postgres leaves it. */
static void put_pidfile(pid_t pid, key_t key, int id) {
    char text[256];
    (void)snprintf(text, sizeof text, "%d\n/data\n1700000000\n5432\n/run\n\n%9lu %9lu\nready   \n",
                   (int)pid, (unsigned long)key, (unsigned long)id);
    put("postmaster.pid", text);
}

static bool is_there(int id) {
    struct shmid_ds found;
    assert_int_equal(bough_orphans_end(dir, 5000, NULL), BOUGH_OK);
    return shmctl(id, IPC_STAT, &found) == 0;
}

static void shared_memory_of_the_dead_goes_and_of_nobody_else(void **state) {
    (void)state;
    pid_t pid;
    key_t key = 0x40000000 + getpid();
    int id = segment_of_the_dead(key, &pid);
    put_pidfile(pid + 1, key, id);
    assert_true(is_there(id)); /* another process made it */
    put_pidfile(pid, key + 1, id);
    assert_true(is_there(id)); /* it has another key */
    put_pidfile(pid, key, id);
    void *memory = shmat(id, NULL, SHM_RDONLY);
    assert_true(is_there(id)); /* a backend uses it */
    assert_int_equal(shmdt(memory), 0);
    assert_int_equal(unlink(in_dir("postmaster.pid")), 0);
    assert_true(is_there(id)); /* left in order, and then made by somebody */
    put("postmaster.pid", "77\n");
    assert_true(is_there(id));
    put_pidfile(pid, key, id);
    assert_false(is_there(id));
    assert_false(is_there(id));
    id = segment_of_the_dead(key, &pid);
    put_pidfile(-pid, key, id); /* a standalone backend's */
    assert_false(is_there(id));
}

/* ---- the lock file of a socket ---- */

/* A process that looks like the postgres of `data`, until it is killed. */
static pid_t start_postgres(const char *data) {
    char program[128], *code;
    size_t size;
    int gone[2];
    assert_int_equal(bough_read_file(&code, &size, "/bin/sleep", 16 << 20, NULL), BOUGH_OK);
    (void)snprintf(program, sizeof program, "%s/postgres", dir);
    assert_int_equal(bough_write_file(program, code, size, 0700, NULL), BOUGH_OK);
    free(code);
    assert_int_equal(pipe2(gone, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && chdir(data) == 0)
            (void)execl(program, program, "600", (char *)NULL);
        _exit(1);
    }
    close(gone[1]);
    assert_int_equal(read(gone[0], program, 1), 0); /* closed by its exec */
    close(gone[0]);
    return pid;
}

/* Both of its files, as postgres writes them; the socket's is said to be in `sockets`. */
static void put_locks(pid_t pid, const char *started, const char *sockets) {
    char text[512];
    (void)snprintf(text, sizeof text, "%d\n%s/theirs\n1700000000\n5432\n/first\n*\n", (int)pid,
                   dir);
    put("theirs/postmaster.pid", text);
    (void)snprintf(text, sizeof text, "%d\n%s/theirs\n%s\n5432\n%s/%s\n", (int)pid, dir, started,
                   dir, sockets);
    put("run/.s.PGSQL.5432.lock", text);
}

/* Whose number is in the lock file when a postgres of `ours` is about to start. */
static pid_t repaired(void) {
    char ours[128], run[128];
    (void)snprintf(ours, sizeof ours, "%s/ours", dir);
    (void)snprintf(run, sizeof run, "%s/run", dir);
    bough_pidfile_repair(ours, run);
    char *text = get("run/.s.PGSQL.5432.lock");
    pid_t pid = (pid_t)atoi(text);
    free(text);
    return pid;
}

static void a_socket_that_a_living_postgres_holds_is_not_taken(void **state) {
    (void)state;
    static const char *const made[] = {"ours", "theirs", "run", "elsewhere"};
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
        assert_int_equal(mkdir(in_dir(made[i]), 0700), 0);
    pid_t pid = start_postgres(in_dir("theirs"));
    put_locks(pid, "1700000000", "run");
    assert_int_equal(repaired(), pid);
    put_locks(pid, "1600000000", "run"); /* before the machine was started anew */
    assert_int_equal(repaired(), getpid());
    put_locks(pid, "1700000000", "elsewhere"); /* a copy of their store */
    assert_int_equal(repaired(), getpid());
    put_locks(getppid(), "1700000000", "run"); /* lives, and is no postgres */
    assert_int_equal(repaired(), getpid());
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    put_locks(pid, "1700000000", "run"); /* postgres itself sees that it has ended */
    assert_int_equal(repaired(), pid);
}

static void sessions_are_told_what_their_version_knows(void **state) {
    (void)state;
    char options[BOUGH_SQL_OPTIONS_SIZE];
    for (int major = BOUGH_PG_OLDEST; major <= BOUGH_PG_NEWEST; major++) {
        bough_sql_options(options, major);
        assert_true(strlen(options) + 1 < sizeof options);
        assert_non_null(strstr(options, "-c role=none"));
        assert_non_null(strstr(options, "read\\ committed"));
        assert_int_equal(strstr(options, "idle_session_timeout=0") != NULL, major >= 14);
        assert_int_equal(strstr(options, "transaction_timeout=0") != NULL, major >= 17);
        assert_int_equal(strstr(options, "event_triggers=off") != NULL, major >= 17);
        assert_int_equal(strstr(options, "session_replication_role=replica") != NULL, major < 17);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_DIR(source_is_told_by_its_first_bytes),
        cmocka_unit_test(a_bad_url_is_refused_without_its_password),
        IN_DIR(conf_drops_what_acts_outside),
        IN_DIR(conf_of_a_standby_has_the_connections_of_what_it_follows),
        IN_DIR(conf_names_no_setting_the_version_lacks),
        cmocka_unit_test(names_are_quoted),
        cmocka_unit_test(sessions_are_told_what_their_version_knows),
        cmocka_unit_test(an_unknown_version_is_not_looked_for),
        IN_DIR(what_postgres_could_not_say_is_asked_again),
        IN_DIR(a_log_tells_its_last_error),
        cmocka_unit_test(a_dump_names_its_roles),
        cmocka_unit_test(a_dump_is_complete_with_its_last_comment),
        cmocka_unit_test(a_dump_that_reaches_further_is_refused),
        cmocka_unit_test(a_dump_hides_no_command_of_psqls),
        cmocka_unit_test(a_long_copy_is_seen_or_refused),
        cmocka_unit_test(what_pg_dump_writes_is_no_riddle),
        cmocka_unit_test(a_tool_reads_what_it_is_fed_and_its_status_is_told),
        IN_DIR(threads_may_write_one_file_at_once),
        IN_DIR(shared_memory_of_the_dead_goes_and_of_nobody_else),
        IN_DIR(a_socket_that_a_living_postgres_holds_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
