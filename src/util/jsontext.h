/**
 * JSON as text.
 *
 * jansson's json_dumps() does not look whether a member's name found room (2.14, dump.c): where
 * memory runs out at that moment, the text lacks it, and what is sent asks for something else. This
 * gives the whole text or none. Any thread.
 */
#ifndef BOUGH_UTIL_JSONTEXT_H
#define BOUGH_UTIL_JSONTEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/**
 * @param flags  As json_dumps() takes them.
 * @return The text, malloc'ed; NULL where memory ran out, the value is NULL or cannot be written.
 */
char *bough_json_text_of(const json_t *value, size_t flags);

/** Text that grows. {0} is empty; it is wiped as it grows, and when it is dropped. */
typedef struct bough_json_buffer {
    char *data;
    size_t size, room;
    bool failed; /**< memory ran out, or a value cannot be written: nothing is whole */
} bough_json_buffer;

/** Append some bytes of text; up to SIZE_MAX / 4 in all. */
void bough_json_add(bough_json_buffer *buffer, const char *text, size_t size);

/** Append a value. `flags` as above; NULL makes it fail. */
void bough_json_add_value(bough_json_buffer *buffer, const json_t *value, size_t flags);

/**
 * The whole text with a NUL behind it, to be freed; `buffer` is empty then.
 * @param[out] size  Without the NUL; may be NULL.
 * @return NULL where something failed, or nothing was added.
 */
char *bough_json_take(bough_json_buffer *buffer, size_t *size);

#endif
