/* The life cycle of branches: times, durations, rules, and the tables behind them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "model/catalogue.h"
#include "model/expiry.h"
#include "model/rules.h"
#include "model/snapshots.h"
#include "model/thinning.h"
#include "util/fs.h"
#include "util/when.h"

#define HOUR ((int64_t)3600000)
#define DAY (24 * HOUR)
#define NOW ((int64_t)1764082800000) /* 2025-11-25T15:00:00Z */

static char dir[64], path[128];
static bough_catalogue *cat;

static int open_catalogue(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/bough-test-life-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    (void)snprintf(path, sizeof path, "%s/bough.db", dir);
    return bough_catalogue_open(&cat, path, NULL);
}

static int close_catalogue(void **state) {
    (void)state;
    bough_catalogue_close(cat);
    cat = NULL;
    return bough_rmtree(dir, NULL);
}

static void run_sql(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static bough_branch_row row_of(const char *id, const char *name, const char *parent) {
    bough_branch_row row = {.is_default = !*parent, .created_ms = 1, .updated_ms = 1};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.project_id, sizeof row.project_id, "p");
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    (void)snprintf(row.parent_id, sizeof row.parent_id, "%s", parent);
    (void)snprintf(row.state, sizeof row.state, "ready");
    return row;
}

static void put(const char *id, const char *name, const char *parent, int64_t expires_ms,
                bool cascades) {
    bough_branch_row row = row_of(id, name, parent);
    row.expires_ms = expires_ms;
    row.ttl_seconds = expires_ms ? (expires_ms - NOW) / 1000 : 0;
    row.expiry_cascades = cascades;
    assert_int_equal(bough_branches_insert(cat, &row, NULL), BOUGH_OK);
}

static void put_main(void) {
    bough_project_row project = {.id = "p", .name = "shop", .pg_major = 15};
    assert_int_equal(bough_projects_insert(cat, &project, NULL), BOUGH_OK);
    put("main", "main", "", 0, false);
}

static bough_branch_row get(const char *id) {
    bough_branch_row row;
    assert_int_equal(bough_branches_get_any(&row, cat, id, NULL), BOUGH_OK);
    return row;
}

/* Ids of a list, joined by blanks. */
static const char *joined(bough_id_list ids, size_t n) {
    static char text[512];
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        size_t at = strlen(text);
        (void)snprintf(text + at, sizeof text - at, "%s%s", i ? " " : "", ids[i]);
    }
    free(ids);
    return text;
}

static const char *due(int64_t now_ms) {
    bough_id_list ids;
    size_t n;
    assert_int_equal(bough_branches_due(&ids, &n, cat, now_ms, NULL), BOUGH_OK);
    return joined(ids, n);
}

static const char *purgeable(int64_t deleted_ms) {
    bough_id_list ids;
    size_t n;
    assert_int_equal(bough_branches_purgeable(&ids, &n, cat, deleted_ms, NULL), BOUGH_OK);
    return joined(ids, n);
}

static const char *to_warn(int64_t now_ms) {
    bough_id_list ids;
    size_t n;
    assert_int_equal(bough_branches_to_warn(&ids, &n, cat, now_ms, NULL), BOUGH_OK);
    return joined(ids, n);
}

static int64_t next_event(int64_t now_ms) {
    int64_t at = -1;
    assert_int_equal(bough_branches_next_event(&at, cat, now_ms, NULL), BOUGH_OK);
    return at;
}

/* ---- times and durations ---- */

static void a_time_is_read_with_its_zone(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"2025-11-25T15:00:00Z", NOW},
        {"2025-11-25t15:00:00z", NOW},
        {"2025-11-25 16:00:00+01:00", NOW},
        {"2025-11-25T09:30:00-05:30", NOW},
        {"2025-11-25T15:00:00-00:00", NOW},
        {"2025-11-25T15:00:00.25Z", NOW + 250},
        {"2025-11-25T15:00:00.123456789Z", NOW + 123},
        {"1970-01-01T00:00:00Z", 0},
        {"2024-02-29T00:00:00Z", 1709164800000},
        {"2016-12-31T23:59:60Z", 1483228800000},
        {"9999-12-31T23:59:59Z", 253402300799000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t ms = -1;
        assert_int_equal(bough_when_time(&ms, cases[i].text, NULL), BOUGH_OK);
        assert_int_equal(ms, cases[i].ms);
    }
}

