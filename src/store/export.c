/* Writing a branch out as a plain PGDATA: every page from the level that owns it, holes kept. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload/path.h"
#include "store/internal.h"
#include "util/crashpoint.h"

#define UNFINISHED "global/pg_control.unfinished"

typedef struct writer {
    bough_store *store;
    bough_view *view;
    const char *pgdata; /* of the branch */
    const char *dest;
    bough_progress progress;
    void *context;
    uint64_t done, total;
    bough_level levels[BOUGH_MAX_DEPTH];
    char buf[1 << 20];
} writer;

static int advance(writer *w, uint64_t bytes, bough_error *err) {
    w->done += bytes;
    if (w->progress && w->progress(w->context, w->done, w->total))
        return bough_fail(err, BOUGH_E_CANCELLED, "the export was cancelled");
    return BOUGH_OK;
}

static int make_parents(const char *dest, const char *key, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/%s", dest, key);
    if (rc) return rc;
    *strrchr(path, '/') = '\0';
    return bough_mkdirs(path, 0700, err);
}

/* Owner of a block: -1 the head, -2 nobody, else a level. The rule of src/preload/file.c. */
static int owner_of(const writer *w, const bough_entry *head, unsigned n, uint64_t block) {
    uint64_t at = block << BOUGH_BLOCK_SHIFT;
    if (head) {
        if (bough_entry_has(w->view->shm, head, block)) return -1;
        if (at >= atomic_load(&head->limit)) return -2;
    }
    for (unsigned i = 0; i < n; i++) {
        if (at >= w->levels[i].size) return -2;
        if (bough_level_has(w->view->shm, &w->levels[i], block)) return (int)i;
        if (at >= w->levels[i].limit) return -2;
    }
    return -2;
}

static int open_owner(writer *w, int owner, const char *key) {
    char path[BOUGH_PATH_MAX];
    if (owner == -1)
        (void)snprintf(path, sizeof path, "%s/%s", w->pgdata, key);
    else
        bough_view_layer_path(path, sizeof path, w->view, w->levels[owner].layer, key);
    return bough_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
}

