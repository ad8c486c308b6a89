/*
 * Keeping stacks short: one layer of a run of neighbouring ones.
 *
 * Two neighbours are separated where some stack has the lower without the upper on it: a child, or
 * a restore point, was made of that moment. A run that nothing separates is merged at no cost in
 * space: all stacks that have it can do with the merged layer, and its parts go. Where children and
 * restore points separate more than BOUGH_MOST_LAYERS, the smallest run is merged for this branch
 * alone and the parts stay for them: what was written twice is then kept twice, for as long as they
 * live.
 *
 * The oldest layers of a run are left out while they are more than RATIO times what is above them,
 * so a byte is copied a number of times that grows with the logarithm of what is written, not with
 * the number of seals.
 *
 * The merged layer is made like a head, by the rules of src/preload/file.c: a file that one layer
 * alone has is linked, of others the visible blocks are copied; then it gets its index as any layer
 * does. All of it is synced before it has a name.
 *
 * Its parts are made durable first, each in its turn: an fsync of a file that is linked is one of
 * the part's own, and what the disk refuses is told once. Taken by a merge, which is given up then,
 * it would be lost, and the part's next fsync would succeed without the pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "preload/path.h"
#include "store/internal.h"
#include "util/crashpoint.h"

#ifndef BOUGH_MOST_LAYERS /* tests have other numbers */
/** A stack that is deeper is shortened at any price, */
#define BOUGH_MOST_LAYERS 16
/** to this depth, */
#define BOUGH_AIM_LAYERS 10
#endif
/** and the oldest layer of a run is at most so many times what lies on it in the run. */
#define RATIO 4
/** A pause after so many bytes, so that merging takes a part of a disk's time only. */
#define PACE_BYTES ((uint64_t)16 << 20)
#define PACE_MS 100
struct bough_merge {
    bough_store *store;
    const char *branch;
    bough_layers run, below; /* newest first */
    bough_index *indexes;
    char temp[BOUGH_PATH_MAX]; /* STORE/layers/GROUP/.merge */
    uint64_t copied;
    bough_cancelled is_cancelled;
    void *context;
};
typedef struct bough_merge merging;

/* ---- which layers ---- */

typedef struct range {
    size_t at, n;
} range;

/* Leave out the oldest while they are large. */
static size_t trim(const uint64_t *bytes, range r) {
    while (r.n > 1) {
        uint64_t above = 0;
        for (size_t i = 0; i + 1 < r.n; i++) above += bytes[r.at + i];
        if (bytes[r.at + r.n - 1] / RATIO <= above) break;
        r.n--;
    }
    return r.n;
}

/* The longest run that nothing separates. */
static range longest(const bough_survey *survey, const bough_layers *stack, const uint64_t *bytes) {
    range best = {0, 0};
    for (size_t i = 0; i < stack->n;) {
        range r = {i, 1};
        while (r.at + r.n < stack->n && !bough_survey_parts(survey, stack, r.at + r.n)) r.n++;
        i = r.at + r.n;
        r.n = trim(bytes, r);
        if (r.n > best.n) best = r;
    }
    return best;
}

/* Of the runs of `n` layers the one with the fewest bytes. */
static range smallest(const bough_layers *stack, const uint64_t *bytes, size_t n) {
    range best = {0, n};
    uint64_t least = UINT64_MAX;
    for (size_t at = 0; at + n <= stack->n; at++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < n; i++) sum += bytes[at + i];
        if (sum < least) {
            least = sum;
            best.at = at;
        }
    }
    return best;
}

static range choose(const bough_survey *survey, const bough_layers *stack, const uint64_t *bytes) {
    range r = longest(survey, stack, bytes);
    if (r.n >= BOUGH_LEAST_RUN || (r.n > 1 && stack->n > BOUGH_MOST_LAYERS)) return r;
    if (stack->n > BOUGH_MOST_LAYERS)
        return smallest(stack, bytes, stack->n - BOUGH_AIM_LAYERS + 1);
    return (range){0, 0};
}

/* Whether every layer has its index. The branch's lock is not held: one that is being sealed gets
 * it after its place in the stack, one may have been collected since. The next round looks again.
 */
static bool is_settled(const bough_store *store, const bough_layers *stack) {
    char path[BOUGH_PATH_MAX];
    for (size_t i = 0; i < stack->n; i++)
        if (bough_path(path, sizeof path, NULL, "%s/layers/%s/index", store->dir, stack->dir[i]) ==
                BOUGH_OK &&
            access(path, F_OK) != 0 && errno == ENOENT)
            return false;
    return true;
}

