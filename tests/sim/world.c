/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "proxy/stats_layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORLD_PORT         6400
/* Stuck is where nothing moves. How long a run takes says nothing: a value of 64 KiB through a buffer of 25
 * bytes, one way of it a second late in a hundred, takes minutes. Scripts are finite, so runs end. */
#define WORLD_STILL_MAX_US (300ull * 1000000)
#define WORLD_SLICE_US     20000
#define WORLD_QUIET_US     (25ull * 1000000)

void world_free_strays(struct world *world);

/* ---- what a seed chooses ----------------------------------------------------------------------- */

static void draw_faults(struct rng *rng, struct world_profile *out)
{
    out->is_faulty = true;
    out->timeout_ms = 50 + (uint32_t)rng_below(rng, 400);
    out->late = rng_chance(rng, 500) ? (uint32_t)rng_below(rng, 100) : 0;
    out->hang = rng_chance(rng, 500) ? (uint32_t)rng_below(rng, rng_chance(rng, 200) ? 400 : 30) : 0;
    out->reset = rng_chance(rng, 400) ? (uint32_t)rng_below(rng, 10) : 0;
    out->close = rng_chance(rng, 400) ? (uint32_t)rng_below(rng, 10) : 0;
    out->partial = rng_chance(rng, 400) ? (uint32_t)rng_below(rng, 100) : 0;
    out->deaths = rng_chance(rng, 500) ? (uint32_t)rng_below(rng, 6) : 0;
    out->draws_net = rng_chance(rng, 300);
    out->auto_eject = rng_chance(rng, 400);
    out->abort = rng_chance(rng, 500) ? (uint32_t)rng_below(rng, 400) : 0;
    if (rng_chance(rng, 300)) {
        out->is_hostile = true;
        out->duplicate = rng_chance(rng, 500) ? (uint32_t)rng_below(rng, 20) : 0;
        out->extra = rng_chance(rng, 500) ? (uint32_t)rng_below(rng, 20) : 0;
        out->wrong_key = rng_chance(rng, 500) ? (uint32_t)rng_below(rng, 30) : 0;
    }
}

void world_profile_draw(uint64_t seed, struct world_profile *out)
{
    struct rng rng = {.state = seed ^ 0x5eed};

    memset(out, 0, sizeof(*out));
    out->is_redis = rng_chance(&rng, 500);
    out->has_resp3 = rng_chance(&rng, 500);
    out->has_binary = rng_chance(&rng, 500);
    out->has_malformed = rng_chance(&rng, 500);
    out->is_eager = rng_chance(&rng, 300);
    out->has_handover = rng_chance(&rng, 300);
    out->backends = 1 + (uint32_t)rng_below(&rng, 5);
    out->clients = 1 + (uint32_t)rng_below(&rng, 12);
    out->ops = 20 + (uint32_t)rng_below(&rng, 150);
    out->depth = 1 + (uint32_t)rng_below(&rng, rng_chance(&rng, 300) ? 100 : 12);
    out->server_connections = rng_chance(&rng, 700) ? 1 : 1 + (uint32_t)rng_below(&rng, 4);
    out->value_size_max = rng_chance(&rng, 300) ? 120000 : 9000;
    out->split = (uint32_t)rng_below(&rng, 300);
    out->slow_read = rng_chance(&rng, 400) ? (uint32_t)rng_below(&rng, 100) : 0;
    out->half_close = (uint32_t)rng_below(&rng, 500);
    out->slow_client = (uint32_t)rng_below(&rng, 400);
    out->segment_max = rng_chance(&rng, 600) ? 1u << rng_below(&rng, 12) : 0;
    out->buffer_size = rng_chance(&rng, 500) ? 1u << (9 + rng_below(&rng, 6)) : 0;
    if (rng_chance(&rng, 700))
        draw_faults(&rng, out);
}

/* ---- building -------------------------------------------------------------------------------------- */

void world_fail(struct world *world, const char *format, ...)
{
    va_list args;

    if (world->has_failed)
        return;
    world->has_failed = true;
    va_start(args, format);
    vsnprintf(world->why, sizeof(world->why), format, args);
    va_end(args);
}

