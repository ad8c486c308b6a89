/* What commands print with: JSON, errors, bytes, times. */
#include <langinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/error.h"
#include "util/jsontext.h"
#include "util/utf8.h"

int cli_print_json(json_t *value, bough_error *err) {
    char *text = value ? bough_json_text_of(value, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(value);
    if (!text) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    (void)puts(text); /* main.c checks standard output at the end */
    free(text);
    return BOUGH_OK;
}

json_t *cli_json(const char *text) {
    return bough_json_load(text, strlen(text), 0, NULL);
}

int cli_read_json(json_t **value, const char *text, bough_error *err) {
    *value = cli_json(text);
    return *value ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

void cli_say(const cli_args *args, const char *fmt, ...) {
    if (args->json) return;
    va_list ap;
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    (void)putchar('\n');
}

void cli_print_error(const bough_error *err, bool json) {
    const bough_code_info *info = bough_code_get(err->code);
    if (json) {
        /* the name of a file, or one that was shortened, may be no UTF-8 */
        char message[3 * sizeof err->message], hint[3 * sizeof err->hint];
        bough_utf8_mend(message, sizeof message, err->message);
        bough_utf8_mend(hint, sizeof hint, err->hint);
        json_t *value =
            json_pack("{s:s,s:s,s:s}", "code", info->slug, "message", message, "hint", hint);
        char *text =
            value ? bough_json_text_of(value, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
        (void)fprintf(stderr, "%s\n", text ? text : "{}");
        free(text);
        json_decref(value);
        return;
    }
    (void)fprintf(stderr, "bough: error: %s\n", err->message);
    if (*err->hint) (void)fprintf(stderr, "bough: hint: %s\n", err->hint);
}

void cli_quote(char *out, size_t size, const char *text) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+,=";
    size_t at = 0;
    bool quote = !*text || text[strspn(text, plain)];
    if (quote && at + 1 < size) out[at++] = '\'';
    for (; *text; text++) {
        const char *piece = *text == '\'' ? "'\\''" : text;
        size_t n = piece == text ? 1 : 4;
        if (at + n + 2 > size) break;
        memcpy(out + at, piece, n);
        at += n;
    }
    if (quote && at + 1 < size) out[at++] = '\'';
    if (size) out[at] = '\0';
}

bool cli_is_terminal(void) {
    static int is = -1; /* asked for each cell of a table */
    if (is < 0) is = isatty(STDOUT_FILENO) == 1;
    return is;
}

bool cli_is_utf8(void) {
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

void cli_format_bytes(char *out, size_t size, uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]; unit++) value /= 1024;
    (void)snprintf(out, size, "%.*f %s", unit ? 1 : 0, value, units[unit]);
}

void cli_format_time(char *out, size_t size, const char *rfc3339) {
    struct tm tm = {0};
    const char *rest = strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest && *rest == '.') rest += 1 + strspn(rest + 1, "0123456789");
    if (!cli_is_terminal() || !rest || strcmp(rest, "Z") != 0) {
        (void)snprintf(out, size, "%s", rfc3339);
        return;
    }
    time_t at = timegm(&tm);
    struct tm local;
    if (!localtime_r(&at, &local) || !strftime(out, size, "%Y-%m-%d %H:%M:%S", &local))
        (void)snprintf(out, size, "%s", rfc3339);
}

void cli_format_ms(char *out, size_t size, double ms) {
    if (ms < 1000)
        (void)snprintf(out, size, "%.1f ms", ms);
    else
        (void)snprintf(out, size, "%.2f s", ms / 1000);
}
