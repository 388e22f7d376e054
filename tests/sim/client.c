/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client: sends its script in bursts, and holds every byte that comes against what must come.
 */
#include "tests/sim/world.h"

#include "common/base/error.h"
#include "common/base/mem.h"
#include "common/proto/resp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct stray {
    struct list_node node;
    struct buffer bytes;
};

struct sim_client {
    struct io_stream stream;
    struct io_timer timer, slow_timer;
    struct world *world;
    struct script script;
    struct rng rng;
    uint32_t index;
    struct op *ops[WORLD_OPS_MAX];
    uint32_t made, head, target;
    uint32_t abort_at; /* operations; 0: never */
    bool has_shutdown, wants_half_close, is_slow, is_over, is_wild, is_connected, has_error;
    struct buffer in, out;
    uint64_t hash, received_bytes;
};

/* ---- what comes -------------------------------------------------------------------------------- */

enum match { MATCH_NO, MATCH_MORE, MATCH_YES };

/* Whether `data` begins with `wanted`, or is itself the beginning of it. */
static enum match match_bytes(struct bytes data, struct bytes wanted, size_t *used)
{
    size_t len = MIN(data.len, wanted.len);

    if (len > 0 && memcmp(data.data, wanted.data, len) != 0)
        return MATCH_NO;
    *used = wanted.len;
    return data.len >= wanted.len ? MATCH_YES : MATCH_MORE;
}

static enum match match_value(struct bytes data, size_t *used)
{
    struct resp_reply_parser parser = {0};
    struct proto_limits limits = PROTO_LIMITS_DEFAULT;

    switch (resp_reply_scan(&parser, &limits, data, used)) {
    case PARSE_OK:
        return MATCH_YES;
    case PARSE_MORE:
        return MATCH_MORE;
    case PARSE_BAD:
        break;
    }
    return MATCH_NO;
}

static enum match match_line(struct bytes data, struct bytes prefix, size_t *used)
{
    const char *end = memchr(data.data, '\n', data.len);

    if (prefix.len > 0 && memcmp(data.data, prefix.data, MIN(data.len, prefix.len)) != 0)
        return MATCH_NO;
    if (end == NULL)
        return data.len > 512 ? MATCH_NO : MATCH_MORE;
    *used = (size_t)(end - data.data) + 1;
    return *used >= prefix.len + 2 && end[-1] == '\r' ? MATCH_YES : MATCH_NO;
}

static enum match match_binary_error(const struct op *op, struct bytes data, size_t *used)
{
    unsigned char head[24];
    uint32_t opaque, body;

    if (data.len < sizeof(head))
        return (unsigned char)data.data[0] == 0x81 ? MATCH_MORE : MATCH_NO;
    memcpy(head, data.data, sizeof(head));
    opaque = (uint32_t)head[12] << 24 | (uint32_t)head[13] << 16 | (uint32_t)head[14] << 8 | head[15];
    body = (uint32_t)head[8] << 24 | (uint32_t)head[9] << 16 | (uint32_t)head[10] << 8 | head[11];
    if (head[0] != 0x81 || opaque != op->opaque || head[7] < 0x80 || head[1] != (unsigned char)op->wire.data[1])
        return MATCH_NO;
    *used = sizeof(head) + body;
    return data.len >= *used ? MATCH_YES : MATCH_MORE;
}

static enum match match_error(const struct op *op, struct bytes data, size_t *used)
{
    enum match best = MATCH_NO;

    if (op->flags & OP_BINARY)
        return match_binary_error(op, data, used);
    for (int id = ERROR_NONE + 1; id < ERROR_COUNT; id++) {
        const struct error_info *info = error_info((enum error_id)id);
        enum match match = match_bytes(data, data.data[0] == '-' ? info->redis : info->memcache, used);

        if (match == MATCH_YES)
            return match;
        best = match > best ? match : best;
    }
    return best;
}