static void world_log(void *arg, int level, const char *line, size_t len)
{
    struct world *world = arg;

    (void)level;
    if (world->profile.is_traced)
        printf("# %llu log %.*s\n", (unsigned long long)sim_now_us(world->sim), (int)len, line);
}

static void world_compose_conf(struct world *world, struct buffer *out)
{
    const struct world_profile *profile = &world->profile;

    buffer_append_format(out,
                         "weir:\n  version: 1\n  limits: {value_size_max: 1048576}\n"
                         "pool:\n  listen: 127.0.0.1:%u\n  redis: %s\n  hash: fnv1a_64\n  hash_tag: \"{}\"\n"
                         "  distribution: ketama\n  server_connections: %u\n  server_retry_timeout: 300\n"
                         "  server_failure_limit: 2\n  auto_eject_hosts: %s\n",
                         WORLD_PORT, profile->is_redis ? "true" : "false",
                         MAX(profile->server_connections, 1u), profile->auto_eject ? "true" : "false");
    if (profile->timeout_ms != 0)
        buffer_append_format(out, "  timeout: %u\n", profile->timeout_ms);
    buffer_append_string(out, "  servers:\n");
    for (uint32_t i = 0; i < profile->backends; i++)
        buffer_append_format(out, "   - 127.0.0.1:%u:1\n", backend_port(i));
}

static void world_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct world *world = listener->arg;

    if (world->active == 1)
        sim_fd_move(world->sim, fd, world->second_node);
    proxy_accept(world->proxies[world->active], 0, fd, peer);
}

static void world_drained(void *arg)
{
    ((struct world *)arg)->drained[0] = true;
}

struct transit {
    struct world *world;
    uint32_t pool_index, fds_count;
    int fds[8];
    struct buffer blob;
};

/* The other process reads the message. */
static void transit_arrive(void *arg)
{
    struct transit *transit = arg;
    struct world *world = transit->world;

    for (uint32_t i = 0; i < transit->fds_count; i++)
        sim_fd_move(world->sim, transit->fds[i], world->second_node);
    proxy_take_over(world->proxies[1], transit->pool_index, transit->fds, transit->fds_count,
                    buffer_bytes(&transit->blob));
    buffer_deinit(&transit->blob);
    mem_free(transit);
}

static int world_pass(void *arg, uint32_t pool_index, const int *fds, uint32_t fds_count,
                      struct bytes blob)
{
    struct world *world = arg;
    struct transit *transit;

    if (rng_chance(&world->rng, 200))
        return -EAGAIN; /* the channel is full */
    transit = must_zalloc(sizeof(*transit));
    transit->world = world;
    transit->pool_index = pool_index;
    transit->fds_count = fds_count;
    memcpy(transit->fds, fds, sizeof(*fds) * fds_count);
    buffer_append(&transit->blob, blob.data, blob.len);
    world->marks.handovers++;
    sim_call_at(world->sim, sim_now_us(world->sim) + rng_below(&world->rng, 3000), transit_arrive,
                transit);
    return 0;
}

static void world_create_proxy(struct world *world, uint32_t index, struct sim_node *node)
{
    struct proxy_options options = {.io = sim_node_io(node),
                                    .conf = world->conf,
                                    .worker_index = index,
                                    .worker_pid = 1,
                                    .drained = world_drained,
                                    .pass = world_pass,
                                    .arg = world};

    if (stats_plan(world->conf, &world->stats_plan) != 0)
        world_fail(world, "no room for the counters");
    world->stats[index] = must_zalloc(world->stats_plan.size);
    options.stats = world->stats[index];
    if (proxy_create(&options, &world->proxies[index]) != 0)
        world_fail(world, "the proxy does not start");
}

