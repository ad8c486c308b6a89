/* JSON as text. See jsontext.h. */
#include "util/jsontext.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct text {
    char *data;
    size_t size, room;
    bool failed;
} text;

static int append(const char *data, size_t size, void *arg) {
    text *t = arg;
    if (t->failed || size > SIZE_MAX / 4 - t->size) {
        t->failed = true;
        return -1;
    }
    if (t->size + size + 1 > t->room) {
        size_t room = t->room ? t->room : 256;
        while (room < t->size + size + 1) room *= 2;
        char *more = malloc(room); /* not realloc(): a copy left behind may hold a password */
        if (!more) {
            t->failed = true;
            return -1;
        }
        if (t->size) memcpy(more, t->data, t->size);
        if (t->data) explicit_bzero(t->data, t->size);
        free(t->data);
        t->data = more;
        t->room = room;
    }
    memcpy(t->data + t->size, data, size);
    t->size += size;
    return 0;
}

char *bough_json_text_of(const json_t *value, size_t flags) {
    text t = {0};
    if (value && json_dump_callback(value, append, &t, flags) == 0 && !t.failed && t.data) {
        t.data[t.size] = '\0';
        return t.data;
    }
    if (t.data) explicit_bzero(t.data, t.size);
    free(t.data);
    return NULL;
}
