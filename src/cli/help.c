/* Help texts and manual pages, made from the command tree. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

#define WIDTH 80  /* columns of a help text */
#define LABELS 30 /* of them before an explanation */
#define OPTIONS_MAX 24

/* What stands at the end of help and manual alike. */
typedef struct fact {
    const char *name, *text;
} fact;

static const char about[] =
    "A branch is a writable copy of a live PostgreSQL database, of any size, made in milliseconds: "
    "it shares the pages of its parent until it writes its own. bough talks to boughd, the server, "
    "which keeps projects and their branches in a store directory and runs an unmodified "
    "PostgreSQL for each branch in use.\n\n"
    "Results go to standard output, everything else to standard error. A failure is one line and "
    "mostly a hint. With --json both are JSON.";

static const fact variables[] = {
    {"BOUGH_STORE", "Store directory, where --store is not given"},
    {"BOUGH_PROJECT", "Project, where --project is not given"},
    {"BOUGH_BOUGHD", "The server that `bough up` starts, where it is not beside bough"},
    {"BOUGH_PRELOAD", "The libbough_pg.so that its computes load, where it is not beside bough"},
    {"BOUGH_PG_PATH", "Directories of PostgreSQL programs to look in first, separated by colons"},
    {"NO_COLOR", "No colours on a terminal, whatever its value"},
};

static const char *meaning_of(int code) {
    switch (code) {
    case BOUGH_OK:
        return "success";
    case BOUGH_E_SYS:
        return "the operating system refused";
    case BOUGH_E_INVALID:
        return "what was asked for breaks a rule";
    case BOUGH_E_NOTFOUND:
        return "no such thing";
    case BOUGH_E_CONFLICT:
        return "exists already, from another source, or has dependants";
    case BOUGH_E_BUSY:
        return "another operation is under way; retry";
    case BOUGH_E_UNSUPPORTED:
        return "cannot be done here";
    case BOUGH_E_CORRUPT:
        return "a file of the store is damaged";
    case BOUGH_E_PG:
        return "PostgreSQL reported an error";
    case BOUGH_E_AUTH:
        return "the API key is missing or wrong";
    case BOUGH_E_UNREACHABLE:
        return "no server runs, or the source cannot be reached";
    case BOUGH_E_TIMEOUT:
        return "not done within the limit";
    case BOUGH_E_CANCELLED:
        return "interrupted";
    case BOUGH_E_NOSPACE:
        return "the disk is full";
    case BOUGH_E_PRECONDITION:
        return "not in a state that allows it";
    case BOUGH_E_USAGE:
        return "the command line is wrong";
    case BOUGH_E_INTERNAL:
        return "a defect in Bough, or out of memory";
    default:
        return NULL;
    }
}

static const int shown_codes[] = {BOUGH_OK,
                                  BOUGH_E_INVALID,
                                  BOUGH_E_NOTFOUND,
                                  BOUGH_E_CONFLICT,
                                  BOUGH_E_BUSY,
                                  BOUGH_E_UNSUPPORTED,
                                  BOUGH_E_CORRUPT,
                                  BOUGH_E_PG,
                                  BOUGH_E_AUTH,
                                  BOUGH_E_UNREACHABLE,
                                  BOUGH_E_TIMEOUT,
                                  BOUGH_E_NOSPACE,
                                  BOUGH_E_PRECONDITION,
                                  BOUGH_E_USAGE,
                                  BOUGH_E_INTERNAL,
                                  BOUGH_E_SYS,
                                  BOUGH_E_CANCELLED};

/* Words of `text` in lines of WIDTH, each after `indent` blanks; the first begins at column `at`.
 */
static void print_wrapped(const char *text, int indent, int at) {
    int column = at;
    bool first = true;
    while (*text) {
        size_t size = strcspn(text, " \n");
        if (!first && column + 1 + (int)size > WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
            first = true;
        }
        printf("%s%.*s", first ? "" : " ", (int)size, text);
        column += (int)size + !first;
        first = false;
        text += size;
        if (text[0] == '\n' && text[1] == '\n') {
            printf("\n\n%*s", indent, "");
            column = indent;
            first = true;
        }
        text += strspn(text, " \n");
    }
    putchar('\n');
}

