/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that serves the stats port: it reads what the workers wrote, at the moment of the request. Nothing that
 * is asked here can hurt a shard.
 */
#include "config.h"

#include "backend/stats_process.h"

#include "common/base/buffer.h"
#include "common/base/mem.h"
#include "common/io/io_ev.h"
#include "nginx-style-master/master.h"

#define CONNS_MAX  16u
#define HEAD_MAX   8192u
#define SILENCE_MS 100u
#define READING_MS 5000u
#define SENDING_MS 10000u
#define LINGER_MS  1000u
#define BEAT_MS    500u
#define STALE_MS   5000u

enum conn_state { CONN_SILENT, CONN_READING, CONN_SENDING, CONN_LINGERING, CONN_DEAD };

struct stats_process {
    struct worker *worker;
    struct io *io;
    struct io_watch channel;
    struct io_timer beat;
    struct io_hook hook;
    struct io_listener *listeners; /* owns */
    uint32_t listeners_count;
    struct list conns, dead;       /* of conn; conns: the oldest first */
    uint32_t conns_count;
    int exit_code;
};

struct conn {
    struct io_stream stream;
    struct io_timer timer;
    struct list_node node;
    struct stats_process *process;
    struct buffer out;
    size_t sent;
    uint8_t state; /* enum conn_state */
};

static const char *const stat_texts[] = {
#define STAT(name, kind, value, what) what,
#include "backend/stats.def"
#undef STAT
};

/* ---- numbers --------------------------------------------------------------------------------------- */

static void fold(void *arg, void *base_memory, size_t base_size, const void *stats, size_t stats_size)
{
    struct stats_segment base;

    MAYBE(arg);
    stats_open(&base, base_memory, base_size, true);
    MAYBE(stats_merge(&base, stats, stats_size, STATS_MERGE_CREATE | STATS_MERGE_EXACT));
    stats_close(&base);
}

/* Base, and every worker that counts; into zeroed memory that the caller frees. */
static void *collect(struct stats_process *process, size_t *used)
{
    size_t base_size;
    const void *base = worker_stats_base(process->worker, &base_size);
    struct stats_segment view;
    struct worker_info info;
    void *memory = must_zalloc(base_size);

    stats_open(&view, memory, base_size, false);
    MAYBE(stats_merge(&view, base, base_size, STATS_MERGE_CREATE | STATS_MERGE_EXACT));
    for (uint32_t i = 0; i < worker_slots_count(process->worker); i++)
        if (worker_slot_info(process->worker, i, &info) && info.stats != NULL)
            MAYBE(stats_merge(&view, info.stats, info.stats_size, STATS_MERGE_CREATE | STATS_MERGE_EXACT | STATS_MERGE_GAUGES));
    *used = stats_used(&view);
    stats_close(&view);
    return memory;
}

static void write_workers(struct stats_process *process, struct buffer *out)
{
    struct worker_info info;
    bool is_first = true;

    buffer_append_string(out, "\"workers\":[");
    for (uint32_t i = 0; i < worker_slots_count(process->worker); i++) {
        if (!worker_slot_info(process->worker, i, &info) || info.state == WORKER_STATE_RETIRED)
            continue;
        buffer_append_format(out, "%s{\"shard\":%u,\"pid\":%d,\"serving\":%s,\"respawns\":%u}", is_first ? "" : ",",
                             info.index, (int)info.pid, info.state == WORKER_STATE_SERVING ? "true" : "false",
                             info.respawns);
        is_first = false;
    }
    buffer_append_string(out, "]");
}

static void write_json(struct stats_process *process, struct buffer *out)
{
    struct worker_master_info master;
    struct stats_cursor cursor;
    struct stats_group group;
    size_t used;
    void *memory = collect(process, &used);

    worker_master_info(process->worker, &master);
    buffer_append_format(out,
                         "{\"service\":\"weir-backend\",\"version\":\"%s\",\"master_pid\":%d,\"started\":%llu,"
                         "\"respawns\":%llu,\"reloads\":%llu,",
                         PACKAGE_VERSION, (int)master.pid, (unsigned long long)master.started_s,
                         (unsigned long long)master.respawns, (unsigned long long)master.reloads);
    write_workers(process, out);
    stats_walk(&cursor, memory, used);
    while (stats_next(&cursor, &group)) {
        buffer_append_format(out, ",\"shard-%.*s\":{", BYTES_ARG(group.a));
        for (uint32_t i = 0; i < group.metrics_count; i++)
            buffer_append_format(out, "%s\"%s\":%llu", i > 0 ? "," : "", group.metrics[i].name,
                                 (unsigned long long)group.cells[i]);
        buffer_append_string(out, "}");
    }
    buffer_append_string(out, "}\n");
    mem_free(memory);
}

