/*
 * The shared memory of a compute: allocation, locks that survive their holder's death, entries,
 * presence bits, slots and the gate. Used by the preload library and, for set-up and sealing, by
 * src/store.
 *
 * Every process maps the memory at its own address; what is stored are offsets.
 */
#ifndef BOUGH_PRELOAD_TABLE_H
#define BOUGH_PRELOAD_TABLE_H

#include <stddef.h>

#include "preload/layout.h"

/* Make an empty memory in `fd` (a memfd) and map it. NULL with errno. */
bough_header *bough_table_create(int fd, const char *pgdata, const char *layers);
/* Map an existing one; NULL with errno (EINVAL: not ours). */
bough_header *bough_table_map(int fd);
void bough_table_unmap(bough_header *shm);

/* The calling process's id, kept fresh across fork by bough_table_forked(). */
int32_t bough_table_pid(void);
void bough_table_forked(void);

/* Locks: a futex word that holds its owner's pid; a dead owner's lock is taken over. */
void bough_lock(_Atomic uint32_t *word);
void bough_unlock(_Atomic uint32_t *word);

/* The newest entry of a path in generation `gen`, or NULL. Takes no reference. */
bough_entry *bough_entry_find(bough_header *shm, uint32_t gen, const char *path, size_t length,
                              uint32_t hash);
/* The entry of a path in the head's generation, which is inserted as LOWER with the size given
 * where there is none. Adds a reference. NULL with errno ENOSPC or ENAMETOOLONG. */
bough_entry *bough_entry_get(bough_header *shm, const char *path, size_t length, uint64_t size);
/*
 * The path names a new file or directory of the head, and nothing below shows through it: whoever
 * looks finds all of that or none of it. An entry that it has stays as GONE for who has it open.
 *
 * size   of the file
 * flags  BOUGH_FLAG_...
 * fd     its pages are scanned into the entry; -1: it has none, or is no file of pages
 *
 * Returns the entry with a reference; NULL with errno ENOSPC, ENAMETOOLONG or that of the scan.
 */
bough_entry *bough_entry_make(bough_header *shm, const char *path, size_t length, uint64_t size,
                              uint32_t flags, int fd);
/* The head has nothing under the path of this entry any more, not even a whiteout: descriptors keep
 * the entry, the path gets a new one at the next look. */
void bough_entry_forget(bough_header *shm, bough_entry *entry);
/* A directory is gone, or hides all below it: its whiteouts, which went with it, say nothing any
 * more. Those of generation `gen` below `dir` that the disk does not have lose their mark. */
void bough_entries_unmark(bough_header *shm, uint32_t gen, const char *dir);
/* One more reference to an entry of a generation that lives. Inside the gate, so that it does. */
void bough_entry_hold(bough_entry *entry);
/* Drop a reference; an unlinked entry, or one of a generation that is over, is freed with the last.
 */
void bough_entry_put(bough_header *shm, bough_entry *entry);

/*
 * boughd, the only one who seals and replaces the stack: free the entries of generations that
 * neither are the head's nor the index of a layer of the stack. With the gate open again since the
 * last of them left the stack, so that nobody looks for them any more; who still holds one keeps
 * it.
 */
void bough_table_sweep(bough_header *shm);

/* Presence. Setting may need memory: 0, or -1 with ENOSPC. */
bool bough_entry_has(const bough_header *shm, const bough_entry *entry, uint64_t block);
int bough_entry_set(bough_header *shm, bough_entry *entry, uint64_t block, uint64_t count);
/* Make room for the bits before the data is written, so that setting them afterwards cannot fail.
 */
int bough_entry_reserve(bough_header *shm, bough_entry *entry, uint64_t block, uint64_t count);
/* Forget all blocks from `block` on. */
void bough_entry_clear_from(bough_header *shm, bough_entry *entry, uint64_t block);
/* Add what a head file has to the bits and the size of its entry: the extents are the truth. `fd`
 * is the head file. */
int bough_entry_scan(bough_header *shm, bough_entry *entry, int fd);

/* Raise `size` to at least `to`. */
void bough_entry_grow(bough_entry *entry, uint64_t to);

/* Claim a slot for the calling process, mending what a dead one left. NULL with errno EAGAIN when
 * all are taken. */
bough_slot *bough_slot_claim(bough_header *shm);
/* Begin a write-class call: waits while the gate is closed; returns the epoch. */
uint32_t bough_gate_enter(bough_header *shm, bough_slot *slot);
/* Say which paths the call is about to change: should the process die within it, they are read anew
 * from disk. */
void bough_slot_name(const bough_header *shm, bough_slot *slot, const bough_entry *entry,
                     const bough_entry *other);
static inline void bough_gate_leave(bough_slot *slot) {
    atomic_store_explicit(&slot->busy, 0, memory_order_release);
}
/* The epoch once the gate is open. */
uint32_t bough_gate_epoch(bough_header *shm);

/* boughd: close the gate and wait for the writers; 0, or -1 with ETIMEDOUT and the gate open again.
 */
int bough_gate_close(bough_header *shm, int timeout_ms);
void bough_gate_open(bough_header *shm);

/* Mend slots whose process died within a write: read anew from disk what it may have changed. */
void bough_slots_mend(bough_header *shm);

static inline void *bough_at(const bough_header *shm, uint64_t offset) {
    return (char *)(uintptr_t)shm + offset;
}
static inline uint64_t bough_offset(const bough_header *shm, const void *p) {
    return (uint64_t)((const char *)p - (const char *)shm);
}

#endif
