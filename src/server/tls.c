/* Certificates: X.509 v3, keys on P-256, by OpenSSL. */
#include "server/tls.h"

#include <pthread.h>

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util/log.h"

struct tls_authority {
    EVP_PKEY *key;
    X509 *cert;
    const char *const *names;
};

enum {
    CA_DAYS = 3650,
    SERVER_DAYS = 1825,
    RENEW_DAYS = 90,
    MOMENT_DAYS = 2,
    PEM_MAX = 1 << 20,
    NAMES_TEXT = 2048
};

/* Names by which a machine calls itself. */
static const char *const own_names[] = {"localhost", "*.localhost", "127.0.0.1", "::1"};

static int fail_openssl(bough_error *err, const char *what) {
    char reason[160] = "unknown";
    unsigned long code = ERR_get_error();
    if (code) ERR_error_string_n(code, reason, sizeof reason);
    ERR_clear_error();
    return bough_fail(err, BOUGH_E_INTERNAL, "could not %s: %s", what, reason);
}

/* ---- PEM files ---- */

/* Replace a file. Without `durable`, a power cut may spoil it: then it is made anew. */
static int write_pem(BIO *bio, const char *path, bool durable, bough_error *err) {
    char *data = NULL;
    size_t size = (size_t)BIO_get_mem_data(bio, &data);
    return (durable ? bough_write_file : bough_replace_file)(path, data, size, 0600, err);
}

static int write_key(EVP_PKEY *key, const char *path, bool durable, bough_error *err) {
    BIO *bio = BIO_new(BIO_s_secmem());
    int rc = bio && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1
                 ? write_pem(bio, path, durable, err)
                 : fail_openssl(err, "write a key");
    BIO_free(bio);
    return rc;
}

static int write_certificates(X509 *first, X509 *second, const char *path, bool durable,
                              bough_error *err) {
    BIO *bio = BIO_new(BIO_s_mem());
    bool ok = bio && PEM_write_bio_X509(bio, first) == 1 &&
              (!second || PEM_write_bio_X509(bio, second) == 1);
    int rc = ok ? write_pem(bio, path, durable, err) : fail_openssl(err, "write a certificate");
    BIO_free(bio);
    return rc;
}

/* A key and its certificate out of texts; each may be NULL afterwards. */
static void parse_pair(EVP_PKEY **key, X509 **cert, const char *key_text, const char *cert_text) {
    BIO *bio = BIO_new_mem_buf(key_text, -1);
    *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    bio = BIO_new_mem_buf(cert_text, -1);
    *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
}

/* A key and its certificate out of files. Both are NULL where they are missing or no pair. */
static void read_pair(EVP_PKEY **key, X509 **cert, const char *key_path, const char *cert_path) {
    char *key_text = NULL, *cert_text = NULL;
    size_t key_size = 0, cert_size = 0;
    *key = NULL;
    *cert = NULL;
    if (bough_read_file(&key_text, &key_size, key_path, PEM_MAX, NULL) == BOUGH_OK &&
        bough_read_file(&cert_text, &cert_size, cert_path, PEM_MAX, NULL) == BOUGH_OK)
        parse_pair(key, cert, key_text, cert_text);
    if (key_text) explicit_bzero(key_text, key_size);
    free(key_text);
    free(cert_text);
    if (*key && *cert && X509_check_private_key(*cert, *key) == 1) return;
    ERR_clear_error();
    EVP_PKEY_free(*key);
    X509_free(*cert);
    *key = NULL;
    *cert = NULL;
}

