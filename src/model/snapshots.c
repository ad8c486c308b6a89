/* Tables snapshots, schedules and restored. */
#include "model/snapshots.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "model/expiry.h"
#include "model/query.h"

#define COLUMNS "id, project_id, source_id, name, lsn, time_us, frequency, created_ms, expires_ms"

static void fill(void *record, sqlite3_stmt *stmt) {
    bough_snapshot_row *row = record;
    bough_query_text(row->id, sizeof row->id, stmt, 0);
    bough_query_text(row->project_id, sizeof row->project_id, stmt, 1);
    bough_query_text(row->source_id, sizeof row->source_id, stmt, 2);
    bough_query_text(row->name, sizeof row->name, stmt, 3);
    bough_query_text(row->lsn, sizeof row->lsn, stmt, 4);
    row->time_us = sqlite3_column_int64(stmt, 5);
    bough_query_text(row->frequency, sizeof row->frequency, stmt, 6);
    row->created_ms = sqlite3_column_int64(stmt, 7);
    row->expires_ms = sqlite3_column_int64(stmt, 8);
}

static int fail_taken(const char *name, bough_error *err) {
    return bough_fail(err, BOUGH_E_CONFLICT, "snapshot already exists; snapshot_name:\"%.256s\"",
                      name);
}

int bough_snapshots_insert(bough_catalogue *cat, const bough_snapshot_row *row,
                           const bough_branch_row *source, bough_error *err) {
    int rc = bough_query_run(
        NULL, cat, err,
        "INSERT INTO branches (id, project_id, name, state, is_default, created_ms, updated_ms,"
        " is_protected, deleted_ms, is_snapshot) VALUES (?1, ?2, char(127) || ?1, 'ready', 0, ?3,"
        " ?3, ?4, ?3, 1)",
        "ssii", row->id, row->project_id, row->created_ms, (int64_t)source->is_protected);
    if (!rc) rc = bough_branches_copy_contents(cat, source->id, row->id, err);
    if (rc) return rc;
    rc = bough_query_run(NULL, cat, err,
                         "INSERT INTO snapshots (" COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?,"
                         " nullif(?, 0))",
                         "sssssisii", row->id, row->project_id, row->source_id, row->name, row->lsn,
                         row->time_us, row->frequency, row->created_ms, row->expires_ms);
    return rc == BOUGH_E_CONFLICT ? fail_taken(row->name, err) : rc;
}

int bough_snapshots_get(bough_snapshot_row *row, bough_catalogue *cat, const char *project,
                        const char *id, bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill, cat, err,
                             "SELECT " COLUMNS " FROM snapshots WHERE project_id = ? AND id = ?",
                             "ss", project, id);
    if (rc == BOUGH_E_NOTFOUND)
        (void)bough_fail(err, rc, "no snapshot has the id \"%.100s\" in this project", id);
    return rc;
}

int bough_snapshots_list(bough_snapshot_row **rows, size_t *n, bough_catalogue *cat,
                         const char *project, bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill, cat, err,
                              "SELECT " COLUMNS " FROM snapshots WHERE project_id = ?"
                              " ORDER BY created_ms DESC, rowid DESC",
                              "s", project);
    *rows = records;
    return rc;
}

int bough_snapshots_rename(bough_catalogue *cat, const char *id, const char *name,
                           bough_error *err) {
    int rc = bough_query_run(NULL, cat, err, "UPDATE snapshots SET name = ? WHERE id = ?", "ss",
                             name, id);
    return rc == BOUGH_E_CONFLICT ? fail_taken(name, err) : rc;
}

int bough_snapshots_delete(bough_catalogue *cat, const char *id, int64_t expired_by_ms,
                           bough_error *err) {
    int changes = 0;
    int rc = bough_query_run(&changes, cat, err,
                             "DELETE FROM branches WHERE id = ?1 AND is_snapshot AND (?2 = 0 OR"
                             " EXISTS (SELECT 1 FROM snapshots WHERE id = ?1 AND expires_ms <= "
                             "?2))",
                             "si", id, expired_by_ms);
    if (!rc && changes == 0) rc = bough_fail(err, BOUGH_E_NOTFOUND, "the snapshot is gone already");
    return rc;
}

/* ---- what is due ---- */

static void fill_id(void *record, sqlite3_stmt *stmt) {
    bough_query_text(record, BOUGH_ID_SIZE, stmt, 0);
}

int bough_snapshots_due(bough_id_list *ids, size_t *n, bough_catalogue *cat, int64_t now_ms,
                        bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, BOUGH_ID_SIZE, fill_id, cat, err,
                              "SELECT id FROM snapshots WHERE expires_ms <= ? ORDER BY expires_ms",
                              "i", now_ms);
    *ids = records;
    return rc;
}

