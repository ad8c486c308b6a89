/* JSON as text. See jsontext.h. */
#include "util/jsontext.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
