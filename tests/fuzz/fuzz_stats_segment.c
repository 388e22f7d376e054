/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment of bytes that another process left: readers, merges and a successor stay within it.
 */
#include "common/base/mem.h"
#include "common/stats/segment.h"

#define VIEW_SIZE (32u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct stats_metric metrics[] = {{"requests", STATS_COUNTER, 1}, {"clients", STATS_GAUGE, 1}};
    char *memory = must_alloc(MAX(size, (size_t)STATS_HEADER_SIZE));
    char *view_memory = must_zalloc(VIEW_SIZE);
    struct stats_segment view, successor;
    stats_schema_id pool;

    memset(memory, 0, STATS_HEADER_SIZE);
    memcpy(memory, data, size);
    stats_open(&view, view_memory, VIEW_SIZE, false);
    pool = stats_schema_add(&view, "pool", metrics, ARRAY_COUNT(metrics));
    ASSERT(stats_group_add(&view, pool, BYTES("alpha"), BYTES_EMPTY) != NULL);
    stats_merge(&view, memory, size, STATS_MERGE_GAUGES);
    stats_merge(&view, memory, size, STATS_MERGE_CREATE | STATS_MERGE_EXACT);
    ASSERT(stats_used(&view) <= VIEW_SIZE);
    stats_open(&successor, memory, MAX(size, (size_t)STATS_HEADER_SIZE), true);
    stats_zero_gauges(&successor);
    pool = stats_schema_add(&successor, "pool", metrics, ARRAY_COUNT(metrics));
    if (pool != 0)
        MAYBE(stats_group_add(&successor, pool, BYTES("beta"), BYTES("x")) == NULL);
    stats_close(&successor);
    stats_close(&view);
    mem_free(view_memory);
    mem_free(memory);
    return 0;
}
