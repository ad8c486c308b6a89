/* Branches: making and exporting them. */
#include "server/flows.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/ids.h"
#include "model/snapshots.h"
#include "model/rules.h"
#include "pg/conf.h"
#include "server/answer.h"
#include "server/computes.h"
#include "server/history.h"
#include "server/inside.h"
#include "server/leftovers.h"
#include "server/lifecycle.h"
#include "server/passwords.h"
#include "util/log.h"
#include "util/lsn.h"
#include "util/crashpoint.h"

/** A parent with more WAL than this since its last checkpoint makes one before it is branched. */
#define REDO_MAX_BYTES ((uint64_t)8 << 20)
/** For so long at most; then the child replays. */
#define CHECKPOINT_MS 10000

static void on_purge_job(void *arg) {
    server *srv = arg;
    bough_error err;
    if (bough_store_purge(srv->store, &err) != BOUGH_OK) /* the next round tries again */
        bough_log(BOUGH_LOG_WARN, "could not empty the trash", "error", err.message, NULL);
}

void flow_purge_later(server *srv) {
    /* refused when the server ends: the next one does it */
    (void)(job_pool_add(srv->background, on_purge_job, srv, NULL) == BOUGH_OK);
}

int flow_check(request *rq, bough_error *err) {
    if (atomic_load(&rq->cancelled))
        return bough_fail(err, BOUGH_E_CANCELLED, "the client has gone");
    if (atomic_load(&rq->srv->stopping))
        return bough_fail(err, BOUGH_E_CANCELLED, "the server is ending");
    return BOUGH_OK;
}

int flow_progress(void *context, const char *phase, uint64_t done_bytes, uint64_t total_bytes) {
    request *rq = context;
    http_progress(rq, phase, done_bytes, total_bytes);
    return flow_check(rq, NULL) != BOUGH_OK;
}

int flow_operation(bough_operation_row *row, const char *action, const char *project,
                   const char *branch, const char *endpoint, double started_ms, bough_error *err) {
    *row = (bough_operation_row){.duration_ms = llround(bough_now_ms() - started_ms)};
    row->updated_ms = bough_now_epoch_ms();
    row->created_ms = row->updated_ms - row->duration_ms;
    (void)snprintf(row->project_id, sizeof row->project_id, "%s", project);
    (void)snprintf(row->branch_id, sizeof row->branch_id, "%s", branch ? branch : "");
    (void)snprintf(row->endpoint_id, sizeof row->endpoint_id, "%s", endpoint ? endpoint : "");
    (void)snprintf(row->action, sizeof row->action, "%s", action);
    (void)snprintf(row->status, sizeof row->status, "finished");
    return bough_ids_uuid(row->id, err);
}

void flow_remove_files(server *srv, const char *branch, const char *endpoint) {
    char socket_dir[BOUGH_PATH_MAX];
    bough_error err = {0};
    int rc = computes_stop(srv, branch, true, "it was deleted", &err);
    if (!rc) computes_forget(srv, branch, NULL);
    if (!rc && bough_store_has_branch(srv->store, branch)) {
        rc = computes_clear_rest(srv, branch, &err);
        if (!rc) rc = bough_store_delete(srv->store, branch, &err);
    }
    /* whatever became of the rest */
    if (endpoint && *endpoint) {
        int last = computes_socket_dir(socket_dir, srv, endpoint, rc ? NULL : &err);
        if (!last) last = bough_rmtree(socket_dir, rc ? NULL : &err);
        if (!rc) rc = last;
    }
    if (rc)
        bough_log(BOUGH_LOG_WARN, "files of a deleted branch remain", "branch", branch, "until",
                  leftovers_add(srv, branch, endpoint) ? "the next round" : "the next start",
                  "error", err.message, NULL);
    flow_purge_later(srv);
}

int flow_role(bough_role_row *row, const server *srv, const char *branch, const char *name,
              const char *password, bough_error *err) {
    *row = (bough_role_row){.created_ms = bough_now_epoch_ms()};
    row->updated_ms = row->created_ms;
    (void)snprintf(row->branch_id, sizeof row->branch_id, "%s", branch);
    (void)snprintf(row->name, sizeof row->name, "%s", name);
    return password
               ? bough_secret_seal(row->secret, &row->secret_size, &srv->key, name, password, err)
               : BOUGH_OK;
}

