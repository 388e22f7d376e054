/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request with a value over 64 KiB is not held until it is complete: it streams.
 *
 *     client  [ head | value ........ | CRLF ]  ->  a private upstream of the key's server
 *
 *   D1  It is the client's only request in flight, and the next one waits for its reply: program order.
 *   D2  What is forwarded was checked before. A fault (a bad frame, a client that leaves) closes the upstream
 *       before the final CRLF was sent: the server never sees a whole request, so it runs none.
 *   D3  The client is read only as fast as the server takes: at most UPLOAD_OUT_MAX wait in between.
 *   D4  When the server answers early or is lost, the rest of the value is read and thrown away: not a byte
 *       of it is taken for a command.
 */
#include "proxy/observe.h"
#include "proxy/session.h"

#define UPLOAD_OUT_MAX    (256u << 10)
#define UPLOAD_OUT_RESUME (64u << 10)

struct upload {
    struct upstream *upstream; /* borrows; NULL: the rest is thrown away */
    struct request *request;   /* borrows, as long as upstream is set */
    uint64_t value_left;       /* bytes of the value without its CRLF */
    uint8_t tail_left;         /* of the CRLF behind it */
    uint32_t args_left;        /* RESP: arguments still to come */
    uint64_t bulk_max;
};

/* ---- the end, good or bad ------------------------------------------------------------------------ */

static void upload_free(struct client *client)
{
    mem_free(client->upload);
    client->upload = NULL;
}

void upload_abort(struct client *client)
{
    struct upstream *upstream = client->upload->upstream;

    upload_free(client);
    if (upstream != NULL) {
        upstream->uploader = NULL;
        upstream_retire(upstream, ERROR_reset, "the client left in the middle of an upload");
    }
}

/* The framing is lost: the client is told, and closed. */
static void upload_bad(struct client *client, enum error_id error)
{
    struct upstream *upstream = client->upload->upstream;

    POOL_ADD(client->pool, client_protocol_error, 1);
    upload_free(client);
    if (upstream != NULL) {
        upstream->uploader = NULL;
        upstream_retire(upstream, error, "the client's frame is bad");
    } else {
        client_reply_error(client, error);
    }
    if (!client->is_dead)
        client_close_after_replies(client);
}

static void upload_finish(struct client *client)
{
    struct upload *upload = client->upload;
    struct upstream *upstream = upload->upstream;

    if (upstream != NULL) {
        struct request *request = upload->request;

        upstream->uploader = NULL;
        /* Its last byte has come: from here on the server is measured, not the client. */
        request->start_us = request->sent_us = io_now_us(client->pool->proxy->io);
        upload_free(client);
        upstream_end(upstream, request);
        if (client->is_dead)
            return;
    } else {
        upload_free(client);
    }
    client_unpause(client, PAUSE_SESSION);
    if (client->request_count > 0)
        client_pause(client, PAUSE_BARRIER);
}

void upload_upstream_gone(struct upstream *upstream)
{
    struct client *client = upstream->uploader;

    upstream->uploader = NULL;
    client->upload->upstream = NULL;
    client->upload->request = NULL;
    if (!client->is_dead)
        client_unpause(client, PAUSE_SESSION);
}

/* The server took some. */
void upload_flushed(struct upstream *upstream)
{
    if (upstream->out.len <= UPLOAD_OUT_RESUME)
        client_unpause(upstream->uploader, PAUSE_SESSION);
}

/* ---- bytes ----------------------------------------------------------------------------------------- */

static void upload_forward(struct client *client, struct bytes bytes)
{
    struct upload *upload = client->upload;

    if (upload->upstream == NULL || bytes.len == 0)
        return;
    upstream_write(upload->upstream, bytes.data, bytes.len);
    if (upload->upstream->is_out_of_memory) {
        upstream_retire(upload->upstream, ERROR_out_of_memory, "out of memory");
        return;
    }
    upstream_mark_dirty(upload->upstream);
    if (upload->upstream->out.len > UPLOAD_OUT_MAX)
        client_pause(client, PAUSE_SESSION);
}

/* "$123\r\n" of the next argument; returns its bytes, 0: more is needed, or it was bad. */
static size_t upload_header(struct client *client, struct bytes data)
{
    struct upload *upload = client->upload;
    const char *end = memchr(data.data, '\n', MIN(data.len, (size_t)32));
    struct bytes digits;
    uint64_t len;

    if (end == NULL) {
        if (data.len >= 32)
            upload_bad(client, ERROR_bad_bulk_length);
        return 0;
    }
    digits = bytes_of(data.data + 1, (size_t)(end - data.data) - 1);
    if (data.data[0] != '$' || digits.len < 2 || digits.data[digits.len - 1] != '\r' ||
        !bytes_to_u64(bytes_first(digits, digits.len - 1), upload->bulk_max, &len)) {
        upload_bad(client, ERROR_bad_bulk_length);
        return 0;
    }
    upload->args_left--;
    upload->value_left = len;
    upload->tail_left = 2;
    return (size_t)(end - data.data) + 1;
}

