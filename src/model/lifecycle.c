/* Table branches: protection, expiry, deletion and recovery; table clock. */
#include "model/expiry.h"
#include "model/query.h"

/* A deleted branch's name: none that a user can give, and free for others. */
#define BURIED_NAME "char(127) || id"

/* When the warnings of a branch are due; the same as in bough_expiry_stage(). */
#define FIRST_WARNING_MS "(expires_ms - min(86400000, ttl_seconds * 500))"
#define LAST_WARNING_MS "(expires_ms - min(3600000, ttl_seconds * 100))"

int bough_branches_set_expiry(bough_catalogue *cat, const bough_branch_row *row, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE branches SET expires_ms = nullif(?, 0), ttl_seconds = ?,"
                           " expiry_cascades = ?, expiry_warnings = 0, updated_ms = ? WHERE id = ?",
                           "iiiis", row->expires_ms, row->ttl_seconds,
                           (int64_t)row->expiry_cascades, bough_now_epoch_ms(), row->id);
}

int bough_branches_set_protected(bough_catalogue *cat, const char *id, bool is_protected,
                                 bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE branches SET is_protected = ?, updated_ms = ? WHERE id = ?",
                           "iis", (int64_t)is_protected, bough_now_epoch_ms(), id);
}

int bough_branches_set_default(bough_catalogue *cat, const char *project, const char *id,
                               bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE branches SET is_default = (id = ?1), updated_ms = ?2"
                           " WHERE project_id = ?3 AND is_default <> (id = ?1)",
                           "sis", id, bough_now_epoch_ms(), project);
}

int bough_branches_set_warnings(bough_catalogue *cat, const char *id, int given, bough_error *err) {
    return bough_query_run(NULL, cat, err, "UPDATE branches SET expiry_warnings = ? WHERE id = ?",
                           "is", (int64_t)given, id);
}

int bough_branches_bury(bough_catalogue *cat, const char *id, int64_t deleted_ms,
                        bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE branches SET freed_name = name, name = " BURIED_NAME
                           ", deleted_ms = ?, updated_ms = ? WHERE id = ? AND deleted_ms IS NULL",
                           "iis", deleted_ms, bough_now_epoch_ms(), id);
}

int bough_branches_recover(bough_catalogue *cat, const char *id, const char *name,
                           bough_error *err) {
    int changes = 0;
    int rc = bough_query_run(&changes, cat, err,
                             "UPDATE branches SET name = ?1, freed_name = NULL, deleted_ms = NULL,"
                             " updated_ms = ?2 WHERE id = ?3 AND deleted_ms IS NOT NULL AND"
                             " NOT " BOUGH_NAME_IS_RESERVED("branches.project_id", "?1", "?3"),
                             "sis", name, bough_now_epoch_ms(), id);
    if (!rc && !changes) rc = BOUGH_E_CONFLICT;
    if (rc != BOUGH_E_CONFLICT) return rc;
    (void)bough_branches_fail_taken(name, err);
    return bough_hint(err, "Recover it under another name: --name NAME, \"name\" in the API.");
}

/* ---- what is due ---- */

static void fill_id(void *record, sqlite3_stmt *stmt) {
    bough_query_text(record, BOUGH_ID_SIZE, stmt, 0);
}

int bough_branches_due(bough_id_list *ids, size_t *n, bough_catalogue *cat, int64_t now_ms,
                       bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, BOUGH_ID_SIZE, fill_id, cat, err,
                              "SELECT id FROM branches b WHERE expires_ms <= ? AND deleted_ms IS"
                              " NULL AND (expiry_cascades OR NOT EXISTS (SELECT 1 FROM branches c"
                              " WHERE c.parent_id = b.id AND c.deleted_ms IS NULL AND NOT"
                              " c.is_look))"
                              " ORDER BY expires_ms, id",
                              "i", now_ms);
    *ids = records;
    return rc;
}

int bough_branches_purgeable(bough_id_list *ids, size_t *n, bough_catalogue *cat,
                             int64_t deleted_ms, bough_error *err) {
    void *records;
    int rc = bough_query_rows(
        &records, n, BOUGH_ID_SIZE, fill_id, cat, err,
        "SELECT id FROM branches b WHERE deleted_ms <= ? AND NOT is_snapshot AND NOT EXISTS"
        " (SELECT 1 FROM branches c WHERE c.parent_id = b.id)"
        " ORDER BY deleted_ms, id",
        "i", deleted_ms);
    *ids = records;
    return rc;
}

