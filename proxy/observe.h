/* SPDX-License-Identifier: Apache-2.0 */
/*
 * observe.h - what is measured of a request: where its time went, by command and by server; what was
 * slow, big or hot.
 *
 * Times are the stamps of the loop's turns, never a clock read for a request; all of it costs about 6 ns
 * a request:
 *
 *     last byte read     given to a ready connection      last byte of the reply      its turn to go out
 *     start_us |-------- upstream queue --------| sent_us |-- backend --| now |--- client queue ---|
 *              |------------------ the command's latency ---------------|
 *
 * Waiting times of zero are not recorded: readers know how many requests there were.
 */
#pragma once
#include "proxy/proxy_private.h"

#define OBSERVE_COMMANDS (COMMAND_COUNT + MC_VERB_COUNT)

/* `memory`: the worker's segment, NULL: a private one. `keep`: a predecessor crashed. */
void observe_init(struct proxy *proxy, void *memory, bool keep);
void observe_deinit(struct proxy *proxy);
void observe_pool_init(struct pool *pool);
void observe_server_init(struct server *server);
/* Takes thresholds from the configuration (again). */
void observe_configure(struct proxy *proxy);
/* Once a second. */
void observe_house_kept(struct proxy *proxy, uint64_t memory_bytes);

/* The rare cases. */
struct stats_command *observe_command_add(struct pool *pool, uint32_t index);
void observe_slow(struct pool *pool, struct server *server, const struct request *request,
                  uint64_t now_us, bool is_failed);
void observe_big(struct pool *pool, struct server *server, const char *command, struct bytes key,
                 uint64_t size);
void observe_big_reply(struct upstream *upstream, const struct request *request, uint64_t size);
void observe_sampled(struct pool *pool, struct bytes key);
const char *observe_command_name(uint8_t dialect, uint16_t command);

static inline uint32_t observe_command_index(uint8_t dialect, uint16_t command)
{
    return dialect_is_resp(dialect) ? command : COMMAND_COUNT + command;
}

static inline struct stats_command *observe_command(struct pool *pool, const struct request *request)
{
    uint32_t index = observe_command_index(request->dialect, request->command);
    struct stats_command *command = pool->commands[index];

    return LIKELY(command != NULL) ? command : observe_command_add(pool, index);
}

/* The first key of a request, or as much of it as was kept; empty: none. */
static inline struct bytes observe_key_of(const struct request *request)
{
    return bytes_of((request->wire_is_heap ? request->wire_heap : request->wire) + request->key_off,
                    request->key_len);
}

/* Writes keep no wire, but the slow log wants their key. wire_len stays 0: nothing is sent again. */
static inline void observe_keep_key(struct request *request, struct bytes key)
{
    size_t len = MIN(key.len, (size_t)REQUEST_WIRE_INLINE);

    if (request->wire_len != 0)
        return;
    memcpy(request->wire, key.data, len);
    request->key_off = 0;
    request->key_len = (uint16_t)len;
}

/* Every key that is routed. */
static inline void observe_key(struct pool *pool, struct bytes key)
{
    if (UNLIKELY(--pool->proxy->observe.sample_left == 0))
        observe_sampled(pool, key);
}

/* As observe_key() of each in turn, without counting one by one. */
static inline void observe_keys(struct pool *pool, const struct bytes *keys, uint32_t step, uint32_t count)
{
    uint32_t *left = &pool->proxy->observe.sample_left;
    uint32_t done = 0;

    while (count - done >= *left) {
        done += *left;
        observe_sampled(pool, keys[(size_t)(done - 1) * step]);
    }
    *left -= count - done;
}

/* A value on its way to a server. */
static inline void observe_request_size(struct upstream *upstream, const char *command, struct bytes key,
                                        uint64_t size)
{
    struct pool *pool = upstream->server->pool;

    if (UNLIKELY(size > pool->proxy->observe.big_size))
        observe_big(pool, upstream->server, command, key, size);
}

static inline bool observe_is_miss(struct bytes reply)
{
    return reply.len == 5 && (memcmp(reply.data, "$-1\r\n", 5) == 0 || memcmp(reply.data, "END\r\n", 5) == 0);
}

/* An upload whose reply came before its end was never sent whole. */
static inline uint64_t observe_sent_us(const struct request *request, uint64_t now_us)
{
    return request->sent_us >= request->start_us && request->sent_us <= now_us ? request->sent_us
                                                                               : request->start_us;
}

/* `part`: the last piece of the reply. Called once a reply that somebody waits for. */
static inline void observe_reply(struct upstream *upstream, const struct request *request,
                                 struct bytes part)
{
    struct server *server = upstream->server;
    struct pool *pool = server->pool;
    const struct observe *observe = &pool->proxy->observe;
    uint64_t now_us = io_now_us(pool->proxy->io);
    uint64_t total_us = now_us - request->start_us;
    uint32_t index = histogram_index(total_us);
    struct stats_command *command;

    if (LIKELY(request->sent_us == request->start_us))
        histogram_add_at(server->latency, index, total_us);
    else
        histogram_add(server->latency, now_us - observe_sent_us(request, now_us));
    if (UNLIKELY(request->kind != REQUEST_CLIENT))
        return;
    command = observe_command(pool, request);
    histogram_add_at(&command->latency, index, total_us);
    if (request->reply_bytes == 0 && part.len > 0) {
        if (UNLIKELY(part.data[0] == '-') && dialect_is_resp(request->dialect))
            command->errors++;
        else if (observe_is_miss(part))
            command->misses++;
    }
    if (UNLIKELY(request->sent_us != request->start_us))
        histogram_add(pool->upstream_queue, observe_sent_us(request, now_us) - request->start_us);
    if (UNLIKELY(total_us >= observe->slow_us))
        observe_slow(pool, server, request, now_us, false);
    if (UNLIKELY(request->reply_bytes + part.len > observe->big_size))
        observe_big_reply(upstream, request, request->reply_bytes + part.len);
}

/* A request that the proxy answers for the servers: merged of their replies, or failed. */
static inline void observe_own(struct pool *pool, struct server *server, const struct request *request,
                               bool is_failed)
{
    const struct observe *observe = &pool->proxy->observe;
    uint64_t now_us = io_now_us(pool->proxy->io);
    uint64_t total_us = now_us - request->start_us;
    struct stats_command *command = observe_command(pool, request);

    histogram_add(&command->latency, total_us);
    command->errors += is_failed;
    if (UNLIKELY(total_us >= observe->slow_us))
        observe_slow(pool, server, request, now_us, is_failed);
}

/* A complete reply that was held up by the ones before it (held_us: when it was complete). */
static inline void observe_client_queue(struct pool *pool, uint64_t held_us)
{
    uint64_t now_us = io_now_us(pool->proxy->io);

    if (held_us != 0 && now_us > held_us)
        histogram_add(pool->client_queue, now_us - held_us);
}
