/*
 * libFuzzer target: small files of a store and of a cluster: the stack of layers (src/store), the
 * settings that are carried along, the log of a server, postmaster.pid (src/pg).
 */
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "pg/conf.h"
#include "pg/pglog.h"
#include "pg/pidfile.h"
#include "store/internal.h"

/* What is taken is written back as it was read. */
static void try_stack(const char *path, const uint8_t *data, size_t size) {
    bough_layers layers;
    bough_error err;
    if (bough_layers_load(&layers, path, &err) != BOUGH_OK) {
        if (layers.dir || !err.message[0]) __builtin_trap();
        return;
    }
    size_t n = strlen("bough-stack 1\n");
    for (size_t i = 0; i < layers.n; i++) {
        size_t length = strlen(layers.dir[i]);
        if (length > 99 || strstr(layers.dir[i], "..") || n + length + 1 > size ||
            memcmp(data + n, layers.dir[i], length) != 0)
            __builtin_trap();
        n += length + 1;
    }
    if (n + strlen("end\n") != size) __builtin_trap();
    bough_layers_free(&layers);
}

static void try_log(const char *path) {
    char line[80], hint[80];
    int code = 0;
    memset(line, 'x', sizeof line);
    memset(hint, 'x', sizeof hint);
    if (bough_pglog_failure(line, sizeof line, hint, sizeof hint, &code, path, 0) != 0) return;
    if (strnlen(line, sizeof line) == sizeof line || strnlen(hint, sizeof hint) == sizeof hint)
        __builtin_trap();
}

/* A directory in which every name that is asked for is the file. */
static const char *directory(void) {
    static char dir[] = "/tmp/bough-fuzz-XXXXXX";
    static const char *made;
    if (!made && !(made = mkdtemp(dir))) abort();
    return made;
}

static void clean_up(void) {
    char path[128];
    static const char *const names[] = {"/bough_carried.conf", "/postmaster.pid", ""};
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s%s", directory(), names[i]);
        (void)remove(path);
    }
}

static void put(const char *name, const char *target) {
    char path[128];
    static int is_known;
    if (!is_known++) (void)atexit(clean_up);
    (void)snprintf(path, sizeof path, "%s/%s", directory(), name);
    (void)unlink(path);
    if (symlink(target, path) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64], **settings = NULL;
    bough_error err;
    bough_pidfile pidfile;
    bough_pidfile_segment segment;
    int fd = fuzz_file(path, data, size);
    try_stack(path, data, size);
    try_log(path);
    put("bough_carried.conf", path);
    if (bough_conf_carried(&settings, directory(), &err) == BOUGH_OK && settings) {
        for (size_t i = 0; settings[i]; i++) {
            const char *equals = strchr(settings[i], '=');
            if (!equals || equals == settings[i]) __builtin_trap();
            free(settings[i]);
        }
        free(settings);
    }
    put("postmaster.pid", path);
    if (bough_pidfile_read(&pidfile, directory()) == 0 && pidfile.pid <= 0) __builtin_trap();
    if (bough_pidfile_read_segment(&segment, directory()) == 0 && segment.pid <= 0)
        __builtin_trap();
    close(fd);
    return 0;
}
