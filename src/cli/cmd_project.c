/* bough project create, list, get, delete. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "bough/branch.h"
#include "bough/project.h"
#include "cli/cli.h"
#include "util/fs.h"
#include "util/when.h"

#define UNDO_MS 120000 /* for a server to remove what a cancelled import had made */

static bool is_url(const char *source) {
    return strncasecmp(source, "postgres://", 11) == 0 ||
           strncasecmp(source, "postgresql://", 13) == 0;
}

/* A path becomes absolute: the server works elsewhere. Free *out. */
static int resolve_source(char **out, const char *source, bough_error *err) {
    /* The server refuses URLs of other kinds; what it says holds no password. */
    bool url = is_url(source) || strstr(source, "://");
    *out = url ? strdup(source) : realpath(source, NULL);
    if (*out) return BOUGH_OK;
    if (url) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (errno == ENOENT || errno == ENOTDIR) {
        (void)bough_fail(err, BOUGH_E_NOTFOUND, "there is no file or directory \"%s\"", source);
        return bough_hint(err,
                          "SOURCE is the path of a dump, or a URL that begins with postgres://.");
    }
    return bough_fail_sys(err, errno, "could not find \"%s\"", source);
}

/* Whether a project of that name exists now. */
static int exists(bool *found, bough_client *client, const char *name, bough_error *err) {
    bough_project_list *list = NULL;
    *found = false;
    int rc = bough_project_get_all(&list, client, err);
    for (size_t i = 0; !rc && i < list->count; i++)
        if (strcmp(list->items[i]->name, name) == 0) *found = true;
    bough_project_list_free(list);
    return rc;
}

/*
 * After a cancellation: wait until the server has removed what there was.
 *
 * The server holds the name until then. To ask for a project of that name from what can never be a
 * source tells which: BUSY while it is held, INVALID once it is free, CONFLICT if the project was
 * made after all.
 */
static int wait_undone(bough_client *client, const char *name, bough_error *err) {
    double until = bough_now_ms() + UNDO_MS;
    bough_project_options options = {.version = 1, .name = name, .source = "/dev/null"};
    int rc;
    do {
        bough_project_created *created = NULL;
        bough_client_uncancel(client);
        rc = bough_project_create(&created, client, &options, err);
        bough_project_created_free(created);
        struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
        if (rc == BOUGH_E_BUSY) (void)nanosleep(&pause, NULL);
    } while (rc == BOUGH_E_BUSY && bough_now_ms() < until);
    if (rc == BOUGH_E_CANCELLED) return rc; /* a second interrupt */
    if (rc == BOUGH_E_INVALID)
        return bough_fail(err, BOUGH_E_CANCELLED, "cancelled; nothing was left behind");
    (void)bough_fail(err, BOUGH_E_CANCELLED, "cancelled, but project \"%s\" may still be there",
                     name);
    return bough_hint(err, "See `bough project list`; `bough project delete` removes it.");
}

static int create(bough_project_created **created, bough_client *client, const cli_args *args,
                  const bough_project_options *options, bough_error *err) {
    bool was_there = false;
    int rc = exists(&was_there, client, options->name, err);
    if (rc) return rc;
    cli_progress progress;
    cli_progress_begin(&progress, client, args);
    rc = bough_project_create(created, client, options, err);
    cli_progress_end(&progress, client);
    if (rc == BOUGH_E_CANCELLED && !was_there) rc = wait_undone(client, options->name, err);
    return rc;
}

int cmd_project_create(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project_created *created = NULL;
    char *source = NULL;
    const char *from = cli_get(args, "from");
    int rc = from ? resolve_source(&source, from, err) : BOUGH_OK;
    if (!rc) rc = cli_connect(&client, args, err);
    bough_project_options options = {.version = 1,
                                     .name = args->words[0],
                                     .source = source,
                                     .pg_version = cli_get_number(args, "pg-version", 0)};
    double began = bough_now_ms();
    if (!rc) rc = create(&created, client, args, &options, err);
    if (rc) goto out;
    const bough_project *p = created->project;
    if (args->json) {
        json_t *answer;
        rc = cli_read_json(&answer, created->json, err);
        if (rc) goto out;
        rc = cli_print_json(json_pack("{s:O?,s:O?,s:s,s:b}", "project",
                                      json_object_get(answer, "project"), "branch",
                                      json_object_get(answer, "branch"), "connection_uri",
                                      created->connection_uri, "existing", created->existing),
                            err);
        json_decref(answer);
    } else {
        char took[32];
        cli_format_ms(took, sizeof took, bough_now_ms() - began);
        if (created->existing)
            cli_say(args, "Project %s exists already (%s)", p->name, p->id);
        else
            cli_say(args, "Project %s is ready (%s), PostgreSQL %d, in %s", p->name, p->id,
                    p->pg_version, took);
        cli_psql_hint(args, NULL, p->name);
    }
out:
    bough_project_created_free(created);
    cli_disconnect(client);
    if (source) explicit_bzero(source, strlen(source)); /* a URL may hold a password */
    free(source);
    return rc;
}

