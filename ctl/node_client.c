/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/node_client.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define WAIT_S    10
#define LINE_MAX_ 65536u
#define ITEMS_MAX 10000000u

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

struct reader {
    int fd, err;
    char data[4096];
    size_t at, len;
};

static int reader_byte(struct reader *reader)
{
    if (reader->at == reader->len) {
        ssize_t got;

        do
            got = recv(reader->fd, reader->data, sizeof(reader->data), 0);
        while (got < 0 && errno == EINTR);
        if (got <= 0) {
            reader->err = got == 0 ? ERR_EOF : errno == EAGAIN ? ERR_TIMEOUT : -errno;
            return -1;
        }
        reader->at = 0;
        reader->len = (size_t)got;
    }
    return (unsigned char)reader->data[reader->at++];
}

/* Up to CR LF, which are not kept. False: it ended, or is no line. */
static bool reader_line(struct reader *reader, struct buffer *out)
{
    buffer_clear(out);
    while (out->len < LINE_MAX_) {
        int byte = reader_byte(reader);
        char c = (char)byte;

        if (byte < 0)
            return false;
        if (c == '\n' && out->len > 0 && out->data[out->len - 1] == '\r') {
            out->data[--out->len] = '\0';
            return true;
        }
        buffer_append(out, &c, 1);
    }
    reader->err = ERR_INVALID;
    return false;
}

static bool read_item(struct reader *reader, struct buffer *line, struct node_answer *out, bool may_be_list,
                      uint64_t *list);

static bool read_bulk(struct reader *reader, const struct buffer *line, struct node_answer *out)
{
    uint64_t len;

    if (!bytes_to_u64(bytes_of_string(line->data + 1), LINE_MAX_, &len)) {
        reader->err = ERR_INVALID;
        return false;
    }
    for (uint64_t i = 0; i < len + 2; i++) {
        int byte = reader_byte(reader);
        char c = byte == 0 ? ' ' : (char)byte;

        if (byte < 0)
            return false;
        if (i < len)
            buffer_append(&out->text, &c, 1);
    }
    return true;
}

static bool read_item(struct reader *reader, struct buffer *line, struct node_answer *out, bool may_be_list,
                      uint64_t *list)
{
    if (!reader_line(reader, line))
        return false;
    switch (line->data[0]) {
    case '*':
        if (may_be_list && bytes_to_u64(bytes_of_string(line->data + 1), ITEMS_MAX, list))
            return true;
        break;
    case '$':
        if (!read_bulk(reader, line, out))
            return false;
        buffer_append(&out->text, "", 1);
        out->count++;
        return true;
    case '-':
        out->is_error = may_be_list;
        FALLTHROUGH;
    case '+':
    case ':':
        buffer_append(&out->text, line->data + 1, line->len - 1);
        buffer_append(&out->text, "", 1);
        out->count++;
        return true;
    default:
        break;
    }
    reader->err = ERR_INVALID;
    return false;
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
    struct reader reader = {.fd = fd};
    struct buffer line = {0};
    uint64_t list = 0;

    *out = (struct node_answer){.count = 0};
    while (request.len > 0) {
        ssize_t sent = send(fd, request.data, request.len, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN ? ERR_TIMEOUT : -errno;
        request = bytes_skip(request, (size_t)sent);
    }
    if (read_item(&reader, &line, out, true, &list))
        while (list > 0 && read_item(&reader, &line, out, false, &list))
            list--;
    buffer_deinit(&line);
    return reader.err;
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
        fprintf(stderr, "weirctl: %s:%u: %s\n", host, port, err != 0 ? err_text(err) : node_answer_item(&answer, 0));
    if (err == 0 && answer.is_error)
        err = ERR_INVALID;
    node_answer_deinit(&answer);
    return err == 0;
}

int node_connect(const char *host, uint16_t port)
{
    int fd = connect_any(host, port);

    if (fd >= 0 && !authenticate(fd, host, port)) {
        close(fd);
        return -1;
    }
    return fd;
}
