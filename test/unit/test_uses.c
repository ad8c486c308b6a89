/* Which layers belong to one branch alone. Opening a stack is counted. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/internal.h"

static bough_store store;
static unsigned reads;

int __real_bough_layers_load(bough_layers *layers, const char *path, bough_error *err);
int __wrap_bough_layers_load(bough_layers *layers, const char *path, bough_error *err);

int __wrap_bough_layers_load(bough_layers *layers, const char *path, bough_error *err) {
    reads++;
    return __real_bough_layers_load(layers, path, err);
}

/* A branch on some layers ("g/1 g/2"), as if its stack had been written `age` seconds ago. */
static void put(const char *branch, const char *layers, int age) {
    char path[BOUGH_PATH_MAX], copy[200], *save;
    bough_layers list = {NULL, 0};
    (void)snprintf(path, sizeof path, "%s/branches/%s", store.dir, branch);
    assert_int_equal(bough_mkdirs(path, 0700, NULL), 0);
    (void)snprintf(path, sizeof path, "%s/branches/%s/stack", store.dir, branch);
    (void)snprintf(copy, sizeof copy, "%s", layers);
    list.dir = calloc(8, sizeof *list.dir);
    for (char *p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save))
        (void)snprintf(list.dir[list.n++], sizeof list.dir[0], "%s", p);
    assert_int_equal(bough_layers_save(path, NULL, &list, NULL), 0);
    bough_layers_free(&list);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = 0}};
    clock_gettime(CLOCK_REALTIME, &times[1]);
    times[1].tv_sec -= age;
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static int make(void **state) {
    (void)state;
    (void)snprintf(store.dir, sizeof store.dir, "/tmp/bough-test-uses-XXXXXX");
    return mkdtemp(store.dir) ? 0 : -1;
}

static int destroy(void **state) {
    (void)state;
    return bough_rmtree(store.dir, NULL);
}

static bough_uses *look(const bough_uses *before) {
    bough_uses *uses = NULL;
    assert_int_equal(bough_uses_new(&uses, &store, before, NULL), 0);
    return uses;
}

static void a_layer_is_shared_where_another_branch_stands_on_it(void **state) {
    (void)state;
    put("a", "a/00000002 a/00000001", 9);
    put("b", "a/00000001 t/00000001", 9);
    put("c~1", "a/00000002 c/00000001", 9); /* in the making */
    bough_uses *uses = look(NULL);
    assert_false(bough_uses_shared(uses, "a", "a/00000002"));
    assert_true(bough_uses_shared(uses, "b", "a/00000002")); /* one that was below it */
    assert_true(bough_uses_shared(uses, "a", "a/00000001"));
    assert_true(bough_uses_shared(uses, "b", "a/00000001"));
    assert_false(bough_uses_shared(uses, "b", "t/00000001"));
    assert_false(bough_uses_shared(uses, "a", "c/00000001"));
    bough_uses_free(uses);
}

static void each_stack_is_read_once(void **state) {
    enum { BRANCHES = 300 };
    (void)state;
    for (int i = 0; i < BRANCHES; i++) {
        char name[20], layers[60];
        (void)snprintf(name, sizeof name, "b%d", i);
        (void)snprintf(layers, sizeof layers, "b%d/00000001 t/00000001", i);
        put(name, layers, 9);
    }
    reads = 0;
    bough_uses *uses = look(NULL);
    for (int i = 0; i < BRANCHES; i++) {
        char name[20], layer[60];
        (void)snprintf(name, sizeof name, "b%d", i);
        (void)snprintf(layer, sizeof layer, "b%d/00000001", i);
        assert_false(bough_uses_shared(uses, name, layer));
        assert_true(bough_uses_shared(uses, name, "t/00000001"));
    }
    assert_int_equal(reads, BRANCHES);
    put("b7", "b8/00000001", 5);
    bough_uses *after = look(uses);
    assert_int_equal(reads, BRANCHES + 1);
    assert_true(bough_uses_shared(after, "b8", "b8/00000001"));
    assert_false(bough_uses_shared(after, "b9", "b9/00000001"));
    bough_uses_free(after);
    bough_uses_free(uses);
}

static void a_stack_that_was_just_written_is_read_again(void **state) {
    (void)state;
    put("a", "a/00000001", 0);
    put("b", "b/00000001", 9);
    bough_uses *uses = look(NULL);
    reads = 0;
    bough_uses *after = look(uses); /* another one could have the same number and time */
    assert_int_equal(reads, 1);
    assert_false(bough_uses_shared(after, "a", "a/00000001"));
    bough_uses_free(after);
    bough_uses_free(uses);
}

static void branches_come_and_go(void **state) {
    char path[BOUGH_PATH_MAX];
    (void)state;
    put("a", "t/00000001", 9);
    put("b", "t/00000001", 9);
    bough_uses *uses = look(NULL);
    assert_true(bough_uses_shared(uses, "a", "t/00000001"));
    (void)snprintf(path, sizeof path, "%s/branches/b", store.dir);
    assert_int_equal(bough_rmtree(path, NULL), 0);
    put("0", "z/00000001", 9); /* another place in the order */
    bough_uses *after = look(uses);
    assert_false(bough_uses_shared(after, "a", "t/00000001"));
    bough_uses_free(after);
    bough_uses_free(uses);
}

static void a_damaged_stack_is_an_error(void **state) {
    char path[BOUGH_PATH_MAX];
    bough_uses *uses;
    (void)state;
    put("a", "t/00000001", 9);
    put("b", "t/00000001", 9);
    (void)snprintf(path, sizeof path, "%s/branches/b/stack", store.dir);
    assert_int_equal(bough_write_file(path, "nothing", 7, 0600, NULL), 0);
    assert_int_equal(bough_uses_new(&uses, &store, NULL, NULL), BOUGH_E_CORRUPT);
    assert_null(uses);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_layer_is_shared_where_another_branch_stands_on_it, make,
                                        destroy),
        cmocka_unit_test_setup_teardown(each_stack_is_read_once, make, destroy),
        cmocka_unit_test_setup_teardown(a_stack_that_was_just_written_is_read_again, make, destroy),
        cmocka_unit_test_setup_teardown(branches_come_and_go, make, destroy),
        cmocka_unit_test_setup_teardown(a_damaged_stack_is_an_error, make, destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
