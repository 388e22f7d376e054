/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated kernels' sockets.
 *
 *     end 0 ── send ──> flight ──(delay, segments)──> rx ── recv ──> end 1
 *           <────────────────── acks ────────────────
 *
 * A connection is two pipes, one each way. What an end sends lies in `flight` until its time has
 * come and the other end's window has room; then a segment of random size moves to `rx`. The
 * sender's buffer is free again when the acknowledgement is back: that is what makes sends short.
 *
 *   N1  A pipe is FIFO: bytes, then FIN or RST.
 *   N2  Pipes know nothing of each other but through acks and RST: a dead connection's bytes may
 *       arrive after its successor's.
 *   N3  A cut loses packets, and TCP repeats them: data stalls and comes late, nothing is lost;
 *       only the time-out of the sender ends it.
 *   N4  A closed end lives on as its pipe until the other end is closed, too.
 */
#include "common/io/io_sim_net_private.h"

/* ---- reachability ------------------------------------------------------------------------- */

bool sim_net_cut_is(struct sim *sim, const struct sim_node *from, const struct sim_node *to)
{
    return sim->pairs != NULL && sim_pair(sim, from, to)->is_cut;
}

static bool conn_is_reachable(struct sim_conn *conn, int from)
{
    const struct sim_node *source = conn->nodes[from], *target = conn->nodes[1 - from];

    if (conn->is_blackhole || !target->is_up)
        return false;
    return conn->is_unix || !sim_net_cut_is(conn->sim, source, target);
}

uint64_t sim_net_delay(struct sim *sim, const struct sim_node *from, const struct sim_node *to,
                           bool is_unix)
{
    const struct sim_options *o = &sim->options;
    uint64_t delay_us;

    if (is_unix)
        return sim_random_below(sim, SIM_RANDOM_NET, 20);
    delay_us = sim_draw_delay(sim, SIM_RANDOM_NET, o->net.delay_min_us, o->net.delay_mean_us);
    if (sim_random_chance(sim, SIM_RANDOM_NET, o->net.spike_ppm))
        delay_us += o->net.spike_us;
    if (sim->pairs != NULL && to != NULL)
        delay_us += sim_pair(sim, from, to)->slow_us;
    return delay_us;
}

static uint64_t conn_delay(struct sim_conn *conn, int from)
{
    return sim_net_delay(conn->sim, conn->nodes[from], conn->nodes[1 - from], conn->is_unix);
}

/* min..max, each power of two as likely as the next: single bytes and whole buffers both happen. */
static uint64_t draw_log(struct sim *sim, uint32_t min, uint32_t max)
{
    uint64_t low = MAX(min, 1u), high = low;
    uint32_t doublings = 0;

    while ((low << (doublings + 1)) <= max)
        doublings++;
    high = low << (sim_random_below(sim, SIM_RANDOM_NET, doublings + 1) + 1);
    high = MIN(high, (uint64_t)MAX(max, (uint32_t)low));
    return low + sim_random_below(sim, SIM_RANDOM_NET, high - low + 1);
}

/* ---- pipes -------------------------------------------------------------------------------- */

static void pipe_schedule(struct sim_pipe *pipe)
{
    struct sim *sim = pipe->conn->sim;
    uint64_t at_us;

    if (pipe->flight.len > 0) {
        if (pipe->is_stalled || pipe->is_blocked)
            return;
        at_us = pipe->bursts[pipe->burst_first].at_us;
    } else if (pipe->is_rst_sent || (pipe->is_fin_sent && !pipe->is_fin_arrived)) {
        if (pipe->is_stalled)
            return;
        at_us = pipe->end_at_us;
    } else {
        return;
    }
    if (!sim_event_is_armed(&pipe->segment))
        sim_event_start(sim, &pipe->segment, MAX(at_us, pipe->last_at_us));
}

