/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to a server.
 *
 *                 address known        connected           answers were right
 *   RESOLVING ----------> CONNECTING ---------> HANDSHAKE -----------> READY
 *       \                     |    \----- nothing to say -------------> ^
 *        \------ error -------+--------------- error, eof, doubt -------+----> CLOSED --> freed
 *                                                                                 by the flush hook
 *
 *   U1  `inflight` holds the requests in the order of their bytes in `out` and on the wire. A reply
 *       belongs to its head. Only a whole reply moves it on.
 *   U2  Bytes of requests leave only when READY: a wrong password or database is found out before.
 *   U3  Anything unexpected (bytes that no request waits for, a VALUE for another key, a frame that does
 *       not parse, a reply to a request not yet sent whole) retires the connection. Nothing is
 *       resynchronised. A time-out or a client that left is not doubt: the request stays as a tombstone.
 *   U4  Tombstones that are overdue are bounded in number, and the first of all in age; beyond, the connection is
 *       retired. Those of a client that left are none of the server's fault: they count in `inflight_count`, which
 *       is bounded, and are waited for as if it were there.
 */
#include "proxy/proxy_private.h"
#include "common/base/fsm.h"

#define UPSTREAM_OVERDUE_MAX    64
#define UPSTREAM_TOMBSTONE_AGE_MAX_MS 10000
#define UPSTREAM_RETRIES_MAX    1
#define UPSTREAM_MOVES_MAX      2 /* to a server that takes connections and closes each */
#define UPSTREAM_USER_TIMEOUT_MS 30000

static const struct fsm_state upstream_states[] = {
    [UPSTREAM_RESOLVING] = {"resolving", FSM_TO(UPSTREAM_CONNECTING) | FSM_TO(UPSTREAM_CLOSED)},
    [UPSTREAM_CONNECTING] = {"connecting", FSM_TO(UPSTREAM_HANDSHAKE) | FSM_TO(UPSTREAM_READY) |
                                               FSM_TO(UPSTREAM_CLOSED)},
    [UPSTREAM_HANDSHAKE] = {"handshake", FSM_TO(UPSTREAM_READY) | FSM_TO(UPSTREAM_CLOSED)},
    [UPSTREAM_READY] = {"ready", FSM_TO(UPSTREAM_CLOSED)},
    [UPSTREAM_CLOSED] = {"closed", 0},
};

static void upstream_closed(struct io_stream *stream, int err, struct bytes rest);
static void upstream_writable(struct io_stream *stream);
static void upstream_connected(struct io_stream *stream, int err);

static const struct io_stream_handler upstream_handler = {
    .recv = upstream_recv,
    .closed = upstream_closed,
    .writable = upstream_writable,
    .connected = upstream_connected,
};

static void upstream_move(struct upstream *upstream, enum upstream_state next)
{
    fsm_move(&upstream->state, upstream_states, next);
}

static void upstream_set_busy(struct upstream *upstream)
{
    struct proxy *proxy = upstream_proxy(upstream);

    if (!list_node_is_linked(&upstream->busy_node))
        list_push_back(&proxy->busy, &upstream->busy_node);
    proxy_tick_start(proxy);
}

void upstream_mark_dirty(struct upstream *upstream)
{
    struct proxy *proxy = upstream_proxy(upstream);

    if (upstream->is_dirty || upstream->state != UPSTREAM_READY)
        return;
    upstream->is_dirty = true;
    upstream->dirty_next = proxy->dirty_upstreams;
    proxy->dirty_upstreams = upstream;
}

/* ---- gauges: once a turn, not once a request --------------------------------------------------- */

static void gauge_move(uint64_t *cell, uint64_t *mine, uint64_t value)
{
    *cell += value - *mine;
    *mine = value;
}

/* How many requests are not yet sent whole. */
static uint64_t upstream_count_unsent(const struct upstream *upstream)
{
    uint64_t sent_end = upstream->queued_total - upstream->out.len;
    uint64_t count = upstream->inflight_count;

    for (const struct queue_node *node = upstream->inflight.first; node != NULL; node = node->next) {
        if (CONTAINER_OF(node, const struct request, upstream_node)->wire_end > sent_end)
            break;
        count--;
    }
    return count;
}

