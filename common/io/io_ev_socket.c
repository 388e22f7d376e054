/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners and watches.
 *
 * A socket that several processes accept from wakes all of them for each connection, unless it is in
 * the epoll set with EPOLLEXCLUSIVE. libev cannot ask for that, so such a socket gets an epoll set of
 * its own, which libev watches. Through two sets the kernel does not stop at the first process that it
 * wakes, but whoever comes late finds the inner set empty again and sleeps on. Measured with 4
 * processes and 100 single connections: 158 wakes, accepts spread 28 27 22 23; with the socket
 * exclusively in the set that is waited on: 100 wakes, all accepted by one process.
 */
#include "common/base/log.h"
#include "common/io/io_ev_private.h"

#include <sys/epoll.h>
#include <unistd.h>

#define ACCEPT_TURN_MAX    64
/* From a shared socket, so that the others get some of a burst; where a turn is bounded (streams_us), too: each costs
 * some system calls. */
#define ACCEPT_FEW_MAX     8
#define ACCEPT_PAUSE_MS    100

struct listener_part {
    ev_io watcher;
    struct list_node pause_node; /* linked while the process has no descriptors left */
    int poll_fd;                 /* owns; -1 unless is_exclusive */
};
_Static_assert(sizeof(struct listener_part) <= sizeof(((struct io_listener *)0)->private_), "");
_Static_assert(sizeof(ev_io) <= sizeof(((struct io_watch *)0)->private_), "");

static struct listener_part *listener_part(struct io_listener *listener)
{
    return (struct listener_part *)(void *)listener->private_;
}

/* ---- accept ------------------------------------------------------------------------------- */

static void listener_pause_end(struct ev_loop *loop, ev_timer *watcher, int events)
{
    struct io_ev *ev = CONTAINER_OF(watcher, struct io_ev, listener_pause);
    struct list_node *node;

    (void)events;
    while ((node = list_pop_front(&ev->listener_paused)) != NULL)
        ev_io_start(loop, &CONTAINER_OF(node, struct listener_part, pause_node)->watcher);
}

static void listener_pause(struct io_ev *ev, struct io_listener *listener, int err)
{
    struct listener_part *part = listener_part(listener);
    uint32_t suppressed;

    if (log_limit_allows(&ev->accept_log, io_now_ms(&ev->io), 3, 10000, &suppressed))
        log_warn(ev->io.log,
                 "accept: paused for %d ms: %s (raise rlimit_nofile if it is for descriptors) "
                 "fd=%d suppressed=%u",
                 ACCEPT_PAUSE_MS, err_text(err), listener->fd, suppressed);
    ev_io_stop(ev->loop, &part->watcher);
    list_push_back(&ev->listener_paused, &part->pause_node);
    if (!ev_is_active(&ev->listener_pause)) {
        ev_timer_set(&ev->listener_pause, ACCEPT_PAUSE_MS / 1e3, 0.);
        ev_timer_start(ev->loop, &ev->listener_pause);
    }
}

/* These are of one connection that died in the queue, or that a firewall refused: take the next. */
static bool accept_error_is_of_peer(int err)
{
    static const int of_peer[] = {
        EINTR,  ECONNABORTED, ECONNRESET, EPROTO,       ENOPROTOOPT, ENETDOWN, EHOSTDOWN,
        ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH,  EPERM,       ETIMEDOUT,
    };

    for (size_t i = 0; i < ARRAY_COUNT(of_peer); i++) {
        if (of_peer[i] == err)
            return true;
    }
    return false;
}