/* ---- making certificates ---- */

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool ok = extension && X509_add_ext(cert, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

static bool set_serial(X509 *cert) {
    unsigned char bytes[16];
    if (RAND_bytes(bytes, (int)sizeof bytes) != 1) return false;
    bytes[0] &= 0x7f; /* positive */
    BIGNUM *number = BN_bin2bn(bytes, (int)sizeof bytes, NULL);
    bool ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
    BN_free(number);
    return ok;
}

/* Version, serial, validity, subject, key. Valid since yesterday: clocks differ. */
static X509 *begin_certificate(EVP_PKEY *key, const char *common_name, int days) {
    X509 *cert = X509_new();
    X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;
    bool ok = name && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
              X509_gmtime_adj(X509_getm_notBefore(cert), -86400) &&
              X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL) &&
              X509_set_pubkey(cert, key) == 1 &&
              X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"Bough",
                                         -1, -1, 0) == 1 &&
              X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                         (const unsigned char *)common_name, -1, -1, 0) == 1;
    if (ok) return cert;
    X509_free(cert);
    return NULL;
}

static int make_authority(EVP_PKEY **key, X509 **cert, bough_error *err) {
    *key = EVP_EC_gen("P-256");
    *cert = *key ? begin_certificate(*key, "Bough local CA", CA_DAYS) : NULL;
    bool ok = *cert && X509_set_issuer_name(*cert, X509_get_subject_name(*cert)) == 1 &&
              add_extension(*cert, *cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
              add_extension(*cert, *cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
              add_extension(*cert, *cert, NID_subject_key_identifier, "hash") &&
              X509_sign(*cert, *key, EVP_sha256()) > 0;
    return ok ? BOUGH_OK : fail_openssl(err, "make a certificate authority");
}

static bool is_address(const char *name) {
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(name);
    ASN1_OCTET_STRING_free(address);
    ERR_clear_error();
    return address != NULL;
}

static void add_name(char *text, size_t size, const char *name) {
    size_t n = strlen(text);
    (void)snprintf(text + n, size - n, "%s%s:%s", n ? "," : "", is_address(name) ? "IP" : "DNS",
                   name);
}

/* For one host, a compute's; or with "" for all names, for boughd. A compute must not be able to
 * pass for another; and OpenSSL takes no star with a single label after it, as in *.localhost. */
static int sign_server(X509 **cert, EVP_PKEY *key, const struct tls_authority *a, const char *host,
                       int days, bough_error *err) {
    char list[NAMES_TEXT] = "";
    if (*host) add_name(list, sizeof list, host);
    for (size_t i = 0; !*host && i < sizeof own_names / sizeof own_names[0]; i++)
        add_name(list, sizeof list, own_names[i]);
    for (const char *const *name = a->names; !*host && *name; name++)
        add_name(list, sizeof list, *name);
    *cert = key ? begin_certificate(key, "PostgreSQL", days) : NULL;
    bool ok = *cert && X509_set_issuer_name(*cert, X509_get_subject_name(a->cert)) == 1 &&
              add_extension(*cert, a->cert, NID_basic_constraints, "critical,CA:FALSE") &&
              add_extension(*cert, a->cert, NID_key_usage, "critical,digitalSignature") &&
              add_extension(*cert, a->cert, NID_ext_key_usage, "serverAuth") &&
              add_extension(*cert, a->cert, NID_subject_alt_name, list) &&
              add_extension(*cert, a->cert, NID_authority_key_identifier, "keyid") &&
              X509_sign(*cert, a->key, EVP_sha256()) > 0;
    return ok ? BOUGH_OK : fail_openssl(err, "make a certificate");
}

static int make_server(EVP_PKEY **key, X509 **cert, const struct tls_authority *a, const char *host,
                       bough_error *err) {
    *key = EVP_EC_gen("P-256");
    return sign_server(cert, *key, a, host, SERVER_DAYS, err);
}

/* Whether the very name is among those of a certificate. */
static bool has_name(X509 *cert, const char *name) {
    if (is_address(name)) return X509_check_ip_asc(cert, name, 0) == 1;
    GENERAL_NAMES *all = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    bool found = false;
    for (int i = 0; all && !found && i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(all, i);
        if (one->type != GEN_DNS) continue;
        size_t n = (size_t)ASN1_STRING_length(one->d.dNSName);
        found = n == strlen(name) && memcmp(ASN1_STRING_get0_data(one->d.dNSName), name, n) == 0;
    }
    GENERAL_NAMES_free(all);
    return found;
}

static bool is_good(X509 *cert, const struct tls_authority *a, const char *host) {
    time_t later = time(NULL) + (time_t)RENEW_DAYS * 86400;
    bool good = X509_check_issued(a->cert, cert) == X509_V_OK && X509_verify(cert, a->key) == 1 &&
                (!*host || has_name(cert, host)) &&
                X509_cmp_time(X509_get0_notAfter(cert), &later) > 0;
    for (size_t i = 0; good && !*host && i < sizeof own_names / sizeof own_names[0]; i++)
        good = has_name(cert, own_names[i]);
    for (const char *const *name = a->names; good && !*host && *name; name++)
        good = has_name(cert, *name);
    ERR_clear_error();
    return good;
}

/* ---- all of it ---- */

int tls_read_given(server *srv, const server_options *options, bough_error *err) {
    size_t size;
    if (!options->tls_cert != !options->tls_key)
        return bough_fail(err, BOUGH_E_USAGE, "--tls-cert and --tls-key belong together");
    if (!options->tls_cert) return BOUGH_OK;
    int rc = bough_read_file(&srv->given_cert, &size, options->tls_cert, PEM_MAX, err);
    if (!rc) rc = bough_read_file(&srv->given_key, &size, options->tls_key, PEM_MAX, err);
    return rc;
}

/* Copy what was given to where computes may read it. */
static int use_given(server *srv, bough_error *err) {
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    parse_pair(&key, &cert, srv->given_key, srv->given_cert);
    int rc = BOUGH_OK;
    if (!cert)
        rc = bough_fail(err, BOUGH_E_INVALID, "--tls-cert is not a certificate in PEM format");
    else if (!key)
        rc = bough_fail(err, BOUGH_E_INVALID,
                        "--tls-key is not a key in PEM format without a passphrase");
    else if (X509_check_private_key(cert, key) != 1)
        rc = bough_fail(err, BOUGH_E_INVALID, "--tls-key is not the key of --tls-cert");
    ERR_clear_error();
    if (!rc) rc = bough_write_file(srv->tls_key, srv->given_key, strlen(srv->given_key), 0600, err);
    if (!rc)
        rc = bough_write_file(srv->tls_cert, srv->given_cert, strlen(srv->given_cert), 0644, err);
    EVP_PKEY_free(key);
    X509_free(cert);
    return rc;
}

static int open_authority(struct tls_authority *a, const char *dir, bough_error *err) {
    char key[BOUGH_PATH_MAX], cert[BOUGH_PATH_MAX];
    int rc = bough_path(key, sizeof key, err, "%s/ca.key", dir);
    if (!rc) rc = bough_path(cert, sizeof cert, err, "%s/ca.crt", dir);
    if (rc) return rc;
    read_pair(&a->key, &a->cert, key, cert);
    if (a->cert) return BOUGH_OK;
    rc = make_authority(&a->key, &a->cert, err);
    if (!rc) rc = write_key(a->key, key, true, err);
    if (!rc) rc = write_certificates(a->cert, NULL, cert, true, err);
    return rc;
}

/* Look whether a certificate is good; make it otherwise. */
static int refresh(const char *cert_path, const char *key_path, const struct tls_authority *a,
                   const char *host, bough_error *err) {
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    int rc = BOUGH_OK;
    read_pair(&key, &cert, key_path, cert_path);
    if (!cert || !is_good(cert, a, host)) {
        EVP_PKEY_free(key);
        X509_free(cert);
        key = NULL;
        cert = NULL;
        rc = make_server(&key, &cert, a, host, err);
        if (!rc) rc = write_key(key, key_path, false, err);
        if (!rc) rc = write_certificates(cert, a->cert, cert_path, false, err);
    }
    EVP_PKEY_free(key);
    X509_free(cert);
    return rc;
}

int tls_open(server *srv, const char *const *names, bough_error *err) {
    char dir[BOUGH_PATH_MAX];
    int rc = bough_path(dir, sizeof dir, err, "%s/tls", srv->store_dir);
    if (!rc) rc = bough_path(srv->tls_dir, sizeof srv->tls_dir, err, "%s/server", dir);
    if (!rc) rc = bough_mkdirs(srv->tls_dir, 0700, err);
    if (!rc) rc = bough_path(srv->tls_cert, sizeof srv->tls_cert, err, "%s/tls.crt", srv->tls_dir);
    if (!rc) rc = bough_path(srv->tls_key, sizeof srv->tls_key, err, "%s/tls.key", srv->tls_dir);
    if (rc) return rc;
    if (srv->given_cert) {
        rc = use_given(srv, err);
        explicit_bzero(srv->given_key, strlen(srv->given_key));
        free(srv->given_key);
        free(srv->given_cert);
        srv->given_key = srv->given_cert = NULL;
        return rc;
    }
    srv->authority = calloc(1, sizeof *srv->authority);
    if (!srv->authority) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    srv->authority->names = names;
    rc = open_authority(srv->authority, dir, err);
    return rc ? rc : refresh(srv->tls_cert, srv->tls_key, srv->authority, "", err);
}

void tls_close(server *srv) {
    if (!srv->authority) return;
    EVP_PKEY_free(srv->authority->key);
    X509_free(srv->authority->cert);
    free(srv->authority);
    srv->authority = NULL;
}

bool tls_present(SSL *ssl, const server *srv, const char *host) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
    X509 *cert = NULL;
    if (!srv->authority || !*host || strlen(host) > 253 || strspn(host, allowed) != strlen(host))
        return false;
    bool done = sign_server(&cert, SSL_get_privatekey(ssl), srv->authority, host, MOMENT_DAYS,
                            NULL) == BOUGH_OK &&
                SSL_use_certificate(ssl, cert) == 1;
    X509_free(cert);
    ERR_clear_error();
    return done;
}

const char *tls_name_of(const bough_branch_row *branch, const char *endpoint) {
    bool is_shared = branch->is_look && *branch->parent_id &&
                     strncmp(branch->name, TLS_LOOK_PREFIX, sizeof TLS_LOOK_PREFIX - 1) == 0;
    return is_shared ? branch->parent_id : endpoint;
}

int tls_files_of(tls_files *files, const server *srv, const bough_branch_row *branch,
                 bough_error *err) {
    char dir[BOUGH_PATH_MAX];
    const char *shared = tls_name_of(branch, NULL);
    if (shared) return tls_files_past(files, srv, shared, err);
    int rc = bough_path(dir, sizeof dir, err, "%s/branches/%s/tls", srv->store_dir, branch->id);
    return rc ? rc : tls_files_in(files, srv, dir, err);
}

int tls_files_past(tls_files *files, const server *srv, const char *branch, bough_error *err) {
    char dir[BOUGH_PATH_MAX];
    int rc = bough_path(dir, sizeof dir, err, "%s/branches/%s/tls-past", srv->store_dir, branch);
    return rc ? rc : tls_files_in(files, srv, dir, err);
}

int tls_files_in(tls_files *files, const server *srv, const char *dir, bough_error *err) {
    int rc =
        bough_path(files->dir, sizeof files->dir, err, "%s", srv->authority ? dir : srv->tls_dir);
    if (!rc) rc = bough_path(files->cert, sizeof files->cert, err, "%s/tls.crt", files->dir);
    if (!rc) rc = bough_path(files->key, sizeof files->key, err, "%s/tls.key", files->dir);
    return rc;
}

int tls_prepare(const tls_files *files, server *srv, const char *host, bough_error *err) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* those of the past are shared */
    if (!srv->authority) return BOUGH_OK;
    pthread_mutex_lock(&mutex);
    int rc = bough_mkdirs(files->dir, 0700, err);
    if (!rc) rc = refresh(files->cert, files->key, srv->authority, host, err);
    pthread_mutex_unlock(&mutex);
    return rc;
}
