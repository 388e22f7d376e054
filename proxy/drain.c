/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a worker's life: its clients go to a newer one, or are closed.
 *
 * A client goes at a request boundary: nothing of it is in flight, everything is sent. What it has sent
 * and nobody has looked at yet goes with it. It notices nothing. One that always has something in flight
 * is not read from until it has not.
 */
#include "proxy/handover.h"
#include "proxy/session.h"

#define DRAIN_RETRY_MS 20

static bool client_is_idle(const struct client *client)
{
    /* A blocking command may wait on: it moves with its connection to the server. */
    return !client->is_dead && client->request_count == (session_is_blocked(client) ? 1u : 0u) &&
           outbuf_is_empty(&client->out) && !client->is_eof && !client->is_closing &&
           client->upload == NULL;
}

/* With what it has. If not now, then it must go on, perhaps to a state from which it can. */
static bool client_may_leave(const struct client *client)
{
    return client->stream.rest_len_ <= HANDOVER_INPUT_MAX && session_may_leave(client);
}

static void drain_hold(struct client *client)
{
    if (!client->is_dead && client->request_count > 0 && !session_is_blocked(client) &&
        client->upload == NULL && !client->is_eof && client->pool->proxy->pass != NULL &&
        client_may_leave(client))
        client_pause(client, PAUSE_DRAIN);
}

/* The descriptor and its unread input are off the stream: pass them on. */
static int drain_pass(struct client *client, struct bytes rest, int *fds)
{
    struct pool *pool = client->pool;
    struct proxy *proxy = pool->proxy;
    uint32_t fds_count = 1;
    struct buffer session = {0}, blob = {0};
    struct handover handover = {
        .dialect = client->dialect,
        .db = client->db,
        .is_authenticated = client->is_authenticated,
        .swallow = dialect_is_resp(client->dialect) ? 0 : client->parser.text.swallow,
        .client_id = client->id,
        .input = rest,
    };
    int err;

    session_pack(client, &session, fds, &fds_count);
    handover.session = buffer_bytes(&session);
    err = session.failed ? ERR_FULL : handover_blob_encode(&handover, &blob);
    if (err == 0)
        err = proxy->pass(proxy->owner_arg, pool->index, fds, fds_count, buffer_bytes(&blob));
    buffer_deinit(&session);
    buffer_deinit(&blob);
    return err;
}

void drain_client(struct client *client)
{
    struct pool *pool = client->pool;
    struct proxy *proxy = pool->proxy;
    struct io_stream_options options = {.nodelay = true, .keepalive = pool->conf->tcpkeepalive};
    const struct io_stream_handler *handler = client->stream.handler;
    char *rest = NULL;
    size_t rest_len = 0;
    int fds[1 + SESSION_LINKS_MOVE_MAX];
    int err;

    if (!client_is_idle(client))
        return;
    if (!client_may_leave(client)) {
        client_unpause(client, PAUSE_DRAIN);
        return;
    }
    if (proxy->pass == NULL) {
        client_close(client);
        return;
    }
    fds[0] = io_stream_detach(&client->stream, &rest, &rest_len);
    if (fds[0] < 0) {
        client_close(client);
        return;
    }
    err = drain_pass(client, bytes_of(rest, rest_len), fds);
    if (err == 0) {
        POOL_ADD(pool, client_handed_over, 1);
        session_left(client);
        client_close(client);
        mem_free(rest);
        return;
    }
    session_unpack(client, fds + 1);
    /* Nobody follows us: an idle connection may be closed. */
    if (io_stream_open(proxy->io, &client->stream, handler, fds[0], &options, bytes_of(rest, rest_len)) != 0 ||
        (err == ERR_NOT_FOUND && !session_is_blocked(client)))
        client_close(client);
    else if (!client->is_dead && (client->pause &= (uint8_t)~PAUSE_DRAIN) == 0)
        io_stream_resume(&client->stream);
    mem_free(rest);
}

static void drain_again(struct io_timer *timer)
{
    proxy_drain(timer->arg);
}

void proxy_drain(struct proxy *proxy)
{
    proxy->is_draining = true;
    for (uint32_t p = 0; p < proxy->pool_count; p++) {
        LIST_FOR_EACH (&proxy->pools[p].clients, node) {
            struct client *client = CONTAINER_OF(node, struct client, node);

            drain_client(client);
            drain_hold(client);
        }
    }
    proxy->drain_timer.fire = drain_again;
    proxy->drain_timer.arg = proxy;
    if (proxy->client_count > 0)
        io_timer_start(proxy->io, &proxy->drain_timer, DRAIN_RETRY_MS);
    proxy_client_gone(proxy);
}

void proxy_take_over(struct proxy *proxy, uint32_t pool_index, const int *fds, uint32_t fds_count,
                     struct bytes blob)
{
    struct handover handover = {0};
    struct io_addr peer = {0};
    struct client *client;
    bool is_good = fds_count >= 1 && pool_index < proxy->pool_count &&
                   handover_blob_decode(blob, &handover) == 0;

    if (!is_good) {
        for (uint32_t i = 0; i < fds_count; i++)
            proxy_refuse(proxy, fds[i]);
        return;
    }
    client = client_create(&proxy->pools[pool_index], fds[0], &peer, handover.input);
    if (client == NULL) {
        for (uint32_t i = 1; i < fds_count; i++)
            proxy_refuse(proxy, fds[i]);
        return;
    }
    client->id = handover.client_id;
    client->dialect = handover.dialect;
    client->db = handover.db;
    client->is_authenticated = handover.is_authenticated;
    if (!dialect_is_resp(client->dialect))
        client->parser.text.swallow = handover.swallow;
    POOL_ADD(client->pool, client_taken_over, 1);
    if (!session_decode(client, handover.session, fds + 1, fds_count - 1))
        client_close(client);
}
