/*
 * PgBouncer makes itself a daemon and writes its own process id; whether that process is ours, its
 * command line tells. It takes clients when its socket can be connected to.
 */
#include "server/pools.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pg/admin.h"
#include "pg/conf.h"
#include "pg/spawn.h"
#include "preload/handoff.h"
#include "server/computes.h"
#include "server/door.h"
#include "server/tls.h"
#include "util/fs.h"
#include "util/log.h"

enum {
    READY_MS = 10000,
    END_MS = 5000,
    POLL_MS = 5,
    PIDFILE_MAX = 64,
    CONFIG_MAX = 8192,
    PIPES_MAX = 8192
};

typedef struct pool_paths {
    char dir[BOUGH_PATH_MAX], config[BOUGH_PATH_MAX], users[BOUGH_PATH_MAX], hba[BOUGH_PATH_MAX],
        pidfile[BOUGH_PATH_MAX], log[BOUGH_PATH_MAX];
} pool_paths;

int pools_dir(char *out, const server *srv, const char *endpoint, bough_error *err) {
    return bough_path(out, BOUGH_PATH_MAX, err, "%s/pools/%s", srv->store_dir, endpoint);
}

int pools_list(bough_id_list *ids, size_t *n, const server *srv, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    size_t room = 0;
    int rc = bough_path(path, sizeof path, err, "%s/pools", srv->store_dir);
    DIR *dir = rc ? NULL : opendir(path);
    *ids = NULL;
    *n = 0;
    for (const struct dirent *d; !rc && dir && (d = readdir(dir));) {
        if (d->d_name[0] == '.' || strlen(d->d_name) >= BOUGH_ID_SIZE) continue;
        if (*n == room) {
            room = room ? room * 2 : 16;
            bough_id_list more = realloc(*ids, room * sizeof **ids);
            if (!more) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
            if (!more) break;
            *ids = more;
        }
        (void)snprintf((*ids)[(*n)++], BOUGH_ID_SIZE, "%s", d->d_name);
    }
    if (dir) closedir(dir);
    if (rc) {
        free(*ids);
        *ids = NULL;
        *n = 0;
    }
    return rc;
}

static int paths_in(pool_paths *p, const char *dir, bough_error *err) {
    static const char *const names[] = {"pgbouncer.ini", "users", "hba", "pid", "log"};
    char *const out[] = {p->config, p->users, p->hba, p->pidfile, p->log};
    int rc = bough_path(p->dir, sizeof p->dir, err, "%s", dir);
    for (size_t i = 0; i < sizeof out / sizeof out[0] && !rc; i++)
        rc = bough_path(out[i], BOUGH_PATH_MAX, err, "%s/%s", dir, names[i]);
    return rc;
}

static int paths_of(pool_paths *p, const server *srv, const char *endpoint, bough_error *err) {
    char dir[BOUGH_PATH_MAX];
    int rc = pools_dir(dir, srv, endpoint, err);
    return rc ? rc : paths_in(p, dir, err);
}

static const char *program(void) {
    static const char *const places[] = {"/usr/sbin/pgbouncer", "/usr/bin/pgbouncer",
                                         "/usr/local/bin/pgbouncer"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (access(places[i], X_OK) == 0) return places[i];
    return NULL;
}

/* ---- the process ---- */

/* Its process id; 0 when it does not run. */
static pid_t pid_of(const pool_paths *p) {
    char path[64], *text = NULL, *line = NULL;
    size_t size = 0;
    if (bough_read_file(&text, &size, p->pidfile, PIDFILE_MAX, NULL) != BOUGH_OK) return 0;
    pid_t pid = (pid_t)atoi(text);
    free(text);
    if (pid <= 1) return 0;
    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    FILE *f = fopen(path, "re");
    bool is_ours = false;
    size_t room = 0;
    while (f && !is_ours && getdelim(&line, &room, '\0', f) > 0)
        is_ours = strcmp(line, p->config) == 0;
    free(line);
    if (f) (void)fclose(f);
    return is_ours ? pid : 0;
}

static bool takes_clients(const pool_paths *p) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if ((size_t)snprintf(name.sun_path, sizeof name.sun_path, "%s/" POOL_SOCKET, p->dir) >=
        sizeof name.sun_path)
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool takes = fd >= 0 && connect(fd, (const struct sockaddr *)&name, sizeof name) == 0;
    if (fd >= 0) close(fd);
    return takes;
}

/* Whether there was one. */
static bool end(const pool_paths *p) {
    pid_t pid = pid_of(p);
    int fd = pid ? pidfd_open(pid, 0) : -1;
    if (fd < 0) return false;
    struct pollfd gone = {.fd = fd, .events = POLLIN};
    if (pid_of(p) == pid) { /* it is still the one that the descriptor is of */
        (void)pidfd_send_signal(fd, SIGTERM, NULL, 0);
        if (poll(&gone, 1, END_MS) == 0) {
            (void)pidfd_send_signal(fd, SIGKILL, NULL, 0);
            (void)poll(&gone, 1, END_MS);
        }
    }
    close(fd);
    return true;
}

