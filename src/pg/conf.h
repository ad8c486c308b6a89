/**
 * Configuration files of a compute: postgresql.conf, pg_hba.conf, pg_ident.conf. What a branch
 * needs so that it never acts on the outside world as its parent is decided here (DESIGN section
 * 6).
 */
#ifndef BOUGH_PG_CONF_H
#define BOUGH_PG_CONF_H

#include <stdbool.h>

#include "bough/error.h"

/** The superuser through which Bough itself speaks to a compute; see pg/admin.h, never given to
 * users. */
#define BOUGH_ADMIN_ROLE "bough_admin"
/** Bytes of the name by which it comes in to a compute: with a key (preload/admit.c). */
#define BOUGH_ADMIN_USER_SIZE 64
/** The role by which the standbys of a branch receive its WAL (server/standbys.h). */
#define BOUGH_STANDBY_ROLE "bough_standby"

/** What goes into the files. Strings are borrowed. */
typedef struct bough_conf {
    int major;               /**< of the PostgreSQL that will run */
    int quarters;            /**< its size in quarters of a compute unit; 0: one unit */
    bool has_lz4;            /**< as in bough_pg */
    const char *socket_dir;  /**< absolute */
    const char *handoff_dir; /**< absolute: a second, private directory of sockets; NULL: none */
    const char *tls_cert, *tls_key; /**< files of the server's certificate; NULL: no TLS */
    bool is_closed;                 /**< only the administrator may connect */
    bool is_read_only;              /**< transactions are, unless they say otherwise */
    bool hold_wal;       /**< keep all WAL (wal_keep_size) while layers are not durable yet */
    bool is_followed;    /**< keep some WAL for those that follow it, and let them in */
    const char *primary; /**< connection string of the server that it follows as a hot standby; "":
                            that one sleeps; NULL: it follows none */
    const char *restore; /**< with `primary`: the command that fetches a WAL segment */
    int least_connections; /**< with `primary`: max_connections of the server that it follows */
    const char *const *carried; /**< NULL-terminated "name=value" from the source: recovery minima
                                     (max_connections, ...), shared_preload_libraries, locale
                                   settings; the writer drops and overrides what would act outside.
                                   NULL: what an earlier call wrote into bough_carried.conf stays */
} bough_conf;

/** Write (replace) the three files in `pgdata`. Each is replaced atomically. */
BOUGH_CHECK int bough_conf_write(const char *pgdata, const bough_conf *conf, bough_error *err);

/** Write them again and make the running postmaster read them (SIGHUP). */
BOUGH_CHECK int bough_conf_rewrite(const char *pgdata, const bough_conf *conf, int postmaster_pid,
                                   bough_error *err);

/** Whether what was written last has `hold_wal`. */
bool bough_conf_holds_wal(const char *pgdata);

/** Whether what was written last takes TLS (`tls_cert`). */
bool bough_conf_has_tls(const char *pgdata);

/** What max_connections is by the files in `pgdata`, at the latest start or the next one. */
BOUGH_CHECK int bough_conf_connections(int *connections, const char *pgdata, bough_error *err);

/** Read back the `carried` settings stored beside the configuration (bough_carried.conf); free with
 * free() each and the list. */
BOUGH_CHECK int bough_conf_carried(char ***carried, const char *pgdata, bough_error *err);

#endif
