/**
 * The long ways: making projects and branches, deleting projects (for branches: lifecycle.h). Each
 * either does everything or leaves nothing; a crash in the middle leaves a directory that
 * reconciliation at start-up removes. Worker threads.
 */
#ifndef BOUGH_SERVER_FLOWS_H
#define BOUGH_SERVER_FLOWS_H

#include "pg/install.h"
#include "server/http.h"

/** What POST /projects asks for; names are checked already. */
typedef struct project_wish {
    const char *name;
    const char *source;   /**< NULL: empty */
    int pg_major;         /**< 0: any */
    const char *branch;   /**< name of the root branch */
    const char *database; /**< for empty ones and dumps */
    const char *role;     /**< NULL: database_owner */
    int64_t history_retention_seconds;
    bough_endpoint_defaults endpoints; /**< for the first one and those to come */
    bool if_exists_return;
} project_wish;

/** Make a project; sets the request's status and answer. */
BOUGH_CHECK int flow_project_create(request *rq, const project_wish *wish, bough_error *err);
BOUGH_CHECK int flow_project_delete(server *srv, const bough_project_row *project,
                                    bough_error *err);

/** What POST /projects/{}/branches asks for. */
typedef struct branch_wish {
    const char *name;
    const char *parent;   /**< id; "" with `snapshot`: it is a root branch */
    const char *snapshot; /**< id: begin there, rather than with the parent; NULL: no */
    const char *replaces; /**< id, with `snapshot`: the branch it is meant to replace */
    bool replaces_at_once;
    bough_target moment; /**< of the parent's past; all zero: its present */
    bool with_endpoint;
    int suspend_timeout_seconds;
    int least_quarters, most_quarters; /**< the endpoint's size; 0: what the project says */
    bool if_exists_return;
    bool is_protected;
    bool is_look;                    /**< as in bough_branch_row */
    bool keeps_passwords;            /**< of a protected parent, too */
    int64_t expires_ms, ttl_seconds; /**< as in bough_branch_row; 0: it does not expire */
    bool expiry_cascades;
    const char *annotation; /**< JSON; NULL: none */
} branch_wish;

BOUGH_CHECK int flow_branch_create(request *rq, const bough_project_row *project,
                                   const branch_wish *wish, bough_error *err);
/**
 * Write a branch out as a plain PGDATA. The branch is locked only for a moment.
 * @param path  Absolute. Missing, or an empty directory, outside the store; left so on failure.
 */
BOUGH_CHECK int flow_branch_export(request *rq, const bough_branch_row *branch, const char *path,
                                   bough_error *err);

/** Fill in an operation that has just been finished. `started_ms` is of bough_now_ms(). */
BOUGH_CHECK int flow_operation(bough_operation_row *row, const char *action, const char *project,
                               const char *branch, const char *endpoint, double started_ms,
                               bough_error *err);

/** Delete what is in the trash, in the background. */
void flow_purge_later(server *srv);

/** For callbacks of long work: tells the client, and says whether to stop. `context` is the
 * request. */
int flow_progress(void *context, const char *phase, uint64_t done_bytes, uint64_t total_bytes);

/** BOUGH_E_CANCELLED when the client has gone or the server is ending. */
BOUGH_CHECK int flow_check(request *rq, bough_error *err);

/**
 * A branch with the schema of another, now or at a moment, and without any row: a root branch that
 * shares no file with it. (flow_schema.c)
 */
BOUGH_CHECK int flow_schema_branch_create(request *rq, const bough_project_row *project,
                                          const branch_wish *wish, bough_error *err);

/* Between flows.c, flow_project.c, flow_restore.c, flow_schema.c and flow_snapshot.c. */

/** A name that no branch has: "NAME (SUFFIX)", or that with a number. `out`: BOUGH_NAME_SIZE. */
BOUGH_CHECK int flow_free_name(char *out, server *srv, const char *project, const char *name,
                               const char *suffix, bough_error *err);

/** The size of a branch's endpoint: as wished, else as the project says. */
void flow_endpoint_size(bough_endpoint_row *row, const bough_project_row *project,
                        const branch_wish *wish);

/** The files of a branch that shows what initdb makes; the first of a version runs it. */
BOUGH_CHECK int flow_fork_template(request *rq, const bough_pg *pg, const char *branch,
                                   bough_error *err);

/**
 * (branch locked) The files of a child of a branch's present, and the settings that it carries.
 * @param[out] forked         May be NULL.
 * @param[out] checkpoint_ms  What asking for a checkpoint took.
 * @param[out] carried        For bough_conf; free each, and the array.
 */
BOUGH_CHECK int flow_fork(bough_fork_result *forked, double *checkpoint_ms, char ***carried,
                          server *srv, const char *parent, const char *child, bough_error *err);
/** Configuration of a branch whose compute is not started. */
BOUGH_CHECK int flow_write_conf(server *srv, int major, const char *branch, const char *endpoint,
                                char **carried, bough_error *err);
/** The settings that a branch carries (bough_conf_carried()); NULL and success where it has none.
 */
BOUGH_CHECK int flow_carried(char ***carried, const char *pgdata, bough_error *err);
void flow_free_carried(char **carried);

/** Remove all files of a branch that the catalogue does not know (any more). Its lock is held. */
void flow_remove_files(server *srv, const char *branch, const char *endpoint);
/** A role record with its password encrypted. */
BOUGH_CHECK int flow_role(bough_role_row *row, const server *srv, const char *branch,
                          const char *name, const char *password, bough_error *err);

#endif
