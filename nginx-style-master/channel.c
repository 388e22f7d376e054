/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/channel.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define HANDOVER_MAGIC   0x4f485257u /* "WRHO" */
#define HANDOVER_VERSION 1u

union control {
    char bytes[CMSG_SPACE(sizeof(int) * WORKER_PASS_FDS_MAX)];
    struct cmsghdr align;
};

static void control_put(struct msghdr *header, union control *control, const int *fds,
                        uint32_t count)
{
    struct cmsghdr *cmsg;

    if (count == 0)
        return;
    memset(control, 0, sizeof(*control));
    header->msg_control = control->bytes;
    header->msg_controllen = CMSG_SPACE(sizeof(int) * count);
    cmsg = CMSG_FIRSTHDR(header);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * count);
}

static void close_all(const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        close(fds[i]);
}

static uint32_t control_take(struct msghdr *header, int *fds)
{
    uint32_t count = 0;

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg != NULL;
         cmsg = CMSG_NXTHDR(header, cmsg)) {
        size_t bytes;

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        bytes = cmsg->cmsg_len - CMSG_LEN(0);
        ASSERT(count + bytes / sizeof(int) <= WORKER_PASS_FDS_MAX); /* the room we gave */
        memcpy(fds + count, CMSG_DATA(cmsg), bytes);
        count += (uint32_t)(bytes / sizeof(int));
    }
    return count;
}

static int send_error(void)
{
    switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
    case ETOOMANYREFS: /* too many descriptors on their way */
    case EINTR:
        return ERR_AGAIN;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return ERR_EOF;
    default:
        return -errno;
    }
}

static int packet_pair(int fds[2], int room)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
        return -errno;
    for (int i = 0; i < 2; i++)
        if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) != 0)
            MAYBE(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)));
    return 0;
}

/* ---- channel ------------------------------------------------------------------------------ */

int channel_pair(int fds[2])
{
    return packet_pair(fds, 256 << 10);
}

int channel_send(int channel, const struct channel_message *message, const char *text, int fd)
{
    struct channel_message head = *message;
    union control control;
    size_t len = text == NULL ? 0 : strlen(text);
    struct iovec slices[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)text, len}};
    struct msghdr header = {.msg_iov = slices, .msg_iovlen = len > 0 ? 2 : 1};

    if (len > WORKER_TEXT_MAX)
        return ERR_INVALID;
    head.text_len = (uint32_t)len;
    control_put(&header, &control, &fd, fd >= 0 ? 1 : 0);
    return sendmsg(channel, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 ? 0 : send_error();
}

int channel_recv(int channel, struct channel_message *message, char *text, int *fd)
{
    union control control;
    struct iovec slices[2] = {{message, sizeof(*message)}, {text, WORKER_TEXT_MAX}};
    struct msghdr header = {.msg_iov = slices, .msg_iovlen = 2, .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    int fds[WORKER_PASS_FDS_MAX];
    uint32_t fds_count;
    ssize_t len = recvmsg(channel, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    /* The other end died with words of ours unread. The kernel says so once; what it had sent is still here. */
    if (len < 0 && errno == ECONNRESET)
        len = recvmsg(channel, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    *fd = -1;
    if (len < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_AGAIN : ERR_EOF;
    if (len == 0)
        return ERR_EOF;
    fds_count = control_take(&header, fds);
    if ((size_t)len < sizeof(*message) || message->text_len != (size_t)len - sizeof(*message) ||
        message->type == 0 || message->type >= CHANNEL_TYPE_MAX_ || fds_count > 1) {
        close_all(fds, fds_count);
        return ERR_INVALID;
    }
    text[message->text_len] = '\0';
    if (fds_count == 1)
        *fd = fds[0];
    return 0;
}

/* ---- hand-over ---------------------------------------------------------------------------- */

int handover_pair(int fds[2])
{
    return packet_pair(fds, 4 << 20);
}

struct handover_head {
    uint32_t magic;
    uint16_t version;
    uint8_t kind, hops;
    uint32_t from_generation, name_len, blob_len;
};
_Static_assert(sizeof(struct handover_head) == HANDOVER_HEAD_SIZE, "no padding");

int handover_decode(struct bytes packet, struct handover *out)
{
    struct handover_head head;

    if (packet.len < sizeof(head))
        return ERR_INVALID;
    memcpy(&head, packet.data, sizeof(head));
    if (head.magic != HANDOVER_MAGIC || head.version != HANDOVER_VERSION)
        return ERR_INVALID;
    if (head.kind > WORKER_PASS_CLAIM && head.kind != HANDOVER_DRAIN)
        return ERR_INVALID;
    if (head.name_len > HANDOVER_NAME_MAX || head.blob_len > WORKER_PASS_BLOB_MAX ||
        packet.len != sizeof(head) + head.name_len + head.blob_len)
        return ERR_INVALID;
    out->kind = head.kind;
    out->hops = head.hops;
    out->from_generation = head.from_generation;
    packet = bytes_skip(packet, sizeof(head));
    out->name = bytes_first(packet, head.name_len);
    out->blob = bytes_skip(packet, head.name_len);
    return 0;
}

int handover_send(int fd, const struct handover *handover, const int *fds, uint32_t fds_count)
{
    struct handover_head head = {
        .magic = HANDOVER_MAGIC,
        .version = HANDOVER_VERSION,
        .kind = handover->kind,
        .hops = handover->hops,
        .from_generation = handover->from_generation,
        .name_len = (uint32_t)handover->name.len,
        .blob_len = (uint32_t)handover->blob.len,
    };
    union control control;
    struct iovec slices[3] = {{&head, sizeof(head)},
                              {(void *)(uintptr_t)handover->name.data, handover->name.len},
                              {(void *)(uintptr_t)handover->blob.data, handover->blob.len}};
    struct msghdr header = {.msg_iov = slices, .msg_iovlen = 3};

    if (handover->blob.len > WORKER_PASS_BLOB_MAX || handover->name.len > HANDOVER_NAME_MAX ||
        fds_count > WORKER_PASS_FDS_MAX)
        return ERR_INVALID;
    control_put(&header, &control, fds, fds_count);
    return sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 ? 0 : send_error();
}

int handover_recv(int fd, char *buffer, struct handover *out, int fds[WORKER_PASS_FDS_MAX],
                  uint32_t *fds_count)
{
    union control control;
    struct iovec slice = {buffer, HANDOVER_SIZE_MAX};
    struct msghdr header = {.msg_iov = &slice, .msg_iovlen = 1, .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    ssize_t len = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    *fds_count = 0;
    if (len <= 0)
        return ERR_AGAIN; /* never the end: every process holds both ends */
    *fds_count = control_take(&header, fds);
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
        handover_decode(bytes_of(buffer, (size_t)len), out) != 0 ||
        (out->kind != HANDOVER_DRAIN && *fds_count == 0)) {
        close_all(fds, *fds_count);
        *fds_count = 0;
        return ERR_INVALID;
    }
    return 0;
}
