/* What a key with a scope may do. No state. */
#include "server/access.h"

#include <string.h>

#define PROJECT "/projects/{}"
#define BRANCH PROJECT "/branches/{}"

bool access_sees_project(const request *rq, const char *project) {
    return !*rq->key.project_id || strcmp(rq->key.project_id, project) == 0;
}

bool access_sees_branch(const request *rq, const char *branch) {
    return !*rq->key.branch_id || strcmp(rq->key.branch_id, branch) == 0;
}

int access_branch(const request *rq, const char *branch, bough_error *err) {
    if (access_sees_branch(rq, branch)) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_NOTFOUND, "no branch has the id \"%.100s\" in this project",
                      branch);
}

static int forbid(request *rq, const char *why, bough_error *err) {
    rq->error_status = 403;
    rq->slug = "FORBIDDEN";
    return bough_fail(err, BOUGH_E_AUTH, "the API key %s", why);
}

static bool begins(const char *pattern, const char *with) {
    size_t n = strlen(with);
    return strncmp(pattern, with, n) == 0 && (pattern[n] == '/' || pattern[n] == '\0');
}

/* A thing of the project that is named by its own id: of the key's branch, or not there. */
static int check_thing(const request *rq, bough_error *err) {
    bough_endpoint_row endpoint;
    bough_operation_row operation;
    bough_catalogue *cat = rq->srv->cat;
    const char *project = rq->params[0], *id = rq->params[1], *branch = NULL;
    int rc = BOUGH_OK;
    if (begins(rq->route->pattern, PROJECT "/endpoints/{}")) {
        rc = bough_endpoints_get(&endpoint, cat, project, id, err);
        branch = endpoint.branch_id;
        if (!rc && !access_sees_branch(rq, branch))
            rc = bough_fail(err, BOUGH_E_NOTFOUND,
                            "no endpoint has the id \"%.100s\" in this project", id);
    } else if (begins(rq->route->pattern, PROJECT "/operations/{}")) {
        rc = bough_operations_get(&operation, cat, project, id, err);
        branch = operation.branch_id;
        if (!rc && !access_sees_branch(rq, branch))
            rc = bough_fail(err, BOUGH_E_NOTFOUND, "no such record");
    }
    return rc;
}

int access_check(request *rq, bough_error *err) {
    const bough_api_key_row *key = &rq->key;
    const char *pattern = rq->route->pattern;
    unsigned flags = rq->route->flags;
    bool is_change = rq->route->method != EVHTTP_REQ_GET;
    if (key->is_read_only && (is_change || flags & ROUTE_SECRET))
        return forbid(rq, "may only read, and no passwords", err);
    if (!*key->project_id) return BOUGH_OK;
    if (!begins(pattern, PROJECT))
        return flags & ROUTE_ANY_KEY ? BOUGH_OK : forbid(rq, "is for one project", err);
    if (!access_sees_project(rq, rq->params[0]))
        return bough_fail(err, BOUGH_E_NOTFOUND, "no project has the id \"%.100s\"", rq->params[0]);
    if (flags & ROUTE_OWNER) return forbid(rq, "has a scope", err);
    if (!*key->branch_id) return BOUGH_OK;
    if (begins(pattern, BRANCH "/set_as_default") || begins(pattern, BRANCH "/finalize_restore"))
        return forbid(rq, "is for one branch, and this is the project's", err);
    /* what is preserved is a branch of its own, which the key would neither see nor delete */
    if (begins(pattern, BRANCH "/restore") && json_object_get(rq->body, "preserve_under_name") &&
        access_sees_branch(rq, rq->params[1]))
        return forbid(rq, "is for one branch, and another would be made", err);
    if (begins(pattern, BRANCH)) return access_branch(rq, rq->params[1], err);
    if (!(flags & ROUTE_BRANCH_KEY)) return forbid(rq, "is for one branch", err);
    return check_thing(rq, err);
}
