/* Table endpoints. Whether one is active is the supervisor's knowledge, not a column. */
#include "model/query.h"
#include "model/rules.h"

#define COLUMNS                                                                                    \
    "id, project_id, branch_id, suspend_timeout_seconds, last_error, created_ms, updated_ms,"      \
    " least_quarters, most_quarters, is_read_only"

/* Not of a deleted branch. */
#define OF_LIVE "(SELECT deleted_ms FROM branches b WHERE b.id = endpoints.branch_id) IS NULL"

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_endpoint_row *row = record;
    bough_query_text(row->id, sizeof row->id, stmt, 0);
    bough_query_text(row->project_id, sizeof row->project_id, stmt, 1);
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 2);
    row->suspend_timeout_seconds = sqlite3_column_int(stmt, 3);
    bough_query_text(row->last_error, sizeof row->last_error, stmt, 4);
    row->created_ms = sqlite3_column_int64(stmt, 5);
    row->updated_ms = sqlite3_column_int64(stmt, 6);
    row->least_quarters = sqlite3_column_int(stmt, 7);
    row->most_quarters = sqlite3_column_int(stmt, 8);
    row->is_read_only = sqlite3_column_int(stmt, 9) != 0;
}

int bough_endpoints_insert(bough_catalogue *cat, const bough_endpoint_row *row, bough_error *err) {
    int rc = bough_query_run(
        NULL, cat, err, "INSERT INTO endpoints (" COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "sssitiiiii", row->id, row->project_id, row->branch_id,
        (int64_t)row->suspend_timeout_seconds, row->last_error, row->created_ms, row->updated_ms,
        (int64_t)(row->least_quarters ? row->least_quarters : BOUGH_SIZE_QUARTERS),
        (int64_t)(row->most_quarters ? row->most_quarters : BOUGH_SIZE_QUARTERS),
        (int64_t)row->is_read_only);
    if (rc == BOUGH_E_CONFLICT)
        (void)bough_fail(err, rc, "read_write endpoint already exists for branch \"%s\"",
                         row->branch_id);
    return rc;
}

int bough_endpoints_get(bough_endpoint_row *row, bough_catalogue *cat, const char *project,
                        const char *id, bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             "SELECT " COLUMNS " FROM endpoints WHERE project_id = ? AND id = ?"
                             " AND " OF_LIVE,
                             "ss", project, id);
    if (rc == BOUGH_E_NOTFOUND)
        (void)bough_fail(err, rc, "no endpoint has the id \"%.100s\" in this project", id);
    return rc;
}

int bough_endpoints_find(bough_endpoint_row *row, bough_catalogue *cat, const char *id,
                         bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             "SELECT " COLUMNS " FROM endpoints WHERE id = ?", "s", id);
    if (rc == BOUGH_E_NOTFOUND) (void)bough_fail(err, rc, "no endpoint has the id \"%.100s\"", id);
    return rc;
}

int bough_endpoints_of_branch(bough_endpoint_row *row, bough_catalogue *cat, const char *branch,
                              bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             "SELECT " COLUMNS " FROM endpoints WHERE branch_id = ? AND"
                             " is_read_only = 0",
                             "s", branch);
    if (rc == BOUGH_E_NOTFOUND) {
        (void)bough_fail(err, rc, "branch \"%.100s\" has no endpoint", branch);
        (void)bough_hint(err, "Create one for it first.");
    }
    return rc;
}

const char *bough_endpoint_home(const bough_endpoint_row *row) {
    return row->is_read_only ? row->id : row->branch_id;
}

int bough_endpoints_at(bough_endpoint_row *row, bough_catalogue *cat, const char *home,
                       bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             "SELECT " COLUMNS " FROM endpoints WHERE id = ? AND is_read_only = 1",
                             "s", home);
    if (rc != BOUGH_E_NOTFOUND) return rc;
    bough_error_clear(err);
    return bough_endpoints_of_branch(row, cat, home, err);
}

int bough_endpoints_list_reading(bough_endpoint_row **rows, size_t *n, bough_catalogue *cat,
                                 const char *branch, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              "SELECT " COLUMNS " FROM endpoints WHERE branch_id = ? AND"
                              " is_read_only = 1 ORDER BY created_ms, rowid",
                              "s", branch);
    *rows = records;
    return rc;
}

int bough_endpoints_swap_reading(bough_catalogue *cat, const char *a, const char *b,
                                 bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE endpoints SET branch_id = CASE branch_id WHEN ?1 THEN ?2 ELSE"
                           " ?1 END WHERE is_read_only = 1 AND branch_id IN (?1, ?2)",
                           "ss", a, b);
}

int bough_endpoints_list(bough_endpoint_row **rows, size_t *n, bough_catalogue *cat,
                         const char *project, bough_error *err) {
    void *records;
    int rc =
        bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                         "SELECT " COLUMNS " FROM endpoints WHERE ?1 IS NULL OR project_id = ?1"
                         " ORDER BY created_ms DESC, rowid DESC",
                         "s", project);
    *rows = records;
    return rc;
}

int bough_endpoints_list_live(bough_endpoint_row **rows, size_t *n, bough_catalogue *cat,
                              const char *project, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              "SELECT " COLUMNS " FROM endpoints WHERE project_id = ? AND " OF_LIVE
                              " ORDER BY created_ms DESC, rowid DESC",
                              "s", project);
    *rows = records;
    return rc;
}

int bough_endpoints_set_timeout(bough_catalogue *cat, const char *id, int seconds,
                                bough_error *err) {
    return bough_query_run(
        NULL, cat, err,
        "UPDATE endpoints SET suspend_timeout_seconds = ?, updated_ms = ? WHERE id = ?", "iis",
        (int64_t)seconds, bough_now_epoch_ms(), id);
}

int bough_endpoints_set_size(bough_catalogue *cat, const char *id, int least_quarters,
                             int most_quarters, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE endpoints SET least_quarters = ?, most_quarters = ?,"
                           " updated_ms = ? WHERE id = ?",
                           "iiis", (int64_t)least_quarters, (int64_t)most_quarters,
                           bough_now_epoch_ms(), id);
}

int bough_endpoints_set_error(bough_catalogue *cat, const char *id, const char *message,
                              bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE endpoints SET last_error = ?, updated_ms = ? WHERE id = ?",
                           "tis", message, bough_now_epoch_ms(), id);
}

int bough_endpoints_delete(bough_catalogue *cat, const char *id, bough_error *err) {
    return bough_query_run(NULL, cat, err, "DELETE FROM endpoints WHERE id = ?", "s", id);
}
