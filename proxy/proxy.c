/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's proxy: its pools, its memory, the end of each turn.
 *
 * A turn handles every event that is ready; what it wants to send is only queued. Then the flush hook
 * sends once to each upstream and once to each client that has something: all requests of all clients
 * for one server leave in one call, and their replies come in one.
 */
#include "proxy/proxy_private.h"
#include "proxy/observe.h"
#include "proxy/conf_live.h"

#define TICK_MS          20
#define HOUSEKEEPING_MS  1000
#define MEMORY_TRIM_STEP (2u << 20)
#define PRIVATE_IDLE_MAX_MS 30000
#define FLUSH_TOGETHER   16u /* connections whose sends are one system call */

/* ---- the end of a turn ------------------------------------------------------------------------ */

static void proxy_free_dead(struct proxy *proxy)
{
    while (proxy->dead_clients != NULL) {
        struct client *client = proxy->dead_clients;

        proxy->dead_clients = client->dead_next;
        client_free(client);
    }
    while (proxy->dead_upstreams != NULL) {
        struct upstream *upstream = proxy->dead_upstreams;

        proxy->dead_upstreams = upstream->dead_next;
        upstream_free(proxy, upstream);
    }
}

static void flush_upstreams(struct proxy *proxy)
{
    struct send sends[FLUSH_TOGETHER];
    struct io_send calls[FLUSH_TOGETHER];
    unsigned count = 0;

    while (proxy->dirty_upstreams != NULL && count < FLUSH_TOGETHER) {
        struct upstream *upstream = proxy->dirty_upstreams;
        struct send *send = &sends[count];

        proxy->dirty_upstreams = upstream->dirty_next;
        upstream->is_dirty = false;
        if (upstream_flush_begin(upstream, send))
            calls[count++] = (struct io_send){.stream = &upstream->stream, .slices = send->slices, .count = send->count};
    }
    io_streams_send(proxy->io, calls, count);
    for (unsigned i = 0; i < count; i++)
        upstream_flush_count(&sends[i], calls[i].sent);
    for (unsigned i = 0; i < count; i++)
        upstream_flush_sent(&sends[i], calls[i].sent);
}

static void flush_ended(struct client *client)
{
    if (client_flush_end(client) && UNLIKELY(client->pool->proxy->is_draining))
        drain_client(client);
}

static void flush_clients(struct proxy *proxy)
{
    struct send sends[FLUSH_TOGETHER];
    struct io_send calls[FLUSH_TOGETHER];
    unsigned count = 0;

    while (proxy->dirty_clients != NULL && count < FLUSH_TOGETHER) {
        struct client *client = proxy->dirty_clients;
        struct send *send = &sends[count];

        proxy->dirty_clients = client->dirty_next;
        client->is_dirty = false;
        if (client->is_dead)
            continue;
        if (client_flush_begin(client, send))
            calls[count++] = (struct io_send){.stream = &client->stream, .slices = send->slices, .count = send->count};
        else
            flush_ended(client);
    }
    io_streams_send(proxy->io, calls, count);
    for (unsigned i = 0; i < count; i++)
        if (client_flush_sent(&sends[i], calls[i].sent))
            flush_ended(sends[i].client);
}

static void proxy_flush(struct io_hook *hook)
{
    struct proxy *proxy = CONTAINER_OF(hook, struct proxy, flush_hook);

    /* A failed send makes error replies, which make clients dirty, and the other way round. */
    while (proxy->dirty_upstreams != NULL || proxy->dirty_clients != NULL) {
        while (proxy->dirty_upstreams != NULL)
            flush_upstreams(proxy);
        while (proxy->dirty_clients != NULL)
            flush_clients(proxy);
    }
    if (UNLIKELY(proxy->dead_clients != NULL || proxy->dead_upstreams != NULL))
        proxy_free_dead(proxy);
}

/* ---- time ---------------------------------------------------------------------------------------- */

