/*
 * Inside of the preload library: the state of this process, its open files, and the calls that
 * wrap.c exports. postgres is single-threaded, so nothing here is locked against other threads;
 * what is shared with other processes is in the shared memory (table.h).
 *
 * All bough_do_*() keep libc's contract: the value libc would return, -1 and errno for failures.
 */
#ifndef BOUGH_PRELOAD_LIB_H
#define BOUGH_PRELOAD_LIB_H

#include <dirent.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "preload/path.h"
#include "preload/stack.h"
#include "preload/sys.h"
#include "preload/table.h"

#define BOUGH_MAX_FDS 65536

typedef enum bough_file_kind {
    BOUGH_FILE_PAGES, /* layered page by page; its descriptor's own offset and contents mean nothing
                       */
    BOUGH_FILE_WHOLE, /* a whole file of a layered directory, open for writing */
    BOUGH_FILE_GATED  /* a real file of PGDATA, open for writing: writes pass the gate */
} bough_file_kind;

typedef struct bough_file {
    bough_file_kind kind;
    int fd;
    int flags;       /* of open() */
    uint32_t epoch;  /* for which entry, levels and fd hold */
    bool fd_is_head; /* the descriptor is the head's file, not a stand-in */
    bool is_pidfile;
    bool is_control; /* pg_control */
    bool is_wal;
    bool reads_wal; /* a segment, open for reading alone */
    unsigned wal_tli;
    bool is_new_wal;    /* a segment in the making: pg_wal/xlogtemp.N */
    uint64_t wal_start; /* LSN of the segment's first byte */
    off_t wal_filled;   /* up to here the segment has its blocks, as far as this process knows */
    bough_entry *entry; /* PAGES, WHOLE */
    bough_level *levels;
    unsigned n_levels;
    off_t position;
    char path[BOUGH_LAYERED_PATH_MAX];
} bough_file;

typedef struct bough_lib {
    bool active;
    bool at_pgdata; /* the working directory is PGDATA */
    int ready_fd;
    const char *title; /* what ps shows: postgres writes over its first argument */
    size_t pgdata_length;
    bough_header *shm;
    bough_slot *slot;
    bough_view view;
    unsigned level_fds;
    unsigned level_fds_max;
    bough_entry *named[2]; /* what the call under way is about to change; referenced, so that they
                              remain what they are */
    int files_end;         /* no file has a descriptor as high as this */
    bough_file *files[BOUGH_MAX_FDS];
} bough_lib;

extern bough_lib bough;

/* ---- lib.c: this process ---- */
/* This process belongs to the compute of this memory, from here on. 0, or -1: a layer cannot be
 * read. */
int bough_begin(bough_header *shm);
/* It ends: its slot is free for the next one. */
void bough_end(void);
static inline bough_file *bough_file_of(int fd) {
    return (unsigned)fd < BOUGH_MAX_FDS ? bough.files[fd] : NULL;
}
/* Classify any path; `key` as bough_path_classify() gives it, "" for one outside. */
bough_path_class bough_classify(const char *path, char *key, size_t size);
/* Absolute real path of a key in this branch. */
void bough_head_path(char *out, size_t size, const char *key);
/* Begin a write-class call with a view that matches the epoch; 0 or -1 with errno. End with
 * bough_leave(). */
int bough_enter(void);
void bough_leave(void);
/* Within it: which paths are about to change (bough_slot_name()). */
void bough_changing(const bough_entry *entry, const bough_entry *other);
/*
 * Within it: nobody else makes, unlinks or renames what has this name. Between looking at a name
 * and changing it, since the gate holds back seals and not other processes. Taken before any lock
 * of an entry, at most once; both of a rename by bough_names_lock(), in an order that all have.
 */
void bough_name_lock(const char *key);
void bough_name_unlock(const char *key);
void bough_names_lock(const char *a, const char *b);
void bough_names_unlock(const char *a, const char *b);

/* ---- file.c: pages of an open file ---- */
/* What is known of an open descriptor. NULL with errno, and then it is closed: a file that is not
 * known would be written past the gate, and on into a layer. */
bough_file *bough_file_new(bough_file_kind kind, int fd, int flags, const char *path);
void bough_file_free(bough_file *f);
/* In a child that has this file from its parent: what it refers to has one more who does. */
void bough_file_forked(const bough_file *f);
/* Close the descriptors of all levels; they are opened again when they are read. */
void bough_levels_shed(void);
/* The same of files that have not been used since the stack changed: a layer that has left it may
 * be removed, and its bytes are the disk's again when nobody has it open. */
void bough_levels_outdated(void);
int bough_open_pages(const char *key, int flags, mode_t mode);
ssize_t bough_pages_read(bough_file *f, const struct iovec *iov, int n, off_t at);
ssize_t bough_pages_write(bough_file *f, const struct iovec *iov, int n, off_t at);
int bough_pages_truncate(bough_file *f, off_t size);
int bough_pages_allocate(bough_file *f, off_t at, off_t bytes);
int bough_pages_sync(bough_file *f, bool data_only);
off_t bough_pages_seek(bough_file *f, off_t at, int whence);
int bough_pages_stat(bough_file *f, struct stat *st);
/* Make every visible block the head's own and hide the levels below. Inside bough_enter(). */
int bough_pages_materialise(bough_file *f);
/* Path of a temporary file beside `path`, and the head directory it needs. */
int bough_temp_path(char *out, size_t size, const char *key);
int bough_make_parent(const char *key);

