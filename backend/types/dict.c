/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/dict.h"
#include "backend/types/draw.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PLACES             9u
#define USED_CHAINED       0x80u /* place 8 is the overflow bucket */
#define BLOCK_BUCKETS      64u
#define BUCKETS_MIN        4u
#define ITEMS_GROW         6u /* per bucket: above, the table grows */
#define ITEMS_SHRINK       4u /* below, it shrinks */
#define SORT_STACK         64u
#define SORT_AHEAD         8u /* buckets */

struct dict_bucket {
    uint8_t tags[PLACES];
    uint8_t used; /* items; USED_CHAINED is set: 8 | USED_CHAINED */
    char places[PLACES][6];
};
_Static_assert(sizeof(struct dict_bucket) == 64, "a bucket is a cache line");

static inline uint32_t bucket_items(const struct dict_bucket *bucket)
{
    return bucket->used & ~USED_CHAINED;
}

static inline bool bucket_is_chained(const struct dict_bucket *bucket)
{
    return (bucket->used & USED_CHAINED) != 0;
}

static inline void *place_get(const struct dict_bucket *bucket, uint32_t place)
{
    uint64_t address = 0;

    memcpy(&address, bucket->places[place], 6);
    return (void *)(uintptr_t)address;
}

static inline void place_set(struct dict_bucket *bucket, uint32_t place, const void *pointer)
{
    uint64_t address = (uint64_t)(uintptr_t)pointer;

    DCHECK(address >> 48 == 0);
    memcpy(bucket->places[place], &address, 6);
}

static inline struct dict_bucket *bucket_overflow(const struct dict_bucket *bucket)
{
    return place_get(bucket, PLACES - 1);
}

static inline struct dict_bucket *bucket_at(const struct dict *dict, uint32_t index)
{
    return &dict->blocks[index / BLOCK_BUCKETS][index % BLOCK_BUCKETS];
}

static inline struct dict_bucket *bucket_of(const struct dict *dict, uint64_t hash)
{
    uint32_t index = (uint32_t)hash & dict->mask;

    if (index >= dict->bucket_count)
        index &= dict->mask >> 1;
    return bucket_at(dict, index);
}

static inline uint8_t tag_of(uint64_t hash)
{
    return (uint8_t)(hash >> 56);
}

uint64_t dict_hash(struct bytes key)
{
    return XXH3_64bits(key.data, key.len);
}

void dict_init(struct dict *dict)
{
    *dict = (struct dict){0};
}

/* ---- chains: a bucket and its overflow ------------------------------------------------------ */

/* A place of a chain; the walk goes `for (p = chain_begin(b); chain_is_at_item(&p); chain_step(&p))`. */
struct chain_place {
    struct dict_bucket *bucket;
    uint32_t place;
};

static inline struct chain_place chain_begin(struct dict_bucket *bucket)
{
    return (struct chain_place){.bucket = bucket};
}

static inline bool chain_is_at_item(struct chain_place *p)
{
    if (p->place < bucket_items(p->bucket))
        return true;
    if (!bucket_is_chained(p->bucket))
        return false;
    p->bucket = bucket_overflow(p->bucket);
    p->place = 0;
    ASSERT(p->bucket->used > 0);
    return true;
}

static inline void chain_step(struct chain_place *p)
{
    p->place++;
}

static inline char *chain_item(const struct chain_place *p)
{
    return place_get(p->bucket, p->place);
}

static uint32_t chain_len(const struct dict_bucket *bucket)
{
    uint32_t len = bucket_items(bucket);

    while (bucket_is_chained(bucket)) {
        bucket = bucket_overflow(bucket);
        len += bucket_items(bucket);
    }
    return len;
}

static int chain_append(struct dict *dict, struct dict_bucket *bucket, uint8_t tag, const char *item)
{
    uint32_t len = 1;

    while (bucket_is_chained(bucket)) {
        len += bucket_items(bucket);
        bucket = bucket_overflow(bucket);
    }
    if (bucket->used == PLACES) {
        struct dict_bucket *overflow = mem_alloc(sizeof(*overflow));

        if (overflow == NULL)
            return ERR_FULL;
        dict->bytes += sizeof(*overflow);
        overflow->tags[0] = bucket->tags[PLACES - 1];
        place_set(overflow, 0, place_get(bucket, PLACES - 1));
        overflow->used = 1;
        place_set(bucket, PLACES - 1, overflow);
        bucket->used = (PLACES - 1) | USED_CHAINED;
        bucket = overflow;
        len += PLACES - 1;
    }
    bucket->tags[bucket->used] = tag;
    place_set(bucket, bucket->used, item);
    bucket->used++;
    len += bucket->used - 1u;
    dict->chain_len_max = MAX(dict->chain_len_max, len);
    return 0;
}

