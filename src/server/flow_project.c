/*
 * Projects: making them empty, from a running server or from a dump, and deleting them.
 *
 * Nothing is in the catalogue until everything works; what fails before is removed again.
 */
#include "server/flows.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "model/ids.h"
#include "pg/cluster.h"
#include "server/answer.h"
#include "server/computes.h"
#include "server/inside.h"
#include "server/standbys.h"
#include "util/log.h"
#include "util/crashpoint.h"

/** How long one waits for another project of that name: an empty one is made meanwhile, or a
 * cancelled one undone. */
#define NAME_WAIT_MS 3000

typedef struct making {
    request *rq;
    server *srv;
    const project_wish *wish;
    bough_source_kind kind;
    bough_pg pg;
    bough_source_info info;
    bough_project_row project;
    bough_branch_row branch;
    bough_endpoint_row endpoint;
    bough_operation_row operations[2];
    inside_contents contents;
    char password[BOUGH_PASSWORD_SIZE];
    char workdir[BOUGH_PATH_MAX];
    bool has_workdir, has_files;
} making;

/* ---- the files ---- */

static int make_template(server *srv, const bough_pg *pg, const char *id, bough_error *err) {
    char workdir[BOUGH_PATH_MAX];
    int rc = bough_path(workdir, sizeof workdir, err, "%s/tmp/%s", srv->store_dir, id);
    if (!rc) rc = bough_cluster_remove(workdir, err);
    if (!rc) rc = bough_cluster_init(pg, workdir, err);
    BOUGH_POINT(rc, "template.initialised");
    if (!rc) rc = bough_store_adopt(srv->store, id, workdir, err);
    if (rc) bough_ignore(bough_cluster_remove(workdir, NULL));
    return rc;
}

int flow_fork_template(request *rq, const bough_pg *pg, const char *branch, bough_error *err) {
    char id[BOUGH_ID_SIZE];
    server *srv = rq->srv;
    bough_fork_result forked;
    int n = snprintf(id, sizeof id, "pg%d-%.30s", pg->major, pg->version);
    for (int i = 0; i < n && id[i]; i++)
        id[i] = isalnum((unsigned char)id[i]) ? (char)tolower((unsigned char)id[i]) : '-';
    const char *const locks[] = {id, branch};
    int rc = locks_take(srv->locks, locks, 2, LOCK_WAIT_MS, err);
    if (rc) return rc;
    if (!bough_store_has_branch(srv->store, id)) {
        (void)flow_progress(rq, "initdb", 0, 0);
        rc = make_template(srv, pg, id, err);
        BOUGH_POINT(rc, "template.adopted");
    }
    if (!rc) rc = bough_templates_insert(srv->cat, id, err);
    BOUGH_POINT(rc, "template.recorded");
    if (!rc) rc = bough_store_fork(&forked, srv->store, id, branch, NULL, err);
    locks_drop(srv->locks, locks, 2);
    return rc;
}

static int fork_template(making *m, bough_error *err) {
    int rc = flow_fork_template(m->rq, &m->pg, m->branch.id, err);
    m->has_files = rc == BOUGH_OK;
    return rc;
}

static int import(making *m, bough_error *err) {
    int rc = bough_path(m->workdir, sizeof m->workdir, err, "%s/tmp/%s", m->srv->store_dir,
                        m->branch.id);
    if (rc) return rc;
    m->has_workdir = true;
    rc = bough_cluster_import(&m->pg, m->wish->source, m->workdir, flow_progress, m->rq, err);
    BOUGH_POINT(rc, "import.copied");
    if (rc) return rc;
    (void)flow_progress(m->rq, "sealing", 0, 0);
    m->has_files = true;
    return bough_store_adopt(m->srv->store, m->branch.id, m->workdir, err);
}

/* ---- inside ---- */

static int settle_tick(void *context) {
    return flow_progress(context, "starting", 0, 0);
}

static int seal_role(bough_role_row *row, making *m, const char *name, bough_error *err) {
    return flow_role(row, m->srv, m->branch.id, name, m->password, err);
}

