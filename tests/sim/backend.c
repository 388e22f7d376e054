/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model server: parses strictly, asks the world whether what it got was meant, answers as the model
 * says; late, in pieces, not at all, or wrongly, as the profile wants it.
 */
#include "tests/sim/world.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>



enum after { AFTER_NOTHING, AFTER_RESET, AFTER_CLOSE };

struct answer {
    struct list_node node;
    struct buffer bytes;
    uint64_t due_us;
    enum after after;
};

struct conn {
    struct io_stream stream;
    struct io_timer timer, slow_timer;
    struct list_node node;
    struct backend *backend;
    struct list answers;
    struct buffer out;
    struct model model;
    bool is_in_multi, is_tainted, is_dead, is_ended;
    struct buffer multi;
    uint32_t multi_count;
    uint64_t last_due_us;
};

struct backend {
    struct world *world;
    struct sim_node *node;
    struct io_listener listener;
    struct io_hook hook;
    struct rng rng;
    struct list conns, dead;
    int fd;
    uint32_t index;
    bool is_down;
};

uint16_t backend_port(uint32_t index)
{
    return (uint16_t)(7001 + index);
}

/* ---- out ------------------------------------------------------------------------------------------- */

static void conn_kill(struct conn *conn, bool is_reset)
{
    if (conn->is_dead)
        return;
    conn->is_dead = true;
    io_timer_stop(&conn->timer);
    io_timer_stop(&conn->slow_timer);
    if (is_reset)
        io_stream_abort(&conn->stream);
    else
        io_stream_close(&conn->stream);
    list_remove(&conn->node);
    list_push_back(&conn->backend->dead, &conn->node);
    io_wake(sim_node_io(conn->backend->node));
}

static void conn_flush(struct conn *conn)
{
    while (!conn->is_dead && conn->out.len > 0) {
        struct iovec slice = {.iov_base = conn->out.data, .iov_len = conn->out.len};
        ssize_t sent = io_stream_send(&conn->stream, &slice, 1);

        if (sent < 0) {
            conn_kill(conn, false);
            return;
        }
        if (sent == 0)
            return;
        buffer_consume(&conn->out, (size_t)sent);
    }
}

static void conn_pump(struct conn *conn)
{
    uint64_t now_us = io_now_us(sim_node_io(conn->backend->node));

    while (!conn->is_dead && !list_is_empty(&conn->answers)) {
        struct answer *answer = LIST_FIRST(&conn->answers, struct answer, node);
        enum after after = answer->after;

        if (answer->due_us > now_us) {
            io_timer_start(sim_node_io(conn->backend->node), &conn->timer,
                           (answer->due_us - now_us) / 1000 + 1);
            break;
        }
        buffer_append(&conn->out, answer->bytes.data, answer->bytes.len);
        list_remove(&answer->node);
        buffer_deinit(&answer->bytes);
        mem_free(answer);
        conn_flush(conn);
        if (after != AFTER_NOTHING)
            conn_kill(conn, after == AFTER_RESET);
    }
    if (!conn->is_dead && conn->is_ended && list_is_empty(&conn->answers) && conn->out.len == 0)
        conn_kill(conn, false);
}

static void conn_timer_fired(struct io_timer *timer)
{
    conn_pump(timer->arg);
}

static void conn_answer(struct conn *conn, const void *data, size_t len, uint64_t delay_us,
                        enum after after)
{
    struct answer *answer = must_zalloc(sizeof(*answer));
    uint64_t now_us = io_now_us(sim_node_io(conn->backend->node));

    conn->last_due_us = MAX(conn->last_due_us, now_us) + delay_us;
    answer->due_us = conn->last_due_us;
    answer->after = after;
    buffer_append(&answer->bytes, data, len);
    list_push_back(&conn->answers, &answer->node);
}

static void conn_taint(struct conn *conn)
{
    if (!conn->is_tainted)
        conn->backend->world->marks.tainted++;
    conn->is_tainted = true;
}

