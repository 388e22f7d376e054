/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, listeners and watches of struct io, over the simulated sockets.
 *
 * Receiving is as in io_ev: what is kept and what comes anew is lent in one piece, when at least
 * `need` bytes are there. The piece is a heap block of exactly that size, freed when recv()
 * returns: a sanitizer sees whoever reads past it or keeps a pointer into it (io.h, I3).
 */
#include "common/io/io_sim_private.h"

#define ACCEPT_MAX      64
#define ACCEPT_PAUSE_MS 100

enum stream_state { STREAM_CLOSED, STREAM_CONNECTING, STREAM_OPEN, STREAM_BROKEN };

static struct sim_socket *stream_socket(const struct io_stream *stream)
{
    return (struct sim_socket *)(uintptr_t)stream->private_[0];
}

static void rest_keep(struct io_stream *stream, struct bytes rest)
{
    char *copy = NULL;

    if (rest.len > 0) {
        copy = must_alloc(rest.len);
        memcpy(copy, rest.data, rest.len);
    }
    mem_free(stream->rest_);
    stream->rest_ = copy;
    stream->rest_len_ = stream->rest_cap_ = (uint32_t)rest.len;
}

/* The struct is the caller's again. */
static void stream_unbind(struct io_stream *stream)
{
    rest_keep(stream, BYTES_EMPTY);
    stream->io = NULL;
    stream->fd = -1;
    stream->state_ = STREAM_CLOSED;
    stream->want_write_ = false;
    stream->private_[0] = 0;
}

static void stream_bind(struct io *io, struct io_stream *stream, struct sim_socket *socket,
                        const struct io_stream_options *options)
{
    stream->io = io;
    stream->fd = socket->fd;
    stream->private_[0] = (uint64_t)(uintptr_t)socket;
    socket->stream = stream;
    socket->is_rest_due = false;
    if (options != NULL)
        sim_socket_user_timeout(socket, options->user_timeout_ms);
}

/* An error was reported: nothing is called back any more. */
static void stream_break(struct io_stream *stream)
{
    stream->state_ = STREAM_BROKEN;
    stream->want_write_ = false;
}

/* ---- what a turn does --------------------------------------------------------------------- */

static bool stream_receives(const struct io_stream *stream)
{
    return stream->state_ == STREAM_OPEN && !stream->recv_paused_ && !stream->eof_;
}

bool sim_stream_wants(const struct sim_socket *socket)
{
    const struct io_stream *stream = socket->stream;

    if (socket->kind == SIM_SOCKET_LISTENER)
        return socket->listener != NULL && socket->backlog_count > 0 &&
               !io_timer_is_running(&socket->accept_pause);
    if (stream == NULL)
        return false;
    if (stream->state_ == STREAM_CONNECTING)
        return socket->connect == SIM_CONNECT_ENDED;
    if (stream_receives(stream) && (socket->is_rest_due || sim_socket_is_readable(socket)))
        return true;
    return stream->state_ == STREAM_OPEN && stream->want_write_ && sim_socket_is_writable(socket);
}

static void turn_connected(struct sim_socket *socket)
{
    struct io_stream *stream = socket->stream;
    struct sim_process *process = socket->process;
    int err = socket->connect_err;

    stream->state_ = STREAM_OPEN;
    if (err != 0) {
        stream_unbind(stream);
        socket->stream = NULL;
        sim_socket_close(socket);
    }
    stream->handler->connected(stream, err);
    sim_process_called(process, "on connected", 0, (uint64_t)(int64_t)err);
}

static void turn_closed(struct sim_socket *socket, int err)
{
    struct io_stream *stream = socket->stream;
    struct sim_process *process = socket->process;
    uint64_t id = (uint64_t)socket->fd;
    char *rest = stream->rest_;
    struct bytes lent = bytes_of(rest, stream->rest_len_);

    if (rest == NULL)
        lent = BYTES_EMPTY;
    stream->rest_ = NULL;
    stream->rest_len_ = stream->rest_cap_ = 0;
    stream->eof_ = true;
    stream->need = 0;
    socket->is_rest_due = false;
    if (err != ERR_EOF)
        stream_break(stream);
    stream->handler->closed(stream, err, lent);
    sim_process_called(process, "on closed", id, (uint64_t)(int64_t)err);
    mem_free(rest);
}

