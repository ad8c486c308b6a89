/*
 * PostgreSQL installations on this machine.
 *
 * A program's version is asked once and remembered as long as the file stays the same (device,
 * inode, time): finding an installation is part of every start of a compute.
 */
#include "pg/install.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pg/spawn.h"
#include "util/error.h"
#include "util/fs.h"

enum { MOST_DIRS = 64, MOST_KNOWN = 64, VERSION_TICKS = 100 };

typedef struct dir_list {
    size_t count;
    char dirs[MOST_DIRS][sizeof((bough_pg *)0)->bindir];
} dir_list;

typedef struct known_version {
    dev_t dev;
    ino_t ino;
    struct timespec changed;
    int major;
    bool has_lz4, has_tls;
    char version[sizeof((bough_pg *)0)->version];
} known_version;

static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static known_version known[MOST_KNOWN];
static size_t known_count;

/* ---- versions ---- */

typedef struct answer {
    char text[256];
    size_t size;
    int ticks;
    const char *about; /* of take_refusal() */
    bool has_refused;
} answer;

static int take_answer(void *context, const char *data, size_t size, bough_error *err) {
    (void)err;
    answer *a = context;
    size_t room = sizeof a->text - 1 - a->size;
    if (size > room) size = room;
    memcpy(a->text + a->size, data, size);
    a->size += size;
    a->text[a->size] = '\0';
    return BOUGH_OK;
}

static int too_long(void *context, pid_t pid) {
    (void)pid;
    return ++((answer *)context)->ticks > VERSION_TICKS;
}

/* "postgres (PostgreSQL) 15.18 (Debian ...)", "... 18beta1" */
static int ask_version(bough_pg *pg, const char *program) {
    answer a = {.size = 0};
    bough_env env;
    bough_env_init(&env, pg->bindir);
    const char *const argv[] = {program, "--version", NULL};
    bough_run run = {.argv = argv,
                     .env = &env,
                     .ruleset = -1,
                     .context = &a,
                     .output = take_answer,
                     .tick = too_long};
    int status;
    if (bough_run_tool(&status, &run, NULL) || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return -1;
    static const char mark[] = "(PostgreSQL) ";
    const char *at = strstr(a.text, mark);
    if (!at) return -1;
    at += sizeof mark - 1;
    size_t n = strcspn(at, " \n");
    if (n == 0 || n >= sizeof pg->version) return -1;
    memcpy(pg->version, at, n);
    pg->version[n] = '\0';
    pg->major = (int)strtol(at, NULL, 10);
    return 0;
}

/* An empty directory, wherever there may be one. */
static bool make_scratch(char *dir, size_t size) {
    static const char *const rooms[] = {"/tmp", "/var/tmp", "/dev/shm"};
    for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
        (void)snprintf(dir, size, "%s/bough-XXXXXX", rooms[i]);
        if (mkdtemp(dir)) return true;
    }
    return false;
}

/* Of standard error: whether postgres has named the setting that it was asked about. It takes none
 * from root, who cannot start it either. */
static void take_refusal(void *context, const char *line) {
    answer *a = context;
    if (strcasestr(line, a->about) || strstr(line, "\"root\" execution")) a->has_refused = true;
}

/* The answer may be another the next time: nobody may remember it. */
static int fail_asking(int rc, const char *program, const char *name, bough_error *err) {
    if (rc)
        rc = bough_context(err, "could not ask \"%s\" whether it takes \"%s\"", program, name);
    else
        rc = bough_fail(err, BOUGH_E_PG, "\"%s\" did not say whether it takes \"%s\"", program,
                        name);
    if (!err || !err->hint[0]) (void)bough_hint(err, "Try again.");
    return rc;
}

/*
 * Whether the server takes a setting. It says so without starting ("-C"); all it wants is a
 * directory with an empty configuration file. Only its own word is an answer, and it is no only
 * where it ended with a status and said of what.
 */
static int takes(bool *has, const bough_pg *pg, const char *program, const char *name,
                 const char *value, bough_error *err) {
    char dir[32], conf[64], setting[64];
    answer a = {.about = name};
    bough_env env;
    int status = -1;
    size_t n = strlen(value);
    if (!make_scratch(dir, sizeof dir))
        return fail_asking(bough_fail_sys(err, errno, "could not create directory \"%s\"", dir),
                           program, name, err);
    (void)snprintf(conf, sizeof conf, "%s/postgresql.conf", dir);
    (void)snprintf(setting, sizeof setting, "%s=%s", name, value);
    bough_env_init(&env, pg->bindir);
    const char *const argv[] = {program, "-D", dir, "-c", setting, "-C", name, NULL};
    bough_run run = {.argv = argv,
                     .env = &env,
                     .ruleset = -1,
                     .context = &a,
                     .output = take_answer,
                     .line = take_refusal,
                     .tick = too_long};
    int rc = bough_write_file(conf, "", 0, 0600, err);
    if (!rc) rc = bough_run_tool(&status, &run, err);
    if (rc == BOUGH_E_CANCELLED) rc = bough_fail(err, BOUGH_E_TIMEOUT, "it does not answer");
    bough_ignore(bough_rmtree(dir, NULL));
    bool has_ended = !rc && WIFEXITED(status);
    *has = has_ended && WEXITSTATUS(status) == 0 && strncmp(a.text, value, n) == 0;
    bool has_refused = has_ended && WEXITSTATUS(status) != 0 && a.has_refused;
    return *has || has_refused ? BOUGH_OK : fail_asking(rc, program, name, err);
}

