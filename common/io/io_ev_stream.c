/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte streams over sockets.
 *
 * Receiving. With nothing kept, bytes are read into the worker's buffer and lent from there; what
 * recv() leaves is copied to the stream's rest.
 *
 *     rest small      read behind a gap in the worker's buffer, put the rest in the gap, lend both
 *     rest large      read behind it, in the rest itself, up to `need`: then the frame ends where the
 *                     buffer ends, and the buffer is freed as soon as the frame is consumed
 *     fewer than need append to the rest, do not call
 *
 * So a byte is copied a bounded number of times however a frame is cut: once into the rest, and by
 * the doubling of the rest. The rest grows with what was received, not with what a peer announces.
 *
 *   I1  One watcher a stream; what it waits for follows from the stream's state (stream_rearm).
 *   I2  While a callback runs, ev->stream_current is its stream, NULL once that was closed: after a
 *       callback nothing of the stream is touched before this is checked. A stream that was closed
 *       and opened again in the same callback is a new one.
 *   I3  The rest is taken off the stream while it is lent, so that a close cannot free it.
 */
#include "common/base/mem.h"
#include "common/io/io_ev_private.h"

#include <limits.h>
#include <netinet/tcp.h>
#include <unistd.h>

/* Below, a copy is cheaper than a second receive; above, the rest is read in place. */
#define REST_COPY_MAX (16u << 10)
#define REST_GROW_MIN (64u << 10)
#define REST_ROOM_MIN (4u << 10)
/* No frame is larger (values end at 512 MiB); a handler that never consumes ends here. */
#define REST_MAX      (1u << 30)
#define CLOSE_DRAIN_MAX (1u << 20)
#define SLICES_MAX    1024 /* the kernel's UIO_MAXIOV */

enum stream_state {
    STREAM_OPEN,
    STREAM_CONNECTING,
    STREAM_CONNECTED, /* or refused, at once: connected() is on the todo list */
    STREAM_BROKEN,    /* an error was reported: nothing is watched, sends fail */
};

struct stream_part {
    ev_io watcher;
    struct list_node todo_node;
};
_Static_assert(sizeof(struct stream_part) <= sizeof(((struct io_stream *)0)->private_), "stream");
_Static_assert(sizeof(struct io_stream) <= 128, "a client at rest is cheap");

/* While connecting there is no rest: its length holds the error that connect() gave at once. */
#define connect_errno_ rest_len_

static struct stream_part *stream_part(struct io_stream *stream)
{
    return (struct stream_part *)(void *)stream->private_;
}

static struct io_stream *stream_of_watcher(ev_io *watcher)
{
    return CONTAINER_OF((void *)watcher, struct io_stream, private_);
}

static struct io_ev *stream_ev(struct io_stream *stream)
{
    return io_ev_of(stream->io);
}

/* ---- what is waited for -------------------------------------------------------------------- */

/* Costs no system call: libev compares at the end of the turn. */
static void stream_rearm(struct io_ev *ev, struct io_stream *stream)
{
    ev_io *watcher = &stream_part(stream)->watcher;
    int events = 0;

    if (stream->state_ == STREAM_CONNECTING)
        events = EV_WRITE;
    if (stream->state_ == STREAM_OPEN) {
        events = stream->recv_paused_ || stream->eof_ ? 0 : EV_READ;
        events |= stream->want_write_ ? EV_WRITE : 0;
    }
    if (events == (ev_is_active(watcher) ? (watcher->events & (EV_READ | EV_WRITE)) : 0))
        return;
    ev_io_stop(ev->loop, watcher);
    if (events != 0) {
        ev_io_modify(watcher, events);
        ev_io_start(ev->loop, watcher);
    }
}

static void stream_todo_add(struct io_ev *ev, struct io_stream *stream)
{
    struct list_node *node = &stream_part(stream)->todo_node;

    if (!list_node_is_linked(node))
        list_push_back(&ev->stream_todo, node);
    io_ev_wake(&ev->io);
}

static void stream_todo_remove(struct io_stream *stream)
{
    struct list_node *node = &stream_part(stream)->todo_node;

    if (list_node_is_linked(node))
        list_remove(node);
}

