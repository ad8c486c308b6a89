/*
 * Reading a dump in SQL.
 *
 * A lexer for what psql tells apart (psqlscan.l): comments, strings, quoted names, dollar quotes,
 * COPY data. A statement's text is kept with its strings emptied, up to a limit; at its semicolon
 * it is cut into words, and the few statements that name roles are looked at.
 */
#include "pg/dumpscan.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

enum { STATEMENT_MAX = 65536, WORDS_MAX = 4096, ROLES_MAX = 10000, TAG_MAX = 64, META_MAX = 64 };

typedef enum state {
    IN_SQL,
    IN_LINE_COMMENT,
    IN_BLOCK_COMMENT,
    IN_STRING,
    IN_NAME,
    IN_TAG, /* after '$', while it may become a dollar quote */
    IN_DOLLAR,
    IN_META,     /* a line that begins with a backslash command */
    BEFORE_COPY, /* rest of the line of COPY ... FROM stdin; */
    IN_COPY
} state;

struct bough_dumpscan {
    state state;
    char previous; /* last byte of SQL, to see "--", "E'" and "$" after a name */
    bool escapes;  /* the string knows backslashes */
    bool escaped;  /* the last byte of the string was such a backslash */
    int depth;     /* of nested comments */
    size_t size;
    char statement[STATEMENT_MAX];
    size_t tag_size, tag_at;
    char tag[TAG_MAX];
    size_t meta_size;
    char meta[META_MAX]; /* of IN_META, IN_COPY and IN_LINE_COMMENT: beginning of the line */
    bool is_complete;
    char **roles;
    size_t role_count;
};

typedef struct word {
    const char *at; /* for names: without the outer quotes, inner ones still doubled */
    size_t size;
    bool quoted;
} word;

bough_dumpscan *bough_dumpscan_new(void) {
    bough_dumpscan *scan = calloc(1, sizeof *scan);
    if (!scan) return NULL;
    scan->roles = calloc(1, sizeof *scan->roles);
    if (!scan->roles) {
        free(scan);
        return NULL;
    }
    return scan;
}

void bough_dumpscan_free(bough_dumpscan *scan) {
    if (!scan) return;
    for (size_t i = 0; i < scan->role_count; i++) free(scan->roles[i]);
    free(scan->roles);
    free(scan);
}

const char *const *bough_dumpscan_roles(const bough_dumpscan *scan) {
    return (const char *const *)scan->roles;
}

bool bough_dumpscan_is_complete(const bough_dumpscan *scan) {
    return scan->is_complete;
}

/* ---- statements ---- */

static bool name_byte(char c) {
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80);
}

static size_t cut(word *words, const char *p, size_t size) {
    size_t n = 0, i = 0;
    while (i < size && n < WORDS_MAX) {
        size_t from = i;
        if (isspace((unsigned char)p[i])) {
            i++;
            continue;
        }
        bool quoted = p[i] == '"';
        if (quoted) {
            from = ++i;
            while (i < size && (p[i] != '"' || (i + 1 < size && p[i + 1] == '"')))
                i += p[i] == '"' ? 2 : 1;
            words[n++] = (word){p + from, i - from, true};
            i++;
        } else if (name_byte(p[i])) {
            while (i < size && name_byte(p[i])) i++;
            words[n++] = (word){p + from, i - from, false};
        } else {
            i++;
            words[n++] = (word){p + from, 1, false};
        }
    }
    return n;
}

static bool is(const word *w, const char *text) {
    return !w->quoted && w->size == strlen(text) && strncasecmp(w->at, text, w->size) == 0;
}

static bool begins(const word *words, size_t n, const char *first, const char *second) {
    return n > 1 && is(&words[0], first) && (!second || is(&words[1], second));
}

