/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of a shard: bytes to requests, replies to bytes.
 *
 *   C1  What protocol it speaks is decided once, by its first bytes: 0x80 is memcache binary, '*' RESP; a line
 *       whose first word is a memcache verb in lower case is memcache text, any other an inline command (protocol.h).
 *   C2  A command that cannot run yet leaves its bytes unconsumed (N1). Reading goes on meanwhile, so that the peer's
 *       end is seen, but no more than PARKED_INPUT_MAX is kept.
 *   C3  Replies leave when what they depend on is committed (N2): marks say up to which byte which LSN counts. At
 *       most MARKS_MAX are kept; what comes on top joins the last one, so the first ones go their way in a
 *       stream of writes. When the log has failed nothing more is committed, and who waits for it is closed.
 *   C4  Who does not read is not read from: above OUTPUT_PAUSE bytes nothing more is executed for it. On top of
 *       that come Redis's limits, which close.
 *   C5  A peer that has closed its side still gets its answers, but not if it waits for keys or messages.
 *   C6  One turn sends a client at most SEND_TURN_MAX, however fast it reads: others come in between.
 *   C7  Once a turn has taken TURN_US nothing more is executed for a client than it takes until its next look at the
 *       clock. What it leaves waits as what C2 leaves, for the next turn.
 */
#include "backend/ahead.h"
#include "backend/node_private.h"
#include "backend/protocol.h"

#include "backend/cmd/cmd.h"
#include "backend/cmd/mc.h"
#include "backend/cmd/pubsub.h"
#include "backend/store/effect.h"

#include "common/base/mem.h"

#include <stdio.h>

#define MARKS_MAX         8u
#define PARKED_INPUT_MAX  (256u << 10)
#define OUTPUT_PAUSE      (1u << 20)
#define OUTPUT_RESUME     (OUTPUT_PAUSE / 2)
#define SEND_TURN_MAX     (256u << 10)
#define TURN_US           300u        /* C7 */
#define LOOK_REQUESTS     16u         /* it looks after so many requests, or so many bytes of them */
#define LOOK_BYTES        (4u << 10)
#define TLS_HANDSHAKE     0x16
#define ARGS_MAX          EFFECT_ARGUMENTS_MAX /* as Redis 7.0: what bounds a request is client-query-buffer-limit */

enum client_pause {
    PAUSE_OUTPUT = 1,  /* C4 */
    PAUSE_CLOSING = 2, /* nothing is read any more */
    PAUSE_INPUT = 4,   /* C2 */
    PAUSE_PARK = 8,    /* it goes to another process, or is about to */
};

struct client_mark {
    uint64_t end; /* byte of the connection's output */
    uint64_t lsn;
};

struct client {
    struct session session;
    struct io_stream stream;
    struct node *node;
    union {
        struct resp_parser resp;
        struct mc_parser text;
        struct mc_bin_parser binary;
    } parser;
    struct list_node dirty_node, turn_node; /* turn_node: of held, runs or dead */
    struct client_mark marks[MARKS_MAX];
    uint64_t inputs;        /* of engine->inputs_bytes */
    uint64_t released;      /* byte of the output up to which all is committed */
    uint64_t soft_since_ms; /* over the soft output limit; 0: not */
    struct buffer rest;     /* C5: what the peer had sent before its end */
    uint8_t mark_first, mark_count;
    uint8_t pause;          /* enum client_pause */
    bool is_dead, is_eof, is_held, is_run, is_draining;
};

struct client *client_of_session(struct session *session)
{
    return CONTAINER_OF(session, struct client, session);
}

struct client *client_of_turn_node(struct list_node *node)
{
    return CONTAINER_OF(node, struct client, turn_node);
}

struct io_stream *client_stream(struct client *client)
{
    return &client->stream;
}

struct client *client_of_dirty_node(struct list_node *node)
{
    return CONTAINER_OF(node, struct client, dirty_node);
}

size_t client_size(void)
{
    return sizeof(struct client);
}

static struct client *client_of(struct io_stream *stream)
{
    return CONTAINER_OF(stream, struct client, stream);
}

/* ---- pauses ------------------------------------------------------------------------------------- */

static void client_pause(struct client *client, enum client_pause why)
{
    if (client->pause == 0)
        io_stream_pause(&client->stream);
    client->pause |= (uint8_t)why;
}

