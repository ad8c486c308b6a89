/* bough branch create, list, get, rename, delete. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bough/branch.h"
#include "cli/cli.h"
#include "cli/moment.h"
#include "cli/tree.h"
#include "util/error.h"
#include "util/fs.h"

const char *cli_branch_name(const bough_branch_list *branches, const char *id) {
    for (size_t i = 0; i < branches->count; i++)
        if (strcmp(branches->items[i]->id, id) == 0) return branches->items[i]->name;
    return *id ? id : "-";
}

static int print_created(const cli_args *args, const bough_branch_created *created,
                         bough_error *err) {
    if (args->json) {
        json_t *answer;
        int rc = cli_read_json(&answer, created->json, err);
        if (rc) return rc;
        json_t *value = json_pack(
            "{s:O?,s:s,s:{s:f,s:f,s:f,s:f,s:f,s:f,s:f},s:b}", "branch",
            json_object_get(answer, "branch"), "connection_uri", created->connection_uri,
            "timings_ms", "checkpoint", created->checkpoint_ms, "seal", created->seal_ms, "gate",
            created->gate_ms, "create", created->create_ms, "start", created->start_ms, "ready",
            created->ready_ms, "total", created->total_ms, "existing", created->existing);
        json_decref(answer);
        return cli_print_json(value, err);
    }
    const bough_branch *b = created->branch;
    if (created->existing) {
        cli_say(args, "Branch %s exists already (%s)", b->name, b->id);
    } else {
        char total[32], gate[32], pause[80] = "";
        cli_format_ms(total, sizeof total, created->total_ms);
        cli_format_ms(gate, sizeof gate, created->gate_ms);
        if (created->gate_ms > 0)
            (void)snprintf(pause, sizeof pause, "; its parent's writes paused for %s", gate);
        if (*b->parent_id)
            cli_say(args, "Branch %s of %s is ready (%s) in %s%s", b->name,
                    *b->parent_name ? b->parent_name : b->parent_id, b->id, total, pause);
        else
            cli_say(args, "Branch %s is ready (%s) in %s", b->name, b->id, total);
        if (*b->expires_at) {
            char notes[128];
            cli_branch_notes(notes, sizeof notes, b);
            cli_say(args, "  it %s", notes);
        }
    }
    cli_psql_hint(args, b->name, cli_get(args, "project"));
    return BOUGH_OK;
}

int cmd_branch_create(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *parent = NULL;
    bough_branch_created *created = NULL;
    const char *parent_name = cli_get(args, "parent"), *at = cli_get(args, "at");
    char moment[64] = "";
    double began = bough_now_ms();
    bough_branch_options options = {.version = 1,
                                    .name = args->words[0],
                                    .is_protected = cli_get(args, "protected") != NULL,
                                    .is_schema_only = cli_get(args, "schema-only") != NULL};
    int rc = at ? cli_moment(moment, sizeof moment, at, err) : BOUGH_OK;
    if (!rc) rc = cli_read_expiry(&options.expiry, args, err);
    if (!rc) rc = cli_connect_project(&client, &project, args, err);
    if (!rc && parent_name) {
        rc = bough_branch_find(&parent, client, project->id, parent_name, err);
        if (rc == BOUGH_E_NOTFOUND) (void)bough_context(err, "parent");
    }
    if (parent) options.parent = parent->id;
    if (at) options.moment = moment;
    if (!rc) rc = bough_branch_create_with(&created, client, project->id, &options, err);
    if (rc == BOUGH_E_CANCELLED)
        (void)bough_hint(err,
                         "The server may have made the branch by then; see `bough branch list`.");
    if (!rc && created->total_ms <= 0) created->total_ms = bough_now_ms() - began;
    if (!rc) rc = print_created(args, created, err);
    bough_branch_created_free(created);
    bough_branch_free(parent);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

static int print_list(const bough_branch_list *list, bough_error *err) {
    static const char *const headings[] = {
        "NAME", "ID", "PARENT", "STATE", "CREATED", ">OWN BYTES", ">SHARED BYTES", "NOTES", NULL};
    bool is_terminal = cli_is_terminal();
    cli_tree_row *rows = NULL;
    cli_table *table = cli_table_new(headings);
    int rc = table ? cli_tree_arrange(&rows, list, is_terminal, cli_is_utf8(), err)
                   : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < list->count; i++) {
        const bough_branch *b = rows[i].branch;
        char name[1024], created[40], own[16], shared[16], notes[128];
        cli_branch_notes(notes, sizeof notes, b);
        (void)snprintf(name, sizeof name, "%s%s%s", rows[i].stem, b->name,
                       is_terminal && b->is_default ? " *" : "");
        cli_format_time(created, sizeof created, b->created_at);
        bool is_measured = b->own_bytes || b->shared_bytes;
        cli_format_bytes(own, sizeof own, b->own_bytes);
        cli_format_bytes(shared, sizeof shared, b->shared_bytes);
        const char *cells[] = {name,
                               b->id,
                               *b->parent_name ? b->parent_name
                               : *b->parent_id ? b->parent_id
                                               : "-",
                               *b->deleted_at ? "deleted"
                               : *b->state    ? b->state
                                              : "-",
                               created,
                               is_measured ? own : "-",
                               is_measured ? shared : "-",
                               notes};
        for (size_t k = 0; k < sizeof cells / sizeof cells[0]; k++) cli_table_add(table, cells[k]);
    }
    if (!rc) rc = cli_table_print(table, err);
    free(rows);
    cli_table_free(table);
    return rc;
}

static int list_json(const bough_branch_list *list, bough_error *err) {
    json_t *all = json_array();
    for (size_t i = 0; i < list->count; i++)
        if (json_array_append_new(all, cli_json(list->items[i]->json)) != 0)
            return json_decref(all), bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    return cli_print_json(all, err);
}

int cmd_branch_list(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch_list *list = NULL;
    int rc = cli_connect_project(&client, &project, args, err);
    if (!rc)
        rc = (cli_get(args, "deleted") ? bough_branch_get_deleted
              : args->json             ? bough_branch_get_all
                                       : bough_branch_get_brief)(&list, client, project->id, err);
    if (!rc) rc = args->json ? list_json(list, err) : print_list(list, err);
    bough_branch_list_free(list);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

static int print_one(const cli_args *args, const bough_branch *b, bough_error *err) {
    if (args->json) return cli_print_json(cli_json(b->json), err);
    char created[40], own[16], shared[16], past[16], notes[128];
    cli_branch_notes(notes, sizeof notes, b);
    cli_format_time(created, sizeof created, b->created_at);
    cli_format_bytes(own, sizeof own, b->own_bytes);
    cli_format_bytes(shared, sizeof shared, b->shared_bytes);
    cli_format_bytes(past, sizeof past, b->history_bytes);
    cli_say(args, "name          %s", b->name);
    cli_say(args, "id            %s", b->id);
    cli_say(args, "parent        %s",
            *b->parent_name ? b->parent_name
            : *b->parent_id ? b->parent_id
                            : "-");
    cli_say(args, "state         %s", *b->state ? b->state : "-");
    cli_say(args, "default       %s", b->is_default ? "yes" : "no");
    cli_say(args, "protected     %s", b->is_protected ? "yes" : "no");
    if (*b->expires_at) {
        char expires[40];
        cli_format_time(expires, sizeof expires, b->expires_at);
        cli_say(args, "expires       %s (%s)", expires, notes);
    }
    cli_say(args, "created       %s", created);
    cli_say(args, "own bytes     %s", own);
    cli_say(args, "shared bytes  %s", shared);
    if (*b->history_begins_at) {
        char since[40];
        cli_format_time(since, sizeof since, b->history_begins_at);
        cli_say(args, "history       %s, since %s", past, since);
    } else {
        cli_say(args, "history       %s", b->history_bytes ? past : "none");
    }
    cli_say(args, "layers        %d", b->depth);
    return BOUGH_OK;
}

int cmd_branch_get(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *branch = NULL;
    int rc = cli_connect_project(&client, &project, args, err);
    if (!rc) rc = bough_branch_find(&branch, client, project->id, cli_word_get(args, 0), err);
    if (!rc) rc = print_one(args, branch, err);
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

static int print_restored(const cli_args *args, const bough_branch *b, const char *from,
                          bough_error *err) {
    const char *kept = cli_get(args, "preserve-under-name");
    if (args->json) return cli_print_json(cli_json(b->json), err);
    cli_say(args, "Branch %s shows %s now%s%s", b->name, from,
            kept ? "; what it showed before is in branch " : "", kept ? kept : "");
    return BOUGH_OK;
}

int cmd_branch_restore(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *branch = NULL, *source = NULL, *restored = NULL;
    const char *from = cli_get(args, "from"), *at = cli_get(args, "at");
    char moment[64] = "", text[400];
    int rc = at ? cli_moment(moment, sizeof moment, at, err) : BOUGH_OK;
    if (!rc && !at && !from) {
        (void)bough_fail(err, BOUGH_E_USAGE, "neither --at nor --from is given");
        rc = bough_hint(err, "Say which moment, or which branch, it is to show.");
    }
    if (rc) return rc;
    rc = cli_connect_project(&client, &project, args, err);
    if (!rc) rc = bough_branch_find(&branch, client, project->id, args->words[0], err);
    if (!rc && from) rc = bough_branch_find(&source, client, project->id, from, err);
    if (!rc) {
        bough_restore_options options = {.source = source ? source->id : branch->id,
                                         .moment = at ? moment : NULL,
                                         .preserve_under_name =
                                             cli_get(args, "preserve-under-name")};
        rc = bough_branch_restore(&restored, client, project->id, branch->id, &options, err);
    }
    (void)snprintf(text, sizeof text, "%s%.200s%s%.64s", "what ",
                   source   ? source->name
                   : branch ? branch->name
                            : "",
                   at ? " showed at " : " shows", at ? moment : "");
    if (!rc) rc = print_restored(args, restored, text, err);
    bough_branch_free(restored);
    bough_branch_free(source);
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

int cmd_branch_reset(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *branch = NULL, *restored = NULL;
    int rc = cli_connect_project(&client, &project, args, err);
    if (!rc) rc = bough_branch_find(&branch, client, project->id, args->words[0], err);
    if (!rc && !*branch->parent_id)
        rc = bough_fail(err, BOUGH_E_PRECONDITION, "branch \"%s\" has no parent", branch->name);
    if (!rc) {
        bough_restore_options options = {.source = branch->parent_id,
                                         .preserve_under_name =
                                             cli_get(args, "preserve-under-name")};
        rc = bough_branch_restore(&restored, client, project->id, branch->id, &options, err);
    }
    if (!rc) rc = print_restored(args, restored, "what its parent shows", err);
    bough_branch_free(restored);
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

int cmd_branch_rename(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *branch = NULL, *renamed = NULL;
    int rc = cli_connect_project(&client, &project, args, err);
    if (!rc) rc = bough_branch_find(&branch, client, project->id, args->words[0], err);
    if (!rc)
        rc = bough_branch_rename(&renamed, client, project->id, branch->id, args->words[1], err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(renamed->json), err);
    else if (!rc)
        cli_say(args, "Branch %s is now named %s", branch->name, renamed->name);
    bough_branch_free(renamed);
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}

/* The branch to delete: with --purge also one that is deleted already. */
static int find_doomed(bough_branch **branch, bough_client *client, const char *project,
                       const char *name, bool is_purge, bough_error *err) {
    bough_error other;
    int rc = bough_branch_find(branch, client, project, name, err);
    if (rc != BOUGH_E_NOTFOUND || !is_purge) return rc;
    int again = bough_branch_find_deleted(branch, client, project, name, &other);
    if (again != BOUGH_E_NOTFOUND && again != BOUGH_OK) *err = other;
    return again == BOUGH_E_NOTFOUND ? rc : again;
}

int cmd_branch_delete(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *branch = NULL;
    char undelete[256];
    bool is_purge = cli_get(args, "purge") != NULL;
    int rc = cli_connect_project(&client, &project, args, err);
    if (!rc) rc = find_doomed(&branch, client, project->id, args->words[0], is_purge, err);
    if (!rc)
        rc = (is_purge ? bough_branch_purge : bough_branch_delete)(client, project->id, branch->id,
                                                                   err);
    if (!rc && args->json) {
        rc = cli_print_json(json_pack("{s:b,s:b,s:o}", "deleted", 1, "recoverable", !is_purge,
                                      "branch", cli_json(branch->json)),
                            err);
    } else if (!rc && is_purge) {
        cli_say(args, "Branch %s is deleted for good", branch->name);
    } else if (!rc) {
        cli_quote(undelete, sizeof undelete, branch->name);
        cli_say(args, "Branch %s is deleted", branch->name);
        cli_say(args, "  within 7 days, `bough branch undelete %s` brings it back", undelete);
    }
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}
