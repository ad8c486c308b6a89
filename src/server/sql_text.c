/*
 * Writing the answers of POST /sql.
 *
 * Type oids are those of pg_type.dat, which never change: 16 bool, 20 int8, 21 int2, 23 int4,
 * 114 json, 700 float4, 701 float8, 3802 jsonb; arrays 199, 1000, 1005, 1007, 1021, 1022, 3807.
 * int8 and numeric stay strings: JavaScript's numbers would lose digits of them.
 */
#include "server/sql_text.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/utf8.h"

void sql_text_add(sql_text *t, const char *data, size_t size) {
    if (t->is_full || t->is_failed) return;
    if (t->size + size >= SQL_ANSWER_MAX) {
        t->is_full = true;
        return;
    }
    if (t->size + size + 1 > t->room) {
        size_t room = t->room ? t->room : 4096;
        while (room < t->size + size + 1) room *= 2;
        char *grown = realloc(t->data, room);
        if (!grown) {
            t->is_failed = true;
            return;
        }
        t->data = grown;
        t->room = room;
    }
    memcpy(t->data + t->size, data, size);
    t->size += size;
    t->data[t->size] = '\0';
}

static void add(sql_text *t, const char *text) {
    sql_text_add(t, text, strlen(text));
}

void sql_text_format(sql_text *t, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    add(t, text);
}

static void add_escaped(sql_text *t, unsigned char c) {
    static const char letters[] = "btn?fr"; /* 8, 9, 10, 12, 13 */
    if (c == '"' || c == '\\')
        sql_text_format(t, "\\%c", c);
    else if (c >= 8 && c <= 13 && c != 11)
        sql_text_format(t, "\\%c", letters[c - 8]);
    else
        sql_text_format(t, "\\u%04x", c);
}

void sql_text_string(sql_text *t, const char *data, size_t size) {
    const unsigned char *bytes = (const unsigned char *)data;
    size_t from = 0, at = 0;
    sql_text_add(t, "\"", 1);
    while (at < size) {
        size_t n = bough_utf8_length(data + at, size - at);
        bool is_plain =
            n > 1 || (n == 1 && bytes[at] >= 0x20 && bytes[at] != '"' && bytes[at] != '\\');
        if (is_plain) {
            at += n;
            continue;
        }
        sql_text_add(t, data + from, at - from);
        if (n == 0)
            add(t, "\xef\xbf\xbd");
        else
            add_escaped(t, bytes[at]);
        from = ++at;
    }
    sql_text_add(t, data + from, at - from);
    sql_text_add(t, "\"", 1);
}

static void add_string(sql_text *t, const char *text) {
    sql_text_string(t, text, strlen(text));
}

/* ---- values ---- */

typedef enum kind { KIND_TEXT, KIND_BOOL, KIND_NUMBER, KIND_JSON } kind;

static kind kind_of(Oid type, bool *is_array) {
    *is_array = false;
    switch (type) {
    case 1000:
        *is_array = true;
        return KIND_BOOL;
    case 16:
        return KIND_BOOL;
    case 1005:
    case 1007:
    case 1021:
    case 1022:
        *is_array = true;
        return KIND_NUMBER;
    case 21:
    case 23:
    case 700:
    case 701:
        return KIND_NUMBER;
    case 199:
    case 3807:
        *is_array = true;
        return KIND_JSON;
    case 114:
    case 3802:
        return KIND_JSON;
    case 1001: /* bytea */
    case 1009: /* text */
    case 1014: /* bpchar */
    case 1015: /* varchar */
    case 1016: /* int8 */
    case 1115: /* timestamp */
    case 1182: /* date */
    case 1185: /* timestamptz */
    case 1231: /* numeric */
    case 2951: /* uuid */
        *is_array = true;
        return KIND_TEXT;
    default:
        return KIND_TEXT;
    }
}

static void add_value(sql_text *t, kind k, const char *data, size_t size) {
    if (k == KIND_BOOL && size == 1 && (*data == 't' || *data == 'f'))
        add(t, *data == 't' ? "true" : "false");
    else if (k == KIND_JSON ||
             (k == KIND_NUMBER && size > 0 && isdigit((unsigned char)data[size - 1])))
        sql_text_add(t, data, size); /* as PostgreSQL writes it, it is JSON */
    else
        sql_text_string(t, data, size); /* NaN and Infinity, too */
}

static const char *add_array(sql_text *t, kind k, const char *p);

/* One element of an array. Returns where it ended, NULL where it is none. */
static const char *add_element(sql_text *t, kind k, const char *p) {
    if (*p == '{') return add_array(t, k, p);
    if (*p == '"') {
        sql_text plain = {0};
        for (p++; *p && *p != '"'; p++) {
            if (*p == '\\' && p[1]) p++;
            sql_text_add(&plain, p, 1);
        }
        add_value(t, k, plain.data ? plain.data : "", plain.size);
        t->is_failed |= plain.is_failed;
        free(plain.data);
        return *p == '"' ? p + 1 : NULL;
    }
    size_t n = strcspn(p, ",{}\"");
    if (n == 4 && memcmp(p, "NULL", 4) == 0)
        add(t, "null");
    else
        add_value(t, k, p, n);
    return n > 0 ? p + n : NULL;
}

