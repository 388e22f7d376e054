/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of a pool: its addresses, its health, its connections.
 *
 * Health is shared by all workers (health.h). Passive: `server_failure_limit` failures in a row eject,
 * where the pool ejects at all. After `server_retry_timeout`, with jitter, one worker at a time makes a
 * connection of its own and asks PING or version; an answer other than LOADING or MASTERDOWN
 * re-admits the server (half-open). Until then nothing else goes there.
 */
#include "proxy/proxy_private.h"
#include "proxy/observe.h"

#define CONNECT_BACKOFF_MIN_MS 50u
#define CONNECT_BACKOFF_MAX_MS 1000u
#define PROBE_OWNER_AGE_MAX_MS 10000

int server_init(struct server *server, struct pool *pool, const struct conf_server *conf,
                const char *name, uint32_t index, struct health_slot *health)
{
    memset(server, 0, sizeof(*server));
    server->pool = pool;
    server->conf = conf;
    server->index = index;
    server->health = health;
    list_init(&server->upstreams);
    server->shared =
        must_zalloc(sizeof(*server->shared) * DIALECT_COUNT * pool->conf->server_connections);
    server->name = must_strdup(conf == NULL ? name : conf->name);
    observe_server_init(server);
    if (conf == NULL)
        return 0;
    return server_set_address(server, &conf->address);
}

int server_set_address(struct server *server, const struct conf_address *address)
{
    if (address->path != NULL) {
        int err = io_addr_unix(address->path, &server->addrs[0]);

        if (err != 0)
            return err;
        server->addr_count = 1;
        return 0;
    }
    server->port = address->port;
    if (io_addr_parse(address->host, address->port, &server->addrs[0]) == 0) {
        server->addr_count = 1;
        return 0;
    }
    server->host = must_strdup(address->host);
    server->needs_resolve = true;
    return 0;
}

void server_deinit(struct server *server)
{
    struct list_node *node;

    io_timer_stop(&server->probe_timer);
    while ((node = list_first(&server->upstreams)) != NULL)
        upstream_retire(CONTAINER_OF(node, struct upstream, server_node), ERROR_drain, "shut down");
    if (server->resolve != NULL) {
        if (server->is_resolving)
            io_resolve_cancel(server->resolve);
        mem_free(server->resolve);
    }
    mem_free(server->resolve_addrs);
    mem_free(server->shared);
    mem_free(server->name);
    mem_free(server->host);
}

/* ---- names ------------------------------------------------------------------------------------ */

static struct upstream *server_find_resolving(struct server *server)
{
    LIST_FOR_EACH (&server->upstreams, node) {
        struct upstream *upstream = CONTAINER_OF(node, struct upstream, server_node);

        if (upstream->state == UPSTREAM_RESOLVING)
            return upstream;
    }
    return NULL;
}

static void server_resolved(struct io_op *op)
{
    struct server *server = op->arg;
    struct upstream *upstream;
    struct pool *pool = server->pool;
    bool is_failed = op->result <= 0;

    server->is_resolving = false;
    if (is_failed) {
        log_warn(proxy_log(pool->proxy), "name not resolved, the last addresses are kept pool=%s host=%s why=\"%s\"",
                 pool->conf->name, server->host, err_text((int)op->result));
    } else {
        server->addr_count = (uint32_t)op->result;
        memcpy(server->addrs, server->resolve_addrs, sizeof(server->addrs[0]) * server->addr_count);
        server->addr_next = 0;
        server->needs_resolve = false;
    }
    if (server->addr_count == 0)
        server_failed(server, ERROR_host_down);
    /* From the start after each: a failure may close clients, and with them other connections. */
    while ((upstream = server_find_resolving(server)) != NULL)
        upstream_resolved(upstream, server->addr_count == 0 ? ERROR_host_down : ERROR_NONE);
}

void server_resolve(struct server *server)
{
    struct io_resolve *resolve = server->resolve;

    if (server->is_resolving || server->host == NULL)
        return;
    if (resolve == NULL) {
        resolve = server->resolve = must_zalloc(sizeof(*resolve));
        server->resolve_addrs = must_zalloc(sizeof(server->addrs));
    }
    resolve->op.done = server_resolved;
    resolve->op.arg = server;
    resolve->addrs = server->resolve_addrs;
    resolve->addr_max = SERVER_ADDRS_MAX;
    resolve->port = server->port;
    snprintf(resolve->host, sizeof(resolve->host), "%s", server->host);
    server->is_resolving = true;
    io_resolve_submit(server->pool->proxy->io, resolve);
}

/* ---- health ------------------------------------------------------------------------------------ */

bool server_is_ejected(const struct server *server)
{
    return __atomic_load_n(&server->health->is_ejected, __ATOMIC_RELAXED) != 0;
}

static void health_changed(struct server *server)
{
    __atomic_add_fetch(&server->pool->proxy->health->version, 1, __ATOMIC_RELEASE);
}

/* Many proxies eject together; they must not come back together. */
static uint64_t jittered(const struct server *server, int64_t delay_ms)
{
    uint64_t base = (uint64_t)MAX(delay_ms, (int64_t)1);

    return base + io_random64(server->pool->proxy->io) % (base / 8 + 1);
}

/* How long a server is left alone: server_retry_timeout, then as long as it does not answer
 * probe_interval. */
static uint64_t retry_delay_ms(const struct server *server)
{
    return jittered(server, server->pool->conf->server_retry_timeout_ms);
}

static uint64_t probe_delay_ms(const struct server *server)
{
    const struct conf_pool *conf = server->pool->conf;

    return jittered(server, conf->probe_interval_ms > 0 ? conf->probe_interval_ms
                                                        : conf->server_retry_timeout_ms);
}

