/* boughd's side of the model, as far as every program that drives it has it. See model.h. */
#include "model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store.h"
#include "util/fs.h"

void model_must(int rc, const bough_error *err, const char *what) {
    if (rc) model_fail("%s: %s", what, err->message);
}

static void put_file(const char *dir, const char *name, const void *data, size_t bytes,
                     off_t size) {
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/cluster/%s", dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes || ftruncate(fd, size) != 0)
        model_fail("could not write %s", path);
    close(fd);
}

/* As after a clean stop: control file, WAL of one segment of 1 MiB with the last checkpoint. */
void model_make_cluster(const char *dir) {
    static const char *const dirs[] = {
        "pg_wal",     "pg_wal/archive_status", "pg_logical", "pg_twophase", "pg_tblspc", "pg_stat",
        "pg_dynshmem"};
    char path[BOUGH_PATH_MAX], control[8192] = {0};
    (void)snprintf(path, sizeof path, "%s/cluster", dir);
    model_plain_begin(path);
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/cluster/%s", dir, dirs[i]);
        if (mkdir(path, 0700) != 0) model_fail("could not create %s", path);
    }
    uint32_t state = 1, tli = 1; /* DB_SHUTDOWNED; offsets as in src/store/moment.c */
    uint64_t checkpoint = (UINT64_C(16) << 20) + 40;
    memcpy(control + 16, &state, sizeof state);
    memcpy(control + 32, &checkpoint, sizeof checkpoint);
    memcpy(control + 40, &checkpoint, sizeof checkpoint);
    memcpy(control + 48, &tli, sizeof tli);
    put_file(dir, "global/pg_control", control, sizeof control, sizeof control);
    put_file(dir, "PG_VERSION", "15\n", 3, 3);
    put_file(dir, "pg_wal/000000010000000000000010", "wal", 3, 1 << 20);
}

/* As in src/server/housekeeping.c. */
size_t model_merge(bough_store *store, const char *branch, bough_shm *live) {
    bough_error err = {0};
    bough_tidy *tidy;
    bough_merge *merge;
    size_t layers = 0;
    model_must(bough_store_collect_all(store, &err), &err, "collect");
    model_must(bough_tidy_begin(&tidy, store, &err), &err, "tidy");
    if (bough_tidy_wants(tidy, branch, live != NULL))
        model_must(bough_tidy_apply(&layers, tidy, branch, live, &err), &err, "apply");
    layers = 0;
    model_must(bough_tidy_merge(&merge, tidy, branch, NULL, NULL, &err), &err, "merge");
    if (merge) model_must(bough_tidy_commit(&layers, merge, live, &err), &err, "commit");
    if (merge && layers == 0)
        model_fail("a merge came to nothing, though nobody was there to disturb it");
    bough_tidy_drop(merge);
    bough_tidy_end(tidy);
    return layers;
}

void model_compare_export(bough_store *store, const char *dir, const char *branch,
                          const char *plain) {
    char dest[BOUGH_PATH_MAX], why[2048];
    bough_error err = {0};
    (void)snprintf(dest, sizeof dest, "%s/export", dir);
    model_must(bough_mkdirs(dest, 0700, &err), &err, "export");
    model_must(bough_store_export(store, branch, dest, NULL, NULL, &err), &err, "export");
    if (model_compare(dest, plain, MODEL_ALL, why, sizeof why) != MODEL_SAME)
        model_fail("the export of %s: %s", branch, why);
    model_must(bough_rmtree(dest, &err), &err, "export");
}
