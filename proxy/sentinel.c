/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools whose primaries are watched by Sentinels.
 *
 *     servers[]   [ sentinel 0 | sentinel 1 | sentinel 2 | master "a" | master "b" ]
 *                  \------- take no keys ------------/    ring index 0   ring index 1
 *
 * The ring is made of the masters' names, so keys stay with the name when a replica takes over. Who the
 * primary is the sentinels are asked in rounds:
 *
 *     quiet      one sentinel, each second          (in turn)
 *     doubtful   all of them, at once and again     (an answer differs, a connection broke, READONLY,
 *                                                    +switch-master, at the start)
 *
 *   S1  An address is believed when more sentinels of the round say it than say the present one. One that
 *       was cut off, or has just come back from an old file, is outvoted. With no present one, the most
 *       votes win.
 *   S2  No answer changes nothing: the last address is kept.
 *   S3  When the address changes, every connection to the old one is closed before anything goes to the
 *       new one.
 *
 * One sentinel is subscribed to +switch-master, which only starts a round: polling finds the same a
 * second later.
 */
#include "proxy/discovery.h"

#define POLL_MS        1000u
#define DOUBT_GAP_MS   100u  /* rounds are so far apart when something looks wrong; then further */
#define ROUND_MS       300u  /* answers that come later do not count ... */
#define ROUND_MAX_MS   2000u /* ... unless there are none */
#define SUBSCRIBE_GAP_MS 1000u
#define RECONNECT_GAP_MS 1000u

/* One question: who is this master, to this sentinel. */
struct sentinel_question {
    struct sentinel *sentinel;
    struct request *request; /* borrows: in flight; NULL: none */
    uint32_t master_index;
    bool is_answered;        /* in this round */
    char host[256];
    uint16_t port;
};

struct sentinel_master {
    struct server *server;
    bool is_known;
    bool is_readonly; /* it said so since the last round */
    char host[256];
    uint16_t port;
    uint64_t reconnected_ms;
};

struct sentinel {
    struct discovery base;
    uint32_t sentinel_count, master_count;
    struct sentinel_master *masters;     /* owns */
    struct sentinel_question *questions; /* owns; [sentinel * master_count + master] */
    uint32_t pending_count, answer_count;
    uint32_t rotor;
    struct io_timer timer; /* the next round; in a round, its end */
    uint64_t round_ms;     /* when the last one began */
    uint32_t doubt_gap_ms; /* grows while doubt stays */
    bool is_in_round, is_full, wants_round;
    struct upstream *subscription; /* borrows */
    uint64_t subscribe_after_ms;
};

static struct sentinel *sentinel_of(struct discovery *discovery)
{
    return CONTAINER_OF(discovery, struct sentinel, base);
}

static struct proxy *sentinel_proxy(const struct sentinel *sentinel)
{
    return sentinel->base.pool->proxy;
}

/* ---- a new address ------------------------------------------------------------------------------ */

/* What is open now: reads that are sent again open new ones meanwhile. */
static void server_close_all(struct server *server, const char *why)
{
    struct list old;
    struct list_node *node;

    memset(server->shared, 0,
           sizeof(*server->shared) * DIALECT_COUNT * server->pool->conf->server_connections);
    list_init(&old);
    list_move_all(&server->upstreams, &old);
    while ((node = list_first(&old)) != NULL)
        upstream_retire(CONTAINER_OF(node, struct upstream, server_node), ERROR_reset, why);
}

static void master_set_address(struct sentinel *sentinel, struct sentinel_master *master,
                               const char *host, uint16_t port)
{
    struct server *server = master->server;
    struct conf_address address = {.host = host, .port = port};

    if (server->is_resolving) {
        io_resolve_cancel(server->resolve);
        server->is_resolving = false;
    }
    mem_free(server->host);
    server->host = NULL;
    server->addr_count = server->addr_next = 0;
    server->needs_resolve = false;
    server->connect_after_ms = 0;
    server->connect_backoff_ms = 0;
    server->is_gone = false;
    MAYBE(server_set_address(server, &address) != 0);
    snprintf(master->host, sizeof(master->host), "%s", host);
    master->port = port;
    master->is_known = true;
    master->is_readonly = false;
    server_close_all(server, "the primary has another address");
    POOL_ADD(sentinel->base.pool, topology_updates, 1);
}

