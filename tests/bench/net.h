/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.h - what the bench's programs share: sockets on IPv4, a growing byte queue, options.
 *
 * Bench programs run on loopback for seconds, against peers they know. So trouble has one answer:
 * a line on stderr and exit code 1; the bench then says which case failed.
 */
#pragma once
#include "common/base/base.h"

struct epoll_event;

/* "name: text", errno's text behind it if `errnum` is not 0; exits with 1. */
NORETURN void die(int errnum, const char *format, ...) PRINTF_LIKE(2, 3);

/* A decimal between `min` and `max`, or die() naming the option. */
uint64_t option_number(const char *name, const char *text, uint64_t min, uint64_t max);

/* Non-blocking, address reusable, Nagle off for what it accepts. */
int net_listen(const char *host, uint16_t port);
/* A blocking connect; the socket is non-blocking afterwards and has Nagle off. */
int net_connect(const char *host, uint16_t port);
/* The next connection or -1; it is non-blocking and has Nagle off. */
int net_accept(int listener);

void net_watch(int epoll, int fd, uint32_t events, void *data);
void net_rewatch(int epoll, int fd, uint32_t events, void *data);
/* Waits for events, at most `max`; 0: a signal came. */
int net_wait(int epoll, struct epoll_event *events, int max);

uint64_t clock_ns(void);
uint64_t clock_us(void);

/* Marsaglia's xorshift: the same numbers in every run. `*state` is not zero. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Bytes waiting to be sent. Grows up to QUEUE_BYTES_MAX: past that the bench is wrong, and dies. */
#define QUEUE_BYTES_MAX (64u << 20)

struct queue {
    char *data; /* owns */
    size_t start, end, cap;
};

void queue_reserve(struct queue *queue, size_t size);
void queue_deinit(struct queue *queue);
/* Sends what it can: true when nothing is left. *alive turns false when the peer is gone. */
bool queue_flush(struct queue *queue, int fd, bool *alive);

/* queue_flush(), and has the room in the socket watched while something is left. False: the peer is gone. */
bool net_flush(int epoll, int fd, struct queue *queue, bool *wants_write, void *data);

static inline size_t queue_len(const struct queue *queue)
{
    return queue->end - queue->start;
}

static inline void queue_append(struct queue *queue, const void *data, size_t len)
{
    if (UNLIKELY(queue->cap - queue->end < len))
        queue_reserve(queue, len);
    memcpy(queue->data + queue->end, data, len);
    queue->end += len;
}
