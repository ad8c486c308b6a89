/*
 * bough ip-allow list, add, remove, reset.
 *
 * A change is made here, and the server takes it only where the list is still the one that was
 * read: else it is read and changed again, so that two who change it do not undo each other's.
 */
#include <jansson.h>
#include <string.h>

#include "bough/project.h"
#include "cli/cli.h"
#include "util/error.h"

enum { RULES_MAX = 2048, TRIES_MAX = 100 };

typedef struct allow_list {
    bough_client *client;
    bough_project *project;
    json_t *all; /* the project; owns the texts */
    const char *rules[RULES_MAX], *rules_read[RULES_MAX];
    size_t n;
    int protected_only;
    bough_allowed read; /* before it was changed */
} allow_list;

/* The list that the server has, with what the options say. */
static int read_list(allow_list *l, const cli_args *args, bough_error *err) {
    json_decref(l->all);
    int rc = cli_read_json(&l->all, l->project->json, err);
    if (rc) return rc; /* an empty list would let everybody in */
    const json_t *allowed = json_object_get(json_object_get(l->all, "settings"), "allowed_ips");
    const json_t *ips = json_object_get(allowed, "ips");
    l->protected_only = json_is_true(json_object_get(allowed, "protected_branches_only"));
    for (l->n = 0; l->n < json_array_size(ips) && l->n < RULES_MAX; l->n++)
        l->rules[l->n] = json_string_value(json_array_get(ips, l->n));
    memcpy(l->rules_read, l->rules, l->n * sizeof l->rules[0]);
    l->read = (bough_allowed){l->rules_read, l->n, l->protected_only};
    if (cli_get(args, "protected-only")) l->protected_only = 1;
    if (cli_get(args, "all-branches")) l->protected_only = 0;
    return BOUGH_OK;
}

static int begin(allow_list *l, const cli_args *args, bough_error *err) {
    *l = (allow_list){.n = 0};
    if (cli_get(args, "protected-only") && cli_get(args, "all-branches"))
        return bough_fail(err, BOUGH_E_USAGE,
                          "--protected-only and --all-branches exclude each "
                          "other");
    int rc = cli_connect_project(&l->client, &l->project, args, err);
    return rc ? rc : read_list(l, args, err);
}

static int show(allow_list *l, const cli_args *args, bough_error *err) {
    if (args->json) {
        json_t *allowed =
            json_incref(json_object_get(json_object_get(l->all, "settings"), "allowed_ips"));
        return cli_print_json(allowed, err);
    }
    if (l->n == 0) {
        cli_say(args, "Every address may connect to project %s", l->project->name);
        return BOUGH_OK;
    }
    cli_say(args, "To %s of project %s may connect:",
            l->protected_only ? "protected branches" : "branches", l->project->name);
    for (size_t i = 0; i < l->n; i++) cli_say(args, "  %s", l->rules[i]);
    return BOUGH_OK;
}

static void end(allow_list *l) {
    json_decref(l->all);
    bough_project_free(l->project);
    cli_disconnect(l->client);
}

/* The project as the answer, or another look, has it. */
static int take(allow_list *l, bough_project *project, const cli_args *args, bough_error *err) {
    bough_project_free(l->project);
    l->project = project;
    return read_list(l, args, err);
}

/* Send the list. */
static int store(allow_list *l, const cli_args *args, bough_error *err) {
    bough_project *changed = NULL;
    bough_allowed to = {l->rules, l->n, l->protected_only};
    int rc = bough_project_replace_allowed(&changed, l->client, l->project->id, &l->read, &to, err);
    return rc ? rc : take(l, changed, args, err);
}

static int read_again(allow_list *l, const cli_args *args, bough_error *err) {
    bough_project *project = NULL;
    int rc = bough_project_find(&project, l->client, l->project->id, err);
    return rc ? rc : take(l, project, args, err);
}

/* Change the list, send it, and show what has become of it. */
static int change(int (*edit)(allow_list *l, const cli_args *args, bough_error *err),
                  const cli_args *args, bough_error *err) {
    allow_list l;
    int rc = begin(&l, args, err);
    for (int tries = 1; !rc; tries++) {
        rc = edit(&l, args, err);
        if (!rc) rc = store(&l, args, err);
        if (rc != BOUGH_E_PRECONDITION || tries == TRIES_MAX) break;
        rc = read_again(&l, args, err);
    }
    if (!rc) rc = show(&l, args, err);
    end(&l);
    return rc;
}

static size_t find(const allow_list *l, const char *rule) {
    size_t i = 0;
    while (i < l->n && strcmp(l->rules[i], rule) != 0) i++;
    return i;
}

static int add_words(allow_list *l, const cli_args *args, bough_error *err) {
    for (int i = 0; i < args->n_words; i++) {
        if (find(l, args->words[i]) < l->n) continue;
        if (l->n == RULES_MAX) return bough_fail(err, BOUGH_E_INVALID, "the list is too long");
        l->rules[l->n++] = args->words[i];
    }
    return BOUGH_OK;
}

int cmd_ip_allow_list(const cli_args *args, bough_error *err) {
    allow_list l;
    int rc = begin(&l, args, err);
    if (!rc) rc = show(&l, args, err);
    end(&l);
    return rc;
}

static int remove_words(allow_list *l, const cli_args *args, bough_error *err) {
    for (int i = 0; i < args->n_words; i++) {
        size_t at = find(l, args->words[i]);
        if (at == l->n)
            return bough_fail(err, BOUGH_E_NOTFOUND, "\"%.100s\" is not in the list",
                              args->words[i]);
        memmove(&l->rules[at], &l->rules[at + 1], (--l->n - at) * sizeof l->rules[0]);
    }
    return BOUGH_OK;
}

static int reset_words(allow_list *l, const cli_args *args, bough_error *err) {
    l->n = 0;
    return add_words(l, args, err);
}

int cmd_ip_allow_add(const cli_args *args, bough_error *err) {
    return change(add_words, args, err);
}

int cmd_ip_allow_remove(const cli_args *args, bough_error *err) {
    return change(remove_words, args, err);
}

int cmd_ip_allow_reset(const cli_args *args, bough_error *err) {
    return change(reset_words, args, err);
}
