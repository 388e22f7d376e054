/* SPDX-License-Identifier: Apache-2.0 */
/* uring_restrict.h - a ring that was made disabled can do what `allowed` says, and no more. For common/io alone. */
#pragma once
#include <errno.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

/* liburing 2.3 declares functions for these two calls and does not export them. */
static inline int uring_register(int ring_fd, unsigned opcode, void *arg, unsigned count)
{
    return syscall(__NR_io_uring_register, ring_fd, opcode, arg, count) < 0 ? -errno : 0;
}

/* IORING_REGISTER_ENABLE_RINGS is among what is allowed. Errors: -errno. */
static inline int uring_restrict(const struct io_uring *ring, struct io_uring_restriction *allowed, unsigned count)
{
    int err = uring_register(ring->ring_fd, IORING_REGISTER_RESTRICTIONS, allowed, count);

    return err != 0 ? err : uring_register(ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}
