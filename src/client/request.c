/*
 * One HTTP request and its answer, by libcurl.
 *
 * The transfer is driven by the multi interface so that bough_client_cancel() interrupts a wait at
 * once: its eventfd is polled beside the connection. Taking an unfinished transfer out of the multi
 * handle closes the connection, which is how the server learns of the cancellation.
 */
#include "client/request.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/jsontext.h"

/* What has arrived. Grows to BOUGH_ANSWER_MAX. */
typedef struct incoming {
    bough_client *client;
    char *data;
    size_t size, room;
    bool is_stream; /* the answer is lines of JSON */
    bool seen_type; /* is_stream has been found out */
    bool too_long, no_memory, is_garbled;
    json_t *last; /* the final line of a stream: {"status", "body"} */
} incoming;

/* {"progress": ...} is told to the user; anything else is the final line. */
static void take_line(incoming *in, const char *line, size_t size) {
    json_error_t error = {0};
    json_t *object = bough_json_load(line, size, 0, &error);
    if (!object && bough_json_lacked_memory(&error)) in->no_memory = true;
    if (!object) in->is_garbled = true;
    const json_t *p = json_object_get(object, "progress");
    if (json_is_object(p)) {
        const char *phase = json_string_value(json_object_get(p, "phase"));
        json_int_t done = json_integer_value(json_object_get(p, "done_bytes"));
        json_int_t total = json_integer_value(json_object_get(p, "total_bytes"));
        bough_progress progress = {.phase = phase ? phase : "working",
                                   .done_bytes = done > 0 ? (uint64_t)done : 0,
                                   .total_bytes = total > 0 ? (uint64_t)total : 0};
        bough_client *client = in->client;
        if (client->progress && client->progress(&progress, client->progress_arg) != 0)
            bough_client_cancel(client);
    } else if (json_is_integer(json_object_get(object, "status"))) {
        json_decref(in->last);
        in->last = json_incref(object);
    }
    json_decref(object);
}

static void take_lines(incoming *in) {
    size_t at = 0;
    for (;;) {
        const char *line = in->data + at;
        const char *end = memchr(line, '\n', in->size - at);
        if (!end) break;
        if (end > line) take_line(in, line, (size_t)(end - line));
        at += (size_t)(end - line) + 1;
    }
    memmove(in->data, in->data + at, in->size - at);
    in->size -= at;
}

/* CURLOPT_WRITEFUNCTION */
static size_t take_data(char *data, size_t one, size_t size, void *arg) {
    incoming *in = arg;
    (void)one; /* always 1 */
    if (!in->seen_type) {
        const char *type = NULL;
        (void)curl_easy_getinfo(in->client->curl, CURLINFO_CONTENT_TYPE, &type);
        in->is_stream = type && strncmp(type, "application/x-ndjson", 20) == 0;
        in->seen_type = true;
    }
    if (size > BOUGH_ANSWER_MAX || in->size + size > BOUGH_ANSWER_MAX) {
        in->too_long = true;
        return 0;
    }
    if (in->size + size > in->room) {
        size_t room = in->room ? in->room : 8192;
        while (room < in->size + size) room *= 2;
        char *grown = realloc(in->data, room);
        if (!grown) return 0;
        in->data = grown;
        in->room = room;
    }
    memcpy(in->data + in->size, data, size);
    in->size += size;
    if (in->is_stream) take_lines(in);
    return size;
}

static int code_of_status(long http_status) {
    switch (http_status) {
    case 401:
    case 403:
        return BOUGH_E_AUTH;
    case 404:
    case 410:
        return BOUGH_E_NOTFOUND;
    case 408:
    case 504:
        return BOUGH_E_TIMEOUT;
    case 409:
        return BOUGH_E_CONFLICT;
    case 412:
        return BOUGH_E_PRECONDITION;
    case 422:
    case 501:
        return BOUGH_E_UNSUPPORTED;
    case 423:
    case 429:
        return BOUGH_E_BUSY;
    case 499:
        return BOUGH_E_CANCELLED;
    case 502:
    case 503:
        return BOUGH_E_UNREACHABLE;
    case 507:
        return BOUGH_E_NOSPACE;
    default:
        return http_status >= 500 ? BOUGH_E_INTERNAL : BOUGH_E_INVALID;
    }
}

/* One line, whatever a server sends. */
static void flatten(char *text) {
    for (; *text; text++)
        if (iscntrl((unsigned char)*text)) *text = ' ';
}

