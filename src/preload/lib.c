/* State of this process in the preload library, and libc's functions behind ours. */
#include "preload/lib.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "preload/handoff.h"
#include "preload/pool.h"

bough_lib bough = {.ready_fd = -1};

bough_path_class bough_classify(const char *path, char *key, size_t size) {
    key[0] = '\0';
    if (!bough.active || !path) return BOUGH_PATH_OUTSIDE;
    if (path[0] == '/') {
        if (strncmp(path, bough.shm->pgdata, bough.pgdata_length) != 0) return BOUGH_PATH_OUTSIDE;
        path += bough.pgdata_length;
        if (*path != '/' && *path != '\0') return BOUGH_PATH_OUTSIDE;
        while (*path == '/') path++;
    } else if (!bough.at_pgdata) {
        return BOUGH_PATH_OUTSIDE;
    }
    bough_path_class class = bough_path_classify(path, key, size);
    if (class == BOUGH_PATH_OUTSIDE) key[0] = '\0';
    return class;
}

void bough_head_path(char *out, size_t size, const char *key) {
    (void)snprintf(out, size, "%s/%s", bough.shm->pgdata, key);
}

int bough_enter(void) {
    if (!bough.slot && !(bough.slot = bough_slot_claim(bough.shm))) return -1;
    for (;;) {
        uint32_t epoch = bough_gate_enter(bough.shm, bough.slot);
        if (epoch == bough.view.epoch) return 0;
        bough_gate_leave(bough.slot);
        if (bough_view_refresh(&bough.view) != 0) return -1;
    }
}

void bough_leave(void) {
    bough_gate_leave(bough.slot);
}

void bough_changing(const bough_entry *entry, const bough_entry *other) {
    bough_slot_name(bough.shm, bough.slot, entry, other);
}

static _Atomic uint32_t *name_lock(const char *key) {
    return &bough.shm->names[bough_path_hash(key, strlen(key)) % BOUGH_NAME_LOCKS];
}

void bough_name_lock(const char *key) {
    bough_lock(name_lock(key));
}

void bough_name_unlock(const char *key) {
    bough_unlock(name_lock(key));
}

void bough_names_lock(const char *a, const char *b) {
    _Atomic uint32_t *first = name_lock(a), *second = name_lock(b);
    bough_lock(first < second ? first : second);
    if (first != second) bough_lock(first < second ? second : first);
}

void bough_names_unlock(const char *a, const char *b) {
    _Atomic uint32_t *first = name_lock(a), *second = name_lock(b);
    bough_unlock(first);
    if (first != second) bough_unlock(second);
}

/* A forked process has its parent's descriptors, so it holds references of its own, and no slot
 * yet. */
static void forked(void) {
    bough_table_forked();
    bough.slot = NULL;
    for (int fd = 0; fd < bough.files_end; fd++)
        if (bough.files[fd]) bough_file_forked(bough.files[fd]);
}

static void refuse(const char *why) {
    static const char lead[] = "FATAL:  bough: ";
    (void)!sys_write(STDERR_FILENO, lead, sizeof lead - 1);
    (void)!sys_write(STDERR_FILENO, why, strlen(why));
    (void)!sys_write(STDERR_FILENO, "\n", 1);
    _exit(1);
}

/* Take a descriptor's number from the environment and keep it from the programs that postgres may
 * run. */
static int inherited(const char *name) {
    const char *text = getenv(name);
    if (!text) return -1;
    int fd = atoi(text);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return -1;
    return fd;
}

/* postgres overwrites its environment block later, so all of it is read here. glibc hands over what
 * main() gets. */
__attribute__((constructor)) static void start(int argc, char **argv) {
    const char *wanted = getenv("BOUGH_SHM_FD");
    const char *pool = getenv(BOUGH_POOL_ENV);
    if (pool) {
        bough_pool_init(pool);
        unsetenv(BOUGH_POOL_ENV);
        unsetenv("LD_PRELOAD");
    }
    if (!wanted) return;
    int fd = inherited("BOUGH_SHM_FD");
    bough.shm = fd >= 0 ? bough_table_map(fd) : NULL;
    if (!bough.shm) refuse("the shared memory of the branch is missing; start it with bough");
    bough.ready_fd = inherited("BOUGH_READY_FD");
    bough.title = argc > 0 ? argv[0] : "";
    const char *handoff_dir = getenv(BOUGH_HANDOFF_DIR_ENV);
    if (handoff_dir) bough_handoff_init(handoff_dir);
    unsetenv(BOUGH_HANDOFF_DIR_ENV);
    unsetenv("LD_PRELOAD");
    unsetenv("BOUGH_SHM_FD");
    unsetenv("BOUGH_READY_FD");
    if (bough_begin(bough.shm) != 0) refuse("a layer of the branch cannot be read");
    pthread_atfork(NULL, NULL, forked);
}

int bough_begin(bough_header *shm) {
    char cwd[2048];
    struct rlimit limit;
    bough.shm = shm;
    bough.pgdata_length = strlen(shm->pgdata);
    bough.at_pgdata = getcwd(cwd, sizeof cwd) && strcmp(cwd, shm->pgdata) == 0;
    bough.view.shm = shm;
    bough.view.epoch = 1;
    bough.view.shed = bough_levels_shed;
    bough.view.moved = bough_levels_outdated;
    bough.level_fds_max = 256;
    /* postgres uses at most max_files_per_process (1,000 by default) and some */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur > 1600)
        bough.level_fds_max = (unsigned)(limit.rlim_cur > 60000 ? 60000 : limit.rlim_cur) - 1300;
    if (bough_view_refresh(&bough.view) != 0) return -1;
    bough_wal_begin();
    bough.active = true;
    return 0;
}

/* Runs at exit(). The kernel closes what is open, and nobody but us takes back its references. */
__attribute__((destructor)) void bough_end(void) {
    for (int fd = 0; fd < bough.files_end; fd++)
        if (bough.files[fd]) bough_file_free(bough.files[fd]);
    bough.files_end = 0;
    if (bough.slot && atomic_load(&bough.slot->pid) == bough_table_pid()) {
        bough_gate_leave(bough.slot);
        atomic_store(&bough.slot->pid, 0);
    }
    bough.slot = NULL;
}

#define REAL(name)                                                                                 \
    static __typeof__(name) *function;                                                             \
    if (!function) *(void **)&function = dlsym(RTLD_NEXT, #name)

FILE *real_fopen(const char *path, const char *mode) {
    REAL(fopen);
    return function(path, mode);
}
DIR *real_opendir(const char *path) {
    REAL(opendir);
    return function(path);
}
struct dirent *real_readdir(DIR *dir) {
    REAL(readdir);
    return function(dir);
}
int real_closedir(DIR *dir) {
    REAL(closedir);
    return function(dir);
}
void real_rewinddir(DIR *dir) {
    REAL(rewinddir);
    function(dir);
}
