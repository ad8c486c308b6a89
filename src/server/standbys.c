/* Hot standbys of branches. See standbys.h. */
#include "server/standbys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ids.h"
#include "model/rules.h"
#include "pg/pglog.h"
#include "server/computes_internal.h"
#include "server/flows.h"
#include "server/inside.h"
#include "util/log.h"
#include "util/crashpoint.h"

enum { CHECK_MS = 10000, TEST_CHECK_MS = 1000, STALLS_MOST = 3 };

/* Its name tells PostgreSQL what it is. */
static const char signal_name[] = "standby.signal";

/* The branch's own compute; NULL where that sleeps. */
static entry *primary_of(const server *srv, const char *branch) {
    entry *e = computes_get(srv, branch);
    return e && e->compute && computes_is_active(srv, branch) ? e : NULL;
}

/* Those of a branch that have a process; malloc'ed, NULL-terminated. */
static entry **list(const server *srv, const char *branch) {
    struct computes *c = srv->computes;
    size_t n = 0;
    pthread_mutex_lock(&c->mutex);
    for (const entry *e = c->first; e; e = e->next) n++;
    entry **all = calloc(n + 1, sizeof(entry *));
    n = 0;
    for (entry *e = c->first; e && all; e = e->next)
        if (e->endpoint.is_read_only && strcmp(e->branch.id, branch) == 0 && e->compute)
            all[n++] = e;
    pthread_mutex_unlock(&c->mutex);
    return all;
}

static bool has_any(const server *srv, const char *branch) {
    entry **all = list(srv, branch);
    bool has = all && *all;
    free(all);
    return has;
}

/* ---- coming in ---- */

/* Let the branch's own compute know the secret by which its standbys come in. */
static int admit(server *srv, entry *primary, bough_error *err) {
    unsigned char random[(STANDBY_SECRET_SIZE - 1) / 2];
    char secret[STANDBY_SECRET_SIZE];
    if (*primary->secret) return BOUGH_OK;
    int rc = bough_random(random, sizeof random, err);
    for (size_t i = 0; i < sizeof random; i++)
        (void)snprintf(secret + 2 * i, 3, "%02x", (unsigned)random[i]);
    if (!rc) rc = inside_admit_standby(srv, primary->endpoint.id, secret, err);
    if (!rc) memcpy(primary->secret, secret, sizeof secret);
    explicit_bzero(secret, sizeof secret);
    return rc;
}

/* WAL is kept for those that follow, or not any more: the running compute and the next one. */
static void set_followed(server *srv, const char *branch, bool is_followed) {
    bough_error err = {0};
    if (bough_store_is_followed(srv->store, branch) == is_followed) return;
    const entry *primary = primary_of(srv, branch);
    int rc = bough_store_set_followed(srv->store, branch, is_followed, &err);
    if (!rc && primary) rc = computes_reconfigure(srv, primary, &err);
    if (rc)
        bough_log(BOUGH_LOG_WARN, "could not tell a compute that it is followed", "branch", branch,
                  "error", err.message, NULL);
}

/* ---- files ---- */

static int write_signal(const char *pgdata, bough_error *err) {
    char path[BOUGH_PATH_MAX];
    int rc = bough_path(path, sizeof path, err, "%s/%s", pgdata, signal_name);
    return rc ? rc : bough_write_file(path, "", 0, 0600, err);
}

int standby_make(char ***carried, server *srv, entry *e, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    double checkpoint_ms;
    bough_fork_result forked = {.sealed = false};
    const char *home = computes_home(e);
    standby_discard(srv, e); /* an earlier server may have died in a start */
    set_followed(srv, e->branch.id, true);
    const entry *primary = primary_of(srv, e->branch.id);
    /* an earlier server's: the secret that standbys use is not known, and about to change */
    if (primary && !*primary->secret) standbys_follow(srv, e->branch.id);
    int rc = flow_fork(&forked, &checkpoint_ms, carried, srv, e->branch.id, home, err);
    if (!rc && forked.sealed) computes_sync_later(srv, &e->branch);
    BOUGH_POINT(rc, "standby.forked");
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, home, err);
    if (!rc) rc = write_signal(pgdata, err);
    return rc ? bough_context(err, "the fork of a read-only endpoint") : rc;
}

