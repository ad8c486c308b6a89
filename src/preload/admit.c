/*
 * Who comes in by a compute's Unix socket as the administrator. All computes of a store have the
 * same password for that role, and whatever runs in one of them reaches the sockets of the others.
 * So each start of a compute has a key (bough_header.admin_key), which boughd and what it starts
 * know: they ask for the user "bough_admin.KEY", and postgres is told "bough_admin". Who names the
 * role itself, without a key, is refused.
 *
 * The startup packet is read here as a whole, before postgres sees any of it. The postmaster
 * accepts one connection, forks, and closes its copy before it accepts the next; so there is one
 * state, and only the forked backend reads.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "preload/handoff.h"
#include "preload/lib.h"

/* Of PostgreSQL: libpq/pqcomm.h. */
enum {
    HEAD = 8, /* length and code */
    PROTOCOL_3 = 3,
    CANCEL = 80877102,
    SSL_REQUEST = 80877103,
    GSS_REQUEST = 80877104
};

enum { PACKET_MS = 10000 };

int bough_guarded_fd = -1;

static struct {
    bool is_read, is_last, is_refused;
    uint32_t at, size;
    unsigned char bytes[BOUGH_HANDOFF_BYTES_MAX];
} packet;

void bough_admit_begin(int fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    bough_guarded_fd = -1;
    if (!bough.shm->admin_key[0]) return; /* who made this memory has no use for it */
    if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
        domain != AF_UNIX)
        return;
    packet.is_read = packet.is_refused = false;
    bough_guarded_fd = fd;
}

void bough_admit_closed(void) {
    bough_guarded_fd = -1;
}

static uint32_t number_at(uint32_t at) {
    const unsigned char *b = packet.bytes + at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static int64_t now_ms(void) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Have `size` bytes of the packet. False: they do not come. */
static bool fill(int fd, uint32_t size, int64_t until) {
    while (packet.size < size) {
        long n = syscall(SYS_recvfrom, fd, packet.bytes + packet.size, (size_t)(size - packet.size),
                         MSG_DONTWAIT, NULL, NULL);
        if (n > 0) packet.size += (uint32_t)n;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
        if (n > 0) continue;
        int64_t left = until - now_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct timespec pause = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
        if (left <= 0) return false;
        (void)syscall(SYS_ppoll, &p, 1L, &pause, NULL, 0L);
    }
    return true;
}

/* In a time that does not tell how much of it is right. */
static bool is_key(const char *text) {
    size_t n = strlen(text), wanted = strnlen(bough.shm->admin_key, BOUGH_ADMIN_KEY_SIZE);
    unsigned char differs = n != wanted;
    for (size_t i = 0; i < n && i < wanted; i++)
        differs |= (unsigned char)(text[i] ^ bough.shm->admin_key[i]);
    return !differs;
}

/* A value of "user": away with the key behind the role. False: the role has none. */
static bool check_user(uint32_t at) {
    static const char role[] = BOUGH_ADMIN_NAME;
    char *name = (char *)packet.bytes + at;
    uint32_t n = sizeof role - 1, all = (uint32_t)strlen(name);
    if (strncmp(name, role, n) != 0) return true;
    if (name[n] == '\0') return false;
    if (name[n] != '.' || !is_key(name + n + 1)) return true; /* a role that there is not */
    memmove(name + n, name + all, packet.size - at - all);
    packet.size -= all - n;
    for (int i = 0; i < 4; i++) packet.bytes[i] = (unsigned char)(packet.size >> (24 - 8 * i));
    return true;
}

/* The names and values of a packet that ends with a NUL. The last value of a name counts. */
static bool check_startup(void) {
    for (uint32_t at = HEAD; at < packet.size && packet.bytes[at];) {
        bool is_user = strcmp((const char *)packet.bytes + at, "user") == 0;
        at += (uint32_t)strlen((const char *)packet.bytes + at) + 1;
        if (at >= packet.size) break;
        if (is_user && !check_user(at)) return false;
        at += (uint32_t)strlen((const char *)packet.bytes + at) + 1;
    }
    return true;
}

/* False: nothing of it may be told to postgres. */
static bool read_packet(int fd) {
    int64_t until = now_ms() + PACKET_MS;
    packet.at = packet.size = 0;
    packet.is_last = true;
    if (!fill(fd, 4, until)) return false;
    uint32_t size = number_at(0);
    if (size < HEAD || size > sizeof packet.bytes || !fill(fd, size, until)) return false;
    uint32_t code = number_at(4);
    packet.is_last = code != SSL_REQUEST && code != GSS_REQUEST;
    if (!packet.is_last || code == CANCEL) return true;
    if (code >> 16 != PROTOCOL_3 || packet.bytes[size - 1] != '\0') return false;
    packet.is_refused = !check_startup();
    return !packet.is_refused;
}

/* An ErrorResponse. */
static void say_why(int fd) {
    static const char text[] =
        "E\0\0\0\0SFATAL\0C28000\0M" BOUGH_ADMIN_NAME " comes in by Bough alone\0";
    char message[sizeof text];
    memcpy(message, text, sizeof text);
    message[4] = (char)(sizeof text - 1);
    (void)syscall(SYS_sendto, fd, message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0L);
}

ssize_t bough_admit_recv(int fd, void *buf, size_t n, int flags) {
    if (n == 0) return 0;
    if (!packet.is_read) {
        packet.is_read = true;
        if (!read_packet(fd)) {
            if (packet.is_refused) say_why(fd);
            packet.at = packet.size = 0;
            packet.is_last = false; /* for ever at its end */
            packet.is_refused = true;
        }
    }
    if (packet.is_refused) return 0;
    size_t left = packet.size - packet.at;
    if (n > left) n = left;
    memcpy(buf, packet.bytes + packet.at, n);
    if (flags & MSG_PEEK) return (ssize_t)n;
    packet.at += (uint32_t)n;
    if (packet.at == packet.size) {
        packet.is_read = false; /* another one comes */
        if (packet.is_last) bough_guarded_fd = -1;
        explicit_bzero(packet.bytes, sizeof packet.bytes);
    }
    return (ssize_t)n;
}