int flow_free_name(char *out, server *srv, const char *project, const char *name,
                   const char *suffix, bough_error *err) {
    enum { TRIES = 1000 };
    bool is_free = false;
    char rest[64];
    for (int i = 1; i < TRIES; i++) {
        (void)snprintf(rest, sizeof rest, i == 1 ? " (%s)" : " (%s %d)", suffix, i);
        (void)snprintf(out, BOUGH_NAME_SIZE, "%.*s%s", bough_rule_name_room(name, rest), name,
                       rest);
        int rc = bough_branches_is_free(&is_free, srv->cat, project, out, NULL, err);
        if (rc || is_free) return rc;
    }
    return bough_fail(err, BOUGH_E_CONFLICT, "no name is free for branch \"%.200s\"", name);
}

/* ---- making a branch ---- */

void flow_endpoint_size(bough_endpoint_row *row, const bough_project_row *project,
                        const branch_wish *wish) {
    bool is_given = wish->least_quarters && wish->most_quarters;
    row->least_quarters = is_given ? wish->least_quarters : project->endpoints.least_quarters;
    row->most_quarters = is_given ? wish->most_quarters : project->endpoints.most_quarters;
}

typedef struct making {
    server *srv;
    const bough_project_row *project;
    bough_branch_row parent, branch;
    bough_endpoint_row endpoint;
    bough_operation_row operations[2];
    size_t n_operations;
    bough_role_row *roles; /* with new passwords, of a protected parent's child */
    size_t n_roles;
    bool with_endpoint, has_files, is_committed, is_ready;
    const branch_wish *wish;
    bough_fork_result forked;
    double checkpoint_ms, start_ms, ready_ms;
    char base[BOUGH_ID_SIZE]; /* whose history has the moment; "" for the present */
    bough_origin_row origin;
    uint64_t replay_bytes; /* WAL from the restore point to the moment */
    char name_lock[BOUGH_NAME_SIZE + BOUGH_ID_SIZE + 16];
} making;

static int init_rows(making *m, const branch_wish *wish, bough_error *err) {
    bough_branch_row *b = &m->branch;
    bough_endpoint_row *e = &m->endpoint;
    int rc = bough_ids_new(b->id, m->srv->cat, "br-", err);
    if (!rc) rc = bough_ids_new(e->id, m->srv->cat, "ep-", err);
    if (rc) return rc;
    b->created_ms = b->updated_ms = e->created_ms = e->updated_ms = bough_now_epoch_ms();
    (void)snprintf(b->project_id, sizeof b->project_id, "%s", m->project->id);
    (void)snprintf(b->name, sizeof b->name, "%s", wish->name);
    (void)snprintf(b->parent_id, sizeof b->parent_id, "%s", wish->parent);
    (void)snprintf(b->state, sizeof b->state, "ready");
    b->is_protected = wish->is_protected;
    b->is_look = wish->is_look;
    b->expires_ms = wish->expires_ms;
    b->ttl_seconds = wish->ttl_seconds;
    b->expiry_cascades = wish->expiry_cascades;
    (void)snprintf(e->project_id, sizeof e->project_id, "%s", m->project->id);
    (void)snprintf(e->branch_id, sizeof e->branch_id, "%s", b->id);
    e->suspend_timeout_seconds = wish->suspend_timeout_seconds;
    flow_endpoint_size(e, m->project, wish);
    m->wish = wish;
    m->with_endpoint = wish->with_endpoint;
    (void)snprintf(m->name_lock, sizeof m->name_lock, "branch-name:%s/%s", m->project->id,
                   wish->name);
    return BOUGH_OK;
}

/*
 * A parent with much WAL since its last checkpoint is asked for one first: the child would replay
 * that WAL, write out what it replayed, and keep both as bytes of its own. Figures: docs/adr/0004.
 */
static double checkpoint_parent(server *srv, const char *parent, const bough_shm *live) {
    uint64_t bytes = 0;
    bough_error err = {0};
    bough_endpoint_row endpoint;
    double before = bough_now_ms();
    int rc = bough_store_redo_bytes(&bytes, srv->store, parent, live, &err);
    if (rc || bytes < REDO_MAX_BYTES) return 0;
    rc = bough_endpoints_of_branch(&endpoint, srv->cat, parent, &err);
    if (!rc) rc = inside_checkpoint(srv, endpoint.id, CHECKPOINT_MS, &err);
    if (rc) /* the child replays more, nothing else */
        bough_log(BOUGH_LOG_WARN, "no checkpoint before branching", "branch", parent, "error",
                  err.message, NULL);
    return bough_now_ms() - before;
}

