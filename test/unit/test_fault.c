/*
 * Calls of the file system that fail: the nth call of an operation of src/store, for every n, for
 * what a full disk, a broken one and an interruption say. Each time the operation succeeds or names
 * the call's error, leaves no descriptor open and nothing half made, and all branches show what
 * they showed.
 *
 * Some of the calls of each operation, others with another BOUGH_FAULT_SEED (./check gives one).
 * More with BOUGH_LONG=1, all with BOUGH_FAULT_ALL=1.
 */
#include <errno.h>
#include <fts.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cluster.h"
#include "fault/fault.h"
#include "store/internal.h"
#include "util/log.h"

enum { MOST = 20000, LAYERS = 9, SOME = 8, FEW = 3, MORE = 5 /* times, in --long */ };

static char dir[64];
static fault_page page;
static bough_store *store;

static const char *at(char *out, const char *fmt, ...) BOUGH_PRINTF(2, 3);
static const char *at(char *out, const char *fmt, ...) {
    va_list ap;
    int n = snprintf(out, BOUGH_PATH_MAX, "%s/", dir);
    va_start(ap, fmt);
    (void)vsnprintf(out + n, (size_t)(BOUGH_PATH_MAX - n), fmt, ap);
    va_end(ap);
    return out;
}

/* ---- the world of an operation ---- */

/* A file of the branch's head, of one page that begins with a letter. */
static void write_page(const char *branch, const char *name, char letter) {
    char path[BOUGH_PATH_MAX], data[8192];
    memset(data, letter, sizeof data);
    (void)at(path, "store/branches/%s/pgdata/base/1", branch);
    assert_int_equal(bough_mkdirs(path, 0700, NULL), 0);
    (void)at(path, "store/branches/%s/pgdata/base/1/%s", branch, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, data, sizeof data, 0), sizeof data);
    close(fd);
}

/* "main" and its child "kid"; both have something in their heads. */
static void make_world(void) {
    char path[BOUGH_PATH_MAX];
    bough_error err;
    assert_int_equal(bough_rmtree(at(path, "store"), NULL), 0);
    assert_int_equal(bough_rmtree(at(path, "export"), NULL), 0);
    assert_int_equal(bough_mkdirs(path, 0700, NULL), 0);
    cluster_make(at(path, "cluster"));
    if (bough_store_open(&store, at(path, "store"), &err)) fail_msg("%s", err.message);
    assert_int_equal(bough_store_adopt(store, "main", at(path, "cluster"), &err), 0);
    write_page("main", "2000", 'm');
    assert_int_equal(bough_store_fork(NULL, store, "main", "kid", NULL, &err), 0);
    write_page("kid", "2000", 'k');
    write_page("main", "3000", 'n');
}

/* A child of "main" while that runs, so that the layer below it is not durable yet. */
static void fork_awake(const char *child) {
    bough_shm *shm = NULL;
    bough_error err;
    int fd = -1;
    assert_int_equal(bough_store_prepare(&shm, &fd, store, "main", &err), 0);
    bough_shm_set_postmaster(shm, getpid());
    if (bough_store_fork(NULL, store, "main", child, shm, &err)) fail_msg("%s", err.message);
    bough_shm_close(shm);
    close(fd);
}

/* The same with a stack that is worth merging; of layers that are durable, or not yet. */
static void make_tall(bool is_awake) {
    bough_error err;
    char name[2] = "4";
    make_world();
    for (int i = 0; i < LAYERS; i++) {
        name[0] = (char)('4' + i % 5);
        write_page("main", name, (char)('a' + i));
        if (is_awake)
            fork_awake("tmp");
        else
            assert_int_equal(bough_store_fork(NULL, store, "main", "tmp", NULL, &err), 0);
        assert_int_equal(bough_store_delete(store, "tmp", &err), 0);
    }
    assert_int_equal(bough_store_purge(store, &err), 0);
    write_page("main", "3000", 'n');
}

static void make_tall_world(void) {
    make_tall(false);
}

static void end_world(void) {
    bough_store_close(store);
    store = NULL;
}

