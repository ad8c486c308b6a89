/*
 * Restore points, and branches that start from one.
 *
 *   branches/B/points/NAME/     NAME: LSN of the moment, 16 hexadecimal digits, so names sort by it
 *     control                   pg_control of the moment
 *     stack                     the layers that the branch stood on
 *     meta                      LSN, redo point, time
 *     pg_twophase/ pg_logical/  what recovery needs beside WAL
 *   branches/B/begins           the meta of its first moment: stays when that point has gone
 *   branches/B/history/         WAL segments that left pg_wal (src/preload/wal.c)
 *
 * All WAL from the oldest point's redo on is in history or in pg_wal. A branch at a moment is made
 * of the newest point before it and that WAL, cut behind the last record that belongs to it;
 * PostgreSQL's crash recovery does the rest. Pages that a power cut took from a layer are repaired
 * by it, too: they were written after the redo point.
 */
#include "store/point.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload/path.h"
#include "store/seal.h"
#include "store/walscan.h"
#include "util/lsn.h"
#include "util/crashpoint.h"

#define META_MAX 4096
#define BEGINS "begins"
#define XLOG_PAGE UINT64_C(8192)

/* ---- writing ---- */

/* Not durable yet: the whole directory is synced at once. */
static int write_plain(const char *dir, const char *name, const void *data, size_t size,
                       bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/%s", dir, name);
    int fd = rc ? -1 : bough_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (!rc && (fd < 0 || bough_write_full(fd, data, size) != 0))
        rc = bough_fail_sys(err, errno, "could not write \"%s\"", path);
    if (fd >= 0) close(fd);
    return rc;
}

/* The two-phase files and origins of a moment, where there are any. */
static int write_state(const char *from, const char *dest, bough_error *err) {
    static const char *const names[] = {"pg_twophase", "pg_logical"};
    char path[BOUGH_PATH_MAX];
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < 2; i++) {
        rc = bough_path(path, sizeof path, err, "%s/%s", dest, names[i]);
        if (!rc) rc = bough_mkdirs(path, 0700, err);
    }
    if (!rc) rc = bough_moment_link_state(from, dest, err);
    for (size_t i = 0; !rc && i < 2; i++)
        if (bough_path(path, sizeof path, NULL, "%s/%s", dest, names[i]) == 0) (void)rmdir(path);
    return rc;
}

