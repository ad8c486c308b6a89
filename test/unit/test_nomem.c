/*
 * Memory that runs out: the nth allocation of an operation fails, for every n until it succeeds.
 * Each time it must say so (or get round it), leave no descriptor open and what it worked on as it
 * was. The linker leads the allocations of our libraries here (-Wl,--wrap).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cluster.h"
#include "pg/conf.h"
#include "pg/dumpscan.h"
#include "store/store.h"
#include "util/error.h"
#include "util/fs.h"

static long countdown = -1;
static bool has_fired;

static bool refused(void) {
    if (countdown < 0 || countdown-- > 0) return false;
    has_fired = true;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t n) {
    return refused() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
    return refused() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n) {
    return refused() ? NULL : __real_realloc(p, n);
}
char *__wrap_strdup(const char *s) {
    return refused() ? NULL : __real_strdup(s);
}

static char dir[] = "/tmp/bough-nomem-XXXXXX";
static bough_store *store;

/* How often an allocation failed. `again` makes the operation possible anew, and checks that a
 * failed one left nothing. */
static int fail_each(int (*operation)(bough_error *err), void (*again)(bool done)) {
    for (int n = 0;; n++) {
        bough_error err = {0};
        int before = open_descriptors();
        has_fired = false;
        countdown = n;
        int rc = operation(&err);
        countdown = -1;
        assert_int_equal(open_descriptors(), before);
        if (rc != BOUGH_OK) {
            assert_true(has_fired);
            assert_int_equal(rc, err.code);
            assert_true(err.message[0] != '\0');
            if (rc != BOUGH_E_NOMEM && !(rc == BOUGH_E_SYS && err.sys_errno == ENOMEM))
                fail_msg("allocation %d: code %d: %s", n, rc, err.message);
        }
        if (again) again(rc == BOUGH_OK);
        if (!has_fired) return n;
        assert_true(n < 10000);
    }
}

/* ---- the store ---- */

static void make_cluster(void) {
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/cluster", dir);
    cluster_make(path);
}

static int adopt(bough_error *err) {
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/cluster", dir);
    return bough_store_adopt(store, "main", path, err);
}

static void adopt_again(bool done) {
    assert_int_equal(bough_store_has_branch(store, "main"), done);
    if (!done) make_cluster();
}

static int take_child(bough_error *err) {
    return bough_store_fork(NULL, store, "main", "child", NULL, err);
}

/* Give the parent something to seal, and no child. */
static void dirty_parent(void) {
    char path[BOUGH_PATH_MAX] = {0};
    (void)snprintf(path, sizeof path, "%s/store/branches/main/pgdata/base/1", dir);
    assert_int_equal(bough_mkdirs(path, 0700, NULL), 0);
    (void)snprintf(path, sizeof path, "%s/store/branches/main/pgdata/base/1/2000", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, path, sizeof path, 0), sizeof path);
    close(fd);
}

static void take_child_again(bool done) {
    bough_error err;
    bool missing[2];
    const char *known[] = {"main", "child"};
    assert_int_equal(bough_store_has_branch(store, "child"), done);
    /* a seal may be left without its index: the next start mends it */
    assert_int_equal(bough_store_reconcile(store, known, NULL, missing, done ? 2 : 1, &err), 0);
    assert_false(missing[0]);
    if (done) assert_int_equal(bough_store_delete(store, "child", &err), 0);
    /* from the beginning: each attempt may have added a layer */
    assert_int_equal(bough_store_delete(store, "main", &err), 0);
    make_cluster();
    assert_int_equal(adopt(&err), 0);
    dirty_parent();
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

static char export_to[BOUGH_PATH_MAX];

static int write_out(bough_error *err) {
    return bough_store_export(store, "main", export_to, NULL, NULL, err);
}

static void write_out_again(bool done) {
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/global/pg_control", export_to);
    assert_int_equal(access(path, F_OK) == 0, done);
    assert_int_equal(bough_rmtree(export_to, NULL), 0);
    assert_int_equal(bough_mkdirs(export_to, 0700, NULL), 0);
}

static void the_store_survives_the_failure_of_any_allocation(void **unused) {
    (void)unused;
    char path[BOUGH_PATH_MAX];
    bough_error err;
    (void)snprintf(path, sizeof path, "%s/store", dir);
    assert_int_equal(bough_store_open(&store, path, &err), 0);
    make_cluster();
    assert_true(fail_each(adopt, adopt_again) > 3);
    dirty_parent();
    assert_true(fail_each(take_child, take_child_again) > 5);
    assert_true(fail_each(look, NULL) > 5);
    (void)snprintf(export_to, sizeof export_to, "%s/export", dir);
    assert_int_equal(bough_mkdirs(export_to, 0700, NULL), 0);
    assert_true(fail_each(write_out, write_out_again) > 5);
    bough_store_close(store);
}

/* ---- others at the same time ---- */

static atomic_bool is_over;

static void *collect_all_the_time(void *unused) {
    (void)unused;
    bough_error err;
    int rc = BOUGH_OK;
    while (!rc && !atomic_load(&is_over)) rc = bough_store_collect_all(store, &err);
    if (rc) print_error("collecting: %s\n", err.message);
    return rc ? store : NULL;
}

/* The layer of the cluster that a branch stands on is there. */
static void assert_whole(const char *adopted) {
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/collected/layers/%s/00000001/data/base/1/1000", dir,
                   adopted);
    if (access(path, F_OK) != 0) fail_msg("%s is gone", path);
}

