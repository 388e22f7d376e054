/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One Redis request: parsed, checked, sent on its way.
 *
 * The checks come in Redis's order: command, arity, authentication, the pool's command list. A request
 * that fails one is answered in its place in the order and nothing of it goes upstream.
 */
#include "proxy/proxy_private.h"
#include "proxy/observe.h"

static void redis_unknown_command(struct client *client, const struct resp_request *request)
{
    char args[160];
    size_t len = 0;

    args[0] = '\0';
    for (uint32_t i = 1; i < request->argc && len < 128; i++)
        len += (size_t)snprintf(args + len, sizeof(args) - len, "'%.*s' ",
                                (int)MIN(request->argv[i].len, 128 - len), request->argv[i].data);
    client_reply_text_error(client, "ERR unknown command '%.*s', with args beginning with: %s",
                            BYTES_ARG(bytes_first(request->argv[0], 128)), args);
}

/* NULL: answered. */
static const struct command *redis_command(struct client *client, const struct resp_request *request)
{
    const struct command *command = command_find(request->argv[0]);

    if (UNLIKELY(command == NULL)) {
        redis_unknown_command(client, request);
        return NULL;
    }
    if (UNLIKELY(command->flags & CMD_HAS_SUBCOMMANDS) && request->argc >= 2) {
        const struct command *sub = command_find_sub(command, request->argv[1]);

        if (sub == NULL) {
            char upper[64];
            size_t len = MIN(strlen(command->name), sizeof(upper) - 1);

            for (size_t i = 0; i < len; i++)
                upper[i] = (char)(command->name[i] >= 'a' && command->name[i] <= 'z'
                                      ? command->name[i] - 32 : command->name[i]);
            upper[len] = '\0';
            client_reply_text_error(client, "ERR unknown subcommand '%.*s'. Try %s HELP.",
                                    BYTES_ARG(bytes_first(request->argv[1], 128)), upper);
            return NULL;
        }
        command = sub;
    }
    if (UNLIKELY(!command_arity_fits(command, request->argc))) {
        client_reply_text_error(client, "ERR wrong number of arguments for '%s' command", command->name);
        return NULL;
    }
    if (UNLIKELY(!client->is_authenticated) && !(command->flags & CMD_NO_AUTH)) {
        client_reply_error(client, ERROR_noauth);
        return NULL;
    }
    if (UNLIKELY(client->pool->denied[command->id])) {
        POOL_ADD(client->pool, denied, 1);
        client_reply_text_error(client, "ERR command '%s' is denied by the proxy's configuration",
                                command->name);
        return NULL;
    }
    return command;
}

/* A request that goes as it is to one server. */
void redis_forward(struct client *client, struct server *server, const struct command *command,
                   struct bytes key, struct bytes frame)
{
    struct pool *pool = client->pool;
    enum error_id error = ERROR_NONE;
    struct upstream *upstream = upstream_get(server, client, client->dialect, client->db, &error);
    struct request *request;

    if (UNLIKELY(upstream == NULL)) {
        POOL_ADD(pool, forward_error, 1);
        client_reply_error(client, error);
        return;
    }
    request = request_create(pool->proxy, client, REQUEST_CLIENT);
    if (UNLIKELY(request == NULL)) {
        client_close(client);
        return;
    }
    request->command = command->id;
    request->is_idempotent = (command->flags & CMD_IDEMPOTENT) != 0;
    if ((request->is_idempotent && frame.len <= 1024) || pool->discovery != NULL) {
        if (request_keep_wire(request, frame) && key.data >= frame.data && key.len < UINT16_MAX &&
            key.data - frame.data < UINT16_MAX) {
            request->key_off = (uint16_t)(key.data - frame.data);
            request->key_len = (uint16_t)key.len;
        } else if (key.len > 0) {
            request->is_idempotent = false; /* nobody knows where to send it again */
        }
    } else {
        observe_keep_key(request, key);
    }
    observe_request_size(upstream, command->name, key, frame.len);
    upstream_submit(upstream, request, frame);
}

