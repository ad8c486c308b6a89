/*
 * libFuzzer target: the first packets of whoever connects to a compute's Unix socket, as its
 * library reads them (src/preload/admit.c). The first byte says in how large pieces they are taken.
 * What postgres gets is read as postgres reads it: it must never be told the administrator's name
 * by somebody who does not know the key, and where the key was not there, nothing may have changed.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "preload/handoff.h"
#include "preload/lib.h"

bough_lib bough; /* as lib.c has it */

static const char key[] = "0123456789abcdef0123456789abcdef";

static uint32_t number(const unsigned char *b) {
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Of PostgreSQL: ProcessStartupPacket() in tcop/backend_startup.c. */
static bool names_admin(const unsigned char *data, size_t size) {
    bool does = false;
    size_t at = 0;
    while (size - at >= 8 &&
           (number(data + at + 4) == 80877103 || number(data + at + 4) == 80877104))
        at += 8;
    if (size - at < 8) return false;
    const char *text = (const char *)data + at;
    uint32_t length = number(data + at);
    if (length > size - at || length < 9 || text[length - 1] != '\0') return false;
    for (size_t i = 8; i < length && text[i];) {
        size_t value = i + strlen(text + i) + 1;
        if (value >= length) break;
        if (strcmp(text + i, "user") == 0) does = strcmp(text + value, BOUGH_ADMIN_NAME) == 0;
        i = value + strlen(text + value) + 1;
    }
    return does;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static unsigned char got[BOUGH_HANDOFF_BYTES_MAX * 2];
    int pair[2];
    size_t n = 0, most = sizeof got / 2;
    if (size < 2) return 0;
    if (!bough.shm) {
        bough.shm = calloc(1, sizeof *bough.shm);
        if (!bough.shm) abort();
        memcpy(bough.shm->admin_key, key, sizeof key);
    }
    size_t piece = data[0] ? data[0] : sizeof got;
    if (size - 1 < most) most = size - 1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) abort();
    if (send(pair[0], data + 1, most, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)most) abort();
    (void)shutdown(pair[0], SHUT_WR);
    bough_admit_begin(pair[1]);
    if (bough_guarded_fd != pair[1]) __builtin_trap();
    while (bough_guarded_fd == pair[1] && n < sizeof got) {
        ssize_t more =
            bough_admit_recv(pair[1], got + n, n + piece > sizeof got ? sizeof got - n : piece, 0);
        if (more <= 0) break;
        n += (size_t)more;
    }
    if (n > most) __builtin_trap();
    if (!memmem(data + 1, most, key, sizeof key - 1)) {
        if (names_admin(got, n) || memcmp(got, data + 1, n) != 0) __builtin_trap();
    }
    bough_admit_closed();
    close(pair[0]);
    close(pair[1]);
    return 0;
}
