/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/session.h"

#define PRIVATE_IDLE_MAX 8 /* clean private upstreams kept by a server */

struct session *session_get(struct client *client)
{
    struct session *session = client->session;

    if (session != NULL)
        return session;
    session = mem_zalloc(sizeof(*session));
    if (session == NULL)
        return NULL;
    session->client = client;
    session->queued.max = SESSION_QUEUED_MAX;
    session->held.max = SESSION_HELD_MAX;
    session->channels.seed = session->patterns.seed = session->shard_channels.seed =
        io_random64(client->pool->proxy->io);
    client->session = session;
    return session;
}

/* ---- private upstreams ------------------------------------------------------------------------ */

static struct upstream *private_idle(struct server *server, uint8_t dialect, uint8_t db)
{
    LIST_FOR_EACH (&server->upstreams, node) {
        struct upstream *upstream = CONTAINER_OF(node, struct upstream, server_node);

        if (upstream->is_private && upstream->session == NULL && upstream->dialect == dialect &&
            upstream->db == db && upstream->state == UPSTREAM_READY &&
            upstream->inflight_count == 0 && !upstream->is_pubsub)
            return upstream;
    }
    return NULL;
}

static uint32_t private_idle_count(struct server *server)
{
    uint32_t count = 0;

    LIST_FOR_EACH (&server->upstreams, node) {
        struct upstream *upstream = CONTAINER_OF(node, struct upstream, server_node);

        count += upstream->is_private && upstream->session == NULL;
    }
    return count;
}

struct upstream *private_upstream_get(struct server *server, uint8_t dialect, uint8_t db,
                                      enum error_id *error)
{
    struct upstream *upstream = private_idle(server, dialect, db);

    return upstream != NULL ? upstream : upstream_open(server, dialect, db, true, error);
}

/* false: the client was told why. */
static bool session_bind(struct session *session, struct server *server)
{
    struct client *client = session->client;
    enum error_id error = ERROR_NONE;
    struct upstream *upstream = private_upstream_get(server, client->dialect, client->db, &error);

    ASSERT(session->upstream == NULL);
    if (upstream == NULL) {
        client_reply_error(client, error);
        return false;
    }
    upstream->session = session;
    upstream->is_patient = false;
    session->upstream = upstream;
    POOL_ADD(client->pool, private_sessions, 1);
    return true;
}

static void session_unbind(struct session *session)
{
    struct upstream *upstream = session->upstream;
    bool is_clean = upstream->inflight_count == 0 && !session->is_in_multi && !session->is_watching &&
                    upstream->state == UPSTREAM_READY;

    session->upstream = NULL;
    upstream->session = NULL;
    POOL_ADD(session->client->pool, private_sessions, -1);
    if (!is_clean || session->has_left || private_idle_count(upstream->server) > PRIVATE_IDLE_MAX)
        upstream_retire(upstream, ERROR_reset, "its client is done with it");
}

static void session_unbind_if_free(struct session *session)
{
    if (session->upstream != NULL && session->upstream->inflight_count == 0 && !session->is_in_multi &&
        !session->is_watching && !session->is_blocked)
        session_unbind(session);
}

struct server *session_server(struct client *client, const struct command *command,
                              const struct resp_request *request, enum error_id *error)
{
    struct command_keys keys;

    *error = ERROR_NONE;
    if (command->route == ROUTE_CHANNEL)
        return route_key(client->pool, request->argv[1]);
    if (command->keys.kind == KEYS_NONE)
        return NULL;
    if (command_keys(command, request->argv, request->argc, &keys) != 0) {
        *error = ERROR_syntax;
        return NULL;
    }
    return keys.key_count == 0 ? NULL : route_keys(client->pool, request, &keys, error);
}

static void session_forward(struct session *session, uint16_t command, struct bytes frame, bool is_silent)
{
    struct client *client = session->client;
    struct request *request = request_create(client->pool->proxy, client, REQUEST_CLIENT);

    if (request == NULL) {
        client_close(client);
        return;
    }
    request->command = command;
    request->is_silent |= is_silent;
    /* A server may send a command that waits elsewhere. */
    if (session->is_blocked && client->pool->discovery != NULL)
        MAYBE(request_keep_wire(request, frame));
    upstream_submit(session->upstream, request, frame);
}

