/* The command line without a server: parser, distance, URIs, trees, progress. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bough/branch.h"
#include "cli/cli.h"
#include "cli/tree.h"
#include "cli/uri.h"
#include "client/nearest.h"
#include "client/request.h"

/* The command line's own main() is not linked. */
int cli_interrupts(void) {
    return 0;
}
void cli_interrupt_target(bough_client *client) {
    (void)client;
}
void cli_interrupt_hold(bool hold) {
    (void)hold;
}

#define ARGV_MAX 16

/* Parse a line whose words are separated by blanks. */
static int parse(cli_args *args, const char *line, bough_error *err) {
    static char text[512];
    static char *argv[ARGV_MAX + 1];
    int argc = 0;
    (void)snprintf(text, sizeof text, "bough %s", line);
    for (char *save = NULL, *word = strtok_r(text, " ", &save); word && argc < ARGV_MAX;
         word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    argv[argc] = NULL;
    return cli_parse(args, argc, argv, err);
}

static void parser_takes_values_in_either_form(void **state) {
    (void)state;
    cli_args args;
    bough_error err;
    assert_int_equal(parse(&args, "branch create fix --parent=staging", &err), BOUGH_OK);
    assert_string_equal(cli_get(&args, "parent"), "staging");
    assert_int_equal(parse(&args, "branch create --parent staging fix", &err), BOUGH_OK);
    assert_string_equal(cli_get(&args, "parent"), "staging");
    assert_string_equal(cli_word_get(&args, 0), "fix");
    assert_null(cli_word_get(&args, 1));
    assert_null(cli_get(&args, "project"));
    assert_int_equal(parse(&args, "branch list -p shop", &err), BOUGH_OK);
    assert_string_equal(cli_get(&args, "project"), "shop");
}

static void parser_takes_common_options_anywhere(void **state) {
    (void)state;
    cli_args args;
    bough_error err;
    assert_int_equal(parse(&args, "--json --store=/s branch --project shop list", &err), BOUGH_OK);
    assert_true(args.json);
    assert_string_equal(cli_get(&args, "store"), "/s");
    assert_string_equal(cli_get(&args, "project"), "shop");
    assert_string_equal(args.group->name, "branch");
    assert_string_equal(args.command->name, "list");
}

static void parser_lets_the_last_of_equal_options_count(void **state) {
    (void)state;
    cli_args args;
    bough_error err;
    assert_int_equal(parse(&args, "status --store a --store b", &err), BOUGH_OK);
    assert_string_equal(cli_get(&args, "store"), "b");
}

static void parser_passes_on_what_follows_two_dashes(void **state) {
    (void)state;
    cli_args args;
    bough_error err;
    assert_int_equal(parse(&args, "psql main -- -c --json", &err), BOUGH_OK);
    assert_false(args.json);
    assert_int_equal(args.n_rest, 2);
    assert_string_equal(args.rest[1], "--json");
    assert_string_equal(cli_word_get(&args, 0), "main");
    assert_int_equal(parse(&args, "branch create -- --odd", &err), BOUGH_OK);
    assert_string_equal(cli_word_get(&args, 0), "--odd");
}

/* Parse a line that must be refused; the hint must hold `hint`. */
static void refuse(const char *line, const char *message, const char *hint) {
    cli_args args;
    bough_error err = {0};
    assert_int_equal(parse(&args, line, &err), BOUGH_E_USAGE);
    if (!strstr(err.message, message)) fail_msg("\"%s\" lacks \"%s\"", err.message, message);
    if (!strstr(err.hint, hint)) fail_msg("\"%s\" lacks \"%s\"", err.hint, hint);
}

static void parser_refuses_what_it_does_not_know_and_suggests(void **state) {
    (void)state;
    refuse("branch create x --parnet y", "\"--parnet\"", "`--parent`");
    refuse("branch create x --perent=y", "\"--perent\"", "`--parent`");
    refuse("brnach list", "\"brnach\"", "`bough branch`");
    refuse("branch lsit", "\"lsit\"", "`bough branch list`");
    refuse("zzzzzz", "\"zzzzzz\"", "`bough --help`");
    refuse("status --zzzzzz", "\"--zzzzzz\"", "`bough status --help`");
    refuse("status -x", "\"-x\"", "`bough status --help`");
    refuse("psql -c", "\"-c\"", "--");
    refuse("--project shop status", "\"--project\"", "");
    refuse("--yes project delete shop", "\"--yes\"", "");
}

static void parser_refuses_missing_and_surplus_arguments(void **state) {
    (void)state;
    refuse("branch create", "NAME is missing", "bough branch create NAME");
    refuse("branch rename a", "NAME is missing", "bough branch rename BRANCH NAME");
    refuse("export main", "DIR is missing", "bough export BRANCH DIR");
    refuse("branch create a b", "unexpected argument \"b\"", "bough branch create NAME");
    refuse("branch", "after \"branch\"", "`bough branch --help`");
    refuse("status --store", "needs a value", "--store=DIR");
    refuse("status --store=", "needs a value", "--store=DIR");
    refuse("psql --project -- x", "needs a value", "--project=PROJECT");
    refuse("status --json=yes", "takes no value", "");
}

static void parser_refuses_numbers_out_of_range(void **state) {
    (void)state;
    cli_args args;
    bough_error err;
    refuse("up --port 0", "from 1 to 65535", "");
    refuse("up --port 65536", "from 1 to 65535", "");
    refuse("up --port 7x", "from 1 to 65535", "");
    refuse("up --port +7", "from 1 to 65535", "");
    refuse("up --port 99999999999999999999", "from 1 to 65535", "");
    assert_int_equal(parse(&args, "up --port 7000", &err), BOUGH_OK);
    assert_int_equal(cli_get_number(&args, "port", 0), 7000);
    assert_int_equal(cli_get_number(&args, "absent", 5), 5);
}

static void parser_knows_json_even_when_it_refuses(void **state) {
    (void)state;
    cli_args args;
    bough_error err;
    assert_int_equal(parse(&args, "nonsense --json", &err), BOUGH_E_USAGE);
    assert_true(args.json);
}

static void parser_survives_any_short_line(void **state) {
    (void)state;
    static const char *const words[] = {"branch",    "create", "psql", "--",     "--json",
                                        "--store",   "=",      "-",    "--help", "x",
                                        "--parent=", "-p",     "up",   "--port"};
    const size_t n = sizeof words / sizeof words[0];
    for (size_t i = 0; i < n * n * n * n; i++) {
        char line[128];
        cli_args args;
        bough_error err = {0};
        (void)snprintf(line, sizeof line, "%s %s %s %s", words[i % n], words[i / n % n],
                       words[i / n / n % n], words[i / n / n / n]);
        int rc = parse(&args, line, &err);
        assert_true(rc == BOUGH_OK || (rc == BOUGH_E_USAGE && *err.message));
        if (rc == BOUGH_OK) assert_true(args.command || args.help || args.version);
    }
}

static void every_command_is_complete(void **state) {
    (void)state;
    for (const cli_command *top = cli_commands; top->name; top++) {
        assert_non_null(top->summary);
        const cli_command *c = top->children ? top->children : top;
        for (; c->name; c++) {
            assert_non_null(c->summary);
            assert_non_null(c->run);
            assert_true(c->max_words >= c->min_words && c->max_words <= CLI_WORDS_MAX);
            assert_true(!c->max_words == !c->words);
            for (const cli_option *o = c->options; o && o->name; o++)
                assert_true(o->help && o->help[0] && o->help[strlen(o->help) - 1] != '.');
            if (!top->children) break;
        }
    }
}

static void distance_counts_edits_and_swaps(void **state) {
    (void)state;
    assert_int_equal(bough_distance("", ""), 0);
    assert_int_equal(bough_distance("", "abc"), 3);
    assert_int_equal(bough_distance("abc", ""), 3);
    assert_int_equal(bough_distance("main", "main"), 0);
    assert_int_equal(bough_distance("main", "MAIN"), 0);
    assert_int_equal(bough_distance("mian", "main"), 1);
    assert_int_equal(bough_distance("man", "main"), 1);
    assert_int_equal(bough_distance("maint", "main"), 1);
    assert_int_equal(bough_distance("mein", "main"), 1);
    assert_int_equal(bough_distance("kitten", "sitting"), 3);
    assert_int_equal(bough_distance("ca", "abc"),
                     3); /* optimal string alignment, not the full form */
    char a[3 * BOUGH_NEAREST_MAX], b[3 * BOUGH_NEAREST_MAX];
    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    a[sizeof a - 1] = b[sizeof b - 1] = '\0';
    assert_int_equal(bough_distance(a, b), BOUGH_NEAREST_MAX);
}

static void nearest_suggests_only_what_may_be_meant(void **state) {
    (void)state;
    static const char *const names[] = {"main", NULL, "staging", "feature-login", "dev"};
    const size_t n = sizeof names / sizeof names[0];
    assert_string_equal(bough_nearest("mian", names, n), "main");
    assert_string_equal(bough_nearest("stagin", names, n), "staging");
    assert_string_equal(bough_nearest("feature", names, n), "feature-login");
    assert_string_equal(bough_nearest("feture-lgoin", names, n), "feature-login");
    assert_null(bough_nearest("zzz", names, n));
    assert_null(bough_nearest("x", names, n));
    assert_null(bough_nearest("main", names, 0));
}

static void check_uri(const char *uri, const char *bare, const char *password) {
    char *got = NULL, *secret = NULL;
    bough_error err;
    assert_int_equal(uri_split(&got, &secret, uri, &err), BOUGH_OK);
    assert_string_equal(got, bare);
    if (password)
        assert_string_equal(secret, password);
    else
        assert_null(secret);
    free(got);
    free(secret);
}

static void password_is_taken_out_of_a_uri(void **state) {
    (void)state;
    char *got = NULL, *secret = NULL;
    bough_error err;
    check_uri("postgresql://u:p@h:5432/db", "postgresql://u@h:5432/db", "p");
    check_uri("postgresql://u:p%40%2F%zz%4@h/db", "postgresql://u@h/db", "p@/%zz%4");
    check_uri("postgresql://u:p@q@h/db", "postgresql://u@h/db", "p@q");
    check_uri("postgres://u@h/db?sslmode=require", "postgres://u@h/db?sslmode=require", NULL);
    check_uri("postgresql://u:p@/db?host=/run/a:b@c", "postgresql://u@/db?host=/run/a:b@c", "p");
    check_uri("postgresql://u@/db?host=/r&password=s%20t", "postgresql://u@/db?host=/r", "s t");
    check_uri("postgresql://u@/db?password=s&host=/r", "postgresql://u@/db?host=/r", "s");
    check_uri("postgresql://u@/db?password=s", "postgresql://u@/db", "s");
    check_uri("postgresql://u:@h/db", "postgresql://u@h/db", "");
    check_uri("postgresql:///db", "postgresql:///db", NULL);
    assert_int_equal(uri_split(&got, &secret, "nonsense", &err), BOUGH_E_INTERNAL);
}

static bough_branch branch(const char *id, const char *parent, const char *created) {
    return (bough_branch){.id = id, .name = id, .parent_id = parent, .created_at = created};
}

static void tree_puts_children_below_parents_in_order_of_creation(void **state) {
    (void)state;
    bough_branch all[] = {branch("c", "a", "3"), branch("d", "b", "4"), branch("a", "", "1"),
                          branch("b", "a", "2"), branch("lost", "gone", "5")};
    bough_branch *items[] = {&all[0], &all[1], &all[2], &all[3], &all[4]};
    bough_branch_list list = {5, items};
    static const char *const order[] = {"a", "b", "d", "c", "lost"};
    static const char *const stems[] = {"", "├─ ", "│  └─ ", "└─ ", ""};
    static const char *const plain[] = {"", "|- ", "|  `- ", "`- ", ""};
    cli_tree_row *rows = NULL;
    bough_error err;
    assert_int_equal(cli_tree_arrange(&rows, &list, true, true, &err), BOUGH_OK);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(rows[i].branch->id, order[i]);
        assert_string_equal(rows[i].stem, stems[i]);
    }
    free(rows);
    assert_int_equal(cli_tree_arrange(&rows, &list, true, false, &err), BOUGH_OK);
    for (size_t i = 0; i < 5; i++) assert_string_equal(rows[i].stem, plain[i]);
    free(rows);
    assert_int_equal(cli_tree_arrange(&rows, &list, false, true, &err), BOUGH_OK);
    for (size_t i = 0; i < 5; i++) assert_string_equal(rows[i].stem, "");
    free(rows);
}

