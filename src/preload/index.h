/* Reading the index file of a layer. An index is immutable, so any thread or process may read it.
 */
#ifndef BOUGH_PRELOAD_INDEX_H
#define BOUGH_PRELOAD_INDEX_H

#include <stddef.h>

#include "preload/layout.h"

/* A mapped index. */
typedef struct bough_index {
    const bough_index_header *header;
    const bough_record *records;
    const uint32_t *slots;
    const char *names;
    const uint8_t *bitmaps;
    size_t bytes;
} bough_index;

/* FNV-1a, 32 bit; the hash of paths in indexes and in the shared memory. */
uint32_t bough_path_hash(const char *path, size_t length);

/* CRC-32C (Castagnoli, as in RFC 3720 appendix B.4), continued from `crc` (start with 0). */
uint32_t bough_crc32c(uint32_t crc, const void *data, size_t bytes);

/*
 * Map an index file. `verify` checks the body's checksum too; the header's always is.
 * Returns 0, or -1 with errno (EUCLEAN: damaged).
 */
int bough_index_map(bough_index *index, const char *path, bool verify);
void bough_index_unmap(bough_index *index);

/* The record of a path, or NULL. */
const bough_record *bough_index_find(const bough_index *index, const char *path, size_t length,
                                     uint32_t hash);

/* First record that lies below the directory `dir` (path order), as a number; header->records when
 * none. */
uint32_t bough_index_first_below(const bough_index *index, const char *dir, size_t length);

static inline const char *bough_index_name(const bough_index *index, const bough_record *record) {
    return index->names + record->name;
}

/* Whether the block with this number is in the layer. Blocks past the end are not. */
static inline bool bough_record_has(const bough_index *index, const bough_record *record,
                                    uint64_t block) {
    if ((block << BOUGH_BLOCK_SHIFT) >= record->size) return false;
    if (record->full) return true;
    const uint8_t *bits = index->bitmaps + record->bitmap;
    return (bits[block >> 3] >> (block & 7)) & 1;
}

#endif
