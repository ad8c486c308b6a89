/*
 * pg_dump --schema-only as BOUGH_ADMIN_ROLE, who may read whatever the database's roles have made.
 * It is confined as the other tools are. No state.
 */
#include "pg/schemadump.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pg/admin.h"
#include "pg/conf.h"
#include "pg/install.h"
#include "pg/landlock.h"
#include "pg/tool.h"
#include "util/error.h"
#include "util/fs.h"

typedef struct dump {
    const bough_schema_source *source;
    char *text;
    size_t size, room;
    bough_words words;
} dump;

static int take_output(void *context, const char *data, size_t size, bough_error *err) {
    dump *d = context;
    if (d->size + size >= BOUGH_SCHEMA_MAX)
        return bough_fail(err, BOUGH_E_PG, "the schema is larger than %zu bytes", BOUGH_SCHEMA_MAX);
    if (d->size + size + 1 > d->room) {
        size_t room = d->room ? d->room : 65536;
        while (room < d->size + size + 1) room *= 2;
        char *grown = realloc(d->text, room);
        if (!grown) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        d->text = grown;
        d->room = room;
    }
    memcpy(d->text + d->size, data, size);
    d->size += size;
    d->text[d->size] = '\0';
    return BOUGH_OK;
}

static void take_line(void *context, const char *line) {
    bough_words_take(&((dump *)context)->words, line);
}

static int tick(void *context, pid_t pid) {
    const bough_schema_source *source = ((dump *)context)->source;
    return source->tick ? source->tick(source->context, pid) : 0;
}

/*
 * Since August 2025 pg_dump puts its output between two commands of psql with a random word. They
 * mean nothing here, and no two dumps would be the same.
 */
static void drop_random(char *text) {
    char *to = text;
    for (const char *from = text, *next; *from; from = next) {
        next = from + strcspn(from, "\n");
        if (*next) next++;
        if (strncmp(from, "\\restrict ", 10) == 0 || strncmp(from, "\\unrestrict ", 12) == 0)
            continue;
        memmove(to, from, (size_t)(next - from));
        to += next - from;
    }
    *to = '\0';
}

/* dbname='...', so that no name is taken for a connection string. */
static void name_database(char *out, size_t size, const char *database) {
    size_t n = (size_t)snprintf(out, size, "dbname='");
    for (const char *p = database; *p && n + 4 < size; p++) {
        if (*p == '\'' || *p == '\\') out[n++] = '\\';
        out[n++] = *p;
    }
    (void)snprintf(out + n, size - n, "'");
}

/* Confine a tool and tell it where to connect. */
static int prepare(int *ruleset, bough_env *env, char *conninfo, size_t size, const bough_pg *tool,
                   const bough_schema_source *source, bough_error *err) {
    bough_landlock_rules rules = {.bindir = tool->bindir};
    char options[BOUGH_SQL_OPTIONS_SIZE];
    bough_sql_options(options, source->major);
    bough_env_init(env, tool->bindir);
    bough_env_set(env, "PGOPTIONS", options);
    bough_env_set(env, "PGHOST", source->at->socket_dir);
    bough_env_set(env, "PGPORT", "5432");
    bough_env_set(env, "PGCONNECT_TIMEOUT", "10");
    bough_env_set(env, "PGUSER", source->at->user);
    bough_env_set(env, "PGPASSWORD", bough_admin_password());
    bough_env_set(env, "PGPASSFILE", "/nonexistent/.pgpass");
    bough_env_set(env, "PGCLIENTENCODING", "UTF8");
    bough_env_set(env, "PGAPPNAME", "bough schema");
    bough_env_set(env, "HOME", "/nonexistent");
    name_database(conninfo, size, source->database);
    return bough_landlock_prepare(ruleset, &rules, err);
}

/* What of the globals is there already: our own role. Lines of roles' settings stay. */
static void drop_own_role(char *text) {
    static const char create[] = "CREATE ROLE " BOUGH_ADMIN_ROLE ";",
                      alter[] = "ALTER ROLE " BOUGH_ADMIN_ROLE " WITH ";
    char *to = text;
    for (const char *from = text, *next; *from; from = next) {
        next = from + strcspn(from, "\n");
        if (*next) next++;
        if (strncmp(from, create, sizeof create - 1) == 0 ||
            strncmp(from, alter, sizeof alter - 1) == 0)
            continue;
        memmove(to, from, (size_t)(next - from));
        to += next - from;
    }
    *to = '\0';
}

