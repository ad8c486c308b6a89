/* Lists page by page, and finding things in them. */
#include "client/find.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/box.h"
#include "client/nearest.h"
#include "client/request.h"
#include "util/error.h"

/* A server that never stops giving pages is not believed. */
#define PAGES_MAX 10000

/* The cursor of the next page; NULL when this was the last. */
static const char *next_page(const json_t *answer, size_t count, int page) {
    const json_t *pagination = json_object_get(answer, "pagination");
    const char *next = json_string_value(json_object_get(pagination, "next"));
    if (next) return *next ? next : NULL;
    const char *cursor = json_string_value(json_object_get(pagination, "cursor"));
    /* a cursor is given with the last page too: a page that is not full was the last */
    return cursor && *cursor && page && count >= (size_t)page ? cursor : NULL;
}

int bough_find_pages(json_t **all, bough_client *client, const char *path, const char *member,
                     int page, bough_error *err) {
    *all = json_array();
    json_t *answer = NULL;
    char *cursor = NULL;
    int rc = *all ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (int pages = 0; !rc && pages < PAGES_MAX; pages++) {
        char query[BOUGH_REQUEST_PATH_MAX] = "", full[BOUGH_REQUEST_PATH_MAX * 2];
        if (page && cursor)
            rc = bough_request_path(query, sizeof query, err, "limit=%d&cursor=%s", page, cursor);
        else if (page)
            rc = bough_request_path(query, sizeof query, err, "limit=%d", page);
        else if (cursor)
            rc = bough_request_path(query, sizeof query, err, "cursor=%s", cursor);
        if (rc) break;
        const char *mark = !*query ? "" : strchr(path, '?') ? "&" : "?";
        (void)snprintf(full, sizeof full, "%s%s%s", path, mark, query);
        rc = bough_request_send(&answer, client, &(bough_request){.method = "GET", .path = full},
                                err);
        if (rc) break;
        json_t *items = json_object_get(answer, member);
        if (!json_is_array(items))
            rc = bough_fail(err, BOUGH_E_INTERNAL, "the server's answer lacks \"%s\"", member);
        else if (json_array_extend(*all, items) != 0)
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        if (rc) break;
        const char *next = next_page(answer, json_array_size(items), page);
        free(cursor);
        cursor = next ? strdup(next) : NULL;
        if (next && !cursor) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        json_decref(answer);
        answer = NULL;
        if (!cursor) break;
    }
    free(cursor);
    json_decref(answer);
    if (rc) {
        json_decref(*all);
        *all = NULL;
    }
    return rc;
}

static json_t *find_by(const json_t *all, const char *member, const char *value) {
    for (size_t i = 0; i < json_array_size(all); i++)
        if (strcmp(bough_json_text(json_array_get(all, i), member), value) == 0)
            return json_array_get(all, i);
    return NULL;
}

int bough_find_named(json_t **found, const json_t *all, const char *kind, const char *name,
                     bough_error *err) {
    *found = find_by(all, "id", name);
    if (!*found) *found = find_by(all, "name", name);
    if (*found) return BOUGH_OK;
    size_t count = json_array_size(all);
    const char **names = calloc(count ? count : 1, sizeof *names);
    if (!names) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) names[i] = bough_json_text(json_array_get(all, i), "name");
    const char *nearest = bough_nearest(name, names, count);
    int rc = bough_fail(err, BOUGH_E_NOTFOUND, "no %s is named \"%s\"", kind, name);
    if (nearest)
        (void)bough_hint(err, "Did you mean \"%s\"?", nearest);
    else
        (void)bough_hint(err, "See `bough %s list`.", kind);
    free(names);
    return rc;
}

const char *bough_json_uri(const json_t *answer) {
    const json_t *uris = json_object_get(answer, "connection_uris");
    return bough_json_text(json_array_get(uris, 0), "connection_uri");
}
