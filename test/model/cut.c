/* Operations that were killed, or failed, in the middle: doing one, and what it may leave. See
 * model.h. */
#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 4096U

/* ---- failing ---- */

static const model_faults *faults;
static bool has_fired;

static void disarm(void) {
    has_fired = faults->fired();
    faults->arm(FAULT_OFF, 0, 0);
}

void model_do_faulty(model_reply *r, model_hands *h, const model_request *q,
                     const model_faults *f) {
    faults = f;
    f->arm(q->fault ? FAULT_FAIL : FAULT_SHORT, q->nth, q->fault);
    if (model_changes(q->op.kind)) {
        r->rc = model_do_subject(h, &q->op, &r->err);
        disarm();
        r->fired = has_fired;
        return;
    }
    h->between = disarm;
    r->status = model_do(h, &q->op, r->why, sizeof r->why);
    h->between = NULL;
    r->fired = has_fired;
    r->rc = h->rc;
    r->err = h->err;
    bool sync = q->op.kind == OP_SYNC || q->op.kind == OP_DATASYNC;
    if (r->fired && q->fault && h->rc == -1 && h->err == q->fault) {
        r->status = MODEL_SAME;
    } else if (r->fired && q->fault && sync && q->fault != EMFILE && q->fault != EINTR) {
        /* those two are got round */
        r->status = MODEL_DIFFERS;
        (void)snprintf(r->why, sizeof r->why, "a failed fsync was not reported");
    }
}

model_op model_as_done(const model_op *op, long rc) {
    model_op done = *op;
    bool writes = op->kind == OP_WRITE || op->kind == OP_APPEND || op->kind == OP_WHOLE_WRITE ||
                  op->kind == OP_WHOLE_PATCH;
    if (writes && rc >= 0) done.bytes = (uint64_t)rc;
    return done;
}

/* ---- what is left ---- */

static void die(const char *what) {
    (void)fprintf(stderr, "model: %s: %s\n", what, strerror(errno));
    abort();
}

typedef struct image {
    bool exists;
    uint64_t size;
    char *data;
} image;

