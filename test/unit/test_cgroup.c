/* Control groups: where ours is, and what is made of it, with files in place of the kernel's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/cgroup.h"

static char dir[] = "/tmp/bough-cgroup-XXXXXX";

static const char *in_dir(const char *name) {
    static char paths[4][BOUGH_PATH_MAX];
    static int next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, BOUGH_PATH_MAX, "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text) {
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void has(const char *name, const char *text) {
    char *data = NULL;
    size_t size;
    assert_int_equal(bough_read_file(&data, &size, in_dir(name), 4096, NULL), BOUGH_OK);
    assert_string_equal(data, text);
    free(data);
}

static bool is_there(const char *name) {
    return access(in_dir(name), F_OK) == 0;
}

/* A group that is ours alone. */
static int make_group(void **state) {
    char text[32];
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/bough-cgroup-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    put("cgroup.controllers", "cpuset cpu io memory pids\n");
    put("cgroup.type", "domain\n");
    (void)snprintf(text, sizeof text, "%d\n", (int)getpid());
    put("cgroup.procs", text);
    put("cgroup.subtree_control", "");
    return 0;
}

static int remove_group(void **state) {
    (void)state;
    return bough_rmtree(dir, NULL);
}

static cgroup open_group(void) {
    cgroup g;
    cgroup_open(&g, dir, geteuid(), getegid());
    return g;
}

/* ---- where it is ---- */

static void our_group_is_found_below_its_mount(void **state) {
    static const struct {
        const char *mountinfo, *own, *found; /* NULL: nowhere */
    } cases[] = {
        {"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
         "0::/system.slice/bough.service\n", "/sys/fs/cgroup/system.slice/bough.service"},
        {"1 1 8:1 / / rw - ext4 /dev/sda rw\n30 23 0:26 / /sys/fs/cgroup rw - cgroup2 none rw\n",
         "0::/\n", "/sys/fs/cgroup"},
        /* the older version beside it */
        {"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
         "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
         "4:memory:/other\n1:name=systemd:/x\n0::/a b\n", "/sys/fs/cgroup/unified/a b"},
        /* a mount of a part; of other parts first */
        {"9 1 0:26 /other /o rw - cgroup2 none rw\n9 1 0:26 /our /p rw - cgroup2 none rw\n"
         "9 1 0:26 /our/unit /q rw - cgroup2 none rw\n",
         "0::/our/unit/leaf\n", "/p/unit/leaf"},
        {"9 1 0:26 /our/unit /q rw - cgroup2 none rw\n", "0::/our/unit\n", "/q"},
        {"9 1 0:26 /our/unit /q rw - cgroup2 none rw\n", "0::/our/units\n", NULL},
        /* names with spaces, as mountinfo writes them, and several tags */
        {"9 1 0:26 / /my\\040groups\\134 rw shared:1 master:2 - cgroup2 none rw\n", "0::/x",
         "/my groups\\/x"},
        {"9 1 0:26 / /g rw - cgroup cgroup2 rw\n", "0::/x\n", NULL},
        {"9 1 0:26 / /g rw - cgroup2 none rw\n", "1:cpu:/x\n", NULL},
        {"9 1 0:26 / /g rw - cgroup2 none rw\n", "0::/../x\n", NULL},
        {"9 1 0:26 / /g rw - cgroup2 none rw\n", "", NULL},
        {"9 1 0:26 / /g rw\n9 1\n\ncgroup2\n", "0::/x\n", NULL},
        {"", "0::/x\n", NULL}};
    char out[BOUGH_PATH_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool found = cgroup_find(out, cases[i].mountinfo, cases[i].own);
        assert_int_equal(found, cases[i].found != NULL);
        if (found) assert_string_equal(out, cases[i].found);
    }
}

static void a_controller_is_a_whole_word(void **state) {
    (void)state;
    assert_true(cgroup_has("cpuset cpu io\n", "cpu"));
    assert_true(cgroup_has("cpu", "cpu"));
    assert_false(cgroup_has("cpuset cpuacct\n", "cpu"));
    assert_false(cgroup_has("", "cpu"));
    assert_true(cgroup_has("cpu memory\n", "memory"));
}

/* ---- what is made of it ---- */

static void a_group_of_our_own_is_divided(void **state) {
    char procs[BOUGH_PATH_MAX];
    (void)state;
    cgroup g = open_group();
    assert_true(g.has_cpu && g.has_memory);
    assert_string_equal(g.why, "");
    has("bough-server/cgroup.procs", "0"); /* "0" is who writes it */
    has("cgroup.subtree_control", "+cpu+memory");
    cgroup_begin(procs, &g, "ep-a", 1);
    assert_string_equal(procs, in_dir("ep-a/cgroup.procs"));
    has("ep-a/cpu.max", "25000 100000");
    has("ep-a/memory.max", "1073741824");
    cgroup_begin(procs, &g, "ep-a", 64); /* again, and larger */
    has("ep-a/cpu.max", "1600000 100000");
    has("ep-a/memory.max", "68719476736");
    cgroup_end(&g, "ep-a");
    assert_false(is_there("ep-a"));
    cgroup_end(&g, "ep-a");
}