/* The count of what waits to be sent takes a walk: it is exact only after a tick. */
void upstream_gauges(struct upstream *upstream, bool is_exact)
{
    uint64_t *cells = upstream->server->counters;
    uint64_t inflight = upstream->inflight_count;
    uint64_t in_bytes = inflight == 0 ? 0 : upstream->out.len;
    uint64_t in = in_bytes == 0 ? 0
                  : is_exact    ? upstream_count_unsent(upstream)
                                : MIN(MAX(upstream->gauges.in, (uint64_t)1), inflight);
    uint64_t out_bytes = inflight == 0 ? 0 : upstream->queued_total - upstream->done_end - in_bytes;

    gauge_move(&cells[SERVER_COUNT_in_queue], &upstream->gauges.in, in);
    gauge_move(&cells[SERVER_COUNT_in_queue_bytes], &upstream->gauges.in_bytes, in_bytes);
    gauge_move(&cells[SERVER_COUNT_out_queue], &upstream->gauges.out, inflight - in);
    gauge_move(&cells[SERVER_COUNT_out_queue_bytes], &upstream->gauges.out_bytes, out_bytes);
}

/* ---- opening --------------------------------------------------------------------------------- */

static const struct io_stream_options upstream_options = {
    .nodelay = true, .keepalive = true, .user_timeout_ms = UPSTREAM_USER_TIMEOUT_MS};

static void upstream_connect(struct upstream *upstream)
{
    struct server *server = upstream->server;
    struct proxy *proxy = server->pool->proxy;
    const struct io_addr *addr = &server->addrs[server->addr_next % server->addr_count];
    int err;

    upstream_move(upstream, UPSTREAM_CONNECTING);
    upstream->deadline_ms = io_now_ms(proxy->io) + (uint64_t)server->pool->conf->connect_timeout_ms;
    err = io_stream_connect(proxy->io, &upstream->stream, &upstream_handler, addr, &upstream_options);
    if (err != 0) {
        server->last_error = error_of_errno(err);
        /* No descriptor or memory for a socket: that is our trouble, no failure of the server's. */
        if (err != -EMFILE && err != -ENFILE && err != -ENOBUFS && err != -ENOMEM)
            server_failed(server, error_of_errno(err));
        upstream_retire(upstream, error_of_errno(err), "cannot connect");
    }
}

struct upstream *upstream_open(struct server *server, uint8_t dialect, uint8_t db, bool is_private,
                               enum error_id *error)
{
    struct proxy *proxy = server->pool->proxy;
    struct upstream *upstream;

    if (!is_private && io_now_ms(proxy->io) < server->connect_after_ms) {
        *error = server->last_error;
        return NULL;
    }
    upstream = mem_pool_get(&proxy->upstreams);
    if (upstream == NULL) {
        *error = ERROR_out_of_memory;
        return NULL;
    }
    memset(upstream, 0, sizeof(*upstream));
    upstream->server = server;
    upstream->dialect = dialect;
    upstream->db = db;
    upstream->is_private = is_private;
    upstream->state = UPSTREAM_RESOLVING;
    queue_init(&upstream->inflight);
    list_push_back(&server->upstreams, &upstream->server_node);
    SERVER_ADD(server, server_connections, 1);
    SERVER_ADD(server, server_connects, 1);
    upstream_set_busy(upstream);
    upstream->deadline_ms = io_now_ms(proxy->io) + (uint64_t)server->pool->conf->connect_timeout_ms;
    if (server->addr_count == 0 || server->needs_resolve)
        server_resolve(server);
    if (server->addr_count > 0)
        upstream_connect(upstream);
    if (upstream->state == UPSTREAM_CLOSED) {
        *error = server->last_error;
        return NULL;
    }
    return upstream;
}

bool upstream_reopen(struct upstream *upstream, int fd)
{
    if (io_stream_open(upstream_proxy(upstream)->io, &upstream->stream, &upstream_handler, fd,
                       &upstream_options, BYTES_EMPTY) != 0)
        return false;
    io_stream_resume(&upstream->stream);
    return true;
}

struct upstream *upstream_adopt(struct server *server, uint8_t dialect, uint8_t db, int fd)
{
    struct upstream *upstream = mem_pool_get(&server->pool->proxy->upstreams);

