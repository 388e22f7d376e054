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
    uint32_t slot_count, pool_count, worker_count;
    struct health_slot slots[];
    /* then uint32_t clients[worker_count][pool_count]: who is connected where, each row written by its
     * worker: limits count over all of them */
};

static inline size_t health_area_size(uint32_t slot_count, uint32_t pool_count, uint32_t worker_count)
{
    return sizeof(struct health_area) + slot_count * sizeof(struct health_slot) +
           (size_t)pool_count * worker_count * sizeof(uint32_t);
}

static inline uint32_t *health_clients(struct health_area *area, uint32_t worker, uint32_t pool)
{
    return (uint32_t *)(void *)&area->slots[area->slot_count] + (size_t)worker * area->pool_count + pool;
}

/* Of one pool, over all workers. */
static inline uint32_t health_clients_of(struct health_area *area, uint32_t pool)
{
    uint32_t sum = 0;

    for (uint32_t worker = 0; worker < area->worker_count; worker++)
        sum += __atomic_load_n(health_clients(area, worker, pool), __ATOMIC_RELAXED);
    return sum;
}