/* The role that users get: as wished, else DATABASE_owner, cut between characters where that is too
 * long. */
static void owner_name(char *role, const project_wish *wish, const char *database) {
    int n = (int)strnlen(database, BOUGH_PG_NAME_SIZE - sizeof "_owner");
    while (n > 0 && (database[n] & 0xc0) == 0x80) n--;
    if (wish->role)
        (void)snprintf(role, BOUGH_PG_NAME_SIZE, "%s", wish->role);
    else
        (void)snprintf(role, BOUGH_PG_NAME_SIZE, "%.*s_owner", n, database);
}

/* Role and database of an empty project or for a dump. */
static int furnish(making *m, bough_error *err) {
    const project_wish *w = m->wish;
    char role[BOUGH_PG_NAME_SIZE];
    inside_contents *c = &m->contents;
    owner_name(role, w, w->database);
    c->databases = calloc(1, sizeof *c->databases);
    c->roles = calloc(1, sizeof *c->roles);
    if (!c->databases || !c->roles) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = bough_secret_password(m->password, err);
    if (!rc) rc = inside_create_role(m->srv, m->endpoint.id, role, m->password, err);
    if (!rc && strcmp(w->database, "postgres") == 0)
        rc = inside_take_over(m->srv, m->endpoint.id, w->database, role,
                              (bough_sql_watch){settle_tick, m->rq}, err);
    else if (!rc)
        rc = inside_create_database(m->srv, m->endpoint.id, w->database, role, err);
    if (!rc) rc = seal_role(&c->roles[0], m, role, err);
    if (rc) return rc;
    (void)snprintf(c->databases[0].name, BOUGH_PG_NAME_SIZE, "%s", w->database);
    (void)snprintf(c->databases[0].owner, BOUGH_PG_NAME_SIZE, "%s", role);
    c->n_databases = c->n_roles = 1;
    return BOUGH_OK;
}

static int restore(making *m, bough_error *err) {
    bough_sql_place place;
    int rc = computes_place(&place, m->srv, m->endpoint.id, err);
    if (rc) return rc;
    bough_restore_target target = {.at = &place,
                                   .database = m->contents.databases[0].name,
                                   .owner = m->contents.databases[0].owner};
    return bough_cluster_restore(&m->pg, m->kind, m->wish->source, &target, flow_progress, m->rq,
                                 err);
}

static bough_role_row *find_role(const inside_contents *c, const char *name) {
    for (size_t i = 0; i < c->n_roles; i++)
        if (strcmp(c->roles[i].name, name) == 0) return &c->roles[i];
    return NULL;
}

/* A role for users, in place of the superuser that owns `database` of an imported cluster. */
static int make_owner(making *m, char *role, const char *database, bough_error *err) {
    inside_contents *c = &m->contents;
    owner_name(role, m->wish, database);
    if (find_role(c, role))
        return inside_set_password(m->srv, m->endpoint.id, role, m->password, err);
    int rc = inside_create_role(m->srv, m->endpoint.id, role, m->password, err);
    if (rc) return rc;
    bough_role_row *grown = realloc(c->roles, (c->n_roles + 1) * sizeof *grown);
    if (!grown) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    c->roles = grown;
    c->roles[c->n_roles] = (bough_role_row){0};
    (void)snprintf(c->roles[c->n_roles++].name, BOUGH_PG_NAME_SIZE, "%s", role);
    return BOUGH_OK;
}

