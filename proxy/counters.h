/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counters.h - what the proxy counts: plain 64-bit cells with a single writer, in memory that the stats
 * process may read while they change.
 */
#pragma once
#include "common/base/base.h"

enum counter_kind { COUNTER_COUNTER, COUNTER_GAUGE, COUNTER_STAMP };

enum pool_counter {
#define POOL_COUNTER(id, kind, text) POOL_COUNT_##id,
#define SERVER_COUNTER(id, kind, text)
#include "proxy/counters.def"
#undef POOL_COUNTER
#undef SERVER_COUNTER
    POOL_COUNTER_COUNT
};

enum server_counter {
#define POOL_COUNTER(id, kind, text)
#define SERVER_COUNTER(id, kind, text) SERVER_COUNT_##id,
#include "proxy/counters.def"
#undef POOL_COUNTER
#undef SERVER_COUNTER
    SERVER_COUNTER_COUNT
};

struct counter_info {
    const char *name, *text;
    uint8_t kind;
};
extern const struct counter_info pool_counter_infos[POOL_COUNTER_COUNT];
extern const struct counter_info server_counter_infos[SERVER_COUNTER_COUNT];

#define POOL_ADD(pool, id, n)     ((pool)->counters[POOL_COUNT_##id] += (uint64_t)(n))
#define SERVER_ADD(server, id, n) ((server)->counters[SERVER_COUNT_##id] += (uint64_t)(n))
#define SERVER_SET(server, id, n) ((server)->counters[SERVER_COUNT_##id] = (uint64_t)(n))
