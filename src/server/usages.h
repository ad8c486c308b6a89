/**
 * How many bytes branches have. Measuring one reads its directory, so what was measured is kept: it
 * holds as long as the branch sleeps and nobody has worked on any branch, and for a moment where
 * that is not so. Any thread.
 */
#ifndef BOUGH_SERVER_USAGES_H
#define BOUGH_SERVER_USAGES_H

#include "server/server.h"

enum {
    USAGE_EXACT_MS = 100,  /**< for one branch */
    USAGE_LISTED_MS = 1000 /**< in a list */
};

BOUGH_CHECK int usage_cache_new(struct usage_cache **cache, bough_error *err);
void usage_cache_free(struct usage_cache *cache);

/**
 * @param max_age_ms  How old it may be where the branch may have changed. With USAGE_LISTED_MS, a
 * branch that sleeps and that nobody worked on is told as it was measured last: what others did may
 * have made layers its own, or shared. That is then measured again in the background. And while the
 * bytes of all branches are measured after the server's start, a list waits for that half a second
 * from the start at most.
 * @return False where it could not be measured, or has not been yet.
 */
bool usage_get(bough_usage *usage, server *srv, const char *branch, int max_age_ms);

/** Measure in the background what is not known, or not any more. */
void usage_refresh(server *srv);

/** The same, of all branches: the server starts. */
void usage_begin(server *srv);

#endif
