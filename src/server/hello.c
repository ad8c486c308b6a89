/* What a client says first. No state. */
#include "server/hello.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "preload/handoff.h"

_Static_assert((unsigned)HELLO_STARTUP_MAX <= BOUGH_HANDOFF_BYTES_MAX, "it can be handed over");

/* Codes in place of a protocol version (PostgreSQL, libpq/pqcomm.h). */
#define CODE_CANCEL UINT32_C(80877102)
#define CODE_SSL UINT32_C(80877103)
#define CODE_GSS UINT32_C(80877104)
#define CODE_PASS UINT32_C(0x426f7567) /* ours */

#define TLS_HANDSHAKE 22
#define TLS_CLIENT_HELLO 1
#define TLS_SERVER_NAME 0

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put32(uint8_t *at, uint32_t n) {
    at[0] = (uint8_t)(n >> 24);
    at[1] = (uint8_t)(n >> 16);
    at[2] = (uint8_t)(n >> 8);
    at[3] = (uint8_t)n;
}

hello_kind hello_first(size_t *need, const uint8_t *data, size_t size) {
    *need = size + 1;
    if (size == 0) return HELLO_MORE;
    if (data[0] == TLS_HANDSHAKE) {
        *need = 5;
        return HELLO_TLS;
    }
    if (data[0] != 0) return HELLO_BAD; /* a length of 16 MiB or more */
    *need = 8;
    if (size < 8) return HELLO_MORE;
    uint32_t length = get32(data), code = get32(data + 4);
    *need = length;
    if (code == CODE_SSL || code == CODE_GSS) {
        if (length != 8) return HELLO_BAD;
        return code == CODE_SSL ? HELLO_SSL_REQUEST : HELLO_GSS_REQUEST;
    }
    if (code == CODE_PASS) {
        if (length != HELLO_PASS_SIZE) return HELLO_BAD;
        return size < length ? HELLO_MORE : HELLO_PASS;
    }
    if (length < 8 || length > HELLO_STARTUP_MAX) return HELLO_BAD;
    if (code == CODE_CANCEL) {
        if (length < 16 || length > HELLO_CANCEL_MAX) return HELLO_BAD;
        return size < length ? HELLO_MORE : HELLO_CANCEL;
    }
    if (code >> 16 < 3) return HELLO_OLD;
    if (code >> 16 != 3) return HELLO_BAD;
    return size < length ? HELLO_MORE : HELLO_STARTUP;
}

uint32_t hello_cancel_pid(const uint8_t *data) {
    return get32(data + 8);
}

void hello_pass_write(uint8_t *data, const char *word) {
    put32(data, HELLO_PASS_SIZE);
    put32(data + 4, CODE_PASS);
    memcpy(data + 8, word, HELLO_PASS_SIZE - 8);
}

void hello_pass_read(char *word, const uint8_t *data) {
    memcpy(word, data + 8, HELLO_PASS_SIZE - 8);
    word[HELLO_PASS_SIZE - 8] = '\0';
}

/* ---- TLS ---- */

/* Bytes to be read from the front. A read beyond the end sets `failed` and gives zeros. */
typedef struct reader {
    const uint8_t *at;
    size_t left;
    bool failed;
} reader;

static uint32_t take(reader *r, size_t bytes) {
    uint32_t n = 0;
    if (r->left < bytes) {
        r->failed = true;
        r->left = 0;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) n = n << 8 | r->at[i];
    r->at += bytes;
    r->left -= bytes;
    return n;
}

/* A vector with a length of so many bytes before it. */
static reader take_vector(reader *r, size_t length_bytes) {
    size_t n = take(r, length_bytes);
    reader inner = {.at = r->at, .left = n};
    if (r->failed || n > r->left) {
        r->failed = true;
        return (reader){.failed = true};
    }
    r->at += n;
    r->left -= n;
    return inner;
}

/* Collect the handshake message out of its records. */
static hello_result gather(uint8_t *message, size_t *length, size_t *need, const uint8_t *data,
                           size_t size) {
    size_t at = 0, have = 0, want = 4;
    while (have < want) {
        *need = at + 5;
        if (*need > HELLO_TLS_MAX) return HELLO_WRONG;
        if (size < at + 5) return HELLO_SHORT;
        size_t n = (size_t)data[at + 3] << 8 | data[at + 4];
        if (data[at] != TLS_HANDSHAKE || data[at + 1] != 3 || n == 0) return HELLO_WRONG;
        *need = at + 5 + n;
        if (*need > HELLO_TLS_MAX) return HELLO_WRONG;
        if (size < *need) return HELLO_SHORT;
        memcpy(message + have, data + at + 5, n);
        have += n;
        at += 5 + n;
        if (have < 4) continue;
        if (message[0] != TLS_CLIENT_HELLO) return HELLO_WRONG;
        want = 4 + ((size_t)message[1] << 16 | (size_t)message[2] << 8 | message[3]);
        if (want > HELLO_TLS_MAX) return HELLO_WRONG;
    }
    *length = want;
    return HELLO_DONE;
}