/* The value, then its CRLF. The end of the last CRLF is forwarded only when all of it was right. */
static size_t upload_value(struct client *client, struct bytes data)
{
    struct upload *upload = client->upload;
    size_t step = (size_t)MIN(upload->value_left, (uint64_t)data.len);

    upload->value_left -= step;
    while (upload->value_left == 0 && upload->tail_left > 0 && step < data.len) {
        if (data.data[step] != (upload->tail_left == 2 ? '\r' : '\n')) {
            upload_bad(client, ERROR_bad_value_end);
            return 0;
        }
        upload->tail_left--;
        step++;
    }
    return step;
}

/* Returns the bytes consumed. The client may be dead after it. */
size_t upload_recv(struct client *client, struct bytes data)
{
    size_t consumed = 0;

    while (consumed < data.len && client->upload != NULL && client->pause == 0) {
        struct bytes rest = bytes_skip(data, consumed);
        bool is_value = client->upload->value_left > 0 || client->upload->tail_left > 0;
        size_t step = is_value ? upload_value(client, rest) : upload_header(client, rest);

        if (client->is_dead || client->upload == NULL)
            return data.len;
        if (step == 0)
            break;
        upload_forward(client, bytes_first(rest, step));
        if (client->is_dead) /* no memory was left for its bytes, and none for the error */
            return data.len;
        consumed += step;
        if (client->upload->value_left == 0 && client->upload->tail_left == 0 &&
            client->upload->args_left == 0)
            upload_finish(client);
        if (client->is_dead)
            return data.len;
    }
    return consumed;
}

/* ---- the beginning ------------------------------------------------------------------------------------ */

/* For the slow log and the big keys. */
static void upload_observe(struct upload *upload, const char *command, struct bytes key)
{
    if (upload->upstream == NULL)
        return;
    observe_keep_key(upload->request, key);
    observe_request_size(upload->upstream, command, key, upload->value_left);
}

/* The client may begin: nothing of it is in flight. NULL: paused, or answered and thrown away. */
static struct upload *upload_begin(struct client *client, struct server *server, uint16_t command,
                                   uint8_t mc_kind, bool is_silent)
{
    struct pool *pool = client->pool;
    struct upload *upload = mem_zalloc(sizeof(*upload));
    enum error_id error = ERROR_refused;
    struct upstream *upstream = NULL;

    if (upload == NULL) {
        client_close(client);
        return NULL;
    }
    client->upload = upload;
    upload->bulk_max = pool->proxy->limits.bulk_max;
    if (server != NULL)
        upstream = private_upstream_get(server, client->dialect, client->db, &error);
    if (upstream == NULL) {
        POOL_ADD(pool, forward_error, 1);
        if (!is_silent)
            client_reply_error(client, error);
        return client->is_dead ? NULL : upload;
    }
    upload->request = request_create(pool->proxy, client, REQUEST_CLIENT);
    if (upload->request == NULL) {
        client_close(client);
        return NULL;
    }
    upload->request->command = command;
    upload->request->mc_kind = mc_kind;
    upload->request->is_silent |= is_silent;
    upload->upstream = upstream;
    upstream->uploader = client;
    upstream_begin(upstream, upload->request);
    upload->request->sent_us = UINT64_MAX; /* no reply is due before all is sent */
    upload->request->wire_end = UINT64_MAX;
    return upload;
}

static bool upload_must_wait(struct client *client)
{
    if (client->request_count == 0)
        return false;
    client_pause(client, PAUSE_BARRIER);
    return true;
}

/* A RESP request whose arguments up to a big one were read. Returns whether it was taken on: *consumed bytes
 * belong to it. */
bool upload_start_redis(struct client *client, const struct command *command,
                        const struct resp_request *request, struct bytes data, size_t *consumed)
{
    struct server *server;
    struct upload *upload;

    *consumed = 0;
    if (upload_must_wait(client))
        return true;
    server = route_key(client->pool, request->argv[command->keys.first]);
    upload = upload_begin(client, server, command->id, 0, false);
    if (upload == NULL) {
        *consumed = data.len;
        return true;
    }
    client->parser.resp = (struct resp_parser){0};
    upload->args_left = request->total_argc - request->partial_argc;
    upload->value_left = request->partial_arg_len;
    upload->tail_left = 2;
    upload_observe(upload, command->name, request->argv[command->keys.first]);
    *consumed = (size_t)request->partial_arg_off;
    upload_forward(client, bytes_first(data, *consumed));
    POOL_ADD(client->pool, client_requests, 1);
    return true;
}

/* A storage command whose line was read: `line` is the canonical one to send. */
bool upload_start_memcache(struct client *client, const struct mc_request *mc, struct bytes line,
                           size_t *consumed)
{
    struct upload *upload;

    *consumed = 0;
    if (upload_must_wait(client))
        return true;
    upload = upload_begin(client, route_key(client->pool, mc->route_key), (uint16_t)mc->verb,
                          mc_verb_info(mc->verb)->kind, mc->is_noreply);
    if (upload == NULL)
        return true;
    if (upload->request != NULL)
        upload->request->is_quiet = mc->is_quiet;
    client->parser.text = (struct mc_parser){0};
    upload->value_left = mc->value_len;
    upload->tail_left = 2;
    upload_observe(upload, mc_verb_info(mc->verb)->name, mc->keys[0]);
    *consumed = mc->line_len;
    upload_forward(client, line);
    POOL_ADD(client->pool, client_requests, 1);
    return true;
}
