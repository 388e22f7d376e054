/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The effective configuration as YAML. What it prints, conf_parse() reads back to the same values,
 * passwords apart; a test holds the two together.
 */
#include "config.h"

#include "proxy/conf_private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct printer {
    conf_print_fn print;
    void *arg;
};

/* Pieces are short: numbers, keys, names of at most 255 bytes go through here, longer text does
 * not. */
static void out(struct printer *p, const char *format, ...) PRINTF_LIKE(2, 3);

static void out(struct printer *p, const char *format, ...)
{
    char text[512];
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    p->print(p->arg, text, MIN((size_t)len, sizeof(text) - 1));
}

/* The inside of a double-quoted scalar. Control characters were refused on the way in. */
static void out_escaped(struct printer *p, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            p->print(p->arg, "\\", 1);
        p->print(p->arg, text, 1);
    }
}

static void out_quoted(struct printer *p, const char *text)
{
    p->print(p->arg, "\"", 1);
    out_escaped(p, text);
    p->print(p->arg, "\"", 1);
}

static void out_string(struct printer *p, const char *key, const char *value)
{
    if (value == NULL)
        return;
    out(p, "  %s: ", key);
    out_quoted(p, value);
    out(p, "\n");
}

static void out_time(struct printer *p, const char *indent, const char *key, int64_t ms)
{
    if (ms < 0)
        out(p, "%s%s: off\n", indent, key);
    else
        out(p, "%s%s: %" PRId64 "\n", indent, key, ms);
}

static void out_bool(struct printer *p, const char *key, bool value)
{
    out(p, "  %s: %s\n", key, value ? "true" : "false");
}

static void out_limits(struct printer *p, const struct conf_limits *limits)
{
    out(p, "  limits:\n");
    out(p, "    request_size_max: %" PRIu64 "\n", limits->request_size_max);
    out(p, "    value_size_max: %" PRIu64 "\n", limits->value_size_max);
    out(p, "    key_size_max: %u\n", limits->key_size_max);
    out(p, "    args_max: %u\n", limits->args_max);
    out(p, "    line_max: %u\n", limits->line_max);
    out(p, "    client_output_max: %" PRIu64 "\n", limits->client_output_max);
    out(p, "    client_output_close: %" PRIu64 "\n", limits->client_output_close);
    out(p, "    client_inflight_max: %u\n", limits->client_inflight_max);
    out(p, "    upstream_queue_max: %u\n", limits->upstream_queue_max);
    out(p, "    upstream_output_max: %" PRIu64 "\n", limits->upstream_output_max);
    out(p, "    worker_memory_max: %" PRIu64 "\n", limits->worker_memory_max);
    out(p, "    clients_max: %u\n", limits->clients_max);
    out_time(p, "    ", "auth_timeout", limits->auth_timeout_ms);
    out_time(p, "    ", "idle_timeout", limits->idle_timeout_ms);
}

static void out_affinity(struct printer *p, const struct conf_process *process)
{
    if (process->cpu_affinity_auto || process->cpus_count == 0) {
        out(p, "  cpu_affinity: %s\n", process->cpu_affinity_auto ? "auto" : "off");
        return;
    }
    out(p, "  cpu_affinity: [");
    for (uint32_t i = 0; i < process->cpus_count; i++)
        out(p, "%s%u", i > 0 ? ", " : "", process->cpus[i]);
    out(p, "]\n");
}

static void out_process(struct printer *p, const struct conf_process *process)
{
    out(p, "weir:\n  version: %u\n", process->version);
    if (process->workers == 0)
        out(p, "  workers: auto\n");
    else
        out(p, "  workers: %u\n", process->workers);
    out(p, "  accept: %s\n", conf_accept_name(process->accept));
    out_affinity(p, process);
    out_string(p, "user", process->user);
    out_string(p, "group", process->group);
    out_time(p, "  ", "drain_timeout", process->drain_timeout_ms);
    if (process->rlimit_nofile != 0)
        out(p, "  rlimit_nofile: %" PRIu64 "\n", process->rlimit_nofile);
    out_string(p, "pid_file", process->pid_file);
    out_string(p, "control", process->control);
    if (process->log_file != NULL || process->log_level >= 0)
        out(p, "  log:\n");
    if (process->log_file != NULL)
        out(p, "  "), out_string(p, "file", process->log_file);
    if (process->log_level >= 0)
        out(p, "    level: %d\n", process->log_level);
    out(p, "  stats:\n    insecure: %s\n", process->stats_insecure ? "true" : "false");
    if (process->stats_listen.text != NULL)
        out(p, "  "), out_string(p, "listen", process->stats_listen.text);
    if (process->stats_interval_ms >= 0)
        out_time(p, "    ", "interval", process->stats_interval_ms);
    out(p, "  slowlog:\n");
    out_time(p, "    ", "threshold", process->slowlog_threshold_ms);
    out(p, "    entries: %u\n", process->slowlog_entries);
    out(p, "  hotkeys:\n    entries: %u\n    sample: %u\n", process->hotkeys_entries,
        process->hotkeys_sample);
    out(p, "  bigkeys:\n    size: %" PRIu64 "\n", process->bigkeys_size);
    out_limits(p, &process->limits);
}

