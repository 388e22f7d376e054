/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that serves the stats port: it reads what the workers wrote, at the moment of the request. Nothing that
 * is asked here can hurt a shard.
 */
#include "config.h"

#include "backend/stats_process.h"

#include "common/base/mem.h"
#include "common/http/http.h"
#include "common/io/io_ev.h"
#include "nginx-style-master/master.h"

#define PAGES_TEXT "there are /stats, /metrics and /healthz\n"
#define BEAT_MS    500u
#define STALE_MS   5000u

struct stats_process {
    struct worker *worker;
    struct io *io;
    struct http_server http;
    struct io_watch channel;
    struct io_timer beat;
    struct http_listener *listeners; /* owns */
    uint32_t listeners_count;
    int exit_code;
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

/* ---- pages ------------------------------------------------------------------------------------------- */

static bool page_json(void *arg, struct buffer *body)
{
    write_json(arg, body);
    return true;
}

static bool page_metrics(void *arg, struct buffer *body)
{
    write_metrics(arg, body);
    return true;
}

static bool page_health(void *arg, struct buffer *body)
{
    bool is_well = is_healthy(arg);

    buffer_append_string(body, is_well ? "ok\n" : "not all shards serve\n");
    return is_well;
}

static bool page_index(void *arg, struct buffer *body)
{
    MAYBE(arg != NULL);
    buffer_append_string(body, PAGES_TEXT);
    return true;
}

static void page_plain(void *arg, struct buffer *out)
{
    write_json(arg, out);
}

static const struct http_page pages[] = {
    {"/", NULL, page_index},
    {"/stats", "application/json", page_json},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
    {"/healthz", NULL, page_health},
};

static const struct http_handler http_handler = {
    .pages = {.pages = pages, .count = ARRAY_COUNT(pages), .plain = page_plain, .not_found = PAGES_TEXT},
};

/* ---- the process --------------------------------------------------------------------------------------- */

static void on_accept(struct worker *worker, struct worker_listener *from, bool on)
{
    struct stats_process *process = worker_arg(worker);
    struct http_listener *listener = from->arg;

    if (listener == NULL)
        return;
    listener->listener.is_exclusive = from->is_shared;
    if (on)
        io_listener_start(process->io, &listener->listener, from->fd);
    else
        io_listener_stop(&listener->listener);
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
        http_listener_init(&process->listeners[i], &process->http, false);
        listeners[i].arg = &process->listeners[i];
    }
    worker_handler_set(worker, &stats_handler, process);
    process->channel.ready = channel_ready;
    process->channel.arg = process;
    io_watch_start(process->io, &process->channel, worker_channel_fd(worker), true, false);
    process->beat.fire = beat;
    process->beat.arg = process;
    io_timer_start(process->io, &process->beat, 1);
}

static void process_end(struct stats_process *process)
{
    for (uint32_t i = 0; i < process->listeners_count; i++)
        io_listener_stop(&process->listeners[i].listener);
    http_server_deinit(&process->http);
    io_watch_stop(&process->channel);
    io_timer_stop(&process->beat);
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
    http_server_init(&process.http, process.io, &http_handler, &process);
    process_start(&process);
    worker_ready(worker);
    io_run(process.io);
    process_end(&process);
    return process.exit_code;
}
