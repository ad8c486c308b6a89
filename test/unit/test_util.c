/* What every other part uses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/lsn.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_lsn_is_read_as_postgresql_reads_it),
        cmocka_unit_test(what_is_no_lsn_is_refused),
        cmocka_unit_test(an_lsn_is_written_as_postgresql_writes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
