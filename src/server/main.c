/*
 * boughd: options, user, loop, signals.
 *
 * Ending: on SIGTERM, SIGINT or POST /bough/shutdown the loop stops listening and a drain thread
 * waits for the requests under way, while the loop still carries their answers; then the loop ends
 * and main() closes.
 */
#include <errno.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/computes.h"
#include "server/door.h"
#include "server/history.h"
#include "server/http.h"
#include "server/server.h"
#include "util/log.h"

enum { DRAIN_MS = 60000, FLUSH_MS = 200, CLOCK_SECONDS = 5 };

static void print_help(void) {
    (void)puts(
        "boughd: the server of Bough, branches of PostgreSQL databases\n"
        "\n"
        "usage: boughd --store DIR [options]\n"
        "\n"
        "  --store DIR      where everything is kept; made when missing\n"
        "  --port N         TCP port on 127.0.0.1 (7117, or any free one)\n"
        "  --listen A:P     address and port for PostgreSQL's clients (127.0.0.1:5433, or a\n"
        "                   free port)\n"
        "  --domain NAME    endpoints are called ID.NAME (localhost)\n"
        "  --tls-cert FILE  certificate and its chain, PEM (one of a local CA)\n"
        "  --tls-key FILE   its key, PEM\n"
        "  --allow-cleartext  let other machines connect without TLS\n"
        "  --max-awake N    suspend unused computes where more would be awake (no limit)\n"
        "  --wakes-per-endpoint N  times a minute that clients may wake one endpoint (120)\n"
        "  --wakes-per-address N  times a minute that one address may wake any (60; when it is\n"
        "                   not given, this machine's own may wake without limit)\n"
        "  --sql-seconds N  time limit of a query over HTTP (60)\n"
        "  --preload FILE   libbough_pg.so (beside boughd)\n"
        "  --run-as USER    whom root becomes (postgres)\n"
        "  --log-json       log lines as JSON\n"
        "  --foreground     stay in the foreground; it always does\n"
        "  --ready-fd N     write a byte to this descriptor when ready\n"
        "  --version, --help\n");
}

static int read_number(int *out, const char *option, const char *text, int most, bough_error *err) {
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || end == text || *end || n < 0 || n > most)
        return bough_fail(err, BOUGH_E_USAGE, "--%s needs a number from 0 to %d, not \"%s\"",
                          option, most, text);
    *out = (int)n;
    return BOUGH_OK;
}

/* Returns BOUGH_OK; 1 when there is nothing more to do. */
static int read_options(server_options *o, int argc, char **argv, bough_error *err) {
    static const struct option list[] = {{"store", required_argument, NULL, 's'},
                                         {"port", required_argument, NULL, 'p'},
                                         {"preload", required_argument, NULL, 'l'},
                                         {"run-as", required_argument, NULL, 'u'},
                                         {"log-json", no_argument, NULL, 'j'},
                                         {"foreground", no_argument, NULL, 'f'},
                                         {"ready-fd", required_argument, NULL, 'r'},
                                         {"version", no_argument, NULL, 'v'},
                                         {"help", no_argument, NULL, 'h'},
                                         {"test-clock-file", required_argument, NULL, 'T'},
                                         {"listen", required_argument, NULL, 'a'},
                                         {"domain", required_argument, NULL, 'd'},
                                         {"tls-cert", required_argument, NULL, 'c'},
                                         {"tls-key", required_argument, NULL, 'k'},
                                         {"allow-cleartext", no_argument, NULL, 't'},
                                         {"max-awake", required_argument, NULL, 'm'},
                                         {"wakes-per-endpoint", required_argument, NULL, 'e'},
                                         {"wakes-per-address", required_argument, NULL, 'w'},
                                         {"sql-seconds", required_argument, NULL, 'q'},
                                         {NULL, 0, NULL, 0}};
    int c, rc = BOUGH_OK;
    *o = (server_options){.ready_fd = -1};
    opterr = 0;
    while (!rc && (c = getopt_long(argc, argv, ":", list, NULL)) != -1) {
        switch (c) {
        case 's':
            o->store = optarg;
            break;
        case 'p':
            rc = read_number(&o->port, "port", optarg, 65535, err);
            break;
        case 'l':
            o->preload = optarg;
            break;
        case 'u':
            o->run_as = optarg;
            break;
        case 'a':
            o->listen = optarg;
            break;
        case 'd':
            o->domain = optarg;
            break;
        case 'c':
            o->tls_cert = optarg;
            break;
        case 'k':
            o->tls_key = optarg;
            break;
        case 'm':
            rc = read_number(&o->max_awake, "max-awake", optarg, 1000000, err);
            break;
        case 'e':
            rc = read_number(&o->wakes_per_endpoint, "wakes-per-endpoint", optarg, 1000000, err);
            break;
        case 'w':
            rc = read_number(&o->wakes_per_address, "wakes-per-address", optarg, 1000000, err);
            break;
        case 'q':
            rc = read_number(&o->sql_seconds, "sql-seconds", optarg, 86400, err);
            break;
        case 't':
            o->allow_cleartext = true;
            break;
        case 'j':
            o->log_json = true;
            break;
        case 'f':
            break;
        case 'r':
            rc = read_number(&o->ready_fd, "ready-fd", optarg, 1 << 20, err);
            break;
        case 'T': /* for tests alone, and so not in the help */
            o->test_clock_file = optarg;
            break;
        case 'v':
            (void)puts("boughd " BOUGH_VERSION);
            return 1;
        case 'h':
            print_help();
            return 1;
        case ':':
            rc = bough_fail(err, BOUGH_E_USAGE, "\"%s\" needs a value", argv[optind - 1]);
            break;
        default:
            rc = bough_fail(err, BOUGH_E_USAGE, "unknown option \"%s\"", argv[optind - 1]);
            break;
        }
    }
    if (!rc && optind < argc)
        rc = bough_fail(err, BOUGH_E_USAGE, "unexpected argument \"%s\"", argv[optind]);
    if (!rc && !o->store) rc = bough_fail(err, BOUGH_E_USAGE, "--store is missing");
    if (!rc && o->store[0] != '/')
        rc = bough_fail(err, BOUGH_E_USAGE, "--store must be an absolute path");
    if (rc == BOUGH_E_USAGE) (void)bough_hint(err, "See `boughd --help`.");
    return rc;
}

