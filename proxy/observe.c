/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rare part of observing: making groups, writing to the areas.
 */
#include "proxy/observe.h"

#include "proxy/session.h"
#include "proxy/slowlog.h"
#include "proxy/hotkeys.h"

#define CLIENTS_WANTED_MS   10000u
/* Asking the kernel for a slow request's address: so often at most. */
#define ADDRESS_BURST       100u
#define ADDRESS_INTERVAL_MS 10u

_Static_assert(SERVER_COUNTER_COUNT + HISTOGRAM_CELLS <= POOL_COUNTER_COUNT + 2 * HISTOGRAM_CELLS,
               "the spare cells do for a server as well");

/* ---- setting up -------------------------------------------------------------------------------- */

void observe_configure(struct proxy *proxy)
{
    const struct conf_process *conf = &proxy->conf->process;
    struct observe *observe = &proxy->observe;

    observe->slow_us = conf->slowlog_threshold_ms < 0 || observe->slowlog == NULL
                           ? UINT64_MAX
                           : (uint64_t)conf->slowlog_threshold_ms * 1000;
    observe->big_size = conf->bigkeys_size == 0 ? UINT64_MAX : conf->bigkeys_size;
    observe->sample = conf->hotkeys_entries == 0 || observe->hotkeys == NULL ? 0 : conf->hotkeys_sample;
    observe->sample_left = observe->sample == 0 ? UINT32_MAX : observe->sample;
    if (observe->hotkeys != NULL)
        observe->hotkeys->sample = observe->sample;
}

/* A worker that died while it wrote left an odd sequence. */
static void sequence_mend(uint64_t *sequence)
{
    if (*sequence & 1)
        stats_write_end(sequence);
}

static void observe_areas_init(struct observe *observe, uint64_t *process, const struct stats_plan *plan)
{
    const struct stats_schemas *schemas = &observe->schemas;

    observe->slowlog = (struct stats_slowlog *)(void *)(process + schemas->slowlog);
    observe->hotkeys = (struct stats_hotkeys *)(void *)(process + schemas->hotkeys);
    observe->bigkeys = (struct stats_bigkeys *)(void *)(process + schemas->bigkeys);
    observe->clients = (struct stats_clients *)(void *)(process + schemas->clients);
    observe->slowlog->entries_max = plan->slowlog_entries;
    observe->hotkeys->entries_max = plan->hotkeys_entries;
    observe->bigkeys->entries_max = STATS_BIGKEYS_MAX;
    observe->clients->entries_max = plan->clients_entries;
    sequence_mend(&observe->hotkeys->sequence);
    sequence_mend(&observe->bigkeys->sequence);
    sequence_mend(&observe->clients->sequence);
}

void observe_init(struct proxy *proxy, void *memory, bool keep)
{
    struct observe *observe = &proxy->observe;
    struct stats_plan plan;

    if (memory == NULL) {
        stats_plan_private(proxy->conf, &plan);
        memory = observe->owned = must_zalloc(plan.size);
    } else if (stats_plan(proxy->conf, &plan) != 0) {
        UNREACHABLE("a configuration that was refused");
    }
    stats_open(&observe->segment, memory, plan.size, keep);
    stats_zero_gauges(&observe->segment);
    stats_schemas_add(&observe->segment, &plan, &observe->schemas);
    observe->process = stats_group_add(&observe->segment, observe->schemas.process, BYTES_EMPTY, BYTES_EMPTY);
    observe->spare = must_zalloc(sizeof(uint64_t) * (POOL_COUNTER_COUNT + 2 * HISTOGRAM_CELLS));
    observe->random = io_random64(proxy->io) | 1;
    ASSERT(observe->process != NULL);
    observe_areas_init(observe, observe->process, &plan);
    observe_configure(proxy);
}

void observe_deinit(struct proxy *proxy)
{
    stats_close(&proxy->observe.segment);
    mem_free(proxy->observe.spare);
    mem_free(proxy->observe.owned);
}

/* The histogram `off` cells into the group; off 0: it was left out, nobody reads the spare one. */
static struct histogram *observe_histogram(struct observe *observe, uint64_t *cells, uint32_t off)
{
    return (struct histogram *)(void *)(off == 0 ? observe->spare + POOL_COUNTER_COUNT : cells + off);
}

