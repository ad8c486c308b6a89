/**
 * What the catalogue holds: one struct per table. Fixed sizes, so that a record has no destructor;
 * lists are one allocation. Times are milliseconds since 1970 (UTC).
 */
#ifndef BOUGH_MODEL_RECORDS_H
#define BOUGH_MODEL_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/lsn.h"

enum {
    BOUGH_ID_SIZE = 64,      /**< any id, with its NUL */
    BOUGH_NAME_SIZE = 1028,  /**< 256 characters of UTF-8 */
    BOUGH_PG_NAME_SIZE = 64, /**< NAMEDATALEN of PostgreSQL */
    BOUGH_SOURCE_SIZE = 1024,
    BOUGH_ANNOTATION_SIZE = 8192,
    BOUGH_ALLOW_SIZE = 4096, /**< a list of addresses (model/allow.h) */
    BOUGH_HASH_SIZE = 65,    /**< SHA-256 in hexadecimal */
    BOUGH_SECRET_SIZE = 256, /**< an encrypted password */
    BOUGH_SCHEMA_OF_SIZE = BOUGH_ID_SIZE + BOUGH_LSN_SIZE + 24
};

/** What an endpoint gets where nobody says otherwise. */
typedef struct bough_endpoint_defaults {
    int least_quarters, most_quarters; /**< quarters of a compute unit; 0: BOUGH_SIZE_QUARTERS */
    int suspend_timeout_seconds;       /**< as in bough_endpoint_row */
} bough_endpoint_defaults;

typedef struct bough_project_row {
    char id[BOUGH_ID_SIZE];
    char name[BOUGH_NAME_SIZE];
    int pg_major;
    char
        source[BOUGH_SOURCE_SIZE]; /**< where it came from, without password; "" for an empty one */
    char source_hash[BOUGH_HASH_SIZE];  /**< of the whole source string; "" for an empty one */
    int64_t history_retention_seconds;  /**< 0: no history is kept */
    char allowed_ips[BOUGH_ALLOW_SIZE]; /**< who may connect (model/allow.h); "": all */
    bool protects_only;                 /**< allowed_ips is for protected branches alone */
    bough_endpoint_defaults endpoints;  /**< of those to come */
    int64_t created_ms, updated_ms;
} bough_project_row;

/** Where a branch of a moment of the past begins. */
typedef struct bough_origin_row {
    char branch_id[BOUGH_ID_SIZE];
    char lsn[BOUGH_LSN_SIZE]; /**< "16/B374D848": its parent's WAL up to here */
    int64_t time_us;     /**< the time asked for, microseconds since 1970; 0: an LSN was, or none */
    int64_t restored_ms; /**< when it was restored or reset last; 0: never */
} bough_origin_row;

/** What a client has noted of a branch; it means nothing to us. */
typedef struct bough_annotation_row {
    char branch_id[BOUGH_ID_SIZE];
    char value[BOUGH_ANNOTATION_SIZE]; /**< a JSON object of strings */
    int64_t created_ms;
} bough_annotation_row;

/** A restore that is under way (server/flow_restore.c). */
typedef struct bough_swap_row {
    char branch_id[BOUGH_ID_SIZE];
    char project_id[BOUGH_ID_SIZE];
    char incoming_id[BOUGH_ID_SIZE];     /**< directory of what it is to show */
    char source_id[BOUGH_ID_SIZE];       /**< the branch that this is of */
    char preserve_name[BOUGH_NAME_SIZE]; /**< "" to delete what it showed */
    char endpoint_id[BOUGH_ID_SIZE];     /**< for the branch that keeps it */
    char lsn[BOUGH_LSN_SIZE];
    int64_t time_us;
} bough_swap_row;

/** Where a project is in the list of them. */
typedef struct bough_project_place {
    int64_t created_ms;
    char id[BOUGH_ID_SIZE];
} bough_project_place;

