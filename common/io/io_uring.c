/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring: reads, writes, flushes and allocations of registered files, nothing else.
 *
 * It is made disabled, restricted to these four and to registered files, and then enabled: whoever
 * takes over a worker cannot use its ring to get around the seccomp filter.
 *
 *   I1  in_flight <= the completion queue's size, so that it cannot overflow; what is above waits.
 *   I2  Ops are never linked: a flush is queued by callers after the completions that it covers.
 *   I3  An error of a write or a flush is reported, never retried; only -EINTR and -EAGAIN (and, with I4, -ECANCELED), where
 *       nothing was done, are tried again, a bounded number of times.
 *   I4  What is large and goes through the page cache is a copy of that size, and memory for it: the kernel's threads make
 *       it (is_aside), not the call that submits, which is the loop's.
 */
#include "common/io/io_uring.h"
#include "common/base/mem.h"
#include "common/io/io_private.h"
#include "common/io/uring_restrict.h"

#include <sys/eventfd.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-aliasing"
#include <ev.h>
#pragma GCC diagnostic pop

#define URING_SQ_SIZE     256
#define URING_CQ_SIZE     2048
#define URING_FILES_MAX   1024
#define URING_RETRY_MAX   64
#define URING_STEP_MAX    (1u << 30) /* of one read or write: the kernel cuts at 2 GiB */
#define URING_AGAIN_S     0.001
#define URING_LOOK        4u /* so many completions between two looks at the clock */

struct uring {
    struct io_uring ring;
    struct ev_loop *loop; /* borrows */
    ev_io readable;       /* of event_fd */
    ev_timer again;       /* the kernel could not take more now */
    int event_fd;
    unsigned in_flight;   /* queued in the ring, or in the kernel */
    struct list waiting;  /* for room (I1) */
    struct io *io;        /* borrows: the loop's */
    uint32_t reap_us;
    bool is_left;         /* completions are there that event_fd will not tell of again */
    uint16_t free_slots[URING_FILES_MAX];
    unsigned free_count;
};

/* ---- submit ------------------------------------------------------------------------------- */

static void uring_prepare(struct io_uring_sqe *sqe, struct uring_op *op)
{
    /* A flush has no data, and NULL + 0 is undefined in C. */
    char *data = op->data != NULL ? op->data + op->moved : NULL;
    unsigned size = (unsigned)MIN(op->size - op->moved, (size_t)URING_STEP_MAX);
    uint64_t off = op->off + op->moved;

    switch ((enum uring_kind)op->kind) {
    case URING_READ:
        io_uring_prep_read(sqe, op->slot, data, size, off);
        break;
    case URING_WRITE:
        io_uring_prep_write(sqe, op->slot, data, size, off);
        break;
    case URING_WRITE_DURABLE:
        io_uring_prep_write(sqe, op->slot, data, size, off);
        sqe->rw_flags = RWF_DSYNC;
        break;
    case URING_DATASYNC:
        io_uring_prep_fsync(sqe, op->slot, IORING_FSYNC_DATASYNC);
        break;
    case URING_ALLOCATE:
        io_uring_prep_fallocate(sqe, op->slot, 0, (off_t)op->off, (off_t)op->size);
        break;
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE | (op->is_aside ? IOSQE_ASYNC : 0u));
    io_uring_sqe_set_data(sqe, op);
}

static bool uring_is_busy(int err)
{
    return err == -EAGAIN || err == -EBUSY || err == -EINTR || err == -ENOMEM;
}

static void uring_flush(struct uring *u)
{
    if (io_uring_sq_ready(&u->ring) == 0)
        return;
    int sent = io_uring_submit(&u->ring);

    ASSERT(sent >= 0 || uring_is_busy(sent));
    if (io_uring_sq_ready(&u->ring) > 0 && !ev_is_active(&u->again)) {
        ev_timer_set(&u->again, URING_AGAIN_S, 0.);
        ev_timer_start(u->loop, &u->again);
    }
}

/* False: no room. */
static bool uring_try_queue(struct uring *u, struct uring_op *op)
{
    struct io_uring_sqe *sqe;

    if (u->in_flight >= URING_CQ_SIZE)
        return false;
    sqe = io_uring_get_sqe(&u->ring);
    if (sqe == NULL) {
        uring_flush(u);
        sqe = io_uring_get_sqe(&u->ring);
    }
    if (sqe == NULL)
        return false;
    uring_prepare(sqe, op);
    u->in_flight++;
    return true;
}

