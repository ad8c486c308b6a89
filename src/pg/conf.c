/*
 * Configuration files of a compute.
 *
 * postgresql.conf has three parts, later ones win: defaults, bough_carried.conf (what the source
 * had, filtered), and what Bough insists on. Command line and postgresql.auto.conf would win over
 * all of it, so the latter is filtered as well.
 *
 * The generated files are written again before every start; so they need not survive a power cut
 * and are not fsynced (a start of a compute has a budget of milliseconds). bough_carried.conf is:
 * it has no other copy.
 */
#include "pg/conf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/error.h"
#include "util/fs.h"

enum { TEXT_MAX = 1 << 20 };
/* What PostgreSQL has where nothing is said. */
enum { DEFAULT_CONNECTIONS = 100 };

static const char carried_name[] = "bough_carried.conf";

/* ---- text under construction ---- */

typedef struct text {
    char *data;
    size_t size, room;
    bool failed;
} text;

static void add(text *t, const char *data, size_t size) {
    if (t->failed || t->size + size > TEXT_MAX) {
        t->failed = true;
        return;
    }
    if (t->size + size + 1 > t->room) {
        size_t room = (t->size + size + 1) * 2;
        char *more = realloc(t->data, room);
        if (!more) {
            t->failed = true;
            return;
        }
        t->data = more;
        t->room = room;
    }
    memcpy(t->data + t->size, data, size);
    t->size += size;
    t->data[t->size] = '\0';
}

static void add_string(text *t, const char *s) {
    add(t, s, strlen(s));
}

/* A value or a user name: quotes doubled, backslashes too (guc-file.l undoes both). Line ends
 * cannot be written. */
static void add_quoted(text *t, const char *value) {
    add_string(t, "'");
    for (const char *p = value; *p; p++) {
        if (*p == '\'' || *p == '\\') add(t, p, 1);
        if (*p == '\n')
            add_string(t, "\\n");
        else if (*p == '\r')
            add_string(t, "\\r");
        else
            add(t, p, 1);
    }
    add_string(t, "'");
}

static void add_setting(text *t, const char *name, const char *value) {
    add_string(t, name);
    add_string(t, " = ");
    add_quoted(t, value);
    add_string(t, "\n");
}

/* ---- which settings may be carried ---- */

/* Settings that reach outside, that depend on the source's machine, or that Bough sets itself. */
static const char *const refused[] = {
    /* archiving, replication, recovery */
    "archive_*",
    "restore_command",
    "recovery_*",
    "primary_*",
    "promote_trigger_file",
    "hot_standby*",
    "synchronous_standby_names",
    "synchronized_standby_slots",
    "sync_replication_slots",
    "max_slot_*",
    "max_replication_slots",
    "max_logical_replication_workers",
    "max_sync_workers_*",
    "idle_replication_*",
    "max_active_replication_origins",
    "wal_*",
    "max_wal_size",
    "min_wal_size",
    "summarize_wal",
    "vacuum_defer_cleanup_age",
    "track_commit_timestamp_*",
    "fsync",
    "full_page_writes",
    "data_sync_retry",
    "ignore_*",
    "zero_damaged_pages",
    "restart_after_crash",
    "event_source",
    "cluster_name",
    /* the network and who may come in */
    "listen_addresses",
    "port",
    "unix_socket_*",
    "bonjour*",
    "ssl",
    "ssl_*",
    "krb_*",
    "gss_*",
    "db_user_namespace",
    "oauth_*",
    "pre_auth_delay",
    "post_auth_delay",
    "reserved_connections",
    /* files, programs and libraries */
    "*_file",
    "*_directory",
    "*_directories",
    "*_command",
    "*_library",
    "*_libraries",
    "dynamic_library_path",
    "extension_control_path",
    "jit_provider",
    "*_tablespaces",
    "default_tablespace",
    /* logging is ours */
    "log_destination",
    "logging_collector",
    "log_filename",
    "log_file_mode",
    "log_rotation_*",
    "log_truncate_on_rotation",
    "log_line_prefix",
    "syslog_*",
    "lc_messages",
    "log_connections",
    /* memory and machine */
    "shared_buffers",
    "huge_page*",
    "shared_memory_type",
    "dynamic_shared_memory_type",
    "min_dynamic_shared_memory",
    "io_method",
    "io_workers",
    "io_max_*",
    "effective_io_concurrency",
    "maintenance_io_concurrency",
    "*_flush_after",
    "default_toast_compression",
    "debug_*",
    "trace_*",
    "allow_in_place_tablespaces",
    "backtrace_functions",
    "config_*",
    "in_hot_standby",
    /* background actors */
    "cron.*",
    "pg_cron.*",
    "pg_partman_bgw.*",
    "squeeze.*",
    "pglogical.*",
    "bdr.*",
    "spock.*",
    "pg_timetable.*",
    "pgagent.*",
};

