/**
 * What could not be removed when it was over: files of branches that are in the catalogue no more,
 * and what a restore that was taken back had written into it. A disk failed for a moment, or
 * descriptors or processes ran out. Each round of housekeeping tries again; a new start would find
 * it, too.
 */
#ifndef BOUGH_SERVER_LEFTOVERS_H
#define BOUGH_SERVER_LEFTOVERS_H

#include "server/server.h"

struct leftovers;

BOUGH_CHECK int leftovers_new(struct leftovers **left, bough_error *err);
void leftovers_free(struct leftovers *left);

/**
 * Remember one. Any thread.
 * @param endpoint  Whose directory of sockets goes, too; NULL or "": none.
 * @return Whether there was memory for it.
 */
bool leftovers_add(server *srv, const char *branch, const char *endpoint);
/** The same for the row in "swaps" of a restore of `branch` whose directories are where they were;
 * the files that were to come in go with it. */
bool leftovers_add_swap(server *srv, const char *branch, const char *incoming);

/** Remove what can be removed now. Takes the locks of those branches; one thread at a time. */
void leftovers_try(server *srv);

#endif
