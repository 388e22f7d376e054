/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health.h - what all workers know of a server: in memory they share, so that a dead node costs one
 * detection, not one for each worker.
 *
 *   H1  Cells are written with atomic stores and read with atomic loads; no locks.
 *   H2  `version` of the area is raised after any change that moves keys; a worker that sees another
 *       version than it built its rings for builds them again.
 *   H3  Times are the machine's monotonic clock, the same in every process.
 */
#pragma once
#include "common/base/base.h"

struct health_slot {
    uint32_t failure_count;    /* consecutive; reset by any success */
    uint32_t is_ejected;
    uint64_t retry_at_ms;      /* ejected: when one worker may probe */
    uint64_t probe_owner;      /* worker that probes now, until its stamp is old; 0: nobody */
    uint64_t ejected_wall_us;  /* for the stats */
};

struct health_area {
    uint64_t version;
    uint64_t clients_wanted_ms; /* when somebody last asked for the clients: stats_layout.h */
    uint32_t slot_count;
    struct health_slot slots[];
};

static inline size_t health_area_size(uint32_t slot_count)
{
    return sizeof(struct health_area) + slot_count * sizeof(struct health_slot);
}
