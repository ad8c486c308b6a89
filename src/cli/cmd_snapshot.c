/* bough snapshot create, list, get, rename, delete, restore, finalize, schedule. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bough/snapshot.h"
#include "cli/cli.h"
#include "cli/moment.h"
#include "util/error.h"
#include "util/jsontext.h"
#include "util/when.h"

/* What all of these begin and end with. */
typedef struct context {
    bough_client *client;
    bough_project *project;
    bough_branch *branch;
    bough_snapshot *snapshot, *changed;
} context;

static int begin(context *c, const cli_args *args, bough_error *err) {
    return cli_connect_project(&c->client, &c->project, args, err);
}

static int begin_with_branch(context *c, const cli_args *args, bough_error *err) {
    int rc = begin(c, args, err);
    return rc ? rc
              : bough_branch_find(&c->branch, c->client, c->project->id, cli_word_get(args, 0),
                                  err);
}

static int begin_with_snapshot(context *c, const cli_args *args, bough_error *err) {
    int rc = begin(c, args, err);
    return rc ? rc
              : bough_snapshot_find(&c->snapshot, c->client, c->project->id, args->words[0], err);
}

static void end(context *c) {
    bough_snapshot_free(c->changed);
    bough_snapshot_free(c->snapshot);
    bough_branch_free(c->branch);
    bough_project_free(c->project);
    cli_disconnect(c->client);
}

int cmd_snapshot_create(const cli_args *args, bough_error *err) {
    context c = {0};
    char moment[64] = "";
    const char *at = cli_get(args, "at"), *in = cli_get(args, "expires-in");
    bough_snapshot_options options = {
        .version = 1, .name = cli_get(args, "name"), .expires_at = cli_get(args, "expires-at")};
    int rc = at ? cli_moment(moment, sizeof moment, at, err) : BOUGH_OK;
    if (!rc && in && options.expires_at)
        rc = bough_fail(err, BOUGH_E_USAGE, "only one option may say when a snapshot expires");
    if (!rc && in) rc = bough_when_duration(&options.ttl_seconds, in, err);
    if (at) options.moment = moment;
    if (!rc) rc = begin_with_branch(&c, args, err);
    if (!rc)
        rc =
            bough_snapshot_create(&c.changed, c.client, c.project->id, c.branch->id, &options, err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(c.changed->json), err);
    else if (!rc)
        cli_say(args, "Snapshot %s of %s is taken (%s)", c.changed->name, c.branch->name,
                c.changed->id);
    end(&c);
    return rc;
}

static int print_list(const bough_snapshot_list *list, bough_error *err) {
    static const char *const headings[] = {"NAME",    "ID",       "BRANCH",     "MOMENT",
                                           "EXPIRES", "TAKEN BY", ">OWN BYTES", NULL};
    cli_table *table = cli_table_new(headings);
    if (!table) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < list->count; i++) {
        const bough_snapshot *s = list->items[i];
        char moment[40], expires[40], own[16];
        cli_format_time(moment, sizeof moment, s->moment);
        cli_format_time(expires, sizeof expires, s->expires_at);
        cli_table_add(table, s->name);
        cli_table_add(table, s->id);
        cli_table_add(table, *s->branch_name ? s->branch_name : s->branch_id);
        cli_table_add(table, moment);
        cli_table_add(table, *expires ? expires : "-");
        cli_table_add(table, *s->frequency ? s->frequency : "-");
        cli_format_bytes(own, sizeof own, s->own_bytes);
        cli_table_add(table, own);
    }
    int rc = cli_table_print(table, err);
    cli_table_free(table);
    return rc;
}

int cmd_snapshot_list(const cli_args *args, bough_error *err) {
    context c = {0};
    bough_snapshot_list *list = NULL;
    int rc = begin(&c, args, err);
    if (!rc) rc = bough_snapshot_get_all(&list, c.client, c.project->id, err);
    if (!rc && args->json) {
        json_t *all = json_array();
        for (size_t i = 0; !rc && i < list->count; i++)
            if (json_array_append_new(all, cli_json(list->items[i]->json)) != 0)
                rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        if (!rc)
            rc = cli_print_json(all, err);
        else
            json_decref(all);
    } else if (!rc) {
        rc = print_list(list, err);
    }
    bough_snapshot_list_free(list);
    end(&c);
    return rc;
}