/* One whole reply goes out, with what the profile does to it. */
static void conn_reply(struct conn *conn, struct buffer *reply)
{
    struct backend *backend = conn->backend;
    struct world *world = backend->world;
    const struct world_profile *profile = &world->profile;
    struct rng *rng = &backend->rng;
    uint64_t delay_us = 0;
    size_t cut;

    if (profile->is_traced)
        printf("# %llu server %u conn %d <> %.*s\n", (unsigned long long)sim_now_us(world->sim),
               backend->index, conn->stream.fd, (int)MIN(reply->len, (size_t)40), reply->data);
    if (rng_chance(rng, profile->hang))
        delay_us = (uint64_t)profile->timeout_ms * (1000 + rng_below(rng, 1500));
    else if (rng_chance(rng, profile->late))
        delay_us = rng_below(rng, (uint64_t)MAX(profile->timeout_ms, 20u) * 400);
    if (conn->is_tainted)
        world_add_stray(world, buffer_bytes(reply));
    if (profile->is_hostile && rng_chance(rng, profile->extra)) {
        static const char *const extras[] = {"\r\n", "+OK\r\n", "END\r\n", "$5\r\nextra\r\n", "STORED\r\n",
                                             "VALUE evil 0 4\r\nevil\r\nEND\r\n", "$4294967300\r\nx\r\n",
                                             ">2\r\n+message\r\n+x\r\n", "\x81\0\0\0garbagegarbagegarbage"};
        const char *extra = extras[rng_below(rng, ARRAY_COUNT(extras))];

        conn_taint(conn);
        world_add_stray(world, bytes_of_string(extra));
        world_add_stray(world, buffer_bytes(reply));
        conn_answer(conn, extra, strlen(extra), delay_us, AFTER_NOTHING);
        delay_us = 0;
    }
    cut = reply->len < 2 ? reply->len : 1 + rng_below(rng, reply->len - 1);
    if (rng_chance(rng, profile->reset)) {
        conn_answer(conn, reply->data, rng_chance(rng, 300) ? 0 : cut, delay_us, AFTER_RESET);
    } else if (rng_chance(rng, profile->close)) {
        conn_answer(conn, reply->data, rng_chance(rng, 300) ? 0 : cut, delay_us, AFTER_CLOSE);
    } else if (rng_chance(rng, profile->split)) {
        world->marks.splits++;
        conn_answer(conn, reply->data, cut, delay_us, AFTER_NOTHING);
        conn_answer(conn, reply->data + cut, reply->len - cut,
                    rng_below(rng, rng_chance(rng, profile->partial)
                                       ? (uint64_t)profile->timeout_ms * 2500 : 4000),
                    AFTER_NOTHING);
    } else {
        conn_answer(conn, reply->data, reply->len, delay_us, AFTER_NOTHING);
    }
    if (profile->is_hostile && rng_chance(rng, profile->duplicate)) {
        conn_taint(conn);
        world_add_stray(world, buffer_bytes(reply));
        conn_answer(conn, reply->data, reply->len, 0, AFTER_NOTHING);
    }
}

/* ---- in: Redis --------------------------------------------------------------------------------------- */

/* "<type><plain decimal>\r\n"; 0: needs more; -1: wrong. */
static ssize_t strict_header(struct bytes data, char type, uint64_t max, uint64_t *out)
{
    size_t end = 0;

    if (data.len == 0)
        return 0;
    if (data.data[0] != type)
        return -1;
    while (end < data.len && data.data[end] != '\n')
        if (++end > 24)
            return -1;
    if (end == data.len)
        return 0;
    if (data.data[end - 1] != '\r' || !bytes_to_u64(bytes_of(data.data + 1, end - 2), max, out))
        return -1;
    return (ssize_t)end + 1;
}

#define BACKEND_ARGS_MAX 128

/* Bytes of the request; 0: more is needed; -1: malformed. */
static ssize_t strict_resp(struct bytes data, struct bytes argv[BACKEND_ARGS_MAX], uint32_t *argc)
{
    uint64_t count, len;
    ssize_t used = strict_header(data, '*', BACKEND_ARGS_MAX, &count);
    size_t at;

    if (used <= 0)
        return used;
    if (count == 0)
        return -1;
    at = (size_t)used;
    for (uint64_t i = 0; i < count; i++) {
        used = strict_header(bytes_skip(data, at), '$', 64u << 20, &len);
        if (used <= 0)
            return used;
        at += (size_t)used;
        if (data.len - at < len + 2)
            return 0;
        if (memcmp(data.data + at + len, "\r\n", 2) != 0)
            return -1;
        argv[i] = bytes_of(data.data + at, len);
        at += len + 2;
    }
    *argc = (uint32_t)count;
    return (ssize_t)at;
}

