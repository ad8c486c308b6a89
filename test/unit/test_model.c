/* The catalogue and its rules: what is refused, what a transaction leaves, what a stored secret
 * withstands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <regex.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/ids.h"
#include "model/rules.h"
#include "model/secret.h"
#include "util/fs.h"

static char dir[64];
static bough_catalogue *cat;

static const char *in_dir(const char *name) {
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int open_catalogue(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/bough-test-model-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    return bough_catalogue_open(&cat, in_dir("bough.db"), NULL);
}

static int close_catalogue(void **state) {
    (void)state;
    bough_catalogue_close(cat);
    cat = NULL;
    return bough_rmtree(dir, NULL);
}

static void reopen(void) {
    bough_catalogue_close(cat);
    assert_int_equal(bough_catalogue_open(&cat, in_dir("bough.db"), NULL), BOUGH_OK);
}

/* SQL past the catalogue, on a connection of its own. */
static void run_sql(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(in_dir("bough.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* ---- rows ---- */

static bough_project_row project_row(const char *id, const char *name, int64_t created_ms) {
    bough_project_row row = {.pg_major = 15, .created_ms = created_ms, .updated_ms = created_ms};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    return row;
}

static bough_branch_row branch_row(const char *id, const char *project, const char *name,
                                   const char *parent) {
    bough_branch_row row = {.is_default = !*parent, .created_ms = 1, .updated_ms = 1};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.project_id, sizeof row.project_id, "%s", project);
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    (void)snprintf(row.parent_id, sizeof row.parent_id, "%s", parent);
    (void)snprintf(row.state, sizeof row.state, "ready");
    return row;
}

static bough_endpoint_row endpoint_row(const char *id, const char *project, const char *branch) {
    bough_endpoint_row row = {.suspend_timeout_seconds = 300,
                              .least_quarters = 1,
                              .most_quarters = 8,
                              .created_ms = 1,
                              .updated_ms = 1};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.project_id, sizeof row.project_id, "%s", project);
    (void)snprintf(row.branch_id, sizeof row.branch_id, "%s", branch);
    return row;
}

static bough_role_row role_row(const char *branch, const char *name, const char *secret) {
    bough_role_row row = {.secret_size = strlen(secret), .created_ms = 1, .updated_ms = 1};
    (void)snprintf(row.branch_id, sizeof row.branch_id, "%s", branch);
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    memcpy(row.secret, secret, strlen(secret));
    return row;
}

static bough_database_row database_row(const char *branch, const char *name, const char *owner) {
    bough_database_row row = {.created_ms = 1, .updated_ms = 1};
    (void)snprintf(row.branch_id, sizeof row.branch_id, "%s", branch);
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    (void)snprintf(row.owner, sizeof row.owner, "%s", owner);
    return row;
}

static bough_operation_row operation_row(const char *id, const char *project, const char *branch) {
    bough_operation_row row = {.created_ms = 5, .updated_ms = 7, .duration_ms = 2};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.project_id, sizeof row.project_id, "%s", project);
    (void)snprintf(row.branch_id, sizeof row.branch_id, "%s", branch);
    (void)snprintf(row.action, sizeof row.action, "create_branch");
    (void)snprintf(row.status, sizeof row.status, "finished");
    return row;
}

static void put_project(const char *id, const char *name, int64_t created_ms) {
    bough_project_row row = project_row(id, name, created_ms);
    assert_int_equal(bough_projects_insert(cat, &row, NULL), BOUGH_OK);
}

static void put_branch(const char *id, const char *project, const char *name, const char *parent) {
    bough_branch_row row = branch_row(id, project, name, parent);
    assert_int_equal(bough_branches_insert(cat, &row, NULL), BOUGH_OK);
}

/* Project "p" with branch "br-main". */
static void put_both(void) {
    put_project("p", "shop", 1);
    put_branch("br-main", "p", "main", "");
}

static int has_branch(const char *id) {
    bough_branch_row row;
    return bough_branches_get(&row, cat, "p", id, NULL);
}

/* ---- rules ---- */

static const char *repeat(const char *what, size_t n) {
    static char text[2048];
    size_t size = strlen(what);
    assert_true(n * size < sizeof text);
    for (size_t i = 0; i < n; i++) memcpy(text + i * size, what, size);
    text[n * size] = '\0';
    return text;
}

static void a_name_has_1_to_256_characters_of_text(void **state) {
    (void)state;
    static const char *const good[] = {"a", "feature/x 1",      "ünïcode", "..",
                                       "-", "\xf0\x9f\x8c\xb3", NULL};
    static const char *const bad[] = {"",
                                      " ",
                                      "a\nb",
                                      "a\x7f",
                                      "a\xc2\x85",
                                      "\xff",
                                      "\xc3",
                                      "a\xe2\x82",
                                      "\xc0\x80",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf0\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      NULL};
    for (int i = 0; good[i]; i++)
        assert_int_equal(bough_rule_name("branch", good[i], NULL), BOUGH_OK);
    for (int i = 0; bad[i]; i++)
        assert_int_equal(bough_rule_name("branch", bad[i], NULL), BOUGH_E_INVALID);
    assert_int_equal(bough_rule_name("branch", NULL, NULL), BOUGH_E_INVALID);
    assert_int_equal(bough_rule_name("branch", repeat("ü", 256), NULL), BOUGH_OK);
    assert_int_equal(bough_rule_name("branch", repeat("ü", 257), NULL), BOUGH_E_INVALID);
    bough_error err;
    assert_int_equal(bough_rule_name("project", "", &err), BOUGH_E_INVALID);
    assert_non_null(strstr(err.message, "project"));
}

