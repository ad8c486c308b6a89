/**
 * The store: directories, layers, heads and stacks of one Bough installation. Knows files only;
 * which projects and branches exist is the catalogue's business (src/model). Design:
 * docs/internals/store.md.
 *
 *   STORE/format                 version of this layout
 *   STORE/lock                   flock'ed by the one server
 *   STORE/bough.db               catalogue (src/model)
 *   STORE/branches/ID/pgdata/    what postgres starts on; base/ global/ pg_xact/ ... are the head
 *   STORE/branches/ID/stack      the layers below the head, newest first
 *   STORE/layers/GROUP/ID/       immutable layers; GROUP is the branch that was sealed
 *   STORE/run/ENDPOINT/          sockets of a compute
 *   STORE/trash/                 waits for deletion
 *
 * Threads: a bough_store may be used from several threads; calls that name the same branch must be
 * serialised by the caller.
 */
#ifndef BOUGH_STORE_STORE_H
#define BOUGH_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bough/error.h"

typedef struct bough_store bough_store;

/** The memory shared by boughd and the processes of one running compute: gate, epoch, presence. */
typedef struct bough_shm bough_shm;

/** Bytes on disk, from real allocation (st_blocks). */
typedef struct bough_usage {
    uint64_t own_bytes; /**< the branch's directory and the layers that no other branch stands on */
    uint64_t history_bytes;    /**< what only its past needs, layers too; not in own_bytes */
    uint64_t shared_bytes;     /**< layers below it that other branches stand on too */
    unsigned depth;            /**< layers below the head */
    int64_t history_begins_ms; /**< the time of its oldest restore point; 0: there is none */
} bough_usage;

/** What taking a moment cost; milliseconds. */
typedef struct bough_fork_result {
    bool sealed;    /**< a new layer was made (false: the head was empty, the stack was shared as it
                       is) */
    double gate_ms; /**< how long writers of the parent could wait */
    double seal_ms; /**< the whole seal */
    double create_ms; /**< making the child's directory */
} bough_fork_result;

/** A restore point: a moment of a branch from which branches can start. */
typedef struct bough_point {
    char name[20];
    uint64_t lsn;  /**< all of the moment was written before it */
    uint64_t redo; /**< WAL is needed from here on */
    int64_t time_ms;
} bough_point;

/** A moment of the past: one of the two. */
typedef struct bough_target {
    uint64_t lsn;    /**< everything whose record ends at or before it; 0: `time_us` says */
    int64_t time_us; /**< what was committed at or before it, microseconds since 1970 */
} bough_target;

/** What became of a target. */
typedef struct bough_cut {
    uint64_t lsn;           /**< the branch's WAL ends here */
    int64_t last_commit_us; /**< time of its last commit after the restore point; 0: none */
    uint64_t replay_bytes;  /**< WAL that its first start replays */
    double create_ms;
} bough_cut;

/** Called now and then during long work; return non-zero to cancel. */
typedef int (*bough_progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);

/**
 * Open a store, or make one in an empty or missing directory.
 *
 * Probes the file system (holes reported, zero blocks are data, xattrs, hard links, rename) and
 * takes the lock.
 *
 * @param[out] store  Closed with bough_store_close().
 * @param dir         Absolute path.
 * @retval BOUGH_E_UNSUPPORTED  The file system is unfit, or the store is of a newer format.
 * @retval BOUGH_E_BUSY         Another server has it.
 */
BOUGH_CHECK int bough_store_open(bough_store **store, const char *dir, bough_error *err);
void bough_store_close(bough_store *store);

/** Absolute path of the store; borrowed. */
const char *bough_store_dir(const bough_store *store);

/** Path of a branch's PGDATA, of size BOUGH_PATH_MAX. */
BOUGH_CHECK int bough_store_pgdata(char *out, const bough_store *store, const char *branch,
                                   bough_error *err);

/** Whether a branch's directory exists and is complete. */
bool bough_store_has_branch(const bough_store *store, const char *branch);

/**
 * Turn a plain, cleanly shut down PGDATA into a branch: its relation files become a first layer.
 * The directory is moved, so it must be on the store's file system (use STORE/tmp/...).
 *
 * @retval BOUGH_E_PRECONDITION  Not cleanly shut down, has tablespaces, or unusual block sizes.
 */
