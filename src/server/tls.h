/**
 * Certificates. Without one from the user, boughd makes a local certificate authority at first
 * start; it signs one for boughd's own refusals, and one for each compute, so that no compute has
 * the key of another.
 *
 *   STORE/tls/ca.key, ca.crt            the authority; the key is made once and never leaves
 *   STORE/tls/server/tls.key, tls.crt   boughd's own; or a copy of what was given, which then all
 *                                       computes present
 *   STORE/branches/ID/tls/              a compute's own
 *   STORE/branches/ID/tls-past/         for looks at the branch's past; boughd uses it, too
 *
 * They are made anew when names are missing or their time is short.
 */
#ifndef BOUGH_SERVER_TLS_H
#define BOUGH_SERVER_TLS_H

#include <openssl/ssl.h>

#include "server/server.h"

/** Read what --tls-cert and --tls-key name, as the user that we were started by. */
BOUGH_CHECK int tls_read_given(server *srv, const server_options *options, bough_error *err);

/**
 * Make the files of boughd and fill in srv->tls_cert and tls_key. At start-up.
 *
 * @param names  NULL-terminated, and borrowed for good: host names and addresses, besides those of
 * this machine.
 * @retval BOUGH_E_INVALID  What was given is no certificate, or has another key.
 */
BOUGH_CHECK int tls_open(server *srv, const char *const *names, bough_error *err);
void tls_close(server *srv);

/**
 * Let a connection that boughd itself answers show a certificate for the very name that the client
 * asked for: with boughd's own key, signed by the authority, for this connection alone. Any thread.
 *
 * @param host  In lower case.
 * @return False: it shows the one for all names, as where a certificate was given, or where the
 * name is none.
 */
bool tls_present(SSL *ssl, const server *srv, const char *host);

/** Where a compute's certificate is: files, and the directory that it must be able to read. */
typedef struct tls_files {
    char dir[BOUGH_PATH_MAX], cert[BOUGH_PATH_MAX], key[BOUGH_PATH_MAX];
} tls_files;

/** Files of a compute, as they are or will be. */
BOUGH_CHECK int tls_files_of(tls_files *files, const server *srv, const bough_branch_row *branch,
                             bough_error *err);

/** Names of looks that clients of the front door have made begin so, and with the branch's id. */
#define TLS_LOOK_PREFIX "tmp-look-br-"

/**
 * What the host name of a branch's certificate begins with: its endpoint; or for a look that
 * clients have made, the branch that it is of.
 */
const char *tls_name_of(const bough_branch_row *branch, const char *endpoint);

/** Files of all looks that clients have made of a branch: boughd has to show the same certificate
 * before it is known which one is meant (door_past.c). */
BOUGH_CHECK int tls_files_past(tls_files *files, const server *srv, const char *branch,
                               bough_error *err);

/** The same in a directory of one's own. */
BOUGH_CHECK int tls_files_in(tls_files *files, const server *srv, const char *dir,
                             bough_error *err);

/**
 * Make sure that they are there and good. Worker threads.
 * @param host  Host name of the endpoint.
 */
BOUGH_CHECK int tls_prepare(const tls_files *files, server *srv, const char *host,
                            bough_error *err);

#endif