static void stream_break(struct io_ev *ev, struct io_stream *stream)
{
    stream->state_ = STREAM_BROKEN;
    stream->want_write_ = false;
    stream_todo_remove(stream);
    stream_rearm(ev, stream);
}

/* ---- the rest ----------------------------------------------------------------------------- */

struct rest {
    char *data; /* owns */
    uint32_t off, len, cap;
};

static struct rest rest_take(struct io_stream *stream)
{
    struct rest rest = {stream->rest_, stream->rest_off_, stream->rest_len_, stream->rest_cap_};

    stream->rest_ = NULL;
    stream->rest_off_ = stream->rest_len_ = stream->rest_cap_ = 0;
    return rest;
}

static void rest_put(struct io_stream *stream, struct rest rest)
{
    ASSERT(stream->rest_ == NULL);
    stream->rest_ = rest.data;
    stream->rest_off_ = rest.off;
    stream->rest_len_ = rest.len;
    stream->rest_cap_ = rest.cap;
}

static void rest_free(struct io_stream *stream)
{
    struct rest rest = rest_take(stream);

    mem_free(rest.data);
}

static struct bytes rest_bytes(const struct io_stream *stream)
{
    return stream->rest_len_ == 0 ? BYTES_EMPTY
                                  : bytes_of(stream->rest_ + stream->rest_off_, stream->rest_len_);
}

/* Moves the rest into a buffer of exactly `cap`. */
static int rest_resize(struct io_stream *stream, size_t cap)
{
    char *data;

    ASSERT(cap >= stream->rest_len_);
    if (cap > REST_MAX)
        return ERR_FULL;
    if (stream->rest_off_ == 0) {
        data = mem_realloc(stream->rest_, cap);
        if (data == NULL)
            return -ENOMEM;
    } else {
        data = mem_alloc(cap);
        if (data == NULL)
            return -ENOMEM;
        memcpy(data, stream->rest_ + stream->rest_off_, stream->rest_len_);
        mem_free(stream->rest_);
    }
    stream->rest_ = data;
    stream->rest_off_ = 0;
    stream->rest_cap_ = (uint32_t)cap;
    return 0;
}

/* Whether the frame's end is known. "One more byte" is what a parser says that stands before a header. */
static bool stream_knows_end(const struct io_stream *stream)
{
    return stream->need > (size_t)stream->rest_len_ + 1;
}

/* Makes room: up to `need` if that is known, but no more than a doubling at a time. Where it is not
 * known each receive ends in a call, so the room must be worth one. */
static int rest_reserve(struct io_stream *stream)
{
    size_t len = stream->rest_len_;
    size_t room = stream->rest_cap_ - stream->rest_off_ - len;
    size_t cap = MAX(2 * len, (size_t)REST_GROW_MIN);
    size_t room_min = cap / 4;

    if (stream_knows_end(stream)) {
        room_min = MIN((size_t)REST_ROOM_MIN, stream->need - len);
        cap = MIN(cap, stream->need);
    }
    if (room >= room_min)
        return 0;
    if (stream->rest_cap_ >= cap && stream->rest_off_ >= len) {
        memcpy(stream->rest_, stream->rest_ + stream->rest_off_, len);
        stream->rest_off_ = 0;
        return 0;
    }
    return rest_resize(stream, cap);
}

static int rest_append(struct io_stream *stream, const char *data, size_t len)
{
    size_t end = (size_t)stream->rest_off_ + stream->rest_len_;

    if (stream->rest_cap_ - end < len) {
        size_t total = stream->rest_len_ + len;
        /* The first time exactly: most rests are completed by the next receive. */
        int err = rest_resize(stream, stream->rest_len_ == 0 ? total : total + total / 2);

        if (err != 0)
            return err;
        end = stream->rest_len_;
    }
    memcpy(stream->rest_ + end, data, len);
    stream->rest_len_ += (uint32_t)len;
    return 0;
}

/* A stream at rest must not hold a large buffer for a few bytes. */
static void rest_shrink(struct io_stream *stream)
{
    if (stream->rest_len_ == 0)
        rest_free(stream);
    else if (stream->rest_cap_ > REST_ROOM_MIN && stream->rest_len_ <= stream->rest_cap_ / 4)
        MAYBE(rest_resize(stream, stream->rest_len_) == 0);
}

