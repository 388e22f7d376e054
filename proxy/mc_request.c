/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One memcache request, text, meta or binary: parsed, checked, sent on its way.
 *
 * Every request upstream has exactly one reply: noreply, meta's q and the quiet opcodes stay in the
 * proxy. The server is asked aloud, and what the client did not want to hear is dropped here. So an error
 * of a quiet request can not shift the queue.
 */
#include "proxy/proxy_private.h"
#include "proxy/observe.h"

bool memcache_reply_is_quiet(const struct request *request, struct bytes line)
{
    return mc_meta_is_silenced((enum mc_verb)request->command, line);
}

bool memcache_binary_is_quiet(const struct request *request, const struct mc_bin_header *header)
{
    if (!request->is_quiet)
        return false;
    /* Quiet gets leave out misses, quiet changes leave out successes. */
    return request->mc_kind == MC_KIND_GET ? header->status == MC_BIN_NOT_FOUND
                                           : header->status == MC_BIN_OK;
}

void memcache_get_head(const struct mc_request *request, struct mc_verb_text *out)
{
    const char *name = mc_verb_info(request->verb)->name;
    int len = request->verb == MC_gat || request->verb == MC_gats
                  ? snprintf(out->text, sizeof(out->text), "%s %d", name, (int)request->exptime)
                  : snprintf(out->text, sizeof(out->text), "%s", name);

    out->len = (size_t)len;
}

/* ---- text ---------------------------------------------------------------------------------------- */

/* The request goes to one server as it is, or re-composed when it was not canonical or not loud. */
static void memcache_forward(struct client *client, struct mc_request *mc, struct bytes frame)
{
    const struct mc_verb_info *info = mc_verb_info(mc->verb);
    struct pool *pool = client->pool;
    struct proxy *proxy = pool->proxy;
    struct bytes key = mc->key_count > 0 ? mc->keys[0] : BYTES_EMPTY;
    bool is_as_it_is = mc->is_canonical && !mc->is_noreply && !mc->is_quiet;
    bool is_noreply = mc->is_noreply, is_quiet = mc->is_quiet;
    enum error_id error = ERROR_refused;
    struct server *server = mc->key_count == 0 ? route_any(pool) : route_key(pool, mc->route_key);
    struct upstream *upstream =
        server == NULL ? NULL : upstream_get(server, client, client->dialect, client->db, &error);
    struct request *request;

    if (upstream == NULL) {
        POOL_ADD(pool, forward_error, 1);
        if (!is_noreply)
            client_reply_error(client, error);
        return;
    }
    request = request_create(proxy, client, REQUEST_CLIENT);
    if (request == NULL) {
        client_close(client);
        return;
    }
    request->command = (uint16_t)mc->verb;
    request->mc_kind = info->kind;
    request->is_silent = is_noreply;
    request->is_quiet = is_quiet;
    if (!is_as_it_is) {
        char *line;

        mc->is_noreply = mc->is_quiet = false;
        buffer_clear(&proxy->scratch);
        line = buffer_reserve(&proxy->scratch, mc->line.len + 64);
        if (line != NULL)
            proxy->scratch.len = mc_compose_line(mc, NULL, 0, line, mc->line.len + 64);
        if (info->kind == MC_KIND_STORE || info->kind == MC_KIND_META_STORE) {
            buffer_append(&proxy->scratch, mc->data.data, mc->data.len);
            buffer_append(&proxy->scratch, "\r\n", 2);
        }
        if (proxy->scratch.failed || proxy->scratch.len == 0) {
            request_fail(request, ERROR_out_of_memory);
            return;
        }
        frame = buffer_bytes(&proxy->scratch);
    }
    if (info->kind == MC_KIND_GET || mc->returns_key) {
        /* The first token behind the verb (or, gat, behind the expiry) is where the key is again. */
        const char *at = memmem(frame.data, frame.len, key.data, key.len);

        if (frame.len <= 1024 && request_keep_wire(request, frame) && info->kind == MC_KIND_GET) {
            /* Only where the key is known is it known where to send it again. */
            request->is_idempotent = !mc->is_write;
            at = mc->verb == MC_gat || mc->verb == MC_gats ? frame.data + frame.len - 2 - key.len : at;
            at = is_as_it_is && key.data >= frame.data ? key.data : at;
            request->key_off = (uint16_t)(at - frame.data);
            request->key_len = (uint16_t)key.len;
        }
    }
    if (request->key_len == 0)
        observe_keep_key(request, key);
    observe_request_size(upstream, info->name, key, frame.len);
    upstream_submit(upstream, request, frame);
}