static void server_eject(struct server *server)
{
    struct proxy *proxy = server->pool->proxy;
    struct health_slot *health = server->health;
    uint32_t expected = 0;

    __atomic_store_n(&health->retry_at_ms, io_now_ms(proxy->io) + retry_delay_ms(server),
                     __ATOMIC_RELAXED);
    if (!__atomic_compare_exchange_n(&health->is_ejected, &expected, 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return;
    __atomic_store_n(&health->ejected_wall_us, io_wall_us(proxy->io), __ATOMIC_RELAXED);
    POOL_ADD(server->pool, server_ejects, 1);
    SERVER_SET(server, server_ejected_at, io_wall_us(proxy->io));
    log_warn(proxy_log(proxy), "server ejected pool=%s server=%s failures=%u",
             server->pool->conf->name, server->name, health->failure_count);
    health_changed(server);
}

void server_failed(struct server *server, enum error_id error)
{
    struct pool *pool = server->pool;
    uint64_t now_ms = io_now_ms(pool->proxy->io);
    uint32_t count;

    server->last_error = error == ERROR_NONE ? ERROR_reset : error;
    if (error != ERROR_reset) {
        server->connect_backoff_ms = MIN(MAX(server->connect_backoff_ms * 2, CONNECT_BACKOFF_MIN_MS),
                                         CONNECT_BACKOFF_MAX_MS);
        if (error == ERROR_refused || error == ERROR_host_down || error == ERROR_unreachable) {
            server->connect_after_ms = now_ms + server->connect_backoff_ms / 2 +
                                       io_random64(pool->proxy->io) % server->connect_backoff_ms;
            server->needs_resolve = server->host != NULL;
        }
    }
    count = __atomic_add_fetch(&server->health->failure_count, 1, __ATOMIC_RELAXED);
    if (UNLIKELY(pool->discovery != NULL))
        discovery_server_failed(server); /* they say who is dead, not we */
    else if (pool->conf->eject != CONF_EJECT_keep && count >= pool->conf->server_failure_limit)
        server_eject(server);
    proxy_tick_start(pool->proxy);
}

void server_succeeded(struct server *server)
{
    server->connect_backoff_ms = 0;
    server->connect_after_ms = 0;
    if (server->is_probing)
        return;
    if (__atomic_load_n(&server->health->failure_count, __ATOMIC_RELAXED) != 0)
        __atomic_store_n(&server->health->failure_count, 0, __ATOMIC_RELAXED);
}

static void server_readmit(struct server *server)
{
    struct proxy *proxy = server->pool->proxy;

    __atomic_store_n(&server->health->failure_count, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&server->health->is_ejected, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&server->health->probe_owner, 0, __ATOMIC_RELAXED);
    log_notice(proxy_log(proxy), "server is back pool=%s server=%s", server->pool->conf->name,
               server->name);
    health_changed(server);
}

/* ---- half-open: one probe at a time, over all workers ---------------------------------------------- */

static void probe_done(struct request *request, enum error_id error, struct bytes reply)
{
    struct server *server = request->internal_arg;
    bool is_well = error == ERROR_NONE && reply.len > 0;

    /* Up, but not of use yet. Any other error reply (NOAUTH ...) is a sign of life. */
    if (is_well && reply.data[0] == '-')
        is_well = memmem(reply.data, reply.len, "LOADING", 7) == NULL &&
                  memmem(reply.data, reply.len, "MASTERDOWN", 10) == NULL;
    server->is_probing = false;
    if (is_well) {
        server_readmit(server);
    } else {
        __atomic_store_n(&server->health->retry_at_ms,
                         io_now_ms(server->pool->proxy->io) + probe_delay_ms(server),
                         __ATOMIC_RELAXED);
        __atomic_store_n(&server->health->probe_owner, 0, __ATOMIC_RELAXED);
    }
}

static void server_probe(struct server *server, uint64_t now_ms)
{
    struct pool *pool = server->pool;
    struct proxy *proxy = pool->proxy;
    uint64_t owner = __atomic_load_n(&server->health->probe_owner, __ATOMIC_RELAXED);
    uint8_t dialect = pool->speaks_redis ? DIALECT_RESP2 : DIALECT_MC_TEXT;
    struct request *request;
    struct upstream *upstream;
    enum error_id error;

    if (owner != 0 && now_ms - owner < PROBE_OWNER_AGE_MAX_MS)
        return;
    if (!__atomic_compare_exchange_n(&server->health->probe_owner, &owner, now_ms, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    SERVER_ADD(server, probes, 1);
    server->connect_after_ms = 0;
    server->is_probing = true;
    upstream = upstream_get(server, NULL, dialect, (uint8_t)pool->conf->redis_db, &error);
    request = upstream == NULL ? NULL : request_create(proxy, NULL, REQUEST_INTERNAL);
    if (request == NULL) {
        server->is_probing = false;
        __atomic_store_n(&server->health->retry_at_ms, now_ms + probe_delay_ms(server), __ATOMIC_RELAXED);
        __atomic_store_n(&server->health->probe_owner, 0, __ATOMIC_RELAXED);
        return;
    }
    request->dialect = dialect;
    request->mc_kind = MC_KIND_LOCAL;
    request->internal_done = probe_done;
    request->internal_arg = server;
    upstream_submit(upstream, request,
                    pool->speaks_redis ? BYTES("*1\r\n$4\r\nPING\r\n") : BYTES("version\r\n"));
}

void server_tick(struct server *server, uint64_t now_ms)
{
    if (LIKELY(!server_is_ejected(server)) || server->is_probing)
        return;
    if (now_ms >= __atomic_load_n(&server->health->retry_at_ms, __ATOMIC_RELAXED))
        server_probe(server, now_ms);
}