/* Takes the last item off. */
static char *chain_pop(struct dict *dict, struct dict_bucket *bucket, uint8_t *tag)
{
    struct dict_bucket *before = NULL;
    char *item;

    while (bucket_is_chained(bucket)) {
        before = bucket;
        bucket = bucket_overflow(bucket);
    }
    ASSERT(bucket->used > 0);
    bucket->used--;
    *tag = bucket->tags[bucket->used];
    item = place_get(bucket, bucket->used);
    if (bucket->used == 0 && before != NULL) {
        mem_free(bucket);
        dict->bytes -= sizeof(*bucket);
        before->used = PLACES - 1;
    }
    return item;
}

static void chain_truncate(struct dict *dict, struct dict_bucket *bucket, uint32_t len)
{
    uint8_t tag;

    for (uint32_t now = chain_len(bucket); now > len; now--)
        (void)chain_pop(dict, bucket, &tag);
}

/* `key` NULL: the item at this address is looked for, without looking at it. */
static inline bool place_fits(const struct dict_bucket *bucket, uint32_t place, uint8_t tag,
                              const struct bytes *key, const char *address)
{
    const char *item = place_get(bucket, place);

    if (bucket->tags[place] != tag)
        return false;
    return key == NULL ? item == address : bytes_equal(dict_item_key(item), *key);
}

static inline bool chain_find(struct dict_bucket *bucket, uint8_t tag, const struct bytes *key,
                              const char *address, struct chain_place *out)
{
    const uint64_t ones = 0x0101010101010101u;

    for (;; bucket = bucket_overflow(bucket)) {
        uint32_t items = bucket_items(bucket);
        uint64_t tags, hits;

        out->bucket = bucket;
        memcpy(&tags, bucket->tags, 8);
        tags ^= ones * tag;
        /* The top bit of each byte that is zero; of one above such a byte too now and then. */
        for (hits = (tags - ones) & ~tags & (ones << 7); hits != 0; hits &= hits - 1) {
            out->place = (uint32_t)__builtin_ctzll(hits) / 8;
            if (out->place < items && place_fits(bucket, out->place, tag, key, address))
                return true;
        }
        out->place = PLACES - 1;
        if (items == PLACES && place_fits(bucket, PLACES - 1, tag, key, address))
            return true;
        if (!bucket_is_chained(bucket))
            return false;
    }
}

/* ---- growing and shrinking ------------------------------------------------------------------ */

/* Buckets that block 0 has while it is the only one. */
static uint32_t first_block_buckets(uint32_t bucket_count)
{
    uint32_t buckets = BUCKETS_MIN;

    while (buckets < bucket_count && buckets < BLOCK_BUCKETS)
        buckets *= 2;
    return buckets;
}

/* Room in blocks and directory for bucket `index`. */
static int bucket_make(struct dict *dict, uint32_t index)
{
    uint32_t block = index / BLOCK_BUCKETS, in_block = index % BLOCK_BUCKETS;
    uint32_t had = in_block == 0 ? 0 : first_block_buckets(in_block);
    uint32_t wanted = first_block_buckets(block > 0 ? BLOCK_BUCKETS : index + 1);
    void *made;

    if (block >= dict->block_cap) {
        uint32_t cap = MAX(dict->block_cap * 2, 1u);

        made = mem_realloc(dict->blocks, cap * sizeof(dict->blocks[0]));
        if (made == NULL)
            return ERR_FULL;
        dict->blocks = made;
        dict->bytes += heap_class(cap * sizeof(dict->blocks[0])) -
                       heap_class(dict->block_cap * sizeof(dict->blocks[0]));
        dict->block_cap = cap;
    }
    if (block > 0 ? in_block > 0 : wanted == had)
        return 0;
    made = mem_realloc(in_block == 0 ? NULL : dict->blocks[block], wanted * sizeof(struct dict_bucket));
    if (made == NULL)
        return ERR_FULL;
    dict->blocks[block] = made;
    dict->bytes += (wanted - had) * sizeof(struct dict_bucket);
    return 0;
}