static void redis_route_one(struct client *client, const struct command *command,
                            const struct resp_request *request, struct bytes frame)
{
    struct pool *pool = client->pool;
    enum error_id error = discovery_route_error(pool);
    struct server *server;
    struct bytes key = BYTES_EMPTY;

    if (LIKELY(command->keys.kind == KEYS_RANGE && command->keys.first == 1 && command->keys.last == 1)) {
        key = request->argv[1];
        server = route_key(pool, key);
    } else if (command->keys.kind == KEYS_NONE) {
        server = route_any(pool);
    } else {
        struct command_keys keys;

        if (command_keys(command, request->argv, request->argc, &keys) != 0) {
            client_reply_text_error(client, "%s",
                                    command_keys_error(command, request->argv, request->argc));
            return;
        }
        if (keys.key_count == 0) {
            server = route_any(pool);
        } else {
            key = request->argv[keys.ranges[0].first];
            server = route_keys(pool, request, &keys, &error);
        }
    }
    if (UNLIKELY(server == NULL)) {
        client_reply_error(client, error);
        return;
    }
    redis_forward(client, server, command, key, frame);
}

/* Only a frame that is longer than a key may be has to be looked through. */
static bool redis_key_is_too_long(const struct command *command, const struct resp_request *request,
                                  uint32_t max)
{
    struct command_keys keys;

    if (command->keys.kind == KEYS_NONE ||
        command_keys(command, request->argv, request->argc, &keys) != 0)
        return false;
    for (uint32_t r = 0; r < keys.range_count; r++)
        for (uint32_t i = 0; i < keys.ranges[r].count; i++)
            if (request->argv[keys.ranges[r].first + i * keys.ranges[r].step].len > max)
                return true;
    return false;
}

static void redis_route(struct client *client, const struct command *command,
                        const struct resp_request *request, struct bytes frame)
{
    switch ((enum command_route)command->route) {
    case ROUTE_ONE:
        redis_route_one(client, command, request, frame);
        break;
    case ROUTE_LOCAL:
        redis_local(client, command, request);
        break;
    case ROUTE_SPLIT_ORDER:
    case ROUTE_SPLIT_OK:
    case ROUTE_SPLIT_SUM:
        fanout_redis_split(client, command, request, frame);
        break;
    case ROUTE_ALL_SUM:
    case ROUTE_ALL_OK:
    case ROUTE_ALL_CONCAT:
    case ROUTE_ALL_SAME:
    case ROUTE_ALL_AND:
    case ROUTE_ALL_ANY_OK:
    case ROUTE_ALL_PAIRS:
        fanout_redis_all(client, command, request, frame);
        break;
    case ROUTE_ANY:
    case ROUTE_CHANNEL: {
        struct bytes key = command->route == ROUTE_ANY ? BYTES_EMPTY : request->argv[1];
        struct server *server =
            command->route == ROUTE_ANY ? route_any(client->pool) : route_key(client->pool, key);

        if (server == NULL)
            client_reply_error(client, ERROR_no_server);
        else
            redis_forward(client, server, command, key, frame);
        break;
    }
    case ROUTE_SCAN:
        fanout_redis_scan(client, command, request);
        break;
    case ROUTE_PRIVATE:
        UNREACHABLE("sessions take every private command");
    }
}

/* An inline request goes upstream as multibulk. The views of argv move to the new frame. */
static bool redis_recompose(struct proxy *proxy, struct resp_request *request, struct bytes *frame)
{
    struct buffer *out = &proxy->scratch;
    char header[RESP_HEADER_MAX];

    buffer_clear(out);
    buffer_append(out, header, resp_compose_header(header, '*', request->argc));
    for (uint32_t i = 0; i < request->argc; i++) {
        buffer_append(out, header, resp_compose_header(header, '$', (int64_t)request->argv[i].len));
        buffer_append(out, request->argv[i].data, request->argv[i].len);
        buffer_append(out, "\r\n", 2);
    }
    if (out->failed)
        return false;
    {
        size_t off = 0;

        off += resp_compose_header(header, '*', request->argc);
        for (uint32_t i = 0; i < request->argc; i++) {
            off += resp_compose_header(header, '$', (int64_t)request->argv[i].len);
            proxy->args.items[i].data = out->data + off;
            off += request->argv[i].len + 2;
        }
    }
    *frame = buffer_bytes(out);
    return true;
}

