/*
 * What boughd and the processes of a compute share: the memory of a running branch (gate, epoch,
 * presence) and the index file of a layer. Plain C, libc only; included by src/preload and
 * src/store.
 *
 * Words are DESIGN's: a *head* holds the branch's own pages, *layers* below it are immutable, a
 * hole in a file falls through to the next level. Presence is counted in blocks of 4 KiB, the unit
 * in which the file systems we accept publish extents; PostgreSQL's 8 KiB pages are two of them.
 */
#ifndef BOUGH_PRELOAD_LAYOUT_H
#define BOUGH_PRELOAD_LAYOUT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- names on disk -------------------------------------------------------------------------- */

#define BOUGH_CONTROL_NAME                                                                         \
    "bough.control"                    /* global/pg_control lives here: a bare postgres fails      \
                                        */
#define BOUGH_TMP_NAME "bough_tmp"     /* base/pgsql_tmp lives here: never sealed */
#define BOUGH_HISTORY_DIR "../history" /* from PGDATA: WAL segments that left pg_wal */
#define BOUGH_FOLLOWED_FILE "followed" /* beside PGDATA: others receive the branch's WAL */
#define BOUGH_WHITEOUT                                                                             \
    "bough:whiteout"              /* target of the symbolic link that stands for "unlinked"        \
                                   */
#define BOUGH_TEMP_MARK ".bough~" /* part of the name of a file that is being made */
#define BOUGH_XATTR_LIMIT                                                                          \
    "user.bough.limit"                         /* decimal: bytes of the levels below still visible \
                                                */
#define BOUGH_XATTR_OPAQUE "user.bough.opaque" /* on a directory: the levels below are hidden */

#define BOUGH_BLOCK 4096U
#define BOUGH_BLOCK_SHIFT 12U
#define BOUGH_LAYERED_PATH_MAX 96U /* longest path below a layered directory, with the NUL */

/* The directories that are layered, in the order in which a seal renames them. */
#define BOUGH_LAYERED_DIRS                                                                         \
    { "base", "global", "pg_xact", "pg_multixact", "pg_commit_ts" }
#define BOUGH_LAYERED_COUNT 5

/* ---- shared memory of a compute ---------------------------------------------------------------
 */

#define BOUGH_SHM_MAGIC UINT64_C(0x36304d4853474f42) /* "BOGSHM06", little-endian */
#define BOUGH_SHM_BYTES                                                                            \
    (UINT64_C(4) << 30) /* address space reserved; memory is used as it is touched */
#ifndef BOUGH_SLOTS     /* a test has fewer */
#define BOUGH_SLOTS 16384U
#define BOUGH_BUCKETS 65536U
#endif
#define BOUGH_MAX_DEPTH 1024U
#define BOUGH_NAME_LOCKS 256U
#define BOUGH_ADMIN_NAME "bough_admin" /* the role (pg/conf.h) */
#define BOUGH_ADMIN_KEY_SIZE 33U       /* hexadecimal digits, and the NUL */
#define BOUGH_NO_GEN UINT32_MAX

#define BOUGH_CHUNK_BLOCKS 8192U /* blocks per presence chunk: 1 KiB of bits, 32 MiB of file */
#define BOUGH_CHUNKS 33U         /* of one file: 1 GiB segments and some room */
#define BOUGH_MAX_FILE ((uint64_t)BOUGH_CHUNKS * BOUGH_CHUNK_BLOCKS * BOUGH_BLOCK)

/* A process that may write. `busy` spans a write-class call; the rest tells what it was doing if it
 * dies. */
typedef struct bough_slot {
    _Alignas(64) _Atomic int32_t pid; /* negative: of the process that mends what the owner left */
    _Atomic uint32_t busy;
    _Atomic uint64_t entry; /* offset of the path being changed, 0 for none; */
    _Atomic uint64_t other; /* and of a second one (rename) */
} bough_slot;

/* A level of the stack. */
/* Whether a layer that this branch has written is durable. */
#define BOUGH_SYNC_DONE 0U   /* or not this branch's business */
#define BOUGH_SYNC_NEEDED 1U /* an fsync of a file must reach it */
#define BOUGH_SYNC_REFUSED                                                                         \
    2U /* boughd was told that the disk has lost something of it: the next                         \
          fsync fails, once, and postgres recovers from its WAL */

typedef struct bough_stack_item {
    char dir[100]; /* "GROUP/LAYER" below the layers directory */
    _Atomic uint32_t
        gen; /* the generation of this memory that holds its index, or BOUGH_NO_GEN: index file */
    _Atomic uint32_t needs_sync; /* written by this branch: BOUGH_SYNC_... */
} bough_stack_item;

typedef enum bough_entry_state {
    BOUGH_ENTRY_LOWER, /* no file in the head; what the levels below show */
    BOUGH_ENTRY_HEAD,  /* a file (or directory) in the head */
    BOUGH_ENTRY_GONE   /* unlinked; a whiteout where the levels below have it */
} bough_entry_state;