typedef struct bough_branch_row {
    char id[BOUGH_ID_SIZE];
    char project_id[BOUGH_ID_SIZE];
    char name[BOUGH_NAME_SIZE];
    char parent_id[BOUGH_ID_SIZE];     /**< "" for a root branch */
    char parent_name[BOUGH_NAME_SIZE]; /**< read only: joined in */
    char state[16];                    /**< "ready" or "failed" */
    bool is_default, is_protected;
    int64_t created_ms, updated_ms;
    int64_t expires_ms;     /**< 0: never */
    int64_t ttl_seconds;    /**< how long it had to live when expires_ms was set */
    bool expiry_cascades;   /**< takes its children along; else it waits for their end */
    int expiry_warnings;    /**< how many were given: 0 to 2 (model/expiry.h) */
    int64_t deleted_ms;     /**< recoverable since then; 0: not deleted */
    bool has_live_children; /**< read only: that are neither deleted nor looks */
    bool is_look;           /**< read-only, and removed when it expires and nobody uses it */
    bool is_snapshot;       /**< read only: holds the contents of a snapshot (model/snapshots.h) */
    bool was_snapshot;      /**< read only: restored from one */
    bool has_origin;        /**< read only: it begins at a moment of the past, or was restored */
    char schema_of[BOUGH_SCHEMA_OF_SIZE]; /**< what its schema alone was taken from, and of which
                                             moment (server/flow_schema.c); "" where it has rows */
} bough_branch_row;

/** What the server last knew of the time (server/clock.h). */
typedef struct bough_clock_row {
    int64_t wall_ms;             /**< the time, as far as it was trusted */
    int64_t boot_ms;             /**< CLOCK_BOOTTIME at that moment */
    char boot_id[BOUGH_ID_SIZE]; /**< of the kernel that counted boot_ms */
} bough_clock_row;

typedef struct bough_endpoint_row {
    char id[BOUGH_ID_SIZE];
    char project_id[BOUGH_ID_SIZE];
    char branch_id[BOUGH_ID_SIZE];
    int suspend_timeout_seconds; /**< above 0: suspended after so long without a session */
    int least_quarters,
        most_quarters;    /**< its size: quarters of a compute unit; 0: BOUGH_SIZE_QUARTERS */
    bool is_read_only;    /**< its compute follows that of the branch's read-write endpoint */
    char last_error[512]; /**< why its compute ended unexpectedly; "" when it did not */
    int64_t created_ms, updated_ms;
} bough_endpoint_row;

typedef struct bough_role_row {
    char branch_id[BOUGH_ID_SIZE];
    char name[BOUGH_PG_NAME_SIZE];
    unsigned char secret[BOUGH_SECRET_SIZE]; /**< the password, encrypted (model/secret.h) */
    size_t secret_size;                      /**< 0: the password is not known */
    bool is_unsure; /**< PostgreSQL may still have the one before: to be set again before it is
                       told anybody */
    int64_t created_ms, updated_ms;
} bough_role_row;

typedef struct bough_database_row {
    int64_t id;
    char branch_id[BOUGH_ID_SIZE];
    char name[BOUGH_PG_NAME_SIZE];
    char owner[BOUGH_PG_NAME_SIZE];
    int64_t created_ms, updated_ms;
} bough_database_row;

/** A key of the API; the key itself is not kept, only its hash. */
typedef struct bough_api_key_row {
    int64_t id;
    char name[BOUGH_NAME_SIZE];
    char hash[BOUGH_HASH_SIZE];     /**< SHA-256 */
    bool is_local;                  /**< the one in the store's file */
    bool is_read_only;              /**< changes nothing, and sees no passwords */
    char project_id[BOUGH_ID_SIZE]; /**< "": of no project in particular */
    char branch_id[BOUGH_ID_SIZE];  /**< "": of the whole project */
    int64_t created_ms;
    int64_t expires_ms;      /**< 0: never */
    int64_t last_used_ms;    /**< 0: not yet */
    char last_used_from[48]; /**< address; "" */
} bough_api_key_row;

typedef struct bough_operation_row {
    int64_t seq;            /**< order of creation; set on insertion */
    char id[BOUGH_ID_SIZE]; /**< UUID */
    char project_id[BOUGH_ID_SIZE];
    char branch_id[BOUGH_ID_SIZE];   /**< or "" */
    char endpoint_id[BOUGH_ID_SIZE]; /**< or "" */
    char action[32];
    char status[16]; /**< "finished" or "failed" */
    char failure[512];
    int64_t created_ms, updated_ms;
    int64_t duration_ms;
} bough_operation_row;

#endif
