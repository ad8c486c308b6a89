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

int bough_schema_dump(char **sql, const bough_schema_source *source, bough_error *err) {
    bough_pg tool;
    bough_env env;
    char program[BOUGH_PATH_MAX], conninfo[512];
    int ruleset = -1, status = 0;
    dump d = {.source = source};
    *sql = NULL;
    int rc = bough_pg_tool(&tool, "pg_dump", source->major, false, err);
    if (!rc) rc = bough_path(program, sizeof program, err, "%s/pg_dump", tool.bindir);
    if (!rc) {
        bough_landlock_rules rules = {.bindir = tool.bindir};
        rc = bough_landlock_prepare(&ruleset, &rules, err);
    }
    if (!rc) {
        bough_env_init(&env, tool.bindir);
        bough_env_set(&env, "PGHOST", source->socket_dir);
        bough_env_set(&env, "PGPORT", "5432");
        bough_env_set(&env, "PGUSER", BOUGH_ADMIN_ROLE);
        bough_env_set(&env, "PGPASSWORD", bough_admin_password());
        bough_env_set(&env, "PGPASSFILE", "/nonexistent/.pgpass");
        bough_env_set(&env, "PGCLIENTENCODING", "UTF8");
        bough_env_set(&env, "PGAPPNAME", "bough schema");
        bough_env_set(&env, "HOME", "/nonexistent");
        name_database(conninfo, sizeof conninfo, source->database);
        const char *const argv[] = {program,
                                    "--schema-only",
                                    "--lock-wait-timeout=10s",
                                    "--no-subscriptions",
                                    "-w",
                                    "-d",
                                    conninfo,
                                    NULL};
        bough_run run = {.argv = argv,
                         .env = &env,
                         .ruleset = ruleset,
                         .context = &d,
                         .output = take_output,
                         .line = take_line,
                         .tick = tick};
        rc = bough_run_tool(&status, &run, err);
        if (!rc && status != 0) rc = bough_words_fail(&d.words, BOUGH_E_PG, "pg_dump", status, err);
    }
    if (!rc && !d.text) rc = bough_fail(err, BOUGH_E_PG, "pg_dump gave nothing");
    if (ruleset >= 0) close(ruleset);
    if (rc) {
        free(d.text);
        return rc;
    }
    drop_random(d.text);
    *sql = d.text;
    return BOUGH_OK;
}
