/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session goes to another worker, its private connections with it.
 *
 * What goes, little endian: u8 flags (SESSION_MOVE_*), u8 reply mode, then texts, each a u16 length and bytes:
 * name, library's name, library's version, the transaction's frames so far, the server of the private
 * upstream (if flagged), then u8 count of links and their servers, then three lists of names (u16 count each):
 * channels, patterns, shard channels. The descriptors follow in the same order: upstream, links.
 *
 * It goes only from rest: nothing of it is under way but, at most, one blocking command whose reply has not
 * begun. What does not fit stays with the old worker until the drain ends.
 */
#include "proxy/handover.h"
#include "proxy/session.h"

enum {
    SESSION_MOVE_MULTI = 1,
    SESSION_MOVE_MULTI_SENT = 2,
    SESSION_MOVE_ABORTED = 4,
    SESSION_MOVE_WATCHING = 8,
    SESSION_MOVE_WATCH_LOST = 16,
    SESSION_MOVE_BLOCKED = 32,
    SESSION_MOVE_UPSTREAM = 64,
};

/* ---- from here ------------------------------------------------------------------------------------ */

static bool upstream_may_leave(const struct upstream *upstream, uint32_t inflight_count)
{
    return upstream->state == UPSTREAM_READY && upstream->inflight_count == inflight_count &&
           upstream->tombstone_count == 0 && outbuf_is_empty(&upstream->out) && !upstream->seen_reply &&
           upstream->stream.rest_len_ == 0 && io_stream_is_open(&upstream->stream);
}

bool session_may_leave(const struct client *client)
{
    const struct session *session = client->session;

    if (session == NULL)
        return true;
    if (session->reply_mode == REPLY_SKIP_NEXT || session->held.len > 0 ||
        session->link_count + (session->upstream != NULL) > SESSION_LINKS_MOVE_MAX)
        return false;
    if (session->upstream != NULL && !upstream_may_leave(session->upstream, session->is_blocked ? 1 : 0))
        return false;
    for (uint32_t i = 0; i < session->link_count; i++)
        if (!upstream_may_leave(session->links[i], 0))
            return false;
    return true;
}

static void put_text(struct buffer *out, struct bytes text)
{
    unsigned char len[2] = {(unsigned char)(text.len & 0xff), (unsigned char)(text.len >> 8)};

    if (text.len > UINT16_MAX) {
        out->failed = true;
        return;
    }
    buffer_append(out, len, 2);
    buffer_append(out, text.data, text.len);
}

static void put_names(struct buffer *out, const struct nameset *set)
{
    unsigned char count[2] = {(unsigned char)(set->count & 0xff), (unsigned char)(set->count >> 8)};
    struct bytes name;
    uint32_t at = 0;

    if (set->count > UINT16_MAX) {
        out->failed = true;
        return;
    }
    buffer_append(out, count, 2);
    while (nameset_next(set, &at, &name))
        put_text(out, name);
}

static int upstream_detach(struct upstream *upstream)
{
    char *rest;
    size_t rest_len;
    int fd = io_stream_detach(&upstream->stream, &rest, &rest_len);

    mem_free(rest);
    return fd;
}

void session_pack(struct client *client, struct buffer *out, int *fds, uint32_t *fds_count)
{
    struct session *session = client->session;
    unsigned char head[2], link_count;

    if (session == NULL)
        return;
    out->max = HANDOVER_SESSION_MAX;
    head[0] = (unsigned char)((session->is_in_multi ? SESSION_MOVE_MULTI : 0) |
                              (session->is_multi_sent ? SESSION_MOVE_MULTI_SENT : 0) |
                              (session->is_aborted ? SESSION_MOVE_ABORTED : 0) |
                              (session->is_watching ? SESSION_MOVE_WATCHING : 0) |
                              (session->is_watch_lost ? SESSION_MOVE_WATCH_LOST : 0) |
                              (session->is_blocked ? SESSION_MOVE_BLOCKED : 0) |
                              (session->upstream != NULL ? SESSION_MOVE_UPSTREAM : 0));
    head[1] = session->reply_mode;
    buffer_append(out, head, 2);
    put_text(out, buffer_bytes(&session->name));
    put_text(out, buffer_bytes(&session->lib_name));
    put_text(out, buffer_bytes(&session->lib_version));
    put_text(out, buffer_bytes(&session->queued));
    if (session->upstream != NULL) {
        put_text(out, bytes_of_string(session->upstream->server->name));
        fds[(*fds_count)++] = upstream_detach(session->upstream);
    }
    link_count = (unsigned char)session->link_count;
    buffer_append(out, &link_count, 1);
    for (uint32_t i = 0; i < session->link_count; i++) {
        put_text(out, bytes_of_string(session->links[i]->server->name));
        fds[(*fds_count)++] = upstream_detach(session->links[i]);
    }
    put_names(out, &session->channels);
    put_names(out, &session->patterns);
    put_names(out, &session->shard_channels);
}

void session_unpack(struct client *client, const int *fds)
{
    struct session *session = client->session;
    uint32_t at = 0;
    bool is_ok = true;

    if (session == NULL)
        return;
    if (session->upstream != NULL)
        is_ok = upstream_reopen(session->upstream, fds[at++]);
    for (uint32_t i = 0; i < session->link_count; i++)
        is_ok = upstream_reopen(session->links[i], fds[at++]) && is_ok;
    if (!is_ok)
        client_close(client);
}

