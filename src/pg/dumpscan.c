/*
 * Reading a dump in SQL.
 *
 * A lexer for what psql tells apart (psqlscan.l): comments, strings, quoted names, dollar quotes,
 * COPY data. A statement's text is kept with its strings emptied, up to a limit; at its semicolon
 * it is cut into words, and the few statements that name roles are looked at.
 *
 * Who reads otherwise than psql takes for text what psql runs. So where psql's versions 13 to 18
 * differ, or what follows hangs on more than the dump's text, the dump is refused: pg_dump writes
 * nothing of the kind. What a function does to the session as it runs (set_config()) cannot be
 * seen: psql itself is confined as well, and can start no program (restore.c).
 */
#include "pg/dumpscan.h"

#include <ctype.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

enum {
    STATEMENT_MAX = 65536,
    WORDS_MAX = 4096,
    ROLES_MAX = 10000,
    TAG_MAX = 64,
    META_MAX = 160,
    WORD_MAX = 24,
    LITERAL_MAX = 32
};

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

/* What a byte of SQL would go on with. */
typedef enum word_kind {
    NO_WORD,
    A_NAME,
    ODD_WORD /* a number, a parameter or a variable of psql's: where it ends is each version's own
              */
} word_kind;

/* Whether a string that follows goes on with one that knows backslashes. */
typedef enum after_string { NOTHING_GOES_ON, MAY_GO_ON, MAY_BE_COMMENT } after_string;

/* How far the statement is a routine's, in whose body psql 14 and later end none: see end_word().
 */
typedef enum routine { BEGINNING, CREATE, CREATE_OR, CREATE_OR_REPLACE, ROUTINE, OTHER } routine;

struct bough_dumpscan {
    state state;
    size_t mark_size; /* of a byte order mark, which psql skips, so far */
    char previous;    /* last byte of SQL, to see "--" and a doubled quote */
    bool escapes;     /* the string knows backslashes */
    bool escaped;     /* the last byte of the string was such a backslash */
    bool is_old;      /* as all of them do: standard_conforming_strings is off */
    bool was_old;     /* it has been */
    after_string after;
    size_t depth;  /* of nested comments */
    size_t parens; /* open in the statement */
    size_t bodies; /* begun, and not ended, of the routine */
    routine routine;
    word_kind word_kind;
    size_t word_size;
    char word[WORD_MAX]; /* its beginning */
    bool is_variable;    /* it follows a colon */
    bool has_letters;    /* others than "1e5" and "0x1f" have */
    bool is_fraction;    /* what follows is behind a number and a dot */
    bool is_exponent;    /* and digits must, behind "1e-" */
    size_t literal_size;
    char literal[LITERAL_MAX]; /* beginning of the last string */
    size_t size;
    bool is_cut; /* the statement was longer */
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

static int refuse(bough_error *err, const char *what) {
    (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "the dump holds %s", what);
    (void)bough_hint(err, "Give a dump as pg_dump wrote it.");
    return BOUGH_E_UNSUPPORTED;
}

/*
 * What the server takes for COPY FROM STDIN, and only that, is followed by data. "stdin" is no
 * reserved word: it may also be a table's name in a query in parentheses.
 */
static int begin_copy(bough_dumpscan *scan, const word *words, size_t n, bool is_cut,
                      bough_error *err) {
    size_t found = n, times = 0;
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (is(&words[i], "(")) depth++;
        if (is(&words[i], ")")) depth--;
        if (!is(&words[i], "stdin")) continue;
        times++;
        if (depth == 0 && is(&words[i - 1], "from")) found = i;
    }
    if (is_cut || n == WORDS_MAX) return refuse(err, "a COPY that is too long to be looked at");
    if (times == 0) return BOUGH_OK;
    if (found == n || scan->bodies > 0)
        return refuse(err, "a COPY of which it is not clear whether data follow it");
    scan->state = BEFORE_COPY;
    return BOUGH_OK;
}

