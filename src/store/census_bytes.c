/*
 * Whose every byte of a store is. One walk; a file with several links is kept by inode until all
 * are seen, and is then of the branch that alone needs it, or shared.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/census_internal.h"

/* Beside the numbers of branches. What is further down gives way to what is above. */
enum { OWNER_SHARED = -1, OWNER_OTHER = -2, OWNER_GOES = -3, OWNER_TRASH = -4 };

typedef struct claim {
    long owner;
    uint64_t bytes, past_bytes; /* of bytes: what only the past needs */
    size_t layer;               /* n_layers: it is in none */
    bool is_going_wal;          /* in history/, before what is kept */
} claim;

typedef struct linked {
    dev_t dev;
    ino_t ino; /* 0: free */
    claim claim;
} linked;

typedef struct scale {
    bough_census *census;
    const bough_store *store;
    bough_moment *moment; /* of `branch` */
    size_t branch;
    linked *table; /* open addressing */
    size_t slots, n;
} scale;

static linked *find_linked(linked *table, size_t slots, dev_t dev, ino_t ino) {
    size_t at = (size_t)((uint64_t)ino * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (slots - 1);
    while (table[at].ino && (table[at].ino != ino || table[at].dev != dev))
        at = (at + 1) & (slots - 1);
    return &table[at];
}

static int grow(scale *s, bough_error *err) {
    size_t slots = s->slots ? s->slots * 2 : 1024;
    linked *bigger = calloc(slots, sizeof *bigger);
    if (!bigger) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < s->slots; i++)
        if (s->table[i].ino)
            *find_linked(bigger, slots, s->table[i].dev, s->table[i].ino) = s->table[i];
    free(s->table);
    s->table = bigger;
    s->slots = slots;
    return BOUGH_OK;
}

/* Two names of one file. */
static void combine(claim *into, const claim *other) {
    if (into->owner < OWNER_SHARED || other->owner < OWNER_SHARED) {
        if (other->owner > into->owner) *into = *other;
        return;
    }
    if (into->owner != other->owner) into->owner = OWNER_SHARED;
    if (other->layer < into->layer) into->layer = other->layer;
    /* what the present has, too, is not of the past alone */
    if (other->past_bytes < into->past_bytes) into->past_bytes = other->past_bytes;
    into->is_going_wal &= other->is_going_wal;
}

static void settle(bough_census *c, const claim *of) {
    c->total_bytes += of->bytes;
    if (of->layer < c->n_layers) c->layers[of->layer].bytes += of->bytes;
    if (of->owner >= 0) {
        bough_census_branch *b = &c->branches[of->owner];
        b->history_bytes += of->past_bytes;
        b->own_bytes += of->bytes - of->past_bytes;
        if (of->is_going_wal) b->going_wal_bytes += of->bytes;
    } else {
        *(of->owner == OWNER_SHARED  ? &c->shared_bytes
          : of->owner == OWNER_GOES  ? &c->needless_bytes
          : of->owner == OWNER_TRASH ? &c->trash_bytes
                                     : &c->other_bytes) += of->bytes;
    }
}

static int put(scale *s, const struct stat *st, const claim *of, bough_error *err) {
    if (S_ISDIR(st->st_mode) || st->st_nlink < 2) {
        settle(s->census, of);
        return BOUGH_OK;
    }
    if (s->n * 2 >= s->slots) {
        int rc = grow(s, err);
        if (rc) return rc;
    }
    linked *l = find_linked(s->table, s->slots, st->st_dev, st->st_ino);
    if (l->ino) {
        combine(&l->claim, of);
    } else {
        *l = (linked){st->st_dev, st->st_ino, *of};
        s->n++;
    }
    return BOUGH_OK;
}

/* ---- whose a path is ---- */