static void write_metric(const void *memory, size_t used, uint32_t index, const char *name, enum stats_kind kind,
                         struct buffer *out)
{
    const char *end = kind == STATS_COUNTER ? "_total" : "";
    struct stats_cursor cursor;
    struct stats_group group;

    buffer_append_format(out, "# HELP weir_shard_%s%s %s\n# TYPE weir_shard_%s%s %s\n", name, end, stat_texts[index],
                         name, end, kind == STATS_GAUGE ? "gauge" : "counter");
    stats_walk(&cursor, memory, used);
    while (stats_next(&cursor, &group)) {
        const uint64_t *cell = stats_metric_find(&group, name, kind, NULL);

        if (cell != NULL)
            buffer_append_format(out, "weir_shard_%s%s{shard=\"%.*s\"} %llu\n", name, end, BYTES_ARG(group.a),
                                 (unsigned long long)*cell);
    }
}

static void write_node_metric(const char *name, const char *kind, uint64_t value, const char *what, struct buffer *out)
{
    buffer_append_format(out, "# HELP weir_node_%s %s\n# TYPE weir_node_%s %s\nweir_node_%s %llu\n", name, what, name,
                         kind, name, (unsigned long long)value);
}

static uint32_t shards_serving(struct stats_process *process)
{
    struct worker_info info;
    uint32_t serving = 0;

    for (uint32_t i = 0; i < worker_slots_count(process->worker); i++)
        if (worker_slot_info(process->worker, i, &info) && info.state == WORKER_STATE_SERVING &&
            info.heartbeat_age_ms < STALE_MS)
            serving++;
    return serving;
}

static void write_node_metrics(struct stats_process *process, struct buffer *out)
{
    struct worker_master_info master;

    worker_master_info(process->worker, &master);
    write_node_metric("shards", "gauge", worker_count(process->worker), "shards of the configuration", out);
    write_node_metric("shards_serving", "gauge", shards_serving(process), "shards that are open and alive", out);
    write_node_metric("respawns_total", "counter", master.respawns, "workers that died and were started again", out);
    write_node_metric("reloads_total", "counter", master.reloads, "configurations put in force", out);
}

static void write_metrics(struct stats_process *process, struct buffer *out)
{
    static const struct {
        const char *name;
        enum stats_kind kind;
    } rows[] = {
#define STAT(name, kind, value, what) {#name, STATS_##kind},
#include "backend/stats.def"
#undef STAT
    };
    size_t used;
    void *memory = collect(process, &used);

    for (uint32_t i = 0; i < ARRAY_COUNT(rows); i++)
        write_metric(memory, used, i, rows[i].name, rows[i].kind, out);
    write_node_metrics(process, out);
    mem_free(memory);
}

static bool is_healthy(struct stats_process *process)
{
    uint32_t serving = shards_serving(process);

    return serving > 0 && serving == worker_count(process->worker);
}

/* ---- HTTP -------------------------------------------------------------------------------------------- */

static void answer(struct conn *conn, const char *status, const char *type, const struct buffer *body, bool is_head)
{
    buffer_append_format(&conn->out,
                         "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
                         "Connection: close\r\n\r\n",
                         status, type, body->len);
    if (!is_head)
        buffer_append(&conn->out, body->data, body->len);
}

static void serve(struct conn *conn, struct bytes path, bool is_head)
{
    const char *status = "200 OK", *type = "text/plain; charset=utf-8";
    struct stats_process *process = conn->process;
    struct buffer body = {0};

    if (bytes_equal(path, BYTES("/stats"))) {
        type = "application/json";
        write_json(process, &body);
    } else if (bytes_equal(path, BYTES("/metrics"))) {
        type = "text/plain; version=0.0.4; charset=utf-8";
        write_metrics(process, &body);
    } else if (bytes_equal(path, BYTES("/healthz"))) {
        bool is_fine = is_healthy(process);

        if (!is_fine)
            status = "503 Service Unavailable";
        buffer_append_string(&body, is_fine ? "ok\n" : "not all shards serve\n");
    } else {
        if (!bytes_equal(path, BYTES("/")))
            status = "404 Not Found";
        buffer_append_string(&body, "there are /stats, /metrics and /healthz\n");
    }
    answer(conn, status, type, &body, is_head);
    buffer_deinit(&body);
}