BOUGH_CHECK int bough_store_adopt(bough_store *store, const char *branch, const char *pgdata,
                                  bough_error *err);

/**
 * Branch: take a moment of `parent` and make `child` start from it. Configuration files are not
 * copied: write them before starting a compute (src/pg/conf.h).
 *
 * @param live  Shared memory of the parent's running compute, or NULL when it is not running.
 * @retval BOUGH_E_CONFLICT  The child's directory exists.
 * @retval BOUGH_E_TIMEOUT   Writers of the parent did not come to rest; nothing changed.
 */
BOUGH_CHECK int bough_store_fork(bough_fork_result *result, bough_store *store, const char *parent,
                                 const char *child, bough_shm *live, bough_error *err);

/**
 * How much WAL a child of this moment would have to replay.
 * @param[out] bytes  From the redo point of the last checkpoint to the end of the WAL.
 * @param live        Shared memory of the running compute.
 */
BOUGH_CHECK int bough_store_redo_bytes(uint64_t *bytes, const bough_store *store,
                                       const char *branch, const bough_shm *live, bough_error *err);

/**
 * (the branch's lock) Make every layer below a branch durable (fsync), and the files of a branch of
 * the past, whose compute leaves that to us. Called in the background after the branch was made.
 * Until it has returned, a power cut makes the branch start again from its first image (no loss:
 * its WAL is kept). What runs on it may then be told to keep no more WAL than others do.
 *
 * @param live  Shared memory of the branch's compute, if that runs; else NULL.
 */
BOUGH_CHECK int bough_store_sync(bough_store *store, const char *branch, bough_shm *live,
                                 bough_error *err);

/** (the branch's lock; its compute is stopped) Where a branch awaits bough_store_sync() and what it
 * stands on may be lost, let it go back to its first control, so that it replays all that there is
 * since it was made. Else nothing happens. */
BOUGH_CHECK int bough_store_settle(bough_store *store, const char *branch, bough_error *err);

/**
 * The layers whose fsync has failed since the machine was started: nobody makes them durable before
 * they are mended.
 * @param[out] dirs  As GROUP/NUMBER; NULL-terminated, bough_store_free_list().
 */
BOUGH_CHECK int bough_store_refused(char ***dirs, const bough_store *store, bough_error *err);
/**
 * (the lock of the branch GROUP, whether or not there is one) Tell those who trusted a refused
 * layer: the running compute of its group, whose next fsync fails, and durably every branch that
 * awaits bough_store_sync() on it; that fails for them until bough_store_settle().
 * @param live  Shared memory of the group's running compute, or NULL.
 */
BOUGH_CHECK int bough_store_mend_begin(bough_store *store, const char *dir, bough_shm *live,
                                       bough_error *err);
/**
 * (after bough_store_mend_begin()) Write a refused layer over itself and make it durable. Takes
 * long; the layer may be read meanwhile. Where it fails, the layer stays refused.
 * @retval BOUGH_E_NOTFOUND  No stack names it; it is collected.
 */
BOUGH_CHECK int bough_store_mend(bough_store *store, const char *dir, bough_error *err);
/** Branches that were told and have yet to be settled. @param[out] branches  As of
 * bough_store_refused(). */
BOUGH_CHECK int bough_store_returning(char ***branches, const bough_store *store, bough_error *err);
/** Whether there may be something to mend; the same, forgetting it; and note that there is. At
 * first there may be. */
bool bough_store_may_have_refused(const bough_store *store);
bool bough_store_take_refused(bough_store *store);
void bough_store_note_refused(bough_store *store);

/** Whether an fsync of a layer below the branch has failed since the machine was started: what the
 * disk has of it is not known. A branch that awaits bough_store_sync() replays all that there is
 * since it was made at its next start, and needs no more of it. */
bool bough_store_is_refused(const bough_store *store, const char *branch);
/** Whether the branch, or what it stands on, still awaits bough_store_sync(). */
bool bough_store_sync_pending(const bough_store *store, const char *branch);

