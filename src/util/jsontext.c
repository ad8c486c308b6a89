/* JSON as text. See jsontext.h. */
#include "util/jsontext.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- whether jansson has found no memory: by its functions for that, unless a program that uses
 * libbough has given it its own ---- */

static json_malloc_t given;
static _Thread_local bool has_failed;

static void *take(size_t size) {
    void *p = given(size);
    if (!p && size) has_failed = true;
    return p;
}

__attribute__((constructor)) static void watch_memory(void) {
    json_free_t release;
    json_get_alloc_funcs(&given, &release);
    if (release == free) json_set_alloc_funcs(take, release);
}

json_t *bough_json_load(const char *text, size_t size, size_t flags, json_error_t *error) {
    json_error_t spare;
    if (!error) error = &spare;
    has_failed = false;
    json_t *value = json_loadb(text, size, flags, error);
    if (!has_failed) return value;
    json_decref(value);
    memset(error, 0, sizeof *error);
    error->line = error->column = -1;
    (void)snprintf(error->text, sizeof error->text, "out of memory");
    error->text[JSON_ERROR_TEXT_LENGTH - 1] = json_error_out_of_memory; /* where json_error_code()
                                                                            looks */
    return NULL;
}

bool bough_json_lacked_memory(const json_error_t *error) {
    /* what is wrong with a text has a code; jansson has none for most of its allocations */
    enum json_error_code code = json_error_code(error);
    return code == json_error_unknown || code == json_error_out_of_memory;
}

json_t *bough_json_copy(const json_t *value) {
    has_failed = false;
    json_t *copy = json_deep_copy(value);
    if (!has_failed) return copy;
    json_decref(copy);
    return NULL;
}

/* ---- as text ---- */

static int append(const char *data, size_t size, void *arg) {
    bough_json_buffer *b = arg;
    if (b->failed || size > SIZE_MAX / 4 - b->size) {
        b->failed = true;
        return -1;
    }
    if (b->size + size + 1 > b->room) {
        size_t room = b->room ? b->room : 256;
        while (room < b->size + size + 1) room *= 2;
        char *more = malloc(room); /* not realloc(): a copy left behind may hold a password */
        if (!more) {
            b->failed = true;
            return -1;
        }
        if (b->size) memcpy(more, b->data, b->size);
        if (b->data) explicit_bzero(b->data, b->size);
        free(b->data);
        b->data = more;
        b->room = room;
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return 0;
}

void bough_json_add(bough_json_buffer *buffer, const char *text, size_t size) {
    (void)append(text, size, buffer);
}

void bough_json_add_value(bough_json_buffer *buffer, const json_t *value, size_t flags) {
    if (!value || json_dump_callback(value, append, buffer, flags) != 0) buffer->failed = true;
}

char *bough_json_take(bough_json_buffer *buffer, size_t *size) {
    char *text = buffer->failed ? NULL : buffer->data;
    if (text) {
        text[buffer->size] = '\0';
        if (size) *size = buffer->size;
    } else if (buffer->data) {
        explicit_bzero(buffer->data, buffer->size);
        free(buffer->data);
    }
    *buffer = (bough_json_buffer){0};
    return text;
}

char *bough_json_text_of(const json_t *value, size_t flags) {
    bough_json_buffer buffer = {0};
    bough_json_add_value(&buffer, value, flags);
    return bough_json_take(&buffer, NULL);
}
