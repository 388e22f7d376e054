/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/net.h"
#include "common/base/bytes.h"
#include "common/base/mem.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void die(int errnum, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (errnum != 0)
        fprintf(stderr, ": %s", strerror(errnum));
    fputc('\n', stderr);
    exit(1);
}

uint64_t option_number(const char *name, const char *text, uint64_t min, uint64_t max)
{
    uint64_t value = 0;

    if (!bytes_to_u64(bytes_of_string(text), max, &value) || value < min)
        die(0, "--%s wants a number from %llu to %llu, not '%s'", name, (unsigned long long)min,
            (unsigned long long)max, text);
    return value;
}

static struct sockaddr_in address_of(const char *host, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die(0, "'%s' is not an IPv4 address", host);
    return address;
}

static void set_nodelay(int fd)
{
    int on = 1;

    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
        die(errno, "TCP_NODELAY");
}

int net_listen(const char *host, uint16_t port)
{
    struct sockaddr_in address = address_of(host, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
        die(errno, "socket");
    set_nodelay(fd); /* accepted sockets inherit it: one call less for each */
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 4096) != 0)
        die(errno, "listen on %s:%u", host, port);
    return fd;
}

int net_connect(const char *host, uint16_t port)
{
    struct sockaddr_in address = address_of(host, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die(errno, "connect to %s:%u", host, port);
    set_nodelay(fd);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die(errno, "non-blocking");
    return fd;
}

int net_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
        die(errno, "accept");
    return fd;
}

void net_watch(int epoll, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die(errno, "epoll_ctl");
}

void net_rewatch(int epoll, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};

    if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) != 0)
        die(errno, "epoll_ctl");
}

uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t clock_us(void)
{
    return clock_ns() / 1000;
}

void queue_reserve(struct queue *queue, size_t size)
{
    size_t len = queue_len(queue);
    size_t cap = MAX(queue->cap, (size_t)4096);

    if (queue->start > 0) {
        memmove(queue->data, queue->data + queue->start, len);
        queue->start = 0;
        queue->end = len;
    }
    while (cap - len < size)
        cap *= 2;
    if (cap > QUEUE_BYTES_MAX)
        die(0, "more than %u bytes wait for one peer", QUEUE_BYTES_MAX);
    if (cap != queue->cap) {
        queue->data = must_realloc(queue->data, cap);
        queue->cap = cap;
    }
}

void queue_deinit(struct queue *queue)
{
    mem_free(queue->data);
    *queue = (struct queue){0};
}

bool queue_flush(struct queue *queue, int fd, bool *alive)
{
    ssize_t sent;

    if (queue_len(queue) == 0)
        return true;
    sent = send(fd, queue->data + queue->start, queue_len(queue), MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            *alive = false;
        return false;
    }
    queue->start += (size_t)sent;
    if (queue->start < queue->end)
        return false;
    queue->start = queue->end = 0;
    return true;
}

int net_wait(int epoll, struct epoll_event *events, int max)
{
    int count = epoll_wait(epoll, events, max, -1);

    if (count < 0 && errno != EINTR)
        die(errno, "epoll_wait");
    return MAX(count, 0);
}

bool net_flush(int epoll, int fd, struct queue *queue, bool *wants_write, void *data)
{
    bool alive = true;
    bool is_empty = queue_flush(queue, fd, &alive);

    if (alive && *wants_write == is_empty) {
        *wants_write = !is_empty;
        net_rewatch(epoll, fd, is_empty ? EPOLLIN : EPOLLIN | EPOLLOUT, data);
    }
    return alive;
}
