/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one worker says of a client that it hands over to another, which may be of another version.
 *
 * What decodes must encode to the same bytes. Then a proxy takes such a client over, with its own and
 * two more descriptors: it may close them or serve them, and nothing may be left.
 *
 *     byte 0   1: the pool speaks Redis; 2: fewer descriptors
 *     then     the blob
 */
#include "proxy/handover.h"
#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return setenv("FUZZ_MUTATIONS", "150", 0);
}

static void try_codec(struct bytes blob)
{
    struct handover handover = {0};
    struct buffer again = {0};

    if (handover_blob_decode(blob, &handover) != 0)
        return;
    ASSERT(handover.session.len + handover.input.len + HANDOVER_HEADER_SIZE == blob.len);
    if (handover_blob_encode(&handover, &again) == 0)
        ASSERT(bytes_equal(buffer_bytes(&again), blob));
    buffer_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world_profile profile = {.is_faulty = true, .is_driven = true, .is_redis = size > 0 && data[0] & 1,
                                    .backends = 2, .timeout_ms = 50};
    struct bytes blob = bytes_of(data + (size > 0), size - (size > 0));
    uint32_t count = size > 0 && data[0] & 2 ? 1 : 3;
    struct world *world;
    int fds[3], ends[2];

    try_codec(blob);
    world = world_create(1, &profile);
    world->is_wild = true;
    for (uint32_t i = 0; i < 3; i++) {
        if (sim_socketpair(world->proxy_node, world->client_node, ends) != 0)
            abort();
        fds[i] = ends[0];
        if (i >= count)
            sim_fd_close(world->sim, ends[0]);
    }
    proxy_take_over(world->proxies[0], 0, fds, count, blob);
    sim_run_for(world->sim, 300000);
    world_destroy(&world);
    return 0;
}
