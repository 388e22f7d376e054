/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/node_client.h"

#include "common/base/err.h"
#include "common/proto/resp.h"

#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define WAIT_S    10
#define READ_SIZE 65536u
#define REPLY_MAX (256u << 20)

void node_answer_deinit(struct node_answer *answer)
{
    buffer_deinit(&answer->text);
    *answer = (struct node_answer){.count = 0};
}

const char *node_answer_item(const struct node_answer *answer, uint32_t i)
{
    const char *at = answer->text.data;

    if (i >= answer->count)
        return "";
    for (; i > 0; i--)
        at += strlen(at) + 1;
    return at;
}

/* ---- reading ---------------------------------------------------------------------------------- */

static void item_add(struct node_answer *out, struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i] != '\0' ? text.data[i] : ' ';

        buffer_append(&out->text, &c, 1);
    }
    buffer_append(&out->text, "", 1);
    out->count++;
}

/* A whole reply: one item, or a list of such. */
static int answer_take(struct bytes reply, struct node_answer *out)
{
    bool is_first = true;

    for (uint64_t left = 1; left > 0; left--) {
        struct resp_value value;

        if (!resp_next(&reply, &value) || value.is_null)
            return ERR_INVALID;
        if (is_first && value.type == '*') {
            left += (uint64_t)value.integer;
        } else {
            if (strchr("$+-:", value.type) == NULL)
                return ERR_INVALID;
            out->is_error |= is_first && value.type == '-';
            item_add(out, value.payload);
        }
        is_first = false;
    }
    return out->text.failed ? ERR_FULL : 0;
}

/* As many bytes as one reply has; nothing comes behind it, as nothing more was asked. */
static int reply_read(int fd, struct buffer *reply)
{
    struct proto_limits limits = PROTO_LIMITS_DEFAULT;
    struct resp_reply_parser parser = {0};
    enum parse_result result = PARSE_MORE;
    size_t at = 0;

    while (result == PARSE_MORE) {
        char *room = buffer_reserve(reply, READ_SIZE);
        size_t scanned;
        ssize_t got;

        if (room == NULL)
            return ERR_FULL;
        do
            got = recv(fd, room, READ_SIZE, 0);
        while (got < 0 && errno == EINTR);
        if (got <= 0)
            return got == 0 ? ERR_EOF : errno == EAGAIN ? ERR_TIMEOUT : -errno;
        reply->len += (size_t)got;
        result = resp_reply_scan(&parser, &limits, bytes_skip(buffer_bytes(reply), at), &scanned);
        at += scanned;
    }
    return result == PARSE_OK && at == reply->len ? 0 : ERR_INVALID;
}

/* ---- asking ----------------------------------------------------------------------------------- */

static void compose(struct buffer *out, const char *command)
{
    const char *at = command;
    char head[32];
    unsigned words = 1;

    for (const char *c = command; *c != '\0'; c++)
        words += *c == ' ';
    buffer_append(out, head, (size_t)snprintf(head, sizeof(head), "*%u\r\n", words));
    for (unsigned i = 0; i < words; i++) {
        size_t len = strcspn(at, " ");

        buffer_append(out, head, (size_t)snprintf(head, sizeof(head), "$%zu\r\n", len));
        buffer_append(out, at, len);
        buffer_append(out, "\r\n", 2);
        at += len + (at[len] == ' ');
    }
}

static int exchange(int fd, struct bytes request, struct node_answer *out)
{
    struct buffer reply = {.max = REPLY_MAX};
    int err;

    *out = (struct node_answer){.count = 0};
    while (request.len > 0) {
        ssize_t sent = send(fd, request.data, request.len, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN ? ERR_TIMEOUT : -errno;
        request = bytes_skip(request, (size_t)sent);
    }
    err = reply_read(fd, &reply);
    if (err == 0)
        err = answer_take(buffer_bytes(&reply), out);
    buffer_deinit(&reply);
    return err;
}

int node_ask(int fd, const char *command, struct node_answer *out)
{
    struct buffer request = {0};
    int err;

    compose(&request, command);
    err = exchange(fd, buffer_bytes(&request), out);
    buffer_deinit(&request);
    return err;
}

/* ---- connecting ------------------------------------------------------------------------------- */

static int connect_any(const char *host, uint16_t port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    const struct timeval wait = {.tv_sec = WAIT_S};
    struct addrinfo *found = NULL;
    char service[8];
    int fd = -1, err;

    (void)snprintf(service, sizeof(service), "%u", port);
    err = getaddrinfo(host, service, &hints, &found);
    if (err != 0) {
        fprintf(stderr, "weirctl: %s: %s\n", host, gai_strerror(err));
        return -1;
    }
    err = 0;
    for (const struct addrinfo *info = found; info != NULL && fd < 0; info = info->ai_next) {
        fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC, info->ai_protocol);
        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0 &&
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
            connect(fd, info->ai_addr, info->ai_addrlen) == 0)
            break;
        err = -errno;
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0)
        fprintf(stderr, "weirctl: %s:%u: %s\n", host, port, err_text(err));
    return fd;
}

const char *node_error_text(int err)
{
    return err == ERR_INVALID ? "what answers there is no node" : err_text(err);
}

/* The password may have spaces in it. */
static bool authenticate(int fd, const char *host, uint16_t port)
{
    const char *password = getenv(NODE_PASSWORD_ENV);
    struct node_answer answer;
    struct buffer request = {0};
    char head[48];
    int err;

    if (password == NULL)
        return true;
    buffer_append(&request, head,
                  (size_t)snprintf(head, sizeof(head), "*2\r\n$4\r\nAUTH\r\n$%zu\r\n", strlen(password)));
    buffer_append_string(&request, password);
    buffer_append(&request, "\r\n", 2);
    err = exchange(fd, buffer_bytes(&request), &answer);
    buffer_deinit(&request);
    if (err != 0 || answer.is_error)
        fprintf(stderr, "weirctl: %s:%u: %s\n", host, port, err != 0 ? node_error_text(err) : node_answer_item(&answer, 0));
    if (err == 0 && answer.is_error)
        err = ERR_INVALID;
    node_answer_deinit(&answer);
    return err == 0;
}

int node_connect(const char *host, uint16_t port, bool *is_nobody)
{
    int fd = connect_any(host, port);

    *is_nobody = fd < 0;
    if (fd < 0 || authenticate(fd, host, port))
        return fd < 0 ? ERR_NOT_FOUND : fd;
    close(fd);
    return ERR_INVALID;
}