static void a_name_is_cut_between_characters_where_it_leaves_no_room(void **state) {
    (void)state;
    assert_int_equal(bough_rule_name_room("main", " (old)"), 4);
    assert_int_equal(bough_rule_name_room(repeat("a", 300), ""), 256);
    assert_int_equal(bough_rule_name_room(repeat("ü", 256), " (ä)"), 2 * 252);
    assert_int_equal(bough_rule_name_room(repeat("\xf0\x9f\x8c\xb3", 256), " x"), 4 * 254);
    assert_int_equal(bough_rule_name_room("ab\xf0\x9f\x8c 2026", " x"), 2);
    assert_int_equal(bough_rule_name_room("a", repeat("b", 257)), 0);
}

static void a_name_inside_postgresql_fits_there_and_is_nobodys(void **state) {
    (void)state;
    static const char *const good[] = {"neondb", "With Space", "a\"b", "ünïcode",
                                       "pgx",    "postgres",   NULL};
    static const char *const bad[] = {
        "",          "a\tb",         "pg_x",         "public",       "none",        "template0",
        "template1", "current_user", "session_user", "current_role", "bough_admin", "\xff",
        NULL};
    for (int i = 0; good[i]; i++)
        assert_int_equal(bough_rule_pg_name("role", good[i], NULL), BOUGH_OK);
    for (int i = 0; bad[i]; i++)
        assert_int_equal(bough_rule_pg_name("role", bad[i], NULL), BOUGH_E_INVALID);
    assert_int_equal(bough_rule_pg_name("role", repeat("a", 63), NULL), BOUGH_OK);
    assert_int_equal(bough_rule_pg_name("role", repeat("a", 64), NULL), BOUGH_E_INVALID);
    assert_int_equal(bough_rule_pg_name("role", repeat("ü", 32), NULL), BOUGH_E_INVALID);
}

static void a_suspend_timeout_is_never_default_or_in_range(void **state) {
    (void)state;
    static const long long good[] = {-1, 0, 60, 604800},
                           bad[] = {-2, 1, 59, 604801, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(bough_rule_suspend_timeout(good[i], 60, NULL), BOUGH_OK);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(bough_rule_suspend_timeout(bad[i], 60, NULL), BOUGH_E_INVALID);
}

/* ---- ids ---- */

static bool matches(const char *text, const char *pattern) {
    regex_t re;
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool found = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return found;
}

static void ids_look_as_neons_do(void **state) {
    (void)state;
    char id[BOUGH_ID_SIZE];
    for (int i = 0; i < 500; i++) {
        assert_int_equal(bough_ids_new(id, cat, "br-", NULL), BOUGH_OK);
        assert_true(matches(id, "^br-[a-z]+-[a-z]+-[0-9]{6}$"));
        assert_int_equal(bough_ids_new(id, cat, "ep-", NULL), BOUGH_OK);
        assert_true(matches(id, "^ep-[a-z]+-[a-z]+-[0-9]{6}$"));
        assert_true(strlen(id) <= BOUGH_ENDPOINT_ID_MAX);
        assert_int_equal(bough_ids_new(id, cat, "", NULL), BOUGH_OK);
        assert_true(matches(id, "^[a-z]+-[a-z]+-[0-9]{6}$"));
    }
    assert_int_equal(bough_ids_uuid(id, NULL), BOUGH_OK);
    assert_true(
        matches(id, "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"));
}

static void an_id_is_known_whichever_table_has_it(void **state) {
    (void)state;
    bool found = true;
    put_both();
    bough_endpoint_row endpoint = endpoint_row("ep-x", "p", "br-main");
    assert_int_equal(bough_endpoints_insert(cat, &endpoint, NULL), BOUGH_OK);
    static const char *const known[] = {"p", "br-main", "ep-x"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bough_catalogue_has_id(&found, cat, known[i], NULL), BOUGH_OK);
        assert_true(found);
    }
    assert_int_equal(bough_catalogue_has_id(&found, cat, "br-other", NULL), BOUGH_OK);
    assert_false(found);
}

/* ---- transactions ---- */

static void a_failed_transaction_leaves_nothing(void **state) {
    (void)state;
    bough_error err = {0};
    put_both();
    assert_int_equal(bough_catalogue_begin(cat, NULL), BOUGH_OK);
    put_branch("br-a", "p", "a", "br-main");
    bough_branch_row again = branch_row("br-b", "p", "a", "br-main");
    int rc = bough_branches_insert(cat, &again, &err);
    assert_int_equal(rc, BOUGH_E_CONFLICT);
    assert_string_equal(err.message, "branch already exists; branch_name:\"a\"");
    assert_int_equal(bough_catalogue_end(cat, rc, NULL), BOUGH_E_CONFLICT);
    assert_int_equal(has_branch("br-a"), BOUGH_E_NOTFOUND);
    assert_int_equal(has_branch("br-main"), BOUGH_OK);
    reopen();
    assert_int_equal(has_branch("br-a"), BOUGH_E_NOTFOUND);
}

static void a_commit_is_one_and_lasts(void **state) {
    (void)state;
    put_both();
    uint64_t before = bough_catalogue_commits(cat);
    assert_int_equal(bough_catalogue_begin(cat, NULL), BOUGH_OK);
    put_branch("br-a", "p", "a", "br-main");
    put_branch("br-b", "p", "b", "br-a");
    assert_int_equal(bough_catalogue_end(cat, BOUGH_OK, NULL), BOUGH_OK);
    assert_int_equal(bough_catalogue_commits(cat), before + 1);
    reopen();
    assert_int_equal(has_branch("br-a"), BOUGH_OK);
    assert_int_equal(has_branch("br-b"), BOUGH_OK);
}

static void rolled_back_by_hand_it_is_gone(void **state) {
    (void)state;
    put_both();
    assert_int_equal(bough_catalogue_begin(cat, NULL), BOUGH_OK);
    put_branch("br-a", "p", "a", "br-main");
    bough_catalogue_rollback(cat);
    assert_int_equal(has_branch("br-a"), BOUGH_E_NOTFOUND);
    put_branch("br-a", "p", "a", "br-main"); /* the catalogue goes on */
}