int cmd_snapshot_get(const cli_args *args, bough_error *err) {
    context c = {0};
    int rc = begin_with_snapshot(&c, args, err);
    const bough_snapshot *s = c.snapshot;
    if (!rc && args->json) {
        rc = cli_print_json(cli_json(s->json), err);
    } else if (!rc) {
        char time[40];
        cli_say(args, "name      %s", s->name);
        cli_say(args, "id        %s", s->id);
        cli_say(args, "branch    %s", *s->branch_name ? s->branch_name : s->branch_id);
        cli_format_time(time, sizeof time, s->moment);
        cli_say(args, "moment    %s", time);
        cli_say(args, "lsn       %s", s->lsn);
        cli_format_time(time, sizeof time, s->created_at);
        cli_say(args, "created   %s", time);
        cli_format_time(time, sizeof time, s->expires_at);
        cli_say(args, "expires   %s", *time ? time : "-");
        cli_say(args, "taken by  %s", *s->frequency ? s->frequency : "-");
        cli_format_bytes(time, sizeof time, s->own_bytes);
        cli_say(args, "bytes     %s of its own", time);
    }
    end(&c);
    return rc;
}

int cmd_snapshot_rename(const cli_args *args, bough_error *err) {
    context c = {0};
    int rc = begin_with_snapshot(&c, args, err);
    if (!rc)
        rc = bough_snapshot_rename(&c.changed, c.client, c.project->id, c.snapshot->id,
                                   args->words[1], err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(c.changed->json), err);
    else if (!rc)
        cli_say(args, "Snapshot %s is now named %s", c.snapshot->name, c.changed->name);
    end(&c);
    return rc;
}

int cmd_snapshot_delete(const cli_args *args, bough_error *err) {
    context c = {0};
    int rc = begin_with_snapshot(&c, args, err);
    if (!rc) rc = bough_snapshot_delete(c.client, c.project->id, c.snapshot->id, err);
    if (!rc && args->json)
        rc = cli_print_json(
            json_pack("{s:b,s:o}", "deleted", 1, "snapshot", cli_json(c.snapshot->json)), err);
    else if (!rc)
        cli_say(args, "Snapshot %s is deleted", c.snapshot->name);
    end(&c);
    return rc;
}

int cmd_snapshot_restore(const cli_args *args, bough_error *err) {
    context c = {0};
    bough_branch *target = NULL, *restored = NULL;
    const char *over = cli_get(args, "target");
    bough_snapshot_restore_options options = {
        .version = 1, .name = cli_get(args, "name"), .finalize = cli_get(args, "finalize") != NULL};
    int rc = begin_with_snapshot(&c, args, err);
    if (!rc && over) rc = bough_branch_find(&target, c.client, c.project->id, over, err);
    if (target) options.target = target->id;
    if (!rc)
        rc = bough_snapshot_restore(&restored, c.client, c.project->id, c.snapshot->id, &options,
                                    err);
    if (!rc && args->json) {
        rc = cli_print_json(cli_json(restored->json), err);
    } else if (!rc) {
        cli_say(args, "Branch %s shows what snapshot %s holds (%s)", restored->name,
                c.snapshot->name, restored->id);
        cli_psql_hint(args, restored->name, cli_get(args, "project"));
    }
    bough_branch_free(restored);
    bough_branch_free(target);
    end(&c);
    return rc;
}

int cmd_snapshot_finalize(const cli_args *args, bough_error *err) {
    context c = {0};
    bough_branch *now = NULL;
    int rc = begin_with_branch(&c, args, err);
    if (!rc)
        rc = bough_snapshot_finalize(c.client, c.project->id, c.branch->id,
                                     cli_get(args, "old-name"), err);
    if (!rc) rc = bough_branch_find(&now, c.client, c.project->id, c.branch->id, err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(now->json), err);
    else if (!rc)
        cli_say(args, "Branch %s is %s now", c.branch->name, now->name);
    bough_branch_free(now);
    end(&c);
    return rc;
}

/* ---- schedules ---- */

static int refuse_line(const char *line, bough_error *err) {
    (void)bough_fail(err, BOUGH_E_USAGE, "\"%.100s\" is not a line of a schedule", line);
    return bough_hint(err, "Write it like daily,hour=3,keep=7d.");
}

