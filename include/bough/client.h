/**
 * A connection to a Bough server.
 *
 * libbough is what the `bough` command line is made of. Every function that can fail returns
 * BOUGH_OK or a negative code (bough/error.h) and describes the failure in the caller's
 * bough_error; outputs come first and are set to NULL on failure.
 *
 * Threads: a bough_client belongs to one thread at a time. bough_client_cancel() alone may be
 * called from any thread and from a signal handler. Different clients are independent.
 *
 * Memory: what a function puts into an output belongs to the caller, who frees it with the function
 * named there. Strings inside a result live as long as the result. A result does not need its
 * client any more.
 */
#ifndef BOUGH_CLIENT_H
#define BOUGH_CLIENT_H

#include <stdint.h>

#include "bough/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A client of one server. Opaque. */
typedef struct bough_client bough_client;

/** Value of bough_client_options.version for this header. */
#define BOUGH_CLIENT_OPTIONS_VERSION 1

/** How to reach a server. Set everything to zero but `version`, then what is needed. */
typedef struct bough_client_options {
    unsigned version;    /**< BOUGH_CLIENT_OPTIONS_VERSION */
    const char *store;   /**< store directory: URL and key are read from its run/server.json */
    const char *api_url; /**< instead of a store: URL that includes /api/v2 */
    const char *api_key; /**< instead of the store's key file; needed with api_url */
    long timeout_ms;     /**< limit of one ordinary request; 0 means 300,000. Imports and exports
                              have none: cancel them */
} bough_client_options;

/** How far long work has come. */
typedef struct bough_progress {
    const char *phase;    /**< what is being done, e.g. "copying"; never NULL */
    uint64_t done_bytes;  /**< so far in this phase */
    uint64_t total_bytes; /**< expected in this phase; 0 when unknown */
} bough_progress;

/**
 * Called while long work runs, in the thread that asked for the work.
 *
 * @param progress  Valid during the call only.
 * @param arg       What bough_client_set_progress() was given.
 * @return          0 to go on; anything else cancels, as bough_client_cancel() does.
 */
typedef int (*bough_progress_fn)(const bough_progress *progress, void *arg);

/** Version of this library, e.g. "0.1.0". */
BOUGH_API const char *bough_version(void);

/**
 * Prepare to talk to a server. No connection is made yet.
 *
 * @param[out] client  Close with bough_client_close().
 * @param options      Copied.
 * @param[out] err     Describes the failure; may be NULL, here and everywhere.
 *
 * @retval BOUGH_OK
 * @retval BOUGH_E_UNREACHABLE  No server runs on that store.
 * @retval BOUGH_E_SYS          The store's files cannot be read by this user.
 * @retval BOUGH_E_INVALID      Neither store nor api_url, or a version this library does not know.
 * @retval BOUGH_E_NOMEM
 */
BOUGH_API BOUGH_CHECK int bough_client_open(bough_client **client,
                                            const bough_client_options *options, bough_error *err);

/** Close the connection and free. NULL is allowed. */
BOUGH_API void bough_client_close(bough_client *client);

/** The URL the client talks to, including /api/v2; lives as long as the client. */
BOUGH_API const char *bough_client_url(const bough_client *client);

/** Be told about the progress of long work from now on. NULL as `progress` ends that. */
BOUGH_API void bough_client_set_progress(bough_client *client, bough_progress_fn progress,
                                         void *arg);

/**
 * Make the call under way, and all later ones, fail with BOUGH_E_CANCELLED. The connection is
 * closed, upon which the server undoes unfinished work. Any thread; safe in a signal handler.
 */
BOUGH_API void bough_client_cancel(bough_client *client);

/** Forget an earlier bough_client_cancel(): later calls work again. */
BOUGH_API void bough_client_uncancel(bough_client *client);

#ifdef __cplusplus
}
#endif
#endif
