/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.h - from a key to its entry: linear hashing over 64-byte buckets.
 *
 *     bucket = tag u8 x 9 | overflow u8 | entry pointer 6 bytes x 9             one cache line
 *     node   = tag u8 x 4 | linked u8 | spare 3 | entry pointer 6 bytes x 4     32 bytes
 *
 *     level L, split s: 2^L + s buckets.  b = hash & (2^(L+1)-1); if b is not there yet: hash & (2^L-1)
 *
 * It grows by one bucket at a time, so no insert is slow, and stays about 80 % full at any size: at most
 * 10.5 bytes a key. Buckets lie in blocks named by a directory, so growth copies nothing. A full bucket
 * chains to nodes: its ninth place, and the fourth of a node, is then the link. Tags are the hash's top
 * byte, and `overflow` is a filter over the tags of what is in the nodes: so nearly every hit costs one
 * cache line besides the entry's own, and nearly every miss just one.
 *
 *   X1  A bucket holds exactly the entries whose hash addresses it: the low bits of the hash. So all
 *       entries whose hash ends in the same p bits lie in the buckets b with b & (2^p-1) equal: that is a
 *       page of the checkpoint.
 *   X2  index_scan() sees every entry that is there from its start to its end at least once, also while
 *       the table grows or shrinks (cursor in reversed bits, as Redis's dictScan()).
 *   X6  A slot knows whether its entry is cold: who changes that where the entry is says so by
 *       index_replace().
 *
 * The index keeps pointers, it owns no entries. It does not look at expiry or databases; a caller's key
 * hash covers both the database and the name.
 */
#pragma once
#include "backend/store/entry.h"

struct index;
struct page_stock;

/* `seed` makes hashes; it is the directory's for good, as checkpoint pages depend on it. `stock` (may be NULL) outlives
 * the index. */
MUST_USE int index_create(uint64_t seed, struct page_stock *stock, struct index **out);
void index_destroy(struct index **index);

uint64_t index_hash(const struct index *index, uint8_t db, struct bytes key); /* XXH3, seeded by db and seed */

/* NULL: not there. */
struct entry *index_find(const struct index *index, uint64_t hash, uint8_t db, struct bytes key);
/* By the hash alone, for those who remember keys by it. Two keys of one hash: either. */
struct entry *index_find_hash(const struct index *index, uint64_t hash);
/* The key must not be there. ERR_FULL: out of memory, nothing changed. */
MUST_USE int index_insert(struct index *index, uint64_t hash, struct entry *entry);
/* `old` must be there; `now` has the same key. They may be the same: when it went cold or hot in its place (X6). */
void index_replace(struct index *index, uint64_t hash, struct entry *old, struct entry *now);
void index_remove(struct index *index, uint64_t hash, struct entry *entry);
/* Room for that many more without growing one by one: for recovery. */
MUST_USE int index_reserve(struct index *index, uint64_t count);

/* The bucket's line; a while later (when it has arrived), the lines of the entries that may be it; and once more a while
 * later, of those in the bucket's chain. */
void index_prefetch(const struct index *index, uint64_t hash);
void index_prefetch_entry(const struct index *index, uint64_t hash);
void index_prefetch_chain(const struct index *index, uint64_t hash);

uint64_t index_count(const struct index *index);
uint64_t index_bucket_count(const struct index *index); /* what index_scan() goes through */
uint64_t index_bytes(const struct index *index); /* directory, blocks, overflow */

typedef void (*index_each_fn)(void *arg, struct entry *entry);
/* The entries of one or a few buckets; returns the next cursor, 0 at the end. Cursors < 2^40. `each` must not
 * change the index. */
uint64_t index_scan(const struct index *index, uint64_t cursor, index_each_fn each, void *arg);
/* All entries whose hash ends in these `bits` bits. `each` may replace or remove the entry that it is given,
 * nothing else. */
void index_page_each(struct index *index, unsigned bits, uint64_t page, index_each_fn each, void *arg);
/* Buckets in a fixed order for the clock hand: calls each() for those of bucket `at`; returns the next (0 after
 * the last). `each` may replace or remove the entry that it is given. */
uint64_t index_sweep(struct index *index, uint64_t at, index_each_fn each, void *arg);
/* The same for those that are not cold alone. It does not touch the memory of the others, of which there may be many. */
uint64_t index_sweep_hot(struct index *index, uint64_t at, index_each_fn each, void *arg);
/* Some entry, every one possible. `random` is used up. NULL: empty. */
struct entry *index_random(const struct index *index, uint64_t random);
