/*
 * The end of a branch, and its return.
 *
 * A deletion is one commit, and so is a recovery: after a crash the branch is wholly there or
 * wholly deleted. Rules are checked twice: before the compute is stopped, and in the transaction
 * that deletes, since protection and expiry change without the branch's lock.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "server/computes.h"
#include "server/flows.h"
#include "server/inside.h"
#include "server/lifecycle.h"
#include "server/standbys.h"
#include "util/log.h"
#include "util/crashpoint.h"

/* Why a branch ends. */
typedef struct ending {
    const char *action;  /* of the operation */
    const char *because; /* id of the branch whose expiry it is; NULL: somebody asked */
    int64_t now_ms;      /* of that expiry; or of the purge */
    bool for_good;
    bool is_undone; /* who made it gives it up: protection was a part of what they asked for */
} ending;

/* What must be removed before a branch can be removed for good. */
static int check_standing_on(server *srv, const bough_branch_row *row, bough_error *err) {
    int64_t n = 0;
    int rc = bough_branches_count_children(&n, srv->cat, row->id, err);
    if (rc || n == 0) return rc;
    (void)bough_fail(err, BOUGH_E_CONFLICT,
                     "%lld deleted branch%s made from branch \"%.200s\" can still be recovered",
                     (long long)n, n == 1 ? "" : "es", row->name);
    (void)bough_hint(err, "Purge them first: `bough branch list --deleted` shows them.");
    return BOUGH_E_CONFLICT;
}

/* Whether the branch may end now, by what the catalogue says at this moment. */
static int check(bough_branch_row *row, server *srv, const char *id, const ending *why,
                 bough_error *err) {
    bough_branch_row reason, asked;
    int rc = bough_branches_get_any(row, srv->cat, id, err);
    if (rc) return rc;
    if (row->deleted_ms && !why->for_good)
        return bough_fail(err, BOUGH_E_NOTFOUND, "the branch is deleted already");
    if (why->for_good && !why->because && why->now_ms && row->deleted_ms > why->now_ms)
        return bough_fail(err, BOUGH_E_PRECONDITION, "the branch can still be recovered");
    if (why->for_good && why->now_ms && !row->deleted_ms)
        return bough_fail(err, BOUGH_E_PRECONDITION, "the branch was recovered");
    if (why->because) {
        rc = bough_branches_get_any(&reason, srv->cat, why->because, err);
        if (!rc && (reason.deleted_ms || !reason.expires_ms || reason.expires_ms > why->now_ms ||
                    (!reason.expiry_cascades && strcmp(reason.id, id) != 0)))
            rc = bough_fail(err, BOUGH_E_PRECONDITION, "the expiry has changed");
    }
    asked = *row;
    if (why->is_undone) asked.is_protected = false;
    if (!rc && !row->deleted_ms) rc = bough_rule_may_delete(&asked, err);
    if (!rc && why->for_good) rc = check_standing_on(srv, row, err);
    return rc;
}

static int commit(bough_operation_row *operation, server *srv, const char *id, const ending *why,
                  bough_error *err) {
    bough_branch_row row;
    clock_moment moment;
    clock_look(&moment, srv->clock);
    int rc = bough_catalogue_begin(srv->cat, err);
    if (rc) return rc;
    rc = check(&row, srv, id, why, err);
    if (!rc)
        rc = why->for_good ? bough_branches_delete(srv->cat, id, err)
                           : bough_branches_bury(srv->cat, id, moment.latest_ms, err);
    if (!rc) rc = bough_operations_insert(srv->cat, operation, err);
    return bough_catalogue_end(srv->cat, rc, err);
}

/* (locked) */
static int end_locked(bough_operation_row *operation, server *srv, const char *id,
                      const ending *why, bough_error *err) {
    bough_branch_row row;
    bough_endpoint_row endpoint = {0};
    clock_moment moment;
    double started_ms = bough_now_ms();
    int rc = check(&row, srv, id, why, err);
    if (rc) return rc;
    if (bough_endpoints_of_branch(&endpoint, srv->cat, id, NULL) != BOUGH_OK) endpoint.id[0] = '\0';
    /* the first deletion begins to wait for a time */
    rc = why->for_good ? BOUGH_OK : clock_begin(&moment, srv->clock, err);
    if (!rc) standbys_remove(srv, id);
    /* one that may come back stops cleanly: unlogged tables, too, are as they were */
    if (!rc) rc = computes_stop(srv, id, why->for_good, "the branch was deleted", err);
    BOUGH_POINT(rc, "delete.stopped");
    if (!rc)
        rc = flow_operation(operation, why->action, row.project_id, id, endpoint.id, started_ms,
                            err);
    if (!rc) rc = commit(operation, srv, id, why, err);
    BOUGH_POINT(rc, "delete.committed");
    if (rc) return rc;
    bough_log(BOUGH_LOG_INFO, why->for_good ? "branch removed" : "branch deleted", "branch", id,
              "action", why->action, NULL);
    if (why->for_good) {
        flow_remove_files(srv, id, endpoint.id);
    } else {
        char socket_dir[BOUGH_PATH_MAX];
        if (*endpoint.id && (computes_socket_dir(socket_dir, srv, endpoint.id, NULL) != BOUGH_OK ||
                             bough_rmtree(socket_dir, NULL) != BOUGH_OK))
            bough_log(BOUGH_LOG_WARN, "a directory of sockets remains", "endpoint", endpoint.id,
                      NULL);
    }
    BOUGH_POINT(rc, "delete.removed");
    return BOUGH_OK;
}

