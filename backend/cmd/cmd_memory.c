/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/help.h"
#include "backend/cmd/settings.h"
#include "common/base/mem.h"

#include <stdio.h>

/* What a key takes in memory: its entry, its place in the index, its object. A cold one has no value there. */
static uint64_t key_bytes(const struct store_key *key)
{
    uint64_t bytes = entry_size(key->entry) + sizeof(uint64_t);

    if (entry_is_object(key->entry))
        bytes += entry_object(key->entry)->accounted_bytes;
    return bytes;
}

void cmd_memory_usage(struct cmd *c)
{
    struct store_key key;
    int64_t samples;

    for (uint32_t i = 3; i < c->argc; i += 2) {
        if (!arg_is(c, i, "samples") || i + 1 >= c->argc) {
            reply_error(c, ERROR_SYNTAX);
            return;
        }
        if (!arg_i64(c, i + 1, &samples))
            return;
        if (samples < 0) {
            reply_error(c, ERROR_SYNTAX);
            return;
        }
    }
    if (!key_read(c, c->argv[2], STORE_NONE, &key))
        return;
    if (key.entry == NULL)
        reply_null(c);
    else
        reply_integer(c, (int64_t)key_bytes(&key));
}

static void pair(struct cmd *c, uint64_t *count, const char *name, uint64_t value)
{
    reply_bulk_string(c, name);
    reply_integer(c, (int64_t)value);
    (*count)++;
}

static void pair_ratio(struct cmd *c, uint64_t *count, const char *name, uint64_t part, uint64_t whole)
{
    reply_bulk_string(c, name);
    reply_double(c, whole == 0 ? 0 : (double)part / (double)whole);
    (*count)++;
}

static void databases(struct cmd *c, uint64_t *count)
{
    for (uint8_t db = 0; db < STORE_DBS; db++) {
        uint64_t keys = store_count(c->store, db);
        char name[8];

        if (keys == 0)
            continue;
        snprintf(name, sizeof(name), "db.%u", db);
        reply_bulk_string(c, name);
        reply_map(c, 3);
        reply_bulk_string(c, "overhead.hashtable.main");
        reply_integer(c, (int64_t)(keys * sizeof(uint64_t)));
        reply_bulk_string(c, "overhead.hashtable.expires");
        reply_integer(c, 0);
        reply_bulk_string(c, "overhead.hashtable.slot-to-keys");
        reply_integer(c, 0);
        (*count)++;
    }
}

void cmd_memory_stats(struct cmd *c)
{
    struct engine *engine = c->engine;
    uint64_t buffers = engine_clients_bytes(engine), dataset, count = 0;
    struct store_stats store;
    struct mem_usage heap;

    store_stats_get(c->store, &store);
    mem_usage_get(&heap);
    engine->memory_peak = MAX(engine->memory_peak, store.memory_bytes);
    dataset = store.entry_bytes + store.object_bytes;
    reply_count_later(c);
    pair(c, &count, "peak.allocated", engine->memory_peak);
    pair(c, &count, "total.allocated", store.memory_bytes);
    pair(c, &count, "startup.allocated", 0);
    pair(c, &count, "replication.backlog", 0);
    pair(c, &count, "clients.slaves", 0);
    pair(c, &count, "clients.normal", buffers);
    pair(c, &count, "cluster.links", 0);
    pair(c, &count, "aof.buffer", 0);
    pair(c, &count, "lua.caches", 0);
    pair(c, &count, "functions.caches", 0);
    databases(c, &count);
    pair(c, &count, "overhead.total", store.index_bytes + buffers);
    pair(c, &count, "keys.count", store.keys);
    pair(c, &count, "keys.bytes-per-key", store.keys == 0 ? 0 : store.memory_bytes / store.keys);
    pair(c, &count, "dataset.bytes", dataset);
    pair_ratio(c, &count, "dataset.percentage", dataset * 100, store.memory_bytes);
    pair_ratio(c, &count, "peak.percentage", store.memory_bytes * 100, engine->memory_peak);
    pair(c, &count, "allocator.allocated", heap.allocated);
    pair(c, &count, "allocator.active", heap.active);
    pair(c, &count, "allocator.resident", heap.resident);
    pair_ratio(c, &count, "allocator-fragmentation.ratio", heap.active, heap.allocated);
    pair(c, &count, "allocator-fragmentation.bytes", heap.active - heap.allocated);
    pair_ratio(c, &count, "allocator-rss.ratio", heap.resident, heap.active);
    pair(c, &count, "allocator-rss.bytes", heap.resident - heap.active);
    pair_ratio(c, &count, "fragmentation", heap.resident, store.memory_bytes);
    pair(c, &count, "fragmentation.bytes",
         heap.resident > store.memory_bytes ? heap.resident - store.memory_bytes : 0);
    reply_count_map(c, count);
}

#define SMALL_BYTES (5u << 20)

void cmd_memory_doctor(struct cmd *c)
{
    struct engine *engine = c->engine;
    struct store_stats store;
    struct buffer out = {0};

    store_stats_get(c->store, &store);
    if (store.memory_bytes < SMALL_BYTES) {
        buffer_append_string(&out, "Hi Sam, this instance is empty or is using very little memory, my issues "
                                   "detector can't be used in these conditions. Please, leave for your mission "
                                   "on Earth and fill it with some data. The new Sam and I will be back to our "
                                   "programming as soon as I finished rebooting.\n");
    } else if (engine->settings->memory_max != 0 &&
               store.memory_bytes > engine->settings->memory_max / 10 * 9 && store.fetches > 0) {
        buffer_append_string(&out, "Sam, I detected a few issues in this Redis instance memory implants:\n\n"
                                   " * Memory is full: values that are not used go to disk and are read from there "
                                   "when they are asked for. If INFO store's fetches rise quickly, more maxmemory "
                                   "would help.\n\nI'm here to keep you safe, Sam. I want to help you.\n");
    } else {
        buffer_append_string(&out, "Hi Sam, I can't find any memory issue in your instance. I can only account for "
                                   "what occurs on this base.\n");
    }
    reply_verbatim(c, "txt", buffer_bytes(&out));
    buffer_deinit(&out);
}

void cmd_memory_malloc_stats(struct cmd *c)
{
    struct mem_usage heap;
    struct buffer out = {0};

    mem_usage_get(&heap);
    buffer_append_format(&out, "Allocated: %llu, active: %llu, resident: %llu\n", (unsigned long long)heap.allocated,
                         (unsigned long long)heap.active, (unsigned long long)heap.resident);
    reply_verbatim(c, "txt", buffer_bytes(&out));
    buffer_deinit(&out);
}

void cmd_memory_purge(struct cmd *c)
{
    chunk_pools_trim(&c->engine->chunks);
    mem_trim();
    reply_ok(c);
}

void cmd_memory_help(struct cmd *c)
{
    static const char *const lines[] = {
        "DOCTOR",
        "    Return memory problems reports.",
        "MALLOC-STATS",
        "    Return internal statistics report from the memory allocator.",
        "PURGE",
        "    Attempt to purge dirty pages for reclamation by the allocator.",
        "STATS",
        "    Return information about the memory usage of the server.",
        "USAGE <key> [SAMPLES <count>]",
        "    Return memory in bytes used by <key> and its value. Nested values are",
        "    sampled up to <count> times (default: 5, 0 means sample all).",
    };

    reply_help(c, "MEMORY", lines, ARRAY_COUNT(lines));
}
