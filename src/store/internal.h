/* Shared by the files of src/store; nobody else includes it. */
#ifndef BOUGH_STORE_INTERNAL_H
#define BOUGH_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "preload/stack.h"
#include "preload/table.h"
#include "store/store.h"
#include "util/error.h"
#include "util/fs.h"

#define BOUGH_STORE_FORMAT 1

enum { BOUGH_LAYER_TURNS = 16 };

struct bough_store {
    char dir[1024];
    int lock_fd;
    atomic_bool has_refused;                  /* a layer may be refused */
    pthread_mutex_t turns[BOUGH_LAYER_TURNS]; /* bough_layer_turn() */
    pthread_mutex_t
        places; /* held while branches change names or places, and while references are counted */
    pthread_mutex_t mutex; /* guards what follows */
    char **verified;       /* layers whose index has been checked in full by this process */
    size_t n_verified;
    char **refused; /* layers whose file "refused" could not be written */
    size_t n_refused;
};

struct bough_shm {
    bough_header *header;
};

/* The layers under a head, newest first. */
typedef struct bough_layers {
    char (*dir)[100]; /* "GROUP/LAYER" */
    size_t n;
} bough_layers;

extern const char *const bough_layered_dirs[BOUGH_LAYERED_COUNT];

/* ---- store.c ---- */
/* The directory of a branch and what follows its name: "/pending", ".new~". */
int bough_branch_path(char out[BOUGH_PATH_MAX], const bough_store *store, const char *branch,
                      const char *suffix, bough_error *err);

/* ---- layers.c ---- */
/* Whether a call failed since the disk could not write what it had taken. */
bool bough_is_of_disk(const bough_error *err);
int bough_layers_read(bough_layers *layers, const bough_store *store, const char *branch,
                      bough_error *err);
/* The same from another file of the branch's directory than "stack". */
int bough_stack_read(bough_layers *layers, const bough_store *store, const char *branch,
                     const char *name, bough_error *err);
/* Write STORE/branches/BRANCH/NAME, durable. `top` may be NULL: a layer to put first. */
int bough_layers_write(const bough_store *store, const char *branch, const char *name,
                       const char *top, const bough_layers *below, bough_error *err);
/* A list of layers in any file: load, and write it durably. */
int bough_layers_load(bough_layers *layers, const char *path, bough_error *err);
int bough_layers_save(const char *path, const char *top, const bough_layers *below,
                      bough_error *err);
void bough_layers_free(bough_layers *layers);
bool bough_layer_is_durable(const bough_store *store, const char *dir);
int bough_layer_set_durable(const bough_store *store, const char *dir, bough_error *err);
/* Make a layer durable. Where the disk refuses that, it is refused until it has been mended
 * (bough_store_mend()), or the machine is started anew. */
int bough_layer_sync(bough_store *store, const char *dir, bough_error *err);
/* One at a time makes a layer durable: of two, only one would be told that the disk refused it. */
pthread_mutex_t *bough_layer_turn(bough_store *store, const char *dir);
/* Note that an fsync of the layer has failed, in its file "refused", or only for this process where
 * the disk does not take that; and that it has been mended. */
void bough_layer_set_refused(bough_store *store, const char *dir);
int bough_layer_clear_refused(bough_store *store, const char *dir, bough_error *err);
/* Whether an fsync of the layer has failed in this boot: nobody knows what the disk has of it. */
bool bough_layer_is_refused(const bough_store *store, const char *dir);
/* Note in which boot a layer was sealed. */
int bough_layer_set_boot(const bough_store *store, const char *dir, bough_error *err);
/* Whether the machine was started anew before the layer was made durable: blocks that its index
 * names may be lost. */
bool bough_layer_outlived_boot(const bough_store *store, const char *dir);
int bough_layer_verify(bough_store *store, const char *dir, bough_error *err);
int bough_layer_bytes(uint64_t *bytes, const bough_store *store, const char *dir, bough_error *err);
/* The names in a directory but those that begin with a dot; NULL-terminated,
 * bough_store_free_list(). BOUGH_E_NOTFOUND where it is not there (any more). */