void proxy_tick_start(struct proxy *proxy)
{
    if (!io_timer_is_running(&proxy->tick))
        io_timer_start(proxy->io, &proxy->tick, TICK_MS);
}

static bool proxy_tick_servers(struct proxy *proxy, uint64_t now_ms)
{
    bool is_any_ejected = false;

    if (proxy->health->version == 0)
        return false;
    for (uint32_t p = 0; p < proxy->pool_count; p++) {
        struct pool *pool = &proxy->pools[p];

        for (uint32_t i = 0; i < pool->server_count; i++) {
            server_tick(&pool->servers[i], now_ms);
            is_any_ejected |= server_is_ejected(&pool->servers[i]);
        }
    }
    return is_any_ejected;
}

static void proxy_ticked(struct io_timer *timer)
{
    struct proxy *proxy = timer->arg;
    uint64_t now_ms = io_now_ms(proxy->io);
    bool is_any_ejected = proxy_tick_servers(proxy, now_ms);
    struct list_node *node;
    struct list ticking;

    /* A time-out may close a client, and that its other connections: any of them may leave the list. */
    list_init(&ticking);
    list_move_all(&proxy->busy, &ticking);
    while ((node = list_pop_front(&ticking)) != NULL) {
        list_push_back(&proxy->busy, node);
        upstream_tick(CONTAINER_OF(node, struct upstream, busy_node), now_ms);
    }
    if (is_any_ejected || !list_is_empty(&proxy->busy))
        proxy_tick_start(proxy);
}

#define UPLOAD_STALL_MAX_S 60

static void proxy_close_idle_clients(struct proxy *proxy)
{
    int64_t idle_ms = proxy->conf->process.limits.idle_timeout_ms;
    uint32_t now_s = (uint32_t)(io_now_ms(proxy->io) / 1000);

    for (uint32_t p = 0; p < proxy->pool_count; p++) {
        LIST_FOR_EACH (&proxy->pools[p].clients, node) {
            struct client *client = CONTAINER_OF(node, struct client, node);
            int64_t limit_ms = client->is_authenticated
                                   ? idle_ms
                                   : proxy->conf->process.limits.auth_timeout_ms;

            /* Half an upload holds a connection to a server. */
            if (client->upload != NULL && now_s - client->last_active_s > UPLOAD_STALL_MAX_S) {
                client_close(client);
                continue;
            }
            if (session_misses_messages(client)) {
                client_close(client);
                continue;
            }
            if (limit_ms >= 0 && client->request_count == 0 &&
                (client->session == NULL || !client->is_authenticated) &&
                (int64_t)(now_s - client->last_active_s) * 1000 > limit_ms)
                client_close(client);
        }
    }
}

/* Private connections that a burst of uploads and blocking commands has left behind. */
static void proxy_close_idle_upstreams(struct proxy *proxy)
{
    uint64_t now_ms = io_now_ms(proxy->io);

    for (uint32_t p = 0; p < proxy->pool_count; p++) {
        for (uint32_t i = 0; i < proxy->pools[p].server_count; i++) {
            LIST_FOR_EACH (&proxy->pools[p].servers[i].upstreams, node) {
                struct upstream *upstream = CONTAINER_OF(node, struct upstream, server_node);

                if (upstream->is_private && upstream->session == NULL && !upstream->is_pubsub &&
                    upstream->state == UPSTREAM_READY && upstream->inflight_count == 0 &&
                    now_ms - upstream->idle_since_ms > PRIVATE_IDLE_MAX_MS)
                    upstream_retire(upstream, ERROR_reset, "idle");
            }
        }
    }
}

static uint64_t proxy_memory(const struct proxy *proxy)
{
    return chunk_pools_bytes(&proxy->chunks) +
           proxy->requests.live_count * proxy->requests.object_size +
           proxy->clients.live_count * proxy->clients.object_size;
}