static bool read_server_name(char *name, reader extension) {
    reader list = take_vector(&extension, 2);
    while (!list.failed && list.left > 0) {
        uint32_t type = take(&list, 1);
        reader host = take_vector(&list, 2);
        if (list.failed) return false;
        if (type != TLS_SERVER_NAME) continue;
        if (host.left == 0 || host.left > 255) return false;
        for (size_t i = 0; i < host.left; i++)
            if (host.at[i] <= ' ' || host.at[i] >= 0x7f) return false;
        for (size_t i = 0; i < host.left; i++) name[i] = (char)tolower(host.at[i]);
        name[host.left] = '\0';
        return true;
    }
    return !list.failed;
}

hello_result hello_tls(char *name, size_t *need, const uint8_t *data, size_t size) {
    uint8_t message[HELLO_TLS_MAX];
    size_t length = 0;
    name[0] = '\0';
    hello_result result = gather(message, &length, need, data, size);
    if (result != HELLO_DONE) return result;
    reader r = {.at = message + 4, .left = length - 4};
    (void)take(&r, 2);                             /* legacy_version */
    for (int i = 0; i < 8; i++) (void)take(&r, 4); /* random */
    (void)take_vector(&r, 1);                      /* legacy_session_id */
    (void)take_vector(&r, 2);                      /* cipher_suites */
    (void)take_vector(&r, 1);                      /* legacy_compression_methods */
    if (r.failed) return HELLO_WRONG;
    if (r.left == 0) return HELLO_DONE; /* TLS 1.2 without extensions */
    reader extensions = take_vector(&r, 2);
    if (r.failed || r.left > 0) return HELLO_WRONG;
    while (extensions.left > 0) {
        uint32_t type = take(&extensions, 2);
        reader extension = take_vector(&extensions, 2);
        if (extensions.failed) return HELLO_WRONG;
        if (type == 0 && !read_server_name(name, extension)) return HELLO_WRONG;
    }
    return HELLO_DONE;
}

/* Whether the text is a DNS label that could be an endpoint's id; copies it in lower case. */
static bool copy_endpoint(char *endpoint, const char *text, size_t n) {
    endpoint[0] = '\0';
    if (n == 0 || n >= HELLO_ENDPOINT_SIZE) return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && text[i] != '-') return false;
    for (size_t i = 0; i < n; i++) endpoint[i] = (char)tolower((unsigned char)text[i]);
    endpoint[n] = '\0';
    return true;
}

bool hello_endpoint_of_name(char *endpoint, const char *name) {
    return copy_endpoint(endpoint, name, strcspn(name, ".")) && strncmp(endpoint, "ep-", 3) == 0;
}

bool hello_branch_of_name(char *branch, const char *name) {
    return copy_endpoint(branch, name, strcspn(name, ".")) && strncmp(branch, "br-", 3) == 0;
}

/* ---- StartupMessage ---- */

/* One word of "options": up to white space that no backslash precedes (pg_split_opts() in
 * PostgreSQL's utils/init/postinit.c). Its text without backslashes goes to `word`. */
static size_t next_word(char *word, size_t room, const char *text) {
    size_t i = 0, n = 0;
    while (text[i] && !isspace((unsigned char)text[i])) {
        if (text[i] == '\\' && text[i + 1]) i++;
        if (n + 1 < room) word[n++] = text[i];
        i++;
    }
    word[n] = '\0';
    return i;
}

/* A word like neon_lsn:...: keep its value. As take_word(). */
static int take_moment(hello_target *target, const char *word) {
    const struct {
        const char *name;
        char *value; /* HELLO_WORD_SIZE */
    } words[] = {{"neon_timestamp:", target->timestamp},
                 {"neon_lsn:", target->lsn},
                 {"neon_endpoint_type:", target->type},
                 {"bough_pass=", target->pass}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i].name);
        if (strncmp(word, words[i].name, n) != 0) continue;
        if (!word[n] || strlen(word + n) >= HELLO_WORD_SIZE) return -1;
        if (*words[i].value && strcmp(words[i].value, word + n) != 0) return -1;
        (void)snprintf(words[i].value, HELLO_WORD_SIZE, "%s", word + n);
        return 1;
    }
    return 0;
}

