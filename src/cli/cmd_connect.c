/* bough psql, cs, operation. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bough/branch.h"
#include "bough/endpoint.h"
#include "bough/operation.h"
#include "cli/cli.h"
#include "cli/moment.h"
#include "cli/uri.h"
#include "util/error.h"

enum { LOOK_SIZE = 64 }; /* of an id */

/* BRANCH@MOMENT: a look at the moment. A branch that is called so goes first. */
static int make_look(bough_branch **look, bough_client *client, const char *project,
                     const char *text, bough_error *err) {
    char name[1100], moment[64];
    const char *at = strrchr(text, '@');
    bough_branch *parent = NULL;
    bough_branch_created *created = NULL;
    int rc = cli_moment(moment, sizeof moment, at + 1, err);
    (void)snprintf(name, sizeof name, "%.*s", (int)(at - text), text);
    if (!rc) rc = bough_branch_find(&parent, client, project, *name ? name : NULL, err);
    if (!rc) {
        bough_branch_options options = {
            .version = 1, .parent = parent->id, .moment = moment, .is_look = 1};
        rc = bough_branch_create_with(&created, client, project, &options, err);
    }
    if (!rc) rc = bough_branch_find(look, client, project, created->branch->id, err);
    bough_branch_created_free(created);
    bough_branch_free(parent);
    return rc;
}

/* The branch that a command line means. */
static int get_branch(bough_branch **branch, bool *is_look, bough_client *client,
                      const char *project, const cli_args *args, bough_error *err) {
    const char *text = cli_word_get(args, 0);
    int rc = bough_branch_find(branch, client, project, text, err);
    *is_look = rc == BOUGH_E_NOTFOUND && text && strchr(text, '@');
    if (*is_look && (cli_get(args, "endpoint") || cli_get(args, "endpoint-type")))
        return bough_fail(err, BOUGH_E_USAGE,
                          "a moment of the past has one endpoint: --endpoint and --endpoint-type "
                          "are for branches");
    return *is_look ? make_look(branch, client, project, text, err) : rc;
}

/* --endpoint-type and --endpoint: which endpoint of the branch; `id` stays "" for the one that
 * writes. */
static int choose_endpoint(char *id, size_t size, bough_client *client, const char *project,
                           const bough_branch *branch, const cli_args *args, bough_error *err) {
    const char *type = cli_get(args, "endpoint-type"), *wanted = cli_get(args, "endpoint");
    bough_endpoint_list *list = NULL;
    *id = '\0';
    if (type && strcmp(type, "read_only") != 0 && strcmp(type, "read_write") != 0)
        return bough_fail(err, BOUGH_E_USAGE,
                          "--endpoint-type is read_only or read_write, not \"%.60s\"", type);
    if (!wanted && (!type || strcmp(type, "read_write") == 0)) return BOUGH_OK;
    int rc = bough_endpoint_get_all(&list, client, project, err);
    for (size_t i = 0; !rc && i < list->count && !*id; i++) {
        const bough_endpoint *e = list->items[i];
        if (strcmp(e->branch_id, branch->id) == 0 && (!type || strcmp(e->type, type) == 0) &&
            (!wanted || strcmp(e->id, wanted) == 0))
            (void)snprintf(id, size, "%s", e->id);
    }
    bough_endpoint_list_free(list);
    if (rc || *id) return rc;
    if (wanted)
        return bough_fail(err, BOUGH_E_NOTFOUND, "branch \"%s\" has no endpoint \"%.60s\"",
                          branch->name, wanted);
    (void)bough_fail(err, BOUGH_E_NOTFOUND, "branch \"%s\" has no read-only endpoint",
                     branch->name);
    return bough_hint(err, "Make one: bough endpoint create %.200s --type read_only", branch->name);
}

/*
 * The URI and the name of the branch that a command line means; both are the caller's to free.
 * @param look  Of LOOK_SIZE: the id of a look that was made for it, or "".
 */
