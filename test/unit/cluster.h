/*
 * A directory that looks like a cluster after a clean stop, as far as src/store looks at it: for
 * tests that need no postgres. Offsets as in src/store/moment.c.
 */
#ifndef BOUGH_TEST_CLUSTER_H
#define BOUGH_TEST_CLUSTER_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "preload/index.h"
#include "util/fs.h"

static inline void cluster_put(const char *cluster, const char *name, const void *data,
                               size_t bytes, off_t size) {
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", cluster, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, bytes, 0), bytes);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static inline void cluster_make(const char *cluster) {
    static const char *const dirs[] = {
        "global",       "base/1", "pg_xact", "pg_multixact/offsets", "pg_multixact/members",
        "pg_commit_ts", "pg_wal", "pg_stat", "pg_logical",           "pg_twophase"};
    char path[BOUGH_PATH_MAX], control[8192] = {0}, page[8192];
    assert_int_equal(bough_rmtree(cluster, NULL), 0);
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", cluster, dirs[i]);
        assert_int_equal(bough_mkdirs(path, 0700, NULL), 0);
    }
    uint32_t state = 1, tli = 1;
    uint64_t checkpoint = (UINT64_C(16) << 20) + 40;
    memcpy(control + 16, &state, sizeof state);
    memcpy(control + 32, &checkpoint, sizeof checkpoint);
    memcpy(control + 40, &checkpoint, sizeof checkpoint);
    memcpy(control + 48, &tli, sizeof tli);
    uint32_t crc = bough_crc32c(0, control, 296);
    memcpy(control + 296, &crc, sizeof crc);
    memset(page, 'x', sizeof page);
    cluster_put(cluster, "global/pg_control", control, sizeof control, sizeof control);
    cluster_put(cluster, "PG_VERSION", "15\n", 3, 3);
    cluster_put(cluster, "pg_wal/000000010000000000000010", "wal", 3, 1 << 20);
    cluster_put(cluster, "base/1/1000", page, sizeof page, 5 * sizeof page);
    cluster_put(cluster, "base/1/PG_VERSION", "15\n", 3, 3);
}

static inline int open_descriptors(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

#endif