static void master_adopt(struct sentinel *sentinel, struct sentinel_master *master, const char *host,
                         uint16_t port)
{
    struct pool *pool = sentinel->base.pool;
    bool was_known = master->is_known;

    log_notice(proxy_log(pool->proxy), "primary pool=%s master=%s address=%s:%u before=%s:%u",
               pool->conf->name, master->server->name, host, port, was_known ? master->host : "-",
               master->port);
    master_set_address(sentinel, master, host, port);
    for (uint32_t i = 0; i < sentinel->master_count; i++)
        if (!sentinel->masters[i].is_known)
            return;
    if (!sentinel->base.is_known)
        discovery_known(&sentinel->base);
}

/* ---- rounds --------------------------------------------------------------------------------------- */

static void schedule(struct sentinel *sentinel, uint64_t delay_ms)
{
    io_timer_start(sentinel_proxy(sentinel)->io, &sentinel->timer, delay_ms);
}

static void full_round_soon(struct sentinel *sentinel)
{
    uint64_t now_ms = io_now_ms(sentinel_proxy(sentinel)->io);
    uint64_t next_ms = sentinel->round_ms + DOUBT_GAP_MS;

    sentinel->doubt_gap_ms = DOUBT_GAP_MS;
    if (sentinel->wants_round)
        return;
    sentinel->wants_round = true;
    if (!sentinel->is_in_round)
        schedule(sentinel, next_ms > now_ms ? next_ms - now_ms : 0);
}

/* ["127.0.0.1", "6379"]; anything else is no answer: null, when the sentinel knows no such master. */
static bool question_read(struct sentinel_question *question, struct bytes reply)
{
    struct bytes cursor = reply;
    struct resp_value head, host, port;
    uint64_t number;

    if (!resp_next(&cursor, &head) || head.type != '*' || head.is_null || head.integer != 2 ||
        !resp_next(&cursor, &host) || host.type != '$' || host.is_null || host.payload.len == 0 ||
        host.payload.len >= sizeof(question->host) || !resp_next(&cursor, &port) || port.type != '$' ||
        port.is_null || !bytes_to_u64(port.payload, 65535, &number) || number == 0)
        return false;
    memcpy(question->host, host.payload.data, host.payload.len);
    question->host[host.payload.len] = '\0';
    question->port = (uint16_t)number;
    return true;
}

static void question_answered(struct request *request, enum error_id error, struct bytes reply)
{
    struct sentinel_question *question = request->internal_arg;
    struct sentinel *sentinel = question->sentinel;

    ASSERT(question->request == request);
    question->request = NULL;
    question->is_answered = error == ERROR_NONE && question_read(question, reply);
    sentinel->answer_count += question->is_answered;
    if (error == ERROR_NONE && !question->is_answered &&
        log_limit_allows(&sentinel_proxy(sentinel)->log_limit,
                         io_now_ms(sentinel_proxy(sentinel)->io), 10, 1000, NULL))
        log_warn(proxy_log(sentinel_proxy(sentinel)), "a sentinel does not know the master pool=%s master=%s sentinel=%s reply=%.*s",
                 sentinel->base.pool->conf->name,
                 sentinel->masters[question->master_index].server->name,
                 sentinel->base.pool->servers[(question - sentinel->questions) / sentinel->master_count].name,
                 BYTES_ARG(bytes_first(reply, 60)));
    /* Not from here: this may be the middle of a connection's end. */
    if (--sentinel->pending_count == 0)
        schedule(sentinel, 0);
}

