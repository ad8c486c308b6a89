/**
 * boughd: what its parts share. One loop thread does HTTP; worker threads do everything that
 * blocks.
 *
 * Who may touch what: the store, the catalogue, the locks, the computes and the pools are for any
 * thread (see their headers); event_base objects other than pidfd watches are the loop thread's.
 */
#ifndef BOUGH_SERVER_SERVER_H
#define BOUGH_SERVER_SERVER_H

#include <event2/event.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "model/catalogue.h"
#include "model/secret.h"
#include "server/cgroup.h"
#include "server/jobs.h"
#include "server/locks.h"
#include "store/store.h"
#include "util/fs.h"

/** What the command line says. Strings are borrowed from argv. */
typedef struct server_options {
    const char *store, *preload, *run_as;
    int port;                    /**< 0: 7117, or any free one */
    int ready_fd;                /**< or -1 */
    const char *test_clock_file; /**< see server/clock.h; NULL: the machine's clocks */
    const char *test_cgroup;     /**< see server/cgroup.h; NULL: the kernel's */
    int test_point_kib;          /**< WAL between two restore points; 0: see server/history.h */
    bool log_json;
    bool foreground; /**< it always stays there */
    const char
        *listen; /**< "ADDRESS:PORT" of the front door; NULL: 127.0.0.1:5433, or a free one */
    const char *domain;             /**< endpoints are called ID.domain; NULL: localhost */
    const char *tls_cert, *tls_key; /**< files in PEM format; NULL: made by us */
    int max_awake;                  /**< 0: no limit */
    int api_rate, api_burst;        /**< requests of an API key; -1: KEYS_PER_MINUTE, ..._SECOND */
    bool limits_local_key;          /**< that in the store's file has limits, too */
    int sql_seconds;                /**< that a request to /sql may take; 0: SQL_SECONDS */
    const char *trusted_proxies;    /**< whose X-Forwarded-For counts: rules with commas; NULL */
    int wakes_per_endpoint, wakes_per_address; /**< a minute; 0: the usual */
    bool allow_cleartext;                      /**< from elsewhere than this machine, too */
} server_options;

typedef struct server {
    char store_dir[BOUGH_PATH_MAX];
    char preload[BOUGH_PATH_MAX]; /**< our copy of the library, in the store */
    char os_user[64];             /**< whom we run as */
    char api_url[64];
    char api_key_file[BOUGH_PATH_MAX];
    char started_at[32];
    int port;
    char tls_dir[BOUGH_PATH_MAX], tls_cert[BOUGH_PATH_MAX], tls_key[BOUGH_PATH_MAX];
    struct tls_authority *authority; /**< NULL where a certificate was given */
    char *given_cert, *given_key;    /**< what --tls-cert and --tls-key named, until it is used */
    cgroup cgroup;                   /**< limits of computes */
    char trusted[BOUGH_ALLOW_SIZE];  /**< proxies (server/forwarded.h) */
    int max_awake;                   /**< computes; 0: no limit */
    uint64_t point_bytes; /**< of WAL between two restore points at checkpoints; tests have less */
    uint64_t point_latest_bytes; /**< and without a checkpoint between them */
    int least_suspend_seconds;   /**< 60; tests have less */
    bool is_announced;           /**< run/server.json is ours */
    bough_store *store;
    bough_catalogue *cat;
    bough_secret_key key;
    struct keys *keys;     /**< of the API */
    int api_rate;          /**< requests a minute of a key; 0: no limit */
    int api_burst;         /**< a second, of a key and a route */
    bool limits_local_key; /**< that of the store's file, too */
    lock_table *locks;
    struct clock_guard *clock;
    struct lifecycle *lifecycle;
    struct computes *computes;
    struct usage_cache *usages;
    struct listed *listed;
    struct leftovers *leftovers;
    job_pool *requests;    /**< API requests */
    job_pool *longs;       /**< API requests that may take hours */
    job_pool *background;  /**< what nobody waits for */
    job_pool *housekeeper; /**< one thread, see housekeeping.c */
    atomic_bool is_housekeeping;
    double next_round_ms; /**< of bough_now_ms(); the housekeeper's, or who has is_housekeeping */
    atomic_bool is_mending;
    double next_mend_ms; /**< of bough_now_ms(); of who has is_mending */
    struct event_base *loop;
    struct http *http;
    struct websockets *websockets;
    struct door *door;       /**< where PostgreSQL's clients come in */
    job_pool *sqls;          /**< POST /sql */
    int sql_seconds;         /**< that one may take */
    job_pool *lookups;       /**< of the door: which endpoint is meant */
    job_pool *wakes;         /**< of the door: starts of computes */
    atomic_bool has_lists;   /**< some project says who may connect */
    atomic_bool is_disk_low; /**< see space.h */
    atomic_bool stopping;    /**< long work ends early */
    atomic_bool stop_computes;
} server;

/**
 * Read the command line (options.c). Texts are borrowed from argv.
 * @return BOUGH_OK, or 1 where --help or --version was all.
 * @retval BOUGH_E_USAGE
 */
BOUGH_CHECK int server_options_read(server_options *options, int argc, char **argv,
                                    bough_error *err);

/** Make everything ready and adopt what runs (startup.c). */
BOUGH_CHECK int server_open(server *srv, const server_options *options, bough_error *err);

/** Undo server_open(), as far as it got. Waits for running jobs, bounded. */
void server_close(server *srv);

/** Become the user computes run as; prepare the store directory and copy the preload library
 * (privileges.c). */
BOUGH_CHECK int server_become_user(server *srv, const server_options *options, bough_error *err);

/** End the loop; from any thread. */
void server_stop(server *srv);

#endif