int bough_request_fail(bough_error *err, long http_status, const json_t *answer) {
    const char *slug = json_string_value(json_object_get(answer, "code"));
    const char *message = json_string_value(json_object_get(answer, "message"));
    const char *hint = json_string_value(json_object_get(answer, "hint"));
    int code = bough_code_from_slug(slug);
    bool known = slug && (code != BOUGH_E_INTERNAL ||
                          strcmp(slug, bough_code_get(BOUGH_E_INTERNAL)->slug) == 0);
    if (!known || code == BOUGH_OK) code = code_of_status(http_status);
    int rc = message && *message
                 ? bough_fail(err, code, "%s", message)
                 : bough_fail(err, code, "the server answered with HTTP status %ld", http_status);
    if (code == BOUGH_E_AUTH) /* the server's own hint is about HTTP headers */
        (void)bough_hint(err, "The server's key is in the file api_key of its store.");
    else if (hint && *hint)
        (void)bough_hint(err, "%s", hint);
    if (err) {
        flatten(err->message);
        flatten(err->hint);
    }
    return rc;
}

/* Why libcurl gave up. */
static int fail_transfer(const bough_client *client, CURLcode result, const incoming *in,
                         bough_error *err) {
    if (in->too_long) return bough_fail(err, BOUGH_E_INTERNAL, "the server's answer is too long");
    if (result == CURLE_OUT_OF_MEMORY || result == CURLE_WRITE_ERROR)
        return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (result == CURLE_OPERATION_TIMEDOUT)
        return bough_fail(err, BOUGH_E_TIMEOUT, "the server at \"%s\" did not answer in time",
                          client->api_url);
    if (result == CURLE_COULDNT_CONNECT) {
        int rc =
            bough_fail(err, BOUGH_E_UNREACHABLE, "no server answers at \"%s\"", client->api_url);
        (void)bough_hint(err, "Start it with `bough up`.");
        return rc;
    }
    return bough_fail(err, BOUGH_E_UNREACHABLE, "the connection to the server broke: %s",
                      curl_easy_strerror(result));
}

/* Judge a finished transfer; moves the JSON into *answer. */
static int judge(json_t **answer, incoming *in, long http_status, bough_error *err) {
    if (in->is_stream) {
        if (in->size) take_line(in, in->data, in->size); /* a last line without its end */
        if (!in->last && in->no_memory) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        if (!in->last && in->is_garbled)
            return bough_fail(err, BOUGH_E_INTERNAL, "the server's answer is not JSON");
        if (!in->last)
            return bough_fail(err, BOUGH_E_UNREACHABLE,
                              "the server closed the connection before the work was done");
        http_status = (long)json_integer_value(json_object_get(in->last, "status"));
        *answer = json_incref(json_object_get(in->last, "body"));
    } else if (in->size) {
        json_error_t error = {0};
        *answer = bough_json_load(in->data, in->size, 0, &error);
        if (!*answer && bough_json_lacked_memory(&error))
            return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    if (http_status < 200 || http_status > 299) {
        int rc = bough_request_fail(err, http_status, *answer);
        json_decref(*answer);
        *answer = NULL;
        return rc;
    }
    if (!*answer && in->size && !in->is_stream)
        return bough_fail(err, BOUGH_E_INTERNAL, "the server's answer is not JSON");
    return BOUGH_OK;
}

/* Run the transfer until it is done or cancelled. */
static int drive(CURLcode *result, bough_client *client, bough_error *err) {
    CURLM *multi = client->multi;
    if (curl_multi_add_handle(multi, client->curl) != CURLM_OK)
        return bough_fail(err, BOUGH_E_INTERNAL, "could not begin an HTTP transfer");
    int rc = BOUGH_OK, running = 1;
    while (running) {
        if (curl_multi_perform(multi, &running) != CURLM_OK) {
            rc = bough_fail(err, BOUGH_E_INTERNAL, "the HTTP transfer failed");
            break;
        }
        if (atomic_load(&client->cancelled)) {
            rc = bough_fail(err, BOUGH_E_CANCELLED, "cancelled");
            break;
        }
        if (!running) break;
        struct curl_waitfd cancel = {.fd = client->cancel_fd, .events = CURL_WAIT_POLLIN};
        (void)curl_multi_poll(multi, &cancel, 1, 1000, NULL);
    }
    int left = 0;
    const CURLMsg *message = rc ? NULL : curl_multi_info_read(multi, &left);
    *result = message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_GOT_NOTHING;
    (void)curl_multi_remove_handle(multi, client->curl);
    return rc;
}

static bool add_header(struct curl_slist **headers, const char *line) {
    struct curl_slist *longer = curl_slist_append(*headers, line);
    if (longer) *headers = longer;
    return longer != NULL;
}

/* Set all options of the transfer. Returns false when memory ran out. */
static bool prepare(bough_client *client, const bough_request *request, const char *url,
                    const char *body, struct curl_slist *headers, incoming *in) {
    CURL *curl = client->curl;
    bool ok = true;
    curl_easy_reset(curl);
    ok &= curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK;
    /* where memory runs out, libcurl (7.88, url.c) asks without the query that is in the URL */
    const char *host = strstr(url, "://"), *target = host ? strchr(host + 3, '/') : NULL;
    if (target) ok &= curl_easy_setopt(curl, CURLOPT_REQUEST_TARGET, target) == CURLE_OK;
    ok &= curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK;
    ok &= curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers) == CURLE_OK;
    ok &= curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    ok &=
        curl_easy_setopt(curl, CURLOPT_PROXY, "") == CURLE_OK; /* never leave this machine by one */
    ok &= curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    ok &= curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 5000L) == CURLE_OK;
    ok &= curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, request->is_long ? 0L : client->timeout_ms) ==
          CURLE_OK;
    ok &= curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_data) == CURLE_OK;
    ok &= curl_easy_setopt(curl, CURLOPT_WRITEDATA, in) == CURLE_OK;
    if (body) {
        ok &= curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body) == CURLE_OK;
        ok &= curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)strlen(body)) == CURLE_OK;
    }
    return ok;
}

