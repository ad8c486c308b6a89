/* Opening and closing a client; the server of a store. See include/bough/client.h and server.h. */
#include "bough/client.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bough/server.h"
#include "client/box.h"
#include "client/request.h"
#include "util/error.h"
#include "util/fs.h"
#include "util/jsontext.h"
#include "util/process.h"

#define SERVER_FILE_MAX ((size_t)64 * 1024)
#define KEY_FILE_MAX ((size_t)4096)
#define DEFAULT_TIMEOUT_MS 300000L

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static int curl_failed;

static void start_curl(void) {
    curl_failed = curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK;
}

const char *bough_version(void) {
    return BOUGH_VERSION;
}

/* Of a server from before there were marks: whether who has the number now looks like one, and may
 * read the key. */
static bool is_unmarked(long pid, const char *store, const char *server_file) {
    char path[64];
    struct stat process, file;
    (void)snprintf(path, sizeof path, "/proc/%ld", pid);
    return pid > 0 && stat(path, &process) == 0 && stat(server_file, &file) == 0 &&
           (process.st_uid == file.st_uid || process.st_uid == 0) &&
           bough_process_is_server((pid_t)pid, store);
}

/* Whether it is the very process that wrote the file. Any other may have its number by now, and
 * its port; whoever is asked there is told the key. */
static int is_writer(int *is, const json_t *root, const char *store, const char *server_file,
                     bough_error *err) {
    char mark[BOUGH_PROCESS_MARK_SIZE];
    long pid = bough_json_int(root, "pid");
    if (!json_object_get(root, "process")) {
        *is = is_unmarked(pid, store, server_file);
        return BOUGH_OK;
    }
    int rc = pid > 0 ? bough_process_mark(mark, (pid_t)pid, err) : BOUGH_E_NOTFOUND;
    *is = rc == BOUGH_OK && strcmp(mark, bough_json_text(root, "process")) == 0;
    if (rc == BOUGH_E_NOMEM) return rc;
    bough_error_clear(err);
    return BOUGH_OK;
}

int bough_server_find(bough_server **server, const char *store, bough_error *err) {
    *server = NULL;
    char path[BOUGH_PATH_MAX], *text = NULL;
    size_t size = 0;
    int rc = bough_path(path, sizeof path, err, "%s/run/server.json", store);
    if (!rc) rc = bough_read_file(&text, &size, path, SERVER_FILE_MAX, err);
    if (rc) return rc;
    json_error_t error;
    json_t *root = bough_json_load(text, size, 0, &error);
    free(text);
    if (!root && bough_json_lacked_memory(&error))
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    bough_server *s = json_is_object(root) ? bough_box_new(sizeof *s, root) : NULL;
    if (!s) {
        rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" makes no sense", path);
        goto out;
    }
    s->pid = bough_json_int(root, "pid");
    rc = is_writer(&s->is_alive, root, store, path, err);
    s->port = bough_json_int(root, "port");
    s->api_url = bough_json_text(root, "api_url");
    s->api_key_file = bough_json_text(root, "api_key_file");
    s->version = bough_json_text(root, "version");
    s->started_at = bough_json_text(root, "started_at");
    s->json = bough_box_text(s, root);
    if (!rc && (s->pid <= 0 || !*s->api_url))
        rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" lacks \"pid\" or \"api_url\"", path);
    if (rc)
        bough_box_free(s);
    else
        *server = s;
out:
    json_decref(root);
    return rc;
}

void bough_server_free(bough_server *server) {
    bough_box_free(server);
}

