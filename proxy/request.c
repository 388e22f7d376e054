/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a request: created when its last byte was read, answered once, freed.
 *
 *                  upstream_submit        reply scanned             its turn
 *     [created] ------------------> [in flight] ------> [done, waits] ------> [freed]
 *                                    |       \-- head of its client: passed on at once --^
 *                                    | client gone, time-out
 *                                    v
 *                                [tombstone] -- reply scanned, dropped --> [freed]
 *
 *   Q1  A request that is in flight is freed only by its upstream's queue moving on.
 *   Q2  `client` is set exactly as long as the request is in that client's queue; a tombstone has none.
 *   Q3  Once a byte of its reply was passed on (is_started), a failure closes the client: an error text
 *       is never spliced into a half-sent value.
 */
#include "proxy/proxy_private.h"
#include "proxy/observe.h"

struct request *request_create(struct proxy *proxy, struct client *client, enum request_kind kind)
{
    struct request *request = mem_pool_get(&proxy->requests);

    if (UNLIKELY(request == NULL))
        return NULL;
    memset(request, 0, offsetof(struct request, wire));
    request->kind = (uint8_t)kind;
    request->start_us = io_now_us(proxy->io);
    if (client == NULL)
        return request;
    request->client = client;
    request->dialect = client->dialect;
    if (kind == REQUEST_CLIENT) {
        queue_push(&client->requests, &request->client_node);
        client->request_count++;
        if (UNLIKELY(client->session != NULL))
            request->is_silent = session_is_mute(client);
    }
    return request;
}

bool request_keep_wire(struct request *request, struct bytes wire)
{
    ASSERT(request->wire_len == 0);
    if (wire.len <= REQUEST_WIRE_INLINE) {
        memcpy(request->wire, wire.data, wire.len);
    } else {
        char *copy = mem_alloc(wire.len);

        if (copy == NULL)
            return false;
        memcpy(copy, wire.data, wire.len);
        request->wire_heap = copy;
        request->wire_is_heap = true;
    }
    request->wire_len = (uint32_t)wire.len;
    return true;
}

static void request_forget_awaiter(struct request *request)
{
    struct request **awaiter = request->internal_arg;

    if (awaiter != NULL)
        *awaiter = NULL;
}

void request_free(struct proxy *proxy, struct request *request)
{
    ASSERT(request->upstream == NULL);
    outbuf_clear(&proxy->chunks, &request->reply);
    if (UNLIKELY(request->is_awaited))
        request_forget_awaiter(request);
    if (UNLIKELY(request->whole != NULL)) {
        buffer_deinit(request->whole);
        mem_free(request->whole);
    }
    if (request->wire_is_heap)
        mem_free(request->wire_heap);
    if (UNLIKELY(request->is_split && request->fanout != NULL))
        fanout_abandon(request->fanout);
    mem_pool_put(&proxy->requests, request);
}

static struct request *client_head(const struct client *client)
{
    return client->requests.first == NULL
               ? NULL
               : CONTAINER_OF(client->requests.first, struct request, client_node);
}

/* Bytes of a client's own request: out at once when it is its turn, else kept. */
static void request_deliver_to_client(struct request *request, struct bytes part)
{
    struct client *client = request->client;
    struct proxy *proxy = client->pool->proxy;

    request->reply_bytes += (uint32_t)part.len;
    if (UNLIKELY(request->is_silent))
        return;
    if (client_head(client) == request) {
        request->is_started = true;
        if (UNLIKELY(!outbuf_append(&proxy->chunks, &client->out, part.data, part.len))) {
            client_close(client);
            return;
        }
        client_mark_dirty(client);
    } else {
        client->held_bytes += (uint32_t)part.len;
        if (UNLIKELY(!outbuf_append(&proxy->chunks, &request->reply, part.data, part.len))) {
            client_close(client);
            return;
        }
    }
    /* The upstream is shared: it cannot be paused for one slow reader. */
    if (UNLIKELY(client->out.len + client->held_bytes > proxy->conf->process.limits.client_output_close ||
                 chunk_pools_bytes(&proxy->chunks) > proxy->conf->process.limits.worker_memory_max)) {
        POOL_ADD(client->pool, client_output_limit, 1);
        client_close(client);
    }
}

static void request_collect(struct request *request, struct bytes part)
{
    if (request->whole == NULL) {
        request->whole = mem_zalloc(sizeof(*request->whole));
        if (request->whole == NULL)
            return;
        request->whole->max = 4u << 20;
    }
    buffer_append(request->whole, part.data, part.len);
}

void request_deliver(struct request *request, struct bytes part)
{
    if (part.len == 0 || request->is_tombstone)
        return;
    switch ((enum request_kind)request->kind) {
    case REQUEST_CLIENT:
        if (request->client != NULL)
            request_deliver_to_client(request, part);
        break;
    case REQUEST_PART:
        fanout_part_deliver(request, part);
        break;
    case REQUEST_INTERNAL:
        request_collect(request, part);
        break;
    }
}

