/* Connection URIs: RFC 3986 as libpq reads it (PostgreSQL, fe-connect.c,
 * conninfo_uri_parse_options). */
#include "cli/uri.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

static int hex_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Percent-decoded copy; NULL when memory ran out. */
static char *decode(const char *text, size_t size) {
    char *out = malloc(size + 1), *to = out;
    if (!out) return NULL;
    for (size_t i = 0; i < size; i++) {
        int high = text[i] == '%' && i + 2 < size ? hex_of(text[i + 1]) : -1;
        int low = high >= 0 ? hex_of(text[i + 2]) : -1;
        if (low >= 0) {
            *to++ = (char)(high * 16 + low);
            i += 2;
        } else {
            *to++ = text[i];
        }
    }
    *to = '\0';
    return out;
}

/* Cut `size` bytes out of `text` at `at`. */
static void cut(char *at, size_t size) {
    memmove(at, at + size, strlen(at + size) + 1);
}

/* The parameter "password": remove it with the separator that has become needless. */
static int take_parameter(char *bare, char **password) {
    char *query = strchr(bare, '?');
    for (char *at = query ? query + 1 : NULL; at && *at;) {
        size_t size = strcspn(at, "&");
        if (strncmp(at, "password=", 9) == 0) {
            if (*password) explicit_bzero(*password, strlen(*password));
            free(*password);
            *password = decode(at + 9, size - 9);
            if (!*password) return BOUGH_E_NOMEM;
            if (at[size] == '&') {
                cut(at, size + 1);
                continue;
            }
            cut(at - 1, size + 1); /* the last one: nothing is left to look at */
            break;
        }
        at += size;
        at += *at == '&';
    }
    return BOUGH_OK;
}

int uri_split(char **bare, char **password, const char *uri, bough_error *err) {
    *password = NULL;
    *bare = NULL;
    const char *begins = strstr(uri, "://");
    if (!begins || (strncmp(uri, "postgres://", 11) != 0 && strncmp(uri, "postgresql://", 13) != 0))
        return bough_fail(err, BOUGH_E_INTERNAL, "the server's connection URI makes no sense");
    *bare = strdup(uri);
    if (!*bare) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    char *user = *bare + (begins - uri) + 3;
    size_t authority = strcspn(user, "/?#");
    char *at = memrchr(user, '@', authority);
    char *colon = at ? memchr(user, ':', (size_t)(at - user)) : NULL;
    int rc = BOUGH_OK;
    if (colon) {
        *password = decode(colon + 1, (size_t)(at - colon) - 1);
        if (!*password)
            rc = BOUGH_E_NOMEM;
        else
            cut(colon, (size_t)(at - colon));
    }
    if (!rc) rc = take_parameter(*bare, password);
    if (rc) {
        free(*bare);
        *bare = NULL;
        return bough_fail(err, rc, "out of memory");
    }
    return BOUGH_OK;
}
