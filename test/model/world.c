/* The world of names, and what happens in it next. See model.h. */
#include "model.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

const char *const model_dirs[MODEL_DIRS] = {"base/1",       "base/5",
                                            "base/16384",   "global",
                                            "pg_xact",      "pg_multixact/offsets",
                                            "pg_commit_ts", "pg_multixact/members"};

#define DATABASE(d)                                                                                \
    {d, "1000", true, false}, {d, "1000_fsm", true, false}, {d, "1000_vm", true, false},           \
        {d, "1000.1", true, false}, {d, "1001", true, false}, {d, "t3_1002", true, false},         \
        {d, "1003_init", true, false}, {d, "1004", true, d == 0}, {d, "PG_VERSION", false, false}, \
        {d, "pg_filenode.map", false, false}, {                                                    \
        d, "pg_internal.init", false, false                                                        \
    }
const model_name model_names[] = {DATABASE(0),
                                  DATABASE(1),
                                  DATABASE(2),
                                  {3, "1262", true, false},
                                  {3, "1260", true, false},
                                  {3, "1260_fsm", true, false},
                                  {3, "pg_filenode.map", false, false},
                                  {3, "pg_internal.init", false, false},
                                  {4, "0000", true, false},
                                  {4, "0001", true, false},
                                  {4, "0002", true, false},
                                  {5, "0000", true, false},
                                  {5, "0001", true, false},
                                  {7, "0000", true, false},
                                  {7, "00AF", true, false},
                                  {6, "0000", true, false}};
const int model_n_names = (int)(sizeof model_names / sizeof model_names[0]);
_Static_assert(sizeof model_names / sizeof model_names[0] <= 64, "worlds have room for 64 names");

const char *const model_kind_names[OP_KINDS] = {
    "none",        "open",       "close",       "read",      "write",  "append",
    "truncate",    "allocate",   "fsync",       "fdatasync", "fstat",  "seek",
    "stat",        "access",     "list",        "unlink",    "rename", "truncate-path",
    "whole-write", "whole-read", "whole-patch", "mkdir",     "rmdir"};

static const struct {
    model_kind kind;
    unsigned weight;
} weights[] = {{OP_OPEN, 16},         {OP_CLOSE, 6},       {OP_READ, 14},      {OP_WRITE, 22},
               {OP_APPEND, 5},        {OP_TRUNCATE, 6},    {OP_ALLOCATE, 4},   {OP_SYNC, 1},
               {OP_DATASYNC, 1},      {OP_FSTAT, 2},       {OP_SEEK, 2},       {OP_STAT, 3},
               {OP_ACCESS, 2},        {OP_LIST, 2},        {OP_UNLINK, 4},     {OP_RENAME, 2},
               {OP_TRUNCATE_PATH, 1}, {OP_WHOLE_WRITE, 2}, {OP_WHOLE_READ, 3}, {OP_WHOLE_PATCH, 2},
               {OP_MKDIR, 2},         {OP_RMDIR, 1}};

void model_path(char *out, size_t size, const char *root, int name) {
    (void)snprintf(out, size, "%s/%s/%s", root, model_dirs[model_names[name].dir],
                   model_names[name].base);
}

void model_dir_path(char *out, size_t size, const char *root, int dir) {
    (void)snprintf(out, size, "%s/%s", root, model_dirs[dir]);
}

bool model_owns_dir(int owner, int dir) {
    return owner == MODEL_ALL || dir >= MODEL_REMOVABLE || dir == owner;
}

bool model_owns(int owner, int name) {
    int dir = model_names[name].dir;
    if (owner == MODEL_ALL) return true;
    return dir < MODEL_REMOVABLE ? dir == owner : name % MODEL_WORKERS == owner;
}

/* Which names there are at the beginning: see model_plain_begin(). */
static bool begins(int name) {
    int dir = model_names[name].dir;
    return dir == 0 || dir >= MODEL_REMOVABLE ? name % 3 != 1 : false;
}

