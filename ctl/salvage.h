/* SPDX-License-Identifier: Apache-2.0 */
/*
 * salvage.h - what the parts of weirctl salvage share.
 *
 *     salvage_read.c    every record that can be read ──> items, 56 bytes each
 *     salvage_choose.c  which of them a key is made of now
 *     salvage_write.c   those, in the order of their LSNs ──> a fresh directory
 *     salvage.c         the command; what was lost
 */
#pragma once
#include "ctl/progress.h"
#include "ctl/shard.h"
#include "ctl/tree.h"

#define SALVAGE_RANGES_MAX 64u

struct salvage_item {
    uint64_t hash, lsn;
    uint64_t base;     /* DELTA, IMAGE: of the incarnation; when it is chosen, as it is written */
    uint32_t segment;  /* of shard->segments */
    uint32_t at;       /* offset / 16 */
    uint32_t size, epoch;
    uint8_t type, db;
    bool is_cold, is_chosen;
    bool is_tail;      /* behind the last page write that verifies, in a segment without a footer */
};

/* What the checkpoint knows of a key. */
struct salvage_known {
    uint64_t hash, lsn, image_lsn, base_lsn;
    uint8_t db;
    bool has_chain, is_lost;
};

struct salvage_range {
    uint64_t first, last;
};

struct salvage {
    struct shard *shard;
    struct progress *progress;
    FILE *out;
    struct salvage_item *items;   /* owns */
    size_t count, cap;
    bool is_out_of_memory;
    /* The newest checkpoint that can be read. */
    bool has_checkpoint;
    struct shard_checkpoint checkpoint;
    struct salvage_known *known;  /* owns; by hash */
    size_t known_count, known_cap;
    uint64_t flush_lsn[STORE_DBS];
    uint64_t swap_lsn;
    uint8_t places[STORE_DBS];
    uint64_t lsn_max;
    uint64_t hot_lsn, durable_lsn; /* the hot log's last one; what any file knows to have been durable */
    uint32_t epoch_max;
    uint64_t *epoch_ends;         /* owns; by epoch: last LSN of it in the hot log, up to epoch_cap */
    uint32_t epoch_cap;
    bool is_log_whole;            /* the hot log begins where it must */
    /* LSNs that the hot log lacks. */
    struct salvage_range ranges[SALVAGE_RANGES_MAX];
    uint32_t range_count;         /* also of those that are not kept */
    uint64_t lost_bytes, lost_places;
    uint64_t keys, records, keys_lost, keys_cut, tails;
    uint64_t ring_records, ring_lsn; /* left out: only the log ring of a killed node has them; 0: none */
    char ring_path[96];
    bool is_ring_lost;            /* the node was killed, and there is none */
};

/* 0 or an error: a file could not be read at all, no memory. Damage is told, and goes on. */
MUST_USE int salvage_read(struct salvage *salvage);
void salvage_choose(struct salvage *salvage);
/* Into the folder `to` of the tree: the shard's file and segments. Told. */
MUST_USE int salvage_write(struct salvage *salvage, struct tree *tree, int to, uint32_t shard_count);
/* An empty shard. */
MUST_USE int salvage_write_empty(struct tree *tree, int to, int like, uint32_t shard, uint32_t shard_count);
struct salvage_known *salvage_known_find(struct salvage *salvage, uint64_t hash);