int bough_list_names(char ***names, const char *path, bough_error *err);
/* Every branch directory of the store; NULL-terminated, bough_store_free_list(). */
int bough_branch_dirs(char ***names, const bough_store *store, bough_error *err);
bool bough_store_id_is_valid(const char *id);
/* The highest number that a layer of the group had which is gone, 0: none is; and make it at least
 * that of a layer that is about to go. A number is never used again. */
int bough_layer_last(unsigned *number, const bough_store *store, const char *group,
                     bough_error *err);
int bough_layer_retire(const bough_store *store, const char *dir, bough_error *err);

/* Every group (the branch that its layers were sealed from), and every layer as GROUP/NUMBER: those
 * that were there all the while are called for. */
int bough_layer_groups(char ***groups, const bough_store *store, bough_error *err);
typedef int (*bough_layer_visitor)(void *context, const char *dir, bough_error *err);
int bough_layers_each(const bough_store *store, bough_layer_visitor call, void *context,
                      bough_error *err);

/* ---- stacks.c ---- */
/* `of` is what bough_layers_read() takes: a branch, or BRANCH/points/NAME. */
typedef int (*bough_stack_visitor)(void *context, const char *of, const bough_layers *layers,
                                   bough_error *err);
/* Call for every stack of a branch, and for every stack there is. */
int bough_stacks_of(const bough_store *store, const char *branch, bough_stack_visitor call,
                    void *context, bough_error *err);
int bough_stacks_each(const bough_store *store, bough_stack_visitor call, void *context,
                      bough_error *err);
/* Where stacks part, as it was at one time. */
typedef struct bough_survey bough_survey;
int bough_survey_new(bough_survey **survey, const bough_store *store, bough_error *err);
void bough_survey_free(bough_survey *survey);
/* Whether some stack that has layer `i` of this one does not have the layer above it there. */
bool bough_survey_parts(const bough_survey *survey, const bough_layers *stack, size_t i);

/* ---- merged.c ---- */
/* In a layer's directory: the layers that it stands for, where it was made of several. */
#define BOUGH_MERGED_FILE "merged"
/* Merged layers whose parts are still there, so that stacks may name those. */
typedef struct bough_merged {
    struct bough_merged_layer {
        char dir[100];
        bough_layers parts; /* layers that are not merged, newest first */
    } * layers;
    size_t n;
} bough_merged;
int bough_merged_load(bough_merged *merged, const bough_store *store, bough_error *err);
/* What one layer stands for: none where it is not merged, or is gone. */
int bough_merged_read(bough_layers *parts, const bough_store *store, const char *dir,
                      bough_error *err);
void bough_merged_free(bough_merged *merged);
/* The parts of a layer: itself where it is none of them. Borrowed; `self` is room for it. */
const bough_layers *bough_merged_parts(const bough_merged *merged, bough_layers *self,
                                       char (*dir)[100]);
/* (the branch's lock, store->places) Put merged layers in the place of what they stand for, in all
 * stacks of the branch; in that of a running compute only layers of the branch's own group, which
 * it may read. Adds how many to `changed`. */
int bough_merged_apply(size_t *changed, bough_store *store, const bough_merged *merged,
                       const char *branch, bough_header *live, bough_error *err);
/* Whether a merged layer (of this group, where one is given) could shorten a stack. */
bool bough_merged_fits(const bough_merged *merged, const bough_store *store,
                       const bough_layers *stack, const char *group);
/* Under the gate: let the memory of a compute have this stack. What it was told of a layer and has
 * not seen yet, it is told of what takes the layer's place. */
void bough_stack_publish(bough_header *live, const bough_layers *stack);

/*
 * (under the gate) Layers that were sealed from this memory are read by their index files from here
 * on, where those are written: what describes them here is not needed any more. With the gate open
 * again, bough_table_sweep() frees it; else the memory of a busy branch would grow with each seal.
 */