int bough_branches_to_warn(bough_id_list *ids, size_t *n, bough_catalogue *cat, int64_t now_ms,
                           bough_error *err) {
    void *records;
    int rc = bough_query_rows(
        &records, n, BOUGH_ID_SIZE, fill_id, cat, err,
        "SELECT id FROM branches WHERE expires_ms > ?1 AND deleted_ms IS NULL AND NOT is_look"
        " AND ((expiry_warnings < 1 AND " FIRST_WARNING_MS " <= ?1) OR"
        " (expiry_warnings < 2 AND " LAST_WARNING_MS " <= ?1))"
        " ORDER BY expires_ms, id",
        "i", now_ms);
    *ids = records;
    return rc;
}

int bough_branches_subtree(bough_id_list *ids, size_t *n, bough_catalogue *cat, const char *id,
                           bough_error *err) {
    void *records;
    int rc = bough_query_rows(
        &records, n, BOUGH_ID_SIZE, fill_id, cat, err,
        "WITH RECURSIVE below (id, depth) AS (SELECT id, 0 FROM branches WHERE id = ?"
        " UNION ALL SELECT c.id, depth + 1 FROM branches c JOIN below ON c.parent_id = below.id"
        " WHERE c.deleted_ms IS NULL) SELECT id FROM below ORDER BY depth DESC, id",
        "s", id);
    *ids = records;
    return rc;
}

static void fill_int(void *record, sqlite3_stmt *stmt) {
    int64_t *n = record;
    *n = sqlite3_column_int64(stmt, 0);
}

int bough_branches_next_event(int64_t *at_ms, bough_catalogue *cat, int64_t now_ms,
                              bough_error *err) {
    return bough_query_one(
        at_ms, sizeof *at_ms, fill_int, cat, err,
        "SELECT min(at) FROM ("
        "SELECT expires_ms AS at FROM branches WHERE expires_ms > ?1 AND deleted_ms IS NULL "
        "UNION ALL SELECT " FIRST_WARNING_MS " FROM branches WHERE expires_ms > ?1 AND deleted_ms"
        " IS NULL AND expiry_warnings < 1 "
        "UNION ALL SELECT " LAST_WARNING_MS " FROM branches WHERE expires_ms > ?1 AND deleted_ms IS"
        " NULL AND expiry_warnings < 2 "
        "UNION ALL SELECT deleted_ms + ?2 FROM branches WHERE deleted_ms IS NOT NULL AND NOT "
        "is_snapshot) WHERE at > "
        "?1",
        "ii", now_ms, (int64_t)BOUGH_RECOVERABLE_MS);
}

int bough_branches_any_timed(bool *any, bough_catalogue *cat, bough_error *err) {
    int64_t n = 0;
    int rc = bough_query_one(
        &n, sizeof n, fill_int, cat, err,
        "SELECT EXISTS (SELECT 1 FROM branches WHERE expires_ms IS NOT NULL)"
        " OR EXISTS (SELECT 1 FROM branches WHERE deleted_ms IS NOT NULL AND NOT is_snapshot)"
        " OR EXISTS (SELECT 1 FROM snapshots WHERE expires_ms IS NOT NULL)"
        " OR EXISTS (SELECT 1 FROM schedules)"
        " OR EXISTS (SELECT 1 FROM projects WHERE history_retention_seconds > 0)",
        "");
    *any = n != 0;
    return rc;
}

/* ---- clock ---- */

static void fill_clock(void *record, sqlite3_stmt *stmt) {
    bough_clock_row *row = record;
    row->wall_ms = sqlite3_column_int64(stmt, 0);
    row->boot_ms = sqlite3_column_int64(stmt, 1);
    bough_query_text(row->boot_id, sizeof row->boot_id, stmt, 2);
}

int bough_clock_get(bough_clock_row *row, bough_catalogue *cat, bough_error *err) {
    return bough_query_one(row, sizeof *row, fill_clock, cat, err,
                           "SELECT wall_ms, boot_ms, boot_id FROM clock", "");
}

int bough_clock_set(bough_catalogue *cat, const bough_clock_row *row, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "INSERT INTO clock (id, wall_ms, boot_ms, boot_id) VALUES (1, ?, ?, ?)"
                           " ON CONFLICT (id) DO UPDATE SET wall_ms = excluded.wall_ms,"
                           " boot_ms = excluded.boot_ms, boot_id = excluded.boot_id",
                           "iis", row->wall_ms, row->boot_ms, row->boot_id);
}
