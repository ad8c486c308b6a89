/* Writing the index of a layer, from the shared memory that described it as a head or from the
 * directory itself. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload/path.h"
#include "store/internal.h"

static int by_path(const void *a, const void *b) {
    const bough_entry *x = *(bough_entry *const *)a, *y = *(bough_entry *const *)b;
    return strcmp(x->path, y->path);
}

/* What the index must hold of a generation: files, directories, whiteouts. Newer entries of a path
 * come first. */
static int collect(bough_entry ***out, size_t *n, bough_header *shm, uint32_t gen,
                   bough_error *err) {
    size_t room = 1024, count = 0;
    bough_entry **list = malloc(room * sizeof *list);
    for (uint32_t b = 0; list && b < BOUGH_BUCKETS; b++) {
        if (!atomic_load(&shm->buckets[b])) continue; /* none of this generation comes any more */
        _Atomic uint32_t *stripe =
            &shm->stripes[b & 1023]; /* table.c: the stripe of all hashes of this bucket */
        bough_lock(stripe);
        uint64_t at = atomic_load(&shm->buckets[b]);
        for (; list && at; at = atomic_load(&((bough_entry *)bough_at(shm, at))->next)) {
            bough_entry *e = bough_at(shm, at);
            uint32_t state = atomic_load(&e->state);
            bool whiteout =
                state == BOUGH_ENTRY_GONE && (atomic_load(&e->flags) & BOUGH_FLAG_WHITEOUT);
            if (e->gen != gen || (state != BOUGH_ENTRY_HEAD && !whiteout)) continue;
            bool newer = false; /* a file made again over its whiteout: the newer entry stands
                                   before it in the bucket */
            for (size_t i = count; i-- > 0 && !newer && list[i]->hash % BOUGH_BUCKETS == b;)
                newer = strcmp(list[i]->path, e->path) == 0;
            if (newer) continue;
            if (count == room) {
                bough_entry **more = realloc(list, room * 2 * sizeof *list);
                if (!more) {
                    free(list);
                    list = NULL;
                    break;
                }
                list = more;
                room *= 2;
            }
            list[count++] = e;
        }
        bough_unlock(stripe);
    }
    if (!list) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    qsort(list, count, sizeof *list, by_path);
    *out = list;
    *n = count;
    return BOUGH_OK;
}

static bough_record_kind kind_of(const bough_entry *e) {
    uint32_t flags = atomic_load(&e->flags);
    if (atomic_load(&e->state) == BOUGH_ENTRY_GONE) return BOUGH_RECORD_WHITEOUT;
    if (flags & BOUGH_FLAG_DIR)
        return flags & BOUGH_FLAG_OPAQUE ? BOUGH_RECORD_DIR_OPAQUE : BOUGH_RECORD_DIR;
    return flags & BOUGH_FLAG_WHOLE ? BOUGH_RECORD_WHOLE : BOUGH_RECORD_PAGES;
}