void model_world_init(model_world *w, model_source source, int owner) {
    memset(w, 0, sizeof *w);
    w->source = source;
    w->owner = owner;
    for (int d = 0; d < MODEL_DIRS; d++) w->dirs[d] = d == 0 || d >= MODEL_REMOVABLE;
    for (int n = 0; n < model_n_names; n++)
        if (begins(n)) {
            w->files[n] = ++w->next_file;
            w->sizes[n] = model_names[n].pages ? (uint64_t)(n % 7 + 1) * MODEL_PAGE : 100;
        }
}

static bool dir_is_empty(const model_world *w, int dir) {
    for (int n = 0; n < model_n_names; n++)
        if (model_names[n].dir == dir && w->files[n]) return false;
    return true;
}

static bool is_open(const model_world *w, int name) {
    for (int i = 0; i < MODEL_WORKERS; i++)
        for (int s = 0; s < MODEL_SLOTS; s++) {
            const model_slot *slot = &w->slots[i][s];
            if (slot->open && slot->name == name && slot->file == w->files[name]) return true;
        }
    return false;
}

static bool suits(const model_world *w, int name, bool whole_only) {
    return model_owns(w->owner, name) && !(whole_only && model_names[name].pages);
}

/* Of an input: one in four is that of the operation before, so that they meet. */
static int name_of_input(model_world *w, bool whole_only) {
    int n = (int)model_below(&w->source, 64);
    if (n >= model_n_names) n = w->recent;
    while (!suits(w, n, whole_only)) n = (n + 1) % model_n_names;
    w->recent = n;
    return n;
}

static int any_name(model_world *w, bool whole_only) {
    model_source *r = &w->source;
    if (r->at) return name_of_input(w, whole_only);
    for (;;) {
        int n = (int)model_below(r, (uint64_t)model_n_names);
        if (suits(w, n, whole_only)) return n;
    }
}

static bool exists(const model_world *w, int name) {
    return w->dirs[model_names[name].dir] && w->files[name];
}

/* A place for a read or write, around what the file has. */
static void any_range(model_op *op, model_world *w, uint64_t size, bool far) {
    model_source *r = &w->source;
    if (far && model_below(r, 8) == 0) size = UINT64_C(32) << 20;
    uint64_t pages = size / MODEL_PAGE + 1;
    op->at = model_below(r, pages + (model_below(r, 10) == 0 ? 6 : 1)) * MODEL_PAGE;
    if (far && size >= UINT64_C(32) << 20) op->at = size - 4 * MODEL_PAGE;
    op->bytes = MODEL_PAGE;
    op->vectors = 1;
    uint64_t how = model_below(r, 10);
    if (how < 3) { /* not in pages */
        op->at += model_below(r, MODEL_PAGE);
        op->bytes = 1 + model_below(r, 3 * MODEL_PAGE);
        if (how == 0) op->vectors = 1 + (int)model_below(r, 3);
    } else if (how < 6) {
        op->vectors = 1 + (int)model_below(r, 8);
        op->bytes = MODEL_PAGE * (uint64_t)op->vectors;
    }
}

static uint64_t any_size(model_world *w, uint64_t size) {
    model_source *r = &w->source;
    switch (model_below(r, 6)) {
    case 0:
        return 0;
    case 1:
        return model_below(r, size + 1);
    case 2:
        return (size / MODEL_PAGE + model_below(r, 4)) * MODEL_PAGE;
    default:
        return model_below(r, size / MODEL_PAGE + 1) * MODEL_PAGE;
    }
}

