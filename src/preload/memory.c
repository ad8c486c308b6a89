/*
 * The memory that postgres shares with its children: the kernel has given what was touched. Too
 * much of it while a compute idles, too slowly while one recovers.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "preload/lib.h"

#define PAGE 4096

static char *shared; /* children inherit it where it is */
static size_t shared_bytes;

void bough_memory_mapped(void *memory, size_t n) {
    if (n < shared_bytes) return; /* after a crash of a child there is another of the same size */
    shared = memory;
    shared_bytes = n;
}

/*
 * Pages of zeros that the kernel has given, as they are without it: a postmaster that has just
 * begun has written zeros into half of what it has touched, most of all into its WAL buffers. Who
 * needs such a page is given it anew.
 */
void bough_memory_give(void) {
    static const char zeros[PAGE];
    enum { AT_ONCE = 4096 };
    unsigned char there[AT_ONCE];
    int saved = errno;
    size_t pages = shared_bytes / PAGE, first = 0, n = 0; /* a run of them */
    for (size_t at = 0; at < pages; at++) {
        size_t left = pages - at < AT_ONCE ? pages - at : AT_ONCE;
        if (at % AT_ONCE == 0 && mincore(shared + at * PAGE, left * PAGE, there) != 0) break;
        if ((there[at % AT_ONCE] & 1) && memcmp(shared + at * PAGE, zeros, PAGE) == 0) {
            if (n++ == 0) first = at;
            if (at + 1 < pages) continue;
        }
        if (n) (void)madvise(shared + first * PAGE, n * PAGE, MADV_REMOVE);
        n = 0;
    }
    errno = saved;
}

/*
 * Recovery is about to begin: have the memory that it fills, which postgres takes in order, from
 * the kernel at once and not at a fault for each 4 KiB. Page images are compressed: PAGES_OF_WAL is
 * less than pgbench makes of its WAL (3 to 5), so that nothing is taken that stays unused.
 */
void bough_memory_take(void) {
    enum { BEFORE_BUFFERS = 12 << 20, PAGES_OF_WAL = 2 };
    uint64_t wal = atomic_load(&bough.shm->replay_bytes);
    if (wal == 0 || atomic_exchange(&bough.shm->replay_bytes, 0) == 0 || !shared) return;
    uint64_t bytes = BEFORE_BUFFERS + PAGES_OF_WAL * wal;
    if (bytes > shared_bytes) bytes = shared_bytes;
    int saved = errno; /* since Linux 5.14; it may fail */
    (void)madvise(shared, bytes / PAGE * PAGE, MADV_POPULATE_WRITE);
    errno = saved;
}
