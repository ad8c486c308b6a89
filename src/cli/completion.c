/*
 * bough completion: scripts for shells, and the completions themselves.
 *
 * The scripts know nothing: they ask `bough completion words -- WORD...`, which answers from the
 * command tree and the server. An answer of @files means names of files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bough/branch.h"
#include "cli/cli.h"
#include "util/error.h"

#define WORDS_MAX 64

/* bash splits words at '=' too; cli_complete() knows. */
static const char bash_script[] = "_bough() {\n"
                                  "    local current=${COMP_WORDS[COMP_CWORD]} found word\n"
                                  "    COMPREPLY=()\n"
                                  "    mapfile -t found < <(bough completion words -- "
                                  "\"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
                                  "    if [[ ${found[0]} == @files ]]; then\n"
                                  "        [[ $current == = ]] && current=\n"
                                  "        mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
                                  "        compopt -o filenames 2>/dev/null\n"
                                  "        return\n"
                                  "    fi\n"
                                  "    for word in \"${found[@]}\"; do\n"
                                  "        COMPREPLY+=(\"$(printf '%q' \"$word\")\")\n"
                                  "    done\n"
                                  "}\n"
                                  "complete -F _bough bough\n";

static const char zsh_script[] =
    "#compdef bough\n"
    "_bough() {\n"
    "    local -a found\n"
    "    found=(${(f)\"$(bough completion words -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\"})\n"
    "    if [[ ${found[1]} == @files ]]; then\n"
    "        compset -P '--*='\n"
    "        _files\n"
    "    else\n"
    "        compadd -- $found\n"
    "    fi\n"
    "}\n"
    "if [[ ${funcstack[1]} == _bough ]]; then _bough \"$@\"; else compdef _bough bough; fi\n";

static const char fish_script[] =
    "function __bough_words\n"
    "    set -l words (commandline -opc)\n"
    "    set -l current (commandline -ct)\n"
    "    set -l found (bough completion words -- $words[2..-1] \"$current\" 2>/dev/null)\n"
    "    if test \"$found[1]\" = @files\n"
    "        set -l option (string match -r -- '^--[a-z-]+=' \"$current\")\n"
    "        for path in (__fish_complete_path (string replace -r -- '^--[a-z-]+=' '' "
    "\"$current\"))\n"
    "            printf '%s%s\\n' \"$option\" $path\n"
    "        end\n"
    "    else\n"
    "        printf '%s\\n' $found\n"
    "    end\n"
    "end\n"
    "complete -c bough -f -a '(__bough_words)'\n";

/* The last word as far as it is typed, and what it completes. */
typedef struct typed {
    const char *text;   /* what an offer must begin with */
    const char *before; /* put before each offer: "--parent=" where that is part of the word */
} typed;

static void offer(const typed *t, const char *dashes, const char *text) {
    char word[300];
    (void)snprintf(word, sizeof word, "%s%s", dashes, text);
    if (strncmp(word, t->text, strlen(t->text)) == 0 && !strpbrk(word, "\r\n"))
        printf("%s%s\n", t->before, word);
}

/* Names of projects, or of branches; silently nothing when no server runs. */
static void offer_names(const cli_args *line, cli_word kind, const typed *t) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_project_list *projects = NULL;
    bough_branch_list *branches = NULL;
    if (kind == CLI_WORD_PROJECT) {
        if (cli_connect(&client, line, NULL) == BOUGH_OK &&
            bough_project_get_all(&projects, client, NULL) == BOUGH_OK)
            for (size_t i = 0; i < projects->count; i++) offer(t, "", projects->items[i]->name);
    } else if (cli_connect_project(&client, &project, line, NULL) == BOUGH_OK &&
               (kind == CLI_WORD_DELETED ? bough_branch_get_deleted : bough_branch_get_all)(
                   &branches, client, project->id, NULL) == BOUGH_OK) {
        for (size_t i = 0; i < branches->count; i++) offer(t, "", branches->items[i]->name);
    }
    bough_branch_list_free(branches);
    bough_project_list_free(projects);
    bough_project_free(project);
    cli_disconnect(client);
}

static void offer_commands(const cli_command *list, const typed *t) {
    for (const cli_command *c = list; c && c->name; c++) offer(t, "", c->name);
}

static void offer_options(const cli_command *command, const typed *t) {
    const cli_option *list[CLI_OPTIONS_MAX];
    size_t n = cli_options_of(list, CLI_OPTIONS_MAX, command);
    for (size_t i = 0; i < n; i++) offer(t, "--", list[i]->name);
}

