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
#include <stddef.h>

/**
 * @param flags  As json_dumps() takes them.
 * @return The text, malloc'ed; NULL where memory ran out, the value is NULL or cannot be written.
 */
char *bough_json_text_of(const json_t *value, size_t flags);

#endif
