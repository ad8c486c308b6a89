/* Tables branches and templates. */
#include "model/query.h"

#define SELECT                                                                                     \
    "SELECT b.id, b.project_id, coalesce(b.freed_name, b.name), b.parent_id,"                      \
    " coalesce(p.freed_name, p.name), b.state, b.is_default, b.created_ms, b.updated_ms,"          \
    " b.is_protected, b.expires_ms, b.ttl_seconds, b.expiry_cascades, b.expiry_warnings,"          \
    " b.deleted_ms, EXISTS (SELECT 1 FROM branches c WHERE c.parent_id = b.id AND"                 \
    " c.deleted_ms IS NULL AND NOT c.is_look), b.is_snapshot, b.is_look,"                          \
    " (SELECT count(*) FROM origins o WHERE o.branch_id = b.id),"                                  \
    " (SELECT count(*) FROM restored r WHERE r.branch_id = b.id), b.schema_of"                     \
    " FROM branches b LEFT JOIN branches p ON p.id = b.parent_id "

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_branch_row *row = record;
    bough_query_text(row->id, sizeof row->id, stmt, 0);
    bough_query_text(row->project_id, sizeof row->project_id, stmt, 1);
    bough_query_text(row->name, sizeof row->name, stmt, 2);
    bough_query_text(row->parent_id, sizeof row->parent_id, stmt, 3);
    bough_query_text(row->parent_name, sizeof row->parent_name, stmt, 4);
    bough_query_text(row->state, sizeof row->state, stmt, 5);
    row->is_default = sqlite3_column_int(stmt, 6) != 0;
    row->created_ms = sqlite3_column_int64(stmt, 7);
    row->updated_ms = sqlite3_column_int64(stmt, 8);
    row->is_protected = sqlite3_column_int(stmt, 9) != 0;
    row->expires_ms = sqlite3_column_int64(stmt, 10);
    row->ttl_seconds = sqlite3_column_int64(stmt, 11);
    row->expiry_cascades = sqlite3_column_int(stmt, 12) != 0;
    row->expiry_warnings = sqlite3_column_int(stmt, 13);
    row->deleted_ms = sqlite3_column_int64(stmt, 14);
    row->has_live_children = sqlite3_column_int(stmt, 15) != 0;
    row->is_snapshot = sqlite3_column_int(stmt, 16) != 0;
    row->is_look = sqlite3_column_int(stmt, 17) != 0;
    row->has_origin = sqlite3_column_int(stmt, 18) != 0;
    row->was_snapshot = sqlite3_column_int(stmt, 19) != 0;
    bough_query_text(row->schema_of, sizeof row->schema_of, stmt, 20);
}

int bough_branches_fail_taken(const char *name, bough_error *err) {
    return bough_fail(err, BOUGH_E_CONFLICT, "branch already exists; branch_name:\"%.256s\"", name);
}

static int fail_unknown(const char *id, bough_error *err) {
    return bough_fail(err, BOUGH_E_NOTFOUND, "no branch has the id \"%.100s\" in this project", id);
}

int bough_branches_insert(bough_catalogue *cat, const bough_branch_row *row, bough_error *err) {
    int changes = 0;
    int rc = bough_query_run(
        &changes, cat, err,
        "INSERT INTO branches (id, project_id, name, parent_id, state, is_default, created_ms,"
        " updated_ms, is_protected, expires_ms, ttl_seconds, expiry_cascades, is_look, schema_of)"
        " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, nullif(?10, 0), ?11, ?12, ?13, ?14"
        " WHERE NOT " BOUGH_NAME_IS_RESERVED("?2", "?3", "?1"),
        "ssstsiiiiiiiit", row->id, row->project_id, row->name, row->parent_id, row->state,
        (int64_t)row->is_default, row->created_ms, row->updated_ms, (int64_t)row->is_protected,
        row->expires_ms, row->ttl_seconds, (int64_t)row->expiry_cascades, (int64_t)row->is_look,
        row->schema_of);
    return rc == BOUGH_E_CONFLICT || (!rc && !changes) ? bough_branches_fail_taken(row->name, err)
                                                       : rc;
}

int bough_branches_get(bough_branch_row *row, bough_catalogue *cat, const char *project,
                       const char *id, bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             SELECT "WHERE b.project_id = ? AND b.id = ? AND b.deleted_ms IS NULL",
                             "ss", project, id);
    return rc == BOUGH_E_NOTFOUND ? fail_unknown(id, err) : rc;
}

int bough_branches_get_deleted(bough_branch_row *row, bough_catalogue *cat, const char *project,
                               const char *id, bough_error *err) {
    int rc =
        bough_query_one(row, sizeof *row, fill, cat, err,
                        SELECT "WHERE b.project_id = ? AND b.id = ? AND b.deleted_ms IS NOT NULL"
                               " AND NOT b.is_snapshot",
                        "ss", project, id);
    if (rc == BOUGH_E_NOTFOUND)
        (void)bough_fail(err, rc, "no deleted branch has the id \"%.100s\" in this project", id);
    return rc;
}