static bool make_open(model_op *op, model_world *w) {
    int s = 0;
    model_slot *slots = w->slots[op->worker];
    while (s < MODEL_SLOTS && slots[s].open) s++;
    if (s == MODEL_SLOTS) return false;
    op->slot = s;
    op->name = any_name(w, false);
    model_source *r = &w->source;
    op->flags = O_RDWR;
    if (model_names[op->name].pages && model_below(r, 8) == 0)
        op->flags = model_below(r, 6) == 0 ? O_WRONLY : O_RDONLY;
    if (model_below(r, 2) == 0) op->flags |= O_CREAT;
    if ((op->flags & O_CREAT) && model_below(r, 4) == 0) op->flags |= O_EXCL;
    if ((op->flags & O_ACCMODE) != O_RDONLY && w->owner == MODEL_ALL && model_below(r, 20) == 0)
        op->flags |= O_TRUNC;
    bool there = exists(w, op->name), dir = w->dirs[model_names[op->name].dir];
    if (!dir || (there ? (op->flags & O_EXCL) != 0 : !(op->flags & O_CREAT))) return true;
    if (!there) {
        w->files[op->name] = ++w->next_file;
        w->sizes[op->name] = 0;
    }
    if (op->flags & O_TRUNC) w->sizes[op->name] = 0;
    slots[s] = (model_slot){
        .open = true, .name = op->name, .flags = op->flags, .file = w->files[op->name]};
    return true;
}

/* An operation on an open file. */
static bool make_slot(model_op *op, model_world *w) {
    op->slot = (int)model_below(&w->source, MODEL_SLOTS);
    if (w->source.at) /* of an input: the next that is open */
        for (int i = 0; i < MODEL_SLOTS && !w->slots[op->worker][op->slot].open; i++)
            op->slot = (op->slot + 1) % MODEL_SLOTS;
    model_slot *slot = &w->slots[op->worker][op->slot];
    if (!slot->open) return false;
    op->name = w->recent = slot->name;
    op->orphan = w->files[slot->name] != slot->file;
    if (op->kind == OP_CLOSE || slot->dead || (op->orphan && slot->stale)) {
        op->kind = OP_CLOSE;
        slot->open = false;
        return true;
    }
    bool changes = op->kind == OP_WRITE || op->kind == OP_APPEND || op->kind == OP_TRUNCATE ||
                   op->kind == OP_ALLOCATE;
    bool whole = !model_names[op->name].pages;
    if (op->orphan && changes) return false;
    /* a whole file's descriptor follows its name when it writes, not before */
    if (whole && op->kind != OP_WRITE) return false;
    /* what is refused at once does not look at the file */
    int mode = slot->flags & O_ACCMODE;
    if (!(changes && mode == O_RDONLY) && !(op->kind == OP_READ && mode == O_WRONLY))
        slot->stale = false;
    if (op->kind == OP_ALLOCATE && (slot->flags & O_ACCMODE) == O_RDONLY) return false;
    uint64_t size = w->sizes[op->name];
    if (op->kind == OP_TRUNCATE) {
        op->bytes = any_size(w, size);
    } else {
        any_range(op, w, size, model_names[op->name].far);
        if (whole) {
            op->at = model_below(&w->source, 200);
            op->bytes = 1 + model_below(&w->source, 200);
            op->vectors = 1;
        }
    }
    if (op->kind == OP_SEEK) op->at = model_below(&w->source, 3);
    if (!changes || (slot->flags & O_ACCMODE) == O_RDONLY) return true;
    if (op->kind == OP_APPEND) op->at = size;
    uint64_t end = op->kind == OP_TRUNCATE ? op->bytes : op->at + op->bytes;
    if (op->kind == OP_TRUNCATE || end > size) w->sizes[op->name] = end;
    return true;
}

/* First close what is open of a name that is to vanish, where no orphans are wanted. */
static bool make_close_of(model_op *op, model_world *w, int name) {
    if (w->owner == MODEL_ALL) return false;
    for (int s = 0; s < MODEL_SLOTS; s++) {
        model_slot *slot = &w->slots[op->worker][s];
        if (!slot->open || slot->name != name) continue;
        op->kind = OP_CLOSE;
        op->slot = s;
        op->name = name;
        slot->open = false;
        return true;
    }
    return false;
}

static bool make_unlink(model_op *op, model_world *w, int name) {
    if (make_close_of(op, w, name)) return true;
    op->kind = OP_UNLINK;
    op->name = name;
    if (w->dirs[model_names[name].dir]) w->files[name] = 0;
    return true;
}