/* Program order: a client uses its private connection only while nothing of it is in flight elsewhere, as
 * far as that could touch the same server. true: the client was paused, the same bytes come again. */
static bool session_must_settle(struct session *session)
{
    struct client *client = session->client;
    bool is_elsewhere = session->upstream == NULL && client->request_count > 0;

    /* Beside WATCH, requests to all servers and without a key travel on the shared connections. */
    if (session->upstream != NULL && session->is_watching) {
        for (struct queue_node *node = client->requests.first; node != NULL && !is_elsewhere;
             node = node->next) {
            struct request *request = CONTAINER_OF(node, struct request, client_node);

            is_elsewhere = (request->is_split && !request->is_done) ||
                           (request->upstream != NULL && request->upstream != session->upstream);
        }
    }
    if (is_elsewhere)
        client_pause(client, PAUSE_BARRIER);
    return is_elsewhere;
}

/* ---- transactions ------------------------------------------------------------------------------ */

static void multi_end(struct session *session)
{
    session->is_in_multi = false;
    session->is_aborted = false;
    session->is_watching = false;
    session->is_watch_lost = false;
    buffer_deinit(&session->queued);
    session->queued_count = 0;
}

/* What was kept goes to the server that is known now; its +QUEUED were given already. */
static bool multi_bind(struct session *session, struct server *server)
{
    struct bytes rest = buffer_bytes(&session->queued);

    if (session->upstream == NULL && !session_bind(session, server))
        return false;
    session_forward(session, COMMAND_multi, BYTES("*1\r\n$5\r\nMULTI\r\n"), true);
    session->is_multi_sent = true;
    while (rest.len > 0) {
        uint32_t len;

        memcpy(&len, rest.data, sizeof(len));
        session_forward(session, COMMAND_none, bytes_of(rest.data + sizeof(len), len), true);
        rest = bytes_skip(rest, sizeof(len) + len);
    }
    buffer_deinit(&session->queued);
    session->queued_count = 0;
    return true;
}

bool session_queued_is_good(struct session *session)
{
    struct bytes rest = buffer_bytes(&session->queued);

    session->queued_count = 0;
    while (rest.len > 0) {
        uint32_t len;

        if (rest.len < sizeof(len))
            return false;
        memcpy(&len, rest.data, sizeof(len));
        if (len > rest.len - sizeof(len))
            return false;
        rest = bytes_skip(rest, sizeof(len) + len);
        session->queued_count++;
    }
    return true;
}

static void multi_keep(struct session *session, struct bytes frame)
{
    uint32_t len = (uint32_t)frame.len;

    buffer_append(&session->queued, &len, sizeof(len));
    buffer_append(&session->queued, frame.data, frame.len);
    if (session->queued.failed) {
        session->is_aborted = true;
        client_reply_error(session->client, ERROR_out_of_memory);
        return;
    }
    session->queued_count++;
    client_reply(session->client, BYTES("+QUEUED\r\n"));
}

static enum session_verdict multi_exec(struct session *session, struct bytes frame)
{
    struct client *client = session->client;

    if (session->is_aborted || session->is_watch_lost) {
        if (session->upstream != NULL && session->is_multi_sent)
            session_forward(session, COMMAND_discard, BYTES("*1\r\n$7\r\nDISCARD\r\n"), true);
        else if (session->upstream != NULL && session->is_watching)
            session_forward(session, COMMAND_unwatch, BYTES("*1\r\n$7\r\nUNWATCH\r\n"), true);
        if (session->is_aborted)
            client_reply_error(client, ERROR_execabort);
        else
            client_reply(client, client->dialect == DIALECT_RESP3 ? BYTES("_\r\n") : BYTES("*-1\r\n"));
    } else if (!session->is_multi_sent && session->queued_count == 0 && session->upstream == NULL) {
        client_reply(client, BYTES("*0\r\n"));
    } else {
        if (!session->is_multi_sent && session_must_settle(session))
            return SESSION_WAIT;
        if (!session->is_multi_sent) {
            struct server *server =
                session->upstream != NULL ? session->upstream->server : route_any(client->pool);

            if (server == NULL) {
                client_reply_error(client, ERROR_no_server);
                multi_end(session);
                return SESSION_DONE;
            }
            if (!multi_bind(session, server)) {
                multi_end(session);
                return SESSION_DONE;
            }
        }
        session_forward(session, COMMAND_exec, frame, false);
    }
    multi_end(session);
    session->is_multi_sent = false;
    return SESSION_DONE;
}