/* Has what is unconsumed looked at again, in this turn or the next. */
static void client_look_again(struct client *client)
{
    if (client->is_dead || client->pause != 0)
        return;
    if (!client->is_eof) {
        io_stream_pause(&client->stream);
        io_stream_resume(&client->stream);
    } else if (!client->is_run) {
        if (client->is_held) { /* its output waits again once this is done */
            client->is_held = false;
            list_remove(&client->turn_node);
        }
        client->is_run = true;
        list_push_back(&client->node->runs, &client->turn_node);
        io_wake(client->node->io);
    }
}

static void client_unpause(struct client *client, enum client_pause why)
{
    if ((client->pause & why) == 0)
        return;
    client->pause &= (uint8_t)~why;
    client_look_again(client);
}

void client_mark_dirty(struct client *client)
{
    if (!list_node_is_linked(&client->dirty_node) && !client->is_dead)
        list_push_back(&client->node->dirty, &client->dirty_node);
}

/* ---- what the engine asks ------------------------------------------------------------------------- */

static void session_dirty(struct session *session)
{
    client_mark_dirty(client_of_session(session));
}

static void session_resume(struct session *session)
{
    struct client *client = client_of_session(session);

    client->pause &= (uint8_t)~PAUSE_INPUT;
    client_look_again(client);
    io_wake(client->node->io);
}

static void session_kill(struct session *session)
{
    client_close(client_of_session(session));
}

static const struct session_io session_io = {
    .dirty = session_dirty,
    .resume = session_resume,
    .kill = session_kill,
};

/* ---- what it needs --------------------------------------------------------------------------------- */

/* What was counted for it is about to be executed, or gone. */
static void client_inputs_forget(struct client *client)
{
    client->node->engine->inputs_bytes -= client->inputs;
    client->inputs = 0;
}

void client_inputs_count(struct client *client)
{
    client_inputs_forget(client);
    if (client->is_dead)
        return;
    client->inputs = io_stream_kept(&client->stream) + client->rest.cap;
    client->node->engine->inputs_bytes += client->inputs;
    session_kept_count(&client->session);
    /* What the stream keeps until an argument is there was not shown to us yet. */
    client->session.query_bytes = MAX(client->session.query_bytes, io_stream_received(&client->stream));
}

uint64_t client_bytes(const struct client *client)
{
    size_t out = client->session.out.len;

    if (client->is_dead)
        return 0;
    return client->inputs + client->session.kept_bytes + (out > 0 ? MAX(out, (size_t)CHUNK_SMALL_SIZE) : 0);
}

/* ---- in ------------------------------------------------------------------------------------------- */

static void client_reply(struct client *client, struct bytes text)
{
    if (!outbuf_append(&client->node->engine->chunks, &client->session.out, text.data, text.len))
        client_close(client);
}

static void client_close_after_replies(struct client *client)
{
    client->session.close_after_reply = true;
    client_pause(client, PAUSE_CLOSING);
    client_mark_dirty(client);
}

static size_t client_more(struct client *client, struct bytes data, uint32_t need)
{
    uint64_t max = client->node->engine->settings->query_buffer_max;

    if (UNLIKELY(max != 0 && MAX((uint64_t)need, (uint64_t)data.len) > max)) {
        if (log_limit_allows(&client->node->bad_input, io_now_ms(client->node->io), 10, 1000, NULL))
            log_warn(client->node->log, "client: closed, its request is over client-query-buffer-limit client=%s limit=%llu",
                     client->session.peer, (unsigned long long)max);
        client_close(client);
        return 0;
    }
    client->stream.need = need;
    return 0;
}

static void resp_limits(const struct client *client, struct proto_limits *limits)
{
    *limits = PROTO_LIMITS_DEFAULT;
    limits->args_max = ARGS_MAX;
    limits->bulk_max = client->node->engine->settings->bulk_max;
    if (UNLIKELY(!client->session.is_authenticated)) {
        limits->args_max = INT32_MAX; /* Redis's: it is the password that it lacks first */
        limits->is_unauthenticated = true;
    }
}

static void client_limits(const struct client *client, struct proto_limits *limits)
{
    if (client->session.protocol == SESSION_RESP) {
        resp_limits(client, limits);
        return;
    }
    mc_limits(client->node->engine, limits);
    if (UNLIKELY(!client->session.is_authenticated)) {
        limits->line_max = PROTO_LIMITS_DEFAULT.line_max; /* what a password needs is short */
        limits->has_sasl = true;
    }
}

