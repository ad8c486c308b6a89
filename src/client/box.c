/* Boxes: how results are allocated. Layout: header, public struct, list's pointers, list's structs.
 */
#include "client/box.h"
#include "util/jsontext.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct header {
    json_t *root;  /* the answer */
    json_t *texts; /* array of strings made by bough_box_text() */
} header;

/* Every part begins at a multiple of this. */
#define ALIGNMENT _Alignof(max_align_t)
#define ROUNDED(size) (((size) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

static header *header_of(void *box) {
    return (header *)(void *)((char *)box - ROUNDED(sizeof(header)));
}

void *bough_box_new(size_t size, json_t *root) {
    char *memory = calloc(1, ROUNDED(sizeof(header)) + size);
    if (!memory) return NULL;
    void *box = memory + ROUNDED(sizeof(header));
    header *h = header_of(box);
    h->texts = json_array();
    if (!h->texts) {
        free(memory);
        return NULL;
    }
    h->root = json_incref(root);
    return box;
}

void *bough_box_list_new(json_t *root, const json_t *array, size_t item_size, bough_box_fill fill) {
    size_t count = json_array_size(array);
    size_t pointers_at = ROUNDED(sizeof(bough_box_list));
    size_t items_at = pointers_at + ROUNDED(count * sizeof(void *));
    char *box = bough_box_new(items_at + count * ROUNDED(item_size), root);
    if (!box) return NULL;
    for (size_t i = 0; i < count; i++) {
        void *item = box + items_at + i * ROUNDED(item_size);
        fill(item, box, json_array_get(array, i));
        memcpy(box + pointers_at + i * sizeof item, &item, sizeof item);
    }
    bough_box_list list = {.count = count, .items = (void **)(void *)(box + pointers_at)};
    memcpy(box, &list, sizeof list);
    return box;
}

void bough_box_free(void *box) {
    if (!box) return;
    header *h = header_of(box);
    json_decref(h->texts);
    json_decref(h->root);
    free(h);
}

const char *bough_box_text(void *box, const json_t *value) {
    char *text = value ? bough_json_text_of(value, JSON_COMPACT) : NULL;
    json_t *kept = text ? json_string_nocheck(text) : NULL;
    free(text);
    if (!kept || json_array_append_new(header_of(box)->texts, kept) != 0) return "";
    return json_string_value(kept);
}

const char *bough_json_text(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

double bough_json_number(const json_t *object, const char *name) {
    return json_number_value(json_object_get(object, name));
}

unsigned long long bough_json_count(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (json_is_real(value)) {
        double real = json_real_value(value);
        return real > 0 && real < 1e18 ? (unsigned long long)real : 0;
    }
    json_int_t whole = json_integer_value(value);
    return whole > 0 ? (unsigned long long)whole : 0;
}

int bough_json_int(const json_t *object, const char *name) {
    unsigned long long count = bough_json_count(object, name);
    return count > INT_MAX ? INT_MAX : (int)count;
}

json_t *bough_json_put(json_t *object, const char *name, const char *text) {
    if (!object || !text || json_object_set_new(object, name, json_string(text)) == 0)
        return object;
    json_decref(object);
    return NULL;
}