static int add_role(bough_dumpscan *scan, const word *w, bough_error *err) {
    static const char *const special[] = {"public",       "current_user", "session_user",
                                          "current_role", "default",      "none"};
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (is(w, special[i])) return BOUGH_OK;
    if (w->size == 0 || (!w->quoted && !name_byte(w->at[0]))) return BOUGH_OK;
    char *name = calloc(1, w->size + 1);
    if (!name) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    size_t n = 0;
    for (size_t i = 0; i < w->size; i++) {
        name[n++] = w->quoted ? w->at[i] : (char)tolower((unsigned char)w->at[i]);
        if (w->quoted && w->at[i] == '"') i++;
    }
    for (size_t i = 0; i < scan->role_count; i++)
        if (strcmp(scan->roles[i], name) == 0) {
            free(name);
            return BOUGH_OK;
        }
    char **more = scan->role_count < ROLES_MAX
                      ? realloc(scan->roles, (scan->role_count + 2) * sizeof *more)
                      : NULL;
    if (!more) {
        free(name);
        return bough_fail(err, BOUGH_E_NOMEM, "the dump names too many roles");
    }
    scan->roles = more;
    more[scan->role_count++] = name;
    more[scan->role_count] = NULL;
    return BOUGH_OK;
}

/* "[GROUP|ROLE|USER] a, b, c", from word `at` on; ends at the first word that does not follow a
 * comma. */
static int add_roles(bough_dumpscan *scan, const word *words, size_t n, size_t at,
                     bough_error *err) {
    if (at + 1 < n && is(&words[at], "group") && !is(&words[at + 1], ",")) at++;
    int rc = BOUGH_OK;
    while (!rc && at < n) {
        rc = add_role(scan, &words[at], err);
        if (at + 1 >= n || !is(&words[at + 1], ",")) break;
        at += 2;
    }
    return rc;
}

/* Where the last `text` outside parentheses is; n when there is none. */
static size_t last_of(const word *words, size_t n, const char *text) {
    size_t found = n;
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (is(&words[i], "(")) depth++;
        if (is(&words[i], ")")) depth--;
        if (depth == 0 && is(&words[i], text)) found = i;
    }
    return found;
}

static size_t first_of(const word *words, size_t n, const char *text, const char *next) {
    for (size_t i = 0; i + 1 < n; i++)
        if (is(&words[i], text) && (!next || is(&words[i + 1], next))) return i;
    return n;
}

static int name_roles(bough_dumpscan *scan, const word *words, size_t n, bough_error *err) {
    size_t at = n;
    int rc = BOUGH_OK;
    bool defaults = begins(words, n, "alter", "default");
    if (defaults && (at = first_of(words, n, "for", NULL)) < n)
        rc = add_roles(scan, words, n, at + 2, err);
    if (rc) return rc;
    at = n;
    if (begins(words, n, "grant", NULL) || (defaults && first_of(words, n, "grant", NULL) < n))
        at = last_of(words, n, "to");
    else if (begins(words, n, "revoke", NULL) ||
             (defaults && first_of(words, n, "revoke", NULL) < n))
        at = last_of(words, n, "from");
    else if (begins(words, n, "alter", NULL) && n > 3 && is(&words[n - 2], "to") &&
             is(&words[n - 3], "owner"))
        at = n - 2;
    else if (begins(words, n, "create", "policy"))
        at = first_of(words, n, "to", NULL);
    else if (begins(words, n, "create", "schema") &&
             (at = first_of(words, n, "authorization", NULL)) < n)
        return add_role(scan, &words[at + 1], err);
    else if (begins(words, n, "set", "session") && n > 3 && is(&words[2], "authorization"))
        at = 2;
    else if (begins(words, n, "create", "user") && n > 4 && is(&words[2], "mapping"))
        at = first_of(words, n, "for", NULL);
    return at < n ? add_roles(scan, words, n, at + 1, err) : BOUGH_OK;
}

static int refuse_create(bough_error *err, const char *what) {
    (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "the dump holds \"%s\"", what);
    (void)bough_hint(err, "Make the dump of one database, without -C (--create).");
    return BOUGH_E_UNSUPPORTED;
}

static int end_statement(bough_dumpscan *scan, bough_error *err) {
    size_t size = scan->size;
    scan->size = 0;
    word *words = calloc(WORDS_MAX, sizeof *words);
    if (!words) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    size_t n = cut(words, scan->statement, size);
    int rc = BOUGH_OK;
    if (begins(words, n, "create", "database") || begins(words, n, "drop", "database") ||
        begins(words, n, "alter", "database"))
        rc = refuse_create(err, "CREATE, ALTER or DROP DATABASE");
    else if (begins(words, n, "copy", NULL) && first_of(words, n, "from", "stdin") < n)
        scan->state = BEFORE_COPY;
    else
        rc = name_roles(scan, words, n, err);
    free(words);
    return rc;
}

