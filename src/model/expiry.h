/**
 * The life cycle of branches: who may be deleted, changed, protected, made the default, and when a
 * branch expires. No state; any thread.
 *
 * A rule that a branch breaks is BOUGH_E_PRECONDITION; children in the way are BOUGH_E_CONFLICT.
 */
#ifndef BOUGH_MODEL_EXPIRY_H
#define BOUGH_MODEL_EXPIRY_H

#include "model/records.h"
#include "util/error.h"

/** For so long a deleted branch can be recovered. */
#define BOUGH_RECOVERABLE_MS ((int64_t)7 * 86400 * 1000)

/** A look lives for so long after somebody used it. */
#define BOUGH_LOOK_SECONDS 600

/** How long a temporary branch lives where nobody says otherwise. */
#define BOUGH_TEMPORARY_SECONDS 86400

/** Whether a branch of this name always expires: it begins with "ci-" or "tmp-". */
bool bough_expiry_is_temporary(const char *name);

/**
 * Give a branch that must expire and does not an expiry, BOUGH_TEMPORARY_SECONDS after `now_ms`.
 * Protected and default branches, roots, and other names, stay as they are.
 */
void bough_expiry_default(bough_branch_row *row, int64_t now_ms);

/**
 * Read when a branch is to expire, into expires_ms (whole seconds) and ttl_seconds.
 * @param text    RFC 3339.
 * @param now_ms  The time must be later.
 */
BOUGH_CHECK int bough_expiry_at(bough_branch_row *row, const char *text, int64_t now_ms,
                                bough_error *err);

/** The same for a number of seconds from `now_ms`: 1 to 100 years of them. */
BOUGH_CHECK int bough_expiry_in(bough_branch_row *row, long long seconds, int64_t now_ms,
                                bough_error *err);

/**
 * Give a branch that has an expiry its whole lifetime again from `now_ms`: 100 years of it at most,
 * but never an earlier end than it has.
 */
void bough_expiry_renew(bough_branch_row *row, int64_t now_ms);

/**
 * Which warning is due: 0 none, 1 the first (24 hours before, or half of its lifetime where that
 * is shorter), 2 the last (1 hour before, or a tenth of its lifetime).
 */
int bough_expiry_stage(const bough_branch_row *row, int64_t now_ms);

/** Whether its protection and its expiry go together, and with its being the default. */
BOUGH_CHECK int bough_rule_life(const bough_branch_row *row, bough_error *err);

/**
 * Whether what a branch holds may be replaced (reset, restore), or the branch be deleted.
 * @param what  Of the message: "reset", "restored", "deleted".
 * @retval BOUGH_E_PRECONDITION  It is protected.
 */
BOUGH_CHECK int bough_rule_may_change(const bough_branch_row *row, const char *what,
                                      bough_error *err);

/** Whether a branch may be deleted now. @retval BOUGH_E_CONFLICT  It has children. */
BOUGH_CHECK int bough_rule_may_delete(const bough_branch_row *row, bough_error *err);

#endif