static void *insert_from_elsewhere(void *arg) {
    (void)arg;
    bough_branch_row row = branch_row("br-elsewhere", "p", "elsewhere", "br-main");
    return bough_branches_insert(cat, &row, NULL) == BOUGH_OK ? cat : NULL;
}

static void a_rollback_takes_nothing_of_another_thread(void **state) {
    (void)state;
    pthread_t thread;
    void *done = NULL;
    put_both();
    assert_int_equal(bough_catalogue_begin(cat, NULL), BOUGH_OK);
    assert_int_equal(pthread_create(&thread, NULL, insert_from_elsewhere, NULL), 0);
    put_branch("br-a", "p", "a", "br-main");
    bough_catalogue_rollback(cat);
    assert_int_equal(pthread_join(thread, &done), 0);
    assert_non_null(done);
    assert_int_equal(has_branch("br-a"), BOUGH_E_NOTFOUND);
    assert_int_equal(has_branch("br-elsewhere"), BOUGH_OK);
}

static void a_catalogue_of_a_newer_version_is_refused(void **state) {
    (void)state;
    bough_error err = {0};
    bough_catalogue *other = cat;
    put_both();
    bough_catalogue_close(cat);
    cat = NULL;
    run_sql("PRAGMA user_version = 4711");
    assert_int_equal(bough_catalogue_open(&other, in_dir("bough.db"), &err), BOUGH_E_UNSUPPORTED);
    assert_null(other);
    assert_non_null(strstr(err.message, "4711"));
    assert_non_null(strstr(err.hint, "newer"));
}

static void what_is_no_catalogue_is_refused(void **state) {
    (void)state;
    bough_catalogue *other;
    static const char text[] =
        "this is a text file, and long enough to be taken for the header of a database";
    assert_int_equal(bough_write_file(in_dir("other.db"), text, sizeof text, 0600, NULL), BOUGH_OK);
    assert_int_equal(bough_catalogue_open(&other, in_dir("other.db"), NULL), BOUGH_E_CORRUPT);
    assert_null(other);
}

/* ---- projects ---- */