/* ---- callbacks ---------------------------------------------------------------------------- */

/* No more of receiving, but for ERR_EOF the other direction lives. False: the stream is gone. */
static bool stream_end(struct io_ev *ev, struct io_stream *stream, int err)
{
    struct bytes data = rest_bytes(stream);
    struct rest rest = rest_take(stream);

    stream->eof_ = true;
    stream->need = 0;
    stream_todo_remove(stream);
    if (err == ERR_EOF)
        stream_rearm(ev, stream);
    else
        stream_break(ev, stream);
    ev->stream_current = stream;
    stream->handler->closed(stream, err, data);
    mem_free(rest.data);
    return ev->stream_current == stream;
}

/* Calls recv(). False: the stream is gone; else *consumed is told. */
static bool stream_lend(struct io_ev *ev, struct io_stream *stream, struct bytes data,
                        size_t *consumed)
{
    stream->need = 0;
    ev->stream_current = stream;
    ev->lent = data;
    *consumed = stream->handler->recv(stream, data);
    ev->lent = BYTES_EMPTY;
    if (ev->stream_current != stream)
        return false;
    ASSERT(*consumed <= data.len);
    return true;
}

/* Lends the rest from where it lies. False: the stream is gone. */
static bool stream_lend_rest(struct io_ev *ev, struct io_stream *stream)
{
    struct bytes data = rest_bytes(stream);
    struct rest rest = rest_take(stream);
    size_t consumed;

    stream_todo_remove(stream);
    if (!stream_lend(ev, stream, data, &consumed)) {
        mem_free(rest.data);
        return false;
    }
    rest.off += (uint32_t)consumed;
    rest.len -= (uint32_t)consumed;
    rest_put(stream, rest);
    rest_shrink(stream);
    return true;
}

/* Lends `old` bytes of rest (put in front) and `got` new ones, from the worker's buffer. */
static bool stream_lend_buffer(struct io_ev *ev, struct io_stream *stream, size_t old, size_t got)
{
    struct bytes data = bytes_of(ev->recv_data, old + got);
    size_t consumed;
    int err;

    if (old != 0)
        memcpy(ev->recv_data, stream->rest_ + stream->rest_off_, old);
    stream_todo_remove(stream);
    if (!stream_lend(ev, stream, data, &consumed))
        return false;
    if (LIKELY(consumed == data.len)) {
        if (stream->rest_ != NULL)
            rest_free(stream);
        return true;
    }
    if (consumed < old) { /* what is left begins in the rest, where it still is */
        stream->rest_off_ += (uint32_t)consumed;
        stream->rest_len_ -= (uint32_t)consumed;
        err = rest_append(stream, ev->recv_data + old, got);
    } else {
        rest_free(stream);
        err = rest_append(stream, data.data + consumed, data.len - consumed);
    }
    return err == 0 || stream_end(ev, stream, err);
}

/* ---- receive ------------------------------------------------------------------------------ */

enum recv_step { RECV_MORE, RECV_DONE, RECV_GONE };

/* recv() returned `got` <= 0. */
static enum recv_step stream_recv_nothing(struct io_ev *ev, struct io_stream *stream, ssize_t got)
{
    int err = got == 0 ? ERR_EOF : -errno;

    if (err == -EAGAIN || err == -EINTR)
        return RECV_DONE;
    return stream_end(ev, stream, err) ? RECV_DONE : RECV_GONE;
}

/* A large rest, or one that is waited for: one receive into it. */
static enum recv_step stream_recv_rest(struct io_ev *ev, struct io_stream *stream, size_t *budget)
{
    size_t end, room;
    ssize_t got;
    int err = rest_reserve(stream);

    if (err != 0)
        return stream_end(ev, stream, err) ? RECV_DONE : RECV_GONE;
    end = (size_t)stream->rest_off_ + stream->rest_len_;
    room = stream->rest_cap_ - end;
    if (stream_knows_end(stream))
        room = MIN(room, stream->need - stream->rest_len_);
    room = MIN(room, *budget);
    got = recv(stream->fd, stream->rest_ + end, room, 0);
    if (got <= 0)
        return stream_recv_nothing(ev, stream, got);
    *budget -= (size_t)got;
    stream->rest_len_ += (uint32_t)got;
    if (stream->rest_len_ >= stream->need && !stream_lend_rest(ev, stream))
        return RECV_GONE;
    return (size_t)got == room ? RECV_MORE : RECV_DONE;
}

