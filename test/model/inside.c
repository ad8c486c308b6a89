/* Processes of a compute within one process. See inside.h. */
#include "inside.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload/lib.h"

/* Linux gives no pid as high as these (PID_MAX_LIMIT is 4,194,304). */
enum { OWN_PID = 5000000, POSTMASTER, FIRST_PID, MAX_FDS = 4096 };

typedef struct process {
    pid_t pid; /* 0: not there */
    _Alignas(bough_lib) char state[offsetof(bough_lib, files)];
    bough_file *files[MAX_FDS];
} process;

static process processes[MODEL_WORKERS];
static process *current;
static pid_t next_pid = FIRST_PID;
static sigjmp_buf death;

/* Of the sanitizer, where there is one. */
__attribute__((weak)) void __lsan_disable(void);
__attribute__((weak)) void __lsan_enable(void);

pid_t model_getpid(void) {
    return current ? current->pid : OWN_PID;
}

pid_t model_postmaster(void) {
    return POSTMASTER;
}

int model_kill(pid_t pid, int sig) {
    if (sig == SIGKILL && current && pid == current->pid) siglongjmp(death, 1);
    bool there = pid == OWN_PID || pid == POSTMASTER;
    for (int i = 0; i < MODEL_WORKERS; i++) there = there || processes[i].pid == pid;
    if (there && sig == 0) return 0;
    errno = ESRCH;
    return -1;
}

static void switch_in(process *p) {
    memcpy(&bough, p->state, sizeof p->state);
    memcpy(bough.files, p->files, (size_t)bough.files_end * sizeof bough.files[0]);
    current = p;
    bough_table_forked(); /* the pid is another one */
}

static void switch_out(void) {
    size_t bytes = (size_t)bough.files_end * sizeof bough.files[0];
    if (bough.files_end > MAX_FDS) model_fail("more than %d descriptors", MAX_FDS);
    memcpy(current->files, bough.files, bytes);
    memcpy(current->state, &bough, sizeof current->state);
    memset(bough.files, 0, bytes);
    memset(&bough, 0, sizeof current->state);
    bough.ready_fd = -1;
    current = NULL;
    bough_table_forked();
}

void model_inside_reset(void) {
    next_pid = FIRST_PID;
}

bool model_inside_is_there(int worker) {
    return processes[worker].pid != 0;
}

int model_inside_begin(int worker, struct bough_header *shm) {
    process *p = &processes[worker];
    memset(p, 0, sizeof *p);
    p->pid = next_pid++;
    switch_in(p);
    int rc = bough_begin(shm), saved = errno;
    switch_out();
    errno = saved;
    return rc;
}

bool model_inside_call(int worker, bool may_die, void (*body)(void *context), void *context) {
    process *outer = current;   /* one call within another: what happens meanwhile */
    volatile bool lives = true; /* also after a jump */
    if (outer) switch_out();
    if (may_die && __lsan_disable) __lsan_disable();
    switch_in(&processes[worker]);
    if (sigsetjmp(death, 0) == 0)
        body(context);
    else
        lives = false;
    switch_out();
    if (may_die && __lsan_enable) __lsan_enable();
    if (outer) switch_in(outer);
    return lives;
}

void model_inside_limit(int worker, unsigned level_fds) {
    switch_in(&processes[worker]);
    bough.level_fds_max = level_fds;
    switch_out();
}

/* As exit() does it: the library takes its leave, then the kernel closes what was open. */
static void leave(void) {
    int n = bough.files_end, *open_fds = calloc((size_t)n + 1, sizeof *open_fds), count = 0;
    if (!open_fds) abort();
    for (int fd = 0; fd < n; fd++)
        if (bough.files[fd]) open_fds[count++] = fd;
    bough_end();
    while (count) close(open_fds[--count]);
    free(open_fds);
}

static void free_files(void) {
    for (int fd = 0; fd < bough.files_end; fd++) {
        bough_file *f = bough.files[fd];
        if (!f) continue;
        bough.files[fd] = NULL;
        for (unsigned i = 0; i < f->n_levels; i++)
            if (f->levels[i].fd >= 0) close(f->levels[i].fd);
        free(f->levels);
        free(f);
        close(fd);
    }
}

void model_inside_end(int worker, bool gently) {
    process *p = &processes[worker];
    if (!p->pid) return;
    switch_in(p);
    if (gently) leave();
    bough.active = false;
    free_files();
    bough_view_clear(&bough.view);
    switch_out();
    memset(p, 0, sizeof *p);
}