static int write_point(const bough_store *store, const char *dir, const bough_moment *m,
                       uint64_t lsn, const char *state_from, bough_error *err) {
    char points[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX], temp[BOUGH_PATH_MAX], from[BOUGH_PATH_MAX],
        to[BOUGH_PATH_MAX], text[256];
    int rc = bough_branch_path(points, store, dir, "/points", err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/%016" PRIx64, points, lsn);
    if (rc || access(path, F_OK) == 0) return rc; /* nothing has happened since */
    rc = bough_path(temp, sizeof temp, err, "%s/new~", points);
    if (!rc) rc = bough_rmtree(temp, err);
    if (!rc) rc = bough_mkdirs(temp, 0700, err);
    if (!rc) rc = write_state(state_from, temp, err);
    if (!rc) rc = write_plain(temp, "control", m->control, m->control_bytes, err);
    int n = snprintf(text, sizeof text,
                     "bough-point 1\nlsn %016" PRIx64 "\nredo %016" PRIx64 "\ntime_ms %" PRId64
                     "\nend\n",
                     lsn, m->redo, m->time_ms);
    if (!rc) rc = write_plain(temp, "meta", text, (size_t)n, err);
    /* a seal replaces the branch's stack by rename: this one stays as it is */
    if (!rc) rc = bough_branch_path(from, store, dir, "/stack", err);
    if (!rc) rc = bough_path(to, sizeof to, err, "%s/stack", temp);
    if (!rc && link(from, to) != 0) rc = bough_fail_sys(err, errno, "could not link \"%s\"", from);
    BOUGH_POINT(rc, "point.stack-linked");
    if (!rc) rc = bough_fsync_tree(temp, err);
    if (!rc && rename(temp, path) != 0)
        rc = bough_fail_sys(err, errno, "could not rename \"%s\"", temp);
    BOUGH_POINT(rc, "point.made");
    return rc ? rc : bough_fsync_path(points, err);
}

int bough_point_write(const bough_store *store, const char *dir, const bough_moment *m,
                      const char *state_from, bough_error *err) {
    return write_point(store, dir, m, bough_moment_lsn(m), state_from, err);
}

typedef struct first {
    const bough_moment *moment;
    const char *pgdata;
} first;

static int open_first(void *context, uint32_t tli, uint64_t number) {
    const first *f = context;
    char name[32], path[BOUGH_PATH_MAX];
    (void)tli;
    bough_moment_segment_name(name, sizeof name, f->moment, number);
    if (bough_path(path, sizeof path, NULL, "%s/pg_wal/%s", f->pgdata, name) != BOUGH_OK) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return bough_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
}

/* A link, so that nothing more is to be synced: where a power cut takes it away, the branch does
 * not know where it begins, as one that an older version made. */
static int note_begin(const bough_store *store, const char *dir, uint64_t lsn, bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
    int rc = bough_branch_path(to, store, dir, "/" BEGINS, err);
    if (!rc)
        rc = bough_path(from, sizeof from, err, "%s/branches/%s/points/%016" PRIx64 "/meta",
                        store->dir, dir, lsn);
    if (!rc && link(from, to) != 0)
        rc = bough_fail_sys(err, errno, "could not link \"%s\" to \"%s\"", from, to);
    return rc;
}

int bough_point_write_first(const bough_store *store, const char *dir, const bough_moment *m,
                            const char *pgdata, bough_error *err) {
    first f = {m, pgdata};
    bough_wal_source source = {
        .tli = m->tli, .segment_bytes = m->segment_bytes, .open = open_first, .context = &f};
    uint64_t lsn = bough_moment_lsn(m);
    int rc = m->is_at_checkpoint ? BOUGH_OK : bough_wal_last_end(&lsn, &source, lsn, err);
    if (!rc) rc = write_point(store, dir, m, lsn, pgdata, err);
    return rc ? rc : note_begin(store, dir, lsn, err);
}

typedef struct making {
    bough_seal seal;
    bough_moment moment;
    char state[BOUGH_PATH_MAX]; /* two-phase files, linked while nothing moves */
} making;

/* (bough_seal_link) */
static int link_state(void *context, const bough_moment *moment, const char *pgdata,
                      bough_error *err) {
    (void)moment;
    return bough_moment_link_state(pgdata, context, err);
}

static int state_dirs(const char *state, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_rmtree(state, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_twophase", state);
    if (!rc) rc = bough_mkdirs(path, 0700, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_logical", state);
    return rc ? rc : bough_mkdirs(path, 0700, err);
}

int bough_store_point(bough_fork_result *result, bough_store *store, const char *branch,
                      bough_shm *live, bough_error *err) {
    bough_fork_result spare;
    if (!result) result = &spare;
    memset(result, 0, sizeof *result);
    making *m = calloc(1, sizeof *m);
    if (!m) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = bough_branch_path(m->state, store, branch, "/state~", err);
    if (!rc) rc = state_dirs(m->state, err);
    if (!rc) rc = bough_seal_begin(&m->seal, store, branch, err);
    if (!rc)
        rc = bough_seal_take(&m->seal, &m->moment, result, store, live ? live->header : NULL,
                             link_state, m->state, err);
    BOUGH_POINT(rc, "point.taken");
    if (!rc) rc = bough_point_write(store, branch, &m->moment, m->state, err);
    bough_seal_end(&m->seal, store);
    if (m->state[0]) bough_ignore(bough_rmtree(m->state, NULL));
    free(m);
    if (rc) (void)bough_context(err, "could not make a restore point of \"%s\"", branch);
    return rc;
}

/* ---- reading ---- */

static int read_meta(bough_point *point, const char *path, bough_error *err) {
    char *text = NULL;
    size_t n;
    memset(point, 0, sizeof *point);
    int rc = bough_read_file(&text, &n, path, META_MAX, err);
    if (rc) return rc;
    int got =
        sscanf(text, "bough-point 1\nlsn %" SCNx64 "\nredo %" SCNx64 "\ntime_ms %" SCNd64 "\nend",
               &point->lsn, &point->redo, &point->time_ms);
    free(text);
    return got == 3 ? BOUGH_OK : bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" is damaged", path);
}

static int read_point(bough_point *point, const bough_store *store, const char *branch,
                      const char *name, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/branches/%s/points/%s/meta", store->dir, branch,
                        name);
    if (!rc) rc = read_meta(point, path, err);
    (void)snprintf(point->name, sizeof point->name, "%.16s", name);
    return rc;
}

int bough_store_begin(bough_point *begin, const bough_store *store, const char *branch,
                      bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_branch_path(path, store, branch, "/" BEGINS, err);
    return rc ? rc : read_meta(begin, path, err);
}

static int by_lsn(const void *a, const void *b) {
    const bough_point *x = a, *y = b;
    return (x->lsn > y->lsn) - (x->lsn < y->lsn);
}

int bough_store_points(bough_point **points, size_t *n, const bough_store *store,
                       const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    size_t room = 0;
    *points = NULL;
    *n = 0;
    int rc = bough_branch_path(path, store, branch, "/points", err);
    if (rc) return rc;
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? BOUGH_OK
                               : bough_fail_sys(err, errno, "could not list \"%s\"", path);
    const struct dirent *d;
    int failed = 0;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
        if (strspn(d->d_name, "0123456789abcdef") != 16 || d->d_name[16]) continue;
        if (*n == room) {
            room = room ? room * 2 : 16;
            bough_point *more = realloc(*points, room * sizeof *more);
            if (!more) {
                rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
                break;
            }
            *points = more;
        }
        rc = read_point(&(*points)[*n], store, branch, d->d_name, err);
        if (!rc) ++*n;
    }
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", path);
    closedir(dir);
    if (rc) {
        free(*points);
        *points = NULL;
        *n = 0;
    } else if (*n > 1) {
        qsort(*points, *n, sizeof **points, by_lsn);
    }
    return rc;
}

