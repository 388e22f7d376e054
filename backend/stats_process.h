/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats_process.h - a shard's numbers: written by its worker into its segment, served by the stats process.
 *
 *   100 ms without a byte: JSON and close; GET or HEAD: /stats (JSON), /metrics (Prometheus), /healthz
 */
#pragma once
#include "backend/node.h"
#include "common/stats/segment.h"
#include "nginx-style-master/worker.h"

struct stats_writer {
    struct stats_segment segment;
    uint64_t *cells; /* borrows the segment's; NULL: no room */
    uint64_t *base;  /* owns: what a predecessor had counted */
};

size_t stats_process_segment_size(void);
void stats_writer_init(struct stats_writer *writer, struct worker *worker);
/* The node counts from zero again. */
void stats_writer_rebase(struct stats_writer *writer);
void stats_writer_write(struct stats_writer *writer, struct node *node);
void stats_writer_deinit(struct stats_writer *writer); /* also when all zero */

int stats_process_main(struct worker *worker);
