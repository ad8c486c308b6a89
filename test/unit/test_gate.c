/* Who may come in: lists of addresses, and how often. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "model/allow.h"
#include "model/records.h"
#include "server/forwarded.h"
#include "server/rates.h"

static void rules_are_checked(void **state) {
    static const char *const good[] = {"192.0.2.7",
                                       "192.0.2.0/24",
                                       "0.0.0.0/0",
                                       "10.0.0.1-10.0.0.9",
                                       "::1",
                                       "2001:db8::/32",
                                       "2001:db8::1-2001:db8::ff",
                                       "::ffff:192.0.2.0/120"};
    static const char *const bad[] = {"",
                                      "localhost",
                                      "192.0.2",
                                      "192.0.2.0/33",
                                      "192.0.2.0/",
                                      "192.0.2.0/-1",
                                      "192.0.2.0/2 ",
                                      "10.0.0.9-10.0.0.1",
                                      "10.0.0.1-::1",
                                      "10.0.0.1-",
                                      "::/129",
                                      "::ffff:1.2.3.4/10",
                                      "1.2.3.4\n5.6.7.8",
                                      "*",
                                      "1.2.3.4/0x8"};
    bough_error err;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (bough_allow_check(good[i], &err) != BOUGH_OK) fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (bough_allow_check(bad[i], &err) != BOUGH_E_INVALID) fail_msg("taken: %s", bad[i]);
}

static void lists_have_what_they_say(void **state) {
    (void)state;
    assert_true(bough_allow_has("", "192.0.2.1"));
    const char *list = "192.0.2.16/28\n10.0.0.5-10.0.1.4\n2001:db8::/33\n198.51.100.7";
    static const char *const in[] = {"192.0.2.16",   "192.0.2.31",     "10.0.0.5",
                                     "10.0.0.255",   "10.0.1.4",       "2001:db8:7fff::1",
                                     "198.51.100.7", "::ffff:10.0.0.5"};
    static const char *const out[] = {"192.0.2.15",       "192.0.2.32",    "10.0.0.4", "10.0.1.5",
                                      "2001:db8:8000::1", "198.51.100.70", "?",        "::1"};
    for (size_t i = 0; i < sizeof in / sizeof in[0]; i++)
        if (!bough_allow_has(list, in[i])) fail_msg("not in: %s", in[i]);
    for (size_t i = 0; i < sizeof out / sizeof out[0]; i++)
        if (bough_allow_has(list, out[i])) fail_msg("in: %s", out[i]);
    assert_false(bough_allow_has("::/0", "192.0.2.1")); /* IPv4 is not a part of IPv6 */
    assert_false(bough_allow_has("0.0.0.0/0", "2001:db8::1"));
    assert_true(bough_allow_has("::/0", "2001:db8::1"));
}

static void a_minute_gives_so_many(void **state) {
    int wait = 0;
    rates *r = rates_new(30);
    (void)state;
    for (int i = 0; i < 30; i++) assert_true(rates_take(&wait, r, "a", 1000));
    assert_false(rates_take(&wait, r, "a", 1000));
    assert_int_equal(wait, 2);
    assert_true(rates_take(&wait, r, "b", 1000)); /* each has its own */
    assert_false(rates_take(&wait, r, "a", 2900));
    assert_true(rates_take(&wait, r, "a", 3100));
    assert_false(rates_take(&wait, r, "a", 3200));
    for (int i = 0; i < 30; i++) assert_true(rates_take(&wait, r, "a", 1e9)); /* and no more */
    assert_false(rates_take(&wait, r, "a", 1e9));
    rates_free(r);
}

static void strangers_do_not_make_it_forget(void **state) {
    int wait = 0;
    char key[32];
    rates *r = rates_new(10);
    (void)state;
    for (int i = 0; i < 10; i++) assert_true(rates_take(&wait, r, "busy", 0));
    for (int i = 0; i < 2000; i++) {
        (void)snprintf(key, sizeof key, "stranger %d", i);
        assert_true(rates_take(&wait, r, key, 0));
    }
    assert_false(rates_take(&wait, r, "busy", 0));
    rates_free(r);
}

static void addresses_of_a_network_that_one_has_are_counted_as_one(void **state) {
    static const struct {
        const char *address, *key;
    } cases[] = {{"192.0.2.7", "192.0.2.7"},
                 {"2001:db8::1", "2001:db8::"},
                 {"2001:db8::ffff:1:2", "2001:db8::"},
                 {"2001:db8:0:1::1", "2001:db8:0:1::"},
                 {"::ffff:192.0.2.7", "::ffff:192.0.2.7"},
                 {"?", "?"}};
    char key[INET6_ADDRSTRLEN];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rates_address(key, cases[i].address);
        assert_string_equal(key, cases[i].key);
    }
}

