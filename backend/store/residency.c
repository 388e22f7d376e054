/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/residency.h"

#include "common/base/err.h"
#include "common/base/list.h"
#include "common/base/mem.h"

/* A value goes on to main when it was used that often: the first is that of the command that brought it in, and one more
 * may be left from its life before (fetch.c). */
#define PROMOTE_USES    3u
#define SMALL_SHARE     10u /* small's part of the memory: 1 / that */
#define SMALL_DRAIN_MAX 2u  /* hashes that one new one may push out */
#define FULL_SHARE      32u /* memory is about to be asked for when less than 1 / that of it is left */
/* Buckets without a value of main that the hand passes before small has to give, however little it has. */
#define BARREN_MAX 64u

/* ---- small: a FIFO in blocks -------------------------------------------------------------- */

#define BLOCK_ITEMS 1360u

struct small_item {
    uint64_t hash;
    uint32_t size; /* clipped */
} __attribute__((packed));

struct small_block {
    struct queue_node node;
    uint32_t first, end; /* items [first, end) are in */
    struct small_item items[BLOCK_ITEMS];
};

struct small {
    struct queue blocks;
    struct small_block *tail; /* of `blocks`; NULL: empty */
    uint64_t count, bytes, block_count;
};

static bool small_push(struct small *small, uint64_t hash, size_t size)
{
    struct small_block *block = small->tail;
    uint32_t clipped = (uint32_t)MIN(size, (size_t)UINT32_MAX);

    if (block == NULL || block->end == BLOCK_ITEMS) {
        block = mem_alloc(sizeof(*block));
        if (block == NULL)
            return false;
        block->first = block->end = 0;
        queue_push(&small->blocks, &block->node);
        small->tail = block;
        small->block_count++;
    }
    block->items[block->end++] = (struct small_item){hash, clipped};
    small->count++;
    small->bytes += clipped;
    return true;
}

static bool small_pop(struct small *small, uint64_t *hash)
{
    struct small_block *block;

    if (small->count == 0)
        return false;
    block = CONTAINER_OF(small->blocks.first, struct small_block, node);
    ASSERT(block->first < block->end);
    *hash = block->items[block->first].hash;
    small->bytes -= block->items[block->first].size;
    small->count--;
    block->first++;
    if (block->first == block->end) {
        MAYBE(queue_pop(&small->blocks));
        if (small->tail == block)
            small->tail = NULL;
        small->block_count--;
        mem_free(block);
    }
    return true;
}

/* ---- ghost: fingerprints of what was spilled from small ----------------------------------- */

/* Buckets of eight, each a FIFO of its own: as hashes are spread evenly that is nearly one long FIFO. 0 is an
 * empty place. */
#define GHOST_PLACES      8u
#define GHOST_BUCKETS_MIN 64u
#define GHOST_BUCKETS_MAX (1u << 18) /* 4 MiB, 2 million fingerprints */

struct ghost {
    uint16_t (*buckets)[GHOST_PLACES]; /* owns; NULL: nothing was spilled yet */
    uint32_t bucket_count;             /* a power of two */
};

static uint16_t fingerprint_of(uint64_t hash)
{
    uint16_t fingerprint = (uint16_t)(hash >> 40);

    return fingerprint != 0 ? fingerprint : 1;
}

/* Follows the number of hot values by halves and doubles. A bucket that doubles is copied to both: what does not
 * belong there matches nothing, and is pushed out in time. */
static void ghost_resize(struct ghost *ghost, uint64_t hot_count)
{
    uint64_t aim = MIN(hot_count / GHOST_PLACES, (uint64_t)GHOST_BUCKETS_MAX);
    uint32_t count = MAX(ghost->bucket_count, GHOST_BUCKETS_MIN);
    uint16_t(*buckets)[GHOST_PLACES];

    while (count < aim)
        count *= 2;
    while (count / 4 >= aim && count > GHOST_BUCKETS_MIN)
        count /= 2;
    if (count == ghost->bucket_count)
        return;
    buckets = mem_zalloc((size_t)count * sizeof(*buckets));
    if (buckets == NULL)
        return; /* the old size does too */
    for (uint32_t i = 0; i < count && ghost->buckets != NULL; i++)
        memcpy(buckets[i], ghost->buckets[i & (ghost->bucket_count - 1)], sizeof(*buckets));
    mem_free(ghost->buckets);
    ghost->buckets = buckets;
    ghost->bucket_count = count;
}