#define HTTP_LINE_MAX 4096

/* `data` starts with a line. What it is must not depend on how much of it has come. */
static bool line_is_http(struct bytes data)
{
    struct bytes head = bytes_first(data, 5);
    const char *newline;

    if (head.len < 5)
        return false;
    if (memcmp(head.data, "POST ", 5) == 0 || strncasecmp(head.data, "host:", 5) == 0)
        return true;
    if (memcmp(head.data, "GET /", 5) != 0 && memcmp(head.data, "HEAD ", 5) != 0)
        return false;
    data = bytes_first(data, HTTP_LINE_MAX);
    newline = memchr(data.data, '\n', data.len);
    return newline != NULL &&
           memmem(data.data, (size_t)(newline - data.data), " HTTP/1.", 8) != NULL;
}

bool client_refuse_foreign(struct client *client, struct bytes data)
{
    if ((unsigned char)data.data[0] == 0x16 && data.len >= 2 && data.data[1] == 3) {
        POOL_ADD(client->pool, client_protocol_error, 1);
        client_reply_error(client, ERROR_tls_expected);
        return true;
    }
    if (line_is_http(data)) {
        /* Somebody lets a browser talk to us: no answer, nothing of it is run. */
        POOL_ADD(client->pool, client_protocol_error, 1);
        client_close_after_replies(client);
        return true;
    }
    return false;
}

static size_t redis_bad(struct client *client, const struct resp_request *request, size_t len)
{
    POOL_ADD(client->pool, client_protocol_error, 1);
    if (request->error_byte != '\0') {
        char text[128];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof(text), request->error, request->error_byte);
#pragma GCC diagnostic pop
        client_reply_text_error(client, "ERR %s", text);
    } else {
        client_reply_text_error(client, "ERR %s", request->error);
    }
    if (!client->is_dead)
        client_close_after_replies(client);
    return len;
}

static size_t redis_need_more(struct client *client, const struct resp_parser *parser, size_t have)
{
    const struct conf_limits *limits = &client->pool->proxy->conf->process.limits;
    /* Before a password was given nobody may make us hold much. */
    uint64_t max = client->is_authenticated ? limits->request_size_max : UPLOAD_SIZE_MIN;

    if (MAX((uint64_t)parser->need, (uint64_t)have) > max) {
        client_reply_error(client, ERROR_request_too_large);
        return have;
    }
    client->stream.need = parser->need;
    return 0;
}

static void redis_consumed(struct client *client)
{
    POOL_ADD(client->pool, client_requests, 1);
    if (UNLIKELY(client->session != NULL))
        session_command_done(client);
}

/* One key, known before the value comes; a request of its own kind is held until it is complete. */
static const struct command *redis_streams(struct client *client, const struct resp_request *request)
{
    const struct command *command =
        request->partial_argc >= 3 ? command_find(request->argv[0]) : NULL;

    if (command == NULL || (command->flags & CMD_BLOCKING) || client->session != NULL ||
        !client->is_authenticated || client->pool->denied[command->id] ||
        client->pool->discovery != NULL || !command_arity_fits(command, request->total_argc) ||
        command->keys.kind != KEYS_RANGE || command->keys.first != 1 ||
        request->argv[1].len > client->pool->proxy->conf->process.limits.key_size_max)
        return NULL;
    if (command->route == ROUTE_ONE && command->keys.last == 1)
        return command;
    return command->route == ROUTE_SPLIT_OK && request->total_argc == 3 ? command : NULL;
}

