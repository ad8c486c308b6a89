/**
 * The handlers that router.c's table names. Each: see request_handler in http.h.
 */
#ifndef BOUGH_SERVER_API_H
#define BOUGH_SERVER_API_H

#include "server/clock.h"
#include "server/http.h"

int api_user(request *rq, bough_error *err);
int api_organizations(request *rq, bough_error *err);
int api_organization(request *rq, bough_error *err);
int api_organization_members(request *rq, bough_error *err);
int api_auth(request *rq, bough_error *err);
int api_regions(request *rq, bough_error *err);
int api_status(request *rq, bough_error *err);
int api_shutdown(request *rq, bough_error *err);
int api_operation_list(request *rq, bough_error *err);
int api_operation_get(request *rq, bough_error *err);
int api_connection_uri(request *rq, bough_error *err);

int api_key_list(request *rq, bough_error *err);
int api_key_create(request *rq, bough_error *err);
int api_key_revoke(request *rq, bough_error *err);

int api_project_list(request *rq, bough_error *err);
int api_project_list_shared(request *rq, bough_error *err);
int api_project_create(request *rq, bough_error *err);
int api_project_get(request *rq, bough_error *err);
int api_project_update(request *rq, bough_error *err);
int api_project_delete(request *rq, bough_error *err);

int api_branch_list(request *rq, bough_error *err);
int api_branch_count(request *rq, bough_error *err);
int api_branch_create(request *rq, bough_error *err);
int api_branch_get(request *rq, bough_error *err);
int api_branch_update(request *rq, bough_error *err);
int api_branch_delete(request *rq, bough_error *err);
int api_branch_recover(request *rq, bough_error *err);
int api_branch_set_default(request *rq, bough_error *err);
int api_clock_confirm(request *rq, bough_error *err);
int api_store_usage(request *rq, bough_error *err);
int api_store_explain(request *rq, bough_error *err);
int api_store_collect(request *rq, bough_error *err);
int api_branch_export(request *rq, bough_error *err);
int api_branch_restore(request *rq, bough_error *err);
int api_branch_schema(request *rq, bough_error *err);
int api_branch_compare_schema(request *rq, bough_error *err);

int api_branch_detach(request *rq, bough_error *err);
int api_branch_finalize(request *rq, bough_error *err);

int api_snapshot_list(request *rq, bough_error *err);
int api_snapshot_create(request *rq, bough_error *err);
int api_snapshot_get(request *rq, bough_error *err);
int api_snapshot_update(request *rq, bough_error *err);
int api_snapshot_delete(request *rq, bough_error *err);
int api_snapshot_restore(request *rq, bough_error *err);
int api_schedule_get(request *rq, bough_error *err);
int api_schedule_set(request *rq, bough_error *err);

int api_endpoint_list(request *rq, bough_error *err);
int api_endpoint_list_of_branch(request *rq, bough_error *err);
int api_endpoint_create(request *rq, bough_error *err);
int api_endpoint_get(request *rq, bough_error *err);
int api_endpoint_update(request *rq, bough_error *err);
int api_endpoint_delete(request *rq, bough_error *err);
int api_endpoint_why(request *rq, bough_error *err);
int api_endpoint_start(request *rq, bough_error *err);
int api_endpoint_suspend(request *rq, bough_error *err);
int api_endpoint_restart(request *rq, bough_error *err);

int api_database_list(request *rq, bough_error *err);
int api_database_create(request *rq, bough_error *err);
int api_database_get(request *rq, bough_error *err);
int api_database_update(request *rq, bough_error *err);
int api_database_delete(request *rq, bough_error *err);

int api_role_list(request *rq, bough_error *err);
int api_role_create(request *rq, bough_error *err);
int api_role_get(request *rq, bough_error *err);
int api_role_delete(request *rq, bough_error *err);
int api_role_reveal(request *rq, bough_error *err);
int api_role_reset(request *rq, bough_error *err);

/* Helpers that several use. */

/** The only user there is; Neon's clients want a UUID. */
#define API_USER "00000000-0000-0000-0000-000000000000"
/** There is one organisation, "local". @retval BOUGH_E_NOTFOUND */
BOUGH_CHECK int api_check_organization(const char *id, bough_error *err);

/** The project that the first parameter names. */
BOUGH_CHECK int api_project_of(bough_project_row *row, const request *rq, bough_error *err);
/** The branch that the first two parameters name. */
BOUGH_CHECK int api_branch_of(bough_branch_row *row, const request *rq, bough_error *err);
/**
 * The end of a deletion: what is not there (any more) is deleted already, status 204, as Neon
 * answers it.
 * @param rc  What reading the record gave; BOUGH_E_NOTFOUND of anything above it in the path must
 * not be passed.
 */
