/* The past of branches. See history.h. */
#include "server/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/rules.h"
#include "model/thinning.h"
#include "server/answer.h"
#include "server/clock.h"
#include "server/computes.h"
#include "server/inside.h"
#include "server/space.h"
#include "util/log.h"
#include "util/lsn.h"

/** Even a quiet branch gets one as its history moves on: WAL is forgotten from point to point. */
#define POINTS_PER_RETENTION 8

/** Of PostgreSQL's WAL, XLOG_BLCKSZ. */
#define WAL_PAGE 8192

enum { MOST_GENERATIONS = 1024 };

static int check_age(const bough_project_row *project, int64_t time_us, int64_t now_us,
                     bough_error *err) {
    char when[40];
    int64_t from_us = now_us - project->history_retention_seconds * 1000000;
    if (time_us >= from_us) return BOUGH_OK;
    answer_time(when, sizeof when, from_us / 1000);
    (void)bough_fail(err, BOUGH_E_INVALID, "the moment is before the history that is kept");
    return bough_hint(err, "The project keeps history from %s on.", when);
}

/* A time that is to come or older than what is kept, and a project that keeps nothing. */
static int check_window(const bough_project_row *project, const bough_target *target,
                        bough_error *err) {
    int64_t now_us = bough_now_epoch_ms() * 1000;
    if (project->history_retention_seconds == 0) {
        (void)bough_fail(err, BOUGH_E_PRECONDITION, "project \"%.200s\" keeps no history",
                         project->name);
        return bough_hint(err, "Set its history_retention_seconds; history begins then.");
    }
    if (!target->time_us) return BOUGH_OK;
    if (target->time_us > now_us + 1000)
        return bough_fail(err, BOUGH_E_INVALID, "the moment is in the future");
    return check_age(project, target->time_us, now_us, err);
}

static bool is_reached(const bough_point *oldest, const bough_target *target) {
    return target->time_us ? oldest->time_ms * 1000 <= target->time_us : oldest->lsn <= target->lsn;
}

/*
 * Where the history of a branch begins to be its own. Where the store does not know that, LSNs
 * before its oldest restore point may be its own or its parent's; times are told by the catalogue.
 */
static int find_begin(bough_point *begin, server *srv, const bough_branch_row *row,
                      bough_error *err) {
    bough_origin_row origin;
    int rc = bough_store_begin(begin, srv->store, row->id, err);
    if (rc != BOUGH_E_NOTFOUND) return rc;
    bough_error_clear(err);
    *begin = (bough_point){.time_ms = row->created_ms};
    if (bough_origins_get(&origin, srv->cat, row->id, NULL) == BOUGH_OK &&
        origin.restored_ms > begin->time_ms)
        begin->time_ms = origin.restored_ms;
    return BOUGH_OK;
}

/* Whether an LSN is older than the window: WAL had gone on from there before that began. What tells
 * is the next restore point, so one that is a little older may pass, until history is forgotten. A
 * point may be at the end of a page of which little is written: of a quiet branch, the present. */
static int check_lsn(const bough_point *points, size_t n, const bough_project_row *project,
                     const bough_target *target, bough_error *err) {
    size_t i = 0;
    while (i < n && (points[i].lsn <= target->lsn || points[i].lsn - target->lsn < WAL_PAGE)) i++;
    if (!target->lsn || i == n) return BOUGH_OK;
    return check_age(project, points[i].time_ms * 1000, bough_now_epoch_ms() * 1000, err);
}

static int fail_forgotten(const bough_branch_row *row, const bough_point *points, size_t n,
                          bough_error *err) {
    char when[40];
    (void)bough_fail(err, BOUGH_E_NOTFOUND,
                     "the history of branch \"%.200s\" does not reach back so far", row->name);
    if (!n) return bough_hint(err, "What was kept of it has been forgotten.");
    answer_time(when, sizeof when, points[0].time_ms);
    return bough_hint(err, "What is kept of it begins at %s, LSN %s.", when,
                      BOUGH_LSN_TEXT(points[0].lsn));
}