static void option_label(char *out, size_t size, const cli_option *o) {
    char letter[8] = "    ";
    if (o->letter) (void)snprintf(letter, sizeof letter, "-%c, ", o->letter);
    (void)snprintf(out, size, "%s--%s%s%s", letter, o->name, o->value ? " " : "",
                   o->value ? o->value : "");
}

static void print_pair(const char *label, const char *text, int column) {
    if ((int)strlen(label) > column - 4)
        printf("  %s\n%*s", label, column, "");
    else
        printf("  %-*s  ", column - 4, label);
    print_wrapped(text, column, column);
}

static void print_options(const cli_command *command) {
    const cli_option *list[OPTIONS_MAX];
    size_t n = cli_options_of(list, OPTIONS_MAX, command);
    printf("\nOptions:\n");
    for (size_t i = 0; i < n; i++) {
        char label[64];
        option_label(label, sizeof label, list[i]);
        print_pair(label, list[i]->help, LABELS);
    }
}

static void usage_of(char *out, size_t size, const cli_command *group, const cli_command *command) {
    char name[128];
    cli_command_name(name, sizeof name, group, command);
    (void)snprintf(out, size, "%s%s%s [options]%s", name, command->words ? " " : "",
                   command->words ? command->words : "",
                   command->takes_rest ? " [-- ARGUMENT...]" : "");
}

static void print_command(const cli_command *group, const cli_command *command) {
    char usage[256];
    usage_of(usage, sizeof usage, group, command);
    printf("%s.\n\nUsage: %s\n", command->summary, usage);
    if (command->details) {
        putchar('\n');
        print_wrapped(command->details, 0, 0);
    }
    print_options(command);
    if (!command->examples) return;
    printf("\nExamples:\n");
    for (const char *line = command->examples; *line;) {
        int size = (int)strcspn(line, "\n");
        printf("  %.*s\n", size, line);
        line += size + (line[size] == '\n');
    }
}

static void print_children(const cli_command *list) {
    for (const cli_command *c = list; c->name; c++) {
        char label[64];
        (void)snprintf(label, sizeof label, "%s%s%s", c->name, c->words ? " " : "",
                       c->words ? c->words : "");
        print_pair(label, c->summary, LABELS);
    }
}

static void print_group(const cli_command *group) {
    printf("%s.\n\nUsage: bough %s COMMAND [options]\n\nCommands:\n", group->summary, group->name);
    print_children(group->children);
    printf("\nSee `bough %s COMMAND --help`.\n", group->name);
}

static void print_all(void) {
    printf("Branches of PostgreSQL databases: writable copies of any size in milliseconds.\n\n"
           "Usage: bough COMMAND [options]\n\nCommands:\n");
    for (const cli_command *c = cli_commands; c->name; c++) {
        if (!c->children) {
            char label[64];
            (void)snprintf(label, sizeof label, "%s%s%s", c->name, c->words ? " " : "",
                           c->words ? c->words : "");
            print_pair(label, c->summary, LABELS);
            continue;
        }
        for (const cli_command *v = c->children; v->name; v++) {
            char label[64];
            (void)snprintf(label, sizeof label, "%s %s%s%s", c->name, v->name, v->words ? " " : "",
                           v->words ? v->words : "");
            print_pair(label, v->summary, LABELS);
        }
    }
    print_options(NULL);
    printf("\nEnvironment:\n");
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        print_pair(variables[i].name, variables[i].text, LABELS);
    printf("\nExit status:\n");
    for (size_t i = 0; i < sizeof shown_codes / sizeof shown_codes[0]; i++) {
        char label[32];
        const bough_code_info *info = bough_code_get(shown_codes[i]);
        (void)snprintf(label, sizeof label, "%3d %s", info->exit_status, info->slug);
        print_pair(label, meaning_of(info->code), LABELS);
    }
    printf("\nSee `bough COMMAND --help`.\n");
}