static void ghost_add(struct ghost *ghost, uint64_t hash)
{
    uint16_t *bucket;

    if (ghost->buckets == NULL)
        return;
    bucket = ghost->buckets[hash & (ghost->bucket_count - 1)];
    memmove(bucket + 1, bucket, (GHOST_PLACES - 1) * sizeof(*bucket));
    bucket[0] = fingerprint_of(hash);
}

static bool ghost_take(struct ghost *ghost, uint64_t hash)
{
    uint16_t fingerprint = fingerprint_of(hash), *bucket;

    if (ghost->buckets == NULL)
        return false;
    bucket = ghost->buckets[hash & (ghost->bucket_count - 1)];
    for (unsigned i = 0; i < GHOST_PLACES; i++) {
        if (bucket[i] != fingerprint)
            continue;
        memmove(bucket + i, bucket + i + 1, (GHOST_PLACES - 1 - i) * sizeof(*bucket));
        bucket[GHOST_PLACES - 1] = 0;
        return true;
    }
    return false;
}

/* ---- the whole ---------------------------------------------------------------------------- */

struct residency {
    struct index *index; /* borrows */
    struct small small;
    struct ghost ghost;
    uint64_t hand; /* bucket */
    uint32_t barren; /* buckets without a value of main that it has passed; less one for each of small that went for it */
    uint64_t small_bytes_max;
    bool is_feeding, is_full, offers_cold;
    struct residency_stats stats;
};

int residency_create(struct index *index, struct residency **out)
{
    struct residency *r = mem_zalloc(sizeof(*r));

    if (r == NULL)
        return ERR_FULL;
    r->index = index;
    queue_init(&r->small.blocks);
    *out = r;
    return 0;
}

void residency_destroy(struct residency **residency)
{
    struct residency *r = *residency;
    struct queue_node *node;

    if (r == NULL)
        return;
    while ((node = queue_pop(&r->small.blocks)) != NULL)
        mem_free(CONTAINER_OF(node, struct small_block, node));
    mem_free(r->ghost.buckets);
    mem_free(r);
    *residency = NULL;
}

void residency_pressure_set(struct residency *r, uint64_t memory_bytes, uint64_t memory_max,
                            uint64_t hot_count)
{
    r->small_bytes_max = memory_max / SMALL_SHARE;
    r->is_feeding = memory_max != 0 && memory_bytes > memory_max / 2; /* R3 */
    r->is_full = memory_max != 0 && memory_bytes > memory_max - memory_max / FULL_SHARE;
    if (r->is_feeding)
        ghost_resize(&r->ghost, hot_count);
}

void residency_offer_cold(struct residency *r, bool on)
{
    r->offers_cold = on;
}

static void entry_promote(struct entry *entry, uint8_t access)
{
    entry->type_flags |= ENTRY_MAIN;
    entry_access_set(entry, access);
}

/* The oldest of small, if it is still a value of small (R2). False: small is empty. */
static bool small_oldest(struct residency *r, uint64_t *hash, struct entry **out)
{
    struct entry *entry;

    if (!small_pop(&r->small, hash))
        return false;
    entry = index_find_hash(r->index, *hash);
    if (entry != NULL && (entry_is_cold(entry) || (entry->type_flags & ENTRY_MAIN)))
        entry = NULL;
    *out = entry;
    return true;
}

/* More is new than small may hold, and no memory is asked for: what comes out stays hot. It brings its uses
 * along, so the hand takes what was never used as soon as it sees it. */
static void small_drain(struct residency *r)
{
    struct entry *entry;
    uint64_t hash;

    for (unsigned i = 0; i < SMALL_DRAIN_MAX && r->small.bytes > r->small_bytes_max; i++)
        if (small_oldest(r, &hash, &entry) && entry != NULL)
            entry_promote(entry, entry_access(entry));
}

