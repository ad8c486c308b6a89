/* The shared memory of a compute. See table.h. */
#include "preload/table.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "preload/index.h"
#include "preload/path.h"
#include "preload/sys.h"

static int32_t cached_pid;

int32_t bough_table_pid(void) {
    if (!cached_pid) cached_pid = (int32_t)getpid();
    return cached_pid;
}

void bough_table_forked(void) {
    cached_pid = 0;
}

/* ---- memory -----------------------------------------------------------------------------------
 */

bough_header *bough_table_map(int fd) {
    bough_header *shm =
        mmap(NULL, BOUGH_SHM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (shm == MAP_FAILED) return NULL;
    if (sys_size(fd) != (int64_t)BOUGH_SHM_BYTES || shm->magic != BOUGH_SHM_MAGIC ||
        shm->bytes != BOUGH_SHM_BYTES) {
        munmap(shm, BOUGH_SHM_BYTES);
        errno = EINVAL;
        return NULL;
    }
    return shm;
}

bough_header *bough_table_create(int fd, const char *pgdata, const char *layers) {
    if (strlen(pgdata) >= sizeof((bough_header *)0)->pgdata ||
        strlen(layers) >= sizeof((bough_header *)0)->layers) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    if (sys_ftruncate(fd, (off_t)BOUGH_SHM_BYTES) != 0) return NULL;
    bough_header *shm =
        mmap(NULL, BOUGH_SHM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (shm == MAP_FAILED) return NULL;
    (void)snprintf(shm->pgdata, sizeof shm->pgdata, "%s", pgdata);
    (void)snprintf(shm->layers, sizeof shm->layers, "%s", layers);
    shm->bytes = BOUGH_SHM_BYTES;
    /* 1 KiB aligned: chunks are addressed in these units, and 0 must mean none */
    atomic_store(&shm->used, (sizeof *shm + 1023) & ~UINT64_C(1023));
    shm->magic = BOUGH_SHM_MAGIC;
    return shm;
}

void bough_table_unmap(bough_header *shm) {
    if (shm) munmap(shm, BOUGH_SHM_BYTES);
}

static uint64_t bump(bough_header *shm, uint64_t bytes) {
    uint64_t at = atomic_fetch_add(&shm->used, bytes);
    if (at + bytes <= shm->bytes) return at;
    atomic_fetch_sub(&shm->used, bytes);
    errno = ENOSPC;
    return 0;
}

/* ---- locks ------------------------------------------------------------------------------------
 */

static void futex_wait(_Atomic uint32_t *word, uint32_t value, long ms) {
    struct timespec ts = {ms / 1000, (ms % 1000) * 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &ts, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static bool dead(int32_t pid) {
    return kill(pid, 0) != 0 && errno == ESRCH;
}

/* From /proc: the state letter of a process and its parent. False where it is not there, or not to
 * be seen. */
static bool read_stat(int32_t pid, char *state, int *ppid) {
    char path[64], text[512];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return false;
    ssize_t n = sys_read(fd, text, sizeof text - 1);
    sys_close(fd);
    if (n <= 0) return false;
    text[n] = '\0';
    const char *p = strrchr(text, ')');
    return p && sscanf(p + 1, " %c %d", state, ppid) == 2;
}

/* Dead, and its parent has not asked yet: it may be the parent who waits for its lock. */
static bool is_zombie(int32_t pid) {
    char state;
    int ppid;
    return read_stat(pid, &state, &ppid) && state == 'Z';
}

void bough_lock(_Atomic uint32_t *word) {
    int saved = errno;
    uint32_t me = (uint32_t)bough_table_pid();
    for (int tries = 0;; tries++) {
        uint32_t free_word = 0;
        if (atomic_compare_exchange_strong(word, &free_word, me)) break;
        if (tries < 64) {
            sched_yield();
            continue;
        }
        futex_wait(word, free_word, 2);
        if ((dead((int32_t)free_word) || (tries % 64 == 0 && is_zombie((int32_t)free_word))) &&
            atomic_compare_exchange_strong(word, &free_word, me))
            break;
    }
    errno = saved;
}

void bough_unlock(_Atomic uint32_t *word) {
    int saved = errno;
    atomic_store(word, 0);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    errno = saved;
}

/* ---- entries ----------------------------------------------------------------------------------
 */

static _Atomic uint32_t *stripe(bough_header *shm, uint32_t hash) {
    return &shm->stripes[hash & 1023];
}

static bough_entry *chain_find(bough_header *shm, uint32_t gen, const char *path, size_t length,
                               uint32_t hash) {
    uint64_t at = atomic_load(&shm->buckets[hash % BOUGH_BUCKETS]);
    while (at) {
        bough_entry *e = bough_at(shm, at);
        if (e->hash == hash && e->gen == gen && memcmp(e->path, path, length) == 0 &&
            e->path[length] == '\0')
            return e;
        at = atomic_load(&e->next);
    }
    return NULL;
}

bough_entry *bough_entry_find(bough_header *shm, uint32_t gen, const char *path, size_t length,
                              uint32_t hash) {
    if (length >= BOUGH_LAYERED_PATH_MAX) return NULL;
    bough_lock(stripe(shm, hash));
    bough_entry *e = chain_find(shm, gen, path, length, hash);
    bough_unlock(stripe(shm, hash));
    return e;
}

/* Take a freed object from `list`, else new memory. */
static uint64_t take(bough_header *shm, _Atomic uint64_t *list, uint64_t bytes) {
    bough_lock(&shm->alloc_lock);
    uint64_t at = atomic_load(list);
    if (at) {
        uint64_t next;
        memcpy(&next, bough_at(shm, at), sizeof next);
        atomic_store(list, next);
    }
    bough_unlock(&shm->alloc_lock);
    return at ? at : bump(shm, bytes);
}

static void give(bough_header *shm, _Atomic uint64_t *list, uint64_t at) {
    bough_lock(&shm->alloc_lock);
    uint64_t next = atomic_load(list);
    memcpy(bough_at(shm, at), &next, sizeof next);
    atomic_store(list, at);
    bough_unlock(&shm->alloc_lock);
}

#define CHUNK_BYTES (BOUGH_CHUNK_BLOCKS / 8)
#define ENTRY_BYTES ((sizeof(bough_entry) + 1023) & ~(size_t)1023)

static void free_chunks(bough_header *shm, bough_entry *e, uint32_t from) {
    for (uint32_t c = from; c < BOUGH_CHUNKS; c++) {
        uint32_t n = atomic_exchange(&e->chunks[c], 0);
        if (n) give(shm, &shm->free_chunks, (uint64_t)n * CHUNK_BYTES);
    }
}

/* Take an entry out of its bucket; false where it is not there. With its stripe's lock. */
static bool unchain(bough_header *shm, bough_entry *entry) {
    _Atomic uint64_t *link = &shm->buckets[entry->hash % BOUGH_BUCKETS];
    uint64_t at = bough_offset(shm, entry);
    while (atomic_load(link) && atomic_load(link) != at)
        link = &((bough_entry *)bough_at(shm, atomic_load(link)))->next;
    if (atomic_load(link) != at) return false;
    atomic_store(link, atomic_load(&entry->next));
    return true;
}

/* Free an entry that nobody holds. With its stripe's lock. */
static void drop(bough_header *shm, bough_entry *entry) {
    (void)unchain(shm, entry);
    free_chunks(shm, entry, 0);
    give(shm, &shm->free_entries, bough_offset(shm, entry));
}

/* A new entry, which nobody can find yet, with a reference. NULL with errno ENOSPC. */
static bough_entry *entry_new(bough_header *shm, const char *path, size_t length, uint64_t size,
                              uint64_t limit) {
    uint64_t at = take(shm, &shm->free_entries, ENTRY_BYTES);
    if (!at) return NULL;
    bough_entry *e = bough_at(shm, at);
    memset(e, 0, sizeof *e);
    e->hash = bough_path_hash(path, length);
    e->gen = atomic_load(&shm->gen);
    atomic_store(&e->size, size);
    atomic_store(&e->limit, limit);
    atomic_store(&e->refs, 1);
    memcpy(e->path, path, length);
    return e;
}

/* As the newest of its path. With its stripe's lock. */
static void chain(bough_header *shm, bough_entry *entry) {
    _Atomic uint64_t *bucket = &shm->buckets[entry->hash % BOUGH_BUCKETS];
    atomic_store(&entry->next, atomic_load(bucket));
    atomic_store(bucket, bough_offset(shm, entry));
}

bough_entry *bough_entry_get(bough_header *shm, const char *path, size_t length, uint64_t size) {
    if (length >= BOUGH_LAYERED_PATH_MAX) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    uint32_t hash = bough_path_hash(path, length);
    bough_lock(stripe(shm, hash));
    bough_entry *e = chain_find(shm, atomic_load(&shm->gen), path, length, hash);
    if (e)
        atomic_fetch_add(&e->refs, 1);
    else if ((e = entry_new(shm, path, length, size, size)) != NULL)
        chain(shm, e);
    bough_unlock(stripe(shm, hash));
    return e;
}

bough_entry *bough_entry_make(bough_header *shm, const char *path, size_t length, uint64_t size,
                              uint32_t flags, int fd) {
    if (length >= BOUGH_LAYERED_PATH_MAX) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    bough_entry *e = entry_new(shm, path, length, size, 0);
    if (!e) return NULL;
    atomic_store(&e->flags, flags);
    atomic_store(&e->state, BOUGH_ENTRY_HEAD);
    if (fd >= 0 && bough_entry_scan(shm, e, fd) != 0) {
        free_chunks(shm, e, 0);
        give(shm, &shm->free_entries, bough_offset(shm, e));
        return NULL;
    }
    bough_lock(stripe(shm, e->hash));
    bough_entry *old = chain_find(shm, e->gen, path, length, e->hash);
    chain(shm, e);
    if (old) { /* it serves who has open what had the name, and says nothing of the name */
        atomic_store(&old->state, BOUGH_ENTRY_GONE);
        atomic_fetch_and(&old->flags, ~(uint32_t)BOUGH_FLAG_WHITEOUT);
        if (atomic_load(&old->refs) == 0) drop(shm, old);
    }
    bough_unlock(stripe(shm, e->hash));
    return e;
}

void bough_entry_hold(bough_entry *entry) {
    atomic_fetch_add(&entry->refs, 1);
}

void bough_entry_put(bough_header *shm, bough_entry *entry) {
    _Atomic uint32_t *lock = stripe(shm, entry->hash);
    bough_lock(lock);
    uint32_t flags = atomic_load(&entry->flags);
    bool is_needed =
        !(flags & BOUGH_FLAG_RETIRED) &&
        (atomic_load(&entry->state) != BOUGH_ENTRY_GONE || (flags & BOUGH_FLAG_WHITEOUT));
    if (atomic_fetch_sub(&entry->refs, 1) == 1 && !is_needed) drop(shm, entry);
    bough_unlock(lock);
}

void bough_table_sweep(bough_header *shm) {
    uint32_t live[BOUGH_MAX_DEPTH + 1];
    unsigned n = 0, depth = atomic_load(&shm->depth);
    live[n++] = atomic_load(&shm->gen);
    for (unsigned i = 0; i < depth && i < BOUGH_MAX_DEPTH; i++) {
        uint32_t gen = atomic_load(&shm->stack[i].gen);
        if (gen != BOUGH_NO_GEN) live[n++] = gen;
    }
    for (uint32_t b = 0; b < BOUGH_BUCKETS; b++) {
        if (!atomic_load(&shm->buckets[b])) continue;
        bough_lock(stripe(shm, b)); /* that of all hashes of this bucket */
        for (uint64_t at = atomic_load(&shm->buckets[b]); at;) {
            bough_entry *e = bough_at(shm, at);
            unsigned i = 0;
            at = atomic_load(&e->next);
            while (i < n && live[i] != e->gen) i++;
            if (i < n) continue;
            if (atomic_load(&e->refs) == 0)
                drop(shm, e);
            else
                atomic_fetch_or(&e->flags, BOUGH_FLAG_RETIRED);
        }
        bough_unlock(stripe(shm, b));
    }
}

void bough_entry_forget(bough_header *shm, bough_entry *entry) {
    bough_lock(stripe(shm, entry->hash));
    bough_entry *e = entry;
    do { /* with it those before it, of files that are unlinked and still open */
        atomic_store(&e->state, BOUGH_ENTRY_GONE);
        atomic_fetch_and(&e->flags, ~(uint32_t)BOUGH_FLAG_WHITEOUT);
        (void)unchain(shm, e);
        e = chain_find(shm, entry->gen, entry->path, strlen(entry->path), entry->hash);
    } while (e);
    bough_unlock(stripe(shm, entry->hash));
}

void bough_entries_unmark(bough_header *shm, uint32_t gen, const char *dir) {
    char path[sizeof shm->pgdata + BOUGH_LAYERED_PATH_MAX + 2];
    struct stat st;
    size_t n = strlen(dir);
    int saved = errno;
    for (uint32_t b = 0; b < BOUGH_BUCKETS; b++) {
        if (!atomic_load(&shm->buckets[b])) continue;
        bough_lock(stripe(shm, b)); /* that of all hashes of this bucket */
        for (uint64_t at = atomic_load(&shm->buckets[b]); at;) {
            bough_entry *e = bough_at(shm, at);
            at = atomic_load(&e->next);
            if (e->gen != gen || !(atomic_load(&e->flags) & BOUGH_FLAG_WHITEOUT) ||
                strncmp(e->path, dir, n) != 0 || e->path[n] != '/')
                continue;
            (void)snprintf(path, sizeof path, "%s/%s", shm->pgdata, e->path);
            if (sys_stat(path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode)) continue;
            atomic_fetch_and(&e->flags, ~(uint32_t)BOUGH_FLAG_WHITEOUT);
            if (atomic_load(&e->refs) == 0) drop(shm, e);
        }
        bough_unlock(stripe(shm, b));
    }
    errno = saved;
}

/* ---- presence ---------------------------------------------------------------------------------
 */

static _Atomic uint64_t *words(const bough_header *shm, uint32_t chunk) {
    return bough_at(shm, (uint64_t)chunk * CHUNK_BYTES);
}

bool bough_entry_has(const bough_header *shm, const bough_entry *entry, uint64_t block) {
    uint64_t c = block / BOUGH_CHUNK_BLOCKS;
    if (c >= BOUGH_CHUNKS) return false;
    uint32_t chunk = atomic_load_explicit(&entry->chunks[c], memory_order_acquire);
    if (!chunk) return false;
    uint64_t bit = block % BOUGH_CHUNK_BLOCKS;
    return (atomic_load_explicit(&words(shm, chunk)[bit / 64], memory_order_acquire) >>
            (bit % 64)) &
           1;
}

int bough_entry_reserve(bough_header *shm, bough_entry *entry, uint64_t block, uint64_t count) {
    if (count == 0) return 0;
    uint64_t last = (block + count - 1) / BOUGH_CHUNK_BLOCKS;
    if (last >= BOUGH_CHUNKS) {
        errno = EFBIG;
        return -1;
    }
    for (uint64_t c = block / BOUGH_CHUNK_BLOCKS; c <= last; c++) {
        if (atomic_load(&entry->chunks[c])) continue;
        uint64_t at = take(shm, &shm->free_chunks, CHUNK_BYTES);
        if (!at) return -1;
        memset(bough_at(shm, at), 0, CHUNK_BYTES);
        uint32_t none = 0;
        if (!atomic_compare_exchange_strong(&entry->chunks[c], &none, (uint32_t)(at / CHUNK_BYTES)))
            give(shm, &shm->free_chunks, at);
    }
    return 0;
}

int bough_entry_set(bough_header *shm, bough_entry *entry, uint64_t block, uint64_t count) {
    if (bough_entry_reserve(shm, entry, block, count) != 0) return -1;
    while (count) {
        uint32_t chunk = atomic_load(&entry->chunks[block / BOUGH_CHUNK_BLOCKS]);
        uint64_t bit = block % BOUGH_CHUNK_BLOCKS;
        uint64_t n = 64 - bit % 64;
        if (n > count) n = count;
        uint64_t mask = (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1) << (bit % 64);
        atomic_fetch_or_explicit(&words(shm, chunk)[bit / 64], mask, memory_order_release);
        block += n;
        count -= n;
    }
    return 0;
}

void bough_entry_clear_from(bough_header *shm, bough_entry *entry, uint64_t block) {
    uint64_t c = block / BOUGH_CHUNK_BLOCKS;
    if (c >= BOUGH_CHUNKS) return;
    uint64_t bit = block % BOUGH_CHUNK_BLOCKS;
    uint32_t chunk = atomic_load(&entry->chunks[c]);
    if (bit && chunk) {
        _Atomic uint64_t *w = words(shm, chunk);
        if (bit % 64) atomic_fetch_and(&w[bit / 64], (UINT64_C(1) << (bit % 64)) - 1);
        for (uint64_t i = (bit + 63) / 64; i < BOUGH_CHUNK_BLOCKS / 64; i++) atomic_store(&w[i], 0);
    }
    free_chunks(shm, entry, (uint32_t)(bit ? c + 1 : c));
}

int bough_entry_scan(bough_header *shm, bough_entry *entry, int fd) {
    int64_t size = sys_size(fd);
    if (size < 0) return -1;
    off_t at = 0;
    while (at < size) {
        off_t data = sys_lseek(fd, at, SEEK_DATA);
        if (data < 0) {
            if (errno == ENXIO) break;
            return -1;
        }
        off_t hole = sys_lseek(fd, data, SEEK_HOLE);
        if (hole < 0) return -1;
        uint64_t first = (uint64_t)data >> BOUGH_BLOCK_SHIFT;
        uint64_t end = ((uint64_t)hole + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT;
        if (bough_entry_set(shm, entry, first, end - first) != 0) return -1;
        at = hole;
    }
    bough_entry_grow(entry, (uint64_t)size);
    return 0;
}

void bough_entry_grow(bough_entry *entry, uint64_t to) {
    uint64_t now = atomic_load(&entry->size);
    while (now < to && !atomic_compare_exchange_weak(&entry->size, &now, to)) {
    }
}

/* ---- slots and the gate -------------------------------------------------------------------------
 */

/*
 * A process died within a call: what it did to a path may not be in the entry. The disk is the
 * truth, so the entry is made what the head's directory says. Others may write to the file
 * meanwhile: blocks are added, and taken away only where the file is shorter than its entry says,
 * which nobody but who truncates it makes it.
 */
static void mend_entry(bough_header *shm, bough_entry *e) {
    char path[sizeof shm->pgdata + BOUGH_LAYERED_PATH_MAX + 2], text[32];
    char key[BOUGH_LAYERED_PATH_MAX * 2];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", shm->pgdata, e->path);
    bough_path_class class = bough_path_classify(e->path, key, sizeof key);
    if (class == BOUGH_PATH_DIR) bough_entries_unmark(shm, e->gen, e->path);
    if (sys_stat(path, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        /* what the levels below show, if anything */
        if (atomic_load(&e->state) == BOUGH_ENTRY_HEAD) bough_entry_forget(shm, e);
        return;
    }
    if (S_ISLNK(st.st_mode)) {
        atomic_fetch_or(&e->flags, BOUGH_FLAG_WHITEOUT);
        atomic_store(&e->state, BOUGH_ENTRY_GONE);
        return;
    }
    uint64_t limit = atomic_load(&e->flags) & BOUGH_FLAG_WHITEOUT ? 0 : atomic_load(&e->limit);
    ssize_t n = lgetxattr(path, BOUGH_XATTR_LIMIT, text, sizeof text - 1);
    if (n > 0) {
        text[n] = '\0';
        limit = strtoull(text, NULL, 10);
    }
    uint32_t flags = BOUGH_FLAG_NEW_NAME;
    if (S_ISDIR(st.st_mode))
        flags =
            BOUGH_FLAG_DIR |
            (lgetxattr(path, BOUGH_XATTR_OPAQUE, text, sizeof text) > 0 ? BOUGH_FLAG_OPAQUE : 0U);
    else if (class != BOUGH_PATH_PAGES)
        flags |= BOUGH_FLAG_WHOLE;
    int fd =
        flags == BOUGH_FLAG_NEW_NAME ? sys_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0) : -1;
    if (fd >= 0) {
        uint64_t had = atomic_load(&e->size); /* looked at before the disk, which grows first */
        int64_t size = sys_size(fd);
        if (size >= 0 && (uint64_t)size < had &&
            atomic_compare_exchange_strong(&e->size, &had, (uint64_t)size))
            bough_entry_clear_from(shm, e, ((uint64_t)size + BOUGH_BLOCK - 1) >> BOUGH_BLOCK_SHIFT);
        (void)bough_entry_scan(shm, e, fd);
        sys_close(fd);
    }
    if (limit < atomic_load(&e->limit)) atomic_store(&e->limit, limit);
    atomic_store(&e->flags, flags);
    atomic_store(&e->state, BOUGH_ENTRY_HEAD);
    atomic_fetch_add(&shm->changes, 1);
}

/* By its path: the process may have entered it anew before it died. */
static void mend_named(bough_header *shm, uint64_t at) {
    if (!at) return;
    bough_entry *e = bough_at(shm, at);
    bough_entry *newest = bough_entry_find(shm, e->gen, e->path, strlen(e->path), e->hash);
    mend_entry(shm, newest ? newest : e);
}

/* Of a slot that the caller has taken over. */
static void mend(bough_header *shm, bough_slot *slot) {
    mend_named(shm, atomic_load(&slot->entry));
    mend_named(shm, atomic_load(&slot->other));
    bough_slot_name(shm, slot, NULL, NULL);
    atomic_store(&slot->busy, 0);
    atomic_store(&slot->pid, 0);
}

enum { MEND_NAPS = 60000 }; /* of a millisecond */

/*
 * Mend what a dead process left, or wait for who does: until then its paths are not what the disk
 * has. One process takes the slot over, so that it is nobody else's before all is done.
 */
static void mend_slot(bough_header *shm, bough_slot *slot) {
    int32_t me = bough_table_pid();
    struct timespec nap = {0, 1000000};
    for (int naps = 0;; naps++) {
        int32_t pid = atomic_load(&slot->pid), who = pid < 0 ? -pid : pid;
        if (!pid || !atomic_load(&slot->busy)) return;
        /* who claims has no slot yet: one with its number is of a process before it; and a number
         * that was mending may be a stranger's by now (what is mended twice is the same) */
        if (who == me || dead(who) || (pid < 0 && naps > MEND_NAPS)) {
            if (pid != -me && !atomic_compare_exchange_strong(&slot->pid, &pid, -me)) continue;
            mend(shm, slot);
            return;
        }
        if (pid > 0) return;
        nanosleep(&nap, NULL);
    }
}

void bough_slots_mend(bough_header *shm) {
    uint32_t n = atomic_load(&shm->slots_used);
    for (uint32_t i = 0; i < n; i++) mend_slot(shm, &shm->slots[i]);
}

bough_slot *bough_slot_claim(bough_header *shm) {
    int saved = errno;
    int32_t me = bough_table_pid();
    bough_slots_mend(shm);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < BOUGH_SLOTS; i++) {
            bough_slot *s = &shm->slots[i];
            if (pass == 1) mend_slot(shm, s); /* of who died since */
            int32_t owner = atomic_load(&s->pid);
            if (owner && !(pass == 1 && owner > 0 && dead(owner))) continue;
            if (!atomic_compare_exchange_strong(&s->pid, &owner, me)) continue;
            bough_slot_name(shm, s, NULL, NULL);
            uint32_t used = atomic_load(&shm->slots_used);
            while (used < i + 1 && !atomic_compare_exchange_weak(&shm->slots_used, &used, i + 1)) {
            }
            errno = saved;
            return s;
        }
    }
    errno = EAGAIN;
    return NULL;
}

uint32_t bough_gate_epoch(bough_header *shm) {
    for (;;) {
        uint32_t e = atomic_load(&shm->epoch);
        if (!(e & 1)) return e;
        int saved = errno;
        futex_wait(&shm->epoch, e, 1000);
        errno = saved;
    }
}

void bough_slot_name(const bough_header *shm, bough_slot *slot, const bough_entry *entry,
                     const bough_entry *other) {
    atomic_store_explicit(&slot->entry, entry ? bough_offset(shm, entry) : 0, memory_order_relaxed);
    atomic_store_explicit(&slot->other, other ? bough_offset(shm, other) : 0, memory_order_release);
}

uint32_t bough_gate_enter(bough_header *shm, bough_slot *slot) {
    bough_slot_name(shm, slot, NULL, NULL);
    for (;;) {
        atomic_store(&slot->busy, 1);
        uint32_t e = atomic_load(&shm->epoch);
        if (!(e & 1)) return e;
        atomic_store(&slot->busy, 0);
        bough_gate_epoch(shm);
    }
}

/* Whether `pid` is a process of this compute: pids are reused, and a dead writer must not hold up a
 * seal. */
static bool ours(bough_header *shm, int32_t pid) {
    int32_t postmaster = atomic_load(&shm->postmaster);
    char state;
    int ppid;
    if (pid == postmaster) return !dead(pid);
    return read_stat(pid, &state, &ppid) && state != 'Z' && ppid == postmaster;
}

/* For who closes the gate: whether a busy slot's owner, or who was mending for it, is no more.
 * The slot is the caller's then. */
static bool take_over(bough_header *shm, bough_slot *slot) {
    int32_t me = bough_table_pid(), pid = atomic_load(&slot->pid);
    if (!pid) return false;
    if (pid == -me) return true; /* of a process before this one */
    return !ours(shm, pid < 0 ? -pid : pid) &&
           atomic_compare_exchange_strong(&slot->pid, &pid, -me);
}

int bough_gate_close(bough_header *shm, int timeout_ms) {
    struct timespec start, now, nap = {0, 20000};
    clock_gettime(CLOCK_MONOTONIC, &start);
    atomic_fetch_add(&shm->epoch, 1);
    for (uint32_t i = 0; i < atomic_load(&shm->slots_used); i++) {
        bough_slot *s = &shm->slots[i];
        for (unsigned spin = 0; atomic_load(&s->busy); spin++) {
            if (spin < 200) {
                sched_yield();
                continue;
            }
            nanosleep(&nap, NULL);
            if (spin % 64 == 0 && take_over(shm, s)) {
                mend(shm, s);
                break;
            }
            clock_gettime(CLOCK_MONOTONIC, &now);
            if ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 >
                timeout_ms) {
                bough_gate_open(shm);
                errno = ETIMEDOUT;
                return -1;
            }
        }
    }
    return 0;
}

void bough_gate_open(bough_header *shm) {
    atomic_fetch_add(&shm->epoch, 1);
    futex_wake_all(&shm->epoch);
}