static enum session_verdict multi_discard(struct session *session, struct bytes frame)
{
    if (session->upstream != NULL && session->is_multi_sent)
        session_forward(session, COMMAND_discard, frame, false);
    else {
        if (session->upstream != NULL && session->is_watching)
            session_forward(session, COMMAND_unwatch, BYTES("*1\r\n$7\r\nUNWATCH\r\n"), true);
        client_reply(session->client, BYTES("+OK\r\n"));
    }
    multi_end(session);
    session->is_multi_sent = false;
    return SESSION_DONE;
}

static void multi_refuse(struct session *session, const char *why)
{
    session->is_aborted = true;
    client_reply_text_error(session->client, "%s", why);
}

/* What is meant for all servers fits where there is only one. */
static bool multi_may_take(const struct pool *pool, const struct command *command)
{
    bool is_one = pool->server_count == 1 && pool->discovery == NULL;

    switch ((enum command_route)command->route) {
    case ROUTE_ONE:
    case ROUTE_SPLIT_ORDER:
    case ROUTE_SPLIT_OK:
    case ROUTE_SPLIT_SUM:
    case ROUTE_ANY:
    case ROUTE_CHANNEL:
        return true;
    case ROUTE_LOCAL:
        return command->id == COMMAND_ping || command->id == COMMAND_echo;
    case ROUTE_ALL_SUM:
    case ROUTE_ALL_OK:
    case ROUTE_ALL_CONCAT:
    case ROUTE_ALL_SAME:
    case ROUTE_ALL_AND:
    case ROUTE_ALL_ANY_OK:
    case ROUTE_ALL_PAIRS:
    case ROUTE_SCAN:
        return is_one;
    case ROUTE_PRIVATE:
        return command->id == COMMAND_unwatch;
    }
    return false;
}

/* The connection of an earlier transaction or WATCH that is over ties nothing any more: a new one may go
 * elsewhere. false: replies are still to come on it; the client was paused. */
static bool session_let_go(struct session *session)
{
    struct client *client = session->client;
    bool is_in_multi = session->is_in_multi;

    ASSERT(!session->is_watching && !session->is_multi_sent);
    /* Not for replies that are overdue: nobody waits for them, they go with the connection. */
    if (session->upstream->inflight_count > 0 && client->request_count > 0) {
        client_pause(client, PAUSE_BARRIER);
        return false;
    }
    session->is_in_multi = false;
    session_unbind(session);
    session->is_in_multi = is_in_multi;
    return true;
}

/* A command inside MULTI. */
static enum session_verdict multi_command(struct session *session, const struct command *command,
                                          const struct resp_request *request, struct bytes frame)
{
    struct client *client = session->client;
    enum error_id error;
    struct server *server;

    switch (command->id) {
    case COMMAND_exec:
        return multi_exec(session, frame);
    case COMMAND_discard:
        return multi_discard(session, frame);
    case COMMAND_multi:
        /* As Redis: this alone does not abort. */
        client_reply_text_error(client, "ERR MULTI calls can not be nested");
        return SESSION_DONE;
    case COMMAND_watch:
        client_reply_text_error(client, "ERR WATCH inside MULTI is not allowed");
        return SESSION_DONE;
    case COMMAND_quit:
        return SESSION_PASS;
    default:
        break;
    }
    if (!multi_may_take(client->pool, command) || (command->flags & CMD_NO_MULTI)) {
        multi_refuse(session, "ERR Command not allowed inside a transaction");
        return SESSION_DONE;
    }
    server = session_server(client, command, request, &error);
    if (error == ERROR_NONE && session->upstream != NULL && session->upstream->server != server &&
        !session->is_multi_sent && !session->is_watching && !session_let_go(session))
        return SESSION_WAIT;
    if (error == ERROR_NONE && server != NULL && session->upstream != NULL &&
        session->upstream->server != server)
        error = ERROR_crossslot;
    if (error != ERROR_NONE) {
        session->is_aborted = true;
        client_reply_error(client, error);
        return SESSION_DONE;
    }
    if (server == NULL && session->upstream == NULL) {
        multi_keep(session, frame);
        return SESSION_DONE;
    }
    if (!session->is_multi_sent && session_must_settle(session))
        return SESSION_WAIT;
    if (!session->is_multi_sent &&
        !multi_bind(session, server != NULL ? server : session->upstream->server)) {
        session->is_aborted = true;
        return SESSION_DONE;
    }
    session_forward(session, command->id, frame, false);
    return SESSION_DONE;
}

