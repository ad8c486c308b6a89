/* Which paths are layered, and how. The names are PostgreSQL's: common/relpath.c, access/slru.c,
 * xlog_internal.h. */
#include "preload/path.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "preload/layout.h"

static const char *digits(const char *p) {
    while (isdigit((unsigned char)*p)) p++;
    return p;
}

bool bough_is_relation_name(const char *name) {
    const char *p = name, *q;
    if (*p == 't') { /* temporary: tBACKEND_OID */
        q = digits(++p);
        if (q == p || *q != '_') return false;
        p = q + 1;
    }
    q = digits(p);
    if (q == p) return false;
    p = q;
    if (*p == '_') {
        if (strncmp(p, "_fsm", 4) == 0)
            p += 4;
        else if (strncmp(p, "_vm", 3) == 0)
            p += 3;
        else if (strncmp(p, "_init", 5) == 0)
            p += 5;
        else
            return false;
    }
    if (*p == '.') {
        q = digits(++p);
        if (q == p) return false;
        p = q;
    }
    return *p == '\0';
}

static bool hex_name(const char *name, size_t least) {
    size_t n = strspn(name, "0123456789ABCDEF");
    return n >= least && name[n] == '\0';
}

bool bough_parse_wal_name(const char *name, unsigned *tli, unsigned *log, unsigned *seg) {
    return strlen(name) == 24 && hex_name(name, 24) &&
           sscanf(name, "%8X%8X%8X", tli, log, seg) == 3;
}

/* Copy without "./", "//" and a trailing slash. False for "..", or where it does not fit. */
static bool normalise(const char *rel, char *out, size_t size) {
    size_t n = 0;
    while (*rel) {
        size_t part = strcspn(rel, "/");
        if (part == 2 && rel[0] == '.' && rel[1] == '.') return false;
        if (part && !(part == 1 && rel[0] == '.')) {
            if (n + part + 2 > size) return false;
            if (n) out[n++] = '/';
            memcpy(out + n, rel, part);
            n += part;
        }
        rel += part;
        rel += *rel == '/';
    }
    out[n] = '\0';
    return true;
}

static bough_path_class in_base(const char *key, char *out, size_t size) {
    const char *rest = key + 5; /* after "base/" */
    if (strncmp(rest, "pgsql_tmp", 9) == 0 && (rest[9] == '/' || rest[9] == '\0')) {
        char moved[BOUGH_LAYERED_PATH_MAX * 2];
        (void)snprintf(moved, sizeof moved, BOUGH_TMP_NAME "%.150s", rest + 9);
        (void)snprintf(out, size, "%s", moved);
        return BOUGH_PATH_MOVED;
    }
    const char *slash = strchr(rest, '/');
    if (!slash) return *digits(rest) == '\0' ? BOUGH_PATH_DIR : BOUGH_PATH_WHOLE;
    return bough_is_relation_name(slash + 1) ? BOUGH_PATH_PAGES : BOUGH_PATH_WHOLE;
}

bough_path_class bough_path_classify(const char *rel, char *out, size_t size) {
    if (!normalise(rel, out, size)) return BOUGH_PATH_OUTSIDE;
    if (!out[0]) return BOUGH_PATH_ROOT;
    if (strncmp(out, "base", 4) == 0 && (out[4] == '\0' || out[4] == '/'))
        return out[4] ? in_base(out, out, size) : BOUGH_PATH_DIR;
    if (strncmp(out, "global", 6) == 0 && (out[6] == '\0' || out[6] == '/')) {
        if (!out[6]) return BOUGH_PATH_DIR;
        if (strcmp(out + 7, "pg_control") == 0) {
            (void)snprintf(out, size, "%s", BOUGH_CONTROL_NAME);
            return BOUGH_PATH_MOVED;
        }
        return bough_is_relation_name(out + 7) ? BOUGH_PATH_PAGES : BOUGH_PATH_WHOLE;
    }
    static const char *const slrus[] = {"pg_xact", "pg_commit_ts", "pg_multixact/offsets",
                                        "pg_multixact/members"};
    for (size_t i = 0; i < sizeof slrus / sizeof slrus[0]; i++) {
        size_t n = strlen(slrus[i]);
        if (strncmp(out, slrus[i], n) != 0) continue;
        if (out[n] == '\0') return BOUGH_PATH_DIR;
        if (out[n] == '/') return hex_name(out + n + 1, 4) ? BOUGH_PATH_PAGES : BOUGH_PATH_WHOLE;
    }
    if (strcmp(out, "pg_multixact") == 0) return BOUGH_PATH_DIR;
    return BOUGH_PATH_PLAIN;
}
