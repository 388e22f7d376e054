/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.h - the two kinds of messages between processes, both over AF_UNIX SOCK_SEQPACKET.
 *
 *   channel   master <-> one child; dies with either end, and that is how both notice.
 *   hand-over any worker -> one slot; the pair belongs to the slot, not to the worker: what waits in it
 *             when a worker dies is read by its successor, or moved on by the master.
 *
 * A message is one packet: never partial, never merged. Nothing here blocks.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "nginx-style-master/master.h"
#include "nginx-style-master/worker.h"

#define LANE_WORDS 2u /* 64 lanes a word */
_Static_assert(LANE_WORDS * 64 == MASTER_WORKERS_MAX, "a lane for each worker");

/* Which sockets of the reuseport groups a worker accepts from. */
struct lanes {
    uint64_t bits[LANE_WORDS];
    uint8_t is_accepting; /* shared sockets too */
};

enum channel_type {
    /* to a child */
    CHANNEL_ACCEPT = 1, /* lanes */
    CHANNEL_DRAIN,      /* value: timeout in ms */
    CHANNEL_STOP,
    CHANNEL_REOPEN,    /* with the master's log descriptor, when it is a file */
    CHANNEL_LOG_LEVEL, /* value */
    CHANNEL_SET,       /* text */
    CHANNEL_APPLY,     /* text */
    CHANNEL_SUCCESSOR,
    CHANNEL_RETIRED, /* value: slot */
    CHANNEL_REPLY,   /* id, value: -err, text */
    /* to the master */
    CHANNEL_READY,
    CHANNEL_LEAVING, /* an operator told the worker, not the master, to drain */
    CHANNEL_REQUEST, /* id, value: enum worker_request, text */
    /* between masters, during an upgrade */
    CHANNEL_UPGRADED, /* the new one serves */
    CHANNEL_REFUSED,  /* it does not; text */
    CHANNEL_STARTING, /* its workers, which claim what has one owner, are getting ready: each half second */
    CHANNEL_TYPE_MAX_,
};

struct channel_message {
    uint32_t type, value;
    uint64_t id;
    struct lanes lanes;
    uint32_t text_len;
    uint32_t pad_;
};

MUST_USE int channel_pair(int fds[2]);
/* `text` may be NULL. fd -1: none; it is duplicated, the caller keeps its own. ERR_AGAIN: no room.
 * ERR_EOF: nobody there. */
MUST_USE int channel_send(int channel, const struct channel_message *message, const char *text,
                          int fd);
/* For messages whose loss changes nothing. */
static inline void channel_try_send(int channel, const struct channel_message *message,
                                    const char *text, int fd)
{
    int err = channel_send(channel, message, text, fd);

    MAYBE(err);
}
/* Text is NUL-terminated in `text` (room for WORKER_TEXT_MAX + 1). *fd: -1 or the caller's. ERR_AGAIN,
 * ERR_EOF, ERR_INVALID (was dropped). */
MUST_USE int channel_recv(int channel, struct channel_message *message, char *text, int *fd);

/* ---- hand-over ---------------------------------------------------------------------------- */

#define HANDOVER_NAME_MAX 128u
#define HANDOVER_DRAIN    255u /* a kind beside enum worker_pass_kind: an adopting master's order */

/* On the wire: magic 4, version 2, kind 1, hops 1, from_generation 4, name_len 4, blob_len 4, then name
 * and blob; host byte order, as the descriptors beside it never leave the machine. Valid if and only
 * if the lengths add up to the packet's and are within their bounds. */
struct handover {
    uint8_t kind, hops;
    uint32_t from_generation;
    struct bytes name, blob; /* lent */
};
#define HANDOVER_HEAD_SIZE 20u
#define HANDOVER_SIZE_MAX  (HANDOVER_HEAD_SIZE + HANDOVER_NAME_MAX + WORKER_PASS_BLOB_MAX)

MUST_USE int handover_pair(int fds[2]);
/* ERR_INVALID. */
MUST_USE int handover_decode(struct bytes packet, struct handover *out);
MUST_USE int handover_send(int fd, const struct handover *handover, const int *fds,
                           uint32_t fds_count);
/* `buffer` has room for HANDOVER_SIZE_MAX. ERR_AGAIN; ERR_INVALID (was dropped, descriptors closed). */
MUST_USE int handover_recv(int fd, char *buffer, struct handover *out,
                           int fds[WORKER_PASS_FDS_MAX], uint32_t *fds_count);
