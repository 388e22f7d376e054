/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a key to the server that holds it now.
 *
 * The ring says whose the key is. What a dead server's keys meet is the pool's `eject`: rehash - the
 * ring was built over the live ones; keep - the server stays, its keys get errors; spare - the ring
 * stays, a spare takes the dead one's place.
 */
#include "proxy/proxy_private.h"
#include "proxy/observe.h"

void pool_refresh_ring(struct pool *pool)
{
    const struct conf_pool *conf = pool->conf;
    struct ring *ring;
    bool *is_live = must_zalloc(sizeof(*is_live) * MAX(pool->server_count, 1u));
    uint32_t spare = 0;

    pool->health_version = __atomic_load_n(&pool->proxy->health->version, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < pool->server_count; i++)
        pool->servers[i].stands_in = false;
    for (uint32_t i = 0; i < pool->server_count; i++) {
        bool is_down = server_is_ejected(&pool->servers[i]);

        is_live[i] = !(conf->eject == CONF_EJECT_rehash && is_down) && !conf->servers[i].is_spare;
        pool->ring_map[i] = i;
        if (conf->eject == CONF_EJECT_spare && is_down && !conf->servers[i].is_spare) {
            while (spare < pool->server_count && (!conf->servers[spare].is_spare ||
                                                  server_is_ejected(&pool->servers[spare])))
                spare++;
            if (spare < pool->server_count) {
                pool->servers[spare].stands_in = true;
                pool->ring_map[i] = spare++;
            }
        }
    }
    if (conf_pool_ring(conf, is_live, &ring) == 0) {
        ring_destroy(&pool->ring);
        pool->ring = ring;
    }
    mem_free(is_live);
}

struct server *route_key(struct pool *pool, struct bytes key)
{
    uint32_t index;

    observe_key(pool, key);
    if (UNLIKELY(pool->discovery != NULL))
        return discovery_route(pool, key);
    if (UNLIKELY(pool->health_version !=
                 __atomic_load_n(&pool->proxy->health->version, __ATOMIC_RELAXED)))
        pool_refresh_ring(pool);
    index = ring_lookup(pool->ring, key,
                        UNLIKELY(pool->is_random) ? (uint32_t)io_random64(pool->proxy->io) : 0);
    return UNLIKELY(index == RING_NONE) ? NULL : &pool->servers[pool->ring_map[index]];
}

bool route_each(struct pool *pool, const struct bytes *keys, uint32_t step, uint32_t count,
                uint32_t *servers)
{
    observe_keys(pool, keys, step, count);
    if (UNLIKELY(pool->health_version !=
                 __atomic_load_n(&pool->proxy->health->version, __ATOMIC_RELAXED)))
        pool_refresh_ring(pool);
    ring_lookup_each(pool->ring, keys, step, count, servers);
    for (uint32_t i = 0; i < count; i++) {
        if (UNLIKELY(servers[i] == RING_NONE))
            return false;
        servers[i] = pool->ring_map[servers[i]];
    }
    return true;
}

/* One that has failed and not yet succeeded since, as any worker saw it, is only for where there is no other. */
struct server *route_any(struct pool *pool)
{
    struct server *failing = NULL;

    for (uint32_t i = 0; i < pool->server_count; i++) {
        struct server *server = &pool->servers[pool->rotor++ % pool->server_count];

        if (server_is_ejected(server) || server->is_gone || (server->conf != NULL && server->conf->is_spare))
            continue;
        if (LIKELY(__atomic_load_n(&server->health->failure_count, __ATOMIC_RELAXED) == 0))
            return server;
        failing = failing != NULL ? failing : server;
    }
    return failing;
}

struct server *route_keys(struct pool *pool, const struct resp_request *request,
                          const struct command_keys *keys, enum error_id *error)
{
    bool is_cluster = pool->conf->members == CONF_MEMBERS_redis_cluster;
    struct server *server = NULL;
    uint32_t slot = 0;

    for (uint32_t r = 0; r < keys->range_count; r++) {
        for (uint32_t i = 0; i < keys->ranges[r].count; i++) {
            struct bytes key = request->argv[keys->ranges[r].first + i * keys->ranges[r].step];
            struct server *owner = route_key(pool, key);
            uint32_t key_slot = is_cluster ? hash_slot(key) : 0;
            bool is_elsewhere = is_cluster ? key_slot != slot : owner != server;

            if (owner == NULL) {
                *error = discovery_route_error(pool);
                return NULL;
            }
            /* In a cluster the same node is not enough: it refuses keys of several slots. */
            if (server != NULL && is_elsewhere) {
                *error = ERROR_crossslot;
                POOL_ADD(pool, crossslot, 1);
                return NULL;
            }
            server = owner;
            slot = key_slot;
        }
    }
    if (server == NULL)
        *error = ERROR_no_server;
    return server;
}
