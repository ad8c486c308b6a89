/*
 * libbough when memory runs out: the nth allocation of each call fails, for every n until the call
 * succeeds. It must say so, give nothing half done, and never have asked the server for something
 * else than it was told to ask for. Sanitizers see what is not freed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client_calls.h"
#include "fake_curl.h"
#include <jansson.h>

static long countdown = -1;
static bool has_fired;

static bool refused(void) {
    if (countdown < 0 || countdown-- > 0) return false;
    has_fired = true;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);
int __wrap_asprintf(char **out, const char *fmt, ...);

void *__wrap_malloc(size_t n) {
    return refused() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
    return refused() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n) {
    return refused() ? NULL : __real_realloc(p, n);
}
char *__wrap_strdup(const char *s) {
    return refused() ? NULL : __real_strdup(s);
}
__attribute__((format(printf, 2, 3))) int __wrap_asprintf(char **out, const char *fmt, ...) {
    va_list ap;
    if (refused()) return -1;
    va_start(ap, fmt);
    int n = vasprintf(out, fmt, ap);
    va_end(ap);
    return n;
}
static void *jansson_malloc(size_t n) {
    return refused() ? NULL : __real_malloc(n);
}

/* An answer that every call understands. */
#define BRANCH                                                                                     \
    "{\"id\":\"br-1\",\"name\":\"one\",\"project_id\":\"p-1\",\"default\":true,\"own_bytes\":1},"  \
    "{\"id\":\"br-2\",\"name\":\"two\",\"deleted_at\":\"2026-01-01T00:00:00Z\",\"project_id\":"    \
    "\"p-1\",\"current_state\":\"ready\"}"
#define ENDPOINT                                                                                   \
    "{\"id\":\"ep-1\",\"branch_id\":\"br-1\",\"project_id\":\"p-1\",\"current_state\":\"idle\"}"
static const char answer[] =
    "{\"branch\":{\"id\":\"br-1\",\"name\":\"new\"},\"branches\":[" BRANCH "],"
    "\"endpoint\":" ENDPOINT ",\"endpoints\":[" ENDPOINT "],\"why\":{\"state\":\"idle\"},"
    "\"project\":{\"id\":\"p-1\",\"name\":\"p\",\"pg_version\":15},"
    "\"projects\":[{\"id\":\"p-1\",\"name\":\"one\"},{\"id\":\"p-2\",\"name\":\"two\"}],"
    "\"snapshot\":{\"id\":\"snap-1\",\"name\":\"s\"},\"snapshots\":[{\"id\":\"snap-1\"}],"
    "\"operations\":[{\"id\":\"op-1\",\"action\":\"create_branch\"}],"
    "\"connection_uris\":[{\"connection_uri\":\"postgresql://u@h/d\"}],\"uri\":\"postgresql://u@h/"
    "d\","
    "\"id\":1,\"key\":\"bough_x\",\"name\":\"key\",\"version\":\"0\",\"pid\":1}";
static const char keys[] = "[{\"id\":1,\"name\":\"key\"},{\"id\":2,\"name\":\"other\"}]";

static int open_client(bough_client **client, bough_error *err) {
    const bough_client_options options = {
        .version = BOUGH_CLIENT_OPTIONS_VERSION, .api_url = "http://h/api/v2", .api_key = "k"};
    return bough_client_open(client, &options, err);
}

static void set_answer(const struct client_call *call) {
    bool is_list = call->run == call_key_all;
    fake_next = (fake_answer){.data = is_list ? keys : answer,
                              .size = is_list ? sizeof keys - 1 : sizeof answer - 1,
                              .piece = 100,
                              .type = "application/json",
                              .status = 200};
}

static void check_failure(const char *name, int n, int rc, const bough_error *err) {
    if (!has_fired) fail_msg("%s fails by itself: %s", name, err->message);
    if (rc != err->code || !err->message[0]) fail_msg("%s, allocation %d: no error", name, n);
    /* jansson does not always tell memory from what is no JSON */
    if (rc != BOUGH_E_NOMEM && !strstr(err->message, "memory") &&
        strcmp(err->message, "the server's answer is not JSON") != 0)
        fail_msg("%s, allocation %d: code %d: %s", name, n, rc, err->message);
}

static void every_call_survives_the_failure_of_any_allocation(void **unused) {
    (void)unused;
    for (size_t i = 0; i < CLIENT_CALLS; i++) {
        const struct client_call *call = &client_calls[i];
        char asked[sizeof fake_asked];
        bough_client *client = NULL;
        bough_error err = {0};
        assert_int_equal(open_client(&client, &err), BOUGH_OK);
        set_answer(call);
        if (call->run(client, &err)) fail_msg("%s: %s", call->name, err.message);
        (void)snprintf(asked, sizeof asked, "%s", fake_asked);
        for (int n = 0;; n++) {
            has_fired = false;
            fake_requests = 0;
            memset(&err, 0, sizeof err);
            countdown = n;
            int rc = call->run(client, &err);
            countdown = -1;
            if (rc) check_failure(call->name, n, rc, &err);
            if (fake_requests && strcmp(asked, fake_asked) != 0)
                fail_msg("%s, allocation %d: it asked for\n%s\nnot\n%s", call->name, n, fake_asked,
                         asked);
            if (!has_fired) break;
            assert_true(n < 10000);
        }
        bough_client_close(client);
    }
}

static void a_client_opens_or_says_that_memory_ran_out(void **unused) {
    (void)unused;
    for (int n = 0;; n++) {
        bough_client *client = NULL;
        bough_error err = {0};
        has_fired = false;
        countdown = n;
        int rc = open_client(&client, &err);
        countdown = -1;
        if (rc) check_failure("open", n, rc, &err);
        assert_int_equal(client != NULL, rc == BOUGH_OK);
        bough_client_close(client);
        if (!has_fired) break;
    }
}

/* The line that tells the end of long work, cut anywhere. */
static void long_work_survives_the_failure_of_any_allocation(void **unused) {
    (void)unused;
    char lines[8192];
    int size =
        snprintf(lines, sizeof lines,
                 "{\"progress\":{\"phase\":\"copying\",\"done_bytes\":1,\"total_bytes\":2}}\n"
                 "{\"status\":201,\"body\":%s}\n",
                 answer);
    bough_client *client = NULL;
    bough_error err = {0};
    assert_int_equal(open_client(&client, &err), BOUGH_OK);
    for (int n = 0;; n++) {
        fake_next = (fake_answer){.data = lines,
                                  .size = (size_t)size,
                                  .piece = (size_t)(n % 97 + 1),
                                  .type = "application/x-ndjson",
                                  .status = 200};
        has_fired = false;
        countdown = n;
        int rc = call_project_create(client, &err);
        countdown = -1;
        if (rc) check_failure("project_create", n, rc, &err);
        if (!has_fired) break;
    }
    bough_client_close(client);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_opens_or_says_that_memory_ran_out),
        cmocka_unit_test(every_call_survives_the_failure_of_any_allocation),
        cmocka_unit_test(long_work_survives_the_failure_of_any_allocation),
    };
    json_set_alloc_funcs(jansson_malloc, free);
    fake_malloc = jansson_malloc;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
