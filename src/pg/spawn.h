/**
 * Starting programs: computes, and PostgreSQL's own tools. One primitive (bough_spawn()) that is
 * safe in a process with many threads, and a loop around it for tools (bough_run()). Every child
 * gets a clean environment, no descriptor but those named, and its own session.
 */
#ifndef BOUGH_PG_SPAWN_H
#define BOUGH_PG_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "bough/error.h"

enum { BOUGH_ENV_MAX = 24, BOUGH_ENV_BYTES = 16384 };

/** An environment under construction; caller's storage. Overflow is remembered and reported by
 * bough_spawn(). */
typedef struct bough_env {
    const char *vars[BOUGH_ENV_MAX + 1]; /**< NULL-terminated "NAME=value" */
    size_t count;
    size_t used;
    bool overflow;
    char text[BOUGH_ENV_BYTES];
} bough_env;

/**
 * PATH (`bindir` first), LC_ALL=C.UTF-8, TZ, and LD_LIBRARY_PATH for an installation that brings
 * its own libraries (bindir/../lib, unless a system directory). Nothing of our own environment but
 * sanitizer options.
 */
void bough_env_init(bough_env *env, const char *bindir);

/** Add NAME=value. */
void bough_env_set(bough_env *env, const char *name, const char *value);

/** Add our own value of NAME, if we have one. */
void bough_env_inherit(bough_env *env, const char *name);

/** What to start. */
typedef struct bough_spawn_spec {
    const char *const *argv; /**< argv[0] is the absolute path of the program; NULL-terminated */
    const bough_env *env;
    const char *cwd;   /**< NULL: the root directory */
    int in, out, err;  /**< become 0, 1, 2; -1: /dev/null */
    int keep[2];       /**< descriptors to leave open under their number; -1: none */
    int ruleset;       /**< of bough_landlock_prepare(), or -1 */
    bool dies_with_us; /**< SIGKILL when the calling thread ends; for tools */
    bool is_alone;     /**< it can start no process of its own; the kernel excepts root */
    const char *group; /**< cgroup.procs of the control group to start in; NULL: ours */
    int *group_errno;  /**< why it is in ours nevertheless; unchanged where it is not; or NULL */
} bough_spawn_spec;

/**
 * Start a program; returns when exec has succeeded.
 *
 * @param[out] pid    The child: leader of its own session. The caller reaps it.
 * @param[out] pidfd  Close-on-exec; closed by the caller.
 * @retval BOUGH_E_SYS  fork or exec failed; nothing is left.
 */
BOUGH_CHECK int bough_spawn(pid_t *pid, int *pidfd, const bough_spawn_spec *spec, bough_error *err);

/** A tool run to its end. Callbacks may be NULL. */
typedef struct bough_run {
    const char *const *argv;
    const bough_env *env;
    int ruleset;   /**< or -1 */
    bool is_alone; /**< as in bough_spawn_spec */
    void *context;
    /** Fill `buffer` with what goes to standard input; 0: end, negative: stop with that code. */
    ssize_t (*feed)(void *context, char *buffer, size_t room, bough_error *err);
    /** Bytes of standard output; without it, output goes where errors go. Non-zero stops with that
     * code. */
    int (*output)(void *context, const char *data, size_t size, bough_error *err);
    /** A line of standard error, without its newline. */
    void (*line)(void *context, const char *line);
    /** About ten times a second, with the child's pid. Non-zero cancels. */
    int (*tick)(void *context, pid_t pid);
} bough_run;

/**
 * Run a tool and wait for its end. When it returns, what the tool started has ended too.
 *
 * @param[out] status  As from waitpid(); valid with BOUGH_OK.
 * @retval BOUGH_E_CANCELLED  tick() said so; the whole process group was ended.
 * @retval BOUGH_E_TIMEOUT    A process that the tool started does not end.
 * @return Or the code that feed() or output() gave.
 */
BOUGH_CHECK int bough_run_tool(int *status, const bough_run *run, bough_error *err);

/**
 * Name of the variable that every tool, and what it starts, has in its environment with the value
 * given to bough_run_mark(): so a later server finds what a killed one left running
 * (bough_orphans_end_tools()).
 */
#define BOUGH_RUN_MARK "BOUGH_TOOL_OF"

/** Mark all tools run from now on. Once, before there are threads. Borrowed. */
void bough_run_mark(const char *mark);

/** Copy `line` into `out` as an error message has it: one line, no control characters, no full stop
 * at the end. */
void bough_one_line(char *out, size_t size, const char *line);

#endif