static bool same_file(const known_version *k, const struct stat *st) {
    return k->dev == st->st_dev && k->ino == st->st_ino &&
           k->changed.tv_sec == st->st_ctim.tv_sec && k->changed.tv_nsec == st->st_ctim.tv_nsec;
}

/*
 * Fill in pg->major and pg->version from pg->bindir/name, and what it was built with.
 *
 * @retval BOUGH_E_NOTFOUND  It is no such program; `err` is not set.
 * @return Or why it could not be asked what it was built with; the version is filled in.
 */
static int version_of(bough_pg *pg, const char *name, bough_error *err) {
    char program[BOUGH_PATH_MAX];
    struct stat st;
    if (bough_path(program, sizeof program, NULL, "%s/%s", pg->bindir, name))
        return BOUGH_E_NOTFOUND;
    if (stat(program, &st) != 0 || !S_ISREG(st.st_mode) || access(program, X_OK) != 0)
        return BOUGH_E_NOTFOUND;
    pthread_mutex_lock(&known_lock);
    for (size_t i = 0; i < known_count; i++)
        if (same_file(&known[i], &st)) {
            pg->major = known[i].major;
            pg->has_lz4 = known[i].has_lz4;
            pg->has_tls = known[i].has_tls;
            memcpy(pg->version, known[i].version, sizeof pg->version);
            pthread_mutex_unlock(&known_lock);
            return BOUGH_OK;
        }
    pthread_mutex_unlock(&known_lock);
    if (ask_version(pg, program) != 0) return BOUGH_E_NOTFOUND;
    bool is_server = strcmp(name, "postgres") == 0;
    int rc = BOUGH_OK;
    if (is_server && pg->major >= 15)
        rc = takes(&pg->has_lz4, pg, program, "wal_compression", "lz4", err);
    if (!rc && is_server) rc = takes(&pg->has_tls, pg, program, "ssl", "on", err);
    if (rc) return rc;
    pthread_mutex_lock(&known_lock);
    if (known_count < MOST_KNOWN) {
        known_version *k = &known[known_count++];
        *k = (known_version){.dev = st.st_dev,
                             .ino = st.st_ino,
                             .changed = st.st_ctim,
                             .major = pg->major,
                             .has_lz4 = pg->has_lz4,
                             .has_tls = pg->has_tls};
        memcpy(k->version, pg->version, sizeof k->version);
    }
    pthread_mutex_unlock(&known_lock);
    return BOUGH_OK;
}

/* ---- where to look ---- */

static void add_dir(dir_list *list, const char *dir) {
    char real[BOUGH_PATH_MAX];
    if (list->count == MOST_DIRS || !*dir || !realpath(dir, real)) return;
    if (strlen(real) >= sizeof list->dirs[0]) return;
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->dirs[i], real) == 0) return;
    (void)snprintf(list->dirs[list->count++], sizeof list->dirs[0], "%s", real);
}

static void add_colon_list(dir_list *list, const char *paths) {
    while (paths && *paths) {
        char dir[BOUGH_PATH_MAX];
        size_t n = strcspn(paths, ":");
        if (n < sizeof dir) {
            memcpy(dir, paths, n);
            dir[n] = '\0';
            add_dir(list, dir);
        }
        paths += n;
        if (*paths == ':') paths++;
    }
}

static dir_list *find_dirs(void) {
    dir_list *list = calloc(1, sizeof *list);
    if (!list) return NULL;
    add_colon_list(list, getenv("BOUGH_PG_PATH"));
    for (int major = BOUGH_PG_NEWEST; major >= BOUGH_PG_OLDEST; major--) {
        char dir[64];
        (void)snprintf(dir, sizeof dir, "/usr/lib/postgresql/%d/bin", major);
        add_dir(list, dir);
        (void)snprintf(dir, sizeof dir, "/usr/pgsql-%d/bin", major);
        add_dir(list, dir);
    }
    add_dir(list, "/usr/local/pgsql/bin");
    add_colon_list(list, getenv("PATH"));
    return list;
}