static void tree_loses_no_branch_in_a_cycle_or_a_deep_chain(void **state) {
    (void)state;
    enum { DEEP = 400 };
    static bough_branch all[DEEP];
    static bough_branch *items[DEEP];
    static char ids[DEEP][8];
    for (size_t i = 0; i < DEEP; i++) {
        (void)snprintf(ids[i], sizeof ids[i], "%zu", i);
        all[i] = branch(ids[i], i ? ids[i - 1] : ids[DEEP - 1], "1");
        items[i] = &all[i];
    }
    bough_branch_list list = {DEEP, items};
    cli_tree_row *rows = NULL;
    bough_error err;
    assert_int_equal(cli_tree_arrange(&rows, &list, true, true, &err), BOUGH_OK);
    for (size_t i = 0; i < DEEP; i++) assert_string_equal(rows[i].branch->id, ids[i]);
    free(rows);
}

static void progress_tells_part_rate_and_time_left(void **state) {
    (void)state;
    char line[256];
    bough_progress p = {"copying", 512 << 20, 1024 << 20};
    cli_progress_format(line, sizeof line, &p, 64 << 20, true);
    assert_string_equal(line, "copying: [############            ]  50%  512.0 MiB of 1.0 GiB, "
                              "64.0 MiB/s, 0:08 left");
    cli_progress_format(line, sizeof line, &p, 0, false);
    assert_string_equal(line, "copying:  50%  512.0 MiB of 1.0 GiB");
    p = (bough_progress){"copying", 20, 10}; /* the total was an estimate */
    cli_progress_format(line, sizeof line, &p, 0, false);
    assert_string_equal(line, "copying: 100%  20 B of 10 B");
    p = (bough_progress){"replaying", 2048, 0};
    cli_progress_format(line, sizeof line, &p, 0, true);
    assert_string_equal(line, "replaying: 2.0 KiB");
    p = (bough_progress){"starting", 0, 0}; /* nothing to count */
    cli_progress_format(line, sizeof line, &p, 0, true);
    assert_string_equal(line, "starting: ...");
    p = (bough_progress){"copying", 621 << 20, (621 << 20) + 1}; /* some time is left, not none */
    cli_progress_format(line, sizeof line, &p, 1 << 20, false);
    assert_string_equal(line, "copying:  99%  621.0 MiB of 621.0 MiB, 1.0 MiB/s, 0:01 left");
}