static void world_set_net(struct world *world, struct sim_options *options)
{
    const struct world_profile *profile = &world->profile;

    if (profile->draws_net)
        sim_options_draw(options, world->seed);
    else
        sim_options_calm(options);
    options->net.delay_mean_us = MIN(options->net.delay_mean_us, 2000u);
    options->net.delay_min_us = MIN(options->net.delay_min_us, 1000u);
    if (profile->segment_max != 0) {
        options->net.segment_min = 1;
        options->net.segment_max = profile->segment_max;
        options->net.gap_us_max = MIN(options->net.gap_us_max, 20u);
    }
    if (profile->buffer_size != 0) {
        options->net.send_buffer_min = options->net.recv_buffer_min = profile->buffer_size;
        options->net.send_buffer_max = options->net.recv_buffer_max = profile->buffer_size * 2;
    }
}

struct world *world_create(uint64_t seed, const struct world_profile *profile)
{
    struct world *world = must_zalloc(sizeof(*world));
    struct sim_options options;
    struct buffer yaml = {0};
    struct conf_error error;
    struct io_addr addr;

    world->seed = seed;
    world->profile = *profile;
    world->rng.state = seed * 3 + 1;
    list_init(&world->strays);
    world_set_net(world, &options);
    world->sim = sim_create(seed, &options);
    world->log = log_create_sink(world_log, world, profile->is_traced ? LOG_DEBUG : LOG_ERROR, "sim");
    world->proxy_node = sim_node_create(world->sim, "proxy");
    world->second_node = sim_node_create(world->sim, "second");
    world->client_node = sim_node_create(world->sim, "client");
    sim_node_log_set(world->proxy_node, world->log);
    sim_node_log_set(world->second_node, world->log);
    world_compose_conf(world, &yaml);
    if (conf_parse("sim.yml", buffer_bytes(&yaml), &world->conf, &error) != 0)
        world_fail(world, "%s", error.text);
    buffer_deinit(&yaml);
    if (world->has_failed)
        return world;
    for (uint32_t i = 0; i < profile->backends; i++)
        world->backends[i] = backend_create(world, i);
    world_create_proxy(world, 0, world->proxy_node);
    if (io_addr_parse("127.0.0.1", WORLD_PORT, &addr) != 0 ||
        sim_listen(world->proxy_node, &addr, &world->listen_fd) != 0)
        world_fail(world, "can not listen");
    world->listener = (struct io_listener){.accepted = world_accepted, .arg = world};
    io_listener_start(sim_node_io(world->proxy_node), &world->listener, world->listen_fd);
    return world;
}

void world_destroy(struct world **slot)
{
    struct world *world = *slot;

    *slot = NULL;
    if (world == NULL)
        return;
    for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++)
        client_free_all(&world->clients[i]);
    for (int i = 0; i < 2; i++) {
        proxy_destroy(&world->proxies[i]);
        mem_free(world->stats[i]);
    }
    for (uint32_t i = 0; i < WORLD_BACKENDS_MAX; i++)
        backend_destroy(&world->backends[i]);
    io_listener_stop(&world->listener);
    conf_destroy(&world->conf);
    sim_destroy(&world->sim);
    log_destroy(&world->log);
    world_free_strays(world);
    mem_free(world);
}

/* ---- what servers see (S2) ---------------------------------------------------------------------------- */

static bool request_is_forwarded(const struct op *op, const struct bytes *argv, uint32_t argc)
{
    if (argc != op->argc)
        return false;
    for (uint32_t i = 0; i < argc; i++)
        if (!bytes_equal(argv[i], op_arg(op, i)))
            return false;
    return true;
}

static void check_seen(struct world *world, struct op *op, uint32_t client, uint32_t index, uint32_t group)
{
    uint8_t max = op->flags & OP_READ ? 2 : 1;

    if (world->is_wild)
        return; /* raw bytes may hold any token */
    if (++op->seen[group] > max)
        world_fail(world, "op %u of client %u (%s) was executed %u times", index, client, op->name,
                   op->seen[group]);
    if (op->seen[group] > 1)
        world->marks.retries++;
}

