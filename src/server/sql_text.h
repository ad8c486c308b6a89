/**
 * Writing the answers of POST /sql: JSON as text, within a limit, without a tree in between. One
 * thread.
 */
#ifndef BOUGH_SERVER_SQL_TEXT_H
#define BOUGH_SERVER_SQL_TEXT_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

/** No answer is larger: Neon's limit. */
#define SQL_ANSWER_MAX ((size_t)10 * 1024 * 1024)

/** A growing text; initialise with zeros, free `data`. */
typedef struct sql_text {
    char *data;
    size_t size, room;
    bool is_full;   /**< it would be larger than SQL_ANSWER_MAX */
    bool is_failed; /**< out of memory */
} sql_text;

/** Add bytes as they are. */
void sql_text_add(sql_text *t, const char *data, size_t size);
/** Add a formatted text that is short. */
void sql_text_format(sql_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** Add a JSON string. What is not UTF-8 becomes U+FFFD. */
void sql_text_string(sql_text *t, const char *data, size_t size);

/** How rows are shown. */
typedef struct sql_shape {
    bool is_array; /**< rows are arrays, not objects */
    bool is_raw;   /**< values are PostgreSQL's text, not JSON's numbers, booleans and so on */
} sql_shape;

/** Add the array of fields of a result. */
void sql_text_fields(sql_text *t, const PGresult *result);
/** Add one row. */
void sql_text_row(sql_text *t, const PGresult *result, int row, const sql_shape *shape);

/**
 * Add the members "command", "rowCount" and "rowAsArray".
 * @param tag  "INSERT 0 1"
 */
void sql_text_tag(sql_text *t, const char *tag, const sql_shape *shape);

/** Add the object that tells of PostgreSQL's error: message, code, detail, hint, ... */
void sql_text_error(sql_text *t, const PGresult *result);

#endif