void bough_stack_settle(bough_header *live, const bough_store *store);

/* ---- reindex.c ---- */
/* At the start of a server, before any layer is read or made durable: those that may have lost
 * blocks by a power cut get a new index, whoever names them. */
int bough_layers_reindex(bough_store *store, bough_error *err);

/* ---- merge.c ---- */
/* Where a merged layer is made, in the directory of its group: a name that is no layer's. */
#define BOUGH_MERGING ".merge"
/* Shorter runs are not worth it while the stack is short. */
#ifndef BOUGH_LEAST_RUN /* tests have other numbers */
#define BOUGH_LEAST_RUN 8
#endif
typedef int (*bough_cancelled)(void *context);
/* Make one layer of a run of the branch's, if there is one that is worth it. The branch may be used
 * meanwhile. `merge` is NULL where there is none; bough_merge_end(). */
int bough_merge_begin(bough_merge **merge, bough_store *store, const bough_survey *survey,
                      const bough_merged *merged, const char *branch, bough_cancelled is_cancelled,
                      void *context, bough_error *err);
/* (the branch's lock) Put it in place. `layers`: how many became one; 0: the stack has changed. */
int bough_merge_commit(size_t *layers, bough_merge *merge, bough_header *live, bough_error *err);
void bough_merge_end(bough_merge *merge);

/* ---- index_write.c ---- */
/* Write the index of a layer from the entries of one generation; durable. */
int bough_index_write(bough_header *shm, uint32_t gen, const char *layer_path, bough_error *err);
/* The same from the directory itself: LAYER/data over the layers `below`. */
int bough_index_rebuild(bough_store *store, const char *dir, const bough_layers *below,
                        bough_error *err);

/* ---- head.c ---- */
/* Memory for `pgdata` over `layers`, its head scanned. `group` is the branch that owns it. */
int bough_head_scan(bough_shm **shm, int *fd, bough_store *store, const char *group,
                    const char *pgdata, const bough_layers *layers, bough_error *err);
/* Make the empty layered directories below `at`. */
int bough_head_skeleton(const char *at, bough_error *err);
/* Whether the head of a branch that is not running holds anything. */
int bough_head_is_empty(bool *empty, const char *pgdata, bough_error *err);

/* ---- keep.c, collect.c ---- */
/* Rename something into the trash, where it is nobody's any more. Missing is success. */
int bough_store_discard(const bough_store *store, const char *kind, const char *name,
                        bough_error *err);
/* Discard the layers of some groups (NULL-terminated), or with NULL of all, that no stack names. */
int bough_store_collect(bough_store *store, char *const *groups, bough_error *err);

/* ---- sweep.c ---- */
/* Remove what was left half written in the store and in these branches. What resists is told in the
 * log. Nothing may be being made. */
void bough_store_sweep(const bough_store *store, const char *const *branches, size_t n);

/* ---- moment.c ---- */
typedef struct bough_moment {
    char control[8192];
    size_t control_bytes;
    bool clean;             /* shut down: nothing to replay */
    bool is_at_checkpoint;  /* the control's checkpoint is the last record: wal_end is behind it */
    uint64_t redo, wal_end; /* wal_end 0: not known */
    uint32_t tli;
    uint64_t segment_bytes;
    int64_t time_ms; /* since 1970: when it was read */
} bough_moment;
/* Where the segment of this name begins; false where it is no name of one. */
bool bough_wal_start(uint64_t *start, const char *name, uint64_t segment_bytes);
/* Of one WAL segment in pg_wal, how much lies before the redo point. */
uint64_t bough_wal_past_bytes(const bough_moment *moment, const char *name, const struct stat *st);
/* The name under which the last segment waits in pg_wal for bough_moment_finish(). */
#define BOUGH_LAST_SEGMENT "last-segment"
/* Read pg_control and where the WAL ends. Under the gate when running. `live` may be NULL. */
int bough_moment_read(bough_moment *moment, const char *pgdata, const bough_header *live,
                      bough_error *err);