/*
 * An array in PostgreSQL's text form (array_out()) as JSON's. Returns where it ended, NULL where it
 * is none.
 */
static const char *add_array(sql_text *t, kind k, const char *p) {
    if (*p++ != '{') return NULL;
    sql_text_add(t, "[", 1);
    while (*p != '}') {
        p = add_element(t, k, p);
        if (!p || (*p != ',' && *p != '}')) return NULL;
        if (*p == '}') break;
        sql_text_add(t, ",", 1);
        if (*++p == '}') return NULL;
    }
    sql_text_add(t, "]", 1);
    return p + 1;
}

/* The same, whole; bounds ("[0:1]=") are skipped. */
static bool add_whole_array(sql_text *t, kind k, const char *p) {
    if (*p == '[' && (p = strchr(p, '='))) p++;
    p = p ? add_array(t, k, p) : NULL;
    return p && *p == '\0';
}

static void add_cell(sql_text *t, const PGresult *result, int row, int column, bool is_raw) {
    const char *data = PQgetvalue(result, row, column);
    size_t size = (size_t)PQgetlength(result, row, column), before = t->size;
    bool is_array = false;
    if (PQgetisnull(result, row, column)) {
        add(t, "null");
        return;
    }
    kind k = is_raw ? KIND_TEXT : kind_of(PQftype(result, column), &is_array);
    if (is_array && add_whole_array(t, k, data)) return;
    if (is_array) t->size = before; /* no array after all */
    add_value(t, is_array ? KIND_TEXT : k, data, size);
}

/* ---- results ---- */

void sql_text_fields(sql_text *t, const PGresult *result) {
    sql_text_add(t, "[", 1);
    for (int i = 0; i < PQnfields(result); i++) {
        add(t, i ? ",{\"name\":" : "{\"name\":");
        add_string(t, PQfname(result, i));
        sql_text_format(t,
                        ",\"dataTypeID\":%u,\"tableID\":%u,\"columnID\":%d,\"dataTypeSize\":%d,"
                        "\"dataTypeModifier\":%d,\"format\":\"text\"}",
                        PQftype(result, i), PQftable(result, i), PQftablecol(result, i),
                        PQfsize(result, i), PQfmod(result, i));
    }
    sql_text_add(t, "]", 1);
}

/* A column's name is that of a later one, too: an object shows the last. */
static bool is_hidden(const PGresult *result, int column) {
    for (int i = column + 1; i < PQnfields(result); i++)
        if (strcmp(PQfname(result, i), PQfname(result, column)) == 0) return true;
    return false;
}

void sql_text_row(sql_text *t, const PGresult *result, int row, const sql_shape *shape) {
    bool is_first = true;
    add(t, shape->is_array ? "[" : "{");
    for (int i = 0; i < PQnfields(result); i++) {
        if (!shape->is_array && is_hidden(result, i)) continue;
        if (!is_first) sql_text_add(t, ",", 1);
        is_first = false;
        if (!shape->is_array) {
            add_string(t, PQfname(result, i));
            sql_text_add(t, ":", 1);
        }
        add_cell(t, result, row, i, shape->is_raw);
    }
    add(t, shape->is_array ? "]" : "}");
}

void sql_text_tag(sql_text *t, const char *tag, const sql_shape *shape) {
    size_t n = strcspn(tag, " ");
    const char *count = strrchr(tag, ' '); /* after INSERT's oid, too */
    add(t, "\"command\":");
    sql_text_string(t, tag, n);
    if (count && isdigit((unsigned char)count[1]))
        sql_text_format(t, ",\"rowCount\":%.20s", count + 1);
    else
        add(t, ",\"rowCount\":null");
    sql_text_format(t, ",\"rowAsArray\":%s", shape->is_array ? "true" : "false");
}

void sql_text_error(sql_text *t, const PGresult *result) {
    static const struct {
        const char *name;
        int field;
    } members[] = {{"code", PG_DIAG_SQLSTATE},
                   {"detail", PG_DIAG_MESSAGE_DETAIL},
                   {"hint", PG_DIAG_MESSAGE_HINT},
                   {"position", PG_DIAG_STATEMENT_POSITION},
                   {"internalPosition", PG_DIAG_INTERNAL_POSITION},
                   {"internalQuery", PG_DIAG_INTERNAL_QUERY},
                   {"severity", PG_DIAG_SEVERITY_NONLOCALIZED},
                   {"where", PG_DIAG_CONTEXT},
                   {"schema", PG_DIAG_SCHEMA_NAME},
                   {"table", PG_DIAG_TABLE_NAME},
                   {"column", PG_DIAG_COLUMN_NAME},
                   {"dataType", PG_DIAG_DATATYPE_NAME},
                   {"constraint", PG_DIAG_CONSTRAINT_NAME},
                   {"file", PG_DIAG_SOURCE_FILE},
                   {"line", PG_DIAG_SOURCE_LINE},
                   {"routine", PG_DIAG_SOURCE_FUNCTION}};
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    add(t, "{\"message\":");
    add_string(t, message ? message : PQresultErrorMessage(result));
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const char *value = PQresultErrorField(result, members[i].field);
        sql_text_format(t, ",\"%s\":", members[i].name);
        if (value)
            add_string(t, value);
        else
            add(t, "null");
    }
    sql_text_add(t, "}", 1);
}