/* The header line that proves who we are. */
static int set_key(bough_client *client, const char *key, bough_error *err) {
    size_t size = strcspn(key, " \t\r\n");
    if (!size) return bough_fail(err, BOUGH_E_AUTH, "the API key is empty");
    if (asprintf(&client->authorization, "Authorization: Bearer %.*s", (int)size, key) < 0) {
        client->authorization = NULL;
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    return BOUGH_OK;
}

static int no_server(bough_error *err, const char *store) {
    int rc = bough_fail(err, BOUGH_E_UNREACHABLE, "no server runs on store \"%s\"", store);
    (void)bough_hint(err, "Start it with `bough up`.");
    return rc;
}

/* A file of the store that this user may not read: say whose store it is. */
static int explain_access(bough_error *err, int rc, const char *store) {
    if (err && rc == BOUGH_E_SYS && err->sys_errno == EACCES)
        (void)bough_hint(err,
                         "Store \"%s\" belongs to another user; act as that user or choose another "
                         "with --store.",
                         store);
    return rc;
}

static int read_store(bough_client *client, const bough_client_options *options, bough_error *err) {
    bough_server *server = NULL;
    char path[BOUGH_PATH_MAX], *key = NULL;
    size_t size = 0;
    int rc = bough_server_find(&server, options->store, err);
    if (rc == BOUGH_E_NOTFOUND) return no_server(err, options->store);
    if (rc) return explain_access(err, rc, options->store);
    if (!server->is_alive) {
        rc = no_server(err, options->store);
        goto out;
    }
    rc = *server->api_key_file ? bough_path(path, sizeof path, err, "%s", server->api_key_file)
                               : bough_path(path, sizeof path, err, "%s/api_key", options->store);
    if (!rc && options->api_key)
        rc = set_key(client, options->api_key, err);
    else if (!rc)
        rc = bough_read_file(&key, &size, path, KEY_FILE_MAX, err);
    if (rc) {
        rc = explain_access(err, rc, options->store);
        goto out;
    }
    if (key) rc = set_key(client, key, err);
    if (rc) goto out;
    client->api_url = strdup(server->api_url);
    client->store = strdup(options->store);
    if (!client->api_url || !client->store) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
out:
    if (key) explicit_bzero(key, size);
    free(key);
    bough_server_free(server);
    return rc;
}

int bough_client_open(bough_client **client, const bough_client_options *options,
                      bough_error *err) {
    *client = NULL;
    if (options->version != BOUGH_CLIENT_OPTIONS_VERSION)
        return bough_fail(err, BOUGH_E_INVALID, "unknown version of bough_client_options: %u",
                          options->version);
    if (!options->store && !(options->api_url && options->api_key))
        return bough_fail(err, BOUGH_E_INVALID, "neither a store nor an API URL and key are given");
    (void)pthread_once(&curl_once, start_curl);
    bough_client *c = calloc(1, sizeof *c);
    if (!c) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = BOUGH_OK;
    c->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
    c->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->cancel_fd < 0) {
        rc = bough_fail_sys(err, errno, "could not make an eventfd");
    } else if (options->api_url) {
        c->api_url = strdup(options->api_url);
        rc = c->api_url ? set_key(c, options->api_key, err)
                        : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    } else {
        rc = read_store(c, options, err);
    }
    if (!rc && !curl_failed) {
        for (size_t n = strlen(c->api_url); n && c->api_url[n - 1] == '/'; n--)
            c->api_url[n - 1] = 0;
        c->curl = curl_easy_init();
        c->multi = curl_multi_init();
    }
    if (!rc && (!c->curl || !c->multi))
        rc = bough_fail(err, BOUGH_E_NOMEM, "libcurl does not start");
    if (rc)
        bough_client_close(c);
    else
        *client = c;
    return rc;
}

void bough_client_close(bough_client *client) {
    if (!client) return;
    if (client->curl) curl_easy_cleanup(client->curl);
    if (client->multi) (void)curl_multi_cleanup(client->multi);
    if (client->cancel_fd >= 0) close(client->cancel_fd);
    if (client->authorization) explicit_bzero(client->authorization, strlen(client->authorization));
    free(client->authorization);
    free(client->api_url);
    free(client->store);
    free(client);
}

const char *bough_client_url(const bough_client *client) {
    return client->api_url;
}

void bough_client_set_progress(bough_client *client, bough_progress_fn progress, void *arg) {
    client->progress = progress;
    client->progress_arg = arg;
}

void bough_client_cancel(bough_client *client) {
    int saved = errno;
    atomic_store(&client->cancelled, true);
    uint64_t one = 1;
    ssize_t n = write(client->cancel_fd, &one, sizeof one);
    (void)n; /* full means readable already */
    errno = saved;
}

void bough_client_uncancel(bough_client *client) {
    uint64_t count;
    ssize_t n = read(client->cancel_fd, &count, sizeof count);
    (void)n; /* empty means not cancelled */
    atomic_store(&client->cancelled, false);
}

int bough_status_get(bough_status **status, bough_client *client, bough_error *err) {
    *status = NULL;
    json_t *answer = NULL;
    int rc = bough_request_get(&answer, client, err, "/bough/status");
    if (rc) return rc;
    bough_status *s = bough_box_new(sizeof *s, answer);
    if (s) {
        s->version = bough_json_text(answer, "version");
        s->store = bough_json_text(answer, "store");
        s->pid = bough_json_int(answer, "pid");
        s->api_url = bough_json_text(answer, "api_url");
        s->postgres = bough_json_text(answer, "postgres");
        s->api_key_file = bough_json_text(answer, "api_key_file");
        s->branches = bough_json_int(answer, "branches");
        s->computes = bough_json_int(answer, "computes");
        s->json = bough_box_text(s, answer);
    } else {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    *status = s;
    json_decref(answer);
    return rc;
}

void bough_status_free(bough_status *status) {
    bough_box_free(status);
}

int bough_server_shutdown(bough_client *client, int stop_computes, bough_error *err) {
    json_t *answer = NULL, *body = json_pack("{s:b}", "stop_computes", stop_computes);
    if (!body) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    bough_request request = {.method = "POST", .path = "/bough/shutdown", .body = body};
    int rc = bough_request_send(&answer, client, &request, err);
    json_decref(answer);
    json_decref(body);
    return rc;
}
