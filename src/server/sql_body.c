/* Reading what POST /sql is asked. */
#include "server/sql_body.h"
#include "util/jsontext.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NESTING_MAX 6 /* MAXDIM of PostgreSQL's arrays */

/* ---- EXPLAIN (..., FILECACHE, ...) ---- */

static char *skip_space(char *p) {
    while (isspace((unsigned char)*p)) p++;
    return p;
}

/* One option of the list: from `p` up to its ',' or ')'. */
static bool is_filecache(const char *p, size_t size) {
    static const char word[] = "FILECACHE";
    while (size && isspace((unsigned char)*p)) p++, size--;
    return size >= sizeof word - 1 && strncasecmp(p, word, sizeof word - 1) == 0 &&
           (size == sizeof word - 1 || isspace((unsigned char)p[sizeof word - 1]));
}

void sql_body_drop_filecache(char *sql) {
    char *p = skip_space(sql);
    if (strncasecmp(p, "EXPLAIN", 7) != 0) return;
    char *list = skip_space(p + 7), *end = strchr(list, ')');
    if (*list != '(' || !end) return;
    for (char *at = list + 1; at < end;) {
        size_t n = strcspn(at, ",)");
        if (!is_filecache(at, n)) {
            at += n + 1;
            continue;
        }
        char *from = at, *to = at + n;
        if (*to == ',')
            to++; /* with the comma after it */
        else if (from[-1] == ',')
            from--; /* it was the last */
        else
            from--, to++;                       /* it was the only one: without the parentheses */
        memset(from, ' ', (size_t)(to - from)); /* positions in errors stay true */
        return;
    }
}

/* ---- parameters ---- */

static int add_json(sql_text *t, const json_t *value, int depth);

/* An element of an array: quoted, as array_in() reads it. */
static int add_element(sql_text *t, const json_t *value, int depth) {
    if (json_is_null(value)) {
        sql_text_add(t, "NULL", 4);
        return 0;
    }
    if (json_is_array(value)) return add_json(t, value, depth + 1);
    sql_text plain = {0};
    int failed = add_json(&plain, value, depth);
    sql_text_add(t, "\"", 1);
    for (size_t i = 0; i < plain.size; i++) {
        if (plain.data[i] == '"' || plain.data[i] == '\\') sql_text_add(t, "\\", 1);
        sql_text_add(t, plain.data + i, 1);
    }
    sql_text_add(t, "\"", 1);
    failed |= plain.is_full || plain.is_failed;
    free(plain.data);
    return failed;
}

static int add_json(sql_text *t, const json_t *value, int depth) {
    if (depth > NESTING_MAX) return 1;
    if (json_is_string(value)) {
        sql_text_add(t, json_string_value(value), json_string_length(value));
        return strlen(json_string_value(value)) != json_string_length(value);
    }
    if (json_is_array(value)) {
        int failed = 0;
        sql_text_add(t, "{", 1);
        for (size_t i = 0; i < json_array_size(value) && !failed; i++) {
            if (i) sql_text_add(t, ",", 1);
            failed = add_element(t, json_array_get(value, i), depth);
        }
        sql_text_add(t, "}", 1);
        return failed;
    }
    char *text = bough_json_text_of(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text) return 1;
    sql_text_add(t, text, strlen(text));
    free(text);
    return 0;
}

static int read_params(sql_query *q, const json_t *params, bough_error *err) {
    if (!params || json_is_null(params)) return BOUGH_OK;
    if (!json_is_array(params) || json_array_size(params) > SQL_PARAMS_MAX)
        return bough_fail(err, BOUGH_E_INVALID, "\"params\" must be an array of at most %d values",
                          SQL_PARAMS_MAX);
    q->n_params = (int)json_array_size(params);
    q->params = calloc((size_t)q->n_params + 1, sizeof *q->params);
    if (!q->params) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (int i = 0; i < q->n_params; i++) {
        const json_t *value = json_array_get(params, (size_t)i);
        sql_text t = {0};
        if (json_is_null(value)) continue;
        int failed = add_json(&t, value, 0);
        sql_text_add(&t, "", 0); /* an empty one has memory, too */
        q->params[i] = t.data;
        if (failed || t.is_full || t.is_failed || !t.data)
            return bough_fail(err, BOUGH_E_INVALID, "parameter %d cannot be read", i + 1);
    }
    return BOUGH_OK;
}

static int read_query(sql_query *q, const json_t *object, const sql_shape *shape,
                      bough_error *err) {
    const json_t *sql = json_object_get(object, "query"), *mode;
    q->shape = *shape;
    if (!json_is_string(sql) || strlen(json_string_value(sql)) != json_string_length(sql))
        return bough_fail(err, BOUGH_E_INVALID, "\"query\" must be a string");
    mode = json_object_get(object, "arrayMode");
    if (mode && !json_is_null(mode) && !json_is_boolean(mode))
        return bough_fail(err, BOUGH_E_INVALID, "\"arrayMode\" must be true or false");
    if (json_is_boolean(mode)) q->shape.is_array = json_is_true(mode);
    q->sql = strdup(json_string_value(sql));
    if (!q->sql) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    sql_body_drop_filecache(q->sql);
    return read_params(q, json_object_get(object, "params"), err);
}

int sql_body_read(sql_body *body, const char *text, size_t size, const sql_shape *shape,
                  bough_error *err) {
    json_error_t error;
    *body = (sql_body){0};
    json_t *root = bough_json_load(text, size, JSON_ALLOW_NUL, &error);
    if (!root && bough_json_lacked_memory(&error))
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!json_is_object(root)) {
        json_decref(root);
        return bough_fail(err, BOUGH_E_INVALID, "the body is not a JSON object%s%.100s",
                          root ? "" : ": ", root ? "" : error.text);
    }
    const json_t *queries = json_object_get(root, "queries");
    body->is_batch = queries != NULL;
    int rc = BOUGH_OK;
    if (queries && !json_is_array(queries))
        rc = bough_fail(err, BOUGH_E_INVALID, "\"queries\" must be an array");
    size_t n = queries ? json_array_size(queries) : 1;
    if (!rc && !(body->queries = calloc(n + 1, sizeof *body->queries)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (; !rc && body->n < n; body->n++)
        rc = read_query(&body->queries[body->n], queries ? json_array_get(queries, body->n) : root,
                        shape, err);
    json_decref(root);
    if (rc) sql_body_free(body);
    return rc;
}

void sql_body_free(sql_body *body) {
    for (size_t i = 0; body->queries && i < body->n; i++) {
        sql_query *q = &body->queries[i];
        for (int k = 0; k < q->n_params; k++) free(q->params ? q->params[k] : NULL);
        free(q->params);
        free(q->sql);
    }
    free(body->queries);
    *body = (sql_body){0};
}
