/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/discovery.h"
#include "proxy/session.h"

/* ---- by kind --------------------------------------------------------------------------------- */

static bool pool_is_cluster(const struct pool *pool)
{
    return pool->conf->members == CONF_MEMBERS_redis_cluster;
}

uint32_t discovery_server_cap(const struct conf_pool *conf)
{
    switch (conf->members) {
    case CONF_MEMBERS_redis_cluster:
        return conf->servers_count + DISCOVERY_CLUSTER_MAX;
    case CONF_MEMBERS_sentinel:
        return conf->servers_count + conf->masters_count;
    case CONF_MEMBERS_static:
    case CONF_MEMBERS_weir:
        break;
    }
    return conf->servers_count;
}

int discovery_create(struct pool *pool)
{
    return pool_is_cluster(pool) ? cluster_create(pool, &pool->discovery)
                                 : sentinel_create(pool, &pool->discovery);
}

void discovery_destroy(struct pool *pool)
{
    struct discovery *discovery = pool->discovery;

    if (discovery == NULL)
        return;
    if (pool_is_cluster(pool))
        cluster_destroy(discovery);
    else
        sentinel_destroy(discovery);
}

/* The servers are gone, and with them what pointed into `health`. */
void discovery_free(struct pool *pool)
{
    if (pool->discovery == NULL)
        return;
    mem_free(pool->discovery->health);
    mem_free(pool->discovery);
    pool->discovery = NULL;
}

struct server *discovery_route(struct pool *pool, struct bytes key)
{
    return pool_is_cluster(pool) ? cluster_route(pool->discovery, key)
                                 : sentinel_route(pool->discovery, key);
}

enum error_id discovery_route_error(const struct pool *pool)
{
    if (pool->discovery == NULL)
        return ERROR_refused;
    return pool_is_cluster(pool) ? ERROR_clusterdown : ERROR_no_primary;
}

static bool reply_is_redirect(struct bytes reply)
{
    static const char *const words[] = {"-MOVED ", "-ASK ", "-TRYAGAIN", "-CLUSTERDOWN"};

    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        if (reply.len > strlen(words[i]) && memcmp(reply.data, words[i], strlen(words[i])) == 0)
            return true;
    return false;
}

bool discovery_redirect(struct upstream *upstream, struct request *head, struct bytes reply)
{
    struct discovery *discovery = upstream->server->pool->discovery;

    if (!pool_is_cluster(discovery->pool))
        return sentinel_redirect(discovery, upstream, reply);
    if (cluster_redirect(discovery, upstream, head, reply))
        return true;
    /* The slots of a transaction moved before its end: nothing of it has run. */
    if (head->kind == REQUEST_CLIENT && !head->is_tombstone && head->command == COMMAND_exec &&
        upstream->is_private && reply_is_redirect(reply)) {
        upstream_take_head(upstream);
        request_fail(head, ERROR_execabort);
        return true;
    }
    return false;
}

struct server *discovery_moved(struct pool *pool, struct bytes reply)
{
    return pool_is_cluster(pool) ? cluster_note_moved(pool->discovery, reply) : NULL;
}

void discovery_server_failed(struct server *server)
{
    struct discovery *discovery = server->pool->discovery;

    if (pool_is_cluster(server->pool))
        cluster_server_failed(discovery, server);
    else
        sentinel_server_failed(discovery, server);
}

void discovery_pushed(struct upstream *upstream, struct bytes message)
{
    if (upstream->server->is_sentinel)
        sentinel_pushed(upstream->server->pool->discovery, message);
}

void discovery_upstream_gone(struct upstream *upstream)
{
    if (upstream->server->is_sentinel && upstream->server->pool->discovery != NULL)
        sentinel_upstream_gone(upstream->server->pool->discovery, upstream);
}

/* ---- clients that wait for the members ----------------------------------------------------------- */

static void discovery_wake(struct discovery *discovery)
{
    io_timer_stop(&discovery->wait_timer);
    LIST_FOR_EACH (&discovery->pool->clients, node) {
        client_unpause(CONTAINER_OF(node, struct client, node), PAUSE_DISCOVERY);
    }
}

void discovery_known(struct discovery *discovery)
{
    discovery->is_known = true;
    discovery_wake(discovery);
}

static void discovery_waited(struct io_timer *timer)
{
    struct discovery *discovery = timer->arg;

    discovery->is_hopeless = true;
    log_error(proxy_log(discovery->pool->proxy), "the pool's servers are not known: nobody tells them pool=%s",
              discovery->pool->conf->name);
    discovery_wake(discovery);
}

