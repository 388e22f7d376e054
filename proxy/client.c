/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client connection: bytes in, one reply a request out, in order.
 *
 *     open ----------------> closing (answers what it has, sends it) --------> dead --> freed
 *       \---- broken, or too slow: everything in flight becomes tombstones ----^   by the flush hook
 *
 *   C1  Requests are answered in the order of client->requests; only the head's reply goes to `out`.
 *   C2  `pause` is the set of reasons not to read; the stream is armed exactly while it is empty.
 *   C3  A dead client has no requests, no stream and is on no list but the dead one.
 */
#include "proxy/proxy_private.h"
#include "proxy/observe.h"

/* A client's requests with many keys wait for each other beyond this: what they bring is not known before,
 * and servers answer faster than anybody reads. */
#define INFLIGHT_KEYS_MAX 4096
#define WEIGHED_KEYS_MIN  64
/* A slow reader is read on when it has taken its replies down to this share of what stopped it. */
#define CLIENT_OUTPUT_RESUME_SHARE 4

static size_t client_recv(struct io_stream *stream, struct bytes data);
static void client_closed(struct io_stream *stream, int err, struct bytes rest);
static void client_writable(struct io_stream *stream);

static const struct io_stream_handler client_handler = {
    .recv = client_recv,
    .closed = client_closed,
    .writable = client_writable,
};

static struct client *client_of(struct io_stream *stream)
{
    return CONTAINER_OF(stream, struct client, stream);
}

static bool client_is_too_many(struct pool *pool)
{
    struct health_area *health = pool->proxy->health;
    uint32_t pool_max = pool->conf->client_connections;
    uint32_t all_max = pool->proxy->conf->process.limits.clients_max, all = 0;

    if (pool_max > 0 && health_clients_of(health, pool->index) > pool_max)
        return true;
    for (uint32_t i = 0; all_max > 0 && i < health->pool_count; i++)
        all += health_clients_of(health, i);
    return all_max > 0 && all > all_max;
}

struct client *client_create(struct pool *pool, int fd, const struct io_addr *peer, struct bytes rest)
{
    struct proxy *proxy = pool->proxy;
    struct client *client = mem_pool_get(&proxy->clients);
    struct io_stream_options options = {.keepalive = pool->conf->tcpkeepalive}; /* nodelay: the listener's */

    MAYBE(peer);
    if (client == NULL) {
        struct io_stream refused = {0};

        if (io_stream_open(proxy->io, &refused, &client_handler, fd, &options, BYTES_EMPTY) == 0)
            io_stream_abort(&refused);
        return NULL;
    }
    memset(client, 0, sizeof(*client));
    if (io_stream_open(proxy->io, &client->stream, &client_handler, fd, &options, rest) != 0) {
        mem_pool_put(&proxy->clients, client);
        return NULL;
    }
    client->pool = pool;
    client->id = ++proxy->next_client_id;
    client->dialect = pool->speaks_redis ? DIALECT_RESP2 : DIALECT_MC_TEXT;
    client->db = (uint8_t)pool->conf->redis_db;
    client->is_authenticated = pool->auth.len == 0;
    client->last_active_s = (uint32_t)(io_now_ms(proxy->io) / 1000);
    queue_init(&client->requests);
    list_push_back(&pool->clients, &client->node);
    pool->client_count++;
    __atomic_store_n(pool->shared_clients, pool->client_count, __ATOMIC_RELAXED);
    proxy->client_count++;
    proxy->total_connections++;
    POOL_ADD(pool, client_connections, 1);
    POOL_ADD(pool, client_accepted, 1);
    io_stream_resume(&client->stream);
    return client;
}

void client_check_limits(struct client *client)
{
    if (!client_is_too_many(client->pool))
        return;
    POOL_ADD(client->pool, client_rejected, 1);
    client_reply_error(client, ERROR_clients_max);
}

void client_mark_dirty(struct client *client)
{
    struct proxy *proxy = client->pool->proxy;

    if (client->is_dirty || client->is_dead)
        return;
    client->is_dirty = true;
    client->dirty_next = proxy->dirty_clients;
    proxy->dirty_clients = client;
}

void client_pause(struct client *client, enum client_pause reason)
{
    if (client->pause == 0 && io_stream_is_open(&client->stream))
        io_stream_pause(&client->stream);
    client->pause |= (uint8_t)reason;
}

void client_unpause(struct client *client, enum client_pause reason)
{
    if ((client->pause & reason) == 0)
        return;
    client->pause &= (uint8_t)~reason;
    if (client->pause == 0 && io_stream_is_open(&client->stream))
        io_stream_resume(&client->stream);
}

/* Bytes that wait for the client. */
static uint64_t client_output(const struct client *client)
{
    return (uint64_t)client->out.len + client->held_bytes;
}

void client_weigh(struct client *client, uint32_t key_count)
{
    struct request *last;

    if (LIKELY(key_count < WEIGHED_KEYS_MIN) || client->requests.first == NULL)
        return;
    last = CONTAINER_OF(CONTAINER_OF(client->requests.last, struct queue_node, next), struct request,
                        client_node);
    last->part_index += key_count;
    client->inflight_keys += key_count;
    if (client->inflight_keys >= INFLIGHT_KEYS_MAX)
        client_pause(client, PAUSE_PIPELINE);
}

