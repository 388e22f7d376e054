/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools whose members are a Redis Cluster.
 *
 *     seeds --- CLUSTER SLOTS ---> slots[16384] -> server         GET k: slots[crc16(k) % 16384]
 *                                      ^
 *           -MOVED 3999 host:port -----/ that slot at once; a new look at all of them soon
 *           -ASK   3999 host:port        this request only: ASKING goes before it
 *
 *   K1  The map is a guess that a node corrects: every node refuses slots that are not its own, so an old
 *       map costs a hop, never a wrong answer.
 *   K2  One look at a time; after trouble at most one each REFRESH_GAP_MS. Nodes are asked in turn, the
 *       known primaries first, then replicas and seeds. An answer without slots, or which does not parse,
 *       is no answer.
 *   K3  A node that is in no answer any more takes no keys; its idle connections are closed, and when all
 *       are gone its place in the pool's array is used again.
 */
#include "proxy/cluster.h"

#define CLUSTER_SLOTS      16384u
#define REFRESH_MS         10000u
#define REFRESH_GAP_MS     250u
#define REFRESH_BACKOFF_MS 2000u
#define ANSWER_TIMEOUT_MS  2000u

enum cluster_role {
    ROLE_FREE,    /* its place may be used */
    ROLE_SEED,    /* in the configuration, not (yet) in an answer */
    ROLE_REPLICA,
    ROLE_PRIMARY,
    ROLE_LEAVING, /* in no answer any more, connections left */
};

struct cluster {
    struct discovery base;
    uint16_t slots[CLUSTER_SLOTS]; /* index of the server + 1; 0: nobody's */
    uint16_t fresh[CLUSTER_SLOTS]; /* the answer that is being read */
    uint8_t *roles, *fresh_roles;  /* own; enum cluster_role by server */
    uint32_t *tried;               /* owns; by server: the look that asked it */
    uint32_t look, rotor;
    struct server *asked_server;
    struct request *asked;         /* borrows: in flight; NULL: none */
    struct io_timer timer;         /* the next look; while one runs, its end */
    uint64_t looked_ms;
    uint32_t backoff_ms;
    bool is_looking, wants_look;
    /* cluster_part(): the part of a slot, valid while its stamp is the current one. */
    uint32_t part_stamp, part_stamps[CLUSTER_SLOTS], parts[CLUSTER_SLOTS];
};

static void cluster_ask(struct cluster *cluster);

static struct cluster *cluster_of(struct discovery *discovery)
{
    return CONTAINER_OF(discovery, struct cluster, base);
}

static struct proxy *cluster_proxy(const struct cluster *cluster)
{
    return cluster->base.pool->proxy;
}

/* ---- nodes ------------------------------------------------------------------------------------ */

static void cluster_set_role(struct cluster *cluster, uint32_t index, enum cluster_role role)
{
    cluster->roles[index] = (uint8_t)role;
    cluster->base.pool->servers[index].is_gone = role != ROLE_PRIMARY;
}

static bool server_has_address(const struct server *server, const char *host, const char *name, uint16_t port)
{
    if (server->port != port)
        return false;
    if (server->conf == NULL)
        return strcmp(server->name, name) == 0;
    return server->conf->address.host != NULL && strcmp(server->conf->address.host, host) == 0;
}

/* Index of the node, made if it is unknown; -1: no room. */
static int64_t cluster_node(struct cluster *cluster, const char *host, uint16_t port)
{
    struct pool *pool = cluster->base.pool;
    int64_t free_index = pool->server_count < pool->server_cap ? (int64_t)pool->server_count : -1;
    char name[300];

    snprintf(name, sizeof(name), "%s:%u", host, port);
    for (uint32_t i = 0; i < pool->server_count; i++) {
        if (cluster->roles[i] == ROLE_FREE)
            free_index = i;
        else if (server_has_address(&pool->servers[i], host, name, port))
            return i;
    }
    if (free_index < 0) {
        log_warn(proxy_log(pool->proxy), "too many cluster nodes pool=%s node=%s", pool->conf->name, name);
        return -1;
    }
    if (free_index < (int64_t)pool->server_count)
        server_deinit(&pool->servers[free_index]);
    discovery_server_init(&cluster->base, (uint32_t)free_index, name, host, port);
    cluster->roles[free_index] = ROLE_LEAVING; /* until somebody says more */
    cluster->fresh_roles[free_index] = ROLE_FREE;
    cluster->tried[free_index] = 0;
    return free_index;
}

