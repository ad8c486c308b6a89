/* Table projects. */
#include <string.h>

#include "model/query.h"
#include "model/rules.h"

#define COLUMNS                                                                                    \
    "id, name, pg_major, source, source_hash, created_ms, updated_ms, history_retention_seconds,"  \
    " allowed_ips, protects_only, least_quarters, most_quarters, suspend_timeout_seconds"

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_project_row *row = record;
    bough_query_text(row->id, sizeof row->id, stmt, 0);
    bough_query_text(row->name, sizeof row->name, stmt, 1);
    row->pg_major = sqlite3_column_int(stmt, 2);
    bough_query_text(row->source, sizeof row->source, stmt, 3);
    bough_query_text(row->source_hash, sizeof row->source_hash, stmt, 4);
    row->created_ms = sqlite3_column_int64(stmt, 5);
    row->updated_ms = sqlite3_column_int64(stmt, 6);
    row->history_retention_seconds = sqlite3_column_int64(stmt, 7);
    bough_query_text(row->allowed_ips, sizeof row->allowed_ips, stmt, 8);
    row->protects_only = sqlite3_column_int(stmt, 9) != 0;
    row->endpoints.least_quarters = sqlite3_column_int(stmt, 10);
    row->endpoints.most_quarters = sqlite3_column_int(stmt, 11);
    row->endpoints.suspend_timeout_seconds = sqlite3_column_int(stmt, 12);
}

static int fail_taken(const char *name, bough_error *err) {
    return bough_fail(err, BOUGH_E_CONFLICT, "project already exists; project_name:\"%.256s\"",
                      name);
}

int bough_projects_insert(bough_catalogue *cat, const bough_project_row *row, bough_error *err) {
    const bough_endpoint_defaults *e = &row->endpoints;
    int rc = bough_query_run(
        NULL, cat, err,
        "INSERT INTO projects (" COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "ssissiiisiiii", row->id, row->name, (int64_t)row->pg_major, row->source, row->source_hash,
        row->created_ms, row->updated_ms, row->history_retention_seconds, row->allowed_ips,
        (int64_t)row->protects_only,
        (int64_t)(e->least_quarters ? e->least_quarters : BOUGH_SIZE_QUARTERS),
        (int64_t)(e->most_quarters ? e->most_quarters : BOUGH_SIZE_QUARTERS),
        (int64_t)e->suspend_timeout_seconds);
    return rc == BOUGH_E_CONFLICT ? fail_taken(row->name, err) : rc;
}

int bough_projects_get(bough_project_row *row, bough_catalogue *cat, const char *id,
                       bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             "SELECT " COLUMNS " FROM projects WHERE id = ?", "s", id);
    if (rc == BOUGH_E_NOTFOUND) (void)bough_fail(err, rc, "no project has the id \"%.100s\"", id);
    return rc;
}

int bough_projects_find(bough_project_row *row, bough_catalogue *cat, const char *name,
                        bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             "SELECT " COLUMNS " FROM projects WHERE name = ?", "s", name);
    if (rc == BOUGH_E_NOTFOUND) (void)bough_fail(err, rc, "no project is named \"%.256s\"", name);
    return rc;
}

int bough_projects_list(bough_project_row **rows, size_t *n, bough_catalogue *cat,
                        const char *search, const bough_project_place *after, int limit,
                        bough_error *err) {
    void *records;
    int rc = bough_query_rows(
        &records, n, sizeof **rows, fill, cat, err,
        "SELECT " COLUMNS " FROM projects WHERE (?1 IS NULL OR instr(lower(name),"
        " lower(?1)) > 0 OR instr(id, ?1) > 0) AND (?2 IS NULL OR (created_ms, id) > (?3, ?2))"
        " ORDER BY created_ms, id LIMIT ?4",
        "ttii", search, after ? after->id : NULL, after ? after->created_ms : (int64_t)0,
        (int64_t)limit);
    *rows = records;
    return rc;
}

int bough_projects_rename(bough_catalogue *cat, const char *id, const char *name,
                          bough_error *err) {
    int rc =
        bough_query_run(NULL, cat, err, "UPDATE projects SET name = ?, updated_ms = ? WHERE id = ?",
                        "sis", name, bough_now_epoch_ms(), id);
    return rc == BOUGH_E_CONFLICT ? fail_taken(name, err) : rc;
}

int bough_projects_set_retention(bough_catalogue *cat, const char *id, int64_t seconds,
                                 bough_error *err) {
    return bough_query_run(
        NULL, cat, err,
        "UPDATE projects SET history_retention_seconds = ?, updated_ms = ? WHERE id = ?", "iis",
        seconds, bough_now_epoch_ms(), id);
}

int bough_projects_set_allowed(bough_catalogue *cat, const char *id, const char *list,
                               bool protects_only, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE projects SET allowed_ips = ?, protects_only = ?, updated_ms = ?"
                           " WHERE id = ?",
                           "siis", list, (int64_t)protects_only, bough_now_epoch_ms(), id);
}

int bough_projects_replace_allowed(bough_catalogue *cat, const char *id, const char *list,
                                   bool protects_only, const char *expected, bool expected_only,
                                   bough_error *err) {
    int changes = 0;
    int rc = bough_query_run(&changes, cat, err,
                             "UPDATE projects SET allowed_ips = ?, protects_only = ?,"
                             " updated_ms = ? WHERE id = ? AND allowed_ips = ?"
                             " AND protects_only = ?",
                             "siissi", list, (int64_t)protects_only, bough_now_epoch_ms(), id,
                             expected, (int64_t)expected_only);
    if (rc || changes > 0) return rc;
    (void)bough_fail(err, BOUGH_E_PRECONDITION,
                     "the list of addresses of project \"%s\" is not the expected one", id);
    return bough_hint(err, "Somebody else has changed it; read it again.");
}

int bough_projects_set_endpoints(bough_catalogue *cat, const char *id,
                                 const bough_endpoint_defaults *endpoints, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE projects SET least_quarters = ?, most_quarters = ?,"
                           " suspend_timeout_seconds = ?, updated_ms = ? WHERE id = ?",
                           "iiiis", (int64_t)endpoints->least_quarters,
                           (int64_t)endpoints->most_quarters,
                           (int64_t)endpoints->suspend_timeout_seconds, bough_now_epoch_ms(), id);
}

int bough_projects_have_allowed(bool *have, bough_catalogue *cat, bough_error *err) {
    return bough_query_one(have, sizeof *have, bough_fill_bool, cat, err,
                           "SELECT EXISTS (SELECT 1 FROM projects WHERE allowed_ips <> '')", "");
}

int bough_projects_delete(bough_catalogue *cat, const char *id, bough_error *err) {
    /* parents point to each other within the project: the references are checked at the commit */
    int rc = bough_query_run(NULL, cat, err,
                             "UPDATE branches SET parent_id = NULL WHERE project_id = ?", "s", id);
    return rc ? rc : bough_query_run(NULL, cat, err, "DELETE FROM projects WHERE id = ?", "s", id);
}