static int list_json(const bough_project_list *list, bough_error *err) {
    json_t *all = json_array();
    for (size_t i = 0; i < list->count; i++)
        if (json_array_append_new(all, cli_json(list->items[i]->json)) != 0)
            return json_decref(all), bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    return cli_print_json(all, err);
}

int cmd_project_list(const cli_args *args, bough_error *err) {
    static const char *const headings[] = {"NAME", "ID", ">POSTGRESQL", "CREATED", NULL};
    bough_client *client = NULL;
    bough_project_list *list = NULL;
    cli_table *table = NULL;
    int rc = cli_connect(&client, args, err);
    if (!rc) rc = bough_project_get_all(&list, client, err);
    if (!rc && args->json) {
        rc = list_json(list, err);
    } else if (!rc) {
        table = cli_table_new(headings);
        if (!table) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        for (size_t i = 0; !rc && i < list->count; i++) {
            char number[16], created[40];
            (void)snprintf(number, sizeof number, "%d", list->items[i]->pg_version);
            cli_format_time(created, sizeof created, list->items[i]->created_at);
            cli_table_add(table, list->items[i]->name);
            cli_table_add(table, list->items[i]->id);
            cli_table_add(table, number);
            cli_table_add(table, created);
        }
        if (!rc) rc = cli_table_print(table, err);
    }
    cli_table_free(table);
    bough_project_list_free(list);
    cli_disconnect(client);
    return rc;
}

int cmd_project_get(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    const char *name = cli_word_get(args, 0);
    int rc;
    if (name) {
        rc = cli_connect(&client, args, err);
        if (!rc) rc = bough_project_find(&project, client, name, err);
    } else {
        rc = cli_connect_project(&client, &project, args, err);
    }
    if (!rc && args->json) {
        rc = cli_print_json(cli_json(project->json), err);
    } else if (!rc) {
        char created[40];
        cli_format_time(created, sizeof created, project->created_at);
        cli_say(args, "name        %s", project->name);
        cli_say(args, "id          %s", project->id);
        cli_say(args, "postgresql  %d", project->pg_version);
        if (*project->source) cli_say(args, "source      %s", project->source);
        cli_say(args, "created     %s", created);
        char history[32];
        cli_format_span(history, sizeof history, project->history_retention_seconds);
        cli_say(args, "history     %s", project->history_retention_seconds ? history : "none");
    }
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

int cmd_project_update(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL, *changed = NULL;
    const char *name = cli_word_get(args, 0), *retention = cli_get(args, "history-retention");
    bough_project_changes changes = {
        .version = 1, .name = cli_get(args, "name"), .history_retention_seconds = -1};
    int rc = BOUGH_OK;
    if (!changes.name && !retention)
        rc = bough_fail(err, BOUGH_E_USAGE, "it is not said what to change");
    if (!rc && retention && strcmp(retention, "0") == 0)
        changes.history_retention_seconds = 0;
    else if (!rc && retention)
        rc = bough_when_duration(&changes.history_retention_seconds, retention, err);
    if (rc) return rc;
    if (name) {
        rc = cli_connect(&client, args, err);
        if (!rc) rc = bough_project_find(&project, client, name, err);
    } else {
        rc = cli_connect_project(&client, &project, args, err);
    }
    if (!rc) rc = bough_project_update(&changed, client, project->id, &changes, err);
    if (!rc && args->json) {
        rc = cli_print_json(cli_json(changed->json), err);
    } else if (!rc) {
        char history[32];
        cli_format_span(history, sizeof history, changed->history_retention_seconds);
        cli_say(args, "Project %s keeps %s of history", changed->name,
                changed->history_retention_seconds ? history : "nothing");
    }
    bough_project_free(changed);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

/* Ask on the terminal; anything but yes is no. */
static int confirm(bough_client *client, const bough_project *project, bough_error *err) {
    bough_branch_list *branches = NULL;
    int rc = bough_branch_get_all(&branches, client, project->id, err);
    if (rc) return rc;
    cli_interrupt_target(NULL); /* Ctrl-C at the question ends at once */
    (void)fprintf(stderr, "Delete project \"%s\" with %zu %s? There is no way back. [y/N] ",
                  project->name, branches->count, branches->count == 1 ? "branch" : "branches");
    bough_branch_list_free(branches);
    char answer[16] = "";
    bool yes = !cli_interrupts() && fgets(answer, sizeof answer, stdin) &&
               (*answer == 'y' || *answer == 'Y');
    cli_interrupt_target(client);
    if (yes) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_CANCELLED, "nothing was deleted");
}

int cmd_project_delete(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    int rc = cli_connect(&client, args, err);
    if (!rc) rc = bough_project_find(&project, client, args->words[0], err);
    if (!rc && !cli_get(args, "yes") && isatty(STDIN_FILENO) == 1)
        rc = confirm(client, project, err);
    if (!rc) rc = bough_project_delete(client, project->id, err);
    if (!rc && args->json)
        rc = cli_print_json(
            json_pack("{s:b,s:o}", "deleted", 1, "project", cli_json(project->json)), err);
    else if (!rc)
        cli_say(args, "Project %s is deleted", project->name);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}
