/**
 * Confinement of a child process with Landlock. The rule set is made before the fork, because
 * making it takes memory and many system calls; the child only enforces it. Any thread.
 */
#ifndef BOUGH_PG_LANDLOCK_H
#define BOUGH_PG_LANDLOCK_H

#include <stdbool.h>

#include "bough/error.h"

/** What the child may reach besides the system's own programs and libraries. Strings are borrowed.
 */
typedef struct bough_landlock_rules {
    const char
        *bindir; /**< of the PostgreSQL installation; its lib and share directories are added */
    const char *const
        *rw; /**< NULL-terminated: directories to write; each must exist; may be NULL */
    const char *const
        *ro; /**< NULL-terminated: files or directories to read; must exist; may be NULL */
    bool allow_network; /**< leave TCP bind and connect free */
} bough_landlock_rules;

/**
 * Make a rule set.
 *
 * @param[out] ruleset  Close-on-exec descriptor, closed by the caller; -1 where the kernel has no
 * Landlock (said in the log once) and the child must run without.
 * @retval BOUGH_E_SYS  A named path does not exist, or the kernel refused.
 */
BOUGH_CHECK int bough_landlock_prepare(int *ruleset, const bough_landlock_rules *rules,
                                       bough_error *err);

/** In the child, after the fork: no new privileges, then the rules. Async-signal-safe; 0 or -1 with
 * errno. */
BOUGH_CHECK int bough_landlock_enforce(int ruleset);

#endif
