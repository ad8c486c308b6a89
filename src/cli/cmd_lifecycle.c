/* bough branch set-expiration, protect, unprotect, set-default, undelete; server confirm-clock; and
 * what is said of the life of branches. */
#include <stdio.h>
#include <string.h>

#include "bough/branch.h"
#include "bough/server.h"
#include "cli/cli.h"
#include "util/error.h"
#include "util/when.h"

#define TEMPORARY_SECONDS 86400

void cli_format_span(char *out, size_t size, int64_t seconds) {
    static const struct {
        int64_t below, unit;
        const char *name;
    } steps[] = {{120, 1, "s"}, {7200, 60, "min"}, {172800, 3600, "h"}, {INT64_MAX, 86400, "d"}};
    size_t i = 0;
    while (seconds >= steps[i].below) i++;
    long long n = (seconds + steps[i].unit / 2) / steps[i].unit;
    (void)snprintf(out, size, "%lld %s", n, steps[i].name);
}

static void describe_expiry(char *out, size_t size, const bough_branch *b) {
    char span[32];
    cli_format_span(span, sizeof span, b->expires_in_seconds);
    if (strcmp(b->expiry_state, "waiting") == 0)
        (void)snprintf(out, size, "expired, waits for branches below it");
    else if (strcmp(b->expiry_state, "held") == 0)
        (void)snprintf(out, size, "expiry held, the clock has jumped");
    else if (strcmp(b->expiry_state, "due") == 0)
        (void)snprintf(out, size, "expires now");
    else
        (void)snprintf(out, size, "expires %sin %s%s", b->expiry_warning ? "soon: " : "", span,
                       b->expiry_cascades ? " with its children" : "");
}

void cli_branch_notes(char *out, size_t size, const bough_branch *b) {
    char expiry[96] = "", span[32];
    if (*b->deleted_at) {
        cli_format_span(span, sizeof span, b->recoverable_seconds);
        (void)snprintf(out, size, "recoverable for %s", span);
        return;
    }
    if (*b->expires_at) describe_expiry(expiry, sizeof expiry, b);
    (void)snprintf(out, size, "%s", b->is_protected ? "protected" : *expiry ? expiry : "-");
}

int cli_read_expiry(bough_branch_expiry *expiry, const cli_args *args, bough_error *err) {
    const char *in = cli_get(args, "expires-in"), *at = cli_get(args, "expires-at");
    bool temporary = cli_get(args, "temporary") != NULL, never = cli_get(args, "never") != NULL;
    bool cascade = cli_get(args, "cascade") != NULL, wait = cli_get(args, "wait") != NULL;
    *expiry = (bough_branch_expiry){.expires_at = at};
    if ((in != NULL) + (at != NULL) + temporary + never > 1)
        return bough_fail(err, BOUGH_E_USAGE, "only one option may say when a branch expires");
    if (cascade + wait + never > 1)
        return bough_fail(err, BOUGH_E_USAGE, "--%s and --%s exclude each other",
                          never ? "never" : "cascade", never && cascade ? "cascade" : "wait");
    if (cascade || wait) expiry->mode = cascade ? "cascade" : "wait";
    if (temporary) expiry->ttl_seconds = TEMPORARY_SECONDS;
    return in ? bough_when_duration(&expiry->ttl_seconds, in, err) : BOUGH_OK;
}

/* What all of these begin and end with. */
typedef struct target {
    bough_client *client;
    bough_project *project;
    bough_branch *branch, *changed;
} target;

static int begin(target *t, const cli_args *args, bough_error *err) {
    int rc = cli_connect_project(&t->client, &t->project, args, err);
    return rc ? rc : bough_branch_find(&t->branch, t->client, t->project->id, args->words[0], err);
}

static void end(target *t) {
    bough_branch_free(t->changed);
    bough_branch_free(t->branch);
    bough_project_free(t->project);
    cli_disconnect(t->client);
}

