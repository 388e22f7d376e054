/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workload.h - the bytes of one kind of request, and what its reply must look like.
 *
 * Every request has one size and every reply has one size, so clients may send any run of requests
 * straight from one array, and the floor can count. A value starts with its own key: a reply that
 * went to the wrong request is seen.
 *
 *     frames   | request 0 | request 1 | ...             keys in an order that a fixed seed shuffled
 *     reply    prefix, item_count x (head [key between] key filler tail), suffix
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

#define KEY_SIZE 16 /* "key:000000001234" */

enum workload_command {
    WORKLOAD_GET,
    WORKLOAD_SET,
    WORKLOAD_MGET,
    WORKLOAD_MC_GET,
    WORKLOAD_MC_SET,
    WORKLOAD_MC_MGET,
};

struct workload {
    enum workload_command command;
    uint32_t key_count, value_size, keys_per_request;

    char *frames; /* owns; frame_count requests, then the first `run_max` ones again */
    uint32_t frame_count, run_max;
    size_t frame_size, key_off, key_stride; /* key i of a request is at key_off + i * key_stride */

    char prefix[16], head[16], between[16], tail[4], suffix[8];
    uint32_t prefix_len, head_len, between_len, tail_len, suffix_len;
    uint32_t item_count, item_size;
    bool has_name;   /* an item names its key before the value (memcache) */
    bool is_ordered; /* items come in the order asked; a memcache proxy may answer as servers do */
    size_t reply_size;
};

/* False: no such command. */
MUST_USE bool workload_command_of(const char *name, enum workload_command *out);

/* The caller has set command, key_count, value_size and keys_per_request. */
void workload_init(struct workload *workload, uint32_t run_max);
void workload_deinit(struct workload *workload);

/* Whether `chunk`, which starts `off` bytes into the reply to request `frame`, is what it must be.
 * It may end anywhere, but not beyond this reply. */
MUST_USE bool workload_check(const struct workload *workload, uint32_t frame, size_t off,
                             struct bytes chunk);
