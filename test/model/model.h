/*
 * A model of the file calls that PostgreSQL makes: random operations on a small world of names,
 * done through the preload library in a branch and directly in a plain directory. Both must show
 * the same: return values, errno, contents, sizes, names.
 *
 *   source.c    where choices come from: a seed, or the bytes of a fuzzer's input
 *   world.c     what exists and what is open; makes up the next operation
 *   hands.c     does one operation on one side or on both, compares
 *   cut.c       operations that were killed, or failed: what they may leave
 *   compute.c   a program in place of postgres: a postmaster and its workers
 *   side.c      boughd's side, as far as all have it: the first cluster, merges, exports
 *   model.c     the rest of it, of a seed: seals, children, restarts, kills, faults, audits
 *   faults.c    fails or kills at the nth system call of the library (test build of it)
 *   inside.c    processes of a compute within the one that libFuzzer watches, for
 *               test/fuzz/fuzz_model.c, which is model.c and compute.c of an input's bytes
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
#define MODEL_SHARED 100 /* files of --shared */

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

/* What the choices follow from: a seed; or an input, which ends. */
typedef struct model_source {
    uint64_t random;
    const uint8_t *at, *end; /* NULL: a seed */
    bool is_out;             /* more was asked for than there is */
} model_source;

typedef struct model_world {
    model_source source;
    uint64_t number;
    int owner; /* MODEL_ALL, or the one worker whose names are used */
    uint32_t next_file;
    int recent;   /* of an input: the name that was chosen last */
    int draining; /* directory + 1 that is being emptied */
    bool dirs[MODEL_DIRS];
    uint32_t files[64]; /* identity of the file under a name, 0 for none */
    uint64_t sizes[64];
    model_slot slots[MODEL_WORKERS][MODEL_SLOTS];
} model_world;

/* ---- source.c ---- */
model_source model_of_seed(uint64_t seed);
model_source model_of_bytes(const uint8_t *data, size_t size);
bool model_is_at_end(const model_source *s);
/* Any 64 bits; of an input the lowest 8 are its own, the others tell one from the next. */
uint64_t model_random(model_source *s);
/* Below n; 0 where the input has ended. Of an input it takes one byte, or as many as n needs. */
uint64_t model_below(model_source *s, uint64_t n);

/* ---- world.c ---- */
void model_world_init(model_world *w, model_source source, int owner);
/* Whether a worker of a world of its own works with this name (directory). */
bool model_owns(int owner, int name);
bool model_owns_dir(int owner, int dir);
/* The next operation; the world is then as after it. False: the input has ended. */
bool model_next(model_op *op, model_world *w);
/* A seal has happened: files without a name are followed no further. */
void model_sealed(model_world *w);
/* A worker has died, or all (MODEL_ALL). */
void model_closed(model_world *w, int worker);
/* Whether it can be killed or fail in the middle, and be looked at afterwards. */
bool model_can_be_cut(const model_op *op);
/* What there is now, after an operation that did not end as planned, as model_resolve() found it.
 */
struct model_reply;
void model_resolved(model_world *w, const model_op *op, const struct model_reply *found);
/* The world is as this plain directory; nothing is open. */
void model_learn(model_world *w, const char *plain);
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
/* The same by name, whoever has what open. */
void model_redo_plain(model_hands *h, const model_op *op);
/* Whether a name shows the same in two trees. */
model_status model_compare_name(const char *a, const char *b, int name, char *why, size_t size);
/* Whether two trees show the same; for one owner or MODEL_ALL. */
model_status model_compare(const char *a, const char *b, int owner, char *why, size_t size);
/* What every world begins with. */
void model_plain_begin(const char *root);
/* One name of it, or all. */
void model_plain_name(const char *root, int name);
void model_plain_begin(const char *root);
/* Make one name of a tree what it is in another; holes stay holes. */
void model_copy_name(const char *from, const char *to, int name);
void model_copy_tree(const char *from, const char *to);
bool model_exists(const char *root, int name, uint64_t *size);
bool model_dir_exists(const char *root, int dir);

/* ---- messages between model.c and compute.c, one packet each ---- */
typedef enum model_verb {
    VERB_DO = 1,
    VERB_CHECK,
    VERB_KILL,  /* do it on the subject, die at the nth system call of the library */
    VERB_FAULT, /* do it on the subject, fail the nth system call */
    VERB_RESOLVE,
    VERB_RUN,    /* a world of one's own: so many operations */
    VERB_SHARE,  /* so many files that all workers make and write at once, each its page of them */
    VERB_SHARED, /* they must have all pages; some are unlinked */
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
enum { FAULT_OFF, FAULT_KILL, FAULT_FAIL, FAULT_SHORT, FAULT_PASS };
typedef void (*model_fault_arm)(int action, long nth, int err);
typedef bool (*model_fault_fired)(void);
typedef struct model_faults {
    model_fault_arm arm;
    model_fault_fired fired;
} model_faults;

/* ---- cut.c ---- */
/*
 * Do an operation (q->op) while the nth system call of the library fails (VERB_FAULT). Where it can
 * change something it is done on the subject alone, and model_resolve() is to follow.
 */
void model_do_faulty(model_reply *r, model_hands *h, const model_request *q, const model_faults *f);
/* The operation as far as it was done, by what it returned: a write may be less. */
model_op model_as_done(const model_op *op, long rc);
/*
 * An operation was done on the subject alone and was killed, or failed by a fault: what it changed
 * must be as before, as after, or (of data) a mixture by 4 KiB block. The plain side is made alike.
 * q->succeeded: it said so, and it must be as after. q->killed: of a truncation, what is to vanish
 * may be zeros already; it is in the WAL.
 */
void model_resolve(model_reply *r, model_hands *h, const model_request *q);

/* ---- side.c ---- */
struct bough_store;
struct bough_shm;
struct bough_error;
/* Say what is wrong, and end. Each program has its own. */
_Noreturn void model_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void model_must(int rc, const struct bough_error *err, const char *what);
/* DIR/cluster: one that has been stopped cleanly, with what every world begins with. */
void model_make_cluster(const char *dir);
/* What the housekeeper of a server does, for one branch: how many layers became one, 0 for none. */
size_t model_merge(struct bough_store *store, const char *branch, struct bough_shm *live);
/* The export of a branch must be as a plain directory; it is made in DIR/export. */
void model_compare_export(struct bough_store *store, const char *dir, const char *branch,
                          const char *plain);

#endif
