/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/counters.h"

const struct counter_info pool_counter_infos[POOL_COUNTER_COUNT] = {
#define POOL_COUNTER(id, counter_kind, counter_text)                                               \
    [POOL_COUNT_##id] = {.name = #id, .text = counter_text, .kind = COUNTER_##counter_kind},
#define SERVER_COUNTER(id, kind, text)
#include "proxy/counters.def"
#undef POOL_COUNTER
#undef SERVER_COUNTER
};

const struct counter_info server_counter_infos[SERVER_COUNTER_COUNT] = {
#define POOL_COUNTER(id, kind, text)
#define SERVER_COUNTER(id, counter_kind, counter_text)                                             \
    [SERVER_COUNT_##id] = {.name = #id, .text = counter_text, .kind = COUNTER_##counter_kind},
#include "proxy/counters.def"
#undef POOL_COUNTER
#undef SERVER_COUNTER
};
