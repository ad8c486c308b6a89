/* Tables roles and databases: what Bough manages inside a branch. */
#include <string.h>

#include "model/query.h"

#define ROLE "branch_id, name, secret, created_ms, updated_ms, is_unsure"
#define DATABASE "id, branch_id, name, owner, created_ms, updated_ms"

static void fill_role(void *record, sqlite3_stmt *stmt) {
    bough_role_row *row = record;
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 0);
    bough_query_text(row->name, sizeof row->name, stmt, 1);
    const void *secret = sqlite3_column_blob(stmt, 2);
    size_t size = (size_t)sqlite3_column_bytes(stmt, 2);
    if (secret && size <= sizeof row->secret) {
        memcpy(row->secret, secret, size);
        row->secret_size = size;
    }
    row->created_ms = sqlite3_column_int64(stmt, 3);
    row->updated_ms = sqlite3_column_int64(stmt, 4);
    row->is_unsure = sqlite3_column_int64(stmt, 5) != 0;
}

static void fill_database(void *record, sqlite3_stmt *stmt) {
    bough_database_row *row = record;
    row->id = sqlite3_column_int64(stmt, 0);
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 1);
    bough_query_text(row->name, sizeof row->name, stmt, 2);
    bough_query_text(row->owner, sizeof row->owner, stmt, 3);
    row->created_ms = sqlite3_column_int64(stmt, 4);
    row->updated_ms = sqlite3_column_int64(stmt, 5);
}

int bough_roles_insert(bough_catalogue *cat, const bough_role_row *row, bough_error *err) {
    int rc =
        bough_query_run(NULL, cat, err, "INSERT INTO roles (" ROLE ") VALUES (?, ?, ?, ?, ?, ?)",
                        "ssbiii", row->branch_id, row->name, row->secret, row->secret_size,
                        row->created_ms, row->updated_ms, (int64_t)row->is_unsure);
    if (rc == BOUGH_E_CONFLICT) (void)bough_fail(err, rc, "role \"%s\" already exists", row->name);
    return rc;
}

int bough_roles_get(bough_role_row *row, bough_catalogue *cat, const char *branch, const char *name,
                    bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill_role, cat, err,
                             "SELECT " ROLE " FROM roles WHERE branch_id = ? AND name = ?", "ss",
                             branch, name);
    if (rc == BOUGH_E_NOTFOUND)
        (void)bough_fail(err, rc, "no role is named \"%.63s\" on this branch", name);
    return rc;
}

int bough_roles_list(bough_role_row **rows, size_t *n, bough_catalogue *cat, const char *branch,
                     bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill_role, cat, err,
                              "SELECT " ROLE " FROM roles WHERE branch_id = ? ORDER BY rowid", "s",
                              branch);
    *rows = records;
    return rc;
}

int bough_roles_set_secret(bough_catalogue *cat, const bough_role_row *row, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE roles SET secret = ?, updated_ms = ?, is_unsure = ? WHERE "
                           "branch_id = ? AND name = ?",
                           "biiss", row->secret, row->secret_size, bough_now_epoch_ms(),
                           (int64_t)row->is_unsure, row->branch_id, row->name);
}

int bough_roles_delete(bough_catalogue *cat, const char *branch, const char *name,
                       bough_error *err) {
    return bough_query_run(NULL, cat, err, "DELETE FROM roles WHERE branch_id = ? AND name = ?",
                           "ss", branch, name);
}

int bough_databases_insert(bough_catalogue *cat, const bough_database_row *row, bough_error *err) {
    int rc = bough_query_run(
        NULL, cat, err,
        "INSERT INTO databases (branch_id, name, owner, created_ms, updated_ms)"
        " VALUES (?, ?, ?, ?, ?)",
        "sssii", row->branch_id, row->name, row->owner, row->created_ms, row->updated_ms);
    if (rc == BOUGH_E_CONFLICT)
        (void)bough_fail(err, rc, "database \"%s\" already exists", row->name);
    return rc;
}

int bough_databases_get(bough_database_row *row, bough_catalogue *cat, const char *branch,
                        const char *name, bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill_database, cat, err,
                             "SELECT " DATABASE " FROM databases WHERE branch_id = ? AND name = ?",
                             "ss", branch, name);
    if (rc == BOUGH_E_NOTFOUND)
        (void)bough_fail(err, rc, "no database is named \"%.63s\" on this branch", name);
    return rc;
}

int bough_databases_list(bough_database_row **rows, size_t *n, bough_catalogue *cat,
                         const char *branch, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill_database, cat, err,
                              "SELECT " DATABASE " FROM databases WHERE branch_id = ? ORDER BY id",
                              "s", branch);
    *rows = records;
    return rc;
}

int bough_databases_update(bough_catalogue *cat, int64_t id, const char *name, const char *owner,
                           bough_error *err) {
    int rc = bough_query_run(
        NULL, cat, err, "UPDATE databases SET name = ?, owner = ?, updated_ms = ? WHERE id = ?",
        "ssii", name, owner, bough_now_epoch_ms(), id);
    if (rc == BOUGH_E_CONFLICT)
        (void)bough_fail(err, rc, "database \"%.63s\" already exists", name);
    return rc;
}

int bough_databases_delete(bough_catalogue *cat, const char *branch, const char *name,
                           bough_error *err) {
    return bough_query_run(NULL, cat, err, "DELETE FROM databases WHERE branch_id = ? AND name = ?",
                           "ss", branch, name);
}
