/** Shared by those who run PostgreSQL's tools: remembering what they said, and statements run after
 * an import. */
#ifndef BOUGH_PG_TOOL_H
#define BOUGH_PG_TOOL_H

#include <libpq-fe.h>

#include "pg/spawn.h"

/** First error line and last line of a tool's output. */
typedef struct bough_words {
    char error[384]; /**< without its prefix; empty when none */
    char last[384];
} bough_words;

/** Take a line of output. */
void bough_words_take(bough_words *words, const char *line);

/** Report that a tool failed, with what it said; a full disk is BOUGH_E_NOSPACE, all else `code`.
 */
int bough_words_fail(const bough_words *words, int code, const char *tool, int status,
                     bough_error *err);

/**
 * Drop all subscriptions of the connected database without speaking to their publishers.
 */
BOUGH_CHECK int bough_drop_subscriptions(PGconn *conn, bough_error *err);

#endif
