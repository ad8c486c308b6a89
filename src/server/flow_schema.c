/*
 * Branches with a schema and no rows.
 *
 * Such a branch must not stand on its source's layers, for these hold the rows. It begins with what
 * initdb makes; roles and the schema of each database are read by pg_dump from a look at the
 * source, which nobody else uses, so that all of it is of one moment. Nothing of the branch is in
 * the catalogue before it is complete; the look goes by itself where we do not get to remove it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "model/ids.h"
#include "pg/conf.h"
#include "pg/schemadump.h"
#include "pg/sql.h"
#include "server/answer.h"
#include "server/computes.h"
#include "server/flows.h"
#include "server/inside.h"
#include "server/lifecycle.h"
#include "util/log.h"
#include "util/crashpoint.h"

typedef struct making {
    request *rq;
    server *srv;
    const bough_project_row *project;
    const branch_wish *wish;
    bough_pg pg;
    bough_branch_row look, branch;
    bough_endpoint_row look_endpoint, endpoint;
    bough_operation_row operations[2];
    bool has_look, has_files, is_existing;
} making;

static int tick(void *context, pid_t pid) {
    (void)pid;
    return flow_check(context, NULL) != BOUGH_OK;
}

/* ---- the look ---- */

static int open_look(making *m, bough_error *err) {
    char uuid[BOUGH_ID_SIZE], name[BOUGH_ID_SIZE + 16];
    clock_moment now;
    request *rq = m->rq;
    branch_wish wish = {.name = name,
                        .parent = m->wish->parent,
                        .moment = m->wish->moment,
                        .with_endpoint = true,
                        .is_look = true,
                        .ttl_seconds = BOUGH_LOOK_SECONDS};
    int rc = bough_ids_uuid(uuid, err);
    if (!rc) rc = clock_begin(&now, m->srv->clock, err);
    if (rc) return rc;
    (void)snprintf(name, sizeof name, "tmp-look-%s", uuid);
    wish.expires_ms = now.latest_ms + (int64_t)BOUGH_LOOK_SECONDS * 1000;
    rc = flow_branch_create(rq, m->project, &wish, err);
    json_decref(rq->answer);
    rq->answer = NULL;
    if (!rc) rc = bough_branches_find(&m->look, m->srv->cat, m->project->id, name, err);
    m->has_look = rc == BOUGH_OK;
    return rc ? rc : bough_endpoints_of_branch(&m->look_endpoint, m->srv->cat, m->look.id, err);
}

static void close_look(making *m) {
    bough_operation_row operation;
    bough_error err;
    bool is_refused;
    if (m->has_look && flow_branch_delete(&is_refused, &operation, m->srv, m->project, m->look.id,
                                          true, &err) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "a look remains until it expires", "branch", m->look.id, "error",
                  err.message, NULL);
}

/* ---- the schema ---- */

static int copy(making *m, const bough_sql_place *from, const bough_sql_place *into,
                const char *database, bough_schema_part what, bough_error *err) {
    char *sql;
    bough_schema_source source = {.at = from,
                                  .database = database,
                                  .major = m->pg.major,
                                  .what = what,
                                  .tick = tick,
                                  .context = m->rq};
    int rc = bough_schema_dump(&sql, &source, err);
    if (rc) return rc;
    source.at = into;
    source.database = "template1"; /* what is run connects to where it belongs */
    rc = bough_schema_load(sql, &source, err);
    explicit_bzero(sql, strlen(sql)); /* roles have their passwords' verifiers in it */
    free(sql);
    return rc;
}

/*
 * The database that initdb makes goes: it would lack what belongs to a database itself, as its
 * owner and its settings, and the source need not have one of that name.
 */
static int clear(const bough_sql_place *into, bough_error *err) {
    PGconn *conn = NULL;
    int rc = bough_sql_connect(&conn, into, "template1", BOUGH_SQL_LONG, err);
    if (!rc) rc = bough_sql_exec(conn, "DROP DATABASE IF EXISTS postgres WITH (FORCE)", err);
    PQfinish(conn);
    return rc;
}

static int copy_all(making *m, bough_error *err) {
    bough_sql_place from, into;
    PGconn *conn = NULL;
    PGresult *names = NULL;
    int rc = computes_place(&from, m->srv, m->look_endpoint.id, err);
    if (!rc) rc = computes_place(&into, m->srv, m->endpoint.id, err);
    if (!rc) rc = inside_connect(&conn, m->srv, m->look_endpoint.id, NULL, BOUGH_SQL_BRIEF, err);
    if (!rc)
        rc = bough_sql_query(&names, conn,
                             "SELECT datname FROM pg_database WHERE datallowconn AND NOT"
                             " datistemplate ORDER BY datname",
                             0, NULL, err);
    PQfinish(conn);
    if (!rc) rc = clear(&into, err);
    if (!rc) rc = copy(m, &from, &into, "template1", BOUGH_SCHEMA_GLOBALS, err);
    for (int i = 0; !rc && i < PQntuples(names); i++) {
        rc = copy(m, &from, &into, PQgetvalue(names, i, 0), BOUGH_SCHEMA_CREATE, err);
        if (rc) (void)bough_context(err, "database \"%s\"", PQgetvalue(names, i, 0));
    }
    PQclear(names);
    return rc;
}