/* "*_library" and its like do not mean these: their lists are filtered instead. */
static const char *const preload_lists[] = {"shared_preload_libraries", "session_preload_libraries",
                                            "local_preload_libraries"};

/* Schedulers, replicators, and what works on its own in the background. */
static const char *const acting_libraries[] = {"pg_cron",
                                               "pg_partman_bgw",
                                               "pg_squeeze",
                                               "pglogical",
                                               "pglogical_output",
                                               "bdr",
                                               "spock",
                                               "pg_timetable",
                                               "pg_failover_slots",
                                               "repmgr",
                                               "pgautofailover",
                                               "pg_net",
                                               "worker_spi",
                                               "pg_prewarm",
                                               "pg_dbms_job",
                                               "pg_task",
                                               "citus",
                                               "neon",
                                               "bough_pg"};

static bool in_list(const char *const *list, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], name) == 0) return true;
    return false;
}

#define IN(list, name) in_list((list), sizeof(list) / sizeof *(list), (name))

static bool well_named(const char *name) {
    if (!isalpha((unsigned char)*name) && *name != '_') return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '_' && *p != '.' && *p != '$') return false;
    return true;
}

static bool may_carry(const char *name) {
    if (!well_named(name)) return false;
    if (IN(preload_lists, name)) return true;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (fnmatch(refused[i], name, 0) == 0) return false;
    return true;
}

/* The last part of "$libdir/plugins/name.so". */
static void library_name(char *out, size_t size, const char *item, size_t n) {
    while (n && (item[0] == ' ' || item[0] == '"')) item++, n--;
    while (n && (item[n - 1] == ' ' || item[n - 1] == '"')) n--;
    for (size_t i = n; i > 0; i--)
        if (item[i - 1] == '/') {
            item += i;
            n -= i;
            break;
        }
    if (n > 3 && strncmp(item + n - 3, ".so", 3) == 0) n -= 3;
    (void)snprintf(out, size, "%.*s", (int)n, item);
}

static void add_libraries(text *t, const char *name, const char *value) {
    text kept = {.data = NULL};
    for (const char *p = value; *p;) {
        size_t n = strcspn(p, ",");
        char library[128];
        library_name(library, sizeof library, p, n);
        if (*library && !IN(acting_libraries, library)) {
            if (kept.size) add_string(&kept, ",");
            add(&kept, p, n);
        }
        p += n;
        if (*p == ',') p++;
    }
    if (kept.size) add_setting(t, name, kept.data);
    if (kept.failed) t->failed = true;
    free(kept.data);
}

/* `setting` is "name=value". */
static void add_carried(text *t, const char *setting) {
    char name[128];
    size_t n = strcspn(setting, "=");
    if (setting[n] != '=' || n == 0 || n >= sizeof name) return;
    for (size_t i = 0; i < n; i++) name[i] = (char)tolower((unsigned char)setting[i]);
    name[n] = '\0';
    if (!may_carry(name)) return;
    if (IN(preload_lists, name))
        add_libraries(t, name, setting + n + 1);
    else
        add_setting(t, name, setting + n + 1);
}

/* ---- reading settings back ---- */

/* One line "name = 'value'" as we and ALTER SYSTEM write it; "name=value" goes to `out` (malloc'ed)
 * or NULL. */
