/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring.h - the ring that files are read and written through. For common/io alone.
 *
 * Ops are queued and submitted once a turn. Short reads and writes are continued.
 */
#pragma once
#include "common/io/io.h"

struct uring;
struct ev_loop;

enum uring_kind { URING_READ, URING_WRITE, URING_WRITE_DURABLE, URING_DATASYNC, URING_ALLOCATE };

/* One op on its way; lies in the op's own private words, or wherever the caller likes. */
struct uring_op {
    struct list_node node; /* while it waits for room in the ring */
    void (*done)(struct uring_op *op, ssize_t result);
    char *data;
    uint64_t off;
    size_t size, moved;
    int32_t slot; /* of uring_file_add() */
    uint8_t kind, retry_count;
    bool is_aside; /* the loop is not to make it, see I4 */
};

/* `reap_us`: so long after a turn's begin it calls done(), but half of that in any case, then it is the next one's; 0: until
 * all have been called. Errors: what the kernel said (-EPERM, -ENOSYS where it is forbidden). */
MUST_USE int uring_create(struct ev_loop *loop, struct io *io, uint32_t reap_us, struct uring **out);
/* Waits for what is under way; done() is not called for it. */
void uring_destroy(struct uring **uring);
/* A slot for the descriptor (which stays the caller's), or ERR_FULL, or -errno. */
MUST_USE int uring_file_add(struct uring *uring, int fd);
void uring_file_remove(struct uring *uring, int slot);
/* Early in each turn that nothing was waited for: what the one before had no time for. */
void uring_go_on(struct uring *uring);
void uring_queue(struct uring *uring, struct uring_op *op);
/* Before the wait of the loop, with one for completions before it of `linger_us` at most; 0: none. */
void uring_submit(struct uring *uring, uint32_t linger_us);
bool uring_can_linger(const struct uring *uring);