static void fill_int(void *record, sqlite3_stmt *stmt) {
    int64_t *n = record;
    *n = sqlite3_column_int64(stmt, 0);
}

int bough_snapshots_next_event(int64_t *at_ms, bough_catalogue *cat, int64_t now_ms,
                               bough_error *err) {
    return bough_query_one(at_ms, sizeof *at_ms, fill_int, cat, err,
                           "SELECT min(at) FROM (SELECT min(expires_ms) AS at FROM snapshots WHERE"
                           " expires_ms > ?1 UNION ALL SELECT min(s.next_ms) FROM schedules s JOIN"
                           " branches b ON b.id = s.branch_id WHERE b.deleted_ms IS NULL AND"
                           " s.next_ms > ?1)",
                           "i", now_ms);
}

/* ---- schedules ---- */

#define SCHEDULE_COLUMNS                                                                           \
    "s.branch_id, s.seq, s.frequency, s.hour, s.day, s.month, s.retention_seconds, s.next_ms"

static void fill_schedule(void *record, sqlite3_stmt *stmt) {
    bough_schedule_row *row = record;
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 0);
    row->seq = sqlite3_column_int64(stmt, 1);
    bough_query_text(row->frequency, sizeof row->frequency, stmt, 2);
    row->hour = sqlite3_column_int(stmt, 3);
    row->day = sqlite3_column_int(stmt, 4);
    row->month = sqlite3_column_int(stmt, 5);
    row->retention_seconds = sqlite3_column_int64(stmt, 6);
    row->next_ms = sqlite3_column_int64(stmt, 7);
}

int bough_schedules_set(bough_catalogue *cat, const char *branch, const bough_schedule_row *rows,
                        size_t n, bough_error *err) {
    int rc =
        bough_query_run(NULL, cat, err, "DELETE FROM schedules WHERE branch_id = ?", "s", branch);
    for (size_t i = 0; i < n && !rc; i++)
        rc = bough_query_run(NULL, cat, err,
                             "INSERT INTO schedules (branch_id, seq, frequency, hour, day, month,"
                             " retention_seconds, next_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                             "sisiiiii", branch, (int64_t)i, rows[i].frequency,
                             (int64_t)rows[i].hour, (int64_t)rows[i].day, (int64_t)rows[i].month,
                             rows[i].retention_seconds, rows[i].next_ms);
    return rc;
}

int bough_schedules_get(bough_schedule_row **rows, size_t *n, bough_catalogue *cat,
                        const char *branch, bough_error *err) {
    void *records;
    int rc =
        bough_query_rows(&records, n, sizeof **rows, fill_schedule, cat, err,
                         "SELECT " SCHEDULE_COLUMNS " FROM schedules s WHERE branch_id = ? ORDER"
                         " BY seq",
                         "s", branch);
    *rows = records;
    return rc;
}

int bough_schedules_due(bough_schedule_row **rows, size_t *n, bough_catalogue *cat, int64_t now_ms,
                        bough_error *err) {
    void *records;
    int rc = bough_query_rows(&records, n, sizeof **rows, fill_schedule, cat, err,
                              "SELECT " SCHEDULE_COLUMNS " FROM schedules s JOIN branches b ON b.id"
                              " = s.branch_id WHERE b.deleted_ms IS NULL AND s.next_ms <= ?"
                              " ORDER BY s.next_ms",
                              "i", now_ms);
    *rows = records;
    return rc;
}

int bough_schedules_set_next(bough_catalogue *cat, const bough_schedule_row *row, int64_t next_ms,
                             bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "UPDATE schedules SET next_ms = ? WHERE branch_id = ? AND seq = ? AND"
                           " next_ms = ?",
                           "isii", next_ms, row->branch_id, row->seq, row->next_ms);
}

int bough_schedules_move(bough_catalogue *cat, const char *from, const char *to, bough_error *err) {
    int rc = bough_query_run(NULL, cat, err, "DELETE FROM schedules WHERE branch_id = ?", "s", to);
    return rc ? rc
              : bough_query_run(NULL, cat, err,
                                "UPDATE schedules SET branch_id = ? WHERE branch_id = ?", "ss", to,
                                from);
}

enum { HOURLY, DAILY, WEEKLY, MONTHLY, YEARLY, N_FREQUENCIES };
static const char *const frequencies[] = {"hourly", "daily", "weekly", "monthly", "yearly"};

static int frequency_of(const bough_schedule_row *row) {
    int i = 0;
    while (i < N_FREQUENCIES && strcmp(frequencies[i], row->frequency) != 0) i++;
    return i;
}

