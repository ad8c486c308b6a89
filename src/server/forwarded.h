/**
 * Whose request one is that came through a proxy: the header X-Forwarded-For, as far as who wrote
 * it is trusted. Pure functions over what strangers sent; any thread.
 */
#ifndef BOUGH_SERVER_FORWARDED_H
#define BOUGH_SERVER_FORWARDED_H

#include <netinet/in.h>

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
 * The client's address: the nearest one that is not a trusted proxy's.
 *
 * Each proxy adds at the end whom it has it from; what stands before the first one that is not
 * trusted may be anything.
 *
 * @param[out] out  INET6_ADDRSTRLEN bytes.
 * @param peer      Who is connected.
 * @param header    All values of X-Forwarded-For in their order, with commas between them; NULL:
 *                  there is none.
 * @param trusted   Of forwarded_trust(); "" trusts nobody.
 */
void forwarded_address(char *out, const char *peer, const char *header, const char *trusted);

#endif
