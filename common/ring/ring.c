/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings: built once, then looked up millions of times a second.
 *
 * ketama's circle is two flat arrays, values and owners, behind an index on the top bits of the
 * hash:
 *
 *   starts[hash >> shift] --> values[ .. | v5 v6 | v7 .. ]   first value >= hash, some one step
 * away owners[ .. | o5 o6 | o7 .. ]
 *
 *   I1  starts[b] is the index of the first value that is >= b << shift.
 *   I2  One entry follows the last point: value UINT32_MAX, owner that of point 0. So the walk
 * needs no bound, and wrapping round costs nothing. I3  Points are sorted by value, then by server
 * index: glibc's qsort is a stable merge sort, so nutcracker resolves a collision the same way.
 *
 * There are as many starts as points or more, so a walk is one step long on average. Why not a
 * binary search: eleven unpredictable branches for ten servers, 40 ns; this is about 5.
 */
#include "config.h"

#include "common/ring/ring.h"

#include "common/base/mem.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* nutcracker's own arithmetic is single precision; excess precision would move keys. */
_Static_assert(FLT_EVAL_METHOD == 0, "ketama needs floats that are floats");

#define KETAMA_POINTS_PER_SERVER 160
#define KETAMA_POINTS_PER_HASH   4
#define KETAMA_LABEL_SIZE_MAX    273 /* with NUL; nutcracker cuts "label-n" there */
#define UNIT_TABLE_MAX           (1u << 16)
#define RING_BY_KEY              (UINT32_MAX - 1) /* not a shortcut: look at the key */

struct range_entry {
    struct bytes from, to;
    uint32_t owner;
};

struct ring {
    struct ring_options options;
    uint32_t only; /* every key's server (or RING_NONE), or RING_BY_KEY */
    uint32_t count, live_count, gap_count;
    bool *is_live;       /* [count]; jump */
    struct bytes *names; /* [count], into text */
    uint32_t *shares;    /* [count], see ring_server_share() */
    char *text;          /* owns the bytes of names and ranges */
    uint64_t fingerprint;

    /* ketama */
    uint32_t *values;
    uint16_t *owners;
    uint32_t *starts;
    unsigned shift;

    /* modula, random, jump: server i holds the units unit_ends[i - 1] .. unit_ends[i] - 1 */
    uint32_t unit_count;
    uint64_t unit_magic;   /* for the remainder by unit_count, see fast_mod() */
    uint32_t *unit_ends;   /* [count] */
    uint16_t *unit_owners; /* [unit_count], or NULL where that would be long */

    /* slots: [HASH_SLOT_COUNT], UINT16_MAX: nobody */
    uint16_t *slot_owners;

    /* range: sorted by from */
    struct range_entry *ranges;
    uint32_t ranges_count;
};

static const char *const distribution_names[RING_DISTRIBUTION_COUNT] = {
#define X(name) [RING_##name] = #name,
    RING_DISTRIBUTION_TABLE(X)
#undef X
};

const char *ring_distribution_name(enum ring_distribution distribution)
{
    ASSERT(distribution < RING_DISTRIBUTION_COUNT);
    return distribution_names[distribution];
}

bool ring_distribution_by_name(struct bytes name, enum ring_distribution *out)
{
    for (unsigned i = 0; i < RING_DISTRIBUTION_COUNT; i++) {
        if (bytes_equal(name, bytes_of_string(distribution_names[i]))) {
            *out = (enum ring_distribution)i;
            return true;
        }
    }
    return false;
}

/* Lemire, Kaser, Kurz: "Faster remainder by direct computation" (2019). Exact for 32 bits. */
static uint64_t fast_mod_magic(uint32_t divisor)
{
    return UINT64_MAX / divisor + 1;
}

static inline uint32_t fast_mod(uint32_t value, uint64_t magic, uint32_t divisor)
{
    return (uint32_t)(((__uint128_t)(magic * value) * divisor) >> 64);
}

/* The finalizer of MurmurHash3: a second opinion on the same hash. */
static uint32_t mix32(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ x >> 16;
}

/* ---- ketama ------------------------------------------------------------------------------------
 */