static int fail_field(const char *name, int value, int most, bough_error *err) {
    return bough_fail(err, BOUGH_E_INVALID, "\"%s\" must be between %d and %d, not %d", name,
                      name[0] == 'h' ? 0 : 1, most, value);
}

int bough_rule_schedule(const bough_schedule_row *row, bough_error *err) {
    enum { LEAST_RETENTION = 3600 };
    int kind = frequency_of(row), days = kind == WEEKLY ? 7 : 31;
    if (kind == N_FREQUENCIES)
        return bough_fail(err, BOUGH_E_INVALID,
                          "\"frequency\" must be hourly, daily, weekly, monthly or yearly");
    if (row->hour < -1 || row->hour > 23) return fail_field("hour", row->hour, 23, err);
    if (row->day < 0 || row->day > days) return fail_field("day", row->day, days, err);
    if (row->month < 0 || row->month > 12) return fail_field("month", row->month, 12, err);
    if ((kind == HOURLY && row->hour >= 0) || (kind < WEEKLY && row->day) ||
        (kind < YEARLY && row->month))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" means nothing in a schedule that is %s",
                          kind == HOURLY && row->hour >= 0 ? "hour"
                          : kind < WEEKLY && row->day      ? "day"
                                                           : "month",
                          row->frequency);
    if (row->retention_seconds && row->retention_seconds < LEAST_RETENTION)
        return bough_fail(err, BOUGH_E_INVALID, "\"retention_seconds\" must be at least %d",
                          LEAST_RETENTION);
    return BOUGH_OK;
}

static int days_in(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month] + (month == 1 && leap);
}

/* The line's time in the period `ahead` periods after the one of `tm`. */
static int64_t at(const bough_schedule_row *row, int kind, struct tm tm, int ahead) {
    tm.tm_sec = tm.tm_min = 0;
    if (kind == HOURLY) {
        tm.tm_hour += ahead;
        return (int64_t)timegm(&tm) * 1000;
    }
    tm.tm_hour = row->hour > 0 ? row->hour : 0;
    if (kind == DAILY) {
        tm.tm_mday += ahead;
    } else if (kind == WEEKLY) {
        tm.tm_mday += (row->day ? row->day : 1) - (tm.tm_wday ? tm.tm_wday : 7) + 7 * ahead;
    } else {
        int months = kind == MONTHLY ? tm.tm_mon + ahead : (row->month ? row->month : 1) - 1;
        tm.tm_year += kind == MONTHLY ? months / 12 : ahead;
        tm.tm_mon = months % 12;
        int day = row->day ? row->day : 1, most = days_in(tm.tm_year + 1900, tm.tm_mon);
        tm.tm_mday = day < most ? day : most;
    }
    return (int64_t)timegm(&tm) * 1000;
}

