/*
 * Handlers: the schema of a database, now or at a moment, and how two differ.
 *
 * A moment, and a branch without an endpoint, are looked at on a branch that is made for it,
 * expires by itself if we do not get to delete it, and is deleted for good.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "model/ids.h"
#include "pg/schemadump.h"
#include "pg/sql.h"
#include "pg/tool.h"
#include "server/access.h"
#include "server/answer.h"
#include "server/api.h"
#include "server/computes.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/inside.h"
#include "server/lifecycle.h"
#include "util/jsontext.h"
#include "util/log.h"

#define LOOK_SECONDS 3600 /* then a branch of a moment expires, if it is still there */
#define DIFF "/usr/bin/diff"

static const char tables_as_json[] =
    "SELECT json_build_object('tables', coalesce(json_agg(json_build_object('schema', nspname,"
    " 'name', relname, 'columns', (SELECT coalesce(json_agg(json_build_object('name', attname,"
    " 'type', format_type(atttypid, atttypmod), 'nullable', NOT attnotnull, 'generated',"
    " attgenerated <> '') ORDER BY attnum), '[]') FROM pg_attribute WHERE attrelid = c.oid AND"
    " attnum > 0 AND NOT attisdropped), 'constraints', (SELECT"
    " coalesce(json_agg(json_strip_nulls(json_build_object('type', CASE contype WHEN 'p' THEN"
    " 'primary_key' WHEN 'u' THEN 'unique' ELSE 'foreign_key' END, 'name', conname, 'columns',"
    " (SELECT json_agg(attname ORDER BY place) FROM unnest(conkey) WITH ORDINALITY AS k(number,"
    " place) JOIN pg_attribute ON attrelid = conrelid AND attnum = number), 'referenced_table',"
    " (SELECT json_build_object('schema', fn.nspname, 'table', f.relname, 'columns', (SELECT"
    " json_agg(attname ORDER BY place) FROM unnest(confkey) WITH ORDINALITY AS k(number, place)"
    " JOIN pg_attribute ON attrelid = confrelid AND attnum = number)) FROM pg_class f JOIN"
    " pg_namespace fn ON fn.oid = f.relnamespace WHERE f.oid = confrelid))) ORDER BY conname),"
    " '[]') FROM pg_constraint WHERE conrelid = c.oid AND contype IN ('p', 'u', 'f')))"
    " ORDER BY nspname, relname), '[]')) FROM pg_class c JOIN pg_namespace n ON n.oid ="
    " relnamespace WHERE relkind IN ('r', 'p') AND nspname <> 'information_schema' AND nspname"
    " !~ '^pg_'";

/* A branch to look at, or one that was made of it. */
typedef struct view {
    bough_branch_row branch;
    bough_endpoint_row endpoint;
    bool is_made;
    char name[BOUGH_NAME_SIZE]; /* of the branch that was asked for */
} view;

static int open_moment(view *v, request *rq, const bough_project_row *project,
                       const bough_target *moment, bough_error *err) {
    char uuid[BOUGH_ID_SIZE], name[BOUGH_ID_SIZE + 16];
    clock_moment now;
    branch_wish wish = {.name = name,
                        .parent = v->branch.id,
                        .moment = *moment,
                        .with_endpoint = true,
                        .ttl_seconds = LOOK_SECONDS};
    bough_branch_row made;
    int rc = bough_ids_uuid(uuid, err);
    if (!rc) rc = clock_begin(&now, rq->srv->clock, err);
    if (rc) return rc;
    (void)snprintf(name, sizeof name, "schema-%s", uuid);
    wish.expires_ms = now.latest_ms + LOOK_SECONDS * 1000;
    rc = flow_branch_create(rq, project, &wish, err);
    json_decref(rq->answer);
    rq->answer = NULL;
    rq->status = 200;
    if (!rc) rc = bough_branches_find(&made, rq->srv->cat, project->id, name, err);
    if (rc) return rc;
    v->branch = made;
    v->is_made = true;
    return bough_endpoints_of_branch(&v->endpoint, rq->srv->cat, made.id, err);
}