static void what_is_no_time_with_a_zone_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "now",
                                      "2025-11-25",
                                      "2025-11-25T15:00Z",
                                      "2025-11-25T15:00:00",
                                      "2025-11-25T15:00:00+01",
                                      "2025-11-25T15:00:00+0100",
                                      "2025-11-25T15:00:00+24:00",
                                      "2025-11-25T15:00:00+01:60",
                                      "2025-11-25T15:00:00.Z",
                                      "2025-11-25T15:00:00Z ",
                                      " 2025-11-25T15:00:00Z",
                                      "2025-11-25T24:00:00Z",
                                      "2025-11-25T15:60:00Z",
                                      "2025-11-25T15:00:61Z",
                                      "2025-13-01T00:00:00Z",
                                      "2025-00-01T00:00:00Z",
                                      "2025-02-29T00:00:00Z",
                                      "2025-04-31T00:00:00Z",
                                      "2025-11-00T00:00:00Z",
                                      "1969-12-31T23:59:59Z",
                                      "-025-11-25T15:00:00Z",
                                      "12025-11-25T15:00:00Z",
                                      "2025-11-25T15:00:00+-1:00",
                                      NULL};
    bough_error err;
    for (int i = 0; bad[i]; i++) {
        int64_t ms;
        assert_int_equal(bough_when_time(&ms, bad[i], &err), BOUGH_E_INVALID);
        assert_true(err.hint[0]);
    }
}

static void a_duration_is_read_in_its_units(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds;
    } cases[] = {{"1s", 1},
                 {"90m", 5400},
                 {"12h", 43200},
                 {"7d", 604800},
                 {"2w", 1209600},
                 {"1d12h", 129600},
                 {"1w1d1h1m1s", 694861},
                 {"007d", 604800},
                 {"36525d", 3155760000}};
    static const char *const bad[] = {
        "",   "7",    "d",    "-1d",  "+1d", "1.5h", "1 d", " 1d",    "1d ",
        "0s", "0d0h", "1h1d", "1d1d", "1D",  "1x",   "1dd", "36526d", "99999999999999999999d",
        "1y", "1d12", NULL};
    int64_t seconds;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(bough_when_duration(&seconds, cases[i].text, NULL), BOUGH_OK);
        assert_int_equal(seconds, cases[i].seconds);
    }
    for (int i = 0; bad[i]; i++)
        assert_int_equal(bough_when_duration(&seconds, bad[i], NULL), BOUGH_E_INVALID);
}

/* ---- rules ---- */

static void an_expiry_is_in_the_future_and_in_whole_seconds(void **state) {
    (void)state;
    bough_branch_row row = row_of("a", "a", "main");
    assert_int_equal(bough_expiry_at(&row, "2025-11-25T15:00:00.999Z", NOW, NULL), BOUGH_E_INVALID);
    assert_int_equal(bough_expiry_at(&row, "2025-11-25T14:59:59Z", NOW, NULL), BOUGH_E_INVALID);
    assert_int_equal(row.expires_ms, 0);
    assert_int_equal(bough_expiry_at(&row, "2025-11-25T15:00:10.7Z", NOW, NULL), BOUGH_OK);
    assert_int_equal(row.expires_ms, NOW + 10000);
    assert_int_equal(row.ttl_seconds, 10);
    assert_int_equal(bough_expiry_at(&row, "2125-01-01T00:00:00Z", NOW, NULL), BOUGH_OK);
    assert_int_equal(bough_expiry_in(&row, 60, NOW + 1, NULL), BOUGH_OK);
    assert_int_equal(row.expires_ms, NOW + 61000); /* not a moment before */
    assert_int_equal(bough_expiry_in(&row, 60, NOW, NULL), BOUGH_OK);
    assert_int_equal(row.expires_ms, NOW + 60000);
    assert_int_equal(row.ttl_seconds, 60);
    static const long long bad[] = {0, -1, 3155760001LL, INT64_MAX, INT64_MIN};
    for (int i = 0; i < 5; i++)
        assert_int_equal(bough_expiry_in(&row, bad[i], NOW, NULL), BOUGH_E_INVALID);
}

