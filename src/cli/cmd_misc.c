/* bough version, help, completion. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bough/branch.h"
#include "cli/cli.h"
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
        json_t *one = json_pack("{s:s,s:s?,s:s}", "name", list[i]->name, "value", list[i]->value, "help",
                                list[i]->help);
        if (!one || json_array_append_new(options, one) != 0) break;
    }
    return json_pack("{s:s,s:s,s:s?,s:s?,s:o}", "name", name, "summary", command->summary, "arguments",
                     command->words, "details", command->details, "options", options);
}

/* All commands, with --json as objects. */
static int list_commands(const cli_args *args, bough_error *err) {
    json_t *all = json_array();
    for (const cli_command *top = cli_commands; top->name; top++) {
        const cli_command *c = top->children ? top->children : top;
        for (; c->name; c++) {
            const cli_command *group = top->children ? top : NULL;
            if (args->json) {
                if (json_array_append_new(all, describe(group, c)) != 0) break;
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

int cmd_help(const cli_args *args, bough_error *err) {
    if (cli_get(args, "list")) return list_commands(args, err);
    const char *noun = cli_word_get(args, 0), *verb = cli_word_get(args, 1);
    const cli_command *group = NULL, *command = NULL;
    if (noun) command = find_command(cli_commands, noun);
    if (noun && !command) {
        (void)bough_fail(err, BOUGH_E_USAGE, "unknown command \"%s\"", noun);
        return bough_hint(err, "See `bough --help`.");
    }
    if (command && command->children) {
        group = command;
        command = verb ? find_command(group->children, verb) : NULL;
    } else if (verb) {
        return bough_fail(err, BOUGH_E_USAGE, "command \"%s\" has no verbs", noun);
    }
    if (verb && !command) {
        (void)bough_fail(err, BOUGH_E_USAGE, "unknown command \"%s %s\"", noun, verb);
        return bough_hint(err, "See `bough %s --help`.", noun);
    }
    if (cli_get(args, "man")) cli_help_print_man(group ? group : command);
    else if (args->json && command) return cli_print_json(describe(group, command), err);
    else if (args->json) return list_commands(args, err);
    else cli_help_print(group, command);
    return BOUGH_OK;
}

static const char bash_script[] =
    "_bough() {\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]}\n"
    "    local IFS=$'\\n'\n"
    "    COMPREPLY=($(bough completion words -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null))\n"
    "    if [[ ${COMPREPLY[0]} == @files ]]; then COMPREPLY=($(compgen -f -- \"$cur\")); fi\n"
    "}\n"
    "complete -F _bough bough\n";

static const char zsh_script[] =
    "#compdef bough\n"
    "_bough() {\n"
    "    local -a found\n"
    "    found=(${(f)\"$(bough completion words -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\"})\n"
    "    if [[ ${found[1]} == @files ]]; then _files; else compadd -- $found; fi\n"
    "}\n"
    "compdef _bough bough\n";

static const char fish_script[] =
    "function __bough_words\n"
    "    set -l words (commandline -opc) (commandline -ct)\n"
    "    set -l found (bough completion words -- $words[2..-1] 2>/dev/null)\n"
    "    if test \"$found[1]\" = @files\n"
    "        __fish_complete_path (commandline -ct)\n"
    "    else\n"
    "        printf '%s\\n' $found\n"
    "    end\n"
    "end\n"
    "complete -c bough -f -a '(__bough_words)'\n";

static void offer(const char *prefix, const char *dashes, const char *text) {
    char word[300];
    (void)snprintf(word, sizeof word, "%s%s", dashes, text);
    if (strncmp(word, prefix, strlen(prefix)) == 0 && !strpbrk(word, "\r\n")) (void)puts(word);
}

/* Names of projects, or of branches; silently nothing when no server runs. */
static void offer_names(const cli_args *line, cli_word kind, const char *prefix) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_project_list *projects = NULL;
    bough_branch_list *branches = NULL;
    if (kind == CLI_WORD_PROJECT) {
        if (cli_connect(&client, line, NULL) == BOUGH_OK &&
            bough_project_get_all(&projects, client, NULL) == BOUGH_OK)
            for (size_t i = 0; i < projects->count; i++) offer(prefix, "", projects->items[i]->name);
    } else if (cli_connect_project(&client, &project, line, NULL) == BOUGH_OK &&
               bough_branch_get_all(&branches, client, project->id, NULL) == BOUGH_OK) {
        for (size_t i = 0; i < branches->count; i++) offer(prefix, "", branches->items[i]->name);
    }
    bough_branch_list_free(branches);
    bough_project_list_free(projects);
    bough_project_free(project);
    cli_disconnect(client);
}

static void offer_commands(const cli_command *list, const char *prefix) {
    for (const cli_command *c = list; c->name; c++) offer(prefix, "", c->name);
}

static void offer_options(const cli_command *command, const char *prefix) {
    const cli_option *list[CLI_OPTIONS_MAX];
    size_t n = cli_options_of(list, CLI_OPTIONS_MAX, command);
    for (size_t i = 0; i < n; i++) offer(prefix, "--", list[i]->name);
}

/* The option whose value the last word is; NULL where it is none's. */
static const cli_option *value_wanted(const cli_args *line, const char *before) {
    const cli_option *list[CLI_OPTIONS_MAX];
    if (!before || before[0] != '-') return NULL;
    size_t n = cli_options_of(list, CLI_OPTIONS_MAX, line->command);
    for (size_t i = 0; i < n; i++)
        if (list[i]->value && strncmp(before, "--", 2) == 0 && strcmp(before + 2, list[i]->name) == 0)
            return list[i];
    return NULL;
}

static void offer_value(const cli_args *line, const cli_option *option, const char *prefix) {
    if (strcmp(option->name, "parent") == 0) offer_names(line, CLI_WORD_BRANCH, prefix);
    else if (option == &cli_project_option) offer_names(line, CLI_WORD_PROJECT, prefix);
    else if (option == &cli_store_option || strcmp(option->name, "from") == 0) (void)puts("@files");
}

/* Completions of the last of the words. What stands before it is parsed as far as it makes sense. */
static void complete(char *const *words, int n) {
    char *argv[64] = {NULL};
    int argc = 0;
    static char program[] = "bough";
    argv[argc++] = program;
    for (int i = 0; i < n - 1 && argc < 63; i++) argv[argc++] = words[i];
    const char *last = n ? words[n - 1] : "";
    const char *before = n > 1 ? words[n - 2] : NULL;
    cli_args line;
    int rc = cli_parse(&line, argc, argv, NULL);
    const cli_option *option = value_wanted(&line, before);
    if (option) {
        offer_value(&line, option, last);
    } else if (line.n_rest || (before && strcmp(before, "--") == 0)) {
        (void)puts("@files");
    } else if (*last == '-') {
        offer_options(line.command, last);
    } else if (line.command) {
        if (line.n_words == 0 && line.command->run == cmd_completion) {
            offer(last, "", "bash");
            offer(last, "", "fish");
            offer(last, "", "zsh");
        } else if (line.n_words == 0 && line.command->word == CLI_WORD_TOPIC) {
            offer_commands(cli_commands, last);
        } else if (line.n_words == 0 && line.command->word != CLI_WORD_OTHER) {
            offer_names(&line, line.command->word, last);
        } else if (line.n_words < line.command->max_words && line.command->run == cmd_export) {
            (void)puts("@files");
        }
    } else if (rc == BOUGH_OK || line.group || argc == 1) {
        offer_commands(line.group ? line.group->children : cli_commands, last);
    }
}

int cmd_completion(const cli_args *args, bough_error *err) {
    const char *shell = args->words[0];
    if (strcmp(shell, "words") == 0) complete(args->rest, args->n_rest);
    else if (strcmp(shell, "bash") == 0) (void)fputs(bash_script, stdout);
    else if (strcmp(shell, "zsh") == 0) (void)fputs(zsh_script, stdout);
    else if (strcmp(shell, "fish") == 0) (void)fputs(fish_script, stdout);
    else {
        (void)bough_fail(err, BOUGH_E_USAGE, "unknown shell \"%s\"", shell);
        return bough_hint(err, "Shells are bash, zsh and fish.");
    }
    return BOUGH_OK;
}
