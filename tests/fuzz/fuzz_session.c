/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole proxy core in the simulated world of tests/sim, driven by the input: what clients send and when,
 * raw bytes of clients and servers, lost connections, dead servers, time, a hand-over to a second worker.
 *
 *     byte 0    redis, RESP3, binary, fragments, auto_eject, tiny buffers
 *     byte 1    servers, connections to each
 *     byte 2    the seed of the scripts
 *     then      one byte what, one byte who, and what it takes
 *
 * Clients that sent raw bytes are on their own; all others must get exactly their replies, or errors,
 * and servers must never be sent a malformed byte. See tests/sim/world.h for what is held against what.
 */
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define ACTIONS_MAX 400
#define RAW_MAX     400u
#define CLIENTS_MAX 8u

enum action {
    ACTION_STEP, ACTION_STEP_2, ACTION_STEP_ALL, ACTION_RAW, ACTION_INJECT, ACTION_WAIT_SHORT,
    ACTION_WAIT_LONG, ACTION_ABORT, ACTION_FINISH, ACTION_DIE, ACTION_REVIVE, ACTION_HANDOVER,
    ACTION_FAULTS, ACTION_CONNECT, ACTION_COUNT,
};

/* A whole world for each input: fewer mutations in `make check` than small parsers get. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return setenv("FUZZ_MUTATIONS", "40", 0);
}

struct input {
    const uint8_t *data;
    size_t len;
};

static uint8_t take(struct input *input)
{
    if (input->len == 0)
        return 0;
    input->len--;
    return *input->data++;
}

static struct bytes take_raw(struct input *input)
{
    size_t len = MIN((size_t)take(input) * 2, MIN(input->len, (size_t)RAW_MAX));
    struct bytes raw = bytes_of(input->data, len);

    input->data += len;
    input->len -= len;
    return raw;
}

static void connect_one(struct world *world)
{
    if (world->client_count >= CLIENTS_MAX)
        return;
    world->clients[world->client_count] = client_start(world, world->client_count);
    world->client_count++;
}

static void set_faults(struct world_profile *profile, uint8_t what)
{
    profile->hang = what & 1 ? 300 : 0;
    profile->late = what & 2 ? 300 : 0;
    profile->reset = what & 4 ? 100 : 0;
    profile->close = what & 8 ? 100 : 0;
    profile->duplicate = what & 16 ? 100 : 0;
    profile->extra = what & 32 ? 100 : 0;
    profile->wrong_key = what & 64 ? 200 : 0;
    profile->split = what & 128 ? 700 : 0;
}

static void act(struct world *world, struct input *input)
{
    uint8_t what = take(input), who = take(input);
    struct sim_client *client = world->clients[who % world->client_count];
    struct backend *backend = world->backends[who % world->profile.backends];

    switch ((enum action)(what % ACTION_COUNT)) {
    case ACTION_STEP_2:
        client_step(client);
        client_step(client);
        break;
    case ACTION_STEP:
        client_step(client);
        break;
    case ACTION_STEP_ALL:
        for (uint32_t i = 0; i < world->client_count; i++)
            client_step(world->clients[i]);
        break;
    case ACTION_RAW:
        client_send_raw(client, take_raw(input));
        break;
    case ACTION_INJECT:
        backend_inject(backend, take_raw(input));
        break;
    case ACTION_WAIT_SHORT:
        sim_run_for(world->sim, who * 20u);
        break;
    case ACTION_WAIT_LONG:
        sim_run_for(world->sim, who * 3000u);
        break;
    case ACTION_ABORT:
        client_abort_now(client);
        break;
    case ACTION_FINISH:
        client_finish_script(client, what >= 128);
        break;
    case ACTION_DIE:
        backend_die(backend);
        break;
    case ACTION_REVIVE:
        backend_revive(backend);
        break;
    case ACTION_HANDOVER:
        world_handover(world);
        break;
    case ACTION_FAULTS:
        set_faults(&world->profile, who);
        break;
    case ACTION_CONNECT:
        connect_one(world);
        break;
    case ACTION_COUNT:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    uint8_t flags = take(&input), counts = take(&input), seed = take(&input);
    struct world_profile profile = {
        .is_faulty = true,
        .is_hostile = true,
        .is_traced = getenv("FUZZ_TRACE") != NULL,
        .is_driven = true,
        .is_redis = flags & 1,
        .has_resp3 = (flags & 2) != 0,
        .has_binary = (flags & 4) != 0,
        .has_malformed = true,
        .auto_eject = (flags & 8) != 0,
        .segment_max = flags & 16 ? 1 + (flags >> 5) * 3u : 0,
        .buffer_size = flags & 64 ? 600 : 0,
        .backends = 1 + counts % 4u,
        .server_connections = 1 + counts / 4u % 3,
        .depth = 8,
        .timeout_ms = 100,
        .value_size_max = 3000,
    };
    struct world *world = world_create(seed, &profile);

    connect_one(world);
    connect_one(world);
    for (int i = 0; i < ACTIONS_MAX && input.len > 0 && !world->has_failed; i++)
        act(world, &input);
    set_faults(&world->profile, 0);
    for (uint32_t i = 0; i < world->client_count; i++)
        client_finish_script(world->clients[i], i % 2 == 0);
    world->profile.clients = world->client_count;
    for (uint32_t i = 0; i < world->profile.backends; i++)
        backend_revive(world->backends[i]);
    world_finish(world);
    if (world->has_failed) {
        fprintf(stderr, "%s\n", world->why);
        abort();
    }
    world_destroy(&world);
    return 0;
}