/* What the proxy says for itself; true: answered. */
static bool redis_own(struct conn *conn, const struct bytes *argv, uint32_t argc, struct buffer *reply)
{
    uint64_t db;

    if (bytes_equal(argv[0], BYTES("HELLO")) && argc >= 2) {
        conn->model.is_resp3 = bytes_equal(argv[1], BYTES("3"));
        buffer_append_string(reply, "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n");
        return true;
    }
    if (bytes_equal(argv[0], BYTES("SELECT")) && argc == 2 && bytes_to_u64(argv[1], 15, &db)) {
        conn->model.db = (uint32_t)db;
        buffer_append_string(reply, "+OK\r\n");
        return true;
    }
    if (bytes_equal(argv[0], BYTES("PING")) && argc == 1) {
        buffer_append_string(reply, "+PONG\r\n");
        return true;
    }
    if (bytes_equal_nocase(argv[0], BYTES("MULTI")) && argc == 1) {
        conn->is_in_multi = true;
        conn->multi_count = 0;
        buffer_clear(&conn->multi);
        buffer_append_string(reply, "+OK\r\n");
        return true;
    }
    if (bytes_equal_nocase(argv[0], BYTES("DISCARD")) || bytes_equal_nocase(argv[0], BYTES("UNWATCH"))) {
        conn->is_in_multi = false;
        buffer_append_string(reply, "+OK\r\n");
        return true;
    }
    if (bytes_equal_nocase(argv[0], BYTES("EXEC")) && argc == 1) {
        if (conn->is_in_multi) {
            buffer_append_format(reply, "*%u\r\n", conn->multi_count);
            buffer_append(reply, conn->multi.data, conn->multi.len);
        } else {
            buffer_append_string(reply, "-ERR EXEC without MULTI\r\n");
        }
        conn->is_in_multi = false;
        return true;
    }
    return false;
}

static size_t redis_recv(struct conn *conn, struct bytes data)
{
    struct bytes argv[BACKEND_ARGS_MAX];
    struct buffer reply = {0};
    uint32_t argc = 0;
    ssize_t used = strict_resp(data, argv, &argc);

    if (used < 0)
        world_fail(conn->backend->world, "server %u got a malformed request: %.*s", conn->backend->index,
                   BYTES_ARG(bytes_first(data, 80)));
    if (used <= 0)
        return 0;
    if (!redis_own(conn, argv, argc, &reply)) {
        world_check_request(conn->backend->world, argv, argc);
        if (conn->is_in_multi) {
            model_redis(&conn->model, argv, argc, &conn->multi);
            conn->multi_count++;
            buffer_append_string(&reply, "+QUEUED\r\n");
        } else {
            model_redis(&conn->model, argv, argc, &reply);
        }
    }
    conn_reply(conn, &reply);
    buffer_deinit(&reply);
    return (size_t)used;
}

/* ---- in: memcache ------------------------------------------------------------------------------------ */

static bool is_store_verb(struct bytes verb)
{
    static const char *const verbs[] = {"set", "add", "replace", "append", "prepend", "cas", "ms"};

    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++)
        if (bytes_equal(verb, bytes_of_string(verbs[i])))
            return true;
    return false;
}

static ssize_t strict_text(struct bytes data, struct bytes argv[BACKEND_ARGS_MAX], uint32_t *argc)
{
    const char *end = memchr(data.data, '\n', data.len);
    struct bytes line;
    uint64_t len;
    size_t at;

    if (end == NULL)
        return data.len > 65536 ? -1 : 0;
    at = (size_t)(end - data.data) + 1;
    if (at < 3 || end[-1] != '\r')
        return -1;
    line = bytes_first(data, at - 2);
    *argc = 0;
    while (line.len > 0) {
        const char *blank = memchr(line.data, ' ', line.len);
        size_t word = blank == NULL ? line.len : (size_t)(blank - line.data);

        if (word == 0 || word > 250 || *argc >= BACKEND_ARGS_MAX - 1)
            return -1;
        for (size_t i = 0; i < word; i++)
            if ((unsigned char)line.data[i] < 0x20 || line.data[i] == 0x7f)
                return -1;
        argv[(*argc)++] = bytes_first(line, word);
        line = bytes_skip(line, word + 1);
    }
    if (argv[0].data[0] != 'g' && argv[0].data[0] != 'm' &&
        bytes_equal(argv[*argc - 1], BYTES("noreply")))
        return -1; /* the proxy always wants an answer */
    if (!is_store_verb(argv[0]))
        return (ssize_t)at;
    if (*argc < 3 || !bytes_to_u64(argv[argv[0].data[0] == 'm' ? 2 : 4], 64u << 20, &len))
        return -1;
    if (data.len - at < len + 2)
        return 0;
    if (memcmp(data.data + at + len, "\r\n", 2) != 0)
        return -1;
    argv[(*argc)++] = bytes_of(data.data + at, len);
    return (ssize_t)(at + len + 2);
}

