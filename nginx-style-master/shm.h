/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shm.h - what the processes share: the table of slots, the counters segments, areas of a generation.
 *
 *     table (memfd)   | head | slot 0 | slot 1 | ...          who is where; heartbeat, load
 *     stats (memfd)   | head | base A | base B | segment 0 | segment 1 | ...     sparse
 *
 * Both outlive every single process and are inherited by an upgraded binary and by a new master that
 * takes over orphans, so several masters may share them: a slot is claimed by compare-and-swap.
 *
 *   I1  Each word has one writer: the claiming master (pid, generation, index), the worker (heartbeat,
 *       load, its segment). `state` moves by the edges in shm.c only.
 *   I2  A slot's segment is all zeroes when the slot is claimed, and is kept over respawns.
 *   I3  `pending` alone has several writers (whoever passes a connection adds, the taker subtracts):
 *       a hint, atomic, never trusted to be exact.
 */
#pragma once
#include "common/base/base.h"
#include "nginx-style-master/worker.h"

#include <stdatomic.h>

#define SHM_SLOTS_MAX   512u
#define SHM_SLOTS_MIN   32u
#define SHM_MASTERS_MAX 4u
#define SHM_LAYOUT_SIZE 64u

struct shm_slot {
    _Atomic uint32_t state; /* enum worker_state */
    _Atomic int32_t pid, master_pid;
    uint32_t generation, index;
    uint32_t respawns;
    uint64_t serial; /* of the claim; never repeats */
    uint64_t started_s;
    uint64_t pid_start; /* of pid, as the kernel counts; 0: unknown */
    uint64_t stats_id;  /* of the struct shm_stats that holds its segment */
    uint64_t stats_size;
    _Atomic uint64_t heartbeat_ms; /* CLOCK_MONOTONIC; 0: not beating yet */
    _Atomic uint32_t load, pending;
    uint8_t pad_[128 - 80];
};
_Static_assert(sizeof(struct shm_slot) == 128, "two cache lines a slot");

/* One for each living master. */
struct shm_master {
    _Atomic int32_t pid; /* 0: free */
    _Atomic int32_t log_level;
    uint64_t pid_start;
    uint64_t started_s, reloaded_s;
    _Atomic uint64_t reloads, reloads_failed, upgrades, upgrades_failed, respawns, crashes;
    _Atomic uint32_t generation, workers;
    _Atomic uint32_t mutex_holder; /* slot + 1; 0: free */
    uint32_t pad_;
    _Atomic uint64_t stats_heartbeat_ms; /* of the stats process, which has no slot */
};

struct shm_table {
    uint64_t magic;
    uint32_t version, size;
    uint32_t slots_count;
    uint32_t owner_uid; /* of the first master: who may ask an orphan to hand everything over */
    _Atomic uint32_t generation_last;
    _Atomic uint64_t serial_last;
    struct shm_master masters[SHM_MASTERS_MAX];
    struct shm_slot slots[];
};

struct shm_stats_head {
    uint64_t magic;
    char layout[SHM_LAYOUT_SIZE];
    uint64_t id;
    uint64_t segment_size; /* room, page-rounded */
    uint32_t slots_count;
    _Atomic int32_t folder_pid;   /* who is folding; 0: nobody */
    _Atomic uint64_t base_word;   /* serial of the last folded slot << 1 | which base is valid */
};

struct shm {
    int table_fd, stats_fd; /* owns */
    struct shm_table *table;
    size_t table_size;
    struct shm_stats_head *stats;
    size_t stats_size;
};

MUST_USE int shm_create(struct shm *shm, uint32_t slots_count, const char *layout,
                        size_t segment_size);
/* Takes the descriptors over on success. ERR_INVALID: not a table of this version. A stats area of
 * another layout or size is replaced by a new one (stats_fd is closed then); -1: none was inherited. */
MUST_USE int shm_adopt(struct shm *shm, int table_fd, int stats_fd, const char *layout,
                       size_t segment_size);
void shm_close(struct shm *shm);

/* An anonymous shared area; NULL size: NULL. */
MUST_USE void *shm_area_map(size_t size);
void shm_area_unmap(void *area, size_t size);

/* WORKER_SLOT_NONE: all taken. */
uint32_t shm_slot_claim(struct shm *shm, pid_t master_pid, uint32_t generation, uint32_t index,
                        size_t stats_size);
void shm_slot_move(struct shm *shm, uint32_t slot, enum worker_state next);
/* A slot of a dead master's may be moved by any other. */
bool shm_slot_try_move(struct shm *shm, uint32_t slot, enum worker_state from,
                       enum worker_state next);
void *shm_segment(const struct shm *shm, uint32_t slot); /* NULL: of another layout */
uint32_t shm_generation_next(struct shm *shm);

/* NULL when too many masters live already. */
struct shm_master *shm_master_register(struct shm *shm);
/* Another living master that shares the table; 0: none. */
pid_t shm_master_other(const struct shm *shm);

const void *shm_base(const struct shm *shm);
bool shm_fold(struct shm *shm, uint32_t slot,
              void (*fold)(void *, void *, size_t, const void *, size_t), void *arg);

/* 0: no such process, or it is a zombie. */
uint64_t shm_pid_start(pid_t pid);
/* False only when it is certain that the process is gone. */
bool shm_pid_is_alive(pid_t pid, uint64_t pid_start);
uint64_t shm_now_ms(void); /* CLOCK_MONOTONIC */