static uint64_t blocks_of(uint64_t size) {
    return (size + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT;
}

static bool is_full(const bough_header *shm, const bough_entry *e) {
    uint64_t n = blocks_of(atomic_load(&e->size));
    for (uint64_t b = 0; b < n; b++)
        if (!bough_entry_has(shm, e, b)) return false;
    return true;
}

static uint64_t bitmap_bytes(uint64_t size) {
    return ((blocks_of(size) + 63) / 64) * 8;
}

/* Lay out records, hash table, names and bitmaps in `image`, which is zeroed. */
static void fill(char *image, bough_index_header *h, bough_header *shm, bough_entry **list,
                 size_t n) {
    bough_record *records = (void *)(image + sizeof *h);
    uint32_t *slots = (void *)(image + h->hash_at);
    char *names = image + h->names_at;
    uint8_t *bitmaps = (uint8_t *)image + h->bitmaps_at;
    uint64_t name = 0, bitmap = 0;
    for (size_t i = 0; i < n; i++) {
        bough_entry *e = list[i];
        bough_record *r = &records[i];
        size_t length = strlen(e->path);
        r->hash = e->hash;
        r->name = (uint32_t)name;
        r->length = (uint16_t)length;
        r->kind = (uint8_t)kind_of(e);
        r->size = atomic_load(&e->size);
        r->limit = r->kind == BOUGH_RECORD_PAGES ? atomic_load(&e->limit) : 0;
        memcpy(names + name, e->path, length + 1);
        name += length + 1;
        if (r->kind == BOUGH_RECORD_PAGES) {
            r->full = is_full(shm, e);
            if (!r->full) {
                r->bitmap = bitmap;
                uint64_t blocks = blocks_of(r->size);
                for (uint64_t b = 0; b < blocks; b++)
                    if (bough_entry_has(shm, e, b))
                        bitmaps[bitmap + (b >> 3)] |= (uint8_t)(1U << (b & 7));
                bitmap += bitmap_bytes(r->size);
            }
        }
        uint32_t s = r->hash & (h->slots - 1);
        while (slots[s]) s = (s + 1) & (h->slots - 1);
        slots[s] = (uint32_t)i + 1;
    }
}

/* Whole files are written behind the library's back as far as their size goes: ask the file. */
static void size_whole(bough_entry *e, const char *layer_path) {
    char path[BOUGH_PATH_MAX];
    struct stat st;
    if (kind_of(e) == BOUGH_RECORD_WHOLE &&
        bough_path(path, sizeof path, NULL, "%s/data/%s", layer_path, e->path) == 0 &&
        stat(path, &st) == 0)
        atomic_store(&e->size, (uint64_t)st.st_size);
}

int bough_index_write(bough_header *shm, uint32_t gen, const char *layer_path, bough_error *err) {
    bough_entry **list = NULL;
    size_t n = 0;
    char path[BOUGH_PATH_MAX], *image = NULL;
    bough_index_header h = {.magic = BOUGH_INDEX_MAGIC};
    int rc = collect(&list, &n, shm, gen, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/data", layer_path);
    if (!rc) rc = bough_tree_bytes(&h.allocated, path, err);
    if (rc) goto out;
    uint64_t names = 0, bitmaps = 0;
    for (size_t i = 0; i < n; i++) {
        size_whole(list[i], layer_path);
        names += strlen(list[i]->path) + 1;
        if (kind_of(list[i]) == BOUGH_RECORD_PAGES && !is_full(shm, list[i]))
            bitmaps += bitmap_bytes(atomic_load(&list[i]->size));
    }
    h.records = (uint32_t)n;
    for (h.slots = 16; h.slots < n * 2; h.slots *= 2) {
    }
    h.hash_at = sizeof h + n * sizeof(bough_record);
    h.names_at = h.hash_at + (uint64_t)h.slots * 4;
    h.bitmaps_at = (h.names_at + names + 7) & ~UINT64_C(7);
    h.bytes = h.bitmaps_at + bitmaps;
    image = calloc(1, h.bytes);
    if (!image) {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        goto out;
    }
    fill(image, &h, shm, list, n);
    h.crc = bough_crc32c(0, image + sizeof h, h.bytes - sizeof h);
    h.header_crc = bough_crc32c(0, &h, offsetof(bough_index_header, header_crc));
    memcpy(image, &h, sizeof h);
    rc = bough_path(path, sizeof path, err, "%s/index", layer_path);
    if (!rc) rc = bough_write_file(path, image, h.bytes, 0400, err);
out:
    free(image);
    free(list);
    return rc;
}

int bough_index_rebuild(bough_store *store, const char *dir, const bough_layers *below,
                        bough_error *err) {
    char layer[BOUGH_PATH_MAX], data[BOUGH_PATH_MAX];
    bough_shm *shm = NULL;
    int fd = -1;
    int rc = bough_path(layer, sizeof layer, err, "%s/layers/%s", store->dir, dir);
    if (!rc) rc = bough_path(data, sizeof data, err, "%s/data", layer);
    if (!rc) rc = bough_head_scan(&shm, &fd, store, "", data, below, err);
    if (!rc) rc = bough_index_write(shm->header, 0, layer, err);
    bough_shm_close(shm);
    if (fd >= 0) close(fd);
    return rc;
}