/* Little or nothing is kept: one receive into the worker's buffer. */
static enum recv_step stream_recv_buffer(struct io_ev *ev, struct io_stream *stream, size_t *budget)
{
    size_t old = stream->rest_len_;
    size_t room = MIN(ev->recv_size - old, *budget);
    ssize_t got = recv(stream->fd, ev->recv_data + old, room, 0);

    if (UNLIKELY(got <= 0))
        return stream_recv_nothing(ev, stream, got);
    *budget -= (size_t)got;
    if (UNLIKELY(stream->need > old + (size_t)got)) {
        int err = rest_append(stream, ev->recv_data + old, (size_t)got);

        if (err != 0)
            return stream_end(ev, stream, err) ? RECV_DONE : RECV_GONE;
    } else if (!stream_lend_buffer(ev, stream, old, (size_t)got)) {
        return RECV_GONE;
    }
    return (size_t)got == room ? RECV_MORE : RECV_DONE;
}

/* At most one buffer's worth a turn: epoll reports again, after the others had theirs. A receive that
 * did not fill its room has emptied the socket; another one would only say EAGAIN. */
static bool stream_readable(struct io_ev *ev, struct io_stream *stream)
{
    size_t budget = ev->recv_size;
    enum recv_step step;

    do {
        step = stream->rest_len_ > REST_COPY_MAX ? stream_recv_rest(ev, stream, &budget)
                                                 : stream_recv_buffer(ev, stream, &budget);
    } while (step == RECV_MORE && budget > 0 && !stream->recv_paused_ && !stream->eof_ &&
             stream->state_ == STREAM_OPEN);
    return step != RECV_GONE;
}

/* ---- events ------------------------------------------------------------------------------- */

static void stream_connect_end(struct io_ev *ev, struct io_stream *stream, int err)
{
    if (err != 0) {
        io_ev_stream_close(&ev->io, stream, false);
    } else {
        stream->state_ = STREAM_OPEN;
        stream_rearm(ev, stream);
    }
    ev->stream_current = stream;
    stream->handler->connected(stream, err);
    ev->stream_current = NULL;
}

/* A connect to a free port of our own host may meet itself when it picks that port as its own. */
static bool stream_met_itself(struct io_stream *stream)
{
    struct io_addr peer, local;

    io_stream_peer(stream, &peer);
    if (peer.len == 0 || peer.any.sa_family == AF_UNIX)
        return false;
    io_stream_local(stream, &local);
    return io_addr_equal(&peer, &local);
}

