/* Paths, the shared memory and layer indexes: what the library and the store share. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "preload/index.h"
#include "preload/path.h"
#include "preload/table.h"
#include "store/internal.h"

static char dir[] = "/tmp/bough-unit-XXXXXX";

static bough_header *new_memory(void) {
    int fd = memfd_create("bough", MFD_CLOEXEC);
    assert_true(fd >= 0);
    bough_header *shm = bough_table_create(fd, dir, dir);
    assert_non_null(shm);
    close(fd);
    return shm;
}

static void paths_are_classified_as_postgres_names_them(void **state) {
    (void)state;
    static const struct {
        const char *path, *key;
        bough_path_class class;
    } cases[] = {
        {"base/5/16384", "base/5/16384", BOUGH_PATH_PAGES},
        {"./base//5/16384_fsm.1", "base/5/16384_fsm.1", BOUGH_PATH_PAGES},
        {"base/5/t3_16384_vm", "base/5/t3_16384_vm", BOUGH_PATH_PAGES},
        {"base/5/16384_init", "base/5/16384_init", BOUGH_PATH_PAGES},
        {"base/5/PG_VERSION", "base/5/PG_VERSION", BOUGH_PATH_WHOLE},
        {"base/5/pg_internal.init.77", "base/5/pg_internal.init.77", BOUGH_PATH_WHOLE},
        {"base/5", "base/5", BOUGH_PATH_DIR},
        {"base/", "base", BOUGH_PATH_DIR},
        {"base/pgsql_tmp/pgsql_tmp1.0", "bough_tmp/pgsql_tmp1.0", BOUGH_PATH_MOVED},
        {"global/pg_control", "bough.control", BOUGH_PATH_MOVED},
        {"global/1262", "global/1262", BOUGH_PATH_PAGES},
        {"global/pg_filenode.map", "global/pg_filenode.map", BOUGH_PATH_WHOLE},
        {"pg_xact/0000", "pg_xact/0000", BOUGH_PATH_PAGES},
        {"pg_multixact/members/00AF", "pg_multixact/members/00AF", BOUGH_PATH_PAGES},
        {"pg_multixact", "pg_multixact", BOUGH_PATH_DIR},
        {"pg_wal/000000010000000000000001", "pg_wal/000000010000000000000001", BOUGH_PATH_PLAIN},
        {"baseline/5", "baseline/5", BOUGH_PATH_PLAIN},
        {"", "", BOUGH_PATH_ROOT},
        {".", "", BOUGH_PATH_ROOT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char key[256];
        assert_int_equal(bough_path_classify(cases[i].path, key, sizeof key), cases[i].class);
        assert_string_equal(key, cases[i].key);
    }
    char key[256];
    assert_int_equal(bough_path_classify("base/../../x", key, sizeof key), BOUGH_PATH_OUTSIDE);
}

static void relation_names_need_digits_and_known_forks(void **state) {
    (void)state;
    assert_true(bough_is_relation_name("1"));
    assert_true(bough_is_relation_name("t12_99_fsm.3"));
    assert_false(bough_is_relation_name(""));
    assert_false(bough_is_relation_name("1_xyz"));
    assert_false(bough_is_relation_name("1."));
    assert_false(bough_is_relation_name("t_1"));
    assert_false(bough_is_relation_name("1.bough~2"));
}

static void crc_is_castagnoli(void **state) {
    (void)state;
    assert_int_equal(bough_crc32c(0, "123456789", 9), 0xe3069283U); /* RFC 3720's check value */
    uint32_t whole = bough_crc32c(0, "hello, layered world", 20);
    assert_int_equal(bough_crc32c(bough_crc32c(0, "hello, lay", 10), "ered world", 10), whole);
}

