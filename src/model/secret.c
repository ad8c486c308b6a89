/* Secrets. A sealed password is nonce (12 bytes), ciphertext, tag (16 bytes); the role's name is
 * authenticated. */
#include "model/secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ids.h"
#include "util/fs.h"

enum { NONCE = 12, TAG = 16 };

int bough_secret_key_open(bough_secret_key *key, const char *path, bool may_make,
                          bough_error *err) {
    char *data = NULL;
    size_t size = 0;
    int rc = bough_read_file(&data, &size, path, 4096, err);
    if (rc == BOUGH_E_NOTFOUND) {
        if (!may_make)
            return bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" is missing; stored passwords need it",
                              path);
        rc = bough_random(key->bytes, sizeof key->bytes, err);
        return rc ? rc : bough_write_file(path, key->bytes, sizeof key->bytes, 0600, err);
    }
    if (!rc && size != sizeof key->bytes)
        rc = bough_fail(err, BOUGH_E_CORRUPT, "\"%s\" has %zu bytes instead of %zu", path, size,
                        sizeof key->bytes);
    if (!rc) memcpy(key->bytes, data, sizeof key->bytes);
    if (data) OPENSSL_cleanse(data, size);
    free(data);
    return rc;
}

int bough_secret_seal(unsigned char *sealed, size_t *size, const bough_secret_key *key,
                      const char *name, const char *password, bough_error *err) {
    size_t length = strlen(password);
    int n = 0, tail = 0;
    if (length > BOUGH_SECRET_SIZE - NONCE - TAG)
        return bough_fail(err, BOUGH_E_INVALID, "the password is too long");
    int rc = bough_random(sealed, NONCE, err);
    if (rc) return rc;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok =
        ctx && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key->bytes, sealed) == 1 &&
        EVP_EncryptUpdate(ctx, NULL, &n, (const unsigned char *)name, (int)strlen(name)) == 1 &&
        EVP_EncryptUpdate(ctx, sealed + NONCE, &n, (const unsigned char *)password, (int)length) ==
            1 &&
        EVP_EncryptFinal_ex(ctx, sealed + NONCE + n, &tail) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG, sealed + NONCE + length) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (!ok) return bough_fail(err, BOUGH_E_INTERNAL, "could not encrypt a password");
    *size = NONCE + length + TAG;
    return BOUGH_OK;
}

int bough_secret_open(char *password, size_t room, const bough_secret_key *key, const char *name,
                      const unsigned char *sealed, size_t size, bough_error *err) {
    int n = 0, tail = 0;
    unsigned char tag[TAG];
    if (size < NONCE + TAG || size - NONCE - TAG >= room)
        return bough_fail(err, BOUGH_E_CORRUPT, "the stored password of role \"%s\" is damaged",
                          name);
    size_t length = size - NONCE - TAG;
    memcpy(tag, sealed + NONCE + length, TAG);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    unsigned char *out = (unsigned char *)password;
    bool ok =
        ctx && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key->bytes, sealed) == 1 &&
        EVP_DecryptUpdate(ctx, NULL, &n, (const unsigned char *)name, (int)strlen(name)) == 1 &&
        EVP_DecryptUpdate(ctx, out, &n, sealed + NONCE, (int)length) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG, tag) == 1 &&
        EVP_DecryptFinal_ex(ctx, out + n, &tail) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (!ok) {
        OPENSSL_cleanse(password, room);
        return bough_fail(err, BOUGH_E_CORRUPT, "the stored password of role \"%s\" is damaged",
                          name);
    }
    password[length] = '\0';
    return BOUGH_OK;
}

static void to_hex(char *out, const unsigned char *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

int bough_secret_password(char *out, bough_error *err) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char bytes[24];
    int rc = bough_random(bytes, sizeof bytes, err);
    if (rc) return rc;
    int at = snprintf(out, BOUGH_PASSWORD_SIZE, "bgh_");
    for (size_t i = 0; i < sizeof bytes; i++) out[at++] = letters[bytes[i] & 63];
    out[at] = '\0';
    OPENSSL_cleanse(bytes, sizeof bytes);
    return BOUGH_OK;
}

int bough_secret_api_key(char *out, bough_error *err) {
    unsigned char bytes[32];
    int rc = bough_random(bytes, sizeof bytes, err);
    if (rc) return rc;
    memcpy(out, "bough_", 6);
    to_hex(out + 6, bytes, sizeof bytes);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return BOUGH_OK;
}

int bough_secret_hash(char *out, const void *data, size_t size, bough_error *err) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    if (EVP_Digest(data, size, digest, &n, EVP_sha256(), NULL) != 1 || n != 32)
        return bough_fail(err, BOUGH_E_INTERNAL, "could not compute SHA-256");
    to_hex(out, digest, n);
    return BOUGH_OK;
}

bool bough_secret_hash_equal(const char *a, const char *b) {
    return CRYPTO_memcmp(a, b, BOUGH_HASH_SIZE - 1) == 0;
}

/* Copy, leaving out the value of a password parameter. */
static void copy_query(char *out, size_t size, const char *query) {
    size_t at = 0;
    while (*query && at + 1 < size) {
        size_t n = strcspn(query, "&");
        bool secret =
            strncmp(query, "?password=", 10) == 0 || strncmp(query, "&password=", 10) == 0 ||
            strncmp(query, "?sslpassword=", 13) == 0 || strncmp(query, "&sslpassword=", 13) == 0;
        if (n == 0) n = 1 + strcspn(query + 1, "&");
        size_t keep = secret ? strcspn(query, "=") + 1 : n;
        at +=
            (size_t)snprintf(out + at, size - at, "%.*s%s", (int)keep, query, secret ? "***" : "");
        query += n;
    }
    if (at == 0) *out = '\0';
}

void bough_secret_redact(char *out, size_t size, const char *url) {
    const char *scheme = strstr(url, "://");
    if (!scheme) {
        (void)snprintf(out, size, "%s", url);
        return;
    }
    const char *rest = scheme + 3;
    size_t authority = strcspn(rest, "?#");
    const char *at = memrchr(rest, '@', authority);
    const char *colon = at ? memchr(rest, ':', (size_t)(at - rest)) : NULL;
    int n = colon ? snprintf(out, size, "%.*s:***", (int)(colon - url), url)
                  : snprintf(out, size, "%.*s", (int)((at ? at : rest) - url), url);
    if (n < 0 || (size_t)n >= size) return;
    const char *tail = at ? at : rest;
    const char *query = tail + strcspn(tail, "?");
    n += snprintf(out + n, size - (size_t)n, "%.*s", (int)(query - tail), tail);
    if ((size_t)n < size) copy_query(out + n, size - (size_t)n, query);
}