/* "GET /path?query HTTP/1.1". False: more of the head is to come. */
static bool read_request(struct conn *conn, struct bytes data, bool is_end)
{
    bool is_head = data.len >= 5 && memcmp(data.data, "HEAD ", 5) == 0;
    bool is_get = data.len >= 4 && memcmp(data.data, "GET ", 4) == 0;
    struct bytes path = bytes_skip(data, is_head ? 5 : 4);
    size_t len = 0;

    if (data.len > 0 && !is_end && data.len < HEAD_MAX && memmem(data.data, data.len, "\n\r\n", 3) == NULL &&
        memmem(data.data, data.len, "\n\n", 2) == NULL)
        return false;
    if (!is_get && !is_head) {
        write_json(conn->process, &conn->out);
        return true;
    }
    while (len < path.len && path.data[len] != ' ' && path.data[len] != '?' && path.data[len] != '\r' &&
           path.data[len] != '\n')
        len++;
    serve(conn, bytes_first(path, len), is_head);
    return true;
}

/* ---- connections --------------------------------------------------------------------------------------- */

static void conn_close(struct conn *conn)
{
    struct stats_process *process = conn->process;

    if (conn->state == CONN_DEAD)
        return;
    conn->state = CONN_DEAD;
    io_stream_close(&conn->stream);
    io_timer_stop(&conn->timer);
    list_remove(&conn->node);
    process->conns_count--;
    list_push_back(&process->dead, &conn->node);
}

static void conn_send(struct conn *conn)
{
    while (conn->sent < conn->out.len) {
        struct iovec slice = {.iov_base = conn->out.data + conn->sent, .iov_len = conn->out.len - conn->sent};
        ssize_t sent = io_stream_send(&conn->stream, &slice, 1);

        if (sent < 0) {
            conn_close(conn);
            return;
        }
        conn->sent += (size_t)sent;
        if ((size_t)sent < slice.iov_len)
            return; /* writable() goes on */
    }
    /* A close with unread bytes would reset the connection and take the answer away. */
    conn->state = CONN_LINGERING;
    io_stream_shutdown(&conn->stream);
    io_timer_start(conn->process->io, &conn->timer, LINGER_MS);
}

static void conn_read(struct conn *conn, struct bytes data, bool is_end)
{
    if (!read_request(conn, data, is_end))
        return;
    if (conn->out.failed) {
        conn_close(conn);
        return;
    }
    conn->state = CONN_SENDING;
    io_timer_start(conn->process->io, &conn->timer, SENDING_MS);
    conn_send(conn);
}

static size_t conn_recv(struct io_stream *stream, struct bytes data)
{
    struct conn *conn = CONTAINER_OF(stream, struct conn, stream);

    if (conn->state == CONN_SILENT) {
        conn->state = CONN_READING;
        io_timer_start(conn->process->io, &conn->timer, READING_MS);
    }
    if (conn->state == CONN_READING)
        conn_read(conn, data, false);
    return conn->state == CONN_READING ? 0 : data.len;
}

static void conn_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct conn *conn = CONTAINER_OF(stream, struct conn, stream);

    if (err != ERR_EOF || conn->state == CONN_LINGERING)
        conn_close(conn);
    else if (conn->state <= CONN_READING)
        conn_read(conn, rest, true);
}

static void conn_writable(struct io_stream *stream)
{
    struct conn *conn = CONTAINER_OF(stream, struct conn, stream);

    if (conn->state == CONN_SENDING)
        conn_send(conn);
}

static const struct io_stream_handler conn_handler = {
    .recv = conn_recv,
    .closed = conn_closed,
    .writable = conn_writable,
};

static void conn_expired(struct io_timer *timer)
{
    struct conn *conn = timer->arg;

    if (conn->state == CONN_SILENT)
        conn_read(conn, BYTES_EMPTY, true);
    else
        conn_close(conn);
}

static void conn_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct stats_process *process = listener->arg;
    struct conn *conn = must_zalloc(sizeof(*conn));

    MAYBE(peer);
    if (process->conns_count == CONNS_MAX)
        conn_close(CONTAINER_OF(list_first(&process->conns), struct conn, node));
    conn->process = process;
    conn->timer.fire = conn_expired;
    conn->timer.arg = conn;
    if (io_stream_open(process->io, &conn->stream, &conn_handler, fd, &(struct io_stream_options){.nodelay = true},
                       BYTES_EMPTY) != 0) {
        mem_free(conn);
        return;
    }
    list_push_back(&process->conns, &conn->node);
    process->conns_count++;
    io_timer_start(process->io, &conn->timer, SILENCE_MS);
    io_stream_resume(&conn->stream);
}