/* The frame is larger than what is held without need. true: it streams from now on, or waits for that. */
static bool redis_stream(struct client *client, struct bytes data, size_t *consumed)
{
    struct proxy *proxy = client->pool->proxy;
    struct resp_parser parser = {0};
    struct resp_request request;
    const struct command *command;

    if (data.data[0] != '*' ||
        resp_parse(&parser, &proxy->args, &proxy->limits, data, true, &request) != PARSE_MORE ||
        request.partial_arg_len < UPLOAD_SIZE_MIN || request.partial_arg_off > data.len)
        return false;
    command = redis_streams(client, &request);
    return command != NULL && upload_start_redis(client, command, &request, data, consumed);
}

size_t client_handle_redis(struct client *client, struct bytes data)
{
    struct pool *pool = client->pool;
    struct proxy *proxy = pool->proxy;
    struct resp_request request;
    const struct command *command;
    struct bytes frame;

    if (UNLIKELY(!pool->speaks_redis)) {
        client_reply(client, error_info(ERROR_wrong_protocol)->redis);
        client_close_after_replies(client);
        return data.len;
    }
    if (UNLIKELY(!dialect_is_resp(client->dialect))) {
        if (client->request_count > 0) {
            client_pause(client, PAUSE_BARRIER);
            return 0;
        }
        client->dialect = DIALECT_RESP2;
        client->parser.resp = (struct resp_parser){0};
    }
    if (UNLIKELY(data.data[0] != '*') && client_refuse_foreign(client, data))
        return data.len;
    switch (resp_parse(&client->parser.resp, &proxy->args, &proxy->limits, data, false, &request)) {
    case PARSE_OK:
        break;
    case PARSE_MORE: {
        size_t consumed;

        if (UNLIKELY(client->parser.resp.need > UPLOAD_SIZE_MIN) && redis_stream(client, data, &consumed))
            return consumed;
    }
        return redis_need_more(client, &client->parser.resp, data.len);
    case PARSE_BAD:
        return redis_bad(client, &request, data.len);
    }
    if (UNLIKELY(request.argc == 0))
        return request.len;
    frame = bytes_first(data, request.len);
    if (UNLIKELY(request.is_inline) && !redis_recompose(proxy, &request, &frame)) {
        client_reply_error(client, ERROR_out_of_memory);
        return request.len;
    }
    if (UNLIKELY(client->session != NULL) && session_must_wait(client, &request, data.len))
        return 0;
    command = redis_command(client, &request);
    if (UNLIKELY(command == NULL)) {
        if (client->session != NULL && !client->is_dead)
            session_refused(client);
        redis_consumed(client);
        return request.len;
    }
    if (UNLIKELY(frame.len > proxy->conf->process.limits.key_size_max) &&
        redis_key_is_too_long(command, &request, proxy->conf->process.limits.key_size_max)) {
        client_reply_text_error(client, "ERR key is longer than %u bytes",
                                proxy->conf->process.limits.key_size_max);
        redis_consumed(client);
        return request.len;
    }
    if (UNLIKELY(pool->discovery != NULL) && discovery_must_wait(client, command))
        return 0;
    *proxy->note = command->name;
    if (UNLIKELY(client->session != NULL || command->route == ROUTE_PRIVATE ||
                 (command->flags & CMD_BLOCKING) != 0)) {
        enum session_verdict verdict = session_handle(client, command, &request, frame);

        if (verdict == SESSION_WAIT)
            return 0;
        if (verdict == SESSION_DONE) {
            redis_consumed(client);
            return request.len;
        }
    }
    if (UNLIKELY(command->route == ROUTE_LOCAL) && client->request_count > 0 &&
        redis_local_is_barrier(command, &request)) {
        client_pause(client, PAUSE_BARRIER);
        return 0;
    }
    redis_route(client, command, &request, frame);
    if (command->flags & CMD_READ)
        client_weigh(client, request.argc);
    redis_consumed(client);
    return request.len;
}