static void words_for_a_shell_are_quoted_where_needed(void **state) {
    (void)state;
    char out[16];
    cli_quote(out, sizeof out, "br-1/a.b");
    assert_string_equal(out, "br-1/a.b");
    cli_quote(out, sizeof out, "my fix");
    assert_string_equal(out, "'my fix'");
    cli_quote(out, sizeof out, "it's");
    assert_string_equal(out, "'it'\\''s'");
    cli_quote(out, sizeof out, "");
    assert_string_equal(out, "''");
    for (size_t size = 1; size < sizeof out; size++) { /* whatever the room */
        memset(out, 'x', sizeof out);
        cli_quote(out, size, "a'$ bcdefghijklm");
        assert_non_null(memchr(out, '\0', size));
    }
}

static void bytes_are_rounded_to_the_right_unit(void **state) {
    (void)state;
    char text[16];
    cli_format_bytes(text, sizeof text, 0);
    assert_string_equal(text, "0 B");
    cli_format_bytes(text, sizeof text, 1023);
    assert_string_equal(text, "1023 B");
    cli_format_bytes(text, sizeof text, 1024);
    assert_string_equal(text, "1.0 KiB");
    cli_format_bytes(text, sizeof text, 1024 * 1024 - 1);
    assert_string_equal(text, "1.0 MiB");
    cli_format_bytes(text, sizeof text, UINT64_MAX);
    assert_string_equal(text, "16384.0 PiB");
}