/* Gives back what bucket_make(index) may have made. */
static void bucket_unmake(struct dict *dict, uint32_t index)
{
    uint32_t block = index / BLOCK_BUCKETS, in_block = index % BLOCK_BUCKETS;
    uint32_t had = first_block_buckets(block > 0 ? BLOCK_BUCKETS : index + 1), wanted;

    if (block > 0) {
        if (in_block == 0) {
            mem_free(dict->blocks[block]);
            dict->bytes -= BLOCK_BUCKETS * sizeof(struct dict_bucket);
        }
        return;
    }
    wanted = first_block_buckets(index);
    if (wanted < had) {
        void *made = mem_realloc(dict->blocks[0], wanted * sizeof(struct dict_bucket));

        ASSERT(made != NULL); /* to a smaller size */
        dict->blocks[0] = made;
        dict->bytes -= (had - wanted) * sizeof(struct dict_bucket);
    }
}

static int create_first(struct dict *dict)
{
    int err = bucket_make(dict, 0);

    if (err != 0)
        return err;
    for (uint32_t i = 0; i < BUCKETS_MIN; i++)
        bucket_at(dict, i)->used = 0;
    dict->bucket_count = BUCKETS_MIN;
    dict->mask = BUCKETS_MIN - 1;
    return 0;
}

/* Moves to `target` what the new mask sends there; order is kept in both. */
static int split(struct dict *dict, struct dict_bucket *source, struct dict_bucket *target,
                 uint32_t target_index, uint32_t mask)
{
    struct chain_place from, to, moved;
    uint32_t kept = 0;

    for (from = chain_begin(source); chain_is_at_item(&from); chain_step(&from)) {
        char *item = chain_item(&from);

        if (((uint32_t)dict_hash(dict_item_key(item)) & mask) == target_index &&
            chain_append(dict, target, from.bucket->tags[from.place], item) != 0) {
            chain_truncate(dict, target, 0);
            return ERR_FULL;
        }
    }
    moved = chain_begin(target);
    to = chain_begin(source);
    for (from = chain_begin(source); chain_is_at_item(&from); chain_step(&from)) {
        if (chain_is_at_item(&moved) && chain_item(&moved) == chain_item(&from)) {
            chain_step(&moved);
            continue;
        }
        (void)chain_is_at_item(&to); /* into the overflow bucket where it is due */
        to.bucket->tags[to.place] = from.bucket->tags[from.place];
        place_set(to.bucket, to.place, chain_item(&from));
        chain_step(&to);
        kept++;
    }
    chain_truncate(dict, source, kept);
    return 0;
}

/* One bucket more. Where there is no memory for it the table just stays fuller. */
static void grow(struct dict *dict)
{
    uint32_t index = dict->bucket_count;
    uint32_t mask = index > dict->mask ? dict->mask * 2 + 1 : dict->mask;
    struct dict_bucket *target;

    if (index >= UINT32_MAX / 2 || bucket_make(dict, index) != 0)
        return;
    target = bucket_at(dict, index);
    target->used = 0;
    if (split(dict, bucket_at(dict, index & (mask >> 1)), target, index, mask) != 0) {
        bucket_unmake(dict, index);
        return;
    }
    dict->bucket_count++;
    dict->mask = mask;
}

void dict_expect(struct dict *dict, uint64_t count)
{
    uint64_t wanted = MIN(count / ITEMS_GROW, (uint64_t)UINT32_MAX / 2);

    ASSERT(dict->count == 0);
    if (wanted <= BUCKETS_MIN || (dict->bucket_count == 0 && create_first(dict) != 0))
        return;
    while (dict->bucket_count < wanted && bucket_make(dict, dict->bucket_count) == 0) {
        bucket_at(dict, dict->bucket_count)->used = 0;
        if (dict->bucket_count > dict->mask)
            dict->mask = dict->mask * 2 + 1;
        dict->bucket_count++;
    }
}

void dict_prefetch(const struct dict *dict, uint64_t hash)
{
    if (dict->bucket_count > 0)
        __builtin_prefetch(bucket_of(dict, hash), 1, 3);
}