/* The sender gives up when nothing was acknowledged for so long. */
static void pipe_watch(struct sim_pipe *pipe)
{
    struct sim_conn *conn = pipe->conn;
    struct sim_socket *sender = conn->ends[pipe->side];
    uint64_t limit_us;

    if (sender == NULL || sender->err != 0 || pipe->acked == pipe->sent) {
        sim_event_stop(conn->sim, &pipe->dead);
        return;
    }
    limit_us = sender->user_timeout_ms != 0 ? (uint64_t)sender->user_timeout_ms * 1000
                                            : conn->sim->options.net.dead_us;
    if (limit_us != 0 && !conn->is_unix && !sim_event_is_armed(&pipe->dead))
        sim_event_start(conn->sim, &pipe->dead, pipe->progress_us + limit_us);
}

static void pipe_clear(struct sim_pipe *pipe)
{
    struct sim *sim = pipe->conn->sim;

    sim_buffer_clear(&pipe->flight);
    pipe->burst_count = 0;
    sim_event_stop(sim, &pipe->segment);
    sim_event_stop(sim, &pipe->ack);
    sim_event_stop(sim, &pipe->dead);
}

/* Keeps the first `keep` bytes that are on their way. */
static void pipe_truncate(struct sim_pipe *pipe, uint64_t keep)
{
    uint64_t end = pipe->arrived + keep;

    ASSERT(keep <= pipe->flight.len);
    if (keep == 0) {
        sim_buffer_clear(&pipe->flight);
        pipe->burst_count = 0;
        return;
    }
    pipe->flight.len = keep;
    while (pipe->burst_count > 1 &&
           pipe->bursts[(pipe->burst_first + pipe->burst_count - 2) % SIM_BURSTS_MAX].end >= end)
        pipe->burst_count--;
    pipe->bursts[(pipe->burst_first + pipe->burst_count - 1) % SIM_BURSTS_MAX].end = end;
}

static void pipe_burst_add(struct sim_pipe *pipe, uint64_t at_us)
{
    uint32_t last = (pipe->burst_first + pipe->burst_count + SIM_BURSTS_MAX - 1) % SIM_BURSTS_MAX;

    if (pipe->burst_count > 0)
        at_us = MAX(at_us, pipe->bursts[last].at_us);
    if (pipe->burst_count == SIM_BURSTS_MAX || (pipe->burst_count > 0 &&
                                           pipe->bursts[last].at_us == at_us)) {
        pipe->bursts[last] = (struct sim_burst){.end = pipe->sent, .at_us = at_us};
        return;
    }
    pipe->bursts[(pipe->burst_first + pipe->burst_count) % SIM_BURSTS_MAX] =
        (struct sim_burst){.end = pipe->sent, .at_us = at_us};
    pipe->burst_count++;
}

static void conn_release(struct sim_conn *conn)
{
    if (conn->ends[0] != NULL || conn->ends[1] != NULL)
        return;
    for (int i = 0; i < 2; i++) {
        pipe_clear(&conn->pipes[i]);
        sim_buffer_clear(&conn->pipes[i].rx);
    }
    sim_event_stop(conn->sim, &conn->handshake);
    list_remove(&conn->node_);
    mem_free(conn);
}

/* The connection is over for this end. What has arrived can still be read, or not: both happen. */
void sim_conn_fail(struct sim_conn *conn, int side, int err)
{
    struct sim_socket *end = conn->ends[side];
    struct sim_pipe *in = &conn->pipes[1 - side];

    pipe_clear(&conn->pipes[side]);
    pipe_clear(in);
    if (end == NULL || end->err != 0)
        return;
    end->err = err;
    if (err == -ECONNRESET)
        conn->sim->stats.resets++;
    if (sim_random(conn->sim, SIM_RANDOM_NET) % 2 == 0)
        sim_buffer_clear(&in->rx);
    if (end->connect == SIM_CONNECT_GOING) {
        end->connect = SIM_CONNECT_ENDED;
        end->connect_err = err;
    }
    sim_trace(conn->sim, end->node, "broken", conn->id, (uint64_t)(int64_t)err);
    sim_socket_notify(end);
}

static void conn_reset(struct sim_conn *conn)
{
    sim_conn_fail(conn, 0, -ECONNRESET);
    sim_conn_fail(conn, 1, -ECONNRESET);
}