static size_t resp_bad(struct client *client, const struct resp_request *request, size_t len)
{
    char text[128];
    int written = snprintf(text, sizeof(text), "-ERR ");

    /* The text has %c where it names a byte. */
    for (const char *at = request->error; *at != '\0' && written < (int)sizeof(text) - 4; at++) {
        bool is_byte = at[0] == '%' && at[1] == 'c';

        text[written++] = is_byte ? request->error_byte : *at;
        at += is_byte;
    }
    memcpy(text + written, "\r\n", 2);
    client_reply(client, bytes_of(text, (size_t)written + 2));
    client_close_after_replies(client);
    return len;
}

/* A browser, made to talk to us by some page: nothing it says may run. */
static bool is_http(const struct resp_request *request)
{
    return request->is_inline && (bytes_equal_nocase(request->argv[0], BYTES("post")) ||
                                  bytes_equal_nocase(request->argv[0], BYTES("host:")));
}

static size_t client_resp(struct client *client, const struct proto_limits *limits, struct bytes data)
{
    struct node *node = client->node;
    struct resp_request request;

    switch (resp_parse(&client->parser.resp, &node->args, limits, data, false, &request)) {
    case PARSE_OK:
        break;
    case PARSE_MORE:
        return client_more(client, data, client->parser.resp.need);
    case PARSE_BAD:
        return resp_bad(client, &request, data.len);
    }
    if (UNLIKELY(request.argc == 0))
        return request.len;
    if (UNLIKELY(is_http(&request))) {
        log_warn(node->log, "client: closed, HTTP to this port: a browser may be misused for an attack client=%s",
                 client->session.peer);
        client_close(client);
        return 0;
    }
    return engine_execute(&client->session, request.argv, request.argc) == CMD_DONE ? request.len : 0;
}

static size_t client_text(struct client *client, const struct proto_limits *limits, struct bytes data)
{
    struct node *node = client->node;
    struct mc_request request;

    switch (mc_parse(&client->parser.text, &node->mc_keys, limits, data, &request)) {
    case PARSE_OK:
        break;
    case PARSE_MORE:
        return client_more(client, data, client->parser.text.need);
    case PARSE_BAD:
        client_reply(client, bytes_of_string(request.error));
        if (request.error[0] != '\0')
            client_reply(client, BYTES("\r\n"));
        client_close_after_replies(client);
        return data.len;
    }
    if (UNLIKELY(request.status != MC_REQ_OK)) {
        MAYBE(mc_text_execute(&client->session, &request)); /* tells the error; never waits */
        return request.len;
    }
    if (UNLIKELY(!client->session.is_authenticated) && client_auth_text(&client->session, &request))
        return request.len;
    if (UNLIKELY(engine_must_wait(&client->session, request.is_write)))
        return 0;
    return mc_text_execute(&client->session, &request) == CMD_DONE ? request.len : 0;
}

static size_t client_binary(struct client *client, const struct proto_limits *limits, struct bytes data)
{
    struct mc_bin_request request;

    switch (mc_bin_parse(&client->parser.binary, limits, data, &request)) {
    case PARSE_OK:
        break;
    case PARSE_MORE:
        return client_more(client, data, client->parser.binary.need);
    case PARSE_BAD:
        if (request.error_status != 0)
            MAYBE(mc_binary_execute(&client->session, &request));
        client_close_after_replies(client);
        return data.len;
    }
    if (UNLIKELY(request.is_skip))
        return request.len;
    if (UNLIKELY(!client->session.is_authenticated) && client_auth_binary(&client->session, &request))
        return request.len;
    if (UNLIKELY(engine_must_wait(&client->session, request.verb != NULL && request.verb->is_write)))
        return 0;
    return mc_binary_execute(&client->session, &request) == CMD_DONE ? request.len : 0;
}

/* One request, or 0. */
static size_t client_handle(struct client *client, const struct proto_limits *limits, struct bytes data)
{
    switch ((enum session_protocol)client->session.protocol) {
    case SESSION_RESP: return client_resp(client, limits, data);
    case SESSION_MC_TEXT: return client_text(client, limits, data);
    case SESSION_MC_BINARY: return client_binary(client, limits, data);
    case SESSION_NEW: return 0;
    }
    UNREACHABLE("no such protocol");
}

