/* Lists of addresses. Every rule is a range, first to last, in the 128 bits of IPv6. */
#include "model/allow.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 16, V4_AT = 12, RULE_MAX = 2 * INET6_ADDRSTRLEN };

typedef struct range {
    uint8_t first[BYTES], last[BYTES];
    bool is_v4; /* so that ::/0 is not everybody of IPv4 */
} range;

/* An address, IPv4 as ::ffff:a.b.c.d. */
static bool parse_address(uint8_t out[BYTES], bool *is_v4, const char *text) {
    static const uint8_t mapped[V4_AT] = {[10] = 0xff, [11] = 0xff};
    memcpy(out, mapped, sizeof mapped);
    *is_v4 = inet_pton(AF_INET, text, out + V4_AT) == 1;
    if (*is_v4) return true;
    if (inet_pton(AF_INET6, text, out) != 1) return false;
    *is_v4 = memcmp(out, mapped, sizeof mapped) == 0;
    return true;
}

/* The first `bits` bits are the network's. */
static void spread(range *r, int bits) {
    for (int i = 0; i < BYTES; i++) {
        int here = bits - i * 8; /* of this byte */
        uint8_t mask = here >= 8 ? 0xff : here <= 0 ? 0 : (uint8_t)(0xff << (8 - here));
        r->first[i] &= mask;
        r->last[i] = r->first[i] | (uint8_t)~mask;
    }
}

static bool parse_rule(range *r, const char *rule) {
    char text[RULE_MAX];
    bool last_is_v4 = false;
    size_t n = strlen(rule);
    if (n == 0 || n >= sizeof text) return false;
    memcpy(text, rule, n + 1);
    char *mark = strpbrk(text, "/-"), kind = mark ? *mark : '\0';
    if (mark) *mark++ = '\0';
    if (!parse_address(r->first, &r->is_v4, text)) return false;
    memcpy(r->last, r->first, BYTES);
    if (kind == '-')
        return parse_address(r->last, &last_is_v4, mark) && last_is_v4 == r->is_v4 &&
               memcmp(r->first, r->last, BYTES) <= 0;
    if (kind == '/') {
        bool is_short = strchr(text, ':') == NULL; /* counted from the start of the IPv4 address */
        int most = is_short ? 32 : 128, bits = atoi(mark);
        if (!*mark || strlen(mark) > 3 || strspn(mark, "0123456789") != strlen(mark) || bits > most)
            return false;
        if (r->is_v4 && !is_short && bits < V4_AT * 8) return false; /* of both families */
        spread(r, is_short ? bits + V4_AT * 8 : bits);
    }
    return true;
}

int bough_allow_check(const char *rule, bough_error *err) {
    range r;
    if (parse_rule(&r, rule)) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_INVALID, "\"%.100s\" is no address, network or range", rule);
    return bough_hint(err, "Say for example 192.0.2.7, 192.0.2.0/24 or 192.0.2.1-192.0.2.99.");
}

bool bough_allow_has(const char *list, const char *address) {
    uint8_t who[BYTES];
    bool is_v4;
    if (!*list) return true;
    if (!parse_address(who, &is_v4, address)) return false;
    while (*list) {
        char rule[RULE_MAX];
        range r;
        size_t n = strcspn(list, "\n");
        if (n < sizeof rule) {
            memcpy(rule, list, n);
            rule[n] = '\0';
            if (parse_rule(&r, rule) && r.is_v4 == is_v4 && memcmp(r.first, who, BYTES) <= 0 &&
                memcmp(who, r.last, BYTES) <= 0)
                return true;
        }
        list += n + (list[n] == '\n');
    }
    return false;
}