int flow_carried(char ***carried, const char *pgdata, bough_error *err) {
    int rc = bough_conf_carried(carried, pgdata, err);
    if (rc != BOUGH_E_NOTFOUND) return rc;
    bough_error_clear(err);
    return BOUGH_OK;
}

/* (parent locked) The files of a child, and the settings that its parent carries. */
int flow_fork(bough_fork_result *forked, double *checkpoint_ms, char ***carried, server *srv,
              const char *parent, const char *child, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    bough_shm *live;
    int rc = computes_shm(&live, srv, parent, err);
    *checkpoint_ms = !rc && live ? checkpoint_parent(srv, parent, live) : 0;
    if (!rc) rc = bough_store_fork(forked, srv->store, parent, child, live, err);
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, parent, err);
    return rc ? rc : flow_carried(carried, pgdata, err);
}

/* Configuration where no compute is started. */
int flow_write_conf(server *srv, int major, const char *branch, const char *endpoint,
                    char **carried, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX], socket_dir[BOUGH_PATH_MAX];
    int rc = computes_socket_dir(socket_dir, srv, endpoint, err);
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, branch, err);
    bough_conf conf = {.major = major,
                       .socket_dir = socket_dir,
                       .hold_wal = true,
                       .carried = (const char *const *)carried};
    return rc ? rc : bough_conf_write(pgdata, &conf, err);
}

void flow_free_carried(char **carried) {
    for (size_t i = 0; carried && carried[i]; i++) free(carried[i]);
    free(carried);
}

/* (base locked) The files of a child of a moment of the past. */
static int fork_past(making *m, const bough_target *moment, char ***carried, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    bough_cut cut = {0};
    int rc = history_check_base(m->base, m->srv, m->project, &m->parent, moment, err);
    if (!rc) rc = history_fork(&cut, m->srv, m->base, moment, m->branch.id, err);
    m->forked.create_ms = cut.create_ms;
    m->replay_bytes = cut.replay_bytes;
    if (!rc) rc = bough_store_pgdata(pgdata, m->srv->store, m->base, err);
    if (!rc) rc = flow_carried(carried, pgdata, err);
    (void)snprintf(m->origin.branch_id, sizeof m->origin.branch_id, "%s", m->branch.id);
    bough_lsn_write(m->origin.lsn, cut.lsn);
    m->origin.time_us = moment->time_us;
    return rc;
}

static int make_files(making *m, const bough_target *moment, char ***carried, bough_error *err) {
    int rc = *m->base ? fork_past(m, moment, carried, err)
                      : flow_fork(&m->forked, &m->checkpoint_ms, carried, m->srv, m->parent.id,
                                  m->branch.id, err);
    m->has_files = rc == BOUGH_OK;
    BOUGH_POINT(rc, "create.forked");
    if (rc || m->with_endpoint) return rc;
    return flow_write_conf(m->srv, m->project->pg_major, m->branch.id, m->endpoint.id, *carried,
                           err);
}

/*
 * Start a compute that is closed to all, give every role a new password, open it. Nothing of the
 * branch is in the catalogue before that: a crash in between leaves no branch.
 */
static int renew_passwords(making *m, const char *const *carried, bough_error *err) {
    server *srv = m->srv;
    double now = bough_now_ms();
    int rc =
        computes_begin_closed(srv, &m->branch, &m->endpoint, m->project->pg_major, carried, err);
    m->start_ms = bough_now_ms() - now;
    if (!rc) rc = computes_wait(srv, m->branch.id, "the branch was created", err);
    if (!rc) rc = passwords_renew(&m->roles, &m->n_roles, srv, m->endpoint.id, m->parent.id, err);
    if (!rc && m->with_endpoint) rc = computes_open(srv, m->branch.id, err);
    if (!rc && !m->with_endpoint) {
        char socket_dir[BOUGH_PATH_MAX];
        rc = computes_stop(srv, m->branch.id, false, "it was asked for without one", err);
        if (!rc) rc = computes_socket_dir(socket_dir, srv, m->endpoint.id, err);
        if (!rc) rc = bough_rmtree(socket_dir, err);
    }
    m->is_ready = rc == BOUGH_OK;
    m->ready_ms = bough_now_ms() - now - m->start_ms;
    return rc;
}