/* HELLO asks a server whether it speaks RESP3, unless one has told. */
static bool needs_no_server(const struct client *client, const struct command *command)
{
    return command->route == ROUTE_LOCAL && (command->id != COMMAND_hello || client->pool->resp3_support >= 0);
}

bool discovery_must_wait(struct client *client, const struct command *command)
{
    struct pool *pool = client->pool;
    struct discovery *discovery = pool->discovery;
    const struct conf_pool *conf = pool->conf;

    if (LIKELY(discovery->is_known) || discovery->is_hopeless || needs_no_server(client, command))
        return false;
    if (!io_timer_is_running(&discovery->wait_timer))
        io_timer_start(pool->proxy->io, &discovery->wait_timer,
                       (uint64_t)(conf->queue_timeout_ms >= 0 ? conf->queue_timeout_ms
                                                              : MAX(conf->connect_timeout_ms, (int64_t)0)));
    client_pause(client, PAUSE_DISCOVERY);
    return true;
}

/* ---- following ------------------------------------------------------------------------------------ */

/* Its client, which may be that of the request it is a part of; NULL: nobody waits for it any more. */
static struct client *request_owner(const struct request *request)
{
    if (request->is_tombstone)
        return NULL;
    switch ((enum request_kind)request->kind) {
    case REQUEST_CLIENT:
        return request->client;
    case REQUEST_PART:
        return request->fanout == NULL ? NULL : request->fanout->parent->client;
    case REQUEST_INTERNAL:
        return NULL;
    }
    return NULL;
}

static bool request_may_move(const struct request *request)
{
    return request_owner(request) != NULL && !request->is_started && request->wire_len > 0;
}

static void asking_done(struct request *request, enum error_id error, struct bytes reply)
{
    MAYBE(request);
    MAYBE(error);
    MAYBE(reply.len);
}

/* What holds for exactly the next request on the connection. */
static bool submit_asking(struct upstream *upstream)
{
    struct request *asking = request_create(upstream->server->pool->proxy, NULL, REQUEST_INTERNAL);

    if (asking == NULL)
        return false;
    asking->dialect = upstream->dialect;
    asking->internal_done = asking_done;
    upstream_submit(upstream, asking, BYTES("*1\r\n$6\r\nASKING\r\n"));
    return upstream->state != UPSTREAM_CLOSED;
}

/* To the end of the server's queue. It is on no upstream. false: *error says why. */
static bool request_send(struct discovery *discovery, struct request *request, struct server *server,
                         bool is_asking, enum error_id *error)
{
    struct pool *pool = discovery->pool;
    struct upstream *upstream;

    *error = ERROR_no_server;
    upstream = server == NULL ? NULL
                              : upstream_get(server, request_owner(request), request->dialect,
                                             (uint8_t)pool->conf->redis_db, error);
    if (upstream == NULL)
        return false;
    if (is_asking && !submit_asking(upstream)) {
        *error = ERROR_out_of_memory;
        return false;
    }
    {
        struct bytes wire = request_wire(request);

        upstream_begin(upstream, request);
        request->sent_us = io_now_us(pool->proxy->io); /* its reply timeout begins again */
        upstream_write(upstream, wire.data, wire.len);
        upstream_end(upstream, request);
    }
    return true;
}

/* A blocked command moves by itself: nothing else of its client is in flight. */
static bool follow_privately(struct upstream *upstream, struct request *head, struct server *server,
                             bool is_asking)
{
    struct session *session = upstream->session;

    return session != NULL && session->is_blocked && !session->is_in_multi && !session->is_watching &&
           upstream->inflight_count == 1 && session_move(session, head, server, is_asking);
}

bool discovery_follow(struct discovery *discovery, struct upstream *upstream, struct request *head,
                      struct server *server, bool is_asking)
{
    enum error_id error;

    if (!request_may_move(head) || head->hop_count >= DISCOVERY_HOPS_MAX)
        return false;
    head->hop_count++;
    POOL_ADD(discovery->pool, redirects, 1);
    if (upstream->is_private)
        return follow_privately(upstream, head, server, is_asking);
    /* P5 bends here: it goes last on the other connection, where later requests of its client may be
     * already, if the map has changed since they were read. Redis Cluster's own clients do the same; who
     * waits for its replies never sees it. */
    upstream_take_head(upstream);
    head->upstream = NULL;
    if (request_send(discovery, head, server, is_asking, &error))
        return true;
    head->upstream = upstream; /* for the count of failures */
    request_fail(head, error);
    return true;
}

/* ---- parked ------------------------------------------------------------------------------------------ */

struct parked {
    struct request *request; /* borrows; NULL: gone. First: see is_awaited */
    struct list_node node;   /* in discovery->parked, by due_ms */
    uint64_t due_ms;
};

