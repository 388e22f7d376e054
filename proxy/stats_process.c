/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "proxy/stats_process.h"

#include "common/base/mem.h"
#include "common/io/io_ev.h"
#include "nginx-style-master/master.h"

#include <unistd.h>

#define TICK_MS       500u
#define SILENCE_MS    100u   /* then it is a reader that wants twemproxy's JSON */
#define READING_MS    5000u
#define SENDING_MS    10000u
#define LINGERING_MS  1000u
#define LEAVE_MAX_MS  3000u
#define ORPHAN_SILENCE_MS 10000u

static void process_leave_when_done(struct stats_process *process)
{
    if (process->leave_at_ms != 0 && (process->conns_count == 0 || io_now_ms(process->io) >= process->leave_at_ms))
        io_stop(process->io);
}

/* ---- retired workers ------------------------------------------------------------------------------ */

/* The base is full of pools and servers that are long gone: only those stay that a live worker has. */
static void base_compact(struct stats_process *process, struct stats_segment *base)
{
    struct stats_segment fresh;
    struct worker_info info;
    void *memory = must_zalloc(base->size);

    stats_open(&fresh, memory, base->size, false);
    for (uint32_t i = 0; i < worker_slots_count(process->worker); i++)
        if (worker_slot_info(process->worker, i, &info))
            stats_merge(&fresh, info.stats, info.stats_size,
                        STATS_MERGE_CREATE | STATS_MERGE_EXACT | STATS_MERGE_KEYS);
    stats_merge(&fresh, base->memory, base->size, STATS_MERGE_EXACT);
    {
        char *into = base->memory;
        size_t size = base->size, used = stats_used(&fresh);

        stats_close(base);
        memset(into, 0, size);
        memcpy(into, memory, used);
        stats_open(base, into, size, true);
    }
    stats_close(&fresh);
    mem_free(memory);
}

static void fold(void *arg, void *base_memory, size_t base_size, const void *stats, size_t stats_size)
{
    struct stats_process *process = arg;
    struct stats_segment base;

    stats_open(&base, base_memory, base_size, true);
    /* Looks first, as half a merge cannot be taken back. */
    if (stats_merge(&base, stats, stats_size, STATS_MERGE_CREATE | STATS_MERGE_EXACT | STATS_MERGE_KEYS) > 0) {
        base_compact(process, &base);
        MAYBE(stats_merge(&base, stats, stats_size, STATS_MERGE_CREATE | STATS_MERGE_EXACT | STATS_MERGE_KEYS));
    }
    stats_merge(&base, stats, stats_size, STATS_MERGE_EXACT);
    stats_fold_areas(base_memory, base_size, stats, stats_size);
    stats_close(&base);
}

static void on_retired(struct worker *worker, uint32_t slot)
{
    MAYBE(worker_stats_fold(worker, slot, fold, worker_arg(worker)));
}

/* A new master has a stats process of its own. */
static bool orphan_is_needed(struct stats_process *process)
{
    struct worker_info info;

    if (worker_living_master(process->worker) != 0)
        return false;
    /* Nobody tells us of workers that end: their beat does. */
    for (uint32_t i = 0; i < worker_slots_count(process->worker); i++)
        if (worker_slot_info(process->worker, i, &info) && info.heartbeat_age_ms < ORPHAN_SILENCE_MS &&
            (info.state == WORKER_STATE_SERVING || info.state == WORKER_STATE_DRAINING))
            return true;
    return false;
}

static void process_second(struct io_timer *timer)
{
    struct stats_process *process = timer->arg;
    struct worker_info info;

    worker_heartbeat(process->worker);
    for (uint32_t i = 0; i < worker_slots_count(process->worker); i++)
        if (worker_slot_info(process->worker, i, &info) && info.state == WORKER_STATE_RETIRED)
            on_retired(process->worker, i);
    if (process->is_orphan && !orphan_is_needed(process))
        io_stop(process->io);
    process_leave_when_done(process);
    io_timer_start(process->io, timer, TICK_MS);
}

/* ---- connections ------------------------------------------------------------------------------------- */

void stats_conn_close(struct stats_conn *conn)
{
    struct stats_process *process = conn->process;

    if (conn->state == STATS_CONN_DEAD)
        return;
    conn->state = STATS_CONN_DEAD;
    io_stream_close(&conn->stream);
    io_timer_stop(&conn->timer);
    list_remove(&conn->node);
    process->conns_count--;
    conn->dead_next = process->dead;
    process->dead = conn;
}

