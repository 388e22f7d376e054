/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dict.h - a hash table of items that somebody else owns: fields of hashes, members of sets and sorted sets.
 *
 *     item (any address that stays) = key as in item.h | what the owner likes, a value for instance
 *
 *     bucket = tag u8 x 9 | used u8 | item pointer 6 bytes x 9        64 bytes, one cache line
 *
 * Linear hashing: with n buckets, 2^L <= n < 2^(L+1), a hash goes to its low L+1 bits if that bucket is
 * there, else to its low L bits. An insert adds at most one bucket and looks at the few items of the one that
 * is split, so no insert is slow at any size; a removal gives one back. Buckets lie in blocks of 64 that a
 * directory names: growth copies nothing but the directory. A full bucket's ninth place points to an overflow
 * bucket. Tags are the hash's top byte, so a miss rarely looks at an item. With six items to a bucket on
 * average a table costs 10 to 12 bytes an item.
 *
 *   D1  No two items have the same key.
 *   D2  Items of a bucket lie dense: places 0 .. used-1, in every bucket of a chain but the last all of them.
 *   D3  dict_scan() sees every item that is there from its start to its end at least once, however the table
 *       grows or shrinks meanwhile: the cursor is a position in the order of the hashes' reversed bits, and a
 *       bucket is always an interval of that order.
 *   D4  dict_sorted() walks in that order too, ties by key: it depends on the items alone, so replicas
 *       whose tables grew differently agree. The hash has a fixed seed for this.
 *
 * The table does not know the items' sizes and never frees them.
 */
#pragma once
#include "backend/types/item.h"
#include "common/base/base.h"
#include "common/base/bytes.h"

struct dict_bucket;

struct dict {
    struct dict_bucket **blocks; /* owns; NULL: nothing was inserted yet */
    uint32_t bucket_count;
    uint32_t mask;           /* bucket_count <= mask + 1 < 2 * bucket_count */
    uint32_t block_cap;      /* of the directory */
    uint32_t chain_len_max;  /* no bucket has had more items */
    uint64_t count;
    size_t bytes;            /* heap bytes of the table, not of the items */
};

void dict_init(struct dict *dict); /* takes no memory yet */
void dict_deinit(struct dict *dict);

uint64_t dict_hash(struct bytes key);
static inline struct bytes dict_item_key(const char *item)
{
    struct bytes key;

    item_read(item, &key);
    return key;
}

/* About `count` items will be inserted into an empty table: it has its buckets now, and need not split them one by one. What there
 * is no memory for comes with the inserts. */
void dict_expect(struct dict *dict, uint64_t count);
/* What dict_find() and dict_insert() of this hash will look at first is fetched into the cache. */
void dict_prefetch(const struct dict *dict, uint64_t hash);

/* The item with this key; NULL: none. */
char *dict_find(const struct dict *dict, uint64_t hash, struct bytes key);
/* Its key must not be there. ERR_FULL: out of memory, nothing changed. */
MUST_USE int dict_insert(struct dict *dict, uint64_t hash, char *item);
/* Takes the item out; NULL: none. */
char *dict_remove(struct dict *dict, uint64_t hash, struct bytes key);
/* The item `old` lies at `now` from now on, same key. `old` is not looked at: it may be gone already. */
void dict_replace(struct dict *dict, uint64_t hash, const char *old, char *now);

typedef void (*dict_each_fn)(void *arg, char *item);
/* Items of a bucket, then the next cursor; 0: the end. `each` must not change the table. */
uint64_t dict_scan(const struct dict *dict, uint64_t cursor, dict_each_fn each, void *arg);
/* All items in an order that depends on them alone. ERR_FULL: no memory for sorting, not all were seen. */
MUST_USE int dict_sorted(const struct dict *dict, dict_each_fn each, void *arg);
/* An item, all equally likely; `random` is used up. NULL: empty. */
char *dict_random(const struct dict *dict, uint64_t random);
/* `wanted` different items (at most all), all choices equally likely. */
void dict_sample(const struct dict *dict, uint64_t wanted, uint64_t random, dict_each_fn each, void *arg);
/* Dismantles: takes items out in about `max` steps and hands them to `each`, which may free them (NULL: nobody is
 * told). True: empty. Once begun the table is good for nothing else. */
bool dict_clear_step(struct dict *dict, uint32_t max, dict_each_fn each, void *arg);

/* All items, in no order. The table must not change meanwhile. */
struct dict_walk {
    const struct dict *dict;
    const struct dict_bucket *bucket;
    uint32_t bucket_index, place;
};
void dict_walk_init(struct dict_walk *walk, const struct dict *dict);
char *dict_walk_next(struct dict_walk *walk); /* NULL: the end */
