/**
 * Reading what POST /sql is asked: one query or a batch, parameters as PostgreSQL's text. No state;
 * any thread.
 */
#ifndef BOUGH_SERVER_SQL_BODY_H
#define BOUGH_SERVER_SQL_BODY_H

#include <jansson.h>

#include "server/sql_text.h"
#include "util/error.h"

/** Most parameters of a query: the protocol has 16 bits for their number. */
#define SQL_PARAMS_MAX 65535

typedef struct sql_query {
    char *sql;
    char **params; /**< n_params of them, NULL for null */
    int n_params;
    sql_shape shape;
} sql_query;

typedef struct sql_body {
    sql_query *queries;
    size_t n;
    bool is_batch;
} sql_body;

/**
 * Read a body: {"query", "params"} or {"queries": [...]}.
 * @param shape  What the headers say; a query's "arrayMode" overrides it.
 * @retval BOUGH_E_INVALID
 */
BOUGH_CHECK int sql_body_read(sql_body *body, const char *text, size_t size, const sql_shape *shape,
                              bough_error *err);
void sql_body_free(sql_body *body);

/**
 * Take the option FILECACHE out of "EXPLAIN (...)", in place. It is of Neon's PostgreSQL alone, and
 * the query tuning of Neon's MCP server always asks for it.
 */
void sql_body_drop_filecache(char *sql);

#endif
