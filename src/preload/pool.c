/* See pool.h. One state for each client's descriptor, from accept() to close(). */
#include "preload/pool.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "preload/handoff.h"
#include "preload/lib.h"

#define EXPORT __attribute__((visibility("default")))

bool bough_is_pool;

typedef struct client {
    int session; /* closed with the client's socket: so boughd learns of the end */
    uint32_t at, size, swallow;
    unsigned char bytes[];
} client;

static struct sockaddr_un name = {.sun_family = AF_UNIX};
static int listener = -1;
static client *clients[BOUGH_MAX_FDS];

void bough_pool_init(const char *path) {
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof name.sun_path) return;
    memcpy(name.sun_path, path, n + 1);
    bough_is_pool = true;
}

static client *client_of(int fd) {
    return fd >= 0 && fd < BOUGH_MAX_FDS ? clients[fd] : NULL;
}

void bough_pool_closed(int fd) {
    client *c = client_of(fd);
    if (fd == listener) listener = -1;
    if (!c) return;
    clients[fd] = NULL;
    sys_close(c->session);
    free(c);
}

int bough_pool_accept(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    static bough_handoff message; /* there are no threads */
    int fds[2] = {-1, -1};
    if (fd != listener) return (int)syscall(SYS_accept4, fd, address, size, flags);
    int carrier = (int)syscall(SYS_accept4, fd, NULL, NULL, SOCK_CLOEXEC);
    if (carrier < 0) return -1;
    bool good = bough_handoff_receive(carrier, &message, fds) == 0 && fds[0] < BOUGH_MAX_FDS;
    client *c = good ? malloc(sizeof *c + message.size) : NULL;
    if (c && bough_handoff_prepare(fds[0], address, size) == 0) {
        char ack = BOUGH_HANDOFF_ACK;
        (void)syscall(SYS_sendto, carrier, &ack, 1L, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0L);
        sys_close(carrier);
        c->session = fds[1];
        c->at = 0;
        c->size = message.size;
        c->swallow = message.swallow;
        memcpy(c->bytes, message.bytes, message.size);
        clients[fds[0]] = c;
        return fds[0];
    }
    free(c);
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0) sys_close(fds[i]);
    sys_close(carrier);
    errno = EAGAIN; /* as if nobody had come */
    return -1;
}

ssize_t bough_pool_serve(int fd, void *buf, size_t n, int flags) {
    client *c = client_of(fd);
    if (!c || c->at == c->size || n == 0) return -1;
    size_t left = c->size - c->at;
    if (n > left) n = left;
    memcpy(buf, c->bytes + c->at, n);
    if (!(flags & MSG_PEEK)) c->at += (uint32_t)n;
    return (ssize_t)n;
}

size_t bough_pool_swallow(int fd, size_t n) {
    client *c = client_of(fd);
    if (!c || !c->swallow) return 0;
    if (n > c->swallow) n = c->swallow;
    c->swallow -= (uint32_t)n;
    return n;
}

/* The listener's descriptor becomes a Unix socket. */
static int bind_private(int fd) {
    int made = (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made < 0) return -1;
    (void)syscall(SYS_unlink, name.sun_path);
    if (syscall(SYS_bind, made, &name, sizeof name) != 0 ||
        syscall(SYS_dup3, made, fd, O_CLOEXEC) < 0) {
        sys_close(made);
        return -1;
    }
    sys_close(made);
    listener = fd;
    return 0;
}

EXPORT int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t size) {
    const struct sockaddr *a = address.__sockaddr__;
    if (bough_is_pool && listener < 0 && a->sa_family == AF_INET) return bind_private(fd);
    return (int)syscall(SYS_bind, fd, a, size);
}

EXPORT int setsockopt(int fd, int level, int option, const void *value, socklen_t size) {
    if (bough_is_pool && fd == listener && level == IPPROTO_TCP) return 0; /* it is none of TCP */
    return (int)syscall(SYS_setsockopt, fd, level, option, value, size);
}
