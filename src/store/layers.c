/* The list of layers under a head (the file "stack"), and what is kept beside each layer. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload/index.h"
#include "store/internal.h"

#define STACK_HEAD "bough-stack 1\n"
#define STACK_MAX_BYTES (BOUGH_MAX_DEPTH * 128)

void bough_layers_free(bough_layers *layers) {
    free(layers->dir);
    layers->dir = NULL;
    layers->n = 0;
}

static bool is_layer_name(const char *text) {
    const char *slash = strchr(text, '/');
    return slash && slash != text && slash[1] && !strchr(slash + 1, '/') && strlen(text) < 100 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-/") == strlen(text);
}

int bough_layers_read(bough_layers *layers, const bough_store *store, const char *branch,
                      bough_error *err) {
    return bough_stack_read(layers, store, branch, "stack", err);
}

int bough_stack_read(bough_layers *layers, const bough_store *store, const char *branch,
                     const char *name, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    memset(layers, 0, sizeof *layers);
    int rc = bough_path(path, sizeof path, err, "%s/branches/%s/%s", store->dir, branch, name);
    return rc ? rc : bough_layers_load(layers, path, err);
}

int bough_layers_load(bough_layers *layers, const char *path, bough_error *err) {
    char *text = NULL;
    size_t n = 0;
    memset(layers, 0, sizeof *layers);
    int rc = bough_read_file(&text, &n, path, STACK_MAX_BYTES, err);
    if (rc) return rc;
    size_t head = strlen(STACK_HEAD), lines = 0;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    layers->dir = calloc(lines + 1, sizeof *layers->dir);
    if (!layers->dir) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    bool whole =
        n >= head + 4 && strncmp(text, STACK_HEAD, head) == 0 && strcmp(text + n - 4, "end\n") == 0;
    char *save, *line = whole && !rc ? strtok_r(text + head, "\n", &save) : NULL;
    for (; line && strcmp(line, "end") != 0; line = strtok_r(NULL, "\n", &save)) {
        whole = whole && is_layer_name(line) && layers->n < BOUGH_MAX_DEPTH;
        if (!whole) break;
        (void)snprintf(layers->dir[layers->n++], sizeof layers->dir[0], "%s", line);
    }
    /* no NUL, empty line or "end" in between: that would be a stack with some of its layers */
    whole = whole && line == text + n - 4 && lines == layers->n + 2;
    if (!rc && !whole) rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" is damaged", path);
    free(text);
    if (rc) bough_layers_free(layers);
    return rc;
}

int bough_layers_write(const bough_store *store, const char *branch, const char *name,
                       const char *top, const bough_layers *below, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/branches/%s/%s", store->dir, branch, name);
    if (rc) return rc;
    if (below->n + (top != NULL) >= BOUGH_MAX_DEPTH) {
        bough_fail(err, BOUGH_E_BUSY, "branch \"%s\" already stands on %zu layers", branch,
                   below->n);
        return bough_hint(err, "They are merged in the background; the log says why that is late.");
    }
    return bough_layers_save(path, top, below, err);
}

int bough_layers_save(const char *path, const char *top, const bough_layers *below,
                      bough_error *err) {
    size_t room = (below->n + 3) * 104, n = 0;
    char *text = malloc(room);
    if (!text) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    n += (size_t)snprintf(text + n, room - n, STACK_HEAD);
    if (top) n += (size_t)snprintf(text + n, room - n, "%s\n", top);
    for (size_t i = 0; i < below->n; i++)
        n += (size_t)snprintf(text + n, room - n, "%s\n", below->dir[i]);
    n += (size_t)snprintf(text + n, room - n, "end\n");
    int rc = bough_write_file(path, text, n, 0600, err);
    free(text);
    return rc;
}

bool bough_layer_is_durable(const bough_store *store, const char *dir) {
    char path[BOUGH_PATH_MAX];
    return bough_path(path, sizeof path, NULL, "%s/layers/%s/durable", store->dir, dir) == 0 &&
           access(path, F_OK) == 0;
}

