/* Listing a layered directory: the head, then each level, each name once, whiteouts left out. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "preload/lib.h"

#define MAX_NAMES (64U << 20) /* names in one directory; a growth limit, not a target */

typedef struct name {
    uint32_t at; /* in text */
    uint8_t type;
    uint8_t hidden;
} name;

struct bough_dir {
    bough_dir *next;
    char *text;
    size_t text_used, text_room;
    name *names;
    uint32_t n, room;
    uint32_t *slots; /* name + 1, open addressing */
    uint32_t n_slots;
    uint32_t position;
    struct dirent out;
};

static bough_dir *open_dirs;

static void clear(bough_dir *d) {
    free(d->text);
    free(d->names);
    free(d->slots);
    bough_dir *next = d->next;
    memset(d, 0, sizeof *d);
    d->next = next;
}

static int rehash(bough_dir *d) {
    uint32_t n = d->n_slots ? d->n_slots * 2 : 256;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots) return -1;
    for (uint32_t i = 0; i < d->n; i++) {
        const char *text = d->text + d->names[i].at;
        uint32_t s = bough_path_hash(text, strlen(text)) & (n - 1);
        while (slots[s]) s = (s + 1) & (n - 1);
        slots[s] = i + 1;
    }
    free(d->slots);
    d->slots = slots;
    d->n_slots = n;
    return 0;
}

/* Add a name unless a newer level had it. */
static int add(bough_dir *d, const char *text, size_t length, uint8_t type, bool hidden) {
    if (d->n * 2 >= d->n_slots && rehash(d) != 0) return -1;
    uint32_t s = bough_path_hash(text, length) & (d->n_slots - 1);
    for (; d->slots[s]; s = (s + 1) & (d->n_slots - 1)) {
        const char *have = d->text + d->names[d->slots[s] - 1].at;
        if (strncmp(have, text, length) == 0 && have[length] == '\0') return 0;
    }
    if (d->n == d->room) {
        uint32_t room = d->room ? d->room * 2 : 64;
        name *names = room > MAX_NAMES ? NULL : realloc(d->names, room * sizeof *names);
        if (!names) return -1;
        d->names = names;
        d->room = room;
    }
    if (d->text_used + length + 1 > d->text_room) {
        size_t room = (d->text_room ? d->text_room * 2 : 4096) + length;
        char *more = room > UINT32_MAX ? NULL : realloc(d->text, room);
        if (!more) return -1;
        d->text = more;
        d->text_room = room;
    }
    memcpy(d->text + d->text_used, text, length);
    d->text[d->text_used + length] = '\0';
    d->names[d->n] = (name){(uint32_t)d->text_used, type, hidden};
    d->text_used += length + 1;
    d->slots[s] = ++d->n;
    return 0;
}

/* A real directory, of the head or of a layer whose index is in memory. Missing is empty. */
static int add_real(bough_dir *d, const char *path) {
    DIR *dir = real_opendir(path);
    if (!dir) return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    struct dirent *e;
    int rc = 0;
    while (rc == 0 && (e = real_readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            strstr(e->d_name, BOUGH_TEMP_MARK))
            continue;
        rc = add(d, e->d_name, strlen(e->d_name), e->d_type, e->d_type == DT_LNK);
    }
    real_closedir(dir);
    return rc;
}

static int add_index(bough_dir *d, const bough_index *index, const char *key, size_t length) {
    for (uint32_t i = bough_index_first_below(index, key, length); i < index->header->records;
         i++) {
        const bough_record *r = &index->records[i];
        const char *text = bough_index_name(index, r);
        if (strncmp(text, key, length) != 0 || text[length] != '/') break;
        const char *rest = text + length + 1;
        if (strchr(rest, '/')) continue;
        bool directory = r->kind == BOUGH_RECORD_DIR || r->kind == BOUGH_RECORD_DIR_OPAQUE;
        if (add(d, rest, strlen(rest), directory ? DT_DIR : DT_REG,
                r->kind == BOUGH_RECORD_WHITEOUT) != 0)
            return -1;
    }
    return 0;
}