static void ask(struct sentinel *sentinel, uint32_t sentinel_index, uint32_t master_index)
{
    struct pool *pool = sentinel->base.pool;
    struct sentinel_question *question =
        &sentinel->questions[sentinel_index * sentinel->master_count + master_index];
    const char *name = sentinel->masters[master_index].server->name;
    struct buffer *out = &pool->proxy->scratch2;
    enum error_id error;
    struct upstream *upstream;
    struct request *request;

    ASSERT(question->request == NULL);
    upstream = upstream_get(&pool->servers[sentinel_index], NULL, DIALECT_RESP2, 0, &error);
    request = upstream == NULL ? NULL : request_create(pool->proxy, NULL, REQUEST_INTERNAL);
    if (request == NULL)
        return;
    request->dialect = DIALECT_RESP2;
    request->internal_done = question_answered;
    request->internal_arg = question;
    question->request = request;
    sentinel->pending_count++;
    buffer_clear(out);
    buffer_append_format(out,
                         "*3\r\n$8\r\nSENTINEL\r\n$23\r\nget-master-addr-by-name\r\n$%zu\r\n%s\r\n",
                         strlen(name), name);
    upstream_submit(upstream, request, buffer_bytes(out));
}

static void subscribe_done(struct request *request, enum error_id error, struct bytes reply)
{
    MAYBE(request);
    MAYBE(error);
    MAYBE(reply.len);
}

/* To the sentinel that the rotor stands at; another one when that fails. */
static void subscribe(struct sentinel *sentinel)
{
    struct pool *pool = sentinel->base.pool;
    uint64_t now_ms = io_now_ms(pool->proxy->io);
    enum error_id error;
    struct upstream *upstream;
    struct request *request;

    if (sentinel->subscription != NULL || now_ms < sentinel->subscribe_after_ms)
        return;
    sentinel->subscribe_after_ms = now_ms + SUBSCRIBE_GAP_MS;
    upstream = upstream_open(&pool->servers[sentinel->rotor % sentinel->sentinel_count], DIALECT_RESP2, 0,
                             true, &error);
    if (upstream == NULL)
        return;
    upstream->is_pubsub = true;
    upstream->is_patient = true;
    sentinel->subscription = upstream;
    request = request_create(pool->proxy, NULL, REQUEST_INTERNAL);
    if (request == NULL) {
        upstream_retire(upstream, ERROR_out_of_memory, "out of memory");
        return;
    }
    request->dialect = DIALECT_RESP2;
    request->internal_done = subscribe_done;
    upstream_submit(upstream, request, BYTES("*2\r\n$9\r\nSUBSCRIBE\r\n$14\r\n+switch-master\r\n"));
}

static bool is_doubtful(const struct sentinel *sentinel)
{
    for (uint32_t m = 0; m < sentinel->master_count; m++)
        if (!sentinel->masters[m].is_known)
            return true;
    return sentinel->wants_round;
}

static void round_start(struct sentinel *sentinel)
{
    uint32_t count = sentinel->sentinel_count;

    sentinel->is_full = is_doubtful(sentinel);
    sentinel->is_in_round = true;
    sentinel->wants_round = false;
    sentinel->round_ms = io_now_ms(sentinel_proxy(sentinel)->io);
    sentinel->answer_count = 0;
    sentinel->rotor++;
    for (uint32_t i = 0; i < count * sentinel->master_count; i++)
        sentinel->questions[i].is_answered = false;
    schedule(sentinel, ROUND_MS);
    sentinel->pending_count = 1; /* held until everything is asked */
    for (uint32_t s = 0; s < count; s++)
        if (sentinel->is_full || s == sentinel->rotor % count)
            for (uint32_t m = 0; m < sentinel->master_count; m++)
                ask(sentinel, s, m);
    if (--sentinel->pending_count == 0)
        schedule(sentinel, 0);
    subscribe(sentinel);
}

static bool question_says(const struct sentinel_question *question, const char *host, uint16_t port)
{
    return question->is_answered && question->port == port && strcmp(question->host, host) == 0;
}

static uint32_t votes_for(const struct sentinel *sentinel, uint32_t master_index, const char *host,
                          uint16_t port)
{
    uint32_t count = 0;

    for (uint32_t s = 0; s < sentinel->sentinel_count; s++)
        count += question_says(&sentinel->questions[s * sentinel->master_count + master_index], host, port);
    return count;
}

