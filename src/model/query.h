/**
 * Inside src/model: statements with parameters, and rows into structs.
 *
 * Parameters are described by a string, one letter each: s text (NULL: null), t text ("": null), i
 * int64_t, b blob (pointer, size_t; size 0: null).
 */
#ifndef BOUGH_MODEL_QUERY_H
#define BOUGH_MODEL_QUERY_H

#include <sqlite3.h>

#include "model/catalogue.h"

/** No list is longer. */
#define BOUGH_ROWS_MAX 1000000

/** Whether a restore that is under way keeps a name for another branch than `id`. */
#define BOUGH_NAME_IS_RESERVED(project, name, id)                                                  \
    "EXISTS (SELECT 1 FROM swaps s WHERE s.project_id = " project " AND s.preserve_name = " name   \
    " AND s.incoming_id <> " id ")"

/** Read the current row of a statement into a zeroed record. */
typedef void (*bough_row_fill)(void *record, sqlite3_stmt *stmt);

/** Run a statement that gives no rows. A broken UNIQUE gives BOUGH_E_CONFLICT. `changes` may be
 * NULL. */
BOUGH_CHECK int bough_query_run(int *changes, bough_catalogue *cat, bough_error *err,
                                const char *sql, const char *params, ...);

/** Read all rows into one allocation of records. */
BOUGH_CHECK int bough_query_rows(void **records, size_t *n, size_t record_size, bough_row_fill fill,
                                 bough_catalogue *cat, bough_error *err, const char *sql,
                                 const char *params, ...);

/** Read at most one row into `record`. BOUGH_E_NOTFOUND without message when there is none. */
BOUGH_CHECK int bough_query_one(void *record, size_t record_size, bough_row_fill fill,
                                bough_catalogue *cat, bough_error *err, const char *sql,
                                const char *params, ...);

/** (bough_row_fill) The one column of a row, into a bool or an int64_t. */
void bough_fill_bool(void *record, sqlite3_stmt *stmt);
void bough_fill_count(void *record, sqlite3_stmt *stmt);

/** Copy a text column; NULL becomes "". */
void bough_query_text(char *out, size_t size, sqlite3_stmt *stmt, int column);

#endif