/* Nodes that left: their idle connections are closed, and those that would wait for messages in vain. */
static void cluster_drain_nodes(struct cluster *cluster)
{
    struct pool *pool = cluster->base.pool;

    for (uint32_t i = 0; i < pool->server_count; i++) {
        struct server *server = &pool->servers[i];

        if (cluster->roles[i] != ROLE_LEAVING)
            continue;
        if (list_is_empty(&server->upstreams)) {
            cluster_set_role(cluster, i, ROLE_FREE);
            continue;
        }
        LIST_FOR_EACH (&server->upstreams, node) {
            struct upstream *upstream = CONTAINER_OF(node, struct upstream, server_node);

            if (upstream->is_pubsub || (upstream->inflight_count == 0 && upstream->session == NULL)) {
                upstream_retire(upstream, ERROR_reset, "the node has left the cluster");
                break; /* the list may have changed in more places than one; the rest next time */
            }
        }
    }
}

/* ---- reading CLUSTER SLOTS ----------------------------------------------------------------------- */

static bool skip_value(struct bytes *cursor)
{
    size_t len = resp_value_len(*cursor);

    *cursor = bytes_skip(*cursor, len);
    return len > 0;
}

/* [host, port, id, metadata]. An unknown host is that of the node that was asked. */
static bool read_node(struct cluster *cluster, struct bytes *cursor, char host[256], uint16_t *port)
{
    struct resp_value head, value;

    if (!resp_next(cursor, &head) || head.type != '*' || head.integer < 2 || !resp_next(cursor, &value))
        return false;
    if (value.type != '$' || value.payload.len >= 256)
        return false;
    if (value.is_null || value.payload.len == 0 || bytes_equal(value.payload, BYTES("?"))) {
        const struct server *asked = cluster->asked_server;
        char text[IO_ADDR_TEXT_MAX];
        char *colon;

        if (asked->host != NULL) {
            snprintf(host, 256, "%s", asked->host);
        } else {
            io_addr_text(&asked->addrs[0], text);
            colon = strrchr(text, ':');
            if (colon == NULL)
                return false; /* a unix socket: nobody can know */
            *colon = '\0';
            if (text[0] == '[' && colon[-1] == ']')
                colon[-1] = '\0';
            snprintf(host, 256, "%s", text[0] == '[' ? text + 1 : text);
        }
    } else {
        memcpy(host, value.payload.data, value.payload.len);
        host[value.payload.len] = '\0';
    }
    if (!resp_next(cursor, &value) || value.type != ':' || value.integer < 0 || value.integer > 65535)
        return false;
    *port = (uint16_t)value.integer;
    for (int64_t i = 2; i < head.integer; i++)
        if (!skip_value(cursor))
            return false;
    return true;
}

/* [first slot, last slot, primary, replica...] */
static bool read_range(struct cluster *cluster, struct bytes *cursor)
{
    struct resp_value head, first, last;

    if (!resp_next(cursor, &head) || head.type != '*' || head.integer < 3 || !resp_next(cursor, &first) ||
        first.type != ':' || !resp_next(cursor, &last) || last.type != ':' || first.integer < 0 ||
        last.integer < first.integer || last.integer >= CLUSTER_SLOTS)
        return false;
    for (int64_t i = 2; i < head.integer; i++) {
        char host[256];
        uint16_t port;
        int64_t index;

        if (!read_node(cluster, cursor, host, &port))
            return false;
        index = port == 0 ? -1 : cluster_node(cluster, host, port);
        if (index < 0)
            continue;
        if (i > 2) {
            cluster->fresh_roles[index] = MAX(cluster->fresh_roles[index], (uint8_t)ROLE_REPLICA);
            continue;
        }
        cluster->fresh_roles[index] = ROLE_PRIMARY;
        for (int64_t slot = first.integer; slot <= last.integer; slot++)
            cluster->fresh[slot] = (uint16_t)(index + 1);
    }
    return true;
}