/* Learn what was imported, and give what superusers own to a role that users may have. */
static int settle(making *m, bough_error *err) {
    inside_contents *c = &m->contents;
    char role[BOUGH_PG_NAME_SIZE] = "", first[BOUGH_PG_NAME_SIZE];
    int rc = inside_discover(c, m->srv, m->endpoint.id, err);
    if (!rc) rc = bough_secret_password(m->password, err);
    if (!rc && c->n_databases == 0)
        rc = bough_fail(err, BOUGH_E_PRECONDITION,
                        "the source has no database that one can connect to");
    for (size_t i = 0; i < c->n_databases && !rc; i++) {
        if (!c->is_super[i]) continue;
        if (!*role) rc = make_owner(m, role, c->databases[i].name, err);
        if (!rc)
            rc = inside_take_over(m->srv, m->endpoint.id, c->databases[i].name, role,
                                  (bough_sql_watch){settle_tick, m->rq}, err);
        if (!rc) rc = flow_check(m->rq, err);
        if (!rc) (void)snprintf(c->databases[i].owner, BOUGH_PG_NAME_SIZE, "%s", role);
    }
    if (rc) return rc;
    (void)snprintf(first, sizeof first, "%s", c->databases[0].owner);
    if (strcmp(first, role) != 0)
        rc = inside_set_password(m->srv, m->endpoint.id, first, m->password, err);
    for (size_t i = 0; i < c->n_roles && !rc; i++) {
        char name[BOUGH_PG_NAME_SIZE];
        (void)snprintf(name, sizeof name, "%s", c->roles[i].name);
        bool ours = strcmp(name, first) == 0 || strcmp(name, role) == 0;
        rc = flow_role(&c->roles[i], m->srv, m->branch.id, name, ours ? m->password : NULL, err);
    }
    return rc;
}

/* ---- rows ---- */

static int init_rows(making *m, bough_error *err) {
    const project_wish *w = m->wish;
    bough_project_row *p = &m->project;
    bough_branch_row *b = &m->branch;
    bough_endpoint_row *e = &m->endpoint;
    int rc = bough_ids_new(p->id, m->srv->cat, "", err);
    if (!rc) rc = bough_ids_new(b->id, m->srv->cat, "br-", err);
    if (!rc) rc = bough_ids_new(e->id, m->srv->cat, "ep-", err);
    if (!rc && w->source) rc = bough_secret_hash(p->source_hash, w->source, strlen(w->source), err);
    if (rc) return rc;
    p->created_ms = p->updated_ms = b->created_ms = b->updated_ms = e->created_ms = e->updated_ms =
        bough_now_epoch_ms();
    (void)snprintf(p->name, sizeof p->name, "%s", w->name);
    p->history_retention_seconds = w->history_retention_seconds;
    p->endpoints = w->endpoints;
    if (w->source) bough_secret_redact(p->source, sizeof p->source, w->source);
    (void)snprintf(b->project_id, sizeof b->project_id, "%s", p->id);
    (void)snprintf(b->name, sizeof b->name, "%s", w->branch);
    (void)snprintf(b->state, sizeof b->state, "ready");
    b->is_default = true;
    (void)snprintf(e->project_id, sizeof e->project_id, "%s", p->id);
    (void)snprintf(e->branch_id, sizeof e->branch_id, "%s", b->id);
    e->least_quarters = w->endpoints.least_quarters;
    e->most_quarters = w->endpoints.most_quarters;
    e->suspend_timeout_seconds = w->endpoints.suspend_timeout_seconds;
    return BOUGH_OK;
}

static int insert_rows(making *m, bough_error *err) {
    bough_catalogue *cat = m->srv->cat;
    inside_contents *c = &m->contents;
    int rc = bough_projects_insert(cat, &m->project, err);
    if (!rc) rc = bough_branches_insert(cat, &m->branch, err);
    if (!rc) rc = bough_endpoints_insert(cat, &m->endpoint, err);
    for (size_t i = 0; i < c->n_roles && !rc; i++) rc = bough_roles_insert(cat, &c->roles[i], err);
    for (size_t i = 0; i < c->n_databases && !rc; i++) {
        bough_database_row *d = &c->databases[i];
        (void)snprintf(d->branch_id, sizeof d->branch_id, "%s", m->branch.id);
        d->created_ms = d->updated_ms = m->project.created_ms;
        rc = bough_databases_insert(cat, d, err);
    }
    for (size_t i = 0; i < 2 && !rc; i++) rc = bough_operations_insert(cat, &m->operations[i], err);
    return rc;
}