static int end(bough_operation_row *operation, server *srv, const char *id, const ending *why,
               int wait_ms, bough_error *err) {
    int rc = lock_take(srv->locks, id, wait_ms, err);
    if (rc) return rc;
    rc = end_locked(operation, srv, id, why, err);
    lock_drop(srv->locks, id);
    return rc;
}

int flow_end_looks(server *srv, const char *project, const char *branch, bough_error *err) {
    const ending why = {.action = "delete_timeline", .for_good = true};
    bough_operation_row operation;
    bough_branch_row *rows;
    size_t n;
    int rc = bough_branches_list_live(&rows, &n, srv->cat, project, err);
    for (size_t i = 0; !rc && i < n; i++) {
        if (!rows[i].is_look || strcmp(rows[i].parent_id, branch) != 0) continue;
        rc = end(&operation, srv, rows[i].id, &why, LOCK_WAIT_MS, err);
        if (rc == BOUGH_E_NOTFOUND) { /* it has gone by itself */
            bough_error_clear(err);
            rc = BOUGH_OK;
        }
    }
    free(rows);
    return rc;
}

int flow_branch_delete(bool *is_refused, bough_operation_row *operation, server *srv,
                       const bough_project_row *project, const char *id, bool for_good,
                       bough_error *err) {
    ending why = {.action = "delete_timeline", .for_good = for_good};
    bough_branch_row row;
    int rc = bough_branches_get(&row, srv->cat, project->id, id, err);
    if (rc == BOUGH_E_NOTFOUND && for_good) {
        why.action = "branch_purged";
        rc = bough_branches_get_deleted(&row, srv->cat, project->id, id, err);
    }
    if (!rc && !row.deleted_ms) rc = bough_rule_may_delete(&row, err);
    if (!rc) rc = flow_end_looks(srv, project->id, id, err);
    if (!rc) rc = end(operation, srv, id, &why, LOCK_WAIT_MS, err);
    *is_refused = rc == BOUGH_E_PRECONDITION;
    lifecycle_wake(srv); /* its parent may have waited for it */
    return rc;
}

void flow_branch_undo(server *srv, const char *project, const char *id) {
    const ending why = {.action = "delete_timeline", .for_good = true, .is_undone = true};
    bough_operation_row operation;
    bough_error err = {0};
    int rc = flow_end_looks(srv, project, id, &err);
    if (!rc) rc = end(&operation, srv, id, &why, LOCK_WAIT_MS, &err);
    if (rc && rc != BOUGH_E_NOTFOUND)
        bough_log(BOUGH_LOG_ERROR, "could not take back a branch", "branch", id, "error",
                  err.message, NULL);
    lifecycle_wake(srv);
}

/* ---- by the clock ---- */

/* The subtree of a branch that cascades; BOUGH_E_PRECONDITION where one of it must stay. */
static int get_subtree(bough_id_list *ids, size_t *n, server *srv, const char *id,
                       bough_error *err) {
    bough_branch_row row;
    int rc = bough_branches_subtree(ids, n, srv->cat, id, err);
    for (size_t i = 0; i < *n && !rc; i++) {
        rc = bough_branches_get_any(&row, srv->cat, (*ids)[i], err);
        if (!rc && (row.is_default || row.is_protected))
            rc = bough_fail(err, BOUGH_E_PRECONDITION, "branch \"%.200s\" below it must stay",
                            row.name);
    }
    if (rc) {
        free(*ids);
        *ids = NULL;
        *n = 0;
    }
    return rc;
}

bool flow_is_blocked(server *srv, const char *id) {
    bough_id_list ids;
    size_t n;
    bool is_blocked = get_subtree(&ids, &n, srv, id, NULL) != BOUGH_OK;
    free(ids);
    return is_blocked;
}