void session_left(struct client *client)
{
    if (client->session != NULL)
        client->session->has_left = true;
}

/* ---- to here -------------------------------------------------------------------------------------- */

struct reader {
    struct bytes rest;
    bool failed;
};

static struct bytes get_bytes(struct reader *reader, size_t len)
{
    struct bytes bytes = bytes_first(reader->rest, len);

    if (bytes.len < len) {
        reader->failed = true;
        return BYTES_EMPTY;
    }
    reader->rest = bytes_skip(reader->rest, len);
    return bytes;
}

static uint32_t get_number(struct reader *reader, size_t size)
{
    struct bytes bytes = get_bytes(reader, size);
    uint32_t number = 0;

    for (size_t i = bytes.len; i > 0; i--)
        number = number << 8 | (unsigned char)bytes.data[i - 1];
    return number;
}

static struct bytes get_text(struct reader *reader)
{
    return get_bytes(reader, get_number(reader, 2));
}

static void get_names(struct reader *reader, struct nameset *set)
{
    uint32_t count = get_number(reader, 2);

    for (uint32_t i = 0; i < count && !reader->failed; i++)
        if (nameset_add(set, get_text(reader)) != 0)
            reader->failed = true;
}

static struct server *server_by_name(struct pool *pool, struct bytes name)
{
    for (uint32_t i = 0; i < pool->server_count; i++)
        if (bytes_equal(bytes_of_string(pool->servers[i].name), name))
            return &pool->servers[i];
    return NULL;
}

/* The next descriptor becomes a private upstream of the session. */
static struct upstream *adopt(struct session *session, struct bytes name, const int **fds, uint32_t *fds_count)
{
    struct client *client = session->client;
    struct server *server = server_by_name(client->pool, name);
    struct upstream *upstream;

    if (server == NULL || *fds_count == 0)
        return NULL;
    upstream = upstream_adopt(server, client->dialect, client->db, **fds);
    (*fds)++;
    (*fds_count)--;
    if (upstream != NULL) {
        upstream->session = session;
        POOL_ADD(client->pool, private_sessions, 1);
    }
    return upstream;
}

static bool adopt_blocked(struct session *session)
{
    struct client *client = session->client;
    struct request *request = request_create(client->pool->proxy, client, REQUEST_CLIENT);

    if (request == NULL)
        return false;
    session->is_blocked = true;
    session->upstream->is_patient = true;
    upstream_begin(session->upstream, request);
    upstream_end(session->upstream, request);
    return true;
}

static bool adopt_links(struct session *session, struct reader *reader, const int **fds, uint32_t *fds_count)
{
    uint32_t count = get_number(reader, 1);

    if (count > SESSION_LINKS_MOVE_MAX)
        return false;
    session->links = mem_zalloc(sizeof(*session->links) * MAX(count, 1u));
    for (uint32_t i = 0; session->links != NULL && i < count; i++) {
        struct upstream *upstream = adopt(session, get_text(reader), fds, fds_count);

        if (upstream == NULL)
            return false;
        upstream->is_pubsub = true;
        upstream->is_patient = true;
        session->links[session->link_count++] = upstream;
    }
    return session->links != NULL;
}

static bool session_read(struct session *session, struct reader *reader, const int **fds, uint32_t *fds_count)
{
    struct buffer *texts[] = {&session->name, &session->lib_name, &session->lib_version, &session->queued};
    uint32_t flags = get_number(reader, 1);
    uint32_t reply_mode = get_number(reader, 1);

    session->reply_mode = reply_mode <= REPLY_SKIP_THIS ? (uint8_t)reply_mode : REPLY_ON;
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct bytes text = get_text(reader);

        buffer_append(texts[i], text.data, text.len);
    }
    if (!session_queued_is_good(session))
        return false;
    session->is_in_multi = (flags & SESSION_MOVE_MULTI) != 0;
    session->is_multi_sent = (flags & SESSION_MOVE_MULTI_SENT) != 0;
    session->is_aborted = (flags & SESSION_MOVE_ABORTED) != 0;
    session->is_watching = (flags & SESSION_MOVE_WATCHING) != 0;
    session->is_watch_lost = (flags & SESSION_MOVE_WATCH_LOST) != 0;
    if (flags & SESSION_MOVE_UPSTREAM) {
        session->upstream = adopt(session, get_text(reader), fds, fds_count);
        if (session->upstream == NULL)
            return false;
    }
    if ((flags & SESSION_MOVE_BLOCKED) && (session->upstream == NULL || !adopt_blocked(session)))
        return false;
    if (!adopt_links(session, reader, fds, fds_count))
        return false;
    get_names(reader, &session->channels);
    get_names(reader, &session->patterns);
    get_names(reader, &session->shard_channels);
    return !reader->failed && reader->rest.len == 0 &&
           (session->upstream != NULL || (!session->is_multi_sent && !session->is_watching)) &&
           (session->link_count > 0 || !pubsub_is_subscribed(session));
}

bool session_decode(struct client *client, struct bytes bytes, const int *fds, uint32_t fds_count)
{
    struct reader reader = {.rest = bytes};
    bool is_good = true;

    if (bytes.len > 0)
        is_good = session_get(client) != NULL &&
                  session_read(client->session, &reader, &fds, &fds_count);
    for (uint32_t i = 0; i < fds_count; i++)
        proxy_refuse(client->pool->proxy, fds[i]);
    return is_good;
}
