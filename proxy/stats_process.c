/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "proxy/stats_process.h"

#include "common/base/mem.h"
#include "common/io/io_ev.h"
#include "nginx-style-master/master.h"

#include <unistd.h>

#define TICK_MS       500u
#define LEAVE_MAX_MS  3000u
#define ORPHAN_SILENCE_MS 10000u

static void process_leave_when_done(void *arg)
{
    struct stats_process *process = arg;

    if (process->leave_at_ms != 0 && (process->http.conns_count == 0 || io_now_ms(process->io) >= process->leave_at_ms))
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

static const struct http_handler http_handler = {
    .pages = {.pages = stats_pages, .count = STATS_PAGES, .plain = stats_page_plain, .not_found = STATS_NOT_FOUND},
    .line = control_line,
    .waited = control_waited,
    .freed = process_leave_when_done,
};

/* ---- the process ----------------------------------------------------------------------------------------- */

static void on_accept(struct worker *worker, struct worker_listener *from, bool on)
{
    struct stats_process *process = worker_arg(worker);
    struct http_listener *accept = from->arg;

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
        http_listener_init(&process->accepts[i], &process->http, listeners[i].tag == control_tag);
        listeners[i].arg = &process->accepts[i];
    }
    worker_handler_set(worker, &stats_handler, process);
    process->channel.ready = channel_ready;
    process->channel.arg = process;
    io_watch_start(process->io, &process->channel, worker_channel_fd(worker), true, false);
    process->second.fire = process_second;
    process->second.arg = process;
    io_timer_start(process->io, &process->second, 1);
}

static void process_end(struct stats_process *process)
{
    for (uint32_t i = 0; i < process->accepts_count; i++)
        io_listener_stop(&process->accepts[i].listener);
    http_server_deinit(&process->http);
    io_watch_stop(&process->channel);
    io_timer_stop(&process->second);
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
    process.changes = must_zalloc(sizeof(*process.changes) * STATS_CHANGES_MAX);
    http_server_init(&process.http, process.io, &http_handler, &process);
    process_start(&process, control_tag);
    worker_ready(worker);
    io_run(process.io);
    process_end(&process);
    return process.exit_code;
}