/* false: no map. */
static bool cluster_read(struct cluster *cluster, struct bytes reply)
{
    struct bytes cursor = reply;
    struct resp_value head;

    memset(cluster->fresh, 0, sizeof(cluster->fresh));
    memset(cluster->fresh_roles, ROLE_FREE, cluster->base.pool->server_cap);
    if (!resp_next(&cursor, &head) || head.type != '*' || head.integer <= 0)
        return false;
    for (int64_t i = 0; i < head.integer; i++)
        if (!read_range(cluster, &cursor))
            return false;
    return true;
}

static void cluster_log_map(struct cluster *cluster)
{
    struct pool *pool = cluster->base.pool;
    uint32_t primaries = 0, replicas = 0, covered = 0;

    for (uint32_t i = 0; i < pool->server_count; i++) {
        primaries += cluster->roles[i] == ROLE_PRIMARY;
        replicas += cluster->roles[i] == ROLE_REPLICA;
    }
    for (uint32_t slot = 0; slot < CLUSTER_SLOTS; slot++)
        covered += cluster->slots[slot] != 0;
    log_notice(proxy_log(pool->proxy), "slot map pool=%s primaries=%u replicas=%u slots=%u from=%s",
               pool->conf->name, primaries, replicas, covered, cluster->asked_server->name);
}

static void cluster_preconnect(struct cluster *cluster)
{
    struct pool *pool = cluster->base.pool;
    enum error_id error;

    for (uint32_t i = 0; i < pool->server_count; i++)
        if (cluster->roles[i] == ROLE_PRIMARY)
            MAYBE(upstream_get(&pool->servers[i], NULL, DIALECT_RESP2, 0, &error) == NULL);
}

/* The answer becomes the map. */
static void cluster_take_map(struct cluster *cluster)
{
    struct pool *pool = cluster->base.pool;
    bool is_changed = memcmp(cluster->slots, cluster->fresh, sizeof(cluster->slots)) != 0;

    memcpy(cluster->slots, cluster->fresh, sizeof(cluster->slots));
    for (uint32_t i = 0; i < pool->server_count; i++) {
        uint8_t role = cluster->fresh_roles[i];

        if (role == ROLE_FREE && cluster->roles[i] != ROLE_FREE)
            role = pool->servers[i].conf != NULL ? ROLE_SEED : ROLE_LEAVING;
        is_changed |= role != cluster->roles[i];
        cluster_set_role(cluster, i, role);
    }
    if (is_changed) {
        POOL_ADD(pool, topology_updates, 1);
        cluster_log_map(cluster);
    }
    if (!cluster->base.is_known) {
        if (pool->conf->preconnect)
            cluster_preconnect(cluster);
        discovery_known(&cluster->base);
    }
}

/* ---- looking ---------------------------------------------------------------------------------------- */

static void cluster_look_in(struct cluster *cluster, uint64_t delay_ms)
{
    io_timer_start(cluster_proxy(cluster)->io, &cluster->timer, delay_ms);
}

static void cluster_look_start(struct cluster *cluster)
{
    ASSERT(!cluster->is_looking);
    cluster->is_looking = true;
    cluster->wants_look = false;
    cluster->look++;
    cluster->looked_ms = io_now_ms(cluster_proxy(cluster)->io);
    cluster_ask(cluster);
}

/* Something looks different from the map. */
static void cluster_look_soon(struct cluster *cluster)
{
    uint64_t now_ms = io_now_ms(cluster_proxy(cluster)->io);
    uint64_t next_ms = cluster->looked_ms + MAX(cluster->backoff_ms, REFRESH_GAP_MS);

    if (cluster->wants_look)
        return;
    cluster->wants_look = true;
    if (!cluster->is_looking)
        cluster_look_in(cluster, next_ms > now_ms ? next_ms - now_ms : 0);
}

