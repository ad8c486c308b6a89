/* Tables origins and swaps: where branches begin, and what a restore changes. */
#include "model/query.h"

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_origin_row *row = record;
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 0);
    bough_query_text(row->lsn, sizeof row->lsn, stmt, 1);
    row->time_us = sqlite3_column_int64(stmt, 2);
    row->restored_ms = sqlite3_column_int64(stmt, 3);
}

int bough_origins_insert(bough_catalogue *cat, const bough_origin_row *row, bough_error *err) {
    return bough_query_run(
        NULL, cat, err,
        "INSERT INTO origins (branch_id, lsn, time_us, restored_ms) VALUES (?, ?, ?, ?)", "ssii",
        row->branch_id, row->lsn, row->time_us, row->restored_ms);
}

int bough_origins_set(bough_catalogue *cat, const bough_origin_row *row, bough_error *err) {
    return bough_query_run(
        NULL, cat, err,
        "INSERT OR REPLACE INTO origins (branch_id, lsn, time_us, restored_ms) VALUES (?, ?, ?, ?)",
        "ssii", row->branch_id, row->lsn, row->time_us, row->restored_ms);
}

int bough_origins_move(bough_catalogue *cat, const char *from, const char *to, bough_error *err) {
    return bough_query_run(NULL, cat, err, "UPDATE origins SET branch_id = ? WHERE branch_id = ?",
                           "ss", to, from);
}

int bough_origins_forget(bough_catalogue *cat, const char *branch, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE origins SET lsn = '', time_us = 0 WHERE branch_id = ?", "s",
                           branch);
}

int bough_origins_get(bough_origin_row *row, bough_catalogue *cat, const char *branch,
                      bough_error *err) {
    return bough_query_one(
        row, sizeof *row, fill, cat, err,
        "SELECT branch_id, lsn, time_us, restored_ms FROM origins WHERE branch_id = ?", "s",
        branch);
}

/* ---- swaps ---- */

static void fill_swap(void *record, sqlite3_stmt *stmt) {
    bough_swap_row *row = record;
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 0);
    bough_query_text(row->project_id, sizeof row->project_id, stmt, 1);
    bough_query_text(row->incoming_id, sizeof row->incoming_id, stmt, 2);
    bough_query_text(row->source_id, sizeof row->source_id, stmt, 3);
    bough_query_text(row->preserve_name, sizeof row->preserve_name, stmt, 4);
    bough_query_text(row->lsn, sizeof row->lsn, stmt, 5);
    row->time_us = sqlite3_column_int64(stmt, 6);
    bough_query_text(row->endpoint_id, sizeof row->endpoint_id, stmt, 7);
}

int bough_swaps_insert(bough_catalogue *cat, const bough_swap_row *row, bough_error *err) {
    return bough_query_run(
        NULL, cat, err,
        "INSERT INTO swaps (branch_id, project_id, incoming_id, source_id,"
        " preserve_name, lsn, time_us, endpoint_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        "ssssssis", row->branch_id, row->project_id, row->incoming_id, row->source_id,
        row->preserve_name, row->lsn, row->time_us, row->endpoint_id);
}

int bough_swaps_list(bough_swap_row **rows, size_t *n, bough_catalogue *cat, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill_swap, cat, err,
                              "SELECT branch_id, project_id, incoming_id, source_id, preserve_name,"
                              " lsn, time_us, endpoint_id FROM swaps",
                              "");
    *rows = records;
    return rc;
}

int bough_swaps_has(bool *has, bough_catalogue *cat, const char *branch, bough_error *err) {
    return bough_query_one(has, sizeof *has, bough_fill_bool, cat, err,
                           "SELECT EXISTS (SELECT 1 FROM swaps WHERE branch_id = ?)", "s", branch);
}

int bough_swaps_delete(bough_catalogue *cat, const char *branch, bough_error *err) {
    return bough_query_run(NULL, cat, err, "DELETE FROM swaps WHERE branch_id = ?", "s", branch);
}

int bough_branches_set_parent(bough_catalogue *cat, const char *id, const char *parent,
                              bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE branches SET parent_id = ?, updated_ms = ? WHERE id = ?", "sis",
                           parent, bough_now_epoch_ms(), id);
}

int bough_branches_move_children(bough_catalogue *cat, const char *from, const char *to,
                                 bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE branches SET parent_id = ?1 WHERE parent_id = ?2 AND id <> ?1",
                           "ss", to, from);
}

int bough_branches_replace_contents(bough_catalogue *cat, const char *from, const char *to,
                                    bough_error *err) {
    int rc = bough_query_run(NULL, cat, err, "DELETE FROM roles WHERE branch_id = ?", "s", to);
    if (!rc)
        rc = bough_query_run(NULL, cat, err, "DELETE FROM databases WHERE branch_id = ?", "s", to);
    return rc ? rc : bough_branches_copy_contents(cat, from, to, err);
}
