/* Table api_keys. */
#include <string.h>

#include "model/query.h"

#define COLUMNS                                                                                    \
    "id, name, hash, is_local, is_read_only, project_id, branch_id, created_ms, expires_ms,"       \
    " last_used_ms, last_used_from"

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_api_key_row *row = record;
    row->id = sqlite3_column_int64(stmt, 0);
    bough_query_text(row->name, sizeof row->name, stmt, 1);
    bough_query_text(row->hash, sizeof row->hash, stmt, 2);
    row->is_local = sqlite3_column_int(stmt, 3) != 0;
    row->is_read_only = sqlite3_column_int(stmt, 4) != 0;
    bough_query_text(row->project_id, sizeof row->project_id, stmt, 5);
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 6);
    row->created_ms = sqlite3_column_int64(stmt, 7);
    row->expires_ms = sqlite3_column_int64(stmt, 8);
    row->last_used_ms = sqlite3_column_int64(stmt, 9);
    bough_query_text(row->last_used_from, sizeof row->last_used_from, stmt, 10);
}

int bough_api_keys_set_local(bough_catalogue *cat, const char *name, const char *hash,
                             bough_error *err) {
    int rc = bough_catalogue_begin(cat, err);
    if (rc) return rc;
    rc = bough_query_run(NULL, cat, err, "DELETE FROM api_keys WHERE is_local OR hash = ?", "s",
                         hash);
    if (!rc)
        rc = bough_query_run(
            NULL, cat, err,
            "INSERT INTO api_keys (name, hash, is_local, created_ms) VALUES (?, ?, 1, ?)", "ssi",
            name, hash, bough_now_epoch_ms());
    return bough_catalogue_end(cat, rc, err);
}

int bough_api_keys_insert(bough_catalogue *cat, bough_api_key_row *row, bough_error *err) {
    int rc = bough_query_run(NULL, cat, err,
                             "INSERT INTO api_keys (name, hash, is_read_only, project_id,"
                             " branch_id, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
                             "ssittii", row->name, row->hash, (int64_t)row->is_read_only,
                             row->project_id, row->branch_id, row->created_ms, row->expires_ms);
    return rc ? rc
              : bough_query_one(row, sizeof *row, fill, cat, err,
                                "SELECT " COLUMNS " FROM api_keys WHERE hash = ?", "s", row->hash);
}

int bough_api_keys_list(bough_api_key_row **rows, size_t *n, bough_catalogue *cat,
                        bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              "SELECT " COLUMNS " FROM api_keys ORDER BY id", "");
    *rows = records;
    return rc;
}

int bough_api_keys_delete(bough_catalogue *cat, int64_t id, bough_error *err) {
    int changes = 0;
    int rc = bough_query_run(&changes, cat, err,
                             "DELETE FROM api_keys WHERE id = ? AND NOT is_local", "i", id);
    if (!rc && changes == 0)
        rc = bough_fail(err, BOUGH_E_NOTFOUND, "no API key has the id %lld", (long long)id);
    return rc;
}

int bough_api_keys_set_used(bough_catalogue *cat, const bough_api_key_row *row, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE api_keys SET last_used_ms = ?, last_used_from = ? WHERE id = ?",
                           "isi", row->last_used_ms, row->last_used_from, row->id);
}