static int commit(making *m, bough_error *err) {
    double received_ms = m->rq->received_ms;
    int rc = flow_operation(&m->operations[0], "create_timeline", m->project.id, m->branch.id, NULL,
                            received_ms, err);
    if (!rc)
        rc = flow_operation(&m->operations[1], "start_compute", m->project.id, m->branch.id,
                            m->endpoint.id, received_ms, err);
    if (!rc)
        rc = flow_check(m->rq, err); /* the last moment at which a client may change its mind */
    if (!rc) rc = bough_catalogue_begin(m->srv->cat, err);
    if (!rc) rc = bough_catalogue_end(m->srv->cat, insert_rows(m, err), err);
    BOUGH_POINT(rc, "project.committed");
    return rc;
}

/* ---- all of it ---- */

static int source_tick(void *context) {
    return flow_progress(context, "checking the source", 0, 0);
}

/* Find out which PostgreSQL, and make the files. */
static int make_files(making *m, bough_error *err) {
    const project_wish *w = m->wish;
    int major = w->pg_major;
    bool is_url = false;
    int rc = w->source ? bough_source_detect(&m->kind, w->source, err) : BOUGH_OK;
    if (!rc && w->source && m->kind == BOUGH_SOURCE_URL) {
        is_url = true;
        (void)flow_progress(m->rq, "checking the source", 0, 0);
        rc = bough_source_check(&m->info, w->source, (bough_sql_watch){source_tick, m->rq}, err);
        if (!rc && major && major != m->info.major) {
            (void)bough_fail(err, BOUGH_E_INVALID, "the source is PostgreSQL %d, not %d",
                             m->info.major, major);
            rc = bough_hint(
                err, "A physical copy keeps the version; leave out pg_version, or use a dump.");
        }
        major = m->info.major;
    }
    if (!rc) rc = bough_pg_find(&m->pg, major, err);
    if (rc) return rc;
    m->project.pg_major = m->pg.major;
    rc = is_url ? import(m, err) : fork_template(m, err);
    BOUGH_POINT(rc, "project.files-made");
    return rc ? rc : flow_check(m->rq, err);
}

static int make(making *m, bough_error *err) {
    bool is_import = m->wish->source && m->kind == BOUGH_SOURCE_URL;
    (void)flow_progress(m->rq, "starting", 0, 0);
    int rc = computes_begin(m->srv, &m->branch, &m->endpoint, m->pg.major,
                            (const char *const *)m->info.carried, err);
    if (!rc) rc = computes_wait(m->srv, m->branch.id, "the project was created", err);
    if (!rc) rc = is_import ? settle(m, err) : furnish(m, err);
    if (!rc && m->wish->source && !is_import) rc = restore(m, err);
    BOUGH_POINT(rc, "project.furnished");
    return rc ? computes_explain(m->srv, m->branch.id, err) : commit(m, err);
}

static void undo(making *m) {
    if (m->has_files) flow_remove_files(m->srv, m->branch.id, m->endpoint.id);
    if (m->has_workdir) bough_ignore(bough_cluster_remove(m->workdir, NULL));
}

static int answer_project_made(request *rq, const bough_project_row *project,
                               const bough_operation_row *operations, size_t n_operations,
                               bool existing, bough_error *err) {
    server *srv = rq->srv;
    bough_branch_row branch;
    bough_endpoint_row endpoint;
    json_t *databases = NULL, *roles = NULL, *uris = NULL, *endpoints = json_array();
    int rc = bough_branches_get_default(&branch, srv->cat, project->id, err);
    if (!rc) rc = answer_contents(&databases, &roles, srv, branch.id, err);
    if (!rc && bough_endpoints_of_branch(&endpoint, srv->cat, branch.id, NULL) == BOUGH_OK) {
        rc = computes_use(srv, &branch, &endpoint,
                          (compute_cause){"the project was asked for again", false}, err);
        if (!rc) rc = answer_connections(&uris, srv, branch.id, endpoint.id, err);
        if (!rc) answer_append(endpoints, answer_endpoint(srv, &endpoint));
    }
    if (!rc)
        rq->answer = json_pack(
            "{s:o,s:o,s:O,s:O,s:O,s:o,s:O*,s:b,s:{s:f}}", "project", answer_project(project),
            "branch", answer_branch(srv, &branch, false), "endpoints", endpoints, "databases",
            databases, "roles", roles, "operations", answer_operations(operations, n_operations),
            "connection_uris", uris, "existing", existing, "timings_ms", "total",
            bough_now_ms() - rq->received_ms);
    json_decref(databases);
    json_decref(roles);
    json_decref(uris);
    json_decref(endpoints);
    return rc;
}