static int dump_with(dump *d, const char *name, const char *const *options, bough_error *err) {
    enum { MOST = 12 };
    bough_pg tool;
    bough_env env;
    char program[BOUGH_PATH_MAX], conninfo[512];
    int ruleset = -1, status = 0;
    int rc = bough_pg_tool(&tool, name, d->source->major, false, err);
    if (!rc) rc = bough_path(program, sizeof program, err, "%s/%s", tool.bindir, name);
    if (!rc) rc = prepare(&ruleset, &env, conninfo, sizeof conninfo, &tool, d->source, err);
    if (!rc) {
        const char *argv[MOST + 5] = {program, "--lock-wait-timeout=10s", "-w", "-d", conninfo};
        for (size_t i = 0; options[i] && i + 6 < MOST + 5; i++) argv[i + 5] = options[i];
        bough_run run = {.argv = argv,
                         .env = &env,
                         .ruleset = ruleset,
                         .context = d,
                         .output = take_output,
                         .line = take_line,
                         .tick = tick};
        rc = bough_run_tool(&status, &run, err);
        if (!rc && status != 0) rc = bough_words_fail(&d->words, BOUGH_E_PG, name, status, err);
    }
    if (!rc && !d->text) rc = bough_fail(err, BOUGH_E_PG, "%s gave nothing", name);
    if (ruleset >= 0) close(ruleset);
    return rc;
}

int bough_schema_dump(char **sql, const bough_schema_source *source, bough_error *err) {
    static const char *const shown[] = {"--schema-only", "--no-subscriptions", NULL},
                             *const create[] = {"--schema-only", "--no-subscriptions",
                                                "--no-tablespaces", "--create", NULL},
                             *const globals[] = {"--globals-only", "--no-tablespaces", NULL};
    dump d = {.source = source};
    int rc = BOUGH_OK;
    *sql = NULL;
    switch (source->what) {
    case BOUGH_SCHEMA_SHOWN:
        rc = dump_with(&d, "pg_dump", shown, err);
        break;
    case BOUGH_SCHEMA_CREATE:
        rc = dump_with(&d, "pg_dump", create, err);
        break;
    case BOUGH_SCHEMA_GLOBALS:
        rc = dump_with(&d, "pg_dumpall", globals, err);
        break;
    }
    if (rc) {
        free(d.text);
        return rc;
    }
    /* what is loaded keeps them: they let psql take no commands of its own from it */
    if (source->what == BOUGH_SCHEMA_SHOWN) drop_random(d.text);
    if (source->what == BOUGH_SCHEMA_GLOBALS) drop_own_role(d.text);
    *sql = d.text;
    return BOUGH_OK;
}

/* ---- loading ---- */

typedef struct load {
    const bough_schema_source *into;
    const char *left;
    bough_words words;
} load;

static ssize_t give(void *context, char *buffer, size_t room, bough_error *err) {
    load *l = context;
    (void)err;
    size_t n = strnlen(l->left, room);
    memcpy(buffer, l->left, n);
    l->left += n;
    return (ssize_t)n;
}

static void take_load_line(void *context, const char *line) {
    bough_words_take(&((load *)context)->words, line);
}

static int load_tick(void *context, pid_t pid) {
    const bough_schema_source *into = ((load *)context)->into;
    return into->tick ? into->tick(into->context, pid) : 0;
}

int bough_schema_load(const char *sql, const bough_schema_source *into, bough_error *err) {
    bough_pg tool;
    bough_env env;
    char program[BOUGH_PATH_MAX], conninfo[512];
    int ruleset = -1, status = 0;
    load l = {.into = into, .left = sql};
    int rc = bough_pg_tool(&tool, "psql", into->major, true, err);
    if (!rc) rc = bough_path(program, sizeof program, err, "%s/psql", tool.bindir);
    if (!rc) rc = prepare(&ruleset, &env, conninfo, sizeof conninfo, &tool, into, err);
    if (!rc) {
        const char *const argv[] = {program, "-X",        "-q", "-w",     "-v", "ON_ERROR_STOP=1",
                                    "-o",    "/dev/null", "-d", conninfo, NULL};
        bough_run run = {.argv = argv,
                         .env = &env,
                         .ruleset = ruleset,
                         .context = &l,
                         .feed = give,
                         .line = take_load_line,
                         .tick = load_tick};
        rc = bough_run_tool(&status, &run, err);
        if (!rc && status != 0)
            rc = bough_words_fail(&l.words, BOUGH_E_PG, "making the schema", status, err);
    }
    if (ruleset >= 0) close(ruleset);
    return rc;
}