int bough_layer_set_durable(const bough_store *store, const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s/durable", store->dir, dir);
    return rc ? rc : bough_write_file(path, "", 0, 0400, err);
}

/* A name that no layer has. */
#define LAST_FILE ".last"

int bough_layer_last(unsigned *number, const bough_store *store, const char *group,
                     bough_error *err) {
    char path[BOUGH_PATH_MAX], *text = NULL;
    size_t n;
    *number = 0;
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s/" LAST_FILE, store->dir, group);
    if (!rc) rc = bough_read_file(&text, &n, path, 64, err);
    if (rc == BOUGH_E_NOTFOUND) {
        bough_error_clear(err);
        return BOUGH_OK;
    }
    if (!rc && sscanf(text, "%8u", number) != 1)
        rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" is damaged", path);
    free(text);
    return rc;
}

int bough_layer_retire(const bough_store *store, const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX], group[100], text[16];
    unsigned number, last;
    const char *slash = strchr(dir, '/');
    if (!slash || sscanf(slash + 1, "%8u", &number) != 1) return BOUGH_OK; /* no layer's name */
    (void)snprintf(group, sizeof group, "%.*s", (int)(slash - dir), dir);
    int rc = bough_layer_last(&last, store, group, err);
    if (rc || number <= last) return rc;
    rc = bough_path(path, sizeof path, err, "%s/layers/%s/" LAST_FILE, store->dir, group);
    int n = snprintf(text, sizeof text, "%u\n", number);
    return rc ? rc : bough_write_file(path, text, (size_t)n, 0600, err);
}

int bough_layer_set_boot(const bough_store *store, const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX], boot[64];
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s/boot", store->dir, dir);
    if (!rc) rc = bough_boot_id(boot, err);
    return rc ? rc : bough_write_file(path, boot, strlen(boot), 0400, err);
}

/* Whether a file of the layer holds the id of this boot. */
static bool is_of_this_boot(const bough_store *store, const char *dir, const char *name) {
    char path[BOUGH_PATH_MAX], boot[BOUGH_BOOT_ID_SIZE], *text = NULL;
    size_t n;
    if (bough_path(path, sizeof path, NULL, "%s/layers/%s/%s", store->dir, dir, name) != BOUGH_OK ||
        bough_read_file(&text, &n, path, 4096, NULL) != BOUGH_OK)
        return false;
    /* what cannot be told apart is taken for the worse */
    bool is_it = bough_boot_id(boot, NULL) != BOUGH_OK || strcmp(text, boot) == 0;
    free(text);
    return is_it;
}

/* (store->mutex) */
static size_t find_refused(const bough_store *store, const char *dir) {
    size_t i = 0;
    while (i < store->n_refused && strcmp(store->refused[i], dir) != 0) i++;
    return i;
}

bool bough_layer_is_refused(const bough_store *store, const char *dir) {
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&store->mutex;
    pthread_mutex_lock(mutex);
    bool is_it = find_refused(store, dir) < store->n_refused;
    pthread_mutex_unlock(mutex);
    return is_it || is_of_this_boot(store, dir, "refused");
}

void bough_layer_set_refused(bough_store *store, const char *dir) {
    char path[BOUGH_PATH_MAX], boot[BOUGH_BOOT_ID_SIZE];
    atomic_store(&store->has_refused, true);
    /* not durable: it says something of this boot alone */
    if (bough_path(path, sizeof path, NULL, "%s/layers/%s/refused", store->dir, dir) == BOUGH_OK &&
        bough_boot_id(boot, NULL) == BOUGH_OK &&
        bough_replace_file(path, boot, strlen(boot), 0600, NULL) == BOUGH_OK)
        return;
    pthread_mutex_lock(&store->mutex);
    bool is_new = find_refused(store, dir) == store->n_refused;
    char **more = is_new ? realloc(store->refused, (store->n_refused + 1) * sizeof *more) : NULL;
    if (more) {
        store->refused = more;
        more[store->n_refused] = strdup(dir);
        if (more[store->n_refused]) store->n_refused++;
    }
    pthread_mutex_unlock(&store->mutex);
}

