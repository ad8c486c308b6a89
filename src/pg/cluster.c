/* initdb, and away with what it made. */
#include "pg/cluster.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "pg/admin.h"
#include "pg/conf.h"
#include "pg/orphans.h"
#include "pg/tool.h"
#include "util/error.h"
#include "util/fs.h"

#define END_MS 30000

static void take_line(void *context, const char *line) {
    bough_words_take(context, line);
}

static int run_initdb(bough_words *words, int *status, const bough_pg *pg, const char *pgdata,
                      const char *locale, bough_error *err) {
    char program[BOUGH_PATH_MAX];
    bough_env env;
    int rc = bough_path(program, sizeof program, err, "%s/initdb", pg->bindir);
    if (rc) return rc;
    bough_env_init(&env, pg->bindir);
    const char *argv[] = {program,
                          "-D",
                          pgdata,
                          "-U",
                          BOUGH_ADMIN_ROLE,
                          "--auth-local=reject",
                          "--auth-host=reject",
                          "-k",
                          "-E",
                          "UTF8",
                          locale,
                          "-N",
                          pg->major >= 14 ? "--no-instructions" : NULL,
                          NULL};
    memset(words, 0, sizeof *words);
    bough_run run = {.argv = argv, .env = &env, .ruleset = -1, .context = words, .line = take_line};
    return bough_run_tool(status, &run, err);
}

int bough_cluster_init(const bough_pg *pg, const char *pgdata, bough_error *err) {
    bough_words words;
    int status = 0;
    int rc = run_initdb(&words, &status, pg, pgdata, "--locale=C.UTF-8", err);
    if (!rc && status != 0 && strstr(words.error, "invalid locale"))
        rc = run_initdb(&words, &status, pg, pgdata, "--locale=C", err);
    if (!rc && status != 0) rc = bough_words_fail(&words, BOUGH_E_PG, "initdb", status, err);
    bough_admin_spec admin = {.pg = pg, .pgdata = pgdata, .database = "template1"};
    return rc ? rc : bough_admin_install(&admin, err);
}

int bough_cluster_remove(const char *pgdata, bough_error *err) {
    int rc = bough_orphans_end(pgdata, END_MS, err);
    return rc ? rc : bough_rmtree(pgdata, err);
}