static size_t item_len(struct bytes data)
{
    const char *end = data.len < 6 || memcmp(data.data, "VALUE ", 6) != 0
                          ? NULL
                          : memchr(data.data, '\n', data.len);
    unsigned long len = 0;

    if (end == NULL || sscanf(data.data, "VALUE %*s %*u %lu", &len) != 1)
        return 0;
    return (size_t)(end - data.data) + 1 + len + 2;
}

/* Some of the items that are due, in their order: a reply to somebody else's misses was in between. */
static enum match match_items(const struct op *op, struct bytes data, size_t *used)
{
    struct bytes wanted = buffer_bytes(&op->expect);
    size_t at = 0, len;

    while ((len = item_len(wanted)) > 0) {
        struct bytes rest = bytes_skip(data, at);

        if (rest.len < len && rest.len > 0 && memcmp(rest.data, wanted.data, rest.len) == 0)
            return MATCH_MORE;
        if (rest.len >= len && memcmp(rest.data, wanted.data, len) == 0)
            at += len;
        wanted = bytes_skip(wanted, len);
    }
    if (data.len - at < 5)
        return memcmp(data.data + at, "END\r\n", data.len - at) == 0 ? MATCH_MORE : MATCH_NO;
    *used = at + 5;
    return memcmp(data.data + at, "END\r\n", 5) == 0 ? MATCH_YES : MATCH_NO;
}

/* One reply of a meta or one-line command, whatever it is. */
static enum match match_line_or_item(struct bytes data, size_t *used)
{
    enum match match = match_line(data, BYTES_EMPTY, used);
    unsigned long len;

    if (match != MATCH_YES || data.len < 4 || memcmp(data.data, "VA ", 3) != 0 ||
        sscanf(data.data, "VA %lu", &len) != 1)
        return match;
    *used += len + 2;
    return data.len >= *used ? MATCH_YES : MATCH_MORE;
}

/* One of the strays as it is. Of a get only an error line can be one: values name their key. */
static enum match match_strays(const struct world *world, struct bytes data, bool only_errors, size_t *used)
{
    enum match best = MATCH_NO;

    LIST_FOR_EACH (&world->strays, node) {
        const struct stray *stray = CONTAINER_OF(node, struct stray, node);
        struct bytes bytes = buffer_bytes(&stray->bytes);
        enum match match;

        if (only_errors && memmem(bytes.data, MIN(bytes.len, (size_t)12), "ERROR", 5) == NULL)
            continue;
        match = match_bytes(data, bytes, used);
        if (match == MATCH_YES)
            return match;
        best = match > best ? match : best;
    }
    return best;
}

/* What a tainted connection may have brought where the protocol can not tell. */
static enum match match_stray(struct sim_client *client, const struct op *op, struct bytes data,
                              size_t *used)
{
    struct world *world = client->world;
    bool is_get = !world->profile.is_redis && op->argc > 0 && op->name[0] == 'g';
    enum match match;

    if (list_is_empty(&world->strays) || (op->flags & OP_BINARY))
        return MATCH_NO;
    if (world->profile.is_redis && ((op->flags & OP_SPLIT) || strcmp(op->name, "EXEC") == 0))
        return match_value(data, used);
    if ((op->flags & OP_LOCAL) && !(world->is_injected && strcmp(op->name, "MULTI") == 0))
        return MATCH_NO;
    if (is_get && world->is_injected && (data.data[0] == 'S' || data.data[0] == 'C' || (data.len > 1 && data.data[1] == 'R')))
        return match_line(data, BYTES_EMPTY, used);
    if (is_get) {
        match = match_items(op, data, used);
        return match != MATCH_NO ? match : match_strays(world, data, true, used);
    }
    if (world->is_injected)
        return world->profile.is_redis ? match_value(data, used) : match_line_or_item(data, used);
    return match_strays(world, data, false, used);
}

