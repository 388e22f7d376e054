/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish and subscribe over several servers.
 *
 * A channel lives on the server that the ring gives it; PUBLISH goes there too. A pattern is subscribed
 * on every server; as a channel is published on one only, each message comes once.
 *
 *     client  SUBSCRIBE a b   ->  link X: SUBSCRIBE a     (a private upstream a server)
 *                             ->  link Y: SUBSCRIBE b
 *
 * Each name is a slot in the client's queue, answered when its server (a pattern: every server) has
 * confirmed: so confirmations come in the order asked, and a message that is published after one is
 * not missed. The count in a confirmation is ours, not a server's. Messages go out as they come, but
 * never into the middle of a reply.
 */
#include "proxy/session.h"

enum sub_kind { SUB_CHANNEL, SUB_PATTERN, SUB_SHARD };

/* One confirmation that is waited for: from `left` servers. */
struct sub_wait {
    struct request *slot; /* borrows: in the client's queue; NULL: nobody is told. First: see is_awaited */
    uint32_t left;
    uint8_t hop_count;
    char *text; /* owns: the composed confirmation */
    size_t text_len;
};

bool pubsub_is_command(const struct command *command)
{
    switch (command->id) {
    case COMMAND_subscribe:
    case COMMAND_psubscribe:
    case COMMAND_ssubscribe:
    case COMMAND_unsubscribe:
    case COMMAND_punsubscribe:
    case COMMAND_sunsubscribe:
        return true;
    default:
        return false;
    }
}

static struct nameset *pubsub_set(struct session *session, enum sub_kind kind)
{
    switch (kind) {
    case SUB_CHANNEL:
        return &session->channels;
    case SUB_PATTERN:
        return &session->patterns;
    case SUB_SHARD:
        return &session->shard_channels;
    }
    UNREACHABLE("no such kind");
}

uint32_t pubsub_count(const struct session *session)
{
    return session->channels.count + session->patterns.count;
}

bool pubsub_is_subscribed(const struct session *session)
{
    return pubsub_count(session) + session->shard_channels.count > 0;
}

/* ---- links -------------------------------------------------------------------------------------- */

static struct upstream *pubsub_link(struct session *session, struct server *server, enum error_id *error)
{
    struct client *client = session->client;
    struct upstream *upstream, **links;

    for (uint32_t i = 0; i < session->link_count; i++)
        if (session->links[i]->server == server)
            return session->links[i];
    links = mem_realloc(session->links, sizeof(*links) * (session->link_count + 1));
    if (links == NULL) {
        *error = ERROR_out_of_memory;
        return NULL;
    }
    session->links = links;
    upstream = upstream_open(server, client->dialect, client->db, true, error);
    if (upstream == NULL)
        return NULL;
    upstream->session = session;
    upstream->is_pubsub = true;
    upstream->is_patient = true;
    session->links[session->link_count++] = upstream;
    POOL_ADD(client->pool, private_sessions, 1);
    return upstream;
}

void pubsub_link_gone(struct session *session, struct upstream *upstream)
{
    for (uint32_t i = 0; i < session->link_count; i++)
        if (session->links[i] == upstream) {
            session->links[i] = session->links[--session->link_count];
            POOL_ADD(session->client->pool, private_sessions, -1);
            break;
        }
    if (pubsub_is_subscribed(session))
        client_close(session->client);
}

void pubsub_leave(struct session *session)
{
    nameset_deinit(&session->channels);
    nameset_deinit(&session->patterns);
    nameset_deinit(&session->shard_channels);
    while (session->link_count > 0) {
        struct upstream *upstream = session->links[--session->link_count];

        upstream->session = NULL;
        POOL_ADD(session->client->pool, private_sessions, -1);
        upstream_retire(upstream, ERROR_reset, "its client is done with it");
    }
}

/* ---- commands ------------------------------------------------------------------------------------- */

static void compose_confirmation(struct client *client, struct buffer *out, const char *verb,
                                 const struct bytes *name, uint32_t count)
{
    buffer_append_format(out, "%c3\r\n$%zu\r\n%s\r\n", client->dialect == DIALECT_RESP3 ? '>' : '*',
                         strlen(verb), verb);
    if (name != NULL) {
        buffer_append_format(out, "$%zu\r\n", name->len);
        buffer_append(out, name->data, name->len);
        buffer_append_string(out, "\r\n");
    } else {
        buffer_append_string(out, client->dialect == DIALECT_RESP3 ? "_\r\n" : "$-1\r\n");
    }
    buffer_append_format(out, ":%u\r\n", count);
}