static void conn_free_dead(struct io_hook *hook)
{
    struct stats_process *process = CONTAINER_OF(hook, struct stats_process, hook);

    while (process->dead != NULL) {
        struct stats_conn *conn = process->dead;

        process->dead = conn->dead_next;
        buffer_deinit(&conn->out);
        mem_free(conn);
    }
    process_leave_when_done(process);
}

static void conn_send(struct stats_conn *conn)
{
    while (conn->sent < conn->out.len) {
        struct iovec slice = {.iov_base = conn->out.data + conn->sent, .iov_len = conn->out.len - conn->sent};
        ssize_t sent = io_stream_send(&conn->stream, &slice, 1);

        if (sent < 0) {
            stats_conn_close(conn);
            return;
        }
        conn->sent += (size_t)sent;
        if ((size_t)sent < slice.iov_len)
            return; /* writable() goes on */
    }
    /* A close with unread bytes would reset the connection and take the answer away. */
    conn->state = STATS_CONN_LINGERING;
    io_stream_shutdown(&conn->stream);
    io_timer_start(conn->process->io, &conn->timer, LINGERING_MS);
}

void stats_conn_answer(struct stats_conn *conn)
{
    if (conn->state == STATS_CONN_DEAD)
        return;
    if (conn->out.failed) {
        stats_conn_close(conn);
        return;
    }
    conn->state = STATS_CONN_SENDING;
    io_timer_start(conn->process->io, &conn->timer, SENDING_MS);
    conn_send(conn);
}

static void conn_read(struct stats_conn *conn, struct bytes data, bool is_end)
{
    const char *end;

    if (!conn->is_control) {
        if (stats_http_read(conn, data, is_end))
            stats_conn_answer(conn);
        return;
    }
    end = memchr(data.data, '\n', data.len);
    if (end != NULL)
        control_line(conn, bytes_first(data, (size_t)(end - data.data)));
    else if (is_end || data.len > STATS_HEAD_MAX)
        stats_conn_close(conn);
}

static size_t conn_recv(struct io_stream *stream, struct bytes data)
{
    struct stats_conn *conn = CONTAINER_OF(stream, struct stats_conn, stream);

    if (conn->state != STATS_CONN_READING)
        return data.len;
    /* Somebody is there: no longer twemproxy's 100 ms. Not moved by each further byte. */
    if (!conn->is_control && conn->request_id == 0) {
        conn->request_id = 1;
        io_timer_start(conn->process->io, &conn->timer, READING_MS);
    }
    conn_read(conn, data, false);
    return conn->state == STATS_CONN_READING ? 0 : data.len;
}

static void conn_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct stats_conn *conn = CONTAINER_OF(stream, struct stats_conn, stream);

    if (err != ERR_EOF || conn->state == STATS_CONN_LINGERING)
        stats_conn_close(conn);
    else if (conn->state == STATS_CONN_READING)
        conn_read(conn, rest, true);
}

static void conn_writable(struct io_stream *stream)
{
    struct stats_conn *conn = CONTAINER_OF(stream, struct stats_conn, stream);

    if (conn->state == STATS_CONN_SENDING)
        conn_send(conn);
}

static const struct io_stream_handler conn_handler = {
    .recv = conn_recv,
    .closed = conn_closed,
    .writable = conn_writable,
};

static void conn_expired(struct io_timer *timer)
{
    struct stats_conn *conn = timer->arg;

    if (conn->state == STATS_CONN_WAITING)
        control_waited(conn);
    else if (conn->state == STATS_CONN_READING && !conn->is_control && conn->request_id == 0)
        conn_read(conn, BYTES_EMPTY, true);
    else
        stats_conn_close(conn);
}

static void conn_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct stats_accept *accept = CONTAINER_OF(listener, struct stats_accept, listener);
    struct stats_process *process = accept->process;
    struct stats_conn *conn = must_zalloc(sizeof(*conn));

    MAYBE(peer);
    if (process->conns_count == STATS_CONNS_MAX)
        stats_conn_close(CONTAINER_OF(list_first(&process->conns), struct stats_conn, node));
    conn->process = process;
    conn->is_control = accept->is_control;
    conn->timer.fire = conn_expired;
    conn->timer.arg = conn;
    if (io_stream_open(process->io, &conn->stream, &conn_handler, fd,
                       &(struct io_stream_options){.nodelay = true}, BYTES_EMPTY) != 0) {
        mem_free(conn);
        return;
    }
    list_push_back(&process->conns, &conn->node);
    process->conns_count++;
    io_timer_start(process->io, &conn->timer, conn->is_control ? READING_MS : SILENCE_MS);
    io_stream_resume(&conn->stream);
}

/* ---- the process ----------------------------------------------------------------------------------------- */