int64_t bough_schedule_next(const bough_schedule_row *row, int64_t after_ms) {
    time_t seconds = (time_t)(after_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    int kind = frequency_of(row), ahead = 0;
    int64_t next = at(row, kind, tm, ahead);
    while (next <= after_ms) next = at(row, kind, tm, ++ahead);
    return next;
}

/* ---- branches restored from snapshots ---- */

/* What stands in is_final. */
enum { PREVIEW, FINAL, TRANSIENT };

static void fill_restored(void *record, sqlite3_stmt *stmt) {
    bough_restored_row *row = record;
    bough_query_text(row->branch_id, sizeof row->branch_id, stmt, 0);
    bough_query_text(row->snapshot_id, sizeof row->snapshot_id, stmt, 1);
    bough_query_text(row->target_id, sizeof row->target_id, stmt, 2);
    row->is_final = sqlite3_column_int(stmt, 3) == FINAL;
    row->is_transient = sqlite3_column_int(stmt, 3) == TRANSIENT;
}

int bough_restored_set(bough_catalogue *cat, const bough_restored_row *row, bough_error *err) {
    return bough_query_run(NULL, cat, err,
                           "INSERT OR REPLACE INTO restored (branch_id, snapshot_id, target_id,"
                           " is_final) VALUES (?, ?, ?, ?)",
                           "sssi", row->branch_id, row->snapshot_id, row->target_id,
                           (int64_t)(row->is_final       ? FINAL
                                     : row->is_transient ? TRANSIENT
                                                         : PREVIEW));
}

int bough_restored_drop_transient(int *n, bough_catalogue *cat, bough_error *err) {
    /* one from which somebody made a branch in that moment stays, as a preview */
    return bough_query_run(n, cat, err,
                           "DELETE FROM branches WHERE id IN (SELECT branch_id FROM restored WHERE"
                           " is_final = ?) AND NOT EXISTS (SELECT 1 FROM branches c WHERE"
                           " c.parent_id = branches.id)",
                           "i", (int64_t)TRANSIENT);
}

int bough_restored_get(bough_restored_row *row, bough_catalogue *cat, const char *branch,
                       bough_error *err) {
    int rc = bough_query_one(row, sizeof *row, fill_restored, cat, err,
                             "SELECT branch_id, snapshot_id, target_id, is_final FROM restored"
                             " WHERE branch_id = ?",
                             "s", branch);
    if (rc == BOUGH_E_NOTFOUND)
        (void)bough_fail(err, rc, "the branch was not restored from a snapshot");
    return rc;
}

/* Endpoints change places; a branch has one at most that writes, so by way of none. */
static int swap_endpoints(bough_catalogue *cat, const char *a, const char *b, bough_error *err) {
    bough_endpoint_row of_a, of_b;
    int has_a = bough_endpoints_of_branch(&of_a, cat, a, NULL);
    int has_b = bough_endpoints_of_branch(&of_b, cat, b, NULL);
    int rc = has_a ? BOUGH_OK : bough_endpoints_delete(cat, of_a.id, err);
    if (!rc && !has_b) rc = bough_endpoints_delete(cat, of_b.id, err);
    (void)snprintf(of_a.branch_id, sizeof of_a.branch_id, "%s", b);
    (void)snprintf(of_b.branch_id, sizeof of_b.branch_id, "%s", a);
    if (!rc && !has_a) rc = bough_endpoints_insert(cat, &of_a, err);
    if (!rc && !has_b) rc = bough_endpoints_insert(cat, &of_b, err);
    return rc ? rc : bough_endpoints_swap_reading(cat, a, b, err);
}

static int set_life(bough_catalogue *cat, const bough_branch_row *before, bough_branch_row *row,
                    int64_t now_ms, bough_error *err) {
    bough_expiry_default(row, now_ms);
    if (row->expires_ms == before->expires_ms && row->ttl_seconds == before->ttl_seconds &&
        row->expiry_cascades == before->expiry_cascades)
        return BOUGH_OK;
    return bough_branches_set_expiry(cat, row, err);
}

/* The expiry of what takes a place is that of the place: neither that which it had to be looked at,
 * nor any where it is the default branch or protected. */
static int replace_life(bough_catalogue *cat, const bough_branch_row *restored,
                        const bough_branch_row *target, const char *old_name, int64_t now_ms,
                        bough_error *err) {
    bough_branch_row in = *restored, out = *target;
    (void)snprintf(in.name, sizeof in.name, "%s", target->name);
    (void)snprintf(out.name, sizeof out.name, "%s", old_name);
    in.is_default = restored->is_default || target->is_default;
    out.is_default = false;
    bool may_expire = !in.is_default && !in.is_protected;
    in.expires_ms = may_expire ? target->expires_ms : 0;
    in.ttl_seconds = may_expire ? target->ttl_seconds : 0;
    in.expiry_cascades = may_expire && target->expiry_cascades;
    int rc = set_life(cat, restored, &in, now_ms, err);
    return rc ? rc : set_life(cat, target, &out, now_ms, err);
}

int bough_restored_replace(bough_catalogue *cat, const bough_branch_row *restored,
                           const bough_branch_row *target, const char *old_name, int64_t now_ms,
                           bough_error *err) {
    int rc = bough_branches_rename(cat, target->id, old_name, err);
    if (!rc) rc = bough_branches_rename(cat, restored->id, target->name, err);
    if (!rc) rc = swap_endpoints(cat, restored->id, target->id, err);
    if (!rc && target->is_default)
        rc = bough_branches_set_default(cat, target->project_id, restored->id, err);
    if (!rc) rc = replace_life(cat, restored, target, old_name, now_ms, err);
    if (!rc) rc = bough_schedules_move(cat, target->id, restored->id, err);
    if (!rc)
        rc = bough_query_run(
            NULL, cat, err,
            "UPDATE roles SET is_unsure = 1, secret = (SELECT t.secret FROM roles t WHERE"
            " t.branch_id = ?2 AND t.name = roles.name) WHERE branch_id = ?1 AND"
            " EXISTS (SELECT 1 FROM roles t WHERE t.branch_id = ?2 AND t.name ="
            " roles.name AND t.secret IS NOT NULL)",
            "ss", restored->id, target->id);
    if (!rc)
        rc = bough_query_run(NULL, cat, err, "UPDATE restored SET is_final = 1 WHERE branch_id = ?",
                             "s", restored->id);
    return rc;
}