int bough_layer_clear_refused(bough_store *store, const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s/refused", store->dir, dir);
    if (!rc && unlink(path) != 0 && errno != ENOENT)
        rc = bough_fail_sys(err, errno, "could not remove \"%s\"", path);
    if (rc) return rc;
    pthread_mutex_lock(&store->mutex);
    size_t i = find_refused(store, dir);
    if (i < store->n_refused) {
        free(store->refused[i]);
        store->refused[i] = store->refused[--store->n_refused];
    }
    pthread_mutex_unlock(&store->mutex);
    return BOUGH_OK;
}

pthread_mutex_t *bough_layer_turn(bough_store *store, const char *dir) {
    return &store->turns[bough_path_hash(dir, strlen(dir)) % BOUGH_LAYER_TURNS];
}

bool bough_is_of_disk(const bough_error *err) {
    return err->sys_errno == EIO || err->sys_errno == ENOSPC || err->sys_errno == EDQUOT;
}

/* (its turn) */
static int sync_layer(bough_store *store, const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    if (bough_layer_is_durable(store, dir)) return BOUGH_OK; /* by who had his turn before */
    if (bough_layer_is_refused(store, dir)) {
        bough_fail(err, BOUGH_E_SYS,
                   "the disk has refused to make layer \"%s\" durable: Input/output error", dir);
        return bough_hint(err, "It is written anew as soon as the disk takes it; retry then.");
    }
    bough_error why = {0};
    int rc = bough_path(path, sizeof path, &why, "%s/layers/%s", store->dir, dir);
    if (!rc) rc = bough_fsync_tree(path, &why);
    if (!rc) return bough_layer_set_durable(store, dir, err);
    if (err) *err = why;
    /* the kernel tells of it once, and takes the pages for written: who asks again would be told
     * that all is well */
    if (bough_is_of_disk(&why)) bough_layer_set_refused(store, dir);
    return rc;
}

int bough_layer_sync(bough_store *store, const char *dir, bough_error *err) {
    pthread_mutex_t *turn = bough_layer_turn(store, dir);
    pthread_mutex_lock(turn);
    int rc = sync_layer(store, dir, err);
    pthread_mutex_unlock(turn);
    return rc;
}

bool bough_layer_outlived_boot(const bough_store *store, const char *dir) {
    char path[BOUGH_PATH_MAX], boot[64], *text = NULL;
    size_t n;
    if (bough_layer_is_durable(store, dir) || bough_boot_id(boot, NULL) != BOUGH_OK ||
        bough_path(path, sizeof path, NULL, "%s/layers/%s/boot", store->dir, dir) != BOUGH_OK ||
        bough_read_file(&text, &n, path, 4096, NULL) != BOUGH_OK)
        return false;
    bool outlived = strcmp(text, boot) != 0;
    free(text);
    return outlived;
}

int bough_layer_verify(bough_store *store, const char *dir, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    pthread_mutex_lock(&store->mutex);
    bool known = false;
    for (size_t i = 0; i < store->n_verified && !known; i++)
        known = strcmp(store->verified[i], dir) == 0;
    pthread_mutex_unlock(&store->mutex);
    if (known) return BOUGH_OK;
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s/index", store->dir, dir);
    if (rc) return rc;
    bough_index index;
    if (bough_index_map(&index, path, true) != 0) {
        if (errno == EUCLEAN)
            return bough_fail(err, BOUGH_E_CORRUPT, "the index of layer \"%s\" is damaged", dir);
        return bough_fail_sys(err, errno, "could not read the index of layer \"%s\"", dir);
    }
    bough_index_unmap(&index);
    pthread_mutex_lock(&store->mutex);
    char **more = realloc(store->verified, (store->n_verified + 1) * sizeof *more);
    if (more) {
        store->verified = more;
        more[store->n_verified] = strdup(dir);
        if (more[store->n_verified]) store->n_verified++;
    }
    pthread_mutex_unlock(&store->mutex);
    return BOUGH_OK;
}

