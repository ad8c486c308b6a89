/* What fuzz targets have in common. */
#ifndef BOUGH_FUZZ_BYTES_H
#define BOUGH_FUZZ_BYTES_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* In memory of exactly its size, so that a sanitizer sees a read beyond it. free() it. */
static inline char *fuzz_text(const uint8_t *data, size_t size) {
    char *copy = malloc(size + 1);
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    copy[size] = '\0';
    return copy;
}

/* In a file without a name on disk, for what reads files: `path` leads to it. close() it. */
static inline int fuzz_file(char path[64], const uint8_t *data, size_t size) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    (void)snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

#endif
