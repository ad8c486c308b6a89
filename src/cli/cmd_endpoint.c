/* bough endpoint. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bough/branch.h"
#include "bough/endpoint.h"
#include "cli/cli.h"
#include "util/error.h"

int cmd_endpoint_list(const cli_args *args, bough_error *err) {
    static const char *const headings[] = {"BRANCH", "ID", "STATE", "TYPE", "HOST", NULL};
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch_list *branches = NULL;
    bough_endpoint_list *list = NULL;
    cli_table *table = cli_table_new(headings);
    json_t *all = json_array();
    int rc = table && all ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = cli_connect_project(&client, &project, args, err);
    if (!rc) rc = bough_endpoint_get_all(&list, client, project->id, err);
    if (!rc) rc = bough_branch_get_all(&branches, client, project->id, err);
    for (size_t i = 0; !rc && i < list->count; i++) {
        const bough_endpoint *e = list->items[i];
        if (args->json) {
            if (json_array_append_new(all, cli_json(e->json)) != 0)
                rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
            continue;
        }
        const char *cells[] = {cli_branch_name(branches, e->branch_id), e->id, e->state, e->type,
                               e->host};
        for (size_t k = 0; k < sizeof cells / sizeof cells[0]; k++)
            cli_table_add(table, *cells[k] ? cells[k] : "-");
    }
    if (!rc) rc = args->json ? cli_print_json(json_incref(all), err) : cli_table_print(table, err);
    json_decref(all);
    cli_table_free(table);
    bough_endpoint_list_free(list);
    bough_branch_list_free(branches);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

enum { CALLED_SIZE = 1200 };

/* What a command works on. */
typedef struct subject {
    bough_client *client;
    bough_project *project;
    bough_branch *branch;
    bough_endpoint *endpoint;
} subject;

static void subject_free(subject *s) {
    bough_endpoint_free(s->endpoint);
    bough_branch_free(s->branch);
    bough_project_free(s->project);
    cli_disconnect(s->client);
}

/* The endpoint that the first word means: its own id, or the name or id of its branch, for that
 * which writes. */
static int subject_find(subject *s, const cli_args *args, bough_error *err) {
    const char *word = cli_word_get(args, 0);
    bool is_id = word && strncmp(word, "ep-", 3) == 0;
    *s = (subject){NULL, NULL, NULL, NULL};
    int rc = cli_connect_project(&s->client, &s->project, args, err);
    if (!rc && is_id) {
        rc = bough_endpoint_get(&s->endpoint, s->client, s->project->id, word, err);
        if (rc == BOUGH_E_NOTFOUND) is_id = false; /* a branch may be called so */
        if (rc == BOUGH_E_NOTFOUND) rc = BOUGH_OK;
    }
    if (!rc)
        rc = bough_branch_find(&s->branch, s->client, s->project->id,
                               is_id ? s->endpoint->branch_id : word, err);
    if (!rc && !is_id)
        rc = bough_endpoint_find(&s->endpoint, s->client, s->project->id, s->branch->id, err);
    return rc;
}

/* "Compute of branch main"; of one that only reads "Read-only compute ep-x of branch main". */
static const char *called(char *out, size_t size, const subject *s) {
    bool is_read_only = strcmp(s->endpoint->type, "read_only") == 0;
    (void)snprintf(out, size, "%s%s of branch %s", is_read_only ? "Read-only compute " : "Compute",
                   is_read_only ? s->endpoint->id : "", s->branch->name);
    return out;
}

int cmd_endpoint_get(const cli_args *args, bough_error *err) {
    subject s;
    json_t *all = NULL;
    int rc = subject_find(&s, args, err);
    if (!rc) rc = cli_read_json(&all, s.endpoint->json, err);
    if (!rc && args->json) {
        rc = cli_print_json(json_incref(all), err);
    } else if (!rc) {
        const char *problem = json_string_value(json_object_get(all, "last_error"));
        cli_say(args, "Endpoint %s", s.endpoint->id);
        cli_say(args, "  branch    %s", s.branch->name);
        cli_say(args, "  state     %s", s.endpoint->state);
        cli_say(args, "  type      %s", s.endpoint->type);
        cli_say(args, "  host      %s", s.endpoint->host);
        if (problem) cli_say(args, "  problem   %s", problem);
    }
    json_decref(all);
    subject_free(&s);
    return rc;
}

/* Start, suspend or restart. */
static int change(const cli_args *args,
                  int (*call)(bough_endpoint **, bough_client *, const char *, const char *,
                              bough_error *),
                  const char *state, bough_error *err) {
    subject s;
    char name[CALLED_SIZE];
    bough_endpoint *changed = NULL;
    int rc = subject_find(&s, args, err);
    if (!rc) rc = call(&changed, s.client, s.project->id, s.endpoint->id, err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(changed->json), err);
    else if (!rc)
        cli_say(args, "%s is %s", called(name, sizeof name, &s),
                *changed->state ? changed->state : state);
    bough_endpoint_free(changed);
    subject_free(&s);
    return rc;
}

int cmd_endpoint_start(const cli_args *args, bough_error *err) {
    return change(args, bough_endpoint_start, "active", err);
}

int cmd_endpoint_suspend(const cli_args *args, bough_error *err) {
    return change(args, bough_endpoint_suspend, "idle", err);
}

/* Digits, and a point at most: strtod() alone also takes "inf", "1e400" and "0x1". Where they end;
 * NULL where they are no number. */