/* ---- in -------------------------------------------------------------------------------------- */

static bool client_is_between_frames(const struct client *client)
{
    return dialect_is_resp(client->dialect)
               ? client->parser.resp.scan_off == 0
               : client->parser.text.swallow == 0 && client->parser.text.scan_off == 0;
}

static size_t client_handle(struct client *client, struct bytes data)
{
    unsigned char first = (unsigned char)data.data[0];

    /* In the middle of a frame its bytes decide nothing: what is left of a refused value is still the
     * value's, whatever it looks like. */
    if (UNLIKELY(!client_is_between_frames(client)))
        first = client->dialect == DIALECT_MC_BINARY ? MC_BIN_REQUEST
                : client->dialect == DIALECT_MC_TEXT ? 'g'
                : client->parser.resp.arg_count > 0  ? '*'
                                                     : first;
    if (first == '*')
        return client_handle_redis(client, data);
    if (first == MC_BIN_REQUEST)
        return client_handle_binary(client, data);
    if (dialect_is_resp(client->dialect) && !client_is_between_frames(client))
        return client_handle_redis(client, data);
    if (client->pool->speaks_redis && !client->pool->speaks_memcache)
        return client_handle_redis(client, data);
    return client_handle_memcache(client, data);
}

static size_t client_recv(struct io_stream *stream, struct bytes data)
{
    struct client *client = client_of(stream);
    struct pool *pool = client->pool;
    size_t consumed = 0;

    /* Who has not given the password yet has so long from the start: bytes alone do not win time. */
    if (LIKELY(client->is_authenticated))
        client->last_active_s = (uint32_t)(io_now_ms(pool->proxy->io) / 1000);
    while (consumed < data.len && client->pause == 0 && !client->is_dead) {
        size_t used = LIKELY(client->upload == NULL)
                          ? client_handle(client, bytes_skip(data, consumed))
                          : upload_recv(client, bytes_skip(data, consumed));

        if (used == 0)
            break;
        consumed += used;
        if (UNLIKELY(client->request_count >= pool->proxy->conf->process.limits.client_inflight_max))
            client_pause(client, PAUSE_PIPELINE);
        if (UNLIKELY(client_output(client) > pool->proxy->conf->process.limits.client_output_max))
            client_pause(client, PAUSE_OUTPUT);
    }
    *pool->proxy->note = NULL;
    POOL_ADD(pool, client_request_bytes, consumed);
    return consumed;
}

/* The peer has closed its side. What it asked for is still answered: `printf ... | nc -N` works. */
static void client_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct client *client = client_of(stream);

    if (err != ERR_EOF) {
        POOL_ADD(client->pool, client_err, 1);
        client_close(client);
        return;
    }
    POOL_ADD(client->pool, client_eof, 1);
    if (session_is_blocked(client) || client->upload != NULL) {
        client_close(client);
        return;
    }
    client->is_eof = true;
    /* Requests that came before the end but were held up are still served. */
    while (rest.len > 0 && client->pause == 0 && !client->is_dead) {
        size_t used = client_handle(client, rest);

        if (used == 0)
            break;
        rest = bytes_skip(rest, used);
    }
    if (!client->is_dead)
        client_advance(client);
}

/* ---- out ------------------------------------------------------------------------------------- */

static void client_writable(struct io_stream *stream)
{
    client_mark_dirty(client_of(stream));
}

bool client_flush_begin(struct client *client, struct send *send)
{
    send->client = client;
    send->count = outbuf_slices_of(&client->out, SIZE_MAX, send->slices, SEND_SLICES, &send->total);
    return send->count > 0;
}

bool client_flush_sent(struct send *send, ssize_t sent)
{
    struct client *client = send->client;
    struct proxy *proxy = client->pool->proxy;

    if (UNLIKELY(client->is_dead)) /* by what another one's end has set off */
        return false;
    for (;;) {
        if (UNLIKELY(sent < 0)) {
            POOL_ADD(client->pool, client_err, 1);
            client_close(client);
            return false;
        }
        POOL_ADD(client->pool, client_response_bytes, sent);
        outbuf_consume(&proxy->chunks, &client->out, (size_t)sent);
        if ((size_t)sent < send->total || LIKELY(!client_flush_begin(client, send)))
            return true; /* after a short one writable() goes on */
        sent = io_stream_send(&client->stream, send->slices, send->count);
    }
}

bool client_flush_end(struct client *client)
{
    if (UNLIKELY(client->pause & PAUSE_OUTPUT) &&
        client_output(client) <=
            client->pool->proxy->conf->process.limits.client_output_max / CLIENT_OUTPUT_RESUME_SHARE)
        client_unpause(client, PAUSE_OUTPUT);
    if (UNLIKELY(client->is_closing || client->is_eof) && client->request_count == 0 &&
        outbuf_is_empty(&client->out)) {
        client_close(client);
        return false;
    }
    return true;
}