static void presence_bits_are_set_and_cleared_across_chunks(void **state) {
    (void)state;
    bough_header *shm = new_memory();
    bough_entry *e = bough_entry_get(shm, "base/5/1", 8, 0);
    assert_non_null(e);
    uint64_t at = BOUGH_CHUNK_BLOCKS - 3;
    assert_int_equal(bough_entry_set(shm, e, at, 70), 0);
    for (uint64_t b = at - 5; b < at + 80; b++)
        assert_int_equal(bough_entry_has(shm, e, b), b >= at && b < at + 70);
    bough_entry_clear_from(shm, e, BOUGH_CHUNK_BLOCKS + 1);
    for (uint64_t b = at - 5; b < at + 80; b++)
        assert_int_equal(bough_entry_has(shm, e, b), b >= at && b <= BOUGH_CHUNK_BLOCKS);
    assert_int_equal(bough_entry_set(shm, e, (uint64_t)BOUGH_CHUNKS * BOUGH_CHUNK_BLOCKS, 1), -1);
    assert_int_equal(errno, EFBIG);
    bough_table_unmap(shm);
}

static void an_unlinked_entry_is_reused_when_nobody_has_it_open(void **state) {
    (void)state;
    bough_header *shm = new_memory();
    uint64_t used = 0;
    for (int i = 0; i < 1000; i++) {
        char path[32];
        size_t n = (size_t)snprintf(path, sizeof path, "base/5/%d", i);
        bough_entry *e = bough_entry_get(shm, path, n, 0);
        assert_int_equal(bough_entry_set(shm, e, 0, 10), 0);
        atomic_store(&e->state, BOUGH_ENTRY_GONE);
        bough_entry_put(shm, e);
        if (i == 0) used = atomic_load(&shm->used);
    }
    assert_int_equal(atomic_load(&shm->used), used);
    bough_table_unmap(shm);
}

static void a_generation_that_is_over_is_freed_but_for_what_is_held(void **state) {
    (void)state;
    bough_header *shm = new_memory();
    uint64_t used = 0;
    bough_entry *held = NULL;
    for (uint32_t gen = 0; gen < 50; gen++) {
        atomic_store(&shm->gen, gen);
        for (int i = 0; i < 100; i++) {
            char path[32];
            size_t n = (size_t)snprintf(path, sizeof path, "base/5/%d", i);
            bough_entry *e = bough_entry_get(shm, path, n, 0);
            assert_int_equal(bough_entry_set(shm, e, 0, 10), 0);
            atomic_store(&e->state, BOUGH_ENTRY_HEAD);
            if (gen == 7 && i == 7)
                held = e;
            else
                bough_entry_put(shm, e);
        }
        /* a layer that is read by the memory, as one is whose index file is being written */
        (void)snprintf(shm->stack[0].dir, sizeof shm->stack[0].dir, "b/%08u", gen);
        atomic_store(&shm->stack[0].gen, gen);
        atomic_store(&shm->depth, 1);
        bough_table_sweep(shm);
        if (gen == 10) used = atomic_load(&shm->used);
    }
    assert_int_equal(atomic_load(&shm->used), used);
    for (int i = 0; i < 100; i++) { /* those of the last one are there, */
        char path[32];
        size_t n = (size_t)snprintf(path, sizeof path, "base/5/%d", i);
        assert_non_null(bough_entry_find(shm, 49, path, n, bough_path_hash(path, n)));
        assert_null(bough_entry_find(shm, 48, path, n, bough_path_hash(path, n)));
    }
    assert_true(bough_entry_has(shm, held, 9)); /* and who held one has it */
    assert_int_equal(held->gen, 7);
    uint64_t before = atomic_load(&shm->free_entries);
    bough_entry_put(shm, held);
    assert_int_not_equal(atomic_load(&shm->free_entries), before);
    bough_table_unmap(shm);
}

/* A process that died while it wrote to a file of many extents, which take a while to read anew;
 * those after it begin at once. */