static size_t text_recv(struct conn *conn, struct bytes data)
{
    struct bytes argv[BACKEND_ARGS_MAX];
    struct buffer reply = {0};
    uint32_t argc = 0;
    ssize_t used = strict_text(data, argv, &argc);

    if (used < 0)
        world_fail(conn->backend->world, "server %u got a malformed line: %.*s", conn->backend->index,
                   BYTES_ARG(bytes_first(data, 80)));
    if (used <= 0)
        return 0;
    if (!bytes_equal(argv[0], BYTES("version")))
        world_check_request(conn->backend->world, argv, argc);
    model_memcache(&conn->model, argv, argc, &reply);
    if (conn->backend->world->profile.is_hostile && argv[0].data[0] == 'g' &&
        rng_chance(&conn->backend->rng, conn->backend->world->profile.wrong_key)) {
        /* No taint: the proxy must see this. */
        buffer_clear(&reply);
        buffer_append_string(&reply, "VALUE evil 0 4\r\nevil\r\nEND\r\n");
    }
    conn_reply(conn, &reply);
    buffer_deinit(&reply);
    return (size_t)used;
}

static size_t binary_recv(struct conn *conn, struct bytes data)
{
    const unsigned char *head = (const unsigned char *)data.data;
    struct buffer reply = {0};
    struct bytes argv[4], body;
    char opcode[4];
    uint32_t key_len, body_len, opaque;

    if (data.len < 24)
        return 0;
    key_len = (uint32_t)head[2] << 8 | head[3];
    body_len = (uint32_t)head[8] << 24 | (uint32_t)head[9] << 16 | (uint32_t)head[10] << 8 | head[11];
    opaque = (uint32_t)head[12] << 24 | (uint32_t)head[13] << 16 | (uint32_t)head[14] << 8 | head[15];
    /* Any data type: memcached does not look at it, and what a client says goes to the server. */
    if (head[0] != 0x80 || key_len + head[4] > body_len || body_len > 64u << 20) {
        world_fail(conn->backend->world, "server %u got a malformed frame", conn->backend->index);
        return 0;
    }
    if (data.len < 24 + (size_t)body_len)
        return 0;
    body = bytes_of(data.data + 24, body_len);
    snprintf(opcode, sizeof(opcode), "%02x", head[1]);
    argv[0] = bytes_of(opcode, 2);
    argv[1] = bytes_first(body, head[4]);
    argv[2] = bytes_first(bytes_skip(body, head[4]), key_len);
    argv[3] = bytes_skip(body, head[4] + key_len);
    world_check_request(conn->backend->world, argv, 4);
    model_binary(&conn->model, head[1], opaque, argv[1], argv[2], argv[3], &reply);
    conn_reply(conn, &reply);
    buffer_deinit(&reply);
    return 24 + (size_t)body_len;
}

/* ---- the connection -------------------------------------------------------------------------------- */

static void conn_slow_over(struct io_timer *timer)
{
    struct conn *conn = timer->arg;

    io_stream_resume(&conn->stream);
}

static size_t conn_recv(struct io_stream *stream, struct bytes data)
{
    struct conn *conn = CONTAINER_OF(stream, struct conn, stream);
    struct world *world = conn->backend->world;
    size_t consumed = 0;

    while (consumed < data.len && !world->has_failed) {
        struct bytes rest = bytes_skip(data, consumed);
        size_t used = world->profile.is_redis                  ? redis_recv(conn, rest)
                      : (unsigned char)rest.data[0] == 0x80 ? binary_recv(conn, rest)
                                                               : text_recv(conn, rest);

        if (used == 0)
            break;
        consumed += used;
    }
    conn_pump(conn);
    if (!conn->is_dead && rng_chance(&conn->backend->rng, world->profile.slow_read)) {
        io_stream_pause(stream);
        io_timer_start(stream->io, &conn->slow_timer,
                       1 + rng_below(&conn->backend->rng, MAX(world->profile.timeout_ms, 20u) / 2));
    }
    return consumed;
}

static void conn_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct conn *conn = CONTAINER_OF(stream, struct conn, stream);

    (void)rest;
    if (err != ERR_EOF) {
        conn_kill(conn, false);
        return;
    }
    conn->is_ended = true;
    conn_kill(conn, false);
}

static void conn_writable(struct io_stream *stream)
{
    struct conn *conn = CONTAINER_OF(stream, struct conn, stream);

    conn_flush(conn);
    if (!conn->is_dead)
        conn_pump(conn);
}

static const struct io_stream_handler conn_handler = {
    .recv = conn_recv, .closed = conn_closed, .writable = conn_writable};

