/*
 * Handlers: databases and roles of a branch. They are really made in PostgreSQL, with the branch's
 * lock held, so that no branch is taken between the statement and the record of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/rules.h"
#include "server/answer.h"
#include "server/api.h"
#include "server/body.h"
#include "server/computes.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/inside.h"
#include "util/crashpoint.h"
#include "util/log.h"

#define LOOK_WAIT_MS 100
/* Shorter than others wait: however many of these requests a branch gets, they do not keep away who
 * suspends or deletes it. */
#define INNER_WAIT_MS 20000

/* A branch whose lock is held and whose compute runs. */
typedef struct inner {
    bough_branch_row branch;
    bough_endpoint_row endpoint;
    bool is_locked;
} inner;

static int enter(inner *in, request *rq, bough_error *err) {
    server *srv = rq->srv;
    memset(in, 0, sizeof *in);
    int rc = api_branch_of(&in->branch, rq, err);
    if (!rc) rc = lock_take(srv->locks, in->branch.id, INNER_WAIT_MS, err);
    if (rc) return rc;
    in->is_locked = true;
    rc = api_branch_of(&in->branch, rq, err);
    if (rc) return rc;
    rc = bough_endpoints_of_branch(&in->endpoint, srv->cat, in->branch.id, err);
    if (rc == BOUGH_E_NOTFOUND) rc = err->code = BOUGH_E_PRECONDITION; /* the branch is there */
    return rc ? rc
              : computes_use_locked(srv, &in->branch, &in->endpoint,
                                    (compute_cause){"a request to the API", false}, err);
}

static void leave(inner *in, request *rq) {
    if (in->is_locked) lock_drop(rq->srv->locks, in->branch.id);
    in->is_locked = false;
}

/* {KIND: value, operations: [...]}; takes `value`. */
static int answer_changed(request *rq, const inner *in, const char *kind, json_t *value,
                          const char *action, bough_error *err) {
    json_t *operations = NULL;
    int rc = api_record(&operations, rq, action, in->branch.project_id, in->branch.id,
                        in->endpoint.id, err);
    rq->answer = rc ? NULL : json_pack("{s:O,s:O}", kind, value, "operations", operations);
    json_decref(value);
    json_decref(operations);
    return rc;
}

/*
 * Roles and databases may be made by SQL, too: while the compute runs, what is there is looked at.
 * It is never woken for that; and where another operation has the branch, what is known must do.
 */
static void look(request *rq, const bough_branch_row *branch) {
    server *srv = rq->srv;
    bough_endpoint_row endpoint;
    bough_error err;
    if (!computes_is_active(srv, branch->id) ||
        lock_take(srv->locks, branch->id, LOOK_WAIT_MS, &err) != BOUGH_OK)
        return;
    int rc = bough_endpoints_of_branch(&endpoint, srv->cat, branch->id, &err);
    if (!rc && computes_is_active(srv, branch->id))
        rc = history_look(srv, branch->id, endpoint.id, &err);
    lock_drop(srv->locks, branch->id);
    if (rc && rc != BOUGH_E_NOTFOUND)
        bough_log(BOUGH_LOG_WARN, "could not look at roles and databases", "branch", branch->id,
                  "error", err.message, NULL);
}

/* ---- databases ---- */

int api_database_list(request *rq, bough_error *err) {
    bough_branch_row branch;
    json_t *databases = NULL, *roles = NULL;
    int rc = api_branch_of(&branch, rq, err);
    if (!rc) look(rq, &branch);
    if (!rc) rc = answer_contents(&databases, &roles, rq->srv, branch.id, err);
    if (!rc) rq->answer = json_pack("{s:O}", "databases", databases);
    json_decref(databases);
    json_decref(roles);
    return rc;
}

int api_database_get(request *rq, bough_error *err) {
    bough_branch_row branch;
    bough_database_row row;
    int rc = api_branch_of(&branch, rq, err);
    if (!rc) look(rq, &branch);
    if (!rc) rc = bough_databases_get(&row, rq->srv->cat, branch.id, rq->params[2], err);
    if (!rc) rq->answer = json_pack("{s:o}", "database", answer_database(&row));
    return rc;
}

