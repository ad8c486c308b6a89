/**
 * The command line: the command tree as data, what a command is given, and what it prints with.
 *
 * One thread. A command returns BOUGH_OK or fails with a bough_error that main.c prints; it prints
 * its own result only, on standard output. Everything said besides goes to standard error.
 */
#ifndef BOUGH_CLI_CLI_H
#define BOUGH_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bough/client.h"
#include "bough/project.h"

#define CLI_WORDS_MAX 64   /**< words a command line may have besides options */
#define CLI_OPTIONS_MAX 32 /**< options a command line may have */

/** A long option. An array of them ends with name NULL. */
typedef struct cli_option {
    const char *name;  /**< without the dashes */
    char letter;       /**< short form; 0 for none */
    const char *value; /**< what its value is called; NULL for a flag */
    const char *help;  /**< one line, no full stop */
    int min, max;      /**< a whole number within; max 0: any text */
} cli_option;

/** What a word of a command names, for completion. */
typedef enum cli_word {
    CLI_WORD_OTHER,
    CLI_WORD_BRANCH,
    CLI_WORD_DELETED, /**< a deleted branch */
    CLI_WORD_PROJECT,
    CLI_WORD_TOPIC
} cli_word;

/** Which of the common options a command takes. --help and --json belong to all. */
enum { CLI_USES_STORE = 1, CLI_USES_PROJECT = 2 };

struct cli_args;
struct bough_branch;
struct bough_branch_expiry;
struct bough_branch_list;

/** A command, or a group of them. An array of them ends with name NULL. */
typedef struct cli_command {
    const char *name;
    const char *summary;                /**< one line, no full stop */
    const struct cli_command *children; /**< of a group; then the rest is unset but `details` */
    const char *words;                  /**< e.g. "NAME", "[BRANCH]"; NULL for none */
    int min_words, max_words;
    bool takes_rest;           /**< arguments after -- are passed on */
    cli_word word;             /**< what the first word names */
    unsigned uses;             /**< CLI_USES_... */
    const cli_option *options; /**< its own; NULL for none */
    const char *details;       /**< paragraphs for help and manual */
    const char *examples;      /**< command lines, one a line */
    int (*run)(const struct cli_args *args, bough_error *err);
} cli_command;

/** A parsed command line. Strings are borrowed from argv. */
typedef struct cli_args {
    const cli_command *group;   /**< the noun; NULL for a command without one */
    const cli_command *command; /**< NULL where only --help or --version was asked for */
    bool json, help, version;
    int n_words;
    const char *words[CLI_WORDS_MAX];
    int n_options;
    struct {
        const cli_option *option;
        const char *value; /**< "" for a flag */
    } options[CLI_OPTIONS_MAX];
    char *const *rest; /**< after --; NULL-terminated */
    int n_rest;
} cli_args;

/** The tree, commands.c. */
extern const cli_command cli_commands[];

/** --store, --project, --json, --help, --version; `uses` of each says which commands take it. */
extern const cli_option cli_store_option, cli_project_option, cli_json_option, cli_help_option,
    cli_version_option;

/* ---- parse.c ---- */

/**
 * Parse a command line. `args` is filled as far as it went, so that json is known on failure too.
 * @retval BOUGH_E_USAGE  With a hint that names the nearest option or command.
 */
BOUGH_CHECK int cli_parse(cli_args *args, int argc, char *const *argv, bough_error *err);

/** Value of an option; NULL where it was not given, "" for a flag. */
const char *cli_get(const cli_args *args, const char *name);

/** Value of an option that is a whole number; `otherwise` where it was not given. */
int cli_get_number(const cli_args *args, const char *name, int otherwise);

/** The word at an index; NULL where there are fewer. */
const char *cli_word_get(const cli_args *args, int index);

/**
 * All options of a command: its own, then the common ones it takes.
 * @return How many were written; at most `room`.
 */
size_t cli_options_of(const cli_option **list, size_t room, const cli_command *command);

/* ---- store.c ---- */

/** The store directory, absolute: --store, $BOUGH_STORE, or the default for this user. */
BOUGH_CHECK int cli_store(char *out, size_t size, const cli_args *args, bough_error *err);

/** " --store DIR" where the store is not the default one, else "": for hints. */
const char *cli_store_hint(const cli_args *args);

/** Say how to connect: `bough psql` with a branch and a project (each may be NULL) and the store.
 */
void cli_psql_hint(const cli_args *args, const char *branch, const char *project);