static void slots_are_mended_by_one_and_are_of_one_each(void **state) {
    enum { AFTER = 6, EXTENTS = 2000 };
    (void)state;
    bough_header *shm = new_memory();
    char path[128];
    (void)snprintf(path, sizeof path, "mkdir -p %s/base/5", dir);
    assert_int_equal(system(path), 0);
    (void)snprintf(path, sizeof path, "%s/base/5/77", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), ready[2], go[2];
    for (off_t i = 0; i < EXTENTS; i++)
        assert_int_equal(pwrite(fd, "x", 1, i * 2 * BOUGH_BLOCK), 1);
    close(fd);
    for (int round = 0; round < 5; round++) {
        bough_entry *e = bough_entry_make(shm, "base/5/77", 9, 0, 0, -1);
        pid_t victim = fork();
        if (victim == 0) {
            bough_table_forked();
            bough_slot *slot = bough_slot_claim(shm);
            bough_gate_enter(shm, slot);
            bough_slot_name(shm, slot, e, NULL);
            _exit(0);
        }
        assert_int_equal(waitpid(victim, NULL, 0), victim);
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        assert_int_equal(pipe2(go, O_CLOEXEC), 0);
        pid_t pids[AFTER];
        for (int i = 0; i < AFTER; i++)
            if ((pids[i] = fork()) == 0) {
                char byte;
                bough_table_forked();
                close(go[1]);
                (void)!read(go[0], &byte, 1); /* until all are there */
                uint64_t at = bough_offset(shm, bough_slot_claim(shm));
                /* who has a slot finds the file as it is */
                if (!bough_entry_has(shm, e, 2 * (EXTENTS - 1))) at = 0;
                (void)!write(ready[1], &at, sizeof at);
                (void)pause();
                _exit(0);
            }
        close(go[0]);
        close(go[1]);
        uint64_t slots[AFTER];
        for (int i = 0; i < AFTER; i++) {
            assert_int_equal(read(ready[0], &slots[i], sizeof slots[i]), sizeof slots[i]);
            assert_int_not_equal(slots[i], 0);
            for (int k = 0; k < i; k++) assert_int_not_equal(slots[i], slots[k]);
        }
        for (int i = 0; i < AFTER; i++) {
            const bough_slot *s = bough_at(shm, slots[i]);
            bool is_of_one = false;
            for (int k = 0; k < AFTER; k++) is_of_one = is_of_one || s->pid == pids[k];
            assert_true(is_of_one);
            assert_int_equal(s->busy, 0);
        }
        for (int i = 0; i < AFTER; i++) {
            assert_int_equal(kill(pids[i], SIGKILL), 0);
            assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        }
        close(ready[0]);
        close(ready[1]);
        atomic_store(&e->state, BOUGH_ENTRY_GONE);
        bough_entry_put(shm, e);
    }
    unlink(path);
    bough_table_unmap(shm);
}