static void out_bound(struct printer *p, struct bytes bound)
{
    for (size_t i = 0; i < bound.len; i++) {
        unsigned char c = (unsigned char)bound.data[i];

        if ((c >= '0' && c <= '9') || (ascii_lower((char)c) >= 'a' && ascii_lower((char)c) <= 'z'))
            out(p, "%c", c);
        else
            out(p, "%%%02X", c);
    }
}

static void out_server(struct printer *p, const struct conf_server *server)
{
    out(p, "    - \"");
    out_escaped(p, server->pname);
    if (server->has_name) {
        out(p, " ");
        out_escaped(p, server->name);
    }
    for (uint32_t i = 0; i < server->slots_count; i++)
        out(p, "%s%u-%u", i > 0 ? "," : " slots=", server->slots[i].first, server->slots[i].last);
    for (uint32_t i = 0; i < server->ranges_count; i++) {
        out(p, "%s", i > 0 ? "," : " range=");
        out_bound(p, server->ranges[i].from);
        out(p, "..");
        out_bound(p, server->ranges[i].to);
    }
    out(p, "%s\"\n", server->is_spare ? " role=spare" : "");
}

static void out_commands(struct printer *p, const char *key, const struct conf_strings *names)
{
    out(p, "    %s: [", key);
    for (uint32_t i = 0; i < names->count; i++) {
        out(p, "%s", i > 0 ? ", " : "");
        out_quoted(p, names->items[i]);
    }
    out(p, "]\n");
}

static void out_masters(struct printer *p, const struct conf_pool *pool)
{
    if (pool->masters_count == 0)
        return;
    out(p, "  sentinel_master: [");
    for (uint32_t i = 0; i < pool->masters_count; i++) {
        char text[300];

        snprintf(text, sizeof(text), "%s:%u", pool->masters[i].name, pool->masters[i].weight);
        out(p, "%s", i > 0 ? ", " : "");
        out_quoted(p, text);
    }
    out(p, "]\n");
    if (pool->sentinel_auth != NULL)
        out(p, "  # sentinel_auth: (not shown)\n");
}

static void out_placement(struct printer *p, const struct conf_pool *pool)
{
    /* A cluster's are fixed, and the file may not name them. */
    if (pool->members == CONF_MEMBERS_redis_cluster)
        return;
    if (pool->distribution != RING_slots && pool->distribution != RING_range)
        out(p, "  hash: %s\n", hash_name(pool->hash));
    if (pool->has_hash_tag) {
        out(p, "  hash_tag: ");
        out_quoted(p, (char[]){pool->hash_tag[0], pool->hash_tag[1], '\0'});
        out(p, "\n");
    }
    out(p, "  distribution: %s\n", ring_distribution_name(pool->distribution));
}

static void out_pool(struct printer *p, const struct conf_pool *pool)
{
    out_quoted(p, pool->name);
    out(p, ":\n");
    out_string(p, "listen", pool->listen.text);
    out(p, "  members: %s\n", conf_members_name(pool->members));
    out(p, "  protocol: %s\n", conf_protocol_name(pool->protocol));
    if (pool->redis_auth != NULL)
        out(p, "  # redis_auth: (not shown)\n");
    out(p, "  redis_db: %u\n", pool->redis_db);
    out_placement(p, pool);
    out_time(p, "  ", "timeout", pool->timeout_ms);
    out_time(p, "  ", "connect_timeout", pool->connect_timeout_ms);
    out_time(p, "  ", "queue_timeout", pool->queue_timeout_ms);
    out_time(p, "  ", "reply_timeout", pool->reply_timeout_ms);
    out(p, "  backlog: %u\n", pool->backlog);
    out(p, "  client_connections: %u\n", pool->client_connections);
    out_bool(p, "tcpkeepalive", pool->tcpkeepalive);
    out_bool(p, "reuseport", pool->reuseport);
    out_bool(p, "preconnect", pool->preconnect);
    out(p, "  server_connections: %u\n", pool->server_connections);
    out_bool(p, "auto_eject_hosts", pool->auto_eject_hosts);
    out_time(p, "  ", "server_retry_timeout", pool->server_retry_timeout_ms);
    out(p, "  server_failure_limit: %u\n", pool->server_failure_limit);
    out(p, "  eject: %s\n", conf_eject_name(pool->eject));
    out_time(p, "  ", "probe_interval", pool->probe_interval_ms);
    out_bool(p, "paranoid", pool->paranoid);
    out_bool(p, "insecure", pool->insecure);
    out(p, "  commands:\n");
    out_commands(p, "allow", &pool->commands_allow);
    out_commands(p, "deny", &pool->commands_deny);
    out_masters(p, pool);
    out(p, "  servers:\n");
    for (uint32_t i = 0; i < pool->servers_count; i++)
        out_server(p, &pool->servers[i]);
}

void conf_describe(const struct conf *conf, conf_print_fn print, void *arg)
{
    struct printer p = {.print = print, .arg = arg};

    out_process(&p, &conf->process);
    for (uint32_t i = 0; i < conf->pools_count; i++) {
        out(&p, "\n");
        out_pool(&p, &conf->pools[i]);
    }
}
