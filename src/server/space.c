/*
 * The reserve of the disk. See space.h.
 *
 * WAL that is kept for history is WAL that a branch cannot write any more where the disk is full,
 * and a PostgreSQL that cannot write WAL stops. So the past goes first. No restore point is made
 * meanwhile (history.c); the history of a branch that has lost all of it begins again when space
 * has returned.
 */
#include "server/space.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "util/log.h"

/** This part of the file system is kept free, within bounds; space has returned at half as much
 * again. */
#define RESERVE_PART 16
#define RESERVE_LEAST ((uint64_t)64 << 20)
#define RESERVE_MOST ((uint64_t)1 << 30)

typedef struct space {
    uint64_t free_bytes, reserve_bytes;
} space;

static int look(space *s, const server *srv, bough_error *err) {
    struct statvfs fs;
    if (statvfs(srv->store_dir, &fs) != 0)
        return bough_fail_sys(err, errno, "could not ask how full \"%s\" is", srv->store_dir);
    s->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    s->reserve_bytes = (uint64_t)fs.f_blocks * fs.f_frsize / RESERVE_PART;
    if (s->reserve_bytes < RESERVE_LEAST) s->reserve_bytes = RESERVE_LEAST;
    if (s->reserve_bytes > RESERVE_MOST) s->reserve_bytes = RESERVE_MOST;
    return BOUGH_OK;
}

#define ONLY_WAL INT64_MAX

typedef struct past {
    char branch[BOUGH_ID_SIZE];
    int64_t begins_ms; /* 0: there is none, or it cannot go now; ONLY_WAL: no restore point is left,
                        * but WAL may have been kept since */
} past;

static void read_past(past *p, server *srv) {
    bough_point *points;
    size_t n;
    p->begins_ms = 0;
    if (bough_store_points(&points, &n, srv->store, p->branch, NULL) != BOUGH_OK) return;
    p->begins_ms = n ? points[0].time_ms : ONLY_WAL;
    free(points);
}

static int list_pasts(past **list, size_t *n, server *srv, bough_error *err) {
    bough_branch_row *rows = NULL;
    size_t n_rows = 0;
    *n = 0;
    int rc = bough_branches_list(&rows, &n_rows, srv->cat, NULL, err);
    *list = rc ? NULL : calloc(n_rows + 1, sizeof **list);
    if (!rc && !*list) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < n_rows; i++) {
        if (rows[i].is_snapshot) continue; /* kept until somebody deletes it */
        past *p = &(*list)[(*n)++];
        memcpy(p->branch, rows[i].id, sizeof p->branch);
        read_past(p, srv);
    }
    free(rows);
    return rc;
}

static past *oldest(past *list, size_t n) {
    past *found = NULL;
    for (size_t i = 0; i < n; i++)
        if (list[i].begins_ms && (!found || list[i].begins_ms < found->begins_ms)) found = &list[i];
    return found;
}

/* Whether something has gone. */
static bool shorten(past *p, server *srv) {
    bough_error err = {0};
    if (lock_take(srv->locks, p->branch, 0, NULL) != BOUGH_OK) {
        p->begins_ms = 0; /* the next time */
        return false;
    }
    int rc = bough_store_has_branch(srv->store, p->branch)
                 ? bough_store_forget_oldest(srv->store, p->branch, &err)
                 : BOUGH_E_NOTFOUND;
    lock_drop(srv->locks, p->branch);
    if (rc && rc != BOUGH_E_NOTFOUND)
        bough_log(BOUGH_LOG_WARN, "could not shorten the history of a branch", "branch", p->branch,
                  "error", err.message, NULL);
    if (rc) {
        p->begins_ms = 0;
        return false;
    }
    if (p->begins_ms == ONLY_WAL) {
        p->begins_ms = 0;
        return true;
    }
    bough_log(BOUGH_LOG_WARN, "the disk is nearly full: the oldest history of a branch is dropped",
              "branch", p->branch, NULL);
    read_past(p, srv);
    if (p->begins_ms == ONLY_WAL) p->begins_ms = 0; /* its WAL went with the last point */
    return true;
}

void space_tick(server *srv) {
    bough_error err = {0};
    space s = {0};
    past *list = NULL, *p;
    size_t n = 0, dropped = 0;
    int rc = look(&s, srv, &err);
    bool was_low = atomic_load(&srv->is_disk_low);
    uint64_t wanted = s.reserve_bytes + s.reserve_bytes / 2;
    if (!rc && s.free_bytes >= (was_low ? wanted : s.reserve_bytes)) {
        atomic_store(&srv->is_disk_low, false);
        return;
    }
    if (!rc) atomic_store(&srv->is_disk_low, true);
    if (!rc) rc = list_pasts(&list, &n, srv, &err);
    while (!rc && s.free_bytes < wanted && !atomic_load(&srv->stopping) &&
           (p = oldest(list, n)) != NULL) {
        if (!shorten(p, srv)) continue;
        dropped++;
        rc = look(&s, srv, &err);
    }
    if (!rc && dropped) rc = bough_store_collect_all(srv->store, &err);
    if (!rc && dropped) rc = bough_store_purge(srv->store, &err);
    free(list);
    if (rc)
        bough_log(BOUGH_LOG_WARN, "could not make room on the disk", "error", err.message, NULL);
}
