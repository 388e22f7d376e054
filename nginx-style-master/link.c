/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/link.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define LINK_MAGIC 0x316b6c77u /* "wlk1" */

struct link_head {
    uint32_t magic, type;
    uint64_t value;
};

union link_control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

int link_pair(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0 ? 0 : -errno;
}

int link_send(int fd, const struct link_message *message)
{
    struct link_head head = {.magic = LINK_MAGIC, .type = message->type, .value = message->value};
    struct iovec slices[2] = {{&head, sizeof(head)},
                              {(void *)(uintptr_t)message->data.data, message->data.len}};
    struct msghdr header = {.msg_iov = slices, .msg_iovlen = 2};
    union link_control control;

    if (message->data.len > LINK_DATA_MAX)
        return ERR_INVALID;
    if (message->fd >= 0) {
        struct cmsghdr *cmsg;

        memset(&control, 0, sizeof(control));
        header.msg_control = control.bytes;
        header.msg_controllen = sizeof(control.bytes);
        cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &message->fd, sizeof(int));
    }
    if (sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
        return 0;
    return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ETOOMANYREFS ? ERR_AGAIN : ERR_EOF;
}

int link_recv(int fd, struct link_message *message, char buffer[LINK_DATA_MAX])
{
    struct link_head head;
    struct iovec slices[2] = {{&head, sizeof(head)}, {buffer, LINK_DATA_MAX}};
    union link_control control;
    struct msghdr header = {.msg_iov = slices, .msg_iovlen = 2, .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *cmsg;
    ssize_t len = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    /* The other end died with words of ours unread. The kernel says so once; what it had sent is still here. */
    if (len < 0 && errno == ECONNRESET)
        len = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return ERR_AGAIN;
    if (len <= 0)
        return ERR_EOF;
    message->fd = -1;
    cmsg = CMSG_FIRSTHDR(&header);
    if (cmsg != NULL && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS &&
        cmsg->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&message->fd, CMSG_DATA(cmsg), sizeof(int));
    if ((size_t)len < sizeof(head) || head.magic != LINK_MAGIC ||
        (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        link_close(&message->fd);
        return ERR_INVALID;
    }
    message->type = head.type;
    message->value = head.value;
    message->data = bytes_of(buffer, (size_t)len - sizeof(head));
    return 0;
}

void link_kill_maker(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 1 && peer.pid != getpid())
        kill(peer.pid, SIGKILL);
}

void link_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
