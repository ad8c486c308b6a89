/* What tools said, and subscriptions. */
#include "pg/tool.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "pg/pglog.h"
#include "pg/sql.h"
#include "util/error.h"

/* "pg_restore: error: could not execute query: ERROR:  ..." gives what follows the last known mark.
 */
static const char *without_prefix(const char *line) {
    const char *at = bough_pglog_message(line);
    if (at) return at;
    at = strstr(line, "error: ");
    return at ? at + 7 : NULL;
}

void bough_words_take(bough_words *words, const char *line) {
    const char *message = without_prefix(line);
    if (message && !words->error[0]) bough_one_line(words->error, sizeof words->error, message);
    bough_one_line(words->last, sizeof words->last, line);
}

int bough_words_fail(const bough_words *words, int code, const char *tool, int status,
                     bough_error *err) {
    const char *said = words->error[0] ? words->error : words->last;
    code = bough_pglog_code(said, code);
    if (said[0])
        (void)bough_fail(err, code, "%s failed: %s", tool, said);
    else if (WIFSIGNALED(status))
        (void)bough_fail(err, code, "%s was ended by signal %d", tool, WTERMSIG(status));
    else
        (void)bough_fail(err, code, "%s failed with status %d", tool, WEXITSTATUS(status));
    if (code == BOUGH_E_NOSPACE)
        (void)bough_hint(err, "Free space on that file system, then retry.");
    return code;
}

/* First point it nowhere: dropping one that is still copying tables would otherwise speak to the
 * publisher. */
static int drop_one(PGconn *conn, const char *name, bough_error *err) {
    static const char *const steps[] = {
        "ALTER SUBSCRIPTION %s DISABLE",
        "ALTER SUBSCRIPTION %s CONNECTION 'host=/nonexistent password=none dbname=none'",
        "ALTER SUBSCRIPTION %s SET (slot_name = NONE)",
        "DROP SUBSCRIPTION %s",
    };
    char quoted[512], sql[1024];
    PGresult *silenced = NULL;
    int rc = bough_sql_ident(quoted, sizeof quoted, conn, name, err);
    if (!rc) rc = bough_sql_begin_ddl(&silenced, conn, err);
    for (size_t i = 0; !rc && i < sizeof steps / sizeof *steps; i++) {
        const char *mark = strstr(steps[i], "%s");
        (void)snprintf(sql, sizeof sql, "%.*s%s%s", (int)(mark - steps[i]), steps[i], quoted,
                       mark + 2);
        rc = bough_sql_exec(conn, sql, err);
    }
    rc = bough_sql_end_ddl(silenced, conn, rc, err);
    if (rc) rc = bough_context(err, "could not drop subscription %s", quoted);
    return rc;
}

int bough_drop_subscriptions(PGconn *conn, bough_error *err) {
    PGresult *found = NULL;
    int rc = bough_sql_query(&found, conn,
                             "SELECT subname FROM pg_subscription WHERE subdbid = "
                             "(SELECT oid FROM pg_database WHERE datname = current_database())",
                             0, NULL, err);
    for (int i = 0; !rc && i < PQntuples(found); i++)
        rc = drop_one(conn, PQgetvalue(found, i, 0), err);
    PQclear(found);
    return rc;
}