int bough_request_send(json_t **answer, bough_client *client, const bough_request *request,
                       bough_error *err) {
    *answer = NULL;
    if (atomic_load(&client->cancelled)) return bough_fail(err, BOUGH_E_CANCELLED, "cancelled");
    int rc = BOUGH_OK;
    incoming in = {.client = client};
    struct curl_slist *headers = NULL;
    char *url = NULL, *body = NULL;
    bool wants_body = strcmp(request->method, "POST") == 0 ||
                      strcmp(request->method, "PATCH") == 0 || strcmp(request->method, "PUT") == 0;
    if (asprintf(&url, "%s%s", client->api_url, request->path) < 0) url = NULL;
    if (wants_body)
        body = request->body ? bough_json_text_of(request->body, JSON_COMPACT) : strdup("{}");
    bool ok = url && (body || !wants_body);
    ok = ok && add_header(&headers, client->authorization);
    ok = ok && add_header(&headers, request->is_long
                                        ? "Accept: application/x-ndjson, application/json;q=0.5"
                                        : "Accept: application/json");
    if (wants_body) ok = ok && add_header(&headers, "Content-Type: application/json");
    ok = ok && add_header(&headers, "Expect:") &&
         add_header(&headers, "User-Agent: bough/" BOUGH_VERSION);
    if (!ok || !prepare(client, request, url, body, headers, &in)) {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        goto out;
    }
    CURLcode result = CURLE_OK;
    rc = drive(&result, client, err);
    if (rc) goto out;
    if (result != CURLE_OK) {
        rc = fail_transfer(client, result, &in, err);
        goto out;
    }
    long http_status = 0;
    (void)curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &http_status);
    rc = judge(answer, &in, http_status, err);
out:
    curl_easy_reset(client->curl); /* forget what is about to be freed */
    curl_slist_free_all(headers);
    json_decref(in.last);
    if (in.data) explicit_bzero(in.data, in.room); /* may hold a password */
    free(in.data);
    free(body);
    free(url);
    return rc;
}

/* Append an escaped argument; false when it does not fit. */
static bool append_escaped(char *out, size_t size, size_t *at, const char *text) {
    static const char hex[] = "0123456789ABCDEF";
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = isalnum(c) || strchr("-._~", c);
        if (*at + (plain ? 1 : 3) >= size) return false;
        if (plain) {
            out[(*at)++] = (char)c;
        } else {
            out[(*at)++] = '%';
            out[(*at)++] = hex[c >> 4];
            out[(*at)++] = hex[c & 15];
        }
    }
    return true;
}

static int format_path(char *out, size_t size, bough_error *err, const char *fmt, va_list ap) {
    size_t at = 0;
    bool fits = true;
    for (; *fmt && fits; fmt++) {
        if (fmt[0] == '%' && fmt[1] == 's') {
            fits = append_escaped(out, size, &at, va_arg(ap, const char *));
            fmt++;
        } else if (fmt[0] == '%' && fmt[1] == 'd') {
            char number[16];
            (void)snprintf(number, sizeof number, "%d", va_arg(ap, int));
            fits = append_escaped(out, size, &at, number);
            fmt++;
        } else {
            fits = at + 1 < size;
            if (fits) out[at++] = *fmt;
        }
    }
    out[fits ? at : 0] = '\0';
    return fits ? BOUGH_OK : bough_fail(err, BOUGH_E_INVALID, "a name is too long");
}

int bough_request_path(char *out, size_t size, bough_error *err, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int rc = format_path(out, size, err, fmt, ap);
    va_end(ap);
    return rc;
}

int bough_request_get(json_t **answer, bough_client *client, bough_error *err, const char *path_fmt,
                      ...) {
    char path[BOUGH_REQUEST_PATH_MAX];
    va_list ap;
    *answer = NULL;
    va_start(ap, path_fmt);
    int rc = format_path(path, sizeof path, err, path_fmt, ap);
    va_end(ap);
    if (rc) return rc;
    return bough_request_send(answer, client, &(bough_request){.method = "GET", .path = path}, err);
}