/* Some encodings of clients have bytes like quotes and backslashes in their characters. */
static int set_encoding(const bough_dumpscan *scan, const word *value, bough_error *err) {
    char name[LITERAL_MAX];
    if (is(value, "default")) return BOUGH_OK;
    bool is_literal = is(value, "'");
    size_t size = is_literal ? scan->literal_size : value->size;
    int encoding = -1;
    if (size < sizeof name) {
        memcpy(name, is_literal ? scan->literal : value->at, size);
        name[size] = '\0';
        encoding = pg_char_to_encoding(name);
    }
    if (encoding >= 0 && pg_valid_server_encoding_id(encoding)) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_UNSUPPORTED,
                     "the dump is in an encoding that cannot be restored");
    (void)bough_hint(err, "Make it again with pg_dump -E UTF8.");
    return BOUGH_E_UNSUPPORTED;
}

static bool names(const word *w, const char *text) {
    return w->size == strlen(text) && strncasecmp(w->at, text, w->size) == 0;
}

/* What brings back a setting that was another. */
static bool undoes(const word *words, size_t n) {
    static const char *const firsts[] = {"reset", "discard", "rollback", "abort"};
    for (size_t i = 0; n && i < sizeof firsts / sizeof *firsts; i++)
        if (is(&words[0], firsts[i])) return true;
    return false;
}

/* What changes how the rest is read. */
static int set(bough_dumpscan *scan, const word *words, size_t n, bough_error *err) {
    const word *value = &words[n - 1];
    bool is_scoped = n > 2 && (is(&words[1], "session") || is(&words[1], "local"));
    for (size_t i = 1; i < n && i <= (is_scoped ? 2 : 1); i++) {
        if (names(&words[i], "client_encoding") || is(&words[i], "names"))
            return set_encoding(scan, value, err);
        if (!names(&words[i], "standard_conforming_strings")) continue;
        if (i != 1 || (!is(value, "on") && !is(value, "off")))
            return refuse(err, "an unusual setting of standard_conforming_strings");
        scan->is_old = is(value, "off");
        if (scan->is_old) scan->was_old = true;
    }
    return BOUGH_OK;
}

static int end_statement(bough_dumpscan *scan, bough_error *err) {
    size_t size = scan->size;
    bool is_cut = scan->is_cut;
    scan->size = 0;
    scan->is_cut = false;
    word *words = calloc(WORDS_MAX, sizeof *words);
    if (!words) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    size_t n = cut(words, scan->statement, size);
    int rc = BOUGH_OK;
    if (begins(words, n, "create", "database") || begins(words, n, "drop", "database") ||
        begins(words, n, "alter", "database"))
        rc = refuse_create(err, "CREATE, ALTER or DROP DATABASE");
    else if (begins(words, n, "copy", NULL))
        rc = begin_copy(scan, words, n, is_cut, err);
    else if (scan->was_old && undoes(words, n))
        rc = refuse(err, "what may undo its setting of standard_conforming_strings");
    else if (begins(words, n, "set", NULL))
        rc = set(scan, words, n, err);
    if (!rc && !begins(words, n, "copy", NULL)) rc = name_roles(scan, words, n, err);
    free(words);
    return rc;
}

/* Most statements are INSERTs or begin with a word that cannot matter: do not cut them. */
static bool matters(const bough_dumpscan *scan) {
    static const char *const firsts[] = {"create", "alter", "drop",    "grant",    "revoke", "copy",
                                         "set",    "reset", "discard", "rollback", "abort"};
    size_t i = 0;
    while (i < scan->size && isspace((unsigned char)scan->statement[i])) i++;
    for (size_t k = 0; k < sizeof firsts / sizeof *firsts; k++) {
        size_t n = strlen(firsts[k]);
        if (scan->size - i >= n && strncasecmp(scan->statement + i, firsts[k], n) == 0) return true;
    }
    return false;
}

/* ---- the lexer ---- */