static bool check_group(struct world *world, struct op *op, uint32_t client, uint32_t index,
                        const struct bytes *group)
{
    uint32_t found = UINT32_MAX;

    for (uint32_t at = op->head; at + op->step <= op->argc; at += op->step) {
        bool is_equal = true;

        for (uint32_t i = 0; i < op->step; i++)
            is_equal = is_equal && bytes_equal(group[i], op_arg(op, at + i));
        if (is_equal && (found == UINT32_MAX || op->seen[at] < op->seen[found]))
            found = at;
    }
    if (found == UINT32_MAX)
        return false;
    check_seen(world, op, client, index, found);
    return true;
}

static bool request_is_part(struct world *world, struct op *op, uint32_t client, uint32_t index,
                            const struct bytes *argv, uint32_t argc)
{
    if (argc <= op->head || (argc - op->head) % op->step != 0)
        return false;
    for (uint32_t i = 0; i < op->head; i++)
        if (!bytes_equal(argv[i], op_arg(op, i)))
            return false;
    for (uint32_t at = op->head; at < argc; at += op->step)
        if (!check_group(world, op, client, index, &argv[at]))
            return false;
    return true;
}

void world_check_request(struct world *world, const struct bytes *argv, uint32_t argc)
{
    uint32_t client = 0, index = 0;
    struct op *op = NULL;
    bool has_token = false, is_good = false;

    for (uint32_t i = 1; i < MIN(argc, 3u) && !has_token; i++)
        has_token = token_parse(argv[i], &client, &index);
    if (has_token && client < WORLD_CLIENTS_MAX && world->clients[client] != NULL)
        op = client_op(world->clients[client], index);
    if (op != NULL && (op->flags & OP_FORWARD)) {
        is_good = request_is_forwarded(op, argv, argc);
        if (is_good)
            check_seen(world, op, client, index, 0);
    } else if (op != NULL && (op->flags & OP_SPLIT)) {
        is_good = request_is_part(world, op, client, index, argv, argc);
    }
    if (is_good || world->is_wild)
        return;
    world_fail(world, "a server got what nobody sent: %.*s %.*s ... (%u words; %s)", BYTES_ARG(bytes_first(argv[0], 20)),
               BYTES_ARG(argc > 1 ? bytes_first(argv[1], 60) : BYTES_EMPTY), argc,
               op == NULL ? "no such operation" : op->name);
}

/* ---- running --------------------------------------------------------------------------------------------- */

static void plan_client(void *arg)
{
    struct plan *plan = arg;

    plan->world->clients[plan->index] = client_start(plan->world, plan->index);
    plan->world->client_count++;
}

static void plan_death(void *arg)
{
    struct plan *plan = arg;

    backend_die(plan->world->backends[plan->index]);
}

static void plan_revival(void *arg)
{
    struct plan *plan = arg;

    backend_revive(plan->world->backends[plan->index]);
}

static void plan_handover(void *arg)
{
    struct plan *plan = arg;

    world_handover(plan->world);
}

void world_handover(struct world *world)
{
    if (world->active == 1)
        return;
    world_create_proxy(world, 1, world->second_node);
    world->active = 1;
    proxy_drain(world->proxies[0]);
}

static bool world_is_over(struct world *world)
{
    if (world->client_count < world->profile.clients)
        return false;
    for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++)
        if (world->clients[i] != NULL && !client_is_over(world->clients[i]))
            return false;
    return true;
}

static void world_bury_drained(struct world *world)
{
    if (world->drained[0] && world->proxies[0] != NULL)
        proxy_destroy(&world->proxies[0]);
}

static void check_group_gauges(struct world *world, const struct stats_group *group)
{
    const uint64_t *cell = group->cells;

    for (uint32_t i = 0; i < group->metrics_count; cell += group->metrics[i++].cells) {
        const struct stats_metric *metric = &group->metrics[i];

        if (strcmp(metric->name, "server_timedout") == 0)
            world->marks.timeouts += *cell;
        else if (strcmp(metric->name, "tombstones") == 0)
            world->marks.tombstones += *cell;
        else if (strcmp(metric->name, "doubts") == 0)
            world->marks.doubts += *cell;
        if (metric->kind != STATS_GAUGE)
            continue;
        /* Idle connections stay. */
        if (strcmp(metric->name, "server_connections") == 0 ? *cell > 64
                : strcmp(metric->name, "memory_bytes") == 0 ? false
                                                             : *cell != 0)
            world_fail(world, "gauge %s of %.*s %.*s is %lld when all is quiet", metric->name,
                       BYTES_ARG(group->schema), BYTES_ARG(group->b), (long long)*cell);
    }
}

