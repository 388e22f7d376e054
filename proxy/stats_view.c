/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/stats_view.h"

#include "common/base/mem.h"

#define VIEW_TRIES 3

/* ---- adding up -------------------------------------------------------------------------------- */

static void view_add_configured(struct view *view, const struct conf *conf)
{
    for (uint32_t p = 0; p < conf->pools_count; p++) {
        const struct conf_pool *pool = &conf->pools[p];
        struct bytes name = bytes_of_string(pool->name);

        /* It has room: the plan was made for it. */
        MAYBE(stats_group_add(&view->segment, view->schemas.pool, name, BYTES_EMPTY));
        for (uint32_t i = 0; i < pool->servers_count; i++)
            MAYBE(stats_group_add(&view->segment, view->schemas.server, name,
                                  bytes_of_string(pool->servers[i].name)));
    }
}

/* Commands that no living worker has met yet: a reload must not make a pool's times smaller. */
static void view_add_base_commands(struct view *view, const void *base, size_t base_size)
{
    struct stats_cursor cursor;
    struct stats_group group;

    stats_walk(&cursor, base, base_size);
    while (stats_next(&cursor, &group))
        if (bytes_equal(group.schema, BYTES("command")) &&
            stats_group_find(&view->segment, view->schemas.pool, group.a, BYTES_EMPTY) != NULL)
            MAYBE(stats_group_add(&view->segment, view->schemas.command, group.a, group.b));
}

static uint64_t worker_memory(const struct worker_info *info)
{
    struct stats_cursor cursor;
    struct stats_group group;

    stats_walk(&cursor, info->stats, info->stats_size);
    while (stats_next(&cursor, &group)) {
        const uint64_t *cell = bytes_equal(group.schema, BYTES("process"))
                                   ? stats_metric_find(&group, "memory_bytes", STATS_GAUGE, NULL)
                                   : NULL;

        if (cell != NULL)
            return *cell;
    }
    return 0;
}

/* Live segments first: their groups are what is shown. */
static void view_add_workers(struct view *view, struct worker *worker)
{
    uint32_t slots = worker_slots_count(worker);

    view->workers_count = 0;
    for (uint32_t i = 0; i < slots; i++) {
        struct view_worker *out = &view->workers[view->workers_count];
        bool is_alive;

        if (!worker_slot_info(worker, i, &out->info))
            continue;
        is_alive = out->info.state != WORKER_STATE_GONE && out->info.state != WORKER_STATE_RETIRED;
        stats_merge(&view->segment, out->info.stats, out->info.stats_size,
                    STATS_MERGE_CREATE | (is_alive ? STATS_MERGE_GAUGES : 0));
        out->memory_bytes = is_alive ? worker_memory(&out->info) : 0;
        if (out->info.state == WORKER_STATE_RETIRED)
            continue;
        view->memory_bytes += out->memory_bytes;
        view->workers_count++;
    }
}

static void view_open(struct view *view, const struct conf *conf)
{
    struct stats_plan plan;

    if (stats_plan(conf, &plan) != 0)
        UNREACHABLE("a configuration that was refused");
    /* Areas are read where they are: none here. */
    plan.slowlog_entries = plan.hotkeys_entries = plan.clients_entries = 0;
    view->memory = must_zalloc(plan.size);
    stats_open(&view->segment, view->memory, plan.size, false);
    stats_schemas_add(&view->segment, &plan, &view->schemas);
    view_add_configured(view, conf);
}

static void view_close(struct view *view)
{
    stats_close(&view->segment);
    mem_free(view->memory);
    view->memory = NULL;
}

/* Adds up; again when a worker was folded into the base meanwhile, or it would be counted twice. */
static void view_sum(struct view *view, struct worker *worker, const struct conf *conf)
{
    for (int i = 0; i < VIEW_TRIES; i++) {
        size_t base_size;
        const void *base = worker_stats_base(worker, &base_size);

        view->memory_bytes = 0;
        view_open(view, conf);
        view_add_workers(view, worker);
        view_add_base_commands(view, base, base_size);
        stats_merge(&view->segment, base, base_size, 0);
        if (worker_stats_base(worker, &base_size) == base || i == VIEW_TRIES - 1)
            return;
        view_close(view);
    }
}

/* ---- making it a tree --------------------------------------------------------------------------- */

static void link_member(struct view_member *members, uint32_t index, uint32_t *first, uint32_t *last)
{
    if (*first == VIEW_NONE)
        *first = index;
    else
        members[*last].next = index;
    *last = index;
}

/* Pools are in the order of their cells. */
static struct view_pool *find_pool(struct view *view, struct bytes name)
{
    const uint64_t *cells = stats_group_find(&view->segment, view->schemas.pool, name, BYTES_EMPTY);
    uint32_t low = 0, high = view->pools_count;

