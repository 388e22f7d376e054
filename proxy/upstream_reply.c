/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server says: replies are found in its bytes and given to the head of the queue (upstream.c, U1
 * and U3). Each dialect has a scanner of its own; pub/sub links and the handshake go their own ways.
 */
#include "proxy/observe.h"
#include "proxy/proxy_private.h"

#define HANDSHAKE_REPLY_MAX 65536

/* ---- the handshake --------------------------------------------------------------------------- */

static void upstream_handshake_reply(struct upstream *upstream, struct bytes reply)
{
    struct pool *pool = upstream->server->pool;
    bool is_error = reply.data[0] == '-' || reply.data[0] == '!';

    upstream->handshake_left--;
    if (upstream->dialect == DIALECT_RESP3 && pool->resp3_support < 0)
        pool->resp3_support = is_error && !memmem(reply.data, reply.len, "WRONGPASS", 9) ? 0 : 1;
    if (is_error) {
        bool is_auth = memmem(reply.data, reply.len, "AUTH", 4) != NULL ||
                       memmem(reply.data, reply.len, "PASS", 4) != NULL ||
                       memmem(reply.data, reply.len, "pass", 4) != NULL;
        enum error_id error = is_auth ? ERROR_backend_auth
                              : upstream->db != 0 && upstream->handshake_left == 0
                                  ? ERROR_backend_select
                              : upstream->dialect == DIALECT_RESP3 ? ERROR_noproto
                                                                   : ERROR_backend_protocol;

        if (log_limit_allows(&pool->proxy->log_limit, io_now_ms(pool->proxy->io), 10, 1000, NULL))
            log_warn(proxy_log(pool->proxy), "server refused the connection's set-up pool=%s server=%s reply=%.*s",
                     pool->conf->name, upstream->server->name, BYTES_ARG(bytes_first(reply, 100)));
        upstream->server->last_error = error;
        upstream_retire(upstream, error, "handshake refused");
        return;
    }
    if (upstream->handshake_left == 0)
        upstream_ready(upstream);
}

/* ---- replies in ------------------------------------------------------------------------------ */

struct request *upstream_take_head(struct upstream *upstream)
{
    struct request *request =
        CONTAINER_OF(queue_pop(&upstream->inflight), struct request, upstream_node);

    upstream->seen_reply = false;
    upstream->move_count = 0;
    upstream->done_end = request->wire_end;
    if (UNLIKELY(!outbuf_is_empty(&upstream->out)))
        upstream_mark_dirty(upstream);
    if (--upstream->inflight_count == 0 && upstream->state == UPSTREAM_READY) {
        list_remove(&upstream->busy_node);
        upstream->idle_since_ms = io_now_ms(upstream_proxy(upstream)->io);
    }
    return request;
}

static void upstream_doubt(struct upstream *upstream, const char *why)
{
    struct pool *pool = upstream->server->pool;
    uint32_t suppressed;

    SERVER_ADD(upstream->server, doubts, 1);
    if (log_limit_allows(&pool->proxy->log_limit, io_now_ms(pool->proxy->io), 10, 1000, &suppressed))
        log_warn(proxy_log(pool->proxy), "connection retired why=\"%s\" pool=%s server=%s suppressed=%u",
                 why, pool->conf->name, upstream->server->name, suppressed);
    upstream_retire(upstream, ERROR_backend_protocol, why);
}

/* A reply has come to a request of which not all was sent. */
static bool upstream_is_early(const struct upstream *upstream, const struct request *head)
{
    return UNLIKELY(!outbuf_is_empty(&upstream->out) || upstream->uploader != NULL) &&
           head->wire_end > upstream->queued_total - upstream->out.len;
}

/* Whether the bytes that came can not be the head's reply: nothing of it was sent yet, or a part only and
 * they are no error. Somebody else's reply that the server gave twice, for instance. */
static bool upstream_is_stray(const struct upstream *upstream, const struct request *head, bool is_error)
{
    return UNLIKELY(upstream_is_early(upstream, head)) &&
           (!is_error || upstream->queued_total - upstream->out.len <= upstream->done_end);
}

/* The reply is whole. false: the upstream is closed now. */
static bool upstream_complete(struct upstream *upstream, struct bytes part)
{
    struct request *head = upstream_head(upstream);
    bool is_early = upstream_is_early(upstream, head);

    SERVER_ADD(upstream->server, responses, 1);
    upstream_take_head(upstream);
    request_finish(head, part);
    if (UNLIKELY(is_early) && upstream->state != UPSTREAM_CLOSED)
        upstream_doubt(upstream, "a reply came before its request was sent");
    return upstream->state != UPSTREAM_CLOSED;
}

/* One reply to what went before the first request; 0: it is not all there, or the upstream is closed. */
static size_t upstream_recv_handshake(struct upstream *upstream, struct bytes data)
{
    struct resp_reply_parser parser = {0};
    size_t scanned = 0;
    enum parse_result result =
        resp_reply_scan(&parser, &upstream_proxy(upstream)->limits, data, &scanned);

    if (result == PARSE_BAD || (result == PARSE_MORE && data.len > HANDSHAKE_REPLY_MAX)) {
        upstream_doubt(upstream, "bad handshake");
        return 0;
    }
    /* Small replies: looked at again when all of it is there. */
    if (result == PARSE_MORE)
        return 0;
    upstream_handshake_reply(upstream, bytes_first(data, scanned));
    return scanned;
}