/** Connect to the store's server. Ctrl-C cancels it. Close with cli_disconnect(). */
BOUGH_CHECK int cli_connect(bough_client **client, const cli_args *args, bough_error *err);

/** Close; NULL is allowed. */
void cli_disconnect(bough_client *client);

/** Connect and find --project (or $BOUGH_PROJECT, or the only one). Both are the caller's to free.
 */
BOUGH_CHECK int cli_connect_project(bough_client **client, bough_project **project,
                                    const cli_args *args, bough_error *err);

/* ---- output.c ---- */

/** Print a JSON value on standard output, indented. Takes the reference. NULL means out of memory.
 */
BOUGH_CHECK int cli_print_json(json_t *value, bough_error *err);

/** Parse a result's JSON text; never NULL but when memory ran out. */
json_t *cli_json(const char *text);

/** The same into *value, or BOUGH_E_NOMEM: for what is looked into. The caller's reference. */
BOUGH_CHECK int cli_read_json(json_t **value, const char *text, bough_error *err);

/** One line to standard output unless --json was given. */
void cli_say(const cli_args *args, const char *fmt, ...) BOUGH_PRINTF(2, 3);

/** `text` as one word for a shell, in single quotes where it needs any; cut where it does not fit.
 */
void cli_quote(char *out, size_t size, const char *text);

/** Print a failure on standard error, as lines or as JSON. */
void cli_print_error(const bough_error *err, bool json);

/** Whether to write colours and boxes: standard output is a terminal that can. */
bool cli_is_terminal(void);

/** Whether the locale's character set is UTF-8. */
bool cli_is_utf8(void);

/** "1.5 GiB" into `out` (of 16 bytes or more). */
void cli_format_bytes(char *out, size_t size, uint64_t bytes);

/** RFC 3339 to "2026-01-31 12:00:00" local time on a terminal; unchanged elsewhere. */
void cli_format_time(char *out, size_t size, const char *rfc3339);

/** Milliseconds: "12.3 ms", "1.20 s". */
void cli_format_ms(char *out, size_t size, double ms);

/* ---- cmd_branch.c ---- */

/** The name of a branch by its id; the id where it is not listed, "-" where there is none. */
const char *cli_branch_name(const struct bough_branch_list *branches, const char *id);

/* ---- cmd_lifecycle.c ---- */

/** Seconds as people say them: "50 min", "23 h", "7 d". */
void cli_format_span(char *out, size_t size, int64_t seconds);

/** What a list says of a branch's protection, expiry or deletion; "-" where there is nothing. */
void cli_branch_notes(char *out, size_t size, const struct bough_branch *branch);

/** Read --expires-in, --expires-at, --temporary, --cascade and --wait, as far as the command has
 * them. Strings are the arguments'. */
BOUGH_CHECK int cli_read_expiry(struct bough_branch_expiry *expiry, const cli_args *args,
                                bough_error *err);

/* ---- table.c ---- */

/** A table in the making. Cells are copied. */
typedef struct cli_table cli_table;

/**
 * Begin a table.
 * @param headings  NULL-terminated; a heading that begins with '>' is of a column flushed right.
 * @return NULL when memory ran out.
 */
cli_table *cli_table_new(const char *const *headings);

/** Add a cell; rows fill up from the left. Control characters become '?'. */
void cli_table_add(cli_table *table, const char *text);

/** Print on standard output. @retval BOUGH_E_NOMEM  A cell was lost. */
BOUGH_CHECK int cli_table_print(const cli_table *table, bough_error *err);

/** Free; NULL is allowed. */
void cli_table_free(cli_table *table);

/* ---- help.c ---- */

/** Print help of a command, of a group, or (both NULL) of everything, on standard output. */
void cli_help_print(const cli_command *group, const cli_command *command);

/** Print the manual page (troff), on standard output. */
void cli_help_print_man(void);

/** "bough branch create" into `out`. */
void cli_command_name(char *out, size_t size, const cli_command *group, const cli_command *command);

/* ---- completion.c ---- */

/** Print the completions of the last of `n` words of a command line, one a line. */
void cli_complete(char *const *words, int n);

/* ---- progress.c ---- */

/** Shows the progress of long work on standard error. */
typedef struct cli_progress {
    bool is_quiet, is_terminal;
    double began_ms, phase_began_ms, shown_ms;
    uint64_t phase_first_bytes;
    char phase[64];
} cli_progress;

/** Begin; nothing is shown with --json unless standard error is a terminal. */
void cli_progress_begin(cli_progress *progress, bough_client *client, const cli_args *args);

