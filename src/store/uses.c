/*
 * Which layers belong to one branch alone. All stacks are read once: each question afterwards costs
 * nothing. A stack is never written to, but replaced by rename: one that is still the same file
 * needs no reading the next time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "store/internal.h"

/* The clock of files is coarse. */
#define SETTLED_NS INT64_C(1000000000)

/* The stack of a branch, and by what the file is known again. */
typedef struct known_stack {
    char *branch;
    dev_t dev;
    ino_t ino;          /* 0: it was not there, or has just been written */
    int64_t changed_ns; /* the time of the file */
    bough_layers layers;
} known_stack;

/* A layer that some present stack names. */
typedef struct use {
    char dir[100]; /* "": free */
    size_t branch; /* the first that names it */
    bool is_shared;
} use;

struct bough_uses {
    known_stack *stacks; /* by name of the branch */
    size_t n_stacks;
    use *table; /* open addressing */
    size_t slots, n;
};

static use *find(const bough_uses *u, const char *dir) {
    size_t at = bough_path_hash(dir, strlen(dir)) & (u->slots - 1);
    while (u->table[at].dir[0] && strcmp(u->table[at].dir, dir) != 0)
        at = (at + 1) & (u->slots - 1);
    return &u->table[at];
}

static int grow(bough_uses *u, bough_error *err) {
    bough_uses bigger = {.slots = u->slots ? u->slots * 2 : 64};
    bigger.table = calloc(bigger.slots, sizeof *bigger.table);
    if (!bigger.table) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < u->slots; i++)
        if (u->table[i].dir[0]) *find(&bigger, u->table[i].dir) = u->table[i];
    free(u->table);
    u->table = bigger.table;
    u->slots = bigger.slots;
    return BOUGH_OK;
}

static int count(bough_uses *u, size_t branch, bough_error *err) {
    const bough_layers *layers = &u->stacks[branch].layers;
    for (size_t i = 0; i < layers->n; i++) {
        if (u->n * 2 >= u->slots) {
            int rc = grow(u, err);
            if (rc) return rc;
        }
        use *one = find(u, layers->dir[i]);
        if (one->dir[0]) {
            one->is_shared |= one->branch != branch;
            continue;
        }
        (void)snprintf(one->dir, sizeof one->dir, "%s", layers->dir[i]);
        one->branch = branch;
        u->n++;
    }
    return BOUGH_OK;
}

static int by_branch(const void *a, const void *b) {
    return strcmp(((const known_stack *)a)->branch, ((const known_stack *)b)->branch);
}

static int copy(bough_layers *to, const bough_layers *from, bough_error *err) {
    to->dir = calloc(from->n + 1, sizeof *to->dir);
    if (!to->dir) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    to->n = from->n;
    for (size_t i = 0; i < from->n; i++) memcpy(to->dir[i], from->dir[i], sizeof to->dir[i]);
    return BOUGH_OK;
}

/* One that is gone meanwhile is none. */
static int load(known_stack *s, const bough_uses *before, const bough_store *store,
                bough_error *err) {
    char path[BOUGH_PATH_MAX];
    struct stat st;
    int rc = bough_path(path, sizeof path, err, "%s/branches/%s/stack", store->dir, s->branch);
    if (rc || lstat(path, &st) != 0)
        return rc || errno == ENOENT ? rc
                                     : bough_fail_sys(err, errno, "could not stat \"%s\"", path);
    /* not the time of its inode: a restore point is another link to it */
    s->changed_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    const known_stack *old =
        before && before->n_stacks
            ? bsearch(s, before->stacks, before->n_stacks, sizeof *s, by_branch)
            : NULL;
    if (old && old->ino == s->ino && old->dev == s->dev && old->changed_ns == s->changed_ns)
        return copy(&s->layers, &old->layers, err);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    /* another one in its place could have its number and its time */
    if ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec - s->changed_ns < SETTLED_NS) s->ino = 0;
    rc = bough_layers_load(&s->layers, path, err);
    if (rc != BOUGH_E_NOTFOUND) return rc;
    bough_error_clear(err);
    s->ino = 0;
    return BOUGH_OK;
}

/* The branches that are there; not those in the making. */
static int list(bough_uses *u, const bough_store *store, bough_error *err) {
    char **names;
    size_t n = 0;
    int rc = bough_branch_dirs(&names, store, err);
    if (rc) return rc;
    while (names[n]) n++;
    u->stacks = calloc(n + 1, sizeof *u->stacks);
    if (!u->stacks) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < n; i++) {
        if (strchr(names[i], '~')) continue;
        u->stacks[u->n_stacks].branch = strdup(names[i]);
        if (!u->stacks[u->n_stacks].branch)
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        else
            u->n_stacks++;
    }
    if (!rc && u->n_stacks > 1) qsort(u->stacks, u->n_stacks, sizeof *u->stacks, by_branch);
    bough_store_free_list(names);
    return rc;
}

int bough_uses_new(bough_uses **out, const bough_store *store, const bough_uses *before,
                   bough_error *err) {
    *out = NULL;
    bough_uses *u = calloc(1, sizeof *u);
    if (!u) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = grow(u, err);
    if (!rc) rc = list(u, store, err);
    for (size_t i = 0; !rc && i < u->n_stacks; i++) {
        rc = load(&u->stacks[i], before, store, err);
        if (!rc) rc = count(u, i, err);
    }
    if (rc) {
        bough_uses_free(u);
        return rc;
    }
    *out = u;
    return BOUGH_OK;
}

void bough_uses_free(bough_uses *uses) {
    if (!uses) return;
    for (size_t i = 0; i < uses->n_stacks; i++) {
        free(uses->stacks[i].branch);
        bough_layers_free(&uses->stacks[i].layers);
    }
    free(uses->stacks);
    free(uses->table);
    free(uses);
}

bool bough_uses_shared(const bough_uses *uses, const char *branch, const char *dir) {
    const use *one = find(uses, dir);
    return one->dir[0] && (one->is_shared || strcmp(uses->stacks[one->branch].branch, branch) != 0);
}