/* Most statements are INSERTs or begin with a word that cannot matter: do not cut them. */
static bool matters(const bough_dumpscan *scan) {
    static const char *const firsts[] = {"create", "alter", "drop", "grant",
                                         "revoke", "copy",  "set"};
    size_t i = 0;
    while (i < scan->size && isspace((unsigned char)scan->statement[i])) i++;
    for (size_t k = 0; k < sizeof firsts / sizeof *firsts; k++) {
        size_t n = strlen(firsts[k]);
        if (scan->size - i > n && strncasecmp(scan->statement + i, firsts[k], n) == 0) return true;
    }
    return false;
}

/* ---- the lexer ---- */

static void keep(bough_dumpscan *scan, char c) {
    if (scan->size < sizeof scan->statement) scan->statement[scan->size++] = c;
}

static int end_meta(bough_dumpscan *scan, bough_error *err) {
    static const char *const allowed[] = {"restrict", "unrestrict"};
    size_t n = 0;
    while (n < scan->meta_size && isalpha((unsigned char)scan->meta[n])) n++;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (n == strlen(allowed[i]) && memcmp(scan->meta, allowed[i], n) == 0) return BOUGH_OK;
    if ((n == 1 && scan->meta[0] == 'c') || (n == 7 && memcmp(scan->meta, "connect", 7) == 0))
        return refuse_create(err, "\\connect");
    (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "the dump holds the psql command \"\\%.*s\"",
                     n ? (int)n : 1, scan->meta_size ? scan->meta : "");
    (void)bough_hint(err, "Give a dump as pg_dump wrote it.");
    return BOUGH_E_UNSUPPORTED;
}

static int in_sql(bough_dumpscan *scan, char c, bough_error *err) {
    char before = scan->previous;
    scan->previous = c;
    switch (c) {
    case '-':
        if (before == '-') scan->state = IN_LINE_COMMENT;
        scan->meta_size = 0;
        break;
    case '*':
        if (before == '/') {
            scan->state = IN_BLOCK_COMMENT;
            scan->depth = 1;
            scan->previous = '\0';
        }
        break;
    case '\'': {
        size_t n = scan->size;
        bool marked = n && (scan->statement[n - 1] == 'E' || scan->statement[n - 1] == 'e') &&
                      (n < 2 || !name_byte(scan->statement[n - 2]));
        if (before != '\'') scan->escapes = (before == 'E' || before == 'e') && marked;
        scan->state = IN_STRING;
        scan->escaped = false;
        break;
    }
    case '"':
        scan->state = IN_NAME;
        break;
    case '$':
        if (!name_byte(before)) {
            scan->state = IN_TAG;
            scan->tag_size = 0;
            scan->tag[scan->tag_size++] = '$';
        }
        break;
    case '\\':
        scan->state = IN_META;
        scan->meta_size = 0;
        return BOUGH_OK;
    case ';':
        if (matters(scan)) return end_statement(scan, err);
        scan->size = 0;
        return BOUGH_OK;
    default:
        break;
    }
    keep(scan, c);
    return BOUGH_OK;
}

/* A comment began with two bytes of which the first, and now the second, were kept: leave a space
 * instead. */
static void end_comment(bough_dumpscan *scan) {
    if (scan->size >= 2) scan->size -= 2;
    keep(scan, ' ');
    scan->state = IN_SQL;
    scan->previous = ' ';
}

static void in_line_comment(bough_dumpscan *scan, char c) {
    static const char last[] = " PostgreSQL database dump complete";
    size_t n = sizeof last - 1;
    if (c != '\n') {
        if (scan->meta_size < sizeof scan->meta && c != '\r') scan->meta[scan->meta_size++] = c;
        return;
    }
    if (scan->meta_size == n && memcmp(scan->meta, last, n) == 0) scan->is_complete = true;
    end_comment(scan);
}

