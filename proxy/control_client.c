/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/control_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define PIECE_SIZE 65536u

static int connect_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd, err;

    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
        return fd;
    err = -errno;
    if (fd >= 0)
        close(fd);
    return err;
}

static int send_line(int fd, const char *line)
{
    struct iovec slices[2] = {{(void *)(uintptr_t)line, strlen(line)}, {(void *)(uintptr_t)"\n", 1}};
    struct msghdr message = {.msg_iov = slices, .msg_iovlen = 2};
    /* A line fits into any socket's buffer. */
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);

    return sent < 0 ? -errno : sent == (ssize_t)(slices[0].iov_len + 1) ? 0 : ERR_FULL;
}

static int read_all(int fd, int timeout_ms, struct buffer *out)
{
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        char *room = buffer_reserve(out, PIECE_SIZE);
        ssize_t got;

        if (room == NULL)
            return ERR_FULL;
        if (poll(&ready, 1, timeout_ms) <= 0)
            return ERR_TIMEOUT;
        got = read(fd, room, PIECE_SIZE);
        if (got <= 0)
            return got == 0 ? 0 : -errno;
        out->len += (size_t)got;
    }
}

static bool take_head(struct buffer *out, const char *head)
{
    size_t len = strlen(head);

    if (out->len < len || memcmp(out->data, head, len) != 0)
        return false;
    buffer_consume(out, len);
    return true;
}

int control_ask(const char *path, const char *line, int timeout_ms, struct buffer *out)
{
    int fd = connect_to(path);
    int err;

    if (fd < 0)
        return fd;
    out->max = CONTROL_ANSWER_MAX;
    err = send_line(fd, line);
    if (err == 0)
        err = read_all(fd, timeout_ms, out);
    close(fd);
    if (err != 0)
        return err;
    if (take_head(out, "ok\n"))
        return 0;
    return take_head(out, "error: ") ? ERR_INVALID : ERR_EOF;
}