/* Lends `lent`, a block of its own; keeps what is left. */
static void turn_lend(struct sim_socket *socket, char *data, size_t len)
{
    struct io_stream *stream = socket->stream;
    struct sim_process *process = socket->process;
    struct sim *sim = socket->sim;
    uint64_t id = (uint64_t)socket->fd, hash = sim_hash_bytes(data, len);
    size_t consumed;

    stream->need = 0;
    sim->lent = bytes_of(data, len);
    consumed = stream->handler->recv(stream, sim->lent);
    sim->lent = BYTES_EMPTY;
    sim_process_called(process, "on recv", id, hash);
    if (sim->current == socket && socket->stream == stream) {
        ASSERT(consumed <= len);
        rest_keep(stream, bytes_of(data + consumed, len - consumed));
        socket->is_rest_due &= consumed < len;
    }
    mem_free(data);
}

static void turn_recv(struct sim_socket *socket)
{
    struct io_stream *stream = socket->stream;
    struct sim *sim = socket->sim;
    size_t size = MIN((size_t)MAX(sim->options.loop.recv_size, 1u), sim_socket_available(socket));
    char *data = must_alloc(stream->rest_len_ + size + (stream->rest_len_ + size == 0));
    bool is_rest_due = socket->is_rest_due;
    ssize_t got = sim_socket_recv(socket, data + stream->rest_len_, size);
    size_t len = stream->rest_len_ + (got > 0 ? (size_t)got : 0);

    socket->is_rest_due = false;
    if (stream->rest_len_ > 0)
        memcpy(data, stream->rest_, stream->rest_len_);
    if ((got > 0 || (is_rest_due && stream->rest_len_ > 0)) && len >= stream->need) {
        rest_keep(stream, BYTES_EMPTY);
        turn_lend(socket, data, len);
        return;
    }
    if (got > 0)
        rest_keep(stream, bytes_of(data, len));
    mem_free(data);
    if (got <= 0 && got != -EAGAIN)
        turn_closed(socket, got == 0 ? ERR_EOF : (int)got);
}

static void turn_writable(struct sim_socket *socket)
{
    struct io_stream *stream = socket->stream;
    struct sim_process *process = socket->process;
    uint64_t id = (uint64_t)socket->fd;

    stream->want_write_ = false;
    stream->handler->writable(stream);
    sim_process_called(process, "on writable", id, 0);
}

static void turn_stream(struct sim_socket *socket)
{
    struct sim *sim = socket->sim;
    bool write_first = sim_random(sim, SIM_RANDOM_CORE) % 2 == 0;

    if (socket->stream == NULL)
        return;
    if (socket->stream->state_ == STREAM_CONNECTING) {
        if (socket->connect == SIM_CONNECT_ENDED)
            turn_connected(socket);
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct io_stream *stream = socket->stream;

        if (stream == NULL)
            return;
        if ((i == 0) == write_first) {
            if (stream->state_ == STREAM_OPEN && stream->want_write_ &&
                sim_socket_is_writable(socket))
                turn_writable(socket);
        } else if (stream_receives(stream) &&
                   (socket->is_rest_due || sim_socket_is_readable(socket))) {
            turn_recv(socket);
        }
        if (sim->current != socket)
            return;
    }
}

static void accept_pause_fire(struct io_timer *timer)
{
    sim_socket_notify(timer->arg);
}