static void free_dead(struct io_hook *hook)
{
    struct stats_process *process = CONTAINER_OF(hook, struct stats_process, hook);
    struct list_node *node;

    while ((node = list_pop_front(&process->dead)) != NULL) {
        struct conn *conn = CONTAINER_OF(node, struct conn, node);

        buffer_deinit(&conn->out);
        mem_free(conn);
    }
}

/* ---- the process --------------------------------------------------------------------------------------- */

static void on_accept(struct worker *worker, struct worker_listener *from, bool on)
{
    struct stats_process *process = worker_arg(worker);
    struct io_listener *listener = from->arg;

    if (listener == NULL)
        return;
    listener->is_exclusive = from->is_shared;
    if (on)
        io_listener_start(process->io, listener, from->fd);
    else
        io_listener_stop(listener);
}

static void on_stop(struct worker *worker)
{
    io_stop(((struct stats_process *)worker_arg(worker))->io);
}

static void on_drain(struct worker *worker, uint32_t timeout_ms)
{
    MAYBE(timeout_ms);
    on_stop(worker);
}

static void on_retired(struct worker *worker, uint32_t slot)
{
    MAYBE(worker_stats_fold(worker, slot, fold, NULL));
}

static const struct worker_handler stats_handler = {
    .accept = on_accept,
    .stop = on_stop,
    .drain = on_drain,
    .retired = on_retired,
    .master_gone = on_stop,
};

static void channel_ready(struct io_watch *watch, bool readable, bool writable)
{
    MAYBE(readable);
    MAYBE(writable);
    worker_channel_ready(((struct stats_process *)watch->arg)->worker);
}

static void beat(struct io_timer *timer)
{
    struct stats_process *process = timer->arg;
    struct worker_info info;

    worker_heartbeat(process->worker);
    for (uint32_t i = 0; i < worker_slots_count(process->worker); i++)
        if (worker_slot_info(process->worker, i, &info) && info.state == WORKER_STATE_RETIRED)
            on_retired(process->worker, i);
    io_timer_start(process->io, timer, BEAT_MS);
}

static void process_start(struct stats_process *process)
{
    struct worker *worker = process->worker;
    struct worker_listener *listeners = worker_listeners(worker, &process->listeners_count);

    process->listeners = must_zalloc(sizeof(*process->listeners) * MAX(process->listeners_count, 1u));
    for (uint32_t i = 0; i < process->listeners_count; i++) {
        process->listeners[i].accepted = conn_accepted;
        process->listeners[i].arg = process;
        listeners[i].arg = &process->listeners[i];
    }
    worker_handler_set(worker, &stats_handler, process);
    process->channel.ready = channel_ready;
    process->channel.arg = process;
    io_watch_start(process->io, &process->channel, worker_channel_fd(worker), true, false);
    process->beat.fire = beat;
    process->beat.arg = process;
    io_timer_start(process->io, &process->beat, 1);
    process->hook.run = free_dead;
    io_hook_add(process->io, &process->hook);
}

static void process_end(struct stats_process *process)
{
    struct list_node *node;

    while ((node = list_first(&process->conns)) != NULL)
        conn_close(CONTAINER_OF(node, struct conn, node));
    free_dead(&process->hook);
    for (uint32_t i = 0; i < process->listeners_count; i++)
        io_listener_stop(&process->listeners[i]);
    io_watch_stop(&process->channel);
    io_timer_stop(&process->beat);
    io_hook_remove(process->io, &process->hook);
    io_ev_destroy(&process->io);
    mem_free(process->listeners);
}

int stats_process_main(struct worker *worker)
{
    struct io_ev_options io_options = {.log = worker_log(worker), .files = IO_FILES_NONE};
    struct stats_process process = {.worker = worker, .exit_code = MASTER_EXIT_DONE};
    int err;

    MAYBE(worker_sandbox(worker) == 0);
    err = io_ev_create(&io_options, &process.io);
    if (err != 0) {
        log_error(worker_log(worker), "stats: no event loop why=\"%s\"", err_text(err));
        return MASTER_EXIT_FATAL;
    }
    list_init(&process.conns);
    list_init(&process.dead);
    process_start(&process);
    worker_ready(worker);
    io_run(process.io);
    process_end(&process);
    return process.exit_code;
}