static size_t client_look_ahead(struct client *client, struct bytes data)
{
    size_t len = ahead_resp(client->node->store, client->session.db, data);

    return len > 0 ? len : data.len; /* no batch: not again */
}

/* No request begins like that; without a word it would wait for the end of a line, and so would its sender. */
static size_t tls_refused(struct client *client, size_t len)
{
    client_reply(client, BYTES("-ERR TLS is not spoken on this port\r\n"));
    client_close_after_replies(client);
    return len;
}

/* C7 */
static bool client_is_late(const struct client *client)
{
    struct io *io = client->node->io;

    return io_clock_us(io) >= io_now_us(io) + TURN_US;
}

/* Executes what is whole; returns the bytes consumed. */
static size_t client_consume(struct client *client, struct bytes data)
{
    struct session *session = &client->session;
    struct engine *engine = client->node->engine;
    struct proto_limits limits;
    size_t consumed = 0, looked = 0; /* looked: so far the next requests' keys were asked for */
    size_t look_at = LOOK_BYTES;
    uint32_t look_in = LOOK_REQUESTS;
    bool was_waiting = session->fetches != NULL;

    engine_turn_begin(engine);
    client_inputs_forget(client);
    session->last_ms = engine->now_ms;
    if (UNLIKELY(session->protocol == SESSION_NEW)) {
        struct bytes opening = bytes_skip(data, protocol_empty_lines(data));

        if (opening.len > 0 && opening.data[0] == TLS_HANDSHAKE)
            return tls_refused(client, data.len);
        session->protocol = (uint8_t)protocol_of(opening);
        consumed = data.len - opening.len;
        if (session->protocol == SESSION_NEW)
            return consumed;
    }
    client_limits(client, &limits);
    while (consumed < data.len && client->pause == 0 && !session->is_parked && !client->is_dead) {
        bool is_authenticated = session->is_authenticated;
        size_t used;

        /* The first was asked for by client_ahead(). */
        if (consumed > 0 && consumed >= looked && session->protocol == SESSION_RESP)
            looked = consumed + client_look_ahead(client, bytes_skip(data, consumed));
        used = client_handle(client, &limits, bytes_skip(data, consumed));

        consumed += used;
        if (UNLIKELY(session->close_after_reply) && !client->is_dead)
            client_pause(client, PAUSE_CLOSING);
        if (used == 0)
            break;
        if (UNLIKELY(session->is_authenticated != is_authenticated))
            client_limits(client, &limits);
        if (UNLIKELY(session->out.len > OUTPUT_PAUSE))
            client_pause(client, PAUSE_OUTPUT);
        if (LIKELY(--look_in > 0 && consumed < look_at) || consumed == data.len)
            continue;
        if (UNLIKELY(client_is_late(client))) {
            client_look_again(client);
            break;
        }
        look_in = LOOK_REQUESTS;
        look_at = consumed + LOOK_BYTES;
    }
    if (UNLIKELY(client->is_dead))
        return consumed;
    if (UNLIKELY(session->fetches != NULL) && !was_waiting && session->protocol == SESSION_RESP)
        ahead_fetch(session, bytes_skip(data, consumed));
    session->bytes_in += consumed;
    engine->counters.bytes_in += consumed;
    session->query_bytes = (uint32_t)(data.len - consumed);
    session_kept_count(session);
    if (!outbuf_is_empty(&session->out) || session->close_after_reply || client->is_eof || client->is_draining)
        client_mark_dirty(client);
    return consumed;
}

/* The entry's lines are asked for when the bucket's line has had the time to come: AHEAD_KEYS receives later. */
static void ahead_add(struct node *node, uint64_t hash)
{
    struct ahead_keys *ahead = &node->ahead;

    if (hash == 0)
        return;
    if (ahead->count == AHEAD_KEYS)
        store_prefetch_entry(node->store, ahead->hashes[ahead->next]);
    else
        ahead->count++;
    ahead->hashes[ahead->next] = hash;
    ahead->next = (ahead->next + 1) % AHEAD_KEYS;
}

/* What is left of them, before the first of the requests runs. */
static void ahead_end(struct node *node)
{
    struct ahead_keys *ahead = &node->ahead;

    for (; ahead->count > 0; ahead->count--)
        store_prefetch_entry(node->store, ahead->hashes[(ahead->next - ahead->count) % AHEAD_KEYS]);
}