/* The sentinels say that the address is right, the server says that it is no primary: an address behind
 * which somebody else answers now. A new connection finds out. */
static void master_reconnect(struct sentinel *sentinel, struct sentinel_master *master)
{
    uint64_t now_ms = io_now_ms(sentinel_proxy(sentinel)->io);

    master->is_readonly = false;
    if (now_ms < master->reconnected_ms + RECONNECT_GAP_MS)
        return;
    master->reconnected_ms = now_ms;
    master->server->needs_resolve = master->server->host != NULL;
    server_close_all(master->server, "a primary that is none");
}

/* Returns whether the sentinels disagree. */
static bool master_tally(struct sentinel *sentinel, uint32_t master_index)
{
    struct sentinel_master *master = &sentinel->masters[master_index];
    const struct sentinel_question *best = NULL;
    uint32_t best_count = 0, present_count = 0, answer_count = 0;

    for (uint32_t s = 0; s < sentinel->sentinel_count; s++) {
        const struct sentinel_question *question =
            &sentinel->questions[s * sentinel->master_count + master_index];
        uint32_t count;

        if (!question->is_answered)
            continue;
        answer_count++;
        count = votes_for(sentinel, master_index, question->host, question->port);
        if (count > best_count) {
            best = question;
            best_count = count;
        }
    }
    if (best == NULL)
        return false;
    if (master->is_known)
        present_count = votes_for(sentinel, master_index, master->host, master->port);
    if (!sentinel->is_full)
        return present_count < answer_count;
    if (best_count > present_count)
        master_adopt(sentinel, master, best->host, best->port);
    else if (master->is_readonly && present_count == answer_count)
        master_reconnect(sentinel, master);
    return best_count < answer_count;
}

static void round_end(struct sentinel *sentinel)
{
    struct proxy *proxy = sentinel_proxy(sentinel);
    uint32_t total = sentinel->sentinel_count * sentinel->master_count;
    bool is_split = false;

    for (uint32_t i = 0; i < total; i++) {
        if (sentinel->questions[i].request == NULL)
            continue;
        request_abandon(sentinel->questions[i].request);
        sentinel->questions[i].request = NULL;
        sentinel->pending_count--;
    }
    ASSERT(sentinel->pending_count == 0);
    sentinel->is_in_round = false;
    /* A quiet round that met a dead or a silent sentinel goes on with all of them. */
    if (sentinel->answer_count == 0)
        is_split = true;
    if (sentinel->answer_count == 0 && sentinel->is_full &&
        log_limit_allows(&proxy->log_limit, io_now_ms(proxy->io), 10, 1000, NULL))
        log_warn(proxy_log(proxy), "no sentinel answers, the last addresses are kept pool=%s",
                 sentinel->base.pool->conf->name);
    for (uint32_t m = 0; m < sentinel->master_count; m++)
        is_split |= master_tally(sentinel, m);
    if (is_split)
        sentinel->wants_round = true;
    if (is_doubtful(sentinel)) {
        schedule(sentinel, sentinel->doubt_gap_ms);
        sentinel->doubt_gap_ms = MIN(sentinel->doubt_gap_ms * 2, POLL_MS);
    } else {
        sentinel->doubt_gap_ms = DOUBT_GAP_MS;
        schedule(sentinel, POLL_MS - POLL_MS / 8 + io_random64(proxy->io) % (POLL_MS / 4));
    }
}

static void sentinel_timer_fired(struct io_timer *timer)
{
    struct sentinel *sentinel = timer->arg;
    uint64_t now_ms = io_now_ms(sentinel_proxy(sentinel)->io);

    if (!sentinel->is_in_round)
        round_start(sentinel);
    else if (sentinel->pending_count > 0 && sentinel->answer_count == 0 &&
             now_ms < sentinel->round_ms + ROUND_MAX_MS)
        schedule(sentinel, ROUND_MS);
    else
        round_end(sentinel);
}

/* ---- what happens elsewhere --------------------------------------------------------------------------- */

void sentinel_server_failed(struct discovery *discovery, struct server *server)
{
    if (!server->is_sentinel)
        full_round_soon(sentinel_of(discovery));
}