static void a_branch_in_the_making_keeps_its_layers_while_others_are_collected(void **unused) {
    (void)unused;
    char path[BOUGH_PATH_MAX], pgdata[BOUGH_PATH_MAX], a[16], b[16];
    bough_error err;
    pthread_t thread;
    void *failed;
    (void)snprintf(path, sizeof path, "%s/collected", dir);
    (void)snprintf(pgdata, sizeof pgdata, "%s/cluster", dir);
    assert_int_equal(bough_store_open(&store, path, &err), 0);
    assert_int_equal(pthread_create(&thread, NULL, collect_all_the_time, NULL), 0);
    for (int i = 0; i < 40; i++) {
        (void)snprintf(a, sizeof a, "a%d", i);
        (void)snprintf(b, sizeof b, "b%d", i);
        make_cluster();
        if (bough_store_adopt(store, a, pgdata, &err)) fail_msg("adopting: %s", err.message);
        assert_whole(a);
        if (bough_store_fork(NULL, store, a, b, NULL, &err)) fail_msg("forking: %s", err.message);
        /* the layer is the child's alone now */
        assert_int_equal(bough_store_delete(store, a, &err), 0);
        assert_whole(a);
        if (i < 8) continue;
        (void)snprintf(a, sizeof a, "a%d", i - 8);
        (void)snprintf(b, sizeof b, "b%d", i - 8);
        assert_whole(a);
        assert_int_equal(bough_store_delete(store, b, &err), 0);
    }
    atomic_store(&is_over, true);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    bough_store_close(store);
}

/* ---- parsers ---- */

static int scan_dump(bough_error *err) {
    static const char dump[] =
        "--\n-- PostgreSQL database dump\n--\nCREATE TABLE public.t (a int);\n"
        "ALTER TABLE public.t OWNER TO alice;\nGRANT ALL ON TABLE public.t TO bob, \"Carol x\";\n"
        "COPY public.t (a) FROM stdin;\n1\n\\.\n--\n-- PostgreSQL database dump complete\n--\n";
    bough_dumpscan *scan = bough_dumpscan_new();
    if (!scan) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = BOUGH_OK;
    for (size_t i = 0; i < sizeof dump - 1 && !rc; i += 7)
        rc = bough_dumpscan_feed(scan, dump + i, sizeof dump - 1 - i < 7 ? sizeof dump - 1 - i : 7,
                                 err);
    if (!rc) assert_true(bough_dumpscan_is_complete(scan));
    if (!rc) assert_non_null(bough_dumpscan_roles(scan)[2]);
    bough_dumpscan_free(scan);
    return rc;
}

static int write_and_read_settings(bough_error *err) {
    static const char *const carried[] = {"max_connections=200", "shared_preload_libraries=x,y",
                                          NULL};
    bough_conf conf = {.major = 15, .socket_dir = "/tmp/s", .carried = carried};
    char **read = NULL;
    int rc = bough_conf_write(dir, &conf, err);
    if (!rc) rc = bough_conf_carried(&read, dir, err);
    for (size_t i = 0; !rc && read && read[i]; i++) free(read[i]);
    free(read);
    return rc;
}

static void the_parsers_survive_the_failure_of_any_allocation(void **unused) {
    (void)unused;
    assert_true(fail_each(scan_dump, NULL) > 2);
    assert_true(fail_each(write_and_read_settings, NULL) > 2);
}

static int set_up(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    return bough_rmtree(dir, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_store_survives_the_failure_of_any_allocation),
        cmocka_unit_test(a_branch_in_the_making_keeps_its_layers_while_others_are_collected),
        cmocka_unit_test(the_parsers_survive_the_failure_of_any_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
