/*
 * The message with which boughd hands a client's socket to a compute: one sendmsg() on a connection
 * to the hand-off socket, with two descriptors (SCM_RIGHTS): the client's socket, and one end of a
 * pipe that lives as long as the session. The library answers with one byte and closes. Included by
 * src/preload and src/server.
 */
#ifndef BOUGH_PRELOAD_HANDOFF_H
#define BOUGH_PRELOAD_HANDOFF_H

#include <stdint.h>

#define BOUGH_HANDOFF_MAGIC UINT32_C(0x31464842)  /* "BHF1", little-endian */
#define BOUGH_HANDOFF_DIR_ENV "BOUGH_HANDOFF_DIR" /* the private directory, absolute */
#define BOUGH_POOL_ENV "BOUGH_POOL_SOCKET"        /* of a PgBouncer: its Unix socket (pool.h) */
#define BOUGH_HANDOFF_ACK '1'

/* PostgreSQL takes no startup packet of more (MAX_STARTUP_PACKET_LENGTH, libpq/pqcomm.h), and its
 * four bytes of length. */
#define BOUGH_HANDOFF_BYTES_MAX 10004U

typedef struct bough_handoff {
    uint32_t magic;
    uint32_t swallow; /* bytes that postgres will send and that the client has got already */
    uint32_t size;    /* bytes that follow: read from the client, to be received again */
    unsigned char bytes[BOUGH_HANDOFF_BYTES_MAX];
} bough_handoff;

#define BOUGH_HANDOFF_HEAD 12U /* bytes before `bytes` */
_Static_assert(__builtin_offsetof(bough_handoff, bytes) == BOUGH_HANDOFF_HEAD, "no padding");

#endif