static int get_uri(char **uri, char **branch_name, char *look, const cli_args *args,
                   bough_error *err) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch *branch = NULL;
    bool is_look = false;
    char endpoint[LOOK_SIZE] = "";
    bough_uri_options options = {.version = 1,
                                 .database = cli_get(args, "database"),
                                 .role = cli_get(args, "role"),
                                 .by_socket = cli_get(args, "socket") != NULL,
                                 .is_pooled = cli_get(args, "pooled") != NULL};
    *uri = *branch_name = NULL;
    if (cli_get(args, "socket") && cli_get(args, "pooled"))
        return bough_fail(err, BOUGH_E_USAGE, "--socket and --pooled exclude each other");
    int rc = cli_connect_project(&client, &project, args, err);
    if (!rc) rc = get_branch(&branch, &is_look, client, project->id, args, err);
    (void)snprintf(look, LOOK_SIZE, "%s", !rc && is_look ? branch->id : "");
    if (!rc)
        rc = choose_endpoint(endpoint, sizeof endpoint, client, project->id, branch, args, err);
    if (!rc) {
        options.branch = branch->id;
        options.endpoint = *endpoint ? endpoint : NULL;
        rc = bough_uri_get_with(uri, client, project->id, &options, err);
    }
    if (!rc && !(*branch_name = strdup(branch->name)))
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    bough_branch_free(branch);
    bough_project_free(project);
    cli_disconnect(client);
    if (rc) {
        bough_uri_free(*uri);
        *uri = NULL;
    }
    return rc;
}

/* Replace this process by psql. Returns only on failure. */
static int exec_psql(const char *uri, const cli_args *args, bough_error *err) {
    char *bare = NULL, *password = NULL, **argv = NULL;
    int rc = uri_split(&bare, &password, uri, err);
    if (rc) goto out;
    argv = calloc((size_t)args->n_rest + 4, sizeof *argv);
    if (!argv) {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        goto out;
    }
    static char program[] = "psql", dbname[] = "--dbname";
    int argc = 0;
    argv[argc++] = program;
    argv[argc++] = dbname;
    argv[argc++] = bare;
    for (int i = 0; i < args->n_rest; i++) argv[argc++] = args->rest[i];
    /* what of the environment would lead elsewhere */
    static const char *const misleading[] = {
        "PGHOSTADDR",    "PGSERVICE",        "PGSERVICEFILE",    "PGPASSFILE",
        "PGOPTIONS",     "PGREQUIREPEER",    "PGREQUIREAUTH",    "PGLOADBALANCEHOSTS",
        "PGSSLMODE",     "PGSSLNEGOTIATION", "PGCHANNELBINDING", "PGREQUIRESSL",
        "PGSSLROOTCERT", "PGSSLSNI",         "PGGSSENCMODE",     "PGTARGETSESSIONATTRS"};
    for (size_t i = 0; i < sizeof misleading / sizeof misleading[0]; i++)
        (void)unsetenv(misleading[i]);
    if (password ? setenv("PGPASSWORD", password, 1) : unsetenv("PGPASSWORD")) {
        rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
        goto out;
    }
    (void)fflush(stdout);
    (void)signal(SIGPIPE, SIG_DFL);
    execvp(program, argv);
    if (errno == ENOENT) {
        rc = bough_fail(err, BOUGH_E_NOTFOUND, "psql is not installed");
        (void)bough_hint(err, "Install the package postgresql-client.");
    } else {
        rc = bough_fail_sys(err, errno, "could not execute psql");
    }
out:
    if (password) explicit_bzero(password, strlen(password));
    free(password);
    free(bare);
    free(argv);
    return rc;
}

/* Not needed any more. Where this fails, it goes when nobody has used it for a while. */
static void remove_look(const cli_args *args, const char *look) {
    bough_client *client = NULL;
    bough_project *project = NULL;
    if (cli_connect_project(&client, &project, args, NULL) == BOUGH_OK)
        bough_ignore(bough_branch_purge(client, project->id, look, NULL));
    bough_project_free(project);
    cli_disconnect(client);
}

static volatile sig_atomic_t psql_pid;

