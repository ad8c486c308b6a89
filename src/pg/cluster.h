/**
 * Making clusters: initdb, physical import by pg_basebackup, logical import of dumps. All of it
 * leaves a plain PGDATA or works on a running compute; nothing here knows layers. Blocking; for
 * worker threads.
 */
#ifndef BOUGH_PG_CLUSTER_H
#define BOUGH_PG_CLUSTER_H

#include <stdint.h>

#include "pg/install.h"
#include "pg/sql.h"

/** Called about ten times a second; total_bytes is 0 when unknown. Non-zero return cancels. */
typedef int (*bough_pg_progress)(void *context, const char *phase, uint64_t done_bytes,
                                 uint64_t total_bytes);

/** initdb into an empty or missing directory: superuser BOUGH_ADMIN_ROLE, data checksums, UTF8,
 * C.UTF-8, no sync. */
BOUGH_CHECK int bough_cluster_init(const bough_pg *pg, const char *pgdata, bough_error *err);

/**
 * Remove a directory that one of these was making, with what a postgres that was killed there has
 * left to the kernel. A missing one is success.
 */
BOUGH_CHECK int bough_cluster_remove(const char *pgdata, bough_error *err);

/** What kind of SOURCE a string names. */
typedef enum bough_source_kind {
    BOUGH_SOURCE_URL,
    BOUGH_SOURCE_DUMP_CUSTOM,
    BOUGH_SOURCE_DUMP_DIRECTORY,
    BOUGH_SOURCE_DUMP_PLAIN,
    BOUGH_SOURCE_DUMP_GZIP
} bough_source_kind;

/**
 * Tell what SOURCE is: a postgres:// or postgresql:// URL, or a file made by pg_dump, by its first
 * bytes.
 * @retval BOUGH_E_INVALID   None of these.
 * @retval BOUGH_E_NOTFOUND  No such file, or not readable by this user.
 */
BOUGH_CHECK int bough_source_detect(bough_source_kind *kind, const char *source, bough_error *err);

/** What must be known of a source server before it is copied. */
typedef struct bough_source_info {
    int major;
    uint64_t bytes;   /**< sum of its databases */
    char **carried;   /**< NULL-terminated "name=value" settings for bough_conf; malloc'ed */
    char **databases; /**< NULL-terminated; connectable, not templates */
} bough_source_info;

/**
 * Connect and check: reachable, REPLICATION right, default block sizes, no tablespaces, version
 * known. Each failure has its own message and hint.
 *
 * @param watch  Looks on while the source is asked; connecting takes ten seconds at most for each
 *               address of the URL.
 * @retval BOUGH_E_CANCELLED  The watch gave up.
 */
BOUGH_CHECK int bough_source_check(bough_source_info *info, const char *url, bough_sql_watch watch,
                                   bough_error *err);
void bough_source_info_free(bough_source_info *info);

/**
 * Copy a server with pg_basebackup (WAL streamed), replay to consistency with a stock postgres
 * confined to the directory, ensure the role BOUGH_ADMIN_ROLE exists as superuser, drop slots and
 * subscriptions, stop cleanly.
 *
 * @param workdir  Missing or empty; on failure or cancel it is removed.
 */
BOUGH_CHECK int bough_cluster_import(const bough_pg *pg, const char *url, const char *workdir,
                                     bough_pg_progress progress, void *context, bough_error *err);

/** Where and as whom to restore a dump. */
typedef struct bough_restore_target {
    const bough_sql_place *at;
    const char *database; /**< exists, empty */
    const char *owner;    /**< role that owns everything afterwards */
} bough_restore_target;

/**
 * Restore a dump into a running compute: all or nothing as far as the caller then drops the branch.
 * Roles that the dump names and the cluster lacks are made NOLOGIN.
 */
BOUGH_CHECK int bough_cluster_restore(const bough_pg *pg, bough_source_kind kind, const char *path,
                                      const bough_restore_target *target,
                                      bough_pg_progress progress, void *context, bough_error *err);

#endif