/* In the transaction: the roles that were copied get their new passwords. */
static int set_secrets(making *m, bough_error *err) {
    int rc = BOUGH_OK;
    for (size_t i = 0; i < m->n_roles && !rc; i++) {
        memcpy(m->roles[i].branch_id, m->branch.id, sizeof m->roles[i].branch_id);
        rc = bough_roles_set_secret(m->srv->cat, &m->roles[i], err);
    }
    return rc;
}

/* Everything about the branch in one commit. */
static int commit(making *m, double received_ms, bough_error *err) {
    bough_catalogue *cat = m->srv->cat;
    const char *endpoint = m->with_endpoint ? m->endpoint.id : NULL;
    m->n_operations = m->with_endpoint ? 2 : 1;
    int rc = flow_operation(&m->operations[0], "create_branch", m->project->id, m->branch.id, NULL,
                            received_ms, err);
    if (!rc)
        rc = flow_operation(&m->operations[1], "start_compute", m->project->id, m->branch.id,
                            endpoint, received_ms, err);
    if (!rc) rc = bough_catalogue_begin(cat, err);
    if (rc) return rc;
    rc = bough_branches_insert(cat, &m->branch, err);
    if (!rc && endpoint) rc = bough_endpoints_insert(cat, &m->endpoint, err);
    if (!rc && *m->base) rc = bough_origins_insert(cat, &m->origin, err);
    if (!rc) rc = bough_branches_copy_contents(cat, m->parent.id, m->branch.id, err);
    if (!rc) rc = set_secrets(m, err);
    if (!rc && m->wish->annotation)
        rc = bough_annotations_insert(cat, m->branch.id, m->wish->annotation, err);
    if (!rc && m->wish->snapshot) {
        bough_restored_row restored = {0};
        (void)snprintf(restored.branch_id, sizeof restored.branch_id, "%s", m->branch.id);
        (void)snprintf(restored.snapshot_id, sizeof restored.snapshot_id, "%s", m->wish->snapshot);
        (void)snprintf(restored.target_id, sizeof restored.target_id, "%s", m->wish->replaces);
        restored.is_transient = m->wish->replaces_at_once;
        rc = bough_restored_set(cat, &restored, err);
    }
    for (size_t i = 0; i < m->n_operations && !rc; i++)
        rc = bough_operations_insert(cat, &m->operations[i], err);
    rc = bough_catalogue_end(cat, rc, err);
    m->is_committed = rc == BOUGH_OK;
    m->branch.was_snapshot = m->wish->snapshot != NULL;
    m->branch.has_origin = *m->base != '\0';
    return rc;
}

/* Leave nothing. A branch that cannot be taken out of the catalogue keeps its files: it is whole.
 */
static void undo(making *m, const bough_error *cause) {
    bough_catalogue *cat = m->srv->cat;
    bough_operation_row failed;
    bool is_there = m->is_committed;
    if (m->is_committed && bough_catalogue_begin(cat, NULL) == BOUGH_OK) {
        int rc = bough_branches_delete(cat, m->branch.id, NULL);
        if (!rc)
            rc = flow_operation(&failed, "create_branch", m->project->id, NULL, NULL,
                                bough_now_ms(), NULL);
        (void)snprintf(failed.status, sizeof failed.status, "failed");
        (void)snprintf(failed.failure, sizeof failed.failure, "%s", cause->message);
        if (!rc) rc = bough_operations_insert(cat, &failed, NULL);
        is_there = bough_catalogue_end(cat, rc, NULL) != BOUGH_OK;
    }
    if (is_there)
        bough_log(BOUGH_LOG_ERROR, "could not take back a branch", "branch", m->branch.id, NULL);
    else if (m->has_files)
        flow_remove_files(m->srv, m->branch.id, m->endpoint.id);
}

/* Whether an existing branch begins where the wish says. */
static bool is_of_moment(server *srv, const bough_branch_row *existing,
                         const bough_target *moment) {
    bough_origin_row origin;
    bool has = bough_origins_get(&origin, srv->cat, existing->id, NULL) == BOUGH_OK &&
               (*origin.lsn || origin.time_us);
    if (!has || !history_is_wanted(moment)) return !has && !history_is_wanted(moment);
    return moment->time_us ? origin.time_us == moment->time_us
                           : strcmp(origin.lsn, BOUGH_LSN_TEXT(moment->lsn)) == 0;
}