/* RST after what this side has on its way. */
static void conn_send_rst(struct sim_conn *conn, int side)
{
    struct sim_pipe *pipe = &conn->pipes[side];

    if (pipe->is_rst_sent)
        return;
    pipe->is_rst_sent = true;
    pipe->end_at_us = conn->sim->now_us + conn_delay(conn, side);
    pipe_schedule(pipe);
}

static void pipe_send_ack(struct sim_pipe *pipe)
{
    if (pipe->arrived == pipe->acked || sim_event_is_armed(&pipe->ack) || pipe->is_ack_stalled)
        return;
    pipe->ack_value = pipe->arrived;
    sim_event_start(pipe->conn->sim, &pipe->ack,
                    pipe->conn->sim->now_us + conn_delay(pipe->conn, 1 - pipe->side));
}

static void ack_fire(struct sim_event *event)
{
    struct sim_pipe *pipe = CONTAINER_OF(event, struct sim_pipe, ack);
    struct sim_conn *conn = pipe->conn;
    struct sim_socket *sender = conn->ends[pipe->side];

    if (!conn_is_reachable(conn, 1 - pipe->side)) {
        pipe->is_ack_stalled = true;
        return;
    }
    pipe->acked = pipe->ack_value;
    pipe->progress_us = conn->sim->now_us;
    sim_event_stop(conn->sim, &pipe->dead);
    pipe_watch(pipe);
    pipe_send_ack(pipe);
    if (sender != NULL)
        sim_socket_notify(sender);
}

static void dead_fire(struct sim_event *event)
{
    struct sim_pipe *pipe = CONTAINER_OF(event, struct sim_pipe, dead);
    struct sim_conn *conn = pipe->conn;
    struct sim_socket *sender = conn->ends[pipe->side];

    /* A full window with a peer that answers is no reason, unless the user set the time-out. */
    if (sender->user_timeout_ms == 0 && !pipe->is_stalled && !pipe->is_ack_stalled) {
        pipe->progress_us = conn->sim->now_us;
        pipe_watch(pipe);
        return;
    }
    sim_conn_fail(conn, pipe->side, -ETIMEDOUT);
}

/* FIN or RST is there. */
static void pipe_end_arrives(struct sim_pipe *pipe)
{
    struct sim_conn *conn = pipe->conn;
    struct sim_socket *receiver = conn->ends[1 - pipe->side];

    if (pipe->is_fin_sent && !pipe->is_fin_arrived) {
        pipe->is_fin_arrived = true;
        sim_trace(conn->sim, conn->nodes[1 - pipe->side], "fin", conn->id, pipe->arrived);
        if (receiver != NULL)
            sim_socket_notify(receiver);
        pipe_schedule(pipe);
        return;
    }
    if (pipe->is_rst_sent)
        sim_conn_fail(conn, 1 - pipe->side, -ECONNRESET);
}

static size_t pipe_segment_size(struct sim_pipe *pipe)
{
    struct sim *sim = pipe->conn->sim;
    uint64_t size = draw_log(sim, sim->options.net.segment_min, sim->options.net.segment_max);
    uint64_t due = 0;

    for (uint32_t i = 0; i < pipe->burst_count; i++) {
        const struct sim_burst *burst = &pipe->bursts[(pipe->burst_first + i) % SIM_BURSTS_MAX];

        if (burst->at_us > sim->now_us)
            break;
        due = burst->end - pipe->arrived;
    }
    size = MIN(size, due);
    size = MIN(size, (uint64_t)(pipe->recv_cap - pipe->rx.len));
    if (pipe->reset_at != SIM_NEVER)
        size = MIN(size, pipe->reset_at - pipe->arrived);
    return size;
}