void observe_pool_init(struct pool *pool)
{
    struct observe *observe = &pool->proxy->observe;

    pool->counters = stats_group_add(&observe->segment, observe->schemas.pool,
                                     bytes_of_string(pool->conf->name), BYTES_EMPTY);
    if (pool->counters == NULL)
        pool->counters = observe->spare;
    pool->client_queue = observe_histogram(observe, pool->counters, observe->schemas.pool_client_queue);
    pool->upstream_queue = observe_histogram(observe, pool->counters, observe->schemas.pool_upstream_queue);
    pool->commands = must_zalloc(sizeof(*pool->commands) * OBSERVE_COMMANDS);
}

void observe_server_init(struct server *server)
{
    struct pool *pool = server->pool;
    struct observe *observe = &pool->proxy->observe;

    server->counters = stats_group_add(&observe->segment, observe->schemas.server,
                                       bytes_of_string(pool->conf->name), bytes_of_string(server->name));
    if (server->counters == NULL)
        server->counters = observe->spare;
    server->latency = observe_histogram(observe, server->counters, observe->schemas.server_latency);
}

const char *observe_command_name(uint8_t dialect, uint16_t command)
{
    if (command == 0)
        return "other";
    return dialect_is_resp(dialect) ? command_by_id(command)->name : mc_verb_info((enum mc_verb)command)->name;
}

struct stats_command *observe_command_add(struct pool *pool, uint32_t index)
{
    struct observe *observe = &pool->proxy->observe;
    bool is_memcache = index >= COMMAND_COUNT;
    const char *name = is_memcache ? observe_command_name(DIALECT_MC_TEXT, (uint16_t)(index - COMMAND_COUNT))
                                   : observe_command_name(DIALECT_RESP2, (uint16_t)index);
    uint64_t *cells = NULL;

    if (observe->schemas.has_commands)
        cells = stats_group_add(&observe->segment, observe->schemas.command,
                                bytes_of_string(pool->conf->name), bytes_of_string(name));
    if (cells == NULL)
        cells = observe->spare;
    pool->commands[index] = (struct stats_command *)(void *)cells;
    return pool->commands[index];
}

/* ---- slow, big, hot ------------------------------------------------------------------------------ */

static void observe_address(struct proxy *proxy, const struct request *request, char out[STATS_TEXT_MAX])
{
    struct io_addr peer = {0};
    char text[IO_ADDR_TEXT_MAX];

    out[0] = '\0';
    if (request->client == NULL || request->client->is_dead ||
        !log_limit_allows(&proxy->observe.address_limit, io_now_ms(proxy->io), ADDRESS_BURST,
                          ADDRESS_INTERVAL_MS, NULL))
        return;
    io_stream_peer(&request->client->stream, &peer);
    stats_text_set(out, STATS_TEXT_MAX, bytes_of_string(io_addr_text(&peer, text)));
}

void observe_slow(struct pool *pool, struct server *server, const struct request *request,
                  uint64_t now_us, bool is_failed)
{
    struct proxy *proxy = pool->proxy;
    uint64_t sent_us = observe_sent_us(request, now_us);
    struct stats_slow slow = {
        .at_us = io_wall_us(proxy->io),
        .total_us = now_us - request->start_us,
        .queue_us = sent_us - request->start_us,
        .backend_us = now_us - sent_us,
        .client_id = request->client == NULL ? 0 : request->client->id,
        .reply_bytes = request->reply_bytes,
        .is_failed = is_failed,
    };

    stats_key_set(&slow.key, observe_key_of(request));
    stats_text_set(slow.command, sizeof(slow.command),
                   bytes_of_string(observe_command_name(request->dialect, request->command)));
    stats_text_set(slow.pool, sizeof(slow.pool), bytes_of_string(pool->conf->name));
    stats_text_set(slow.server, sizeof(slow.server), server == NULL ? BYTES_EMPTY : bytes_of_string(server->name));
    observe_address(proxy, request, slow.client);
    slowlog_add(proxy->observe.slowlog, &slow);
}