/* ---- memory.c: what postgres shares with its children ---- */
void bough_memory_mapped(void *memory, size_t n);
/* (the postmaster, before it has children) Give back what it has filled with zeros. */
void bough_memory_give(void);
/* (before WAL is read) Take what recovery will fill, if there is much to replay. */
void bough_memory_take(void);

/* ---- names.c: paths ---- */
typedef struct bough_found {
    bough_entry *entry; /* of this generation, or NULL; no reference */
    bough_entry_state state;
    bough_below_kind below;
    bough_level top; /* the newest level, where below is a file */
    bool exists;
} bough_found;
/* What is there. Inside bough_enter(). */
void bough_find(bough_found *found, const char *key);
int bough_open_whole(const char *key, int flags, mode_t mode);
int bough_open_real(bough_path_class class, const char *path, const char *key, int flags,
                    mode_t mode);
int bough_do_unlink(const char *key);
int bough_do_rename(const char *from_key, const char *to_key);
int bough_do_mkdir(const char *key, mode_t mode);
int bough_do_rmdir(const char *key);
int bough_do_stat(const char *key, struct stat *st);
/* A real path to read a whole file or directory from; -1 ENOENT. */
int bough_real_path(char *out, size_t size, const char *key);

/* ---- wal.c ---- */
/* Read WAL: all that is asked for, where it is there. Does not return to recovery where the disk
 * refuses, since postgres would take that for the end of the WAL, and go on without the rest. */
ssize_t bough_wal_read(const bough_file *f, void *buf, size_t n, off_t at);
/* Before a write to a segment: where recovery has not come to the moment that the branch is of, the
 * compute ends, and nothing is written. */
void bough_wal_check_end(const bough_file *f, off_t at);
/* After a write to a real file: take note of WAL, give the segment its next blocks. Inside
 * bough_enter(). */
void bough_wal_written(bough_file *f, off_t at, ssize_t put);
/* pg_control was read by the process that becomes the postmaster: from here on checkpoints are
 * counted. */
void bough_wal_begin(void);
/* pg_control has been made durable: give back WAL that nobody needs any more. */
void bough_wal_checkpointed(const bough_file *control);
/* unlink() of a real file of PGDATA. */
int bough_unlink_real(const char *path, const char *key);
/* Zeros for a segment in the making become a hole: true when that was done in place of the write.
 */
bool bough_wal_skip_zeros(const bough_file *f, const struct iovec *iov, int n, off_t at);
/* rename() or link() within PGDATA; a WAL segment that other branches share is not recycled in
 * place. */
int bough_move_real(const char *from, const char *to, const char *from_key, const char *to_key,
                    bool link_only);
int bough_sync_all(void);

/* ---- dir.c ---- */
typedef struct bough_dir bough_dir;
bough_dir *bough_dir_open(const char *key);
struct dirent *bough_dir_read(bough_dir *dir);
void bough_dir_close(bough_dir *dir);
void bough_dir_rewind(bough_dir *dir);
/* The virtual directory behind a DIR *, or NULL. */
bough_dir *bough_dir_of(const DIR *dir);
/* Whether no visible name is in the directory: 1, 0, or -1 with errno. */
int bough_dir_is_empty(const char *key);

/* ---- handoff.c: sockets of clients from boughd ---- */
extern int bough_handed_fd; /* the client's socket, or -1 */
/* Connections to sockets in this directory bring clients. */
void bough_handoff_init(const char *dir);
/* Read a whole message with its descriptors. 0, or -1 when it does not come, or is none. */
struct bough_handoff;
int bough_handoff_receive(int carrier, struct bough_handoff *m, int fds[2]);
/* Make a client's socket what accept() would have returned. 0, or -1. */
int bough_handoff_prepare(int client, struct sockaddr *address, socklen_t *size);
/* The client's socket is being closed by this process. */
void bough_handoff_closed(void);

/* ---- admit.c: who comes in as the administrator ---- */
extern int bough_guarded_fd; /* a client's socket of which the first packets are looked at, or -1 */
/* postgres has accepted a connection that no hand-off brought. */
void bough_admit_begin(int fd);
/* recv() from that socket. */
ssize_t bough_admit_recv(int fd, void *buf, size_t n, int flags);
/* It is being closed by this process. */
void bough_admit_closed(void);

/* ---- real.c: libc's functions behind ours, where no system call will do ---- */
FILE *real_fopen(const char *path, const char *mode);
DIR *real_opendir(const char *path);
struct dirent *real_readdir(DIR *dir);
int real_closedir(DIR *dir);
void real_rewinddir(DIR *dir);

#endif
