/*
 * Moments of the past: "options=neon_timestamp:2026-11-23T14:03:07Z" or "neon_lsn:0/A27BB60", as
 * Neon's connection strings have them, lead to a look at that moment (docs/guide/time.md).
 *
 * A look of this kind is called by its branch and its moment, so that all who want the same share
 * it, also after a restart. It goes as every look does, when nobody has used it for a while. Who
 * asks is not known yet: making one counts as a wake, by the same limits, and a branch has
 * LOOKS_MAX at most.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/expiry.h"
#include "server/clock.h"
#include "server/door_internal.h"
#include "server/flows.h"
#include "server/history.h"
#include "server/lifecycle.h"
#include "util/log.h"
#include "util/lsn.h"
#include "util/when.h"

static const char prefix[] = "tmp-look-";

enum { LOOK_NAME_SIZE = BOUGH_ID_SIZE + 80 };

/* ---- what was asked for ---- */

/* Whether the type of endpoints is one that there is. */
static bool check_type(guest *g) {
    const hello_target *t = &g->target;
    bool is_past = *t->timestamp || *t->lsn;
    char message[160];
    if (!*t->type || strcmp(t->type, "read_only") == 0) return true;
    if (strcmp(t->type, "read_write") == 0) {
        if (!is_past) return true;
        guest_refuse(
            g, "0A000", "a moment of the past is read-only",
            "Leave out neon_endpoint_type; or make a branch of that moment, which is not.");
        return false;
    }
    (void)snprintf(message, sizeof message, "endpoints of type \"%s\" are not supported", t->type);
    guest_refuse(g, "0A000", message,
                 "For queries apart from a branch's own compute, connect to a branch of it.");
    return false;
}

bool guest_read_moment(guest *g) {
    const hello_target *t = &g->target;
    char message[160];
    bool is_good = true;
    if (!check_type(g)) return false;
    if (*t->timestamp && *t->lsn) {
        guest_refuse(g, "22023", "neon_timestamp and neon_lsn cannot be given both", NULL);
        return false;
    }
    if (*t->timestamp)
        is_good = bough_when_time_us(&g->moment.time_us, t->timestamp, NULL) == BOUGH_OK &&
                  g->moment.time_us > 0;
    else if (*t->lsn)
        is_good = bough_lsn_read(&g->moment.lsn, t->lsn) && g->moment.lsn > 0;
    if (is_good) return true;
    (void)snprintf(message, sizeof message, "\"%s\" is not a moment",
                   *t->timestamp ? t->timestamp : t->lsn);
    guest_refuse(g, *t->timestamp ? "22007" : "22023", message,
                 "Write it like options=neon_timestamp:2026-11-23T14:03:07.25Z or "
                 "options=neon_lsn:0/A27BB60.");
    return false;
}

/* ---- looks ---- */

/* A branch that was restored has another past than before. */
static void name_of(char *name, server *srv, const bough_branch_row *branch,
                    const bough_target *moment) {
    bough_origin_row origin;
    char since[32] = "";
    if (branch->has_origin && bough_origins_get(&origin, srv->cat, branch->id, NULL) == BOUGH_OK &&
        origin.restored_ms)
        (void)snprintf(since, sizeof since, "-r%" PRId64, origin.restored_ms);
    if (moment->time_us)
        (void)snprintf(name, LOOK_NAME_SIZE, "%s%s-t%" PRId64 "%s", prefix, branch->id,
                       moment->time_us, since);
    else
        (void)snprintf(name, LOOK_NAME_SIZE, "%s%s-l%" PRIx64 "%s", prefix, branch->id, moment->lsn,
                       since);
}

void look_find(char *look, server *srv, const bough_branch_row *branch,
               const bough_target *moment) {
    char name[LOOK_NAME_SIZE];
    bough_branch_row row;
    name_of(name, srv, branch, moment);
    bool found = bough_branches_find(&row, srv->cat, branch->project_id, name, NULL) == BOUGH_OK &&
                 row.is_look && strcmp(row.parent_id, branch->id) == 0;
    (void)snprintf(look, BOUGH_ID_SIZE, "%s", found ? row.id : "");
}

/* Since when nobody has used it, in ms since 1970; INT64_MAX while somebody does. */
static int64_t unused_since(const server *srv, const bough_branch_row *look) {
    compute_why why;
    computes_why(&why, srv, look->id);
    if (why.is_active && why.sessions > 0) return INT64_MAX;
    return why.is_active && why.idle_since_ms > look->created_ms ? why.idle_since_ms
                                                                 : look->created_ms;
}

