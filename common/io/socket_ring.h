/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket_ring.h - receives and sends of several sockets with one system call. For common/io alone.
 *
 * Where there are many connections with little to say each, entering and leaving the kernel is a sixth of what a server
 * costs. A ring is made only for that: what is submitted never waits (MSG_DONTWAIT), so it has ended when the call
 * returns, and nothing of the caller's is lent beyond it.
 *
 *   R1  socket_ring_run() returns when every call has its result, whatever the kernel did with the ring: what the ring
 *       does not take is made by itself. A ring that fails is not used again.
 */
#pragma once
#include "common/base/base.h"

#include <sys/socket.h>
#include <sys/uio.h>

#define SOCKET_RING_MAX 32u

struct socket_ring;

struct socket_call {
    const struct iovec *slices; /* borrows; of a receive: one */
    int count, fd;
    bool is_send;
    ssize_t result; /* bytes, 0 of a receive: the end; or -errno, -EAGAIN among them */
};

/* As send() and recv() that do not wait: bytes, or -errno. */
ssize_t socket_send(int fd, const struct iovec *slices, int count);
ssize_t socket_recv(int fd, void *data, size_t room);

/* Errors: what the kernel said (-EPERM, -ENOSYS where rings are forbidden). */
MUST_USE int socket_ring_create(struct socket_ring **out);
void socket_ring_destroy(struct socket_ring **ring);
/* At most SOCKET_RING_MAX, of different sockets. `ring` NULL: one by one. */
void socket_ring_run(struct socket_ring *ring, struct socket_call *calls, unsigned count);