bool pools_stop(const server *srv, const char *endpoint) {
    pool_paths p;
    return paths_of(&p, srv, endpoint, NULL) == BOUGH_OK && end(&p);
}

void pools_remove(const char *dir) {
    pool_paths p;
    bough_error err;
    if (paths_in(&p, dir, NULL) == BOUGH_OK) (void)end(&p);
    if (bough_rmtree(dir, &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not remove what a pooler left", "error", err.message,
                  NULL);
}

static int by_number(const void *a, const void *b) {
    unsigned long long x = *(const unsigned long long *)a, y = *(const unsigned long long *)b;
    return (x > y) - (x < y);
}

/* Pipes of which a process has one end. */
static int count_ends(DIR *dir) {
    unsigned long long *pipes = calloc(PIPES_MAX, sizeof *pipes);
    size_t n = 0;
    int ends = 0;
    for (struct dirent *d; pipes && n < PIPES_MAX && (d = readdir(dir));) {
        char target[32] = "";
        if (readlinkat(dirfd(dir), d->d_name, target, sizeof target - 1) > 0 &&
            sscanf(target, "pipe:[%llu]", &pipes[n]) == 1)
            n++;
    }
    if (n > 1) qsort(pipes, n, sizeof *pipes, by_number);
    for (size_t i = 0; i < n; i++)
        ends += (i == 0 || pipes[i - 1] != pipes[i]) && (i + 1 == n || pipes[i + 1] != pipes[i]);
    free(pipes);
    return ends;
}

/* Each client is one end of a pipe (preload/pool.c); of its own pipes, PgBouncer has both. */
int pools_clients(const server *srv, const char *endpoint) {
    pool_paths p;
    char path[64];
    pid_t pid = paths_of(&p, srv, endpoint, NULL) == BOUGH_OK ? pid_of(&p) : 0;
    if (!pid) return 0;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    int n = dir ? count_ends(dir) : 0;
    if (dir) closedir(dir);
    return n;
}

/* ---- starting ---- */

/* The password and the key are hexadecimal digits. */
static int write_users(const pool_paths *p, const bough_sql_place *place, bough_error *err) {
    char text[512];
    int n = snprintf(text, sizeof text, "\"%s\" \"%s\"\n", place->user, bough_admin_password());
    int rc = bough_write_file(p->users, text, (size_t)n, 0600, err);
    explicit_bzero(text, sizeof text);
    return rc;
}

/*
 * The secret of who logs in. For somebody who is not there, or must not log in, one that nobody can
 * know, and that is the same each time, so that it does not tell. It runs as the superuser in a
 * database that is not ours: every name in it is qualified.
 */
#define IS " OPERATOR(pg_catalog.=) "
#define AND_THEN " OPERATOR(pg_catalog.||) "
#define BASE64(bytes) "pg_catalog.encode(" bytes ", 'base64')"
static const char secret_of[] =
    "SELECT $1::pg_catalog.text, coalesce((SELECT rolpassword FROM pg_catalog.pg_authid"
    " WHERE rolname" IS "$1::pg_catalog.text::pg_catalog.name AND rolcanlogin AND NOT rolsuper"
    " AND (rolvaliduntil IS NULL OR rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.now())),"
    " (SELECT 'SCRAM-SHA-256$4096:'" AND_THEN BASE64("pg_catalog.substr(h, 1, 16)") AND_THEN
    "'$'" AND_THEN BASE64("h") AND_THEN "':'" AND_THEN BASE64(
        "h") " FROM (SELECT pg_catalog.sha256(pg_catalog.convert_to(rolpassword" AND_THEN
             "$1::pg_catalog.text, 'UTF8'::pg_catalog.name)) AS h FROM pg_catalog.pg_authid"
             " WHERE rolname" IS "'" BOUGH_ADMIN_ROLE "'::pg_catalog.name) s))";
#undef IS
#undef AND_THEN
#undef BASE64

/*
 * PgBouncer asks the branch itself for the SCRAM secret of who logs in, and logs in there with what
 * the client has proved. Its own role is for that question alone: nobody may log in as it.
 */
static int write_config(const pool_paths *p, const bough_sql_place *place, const tls_files *tls,
                        bool has_tls, bough_error *err) {
    char text[CONFIG_MAX], hba[512];
    int hba_size = snprintf(hba, sizeof hba,
                            "host all \"" BOUGH_ADMIN_ROLE "\" 0.0.0.0/0 reject\n"
                            "host all \"" BOUGH_ADMIN_ROLE "\" ::/0 reject\n"
                            "host all \"%s\" 0.0.0.0/0 reject\n"
                            "host all \"%s\" ::/0 reject\n"
                            "host all all 0.0.0.0/0 scram-sha-256\n"
                            "host all all ::/0 scram-sha-256\n",
                            place->user, place->user);
    int n = snprintf(text, sizeof text,
                     "[databases]\n"
                     "* = host=%s port=5432\n"
                     "[pgbouncer]\n"
                     "listen_addr = 127.0.0.1\n" /* what becomes of it: preload/pool.c */
                     "listen_port = 6432\n"
                     "unix_socket_dir =\n"
                     "auth_type = hba\n"
                     "auth_hba_file = %s\n"
                     "auth_file = %s\n"
                     "auth_user = %s\n"
                     "auth_query = %s\n"
                     "pool_mode = transaction\n"
                     "max_client_conn = 1000\n"
                     "default_pool_size = 20\n"
                     "server_idle_timeout = 60\n"
                     "application_name_add_host = 1\n"
                     "ignore_startup_parameters = extra_float_digits,options\n"
                     "tcp_defer_accept = 1\n" /* it reads at once what boughd has read already */
                     "so_reuseport = 0\n"
                     "pidfile = %s\n"
                     "logfile = %s\n"
                     "log_connections = 0\n"
                     "log_disconnections = 0\n"
                     "log_stats = 0\n"
                     "%s%s%s%s%s",
                     place->socket_dir, p->hba, p->users, place->user, secret_of, p->pidfile,
                     p->log, has_tls ? "client_tls_sslmode = allow\nclient_tls_cert_file = " : "",
                     has_tls ? tls->cert : "", has_tls ? "\nclient_tls_key_file = " : "",
                     has_tls ? tls->key : "", has_tls ? "\n" : "");
    if (n < 0 || (size_t)n >= sizeof text)
        return bough_fail(err, BOUGH_E_INTERNAL, "the configuration of a pooler is too long");
    int rc = bough_write_file(p->hba, hba, (size_t)hba_size, 0600, err);
    return rc ? rc : bough_write_file(p->config, text, (size_t)n, 0600, err);
}

static int exec(const pool_paths *p, const server *srv, bough_error *err) {
    char socket_path[BOUGH_PATH_MAX];
    const char *const argv[] = {program(), "-q", "-d", p->config, NULL};
    bough_env env;
    pid_t pid;
    int pidfd = -1, status = 0;
    if (!argv[0]) {
        (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "PgBouncer is not installed");
        return bough_hint(err, "Install the package pgbouncer; or connect without \"-pooler\".");
    }
    int rc = bough_path(socket_path, sizeof socket_path, err, "%s/" POOL_SOCKET, p->dir);
    if (rc) return rc;
    bough_env_init(&env, "/usr/sbin");
    bough_env_set(&env, "LD_PRELOAD", srv->preload);
    bough_env_set(&env, BOUGH_POOL_ENV, socket_path);
    bough_spawn_spec spec = {.argv = argv,
                             .env = &env,
                             .cwd = p->dir,
                             .in = -1,
                             .out = -1,
                             .err = -1,
                             .keep = {-1, -1},
                             .ruleset = -1};
    rc = bough_spawn(&pid, &pidfd, &spec, err);
    if (rc) return rc;
    close(pidfd);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue; /* it goes on as a daemon */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_INTERNAL, "PgBouncer did not start");
    return bough_hint(err, "See \"%s\".", p->log);
}