static void pipe_data_arrives(struct sim_pipe *pipe, struct sim_socket *receiver)
{
    struct sim *sim = pipe->conn->sim;
    size_t size = pipe_segment_size(pipe);

    sim->stats.segments++;
    sim->stats.segment_bytes += size;
    sim_trace(sim, receiver->node, "bytes", pipe->conn->id, size);
    sim_buffer_append(&pipe->rx, sim_buffer_at(&pipe->flight), size);
    sim_buffer_skip(&pipe->flight, size);
    pipe->arrived += size;
    while (pipe->burst_count > 0 && pipe->bursts[pipe->burst_first].end <= pipe->arrived) {
        pipe->burst_first = (pipe->burst_first + 1) % SIM_BURSTS_MAX;
        pipe->burst_count--;
    }
    pipe->last_at_us = sim->now_us + sim_random_below(sim, SIM_RANDOM_NET,
                                                      (uint64_t)sim->options.net.gap_us_max + 1);
    if (pipe->rx.len == pipe->recv_cap)
        pipe->is_blocked = true;
    pipe_send_ack(pipe);
    sim_socket_notify(receiver);
    if (pipe->arrived == pipe->reset_at)
        conn_reset(pipe->conn);
    else
        pipe_schedule(pipe);
}

static void segment_fire(struct sim_event *event)
{
    struct sim_pipe *pipe = CONTAINER_OF(event, struct sim_pipe, segment);
    struct sim_conn *conn = pipe->conn;
    struct sim *sim = conn->sim;
    struct sim_socket *receiver = conn->ends[1 - pipe->side];

    if (!conn_is_reachable(conn, pipe->side)) {
        pipe->is_stalled = true;
        return;
    }
    if (receiver != NULL && receiver->connect == SIM_CONNECT_GOING) {
        sim_event_start(sim, event, MAX(conn->handshake.key.at, sim->now_us) + 1);
        return; /* the answer to the SYN comes first */
    }
    if (pipe->flight.len == 0) {
        pipe_end_arrives(pipe);
    } else if (receiver == NULL || receiver->err != 0) {
        pipe_truncate(pipe, 0); /* nobody there: RST is the answer */
        conn_send_rst(conn, 1 - pipe->side);
        pipe_schedule(pipe);
    } else if (!conn->is_unix &&
               sim_random_chance(sim, SIM_RANDOM_NET, sim->options.net.rst_ppm)) {
        conn_reset(conn);
    } else {
        pipe_data_arrives(pipe, receiver);
    }
}

/* ---- sockets ------------------------------------------------------------------------------ */

int sim_fd_alloc(struct sim *sim, struct sim_process *process, struct sim_socket *socket)
{
    if (process->fd_count >= sim->options.net.fd_max || sim->fd_open >= SIM_FDS_MAX)
        return -EMFILE;
    if (sim->fd_open * 2 >= sim->fd_cap) {
        uint32_t cap = MAX(sim->fd_cap * 2, 256u);

        sim->fds = must_realloc(sim->fds, cap * sizeof(struct sim_socket *));
        memset(sim->fds + sim->fd_cap, 0, (cap - sim->fd_cap) * sizeof(struct sim_socket *));
        sim->fd_cap = cap;
    }
    while (sim->fds[sim->fd_next % sim->fd_cap] != NULL)
        sim->fd_next++;
    socket->fd = (int)(sim->fd_next % sim->fd_cap) + SIM_FD_BASE;
    sim->fds[sim->fd_next % sim->fd_cap] = socket;
    sim->fd_next = (sim->fd_next + 1) % sim->fd_cap;
    sim->fd_open++;
    process->fd_count++;
    socket->process = process;
    list_push_back(&process->sockets, &socket->owner_);
    return 0;
}

void sim_socket_disown(struct sim_socket *socket)
{
    if (socket->process == NULL)
        return;
    if (list_node_is_linked(&socket->ready_))
        list_remove(&socket->ready_);
    list_remove(&socket->owner_);
    socket->process->fd_count--;
    socket->process = NULL;
}

void sim_socket_adopt(struct sim_process *process, struct sim_socket *socket)
{
    if (socket->process == process)
        return;
    ASSERT(socket->process == NULL);
    socket->process = process;
    process->fd_count++;
    list_push_back(&process->sockets, &socket->owner_);
}