void standby_discard(server *srv, const entry *e) {
    bough_error err = {0};
    const char *home = computes_home(e);
    bool has = bough_store_has_branch(srv->store, home);
    int rc = has ? bough_store_delete(srv->store, home, &err) : BOUGH_E_NOTFOUND;
    BOUGH_POINT(rc, "standby.discarded");
    if (has && rc)
        bough_log(BOUGH_LOG_WARN, "files of a read-only endpoint remain until the next start",
                  "endpoint", home, "error", err.message, NULL);
    if (has) flow_purge_later(srv);
    if (!has_any(srv, e->branch.id)) set_followed(srv, e->branch.id, false);
}

void standby_explain(server *srv, const entry *e) {
    char path[BOUGH_PATH_MAX], line[384], hint[384];
    int code;
    if (bough_path(path, sizeof path, NULL, "%s/branches/%s/postgres.log", srv->store_dir,
                   computes_home(e)) == BOUGH_OK &&
        bough_pglog_failure(line, sizeof line, hint, sizeof hint, &code, path, 0) == 0)
        bough_log(BOUGH_LOG_WARN, "a read-only compute said at last", "endpoint", e->endpoint.id,
                  "line", line, NULL);
}

/* ---- configuration ---- */

/* For a connection string (libpq, "Keyword/Value Connection Strings"). */
static void add_quoted(char *out, size_t size, const char *text) {
    size_t n = strlen(out);
    if (n + 1 < size) out[n++] = '\'';
    for (; *text && n + 3 < size; text++) {
        if (*text == '\'' || *text == '\\') out[n++] = '\\';
        out[n++] = *text;
    }
    if (n + 1 < size) out[n++] = '\'';
    out[n] = '\0';
}

static int write_primary(char *out, size_t size, const server *srv, const entry *primary,
                         bough_error *err) {
    char socket_dir[BOUGH_PATH_MAX];
    int rc = computes_socket_dir(socket_dir, srv, primary->endpoint.id, err);
    if (rc) return rc;
    (void)snprintf(out, size,
                   "port=5432 user=" BOUGH_STANDBY_ROLE " password=%s"
                   " sslmode=disable gssencmode=disable connect_timeout=10 host=",
                   primary->secret);
    add_quoted(out, size, socket_dir);
    return BOUGH_OK;
}

/* A command for the shell that copies a segment from the branch's history. */
static int write_restore(char *out, size_t size, const server *srv, const char *branch,
                         bough_error *err) {
    char dir[BOUGH_PATH_MAX];
    int rc = bough_path(dir, sizeof dir, err, "%s/branches/%s/history", srv->store_dir, branch);
    size_t n = (size_t)snprintf(out, size, "cp '");
    for (const char *p = dir; !rc && *p; p++) {
        const char *piece = *p == '\'' ? "'\\''" : *p == '%' ? "%%" : NULL;
        if (n + 32 > size) rc = bough_fail(err, BOUGH_E_INVALID, "the path of the store is long");
        if (!rc && piece)
            n += (size_t)snprintf(out + n, size - n, "%s", piece);
        else if (!rc)
            out[n++] = *p;
    }
    if (!rc) (void)snprintf(out + n, size - n, "/%%f' \"%%p\" 2>/dev/null");
    return rc;
}

int standby_configure(bough_conf *conf, standby_conf *texts, server *srv, const entry *e,
                      bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    entry *primary = primary_of(srv, e->branch.id);
    int rc = primary ? admit(srv, primary, err) : BOUGH_OK;
    texts->primary[0] = '\0';
    if (!rc && primary)
        rc = write_primary(texts->primary, sizeof texts->primary, srv, primary, err);
    if (!rc) rc = write_restore(texts->restore, sizeof texts->restore, srv, e->branch.id, err);
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, e->branch.id, err);
    if (!rc) rc = bough_conf_connections(&conf->least_connections, pgdata, err);
    conf->hold_wal = false; /* what it has is thrown away with it */
    conf->primary = texts->primary;
    conf->restore = texts->restore;
    return rc;
}

/* ---- following ---- */

static int needed_and_had(int *needed, int *had, server *srv, const entry *e, bough_error *err) {
    char pgdata[BOUGH_PATH_MAX];
    int rc = bough_store_pgdata(pgdata, srv->store, e->branch.id, err);
    if (!rc) rc = bough_conf_connections(needed, pgdata, err);
    if (!rc) rc = bough_store_pgdata(pgdata, srv->store, computes_home(e), err);
    return rc ? rc : bough_conf_connections(had, pgdata, err);
}