/* The run, and what is below it; both empty where there is nothing to do. */
static int find_run(bough_layers *run, bough_layers *below, const bough_store *store,
                    const bough_survey *survey, const char *branch, bough_error *err) {
    bough_layers stack;
    int rc = bough_layers_read(&stack, store, branch, err);
    if (rc) return rc;
    if (!is_settled(store, &stack)) {
        bough_layers_free(&stack);
        return BOUGH_OK;
    }
    uint64_t *bytes = calloc(stack.n + 1, sizeof *bytes);
    if (!bytes) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < stack.n; i++)
        rc = bough_layer_bytes(&bytes[i], store, stack.dir[i], err);
    range r = {0, 0};
    /* who stands on a layer that the disk refused must learn it first (bough_store_mend()) */
    if (!rc && !bough_store_is_refused(store, branch)) r = choose(survey, &stack, bytes);
    if (r.n) {
        run->dir = calloc(r.n, sizeof *run->dir);
        below->dir = calloc(stack.n - r.at - r.n + 1, sizeof *below->dir);
        if (!run->dir || !below->dir) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    if (!rc && r.n) {
        run->n = r.n;
        memcpy(run->dir, stack.dir[r.at], r.n * sizeof *run->dir);
        below->n = stack.n - r.at - r.n;
        memcpy(below->dir, stack.dir[r.at + r.n], below->n * sizeof *below->dir);
    }
    free(bytes);
    bough_layers_free(&stack);
    return rc;
}

/* ---- what the merged layer shows ---- */

typedef struct part {
    size_t layer; /* of the run */
    const bough_record *record;
} part;

typedef struct shown {
    bool is_whiteout, is_dir, is_opaque, is_file;
    uint64_t limit; /* of what is below the run */
    part parts[BOUGH_MAX_DEPTH];
    size_t n;
} shown;

static size_t parent_length(const char *path) {
    const char *slash = strncmp(path, "base/", 5) == 0 ? strchr(path + 5, '/') : NULL;
    return slash ? (size_t)(slash - path) : 0;
}

static bool hides(const bough_record *r) {
    return r && (r->kind == BOUGH_RECORD_WHITEOUT || r->kind == BOUGH_RECORD_DIR_OPAQUE);
}

/* From the newest layer of the run to the oldest, as bough_view_below() does it. */
static void show(shown *s, const merging *m, const char *path) {
    size_t length = strlen(path), parent = parent_length(path);
    uint32_t hash = bough_path_hash(path, length), parent_hash = bough_path_hash(path, parent);
    uint64_t visible = UINT64_MAX;
    bool closed = false;
    s->is_whiteout = s->is_dir = s->is_opaque = s->is_file = false;
    s->n = 0;
    for (size_t i = 0; i < m->run.n && !closed; i++) {
        const bough_record *r = bough_index_find(&m->indexes[i], path, length, hash);
        const bough_record *dir =
            parent ? bough_index_find(&m->indexes[i], path, parent, parent_hash) : NULL;
        bool is_first = !s->is_dir && !s->is_file;
        /* nothing is in a directory that is gone, whatever the index says */
        if (dir && dir->kind == BOUGH_RECORD_WHITEOUT) r = NULL;
        if (r && r->kind == BOUGH_RECORD_WHITEOUT) {
            s->is_whiteout = is_first;
            s->is_opaque = s->is_dir;
            closed = true;
        } else if (r && (r->kind == BOUGH_RECORD_DIR || r->kind == BOUGH_RECORD_DIR_OPAQUE)) {
            s->is_dir = is_first || s->is_dir;
            s->is_opaque = r->kind == BOUGH_RECORD_DIR_OPAQUE;
            closed = s->is_opaque || s->is_file;
        } else if (r && s->is_dir) {
            s->is_opaque = true; /* a file was there before */
            closed = true;
        } else if (r) {
            s->is_file = true;
            if (s->n && r->size < visible) visible = r->size;
            s->parts[s->n++] = (part){i, r};
            if (r->limit < visible) visible = r->limit;
            closed = r->kind == BOUGH_RECORD_WHOLE || visible == 0;
        }
        if (hides(dir)) closed = true;
        if (closed) visible = 0;
    }
    s->limit = visible;
}