static void in_block_comment(bough_dumpscan *scan, char c) {
    char before = scan->previous;
    scan->previous = c;
    if (before == '/' && c == '*') {
        scan->depth++;
        scan->previous = '\0';
    } else if (before == '*' && c == '/') {
        scan->previous = '\0';
        if (--scan->depth == 0) end_comment(scan);
    }
}

static void in_string(bough_dumpscan *scan, char c) {
    if (scan->escaped) {
        scan->escaped = false;
    } else if (c == '\\' && scan->escapes) {
        scan->escaped = true;
    } else if (c == '\'') {
        keep(scan, c);
        scan->state = IN_SQL;
        scan->previous = '\'';
    }
}

static int in_tag(bough_dumpscan *scan, char c, bough_error *err) {
    bool fits = scan->tag_size < sizeof scan->tag;
    if (fits && c == '$') {
        scan->tag[scan->tag_size++] = c;
        scan->tag_at = 0;
        scan->state = IN_DOLLAR;
        return BOUGH_OK;
    }
    if (fits && name_byte(c) && !(scan->tag_size == 1 && isdigit((unsigned char)c))) {
        scan->tag[scan->tag_size++] = c;
        return BOUGH_OK;
    }
    for (size_t i = 1; i < scan->tag_size; i++) keep(scan, scan->tag[i]);
    scan->state = IN_SQL;
    scan->previous = scan->tag[scan->tag_size - 1];
    return in_sql(scan, c, err);
}

static void in_dollar(bough_dumpscan *scan, char c) {
    if (c == scan->tag[scan->tag_at])
        scan->tag_at++;
    else
        scan->tag_at = c == '$' ? 1 : 0;
    if (scan->tag_at == scan->tag_size) {
        keep(scan, '$');
        scan->state = IN_SQL;
        scan->previous = ' ';
    }
}

static int step(bough_dumpscan *scan, char c, bough_error *err) {
    switch (scan->state) {
    case IN_SQL:
        return in_sql(scan, c, err);
    case IN_LINE_COMMENT:
        in_line_comment(scan, c);
        break;
    case IN_BLOCK_COMMENT:
        in_block_comment(scan, c);
        break;
    case IN_STRING:
        in_string(scan, c);
        break;
    case IN_NAME:
        keep(scan, c);
        if (c == '"') scan->state = IN_SQL;
        break;
    case IN_TAG:
        return in_tag(scan, c, err);
    case IN_DOLLAR:
        in_dollar(scan, c);
        break;
    case IN_META:
        if (c != '\n') {
            if (scan->meta_size < sizeof scan->meta) scan->meta[scan->meta_size++] = c;
            break;
        }
        scan->state = IN_SQL;
        scan->previous = '\n';
        return end_meta(scan, err);
    case BEFORE_COPY:
        if (c == '\\')
            return bough_fail(err, BOUGH_E_UNSUPPORTED, "the dump holds a psql command after COPY");
        if (c != '\n') break;
        scan->state = IN_COPY;
        scan->meta_size = 0;
        break;
    case IN_COPY:
    default:
        break;
    }
    return BOUGH_OK;
}

/* Data of COPY: whole lines at a time, until one that is "\.". Returns how many bytes were used. */
static size_t skip_copy(bough_dumpscan *scan, const char *data, size_t size) {
    const char *newline = memchr(data, '\n', size);
    size_t n = newline ? (size_t)(newline - data) : size;
    for (size_t i = 0; i < n && scan->meta_size < 4; i++) scan->meta[scan->meta_size++] = data[i];
    if (!newline) return size;
    bool ends = scan->meta_size >= 2 && memcmp(scan->meta, "\\.", 2) == 0 &&
                (scan->meta_size == 2 || (scan->meta_size == 3 && scan->meta[2] == '\r'));
    scan->meta_size = 0;
    if (ends) {
        scan->state = IN_SQL;
        scan->previous = '\n';
    }
    return n + 1;
}

int bough_dumpscan_feed(bough_dumpscan *scan, const char *data, size_t size, bough_error *err) {
    size_t i = 0;
    int rc = BOUGH_OK;
    while (!rc && i < size) {
        if (scan->state == IN_COPY)
            i += skip_copy(scan, data + i, size - i);
        else
            rc = step(scan, data[i++], err);
    }
    return rc;
}