static int read_database(const char **name, const char **owner, json_t **keep, request *rq,
                         bough_error *err) {
    static const char *const known[] = {"database", NULL}, *const fields[] = {"name", "owner_name",
                                                                              NULL};
    json_t *database = NULL;
    int rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_object(&database, keep, rq->body, "database", err);
    if (!rc) rc = body_check(database, "database", fields, err);
    if (!rc) rc = body_text(name, database, "name", err);
    if (!rc) rc = body_text(owner, database, "owner_name", err);
    if (!rc && *name) rc = bough_rule_pg_name("database", *name, err);
    return rc;
}

static int create_database(bough_database_row *row, request *rq, inner *in, const char *name,
                           const char *owner, bough_error *err) {
    bough_role_row role;
    server *srv = rq->srv;
    row->created_ms = row->updated_ms = bough_now_epoch_ms();
    memcpy(row->branch_id, in->branch.id, sizeof row->branch_id);
    (void)snprintf(row->name, sizeof row->name, "%s", name);
    (void)snprintf(row->owner, sizeof row->owner, "%s", owner);
    int rc = bough_roles_get(&role, srv->cat, in->branch.id, owner, err);
    if (!rc) rc = inside_create_database(srv, in->endpoint.id, name, owner, err);
    if (rc) return rc;
    rc = bough_databases_insert(srv->cat, row, err);
    if (rc) { /* e.g. the disk is full: take the database back */
        (void)(inside_drop_database(srv, in->endpoint.id, name, NULL) == BOUGH_OK);
        return rc;
    }
    return bough_databases_get(row, srv->cat, in->branch.id, name, err);
}

int api_database_create(request *rq, bough_error *err) {
    const char *name = NULL, *owner = NULL;
    json_t *keep = NULL;
    bough_database_row row = {0};
    inner in = {0};
    int rc = read_database(&name, &owner, &keep, rq, err);
    if (!rc && (!name || !owner))
        rc = bough_fail(err, BOUGH_E_INVALID, "\"database.%s\" is missing",
                        name ? "owner_name" : "name");
    if (!rc) rc = enter(&in, rq, err);
    if (!rc) rc = create_database(&row, rq, &in, name, owner, err);
    leave(&in, rq);
    if (!rc) rc = answer_changed(rq, &in, "database", answer_database(&row), "apply_config", err);
    rq->status = 201;
    json_decref(keep);
    return rc;
}

static int update_database(bough_database_row *row, request *rq, inner *in, const char *name,
                           const char *owner, bough_error *err) {
    bough_role_row role;
    bough_catalogue *cat = rq->srv->cat;
    int rc = bough_databases_get(row, cat, in->branch.id, rq->params[2], err);
    if (!rc && owner) rc = bough_roles_get(&role, cat, in->branch.id, owner, err);
    if (rc) return rc;
    if (!name) name = row->name;
    if (!owner) owner = row->owner;
    rc = inside_alter_database(rq->srv, in->endpoint.id, row, name, owner, err);
    if (!rc) rc = bough_databases_update(cat, row->id, name, owner, err);
    char renamed[BOUGH_PG_NAME_SIZE];
    (void)snprintf(renamed, sizeof renamed, "%s", name);
    return rc ? rc : bough_databases_get(row, cat, in->branch.id, renamed, err);
}

int api_database_update(request *rq, bough_error *err) {
    const char *name = NULL, *owner = NULL;
    json_t *keep = NULL;
    bough_database_row row = {0};
    inner in = {0};
    int rc = read_database(&name, &owner, &keep, rq, err);
    if (!rc) rc = enter(&in, rq, err);
    if (!rc) rc = update_database(&row, rq, &in, name, owner, err);
    leave(&in, rq);
    if (!rc) rc = answer_changed(rq, &in, "database", answer_database(&row), "apply_config", err);
    json_decref(keep);
    return rc;
}

