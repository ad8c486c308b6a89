/**
 * Filling in a bough_error. The type and the codes are public: include/bough/error.h.
 */
#ifndef BOUGH_UTIL_ERROR_H
#define BOUGH_UTIL_ERROR_H

#include "bough/error.h"

/**
 * Set code and message, forget an older hint. Returns `code`, so that `return bough_fail(...)`
 * reads well. errno is kept. Like the others below, it cuts what is too long between two characters
 * of UTF-8.
 */
int bough_fail(bough_error *err, int code, const char *fmt, ...) BOUGH_PRINTF(3, 4);

/**
 * The same for a failed system call: appends strerror(sys_errno). ENOSPC and EDQUOT become
 * BOUGH_E_NOSPACE with a hint, everything else BOUGH_E_SYS.
 */
int bough_fail_sys(bough_error *err, int sys_errno, const char *fmt, ...) BOUGH_PRINTF(3, 4);

/** Replace the hint: a sentence that says what to do. Returns err->code (BOUGH_E_INTERNAL for
 * NULL). */
int bough_hint(bough_error *err, const char *fmt, ...) BOUGH_PRINTF(2, 3);

/** Put "context: " before the message; keeps code and hint. Returns err->code. */
int bough_context(bough_error *err, const char *fmt, ...) BOUGH_PRINTF(2, 3);

/** Say that a failure does not matter here: there is nothing more to be done about it. */
static inline void bough_ignore(int rc) {
    (void)rc;
}

/** Clear to BOUGH_OK. */
void bough_error_clear(bough_error *err);

#endif