/* Whether this level hides what is below the directory. */
static bool level_hides(const bough_layer *layer, const char *key, size_t length) {
    uint32_t hash = bough_path_hash(key, length);
    if (layer->gen == BOUGH_NO_GEN) {
        const bough_record *r = bough_index_find(&layer->index, key, length, hash);
        return r && (r->kind == BOUGH_RECORD_WHITEOUT || r->kind == BOUGH_RECORD_DIR_OPAQUE);
    }
    const bough_entry *e = bough_entry_find(bough.shm, layer->gen, key, length, hash);
    return e && (atomic_load(&e->flags) & (BOUGH_FLAG_WHITEOUT | BOUGH_FLAG_OPAQUE));
}

static int collect(bough_dir *d, const char *key) {
    char path[2048];
    size_t length = strlen(key);
    uint32_t hash = bough_path_hash(key, length);
    bough_head_path(path, sizeof path, key);
    if (add(d, ".", 1, DT_DIR, false) != 0 || add(d, "..", 2, DT_DIR, false) != 0 ||
        add_real(d, path) != 0)
        return -1;
    const bough_entry *e =
        bough_entry_find(bough.shm, atomic_load(&bough.shm->gen), key, length, hash);
    if (e && (atomic_load(&e->flags) & (BOUGH_FLAG_WHITEOUT | BOUGH_FLAG_OPAQUE))) return 0;
    for (unsigned i = 0; i < bough.view.depth; i++) {
        const bough_layer *layer = bough.view.layers[i];
        int rc;
        if (layer->gen == BOUGH_NO_GEN) {
            rc = add_index(d, &layer->index, key, length);
        } else {
            bough_view_layer_path(path, sizeof path, &bough.view, layer, key);
            rc = add_real(d, path);
        }
        if (rc != 0) return -1;
        if (level_hides(layer, key, length)) break;
    }
    return 0;
}

bough_dir *bough_dir_open(const char *key) {
    char path[2048];
    bough_dir *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    for (;;) {
        uint32_t epoch = bough_gate_epoch(bough.shm);
        int rc = bough_view_refresh(&bough.view);
        if (rc == 0) rc = bough_real_path(path, sizeof path, key);
        if (rc == 0) rc = collect(d, key);
        int saved = errno;
        if (atomic_load(&bough.shm->epoch) != epoch || bough.view.epoch != epoch) {
            clear(d); /* a seal moved the files meanwhile */
            continue;
        }
        if (rc == 0) break;
        clear(d);
        free(d);
        errno = saved;
        return NULL;
    }
    d->next = open_dirs;
    open_dirs = d;
    return d;
}

struct dirent *bough_dir_read(bough_dir *d) {
    while (d->position < d->n) {
        const name *n = &d->names[d->position++];
        if (n->hidden) continue;
        memset(&d->out, 0, sizeof d->out);
        d->out.d_ino = d->position;
        d->out.d_type = n->type;
        d->out.d_reclen = sizeof d->out;
        (void)snprintf(d->out.d_name, sizeof d->out.d_name, "%s", d->text + n->at);
        return &d->out;
    }
    return NULL;
}

void bough_dir_rewind(bough_dir *dir) {
    dir->position = 0;
}

bough_dir *bough_dir_of(const DIR *dir) {
    for (bough_dir *d = open_dirs; d; d = d->next)
        if ((const void *)d == (const void *)dir) return d;
    return NULL;
}

void bough_dir_close(bough_dir *dir) {
    for (bough_dir **link = &open_dirs; *link; link = &(*link)->next)
        if (*link == dir) {
            *link = dir->next;
            break;
        }
    clear(dir);
    free(dir);
}

int bough_dir_is_empty(const char *key) {
    bough_dir *d = bough_dir_open(key);
    if (!d) return -1;
    int empty = 1;
    struct dirent *e;
    while ((e = bough_dir_read(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) empty = 0;
    bough_dir_close(d);
    return empty;
}