int bough_branches_get_any(bough_branch_row *row, bough_catalogue *cat, const char *id,
                           bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err, SELECT "WHERE b.id = ?", "s", id);
    return rc == BOUGH_E_NOTFOUND ? fail_unknown(id, err) : rc;
}

int bough_branches_find(bough_branch_row *row, bough_catalogue *cat, const char *project,
                        const char *name, bough_error *err) {
    int rc =
        bough_query_one(row, sizeof *row, fill, cat, err,
                        SELECT "WHERE b.project_id = ? AND b.name = ? AND b.deleted_ms IS NULL",
                        "ss", project, name);
    if (rc == BOUGH_E_NOTFOUND)
        (void)bough_fail(err, rc, "no branch is named \"%.256s\" in this project", name);
    return rc;
}

int bough_branches_get_default(bough_branch_row *row, bough_catalogue *cat, const char *project,
                               bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             SELECT "WHERE b.project_id = ? AND b.is_default", "s", project);
    if (rc == BOUGH_E_NOTFOUND) (void)bough_fail(err, rc, "the project has no default branch");
    return rc;
}

int bough_branches_list(bough_branch_row **rows, size_t *n, bough_catalogue *cat,
                        const char *project, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              SELECT "WHERE ?1 IS NULL OR b.project_id = ?1"
                                     " ORDER BY b.created_ms DESC, b.rowid DESC",
                              "s", project);
    *rows = records;
    return rc;
}

int bough_branches_list_live(bough_branch_row **rows, size_t *n, bough_catalogue *cat,
                             const char *project, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              SELECT "WHERE (?1 IS NULL OR b.project_id = ?1) AND b.deleted_ms IS"
                                     " NULL ORDER BY b.created_ms DESC, b.rowid DESC",
                              "s", project);
    *rows = records;
    return rc;
}

int bough_branches_rename(bough_catalogue *cat, const char *id, const char *name,
                          bough_error *err) {
    int changes = 0;
    int rc = bough_query_run(&changes, cat, err,
                             "UPDATE branches SET name = ?1, updated_ms = ?2 WHERE id = ?3 AND"
                             " NOT " BOUGH_NAME_IS_RESERVED("branches.project_id", "?1", "?3"),
                             "sis", name, bough_now_epoch_ms(), id);
    return rc == BOUGH_E_CONFLICT || (!rc && !changes) ? bough_branches_fail_taken(name, err) : rc;
}

int bough_branches_is_free(bool *is_free, bough_catalogue *cat, const char *project,
                           const char *name, const char *id, bough_error *err) {
    return bough_query_one(is_free, sizeof *is_free, bough_fill_bool, cat, err,
                           "SELECT NOT EXISTS (SELECT 1 FROM branches WHERE project_id = ?1 AND"
                           " name = ?2) AND NOT " BOUGH_NAME_IS_RESERVED("?1", "?2", "?3"),
                           "sss", project, name, id ? id : "");
}

int bough_branches_set_state(bough_catalogue *cat, const char *id, const char *state,
                             bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE branches SET state = ?, updated_ms = ? WHERE id = ?", "sis",
                           state, bough_now_epoch_ms(), id);
}

int bough_branches_count_children(int64_t *n, bough_catalogue *cat, const char *id,
                                  bough_error *err) {
    return bough_query_one(n, sizeof *n, bough_fill_count, cat, err,
                           "SELECT count(*) FROM branches WHERE parent_id = ?", "s", id);
}

int bough_branches_delete(bough_catalogue *cat, const char *id, bough_error *err) {
    return bough_query_run(NULL, cat, err, "DELETE FROM branches WHERE id = ?", "s", id);
}

int bough_branches_copy_contents(bough_catalogue *cat, const char *from, const char *to,
                                 bough_error *err) {
    int64_t now = bough_now_epoch_ms();
    int rc = bough_query_run(NULL, cat, err,
                             "INSERT INTO roles (branch_id, name, secret, created_ms, updated_ms,"
                             " is_unsure) SELECT ?1, name, secret, ?2, ?2, is_unsure FROM roles"
                             " WHERE branch_id = ?3",
                             "sis", to, now, from);
    if (rc) return rc;
    return bough_query_run(
        NULL, cat, err,
        "INSERT INTO databases (branch_id, name, owner, created_ms, updated_ms)"
        " SELECT ?1, name, owner, ?2, ?2 FROM databases WHERE branch_id = ?3 ORDER BY id",
        "sis", to, now, from);
}

int bough_templates_insert(bough_catalogue *cat, const char *id, bough_error *err) {
    return bough_query_run(NULL, cat, err, "INSERT OR IGNORE INTO templates (id) VALUES (?)", "s",
                           id);
}

static void fill_id(void *record, sqlite3_stmt *stmt) {
    bough_query_text(record, BOUGH_ID_SIZE, stmt, 0);
}

int bough_templates_list(char (**ids)[BOUGH_ID_SIZE], size_t *n, bough_catalogue *cat,
                         bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, BOUGH_ID_SIZE, fill_id, cat, err,
                              "SELECT id FROM templates", "");
    *ids = records;
    return rc;
}
