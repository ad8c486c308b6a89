/**
 * New passwords for a copy of a protected branch: whoever knows the parent's must not enter it.
 */
#ifndef BOUGH_SERVER_PASSWORDS_H
#define BOUGH_SERVER_PASSWORDS_H

#include "server/server.h"

/**
 * Give each role that logs in a new password inside a running compute, in one transaction.
 *
 * Roles that the catalogue lists for `branch` get random ones. All other roles, superusers of an
 * import and roles that do not log in among them, lose theirs: nobody enters with one that Bough
 * does not know. The administrator's stays.
 *
 * (locked) The compute must have been begun closed (computes_begin_closed()), or somebody may be in
 * already.
 *
 * @param[out] roles  The listed roles as they are now, to be written to the catalogue by
 *                    bough_roles_set_secret(); free() it. `branch_id` is that of `branch`.
 * @param branch      Whose roles the catalogue lists: the branch itself, or its parent.
 */
BOUGH_CHECK int passwords_renew(bough_role_row **roles, size_t *n, const server *srv,
                                const char *endpoint, const char *branch, bough_error *err);

#endif
