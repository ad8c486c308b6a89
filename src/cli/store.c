/* Which store, which server, which project a command line means. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/fs.h"
#include "util/utf8.h"

/* The default store of this user. */
static int default_store(char *out, size_t size, bough_error *err) {
    if (geteuid() == 0) return bough_path(out, size, err, "/var/lib/bough");
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && *data == '/') return bough_path(out, size, err, "%s/bough", data);
    if (!home || *home != '/') {
        const struct passwd *pw = getpwuid(geteuid());
        home = pw ? pw->pw_dir : NULL;
    }
    if (!home) {
        (void)bough_fail(err, BOUGH_E_USAGE, "this user has no home directory");
        return bough_hint(err, "Choose a store with --store.");
    }
    return bough_path(out, size, err, "%s/.local/share/bough", home);
}

/* What is told of a store is JSON, which has no other text. */
static int check_utf8(const char *store, bough_error *err) {
    if (bough_utf8_is(store)) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_INVALID, "the path of store \"%.300s\" is not UTF-8", store);
    return bough_hint(err, "Choose another with --store.");
}

int cli_store(char *out, size_t size, const cli_args *args, bough_error *err) {
    const char *given = cli_get(args, "store"), *variable = getenv("BOUGH_STORE");
    if (!given && variable && *variable) given = variable;
    if (!given) {
        int rc = default_store(out, size, err);
        return rc ? rc : check_utf8(out, err);
    }
    char *real = realpath(given, NULL);
    struct stat st;
    int rc;
    if (real && stat(real, &st) == 0 && !S_ISDIR(st.st_mode)) {
        rc = bough_fail(err, BOUGH_E_INVALID, "store \"%s\" is not a directory", given);
    } else if (real) {
        rc = bough_path(out, size, err, "%s", real);
    } else if (*given == '/') {
        rc = bough_path(out, size, err, "%s", given);
    } else {
        char *here = getcwd(NULL, 0);
        rc = here ? bough_path(out, size, err, "%s/%s", here, given)
                  : bough_fail_sys(err, errno, "could not find out the current directory");
        free(here);
    }
    free(real);
    return rc ? rc : check_utf8(out, err);
}

const char *cli_store_hint(const cli_args *args) {
    static char text[BOUGH_PATH_MAX + 16];
    char quoted[BOUGH_PATH_MAX];
    const char *given = cli_get(args, "store");
    if (!given) return "";
    cli_quote(quoted, sizeof quoted, given);
    (void)snprintf(text, sizeof text, " --store %s", quoted);
    return text;
}

void cli_psql_hint(const cli_args *args, const char *branch, const char *project) {
    char branch_text[1100] = "", project_text[1100] = "", quoted[1024];
    if (branch) {
        cli_quote(quoted, sizeof quoted, branch);
        (void)snprintf(branch_text, sizeof branch_text, " %s", quoted);
    }
    if (project) {
        cli_quote(quoted, sizeof quoted, project);
        (void)snprintf(project_text, sizeof project_text, " --project %s", quoted);
    }
    cli_say(args, "  connect with `bough psql%s%s%s`", branch_text, project_text,
            cli_store_hint(args));
}

int cli_connect(bough_client **client, const cli_args *args, bough_error *err) {
    char store[BOUGH_PATH_MAX];
    *client = NULL;
    int rc = cli_store(store, sizeof store, args, err);
    bough_client_options options = {.version = BOUGH_CLIENT_OPTIONS_VERSION, .store = store};
    if (!rc) rc = bough_client_open(client, &options, err);
    if (rc == BOUGH_E_UNREACHABLE)
        (void)bough_hint(err, "Start it with `bough up%s`.", cli_store_hint(args));
    if (!rc) cli_interrupt_target(*client);
    return rc;
}

void cli_disconnect(bough_client *client) {
    cli_interrupt_target(NULL);
    bough_client_close(client);
}

int cli_connect_project(bough_client **client, bough_project **project, const cli_args *args,
                        bough_error *err) {
    const char *name = cli_get(args, "project"), *variable = getenv("BOUGH_PROJECT");
    *project = NULL;
    if (!name && variable && *variable) name = variable;
    int rc = cli_connect(client, args, err);
    if (!rc) rc = bough_project_find(project, *client, name, err);
    if (rc) {
        cli_disconnect(*client);
        *client = NULL;
    }
    return rc;
}
