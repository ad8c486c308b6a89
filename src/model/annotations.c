/* Table annotations. */
#include "model/query.h"

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_annotation_row *row = record;
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 0);
    bough_query_text(row->value, sizeof row->value, stmt, 1);
    row->created_ms = sqlite3_column_int64(stmt, 2);
}

int bough_annotations_insert(bough_catalogue *cat, const char *branch, const char *value,
                             bough_error *err) {
    return bough_query_run(
        NULL, cat, err, "INSERT INTO annotations (branch_id, value, created_ms) VALUES (?, ?, ?)",
        "ssi", branch, value, bough_now_epoch_ms());
}

int bough_annotations_list(bough_annotation_row **rows, size_t *n, bough_catalogue *cat,
                           const char *project, const char *branch, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              "SELECT branch_id, value, a.created_ms FROM annotations a JOIN"
                              " branches b ON b.id = branch_id WHERE project_id = ?1 AND"
                              " (?2 IS NULL OR branch_id = ?2)",
                              "st", project, branch);
    *rows = records;
    return rc;
}
