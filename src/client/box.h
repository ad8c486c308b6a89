/**
 * Boxes: how results are allocated.
 *
 * A box holds a public struct, the JSON answer its strings are borrowed from, and texts made for
 * it. It is one allocation whose address is that of the public struct, freed by bough_box_free(). A
 * list is a box whose struct is {count, items}; its items lie in the same allocation.
 */
#ifndef BOUGH_CLIENT_BOX_H
#define BOUGH_CLIENT_BOX_H

#include <jansson.h>
#include <stddef.h>

/** {count, items} as every public list begins; items are of the list's own type. */
typedef struct bough_box_list {
    size_t count;
    void **items;
} bough_box_list;

/** Fill a zeroed public struct from a server's object. Strings may be borrowed from both. */
typedef void (*bough_box_fill)(void *item, void *box, const json_t *object);

/**
 * Allocate a zeroed struct of `size` bytes that keeps `root` (a reference is taken).
 * @return NULL when memory ran out.
 */
void *bough_box_new(size_t size, json_t *root);

/**
 * Make a list of the objects in `array`, which is part of `root` (a reference is taken).
 * @return NULL when memory ran out.
 */
void *bough_box_list_new(json_t *root, const json_t *array, size_t item_size, bough_box_fill fill);

/** Free; NULL is allowed. */
void bough_box_free(void *box);

/** `value` as JSON text, owned by the box; "" when memory ran out or value is NULL. */
const char *bough_box_text(void *box, const json_t *value);

/** A string member; "" where it is missing or no string. */
const char *bough_json_text(const json_t *object, const char *name);

/** A number member, whole or not; 0 where it is missing or no number. */
double bough_json_number(const json_t *object, const char *name);

/** A whole number member of at least 0; 0 where it is missing, negative or no whole number. */
unsigned long long bough_json_count(const json_t *object, const char *name);

/** As bough_json_count(), at most INT_MAX. */
int bough_json_int(const json_t *object, const char *name);

/**
 * Give a new object a member, where there is a text; a member that cannot be made is never left
 * out: what is asked for would be something else.
 * @param object  NULL: an earlier step failed.
 * @return The object; NULL, and it is freed, where memory ran out or the text is no UTF-8.
 */
json_t *bough_json_put(json_t *object, const char *name, const char *text);

#endif
