/*
 * Starting a server in the background, where it goes wrong: servers that never become ready.
 *
 * A signal comes at a given call. Old ways to wait lost one there, and waited for ever: an alarm
 * ends the test then.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/daemon.h"
#include "util/fs.h"

enum { LIMIT_SECONDS = 60 };

/* The command line's own main() is not linked. */
static atomic_int interrupts;

int cli_interrupts(void) {
    return atomic_load(&interrupts);
}
void cli_interrupt_target(bough_client *client) {
    (void)client;
}
void cli_interrupt_hold(bool hold) {
    (void)hold;
}
static void on_interrupt(int signal_number) {
    (void)signal_number;
    atomic_fetch_add(&interrupts, 1);
}

/* ---- when it comes ---- */

static int waits_until_signal; /* at which waitpid() from now on; 0: none */

pid_t __real_waitpid(pid_t pid, int *status, int options);
pid_t __wrap_waitpid(pid_t pid, int *status, int options) {
    if (waits_until_signal > 0 && --waits_until_signal == 0) (void)raise(SIGINT);
    return __real_waitpid(pid, status, options);
}

static bool breaks_read; /* the next read() that reads a process id */

ssize_t __real_read(int fd, void *data, size_t size);
ssize_t __wrap_read(int fd, void *data, size_t size) {
    if (breaks_read && size > 1 && size <= 8) {
        breaks_read = false;
        (void)raise(SIGINT);
        errno = EINTR;
        return -1;
    }
    return __real_read(fd, data, size);
}

/* What the compiler makes of read() where it sees less, as with sanitizers. */
ssize_t __wrap___read_chk(int fd, void *data, size_t size, size_t room);
ssize_t __wrap___read_chk(int fd, void *data, size_t size, size_t room) {
    if (size > room) abort();
    return __wrap_read(fd, data, size);
}

/* ---- a store, and a server that is none ---- */

static char directory[64], program[128], store[128];

static int begin(void **state) {
    struct sigaction action = {.sa_handler = on_interrupt};
    (void)state;
    atomic_store(&interrupts, 0);
    waits_until_signal = 0;
    breaks_read = false;
    (void)alarm(LIMIT_SECONDS);
    (void)snprintf(directory, sizeof directory, "/tmp/bough-test-daemon-XXXXXX");
    if (!mkdtemp(directory) || sigaction(SIGINT, &action, NULL) != 0) return -1;
    (void)snprintf(program, sizeof program, "%s/boughd", directory);
    (void)snprintf(store, sizeof store, "%s/store", directory);
    return setenv("BOUGH_BOUGHD", program, 1) || setenv("BOUGH_PRELOAD", program, 1);
}

static int end(void **state) {
    (void)state;
    (void)alarm(0);
    return bough_rmtree(directory, NULL);
}

/* What it does after it has written its process id into the directory. */
static void server_does(const char *script) {
    char text[512];
    (void)snprintf(text, sizeof text, "#!/bin/sh\necho $$ >'%s/pid'\n%s\n", directory, script);
    assert_int_equal(bough_write_file(program, text, strlen(text), 0755, NULL), BOUGH_OK);
}

/* What was started has ended, and so has who started it. */
static void assert_no_server(void) {
    while (__real_waitpid(-1, NULL, 0) > 0) continue;
    assert_int_equal(errno, ECHILD);
}

#define CLOSES_ALL "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-\n"

/* A start that Ctrl-C ends, as the flags above say when; nothing is left of it. */
static void cancel_start_of(const char *script) {
    static const char *const options[] = {NULL};
    bough_error err = {0};
    server_does(script);
    assert_int_equal(daemon_start(store, options, &err), BOUGH_E_CANCELLED);
    assert_no_server();
}

static void ctrl_c_ends_the_wait_for_a_server_that_only_closed_the_pipe(void **state) {
    (void)state;
    waits_until_signal = 3; /* the first is for the process between, the second sees it running */
    cancel_start_of(CLOSES_ALL "exec sleep 1000");
}

static void ctrl_c_while_the_process_between_ends_is_not_forgotten(void **state) {
    (void)state;
    waits_until_signal = 1;
    cancel_start_of("exec sleep 1000");
}

static void ctrl_c_while_the_process_id_is_read_stops_what_was_started(void **state) {
    (void)state;
    breaks_read = true;
    cancel_start_of("exec sleep 1000");
    assert_false(breaks_read);
}

static void why_a_server_ended_is_told(void **state) {
    static const char *const options[] = {NULL};
    bough_error err = {0};
    (void)state;
    server_does("echo 'boughd: error: it is cold' >&2\necho 'boughd: hint: Close it.' >&2\nexit 4");
    assert_int_equal(daemon_start(store, options, &err), BOUGH_E_CONFLICT);
    assert_string_equal(err.message, "it is cold");
    assert_string_equal(err.hint, "Close it.");
    assert_no_server();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ctrl_c_ends_the_wait_for_a_server_that_only_closed_the_pipe,
                                        begin, end),
        cmocka_unit_test_setup_teardown(ctrl_c_while_the_process_between_ends_is_not_forgotten,
                                        begin, end),
        cmocka_unit_test_setup_teardown(ctrl_c_while_the_process_id_is_read_stops_what_was_started,
                                        begin, end),
        cmocka_unit_test_setup_teardown(why_a_server_ended_is_told, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
