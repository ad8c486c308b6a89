/**
 * The superuser through which Bough speaks to its computes. It has a password, one per store, and
 * not peer authentication: computes of one store run as the same user, and Landlock does not keep a
 * process from connecting to another compute's socket, so peer would let a hostile extension in
 * next door.
 *
 * The password alone opens no compute: a hostile one may learn it by asking for it in clear, and a
 * cluster has its parent's, whoever it is the child of. What opens one is its key, made anew at
 * each start (preload/admit.c).
 *
 * What a cluster holds is a SCRAM verifier made with a single iteration: the password is 256 random
 * bits, so slow hashing would protect nothing, and it would cost milliseconds at every start.
 */
#ifndef BOUGH_PG_ADMIN_H
#define BOUGH_PG_ADMIN_H

#include <sys/types.h>

#include "pg/install.h"

/**
 * Read the password from a file, or make both (mode 0600). boughd calls this once at its start,
 * with STORE/admin_password, before any thread uses it and before any cluster is made or connected
 * to.
 */
BOUGH_CHECK int bough_admin_open(const char *path, bough_error *err);

/** The password; empty before bough_admin_open(). Borrowed. */
const char *bough_admin_password(void);

/** Hexadecimal digits of a password, and the NUL. */
#define BOUGH_ADMIN_PASSWORD_SIZE 65

/** Make another one: for a server that is not a compute yet. */
BOUGH_CHECK int bough_admin_make_password(char *out, bough_error *err);

/** What a cluster keeps of the store's password, as PASSWORD of ALTER ROLE takes it. */
BOUGH_CHECK int bough_admin_verifier(char *out, size_t size, bough_error *err);

/** How to make the role; strings are borrowed. */
typedef struct bough_admin_spec {
    const bough_pg *pg;
    const char *pgdata;
    const char *scratch;  /**< a second directory that the backend may write to, or NULL */
    const char *database; /**< an existing one */
    const char *password; /**< NULL: the store's */
    /** Called while it runs; non-zero ends it with BOUGH_E_CANCELLED. May be NULL. */
    int (*tick)(void *context, pid_t pid);
    void *context;
} bough_admin_spec;

/**
 * Make the role BOUGH_ADMIN_ROLE with that password in a cluster that is not running, by a
 * single-user backend (which also replays what the cluster has to replay).
 */
BOUGH_CHECK int bough_admin_install(const bough_admin_spec *spec, bough_error *err);

#endif
