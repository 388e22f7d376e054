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
 * Waiting. Streams have an epoll set of their own, which libev watches as one descriptor. Each is in it
 * from open to close, edge-triggered: the kernel tells once that something came, and the stream remembers
 * (is_readable) until a receive finds the socket empty. So nothing is asked again that was told before:
 * libev's level-triggered set polls each socket once more, a turn after every report. To pause, to resume
 * and to stop at a budget costs no system call. EPOLLOUT is asked for with the first short send only, as
 * unix sockets report it for every message that the peer reads.
 *
 * Where a turn is bounded (streams_us) it may not have the time for all. Streams that were received ahead of, and those
 * between them, go to the late list then, and the other events wait in the array. The next turn serves the late ones first,
 * then the array, then what waits on the todo list, then, if there still is time, what the kernel tells anew: in the order in
 * which they were told, LOOK_STREAMS of the first two and one of the todo list at least.
 *
 *   I1  is_readable is cleared only by a receive that got less than it had room for, and, once a hang-up
 *       was reported, by the end itself: no further edge would tell of it.
 *   I2  While a callback runs, ev->stream_current is its stream, NULL once that was closed: after a
 *       callback nothing of the stream is touched before this is checked. A stream that was closed
 *       and opened again in the same callback is a new one.
 *   I3  The rest is taken off the stream while it is lent, so that a close cannot free it.
 */
#include "common/base/mem.h"
#include "common/io/io_ev_private.h"
#include "common/io/io_ev_rest.h"

#include <limits.h>
#include <netinet/tcp.h>
#include <unistd.h>

/* Below, a copy is cheaper than a second receive; above, the rest is read in place. */
#define REST_COPY_MAX (16u << 10)
/* Where a turn is bounded recv() may leave most of what it was lent, which is copied then: better it stays in the socket. */
#define RECV_PIECE    (64u << 10)
#define CLOSE_DRAIN_MAX (1u << 20)
#define SLOTS_MIN     64
#define SLICES_MAX    1024 /* the kernel's UIO_MAXIOV */
#define LOOK_STREAMS  4    /* so many are served between two looks at the clock, where a turn is bounded */

enum stream_state {
    STREAM_OPEN,
    STREAM_CONNECTING,
    STREAM_CONNECTED, /* or refused, at once: connected() is on the todo list */
    STREAM_BROKEN,    /* an error was reported: nothing is watched, sends fail */
};

struct stream_part {
    struct list_node todo_node;
    bool is_readable;  /* there may be something to receive */
    bool is_hung_up;   /* the end, or an error, is behind what there is */
    bool is_writable;  /* nothing has been sent short since there was room */
    bool waits_for_room; /* EPOLLOUT is asked for */
};
_Static_assert(sizeof(struct stream_part) <= sizeof(((struct io_stream *)0)->private_), "stream");
_Static_assert(sizeof(struct io_stream) <= 128, "a client at rest is cheap");

/* While connecting there is no rest: its length holds the error that connect() gave at once. */
#define connect_errno_ rest_len_

static struct stream_part *stream_part(struct io_stream *stream)
{
    return (struct stream_part *)(void *)stream->private_;
}

static struct io_stream *stream_of_part(struct stream_part *part)
{
    return CONTAINER_OF((void *)part, struct io_stream, private_);
}

/* ---- what is waited for -------------------------------------------------------------------- */

#define STREAM_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)

/* What the kernel gives back with an event. A descriptor's number may be somebody else's by then. */
struct io_ev_slot {
    struct io_stream *stream; /* borrows; NULL: none */
    uint32_t generation;      /* of this number */
};

static struct epoll_event stream_event_of(const struct io_ev *ev, int fd, uint32_t events)
{
    return (struct epoll_event){
        .events = events,
        .data.u64 = (uint64_t)ev->slots[fd].generation << 32 | (uint32_t)fd,
    };
}

static struct io_stream *stream_find(const struct io_ev *ev, uint64_t data)
{
    uint32_t fd = (uint32_t)data;

