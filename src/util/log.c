/* Log lines. State is set once at start, then only read. */
#include "util/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bough_log_level lowest_level = BOUGH_LOG_INFO;
static int as_json;

void bough_log_init(bough_log_level lowest, int json) {
    lowest_level = lowest;
    as_json = json;
}

/* Append `text`, escaped for JSON or for a quoted text value. Returns the new length, never above
 * `size`. */
static size_t put(char *line, size_t at, size_t size, const char *text) {
    for (; *text && at + 8 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            line[at++] = '\\';
            line[at++] = (char)c;
        } else if (c < 0x20) {
            at += (size_t)snprintf(line + at, size - at, "\\u%04x", c);
        } else {
            line[at++] = (char)c;
        }
    }
    return at;
}

void bough_log(bough_log_level level, const char *message, ...) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level < lowest_level) return;
    char line[4096];
    const size_t size = sizeof line - 16;
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    char when[40];
    size_t w = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(when + w, sizeof when - w, ".%03dZ", (int)(ts.tv_nsec / 1000000));
    size_t at = (size_t)snprintf(
        line, size, as_json ? "{\"time\":\"%s\",\"level\":\"%s\",\"message\":\"" : "%s %-5s ", when,
        names[level]);
    at = put(line, at, size, message);
    if (as_json) line[at++] = '"';
    va_list ap;
    va_start(ap, message);
    const char *key;
    while ((key = va_arg(ap, const char *)) != NULL) {
        const char *value = va_arg(ap, const char *);
        if (at + 16 > size) break;
        line[at++] = as_json ? ',' : ' ';
        if (as_json) line[at++] = '"';
        at = put(line, at, size, key);
        if (as_json) line[at++] = '"';
        line[at++] = as_json ? ':' : '=';
        line[at++] = '"';
        at = put(line, at, size, value ? value : "");
        line[at++] = '"';
    }
    va_end(ap);
    if (as_json) line[at++] = '}';
    line[at++] = '\n';
    ssize_t n = write(STDERR_FILENO, line, at);
    (void)n;
}