static void backend_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct backend *backend = listener->arg;
    struct conn *conn;

    (void)peer;
    if (backend->is_down) {
        sim_fd_close(backend->world->sim, fd);
        return;
    }
    conn = must_zalloc(sizeof(*conn));
    conn->backend = backend;
    conn->timer = (struct io_timer){.fire = conn_timer_fired, .arg = conn};
    conn->slow_timer = (struct io_timer){.fire = conn_slow_over, .arg = conn};
    conn->model.value_size_max = backend->world->profile.value_size_max;
    list_init(&conn->answers);
    if (io_stream_open(listener->io, &conn->stream, &conn_handler, fd, NULL, BYTES_EMPTY) != 0) {
        mem_free(conn);
        return;
    }
    list_push_back(&backend->conns, &conn->node);
    io_stream_resume(&conn->stream);
}

static void conn_free(struct conn *conn)
{
    struct list_node *node;

    while ((node = list_pop_front(&conn->answers)) != NULL) {
        struct answer *answer = CONTAINER_OF(node, struct answer, node);

        buffer_deinit(&answer->bytes);
        mem_free(answer);
    }
    buffer_deinit(&conn->out);
    buffer_deinit(&conn->multi);
    mem_free(conn);
}

static void backend_bury(struct io_hook *hook)
{
    struct backend *backend = CONTAINER_OF(hook, struct backend, hook);
    struct list_node *node;

    while ((node = list_pop_front(&backend->dead)) != NULL)
        conn_free(CONTAINER_OF(node, struct conn, node));
}

struct backend *backend_create(struct world *world, uint32_t index)
{
    struct backend *backend = must_zalloc(sizeof(*backend));
    char name[24];

    snprintf(name, sizeof(name), "server%u", index);
    backend->world = world;
    backend->index = index;
    backend->rng.state = world->seed * 31 + index * 1000003 + 5;
    list_init(&backend->conns);
    list_init(&backend->dead);
    backend->node = sim_node_create(world->sim, name);
    backend->hook.run = backend_bury;
    io_hook_add(sim_node_io(backend->node), &backend->hook);
    backend->is_down = true;
    backend_revive(backend);
    return backend;
}

void backend_revive(struct backend *backend)
{
    struct io_addr addr;

    if (!backend->is_down)
        return;
    if (io_addr_parse("127.0.0.1", backend_port(backend->index), &addr) != 0 ||
        sim_listen(backend->node, &addr, &backend->fd) != 0) {
        world_fail(backend->world, "server %u can not listen", backend->index);
        return;
    }
    backend->is_down = false;
    backend->listener = (struct io_listener){.accepted = backend_accepted, .arg = backend};
    io_listener_start(sim_node_io(backend->node), &backend->listener, backend->fd);
}

void backend_die(struct backend *backend)
{
    struct list_node *node;

    if (backend->is_down)
        return;
    backend->is_down = true;
    backend->world->marks.kills++;
    io_listener_stop(&backend->listener);
    sim_fd_close(backend->world->sim, backend->fd);
    while ((node = list_first(&backend->conns)) != NULL)
        conn_kill(CONTAINER_OF(node, struct conn, node), true);
}

void backend_inject(struct backend *backend, struct bytes bytes)
{
    struct conn *conn = LIST_FIRST(&backend->conns, struct conn, node);

    if (conn == NULL || bytes.len == 0)
        return;
    conn_taint(conn);
    backend->world->is_injected = true;
    world_add_stray(backend->world, bytes);
    conn_answer(conn, bytes.data, bytes.len, 0, AFTER_NOTHING);
    conn_pump(conn);
}

uint32_t backend_connections(const struct backend *backend)
{
    uint32_t count = 0;

    LIST_FOR_EACH (&backend->conns, node)
        count++;
    return count;
}

uint32_t backend_tainted(const struct backend *backend)
{
    uint32_t count = 0;

    LIST_FOR_EACH (&backend->conns, node)
        count += CONTAINER_OF(node, struct conn, node)->is_tainted;
    return count;
}

void backend_destroy(struct backend **slot)
{
    struct backend *backend = *slot;
    struct list_node *node;

    *slot = NULL;
    if (backend == NULL)
        return;
    while ((node = list_first(&backend->conns)) != NULL)
        conn_kill(CONTAINER_OF(node, struct conn, node), false);
    backend_bury(&backend->hook);
    io_listener_stop(&backend->listener);
    io_hook_remove(sim_node_io(backend->node), &backend->hook);
    mem_free(backend);
}
