/* bough store usage, gc. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bough/server.h"
#include "cli/cli.h"
#include "util/error.h"

static const char *text_of(const json_t *object, const char *name, const char *otherwise) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : otherwise;
}

static long long count_of(const json_t *object, const char *name) {
    return (long long)json_integer_value(json_object_get(object, name));
}

/* "NAME", "NAME (deleted)", "ID (unfinished)" */
static void name_of(char *out, size_t size, const json_t *branch) {
    const char *kind = text_of(branch, "kind", "");
    bool is_plain = strcmp(kind, "branch") == 0;
    (void)snprintf(out, size, "%s%s%s%s",
                   text_of(branch, "name", text_of(branch, "branch_id", "?")), is_plain ? "" : " (",
                   is_plain ? "" : kind, is_plain ? "" : ")");
}

static void add_bytes(cli_table *table, const json_t *object, const char *name) {
    char text[32];
    cli_format_bytes(text, sizeof text, (uint64_t)count_of(object, name));
    cli_table_add(table, text);
}

/* ---- usage ---- */

static int print_usage(const cli_args *args, const json_t *usage, bough_error *err) {
    static const char *const headings[] = {"BRANCH", "PROJECT", ">OWN", ">HISTORY", NULL};
    static const struct {
        const char *member, *says;
    } rest[] = {{"shared_bytes", "shared by several branches"},
                {"needless_bytes", "needed by none (`bough store gc`)"},
                {"trash_bytes", "being deleted"},
                {"other_bytes", "catalogue, logs and unfinished work"},
                {"total_bytes", "in all"}};
    cli_table *table = cli_table_new(headings);
    if (!table) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    size_t i;
    const json_t *branch;
    json_array_foreach(json_object_get(usage, "branches"), i, branch) {
        char name[320];
        name_of(name, sizeof name, branch);
        cli_table_add(table, name);
        cli_table_add(table, text_of(branch, "project_id", "-"));
        add_bytes(table, branch, "own_bytes");
        add_bytes(table, branch, "history_bytes");
    }
    int rc = cli_table_print(table, err);
    cli_table_free(table);
    for (size_t k = 0; !rc && k < sizeof rest / sizeof rest[0]; k++) {
        char bytes[32];
        cli_format_bytes(bytes, sizeof bytes, (uint64_t)count_of(usage, rest[k].member));
        cli_say(args, "%12s  %s", bytes, rest[k].says);
    }
    return rc;
}

int cmd_store_usage(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    char *text = NULL;
    int rc = cli_connect(&client, args, err);
    if (!rc) rc = bough_server_usage(&text, client, err);
    json_t *usage = rc ? NULL : cli_json(text);
    if (!rc && !usage) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc)
        rc = args->json ? cli_print_json(json_incref(usage), err) : print_usage(args, usage, err);
    json_decref(usage);
    bough_server_text_free(text);
    cli_disconnect(client);
    return rc;
}

/* ---- gc ---- */

static void add_reason(char *out, size_t size, const char *fmt, ...) BOUGH_PRINTF(3, 4);
static void add_reason(char *out, size_t size, const char *fmt, ...) {
    size_t n = strlen(out);
    va_list args;
    if (n) n += (size_t)snprintf(out + n, size - n, ", ");
    if (n >= size) return;
    va_start(args, fmt);
    (void)vsnprintf(out + n, size - n, fmt, args);
    va_end(args);
}

/* Why a layer stays or goes. */
static void explain(char *out, size_t size, const json_t *layer) {
    const json_t *naming, *names = json_object_get(layer, "named_by");
    size_t i;
    out[0] = '\0';
    json_array_foreach(names, i, naming) {
        char name[320];
        long long points = count_of(naming, "restore_points"),
                  old = count_of(naming, "old_restore_points");
        if (strlen(out) > 100) {
            add_reason(out, size, "%zu more", json_array_size(names) - i);
            break;
        }
        name_of(name, sizeof name, naming);
        if (json_is_true(json_object_get(naming, "stands_on_it")))
            add_reason(out, size, "%s", name);
        if (points > old)
            add_reason(out, size, "%lld restore point%s of %s", points - old,
                       points - old == 1 ? "" : "s", name);
        if (old)
            add_reason(out, size, "%lld old restore point%s of %s", old, old == 1 ? "" : "s", name);
    }
    if (!out[0]) add_reason(out, size, "nothing names it");
}

static int print_plan(const cli_args *args, const json_t *plan, bough_error *err) {
    static const char *const headings[] = {"LAYER", ">BYTES", "STAYS", "NAMED BY", NULL};
    cli_table *table = cli_table_new(headings);
    if (!table) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    size_t i, going = 0;
    long long points = 0;
    const json_t *one;
    json_array_foreach(json_object_get(plan, "layers"), i, one) {
        char why[800];
        bool goes = json_is_true(json_object_get(one, "goes"));
        going += goes;
        explain(why, sizeof why, one);
        cli_table_add(table, text_of(one, "layer", ""));
        add_bytes(table, one, "bytes");
        cli_table_add(table, goes ? "no" : "yes");
        cli_table_add(table, why);
    }
    json_array_foreach(json_object_get(plan, "history"), i, one) points +=
        count_of(one, "old_restore_points");
    int rc = cli_table_print(table, err);
    cli_table_free(table);
    char layers[32], wal[32], trash[32];
    cli_format_bytes(layers, sizeof layers, (uint64_t)count_of(plan, "layer_bytes"));
    cli_format_bytes(wal, sizeof wal, (uint64_t)count_of(plan, "history_bytes"));
    cli_format_bytes(trash, sizeof trash, (uint64_t)count_of(plan, "trash_bytes"));
    if (!rc)
        cli_say(args,
                "Would remove %zu layers (%s), %lld restore points and their WAL (%s), and what is "
                "in the trash (%s)",
                going, layers, points, wal, trash);
    return rc;
}

static void print_done(const cli_args *args, const json_t *done) {
    char before[32], after[32];
    cli_format_bytes(before, sizeof before, (uint64_t)count_of(done, "bytes_before"));
    cli_format_bytes(after, sizeof after, (uint64_t)count_of(done, "bytes_after"));
    cli_say(args, "Removed %lld layers and %lld restore points: %s before, %s now",
            count_of(done, "layers"), count_of(done, "restore_points"), before, after);
    if (count_of(done, "busy_branches"))
        cli_say(args, "  %lld branches were in use; their old history goes in a few seconds",
                count_of(done, "busy_branches"));
}

int cmd_store_gc(const cli_args *args, bough_error *err) {
    bough_client *client = NULL;
    char *text = NULL;
    bool is_dry = cli_get(args, "dry-run") != NULL;
    int rc = cli_connect(&client, args, err);
    if (!rc) rc = bough_server_gc(&text, client, is_dry, err);
    json_t *answer = rc ? NULL : cli_json(text);
    if (!rc && !answer) rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc && args->json)
        rc = cli_print_json(json_incref(answer), err);
    else if (!rc && is_dry)
        rc = print_plan(args, answer, err);
    else if (!rc)
        print_done(args, answer);
    json_decref(answer);
    bough_server_text_free(text);
    cli_disconnect(client);
    return rc;
}
