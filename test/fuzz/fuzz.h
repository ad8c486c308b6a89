/* What every target in this directory has: clang's libFuzzer calls it, or replay.c does. */
#ifndef BOUGH_FUZZ_FUZZ_H
#define BOUGH_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