static enum session_verdict session_multi(struct client *client)
{
    struct session *session = session_get(client);

    if (session == NULL) {
        client_close(client);
        return SESSION_DONE;
    }
    session->is_in_multi = true;
    session->is_multi_sent = false;
    client_reply(client, BYTES("+OK\r\n"));
    return SESSION_DONE;
}

static enum session_verdict session_watch(struct client *client, const struct command *command,
                                          const struct resp_request *request, struct bytes frame)
{
    enum error_id error;
    struct server *server = session_server(client, command, request, &error);
    struct session *session;

    if (server == NULL) {
        client_reply_error(client, error == ERROR_NONE ? ERROR_no_server : error);
        return SESSION_DONE;
    }
    session = session_get(client);
    if (session == NULL) {
        client_close(client);
        return SESSION_DONE;
    }
    session_unbind_if_free(session);
    if (session->upstream != NULL && session->upstream->server != server && !session->is_watching &&
        !session_let_go(session))
        return SESSION_WAIT;
    if (session->upstream != NULL && session->upstream->server != server) {
        client_reply_error(client, ERROR_crossslot);
        return SESSION_DONE;
    }
    if (session->upstream == NULL) {
        if (client->request_count > 0) {
            client_pause(client, PAUSE_BARRIER);
            return SESSION_WAIT;
        }
        if (!session_bind(session, server))
            return SESSION_DONE;
    }
    session->is_watching = true;
    session_forward(session, command->id, frame, false);
    return SESSION_DONE;
}

static enum session_verdict session_unwatch(struct client *client, struct bytes frame)
{
    struct session *session = client->session;

    if (session != NULL)
        session->is_watch_lost = false;
    if (session == NULL || session->upstream == NULL) {
        client_reply(client, BYTES("+OK\r\n"));
        return SESSION_DONE;
    }
    session->is_watching = false;
    session_forward(session, COMMAND_unwatch, frame, false);
    return SESSION_DONE;
}

/* ---- blocking ------------------------------------------------------------------------------------ */

/* XREAD and XREADGROUP block only when they say so. */
static bool may_block(const struct command *command, const struct resp_request *request)
{
    if ((command->flags & CMD_BLOCKING) == 0)
        return false;
    if (command->keys.kind != KEYS_XREAD)
        return true;
    for (uint32_t i = 1; i < request->argc; i++) {
        if (bytes_equal_nocase(request->argv[i], BYTES("STREAMS")))
            return false;
        if (bytes_equal_nocase(request->argv[i], BYTES("BLOCK")))
            return true;
    }
    return false;
}

static enum session_verdict session_block(struct client *client, const struct command *command,
                                          const struct resp_request *request, struct bytes frame)
{
    enum error_id error;
    struct server *server;
    struct session *session;
    struct command_keys keys;

    if (command->keys.kind != KEYS_NONE &&
        command_keys(command, request->argv, request->argc, &keys) != 0) {
        client_reply_text_error(client, "%s", command_keys_error(command, request->argv, request->argc));
        return SESSION_DONE;
    }
    server = session_server(client, command, request, &error);
    if (error == ERROR_NONE && server == NULL)
        server = client->pool->server_count == 1 ? route_any(client->pool) : NULL;
    if (server == NULL) {
        if (error == ERROR_NONE)
            client_reply_text_error(client, "ERR command '%s' needs a pool of one server", command->name);
        else
            client_reply_error(client, error);
        return SESSION_DONE;
    }
    if (client->request_count > 0) {
        client_pause(client, PAUSE_BARRIER);
        return SESSION_WAIT;
    }
    session = session_get(client);
    if (session == NULL) {
        client_close(client);
        return SESSION_DONE;
    }
    session_unbind_if_free(session);
    if (session->upstream != NULL && session->upstream->server != server) {
        client_reply_error(client, ERROR_crossslot);
        return SESSION_DONE;
    }
    if (session->upstream == NULL && !session_bind(session, server))
        return SESSION_DONE;
    session->is_blocked = true;
    session->upstream->is_patient = true;
    session_forward(session, command->id, frame, false);
    return SESSION_DONE;
}