int bough_layer_bytes(uint64_t *bytes, const bough_store *store, const char *dir,
                      bough_error *err) {
    char path[BOUGH_PATH_MAX];
    bough_index index;
    *bytes = 0;
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s/index", store->dir, dir);
    if (rc) return rc;
    if (bough_index_map(&index, path, false) != 0)
        return bough_fail_sys(err, errno, "could not read the index of layer \"%s\"", dir);
    *bytes = index.header->allocated + index.header->bytes;
    bough_index_unmap(&index);
    return BOUGH_OK;
}

int bough_branch_dirs(char ***names, const bough_store *store, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/branches", store->dir);
    return rc ? rc : bough_list_names(names, path, err);
}

int bough_list_names(char ***names, const char *path, bough_error *err) {
    *names = NULL;
    DIR *dir = opendir(path);
    if (!dir && errno == ENOENT)
        return bough_fail(err, BOUGH_E_NOTFOUND, "\"%s\" does not exist", path);
    if (!dir) return bough_fail_sys(err, errno, "could not list \"%s\"", path);
    size_t n = 0, room = 16;
    char **list = calloc(room, sizeof *list);
    struct dirent *d;
    int failed = 0;
    while (list && (d = bough_list_next(dir, &failed)) != NULL) {
        if (d->d_name[0] == '.') continue;
        if (n + 2 > room) {
            char **more = realloc(list, room * 2 * sizeof *list);
            if (!more) break;
            list = more;
            room *= 2;
        }
        list[n] = strdup(d->d_name);
        if (!list[n]) break;
        list[++n] = NULL;
    }
    bool whole = list && !d && !failed;
    closedir(dir);
    if (!whole) {
        bough_store_free_list(list);
        if (failed) return bough_fail_sys(err, failed, "could not list \"%s\"", path);
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    *names = list;
    return BOUGH_OK;
}

int bough_layer_groups(char ***groups, const bough_store *store, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    *groups = NULL;
    int rc = bough_path(path, sizeof path, err, "%s/layers", store->dir);
    return rc ? rc : bough_list_names(groups, path, err);
}

int bough_layers_each(const bough_store *store, bough_layer_visitor call, void *context,
                      bough_error *err) {
    char path[BOUGH_PATH_MAX], dir[300], **groups = NULL;
    int rc = bough_layer_groups(&groups, store, err);
    for (char **g = groups; !rc && *g; g++) {
        char **names = NULL;
        rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, *g);
        if (!rc) rc = bough_list_names(&names, path, err);
        if (rc == BOUGH_E_NOTFOUND) { /* collected meanwhile */
            bough_error_clear(err);
            rc = BOUGH_OK;
        }
        for (char **p = names; !rc && p && *p; p++) {
            int n = snprintf(dir, sizeof dir, "%s/%s", *g, *p);
            if (n > 0 && (size_t)n < sizeof dir && is_layer_name(dir)) rc = call(context, dir, err);
        }
        bough_store_free_list(names);
    }
    bough_store_free_list(groups);
    return rc;
}

int bough_store_layer_dirs(char ***dirs, const bough_store *store, const char *branch,
                           bough_error *err) {
    bough_layers layers;
    *dirs = NULL;
    int rc = bough_layers_read(&layers, store, branch, err);
    if (rc) return rc;
    /* the branch's own group as a whole: what is sealed from it while it runs appears there */
    char **list = calloc(layers.n + 2, sizeof *list);
    size_t n = 0, length = strlen(branch);
    rc = list ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    char path[BOUGH_PATH_MAX];
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, branch);
    if (!rc) rc = bough_mkdirs(path, 0700, err);
    if (!rc && !(list[n++] = strdup(path))) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < layers.n; i++) {
        if (strncmp(layers.dir[i], branch, length) == 0 && layers.dir[i][length] == '/') continue;
        rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, layers.dir[i]);
        if (!rc && !(list[n++] = strdup(path)))
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    bough_layers_free(&layers);
    if (rc) {
        bough_store_free_list(list);
        return rc;
    }
    *dirs = list;
    return BOUGH_OK;
}