static int parse_line(char **out, const char *line, size_t n) {
    *out = NULL;
    char *made = malloc(n + 2);
    if (!made) return -1;
    size_t i = 0, w = 0;
    while (i < n && isspace((unsigned char)line[i])) i++;
    while (i < n && line[i] != '=' && line[i] != '#' && !isspace((unsigned char)line[i]))
        made[w++] = line[i++];
    while (i < n && (isspace((unsigned char)line[i]) || line[i] == '=')) i++;
    if (w == 0 || i >= n || line[i] != '\'' || memchr(line, '\0', n)) {
        free(made);
        return 0;
    }
    made[w++] = '=';
    for (i++; i < n; i++) {
        if (line[i] == '\'' && (i + 1 >= n || line[i + 1] != '\'')) break;
        if (line[i] == '\'') {
            i++;
            made[w++] = '\'';
        } else if (line[i] == '\\' && i + 1 < n) {
            i++;
            made[w++] = line[i] == 'n' ? '\n' : line[i] == 'r' ? '\r' : line[i];
        } else {
            made[w++] = line[i];
        }
    }
    made[w] = '\0';
    *out = made;
    return 0;
}

static void free_list(char **list) {
    for (size_t i = 0; list && list[i]; i++) free(list[i]);
    free(list);
}

static int read_settings(char ***settings, const char *path, bough_error *err) {
    *settings = NULL;
    char *data = NULL;
    size_t size = 0;
    bough_error why;
    int rc = bough_read_file(&data, &size, path, TEXT_MAX, &why);
    if (rc && rc != BOUGH_E_NOTFOUND) {
        if (err) *err = why;
        return rc;
    }
    size_t lines = 1;
    for (size_t i = 0; i < size; i++) lines += data[i] == '\n';
    char **list = calloc(lines + 1, sizeof *list);
    size_t count = 0;
    rc = list ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < size;) {
        size_t n = 0;
        while (i + n < size && data[i + n] != '\n') n++;
        if (parse_line(&list[count], data + i, n) != 0)
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        if (!rc && list[count]) count++;
        i += n + 1;
    }
    free(data);
    if (rc)
        free_list(list);
    else
        *settings = list;
    return rc;
}

int bough_conf_carried(char ***carried, const char *pgdata, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    *carried = NULL;
    int rc = bough_path(path, sizeof path, err, "%s/%s", pgdata, carried_name);
    return rc ? rc : read_settings(carried, path, err);
}

/* The last value of a setting in a file; false where it has none. */
static bool find_value(char *out, size_t size, const char *pgdata, const char *file,
                       const char *name) {
    char path[BOUGH_PATH_MAX], **settings = NULL;
    size_t n = strlen(name);
    bool found = false;
    if (bough_path(path, sizeof path, NULL, "%s/%s", pgdata, file) ||
        read_settings(&settings, path, NULL))
        return false;
    for (size_t i = 0; settings[i]; i++) {
        if (strncmp(settings[i], name, n) != 0 || settings[i][n] != '=') continue;
        (void)snprintf(out, size, "%s", settings[i] + n + 1);
        found = true;
    }
    free_list(settings);
    return found;
}

int bough_conf_connections(int *connections, const char *pgdata, bough_error *err) {
    static const char name[] = "max_connections";
    char value[32];
    if (!find_value(value, sizeof value, pgdata, "postgresql.auto.conf", name) &&
        !find_value(value, sizeof value, pgdata, carried_name, name) &&
        !find_value(value, sizeof value, pgdata, "postgresql.conf", name))
        (void)snprintf(value, sizeof value, "%d", DEFAULT_CONNECTIONS);
    *connections = atoi(value);
    if (*connections > 0) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_CORRUPT, "max_connections is \"%s\" in \"%s\"", value, pgdata);
}

/* ---- writing ---- */

/* Whether the file holds exactly this already. */
static bool unchanged(const char *path, const text *t) {
    char *data = NULL;
    size_t size = 0;
    if (bough_read_file(&data, &size, path, TEXT_MAX, NULL)) return false;
    bool same = size == t->size && (size == 0 || memcmp(data, t->data, size) == 0);
    free(data);
    return same;
}

