/*
 * libFuzzer target: a dump in SQL (src/pg/dumpscan.h). How it is cut into pieces must not matter.
 */
#include <stdint.h>
#include <string.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "pg/dumpscan.h"

static int feed(bough_dumpscan *scan, const char *text, size_t size, size_t piece) {
    bough_error err;
    int rc = BOUGH_OK;
    for (size_t at = 0; !rc && at < size; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        char *copy = fuzz_text((const uint8_t *)text + at, n);
        rc = bough_dumpscan_feed(scan, copy, n, &err);
        if (rc && !err.message[0]) __builtin_trap();
        free(copy);
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bough_dumpscan *whole = bough_dumpscan_new(), *pieces = bough_dumpscan_new();
    if (!whole || !pieces) abort();
    char *text = fuzz_text(data, size);
    int rc = feed(whole, text, size, size ? size : 1);
    if (feed(pieces, text, size, size % 7 + 1) != rc) __builtin_trap();
    const char *const *a = bough_dumpscan_roles(whole), *const *b = bough_dumpscan_roles(pieces);
    if (!rc && a && b) {
        size_t i = 0;
        for (; a[i] && b[i]; i++)
            if (strcmp(a[i], b[i]) != 0) __builtin_trap();
        if (a[i] || b[i]) __builtin_trap();
    }
    if (!rc && bough_dumpscan_is_complete(whole) != bough_dumpscan_is_complete(pieces))
        __builtin_trap();
    bough_dumpscan_free(whole);
    bough_dumpscan_free(pieces);
    free(text);
    return 0;
}