static int set_number(json_t *item, const char *name, int64_t number, bough_error *err) {
    return json_object_set_new(item, name, json_integer(number)) == 0
               ? BOUGH_OK
               : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

/* "daily,hour=3,keep=7d" */
static int read_line(json_t **item, const char *line, bough_error *err) {
    static const char *const numbers[] = {"hour", "day", "month"};
    char text[200], *at = text, *part;
    int rc = BOUGH_OK;
    if (strlen(line) >= sizeof text) return refuse_line(line, err);
    (void)snprintf(text, sizeof text, "%s", line);
    *item = json_pack("{s:s}", "frequency", strsep(&at, ","));
    if (!*item) return refuse_line(line, err);
    while (!rc && (part = strsep(&at, ",")) != NULL) {
        char *value = strchr(part, '='), *rest;
        if (!value || !value[1]) return refuse_line(line, err);
        *value++ = '\0';
        if (strcmp(part, "keep") == 0) {
            int64_t seconds;
            rc = bough_when_duration(&seconds, value, err);
            if (!rc) rc = set_number(*item, "retention_seconds", seconds, err);
            continue;
        }
        bool known = false;
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
            known |= strcmp(numbers[i], part) == 0;
        long number = strtol(value, &rest, 10);
        if (!known || *rest) return refuse_line(line, err);
        rc = set_number(*item, part, number, err);
    }
    return rc;
}

static int set_schedule(const context *c, const cli_args *args, bough_error *err) {
    json_t *lines = json_array(), *item = NULL;
    int rc = BOUGH_OK;
    for (int i = 1; i < args->n_words && !rc; i++) {
        item = NULL;
        rc = read_line(&item, args->words[i], err);
        if (rc)
            json_decref(item);
        else if (json_array_append_new(lines, item) != 0)
            rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    }
    json_t *body = json_pack("{s:o}", "schedule", lines);
    char *text = rc || !body ? NULL : bough_json_text_of(body, JSON_COMPACT);
    json_decref(body);
    if (!rc && !text) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = bough_snapshot_set_schedule(c->client, c->project->id, c->branch->id, text, err);
    free(text);
    return rc;
}

static int print_schedule(const context *c, const cli_args *args, bough_error *err) {
    char *text = NULL;
    int rc = bough_snapshot_get_schedule(&text, c->client, c->project->id, c->branch->id, err);
    if (rc) return rc;
    json_t *answer;
    rc = cli_read_json(&answer, text, err);
    bough_snapshot_text_free(text);
    if (rc) return rc;
    if (args->json) return cli_print_json(answer, err);
    json_t *lines = json_object_get(answer, "schedule");
    size_t i;
    json_t *one;
    if (json_array_size(lines) == 0)
        cli_say(args, "No snapshots of branch %s are scheduled", c->branch->name);
    json_array_foreach(lines, i, one) {
        static const char *const numbers[] = {"hour", "day", "month"};
        char more[100] = "", keep[32] = "", next[40];
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
            const json_t *n = json_object_get(one, numbers[k]);
            size_t length = strlen(more);
            if (n)
                (void)snprintf(more + length, sizeof more - length, ",%s=%d", numbers[k],
                               (int)json_integer_value(n));
        }
        const json_t *seconds = json_object_get(one, "retention_seconds");
        cli_format_span(keep, sizeof keep, json_integer_value(seconds));
        cli_format_time(next, sizeof next, json_string_value(json_object_get(one, "next_at")));
        cli_say(args, "%s%s, kept %s%s, next at %s",
                json_string_value(json_object_get(one, "frequency")), more,
                seconds ? "for " : "until deleted", seconds ? keep : "", next);
    }
    json_decref(answer);
    return BOUGH_OK;
}

int cmd_snapshot_schedule(const cli_args *args, bough_error *err) {
    context c = {0};
    bool clear = cli_get(args, "clear") != NULL;
    if (clear && args->n_words > 1)
        return bough_fail(err, BOUGH_E_USAGE, "--clear goes without lines of a schedule");
    int rc = begin_with_branch(&c, args, err);
    if (!rc && (clear || args->n_words > 1)) rc = set_schedule(&c, args, err);
    if (!rc) rc = print_schedule(&c, args, err);
    end(&c);
    return rc;
}