static void on_accept(struct worker *worker, struct worker_listener *from, bool on)
{
    struct stats_process *process = worker_arg(worker);
    struct stats_accept *accept = from->arg;

    if (accept == NULL)
        return;
    if (on) {
        accept->listener.is_exclusive = from->is_shared;
        io_listener_start(process->io, &accept->listener, from->fd);
    } else {
        io_listener_stop(&accept->listener);
    }
}

static void on_stop(struct worker *worker)
{
    struct stats_process *process = worker_arg(worker);

    process->exit_code = MASTER_EXIT_DONE;
    io_stop(process->io);
}

/* Who asked for this reload still waits for its answer. */
static void on_drain(struct worker *worker, uint32_t timeout_ms)
{
    struct stats_process *process = worker_arg(worker);

    process->leave_at_ms = io_now_ms(process->io) + MIN(timeout_ms, LEAVE_MAX_MS);
    process_leave_when_done(process);
}

static void on_master_gone(struct worker *worker)
{
    struct stats_process *process = worker_arg(worker);

    process->is_orphan = true;
    control_master_gone(process);
}

static void on_reply(struct worker *worker, uint64_t id, int err, const char *text)
{
    control_replied(worker_arg(worker), id, err, text);
}

/* Values set before this process was forked again. */
static void on_set(struct worker *worker, const char *text)
{
    struct stats_process *process = worker_arg(worker);
    struct conf_error error;

    if (control_set(process, bytes_of_string(text), &error) != 0)
        log_warn(worker_log(worker), "not set: %s", error.text);
}

static const struct worker_handler stats_handler = {
    .accept = on_accept,
    .stop = on_stop,
    .drain = on_drain,
    .retired = on_retired,
    .reply = on_reply,
    .set = on_set,
    .master_gone = on_master_gone,
};

static void channel_ready(struct io_watch *watch, bool readable, bool writable)
{
    struct stats_process *process = watch->arg;

    MAYBE(readable);
    MAYBE(writable);
    worker_channel_ready(process->worker);
}

static void process_start(struct stats_process *process, uint32_t control_tag)
{
    struct worker *worker = process->worker;
    struct worker_listener *listeners = worker_listeners(worker, &process->accepts_count);

    process->accepts = must_zalloc(sizeof(*process->accepts) * MAX(process->accepts_count, 1u));
    for (uint32_t i = 0; i < process->accepts_count; i++) {
        process->accepts[i].listener.accepted = conn_accepted;
        process->accepts[i].process = process;
        process->accepts[i].is_control = listeners[i].tag == control_tag;
        listeners[i].arg = &process->accepts[i];
    }
    worker_handler_set(worker, &stats_handler, process);
    process->channel.ready = channel_ready;
    process->channel.arg = process;
    io_watch_start(process->io, &process->channel, worker_channel_fd(worker), true, false);
    process->second.fire = process_second;
    process->second.arg = process;
    io_timer_start(process->io, &process->second, 1);
    process->hook.run = conn_free_dead;
    io_hook_add(process->io, &process->hook);
}

static void process_end(struct stats_process *process)
{
    struct list_node *node;

    while ((node = list_first(&process->conns)) != NULL)
        stats_conn_close(CONTAINER_OF(node, struct stats_conn, node));
    conn_free_dead(&process->hook);
    for (uint32_t i = 0; i < process->accepts_count; i++)
        io_listener_stop(&process->accepts[i].listener);
    io_watch_stop(&process->channel);
    io_timer_stop(&process->second);
    io_hook_remove(process->io, &process->hook);
    io_ev_destroy(&process->io);
    mem_free(process->changes);
    mem_free(process->accepts);
}

int stats_process_main(struct worker *worker, struct conf *conf, const char *conf_path,
                       uint32_t control_tag)
{
    struct io_ev_options io_options = {.log = worker_log(worker), .files = IO_FILES_NONE};
    struct stats_process process = {.worker = worker, .conf = conf, .conf_path = conf_path};
    int err = io_ev_create(&io_options, &process.io);

    if (err != 0) {
        log_error(worker_log(worker), "stats: no event loop why=\"%s\"", err_text(err));
        return MASTER_EXIT_FATAL;
    }
    if (gethostname(process.host_name, sizeof(process.host_name) - 1) != 0)
        memcpy(process.host_name, "?", 2);
    list_init(&process.conns);
    process.changes = must_zalloc(sizeof(*process.changes) * STATS_CHANGES_MAX);
    process_start(&process, control_tag);
    worker_ready(worker);
    io_run(process.io);
    process_end(&process);
    return process.exit_code;
}