static void sub_send(struct upstream *upstream, const char *verb, struct bytes name, struct sub_wait *wait);

/* A shard channel whose slot has moved: its new server is asked. Any other refusal, and one too many,
 * closes the client: what it believes to be subscribed to is not. */
static void sub_refused(struct sub_wait *wait, struct bytes reply)
{
    struct client *client = wait->slot == NULL ? NULL : wait->slot->client;
    struct bytes text = bytes_of(wait->text, wait->text_len);
    enum error_id error = ERROR_NONE;
    struct resp_value head, verb, name;
    struct upstream *upstream;
    struct server *server;
    char verb_text[16];

    if (client == NULL)
        return;
    server = client->pool->discovery == NULL || wait->hop_count++ >= 5
                 ? NULL
                 : discovery_moved(client->pool, reply);
    upstream = server == NULL ? NULL : pubsub_link(client->session, server, &error);
    if (upstream == NULL || !resp_next(&text, &head) || !resp_next(&text, &verb) ||
        !resp_next(&text, &name)) {
        client_close(client);
        return;
    }
    snprintf(verb_text, sizeof(verb_text), "%.*s", BYTES_ARG(verb.payload));
    sub_send(upstream, verb_text, name.payload, wait);
}

static void sub_confirmed(struct request *request, enum error_id error, struct bytes reply)
{
    struct sub_wait *wait = request->internal_arg;
    struct request *slot;

    if (error == ERROR_NONE && reply.len > 0 && reply.data[0] == '-')
        sub_refused(wait, reply);
    slot = wait->slot;
    if (error != ERROR_NONE && slot != NULL && slot->client != NULL) {
        wait->slot = NULL;
        slot->internal_arg = NULL;
        request_fail(slot, error);
    }
    if (--wait->left > 0)
        return;
    if (wait->slot != NULL && wait->slot->client != NULL) {
        wait->slot->internal_arg = NULL;
        request_finish_bytes(wait->slot, bytes_of(wait->text, wait->text_len));
    }
    mem_free(wait->text);
    mem_free(wait);
}