/* ---- making it ---- */

static int part_path(char *out, const merging *m, const part *p, const char *path,
                     bough_error *err) {
    return bough_path(out, BOUGH_PATH_MAX, err, "%s/layers/%s/data/%s", m->store->dir,
                      m->run.dir[p->layer], path);
}

static int pace(merging *m, uint64_t bytes, bough_error *err) {
    uint64_t before = m->copied / PACE_BYTES;
    m->copied += bytes;
    if (m->is_cancelled && m->is_cancelled(m->context))
        return bough_fail(err, BOUGH_E_CANCELLED, "the server is ending");
    if (m->copied / PACE_BYTES == before) return BOUGH_OK;
    struct timespec pause = {.tv_nsec = PACE_MS * 1000000L};
    (void)nanosleep(&pause, NULL);
    return BOUGH_OK;
}

static int copy_bytes(int in, int out, uint64_t at, uint64_t bytes) {
    char buf[1 << 16];
    while (bytes) {
        off64_t from = (off64_t)at, to = (off64_t)at;
        size_t want = bytes < sizeof buf ? (size_t)bytes : sizeof buf;
        ssize_t n = copy_file_range(in, &from, out, &to, (size_t)bytes, 0);
        if (n < 0) {
            n = bough_pread_full(in, buf, want, (off_t)at);
            if (n > 0 && bough_pwrite_full(out, buf, (size_t)n, (off_t)at) != 0) return -1;
        }
        if (n < 0) return -1;
        if (n == 0) return 0; /* a block that the layer's file ends in */
        at += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

/* The part that a block is taken from; -1: none of the run has it. The rule of owner_of() in
 * src/preload/file.c. */
static int owner_of(const merging *m, const shown *s, uint64_t block) {
    uint64_t at = block << BOUGH_BLOCK_SHIFT;
    for (size_t i = 0; i < s->n; i++) {
        const bough_record *r = s->parts[i].record;
        if (at >= r->size) return -1;
        if (bough_record_has(&m->indexes[s->parts[i].layer], r, block)) return (int)i;
        if (at >= r->limit) return -1;
    }
    return -1;
}

static int copy_blocks(merging *m, const shown *s, const char *path, int out, bough_error *err) {
    uint64_t size = s->parts[0].record->size;
    uint64_t blocks = (size + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT;
    char from[BOUGH_PATH_MAX];
    int rc = BOUGH_OK, in = -1, open_owner = -1;
    for (uint64_t b = 0; !rc && b < blocks;) {
        int owner = owner_of(m, s, b);
        uint64_t end = b + 1;
        while (end < blocks && end - b < PACE_BYTES >> BOUGH_BLOCK_SHIFT &&
               owner_of(m, s, end) == owner)
            end++;
        if (owner >= 0 && owner != open_owner) {
            if (in >= 0) close(in);
            rc = part_path(from, m, &s->parts[owner], path, err);
            in = rc ? -1 : bough_open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
            if (!rc && in < 0) rc = bough_fail_sys(err, errno, "could not open \"%s\"", from);
            open_owner = owner;
        }
        uint64_t at = b << BOUGH_BLOCK_SHIFT, to = end << BOUGH_BLOCK_SHIFT;
        if (to > size) to = size;
        if (!rc && owner >= 0 && copy_bytes(in, out, at, to - at) != 0)
            rc = bough_fail_sys(err, errno, "could not merge \"%s\"", path);
        if (!rc && owner >= 0) rc = pace(m, to - at, err);
        b = end;
    }
    if (in >= 0) close(in);
    return rc;
}

/*
 * Whether the file means the same in the merged layer as in its own. Its limit need not be stored
 * with it: where it is not, it is the size of what is below, so no layer of the run below it may
 * say anything of the path.
 */
static bool is_alone(const merging *m, const shown *s, const char *path) {
    size_t length = strlen(path), parent = parent_length(path);
    uint32_t hash = bough_path_hash(path, length), parent_hash = bough_path_hash(path, parent);
    if (s->n != 1 || s->limit != s->parts[0].record->limit) return false;
    for (size_t i = s->parts[0].layer; i < m->run.n; i++) {
        const bough_index *index = &m->indexes[i];
        if (i > s->parts[0].layer && bough_index_find(index, path, length, hash)) return false;
        if (parent && hides(bough_index_find(index, path, parent, parent_hash))) return false;
    }
    return true;
}

static int make_file(merging *m, const shown *s, const char *path, const char *to,
                     bough_error *err) {
    char from[BOUGH_PATH_MAX], text[24];
    int rc = part_path(from, m, &s->parts[0], path, err);
    if (rc) return rc;
    if (s->parts[0].record->kind == BOUGH_RECORD_WHOLE || is_alone(m, s, path))
        return link(from, to) == 0 ? BOUGH_OK
                                   : bough_fail_sys(err, errno, "could not link \"%s\"", from);
    int out = bough_open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0) return bough_fail_sys(err, errno, "could not create \"%s\"", to);
    int n = snprintf(text, sizeof text, "%llu", (unsigned long long)s->limit);
    if (bough_ftruncate(out, (off_t)s->parts[0].record->size) != 0 ||
        fsetxattr(out, BOUGH_XATTR_LIMIT, text, (size_t)n, 0) != 0)
        rc = bough_fail_sys(err, errno, "could not size \"%s\"", to);
    if (!rc) rc = copy_blocks(m, s, path, out, err);
    if (!rc && bough_fsync(out) != 0) rc = bough_fail_sys(err, errno, "could not fsync \"%s\"", to);
    close(out);
    return rc;
}

static int make_dir(const char *to, bool opaque, bough_error *err) {
    int rc = bough_mkdirs(to, 0700, err);
    if (!rc && opaque && setxattr(to, BOUGH_XATTR_OPAQUE, "1", 1, 0) != 0)
        rc = bough_fail_sys(err, errno, "could not mark \"%s\"", to);
    return rc;
}

static int make_path(merging *m, const char *path, bough_error *err) {
    char to[BOUGH_PATH_MAX], parent[BOUGH_PATH_MAX];
    shown *s = malloc(sizeof *s);
    if (!s) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    show(s, m, path);
    int rc = bough_path(to, sizeof to, err, "%s/data/%s", m->temp, path);
    if (!rc && (s->is_whiteout || s->is_file)) {
        memcpy(parent, to, sizeof parent);
        *strrchr(parent, '/') = '\0';
        rc = bough_mkdirs(parent, 0700, err);
    }
    if (!rc && s->is_whiteout && symlink(BOUGH_WHITEOUT, to) != 0)
        rc = bough_fail_sys(err, errno, "could not create \"%s\"", to);
    else if (!rc && s->is_dir)
        rc = make_dir(to, s->is_opaque, err);
    else if (!rc && s->is_file)
        rc = make_file(m, s, path, to, err);
    free(s);
    return rc;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every path of the run, each once, directories before what is in them. */
static int make_all(merging *m, bough_error *err) {
    size_t room = 0, n = 0;
    for (size_t i = 0; i < m->run.n; i++) room += m->indexes[i].header->records;
    const char **paths = malloc((room + 1) * sizeof *paths);
    if (!paths) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < m->run.n; i++)
        for (uint32_t r = 0; r < m->indexes[i].header->records; r++)
            paths[n++] = bough_index_name(&m->indexes[i], &m->indexes[i].records[r]);
    if (n > 1) qsort(paths, n, sizeof *paths, by_text);
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < n; i++)
        if (i == 0 || strcmp(paths[i - 1], paths[i]) != 0) rc = make_path(m, paths[i], err);
    free(paths);
    return rc;
}

static int map_indexes(merging *m, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    m->indexes = calloc(m->run.n, sizeof *m->indexes);
    if (!m->indexes) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < m->run.n; i++) {
        rc = bough_path(path, sizeof path, err, "%s/layers/%s/index", m->store->dir, m->run.dir[i]);
        if (!rc && bough_index_map(&m->indexes[i], path, true) != 0)
            rc = bough_fail_sys(err, errno, "could not read the index of layer \"%s\"",
                                m->run.dir[i]);
    }
    return rc;
}