int cmd_branch_set_expiration(const cli_args *args, bough_error *err) {
    target t = {0};
    bough_branch_expiry expiry;
    char notes[128];
    bool never = cli_get(args, "never") != NULL;
    int rc = cli_read_expiry(&expiry, args, err);
    if (!rc && !never && !expiry.expires_at && !expiry.ttl_seconds && !expiry.mode) {
        (void)bough_fail(err, BOUGH_E_USAGE, "it is not said when the branch expires");
        (void)bough_hint(err, "Add --expires-in 7d, --expires-at TIME or --never.");
        rc = BOUGH_E_USAGE;
    }
    if (!rc) rc = begin(&t, args, err);
    if (!rc)
        rc = bough_branch_set_expiry(&t.changed, t.client, t.project->id, t.branch->id,
                                     never ? NULL : &expiry, err);
    if (!rc && args->json) {
        rc = cli_print_json(cli_json(t.changed->json), err);
    } else if (!rc) {
        cli_branch_notes(notes, sizeof notes, t.changed);
        cli_say(args, "Branch %s %s", t.changed->name,
                *t.changed->expires_at ? notes : "does not expire");
    }
    end(&t);
    return rc;
}

static int set_protected(const cli_args *args, int is_protected, bough_error *err) {
    target t = {0};
    int rc = begin(&t, args, err);
    if (!rc)
        rc = bough_branch_set_protected(&t.changed, t.client, t.project->id, t.branch->id,
                                        is_protected, err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(t.changed->json), err);
    else if (!rc)
        cli_say(args, "Branch %s is %s", t.changed->name,
                is_protected ? "protected" : "not protected any more");
    end(&t);
    return rc;
}

int cmd_branch_protect(const cli_args *args, bough_error *err) {
    return set_protected(args, 1, err);
}

int cmd_branch_unprotect(const cli_args *args, bough_error *err) {
    return set_protected(args, 0, err);
}

int cmd_branch_set_default(const cli_args *args, bough_error *err) {
    target t = {0};
    int rc = begin(&t, args, err);
    if (!rc) rc = bough_branch_set_default(&t.changed, t.client, t.project->id, t.branch->id, err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(t.changed->json), err);
    else if (!rc)
        cli_say(args, "Branch %s is the default branch", t.changed->name);
    end(&t);
    return rc;
}

int cmd_branch_detach(const cli_args *args, bough_error *err) {
    target t = {0};
    int rc = begin(&t, args, err);
    if (!rc) rc = bough_branch_detach(&t.changed, t.client, t.project->id, t.branch->id, err);
    if (!rc && args->json)
        rc = cli_print_json(cli_json(t.changed->json), err);
    else if (!rc)
        cli_say(args, "Branch %s has no parent", t.changed->name);
    end(&t);
    return rc;
}

int cmd_branch_undelete(const cli_args *args, bough_error *err) {
    target t = {0};
    int rc = cli_connect_project(&t.client, &t.project, args, err);
    if (!rc)
        rc = bough_branch_find_deleted(&t.branch, t.client, t.project->id, args->words[0], err);
    if (!rc)
        rc = bough_branch_undelete(&t.changed, t.client, t.project->id, t.branch->id,
                                   cli_get(args, "name"), err);
    if (!rc && args->json) {
        rc = cli_print_json(cli_json(t.changed->json), err);
    } else if (!rc) {
        cli_say(args, "Branch %s is there again (%s)", t.changed->name, t.changed->id);
        cli_psql_hint(args, t.changed->name, cli_get(args, "project"));
    }
    end(&t);
    return rc;
}

int cmd_server_confirm_clock(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    int rc = cli_connect(&client, args, err);
    if (!rc) rc = bough_server_confirm_clock(client, err);
    if (!rc && args->json)
        rc = cli_print_json(json_pack("{s:b}", "clock_held", 0), err);
    else if (!rc)
        cli_say(args, "The clock is believed: branches expire by it");
    cli_disconnect(client);
    return rc;
}
