/**
 * The superuser through which Bough speaks to its computes. It has a password, one per store, and
 * not peer authentication: computes of one store run as the same user, and Landlock does not keep a
 * process from connecting to another compute's socket, so peer would let a hostile extension in
 * next door.
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

/**
 * Make the role BOUGH_ADMIN_ROLE with that password in a cluster that is not running, by a
 * single-user backend (which also replays what the cluster has to replay).
 *
 * @param scratch   A second directory that the backend may write to, or NULL.
 * @param database  An existing database.
 * @param tick      Called while it runs; non-zero ends it with BOUGH_E_CANCELLED. May be NULL.
 */
BOUGH_CHECK int bough_admin_install(const bough_pg *pg, const char *pgdata, const char *scratch,
                                    const char *database, int (*tick)(void *context, pid_t pid),
                                    void *context, bough_error *err);

#endif