/* What it stands for, down to layers that are not merged: beside its data. */
static int write_parts(const merging *m, const bough_merged *merged, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    bough_layers all = {calloc(BOUGH_MAX_DEPTH, sizeof *all.dir), 0};
    if (!all.dir) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < m->run.n; i++) {
        bough_layers self;
        const bough_layers *parts = bough_merged_parts(merged, &self, &m->run.dir[i]);
        /* too many to tell: then it stands for the merged layer alone */
        if (all.n + parts->n + (m->run.n - i) > BOUGH_MAX_DEPTH) {
            self = (bough_layers){&m->run.dir[i], 1};
            parts = &self;
        }
        memcpy(all.dir + all.n, parts->dir, parts->n * sizeof *parts->dir);
        all.n += parts->n;
    }
    int rc = bough_path(path, sizeof path, err, "%s/" BOUGH_MERGED_FILE, m->temp);
    if (!rc) rc = bough_layers_save(path, NULL, &all, err);
    bough_layers_free(&all);
    return rc;
}

/* What the disk refuses of them is noted, and mended, as of any layer. Oldest first. */
static int sync_parts(merging *m, bough_error *err) {
    int rc = BOUGH_OK;
    for (size_t i = m->run.n; !rc && i-- > 0;) {
        rc = pace(m, 0, err);
        if (!rc) rc = bough_layer_sync(m->store, m->run.dir[i], err);
    }
    return rc;
}