/* Every intermediate result is rounded to single precision, as nutcracker's are: for 25 equal
 * servers this gives 156, not 160. */
static uint32_t ketama_point_count(uint32_t weight, uint32_t weight_total, uint32_t live_count)
{
    float share = (float)weight / (float)weight_total;
    float hashes = share * (float)KETAMA_POINTS_PER_SERVER;

    hashes = hashes / (float)KETAMA_POINTS_PER_HASH;
    hashes = hashes * (float)live_count;
    hashes = floorf((float)((double)hashes + 0.0000000001));
    return (uint32_t)(hashes * (float)KETAMA_POINTS_PER_HASH);
}

static int compare_u64(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

/* Writes the points of one server, value in the upper half and owner in the lower. */
static void ketama_add_points(struct bytes label, uint32_t owner, uint32_t count, uint64_t *points)
{
    char text[KETAMA_LABEL_SIZE_MAX];

    for (uint32_t i = 0; i < count / KETAMA_POINTS_PER_HASH; i++) {
        int len = snprintf(text, sizeof(text), "%.*s-%u", BYTES_ARG(label), (unsigned)i);
        uint8_t digest[HASH_MD5_SIZE];

        hash_md5_digest(bytes_of(text, MIN((size_t)len, sizeof(text) - 1)), digest);
        for (unsigned part = 0; part < KETAMA_POINTS_PER_HASH; part++) {
            const uint8_t *p = digest + part * 4;
            uint32_t value =
                (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;

            *points++ = (uint64_t)value << 32 | owner;
        }
    }
}

/* Fills values, owners and starts from sorted points. */
static int ketama_index(struct ring *ring, const uint64_t *points, uint32_t count)
{
    unsigned bits = 1;
    uint32_t index = 0;

    /* Twice as many buckets as points, at least: most look-ups end at the bucket's first point. */
    while (bits < 31 && (1u << bits) < 2 * count)
        bits++;
    ring->shift = 32 - bits;
    ring->values = mem_alloc(((size_t)count + 1) * sizeof(*ring->values));
    ring->owners = mem_alloc(((size_t)count + 1) * sizeof(*ring->owners));
    ring->starts = mem_alloc(((size_t)1 << bits) * sizeof(*ring->starts));
    if (ring->values == NULL || ring->owners == NULL || ring->starts == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        ring->values[i] = (uint32_t)(points[i] >> 32);
        ring->owners[i] = (uint16_t)points[i];
    }
    ring->values[count] = UINT32_MAX;
    ring->owners[count] = ring->owners[0];
    for (uint32_t bucket = 0; bucket < 1u << bits; bucket++) {
        while (index < count && ring->values[index] < bucket << ring->shift)
            index++;
        ring->starts[bucket] = index;
    }
    return 0;
}

static int ketama_build(struct ring *ring, const struct ring_server *servers)
{
    uint64_t *points, weight_total = 0, point_total = 0;
    uint32_t done = 0;
    int err;

    for (uint32_t i = 0; i < ring->count; i++)
        weight_total += ring->is_live[i] ? servers[i].weight : 0;
    for (uint32_t i = 0; i < ring->count; i++) {
        if (ring->is_live[i])
            ring->shares[i] =
                ketama_point_count(servers[i].weight, (uint32_t)weight_total, ring->live_count);
        point_total += ring->shares[i];
    }
    if (ring->live_count == 0)
        return 0;
    ASSERT(point_total > 0 && point_total < UINT32_MAX);
    points = mem_alloc(point_total * sizeof(*points));
    if (points == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < ring->count; i++) {
        ketama_add_points(ring->names[i], i, ring->shares[i], points + done);
        done += ring->shares[i];
    }
    qsort(points, done, sizeof(*points), compare_u64);
    err = ketama_index(ring, points, done);
    mem_free(points);
    return err;
}

static inline uint32_t ketama_lookup(const struct ring *ring, uint32_t hash)
{
    uint32_t index = ring->starts[hash >> ring->shift];

    /* Nearly always the first or the second; counting costs less than a branch that nobody can guess. */
    index += ring->values[index] < hash;
    while (UNLIKELY(ring->values[index] < hash))
        index++;
    return ring->owners[index];
}

/* ---- modula, random, jump
 * ------------------------------------------------------------------------- */

/* Gives every server its units: its weight (random: one), in array order. */
static int units_build(struct ring *ring, const struct ring_server *servers)
{
    uint32_t end = 0;

    ring->unit_ends = mem_alloc(ring->count * sizeof(*ring->unit_ends));
    if (ring->unit_ends == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < ring->count; i++) {
        /* jump keeps the units of dead servers, so that nobody else's keys move. */
        bool takes_part =
            ring->options.distribution == RING_jump ? servers[i].weight > 0 : ring->is_live[i];

        if (takes_part)
            end += ring->options.distribution == RING_random ? 1 : servers[i].weight;
        if (ring->is_live[i])
            ring->shares[i] = servers[i].weight;
        ring->unit_ends[i] = end;
    }
    ring->unit_count = end;
    if (end == 0)
        return 0;
    ring->unit_magic = fast_mod_magic(end);
    if (end > UNIT_TABLE_MAX)
        return 0;
    ring->unit_owners = mem_alloc(end * sizeof(*ring->unit_owners));
    if (ring->unit_owners == NULL)
        return -ENOMEM;
    for (uint32_t i = 0, unit = 0; i < ring->count; i++) {
        for (; unit < ring->unit_ends[i]; unit++)
            ring->unit_owners[unit] = (uint16_t)i;
    }
    return 0;
}

static inline uint32_t unit_owner(const struct ring *ring, uint32_t unit)
{
    uint32_t low = 0, high = ring->count - 1;

    DCHECK(unit < ring->unit_count);
    if (LIKELY(ring->unit_owners != NULL))
        return ring->unit_owners[unit];
    while (low < high) { /* the first server whose units end above */
        uint32_t middle = low + (high - low) / 2;

        if (ring->unit_ends[middle] > unit)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static uint32_t jump_unit(uint64_t key, uint32_t count)
{
    int64_t unit = -1, next = 0;

    while (next < (int64_t)count) {
        unit = next;
        key = key * 2862933555777941757u + 1;
        next = (int64_t)((double)(unit + 1) * (2147483648.0 / (double)((key >> 33) + 1)));
    }
    return (uint32_t)unit;
}

/* A dead server's keys jump again with another hash, each on its own, until they meet a live one.
 */
static uint32_t jump_lookup(const struct ring *ring, uint32_t hash)
{
    const uint32_t attempts_max = 32;
    uint32_t owner = 0;

    for (uint32_t attempt = 0; attempt < attempts_max; attempt++) {
        owner = unit_owner(ring, jump_unit(hash, ring->unit_count));
        if (LIKELY(ring->is_live[owner]))
            return owner;
        hash = mix32(hash + 0x9e3779b9u);
    }
    /* Nearly all weight is dead. The next live one; there is one, or `only` would have answered. */
    do
        owner = owner + 1 < ring->count ? owner + 1 : 0;
    while (!ring->is_live[owner]);
    return owner;
}

/* ---- slots
 * ---------------------------------------------------------------------------------------- */

static void slots_split_evenly(struct ring *ring, const struct ring_server *servers)
{
    uint64_t total = 0, sum = 0;

    for (uint32_t i = 0; i < ring->count; i++)
        total += servers[i].weight;
    for (uint32_t i = 0, slot = 0; i < ring->count && total > 0; i++) {
        uint32_t end;

        sum += servers[i].weight;
        end = (uint32_t)((sum * HASH_SLOT_COUNT + total / 2) / total);
        for (; slot < end; slot++)
            ring->slot_owners[slot] = (uint16_t)i;
    }
}

static int slots_build(struct ring *ring, const struct ring_server *servers)
{
    bool has_owners = false;

    ring->slot_owners = mem_alloc(HASH_SLOT_COUNT * sizeof(*ring->slot_owners));
    if (ring->slot_owners == NULL)
        return -ENOMEM;
    memset(ring->slot_owners, 0xff, HASH_SLOT_COUNT * sizeof(*ring->slot_owners));
    for (uint32_t i = 0; i < ring->count; i++) {
        for (uint32_t j = 0; j < servers[i].slots_count; j++) {
            struct ring_slots part = servers[i].slots[j];

            has_owners = true;
            if (part.first > part.last || part.last >= HASH_SLOT_COUNT)
                return ERR_INVALID;
            for (uint32_t slot = part.first; slot <= part.last; slot++) {
                if (ring->slot_owners[slot] != UINT16_MAX)
                    return ERR_INVALID;
                ring->slot_owners[slot] = (uint16_t)i;
            }
        }
    }
    if (!has_owners)
        slots_split_evenly(ring, servers);
    for (uint32_t slot = 0; slot < HASH_SLOT_COUNT; slot++) {
        if (ring->slot_owners[slot] == UINT16_MAX)
            ring->gap_count++;
        else
            ring->shares[ring->slot_owners[slot]]++;
    }
    return 0;
}

static inline uint32_t slots_lookup(const struct ring *ring, uint32_t slot)
{
    uint32_t owner = ring->slot_owners[slot & (HASH_SLOT_COUNT - 1)];

    return owner != UINT16_MAX && ring->is_live[owner] ? owner : RING_NONE;
}

/* ---- range
 * ---------------------------------------------------------------------------------------- */

static int bytes_compare(struct bytes a, struct bytes b)
{
    size_t len = MIN(a.len, b.len);
    int order = len == 0 ? 0 : memcmp(a.data, b.data, len);

    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_ranges(const void *left, const void *right)
{
    return bytes_compare(((const struct range_entry *)left)->from,
                         ((const struct range_entry *)right)->from);
}

/* Copies `part` to *text and moves it on. */
static struct bytes text_add(char **text, struct bytes part)
{
    struct bytes copy = bytes_of(*text, part.len);

    if (part.len > 0)
        memcpy(*text, part.data, part.len);
    *text += part.len;
    return copy;
}

/* `text` has room for all names and bounds; ring_create() has counted them. */
static int ranges_build(struct ring *ring, const struct ring_server *servers, char *text)
{
    struct bytes covered = BYTES_EMPTY; /* all below has been looked at */
    uint32_t total = 0;
    bool is_open = false;

    for (uint32_t i = 0; i < ring->count; i++)
        total += servers[i].ranges_count;
    ring->ranges = mem_alloc((total + 1) * sizeof(*ring->ranges));
    if (ring->ranges == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < ring->count; i++) {
        for (uint32_t j = 0; j < servers[i].ranges_count; j++) {
            struct range_entry *entry = &ring->ranges[ring->ranges_count++];

            entry->from = text_add(&text, servers[i].ranges[j].from);
            entry->to = text_add(&text, servers[i].ranges[j].to);
            entry->owner = i;
            if (entry->to.len > 0 && bytes_compare(entry->from, entry->to) >= 0)
                return ERR_INVALID;
        }
        ring->shares[i] = servers[i].ranges_count;
    }
    qsort(ring->ranges, total, sizeof(*ring->ranges), compare_ranges);
    for (uint32_t i = 0; i < total; i++) {
        int order = bytes_compare(ring->ranges[i].from, covered);

        if (is_open || order < 0 || (i > 0 && ring->ranges[i].from.len == 0))
            return ERR_INVALID;
        if (order > 0)
            ring->gap_count = 1;
        covered = ring->ranges[i].to;
        is_open = covered.len == 0;
    }
    if (!is_open)
        ring->gap_count = 1;
    return 0;
}

static uint32_t range_lookup(const struct ring *ring, struct bytes key)
{
    uint32_t low = 0, high = ring->ranges_count;
    const struct range_entry *entry;

    while (low < high) { /* the first range that starts above the key */
        uint32_t middle = low + (high - low) / 2;

        if (bytes_compare(ring->ranges[middle].from, key) > 0)
            high = middle;
        else
            low = middle + 1;
    }
    if (low == 0)
        return RING_NONE;
    entry = &ring->ranges[low - 1];
    if (entry->to.len > 0 && bytes_compare(key, entry->to) >= 0)
        return RING_NONE;
    return ring->is_live[entry->owner] ? entry->owner : RING_NONE;
}

/* ---- building
 * ------------------------------------------------------------------------------------- */

static int servers_check(const struct ring_server *servers, uint32_t count)
{
    uint64_t weight_total = 0;

    if (count == 0 || count > RING_SERVERS_MAX)
        return ERR_INVALID;
    for (uint32_t i = 0; i < count; i++) {
        if (servers[i].weight > RING_WEIGHT_MAX)
            return ERR_INVALID;
        weight_total += servers[i].weight;
    }
    return weight_total > UINT32_MAX ? ERR_INVALID : 0;
}

/* Copies names; returns in *rest where the bounds of ranges go. */
static int names_copy(struct ring *ring, const struct ring_server *servers, char **rest)
{
    size_t size = 1;

    for (uint32_t i = 0; i < ring->count; i++) {
        size += servers[i].name.len;
        for (uint32_t j = 0; j < servers[i].ranges_count; j++)
            size += servers[i].ranges[j].from.len + servers[i].ranges[j].to.len;
    }
    ring->text = *rest = mem_alloc(size);
    ring->names = mem_alloc(ring->count * sizeof(*ring->names));
    ring->shares = mem_zalloc(ring->count * sizeof(*ring->shares));
    ring->is_live = mem_zalloc(ring->count * sizeof(*ring->is_live));
    if (ring->text == NULL || ring->names == NULL || ring->shares == NULL || ring->is_live == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < ring->count; i++) {
        ring->names[i] = text_add(rest, servers[i].name);
        ring->is_live[i] = servers[i].is_live && servers[i].weight > 0;
        ring->live_count += ring->is_live[i];
    }
    return 0;
}

static void fingerprint_number(struct ring *ring, uint64_t number)
{
    char digits[20];

    ring->fingerprint =
        hash_fingerprint(ring->fingerprint, bytes_of(digits, u64_to_digits(number, digits)));
}

/* Slot owners are part of it as runs: first slot, owner's name. */
static void fingerprint_compute(struct ring *ring)
{
    enum ring_distribution distribution = ring->options.distribution;

    fingerprint_number(ring, distribution);
    if (distribution == RING_ketama || distribution == RING_modula || distribution == RING_jump)
        fingerprint_number(ring, ring->options.hash);
    if (ring->options.has_tag && distribution != RING_slots && distribution != RING_random)
        ring->fingerprint = hash_fingerprint(
            ring->fingerprint,
            bytes_of((char[]){ring->options.tag_open, ring->options.tag_close}, 2));
    for (uint32_t i = 0; i < ring->count; i++) {
        if (distribution == RING_jump && ring->unit_ends[i] == (i > 0 ? ring->unit_ends[i - 1] : 0))
            continue; /* jump: dead servers count, spares do not */
        if (distribution != RING_jump && !ring->is_live[i])
            continue;
        ring->fingerprint = hash_fingerprint(ring->fingerprint, ring->names[i]);
        if (distribution == RING_jump)
            fingerprint_number(ring, ring->unit_ends[i]);
        if (distribution != RING_random)
            fingerprint_number(ring, ring->shares[i]);
    }
    for (uint32_t slot = 0; distribution == RING_slots && slot < HASH_SLOT_COUNT; slot++) {
        uint16_t owner = ring->slot_owners[slot];

        if (slot > 0 && owner == ring->slot_owners[slot - 1])
            continue;
        fingerprint_number(ring, slot);
        ring->fingerprint = hash_fingerprint(
            ring->fingerprint, owner == UINT16_MAX ? BYTES_EMPTY : ring->names[owner]);
    }
    for (uint32_t i = 0; i < ring->ranges_count; i++) {
        const struct range_entry *entry = &ring->ranges[i];

        ring->fingerprint = hash_fingerprint(ring->fingerprint, entry->from);
        ring->fingerprint = hash_fingerprint(ring->fingerprint, entry->to);
        ring->fingerprint = hash_fingerprint(ring->fingerprint, ring->names[entry->owner]);
    }
}

/* The answer that needs no key, if there is one. */
static uint32_t find_only(const struct ring *ring)
{
    bool is_owned =
        ring->options.distribution == RING_slots || ring->options.distribution == RING_range;

    if (ring->live_count == 0)
        return RING_NONE;
    if (ring->live_count > 1 || (is_owned && (ring->count > 1 || ring->gap_count > 0)))
        return RING_BY_KEY;
    for (uint32_t i = 0; i < ring->count; i++) {
        if (ring->is_live[i])
            return i;
    }
    UNREACHABLE("one server is live");
}

static int build(struct ring *ring, const struct ring_server *servers, char *text)
{
    switch (ring->options.distribution) {
    case RING_ketama:
        return ketama_build(ring, servers);
    case RING_modula:
    case RING_random:
    case RING_jump:
        return units_build(ring, servers);
    case RING_slots:
        return slots_build(ring, servers);
    case RING_range:
        return ranges_build(ring, servers, text);
    case RING_DISTRIBUTION_COUNT:
        break;
    }
    UNREACHABLE("no such distribution");
}

int ring_create(const struct ring_options *options, const struct ring_server *servers,
                uint32_t count, struct ring **out)
{
    struct ring *ring;
    char *text;
    int err = servers_check(servers, count);

    if (err != 0)
        return err;
    ring = mem_zalloc(sizeof(*ring));
    if (ring == NULL)
        return -ENOMEM;
    ring->options = *options;
    ring->count = count;
    err = names_copy(ring, servers, &text);
    if (err == 0)
        err = build(ring, servers, text);
    if (err != 0) {
        ring_destroy(&ring);
        return err;
    }
    ring->only = find_only(ring);
    fingerprint_compute(ring);
    *out = ring;
    return 0;
}

void ring_destroy(struct ring **ring)
{
    struct ring *r = *ring;

    if (r == NULL)
        return;
    mem_free(r->is_live);
    mem_free(r->names);
    mem_free(r->shares);
    mem_free(r->text);
    mem_free(r->values);
    mem_free(r->owners);
    mem_free(r->starts);
    mem_free(r->unit_ends);
    mem_free(r->unit_owners);
    mem_free(r->slot_owners);
    mem_free(r->ranges);
    mem_free(r);
    *ring = NULL;
}

/* ---- looking up
 * ----------------------------------------------------------------------------------- */

struct bytes ring_key_part(const struct ring *ring, struct bytes key)
{
    if (ring->options.distribution == RING_slots)
        return hash_tag_part(key, '{', '}');
    if (ring->options.has_tag)
        return hash_tag_part(key, ring->options.tag_open, ring->options.tag_close);
    return key;
}

uint32_t ring_hash(const struct ring *ring, struct bytes key)
{
    struct bytes part = ring_key_part(ring, key);

    if (ring->options.distribution == RING_slots)
        return hash_crc16_xmodem(part) & (HASH_SLOT_COUNT - 1);
    return part.len == 0 ? 0 : hash_key(ring->options.hash, part);
}

uint32_t ring_lookup_hash(const struct ring *ring, uint32_t hash)
{
    if (ring->only != RING_BY_KEY)
        return ring->only;
    switch (ring->options.distribution) {
    case RING_ketama:
        return ketama_lookup(ring, hash);
    case RING_modula:
        return unit_owner(ring, fast_mod(hash, ring->unit_magic, ring->unit_count));
    case RING_random:
        return unit_owner(ring, (uint32_t)(((uint64_t)hash * ring->unit_count) >> 32));
    case RING_jump:
        return jump_lookup(ring, hash);
    case RING_slots:
        return slots_lookup(ring, hash);
    case RING_range:
    case RING_DISTRIBUTION_COUNT:
        break;
    }
    UNREACHABLE("a range ring has no hash");
}

uint32_t ring_lookup(const struct ring *ring, struct bytes key, uint32_t random)
{
    if (ring->only != RING_BY_KEY)
        return ring->only;
    if (ring->options.distribution == RING_range)
        return range_lookup(ring, ring_key_part(ring, key));
    if (ring->options.distribution == RING_random)
        return ring_lookup_hash(ring, random);
    return ring_lookup_hash(ring, ring_hash(ring, key));
}

static void hash_part_each(const struct ring *ring, const struct bytes *keys, uint32_t step,
                           uint32_t count, uint32_t *out)
{
    hash_key_each(ring->options.hash, keys, step, count, out);
    for (uint32_t i = 0; i < count; i++)
        if (UNLIKELY(keys[(size_t)i * step].len == 0))
            out[i] = 0;
}

/* First all hashes, then all look-ups: hashing is a chain of multiplications, and the processor works
 * at several chains at once as long as no wrong guess about a look-up lies between them. */
void ring_lookup_each(const struct ring *ring, const struct bytes *keys, uint32_t step, uint32_t count,
                      uint32_t *out)
{
    if (ring->only != RING_BY_KEY || ring->options.distribution == RING_range) {
        for (uint32_t i = 0; i < count; i++)
            out[i] = ring_lookup(ring, keys[(size_t)i * step], 0);
        return;
    }
    if (ring->options.distribution == RING_slots || ring->options.has_tag)
        for (uint32_t i = 0; i < count; i++)
            out[i] = ring_hash(ring, keys[(size_t)i * step]);
    else
        hash_part_each(ring, keys, step, count, out);
    if (LIKELY(ring->options.distribution == RING_ketama)) {
        for (uint32_t i = 0; i < count; i++)
            out[i] = ketama_lookup(ring, out[i]);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        out[i] = ring_lookup_hash(ring, out[i]);
}

bool ring_wants_random(const struct ring *ring)
{
    return ring->options.distribution == RING_random;
}

enum ring_distribution ring_get_distribution(const struct ring *ring)
{
    return ring->options.distribution;
}

uint32_t ring_server_count(const struct ring *ring)
{
    return ring->count;
}

uint32_t ring_live_count(const struct ring *ring)
{
    return ring->live_count;
}

struct bytes ring_server_name(const struct ring *ring, uint32_t index)
{
    ASSERT(index < ring->count);
    return ring->names[index];
}

uint32_t ring_server_share(const struct ring *ring, uint32_t index)
{
    ASSERT(index < ring->count);
    return ring->shares[index];
}

uint32_t ring_gap_count(const struct ring *ring)
{
    return ring->gap_count;
}

uint64_t ring_fingerprint(const struct ring *ring)
{
    return ring->fingerprint;
}

/* ---- comparing
 * ------------------------------------------------------------------------------------ */

#define SAMPLE_KEY_SIZE 20

/* A key that looks like one; for ranges, one that is spread over all printable beginnings. */
static struct bytes sample_key(uint32_t number, bool is_spread, char out[static SAMPLE_KEY_SIZE])
{
    uint64_t state = (uint64_t)number * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u;
    size_t len = 0;

    if (!is_spread) {
        memcpy(out, "key:", 4);
        return bytes_of(out, 4 + u64_to_digits(number, out + 4));
    }
    for (; len < 8; len++) {
        state ^= state >> 29;
        state *= 0xbf58476d1ce4e5b9u;
        out[len] = (char)(' ' + (state >> 40) % ('~' - ' ' + 1));
    }
    return bytes_of(out, len);
}

static bool is_same_server(const struct ring *a, uint32_t in_a, const struct ring *b, uint32_t in_b)
{
    if (in_a == RING_NONE || in_b == RING_NONE)
        return in_a == in_b;
    return bytes_equal(a->names[in_a], b->names[in_b]);
}

double ring_moved_share(const struct ring *a, const struct ring *b, uint32_t samples)
{
    bool is_spread = a->options.distribution == RING_range || b->options.distribution == RING_range;
    char text[SAMPLE_KEY_SIZE];
    uint32_t moved = 0;

    if (samples == 0)
        return 0;
    if ((ring_wants_random(a) && a->only == RING_BY_KEY) ||
        (ring_wants_random(b) && b->only == RING_BY_KEY))
        return 1 - 1 / (double)MAX(1u, b->live_count);
    for (uint32_t i = 0; i < samples; i++) {
        struct bytes key = sample_key(i, is_spread, text);

        moved += !is_same_server(a, ring_lookup(a, key, 0), b, ring_lookup(b, key, 0));
    }
    return moved / (double)samples;
}