void sentinel_pushed(struct discovery *discovery, struct bytes message)
{
    MAYBE(message.len);
    full_round_soon(sentinel_of(discovery));
}

void sentinel_upstream_gone(struct discovery *discovery, struct upstream *upstream)
{
    struct sentinel *sentinel = sentinel_of(discovery);

    if (sentinel->subscription == upstream)
        sentinel->subscription = NULL;
}

bool sentinel_redirect(struct discovery *discovery, struct upstream *upstream, struct bytes reply)
{
    struct sentinel *sentinel = sentinel_of(discovery);
    struct server *server = upstream->server;
    bool is_readonly = reply.len > 9 && memcmp(reply.data, "-READONLY", 9) == 0;

    if (server->is_sentinel)
        return false;
    /* The text goes to the client: sent again to another server, the request might overtake what its
     * client sent after it. */
    if (is_readonly || (reply.len > 8 && memcmp(reply.data, "-LOADING", 8) == 0) ||
        (reply.len > 11 && memcmp(reply.data, "-MASTERDOWN", 11) == 0)) {
        SERVER_ADD(server, unready_replies, 1);
        sentinel->masters[server->index - sentinel->sentinel_count].is_readonly |= is_readonly;
        full_round_soon(sentinel);
    }
    return false;
}

struct server *sentinel_route(struct discovery *discovery, struct bytes key)
{
    struct sentinel *sentinel = sentinel_of(discovery);
    struct pool *pool = discovery->pool;
    uint32_t index = ring_lookup(pool->ring, key,
                                 UNLIKELY(pool->is_random) ? (uint32_t)io_random64(pool->proxy->io) : 0);

    if (UNLIKELY(index == RING_NONE || !sentinel->masters[index].is_known))
        return NULL;
    return sentinel->masters[index].server;
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

int sentinel_create(struct pool *pool, struct discovery **out)
{
    struct sentinel *sentinel = must_zalloc(sizeof(*sentinel));
    const struct conf_pool *conf = pool->conf;
    int err;

    *out = &sentinel->base;
    sentinel->sentinel_count = conf->servers_count;
    sentinel->master_count = conf->masters_count;
    sentinel->masters = must_zalloc(sizeof(*sentinel->masters) * sentinel->master_count);
    sentinel->questions = must_zalloc(sizeof(*sentinel->questions) *
                                      ((size_t)sentinel->sentinel_count * sentinel->master_count));
    sentinel->timer.fire = sentinel_timer_fired;
    sentinel->timer.arg = sentinel;
    for (uint32_t i = 0; i < sentinel->sentinel_count * sentinel->master_count; i++) {
        sentinel->questions[i].sentinel = sentinel;
        sentinel->questions[i].master_index = i % sentinel->master_count;
    }
    err = discovery_init(&sentinel->base, pool);
    if (err != 0)
        return err;
    err = conf_pool_ring(conf, NULL, &pool->ring);
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < sentinel->sentinel_count; i++)
        pool->servers[i].is_sentinel = true;
    for (uint32_t i = 0; i < sentinel->master_count; i++) {
        discovery_server_init(&sentinel->base, sentinel->sentinel_count + i, conf->masters[i].name, NULL, 0);
        sentinel->masters[i].server = &pool->servers[sentinel->sentinel_count + i];
    }
    sentinel->rotor = (uint32_t)io_random64(pool->proxy->io);
    sentinel->doubt_gap_ms = DOUBT_GAP_MS;
    schedule(sentinel, 0);
    return 0;
}

void sentinel_destroy(struct discovery *discovery)
{
    struct sentinel *sentinel = sentinel_of(discovery);

    io_timer_stop(&sentinel->timer);
    for (uint32_t i = 0; i < sentinel->sentinel_count * sentinel->master_count; i++)
        if (sentinel->questions[i].request != NULL)
            request_abandon(sentinel->questions[i].request);
    discovery_deinit(discovery);
    mem_free(sentinel->masters);
    mem_free(sentinel->questions);
    sentinel->masters = NULL;
    sentinel->questions = NULL;
}