/* ---- branching from a moment of the past ---- */

/* So near the end of what a running compute has written, a record may be there in part. */
#define BEING_WRITTEN ((uint64_t)64 << 10)

typedef struct at {
    bough_store *store;
    const char *branch, *child;
    bough_point point;
    uint64_t newest; /* LSN of the branch's newest point */
    bough_moment moment, present;
    bough_wal_found found;
    bool is_whole; /* all records before the cut are, so that recovery must come to it */
    char temp[BOUGH_PATH_MAX], dest[BOUGH_PATH_MAX];
} at;

/* A segment's path: in the history, else in pg_wal; it may move from here to there meanwhile. */
static int find_segment(char *path, const at *a, uint64_t number) {
    static const char *const places[] = {"history", "pgdata/pg_wal", "history"};
    char name[32];
    bough_moment_segment_name(name, sizeof name, &a->moment, number);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (bough_path(path, BOUGH_PATH_MAX, NULL, "%s/branches/%s/%s/%s", a->store->dir, a->branch,
                       places[i], name) == BOUGH_OK &&
            (access(path, R_OK) == 0 || errno != ENOENT))
            return 0; /* what else is wrong with it, its reader tells */
    errno = ENOENT;
    return -1;
}

static int open_segment(void *context, uint32_t tli, uint64_t number) {
    char path[BOUGH_PATH_MAX];
    (void)tli;
    for (int tries = 0; tries < 3 && find_segment(path, context, number) == 0; tries++) {
        int fd = bough_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
        if (fd >= 0 || errno != ENOENT) return fd;
    }
    return -1;
}

static int link_segment(const at *a, uint64_t number, const char *as, bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
    int rc = bough_path(to, sizeof to, err, "%s/pg_wal/%s", a->dest, as);
    for (int tries = 0; !rc && tries < 3; tries++) {
        if (find_segment(from, a, number) != 0) break;
        if (link(from, to) == 0) return BOUGH_OK;
        if (errno != ENOENT)
            return bough_fail_sys(err, errno, "could not link \"%s\" to \"%s\"", from, to);
    }
    return rc ? rc
              : bough_fail(err, BOUGH_E_CORRUPT,
                           "the history of branch \"%s\" has a gap: WAL segment %" PRIu64
                           " is missing",
                           a->branch, number);
}

