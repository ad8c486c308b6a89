/**
 * Whose request one is that came through a proxy: the header X-Forwarded-For, as far as who wrote
 * it is trusted. Pure functions over what strangers sent; any thread.
 */
#ifndef BOUGH_SERVER_FORWARDED_H
#define BOUGH_SERVER_FORWARDED_H

#include <netinet/in.h>
#include <stdbool.h>

#include "util/error.h"

/**
 * Make a list (model/allow.h) of rules with commas between them.
 *
 * @param[out] list  BOUGH_ALLOW_SIZE bytes; "" for none.
 * @param text       NULL: none.
 * @retval BOUGH_E_USAGE  One is no rule, or there are too many.
 */
BOUGH_CHECK int forwarded_trust(char *list, const char *text, bough_error *err);

/**
 * Go back towards the client's address: the nearest one that is not a trusted proxy's.
 *
 * Each proxy adds at the end whom it has it from, some as a line of the header and some as a word
 * of its last; so the last line comes first. What stands before the first address that is not
 * trusted may be anything, and as much as the client likes: it is not looked at.
 *
 * @param[in,out] address  INET6_ADDRSTRLEN bytes; before the last line, who is connected.
 * @param line             Of X-Forwarded-For: addresses with commas between them.
 * @param trusted          Of forwarded_trust(); "" trusts nobody.
 * @return Whether the line before this one says more.
 */
bool forwarded_back(char *address, const char *line, const char *trusted);

#endif