/* Replace atomically, but without fsync unless `durable`. */
static int put(const char *pgdata, const char *name, const text *t, bool durable,
               bough_error *err) {
    char path[BOUGH_PATH_MAX];
    if (t->failed) return bough_fail(err, BOUGH_E_NOMEM, "could not build \"%s\"", name);
    int rc = bough_path(path, sizeof path, err, "%s/%s", pgdata, name);
    if (rc || unchanged(path, t)) return rc;
    return (durable ? bough_write_file : bough_replace_file)(path, t->data ? t->data : "", t->size,
                                                             0600, err);
}

static int write_carried(const char *pgdata, const bough_conf *conf, bough_error *err) {
    if (!conf->carried) return BOUGH_OK;
    text t = {.data = NULL};
    for (size_t i = 0; conf->carried[i]; i++) add_carried(&t, conf->carried[i]);
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/%s", pgdata, carried_name);
    if (!rc && t.size == 0 && !t.failed) {
        if (unlink(path) != 0 && errno != ENOENT)
            rc = bough_fail_sys(err, errno, "could not remove \"%s\"", path);
    } else if (!rc) {
        rc = put(pgdata, carried_name, &t, true, err);
    }
    free(t.data);
    return rc;
}

/* What ALTER SYSTEM left there wins over postgresql.conf: keep only what may be carried. */
static int filter_auto_conf(const char *pgdata, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    char **settings = NULL;
    struct stat st;
    int rc = bough_path(path, sizeof path, err, "%s/postgresql.auto.conf", pgdata);
    if (rc || stat(path, &st) != 0 || st.st_size == 0) return rc;
    rc = read_settings(&settings, path, err);
    if (rc) return rc;
    text t = {.data = NULL};
    add_string(&t, "# Do not edit this file manually!\n");
    add_string(&t, "# It will be overwritten by the ALTER SYSTEM command.\n");
    for (size_t i = 0; settings[i]; i++) add_carried(&t, settings[i]);
    rc = put(pgdata, "postgresql.auto.conf", &t, false, err);
    free(t.data);
    free_list(settings);
    return rc;
}

typedef struct setting {
    int since; /* first major version that knows it; 0: all */
    const char *name, *value;
} setting;

/* What initdb would have chosen and the source may override. */
static const setting defaults[] = {
    {0, "lc_monetary", "C"},
    {0, "lc_numeric", "C"},
    {0, "lc_time", "C"},
    {0, "datestyle", "iso, mdy"},
    {0, "timezone", "UTC"},
    {0, "log_timezone", "UTC"},
    {0, "default_text_search_config", "pg_catalog.english"},
};

static const setting insisted[] = {
    /* only through its sockets: boughd listens, and hands over whom it has heard */
    {0, "listen_addresses", ""},
    {0, "unix_socket_permissions", "0777"},
    {0, "port", "5432"},
    {0, "ssl_ca_file", ""},
    {0, "ssl_crl_file", ""},
    {0, "ssl_passphrase_command", ""},
    {0, "cluster_name", ""},
    /* nothing may act outside as the parent did */
    {0, "archive_mode", "off"},
    {0, "primary_conninfo", ""},
    {0, "primary_slot_name", ""},
    {0, "restore_command", ""},
    {0, "synchronous_standby_names", ""},
    {0, "max_logical_replication_workers", "0"},
    /* for those that read, of which there are up to 16; a standby needs at least as many as what it
     * follows, and each costs memory */
    {0, "max_wal_senders", "20"},
    {0, "max_replication_slots", "20"},
    /* memory that the confinement allows */
    {0, "huge_pages", "off"},
    {0, "shared_memory_type", "mmap"},
    {0, "dynamic_shared_memory_type", "mmap"},
    {18, "io_method", "worker"},
    /* durability, and a short way back after a crash */
    {0, "wal_level", "replica"},
    {0, "fsync", "on"},
    {0, "full_page_writes", "on"},
    {0, "min_wal_size", "32MB"}, /* segments kept for reuse are bytes of the branch */
    /* restore points follow checkpoints, and WAL from their beginning is replayed */
    {0, "checkpoint_completion_target", "0.2"},
    {14, "recovery_init_sync_method", "syncfs"},
    /* replay begins at a checkpoint, so that a page comes by its image: nothing has to be read */
    {15, "recovery_prefetch", "off"},
    /* the log is read for error messages: in English, on standard error */
    {0, "log_destination", "stderr"},
    {0, "logging_collector", "off"},
    {0, "log_line_prefix", "%m [%p] %q%u@%d "},
    {0, "lc_messages", "C"},
};