/* The first byte of a file as a stock postgres would see it; 0: there is none. */
static char shown(const char *export, const char *name) {
    char path[BOUGH_PATH_MAX], letter = 0;
    (void)snprintf(path, sizeof path, "%s/base/1/%s", export, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    assert_int_equal(pread(fd, &letter, 1, 0), 1);
    close(fd);
    return letter;
}

static void expect_shows(const char *branch, char of_2000, char of_3000) {
    char path[BOUGH_PATH_MAX];
    bough_error err;
    (void)at(path, "look");
    assert_int_equal(bough_rmtree(path, NULL), 0);
    assert_int_equal(bough_mkdirs(path, 0700, NULL), 0);
    if (bough_store_export(store, branch, path, NULL, NULL, &err))
        fail_msg("branch \"%s\" cannot be read: %s", branch, err.message);
    assert_int_equal(shown(path, "1000"), 'x');
    assert_int_equal(shown(path, "2000"), of_2000);
    assert_int_equal(shown(path, "3000"), of_3000);
    assert_int_equal(bough_rmtree(path, NULL), 0);
}

/* What is being made, in the store; none of it may be there when nothing is being made. */
static const char *half_made(void) {
    static char found[BOUGH_PATH_MAX];
    char path[BOUGH_PATH_MAX];
    char *roots[] = {(char *)(uintptr_t)at(path, "store"), NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *e;
    found[0] = '\0';
    while ((e = fts_read(fts)) != NULL)
        if (e->fts_level == 1 && strcmp(e->fts_name, "trash") == 0)
            (void)fts_set(fts, e, FTS_SKIP);
        else if (strchr(e->fts_name, '~') || strstr(e->fts_name, ".tmp-") ||
                 strcmp(e->fts_name, "next") == 0 || strcmp(e->fts_name, "stack.next") == 0 ||
                 strcmp(e->fts_name, "stack.merged") == 0 || strcmp(e->fts_name, ".merge") == 0 ||
                 strncmp(e->fts_name, "probe-", 6) == 0 || strcmp(e->fts_name, "last-segment") == 0)
            (void)snprintf(found, sizeof found, "%s", e->fts_path);
    (void)fts_close(fts);
    return found[0] ? found : NULL;
}

/* ---- operations ---- */

static int adopt(bough_error *err) {
    char path[BOUGH_PATH_MAX];
    return bough_store_adopt(store, "made", at(path, "cluster"), err);
}
static int take_child(bough_error *err) {
    return bough_store_fork(NULL, store, "main", "made", NULL, err);
}
static int take_point(bough_error *err) {
    return bough_store_point(NULL, store, "main", NULL, err);
}
static int delete_kid(bough_error *err) {
    return bough_store_delete(store, "kid", err);
}
static int purge(bough_error *err) {
    return bough_store_purge(store, err);
}
static int collect(bough_error *err) {
    return bough_store_collect_all(store, err);
}
static int sync_kid(bough_error *err) {
    return bough_store_sync(store, "kid", NULL, err);
}
static int trim(bough_error *err) {
    return bough_store_trim(store, "main", false, err);
}
static int look(bough_error *err) {
    bough_usage usage;
    char **dirs = NULL;
    bough_shm *shm = NULL;
    int fd = -1;
    int rc = bough_store_usage(&usage, store, "main", NULL, err);
    if (!rc) rc = bough_store_layer_dirs(&dirs, store, "main", err);
    bough_store_free_list(dirs);
    if (!rc) rc = bough_store_prepare(&shm, &fd, store, "main", err);
    bough_shm_close(shm);
    if (fd >= 0) close(fd);
    return rc;
}
static int write_out(bough_error *err) {
    char path[BOUGH_PATH_MAX];
    return bough_store_export(store, "main", at(path, "export"), NULL, NULL, err);
}
static bool is_undecided;
static int exchange(bough_error *err) {
    return bough_store_exchange(&is_undecided, store, "main", "kid", "mark", err);
}
static int forget(bough_error *err) {
    return bough_store_forget_oldest(store, "main", err);
}
static int forget_all(bough_error *err) {
    bool is_changed = false;
    return bough_store_forget_all(&is_changed, store, "main", err);
}
static int merge(bough_error *err) {
    bough_tidy *tidy = NULL;
    bough_merge *m = NULL;
    size_t n = 0;
    int rc = bough_tidy_begin(&tidy, store, err);
    if (!rc) rc = bough_tidy_merge(&m, tidy, "main", NULL, NULL, err);
    if (!rc && m) rc = bough_tidy_commit(&n, m, NULL, err);
    bough_tidy_drop(m);
    bough_tidy_end(tidy);
    return rc;
}
static bool may_lose_kid, is_made;

static int reopen(bough_error *err) {
    char path[BOUGH_PATH_MAX];
    const char *known[] = {"main", "kid", "made"};
    bool missing[3] = {false, false, false};
    end_world();
    int rc = bough_store_open(&store, at(path, "store"), err);
    if (!rc) rc = bough_store_reconcile(store, known, NULL, missing, is_made ? 3 : 2, err);
    if (!rc && (missing[0] || (missing[1] && !may_lose_kid) || missing[2]))
        fail_msg("a branch is gone");
    return rc;
}

/* ---- failing them ---- */

typedef struct operation {
    const char *name;
    int (*run)(bough_error *err);
    bool makes;      /* the branch "made" */
    bool removes;    /* the branch "kid" */
    bool swaps;      /* "main" and "kid" */
    bool is_lenient; /* looks at what need not be there: may succeed whatever fails */
    void (*world)(void);
} operation;

static const operation operations[] = {
    {"adopt", adopt, .makes = true},
    {"branch", take_child, .makes = true},
    {"restore point", take_point},
    {"delete", delete_kid, .removes = true},
    {"purge", purge},
    {"collect", collect},
    {"sync", sync_kid},
    {"trim", trim},
    {"look", look},
    {"export", write_out},
    {"exchange", exchange, .swaps = true},
    {"forget a point", forget},
    {"forget all points", forget_all},
    {"merge", merge, .world = make_tall_world},
    {"start", reopen},
};

static const uint32_t all_calls = (FAULT_CALL(FAULT_CALLS) - 1) & ~FAULT_CALL(FAULT_MALLOC);
/* EINTR comes from these; it, and what is done in part, must not be seen by anybody */
static const uint32_t interruptible = FAULT_CALL(FAULT_OPEN) | FAULT_CALL(FAULT_READ) |
                                      FAULT_CALL(FAULT_WRITE) | FAULT_CALL(FAULT_SYNC) |
                                      FAULT_CALL(FAULT_TRUNCATE) | FAULT_CALL(FAULT_ALLOCATE);

typedef struct kind {
    const char *name;
    fault_mode mode;
    int error;
    uint32_t calls;
    bool is_unseen;
} kind;

static const kind kinds[] = {
    {"EIO", FAULT_ONCE, EIO, all_calls, false},
    {"ENOSPC", FAULT_ONCE, ENOSPC,
     FAULT_CALL(FAULT_WRITE) | FAULT_CALL(FAULT_TRUNCATE) | FAULT_CALL(FAULT_MKDIR) |
         FAULT_CALL(FAULT_LINK) | FAULT_CALL(FAULT_RENAME) | FAULT_CALL(FAULT_XATTR) |
         FAULT_CALL(FAULT_ALLOCATE) | FAULT_CALL(FAULT_OPEN),
     false},
    {"EMFILE", FAULT_ONCE, EMFILE, FAULT_CALL(FAULT_OPEN) | FAULT_CALL(FAULT_LIST), false},
    {"EIO from then on", FAULT_ON, EIO, all_calls, false},
    {"EINTR", FAULT_ONCE, EINTR, interruptible, true},
    {"in part", FAULT_SHORT, 0, FAULT_CALL(FAULT_READ) | FAULT_CALL(FAULT_WRITE), true},
};

static void arm(const kind *k, long n) {
    page.calls = k->calls;
    page.error = k->error;
    page.nth = n;
    atomic_store(&page.seen, 0);
    atomic_store(&page.fired, 0);
    page.fired_path[0] = '\0';
    atomic_store(&page.mode, (uint32_t)k->mode);
}

static void describe(char *out, size_t size, const operation *o, const kind *k, long n) {
    (void)snprintf(out, size, "%s, %s, call %ld (kind %u on \"%s\")", o->name, k->name, n,
                   page.fired_call, page.fired_path);
}

/* After a disk that failed from some call on: the next start looks at everything. */
static void start_anew(const char *what) {
    bough_error err;
    if (reopen(&err)) fail_msg("%s: the next start fails: %s", what, err.message);
}

static void check_world(const operation *o, const char *what, int rc) {
    const char *left = half_made();
    if (left) fail_msg("%s: it left \"%s\"", what, left);
    bool made = bough_store_has_branch(store, "made"), kid = bough_store_has_branch(store, "kid");
    if (o->makes && rc == BOUGH_OK && !made) fail_msg("%s: it is not there", what);
    if (o->removes && rc == BOUGH_OK && kid) fail_msg("%s: it is still there", what);
    may_lose_kid = is_made = false;
    if (!o->removes && !kid) fail_msg("%s: a branch is gone", what);
    bough_error err;
    bool swapped = false;
    if (o->swaps && bough_store_is_marked(&swapped, store, "main", "mark", &err))
        fail_msg("%s: %s", what, err.message);
    if (o->swaps && rc == BOUGH_OK && !swapped) fail_msg("%s: nothing was exchanged", what);
    /* who calls removes what was to come in, then */
    if (swapped && rc && !is_undecided) fail_msg("%s: it was exchanged, and said no", what);
    expect_shows(swapped ? "kid" : "main", 'm', 'n');
    if (kid) expect_shows(swapped ? "main" : "kid", 'k', 0);
    if (made && o->run == take_child) expect_shows("made", 'm', 'n');
    /* and branching goes on */
    write_page(swapped ? "kid" : "main", "5000", 'p');
    if (bough_store_fork(NULL, store, swapped ? "kid" : "main", "later", NULL, &err))
        fail_msg("%s: branching fails afterwards: %s", what, err.message);
    expect_shows("later", 'm', 'n');
}

/* One fault. Whether it fired. */
static bool fail_one(const operation *o, const kind *k, long n) {
    char what[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX];
    bough_error err = {0};
    (o->world ? o->world : make_world)();
    if (o->run == adopt) cluster_make(at(path, "cluster"));
    int before = open_descriptors();
    arm(k, n);
    int rc = o->run(&err);
    atomic_store(&page.mode, FAULT_NONE);
    bool has_fired = atomic_load(&page.fired) > 0;
    describe(what, sizeof what, o, k, n);
    if (!store || open_descriptors() != before) {
        if (o->run != reopen) fail_msg("%s: it left descriptors open", what);
    }
    if (rc && (rc != err.code || !err.message[0])) fail_msg("%s: no error is told", what);
    if (rc && !has_fired) fail_msg("%s: it fails by itself: %s", what, err.message);
    if (rc && k->is_unseen) fail_msg("%s: it is seen: %s", what, err.message);
    if (rc && !strstr(err.message, strerror(k->error)))
        fail_msg("%s: the error is not named: %s", what, err.message);
    if (!has_fired) {
        end_world();
        return false;
    }
    may_lose_kid = o->removes;
    is_made = o->makes && rc == BOUGH_OK;
    /* what cannot be removed goes with the next start */
    bool is_of_cleaning = page.fired_call == FAULT_UNLINK || page.fired_call == FAULT_LIST;
    if (k->mode == FAULT_ON || is_of_cleaning || o->run == reopen) start_anew(what);
    check_world(o, what, rc);
    if (o->makes && rc) { /* it can be done again */
        if (o->run == adopt) cluster_make(at(path, "cluster"));
        if (o->run(&err)) fail_msg("%s: it cannot be done again: %s", what, err.message);
    }
    end_world();
    return true;
}

static void an_operation_survives_the_failure_of_any_call(void **state) {
    const operation *o = *state;
    const char *text = getenv("BOUGH_FAULT_SEED"), *more = getenv("BOUGH_LONG");
    long seed = text ? atol(text) : 0, count = 0, calls = 0;
    long times = more && strcmp(more, "1") == 0 ? MORE : 1;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        (void)fail_one(o, &kinds[i], MOST);
        long total = (long)atomic_load(&page.seen), some = times * (o->world ? FEW : SOME);
        long stride = getenv("BOUGH_FAULT_ALL") || total < some ? 1 : total / some;
        long n = 1 + seed % stride;
        for (; n < MOST && fail_one(o, &kinds[i], n); n += stride) count++;
        assert_true(n < MOST);
        calls += total;
    }
    print_message("%s: %ld faults of %ld that are possible; BOUGH_FAULT_SEED=%ld\n", o->name, count,
                  calls, seed);
    assert_true(count > 0);
}

/* An fsync that failed is told once by the kernel. */
static void a_layer_that_the_disk_refused_is_vouched_for_by_nobody(void **unused) {
    (void)unused;
    char path[BOUGH_PATH_MAX];
    bough_shm *shm = NULL;
    bough_error err;
    bough_layers layers;
    int fd = -1;
    make_world();
    assert_int_equal(bough_store_prepare(&shm, &fd, store, "main", &err), 0);
    bough_shm_set_postmaster(shm, getpid());
    if (bough_store_fork(NULL, store, "main", "made", shm, &err)) fail_msg("%s", err.message);
    assert_true(bough_store_sync_pending(store, "made"));
    const kind refusal = {"EIO", FAULT_ONCE, EIO, FAULT_CALL(FAULT_SYNC), false};
    (void)snprintf(page.path, sizeof page.path, "*/layers/*");
    arm(&refusal, 1);
    assert_int_equal(bough_store_sync(store, "made", NULL, &err), BOUGH_E_SYS);
    atomic_store(&page.mode, FAULT_NONE);
    page.path[0] = '\0';
    assert_int_equal(atomic_load(&page.fired), 1);
    /* the disk works again, but what it has is not known; any memory stands for that of a running
     * compute, which has to end before the branch can go back */
    assert_int_equal(bough_store_sync(store, "made", shm, &err), BOUGH_E_SYS);
    assert_true(bough_store_sync_pending(store, "made"));
    assert_int_equal(bough_layers_read(&layers, store, "made", &err), 0);
    assert_false(bough_layer_is_durable(store, layers.dir[0]));
    bough_shm_close(shm);
    close(fd);
    /* the branch replays all since it was made, from the WAL that was kept, and needs the layer's
     * lost pages no more */
    write_page("made", "2000", 'c');
    (void)at(path, "store/branches/made/pgdata/" BOUGH_CONTROL_NAME);
    assert_int_equal(bough_write_file(path, "later", 5, 0600, &err), 0);
    if (bough_store_prepare(&shm, &fd, store, "made", &err)) fail_msg("%s", err.message);
    assert_false(bough_store_sync_pending(store, "made"));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 8192);
    bough_shm_close(shm);
    close(fd);
#ifdef BOUGH_CRASH_POINTS /* after a boot the disk shows what it has */
    (void)at(path, "boot");
    assert_int_equal(bough_write_file(path, "another boot", 12, 0600, &err), 0);
    assert_int_equal(setenv("BOUGH_BOOT_ID_FILE", path, 1), 0);
    assert_int_equal(bough_store_sync(store, "made", NULL, &err), BOUGH_OK);
    assert_true(bough_layer_is_durable(store, layers.dir[0]));
    assert_int_equal(unsetenv("BOUGH_BOOT_ID_FILE"), 0);
#endif
    bough_layers_free(&layers);
    end_world();
}