static bool make_rename(model_op *op, model_world *w) {
    op->name = any_name(w, false);
    op->other = any_name(w, false);
    if (model_below(&w->source, 4) && model_names[op->name].pages != model_names[op->other].pages)
        return false;
    if (is_open(w, op->name)) return false;
    if (make_close_of(op, w, op->other)) return true;
    if (!exists(w, op->name) || !w->dirs[model_names[op->other].dir] || op->name == op->other)
        return true;
    w->files[op->other] = ++w->next_file;
    w->sizes[op->other] = w->sizes[op->name];
    w->files[op->name] = 0;
    return true;
}

static bool make_whole(model_op *op, model_world *w) {
    op->name = any_name(w, true);
    op->bytes = 1 + model_below(&w->source, 9000);
    op->at = model_below(&w->source, 300);
    if (op->kind == OP_WHOLE_PATCH) op->bytes = 1 + model_below(&w->source, 300);
    if (op->kind == OP_WHOLE_WRITE && w->dirs[model_names[op->name].dir]) {
        if (!w->files[op->name]) w->files[op->name] = ++w->next_file;
        w->sizes[op->name] = op->bytes;
    }
    return true;
}

static bool make_dir(model_op *op, model_world *w) {
    op->dir = (int)model_below(&w->source, MODEL_DIRS);
    /* others may be at work in the directories that all share */
    if (op->kind == OP_LIST) return w->owner == MODEL_ALL || op->dir == w->owner;
    op->dir %= MODEL_REMOVABLE;
    if (!model_owns_dir(w->owner, op->dir)) return false;
    if (op->kind == OP_MKDIR) {
        w->dirs[op->dir] = true;
        return true;
    }
    if (w->dirs[op->dir] && dir_is_empty(w, op->dir)) {
        w->dirs[op->dir] = false;
    } else if (w->dirs[op->dir] && model_below(&w->source, 2)) {
        w->draining = op->dir + 1; /* and then it goes */
    }
    return true;
}

static bool make(model_op *op, model_world *w) {
    switch (op->kind) {
    case OP_OPEN:
        return make_open(op, w);
    case OP_UNLINK:
        return make_unlink(op, w, any_name(w, false));
    case OP_RENAME:
        return make_rename(op, w);
    case OP_WHOLE_WRITE:
        if (w->owner != MODEL_ALL) return false; /* several calls: no one moment */
        return make_whole(op, w);
    case OP_WHOLE_READ:
    case OP_WHOLE_PATCH:
        return make_whole(op, w);
    case OP_LIST:
    case OP_MKDIR:
    case OP_RMDIR:
        return make_dir(op, w);
    case OP_STAT:
    case OP_ACCESS:
        op->name = any_name(w, false);
        return true;
    case OP_TRUNCATE_PATH:
        op->name = any_name(w, false);
        if (!model_names[op->name].pages) return false;
        op->bytes = any_size(w, w->sizes[op->name]);
        if (exists(w, op->name)) w->sizes[op->name] = op->bytes;
        return true;
    case OP_NONE:
    case OP_KINDS:
        return false;
    case OP_CLOSE:
    case OP_READ:
    case OP_WRITE:
    case OP_APPEND:
    case OP_TRUNCATE:
    case OP_ALLOCATE:
    case OP_SYNC:
    case OP_DATASYNC:
    case OP_FSTAT:
    case OP_SEEK:
    default:
        return make_slot(op, w);
    }
}

/* Of a directory that is being emptied, the next step. */
static bool make_draining(model_op *op, model_world *w) {
    int dir = w->draining - 1;
    if (!w->draining) return false;
    for (int n = 0; n < model_n_names; n++)
        if (model_names[n].dir == dir && w->files[n]) return make_unlink(op, w, n);
    w->draining = 0;
    op->kind = OP_RMDIR;
    op->dir = dir;
    w->dirs[dir] = false;
    return true;
}