/* The same from an image of pg_control that was kept; `pgdata` tells the size of segments. */
int bough_moment_load(bough_moment *moment, const char *control_path, const char *pgdata,
                      bough_error *err);
/* All that the moment's pages can hold was written before this LSN. */
uint64_t bough_moment_lsn(const bough_moment *moment);
/* Make an image of a cleanly stopped cluster one of a crashed one: the WAL behind it is replayed.
 */
int bough_moment_set_crashed(bough_moment *moment, bough_error *err);
void bough_moment_segment_name(char *out, size_t size, const bough_moment *moment, uint64_t number);
/* Link two-phase files and replication origins; `dest` has their directories. */
int bough_moment_link_state(const char *pgdata, const char *dest, bough_error *err);
/* Link what must be linked while nothing moves: WAL segments, two-phase files. `dest` has its
 * directories. */
int bough_moment_link(const bough_moment *moment, const char *pgdata, const char *dest,
                      bool copy_segments, bough_error *err);
/* The rest, which may follow after the gate opened: directories first (bough_moment_dirs), then the
 * tail of the WAL. */
int bough_moment_dirs(const char *pgdata, const char *dest, bough_error *err);
int bough_moment_finish(const bough_moment *moment, const char *dest, const char *control_name,
                        bough_error *err);

/* ---- seal.c ---- */
/* The next unused layer of a group, as "GROUP/LAYER". */
int bough_layer_next(char *dir, size_t size, const bough_store *store, const char *group,
                     bough_error *err);
/* Write the indexes that the branch's own layers lack, since a crash or a failure came between a
 * seal and its end: such a layer is in the stack, and nobody could read it. */
int bough_seal_complete(bough_store *store, const char *branch, const bough_layers *layers,
                        bough_error *err);
/* Finish or undo a seal that a crash interrupted. */
int bough_seal_mend(bough_store *store, const char *branch, bough_shm *live, bough_error *err);

/* ---- fork.c ---- */
/* Whether a branch can be made under this id. */
int bough_child_check(const bough_store *store, const char *branch, bough_error *err);
/* Give BRANCHES/DIR, a child in the making with its pgdata, a stack and its first restore point.
 * replay_bytes: of WAL that its first start replays, at a moment of the past; else 0. */
int bough_child_settle(bough_store *store, const char *dir, const bough_moment *moment,
                       const bough_layers *layers, uint64_t replay_bytes, bough_error *err);
/*
 * Give the directory TEMP, which has its stack, the name of a branch, durably. Not while references
 * are counted: who reads one name after the other would see it under neither.
 */
int bough_child_name(bough_store *store, const char *temp, const char *branch, bough_error *err);

/* How far the recovery of a branch must come, to an LSN; 0: not known. */
int bough_point_read_end(uint64_t *end, const bough_store *store, const char *branch,
                         bough_error *err);

/* ---- pending.c ---- */
bool bough_layers_are_durable(const bough_store *store, const bough_layers *layers);
/* Whether the disk has refused one of them, and it has not been mended since. */
bool bough_layers_are_refused(const bough_store *store, const bough_layers *layers);
/* Note in DIR, a branch in the making, that it may have to start again from its first image. Where
 * it replays much, since its own files will not be durable either. */
int bough_pending_write(const bough_moment *m, const char *dir, uint64_t replay_bytes,
                        bough_error *err);
/* Tell the library of a compute about to start what there is to defer and to replay. */
void bough_pending_tell(bough_header *live, const bough_store *store, const char *branch);
/* (store->places) Note that a branch which waits for its layers goes back to its first control at
 * its next start, even where they are durable by then; and whether it does. */
int bough_pending_mark(const bough_store *store, const char *branch, bough_error *err);
bool bough_pending_is_marked(const bough_store *store, const char *branch);
/* At the start of a server, before any layer is made durable: mark a branch that has waited since
 * before the machine was started, where what it waits for had not been made durable by then. */
int bough_pending_mark_outlived(bough_store *store, const char *branch, bough_error *err);

#endif
