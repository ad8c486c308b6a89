/*
 * libFuzzer target: what people write for times, ages, LSNs, addresses and connection strings, and
 * what PostgreSQL and its tools say (src/util/when.h, lsn.h; src/model/allow.h; src/cli/moment.h,
 * uri.h; src/pg/pglog.h). Traps where a promise is broken.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/moment.h"
#include "cli/uri.h"
#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "model/allow.h"
#include "pg/pglog.h"
#include "util/lsn.h"
#include "util/when.h"

static void try_times(const char *text) {
    bough_error err;
    int64_t ms, us, seconds;
    int rc = bough_when_time(&ms, text, &err);
    if ((bough_when_time_us(&us, text, &err) == BOUGH_OK) != (rc == BOUGH_OK)) __builtin_trap();
    if (!rc && us / 1000 != ms && (us - 999) / 1000 != ms) __builtin_trap();
    if (rc && !err.message[0]) __builtin_trap();
    if (bough_when_duration(&seconds, text, &err) == BOUGH_OK &&
        (seconds < 1 || seconds > BOUGH_LONGEST_SECONDS))
        __builtin_trap();
}

static void try_lsn(const char *text) {
    uint64_t lsn, again;
    if (!bough_lsn_read(&lsn, text)) return;
    if (!bough_lsn_read(&again, BOUGH_LSN_TEXT(lsn)) || again != lsn) __builtin_trap();
}

/* What is taken goes to the API, which must understand it. */
static void try_moment(const char *text) {
    bough_error err;
    char out[64];
    uint64_t lsn;
    int64_t us;
    memset(out, 'x', sizeof out);
    if (cli_moment(out, sizeof out, text, &err) != BOUGH_OK) return;
    if (strnlen(out, sizeof out) == sizeof out) __builtin_trap();
    if (!bough_lsn_read(&lsn, out) && bough_when_time_us(&us, out, &err) != BOUGH_OK)
        __builtin_trap();
}

static void try_uri(const char *text) {
    bough_error err;
    char *bare = NULL, *password = NULL, *again = NULL, *none = NULL;
    if (uri_split(&bare, &password, text, &err) == BOUGH_OK) {
        if (!bare || strlen(bare) > strlen(text)) __builtin_trap();
        if (password && strlen(password) > strlen(text)) __builtin_trap();
        /* no password is left in it */
        if (uri_split(&again, &none, bare, &err) == BOUGH_OK && none) __builtin_trap();
    }
    free(bare);
    free(password);
    free(again);
    free(none);
}

static void try_rules(const char *text) {
    bough_error err;
    if (bough_allow_check(text, &err) == BOUGH_OK) {
        (void)bough_allow_has(text, "192.0.2.1");
        (void)bough_allow_has(text, "2001:db8::1");
        if (!bough_allow_has("", text)) __builtin_trap();
    }
    (void)bough_allow_has(text, "192.0.2.1");
    (void)bough_allow_has("192.0.2.0/24\n2001:db8::/32\n10.0.0.1-10.0.0.9", text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = fuzz_text(data, size);
    try_times(text);
    try_lsn(text);
    try_moment(text);
    try_uri(text);
    try_rules(text);
    const char *message = bough_pglog_message(text);
    if (message && (message < text || message > text + strlen(text))) __builtin_trap();
    free(text);
    return 0;
}