static void cluster_look_end(struct cluster *cluster, bool is_found)
{
    struct proxy *proxy = cluster_proxy(cluster);
    uint64_t delay_ms = REFRESH_MS - REFRESH_MS / 8 + io_random64(proxy->io) % (REFRESH_MS / 4);

    cluster->is_looking = false;
    if (is_found) {
        cluster->backoff_ms = 0;
        if (cluster->wants_look)
            delay_ms = REFRESH_GAP_MS;
    } else {
        cluster->backoff_ms = MIN(MAX(cluster->backoff_ms * 2, REFRESH_GAP_MS / 2), REFRESH_BACKOFF_MS);
        delay_ms = cluster->backoff_ms / 2 + io_random64(proxy->io) % cluster->backoff_ms;
        if (log_limit_allows(&proxy->log_limit, io_now_ms(proxy->io), 10, 1000, NULL))
            log_warn(proxy_log(proxy), "no node gave a slot map, the last one is kept pool=%s",
                     cluster->base.pool->conf->name);
    }
    cluster_drain_nodes(cluster);
    cluster_look_in(cluster, delay_ms);
}

static void cluster_answered(struct request *request, enum error_id error, struct bytes reply)
{
    struct cluster *cluster = request->internal_arg;

    ASSERT(cluster->asked == request);
    cluster->asked = NULL;
    if (error == ERROR_NONE && cluster_read(cluster, reply)) {
        cluster_take_map(cluster);
        cluster_look_end(cluster, true);
    } else {
        if (error == ERROR_NONE && log_limit_allows(&cluster_proxy(cluster)->log_limit,
                                                    io_now_ms(cluster_proxy(cluster)->io), 10, 1000, NULL))
            log_warn(proxy_log(cluster_proxy(cluster)), "a node gave no slot map pool=%s node=%s reply=%.*s",
                     cluster->base.pool->conf->name, cluster->asked_server->name,
                     BYTES_ARG(bytes_first(reply, 100)));
        /* Not from here: this may be the middle of a connection's end. */
        cluster_look_in(cluster, 0);
    }
}

/* The next to ask in this look: primaries first; NULL: all were asked. */
static struct server *cluster_pick(struct cluster *cluster)
{
    struct pool *pool = cluster->base.pool;

    cluster->rotor++;
    for (int wants_primary = 1; wants_primary >= 0; wants_primary--) {
        for (uint32_t n = 0; n < pool->server_count; n++) {
            uint32_t i = (cluster->rotor + n) % pool->server_count;
            uint8_t role = cluster->roles[i];

            if (cluster->tried[i] == cluster->look || role == ROLE_FREE || role == ROLE_LEAVING ||
                (wants_primary == 1) != (role == ROLE_PRIMARY))
                continue;
            cluster->tried[i] = cluster->look;
            return &pool->servers[i];
        }
    }
    return NULL;
}

static void cluster_ask(struct cluster *cluster)
{
    struct proxy *proxy = cluster_proxy(cluster);
    struct upstream *upstream = NULL;
    struct request *request;
    enum error_id error;

    while (upstream == NULL) {
        struct server *server = cluster_pick(cluster);

        if (server == NULL) {
            cluster_look_end(cluster, false);
            return;
        }
        cluster->asked_server = server;
        upstream = upstream_get(server, NULL, DIALECT_RESP2, 0, &error);
    }
    request = request_create(proxy, NULL, REQUEST_INTERNAL);
    if (request == NULL) {
        cluster_look_end(cluster, false);
        return;
    }
    request->dialect = DIALECT_RESP2;
    request->internal_done = cluster_answered;
    request->internal_arg = cluster;
    cluster->asked = request;
    cluster_look_in(cluster, ANSWER_TIMEOUT_MS);
    upstream_submit(upstream, request, BYTES("*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n"));
}