/* Whether a branch has the moment; its parent may have what is before its begin, and only that. */
static int look_into(bool *has, server *srv, const bough_project_row *project,
                     const bough_branch_row *row, const bough_target *target, bough_error *err) {
    bough_point *points, begin;
    size_t n;
    *has = false;
    int rc = bough_store_points(&points, &n, srv->store, row->id, err);
    if (rc) return rc;
    if (n > 0 && is_reached(&points[0], target)) {
        *has = true;
        rc = check_lsn(points, n, project, target, err);
    } else {
        rc = find_begin(&begin, srv, row, err);
        if (!rc && is_reached(&begin, target)) rc = fail_forgotten(row, points, n, err);
    }
    free(points);
    return rc;
}

int history_base(char *base, server *srv, const bough_project_row *project,
                 const bough_branch_row *branch, const bough_target *target, bough_error *err) {
    bough_branch_row row = *branch;
    int rc = check_window(project, target, err);
    for (int i = 0; !rc && i < MOST_GENERATIONS; i++) {
        bool has;
        rc = look_into(&has, srv, project, &row, target, err);
        if (rc) return rc;
        if (has) {
            (void)snprintf(base, BOUGH_ID_SIZE, "%s", row.id);
            return BOUGH_OK;
        }
        char parent[BOUGH_ID_SIZE];
        (void)snprintf(parent, sizeof parent, "%s", row.parent_id);
        if (!*parent || bough_branches_get_any(&row, srv->cat, parent, NULL)) break;
    }
    if (rc) return rc;
    (void)bough_fail(err, BOUGH_E_NOTFOUND,
                     "the history of branch \"%.200s\" does not reach back so far", branch->name);
    return bough_hint(err, "It begins when the branch, or the project, was made.");
}

int history_check_base(const char *base, server *srv, const bough_project_row *project,
                       const bough_branch_row *branch, const bough_target *target,
                       bough_error *err) {
    char now[BOUGH_ID_SIZE];
    int rc = history_base(now, srv, project, branch, target, err);
    if (rc || strcmp(now, base) == 0) return rc;
    (void)bough_fail(err, BOUGH_E_BUSY, "the past of branch \"%.200s\" was changed by a restore",
                     branch->name);
    return bough_hint(err, "Try again.");
}

int history_fork(bough_cut *cut, server *srv, const char *base, const bough_target *target,
                 const char *child, bough_error *err) {
    bough_shm *live;
    int rc = computes_shm(&live, srv, base, err);
    return rc ? rc : bough_store_fork_at(cut, srv->store, base, target, child, live, err);
}

bool history_is_kept(server *srv, const bough_branch_row *branch) {
    bough_project_row project;
    /* a project in the making is not in the catalogue yet */
    return bough_projects_get(&project, srv->cat, branch->project_id, NULL) != BOUGH_OK ||
           project.history_retention_seconds > 0;
}

/* ---- what a past cluster holds ---- */

static bool has_role(const inside_contents *c, const char *name) {
    for (size_t i = 0; i < c->n_roles; i++)
        if (strcmp(c->roles[i].name, name) == 0) return true;
    return false;
}

static bool has_database(const inside_contents *c, const char *name) {
    for (size_t i = 0; i < c->n_databases; i++)
        if (strcmp(c->databases[i].name, name) == 0) return true;
    return false;
}

/* `endpoint` NULL: passwords stay as they are. */
static int settle_role(server *srv, const bough_role_row *row, const inside_contents *c,
                       const char *endpoint, bough_error *err) {
    char password[BOUGH_SECRET_SIZE] = "";
    if (!has_role(c, row->name))
        return bough_roles_delete(srv->cat, row->branch_id, row->name, err);
    if (row->secret_size == 0 || !endpoint) return BOUGH_OK;
    int rc = bough_secret_open(password, sizeof password, &srv->key, row->name, row->secret,
                               row->secret_size, err);
    if (!rc) rc = inside_set_password(srv, endpoint, row->name, password, err);
    explicit_bzero(password, sizeof password);
    if (rc || !row->is_unsure) return rc;
    bough_role_row sure = *row;
    sure.is_unsure = false;
    return bough_roles_set_secret(srv->cat, &sure, err);
}