static void close_view(view *v, request *rq, const bough_project_row *project) {
    bough_operation_row operation;
    bough_error err;
    bool is_refused;
    if (v->is_made && flow_branch_delete(&is_refused, &operation, rq->srv, project, v->branch.id,
                                         true, &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "a branch of a moment remains until it expires", "branch",
                  v->branch.id, "error", err.message, NULL);
}

static int tick(void *context, pid_t pid) {
    (void)pid;
    return flow_check(context, NULL) != BOUGH_OK;
}

/*
 * Whether what was read was this branch's: its compute ran for this endpoint since then. Only the
 * branch's lock would keep another branch from taking the endpoint, and a dump may take long.
 */
static int check_view(const server *srv, const view *v, int64_t started_ms, bough_error *err) {
    if (started_ms && computes_runs(srv, &v->endpoint) &&
        computes_started_ms(srv, v->branch.id) == started_ms)
        return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_BUSY, "the compute of branch \"%.200s\" was stopped meanwhile",
                     v->branch.name);
    return bough_hint(err, "Try again.");
}

/* `*text` is the schema in SQL, or with `as_json` its tables. */
static int read_view(char **text, view *v, request *rq, int major, bool as_json, bough_error *err) {
    server *srv = rq->srv;
    const char *database = request_query(rq, "db_name");
    bough_sql_place place;
    PGconn *conn = NULL;
    PGresult *result = NULL;
    compute_hold hold;
    bough_database_row row;
    int rc = bough_databases_get(&row, srv->cat, v->branch.id, database, err);
    if (!rc)
        rc = computes_use(srv, &v->branch, &v->endpoint,
                          (compute_cause){"its schema was asked for", false}, err);
    if (rc) return rc;
    int64_t started_ms = computes_started_ms(srv, v->branch.id);
    /* not suspended meanwhile */
    bool is_held = computes_hold(&hold, srv, v->endpoint.id, v->branch.id);
    rc = computes_place(&place, srv, v->endpoint.id, err);
    if (rc) goto out;
    if (as_json) {
        rc = bough_sql_connect(&conn, &place, database, BOUGH_SQL_LONG, err);
        if (!rc) rc = bough_sql_query(&result, conn, tables_as_json, 0, NULL, err);
        if (!rc && !(*text = strdup(PQgetvalue(result, 0, 0))))
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        PQclear(result);
        PQfinish(conn);
    } else {
        bough_schema_source source = {
            .at = &place, .database = database, .major = major, .tick = tick, .context = rq};
        rc = bough_schema_dump(text, &source, err);
    }
    if (!rc) rc = check_view(srv, v, started_ms, err);
out:
    if (is_held) computes_release(srv, v->branch.id);
    return rc;
}

/* Whose schema is asked for, by the names of the query's parameters. */
typedef struct subject {
    const char *branch, *lsn_name, *time_name;
} subject;

static int read_schema(char **text, view *v, request *rq, const subject *s, bool as_json,
                       bough_error *err) {
    bough_project_row project;
    bough_target moment = {0};
    const char *lsn = request_query(rq, s->lsn_name), *time = request_query(rq, s->time_name);
    const char *database = request_query(rq, "db_name");
    memset(v, 0, sizeof *v);
    int rc = api_project_of(&project, rq, err);
    if (!rc) rc = bough_branches_get(&v->branch, rq->srv->cat, project.id, s->branch, err);
    if (!rc && (!database || !*database))
        rc = bough_fail(err, BOUGH_E_INVALID, "\"db_name\" is missing");
    if (!rc) rc = api_read_moment(&moment, lsn, s->lsn_name, time, s->time_name, err);
    if (rc) return rc;
    (void)snprintf(v->name, sizeof v->name, "%s", v->branch.name);
    if (!history_is_wanted(&moment))
        rc = bough_endpoints_of_branch(&v->endpoint, rq->srv->cat, v->branch.id, err);
    if (history_is_wanted(&moment) || rc == BOUGH_E_NOTFOUND) /* or it has no compute */
        rc = open_moment(v, rq, &project, &moment, err);
    if (!rc) rc = read_view(text, v, rq, project.pg_major, as_json, err);
    close_view(v, rq, &project);
    return rc;
}

int api_branch_schema(request *rq, bough_error *err) {
    const char *format = request_query(rq, "format");
    bool as_json = format && strcmp(format, "json") == 0;
    const subject s = {rq->params[1], "lsn", "timestamp"};
    char *text = NULL;
    view v;
    if (format && *format && !as_json && strcmp(format, "sql") != 0)
        return bough_fail(err, BOUGH_E_INVALID, "\"format\" must be sql or json");
    int rc = read_schema(&text, &v, rq, &s, as_json, err);
    if (!rc && as_json) {
        json_t *tables = bough_json_load(text, strlen(text), 0, NULL);
        rq->answer = tables ? json_pack("{s:o}", "json", tables) : NULL;
    } else if (!rc) {
        rq->answer = json_pack("{s:s}", "sql", text);
    }
    if (!rc && !rq->answer)
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED, "the schema holds what is not UTF-8");
    free(text);
    return rc;
}