static void keep_as_is(bough_dumpscan *scan, char c) {
    if (scan->size < sizeof scan->statement)
        scan->statement[scan->size++] = c;
    else
        scan->is_cut = true;
}

/* Not more than one space, so that spaces push no word out. */
static void keep(bough_dumpscan *scan, char c) {
    if (isspace((unsigned char)c) &&
        (scan->size == 0 || isspace((unsigned char)scan->statement[scan->size - 1])))
        return;
    keep_as_is(scan, c);
}

/* One word, which nothing can be hidden behind: a backquote or a second backslash psql would run.
 */
static bool is_restriction(const char *line, size_t n) {
    static const char *const allowed[] = {"restrict", "unrestrict"};
    if (n && line[n - 1] == '\r') n--;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        size_t at = strlen(allowed[i]);
        if (n <= at + 1 || memcmp(line, allowed[i], at) != 0 || line[at] != ' ') continue;
        for (at++; at < n && isalnum((unsigned char)line[at]); at++) continue;
        return at == n;
    }
    return false;
}

static int end_meta(bough_dumpscan *scan, bough_error *err) {
    size_t n = 0;
    if (scan->meta_size < sizeof scan->meta && is_restriction(scan->meta, scan->meta_size))
        return BOUGH_OK;
    while (n < scan->meta_size && isalpha((unsigned char)scan->meta[n])) n++;
    if ((n == 1 && scan->meta[0] == 'c') || (n == 7 && memcmp(scan->meta, "connect", 7) == 0))
        return refuse_create(err, "\\connect");
    (void)bough_fail(err, BOUGH_E_UNSUPPORTED, "the dump holds the psql command \"\\%.*s\"",
                     n ? (int)n : 1, scan->meta_size ? scan->meta : "");
    (void)bough_hint(err, "Give a dump as pg_dump wrote it.");
    return BOUGH_E_UNSUPPORTED;
}

static bool word_is(const bough_dumpscan *scan, const char *text) {
    return scan->word_size == strlen(text) && strncasecmp(scan->word, text, scan->word_size) == 0;
}

/* psql 14 and later end no statement between BEGIN and END of what begins as a routine does
 * (psqlscan.l, {identifier}). */
static routine follow_routine(const bough_dumpscan *scan) {
    bool is_kind = word_is(scan, "function") || word_is(scan, "procedure");
    switch (scan->routine) {
    case BEGINNING:
        return word_is(scan, "create") ? CREATE : OTHER;
    case CREATE:
        return is_kind ? ROUTINE : word_is(scan, "or") ? CREATE_OR : OTHER;
    case CREATE_OR:
        return word_is(scan, "replace") ? CREATE_OR_REPLACE : OTHER;
    case CREATE_OR_REPLACE:
        return is_kind ? ROUTINE : OTHER;
    case ROUTINE:
    case OTHER:
    default:
        return scan->routine;
    }
}

/* `last` is its last byte, `next` what ends it. */
static int end_word(bough_dumpscan *scan, char last, char next, bough_error *err) {
    static const char *const foreign[] = {"DBNAME", "HOST", "USER", "LAST_ERROR_MESSAGE"};
    word_kind kind = scan->word_kind;
    scan->word_kind = NO_WORD;
    bool is_number = kind == ODD_WORD && !scan->is_variable;
    /* where a number ends is each version's own */
    if (is_number && scan->has_letters) return refuse(err, "a name directly behind a number");
    scan->is_fraction = is_number && next == '.';
    scan->is_exponent = is_number && (last == 'e' || last == 'E') && (next == '+' || next == '-');
    /* is it a word at all, or does it belong to the string? */
    if (kind == A_NAME && scan->word_size == 1 && scan->routine < ROUTINE &&
        (next == '\'' || next == '&'))
        return refuse(err, "a string where a statement begins");
    /* psql reads the value anew, whatever it is */
    for (size_t i = 0; scan->is_variable && i < sizeof foreign / sizeof *foreign; i++)
        if (scan->word_size == strlen(foreign[i]) &&
            memcmp(scan->word, foreign[i], scan->word_size) == 0)
            return refuse(err, "a variable of psql's");
    if (kind != A_NAME) return BOUGH_OK;
    scan->routine = follow_routine(scan);
    if (scan->routine != ROUTINE || scan->parens > 0) return BOUGH_OK;
    if (word_is(scan, "begin") || (scan->bodies > 0 && word_is(scan, "case"))) scan->bodies++;
    if (scan->bodies > 0 && word_is(scan, "end")) scan->bodies--;
    return BOUGH_OK;
}