/* Redis says no. true: the request goes elsewhere; it is off the queue, and the upstream may be closed. */
static bool upstream_error_reply(struct upstream *upstream, struct request *head, struct bytes reply)
{
    SERVER_ADD(upstream->server, error_replies, 1);
    if (LIKELY(upstream->server->pool->discovery == NULL) || upstream_is_early(upstream, head) ||
        !discovery_redirect(upstream, head, reply))
        return false;
    SERVER_ADD(upstream->server, responses, 1);
    return true;
}

static size_t upstream_recv_resp(struct upstream *upstream, struct bytes data)
{
    struct proxy *proxy = upstream_proxy(upstream);
    size_t consumed = 0;

    while (consumed < data.len) {
        struct request *head = upstream_head(upstream);
        struct bytes rest = bytes_skip(data, consumed);
        struct resp_reply_parser *parser = &upstream->parser.resp;
        enum parse_result result;
        bool is_start;
        size_t scanned;

        if (UNLIKELY(upstream->state == UPSTREAM_HANDSHAKE)) {
            scanned = upstream_recv_handshake(upstream, rest);
            if (upstream->state == UPSTREAM_CLOSED)
                return data.len;
            if (scanned == 0)
                break;
            consumed += scanned;
            continue;
        }
        if (UNLIKELY(head == NULL)) {
            upstream_doubt(upstream, "bytes that no request waits for");
            return data.len;
        }
        if (!upstream->seen_reply) {
            upstream->seen_reply = true;
            if (upstream_is_stray(upstream, head, rest.data[0] == '-')) {
                upstream_doubt(upstream, "a reply came before its request was sent");
                return data.len;
            }
            /* Pushes have no place between replies: nothing that makes them is sent here. */
            if (UNLIKELY(rest.data[0] == '>')) {
                upstream_doubt(upstream, "a push on a shared connection");
                return data.len;
            }
        }
        is_start = !parser->started;
        scanned = 0;
        if (head->kind == REQUEST_PART && head->fanout != NULL && is_start && parser->line_off == 0)
            scanned = fanout_part_bulks(head, rest);
        result = scanned > 0 ? PARSE_OK : resp_reply_scan(parser, &proxy->limits, rest, &scanned);
        consumed += scanned;
        if (LIKELY(result == PARSE_OK)) {
            if (UNLIKELY(rest.data[0] == '-') && is_start &&
                upstream_error_reply(upstream, head, bytes_first(rest, scanned))) {
                if (upstream->state == UPSTREAM_CLOSED)
                    return data.len;
                continue;
            }
            if (!upstream_complete(upstream, bytes_first(rest, scanned)))
                return data.len;
            continue;
        }
        if (UNLIKELY(result == PARSE_BAD)) {
            upstream_doubt(upstream, "a frame that is no reply");
            return data.len;
        }
        request_deliver(head, bytes_first(rest, scanned));
        break;
    }
    return consumed;
}

static bool upstream_text_key_fits(struct request *request, const struct mc_reply *reply)
{
    if (request->is_tombstone)
        return true;
    if (request->kind == REQUEST_PART)
        return fanout_part_item(request, reply->item_key, reply->scanned, reply->line.len + 2,
                                reply->item_data_len);
    /* Without the wire the key is there for the slow log only, and may be cut. */
    if (request->key_len == 0 || request->wire_len == 0)
        return true;
    return bytes_equal(reply->item_key,
                       bytes_of(request_wire(request).data + request->key_off, request->key_len));
}