static int link_wal(const at *a, bough_error *err) {
    const bough_moment *m = &a->moment;
    uint64_t last = (m->wal_end - 1) / m->segment_bytes;
    char name[32];
    int rc = BOUGH_OK;
    for (uint64_t s = m->redo / m->segment_bytes; !rc && s < last; s++) {
        bough_moment_segment_name(name, sizeof name, m, s);
        rc = link_segment(a, s, name, err);
    }
    return rc ? rc : link_segment(a, last, BOUGH_LAST_SEGMENT, err);
}

/* The newest point that the moment may start from. */
static int choose(at *a, const bough_target *target, bough_error *err) {
    bough_point *points;
    size_t n;
    bool found = false;
    int rc = bough_store_points(&points, &n, a->store, a->branch, err);
    for (size_t i = 0; !rc && i < n; i++) {
        a->newest = points[i].lsn;
        if (target->time_us ? points[i].time_ms * 1000 > target->time_us
                            : points[i].lsn > target->lsn)
            continue;
        a->point = points[i];
        found = true;
    }
    free(points);
    if (rc || found) return rc;
    return bough_fail(err, BOUGH_E_NOTFOUND,
                      "the history of the branch does not reach back so far");
}

/* The place of the page that was the last when the WAL ended at an LSN. */
static uint64_t last_page(uint64_t lsn) {
    return lsn ? (lsn - 1) & ~(XLOG_PAGE - 1) : 0;
}

/*
 * The branch's WAL is known to go at least so far: what does not come to it has a gap. Its compute
 * knows what it has written. Where it sleeps, or has not written yet, the last checkpoint of which
 * pg_control tells is a record. `live_end` is the compute's, 0 where it is not known.
 */
static int find_known_end(uint64_t *end, at *a, uint64_t live_end, bough_error *err) {
    char path[BOUGH_PATH_MAX], pgdata[BOUGH_PATH_MAX];
    int rc = BOUGH_OK;
    *end = last_page(live_end);
    if (!live_end) {
        rc = bough_store_pgdata(pgdata, a->store, a->branch, err);
        if (!rc) rc = bough_path(path, sizeof path, err, "%s/" BOUGH_CONTROL_NAME, pgdata);
        if (!rc) rc = bough_moment_load(&a->present, path, pgdata, err);
        if (!rc && a->present.tli == a->moment.tli) *end = bough_moment_lsn(&a->present) + 1;
    }
    if (*end < last_page(a->newest)) *end = last_page(a->newest);
    return rc;
}

/* Whether a segment behind this one is there: WAL of the moment's timeline. */
static int has_later(bool *has, const at *a, uint64_t number, bough_error *err) {
    static const char *const places[] = {"history", "pgdata/pg_wal"};
    uint64_t size = a->moment.segment_bytes;
    char path[BOUGH_PATH_MAX];
    int rc = BOUGH_OK;
    *has = false;
    for (size_t i = 0; !rc && !*has && i < sizeof places / sizeof places[0]; i++) {
        int failed = 0;
        rc = bough_path(path, sizeof path, err, "%s/branches/%s/%s", a->store->dir, a->branch,
                        places[i]);
        DIR *dir = rc ? NULL : opendir(path);
        if (!dir) {
            if (!rc && errno != ENOENT)
                rc = bough_fail_sys(err, errno, "could not list \"%s\"", path);
            continue;
        }
        const struct dirent *d;
        while (!*has && (d = bough_list_next(dir, &failed)) != NULL) {
            unsigned tli, log, seg;
            *has = bough_parse_wal_name(d->d_name, &tli, &log, &seg) && tli == a->moment.tli &&
                   log * ((UINT64_C(1) << 32) / size) + seg > number;
        }
        if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", path);
        closedir(dir);
    }
    return rc;
}

/* The scan was not stopped by the moment: it must have come to the end of the WAL. */
static int check_end(const at *a, uint64_t known_end, bough_error *err) {
    bool has = false;
    int rc = a->found.missing ? has_later(&has, a, a->found.missing, err) : BOUGH_OK;
    if (rc || (!has && a->found.reach >= known_end)) return rc;
    if (a->found.missing)
        return bough_fail(err, BOUGH_E_CORRUPT,
                          "the history of branch \"%s\" has a gap: WAL segment %" PRIu64
                          " is missing",
                          a->branch, a->found.missing);
    return bough_fail(err, BOUGH_E_CORRUPT,
                      "the history of branch \"%s\" has a gap: there is no WAL record at %s",
                      a->branch, BOUGH_LSN_TEXT(a->found.reach));
}