static void on_end(int signal_number) {
    if (psql_pid > 0) (void)kill((pid_t)psql_pid, signal_number);
}

/* Wait for psql; what would end us ends psql first. Gives its exit status. */
static int run_psql(int *status, const char *uri, const cli_args *args, bough_error *err) {
    (void)fflush(stdout);
    (void)signal(SIGINT, SIG_IGN); /* Ctrl-C is psql's */
    pid_t pid = fork();
    if (pid < 0) return bough_fail_sys(err, errno, "could not start psql");
    if (pid == 0) {
        (void)signal(SIGINT, SIG_DFL);
        (void)signal(SIGTERM, SIG_DFL);
        int rc = exec_psql(uri, args, err);
        cli_print_error(err, args->json);
        (void)fflush(stdout);
        _exit(bough_code_get(rc)->exit_status);
    }
    struct sigaction action = {.sa_handler = on_end};
    psql_pid = pid;
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
    int ended;
    while (waitpid(pid, &ended, 0) < 0)
        if (errno != EINTR) return bough_fail_sys(err, errno, "could not wait for psql");
    *status = WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
    return BOUGH_OK;
}

int cmd_psql(const cli_args *args, bough_error *err) {
    char *uri = NULL, *name = NULL, look[LOOK_SIZE];
    int status = 0;
    int rc = get_uri(&uri, &name, look, args, err);
    if (!rc && *look) {
        rc = run_psql(&status, uri, args, err);
        remove_look(args, look);
    } else if (!rc) {
        rc = exec_psql(uri, args, err);
    }
    bough_uri_free(uri);
    free(name);
    if (!rc && *look) exit(status); /* psql's */
    return rc;
}

int cmd_cs(const cli_args *args, bough_error *err) {
    char *uri = NULL, *name = NULL, look[LOOK_SIZE];
    int rc = get_uri(&uri, &name, look, args, err);
    if (!rc && args->json)
        rc = cli_print_json(json_pack("{s:s,s:s}", "branch", name, "connection_uri", uri), err);
    else if (!rc)
        cli_say(args, "%s", uri);
    bough_uri_free(uri);
    free(name);
    return rc;
}

int cmd_operation_list(const cli_args *args, bough_error *err) {
    static const char *const headings[] = {"CREATED", "ACTION", "STATUS", "BRANCH",
                                           ">TOOK",   "ID",     "ERROR",  NULL};
    bough_client *client = NULL;
    bough_project *project = NULL;
    bough_branch_list *branches = NULL;
    bough_operation_list *list = NULL;
    cli_table *table = cli_table_new(headings);
    json_t *all = json_array();
    int rc = table && all ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    if (!rc) rc = cli_connect_project(&client, &project, args, err);
    if (!rc)
        rc = bough_operation_get_newest(&list, client, project->id,
                                        cli_get_number(args, "limit", 50), err);
    if (!rc) rc = bough_branch_get_all(&branches, client, project->id, err);
    for (size_t i = 0; !rc && i < list->count; i++) {
        const bough_operation *o = list->items[i];
        if (args->json) {
            if (json_array_append_new(all, cli_json(o->json)) != 0)
                rc = bough_fail(err, BOUGH_E_NOMEM, "out of memory");
            continue;
        }
        char created[40], took[32];
        cli_format_time(created, sizeof created, o->created_at);
        cli_format_ms(took, sizeof took, o->duration_ms);
        const char *cells[] = {
            created, o->action, o->status, cli_branch_name(branches, o->branch_id),
            took,    o->id,     o->failure};
        for (size_t k = 0; k < sizeof cells / sizeof cells[0]; k++)
            cli_table_add(table, *cells[k] ? cells[k] : "-");
    }
    if (!rc) rc = args->json ? cli_print_json(json_incref(all), err) : cli_table_print(table, err);
    json_decref(all);
    cli_table_free(table);
    bough_operation_list_free(list);
    bough_branch_list_free(branches);
    bough_project_free(project);
    cli_disconnect(client);
    return rc;
}
