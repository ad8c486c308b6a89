/*
 * The hand-off, received. boughd connects to a Unix socket of ours in a private directory and sends
 * the socket of a client with it (handoff.h). accept() gives that socket to postgres as if the
 * client had come here itself; recv() serves first what boughd has read of it, send() swallows what
 * boughd has answered already.
 *
 * The postmaster accepts one connection, forks, and closes its copy before it accepts the next; so
 * there is one state. The forked backend inherits it. `session` is closed with the client's socket
 * in the postmaster and lives in the backend until that ends: so boughd learns of the end.
 *
 * Nothing here may keep the postmaster: it waits for a message at most MESSAGE_MS. A connection
 * without a message becomes one at its end, which postgres drops without a word; a failure of
 * accept() would make it sleep for 100 ms (StreamConnection() in libpq/pqcomm.c).
 */
#include "preload/handoff.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "preload/lib.h"
#include "preload/pool.h"

#define EXPORT __attribute__((visibility("default")))

enum { MESSAGE_MS = 200 };

int bough_handed_fd = -1;

static struct {
    char dir[sizeof((struct sockaddr_un *)0)->sun_path];
    size_t dir_size;
    int session;
    uint32_t at, swallow;
    bough_handoff message;
} handed = {.session = -1};

void bough_handoff_init(const char *dir) {
    size_t n = strlen(dir);
    if (n == 0 || n >= sizeof handed.dir) return;
    memcpy(handed.dir, dir, n + 1);
    handed.dir_size = n;
}

void bough_handoff_closed(void) {
    if (handed.session >= 0) sys_close(handed.session);
    handed.session = -1;
    handed.message.size = handed.swallow = 0;
    bough_handed_fd = -1;
}

/* Whether a listening socket is the private one. */
static bool is_handoff(int fd) {
    struct sockaddr_un name;
    socklen_t size = sizeof name;
    if (!handed.dir_size || syscall(SYS_getsockname, fd, &name, &size) != 0) return false;
    return name.sun_family == AF_UNIX && size > sizeof name.sun_family + handed.dir_size &&
           memcmp(name.sun_path, handed.dir, handed.dir_size) == 0 &&
           name.sun_path[handed.dir_size] == '/';
}

static bool is_ours(int carrier) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    return syscall(SYS_getsockopt, carrier, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           peer.uid == geteuid();
}

static int64_t now_ms(void) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Keep the descriptors of a message; more than one pair is a mistake of the sender. */
static bool take_fds(int fds[2], struct msghdr *message) {
    bool good = !(message->msg_flags & MSG_CTRUNC);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            int at = fds[0] < 0 ? 0 : 1;
            if (fds[at] < 0) {
                fds[at] = fd;
            } else {
                sys_close(fd);
                good = false;
            }
        }
    }
    return good;
}

/* Read the whole message. 0, or -1 when it does not come, or is none. */
int bough_handoff_receive(int carrier, bough_handoff *m, int fds[2]) {
    int64_t until = now_ms() + MESSAGE_MS;
    if (!is_ours(carrier)) return -1;
    size_t got = 0;
    for (;;) {
        size_t whole = got < BOUGH_HANDOFF_HEAD ? sizeof *m : BOUGH_HANDOFF_HEAD + m->size;
        union {
            struct cmsghdr head;
            char room[CMSG_SPACE(2 * sizeof(int))];
        } control;
        struct iovec iov = {(char *)m + got, whole - got};
        struct msghdr message = {.msg_iov = &iov,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof control};
        ssize_t n = syscall(SYS_recvmsg, carrier, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n == 0) return -1;
        if (n < 0 && errno != EAGAIN && errno != EINTR) return -1;
        if (n > 0) {
            if (!take_fds(fds, &message)) return -1;
            got += (size_t)n;
        }
        if (got >= BOUGH_HANDOFF_HEAD) {
            if (m->magic != BOUGH_HANDOFF_MAGIC || m->size > sizeof m->bytes) return -1;
            if (got > BOUGH_HANDOFF_HEAD + m->size) return -1;
            if (got == BOUGH_HANDOFF_HEAD + m->size) return fds[1] >= 0 ? 0 : -1;
        }
        int64_t left = until - now_ms();
        struct pollfd p = {.fd = carrier, .events = POLLIN};
        struct timespec pause = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
        if (left <= 0) return -1;
        if (n < 0) (void)syscall(SYS_ppoll, &p, 1L, &pause, NULL, 0L);
    }
}

