/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear hashing (Litwin 1980), with chains that are kept in one canonical form:
 *
 *     bucket [e0 .. e7 | link] ---> node [e8 e9 e10 | link] ---> node [e11 e12 - -]
 *
 *   X3  A chain is compact: entry i of n lies at the i-th place, and a node has at least two entries. So
 *       nodes(n) = n <= 9 ? 0 : ceil((n - 9) / 3), and a hole is filled with the last entry.
 *   X4  A tag is 0 iff its place is empty or a link. `overflow` of a bucket has the bit (tag & 7) of each
 *       entry in its nodes, and no other; so it is 0 iff there are none.
 *   X5  FILL_LOW <= count / buckets <= FILL_HIGH, but for what could not be done for want of memory, and the
 *       room that index_reserve() made.
 *
 * A split needs the hashes of a bucket's entries again. Keeping them would cost what the short pointers save;
 * the entries' lines are asked for together, so that it costs about one miss a split.
 *
 * Why nodes of half a line: in a table that is half split, buckets not yet split hold twice as much as the
 * others: at 7.75 keys a bucket a mean of 11.6, of which most find room in one node. Measured: 9.9 to 10.4
 * bytes a key at any size.
 */
#include "backend/store/index.h"

#include "backend/store/key_hash.h"
#include "backend/store/pages.h"
#include "backend/store/slab.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define BUCKET_PLACES 9u
#define NODE_PLACES   4u
#define SLOT_SIZE     6u
#define BUCKETS_MIN   16u
/* Of an entry's word: it is cold (X6). Entries and nodes are aligned, so the bit is free. */
#define SLOT_COLD     UINT64_C(1)
#define BLOCK_BITS    10u
#define BLOCK_BUCKETS (1u << BLOCK_BITS)

/* Keys a bucket, times 4. */
#define FILL_HIGH_X4 31u
#define FILL_LOW_X4  18u
/* Splits or merges that one change makes at most: one would do, two catch up. */
#define STEPS_MAX 2u
/* Nodes kept aside: a merge of two chains may need this many more than the two had. */
#define SPARE_MAX 8u
#define RANDOM_TRIES_MAX 64u

struct bucket {
    uint8_t tags[BUCKET_PLACES];
    uint8_t overflow;
    uint8_t slots[BUCKET_PLACES * SLOT_SIZE];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct bucket) == 64, "a bucket is a cache line");
_Static_assert(sizeof(struct bucket) * BLOCK_BUCKETS == PAGES_PAGE_SIZE, "a block is a page");

struct node {
    uint8_t tags[NODE_PLACES];
    uint8_t is_linked;
    uint8_t spare[3];
    uint8_t slots[NODE_PLACES * SLOT_SIZE];
};
_Static_assert(sizeof(struct node) == 32, "two nodes are a cache line");

struct block {
    struct bucket *buckets;
    struct page_region *region;
};

struct index {
    uint64_t bucket_count;
    uint64_t mask; /* 2^(L+1) - 1 */
    struct block *blocks; /* owns */
    uint64_t count;
    uint64_t seed;
    uint32_t block_count, block_cap;
    uint64_t bucket_floor; /* not merged below that: made by index_reserve() */
    bool is_walked;        /* a callback may replace or remove, but buckets stay where they are */
    uint32_t spare_count;
    struct node *spare[SPARE_MAX];
    struct pages pages; /* of blocks */
    struct slab *nodes;
};

/* ---- places ------------------------------------------------------------------------------- */

/* A slot is read as the upper 6 of the 8 bytes that end with it: no slot is at the beginning, and the last one
 * has nothing behind it. */
static inline uint64_t slot_word(const uint8_t *slots, unsigned at)
{
    uint64_t word;

    memcpy(&word, slots + (size_t)at * SLOT_SIZE - 2, 8);
    return word >> 16;
}

static inline void *pointer_of(uint64_t word)
{
    return (void *)(uintptr_t)(word & ~SLOT_COLD);
}

static inline void *slot_load(const uint8_t *slots, unsigned at)
{
    return pointer_of(slot_word(slots, at));
}

