/*
 * libFuzzer target: the command line (src/cli/parse.c), one argument a line.
 */
#include <stdint.h>
#include <string.h>

#include "cli/cli.h"
#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"

/* as main.c has them; nothing is run here */
int cli_interrupts(void) {
    return 0;
}
void cli_interrupt_target(bough_client *client) {
    (void)client;
}
void cli_interrupt_hold(bool hold) {
    (void)hold;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { MOST = 200 };
    char *text = fuzz_text(data, size), *argv[MOST + 2] = {NULL}, *save = NULL, name[] = "bough";
    cli_args args;
    bough_error err = {0};
    int argc = 0;
    argv[argc++] = name;
    for (char *word = strtok_r(text, "\n", &save); word && argc < MOST;
         word = strtok_r(NULL, "\n", &save))
        argv[argc++] = word;
    int rc = cli_parse(&args, argc, argv, &err);
    if (rc && (rc != BOUGH_E_USAGE || !err.message[0])) __builtin_trap();
    bool is_bare = !args.group && !args.n_options && !args.n_words;
    if (!rc && !args.command && !args.help && !args.version && !is_bare) __builtin_trap();
    if (args.n_words < 0 || args.n_words > CLI_WORDS_MAX || args.n_options < 0 ||
        args.n_options > CLI_OPTIONS_MAX)
        __builtin_trap();
    for (int i = 0; i < args.n_words; i++)
        if (!args.words[i]) __builtin_trap();
    for (int i = 0; i < args.n_options; i++)
        if (!args.options[i].option || !args.options[i].value) __builtin_trap();
    free(text);
    return 0;
}
