/*
 * A libcurl without a network, for tests of libbough: each transfer gets the answer that the test
 * has put here, in pieces, and what was asked is noted. For one thread; included once in a program.
 */
#ifndef BOUGH_TEST_FAKE_CURL_H
#define BOUGH_TEST_FAKE_CURL_H

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#undef curl_easy_setopt
#undef curl_easy_getinfo

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct fake_answer {
    const char *data;
    size_t size, piece; /* as much at a time; 0: all at once */
    const char *type;   /* NULL: none */
    long status;
} fake_answer;

static fake_answer fake_next;
static char fake_asked[16384]; /* method, URL and body of the last request */
static int fake_requests;
/* What curl asks for memory goes through here. */
static void *(*fake_malloc)(size_t n) = malloc;

typedef struct fake_handle {
    const char *url, *method, *body;
    curl_write_callback write;
    void *arg;
} fake_handle;

typedef struct fake_many {
    fake_handle *running;
    CURLMsg message;
    bool has_message;
} fake_many;

CURLcode curl_global_init(long flags) {
    (void)flags;
    return CURLE_OK;
}
CURL *curl_easy_init(void) {
    fake_handle *h = fake_malloc(sizeof *h);
    if (h) memset(h, 0, sizeof *h);
    return h;
}
void curl_easy_cleanup(CURL *curl) {
    free(curl);
}
void curl_easy_reset(CURL *curl) {
    memset(curl, 0, sizeof(fake_handle));
}
CURLcode curl_easy_setopt(CURL *curl, CURLoption option, ...) {
    fake_handle *h = curl;
    va_list ap;
    va_start(ap, option);
    if (option == CURLOPT_URL)
        h->url = va_arg(ap, const char *);
    else if (option == CURLOPT_CUSTOMREQUEST)
        h->method = va_arg(ap, const char *);
    else if (option == CURLOPT_POSTFIELDS)
        h->body = va_arg(ap, const char *);
    else if (option == CURLOPT_WRITEFUNCTION)
        h->write = va_arg(ap, curl_write_callback);
    else if (option == CURLOPT_WRITEDATA)
        h->arg = va_arg(ap, void *);
    va_end(ap);
    return CURLE_OK;
}
CURLcode curl_easy_getinfo(CURL *curl, CURLINFO info, ...) {
    va_list ap;
    (void)curl;
    va_start(ap, info);
    if (info == CURLINFO_CONTENT_TYPE) *va_arg(ap, const char **) = fake_next.type;
    if (info == CURLINFO_RESPONSE_CODE) *va_arg(ap, long *) = fake_next.status;
    va_end(ap);
    return CURLE_OK;
}
const char *curl_easy_strerror(CURLcode code) {
    (void)code;
    return "broken";
}
CURLM *curl_multi_init(void) {
    fake_many *m = fake_malloc(sizeof *m);
    if (m) memset(m, 0, sizeof *m);
    return m;
}
CURLMcode curl_multi_cleanup(CURLM *multi) {
    free(multi);
    return CURLM_OK;
}
CURLMcode curl_multi_add_handle(CURLM *multi, CURL *curl) {
    fake_many *m = multi;
    m->running = curl;
    m->has_message = false;
    return CURLM_OK;
}
CURLMcode curl_multi_remove_handle(CURLM *multi, CURL *curl) {
    (void)curl;
    ((fake_many *)multi)->running = NULL;
    return CURLM_OK;
}
CURLMcode curl_multi_poll(CURLM *multi, struct curl_waitfd fds[], unsigned n, int ms, int *count) {
    (void)multi, (void)fds, (void)n, (void)ms, (void)count;
    return CURLM_OK;
}
CURLMcode curl_multi_perform(CURLM *multi, int *running) {
    fake_many *m = multi;
    const fake_handle *h = m->running;
    CURLcode result = CURLE_OK;
    size_t piece = fake_next.piece ? fake_next.piece : fake_next.size;
    fake_requests++;
    (void)snprintf(fake_asked, sizeof fake_asked, "%s %s %s", h->method, h->url,
                   h->body ? h->body : "");
    for (size_t at = 0; at < fake_next.size && result == CURLE_OK; at += piece) {
        size_t n = fake_next.size - at < piece ? fake_next.size - at : piece;
        char *copy = malloc(n); /* exactly as much: a sanitizer sees a read beyond it */
        if (copy) memcpy(copy, fake_next.data + at, n);
        if (!copy)
            result = CURLE_OUT_OF_MEMORY;
        else if (h->write(copy, 1, n, h->arg) != n)
            result = CURLE_WRITE_ERROR;
        free(copy);
    }
    m->message = (CURLMsg){.msg = CURLMSG_DONE, .easy_handle = m->running, .data.result = result};
    m->has_message = true;
    *running = 0;
    return CURLM_OK;
}
CURLMsg *curl_multi_info_read(CURLM *multi, int *left) {
    fake_many *m = multi;
    *left = 0;
    if (!m->has_message) return NULL;
    m->has_message = false;
    return &m->message;
}
struct curl_slist *curl_slist_append(struct curl_slist *list, const char *text) {
    struct curl_slist *item = fake_malloc(sizeof *item), *last = list;
    char *copy = item ? fake_malloc(strlen(text) + 1) : NULL;
    if (!copy) {
        free(item);
        return NULL;
    }
    (void)strcpy(copy, text);
    *item = (struct curl_slist){.data = copy};
    if (!list) return item;
    while (last->next) last = last->next;
    last->next = item;
    return list;
}
void curl_slist_free_all(struct curl_slist *list) {
    while (list) {
        struct curl_slist *next = list->next;
        free(list->data);
        free(list);
        list = next;
    }
}

#endif