bool residency_inserted(struct residency *r, uint64_t hash, size_t size)
{
    if (!r->is_feeding)
        return true;
    if (ghost_take(&r->ghost, hash)) {
        r->stats.ghost_hits++;
        return true;
    }
    /* Memory will be asked for soon: small gives what it has too much then (R4). What is drained would be main's. */
    if (!r->is_full) {
        /* Room first: then this one, which the caller has yet to write, cannot be what comes out. */
        small_drain(r);
        if (r->small.bytes > r->small_bytes_max)
            return true;
    }
    return !small_push(&r->small, hash, size);
}

/* The next ones are known, so where they are can be on its way: first the bucket, then what is in it. */
#define SMALL_AHEAD 8u /* items */

static void small_ahead(const struct residency *r, uint32_t from)
{
    const struct small_block *block = CONTAINER_OF(r->small.blocks.first, struct small_block, node);
    uint32_t at = block->first + from;

    if (at < block->end)
        index_prefetch(r->index, block->items[at].hash);
    if (from >= SMALL_AHEAD / 2 && at - SMALL_AHEAD / 2 < block->end)
        index_prefetch_entry(r->index, block->items[at - SMALL_AHEAD / 2].hash);
}

/* One call of residency_spill(). */
struct spilling {
    struct residency *residency;
    residency_spill_fn spill;
    void *arg;
    uint64_t freed;
    uint32_t looked; /* at entries */
    bool found_main; /* in the bucket just passed */
    bool is_ahead;   /* of small */
};

static void spill_small(struct spilling *s)
{
    struct residency *r = s->residency;
    struct entry *entry;
    uint64_t hash, freed;

    s->looked++;
    for (uint32_t from = s->is_ahead ? SMALL_AHEAD : 0; from <= SMALL_AHEAD; from++)
        small_ahead(r, from);
    s->is_ahead = true;
    if (!small_oldest(r, &hash, &entry) || entry == NULL)
        return;
    if (entry_access(entry) >= PROMOTE_USES) {
        r->stats.promoted++;
        entry_promote(entry, 1);
        return;
    }
    freed = s->spill(s->arg, entry);
    if (freed == 0) {
        /* Not now: the hand will try again. */
        r->stats.refused++;
        entry_promote(entry, 0);
        return;
    }
    r->stats.spilled_small++;
    s->freed += freed;
    ghost_add(&r->ghost, hash);
}

static void hand_each(void *arg, struct entry *entry)
{
    struct spilling *s = arg;
    uint8_t access;
    uint64_t freed;

    s->looked++;
    /* With small empty, nothing can be in it, whatever an entry says. */
    if (!entry_is_cold(entry) && (entry->type_flags & ENTRY_MAIN) == 0 && s->residency->small.count > 0)
        return;
    s->found_main = true;
    access = entry_access(entry);
    if (access > 0) {
        entry_access_set(entry, (uint8_t)(access - 1));
        return;
    }
    freed = s->spill(s->arg, entry);
    s->freed += freed;
    if (freed == 0)
        s->residency->stats.refused++;
    else
        s->residency->stats.spilled_main++;
}

uint64_t residency_spill(struct residency *r, uint64_t need, uint32_t budget,
                         residency_spill_fn spill, void *arg)
{
    struct spilling s = {.residency = r, .spill = spill, .arg = arg};

    while (s.freed < need && s.looked < budget) {
        if (r->small.count > 0 && (r->small.bytes >= r->small_bytes_max || r->barren > BARREN_MAX)) {
            r->barren -= r->barren > BARREN_MAX;
            spill_small(&s);
            continue;
        }
        s.found_main = false;
        r->hand = (r->offers_cold ? index_sweep : index_sweep_hot)(r->index, r->hand, hand_each, &s);
        s.looked++; /* empty buckets cost too */
        r->barren = s.found_main ? 0 : MIN(r->barren + 1, BARREN_MAX + 1);
    }
    return s.freed;
}

void residency_stats_get(const struct residency *r, struct residency_stats *out)
{
    *out = r->stats;
    out->small_count = r->small.count;
    out->small_bytes = r->small.bytes;
    out->ghost_count_max = (uint64_t)r->ghost.bucket_count * GHOST_PLACES;
    out->memory_bytes = r->small.block_count * sizeof(struct small_block) +
                        r->ghost.bucket_count * sizeof(*r->ghost.buckets) + sizeof(*r);
}