enum {
    BOUGH_FLAG_NEW_NAME = 1, /* its directory entry is not known to be durable */
    BOUGH_FLAG_WHITEOUT = 2, /* GONE, and a whiteout is in the head */
    BOUGH_FLAG_OPAQUE = 4,   /* directory: levels below are hidden */
    BOUGH_FLAG_DIR = 8,
    BOUGH_FLAG_WHOLE = 16,  /* not divided into pages */
    BOUGH_FLAG_RETIRED = 32 /* its generation is over: freed when nobody holds it */
};

/* A path of one generation. Fixed size, so that a freed one can serve any other path. */
typedef struct bough_entry {
    _Atomic uint64_t next; /* offset of the next in the bucket, or in the free list */
    uint32_t hash;
    uint32_t gen;
    _Atomic uint32_t lock;  /* pid of the holder; guards changes of state */
    _Atomic uint32_t state; /* bough_entry_state */
    _Atomic uint32_t flags;
    _Atomic uint32_t refs;  /* open descriptors, and files that read through it as a level */
    _Atomic uint64_t size;  /* as stat() shows it; for LOWER copied from below at insertion */
    _Atomic uint64_t limit; /* the levels below are visible up to here */
    _Atomic uint32_t chunks[BOUGH_CHUNKS]; /* presence: index of a chunk, 0 for all absent */
    char path[BOUGH_LAYERED_PATH_MAX];
} bough_entry;

/* The head of the memory. Offsets are from its start. */
typedef struct bough_header {
    uint64_t magic;
    uint64_t bytes;
    char pgdata[1024];                    /* absolute */
    char layers[1024];                    /* absolute path of the layers directory */
    char admin_key[BOUGH_ADMIN_KEY_SIZE]; /* by which the administrator comes in; "": without */
    _Atomic int32_t postmaster;
    _Alignas(64) _Atomic uint32_t epoch; /* even: open; odd: the gate is closed. A futex */
    _Atomic uint32_t gen;                /* generation of the head */
    _Atomic uint32_t depth;
    _Atomic uint32_t slots_used;
    _Atomic uint64_t used;       /* bump allocator */
    _Atomic uint32_t alloc_lock; /* guards the free lists */
    _Atomic uint64_t free_entries;
    _Atomic uint64_t free_chunks;
    _Atomic uint64_t wal_end; /* end of the WAL written so far, 0 when nothing was */
    _Atomic uint32_t wal_tli;
    _Atomic uint64_t redo;    /* where the last checkpoint that is durable began */
    _Atomic uint32_t changes; /* files made, unlinked or truncated in this generation: is there
                                 anything to seal? */
    _Atomic uint32_t
        keeps_history; /* WAL segments go to BOUGH_HISTORY_DIR before they leave pg_wal */
    _Atomic uint32_t history_lost; /* how many could not go there */
    _Atomic uint32_t defers_sync;  /* boughd makes files of pages durable, and nothing relies on
                                      their being so before: an fsync of one does nothing */
    _Atomic uint64_t replay_bytes; /* WAL that is about to be replayed, until somebody reads it */
    _Atomic uint64_t replay_end;   /* recovery must come as far, to an LSN; 0: not known */
    _Atomic uint32_t wal_fills;    /* how often blocks were given ahead of the WAL, since the last
                                      quiet checkpoint */
    _Atomic uint32_t is_ready;     /* postgres has said so, since this memory was made */
    _Atomic uint32_t stripes[1024];
    _Atomic uint32_t names[BOUGH_NAME_LOCKS]; /* by hash: who makes, unlinks or renames */
    bough_stack_item stack[BOUGH_MAX_DEPTH];  /* oldest first */
    bough_slot slots[BOUGH_SLOTS];
    _Atomic uint64_t buckets[BOUGH_BUCKETS];
} bough_header;

/* ---- index file of a layer --------------------------------------------------------------------
 */

#define BOUGH_INDEX_MAGIC UINT64_C(0x3130584449474f42) /* "BOGIDX01" */

typedef enum bough_record_kind {
    BOUGH_RECORD_PAGES = 1,
    BOUGH_RECORD_WHOLE,
    BOUGH_RECORD_WHITEOUT,
    BOUGH_RECORD_DIR,
    BOUGH_RECORD_DIR_OPAQUE
} bough_record_kind;

typedef struct bough_index_header {
    uint64_t magic;
    uint64_t bytes;     /* of the whole file */
    uint64_t allocated; /* bytes of the layer on disk when it was sealed */
    uint32_t records;
    uint32_t slots;      /* of the hash table, a power of two */
    uint64_t hash_at;    /* uint32_t[slots]: record number + 1, open addressing */
    uint64_t names_at;   /* NUL-terminated paths */
    uint64_t bitmaps_at; /* presence, one bit a block, 8-byte aligned each */
    uint32_t crc;        /* CRC-32C of all that follows this header */
    uint32_t header_crc; /* CRC-32C of the header up to here */
} bough_index_header;

/* Sorted by path, right after the header. */
typedef struct bough_record {
    uint32_t hash;
    uint32_t name;   /* offset from names_at */
    uint16_t length; /* of the name, without NUL */
    uint8_t kind;    /* bough_record_kind */
    uint8_t full;    /* every block is present; no bitmap */
    uint32_t reserved;
    uint64_t size;
    uint64_t limit;
    uint64_t bitmap; /* offset from bitmaps_at */
} bough_record;

#endif