static void add_settings(text *t, const setting *list, size_t n, int major) {
    for (size_t i = 0; i < n; i++)
        if (major >= list[i].since) add_setting(t, list[i].name, list[i].value);
}

static int connections_of(int quarters) {
    return quarters > 2 ? 25 * quarters : 50;
}

/* What follows the size; one compute unit is what PostgreSQL has by default. */
static void add_size(text *t, int quarters, bool insists) {
    char number[32];
    int least = quarters > 4 ? quarters : 4;
    if (insists) {
        (void)snprintf(number, sizeof number, "%dMB", 32 * quarters);
        add_setting(t, "shared_buffers", number);
        return;
    }
    (void)snprintf(number, sizeof number, "%dMB", 1024 * quarters);
    add_setting(t, "effective_cache_size", number);
    (void)snprintf(number, sizeof number, "%dMB", least);
    add_setting(t, "work_mem", number);
    (void)snprintf(number, sizeof number, "%dMB", 16 * least);
    add_setting(t, "maintenance_work_mem", number);
    (void)snprintf(number, sizeof number, "%d", connections_of(quarters));
    add_setting(t, "max_connections", number);
}

/*
 * A hot standby of the branch's own compute. It ends where any other compute would recover from a
 * crash of one of its processes: its files are thrown away, and made anew when it starts again. So
 * they need not outlive a crash of the machine either.
 */
static const setting following[] = {
    {0, "hot_standby", "on"},
    {15, "recovery_prefetch", "try"},
    {0, "recovery_target_timeline", "current"},
    /* a slot, so that WAL stays until it is received, which ends with the connection */
    {0, "wal_receiver_create_temp_slot", "on"},
    {0, "wal_receiver_status_interval", "1s"},
    /* rows that are read here are not vacuumed there, as if they were read there; else a query has
     * 30 s until replay goes on without it, as PostgreSQL has it */
    {0, "hot_standby_feedback", "on"},
    {0, "max_standby_streaming_delay", "30s"},
    {0, "max_standby_archive_delay", "30s"},
    {0, "restart_after_crash", "off"},
    {0, "fsync", "off"},
};

static void add_following(text *t, const bough_conf *conf, int quarters) {
    char number[16];
    int own = connections_of(quarters);
    (void)snprintf(number, sizeof number, "%d",
                   own > conf->least_connections ? own : conf->least_connections);
    add_settings(t, following, sizeof following / sizeof *following, conf->major);
    add_setting(t, "max_connections", number);
    add_setting(t, "primary_conninfo", conf->primary);
    add_setting(t, "restore_command", conf->restore);
    /* boughd tells it when there is something to receive again */
    add_setting(t, "wal_retrieve_retry_interval", *conf->primary ? "500ms" : "60s");
}

static void add_sockets(text *t, const bough_conf *conf) {
    text list = {.data = NULL};
    add_string(&list, conf->socket_dir);
    if (conf->handoff_dir) {
        add_string(&list, ",");
        add_string(&list, conf->handoff_dir);
    }
    if (list.failed)
        t->failed = true;
    else
        add_setting(t, "unix_socket_directories", list.data);
    free(list.data);
}

/* The value of wal_keep_size that lets no WAL go. */
#define ALL_WAL "16TB"

