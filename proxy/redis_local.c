/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the proxy answers by itself: the connection's own affairs.
 */
#include "proxy/proxy_private.h"

#include <openssl/crypto.h>

static void reply_bulk(struct client *client, struct bytes text)
{
    struct buffer *out = &client->pool->proxy->scratch2;
    char header[RESP_HEADER_MAX];

    buffer_clear(out);
    buffer_append(out, header, resp_compose_header(header, '$', (int64_t)text.len));
    buffer_append(out, text.data, text.len);
    buffer_append(out, "\r\n", 2);
    client_reply(client, buffer_bytes(out));
}

static void local_ping(struct client *client, const struct resp_request *request)
{
    if (request->argc == 1)
        client_reply(client, BYTES("+PONG\r\n"));
    else
        reply_bulk(client, request->argv[1]);
}

static bool password_fits(struct bytes password, struct bytes wanted)
{
    return password.len == wanted.len && CRYPTO_memcmp(password.data, wanted.data, wanted.len) == 0;
}

static void local_auth(struct client *client, const struct resp_request *request)
{
    struct pool *pool = client->pool;
    struct bytes password = request->argv[request->argc - 1];

    if (request->argc > 3) {
        client_reply_error(client, ERROR_syntax);
    } else if (pool->auth.len == 0) {
        client_reply_error(client, ERROR_auth_not_set);
    } else if ((request->argc == 3 && !bytes_equal(request->argv[1], BYTES("default"))) ||
               !password_fits(password, pool->auth)) {
        POOL_ADD(pool, auth_failures, 1);
        client->is_authenticated = false;
        client_reply_error(client, ERROR_auth_invalid);
    } else {
        client->is_authenticated = true;
        client_reply(client, BYTES("+OK\r\n"));
    }
}

static void local_select(struct client *client, const struct resp_request *request)
{
    uint64_t db;

    if (!bytes_to_u64(request->argv[1], 255, &db)) {
        client_reply_error(client, ERROR_not_integer);
        return;
    }
    client->db = db == 0 ? (uint8_t)client->pool->conf->redis_db : (uint8_t)db;
    client_reply(client, BYTES("+OK\r\n"));
}

void redis_local(struct client *client, const struct command *command,
                 const struct resp_request *request)
{
    switch (command->id) {
    case COMMAND_ping:
        local_ping(client, request);
        break;
    case COMMAND_echo:
        reply_bulk(client, request->argv[1]);
        break;
    case COMMAND_auth:
        local_auth(client, request);
        break;
    case COMMAND_select:
        local_select(client, request);
        break;
    case COMMAND_quit:
        client_reply(client, BYTES("+OK\r\n"));
        if (!client->is_dead)
            client_close_after_replies(client);
        break;
    default:
        client_reply_text_error(client, "ERR command '%s' is not supported by the proxy", command->name);
        break;
    }
}

bool redis_merge_info(struct fanout *fanout, struct outbuf *out)
{
    struct bytes first = buffer_bytes(&fanout->parts[0].reply);

    return outbuf_append(&fanout->pool->proxy->chunks, out, first.data, first.len);
}