static image image_of(const char *root, int name) {
    char path[1200];
    image i = {0};
    i.exists = model_exists(root, name, &i.size);
    if (!i.exists) return i;
    model_path(path, sizeof path, root, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    i.data = malloc(i.size + 1);
    if (fd < 0 || !i.data) die(path);
    for (uint64_t at = 0; at < i.size;) {
        ssize_t n = pread(fd, i.data + at, i.size - at, (off_t)at);
        if (n <= 0) die(path);
        at += (uint64_t)n;
    }
    close(fd);
    return i;
}

static bool same_image(const image *a, const image *b) {
    return a->exists == b->exists && a->size == b->size &&
           (!a->size || memcmp(a->data, b->data, a->size) == 0);
}

/* Whether [at, at+n) of `now` is that of `ref`; past the end there are zeros. */
static bool same_part(const image *now, const image *ref, uint64_t at, uint64_t n) {
    for (uint64_t i = at; i < at + n; i++)
        if (now->data[i] != (i < ref->size ? ref->data[i] : 0)) return false;
    return true;
}

/* Data: by block, as before or as after; the size likewise, and between where it grows. */
static bool is_mixture(const model_op *op, const image *now, const image *before,
                       const image *after, bool killed) {
    static const image nothing = {.exists = true};
    if (!now->exists || !before->exists || !after->exists) return false;
    uint64_t low = before->size < after->size ? before->size : after->size;
    uint64_t high = before->size > after->size ? before->size : after->size;
    bool grows = op->kind == OP_WRITE || op->kind == OP_APPEND;
    if (now->size < low || now->size > high) return false;
    if (!grows && now->size != low && now->size != high) return false;
    bool cuts =
        killed && (op->kind == OP_TRUNCATE || op->kind == OP_TRUNCATE_PATH || op->kind == OP_OPEN);
    for (uint64_t at = 0; at < now->size; at += BLOCK) {
        uint64_t n = now->size - at < BLOCK ? now->size - at : BLOCK;
        if (!same_part(now, before, at, n) && !same_part(now, after, at, n) &&
            !(cuts && at + n > low &&
              same_part(now, &nothing, at > low ? at : low, at > low ? n : at + n - low)))
            return false;
    }
    return true;
}

/* Which of the allowed states is it? Else NULL. */
static const char *state_of(const model_op *op, const image now[2], const image before[2],
                            const image after[2], bool succeeded, bool killed) {
    if (same_image(&now[0], &after[0]) && same_image(&now[1], &after[1])) return "after";
    if (succeeded) return NULL;
    if (same_image(&now[0], &before[0]) && same_image(&now[1], &before[1])) return "before";
    /* the new name is right, the old one may remain, or show what is below it */
    if (op->kind == OP_RENAME) return same_image(&now[1], &after[1]) ? "both" : NULL;
    if (op->kind == OP_WHOLE_WRITE) { /* made or emptied, not written yet, or in part */
        uint64_t n = now[0].size;
        return now[0].exists && n <= op->bytes &&
                       (n == 0 || memcmp(now[0].data, after[0].data, n) == 0)
                   ? "part"
                   : NULL;
    }
    bool data = op->kind == OP_WRITE || op->kind == OP_APPEND || op->kind == OP_TRUNCATE ||
                op->kind == OP_ALLOCATE || op->kind == OP_TRUNCATE_PATH ||
                op->kind == OP_WHOLE_PATCH || op->kind == OP_OPEN;
    return data && is_mixture(op, &now[0], &before[0], &after[0], killed) ? "mixture" : NULL;
}

void model_resolve(model_reply *r, model_hands *h, const model_request *q) {
    const model_op *op = &q->op;
    bool succeeded = q->succeeded, killed = q->killed;
    image now[2], before[2], after[2];
    bool of_dir = op->kind == OP_MKDIR || op->kind == OP_RMDIR || op->kind == OP_LIST;
    int names[2] = {op->name, op->kind == OP_RENAME ? op->other : op->name};
    bool dir_before = model_dir_exists(h->plain, op->dir), dir_now = model_dir_exists(".", op->dir);
    for (int i = 0; i < 2; i++) before[i] = image_of(h->plain, names[i]);
    for (int i = 0; i < 2; i++) now[i] = image_of(".", names[i]);
    model_redo_plain(h, op);
    for (int i = 0; i < 2; i++) after[i] = image_of(h->plain, names[i]);
    bool dir_after = model_dir_exists(h->plain, op->dir);
    const char *state = NULL;
    if (!of_dir)
        state = state_of(op, now, before, after, succeeded, killed);
    else if (dir_now == dir_after || (!succeeded && dir_now == dir_before))
        state = "directory";
    for (int i = 0; i < 2 && !of_dir; i++) model_copy_name(".", h->plain, names[i]);
    if (of_dir && dir_now != dir_after) {
        char path[1200];
        model_dir_path(path, sizeof path, h->plain, op->dir);
        if ((dir_now ? mkdir(path, 0700) : rmdir(path)) != 0) die(path);
    }
    if (op->kind == OP_OPEN && h->subject_fd[op->slot] >= 0) close(h->subject_fd[op->slot]);
    if (op->kind == OP_OPEN) h->subject_fd[op->slot] = -1;
    uint64_t same = 0, n = now[0].size < after[0].size ? now[0].size : after[0].size;
    while (same < n && now[0].data[same] == after[0].data[same]) same++;
    if (!state)
        (void)snprintf(r->why, sizeof r->why,
                       "neither as before nor as after (said %s): now %d %llu, before %d %llu, "
                       "after %d %llu; directory %d, %d, %d; unlike after from %llu on",
                       succeeded ? "done" : "failed", now[0].exists,
                       (unsigned long long)now[0].size, before[0].exists,
                       (unsigned long long)before[0].size, after[0].exists,
                       (unsigned long long)after[0].size, dir_now, dir_before, dir_after,
                       (unsigned long long)same);
    for (int i = 0; i < 2; i++) {
        free(now[i].data);
        free(before[i].data);
        free(after[i].data);
    }
    r->status = state ? MODEL_SAME : MODEL_DIFFERS;
    r->exists = model_exists(h->plain, op->name, &r->size);
    r->other_exists = model_exists(h->plain, op->other, &r->other_size);
    r->dir_exists = model_dir_exists(".", op->dir);
}
