/**
 * The schema of a database as SQL, by pg_dump. Any thread; blocks.
 */
#ifndef BOUGH_PG_SCHEMADUMP_H
#define BOUGH_PG_SCHEMADUMP_H

#include <stddef.h>
#include <sys/types.h>

#include "pg/sql.h"

/** No schema is given back that is larger. */
#define BOUGH_SCHEMA_MAX ((size_t)32 * 1024 * 1024)

/** Which part of a schema. */
typedef enum bough_schema_part {
    BOUGH_SCHEMA_SHOWN,  /**< for people: what differs between two runs is left out */
    BOUGH_SCHEMA_CREATE, /**< to be loaded where it is not: with the database itself */
    BOUGH_SCHEMA_GLOBALS /**< roles, their passwords and memberships, for a cluster of ours */
} bough_schema_part;

/** What to read. Strings are borrowed. */
typedef struct bough_schema_source {
    const bough_sql_place *at; /**< the running compute */
    const char *database;
    int major; /**< of the compute */
    bough_schema_part what;
    /** About ten times a second; non-zero cancels. May be NULL. */
    int (*tick)(void *context, pid_t pid);
    void *context;
} bough_schema_source;

/**
 * Read the schema.
 *
 * @param[out] sql  With a NUL at its end; free() it.
 * @retval BOUGH_E_UNSUPPORTED  There is no pg_dump for this version.
 * @retval BOUGH_E_PG           pg_dump failed, with what it said; or the schema is too large.
 */
BOUGH_CHECK int bough_schema_dump(char **sql, const bough_schema_source *source, bough_error *err);

/**
 * Run what bough_schema_dump() gave, in another compute, as its administrator.
 * @retval BOUGH_E_PG  A statement failed, with what PostgreSQL said.
 */
BOUGH_CHECK int bough_schema_load(const char *sql, const bough_schema_source *into,
                                  bough_error *err);

#endif
