/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prometheus' text format, 0.0.4. Names: weir_<what>_<unit>, counters end in _total, times are seconds.
 * Samples of one metric stand together, so each metric is a walk over the pools.
 */
#include "config.h"

#include "proxy/stats_text.h"

#include <inttypes.h>
#include <stdio.h>

static const uint32_t bounds_us[] = {100,   250,    500,    1000,   2500,   5000,    10000,   25000,
                                     50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};

static void help(struct buffer *out, const char *name, const char *type, const char *text)
{
    buffer_append_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, text, name, type);
}

/* Label values: backslash, quote and newline are escaped; names of the configuration hold no other
 * control bytes. */
static void label(struct buffer *out, const char *name, struct bytes value, const char *before)
{
    buffer_append_format(out, "%s%s=\"", before, name);
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] == '\n')
            buffer_append_string(out, "\\n");
        else if (value.data[i] == '"' || value.data[i] == '\\')
            buffer_append_format(out, "\\%c", value.data[i]);
        else
            buffer_append(out, &value.data[i], 1);
    }
    buffer_append_string(out, "\"");
}

static void labels(struct buffer *out, struct bytes pool, const char *member_name, struct bytes member)
{
    label(out, "pool", pool, "{");
    if (member_name != NULL)
        label(out, member_name, member, ",");
}

static void single(struct buffer *out, const char *name, const char *type, const char *text, uint64_t value)
{
    help(out, name, type, text);
    buffer_append_format(out, "%s %" PRIu64 "\n", name, value);
}

static void histogram(struct buffer *out, const char *name, struct bytes pool, const char *member_name,
                      struct bytes member, const struct histogram *values)
{
    uint64_t count = histogram_count(values);

    for (uint32_t i = 0; i < ARRAY_COUNT(bounds_us); i++) {
        buffer_append_format(out, "%s_bucket", name);
        labels(out, pool, member_name, member);
        buffer_append_format(out, ",le=\"%g\"} %" PRIu64 "\n", bounds_us[i] / 1e6,
                             histogram_count_to(values, bounds_us[i]));
    }
    buffer_append_format(out, "%s_bucket", name);
    labels(out, pool, member_name, member);
    buffer_append_format(out, ",le=\"+Inf\"} %" PRIu64 "\n%s_sum", count, name);
    labels(out, pool, member_name, member);
    buffer_append_format(out, "} %.6f\n%s_count", (double)values->sum / 1e6, name);
    labels(out, pool, member_name, member);
    buffer_append_format(out, "} %" PRIu64 "\n", count);
}

/* ---- names ------------------------------------------------------------------------------------------ */

struct metric_name {
    char text[96];
};

/* weir_pool_client_requests_total; of servers the word "server" is not said twice. */
static struct metric_name metric_name(const char *group, const struct counter_info *info)
{
    struct metric_name name;
    const char *rest = info->name;

    if (strcmp(group, "server") == 0 && strncmp(rest, "server_", 7) == 0)
        rest += 7;
    switch ((enum counter_kind)info->kind) {
    case COUNTER_COUNTER:
        snprintf(name.text, sizeof(name.text), "weir_%s_%s_total", group, rest);
        break;
    case COUNTER_GAUGE:
        snprintf(name.text, sizeof(name.text), "weir_%s_%s", group, rest);
        break;
    case COUNTER_STAMP:
        snprintf(name.text, sizeof(name.text), "weir_%s_%.*s_timestamp_seconds", group,
                 (int)(strlen(rest) - strlen("_at")), rest);
        break;
    }
    return name;
}

static void counter_help(struct buffer *out, const struct metric_name *name, const struct counter_info *info)
{
    const char *text = strncmp(info->text, "# ", 2) == 0 ? info->text + 2 : info->text;

    help(out, name->text, info->kind == COUNTER_COUNTER ? "counter" : "gauge", text);
}

static void counter_value(struct buffer *out, const struct counter_info *info, uint64_t value)
{
    switch ((enum counter_kind)info->kind) {
    case COUNTER_COUNTER:
        buffer_append_format(out, "} %" PRIu64 "\n", value);
        break;
    case COUNTER_GAUGE:
        buffer_append_format(out, "} %" PRId64 "\n", MAX((int64_t)value, (int64_t)0));
        break;
    case COUNTER_STAMP:
        buffer_append_format(out, "} %.6f\n", (double)value / 1e6);
        break;
    }
}

/* ---- groups --------------------------------------------------------------------------------------------- */

static void process_metrics(const struct view *view, struct buffer *out)
{
    const struct worker_master_info *master = &view->master;

    help(out, "weir_build_info", "gauge", "Always 1; the version is a label.");
    buffer_append_string(out, "weir_build_info{version=\"" PACKAGE_VERSION "\"} 1\n");
    single(out, "weir_start_time_seconds", "gauge", "When the master was started.", master->started_s);
    single(out, "weir_generation", "gauge", "Of the configuration that serves.", master->generation);
    single(out, "weir_connections_total", "counter", "Connections of clients and to servers ever opened.",
           view->total_connections);
    single(out, "weir_clients", "gauge", "Client connections.", view->clients);
    single(out, "weir_buffer_bytes", "gauge", "Memory of the workers' buffers and requests.", view->memory_bytes);
    single(out, "weir_reloads_total", "counter", "Configurations put in force.", master->reloads);
    single(out, "weir_reload_failures_total", "counter", "Configurations refused.", master->reloads_failed);
    single(out, "weir_reload_time_seconds", "gauge", "When the last good reload was; 0: never.",
           master->reloaded_s);
    single(out, "weir_upgrades_total", "counter", "Upgrades of the binary.", master->upgrades);
    single(out, "weir_upgrade_failures_total", "counter", "Upgrades that were backed out.",
           master->upgrades_failed);
    single(out, "weir_worker_respawns_total", "counter", "Workers forked again.", master->respawns);
    single(out, "weir_worker_crashes_total", "counter", "Workers that died unasked.", master->crashes);
    help(out, "weir_worker_clients", "gauge", "Client connections of a worker.");
    for (uint32_t i = 0; i < view->workers_count; i++)
        buffer_append_format(out, "weir_worker_clients{worker=\"%u\",generation=\"%u\",state=\"%s\"} %u\n",
                             view->workers[i].info.index, view->workers[i].info.generation,
                             view_worker_state(view->workers[i].info.state), view->workers[i].info.load);
}

