/* Table origins. */
#include "model/query.h"

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_origin_row *row = record;
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 0);
    bough_query_text(row->lsn, sizeof row->lsn, stmt, 1);
    row->time_us = sqlite3_column_int64(stmt, 2);
}

int bough_origins_insert(bough_catalogue *cat, const bough_origin_row *row, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "INSERT INTO origins (branch_id, lsn, time_us) VALUES (?, ?, ?)", "ssi",
                           row->branch_id, row->lsn, row->time_us);
}

int bough_origins_get(bough_origin_row *row, bough_catalogue *cat, const char *branch,
                      bough_error *err) {
    return bough_query_one(row, sizeof *row, fill, cat, err,
                           "SELECT branch_id, lsn, time_us FROM origins WHERE branch_id = ?", "s",
                           branch);
}
