/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "proxy/stats_text.h"

#include <inttypes.h>

/* How many of each list are twemproxy's; the rest is ours. */
#define POOL_COUNTERS_OLD   6
#define SERVER_COUNTERS_OLD 13

static const struct { const char *name; uint32_t per_10000; } quantiles[] = {
    {"p50", 5000}, {"p90", 9000}, {"p95", 9500}, {"p98", 9800}, {"p99", 9900}, {"p99_9", 9990}, {"max", 10000},
};

/* Length of the UTF-8 sequence at the start, 0: none. */
static size_t utf8_len(struct bytes text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)text.data[0];
    size_t len = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
    uint32_t code = len < 2 ? first : first & (0xffu >> (len + 1));

    if (len > text.len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if (((unsigned char)text.data[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | ((unsigned char)text.data[i] & 0x3f);
    }
    if (len > 1 && (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)))
        return 0;
    return len;
}

void json_string(struct buffer *out, struct bytes text)
{
    buffer_append_string(out, "\"");
    while (text.len > 0) {
        unsigned char c = (unsigned char)text.data[0];
        size_t len = utf8_len(text);

        if (c == '"' || c == '\\')
            buffer_append_format(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f || len == 0)
            buffer_append_format(out, "\\u%04x", c);
        else
            buffer_append(out, text.data, len);
        text = bytes_skip(text, MAX(len, (size_t)1));
    }
    buffer_append_string(out, "\"");
}

void printable(struct buffer *out, struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (c > 0x20 && c < 0x7f && c != '\\')
            buffer_append(out, &c, 1);
        else
            buffer_append_format(out, "\\x%02x", c);
    }
}

static void json_number(struct buffer *out, const char *name, uint64_t value)
{
    buffer_append_format(out, "\"%s\":%" PRIu64 ",", name, value);
}

/* Gauges of a worker that is in between may be below zero for a moment. */
static void json_counter(struct buffer *out, const struct counter_info *info, uint64_t value)
{
    buffer_append_format(out, "\"%s\":%" PRId64 ",", info->name,
                         info->kind == COUNTER_GAUGE ? MAX((int64_t)value, (int64_t)0) : (int64_t)value);
}

/* Instead of the last comma. */
static void json_end(struct buffer *out, const char *end)
{
    if (out->len > 0 && out->data[out->len - 1] == ',')
        out->len--;
    buffer_append_string(out, end);
}

static void json_head(const struct view *view, const char *host_name, struct buffer *out)
{
    buffer_append_string(out, "{\"service\":\"" STATS_SERVICE "\",\"source\":");
    json_string(out, bytes_of_string(host_name));
    buffer_append_string(out, ",\"version\":\"" PACKAGE_VERSION "\",");
    json_number(out, "uptime", view->uptime_s);
    json_number(out, "timestamp", view->now_s);
    json_number(out, "total_connections", view->total_connections);
    json_number(out, "curr_connections", view->curr_connections);
}

/* ---- twemproxy's ---------------------------------------------------------------------------------- */

static void twemproxy_pool(const struct view *view, const struct view_pool *pool, struct buffer *out)
{
    json_string(out, pool->name);
    buffer_append_string(out, ":{");
    for (int i = 0; i < POOL_COUNTERS_OLD; i++)
        json_counter(out, &pool_counter_infos[i], pool->cells[i]);
    for (uint32_t s = pool->servers; s != VIEW_NONE; s = view->servers[s].next) {
        json_string(out, view->servers[s].name);
        buffer_append_string(out, ":{");
        for (int i = 0; i < SERVER_COUNTER_COUNT; i++)
            json_counter(out, &server_counter_infos[i], view->servers[s].cells[i]);
        json_end(out, "},");
    }
    for (int i = POOL_COUNTERS_OLD; i < POOL_COUNTER_COUNT; i++)
        json_counter(out, &pool_counter_infos[i], pool->cells[i]);
    json_number(out, "latency_p50_us", histogram_quantile(&pool->latency, 5000));
    json_number(out, "latency_p99_us", histogram_quantile(&pool->latency, 9900));
    json_number(out, "latency_max_us", pool->latency.max);
    json_end(out, "},");
}

void stats_text_twemproxy(const struct view *view, const char *host_name, struct buffer *out)
{
    _Static_assert(POOL_COUNT_fragments == POOL_COUNTERS_OLD - 1, "twemproxy's come first");
    _Static_assert(SERVER_COUNT_out_queue_bytes == SERVER_COUNTERS_OLD - 1, "twemproxy's come first");
    json_head(view, host_name, out);
    for (uint32_t p = 0; p < view->pools_count; p++)
        twemproxy_pool(view, &view->pools[p], out);
    json_number(out, "weir_generation", view->master.generation);
    json_number(out, "weir_workers", view->workers_count);
    json_number(out, "weir_worker_crashes", view->master.crashes);
    json_number(out, "weir_reloads", view->master.reloads);
    json_number(out, "weir_reloads_failed", view->master.reloads_failed);
    json_number(out, "weir_memory_bytes", view->memory_bytes);
    json_end(out, "}\n");
}

