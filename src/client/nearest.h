/**
 * What the user may have meant: the nearest of several names. Pure functions; any thread.
 */
#ifndef BOUGH_CLIENT_NEAREST_H
#define BOUGH_CLIENT_NEAREST_H

#include <stddef.h>

/** Names longer than this many bytes are compared by their beginnings only. */
#define BOUGH_NEAREST_MAX 64

/**
 * Damerau-Levenshtein distance (optimal string alignment): the least number of insertions,
 * deletions, substitutions and swaps of neighbours that turn one name into the other. Letters' case
 * is ignored.
 */
size_t bough_distance(const char *a, const char *b);

/**
 * The name nearest to `wanted`.
 *
 * @param names  `count` names; NULL entries are skipped.
 * @return       An entry of `names`, the first of equals; NULL where none is near enough to be
 * meant: more than a third of the longer name's bytes differ (one byte always may), and neither
 *               begins with the other.
 */
const char *bough_nearest(const char *wanted, const char *const *names, size_t count);

#endif