/* Where a file has data, as text, and a sum of its bytes. */
static void describe_file(char *out, size_t size, const char *path) {
    char data[8192];
    unsigned sum = 0;
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (off_t at = 0, hole; (at = lseek(fd, at, SEEK_DATA)) >= 0; at = hole) {
        hole = lseek(fd, at, SEEK_HOLE);
        used += (size_t)snprintf(out + used, size - used, "%ld-%ld ", (long)at, (long)hole);
    }
    for (ssize_t n; (n = read(fd, data, sizeof data)) > 0;)
        for (ssize_t i = 0; i < n; i++) sum = sum * 31 + (unsigned char)data[i];
    (void)snprintf(out + used, size - used, "sum %u", sum);
    close(fd);
}

static void write_at(const char *path, off_t where, char letter) {
    char data[8192];
    memset(data, letter, sizeof data);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, data, sizeof data, where), sizeof data);
    close(fd);
}

static bool is_told(const bough_shm *shm, const char *layer, uint32_t what) {
    for (uint32_t i = 0; i < atomic_load(&shm->header->depth); i++)
        if (strcmp(shm->header->stack[i].dir, layer) == 0)
            return atomic_load(&shm->header->stack[i].needs_sync) == what;
    return false;
}

/* A disk that refused a layer once, and takes it when it is written anew. */
static void a_layer_that_the_disk_refused_is_mended(void **unused) {
    (void)unused;
    char path[BOUGH_PATH_MAX], layer[100], before[400], after[400], **names = NULL;
    bough_shm *shm = NULL;
    bough_error err;
    bough_layers layers;
    int fd = -1;
    make_world();
    write_page("main", "2000", 'z'); /* 'm' is below */
    (void)at(path, "store/branches/main/pgdata/base/1/4000");
    write_at(path, 0, 'a');
    write_at(path, (off_t)64 * 8192, 'b');
    assert_int_equal(bough_store_prepare(&shm, &fd, store, "main", &err), 0);
    bough_shm_set_postmaster(shm, getpid());
    if (bough_store_fork(NULL, store, "main", "made", shm, &err)) fail_msg("%s", err.message);
    assert_int_equal(bough_layers_read(&layers, store, "made", &err), 0);
    (void)snprintf(layer, sizeof layer, "%s", layers.dir[0]);
    bough_layers_free(&layers);
    (void)bough_store_take_refused(store);
    const kind refusal = {"EIO", FAULT_ON, EIO, FAULT_CALL(FAULT_SYNC), false};
    (void)snprintf(page.path, sizeof page.path, "*/layers/*");
    arm(&refusal, 1);
    assert_int_equal(bough_store_sync(store, "made", shm, &err), BOUGH_E_SYS);
    assert_true(bough_store_take_refused(store));
    assert_int_equal(bough_store_refused(&names, store, &err), 0);
    assert_string_equal(names[0], layer);
    assert_null(names[1]);
    bough_store_free_list(names);
    assert_true(is_told(shm, layer, BOUGH_SYNC_NEEDED));
    /* the child goes on meanwhile, and writes checkpoints of its own */
    (void)at(path, "store/branches/made/pgdata/" BOUGH_CONTROL_NAME);
    assert_int_equal(bough_write_file(path, "later", 5, 0600, &err), 0);
    /* who trusted it is told, and the disk still does not take it */
    if (bough_store_mend_begin(store, layer, shm, &err)) fail_msg("%s", err.message);
    assert_true(is_told(shm, layer, BOUGH_SYNC_REFUSED));
    assert_int_equal(bough_store_mend(store, layer, &err), BOUGH_E_SYS);
    assert_true(bough_layer_is_refused(store, layer));
    assert_false(bough_layer_is_durable(store, layer));
    atomic_store(&page.mode, FAULT_NONE);
    page.path[0] = '\0';
    /* of one file it has lost the page */
    (void)at(path, "store/layers/%s/data/base/1/2000", layer);
    int lost = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(fallocate(lost, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192), 0);
    close(lost);
    (void)at(path, "store/layers/%s/data/base/1/4000", layer);
    describe_file(before, sizeof before, path);
    assert_non_null(strstr(before, "524288-532480 sum")); /* there is a hole */
    if (bough_store_mend_begin(store, layer, shm, &err)) fail_msg("%s", err.message);
    if (bough_store_mend(store, layer, &err)) fail_msg("%s", err.message);
    describe_file(after, sizeof after, path);
    assert_string_equal(before, after);
    assert_true(bough_layer_is_durable(store, layer));
    assert_false(bough_layer_is_refused(store, layer));
    /* durable or not, the child has to go back, when its compute has ended */
    assert_int_equal(bough_store_sync(store, "made", shm, &err), BOUGH_E_SYS);
    assert_true(bough_store_sync_pending(store, "made"));
    assert_int_equal(bough_store_returning(&names, store, &err), 0);
    assert_string_equal(names[0], "made");
    assert_null(names[1]);
    bough_store_free_list(names);
    assert_int_equal(bough_store_sync(store, "made", NULL, &err), 0);
    assert_false(bough_store_sync_pending(store, "made"));
    struct stat st;
    (void)at(path, "store/branches/made/pgdata/" BOUGH_CONTROL_NAME);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 8192);
    expect_shows("made", 'm', 'n'); /* the lost page falls through */
    /* and all goes on, without a new start of the machine */
    assert_int_equal(bough_store_sync(store, "made", NULL, &err), 0);
    assert_int_equal(bough_store_fork(NULL, store, "main", "next", shm, &err), 0);
    assert_int_equal(bough_store_sync(store, "next", NULL, &err), 0);
    assert_int_equal(bough_store_mend(store, layer, &err), 0); /* nothing is to be done */
    bough_shm_close(shm);
    close(fd);
    end_world();
}