static inline void slot_store(uint8_t *slots, unsigned at, uint64_t word)
{
    ASSERT(word >> 48 == 0);
    memcpy(slots + (size_t)at * SLOT_SIZE, &word, SLOT_SIZE);
}

/* What a slot holds: a pointer, and of an entry, whether it is cold. */
static inline uint64_t word_of(const void *pointer)
{
    uint64_t word = (uint64_t)(uintptr_t)pointer;

    ASSERT((word & SLOT_COLD) == 0);
    return word;
}

static inline uint64_t word_of_entry(const struct entry *entry)
{
    return word_of(entry) | (entry_is_cold(entry) ? SLOT_COLD : 0);
}

/* Where one entry is kept. */
struct place {
    uint8_t *tag;
    uint8_t *slot;
};

static inline struct place bucket_place(struct bucket *b, unsigned at)
{
    return (struct place){b->tags + at, b->slots + (size_t)at * SLOT_SIZE};
}

static inline struct place node_place(struct node *n, unsigned at)
{
    return (struct place){n->tags + at, n->slots + (size_t)at * SLOT_SIZE};
}

static inline void place_copy(struct place to, struct place from)
{
    *to.tag = *from.tag;
    memcpy(to.slot, from.slot, SLOT_SIZE);
}

static inline uint8_t tag_of(uint64_t hash)
{
    uint8_t tag = (uint8_t)(hash >> 56);

    return tag != 0 ? tag : 1;
}

static inline uint8_t overflow_bit(uint8_t tag)
{
    return (uint8_t)(1u << (tag & 7));
}

/* Bit i: the tag of place i is `tag`. */
static inline unsigned bucket_match(const struct bucket *b, uint8_t tag)
{
#ifdef __SSE2__
    __m128i line = _mm_load_si128((const __m128i *)(const void *)b);

    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(line, _mm_set1_epi8((char)tag))) &
           ((1u << BUCKET_PLACES) - 1);
#else
    unsigned found = 0;

    for (unsigned i = 0; i < BUCKET_PLACES; i++)
        found |= (unsigned)(b->tags[i] == tag) << i;
    return found;
#endif
}

static inline unsigned node_match(const struct node *n, uint8_t tag)
{
    unsigned found = 0;

    for (unsigned i = 0; i < NODE_PLACES; i++)
        found |= (unsigned)(n->tags[i] == tag) << i;
    return found;
}

/* Entries in the bucket itself, in the node itself: they lie without holes, and behind them is the link or nothing
 * (X3, X4). */
static inline unsigned bucket_used(const struct bucket *b)
{
    return (unsigned)__builtin_ctz(bucket_match(b, 0) | 1u << BUCKET_PLACES);
}

static inline unsigned node_used(const struct node *n)
{
    return (unsigned)__builtin_ctz(node_match(n, 0) | 1u << NODE_PLACES);
}

static inline struct node *bucket_link(const struct bucket *b)
{
    return b->overflow != 0 ? slot_load(b->slots, BUCKET_PLACES - 1) : NULL;
}

static inline struct node *node_link(const struct node *n)
{
    return n->is_linked ? slot_load(n->slots, NODE_PLACES - 1) : NULL;
}