/* A quiet request met a reply of somebody else's that it leaves out. */
static bool may_be_hushed(const struct world *world, const struct op *op)
{
    if ((op->flags & OP_HUSHES) == 0)
        return false;
    LIST_FOR_EACH (&world->strays, node) {
        const struct stray *stray = CONTAINER_OF(node, struct stray, node);

        if (world->is_injected || model_meta_is_quiet(bytes_of_string(op->name), buffer_bytes(&stray->bytes)))
            return true;
    }
    return false;
}

void world_add_stray(struct world *world, struct bytes reply)
{
    struct stray *stray = must_zalloc(sizeof(*stray));

    buffer_append(&stray->bytes, reply.data, reply.len);
    list_push_back(&world->strays, &stray->node);
}

void world_free_strays(struct world *world);
void world_free_strays(struct world *world)
{
    struct list_node *node;

    while ((node = list_pop_front(&world->strays)) != NULL) {
        struct stray *stray = CONTAINER_OF(node, struct stray, node);

        buffer_deinit(&stray->bytes);
        mem_free(stray);
    }
}

static enum match match_op(struct sim_client *client, const struct op *op, struct bytes data,
                           size_t *used)
{
    struct world *world = client->world;
    enum match best = MATCH_NO, match;

    if (op->flags & OP_ANY_VALUE)
        best = match_value(data, used);
    else if (op->flags & OP_LINE_PREFIX)
        best = match_line(data, buffer_bytes(&op->expect), used);
    else if (op->expect.len > 0)
        best = match_bytes(data, buffer_bytes(&op->expect), used);
    if (best == MATCH_YES || !world->profile.is_faulty)
        return best;
    if (!(op->flags & OP_NEVER_FAILS)) {
        size_t error_used;

        match = match_error(op, data, &error_used);
        if (match == MATCH_YES) {
            *used = error_used;
            world->marks.errors++;
            client->has_error = true;
            return match;
        }
        best = match > best ? match : best;
    }
    match = match_stray(client, op, data, used);
    return match > best ? match : best;
}

static void client_mismatch(struct sim_client *client, struct bytes data)
{
    const struct op *op = client->head < client->made ? client->ops[client->head] : NULL;
    struct buffer text = {0};

    for (size_t i = 0; i < MIN(data.len, (size_t)120); i++)
        buffer_append_format(&text, (unsigned char)data.data[i] < 0x20 ? "\\x%02x" : "%c",
                             (unsigned char)data.data[i]);
    buffer_append_string(&text, " / wanted: ");
    for (size_t i = 0; op != NULL && i < MIN(op->expect.len, (size_t)80); i++)
        buffer_append_format(&text, (unsigned char)op->expect.data[i] < 0x20 ? "\\x%02x" : "%c",
                             (unsigned char)op->expect.data[i]);
    world_fail(client->world, "client %u op %u (%s) of %u got: %.*s", client->index, client->head,
               op == NULL ? "none" : op->name, client->made, BYTES_ARG(buffer_bytes(&text)));
    buffer_deinit(&text);
}

/* Operations without a reply are passed over as soon as they are first. */
static void client_pass_silent(struct sim_client *client, bool passes_quiet)
{
    while (client->head < client->made) {
        const struct op *op = client->ops[client->head];

        if (op->expect.len > 0 || (op->flags & (OP_ANY_VALUE | OP_LINE_PREFIX)) ||
            ((op->flags & OP_QUIET) && !passes_quiet))
            return;
        client->head++;
        if (passes_quiet)
            return;
    }
}

static void client_answered(struct sim_client *client, const struct op *op, struct bytes reply)
{
    client->world->marks.replies++;
    if (!(op->flags & OP_ANY_VALUE))
        client->hash = hash_bytes(client->hash, reply);
    if (client->world->profile.is_traced)
        printf("# %llu client %u op %u %s <- [%zu %08x] %.*s\n",
               (unsigned long long)sim_now_us(client->world->sim), client->index, client->head, op->name,
               reply.len, (unsigned)hash_bytes(0, reply),
               (int)MIN(reply.len > 2 ? reply.len - 2 : 0, (size_t)60), reply.data);
    if ((op->flags & OP_HELLO) && reply.data[0] != '-')
        client->script.is_resp3 = true;
    client->head++;
}