static void world_check_gauges(struct world *world, uint32_t index)
{
    struct stats_cursor cursor;
    struct stats_group group;

    if (proxy_client_count(world->proxies[index]) != 0)
        world_fail(world, "proxy %u still has %u clients", index, proxy_client_count(world->proxies[index]));
    stats_walk(&cursor, world->stats[index], world->stats_plan.size);
    while (stats_next(&cursor, &group))
        check_group_gauges(world, &group);
}

void world_finish(struct world *world)
{
    uint32_t tainted = 0;

    while (!world->has_failed && !world_is_over(world)) {
        sim_run_for(world->sim, WORLD_SLICE_US);
        world_bury_drained(world);
        if (sim_now_us(world->sim) - world->moved_us > WORLD_STILL_MAX_US) {
            struct buffer text = {0};

            for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++)
                if (world->clients[i] != NULL && !client_is_over(world->clients[i]) && text.len == 0)
                    client_describe(world->clients[i], &text);
            world_fail(world, "stuck: %.*s", BYTES_ARG(buffer_bytes(&text)));
            buffer_deinit(&text);
        }
    }
    if (world->has_failed)
        return;
    for (uint32_t i = 0; i < world->profile.backends; i++)
        backend_revive(world->backends[i]);
    sim_run_for(world->sim, WORLD_QUIET_US);
    world_bury_drained(world);
    if (world->active == 1 && world->proxies[0] != NULL)
        world_fail(world, "the drained proxy does not end");
    for (uint32_t i = 0; i < 2; i++)
        if (world->proxies[i] != NULL)
            world_check_gauges(world, i);
    for (uint32_t i = 0; i < world->profile.backends; i++)
        tainted += backend_tainted(world->backends[i]);
    if (tainted != 0)
        world_fail(world, "%u connections that broke the protocol are still in use", tainted);
    proxy_destroy(&world->proxies[0]);
    proxy_destroy(&world->proxies[1]);
    if (sim_fd_count(world->sim, world->proxy_node) != 1 ||
        sim_fd_count(world->sim, world->second_node) != 0)
        world_fail(world, "descriptors are left open: %u and %u",
                   sim_fd_count(world->sim, world->proxy_node) - 1,
                   sim_fd_count(world->sim, world->second_node));
}

void world_run(struct world *world)
{
    struct plan *plans = world->plans;
    uint64_t spread_us = 400000;
    uint32_t count = 0;

    for (uint32_t i = 0; i < world->profile.clients; i++, count++) {
        plans[count] = (struct plan){.world = world, .index = i};
        sim_call_at(world->sim, 1000 + rng_below(&world->rng, spread_us), plan_client, &plans[count]);
    }
    for (uint32_t i = 0; i < MIN(world->profile.deaths, WORLD_DEATHS_MAX); i++, count++) {
        uint64_t at_us = rng_below(&world->rng, spread_us * 3);

        plans[count] = (struct plan){.world = world,
                                     .index = (uint32_t)rng_below(&world->rng, world->profile.backends)};
        sim_call_at(world->sim, at_us, plan_death, &plans[count]);
        sim_call_at(world->sim, at_us + rng_below(&world->rng, 800000), plan_revival, &plans[count]);
    }
    plans[count] = (struct plan){.world = world};
    if (world->profile.has_handover)
        sim_call_at(world->sim, rng_below(&world->rng, spread_us * 3), plan_handover, &plans[count]);
    world_finish(world);
}

uint64_t world_replies_hash(const struct world *world)
{
    uint64_t hash = 1;

    for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++)
        if (world->clients[i] != NULL) {
            uint64_t one = client_hash(world->clients[i]);

            hash = hash_bytes(hash, bytes_of(&one, sizeof(one)));
        }
    return hash;
}