static void pool_metrics(const struct view *view, struct buffer *out)
{
    for (int i = 0; i < POOL_COUNTER_COUNT; i++) {
        const struct counter_info *info = &pool_counter_infos[i];
        struct metric_name name = metric_name("pool", info);

        counter_help(out, &name, info);
        for (uint32_t p = 0; p < view->pools_count; p++) {
            buffer_append_string(out, name.text);
            labels(out, view->pools[p].name, NULL, BYTES_EMPTY);
            counter_value(out, info, view->pools[p].cells[i]);
        }
    }
}

static void queue_metrics(const struct view *view, struct buffer *out, const char *name, const char *text,
                          bool (*get)(const struct view *, const struct view_pool *, struct histogram *))
{
    struct histogram waited;

    help(out, name, "histogram", text);
    for (uint32_t p = 0; p < view->pools_count; p++)
        if (get(view, &view->pools[p], &waited))
            histogram(out, name, view->pools[p].name, NULL, BYTES_EMPTY, &waited);
}

static void server_metrics(const struct view *view, struct buffer *out)
{
    for (int i = 0; i < SERVER_COUNTER_COUNT; i++) {
        const struct counter_info *info = &server_counter_infos[i];
        struct metric_name name = metric_name("server", info);

        counter_help(out, &name, info);
        for (uint32_t p = 0; p < view->pools_count; p++) {
            for (uint32_t s = view->pools[p].servers; s != VIEW_NONE; s = view->servers[s].next) {
                buffer_append_string(out, name.text);
                labels(out, view->pools[p].name, "server", view->servers[s].name);
                counter_value(out, info, view->servers[s].cells[i]);
            }
        }
    }
}

static void server_health(const struct view *view, struct buffer *out)
{
    help(out, "weir_server_up", "gauge", "0 while the server is ejected.");
    for (uint32_t p = 0; p < view->pools_count; p++) {
        for (uint32_t s = view->pools[p].servers; s != VIEW_NONE; s = view->servers[s].next) {
            const struct view_member *server = &view->servers[s];

            if (server->health == NULL)
                continue;
            buffer_append_string(out, "weir_server_up");
            labels(out, view->pools[p].name, "server", server->name);
            buffer_append_format(out, "} %d\n", !server->health->is_ejected);
        }
    }
    help(out, "weir_server_request_seconds", "histogram", "From a request's sending to the end of its reply.");
    for (uint32_t p = 0; p < view->pools_count; p++) {
        for (uint32_t s = view->pools[p].servers; s != VIEW_NONE; s = view->servers[s].next) {
            const struct histogram *latency = view_server_latency(view, &view->servers[s]);

            if (latency != NULL)
                histogram(out, "weir_server_request_seconds", view->pools[p].name, "server",
                          view->servers[s].name, latency);
        }
    }
}

static void command_counter(const struct view *view, struct buffer *out, const char *name, const char *text,
                            size_t offset)
{
    help(out, name, "counter", text);
    for (uint32_t p = 0; p < view->pools_count; p++) {
        for (uint32_t c = view->pools[p].commands; c != VIEW_NONE; c = view->commands[c].next) {
            const struct stats_command *command = view_command(&view->commands[c]);

            buffer_append_string(out, name);
            labels(out, view->pools[p].name, "command", view->commands[c].name);
            buffer_append_format(out, "} %" PRIu64 "\n",
                                 *(const uint64_t *)(const void *)((const char *)command + offset));
        }
    }
}

static void command_metrics(const struct view *view, struct buffer *out)
{
    command_counter(view, out, "weir_command_errors_total", "Requests answered with an error.",
                    offsetof(struct stats_command, errors));
    command_counter(view, out, "weir_command_misses_total", "Requests whose key was not there.",
                    offsetof(struct stats_command, misses));
    help(out, "weir_command_request_seconds", "histogram", "From the request's last byte to that of its reply.");
    for (uint32_t p = 0; p < view->pools_count; p++)
        for (uint32_t c = view->pools[p].commands; c != VIEW_NONE; c = view->commands[c].next)
            histogram(out, "weir_command_request_seconds", view->pools[p].name, "command",
                      view->commands[c].name, &view_command(&view->commands[c])->latency);
}

void stats_text_prometheus(const struct view *view, struct buffer *out)
{
    process_metrics(view, out);
    pool_metrics(view, out);
    queue_metrics(view, out, "weir_pool_client_queue_seconds",
                  "How long complete replies waited for those before them.", view_client_queue);
    queue_metrics(view, out, "weir_pool_upstream_queue_seconds", "How long requests waited for a connection.",
                  view_upstream_queue);
    server_metrics(view, out);
    server_health(view, out);
    command_metrics(view, out);
}