static void memcache_local(struct client *client, struct mc_request *mc, struct bytes frame)
{
    char line[256];
    size_t len;
    bool is_noreply = mc->is_noreply;

    if (mc->verb == MC_quit) {
        client_close_after_replies(client);
    } else if (mc->verb == MC_verbosity) {
        if (!is_noreply)
            client_reply(client, BYTES("OK\r\n"));
    } else if (mc->verb == MC_flush_all || mc->verb == MC_stats) {
        mc->is_noreply = false;
        len = mc_compose_line(mc, NULL, 0, line, sizeof(line));
        mc->is_noreply = is_noreply;
        if (len == 0)
            client_reply_error(client, ERROR_syntax);
        else
            fanout_memcache_all(client, mc, bytes_of(line, len));
    } else {
        memcache_forward(client, mc, frame);
    }
}

static void memcache_route(struct client *client, struct mc_request *mc, struct bytes frame)
{
    switch ((enum mc_kind)mc_verb_info(mc->verb)->kind) {
    case MC_KIND_GET:
        if (mc->key_count > 1) {
            fanout_memcache_get(client, mc);
            break;
        }
        memcache_forward(client, mc, frame);
        break;
    case MC_KIND_STORE:
    case MC_KIND_KEY_LINE:
    case MC_KIND_META:
    case MC_KIND_META_STORE:
        memcache_forward(client, mc, frame);
        break;
    case MC_KIND_META_NOOP:
        client_reply(client, BYTES("MN\r\n"));
        break;
    case MC_KIND_LOCAL:
        memcache_local(client, mc, frame);
        break;
    }
}

static void memcache_reply_line(struct client *client, const char *line)
{
    char text[256];
    int len = snprintf(text, sizeof(text), "%s\r\n", line);

    client_reply(client, bytes_of(text, MIN((size_t)len, sizeof(text) - 1)));
}

static size_t memcache_bad(struct client *client, const struct mc_request *mc, size_t len)
{
    POOL_ADD(client->pool, client_protocol_error, 1);
    if (mc->error != NULL && mc->error[0] != '\0')
        memcache_reply_line(client, mc->error);
    if (!client->is_dead)
        client_close_after_replies(client);
    return len;
}

/* true: the value streams from now on, or waits for that. */
static bool memcache_stream(struct client *client, struct mc_request *mc, size_t *consumed)
{
    struct buffer *line = &client->pool->proxy->scratch;
    bool is_noreply = mc->is_noreply, is_quiet = mc->is_quiet;
    char *room;

    if (mc->partial_data_len < UPLOAD_SIZE_MIN || client->pool->mc_denied[mc->verb] ||
        client->pool->discovery != NULL)
        return false;
    buffer_clear(line);
    room = buffer_reserve(line, mc->line.len + 64);
    if (room == NULL)
        return false;
    mc->is_noreply = mc->is_quiet = false;
    line->len = mc_compose_line(mc, NULL, 0, room, mc->line.len + 64);
    mc->is_noreply = is_noreply;
    mc->is_quiet = is_quiet;
    return line->len > 0 && upload_start_memcache(client, mc, buffer_bytes(line), consumed);
}

size_t client_handle_memcache(struct client *client, struct bytes data)
{
    struct pool *pool = client->pool;
    struct proxy *proxy = pool->proxy;
    struct mc_request mc;

    if (UNLIKELY(!pool->speaks_memcache)) {
        client_reply_error(client, ERROR_wrong_protocol);
        return data.len;
    }
    if (UNLIKELY(client->dialect != DIALECT_MC_TEXT)) {
        if (client->request_count > 0) {
            client_pause(client, PAUSE_BARRIER);
            return 0;
        }
        client->dialect = DIALECT_MC_TEXT;
        client->parser.text = (struct mc_parser){0};
    }
    if (UNLIKELY((unsigned char)data.data[0] == 0x16 || data.data[0] == 'P' || data.data[0] == 'H' ||
                 data.data[0] == 'G' || data.data[0] == 'h') &&
        client->parser.text.swallow == 0 && client_refuse_foreign(client, data))
        return data.len;
    switch (mc_parse(&client->parser.text, &proxy->mc_keys, &proxy->mc_limits, data, &mc)) {
    case PARSE_OK:
        break;
    case PARSE_MORE: {
        size_t consumed;

        if (UNLIKELY(mc.partial_data_len > 0) && memcache_stream(client, &mc, &consumed))
            return consumed;
    }
        if (client->parser.text.need > proxy->conf->process.limits.request_size_max) {
            client_reply_error(client, ERROR_request_too_large);
            return data.len;
        }
        client->stream.need = client->parser.text.need;
        return 0;
    case PARSE_BAD:
        return memcache_bad(client, &mc, data.len);
    }
    if (UNLIKELY(mc.status == MC_REQ_SKIP))
        return mc.len;
    POOL_ADD(pool, client_requests, 1);
    if (UNLIKELY(mc.status == MC_REQ_ERROR)) {
        memcache_reply_line(client, mc.error);
        return mc.len;
    }
    if (UNLIKELY(pool->mc_denied[mc.verb])) {
        POOL_ADD(pool, denied, 1);
        client_reply_error(client, ERROR_denied);
        return mc.len;
    }
    *proxy->note = mc_verb_info(mc.verb)->name;
    memcache_route(client, &mc, bytes_first(data, mc.len));
    client_weigh(client, mc.key_count);
    return mc.len;
}