int api_database_delete(request *rq, bough_error *err) {
    bough_database_row row = {0};
    inner in = {0};
    int rc = enter(&in, rq, err), found = BOUGH_OK;
    if (!rc) rc = found = bough_databases_get(&row, rq->srv->cat, in.branch.id, rq->params[2], err);
    if (!rc) rc = inside_drop_database(rq->srv, in.endpoint.id, row.name, err);
    if (!rc) rc = bough_databases_delete(rq->srv->cat, in.branch.id, row.name, err);
    leave(&in, rq);
    if (found) return api_deleted_already(rq, found, err);
    return rc ? rc
              : answer_changed(rq, &in, "database", answer_database(&row), "apply_config", err);
}

/* ---- roles ---- */

int api_role_list(request *rq, bough_error *err) {
    bough_branch_row branch;
    json_t *databases = NULL, *roles = NULL;
    int rc = api_branch_of(&branch, rq, err);
    if (!rc) look(rq, &branch);
    if (!rc) rc = answer_contents(&databases, &roles, rq->srv, branch.id, err);
    if (!rc) rq->answer = json_pack("{s:O}", "roles", roles);
    json_decref(databases);
    json_decref(roles);
    return rc;
}

static int get_role(bough_role_row *row, bough_branch_row *branch, request *rq, bough_error *err) {
    int rc = api_branch_of(branch, rq, err);
    if (!rc) look(rq, branch);
    return rc ? rc : bough_roles_get(row, rq->srv->cat, branch->id, rq->params[2], err);
}

/* (locked; its compute runs) Let PostgreSQL have the password that is recorded. */
static int set_recorded(bough_role_row *row, const server *srv, const char *endpoint,
                        bough_error *err) {
    char password[BOUGH_SECRET_SIZE] = "";
    int rc = answer_password(password, srv, row, err);
    if (!rc) rc = inside_set_password(srv, endpoint, row->name, password, err);
    explicit_bzero(password, sizeof password);
    if (rc) return rc;
    row->is_unsure = false;
    return bough_roles_set_secret(srv->cat, row, err);
}

int api_role_make_sure(bough_role_row *row, server *srv, const bough_branch_row *branch,
                       bough_error *err) {
    bough_branch_row fresh;
    bough_endpoint_row endpoint;
    if (!row->is_unsure || row->secret_size == 0) return BOUGH_OK;
    int rc = lock_take(srv->locks, branch->id, INNER_WAIT_MS, err);
    if (rc) return rc;
    rc = bough_branches_get(&fresh, srv->cat, branch->project_id, branch->id, err);
    if (!rc) rc = bough_roles_get(row, srv->cat, branch->id, row->name, err);
    if (!rc && row->is_unsure && row->secret_size) {
        rc = bough_endpoints_of_branch(&endpoint, srv->cat, branch->id, err);
        if (rc == BOUGH_E_NOTFOUND) rc = err->code = BOUGH_E_PRECONDITION;
        if (!rc)
            rc = computes_use_locked(srv, &fresh, &endpoint,
                                     (compute_cause){"a password was asked for", false}, err);
        if (!rc) rc = set_recorded(row, srv, endpoint.id, err);
    }
    lock_drop(srv->locks, branch->id);
    return rc;
}

int api_role_get(request *rq, bough_error *err) {
    bough_branch_row branch;
    bough_role_row row;
    int rc = get_role(&row, &branch, rq, err);
    if (!rc) rq->answer = json_pack("{s:o}", "role", answer_role(&row, NULL));
    return rc;
}

int api_role_reveal(request *rq, bough_error *err) {
    bough_branch_row branch;
    bough_role_row row;
    char password[BOUGH_SECRET_SIZE] = "";
    int rc = get_role(&row, &branch, rq, err);
    if (!rc) rc = api_role_make_sure(&row, rq->srv, &branch, err);
    if (!rc) rc = answer_password(password, rq->srv, &row, err);
    if (!rc) rq->answer = json_pack("{s:s}", "password", password);
    explicit_bzero(password, sizeof password);
    return rc;
}

static int read_role(const char **name, bool *no_login, json_t **keep, request *rq,
                     bough_error *err) {
    static const char *const known[] = {"role", NULL}, *const fields[] = {"name", "no_login", NULL};
    json_t *role = NULL;
    int rc = body_check(rq->body, "", known, err);
    if (!rc) rc = body_object(&role, keep, rq->body, "role", err);
    if (!rc) rc = body_check(role, "role", fields, err);
    if (!rc) rc = body_text(name, role, "name", err);
    if (!rc) rc = body_bool(no_login, role, "no_login", false, err);
    if (!rc && !*name) rc = bough_fail(err, BOUGH_E_INVALID, "\"role.name\" is missing");
    return rc ? rc : bough_rule_pg_name("role", *name, err);
}