/* An existing name: the same branch again, or a conflict. */
static int take_existing(request *rq, making *m, const bough_branch_row *existing,
                         const branch_wish *wish, bough_error *err) {
    bool same_moment = is_of_moment(rq->srv, existing, &wish->moment);
    if (!wish->if_exists_return || strcmp(existing->parent_id, wish->parent) != 0 || !same_moment) {
        rq->slug = "BRANCH_ALREADY_EXISTS";
        int rc = bough_branches_fail_taken(wish->name, err);
        if (wish->if_exists_return) {
            if (strcmp(existing->parent_id, wish->parent) == 0)
                (void)bough_hint(err, "It begins at another moment of its parent.");
            else if (*existing->parent_name)
                (void)bough_hint(err, "It has another parent: \"%.150s\".", existing->parent_name);
            else
                (void)bough_hint(err, "It is the root branch.");
        }
        return rc;
    }
    m->branch = *existing;
    rq->status = 200;
    return BOUGH_OK;
}

/* Parent, child and name are locked; on return only the child is, and `*existing` says whether it
 * was there. */
static int make(request *rq, making *m, const branch_wish *wish, bool *existing, bough_error *err) {
    server *srv = m->srv;
    bough_branch_row found;
    char **carried = NULL;
    const char *const parent_locks[] = {m->parent.id, m->name_lock, m->base};
    bool has_base = *m->base && strcmp(m->base, m->parent.id) != 0;
    int rc = wish->snapshot
                 ? bough_branches_get_any(&m->parent, srv->cat, wish->snapshot, err)
                 : bough_branches_get(&m->parent, srv->cat, m->project->id, wish->parent, err);
    *existing = false;
    if (!rc &&
        bough_branches_find(&found, srv->cat, m->project->id, wish->name, NULL) == BOUGH_OK) {
        *existing = true;
        rc = take_existing(rq, m, &found, wish, err);
    } else if (!rc && strcmp(m->parent.state, "ready") != 0) {
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "branch \"%.200s\" is in state \"%s\"",
                        m->parent.name, m->parent.state);
    }
    if (!rc && !*existing) {
        bough_branch_row parent;
        if (!wish->snapshot || !*wish->parent)
            parent = m->parent;
        else
            rc = bough_branches_get_any(&parent, srv->cat, wish->parent, err);
        if (!rc)
            (void)snprintf(m->branch.parent_name, sizeof m->branch.parent_name, "%s", parent.name);
    }
    if (!rc && !*existing) {
        rc = make_files(m, &wish->moment, &carried, err);
        double now = bough_now_ms();
        if (!rc && m->parent.is_protected && !wish->keeps_passwords) {
            rc = renew_passwords(m, (const char *const *)carried, err);
        } else if (!rc && m->with_endpoint) {
            rc = computes_begin(srv, &m->branch, &m->endpoint, m->project->pg_major,
                                (const char *const *)carried, err);
            m->start_ms = bough_now_ms() - now;
        }
        BOUGH_POINT(rc, "create.started");
        /* postgres starts meanwhile */
        if (!rc) rc = commit(m, rq->received_ms, err);
        if (rc == BOUGH_E_CONFLICT) rq->slug = "BRANCH_ALREADY_EXISTS";
    }
    flow_free_carried(carried);
    locks_drop(srv->locks, parent_locks, has_base ? 3 : 2);
    return rc;
}

static int answer_created(request *rq, making *m, bool existing, bough_error *err) {
    server *srv = m->srv;
    json_t *databases = NULL, *roles = NULL, *uris = NULL, *endpoints = json_array();
    if (m->with_endpoint) answer_append(endpoints, answer_endpoint(srv, &m->endpoint));
    int rc = answer_contents(&databases, &roles, srv, m->branch.id, err);
    if (!rc && m->with_endpoint)
        rc = answer_connections(&uris, srv, m->branch.id, m->endpoint.id, err);
    if (!rc) {
        rq->answer = json_pack("{s:o,s:O,s:O,s:O,s:o,s:O*,s:b}", "branch",
                               answer_branch(srv, &m->branch, false), "endpoints", endpoints,
                               "databases", databases, "roles", roles, "operations",
                               answer_operations(m->operations, m->n_operations), "connection_uris",
                               uris, "existing", existing);
        json_t *timings = json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "checkpoint", m->checkpoint_ms,
                                    "seal", m->forked.seal_ms, "gate", m->forked.gate_ms, "create",
                                    m->forked.create_ms, "start", m->start_ms, "ready", m->ready_ms,
                                    "total", bough_now_ms() - rq->received_ms);
        if (rq->answer && !existing) answer_set(rq->answer, "timings_ms", json_incref(timings));
        if (rq->answer && *m->base && !existing)
            answer_set(rq->answer, "replay_bytes", json_integer((json_int_t)m->replay_bytes));
        json_decref(timings);
    }
    json_decref(databases);
    json_decref(roles);
    json_decref(uris);
    json_decref(endpoints);
    return rc;
}

