/*
 * Runs a fuzz target without libFuzzer: every file of its corpus, then mutations of them. The same
 * numbers each time, so that a failure can be had again.
 *
 * Usage: fuzz_NAME DIRECTORY [ROUNDS]. With clang: cc -fsanitize=fuzzer,address fuzz_NAME.c ...
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"

enum { FILES_MAX = 256, SIZE_MAX_BYTES = 20000 };

typedef struct seed {
    uint8_t *data;
    size_t size;
} seed;

static uint64_t state = 88172645463325252U;

static size_t pick(size_t n) {
    state ^= state << 13; /* xorshift64, Marsaglia 2003 */
    state ^= state >> 7;
    state ^= state << 17;
    return n ? (size_t)(state % n) : 0;
}

static int read_seed(seed *s, const char *directory, const char *name) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "rb");
    s->data = malloc(SIZE_MAX_BYTES);
    if (!f || !s->data) return -1;
    s->size = fread(s->data, 1, SIZE_MAX_BYTES, f);
    (void)fclose(f);
    return 0;
}

static void mutate(uint8_t *data, size_t *size, const seed *other) {
    static const uint8_t odd[] = {0, 1, 4, 8, 0x16, 0x7f, 0x80, 0xff};
    size_t at = pick(*size), n;
    switch (pick(6)) {
    case 0: /* another byte */
        if (*size) data[at] = (uint8_t)pick(256);
        break;
    case 1: /* an odd one */
        if (*size) data[at] = odd[pick(sizeof odd)];
        break;
    case 2: /* cut off */
        *size = at;
        break;
    case 3: /* a piece taken out */
        n = pick(*size - at + 1);
        memmove(data + at, data + at + n, *size - at - n);
        *size -= n;
        break;
    case 4: /* a piece twice */
        n = pick(*size - at + 1);
        if (*size + n > SIZE_MAX_BYTES) break;
        memmove(data + at + n, data + at, *size - at);
        *size += n;
        break;
    default: /* the end of another one */
        n = pick(other->size + 1);
        if (at + n > SIZE_MAX_BYTES) break;
        memcpy(data + at, other->data + other->size - n, n);
        *size = at + n;
        break;
    }
}

int main(int argc, char **argv) {
    static seed seeds[FILES_MAX];
    static uint8_t data[SIZE_MAX_BYTES];
    size_t n = 0;
    long rounds = argc > 2 ? atol(argv[2]) : 20000;
    DIR *dir = argc > 1 ? opendir(argv[1]) : NULL;
    if (!dir) return 64;
    for (const struct dirent *d; (d = readdir(dir)) && n < FILES_MAX;)
        if (d->d_name[0] != '.') {
            if (read_seed(&seeds[n], argv[1], d->d_name) != 0) return 66;
            (void)LLVMFuzzerTestOneInput(seeds[n].data, seeds[n].size);
            n++;
        }
    closedir(dir);
    if (n == 0) return 66;
    for (long i = 0; i < rounds; i++) {
        const seed *s = &seeds[pick(n)];
        size_t size = s->size;
        memcpy(data, s->data, size);
        for (size_t k = 1 + pick(4); k > 0; k--) mutate(data, &size, &seeds[pick(n)]);
        (void)LLVMFuzzerTestOneInput(data, size);
    }
    for (size_t i = 0; i < n; i++) free(seeds[i].data);
    printf("%zu files, %ld mutations\n", n, rounds);
    return 0;
}