static void shrink_directory(struct dict *dict)
{
    uint32_t cap = dict->block_cap / 2;
    void *made;

    if ((dict->bucket_count - 1) / BLOCK_BUCKETS + 1 > cap / 2 || cap == 0)
        return;
    made = mem_realloc(dict->blocks, cap * sizeof(dict->blocks[0]));
    if (made == NULL)
        return;
    dict->blocks = made;
    dict->bytes -= heap_class(dict->block_cap * sizeof(dict->blocks[0])) -
                   heap_class(cap * sizeof(dict->blocks[0]));
    dict->block_cap = cap;
}

/* One bucket less. */
static void shrink(struct dict *dict)
{
    uint32_t index = dict->bucket_count - 1;
    struct dict_bucket *source = bucket_at(dict, index);
    struct dict_bucket *target = bucket_at(dict, index & (dict->mask >> 1));
    uint32_t had = chain_len(target);

    for (struct chain_place p = chain_begin(source); chain_is_at_item(&p); chain_step(&p)) {
        if (chain_append(dict, target, p.bucket->tags[p.place], chain_item(&p)) != 0) {
            chain_truncate(dict, target, had);
            return;
        }
    }
    chain_truncate(dict, source, 0);
    bucket_unmake(dict, index);
    dict->bucket_count--;
    if (dict->bucket_count - 1 == dict->mask >> 1)
        dict->mask >>= 1;
    shrink_directory(dict);
}

/* ---- items ---------------------------------------------------------------------------------- */

char *dict_find(const struct dict *dict, uint64_t hash, struct bytes key)
{
    struct chain_place p;

    if (dict->count == 0 || !chain_find(bucket_of(dict, hash), tag_of(hash), &key, NULL, &p))
        return NULL;
    return chain_item(&p);
}

int dict_insert(struct dict *dict, uint64_t hash, char *item)
{
    int err;

    if (dict->bucket_count == 0) {
        err = create_first(dict);
        if (err != 0)
            return err;
    }
    err = chain_append(dict, bucket_of(dict, hash), tag_of(hash), item);
    if (err != 0)
        return err;
    dict->count++;
    if (dict->count > (uint64_t)dict->bucket_count * ITEMS_GROW)
        grow(dict);
    return 0;
}

char *dict_remove(struct dict *dict, uint64_t hash, struct bytes key)
{
    struct dict_bucket *bucket;
    struct chain_place p;
    char *item, *last;
    uint8_t tag;

    if (dict->count == 0)
        return NULL;
    bucket = bucket_of(dict, hash);
    if (!chain_find(bucket, tag_of(hash), &key, NULL, &p))
        return NULL;
    item = chain_item(&p);
    last = chain_pop(dict, bucket, &tag);
    if (last != item) { /* otherwise its place may be gone with its bucket */
        p.bucket->tags[p.place] = tag;
        place_set(p.bucket, p.place, last);
    }
    dict->count--;
    if (dict->bucket_count > BUCKETS_MIN &&
        dict->count < (uint64_t)dict->bucket_count * ITEMS_SHRINK)
        shrink(dict);
    return item;
}

void dict_replace(struct dict *dict, uint64_t hash, const char *old, char *now)
{
    struct chain_place p;
    bool found = chain_find(bucket_of(dict, hash), tag_of(hash), NULL, old, &p);

    ASSERT(found);
    place_set(p.bucket, p.place, now);
}

/* ---- walks ---------------------------------------------------------------------------------- */

static uint64_t reversed(uint64_t bits)
{
    bits = (bits >> 1 & 0x5555555555555555u) | (bits & 0x5555555555555555u) << 1;
    bits = (bits >> 2 & 0x3333333333333333u) | (bits & 0x3333333333333333u) << 2;
    bits = (bits >> 4 & 0x0f0f0f0f0f0f0f0fu) | (bits & 0x0f0f0f0f0f0f0f0fu) << 4;
    return __builtin_bswap64(bits);
}

/* The bucket that the cursor points into, and where the next one in reversed order starts. */
static struct dict_bucket *scan_bucket(const struct dict *dict, uint64_t *cursor)
{
    uint32_t half = dict->mask >> 1, low = (uint32_t)*cursor & half;
    /* A bucket that was not split yet goes by one bit less. */
    uint32_t mask = (uint64_t)low + half + 1 < dict->bucket_count ? dict->mask : half;
    struct dict_bucket *bucket = bucket_at(dict, (uint32_t)*cursor & mask);

