/*
 * Processes of a compute within one process, for a fuzzer that watches its own. Each has the state
 * that the library keeps of a process (`bough`) and a pid that no process of the machine has; one
 * at a time is switched in. Nobody switched in: the library looks at no call, as in boughd.
 *
 * The library is linked into the program, in place of libc's functions as LD_PRELOAD would have it,
 * in its test build (faults.c) with getpid() and kill() as below. Who is killed in the middle of a
 * call does not come back from it: what it has shared with the others stays as it was.
 */
#ifndef BOUGH_TEST_INSIDE_H
#define BOUGH_TEST_INSIDE_H

#include <stdbool.h>
#include <sys/types.h>

#include "model.h"

struct bough_header;

/* What the library has of getpid() and kill(). */
pid_t model_getpid(void);
int model_kill(pid_t pid, int sig);

/* The pid that bough_shm_set_postmaster() is to be told. */
pid_t model_postmaster(void);
/* Pids begin anew, so that an input is the same each time. Nobody may be there. */
void model_inside_reset(void);
/* A process of the compute begins; the working directory is its PGDATA. 0, or -1 with errno. */
int model_inside_begin(int worker, struct bough_header *shm);
/* Call as that process. `may_die`: it may be killed in the middle, and then what it had in hand is
 * no leak. False: it was. */
bool model_inside_call(int worker, bool may_die, void (*body)(void *context), void *context);
/* It ends, or it has been killed: what the kernel would close is closed. */
void model_inside_end(int worker, bool gently);
bool model_inside_is_there(int worker);
/* How many descriptors of levels it may keep. */
void model_inside_limit(int worker, unsigned level_fds);

#endif