/* (locked) A look that is in use lives on; else nothing of it is kept. */
static int end_look(server *srv, const char *id, const clock_moment *moment, bough_error *err) {
    bough_branch_row row;
    bough_endpoint_row endpoint;
    bough_operation_row operation;
    char busy[128] = "";
    int rc = bough_branches_get_any(&row, srv->cat, id, err);
    if (!rc && (row.deleted_ms || !row.expires_ms || row.expires_ms > moment->now_ms))
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "the expiry has changed");
    if (rc) return rc;
    if (computes_is_active(srv, id) &&
        bough_endpoints_of_branch(&endpoint, srv->cat, id, NULL) == BOUGH_OK)
        bough_ignore(inside_activity(busy, sizeof busy, srv, endpoint.id, NULL));
    if (!*busy) {
        const ending why = {.action = "branch_expired", .for_good = true};
        return end_locked(&operation, srv, id, &why, err);
    }
    rc = bough_expiry_in(&row, BOUGH_LOOK_SECONDS, moment->latest_ms, err);
    return rc ? rc : bough_branches_set_expiry(srv->cat, &row, err);
}

static int expire_look(server *srv, const char *id, const clock_moment *moment, bough_error *err) {
    int rc = lock_take(srv->locks, id, 0, err);
    if (rc) return rc;
    rc = end_look(srv, id, moment, err);
    lock_drop(srv->locks, id);
    return rc;
}

int flow_branch_expire(server *srv, const char *id, bough_error *err) {
    bough_branch_row row;
    bough_id_list ids;
    size_t n;
    bough_operation_row operation;
    clock_moment moment;
    clock_look(&moment, srv->clock);
    ending why = {.action = "branch_expired", .because = id, .now_ms = moment.now_ms};
    int rc = bough_branches_get_any(&row, srv->cat, id, err);
    if (!rc && row.is_look) return expire_look(srv, id, &moment, err);
    if (!rc) rc = flow_end_looks(srv, row.project_id, id, err);
    if (rc) return rc;
    rc = get_subtree(&ids, &n, srv, id, err);
    /* leaves first: whenever this ends early, what is left is a tree */
    for (size_t i = 0; i < n && !rc; i++) {
        if (atomic_load(&srv->stopping))
            rc = bough_fail(err, BOUGH_E_BUSY, "the server is ending");
        else
            rc = end(&operation, srv, ids[i], &why, 0, err);
    }
    free(ids);
    return rc;
}

int flow_branch_purge(server *srv, const char *id, int64_t deleted_ms, bough_error *err) {
    bough_operation_row operation;
    ending why = {.action = "branch_purged", .now_ms = deleted_ms, .for_good = true};
    return end(&operation, srv, id, &why, 0, err);
}

/* ---- coming back ---- */

static int check_recoverable(const bough_branch_row *row, server *srv, bough_error *err) {
    bough_branch_row parent;
    if (!bough_store_has_branch(srv->store, row->id))
        return bough_fail(err, BOUGH_E_PRECONDITION, "the files of branch \"%.200s\" are missing",
                          row->name);
    if (!*row->parent_id) return BOUGH_OK;
    int rc = bough_branches_get_any(&parent, srv->cat, row->parent_id, err);
    if (rc || !parent.deleted_ms) return rc;
    (void)bough_fail(err, BOUGH_E_PRECONDITION,
                     "the parent of branch \"%.200s\", \"%.200s\", is deleted", row->name,
                     parent.name);
    (void)bough_hint(err, "Recover it first: `bough branch undelete %s`.", parent.id);
    return BOUGH_E_PRECONDITION;
}

/* In the transaction. */
static int recover(server *srv, bough_branch_row *row, const clock_moment *moment,
                   bough_error *err) {
    int64_t expires_ms = row->expires_ms;
    int rc = check_recoverable(row, srv, err);
    if (!rc && expires_ms && expires_ms <= moment->latest_ms)
        bough_expiry_renew(row, moment->latest_ms);
    if (!rc) bough_expiry_default(row, moment->latest_ms);
    if (!rc) rc = bough_branches_recover(srv->cat, row->id, row->name, err);
    if (!rc && row->expires_ms != expires_ms) rc = bough_branches_set_expiry(srv->cat, row, err);
    return rc;
}

int flow_branch_recover(bough_operation_row *operation, server *srv,
                        const bough_project_row *project, const char *id, const char *name,
                        bough_error *err) {
    bough_branch_row row;
    clock_moment moment;
    double started_ms = bough_now_ms();
    int rc = lock_take(srv->locks, id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    clock_look(&moment, srv->clock);
    rc = flow_operation(operation, "branch_recovered", project->id, id, NULL, started_ms, err);
    if (!rc) rc = bough_catalogue_begin(srv->cat, err);
    if (rc) goto out;
    rc = bough_branches_get_deleted(&row, srv->cat, project->id, id, err);
    if (!rc && name) (void)snprintf(row.name, sizeof row.name, "%s", name);
    if (!rc) rc = recover(srv, &row, &moment, err);
    if (!rc) rc = bough_operations_insert(srv->cat, operation, err);
    rc = bough_catalogue_end(srv->cat, rc, err);
    if (!rc) bough_log(BOUGH_LOG_INFO, "branch recovered", "branch", id, NULL);
out:
    lock_drop(srv->locks, id);
    lifecycle_wake(srv);
    return rc;
}
