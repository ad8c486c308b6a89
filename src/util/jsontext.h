/**
 * JSON as text, and back.
 *
 * Where memory runs out at the wrong moment, jansson (2.14) goes on without what it found no room
 * for: json_dumps() without a member's name (dump.c), json_loadb() without a byte of a string
 * (load.c, lex_save()), json_deep_copy() without a member (value.c). What is sent then asks for
 * something else, and what is read says something else. These give all of it, or nothing. Any
 * thread.
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

/**
 * json_loadb().
 * @param error  May be NULL.
 */
json_t *bough_json_load(const char *text, size_t size, size_t flags, json_error_t *error);

/** Whether it was memory that was missing, and not the text that is wrong. */
bool bough_json_lacked_memory(const json_error_t *error);

/** json_deep_copy(). */
json_t *bough_json_copy(const json_t *value);

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