bool model_next(model_op *op, model_world *w) {
    unsigned total = 0;
    model_source *r = &w->source;
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) total += weights[i].weight;
    for (;;) {
        if (model_is_at_end(r)) return false;
        memset(op, 0, sizeof *op);
        op->number = w->number + 1;
        op->worker = w->owner == MODEL_ALL ? (int)model_below(r, MODEL_WORKERS) : w->owner;
        op->fill = model_random(r);
        if (model_below(r, 2) == 0 && make_draining(op, w)) break;
        unsigned at = (unsigned)model_below(r, total);
        for (size_t i = 0; op->kind == OP_NONE; i++) {
            if (at < weights[i].weight) op->kind = weights[i].kind;
            at -= weights[i].weight;
        }
        if (make(op, w)) break;
    }
    w->number++;
    return true;
}

void model_sealed(model_world *w) {
    for (int i = 0; i < MODEL_WORKERS; i++)
        for (int s = 0; s < MODEL_SLOTS; s++) {
            model_slot *slot = &w->slots[i][s];
            slot->stale = true;
            if (slot->open && slot->file != w->files[slot->name]) slot->dead = true;
        }
}

void model_closed(model_world *w, int worker) {
    for (int i = 0; i < MODEL_WORKERS; i++)
        if (worker == MODEL_ALL || worker == i) memset(w->slots[i], 0, sizeof w->slots[i]);
}

bool model_can_be_cut(const model_op *op) {
    if (op->orphan || op->kind == OP_CLOSE) return false;
    /* others that have what vanishes open would hold on to another file on the plain side */
    return op->kind != OP_RENAME || op->name != op->other;
}

static void correct(model_world *w, int name, bool there, uint64_t size) {
    if (!there)
        w->files[name] = 0;
    else if (!w->files[name])
        w->files[name] = ++w->next_file;
    w->sizes[name] = size;
}

void model_resolved(model_world *w, const model_op *op, const model_reply *found) {
    if (op->kind == OP_MKDIR || op->kind == OP_RMDIR) {
        w->dirs[op->dir] = found->dir_exists;
    } else {
        correct(w, op->name, found->exists, found->size);
        if (op->kind == OP_RENAME) correct(w, op->other, found->other_exists, found->other_size);
    }
    /* who has open what may or may not have lost its name, has nothing to compare with */
    for (int i = 0; i < MODEL_WORKERS * MODEL_SLOTS; i++) {
        model_slot *slot = &w->slots[i / MODEL_SLOTS][i % MODEL_SLOTS];
        bool named = slot->name == op->name || (op->kind == OP_RENAME && slot->name == op->other);
        if (named && (op->kind == OP_UNLINK || op->kind == OP_RENAME)) slot->dead = true;
    }
    if (op->kind == OP_OPEN) w->slots[op->worker][op->slot].open = false;
    w->draining = 0;
}

void model_learn(model_world *w, const char *plain) {
    for (int d = 0; d < MODEL_DIRS; d++) w->dirs[d] = model_dir_exists(plain, d);
    for (int n = 0; n < model_n_names; n++) {
        uint64_t size;
        bool there = model_exists(plain, n, &size);
        correct(w, n, there, size);
    }
    w->draining = 0;
    model_closed(w, MODEL_ALL);
}

void model_describe(char *out, size_t size, const model_op *op) {
    char name[64] = "", other[64] = "";
    if (op->kind == OP_LIST || op->kind == OP_MKDIR || op->kind == OP_RMDIR)
        (void)snprintf(name, sizeof name, "%s", model_dirs[op->dir]);
    else
        model_path(name, sizeof name, "", op->name);
    if (op->kind == OP_RENAME) model_path(other, sizeof other, "", op->other);
    (void)snprintf(out, size,
                   "operation %llu, %s of worker %d: %s %s slot %d flags %#x at %llu bytes %llu "
                   "vectors %d%s",
                   (unsigned long long)op->number, model_kind_names[op->kind], op->worker, name,
                   other, op->slot, (unsigned)op->flags, (unsigned long long)op->at,
                   (unsigned long long)op->bytes, op->vectors, op->orphan ? " orphan" : "");
}
