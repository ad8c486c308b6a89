/* What a client says first: every prefix, every cut, and what is taken out of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/hello.h"

/* ---- building ---- */

typedef struct packet {
    uint8_t data[HELLO_TLS_MAX + 64];
    size_t size;
} packet;

static void add(packet *p, const void *data, size_t n) {
    memcpy(p->data + p->size, data, n);
    p->size += n;
}

static void add_number(packet *p, uint32_t n, int bytes) {
    for (int i = bytes - 1; i >= 0; i--) p->data[p->size++] = (uint8_t)(n >> (8 * i));
}

/* `pairs` is a list of names and values that ends with NULL. */
static packet startup(const char *const *pairs) {
    packet p = {.size = 4};
    add_number(&p, 196608, 4);
    for (; *pairs; pairs++) add(&p, *pairs, strlen(*pairs) + 1);
    add(&p, "", 1);
    size_t size = p.size;
    p.size = 0;
    add_number(&p, (uint32_t)size, 4);
    p.size = size;
    return p;
}

/* A ClientHello with a server name, in records of at most `room` bytes. */
static packet client_hello(const char *name, size_t room) {
    packet body = {.size = 0}, p = {.size = 0};
    size_t n = name ? strlen(name) : 0;
    add_number(&body, 0x0303, 2);
    for (int i = 0; i < 32; i++) add_number(&body, (uint32_t)i, 1);
    add_number(&body, 0, 1); /* no session */
    add_number(&body, 2, 2); /* one cipher suite */
    add_number(&body, 0x1301, 2);
    add_number(&body, 0x0100, 2); /* compression: none */
    add_number(&body, (uint32_t)(6 + (name ? 9 + n : 0)), 2);
    add_number(&body, 0xff01, 2); /* some other extension */
    add_number(&body, 2, 2);
    add_number(&body, 0, 2);
    if (name) {
        add_number(&body, 0, 2);
        add_number(&body, (uint32_t)(n + 5), 2);
        add_number(&body, (uint32_t)(n + 3), 2);
        add_number(&body, 0, 1);
        add_number(&body, (uint32_t)n, 2);
        add(&body, name, n);
    }
    packet message = {.size = 0};
    add_number(&message, 1, 1);
    add_number(&message, (uint32_t)body.size, 3);
    add(&message, body.data, body.size);
    for (size_t at = 0; at < message.size; at += room) {
        size_t part = message.size - at < room ? message.size - at : room;
        add_number(&p, 0x160301, 3);
        add_number(&p, (uint32_t)part, 2);
        add(&p, message.data + at, part);
    }
    return p;
}

/* In memory of exactly its size, so that a sanitizer sees a read beyond it. */
static hello_result read_tls(char *name, size_t *need, const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(size ? size : 1);
    assert_non_null(exact);
    memcpy(exact, data, size);
    hello_result result = hello_tls(name, need, exact, size);
    free(exact);
    return result;
}

/* ---- the first bytes ---- */

static void first_bytes_are_told_apart(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        hello_kind kind;
    } all[] = {
        {"", 0, HELLO_MORE},
        {"\0\0", 2, HELLO_MORE},
        {"\x16", 1, HELLO_TLS},
        {"GET / HT", 8, HELLO_BAD},
        {"\0\0\0\x08\x04\xd2\x16\x2f", 8, HELLO_SSL_REQUEST},
        {"\0\0\0\x08\x04\xd2\x16\x30", 8, HELLO_GSS_REQUEST},
        {"\0\0\0\x09\x04\xd2\x16\x2f", 8, HELLO_BAD},
        {"\0\0\0\x10\x04\xd2\x16\x2e", 8, HELLO_MORE},
        {"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1\0\0\0\2", 16, HELLO_CANCEL},
        {"\0\0\0\x0f\x04\xd2\x16\x2e\0\0\0\1\0\0\0\2", 16, HELLO_BAD},
        {"\0\0\0\x09\0\3\0\0\0", 9, HELLO_STARTUP},
        {"\0\0\0\x09\0\3\0\0", 8, HELLO_MORE},
        {"\0\0\x27\x15\0\3\0\0", 8, HELLO_BAD}, /* 10005 bytes */
        {"\0\0\x27\x14\0\3\0\0", 8, HELLO_MORE},
        {"\0\0\0\x07\0\3\0\0", 8, HELLO_BAD},
        {"\0\0\0\x09\0\2\0\0", 8, HELLO_OLD},
        {"\0\0\0\x09\0\4\0\0", 8, HELLO_BAD},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        size_t need = 0;
        hello_kind kind = hello_first(&need, (const uint8_t *)all[i].bytes, all[i].size);
        if (kind != all[i].kind) fail_msg("case %zu is of kind %d", i, (int)kind);
        if (kind == HELLO_MORE) assert_true(need > all[i].size);
    }
    assert_int_equal(hello_cancel_pid((const uint8_t *)"\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2"), 258);
}

