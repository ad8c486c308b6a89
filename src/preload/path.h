/* Which paths are layered, and how. Pure functions of the path's text. */
#ifndef BOUGH_PRELOAD_PATH_H
#define BOUGH_PRELOAD_PATH_H

#include <stdbool.h>
#include <stddef.h>

typedef enum bough_path_class {
    BOUGH_PATH_OUTSIDE, /* not below PGDATA */
    BOUGH_PATH_ROOT,    /* PGDATA itself */
    BOUGH_PATH_PLAIN,   /* below PGDATA, a real file of this branch */
    BOUGH_PATH_MOVED,   /* a real file under another name: pg_control, base/pgsql_tmp */
    BOUGH_PATH_DIR,     /* a layered directory */
    BOUGH_PATH_PAGES,   /* a relation or SLRU file: layered page by page */
    BOUGH_PATH_WHOLE    /* another file in a layered directory: copied up at its first opening for
                           writing */
} bough_path_class;

/*
 * Classify a path below PGDATA and bring it into the form used as key: no "./", no "//", no
 * trailing slash.
 *
 * rel   relative to PGDATA; a path with ".." is OUTSIDE
 * out   the key; for MOVED the real name. At least `size` bytes
 */
bough_path_class bough_path_classify(const char *rel, char *out, size_t size);

/* Whether the name is a relation's file: OID or tOWNER_OID, an optional fork, an optional segment.
 */
bool bough_is_relation_name(const char *name);

/* Whether `name` is that of a WAL segment; its timeline and number (within the log's 2^32 parts)
 * are returned. */
bool bough_parse_wal_name(const char *name, unsigned *tli, unsigned *log, unsigned *seg);

#endif