/* ---- proxies ---- */

static void only_trusted_proxies_are_believed(void **state) {
    char trusted[BOUGH_ALLOW_SIZE], out[INET6_ADDRSTRLEN];
    static const struct {
        const char *peer, *header, *address;
    } cases[] = {{"10.0.0.1", "", "10.0.0.1"},
                 {"10.0.0.1", "192.0.2.7", "192.0.2.7"},
                 {"10.0.0.1", "1.1.1.1, 192.0.2.7", "192.0.2.7"},
                 {"10.0.0.1", "192.0.2.7,10.0.0.2 ,\t::1", "192.0.2.7"},
                 {"10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"},
                 {"192.0.2.1", "192.0.2.7", "192.0.2.1"},
                 {"10.0.0.1", "192.0.2.7:80", "192.0.2.7"},
                 {"10.0.0.1", "[2001:DB8::1]:80", "2001:db8::1"},
                 {"10.0.0.1", "[2001:db8::1]", "2001:db8::1"},
                 {"10.0.0.1", "2001:db8::1", "2001:db8::1"},
                 /* up to what is no address */
                 {"10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"},
                 {"10.0.0.1", "192.0.2.7, x, 10.0.0.2", "10.0.0.2"},
                 {"10.0.0.1", "192.0.2.7,", "10.0.0.1"},
                 {"10.0.0.1", "[", "10.0.0.1"},
                 {"10.0.0.1", ",,,,", "10.0.0.1"},
                 {"10.0.0.1", "192.0.2.7 192.0.2.8", "10.0.0.1"},
                 {"?", "192.0.2.7", "?"}};
    (void)state;
    assert_int_equal(forwarded_trust(trusted, "10.0.0.0/24,::1", NULL), BOUGH_OK);
    assert_string_equal(trusted, "10.0.0.0/24\n::1");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        (void)snprintf(out, sizeof out, "%s", cases[i].peer);
        (void)forwarded_back(out, cases[i].header, trusted);
        if (strcmp(out, cases[i].address) != 0) fail_msg("case %zu: %s", i, out);
        (void)snprintf(out, sizeof out, "%s", cases[i].peer);
        assert_false(forwarded_back(out, cases[i].header, ""));
        assert_string_equal(out, cases[i].peer);
    }
}

static void lines_of_proxies_are_read_from_the_last_one(void **state) {
    char trusted[BOUGH_ALLOW_SIZE], out[INET6_ADDRSTRLEN] = "10.0.0.1";
    (void)state;
    assert_int_equal(forwarded_trust(trusted, "10.0.0.0/24", NULL), BOUGH_OK);
    assert_true(forwarded_back(out, "10.0.0.3,10.0.0.2", trusted));
    assert_string_equal(out, "10.0.0.3");
    assert_true(forwarded_back(out, "192.0.2.7", trusted));
    assert_false(forwarded_back(out, "10.0.0.4", trusted)); /* of whom 192.0.2.7 says that it is */
    assert_string_equal(out, "192.0.2.7");
    (void)snprintf(out, sizeof out, "10.0.0.1");
    assert_false(forwarded_back(out, "unknown", trusted));
    assert_string_equal(out, "10.0.0.1");
}

static void a_list_of_proxies_is_checked(void **state) {
    static const char *const bad[] = {"", ",", "x", "10.0.0.1,", "10.0.0.1, 10.0.0.2"};
    char trusted[BOUGH_ALLOW_SIZE], *many = calloc(1, 9000);
    (void)state;
    assert_int_equal(forwarded_trust(trusted, NULL, NULL), BOUGH_OK);
    assert_string_equal(trusted, "");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(forwarded_trust(trusted, bad[i], NULL), BOUGH_E_USAGE);
    assert_non_null(many);
    for (size_t i = 0; i < 600; i++) memcpy(many + i * 9, "10.0.0.1,", 9);
    many[600 * 9 - 1] = '\0';
    assert_int_equal(forwarded_trust(trusted, many, NULL), BOUGH_E_USAGE);
    free(many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_checked),
        cmocka_unit_test(lists_have_what_they_say),
        cmocka_unit_test(a_minute_gives_so_many),
        cmocka_unit_test(strangers_do_not_make_it_forget),
        cmocka_unit_test(addresses_of_a_network_that_one_has_are_counted_as_one),
        cmocka_unit_test(only_trusted_proxies_are_believed),
        cmocka_unit_test(lines_of_proxies_are_read_from_the_last_one),
        cmocka_unit_test(a_list_of_proxies_is_checked)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
