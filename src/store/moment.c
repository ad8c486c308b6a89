/*
 * A moment of a branch beside its pages: pg_control and the WAL from its redo point on. Complete
 * segments are shared by hard link; of the last one only its first page and what lies between redo
 * and the end are copied, the rest stays a hole.
 *
 * Offsets in pg_control are those of PostgreSQL 13 to 18 (catalog/pg_control.h): state at 16,
 * checkPoint at 32, checkPointCopy.redo at 40, ThisTimeLineID at 48. The size of segments is that
 * of the files.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "preload/index.h"
#include "preload/path.h"
#include "store/internal.h"

#define XLOG_PAGE 8192U
#define DB_SHUTDOWNED 1U
#define DB_SHUTDOWNED_IN_RECOVERY 2U
#define DB_IN_PRODUCTION 6U

static const char *const skipped_dirs[] = {"pg_wal", "log", BOUGH_TMP_NAME};

static uint64_t field64(const char *control, size_t at) {
    uint64_t v;
    memcpy(&v, control + at, sizeof v);
    return v;
}

static uint32_t field32(const char *control, size_t at) {
    uint32_t v;
    memcpy(&v, control + at, sizeof v);
    return v;
}

/* The size of WAL segments, from any one of them. */
static int segment_bytes(uint64_t *bytes, const char *pgdata, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    *bytes = 0;
    int rc = bough_path(path, sizeof path, err, "%s/pg_wal", pgdata);
    if (rc) return rc;
    DIR *dir = opendir(path);
    if (!dir) return bough_fail_sys(err, errno, "could not list \"%s\"", path);
    struct dirent *d;
    unsigned tli, log, seg;
    struct stat st;
    int failed = 0;
    while (!*bytes && (d = bough_list_next(dir, &failed)) != NULL)
        if (bough_parse_wal_name(d->d_name, &tli, &log, &seg) &&
            fstatat(dirfd(dir), d->d_name, &st, 0) == 0)
            *bytes = (uint64_t)st.st_size;
    closedir(dir);
    if (failed) return bough_fail_sys(err, failed, "could not list \"%s\"", path);
    if (*bytes < 1 << 20 || (*bytes & (*bytes - 1)))
        return bough_fail(err, BOUGH_E_CORRUPT, "no usable WAL segment in \"%s\"", path);
    return BOUGH_OK;
}

static int load_control(bough_moment *m, const char *path, bough_error *err) {
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0) return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    ssize_t n = bough_pread_full(fd, m->control, sizeof m->control, 0);
    int saved = errno;
    close(fd);
    if (n < 0) return bough_fail_sys(err, saved, "could not read \"%s\"", path);
    if (n < 512) return bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" is damaged", path);
    m->control_bytes = (size_t)n;
    m->redo = field64(m->control, 40);
    m->tli = field32(m->control, 48);
    return BOUGH_OK;
}

void bough_moment_segment_name(char *out, size_t size, const bough_moment *m, uint64_t number) {
    uint64_t per_log = (UINT64_C(1) << 32) / m->segment_bytes;
    (void)snprintf(out, size, "%08X%08X%08X", m->tli, (unsigned)(number / per_log),
                   (unsigned)(number % per_log));
}

/* Whether the segment stands in pg_wal; used where the end of the WAL is not known. */
static bool has_segment(const bough_moment *m, const char *pgdata, uint64_t number) {
    char name[32], path[BOUGH_PATH_MAX];
    bough_moment_segment_name(name, sizeof name, m, number);
    return bough_path(path, sizeof path, NULL, "%s/pg_wal/%s", pgdata, name) == 0 &&
           access(path, F_OK) == 0;
}

/* Behind a shutdown checkpoint: it is shorter than a page, and may stand at the end of the last
 * segment that there is. */
static uint64_t after_checkpoint(const bough_moment *m, const char *pgdata) {
    uint64_t checkpoint = field64(m->control, 32), end = checkpoint + 2 * XLOG_PAGE;
    uint64_t next = checkpoint / m->segment_bytes + 1;
    bool is_over = end > next * m->segment_bytes && !has_segment(m, pgdata, next);
    return is_over ? next * m->segment_bytes : end;
}