void uring_queue(struct uring *u, struct uring_op *op)
{
    if (!list_is_empty(&u->waiting) || !uring_try_queue(u, op))
        list_push_back(&u->waiting, &op->node);
}

bool uring_can_linger(const struct uring *u)
{
    return (u->ring.features & IORING_FEAT_EXT_ARG) != 0;
}

/* The wait submits what is queued, too. */
static void uring_linger(struct uring *u, uint32_t us)
{
    struct __kernel_timespec limit = {.tv_nsec = (long long)us * 1000};
    struct io_uring_cqe *cqe;

    MAYBE(io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &limit, NULL) < 0);
}

void uring_submit(struct uring *u, uint32_t linger_us)
{
    struct list_node *node;

    while ((node = list_first(&u->waiting)) != NULL) {
        if (!uring_try_queue(u, CONTAINER_OF(node, struct uring_op, node)))
            break;
        list_remove(node);
    }
    if (linger_us > 0)
        uring_linger(u, linger_us);
    uring_flush(u);
}

static void uring_again_run(struct ev_loop *loop, ev_timer *watcher, int events)
{
    (void)loop, (void)watcher, (void)events; /* the turn that this makes submits */
}

/* ---- complete ----------------------------------------------------------------------------- */

static bool uring_is_transfer(const struct uring_op *op)
{
    return op->kind == URING_READ || op->kind == URING_WRITE || op->kind == URING_WRITE_DURABLE;
}

/* True: the op goes on, it is queued again. */
static bool uring_goes_on(struct uring *u, struct uring_op *op, int result)
{
    if (result == -ECANCELED && op->is_aside) { /* the kernel could not make a thread for it */
        op->is_aside = false;
    } else if (result == -EINTR || result == -EAGAIN) {
        if (++op->retry_count > URING_RETRY_MAX)
            return false;
    } else {
        if (result <= 0 || !uring_is_transfer(op) || op->moved + (size_t)result >= op->size)
            return false;
        op->moved += (size_t)result;
        op->retry_count = 0;
    }
    uring_queue(u, op);
    return true;
}

static void uring_completed(struct uring *u, struct uring_op *op, int result)
{
    ssize_t total = result;

    ASSERT(u->in_flight > 0);
    u->in_flight--;
    if (uring_goes_on(u, op, result))
        return;
    if (uring_is_transfer(op)) {
        if (result > 0)
            total = (ssize_t)(op->moved + (size_t)result);
        else if (result == 0 && op->size > 0)
            total = op->kind == URING_READ ? ERR_EOF : -EIO;
        ASSERT(total < 0 || (size_t)total == op->size);
    }
    op->done(op, total);
}

/* What the turn took before counts, but for half of the time. */
static bool uring_is_late(struct uring *u, unsigned count, uint64_t *until_us)
{
    uint64_t now_us;

    if (u->reap_us == 0 || count % URING_LOOK != 0)
        return false;
    now_us = io_clock_us(u->io);
    if (count == URING_LOOK)
        *until_us = MAX(io_now_us(u->io) + u->reap_us, now_us + u->reap_us / 2);
    return now_us >= *until_us;
}

static void uring_reap(struct uring *u)
{
    uint64_t until_us = 0;
    struct io_uring_cqe *cqe;

    io_turn_mark(u->io);
    u->is_left = false;
    /* done() may queue more: a turn has its bound in any case */
    for (unsigned count = 1; io_uring_peek_cqe(&u->ring, &cqe) == 0; count++) {
        struct uring_op *op = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&u->ring, cqe);
        uring_completed(u, op, result);
        if (count >= URING_CQ_SIZE || uring_is_late(u, count, &until_us)) {
            u->is_left = true;
            io_wake(u->io);
            return;
        }
    }
}

void uring_go_on(struct uring *u)
{
    if (UNLIKELY(u->is_left))
        uring_reap(u);
}