int api_role_create(request *rq, bough_error *err) {
    const char *name = NULL;
    bool no_login = false;
    json_t *keep = NULL;
    bough_role_row row;
    inner in = {0};
    char password[BOUGH_PASSWORD_SIZE] = "";
    int rc = read_role(&name, &no_login, &keep, rq, err);
    if (!rc) rc = bough_secret_password(password, err);
    const char *given = no_login ? NULL : password;
    if (!rc) rc = enter(&in, rq, err);
    if (!rc) rc = flow_role(&row, rq->srv, in.branch.id, name, given, err);
    if (!rc) rc = inside_create_role(rq->srv, in.endpoint.id, name, given, err);
    if (!rc) {
        rc = bough_roles_insert(rq->srv->cat, &row, err);
        if (rc) (void)(inside_drop_role(rq->srv, in.endpoint.id, name, NULL) == BOUGH_OK);
    }
    leave(&in, rq);
    if (!rc) rc = answer_changed(rq, &in, "role", answer_role(&row, given), "apply_config", err);
    rq->status = 201;
    explicit_bzero(password, sizeof password);
    json_decref(keep);
    return rc;
}

int api_role_delete(request *rq, bough_error *err) {
    bough_role_row row = {0};
    inner in = {0};
    int rc = enter(&in, rq, err), found = BOUGH_OK;
    if (!rc) rc = found = bough_roles_get(&row, rq->srv->cat, in.branch.id, rq->params[2], err);
    if (!rc) rc = inside_drop_role(rq->srv, in.endpoint.id, row.name, err);
    if (!rc) rc = bough_roles_delete(rq->srv->cat, in.branch.id, row.name, err);
    leave(&in, rq);
    if (found) return api_deleted_already(rq, found, err);
    return rc ? rc : answer_changed(rq, &in, "role", answer_role(&row, NULL), "apply_config", err);
}

/*
 * The new password is recorded before PostgreSQL has it, as one that is unsure: whatever happens
 * between, it is set again before it is told. Where PostgreSQL has refused it, the one before
 * stays.
 */
static int reset_password(const bough_role_row *before, bough_role_row *fresh, const server *srv,
                          const char *endpoint, const char *password, bough_error *err) {
    bough_error why;
    fresh->is_unsure = true;
    int rc = bough_roles_set_secret(srv->cat, fresh, err);
    BOUGH_POINT(rc, "reset.recorded");
    if (rc) return rc;
    rc = inside_set_password(srv, endpoint, before->name, password, err);
    BOUGH_POINT(rc, "reset.changed");
    if (rc == BOUGH_E_UNREACHABLE || rc == BOUGH_E_TIMEOUT) return rc; /* it may have it */
    fresh->is_unsure = false;
    if (bough_roles_set_secret(srv->cat, rc ? before : fresh, &why) != BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "it stays unsure which password a role has", "branch",
                  before->branch_id, "error", why.message, NULL);
    return rc;
}

int api_role_reset(request *rq, bough_error *err) {
    bough_role_row row = {0}, fresh;
    inner in = {0};
    char password[BOUGH_PASSWORD_SIZE] = "";
    int rc = bough_secret_password(password, err);
    if (!rc) rc = enter(&in, rq, err);
    if (!rc) rc = bough_roles_get(&row, rq->srv->cat, in.branch.id, rq->params[2], err);
    if (!rc) rc = flow_role(&fresh, rq->srv, in.branch.id, row.name, password, err);
    if (!rc) rc = reset_password(&row, &fresh, rq->srv, in.endpoint.id, password, err);
    if (!rc) rc = bough_roles_get(&row, rq->srv->cat, in.branch.id, row.name, err);
    leave(&in, rq);
    if (!rc) rc = answer_changed(rq, &in, "role", answer_role(&row, password), "apply_config", err);
    explicit_bzero(password, sizeof password);
    return rc;
}