/* An existing branch is given back awake. */
static int wake_existing(request *rq, making *m, bough_error *err) {
    bough_error none;
    m->n_operations = 0;
    m->with_endpoint =
        bough_endpoints_of_branch(&m->endpoint, m->srv->cat, m->branch.id, &none) == BOUGH_OK;
    compute_cause cause = {"the branch was asked for again", false};
    int rc =
        m->with_endpoint ? computes_use(m->srv, &m->branch, &m->endpoint, cause, err) : BOUGH_OK;
    return rc ? rc : answer_created(rq, m, true, err);
}

int flow_branch_create(request *rq, const bough_project_row *project, const branch_wish *wish,
                       bough_error *err) {
    server *srv = rq->srv;
    bool existing = false;
    making *m = calloc(1, sizeof *m);
    if (!m) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    m->srv = srv;
    m->project = project;
    char child_lock[BOUGH_ID_SIZE];
    int rc = init_rows(m, wish, err);
    if (rc) goto out;
    (void)snprintf(m->parent.id, sizeof m->parent.id, "%s",
                   wish->snapshot ? wish->snapshot : wish->parent);
    (void)snprintf(child_lock, sizeof child_lock, "%s", m->branch.id);
    if (history_is_wanted(&wish->moment)) {
        rc = bough_branches_get(&m->parent, srv->cat, project->id, wish->parent, err);
        if (!rc) rc = history_base(m->base, srv, project, &m->parent, &wish->moment, err);
        if (rc) goto out;
    }
    const char *const names[] = {m->parent.id, m->name_lock, child_lock, m->base};
    bool has_base = *m->base && strcmp(m->base, m->parent.id) != 0;
    rc = locks_take(srv->locks, names, has_base ? 4 : 3, LOCK_WAIT_MS, err);
    if (rc) goto out;
    rq->status = 201;
    rc = make(rq, m, wish, &existing, err);
    double committed_ms = bough_now_ms();
    BOUGH_POINT(rc, "create.committed");
    if (!rc && !existing && m->with_endpoint && !m->is_ready) {
        rc = computes_wait(srv, m->branch.id, "the branch was created", err);
        m->ready_ms = bough_now_ms() - committed_ms;
    }
    if (!rc && !existing && m->with_endpoint && (*m->base || wish->snapshot))
        rc = history_settle(srv, m->branch.id, m->endpoint.id, err);
    BOUGH_POINT(rc, "create.ready");
    bough_error cause = rc && err ? *err : (bough_error){0};
    if (rc && !existing) undo(m, &cause);
    lock_drop(srv->locks, child_lock);
    if (rc) goto out;
    if (existing) {
        rc = wake_existing(rq, m, err);
        goto out;
    }
    rc = answer_created(rq, m, false, err);
    if (bough_store_sync_pending(srv->store, m->branch.id)) computes_sync_later(srv, &m->branch);
    if (m->branch.expires_ms) lifecycle_wake(srv);
    bough_log(BOUGH_LOG_INFO, "branch created", "branch", m->branch.id, "parent", m->parent.id,
              "request", rq->id, NULL);
out:
    free(m->roles);
    free(m);
    return rc;
}

/* ---- exporting a branch ---- */

static int export_progress(void *context, uint64_t done_bytes, uint64_t total_bytes) {
    return flow_progress(context, "exporting", done_bytes, total_bytes);
}

/* A child that no catalogue names: gone at the end, or at the next start-up. */
static int fork_hidden(char *id, size_t size, server *srv, const bough_branch_row *branch,
                       bough_error *err) {
    static atomic_uint counter;
    bough_project_row project;
    bough_branch_row fresh;
    char **carried = NULL;
    double checkpoint_ms;
    (void)snprintf(id, size, "export-%d-%u", (int)getpid(), atomic_fetch_add(&counter, 1));
    int rc = lock_take(srv->locks, branch->id, LOCK_WAIT_MS, err);
    if (rc) return rc;
    rc = bough_branches_get(&fresh, srv->cat, branch->project_id, branch->id, err);
    if (!rc) rc = bough_projects_get(&project, srv->cat, branch->project_id, err);
    if (!rc) rc = flow_fork(NULL, &checkpoint_ms, &carried, srv, branch->id, id, err);
    lock_drop(srv->locks, branch->id);
    if (!rc) rc = flow_write_conf(srv, project.pg_major, id, id, carried, err);
    flow_free_carried(carried);
    return rc;
}