/* Once a second: memory of a burst goes back. */
static void proxy_house_kept(struct io_timer *timer)
{
    struct proxy *proxy = timer->arg;
    uint64_t memory = proxy_memory(proxy);

    observe_house_kept(proxy, memory);
    proxy_close_idle_clients(proxy);
    proxy_close_idle_upstreams(proxy);
    if (proxy->memory_peak > memory + MEMORY_TRIM_STEP || proxy->wants_trim) {
        chunk_pools_trim(&proxy->chunks);
        mem_pool_trim(&proxy->requests, 256);
        mem_pool_trim(&proxy->clients, 64);
        resp_args_trim(&proxy->args);
        mc_keys_trim(&proxy->mc_keys);
        mem_trim();
        proxy->memory_peak = memory;
        proxy->wants_trim = false;
    } else {
        proxy->memory_peak = MAX(memory, proxy->memory_peak);
    }
    io_timer_start(proxy->io, timer, HOUSEKEEPING_MS);
}

/* ---- pools ---------------------------------------------------------------------------------------- */

static void pool_set_command(uint8_t *denied, uint8_t *mc_denied, const char *name, uint8_t value)
{
    bool is_all = strcmp(name, "*") == 0 || strcmp(name, "all") == 0;

    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const struct command *command = command_by_id(id);
        const struct command *parent = command->parent != COMMAND_none ? command_by_id(command->parent) : NULL;

        if (is_all || strcmp(command->name, name) == 0 || (parent && strcmp(parent->name, name) == 0))
            denied[id] = value;
    }
    for (int verb = 1; verb < MC_VERB_COUNT; verb++)
        if (is_all || strcmp(mc_verb_info((enum mc_verb)verb)->name, name) == 0)
            mc_denied[verb] = value;
}

static void pool_init_commands(struct pool *pool)
{
    const struct conf_pool *conf = pool->conf;

    pool->denied = must_zalloc(COMMAND_COUNT);
    pool->mc_denied = must_zalloc(MC_VERB_COUNT);
    for (uint16_t id = 1; id < COMMAND_COUNT; id++)
        pool->denied[id] = (command_by_id(id)->flags & CMD_DENIED) != 0;
    for (int verb = 1; verb < MC_VERB_COUNT; verb++)
        pool->mc_denied[verb] = mc_verb_info((enum mc_verb)verb)->is_denied;
    for (uint32_t i = 0; i < conf->commands_allow.count; i++)
        pool_set_command(pool->denied, pool->mc_denied, conf->commands_allow.items[i], 0);
    for (uint32_t i = 0; i < conf->commands_deny.count; i++)
        pool_set_command(pool->denied, pool->mc_denied, conf->commands_deny.items[i], 1);
}

static void pool_preconnect(struct pool *pool)
{
    uint8_t dialect = pool->speaks_redis ? DIALECT_RESP2 : DIALECT_MC_TEXT;
    enum error_id error;

    for (uint32_t i = 0; i < pool->server_count; i++)
        if (upstream_get(&pool->servers[i], NULL, dialect, (uint8_t)pool->conf->redis_db, &error) == NULL)
            log_warn(proxy_log(pool->proxy), "no connection at start pool=%s server=%s",
                     pool->conf->name, pool->servers[i].name);
}