void sim_socket_free(struct sim_socket *socket)
{
    struct sim *sim = socket->sim;

    if (sim->current == socket)
        sim->current = NULL;
    sim_socket_disown(socket);
    if (list_node_is_linked(&socket->listen_))
        list_remove(&socket->listen_);
    if (socket->fd >= 0) {
        sim->fds[socket->fd - SIM_FD_BASE] = NULL;
        sim->fd_open--;
    }
    mem_free(socket);
}

struct sim_socket *sim_socket_of_fd(const struct sim *sim, int fd)
{
    if (fd < SIM_FD_BASE || (uint32_t)(fd - SIM_FD_BASE) >= sim->fd_cap)
        return NULL;
    return sim->fds[fd - SIM_FD_BASE];
}

struct sim_socket *sim_socket_create(struct sim_node *node, enum sim_socket_kind kind)
{
    struct sim_socket *socket = must_zalloc(sizeof(*socket));

    socket->sim = node->sim;
    socket->node = node;
    socket->fd = -1;
    socket->kind = kind;
    list_init(&socket->backlog);
    return socket;
}

static void pipe_init(struct sim_conn *conn, int side)
{
    struct sim *sim = conn->sim;
    const struct sim_options *o = &sim->options;
    struct sim_pipe *pipe = &conn->pipes[side];

    pipe->conn = conn;
    pipe->side = (uint8_t)side;
    pipe->send_cap = (uint32_t)draw_log(sim, o->net.send_buffer_min, o->net.send_buffer_max);
    pipe->recv_cap = (uint32_t)draw_log(sim, o->net.recv_buffer_min, o->net.recv_buffer_max);
    pipe->low_mark = 1 + (uint32_t)sim_random_below(sim, SIM_RANDOM_NET, pipe->send_cap / 3 + 1);
    pipe->reset_at = SIM_NEVER;
    pipe->progress_us = sim->now_us;
    pipe->segment = (struct sim_event){.fire = segment_fire, .kind = SIM_EVENT_SEGMENT,
                                       .id = conn->id, .node = NULL};
    pipe->ack = (struct sim_event){.fire = ack_fire, .kind = SIM_EVENT_ACK, .id = conn->id};
    pipe->dead = (struct sim_event){.fire = dead_fire, .kind = SIM_EVENT_DEAD, .id = conn->id};
}

struct sim_conn *sim_conn_create(struct sim_node *node, struct sim_socket *client)
{
    struct sim *sim = node->sim;
    struct sim_conn *conn = must_zalloc(sizeof(*conn));

    conn->sim = sim;
    conn->id = ++sim->conn_next;
    conn->nodes[0] = node;
    conn->ends[0] = client;
    client->conn = conn;
    client->side = 0;
    pipe_init(conn, 0);
    pipe_init(conn, 1);
    conn->handshake = (struct sim_event){.fire = sim_handshake_fire, .kind = SIM_EVENT_HANDSHAKE,
                                         .id = conn->id, .node = node};
    list_push_back(&sim->conns, &conn->node_);
    return conn;
}

struct sim_socket *sim_conn_add_server(struct sim_conn *conn, struct sim_node *node)
{
    struct sim_socket *server = sim_socket_create(node, SIM_SOCKET_STREAM);

    server->conn = conn;
    server->side = 1;
    server->connect = SIM_CONNECT_NONE;
    conn->nodes[1] = node;
    conn->ends[1] = server;
    return server;
}

void sim_socket_notify(struct sim_socket *socket)
{
    struct sim_process *process = socket->process;

    if (process == NULL || process->is_dead || list_node_is_linked(&socket->ready_) ||
        !sim_stream_wants(socket))
        return;
    list_push_back(&process->ready, &socket->ready_);
    sim_process_wake(process);
}

void sim_socket_user_timeout(struct sim_socket *socket, uint32_t timeout_ms)
{
    socket->user_timeout_ms = timeout_ms;
}

bool sim_socket_is_readable(const struct sim_socket *socket)
{
    const struct sim_pipe *in = &socket->conn->pipes[1 - socket->side];

    return in->rx.len > 0 || in->is_fin_arrived || socket->err != 0;
}