static void turn_accept(struct sim_socket *socket)
{
    struct sim *sim = socket->sim;
    struct sim_process *process = socket->process;
    uint64_t count = 1 + sim_random_below(sim, SIM_RANDOM_CORE, ACCEPT_MAX);

    for (uint64_t i = 0; i < count; i++) {
        struct io_listener *listener = socket->listener;
        struct sim_socket *accepted;
        int err;

        if (listener == NULL)
            return;
        err = sim_socket_accept(socket, &accepted);
        if (err == -EMFILE) {
            socket->accept_pause.fire = accept_pause_fire;
            socket->accept_pause.arg = socket;
            io_timer_start(&process->io, &socket->accept_pause, ACCEPT_PAUSE_MS);
        }
        if (err != 0)
            return;
        sim_process_called(process, "on accepted", (uint64_t)accepted->fd, 0);
        listener->accepted(listener, accepted->fd, &accepted->peer);
        if (sim->current != socket)
            return;
    }
}

void sim_stream_turn(struct sim_socket *socket)
{
    struct sim *sim = socket->sim;

    ASSERT(sim->current == NULL);
    sim->current = socket;
    if (socket->kind == SIM_SOCKET_LISTENER)
        turn_accept(socket);
    else
        turn_stream(socket);
    if (sim->current == socket)
        sim_socket_notify(socket); /* what it did not take is still there */
    sim->current = NULL;
}

void sim_stream_forget(struct sim_socket *socket)
{
    if (socket->stream != NULL)
        stream_unbind(socket->stream);
    socket->stream = NULL;
    if (socket->listener != NULL)
        socket->listener->io = NULL;
    socket->listener = NULL;
}

/* ---- calls -------------------------------------------------------------------------------- */

int sim_stream_open(struct io *io, struct io_stream *stream, int fd,
                    const struct io_stream_options *options, struct bytes rest)
{
    struct sim_process *process = sim_process_of(io);
    struct sim_socket *socket = sim_socket_of_fd(process->node->sim, fd);

    if (process->is_dead)
        return -ENETDOWN;
    if (socket == NULL || socket->process != process || socket->kind != SIM_SOCKET_STREAM)
        return -EBADF;
    ASSERT(socket->stream == NULL);
    stream_bind(io, stream, socket, options);
    stream->state_ = STREAM_OPEN;
    rest_keep(stream, rest);
    return 0;
}

int sim_stream_connect(struct io *io, struct io_stream *stream, const struct io_addr *addr,
                       const struct io_stream_options *options)
{
    struct sim_process *process = sim_process_of(io);
    struct sim_socket *socket;
    int err = process->is_dead ? -ENETDOWN : sim_socket_connect(process, addr, &socket);

    if (err != 0)
        return err;
    stream_bind(io, stream, socket, options);
    stream->state_ = STREAM_CONNECTING;
    return 0;
}

void sim_stream_resume(struct io *io, struct io_stream *stream)
{
    struct sim_socket *socket = stream_socket(stream);

    (void)io;
    stream->recv_paused_ = false;
    /* Inside recv() it is not known yet what will be kept. */
    if (stream->rest_len_ > 0 || (socket->sim->current == socket && socket->sim->lent.len > 0))
        socket->is_rest_due = true;
    sim_socket_notify(socket);
}

void sim_stream_pause(struct io *io, struct io_stream *stream)
{
    (void)io;
    stream->recv_paused_ = true;
}

ssize_t sim_stream_send(struct io *io, struct io_stream *stream, const struct iovec *slices,
                        int count)
{
    struct sim_socket *socket = stream_socket(stream);
    size_t size = 0;
    ssize_t sent;

    (void)io;
    for (int i = 0; i < count; i++)
        size += slices[i].iov_len;
    sent = stream->state_ == STREAM_BROKEN ? -EPIPE : sim_socket_send(socket, slices, count);
    if (sent < 0) {
        stream_break(stream);
    } else if ((size_t)sent < size) {
        stream->want_write_ = true;
        sim_socket_notify(socket);
    }
    return sent;
}

void sim_stream_shutdown(struct io *io, struct io_stream *stream)
{
    (void)io;
    sim_socket_shutdown(stream_socket(stream));
}

void sim_stream_close(struct io *io, struct io_stream *stream, bool is_abort)
{
    struct sim_socket *socket = stream_socket(stream);

    (void)io;
    if (stream->state_ == STREAM_OPEN && !stream->eof_ && !is_abort)
        sim_socket_drain(socket); /* as io_ev does, so that RST does not overtake the last reply */
    stream_unbind(stream);
    socket->stream = NULL;
    if (is_abort)
        sim_socket_abort(socket);
    else
        sim_socket_close(socket);
}

