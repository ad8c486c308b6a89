/*
 * The parser of command lines. Words lead down the command tree until a command is reached; options
 * may stand anywhere before `--`. An option before the command is known must be a common one.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "client/nearest.h"
#include "util/error.h"

#define ALL_OPTIONS_MAX 24

const cli_option cli_store_option = {
    "store", 0, "DIR", "Store directory (default: $BOUGH_STORE, else one in your data home)", 0, 0};
const cli_option cli_project_option = {
    "project", 'p', "PROJECT", "Project by name or id (default: $BOUGH_PROJECT, else the only one)",
    0,         0};
const cli_option cli_json_option = {"json", 0, NULL, "Print JSON; errors too, on standard error",
                                    0,      0};
const cli_option cli_help_option = {"help", 'h', NULL, "Show this help", 0, 0};
const cli_option cli_version_option = {"version", 'V', NULL, "Print the version", 0, 0};

size_t cli_options_of(const cli_option **list, size_t room, const cli_command *command) {
    size_t n = 0;
    for (const cli_option *o = command ? command->options : NULL; o && o->name && n < room; o++)
        list[n++] = o;
    unsigned uses = command ? command->uses : (CLI_USES_STORE | CLI_USES_PROJECT);
    if ((uses & CLI_USES_PROJECT) && n < room) list[n++] = &cli_project_option;
    if ((uses & CLI_USES_STORE) && n < room) list[n++] = &cli_store_option;
    if (n < room) list[n++] = &cli_json_option;
    if (n < room) list[n++] = &cli_help_option;
    if (!command && n < room) list[n++] = &cli_version_option;
    return n;
}

const char *cli_get(const cli_args *args, const char *name) {
    for (int i = args->n_options; i-- > 0;) /* the last one counts */
        if (strcmp(args->options[i].option->name, name) == 0) return args->options[i].value;
    return NULL;
}

int cli_get_number(const cli_args *args, const char *name, int otherwise) {
    const char *text = cli_get(args, name);
    return text ? (int)strtol(text, NULL, 10) : otherwise;
}

const char *cli_word_get(const cli_args *args, int index) {
    return index < args->n_words ? args->words[index] : NULL;
}

void cli_command_name(char *out, size_t size, const cli_command *group,
                      const cli_command *command) {
    (void)snprintf(out, size, "bough%s%s%s%s", group ? " " : "", group ? group->name : "",
                   command ? " " : "", command ? command->name : "");
}

/* Point at the help of where we are. */
static int hint_help(const cli_args *args, bough_error *err) {
    char name[128];
    cli_command_name(name, sizeof name, args->group, args->command);
    return bough_hint(err, "See `%s --help`.", name);
}

static int unknown_option(const cli_args *args, const char *text, size_t size, bough_error *err) {
    const cli_option *list[ALL_OPTIONS_MAX];
    const char *names[ALL_OPTIONS_MAX];
    size_t n = cli_options_of(list, ALL_OPTIONS_MAX, args->command);
    for (size_t i = 0; i < n; i++) names[i] = list[i]->name;
    char wanted[128];
    (void)snprintf(wanted, sizeof wanted, "%.*s", (int)(size < 100 ? size : 100), text);
    int rc = bough_fail(err, BOUGH_E_USAGE, "unknown option \"%s\"", wanted);
    const char *nearest = bough_nearest(wanted + strspn(wanted, "-"), names, n);
    if (nearest) return (void)bough_hint(err, "Did you mean `--%s`?", nearest), rc;
    if (args->command && args->command->takes_rest)
        return (void)bough_hint(err, "Arguments to be passed on come after ` -- `."), rc;
    if (!args->command)
        return (void)bough_hint(err,
                                "A command's options come after the command; see `bough --help`."),
               rc;
    (void)hint_help(args, err);
    return rc;
}

static int unknown_command(const cli_args *args, const cli_command *among, const char *text,
                           bough_error *err) {
    const char *names[64];
    size_t n = 0;
    for (const cli_command *c = among; c->name && n < 64; c++) names[n++] = c->name;
    char prefix[128];
    cli_command_name(prefix, sizeof prefix, args->group, NULL);
    int rc = args->group
                 ? bough_fail(err, BOUGH_E_USAGE, "unknown command \"%s\" of `%s`", text, prefix)
                 : bough_fail(err, BOUGH_E_USAGE, "unknown command \"%s\"", text);
    const char *nearest = bough_nearest(text, names, n);
    if (nearest)
        (void)bough_hint(err, "Did you mean `%s %s`?", prefix, nearest);
    else
        (void)hint_help(args, err);
    return rc;
}

static const cli_option *find_option(const cli_command *command, const char *name, size_t size) {
    const cli_option *list[ALL_OPTIONS_MAX];
    size_t n = cli_options_of(list, ALL_OPTIONS_MAX, command);
    for (size_t i = 0; i < n; i++) {
        if (strlen(list[i]->name) == size && strncmp(list[i]->name, name, size) == 0)
            return list[i];
        if (size == 1 && list[i]->letter == *name) return list[i];
    }
    return NULL;
}

static int check_number(const cli_option *option, const char *value, bough_error *err) {
    if (!option->max) return BOUGH_OK;
    char *end = NULL;
    long n = strtol(value, &end, 10);
    if (*end || n < option->min || n > option->max || value[strspn(value, "0123456789")])
        return bough_fail(err, BOUGH_E_USAGE,
                          "option \"--%s\" must be a whole number from %d to %d, not \"%s\"",
                          option->name, option->min, option->max, value);
    return BOUGH_OK;
}

