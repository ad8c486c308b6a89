/* bough: the command line. Parses, runs one command, prints its failure, and exits with its status.
 */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/error.h"
#include "util/fs.h"

static atomic_int interrupts;
static _Atomic(bough_client *) target;
static atomic_bool is_held;

/* The first interrupt cancels; the third ends at once, whatever the command is doing. */
static void on_interrupt(int signal_number) {
    bough_client *client = atomic_load(&target);
    if (atomic_fetch_add(&interrupts, 1) >= 2) _exit(128 + signal_number);
    if (client)
        bough_client_cancel(client);
    else if (!atomic_load(&is_held))
        _exit(128 + signal_number);
}

int cli_interrupts(void) {
    return atomic_load(&interrupts);
}

void cli_interrupt_target(bough_client *client) {
    atomic_store(&target, client);
}

void cli_interrupt_hold(bool hold) {
    atomic_store(&is_held, hold);
}

static int run(const cli_args *args, bough_error *err) {
    if (args->help || !args->command) {
        if (args->version && !args->help) return cmd_version(args, err);
        cli_help_print(args->group, args->command);
        return BOUGH_OK;
    }
    return args->command->run(args, err);
}

/* Where stdio finds no memory for a buffer it goes on without, and glibc then loses a byte. */
static void buffer_output(void) {
    static char buffer[65536];
    (void)setvbuf(stdout, buffer, cli_is_terminal() ? _IOLBF : _IOFBF, sizeof buffer);
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = on_interrupt};
    if (bough_hold_standard() != 0) return bough_code_get(BOUGH_E_SYS)->exit_status;
    buffer_output();
    (void)setlocale(LC_ALL, "");
    (void)setlocale(LC_NUMERIC, "C");
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, seen below */

    cli_args args;
    bough_error err = {0};
    int rc = cli_parse(&args, argc, argv, &err);
    if (!rc) rc = run(&args, &err);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        int failed = errno;
        if (failed == EPIPE) return rc ? bough_code_get(rc)->exit_status : 128 + SIGPIPE;
        if (!rc) rc = bough_fail_sys(&err, failed, "could not write to standard output");
    }
    if (rc && err.code) cli_print_error(&err, args.json);
    return bough_code_get(rc)->exit_status;
}
