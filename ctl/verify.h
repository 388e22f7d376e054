/* SPDX-License-Identifier: Apache-2.0 */
/* verify.h - whether a shard's directory holds what it says; see verify.c. */
#pragma once
#include "ctl/progress.h"
#include "ctl/shard.h"

struct verify_summary {
    uint64_t segments, free_segments, abandoned, pages, frames, records, record_bytes;
    uint64_t keys;             /* of the newest checkpoint; 0 also: there is none */
    uint64_t gone;             /* of these: their record's segment was given back since, and the log knows of them */
    uint64_t generation;       /* of that; 0: none */
    uint64_t lsn, lsn_durable; /* last one of the hot log; last one that is known to have been durable */
    uint64_t wall_first_ms, wall_last_ms;
    uint64_t torn;             /* tails that a power cut left: no damage */
    char ring_path[96];        /* of the log ring that a killed node has left on this host; "": there is none */
    bool has_ring;             /* ... and a start uses it */
    uint64_t ring_records, ring_lsn; /* changes that only it has, and the last one's; 0: none */
};

/* Walks everything. Damage is told to the shard's report. 0 or -errno: it could not be looked at. */
MUST_USE int verify_shard(struct shard *shard, struct progress *progress, struct verify_summary *out);

enum verify_exit { VERIFY_CLEAN, VERIFY_DAMAGED, VERIFY_UNREADABLE };

/* One shard's directory; findings and a summary go to `out`. */
int verify_directory(const char *dir, FILE *out);
