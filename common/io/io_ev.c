/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of a worker, on libev.
 *
 *     before_wait: turn hooks, submit to the ring -> epoll_wait -> after_wait: stamp, what was put off
 *     -> libev's callbacks (timers, descriptors) -> before_wait ...
 *
 *   I1  after_wait has the highest priority: every callback of a turn sees the turn's stamp.
 *   I2  Something that must happen "in the next turn" is put on a list and no_wait is started; it is
 *       never fed to libev in before_wait, whose callbacks would then run after the hooks.
 *
 * The stamps are CLOCK_BOOTTIME: leases are counted on it, and a suspended machine must see them expire.
 */
#include "common/io/io_ev.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/io_ev_private.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sched.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RECV_SIZE_DEFAULT (256u << 10)
#define RECV_SIZE_MIN     (32u << 10)
#define YIELD_US          250u /* of the core at least, between two times that it is left to others */

struct timer_part {
    ev_timer watcher;
    uint64_t deadline_us;
};
_Static_assert(sizeof(struct timer_part) <= sizeof(((struct io_timer *)0)->private_), "timer");

/* ---- clocks and chance -------------------------------------------------------------------- */

static uint64_t clock_read_us(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t ev_clock_us(struct io *io)
{
    (void)io;
    return clock_read_us(CLOCK_BOOTTIME);
}

static uint64_t ev_cpu_us(struct io *io)
{
    (void)io;
    return clock_read_us(CLOCK_THREAD_CPUTIME_ID);
}

static uint64_t ev_wall_us(struct io *io)
{
    (void)io;
    return clock_read_us(CLOCK_REALTIME);
}

static uint64_t ev_random64(struct io *io)
{
    struct io_ev *ev = io_ev_of(io);
    uint64_t value;

    if (ev->random_left == 0) {
        /* 256 bytes and more may be cut by a signal; never fails otherwise once the pool is ready. */
        size_t filled = 0;

        while (filled < sizeof(ev->random)) {
            ssize_t got = getrandom((char *)ev->random + filled, sizeof(ev->random) - filled, 0);

            ASSERT(got > 0 || errno == EINTR);
            filled += got > 0 ? (size_t)got : 0;
        }
        ev->random_left = ARRAY_COUNT(ev->random);
    }
    ev->random_left--;
    value = ev->random[ev->random_left];
    ev->random[ev->random_left] = 0; /* a value is given once */
    return value;
}

/* ---- turns -------------------------------------------------------------------------------- */

static void no_wait_run(struct ev_loop *loop, ev_idle *watcher, int events)
{
    (void)loop, (void)watcher, (void)events;
}

void io_ev_wake(struct io *io)
{
    struct io_ev *ev = io_ev_of(io);

    if (!ev_is_active(&ev->no_wait))
        ev_idle_start(ev->loop, &ev->no_wait);
}

void io_ev_complete_later(struct io_ev *ev, struct io_op *op, ssize_t result)
{
    op->result = result;
    list_push_back(&ev->op_todo, &op->node_);
    io_ev_wake(&ev->io);
}

/* Those that a done() adds are for the next turn; one that it cancels leaves the batch. */
static void op_todo_run(struct io_ev *ev)
{
    struct list batch;
    struct list_node *node;

    list_init(&batch);
    list_move_all(&ev->op_todo, &batch);
    while ((node = list_pop_front(&batch)) != NULL) {
        struct io_op *op = CONTAINER_OF(node, struct io_op, node_);

        op->done(op);
    }
}

static void after_wait_run(struct ev_loop *loop, ev_check *watcher, int events)
{
    struct io_ev *ev = CONTAINER_OF(watcher, struct io_ev, after_wait);

    (void)events;
    io_turn_stamp(&ev->io, ev_clock_us(&ev->io));
    ev->is_late = false;
    ev->streams_until_us = 0;
    if (!ev_is_active(&ev->no_wait))
        return;
    ev_idle_stop(loop, &ev->no_wait);
    io_turn_mark(&ev->io);
    op_todo_run(ev);
    io_ev_file_todo(ev);
    io_ev_stream_todo(ev);
}

static void before_wait_run(struct ev_loop *loop, ev_prepare *watcher, int events)
{
    struct io_ev *ev = CONTAINER_OF(watcher, struct io_ev, before_wait);

    (void)loop, (void)events;
    io_turn_end(&ev->io);
    io_ev_file_before_wait(ev);
    if (UNLIKELY(ev->yields)) {
        ev->yields = false;
        if (ev_clock_us(&ev->io) >= ev->yielded_us + YIELD_US) {
            MAYBE(sched_yield());
            ev->yielded_us = ev_clock_us(&ev->io);
        }
    }
}

static void ev_run_loop(struct io *io)
{
    struct io_ev *ev = io_ev_of(io);

    ASSERT(!ev->is_running);
    ev->is_running = true;
    ev_now_update(ev->loop);
    io_turn_stamp(io, ev_clock_us(io));
    io_turn_mark(io); /* what was set up before may wait for the hooks */
    while (!ev->is_stopping)
        ev_run(ev->loop, 0);
    io_turn_end(io); /* ev_break() leaves before them */
    ev->is_stopping = false;
    ev->is_running = false;
}

static bool ev_linger(struct io *io, uint32_t us, bool is_turn)
{
    struct io_ev *ev = io_ev_of(io);

    if (!io_ev_file_can_linger(ev))
        return false;
    ev->linger_us = ev->linger_us == 0 ? us : MIN(ev->linger_us, us);
    ev->linger_is_turn |= is_turn;
    return true;
}

static void ev_yield(struct io *io)
{
    io_ev_of(io)->yields = true;
}

static void ev_stop_loop(struct io *io)
{
    struct io_ev *ev = io_ev_of(io);

    ev->is_stopping = true;
    ev_break(ev->loop, EVBREAK_ONE);
    io_ev_wake(io); /* a stop from a hook must not wait */
}

/* ---- timers ------------------------------------------------------------------------------- */

static struct timer_part *timer_part(struct io_timer *timer)
{
    return (struct timer_part *)(void *)timer->private_;
}

static void timer_run(struct ev_loop *loop, ev_timer *watcher, int events)
{
    struct io_timer *timer = watcher->data;
    struct io *io = timer->io;
    uint64_t deadline_us = timer_part(timer)->deadline_us;

    (void)events;
    /* libev read its clock a moment before we read ours: never fire before our own stamps say so. */
    if (UNLIKELY(io->now_us < deadline_us)) {
        ev_timer_set(watcher, (double)(deadline_us - io->now_us) / 1e6, 0.);
        ev_timer_start(loop, watcher);
        return;
    }
    io_turn_mark(io);
    timer->io = NULL;
    timer->fire(timer);
}

static void ev_timer_start_ms(struct io *io, struct io_timer *timer, uint64_t delay_ms)
{
    struct io_ev *ev = io_ev_of(io);
    struct timer_part *part = timer_part(timer);

    delay_ms = MIN(delay_ms, UINT64_C(1000) * 86400 * 365);
    if (timer->io != NULL)
        ev_timer_stop(ev->loop, &part->watcher);
    if (!ev->is_running) { /* during setup the stamps stand still */
        ev_now_update(ev->loop);
        io_turn_stamp(io, ev_clock_us(io));
    }
    ev_timer_init(&part->watcher, timer_run, (double)delay_ms / 1e3, 0.);
    part->watcher.data = timer;
    part->deadline_us = io->now_us + delay_ms * 1000;
    timer->io = io;
    ev_timer_start(ev->loop, &part->watcher);
}

static void ev_timer_stop_now(struct io *io, struct io_timer *timer)
{
    ev_timer_stop(io_ev_of(io)->loop, &timer_part(timer)->watcher);
    timer->io = NULL;
}

/* ---- descriptors -------------------------------------------------------------------------- */

void io_ev_poll_forget(struct io_ev *ev, int fd)
{
    /* libev leaves descriptors in the set and drops them when they report. One that lives on in
     * another process would report for ever, under a number that is no longer ours. */
    if (ev->poll_fd >= 0)
        (void)epoll_ctl(ev->poll_fd, EPOLL_CTL_DEL, fd, &(struct epoll_event){0});
}

int io_ev_socket_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    if ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

/* libev does not tell its descriptor. It makes it first, so it gets the lowest free number. */
static int poll_fd_find(struct io_ev *ev)
{
    int probe = epoll_create1(EPOLL_CLOEXEC);
    int guess = probe;

    if (probe < 0)
        return -errno;
    close(probe);
    ev->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (ev->loop == NULL)
        return -ENOMEM;
    /* An epoll descriptor says ENOENT of what is not in it; anything else EINVAL or EBADF. */
    probe = epoll_create1(EPOLL_CLOEXEC);
    if (probe >= 0) {
        bool is_epoll = epoll_ctl(guess, EPOLL_CTL_DEL, probe, &(struct epoll_event){0}) < 0 &&
                        errno == ENOENT;

        ev->poll_fd = is_epoll ? guess : -1;
        close(probe);
    }
    return 0;
}

/* ---- create, destroy ---------------------------------------------------------------------- */

static const struct io_vtable io_ev_vtable = {
    .clock_us = ev_clock_us,
    .cpu_us = ev_cpu_us,
    .wall_us = ev_wall_us,
    .random64 = ev_random64,
    .shared_map = io_ev_shared_map,
    .shared_size = io_ev_shared_size,
    .shared_why = io_ev_shared_why,
    .shared_unmap = io_ev_shared_unmap,
    .shared_remove = io_ev_shared_remove,
    .boot_id = io_ev_boot_id,
    .wake = io_ev_wake,
    .linger = ev_linger,
    .submit = io_ev_file_submit_now,
    .yield = ev_yield,
    .run = ev_run_loop,
    .stop = ev_stop_loop,
    .timer_start = ev_timer_start_ms,
    .timer_stop = ev_timer_stop_now,
    .stream_open = io_ev_stream_open,
    .stream_connect = io_ev_stream_connect,
    .stream_resume = io_ev_stream_resume,
    .stream_pause = io_ev_stream_pause,
    .stream_send = io_ev_stream_send,
    .streams_send = io_ev_streams_send,
    .stream_shutdown = io_ev_stream_shutdown,
    .stream_close = io_ev_stream_close,
    .stream_detach = io_ev_stream_detach,
    .stream_peer = io_ev_stream_peer,
    .stream_local = io_ev_stream_local,
    .listener_start = io_ev_listener_start,
    .listener_stop = io_ev_listener_stop,
    .watch_start = io_ev_watch_start,
    .watch_stop = io_ev_watch_stop,
    .resolve_submit = io_ev_resolve_submit,
    .resolve_cancel = io_ev_resolve_cancel,
    .file_open = io_ev_file_open,
    .file_close = io_ev_file_close,
    .file_submit = io_ev_file_submit,
    .path_submit = io_ev_path_submit,
    .list_submit = io_ev_list_submit,
    .touch = io_ev_touch,
};

static void io_ev_watchers_init(struct io_ev *ev)
{
    ev_prepare_init(&ev->before_wait, before_wait_run);
    ev_set_priority(&ev->before_wait, EV_MINPRI);
    ev_prepare_start(ev->loop, &ev->before_wait);
    ev_check_init(&ev->after_wait, after_wait_run);
    ev_set_priority(&ev->after_wait, EV_MAXPRI);
    ev_check_start(ev->loop, &ev->after_wait);
    ev_idle_init(&ev->no_wait, no_wait_run);
}

static void sockets_init(struct io_ev *ev)
{
    int err = socket_ring_create(&ev->sockets);

    if (err != 0)
        log_notice(ev->io.log, "sockets: io_uring is refused, each call is made by itself: %s", err_text(err));
}

int io_ev_create(const struct io_ev_options *options, struct io **out)
{
    struct io_ev *ev = must_zalloc(sizeof(*ev));
    int err;

    io_init(&ev->io, &io_ev_vtable, options->log);
    list_init(&ev->stream_late);
    list_init(&ev->stream_todo);
    list_init(&ev->op_todo);
    ev->streams_us = options->streams_us;
    ev->io.steps_us = options->steps_us;
    ev->poll_fd = -1;
    ev->stream_fd = -1;
    ev->dir_fd = -1;
    ev->recv_size = MAX(RECV_SIZE_MIN, options->recv_size != 0 ? options->recv_size
                                                               : (size_t)RECV_SIZE_DEFAULT);
    err = poll_fd_find(ev);
    if (err != 0) {
        mem_free(ev);
        return err;
    }
    ev->recv_data = must_alloc(ev->recv_size);
    io_ev_watchers_init(ev);
    io_ev_socket_init(ev);
    io_ev_name_init(ev);
    io_turn_stamp(&ev->io, ev_clock_us(&ev->io));
    *out = &ev->io;
    err = io_ev_file_init(ev, options);
    if (err == 0)
        err = io_ev_stream_init(ev);
    if (err == 0 && options->sockets == IO_SOCKETS_TOGETHER)
        sockets_init(ev);
    if (err == 0 && options->start_threads)
        err = io_ev_name_start_threads(ev);
    if (err != 0)
        io_ev_destroy(out);
    return err;
}

void io_ev_destroy(struct io **slot)
{
    struct io_ev *ev;

    if (*slot == NULL)
        return;
    ev = io_ev_of(*slot);
    *slot = NULL;
    ASSERT(!ev->is_running);
    io_ev_file_deinit(ev);
    io_ev_name_deinit(ev);
    io_ev_socket_deinit(ev);
    io_ev_stream_deinit(ev);
    ev_idle_stop(ev->loop, &ev->no_wait);
    ev_check_stop(ev->loop, &ev->after_wait);
    ev_prepare_stop(ev->loop, &ev->before_wait);
    ev_loop_destroy(ev->loop);
    socket_ring_destroy(&ev->sockets);
    mem_free(ev->recv_data);
    mem_free(ev->ahead_data);
    mem_free(ev);
}

#define VERSION_TEXT_(number) #number
#define VERSION_TEXT(number)  VERSION_TEXT_(number)

const char *io_ev_library_version(void)
{
    return VERSION_TEXT(EV_VERSION_MAJOR) "." VERSION_TEXT(EV_VERSION_MINOR);
}