int bough_moment_read(bough_moment *m, const char *pgdata, const bough_header *live,
                      bough_error *err) {
    char path[BOUGH_PATH_MAX];
    struct timespec ts;
    memset(m, 0, sizeof *m);
    clock_gettime(CLOCK_REALTIME, &ts);
    m->time_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + 1;
    int rc = bough_path(path, sizeof path, err, "%s/%s", pgdata, BOUGH_CONTROL_NAME);
    if (!rc) rc = load_control(m, path, err);
    if (!rc) rc = segment_bytes(&m->segment_bytes, pgdata, err);
    if (rc) return rc;
    uint32_t state = field32(m->control, 16);
    m->clean = !live && (state == DB_SHUTDOWNED || state == DB_SHUTDOWNED_IN_RECOVERY);
    if (live) m->wal_end = atomic_load(&live->wal_end);
    if (live && m->wal_end && atomic_load(&live->wal_tli) != m->tli) m->wal_end = 0;
    /* it started after a clean stop and has written no WAL yet: the control file still names the
     * shutdown checkpoint. Before postgres is ready it may be about to replay WAL behind that */
    bool untouched = live && atomic_load(&live->wal_end) == 0 && atomic_load(&live->is_ready) &&
                     field64(m->control, 32) == m->redo;
    /* a shutdown checkpoint is the last record there is */
    m->is_at_checkpoint = !m->wal_end && (m->clean || state == DB_SHUTDOWNED || untouched);
    if (m->is_at_checkpoint) m->wal_end = after_checkpoint(m, pgdata);
    return BOUGH_OK;
}

int bough_moment_load(bough_moment *m, const char *control_path, const char *pgdata,
                      bough_error *err) {
    memset(m, 0, sizeof *m);
    int rc = load_control(m, control_path, err);
    return rc ? rc : segment_bytes(&m->segment_bytes, pgdata, err);
}

uint64_t bough_moment_lsn(const bough_moment *m) {
    uint64_t checkpoint = field64(m->control, 32);
    return m->wal_end && !m->is_at_checkpoint ? m->wal_end : checkpoint;
}

/* The CRC of pg_control follows its last field, whose place depends on the version: it is where the
 * CRC of all before it stands. */
static size_t find_crc(const bough_moment *m) {
    for (size_t at = 200; at + 4 <= 512; at += 4)
        if (bough_crc32c(0, m->control, at) == field32(m->control, at)) return at;
    return 0;
}

int bough_moment_set_crashed(bough_moment *m, bough_error *err) {
    size_t crc_at = find_crc(m);
    if (!crc_at) return bough_fail(err, BOUGH_E_CORRUPT, "an image of pg_control is damaged");
    uint32_t state = DB_IN_PRODUCTION;
    memcpy(m->control + 16, &state, sizeof state);
    uint32_t crc = bough_crc32c(0, m->control, crc_at);
    memcpy(m->control + crc_at, &crc, sizeof crc);
    m->clean = false;
    return BOUGH_OK;
}

/* A copy on any file system, durable. */
static int copy_file(const char *from, const char *to, bough_error *err) {
    int rc = BOUGH_OK;
    int in = bough_open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    int out = in < 0 ? -1 : bough_open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n = in < 0 || out < 0 ? -1 : 1;
    char buf[65536];
    while (n > 0) {
        do n = read(in, buf, sizeof buf);
        while (n < 0 && errno == EINTR);
        if (n > 0 && bough_write_full(out, buf, (size_t)n) != 0) n = -1;
    }
    if (n < 0 || bough_fsync(out) != 0)
        rc = bough_fail_sys(err, errno, "could not copy \"%s\" to \"%s\"", from, to);
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    return rc;
}

static int link_one(const char *from_dir, const char *to_dir, const char *name, bool copy,
                    bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
    int rc = bough_path(from, sizeof from, err, "%s/%s", from_dir, name);
    if (!rc) rc = bough_path(to, sizeof to, err, "%s/%s", to_dir, name);
    if (rc || copy) return rc ? rc : copy_file(from, to, err);
    if (link(from, to) == 0 || errno == EEXIST) return BOUGH_OK;
    return bough_fail_sys(err, errno, "could not link \"%s\" to \"%s\"", from, to);
}

/* Every regular file of one small directory that `wanted` accepts. */
static int link_all(const char *pgdata, const char *dest, const char *name, bool copy,
                    bool (*wanted)(const char *name), bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
    int rc = bough_path(from, sizeof from, err, "%s/%s", pgdata, name);
    if (!rc) rc = bough_path(to, sizeof to, err, "%s/%s", dest, name);
    if (rc) return rc;
    DIR *dir = opendir(from);
    if (!dir)
        return errno == ENOENT ? BOUGH_OK
                               : bough_fail_sys(err, errno, "could not list \"%s\"", from);
    struct dirent *d;
    int failed = 0;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL)
        if (d->d_type == DT_REG && (!wanted || wanted(d->d_name)))
            rc = link_one(from, to, d->d_name, copy, err);
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", from);
    closedir(dir);
    return rc;
}

static bool is_history(const char *name) {
    size_t n = strlen(name);
    return n > 8 && strcmp(name + n - 8, ".history") == 0;
}
static bool is_origins(const char *name) {
    return strcmp(name, "replorigin_checkpoint") == 0;
}

