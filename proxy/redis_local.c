/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the proxy answers by itself: the connection's own affairs, and what is said of commands.
 */
#include "proxy/redis_local.h"
#include "common/command/command_docs.h"
#include "common/ring/hash.h"

#include <openssl/crypto.h>

void reply_bulk(struct client *client, struct bytes text)
{
    struct buffer *out = &client->pool->proxy->scratch2;
    char header[RESP_HEADER_MAX];

    buffer_clear(out);
    buffer_append(out, header, resp_compose_header(header, '$', (int64_t)text.len));
    buffer_append(out, text.data, text.len);
    buffer_append(out, "\r\n", 2);
    client_reply(client, buffer_bytes(out));
}

void reply_integer(struct client *client, int64_t number)
{
    char header[RESP_HEADER_MAX];

    client_reply(client, bytes_of(header, resp_compose_header(header, ':', number)));
}

void reply_null(struct client *client)
{
    client_reply(client, client->dialect == DIALECT_RESP3 ? BYTES("_\r\n") : BYTES("$-1\r\n"));
}

void reply_lines(struct client *client, const char *const *lines, size_t count)
{
    struct buffer *out = &client->pool->proxy->scratch2;

    buffer_clear(out);
    buffer_append_format(out, "*%zu\r\n", count);
    for (size_t i = 0; i < count; i++)
        buffer_append_format(out, "+%s\r\n", lines[i]);
    client_reply(client, buffer_bytes(out));
}

/* ---- AUTH, HELLO --------------------------------------------------------------------------------- */

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

static void compose_hello(struct client *client, struct buffer *out)
{
    bool is_resp3 = client->dialect == DIALECT_RESP3;

    buffer_clear(out);
    buffer_append_format(out,
                         "%s\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$%zu\r\n%s\r\n"
                         "$5\r\nproto\r\n:%d\r\n$2\r\nid\r\n:%llu\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"
                         "$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
                         is_resp3 ? "%7" : "*14", strlen(REDIS_VERSION_SPOKEN), REDIS_VERSION_SPOKEN,
                         is_resp3 ? 3 : 2, (unsigned long long)client->id);
}

/* What HELLO waits for: whether the servers speak RESP3. `slot` comes first: see request.c. */
struct hello_wait {
    struct request *slot; /* borrows; NULL: the client is gone */
};

static void hello_probed(struct request *probe, enum error_id error, struct bytes reply)
{
    struct hello_wait *wait = probe->internal_arg;
    struct request *slot = wait->slot;

    MAYBE(reply.len);
    mem_free(wait);
    if (slot == NULL)
        return;
    slot->internal_arg = NULL;
    if (error == ERROR_noproto) {
        request_fail(slot, ERROR_noproto);
        return;
    }
    /* A server that cannot be reached says nothing of RESP3: the next request will tell. */
    slot->client->dialect = DIALECT_RESP3;
    session_switched(slot->client);
    compose_hello(slot->client, &slot->client->pool->proxy->scratch2);
    request_finish_bytes(slot, buffer_bytes(&slot->client->pool->proxy->scratch2));
}

static void hello_probe(struct client *client)
{
    struct pool *pool = client->pool;
    struct proxy *proxy = pool->proxy;
    struct server *server = route_any(pool);
    enum error_id error = ERROR_no_server;
    struct upstream *upstream =
        server == NULL ? NULL : upstream_get(server, client, DIALECT_RESP3, client->db, &error);
    struct hello_wait *wait = upstream == NULL ? NULL : mem_zalloc(sizeof(*wait));
    struct request *probe = wait == NULL ? NULL : request_create(proxy, NULL, REQUEST_INTERNAL);

    if (probe == NULL) {
        mem_free(wait);
        client_reply_error(client, error == ERROR_NONE ? ERROR_out_of_memory : error);
        return;
    }
    wait->slot = request_create(proxy, client, REQUEST_CLIENT);
    if (wait->slot == NULL) {
        mem_free(wait);
        request_free(proxy, probe);
        client_close(client);
        return;
    }
    wait->slot->internal_arg = wait;
    wait->slot->is_awaited = true;
    probe->dialect = DIALECT_RESP3;
    probe->internal_done = hello_probed;
    probe->internal_arg = wait;
    client_pause(client, PAUSE_BARRIER);
    upstream_submit(upstream, probe, BYTES("*1\r\n$4\r\nPING\r\n"));
}

static bool name_is_clean(struct bytes name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] < '!' || name.data[i] > '~')
            return false;
    return true;
}

/* false: answered. */
bool local_set_text(struct client *client, size_t offset, struct bytes text, const char *error)
{
    struct session *session;

    if (!name_is_clean(text) || text.len > 512) {
        client_reply_text_error(client, "%s", error);
        return false;
    }
    session = session_get(client);
    if (session == NULL) {
        client_close(client);
        return false;
    }
    {
        struct buffer *target = (struct buffer *)((char *)session + offset);

        buffer_clear(target);
        buffer_append(target, text.data, text.len);
    }
    return true;
}