static void what_an_earlier_server_left_goes_unless_it_is_in_use(void **state) {
    (void)state;
    assert_int_equal(mkdir(in_dir("ep-old"), 0755), 0);
    put("ep-old/cpu.max", "max");
    assert_int_equal(mkdir(in_dir("ep-used"), 0755), 0);
    put("ep-used/something", ""); /* so it cannot be removed */
    assert_int_equal(mkdir(in_dir("other"), 0755), 0);
    cgroup g = open_group();
    assert_true(g.has_cpu);
    assert_false(is_there("ep-old"));
    assert_true(is_there("ep-used") && is_there("other"));
}

static void one_that_starts_in_its_leaf_divides_the_parent(void **state) {
    cgroup g;
    (void)state;
    assert_int_equal(mkdir(in_dir("bough-server"), 0755), 0);
    put("cgroup.procs", ""); /* nobody is there any more */
    cgroup_open(&g, in_dir("bough-server"), geteuid(), getegid());
    assert_true(g.has_cpu && g.has_memory);
    assert_string_equal(g.base, dir);
    assert_false(is_there("bough-server/cgroup.procs")); /* it need not move */
    has("cgroup.subtree_control", "+cpu+memory");
}

static void who_is_not_alone_changes_nothing(void **state) {
    char text[64], procs[BOUGH_PATH_MAX];
    (void)state;
    (void)snprintf(text, sizeof text, "1\n%d\n", (int)getpid());
    put("cgroup.procs", text);
    cgroup g = open_group();
    assert_false(g.has_cpu || g.has_memory);
    assert_non_null(strstr(g.why, "other processes are in the group"));
    assert_false(is_there("bough-server"));
    has("cgroup.subtree_control", "");
    cgroup_begin(procs, &g, "ep-a", 4);
    assert_string_equal(procs, "");
    assert_false(is_there("ep-a"));
    cgroup_end(&g, "ep-a");
}

static void what_the_kernel_does_not_give_is_left_out(void **state) {
    char procs[BOUGH_PATH_MAX];
    (void)state;
    put("cgroup.controllers", "memory hugetlb\n");
    cgroup g = open_group();
    assert_true(!g.has_cpu && g.has_memory);
    assert_non_null(strstr(g.why, "no cpu controller"));
    cgroup_begin(procs, &g, "ep-a", 4);
    assert_true(is_there("ep-a/memory.max") && !is_there("ep-a/cpu.max"));
    cgroup_end(&g, "ep-a");
    put("cgroup.controllers", "hugetlb\n");
    g = open_group();
    assert_false(g.has_cpu || g.has_memory);
    assert_non_null(strstr(g.why, "neither"));
    assert_int_equal(unlink(in_dir("cgroup.controllers")), 0);
    g = open_group();
    assert_non_null(strstr(g.why, "neither"));
}

static void a_group_that_cannot_be_divided_is_left_again(void **state) {
    (void)state;
    assert_int_equal(unlink(in_dir("cgroup.subtree_control")), 0);
    assert_int_equal(mkdir(in_dir("cgroup.subtree_control"), 0755), 0); /* no writing to that */
    cgroup g = open_group();
    assert_false(g.has_cpu || g.has_memory);
    assert_non_null(strstr(g.why, "cannot be divided"));
    assert_false(is_there("bough-server"));
    char *procs = NULL;
    size_t size;
    assert_int_equal(bough_read_file(&procs, &size, in_dir("cgroup.procs"), 64, NULL), BOUGH_OK);
    assert_int_equal(procs[0], '0'); /* back again: written over the first digit of our number */
    free(procs);
}

static void the_root_group_stays_roots_and_ours_is_below(void **state) {
    char procs[BOUGH_PATH_MAX];
    (void)state;
    assert_int_equal(unlink(in_dir("cgroup.type")), 0); /* which the root alone has not */
    put("cgroup.procs", "1\n2\n3\n");
    cgroup g = open_group();
    assert_true(g.has_cpu && g.has_memory);
    assert_string_equal(g.base, in_dir("bough"));
    has("cgroup.subtree_control", "+cpu+memory");
    has("bough/cgroup.subtree_control", "+cpu+memory");
    has("bough/bough-server/cgroup.procs", "0");
    cgroup_begin(procs, &g, "ep-a", 4);
    has("bough/ep-a/cpu.max", "100000 100000");
}

int main(void) {
#define WITH(test) cmocka_unit_test_setup_teardown(test, make_group, remove_group)
    const struct CMUnitTest tests[] = {cmocka_unit_test(our_group_is_found_below_its_mount),
                                       cmocka_unit_test(a_controller_is_a_whole_word),
                                       WITH(a_group_of_our_own_is_divided),
                                       WITH(what_an_earlier_server_left_goes_unless_it_is_in_use),
                                       WITH(one_that_starts_in_its_leaf_divides_the_parent),
                                       WITH(who_is_not_alone_changes_nothing),
                                       WITH(what_the_kernel_does_not_give_is_left_out),
                                       WITH(a_group_that_cannot_be_divided_is_left_again),
                                       WITH(the_root_group_stays_roots_and_ours_is_below)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
