/*
 * Cursors. Of projects: CREATED.ID; of branches: BY.BEGUN.KEY.ID, where BY is a letter of
 * pages_order and KEY a name in hexadecimal or a time. No state.
 */
#include "server/pages.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail_cursor(bough_error *err) {
    (void)bough_fail(err, BOUGH_E_INVALID, "\"cursor\" is not of a page of this list");
    return bough_hint(err, "Leave it out to begin with the first page.");
}

/* A number and the dot behind it. */
static bool take_number(int64_t *out, const char **at) {
    char *end;
    if (!isdigit((unsigned char)**at)) return false;
    errno = 0;
    *out = strtoll(*at, &end, 10);
    if (errno || *end != '.') return false;
    *at = end + 1;
    return true;
}

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A text in hexadecimal and the dot behind it. */
static bool take_name(char *out, size_t size, const char **at) {
    size_t n = 0;
    const char *p = *at;
    for (; *p != '.' && n + 1 < size; p += 2) {
        int high = digit(p[0]), low = high < 0 ? -1 : digit(p[1]);
        if (low < 0 || high + low == 0) return false;
        out[n++] = (char)(high * 16 + low);
    }
    out[n] = '\0';
    *at = p + 1;
    return *p == '.' && n > 0;
}

static bool take_id(char *out, const char *at) {
    size_t n = strlen(at);
    if (n == 0 || n >= BOUGH_ID_SIZE) return false;
    memcpy(out, at, n + 1);
    return true;
}

/* ---- projects ---- */

int pages_read_project(bough_project_place *place, const char *cursor, bough_error *err) {
    return take_number(&place->created_ms, &cursor) && take_id(place->id, cursor)
               ? BOUGH_OK
               : fail_cursor(err);
}

void pages_write_project(char *cursor, const bough_project_row *last) {
    (void)snprintf(cursor, PAGES_CURSOR_SIZE, "%lld.%s", (long long)last->created_ms, last->id);
}

/* ---- branches ---- */

int pages_order_of(pages_order *order, const request *rq, bough_error *err) {
    const char *by = request_query(rq, "sort_by"), *direction = request_query(rq, "sort_order");
    *order = (pages_order){.by = 'u', .is_descending = true};
    if (by && strcmp(by, "name") != 0 && strcmp(by, "created_at") != 0 &&
        strcmp(by, "updated_at") != 0)
        return bough_fail(err, BOUGH_E_INVALID,
                          "\"sort_by\" must be name, created_at or updated_at");
    if (direction && strcmp(direction, "asc") != 0 && strcmp(direction, "desc") != 0)
        return bough_fail(err, BOUGH_E_INVALID, "\"sort_order\" must be asc or desc");
    if (by) order->by = *by;
    order->is_descending = !direction || strcmp(direction, "desc") == 0;
    return BOUGH_OK;
}

static int compare_ms(int64_t a, int64_t b) {
    return (a > b) - (a < b);
}

static int compare(const void *left, const void *right, void *context) {
    const bough_branch_row *a = left, *b = right;
    const pages_order *o = context;
    bool is_late_a = o->by == 'u' && o->is_descending && a->updated_ms > o->begun_ms;
    bool is_late_b = o->by == 'u' && o->is_descending && b->updated_ms > o->begun_ms;
    if (is_late_a != is_late_b) return is_late_a ? 1 : -1;
    int way = o->by == 'n'   ? strcmp(a->name, b->name)
              : o->by == 'c' ? compare_ms(a->created_ms, b->created_ms)
                             : compare_ms(a->updated_ms, b->updated_ms);
    if (way == 0) way = strcmp(a->id, b->id);
    /* of what was changed since, the last comes last: it is met, however often it changes */
    return o->is_descending && !is_late_a ? -way : way;
}

static bool read_branch(bough_branch_row *last, pages_order *order, const char *cursor) {
    if (cursor[0] != order->by || cursor[1] != '.') return false;
    cursor += 2;
    if (!take_number(&order->begun_ms, &cursor)) return false;
    if (order->by == 'n')
        return take_name(last->name, sizeof last->name, &cursor) && take_id(last->id, cursor);
    return take_number(order->by == 'c' ? &last->created_ms : &last->updated_ms, &cursor) &&
           take_id(last->id, cursor);
}

int pages_sort_branches(size_t *first, bough_branch_row *rows, size_t n, pages_order *order,
                        const char *cursor, bough_error *err) {
    bough_branch_row last = {0};
    bool is_first = !cursor || !*cursor;
    *first = 0;
    if (!is_first && !read_branch(&last, order, cursor)) return fail_cursor(err);
    for (size_t i = 0; is_first && i < n; i++)
        if (rows[i].updated_ms > order->begun_ms) order->begun_ms = rows[i].updated_ms;
    if (n > 1) qsort_r(rows, n, sizeof *rows, compare, order);
    while (!is_first && *first < n && compare(&rows[*first], &last, order) <= 0) ++*first;
    return BOUGH_OK;
}

void pages_write_branch(char *cursor, const pages_order *order, const bough_branch_row *last) {
    size_t room = PAGES_CURSOR_SIZE;
    int at = snprintf(cursor, room, "%c.%lld.", order->by, (long long)order->begun_ms);
    if (order->by == 'n')
        for (const char *p = last->name; *p; p++)
            at += snprintf(cursor + at, room - (size_t)at, "%02x", (unsigned)(unsigned char)*p);
    else
        at += snprintf(cursor + at, room - (size_t)at, "%lld",
                       (long long)(order->by == 'c' ? last->created_ms : last->updated_ms));
    (void)snprintf(cursor + at, room - (size_t)at, ".%s", last->id);
}