/* Sends the verb and one name over a link; the confirmation finds `wait`. */
static void sub_send(struct upstream *upstream, const char *verb, struct bytes name, struct sub_wait *wait)
{
    struct proxy *proxy = upstream->server->pool->proxy;
    struct request *request = request_create(proxy, NULL, REQUEST_INTERNAL);
    struct buffer *out = &proxy->scratch2;

    if (request == NULL)
        return;
    wait->left++;
    request->dialect = upstream->dialect;
    request->internal_done = sub_confirmed;
    request->internal_arg = wait;
    buffer_clear(out);
    buffer_append_format(out, "*2\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(verb), verb, name.len);
    buffer_append(out, name.data, name.len);
    buffer_append(out, "\r\n", 2);
    upstream_submit(upstream, request, buffer_bytes(out));
}

static void sub_send_to_all(struct session *session, const char *verb, struct bytes name,
                            struct sub_wait *wait, enum error_id *error)
{
    struct pool *pool = session->client->pool;

    for (uint32_t i = 0; i < pool->server_count; i++) {
        struct upstream *upstream;

        if (pool->servers[i].is_gone || server_is_ejected(&pool->servers[i]) ||
            (pool->servers[i].conf != NULL && pool->servers[i].conf->is_spare))
            continue;
        upstream = pubsub_link(session, &pool->servers[i], error);
        if (upstream != NULL)
            sub_send(upstream, verb, name, wait);
    }
}

static void pubsub_one(struct client *client, const char *verb, enum sub_kind kind, bool is_leaving,
                       struct bytes name)
{
    struct session *session = client->session;
    bool is_cluster = client->pool->conf->members == CONF_MEMBERS_redis_cluster;
    struct nameset *set = pubsub_set(session, kind);
    int err = is_leaving ? nameset_remove(set, name) : nameset_add(set, name);
    uint32_t count = kind == SUB_SHARD ? session->shard_channels.count : pubsub_count(session);
    struct sub_wait *wait = mem_zalloc(sizeof(*wait));
    struct buffer text = {0};
    enum error_id error = ERROR_NONE;
    bool is_half_done = false; /* some servers know of the pattern now, others can not be asked */

    compose_confirmation(client, &text, verb, &name, count);
    if (wait == NULL || text.failed || (err != 0 && err != ERR_EXISTS && err != ERR_NOT_FOUND)) {
        mem_free(wait);
        buffer_deinit(&text);
        client_reply_error(client, ERROR_out_of_memory);
        return;
    }
    if (err != 0) { /* nothing changes upstream */
        client_reply(client, buffer_bytes(&text));
        mem_free(wait);
        buffer_deinit(&text);
        return;
    }
    wait->slot = request_create(client->pool->proxy, client, REQUEST_CLIENT);
    if (wait->slot == NULL) {
        mem_free(wait);
        buffer_deinit(&text);
        client_close(client);
        return;
    }
    wait->slot->internal_arg = wait;
    wait->slot->is_awaited = true;
    wait->text = text.data;
    wait->text_len = text.len;
    wait->left = 1; /* held until everything is sent */
    if (kind == SUB_PATTERN && !is_cluster) {
        sub_send_to_all(session, verb, name, wait, &error);
    } else {
        /* A cluster's nodes tell each other what is published: one connection hears all, and a second
         * one would hear it twice. Shard channels live with their slot. */
        bool is_anywhere = is_cluster && kind != SUB_SHARD;
        struct server *server = is_anywhere && session->link_count > 0 ? session->links[0]->server
                                : kind == SUB_PATTERN                  ? route_any(client->pool)
                                                                       : route_key(client->pool, name);
        struct upstream *upstream = server == NULL ? NULL : pubsub_link(session, server, &error);

        if (server == NULL)
            error = ERROR_no_server;
        if (upstream != NULL)
            sub_send(upstream, verb, name, wait);
    }
    /* What was not asked for everywhere is no subscription: asked for again, it would seem to be one. */
    if (error != ERROR_NONE && !is_leaving && !client->is_dead) {
        MAYBE(nameset_remove(set, name) == 0);
        is_half_done = wait->left > 1;
    }
    {
        struct request guard = {.internal_arg = wait};

        sub_confirmed(&guard, error, BYTES_EMPTY);
    }
    if (is_half_done && !client->is_dead)
        client_close_after_replies(client);
}

/* UNSUBSCRIBE of everything; names are copied as the set changes below. */
static void pubsub_leave_kind(struct client *client, const char *verb, enum sub_kind kind)
{
    struct session *session = client->session;
    struct nameset *set = pubsub_set(session, kind);
    struct buffer name = {0};
    struct bytes view;
    uint32_t at = 0;

    if (set->count == 0) {
        struct buffer text = {0};

        compose_confirmation(client, &text, verb, NULL,
                             kind == SUB_SHARD ? 0 : pubsub_count(session));
        client_reply(client, buffer_bytes(&text));
        buffer_deinit(&text);
        return;
    }
    while (!client->is_dead && nameset_next(set, &at, &view)) {
        buffer_clear(&name);
        buffer_append(&name, view.data, view.len);
        pubsub_one(client, verb, kind, true, buffer_bytes(&name));
    }
    buffer_deinit(&name);
}

void pubsub_command(struct client *client, const struct command *command,
                    const struct resp_request *request)
{
    enum sub_kind kind = command->id == COMMAND_psubscribe || command->id == COMMAND_punsubscribe
                             ? SUB_PATTERN
                         : command->id == COMMAND_ssubscribe || command->id == COMMAND_sunsubscribe
                             ? SUB_SHARD
                             : SUB_CHANNEL;
    bool is_leaving = command->id == COMMAND_unsubscribe || command->id == COMMAND_punsubscribe ||
                      command->id == COMMAND_sunsubscribe;

    if (session_get(client) == NULL) {
        client_close(client);
        return;
    }
    if (is_leaving && request->argc == 1) {
        pubsub_leave_kind(client, command->name, kind);
        return;
    }
    for (uint32_t i = 1; i < request->argc && !client->is_dead; i++)
        pubsub_one(client, command->name, kind, is_leaving, request->argv[i]);
}

/* ---- what comes ------------------------------------------------------------------------------------- */

static void pubsub_push(struct session *session, struct bytes message)
{
    struct client *client = session->client;
    struct proxy *proxy = client->pool->proxy;
    struct request *head = client->requests.first == NULL
                               ? NULL
                               : CONTAINER_OF(client->requests.first, struct request, client_node);

    if ((head != NULL && head->is_started) || session->held.len > 0) {
        buffer_append(&session->held, message.data, message.len);
        if (session->held.failed)
            client_close(client);
        return;
    }
    if (!outbuf_append(&proxy->chunks, &client->out, message.data, message.len)) {
        client_close(client);
        return;
    }
    client_mark_dirty(client);
    if (client->out.len > proxy->conf->process.limits.client_output_close) {
        POOL_ADD(client->pool, client_output_limit, 1);
        client_close(client);
    }
}

void pubsub_release(struct session *session)
{
    struct client *client = session->client;
    struct request *head = client->requests.first == NULL
                               ? NULL
                               : CONTAINER_OF(client->requests.first, struct request, client_node);

    if (head != NULL && head->is_started)
        return;
    if (!outbuf_append(&client->pool->proxy->chunks, &client->out, session->held.data, session->held.len)) {
        client_close(client);
        return;
    }
    buffer_deinit(&session->held);
    client_mark_dirty(client);
}

static bool is_message(struct bytes kind)
{
    return bytes_equal(kind, BYTES("message")) || bytes_equal(kind, BYTES("pmessage")) ||
           bytes_equal(kind, BYTES("smessage"));
}

/* One whole reply of a link. false: the link is closed. */
static bool pubsub_reply(struct upstream *upstream, struct bytes reply)
{
    struct bytes cursor = reply;
    struct resp_value head, kind;
    struct request *request;

    if (resp_next(&cursor, &head) && (head.type == '*' || head.type == '>') && head.integer >= 3 &&
        resp_next(&cursor, &kind) && is_message(kind.payload)) {
        if (upstream->session == NULL)
            discovery_pushed(upstream, reply);
        else
            pubsub_push(upstream->session, reply);
        return upstream->state != UPSTREAM_CLOSED;
    }
    if (upstream->inflight.first == NULL) {
        /* The server leaves a shard channel by itself when its slot moves away. */
        upstream_retire(upstream, ERROR_backend_protocol, "a confirmation that nobody waits for");
        return false;
    }
    request = upstream_take_head(upstream);
    request_finish(request, reply);
    return upstream->state != UPSTREAM_CLOSED;
}

/* A message is held until it is whole. Redis, too, lets a subscriber have no more (32 MiB) waiting. */
#define MESSAGE_MAX (SESSION_HELD_MAX * 32u)

size_t pubsub_recv(struct upstream *upstream, struct bytes data)
{
    struct proxy *proxy = upstream->server->pool->proxy;
    size_t consumed = 0;

    while (consumed < data.len) {
        struct resp_reply_parser parser = {0};
        struct bytes rest = bytes_skip(data, consumed);
        size_t scanned;
        enum parse_result result = resp_reply_scan(&parser, &proxy->limits, rest, &scanned);

        if (result == PARSE_BAD || (result == PARSE_MORE && rest.len + parser.bulk_left > MESSAGE_MAX)) {
            upstream_retire(upstream, ERROR_backend_protocol, "a frame that is no message");
            return data.len;
        }
        if (result == PARSE_MORE) {
            upstream->stream.need = (uint32_t)(rest.len + MAX(parser.bulk_left, (uint64_t)1));
            break;
        }
        consumed += scanned;
        if (!pubsub_reply(upstream, bytes_first(rest, scanned)))
            return data.len;
    }
    return consumed;
}

bool session_misses_messages(const struct client *client)
{
    const struct session *session = client->session;
    const struct pool *pool = client->pool;

    if (session == NULL || session->patterns.count == 0 || pool->discovery != NULL ||
        client->request_count > 0)
        return false;
    for (uint32_t i = 0; i < pool->server_count; i++) {
        const struct server *server = &pool->servers[i];
        bool is_linked = false;

        if (server->is_gone || server_is_ejected(server) || (server->conf != NULL && server->conf->is_spare))
            continue;
        for (uint32_t k = 0; k < session->link_count && !is_linked; k++)
            is_linked = session->links[k]->server == server;
        if (!is_linked)
            return true;
    }
    return false;
}
