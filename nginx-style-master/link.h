/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.h - a socket of their own between a worker and the one that takes its place (WORKER_PASS_CLAIM).
 *
 * Packets: never partial, never merged, in order. The end of the other side is seen, also when it was killed: so a
 * program can go back when its successor fails. Nothing here blocks.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"

#define LINK_DATA_MAX (32u << 10)

struct link_message {
    uint32_t type;
    uint64_t value;
    int fd;            /* the callee's; -1: none */
    struct bytes data; /* lent: in the buffer */
};

MUST_USE int link_pair(int fds[2]);
/* The message's descriptor stays the caller's. ERR_AGAIN: no room; ERR_EOF: nobody there; ERR_INVALID: too long. */
MUST_USE int link_send(int fd, const struct link_message *message);
/* ERR_AGAIN, ERR_EOF, ERR_INVALID (was dropped). */
MUST_USE int link_recv(int fd, struct link_message *message, char buffer[LINK_DATA_MAX]);
/* SIGKILL to whoever made the pair: it does not answer, and what it holds is needed. */
void link_kill_maker(int fd);
void link_close(int *fd); /* any descriptor; becomes -1 */
