/* The superuser through which Bough speaks to its computes. See admin.h. */
#include "pg/admin.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pg/conf.h"
#include "pg/landlock.h"
#include "pg/tool.h"
#include "util/error.h"
#include "util/fs.h"

enum { HASH = 32, SALT = 16, ITERATIONS = 1, PASSWORD_MAX = 128, VERIFIER_MAX = 256 };

static char admin_password[PASSWORD_MAX];

int bough_admin_open(const char *path, bough_error *err) {
    char *text = NULL;
    size_t n = 0;
    int rc = bough_read_file(&text, &n, path, PASSWORD_MAX, err);
    if (rc == BOUGH_OK) {
        text[strcspn(text, "\n")] = '\0';
        if (strlen(text) < 32)
            rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" does not hold a password", path);
        (void)snprintf(admin_password, sizeof admin_password, "%s", text);
        free(text);
        return rc;
    }
    if (rc != BOUGH_E_NOTFOUND) return rc;
    rc = bough_admin_make_password(admin_password, err);
    return rc ? rc : bough_write_file(path, admin_password, strlen(admin_password), 0600, err);
}

int bough_admin_make_password(char *out, bough_error *err) {
    unsigned char random[(BOUGH_ADMIN_PASSWORD_SIZE - 1) / 2];
    if (RAND_bytes(random, sizeof random) != 1)
        return bough_fail(err, BOUGH_E_INTERNAL, "no random bytes");
    for (size_t i = 0; i < sizeof random; i++) (void)snprintf(out + 2 * i, 3, "%02x", random[i]);
    return BOUGH_OK;
}

const char *bough_admin_password(void) {
    return admin_password;
}

/* RFC 5802, section 3, with SHA-256; stored as in PostgreSQL's libpq/auth-scram.c. */
static int make_verifier(char *out, size_t size, const char *password, bough_error *err) {
    unsigned char salt[SALT], salted[HASH], client[HASH], stored[HASH], server[HASH];
    char salt64[SALT * 2], stored64[HASH * 2], server64[HASH * 2];
    unsigned n = 0;
    int length = (int)strlen(password);
    if (RAND_bytes(salt, sizeof salt) != 1 ||
        PKCS5_PBKDF2_HMAC(password, length, salt, sizeof salt, ITERATIONS, EVP_sha256(), HASH,
                          salted) != 1 ||
        !HMAC(EVP_sha256(), salted, HASH, (const unsigned char *)"Client Key", 10, client, &n) ||
        !HMAC(EVP_sha256(), salted, HASH, (const unsigned char *)"Server Key", 10, server, &n) ||
        EVP_Digest(client, HASH, stored, &n, EVP_sha256(), NULL) != 1)
        return bough_fail(err, BOUGH_E_INTERNAL, "could not compute a password verifier");
    (void)EVP_EncodeBlock((unsigned char *)salt64, salt, SALT);
    (void)EVP_EncodeBlock((unsigned char *)stored64, stored, HASH);
    (void)EVP_EncodeBlock((unsigned char *)server64, server, HASH);
    return bough_path(out, size, err, "SCRAM-SHA-256$%d:%s$%s:%s", ITERATIONS, salt64, stored64,
                      server64);
}

int bough_admin_verifier(char *out, size_t size, bough_error *err) {
    return make_verifier(out, size, admin_password, err);
}

typedef struct single {
    char sql[1024];
    const char *rest; /* what the backend is still to read */
    bough_words words;
    const bough_admin_spec *spec;
} single;

static ssize_t feed(void *context, char *buffer, size_t room, bough_error *err) {
    (void)err;
    single *s = context;
    size_t n = strlen(s->rest);
    if (n > room) n = room;
    memcpy(buffer, s->rest, n);
    s->rest += n;
    return (ssize_t)n;
}

static void take_line(void *context, const char *line) {
    single *s = context;
    if (strstr(line, "already exists")) return; /* the source is a branch of ours, or was one */
    bough_words_take(&s->words, line);
}

static int tick_of(void *context, pid_t pid) {
    const bough_admin_spec *spec = ((single *)context)->spec;
    return spec->tick ? spec->tick(spec->context, pid) : 0;
}

int bough_admin_install(const bough_admin_spec *spec, bough_error *err) {
    bough_env env;
    char program[BOUGH_PATH_MAX], secret[VERIFIER_MAX];
    int ruleset = -1, status = 0;
    single s = {.spec = spec};
    const char *bindir = spec->pg->bindir;
    int rc =
        make_verifier(secret, sizeof secret, spec->password ? spec->password : admin_password, err);
    if (!rc) rc = bough_path(program, sizeof program, err, "%s/postgres", bindir);
    const char *const rw[] = {spec->pgdata, spec->scratch, NULL};
    bough_landlock_rules rules = {.bindir = bindir, .rw = rw};
    if (!rc) rc = bough_landlock_prepare(&ruleset, &rules, err);
    if (rc) return rc;
    bough_env_init(&env, bindir);
    /* initdb chose POSIX shared memory, which Landlock refuses; messages are matched below; and
     * what the source is configured to be is not for this session */
    const char *const argv[] = {program,
                                "--single",
                                "-D",
                                spec->pgdata,
                                "-F",
                                "-c",
                                "dynamic_shared_memory_type=mmap",
                                "-c",
                                "lc_messages=C",
                                "-c",
                                "default_transaction_read_only=off",
                                "-c",
                                "statement_timeout=0",
                                spec->database,
                                NULL};
    (void)snprintf(
        s.sql, sizeof s.sql,
        "CREATE ROLE " BOUGH_ADMIN_ROLE ";\n"
        "ALTER ROLE " BOUGH_ADMIN_ROLE " SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS LOGIN"
        " CONNECTION LIMIT -1 PASSWORD '%s' VALID UNTIL 'infinity';\n"
        "ALTER ROLE " BOUGH_ADMIN_ROLE " RESET ALL;\n%s",
        secret,
        /* PgBouncer asks as this role, and cannot say so when it connects */
        spec->pg->major >= 17 ? "ALTER ROLE " BOUGH_ADMIN_ROLE " SET event_triggers = off;\n" : "");
    s.rest = s.sql;
    bough_run run = {.argv = argv,
                     .env = &env,
                     .ruleset = ruleset,
                     .context = &s,
                     .feed = feed,
                     .line = take_line,
                     .tick = tick_of};
    rc = bough_run_tool(&status, &run, err);
    if (!rc && (status != 0 || s.words.error[0]))
        rc = bough_words_fail(&s.words, BOUGH_E_PG, "postgres --single", status, err);
    if (ruleset >= 0) close(ruleset);
    return rc;
}