static void a_project_comes_back_as_it_was_put(void **state) {
    (void)state;
    bough_project_row row = project_row("p", "shop", 12), back;
    (void)snprintf(row.source, sizeof row.source, "postgres://u:***@h/d");
    (void)snprintf(row.source_hash, sizeof row.source_hash, "%s", repeat("a", 64));
    row.endpoints = (bough_endpoint_defaults){1, 8, -1};
    assert_int_equal(bough_projects_insert(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(bough_projects_get(&back, cat, "p", NULL), BOUGH_OK);
    assert_memory_equal(&back, &row, sizeof row);
    assert_int_equal(bough_projects_find(&back, cat, "shop", NULL), BOUGH_OK);
    assert_memory_equal(&back, &row, sizeof row);
    bough_error err = {0};
    assert_int_equal(bough_projects_get(&back, cat, "q", &err), BOUGH_E_NOTFOUND);
    assert_string_equal(err.message, "no project has the id \"q\"");
    assert_int_equal(bough_projects_find(&back, cat, "Shop", NULL), BOUGH_E_NOTFOUND);
}

static void a_project_says_what_its_new_endpoints_get(void **state) {
    (void)state;
    bough_project_row row;
    put_project("p", "shop", 1);
    assert_int_equal(bough_projects_get(&row, cat, "p", NULL), BOUGH_OK);
    assert_int_equal(row.endpoints.least_quarters, BOUGH_SIZE_QUARTERS);
    assert_int_equal(row.endpoints.most_quarters, BOUGH_SIZE_QUARTERS);
    assert_int_equal(row.endpoints.suspend_timeout_seconds, 0);
    const bough_endpoint_defaults other = {2, 12, 3600};
    assert_int_equal(bough_projects_set_endpoints(cat, "p", &other, NULL), BOUGH_OK);
    assert_int_equal(bough_projects_get(&row, cat, "p", NULL), BOUGH_OK);
    assert_memory_equal(&row.endpoints, &other, sizeof other);
    assert_true(row.updated_ms > row.created_ms);
}

static void a_project_name_is_taken_once(void **state) {
    (void)state;
    put_project("p", "shop", 1);
    put_project("q", "bank", 2);
    bough_project_row again = project_row("r", "shop", 3);
    assert_int_equal(bough_projects_insert(cat, &again, NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_projects_rename(cat, "q", "shop", NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_projects_rename(cat, "q", "mall", NULL), BOUGH_OK);
    bough_project_row row;
    assert_int_equal(bough_projects_get(&row, cat, "q", NULL), BOUGH_OK);
    assert_string_equal(row.name, "mall");
    assert_true(row.updated_ms > row.created_ms);
}

static void projects_are_listed_oldest_first_page_by_page(void **state) {
    (void)state;
    const bough_project_place a = {2, "a"};
    bough_project_row *rows;
    size_t n;
    put_project("c", "one", 1);
    put_project("b", "two", 2);
    put_project("a", "three", 2); /* the same moment: by id */
    assert_int_equal(bough_projects_list(&rows, &n, cat, NULL, NULL, 2, NULL), BOUGH_OK);
    assert_int_equal(n, 2);
    assert_string_equal(rows[0].id, "c");
    assert_string_equal(rows[1].id, "a");
    free(rows);
    assert_int_equal(bough_projects_list(&rows, &n, cat, NULL, &a, 2, NULL), BOUGH_OK);
    assert_int_equal(n, 1);
    assert_string_equal(rows[0].id, "b");
    free(rows);
    assert_int_equal(bough_projects_delete(cat, "a", NULL), BOUGH_OK); /* as one that is gone */
    assert_int_equal(bough_projects_list(&rows, &n, cat, NULL, &a, 2, NULL), BOUGH_OK);
    assert_int_equal(n, 1);
    assert_string_equal(rows[0].id, "b");
    free(rows);
    put_project("a", "three", 2);
    assert_int_equal(bough_projects_list(&rows, &n, cat, "THR", NULL, 2, NULL), BOUGH_OK);
    assert_int_equal(n, 1);
    assert_string_equal(rows[0].id, "a");
    free(rows);
    assert_int_equal(bough_projects_list(&rows, &n, cat, "%", NULL, 2, NULL), BOUGH_OK);
    assert_int_equal(n, 0);
    free(rows);
}

static void a_project_goes_with_all_it_has(void **state) {
    (void)state;
    bool found = true;
    put_both();
    put_branch("br-a", "p", "a", "br-main");
    put_branch("br-b", "p", "b", "br-a");
    bough_endpoint_row endpoint = endpoint_row("ep-x", "p", "br-a");
    bough_role_row role = role_row("br-a", "alice", "secret");
    bough_database_row database = database_row("br-a", "db", "alice");
    bough_operation_row operation = operation_row("op", "p", "br-a"), back;
    assert_int_equal(bough_endpoints_insert(cat, &endpoint, NULL), BOUGH_OK);
    assert_int_equal(bough_roles_insert(cat, &role, NULL), BOUGH_OK);
    assert_int_equal(bough_databases_insert(cat, &database, NULL), BOUGH_OK);
    assert_int_equal(bough_operations_insert(cat, &operation, NULL), BOUGH_OK);
    assert_int_equal(bough_projects_delete(cat, "p", NULL), BOUGH_OK);
    assert_int_equal(has_branch("br-b"), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_catalogue_has_id(&found, cat, "ep-x", NULL), BOUGH_OK);
    assert_false(found);
    assert_int_equal(bough_catalogue_has_secrets(&found, cat, NULL), BOUGH_OK);
    assert_false(found);
    assert_int_equal(bough_databases_get(&database, cat, "br-a", "db", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_operations_get(&back, cat, "p", "op", NULL), BOUGH_E_NOTFOUND);
}

/* ---- branches ---- */

static void a_branch_comes_back_with_its_parents_name(void **state) {
    (void)state;
    put_both();
    bough_branch_row row = branch_row("br-a", "p", "ü branch", "br-main"), back;
    assert_int_equal(bough_branches_insert(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_get(&back, cat, "p", "br-a", NULL), BOUGH_OK);
    (void)snprintf(row.parent_name, sizeof row.parent_name, "main");
    assert_memory_equal(&back, &row, sizeof row);
    assert_int_equal(bough_branches_find(&back, cat, "p", "ü branch", NULL), BOUGH_OK);
    assert_memory_equal(&back, &row, sizeof row);
    assert_int_equal(bough_branches_get_default(&back, cat, "p", NULL), BOUGH_OK);
    assert_string_equal(back.id, "br-main");
    assert_string_equal(back.parent_id, "");
    put_project("q", "bank", 2);
    assert_int_equal(bough_branches_get(&back, cat, "q", "br-a", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_branches_get_default(&back, cat, "q", NULL), BOUGH_E_NOTFOUND);
    put_branch("br-q", "q", "main", ""); /* names are a project's own */
}

static void branches_change_are_counted_and_listed(void **state) {
    (void)state;
    int64_t n = -1;
    bough_branch_row *rows, row;
    size_t count;
    put_both();
    put_branch("br-a", "p", "a", "br-main");
    put_branch("br-b", "p", "b", "br-main");
    assert_int_equal(bough_branches_count_children(&n, cat, "br-main", NULL), BOUGH_OK);
    assert_int_equal(n, 2);
    assert_int_equal(bough_branches_count_children(&n, cat, "br-a", NULL), BOUGH_OK);
    assert_int_equal(n, 0);
    assert_int_equal(bough_branches_rename(cat, "br-a", "b", NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_branches_rename(cat, "br-a", "c", NULL), BOUGH_OK);
    assert_int_equal(bough_branches_set_state(cat, "br-a", "failed", NULL), BOUGH_OK);
    assert_int_equal(bough_branches_get(&row, cat, "p", "br-a", NULL), BOUGH_OK);
    assert_string_equal(row.name, "c");
    assert_string_equal(row.state, "failed");
    put_project("q", "bank", 2);
    put_branch("br-q", "q", "main", "");
    assert_int_equal(bough_branches_list(&rows, &count, cat, "p", NULL), BOUGH_OK);
    assert_int_equal(count, 3);
    assert_string_equal(rows[0].id, "br-b");
    assert_string_equal(rows[2].id, "br-main");
    free(rows);
    assert_int_equal(bough_branches_list(&rows, &count, cat, NULL, NULL), BOUGH_OK);
    assert_int_equal(count, 4);
    free(rows);
}

static void a_parent_cannot_be_deleted(void **state) {
    (void)state;
    put_both();
    put_branch("br-a", "p", "a", "br-main");
    assert_int_equal(bough_branches_delete(cat, "br-main", NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_branches_delete(cat, "br-a", NULL), BOUGH_OK);
    assert_int_equal(has_branch("br-a"), BOUGH_E_NOTFOUND);
    assert_int_equal(has_branch("br-main"), BOUGH_OK);
    bough_branch_row orphan = branch_row("br-c", "p", "c", "br-nowhere");
    assert_int_equal(bough_branches_insert(cat, &orphan, NULL), BOUGH_E_CONFLICT);
}

static void a_branch_gets_its_parents_roles_and_databases(void **state) {
    (void)state;
    bough_role_row alice = role_row("br-main", "alice", "secret"),
                   bob = role_row("br-main", "bob", ""), *roles;
    bough_database_row one = database_row("br-main", "one", "alice"),
                       two = database_row("br-main", "two", "bob"), *databases;
    size_t n;
    put_both();
    put_branch("br-a", "p", "a", "br-main");
    assert_int_equal(bough_roles_insert(cat, &alice, NULL), BOUGH_OK);
    bob.is_unsure = true;
    assert_int_equal(bough_roles_insert(cat, &bob, NULL), BOUGH_OK);
    assert_int_equal(bough_databases_insert(cat, &one, NULL), BOUGH_OK);
    assert_int_equal(bough_databases_insert(cat, &two, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_copy_contents(cat, "br-main", "br-a", NULL), BOUGH_OK);
    assert_int_equal(bough_roles_list(&roles, &n, cat, "br-a", NULL), BOUGH_OK);
    assert_int_equal(n, 2);
    assert_string_equal(roles[0].name, "alice");
    assert_int_equal(roles[0].secret_size, 6);
    assert_memory_equal(roles[0].secret, "secret", 6);
    assert_int_equal(roles[1].secret_size, 0);
    assert_true(!roles[0].is_unsure && roles[1].is_unsure); /* whatever it is, it is copied */
    free(roles);
    assert_int_equal(bough_databases_list(&databases, &n, cat, "br-a", NULL), BOUGH_OK);
    assert_int_equal(n, 2);
    assert_string_equal(databases[0].name, "one");
    assert_string_equal(databases[1].owner, "bob");
    free(databases);
}

/* ---- endpoints ---- */

static void a_branch_has_one_endpoint_that_writes(void **state) {
    (void)state;
    bough_error err = {0};
    bough_endpoint_row row = endpoint_row("ep-x", "p", "br-main"),
                       other = endpoint_row("ep-y", "p", "br-main"), back;
    put_both();
    assert_int_equal(bough_endpoints_of_branch(&back, cat, "br-main", &err), BOUGH_E_NOTFOUND);
    assert_true(err.hint[0]);
    assert_int_equal(bough_endpoints_insert(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_insert(cat, &other, NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_endpoints_get(&back, cat, "p", "ep-x", NULL), BOUGH_OK);
    assert_memory_equal(&back, &row, sizeof row);
    assert_int_equal(bough_endpoints_get(&back, cat, "q", "ep-x", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_endpoints_set_timeout(cat, "ep-x", 60, NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_set_size(cat, "ep-x", 2, 64, NULL), BOUGH_OK);
    assert_int_equal(bough_rule_size(2, 64, NULL), BOUGH_OK);
    assert_int_not_equal(bough_rule_size(2, 65, NULL), BOUGH_OK);
    assert_int_not_equal(bough_rule_size(3, 2, NULL), BOUGH_OK);
    assert_int_not_equal(bough_rule_size(0, 2, NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_set_error(cat, "ep-x", "it broke", NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_of_branch(&back, cat, "br-main", NULL), BOUGH_OK);
    assert_int_equal(back.suspend_timeout_seconds, 60);
    assert_string_equal(back.last_error, "it broke");
    bough_endpoint_row *rows;
    size_t n;
    assert_int_equal(bough_endpoints_list(&rows, &n, cat, "q", NULL), BOUGH_OK);
    assert_int_equal(n, 0);
    free(rows);
    assert_int_equal(bough_endpoints_list(&rows, &n, cat, NULL, NULL), BOUGH_OK);
    assert_int_equal(n, 1);
    free(rows);
    assert_int_equal(bough_endpoints_delete(cat, "ep-x", NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_get(&back, cat, "p", "ep-x", NULL), BOUGH_E_NOTFOUND);
}

static void a_branch_has_endpoints_that_only_read_beside_it(void **state) {
    (void)state;
    bough_endpoint_row writer = endpoint_row("ep-w", "p", "br-main"),
                       one = endpoint_row("ep-1", "p", "br-main"),
                       two = endpoint_row("ep-2", "p", "br-main"), back, *rows;
    size_t n;
    one.is_read_only = two.is_read_only = true;
    two.created_ms = one.created_ms + 1;
    put_both();
    assert_int_equal(bough_endpoints_insert(cat, &one, NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_of_branch(&back, cat, "br-main", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_endpoints_insert(cat, &writer, NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_insert(cat, &two, NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_of_branch(&back, cat, "br-main", NULL), BOUGH_OK);
    assert_memory_equal(&back, &writer, sizeof writer);
    assert_int_equal(bough_endpoints_list_reading(&rows, &n, cat, "br-main", NULL), BOUGH_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(&rows[0], &one, sizeof one);
    assert_memory_equal(&rows[1], &two, sizeof two);
    free(rows);
    assert_string_equal(bough_endpoint_home(&writer), "br-main");
    assert_string_equal(bough_endpoint_home(&one), "ep-1");
    assert_int_equal(bough_endpoints_at(&back, cat, "ep-1", NULL), BOUGH_OK);
    assert_memory_equal(&back, &one, sizeof one);
    assert_int_equal(bough_endpoints_at(&back, cat, "br-main", NULL), BOUGH_OK);
    assert_memory_equal(&back, &writer, sizeof writer);
    assert_int_equal(bough_endpoints_at(&back, cat, "ep-w", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_branches_delete(cat, "br-main", NULL), BOUGH_OK);
    assert_int_equal(bough_endpoints_find(&back, cat, "ep-2", NULL), BOUGH_E_NOTFOUND);
}

/* ---- roles and databases ---- */

static void a_role_keeps_its_secret_until_it_gets_another(void **state) {
    (void)state;
    bough_role_row row = role_row("br-main", "alice", "old"), back;
    bough_error err = {0};
    bool has = true;
    put_both();
    assert_int_equal(bough_catalogue_has_secrets(&has, cat, NULL), BOUGH_OK);
    assert_false(has);
    assert_int_equal(bough_roles_insert(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(bough_roles_insert(cat, &row, &err), BOUGH_E_CONFLICT);
    assert_string_equal(err.message, "role \"alice\" already exists");
    assert_int_equal(bough_roles_get(&back, cat, "br-main", "alice", NULL), BOUGH_OK);
    assert_memory_equal(&back, &row, sizeof row);
    assert_int_equal(bough_catalogue_has_secrets(&has, cat, NULL), BOUGH_OK);
    assert_true(has);
    bough_role_row fresh = role_row("br-main", "alice", "newer");
    fresh.is_unsure = true;
    assert_int_equal(bough_roles_set_secret(cat, &fresh, NULL), BOUGH_OK);
    assert_int_equal(bough_roles_get(&back, cat, "br-main", "alice", NULL), BOUGH_OK);
    assert_int_equal(back.secret_size, 5);
    assert_memory_equal(back.secret, "newer", 5);
    assert_true(back.is_unsure);
    fresh.is_unsure = false;
    assert_int_equal(bough_roles_set_secret(cat, &fresh, NULL), BOUGH_OK);
    assert_int_equal(bough_roles_get(&back, cat, "br-main", "alice", NULL), BOUGH_OK);
    assert_false(back.is_unsure);
    assert_int_equal(bough_roles_delete(cat, "br-main", "alice", NULL), BOUGH_OK);
    assert_int_equal(bough_roles_get(&back, cat, "br-main", "alice", &err), BOUGH_E_NOTFOUND);
    assert_string_equal(err.message, "no role is named \"alice\" on this branch");
}

static void a_database_gets_an_id_of_its_own_for_ever(void **state) {
    (void)state;
    bough_database_row row = database_row("br-main", "one", "alice"), back, again;
    put_both();
    assert_int_equal(bough_databases_insert(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(bough_databases_insert(cat, &row, NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_databases_get(&back, cat, "br-main", "one", NULL), BOUGH_OK);
    assert_true(back.id > 0);
    assert_int_equal(bough_databases_update(cat, back.id, "two", "bob", NULL), BOUGH_OK);
    assert_int_equal(bough_databases_get(&again, cat, "br-main", "one", NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_databases_get(&again, cat, "br-main", "two", NULL), BOUGH_OK);
    assert_int_equal(again.id, back.id);
    assert_string_equal(again.owner, "bob");
    assert_int_equal(bough_databases_insert(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(bough_databases_update(cat, back.id, "one", "bob", NULL), BOUGH_E_CONFLICT);
    assert_int_equal(bough_databases_get(&again, cat, "br-main", "one", NULL), BOUGH_OK);
    assert_int_equal(bough_databases_delete(cat, "br-main", "one", NULL), BOUGH_OK);
    assert_int_equal(bough_databases_insert(cat, &row, NULL), BOUGH_OK);
    assert_int_equal(bough_databases_get(&back, cat, "br-main", "one", NULL), BOUGH_OK);
    assert_true(back.id > again.id); /* no id is given twice */
}

/* ---- operations and keys ---- */

static void operations_are_listed_newest_first_and_outlive_branches(void **state) {
    (void)state;
    bough_operation_row *rows, back;
    size_t n;
    put_both();
    put_branch("br-a", "p", "a", "br-main");
    static const char *const ids[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++) {
        bough_operation_row row = operation_row(ids[i], "p", "br-a");
        assert_int_equal(bough_operations_insert(cat, &row, NULL), BOUGH_OK);
    }
    assert_int_equal(bough_branches_delete(cat, "br-a", NULL), BOUGH_OK);
    assert_int_equal(bough_operations_list(&rows, &n, cat, "p", 0, 2, NULL), BOUGH_OK);
    assert_int_equal(n, 2);
    assert_string_equal(rows[0].id, "three");
    assert_string_equal(rows[1].id, "two");
    int64_t before = rows[1].seq;
    free(rows);
    assert_int_equal(bough_operations_list(&rows, &n, cat, "p", before, 2, NULL), BOUGH_OK);
    assert_int_equal(n, 1);
    assert_string_equal(rows[0].id, "one");
    free(rows);
    assert_int_equal(bough_operations_get(&back, cat, "p", "two", NULL), BOUGH_OK);
    bough_operation_row want = operation_row("two", "p", "br-a");
    want.seq = back.seq;
    assert_memory_equal(&back, &want, sizeof want);
    assert_int_equal(bough_operations_get(&back, cat, "q", "two", NULL), BOUGH_E_NOTFOUND);
}

static void the_local_key_replaces_the_one_before(void **state) {
    (void)state;
    bough_api_key_row *rows, other = {.name = "other", .created_ms = 5};
    char hash[BOUGH_HASH_SIZE];
    size_t n;
    assert_int_equal(bough_secret_hash(other.hash, "two", 3, NULL), BOUGH_OK);
    assert_int_equal(bough_api_keys_insert(cat, &other, NULL), BOUGH_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bough_secret_hash(hash, i ? "new" : "one", 3, NULL), BOUGH_OK);
        assert_int_equal(bough_api_keys_set_local(cat, "default", hash, NULL), BOUGH_OK);
    }
    assert_int_equal(bough_api_keys_list(&rows, &n, cat, NULL), BOUGH_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(&rows[0], &other, sizeof other);
    assert_string_equal(rows[1].hash, hash);
    assert_true(rows[1].is_local);
    assert_int_equal(bough_api_keys_delete(cat, rows[1].id, NULL), BOUGH_E_NOTFOUND);
    assert_int_equal(bough_api_keys_delete(cat, rows[0].id, NULL), BOUGH_OK);
    assert_int_equal(bough_api_keys_delete(cat, rows[0].id, NULL), BOUGH_E_NOTFOUND);
    free(rows);
}

static void a_key_is_kept_whole_and_goes_with_what_it_is_for(void **state) {
    (void)state;
    bough_project_row project = project_row("p", "P", 1);
    bough_branch_row branch = branch_row("br-a", "p", "main", "");
    bough_api_key_row *rows,
        of_project = {
            .name = "a", .is_read_only = true, .created_ms = 7, .expires_ms = 9, .project_id = "p"};
    bough_api_key_row of_branch = {.name = "b", .project_id = "p", .branch_id = "br-a"};
    size_t n;
    assert_int_equal(bough_projects_insert(cat, &project, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_insert(cat, &branch, NULL), BOUGH_OK);
    assert_int_equal(bough_secret_hash(of_project.hash, "x", 1, NULL), BOUGH_OK);
    assert_int_equal(bough_secret_hash(of_branch.hash, "y", 1, NULL), BOUGH_OK);
    assert_int_equal(bough_api_keys_insert(cat, &of_project, NULL), BOUGH_OK);
    assert_int_equal(bough_api_keys_insert(cat, &of_branch, NULL), BOUGH_OK);
    of_project.last_used_ms = 11;
    (void)snprintf(of_project.last_used_from, sizeof of_project.last_used_from, "127.0.0.1");
    assert_int_equal(bough_api_keys_set_used(cat, &of_project, NULL), BOUGH_OK);
    assert_int_equal(bough_branches_delete(cat, "br-a", NULL), BOUGH_OK);
    assert_int_equal(bough_api_keys_list(&rows, &n, cat, NULL), BOUGH_OK);
    assert_int_equal(n, 1);
    assert_memory_equal(&rows[0], &of_project, sizeof of_project);
    free(rows);
    assert_int_equal(bough_projects_delete(cat, "p", NULL), BOUGH_OK);
    assert_int_equal(bough_api_keys_list(&rows, &n, cat, NULL), BOUGH_OK);
    assert_int_equal(n, 0);
    free(rows);
}

static void templates_are_listed(void **state) {
    (void)state;
    char(*ids)[BOUGH_ID_SIZE];
    size_t n;
    assert_int_equal(bough_templates_insert(cat, "pg15", NULL), BOUGH_OK);
    assert_int_equal(bough_templates_insert(cat, "pg15", NULL), BOUGH_OK);
    assert_int_equal(bough_templates_list(&ids, &n, cat, NULL), BOUGH_OK);
    assert_int_equal(n, 1);
    assert_string_equal(ids[0], "pg15");
    free(ids);
}

/* ---- secrets ---- */

static const bough_secret_key a_key = {"0123456789abcdef0123456789abcde"};

static void a_sealed_password_opens_again_and_shows_nothing(void **state) {
    (void)state;
    unsigned char sealed[BOUGH_SECRET_SIZE], twice[BOUGH_SECRET_SIZE];
    size_t size, size_twice;
    char back[BOUGH_SECRET_SIZE];
    static const char password[] = "correct horse";
    assert_int_equal(bough_secret_seal(sealed, &size, &a_key, "alice", password, NULL), BOUGH_OK);
    assert_null(memmem(sealed, size, "correct", 7));
    assert_int_equal(bough_secret_open(back, sizeof back, &a_key, "alice", sealed, size, NULL),
                     BOUGH_OK);
    assert_string_equal(back, password);
    assert_int_equal(bough_secret_seal(twice, &size_twice, &a_key, "alice", password, NULL),
                     BOUGH_OK);
    assert_int_equal(size, size_twice);
    assert_memory_not_equal(sealed, twice, size); /* a fresh nonce each time */
    assert_int_equal(bough_secret_seal(sealed, &size, &a_key, "alice", "", NULL), BOUGH_OK);
    assert_int_equal(bough_secret_open(back, sizeof back, &a_key, "alice", sealed, size, NULL),
                     BOUGH_OK);
    assert_string_equal(back, "");
    assert_int_equal(bough_secret_seal(sealed, &size, &a_key, "alice", repeat("x", 228), NULL),
                     BOUGH_OK);
    assert_true(size <= BOUGH_SECRET_SIZE);
    assert_int_equal(bough_secret_seal(sealed, &size, &a_key, "alice", repeat("x", 229), NULL),
                     BOUGH_E_INVALID);
}

static void a_sealed_password_that_was_touched_does_not_open(void **state) {
    (void)state;
    unsigned char sealed[BOUGH_SECRET_SIZE];
    size_t size;
    char back[BOUGH_SECRET_SIZE];
    bough_error err = {0};
    assert_int_equal(bough_secret_seal(sealed, &size, &a_key, "alice", "correct horse", NULL),
                     BOUGH_OK);
    for (size_t i = 0; i < size; i++) {
        sealed[i] ^= 1;
        assert_int_equal(bough_secret_open(back, sizeof back, &a_key, "alice", sealed, size, &err),
                         BOUGH_E_CORRUPT);
        assert_null(strstr(back, "horse"));
        sealed[i] ^= 1;
    }
    for (size_t n = 0; n < size; n++)
        assert_int_equal(bough_secret_open(back, sizeof back, &a_key, "alice", sealed, n, NULL),
                         BOUGH_E_CORRUPT);
    assert_int_equal(bough_secret_open(back, 13, &a_key, "alice", sealed, size, NULL),
                     BOUGH_E_CORRUPT);
    assert_int_equal(bough_secret_open(back, sizeof back, &a_key, "mallory", sealed, size, NULL),
                     BOUGH_E_CORRUPT);
    bough_secret_key other = a_key;
    other.bytes[31] ^= 1;
    assert_int_equal(bough_secret_open(back, sizeof back, &other, "alice", sealed, size, NULL),
                     BOUGH_E_CORRUPT);
    assert_int_equal(bough_secret_open(back, sizeof back, &a_key, "alice", sealed, size, NULL),
                     BOUGH_OK);
    assert_non_null(strstr(err.message, "alice"));
}

static void the_key_file_is_private_and_made_only_where_nothing_needs_it(void **state) {
    (void)state;
    bough_secret_key one, two;
    struct stat st;
    assert_int_equal(bough_secret_key_open(&one, in_dir("key"), false, NULL), BOUGH_E_CORRUPT);
    assert_int_equal(stat(in_dir("key"), &st), -1);
    assert_int_equal(bough_secret_key_open(&one, in_dir("key"), true, NULL), BOUGH_OK);
    assert_int_equal(stat(in_dir("key"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(bough_secret_key_open(&two, in_dir("key"), false, NULL), BOUGH_OK);
    assert_memory_equal(&one, &two, sizeof one);
    assert_int_equal(bough_write_file(in_dir("key"), "short", 5, 0600, NULL), BOUGH_OK);
    assert_int_equal(bough_secret_key_open(&two, in_dir("key"), true, NULL), BOUGH_E_CORRUPT);
}

static void hashes_are_sha256_and_compare_as_a_whole(void **state) {
    (void)state;
    char hash[BOUGH_HASH_SIZE], other[BOUGH_HASH_SIZE];
    assert_int_equal(bough_secret_hash(hash, "abc", 3, NULL),
                     BOUGH_OK); /* FIPS 180-2, appendix B.1 */
    assert_string_equal(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    memcpy(other, hash, sizeof other);
    assert_true(bough_secret_hash_equal(hash, other));
    for (size_t i = 0; i < BOUGH_HASH_SIZE - 1; i++) {
        other[i] ^= 1;
        assert_false(bough_secret_hash_equal(hash, other));
        other[i] ^= 1;
    }
}

static void new_passwords_and_keys_are_long_plain_and_different(void **state) {
    (void)state;
    char one[BOUGH_PASSWORD_SIZE], two[BOUGH_PASSWORD_SIZE], key[BOUGH_API_KEY_SIZE],
        other[BOUGH_API_KEY_SIZE];
    assert_int_equal(bough_secret_password(one, NULL), BOUGH_OK);
    assert_int_equal(bough_secret_password(two, NULL), BOUGH_OK);
    assert_true(matches(one, "^bgh_[A-Za-z0-9_-]{24}$"));
    assert_string_not_equal(one, two);
    assert_int_equal(bough_secret_api_key(key, NULL), BOUGH_OK);
    assert_int_equal(bough_secret_api_key(other, NULL), BOUGH_OK);
    assert_true(matches(key, "^bough_[0-9a-f]{64}$"));
    assert_string_not_equal(key, other);
}

static void a_url_is_shown_without_its_password(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"postgres://u:s3cret@h:5432/d", "postgres://u:***@h:5432/d"},
        {"postgres://u:s3:cr@et@h/d", "postgres://u:***@h/d"},
        {"postgres://u@h/d", "postgres://u@h/d"},
        {"postgres://h/d?user=u&password=s3cret&sslmode=require",
         "postgres://h/d?user=u&password=***&sslmode=require"},
        {"postgres://h?password=s3cret", "postgres://h?password=***"},
        {"postgres://h/d?sslpassword=s3cret&a=b", "postgres://h/d?sslpassword=***&a=b"},
        {"/dumps/shop.dump", "/dumps/shop.dump"},
    };
    char out[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bough_secret_redact(out, sizeof out, cases[i][0]);
        assert_string_equal(out, cases[i][1]);
    }
    for (size_t room = 1; room < 40; room++) {
        bough_secret_redact(out, room, cases[3][0]);
        assert_true(strlen(out) < room);
        assert_null(strstr(out, "s3"));
    }
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, open_catalogue, close_catalogue)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_has_1_to_256_characters_of_text),
        cmocka_unit_test(a_name_is_cut_between_characters_where_it_leaves_no_room),
        cmocka_unit_test(a_name_inside_postgresql_fits_there_and_is_nobodys),
        cmocka_unit_test(a_suspend_timeout_is_never_default_or_in_range),
        WITH(ids_look_as_neons_do),
        WITH(an_id_is_known_whichever_table_has_it),
        WITH(a_failed_transaction_leaves_nothing),
        WITH(a_commit_is_one_and_lasts),
        WITH(rolled_back_by_hand_it_is_gone),
        WITH(a_rollback_takes_nothing_of_another_thread),
        WITH(a_catalogue_of_a_newer_version_is_refused),
        WITH(what_is_no_catalogue_is_refused),
        WITH(a_project_comes_back_as_it_was_put),
        WITH(a_project_says_what_its_new_endpoints_get),
        WITH(a_project_name_is_taken_once),
        WITH(projects_are_listed_oldest_first_page_by_page),
        WITH(a_project_goes_with_all_it_has),
        WITH(a_branch_comes_back_with_its_parents_name),
        WITH(branches_change_are_counted_and_listed),
        WITH(a_parent_cannot_be_deleted),
        WITH(a_branch_gets_its_parents_roles_and_databases),
        WITH(a_branch_has_one_endpoint_that_writes),
        WITH(a_branch_has_endpoints_that_only_read_beside_it),
        WITH(a_role_keeps_its_secret_until_it_gets_another),
        WITH(a_database_gets_an_id_of_its_own_for_ever),
        WITH(operations_are_listed_newest_first_and_outlive_branches),
        WITH(the_local_key_replaces_the_one_before),
        WITH(a_key_is_kept_whole_and_goes_with_what_it_is_for),
        WITH(templates_are_listed),
        cmocka_unit_test(a_sealed_password_opens_again_and_shows_nothing),
        cmocka_unit_test(a_sealed_password_that_was_touched_does_not_open),
        WITH(the_key_file_is_private_and_made_only_where_nothing_needs_it),
        cmocka_unit_test(hashes_are_sha256_and_compare_as_a_whole),
        cmocka_unit_test(new_passwords_and_keys_are_long_plain_and_different),
        cmocka_unit_test(a_url_is_shown_without_its_password),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