/* Of the layers below "main", the one that alone has a file. */
static void find_layer_of(char out[100], const char *name) {
    char path[BOUGH_PATH_MAX];
    bough_error err;
    bough_layers layers;
    out[0] = '\0';
    assert_int_equal(bough_layers_read(&layers, store, "main", &err), 0);
    for (size_t i = 0; i < layers.n; i++) {
        (void)at(path, "store/layers/%s/data/base/1/%s", layers.dir[i], name);
        if (access(path, F_OK) != 0) continue;
        assert_string_equal(out, "");
        (void)snprintf(out, 100, "%s", layers.dir[i]);
    }
    bough_layers_free(&layers);
    assert_string_not_equal(out, "");
}

/* A merged layer has links to files of its parts. */
static void what_the_disk_refuses_to_a_merge_is_noted(void **unused) {
    (void)unused;
    char layer[100];
    bough_error err;
    make_tall(true);
    find_layer_of(layer, "8");
    assert_false(bough_layer_is_durable(store, layer));
    (void)bough_store_take_refused(store);
    const kind refusal = {"EIO", FAULT_ONCE, EIO, FAULT_CALL(FAULT_SYNC), false};
    (void)snprintf(page.path, sizeof page.path, "*/data/base/1/8");
    arm(&refusal, 1);
    assert_int_equal(merge(&err), BOUGH_E_SYS);
    assert_int_equal(atomic_load(&page.fired), 1);
    atomic_store(&page.mode, FAULT_NONE);
    page.path[0] = '\0';
    assert_null(half_made());
    assert_true(bough_layer_is_refused(store, layer));
    assert_true(bough_store_take_refused(store));
    assert_int_equal(bough_layer_sync(store, layer, &err), BOUGH_E_SYS);
    assert_false(bough_layer_is_durable(store, layer));
    /* nothing is merged of it before it is mended */
    bough_layers layers;
    assert_int_equal(bough_layers_read(&layers, store, "main", &err), 0);
    size_t depth = layers.n;
    bough_layers_free(&layers);
    assert_int_equal(merge(&err), 0);
    assert_int_equal(bough_store_mend_begin(store, layer, NULL, &err), 0);
    if (bough_store_mend(store, layer, &err)) fail_msg("%s", err.message);
    assert_int_equal(bough_layers_read(&layers, store, "main", &err), 0);
    assert_int_equal(layers.n, depth);
    bough_layers_free(&layers);
    if (merge(&err)) fail_msg("%s", err.message);
    assert_int_equal(bough_layers_read(&layers, store, "main", &err), 0);
    assert_true(layers.n < depth);
    bough_layers_free(&layers);
    expect_shows("main", 'm', 'n');
    end_world();
}

