/* A directory in /dev/shm per running compute. Its name has a random end, so nobody can lay one in
 * wait. */
#include "pg/dynshm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/error.h"
#include "util/fs.h"

#define SHM_ROOT "/dev/shm"

/* Read the link; -1 when it is none, or not to a directory that this branch can have made. */
static int read_link(char *dir, const char *link, const char *branch) {
    char wanted[256];
    ssize_t n = readlink(link, dir, BOUGH_PATH_MAX - 1);
    if (n <= 0) return -1;
    dir[n] = '\0';
    size_t length = (size_t)snprintf(wanted, sizeof wanted, SHM_ROOT "/bough-%s-", branch);
    return strncmp(dir, wanted, length) == 0 && !strchr(dir + length, '/') ? 0 : -1;
}

void bough_dynshm_end(const char *pgdata, const char *branch) {
    char link[BOUGH_PATH_MAX], dir[BOUGH_PATH_MAX];
    if (bough_path(link, sizeof link, NULL, "%s/pg_dynshmem", pgdata) == 0 &&
        read_link(dir, link, branch) == 0)
        bough_ignore(bough_rmtree(dir, NULL));
}

/* Put `link` -> `dir` in the place of whatever is there. */
static int replace_link(const char *link, const char *dir, bough_error *err) {
    char next[BOUGH_PATH_MAX];
    int rc = bough_path(next, sizeof next, err, "%s~", link);
    struct stat st;
    if (!rc && lstat(link, &st) == 0 && S_ISDIR(st.st_mode)) rc = bough_rmtree(link, err);
    if (rc) return rc;
    (void)unlink(next);
    if (symlink(dir, next) != 0 || rename(next, link) != 0)
        return bough_fail_sys(err, errno, "could not link \"%s\" to \"%s\"", link, dir);
    return BOUGH_OK;
}

int bough_dynshm_begin(char *dir, const char *pgdata, const char *branch, bough_error *err) {
    char link[BOUGH_PATH_MAX];
    bough_dynshm_end(pgdata, branch);
    int rc = bough_path(link, sizeof link, err, "%s/pg_dynshmem", pgdata);
    if (!rc) rc = bough_path(dir, BOUGH_PATH_MAX, err, SHM_ROOT "/bough-%s-XXXXXX", branch);
    if (rc) return rc;
    if (mkdtemp(dir)) {
        rc = replace_link(link, dir, err);
        if (rc) (void)rmdir(dir);
        return rc;
    }
    *dir = '\0';
    (void)unlink(link);
    if (mkdir(link, 0700) != 0 && errno != EEXIST)
        return bough_fail_sys(err, errno, "could not make \"%s\"", link);
    return BOUGH_OK;
}
