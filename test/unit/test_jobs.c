/* Threads that wait: they keep nobody else's jobs from running, and get their turn. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include <cmocka.h>

#include "server/jobs.h"
#include "server/locks.h"
#include "util/waiting.h"

enum { PLACES = 2, AWAY = 20, LONG_MS = 60000 };

static job_pool *pool;
static lock_table *locks;
static sem_t done;
static atomic_int refused, n_order;
static int order[8];

static int set_up(void **state) {
    (void)state;
    atomic_store(&refused, 0);
    atomic_store(&n_order, 0);
    return sem_init(&done, 0, 0) != 0 || job_pool_new(&pool, "test", PLACES, AWAY, NULL) ||
           lock_table_new(&locks, NULL);
}

static int tear_down(void **state) {
    (void)state;
    int left = job_pool_end(pool, 10000);
    if (!left) lock_table_free(locks);
    return left;
}

static bool within_seconds(sem_t *sem, int seconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    int rc;
    do rc = sem_timedwait(sem, &until);
    while (rc != 0 && errno == EINTR);
    return rc == 0;
}

static void add(void (*run)(void *), void *arg) {
    assert_int_equal(job_pool_add(pool, run, arg, NULL), BOUGH_OK);
}

static void want(void *arg) {
    if (lock_take(locks, arg, LONG_MS, NULL) == BOUGH_OK)
        lock_drop(locks, arg);
    else
        atomic_fetch_add(&refused, 1);
    (void)sem_post(&done);
}

static void say(void *arg) {
    (void)sem_post(arg);
}

static char branch[] = "br-one", other[] = "br-two";

static void those_who_wait_for_a_branch_keep_no_place(void **state) {
    (void)state;
    sem_t said;
    assert_int_equal(sem_init(&said, 0, 0), 0);
    assert_int_equal(lock_take(locks, branch, 0, NULL), BOUGH_OK);
    for (int i = 0; i < 4 * PLACES; i++) add(want, branch);
    for (int i = 0; i < 4 * PLACES; i++) add(say, &said);
    for (int i = 0; i < 4 * PLACES; i++) assert_true(within_seconds(&said, 10));
    lock_drop(locks, branch);
    for (int i = 0; i < 4 * PLACES; i++) assert_true(within_seconds(&done, 10));
    assert_int_equal(atomic_load(&refused), 0);
    (void)sem_destroy(&said);
}

static void more_than_may_wait_are_refused_and_others_go_on(void **state) {
    (void)state;
    sem_t said;
    assert_int_equal(sem_init(&said, 0, 0), 0);
    assert_int_equal(lock_take(locks, branch, 0, NULL), BOUGH_OK);
    for (int i = 0; i < AWAY + 10; i++) add(want, branch);
    add(say, &said);
    assert_true(within_seconds(&said, 10));
    for (int i = 0; i < 10; i++) assert_true(within_seconds(&done, 10));
    assert_int_equal(atomic_load(&refused), 10);
    lock_drop(locks, branch);
    for (int i = 0; i < AWAY; i++) assert_true(within_seconds(&done, 10));
    assert_int_equal(atomic_load(&refused), 10);
    (void)sem_destroy(&said);
}

static void *want_in_a_thread(void *arg) {
    want(arg);
    return NULL;
}

static void no_more_wait_for_one_name_than_may(void **state) {
    (void)state;
    pthread_t threads[LOCK_WAITERS_MAX + 1];
    assert_int_equal(lock_take(locks, branch, 0, NULL), BOUGH_OK);
    for (int i = 0; i < LOCK_WAITERS_MAX + 1; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, want_in_a_thread, branch), 0);
    assert_true(within_seconds(&done, 10));
    assert_int_equal(atomic_load(&refused), 1);
    lock_drop(locks, branch);
    for (int i = 0; i < LOCK_WAITERS_MAX + 1; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&refused), 1);
}

typedef struct turn {
    int number;
    const char *names[2];
    size_t n;
} turn;

static void *take_turn(void *arg) {
    const turn *t = arg;
    assert_int_equal(locks_take(locks, t->names, t->n, LONG_MS, NULL), BOUGH_OK);
    order[atomic_fetch_add(&n_order, 1)] = t->number;
    locks_drop(locks, t->names, t->n);
    return NULL;
}

/* Until a thread more waits: then nobody gets what it wants without waiting. */
static void await_waiter(const char *name) {
    struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 10000; i++) {
        if (lock_take(locks, name, 0, NULL) != BOUGH_OK) return;
        lock_drop(locks, name);
        (void)nanosleep(&pause, NULL);
    }
    fail_msg("nobody waits for \"%s\"", name);
}

static void who_came_first_is_first(void **state) {
    (void)state;
    char marks[3][8] = {"one", "two", "three"};
    turn turns[3];
    pthread_t threads[3];
    assert_int_equal(lock_take(locks, branch, 0, NULL), BOUGH_OK);
    for (int i = 0; i < 3; i++) { /* each wants a second name by which we see that it waits */
        turns[i] = (turn){i, {branch, marks[i]}, 2};
        assert_int_equal(pthread_create(&threads[i], NULL, take_turn, &turns[i]), 0);
        await_waiter(marks[i]);
    }
    lock_drop(locks, branch);
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(order[i], i);
}

static void who_gives_up_stands_in_nobodys_way(void **state) {
    (void)state;
    turn t = {7, {other, NULL}, 1};
    pthread_t thread;
    const char *const both[] = {branch, other};
    assert_int_equal(lock_take(locks, branch, 0, NULL), BOUGH_OK);
    assert_int_equal(locks_take(locks, both, 2, 50, NULL), BOUGH_E_BUSY);
    assert_int_equal(pthread_create(&thread, NULL, take_turn, &t), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(order[0], 7);
    lock_drop(locks, branch);
}

static void a_wait_within_a_wait_is_one(void **state) {
    (void)state;
    assert_true(bough_wait_begin()); /* of a thread that no pool has lent */
    assert_true(bough_wait_begin());
    bough_wait_end();
    bough_wait_end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(those_who_wait_for_a_branch_keep_no_place, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(more_than_may_wait_are_refused_and_others_go_on, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(no_more_wait_for_one_name_than_may, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_came_first_is_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_gives_up_stands_in_nobodys_way, set_up, tear_down),
        cmocka_unit_test(a_wait_within_a_wait_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