/* Refuse a layer once, as the disk does. */
static void refuse(const char *layer) {
    bough_error err;
    const kind refusal = {"EIO", FAULT_ONCE, EIO, FAULT_CALL(FAULT_SYNC), false};
    (void)snprintf(page.path, sizeof page.path, "*/layers/%s/*", layer);
    arm(&refusal, 1);
    assert_int_equal(bough_layer_sync(store, layer, &err), BOUGH_E_SYS);
    atomic_store(&page.mode, FAULT_NONE);
    page.path[0] = '\0';
}

/* A compute was told that the disk refused a layer; its next fsync comes after the merge. */
static void a_merge_hides_no_refusal(void **unused) {
    (void)unused;
    char path[BOUGH_PATH_MAX], layer[100];
    bough_shm *shm = NULL;
    bough_tidy *tidy = NULL;
    bough_merge *m = NULL;
    bough_error err;
    bough_layers layers;
    size_t n = 0, changed = 0, merged = 0;
    int fd = -1;
    make_tall(true);
    fork_awake("made");
    find_layer_of(layer, "8");
    assert_int_equal(bough_store_prepare(&shm, &fd, store, "main", &err), 0);
    bough_shm_set_postmaster(shm, getpid());
    refuse(layer);
    assert_int_equal(bough_store_mend_begin(store, layer, shm, &err), 0);
    if (bough_store_mend(store, layer, &err)) fail_msg("%s", err.message);
    assert_true(is_told(shm, layer, BOUGH_SYNC_REFUSED));
    assert_int_equal(bough_tidy_begin(&tidy, store, &err), 0);
    if (bough_tidy_merge(&m, tidy, "main", NULL, NULL, &err)) fail_msg("%s", err.message);
    assert_int_equal(bough_tidy_commit(&n, m, shm, &err), 0);
    assert_true(n > 1);
    bough_tidy_drop(m);
    bough_tidy_end(tidy);
    assert_false(is_told(shm, layer, BOUGH_SYNC_REFUSED)); /* it is not there any more */
    assert_int_equal(bough_layers_read(&layers, store, "main", &err), 0);
    for (size_t i = 0; i < layers.n; i++) {
        bough_layers parts;
        assert_int_equal(bough_merged_read(&parts, store, layers.dir[i], &err), 0);
        assert_int_equal(is_told(shm, layers.dir[i], BOUGH_SYNC_REFUSED), parts.n > 0);
        merged += parts.n > 0;
        bough_layers_free(&parts);
    }
    assert_int_equal(merged, 1);
    bough_layers_free(&layers);
    bough_shm_close(shm);
    close(fd);
    /* merged by a version that did not make the parts durable: who stands on one that is refused
     * then is found by its name, so that name stays */
    (void)at(path, "store/layers/%s/durable", layer);
    assert_int_equal(unlink(path), 0);
    refuse(layer);
    assert_int_equal(bough_tidy_begin(&tidy, store, &err), 0);
    assert_false(bough_tidy_wants(tidy, "made", false));
    assert_int_equal(bough_tidy_apply(&changed, tidy, "made", NULL, &err), 0);
    assert_int_equal(changed, 0);
    assert_int_equal(bough_store_mend_begin(store, layer, NULL, &err), 0);
    if (bough_store_mend(store, layer, &err)) fail_msg("%s", err.message);
    assert_true(bough_tidy_wants(tidy, "made", false));
    assert_int_equal(bough_tidy_apply(&changed, tidy, "made", NULL, &err), 0);
    assert_true(changed > 0);
    bough_tidy_end(tidy);
    expect_shows("made", 'm', 'n');
    end_world();
}

