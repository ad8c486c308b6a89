/* Token buckets in a table of fixed size. A full bucket is one that need not be remembered. */
#include "server/rates.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4096, PROBES = 8 };

typedef struct slot {
    uint64_t key; /* 0: free */
    double tokens, at_ms;
} slot;

struct rates {
    double most, per_ms;
    slot slots[SLOTS];
};

rates *rates_new(int per_minute) {
    rates *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->most = per_minute;
    r->per_ms = per_minute / 60000.0;
    return r;
}

void rates_free(rates *r) {
    free(r);
}

static uint64_t hash_of(const char *text) {
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return hash ? hash : 1;
}

static double tokens_of(const rates *r, const slot *s, double now_ms) {
    double tokens = s->tokens + (now_ms - s->at_ms) * r->per_ms;
    return s->key && tokens < r->most ? tokens : r->most;
}

bool rates_take(int *wait_s, rates *r, const char *key, double now_ms) {
    uint64_t hash = hash_of(key);
    slot *fullest = NULL, *s = NULL;
    for (uint64_t i = 0; i < PROBES && !s; i++) {
        slot *other = &r->slots[(hash + i) % SLOTS];
        if (other->key == hash) s = other;
        if (!fullest || tokens_of(r, other, now_ms) > tokens_of(r, fullest, now_ms))
            fullest = other;
    }
    if (!s) {
        s = fullest;
        s->key = 0; /* what it was for is forgotten */
    }
    s->tokens = tokens_of(r, s, now_ms);
    s->at_ms = now_ms;
    s->key = hash;
    if (s->tokens >= 1) {
        s->tokens -= 1;
        return true;
    }
    *wait_s = (int)ceil((1 - s->tokens) / r->per_ms / 1000);
    return false;
}

void rates_address(char *out, const char *address) {
    struct in6_addr in6;
    bool is_six = inet_pton(AF_INET6, address, &in6) == 1 && !IN6_IS_ADDR_V4MAPPED(&in6);
    if (is_six) memset(in6.s6_addr + 8, 0, 8);
    if (!is_six || !inet_ntop(AF_INET6, &in6, out, INET6_ADDRSTRLEN))
        (void)snprintf(out, INET6_ADDRSTRLEN, "%s", address);
}
