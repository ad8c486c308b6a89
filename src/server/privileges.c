/*
 * Becoming the user that computes run as. PostgreSQL refuses root, so root is given up completely
 * before anything else is touched; only the store directory and our copy of the preload library are
 * prepared before.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/computes.h"
#include "server/tls.h"

#define PRELOAD_MAX ((size_t)64 * 1024 * 1024)
#define HASH_DIGITS 12
#define DEFAULT_USER "postgres"

/* "/run/", an endpoint's id (model/ids.h), "/d" (COMPUTE_HANDOFF_DIR), "/.s.PGSQL.5432", within
 * sun_path of 108 bytes. */
#define STORE_PATH_MAX (107 - 5 - 23 - 2 - 14)

/* Give up root for good. */
static int drop_root(const struct passwd *pw, bough_error *err) {
    if (initgroups(pw->pw_name, pw->pw_gid) != 0 ||
        setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) != 0 ||
        setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) != 0)
        return bough_fail_sys(err, errno, "could not become user \"%s\"", pw->pw_name);
    if (setuid(0) == 0 || geteuid() == 0)
        return bough_fail(err, BOUGH_E_INTERNAL, "root was not given up");
    (void)setenv("HOME", pw->pw_dir, 1);
    (void)setenv("USER", pw->pw_name, 1);
    (void)setenv("LOGNAME", pw->pw_name, 1);
    return BOUGH_OK;
}

/* As root: the directory exists and is the user's. An existing one of somebody else is not taken
 * over. */
static int prepare_store(const char *store, const struct passwd *pw, bough_error *err) {
    struct stat st;
    if (stat(store, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            return bough_fail(err, BOUGH_E_INVALID, "\"%s\" is not a directory", store);
        if (st.st_uid == pw->pw_uid) return BOUGH_OK;
        if (rmdir(store) != 0) {
            (void)bough_fail(err, BOUGH_E_PRECONDITION,
                             "the store \"%s\" does not belong to user \"%s\"", store, pw->pw_name);
            return bough_hint(err, "Choose another --store, or chown -R it to that user.");
        }
    }
    int rc = bough_mkdirs(store, 0755, err);
    if (rc) return rc;
    if (chmod(store, 0700) != 0 || chown(store, pw->pw_uid, pw->pw_gid) != 0)
        return bough_fail_sys(err, errno, "could not prepare \"%s\"", store);
    return BOUGH_OK;
}

/* As root, "postgres" or the user asked for. */
static int become(server *srv, const server_options *options, const char *name, bough_error *err) {
    errno = 0;
    const struct passwd *pw = getpwnam(name);
    if (!pw) {
        (void)bough_fail(err, BOUGH_E_PRECONDITION,
                         "there is no user \"%s\", which computes run as", name);
        return bough_hint(
            err, "Install PostgreSQL, which makes the user postgres, or choose one with --run-as.");
    }
    if (pw->pw_uid == 0) {
        (void)bough_fail(err, BOUGH_E_INVALID, "computes cannot run as root");
        return bough_hint(err, "Choose another user with --run-as.");
    }
    int rc = prepare_store(options->store, pw, err);
    if (!rc) cgroup_open(&srv->cgroup, options->test_cgroup, pw->pw_uid, pw->pw_gid);
    if (!rc) rc = drop_root(pw, err);
    return rc;
}

static int copy_preload(server *srv, const char *data, size_t size, bough_error *err) {
    char hash[BOUGH_HASH_SIZE], dir[BOUGH_PATH_MAX];
    int rc = bough_secret_hash(hash, data, size, err);
    if (!rc) rc = bough_path(dir, sizeof dir, err, "%s/lib", srv->store_dir);
    if (!rc) rc = bough_mkdirs(dir, 0755, err);
    if (!rc)
        rc = bough_path(srv->preload, sizeof srv->preload, err, "%s/libbough_pg-%.*s.so", dir,
                        HASH_DIGITS, hash);
    if (rc || access(srv->preload, R_OK) == 0) return rc; /* written atomically: it is whole */
    return bough_write_file(srv->preload, data, size, 0555, err);
}

/* Where the preload library is when nobody says: beside us, as built or as installed. */
static int find_preload(char *out, size_t size, bough_error *err) {
    static const char *const places[] = {"libbough_pg.so", "../preload/libbough_pg.so",
                                         "../../lib/bough/libbough_pg.so",
                                         "../lib/bough/libbough_pg.so"};
    char self[BOUGH_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return bough_fail_sys(err, errno, "could not read \"/proc/self/exe\"");
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        int rc = bough_path(out, size, err, "%s/%s", self, places[i]);
        if (rc) return rc;
        if (access(out, R_OK) == 0) return BOUGH_OK;
    }
    (void)bough_fail(err, BOUGH_E_NOTFOUND, "libbough_pg.so is not beside boughd");
    return bough_hint(err, "Say where it is with --preload.");
}

int server_become_user(server *srv, const server_options *options, bough_error *err) {
    char *data = NULL, found[BOUGH_PATH_MAX];
    size_t size = 0;
    int rc = BOUGH_OK;
    if (strlen(options->store) > STORE_PATH_MAX) {
        (void)bough_fail(err, BOUGH_E_INVALID,
                         "the store's path is longer than %d bytes, too long for sockets",
                         STORE_PATH_MAX);
        return bough_hint(err, "Choose a shorter --store.");
    }
    if (options->preload)
        rc = bough_path(found, sizeof found, err, "%s", options->preload);
    else
        rc = find_preload(found, sizeof found, err);
    if (!rc) rc = bough_read_file(&data, &size, found, PRELOAD_MAX, err);
    if (!rc) rc = tls_read_given(srv, options, err);
    if (!rc && geteuid() == 0)
        rc = become(srv, options, options->run_as ? options->run_as : DEFAULT_USER, err);
    else if (!rc)
        cgroup_open(&srv->cgroup, options->test_cgroup, geteuid(), getegid());
    const struct passwd *pw = getpwuid(geteuid());
    if (!rc && options->run_as && (!pw || strcmp(pw->pw_name, options->run_as) != 0)) {
        (void)bough_fail(err, BOUGH_E_USAGE, "only root can run as user \"%s\"", options->run_as);
        rc = bough_hint(err, "Leave out --run-as.");
    }
    if (!rc && !pw)
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "the user id %d has no name", (int)geteuid());
    if (!rc) (void)snprintf(srv->os_user, sizeof srv->os_user, "%s", pw->pw_name);
    if (!rc) rc = bough_mkdirs(options->store, 0700, err);
    if (rc == BOUGH_E_SYS || (!rc && access(options->store, R_OK | W_OK | X_OK) != 0)) {
        (void)bough_fail_sys(err, errno, "user \"%s\" cannot use the store \"%s\"", srv->os_user,
                             options->store);
        rc = bough_hint(err, "Choose a --store that this user reaches, e.g. under /var/lib.");
    }
    char *real = rc ? NULL : realpath(options->store, NULL);
    if (!rc && !real) rc = bough_fail_sys(err, errno, "could not resolve \"%s\"", options->store);
    if (!rc) rc = bough_path(srv->store_dir, sizeof srv->store_dir, err, "%s", real);
    free(real);
    if (!rc) rc = copy_preload(srv, data, size, err);
    free(data);
    return rc;
}