static uint64_t pipe_room(const struct sim_pipe *pipe)
{
    uint64_t used = pipe->sent - pipe->acked;

    return used >= pipe->send_cap ? 0 : pipe->send_cap - used;
}

bool sim_socket_is_writable(const struct sim_socket *socket)
{
    const struct sim_pipe *out = &socket->conn->pipes[socket->side];

    if (socket->connect == SIM_CONNECT_GOING)
        return false;
    return socket->err != 0 || out->is_fin_sent || pipe_room(out) >= out->low_mark;
}

ssize_t sim_socket_send(struct sim_socket *socket, const struct iovec *slices, int count)
{
    struct sim_conn *conn = socket->conn;
    struct sim_pipe *out = &conn->pipes[socket->side];
    uint64_t at_us, sum = 0;

    if (socket->connect == SIM_CONNECT_GOING)
        return 0;
    if (socket->err != 0)
        return socket->err;
    if (out->is_fin_sent)
        return -EPIPE;
    for (int i = 0; i < count; i++) {
        size_t len = MIN((uint64_t)slices[i].iov_len, pipe_room(out));

        sim_buffer_append(&out->flight, slices[i].iov_base, len);
        out->sent += len;
        sum += len;
        if (len < slices[i].iov_len)
            break;
    }
    if (sum == 0)
        return 0;
    if (out->sent - out->acked == sum) /* nothing was waiting: the clock starts now */
        out->progress_us = conn->sim->now_us;
    at_us = socket->process == NULL ? conn->sim->now_us : sim_process_true_us(socket->process);
    pipe_burst_add(out, at_us + conn_delay(conn, socket->side));
    pipe_schedule(out);
    pipe_watch(out);
    return (ssize_t)sum;
}

size_t sim_socket_available(const struct sim_socket *socket)
{
    return socket->conn->pipes[1 - socket->side].rx.len;
}

ssize_t sim_socket_recv(struct sim_socket *socket, char *data, size_t size)
{
    struct sim_conn *conn = socket->conn;
    struct sim_pipe *in = &conn->pipes[1 - socket->side];
    size_t len = MIN(size, in->rx.len);

    if (in->rx.len == 0) {
        if (socket->err != 0)
            return socket->err;
        return in->is_fin_arrived ? 0 : -EAGAIN;
    }
    memcpy(data, sim_buffer_at(&in->rx), len);
    sim_buffer_skip(&in->rx, len);
    if (in->is_blocked && socket->err == 0) {
        in->is_blocked = false;
        in->last_at_us = MAX(in->last_at_us, conn->sim->now_us + conn_delay(conn, socket->side));
        pipe_schedule(in);
    }
    return (ssize_t)len;
}

void sim_socket_drain(struct sim_socket *socket)
{
    sim_buffer_clear(&socket->conn->pipes[1 - socket->side].rx);
}

void sim_socket_shutdown(struct sim_socket *socket)
{
    struct sim_conn *conn = socket->conn;
    struct sim_pipe *out = &conn->pipes[socket->side];

    if (out->is_fin_sent || socket->err != 0 || socket->connect == SIM_CONNECT_GOING)
        return;
    out->is_fin_sent = true;
    out->end_at_us = conn->sim->now_us + conn_delay(conn, socket->side);
    pipe_schedule(out);
    sim_socket_notify(socket);
}

/* This end is gone; `rst`: now, and what was not on the wire yet is lost. */
static void end_close(struct sim_socket *socket, bool rst)
{
    struct sim_conn *conn = socket->conn;
    int side = socket->side;
    struct sim_pipe *out = &conn->pipes[side], *in = &conn->pipes[1 - side];

    if (socket->err == 0 && conn->ends[1 - side] != NULL) {
        if (rst || in->rx.len > 0 || socket->connect == SIM_CONNECT_GOING) {
            size_t sent = sim_random_below(conn->sim, SIM_RANDOM_NET, out->flight.len + 1);

            /* What the window has no room for was never sent: RST does not wait until the peer reads. */
            pipe_truncate(out, MIN(sent, (size_t)(out->recv_cap - out->rx.len)));
            out->is_fin_sent = out->is_fin_arrived;
            conn_send_rst(conn, side);
        } else {
            sim_socket_shutdown(socket);
        }
    }
    conn->ends[side] = NULL;
    sim_buffer_clear(&in->rx);
    in->is_blocked = false;
    sim_event_stop(conn->sim, &out->dead);
    if (conn->ends[1 - side] != NULL)
        pipe_schedule(in);
    else
        conn_release(conn);
    sim_socket_free(socket);
}