/* Whether a branch is a look that a client has made of `parent`. */
static bool is_ours(const bough_branch_row *row, const bough_branch_row *parent) {
    size_t n = sizeof prefix - 1;
    return row->is_look && strcmp(row->parent_id, parent->id) == 0 &&
           strncmp(row->name, prefix, n) == 0 &&
           strncmp(row->name + n, parent->id, strlen(parent->id)) == 0;
}

/* Where there are too many of a branch, remove the one that nobody has used for longest. */
static int make_room(server *srv, const bough_project_row *project, const bough_branch_row *branch,
                     bough_error *err) {
    bough_branch_row *rows;
    bough_operation_row operation;
    const bough_branch_row *oldest = NULL;
    int64_t since_ms = INT64_MAX;
    size_t n, looks = 0;
    bool is_refused;
    int rc = bough_branches_list_live(&rows, &n, srv->cat, branch->project_id, err);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++) {
        if (!is_ours(&rows[i], branch)) continue;
        int64_t unused_ms = unused_since(srv, &rows[i]);
        looks++;
        if (unused_ms >= since_ms) continue;
        since_ms = unused_ms;
        oldest = &rows[i];
    }
    if (looks >= LOOKS_MAX && oldest && bough_now_epoch_ms() - since_ms >= LOOK_KEPT_MS) {
        rc = flow_branch_delete(&is_refused, &operation, srv, project, oldest->id, true, err);
    } else if (looks >= LOOKS_MAX) {
        (void)bough_fail(err, BOUGH_E_BUSY, "branch \"%.200s\" is looked at in %zu moments already",
                         branch->name, looks);
        rc = bough_hint(err, "Try again when nobody has used one of them for %d s.",
                        LOOK_KEPT_MS / 1000);
    }
    free(rows);
    return rc;
}

/* Make one; its name is free. */
static int make(server *srv, const bough_branch_row *branch, const char *name,
                const bough_target *moment, bough_error *err) {
    bough_project_row project;
    clock_moment now;
    branch_wish wish = {.name = name,
                        .parent = branch->id,
                        .moment = *moment,
                        .with_endpoint = true,
                        .is_look = true,
                        .keeps_passwords = true,
                        .ttl_seconds = BOUGH_LOOK_SECONDS};
    request *rq = calloc(1, sizeof *rq); /* as if one had come by the API */
    if (!rq) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    rq->srv = srv;
    rq->received_ms = bough_now_ms();
    int rc = bough_projects_get(&project, srv->cat, branch->project_id, err);
    if (!rc && branch->is_look)
        rc = bough_fail(err, BOUGH_E_INVALID, "a look has no past of its own");
    if (!rc) rc = make_room(srv, &project, branch, err);
    if (!rc) rc = clock_begin(&now, srv->clock, err);
    if (!rc) {
        wish.expires_ms = now.latest_ms + (int64_t)BOUGH_LOOK_SECONDS * 1000;
        rc = flow_branch_create(rq, &project, &wish, err);
    }
    json_decref(rq->answer);
    free(rq);
    return rc;
}

int look_use(char *look, server *srv, const bough_branch_row *branch, const bough_target *moment,
             bough_error *err) {
    char name[LOOK_NAME_SIZE], lock[BOUGH_ID_SIZE + 8];
    bough_branch_row row;
    bough_endpoint_row endpoint;
    (void)snprintf(lock, sizeof lock, "looks:%s", branch->id); /* they are counted */
    int rc = lock_take(srv->locks, lock, LOCK_WAIT_MS, err);
    if (rc) return rc;
    name_of(name, srv, branch, moment);
    look_find(look, srv, branch, moment);
    if (!*look) rc = make(srv, branch, name, moment, err);
    lock_drop(srv->locks, lock);
    if (rc)
        bough_log(BOUGH_LOG_WARN, "could not look at a moment", "branch", branch->id, "error",
                  err->message, NULL);
    if (!rc) rc = bough_branches_find(&row, srv->cat, branch->project_id, name, err);
    if (!rc) rc = bough_endpoints_of_branch(&endpoint, srv->cat, row.id, err);
    if (!rc)
        rc = computes_use(srv, &row, &endpoint,
                          (compute_cause){"a connection to a moment of the past", false}, err);
    if (!rc) memcpy(look, row.id, BOUGH_ID_SIZE);
    return rc;
}