static bool has_program(const char *dir, const char *name) {
    char path[BOUGH_PATH_MAX];
    return !bough_path(path, sizeof path, NULL, "%s/%s", dir, name) && access(path, X_OK) == 0;
}

/* `rc` is BOUGH_OK, or why it is not known what this one was built with. */
static bool is_server(bough_pg *pg, int *rc, const char *dir, bough_error *err) {
    memset(pg, 0, sizeof *pg);
    (void)snprintf(pg->bindir, sizeof pg->bindir, "%s", dir);
    *rc = has_program(dir, "initdb") ? version_of(pg, "postgres", err) : BOUGH_E_NOTFOUND;
    if (*rc == BOUGH_E_NOTFOUND) return false;
    pg->has_tools = has_program(dir, "psql") && has_program(dir, "pg_restore") &&
                    has_program(dir, "pg_basebackup");
    return pg->major >= BOUGH_PG_OLDEST && pg->major <= BOUGH_PG_NEWEST;
}

/* ---- interface ---- */

/* Whether two directories lead to one postgres, by links. */
static bool same_server(const bough_pg *a, const bough_pg *b) {
    char one[BOUGH_PATH_MAX], other[BOUGH_PATH_MAX];
    struct stat st, st2;
    return !bough_path(one, sizeof one, NULL, "%s/postgres", a->bindir) &&
           !bough_path(other, sizeof other, NULL, "%s/postgres", b->bindir) &&
           stat(one, &st) == 0 && stat(other, &st2) == 0 && st.st_dev == st2.st_dev &&
           st.st_ino == st2.st_ino;
}

size_t bough_pg_list(bough_pg *list, size_t room) {
    dir_list *dirs = find_dirs();
    size_t count = 0;
    for (size_t i = 0; dirs && i < dirs->count && count < room; i++) {
        bough_pg pg;
        int rc;
        if (!is_server(&pg, &rc, dirs->dirs[i], NULL)) continue;
        bool listed = false;
        for (size_t k = 0; k < count && !listed; k++) listed = same_server(&list[k], &pg);
        if (listed) continue;
        size_t at = count++;
        for (; at > 0 && list[at - 1].major < pg.major; at--) list[at] = list[at - 1];
        list[at] = pg;
    }
    free(dirs);
    return count;
}

int bough_pg_find(bough_pg *pg, int major, bough_error *err) {
    if (major != 0 && (major < BOUGH_PG_OLDEST || major > BOUGH_PG_NEWEST)) {
        (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "PostgreSQL %d is not supported", major);
        (void)bough_hint(err, "Use a version from %d to %d.", BOUGH_PG_OLDEST, BOUGH_PG_NEWEST);
        return BOUGH_E_UNSUPPORTED;
    }
    dir_list *dirs = find_dirs();
    if (!dirs) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    bough_pg best = {.major = 0};
    int rc = BOUGH_OK;
    for (size_t i = 0; i < dirs->count; i++) {
        bough_pg found;
        bough_error why = {0};
        int asked;
        if (!is_server(&found, &asked, dirs->dirs[i], &why) || found.major <= best.major) continue;
        if (major && found.major != major) continue;
        best = found;
        rc = asked;
        if (rc && err) *err = why;
        if (major) break;
    }
    free(dirs);
    if (rc) return rc;
    if (best.major) {
        *pg = best;
        return BOUGH_OK;
    }
    if (major)
        (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "PostgreSQL %d is not installed", major);
    else
        (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "PostgreSQL is not installed");
    (void)bough_hint(
        err, "Install the package postgresql-%d, or name its bin directory in BOUGH_PG_PATH.",
        major ? major : BOUGH_PG_NEWEST);
    return BOUGH_E_UNSUPPORTED;
}

/* Smaller is better; -1: unfit. */
static int distance(int have, int want, bool older_too) {
    if (have >= want) return have - want;
    return older_too ? 1000 + want - have : -1;
}

int bough_pg_tool(bough_pg *tool, const char *name, int major, bool older_too, bough_error *err) {
    dir_list *dirs = find_dirs();
    if (!dirs) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int best = -1;
    for (size_t i = 0; i < dirs->count && best != 0; i++) {
        bough_pg found = {.major = 0};
        (void)snprintf(found.bindir, sizeof found.bindir, "%s", dirs->dirs[i]);
        if (version_of(&found, name, NULL) != BOUGH_OK) continue;
        int d = distance(found.major, major, older_too);
        if (d < 0 || (best >= 0 && d >= best)) continue;
        best = d;
        *tool = found;
    }
    free(dirs);
    if (best >= 0) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "\"%s\" of PostgreSQL %d or newer is not installed",
                     name, major);
    (void)bough_hint(err, "Install the package postgresql-client-%d.", major);
    return BOUGH_E_UNSUPPORTED;
}