/**
 * (the branch's lock) Say whether others receive the branch's WAL: then a quiet branch does not
 * give back what is before its redo point. A crash of the machine may forget it.
 */
BOUGH_CHECK int bough_store_set_followed(bough_store *store, const char *branch, bool is_followed,
                                         bough_error *err);
bool bough_store_is_followed(const bough_store *store, const char *branch);

/**
 * Give back the disk space of WAL that a cleanly stopped branch does not need: everything but the
 * checkpoint it stopped with. What other branches share stays theirs. Nothing happens to a branch
 * that was not stopped cleanly or that awaits bough_store_sync(). Its compute must be stopped.
 *
 * @param keeps_history  Only what is behind the checkpoint: what is before it is history.
 */
BOUGH_CHECK int bough_store_trim(bough_store *store, const char *branch, bool keeps_history,
                                 bough_error *err);

/**
 * Make a restore point: seal the branch and keep the moment. Writers wait for the gate, a few
 * milliseconds at most. Does nothing where nothing happened since the last one.
 *
 * @param live  Shared memory of the running compute, or NULL when it is not running.
 * @retval BOUGH_E_TIMEOUT  Writers did not come to rest; nothing changed.
 */
BOUGH_CHECK int bough_store_point(bough_fork_result *result, bough_store *store, const char *branch,
                                  bough_shm *live, bough_error *err);

/** The restore points of a branch, oldest first; malloc'ed. Its first moment is one, until it is
 * forgotten. */
BOUGH_CHECK int bough_store_points(bough_point **points, size_t *n, const bough_store *store,
                                   const char *branch, bough_error *err);

/**
 * The first moment of a branch, also when its restore point has been forgotten: from there on its
 * history is its own, and an LSN means something else than in its parent.
 *
 * @param[out] begin  `name` is empty.
 * @retval BOUGH_E_NOTFOUND  It is not known: an older version made the branch.
 */
BOUGH_CHECK int bough_store_begin(bough_point *begin, const bough_store *store, const char *branch,
                                  bough_error *err);

/**
 * Make `child` from a moment of the branch's past: the newest restore point before it, and the WAL
 * up to it. The branch may go on running. Configuration files are not copied.
 *
 * @param live  Shared memory of the branch's running compute, or NULL.
 * @retval BOUGH_E_NOTFOUND  The moment is before the branch's oldest restore point.
 * @retval BOUGH_E_INVALID   The branch has not come to that LSN yet.
 * @retval BOUGH_E_CORRUPT   WAL between the restore point and the moment is missing.
 */
BOUGH_CHECK int bough_store_fork_at(bough_cut *cut, bough_store *store, const char *branch,
                                    const bough_target *target, const char *child, bough_shm *live,
                                    bough_error *err);

/**
 * A round of looking after all stacks, so that they stay short: runs of layers become one, and what
 * is merged takes the place of its parts wherever it can (src/store/merge.c, merged.c). One thread.
 */
typedef struct bough_tidy bough_tidy;
/** A layer that is being made of several. */
typedef struct bough_merge bough_merge;

/** Begin with what is merged already. @param[out] tidy  End with bough_tidy_end(). */
BOUGH_CHECK int bough_tidy_begin(bough_tidy **tidy, bough_store *store, bough_error *err);
void bough_tidy_end(bough_tidy *tidy);

/** Whether bough_tidy_apply() would change a stack of the branch. @param is_awake  It has a
 * compute. */
bool bough_tidy_wants(const bough_tidy *tidy, const char *branch, bool is_awake);
/**
 * (the branch's lock) Let its stacks, and those of its restore points, name merged layers. Writers
 * of a running compute wait for the gate.
 *
 * @param[out] changed  How many times a layer took the place of others.
 * @param live          Shared memory of the running compute, or NULL.
 */
BOUGH_CHECK int bough_tidy_apply(size_t *changed, bough_tidy *tidy, const char *branch,
                                 bough_shm *live, bough_error *err);
/**
 * Make one layer of several of a branch, where that is worth it. Takes long; the branch may be used
 * meanwhile, and nothing changes until bough_tidy_commit().
 *
 * @param[out] merge    bough_tidy_drop(); NULL: nothing is to be merged.
 * @param is_cancelled  May be NULL; non-zero ends it with BOUGH_E_CANCELLED.
 */