/* Copy one run; copy_file_range() lets file systems that can share the blocks. */
static int copy_run(writer *w, int in, int out, uint64_t at, uint64_t bytes) {
    while (bytes) {
        size_t part = bytes < sizeof w->buf ? (size_t)bytes : sizeof w->buf;
        off64_t from = (off64_t)at, to = (off64_t)at;
        ssize_t n = copy_file_range(in, &from, out, &to, part, 0);
        if (n < 0) {
            n = bough_pread_full(in, w->buf, part, (off_t)at);
            if (n > 0 && bough_pwrite_full(out, w->buf, (size_t)n, (off_t)at) != 0) return -1;
        }
        if (n < 0) return -1;
        if (n == 0) break; /* past the owner's end: zeros */
        at += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

static int write_file(writer *w, const char *key, const bough_entry *head, unsigned n,
                      uint64_t size, bool whole, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = make_parents(w->dest, key, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/%s", w->dest, key);
    if (rc) return rc;
    int out = bough_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0) return bough_fail_sys(err, errno, "could not create \"%s\"", path);
    uint64_t blocks = (size + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT;
    if (bough_ftruncate(out, (off_t)size) != 0)
        rc = bough_fail_sys(err, errno, "could not size \"%s\"", path);
    for (uint64_t b = 0; !rc && b < blocks;) {
        int owner = whole ? (head ? -1 : 0) : owner_of(w, head, n, b);
        uint64_t end = b + 1;
        while (end < blocks && (whole || owner_of(w, head, n, end) == owner)) end++;
        uint64_t at = b << BOUGH_BLOCK_SHIFT, to = end << BOUGH_BLOCK_SHIFT;
        if (to > size) to = size;
        if (owner != -2) {
            int in = open_owner(w, owner, key);
            if (in < 0 || copy_run(w, in, out, at, to - at) != 0)
                rc = bough_fail_sys(err, errno, "could not write \"%s\"", path);
            if (in >= 0) close(in);
        }
        if (!rc) rc = advance(w, to - at, err);
        b = end;
    }
    if (!rc && bough_fsync(out) != 0)
        rc = bough_fail_sys(err, errno, "could not fsync \"%s\"", path);
    close(out);
    return rc;
}

/* A path, if it is visible: size it (dry) or write it. */
static int visit(writer *w, const char *key, bool dry, bough_error *err) {
    bough_header *shm = w->view->shm;
    size_t length = strlen(key);
    const bough_entry *e = bough_entry_find(shm, 0, key, length, bough_path_hash(key, length));
    unsigned n = 0;
    bough_below_kind kind = bough_view_below(w->view, key, w->levels, BOUGH_MAX_DEPTH, &n);
    uint32_t state = e ? atomic_load(&e->state) : BOUGH_ENTRY_LOWER,
             flags = e ? atomic_load(&e->flags) : 0;
    if (state == BOUGH_ENTRY_GONE) return BOUGH_OK;
    if (state != BOUGH_ENTRY_HEAD) e = NULL;
    if (e ? (flags & BOUGH_FLAG_DIR) != 0 : kind != BOUGH_BELOW_FILE) {
        char path[BOUGH_PATH_MAX];
        if (dry || (!e && kind == BOUGH_BELOW_NONE)) return BOUGH_OK;
        int rc = bough_path(path, sizeof path, err, "%s/%s", w->dest, key);
        return rc ? rc : bough_mkdirs(path, 0700, err);
    }
    char text[BOUGH_LAYERED_PATH_MAX * 2];
    bool whole = bough_path_classify(key, text, sizeof text) != BOUGH_PATH_PAGES;
    uint64_t size = e ? atomic_load(&e->size) : w->levels[0].size;
    struct stat st;
    char real[BOUGH_PATH_MAX];
    if (e && whole && bough_path(real, sizeof real, NULL, "%s/%s", w->pgdata, key) == 0 &&
        stat(real, &st) == 0)
        size = (uint64_t)st.st_size;
    if (dry) {
        w->total += size;
        return BOUGH_OK;
    }
    return write_file(w, key, e, n, size, whole, err);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every path that any level mentions, sorted, each once. Borrowed from the indexes and the memory.
 */
static int all_paths(const char ***out, size_t *n, const bough_view *view, bough_error *err) {
    size_t room = 0, count = 0;
    for (unsigned i = 0; i < view->depth; i++) room += view->layers[i]->index.header->records;
    for (uint32_t b = 0; b < BOUGH_BUCKETS; b++)
        for (uint64_t at = atomic_load(&view->shm->buckets[b]); at;
             at = atomic_load(&((bough_entry *)bough_at(view->shm, at))->next))
            room++;
    const char **list = malloc((room + 1) * sizeof *list);
    if (!list) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (unsigned i = 0; i < view->depth; i++) {
        const bough_index *index = &view->layers[i]->index;
        for (uint32_t r = 0; r < index->header->records; r++)
            list[count++] = bough_index_name(index, &index->records[r]);
    }
    for (uint32_t b = 0; b < BOUGH_BUCKETS; b++)
        for (uint64_t at = atomic_load(&view->shm->buckets[b]); at && count < room;
             at = atomic_load(&((bough_entry *)bough_at(view->shm, at))->next))
            list[count++] = ((const bough_entry *)bough_at(view->shm, at))->path;
    qsort(list, count, sizeof *list, by_text);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || strcmp(list[kept - 1], list[i]) != 0) list[kept++] = list[i];
    *out = list;
    *n = kept;
    return BOUGH_OK;
}

/* Configuration of its own, so that nothing of Bough is needed to start it. */
static int write_config(const char *pgdata, const char *dest, bough_error *err) {
    char path[BOUGH_PATH_MAX], text[1024], *carried = NULL;
    size_t n = 0;
    struct passwd pw, *found = NULL;
    char buf[4096];
    if (getpwuid_r(geteuid(), &pw, buf, sizeof buf, &found) != 0 || !found)
        return bough_fail(err, BOUGH_E_SYS, "user %d has no name", (int)geteuid());
    int rc = bough_path(path, sizeof path, err, "%s/bough_carried.conf", pgdata);
    if (!rc) rc = bough_read_file(&carried, &n, path, 1 << 20, err);
    if (rc == BOUGH_E_NOTFOUND) {
        bough_error_clear(err);
        rc = BOUGH_OK;
    }
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/postgresql.conf", dest);
    if (!rc) rc = bough_write_file(path, carried ? carried : "", n, 0600, err);
    free(carried);
    (void)snprintf(text, sizeof text,
                   "local all bough_admin peer map=bough\nlocal all all scram-sha-256\n"
                   "host all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n");
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_hba.conf", dest);
    if (!rc) rc = bough_write_file(path, text, strlen(text), 0600, err);
    (void)snprintf(text, sizeof text, "bough %s bough_admin\n", pw.pw_name);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/pg_ident.conf", dest);
    if (!rc) rc = bough_write_file(path, text, strlen(text), 0600, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/postgresql.auto.conf", dest);
    if (!rc) rc = bough_write_file(path, "", 0, 0600, err);
    return rc;
}

/* pg_control gets its name last: no postgres starts on what a crash left half written. */
static int finish(const char *dest, bough_error *err) {
    char from[BOUGH_PATH_MAX], to[BOUGH_PATH_MAX];
    int rc = bough_path(from, sizeof from, err, "%s/" UNFINISHED, dest);
    if (!rc) rc = bough_path(to, sizeof to, err, "%s/global/pg_control", dest);
    if (!rc && rename(from, to) != 0)
        rc = bough_fail_sys(err, errno, "could not rename \"%s\"", from);
    if (!rc) rc = bough_path(to, sizeof to, err, "%s/global", dest);
    return rc ? rc : bough_fsync_path(to, err);
}

/* Write a branch that is not running. */
static int write_out(writer *w, const char *branch, bough_error *err) {
    bough_shm *shm = NULL;
    int fd = -1;
    const char **paths = NULL;
    size_t n = 0;
    bough_moment *m = malloc(sizeof *m);
    int rc = m ? bough_store_prepare(&shm, &fd, w->store, branch, err)
               : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (rc) goto out;
    w->view->shm = shm->header;
    w->view->epoch = 1;
    if (bough_view_refresh(w->view) != 0)
        rc = bough_fail_sys(err, errno, "could not read the layers of \"%s\"", branch);
    if (!rc) rc = bough_moment_read(m, w->pgdata, NULL, err);
    if (!rc) rc = bough_moment_dirs(w->pgdata, w->dest, err);
    if (!rc) rc = bough_moment_link(m, w->pgdata, w->dest, true, err);
    if (!rc) rc = bough_moment_finish(m, w->dest, UNFINISHED, err);
    BOUGH_POINT(rc, "export.control-written");
    if (!rc) rc = all_paths(&paths, &n, w->view, err);
    for (size_t i = 0; !rc && i < n; i++) rc = visit(w, paths[i], true, err);
    for (size_t i = 0; !rc && i < n; i++) rc = visit(w, paths[i], false, err);
    BOUGH_POINT(rc, "export.files-written");
    if (!rc) rc = write_config(w->pgdata, w->dest, err);
    char path[BOUGH_PATH_MAX];
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/%s", w->dest, BOUGH_TMP_NAME);
    if (!rc) rc = bough_rmtree(path, err);
    if (!rc) rc = bough_fsync_tree(w->dest, err);
    BOUGH_POINT(rc, "export.synced");
    if (!rc) rc = finish(w->dest, err);
out:
    free(paths);
    free(m);
    bough_view_clear(w->view);
    bough_shm_close(shm);
    if (fd >= 0) close(fd);
    return rc;
}

/* What fails below empties the directory again: nothing of somebody else's may be in it. */
static int check_empty(const char *dest, bough_error *err) {
    int names = 0, failed = 0;
    DIR *dir = opendir(dest);
    if (!dir) return bough_fail_sys(err, errno, "could not open \"%s\"", dest);
    while (bough_list_next(dir, &failed)) names++;
    closedir(dir);
    if (failed) return bough_fail_sys(err, failed, "could not list \"%s\"", dest);
    return names <= 2 ? BOUGH_OK : bough_fail(err, BOUGH_E_CONFLICT, "\"%s\" is not empty", dest);
}

int bough_store_export(bough_store *store, const char *branch, const char *dest,
                       bough_progress progress, void *context, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    writer *w = calloc(1, sizeof *w);
    bough_view *view = calloc(1, sizeof *view);
    int rc = w && view ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc && (rc = check_empty(dest, err)) != BOUGH_OK) goto out;
    if (!rc && chmod(dest, 0700) != 0)
        rc = bough_fail_sys(err, errno, "could not use \"%s\"", dest);
    if (!rc) rc = bough_store_pgdata(pgdata, store, branch, err);
    if (!rc) {
        *w = (writer){.store = store,
                      .view = view,
                      .pgdata = pgdata,
                      .dest = dest,
                      .progress = progress,
                      .context = context};
        rc = write_out(w, branch, err);
        if (rc) bough_ignore(bough_empty_directory(dest, NULL));
    }
out:
    free(view);
    free(w);
    return rc;
}
