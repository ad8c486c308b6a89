/**
 * Files of branches that are in the catalogue no more, and that could not be removed when they
 * were: a disk that failed for a moment, descriptors or processes that ran out. Each round of
 * housekeeping tries again; a new start would find them, too.
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

/** Remove what can be removed now. Takes the locks of those branches; one thread at a time. */
void leftovers_try(server *srv);

#endif