/* Where the WAL has to end. */
static int find_cut(at *a, const bough_target *target, const bough_header *live, bough_error *err) {
    uint64_t known_end, live_end = live ? atomic_load(&live->wal_end) : 0;
    if (live_end && atomic_load(&live->wal_tli) != a->moment.tli) live_end = 0;
    bough_wal_source source = {.tli = a->moment.tli,
                               .segment_bytes = a->moment.segment_bytes,
                               .open = open_segment,
                               .context = a};
    bough_wal_wish wish = {.start = a->point.redo,
                           /* what was written before its last page is in the point's pages */
                           .not_before = last_page(a->point.lsn),
                           .end = live_end,
                           .lsn = target->lsn,
                           .time_us = target->time_us};
    if (wish.not_before < a->point.redo) wish.not_before = a->point.redo + 1;
    /* before the scan: what is written meanwhile need not be in it */
    int rc = find_known_end(&known_end, a, live_end, err);
    if (!rc) rc = bough_wal_scan(&a->found, &source, &wish, err);
    if (!rc && !a->found.is_stopped) rc = check_end(a, known_end, err);
    if (rc) return rc;
    if (target->lsn && !a->found.is_stopped && a->found.cut < target->lsn &&
        target->lsn - a->found.cut > XLOG_PAGE)
        return bough_fail(err, BOUGH_E_INVALID,
                          "the branch has not come to LSN %s yet: it is at %s",
                          BOUGH_LSN_TEXT(target->lsn), BOUGH_LSN_TEXT(a->found.cut));
    a->moment.wal_end = a->found.cut;
    a->is_whole =
        a->found.is_stopped && (wish.end == 0 || wish.end - a->found.cut >= BEING_WRITTEN);
    return BOUGH_OK;
}

/* In the branch's directory: the LSN to which its first recovery must come. It stays: no later one
 * ends before. */
#define REPLAYS_TO "replays-to"

static int write_end(const at *a, bough_error *err) {
    char path[BOUGH_PATH_MAX], text[BOUGH_LSN_SIZE];
    bough_lsn_write(text, a->found.cut);
    int rc = bough_path(path, sizeof path, err, "%s/" REPLAYS_TO, a->temp);
    return rc || !a->is_whole ? rc : bough_write_file(path, text, strlen(text), 0600, err);
}

int bough_point_read_end(uint64_t *end, const bough_store *store, const char *branch,
                         bough_error *err) {
    char path[BOUGH_PATH_MAX], *text = NULL;
    size_t n;
    *end = 0;
    int rc = bough_branch_path(path, store, branch, "/" REPLAYS_TO, err);
    if (rc || access(path, F_OK) != 0) return rc;
    rc = bough_read_file(&text, &n, path, 64, err);
    if (!rc && !bough_lsn_read(end, text))
        rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" is damaged", path);
    free(text);
    return rc;
}

static int make_child(at *a, bough_error *err) {
    char point[160], from[BOUGH_PATH_MAX], pgdata[BOUGH_PATH_MAX], suffixed[80];
    bough_layers layers = {NULL, 0};
    uint64_t replay = a->found.cut > a->point.redo ? a->found.cut - a->point.redo : 0;
    (void)snprintf(point, sizeof point, "%s/points/%s", a->branch, a->point.name);
    (void)snprintf(suffixed, sizeof suffixed, "%s.new~", a->child);
    int rc = bough_branch_path(from, a->store, point, "", err);
    if (!rc) rc = bough_store_pgdata(pgdata, a->store, a->branch, err);
    if (!rc) rc = bough_moment_dirs(pgdata, a->dest, err);
    if (!rc) rc = bough_moment_link_state(from, a->dest, err);
    if (!rc) rc = link_wal(a, err);
    if (!rc) rc = bough_moment_finish(&a->moment, a->dest, BOUGH_CONTROL_NAME, err);
    if (!rc) rc = bough_layers_read(&layers, a->store, point, err);
    if (!rc) rc = bough_child_settle(a->store, suffixed, &a->moment, &layers, replay, err);
    bough_layers_free(&layers);
    if (!rc) rc = write_end(a, err);
    return rc ? rc : bough_child_name(a->store, a->temp, a->child, err);
}

