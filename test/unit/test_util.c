/* What every other part uses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "util/error.h"
#include "util/lsn.h"
#include "util/utf8.h"

static void an_lsn_is_read_as_postgresql_reads_it(void **state) {
    static const struct {
        const char *text;
        uint64_t lsn;
    } cases[] = {{"0/0", 0},
                 {"0/A27BB60", 0xA27BB60},
                 {"16/b374d848", 0x16B374D848},
                 {"00000016/0B374D84", 0x160B374D84},
                 {"FFFFFFFF/FFFFFFFF", UINT64_MAX}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t lsn = 1;
        assert_true(bough_lsn_read(&lsn, cases[i].text));
        assert_int_equal(lsn, cases[i].lsn);
    }
}

static void what_is_no_lsn_is_refused(void **state) {
    static const char *const bad[] = {"",     "/",    "0",     "0/",          "/0",         " 0/1",
                                      "0/1 ", "-1/1", "0/+1",  "0x1/2",       "1/2/3",      "g/1",
                                      "0/ 1", "1//2", "0/1\n", "123456789/0", "0/123456789"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t lsn = 7;
        assert_false(bough_lsn_read(&lsn, bad[i]));
        assert_int_equal(lsn, 7);
    }
}

static void an_lsn_is_written_as_postgresql_writes_it(void **state) {
    (void)state;
    assert_string_equal(BOUGH_LSN_TEXT(0), "0/0");
    assert_string_equal(BOUGH_LSN_TEXT(0x16B374D848), "16/B374D848");
    assert_string_equal(BOUGH_LSN_TEXT(0x1600000001), "16/1");
    assert_string_equal(BOUGH_LSN_TEXT(UINT64_MAX), "FFFFFFFF/FFFFFFFF");
}

static void what_is_utf8_is_told_from_what_is_not(void **state) {
    static const char *const good[] = {"", "a", "\xc3\xa9", "\xe2\x82\xac!", "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",         "\xc3",         "\xc0\x80",
                                      "\xc3(",        "\xe0\x9f\xbf", "\xed\xa0\x80",
                                      "a\xe2\x82",    "\xf0\x9f\x98", "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80", "caf\xe9",      "\xff"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(bough_utf8_is(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(bough_utf8_is(bad[i]));
}

static void what_is_not_utf8_is_shown_as_a_replacement(void **state) {
    char text[12];
    (void)state;
    bough_utf8_mend(text, sizeof text, "caf\xe9 \xc3\xa9");
    assert_string_equal(text, "caf\xef\xbf\xbd \xc3\xa9");
    bough_utf8_mend(text, sizeof text, "12345678901234");
    assert_string_equal(text, "12345678901");
    bough_utf8_mend(text, sizeof text, "1234567890\xc3\xa9");
    assert_string_equal(text, "1234567890");
}

/* Of two, three and four bytes, whatever byte of them the end of the room falls on. */
static void a_failure_is_cut_between_two_characters(void **state) {
    static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    (void)state;
    for (size_t c = 0; c < 3; c++)
        for (int before = 0; before < 4; before++) {
            char text[1300] = "";
            bough_error err;
            size_t size = strlen(characters[c]);
            for (size_t i = 0; i < 300; i++) memcpy(text + i * size, characters[c], size);
            (void)bough_fail(&err, BOUGH_E_INVALID, "%.*s%s", before, "aaaa", text);
            assert_true(bough_utf8_is(err.message));
            assert_in_range(strlen(err.message), sizeof err.message - 4, sizeof err.message - 1);
            (void)bough_hint(&err, "%.*s%s", before, "aaaa", text);
            assert_true(bough_utf8_is(err.hint));
            assert_in_range(strlen(err.hint), sizeof err.hint - 4, sizeof err.hint - 1);
            (void)bough_context(&err, "%.*s", before, "aaaa");
            assert_true(bough_utf8_is(err.message));
            (void)bough_fail_sys(&err, 2, "%.*s%s", before, "aaaa", text);
            assert_true(bough_utf8_is(err.message));
        }
}

/* What was never UTF-8 keeps its last byte. */
static void a_failure_that_fits_is_not_cut(void **state) {
    bough_error err;
    (void)state;
    (void)bough_fail(&err, BOUGH_E_INVALID, "caf\xe9");
    assert_string_equal(err.message, "caf\xe9");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_lsn_is_read_as_postgresql_reads_it),
        cmocka_unit_test(what_is_no_lsn_is_refused),
        cmocka_unit_test(an_lsn_is_written_as_postgresql_writes_it),
        cmocka_unit_test(what_is_utf8_is_told_from_what_is_not),
        cmocka_unit_test(what_is_not_utf8_is_shown_as_a_replacement),
        cmocka_unit_test(a_failure_is_cut_between_two_characters),
        cmocka_unit_test(a_failure_that_fits_is_not_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