static void a_lifetime_is_given_again_and_never_ends_earlier(void **state) {
    (void)state;
    bough_branch_row row = row_of("a", "a", "main");
    assert_int_equal(bough_expiry_in(&row, 60, NOW, NULL), BOUGH_OK);
    bough_expiry_renew(&row, NOW + HOUR);
    assert_int_equal(row.expires_ms, NOW + HOUR + 60000);
    assert_int_equal(row.ttl_seconds, 60);
    /* one that is longer than any that is given again */
    assert_int_equal(bough_expiry_at(&row, "2200-01-01T00:00:00Z", NOW, NULL), BOUGH_OK);
    assert_true(row.ttl_seconds > BOUGH_LONGEST_SECONDS);
    int64_t was_ms = row.expires_ms;
    bough_expiry_renew(&row, NOW + HOUR);
    assert_int_equal(row.expires_ms, was_ms);
    bough_expiry_renew(&row, was_ms + HOUR);
    assert_int_equal(row.expires_ms, was_ms + HOUR + BOUGH_LONGEST_SECONDS * 1000);
}

static void ci_and_temporary_names_always_expire(void **state) {
    (void)state;
    static const char *const names[] = {"ci-1", "tmp-x", "ci-", NULL}, *const others[] = {
                                                                           "ci",     "cicada",
                                                                           "a-ci-1", "temp-1",
                                                                           "CI-1",   NULL};
    for (int i = 0; names[i]; i++) {
        bough_branch_row row = row_of("a", names[i], "main");
        assert_int_equal(bough_rule_life(&row, NULL), BOUGH_E_PRECONDITION);
        bough_expiry_default(&row, NOW);
        assert_int_equal(row.expires_ms, NOW + DAY);
        assert_int_equal(bough_rule_life(&row, NULL), BOUGH_OK);
        bough_expiry_default(&row, NOW + HOUR); /* one that has an expiry keeps it */
        assert_int_equal(row.expires_ms, NOW + DAY);
        row = row_of("a", names[i], "main");
        row.is_protected = true;
        bough_expiry_default(&row, NOW);
        assert_int_equal(row.expires_ms, 0);
        assert_int_equal(bough_rule_life(&row, NULL), BOUGH_OK);
        row = row_of("a", names[i], "");
        row.is_default = false; /* a root that is not the default any more */
        bough_expiry_default(&row, NOW);
        assert_int_equal(row.expires_ms, 0);
        assert_int_equal(bough_rule_life(&row, NULL), BOUGH_OK);
    }
    for (int i = 0; others[i]; i++) {
        bough_branch_row row = row_of("a", others[i], "main");
        bough_expiry_default(&row, NOW);
        assert_int_equal(row.expires_ms, 0);
    }
}

static int64_t next_of(const char *frequency, int hour, int day, int month, const char *after) {
    bough_schedule_row row = {.hour = hour, .day = day, .month = month};
    int64_t ms;
    (void)snprintf(row.frequency, sizeof row.frequency, "%s", frequency);
    assert_int_equal(bough_rule_schedule(&row, NULL), BOUGH_OK);
    assert_int_equal(bough_when_time(&ms, after, NULL), BOUGH_OK);
    return bough_schedule_next(&row, ms);
}