    *cursor = reversed(reversed(*cursor | ~(uint64_t)mask) + 1);
    return bucket;
}

uint64_t dict_scan(const struct dict *dict, uint64_t cursor, dict_each_fn each, void *arg)
{
    if (dict->count == 0)
        return 0;
    for (struct chain_place p = chain_begin(scan_bucket(dict, &cursor)); chain_is_at_item(&p);
         chain_step(&p))
        each(arg, chain_item(&p));
    return cursor;
}

static void prefetch_items(const struct dict_bucket *bucket)
{
    for (uint32_t i = 0; i < bucket_items(bucket); i++)
        __builtin_prefetch(place_get(bucket, i), 0, 3);
}

struct sort_item {
    uint64_t order;
    char *item;
};

static bool sort_is_before(const struct sort_item *a, const struct sort_item *b)
{
    struct bytes x, y;
    int order;

    if (a->order != b->order)
        return a->order < b->order;
    item_read(a->item, &x);
    item_read(b->item, &y);
    order = memcmp(x.data, y.data, MIN(x.len, y.len));
    return order != 0 ? order < 0 : x.len < y.len;
}

/* Insertion sort: a bucket has a handful. */
static void sort_bucket(struct dict_bucket *bucket, struct sort_item *items, dict_each_fn each, void *arg)
{
    uint32_t count = 0;

    for (struct chain_place p = chain_begin(bucket); chain_is_at_item(&p); chain_step(&p)) {
        struct sort_item item = {.item = chain_item(&p)};
        uint32_t at = count++;

        item.order = reversed(dict_hash(dict_item_key(item.item)));
        for (; at > 0 && sort_is_before(&item, &items[at - 1]); at--)
            items[at] = items[at - 1];
        items[at] = item;
    }
    for (uint32_t i = 0; i < count; i++)
        each(arg, items[i].item);
}

/* Neighbours in that order lie far apart: buckets are on their way from when they are put here, their items from the middle. */
struct sort_ahead {
    struct dict_bucket *buckets[SORT_AHEAD];
    uint32_t first, count;
    uint64_t cursor;
    bool is_over;
};

static void sort_ahead_fill(struct sort_ahead *ahead, const struct dict *dict)
{
    while (ahead->count < SORT_AHEAD && !ahead->is_over) {
        struct dict_bucket *bucket = scan_bucket(dict, &ahead->cursor);

        __builtin_prefetch(bucket, 0, 3);
        ahead->buckets[(ahead->first + ahead->count++) % SORT_AHEAD] = bucket;
        ahead->is_over = ahead->cursor == 0;
    }
}

static struct dict_bucket *sort_ahead_take(struct sort_ahead *ahead)
{
    struct dict_bucket *bucket = ahead->buckets[ahead->first];

    if (ahead->count > SORT_AHEAD / 2)
        prefetch_items(ahead->buckets[(ahead->first + SORT_AHEAD / 2) % SORT_AHEAD]);
    ahead->first = (ahead->first + 1) % SORT_AHEAD;
    ahead->count--;
    return bucket;
}

int dict_sorted(const struct dict *dict, dict_each_fn each, void *arg)
{
    struct sort_item on_stack[SORT_STACK], *items = on_stack;
    struct sort_ahead ahead = {0};

    if (dict->count == 0)
        return 0;
    if (dict->chain_len_max > SORT_STACK) {
        items = mem_alloc(dict->chain_len_max * sizeof(*items));
        if (items == NULL)
            return ERR_FULL;
    }
    sort_ahead_fill(&ahead, dict);
    while (ahead.count > 0) {
        struct dict_bucket *bucket = sort_ahead_take(&ahead);

        sort_ahead_fill(&ahead, dict);
        sort_bucket(bucket, items, each, arg);
    }
    if (items != on_stack)
        mem_free(items);
    return 0;
}

/* Buckets hold different numbers of items, so a bucket alone would favour the lonely: a bucket and a place are
 * drawn together, among as many places as the longest has, until there is an item. */
char *dict_random(const struct dict *dict, uint64_t random)
{
    if (dict->count == 0)
        return NULL;
    for (;;) {
        uint64_t number = draw_u64(&random);
        uint32_t index = (uint32_t)(((number >> 32) * dict->bucket_count) >> 32);
        uint32_t place = (uint32_t)(((number & UINT32_MAX) * dict->chain_len_max) >> 32);
        const struct dict_bucket *bucket = bucket_at(dict, index);

        while (bucket_is_chained(bucket) && place >= PLACES - 1) {
            place -= PLACES - 1;
            bucket = bucket_overflow(bucket);
        }
        if (place < bucket_items(bucket))
            return place_get(bucket, place);
    }
}