static void uring_readable(struct ev_loop *loop, ev_io *watcher, int events)
{
    struct uring *u = CONTAINER_OF(watcher, struct uring, readable);
    uint64_t count;

    (void)loop, (void)events;
    MAYBE(read(u->event_fd, &count, sizeof(count)) == sizeof(count));
    if (LIKELY(!u->is_left)) /* else this turn has had enough, or the next one goes on */
        uring_reap(u);
}

/* ---- files -------------------------------------------------------------------------------- */

int uring_file_add(struct uring *u, int fd)
{
    unsigned slot;
    int err;

    if (u->free_count == 0)
        return ERR_FULL;
    slot = u->free_slots[u->free_count - 1];
    err = io_uring_register_files_update(&u->ring, slot, &fd, 1);
    if (err < 0)
        return err;
    u->free_count--;
    return (int)slot;
}

void uring_file_remove(struct uring *u, int slot)
{
    int none = -1;

    ASSERT(slot >= 0 && slot < URING_FILES_MAX);
    /* On an error the slot is lost, nothing else. */
    if (io_uring_register_files_update(&u->ring, (unsigned)slot, &none, 1) >= 0)
        u->free_slots[u->free_count++] = (uint16_t)slot;
}

/* ---- create, destroy ---------------------------------------------------------------------- */

static int uring_enable(struct uring *u)
{
    struct io_uring_restriction allowed[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE},
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE},
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE | IOSQE_ASYNC},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_FILES_UPDATE},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_ENABLE_RINGS},
    };

    return uring_restrict(&u->ring, allowed, ARRAY_COUNT(allowed));
}

static int uring_init(struct uring *u, unsigned flags)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED | flags,
        .cq_entries = URING_CQ_SIZE,
    };

    return io_uring_queue_init_params(URING_SQ_SIZE, &u->ring, &params);
}

static int uring_setup(struct uring *u)
{
    /* What has completed is told at our next system call, if the kernel knows how to (5.19). Else each completion interrupts
     * us, from another core with an interrupt between the two. */
    int err = uring_init(u, IORING_SETUP_COOP_TASKRUN);

    if (err == -EINVAL)
        err = uring_init(u, 0);
    if (err != 0)
        return err;
    u->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    err = u->event_fd < 0 ? -errno : 0;
    if (err == 0)
        err = io_uring_register_files_sparse(&u->ring, URING_FILES_MAX);
    if (err == 0)
        err = io_uring_register_eventfd(&u->ring, u->event_fd);
    if (err == 0)
        err = uring_enable(u);
    if (err != 0) {
        if (u->event_fd >= 0)
            close(u->event_fd);
        io_uring_queue_exit(&u->ring);
    }
    return err;
}

int uring_create(struct ev_loop *loop, struct io *io, uint32_t reap_us, struct uring **out)
{
    struct uring *u = must_zalloc(sizeof(*u));
    int err;

    u->event_fd = -1;
    err = uring_setup(u);
    if (err != 0) {
        mem_free(u);
        return err;
    }
    u->loop = loop;
    u->io = io;
    u->reap_us = reap_us;
    list_init(&u->waiting);
    while (u->free_count < URING_FILES_MAX) {
        u->free_slots[u->free_count] = (uint16_t)(URING_FILES_MAX - 1 - u->free_count);
        u->free_count++;
    }
    ev_io_init(&u->readable, uring_readable, u->event_fd, EV_READ);
    ev_io_start(loop, &u->readable);
    ev_timer_init(&u->again, uring_again_run, 0., 0.);
    *out = u;
    return 0;
}

/* The buffers are the callers', who will free them next. */
static void uring_drain(struct uring *u)
{
    struct io_uring_cqe *cqe;

    while (u->in_flight > 0) {
        int err = io_uring_submit_and_wait(&u->ring, 1);

        if (err < 0 && !uring_is_busy(err))
            return;
        while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
            io_uring_cqe_seen(&u->ring, cqe);
            u->in_flight--;
        }
    }
}

void uring_destroy(struct uring **slot)
{
    struct uring *u = *slot;

    *slot = NULL;
    if (u == NULL)
        return;
    uring_drain(u);
    ev_io_stop(u->loop, &u->readable);
    ev_timer_stop(u->loop, &u->again);
    close(u->event_fd);
    io_uring_queue_exit(&u->ring);
    mem_free(u);
}