/** Remove the bar; no more progress is shown. */
void cli_progress_end(cli_progress *progress, bough_client *client);

/** A line of progress as it is shown, without colours; for tests. */
void cli_progress_format(char *out, size_t size, const bough_progress *p, double bytes_per_s,
                         bool bar);

/* ---- signals, main.c ---- */

/** How often SIGINT or SIGTERM has come. */
int cli_interrupts(void);

/** Client that an interrupt cancels; NULL for none. */
void cli_interrupt_target(bough_client *client);

/** Whether an interrupt without a client is only counted, rather than ending the process. */
void cli_interrupt_hold(bool hold);

/* ---- cmd_*.c ---- */

int cmd_up(const cli_args *args, bough_error *err);
int cmd_down(const cli_args *args, bough_error *err);
int cmd_ca(const cli_args *args, bough_error *err);
int cmd_status(const cli_args *args, bough_error *err);
int cmd_project_create(const cli_args *args, bough_error *err);
int cmd_project_list(const cli_args *args, bough_error *err);
int cmd_project_get(const cli_args *args, bough_error *err);
int cmd_project_update(const cli_args *args, bough_error *err);
int cmd_project_delete(const cli_args *args, bough_error *err);
int cmd_branch_create(const cli_args *args, bough_error *err);
int cmd_branch_list(const cli_args *args, bough_error *err);
int cmd_branch_get(const cli_args *args, bough_error *err);
int cmd_branch_rename(const cli_args *args, bough_error *err);
int cmd_branch_restore(const cli_args *args, bough_error *err);
int cmd_branch_reset(const cli_args *args, bough_error *err);
int cmd_branch_delete(const cli_args *args, bough_error *err);
int cmd_branch_undelete(const cli_args *args, bough_error *err);
int cmd_branch_set_expiration(const cli_args *args, bough_error *err);
int cmd_branch_protect(const cli_args *args, bough_error *err);
int cmd_branch_unprotect(const cli_args *args, bough_error *err);
int cmd_branch_detach(const cli_args *args, bough_error *err);
int cmd_branch_set_default(const cli_args *args, bough_error *err);
int cmd_server_confirm_clock(const cli_args *args, bough_error *err);
int cmd_endpoint_list(const cli_args *args, bough_error *err);
int cmd_endpoint_get(const cli_args *args, bough_error *err);
int cmd_endpoint_start(const cli_args *args, bough_error *err);
int cmd_endpoint_suspend(const cli_args *args, bough_error *err);
int cmd_endpoint_restart(const cli_args *args, bough_error *err);
int cmd_endpoint_resize(const cli_args *args, bough_error *err);
int cmd_endpoint_why(const cli_args *args, bough_error *err);
int cmd_endpoint_create(const cli_args *args, bough_error *err);
int cmd_endpoint_delete(const cli_args *args, bough_error *err);
int cmd_ip_allow_list(const cli_args *args, bough_error *err);
int cmd_ip_allow_add(const cli_args *args, bough_error *err);
int cmd_ip_allow_remove(const cli_args *args, bough_error *err);
int cmd_ip_allow_reset(const cli_args *args, bough_error *err);
int cmd_key_create(const cli_args *args, bough_error *err);
int cmd_key_list(const cli_args *args, bough_error *err);
int cmd_key_revoke(const cli_args *args, bough_error *err);
int cmd_psql(const cli_args *args, bough_error *err);
int cmd_cs(const cli_args *args, bough_error *err);
int cmd_export(const cli_args *args, bough_error *err);
int cmd_operation_list(const cli_args *args, bough_error *err);
int cmd_snapshot_create(const cli_args *args, bough_error *err);
int cmd_snapshot_list(const cli_args *args, bough_error *err);
int cmd_snapshot_get(const cli_args *args, bough_error *err);
int cmd_snapshot_rename(const cli_args *args, bough_error *err);
int cmd_snapshot_delete(const cli_args *args, bough_error *err);
int cmd_snapshot_restore(const cli_args *args, bough_error *err);
int cmd_snapshot_finalize(const cli_args *args, bough_error *err);
int cmd_snapshot_schedule(const cli_args *args, bough_error *err);
int cmd_store_usage(const cli_args *args, bough_error *err);
int cmd_store_gc(const cli_args *args, bough_error *err);
int cmd_version(const cli_args *args, bough_error *err);
int cmd_help(const cli_args *args, bough_error *err);
int cmd_completion(const cli_args *args, bough_error *err);

#endif
