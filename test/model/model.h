/*
 * A model of the file calls that PostgreSQL makes: random operations on a small world of names,
 * done through the preload library in a branch and directly in a plain directory. Both must show
 * the same: return values, errno, contents, sizes, names.
 *
 *   world.c     what exists and what is open; makes up the next operation
 *   hands.c     does one operation on one side or on both, compares, looks at a killed one
 *   compute.c   a program in place of postgres: a postmaster and its workers
 *   model.c     boughd's side: seals, children, restarts, kills, faults, audits, exports
 *   faults.c    fails or kills at the nth system call of the library (test build of it)
 */
#ifndef BOUGH_TEST_MODEL_H
#define BOUGH_TEST_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_WORKERS 3
#define MODEL_SLOTS 10
#define MODEL_DIRS 8
#define MODEL_REMOVABLE 3 /* the first ones: directories of databases */
#define MODEL_PAGE 8192U
#define MODEL_BUFFER (512U * 1024U)
#define MODEL_ALL (-1)

extern const char *const model_dirs[MODEL_DIRS];

typedef struct model_name {
    int dir;
    const char *base;
    bool pages; /* layered by page; else a whole file */
    bool far;   /* may be written far away, across chunks of presence */
} model_name;
extern const model_name model_names[];
extern const int model_n_names;

/* "base/1/1000"; of a directory and of a file. */
void model_path(char *out, size_t size, const char *root, int name);
void model_dir_path(char *out, size_t size, const char *root, int dir);

typedef enum model_kind {
    OP_NONE,
    OP_OPEN,
    OP_CLOSE,
    OP_READ,
    OP_WRITE,
    OP_APPEND, /* lseek to the end, write() */
    OP_TRUNCATE,
    OP_ALLOCATE,
    OP_SYNC,
    OP_DATASYNC,
    OP_FSTAT,
    OP_SEEK,
    OP_STAT,
    OP_ACCESS,
    OP_LIST,
    OP_UNLINK,
    OP_RENAME,
    OP_TRUNCATE_PATH,
    OP_WHOLE_WRITE,
    OP_WHOLE_READ,
    OP_WHOLE_PATCH,
    OP_MKDIR,
    OP_RMDIR,
    OP_KINDS
} model_kind;
extern const char *const model_kind_names[OP_KINDS];

typedef struct model_op {
    uint64_t number;
    model_kind kind;
    int worker, slot;
    int name, other; /* of a file; `other` is where a rename goes */
    int dir;
    int flags;
    bool orphan; /* the slot's file has lost its name: the library may answer EIO */
    uint64_t at, bytes;
    int vectors;
    uint64_t fill;
} model_op;

typedef struct model_slot {
    bool open;
    bool dead;  /* an orphan across a seal; may only be closed */
    bool stale; /* not used since the last seal: what it would show if it became an orphan now is
                   not promised */
    int name, flags;
    uint32_t file;
} model_slot;

typedef struct model_world {
    uint64_t random, number;
    int owner; /* MODEL_ALL, or the one worker whose names are used */
    uint32_t next_file;
    int draining; /* directory + 1 that is being emptied */
    bool dirs[MODEL_DIRS];
    uint32_t files[64]; /* identity of the file under a name, 0 for none */
    uint64_t sizes[64];
    model_slot slots[MODEL_WORKERS][MODEL_SLOTS];
} model_world;

uint64_t model_random(uint64_t *state);
/* Below n. */
uint64_t model_below(uint64_t *state, uint64_t n);

void model_world_init(model_world *w, uint64_t seed, int owner);
/* Whether a worker of a world of its own works with this name (directory). */
bool model_owns(int owner, int name);
bool model_owns_dir(int owner, int dir);
/* The next operation; the world is then as after it. */
void model_next(model_op *op, model_world *w);
/* A seal has happened: files without a name are followed no further. */
void model_sealed(model_world *w);
/* A worker has died, or all (MODEL_ALL). */
void model_closed(model_world *w, int worker);
/* What there is now, after an operation that did not end as planned. */
void model_correct(model_world *w, int name, bool exists, uint64_t size);
void model_describe(char *out, size_t size, const model_op *op);

/* ---- hands.c ---- */
typedef struct model_hands {
    char subject[1024], plain[1024]; /* directories; no subject: only plain, and the reverse */
    int subject_fd[MODEL_SLOTS], plain_fd[MODEL_SLOTS];
    void (*between)(void); /* called by model_do() after the subject's turn; may be NULL */
    long rc;               /* what the subject returned last */
    int err;
} model_hands;

/* Whether it can change what there is. */
bool model_changes(model_kind kind);

typedef enum model_status {
    MODEL_SAME,
    MODEL_ORPHAN_LOST, /* EIO from a file that has no name any more: allowed */
    MODEL_DIFFERS
} model_status;

void model_hands_init(model_hands *h);
void model_hands_close(model_hands *h);
/* Do it on both sides and compare. */
model_status model_do(model_hands *h, const model_op *op, char *why, size_t size);
/* On one side alone; what it returned. */
long model_do_subject(model_hands *h, const model_op *op, int *err);
void model_do_plain(model_hands *h, const model_op *op);
/*
 * An operation was done on the subject alone and was killed, or failed by a fault: what it changed
 * must be as before, as after, or (of data) a mixture by 4 KiB block. The plain side is made alike.
 * `succeeded`: it said so, and it must be as after. `killed`: of a truncation, what is to vanish
 * may be zeros already; it is in the WAL.
 */
model_status model_resolve(model_hands *h, const model_op *op, bool succeeded, bool killed,
                           char *why, size_t size);
/* Whether two trees show the same; for one owner or MODEL_ALL. */
model_status model_compare(const char *a, const char *b, int owner, char *why, size_t size);
/* What every world begins with. */
void model_plain_begin(const char *root);
void model_copy_tree(const char *from, const char *to);
bool model_exists(const char *root, int name, uint64_t *size);

/* ---- messages between model.c and compute.c, one packet each ---- */
typedef enum model_verb {
    VERB_DO = 1,
    VERB_CHECK,
    VERB_KILL,  /* do it on the subject, die at the nth system call of the library */
    VERB_FAULT, /* do it on the subject, fail the nth system call */
    VERB_RESOLVE,
    VERB_RUN, /* a world of one's own: so many operations */
    VERB_QUIT
} model_verb;

typedef struct model_request {
    model_verb verb;
    model_op op;
    char plain[1024];
    long nth;
    int fault; /* errno; 0 for a short write */
    bool succeeded, killed;
    uint64_t seed, count;
    int owner;
} model_request;

typedef struct model_reply {
    model_status status;
    bool fired;
    long rc;
    int err;
    bool exists, other_exists, dir_exists;
    uint64_t size, other_size;
    uint64_t done;
    char why[2048];
} model_reply;

/* ---- faults.c, found by name: only the test build of the library has it ---- */
enum { FAULT_OFF, FAULT_KILL, FAULT_FAIL, FAULT_SHORT };
typedef void (*model_fault_arm)(int action, long nth, int err);
typedef bool (*model_fault_fired)(void);

#endif
