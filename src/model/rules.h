/**
 * Rules for what users may ask for. Each failure is BOUGH_E_INVALID with a message for the user.
 * Any thread.
 */
#ifndef BOUGH_MODEL_RULES_H
#define BOUGH_MODEL_RULES_H

#include <stdbool.h>

#include "util/error.h"

/** Names of projects and branches: 1 to 256 characters of UTF-8, no control characters, not only
 * spaces. */
BOUGH_CHECK int bough_rule_name(const char *kind, const char *name, bough_error *err);

/** How many bytes of a name leave room for `rest` behind them in a name: whole characters, and none
 * from the first byte on that is no UTF-8. */
int bough_rule_name_room(const char *name, const char *rest);

/** Names of roles and databases: 1 to 63 bytes, no control characters, none that PostgreSQL or
 * Bough keeps. */
BOUGH_CHECK int bough_rule_pg_name(const char *kind, const char *name, bough_error *err);

/** What suspend_timeout_seconds means where it is 0. */
#define BOUGH_SUSPEND_DEFAULT_SECONDS 300
/** The least that users may ask for. */
#define BOUGH_SUSPEND_LEAST_SECONDS 60

/** suspend_timeout_seconds: -1, 0, or `least` to 604800. */
BOUGH_CHECK int bough_rule_suspend_timeout(long long seconds, int least, bough_error *err);

enum {
    BOUGH_SIZE_QUARTERS = 4, /**< of a compute unit: the size of endpoints of which none is said */
    BOUGH_SIZE_MOST_QUARTERS = 64 /**< 16 compute units */
};

/** So many endpoints of a branch may only read: what follows a compute takes one of its slots for
 * WAL senders. */
#define BOUGH_READ_ONLY_MOST 16

/** Sizes: each a quarter of a unit to 16 units, and the least not above the most. */
BOUGH_CHECK int bough_rule_size(int least_quarters, int most_quarters, bough_error *err);

/** history_retention_seconds of a project: 0 to 35 days. */
BOUGH_CHECK int bough_rule_retention(long long seconds, bough_error *err);

/** For so long a project keeps history where nobody says otherwise. */
#define BOUGH_RETENTION_SECONDS (7 * 86400)

#endif