/* ---- binary ---------------------------------------------------------------------------------------- */

static void binary_reply_status(struct client *client, const struct mc_bin_header *header, uint16_t status)
{
    char text[MC_BIN_STATUS_REPLY_MAX];

    client_reply(client, bytes_of(text, mc_bin_compose_status(header, status, text)));
}

static void binary_forward(struct client *client, const struct mc_bin_request *bin, struct bytes frame)
{
    struct pool *pool = client->pool;
    enum error_id error = ERROR_refused;
    struct server *server = bin->key.len == 0 ? route_any(pool) : route_key(pool, bin->key);
    struct upstream *upstream =
        server == NULL ? NULL : upstream_get(server, client, client->dialect, client->db, &error);
    struct mc_bin_header loud = bin->header;
    char header[MC_BIN_HEADER];
    struct request *request;

    if (upstream == NULL) {
        POOL_ADD(pool, forward_error, 1);
        binary_reply_status(client, &bin->header, 0x0086 /* temporary failure */);
        return;
    }
    request = request_create(pool->proxy, client, REQUEST_CLIENT);
    if (request == NULL) {
        client_close(client);
        return;
    }
    request->command = bin->verb->id;
    request->mc_kind = bin->verb->kind;
    request->bin_opaque = bin->header.opaque;
    request->bin_opcode = bin->header.opcode;
    request->is_quiet = bin->is_quiet;
    observe_keep_key(request, bin->key);
    observe_request_size(upstream, bin->verb->name, bin->key, frame.len);
    loud.opcode = bin->verb->opcode;
    mc_bin_encode(&loud, header);
    upstream_begin(upstream, request);
    upstream_write(upstream, header, sizeof(header));
    upstream_write(upstream, frame.data + sizeof(header), frame.len - sizeof(header));
    upstream_end(upstream, request);
}

static void binary_local(struct client *client, const struct mc_bin_request *bin, struct bytes frame)
{
    switch (bin->verb->id) {
    case MC_quit:
        if (!bin->is_quiet)
            binary_reply_status(client, &bin->header, MC_BIN_OK);
        if (!client->is_dead)
            client_close_after_replies(client);
        break;
    case MC_noop:
    case MC_verbosity:
        binary_reply_status(client, &bin->header, MC_BIN_OK);
        break;
    case MC_flush_all:
    case MC_stats:
        fanout_binary_all(client, bin, frame);
        break;
    case MC_version:
        binary_forward(client, bin, frame);
        break;
    default:
        binary_reply_status(client, &bin->header, MC_BIN_UNKNOWN_COMMAND);
        break;
    }
}

size_t client_handle_binary(struct client *client, struct bytes data)
{
    struct pool *pool = client->pool;
    struct mc_bin_parser parser = {.swallow = client->parser.text.swallow};
    struct mc_bin_request bin;
    enum parse_result result;

    if (!pool->speaks_memcache) {
        client_reply(client, error_info(ERROR_wrong_protocol)->memcache);
        if (!client->is_dead)
            client_close_after_replies(client);
        return data.len;
    }
    if (client->dialect != DIALECT_MC_BINARY) {
        if (client->request_count > 0) {
            client_pause(client, PAUSE_BARRIER);
            return 0;
        }
        client->dialect = DIALECT_MC_BINARY;
        client->parser.text = (struct mc_parser){0};
    }
    result = mc_bin_parse(&parser, &pool->proxy->mc_limits, data, &bin);
    client->parser.text.swallow = parser.swallow;
    if (result == PARSE_MORE) {
        client->stream.need = parser.need;
        return 0;
    }
    if (result == PARSE_BAD) {
        POOL_ADD(pool, client_protocol_error, 1);
        if (bin.error_status != 0)
            binary_reply_status(client, &bin.header, bin.error_status);
        if (!client->is_dead)
            client_close_after_replies(client);
        return data.len;
    }
    if (bin.is_skip)
        return bin.len;
    *pool->proxy->note = bin.verb == NULL ? NULL : bin.verb->name;
    POOL_ADD(pool, client_requests, 1);
    if (bin.error_status != 0)
        binary_reply_status(client, &bin.header, bin.error_status);
    else if (bin.verb == NULL || pool->mc_denied[bin.verb->id])
        binary_reply_status(client, &bin.header, MC_BIN_UNKNOWN_COMMAND);
    else if (bin.verb->kind == MC_KIND_LOCAL || bin.verb->kind == MC_KIND_META_NOOP)
        binary_local(client, &bin, bytes_first(data, bin.len));
    else
        binary_forward(client, &bin, bytes_first(data, bin.len));
    return bin.len;
}