static int link_state(const char *pgdata, const char *dest, bool copy, bough_error *err) {
    int rc = link_all(pgdata, dest, "pg_twophase", copy, NULL, err);
    return rc ? rc : link_all(pgdata, dest, "pg_logical", copy, is_origins, err);
}

int bough_moment_link_state(const char *pgdata, const char *dest, bough_error *err) {
    return link_state(pgdata, dest, false, err);
}

int bough_moment_link(const bough_moment *m, const char *pgdata, const char *dest, bool copy,
                      bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX], name[32];
    int rc = bough_path(from, sizeof from, err, "%s/pg_wal", pgdata);
    if (!rc) rc = bough_path(to, sizeof to, err, "%s/pg_wal", dest);
    uint64_t first = m->redo / m->segment_bytes;
    for (uint64_t s = first; !rc; s++) {
        if (m->wal_end ? s >= (m->wal_end - 1) / m->segment_bytes : !has_segment(m, pgdata, s))
            break;
        bough_moment_segment_name(name, sizeof name, m, s);
        /* where the end is not known, a segment may be written again: it cannot be shared */
        rc = link_one(from, to, name, copy || !m->wal_end, err);
    }
    if (!rc &&
        m->wal_end) { /* under a name of its own: its contents follow in bough_moment_finish() */
        char last[BOUGH_PATH_MAX], held[BOUGH_PATH_MAX];
        bough_moment_segment_name(name, sizeof name, m, (m->wal_end - 1) / m->segment_bytes);
        rc = bough_path(last, sizeof last, err, "%s/%s", from, name);
        if (!rc) rc = bough_path(held, sizeof held, err, "%s/" BOUGH_LAST_SEGMENT, to);
        if (!rc && copy) /* perhaps on another file system */
            rc = copy_file(last, held, err);
        else if (!rc && link(last, held) != 0)
            rc = bough_fail_sys(err, errno, "could not link \"%s\"", last);
    }
    if (!rc) rc = link_all(pgdata, dest, "pg_wal", copy, is_history, err);
    if (!rc) rc = link_state(pgdata, dest, copy, err);
    if (!rc && m->clean) rc = link_all(pgdata, dest, "pg_stat", true, NULL, err);
    return rc;
}

int bough_moment_dirs(const char *pgdata, const char *dest, bough_error *err) {
    static const char *const below[] = {
        "pg_wal",      "pg_wal/archive_status", "pg_logical/snapshots", "pg_logical/mappings",
        "pg_dynshmem", BOUGH_TMP_NAME};
    char path[BOUGH_PATH_MAX];
    int rc = bough_mkdirs(dest, 0700, err);
    if (!rc) rc = bough_head_skeleton(dest, err);
    DIR *dir = rc ? NULL : opendir(pgdata);
    if (!rc && !dir) rc = bough_fail_sys(err, errno, "could not list \"%s\"", pgdata);
    struct dirent *d;
    int failed = 0;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
        if (d->d_type != DT_DIR || strncmp(d->d_name, "pg_", 3) != 0) continue;
        bool skip = false;
        for (size_t i = 0; i < sizeof skipped_dirs / sizeof skipped_dirs[0]; i++)
            skip = skip || strcmp(d->d_name, skipped_dirs[i]) == 0;
        if (skip) continue;
        rc = bough_path(path, sizeof path, err, "%s/%s", dest, d->d_name);
        if (!rc) rc = bough_mkdirs(path, 0700, err);
    }
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", pgdata);
    if (dir) closedir(dir);
    for (size_t i = 0; !rc && i < sizeof below / sizeof below[0]; i++) {
        rc = bough_path(path, sizeof path, err, "%s/%s", dest, below[i]);
        if (!rc) rc = bough_mkdirs(path, 0700, err);
    }
    struct stat st;
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_wal/summaries", pgdata);
    if (!rc && stat(path, &st) == 0) { /* PostgreSQL 17 and later */
        rc = bough_path(path, sizeof path, err, "%s/pg_wal/summaries", dest);
        if (!rc) rc = bough_mkdirs(path, 0700, err);
    }
    return rc ? rc : link_one(pgdata, dest, "PG_VERSION", true, err);
}

/* Copy [from, to) of one file into another at the same place; pages of zeros stay holes. */
static int copy_pages(int in, int out, uint64_t from, uint64_t to) {
    static const char zeros[XLOG_PAGE];
    char page[XLOG_PAGE];
    for (uint64_t at = from & ~(uint64_t)(XLOG_PAGE - 1); at < to; at += XLOG_PAGE) {
        /* not a byte more: behind `to` there may be WAL of a later time */
        size_t want = to - at < XLOG_PAGE ? (size_t)(to - at) : XLOG_PAGE;
        ssize_t n = bough_pread_full(in, page, want, (off_t)at);
        if (n < 0) return -1;
        if (n == 0) break;
        if (memcmp(page, zeros, (size_t)n) != 0 &&
            bough_pwrite_full(out, page, (size_t)n, (off_t)at) != 0)
            return -1;
    }
    return 0;
}