/* ---- the branch ---- */

static int init_rows(making *m, bough_error *err) {
    const branch_wish *w = m->wish;
    bough_branch_row *b = &m->branch;
    bough_endpoint_row *e = &m->endpoint;
    int rc = bough_ids_new(b->id, m->srv->cat, "br-", err);
    if (!rc) rc = bough_ids_new(e->id, m->srv->cat, "ep-", err);
    b->created_ms = b->updated_ms = e->created_ms = e->updated_ms = bough_now_epoch_ms();
    (void)snprintf(b->project_id, sizeof b->project_id, "%s", m->project->id);
    (void)snprintf(b->name, sizeof b->name, "%s", w->name);
    (void)snprintf(b->state, sizeof b->state, "ready");
    (void)snprintf(b->schema_of, sizeof b->schema_of, "%s %s %lld", w->parent,
                   w->moment.lsn ? BOUGH_LSN_TEXT(w->moment.lsn) : "-",
                   (long long)w->moment.time_us);
    b->is_protected = w->is_protected;
    b->expires_ms = w->expires_ms;
    b->ttl_seconds = w->ttl_seconds;
    b->expiry_cascades = w->expiry_cascades;
    (void)snprintf(e->project_id, sizeof e->project_id, "%s", m->project->id);
    (void)snprintf(e->branch_id, sizeof e->branch_id, "%s", b->id);
    e->suspend_timeout_seconds = w->suspend_timeout_seconds;
    flow_endpoint_size(e, m->project, w);
    return rc;
}

/* In the transaction. */
static int insert_rows(making *m, bough_error *err) {
    bough_catalogue *cat = m->srv->cat;
    bough_project_row project;
    size_t n = m->wish->with_endpoint ? 2 : 1;
    /* no lock of ours keeps it */
    int rc = bough_projects_get(&project, cat, m->project->id, err);
    if (!rc) rc = bough_branches_insert(cat, &m->branch, err);
    if (!rc && n == 2) rc = bough_endpoints_insert(cat, &m->endpoint, err);
    if (!rc) rc = bough_branches_copy_contents(cat, m->look.id, m->branch.id, err);
    if (!rc && m->wish->annotation)
        rc = bough_annotations_insert(cat, m->branch.id, m->wish->annotation, err);
    for (size_t i = 0; i < n && !rc; i++) rc = bough_operations_insert(cat, &m->operations[i], err);
    return rc;
}

static int commit(making *m, bough_error *err) {
    double received_ms = m->rq->received_ms;
    int rc = flow_operation(&m->operations[0], "apply_schema_from_branch", m->project->id,
                            m->branch.id, NULL, received_ms, err);
    if (!rc)
        rc = flow_operation(&m->operations[1], "start_compute", m->project->id, m->branch.id,
                            m->endpoint.id, received_ms, err);
    if (!rc) rc = flow_check(m->rq, err);
    if (!rc) rc = bough_catalogue_begin(m->srv->cat, err);
    if (!rc) rc = bough_catalogue_end(m->srv->cat, insert_rows(m, err), err);
    if (rc == BOUGH_E_CONFLICT) m->rq->slug = "BRANCH_ALREADY_EXISTS";
    return rc;
}

/* Look whether the name is there: the same branch again, or a conflict. */
static int find_existing(making *m, bough_error *err) {
    bough_branch_row found;
    const branch_wish *w = m->wish;
    int rc = bough_branches_find(&found, m->srv->cat, m->project->id, w->name, err);
    if (rc == BOUGH_E_NOTFOUND) {
        bough_error_clear(err);
        return BOUGH_OK;
    }
    if (rc) return rc;
    /* restored since, it has what it was restored to */
    m->is_existing = w->if_exists_return && !found.has_origin &&
                     strcmp(found.schema_of, m->branch.schema_of) == 0;
    if (m->is_existing) {
        m->branch = found;
        return BOUGH_OK;
    }
    m->rq->slug = "BRANCH_ALREADY_EXISTS";
    rc = bough_branches_fail_taken(w->name, err);
    if (w->if_exists_return)
        (void)bough_hint(
            err, *found.schema_of
                     ? "It was restored since, or its schema is of another branch or moment."
                     : "It has rows, or a former version made it.");
    return rc;
}