/* "ID/..." below branches/. */
static void claim_of_branch(claim *out, scale *s, const char *path, const struct stat *st) {
    bough_census *c = s->census;
    char id[100];
    size_t length = strcspn(path, "/");
    (void)snprintf(id, sizeof id, "%.*s", (int)length, path);
    size_t branch = bough_census_find_branch(c, id);
    if (branch == c->n_branches) return; /* made meanwhile */
    out->owner = (long)branch;
    if (s->branch != branch) { /* the walk has come to it */
        char pgdata[BOUGH_PATH_MAX];
        s->branch = branch;
        if (bough_store_pgdata(pgdata, s->store, id, NULL) != BOUGH_OK ||
            bough_moment_read(s->moment, pgdata, NULL, NULL) != BOUGH_OK)
            s->moment->segment_bytes = 0;
    }
    const char *below = path + length;
    uint64_t start, size = (uint64_t)st->st_size;
    if (strncmp(below, "/history", 8) == 0 || strncmp(below, "/points", 7) == 0) {
        out->past_bytes = out->bytes;
        out->is_going_wal = strncmp(below, "/history/", 9) == 0 && S_ISREG(st->st_mode) &&
                            bough_wal_start(&start, below + 9, size) &&
                            start + size <= c->branches[branch].keep_redo;
    } else if (strncmp(below, "/pgdata/pg_wal/", 15) == 0 && S_ISREG(st->st_mode)) {
        out->past_bytes = bough_wal_past_bytes(s->moment, below + 15, st);
    }
}

/* "GROUP/LAYER/..." below layers/. */
static void claim_of_layer(claim *out, const bough_census *c, const char *path) {
    char dir[100];
    size_t length = strcspn(path, "/");
    if (!path[length]) return; /* the group's directory */
    length += 1 + strcspn(path + length + 1, "/");
    if (length >= sizeof dir) return;
    (void)snprintf(dir, sizeof dir, "%.*s", (int)length, path);
    out->layer = bough_census_find_layer(c, dir);
    if (out->layer == c->n_layers) return; /* made meanwhile; one that is being merged */
    const bough_census_layer *layer = &c->layers[out->layer];
    out->owner = layer->goes ? OWNER_GOES : OWNER_SHARED;
    size_t of = 0, keeps = 0; /* who would still name it */
    for (size_t i = 0; i < layer->n_namings; i++)
        if (layer->namings[i].is_below || layer->namings[i].points > layer->namings[i].going) {
            of = i;
            keeps++;
        }
    if (keeps != 1) return;
    out->owner = (long)layer->namings[of].branch;
    if (!layer->namings[of].is_below) out->past_bytes = out->bytes;
}

static void claim_of(claim *out, scale *s, const char *path, const struct stat *st) {
    *out = (claim){.owner = OWNER_OTHER,
                   .bytes = (uint64_t)st->st_blocks * 512U,
                   .layer = s->census->n_layers};
    if (strncmp(path, "/branches/", 10) == 0)
        claim_of_branch(out, s, path + 10, st);
    else if (strncmp(path, "/layers/", 8) == 0)
        claim_of_layer(out, s->census, path + 8);
    else if (strncmp(path, "/trash/", 7) == 0)
        out->owner = OWNER_TRASH;
}

static int weigh_one(void *context, const char *path, unsigned char type, bool is_after,
                     bough_error *err) {
    scale *s = context;
    struct stat st;
    claim one;
    (void)type;
    if (is_after || lstat(path, &st) != 0) return BOUGH_OK; /* gone meanwhile */
    claim_of(&one, s, path + strlen(s->store->dir), &st);
    return put(s, &st, &one, err);
}

static int walk(scale *s, bough_error *err) {
    return bough_walk(s->store->dir, true, weigh_one, s, err);
}

int bough_census_weigh(bough_census *census, const bough_store *store, bough_error *err) {
    scale s = {.census = census, .store = store, .branch = SIZE_MAX};
    s.moment = calloc(1, sizeof *s.moment);
    int rc = s.moment ? walk(&s, err) : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < s.slots; i++)
        if (s.table[i].ino) settle(census, &s.table[i].claim);
    free(s.table);
    free(s.moment);
    return rc;
}
