/* Settings of a project: who may connect, and what its new endpoints get. */
#include <string.h>

#include "model/allow.h"
#include "model/rules.h"
#include "server/api.h"
#include "server/body.h"

/* An array of rules, to one a line. */
static int read_rules(char *list, const json_t *ips, bough_error *err) {
    size_t at = 0, n = json_array_size(ips);
    if (!json_is_array(ips))
        return bough_fail(err, BOUGH_E_INVALID, "\"ips\" must be an array of texts");
    list[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(ips, i);
        const char *rule = json_string_value(item);
        size_t size = json_string_length(item);
        if (!rule || strlen(rule) != size)
            return bough_fail(err, BOUGH_E_INVALID, "\"ips\" must be an array of texts");
        int rc = bough_allow_check(rule, err);
        if (rc) return rc;
        if (at + size + 2 > BOUGH_ALLOW_SIZE)
            return bough_fail(err, BOUGH_E_INVALID, "\"ips\" has more than %d bytes",
                              BOUGH_ALLOW_SIZE - 1);
        if (at) list[at++] = '\n';
        memcpy(list + at, rule, size + 1);
        at += size;
    }
    return BOUGH_OK;
}

int api_settings_read(bool *are_given, bough_project_row *row, const json_t *project,
                      bough_error *err) {
    static const char *const known[] = {"allowed_ips", NULL}, *const allowed_known[] = {
                                                                  "ips", "protected_branches_only",
                                                                  "expected", NULL};
    json_t *settings = NULL, *keep = NULL, *allowed = NULL, *keep_allowed = NULL;
    int rc = body_object(&settings, &keep, project, "settings", err);
    if (!rc) rc = body_check(settings, "project.settings", known, err);
    *are_given = !rc && json_is_object(json_object_get(settings, "allowed_ips"));
    if (!rc) rc = body_object(&allowed, &keep_allowed, settings, "allowed_ips", err);
    if (!rc) rc = body_check(allowed, "project.settings.allowed_ips", allowed_known, err);
    if (!rc)
        rc = body_bool(&row->protects_only, allowed, "protected_branches_only", row->protects_only,
                       err);
    const json_t *ips = json_object_get(allowed, "ips");
    if (!rc && ips && !json_is_null(ips)) rc = read_rules(row->allowed_ips, ips, err);
    json_decref(keep_allowed);
    json_decref(keep);
    return rc;
}

int api_settings_read_expected(settings_expected *expected, const json_t *project,
                               bough_error *err) {
    static const char *const known[] = {"ips", "protected_branches_only", NULL};
    json_t *allowed = json_object_get(json_object_get(project, "settings"), "allowed_ips");
    json_t *wish = NULL, *keep = NULL;
    int rc = body_object(&wish, &keep, allowed, "expected", err);
    if (!rc) rc = body_check(wish, "project.settings.allowed_ips.expected", known, err);
    expected->allowed_ips[0] = '\0';
    expected->is_given = !rc && json_is_object(json_object_get(allowed, "expected"));
    if (!rc) rc = body_bool(&expected->protects_only, wish, "protected_branches_only", false, err);
    const json_t *ips = json_object_get(wish, "ips");
    if (!rc && ips && !json_is_null(ips)) rc = read_rules(expected->allowed_ips, ips, err);
    json_decref(keep);
    return rc;
}

int api_settings_store(bough_catalogue *cat, const bough_project_row *row,
                       const settings_expected *expected, bough_error *err) {
    return expected->is_given
               ? bough_projects_replace_allowed(cat, row->id, row->allowed_ips, row->protects_only,
                                                expected->allowed_ips, expected->protects_only, err)
               : bough_projects_set_allowed(cat, row->id, row->allowed_ips, row->protects_only,
                                            err);
}

/* ---- endpoints to come ---- */

int api_endpoint_defaults_read(bough_endpoint_defaults *defaults, const request *rq,
                               const json_t *project, bough_error *err) {
    static const char *const known[] = {"autoscaling_limit_min_cu", "autoscaling_limit_max_cu",
                                        "suspend_timeout_seconds",  "pg_settings",
                                        "pgbouncer_settings",       NULL};
    json_t *settings = NULL, *keep = NULL;
    long long seconds = 0;
    int rc = body_object(&settings, &keep, project, "default_endpoint_settings", err);
    if (!rc) rc = body_check(settings, "project.default_endpoint_settings", known, err);
    if (!rc)
        rc = body_refuse(settings, "pg_settings",
                         "settings of PostgreSQL are not taken for all endpoints", err);
    if (rc == BOUGH_E_UNSUPPORTED && err && !*err->hint)
        (void)bough_hint(err, "Say ALTER DATABASE ... SET or ALTER ROLE ... SET in the branch; its "
                              "children inherit that.");
    if (!rc)
        rc = body_refuse(settings, "pgbouncer_settings",
                         "the settings of the pooler are the same for all", err);
    if (!rc)
        rc = body_int(&seconds, settings, "suspend_timeout_seconds",
                      defaults->suspend_timeout_seconds, err);
    if (!rc) rc = bough_rule_suspend_timeout(seconds, rq->srv->least_suspend_seconds, err);
    if (!rc) defaults->suspend_timeout_seconds = (int)seconds;
    if (!rc) rc = api_read_size(&defaults->least_quarters, &defaults->most_quarters, settings, err);
    json_decref(keep);
    return rc;
}
