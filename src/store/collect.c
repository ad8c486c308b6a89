/*
 * Layers that nothing stands on any more.
 *
 * References are the stacks of all branches, of those that are being made, of their restore points,
 * and "stack.next", which names the layer of a seal that is under way before that layer's directory
 * is there. So the layers are listed first and the references after them; stack.next is read before
 * the stack that it becomes. A new reference always comes from one that is there (a child has its
 * parent's layers), so a layer that was found without any stays so. Two have no such one: of a
 * cluster that is adopted, whose branch in the making names the layer before that is there
 * (fork.c), and a merged layer, which gets its first one after its name (merged.c). Neither the
 * latter nor a change of names or places happens meanwhile.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/internal.h"

typedef struct names {
    char (*dir)[100];
    size_t n, room;
} names;

static int add(names *list, const char *dir, bough_error *err) {
    if (list->n == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        char(*more)[100] = realloc(list->dir, room * sizeof *more);
        if (!more) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        list->dir = more;
        list->room = room;
    }
    (void)snprintf(list->dir[list->n++], sizeof list->dir[0], "%s", dir);
    return BOUGH_OK;
}

static int add_stack(void *context, const char *of, const bough_layers *layers, bough_error *err) {
    int rc = BOUGH_OK;
    (void)of;
    for (size_t i = 0; !rc && i < layers->n; i++) rc = add(context, layers->dir[i], err);
    return rc;
}

static int by_name(const void *a, const void *b) {
    return strcmp(a, b);
}

static int references(names *list, const bough_store *store, bough_error *err) {
    int rc = bough_stacks_each(store, add_stack, list, err);
    if (!rc && list->n > 1) qsort(list->dir, list->n, sizeof list->dir[0], by_name);
    return rc;
}

static bool is_referenced(const names *list, const char *dir) {
    char key[100];
    (void)snprintf(key, sizeof key, "%s", dir);
    return list->n && bsearch(key, list->dir, list->n, sizeof list->dir[0], by_name) != NULL;
}

/* Every layer of a group. */
static int list_group(names *list, const bough_store *store, const char *group, bough_error *err) {
    char path[BOUGH_PATH_MAX], dir[300];
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, group);
    if (rc) return rc;
    DIR *d = opendir(path);
    if (!d)
        return errno == ENOENT ? BOUGH_OK
                               : bough_fail_sys(err, errno, "could not list \"%s\"", path);
    const struct dirent *e;
    int failed = 0;
    while (!rc && (e = bough_list_next(d, &failed)) != NULL) {
        if (e->d_name[0] == '.') continue;
        (void)snprintf(dir, sizeof dir, "%s/%s", group, e->d_name);
        rc = add(list, dir, err);
    }
    if (failed) rc = bough_fail_sys(err, failed, "could not list \"%s\"", path);
    closedir(d);
    return rc;
}

/* The directory of a group whose branch is gone, when it is empty. A compute of the branch may only
 * read the one that was there at its start. */
static void remove_group(const bough_store *store, const char *group) {
    char branch[BOUGH_PATH_MAX], coming[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX];
    if (bough_path(branch, sizeof branch, NULL, "%s/branches/%s", store->dir, group) == 0 &&
        bough_path(coming, sizeof coming, NULL, "%s.new~", branch) == 0 &&
        access(coming, F_OK) != 0 && access(branch, F_OK) != 0 &&
        bough_path(path, sizeof path, NULL, "%s/layers/%s/.last", store->dir, group) == 0) {
        (void)unlink(path); /* nothing is sealed into it any more */
        *strrchr(path, '/') = '\0';
        (void)rmdir(path);
    }
}

static int collect(const bough_store *store, char *const *groups, bough_error *err) {
    names layers = {0}, used = {0};
    int rc = BOUGH_OK;
    for (char *const *p = groups; *p && !rc; p++) rc = list_group(&layers, store, *p, err);
    if (!rc) rc = references(&used, store, err);
    for (size_t i = 0; i < layers.n && !rc; i++)
        if (!is_referenced(&used, layers.dir[i])) {
            rc = bough_layer_retire(store, layers.dir[i], err);
            if (!rc) rc = bough_store_discard(store, "layers", layers.dir[i], err);
        }
    for (char *const *p = groups; *p && !rc; p++) remove_group(store, *p);
    free(layers.dir);
    free(used.dir);
    return rc;
}

int bough_store_collect(bough_store *store, char *const *groups, bough_error *err) {
    char **all = NULL;
    pthread_mutex_lock(&store->places);
    int rc = groups ? BOUGH_OK : bough_layer_groups(&all, store, err);
    if (!rc) rc = collect(store, groups ? groups : all, err);
    pthread_mutex_unlock(&store->places);
    bough_store_free_list(all);
    return rc;
}

int bough_store_collect_all(bough_store *store, bough_error *err) {
    return bough_store_collect(store, NULL, err);
}
