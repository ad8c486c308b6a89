/*
 * Drives src/store by hand, without a server: for tests of the library and for looking into a
 * store.
 *
 *   storetool STORE adopt BRANCH PGDATA
 *   storetool STORE fork PARENT CHILD [POSTMASTER-PID]
 *   storetool STORE run BRANCH PRELOAD POSTGRES [ARGUMENT...]    replaces itself by postgres
 *   storetool STORE export BRANCH DIR
 *   storetool STORE usage BRANCH
 *   storetool STORE audit BRANCH POSTMASTER-PID
 *   storetool STORE delete BRANCH
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"
#include "util/fs.h"

static int attach(bough_shm **shm, bough_store *store, const char *branch, const char *pid,
                  bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    int rc = bough_store_pgdata(pgdata, store, branch, err);
    return rc ? rc : bough_shm_attach(shm, (pid_t)atoi(pid), pgdata, err);
}

static int run(bough_store *store, char **argv, bough_error *err) {
    bough_shm *shm;
    int fd;
    char pgdata[BOUGH_PATH_MAX], number[16];
    int rc = bough_store_pgdata(pgdata, store, argv[0], err);
    if (!rc) rc = bough_store_prepare(&shm, &fd, store, argv[0], err);
    if (rc) return rc;
    bough_shm_set_postmaster(shm, getpid());
    (void)snprintf(number, sizeof number, "%d", fd);
    if (fcntl(fd, F_SETFD, 0) != 0 || chdir(pgdata) != 0)
        return bough_fail_sys(err, 0, "could not hand over");
    setenv("BOUGH_SHM_FD", number, 1);
    setenv("LD_PRELOAD", argv[1], 1);
    execv(argv[2], argv + 2);
    return bough_fail(err, BOUGH_E_SYS, "could not run \"%s\"", argv[2]);
}

int main(int argc, char **argv) {
    bough_store *store = NULL;
    bough_shm *shm = NULL;
    bough_error err = {0};
    if (argc < 4) return 64;
    const char *verb = argv[2];
    int rc = bough_store_open(&store, argv[1], &err);
    if (rc) goto out;
    if (strcmp(verb, "adopt") == 0 && argc == 5) {
        rc = bough_store_adopt(store, argv[3], argv[4], &err);
    } else if (strcmp(verb, "fork") == 0 && argc >= 5) {
        bough_fork_result result;
        if (argc > 5) rc = attach(&shm, store, argv[3], argv[5], &err);
        if (!rc) rc = bough_store_fork(&result, store, argv[3], argv[4], shm, &err);
        if (!rc)
            printf("sealed %d gate %.2f seal %.2f create %.2f\n", result.sealed, result.gate_ms,
                   result.seal_ms, result.create_ms);
        if (!rc) rc = bough_store_sync(store, argv[4], NULL, &err);
    } else if (strcmp(verb, "run") == 0 && argc >= 6) {
        rc = run(store, argv + 3, &err);
    } else if (strcmp(verb, "export") == 0 && argc == 5) {
        rc = bough_store_export(store, argv[3], argv[4], NULL, NULL, &err);
    } else if (strcmp(verb, "usage") == 0) {
        bough_usage usage;
        rc = bough_store_usage(&usage, store, argv[3], NULL, &err);
        if (!rc)
            printf("own %llu shared %llu depth %u\n", (unsigned long long)usage.own_bytes,
                   (unsigned long long)usage.shared_bytes, usage.depth);
    } else if (strcmp(verb, "audit") == 0 && argc > 4) {
        size_t files = 0;
        rc = attach(&shm, store, argv[3], argv[4], &err);
        if (!rc) rc = bough_store_audit(&files, shm, &err);
        if (!rc) printf("%zu files\n", files);
    } else if (strcmp(verb, "delete") == 0) {
        rc = bough_store_delete(store, argv[3], &err);
    } else {
        rc = bough_fail(&err, BOUGH_E_USAGE, "unknown verb \"%s\"", verb);
    }
out:
    if (rc) fprintf(stderr, "storetool: %s\n", err.message);
    bough_shm_close(shm);
    bough_store_close(store);
    return rc ? bough_code_get(rc)->exit_status : 0;
}
