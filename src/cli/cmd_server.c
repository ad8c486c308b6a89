/* bough up, down, status. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bough/server.h"
#include "cli/cli.h"
#include "cli/daemon.h"
#include "util/fs.h"
#include "util/process.h"

#define DOWN_MS 180000 /* computes write a checkpoint when they stop */
#define STATUS_MS 10000
#define WAIT_OTHER_MS 5000 /* for a server that somebody else is starting */

/*
 * The key of the store was refused. Where the process of server.json is a boughd on this store, the
 * key is what is wrong; else that server is gone, and its port has become another's.
 */
static int explain_refusal(const char *store, bough_error *err) {
    bough_server *server = NULL;
    if (bough_server_find(&server, store, NULL) == BOUGH_OK &&
        bough_process_is_server((pid_t)server->pid, store)) {
        (void)bough_hint(err,
                         "\"%.100s/api_key\" was changed while process %ld runs; end that process, "
                         "then run `bough up`.",
                         store, server->pid);
        bough_server_free(server);
        return BOUGH_E_AUTH;
    }
    bough_server_free(server);
    (void)bough_fail(err, BOUGH_E_UNREACHABLE, "no server runs on store \"%s\"", store);
    (void)bough_hint(err, "Start it with `bough up`.");
    return BOUGH_E_UNREACHABLE;
}

/* Ask the store's server, if one runs, about itself. */
static int ask(bough_client **client, bough_status **status, const char *store, bough_error *err) {
    bough_client_options options = {
        .version = BOUGH_CLIENT_OPTIONS_VERSION, .store = store, .timeout_ms = STATUS_MS};
    *status = NULL;
    int rc = bough_client_open(client, &options, err);
    if (!rc) rc = bough_status_get(status, *client, err);
    return rc == BOUGH_E_AUTH ? explain_refusal(store, err) : rc;
}

/* The server's answer, completed, so that scripts find the same members whatever its version says.
 */
static json_t *status_json(const bough_status *status, const char *store) {
    json_t *value = cli_json(status->json);
    json_t *ours =
        json_pack("{s:b,s:s,s:s,s:i,s:s,s:s,s:i,s:i}", "running", 1, "version", status->version,
                  "store", *status->store ? status->store : store, "pid", (int)status->pid,
                  "api_url", status->api_url, "api_key_file", status->api_key_file, "branches",
                  (int)status->branches, "computes", (int)status->computes);
    bool is_whole = ours && value;
    const char *key;
    json_t *member;
    /* json_object_update_missing() would tell of no member that found no memory */
    json_object_foreach(value, key, member) if (is_whole && !json_object_get(ours, key)) is_whole =
        json_object_set(ours, key, member) == 0;
    json_decref(value);
    if (!is_whole) {
        json_decref(ours);
        ours = NULL;
    }
    return ours;
}

static int print_up(const cli_args *args, const bough_status *status, const char *store,
                    bool already, bough_error *err) {
    if (args->json) {
        json_t *value = status_json(status, store);
        if (value && json_object_set_new(value, "already_running", json_boolean(already)) != 0) {
            json_decref(value);
            value = NULL;
        }
        return cli_print_json(value, err);
    }
    cli_say(args, "Server %s, process %ld", already ? "was running already" : "is ready",
            status->pid);
    cli_say(args, "  store    %s", store);
    cli_say(args, "  postgres %s", status->postgres);
    cli_say(args, "  api      %s", status->api_url);
    cli_say(args, "  api key  %s", status->api_key_file);
    return BOUGH_OK;
}

/* Somebody else is starting a server on this store: wait until it answers. */
static int wait_for_other(bough_client **client, bough_status **status, const char *store) {
    double until = bough_now_ms() + WAIT_OTHER_MS;
    int rc;
    do {
        rc = ask(client, status, store, NULL);
        if (!rc) break;
        bough_client_close(*client);
        *client = NULL;
        struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
        (void)nanosleep(&pause, NULL);
    } while (bough_now_ms() < until && !cli_interrupts());
    return rc;
}

/* What of our command line boughd is given. It works in another directory, so paths are absolute.
 */
typedef struct passed_options {
    const char *list[DAEMON_OPTIONS_MAX + 1];
    size_t n;
    char cert[PATH_MAX], key[PATH_MAX];
} passed_options;