static void cluster_timer_fired(struct io_timer *timer)
{
    struct cluster *cluster = timer->arg;

    if (cluster->asked != NULL) { /* too slow: the next one */
        request_abandon(cluster->asked);
        cluster->asked = NULL;
    }
    if (cluster->is_looking)
        cluster_ask(cluster);
    else
        cluster_look_start(cluster);
}

void cluster_server_failed(struct discovery *discovery, struct server *server)
{
    MAYBE(server);
    cluster_look_soon(cluster_of(discovery));
}

/* ---- routes -------------------------------------------------------------------------------------------- */

struct server *cluster_route(struct discovery *discovery, struct bytes key)
{
    struct cluster *cluster = cluster_of(discovery);
    uint16_t owner = cluster->slots[hash_slot(key)];

    /* Nobody's: any node says MOVED, or why not. */
    return LIKELY(owner != 0) ? &discovery->pool->servers[owner - 1] : route_any(discovery->pool);
}

void cluster_parts_begin(struct discovery *discovery)
{
    struct cluster *cluster = cluster_of(discovery);

    if (++cluster->part_stamp == 0) {
        memset(cluster->part_stamps, 0, sizeof(cluster->part_stamps));
        cluster->part_stamp = 1;
    }
}

uint32_t cluster_part(struct discovery *discovery, uint32_t slot, uint32_t part_next, bool *is_new)
{
    struct cluster *cluster = cluster_of(discovery);

    *is_new = cluster->part_stamps[slot] != cluster->part_stamp;
    if (*is_new) {
        cluster->part_stamps[slot] = cluster->part_stamp;
        cluster->parts[slot] = part_next;
    }
    return cluster->parts[slot];
}

/* ---- redirects -------------------------------------------------------------------------------------------- */

bool cluster_parse_redirect(struct bytes text, uint32_t *slot, struct discovery_target *target)
{
    const char *space = memchr(text.data, ' ', text.len);
    uint64_t number, port;
    struct bytes address;
    const char *colon;

    if (space == NULL ||
        !bytes_to_u64(bytes_first(text, (size_t)(space - text.data)), CLUSTER_SLOTS - 1, &number))
        return false;
    address = bytes_skip(text, (size_t)(space - text.data) + 1);
    colon = memrchr(address.data, ':', address.len);
    if (colon == NULL || (size_t)(colon - address.data) >= sizeof(target->host) ||
        !bytes_to_u64(bytes_skip(address, (size_t)(colon - address.data) + 1), 65535, &port) || port == 0)
        return false;
    memcpy(target->host, address.data, (size_t)(colon - address.data));
    target->host[colon - address.data] = '\0';
    target->port = (uint16_t)port;
    *slot = (uint32_t)number;
    return true;
}

/* "-MOVED " or "-ASK " is off. upstream (may be NULL): who said it. NULL: not understood. */
static struct server *cluster_target(struct cluster *cluster, struct upstream *upstream, struct bytes text,
                                     uint32_t *slot)
{
    struct discovery_target target;
    int64_t index;

    if (!cluster_parse_redirect(text, slot, &target))
        return NULL;
    if (target.host[0] == '\0' || strcmp(target.host, "?") == 0) { /* the node does not know its own: the one we reached it by */
        const struct server *from = upstream == NULL ? NULL : upstream->server;
        char text_address[IO_ADDR_TEXT_MAX];

        if (from == NULL)
            return NULL;
        if (from->host == NULL) {
            char *colon = strrchr(io_addr_text(&from->addrs[0], text_address), ':');

            if (colon == NULL)
                return NULL;
            *colon = '\0';
        }
        snprintf(target.host, sizeof(target.host), "%s", from->host != NULL ? from->host : text_address);
    }
    index = cluster_node(cluster, target.host, target.port);
    return index < 0 ? NULL : &cluster->base.pool->servers[index];
}

static void cluster_set_slot(struct cluster *cluster, uint32_t slot, struct server *server)
{
    if (cluster->slots[slot] == server->index + 1)
        return;
    cluster->slots[slot] = (uint16_t)(server->index + 1);
    cluster_set_role(cluster, server->index, ROLE_PRIMARY);
    POOL_ADD(cluster->base.pool, topology_updates, 1);
    cluster_look_soon(cluster);
}