static unsigned chain_count(const struct bucket *b)
{
    unsigned count = bucket_used(b);

    for (const struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        count += node_used(n);
    return count;
}

static unsigned nodes_for(unsigned entries)
{
    return entries <= BUCKET_PLACES ? 0 : (entries - BUCKET_PLACES + 2) / 3;
}

/* The place of entry `at` (X3). */
static struct place chain_place(struct bucket *b, unsigned at)
{
    struct node *n = bucket_link(b);

    if (n == NULL || at < BUCKET_PLACES - 1)
        return bucket_place(b, at);
    at -= BUCKET_PLACES - 1;
    for (; n->is_linked && at >= NODE_PLACES - 1; n = node_link(n))
        at -= NODE_PLACES - 1;
    return node_place(n, at);
}

/* ---- nodes -------------------------------------------------------------------------------- */

static struct node *node_get(struct index *index)
{
    struct node *n;

    if (index->spare_count > 0)
        n = index->spare[--index->spare_count];
    else
        n = slab_get(index->nodes, sizeof(*n));
    if (n != NULL)
        memset(n, 0, sizeof(*n));
    return n;
}

static void node_put(struct index *index, struct node *n)
{
    if (index->spare_count < SPARE_MAX)
        index->spare[index->spare_count++] = n;
    else
        slab_put(index->nodes, n, sizeof(*n));
}

/* Whether `count` calls of node_get() will not fail. */
static bool nodes_ensure(struct index *index, unsigned count)
{
    ASSERT(count <= SPARE_MAX);
    while (index->spare_count < count) {
        struct node *n = slab_get(index->nodes, sizeof(*n));

        if (n == NULL)
            return false;
        index->spare[index->spare_count++] = n;
    }
    return true;
}

/* ---- chains ------------------------------------------------------------------------------- */

static inline void place_set(struct place at, uint8_t tag, uint64_t word)
{
    ASSERT(*at.tag == 0);
    *at.tag = tag;
    slot_store(at.slot, 0, word);
}

/* A node whose first entry is the one at `last`, which becomes the link to it. NULL: out of memory. */
static struct node *node_chain(struct index *index, struct place last)
{
    struct node *n = node_get(index);

    if (n == NULL)
        return NULL;
    place_copy(node_place(n, 0), last);
    *last.tag = 0;
    slot_store(last.slot, 0, word_of(n));
    return n;
}

static NOINLINE int chain_append(struct index *index, struct bucket *b, uint8_t tag, uint64_t word)
{
    struct node *tail = bucket_link(b), *added = NULL;
    unsigned used;

    if (tail == NULL) {
        uint8_t moved = b->tags[BUCKET_PLACES - 1];

        added = node_chain(index, bucket_place(b, BUCKET_PLACES - 1));
        if (added == NULL)
            return ERR_FULL;
        b->overflow = overflow_bit(moved) | overflow_bit(tag);
        place_set(node_place(added, 1), tag, word);
        return 0;
    }
    while (tail->is_linked)
        tail = node_link(tail);
    used = node_used(tail);
    if (used == NODE_PLACES) {
        added = node_chain(index, node_place(tail, NODE_PLACES - 1));
        if (added == NULL)
            return ERR_FULL;
        tail->is_linked = 1;
        tail = added;
        used = 1;
    }
    b->overflow |= overflow_bit(tag);
    place_set(node_place(tail, used), tag, word);
    return 0;
}

static inline int bucket_insert(struct index *index, struct bucket *b, uint8_t tag, uint64_t word)
{
    unsigned used = bucket_used(b);

    if (UNLIKELY(used == BUCKET_PLACES || b->overflow != 0))
        return chain_append(index, b, tag, word);
    place_set(bucket_place(b, used), tag, word);
    return 0;
}

static void overflow_update(struct bucket *b)
{
    uint8_t overflow = 0;

    for (const struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        for (unsigned i = 0; i < NODE_PLACES; i++)
            overflow |= n->tags[i] != 0 ? overflow_bit(n->tags[i]) : 0;
    b->overflow = overflow;
}

/* The last entry goes into the hole; a node that has one left then is dissolved into the link to it. */
static NOINLINE void chain_fill_hole(struct index *index, struct bucket *b, struct place hole)
{
    struct node *before = NULL, *tail = bucket_link(b);
    struct place link;
    unsigned used;

    while (tail->is_linked) {
        before = tail;
        tail = node_link(tail);
    }
    used = node_used(tail);
    ASSERT(used >= 2);
    place_copy(hole, node_place(tail, used - 1));
    tail->tags[used - 1] = 0;
    if (used == 2) {
        link = before != NULL ? node_place(before, NODE_PLACES - 1)
                              : bucket_place(b, BUCKET_PLACES - 1);
        place_copy(link, node_place(tail, 0));
        node_put(index, tail);
        if (before == NULL) {
            b->overflow = 0;
            return;
        }
        before->is_linked = 0;
    }
    overflow_update(b);
}

static void bucket_remove(struct index *index, struct bucket *b, struct place hole)
{
    struct place last;

    if (b->overflow != 0) {
        chain_fill_hole(index, b, hole);
        return;
    }
    last = bucket_place(b, bucket_used(b) - 1);
    if (last.tag != hole.tag)
        place_copy(hole, last);
    *last.tag = 0;
}

/* The place of this very entry. */
static struct place bucket_find(struct bucket *b, uint8_t tag, const struct entry *entry)
{
    for (unsigned found = bucket_match(b, tag); found != 0; found &= found - 1) {
        unsigned at = (unsigned)__builtin_ctz(found);

        if (slot_load(b->slots, at) == entry)
            return bucket_place(b, at);
    }
    for (struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        for (unsigned found = node_match(n, tag); found != 0; found &= found - 1) {
            unsigned at = (unsigned)__builtin_ctz(found);

            if (slot_load(n->slots, at) == entry)
                return node_place(n, at);
        }
    UNREACHABLE("an entry is not in the index");
}

/* ---- buckets ------------------------------------------------------------------------------ */

static inline struct bucket *bucket_at(const struct index *index, uint64_t at)
{
    return &index->blocks[at >> BLOCK_BITS].buckets[at & (BLOCK_BUCKETS - 1)];
}

static inline struct bucket *bucket_of(const struct index *index, uint64_t hash)
{
    uint64_t at = hash & index->mask;

    return bucket_at(index, at < index->bucket_count ? at : at & index->mask >> 1);
}

static void bucket_count_set(struct index *index, uint64_t count)
{
    unsigned level = 63u - (unsigned)__builtin_clzll(count);

    index->bucket_count = count;
    index->mask = ((uint64_t)2 << level) - 1;
}

static bool block_add(struct index *index)
{
    struct block *block;

    if (index->block_count == index->block_cap) {
        uint32_t cap = MAX(index->block_cap * 2, 16u);
        struct block *grown = mem_realloc(index->blocks, cap * sizeof(*grown));

        if (grown == NULL)
            return false;
        index->blocks = grown;
        index->block_cap = cap;
    }
    block = &index->blocks[index->block_count];
    block->buckets = pages_get(&index->pages, &block->region);
    if (block->buckets == NULL)
        return false;
    index->block_count++;
    return true;
}

static void slots_prefetch_hot(const uint8_t *slots, unsigned used)
{
    for (unsigned i = used; i-- > 0;)
        if ((slot_word(slots, i) & SLOT_COLD) == 0)
            __builtin_prefetch(slot_load(slots, i), 0, 3);
}

static void chain_prefetch_hot(const struct bucket *b)
{
    slots_prefetch_hot(b->slots, bucket_used(b));
    for (const struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        slots_prefetch_hot(n->slots, node_used(n));
}

static void chain_prefetch(const struct bucket *b)
{
    for (unsigned i = bucket_used(b); i-- > 0;)
        __builtin_prefetch(slot_load(b->slots, i), 0, 3);
    for (const struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        for (unsigned i = node_used(n); i-- > 0;)
            __builtin_prefetch(slot_load(n->slots, i), 0, 3);
}

static uint64_t entry_hash(const struct index *index, const struct entry *entry)
{
    return index_hash(index, entry_db(entry), entry_key(entry));
}

/* Entries of a chain that is taken apart go to `high` if their hash has `bit`, else to `low`. */
struct deal {
    struct bucket *low, *high;
    uint64_t bit; /* 0: all go to `low`, no hash is looked at */
};

static void deal_entry(struct index *index, const struct deal *deal, uint8_t tag, uint64_t word)
{
    bool is_high = deal->bit != 0 && (entry_hash(index, pointer_of(word)) & deal->bit) != 0;
    int err = bucket_insert(index, is_high ? deal->high : deal->low, tag, word);

    ASSERT(err == 0);
}

/* `from` is a copy. Its nodes are given back one by one before their entries are dealt: for a split these are
 * always enough, as nodes_for(a) + nodes_for(b) <= nodes_for(a + b). */
static void deal_chain(struct index *index, const struct deal *deal, const struct bucket *from)
{
    struct node *n = bucket_link(from);

    for (unsigned i = 0, used = bucket_used(from); i < used; i++)
        deal_entry(index, deal, from->tags[i], slot_word(from->slots, i));
    while (n != NULL) {
        struct node copy = *n;

        node_put(index, n);
        for (unsigned i = 0, used = node_used(&copy); i < used; i++)
            deal_entry(index, deal, copy.tags[i], slot_word(copy.slots, i));
        n = node_link(&copy);
    }
}

/* One bucket more. False: out of memory. */
static bool index_split(struct index *index)
{
    uint64_t added = index->bucket_count;
    uint64_t half = (index->mask >> 1) + 1;
    struct deal deal;
    struct bucket copy;

    ASSERT(!index->is_walked);
    if (added >> BLOCK_BITS == index->block_count && !block_add(index))
        return false;
    deal = (struct deal){bucket_at(index, added - half), bucket_at(index, added), half};
    memcpy(&copy, deal.low, sizeof(copy));
    memset(deal.low, 0, sizeof(*deal.low));
    memset(deal.high, 0, sizeof(*deal.high));
    chain_prefetch(&copy);
    bucket_count_set(index, added + 1);
    deal_chain(index, &deal, &copy);
    return true;
}

/* One bucket less: the last goes into the one that it was split from. False: out of memory. */
static bool index_merge(struct index *index)
{
    uint64_t last = index->bucket_count - 1;
    struct deal deal = {0};
    struct bucket *from = bucket_at(index, last), copy;
    unsigned from_count, low_count, nodes;

    ASSERT(!index->is_walked);
    bucket_count_set(index, last);
    deal.low = bucket_of(index, last);
    from_count = chain_count(from);
    low_count = chain_count(deal.low);
    nodes = nodes_for(from_count + low_count) - nodes_for(from_count) - nodes_for(low_count);
    if (!nodes_ensure(index, nodes)) {
        bucket_count_set(index, last + 1);
        return false;
    }
    memcpy(&copy, from, sizeof(copy));
    deal_chain(index, &deal, &copy);
    /* One block above is kept: a key more, a key less. */
    if ((uint64_t)index->block_count * BLOCK_BUCKETS >= last + 2 * BLOCK_BUCKETS) {
        struct block *block = &index->blocks[--index->block_count];

        pages_put(&index->pages, block->region, block->buckets);
    }
    return true;
}

/* The bucket that is split next. Its line is asked for right after a split, those of its entries shortly before the
 * next one is due: an insert in between costs them nothing. */
static inline struct bucket *next_split(const struct index *index)
{
    return bucket_at(index, index->bucket_count - (index->mask >> 1) - 1);
}

static void index_grow(struct index *index)
{
    for (unsigned i = 0; i < STEPS_MAX; i++)
        if (index->count * 4 <= index->bucket_count * FILL_HIGH_X4 || !index_split(index))
            return;
}

static void index_shrink(struct index *index)
{
    for (unsigned i = 0; i < STEPS_MAX; i++)
        if (index->count * 4 >= index->bucket_count * FILL_LOW_X4 ||
            index->bucket_count <= index->bucket_floor || !index_merge(index))
            return;
}

/* ---- the whole ---------------------------------------------------------------------------- */

int index_create(uint64_t seed, struct page_stock *stock, struct index **out)
{
    struct index *index = mem_zalloc(sizeof(*index));

    if (index == NULL)
        return ERR_FULL;
    index->seed = seed;
    index->bucket_floor = BUCKETS_MIN;
    pages_init(&index->pages, stock, false);
    if (slab_create(stock, false, &index->nodes) != 0 || !block_add(index)) {
        index_destroy(&index);
        return ERR_FULL;
    }
    memset(index->blocks[0].buckets, 0, BUCKETS_MIN * sizeof(struct bucket));
    bucket_count_set(index, BUCKETS_MIN);
    *out = index;
    return 0;
}

void index_destroy(struct index **index_at)
{
    struct index *index = *index_at;

    if (index == NULL)
        return;
    ASSERT(!index->is_walked);
    slab_destroy(&index->nodes);
    pages_deinit(&index->pages);
    mem_free(index->blocks);
    mem_free(index);
    *index_at = NULL;
}

uint64_t index_hash(const struct index *index, uint8_t db, struct bytes key)
{
    return key_hash(index->seed, db, key);
}

static inline bool entry_is(const struct entry *entry, uint8_t db, struct bytes key)
{
    return entry_db(entry) == db && bytes_equal(entry_key(entry), key);
}

static NOINLINE struct entry *chain_find(const struct bucket *b, uint8_t tag, uint8_t db,
                                         struct bytes key)
{
    for (const struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        for (unsigned found = node_match(n, tag); found != 0; found &= found - 1) {
            struct entry *entry = slot_load(n->slots, (unsigned)__builtin_ctz(found));

            if (LIKELY(entry_is(entry, db, key)))
                return entry;
        }
    return NULL;
}

struct entry *index_find(const struct index *index, uint64_t hash, uint8_t db, struct bytes key)
{
    const struct bucket *b = bucket_of(index, hash);
    uint8_t tag = tag_of(hash);

    for (unsigned found = bucket_match(b, tag); found != 0; found &= found - 1) {
        struct entry *entry = slot_load(b->slots, (unsigned)__builtin_ctz(found));

        if (LIKELY(entry_is(entry, db, key)))
            return entry;
    }
    if (UNLIKELY(b->overflow & overflow_bit(tag)))
        return chain_find(b, tag, db, key);
    return NULL;
}

struct entry *index_find_hash(const struct index *index, uint64_t hash)
{
    const struct bucket *b = bucket_of(index, hash);
    uint8_t tag = tag_of(hash);

    for (unsigned found = bucket_match(b, tag); found != 0; found &= found - 1) {
        struct entry *entry = slot_load(b->slots, (unsigned)__builtin_ctz(found));

        if (LIKELY(entry_hash(index, entry) == hash))
            return entry;
    }
    for (const struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        for (unsigned found = node_match(n, tag); found != 0; found &= found - 1) {
            struct entry *entry = slot_load(n->slots, (unsigned)__builtin_ctz(found));

            if (LIKELY(entry_hash(index, entry) == hash))
                return entry;
        }
    return NULL;
}

int index_insert(struct index *index, uint64_t hash, struct entry *entry)
{
    int err;

    ASSERT(!index->is_walked);
    DCHECK(index_find(index, hash, entry_db(entry), entry_key(entry)) == NULL);
    err = bucket_insert(index, bucket_of(index, hash), tag_of(hash), word_of_entry(entry));
    if (err != 0)
        return err;
    index->count++;
    if (index->count * 4 > index->bucket_count * FILL_HIGH_X4) {
        index->bucket_floor = BUCKETS_MIN; /* the room that was reserved is used up */
        index_grow(index);
        __builtin_prefetch(next_split(index), 0, 3);
    } else if (index->count * 4 > index->bucket_count * FILL_HIGH_X4 - 8) {
        chain_prefetch(next_split(index));
    }
    return 0;
}

void index_replace(struct index *index, uint64_t hash, struct entry *old, struct entry *now)
{
    struct place at = bucket_find(bucket_of(index, hash), tag_of(hash), old);

    slot_store(at.slot, 0, word_of_entry(now));
}

void index_remove(struct index *index, uint64_t hash, struct entry *entry)
{
    struct bucket *b = bucket_of(index, hash);

    bucket_remove(index, b, bucket_find(b, tag_of(hash), entry));
    index->count--;
    if (!index->is_walked)
        index_shrink(index);
}

int index_reserve(struct index *index, uint64_t count)
{
    uint64_t buckets = (index->count + count) * 4 / FILL_HIGH_X4 + 1;

    while (index->bucket_count < buckets)
        if (!index_split(index))
            return ERR_FULL;
    index->bucket_floor = MAX(index->bucket_floor, buckets);
    return 0;
}

void index_prefetch(const struct index *index, uint64_t hash)
{
    __builtin_prefetch(bucket_of(index, hash), 0, 3);
}

/* Header, key and the beginning of a short value. */
static inline void entry_prefetch(const void *entry)
{
    __builtin_prefetch(entry, 0, 3);
    __builtin_prefetch((const char *)entry + 64, 0, 3);
    __builtin_prefetch((const char *)entry + 128, 0, 3);
}

void index_prefetch_entry(const struct index *index, uint64_t hash)
{
    const struct bucket *b = bucket_of(index, hash);

    for (unsigned found = bucket_match(b, tag_of(hash)); found != 0; found &= found - 1)
        entry_prefetch(slot_load(b->slots, (unsigned)__builtin_ctz(found)));
    if (UNLIKELY(b->overflow & overflow_bit(tag_of(hash))))
        __builtin_prefetch(bucket_link(b), 0, 3);
}

void index_prefetch_chain(const struct index *index, uint64_t hash)
{
    const struct bucket *b = bucket_of(index, hash);
    uint8_t tag = tag_of(hash);

    if (LIKELY(!(b->overflow & overflow_bit(tag))))
        return;
    for (const struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        for (unsigned found = node_match(n, tag); found != 0; found &= found - 1)
            entry_prefetch(slot_load(n->slots, (unsigned)__builtin_ctz(found)));
}

uint64_t index_count(const struct index *index)
{
    return index->count;
}

uint64_t index_bucket_count(const struct index *index)
{
    return index->bucket_count;
}

uint64_t index_bytes(const struct index *index)
{
    return index->block_count * (uint64_t)PAGES_PAGE_SIZE +
           index->block_cap * sizeof(struct block) + slab_page_bytes(index->nodes) + sizeof(*index);
}

/* ---- walks -------------------------------------------------------------------------------- */

/* Calls from the last entry to the first: removing one moves only such as were already seen (X3). With `mask`
 * not 0, only entries whose hash has `page` in it. */
static void chain_each(struct index *index, struct bucket *b, uint64_t mask, uint64_t page,
                       index_each_fn each, void *arg)
{
    chain_prefetch(b);
    for (unsigned i = chain_count(b); i-- > 0;) {
        struct entry *entry = slot_load(chain_place(b, i).slot, 0);

        if (mask == 0 || (entry_hash(index, entry) & mask) == page)
            each(arg, entry);
    }
}

/* The same of the hot ones; the others are not even looked at. */
static void chain_each_hot(struct index *index, struct bucket *b, index_each_fn each, void *arg)
{
    for (unsigned i = chain_count(b); i-- > 0;) {
        uint64_t word = slot_word(chain_place(b, i).slot, 0);

        if ((word & SLOT_COLD) == 0)
            each(arg, pointer_of(word));
    }
}

static uint64_t bits_reversed(uint64_t v)
{
    v = (v >> 1 & 0x5555555555555555u) | (v & 0x5555555555555555u) << 1;
    v = (v >> 2 & 0x3333333333333333u) | (v & 0x3333333333333333u) << 2;
    v = (v >> 4 & 0x0f0f0f0f0f0f0f0fu) | (v & 0x0f0f0f0f0f0f0f0fu) << 4;
    return __builtin_bswap64(v);
}

/*
 * The cursor is the low bits of a hash. Invariant: all hashes whose reversed bits are below the cursor's have
 * been seen. A bucket that is addressed by p bits holds all hashes that agree with it in these; counting up from
 * the p-th bit in reverse order skips just them. So a bucket's split or merge between two calls changes how much
 * of the circle is seen at once, but skips nothing.
 */
uint64_t index_scan(const struct index *index, uint64_t cursor, index_each_fn each, void *arg)
{
    uint64_t at = cursor & index->mask, mask = index->mask, half = (mask >> 1) + 1;
    const struct bucket *b;

    /* Not split yet: one bit less addresses it. */
    if ((at | half) >= index->bucket_count) {
        mask >>= 1;
        at &= mask;
    }
    b = bucket_at(index, at);
    chain_prefetch(b);
    for (unsigned i = 0, used = bucket_used(b); i < used; i++)
        each(arg, slot_load(b->slots, i));
    for (const struct node *n = bucket_link(b); n != NULL; n = node_link(n))
        for (unsigned i = 0, used = node_used(n); i < used; i++)
            each(arg, slot_load(n->slots, i));

    return bits_reversed(bits_reversed(cursor | ~mask) + 1);
}

/* Nodes that keep a sparse page of theirs alive move out of it. */
static void chain_compact(struct index *index, struct bucket *b)
{
    struct place link = bucket_place(b, BUCKET_PLACES - 1);

    for (struct node *n = bucket_link(b), *next; n != NULL; n = next) {
        struct node *moved = NULL;

        next = node_link(n);
        if (UNLIKELY(slab_is_sparse(index->nodes, n, sizeof(*n))))
            moved = slab_get(index->nodes, sizeof(*moved));
        if (moved != NULL) {
            memcpy(moved, n, sizeof(*moved));
            slot_store(link.slot, 0, word_of(moved));
            slab_put(index->nodes, n, sizeof(*n));
            n = moved;
        }
        link = node_place(n, NODE_PLACES - 1);
    }
}

static void walk_begin(struct index *index)
{
    ASSERT(!index->is_walked);
    index->is_walked = true;
}

static void walk_end(struct index *index)
{
    index->is_walked = false;
    index_shrink(index);
}

void index_page_each(struct index *index, unsigned bits, uint64_t page, index_each_fn each, void *arg)
{
    uint64_t step, half = (index->mask >> 1) + 1;

    ASSERT(bits < 40);
    step = (uint64_t)1 << bits;
    ASSERT(page < step);
    walk_begin(index);
    if (step > half) {
        /* One bucket, which may hold other pages too. */
        chain_each(index, bucket_of(index, page), step - 1, page, each, arg);
        walk_end(index);
        return;
    }
    for (uint64_t at = page; at < index->bucket_count; at += step) {
        /* They lie far apart, but where the next ones are is known. */
        if (at + 2 * step < index->bucket_count)
            __builtin_prefetch(bucket_at(index, at + 2 * step), 0, 3);
        if (at + step < index->bucket_count)
            chain_prefetch(bucket_at(index, at + step));
        chain_each(index, bucket_at(index, at), 0, 0, each, arg);
    }
    walk_end(index);
}

static uint64_t sweep_end(struct index *index, uint64_t at)
{
    chain_compact(index, bucket_at(index, at));
    walk_end(index);
    at++;
    return at < index->bucket_count ? at : 0;
}

uint64_t index_sweep(struct index *index, uint64_t at, index_each_fn each, void *arg)
{
    if (at >= index->bucket_count)
        at = 0;
    if (at + 1 < index->bucket_count)
        chain_prefetch(bucket_at(index, at + 1));
    walk_begin(index);
    chain_each(index, bucket_at(index, at), 0, 0, each, arg);
    return sweep_end(index, at);
}

uint64_t index_sweep_hot(struct index *index, uint64_t at, index_each_fn each, void *arg)
{
    if (at >= index->bucket_count)
        at = 0;
    if (at + 2 < index->bucket_count)
        __builtin_prefetch(bucket_at(index, at + 2), 0, 3);
    if (at + 1 < index->bucket_count)
        chain_prefetch_hot(bucket_at(index, at + 1));
    walk_begin(index);
    chain_each_hot(index, bucket_at(index, at), each, arg);
    return sweep_end(index, at);
}

/* splitmix64 */
static uint64_t random_next(uint64_t v)
{
    v += 0x9e3779b97f4a7c15u;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    return v ^ v >> 31;
}

struct entry *index_random(const struct index *index, uint64_t random)
{
    struct bucket *b = NULL;
    unsigned count = 0;
    uint64_t at;

    if (index->count == 0)
        return NULL;
    /* By address, so that buckets that are not split yet, which hold more, come up more often. */
    for (unsigned tries = 0; tries < RANDOM_TRIES_MAX && count == 0; tries++) {
        random = random_next(random);
        b = bucket_of(index, random);
        count = chain_count(b);
    }
    /* Nearly empty: it has just lost its keys, or has room reserved. */
    for (at = random & index->mask >> 1; count == 0; at++) {
        b = bucket_at(index, at % index->bucket_count);
        count = chain_count(b);
    }
    return slot_load(chain_place(b, (unsigned)((random >> 40) % count)).slot, 0);
}
