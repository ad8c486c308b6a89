/*
 * The same hand-off (handoff.h) for PgBouncer, which has many clients in one process. It believes
 * to listen on a TCP port, so that it takes its clients for what they are, with TLS; what it gets
 * is a Unix socket in a private directory.
 */
#ifndef BOUGH_PRELOAD_POOL_H
#define BOUGH_PRELOAD_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

extern bool bough_is_pool;

/* At load. */
void bough_pool_init(const char *path);
/* accept() on the listener; others are accepted as ever. */
int bough_pool_accept(int fd, struct sockaddr *address, socklen_t *size, int flags);
/* Bytes that boughd has read of a client; -1: none are left. */
ssize_t bough_pool_serve(int fd, void *buf, size_t n, int flags);
/* How many of n bytes the client has been sent already. */
size_t bough_pool_swallow(int fd, size_t n);
/* A descriptor is being closed. */
void bough_pool_closed(int fd);

#endif
