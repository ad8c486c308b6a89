/* bough version, help. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "client/nearest.h"
#include "util/error.h"

int cmd_version(const cli_args *args, bough_error *err) {
    if (args->json) return cli_print_json(json_pack("{s:s}", "version", bough_version()), err);
    cli_say(args, "bough %s", bough_version());
    return BOUGH_OK;
}

static const cli_command *find_command(const cli_command *list, const char *name) {
    for (const cli_command *c = list; c && c->name; c++)
        if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

static json_t *describe(const cli_command *group, const cli_command *command) {
    char name[128];
    cli_command_name(name, sizeof name, group, command);
    const cli_option *list[CLI_OPTIONS_MAX];
    size_t n = cli_options_of(list, CLI_OPTIONS_MAX, command);
    json_t *options = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *one = json_pack("{s:s,s:s?,s:s}", "name", list[i]->name, "value", list[i]->value,
                                "help", list[i]->help);
        if (json_array_append_new(options, one) != 0) { /* NULL, too */
            json_decref(options);
            return NULL;
        }
    }
    return json_pack("{s:s,s:s,s:s?,s:s?,s:o}", "name", name, "summary", command->summary,
                     "arguments", command->words, "details", command->details, "options", options);
}

/* All commands, with --json as objects. */
static int list_commands(const cli_args *args, bough_error *err) {
    json_t *all = json_array();
    for (const cli_command *top = cli_commands; top->name; top++) {
        const cli_command *c = top->children ? top->children : top;
        for (; c->name; c++) {
            const cli_command *group = top->children ? top : NULL;
            if (args->json) {
                if (json_array_append_new(all, describe(group, c)) != 0) {
                    json_decref(all);
                    return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
                }
            } else {
                char name[128];
                cli_command_name(name, sizeof name, group, c);
                cli_say(args, "%s", name);
            }
            if (!top->children) break;
        }
    }
    if (args->json) return cli_print_json(all, err);
    json_decref(all);
    return BOUGH_OK;
}

/* No such command in the list: what may have been meant? `prefix` is "bough" or "bough branch". */
static int unknown_command(const cli_command *list, const char *prefix, const char *name,
                           bough_error *err) {
    const char *names[64];
    size_t n = 0;
    for (const cli_command *c = list; c->name && n < sizeof names / sizeof names[0]; c++)
        names[n++] = c->name;
    const char *nearest = bough_nearest(name, names, n);
    int rc = bough_fail(err, BOUGH_E_USAGE, "unknown command \"%s %s\"", prefix, name);
    if (nearest)
        (void)bough_hint(err, "Did you mean `%s %s`?", prefix, nearest);
    else
        (void)bough_hint(err, "See `%s --help`.", prefix);
    return rc;
}

int cmd_help(const cli_args *args, bough_error *err) {
    const char *noun = cli_word_get(args, 0), *verb = cli_word_get(args, 1);
    const cli_command *group = NULL, *command = NULL;
    char prefix[128];
    if (cli_get(args, "list")) return list_commands(args, err);
    if (cli_get(args, "man")) {
        if (noun)
            return bough_fail(err, BOUGH_E_USAGE, "--man takes no command: the manual is one page");
        cli_help_print_man();
        return BOUGH_OK;
    }
    if (noun) command = find_command(cli_commands, noun);
    if (noun && !command) return unknown_command(cli_commands, "bough", noun, err);
    if (command && command->children) {
        group = command;
        command = verb ? find_command(group->children, verb) : NULL;
        cli_command_name(prefix, sizeof prefix, group, NULL);
        if (verb && !command) return unknown_command(group->children, prefix, verb, err);
    } else if (verb) {
        return bough_fail(err, BOUGH_E_USAGE, "command \"%s\" has no commands of its own", noun);
    }
    if (args->json && command) return cli_print_json(describe(group, command), err);
    if (args->json) return list_commands(args, err);
    cli_help_print(group, command);
    return BOUGH_OK;
}