static int copy_tail(const bough_moment *m, const char *dest, bough_error *err) {
    char name[32], held[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX];
    uint64_t number = (m->wal_end - 1) / m->segment_bytes, start = number * m->segment_bytes;
    bough_moment_segment_name(name, sizeof name, m, number);
    int rc = bough_path(held, sizeof held, err, "%s/pg_wal/" BOUGH_LAST_SEGMENT, dest);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_wal/%s", dest, name);
    if (rc) return rc;
    int in = bough_open(held, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    int out = in < 0 ? -1 : bough_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t from = m->redo > start ? m->redo - start : 0, to = m->wal_end - start;
    if (to > m->segment_bytes) to = m->segment_bytes;
    if (in < 0 || out < 0 || bough_ftruncate(out, (off_t)m->segment_bytes) != 0 ||
        copy_pages(in, out, 0, XLOG_PAGE) != 0 || copy_pages(in, out, from, to) != 0 ||
        bough_fsync(out) != 0)
        rc = bough_fail_sys(err, errno, "could not copy the WAL to \"%s\"", path);
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    if (unlink(held) != 0 && !rc) /* it would keep the parent from giving the segment back */
        rc = bough_fail_sys(err, errno, "could not remove \"%s\"", held);
    return rc;
}

static int punch(int fd, off_t from, off_t bytes) {
    int rc;
    do rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, bytes);
    while (rc != 0 && errno == EINTR);
    return rc;
}

/* What one segment of a stopped branch may lose: what is before and after the shutdown checkpoint,
 * but not its first page, whose header is looked at when it is read. */
static int trim_segment(const bough_moment *m, int dir, const char *name, uint64_t number,
                        bool keeps_history) {
    uint64_t first = m->redo / m->segment_bytes, last = (m->wal_end - 1) / m->segment_bytes;
    off_t page = XLOG_PAGE, from = (off_t)(m->redo % m->segment_bytes) & ~(page - 1);
    off_t end = (off_t)((m->wal_end - 1) % m->segment_bytes + XLOG_PAGE) & ~(page - 1);
    struct stat st;
    if (number > last) return unlinkat(dir, name, 0); /* made ahead, or kept for reuse */
    if (number < first) return 0;                     /* PostgreSQL kept it for a reason */
    int fd;
    do fd = openat(dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return -1;
    int rc = fstat(fd, &st);
    if (rc == 0 && st.st_nlink == 1) {
        if (number == first && from > page && !keeps_history) rc = punch(fd, page, from - page);
        if (rc == 0 && number == last && end < st.st_size) rc = punch(fd, end, st.st_size - end);
        if (rc != 0 && errno == EOPNOTSUPP) rc = 0;
    }
    close(fd);
    return rc;
}

int bough_store_trim(bough_store *store, const char *branch, bool keeps_history, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX];
    DIR *dir = NULL;
    bough_moment *m = malloc(sizeof *m);
    int rc = m ? bough_store_pgdata(pgdata, store, branch, err)
               : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = bough_moment_read(m, pgdata, NULL, err);
    if (rc || !m->clean || bough_store_sync_pending(store, branch)) goto out;
    rc = bough_path(path, sizeof path, err, "%s/pg_wal", pgdata);
    if (!rc && !(dir = opendir(path)))
        rc = bough_fail_sys(err, errno, "could not list \"%s\"", path);
    const struct dirent *d;
    uint64_t per_log = (UINT64_C(1) << 32) / m->segment_bytes;
    int failed = 0;
    while (!rc && (d = bough_list_next(dir, &failed)) != NULL) {
        unsigned tli, log, seg;
        if (!bough_parse_wal_name(d->d_name, &tli, &log, &seg) || tli != m->tli) continue;
        if (trim_segment(m, dirfd(dir), d->d_name, log * per_log + seg, keeps_history) != 0)
            rc = bough_fail_sys(err, errno, "could not trim \"%s/%s\"", path, d->d_name);
    }
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", path);
    if (dir) closedir(dir);
out:
    free(m);
    return rc;
}

int bough_moment_finish(const bough_moment *m, const char *dest, const char *control_name,
                        bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = m->wal_end ? copy_tail(m, dest, err) : BOUGH_OK;
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/%s", dest, control_name);
    if (!rc) rc = bough_write_file(path, m->control, m->control_bytes, 0600, err);
    /* shared segments were written by the parent, who may not have synced them yet */
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_wal", dest);
    if (!rc) rc = bough_fsync_tree(path, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_twophase", dest);
    if (!rc) rc = bough_fsync_tree(path, err);
    if (!rc) rc = bough_fsync_path(dest, err);
    return rc;
}