/* The name is there: the same project again, or a conflict. */
static int take_existing(request *rq, const bough_project_row *found, const project_wish *wish,
                         bough_error *err) {
    char hash[BOUGH_HASH_SIZE] = "";
    if (wish->source &&
        bough_secret_hash(hash, wish->source, strlen(wish->source), err) != BOUGH_OK)
        return err->code;
    bool same = strcmp(hash, found->source_hash) == 0;
    bool same_major = !wish->pg_major || wish->pg_major == found->pg_major;
    if (wish->if_exists_return && same && same_major) {
        rq->status = 200;
        return answer_project_made(rq, found, NULL, 0, true, err);
    }
    (void)bough_fail(err, BOUGH_E_CONFLICT, "project already exists; project_name:\"%.256s\"",
                     wish->name);
    if (wish->if_exists_return && !same)
        (void)bough_hint(err, "It was made from another source%s%.150s.",
                         *found->source ? ": " : "", found->source);
    else if (wish->if_exists_return)
        (void)bough_hint(err, "It has PostgreSQL %d.", found->pg_major);
    return BOUGH_E_CONFLICT;
}

int flow_project_create(request *rq, const project_wish *wish, bough_error *err) {
    server *srv = rq->srv;
    char name_lock[BOUGH_NAME_SIZE + 16];
    making *m = calloc(1, sizeof *m);
    if (!m) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *m = (making){.rq = rq, .srv = srv, .wish = wish};
    (void)snprintf(name_lock, sizeof name_lock, "project-name:%s", wish->name);
    int rc = lock_take(srv->locks, name_lock, NAME_WAIT_MS, err);
    if (rc) {
        free(m);
        return rc;
    }
    if (bough_projects_find(&m->project, srv->cat, wish->name, NULL) == BOUGH_OK) {
        rc = take_existing(rq, &m->project, wish, err);
        goto out;
    }
    m->project = (bough_project_row){0};
    rq->status = 201;
    rc = init_rows(m, err);
    if (rc) goto out;
    rc = make_files(m, err);
    if (!rc) rc = lock_take(srv->locks, m->branch.id, LOCK_WAIT_MS, err);
    if (!rc) {
        rc = make(m, err);
        if (rc) undo(m);
        lock_drop(srv->locks, m->branch.id);
    } else {
        undo(m);
    }
    if (rc) goto out;
    if (bough_store_sync_pending(srv->store, m->branch.id)) computes_sync_later(srv, &m->branch);
    bough_log(BOUGH_LOG_INFO, "project created", "project", m->project.id, "branch", m->branch.id,
              NULL);
    rc = answer_project_made(rq, &m->project, m->operations, 2, false, err);
out:
    lock_drop(srv->locks, name_lock);
    bough_source_info_free(&m->info);
    inside_contents_free(&m->contents);
    explicit_bzero(m, sizeof *m);
    free(m);
    return rc;
}

/* ---- deleting ---- */