/* ---- the door ------------------------------------------------------------------------------------- */

bool session_must_wait(struct client *client, const struct resp_request *request, size_t have)
{
    MAYBE(request);
    if (!client->session->is_blocked)
        return false;
    /* Not paused: the end of the connection must be noticed while the command waits. But nobody makes us
     * hold what he sends on and on meanwhile. */
    if (have > SESSION_INPUT_MAX && client->request_count > 0)
        client_pause(client, PAUSE_BARRIER);
    return true;
}

bool session_move(struct session *session, struct request *head, struct server *server, bool is_asking)
{
    struct client *client = session->client;
    enum error_id error = ERROR_NONE;
    struct upstream *old = session->upstream;
    struct upstream *upstream = private_upstream_get(server, client->dialect, client->db, &error);

    if (upstream == NULL || upstream == old)
        return false;
    MAYBE(upstream_take_head(old) == head);
    head->upstream = NULL;
    session_unbind(session);
    upstream->session = session;
    upstream->is_patient = true;
    session->upstream = upstream;
    POOL_ADD(client->pool, private_sessions, 1);
    if (is_asking) {
        struct request *asking = request_create(client->pool->proxy, NULL, REQUEST_CLIENT);

        if (asking != NULL) {
            asking->dialect = upstream->dialect;
            asking->is_tombstone = true; /* its reply is dropped */
            upstream->tombstone_count++;
            upstream_submit(upstream, asking, BYTES("*1\r\n$6\r\nASKING\r\n"));
        }
    }
    upstream_submit(upstream, head, request_wire(head));
    return true;
}

void session_refused(struct client *client)
{
    if (client->session->is_in_multi)
        client->session->is_aborted = true;
}

void session_switched(struct client *client)
{
    struct session *session = client->session;

    if (session == NULL || session->upstream == NULL ||
        (session->upstream->db == client->db && session->upstream->dialect == client->dialect))
        return;
    session->is_watch_lost = session->is_watch_lost || session->is_watching;
    session_unbind(session);
    session->is_watching = false;
}

void session_reset(struct client *client)
{
    struct session *session = client->session;
    struct pool *pool = client->pool;

    if (session != NULL) {
        pubsub_leave(session);
        if (session->upstream != NULL)
            session_unbind(session);
        multi_end(session);
        session->is_multi_sent = false;
        session->reply_mode = REPLY_ON;
        buffer_deinit(&session->name);
    }
    client->dialect = DIALECT_RESP2;
    client->db = (uint8_t)pool->conf->redis_db;
    client->is_authenticated = pool->auth.len == 0;
    client_reply(client, BYTES("+RESET\r\n"));
}

static bool allowed_while_subscribed(const struct command *command)
{
    return pubsub_is_command(command) || command->id == COMMAND_ping || command->id == COMMAND_quit ||
           command->id == COMMAND_reset;
}

static enum session_verdict session_subscribed(struct client *client, const struct command *command,
                                               const struct resp_request *request)
{
    if (!allowed_while_subscribed(command)) {
        client_reply_text_error(client,
                                "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / "
                                "QUIT / RESET are allowed in this context",
                                command->name);
        return SESSION_DONE;
    }
    if (command->id == COMMAND_ping) {
        struct bytes text = request->argc > 1 ? request->argv[1] : BYTES_EMPTY;
        struct buffer *out = &client->pool->proxy->scratch2;

        buffer_clear(out);
        buffer_append_format(out, "*2\r\n$4\r\npong\r\n$%zu\r\n", text.len);
        buffer_append(out, text.data, text.len);
        buffer_append(out, "\r\n", 2);
        client_reply(client, buffer_bytes(out));
        return SESSION_DONE;
    }
    return SESSION_PASS;
}

