/* Table operations. */
#include "model/query.h"

#define COLUMNS                                                                                    \
    "seq, id, project_id, branch_id, endpoint_id, action, status, failure, created_ms, "           \
    "updated_ms, duration_ms"

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_operation_row *row = record;
    row->seq = sqlite3_column_int64(stmt, 0);
    bough_query_text(row->id, sizeof row->id, stmt, 1);
    bough_query_text(row->project_id, sizeof row->project_id, stmt, 2);
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 3);
    bough_query_text(row->endpoint_id, sizeof row->endpoint_id, stmt, 4);
    bough_query_text(row->action, sizeof row->action, stmt, 5);
    bough_query_text(row->status, sizeof row->status, stmt, 6);
    bough_query_text(row->failure, sizeof row->failure, stmt, 7);
    row->created_ms = sqlite3_column_int64(stmt, 8);
    row->updated_ms = sqlite3_column_int64(stmt, 9);
    row->duration_ms = sqlite3_column_int64(stmt, 10);
}

int bough_operations_insert(bough_catalogue *cat, const bough_operation_row *row,
                            bough_error *err) {
    return bough_query_run(
        NULL, cat, err,
        "INSERT INTO operations (id, project_id, branch_id, endpoint_id, action, status,"
        " failure, created_ms, updated_ms, duration_ms) VALUES (?,?,?,?,?,?,?,?,?,?)",
        "ssttsstiii", row->id, row->project_id, row->branch_id, row->endpoint_id, row->action,
        row->status, row->failure, row->created_ms, row->updated_ms, row->duration_ms);
}

int bough_operations_get(bough_operation_row *row, bough_catalogue *cat, const char *project,
                         const char *id, bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             "SELECT " COLUMNS " FROM operations WHERE project_id = ? AND id = ?",
                             "ss", project, id);
    if (rc == BOUGH_E_NOTFOUND)
        (void)bough_fail(err, rc, "no operation has the id \"%.100s\" in this project", id);
    return rc;
}

int bough_operations_list(bough_operation_row **rows, size_t *n, bough_catalogue *cat,
                          const char *project, int64_t before, int limit, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              "SELECT " COLUMNS " FROM operations WHERE project_id = ?1 AND"
                              " (?2 = 0 OR seq < ?2) ORDER BY seq DESC LIMIT ?3",
                              "sii", project, before, (int64_t)limit);
    *rows = records;
    return rc;
}

int bough_operations_list_of_branch(bough_operation_row **rows, size_t *n, bough_catalogue *cat,
                                    const char *branch, int64_t before, int limit,
                                    bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              "SELECT " COLUMNS " FROM operations WHERE branch_id = ?1 AND"
                              " (?2 = 0 OR seq < ?2) ORDER BY seq DESC LIMIT ?3",
                              "sii", branch, before, (int64_t)limit);
    *rows = records;
    return rc;
}