/* The option of that spelling ("--parent", "-p") that takes a value; NULL where there is none. */
static const cli_option *option_with_value(const cli_args *line, const char *text, size_t size) {
    const cli_option *list[CLI_OPTIONS_MAX];
    size_t n = cli_options_of(list, CLI_OPTIONS_MAX, line->command);
    for (size_t i = 0; i < n; i++) {
        const cli_option *o = list[i];
        if (!o->value || *text != '-') continue;
        if (size == 2 && o->letter && text[1] == o->letter) return o;
        if (size == strlen(o->name) + 2 && text[1] == '-' &&
            strncmp(text + 2, o->name, size - 2) == 0)
            return o;
    }
    return NULL;
}

static void offer_value(const cli_args *line, const cli_option *option, const typed *t) {
    if (strcmp(option->name, "parent") == 0)
        offer_names(line, CLI_WORD_BRANCH, t);
    else if (option == &cli_project_option)
        offer_names(line, CLI_WORD_PROJECT, t);
    else if (option == &cli_store_option || strcmp(option->name, "from") == 0)
        (void)puts("@files");
}

static void offer_word(const cli_args *line, const typed *t) {
    const cli_command *command = line->command;
    int at = line->n_words;
    if (command->run == cmd_completion) {
        static const char *const shells[] = {"bash", "fish", "zsh"};
        for (size_t i = 0; at == 0 && i < 3; i++) offer(t, "", shells[i]);
    } else if (command->word == CLI_WORD_TOPIC) {
        const cli_command *list = cli_commands;
        for (; at == 1 && list->name && strcmp(list->name, line->words[0]) != 0; list++) continue;
        if (at < 2) offer_commands(at ? list->children : list, t);
    } else if (at == 0 && command->word != CLI_WORD_OTHER) {
        offer_names(line, command->word, t);
    } else if (at < command->max_words && command->run == cmd_export) {
        (void)puts("@files");
    }
}

/* Join what bash has split: "--parent" "=" "x". Fills argv with the words before the last one. */
static int join_words(char **argv, char *room, size_t size, char *const *words, int n) {
    int argc = 0;
    static char program[] = "bough";
    argv[argc++] = program;
    for (int i = 0; i < n - 1 && argc < WORDS_MAX - 1; i++) {
        if (i + 3 < n && strncmp(words[i], "--", 2) == 0 && strcmp(words[i + 1], "=") == 0) {
            int used = snprintf(room, size, "%s=%s", words[i], words[i + 2]);
            if (used < 0 || (size_t)used >= size) break;
            argv[argc++] = room;
            room += used + 1;
            size -= (size_t)used + 1;
            i += 2;
        } else {
            argv[argc++] = words[i];
        }
    }
    return argc;
}

void cli_complete(char *const *words, int n) {
    char *argv[WORDS_MAX] = {NULL}, room[4096];
    const char *last = n ? words[n - 1] : "", *before = n > 1 ? words[n - 2] : "";
    bool is_rest = false;
    for (int i = 0; i < n - 1; i++) is_rest |= strcmp(words[i], "--") == 0;
    if (n > 1 && strcmp(last, "=") == 0) { /* bash: --parent= */
        last = "";
    } else if (n > 2 && strcmp(before, "=") == 0) { /* bash: --parent=x */
        before = words[n - 3];
        n--;
    }
    typed t = {.text = last, .before = ""};
    char prefix[64] = "";
    int argc = join_words(argv, room, sizeof room, words, n);
    cli_args line;
    int rc = cli_parse(&line, argc, argv, NULL); /* as far as it makes sense */
    const cli_option *option = option_with_value(&line, before, strlen(before));
    const char *equals = strncmp(last, "--", 2) == 0 ? strchr(last, '=') : NULL;
    if (equals && (size_t)(equals - last) + 2 < sizeof prefix) {
        (void)snprintf(prefix, sizeof prefix, "%.*s", (int)(equals - last) + 1, last);
        option = option_with_value(&line, last, (size_t)(equals - last));
        t = (typed){.text = equals + 1, .before = prefix};
    }
    if (is_rest)
        (void)puts("@files");
    else if (option)
        offer_value(&line, option, &t);
    else if (*last == '-')
        offer_options(line.command, &t);
    else if (line.command)
        offer_word(&line, &t);
    else if (rc == BOUGH_OK || line.group || argc == 1)
        offer_commands(line.group ? line.group->children : cli_commands, &t);
}

int cmd_completion(const cli_args *args, bough_error *err) {
    const char *shell = args->words[0];
    if (strcmp(shell, "words") == 0)
        cli_complete(args->rest, args->n_rest);
    else if (strcmp(shell, "bash") == 0)
        (void)fputs(bash_script, stdout);
    else if (strcmp(shell, "zsh") == 0)
        (void)fputs(zsh_script, stdout);
    else if (strcmp(shell, "fish") == 0)
        (void)fputs(fish_script, stdout);
    else {
        (void)bough_fail(err, BOUGH_E_USAGE, "unknown shell \"%s\"", shell);
        return bough_hint(err, "Shells are bash, zsh and fish.");
    }
    return BOUGH_OK;
}