static void client_pop_done(struct client *client)
{
    struct proxy *proxy = client->pool->proxy;

    while (client->requests.first != NULL) {
        struct request *head = CONTAINER_OF(client->requests.first, struct request, client_node);

        if (head->reply.first != NULL) {
            client->held_bytes -= (uint32_t)head->reply.len;
            outbuf_splice(&client->out, &head->reply);
            head->is_started = true;
        }
        if (!head->is_done)
            break;
        queue_pop(&client->requests);
        client->request_count--;
        client->inflight_keys -= head->part_index;
        if (head->closes) {
            client->is_closing = true;
            client_pause(client, PAUSE_CLOSING);
        }
        observe_client_queue(client->pool, head->sent_us);
        head->client = NULL;
        request_free(proxy, head);
    }
}

void client_advance(struct client *client)
{
    uint32_t inflight_max = client->pool->proxy->conf->process.limits.client_inflight_max;

    client_pop_done(client);
    if (client->pause != 0) {
        if (client_output(client) > client->pool->proxy->conf->process.limits.client_output_max)
            client_pause(client, PAUSE_OUTPUT);
        if (client->request_count == 0)
            client_unpause(client, PAUSE_BARRIER);
        if (client->request_count <= inflight_max / 2 && client->inflight_keys <= INFLIGHT_KEYS_MAX / 2)
            client_unpause(client, PAUSE_PIPELINE);
    }
    client_mark_dirty(client);
}

void client_reply(struct client *client, struct bytes reply)
{
    struct proxy *proxy = client->pool->proxy;
    struct request *request;

    POOL_ADD(client->pool, local_replies, 1);
    if (UNLIKELY(client->session != NULL) && session_is_mute(client))
        return;
    if (client->requests.first == NULL) {
        POOL_ADD(client->pool, client_responses, 1);
        if (!outbuf_append(&proxy->chunks, &client->out, reply.data, reply.len))
            client_close(client);
        else
            client_mark_dirty(client);
        return;
    }
    request = request_create(proxy, client, REQUEST_CLIENT);
    if (request == NULL || !outbuf_append(&proxy->chunks, &request->reply, reply.data, reply.len)) {
        client_close(client);
        return;
    }
    client->held_bytes += (uint32_t)reply.len;
    POOL_ADD(client->pool, client_responses, 1);
    request->is_done = true;
}

void client_reply_error(struct client *client, enum error_id error)
{
    /* The binary protocol has no error without a request: who gets here is closed. */
    if (client->dialect == DIALECT_MC_BINARY) {
        client_close_after_replies(client);
        return;
    }
    client_reply(client, error_bytes(error, client->dialect));
    if (error_info(error)->closes && !client->is_dead)
        client_close_after_replies(client);
}

void client_reply_text_error(struct client *client, const char *format, ...)
{
    char text[512];
    va_list args;
    int written;
    size_t len;

    va_start(args, format);
    written = vsnprintf(text + 1, sizeof(text) - 3, format, args);
    va_end(args);
    len = MIN((size_t)MAX(written, 0), sizeof(text) - 4);
    for (size_t i = 1; i <= len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = ' ';
    text[0] = '-';
    memcpy(text + 1 + len, "\r\n", 2);
    if (dialect_is_resp(client->dialect))
        client_reply(client, bytes_of(text, len + 3));
    else
        client_reply(client, bytes_of(text + 1, len + 2));
}

/* ---- the end --------------------------------------------------------------------------------- */

void client_close_after_replies(struct client *client)
{
    client_pause(client, PAUSE_CLOSING);
    client->is_closing = true;
    client_mark_dirty(client);
}

static void client_abandon_requests(struct client *client)
{
    struct queue_node *node;

    while ((node = queue_pop(&client->requests)) != NULL) {
        struct request *request = CONTAINER_OF(node, struct request, client_node);

        if (request->upstream != NULL) {
            request_abandon(request);
        } else {
            request->client = NULL;
            request_free(client->pool->proxy, request);
        }
    }
    client->request_count = 0;
    client->inflight_keys = 0;
}

void client_break_off(struct client *client)
{
    client_abandon_requests(client);
    client_close_after_replies(client);
}

void client_close(struct client *client)
{
    struct pool *pool = client->pool;
    struct proxy *proxy = pool->proxy;

    if (client->is_dead)
        return;
    client->is_dead = true;
    client->pause |= PAUSE_CLOSING;
    io_stream_close(&client->stream);
    if (client->upload != NULL)
        upload_abort(client);
    client_abandon_requests(client);
    outbuf_clear(&proxy->chunks, &client->out);
    session_destroy(client);
    list_remove(&client->node);
    pool->client_count--;
    __atomic_store_n(pool->shared_clients, pool->client_count, __ATOMIC_RELAXED);
    proxy->client_count--;
    POOL_ADD(pool, client_connections, -1);
    client->dead_next = proxy->dead_clients;
    proxy->dead_clients = client;
    proxy_client_gone(proxy);
}

void client_free(struct client *client)
{
    ASSERT(client->is_dead);
    mem_pool_put(&client->pool->proxy->clients, client);
}