static int pass_file(passed_options *o, char *real, const char *name, const cli_args *args,
                     bough_error *err) {
    const char *path = cli_get(args, name + 2);
    if (!path) return BOUGH_OK;
    if (!realpath(path, real)) return bough_fail_sys(err, errno, "could not use \"%s\"", path);
    o->list[o->n++] = name;
    o->list[o->n++] = real;
    return BOUGH_OK;
}

static int pass_options(passed_options *o, const cli_args *args, bough_error *err) {
    static const char *const texts[] = {"--port",
                                        "--listen",
                                        "--domain",
                                        "--max-awake",
                                        "--sql-seconds",
                                        "--trusted-proxies",
                                        "--api-rate",
                                        "--api-burst",
                                        "--wakes-per-endpoint",
                                        "--wakes-per-address"};
    *o = (passed_options){.n = 0};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *value = cli_get(args, texts[i] + 2);
        if (!value) continue;
        o->list[o->n++] = texts[i];
        o->list[o->n++] = value;
    }
    if (cli_get(args, "allow-cleartext")) o->list[o->n++] = "--allow-cleartext";
    if (cli_get(args, "limit-local-key")) o->list[o->n++] = "--limit-local-key";
    int rc = pass_file(o, o->cert, "--tls-cert", args, err);
    return rc ? rc : pass_file(o, o->key, "--tls-key", args, err);
}

int cmd_up(const cli_args *args, bough_error *err) {
    char store[BOUGH_PATH_MAX];
    passed_options options;
    bough_client *client = NULL;
    bough_status *status = NULL;
    bool already = true, has_started = false;
    int rc = cli_store(store, sizeof store, args, err);
    if (!rc) rc = pass_options(&options, args, err);
    if (rc) return rc;
    rc = ask(&client, &status, store, err);
    if (rc == BOUGH_E_UNREACHABLE) {
        already = false;
        bough_client_close(client);
        client = NULL;
        rc = daemon_start(store, options.list, err);
        if (rc == BOUGH_E_BUSY || rc == BOUGH_E_CONFLICT) {
            already = wait_for_other(&client, &status, store) == BOUGH_OK;
            if (already) rc = BOUGH_OK;
        } else if (!rc) {
            has_started = true;
            rc = ask(&client, &status, store, err);
        }
    }
    if (!rc) rc = print_up(args, status, store, already, err);
    if (rc && has_started)
        (void)bough_hint(err, "The server has been started all the same; see `bough status%s`.",
                         cli_store_hint(args));
    bough_status_free(status);
    bough_client_close(client);
    return rc;
}

static int none_to_stop(const cli_args *args, const char *store, bough_error *err) {
    int computes = daemon_count_computes(store);
    if (computes && !cli_get(args, "keep-computes")) {
        (void)bough_fail(err, BOUGH_E_PRECONDITION,
                         "no server runs on store \"%s\", but %d of its computes %s", store,
                         computes, computes == 1 ? "does" : "do");
        return bough_hint(err, "Run `bough up%s`, which takes them over, then `bough down` again.",
                          cli_store_hint(args));
    }
    if (args->json)
        return cli_print_json(json_pack("{s:b,s:b,s:s,s:i}", "running", 0, "stopped", 0, "store",
                                        store, "computes", computes),
                              err);
    cli_say(args, "No server runs on store %s", store);
    return BOUGH_OK;
}

int cmd_down(const cli_args *args, bough_error *err) {
    char store[BOUGH_PATH_MAX];
    bough_client *client = NULL;
    bough_server *server = NULL;
    bough_status *status = NULL;
    bool keep = cli_get(args, "keep-computes") != NULL;
    int rc = cli_store(store, sizeof store, args, err);
    if (rc) return rc;
    rc = ask(&client, &status, store, err);
    if (rc == BOUGH_E_UNREACHABLE) {
        rc = none_to_stop(args, store, err);
        goto out;
    }
    if (!rc) rc = bough_server_find(&server, store, err);
    if (!rc) rc = bough_server_shutdown(client, !keep, err);
    if (!rc) rc = daemon_wait_gone((pid_t)server->pid, DOWN_MS, err);
    if (rc == BOUGH_E_TIMEOUT) (void)bough_hint(err, "See \"%.200s/boughd.log\".", store);
    if (rc) goto out;
    if (args->json) {
        rc = cli_print_json(json_pack("{s:b,s:b,s:s,s:i,s:i}", "running", 0, "stopped", 1, "store",
                                      store, "pid", (int)server->pid, "computes",
                                      keep ? daemon_count_computes(store) : 0),
                            err);
    } else {
        cli_say(args, "Server on store %s has stopped%s", store,
                keep ? "; its computes go on running" : "");
    }
out:
    bough_status_free(status);
    bough_server_free(server);
    bough_client_close(client);
    return rc;
}