/* argv[*at] begins with '-'. Moves *at past a value in the next argument. */
static int take_option(cli_args *args, int argc, char *const *argv, int *at, bough_error *err) {
    const char *text = argv[*at];
    bool is_long = text[1] == '-';
    const char *name = text + (is_long ? 2 : 1);
    size_t size = strcspn(name, "=");
    const cli_option *option = NULL;
    if (is_long ? size > 1 : size == 1) option = find_option(args->command, name, size);
    if (!option) return unknown_option(args, text, (size_t)(name - text) + size, err);
    const char *value = name[size] == '=' ? name + size + 1 : NULL;
    if (!option->value && value)
        return bough_fail(err, BOUGH_E_USAGE, "option \"--%s\" takes no value", option->name);
    if (option->value && !value && *at + 1 < argc && strcmp(argv[*at + 1], "--") != 0)
        value = argv[++*at];
    if (option->value && (!value || !*value)) {
        (void)bough_fail(err, BOUGH_E_USAGE, "option \"--%s\" needs a value", option->name);
        (void)bough_hint(err, "Write --%s=%s.", option->name, option->value);
        return BOUGH_E_USAGE;
    }
    if (option == &cli_json_option) args->json = true;
    if (option == &cli_help_option) args->help = true;
    if (option == &cli_version_option) args->version = true;
    if (args->n_options >= CLI_OPTIONS_MAX)
        return bough_fail(err, BOUGH_E_USAGE, "too many options");
    args->options[args->n_options].option = option;
    args->options[args->n_options++].value = value ? value : "";
    return value ? check_number(option, value, err) : BOUGH_OK;
}

static int too_many(const cli_args *args, const char *text, bough_error *err) {
    char name[128];
    int rc = bough_fail(err, BOUGH_E_USAGE, "unexpected argument \"%s\"", text);
    cli_command_name(name, sizeof name, args->group, args->command);
    const char *words = args->command->words;
    (void)bough_hint(err, "Usage: %s%s%s [options].", name, words ? " " : "", words ? words : "");
    return rc;
}

static int take_word(cli_args *args, const cli_command **among, const char *text,
                     bough_error *err) {
    if (args->command) {
        if (args->n_words >= args->command->max_words || args->n_words >= CLI_WORDS_MAX)
            return too_many(args, text, err);
        args->words[args->n_words++] = text;
        return BOUGH_OK;
    }
    for (const cli_command *c = *among; c->name; c++) {
        if (strcmp(c->name, text) != 0) continue;
        if (c->children) {
            args->group = c;
            *among = c->children;
        } else {
            args->command = c;
        }
        return BOUGH_OK;
    }
    return unknown_command(args, *among, text, err);
}

/* Options given before the command was known must be ones it takes. */
static int check_options(const cli_args *args, bough_error *err) {
    const cli_option *list[ALL_OPTIONS_MAX];
    size_t n = cli_options_of(list, ALL_OPTIONS_MAX, args->command);
    for (int i = 0; i < args->n_options; i++) {
        size_t at = 0;
        while (at < n && list[at] != args->options[i].option) at++;
        char text[64];
        int size = snprintf(text, sizeof text, "--%s", args->options[i].option->name);
        if (at == n) return unknown_option(args, text, (size_t)size, err);
    }
    return BOUGH_OK;
}

/* The whole line has been read: is anything missing? */
static int check_complete(const cli_args *args, bough_error *err) {
    if (args->help || (args->version && !args->command)) return BOUGH_OK;
    if (!args->command) {
        if (!args->group && !args->n_options) return BOUGH_OK; /* a bare `bough` */
        int rc = args->group ? bough_fail(err, BOUGH_E_USAGE, "a command is missing after \"%s\"",
                                          args->group->name)
                             : bough_fail(err, BOUGH_E_USAGE, "a command is missing");
        (void)hint_help(args, err);
        return rc;
    }
    int rc = check_options(args, err);
    if (rc) return rc;
    if (args->n_words < args->command->min_words) {
        char name[128], word[64];
        const char *words = args->command->words;
        const char *missing = words;
        for (int i = 0; i < args->n_words; i++) missing += strcspn(missing, " ") + 1;
        (void)snprintf(word, sizeof word, "%.*s", (int)strcspn(missing, " "), missing);
        cli_command_name(name, sizeof name, args->group, args->command);
        (void)bough_fail(err, BOUGH_E_USAGE, "%s is missing", word);
        (void)bough_hint(err, "Usage: %s %s [options].", name, words);
        return BOUGH_E_USAGE;
    }
    for (int i = 0; i < args->n_words; i++)
        if (!*args->words[i]) return bough_fail(err, BOUGH_E_USAGE, "an argument is empty");
    return BOUGH_OK;
}

int cli_parse(cli_args *args, int argc, char *const *argv, bough_error *err) {
    memset(args, 0, sizeof *args);
    static char *const nothing[] = {NULL};
    const cli_command *among = cli_commands;
    args->rest = nothing;
    /* seen before anything can fail, so that a failure is printed in the form asked for */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0) args->json = true;
    int rc = BOUGH_OK;
    bool only_words = false; /* after -- of a command that passes nothing on */
    for (int i = 1; i < argc && !rc; i++) {
        const char *text = argv[i];
        if (!only_words && strcmp(text, "--") == 0) {
            if (args->command && args->command->takes_rest) {
                args->rest = argv + i + 1;
                args->n_rest = argc - i - 1;
                break;
            }
            only_words = true;
        } else if (!only_words && text[0] == '-' && text[1]) {
            rc = take_option(args, argc, argv, &i, err);
        } else {
            rc = take_word(args, &among, text, err);
        }
    }
    return rc ? rc : check_complete(args, err);
}