static int refuse_target(const server *srv, const char *path, int failed, bough_error *err) {
    (void)bough_fail(err, failed == ENOENT ? BOUGH_E_NOTFOUND : BOUGH_E_PRECONDITION,
                     "could not use \"%s\": %s", path, strerror(failed));
    return bough_hint(err,
                      "Name a directory that is empty or missing and that user \"%s\" can write.",
                      srv->os_user);
}

/* A directory that is being exported into. The lock on it, flock(2), keeps others away until
 * nothing more is written or removed there: other requests, and servers of other stores. */
typedef struct export_target {
    int lock_fd;
    bool is_made;
} export_target;

static int lock_target(export_target *t, const server *srv, const char *path, bough_error *err) {
    struct stat locked, there;
    t->lock_fd = bough_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (t->lock_fd < 0) return refuse_target(srv, path, errno, err);
    if (flock(t->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return refuse_target(srv, path, errno, err);
        (void)bough_fail(err, BOUGH_E_CONFLICT, "another export uses directory \"%s\"", path);
        return bough_hint(err, "Name a directory that does not exist yet.");
    }
    if (fstat(t->lock_fd, &locked) != 0 || stat(path, &there) != 0)
        return refuse_target(srv, path, errno, err);
    if (locked.st_dev == there.st_dev && locked.st_ino == there.st_ino) return BOUGH_OK;
    return refuse_target(srv, path, ENOENT, err); /* another has removed it before it was locked */
}

/* Let go of it: first of what was made. */
static void release_target(export_target *t, const char *path, bool has_failed) {
    if (has_failed && t->is_made) (void)rmdir(path);
    if (t->lock_fd >= 0) close(t->lock_fd);
}

/* Make the directory, or see that it is empty: a failed export empties it, so it must have been
 * ours from the start. */
static int claim_target(export_target *t, const server *srv, const char *path, bough_error *err) {
    char real[PATH_MAX];
    size_t n = strlen(srv->store_dir);
    *t = (export_target){-1, mkdir(path, 0700) == 0};
    if (!t->is_made && errno != EEXIST) return refuse_target(srv, path, errno, err);
    int rc = lock_target(t, srv, path, err), names = 0, failed = 0;
    if (rc) {
        t->is_made = false; /* who has the lock may need it */
        release_target(t, path, true);
        return rc;
    }
    DIR *dir = opendir(path);
    if (!dir || !realpath(path, real)) rc = refuse_target(srv, path, errno, err);
    while (dir && names <= 2 && bough_list_next(dir, &failed)) names++;
    if (!rc && failed) rc = refuse_target(srv, path, failed, err);
    if (dir) closedir(dir);
    if (!rc && names > 2) {
        (void)bough_fail(err, BOUGH_E_CONFLICT, "directory \"%s\" is not empty", path);
        rc = bough_hint(err, "Name a directory that does not exist yet.");
    }
    if (!rc && strncmp(real, srv->store_dir, n) == 0 && (real[n] == '/' || real[n] == '\0'))
        rc = bough_fail(err, BOUGH_E_INVALID, "\"%s\" is inside the store", path);
    if (rc) release_target(t, path, true);
    return rc;
}

int flow_branch_export(request *rq, const bough_branch_row *branch, const char *path,
                       bough_error *err) {
    char id[BOUGH_ID_SIZE] = "";
    export_target target;
    server *srv = rq->srv;
    int rc = claim_target(&target, srv, path, err);
    if (rc) return rc;
    rc = fork_hidden(id, sizeof id, srv, branch, err);
    BOUGH_POINT(rc, "export.forked");
    if (!rc) rc = bough_store_export(srv->store, id, path, export_progress, rq, err);
    BOUGH_POINT(rc, "export.written");
    if (bough_store_has_branch(srv->store, id)) flow_remove_files(srv, id, NULL);
    release_target(&target, path, rc != BOUGH_OK);
    return rc;
}
