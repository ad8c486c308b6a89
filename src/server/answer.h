/**
 * Records as JSON, the way Neon's API shows them. All return a new reference, or NULL when memory
 * ran out.
 */
#ifndef BOUGH_SERVER_ANSWER_H
#define BOUGH_SERVER_ANSWER_H

#include <jansson.h>

#include "server/server.h"

/**
 * Begin the answer of a request in this thread; add a member or an element to it (both take
 * `value`; NULL is one that found no memory); and say whether all of them found memory. An answer
 * that lacks one would tell of something else: run_handler() makes it one of failure.
 */
void answer_begin(void);
void answer_set(json_t *object, const char *name, json_t *value);
void answer_append(json_t *array, json_t *value);
void answer_insert(json_t *array, size_t at, json_t *value);
bool answer_is_whole(void);
/** Whether a row was found of which the answer tells where it is there; `rc` is its reader's. One
 * that could not be read tears the answer. */
bool answer_found(int rc);

/** A text from elsewhere (a message of PostgreSQL's, a client's words), which may be no UTF-8, or
 * have been cut within a character: then that is shown as U+FFFD (bough_utf8_mend()). */
json_t *answer_text(const char *text);

/** RFC 3339 with milliseconds, UTC. */
void answer_time(char *out, size_t size, int64_t ms);

json_t *answer_project(const bough_project_row *row);
/** With bytes and depth; `is_brief` leaves them out (they take reading the disk). */
json_t *answer_branch(server *srv, const bough_branch_row *row, bool is_brief);

/** What the row and the bytes alone tell of a branch. `usage` NULL: they are not known. */
json_t *answer_branch_fixed(const bough_branch_row *row, const bough_usage *usage);
/** Of that, what a table of branches shows. */
json_t *answer_branch_brief(const bough_branch_row *row, const bough_usage *usage);
/** Whether there is more: what the time, or other tables, tell of it; and add that. */
bool answer_branch_has_more(const bough_branch_row *row);
void answer_branch_more(json_t *branch, server *srv, const bough_branch_row *row);
/**
 * The earliest moment that a branch's own history has: of its oldest restore point, but not before
 * the time for which the project keeps history. False where it has none.
 */
bool answer_history_begins(char *when, size_t size, const bough_project_row *project,
                           const bough_usage *usage);
json_t *answer_endpoint(server *srv, const bough_endpoint_row *row);
/** `password` may be NULL. */
json_t *answer_role(const bough_role_row *row, const char *password);
json_t *answer_database(const bough_database_row *row);
json_t *answer_operation(const bough_operation_row *row);
/** An array of what `one` makes of each of n rows; takes nothing. */
json_t *answer_operations(const bough_operation_row *rows, size_t n);

/** Who connects to what. */
typedef struct login {
    const char *role, *password, *database; /**< "" as password: without */
} login;

/** Connection string through the front door, or by the compute's Unix socket. Free with free(). */
char *answer_uri(server *srv, const char *endpoint, const login *who, bool by_socket);
/** {connection_uri, connection_parameters} as Neon shows it. */
json_t *answer_connection(server *srv, const char *endpoint, const login *who);

/** The branch's databases and roles, as arrays. */
BOUGH_CHECK int answer_contents(json_t **databases, json_t **roles, server *srv, const char *branch,
                                bough_error *err);
/** connection_uris of a branch: of its first database and that one's owner; empty where the
 * password is unknown. */
BOUGH_CHECK int answer_connections(json_t **uris, server *srv, const char *branch,
                                   const char *endpoint, bough_error *err);

/** Decrypt a role's password into BOUGH_SECRET_SIZE bytes. @retval BOUGH_E_PRECONDITION it is not
 * stored */
BOUGH_CHECK int answer_password(char *out, const server *srv, const bough_role_row *role,
                                bough_error *err);

#endif