/* Also where two merges come to a compute at once. */
static void what_takes_the_place_of_a_refused_layer_is_refused(void **unused) {
    (void)unused;
    char names[4][100];
    bough_shm *shm = NULL;
    bough_error err;
    int fd = -1;
    make_tall(true);
    assert_int_equal(bough_store_prepare(&shm, &fd, store, "main", &err), 0);
    bough_shm_set_postmaster(shm, getpid());
    bough_stack_item *stack = shm->header->stack;
    uint32_t depth = atomic_load(&shm->header->depth);
    assert_true(depth > 5);
    memcpy(names[0], stack[depth - 1].dir, sizeof names[0]);
    (void)snprintf(names[1], sizeof names[1], "main/00000998");
    (void)snprintf(names[2], sizeof names[2], "main/00000999");
    memcpy(names[3], stack[0].dir, sizeof names[3]);
    atomic_store(&stack[3].needs_sync, BOUGH_SYNC_REFUSED);
    bough_stack_publish(shm->header, &(bough_layers){names, 4});
    assert_int_equal(atomic_load(&shm->header->depth), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(stack[i].dir, names[3 - i]);
        assert_int_equal(atomic_load(&stack[i].needs_sync) == BOUGH_SYNC_REFUSED, i == 1 || i == 2);
    }
    /* it is of these alone */
    atomic_store(&stack[1].needs_sync, BOUGH_SYNC_DONE);
    atomic_store(&stack[2].needs_sync, BOUGH_SYNC_DONE);
    atomic_store(&stack[3].needs_sync, BOUGH_SYNC_REFUSED);
    (void)snprintf(names[1], sizeof names[1], "main/00001000");
    memcpy(names[2], names[3], sizeof names[2]);
    bough_stack_publish(shm->header, &(bough_layers){names, 3});
    assert_int_equal(atomic_load(&stack[1].needs_sync), BOUGH_SYNC_DONE);
    assert_int_equal(atomic_load(&stack[2].needs_sync), BOUGH_SYNC_REFUSED);
    bough_shm_close(shm);
    close(fd);
    end_world();
}

