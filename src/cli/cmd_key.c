/* bough api-key. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bough/branch.h"
#include "bough/key.h"
#include "cli/cli.h"
#include "util/when.h"

/* --expires-in as the time that it names. */
static int read_expiry(char *out, size_t size, const cli_args *args, bough_error *err) {
    const char *in = cli_get(args, "expires-in"), *at = cli_get(args, "expires-at");
    int64_t seconds;
    struct tm tm;
    *out = '\0';
    if (in && at)
        return bough_fail(err, BOUGH_E_USAGE, "--expires-in and --expires-at exclude each other");
    if (at) (void)snprintf(out, size, "%s", at);
    if (!in) return BOUGH_OK;
    int rc = bough_when_duration(&seconds, in, err);
    if (rc) return rc;
    time_t then = time(NULL) + (time_t)seconds;
    if (!gmtime_r(&then, &tm) || strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return bough_fail(err, BOUGH_E_INVALID, "\"%.40s\" is too long", in);
    return BOUGH_OK;
}

static int find_scope(bough_project **project, bough_branch **branch, bough_client *client,
                      const cli_args *args, bough_error *err) {
    const char *of = cli_get(args, "for-project"), *at = cli_get(args, "for-branch");
    if (at && !of) {
        (void)bough_fail(err, BOUGH_E_USAGE, "--for-branch needs --for-project");
        return bough_hint(err, "Branches of several projects may have the same name.");
    }
    int rc = of ? bough_project_find(project, client, of, err) : BOUGH_OK;
    return !rc && at ? bough_branch_find(branch, client, (*project)->id, at, err) : rc;
}

int cmd_key_create(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *branch = NULL;
    bough_key *key = NULL;
    char expires_at[64];
    int rc = read_expiry(expires_at, sizeof expires_at, args, err);
    if (!rc) rc = cli_connect(&client, args, err);
    if (!rc) rc = find_scope(&project, &branch, client, args, err);
    bough_key_options options = {.version = 1,
                                 .name = args->words[0],
                                 .project = project ? project->id : NULL,
                                 .branch = branch ? branch->id : NULL,
                                 .read_only = cli_get(args, "read-only") != NULL,
                                 .expires_at = *expires_at ? expires_at : NULL};
    if (!rc) rc = bough_key_create(&key, client, &options, err);
    if (!rc && args->json) {
        rc = cli_print_json(cli_json(key->json), err);
    } else if (!rc) {
        cli_say(args, "%s", key->key);
        (void)fprintf(stderr, "API key %d (%s); it is not shown again\n", key->id, key->name);
    }
    bough_key_free(key);
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

static void add_row(cli_table *table, const bough_key *k) {
    char id[16], created[40], used[40] = "never", expires[40] = "never", scope[300] = "everything";
    (void)snprintf(id, sizeof id, "%d", k->id);
    cli_format_time(created, sizeof created, k->created_at);
    if (*k->last_used_at) cli_format_time(used, sizeof used, k->last_used_at);
    if (*k->expires_at) cli_format_time(expires, sizeof expires, k->expires_at);
    if (*k->branch_id)
        (void)snprintf(scope, sizeof scope, "branch %s", k->branch_id);
    else if (*k->project_id)
        (void)snprintf(scope, sizeof scope, "project %s", k->project_id);
    const char *may = k->is_read_only ? "read" : "change";
    const char *const cells[] = {id, k->name, scope, may, created, used, expires};
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) cli_table_add(table, cells[i]);
}

int cmd_key_list(const cli_args *args, bough_error *err) {
    static const char *const headings[] = {">ID",     "NAME",      "SEES",    "MAY",
                                           "CREATED", "LAST USED", "EXPIRES", NULL};
    bough_client *client = NULL;
    bough_key_list *list = NULL;
    cli_table *table = cli_table_new(headings);
    json_t *all = json_array();
    int rc = table && all ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = cli_connect(&client, args, err);
    if (!rc) rc = bough_key_get_all(&list, client, err);
    for (size_t i = 0; !rc && i < list->count; i++) {
        if (!args->json)
            add_row(table, list->items[i]);
        else if (json_array_append_new(all, cli_json(list->items[i]->json)) != 0)
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    if (!rc) rc = args->json ? cli_print_json(json_incref(all), err) : cli_table_print(table, err);
    json_decref(all);
    cli_table_free(table);
    bough_key_list_free(list);
    cli_disconnect(client);
    return rc;
}

int cmd_key_revoke(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_key *key = NULL;
    int rc = cli_connect(&client, args, err);
    if (!rc) rc = bough_key_revoke(&key, client, args->words[0], err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(key->json), err);
    else if (!rc)
        cli_say(args, "API key %d (%s) is valid no longer", key->id, key->name);
    bough_key_free(key);
    cli_disconnect(client);
    return rc;
}