int bough_store_fork_at(bough_cut *cut, bough_store *store, const char *branch,
                        const bough_target *target, const char *child, bough_shm *live,
                        bough_error *err) {
    char path[BOUGH_PATH_MAX];
    double before = bough_now_ms();
    memset(cut, 0, sizeof *cut);
    at *a = calloc(1, sizeof *a);
    if (!a) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *a = (at){.store = store, .branch = branch, .child = child};
    int rc = bough_child_check(store, child, err);
    if (!rc) rc = choose(a, target, err);
    if (!rc)
        rc = bough_path(path, sizeof path, err, "%s/branches/%s/points/%s/control", store->dir,
                        branch, a->point.name);
    char pgdata[BOUGH_PATH_MAX];
    if (!rc) rc = bough_store_pgdata(pgdata, store, branch, err);
    if (!rc) rc = bough_moment_load(&a->moment, path, pgdata, err);
    if (!rc) rc = find_cut(a, target, live ? live->header : NULL, err);
    if (!rc) rc = bough_moment_set_crashed(&a->moment, err);
    if (!rc) rc = bough_branch_path(a->temp, store, child, ".new~", err);
    if (!rc) rc = bough_path(a->dest, sizeof a->dest, err, "%s/pgdata", a->temp);
    if (!rc) rc = bough_rmtree(a->temp, err);
    if (!rc) rc = make_child(a, err);
    if (rc && a->temp[0]) bough_ignore(bough_rmtree(a->temp, NULL));
    cut->lsn = a->found.cut;
    cut->last_commit_us = a->found.last_commit_us;
    cut->replay_bytes = a->found.cut > a->point.redo ? a->found.cut - a->point.redo : 0;
    cut->create_ms = bough_now_ms() - before;
    free(a);
    return rc;
}

/* ---- pruning ---- */

static int remove_point(const bough_store *store, const char *branch, const char *name,
                        bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
    int rc =
        bough_path(from, sizeof from, err, "%s/branches/%s/points/%s", store->dir, branch, name);
    if (!rc) rc = bough_path(to, sizeof to, err, "%s/branches/%s/points/old~", store->dir, branch);
    if (!rc) rc = bough_rmtree(to, err);
    if (!rc && rename(from, to) != 0)
        rc = bough_fail_sys(err, errno, "could not rename \"%s\"", from);
    BOUGH_POINT(rc, "forget.point-renamed");
    if (!rc) rc = bough_rmtree(to, err);
    BOUGH_POINT(rc, "forget.point-removed");
    return rc;
}

int bough_store_point_forget(bough_store *store, const char *branch, const char *name,
                             bough_error *err) {
    return remove_point(store, branch, name, err);
}

/* Remove segments that end before `redo`, the oldest point's. */
static int prune_wal(bool *is_changed, const bough_store *store, const char *branch, uint64_t redo,
                     bough_error *err) {
    char path[BOUGH_PATH_MAX];
    struct stat st;
    int rc = bough_branch_path(path, store, branch, "/history", err);
    if (rc) return rc;
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? BOUGH_OK
                               : bough_fail_sys(err, errno, "could not list \"%s\"", path);
    const struct dirent *d;
    int failed = 0;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
        uint64_t start;
        if (fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !bough_wal_start(&start, d->d_name, (uint64_t)st.st_size))
            continue;
        if (start + (uint64_t)st.st_size > redo) continue;
        if (unlinkat(dirfd(dir), d->d_name, 0) != 0)
            rc = bough_fail_sys(err, errno, "could not remove \"%s/%s\"", path, d->d_name);
        else
            *is_changed = true;
        BOUGH_POINT(rc, "forget.segment-removed");
    }
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", path);
    closedir(dir);
    return rc;
}

size_t bough_points_kept(const bough_point *points, size_t n, int64_t keep_from_ms) {
    size_t keep = 0;
    while (keep + 1 < n && points[keep + 1].time_ms <= keep_from_ms) keep++;
    return keep;
}