#ifdef BOUGH_CRASH_POINTS
/* The first control of a branch has the size of pg_control; that of a later checkpoint is short
 * here. */
static void write_later(const char *branch) {
    char path[BOUGH_PATH_MAX];
    bough_error err;
    (void)at(path, "store/branches/%s/pgdata/" BOUGH_CONTROL_NAME, branch);
    assert_int_equal(bough_write_file(path, "later", 5, 0600, &err), 0);
}

static bool went_back(const char *branch) {
    char path[BOUGH_PATH_MAX];
    struct stat st;
    (void)at(path, "store/branches/%s/pgdata/" BOUGH_CONTROL_NAME, branch);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size == 8192;
}

/* As after a power cut; `known` has n. */
static void start_in_another_boot(const char *const *known, size_t n) {
    char path[BOUGH_PATH_MAX];
    bough_error err;
    bool missing[8] = {false};
    (void)at(path, "boot");
    assert_int_equal(bough_write_file(path, "another boot", 12, 0600, &err), 0);
    assert_int_equal(setenv("BOUGH_BOOT_ID_FILE", path, 1), 0);
    end_world();
    assert_int_equal(bough_store_open(&store, at(path, "store"), &err), 0);
    if (bough_store_reconcile(store, known, NULL, missing, n, &err)) fail_msg("%s", err.message);
}