/* ---- ours ------------------------------------------------------------------------------------------- */

static void json_latency(struct buffer *out, const char *name, const struct histogram *histogram)
{
    uint64_t count = histogram_count(histogram);

    buffer_append_format(out, "\"%s\":{", name);
    json_number(out, "count", count);
    json_number(out, "mean", count == 0 ? 0 : histogram->sum / count);
    for (uint32_t i = 0; i < ARRAY_COUNT(quantiles); i++)
        json_number(out, quantiles[i].name, histogram_quantile(histogram, quantiles[i].per_10000));
    json_end(out, "},");
}

static void json_servers(const struct view *view, const struct view_pool *pool, struct buffer *out)
{
    buffer_append_string(out, "\"servers\":{");
    for (uint32_t s = pool->servers; s != VIEW_NONE; s = view->servers[s].next) {
        const struct view_member *server = &view->servers[s];
        const struct histogram *latency = view_server_latency(view, server);

        json_string(out, server->name);
        buffer_append_string(out, ":{");
        if (server->conf != NULL) {
            buffer_append_string(out, "\"address\":");
            json_string(out, bytes_of_string(server->conf->address.text));
            buffer_append_format(out, ",\"weight\":%u,", server->conf->weight);
        }
        if (server->health != NULL)
            buffer_append_format(out, "\"ejected\":%s,\"failures\":%u,",
                                 server->health->is_ejected ? "true" : "false", server->health->failure_count);
        for (int i = 0; i < SERVER_COUNTER_COUNT; i++)
            json_counter(out, &server_counter_infos[i], server->cells[i]);
        if (latency != NULL)
            json_latency(out, "latency_us", latency);
        json_end(out, "},");
    }
    json_end(out, "},");
}

static void json_commands(const struct view *view, const struct view_pool *pool, struct buffer *out)
{
    buffer_append_string(out, "\"commands\":{");
    for (uint32_t c = pool->commands; c != VIEW_NONE; c = view->commands[c].next) {
        const struct stats_command *command = view_command(&view->commands[c]);

        json_string(out, view->commands[c].name);
        buffer_append_string(out, ":{");
        json_number(out, "errors", command->errors);
        json_number(out, "misses", command->misses);
        json_latency(out, "latency_us", &command->latency);
        json_end(out, "},");
    }
    json_end(out, "},");
}

static void json_pool(const struct view *view, const struct view_pool *pool, struct buffer *out)
{
    struct histogram waited;

    json_string(out, pool->name);
    buffer_append_string(out, ":{");
    if (pool->conf != NULL) {
        buffer_append_string(out, "\"listen\":");
        json_string(out, bytes_of_string(pool->conf->listen.text));
        buffer_append_format(out, ",\"protocol\":\"%s\",\"distribution\":\"%s\",\"hash\":\"%s\",",
                             conf_protocol_name(pool->conf->protocol),
                             ring_distribution_name(pool->conf->distribution), hash_name(pool->conf->hash));
    }
    for (int i = 0; i < POOL_COUNTER_COUNT; i++)
        json_counter(out, &pool_counter_infos[i], pool->cells[i]);
    json_latency(out, "latency_us", &pool->latency);
    if (view_client_queue(view, pool, &waited))
        json_latency(out, "client_queue_us", &waited);
    if (view_upstream_queue(view, pool, &waited))
        json_latency(out, "upstream_queue_us", &waited);
    json_commands(view, pool, out);
    json_servers(view, pool, out);
    json_end(out, "},");
}

static void json_master(const struct view *view, struct buffer *out)
{
    const struct worker_master_info *master = &view->master;

    buffer_append_string(out, "\"master\":{");
    json_number(out, "pid", (uint64_t)master->pid);
    json_number(out, "generation", master->generation);
    json_number(out, "reloads", master->reloads);
    json_number(out, "reloads_failed", master->reloads_failed);
    json_number(out, "reloaded_at", master->reloaded_s);
    json_number(out, "upgrades", master->upgrades);
    json_number(out, "upgrades_failed", master->upgrades_failed);
    json_number(out, "respawns", master->respawns);
    json_number(out, "crashes", master->crashes);
    json_number(out, "log_level", (uint64_t)MAX(master->log_level, 0));
    json_end(out, "},\"workers\":[");
    for (uint32_t i = 0; i < view->workers_count; i++) {
        const struct worker_info *info = &view->workers[i].info;

        buffer_append_format(out, "{\"pid\":%d,\"master_pid\":%d,\"state\":\"%s\",", (int)info->pid,
                             (int)info->master_pid, view_worker_state(info->state));
        json_number(out, "generation", info->generation);
        json_number(out, "index", info->index);
        json_number(out, "clients", info->load);
        json_number(out, "respawns", info->respawns);
        json_number(out, "started_at", info->started_s);
        json_number(out, "heartbeat_age_ms", info->heartbeat_age_ms);
        json_number(out, "memory_bytes", view->workers[i].memory_bytes);
        json_end(out, "},");
    }
    json_end(out, "],");
}