/* ---- the difference ---- */

typedef struct difference {
    FILE *text;
    request *rq;
    bough_words words;
} difference;

static int take_output(void *context, const char *data, size_t size, bough_error *err) {
    if (fwrite(data, 1, size, ((difference *)context)->text) == size) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

static void take_line(void *context, const char *line) {
    bough_words_take(&((difference *)context)->words, line);
}

static int diff_tick(void *context, pid_t pid) {
    return tick(((difference *)context)->rq, pid);
}

/* Run diff on two files whose labels are the names of branches. */
static int run_diff(char **out, request *rq, const char *const *files, const char *const *labels,
                    bough_error *err) {
    bough_env env;
    size_t size = 0;
    int status = 0;
    difference d = {.rq = rq, .text = open_memstream(out, &size)};
    if (!d.text) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    bough_env_init(&env, "/usr/bin");
    const char *const argv[] = {DIFF,      "-u",     "--label", labels[0], "--label",
                                labels[1], files[0], files[1],  NULL};
    bough_run run = {.argv = argv,
                     .env = &env,
                     .ruleset = -1,
                     .context = &d,
                     .output = take_output,
                     .line = take_line,
                     .tick = diff_tick};
    int rc = bough_run_tool(&status, &run, err);
    if (!rc && (!WIFEXITED(status) || WEXITSTATUS(status) > 1))
        rc = bough_words_fail(&d.words, BOUGH_E_INTERNAL, "diff", status, err);
    if (fclose(d.text) != 0 && !rc) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    return rc;
}

static int compare(char **out, request *rq, char *const *schemas, const view *views,
                   bough_error *err) {
    char dir[BOUGH_PATH_MAX], files[2][BOUGH_PATH_MAX], labels[2][BOUGH_NAME_SIZE + 4];
    char uuid[BOUGH_ID_SIZE];
    const char *const sides = "ab";
    int rc = bough_ids_uuid(uuid, err);
    if (!rc) rc = bough_path(dir, sizeof dir, err, "%s/tmp/diff-%s", rq->srv->store_dir, uuid);
    if (rc) return rc;
    rc = bough_mkdirs(dir, 0700, err);
    for (int i = 0; i < 2 && !rc; i++) {
        (void)snprintf(labels[i], sizeof labels[i], "%c/%s", sides[i], views[i].name);
        rc = bough_path(files[i], sizeof files[i], err, "%s/%c", dir, sides[i]);
        if (!rc) rc = bough_replace_file(files[i], schemas[i], strlen(schemas[i]), 0600, err);
    }
    const char *const names[] = {files[0], files[1]}, *const shown[] = {labels[0], labels[1]};
    if (!rc) rc = run_diff(out, rq, names, shown, err);
    (void)(bough_rmtree(dir, NULL) == BOUGH_OK);
    return rc;
}

int api_branch_compare_schema(request *rq, bough_error *err) {
    char *schemas[2] = {NULL, NULL}, *text = NULL;
    bough_branch_row branch;
    view views[2];
    const char *base = request_query(rq, "base_branch_id");
    int rc = api_branch_of(&branch, rq, err);
    if (!rc) rc = access_branch(rq, base ? base : branch.parent_id, err);
    if (!rc && !base && !*branch.parent_id)
        rc = bough_fail(err, BOUGH_E_INVALID,
                        "\"base_branch_id\" is missing, and the branch has no parent");
    if (rc) return rc;
    const subject from = {base ? base : branch.parent_id, "base_lsn", "base_timestamp"};
    const subject to = {branch.id, "lsn", "timestamp"};
    rc = read_schema(&schemas[0], &views[0], rq, &from, false, err);
    if (!rc) rc = read_schema(&schemas[1], &views[1], rq, &to, false, err);
    if (!rc) rc = compare(&text, rq, schemas, views, err);
    if (!rc && !(rq->answer = json_pack("{s:s}", "diff", text)))
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED, "the schema holds what is not UTF-8");
    free(text);
    free(schemas[0]);
    free(schemas[1]);
    return rc;
}
