/* Which process it is. See process.h. */
#include "util/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/fs.h"

enum { STATE_FIELD = 3, START_FIELD = 22 }; /* proc(5), /proc/PID/stat */

int bough_process_mark(char out[BOUGH_PROCESS_MARK_SIZE], pid_t pid, bough_error *err) {
    char path[64], boot[BOUGH_BOOT_ID_SIZE], *text = NULL;
    size_t size = 0;
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int rc = bough_read_file(&text, &size, path, 4096, err);
    const char *at = rc ? NULL : strrchr(text, ')'); /* the name before it may hold anything */
    bool runs = at && at[1] == ' ' && at[2] && !strchr("ZX", at[2]);
    for (int field = STATE_FIELD - 1; runs && field < START_FIELD; field++) {
        at = strchr(at + 1, ' ');
        runs = at != NULL;
    }
    if (runs) rc = bough_boot_id(boot, err);
    if (runs && !rc)
        (void)snprintf(out, BOUGH_PROCESS_MARK_SIZE, "%s %.*s", boot, (int)strcspn(at + 1, " \n"),
                       at + 1);
    free(text);
    if (rc == BOUGH_E_NOMEM || (runs && !rc)) return rc;
    return bough_fail(err, BOUGH_E_NOTFOUND, "no process %ld runs", (long)pid);
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