static size_t client_match_all(struct sim_client *client, struct bytes data)
{
    size_t consumed = 0;

    while (consumed < data.len) {
        struct bytes rest = bytes_skip(data, consumed);
        const struct op *op;
        enum match match;
        size_t used = 0;

        client_pass_silent(client, false);
        if (client->head == client->made) {
            client_mismatch(client, rest);
            return data.len;
        }
        op = client->ops[client->head];
        if ((op->flags & OP_QUIET) && client->head + 1 < client->made) {
            const struct op *next = client->ops[client->head + 1];

            /* The noop behind it. */
            if (next->expect.len > 0) {
                match = match_bytes(rest, buffer_bytes(&next->expect), &used);
                if (match == MATCH_MORE)
                    break;
                if (match == MATCH_YES) {
                    client_pass_silent(client, true);
                    continue;
                }
            }
        }
        match = match_op(client, op, rest, &used);
        if (match == MATCH_NO && (op->flags & OP_QUIET)) {
            client_pass_silent(client, true);
            continue;
        }
        if (match == MATCH_NO && may_be_hushed(client->world, op)) {
            client->head++;
            continue;
        }
        if (match == MATCH_NO) {
            client_mismatch(client, rest);
            return data.len;
        }
        if (match == MATCH_MORE)
            break;
        client_answered(client, op, bytes_first(rest, used));
        consumed += used;
    }
    return consumed;
}

/* ---- the end --------------------------------------------------------------------------------------- */

static void client_over(struct sim_client *client)
{
    if (client->is_over)
        return;
    client->is_over = true;
    io_timer_stop(&client->timer);
    io_timer_stop(&client->slow_timer);
    io_stream_close(&client->stream);
}

/* Whether something must come for it. */
static bool op_is_answered(const struct op *op)
{
    return op->expect.len > 0 || (op->flags & (OP_ANY_VALUE | OP_LINE_PREFIX)) != 0;
}

/* Operations that something must still come for. */
static uint32_t client_unanswered(const struct sim_client *client)
{
    uint32_t count = 0;

    for (uint32_t i = client->head; i < client->made; i++)
        count += op_is_answered(client->ops[i]);
    return count;
}

/* Who is still sending when he is refused may lose the reason: the kernel answers RST, and that may take
 * with it all that was not read, also what was answered before. It excuses only what the proxy did send:
 * of its bytes that were not read there are enough for all that is missing. */
static bool client_lost_the_reason(const struct sim_client *client, int err)
{
    uint64_t lost, wanted = 0;

    if (err != -ECONNRESET || !client->script.is_over)
        return false;
    lost = sim_stream_peer_sent(&client->stream) - client->received_bytes;
    for (uint32_t i = client->head; i < client->made; i++)
        if (op_is_answered(client->ops[i]))
            wanted += MAX(client->ops[i]->expect.len, (size_t)1);
    return wanted > 0 && wanted <= client->in.len + lost;
}

static void client_stream_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct sim_client *client = CONTAINER_OF(stream, struct sim_client, stream);
    struct world *world = client->world;

    (void)rest;
    world->marks.closes++;
    if (world->profile.is_traced)
        printf("# %llu client %u closed %d\n", (unsigned long long)sim_now_us(world->sim), client->index,
               err);
    if (client_lost_the_reason(client, err)) {
        world->marks.reasons_lost++;
    } else if (!client->is_wild && !world->profile.is_faulty) {
        if (client->in.len > 0)
            client_mismatch(client, buffer_bytes(&client->in));
        else if (client_unanswered(client) > 0)
            world_fail(world, "client %u: closed (%d) with %u unanswered, first is op %u (%s)", client->index,
                       err, client_unanswered(client), client->head, client->ops[client->head]->name);
        else if (!client->script.is_over && !client->has_shutdown)
            world_fail(world, "client %u: closed (%d) for no reason", client->index, err);
    }
    if (client->in.len > 0)
        world->marks.cut++;
    client_over(client);
}

