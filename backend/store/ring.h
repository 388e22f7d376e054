/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - the log ring's format (log_ring.c says how it is used), and what a dead process has left in one: for a recovery
 * and for whoever looks at one from outside.
 *
 *     0 u64 magic  8 u32 version  12 u32 shard  16 boot of the host  32 uuid of the shard  48 u64 size of the file
 *     56 u64 appended  64 u64 doubt  72 u64 lost  80 u64 XXH3 of bytes 0..55, written last
 *     4096 the table, and behind it the pages
 *
 * Begun if and only if the hash is there. A ring with neither hash nor appended, and nothing in its table, is one whose
 * making was interrupted: nothing was answered yet. Version 1 has no hash; such a ring is read, and stays as it is until
 * its process stops cleanly.
 */
#pragma once
#include "backend/store/frame.h"

#define RING_PAGES_MAX ((1u << 30) / PAGE_SIZE_)

struct ring_header {
    uint64_t magic;
    uint32_t version, shard;
    unsigned char boot[16], uuid[16];
    uint64_t size, appended;
    uint64_t doubt; /* 1: a flush has failed */
    uint64_t lost;  /* 1: it was made in the place of one that was lost */
    uint64_t check;
};

struct ring_entry {
    uint64_t sequence;
    uint32_t block, sealed; /* bytes; 0: nothing */
};

struct ring_frame {
    struct frame frame;
    const char *data; /* borrows: in the ring */
};

/* Of a ring that takes that much memory; 0: none does. */
uint32_t ring_page_count(size_t size);
size_t ring_table_size(uint32_t page_count);
size_t ring_size(uint32_t page_count);
/* For a ring with nothing in its table. */
void ring_header_make(struct ring_header *header, uint32_t shard, size_t size, const unsigned char boot[16],
                      const unsigned char uuid[16], bool is_lost);
enum ring_kind {
    RING_KIND_OURS,    /* of that shard, of this boot of the host, and as large as it says */
    RING_KIND_OTHER,   /* of another boot; or it was never begun */
    RING_KIND_DAMAGED, /* something of what it says is not true */
};
/* What the ring at `base` is that has the name of this shard's. */
enum ring_kind ring_kind_of(const char *base, uint32_t page_count, uint32_t shard, const unsigned char boot[16],
                            const unsigned char uuid[16]);
/* All sealed frames that verify, in the order of their LSNs: the caller's, from mem_alloc(). `bad_off`: where the first one
 * lies that does not; 0: none does not. */
struct ring_frame *ring_frames(const char *base, uint32_t page_count, uint32_t *count, uint64_t *bad_off);
/* Keeps those that continue a log which ends with these chains (behind its last whole unit; behind its last frame), up to
 * the last whole unit: what the ring has and the log has not. Returns how many. */
uint32_t ring_frames_choose(struct ring_frame *frames, uint32_t count, uint64_t chain, uint64_t pending_chain);
