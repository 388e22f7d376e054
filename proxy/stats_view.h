/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats_view.h - the totals at one moment: the base of the retired workers plus every live segment, by
 * pool, server and command.
 *
 * Pools and servers of the configuration are always there, in its order; behind them what only a live
 * worker knows (an older generation's, servers found by discovery).
 */
#pragma once
#include "nginx-style-master/worker.h"
#include "proxy/health.h"
#include "proxy/stats_layout.h"

#define VIEW_NONE UINT32_MAX

struct view_member { /* a server or a command of a pool */
    struct bytes name;
    const uint64_t *cells;
    const struct conf_server *conf; /* NULL: not of the configuration, or a command */
    const struct health_slot *health; /* NULL: unknown */
    uint32_t next; /* of the same pool; VIEW_NONE ends */
};

struct view_pool {
    struct bytes name;
    const uint64_t *cells;
    const struct conf_pool *conf; /* NULL: not of the configuration */
    uint32_t servers, servers_last; /* first and last in view->servers; VIEW_NONE: none */
    uint32_t commands, commands_last;
    struct histogram latency; /* of all its commands */
};

struct view_worker {
    struct worker_info info;
    uint64_t memory_bytes;
};

struct view {
    void *memory; /* owns */
    struct stats_segment segment;
    struct stats_schemas schemas;
    struct view_pool *pools; /* owns, as the next three */
    struct view_member *servers, *commands;
    struct view_worker *workers;
    uint32_t pools_count, servers_count, commands_count, workers_count;
    struct worker_master_info master;
    uint64_t total_connections, curr_connections, clients, memory_bytes;
    uint64_t now_s, uptime_s;
};

/* `worker`: the stats process; `now_s`: epoch. */
void view_init(struct view *view, struct worker *worker, const struct conf *conf, uint64_t now_s);
void view_deinit(struct view *view);

static inline uint64_t view_pool_counter(const struct view_pool *pool, enum pool_counter id)
{
    return pool->cells[id];
}

/* NULL: the configuration is too large for it. */
const struct histogram *view_server_latency(const struct view *view, const struct view_member *server);
const struct stats_command *view_command(const struct view_member *command);
/* Copies a pool's waiting times, with the requests that did not wait; false: too large a configuration. */
bool view_client_queue(const struct view *view, const struct view_pool *pool, struct histogram *out);
bool view_upstream_queue(const struct view *view, const struct view_pool *pool, struct histogram *out);

const char *view_worker_state(enum worker_state state);