/* ---- TLS ---- */

static void the_server_name_is_read_from_a_hello_in_any_records(void **state) {
    (void)state;
    static const size_t rooms[] = {1, 3, 4, 5, 50, 4000};
    for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
        packet p = client_hello("EP-silent-smoke-806639.localhost", rooms[i]);
        char name[256], endpoint[HELLO_ENDPOINT_SIZE];
        size_t need = 0;
        for (size_t n = 0; n < p.size; n++) { /* every cut asks for more, and gets on by it */
            assert_int_equal(read_tls(name, &need, p.data, n), HELLO_SHORT);
            assert_true(need > n && need <= p.size);
        }
        assert_int_equal(read_tls(name, &need, p.data, p.size), HELLO_DONE);
        assert_string_equal(name, "ep-silent-smoke-806639.localhost");
        assert_true(hello_endpoint_of_name(endpoint, name));
        assert_string_equal(endpoint, "ep-silent-smoke-806639");
    }
}

static void a_hello_without_a_name_is_told_from_a_malformed_one(void **state) {
    (void)state;
    char name[256];
    size_t need;
    packet p = client_hello(NULL, 4000);
    assert_int_equal(read_tls(name, &need, p.data, p.size), HELLO_DONE);
    assert_string_equal(name, "");
    p = client_hello("a b", 4000);
    assert_int_equal(read_tls(name, &need, p.data, p.size), HELLO_WRONG);
    p = client_hello("", 4000);
    assert_int_equal(read_tls(name, &need, p.data, p.size), HELLO_WRONG);
    p = client_hello("ep-x", 4000);
    p.data[0] = 23; /* application data */
    assert_int_equal(read_tls(name, &need, p.data, p.size), HELLO_WRONG);
    p = client_hello("ep-x", 4000);
    p.data[5] = 2; /* ServerHello */
    assert_int_equal(read_tls(name, &need, p.data, p.size), HELLO_WRONG);
    p = client_hello("ep-x", 4000);
    p.data[6] = 1; /* longer than we read */
    assert_int_equal(read_tls(name, &need, p.data, p.size), HELLO_WRONG);
}

/* Not a proof, but every length field is among what is changed. */
static void a_hello_with_any_byte_changed_is_read_within_its_bounds(void **state) {
    (void)state;
    char name[256];
    size_t need;
    packet p = client_hello("ep-silent-smoke-806639.localhost", 60);
    for (size_t i = 0; i < p.size; i++) {
        uint8_t was = p.data[i];
        static const uint8_t others[] = {0, 1, 0x7f, 0x80, 0xff};
        for (size_t k = 0; k < sizeof others; k++) {
            p.data[i] = others[k];
            hello_result result = read_tls(name, &need, p.data, p.size);
            if (result == HELLO_SHORT) assert_true(need > p.size && need <= HELLO_TLS_MAX);
            assert_true(strlen(name) < 256);
        }
        p.data[i] = was;
    }
}

static void labels_that_are_no_endpoint_are_refused(void **state) {
    (void)state;
    static const char *const names[] = {
        "",
        "localhost",
        ".ep-x",
        "ep_x.localhost",
        "ep-\xc3\xa9",
        "xep-a",
        "ep-0123456789012345678901234567890123456789012345678901234567890123"};
    char endpoint[HELLO_ENDPOINT_SIZE];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (hello_endpoint_of_name(endpoint, names[i])) fail_msg("%s was taken", names[i]);
}

static void names_of_branches_are_told_apart(void **state) {
    (void)state;
    static const struct {
        const char *name, *branch; /* NULL: none */
    } all[] = {{"br-wide-elm-118737.localhost", "br-wide-elm-118737"},
               {"br-a", "br-a"},
               {"xbr-a.localhost", NULL},
               {"br_a.localhost", NULL},
               {"", NULL},
               {"ep-a.localhost", NULL}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char branch[HELLO_ENDPOINT_SIZE];
        assert_int_equal(hello_branch_of_name(branch, all[i].name), all[i].branch != NULL);
        if (all[i].branch) assert_string_equal(branch, all[i].branch);
    }
}