static int await_ready(const pool_paths *p, bough_error *err) {
    for (double until = bough_now_ms() + READY_MS; !takes_clients(p);) {
        struct timespec pause = {.tv_nsec = POLL_MS * 1000000};
        if (bough_now_ms() > until) {
            (void)bough_fail(err, BOUGH_E_TIMEOUT, "PgBouncer does not get ready");
            return bough_hint(err, "See \"%s\".", p->log);
        }
        (void)nanosleep(&pause, NULL);
    }
    return BOUGH_OK;
}

int pools_use(server *srv, const char *endpoint, bough_error *err) {
    char id[BOUGH_ID_SIZE + sizeof POOL_SUFFIX];
    pool_paths p;
    tls_files tls;
    door_address address;
    bough_sql_place place;
    int rc = paths_of(&p, srv, endpoint, err);
    if (!rc) rc = computes_place(&place, srv, endpoint, err);
    if (rc) return rc;
    if (pid_of(&p) && takes_clients(&p)) return BOUGH_OK;
    (void)end(&p);
    (void)unlink(p.pidfile);
    (void)snprintf(id, sizeof id, "%s" POOL_SUFFIX, endpoint);
    door_address_of(&address, srv->door, id);
    rc = bough_mkdirs(p.dir, 0700, err);
    if (!rc) rc = tls_files_in(&tls, srv, p.dir, err);
    if (!rc) rc = tls_prepare(&tls, srv, address.name, err);
    if (!rc) rc = write_users(&p, &place, err);
    if (!rc) rc = write_config(&p, &place, &tls, true, err);
    if (!rc) rc = exec(&p, srv, err);
    if (!rc) rc = await_ready(&p, err);
    if (!rc) bough_log(BOUGH_LOG_INFO, "started a pooler", "endpoint", endpoint, NULL);
    return rc;
}