static void go_on_with_word(bough_dumpscan *scan, char c, char before) {
    if (scan->word_kind == NO_WORD) {
        scan->word_size = 0;
        scan->is_variable = before == ':';
        scan->has_letters = false;
        scan->word_kind = isdigit((unsigned char)c) || before == ':' || before == '$' ||
                                  (before == '.' && scan->is_fraction)
                              ? ODD_WORD
                              : A_NAME;
    }
    if (!isxdigit((unsigned char)c) && !strchr("xXoO_", c)) scan->has_letters = true;
    if (scan->word_size < sizeof scan->word) scan->word[scan->word_size] = c;
    scan->word_size++;
}

static int begin_string(bough_dumpscan *scan, char before, char mark, bool is_odd,
                        bough_error *err) {
    if (is_odd) return refuse(err, "a string directly behind a number");
    if (before != '\'' && scan->after == MAY_GO_ON)
        return refuse(err, "a string in pieces"); /* is a backslash one in the second? */
    if (before != '\'') {
        if (scan->is_old && before == '&') return refuse(err, "U&'' with old strings");
        scan->escapes = mark == 'e' || (scan->is_old && mark != 'b' && mark != 'x');
        scan->literal_size = 0;
    }
    scan->state = IN_STRING;
    scan->escaped = false;
    keep(scan, '\'');
    return BOUGH_OK;
}

static int end_in_sql(bough_dumpscan *scan, bough_error *err) {
    if (scan->parens > 0) { /* as in CREATE RULE */
        keep(scan, ';');
        return BOUGH_OK;
    }
    if (scan->bodies == 0) scan->routine = BEGINNING;
    if (matters(scan)) return end_statement(scan, err);
    scan->size = 0;
    scan->is_cut = false;
    return BOUGH_OK;
}

/* Between the pieces of a string there may be space and comments to the end of a line. */
static void follow_string(bough_dumpscan *scan, char c) {
    if (scan->after == MAY_BE_COMMENT)
        scan->after = c == '-' ? MAY_GO_ON : NOTHING_GOES_ON;
    else if (scan->after == MAY_GO_ON && c == '-')
        scan->after = MAY_BE_COMMENT;
    else if (!isspace((unsigned char)c) && c != '\'')
        scan->after = NOTHING_GOES_ON;
}

static int in_sql(bough_dumpscan *scan, char c, bough_error *err) {
    char before = scan->previous;
    word_kind kind = scan->word_kind;
    bool is_mark = kind == A_NAME && scan->word_size == 1; /* of E'', B'' and their like */
    int rc = BOUGH_OK;
    scan->previous = c;
    if (scan->is_exponent && !isdigit((unsigned char)c))
        return refuse(err, "a number with half an exponent");
    scan->is_exponent = false;
    if (name_byte(c) && (c != '$' || kind == A_NAME)) {
        go_on_with_word(scan, c, before);
        scan->after = NOTHING_GOES_ON;
        keep(scan, c);
        return BOUGH_OK;
    }
    if (kind != NO_WORD)
        rc = end_word(scan, before, c, err);
    else
        scan->is_fraction = false;
    if (rc) return rc;
    follow_string(scan, c);
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
    case '\'':
        return begin_string(scan, before, is_mark ? (char)tolower((unsigned char)before) : '\0',
                            kind == ODD_WORD, err);
    case '"':
        scan->state = IN_NAME;
        break;
    case '$':
        if (kind == ODD_WORD) return refuse(err, "a \"$\" directly behind a number");
        scan->state = IN_TAG;
        scan->tag_size = 0;
        scan->tag[scan->tag_size++] = '$';
        break;
    case ':': /* two of them are a cast, and make no variable of what follows */
        if (before == ':') scan->previous = ' ';
        break;
    case '{':
        if (before == ':') return refuse(err, "a variable of psql's");
        break;
    case '(':
        scan->parens++;
        break;
    case ')':
        if (scan->parens > 0) scan->parens--;
        break;
    case '\\':
        scan->state = IN_META;
        scan->meta_size = 0;
        return BOUGH_OK;
    case ';':
        return end_in_sql(scan, err);
    default:
        break;
    }
    keep(scan, c);
    return BOUGH_OK;
}