BOUGH_CHECK int api_deleted_already(request *rq, int rc, bough_error *err);
/**
 * The moment for api_read_life().
 * @param branch  The body's object.
 * @param name    What the branch is or will be called.
 */
BOUGH_CHECK int api_life_moment(clock_moment *moment, request *rq, const json_t *branch,
                                const char *name, bough_error *err);
/**
 * Take protection and expiry from the body into a row, with what its name demands, and hold the
 * result against the rules.
 * @param moment  Of api_life_moment().
 */
BOUGH_CHECK int api_read_life(bough_branch_row *row, request *rq, const json_t *branch,
                              const clock_moment *moment, bough_error *err);
/**
 * Take the settings from a project's body into its row.
 * @param[out] are_given  Whether the body has any that the row keeps.
 */
BOUGH_CHECK int api_settings_read(bool *are_given, bough_project_row *row, const json_t *project,
                                  bough_error *err);
/**
 * Before the password of a role is told: where a reset of it was cut short, let PostgreSQL have it.
 * Takes the branch's lock then, and wakes it.
 */
BOUGH_CHECK int api_role_make_sure(bough_role_row *row, server *srv, const bough_branch_row *branch,
                                   bough_error *err);
/** What a change of a project's settings starts from, where the body says that. */
typedef struct settings_expected {
    bool is_given, protects_only;
    char allowed_ips[BOUGH_ALLOW_SIZE];
} settings_expected;

/** Take from a project's body what its settings must be still (`allowed_ips.expected`). */
BOUGH_CHECK int api_settings_read_expected(settings_expected *expected, const json_t *project,
                                           bough_error *err);
/**
 * (in a transaction) Put the settings of a row into the catalogue. Where that is done,
 * door_read_lists() puts them into effect.
 * @retval BOUGH_E_PRECONDITION  They are not what is expected; nothing changed.
 */
BOUGH_CHECK int api_settings_store(bough_catalogue *cat, const bough_project_row *row,
                                   const settings_expected *expected, bough_error *err);
/**
 * Take what a project's new endpoints get, `default_endpoint_settings`, from its body.
 * @param[in,out] defaults  What it is where the body does not say.
 * @retval BOUGH_E_UNSUPPORTED  Settings of PostgreSQL or PgBouncer, among others.
 */
BOUGH_CHECK int api_endpoint_defaults_read(bough_endpoint_defaults *defaults, const request *rq,
                                           const json_t *project, bough_error *err);
/** Take an endpoint's type from a body. @param[in,out] is_read_only  What it is where it does not
 * say. */
BOUGH_CHECK int api_read_type(bool *is_read_only, const json_t *endpoint, bough_error *err);
/** Make an endpoint of a branch and start its compute; takes the branch's lock. @param[in,out] row
 * Has its type, size and timeout. */
BOUGH_CHECK int api_endpoint_make(bough_endpoint_row *row, request *rq,
                                  const bough_branch_row *branch, bough_error *err);
/**
 * Take an endpoint's size from a body, in quarters of a compute unit.
 * @param[in,out] least, most  What they are where the body does not say.
 */
BOUGH_CHECK int api_read_size(int *least, int *most, const json_t *endpoint, bough_error *err);
/** A query parameter that is true or false; false where it is missing. */
BOUGH_CHECK int api_query_bool(bool *out, const request *rq, const char *name, bough_error *err);
/** A numeric query parameter within bounds. */
BOUGH_CHECK int api_query_int(long long *out, const request *rq, const char *name,
                              long long otherwise, long long least, long long most,
                              bough_error *err);
/**
 * Take a moment from two texts of which one at most is given (NULL or "": not).
 * @param lsn_name, time_name  What they are called, for messages.
 */
BOUGH_CHECK int api_read_moment(bough_target *moment, const char *lsn, const char *lsn_name,
                                const char *time, const char *time_name, bough_error *err);
/**
 * The member "pagination" of a list; NULL for an empty page, which has none: a cursor must not be
 * empty, and clients go on while it is there and has changed.
 */
json_t *api_pagination(const char *cursor);
/** Insert a finished operation and give {"operations": [...]} to add to an answer. */
BOUGH_CHECK int api_record(json_t **operations, request *rq, const char *action,
                           const char *project, const char *branch, const char *endpoint,
                           bough_error *err);

#endif
