/*
 * libFuzzer target: the index of a layer (src/preload/index.h), as it is and with checksums made
 * right. What is taken for sound must not lead outside, wherever one looks.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "preload/index.h"

static void look_everywhere(const bough_index *index) {
    static const char *const paths[] = {"base", "base/1", "base/1/1000", "global/1262", "x", ""};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        size_t n = strlen(paths[i]);
        sum += bough_index_find(index, paths[i], n, bough_path_hash(paths[i], n)) != NULL;
        sum += bough_index_first_below(index, paths[i], n);
    }
    for (uint32_t i = 0; i < index->header->records; i++) {
        const bough_record *r = &index->records[i];
        const char *name = bough_index_name(index, r);
        if (strlen(name) != r->length) __builtin_trap();
        sum += bough_index_find(index, name, r->length, r->hash) != NULL;
        uint64_t blocks = (r->size + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT;
        if (r->kind != BOUGH_RECORD_PAGES || !blocks) continue;
        sum += bough_record_has(index, r, 0) + bough_record_has(index, r, blocks / 2);
        sum += bough_record_has(index, r, blocks - 1) + bough_record_has(index, r, blocks);
    }
    volatile uint64_t sink = sum;
    (void)sink;
}

static void try_index(const uint8_t *data, size_t size) {
    char path[64];
    bough_index index;
    int fd = fuzz_file(path, data, size);
    if (bough_index_map(&index, path, true) == 0) {
        look_everywhere(&index);
        bough_index_unmap(&index);
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bough_index_header h;
    try_index(data, size);
    if (size < sizeof h) return 0;
    char *copy = fuzz_text(data, size);
    memcpy(&h, copy, sizeof h);
    h.magic = BOUGH_INDEX_MAGIC;
    h.bytes = size;
    h.crc = bough_crc32c(0, copy + sizeof h, size - sizeof h);
    h.header_crc = bough_crc32c(0, &h, offsetof(bough_index_header, header_crc));
    memcpy(copy, &h, sizeof h);
    try_index((const uint8_t *)copy, size);
    free(copy);
    return 0;
}