/* Recovery would pause where the branch's compute may have more connections than its standby. */
static int follow_one(server *srv, const entry *e, bough_error *err) {
    int needed = 0, had = 0;
    int rc = needed_and_had(&needed, &had, srv, e, err);
    if (!rc && needed > had)
        return computes_stop(srv, computes_home(e), false, "its branch's compute has become larger",
                             err);
    return rc ? rc : computes_reconfigure(srv, e, err);
}

void standbys_follow(server *srv, const char *branch) {
    if (!bough_store_is_followed(srv->store, branch)) return;
    entry **all = list(srv, branch);
    for (size_t i = 0; all && all[i]; i++) {
        bough_error err = {0};
        if (bough_compute_running(all[i]->compute) && follow_one(srv, all[i], &err) != BOUGH_OK)
            bough_log(BOUGH_LOG_WARN, "could not tell a compute whom to follow", "endpoint",
                      all[i]->endpoint.id, "error", err.message, NULL);
    }
    free(all);
}

int standbys_end(server *srv, const char *branch, const char *cause, bough_error *err) {
    entry **all = list(srv, branch);
    int rc = all ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && all[i]; i++)
        rc = computes_stop(srv, computes_home(all[i]), false, cause, err);
    free(all);
    return rc;
}

void standbys_remove(server *srv, const char *branch) {
    bough_endpoint_row *rows = NULL;
    char socket_dir[BOUGH_PATH_MAX];
    size_t n = 0;
    bough_error err = {0};
    int rc = standbys_end(srv, branch, "its branch was deleted", &err);
    if (!rc) rc = bough_endpoints_list_reading(&rows, &n, srv->cat, branch, &err);
    for (size_t i = 0; !rc && i < n; i++) {
        rc = computes_socket_dir(socket_dir, srv, rows[i].id, &err);
        if (!rc) rc = bough_rmtree(socket_dir, &err);
    }
    free(rows);
    if (rc)
        bough_log(BOUGH_LOG_WARN, "what a read-only endpoint had remains until the next start",
                  "branch", branch, "error", err.message, NULL);
}

void standbys_settle(server *srv, const char *branch) {
    if (!bough_store_is_followed(srv->store, branch)) return;
    if (!has_any(srv, branch))
        set_followed(srv, branch, false);
    else if (!primary_of(srv, branch)) /* else they know it */
        standbys_follow(srv, branch);
}

/* ---- looking after them ---- */

bool standby_is_due(const server *srv, const entry *e) {
    bool is_test = srv->least_suspend_seconds < BOUGH_SUSPEND_LEAST_SECONDS; /* which cannot wait */
    pthread_mutex_lock(&srv->computes->mutex);
    bool is_due = e->endpoint.is_read_only && e->is_active &&
                  bough_now_epoch_ms() - e->checked_ms >= (is_test ? TEST_CHECK_MS : CHECK_MS);
    pthread_mutex_unlock(&srv->computes->mutex);
    return is_due;
}

void standby_check(server *srv, entry *e) {
    bool follows = true;
    bough_error err = {0};
    if (!standby_is_due(srv, e)) return;
    pthread_mutex_lock(&srv->computes->mutex);
    e->checked_ms = bough_now_epoch_ms();
    pthread_mutex_unlock(&srv->computes->mutex);
    if (primary_of(srv, e->branch.id) &&
        inside_follows(&follows, srv, e->endpoint.id, &err) != BOUGH_OK)
        follows = false;
    e->stalls = follows ? 0 : e->stalls + 1;
    if (e->stalls < STALLS_MOST) return;
    e->stalls = 0;
    bough_log(BOUGH_LOG_WARN, "a read-only compute did not follow its branch", "endpoint",
              e->endpoint.id, NULL);
    standby_explain(srv, e);
    if (computes_stop(srv, computes_home(e), false, "it could not follow its branch", &err) !=
        BOUGH_OK)
        bough_log(BOUGH_LOG_WARN, "could not stop a compute", "endpoint", e->endpoint.id, "error",
                  err.message, NULL);
}