static const char *read_decimal(double *number, const char *text) {
    static const char digits[] = "0123456789";
    char copy[32];
    size_t whole = strspn(text, digits), n = whole, after = 0;
    if (text[n] == '.') {
        after = strspn(text + n + 1, digits);
        n += 1 + after;
    }
    if (whole + after == 0 || n >= sizeof copy) return NULL;
    memcpy(copy, text, n);
    copy[n] = '\0';
    *number = strtod(copy, NULL);
    return text + n;
}

/* "2", or "0.25-2". */
static int read_units(double *least, double *most, const char *text, bough_error *err) {
    const char *end = read_decimal(least, text);
    *most = end ? *least : 0;
    if (end && *end == '-') end = read_decimal(most, end + 1);
    if (end && !*end && *least > 0 && *least <= *most) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_USAGE, "\"%.60s\" is no size; say for example 2 or 0.25-2",
                      text);
}

int cmd_endpoint_resize(const cli_args *args, bough_error *err) {
    subject s = {NULL, NULL, NULL, NULL};
    bough_endpoint *changed = NULL;
    char name[CALLED_SIZE];
    double least, most;
    int rc = read_units(&least, &most, args->words[1], err);
    if (!rc) rc = subject_find(&s, args, err);
    if (!rc)
        rc = bough_endpoint_resize(&changed, s.client, s.project->id, s.endpoint->id, least, most,
                                   err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(changed->json), err);
    else if (!rc)
        cli_say(args, "%s has %s units%s", called(name, sizeof name, &s), args->words[1],
                strcmp(s.endpoint->state, "active") == 0 ? " from its next start on" : "");
    bough_endpoint_free(changed);
    subject_free(&s);
    return rc;
}

int cmd_endpoint_restart(const cli_args *args, bough_error *err) {
    return change(args, bough_endpoint_restart, "active", err);
}

static void say_why(const cli_args *args, const subject *s, const bough_endpoint_reason *r) {
    char time[40], name[CALLED_SIZE];
    bool is_awake = strcmp(r->state, "active") == 0;
    cli_format_time(time, sizeof time, r->since);
    cli_say(args, "%s is %s%s%s", called(name, sizeof name, s), is_awake ? "awake" : "asleep",
            *r->since ? " since " : "", *r->since ? time : "");
    if (*r->cause) cli_say(args, "  cause       %s", r->cause);
    if (!is_awake) {
        cli_say(args, "  The next connection wakes it.");
        return;
    }
    cli_say(args, "  sessions    %ld", r->sessions);
    cli_say(args, "  in use      %s", *r->busy ? r->busy : "no");
    cli_format_time(time, sizeof time, r->suspends_at);
    if (r->suspend_after_seconds == 0)
        cli_say(args, "  suspends    never");
    else if (*r->suspends_at)
        cli_say(args, "  suspends    at %s, unless it is used until then", time);
    else
        cli_say(args, "  suspends    %ld s after its last use", r->suspend_after_seconds);
}

int cmd_endpoint_why(const cli_args *args, bough_error *err) {
    subject s;
    bough_endpoint_reason *reason = NULL;
    int rc = subject_find(&s, args, err);
    if (!rc) rc = bough_endpoint_why(&reason, s.client, s.project->id, s.endpoint->id, err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(reason->json), err);
    else if (!rc)
        say_why(args, &s, reason);
    bough_endpoint_reason_free(reason);
    subject_free(&s);
    return rc;
}

int cmd_endpoint_create(const cli_args *args, bough_error *err) {
    subject s = {NULL, NULL, NULL, NULL};
    const char *type = cli_get(args, "type"), *size = cli_get(args, "size");
    char name[CALLED_SIZE];
    bough_endpoint_options options = {.version = 1,
                                      .is_read_only = type && strcmp(type, "read_only") == 0};
    int rc = BOUGH_OK;
    if (type && !options.is_read_only && strcmp(type, "read_write") != 0)
        rc = bough_fail(err, BOUGH_E_USAGE, "--type is read_only or read_write, not \"%.60s\"",
                        type);
    if (!rc && size) rc = read_units(&options.least, &options.most, size, err);
    if (!rc) rc = cli_connect_project(&s.client, &s.project, args, err);
    if (!rc) rc = bough_branch_find(&s.branch, s.client, s.project->id, args->words[0], err);
    if (!rc) options.branch = s.branch->id;
    if (!rc) rc = bough_endpoint_create(&s.endpoint, s.client, s.project->id, &options, err);
    if (!rc && args->json) {
        rc = cli_print_json(cli_json(s.endpoint->json), err);
    } else if (!rc) {
        cli_say(args, "%s is active", called(name, sizeof name, &s));
        cli_say(args, "  endpoint  %s", s.endpoint->id);
        cli_say(args, "  host      %s", s.endpoint->host);
    }
    subject_free(&s);
    return rc;
}

int cmd_endpoint_delete(const cli_args *args, bough_error *err) {
    subject s;
    int rc = subject_find(&s, args, err);
    if (!rc) rc = bough_endpoint_delete(s.client, s.project->id, s.endpoint->id, err);
    if (!rc && args->json)
        rc = cli_print_json(
            json_pack("{s:b,s:o}", "deleted", 1, "endpoint", cli_json(s.endpoint->json)), err);
    else if (!rc)
        cli_say(args, "Endpoint %s of branch %s is deleted", s.endpoint->id, s.branch->name);
    subject_free(&s);
    return rc;
}