    if (upstream == NULL) {
        proxy_refuse(server->pool->proxy, fd);
        return NULL;
    }
    memset(upstream, 0, sizeof(*upstream));
    upstream->server = server;
    upstream->dialect = dialect;
    upstream->db = db;
    upstream->is_private = true;
    upstream->state = UPSTREAM_READY;
    queue_init(&upstream->inflight);
    list_push_back(&server->upstreams, &upstream->server_node);
    SERVER_ADD(server, server_connections, 1);
    if (!upstream_reopen(upstream, fd)) {
        upstream_retire(upstream, ERROR_reset, "its descriptor is no good");
        return NULL;
    }
    return upstream;
}

/* Addresses came (or did not). */
void upstream_resolved(struct upstream *upstream, enum error_id error)
{
    ASSERT(upstream->state == UPSTREAM_RESOLVING);
    if (error == ERROR_NONE)
        upstream_connect(upstream);
    else
        upstream_retire(upstream, error, "name not resolved");
}

static struct upstream **upstream_slot(struct server *server, uint8_t dialect, uint8_t db,
                                       uint32_t index)
{
    const struct conf_pool *conf = server->pool->conf;

    return db == conf->redis_db || !dialect_is_resp(dialect)
               ? &server->shared[dialect * conf->server_connections + index]
               : NULL;
}

struct upstream *upstream_get(struct server *server, struct client *client, uint8_t dialect,
                              uint8_t db, enum error_id *error)
{
    uint32_t count = server->pool->conf->server_connections;
    uint32_t index = count == 1 || client == NULL ? 0 : (uint32_t)(client->id % count);
    struct upstream **slot = upstream_slot(server, dialect, db, index);
    struct upstream *upstream = NULL;

    if (LIKELY(slot != NULL)) {
        upstream = *slot;
    } else {
        LIST_FOR_EACH (&server->upstreams, node) {
            struct upstream *other = CONTAINER_OF(node, struct upstream, server_node);

            if (!other->is_private && !other->is_probe && other->dialect == dialect &&
                other->db == db && other->slot == index) {
                upstream = other;
                break;
            }
        }
    }
    if (LIKELY(upstream != NULL)) {
        const struct conf_limits *limits = &server->pool->proxy->conf->process.limits;

        if (LIKELY(upstream->inflight_count < limits->upstream_queue_max &&
                   upstream->out.len < limits->upstream_output_max))
            return upstream;
        *error = ERROR_queue_full;
        return NULL;
    }
    upstream = upstream_open(server, dialect, db, false, error);
    if (upstream == NULL)
        return NULL;
    upstream->slot = index;
    if (slot != NULL)
        *slot = upstream;
    return upstream;
}

static struct bytes server_auth(const struct server *server)
{
    const char *sentinel_auth = server->pool->conf->sentinel_auth;

    if (!server->is_sentinel)
        return server->pool->auth;
    return sentinel_auth == NULL ? BYTES_EMPTY : bytes_of_string(sentinel_auth);
}

