/* SPDX-License-Identifier: Apache-2.0 */
/*
 * residency.h - which values stay in memory: S3-FIFO (Yang et al., SOSP '23) without a pointer an entry.
 *
 *     new value ---> small: a FIFO of key hashes, a tenth of the hot bytes
 *         |            |  used again and again there        |  not
 *         |            v                                     v
 *         '------> main: all with ENTRY_MAIN <---.         spilled; its fingerprint goes to `ghost`
 *       its hash is    |  a clock hand over the  |
 *       in `ghost`     v  index: used since?  ---'  no: spilled
 *
 * A value that is used once, as by a walk over all keys, only passes through small; main keeps what is used
 * again. The store counts uses in the entry (store_touch()) and asks for victims when memory is short. What
 * spilling is (going cold, or in a cache namespace going away) is the store's affair.
 *
 *   R1  A hot value has ENTRY_MAIN, or its hash is in small. The store sets ENTRY_MAIN of a value that becomes
 *       hot to what residency_inserted() said, and keeps it (and the access count) when it changes.
 *   R2  Hashes in small may be of keys that are gone, cold or in main: they are dropped when they come out.
 *   R3  While less than half of the memory is used nothing is remembered: all is main.
 *   R4  small holds at most a tenth of memory_max in (charged) bytes and one value more, or where memory is full, what
 *       came since it was last asked for; ghost at most GHOST_MAX fingerprints and about as many as there are hot values;
 *       one call looks at no more entries than its budget says, but for the rest of a bucket.
 *
 * Why the hand goes by bucket and not in order of arrival: a queue would cost 8 to 16 bytes a key. As places in
 * the index are random, a value new in main would meet the hand after half a round in the mean, instead of
 * a whole one; so it starts with one use to its credit.
 */
#pragma once
#include "backend/store/index.h"

struct residency;

/* Borrows `index` for its life. */
MUST_USE int residency_create(struct index *index, struct residency **out);
void residency_destroy(struct residency **residency);

/* What the memory is like now: for every turn, it costs nothing. memory_max 0: no bound. */
void residency_pressure_set(struct residency *residency, uint64_t memory_bytes, uint64_t memory_max,
                            uint64_t hot_count);
/* Whether the hand offers cold entries too: those of a cache may go away. */
void residency_offer_cold(struct residency *residency, bool on);
/* A value becomes hot (set, or fetched) and is charged `size` bytes. Whether it gets ENTRY_MAIN; it has used
 * up its fingerprint then. */
MUST_USE bool residency_inserted(struct residency *residency, uint64_t hash, size_t size);

/* Bytes given back; 0: it may not go now (its record is not written, an object's chain is not empty). May replace
 * or remove this entry, nothing else. */
typedef uint64_t (*residency_spill_fn)(void *arg, struct entry *entry);
/* Chooses and spills until `need` bytes are free or `budget` entries were looked at. Returns the bytes freed. */
uint64_t residency_spill(struct residency *residency, uint64_t need, uint32_t budget,
                         residency_spill_fn spill, void *arg);

struct residency_stats {
    uint64_t small_count, small_bytes; /* with those of R2 */
    uint64_t ghost_count_max;
    uint64_t promoted, ghost_hits, spilled_small, spilled_main, refused;
    uint64_t memory_bytes; /* of queue and ghost */
};
void residency_stats_get(const struct residency *residency, struct residency_stats *out);