static void paths_are_escaped(void **state) {
    (void)state;
    char path[32];
    bough_error err;
    assert_int_equal(bough_request_path(path, sizeof path, &err, "/p/%s?n=%d", "a/b?&ü", 7),
                     BOUGH_OK);
    assert_string_equal(path, "/p/a%2Fb%3F%26%C3%BC?n=7");
    assert_int_equal(bough_request_path(path, 8, &err, "/p/%s", "????"), BOUGH_E_INVALID);
}

static int code_of(long status, const char *body) {
    bough_error err;
    json_t *answer = body ? json_loads(body, 0, NULL) : NULL;
    int rc = bough_request_fail(&err, status, answer);
    json_decref(answer);
    assert_int_equal(err.code, rc);
    assert_true(*err.message);
    return rc;
}

static void error_answers_become_codes(void **state) {
    (void)state;
    assert_int_equal(code_of(500, "{\"code\":\"DISK_FULL\",\"message\":\"x\"}"), BOUGH_E_NOSPACE);
    assert_int_equal(code_of(409, "{\"code\":\"BRANCH_ALREADY_EXISTS\",\"message\":\"x\"}"),
                     BOUGH_E_CONFLICT);
    assert_int_equal(code_of(404, "{\"code\":\"\",\"message\":\"x\"}"), BOUGH_E_NOTFOUND);
    assert_int_equal(code_of(500, "{\"code\":\"INTERNAL\",\"message\":\"x\"}"), BOUGH_E_INTERNAL);
    assert_int_equal(code_of(500, "{\"code\":\"OK\",\"message\":\"x\"}"), BOUGH_E_INTERNAL);
    assert_int_equal(code_of(423, "[]"), BOUGH_E_BUSY);
    assert_int_equal(code_of(418, NULL), BOUGH_E_INVALID);
    bough_error err;
    json_t *answer = json_pack("{s:s,s:s}", "code", "CORRUPT", "message", "two\nlines\033[1m");
    assert_int_equal(bough_request_fail(&err, 500, answer), BOUGH_E_CORRUPT);
    assert_string_equal(err.message, "two lines [1m");
    json_decref(answer);
}