static void a_pass_is_read_as_it_was_written(void **state) {
    (void)state;
    static const char word[] = "0123456789abcdef0123456789abcdef";
    uint8_t data[HELLO_PASS_SIZE + 1] = {0};
    char read[HELLO_WORD_SIZE];
    size_t need = 0;
    hello_pass_write(data, word);
    for (size_t size = 8; size < HELLO_PASS_SIZE; size++) {
        assert_int_equal(hello_first(&need, data, size), HELLO_MORE);
        assert_int_equal(need, HELLO_PASS_SIZE);
    }
    assert_int_equal(hello_first(&need, data, sizeof data),
                     HELLO_PASS); /* what follows may be there */
    assert_int_equal(need, HELLO_PASS_SIZE);
    hello_pass_read(read, data);
    assert_string_equal(read, word);
    data[3]++;
    assert_int_equal(hello_first(&need, data, sizeof data), HELLO_BAD);
}

/* ---- StartupMessage ---- */

typedef struct rewriting {
    const char *before[9], *after[9];
    const char *endpoint, *project, *branch;
} rewriting;

static void the_target_is_taken_out_and_the_rest_is_kept(void **state) {
    (void)state;
    static const rewriting all[] = {
        {{"user", "u", "options", "endpoint=ep-a", "database", "d"},
         {"user", "u", "database", "d"},
         "ep-a",
         "",
         ""},
        {{"user", "u", "options", "-c geqo=off endpoint=EP-a  -c work_mem=1MB"},
         {"user", "u", "options", "-c geqo=off  -c work_mem=1MB"},
         "ep-a",
         "",
         ""},
        {{"user", "u", "options", " endpoint=ep-a --geqo=off", "x", "y"},
         {"user", "u", "options", "--geqo=off", "x", "y"},
         "ep-a",
         "",
         ""},
        {{"user", "u", "options", "-c endpoint=ep-a", "x", "y"},
         {"user", "u", "options", "-c endpoint=ep-a", "x", "y"},
         "",
         "",
         ""},
        {{"user", "u", "options", "-c a=b\\ endpoint=ep-a"},
         {"user", "u", "options", "-c a=b\\ endpoint=ep-a"},
         "",
         "",
         ""},
        {{"user", "u", "options", "project=my\\ shop", "database", "d@dev"},
         {"user", "u", "database", "d"},
         "",
         "my shop",
         "dev"},
        {{"user", "u", "options", "project=ep-a"}, {"user", "u"}, "ep-a", "", ""},
        {{"database", "a@b@c"}, {"database", "a@b"}, "", "", "c"},
        {{"database", "a@b", "options", "endpoint=ep-a"}, {"database", "a@b"}, "ep-a", "", ""},
        {{"database", "@b"}, {"database", "@b"}, "", "", ""},
        {{"database", "b@"}, {"database", "b@"}, "", "", ""},
        {{"options", "", "user", "u"}, {"options", "", "user", "u"}, "", "", ""},
        {{"user", "u", "options", "endpoint=ep-a endpoint=ep-a"}, {"user", "u"}, "ep-a", "", ""},
        {{NULL}, {NULL}, "", "", ""},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        packet before = startup(all[i].before), after = startup(all[i].after);
        hello_target target;
        const char *why;
        assert_int_equal(hello_startup(&target, &why, before.data, &before.size), HELLO_DONE);
        if (before.size != after.size || memcmp(before.data, after.data, after.size) != 0)
            fail_msg("case %zu: the packet has other bytes", i);
        assert_string_equal(target.endpoint, all[i].endpoint);
        assert_string_equal(target.project, all[i].project);
        assert_string_equal(target.branch, all[i].branch);
    }
}

