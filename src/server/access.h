/**
 * What a key with a scope may do. It sees nothing outside of that: other projects and branches are
 * not there for it. Routes are closed to keys of a branch unless they are known to keep within it.
 */
#ifndef BOUGH_SERVER_ACCESS_H
#define BOUGH_SERVER_ACCESS_H

#include "server/http.h"

/**
 * Check a request against its key, before its handler. Worker thread.
 * @retval BOUGH_E_NOTFOUND  What it names is outside; in the words of what does not exist.
 * @retval BOUGH_E_AUTH      The key may not do that; the status is 403.
 */
BOUGH_CHECK int access_check(request *rq, bough_error *err);

/** Whether the key sees a project, or a branch of the project that the path names. For lists, and
 * for what bodies and queries name. */
bool access_sees_project(const request *rq, const char *project);
bool access_sees_branch(const request *rq, const char *branch);

/** The same as an error. @retval BOUGH_E_NOTFOUND */
BOUGH_CHECK int access_branch(const request *rq, const char *branch, bough_error *err);

#endif