static int settle_databases(server *srv, const char *branch, inside_contents *c, bough_error *err) {
    bough_database_row *rows = NULL;
    size_t n = 0;
    int rc = bough_databases_list(&rows, &n, srv->cat, branch, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (!has_database(c, rows[i].name))
            rc = bough_databases_delete(srv->cat, branch, rows[i].name, err);
    for (size_t i = 0; !rc && i < c->n_databases; i++) {
        bough_database_row *d = &c->databases[i];
        const bough_database_row *known = NULL;
        for (size_t k = 0; k < n && !known; k++)
            if (strcmp(rows[k].name, d->name) == 0) known = &rows[k];
        if (!has_role(c, d->owner) || (known && strcmp(known->owner, d->owner) == 0)) continue;
        if (known) {
            rc = bough_databases_update(srv->cat, known->id, d->name, d->owner, err);
            continue;
        }
        (void)snprintf(d->branch_id, sizeof d->branch_id, "%s", branch);
        d->created_ms = d->updated_ms = bough_now_epoch_ms();
        rc = bough_databases_insert(srv->cat, d, err);
    }
    free(rows);
    return rc;
}

/* Let the catalogue know what is there. */
static int settle(server *srv, const char *branch, const char *endpoint, bool sets_passwords,
                  bough_error *err) {
    inside_contents c = {0};
    bough_role_row *rows = NULL;
    size_t n = 0;
    int rc = inside_discover(&c, srv, endpoint, err);
    if (!rc) rc = bough_roles_list(&rows, &n, srv->cat, branch, err);
    for (size_t i = 0; !rc && i < n; i++)
        rc = settle_role(srv, &rows[i], &c, sets_passwords ? endpoint : NULL, err);
    for (size_t i = 0; !rc && i < c.n_roles; i++) {
        bool known = false;
        for (size_t k = 0; k < n && !known; k++) known = strcmp(rows[k].name, c.roles[i].name) == 0;
        if (known) continue;
        (void)snprintf(c.roles[i].branch_id, sizeof c.roles[i].branch_id, "%s", branch);
        c.roles[i].created_ms = c.roles[i].updated_ms = bough_now_epoch_ms();
        rc = bough_roles_insert(srv->cat, &c.roles[i], err);
    }
    if (!rc) rc = settle_databases(srv, branch, &c, err);
    free(rows);
    inside_contents_free(&c);
    return rc;
}

int history_settle(server *srv, const char *branch, const char *endpoint, bough_error *err) {
    int rc = settle(srv, branch, endpoint, true, err);
    return rc ? bough_context(err, "roles and databases of the moment") : rc;
}

int history_look(server *srv, const char *branch, const char *endpoint, bough_error *err) {
    return settle(srv, branch, endpoint, false, err);
}

/* ---- the clock ---- */

static void complain(const char *what, const char *branch, const bough_error *err) {
    bough_log(BOUGH_LOG_WARN, what, "branch", branch, "error", err->message, NULL);
}

/*
 * Whether it is time for a restore point. A branch that starts from one replays from the redo
 * location of the checkpoint before it: it is best made when a checkpoint has just been completed.
 * Where none is for long, it is made all the same.
 */
static bool is_due(const server *srv, const bough_point *points, size_t n, uint64_t wal_end,
                   uint64_t redo, const bough_project_row *project) {
    if (n == 0) return true;
    const bough_point *last = &points[n - 1];
    if (redo > last->redo && redo - last->redo >= srv->point_bytes / 2 && wal_end > last->lsn)
        return true;
    if (wal_end > last->lsn && wal_end - last->lsn >= srv->point_latest_bytes) return true;
    int64_t age_ms = bough_now_epoch_ms() - last->time_ms;
    /* the point is exact, the end of the WAL is that of a page */
    return wal_end > (last->lsn + WAL_PAGE - 1) / WAL_PAGE * WAL_PAGE &&
           age_ms > project->history_retention_seconds * 1000 / POINTS_PER_RETENTION;
}

/* (locked) */
static int make_point(bool *is_changed, server *srv, const bough_project_row *project,
                      const bough_branch_row *branch, bough_error *err) {
    bough_shm *live;
    bough_point *points = NULL;
    size_t n;
    uint64_t wal_end;
    unsigned lost;
    int rc = computes_shm(&live, srv, branch->id, err);
    if (rc || !live || bough_store_sync_pending(srv->store, branch->id)) return rc;
    bough_shm_history(&wal_end, &lost, live);
    rc = bough_store_points(&points, &n, srv->store, branch->id, err);
    if (!rc && lost)
        bough_log(BOUGH_LOG_ERROR, "the history of a branch has a gap: WAL could not be kept",
                  "branch", branch->id, NULL);
    /* one that has written nothing since its start gets its first, too */
    if (!rc && (wal_end || n == 0) &&
        is_due(srv, points, n, wal_end, bough_shm_redo(live), project)) {
        bough_fork_result made;
        *is_changed = true;
        rc = bough_store_point(&made, srv->store, branch->id, live, err);
        if (!rc && made.sealed) computes_sync_later(srv, branch);
        char gate[32];
        (void)snprintf(gate, sizeof gate, "%.2f", made.gate_ms);
        if (!rc)
            bough_log(BOUGH_LOG_INFO, "restore point made", "branch", branch->id, "gate_ms", gate,
                      NULL);
    }
    free(points);
    return rc;
}

/*
 * (locked) The branch keeps history as its project says. Its compute is told at every look: it may
 * have been in use when that was changed. Where none was kept no restore point stays, since the WAL
 * behind it may have been given back: history begins with the next one.
 */
static int follow_project(bool *is_changed, server *srv, const bough_project_row *project,
                          const bough_branch_row *branch, bough_error *err) {
    bool keeps = project->history_retention_seconds > 0;
    bough_shm *live = NULL;
    if (branch->is_snapshot) return BOUGH_OK;
    /* one that is starting is told when it is ready */
    int rc =
        computes_is_active(srv, branch->id) ? computes_shm(&live, srv, branch->id, err) : BOUGH_OK;
    if (rc || (keeps && (!live || bough_shm_keeps_history(live)))) return rc;
    if (live && !keeps) bough_shm_keep_history(live, false);
    rc = bough_store_forget_all(is_changed, srv->store, branch->id, err);
    if (!rc && live && keeps) bough_shm_keep_history(live, true);
    return rc;
}

/* (locked) What the project says, and a restore point if one is due. */
static void follow(bool *is_changed, server *srv, const bough_project_row *project,
                   const bough_branch_row *branch) {
    bough_error err = {0};
    if (follow_project(is_changed, srv, project, branch, &err) != BOUGH_OK)
        complain("a branch does not keep history as its project says", branch->id, &err);
    else if (project->history_retention_seconds > 0 && computes_is_active(srv, branch->id) &&
             !atomic_load(&srv->is_disk_low) &&
             make_point(is_changed, srv, project, branch, &err) != BOUGH_OK)
        complain("no restore point", branch->id, &err);
}

/* (locked) Older restore points become fewer. The oldest stays, for the history begins there. */
static int thin(bool *is_changed, server *srv, const bough_project_row *project, const char *branch,
                bough_error *err) {
    bough_point *points;
    size_t n;
    int rc = bough_store_points(&points, &n, srv->store, branch, err);
    bool *keep = rc || n < 3 ? NULL : calloc(n, sizeof *keep);
    if (keep)
        bough_thinning_choose(keep, points, n, srv->point_bytes,
                              project->history_retention_seconds * 1000 / POINTS_PER_RETENTION);
    for (size_t i = 0; keep && !rc && i < n; i++) {
        if (keep[i]) continue;
        *is_changed = true;
        rc = bough_store_point_forget(srv->store, branch, points[i].name, err);
    }
    free(keep);
    free(points);
    return rc;
}

int64_t history_keep_from(server *srv, const bough_project_row *project) {
    clock_moment moment;
    clock_look(&moment, srv->clock);
    return moment.now_ms - project->history_retention_seconds * 1000;
}

/* What is done to each branch. Returns whether something of it may have changed. */
typedef bool (*branch_call)(server *, const bough_project_row *, const bough_branch_row *);

/* (locked) What is older than the window. */
static bool forget_one(server *srv, const bough_project_row *project,
                       const bough_branch_row *branch) {
    bough_error err = {0};
    bool is_changed = false;
    if (bough_store_prune(&is_changed, srv->store, branch->id, history_keep_from(srv, project),
                          &err) != BOUGH_OK)
        complain("could not forget old history", branch->id, &err);
    return is_changed;
}

/* (locked) Restore points that are due, and what is older than the window. */
static bool keep_one(server *srv, const bough_project_row *project,
                     const bough_branch_row *branch) {
    bough_error err = {0};
    bool is_changed = false;
    follow(&is_changed, srv, project, branch);
    if (thin(&is_changed, srv, project, branch->id, &err) != BOUGH_OK)
        complain("could not make restore points fewer", branch->id, &err);
    return forget_one(srv, project, branch) || is_changed;
}

/* Returns how many were in use. */
static unsigned each_branch(server *srv, const char *project_id, branch_call call) {
    bough_branch_row *rows = NULL;
    size_t n = 0;
    unsigned busy = 0;
    bough_project_row project;
    bough_error err;
    if (bough_branches_list(&rows, &n, srv->cat, project_id, &err) != BOUGH_OK) {
        complain("could not look after history", "", &err);
        return 0;
    }
    for (size_t i = 0; i < n && !atomic_load(&srv->stopping); i++) {
        if (lock_take(srv->locks, rows[i].id, 0, NULL) != BOUGH_OK) { /* the next time */
            busy++;
            continue;
        }
        /* with the lock: who changes it acts on the branch after that, or leaves it to us */
        bool is_changed =
            bough_projects_get(&project, srv->cat, rows[i].project_id, NULL) == BOUGH_OK &&
            bough_store_has_branch(srv->store, rows[i].id) && call(srv, &project, &rows[i]);
        /* else the bytes of every branch would have to be measured anew after each round */
        (is_changed ? lock_drop : lock_drop_unchanged)(srv->locks, rows[i].id);
    }
    free(rows);
    return busy;
}

void history_tick(server *srv) {
    space_tick(srv);
    (void)each_branch(srv, NULL, keep_one);
}

/* Whether it was looked at. */
static bool checkpointed(server *srv, const char *branch) {
    bough_branch_row row;
    bough_project_row project;
    bool is_changed = false;
    if (lock_take(srv->locks, branch, 0, NULL) != BOUGH_OK) return false; /* the next time */
    if (bough_store_has_branch(srv->store, branch) &&
        bough_branches_get_any(&row, srv->cat, branch, NULL) == BOUGH_OK &&
        bough_projects_get(&project, srv->cat, row.project_id, NULL) == BOUGH_OK)
        follow(&is_changed, srv, &project, &row);
    (is_changed ? lock_drop : lock_drop_unchanged)(srv->locks, branch);
    return true;
}

void history_checkpoints(server *srv) {
    computes_checkpoint *found;
    size_t n = computes_checkpointed(&found, srv);
    for (size_t i = 0; i < n && !atomic_load(&srv->stopping); i++)
        if (checkpointed(srv, found[i].branch)) computes_saw_checkpoint(srv, &found[i]);
    free(found);
}

unsigned history_forget(server *srv) {
    return each_branch(srv, NULL, forget_one);
}

void history_changed(server *srv, const bough_project_row *project) {
    (void)each_branch(srv, project->id, keep_one); /* one that is in use is told by the clock */
}
