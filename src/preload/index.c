/* Reading the index file of a layer. */
#include "preload/index.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload/sys.h"

uint32_t bough_path_hash(const char *path, size_t length) {
    uint32_t h = 2166136261U;
    for (size_t i = 0; i < length; i++) {
        h ^= (uint8_t)path[i];
        h *= 16777619U;
    }
    return h;
}

uint32_t bough_crc32c(uint32_t crc, const void *data, size_t bytes) {
    /* Slicing by 8 (Kounavis and Berry, 2005). Filled at first use; a race fills in the same
     * values. */
    static uint32_t table[8][256];
    static _Atomic int ready;
    if (!atomic_load_explicit(&ready, memory_order_acquire)) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? (c >> 1) ^ 0x82f63b78U : c >> 1;
            table[0][i] = c;
        }
        for (uint32_t i = 0; i < 256; i++)
            for (int t = 1; t < 8; t++)
                table[t][i] = (table[t - 1][i] >> 8) ^ table[0][table[t - 1][i] & 0xff];
        atomic_store_explicit(&ready, 1, memory_order_release);
    }
    const uint8_t *p = data;
    crc = ~crc;
    while (bytes >= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        v ^= crc;
        crc = table[7][v & 0xff] ^ table[6][(v >> 8) & 0xff] ^ table[5][(v >> 16) & 0xff] ^
              table[4][(v >> 24) & 0xff] ^ table[3][(v >> 32) & 0xff] ^ table[2][(v >> 40) & 0xff] ^
              table[1][(v >> 48) & 0xff] ^ table[0][v >> 56];
        p += 8;
        bytes -= 8;
    }
    while (bytes--) crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xff];
    return ~crc;
}

/* Whether every offset of the header lies inside the file, so that a damaged index cannot lead
 * outside. */
static bool sane(const bough_index_header *h, uint64_t bytes) {
    if (h->magic != BOUGH_INDEX_MAGIC || h->bytes != bytes) return false;
    if (bough_crc32c(0, h, offsetof(bough_index_header, header_crc)) != h->header_crc) return false;
    if (h->slots == 0 || (h->slots & (h->slots - 1)) || h->slots <= h->records) return false;
    uint64_t records_end = sizeof *h + (uint64_t)h->records * sizeof(bough_record);
    uint64_t hash_bytes = (uint64_t)h->slots * 4;
    return h->hash_at >= records_end && h->hash_at <= bytes && h->hash_at % 4 == 0 &&
           hash_bytes <= bytes - h->hash_at && h->names_at >= h->hash_at + hash_bytes &&
           h->names_at <= h->bitmaps_at && h->bitmaps_at <= bytes;
}

/* Whether a record's name and bitmap lie where those are. */
static bool is_sound(const bough_index *index, const bough_record *r) {
    const bough_index_header *h = index->header;
    uint64_t names = h->bitmaps_at - h->names_at, bitmaps = h->bytes - h->bitmaps_at;
    if (r->name >= names || r->length >= names - r->name) return false;
    const char *name = bough_index_name(index, r);
    if (name[r->length] != '\0' || strlen(name) != r->length) return false;
    if (r->kind != BOUGH_RECORD_PAGES || r->full) return true;
    uint64_t bytes =
        ((r->size >> BOUGH_BLOCK_SHIFT) + ((r->size & (BOUGH_BLOCK - 1)) != 0) + 7) / 8;
    return r->bitmap <= bitmaps && bytes <= bitmaps - r->bitmap;
}

/* The same of the body, whose checksum is right: what looks at it relies on all of this. */
static bool is_whole(const bough_index *index) {
    const bough_index_header *h = index->header;
    uint32_t used = 0;
    for (uint32_t i = 0; i < h->records; i++)
        if (!is_sound(index, &index->records[i])) return false;
    for (uint32_t i = 0; i < h->slots; i++) {
        if (index->slots[i] > h->records) return false;
        used += index->slots[i] != 0;
    }
    return used < h->slots; /* a search ends at a free one */
}

int bough_index_map(bough_index *index, const char *path, bool verify) {
    memset(index, 0, sizeof *index);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct stat st;
    void *map = MAP_FAILED;
    if (fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(bough_index_header))
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    else
        errno = EUCLEAN;
    int saved = errno;
    close(fd);
    errno = saved;
    if (map == MAP_FAILED) return -1;
    const bough_index_header *h = map;
    const char *base = map;
    size_t bytes = (size_t)st.st_size;
    bool is_good = sane(h, bytes) &&
                   (!verify || bough_crc32c(0, base + sizeof *h, bytes - sizeof *h) == h->crc);
    if (is_good) {
        index->header = h;
        index->records = (const void *)(base + sizeof *h);
        index->slots = (const void *)(base + h->hash_at);
        index->names = base + h->names_at;
        index->bitmaps = (const uint8_t *)base + h->bitmaps_at;
        index->bytes = bytes;
        is_good = !verify || is_whole(index);
    }
    if (is_good) return 0;
    munmap(map, bytes);
    memset(index, 0, sizeof *index);
    errno = EUCLEAN;
    return -1;
}

void bough_index_unmap(bough_index *index) {
    if (index->header) munmap((void *)(uintptr_t)index->header, index->bytes);
    memset(index, 0, sizeof *index);
}

const bough_record *bough_index_find(const bough_index *index, const char *path, size_t length,
                                     uint32_t hash) {
    uint32_t mask = index->header->slots - 1;
    for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
        uint32_t n = index->slots[i];
        if (n == 0) return NULL;
        const bough_record *r = &index->records[n - 1];
        if (r->hash == hash && r->length == length &&
            memcmp(bough_index_name(index, r), path, length) == 0)
            return r;
    }
}

/* Records are in strcmp order, in which the contents of a directory are one run of names with
 * "dir/" before them. */
uint32_t bough_index_first_below(const bough_index *index, const char *dir, size_t length) {
    uint32_t low = 0, high = index->header->records;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        const char *name = bough_index_name(index, &index->records[mid]);
        int c = strncmp(name, dir, length);
        /* '/' is 0x2f: what sorts before "dir/" is dir itself and names that go on below 0x2f */
        if (c < 0 || (c == 0 && (unsigned char)name[length] < '/'))
            low = mid + 1;
        else
            high = mid;
    }
    if (low < index->header->records) {
        const char *name = bough_index_name(index, &index->records[low]);
        if (strncmp(name, dir, length) == 0 && name[length] == '/') return low;
    }
    return index->header->records;
}