int bough_store_prune(bool *is_changed, bough_store *store, const char *branch,
                      int64_t keep_from_ms, bough_error *err) {
    bough_point *points;
    size_t n;
    *is_changed = false;
    int rc = bough_store_points(&points, &n, store, branch, err);
    if (rc || n == 0) return rc;
    size_t keep = bough_points_kept(points, n, keep_from_ms);
    *is_changed = keep > 0;
    /* the WAL last: until then every point has its own */
    for (size_t i = 0; !rc && i < keep; i++) rc = remove_point(store, branch, points[i].name, err);
    if (!rc) rc = prune_wal(is_changed, store, branch, points[keep].redo, err);
    free(points);
    return rc;
}

int bough_store_forget_oldest(bough_store *store, const char *branch, bough_error *err) {
    bough_point *points;
    char path[BOUGH_PATH_MAX];
    bool is_changed = false;
    size_t n;
    int rc = bough_store_points(&points, &n, store, branch, err);
    if (rc) return rc;
    if (n) rc = remove_point(store, branch, points[0].name, err);
    if (!rc) rc = prune_wal(&is_changed, store, branch, n > 1 ? points[1].redo : UINT64_MAX, err);
    free(points);
    if (!rc) rc = bough_branch_path(path, store, branch, "/history", err);
    /* a journal gives blocks back when it is written */
    return rc || access(path, F_OK) != 0 ? rc : bough_fsync_path(path, err);
}

int bough_store_forget_all(bool *is_changed, bough_store *store, const char *branch,
                           bough_error *err) {
    bough_point *points;
    size_t n;
    int rc = bough_store_points(&points, &n, store, branch, err);
    if (rc) return rc;
    for (size_t i = 0; !rc && i < n; i++) {
        *is_changed = true;
        rc = remove_point(store, branch, points[i].name, err);
    }
    /* readers fetch from there what they have not received yet */
    if (!rc && !bough_store_is_followed(store, branch))
        rc = prune_wal(is_changed, store, branch, UINT64_MAX, err);
    free(points);
    return rc;
}

/* ---- changing places ---- */

static int exchange(bough_store *store, const char *here, const char *there, bough_error *err) {
    pthread_mutex_lock(&store->places);
    int rc = renameat2(AT_FDCWD, here, AT_FDCWD, there, RENAME_EXCHANGE) == 0
                 ? BOUGH_OK
                 : bough_fail_sys(err, errno, "could not exchange \"%s\" and \"%s\"", here, there);
    pthread_mutex_unlock(&store->places);
    return rc;
}

int bough_store_exchange(bool *is_undecided, bough_store *store, const char *branch,
                         const char *incoming, const char *mark, bough_error *err) {
    char here[BOUGH_PATH_MAX], there[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX];
    *is_undecided = false;
    int rc = bough_branch_path(path, store, incoming, "/mark", err);
    if (!rc) rc = bough_write_file(path, mark, strlen(mark), 0600, err);
    if (!rc) rc = bough_branch_path(here, store, branch, "", err);
    if (!rc) rc = bough_branch_path(there, store, incoming, "", err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/branches", store->dir);
    if (!rc) rc = exchange(store, here, there, err);
    if (rc) return rc;
    rc = bough_fsync_path(path, err);
    /* done, and perhaps only until a power cut: what was is so again when that is durable */
    if (rc)
        *is_undecided = exchange(store, here, there, NULL) != BOUGH_OK ||
                        bough_fsync_path(path, NULL) != BOUGH_OK;
    return rc;
}

int bough_store_is_marked(bool *is_marked, const bough_store *store, const char *branch,
                          const char *mark, bough_error *err) {
    char path[BOUGH_PATH_MAX], *text = NULL;
    size_t n;
    *is_marked = false;
    int rc = bough_branch_path(path, store, branch, "/mark", err);
    if (!rc) rc = bough_read_file(&text, &n, path, META_MAX, err);
    if (rc == BOUGH_E_NOTFOUND) {
        bough_error_clear(err);
        return BOUGH_OK;
    }
    if (!rc) *is_marked = strcmp(text, mark) == 0;
    free(text);
    return rc;
}