static bool client_is_blocked(const struct sim_client *client)
{
    for (uint32_t i = client->head; i < client->made; i++)
        if (strcmp(client->ops[i]->name, "BLPOP") == 0)
            return true;
    return false;
}

static void client_maybe_finish(struct sim_client *client)
{
    if (client->is_over || !client->is_connected || client->made < client->target)
        return;
    if (client->wants_half_close && !client->has_shutdown && !client->script.is_over &&
        client->out.len == 0 && !client_is_blocked(client)) {
        client->has_shutdown = true;
        io_stream_shutdown(&client->stream);
    }
    if (!client->has_shutdown && !client->script.is_over && client_unanswered(client) == 0 &&
        client->in.len == 0 && !client->is_wild)
        client_over(client);
}

static size_t client_stream_recv(struct io_stream *stream, struct bytes data)
{
    struct sim_client *client = CONTAINER_OF(stream, struct sim_client, stream);

    client->received_bytes += data.len;
    client->world->moved_us = sim_now_us(client->world->sim);
    if (client->is_wild)
        return data.len;
    buffer_append(&client->in, data.data, data.len);
    buffer_consume(&client->in, client_match_all(client, buffer_bytes(&client->in)));
    if (client->is_slow && rng_chance(&client->rng, 100)) {
        io_stream_pause(stream);
        io_timer_start(stream->io, &client->slow_timer, 1 + rng_below(&client->rng, 300));
    }
    client_maybe_finish(client);
    return data.len;
}

/* ---- what goes --------------------------------------------------------------------------------------- */

static void client_flush(struct sim_client *client)
{
    while (!client->is_over && client->is_connected && client->out.len > 0) {
        struct iovec slice = {.iov_base = client->out.data, .iov_len = client->out.len};
        ssize_t sent = io_stream_send(&client->stream, &slice, 1);

        if (sent < 0) {
            client_stream_closed(&client->stream, (int)sent, BYTES_EMPTY);
            return;
        }
        if (sent == 0)
            return;
        client->world->moved_us = sim_now_us(client->world->sim);
        buffer_consume(&client->out, (size_t)sent);
    }
    client_maybe_finish(client);
}

static bool client_may_make(const struct sim_client *client)
{
    if (client->is_over || client->script.is_over || client->is_wild || client->made >= WORLD_OPS_MAX ||
        client->world->has_failed || client->has_shutdown)
        return false;
    return client->made == client->head || !(client->ops[client->made - 1]->flags & OP_HELLO);
}

static void client_make(struct sim_client *client)
{
    struct op *op = script_next(&client->script);

    ASSERT(op->argc <= OP_ARGS_MAX && !op->wire.failed && !op->expect.failed);
    client->ops[client->made++] = op;
    buffer_append(&client->out, op->wire.data, op->wire.len);
    if (client->world->profile.is_traced)
        printf("# %llu client %u op %u %s ->\n", (unsigned long long)sim_now_us(client->world->sim),
               client->index, client->made - 1, op->name);
    if (client->script.is_over)
        client->target = client->made;
}

void client_step(struct sim_client *client)
{
    if (!client_may_make(client))
        return;
    client_make(client);
    client_flush(client);
}

static void client_timer_fired(struct io_timer *timer)
{
    struct sim_client *client = timer->arg;
    uint32_t depth = client->world->profile.depth;
    uint32_t burst = 1 + (uint32_t)rng_below(&client->rng, depth);

    if (client->abort_at != 0 && client->made >= client->abort_at) {
        client_abort_now(client);
        return;
    }
    while (burst-- > 0 && client->made < client->target && client_unanswered(client) < depth * 2 &&
           client_may_make(client))
        client_make(client);
    client_flush(client);
    if (!client->is_over && client->made < client->target)
        io_timer_start(sim_node_io(client->world->client_node), timer, rng_below(&client->rng, 30));
}

