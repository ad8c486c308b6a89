/**
 * File system helpers. None knows PostgreSQL or Bough's layout. Any thread; paths are
 * NUL-terminated.
 */
#ifndef BOUGH_UTIL_FS_H
#define BOUGH_UTIL_FS_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/error.h"

/** Longest path handled, with the NUL. */
#define BOUGH_PATH_MAX 4096

/**
 * Format a path.
 * @retval BOUGH_E_INVALID  It would not fit into `size` bytes.
 */
BOUGH_CHECK int bough_path(char *out, size_t size, bough_error *err, const char *fmt, ...)
    BOUGH_PRINTF(4, 5);

/** mkdir -p with `mode` for each directory made; an existing directory is success. */
BOUGH_CHECK int bough_mkdirs(const char *path, mode_t mode, bough_error *err);

/** open(), fsync() and ftruncate() that go on after an interruption. -1 with errno. */
BOUGH_CHECK int bough_open(const char *path, int flags, mode_t mode);
BOUGH_CHECK int bough_fsync(int fd);
BOUGH_CHECK int bough_ftruncate(int fd, off_t size);

/**
 * Open /dev/null as each of the descriptors 0 to 2 that is closed, so that no file gets its number:
 * what is printed would go there. For the begin of main().
 * @return 0, or -1 with errno.
 */
BOUGH_CHECK int bough_hold_standard(void);

/**
 * The next name of a directory. What could not be listed must not be taken for what is not there.
 * @param[out] failed  0, or the errno for which the listing ended early.
 * @return NULL at the end, and where it failed.
 */
struct dirent *bough_list_next(DIR *dir, int *failed);

/** Write a whole file: temporary name, fsync, rename, fsync of the directory. */
BOUGH_CHECK int bough_write_file(const char *path, const void *data, size_t size, mode_t mode,
                                 bough_error *err);
/** The same without fsync: whole for every reader, but a power cut may spoil it. */
BOUGH_CHECK int bough_replace_file(const char *path, const void *data, size_t size, mode_t mode,
                                   bough_error *err);

#define BOUGH_BOOT_ID_SIZE 64
/** This boot of the machine, as the kernel writes it: with a newline at its end. */
BOUGH_CHECK int bough_boot_id(char out[BOUGH_BOOT_ID_SIZE], bough_error *err);

/**
 * Read a whole file; a NUL is appended (not counted in size).
 *
 * @param[out] data   malloc'ed; the caller frees.
 * @param max_bytes   Refuse a larger file with BOUGH_E_INVALID.
 * @retval BOUGH_E_NOTFOUND  No such file.
 */
BOUGH_CHECK int bough_read_file(char **data, size_t *size, const char *path, size_t max_bytes,
                                bough_error *err);

/** fsync a directory (or a file) by name. */
BOUGH_CHECK int bough_fsync_path(const char *path, bough_error *err);

/**
 * Called for a name of a tree; a directory once before what is in it and once after.
 * @param type  As d_type of readdir(3).
 * @return Anything but BOUGH_OK ends the walk.
 */
typedef int (*bough_visit)(void *context, const char *path, unsigned char type, bool is_after,
                           bough_error *err);
/**
 * Walk a tree without following symbolic links, `path` first and last. What goes meanwhile is
 * passed over.
 * @param passes_closed  Also what is in a directory that may not be listed (lost+found, say); else
 *                       that is an error.
 */
BOUGH_CHECK int bough_walk(const char *path, bool passes_closed, bough_visit visit, void *context,
                           bough_error *err);

/** fsync every regular file and directory below `path`, and `path`. Symbolic links are not
 * followed. */
BOUGH_CHECK int bough_fsync_tree(const char *path, bough_error *err);

/** rm -rf without following symbolic links; a missing path is success. Read-only directories are
 * opened up. */
BOUGH_CHECK int bough_rmtree(const char *path, bough_error *err);

/** The same for all that is in a directory, which itself stays what it was. */
BOUGH_CHECK int bough_empty_directory(const char *path, bough_error *err);

/** Sum of allocated bytes (st_blocks * 512) of all below `path`, each name counted. */
BOUGH_CHECK int bough_tree_bytes(uint64_t *bytes, const char *path, bough_error *err);

/** Full write() loop; returns 0 or -1 with errno. */
BOUGH_CHECK int bough_write_full(int fd, const void *data, size_t size);

/** Full pread() loop; returns bytes read (short only at end of file) or -1 with errno. */
BOUGH_CHECK ssize_t bough_pread_full(int fd, void *data, size_t size, off_t at);

/** Full pwrite() loop; returns 0 or -1 with errno. */
BOUGH_CHECK int bough_pwrite_full(int fd, const void *data, size_t size, off_t at);

/** Milliseconds of CLOCK_MONOTONIC. */
double bough_now_ms(void);

#endif