static size_t upstream_recv_text(struct upstream *upstream, struct bytes data)
{
    struct proxy *proxy = upstream_proxy(upstream);
    size_t consumed = 0;

    while (consumed < data.len) {
        struct request *head = upstream_head(upstream);
        struct bytes rest = bytes_skip(data, consumed);
        struct mc_reply reply;
        enum parse_result result;
        struct bytes part;

        if (UNLIKELY(head == NULL)) {
            upstream_doubt(upstream, "bytes that no request waits for");
            return data.len;
        }
        if (!upstream->seen_reply) {
            upstream->parser.text = (struct mc_reply_parser){.expect = head->mc_kind, .verb = (uint8_t)head->command};
            upstream->seen_reply = true;
        }
        if (head->kind == REQUEST_PART && head->fanout != NULL && head->mc_kind == MC_KIND_GET) {
            size_t taken = fanout_part_items(head, &upstream->parser.text, rest);

            consumed += taken;
            rest = bytes_skip(rest, taken);
            if (rest.len == 0)
                break;
        }
        result = mc_reply_scan(&upstream->parser.text, &proxy->mc_limits, rest, &reply);
        if (UNLIKELY(result == PARSE_BAD)) {
            upstream_doubt(upstream, "a frame that is no reply");
            return data.len;
        }
        if (reply.scanned > 0 && upstream_is_stray(upstream, head, reply.is_error)) {
            upstream_doubt(upstream, "a reply came before its request was sent");
            return data.len;
        }
        if (reply.is_item_start && UNLIKELY(!upstream_text_key_fits(head, &reply))) {
            upstream_doubt(upstream, "a value for a key that was not asked for");
            return data.len;
        }
        /* A quiet ma's number is not wanted either, and it comes as an item. */
        if (UNLIKELY(head->is_quiet) && reply.is_item_start && memcache_reply_is_quiet(head, reply.line))
            head->is_silent = true;
        consumed += reply.scanned;
        part = bytes_first(rest, reply.scanned);
        if (result == PARSE_OK) {
            bool is_desync = reply.is_error && bytes_equal(reply.line, BYTES("ERROR"));

            if (reply.is_error)
                SERVER_ADD(upstream->server, error_replies, 1);
            if (UNLIKELY(head->is_quiet) && memcache_reply_is_quiet(head, reply.line))
                part = BYTES_EMPTY;
            if (!upstream_complete(upstream, part))
                return data.len;
            /* The server did not understand what the proxy sent: what it makes of the rest is anybody's
             * guess. */
            if (UNLIKELY(is_desync)) {
                upstream_doubt(upstream, "the server answered ERROR");
                return data.len;
            }
            continue;
        }
        request_deliver(head, part);
        if (!reply.is_item_start)
            break;
    }
    return consumed;
}

/* The client gets the opcode it asked with: quiet ones went upstream as their loud twins. */
static bool upstream_complete_binary(struct upstream *upstream, struct request *head,
                                     const struct mc_bin_header *header, struct bytes frame)
{
    if (memcache_binary_is_quiet(head, header))
        return upstream_complete(upstream, BYTES_EMPTY);
    if (head->bin_opcode != header->opcode) {
        struct mc_bin_header own = *header;
        char bytes[MC_BIN_HEADER];

        own.opcode = head->bin_opcode;
        mc_bin_encode(&own, bytes);
        request_deliver(head, bytes_of(bytes, sizeof(bytes)));
        frame = bytes_skip(frame, sizeof(bytes));
    }
    return upstream_complete(upstream, frame);
}

static size_t upstream_recv_binary(struct upstream *upstream, struct bytes data)
{
    size_t consumed = 0;

    while (consumed < data.len) {
        struct request *head = upstream_head(upstream);
        struct bytes rest = bytes_skip(data, consumed);
        struct mc_bin_header header;
        bool is_stat;

        if (UNLIKELY(head == NULL)) {
            upstream_doubt(upstream, "bytes that no request waits for");
            return data.len;
        }
        upstream->seen_reply = true;
        if (rest.len < MC_BIN_HEADER) {
            upstream->stream.need = MC_BIN_HEADER;
            break;
        }
        mc_bin_decode(rest.data, &header);
        if (header.magic != MC_BIN_RESPONSE || header.body_len > (64u << 20) ||
            header.opaque != head->bin_opaque ||
            header.key_len + (uint32_t)header.extras_len > header.body_len ||
            header.opcode != mc_verb_info((enum mc_verb)head->command)->opcode ||
            upstream_is_stray(upstream, head, header.status != MC_BIN_OK)) {
            upstream_doubt(upstream, "a frame that is no reply to the request");
            return data.len;
        }
        if (rest.len < MC_BIN_HEADER + (size_t)header.body_len) {
            upstream->stream.need = MC_BIN_HEADER + header.body_len;
            break;
        }
        rest = bytes_first(rest, MC_BIN_HEADER + (size_t)header.body_len);
        consumed += rest.len;
        /* STAT answers many frames; one without a key ends them. */
        is_stat = header.opcode == 0x10 && header.key_len > 0 && header.status == 0;
        if (is_stat)
            request_deliver(head, rest);
        else if (!upstream_complete_binary(upstream, head, &header, rest))
            return data.len;
    }
    return consumed;
}

/* ---- the door ------------------------------------------------------------------------------- */

size_t upstream_recv(struct io_stream *stream, struct bytes data)
{
    struct upstream *upstream = upstream_of(stream);
    size_t consumed = 0;

    if (UNLIKELY(upstream->is_pubsub && upstream->state == UPSTREAM_READY)) {
        consumed = session_upstream_recv(upstream, data);
    } else {
        switch ((enum dialect)upstream->dialect) {
        case DIALECT_RESP2:
        case DIALECT_RESP3:
            consumed = upstream_recv_resp(upstream, data);
            break;
        case DIALECT_MC_TEXT:
            consumed = upstream_recv_text(upstream, data);
            break;
        case DIALECT_MC_BINARY:
            consumed = upstream_recv_binary(upstream, data);
            break;
        case DIALECT_COUNT:
            UNREACHABLE("no such dialect");
        }
    }
    SERVER_ADD(upstream->server, response_bytes, consumed);
    upstream_gauges(upstream, false);
    return consumed;
}
