/**
 * The server itself: finding it, its status, stopping it. Starting one is the command line's work.
 */
#ifndef BOUGH_SERVER_H
#define BOUGH_SERVER_H

#include <stddef.h>

#include "bough/client.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What a server wrote into its store when it started (run/server.json). */
typedef struct bough_server {
    long pid;                 /**< process id */
    int is_alive;             /**< whether that very process runs, and none that got its id */
    int port;                 /**< TCP port of the HTTP API on 127.0.0.1 */
    const char *api_url;      /**< includes /api/v2 */
    const char *api_key_file; /**< absolute path, mode 0600 */
    const char *version;      /**< of the server; "" when not said */
    const char *started_at;   /**< RFC 3339; "" when not said */
    const char *json;         /**< the whole object as JSON text */
} bough_server;

/** What a running server says about itself. */
typedef struct bough_status {
    const char *version;      /**< of the server */
    const char *store;        /**< absolute path of its store */
    long pid;                 /**< process id */
    const char *api_url;      /**< includes /api/v2 */
    const char *postgres;     /**< address and port for PostgreSQL's clients */
    const char *api_key_file; /**< absolute path */
    long branches;            /**< how many exist */
    long computes;            /**< how many run */
    const char *json;         /**< the whole answer as JSON text */
} bough_status;

/**
 * Read which server a store belongs to. The server may have ended since: see is_alive.
 *
 * @param[out] server  Free with bough_server_free().
 * @param store        Store directory.
 * @retval BOUGH_E_NOTFOUND  No server has announced itself there.
 * @retval BOUGH_E_SYS       The store cannot be read by this user.
 * @retval BOUGH_E_CORRUPT   The file makes no sense.
 */
BOUGH_API BOUGH_CHECK int bough_server_find(bough_server **server, const char *store,
                                            bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_server_free(bough_server *server);

/**
 * Ask a server about itself.
 *
 * @param[out] status  Free with bough_status_free().
 * @retval BOUGH_E_UNREACHABLE  It does not answer.
 */
BOUGH_API BOUGH_CHECK int bough_status_get(bough_status **status, bough_client *client,
                                           bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_status_free(bough_status *status);

/**
 * Ask a server to end. Returns once it has agreed, which is before it has ended.
 *
 * @param stop_computes  Non-zero: stop the running computes first. 0: leave them to the next
 * server.
 */
BOUGH_API BOUGH_CHECK int bough_server_shutdown(bough_client *client, int stop_computes,
                                                bough_error *err);

/** Say that the machine's clock is right after it has jumped: branches expire by it again. */
BOUGH_API BOUGH_CHECK int bough_server_confirm_clock(bough_client *client, bough_error *err);

/**
 * Whose the bytes of the store are.
 *
 * @param[out] json  {"branches": [...], "shared_bytes", ..., "total_bytes"} as the API has it
 *                   (GET /bough/store/usage). Free with bough_server_text_free().
 */
BOUGH_API BOUGH_CHECK int bough_server_usage(char **json, bough_client *client, bough_error *err);

/**
 * Let go of what nothing needs any more, or only say what that is and what names each layer.
 *
 * @param[out] json  Of GET or POST /bough/store/gc. Free with bough_server_text_free().
 * @param dry_run    Non-zero: nothing is removed.
 */
BOUGH_API BOUGH_CHECK int bough_server_gc(char **json, bough_client *client, int dry_run,
                                          bough_error *err);

/** Free. NULL is allowed. */
BOUGH_API void bough_server_text_free(char *json);

#ifdef __cplusplus
}
#endif
#endif