int sim_stream_detach(struct io *io, struct io_stream *stream, char **rest, size_t *rest_len)
{
    struct sim_socket *socket = stream_socket(stream);
    struct sim *sim = socket->sim;

    (void)io;
    if (sim->current == socket && sim->lent.len > 0)
        rest_keep(stream, sim->lent);
    *rest = stream->rest_;
    *rest_len = stream->rest_len_;
    stream->rest_ = NULL;
    stream_unbind(stream);
    socket->stream = NULL;
    return socket->fd;
}

void sim_stream_peer(struct io *io, const struct io_stream *stream, struct io_addr *out)
{
    (void)io;
    *out = stream_socket(stream)->peer;
}

void sim_stream_local(struct io *io, const struct io_stream *stream, struct io_addr *out)
{
    (void)io;
    *out = stream_socket(stream)->local;
}

void sim_listener_start(struct io *io, struct io_listener *listener, int fd)
{
    struct sim_process *process = sim_process_of(io);
    struct sim_socket *socket = sim_socket_of_fd(process->node->sim, fd);

    if (process->is_dead)
        return;
    ASSERT(socket != NULL && socket->kind == SIM_SOCKET_LISTENER && socket->listener == NULL);
    sim_socket_adopt(process, socket);
    listener->io = io;
    listener->fd = fd;
    listener->private_[0] = (uint64_t)(uintptr_t)socket;
    socket->listener = listener;
    sim_socket_notify(socket);
}

void sim_listener_stop(struct io *io, struct io_listener *listener)
{
    struct sim_socket *socket = (struct sim_socket *)(uintptr_t)listener->private_[0];

    (void)io;
    listener->io = NULL;
    socket->listener = NULL;
    io_timer_stop(&socket->accept_pause);
}

/* ---- watches ------------------------------------------------------------------------------ */

void sim_watch_start(struct io *io, struct io_watch *watch, int fd, bool read, bool write)
{
    struct sim_process *process = sim_process_of(io);
    struct sim_watch *own;

    (void)read, (void)write;
    if (process->is_dead)
        return;
    own = must_zalloc(sizeof(*own));
    own->watch = watch;
    list_push_back(&process->watches, &own->node);
    watch->io = io;
    watch->fd = fd;
    watch->private_[0] = (uint64_t)(uintptr_t)own;
}

static void watch_free(struct sim_watch *own)
{
    own->watch->io = NULL;
    list_remove(&own->node);
    mem_free(own);
}

void sim_watch_stop(struct io *io, struct io_watch *watch)
{
    (void)io;
    watch_free((struct sim_watch *)(uintptr_t)watch->private_[0]);
}

void sim_watch_forget(struct sim_process *process)
{
    struct list_node *node;

    while ((node = list_first(&process->watches)) != NULL)
        watch_free(CONTAINER_OF(node, struct sim_watch, node));
}

void sim_watch_fire(struct io_watch *watch, bool readable, bool writable)
{
    struct sim_watch *own = (struct sim_watch *)(uintptr_t)watch->private_[0];

    ASSERT(watch->io != NULL);
    own->readable = readable;
    own->writable = writable;
    sim_process_wake(sim_process_of(watch->io));
}

static struct sim_watch *watch_due(struct sim_process *process)
{
    LIST_FOR_EACH(&process->watches, node) {
        struct sim_watch *own = CONTAINER_OF(node, struct sim_watch, node);

        if (own->readable || own->writable)
            return own;
    }
    return NULL;
}

void sim_watch_turn(struct sim_process *process)
{
    struct sim_watch *own;

    while (!process->is_dead && (own = watch_due(process)) != NULL) {
        bool readable = own->readable, writable = own->writable;

        own->readable = own->writable = false;
        sim_process_called(process, "on watch", 0, (uint64_t)readable * 2 + writable);
        own->watch->ready(own->watch, readable, writable);
    }
}