static void listener_event(struct ev_loop *loop, ev_io *watcher, int events)
{
    struct io_listener *listener = watcher->data;
    struct io_ev *ev = io_ev_of(listener->io);
    int count_max = listener->is_exclusive || ev->streams_us != 0 ? ACCEPT_FEW_MAX : ACCEPT_TURN_MAX;

    (void)loop, (void)events;
    io_turn_mark(&ev->io);
    ev->listener_current = listener;
    for (int i = 0; i < count_max && ev->listener_current == listener; i++) {
        struct io_addr peer = {0};
        socklen_t len = sizeof(peer) - offsetof(struct io_addr, any);
        int fd = accept4(listener->fd, &peer.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            peer.len = len;
            listener->accepted(listener, fd, &peer);
        } else if (errno == EAGAIN) {
            break;
        } else if (!accept_error_is_of_peer(errno)) {
            listener_pause(ev, listener, -errno);
            break;
        }
    }
    ev->listener_current = NULL;
}

/* The descriptor to watch in the place of fd, or a negative error. */
static int listener_open_poll(int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
    int poll_fd = epoll_create1(EPOLL_CLOEXEC);

    if (poll_fd < 0)
        return -errno;
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        int err = -errno;

        close(poll_fd);
        return err;
    }
    return poll_fd;
}

void io_ev_listener_start(struct io *io, struct io_listener *listener, int fd)
{
    struct io_ev *ev = io_ev_of(io);
    struct listener_part *part = listener_part(listener);

    memset(part, 0, sizeof(*part));
    part->poll_fd = -1;
    if (listener->is_exclusive)
        part->poll_fd = listener_open_poll(fd);
    if (io_ev_socket_nonblocking(fd) != 0)
        log_error(io->log, "accept: not a socket fd=%d", fd);
    listener->io = io;
    listener->fd = fd;
    ev_io_init(&part->watcher, listener_event, part->poll_fd >= 0 ? part->poll_fd : fd, EV_READ);
    part->watcher.data = listener;
    ev_io_start(ev->loop, &part->watcher);
}

void io_ev_listener_stop(struct io *io, struct io_listener *listener)
{
    struct io_ev *ev = io_ev_of(io);
    struct listener_part *part = listener_part(listener);

    if (list_node_is_linked(&part->pause_node))
        list_remove(&part->pause_node);
    ev_io_stop(ev->loop, &part->watcher);
    if (part->poll_fd >= 0)
        close(part->poll_fd);
    else
        io_ev_poll_forget(ev, listener->fd);
    if (ev->listener_current == listener)
        ev->listener_current = NULL;
    listener->io = NULL;
}

/* ---- watches ------------------------------------------------------------------------------ */

static void watch_event(struct ev_loop *loop, ev_io *watcher, int events)
{
    struct io_watch *watch = watcher->data;
    int wanted = watcher->events;

    (void)loop;
    io_turn_mark(watch->io);
    if ((events & EV_ERROR) != 0) /* the descriptor is bad: the next read will say how */
        events |= EV_READ | EV_WRITE;
    watch->ready(watch, (events & wanted & EV_READ) != 0, (events & wanted & EV_WRITE) != 0);
}

void io_ev_watch_start(struct io *io, struct io_watch *watch, int fd, bool read, bool write)
{
    ev_io *watcher = (ev_io *)(void *)watch->private_;

    watch->io = io;
    watch->fd = fd;
    ev_io_init(watcher, watch_event, fd, (read ? EV_READ : 0) | (write ? EV_WRITE : 0));
    watcher->data = watch;
    if (read || write)
        ev_io_start(io_ev_of(io)->loop, watcher);
}

void io_ev_watch_stop(struct io *io, struct io_watch *watch)
{
    struct io_ev *ev = io_ev_of(io);

    ev_io_stop(ev->loop, (ev_io *)(void *)watch->private_);
    io_ev_poll_forget(ev, watch->fd);
    watch->io = NULL;
}

/* ---- once --------------------------------------------------------------------------------- */

void io_ev_socket_init(struct io_ev *ev)
{
    list_init(&ev->listener_paused);
    ev_timer_init(&ev->listener_pause, listener_pause_end, 0., 0.);
}

void io_ev_socket_deinit(struct io_ev *ev)
{
    ev_timer_stop(ev->loop, &ev->listener_pause);
}