void observe_big(struct pool *pool, struct server *server, const char *command, struct bytes key,
                 uint64_t size)
{
    struct stats_big big = {
        .hash = hotkeys_hash(pool->conf->name, key),
        .size = size,
        .at_us = io_wall_us(pool->proxy->io),
        .count = 1,
    };

    POOL_ADD(pool, bigkeys, 1);
    stats_key_set(&big.key, key);
    stats_text_set(big.command, sizeof(big.command), bytes_of_string(command));
    stats_text_set(big.pool, sizeof(big.pool), bytes_of_string(pool->conf->name));
    stats_text_set(big.server, sizeof(big.server), bytes_of_string(server->name));
    bigkeys_add(pool->proxy->observe.bigkeys, &big);
}

void observe_big_reply(struct upstream *upstream, const struct request *request, uint64_t size)
{
    observe_big(upstream->server->pool, upstream->server,
                observe_command_name(request->dialect, request->command), observe_key_of(request), size);
}

void observe_sampled(struct pool *pool, struct bytes key)
{
    struct observe *observe = &pool->proxy->observe;

    observe->sample_left = UINT32_MAX;
    if (observe->sample == 0)
        return;
    /* The gap varies, so that a client that works in rounds does not show one key only. */
    observe->random ^= observe->random << 13;
    observe->random ^= observe->random >> 7;
    observe->random ^= observe->random << 17;
    observe->sample_left = 1 + (uint32_t)(observe->random % (2 * (uint64_t)observe->sample - 1));
    hotkeys_add(observe->hotkeys, pool->conf->name, key);
}

/* ---- once a second ----------------------------------------------------------------------------------- */

static void observe_client(struct proxy *proxy, const struct client *client, struct stats_client *out)
{
    static const char *const dialects[] = {
        [DIALECT_RESP2] = "resp2",
        [DIALECT_RESP3] = "resp3",
        [DIALECT_MC_TEXT] = "memcache",
        [DIALECT_MC_BINARY] = "binary",
        [DIALECT_COUNT] = "",
    };
    struct io_addr peer = {0};
    char text[IO_ADDR_TEXT_MAX];

    io_stream_peer(&client->stream, &peer);
    *out = (struct stats_client){
        .id = client->id,
        .inflight = client->request_count,
        .output_bytes = client->out.len + client->held_bytes,
        .idle_s = (uint32_t)(io_now_ms(proxy->io) / 1000) - client->last_active_s,
        .db = client->db,
        .flags = (client->session != NULL && client->session->upstream != NULL ? STATS_CLIENT_PRIVATE : 0) |
                 (client->pause != 0 ? STATS_CLIENT_PAUSED : 0) |
                 (client->is_closing ? STATS_CLIENT_CLOSING : 0),
    };
    if (client->session != NULL)
        stats_text_set(out->name, sizeof(out->name), buffer_bytes(&client->session->name));
    stats_text_set(out->dialect, sizeof(out->dialect), bytes_of_string(dialects[client->dialect]));
    stats_text_set(out->address, sizeof(out->address), bytes_of_string(io_addr_text(&peer, text)));
    stats_text_set(out->pool, sizeof(out->pool), bytes_of_string(client->pool->conf->name));
}

static void observe_clients(struct proxy *proxy)
{
    struct stats_clients *clients = proxy->observe.clients;
    uint64_t count = 0;

    stats_write_begin(&clients->sequence);
    for (uint32_t p = 0; p < proxy->pool_count; p++) {
        LIST_FOR_EACH (&proxy->pools[p].clients, node) {
            if (count == clients->entries_max)
                break;
            observe_client(proxy, CONTAINER_OF(node, struct client, node), &clients->entries[count++]);
        }
    }
    clients->count = count;
    clients->total = proxy->client_count;
    clients->at_ms = io_now_ms(proxy->io);
    stats_write_end(&clients->sequence);
}

void observe_house_kept(struct proxy *proxy, uint64_t memory_bytes)
{
    struct observe *observe = &proxy->observe;
    uint64_t now_ms = io_now_ms(proxy->io);
    uint64_t wanted_ms = __atomic_load_n(&proxy->health->clients_wanted_ms, __ATOMIC_RELAXED);

    observe->process[PROCESS_memory_bytes] = memory_bytes;
    observe->process[PROCESS_clients] = proxy->client_count;
    hotkeys_fade(observe->hotkeys, now_ms / 1000);
    if (wanted_ms != 0 && now_ms - MIN(now_ms, wanted_ms) < CLIENTS_WANTED_MS)
        observe_clients(proxy);
}