static void listener_close(struct sim_socket *listener)
{
    struct list_node *node;

    while ((node = list_first(&listener->backlog)) != NULL)
        end_close(CONTAINER_OF(node, struct sim_socket, listen_), true);
    sim_socket_free(listener);
}

void sim_socket_close(struct sim_socket *socket)
{
    if (socket->kind == SIM_SOCKET_LISTENER)
        listener_close(socket);
    else
        end_close(socket, false);
}

void sim_socket_abort(struct sim_socket *socket)
{
    ASSERT(socket->kind == SIM_SOCKET_STREAM);
    end_close(socket, true);
}

int sim_socket_accept(struct sim_socket *listener, struct sim_socket **out)
{
    struct list_node *node = list_first(&listener->backlog);
    struct sim_socket *socket;
    int err;

    if (node == NULL)
        return -EAGAIN;
    socket = CONTAINER_OF(node, struct sim_socket, listen_);
    err = sim_fd_alloc(listener->sim, listener->process, socket);
    if (err != 0)
        return err;
    list_remove(&socket->listen_);
    listener->backlog_count--;
    listener->sim->stats.accepts++;
    *out = socket;
    return 0;
}

/* ---- faults ------------------------------------------------------------------------------- */

static void pipe_kick(struct sim_pipe *pipe)
{
    struct sim *sim = pipe->conn->sim;
    uint64_t at_us = sim->now_us + sim_random_below(sim, SIM_RANDOM_NET,
                                                    (uint64_t)sim->options.net.retry_us + 1);

    if (pipe->is_stalled) {
        pipe->is_stalled = false;
        pipe->last_at_us = MAX(pipe->last_at_us, at_us);
        pipe_schedule(pipe);
    }
    if (pipe->is_ack_stalled) {
        pipe->is_ack_stalled = false;
        pipe_send_ack(pipe);
    }
}

/* Something may be reachable again; what is not stalls once more. */
static void net_kick(struct sim *sim)
{
    LIST_FOR_EACH(&sim->conns, node) {
        struct sim_conn *conn = CONTAINER_OF(node, struct sim_conn, node_);

        pipe_kick(&conn->pipes[0]);
        pipe_kick(&conn->pipes[1]);
    }
}

void sim_net_node_up(struct sim_node *node)
{
    net_kick(node->sim);
}

void sim_net_cut(struct sim_node *from, struct sim_node *to)
{
    sim_trace(from->sim, from, "cut", to->id, 0);
    sim_pair(from->sim, from, to)->is_cut = true;
}

void sim_net_heal(struct sim_node *from, struct sim_node *to)
{
    if (!sim_net_cut_is(from->sim, from, to))
        return;
    sim_trace(from->sim, from, "heal", to->id, 0);
    sim_pair(from->sim, from, to)->is_cut = false;
    net_kick(from->sim);
}

void sim_net_heal_all(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->node_count; i++) {
        for (uint32_t k = 0; k < sim->node_count; k++)
            sim_net_heal(sim->nodes[i], sim->nodes[k]);
    }
}

bool sim_net_is_cut(const struct sim_node *from, const struct sim_node *to)
{
    return sim_net_cut_is(from->sim, from, to);
}

void sim_net_slow(struct sim_node *from, struct sim_node *to, uint32_t delay_us)
{
    sim_pair(from->sim, from, to)->slow_us = delay_us;
}

