/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring is made disabled, restricted to the three operations on sockets, and then enabled: whoever takes over a worker
 * can do with it what the seccomp filter lets it do anyway.
 */
#include "common/io/socket_ring.h"
#include "common/base/mem.h"
#include "common/io/uring_restrict.h"

#define SUBMIT_MAX 8 /* tries */

struct socket_ring {
    struct io_uring ring;
    struct msghdr messages[SOCKET_RING_MAX]; /* of the calls that are being made */
    bool is_broken;
};

/* ---- one by one --------------------------------------------------------------------------- */

ssize_t socket_send(int fd, const struct iovec *slices, int count)
{
    ssize_t sent;

    do {
        if (count == 1) {
            sent = send(fd, slices->iov_base, slices->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        } else {
            const struct msghdr message = {
                .msg_iov = (struct iovec *)(uintptr_t)slices,
                .msg_iovlen = (size_t)count,
            };

            sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    } while (UNLIKELY(sent < 0 && errno == EINTR));
    return sent < 0 ? -errno : sent;
}

ssize_t socket_recv(int fd, void *data, size_t room)
{
    ssize_t got;

    do {
        got = recv(fd, data, room, MSG_DONTWAIT);
    } while (UNLIKELY(got < 0 && errno == EINTR));
    return got < 0 ? -errno : got;
}

static void call_alone(struct socket_call *call)
{
    if (call->is_send)
        call->result = socket_send(call->fd, call->slices, call->count);
    else
        call->result = socket_recv(call->fd, call->slices->iov_base, call->slices->iov_len);
}

/* ---- together ----------------------------------------------------------------------------- */

static void call_prepare(struct io_uring_sqe *sqe, struct socket_call *call, struct msghdr *message)
{
    const struct iovec *slice = call->slices;

    if (!call->is_send) {
        io_uring_prep_recv(sqe, call->fd, slice->iov_base, slice->iov_len, MSG_DONTWAIT);
    } else if (call->count == 1) {
        io_uring_prep_send(sqe, call->fd, slice->iov_base, slice->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
        *message = (struct msghdr){
            .msg_iov = (struct iovec *)(uintptr_t)slice,
            .msg_iovlen = (size_t)call->count,
        };
        io_uring_prep_sendmsg(sqe, call->fd, message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    io_uring_sqe_set_data(sqe, call);
    call->result = -EINTR; /* not made yet */
}

/* How many the kernel has taken. */
static unsigned ring_submit(struct socket_ring *ring, unsigned count)
{
    unsigned taken = 0;

    for (unsigned i = 0; i < SUBMIT_MAX && taken < count; i++) {
        int some = io_uring_submit(&ring->ring);

        if (some > 0)
            taken += (unsigned)some;
        else if (some != -EINTR && some != -EAGAIN && some != -EBUSY)
            break;
    }
    return taken;
}

/* They have ended by now: a wait is for a kernel that holds this otherwise. */
static void ring_reap(struct socket_ring *ring, unsigned count)
{
    struct io_uring_cqe *cqe;

    while (count > 0) {
        unsigned head, seen = 0;

        io_uring_for_each_cqe(&ring->ring, head, cqe) {
            struct socket_call *call = io_uring_cqe_get_data(cqe);

            call->result = cqe->res;
            seen++;
        }
        io_uring_cq_advance(&ring->ring, seen);
        ASSERT(seen <= count);
        count -= seen;
        if (UNLIKELY(count > 0)) {
            int err = io_uring_wait_cqe(&ring->ring, &cqe);

            ASSERT(err == 0 || err == -EINTR || err == -EAGAIN);
        }
    }
}

void socket_ring_run(struct socket_ring *ring, struct socket_call *calls, unsigned count)
{
    bool is_whole;
    unsigned taken;

    ASSERT(count <= SOCKET_RING_MAX);
    if (ring == NULL || ring->is_broken || count < 2) {
        for (unsigned i = 0; i < count; i++)
            call_alone(&calls[i]);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        call_prepare(io_uring_get_sqe(&ring->ring), &calls[i], &ring->messages[i]);
    taken = ring_submit(ring, count);
    is_whole = taken == count;
    ring_reap(ring, taken);
    if (UNLIKELY(!is_whole))
        ring->is_broken = true; /* what it still holds is never submitted */
    for (unsigned i = 0; i < count; i++)
        if (UNLIKELY(calls[i].result == -EINTR))
            call_alone(&calls[i]);
}

/* ---- create, destroy ---------------------------------------------------------------------- */

static int ring_setup(struct socket_ring *ring)
{
    struct io_uring_restriction allowed[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_RECV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SEND},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SENDMSG},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_ENABLE_RINGS},
    };
    struct io_uring_params params = {.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL};
    int err = io_uring_queue_init_params(SOCKET_RING_MAX, &ring->ring, &params);

    if (err != 0)
        return err;
    err = uring_restrict(&ring->ring, allowed, ARRAY_COUNT(allowed));
    if (err != 0)
        io_uring_queue_exit(&ring->ring);
    return err;
}

int socket_ring_create(struct socket_ring **out)
{
    struct socket_ring *ring = must_zalloc(sizeof(*ring));
    int err = ring_setup(ring);

    if (err != 0) {
        mem_free(ring);
        return err;
    }
    *out = ring;
    return 0;
}

void socket_ring_destroy(struct socket_ring **slot)
{
    if (*slot == NULL)
        return;
    io_uring_queue_exit(&(*slot)->ring);
    mem_free(*slot);
    *slot = NULL;
}