/* Take the locks of all branches; retry while new ones appear. */
static int lock_all(const char ***names, bough_branch_row **rows, size_t *n, server *srv,
                    const char *project, bough_error *err) {
    for (int tries = 0; tries < 20; tries++) {
        bough_branch_row *again = NULL;
        size_t n_again = 0;
        int rc = bough_branches_list(rows, n, srv->cat, project, err);
        if (rc) return rc;
        *names = calloc(*n + 1, sizeof **names);
        if (!*names) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        for (size_t i = 0; i < *n && !rc; i++) (*names)[i] = (*rows)[i].id;
        if (!rc) rc = locks_take(srv->locks, *names, *n, LOCK_WAIT_MS, err);
        if (!rc) {
            rc = bough_branches_list(&again, &n_again, srv->cat, project, err);
            bool same = !rc && n_again == *n;
            for (size_t i = 0; same && i < *n; i++) same = strcmp(again[i].id, (*rows)[i].id) == 0;
            free(again);
            if (same) return BOUGH_OK;
            locks_drop(srv->locks, *names, *n);
        }
        free(*names);
        free(*rows);
        *names = NULL;
        *rows = NULL;
        if (rc) return rc;
    }
    return bough_fail(err, BOUGH_E_BUSY, "branches of the project are being made");
}

/*
 * In the transaction. A branch that stands on no other is made without the lock of any
 * (flow_schema.c): `*is_other` where the branches are not those that are locked.
 */
static int delete_rows(bool *is_other, server *srv, const char *project,
                       const bough_branch_row *locked, size_t n, bough_error *err) {
    bough_branch_row *rows = NULL;
    size_t n_rows = 0;
    *is_other = false;
    int rc = bough_branches_list(&rows, &n_rows, srv->cat, project, err);
    if (!rc) *is_other = n_rows != n;
    for (size_t i = 0; i < n_rows && !rc && !*is_other; i++) {
        *is_other = strcmp(locked[i].id, rows[i].id) != 0;
        if (!rows[i].deleted_ms) rc = bough_rule_may_change(&rows[i], "deleted", err);
    }
    free(rows);
    if (!rc && *is_other)
        rc = bough_fail(err, BOUGH_E_BUSY, "branches of the project are being made");
    return rc ? rc : bough_projects_delete(srv->cat, project, err);
}

/* `*is_other`: nothing was deleted, for another branch has come. */
static int delete_all(bool *is_other, server *srv, const bough_project_row *project,
                      bough_error *err) {
    const char **names = NULL;
    bough_branch_row *rows = NULL;
    bough_endpoint_row *endpoints = NULL;
    size_t n = 0, n_endpoints = 0;
    *is_other = false;
    int rc = lock_all(&names, &rows, &n, srv, project->id, err);
    if (rc) return rc;
    rc = bough_endpoints_list(&endpoints, &n_endpoints, srv->cat, project->id, err);
    for (size_t i = 0; i < n && !rc; i++)
        if (!rows[i].deleted_ms) rc = bough_rule_may_change(&rows[i], "deleted", err);
    for (size_t i = 0; i < n && !rc; i++) {
        standbys_remove(srv, rows[i].id);
        rc = computes_stop(srv, rows[i].id, true, "the project was deleted", err);
    }
    BOUGH_POINT(rc, "project-delete.stopped");
    if (!rc) rc = bough_catalogue_begin(srv->cat, err);
    if (!rc)
        rc = bough_catalogue_end(srv->cat, delete_rows(is_other, srv, project->id, rows, n, err),
                                 err);
    BOUGH_POINT(rc, "project-delete.committed");
    /* newest first: children before their parents */
    for (size_t i = 0; i < n && !rc; i++) {
        const char *endpoint = NULL;
        for (size_t k = 0; k < n_endpoints; k++)
            if (!endpoints[k].is_read_only && strcmp(endpoints[k].branch_id, rows[i].id) == 0)
                endpoint = endpoints[k].id;
        flow_remove_files(srv, rows[i].id, endpoint);
        BOUGH_POINT(rc, "project-delete.one-removed");
    }
    locks_drop(srv->locks, names, n);
    free(names);
    free(rows);
    free(endpoints);
    return rc;
}

int flow_project_delete(server *srv, const bough_project_row *project, bough_error *err) {
    enum { TRIES = 20 };
    bool is_other = true;
    int rc = BOUGH_OK;
    for (int i = 0; i < TRIES && is_other; i++) {
        bough_error_clear(err);
        rc = delete_all(&is_other, srv, project, err);
    }
    return rc;
}
