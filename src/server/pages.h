/**
 * Lists page by page. A cursor tells where the page before has ended in the order of the list, by
 * what the list is sorted by and the id: so it stays right whatever has been made, changed or
 * deleted meanwhile, the record itself included. To clients it is opaque. Any thread.
 */
#ifndef BOUGH_SERVER_PAGES_H
#define BOUGH_SERVER_PAGES_H

#include "model/catalogue.h"
#include "server/http.h"

enum {
    PAGES_CURSOR_SIZE = 2 * BOUGH_NAME_SIZE + BOUGH_ID_SIZE + 64 /**< a name is in hexadecimal */
};

/** What branches are sorted by. */
typedef struct pages_order {
    char by; /**< 'n'ame, 'c'reated or 'u'pdated */
    bool is_descending;
    int64_t begun_ms; /**< the latest change that the first page could know of */
} pages_order;

/**
 * The place in the list of projects that a cursor tells.
 * @retval BOUGH_E_INVALID  It is none of that list.
 */
BOUGH_CHECK int pages_read_project(bough_project_place *place, const char *cursor,
                                   bough_error *err);
/** @param[out] cursor  PAGES_CURSOR_SIZE bytes. */
void pages_write_project(char *cursor, const bough_project_row *last);

/** What a request asks for in "sort_by" and "sort_order". */
BOUGH_CHECK int pages_order_of(pages_order *order, const request *rq, bough_error *err);

/**
 * Sort branches, and find where the page begins.
 *
 * Newest change first, what is changed after the first page would come before what has been told
 * already, and be missed: it comes at the end instead.
 *
 * @param[out] first  Index of the page's first branch; `n` where there is none.
 * @param order       Of pages_order_of(); begun_ms is set.
 * @param cursor      NULL or "" for the first page.
 * @retval BOUGH_E_INVALID  The cursor is none of that list, in that order.
 */
BOUGH_CHECK int pages_sort_branches(size_t *first, bough_branch_row *rows, size_t n,
                                    pages_order *order, const char *cursor, bough_error *err);
/** @param[out] cursor  PAGES_CURSOR_SIZE bytes. */
void pages_write_branch(char *cursor, const pages_order *order, const bough_branch_row *last);

#endif
