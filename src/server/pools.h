/**
 * A PgBouncer in front of a compute, in transaction mode: for clients of the hosts ID-pooler. It is
 * started when the first comes, and outlives boughd, as computes do. boughd hands clients over to
 * it as to a compute (preload/pool.h). Worker threads, with the branch's lock.
 */
#ifndef BOUGH_SERVER_POOLS_H
#define BOUGH_SERVER_POOLS_H

#include "server/server.h"

/** What an endpoint's id has behind it in the host name of its pooler. */
#define POOL_SUFFIX "-pooler"
/** The socket in its directory. */
#define POOL_SOCKET "s"

/**
 * Its directory, mode 0700, into BOUGH_PATH_MAX bytes. It is not within the endpoint's, which the
 * compute may read: the administrator's password is in it.
 */
BOUGH_CHECK int pools_dir(char *out, const server *srv, const char *endpoint, bough_error *err);

/**
 * Make sure it runs and takes clients.
 * @retval BOUGH_E_UNSUPPORTED  PgBouncer is not installed.
 */
BOUGH_CHECK int pools_use(server *srv, const char *endpoint, bough_error *err);

/**
 * Endpoints that have had one. Any thread.
 * @param[out] ids  malloc'ed; free().
 */
BOUGH_CHECK int pools_list(bough_id_list *ids, size_t *n, const server *srv, bough_error *err);

/** How many clients it has; 0 when it does not run. */
int pools_clients(const server *srv, const char *endpoint);

/** End it at once. @return Whether it ran. */
bool pools_stop(const server *srv, const char *endpoint);

/** End the one of a directory, whose endpoint is gone, and remove that. */
void pools_remove(const char *dir);

#endif
