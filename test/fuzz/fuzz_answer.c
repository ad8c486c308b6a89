/*
 * libFuzzer target: what a server answers to libbough (src/client). The first byte is the call, the
 * second the status, the third how it comes; the rest is the answer. 255: the rest is
 * the file by which a client finds its server.
 */
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "unit/client_calls.h"
#include "unit/fake_curl.h"

static int progress(const bough_progress *p, void *arg) {
    (void)arg;
    return p->phase ? 0 : 1;
}

static char dir[] = "/tmp/bough-fuzz-answer-XXXXXX";

static void clean_up(void) {
    char path[64];
    static const char *const names[] = {"/run/server.json", "/run", ""};
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s%s", dir, names[i]);
        (void)remove(path);
    }
}

/* The file by which a client finds its server. */
static void try_server(const uint8_t *data, size_t size) {
    static int is_made;
    char path[64];
    bough_server *server = NULL;
    bough_error err = {0};
    (void)snprintf(path, sizeof path, "%s/run", dir);
    if (!is_made++) {
        if (!mkdtemp(dir)) abort();
        (void)atexit(clean_up);
        (void)snprintf(path, sizeof path, "%s/run", dir);
        if (mkdir(path, 0700) != 0) abort();
    }
    (void)snprintf(path, sizeof path, "%s/run/server.json", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    close(fd);
    int rc = bough_server_find(&server, dir, &err);
    if (rc && (rc != err.code || !err.message[0])) __builtin_trap();
    if ((rc == BOUGH_OK) != (server != NULL)) __builtin_trap();
    if (server && (!*server->api_url || !server->api_key_file)) __builtin_trap();
    bough_server_free(server);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const long statuses[] = {200, 201, 202, 204, 400, 401, 404, 409, 500, 999, 0};
    static const bough_client_options options = {
        .version = BOUGH_CLIENT_OPTIONS_VERSION, .api_url = "http://h/api/v2", .api_key = "k"};
    static bough_client *client;
    bough_error err = {0};
    if (size < 3) return 0;
    if (data[0] == 255) {
        try_server(data + 1, size - 1);
        return 0;
    }
    if (!client && bough_client_open(&client, &options, &err) != BOUGH_OK) abort();
    bough_client_set_progress(client, progress, NULL);
    bough_client_uncancel(client);
    char *text = fuzz_text(data + 3, size - 3);
    fake_next = (fake_answer){.data = text,
                              .size = size - 3,
                              .piece = data[2] >> 1,
                              .type = data[2] & 1 ? "application/x-ndjson" : "application/json",
                              .status = statuses[data[1] % (sizeof statuses / sizeof statuses[0])]};
    int rc = client_calls[data[0] % CLIENT_CALLS].run(client, &err);
    /* an error says so, in one line */
    if (rc && (err.code != rc || !err.message[0] || strchr(err.message, '\n') ||
               strnlen(err.message, sizeof err.message) == sizeof err.message ||
               strnlen(err.hint, sizeof err.hint) == sizeof err.hint))
        __builtin_trap();
    free(text);
    return 0;
}