static void client_ahead(struct io_stream *stream, struct bytes data)
{
    const struct client *client = client_of(stream);

    if (client->session.protocol == SESSION_RESP && !client->session.is_parked)
        ahead_add(client->node, ahead_resp_first(client->node->store, client->session.db, data));
}

static size_t client_recv(struct io_stream *stream, struct bytes data)
{
    struct client *client = client_of(stream);

    ahead_end(client->node);
    if (UNLIKELY(client->session.is_parked)) {
        if (data.len > PARKED_INPUT_MAX)
            client_pause(client, PAUSE_INPUT);
        return 0;
    }
    return client_consume(client, data);
}

/* The peer's end ends what has no end of its own, a wait and a subscription; what was answered before leaves first. */
static void client_end_waiting(struct client *client)
{
    struct session *session = &client->session;

    if (outbuf_is_empty(&session->out)) {
        client_close(client);
        return;
    }
    blocked_forget(session);
    buffer_clear(&client->rest);
    session->close_after_reply = true;
    client->pause |= PAUSE_CLOSING;
    client_mark_dirty(client);
}

static void client_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct client *client = client_of(stream);
    struct session *session = &client->session;

    if (err != ERR_EOF) {
        client_close(client);
        return;
    }
    client->is_eof = true;
    if (session->blocked != NULL || pubsub_is_subscribed(session)) {
        client_end_waiting(client);
        return;
    }
    buffer_append(&client->rest, rest.data, rest.len);
    if (client->rest.failed)
        client_close(client);
    else if (!session->is_parked && client->pause == 0)
        client_run_rest(client);
    else
        client_mark_dirty(client);
}

/* After the peer's end: the requests that it left. */
void client_run_rest(struct client *client)
{
    if (client->is_run) {
        client->is_run = false;
        list_remove(&client->turn_node);
    }
    if (client->is_dead)
        return;
    if (client->session.is_parked || client->pause != 0) {
        client_mark_dirty(client);
        return;
    }
    if (client->rest.len > 0)
        buffer_consume(&client->rest, client_consume(client, buffer_bytes(&client->rest)));
    if (client->is_dead || client->is_run)
        return;
    /* Half a request will not become a whole one. */
    if (!client->session.is_parked && client->pause == 0)
        buffer_clear(&client->rest);
    if (client->session.blocked != NULL)
        client_end_waiting(client);
    else
        client_mark_dirty(client);
}

/* ---- out ------------------------------------------------------------------------------------------ */

static void mark_push(struct client *client, uint64_t end, uint64_t lsn)
{
    struct client_mark *last;

    if (client->mark_count < MARKS_MAX)
        client->mark_count++;
    last = &client->marks[(client->mark_first + client->mark_count - 1) % MARKS_MAX];
    last->end = end;
    last->lsn = lsn;
}

/* How many bytes of the output may leave (C3). */
static size_t client_sendable(struct client *client)
{
    struct session *session = &client->session;
    uint64_t commit_lsn = client->node->commit.lsn;
    uint64_t end = session->bytes_out + session->out.len;
    const struct client_mark *last;

    if (LIKELY(client->mark_count == 0 && session->hold_lsn <= commit_lsn)) {
        client->released = end;
        return session->out.len;
    }
    last = client->mark_count == 0
               ? NULL
               : &client->marks[(client->mark_first + client->mark_count - 1) % MARKS_MAX];
    if (end > (last != NULL ? last->end : client->released))
        mark_push(client, end, session->hold_lsn);
    while (client->mark_count > 0 && client->marks[client->mark_first].lsn <= commit_lsn) {
        client->released = client->marks[client->mark_first].end;
        client->mark_first = (uint8_t)((client->mark_first + 1) % MARKS_MAX);
        client->mark_count--;
    }
    ASSERT(client->released >= session->bytes_out && client->released <= end);
    return (size_t)(client->released - session->bytes_out);
}

static void client_hold(struct client *client)
{
    if (client->is_held || client->is_run)
        return;
    client->is_held = true;
    list_push_back(&client->node->held, &client->turn_node);
}

/* All that is committed has been sent, and no more will be: the log has failed. Nobody knows what is left of what it was
 * not told about, and the end of the connection says so (C3). */
static bool client_waits_in_vain(const struct client *client)
{
    return client->released == client->session.bytes_out && store_has_log_failed(client->node->store);
}

