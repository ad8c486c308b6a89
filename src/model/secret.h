/**
 * Secrets at rest: AES-256-GCM under a key file, SHA-256, new passwords. Any thread.
 */
#ifndef BOUGH_MODEL_SECRET_H
#define BOUGH_MODEL_SECRET_H

#include <stdbool.h>

#include "model/records.h"
#include "util/error.h"

/** Length of a generated password or key's random part, with NUL. */
enum { BOUGH_PASSWORD_SIZE = 65, BOUGH_API_KEY_SIZE = 72 };

/** The key; not to be copied about. */
typedef struct bough_secret_key {
    unsigned char bytes[32];
} bough_secret_key;

/**
 * Read the key file, or make it (mode 0600).
 *
 * @param may_make  false: a missing file is an error, because something was encrypted under it.
 * @retval BOUGH_E_CORRUPT  Wrong size, or missing where it must not be.
 */
BOUGH_CHECK int bough_secret_key_open(bough_secret_key *key, const char *path, bool may_make,
                                      bough_error *err);

/**
 * Encrypt a password.
 *
 * @param[out] sealed  BOUGH_SECRET_SIZE bytes.
 * @param[out] size    How many of them are used.
 * @param name         The role's: a sealed password opens under the same name only.
 */
BOUGH_CHECK int bough_secret_seal(unsigned char *sealed, size_t *size, const bough_secret_key *key,
                                  const char *name, const char *password, bough_error *err);

/** Decrypt. @retval BOUGH_E_CORRUPT  Damaged, of another key or of another role. */
BOUGH_CHECK int bough_secret_open(char *password, size_t room, const bough_secret_key *key,
                                  const char *name, const unsigned char *sealed, size_t size,
                                  bough_error *err);

/** A new password: letters and digits only. `out` is of BOUGH_PASSWORD_SIZE. */
BOUGH_CHECK int bough_secret_password(char *out, bough_error *err);

/** A new API key: "bough_" and 32 random bytes. `out` is of BOUGH_API_KEY_SIZE. */
BOUGH_CHECK int bough_secret_api_key(char *out, bough_error *err);

/** SHA-256 in hexadecimal; `out` is of BOUGH_HASH_SIZE. */
BOUGH_CHECK int bough_secret_hash(char *out, const void *data, size_t size, bough_error *err);

/** Compare two hashes in constant time. */
bool bough_secret_hash_equal(const char *a, const char *b);

/** `url` without its password, for show. */
void bough_secret_redact(char *out, size_t size, const char *url);

#endif
