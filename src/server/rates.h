/**
 * How often something may happen, for each of many keys: a bucket of tokens each, which holds what
 * a minute gives. Bounded: of more keys than there is room for, those that used least are
 * forgotten. Not locked: for one thread.
 */
#ifndef BOUGH_SERVER_RATES_H
#define BOUGH_SERVER_RATES_H

#include <netinet/in.h>
#include <stdbool.h>

typedef struct rates rates;

/** @return NULL without memory. */
rates *rates_new(int per_minute);
void rates_free(rates *r);

/**
 * Take a token.
 * @param key         Any text.
 * @param now_ms      A clock that does not go back.
 * @param[out] wait_s Where there is none: seconds until there will be.
 */
bool rates_take(int *wait_s, rates *r, const char *key, double now_ms);

/**
 * What an address is counted by: who has one of IPv6 has all that share its first 64 bits.
 * @param[out] out  INET6_ADDRSTRLEN bytes.
 */
void rates_address(char *out, const char *address);

#endif
