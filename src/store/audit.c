/* The oracle: presence in shared memory must equal what the extents of the head's files say. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "store/internal.h"

#define GATE_TIMEOUT_MS 5000

static int differs(const bough_entry *e, const char *what, uint64_t block, bough_error *err) {
    return bough_fail(err, BOUGH_E_CORRUPT, "presence of \"%s\" is wrong: %s, block %llu", e->path,
                      what, (unsigned long long)block);
}

/* Preallocated blocks in the page cache are data to SEEK_DATA. Past the limit they show zeros, be
 * they marked or not. */
static bool is_preallocated(const bough_entry *e, int fd, uint64_t block) {
    static const char zeros[BOUGH_BLOCK];
    char data[BOUGH_BLOCK];
    if (block << BOUGH_BLOCK_SHIFT < atomic_load(&e->limit)) return false;
    ssize_t n = bough_pread_full(fd, data, sizeof data, (off_t)(block << BOUGH_BLOCK_SHIFT));
    return n >= 0 && memcmp(data, zeros, (size_t)n) == 0;
}

/* Blocks [from, to) are all data, or all hole. */
static int check_run(const bough_header *shm, const bough_entry *e, int fd, uint64_t from,
                     uint64_t to, bool data, bough_error *err) {
    for (uint64_t b = from; b < to; b++)
        if (bough_entry_has(shm, e, b) != data && !(data && is_preallocated(e, fd, b)))
            return differs(e, data ? "data not marked" : "hole marked", b, err);
    return BOUGH_OK;
}

static int check_extents(const bough_header *shm, const bough_entry *e, int fd, uint64_t size,
                         bough_error *err) {
    uint64_t blocks = (size + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT, at = 0;
    int rc = BOUGH_OK;
    while (!rc && at < blocks) {
        off_t data = lseek(fd, (off_t)(at << BOUGH_BLOCK_SHIFT), SEEK_DATA);
        if (data < 0 && errno == ENXIO) return check_run(shm, e, fd, at, blocks, false, err);
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (hole < 0)
            return bough_fail_sys(err, errno, "could not read the extents of \"%s\"", e->path);
        uint64_t first = (uint64_t)data >> BOUGH_BLOCK_SHIFT;
        uint64_t end = ((uint64_t)hole + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT;
        rc = check_run(shm, e, fd, at, first, false, err);
        if (!rc) rc = check_run(shm, e, fd, first, end, true, err);
        at = end;
    }
    return rc;
}

static int check_entry(const bough_header *shm, const bough_entry *e, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    uint32_t state = atomic_load(&e->state), flags = atomic_load(&e->flags);
    struct stat st;
    int rc = bough_path(path, sizeof path, err, "%s/%s", shm->pgdata, e->path);
    if (rc) return rc;
    bool there = lstat(path, &st) == 0;
    if (state == BOUGH_ENTRY_LOWER)
        return there && S_ISREG(st.st_mode) ? differs(e, "a head file is not known", 0, err)
                                            : BOUGH_OK;
    if (state == BOUGH_ENTRY_GONE) {
        bool link = there && S_ISLNK(st.st_mode);
        return (flags & BOUGH_FLAG_WHITEOUT) && !link ? differs(e, "a whiteout is missing", 0, err)
                                                      : BOUGH_OK;
    }
    if (!there) return differs(e, "a head file is missing", 0, err);
    if (flags & (BOUGH_FLAG_DIR | BOUGH_FLAG_WHOLE)) return BOUGH_OK;
    if ((uint64_t)st.st_size != atomic_load(&e->size))
        return differs(e, "the size is wrong", (uint64_t)st.st_size, err);
    int fd = bough_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0) return bough_fail_sys(err, errno, "could not open \"%s\"", path);
    rc = check_extents(shm, e, fd, (uint64_t)st.st_size, err);
    close(fd);
    return rc;
}

int bough_store_audit(size_t *files, bough_shm *live, bough_error *err) {
    bough_header *shm = live->header;
    uint32_t gen = atomic_load(&shm->gen);
    *files = 0;
    if (bough_gate_close(shm, GATE_TIMEOUT_MS) != 0)
        return bough_fail(err, BOUGH_E_TIMEOUT, "the writers did not come to rest");
    int rc = BOUGH_OK;
    for (uint32_t b = 0; !rc && b < BOUGH_BUCKETS; b++)
        for (uint64_t at = atomic_load(&shm->buckets[b]); !rc && at;) {
            const bough_entry *e = bough_at(shm, at);
            size_t n = strlen(e->path);
            /* only the newest entry of a path describes the file; older ones serve open descriptors
             */
            if (e->gen == gen && bough_entry_find(shm, gen, e->path, n, e->hash) == e) {
                rc = check_entry(shm, e, err);
                ++*files;
            }
            at = atomic_load(&e->next);
        }
    bough_gate_open(shm);
    return rc;
}
