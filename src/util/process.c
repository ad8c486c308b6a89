/* Which process it is. See process.h. */
#include "util/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
