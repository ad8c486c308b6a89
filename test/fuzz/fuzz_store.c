/*
 * libFuzzer target: the small files of a store that are read back at a start and after: its format,
 * a branch's pg_control, restore points, the number of the last layer that is gone, what a merged
 * layer stands for. The first byte says which file the rest is.
 */
#include <stdint.h>
#include <string.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "store/internal.h"
#include "util/log.h"

static char dir[] = "/tmp/bough-fuzz-store-XXXXXX";

static void clean_up(void) {
    bough_ignore(bough_rmtree(dir, NULL));
}

static void put(const char *name, const void *data, size_t size) {
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    *strrchr(path, '/') = '\0';
    if (bough_mkdirs(path, 0700, NULL)) abort();
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    close(fd);
}

static void set_up(void) {
    static int is_made;
    static const char stack[] = "bough-stack 1\nbr-a/00000001\nend\n";
    char segment[1] = "w";
    if (is_made++) return;
    bough_log_init(BOUGH_LOG_ERROR, false);
    if (!mkdtemp(dir)) abort();
    (void)atexit(clean_up);
    put("branches/br-a/stack", stack, sizeof stack - 1);
    put("layers/br-a/00000001/x", segment, 1);
    put("branches/br-a/pgdata/pg_wal/000000010000000000000001", segment, 1);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/branches/br-a/pgdata/pg_wal/000000010000000000000001",
                   dir);
    if (truncate(path, 1 << 20) != 0) abort();
}

/* A failure says so. */
static void told(int rc, const bough_error *err) {
    if (rc && (rc != err->code || !err->message[0])) __builtin_trap();
}

static void try_control(void) {
    bough_moment *m = malloc(sizeof *m);
    bough_error err = {0};
    char path[BOUGH_PATH_MAX], pgdata[BOUGH_PATH_MAX], name[32];
    (void)snprintf(pgdata, sizeof pgdata, "%s/branches/br-a/pgdata", dir);
    (void)snprintf(path, sizeof path, "%s/" BOUGH_CONTROL_NAME, pgdata);
    if (!m) abort();
    int rc = bough_moment_read(m, pgdata, NULL, &err);
    told(rc, &err);
    if (!rc) {
        (void)bough_moment_lsn(m);
        bough_moment_segment_name(name, sizeof name, m, m->redo / m->segment_bytes);
        told(bough_moment_set_crashed(m, &err), &err);
    }
    told(bough_moment_load(m, path, pgdata, &err), &err);
    free(m);
}

static void try_points(const bough_store *store) {
    bough_point *points;
    size_t n;
    bough_error err = {0};
    int rc = bough_store_points(&points, &n, store, "br-a", &err);
    told(rc, &err);
    for (size_t i = 0; !rc && i < n; i++)
        if (strlen(points[i].name) != 16) __builtin_trap();
    free(points);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char control[] = "branches/br-a/pgdata/" BOUGH_CONTROL_NAME;
    static const char *const names[] = {"format", control,
                                        "branches/br-a/points/0000000001000000/meta",
                                        "layers/br-a/.last", "layers/br-a/00000001/merged"};
    bough_store store = {.lock_fd = -1};
    bough_merged merged;
    bough_error err = {0};
    unsigned last;
    char next[100];
    if (!size) return 0;
    set_up();
    (void)snprintf(store.dir, sizeof store.dir, "%s", dir);
    pthread_mutex_init(&store.places, NULL);
    unsigned which = data[0] % (sizeof names / sizeof names[0]);
    put(names[which], data + 1, size - 1);
    if (which == 0) {
        bough_store *opened = NULL;
        int rc = bough_store_open(&opened, dir, &err);
        told(rc, &err);
        bough_store_close(opened);
    } else if (which == 1) {
        try_control();
    } else if (which == 2) {
        try_points(&store);
    } else if (which == 3) {
        int rc = bough_layer_last(&last, &store, "br-a", &err);
        told(rc, &err);
        if (!rc) told(bough_layer_next(next, sizeof next, &store, "br-a", &err), &err);
    } else {
        int rc = bough_merged_load(&merged, &store, &err);
        told(rc, &err);
        if (!rc) bough_merged_free(&merged);
    }
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", dir, names[which]);
    (void)unlink(path);
    return 0;
}
