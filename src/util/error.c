/* Filling in a bough_error, and the table of codes. No state; any thread. */
#include "util/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "util/utf8.h"

/* SQLSTATEs are PostgreSQL's (Appendix A): 57P03 cannot_connect_now, 42501 insufficient_privilege,
 * ... */
static const bough_code_info codes[] = {
    {BOUGH_OK, "OK", 200, 0, "00000"},
    {BOUGH_E_NOMEM, "OUT_OF_MEMORY", 500, 70, "53200"},
    {BOUGH_E_SYS, "SYSTEM_ERROR", 500, 71, "58030"},
    {BOUGH_E_INVALID, "INVALID", 400, 2, "22023"},
    {BOUGH_E_NOTFOUND, "NOT_FOUND", 404, 3, "42704"},
    {BOUGH_E_CONFLICT, "CONFLICT", 409, 4, "42710"},
    {BOUGH_E_BUSY, "BUSY", 423, 5, "55006"},
    {BOUGH_E_UNSUPPORTED, "UNSUPPORTED", 422, 6, "0A000"},
    {BOUGH_E_CORRUPT, "CORRUPT", 500, 7, "XX001"},
    {BOUGH_E_PG, "POSTGRES_ERROR", 422, 8, "XX000"},
    {BOUGH_E_AUTH, "UNAUTHORIZED", 401, 9, "28000"},
    {BOUGH_E_UNREACHABLE, "UNREACHABLE", 503, 10, "08001"},
    {BOUGH_E_TIMEOUT, "TIMEOUT", 504, 11, "57P05"},
    {BOUGH_E_CANCELLED, "CANCELLED", 499, 130, "57014"},
    {BOUGH_E_NOSPACE, "DISK_FULL", 507, 12, "53100"},
    {BOUGH_E_PRECONDITION, "PRECONDITION_FAILED", 412, 13, "55000"},
    {BOUGH_E_USAGE, "USAGE", 400, 64, "42601"},
    {BOUGH_E_INTERNAL, "INTERNAL", 500, 70, "XX000"},
};

const bough_code_info *bough_code_get(int code) {
    size_t n = sizeof codes / sizeof codes[0];
    for (size_t i = 0; i < n; i++)
        if (codes[i].code == code) return &codes[i];
    return &codes[n - 1];
}

int bough_code_from_slug(const char *slug) {
    if (slug)
        for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
            if (strcmp(codes[i].slug, slug) == 0) return codes[i].code;
    return BOUGH_E_INTERNAL;
}

void bough_error_clear(bough_error *err) {
    if (err) memset(err, 0, sizeof *err);
}

/* A text that fills its room was cut, perhaps within a character; then no JSON could hold it. */
static void end_text(char *text, size_t size) {
    if (strlen(text) == size - 1) bough_utf8_cut(text);
}

int bough_fail(bough_error *err, int code, const char *fmt, ...) {
    if (err) {
        int saved = errno;
        va_list ap;
        bough_error_clear(err);
        err->code = code;
        va_start(ap, fmt);
        (void)vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        end_text(err->message, sizeof err->message);
        errno = saved;
    }
    return code;
}

int bough_fail_sys(bough_error *err, int sys_errno, const char *fmt, ...) {
    int code = sys_errno == ENOSPC || sys_errno == EDQUOT ? BOUGH_E_NOSPACE : BOUGH_E_SYS;
    if (err) {
        va_list ap;
        bough_error_clear(err);
        err->code = code;
        err->sys_errno = sys_errno;
        va_start(ap, fmt);
        (void)vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        size_t n = strlen(err->message);
        char reason[128];
        (void)snprintf(err->message + n, sizeof err->message - n, ": %s",
                       strerror_r(sys_errno, reason, sizeof reason));
        end_text(err->message, sizeof err->message);
        if (code == BOUGH_E_NOSPACE)
            (void)snprintf(err->hint, sizeof err->hint,
                           "Free space on that file system, then retry.");
        errno = sys_errno;
    }
    return code;
}

int bough_hint(bough_error *err, const char *fmt, ...) {
    if (!err) return BOUGH_E_INTERNAL;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->hint, sizeof err->hint, fmt, ap);
    va_end(ap);
    end_text(err->hint, sizeof err->hint);
    return err->code;
}

int bough_context(bough_error *err, const char *fmt, ...) {
    if (!err) return BOUGH_E_INTERNAL;
    char before[sizeof err->message];
    memcpy(before, err->message, sizeof before);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->message);
    (void)snprintf(err->message + n, sizeof err->message - n, ": %.*s", (int)(sizeof before - 1),
                   before);
    end_text(err->message, sizeof err->message);
    return err->code;
}
