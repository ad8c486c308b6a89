/* libFuzzer target: the body of POST /sql and what is made of it (src/server/sql_body.h,
 * sql_text.h). Traps where a promise is broken.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "server/sql_body.h"

/* Whatever goes in, what comes out is one JSON string. */
static void try_string(const char *data, size_t size) {
    sql_text t = {0};
    sql_text_string(&t, data, size);
    if (t.is_full || t.is_failed || !t.data) __builtin_trap();
    json_t *back = json_loads(t.data, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!json_is_string(back)) __builtin_trap();
    json_decref(back);
    free(t.data);
}

/* The statement keeps its length; only blanks come in. */
static void try_explain(const char *text) {
    char *copy = strdup(text);
    if (!copy) abort();
    sql_body_drop_filecache(copy);
    if (strlen(copy) != strlen(text)) __builtin_trap();
    for (size_t i = 0; text[i]; i++)
        if (copy[i] != text[i] && copy[i] != ' ') __builtin_trap();
    free(copy);
}

/* A row with the text as value of a type that is shown as something else. */
static void try_row(const char *text, Oid type) {
    PGresAttDesc column = {.name = (char[]){"c"}, .typid = type, .typlen = -1};
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    char *value = strdup(text);
    sql_text t = {0};
    const sql_shape shape = {false, false};
    if (!result || !value || !PQsetResultAttrs(result, 1, &column) ||
        !PQsetvalue(result, 0, 0, value, (int)strlen(value)))
        abort();
    sql_text_row(&t, result, 0, &shape);
    if (t.is_failed || !t.data) abort();
    json_t *back = json_loads(t.data, 0, NULL);
    /* text arrays and booleans are always JSON; numbers and json are as good as PostgreSQL's */
    if ((type == 1009 || type == 1000 || type == 16) && !json_is_object(back)) __builtin_trap();
    json_decref(back);
    PQclear(result);
    free(value);
    free(t.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const Oid types[] = {16, 23, 114, 1000, 1007, 1009, 3807};
    const sql_shape shape = {false, true};
    sql_body body;
    char *text = malloc(size + 1);
    if (!text) abort();
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    if (sql_body_read(&body, text, size, &shape, NULL) == BOUGH_OK) {
        for (size_t i = 0; i < body.n; i++)
            if (!body.queries[i].sql) __builtin_trap();
        sql_body_free(&body);
    }
    if (body.queries) __builtin_trap();
    try_string(text, size);
    try_explain(text);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) try_row(text, types[i]);
    free(text);
    return 0;
}