static int pool_init(struct pool *pool, struct proxy *proxy, uint32_t index, struct health_slot **health)
{
    const struct conf_pool *conf = &proxy->conf->pools[index];

    pool->proxy = proxy;
    pool->conf = conf;
    pool->index = index;
    observe_pool_init(pool);
    pool->auth = conf->redis_auth == NULL ? BYTES_EMPTY : bytes_of_string(conf->redis_auth);
    pool->speaks_redis = conf->protocol != CONF_PROTOCOL_memcache;
    pool->speaks_memcache = conf->protocol != CONF_PROTOCOL_redis;
    pool->is_random = conf->distribution == RING_random;
    pool->resp3_support = -1;
    pool->retry_budget = 10;
    list_init(&pool->clients);
    pool->shared_clients = health_clients(
        proxy->health, proxy->owns_health ? 0 : proxy->worker_index % proxy->health->worker_count, index);
    __atomic_store_n(pool->shared_clients, 0, __ATOMIC_RELAXED);
    pool_init_commands(pool);
    pool->server_cap = discovery_server_cap(conf);
    pool->servers = must_zalloc(sizeof(*pool->servers) * MAX(pool->server_cap, 1u));
    pool->ring_map = must_zalloc(sizeof(*pool->ring_map) * MAX(conf->servers_count, 1u));
    for (uint32_t i = 0; i < conf->servers_count; i++) {
        int err = server_init(&pool->servers[i], pool, &conf->servers[i], NULL, i, *health);

        pool->server_count = i + 1;
        if (err != 0)
            return err;
        *health += 1;
    }
    if (conf->members == CONF_MEMBERS_redis_cluster || conf->members == CONF_MEMBERS_sentinel)
        return discovery_create(pool);
    pool_refresh_ring(pool);
    return pool->ring == NULL ? ERR_INVALID : 0;
}

static void pool_deinit(struct pool *pool)
{
    struct list_node *node;

    if (pool->proxy == NULL)
        return;
    while ((node = list_first(&pool->clients)) != NULL)
        client_close(CONTAINER_OF(node, struct client, node));
    discovery_destroy(pool);
    for (uint32_t i = 0; i < pool->server_count; i++)
        server_deinit(&pool->servers[i]);
    discovery_free(pool);
    ring_destroy(&pool->ring);
    mem_free(pool->ring_map);
    mem_free(pool->servers);
    mem_free(pool->denied);
    mem_free(pool->mc_denied);
    mem_free(pool->commands);
}

/* ---- the whole ------------------------------------------------------------------------------------ */

uint32_t proxy_health_slots(const struct conf *conf)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < conf->pools_count; i++)
        count += conf->pools[i].servers_count;
    return count;
}

static void proxy_init_limits(struct proxy *proxy)
{
    const struct conf_limits *limits = &proxy->conf->process.limits;

    proxy->limits = PROTO_LIMITS_DEFAULT;
    proxy->limits.args_max = limits->args_max;
    /* A multi-get's line may be long; an inline request's never was (Redis: 64 KiB). */
    proxy->limits.line_max = MIN(limits->line_max, 65536u);
    proxy->limits.bulk_max = limits->value_size_max;
    proxy->limits.value_max = (uint32_t)MIN(limits->value_size_max, (uint64_t)INT32_MAX);
    proxy->mc_limits = proxy->limits;
    proxy->mc_limits.line_max = limits->line_max;
}

void proxy_set(struct proxy *proxy, struct bytes text)
{
    struct conf_error error;

    if (conf_live_set(proxy->conf, text, NULL, &error) != 0) {
        log_warn(proxy_log(proxy), "not set: %s", error.text);
        return;
    }
    proxy_init_limits(proxy);
    observe_configure(proxy);
}