    while (cells != NULL && low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (view->pools[middle].cells == cells)
            return &view->pools[middle];
        if (view->pools[middle].cells < cells)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void view_count(struct view *view)
{
    struct stats_cursor cursor;
    struct stats_group group;
    uint32_t pools = 0, servers = 0, commands = 0;

    stats_walk(&cursor, view->memory, view->segment.size);
    while (stats_next(&cursor, &group)) {
        pools += bytes_equal(group.schema, BYTES("pool"));
        servers += bytes_equal(group.schema, BYTES("server"));
        commands += bytes_equal(group.schema, BYTES("command"));
    }
    view->pools = must_zalloc(sizeof(*view->pools) * MAX(pools, 1u));
    view->servers = must_zalloc(sizeof(*view->servers) * MAX(servers, 1u));
    view->commands = must_zalloc(sizeof(*view->commands) * MAX(commands, 1u));
}

static void view_pools(struct view *view)
{
    struct stats_cursor cursor;
    struct stats_group group;

    stats_walk(&cursor, view->memory, view->segment.size);
    while (stats_next(&cursor, &group))
        if (bytes_equal(group.schema, BYTES("pool")))
            view->pools[view->pools_count++] = (struct view_pool){
                .name = group.a,
                .cells = group.cells,
                .servers = VIEW_NONE,
                .commands = VIEW_NONE,
            };
}

static void view_members(struct view *view)
{
    struct stats_cursor cursor;
    struct stats_group group;

    stats_walk(&cursor, view->memory, view->segment.size);
    while (stats_next(&cursor, &group)) {
        struct view_member member = {.name = group.b, .cells = group.cells, .next = VIEW_NONE};
        struct view_pool *pool = bytes_equal(group.schema, BYTES("pool")) ? NULL : find_pool(view, group.a);

        if (pool == NULL)
            continue;
        if (bytes_equal(group.schema, BYTES("server"))) {
            view->servers[view->servers_count] = member;
            link_member(view->servers, view->servers_count++, &pool->servers, &pool->servers_last);
            view->curr_connections += group.cells[SERVER_COUNT_server_connections];
            view->total_connections += group.cells[SERVER_COUNT_server_connects];
        } else if (bytes_equal(group.schema, BYTES("command"))) {
            view->commands[view->commands_count] = member;
            link_member(view->commands, view->commands_count++, &pool->commands, &pool->commands_last);
            histogram_merge(&pool->latency, &view_command(&member)->latency);
        }
    }
}

/* The first groups are those of the configuration, in its order. */
static void view_link_conf(struct view *view, const struct conf *conf, const struct health_area *health)
{
    uint32_t slot = 0;

    for (uint32_t p = 0; p < conf->pools_count && p < view->pools_count; p++) {
        struct view_pool *pool = &view->pools[p];
        uint32_t at = pool->servers;

        pool->conf = &conf->pools[p];
        for (uint32_t i = 0; i < pool->conf->servers_count; i++, slot++) {
            if (at == VIEW_NONE)
                continue;
            view->servers[at].conf = &pool->conf->servers[i];
            if (health != NULL && slot < health->slot_count)
                view->servers[at].health = &health->slots[slot];
            at = view->servers[at].next;
        }
    }
}

void view_init(struct view *view, struct worker *worker, const struct conf *conf, uint64_t now_s)
{
    size_t health_size;
    const struct health_area *health = worker_health(worker, &health_size);

    memset(view, 0, sizeof(*view));
    view->workers = must_zalloc(sizeof(*view->workers) * MAX(worker_slots_count(worker), 1u));
    worker_master_info(worker, &view->master);
    view->now_s = now_s;
    view->uptime_s = now_s - MIN(now_s, view->master.started_s);
    view_sum(view, worker, conf);
    view_count(view);
    view_pools(view);
    view_members(view);
    view_link_conf(view, conf, health_size < sizeof(*health) ? NULL : health);
    for (uint32_t p = 0; p < view->pools_count; p++) {
        view->clients += view->pools[p].cells[POOL_COUNT_client_connections];
        view->total_connections += view->pools[p].cells[POOL_COUNT_client_accepted];
    }
    /* As twemproxy: clients, servers, listeners. */
    view->curr_connections += view->clients + conf->pools_count;
}

void view_deinit(struct view *view)
{
    view_close(view);
    mem_free(view->pools);
    mem_free(view->servers);
    mem_free(view->commands);
    mem_free(view->workers);
}

/* ---- what it holds -------------------------------------------------------------------------------- */

static const struct histogram *histogram_at(const uint64_t *cells, uint32_t off)
{
    return off == 0 ? NULL : (const struct histogram *)(const void *)(cells + off);
}

const struct histogram *view_server_latency(const struct view *view, const struct view_member *server)
{
    return histogram_at(server->cells, view->schemas.server_latency);
}

const struct stats_command *view_command(const struct view_member *command)
{
    return (const struct stats_command *)(const void *)command->cells;
}

static bool waiting_times(const struct view_pool *pool, uint32_t off, struct histogram *out)
{
    const struct histogram *waited = histogram_at(pool->cells, off);
    uint64_t all = histogram_count(&pool->latency), count;

    if (waited == NULL)
        return false;
    *out = *waited;
    count = histogram_count(out);
    out->buckets[0] += all - MIN(all, count);
    return true;
}

bool view_client_queue(const struct view *view, const struct view_pool *pool, struct histogram *out)
{
    return waiting_times(pool, view->schemas.pool_client_queue, out);
}

bool view_upstream_queue(const struct view *view, const struct view_pool *pool, struct histogram *out)
{
    return waiting_times(pool, view->schemas.pool_upstream_queue, out);
}

const char *view_worker_state(enum worker_state state)
{
    switch (state) {
    case WORKER_STATE_FREE:
        return "free";
    case WORKER_STATE_STARTING:
        return "starting";
    case WORKER_STATE_SERVING:
        return "serving";
    case WORKER_STATE_DRAINING:
        return "draining";
    case WORKER_STATE_GONE:
        return "respawning";
    case WORKER_STATE_RETIRED:
        return "retired";
    }
    return "?";
}
