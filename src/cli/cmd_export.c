/* bough export: a branch as a plain PGDATA. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bough/branch.h"
#include "cli/cli.h"
#include "util/fs.h"

#define REMOVE_MS 60000 /* a server that was cancelled removes what it wrote */

/* Number of entries; -1 where it cannot be read. */
static int count_entries(const char *directory) {
    DIR *dir = opendir(directory);
    int count = 0;
    if (!dir) return -1;
    while (readdir(dir)) count++;
    closedir(dir);
    return count - 2; /* . and .. */
}

/* Make the directory, or see that it is empty. */
static int make_target(bool *is_made, const char *directory, bough_error *err) {
    *is_made = mkdir(directory, 0700) == 0;
    if (*is_made) return BOUGH_OK;
    if (errno == ENOENT) {
        (void)bough_fail(err, BOUGH_E_NOTFOUND, "the directory above \"%s\" does not exist",
                         directory);
        return bough_hint(err, "Create it first.");
    }
    if (errno != EEXIST)
        return bough_fail_sys(err, errno, "could not create directory \"%s\"", directory);
    int count = count_entries(directory);
    if (count < 0 && errno == ENOTDIR) {
        (void)bough_fail(err, BOUGH_E_INVALID, "\"%s\" is not a directory", directory);
        return bough_hint(err, "Name a directory that does not exist yet.");
    }
    if (count < 0) return bough_fail_sys(err, errno, "could not read directory \"%s\"", directory);
    if (count == 0) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_CONFLICT, "directory \"%s\" is not empty", directory);
    return bough_hint(err, "Name a directory that does not exist yet.");
}

/* As root, the server runs as another user: the directory must be that user's. */
static int give_away(const char *directory, const char *store, bough_error *err) {
    struct stat st;
    if (geteuid() != 0) return BOUGH_OK;
    if (stat(store, &st) != 0) return bough_fail_sys(err, errno, "could not stat \"%s\"", store);
    if (chmod(directory, 0700) != 0 || chown(directory, st.st_uid, st.st_gid) != 0)
        return bough_fail_sys(err, errno, "could not chown \"%s\"", directory);
    return BOUGH_OK;
}

/* Wait until no export uses the directory: the server has a lock on it from before it looks until
 * it has removed what it wrote. The lock is ours then; -1 where that was not to be had, because it
 * is in use or because it cannot be opened: by another user than the server's, say. */
static int take_over(bool *is_in_use, const char *directory, int wait_ms) {
    double until = bough_now_ms() + wait_ms;
    int fd = bough_open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
        if (bough_now_ms() < until && (errno == EWOULDBLOCK || errno == EINTR)) {
            (void)nanosleep(&pause, NULL);
            continue;
        }
        *is_in_use = true;
        close(fd);
        fd = -1;
    }
    return fd;
}

/*
 * Nothing came of it. What was written the server removes, who alone knows whose it is: another
 * export may have had the directory first. Ours is the directory, where we made it; and what a
 * server that died left in it, if nobody uses that, and it is no whole export. False where
 * something is left.
 */
static bool undo(const char *directory, bool is_made, int failure) {
    char control[BOUGH_PATH_MAX];
    bool has_broken = failure == BOUGH_E_CANCELLED || failure == BOUGH_E_UNREACHABLE;
    bool is_in_use = false;
    int lock_fd = take_over(&is_in_use, directory, has_broken ? REMOVE_MS : 0);
    if (lock_fd >= 0 && is_made) {
        if (has_broken &&
            bough_path(control, sizeof control, NULL, "%s/global/pg_control", directory) == 0 &&
            access(control, F_OK) != 0)
            bough_ignore(bough_empty_directory(directory, NULL));
        (void)rmdir(directory);
    }
    bool is_left = is_in_use || count_entries(directory) > 0;
    if (lock_fd >= 0) close(lock_fd);
    return !is_left;
}

/* Absolute, without the need that the last part exists. Free *out. */
static int absolute(char **out, const char *directory, bough_error *err) {
    *out = realpath(directory, NULL);
    return *out ? BOUGH_OK : bough_fail_sys(err, errno, "could not find \"%s\"", directory);
}

int cmd_export(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *branch = NULL;
    char store[BOUGH_PATH_MAX], *directory = NULL;
    bool is_made = false, is_ours = false;
    int rc = cli_store(store, sizeof store, args, err);
    if (!rc) rc = cli_connect_project(&client, &project, args, err);
    if (!rc) rc = bough_branch_find(&branch, client, project->id, args->words[0], err);
    if (!rc) rc = make_target(&is_made, args->words[1], err);
    if (rc) goto out;
    is_ours = true;
    rc = absolute(&directory, args->words[1], err);
    if (!rc) rc = give_away(directory, store, err);
    if (rc) goto out;
    cli_progress progress;
    cli_progress_begin(&progress, client, args);
    double began = bough_now_ms();
    rc = bough_branch_export(client, project->id, branch->id, directory, err);
    cli_progress_end(&progress, client);
    if (rc) goto out;
    if (args->json) {
        uint64_t bytes = 0;
        rc = bough_tree_bytes(&bytes, directory, err);
        if (!rc)
            rc = cli_print_json(json_pack("{s:s,s:s,s:I}", "branch", branch->name, "directory",
                                          directory, "bytes", (json_int_t)bytes),
                                err);
    } else {
        char took[32];
        cli_format_ms(took, sizeof took, bough_now_ms() - began);
        cli_say(args, "Branch %s is in %s, after %s", branch->name, directory, took);
    }
    is_ours = false; /* complete: keep it, even if saying so failed */
out:
    if (rc && is_ours && !undo(directory ? directory : args->words[1], is_made, rc) &&
        rc != BOUGH_E_CONFLICT)
        (void)bough_hint(err, "Something is left in \"%.200s\"; remove it.", args->words[1]);
    else if (rc == BOUGH_E_CANCELLED && is_ours)
        (void)bough_fail(err, rc, "cancelled; nothing was left behind");
    free(directory);
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}
