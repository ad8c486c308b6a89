/*
 * libFuzzer target: the message with which boughd hands a client over, as a compute's library reads
 * it (src/preload/handoff.c). The first byte says how many descriptors come with it, the second in
 * how large pieces; the rest is what is sent. The sender's end is closed behind it, so that nobody
 * waits.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "preload/handoff.h"
#include "preload/lib.h"

bough_lib bough; /* as lib.c has it */

enum { FDS_MAX = 5 };

static void send_piece(int fd, const uint8_t *data, size_t size, int with) {
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (with) {
        int fds[FDS_MAX];
        for (int i = 0; i < with; i++) fds[i] = STDIN_FILENO;
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)with * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)with * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)with * sizeof(int));
    }
    if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int pair[2], fds[2] = {-1, -1};
    bough_handoff *m = malloc(sizeof *m);
    if (size < 3 || !m) {
        free(m);
        return 0;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) abort();
    int with = data[0] % (FDS_MAX + 1);
    size_t piece = data[1] ? data[1] * 16U : size;
    for (size_t at = 2; at < size; at += piece)
        send_piece(pair[0], data + at, size - at < piece ? size - at : piece, at == 2 ? with : 0);
    close(pair[0]);
    if (bough_handoff_receive(pair[1], m, fds) == 0) {
        if (m->magic != BOUGH_HANDOFF_MAGIC || m->size > BOUGH_HANDOFF_BYTES_MAX ||
            m->size + BOUGH_HANDOFF_HEAD > size - 2 || fds[0] < 0 || fds[1] < 0 || with != 2 ||
            memcmp(m->bytes, data + 2 + BOUGH_HANDOFF_HEAD, m->size) != 0)
            __builtin_trap();
    }
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0) close(fds[i]);
    close(pair[1]);
    /* none was left open */
    int next = dup(0);
    if (next > 40) __builtin_trap();
    close(next);
    free(m);
    return 0;
}