/* A client's socket as accept() would have returned it. Clients come by TCP: to a Unix socket of
 * whoever reaches this one, postgres would speak as if it had come by its own. */
int bough_handoff_prepare(int client, struct sockaddr *address, socklen_t *size) {
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;
    int type = 0;
    socklen_t type_size = sizeof type;
    if (syscall(SYS_getsockopt, client, SOL_SOCKET, SO_TYPE, &type, &type_size) != 0 ||
        type != SOCK_STREAM || syscall(SYS_getpeername, client, &peer, &n) != 0 ||
        (peer.ss_family != AF_INET && peer.ss_family != AF_INET6))
        return -1; /* no such socket, or the client has gone */
    long flags = syscall(SYS_fcntl, client, F_GETFL);
    if (flags < 0 || syscall(SYS_fcntl, client, F_SETFL, flags & ~(long)O_NONBLOCK) != 0) return -1;
    if (address && size) {
        memcpy(address, &peer, *size < n ? *size : n);
        *size = n;
    }
    return 0;
}

/* What postgres gets for a connection to the private socket. */
static int take(int carrier, struct sockaddr *address, socklen_t *size) {
    int fds[2] = {-1, -1};
    bough_handoff_closed();
    bool good = bough_handoff_receive(carrier, &handed.message, fds) == 0;
    if (good) {
        char ack = BOUGH_HANDOFF_ACK;
        (void)syscall(SYS_sendto, carrier, &ack, 1L, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0L);
    }
    if (!good || bough_handoff_prepare(fds[0], address, size) != 0) {
        handed.message.size = 0;
        for (int i = 0; i < 2; i++)
            if (fds[i] >= 0) sys_close(fds[i]);
        (void)syscall(SYS_shutdown, carrier, SHUT_RDWR);
        return carrier;
    }
    sys_close(carrier);
    handed.session = fds[1];
    handed.swallow = handed.message.swallow;
    handed.at = 0;
    bough_handed_fd = fds[0];
    return fds[0];
}

static int accept_any(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    if (bough_is_pool) return bough_pool_accept(fd, address, size, flags);
    socklen_t room = size ? *size : 0;
    int made = (int)syscall(SYS_accept4, fd, address, size, flags);
    if (made < 0 || !bough.active) return made;
    int saved = errno;
    if (!is_handoff(fd)) {
        bough_admit_begin(made);
        errno = saved;
        return made;
    }
    socklen_t given = size ? *size : 0;
    if (size) *size = room;
    int client = take(made, address, size);
    if (client == made && size) *size = given; /* the carrier itself, with its own address */
    errno = saved;
    return client;
}

/* glibc declares them with a union of all kinds of addresses. */
EXPORT int accept(int fd, __SOCKADDR_ARG address, socklen_t *size) {
    return accept_any(fd, address.__sockaddr__, size, 0);
}
EXPORT int accept4(int fd, __SOCKADDR_ARG address, socklen_t *size, int flags) {
    return accept_any(fd, address.__sockaddr__, size, flags);
}

EXPORT ssize_t recv(int fd, void *buf, size_t n, int flags) {
    if (fd == bough_handed_fd && fd >= 0 && handed.at < handed.message.size && n > 0) {
        size_t left = handed.message.size - handed.at;
        if (n > left) n = left;
        memcpy(buf, handed.message.bytes + handed.at, n);
        if (!(flags & MSG_PEEK)) handed.at += (uint32_t)n;
        return (ssize_t)n;
    }
    if (fd == bough_guarded_fd && fd >= 0) return bough_admit_recv(fd, buf, n, flags);
    ssize_t served = bough_is_pool ? bough_pool_serve(fd, buf, n, flags) : -1;
    return served >= 0 ? served : syscall(SYS_recvfrom, fd, buf, n, flags, NULL, NULL);
}

ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags);
EXPORT ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags) {
    if (n > room) __builtin_trap();
    return recv(fd, buf, n, flags);
}

EXPORT ssize_t send(int fd, const void *buf, size_t n, int flags) {
    if (fd == bough_handed_fd && fd >= 0 && handed.swallow > 0 && n > 0) {
        if (n > handed.swallow) n = handed.swallow;
        handed.swallow -= (uint32_t)n;
        return (ssize_t)n;
    }
    size_t swallowed = bough_is_pool ? bough_pool_swallow(fd, n) : 0;
    return swallowed ? (ssize_t)swallowed : syscall(SYS_sendto, fd, buf, n, flags, NULL, 0L);
}
