/**
 * What a client says first: requests before the startup packet, TLS ClientHello, StartupMessage.
 *
 * Pure functions over bytes that a stranger sent: no input is too short, too long or too odd, and
 * nothing is allocated. PostgreSQL: "Message Formats" in the manual's chapter on the protocol. TLS:
 * RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3 (server name); RFC 7301 (ALPN).
 */
#ifndef BOUGH_SERVER_HELLO_H
#define BOUGH_SERVER_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HELLO_STARTUP_MAX = 10004, /**< PostgreSQL's MAX_STARTUP_PACKET_LENGTH and the length itself */
    HELLO_TLS_MAX = 16384, /**< of a ClientHello with its record headers; real ones have 2,000 */
    HELLO_CANCEL_MAX = 12 + 256, /**< a key has 4 bytes, since protocol 3.2 up to 256 */
    HELLO_PASS_SIZE = 8 + 32,    /**< with a word of 32 letters */
    HELLO_ENDPOINT_SIZE = 64,    /**< a DNS label with its NUL */
    HELLO_WORD_SIZE = 64,        /**< a moment, with its NUL */
    HELLO_NAME_SIZE = 1028       /**< a branch's or project's name: 256 characters of UTF-8 */
};

typedef enum hello_kind {
    HELLO_MORE, /**< too little to tell */
    HELLO_TLS,  /**< a TLS record: direct TLS */
    HELLO_SSL_REQUEST,
    HELLO_GSS_REQUEST,
    HELLO_CANCEL,
    HELLO_PASS, /**< a message of Bough's own: see hello_pass_write() */
    HELLO_STARTUP,
    HELLO_OLD, /**< a protocol before 3.0 */
    HELLO_BAD  /**< none of these */
} hello_kind;

/**
 * Tell what the first bytes are.
 * @param[out] need  Bytes of the whole packet; with HELLO_MORE and HELLO_TLS, bytes to wait for.
 */
hello_kind hello_first(size_t *need, const uint8_t *data, size_t size);

/** Where a client wants to go; "" for what it did not say. */
typedef struct hello_target {
    char endpoint[HELLO_ENDPOINT_SIZE]; /**< lower case; letters, digits and dashes */
    char project[HELLO_NAME_SIZE];      /**< name or id */
    char branch[HELLO_NAME_SIZE];       /**< name or id */
    /* a moment of it, and a type of endpoints, as Neon's connection strings say them; unchecked */
    char timestamp[HELLO_WORD_SIZE], lsn[HELLO_WORD_SIZE], type[HELLO_WORD_SIZE];
    char pass[HELLO_WORD_SIZE]; /**< of boughd's own connections (server/door_pass.c) */
} hello_target;

typedef enum hello_result {
    HELLO_DONE,
    HELLO_SHORT, /**< more bytes are needed */
    HELLO_WRONG  /**< malformed; or too long */
} hello_result;

/**
 * Read the server name of a ClientHello.
 *
 * @param[out] name  The host name in lower case, 256 bytes with its NUL; "" where there is none.
 * @param[out] need  With HELLO_SHORT, bytes to wait for: more than `size`.
 */
hello_result hello_tls(char *name, size_t *need, const uint8_t *data, size_t size);

/** The endpoint that a server name begins with. False where its first label cannot be one. */
bool hello_endpoint_of_name(char *endpoint, const char *name);

/** The branch's id that a server name begins with. False where its first label is none. */
bool hello_branch_of_name(char *branch, const char *name);

/**
 * Take the target out of a whole StartupMessage: the words endpoint=..., project=...,
 * neon_timestamp:..., neon_lsn:..., neon_endpoint_type:... and bough_pass=... of "options", and
 * what follows the last '@' of "database". The rest stays in its order.
 *
 * @param[out] target
 * @param[out] why       With HELLO_WRONG: a sentence for the client. Static.
 * @param[in,out] data   Rewritten in place; never longer than it was.
 * @param[in,out] size   Of the packet.
 */
hello_result hello_startup(hello_target *target, const char **why, uint8_t *data, size_t *size);

/** Process id of a whole CancelRequest. */
uint32_t hello_cancel_pid(const uint8_t *data);

/**
 * What boughd's own connections say before anything else (server/door_pass.c), like an SSLRequest.
 * @param[out] data  HELLO_PASS_SIZE bytes.
 * @param word       32 letters.
 */
void hello_pass_write(uint8_t *data, const char *word);
/** The word of it, HELLO_WORD_SIZE bytes, from a whole one. */
void hello_pass_read(char *word, const uint8_t *data);

#endif
