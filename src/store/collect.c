/*
 * Layers that nothing stands on any more.
 *
 * References are the stacks of all branches, of those that are being made, and of their restore
 * points. A new reference always comes from one that is there (a child has its parent's layers), so
 * a layer that was found without any stays so.
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

/* The layers of one stack; one that is gone meanwhile has none. */
static int add_stack(names *list, const bough_store *store, const char *of, bough_error *err) {
    bough_layers layers;
    int rc = bough_layers_read(&layers, store, of, err);
    if (rc == BOUGH_E_NOTFOUND) {
        bough_error_clear(err);
        return BOUGH_OK;
    }
    for (size_t i = 0; !rc && i < layers.n; i++) rc = add(list, layers.dir[i], err);
    if (rc != BOUGH_E_CORRUPT) bough_layers_free(&layers);
    return rc;
}

static int add_points(names *list, const bough_store *store, const char *branch, bough_error *err) {
    char path[BOUGH_PATH_MAX], of[400];
    int rc = bough_path(path, sizeof path, err, "%s/branches/%s/points", store->dir, branch);
    if (rc) return rc;
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT || errno == ENOTDIR
                   ? BOUGH_OK
                   : bough_fail_sys(err, errno, "could not list \"%s\"", path);
    const struct dirent *d;
    while (!rc && (d = readdir(dir)) != NULL) {
        if (d->d_name[0] == '.') continue;
        (void)snprintf(of, sizeof of, "%s/points/%s", branch, d->d_name);
        rc = add_stack(list, store, of, err);
    }
    closedir(dir);
    return rc;
}

static int by_name(const void *a, const void *b) {
    return strcmp(a, b);
}

static int references(names *list, const bough_store *store, bough_error *err) {
    char **branches;
    int rc = bough_branch_dirs(&branches, store, err);
    if (rc) return rc;
    for (char **p = branches; *p && !rc; p++) {
        rc = add_stack(list, store, *p, err);
        if (!rc) rc = add_points(list, store, *p, err);
    }
    bough_store_free_list(branches);
    if (!rc && list->n > 1) qsort(list->dir, list->n, sizeof list->dir[0], by_name);
    return rc;
}

static bool is_referenced(const names *list, const char *dir) {
    char key[100];
    (void)snprintf(key, sizeof key, "%s", dir);
    return list->n && bsearch(key, list->dir, list->n, sizeof list->dir[0], by_name) != NULL;
}

/* The layers of one group that nothing names; the group itself when it is empty and its branch is
 * gone. */
static int collect_group(const names *list, const bough_store *store, const char *group,
                         bough_error *err) {
    char path[BOUGH_PATH_MAX], dir[300];
    int rc = bough_path(path, sizeof path, err, "%s/layers/%s", store->dir, group);
    if (rc) return rc;
    DIR *d = opendir(path);
    if (!d)
        return errno == ENOENT ? BOUGH_OK
                               : bough_fail_sys(err, errno, "could not list \"%s\"", path);
    const struct dirent *e;
    while (!rc && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.') continue;
        (void)snprintf(dir, sizeof dir, "%s/%s", group, e->d_name);
        if (!is_referenced(list, dir)) rc = bough_store_discard(store, "layers", dir, err);
    }
    closedir(d);
    char branch[BOUGH_PATH_MAX];
    /* a compute of the branch may only read the directory that was there at its start */
    if (!rc && bough_path(branch, sizeof branch, NULL, "%s/branches/%s", store->dir, group) == 0 &&
        access(branch, F_OK) != 0)
        (void)rmdir(path); /* an empty one */
    return rc;
}

int bough_store_collect(bough_store *store, const char *group, bough_error *err) {
    names list = {0};
    char path[BOUGH_PATH_MAX];
    int rc = references(&list, store, err);
    if (!rc && group) {
        rc = collect_group(&list, store, group, err);
    } else if (!rc) {
        rc = bough_path(path, sizeof path, err, "%s/layers", store->dir);
        DIR *d = rc ? NULL : opendir(path);
        if (!rc && !d) rc = bough_fail_sys(err, errno, "could not list \"%s\"", path);
        const struct dirent *e;
        while (!rc && (e = readdir(d)) != NULL) {
            if (e->d_name[0] == '.') continue;
            rc = collect_group(&list, store, e->d_name, err);
        }
        if (d) closedir(d);
    }
    free(list.dir);
    return rc;
}