/* A word of ours: keep it. 1 when it was one, 0 when not, -1 when wrong. */
static int take_word(hello_target *target, const char *word) {
    char endpoint[HELLO_ENDPOINT_SIZE];
    bool is_project = strncmp(word, "project=", 8) == 0;
    if (!is_project && strncmp(word, "endpoint=", 9) != 0) return take_moment(target, word);
    const char *value = strchr(word, '=') + 1;
    /* Neon's older clients say project= and mean an endpoint */
    bool is_endpoint = !is_project || strncmp(value, "ep-", 3) == 0;
    if (is_endpoint) {
        if (!copy_endpoint(endpoint, value, strlen(value))) return -1;
        if (*target->endpoint && strcmp(target->endpoint, endpoint) != 0) return -1;
        memcpy(target->endpoint, endpoint, sizeof endpoint);
        return 1;
    }
    if (!*value || strlen(value) >= sizeof target->project) return -1;
    if (*target->project && strcmp(target->project, value) != 0) return -1;
    (void)snprintf(target->project, sizeof target->project, "%s", value);
    return 1;
}

/* Take our words out of "options", in place. False when one is wrong. */
static bool rewrite_options(hello_target *target, char *options) {
    char word[HELLO_NAME_SIZE + 16];
    bool is_argument = false; /* the word before was "-c" */
    char *to = options;
    const char *from = options;
    for (;;) {
        size_t blank = strspn(from, " \t\n\r\f\v");
        size_t n = next_word(word, sizeof word, from + blank);
        if (n == 0) break;
        int taken = is_argument ? 0 : take_word(target, word);
        if (taken < 0) return false;
        is_argument = taken == 0 && strcmp(word, "-c") == 0;
        if (taken == 0) {
            size_t keep = to == options ? n : blank + n;
            memmove(to, from + (to == options ? blank : 0), keep);
            to += keep;
        }
        from += blank + n;
    }
    *to = '\0';
    return true;
}

/* "name@branch": cut the branch off. */
static bool rewrite_database(hello_target *target, char *database) {
    char *at = strrchr(database, '@');
    if (!at || at == database || !at[1]) return true;
    if (strlen(at + 1) >= sizeof target->branch) return false;
    (void)snprintf(target->branch, sizeof target->branch, "%s", at + 1);
    *at = '\0';
    return true;
}

/* The value after a parameter's name, both terminated before `end`; NULL when they are not. */
static char *value_of(char *name, const char *end) {
    char *stop = memchr(name, '\0', (size_t)(end - name));
    if (!stop || !memchr(stop + 1, '\0', (size_t)(end - stop - 1))) return NULL;
    return stop + 1;
}

/* Let `change` shorten the values of a parameter, in place; one that becomes empty is dropped. */
static hello_result rewrite(hello_target *target, uint8_t *data, size_t *size, const char *name,
                            bool (*change)(hello_target *target, char *value)) {
    char *end = (char *)data + *size - 1, *to = (char *)data + 8, *next;
    for (char *p = to; p < end && *p; p = next) {
        char *value = value_of(p, end);
        if (!value) return HELLO_SHORT;
        next = value + strlen(value) + 1;
        if (strcmp(p, name) == 0 && *value) {
            if (!change(target, value)) return HELLO_WRONG;
            if (!*value) continue;
        }
        size_t n = (size_t)(value - p) + strlen(value) + 1;
        memmove(to, p, n);
        to += n;
        if (next >= end) break;
    }
    *to++ = '\0';
    *size = (size_t)(to - (char *)data);
    put32(data, (uint32_t)*size);
    return HELLO_DONE;
}

/* Every name has a value, and the end is where the terminator is. */
static bool is_well_formed(uint8_t *data, size_t size) {
    if (size < 9 || size > HELLO_STARTUP_MAX || get32(data) != size || data[size - 1] != '\0')
        return false;
    char *end = (char *)data + size - 1, *p = (char *)data + 8;
    while (p < end && *p) {
        char *value = value_of(p, end);
        if (!value) return false;
        p = value + strlen(value) + 1;
    }
    return p == end;
}

hello_result hello_startup(hello_target *target, const char **why, uint8_t *data, size_t *size) {
    *target = (hello_target){.endpoint = {0}};
    *why = "invalid startup packet layout: expected terminator as last byte";
    if (!is_well_formed(data, *size)) return HELLO_WRONG;
    *why = "the option endpoint, project, neon_timestamp, neon_lsn or neon_endpoint_type is "
           "malformed, "
           "or names two";
    hello_result result = rewrite(target, data, size, "options", rewrite_options);
    if (result != HELLO_DONE || *target->endpoint) return result;
    *why = "the name of the branch after \"@\" is too long";
    return rewrite(target, data, size, "database", rewrite_database);
}