static void request_finish_client(struct request *request, struct bytes part)
{
    struct client *client = request->client;
    struct proxy *proxy = client->pool->proxy;

    if (part.len > 0) {
        request_deliver_to_client(request, part);
        /* The client may have been closed; its requests were abandoned with it, this one too. */
        if (client->is_dead)
            return;
    }
    request->is_done = true;
    POOL_ADD(client->pool, client_responses, 1);
    if (client_head(client) != request) {
        request->sent_us = io_now_us(proxy->io); /* from now on it waits for its turn */
        return;
    }
    request->sent_us = 0;
    if (LIKELY(!request->closes && request->reply.first == NULL)) {
        queue_pop(&client->requests);
        client->request_count--;
        client->inflight_keys -= request->part_index;
        request->client = NULL;
        request_free(proxy, request);
    }
    /* What the next one has held so far goes before what it gets from now on. */
    if (client->requests.first == NULL ? (client->pause | client->is_closing | client->is_eof) != 0
                                       : client_head(client)->is_done || client->pause != 0 ||
                                             client_head(client)->reply.first != NULL)
        client_advance(client);
    if (UNLIKELY(client->session != NULL))
        session_replied(client);
}

void request_finish_merged(struct request *request, struct outbuf *merged)
{
    struct client *client = request->client;
    struct proxy *proxy = client->pool->proxy;

    if (request->is_silent)
        outbuf_clear(&proxy->chunks, merged);
    request->reply_bytes = (uint32_t)merged->len;
    observe_own(client->pool, NULL, request, false);
    if (client_head(client) == request) {
        outbuf_splice(&client->out, merged);
        client_mark_dirty(client);
    } else {
        client->held_bytes += (uint32_t)merged->len;
        outbuf_splice(&request->reply, merged);
    }
    if (client->out.len + client->held_bytes > proxy->conf->process.limits.client_output_close) {
        POOL_ADD(client->pool, client_output_limit, 1);
        client_close(client);
        return;
    }
    request_finish_client(request, BYTES_EMPTY);
}

void request_finish_bytes(struct request *request, struct bytes reply)
{
    struct client *client = request->client;
    struct outbuf merged = {0};

    if (!outbuf_append(&client->pool->proxy->chunks, &merged, reply.data, reply.len))
        client_close(client);
    else
        request_finish_merged(request, &merged);
}

void request_finish(struct request *request, struct bytes part)
{
    struct upstream *upstream = request->upstream;
    struct proxy *proxy;

    /* In flight or not: where it was submitted to tells the proxy that owns it. */
    ASSERT(upstream != NULL);
    proxy = upstream->server->pool->proxy;
    request->upstream = NULL;
    if (UNLIKELY(request->is_tombstone)) {
        ASSERT(upstream->tombstone_count > 0);
        upstream->tombstone_count--;
        SERVER_ADD(upstream->server, tombstones, 1);
        request_free(proxy, request);
        return;
    }
    observe_reply(upstream, request, part);
    switch ((enum request_kind)request->kind) {
    case REQUEST_CLIENT:
        request_finish_client(request, part);
        break;
    case REQUEST_PART:
        fanout_part_deliver(request, part);
        fanout_part_done(request, ERROR_NONE);
        request_free(proxy, request);
        break;
    case REQUEST_INTERNAL: {
        request_collect(request, part);
        request->internal_done(request,
                               request->whole == NULL || request->whole->failed ? ERROR_out_of_memory
                                                                                : ERROR_NONE,
                               request->whole == NULL ? BYTES_EMPTY : buffer_bytes(request->whole));
        request_free(proxy, request);
        break;
    }
    }
}

void request_fail_at(struct request *request, struct server *server, enum error_id error)
{
    struct error_room room;
    struct proxy *proxy = NULL;
    struct client *client = request->client;

    if (request->upstream != NULL) {
        struct upstream *upstream = request->upstream;

        proxy = upstream->server->pool->proxy;
        request->upstream = NULL;
        if (request->is_tombstone) {
            upstream->tombstone_count--;
            request_free(proxy, request);
            return;
        }
        POOL_ADD(upstream->server->pool, forward_error, 1);
    }
    if (request->kind == REQUEST_CLIENT)
        observe_own(client->pool, server, request, true);
    switch ((enum request_kind)request->kind) {
    case REQUEST_CLIENT:
        if (request->is_started) {
            client_break_off(client);
            return;
        }
        /* A part of the reply that waited for its turn is dropped for the error. */
        client->held_bytes -= (uint32_t)request->reply.len;
        outbuf_clear(&client->pool->proxy->chunks, &request->reply);
        if (error_info(error)->closes)
            request->closes = true;
        request_finish_client(request, request_error_bytes(request, error, &room));
        break;
    case REQUEST_PART:
        ASSERT(proxy != NULL);
        fanout_part_done(request, error);
        request_free(proxy, request);
        break;
    case REQUEST_INTERNAL:
        ASSERT(proxy != NULL);
        request->internal_done(request, error, BYTES_EMPTY);
        request_free(proxy, request);
        break;
    }
}

/* The request is off its upstream, or was never on one. */
void request_fail(struct request *request, enum error_id error)
{
    request_fail_at(request, request->upstream == NULL ? NULL : request->upstream->server, error);
}

void request_abandon(struct request *request)
{
    struct upstream *upstream = request->upstream;

    request->client = NULL;
    ASSERT(!request->is_tombstone);
    if (upstream == NULL) {
        if (request->kind == REQUEST_PART)
            request->fanout = NULL; /* parked: who keeps it frees it */
        return;
    }
    request->is_tombstone = true;
    if (request->kind == REQUEST_PART)
        request->fanout = NULL;
    upstream->tombstone_count++;
}