static void client_slow_over(struct io_timer *timer)
{
    io_stream_resume(&((struct sim_client *)timer->arg)->stream);
}

static void client_stream_writable(struct io_stream *stream)
{
    client_flush(CONTAINER_OF(stream, struct sim_client, stream));
}

static void client_stream_connected(struct io_stream *stream, int err)
{
    struct sim_client *client = CONTAINER_OF(stream, struct sim_client, stream);

    if (err != 0) {
        if (!client->world->profile.is_faulty)
            world_fail(client->world, "client %u: no connection: %d", client->index, err);
        client_over(client);
        return;
    }
    client->is_connected = true;
    io_stream_resume(stream);
    client_flush(client);
}

static const struct io_stream_handler client_handler = {.recv = client_stream_recv,
                                                        .closed = client_stream_closed,
                                                        .writable = client_stream_writable,
                                                        .connected = client_stream_connected};

struct sim_client *client_start(struct world *world, uint32_t index)
{
    struct sim_client *client = must_zalloc(sizeof(*client));
    struct io *io = sim_node_io(world->client_node);
    struct io_addr addr;

    client->world = world;
    client->index = index;
    client->rng.state = world->seed * 77 + index * 13 + 3;
    client->target = world->profile.is_driven ? WORLD_OPS_MAX : world->profile.ops;
    client->timer = (struct io_timer){.fire = client_timer_fired, .arg = client};
    client->slow_timer = (struct io_timer){.fire = client_slow_over, .arg = client};
    client->wants_half_close = rng_chance(&client->rng, world->profile.half_close);
    client->is_slow = rng_chance(&client->rng, world->profile.slow_client);
    if (rng_chance(&client->rng, world->profile.abort))
        client->abort_at = 1 + (uint32_t)rng_below(&client->rng, MAX(world->profile.ops, 1u));
    script_init(&client->script, world, index);
    sim_fd_addr(world->sim, world->listen_fd, &addr);
    if (io_stream_connect(io, &client->stream, &client_handler, &addr, NULL) != 0)
        client_over(client);
    else if (!world->profile.is_driven)
        io_timer_start(io, &client->timer, 1);
    return client;
}

void client_finish_script(struct sim_client *client, bool half_closes)
{
    client->wants_half_close = half_closes;
    client->target = client->made;
    if (client->is_wild)
        client_abort_now(client);
    else
        client_maybe_finish(client);
}

void client_abort_now(struct sim_client *client)
{
    if (client->is_over)
        return;
    io_stream_abort(&client->stream);
    client_over(client);
}

void client_send_raw(struct sim_client *client, struct bytes bytes)
{
    if (client->is_over || client->has_shutdown)
        return;
    client->is_wild = true;
    client->world->is_wild = true;
    io_timer_stop(&client->timer);
    buffer_append(&client->out, bytes.data, bytes.len);
    client_flush(client);
}

bool client_is_over(const struct sim_client *client)
{
    return client->is_over;
}

struct op *client_op(struct sim_client *client, uint32_t index)
{
    return index < client->made ? client->ops[index] : NULL;
}

uint64_t client_hash(const struct sim_client *client)
{
    return client->hash;
}

void client_describe(const struct sim_client *client, struct buffer *out)
{
    buffer_append_format(out, "client %u: op %u (%s) of %u/%u unanswered, %zu bytes in, %zu out%s%s", client->index,
                         client->head, client->head < client->made ? client->ops[client->head]->name : "-",
                         client->made, client->target, client->in.len, client->out.len,
                         client->has_shutdown ? ", half-closed" : "",
                         client->script.is_over ? ", waits for the end" : "");
}

void client_free_all(struct sim_client **slot)
{
    struct sim_client *client = *slot;

    *slot = NULL;
    if (client == NULL)
        return;
    client_over(client);
    for (uint32_t i = 0; i < client->made; i++)
        op_free(&client->ops[i]);
    script_deinit(&client->script);
    buffer_deinit(&client->in);
    buffer_deinit(&client->out);
    mem_free(client);
}