static void spans_are_rounded_to_the_unit_that_people_say(void **state) {
    (void)state;
    static const struct {
        int64_t seconds;
        const char *text;
    } cases[] = {{0, "0 s"},        {119, "119 s"},  {120, "2 min"},         {3599, "60 min"},
                 {7199, "120 min"}, {7200, "2 h"},   {86400, "24 h"},        {172799, "48 h"},
                 {172800, "2 d"},   {604799, "7 d"}, {3155760000, "36525 d"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cli_format_span(text, sizeof text, cases[i].seconds);
        assert_string_equal(text, cases[i].text);
    }
}

static void notes_tell_what_becomes_of_a_branch(void **state) {
    (void)state;
    bough_branch b = {.expires_at = "", .expiry_state = "", .deleted_at = ""};
    char text[128];
    cli_branch_notes(text, sizeof text, &b);
    assert_string_equal(text, "-");
    b.is_protected = 1;
    cli_branch_notes(text, sizeof text, &b);
    assert_string_equal(text, "protected");
    b = (bough_branch){.expires_at = "2027-01-15T08:00:00Z",
                       .expiry_state = "pending",
                       .deleted_at = "",
                       .expires_in_seconds = 7200,
                       .expiry_cascades = 1};
    cli_branch_notes(text, sizeof text, &b);
    assert_string_equal(text, "expires in 2 h with its children");
    b.expiry_warning = 1;
    b.expiry_cascades = 0;
    cli_branch_notes(text, sizeof text, &b);
    assert_string_equal(text, "expires soon: in 2 h");
    b.expiry_state = "waiting";
    cli_branch_notes(text, sizeof text, &b);
    assert_non_null(strstr(text, "waits"));
    b.expiry_state = "held";
    cli_branch_notes(text, sizeof text, &b);
    assert_non_null(strstr(text, "jumped"));
    b.deleted_at = "2027-01-15T08:00:00Z";
    b.recoverable_seconds = 604800;
    cli_branch_notes(text, sizeof text, &b);
    assert_string_equal(text, "recoverable for 7 d");
}

int main(void) {
    (void)setlocale(LC_ALL, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parser_takes_values_in_either_form),
        cmocka_unit_test(parser_takes_common_options_anywhere),
        cmocka_unit_test(parser_lets_the_last_of_equal_options_count),
        cmocka_unit_test(parser_passes_on_what_follows_two_dashes),
        cmocka_unit_test(parser_refuses_what_it_does_not_know_and_suggests),
        cmocka_unit_test(parser_refuses_missing_and_surplus_arguments),
        cmocka_unit_test(parser_refuses_numbers_out_of_range),
        cmocka_unit_test(parser_knows_json_even_when_it_refuses),
        cmocka_unit_test(parser_survives_any_short_line),
        cmocka_unit_test(every_command_is_complete),
        cmocka_unit_test(distance_counts_edits_and_swaps),
        cmocka_unit_test(nearest_suggests_only_what_may_be_meant),
        cmocka_unit_test(password_is_taken_out_of_a_uri),
        cmocka_unit_test(tree_puts_children_below_parents_in_order_of_creation),
        cmocka_unit_test(tree_loses_no_branch_in_a_cycle_or_a_deep_chain),
        cmocka_unit_test(progress_tells_part_rate_and_time_left),
        cmocka_unit_test(words_for_a_shell_are_quoted_where_needed),
        cmocka_unit_test(bytes_are_rounded_to_the_right_unit),
        cmocka_unit_test(spans_are_rounded_to_the_unit_that_people_say),
        cmocka_unit_test(notes_tell_what_becomes_of_a_branch),
        cmocka_unit_test(paths_are_escaped),
        cmocka_unit_test(error_answers_become_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