/* C6: the rest leaves in the next turn. */
static void client_send_later(struct client *client)
{
    struct node *node = client->node;

    if (list_node_is_linked(&client->dirty_node))
        list_remove(&client->dirty_node);
    list_push_back(&node->unsent, &client->dirty_node);
    io_wake(node->io);
}

/* The slices that go out next. */
static void send_prepare(struct client_send *send)
{
    send->count =
        outbuf_slices_of(&send->client->session.out, send->now, send->slices, CLIENT_SEND_SLICES, &send->total);
}

/* `sent` bytes of the slices have gone. Whether there are more for this turn. */
static bool send_went(struct client_send *send, size_t sent)
{
    struct session *session = &send->client->session;
    struct engine *engine = send->client->node->engine;

    session->bytes_out += sent;
    engine->counters.bytes_out += sent;
    outbuf_consume(&engine->chunks, &session->out, sent);
    send->now -= sent;
    if (sent < send->total) {
        send->later = 0; /* writable() goes on */
        return false;
    }
    return send->now > 0;
}

/* False: it was closed. */
static bool client_check_output(struct client *client)
{
    const struct output_limit *limit = session_output_limit(&client->session);
    uint64_t now_ms = io_now_ms(client->node->io), len = client->session.out.len;
    bool is_over = limit->hard != 0 && len > limit->hard;

    if (limit->soft == 0 || len <= limit->soft)
        client->soft_since_ms = 0;
    else if (client->soft_since_ms == 0)
        client->soft_since_ms = now_ms;
    else
        is_over |= now_ms - client->soft_since_ms > limit->soft_seconds * 1000;
    if (LIKELY(!is_over))
        return true;
    if (log_limit_allows(&client->node->bad_input, io_now_ms(client->node->io), 10, 1000, NULL))
        log_warn(client->node->log, "client: closed, its output is over client-output-buffer-limit client=%s bytes=%llu",
                 client->session.peer, (unsigned long long)len);
    client_close(client);
    return false;
}

static bool client_is_done(const struct client *client)
{
    const struct session *session = &client->session;

    if (!outbuf_is_empty(&session->out))
        return false;
    if (session->close_after_reply)
        return true;
    if (session->is_parked)
        return false;
    return (client->is_eof && client->rest.len == 0) || (client->is_draining && session->query_bytes == 0);
}

static void client_flush_end(struct client *client)
{
    if (UNLIKELY((client->pause & PAUSE_OUTPUT) && client->session.out.len <= OUTPUT_RESUME))
        client_unpause(client, PAUSE_OUTPUT);
    if (UNLIKELY(client->session.close_after_reply || client->is_eof || client->is_draining) && client_is_done(client))
        client_close(client);
}

bool client_flush_begin(struct client *client, struct client_send *send)
{
    bool was_held = client->is_held;
    size_t sendable;

    if (client->is_held) {
        client->is_held = false;
        list_remove(&client->turn_node);
    }
    if (outbuf_is_empty(&client->session.out)) {
        client_flush_end(client);
        return false;
    }
    if (UNLIKELY(!client_check_output(client))) /* also what could all be sent: it took the memory */
        return false;
    sendable = client_sendable(client);
    client->node->is_prompt |= sendable > 0 && !was_held;
    send->client = client;
    send->later = client->node->is_closing || sendable <= SEND_TURN_MAX ? 0 : sendable - SEND_TURN_MAX;
    send->now = sendable - send->later;
    send_prepare(send);
    if (LIKELY(send->now > 0))
        return true;
    client_flush_sent(send, 0);
    return false;
}

void client_flush_sent(struct client_send *send, ssize_t sent)
{
    struct client *client = send->client;

    if (UNLIKELY(client->is_dead)) /* closed by what another one's end has set off */
        return;
    while (sent >= 0 && send_went(send, (size_t)sent)) {
        send_prepare(send);
        sent = io_stream_send(&client->stream, send->slices, send->count);
    }
    if (UNLIKELY(sent < 0)) {
        client_close(client);
        return;
    }
    if (UNLIKELY(send->later > 0))
        client_send_later(client);
    if (!client_check_output(client))
        return;
    if (UNLIKELY(client->mark_count > 0)) {
        if (UNLIKELY(client_waits_in_vain(client))) {
            client_close(client);
            return;
        }
        client_hold(client);
    }
    client_flush_end(client);
}

