/**
 * Lists of the addresses that may connect to a project's endpoints. A list is text, one rule a
 * line; a rule is an address, "192.0.2.0/24" or "192.0.2.1-192.0.2.9", of either family. An IPv4
 * address in its IPv6 form (::ffff:192.0.2.1) is the IPv4 address.
 */
#ifndef BOUGH_MODEL_ALLOW_H
#define BOUGH_MODEL_ALLOW_H

#include <stdbool.h>

#include "util/error.h"

/**
 * Check that a text is one rule.
 * @retval BOUGH_E_INVALID  It is not.
 */
BOUGH_CHECK int bough_allow_check(const char *rule, bough_error *err);

/** Whether an address, as inet_ntop() writes it, is in a list. An empty list has all. */
bool bough_allow_has(const char *list, const char *address);

#endif