static int make(merging *m, const bough_merged *merged, bough_error *err) {
    char path[BOUGH_PATH_MAX], dir[100];
    int rc = sync_parts(m, err);
    if (!rc)
        rc = bough_path(m->temp, sizeof m->temp, err, "%s/layers/%s/" BOUGH_MERGING, m->store->dir,
                        m->branch);
    if (!rc) rc = bough_rmtree(m->temp, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/data", m->temp);
    if (!rc) rc = bough_head_skeleton(path, err);
    if (!rc) rc = map_indexes(m, err);
    if (!rc) rc = make_all(m, err);
    if (!rc) rc = write_parts(m, merged, err);
    if (!rc) rc = bough_path(dir, sizeof dir, err, "%s/" BOUGH_MERGING, m->branch);
    if (!rc) rc = bough_index_rebuild(m->store, dir, &m->below, err);
    if (!rc) rc = bough_fsync_tree(m->temp, err);
    if (!rc) rc = bough_layer_set_durable(m->store, dir, err);
    BOUGH_POINT(rc, "merge.made");
    return rc;
}

int bough_merge_begin(bough_merge **out, bough_store *store, const bough_survey *survey,
                      const bough_merged *merged, const char *branch, bough_cancelled is_cancelled,
                      void *context, bough_error *err) {
    *out = NULL;
    merging *m = calloc(1, sizeof *m);
    if (!m) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    *m = (merging){
        .store = store, .branch = branch, .is_cancelled = is_cancelled, .context = context};
    int rc = find_run(&m->run, &m->below, store, survey, branch, err);
    if (!rc && m->run.n) rc = make(m, merged, err);
    if (rc || m->run.n == 0) {
        bough_merge_end(m);
        return rc ? bough_context(err, "could not merge layers of \"%s\"", branch) : rc;
    }
    *out = m;
    return BOUGH_OK;
}

/* ---- putting it in place ---- */

/* Give it a name. It has no reference before bough_merged_apply(): the caller holds `places`. */
static int give_name(merging *m, bough_error *err) {
    char path[BOUGH_PATH_MAX], dir[100];
    int rc = bough_layer_next(dir, sizeof dir, m->store, m->branch, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s", m->store->dir, dir);
    if (!rc && rename(m->temp, path) != 0)
        rc = bough_fail_sys(err, errno, "could not rename \"%s\"", m->temp);
    if (!rc) *strrchr(path, '/') = '\0';
    if (!rc) rc = bough_fsync_path(path, err);
    BOUGH_POINT(rc, "merge.named");
    return rc;
}

int bough_merge_commit(size_t *layers, bough_merge *m, bough_header *live, bough_error *err) {
    bough_merged merged = {0};
    size_t changed = 0;
    *layers = 0;
    pthread_mutex_lock(&m->store->places);
    int rc = give_name(m, err);
    if (!rc) rc = bough_merged_load(&merged, m->store, err);
    if (!rc) rc = bough_merged_apply(&changed, m->store, &merged, m->branch, live, err);
    bough_merged_free(&merged);
    pthread_mutex_unlock(&m->store->places);
    if (!rc && changed) *layers = m->run.n;
    return rc;
}

void bough_merge_end(bough_merge *m) {
    if (!m) return;
    for (size_t i = 0; m->indexes && i < m->run.n; i++) bough_index_unmap(&m->indexes[i]);
    free(m->indexes);
    bough_layers_free(&m->run);
    bough_layers_free(&m->below);
    if (m->temp[0]) bough_ignore(bough_rmtree(m->temp, NULL));
    free(m);
}
