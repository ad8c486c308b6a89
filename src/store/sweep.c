/*
 * Files that were being written when a process ended, or when the disk refused even to remove them:
 * NAME.tmp-PID-NUMBER of bough_write_file(), probes of the file system, and what is made in a
 * branch's directory under a name with a tilde. They are nobody's; the next start removes them.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "store/internal.h"
#include "util/log.h"

static bool is_temporary(const char *name) {
    const char *mark = strstr(name, ".tmp-");
    return (mark && isdigit((unsigned char)mark[5])) || strncmp(name, "probe-", 6) == 0;
}

/* Of one directory; in a branch's also what is made under names of its own. One that is not there
 * is clean. */
static void sweep_one(const char *dir, bool in_branch) {
    char path[BOUGH_PATH_MAX];
    DIR *d = opendir(dir);
    int failed;
    for (const struct dirent *e; d && (e = bough_list_next(d, &failed)) != NULL;) {
        size_t n = strlen(e->d_name);
        bool is_being_made =
            in_branch && (e->d_name[n - 1] == '~' || strcmp(e->d_name, "next") == 0 ||
                          strcmp(e->d_name, "stack.merged") == 0);
        if (!is_temporary(e->d_name) && !is_being_made) continue;
        bough_error err;
        int rc = bough_path(path, sizeof path, &err, "%s/%s", dir, e->d_name);
        if (!rc) rc = bough_rmtree(path, &err);
        if (rc)
            bough_log(BOUGH_LOG_WARN, "could not remove what was left half written", "path", path,
                      "error", err.message, NULL);
    }
    if (d) closedir(d);
}

/* Every directory that a directory has. */
static void sweep_each(const char *dir, bool in_branch) {
    char path[BOUGH_PATH_MAX], **names = NULL;
    if (bough_list_names(&names, dir, NULL) != BOUGH_OK) return;
    for (char **p = names; *p; p++)
        if (bough_path(path, sizeof path, NULL, "%s/%s", dir, *p) == BOUGH_OK)
            sweep_one(path, in_branch);
    bough_store_free_list(names);
}

void bough_store_sweep(const bough_store *store, const char *const *branches, size_t n) {
    static const char *const rooms[] = {"", "/pgdata", "/points", "/tls"};
    char path[BOUGH_PATH_MAX], **groups = NULL;
    sweep_one(store->dir, false);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof rooms / sizeof rooms[0]; k++)
            if (bough_path(path, sizeof path, NULL, "%s/branches/%s%s", store->dir, branches[i],
                           rooms[k]) == BOUGH_OK)
                sweep_one(path, true);
        if (bough_path(path, sizeof path, NULL, "%s/branches/%s/points", store->dir, branches[i]) ==
            BOUGH_OK)
            sweep_each(path, false);
    }
    if (bough_path(path, sizeof path, NULL, "%s/layers", store->dir) != BOUGH_OK ||
        bough_list_names(&groups, path, NULL) != BOUGH_OK)
        return;
    for (char **g = groups; *g; g++)
        if (bough_path(path, sizeof path, NULL, "%s/layers/%s", store->dir, *g) == BOUGH_OK) {
            sweep_one(path, false);
            sweep_each(path, false);
        }
    bough_store_free_list(groups);
}