void dict_walk_init(struct dict_walk *walk, const struct dict *dict)
{
    *walk = (struct dict_walk){.dict = dict};
    if (dict->bucket_count > 0)
        walk->bucket = bucket_at(dict, 0);
}

char *dict_walk_next(struct dict_walk *walk)
{
    while (walk->bucket != NULL) {
        if (walk->place < bucket_items(walk->bucket))
            return place_get(walk->bucket, walk->place++);
        walk->place = 0;
        if (bucket_is_chained(walk->bucket)) {
            walk->bucket = bucket_overflow(walk->bucket);
        } else if (++walk->bucket_index < walk->dict->bucket_count) {
            walk->bucket = bucket_at(walk->dict, walk->bucket_index);
            /* The items of the next bucket are on their way while this one's are looked at. */
            if (walk->bucket_index + 1 < walk->dict->bucket_count)
                prefetch_items(bucket_at(walk->dict, walk->bucket_index + 1));
        } else {
            walk->bucket = NULL;
        }
    }
    return NULL;
}

/* ---- samples -------------------------------------------------------------------------------- */

/* All are walked through, and some taken. */
static void sample_walk(const struct dict *dict, struct draw_sample *sample, dict_each_fn each, void *arg)
{
    struct dict_walk walk;

    dict_walk_init(&walk, dict);
    while (sample->wanted > 0) {
        char *item = dict_walk_next(&walk);

        if (draw_takes(sample))
            each(arg, item);
    }
}

/* Whether it is new in the table of addresses, which has room. */
static bool seen_add(char **seen, uint64_t mask, char *item)
{
    uint64_t state = (uint64_t)(uintptr_t)item;
    uint64_t at = draw_u64(&state) & mask;

    for (; seen[at] != NULL; at = (at + 1) & mask)
        if (seen[at] == item)
            return false;
    seen[at] = item;
    return true;
}

void dict_sample(const struct dict *dict, uint64_t wanted, uint64_t random, dict_each_fn each, void *arg)
{
    struct draw_sample sample = {.random = random, .left = dict->count};
    uint64_t mask;
    char **seen = NULL;

    sample.wanted = wanted = MIN(wanted, dict->count);
    if (wanted == 0)
        return;
    mask = (1ull << (65 - __builtin_clzll(wanted))) - 1; /* at most half full */
    if (wanted * 3 <= dict->count)
        seen = mem_zalloc((mask + 1) * sizeof(seen[0]));
    if (seen == NULL) {
        sample_walk(dict, &sample, each, arg);
        return;
    }
    while (wanted > 0) {
        char *item = dict_random(dict, draw_u64(&random));

        if (seen_add(seen, mask, item)) {
            each(arg, item);
            wanted--;
        }
    }
    mem_free(seen);
}

/* ---- end ------------------------------------------------------------------------------------ */

bool dict_clear_step(struct dict *dict, uint32_t max, dict_each_fn each, void *arg)
{
    uint8_t tag;

    for (uint32_t done = 0; dict->bucket_count > 0 && done < MAX(max, 1u); done++) {
        uint32_t index = dict->bucket_count - 1;
        struct dict_bucket *bucket = bucket_at(dict, index);

        if (bucket->used > 0) {
            char *item = chain_pop(dict, bucket, &tag);

            dict->count--;
            if (each != NULL)
                each(arg, item);
            continue;
        }
        if (index % BLOCK_BUCKETS == 0) {
            mem_free(dict->blocks[index / BLOCK_BUCKETS]);
            dict->blocks[index / BLOCK_BUCKETS] = NULL;
        }
        dict->bucket_count--;
    }
    if (dict->bucket_count > 0)
        return false;
    ASSERT(dict->count == 0);
    dict_deinit(dict);
    return true;
}

void dict_deinit(struct dict *dict)
{
    if (dict->bucket_count > 0) {
        while (!dict_clear_step(dict, UINT32_MAX, NULL, NULL))
            ;
        return;
    }
    mem_free(dict->blocks);
    *dict = (struct dict){0};
}