int cmd_ca(const cli_args *args, bough_error *err) {
    char store[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX], *text = NULL;
    size_t size = 0;
    int rc = cli_store(store, sizeof store, args, err);
    if (!rc) rc = bough_path(path, sizeof path, err, "%s/tls/ca.crt", store);
    if (!rc) rc = bough_read_file(&text, &size, path, (size_t)1 << 20, err);
    if (rc == BOUGH_E_NOTFOUND) {
        (void)bough_fail(err, rc, "store \"%s\" has no certificate authority of its own", store);
        (void)bough_hint(err, "`bough up%s` makes one, unless it is given --tls-cert.",
                         cli_store_hint(args));
    }
    if (!rc && args->json)
        rc = cli_print_json(json_pack("{s:s,s:s}", "certificate", text, "file", path), err);
    else if (!rc)
        (void)fputs(text, stdout);
    free(text);
    return rc;
}

/* No server runs: the JSON on standard output says so, and the failure goes the usual way. */
static int status_without(const cli_args *args, const char *store, int code, bough_error *err) {
    int computes = daemon_count_computes(store);
    bough_error none;
    if (computes)
        (void)bough_hint(err, "Run `bough up%s`; it takes over the %d computes that still run.",
                         cli_store_hint(args), computes);
    else
        (void)bough_hint(err, "Start it with `bough up%s`.", cli_store_hint(args));
    if (!args->json) return code;
    int rc = cli_print_json(json_pack("{s:b,s:s,s:s,s:n,s:n,s:n,s:n,s:i}", "running", 0, "version",
                                      bough_version(), "store", store, "pid", "api_url",
                                      "api_key_file", "branches", "computes", computes),
                            &none);
    if (rc) *err = none;
    return rc ? rc : code;
}

static void say_limits(const cli_args *args, const json_t *status) {
    const json_t *limits = json_object_get(status, "limits");
    bool cpu = json_is_true(json_object_get(limits, "cpu"));
    bool memory = json_is_true(json_object_get(limits, "memory"));
    const char *why = json_string_value(json_object_get(limits, "why"));
    if (!limits) return; /* of an older server */
    cli_say(args, "  limits    %s%s%s%s",
            cpu && memory ? "processors and memory"
            : cpu         ? "processors"
            : memory      ? "memory"
                          : "none",
            why && *why ? " (" : "", why ? why : "", why && *why ? ")" : "");
}

int cmd_status(const cli_args *args, bough_error *err) {
    char store[BOUGH_PATH_MAX];
    bough_client *client = NULL;
    bough_status *status = NULL;
    json_t *extra = NULL;
    int rc = cli_store(store, sizeof store, args, err);
    if (rc) return rc;
    rc = ask(&client, &status, store, err);
    if (!rc) rc = cli_read_json(&extra, status->json, err);
    if (rc == BOUGH_E_UNREACHABLE) {
        rc = status_without(args, store, rc, err);
    } else if (!rc && args->json) {
        rc = cli_print_json(status_json(status, store), err);
    } else if (!rc) {
        cli_say(args, "Server %s, process %ld", status->version, status->pid);
        cli_say(args, "  store     %s", *status->store ? status->store : store);
        cli_say(args, "  postgres  %s", status->postgres);
        cli_say(args, "  api       %s", status->api_url);
        cli_say(args, "  api key   %s", status->api_key_file);
        cli_say(args, "  branches  %ld", status->branches);
        cli_say(args, "  computes  %ld running", status->computes);
        say_limits(args, extra);
        const json_t *warnings = json_object_get(extra, "warnings");
        for (size_t i = 0; i < json_array_size(warnings); i++) {
            const char *text = json_string_value(json_array_get(warnings, i));
            if (text) cli_say(args, "  warning   %s", text);
        }
    }
    json_decref(extra);
    bough_status_free(status);
    bough_client_close(client);
    return rc;
}