struct server *cluster_note_moved(struct discovery *discovery, struct bytes reply)
{
    struct cluster *cluster = cluster_of(discovery);
    uint32_t slot;
    struct server *server;

    if (reply.len < 9 || memcmp(reply.data, "-MOVED ", 7) != 0)
        return NULL;
    server = cluster_target(cluster, NULL, bytes_first(bytes_skip(reply, 7), reply.len - 9), &slot);
    if (server != NULL)
        cluster_set_slot(cluster, slot, server);
    return server;
}

static bool cluster_moved(struct cluster *cluster, struct upstream *upstream, struct request *head,
                          struct bytes text)
{
    uint32_t slot;
    struct server *server = cluster_target(cluster, upstream, text, &slot);

    if (server == NULL)
        return false;
    cluster_set_slot(cluster, slot, server);
    return discovery_follow(&cluster->base, upstream, head, server, false);
}

static bool cluster_asked(struct cluster *cluster, struct upstream *upstream, struct request *head,
                          struct bytes text)
{
    uint32_t slot;
    struct server *server = cluster_target(cluster, upstream, text, &slot);

    if (server == NULL)
        return false;
    /* It imports the slot and may own none yet: it is a member all the same. */
    if (cluster->roles[server->index] == ROLE_LEAVING)
        cluster_set_role(cluster, server->index, ROLE_PRIMARY);
    return discovery_follow(&cluster->base, upstream, head, server, true);
}

static bool starts(struct bytes reply, struct bytes word)
{
    return reply.len > word.len && memcmp(reply.data, word.data, word.len) == 0;
}

bool cluster_redirect(struct discovery *discovery, struct upstream *upstream, struct request *head,
                      struct bytes reply)
{
    struct cluster *cluster = cluster_of(discovery);
    struct bytes text = bytes_first(reply, reply.len - 2); /* without CRLF */
    bool is_redirect = false;

    if (starts(text, BYTES("-MOVED ")))
        is_redirect = cluster_moved(cluster, upstream, head, bytes_skip(text, 7));
    else if (starts(text, BYTES("-ASK ")))
        is_redirect = cluster_asked(cluster, upstream, head, bytes_skip(text, 5));
    else if (starts(text, BYTES("-TRYAGAIN")))
        is_redirect = discovery_park(discovery, upstream, head);
    else if (starts(text, BYTES("-CLUSTERDOWN")) || starts(text, BYTES("-READONLY")) ||
             starts(text, BYTES("-LOADING")) || starts(text, BYTES("-MASTERDOWN"))) {
        SERVER_ADD(upstream->server, unready_replies, 1);
        cluster_look_soon(cluster);
    }
    return is_redirect;
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

int cluster_create(struct pool *pool, struct discovery **out)
{
    struct cluster *cluster = must_zalloc(sizeof(*cluster));

    cluster->roles = must_zalloc(pool->server_cap);
    cluster->fresh_roles = must_zalloc(pool->server_cap);
    cluster->tried = must_zalloc(sizeof(*cluster->tried) * pool->server_cap);
    cluster->timer.fire = cluster_timer_fired;
    cluster->timer.arg = cluster;
    *out = &cluster->base;
    for (uint32_t i = 0; i < pool->server_count; i++)
        cluster->roles[i] = ROLE_SEED;
    cluster->rotor = (uint32_t)io_random64(pool->proxy->io);
    if (discovery_init(&cluster->base, pool) != 0)
        return -ENOMEM;
    cluster_look_in(cluster, 0);
    return 0;
}

void cluster_destroy(struct discovery *discovery)
{
    struct cluster *cluster = cluster_of(discovery);

    io_timer_stop(&cluster->timer);
    if (cluster->asked != NULL)
        request_abandon(cluster->asked);
    discovery_deinit(discovery);
    mem_free(cluster->roles);
    mem_free(cluster->fresh_roles);
    mem_free(cluster->tried);
    cluster->roles = NULL;
}
