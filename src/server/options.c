/* The command line of boughd, as data. No state. */
#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/server.h"
#include "util/utf8.h"

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
        "  --trusted-proxies LIST  addresses, networks and ranges, with commas between, whose\n"
        "                   X-Forwarded-For counts (nobody's)\n"
        "  --api-rate N     requests a minute of an API key (700; 0: no limit)\n"
        "  --api-burst N    requests a second of an API key on one route (40)\n"
        "  --limit-local-key  limit the key of the store's file, too\n"
        "  --preload FILE   libbough_pg.so (beside boughd)\n"
        "  --run-as USER    whom root becomes (postgres)\n"
        "  --log-json       log lines as JSON\n"
        "  --foreground     stay in the foreground; it always does\n"
        "  --ready-fd N     write a byte to this descriptor when ready\n"
        "  --version, --help\n");
}

typedef enum option_kind {
    OPTION_TEXT,   /* const char * */
    OPTION_NUMBER, /* int */
    OPTION_FLAG    /* bool */
} option_kind;

typedef struct option_entry {
    const char *name;
    option_kind kind;
    size_t offset; /* of its member of server_options */
    int least, most;
} option_entry;

#define TEXT(name, member)                                                                         \
    { name, OPTION_TEXT, offsetof(server_options, member), 0, 0 }
#define NUMBER(name, member, least, most)                                                          \
    { name, OPTION_NUMBER, offsetof(server_options, member), least, most }
#define FLAG(name, member)                                                                         \
    { name, OPTION_FLAG, offsetof(server_options, member), 0, 0 }

static const option_entry entries[] = {
    TEXT("store", store),
    NUMBER("port", port, 0, 65535),
    TEXT("listen", listen),
    TEXT("domain", domain),
    TEXT("tls-cert", tls_cert),
    TEXT("tls-key", tls_key),
    FLAG("allow-cleartext", allow_cleartext),
    NUMBER("max-awake", max_awake, 0, 1000000),
    NUMBER("wakes-per-endpoint", wakes_per_endpoint, 0, 1000000),
    NUMBER("wakes-per-address", wakes_per_address, 0, 1000000),
    NUMBER("sql-seconds", sql_seconds, 0, 86400),
    TEXT("trusted-proxies", trusted_proxies),
    NUMBER("api-rate", api_rate, 0, 1000000000),
    NUMBER("api-burst", api_burst, 1, 1000000000),
    FLAG("limit-local-key", limits_local_key),
    TEXT("preload", preload),
    TEXT("run-as", run_as),
    FLAG("log-json", log_json),
    FLAG("foreground", foreground),
    NUMBER("ready-fd", ready_fd, 0, 1 << 20),
    TEXT("test-clock-file", test_clock_file), /* for tests alone, and so not in the help */
    TEXT("test-cgroup", test_cgroup),
    NUMBER("test-point-kib", test_point_kib, 0, 1 << 30),
};
enum { N_ENTRIES = sizeof entries / sizeof entries[0], VERSION = N_ENTRIES, HELP };

static int read_number(int *out, const option_entry *e, const char *text, bough_error *err) {
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || end == text || *end || n < e->least || n > e->most)
        return bough_fail(err, BOUGH_E_USAGE, "--%s needs a number from %d to %d, not \"%s\"",
                          e->name, e->least, e->most, text);
    *out = (int)n;
    return BOUGH_OK;
}

static int take(server_options *o, const option_entry *e, const char *value, bough_error *err) {
    void *member = (char *)o + e->offset;
    const bool yes = true;
    int number = 0, rc = BOUGH_OK;
    switch (e->kind) {
    case OPTION_TEXT:
        memcpy(member, &value, sizeof value);
        break;
    case OPTION_NUMBER:
        rc = read_number(&number, e, value, err);
        if (!rc) memcpy(member, &number, sizeof number);
        break;
    case OPTION_FLAG:
        memcpy(member, &yes, sizeof yes);
        break;
    }
    return rc;
}

int server_options_read(server_options *o, int argc, char **argv, bough_error *err) {
    struct option list[N_ENTRIES + 3] = {{0}};
    int c, rc = BOUGH_OK;
    for (int i = 0; i < N_ENTRIES; i++)
        list[i] = (struct option){entries[i].name,
                                  entries[i].kind == OPTION_FLAG ? no_argument : required_argument,
                                  NULL, 256 + i};
    list[VERSION] = (struct option){"version", no_argument, NULL, 256 + VERSION};
    list[HELP] = (struct option){"help", no_argument, NULL, 256 + HELP};
    *o = (server_options){.ready_fd = -1, .api_rate = -1, .api_burst = -1};
    opterr = 0;
    while (!rc && (c = getopt_long(argc, argv, ":", list, NULL)) != -1) {
        if (c >= 256 && c < 256 + N_ENTRIES) {
            rc = take(o, &entries[c - 256], optarg, err);
        } else if (c == 256 + VERSION) {
            (void)puts("boughd " BOUGH_VERSION);
            return 1;
        } else if (c == 256 + HELP) {
            print_help();
            return 1;
        } else {
            rc = bough_fail(err, BOUGH_E_USAGE,
                            c == ':' ? "\"%s\" needs a value" : "unknown option \"%s\"",
                            argv[optind - 1]);
        }
    }
    if (!rc && optind < argc)
        rc = bough_fail(err, BOUGH_E_USAGE, "unexpected argument \"%s\"", argv[optind]);
    if (!rc && !o->store) rc = bough_fail(err, BOUGH_E_USAGE, "--store is missing");
    if (!rc && o->store[0] != '/')
        rc = bough_fail(err, BOUGH_E_USAGE, "--store must be an absolute path");
    if (!rc && !bough_utf8_is(o->store)) {
        rc =
            bough_fail(err, BOUGH_E_INVALID, "the path of store \"%.300s\" is not UTF-8", o->store);
        (void)bough_hint(err, "Name another directory with --store.");
    }
    if (rc == BOUGH_E_USAGE) (void)bough_hint(err, "See `boughd --help`.");
    return rc;
}
