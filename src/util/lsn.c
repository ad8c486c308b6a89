/* Log sequence numbers as text. See lsn.h. */
#include "util/lsn.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

const char *bough_lsn_write(char out[BOUGH_LSN_SIZE], uint64_t lsn) {
    (void)snprintf(out, BOUGH_LSN_SIZE, "%" PRIX32 "/%" PRIX32, (uint32_t)(lsn >> 32),
                   (uint32_t)lsn);
    return out;
}

/* One half; moves `at` behind it. */
static bool read_half(uint64_t *half, const char **at) {
    const char *p = *at;
    *half = 0;
    for (; p - *at < 8 && isxdigit((unsigned char)*p); p++) {
        int digit = isdigit((unsigned char)*p) ? *p - '0' : tolower((unsigned char)*p) - 'a' + 10;
        *half = *half << 4 | (uint64_t)digit;
    }
    bool is_some = p > *at;
    *at = p;
    return is_some;
}

bool bough_lsn_read(uint64_t *lsn, const char *text) {
    uint64_t high, low;
    if (!read_half(&high, &text) || *text++ != '/' || !read_half(&low, &text) || *text)
        return false;
    *lsn = high << 32 | low;
    return true;
}