static void a_lock_is_taken_over_from_the_dead(void **state) {
    (void)state;
    bough_header *shm = new_memory();
    pid_t pid = fork();
    if (pid == 0) {
        bough_table_forked();
        bough_lock(&shm->alloc_lock);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(atomic_load(&shm->alloc_lock), pid);
    bough_lock(&shm->alloc_lock); /* would wait for ever */
    bough_unlock(&shm->alloc_lock);
    bough_table_unmap(shm);
}

static void the_gate_waits_for_a_writer_and_not_for_a_dead_one(void **state) {
    (void)state;
    bough_header *shm = new_memory();
    atomic_store(&shm->postmaster, (int32_t)getpid());
    bough_slot *slot = bough_slot_claim(shm);
    uint32_t epoch = bough_gate_enter(shm, slot);
    assert_int_equal(bough_gate_close(shm, 30), -1); /* we are writing */
    assert_int_equal(errno, ETIMEDOUT);
    bough_gate_leave(slot);
    assert_int_equal(bough_gate_close(shm, 1000), 0);
    bough_gate_open(shm);
    assert_true(bough_gate_epoch(shm) > epoch);
    pid_t pid = fork();
    if (pid == 0) {
        bough_table_forked();
        bough_gate_enter(shm, bough_slot_claim(shm));
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(bough_gate_close(shm, 1000), 0);
    bough_gate_open(shm);
    bough_table_unmap(shm);
}

/* A layer with one sparse file, one whole file and a directory. */
static void make_layer(void) {
    char path[256];
    (void)snprintf(path, sizeof path, "mkdir -p %s/layers/g/00000001/data/base/5", dir);
    assert_int_equal(system(path), 0);
    (void)snprintf(path, sizeof path, "%s/layers/g/00000001/data/base/5/16384", dir);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    char block[BOUGH_BLOCK];
    memset(block, 'x', sizeof block);
    assert_int_equal(ftruncate(fd, 10 * BOUGH_BLOCK), 0);
    assert_int_equal(pwrite(fd, block, sizeof block, 3 * BOUGH_BLOCK), sizeof block);
    close(fd);
    (void)snprintf(path, sizeof path, "%s/layers/g/00000001/data/base/5/PG_VERSION", dir);
    assert_int_equal(bough_write_file(path, "15\n", 3, 0600, NULL), 0);
}

static void an_index_holds_what_the_directory_has(void **state) {
    (void)state;
    bough_store store = {.lock_fd = -1};
    pthread_mutex_init(&store.mutex, NULL);
    (void)snprintf(store.dir, sizeof store.dir, "%s", dir);
    make_layer();
    bough_layers none = {NULL, 0};
    bough_error err;
    assert_int_equal(bough_index_rebuild(&store, "g/00000001", &none, &err), 0);
    char path[256];
    (void)snprintf(path, sizeof path, "%s/layers/g/00000001/index", dir);
    bough_index index;
    assert_int_equal(bough_index_map(&index, path, true), 0);
    const char *key = "base/5/16384";
    const bough_record *r =
        bough_index_find(&index, key, strlen(key), bough_path_hash(key, strlen(key)));
    assert_non_null(r);
    assert_int_equal(r->kind, BOUGH_RECORD_PAGES);
    assert_int_equal(r->size, 10 * BOUGH_BLOCK);
    for (uint64_t b = 0; b < 12; b++) assert_int_equal(bough_record_has(&index, r, b), b == 3);
    uint32_t first = bough_index_first_below(&index, "base/5", 6);
    assert_string_equal(bough_index_name(&index, &index.records[first]), key);
    assert_int_equal(bough_index_first_below(&index, "base/6", 6), index.header->records);
    bough_index_unmap(&index);
}

static void a_damaged_index_is_refused_whatever_byte_is_hit(void **state) {
    (void)state;
    char path[256], *data;
    size_t n;
    (void)snprintf(path, sizeof path, "%s/layers/g/00000001/index", dir);
    assert_int_equal(bough_read_file(&data, &n, path, 1 << 20, NULL), 0);
    char bad[256];
    (void)snprintf(bad, sizeof bad, "%s/bad", dir);
    for (size_t i = 0; i < n; i += 7) {
        data[i] = (char)(data[i] ^ 0x20);
        int fd = open(bad, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(bough_write_full(fd, data, n), 0);
        close(fd);
        bough_index index;
        assert_int_equal(bough_index_map(&index, bad, true), -1);
        assert_int_equal(errno, EUCLEAN);
        data[i] = (char)(data[i] ^ 0x20);
    }
    for (size_t cut = 0; cut < n; cut += 101) { /* a short file, too */
        int fd = open(bad, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(bough_write_full(fd, data, cut), 0);
        close(fd);
        bough_index index;
        assert_int_equal(bough_index_map(&index, bad, true), -1);
    }
    free(data);
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
        cmocka_unit_test(paths_are_classified_as_postgres_names_them),
        cmocka_unit_test(relation_names_need_digits_and_known_forks),
        cmocka_unit_test(crc_is_castagnoli),
        cmocka_unit_test(presence_bits_are_set_and_cleared_across_chunks),
        cmocka_unit_test(an_unlinked_entry_is_reused_when_nobody_has_it_open),
        cmocka_unit_test(a_generation_that_is_over_is_freed_but_for_what_is_held),
        cmocka_unit_test(slots_are_mended_by_one_and_are_of_one_each),
        cmocka_unit_test(a_lock_is_taken_over_from_the_dead),
        cmocka_unit_test(the_gate_waits_for_a_writer_and_not_for_a_dead_one),
        cmocka_unit_test(an_index_holds_what_the_directory_has),
        cmocka_unit_test(a_damaged_index_is_refused_whatever_byte_is_hit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