/* What goes before the first request. Returns how many replies it brings. */
static uint32_t upstream_compose_handshake(const struct upstream *upstream, struct buffer *out)
{
    struct bytes auth = server_auth(upstream->server);
    uint32_t count = 0;

    if (!dialect_is_resp(upstream->dialect))
        return 0;
    if (upstream->dialect == DIALECT_RESP3) {
        if (auth.len > 0) {
            buffer_append_format(out, "*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$%zu\r\n",
                                 auth.len);
            buffer_append(out, auth.data, auth.len);
            buffer_append_string(out, "\r\n");
        } else {
            buffer_append_string(out, "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
        }
        count++;
    } else if (auth.len > 0) {
        buffer_append_format(out, "*2\r\n$4\r\nAUTH\r\n$%zu\r\n", auth.len);
        buffer_append(out, auth.data, auth.len);
        buffer_append_string(out, "\r\n");
        count++;
    }
    if (upstream->db != 0) {
        char digits[20];
        size_t len = u64_to_digits(upstream->db, digits);

        buffer_append_format(out, "*2\r\n$6\r\nSELECT\r\n$%zu\r\n%.*s\r\n", len, (int)len, digits);
        count++;
    }
    return count;
}

void upstream_ready(struct upstream *upstream)
{
    uint64_t now_us = io_now_us(upstream_proxy(upstream)->io);

    upstream_move(upstream, UPSTREAM_READY);
    upstream->deadline_ms = 0;
    server_succeeded(upstream->server);
    for (struct queue_node *node = upstream->inflight.first; node != NULL; node = node->next) {
        struct request *request = CONTAINER_OF(node, struct request, upstream_node);

        if (request->sent_us != UINT64_MAX) /* an upload's clock starts at its end */
            request->sent_us = now_us;
    }
    /* Connected ahead of time: there is nothing to watch yet. */
    if (upstream->inflight_count == 0) {
        list_remove(&upstream->busy_node);
        upstream->idle_since_ms = now_us / 1000;
    }
    upstream_mark_dirty(upstream);
}

static void upstream_connected(struct io_stream *stream, int err)
{
    struct upstream *upstream = upstream_of(stream);
    struct buffer hello = {0};
    uint32_t count;

    if (err != 0) {
        upstream->server->addr_next++;
        SERVER_ADD(upstream->server, connect_failures, 1);
        server_failed(upstream->server, error_of_errno(err));
        upstream_retire(upstream, error_of_errno(err), "cannot connect");
        return;
    }
    io_stream_resume(stream);
    count = upstream_compose_handshake(upstream, &hello);
    if (count == 0) {
        upstream_ready(upstream);
        return;
    }
    upstream_move(upstream, UPSTREAM_HANDSHAKE);
    upstream->handshake_left = (uint8_t)count;
    {
        struct iovec slice = {.iov_base = hello.data, .iov_len = hello.len};
        /* A fresh connection takes these few bytes at once; one that does not is no good. */
        ssize_t sent = hello.failed ? -ENOMEM : io_stream_send(stream, &slice, 1);

        if (sent != (ssize_t)hello.len)
            upstream_retire(upstream, ERROR_reset, "handshake not sent");
    }
    if (hello.data != NULL)
        explicit_bzero(hello.data, hello.len);
    buffer_deinit(&hello);
}

/* ---- requests out ---------------------------------------------------------------------------- */

void upstream_begin(struct upstream *upstream, struct request *request)
{
    ASSERT(upstream->state != UPSTREAM_CLOSED);
    request->upstream = upstream;
    if (upstream->inflight_count++ == 0)
        upstream_set_busy(upstream);
    queue_push(&upstream->inflight, &request->upstream_node);
    request->sent_us = request->start_us;
}

void upstream_write(struct upstream *upstream, const void *data, size_t size)
{
    if (UNLIKELY(!outbuf_append(&upstream_proxy(upstream)->chunks, &upstream->out, data, size)))
        upstream->is_out_of_memory = true;
    upstream->queued_total += size;
}

char *upstream_reserve(struct upstream *upstream, size_t size)
{
    return size > OUTBUF_RESERVE_MAX
               ? NULL
               : outbuf_reserve(&upstream_proxy(upstream)->chunks, &upstream->out, size);
}

void upstream_commit(struct upstream *upstream, size_t size)
{
    outbuf_commit(&upstream->out, size);
    upstream->queued_total += size;
}

void upstream_end(struct upstream *upstream, struct request *request)
{
    SERVER_ADD(upstream->server, requests, 1);
    SERVER_ADD(upstream->server, request_bytes, upstream->queued_total - upstream->last_end);
    request->wire_end = upstream->last_end = upstream->queued_total;
    if (UNLIKELY(upstream->is_out_of_memory))
        upstream_retire(upstream, ERROR_out_of_memory, "out of memory");
    else
        upstream_mark_dirty(upstream);
}

void upstream_submit(struct upstream *upstream, struct request *request, struct bytes frame)
{
    upstream_begin(upstream, request);
    upstream_write(upstream, frame.data, frame.len);
    upstream_end(upstream, request);
}

/* The server has closed, and not a byte of what waits here was sent: it goes on over another connection, in
 * its order, writes too. So nobody loses a request to a server that closes idle connections. */
static bool upstream_move_unsent(struct upstream *upstream)
{
    struct server *server = upstream->server;
    struct upstream **slot = upstream_slot(server, upstream->dialect, upstream->db, upstream->slot);
    enum error_id error = ERROR_NONE;
    struct upstream *next;

    if (upstream->state != UPSTREAM_READY || upstream->is_private || upstream->is_probe ||
        upstream->inflight_count == 0 || upstream->uploader != NULL || upstream->seen_reply ||
        upstream->move_count >= UPSTREAM_MOVES_MAX || upstream->queued_total - upstream->out.len > upstream->done_end)
        return false;
    next = upstream_open(server, upstream->dialect, upstream->db, false, &error);
    if (next == NULL)
        return false;
    next->slot = upstream->slot;
    next->move_count = upstream->move_count + 1;
    if (slot != NULL)
        *slot = next;
    for (struct queue_node *node = upstream->inflight.first; node != NULL; node = node->next)
        CONTAINER_OF(node, struct request, upstream_node)->upstream = next;
    next->inflight = upstream->inflight;
    next->inflight_count = upstream->inflight_count;
    next->tombstone_count = upstream->tombstone_count;
    next->queued_total = upstream->queued_total;
    next->last_end = upstream->last_end;
    next->done_end = upstream->done_end;
    outbuf_splice(&next->out, &upstream->out);
    queue_init(&upstream->inflight);
    upstream->inflight_count = upstream->tombstone_count = 0;
    return true;
}

/* How much may go now: everything, or, in a paranoid pool, the one request that is asked about. */
static size_t upstream_allowance(const struct upstream *upstream)
{
    const struct request *head = upstream_head(upstream);
    uint64_t sent = upstream->queued_total - upstream->out.len;

    if (LIKELY(!upstream->server->pool->conf->paranoid) || head == NULL || upstream->uploader != NULL)
        return upstream->out.len;
    return head->wire_end > sent ? (size_t)(head->wire_end - sent) : 0;
}

static bool upstream_send_prepare(struct send *send)
{
    struct upstream *upstream = send->upstream;

    send->count = outbuf_slices_of(&upstream->out, upstream_allowance(upstream), send->slices, SEND_SLICES, &send->total);
    return send->count > 0;
}

static void upstream_flush_end(struct upstream *upstream)
{
    if (UNLIKELY(upstream->uploader != NULL))
        upload_flushed(upstream);
    upstream_gauges(upstream, false);
}

bool upstream_flush_begin(struct upstream *upstream, struct send *send)
{
    if (upstream->state != UPSTREAM_READY || upstream->is_blocked) {
        upstream_gauges(upstream, false);
        return false;
    }
    send->upstream = upstream;
    if (LIKELY(upstream_send_prepare(send)))
        return true;
    upstream_flush_end(upstream);
    return false;
}

void upstream_flush_count(struct send *send, ssize_t sent)
{
    struct upstream *upstream = send->upstream;

    if (UNLIKELY(sent < 0))
        return;
    outbuf_consume(&upstream_proxy(upstream)->chunks, &upstream->out, (size_t)sent);
    upstream->is_blocked = (size_t)sent < send->total;
}

static void upstream_send_failed(struct upstream *upstream, enum error_id error)
{
    SERVER_ADD(upstream->server, server_err, 1);
    if (!upstream_move_unsent(upstream))
        server_failed(upstream->server, error);
    upstream_retire(upstream, error, "send failed");
}

void upstream_flush_sent(struct send *send, ssize_t sent)
{
    struct upstream *upstream = send->upstream;

    if (UNLIKELY(upstream->state != UPSTREAM_READY)) /* retired, for what became of another one */
        return;
    while (sent >= 0 && !upstream->is_blocked && UNLIKELY(upstream_send_prepare(send))) {
        sent = io_stream_send(&upstream->stream, send->slices, send->count);
        upstream_flush_count(send, sent);
    }
    if (UNLIKELY(sent < 0)) {
        upstream_send_failed(upstream, error_of_errno((int)sent));
        upstream_gauges(upstream, false);
        return;
    }
    upstream_flush_end(upstream);
}

static void upstream_writable(struct io_stream *stream)
{
    struct upstream *upstream = upstream_of(stream);

    upstream->is_blocked = false;
    upstream_mark_dirty(upstream);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void upstream_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct upstream *upstream = upstream_of(stream);
    struct server *server = upstream->server;

    MAYBE(rest.len);
    if (err == ERR_EOF)
        SERVER_ADD(server, server_eof, 1);
    else
        SERVER_ADD(server, server_err, 1);
    /* An idle connection that the server closes is its right; one in use is a failure. */
    if (!upstream_move_unsent(upstream) &&
        (upstream->inflight_count > 0 || upstream->state != UPSTREAM_READY))
        server_failed(server, ERROR_reset);
    upstream_retire(upstream, ERROR_reset, "closed by the server");
}

/* Sends a read again whose connection broke before a byte of its reply came. Where members are found out,
 * whatever was never sent at all (is_unsent): the server it waited for may be another one by now. */
static bool request_retry(struct request *request, struct pool *pool, bool is_unsent)
{
    struct server *server;
    struct upstream *upstream;
    enum error_id error = ERROR_NONE;

    if (request->is_tombstone || request->is_started || request->reply.len > 0 ||
        request->wire_len == 0 || request->kind != REQUEST_CLIENT ||
        request->retry_count >= UPSTREAM_RETRIES_MAX || request->client == NULL)
        return false;
    if (is_unsent ? request->key_len == 0 : !request->is_idempotent || pool->retry_budget < 1)
        return false;
    server = route_key(pool, bytes_of(request_wire(request).data + request->key_off, request->key_len));
    if (server == NULL)
        return false;
    upstream = upstream_get(server, request->client, request->dialect, request->client->db, &error);
    if (upstream == NULL)
        return false;
    pool->retry_budget -= is_unsent ? 0 : 1;
    request->retry_count++;
    POOL_ADD(pool, retries, 1);
    upstream_submit(upstream, request, request_wire(request));
    return true;
}

void upstream_retire(struct upstream *upstream, enum error_id error, const char *why)
{
    struct server *server = upstream->server;
    struct pool *pool = server->pool;
    struct proxy *proxy = pool->proxy;
    struct upstream **slot;
    struct queue inflight = upstream->inflight;
    struct queue_node *node;
    bool was_ready = upstream->state == UPSTREAM_READY;
    bool head_has_reply = upstream->seen_reply;
    bool may_retry = error == ERROR_reset &&
                     (was_ready || (pool->discovery != NULL && !upstream->is_private));

    if (upstream->state == UPSTREAM_CLOSED)
        return;
    log_debug(proxy_log(proxy), "upstream closed pool=%s server=%s why=\"%s\" inflight=%u",
              pool->conf->name, server->name, why, upstream->inflight_count);
    upstream_move(upstream, UPSTREAM_CLOSED);
    io_stream_close(&upstream->stream);
    SERVER_ADD(server, server_connections, -1);
    list_remove(&upstream->server_node);
    if (list_node_is_linked(&upstream->busy_node))
        list_remove(&upstream->busy_node);
    slot = upstream->is_private ? NULL
                                : upstream_slot(server, upstream->dialect, upstream->db, upstream->slot);
    if (slot != NULL && *slot == upstream)
        *slot = NULL;
    if (server->probe == upstream)
        server->probe = NULL;
    outbuf_clear(&proxy->chunks, &upstream->out);
    upstream->dead_next = proxy->dead_upstreams;
    proxy->dead_upstreams = upstream;
    /* From here on callbacks may open new upstreams; this one takes no part any more. */
    queue_init(&upstream->inflight);
    upstream->inflight_count = 0;
    if (upstream->uploader != NULL)
        upload_upstream_gone(upstream);
    upstream_gauges(upstream, false);
    if (inflight.first == NULL)
        inflight.last = &inflight.first;
    while ((node = queue_pop(&inflight)) != NULL) {
        struct request *request = CONTAINER_OF(node, struct request, upstream_node);

        if (may_retry && !head_has_reply && request_retry(request, pool, !was_ready)) {
            head_has_reply = false;
            continue;
        }
        head_has_reply = false;
        request_fail(request, error);
    }
    if (upstream->is_private)
        session_upstream_gone(upstream, error);
    if (UNLIKELY(server->is_sentinel))
        discovery_upstream_gone(upstream);
}

/* Its server may be gone already: at the end of the pool, or of a topology. */
void upstream_free(struct proxy *proxy, struct upstream *upstream)
{
    ASSERT(upstream->state == UPSTREAM_CLOSED && upstream->inflight_count == 0);
    mem_pool_put(&proxy->upstreams, upstream);
}

/* ---- time ------------------------------------------------------------------------------------ */

/* Puts a tombstone in the request's place; `link` is what points to it. The request is off the queue. */
static bool upstream_entomb(struct upstream *upstream, struct queue_node **link, struct request *request)
{
    struct request *tombstone = request_create(upstream_proxy(upstream), NULL, REQUEST_CLIENT);

    if (tombstone == NULL)
        return false;
    tombstone->dialect = request->dialect;
    tombstone->mc_kind = request->mc_kind;
    tombstone->command = request->command;
    tombstone->bin_opaque = request->bin_opaque;
    tombstone->wire_end = request->wire_end;
    tombstone->sent_us = request->sent_us;
    tombstone->is_tombstone = true;
    tombstone->upstream = upstream;
    tombstone->upstream_node.next = request->upstream_node.next;
    *link = &tombstone->upstream_node;
    if (upstream->inflight.last == &request->upstream_node.next)
        upstream->inflight.last = &tombstone->upstream_node.next;
    request->upstream = NULL;
    upstream->tombstone_count++;
    return true;
}

/* false: the upstream was retired. */
static bool upstream_time_out(struct upstream *upstream, struct queue_node **link,
                              struct request *request)
{
    SERVER_ADD(upstream->server, server_timedout, 1);
    POOL_ADD(upstream->server->pool, forward_error, 1);
    switch ((enum request_kind)request->kind) {
    case REQUEST_CLIENT:
        /* The client gets its error now; the place in this queue stays taken. */
        if (!upstream_entomb(upstream, link, request)) {
            upstream_retire(upstream, ERROR_out_of_memory, "out of memory");
            return false;
        }
        request_fail_at(request, upstream->server, ERROR_timeout);
        break;
    case REQUEST_PART:
        fanout_part_done(request, ERROR_timeout);
        request_abandon(request);
        break;
    case REQUEST_INTERNAL:
        request->internal_done(request, ERROR_timeout, BYTES_EMPTY);
        request_abandon(request);
        break;
    }
    return upstream->state != UPSTREAM_CLOSED;
}

/* Requests are in the order of their times: the first that is young ends the walk. `overdue_count`: the
 * old ones, tombstones too, whose replies are still to come. */
static bool upstream_time_out_old(struct upstream *upstream, uint64_t limit_us, uint32_t *overdue_count)
{
    struct queue_node **link = &upstream->inflight.first;
    bool has_timed_out = false;

    while (*link != NULL) {
        struct request *request = CONTAINER_OF(*link, struct request, upstream_node);

        if (request->sent_us <= limit_us)
            ++*overdue_count;
        if (!request->is_tombstone) {
            if (request->sent_us > limit_us)
                break;
            has_timed_out = true;
            if (!upstream_time_out(upstream, link, request))
                return true;
        }
        link = &(*link)->next;
    }
    return has_timed_out;
}

void upstream_tick(struct upstream *upstream, uint64_t now_ms)
{
    const struct conf_pool *conf = upstream->server->pool->conf;
    int64_t timeout_ms =
        upstream->state == UPSTREAM_READY ? conf->reply_timeout_ms : conf->queue_timeout_ms;
    uint64_t age_max_ms = UPSTREAM_TOMBSTONE_AGE_MAX_MS;
    struct request *head;
    uint32_t overdue_count = 0;
    bool has_timed_out = false;

    upstream_gauges(upstream, true);
    if (upstream->deadline_ms != 0 && now_ms >= upstream->deadline_ms) {
        SERVER_ADD(upstream->server, server_timedout, 1);
        server_failed(upstream->server, ERROR_timeout);
        upstream_retire(upstream, ERROR_queue_timeout, "connect timed out");
        return;
    }
    if (upstream->is_patient)
        return;
    if (timeout_ms >= 0) {
        uint64_t now_us = now_ms * 1000;

        has_timed_out = upstream_time_out_old(
            upstream, now_us - MIN(now_us, (uint64_t)timeout_ms * 1000), &overdue_count);
        age_max_ms = MIN(age_max_ms, (uint64_t)timeout_ms * 2);
    }
    if (has_timed_out)
        server_failed(upstream->server, ERROR_timeout);
    if (upstream->state == UPSTREAM_CLOSED)
        return;
    head = upstream_head(upstream);
    if (overdue_count > UPSTREAM_OVERDUE_MAX)
        upstream_retire(upstream, ERROR_timeout, "too many replies are overdue");
    else if (head != NULL && head->is_tombstone && now_ms * 1000 > head->sent_us + age_max_ms * 1000)
        upstream_retire(upstream, ERROR_timeout, "a reply is long overdue");
}