int proxy_create(const struct proxy_options *options, struct proxy **out)
{
    struct proxy *proxy = must_zalloc(sizeof(*proxy));
    struct health_slot *health;
    int err = 0;

    proxy->io = options->io;
    proxy->conf = options->conf;
    proxy->worker_index = options->worker_index;
    proxy->worker_pid = options->worker_pid;
    proxy->next_client_id = options->client_id_base;
    proxy->drained = options->drained;
    proxy->pass = options->pass;
    proxy->owner_arg = options->arg;
    proxy->note = options->note != NULL ? options->note : &proxy->note_unread;
    proxy->health = options->health;
    proxy->start_wall_us = io_wall_us(proxy->io);
    if (proxy->health == NULL) {
        proxy->health = must_zalloc(
            health_area_size(proxy_health_slots(proxy->conf), proxy->conf->pools_count, 1));
        proxy->health->slot_count = proxy_health_slots(proxy->conf);
        proxy->health->pool_count = proxy->conf->pools_count;
        proxy->health->worker_count = 1;
        proxy->owns_health = true;
    }
    observe_init(proxy, options->stats, options->stats_are_old);
    proxy_init_limits(proxy);
    chunk_pools_init(&proxy->chunks);
    mem_pool_init(&proxy->requests, sizeof(struct request), 16384);
    mem_pool_init(&proxy->clients, sizeof(struct client), 1024);
    mem_pool_init(&proxy->upstreams, sizeof(struct upstream), 64);
    resp_args_init(&proxy->args);
    mc_keys_init(&proxy->mc_keys);
    list_init(&proxy->busy);
    proxy->flush_hook.run = proxy_flush;
    io_hook_add(proxy->io, &proxy->flush_hook);
    proxy->tick.fire = proxy_ticked;
    proxy->tick.arg = proxy;
    proxy->housekeeping.fire = proxy_house_kept;
    proxy->housekeeping.arg = proxy;
    io_timer_start(proxy->io, &proxy->housekeeping, HOUSEKEEPING_MS);
    proxy->pool_count = proxy->conf->pools_count;
    proxy->pools = must_zalloc(sizeof(*proxy->pools) * MAX(proxy->pool_count, 1u));
    health = proxy->health->slots;
    for (uint32_t i = 0; err == 0 && i < proxy->pool_count; i++)
        err = pool_init(&proxy->pools[i], proxy, i, &health);
    for (uint32_t i = 0; err == 0 && i < proxy->pool_count; i++)
        if (proxy->conf->pools[i].preconnect && proxy->pools[i].discovery == NULL)
            pool_preconnect(&proxy->pools[i]);
    if (err != 0)
        proxy_destroy(&proxy);
    *out = proxy;
    return err;
}

void proxy_destroy(struct proxy **slot)
{
    struct proxy *proxy = *slot;

    *slot = NULL;
    if (proxy == NULL)
        return;
    proxy->drained = NULL;
    for (uint32_t i = 0; i < proxy->pool_count; i++)
        pool_deinit(&proxy->pools[i]);
    proxy->dirty_clients = NULL;
    proxy->dirty_upstreams = NULL;
    proxy_free_dead(proxy);
    mem_free(proxy->pools);
    io_timer_stop(&proxy->tick);
    io_timer_stop(&proxy->housekeeping);
    io_timer_stop(&proxy->drain_timer);
    io_hook_remove(proxy->io, &proxy->flush_hook);
    resp_args_deinit(&proxy->args);
    mc_keys_deinit(&proxy->mc_keys);
    buffer_deinit(&proxy->scratch);
    buffer_deinit(&proxy->scratch2);
    mem_pool_deinit(&proxy->requests);
    mem_pool_deinit(&proxy->clients);
    mem_pool_deinit(&proxy->upstreams);
    chunk_pools_deinit(&proxy->chunks);
    if (proxy->owns_health)
        mem_free(proxy->health);
    observe_deinit(proxy);
    mem_free(proxy);
}

void proxy_accept(struct proxy *proxy, uint32_t pool_index, int fd, const struct io_addr *peer)
{
    struct client *client;

    ASSERT(pool_index < proxy->pool_count);
    client = client_create(&proxy->pools[pool_index], fd, peer, BYTES_EMPTY);
    if (client != NULL)
        client_check_limits(client);
}

/* ---- draining --------------------------------------------------------------------------------------- */

void proxy_client_gone(struct proxy *proxy)
{
    if (proxy->is_draining && proxy->client_count == 0 && proxy->drained != NULL)
        proxy->drained(proxy->owner_arg);
}

/* For descriptors that no client comes of. */
void proxy_refuse(struct proxy *proxy, int fd)
{
    static const struct io_stream_handler nobody = {0};
    struct io_stream stream = {0};

    if (io_stream_open(proxy->io, &stream, &nobody, fd, &(struct io_stream_options){0}, BYTES_EMPTY) == 0)
        io_stream_close(&stream);
}

uint32_t proxy_client_count(const struct proxy *proxy)
{
    return proxy->client_count;
}