static bool hello_options(struct client *client, const struct resp_request *request)
{
    struct pool *pool = client->pool;

    for (uint32_t i = 2; i < request->argc; i++) {
        if (bytes_equal_nocase(request->argv[i], BYTES("AUTH")) && i + 2 < request->argc) {
            if (pool->auth.len > 0 &&
                (!bytes_equal(request->argv[i + 1], BYTES("default")) ||
                 !password_fits(request->argv[i + 2], pool->auth))) {
                POOL_ADD(pool, auth_failures, 1);
                client_reply_text_error(client, "WRONGPASS invalid username-password pair or user is disabled.");
                return false;
            }
            client->is_authenticated = true;
            i += 2;
        } else if (bytes_equal_nocase(request->argv[i], BYTES("SETNAME")) && i + 1 < request->argc) {
            if (!local_set_text(client, offsetof(struct session, name), request->argv[++i], CLIENT_NAME_ERROR))
                return false;
        } else {
            client_reply_text_error(client, "ERR Syntax error in HELLO option '%.*s'",
                                    BYTES_ARG(bytes_first(request->argv[i], 64)));
            return false;
        }
    }
    if (!client->is_authenticated) {
        client_reply_text_error(client,
                                "NOAUTH HELLO must be called with the client already authenticated, "
                                "otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the "
                                "client and select the RESP protocol version at the same time");
        return false;
    }
    return true;
}

static void local_hello(struct client *client, const struct resp_request *request)
{
    uint64_t version = client->dialect == DIALECT_RESP3 ? 3 : 2;

    if (request->argc > 1) {
        if (!bytes_to_u64(request->argv[1], INT64_MAX, &version)) {
            client_reply_text_error(client, "ERR Protocol version is not an integer or out of range");
            return;
        }
        if (version != 2 && version != 3) {
            client_reply_error(client, ERROR_noproto);
            return;
        }
    }
    if (!hello_options(client, request))
        return;
    if (version == 3 && client->dialect != DIALECT_RESP3) {
        if (client->pool->resp3_support == 0) {
            client_reply_error(client, ERROR_noproto);
            return;
        }
        if (client->pool->resp3_support < 0) {
            hello_probe(client);
            return;
        }
    }
    client->dialect = version == 3 ? DIALECT_RESP3 : DIALECT_RESP2;
    session_switched(client);
    compose_hello(client, &client->pool->proxy->scratch2);
    client_reply(client, buffer_bytes(&client->pool->proxy->scratch2));
}

/* ---- the rest ------------------------------------------------------------------------------------- */

static void local_select(struct client *client, const struct resp_request *request)
{
    uint64_t db;

    if (!bytes_to_u64(request->argv[1], INT64_MAX, &db)) {
        client_reply_error(client, ERROR_not_integer);
        return;
    }
    if (db > UINT8_MAX) {
        client_reply_error(client, ERROR_db_range);
        return;
    }
    client->db = db == 0 ? (uint8_t)client->pool->conf->redis_db : (uint8_t)db;
    session_switched(client);
    client_reply(client, BYTES("+OK\r\n"));
}

static void sink_write(void *arg, const char *data, size_t len)
{
    buffer_append(arg, data, len);
}

static void local_command(struct client *client, const struct resp_request *request)
{
    struct buffer *out = &client->pool->proxy->scratch2;
    struct compose_sink sink = {.write = sink_write, .arg = out};

    buffer_clear(out);
    command_reply_compose(request->argv, request->argc, client->dialect == DIALECT_RESP3, CMD_DENIED,
                          &sink);
    client_reply(client, buffer_bytes(out));
    client->pool->proxy->wants_trim = true;
}

static void local_cluster(struct client *client, const struct command *command,
                          const struct resp_request *request)
{
    if (command->id == COMMAND_cluster_keyslot)
        reply_integer(client, hash_slot(request->argv[2]));
    else
        client_reply_text_error(client, "ERR This instance has cluster support disabled");
}

void redis_local(struct client *client, const struct command *command,
                 const struct resp_request *request)
{
    switch (command->id) {
    case COMMAND_ping:
        if (request->argc > 2)
            client_reply_text_error(client, "ERR wrong number of arguments for 'ping' command");
        else if (request->argc == 2)
            reply_bulk(client, request->argv[1]);
        else
            client_reply(client, BYTES("+PONG\r\n"));
        return;
    case COMMAND_echo:
        reply_bulk(client, request->argv[1]);
        return;
    case COMMAND_auth:
        local_auth(client, request);
        return;
    case COMMAND_hello:
        local_hello(client, request);
        return;
    case COMMAND_select:
        local_select(client, request);
        return;
    case COMMAND_quit:
        client_reply(client, BYTES("+OK\r\n"));
        if (!client->is_dead)
            client_close_after_replies(client);
        return;
    case COMMAND_reset:
        session_reset(client);
        return;
    case COMMAND_acl_whoami:
        reply_bulk(client, BYTES("default"));
        return;
    case COMMAND_info:
        redis_info(client, request);
        return;
    default:
        break;
    }
    if (command->parent == COMMAND_client || command->id == COMMAND_client)
        redis_client(client, command, request);
    else if (command->parent == COMMAND_command || command->id == COMMAND_command)
        local_command(client, request);
    else if (command->parent == COMMAND_cluster || command->id == COMMAND_cluster ||
             command->id == COMMAND_readonly || command->id == COMMAND_readwrite ||
             command->id == COMMAND_asking)
        local_cluster(client, command, request);
    else
        client_reply_text_error(client, "ERR command '%s' is not supported by the proxy", command->name);
}

/* Commands that change what later ones mean: they wait until all before them are answered. */
bool redis_local_is_barrier(const struct command *command, const struct resp_request *request)
{
    return command->id == COMMAND_select || command->id == COMMAND_reset ||
           (command->id == COMMAND_hello && request->argc > 1);
}
