/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is behind an address? Whoever connects to its guard is told.
 *
 *     new master            guard               live master: "live PID"           -> refuse to start
 *         '---- connect ------'
 *                                                orphaned worker: "orphan", then lines of the
 *                                                inheritance, descriptors beside them, "end"
 *
 * So taking over from the workers of a dead master is an upgrade without exec: the new master gets the
 * very sockets, with what waits in them, and the table that says where the orphans are.
 */
#include "nginx-style-master/private.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TAKEOVER_BATCH   32u /* lines and descriptors a packet */
#define TAKEOVER_WAIT_MS 5000
#define PACKET_SIZE      (TAKEOVER_BATCH * (INHERIT_TEXT_MAX + 64u))

union batch_control {
    char bytes[CMSG_SPACE(sizeof(int) * TAKEOVER_BATCH)];
    struct cmsghdr align;
};

static int packet_send(int fd, const char *text, size_t len, const int *fds, uint32_t fds_count)
{
    union batch_control control;
    struct iovec slice = {(void *)(uintptr_t)text, len};
    struct msghdr header = {.msg_iov = &slice, .msg_iovlen = 1};

    if (fds_count > 0) {
        struct cmsghdr *cmsg;

        memset(&control, 0, sizeof(control));
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
        cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * fds_count);
    }
    return sendmsg(fd, &header, MSG_NOSIGNAL) >= 0 ? 0 : -errno;
}

static bool peer_is_trusted(int fd, uint32_t owner_uid)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == 0 || peer.uid == owner_uid);
}

static int guard_accept(int guard_fd)
{
    struct timeval patience = {.tv_sec = 2};
    int fd = accept4(guard_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    return fd;
}

void takeover_answer_live(int guard_fd, pid_t master_pid)
{
    char text[32];
    int len, fd = guard_accept(guard_fd);

    if (fd < 0)
        return;
    len = snprintf(text, sizeof(text), "live %d", (int)master_pid);
    MAYBE(packet_send(fd, text, (size_t)len, NULL, 0));
    close(fd);
}

bool takeover_answer_orphan(int guard_fd, uint32_t owner_uid, const struct inherit *inherit)
{
    char text[PACKET_SIZE];
    int fds[TAKEOVER_BATCH], fd = guard_accept(guard_fd), err;

    if (fd < 0)
        return false;
    if (!peer_is_trusted(fd, owner_uid)) {
        close(fd);
        return false;
    }
    err = packet_send(fd, "orphan", 6, NULL, 0);
    for (uint32_t at = 0; err == 0 && at < inherit->count;) {
        size_t len = 0;
        uint32_t count = 0;

        for (; count < TAKEOVER_BATCH && at < inherit->count; count++, at++) {
            fds[count] = inherit->entries[at].fd;
            len += inherit_line(&inherit->entries[at], text + len, sizeof(text) - len);
        }
        err = packet_send(fd, text, len, fds, count);
    }
    if (err == 0)
        err = packet_send(fd, "end", 3, NULL, 0);
    close(fd);
    return err == 0;
}

/* ---- the new master's side ---------------------------------------------------------------- */

static ssize_t packet_recv(int fd, char *text, int fds[TAKEOVER_BATCH], uint32_t *fds_count)
{
    union batch_control control;
    struct iovec slice = {text, PACKET_SIZE};
    struct msghdr header = {.msg_iov = &slice, .msg_iovlen = 1, .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    struct cmsghdr *cmsg;
    ssize_t len;

    *fds_count = 0;
    if (poll(&wait, 1, TAKEOVER_WAIT_MS) <= 0)
        return ERR_TIMEOUT;
    len = recvmsg(fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (len <= 0)
        return ERR_EOF;
    cmsg = CMSG_FIRSTHDR(&header);
    if (cmsg != NULL && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
        *fds_count = (uint32_t)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(cmsg), *fds_count * sizeof(int));
    }
    return len;
}

/* Lines and descriptors come in the same order; the numbers in the lines were the sender's. */
static void batch_take(struct bytes text, const int *fds, uint32_t fds_count, struct inherit *out)
{
    uint32_t used = 0;

    while (text.len > 0 && used < fds_count && out->count < INHERIT_ENTRIES_MAX) {
        const char *end = memchr(text.data, '\n', text.len);
        struct bytes line = bytes_first(text, end == NULL ? text.len : (size_t)(end - text.data));
        struct inherit_entry entry;

        text = bytes_skip(text, line.len + 1);
        if (inherit_parse_line(line, &entry) != 0 || entry.kind == INHERIT_KIND_MAX_)
            close(fds[used++]);
        else
            inherit_add(out, entry.kind, fds[used++], entry.text);
    }
    while (used < fds_count)
        close(fds[used++]);
}

static int takeover_receive(int fd, struct inherit *out)
{
    char text[PACKET_SIZE];
    int fds[TAKEOVER_BATCH];

    for (;;) {
        uint32_t fds_count;
        ssize_t len = packet_recv(fd, text, fds, &fds_count);

        if (len < 0) {
            inherit_free(out, true);
            return (int)len;
        }
        if (bytes_equal(bytes_of(text, (size_t)len), BYTES("end")))
            return 0;
        batch_take(bytes_of(text, (size_t)len), fds, fds_count, out);
    }
}

static int takeover_ask(int fd, struct inherit *out, pid_t *pid)
{
    char text[PACKET_SIZE];
    int fds[TAKEOVER_BATCH];
    uint32_t fds_count;
    ssize_t len = packet_recv(fd, text, fds, &fds_count);

    for (uint32_t i = 0; i < fds_count; i++)
        close(fds[i]);
    if (len < 0)
        return (int)len;
    if (bytes_equal(bytes_of(text, (size_t)len), BYTES("orphan")))
        return takeover_receive(fd, out);
    if (len > 5 && memcmp(text, "live ", 5) == 0) {
        text[MIN((size_t)len, sizeof(text) - 1)] = '\0';
        *pid = (pid_t)strtol(text + 5, NULL, 10);
        return -EADDRINUSE;
    }
    return ERR_EOF;
}

int takeover_probe(const char *name, struct inherit *out, pid_t *pid)
{
    struct sockaddr_un addr;
    socklen_t addr_len = listener_guard_addr(name, &addr);
    int err = 0;

    *pid = 0;
    /* The one who is asked may leave before it answers, and then a sibling has the guard. */
    for (int attempt = 0; attempt < 10; attempt++) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        if (fd < 0)
            return -errno;
        /* Nobody, or somebody whose name is not worth anything: bind() will tell. */
        if (connect(fd, (struct sockaddr *)&addr, addr_len) != 0 ||
            !peer_is_trusted(fd, geteuid())) {
            close(fd);
            return 0;
        }
        err = takeover_ask(fd, out, pid);
        close(fd);
        if (err != ERR_EOF)
            return err;
        usleep(20000);
    }
    return err;
}
