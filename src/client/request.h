/**
 * One HTTP request to the server and its answer. Internal to libbough.
 */
#ifndef BOUGH_CLIENT_REQUEST_H
#define BOUGH_CLIENT_REQUEST_H

#include <curl/curl.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "bough/client.h"

/** Longest answer accepted, and longest line of a stream of progress. */
#define BOUGH_ANSWER_MAX ((size_t)64 * 1024 * 1024)

/** Longest path with query of a request. */
#define BOUGH_REQUEST_PATH_MAX 4096

struct bough_client {
    CURL *curl;    /* one handle, reused: keeps the connection */
    CURLM *multi;  /* drives it, so that waiting can be interrupted */
    int cancel_fd; /* eventfd; readable once cancelled */
    atomic_bool cancelled;
    char *store;         /* NULL with api_url */
    char *api_url;       /* without a slash at the end */
    char *authorization; /* header line; secret */
    long timeout_ms;
    bough_progress_fn progress;
    void *progress_arg;
};

typedef struct bough_request {
    const char *method; /* "GET", "POST", "PATCH", "PUT" or "DELETE" */
    const char *path;   /* below api_url, begins with '/'; escaped already */
    json_t *body;       /* borrowed; NULL for none */
    bool is_long;       /* ask for progress, wait without limit */
} bough_request;

/**
 * Send a request, wait for the answer.
 *
 * @param[out] answer  The answer's JSON; NULL when it had none (204). The caller decrefs.
 * @retval BOUGH_OK    The status was 2xx.
 */
BOUGH_CHECK int bough_request_send(json_t **answer, bough_client *client,
                                   const bough_request *request, bough_error *err);

/** GET a path. The same as above. */
BOUGH_CHECK int bough_request_get(json_t **answer, bough_client *client, bough_error *err,
                                  const char *path_fmt, ...) BOUGH_PRINTF(4, 5);

/**
 * Format a path, escaping each %s argument for a URL. Only %s and %d may be used.
 * @retval BOUGH_E_INVALID  It would not fit.
 */
BOUGH_CHECK int bough_request_path(char *out, size_t size, bough_error *err, const char *fmt, ...)
    BOUGH_PRINTF(4, 5);

/**
 * Turn an error answer into a code, message and hint.
 *
 * @param http_status  Of the answer.
 * @param answer       Its body; NULL where it was no JSON.
 * @return             Never BOUGH_OK.
 */
int bough_request_fail(bough_error *err, long http_status, const json_t *answer);

#endif