static int stream_connect_result(struct io_stream *stream)
{
    int err = 0;
    socklen_t len = sizeof(err);

    if (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return -errno;
    if (err != 0)
        return -err;
    return stream_met_itself(stream) ? -ECONNREFUSED : 0;
}

static void stream_event(struct ev_loop *loop, ev_io *watcher, int events)
{
    struct io_stream *stream = stream_of_watcher(watcher);
    struct io_ev *ev = stream_ev(stream);

    (void)loop;
    io_turn_mark(&ev->io);
    if (UNLIKELY(stream->state_ == STREAM_CONNECTING)) {
        stream_connect_end(ev, stream, stream_connect_result(stream));
        return;
    }
    if ((events & EV_READ) != 0 && !stream->recv_paused_ && !stream->eof_ &&
        !stream_readable(ev, stream))
        return;
    if ((events & EV_WRITE) != 0 && stream->want_write_) {
        stream->want_write_ = false;
        stream_rearm(ev, stream);
        ev->stream_current = stream;
        stream->handler->writable(stream);
    }
    ev->stream_current = NULL;
}

static void stream_todo_one(struct io_ev *ev, struct io_stream *stream)
{
    if (stream->state_ == STREAM_CONNECTED)
        stream_connect_end(ev, stream, -(int)stream->connect_errno_);
    else if (!stream->recv_paused_ && !stream->eof_ && stream->rest_len_ > 0 &&
             stream->rest_len_ >= stream->need)
        MAYBE(stream_lend_rest(ev, stream));
    ev->stream_current = NULL;
}

void io_ev_stream_todo(struct io_ev *ev)
{
    struct list batch;
    struct list_node *node;

    list_init(&batch);
    list_move_all(&ev->stream_todo, &batch);
    while ((node = list_pop_front(&batch)) != NULL) {
        struct stream_part *part = CONTAINER_OF(node, struct stream_part, todo_node);

        stream_todo_one(ev, stream_of_watcher(&part->watcher));
    }
}

/* ---- open, connect, close ------------------------------------------------------------------ */

static void stream_set_options(int fd, const struct io_stream_options *options)
{
    const int on = 1;

    if (options == NULL)
        return;
    /* Failures are of the kind "not on this sort of socket", and harm nothing. */
    if (options->nodelay)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (options->keepalive)
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    if (options->user_timeout_ms != 0) {
        unsigned timeout_ms = options->user_timeout_ms;

        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
    }
}

static void stream_init(struct io *io, struct io_stream *stream, int fd, enum stream_state state)
{
    struct stream_part *part = stream_part(stream);

    stream->io = io;
    stream->fd = fd;
    stream->state_ = (uint8_t)state;
    stream->recv_paused_ = true;
    ev_io_init(&part->watcher, stream_event, fd, 0);
    part->todo_node = (struct list_node){0};
}

int io_ev_stream_open(struct io *io, struct io_stream *stream, int fd,
                      const struct io_stream_options *options, struct bytes rest)
{
    int err = io_ev_socket_nonblocking(fd);

    if (err == 0 && rest.len > 0)
        err = rest_append(stream, rest.data, rest.len);
    if (err != 0) {
        close(fd);
        return err;
    }
    stream_set_options(fd, options);
    stream_init(io, stream, fd, STREAM_OPEN);
    return 0;
}

int io_ev_stream_connect(struct io *io, struct io_stream *stream, const struct io_addr *addr,
                         const struct io_stream_options *options)
{
    struct io_ev *ev = io_ev_of(io);
    int fd = socket(addr->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err = 0;

    if (fd < 0)
        return -errno;
    stream_set_options(fd, options);
    if (connect(fd, &addr->any, addr->len) < 0)
        err = errno;
    if (err == EINPROGRESS || err == EINTR) {
        stream_init(io, stream, fd, STREAM_CONNECTING);
        stream_rearm(ev, stream);
        return 0;
    }
    stream_init(io, stream, fd, STREAM_CONNECTED);
    if (err == 0 && stream_met_itself(stream))
        err = ECONNREFUSED;
    stream->connect_errno_ = (uint32_t)err;
    stream_todo_add(ev, stream);
    return 0;
}

void io_ev_stream_resume(struct io *io, struct io_stream *stream)
{
    struct io_ev *ev = io_ev_of(io);

    stream->recv_paused_ = false;
    stream_rearm(ev, stream);
    if (stream->state_ != STREAM_OPEN || stream->eof_)
        return;
    /* Inside recv() it is not known yet what will be kept. */
    if (stream->rest_len_ > 0 || (ev->stream_current == stream && ev->lent.len > 0))
        stream_todo_add(ev, stream);
}

void io_ev_stream_pause(struct io *io, struct io_stream *stream)
{
    stream->recv_paused_ = true;
    stream_rearm(io_ev_of(io), stream);
}

void io_ev_stream_shutdown(struct io *io, struct io_stream *stream)
{
    (void)io;
    (void)shutdown(stream->fd, SHUT_WR);
}

/* After this io knows nothing of the stream; the descriptor is open still. */
static int stream_forget(struct io_ev *ev, struct io_stream *stream)
{
    int fd = stream->fd;

    ev_io_stop(ev->loop, &stream_part(stream)->watcher);
    stream_todo_remove(stream);
    rest_free(stream);
    if (ev->stream_current == stream)
        ev->stream_current = NULL;
    stream->io = NULL;
    stream->fd = -1;
    return fd;
}

void io_ev_stream_close(struct io *io, struct io_stream *stream, bool is_abort)
{
    bool may_have_input = stream->state_ == STREAM_OPEN && !stream->eof_;
    int fd = stream_forget(io_ev_of(io), stream);

    if (is_abort) {
        const struct linger linger = {.l_onoff = 1, .l_linger = 0};

        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    } else if (may_have_input) {
        /* Closing over unread input makes TCP send RST, which may overtake our last reply. TCP throws
         * the input away so; other sockets refuse and do not mind. */
        MAYBE(recv(fd, NULL, CLOSE_DRAIN_MAX, MSG_TRUNC | MSG_DONTWAIT) >= 0);
    }
    close(fd);
}

int io_ev_stream_detach(struct io *io, struct io_stream *stream, char **rest_data, size_t *rest_len)
{
    struct io_ev *ev = io_ev_of(io);
    int err = 0;
    int fd;

    *rest_data = NULL;
    *rest_len = 0;
    if (stream->state_ == STREAM_CONNECTED)
        stream->connect_errno_ = 0;
    if (ev->stream_current == stream && ev->lent.len > 0) {
        /* It is lent at this moment: the stream has none of its own, or (I3) an older copy. */
        rest_free(stream);
        err = rest_append(stream, ev->lent.data, ev->lent.len);
    } else if (stream->rest_off_ > 0) {
        memmove(stream->rest_, stream->rest_ + stream->rest_off_, stream->rest_len_);
        stream->rest_off_ = 0;
    }
    if (err != 0) {
        io_ev_stream_close(io, stream, false);
        return -1;
    }
    if (stream->rest_len_ > 0) {
        struct rest rest = rest_take(stream);

        *rest_data = rest.data;
        *rest_len = rest.len;
    }
    fd = stream_forget(ev, stream);
    io_ev_poll_forget(ev, fd);
    return fd;
}

/* ---- send --------------------------------------------------------------------------------- */

static ssize_t stream_send_slices(struct io_stream *stream, const struct iovec *slices, int count)
{
    ssize_t sent;

    do {
        if (count == 1) {
            sent = send(stream->fd, slices->iov_base, slices->iov_len, MSG_NOSIGNAL);
        } else {
            const struct msghdr message = {
                .msg_iov = (struct iovec *)(uintptr_t)slices,
                .msg_iovlen = (size_t)count,
            };

            sent = sendmsg(stream->fd, &message, MSG_NOSIGNAL);
        }
    } while (UNLIKELY(sent < 0 && errno == EINTR));
    if (LIKELY(sent >= 0))
        return sent;
    return errno == EAGAIN ? 0 : -errno;
}

ssize_t io_ev_stream_send(struct io *io, struct io_stream *stream, const struct iovec *slices,
                          int count)
{
    struct io_ev *ev = io_ev_of(io);
    ssize_t sent_total = 0;
    bool is_short = false;

    if (UNLIKELY(stream->state_ == STREAM_BROKEN))
        return -EPIPE;
    if (UNLIKELY(stream->state_ != STREAM_OPEN)) {
        stream->want_write_ = true; /* writable() follows connected() */
        return 0;
    }
    while (count > 0 && !is_short) {
        int batch = MIN(count, SLICES_MAX);
        size_t wanted = 0;
        ssize_t sent;

        for (int i = 0; i < batch; i++)
            wanted += slices[i].iov_len;
        if (wanted > 0) {
            sent = stream_send_slices(stream, slices, batch);
            if (UNLIKELY(sent < 0)) {
                stream_break(ev, stream);
                return sent;
            }
            sent_total += sent;
            is_short = (size_t)sent < wanted;
        }
        slices += batch;
        count -= batch;
    }
    if (UNLIKELY(is_short)) {
        stream->want_write_ = true;
        stream_rearm(ev, stream);
    }
    return sent_total;
}

/* ---- addresses ---------------------------------------------------------------------------- */

void io_ev_stream_peer(struct io *io, const struct io_stream *stream, struct io_addr *out)
{
    socklen_t len = sizeof(*out) - offsetof(struct io_addr, any);

    (void)io;
    if (getpeername(stream->fd, &out->any, &len) == 0)
        out->len = len;
}

void io_ev_stream_local(struct io *io, const struct io_stream *stream, struct io_addr *out)
{
    socklen_t len = sizeof(*out) - offsetof(struct io_addr, any);

    (void)io;
    if (getsockname(stream->fd, &out->any, &len) == 0)
        out->len = len;
}
