/*
 * Progress on standard error: a bar with rate and time left on a terminal, elsewhere a line every
 * two seconds and one for each new phase.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/fs.h"

#define BAR_WIDTH 24
#define REDRAW_MS 100.0
#define LINE_MS 2000.0

static void format_left(char *out, size_t size, double seconds) {
    long s = (long)seconds;
    if ((double)s < seconds) s++; /* rounded up: what is left is never nothing */
    if (s >= 3600)
        (void)snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        (void)snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

void cli_progress_format(char *out, size_t size, const bough_progress *p, double bytes_per_s,
                         bool bar) {
    char done[16], total[16] = "", rate[24] = "", left[24] = "", drawn[BAR_WIDTH + 4] = "";
    cli_format_bytes(done, sizeof done, p->done_bytes);
    if (bytes_per_s > 0) {
        char bytes[16];
        cli_format_bytes(bytes, sizeof bytes, (uint64_t)bytes_per_s);
        (void)snprintf(rate, sizeof rate, ", %s/s", bytes);
    }
    if (!p->total_bytes) {
        if (p->done_bytes)
            (void)snprintf(out, size, "%s: %s%s", p->phase, done, rate);
        else
            (void)snprintf(out, size, "%s: ...", p->phase);
        return;
    }
    double part = (double)p->done_bytes / (double)p->total_bytes;
    if (part > 1) part = 1; /* the total was an estimate */
    cli_format_bytes(total, sizeof total, p->total_bytes);
    if (bytes_per_s > 0 && p->done_bytes < p->total_bytes) {
        char time[16];
        format_left(time, sizeof time, (double)(p->total_bytes - p->done_bytes) / bytes_per_s);
        (void)snprintf(left, sizeof left, ", %s left", time);
    }
    if (bar) {
        int full = (int)(part * BAR_WIDTH);
        (void)snprintf(drawn, sizeof drawn, "[%.*s%*s] ", full, "########################",
                       BAR_WIDTH - full, "");
    }
    (void)snprintf(out, size, "%s: %s%3d%%  %s of %s%s%s", p->phase, drawn, (int)(part * 100), done,
                   total, rate, left);
}

/* bough_progress_fn */
static int show(const bough_progress *p, void *arg) {
    cli_progress *shown = arg;
    double now = bough_now_ms();
    bool is_new = strncmp(shown->phase, p->phase, sizeof shown->phase - 1) != 0;
    bool is_done = p->total_bytes && p->done_bytes >= p->total_bytes;
    if (is_new) {
        (void)snprintf(shown->phase, sizeof shown->phase, "%s", p->phase);
        shown->phase_began_ms = now;
        shown->phase_first_bytes = p->done_bytes;
    }
    double pause = shown->is_terminal ? REDRAW_MS : LINE_MS;
    if (shown->is_quiet ||
        (!is_new && now - shown->shown_ms < pause && !(is_done && shown->is_terminal)))
        return cli_interrupts() > 0;
    shown->shown_ms = now;
    double seconds = (now - shown->phase_began_ms) / 1000;
    uint64_t moved =
        p->done_bytes > shown->phase_first_bytes ? p->done_bytes - shown->phase_first_bytes : 0;
    char line[256];
    cli_progress_format(line, sizeof line, p, seconds > 0.2 ? (double)moved / seconds : 0,
                        shown->is_terminal);
    if (shown->is_terminal)
        (void)fprintf(stderr, "\r%s\033[K", line);
    else
        (void)fprintf(stderr, "%s\n", line);
    (void)fflush(stderr);
    return cli_interrupts() > 0;
}

void cli_progress_begin(cli_progress *progress, bough_client *client, const cli_args *args) {
    memset(progress, 0, sizeof *progress);
    const char *term = getenv("TERM");
    progress->is_terminal = isatty(STDERR_FILENO) == 1 && !(term && strcmp(term, "dumb") == 0);
    progress->is_quiet = args->json && !progress->is_terminal;
    progress->began_ms = bough_now_ms();
    bough_client_set_progress(client, show, progress);
}

void cli_progress_end(cli_progress *progress, bough_client *client) {
    bough_client_set_progress(client, NULL, NULL);
    if (progress->is_terminal && progress->shown_ms > 0) (void)fputs("\r\033[K", stderr);
}