static struct sim_socket *stream_socket(const struct io_stream *stream)
{
    ASSERT(io_stream_is_open(stream));
    return sim_socket_of_fd(sim_process_of(stream->io)->node->sim, stream->fd);
}

void sim_stream_reset(struct io_stream *stream)
{
    conn_reset(stream_socket(stream)->conn);
}

void sim_stream_blackhole(struct io_stream *stream)
{
    stream_socket(stream)->conn->is_blackhole = true;
}

void sim_stream_reset_after(struct io_stream *stream, uint64_t after)
{
    struct sim_socket *socket = stream_socket(stream);
    struct sim_pipe *in = &socket->conn->pipes[1 - socket->side];

    in->reset_at = in->arrived + after;
    if (after == 0)
        conn_reset(socket->conn);
}

uint64_t sim_stream_peer_sent(const struct io_stream *stream)
{
    const struct sim_socket *socket = stream_socket(stream);

    return socket->conn->pipes[1 - socket->side].sent;
}

/* ---- ends --------------------------------------------------------------------------------- */

/* The host is gone without a word: what was on the wire may arrive, FIN and RST never. */
static void end_vanish(struct sim_socket *socket)
{
    struct sim_conn *conn = socket->conn;
    struct sim_pipe *out = &conn->pipes[socket->side], *in = &conn->pipes[1 - socket->side];

    if (out->is_fin_sent && !out->is_fin_arrived && out->end_at_us > conn->sim->now_us)
        out->is_fin_sent = false;
    pipe_truncate(out, sim_random_below(conn->sim, SIM_RANDOM_CRASH, out->flight.len + 1));
    sim_event_stop(conn->sim, &out->dead);
    if (out->flight.len == 0)
        sim_event_stop(conn->sim, &out->segment);
    conn->ends[socket->side] = NULL;
    sim_buffer_clear(&in->rx);
    in->is_blocked = false;
    conn_release(conn);
    sim_socket_free(socket);
}

static void listener_end(struct sim_socket *listener, bool is_silent)
{
    struct list_node *node;

    if (listener->is_kept && !is_silent) {
        sim_socket_disown(listener);
        listener->listener = NULL;
        return;
    }
    while (is_silent && (node = list_pop_front(&listener->backlog)) != NULL)
        end_vanish(CONTAINER_OF(node, struct sim_socket, listen_));
    listener_close(listener);
}

void sim_net_process_ended(struct sim_process *process, bool is_silent)
{
    struct sim *sim = process->node->sim;
    struct list_node *node;

    while ((node = list_first(&process->sockets)) != NULL) {
        struct sim_socket *socket = CONTAINER_OF(node, struct sim_socket, owner_);

        sim_stream_forget(socket);
        if (socket->kind == SIM_SOCKET_LISTENER)
            listener_end(socket, is_silent);
        else if (is_silent)
            end_vanish(socket);
        else
            end_close(socket,
                      !sim_random_chance(sim, SIM_RANDOM_CRASH, sim->options.net.kill_fin_ppm));
    }
    if (!is_silent)
        return;
    /* Sockets that the host held for the next process. */
    LIST_FOR_EACH(&sim->listeners, at) {
        struct sim_socket *listener = CONTAINER_OF(at, struct sim_socket, listen_);

        if (listener->node == process->node && listener->process == NULL)
            listener_end(listener, true);
    }
}

void sim_net_deinit(struct sim *sim)
{
    struct list_node *node;

    while ((node = list_first(&sim->listeners)) != NULL)
        listener_close(CONTAINER_OF(node, struct sim_socket, listen_));
    while ((node = list_first(&sim->conns)) != NULL) {
        struct sim_conn *conn = CONTAINER_OF(node, struct sim_conn, node_);
        struct sim_socket *ends[2] = {conn->ends[0], conn->ends[1]};

        ASSERT(ends[0] != NULL || ends[1] != NULL);
        for (int i = 0; i < 2; i++) {
            if (ends[i] != NULL)
                end_vanish(ends[i]);
        }
    }
    ASSERT(sim->fd_open == 0);
    mem_free(sim->fds);
}