static int write_postgresql_conf(const char *pgdata, const bough_conf *conf, bough_error *err) {
    text t = {.data = NULL};
    add_string(&t, "# Written by Bough before every start; changes are lost. Use ALTER DATABASE or "
                   "ALTER ROLE ... SET.\n");
    int quarters = conf->quarters ? conf->quarters : 4;
    add_settings(&t, defaults, sizeof defaults / sizeof *defaults, conf->major);
    add_size(&t, quarters, false);
    char path[BOUGH_PATH_MAX];
    if (!bough_path(path, sizeof path, NULL, "%s/%s", pgdata, carried_name) &&
        access(path, R_OK) == 0)
        add_string(&t, "include = 'bough_carried.conf'\n");
    add_settings(&t, insisted, sizeof insisted / sizeof *insisted, conf->major);
    add_size(&t, quarters, true);
    /* full-page images are most of the WAL of a young branch */
    if (conf->has_lz4) add_setting(&t, "wal_compression", "lz4");
    /* a checkpoint after 32 MiB (HISTORY_POINT_BYTES), or 64 where page images are whole: of
     * segments, as many as go into this over (1 + checkpoint_completion_target) */
    add_setting(&t, "max_wal_size", conf->has_lz4 ? "48MB" : "80MB");
    add_sockets(&t, conf);
    add_setting(&t, "ssl", conf->tls_cert ? "on" : "off");
    if (conf->tls_cert) {
        add_setting(&t, "ssl_cert_file", conf->tls_cert);
        add_setting(&t, "ssl_key_file", conf->tls_key);
    }
    add_setting(&t, "wal_keep_size", conf->hold_wal ? ALL_WAL : conf->is_followed ? "64MB" : "0");
    if (conf->primary) add_following(&t, conf, quarters);
    if (conf->is_read_only) add_setting(&t, "default_transaction_read_only", "on");
    int rc = put(pgdata, "postgresql.conf", &t, false, err);
    free(t.data);
    return rc;
}

static int write_access(const char *pgdata, const bough_conf *conf, bough_error *err) {
    text t = {.data = NULL};
    add_string(&t, conf->is_closed ? "local all " BOUGH_ADMIN_ROLE " scram-sha-256\n"
                                     "local all all reject\n"
                                     "host all all all reject\n"
                                   : "local all " BOUGH_STANDBY_ROLE " reject\n"
                                     "local all all scram-sha-256\n"
                                     "local replication " BOUGH_ADMIN_ROLE " scram-sha-256\n"
                                     "host all " BOUGH_STANDBY_ROLE " all reject\n"
                                     "host all " BOUGH_ADMIN_ROLE " all reject\n"
                                     "host all all all scram-sha-256\n");
    /* not for ever: a fork of the branch has that role, too, with the password that it had */
    if (conf->is_followed && !conf->is_closed)
        add_string(&t, "local replication " BOUGH_STANDBY_ROLE " scram-sha-256\n");
    int rc = put(pgdata, "pg_hba.conf", &t, false, err);
    free(t.data);
    text ident = {.data = NULL};
    add_string(&ident, "# no user of the operating system is mapped to a role\n");
    if (!rc) rc = put(pgdata, "pg_ident.conf", &ident, false, err);
    free(ident.data);
    return rc;
}

int bough_conf_write(const char *pgdata, const bough_conf *conf, bough_error *err) {
    if (strpbrk(conf->socket_dir, ",\"\n\r"))
        return bough_fail(err, BOUGH_E_INVALID,
                          "\"%s\" cannot hold sockets: it has a comma or a quote",
                          conf->socket_dir);
    int rc = write_carried(pgdata, conf, err);
    if (!rc) rc = filter_auto_conf(pgdata, err);
    if (!rc) rc = write_access(pgdata, conf, err);
    if (!rc) rc = write_postgresql_conf(pgdata, conf, err);
    return rc;
}

/* Whether what was written last has that line. */
static bool has_line(const char *pgdata, const char *line) {
    char path[BOUGH_PATH_MAX], *data = NULL;
    size_t size;
    if (bough_path(path, sizeof path, NULL, "%s/postgresql.conf", pgdata) != BOUGH_OK ||
        bough_read_file(&data, &size, path, TEXT_MAX, NULL) != BOUGH_OK)
        return false;
    bool has = strstr(data, line) != NULL;
    free(data);
    return has;
}

bool bough_conf_holds_wal(const char *pgdata) {
    return has_line(pgdata, "\nwal_keep_size = '" ALL_WAL "'\n");
}

bool bough_conf_has_tls(const char *pgdata) {
    return has_line(pgdata, "\nssl = 'on'\n");
}

int bough_conf_rewrite(const char *pgdata, const bough_conf *conf, int postmaster_pid,
                       bough_error *err) {
    int rc = bough_conf_write(pgdata, conf, err);
    if (!rc && kill(postmaster_pid, SIGHUP) != 0 && errno != ESRCH)
        rc = bough_fail_sys(err, errno, "could not signal process %d", postmaster_pid);
    return rc;
}