void stats_text_json(const struct view *view, const char *host_name, const struct stats_lists *lists,
                     struct buffer *out)
{
    json_head(view, host_name, out);
    json_number(out, "clients", view->clients);
    json_number(out, "memory_bytes", view->memory_bytes);
    json_master(view, out);
    buffer_append_string(out, "\"pools\":{");
    for (uint32_t p = 0; p < view->pools_count; p++)
        json_pool(view, &view->pools[p], out);
    json_end(out, "},\"slowlog\":[");
    stats_lists_slowlog_json(lists, out);
    json_end(out, "],\"hotkeys\":[");
    stats_lists_hotkeys_json(lists, out);
    json_end(out, "],\"bigkeys\":[");
    stats_lists_bigkeys_json(lists, out);
    json_end(out, "]}\n");
}

/* ---- for weirctl ---------------------------------------------------------------------------------------- */

static void table_label(struct buffer *out, struct bytes label)
{
    buffer_append_string(out, "\t");
    printable(out, label);
}

static void table_number(struct buffer *out, const char *name, uint64_t value)
{
    buffer_append_format(out, "\t%s=%" PRIu64, name, value);
}

/* index:count of the buckets that are not empty: the reader wants differences. */
static void table_histogram(struct buffer *out, const struct histogram *histogram)
{
    const char *between = "\tlatency=";

    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (histogram->buckets[i] == 0)
            continue;
        buffer_append_format(out, "%s%u:%" PRIu64, between, i, histogram->buckets[i]);
        between = ",";
    }
    table_number(out, "latency_max", histogram->max);
}

static void table_pool(const struct view *view, const struct view_pool *pool, struct buffer *out)
{
    buffer_append_string(out, "pool");
    table_label(out, pool->name);
    for (int i = 0; i < POOL_COUNTER_COUNT; i++)
        table_number(out, pool_counter_infos[i].name, pool->cells[i]);
    table_histogram(out, &pool->latency);
    buffer_append_string(out, "\n");
    for (uint32_t s = pool->servers; s != VIEW_NONE; s = view->servers[s].next) {
        const struct view_member *server = &view->servers[s];
        const struct histogram *latency = view_server_latency(view, server);

        buffer_append_string(out, "server");
        table_label(out, pool->name);
        table_label(out, server->name);
        for (int i = 0; i < SERVER_COUNTER_COUNT; i++)
            table_number(out, server_counter_infos[i].name, server->cells[i]);
        table_number(out, "is_ejected", server->health == NULL ? 0 : server->health->is_ejected);
        if (latency != NULL)
            table_histogram(out, latency);
        buffer_append_string(out, "\n");
    }
    for (uint32_t c = pool->commands; c != VIEW_NONE; c = view->commands[c].next) {
        const struct stats_command *command = view_command(&view->commands[c]);

        buffer_append_string(out, "command");
        table_label(out, pool->name);
        table_label(out, view->commands[c].name);
        table_number(out, "errors", command->errors);
        table_number(out, "misses", command->misses);
        table_histogram(out, &command->latency);
        buffer_append_string(out, "\n");
    }
}

void stats_text_table(const struct view *view, struct buffer *out)
{
    const struct worker_master_info *master = &view->master;

    buffer_append_string(out, "master");
    table_number(out, "pid", (uint64_t)master->pid);
    table_number(out, "generation", master->generation);
    table_number(out, "uptime", view->uptime_s);
    table_number(out, "reloads", master->reloads);
    table_number(out, "reloads_failed", master->reloads_failed);
    table_number(out, "upgrades", master->upgrades);
    table_number(out, "crashes", master->crashes);
    table_number(out, "clients", view->clients);
    table_number(out, "memory_bytes", view->memory_bytes);
    buffer_append_string(out, "\tversion=" PACKAGE_VERSION "\n");
    for (uint32_t i = 0; i < view->workers_count; i++) {
        const struct worker_info *info = &view->workers[i].info;

        buffer_append_format(out, "worker\tpid=%d\tstate=%s", (int)info->pid, view_worker_state(info->state));
        table_number(out, "generation", info->generation);
        table_number(out, "index", info->index);
        table_number(out, "clients", info->load);
        table_number(out, "respawns", info->respawns);
        table_number(out, "memory_bytes", view->workers[i].memory_bytes);
        buffer_append_string(out, "\n");
    }
    for (uint32_t p = 0; p < view->pools_count; p++)
        table_pool(view, &view->pools[p], out);
}