BOUGH_CHECK int bough_tidy_merge(bough_merge **merge, bough_tidy *tidy, const char *branch,
                                 int (*is_cancelled)(void *context), void *context,
                                 bough_error *err);
/**
 * (the branch's lock) Put it in place for this branch; for others bough_tidy_apply() does it in the
 * next round. What no stack names any more goes with the next bough_store_collect_all().
 *
 * @param[out] layers  How many became one; 0: the stack has changed meanwhile.
 */
BOUGH_CHECK int bough_tidy_commit(size_t *layers, bough_merge *merge, bough_shm *live,
                                  bough_error *err);
void bough_tidy_drop(bough_merge *merge);

/** Move the layers that no stack names to the trash. */
BOUGH_CHECK int bough_store_collect_all(bough_store *store, bough_error *err);

/**
 * Let two branches change places: what one showed the other shows, and the other way round. One
 * step, which a crash cannot divide. Neither runs, and each stands on durable layers
 * (bough_store_sync()).
 *
 * @param is_undecided  Of a failure: which of the two it is after a power cut is not known, so that
 *                      both must stay, and what would finish it. Else all is as before.
 * @param mark          A text kept with `incoming`, by which bough_store_is_marked() tells
 *                      afterwards whether it stands in the place of `branch`.
 */
BOUGH_CHECK int bough_store_exchange(bool *is_undecided, bough_store *store, const char *branch,
                                     const char *incoming, const char *mark, bough_error *err);
/** @param is_marked  Unknown where it fails. */
BOUGH_CHECK int bough_store_is_marked(bool *is_marked, const bough_store *store, const char *branch,
                                      const char *mark, bough_error *err);

/** (the branch's lock) Forget one restore point; its WAL stays. Its name is that of
 * bough_store_points(). */
BOUGH_CHECK int bough_store_point_forget(bough_store *store, const char *branch, const char *name,
                                         bough_error *err);

/**
 * Forget what is older than a time: restore points but the newest at or before it, and WAL that
 * only they need.
 * @param[out] is_changed  Something was removed, also where the rest failed.
 */
BOUGH_CHECK int bough_store_prune(bool *is_changed, bough_store *store, const char *branch,
                                  int64_t keep_from_ms, bough_error *err);

/**
 * Let go of the oldest restore point and the WAL that only it needs, for room; with the last one
 * all history goes. Freed when this returns.
 */
BOUGH_CHECK int bough_store_forget_oldest(bough_store *store, const char *branch, bough_error *err);

/**
 * (the branch's lock) Forget all restore points and, where nobody follows, the WAL in the history:
 * where history is not kept, nothing vouches for the WAL behind them.
 * @param[out] is_changed  Something was removed, also where the rest failed; else it stays.
 */
BOUGH_CHECK int bough_store_forget_all(bool *is_changed, bough_store *store, const char *branch,
                                       bough_error *err);

/**
 * Move a branch and the layers that nothing else stands on to the trash. Its compute must be
 * stopped.
 */
BOUGH_CHECK int bough_store_delete(bough_store *store, const char *branch, bough_error *err);

/** Delete what is in the trash. Slow; for a background thread. */
BOUGH_CHECK int bough_store_purge(bough_store *store, bough_error *err);

/** Which layers the stacks of several branches name, as it was at one time. Any thread may ask. */
typedef struct bough_uses bough_uses;

/**
 * Read the stacks of all branches. bough_uses_free().
 * @param before  Of the same store, or NULL: what has not changed since is not read again.
 */
BOUGH_CHECK int bough_uses_new(bough_uses **uses, const bough_store *store,
                               const bough_uses *before, bough_error *err);
void bough_uses_free(bough_uses *uses);

/**
 * Whether a branch other than this one stands on a layer.
 * @param dir  "GROUP/LAYER". False for a layer that came after the stacks were read.
 */
bool bough_uses_shared(const bough_uses *uses, const char *branch, const char *dir);

/**
 * Bytes of a branch.
 * @param uses  Who measures many has the stacks read once, for all. NULL: they are read now.
 */