static void a_moment_is_taken_out_as_neon_says_it(void **state) {
    (void)state;
    static const struct {
        const char *options, *rest, *timestamp, *lsn, *type;
    } all[] = {
        {"neon_timestamp:2026-11-23T14:03:07.25Z", NULL, "2026-11-23T14:03:07.25Z", "", ""},
        {"endpoint=ep-a neon_lsn:0/A27BB60 -c a=b", "-c a=b", "", "0/A27BB60", ""},
        {"neon_timestamp:2026-11-23\\ 14:03Z", NULL, "2026-11-23 14:03Z", "", ""},
        {"neon_endpoint_type:read_only neon_lsn:x neon_lsn:x", NULL, "", "x", "read_only"},
        /* none of ours: PostgreSQL refuses it */
        {"neon_other:x", "neon_other:x", "", "", ""},
        {"-c neon_lsn:0/1", "-c neon_lsn:0/1", "", "", ""},
        {"neon_lsn=0/1", "neon_lsn=0/1", "", "", ""},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const char *const before[] = {"user", "u", "options", all[i].options, NULL};
        const char *const after[] = {"user", "u", all[i].rest ? "options" : NULL, all[i].rest,
                                     NULL};
        packet p = startup(before), wanted = startup(after);
        hello_target target;
        const char *why;
        assert_int_equal(hello_startup(&target, &why, p.data, &p.size), HELLO_DONE);
        if (p.size != wanted.size || memcmp(p.data, wanted.data, p.size) != 0)
            fail_msg("case %zu: the packet has other bytes", i);
        assert_string_equal(target.timestamp, all[i].timestamp);
        assert_string_equal(target.lsn, all[i].lsn);
        assert_string_equal(target.type, all[i].type);
    }
}

static void wrong_targets_are_refused(void **state) {
    (void)state;
    static const char *const all[] = {
        "endpoint=",
        "endpoint=a/b",
        "endpoint=ep-a endpoint=ep-b",
        "project=",
        "project=a project=b",
        "endpoint=ep-a'",
        "neon_lsn:",
        "neon_timestamp: x",
        "neon_lsn:0/1 neon_lsn:0/2",
        "neon_timestamp:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "neon_endpoint_type:"};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const char *const pairs[] = {"user", "u", "options", all[i], NULL};
        packet p = startup(pairs);
        hello_target target;
        const char *why;
        if (hello_startup(&target, &why, p.data, &p.size) != HELLO_WRONG)
            fail_msg("\"%s\" was taken", all[i]);
    }
}

static void a_startup_message_is_read_within_its_bounds(void **state) {
    (void)state;
    static const char *const pairs[] = {"user",     "u",   "options", "endpoint=ep-a -c a=b",
                                        "database", "d@b", NULL};
    packet whole = startup(pairs);
    for (size_t n = 0; n <= whole.size; n++) /* every cut, with and without its length put right */
        for (int fix = 0; fix < 2; fix++) {
            uint8_t *exact = malloc(n ? n : 1);
            assert_non_null(exact);
            memcpy(exact, whole.data, n);
            if (fix && n >= 4) exact[3] = (uint8_t)n;
            hello_target target;
            const char *why;
            size_t size = n;
            hello_result result = hello_startup(&target, &why, exact, &size);
            assert_true(size <= n);
            if (!fix && n < whole.size) assert_int_equal(result, HELLO_WRONG);
            free(exact);
        }
    for (size_t i = 8; i < whole.size; i++) { /* any byte turned into a terminator or a letter */
        for (int k = 0; k < 2; k++) {
            packet p = whole;
            p.data[i] = k ? 'x' : 0;
            uint8_t *exact = malloc(p.size);
            assert_non_null(exact);
            memcpy(exact, p.data, p.size);
            hello_target target;
            const char *why;
            size_t size = p.size;
            (void)hello_startup(&target, &why, exact, &size);
            assert_true(size <= p.size);
            free(exact);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_bytes_are_told_apart),
        cmocka_unit_test(the_server_name_is_read_from_a_hello_in_any_records),
        cmocka_unit_test(a_hello_without_a_name_is_told_from_a_malformed_one),
        cmocka_unit_test(a_hello_with_any_byte_changed_is_read_within_its_bounds),
        cmocka_unit_test(labels_that_are_no_endpoint_are_refused),
        cmocka_unit_test(the_target_is_taken_out_and_the_rest_is_kept),
        cmocka_unit_test(names_of_branches_are_told_apart),
        cmocka_unit_test(a_pass_is_read_as_it_was_written),
        cmocka_unit_test(a_moment_is_taken_out_as_neon_says_it),
        cmocka_unit_test(wrong_targets_are_refused),
        cmocka_unit_test(a_startup_message_is_read_within_its_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
