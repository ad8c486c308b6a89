/* libFuzzer target: what a client says first (src/server/hello.h). Traps where a promise is broken.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "server/hello.h"

/* In memory of exactly its size, so that a sanitizer sees a read beyond it. */
static uint8_t *exact(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    return copy;
}

static void try_tls(const uint8_t *data, size_t size) {
    char name[256], endpoint[HELLO_ENDPOINT_SIZE];
    size_t need = 0;
    hello_result result = hello_tls(name, &need, data, size);
    if (result == HELLO_SHORT && (need <= size || need > HELLO_TLS_MAX)) __builtin_trap();
    if (strnlen(name, sizeof name) == sizeof name) __builtin_trap();
    if (hello_endpoint_of_name(endpoint, name) && strncmp(endpoint, "ep-", 3) != 0)
        __builtin_trap();
    if (hello_branch_of_name(endpoint, name) && strncmp(endpoint, "br-", 3) != 0) __builtin_trap();
}

static void try_startup(uint8_t *data, size_t size) {
    hello_target target, again;
    const char *why = NULL;
    size_t left = size;
    hello_result result = hello_startup(&target, &why, data, &left);
    if (left > size || (result == HELLO_WRONG && !why)) __builtin_trap();
    if (result != HELLO_DONE) return;
    /* what is left names no endpoint, and is a packet like any other */
    if (hello_startup(&again, &why, data, &left) != HELLO_DONE) __builtin_trap();
    if (*target.endpoint && *again.endpoint) __builtin_trap();
    if ((*target.lsn && *again.lsn) || (*target.pass && *again.pass)) __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = exact(data, size);
    size_t need = 0;
    hello_kind kind = hello_first(&need, copy, size);
    if (kind == HELLO_MORE && (need <= size || need > HELLO_STARTUP_MAX)) __builtin_trap();
    if (kind == HELLO_STARTUP && (need > size || need > HELLO_STARTUP_MAX)) __builtin_trap();
    if (kind == HELLO_CANCEL) {
        if (need > size || need > HELLO_CANCEL_MAX) __builtin_trap();
        (void)hello_cancel_pid(copy);
    }
    if (kind == HELLO_PASS) {
        char word[HELLO_WORD_SIZE];
        if (need > size) __builtin_trap();
        hello_pass_read(word, copy);
    }
    try_tls(copy, size);
    if (kind == HELLO_STARTUP) {
        uint8_t *packet = exact(copy, need);
        try_startup(packet, need);
        free(packet);
    }
    try_startup(copy, size);
    free(copy);
    return 0;
}