BOUGH_CHECK int bough_store_usage(bough_usage *usage, bough_store *store, const char *branch,
                                  const bough_uses *uses, bough_error *err);

/**
 * Write a branch that no compute runs on out as a plain PGDATA that a stock postgres starts on. Of
 * a live branch, fork a hidden child and export that.
 *
 * @param dest      Existing empty directory.
 * @param progress  May be NULL.
 * @retval BOUGH_E_CANCELLED  progress() said so; dest is emptied.
 */
BOUGH_CHECK int bough_store_export(bough_store *store, const char *branch, const char *dest,
                                   bough_progress progress, void *context, bough_error *err);

/**
 * After a crash: finish or undo interrupted seals, move what the catalogue does not know to the
 * trash. After a power cut, first of all: note which branches go back to their first control
 * (bough_store_settle()), and index layers anew that may have lost blocks. Call once after opening,
 * before any compute is started, with computes adopted first.
 *
 * @param known    Ids of the branches the catalogue knows.
 * @param live     live[i] is the shared memory of known[i]'s running compute, or NULL; the array
 * may be NULL.
 * @param[out] missing  missing[i] set where the directory of known[i] is gone; caller's array of n.
 */
BOUGH_CHECK int bough_store_reconcile(bough_store *store, const char *const *known,
                                      bough_shm *const *live, bool *missing, size_t n,
                                      bough_error *err);

/**
 * Before starting a compute: scan the head, make the shared memory.
 *
 * @param[out] shm  Detached with bough_shm_close().
 * @param[out] fd   The memory's descriptor (close-on-exec), to be handed to postgres as
 * BOUGH_SHM_FD; the caller closes it after exec.
 */
BOUGH_CHECK int bough_store_prepare(bough_shm **shm, int *fd, bough_store *store,
                                    const char *branch, bough_error *err);

/** Directories that a compute of the branch must read: its layers. NULL-terminated, free with
 * bough_store_free_list(). */
BOUGH_CHECK int bough_store_layer_dirs(char ***dirs, const bough_store *store, const char *branch,
                                       bough_error *err);
void bough_store_free_list(char **list);

/** Attach to the memory of a compute found running, by its postmaster. @retval BOUGH_E_NOTFOUND not
 * ours */
BOUGH_CHECK int bough_shm_attach(bough_shm **shm, pid_t postmaster, const char *pgdata,
                                 bough_error *err);
/** Tell the memory who the postmaster is (liveness of its children is judged by it). */
void bough_shm_set_postmaster(bough_shm *shm, pid_t postmaster);
/** Bytes of a key by which the administrator comes in, with the NUL; hexadecimal digits. */
#define BOUGH_SHM_KEY_SIZE 33
/** Tell the memory of a compute that is about to start by which key the administrator comes in. */
void bough_shm_set_key(bough_shm *shm, const char *key);
/** Read that of a running one; "" where what is there is none. */
void bough_shm_key(char *key, const bough_shm *shm);
void bough_shm_close(bough_shm *shm);
/** (the branch's lock) Tell a running compute that the disk has refused layers of its branch: its
 * next fsync fails, and it recovers from its WAL. */
void bough_shm_refuse(bough_shm *shm, const bough_store *store);
/** Whether the compute keeps its WAL segments as history; off for a new memory. */
void bough_shm_keep_history(bough_shm *shm, bool keeps);
bool bough_shm_keeps_history(const bough_shm *shm);
/** What happened to the history: the end of the WAL written (0: none yet) and how many segments
 * could not be kept. */
void bough_shm_history(uint64_t *wal_end, unsigned *lost, const bough_shm *shm);
/** The redo location of the last checkpoint that is durable; 0: not known. */
uint64_t bough_shm_redo(const bough_shm *shm);

/**
 * Check the memory of a running compute against the file system, its writers held for the time it
 * takes: for tests and for support.
 *
 * @param[out] files  Paths checked.
 * @retval BOUGH_E_CORRUPT  They differ; the message names the file and the block.
 */
BOUGH_CHECK int bough_store_audit(size_t *files, bough_shm *live, bough_error *err);

#endif