void client_flush(struct client *client)
{
    struct client_send send;

    if (client_flush_begin(client, &send))
        client_flush_sent(&send, io_stream_send(&client->stream, send.slices, send.count));
}

static void client_writable(struct io_stream *stream)
{
    client_mark_dirty(client_of(stream));
}

/* ---- life ------------------------------------------------------------------------------------------- */

static const struct io_stream_handler client_handler = {
    .recv = client_recv,
    .closed = client_closed,
    .writable = client_writable,
    .ahead = client_ahead,
};

static void client_refuse(struct node *node, int fd)
{
    static const char text[] = "-ERR max number of clients reached\r\n";
    const struct iovec slice = {.iov_base = (void *)(uintptr_t)text, .iov_len = sizeof(text) - 1};
    struct io_stream refused = {0};

    node->engine->counters.connections_rejected++;
    if (log_limit_allows(&node->refused, io_now_ms(node->io), 1, 10000, NULL))
        log_warn(node->log, "client: refused, there are as many as clients_max allows shard=%u clients=%u",
                 node->options.store.shard, node->engine->session_count);
    if (io_stream_open(node->io, &refused, &client_handler, fd, NULL, BYTES_EMPTY) != 0)
        return;
    MAYBE(io_stream_send(&refused, &slice, 1) > 0);
    io_stream_close(&refused);
}

static void client_name_ends(struct client *client, const struct io_addr *peer)
{
    char text[IO_ADDR_TEXT_MAX];
    struct io_addr local;

    io_stream_local(&client->stream, &local);
    snprintf(client->session.local, sizeof(client->session.local), "%s%s", io_addr_text(&local, text),
             local.any.sa_family == AF_UNIX ? ":0" : "");
    if (local.any.sa_family == AF_UNIX)
        memcpy(client->session.peer, client->session.local, sizeof(client->session.peer));
    else
        snprintf(client->session.peer, sizeof(client->session.peer), "%s", io_addr_text(peer, text));
}

static struct client *client_open(struct node *node, int fd, const struct io_addr *peer, struct bytes rest)
{
    struct settings *settings = node->engine->settings;
    struct io_stream_options options = {.nodelay = true, .keepalive = settings->tcp_keepalive_s > 0};
    struct client *client;

    engine_turn_begin(node->engine);
    client = node->engine->session_count >= settings->clients_max ? NULL : mem_pool_get(&node->clients);
    if (client == NULL) {
        client_refuse(node, fd);
        return NULL;
    }
    memset(client, 0, sizeof(*client));
    if (io_stream_open(node->io, &client->stream, &client_handler, fd, &options, rest) != 0) {
        mem_pool_put(&node->clients, client);
        return NULL;
    }
    client->node = node;
    session_init(&client->session, node->engine, &session_io);
    client->session.fd = fd;
    client->session.db = 0;
    client_name_ends(client, peer);
    return client;
}

struct client *client_create(struct node *node, int fd, const struct io_addr *peer)
{
    struct client *client = client_open(node, fd, peer, BYTES_EMPTY);

    if (client != NULL)
        io_stream_resume(&client->stream);
    return client;
}

void client_close(struct client *client)
{
    struct node *node = client->node;

    if (client->is_dead)
        return;
    client->is_dead = client->session.is_killed = true;
    client_inputs_forget(client);
    session_kept_count(&client->session);
    io_stream_close(&client->stream);
    if (list_node_is_linked(&client->dirty_node))
        list_remove(&client->dirty_node);
    if (client->is_held || client->is_run)
        list_remove(&client->turn_node);
    client->is_held = client->is_run = false;
    list_push_back(&node->dead, &client->turn_node);
    io_wake(node->io);
}

void client_free(struct client *client)
{
    ASSERT(client->is_dead && client->inputs == 0 && client->session.kept_bytes == 0);
    session_deinit(&client->session);
    buffer_deinit(&client->rest);
    mem_pool_put(&client->node->clients, client);
}

void client_tick(struct client *client)
{
    struct session *session = &client->session;
    uint64_t timeout_ms = (uint64_t)client->node->engine->settings->timeout_s * 1000;

    if (client->is_dead || !client_check_output(client))
        return;
    if (timeout_ms == 0 || session->is_parked || session->blocked != NULL || pubsub_is_subscribed(session))
        return;
    if (client->node->engine->now_ms > session->last_ms + timeout_ms)
        client_close(client);
}