static void parked_start(struct discovery *discovery)
{
    if (!io_timer_is_running(&discovery->park_timer) && !list_is_empty(&discovery->parked))
        io_timer_start(discovery->pool->proxy->io, &discovery->park_timer, DISCOVERY_TRY_MS / 2);
}

bool discovery_park(struct discovery *discovery, struct upstream *upstream, struct request *head)
{
    struct client *client = request_owner(head);
    struct parked *parked;

    /* With more in flight than this one, waiting would turn the client's order round. */
    if (!request_may_move(head) || upstream->is_private || client->request_count != 1 ||
        head->try_count >= DISCOVERY_TRIES_MAX || discovery->parked_count >= DISCOVERY_PARKED_MAX)
        return false;
    parked = mem_zalloc(sizeof(*parked));
    if (parked == NULL)
        return false;
    upstream_take_head(upstream);
    head->upstream = NULL;
    head->try_count++;
    head->is_awaited = true;
    head->internal_arg = parked;
    parked->request = head;
    parked->due_ms = io_now_ms(discovery->pool->proxy->io) + DISCOVERY_TRY_MS;
    list_push_back(&discovery->parked, &parked->node);
    discovery->parked_count++;
    client_pause(client, PAUSE_BARRIER);
    parked_start(discovery);
    return true;
}

/* Takes the request out; NULL: nobody waits for it. */
static struct request *parked_take(struct discovery *discovery, struct parked *parked)
{
    struct request *request = parked->request;

    list_remove(&parked->node);
    discovery->parked_count--;
    mem_free(parked);
    if (request == NULL)
        return NULL;
    request->is_awaited = false;
    request->internal_arg = NULL;
    if (request->kind == REQUEST_PART && request->fanout == NULL) {
        request_free(discovery->pool->proxy, request);
        return NULL;
    }
    return request;
}

static void parked_retry(struct discovery *discovery, struct request *request)
{
    struct pool *pool = discovery->pool;
    struct bytes wire = request_wire(request);
    struct server *server =
        discovery_route(pool, bytes_of(wire.data + request->key_off, request->key_len));
    enum error_id error;

    request->hop_count = 0;
    if (request_send(discovery, request, server, false, &error))
        return;
    if (request->kind == REQUEST_PART) {
        fanout_part_done(request, error);
        request_free(pool->proxy, request);
    } else {
        request_fail(request, error);
    }
}

static void parked_due(struct io_timer *timer)
{
    struct discovery *discovery = timer->arg;
    uint64_t now_ms = io_now_ms(discovery->pool->proxy->io);
    struct list_node *node;

    while ((node = list_first(&discovery->parked)) != NULL) {
        struct parked *parked = CONTAINER_OF(node, struct parked, node);
        struct request *request;

        if (parked->due_ms > now_ms)
            break;
        request = parked_take(discovery, parked);
        if (request != NULL)
            parked_retry(discovery, request);
    }
    parked_start(discovery);
}

/* ---- the common part ------------------------------------------------------------------------------------- */

int discovery_init(struct discovery *discovery, struct pool *pool)
{
    discovery->pool = pool;
    discovery->health = must_zalloc(sizeof(*discovery->health) * pool->server_cap);
    list_init(&discovery->parked);
    discovery->park_timer.fire = parked_due;
    discovery->park_timer.arg = discovery;
    discovery->wait_timer.fire = discovery_waited;
    discovery->wait_timer.arg = discovery;
    for (uint32_t i = 0; i < pool->server_count; i++)
        pool->servers[i].is_gone = true;
    return 0;
}

/* The clients are closed already: what is parked belongs to nobody. */
void discovery_deinit(struct discovery *discovery)
{
    struct list_node *node;

    io_timer_stop(&discovery->park_timer);
    io_timer_stop(&discovery->wait_timer);
    while ((node = list_first(&discovery->parked)) != NULL) {
        struct request *request = parked_take(discovery, CONTAINER_OF(node, struct parked, node));

        ASSERT(request == NULL);
    }
}

void discovery_server_init(struct discovery *discovery, uint32_t index, const char *name,
                           const char *host, uint16_t port)
{
    struct pool *pool = discovery->pool;
    struct server *server = &pool->servers[index];

    ASSERT(index <= pool->server_count && index < pool->server_cap);
    discovery->health[index] = (struct health_slot){0};
    MAYBE(server_init(server, pool, NULL, name, index, &discovery->health[index]) != 0);
    server->is_gone = true;
    if (index == pool->server_count)
        pool->server_count++;
    if (host != NULL) {
        struct conf_address address = {.host = host, .port = port};

        MAYBE(server_set_address(server, &address) != 0);
    }
}