    return fd < ev->slot_count && ev->slots[fd].generation == (uint32_t)(data >> 32)
               ? ev->slots[fd].stream
               : NULL;
}

static int slots_grow(struct io_ev *ev, int fd)
{
    uint32_t count = MAX(ev->slot_count * 2, MAX((uint32_t)fd + 1, (uint32_t)SLOTS_MIN));
    struct io_ev_slot *slots = mem_realloc(ev->slots, count * sizeof(*slots));

    if (slots == NULL)
        return -ENOMEM;
    memset(slots + ev->slot_count, 0, (count - ev->slot_count) * sizeof(*slots));
    ev->slots = slots;
    ev->slot_count = count;
    return 0;
}

/* Puts the descriptor into the set; it stays there until it is closed. */
static int stream_watch(struct io_ev *ev, struct io_stream *stream, int fd, uint32_t events)
{
    struct epoll_event event;
    int err = fd < 0 ? -EBADF : (uint32_t)fd < ev->slot_count ? 0 : slots_grow(ev, fd);

    if (err != 0)
        return err;
    ev->slots[fd].generation++;
    event = stream_event_of(ev, fd, events);
    if (epoll_ctl(ev->stream_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    ev->slots[fd].stream = stream;
    return 0;
}

/* Closing takes it out of the set; what was reported before finds nobody. */
static void stream_unwatch(struct io_ev *ev, int fd)
{
    ev->slots[fd].stream = NULL;
}

static bool stream_can_receive(const struct io_stream *stream)
{
    return stream->state_ == STREAM_OPEN && !stream->recv_paused_ && !stream->eof_;
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

static void stream_break(struct io_stream *stream)
{
    stream->state_ = STREAM_BROKEN;
    stream->want_write_ = false;
    stream_todo_remove(stream);
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
    if (err != ERR_EOF)
        stream_break(stream);
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

/* Lends `old` bytes of rest (put in front) and `got` new ones, from a buffer of the worker's. */
static bool stream_lend_buffer(struct io_ev *ev, struct io_stream *stream, char *buffer, size_t old, size_t got)
{
    struct bytes data = bytes_of(buffer, old + got);
    size_t consumed;
    int err;

    if (old != 0)
        memcpy(buffer, stream->rest_ + stream->rest_off_, old);
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
        err = rest_append(stream, buffer + old, got);
    } else {
        rest_free(stream);
        err = rest_append(stream, data.data + consumed, data.len - consumed);
    }
    return err == 0 || stream_end(ev, stream, err);
}

/* ---- receive ------------------------------------------------------------------------------ */

enum recv_step {
    RECV_FULL,  /* the room was filled: there may be more */
    RECV_SHORT, /* the socket is empty, but for its end */
    RECV_NONE,  /* the socket is empty, or at its end */
    RECV_GONE,  /* so is the stream */
};

/* socket_recv() returned `got` <= 0. */
static enum recv_step stream_recv_nothing(struct io_ev *ev, struct io_stream *stream, ssize_t got)
{
    int err = got == 0 ? ERR_EOF : (int)got;

    if (err == -EAGAIN)
        return RECV_NONE;
    return stream_end(ev, stream, err) ? RECV_NONE : RECV_GONE;
}

/* A large rest, or one that is waited for: one receive into it. */
static enum recv_step stream_recv_rest(struct io_ev *ev, struct io_stream *stream, size_t *budget)
{
    size_t end, room;
    ssize_t got;
    int err = rest_reserve(stream);

    if (err != 0)
        return stream_end(ev, stream, err) ? RECV_NONE : RECV_GONE;
    end = (size_t)stream->rest_off_ + stream->rest_len_;
    room = stream->rest_cap_ - end;
    if (stream_knows_end(stream))
        room = MIN(room, stream->need - stream->rest_len_);
    room = MIN(room, *budget);
    got = socket_recv(stream->fd, stream->rest_ + end, room);
    if (got <= 0)
        return stream_recv_nothing(ev, stream, got);
    *budget -= (size_t)got;
    stream->rest_len_ += (uint32_t)got;
    if (stream->rest_len_ >= stream->need && !stream_lend_rest(ev, stream))
        return RECV_GONE;
    return (size_t)got == room ? RECV_FULL : RECV_SHORT;
}

/* Little or nothing is kept: one receive into the worker's buffer. */
static enum recv_step stream_recv_buffer(struct io_ev *ev, struct io_stream *stream, size_t *budget)
{
    size_t old = stream->rest_len_;
    size_t room = MIN(MIN(ev->recv_size - old, *budget), ev->streams_us != 0 ? (size_t)RECV_PIECE : ev->recv_size);
    ssize_t got = socket_recv(stream->fd, ev->recv_data + old, room);

    if (UNLIKELY(got <= 0))
        return stream_recv_nothing(ev, stream, got);
    *budget -= (size_t)got;
    if (UNLIKELY(stream->need > old + (size_t)got)) {
        int err = rest_append(stream, ev->recv_data + old, (size_t)got);

        if (err != 0)
            return stream_end(ev, stream, err) ? RECV_NONE : RECV_GONE;
    } else if (!stream_lend_buffer(ev, stream, ev->recv_data, old, (size_t)got)) {
        return RECV_GONE;
    }
    return (size_t)got == room ? RECV_FULL : RECV_SHORT;
}

/* At most one buffer's worth a turn: what is left is for a later one, after the others had theirs. So is all of a stream
 * that is on the todo list: recv() has put itself there. A receive that did not fill its room has emptied the socket;
 * another one would only say EAGAIN. False: the stream is gone. */
static bool stream_readable(struct io_ev *ev, struct io_stream *stream)
{
    struct stream_part *part = stream_part(stream);
    size_t budget = ev->recv_size;

    while (budget > 0 && part->is_readable && stream_can_receive(stream) && !list_node_is_linked(&part->todo_node)) {
        enum recv_step step = stream->rest_len_ > REST_COPY_MAX
                                  ? stream_recv_rest(ev, stream, &budget)
                                  : stream_recv_buffer(ev, stream, &budget);

        if (step == RECV_GONE)
            return false;
        if (step == RECV_NONE || (step == RECV_SHORT && !part->is_hung_up))
            part->is_readable = false;
    }
    if (part->is_readable && stream_can_receive(stream))
        stream_todo_add(ev, stream);
    return true;
}

/* ---- events ------------------------------------------------------------------------------- */

/* Whether it has something to do that no event will tell of. */
static void stream_todo_check(struct io_ev *ev, struct io_stream *stream)
{
    const struct stream_part *part = stream_part(stream);

    if (stream->state_ == STREAM_OPEN &&
        ((part->is_readable && stream_can_receive(stream)) ||
         (part->is_writable && stream->want_write_)))
        stream_todo_add(ev, stream);
}

static void stream_connect_end(struct io_ev *ev, struct io_stream *stream, int err)
{
    if (err != 0) {
        io_ev_stream_close(&ev->io, stream, false);
    } else {
        stream->state_ = STREAM_OPEN;
        stream_part(stream)->is_writable = true;
    }
    ev->stream_current = stream;
    stream->handler->connected(stream, err);
    if (ev->stream_current == stream)
        stream_todo_check(ev, stream);
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

static void stream_room(struct io_ev *ev, struct io_stream *stream)
{
    stream->want_write_ = false;
    ev->stream_current = stream;
    stream->handler->writable(stream);
}

/* ---- receiving ahead ----------------------------------------------------------------------- */

/*
 * The first receives of a few streams are made together, before the first of their callbacks, and the handler may look
 * at what came: so the memory that one request needs is on its way while others are served.
 *
 *   I4  What was received ahead of a stream is lent by its event, unless something happens to the stream before: it is
 *       paused, detached or put off (then it goes into the rest) or closed (then it is gone). The rest is empty until then, and
 *       outside of streams_serve() nothing is.
 */
static bool stream_can_be_ahead(const struct io_ev *ev, struct io_stream *stream, uint32_t events)
{
    return (ev->sockets != NULL || stream->handler->ahead != NULL) && events == EPOLLIN && stream_can_receive(stream) &&
           !stream_part(stream)->is_hung_up && stream->rest_len_ == 0 && stream->need <= 1;
}

static void streams_receive_ahead(struct io_ev *ev, const struct epoll_event *events, int count)
{
    struct socket_call calls[IO_EV_AHEAD_STREAMS];
    struct iovec rooms[IO_EV_AHEAD_STREAMS];
    struct io_stream *streams[IO_EV_AHEAD_STREAMS];
    unsigned call_count = 0, at = 0;

    if (UNLIKELY(ev->ahead_data == NULL))
        ev->ahead_data = must_alloc((size_t)IO_EV_AHEAD_STREAMS * IO_EV_AHEAD_ROOM);
    for (int i = 0; i < count; i++) {
        struct io_stream *stream = stream_find(ev, events[i].data.u64);

        ev->ahead[i].stream = NULL;
        streams[i] = NULL;
        if (stream == NULL || !stream_can_be_ahead(ev, stream, events[i].events))
            continue;
        streams[i] = stream;
        rooms[i] = (struct iovec){ev->ahead_data + (size_t)i * IO_EV_AHEAD_ROOM, IO_EV_AHEAD_ROOM};
        calls[call_count++] = (struct socket_call){.slices = &rooms[i], .count = 1, .fd = stream->fd};
    }
    socket_ring_run(ev->sockets, calls, call_count);
    for (int i = 0; i < count; i++) {
        ssize_t got;

        if (streams[i] == NULL)
            continue;
        got = calls[at++].result;
        if (UNLIKELY(got <= 0))
            continue; /* its event finds out why */
        ev->ahead[i].stream = streams[i];
        ev->ahead[i].len = (size_t)got;
        if (streams[i]->handler->ahead != NULL)
            streams[i]->handler->ahead(streams[i], bytes_of(rooms[i].iov_base, (size_t)got));
    }
}

/* What was received ahead becomes its rest. 0, or no memory. */
static int stream_keep_ahead(struct io_ev *ev, const struct io_stream *stream_)
{
    for (int i = 0; i < IO_EV_AHEAD_STREAMS; i++) {
        struct io_stream *stream = ev->ahead[i].stream;

        if (stream == stream_ && stream != NULL) {
            ev->ahead[i].stream = NULL;
            return rest_append(stream, ev->ahead_data + (size_t)i * IO_EV_AHEAD_ROOM, ev->ahead[i].len);
        }
    }
    return 0;
}

/* False: the stream is gone. */
static bool stream_lend_ahead(struct io_ev *ev, struct io_stream *stream, int at)
{
    struct stream_part *part = stream_part(stream);
    size_t len = ev->ahead[at].len;

    part->is_readable = len == IO_EV_AHEAD_ROOM;
    if (UNLIKELY(!stream_can_receive(stream))) {
        int err = stream_keep_ahead(ev, stream);

        return err == 0 || stream_end(ev, stream, err);
    }
    ev->ahead[at].stream = NULL;
    return stream_lend_buffer(ev, stream, ev->ahead_data + (size_t)at * IO_EV_AHEAD_ROOM, 0, len);
}

static void stream_event_note(struct stream_part *part, uint32_t events)
{
    part->is_hung_up |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    part->is_readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    part->is_writable |= (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
}

static void stream_event(struct io_ev *ev, struct io_stream *stream, uint32_t events)
{
    struct stream_part *part = stream_part(stream);

    stream_event_note(part, events);
    if (UNLIKELY(stream->state_ == STREAM_CONNECTING)) {
        if (part->is_writable)
            stream_connect_end(ev, stream, stream_connect_result(stream));
        return;
    }
    if (!stream_readable(ev, stream))
        return;
    if (UNLIKELY(stream->want_write_) && stream->state_ == STREAM_OPEN && part->is_writable)
        stream_room(ev, stream);
    ev->stream_current = NULL;
}

/* To the next turn, with what was told of it and what was received ahead. */
static void stream_put_off(struct io_ev *ev, struct io_stream *stream, int at, uint32_t events)
{
    struct stream_part *part = stream_part(stream);

    if (ev->ahead[at].stream == stream) {
        int err;

        part->is_readable = ev->ahead[at].len == IO_EV_AHEAD_ROOM;
        err = stream_keep_ahead(ev, stream);
        if (err != 0) {
            MAYBE(stream_end(ev, stream, err));
            ev->stream_current = NULL;
            return;
        }
    } else {
        stream_event_note(part, events);
    }
    stream_todo_remove(stream);
    list_push_back(&ev->stream_late, &part->todo_node);
    io_ev_wake(&ev->io);
}

/* What timers and files took counts, but for half of the time: else clients would wait while there is much else to do. */
static bool streams_are_late(struct io_ev *ev)
{
    uint64_t now_us;

    if (ev->streams_us == 0)
        return false;
    now_us = io_clock_us(&ev->io);
    if (ev->streams_until_us == 0)
        ev->streams_until_us = MAX(ev->io.now_us + ev->streams_us, now_us + ev->streams_us / 2);
    return now_us >= ev->streams_until_us;
}

static void streams_serve(struct io_ev *ev, const struct epoll_event *events, int count)
{
    bool is_late = false;

    if (count > 1)
        streams_receive_ahead(ev, events, count);
    for (int i = 0; i < count; i++) {
        struct io_stream *stream = stream_find(ev, events[i].data.u64);

        if (i > 0 && i % LOOK_STREAMS == 0)
            is_late = is_late || streams_are_late(ev);
        if (UNLIKELY(stream == NULL))
            continue; /* closed by one before */
        if (UNLIKELY(is_late) && stream->state_ == STREAM_OPEN) {
            stream_put_off(ev, stream, i, events[i].events);
            continue;
        }
        if (ev->ahead[i].stream != stream) {
            stream_event(ev, stream, events[i].events);
            continue;
        }
        if (stream_lend_ahead(ev, stream, i) && UNLIKELY(stream_part(stream)->is_readable))
            MAYBE(stream_readable(ev, stream));
        ev->stream_current = NULL;
    }
}

/* As many as a turn has time for, some of them in any case. The rest is served by the next, before anything else is asked for. */
static void streams_serve_some(struct io_ev *ev)
{
    bool is_late = ev->stream_event_at < ev->stream_event_count && streams_are_late(ev);

    while (ev->stream_event_at < ev->stream_event_count) {
        int first = ev->stream_event_at;
        int count = MIN(ev->stream_event_count - first, is_late ? LOOK_STREAMS : IO_EV_AHEAD_STREAMS);

        ev->stream_event_at += count;
        streams_serve(ev, ev->stream_events + first, count);
        is_late = streams_are_late(ev);
        if (is_late && ev->stream_event_at < ev->stream_event_count) {
            io_ev_wake(&ev->io);
            return;
        }
    }
}

static void streams_event(struct ev_loop *loop, ev_io *watcher, int libev_events)
{
    struct io_ev *ev = CONTAINER_OF(watcher, struct io_ev, stream_watcher);

    (void)loop, (void)libev_events;
    if (ev->stream_event_at < ev->stream_event_count || !list_is_empty(&ev->stream_late))
        return; /* this turn has had enough */
    ev->stream_event_at = 0;
    ev->stream_event_count = epoll_wait(ev->stream_fd, ev->stream_events, IO_EV_STREAM_EVENTS, 0);
    if (ev->stream_event_count <= 0)
        return;
    io_turn_mark(&ev->io);
    if (UNLIKELY(ev->is_late))
        io_ev_wake(&ev->io);
    else
        streams_serve_some(ev);
}

static void stream_todo_one(struct io_ev *ev, struct io_stream *stream)
{
    bool is_there = true;

    if (UNLIKELY(stream->state_ == STREAM_CONNECTED)) {
        stream_connect_end(ev, stream, -(int)stream->connect_errno_);
        return;
    }
    if (stream_can_receive(stream) && stream->rest_len_ > 0 && stream->rest_len_ >= stream->need)
        is_there = stream_lend_rest(ev, stream);
    is_there = is_there && stream_readable(ev, stream);
    if (is_there && stream->want_write_ && stream->state_ == STREAM_OPEN &&
        stream_part(stream)->is_writable)
        stream_room(ev, stream);
    ev->stream_current = NULL;
}

/* Those of `list`, `some` in any case, and as many as there is time for; what is left stays in front of what they add. */
static bool stream_todo_some(struct io_ev *ev, struct list *list, unsigned some)
{
    struct list batch;
    struct list_node *node;
    bool is_late = false;

    list_init(&batch);
    list_move_all(list, &batch);
    for (unsigned count = 1; !is_late && (node = list_pop_front(&batch)) != NULL; count++) {
        stream_todo_one(ev, stream_of_part(CONTAINER_OF(node, struct stream_part, todo_node)));
        is_late = count >= some && streams_are_late(ev);
    }
    if (UNLIKELY(!list_is_empty(&batch))) {
        list_move_all(list, &batch);
        list_move_all(&batch, list);
        io_ev_wake(&ev->io);
    }
    return is_late;
}

void io_ev_stream_todo(struct io_ev *ev)
{
    MAYBE(stream_todo_some(ev, &ev->stream_late, LOOK_STREAMS));
    streams_serve_some(ev);
    ev->is_late = stream_todo_some(ev, &ev->stream_todo, 1);
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
    stream->io = io;
    stream->fd = fd;
    stream->state_ = (uint8_t)state;
    stream->recv_paused_ = true;
    *stream_part(stream) = (struct stream_part){.is_writable = state == STREAM_OPEN};
}

int io_ev_stream_open(struct io *io, struct io_stream *stream, int fd,
                      const struct io_stream_options *options, struct bytes rest)
{
    int err = stream_watch(io_ev_of(io), stream, fd, STREAM_EVENTS);

    if (err == 0 && rest.len > 0) {
        err = rest_append(stream, rest.data, rest.len);
        if (err != 0)
            stream_unwatch(io_ev_of(io), fd);
    }
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
    bool is_connecting;
    int err = 0, watch_err;

    if (fd < 0)
        return -errno;
    stream_set_options(fd, options);
    if (connect(fd, &addr->any, addr->len) < 0)
        err = errno;
    is_connecting = err == EINPROGRESS || err == EINTR;
    watch_err = stream_watch(ev, stream, fd, STREAM_EVENTS | (is_connecting ? EPOLLOUT : 0u));
    if (watch_err != 0) {
        close(fd);
        return watch_err;
    }
    stream_init(io, stream, fd, is_connecting ? STREAM_CONNECTING : STREAM_CONNECTED);
    stream_part(stream)->waits_for_room = is_connecting;
    if (is_connecting)
        return 0;
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
    if (!stream_can_receive(stream))
        return;
    /* Inside recv() it is not known yet what will be kept. */
    if (stream->rest_len_ > 0 || stream_part(stream)->is_readable || (ev->stream_current == stream && ev->lent.len > 0))
        stream_todo_add(ev, stream);
}

void io_ev_stream_pause(struct io *io, struct io_stream *stream)
{
    (void)io;
    stream->recv_paused_ = true;
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

    stream_unwatch(ev, fd);
    stream_todo_remove(stream);
    rest_free(stream);
    for (int i = 0; i < IO_EV_AHEAD_STREAMS; i++)
        if (ev->ahead[i].stream == stream)
            ev->ahead[i].stream = NULL;
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
    err = stream_keep_ahead(ev, stream);
    if (err == 0 && ev->stream_current == stream && ev->lent.len > 0) {
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
    /* It lives on elsewhere, and would report for ever. */
    (void)epoll_ctl(ev->stream_fd, EPOLL_CTL_DEL, fd, &(struct epoll_event){0});
    return fd;
}

/* ---- send --------------------------------------------------------------------------------- */

/* If there is room again by now, the kernel says so in the next turn. */
static void stream_wait_for_room(struct io_ev *ev, struct io_stream *stream)
{
    struct stream_part *part = stream_part(stream);

    stream->want_write_ = true;
    part->is_writable = false;
    if (!part->waits_for_room) {
        struct epoll_event event = stream_event_of(ev, stream->fd, STREAM_EVENTS | EPOLLOUT);

        part->waits_for_room = epoll_ctl(ev->stream_fd, EPOLL_CTL_MOD, stream->fd, &event) == 0;
    }
}

static size_t slices_len(const struct iovec *slices, int count)
{
    size_t len = 0;

    for (int i = 0; i < count; i++)
        len += slices[i].iov_len;
    return len;
}

/* `sent` is what socket_send() made of `wanted` bytes. What io_stream_send() returns. */
static ssize_t stream_sent(struct io_ev *ev, struct io_stream *stream, ssize_t sent, size_t wanted)
{
    if (UNLIKELY(sent == -EAGAIN))
        sent = 0;
    if (UNLIKELY(sent < 0))
        stream_break(stream);
    else if (UNLIKELY((size_t)sent < wanted))
        stream_wait_for_room(ev, stream);
    return sent;
}

ssize_t io_ev_stream_send(struct io *io, struct io_stream *stream, const struct iovec *slices,
                          int count)
{
    ssize_t sent_total = 0;

    if (UNLIKELY(stream->state_ == STREAM_BROKEN))
        return -EPIPE;
    if (UNLIKELY(stream->state_ != STREAM_OPEN)) {
        stream->want_write_ = true; /* writable() follows connected() */
        return 0;
    }
    while (count > 0) {
        int batch = MIN(count, SLICES_MAX);
        size_t wanted = slices_len(slices, batch);

        if (wanted > 0) {
            ssize_t sent = stream_sent(io_ev_of(io), stream, socket_send(stream->fd, slices, batch), wanted);

            if (UNLIKELY(sent < 0))
                return sent;
            sent_total += sent;
            if (UNLIKELY((size_t)sent < wanted))
                break;
        }
        slices += batch;
        count -= batch;
    }
    return sent_total;
}

static bool send_is_plain(const struct io_send *send)
{
    return LIKELY(send->stream->state_ == STREAM_OPEN && send->count > 0 && send->count <= SLICES_MAX);
}

static void streams_send_together(struct io_ev *ev, struct io_send *sends, unsigned count)
{
    struct socket_call calls[SOCKET_RING_MAX];
    size_t wanted[SOCKET_RING_MAX];
    unsigned call_count = 0, at = 0;

    for (unsigned i = 0; i < count; i++) {
        struct io_send *send = &sends[i];

        wanted[i] = send_is_plain(send) ? slices_len(send->slices, send->count) : 0;
        if (wanted[i] > 0)
            calls[call_count++] = (struct socket_call){
                .slices = send->slices, .count = send->count, .fd = send->stream->fd, .is_send = true};
        else
            send->sent = io_ev_stream_send(&ev->io, send->stream, send->slices, send->count);
    }
    socket_ring_run(ev->sockets, calls, call_count);
    for (unsigned i = 0; i < count; i++)
        if (wanted[i] > 0)
            sends[i].sent = stream_sent(ev, sends[i].stream, calls[at++].result, wanted[i]);
}

void io_ev_streams_send(struct io *io, struct io_send *sends, unsigned count)
{
    for (unsigned at = 0; at < count; at += SOCKET_RING_MAX)
        streams_send_together(io_ev_of(io), sends + at, MIN(count - at, SOCKET_RING_MAX));
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

/* ---- once --------------------------------------------------------------------------------- */

int io_ev_stream_init(struct io_ev *ev)
{
    ev->stream_fd = epoll_create1(EPOLL_CLOEXEC);
    if (ev->stream_fd < 0)
        return -errno;
    ev_io_init(&ev->stream_watcher, streams_event, ev->stream_fd, EV_READ);
    ev_io_start(ev->loop, &ev->stream_watcher);
    return 0;
}

void io_ev_stream_deinit(struct io_ev *ev)
{
    if (ev->stream_fd < 0)
        return;
    ev_io_stop(ev->loop, &ev->stream_watcher);
    close(ev->stream_fd);
    mem_free(ev->slots);
}
