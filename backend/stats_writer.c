/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/stats_process.h"

#include "common/base/mem.h"

#include <stdio.h>

static const struct stats_metric metrics[] = {
#define STAT(name, kind, value, what) {#name, STATS_##kind, 1},
#include "backend/stats.def"
#undef STAT
};

size_t stats_process_segment_size(void)
{
    return STATS_HEADER_SIZE + stats_schema_size(ARRAY_COUNT(metrics)) +
           stats_group_size(STATS_LABEL_MAX, 0, ARRAY_COUNT(metrics));
}

void stats_writer_init(struct stats_writer *writer, struct worker *worker)
{
    char label[16];
    size_t size;
    void *memory = worker_stats(worker, &size);
    int len = snprintf(label, sizeof(label), "%u", worker_index(worker));

    stats_open(&writer->segment, memory, size, worker_is_respawn(worker));
    stats_zero_gauges(&writer->segment);
    writer->cells = stats_group_add(&writer->segment,
                                    stats_schema_add(&writer->segment, "shard", metrics, ARRAY_COUNT(metrics)),
                                    bytes_of(label, (size_t)len), BYTES_EMPTY);
    writer->base = must_zalloc(sizeof(metrics) / sizeof(metrics[0]) * sizeof(uint64_t));
    stats_writer_rebase(writer);
}

void stats_writer_rebase(struct stats_writer *writer)
{
    for (uint32_t i = 0; writer->cells != NULL && i < ARRAY_COUNT(metrics); i++)
        if (metrics[i].kind == STATS_COUNTER)
            writer->base[i] = writer->cells[i];
}

void stats_writer_write(struct stats_writer *writer, struct node *node)
{
    const struct engine *e = node_engine(node);
    const struct engine_counters *c = &e->counters;
    const struct node_turns *t = node_turns(node);
    struct store_stats s;
    uint32_t i = 0;

    if (writer->cells == NULL)
        return;
    store_stats_get(node_store(node), &s);
#define STAT(name, kind, value, what)                                                              \
    writer->cells[i] = writer->base[i] + (uint64_t)(value);                                        \
    i++;
#include "backend/stats.def"
#undef STAT
}

void stats_writer_deinit(struct stats_writer *writer)
{
    if (writer->base == NULL)
        return;
    stats_close(&writer->segment);
    mem_free(writer->base);
    writer->base = NULL;
}