static void a_schedule_knows_its_next_time(void **state) {
    (void)state;
    static const struct {
        const char *frequency;
        int hour, day, month;
        const char *after, *next;
    } cases[] = {
        {"hourly", -1, 0, 0, "2026-11-25T06:00:00Z", "2026-11-25T07:00:00Z"},
        {"hourly", -1, 0, 0, "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"},
        {"daily", 3, 0, 0, "2026-11-25T02:59:59Z", "2026-11-25T03:00:00Z"},
        {"daily", 3, 0, 0, "2026-11-25T03:00:00Z", "2026-11-26T03:00:00Z"},
        {"daily", -1, 0, 0, "2026-11-30T12:00:00Z", "2026-12-01T00:00:00Z"},
        {"weekly", 5, 1, 0, "2026-11-25T00:00:00Z", "2026-11-30T05:00:00Z"}, /* a Wednesday */
        {"weekly", 5, 7, 0, "2026-11-29T04:00:00Z", "2026-11-29T05:00:00Z"}, /* a Sunday */
        {"weekly", -1, 0, 0, "2026-11-29T04:00:00Z", "2026-11-30T00:00:00Z"},
        {"monthly", 1, 31, 0, "2027-01-31T01:00:00Z", "2027-02-28T01:00:00Z"},
        {"monthly", -1, 0, 0, "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
        {"yearly", 0, 29, 2, "2026-11-25T00:00:00Z", "2027-02-28T00:00:00Z"},
        {"yearly", 0, 29, 2, "2027-11-25T00:00:00Z", "2028-02-29T00:00:00Z"},
        {"yearly", -1, 0, 0, "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t wanted;
        assert_int_equal(bough_when_time(&wanted, cases[i].next, NULL), BOUGH_OK);
        assert_int_equal(next_of(cases[i].frequency, cases[i].hour, cases[i].day, cases[i].month,
                                 cases[i].after),
                         wanted);
    }
}

static void protected_and_default_branches_do_not_expire(void **state) {
    (void)state;
    bough_error err;
    bough_branch_row row = row_of("a", "a", "main");
    row.expires_ms = NOW;
    assert_int_equal(bough_rule_life(&row, NULL), BOUGH_OK);
    row.is_protected = true;
    assert_int_equal(bough_rule_life(&row, &err), BOUGH_E_PRECONDITION);
    assert_non_null(strstr(err.message, "protected"));
    row.is_protected = false;
    row.is_default = true;
    assert_int_equal(bough_rule_life(&row, &err), BOUGH_E_PRECONDITION);
    assert_non_null(strstr(err.message, "default"));
}

static void what_is_protected_default_or_a_parent_is_not_deleted(void **state) {
    (void)state;
    bough_branch_row row = row_of("a", "a", "main");
    assert_int_equal(bough_rule_may_delete(&row, NULL), BOUGH_OK);
    assert_int_equal(bough_rule_may_change(&row, "reset", NULL), BOUGH_OK);
    row.has_live_children = true;
    assert_int_equal(bough_rule_may_delete(&row, NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_rule_may_change(&row, "reset", NULL), BOUGH_OK);
    row.is_protected = true;
    bough_error err;
    assert_int_equal(bough_rule_may_delete(&row, NULL), BOUGH_E_PRECONDITION);
    assert_int_equal(bough_rule_may_change(&row, "reset", &err), BOUGH_E_PRECONDITION);
    assert_non_null(strstr(err.message, "cannot be reset"));
    row = row_of("a", "a", "main");
    row.is_default = true;
    assert_int_equal(bough_rule_may_delete(&row, NULL), BOUGH_E_PRECONDITION);
    row = row_of("a", "a", ""); /* a root that is not the default any more */
    row.is_default = false;
    assert_int_equal(bough_rule_may_delete(&row, NULL), BOUGH_OK);
}

static void warnings_come_a_day_and_an_hour_before_or_sooner_for_short_lives(void **state) {
    (void)state;
    static const struct {
        int64_t ttl_seconds, left_ms;
        int stage;
    } cases[] = {
        {604800, 25 * HOUR, 0}, {604800, 24 * HOUR, 1},    {604800, HOUR + 1, 1}, {604800, HOUR, 2},
        {604800, -HOUR, 2},     {86400, 12 * HOUR + 1, 0}, {86400, 12 * HOUR, 1}, {86400, HOUR, 2},
        {600, 300001, 0},       {600, 300000, 1},          {600, 60001, 1},       {600, 60000, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bough_branch_row row = row_of("a", "a", "main");
        row.expires_ms = NOW + cases[i].left_ms;
        row.ttl_seconds = cases[i].ttl_seconds;
        assert_int_equal(bough_expiry_stage(&row, NOW), cases[i].stage);
    }
    bough_branch_row never = row_of("a", "a", "main");
    assert_int_equal(bough_expiry_stage(&never, NOW), 0);
}

/* ---- tables ---- */

static void a_buried_branch_frees_its_name_and_can_come_back(void **state) {
    (void)state;
    bough_branch_row row, *rows;
    bough_endpoint_row endpoint = {.id = "ep", .project_id = "p", .branch_id = "a"}, back;
    bough_error err = {0};
    size_t n;
    put_main();
    put("a", "work", "main", 0, false);
    put("b", "child", "a", 0, false);
    assert_int_equal(bough_endpoints_insert(cat, &endpoint, NULL), BOUGH_OK);
    assert_true(get("a").has_live_children);
    assert_int_equal(bough_branches_bury(cat, "b", NOW, NULL), BOUGH_OK);
    assert_false(get("a").has_live_children);
    assert_int_equal(bough_branches_bury(cat, "a", NOW, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_bury(cat, "a", NOW + 5, NULL), BOUGH_OK); /* changes nothing */
    row = get("a");
    assert_string_equal(row.name, "work");
    assert_int_equal(row.deleted_ms, NOW);
    assert_string_equal(get("b").parent_name, "work");
    assert_int_equal(bough_branches_get(&row, cat, "p", "a", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_branches_find(&row, cat, "p", "work", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_branches_get_deleted(&row, cat, "p", "a", NULL), BOUGH_OK);
    assert_int_equal(bough_branches_get_deleted(&row, cat, "p", "main", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_endpoints_get(&back, cat, "p", "ep", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_branches_list_live(&rows, &n, cat, "p", NULL), BOUGH_OK);
    assert_int_equal(n, 1);
    free(rows);
    assert_int_equal(bough_branches_list(&rows, &n, cat, NULL, NULL), BOUGH_OK);
    assert_int_equal(n, 3);
    free(rows);
    put("a2", "work", "main", 0, false); /* twice deleted under one name, too */
    assert_int_equal(bough_branches_bury(cat, "a2", NOW, NULL), BOUGH_OK);
    put("a3", "work", "main", 0, false);
    assert_int_equal(bough_branches_recover(cat, "a", "work", &err), BOUGH_E_CONFLICT);
    assert_non_null(strstr(err.hint, "--name"));
    assert_int_equal(get("a").deleted_ms, NOW);
    assert_int_equal(bough_branches_recover(cat, "a", "old work", NULL), BOUGH_OK);
    assert_int_equal(bough_branches_find(&row, cat, "p", "old work", NULL), BOUGH_OK);
    assert_string_equal(row.id, "a");
    assert_int_equal(bough_endpoints_get(&back, cat, "p", "ep", NULL), BOUGH_OK);
}

static void a_project_has_one_default_branch(void **state) {
    (void)state;
    bough_branch_row row;
    put_main();
    put("a", "a", "main", 0, false);
    assert_int_equal(bough_branches_set_default(cat, "p", "a", NULL), BOUGH_OK);
    assert_int_equal(bough_branches_get_default(&row, cat, "p", NULL), BOUGH_OK);
    assert_string_equal(row.id, "a");
    assert_false(get("main").is_default);
    assert_int_equal(get("main").updated_ms > 1, true);
    assert_int_equal(bough_branches_set_protected(cat, "a", true, NULL), BOUGH_OK);
    assert_true(get("a").is_protected);
}

static void what_is_due_waits_for_its_children_or_takes_them(void **state) {
    (void)state;
    put_main();
    put("later", "later", "main", NOW + DAY, false);
    put("wait", "wait", "main", NOW - HOUR, false);
    put("w1", "w1", "wait", 0, false);
    put("cascade", "cascade", "main", NOW - 2 * HOUR, true);
    put("c1", "c1", "cascade", 0, false);
    put("c2", "c2", "c1", 0, false);
    put("plain", "plain", "main", NOW, false);
    assert_string_equal(due(NOW - 3 * HOUR), "");
    assert_string_equal(due(NOW - 1), "cascade");
    assert_string_equal(due(NOW), "cascade plain");
    bough_id_list ids;
    size_t n;
    assert_int_equal(bough_branches_subtree(&ids, &n, cat, "cascade", NULL), BOUGH_OK);
    assert_string_equal(joined(ids, n), "c2 c1 cascade");
    assert_int_equal(bough_branches_bury(cat, "c2", NOW, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_subtree(&ids, &n, cat, "cascade", NULL), BOUGH_OK);
    assert_string_equal(joined(ids, n), "c1 cascade");
    assert_int_equal(bough_branches_bury(cat, "w1", NOW, NULL), BOUGH_OK);
    assert_string_equal(due(NOW), "cascade wait plain");
    bough_branch_row row = get("plain");
    row.expires_ms = row.ttl_seconds = 0;
    assert_int_equal(bough_branches_set_expiry(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_bury(cat, "wait", NOW, NULL), BOUGH_OK);
    assert_string_equal(due(NOW + DAY), "cascade later");
}

static void nothing_is_purged_while_another_stands_on_it(void **state) {
    (void)state;
    put_main();
    put("a", "a", "main", 0, false);
    put("b", "b", "a", 0, false);
    assert_int_equal(bough_branches_bury(cat, "b", NOW + 1, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_bury(cat, "a", NOW, NULL), BOUGH_OK);
    assert_string_equal(purgeable(NOW - 1), "");
    assert_string_equal(purgeable(NOW), "");
    assert_string_equal(purgeable(NOW + 1), "b");
    assert_int_equal(bough_branches_delete(cat, "a", NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_branches_delete(cat, "b", NULL), BOUGH_OK);
    assert_string_equal(purgeable(NOW + 1), "a");
}

static void warnings_are_due_once_each_and_the_next_event_is_known(void **state) {
    (void)state;
    bool any = true;
    put_main();
    assert_int_equal(bough_branches_any_timed(&any, cat, NULL), BOUGH_OK);
    assert_false(any);
    assert_int_equal(next_event(NOW), 0);
    put("a", "a", "main", NOW + 7 * DAY, false);
    assert_int_equal(bough_branches_any_timed(&any, cat, NULL), BOUGH_OK);
    assert_true(any);
    assert_int_equal(next_event(NOW), NOW + 6 * DAY);
    assert_string_equal(to_warn(NOW + 6 * DAY - 1), "");
    assert_string_equal(to_warn(NOW + 6 * DAY), "a");
    assert_int_equal(bough_branches_set_warnings(cat, "a", 1, NULL), BOUGH_OK);
    assert_string_equal(to_warn(NOW + 6 * DAY), "");
    assert_int_equal(next_event(NOW), NOW + 7 * DAY - HOUR);
    assert_string_equal(to_warn(NOW + 7 * DAY - HOUR), "a");
    assert_int_equal(bough_branches_set_warnings(cat, "a", 2, NULL), BOUGH_OK);
    assert_int_equal(next_event(NOW), NOW + 7 * DAY);
    assert_string_equal(to_warn(NOW + 7 * DAY - 1), "");
    bough_branch_row row = get("a");
    assert_int_equal(row.expiry_warnings, 2);
    row.expires_ms += DAY;
    assert_int_equal(bough_branches_set_expiry(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(get("a").expiry_warnings, 0);
    assert_int_equal(bough_branches_bury(cat, "a", NOW, NULL), BOUGH_OK);
    assert_int_equal(next_event(NOW), NOW + BOUGH_RECOVERABLE_MS);
    assert_string_equal(to_warn(NOW + 8 * DAY - 1), "");
}

static void the_clock_is_remembered(void **state) {
    (void)state;
    bough_clock_row row = {.wall_ms = NOW, .boot_ms = 12, .boot_id = "boot"}, back;
    assert_int_equal(bough_clock_get(&back, cat, NULL), BOUGH_E_NOTFOUND);
    for (int i = 0; i < 2; i++, row.wall_ms++) {
        assert_int_equal(bough_clock_set(cat, &row, NULL), BOUGH_OK);
        assert_int_equal(bough_clock_get(&back, cat, NULL), BOUGH_OK);
        assert_memory_equal(&back, &row, sizeof row);
    }
}

/* What version 1 made, as far as it matters here: the schema that was released, with rows. */
static void a_catalogue_of_version_1_is_brought_up_to_date(void **state) {
    (void)state;
    bough_branch_row row, *rows;
    size_t n;
    bough_catalogue_close(cat);
    cat = NULL;
    assert_int_equal(unlink(path), 0);
    run_sql(
        "CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, pg_major INTEGER"
        " NOT NULL, source TEXT NOT NULL, source_hash TEXT NOT NULL, created_ms INTEGER NOT NULL,"
        " updated_ms INTEGER NOT NULL) STRICT;"
        "CREATE TABLE branches (id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects"
        " ON DELETE CASCADE, name TEXT NOT NULL, parent_id TEXT REFERENCES branches, state TEXT"
        " NOT NULL, is_default INTEGER NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER"
        " NOT NULL, UNIQUE (project_id, name)) STRICT;"
        "CREATE INDEX branches_parent ON branches (parent_id);"
        "CREATE TABLE endpoints (id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects"
        " ON DELETE CASCADE, branch_id TEXT NOT NULL UNIQUE REFERENCES branches ON DELETE CASCADE,"
        " suspend_timeout_seconds INTEGER NOT NULL, last_error TEXT, created_ms INTEGER NOT NULL,"
        " updated_ms INTEGER NOT NULL) STRICT;"
        "CREATE TABLE api_keys (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,"
        " hash TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL) STRICT;"
        "CREATE TABLE roles (branch_id TEXT NOT NULL REFERENCES branches ON DELETE CASCADE, name"
        " TEXT NOT NULL, secret BLOB, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,"
        " PRIMARY KEY (branch_id, name)) STRICT;"
        "INSERT INTO projects VALUES ('p', 'shop', 15, '', '', 1, 1);"
        "INSERT INTO branches VALUES ('main', 'p', 'main', NULL, 'ready', 1, 1, 1);"
        "INSERT INTO branches VALUES ('a', 'p', 'ci-old', 'main', 'ready', 0, 2, 3);"
        "INSERT INTO endpoints VALUES ('ep', 'p', 'a', 0, NULL, 2, 2);"
        "INSERT INTO roles VALUES ('a', 'alice', x'01', 2, 2);"
        "PRAGMA user_version = 1");
    assert_int_equal(bough_catalogue_open(&cat, path, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_list(&rows, &n, cat, "p", NULL), BOUGH_OK);
    assert_int_equal(n, 2);
    assert_string_equal(rows[0].name, "ci-old");
    assert_string_equal(rows[0].parent_name, "main");
    assert_int_equal(rows[0].updated_ms, 3);
    /* nothing expires, is protected or deleted that was not */
    assert_true(!rows[0].expires_ms && !rows[0].is_protected && !rows[0].deleted_ms);
    free(rows);
    assert_string_equal(due(INT64_MAX), "");
    assert_int_equal(bough_branches_bury(cat, "a", NOW, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_recover(cat, "a", "ci-old", NULL), BOUGH_OK);
    bough_catalogue_close(cat);
    assert_int_equal(bough_catalogue_open(&cat, path, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_find(&row, cat, "p", "ci-old", NULL), BOUGH_OK);
    bough_role_row role;
    assert_int_equal(bough_roles_get(&role, cat, "a", "alice", NULL), BOUGH_OK);
    assert_true(role.secret_size == 1 && !role.is_unsure);
    /* its endpoint is the one that writes, and there may be others beside it now */
    bough_endpoint_row endpoint;
    assert_int_equal(bough_endpoints_of_branch(&endpoint, cat, "a", NULL), BOUGH_OK);
    assert_string_equal(endpoint.id, "ep");
    assert_int_equal(endpoint.most_quarters, BOUGH_SIZE_QUARTERS);
    assert_true(!endpoint.is_read_only && endpoint.created_ms == 2);
    (void)snprintf(endpoint.id, sizeof endpoint.id, "ep-2");
    assert_int_equal(bough_endpoints_insert(cat, &endpoint, NULL), BOUGH_E_CONFLICT);
    endpoint.is_read_only = true;
    assert_int_equal(bough_endpoints_insert(cat, &endpoint, NULL), BOUGH_OK);
}

/* Restore points as they are made one after the other, and thinned each time. */
static void restore_points_are_kept_densely_near_and_sparsely_far(void **state) {
    enum { MADE = 20000, MOST = 400 };
    const uint64_t apart = UINT64_C(128) << 20;
    static bough_point points[MOST];
    bool keep[MOST];
    size_t n = 0;
    (void)state;
    for (uint64_t i = 0; i < MADE; i++) {
        assert_true(n < MOST);
        points[n++] = (bough_point){.lsn = i * apart + i % 7, .time_ms = (int64_t)i};
        bough_thinning_choose(keep, points, n, apart, 10 * DAY);
        assert_true(keep[0] && keep[n - 1]);
        size_t left = 0;
        for (size_t k = 0; k < n; k++)
            if (keep[k]) points[left++] = points[k];
        n = left;
        uint64_t now = points[n - 1].lsn;
        for (size_t k = 1; k < n; k++) {
            uint64_t gap = points[k].lsn - points[k - 1].lsn, far = now - points[k - 1].lsn;
            /* nobody replays more than a 32nd of the way back, or one distance */
            assert_true(gap <= apart + 7 || gap <= far / BOUGH_POINTS_PER_DISTANCE);
        }
    }
    assert_true(points[0].lsn == 0);
    assert_true(n > 80 && n < 500);
    uint64_t now = points[n - 1].lsn;
    size_t recent = 0;
    for (size_t k = 0; k < n; k++) recent += now - points[k].lsn <= 32 * apart;
    assert_true(recent >= 32);
}

static void restore_points_of_a_quiet_branch_are_kept_by_time(void **state) {
    bough_point points[8];
    bool keep[8];
    (void)state;
    for (size_t i = 0; i < 8; i++)
        points[i] = (bough_point){.lsn = 1000 + i, .time_ms = (int64_t)i * DAY};
    bough_thinning_choose(keep, points, 8, UINT64_C(128) << 20, DAY);
    for (size_t i = 0; i < 8; i++) assert_true(keep[i]);
    bough_thinning_choose(keep, points, 8, UINT64_C(128) << 20, 2 * DAY);
    for (size_t i = 0; i < 8; i++) assert_int_equal(keep[i], i == 0 || i % 2);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, open_catalogue, close_catalogue)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_is_read_with_its_zone),
        cmocka_unit_test(what_is_no_time_with_a_zone_is_refused),
        cmocka_unit_test(a_duration_is_read_in_its_units),
        cmocka_unit_test(an_expiry_is_in_the_future_and_in_whole_seconds),
        cmocka_unit_test(a_lifetime_is_given_again_and_never_ends_earlier),
        cmocka_unit_test(ci_and_temporary_names_always_expire),
        cmocka_unit_test(a_schedule_knows_its_next_time),
        cmocka_unit_test(protected_and_default_branches_do_not_expire),
        cmocka_unit_test(what_is_protected_default_or_a_parent_is_not_deleted),
        cmocka_unit_test(warnings_come_a_day_and_an_hour_before_or_sooner_for_short_lives),
        cmocka_unit_test(restore_points_are_kept_densely_near_and_sparsely_far),
        cmocka_unit_test(restore_points_of_a_quiet_branch_are_kept_by_time),
        WITH(a_buried_branch_frees_its_name_and_can_come_back),
        WITH(a_project_has_one_default_branch),
        WITH(what_is_due_waits_for_its_children_or_takes_them),
        WITH(nothing_is_purged_while_another_stands_on_it),
        WITH(warnings_are_due_once_each_and_the_next_event_is_known),
        WITH(the_clock_is_remembered),
        WITH(a_catalogue_of_version_1_is_brought_up_to_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