enum session_verdict session_handle(struct client *client, const struct command *command,
                                    const struct resp_request *request, struct bytes frame)
{
    struct session *session = client->session;
    enum error_id error;
    struct server *server;

    if (command->id == COMMAND_reset)
        return SESSION_PASS;
    if (session != NULL && session->is_in_multi)
        return multi_command(session, command, request, frame);
    if (session != NULL && client->dialect == DIALECT_RESP2 && pubsub_is_subscribed(session) &&
        session_subscribed(client, command, request) == SESSION_DONE)
        return SESSION_DONE;
    if (pubsub_is_command(command)) {
        pubsub_command(client, command, request);
        return SESSION_DONE;
    }
    switch (command->id) {
    case COMMAND_multi:
        return session_multi(client);
    case COMMAND_exec:
        client_reply_text_error(client, "ERR EXEC without MULTI");
        return SESSION_DONE;
    case COMMAND_discard:
        client_reply_text_error(client, "ERR DISCARD without MULTI");
        return SESSION_DONE;
    case COMMAND_watch:
        return session_watch(client, command, request, frame);
    case COMMAND_unwatch:
        return session_unwatch(client, frame);
    default:
        break;
    }
    if (may_block(command, request) || command->id == COMMAND_wait)
        return session_block(client, command, request, frame);
    if (command->route == ROUTE_PRIVATE) {
        client_reply_text_error(client, "ERR command '%s' is not supported by the proxy", command->name);
        return SESSION_DONE;
    }
    if (session == NULL || session->upstream == NULL)
        return SESSION_PASS;
    session_unbind_if_free(session);
    if (session->upstream == NULL)
        return SESSION_PASS;
    server = session_server(client, command, request, &error);
    if (server == session->upstream->server) {
        if (session_must_settle(session))
            return SESSION_WAIT;
        session_forward(session, command->id, frame, false);
        return SESSION_DONE;
    }
    /* For all servers, or any: behind what is on its way on the private connection. */
    if (server == NULL && command->route != ROUTE_LOCAL && session->upstream->inflight_count > 0 &&
        client->request_count > 0) {
        client_pause(client, PAUSE_BARRIER);
        return SESSION_WAIT;
    }
    return SESSION_PASS;
}

void session_command_done(struct client *client)
{
    struct session *session = client->session;

    if (session->reply_mode == REPLY_SKIP_NEXT)
        session->reply_mode = REPLY_SKIP_THIS;
    else if (session->reply_mode == REPLY_SKIP_THIS)
        session->reply_mode = REPLY_ON;
}

bool session_is_mute(const struct client *client)
{
    return client->session->reply_mode == REPLY_OFF || client->session->reply_mode == REPLY_SKIP_THIS;
}

void session_replied(struct client *client)
{
    struct session *session = client->session;

    if (session->is_blocked && client->request_count == 0) {
        session->is_blocked = false;
        if (session->upstream != NULL)
            session->upstream->is_patient = false;
        session_unbind_if_free(session);
        /* Lends again what was read meanwhile. */
        if (client->pause == 0 && io_stream_is_open(&client->stream)) {
            io_stream_pause(&client->stream);
            io_stream_resume(&client->stream);
        }
    }
    if (session->held.len > 0)
        pubsub_release(session);
}

bool session_is_blocked(const struct client *client)
{
    return client->session != NULL && client->session->is_blocked;
}

void session_destroy(struct client *client)
{
    struct session *session = client->session;

    if (session == NULL)
        return;
    pubsub_leave(session);
    if (session->upstream != NULL)
        session_unbind(session);
    client->session = NULL;
    buffer_deinit(&session->name);
    buffer_deinit(&session->lib_name);
    buffer_deinit(&session->lib_version);
    buffer_deinit(&session->queued);
    buffer_deinit(&session->held);
    nameset_deinit(&session->channels);
    nameset_deinit(&session->patterns);
    nameset_deinit(&session->shard_channels);
    mem_free(session->links);
    mem_free(session);
}

size_t session_upstream_recv(struct upstream *upstream, struct bytes data)
{
    ASSERT(upstream->is_pubsub);
    return pubsub_recv(upstream, data);
}

void session_upstream_gone(struct upstream *upstream, enum error_id error)
{
    struct session *session = upstream->session;

    MAYBE(error);
    if (session == NULL)
        return;
    upstream->session = NULL;
    if (upstream->is_pubsub) {
        pubsub_link_gone(session, upstream);
        return;
    }
    if (session->upstream != upstream)
        return;
    session->upstream = NULL;
    POOL_ADD(session->client->pool, private_sessions, -1);
    if (session->is_multi_sent)
        session->is_aborted = true;
    if (session->is_watching)
        session->is_watch_lost = true;
    session->is_multi_sent = false;
    session->is_watching = false;
}