/* A comment began with two bytes of which the first, and now the second, were kept: leave a space
 * instead. */
static void end_comment(bough_dumpscan *scan) {
    if (scan->size >= 2 && !scan->is_cut) scan->size -= 2;
    keep(scan, ' ');
    scan->state = IN_SQL;
    scan->previous = ' ';
}

static void in_line_comment(bough_dumpscan *scan, char c) {
    static const char last[] = " PostgreSQL database dump complete";
    size_t n = sizeof last - 1;
    if (c != '\n' && c != '\r') { /* either ends it for psql */
        if (scan->meta_size < sizeof scan->meta) scan->meta[scan->meta_size++] = c;
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
        scan->after = scan->escapes ? MAY_GO_ON : NOTHING_GOES_ON;
        return;
    }
    if (scan->literal_size < sizeof scan->literal) scan->literal[scan->literal_size++] = c;
}

static int in_tag(bough_dumpscan *scan, char c, bough_error *err) {
    bool fits = scan->tag_size < sizeof scan->tag;
    bool is_first = scan->tag_size == 1;
    if (fits && c == '$') {
        scan->tag[scan->tag_size++] = c;
        scan->tag_at = 0;
        scan->state = IN_DOLLAR;
        return BOUGH_OK;
    }
    if (fits && name_byte(c) && !(is_first && isdigit((unsigned char)c))) {
        scan->tag[scan->tag_size++] = c;
        return BOUGH_OK;
    }
    if (!is_first || !isdigit((unsigned char)c))
        return refuse(err, "a \"$\" that begins neither a parameter nor a quote");
    scan->state = IN_SQL;
    scan->previous = '$';
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
        keep_as_is(scan, c);
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
        if (c == ' ' || c == '\t' || c == '\r') break;
        if (c != '\n') /* psql would read the data first, then this */
            return refuse(err, "more on the line of a COPY from stdin");
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

/* psql skips it at the very beginning. Returns how many bytes were used. */
static size_t skip_mark(bough_dumpscan *scan, const char *data, size_t size, int *rc,
                        bough_error *err) {
    static const char mark[] = "\xef\xbb\xbf";
    size_t i = 0;
    while (i < size && scan->mark_size < 3 && data[i] == mark[scan->mark_size]) {
        i++;
        scan->mark_size++;
    }
    if (i == size || scan->mark_size == 3) return i;
    for (size_t k = 0; !*rc && k < scan->mark_size; k++) *rc = step(scan, mark[k], err);
    scan->mark_size = 3;
    return i;
}

int bough_dumpscan_feed(bough_dumpscan *scan, const char *data, size_t size, bough_error *err) {
    size_t i = 0;
    int rc = BOUGH_OK;
    if (memchr(data, '\0', size)) return refuse(err, "a NUL byte, where psql ends its line");
    if (scan->mark_size < 3) i = skip_mark(scan, data, size, &rc, err);
    while (!rc && i < size) {
        if (scan->state == IN_COPY)
            i += skip_copy(scan, data + i, size - i);
        else
            rc = step(scan, data[i++], err);
    }
    return rc;
}