/* (locked) Its compute runs, in which the schema is made. */
static int make_locked(making *m, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX], socket_dir[BOUGH_PATH_MAX], **carried = NULL;
    server *srv = m->srv;
    int rc = bough_store_pgdata(pgdata, srv->store, m->look.id, err);
    if (!rc) rc = flow_carried(&carried, pgdata, err);
    if (!rc)
        rc = computes_begin(srv, &m->branch, &m->endpoint, m->pg.major,
                            (const char *const *)carried, err);
    flow_free_carried(carried);
    if (!rc) rc = computes_wait(srv, m->branch.id, "the branch was created", err);
    if (!rc) rc = copy_all(m, err);
    BOUGH_POINT(rc, "schema.copied");
    if (!rc && !m->wish->with_endpoint) {
        rc = computes_stop(srv, m->branch.id, false, "it was asked for without one", err);
        if (!rc) rc = computes_socket_dir(socket_dir, srv, m->endpoint.id, err);
        if (!rc) rc = bough_rmtree(socket_dir, err);
    }
    if (!rc) rc = commit(m, err);
    BOUGH_POINT(rc, "schema.committed");
    return rc;
}

static int answer(making *m, bough_error *err) {
    server *srv = m->srv;
    bool has_endpoint = m->is_existing ? *m->endpoint.id != '\0' : m->wish->with_endpoint;
    size_t n = m->is_existing ? 0 : m->wish->with_endpoint ? 2 : 1;
    json_t *databases = NULL, *roles = NULL, *uris = NULL, *endpoints = json_array();
    if (has_endpoint) answer_append(endpoints, answer_endpoint(srv, &m->endpoint));
    int rc = answer_contents(&databases, &roles, srv, m->branch.id, err);
    if (!rc && has_endpoint) rc = answer_connections(&uris, srv, m->branch.id, m->endpoint.id, err);
    m->rq->status = m->is_existing ? 200 : 201;
    if (!rc)
        m->rq->answer =
            json_pack("{s:o,s:O,s:O,s:O,s:o,s:O*,s:b}", "branch",
                      answer_branch(srv, &m->branch, false), "endpoints", endpoints, "databases",
                      databases, "roles", roles, "operations", answer_operations(m->operations, n),
                      "connection_uris", uris, "existing", m->is_existing);
    json_decref(databases);
    json_decref(roles);
    json_decref(uris);
    json_decref(endpoints);
    return rc;
}

/* One that is there is given back awake. */
static int wake_existing(making *m, bough_error *err) {
    const compute_cause cause = {"the branch was asked for again", false};
    int rc = bough_endpoints_of_branch(&m->endpoint, m->srv->cat, m->branch.id, err);
    if (!rc) rc = computes_use(m->srv, &m->branch, &m->endpoint, cause, err);
    if (rc != BOUGH_E_NOTFOUND) return rc;
    bough_error_clear(err);
    m->endpoint.id[0] = '\0';
    return BOUGH_OK;
}

/* With a look at the source, which is gone afterwards. */
static int make(making *m, bough_error *err) {
    char name_lock[BOUGH_NAME_SIZE + BOUGH_ID_SIZE + 16], own[BOUGH_ID_SIZE];
    server *srv = m->srv;
    compute_hold hold;
    int rc = bough_pg_find(&m->pg, m->project->pg_major, err);
    if (!rc) rc = open_look(m, err);
    bool is_held = !rc && computes_hold(&hold, srv, NULL, m->look.id);
    if (!rc) rc = flow_fork_template(m->rq, &m->pg, m->branch.id, err);
    m->has_files = rc == BOUGH_OK;
    memcpy(own, m->branch.id, sizeof own);
    (void)snprintf(name_lock, sizeof name_lock, "branch-name:%s/%s", m->project->id, m->wish->name);
    const char *const names[] = {name_lock, own};
    if (!rc) rc = locks_take(srv->locks, names, 2, LOCK_WAIT_MS, err);
    if (!rc) {
        rc = find_existing(m, err); /* it may have been made meanwhile */
        if (!rc && !m->is_existing) rc = make_locked(m, err);
        if (rc || m->is_existing) flow_remove_files(srv, own, m->endpoint.id);
        m->has_files = false;
        locks_drop(srv->locks, names, 2);
    }
    if (m->has_files) flow_remove_files(srv, own, m->endpoint.id);
    if (is_held) computes_release(srv, m->look.id);
    close_look(m);
    return rc;
}

int flow_schema_branch_create(request *rq, const bough_project_row *project,
                              const branch_wish *wish, bough_error *err) {
    making *m = calloc(1, sizeof *m);
    if (!m) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *m = (making){.rq = rq, .srv = rq->srv, .project = project, .wish = wish};
    int rc = init_rows(m, err);
    if (!rc) rc = find_existing(m, err);
    if (!rc && !m->is_existing) rc = make(m, err);
    if (!rc && m->is_existing) rc = wake_existing(m, err);
    if (!rc) rc = answer(m, err);
    if (!rc && !m->is_existing && m->branch.expires_ms) lifecycle_wake(rq->srv);
    if (!rc && !m->is_existing)
        bough_log(BOUGH_LOG_INFO, "branch created with a schema alone", "branch", m->branch.id,
                  "parent", wish->parent, "request", rq->id, NULL);
    free(m);
    return rc;
}
