/**
 * UTF-8 (RFC 3629): what is of it, and texts that were cut, or never were. No state; any thread.
 */
#ifndef BOUGH_UTIL_UTF8_H
#define BOUGH_UTIL_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/** Bytes of the character at `text`, of which `size` may be read (1 or more); 0 where it is none.
 * Nothing is read behind a NUL. */
size_t bough_utf8_length(const char *text, size_t size);

/** Whether all of a text is UTF-8. */
bool bough_utf8_is(const char *text);

/** Remove the character at the end of a text that was cut within it. */
void bough_utf8_cut(char *text);

/** Copy a text into `size` bytes (4 or more); what is no UTF-8 becomes U+FFFD. Cut between two
 * characters where it does not fit. */
void bough_utf8_mend(char *out, size_t size, const char *text);

#endif
