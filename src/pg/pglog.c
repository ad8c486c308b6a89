/* Reading PostgreSQL's messages. Servers are run with lc_messages = C, tools with LC_ALL = C.UTF-8.
 */
#include "pg/pglog.h"

#include <errno.h>
#include <stdbool.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pg/spawn.h"
#include "util/error.h"
#include "util/fs.h"

enum { TAIL_BYTES = 256 * 1024 };

const char *bough_pglog_message(const char *line) {
    static const char *const marks[] = {"FATAL:  ", "PANIC:  ", "ERROR:  "};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *at = strstr(line, marks[i]);
        if (at) return at + strlen(marks[i]);
    }
    return NULL;
}

int bough_pglog_code(const char *text, int otherwise) {
    return strstr(text, strerror(ENOSPC)) || strstr(text, "No space left on device") ||
                   strstr(text, "Disk quota exceeded")
               ? BOUGH_E_NOSPACE
               : otherwise;
}

/* What clients are told while it starts or stops says nothing about why it ended. */
static int is_noise(const char *message) {
    return strncmp(message, "the database system is ", 23) == 0 ||
           strncmp(message, "terminating connection due to administrator", 43) == 0;
}

static char *read_tail(const char *path, off_t from) {
    struct stat st;
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return NULL;
    char *data = NULL;
    if (fstat(fd, &st) == 0 && st.st_size > from) {
        if (st.st_size - from > TAIL_BYTES) from = st.st_size - TAIL_BYTES;
        size_t size = (size_t)(st.st_size - from);
        data = malloc(size + 1);
        ssize_t n = data ? bough_pread_full(fd, data, size, from) : -1;
        if (n >= 0)
            data[n] = '\0';
        else {
            free(data);
            data = NULL;
        }
    }
    close(fd);
    return data;
}

int bough_pglog_failure(char *line, size_t size, char *hint, size_t hint_size, int *code,
                        const char *path, off_t from) {
    char *data = read_tail(path, from);
    line[0] = hint[0] = '\0';
    if (!data) return -1;
    const char *last = NULL;
    bool wants_hint = false;
    char *saved = NULL;
    for (char *at = strtok_r(data, "\n", &saved); at; at = strtok_r(NULL, "\n", &saved)) {
        const char *message = bough_pglog_message(at);
        const char *advice = strstr(at, "HINT:  ");
        if (message && !is_noise(message)) {
            bough_one_line(line, size, message);
            hint[0] = '\0';
            wants_hint = true;
            if (bough_pglog_code(at, 0)) *code = BOUGH_E_NOSPACE;
        } else if (advice && wants_hint) {
            bough_one_line(hint, hint_size, advice + 7);
        } else if (strstr(at, "LOG:  ")) {
            wants_hint = false;
        }
        last = at;
    }
    if (!line[0] && last) bough_one_line(line, size, last);
    free(data);
    return line[0] ? 0 : -1;
}