/* ---- ending ---- */

static void end_loop(server *srv) {
    struct timeval soon = {.tv_usec = FLUSH_MS * 1000}; /* answers are still being written */
    (void)event_base_loopexit(srv->loop, &soon);
}

static void *drain(void *arg) {
    server *srv = arg;
    job_pool *requests = srv->requests, *longs = srv->longs, *sqls = srv->sqls;
    if (job_pool_end(requests, DRAIN_MS) == 0) srv->requests = NULL;
    if (job_pool_end(longs, DRAIN_MS) == 0) srv->longs = NULL;
    if (job_pool_end(sqls, DRAIN_MS) == 0) srv->sqls = NULL;
    end_loop(srv);
    return NULL;
}

/* Loop thread. */
static void on_stop(evutil_socket_t fd, short what, void *arg) {
    server *srv = arg;
    pthread_t thread;
    (void)fd;
    (void)what;
    if (!srv->http || atomic_exchange(&srv->stopping, true)) return;
    bough_log(BOUGH_LOG_INFO, "ending", NULL);
    http_stop_listening(srv->http);
    door_stop(srv->door);
    if (pthread_create(&thread, NULL, drain, srv) == 0)
        (void)pthread_detach(thread);
    else
        end_loop(srv);
}

static struct event *stop_event;

void server_stop(server *srv) {
    (void)srv;
    event_active(stop_event, EV_READ, 1);
}

/* ---- the clock ---- */

static atomic_bool is_suspending;

static void suspend_job(void *arg) {
    computes_suspend_idle(arg);
    history_tick(arg);
    atomic_store(&is_suspending, false);
}

static void on_clock(evutil_socket_t fd, short what, void *arg) {
    server *srv = arg;
    (void)fd;
    (void)what;
    if (atomic_load(&srv->stopping) || atomic_exchange(&is_suspending, true)) return;
    if (job_pool_add(srv->background, suspend_job, srv, NULL) != BOUGH_OK)
        atomic_store(&is_suspending, false);
}

/* ---- main ---- */

static void tell_ready(const server_options *options) {
    if (options->ready_fd < 0) return;
    (void)!write(options->ready_fd, "1", 1);
    (void)close(options->ready_fd);
}

static int make_loop(server *srv, struct event **events, bough_error *err) {
    struct timeval period = {.tv_sec = getenv("BOUGH_LEAST_SUSPEND_SECONDS") ? 1 : CLOCK_SECONDS};
    struct event_config *config = event_config_new();
    if (evthread_use_pthreads() != 0 || !config)
        return bough_fail(err, BOUGH_E_INTERNAL, "libevent has no threads");
    srv->loop = event_base_new_with_config(config);
    event_config_free(config);
    if (!srv->loop) return bough_fail(err, BOUGH_E_SYS, "could not make an event loop");
    events[0] = stop_event = event_new(srv->loop, -1, EV_PERSIST, on_stop, srv);
    events[1] = evsignal_new(srv->loop, SIGTERM, on_stop, srv);
    events[2] = evsignal_new(srv->loop, SIGINT, on_stop, srv);
    events[3] = event_new(srv->loop, -1, EV_PERSIST, on_clock, srv);
    for (int i = 0; i < 4; i++)
        if (!events[i]) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (event_add(events[1], NULL) || event_add(events[2], NULL) || event_add(events[3], &period))
        return bough_fail(err, BOUGH_E_INTERNAL, "could not watch signals");
    return BOUGH_OK;
}

static int run(const server_options *options, bough_error *err) {
    struct event *events[4] = {NULL};
    server *srv = calloc(1, sizeof *srv);
    if (!srv) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int rc = server_become_user(srv, options, err);
    if (!rc) rc = make_loop(srv, events, err);
    if (!rc) rc = server_open(srv, options, err);
    if (!rc) {
        bough_log(BOUGH_LOG_INFO, "listening", "api_url", srv->api_url, "postgres",
                  door_listens_on(srv->door), "store", srv->store_dir, "version", BOUGH_VERSION,
                  NULL);
        tell_ready(options);
        (void)event_base_dispatch(srv->loop);
    }
    server_close(srv);
    bough_log(BOUGH_LOG_INFO, "ended", NULL);
    /* what is left of libevent and `srv` goes with the process; late threads may still use them */
    for (int i = 0; i < 4; i++)
        if (events[i]) (void)event_del(events[i]);
    return rc;
}

int main(int argc, char **argv) {
    server_options options;
    bough_error err = {0};
    (void)signal(SIGPIPE, SIG_IGN);
    umask(077);
    int rc = read_options(&options, argc, argv, &err);
    if (rc == 1) return 0;
    if (!rc) {
        bough_log_init(BOUGH_LOG_INFO, options.log_json);
        if (options.ready_fd >= 0) (void)fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC);
        rc = run(&options, &err);
    }
    if (!rc) return 0;
    (void)fprintf(stderr, "boughd: error: %s\n", err.message);
    if (err.hint[0]) (void)fprintf(stderr, "boughd: hint: %s\n", err.hint);
    return bough_code_get(rc)->exit_status;
}
