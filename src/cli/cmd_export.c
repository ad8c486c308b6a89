/* bough export: a branch as a plain PGDATA. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bough/branch.h"
#include "cli/cli.h"
#include "util/fs.h"

#define QUIET_MS                                                                                   \
    500 /* how long nothing new may appear before the server is believed to have stopped */
#define REMOVE_MS 60000

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

static int empty_out(const char *directory, bough_error *err) {
    DIR *dir = opendir(directory);
    int rc = BOUGH_OK;
    for (const struct dirent *entry; dir && !rc && (entry = readdir(dir));) {
        char path[BOUGH_PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        rc = bough_path(path, sizeof path, err, "%s/%s", directory, entry->d_name);
        if (!rc) rc = bough_rmtree(path, err);
    }
    if (dir) closedir(dir);
    return rc;
}

/* Remove what was written. A cancelled server may write a moment longer: look until it stays quiet.
 * It also removes files itself, so only what is there at the end tells whether something is left.
 */
static int undo(const char *directory, bool is_made) {
    double until = bough_now_ms() + REMOVE_MS, quiet_since = bough_now_ms();
    while (bough_now_ms() < until && bough_now_ms() - quiet_since < QUIET_MS) {
        if (count_entries(directory) > 0) {
            bough_ignore(empty_out(directory, NULL));
            quiet_since = bough_now_ms();
        }
        struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
        (void)nanosleep(&pause, NULL);
    }
    if (!is_made) return count_entries(directory) > 0 ? BOUGH_E_SYS : BOUGH_OK;
    return rmdir(directory) != 0 && errno != ENOENT ? BOUGH_E_SYS : BOUGH_OK;
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
    if (rc && is_ours && undo(directory ? directory : args->words[1], is_made) != BOUGH_OK)
        (void)bough_hint(err, "Something is left in \"%.200s\"; remove it.", args->words[1]);
    else if (rc == BOUGH_E_CANCELLED && is_ours)
        (void)bough_fail(err, rc, "cancelled; nothing was left behind");
    free(directory);
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}
