/* pg_control: the state is at the same place in all supported versions
 * (src/include/catalog/pg_control.h). */
#include "pg/control.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "util/error.h"
#include "util/fs.h"

enum { STATE_AT = 16, DB_SHUTDOWNED = 1 };

int bough_control_clean(bool *clean, const char *pgdata, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    unsigned char head[STATE_AT + sizeof(uint32_t)];
    uint32_t state;
    *clean = false;
    int rc = bough_path(path, sizeof path, err, "%s/global/pg_control", pgdata);
    if (rc) return rc;
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC, 0);
    ssize_t n = fd < 0 ? -1 : bough_pread_full(fd, head, sizeof head, 0);
    if (fd >= 0) close(fd);
    if (n != (ssize_t)sizeof head)
        return bough_fail(err, BOUGH_E_CORRUPT, "could not read \"%s\"", path);
    memcpy(&state, head + STATE_AT, sizeof state);
    *clean = state == DB_SHUTDOWNED;
    return BOUGH_OK;
}