void cli_help_print(const cli_command *group, const cli_command *command) {
    if (command)
        print_command(group, command);
    else if (group)
        print_group(group);
    else
        print_all();
}

/* What troff would take for something else than the character itself. */
static const char *troff_of(char c) {
    switch (c) {
    case '\\':
        return "\\e";
    case '-':
        return "\\-";
    case '`':
        return "\\(ga";
    case '\'':
        return "\\(aq";
    case '^':
        return "\\(ha";
    case '~':
        return "\\(ti";
    default:
        return NULL;
    }
}

/* Text as troff; a dot at the beginning of a line must not be a request. */
static void print_troff(const char *text) {
    bool line_begins = true;
    for (; *text; text++) {
        const char *name = troff_of(*text);
        if (line_begins && *text == '.') printf("\\&");
        if (name)
            (void)fputs(name, stdout);
        else
            (void)putchar(*text);
        line_begins = *text == '\n';
        if (line_begins && text[1] == '\n') {
            printf(".PP\n");
            text++;
        }
    }
    (void)putchar('\n');
}

static void print_troff_pair(const char *label, const char *text) {
    printf(".TP\n.B ");
    print_troff(label);
    print_troff(text);
}

static void print_troff_option(const cli_option *option) {
    char label[64];
    option_label(label, sizeof label, option);
    print_troff_pair(label + strspn(label, " "), option->help);
}

/* The common options are explained once for all. */
static void print_troff_command(const cli_command *group, const cli_command *command) {
    char usage[256];
    usage_of(usage, sizeof usage, group, command);
    printf(".SS ");
    print_troff(usage);
    printf("%s.\n", command->summary);
    if (command->details) {
        printf(".PP\n");
        print_troff(command->details);
    }
    for (const cli_option *o = command->options; o && o->name; o++) print_troff_option(o);
    if (!command->examples) return;
    printf(".PP\n.nf\n.RS\n");
    print_troff(command->examples);
    printf(".RE\n.fi\n");
}

void cli_help_print_man(void) {
    printf(".\\\" made by dev/cli-docs; do not edit\n"
           ".TH bough 1 \"\" \"bough %s\" \"Bough\"\n"
           ".SH NAME\nbough \\- branches of PostgreSQL databases\n"
           ".SH SYNOPSIS\n.B bough\n.I COMMAND\n[options]\n"
           ".SH DESCRIPTION\n",
           BOUGH_VERSION);
    print_troff(about);
    printf(".SH COMMANDS\n");
    for (const cli_command *top = cli_commands; top->name; top++) {
        if (!top->children) print_troff_command(NULL, top);
        for (const cli_command *c = top->children; c && c->name; c++) print_troff_command(top, c);
    }
    printf(".SH OPTIONS\n");
    const cli_option *list[OPTIONS_MAX];
    size_t n = cli_options_of(list, OPTIONS_MAX, NULL);
    for (size_t i = 0; i < n; i++) print_troff_option(list[i]);
    printf(".SH ENVIRONMENT\n");
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        print_troff_pair(variables[i].name, variables[i].text);
    printf(".SH EXIT STATUS\n");
    for (size_t i = 0; i < sizeof shown_codes / sizeof shown_codes[0]; i++) {
        char label[32];
        const bough_code_info *info = bough_code_get(shown_codes[i]);
        (void)snprintf(label, sizeof label, "%d %s", info->exit_status, info->slug);
        print_troff_pair(label, meaning_of(info->code));
    }
    printf(".SH FILES\n");
    print_troff_pair("/var/lib/bough", "Store of root's server");
    print_troff_pair("~/.local/share/bough", "Store of other users' servers");
    print_troff_pair("STORE/boughd.log", "Log of the server");
    print_troff_pair("STORE/api_key", "Key of the API, mode 0600");
    printf(".SH SEE ALSO\n.BR boughd (8),\n.BR psql (1),\n.BR postgres (1)\n");
}