/* What is left of a layer is made durable for one of them, or merged, before another is asked. */
static void what_waits_goes_back_whoever_made_its_layers_durable(void **unused) {
    (void)unused;
    static const char *const known[] = {"main", "kid", "first", "second", "third"};
    bough_tidy *tidy = NULL;
    bough_error err;
    size_t changed = 0;
    make_tall(true);
    for (size_t i = 2; i < 5; i++) {
        fork_awake(known[i]);
        write_later(known[i]);
    }
    start_in_another_boot(known, 5);
    if (bough_store_sync(store, "first", NULL, &err)) fail_msg("%s", err.message);
    if (merge(&err)) fail_msg("%s", err.message);
    assert_int_equal(bough_tidy_begin(&tidy, store, &err), 0);
    assert_int_equal(bough_tidy_apply(&changed, tidy, "third", NULL, &err), 0);
    assert_true(changed > 0);
    bough_tidy_end(tidy);
    for (size_t i = 2; i < 5; i++) {
        if (bough_store_sync(store, known[i], NULL, &err)) fail_msg("%s", err.message);
        assert_false(bough_store_sync_pending(store, known[i]));
        if (!went_back(known[i])) fail_msg("\"%s\" goes on from a later checkpoint", known[i]);
        expect_shows(known[i], 'm', 'n');
    }
    assert_int_equal(unsetenv("BOUGH_BOOT_ID_FILE"), 0);
    end_world();
}

static void what_was_durable_before_the_power_cut_does_not_go_back(void **unused) {
    (void)unused;
    static const char *const known[] = {"main", "kid", "made"};
    bough_error err;
    bough_layers layers;
    make_world();
    fork_awake("made");
    write_later("made");
    assert_int_equal(bough_layers_read(&layers, store, "made", &err), 0);
    for (size_t i = 0; i < layers.n; i++)
        assert_int_equal(bough_layer_sync(store, layers.dir[i], &err), 0);
    bough_layers_free(&layers);
    assert_true(bough_store_sync_pending(store, "made"));
    start_in_another_boot(known, 3);
    assert_int_equal(bough_store_sync(store, "made", NULL, &err), 0);
    assert_false(bough_store_sync_pending(store, "made"));
    assert_false(went_back("made"));
    assert_int_equal(unsetenv("BOUGH_BOOT_ID_FILE"), 0);
    end_world();
}
#endif

static void say_nothing(void) {
    bough_log_init(BOUGH_LOG_ERROR, false);
}

static int set_up(void **state) {
    (void)state;
    say_nothing();
    fault_control = &page;
    /* in memory where that has what a store needs: syncs are free there */
    static const char *const places[] = {"/dev/shm/bough-fault-XXXXXX", "/tmp/bough-fault-XXXXXX"};
    for (size_t i = 0; i < 2; i++) {
        char path[BOUGH_PATH_MAX];
        (void)snprintf(dir, sizeof dir, "%s", places[i]);
        if (!mkdtemp(dir)) continue;
        int rc = bough_store_open(&store, at(path, "store"), NULL);
        if (rc == BOUGH_OK) {
            end_world();
            return 0;
        }
        bough_ignore(bough_rmtree(dir, NULL));
    }
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    return bough_rmtree(dir, NULL);
}

int main(int argc, char **argv) {
    enum { N = sizeof operations / sizeof operations[0] };
    struct CMUnitTest tests[N + 7];
    size_t n = 0;
    for (size_t i = 0; i < N; i++) {
        if (argc > 1 && strcmp(argv[1], operations[i].name) != 0) continue;
        tests[n++] = (struct CMUnitTest){.name = operations[i].name,
                                         .test_func = an_operation_survives_the_failure_of_any_call,
                                         .initial_state = (void *)(uintptr_t)&operations[i]};
    }
    if (argc == 1) {
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(
            a_layer_that_the_disk_refused_is_vouched_for_by_nobody);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(a_layer_that_the_disk_refused_is_mended);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(what_the_disk_refuses_to_a_merge_is_noted);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(a_merge_hides_no_refusal);
        tests[n++] =
            (struct CMUnitTest)cmocka_unit_test(what_takes_the_place_of_a_refused_layer_is_refused);
#ifdef BOUGH_CRASH_POINTS
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(
            what_waits_goes_back_whoever_made_its_layers_durable);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(
            what_was_durable_before_the_power_cut_does_not_go_back);
#endif
    }
    return n ? _cmocka_run_group_tests("faults", tests, n, set_up, tear_down) : 64;
}