void client_drain(struct client *client)
{
    client->is_draining = true;
    client_mark_dirty(client);
}

/* ---- to another process ----------------------------------------------------------------------------- */

/* What has begun and cannot begin anew: an EXEC in its middle, a BLPOP that was answered but not consumed, a peer
 * that has closed its side. */
static bool client_must_go_on(const struct client *client)
{
    const struct session *session = &client->session;

    return session->engine->exclusive == session || (session->blocked != NULL && !session->is_parked) ||
           client->is_eof || session->close_after_reply;
}

enum client_rest client_park(struct client *client)
{
    const struct session *session = &client->session;

    if (client->is_dead)
        return CLIENT_RESTS;
    if (client_must_go_on(client)) {
        client_unpause(client, PAUSE_PARK);
        client_mark_dirty(client);
        return CLIENT_GOES_ON;
    }
    client_pause(client, PAUSE_PARK);
    if (client->released < session->bytes_out + session->out.len)
        return CLIENT_HOLDS;
    return outbuf_is_empty(&session->out) ? CLIENT_RESTS : CLIENT_SENDS;
}

bool client_leave(struct client *client, struct node_move *out)
{
    enum client_rest state = client_park(client);
    char *rest = NULL;
    size_t rest_len = 0;

    if (client->is_dead || state == CLIENT_GOES_ON || state == CLIENT_HOLDS ||
        pubsub_is_monitor(&client->session))
        return false;
    out->fd = io_stream_detach(&client->stream, &rest, &rest_len);
    if (out->fd >= 0) {
        uint64_t swallow = client->session.protocol == SESSION_MC_TEXT     ? client->parser.text.swallow
                           : client->session.protocol == SESSION_MC_BINARY ? client->parser.binary.swallow
                                                                           : 0;

        client_move_encode(&client->session, swallow, bytes_of(rest, rest_len), &out->state);
    }
    mem_free(rest);
    outbuf_clear(&client->node->engine->chunks, &client->session.out); /* nobody sends it from here */
    client_close(client);
    return out->fd >= 0;
}

/* Replies to it were sent long ago, by another process. */
static bool client_replay(struct client *client, struct bytes commands)
{
    struct node *node = client->node;
    struct session *session = &client->session;
    struct proto_limits limits = PROTO_LIMITS_DEFAULT;
    bool is_good = true;

    limits.args_max = ARGS_MAX;
    while (is_good && commands.len > 0) {
        struct resp_parser parser = {0};
        struct resp_request request;

        is_good = resp_parse(&parser, &node->args, &limits, commands, false, &request) == PARSE_OK &&
                  request.argc > 0 && engine_execute(session, request.argv, request.argc) == CMD_DONE && !client->is_dead;
        if (is_good)
            commands = bytes_skip(commands, request.len);
    }
    outbuf_clear(&node->engine->chunks, &session->out);
    return is_good;
}

void client_take(struct node *node, int fd, struct bytes state)
{
    struct client_move move;
    struct io_addr peer = {0};
    struct client *client;
    bool is_good = client_move_decode(state, &move);

    client = client_open(node, fd, &peer, is_good ? move.input : BYTES_EMPTY);
    if (client == NULL)
        return;
    io_stream_peer(&client->stream, &peer);
    client_name_ends(client, &peer);
    if (!is_good || !client_move_restore(&client->session, &move) || !client_replay(client, move.commands) ||
        !client_move_finish(&client->session, &move)) {
        log_warn(node->log, "client: closed, what the old process told of it cannot be restored client=%s",
                 client->session.peer);
        client_close(client);
        return;
    }
    if (client->session.protocol == SESSION_MC_TEXT)
        client->parser.text.swallow = move.swallow;
    else if (client->session.protocol == SESSION_MC_BINARY)
        client->parser.binary.swallow = move.swallow;
    if (!outbuf_append(&node->engine->chunks, &client->session.out, move.output.data, move.output.len)) {
        client_close(client);
        return;
    }
    if (node->is_closing) { /* as the others, which it had */
        client_flush(client);
        client_close(client);
        return;
    }
    client_mark_dirty(client);
    if (move.output.len > OUTPUT_PAUSE)
        client->pause |= PAUSE_OUTPUT; /* it stands yet */
    else
        io_stream_resume(&client->stream);
}
