/* Which process it is. See process.h. */
#include "util/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/fs.h"

enum { STATE_FIELD = 3, PARENT_FIELD = 4, START_FIELD = 22 }; /* proc(5), /proc/PID/stat */

/* A number that the kernel tells of a process that runs. No memory is needed for it. */
static bool read_field(unsigned long long *value, pid_t pid, int field) {
    char path[64], text[1024];
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC, 0);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) close(fd);
    if (n <= 0) return false;
    text[n] = '\0';
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    if (!at || at[1] != ' ' || !at[2] || strchr("ZX", at[2])) return false;
    for (int i = STATE_FIELD - 1; at && i < field; i++) at = strchr(at + 1, ' ');
    return at && sscanf(at, " %llu", value) == 1;
}

int bough_process_mark(char out[BOUGH_PROCESS_MARK_SIZE], pid_t pid, bough_error *err) {
    char boot[BOUGH_BOOT_ID_SIZE];
    unsigned long long start;
    if (!read_field(&start, pid, START_FIELD))
        return bough_fail(err, BOUGH_E_NOTFOUND, "no process %ld runs", (long)pid);
    int rc = bough_boot_id(boot, err);
    if (!rc) (void)snprintf(out, BOUGH_PROCESS_MARK_SIZE, "%s %llu", boot, start);
    return rc;
}

pid_t bough_process_parent(pid_t pid) {
    unsigned long long parent;
    return read_field(&parent, pid, PARENT_FIELD) ? (pid_t)parent : -1;
}

bool bough_process_is_server(pid_t pid, const char *store) {
    char path[64], text[4 * BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "/proc/%ld/cmdline", (long)pid);
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC, 0);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) close(fd);
    if (size <= 0) return false; /* gone, or a zombie */
    text[size] = '\0';
    const char *slash = strrchr(text, '/');
    bool is_boughd = strcmp(slash ? slash + 1 : text, "boughd") == 0, has_store = false;
    for (const char *word = text; word < text + size; word += strlen(word) + 1)
        has_store |= strcmp(word, store) == 0;
    return is_boughd && has_store;
}
