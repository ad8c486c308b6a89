/*
 * libFuzzer target: WAL (src/store/walscan.h), the bytes being the beginning of the segment that
 * their first page names. A cut does not lie before the start, nor behind what was wished.
 */
#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "store/walscan.h"

#define SEGMENT_BYTES (UINT64_C(1) << 20)

static uint64_t segment;

static int open_segment(void *context, uint32_t tli, uint64_t number) {
    if (number == segment && tli == 1) return open(context, O_RDONLY | O_CLOEXEC);
    errno = ENOENT;
    return -1;
}

/* The cut; where there is none, the start. `first`: the end of the record at the start. */
static uint64_t scan(char *path, const bough_wal_wish *wish, uint64_t first) {
    bough_wal_source source = {
        .tli = 1, .segment_bytes = SEGMENT_BYTES, .open = open_segment, .context = path};
    bough_wal_found found;
    bough_error err;
    if (bough_wal_scan(&found, &source, wish, &err) != BOUGH_OK) {
        if (!err.message[0]) __builtin_trap();
        return wish->start;
    }
    if (found.cut < wish->start) __builtin_trap();
    if (first && found.cut > wish->lsn && found.cut != first) __builtin_trap();
    if (wish->time_us && found.last_commit_us > wish->time_us &&
        wish->not_before <= wish->start + 1)
        __builtin_trap();
    return found.cut;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    uint64_t address = 0;
    if (size >= 16) memcpy(&address, data + 8, sizeof address);
    segment = address % (UINT64_C(1) << 60) / SEGMENT_BYTES;
    int fd = fuzz_file(path, data, size);
    if (ftruncate(fd, (off_t)SEGMENT_BYTES) != 0) abort();
    uint64_t start = segment * SEGMENT_BYTES + 40; /* behind the page's long header */
    bough_wal_wish wish = {.start = start, .not_before = start + 1};
    (void)scan(path, &wish, 0);
    wish.lsn = wish.not_before; /* nothing but what begins before it, however long: one record */
    uint64_t first = scan(path, &wish, 0);
    wish.lsn = start + 6000;
    (void)scan(path, &wish, first);
    wish.lsn = 0;
    wish.time_us = BOUGH_PG_EPOCH_SECONDS * 1000000 + INT64_C(800000000) * 1000000;
    (void)scan(path, &wish, 0);
    close(fd);
    return 0;
}
