/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/zset.h"
#include "backend/store/effect.h"
#include "backend/types/btree.h"
#include "backend/types/dict.h"
#include "backend/types/item.h"
#include "backend/types/limits.h"
#include "backend/types/packed.h"
#include "backend/types/types.h"
#include "common/base/mem.h"

#include <math.h>

struct zset_object {
    struct object object;
    union {
        struct packed packed; /* ZSET_PACKED: member, score, member, score ... */
        struct {
            struct dict members;
            struct btree order;
            size_t item_bytes;
        };
    };
};

enum zset_effect {
    ZSET_EFFECT_SET = 1,      /* member, score */
    ZSET_EFFECT_REMOVE,       /* member */
    ZSET_EFFECT_REMOVE_RANKS, /* first, count */
};

static struct zset_object *zset_of(const struct object *object)
{
    ASSERT(object->type == STORE_ZSET);
    return CONTAINER_OF((struct object *)object, struct zset_object, object);
}

static inline bool is_packed(const struct object *object)
{
    return object->encoding == ZSET_PACKED;
}

const char *zset_encoding(const struct object *object)
{
    return is_packed(object) ? "listpack" : "skiplist";
}

/* ---- scores in bytes ---------------------------------------------------------------------------- */

#define SCORE_SIZE_MAX 8u

/* Little endian whatever the machine: images travel. */
static uint32_t score_encode(double score, char out[SCORE_SIZE_MAX])
{
    uint64_t bits;
    uint32_t size = SCORE_SIZE_MAX;

    memcpy(&bits, &score, sizeof(bits));
    /* Of -0 the sign would be lost; below 2^55 a whole number takes seven bytes. */
    if (fabs(score) < 0x1p55 && score == (double)(int64_t)score && (score != 0 || bits == 0)) {
        int64_t whole = (int64_t)score;

        bits = (uint64_t)whole;
        for (size = 1; whole < -128 || whole > 127; size++)
            whole >>= 8;
    }
    for (uint32_t i = 0; i < size; i++)
        out[i] = (char)(bits >> 8 * i);
    return size;
}

/* Of bytes that are known to be good. */
static inline double score_decode(struct bytes bytes)
{
    uint64_t bits = 0;
    double score;

    for (size_t i = 0; i < bytes.len; i++)
        bits |= (uint64_t)(unsigned char)bytes.data[i] << 8 * i;
    if (bytes.len < SCORE_SIZE_MAX) {
        unsigned shift = 64 - 8 * (unsigned)bytes.len;

        return (double)((int64_t)(bits << shift) >> shift);
    }
    memcpy(&score, &bits, sizeof(score));
    return score;
}

static bool score_check(struct bytes bytes, double *score)
{
    if (bytes.len == 0 || bytes.len > SCORE_SIZE_MAX)
        return false;
    *score = score_decode(bytes);
    return !isnan(*score);
}

static int order_of(double score, struct bytes member, double other_score, struct bytes other)
{
    int order;

    if (score != other_score)
        return score < other_score ? -1 : 1;
    order = memcmp(member.data, other.data, MIN(member.len, other.len));
    if (order != 0)
        return order;
    return member.len < other.len ? -1 : member.len > other.len;
}

/* ---- packed ------------------------------------------------------------------------------------- */

/* The pair at `off`; returns the offset behind it. */
static inline uint32_t pair_get(const struct packed *packed, uint32_t off, struct bytes *member,
                                double *score)
{
    struct bytes bytes;

    off = packed_get(packed, off, member);
    off = packed_get(packed, off, &bytes);
    *score = score_decode(bytes);
    return off;
}

/* Where the pair belongs. */
static uint32_t packed_place(const struct packed *packed, struct bytes member, double score)
{
    uint32_t off = 0;

    while (off < packed->len) {
        struct bytes here;
        double here_score;
        uint32_t next = pair_get(packed, off, &here, &here_score);

        if (order_of(here_score, here, score, member) > 0)
            break;
        off = next;
    }
    return off;
}

static int packed_add(struct packed *packed, struct bytes member, double score)
{
    char bytes[SCORE_SIZE_MAX];
    uint32_t size = score_encode(score, bytes), off = packed_place(packed, member, score);
    int err = packed_insert(packed, off, bytes_of(bytes, size));

    if (err != 0)
        return err;
    err = packed_insert(packed, off, member);
    if (err != 0)
        packed_remove(packed, off, 1);
    return err;
}

/* The old pair goes after the new one came: so that it does not matter where memory runs out. */
static int packed_rescore(struct packed *packed, struct bytes member, double score)
{
    uint32_t off = packed_find(packed, member, 0, 2), place = packed_place(packed, member, score);
    uint32_t len = packed->len;
    int err = packed_add(packed, member, score);

    if (err != 0)
        return err;
    packed_remove(packed, place <= off ? off + (packed->len - len) : off, 2);
    return 0;
}

/* ---- tree --------------------------------------------------------------------------------------- */

static inline double tree_item_score(const char *item)
{
    double score;

    memcpy(&score, item - sizeof(score), sizeof(score));
    return score;
}

static inline void tree_item_score_set(char *item, double score)
{
    memcpy(item - sizeof(score), &score, sizeof(score));
}

static size_t tree_item_charge(struct bytes member)
{
    return heap_class(sizeof(double) + item_size(member.len));
}

static void tree_item_free(char *item)
{
    mem_free(item - sizeof(double));
}

static int tree_add(struct zset_object *zset, uint64_t hash, struct bytes member, double score)
{
    char *block = mem_alloc(sizeof(score) + item_size(member.len));
    char *item;

    if (block == NULL)
        return ERR_FULL;
    item = block + sizeof(score);
    tree_item_score_set(item, score);
    item_write(item, member);
    if (btree_insert(&zset->order, score, item) != 0)
        goto no_order;
    if (dict_insert(&zset->members, hash, item) != 0)
        goto no_member;
    zset->item_bytes += tree_item_charge(member);
    return 0;
no_member:
    btree_remove(&zset->order, score, item);
no_order:
    mem_free(block);
    return ERR_FULL;
}

static int tree_rescore(struct zset_object *zset, char *item, double score)
{
    double old = tree_item_score(item);

    if (old == score) {
        /* 0 and -0: the place is the same. */
        MAYBE(btree_rescore(&zset->order, old, item, score));
    } else if (!btree_rescore(&zset->order, old, item, score)) {
        int err = btree_insert(&zset->order, score, item);

        if (err != 0)
            return err;
        btree_remove(&zset->order, old, item);
    }
    tree_item_score_set(item, score);
    return 0;
}

/* The item is in the tree; it leaves both and is freed. */
static void tree_drop(struct zset_object *zset, char *item)
{
    struct bytes member = dict_item_key(item);
    char *found;

    btree_remove(&zset->order, tree_item_score(item), item);
    found = dict_remove(&zset->members, dict_hash(member), member);
    ASSERT(found == item);
    zset->item_bytes -= tree_item_charge(member);
    tree_item_free(item);
}

static void free_item(void *arg, char *item)
{
    (void)arg;
    tree_item_free(item);
}

static bool tree_free_step(struct zset_object *zset, uint32_t elements_max)
{
    if (!dict_clear_step(&zset->members, elements_max, free_item, NULL))
        return false;
    return btree_deinit_step(&zset->order, elements_max);
}

static void tree_init(struct zset_object *zset)
{
    dict_init(&zset->members);
    btree_init(&zset->order);
    zset->item_bytes = 0;
    zset->object.encoding = ZSET_TREE;
}

/* Packed becomes a tree; on ERR_FULL it stays as it is. */
static int tree_convert(struct zset_object *zset)
{
    struct packed packed = zset->packed;
    uint32_t off = 0;

    tree_init(zset);
    while (off < packed.len) {
        struct bytes member;
        double score;

        off = pair_get(&packed, off, &member, &score);
        if (tree_add(zset, dict_hash(member), member, score) != 0) {
            while (!tree_free_step(zset, UINT32_MAX))
                ;
            zset->packed = packed;
            zset->object.encoding = ZSET_PACKED;
            return ERR_FULL;
        }
    }
    packed_deinit(&packed);
    return 0;
}

/* ---- reading ------------------------------------------------------------------------------------ */

uint64_t zset_count(const struct object *object)
{
    const struct zset_object *zset = zset_of(object);

    return is_packed(object) ? zset->packed.count / 2 : zset->order.count;
}

bool zset_score(const struct object *object, struct bytes member, double *score)
{
    const struct zset_object *zset = zset_of(object);

    if (is_packed(object)) {
        uint32_t off = packed_find(&zset->packed, member, 0, 2);
        struct bytes here;

        if (off == UINT32_MAX)
            return false;
        pair_get(&zset->packed, off, &here, score);
    } else {
        const char *item = dict_find(&zset->members, dict_hash(member), member);

        if (item == NULL)
            return false;
        *score = tree_item_score(item);
    }
    return true;
}

bool zset_rank(const struct object *object, struct bytes member, uint64_t *rank, double *score)
{
    const struct zset_object *zset = zset_of(object);

    if (is_packed(object)) {
        uint32_t off = 0;

        for (*rank = 0; off < zset->packed.len; (*rank)++) {
            struct bytes here;

            off = pair_get(&zset->packed, off, &here, score);
            if (bytes_equal(here, member))
                return true;
        }
        return false;
    } else {
        const char *item = dict_find(&zset->members, dict_hash(member), member);

        if (item == NULL)
            return false;
        *score = tree_item_score(item);
        *rank = btree_rank(&zset->order, *score, item);
        return true;
    }
}

static bool is_before(const struct zset_bound *bound, double score, struct bytes member)
{
    int order;

    switch (bound->kind) {
    case ZSET_BOUND_LOWEST:
        return false;
    case ZSET_BOUND_HIGHEST:
        return true;
    case ZSET_BOUND_SCORE:
        return bound->is_behind ? score <= bound->score : score < bound->score;
    case ZSET_BOUND_LEX:
        order = order_of(0, member, 0, bound->member);
        return order < 0 || (order == 0 && bound->is_behind);
    }
    UNREACHABLE("all kinds are above");
}

static bool item_is_before(const void *bound, double score, const char *item)
{
    return is_before(bound, score, dict_item_key(item));
}

uint64_t zset_count_before(const struct object *object, const struct zset_bound *bound)
{
    const struct zset_object *zset = zset_of(object);
    uint64_t count = 0;

    if (!is_packed(object))
        return btree_count_before(&zset->order, item_is_before, bound);
    for (uint32_t off = 0; off < zset->packed.len; count++) {
        struct bytes member;
        double score;

        off = pair_get(&zset->packed, off, &member, &score);
        if (!is_before(bound, score, member))
            break;
    }
    return count;
}

/* Finds the members that lie below those that were found last: a packed run is only read upwards. */
static void walk_back(struct zset_walk *walk, const struct packed *packed)
{
    uint32_t count = (uint32_t)MIN(walk->left, (uint64_t)ZSET_WALK_MAX), off;

    walk->rank -= count;
    off = packed_at(packed, walk->rank * 2);
    for (walk->index = 0; walk->index < count; walk->index++) {
        struct bytes skipped;

        walk->offs[walk->index] = off;
        off = packed_get(packed, off, &skipped);
        off = packed_get(packed, off, &skipped);
    }
}

void zset_walk_init(struct zset_walk *walk, const struct object *object, uint64_t first,
                    uint64_t count, bool is_down)
{
    const struct zset_object *zset = zset_of(object);

    walk->object = object;
    walk->left = count;
    walk->is_down = is_down;
    walk->leaf = NULL;
    if (count == 0)
        return;
    ASSERT(first < zset_count(object));
    ASSERT(is_down ? first + 1 >= count : first + count <= zset_count(object));
    if (!is_packed(object)) {
        struct btree_cursor cursor = btree_at(&zset->order, first);

        walk->leaf = cursor.leaf;
        walk->index = cursor.index;
    } else if (!is_down) {
        walk->index = packed_at(&zset->packed, (uint32_t)first * 2);
    } else {
        walk->rank = (uint32_t)first + 1;
        walk_back(walk, &zset->packed);
    }
}

bool zset_walk_next(struct zset_walk *walk, struct bytes *member, double *score)
{
    const struct zset_object *zset = zset_of(walk->object);

    if (walk->left == 0)
        return false;
    if (!is_packed(walk->object)) {
        struct btree_cursor cursor = {.leaf = walk->leaf, .index = walk->index};
        struct btree_entry entry = walk->is_down ? btree_prev(&cursor) : btree_next(&cursor);

        *member = dict_item_key(entry.item);
        *score = entry.score;
        walk->leaf = cursor.leaf;
        walk->index = cursor.index;
    } else if (walk->is_down) {
        if (walk->index == 0)
            walk_back(walk, &zset->packed);
        pair_get(&zset->packed, walk->offs[--walk->index], member, score);
    } else {
        walk->index = pair_get(&zset->packed, walk->index, member, score);
    }
    walk->left--;
    return true;
}

struct scan {
    zset_each_fn each;
    void *arg;
};

static void scan_item(void *arg, char *item)
{
    struct scan *scan = arg;

    scan->each(scan->arg, dict_item_key(item), tree_item_score(item));
}

uint64_t zset_scan(const struct object *object, uint64_t cursor, zset_each_fn each, void *arg)
{
    const struct zset_object *zset = zset_of(object);
    struct scan scan = {.each = each, .arg = arg};

    if (!is_packed(object))
        return dict_scan(&zset->members, cursor, scan_item, &scan);
    for (uint32_t off = 0; off < zset->packed.len;) {
        struct bytes member;
        double score;

        off = pair_get(&zset->packed, off, &member, &score);
        each(arg, member, score);
    }
    return 0;
}

/* ---- changes ------------------------------------------------------------------------------------ */

static void effect_set(struct buffer *effects, struct bytes member, double score)
{
    if (effects == NULL)
        return;
    effect_begin(effects, ZSET_EFFECT_SET, 2);
    effect_bytes(effects, member);
    effect_double(effects, score);
}

int zset_add(struct object *object, struct bytes member, double score, struct buffer *effects)
{
    struct zset_object *zset = zset_of(object);
    int err = 0;

    ASSERT(!isnan(score));
    if (is_packed(object) && (member.len > object->limits->zset_size ||
                              zset->packed.count / 2 >= object->limits->zset_members))
        err = tree_convert(zset);
    if (err == 0)
        err = is_packed(object) ? packed_add(&zset->packed, member, score)
                                : tree_add(zset, dict_hash(member), member, score);
    if (err == 0)
        effect_set(effects, member, score);
    return err;
}

int zset_rescore(struct object *object, struct bytes member, double old, double score,
                 struct buffer *effects)
{
    struct zset_object *zset = zset_of(object);
    int err;

    ASSERT(!isnan(score));
    if (is_packed(object)) {
        err = packed_rescore(&zset->packed, member, score);
    } else {
        char *item = dict_find(&zset->members, dict_hash(member), member);

        ASSERT(item != NULL && tree_item_score(item) == old);
        err = tree_rescore(zset, item, score);
    }
    if (err == 0)
        effect_set(effects, member, score);
    return err;
}

int zset_set(struct object *object, struct bytes member, double score, struct buffer *effects)
{
    double old;

    if (zset_score(object, member, &old))
        return zset_rescore(object, member, old, score, effects);
    return zset_add(object, member, score, effects);
}

bool zset_remove(struct object *object, struct bytes member, struct buffer *effects)
{
    struct zset_object *zset = zset_of(object);

    if (is_packed(object)) {
        uint32_t off = packed_find(&zset->packed, member, 0, 2);

        if (off == UINT32_MAX)
            return false;
        packed_remove(&zset->packed, off, 2);
    } else {
        char *item = dict_find(&zset->members, dict_hash(member), member);

        if (item == NULL)
            return false;
        tree_drop(zset, item);
    }
    if (effects != NULL) {
        effect_begin(effects, ZSET_EFFECT_REMOVE, 1);
        effect_bytes(effects, member);
    }
    return true;
}

void zset_remove_ranks(struct object *object, uint64_t first, uint64_t count, struct buffer *effects)
{
    struct zset_object *zset = zset_of(object);

    ASSERT(first <= zset_count(object) && count <= zset_count(object) - first);
    if (count == 0)
        return;
    if (is_packed(object)) {
        uint32_t off = packed_at(&zset->packed, (uint32_t)first * 2);

        packed_remove(&zset->packed, off, (uint32_t)count * 2);
    } else {
        for (uint64_t i = 0; i < count; i++) {
            struct btree_cursor cursor = btree_at(&zset->order, first);

            tree_drop(zset, btree_next(&cursor).item);
        }
    }
    if (effects != NULL) {
        effect_begin(effects, ZSET_EFFECT_REMOVE_RANKS, 2);
        effect_u64(effects, first);
        effect_u64(effects, count);
    }
}

/* ---- operations of the type --------------------------------------------------------------------- */

struct object *zset_object_create(void)
{
    struct zset_object *zset = mem_zalloc(sizeof(*zset));

    if (zset == NULL)
        return NULL;
    zset->object.type = STORE_ZSET;
    zset->object.encoding = ZSET_PACKED;
    zset->object.limits = &object_limits_default;
    packed_init(&zset->packed);
    return &zset->object;
}

static bool zset_destroy_step(struct object *object, uint32_t elements_max)
{
    struct zset_object *zset = zset_of(object);

    if (is_packed(object))
        packed_deinit(&zset->packed);
    else if (!tree_free_step(zset, elements_max))
        return false;
    mem_free(zset);
    return true;
}

void zset_object_destroy(struct object *object)
{
    while (!zset_destroy_step(object, UINT32_MAX))
        ;
}

static size_t zset_bytes(const struct object *object)
{
    const struct zset_object *zset = zset_of(object);
    size_t inner = is_packed(object)
                       ? packed_bytes(&zset->packed)
                       : zset->members.bytes + zset->order.bytes + zset->item_bytes;

    return heap_class(sizeof(*zset)) + inner;
}

static void zset_encode(const struct object *object, struct buffer *out)
{
    const struct zset_object *zset = zset_of(object);
    struct btree_cursor cursor = {0};

    buffer_append(out, &object->encoding, 1);
    if (is_packed(object)) {
        buffer_append(out, zset->packed.data, zset->packed.len);
        return;
    }
    if (zset->order.count > 0)
        cursor = btree_at(&zset->order, 0);
    while (cursor.leaf != NULL) {
        struct btree_entry entry = btree_next(&cursor);
        char bytes[SCORE_SIZE_MAX];

        varint_append_bytes(out, dict_item_key(entry.item));
        varint_append_bytes(out, bytes_of(bytes, score_encode(entry.score, bytes)));
    }
}

static bool image_next(struct bytes *image, struct bytes *member, double *score)
{
    struct bytes bytes;

    return varint_read_bytes(image, member) && varint_read_bytes(image, &bytes) &&
           score_check(bytes, score);
}

#define DECODE_AHEAD 8u /* members */

/* Members in the order of scores lie anywhere in the table: their buckets are on their way while others are added. */
struct decode_ahead {
    struct {
        struct bytes member;
        double score;
        uint64_t hash;
    } pairs[DECODE_AHEAD];
    uint32_t first, count;
};

/* False: no good image. */
static bool decode_ahead_fill(struct decode_ahead *ahead, const struct dict *members, struct bytes *image)
{
    while (ahead->count < DECODE_AHEAD && image->len > 0) {
        uint32_t at = (ahead->first + ahead->count++) % DECODE_AHEAD;

        if (!image_next(image, &ahead->pairs[at].member, &ahead->pairs[at].score))
            return false;
        ahead->pairs[at].hash = dict_hash(ahead->pairs[at].member);
        dict_prefetch(members, ahead->pairs[at].hash);
    }
    return true;
}

/* Adds what is in the image; order and uniqueness are checked. */
static bool decode_into(struct object *object, struct bytes image)
{
    struct zset_object *zset = zset_of(object);
    struct decode_ahead ahead = {0};
    struct bytes last = BYTES_EMPTY;
    double last_score = 0;
    bool is_first = true;

    for (; decode_ahead_fill(&ahead, &zset->members, &image); is_first = false) {
        struct bytes member = ahead.pairs[ahead.first].member;
        double score = ahead.pairs[ahead.first].score;
        uint64_t hash = ahead.pairs[ahead.first].hash;

        if (ahead.count == 0)
            return true;
        if (!is_first && order_of(last_score, last, score, member) >= 0)
            return false;
        if (dict_find(&zset->members, hash, member) != NULL || tree_add(zset, hash, member, score) != 0)
            return false;
        ahead.first = (ahead.first + 1) % DECODE_AHEAD;
        ahead.count--;
        last = member;
        last_score = score;
    }
    return false;
}

static uint64_t image_count(struct bytes image)
{
    struct bytes member;
    uint64_t count = 0;
    double score;

    while (image.len > 0 && image_next(&image, &member, &score))
        count++;
    return count;
}

/* Whether it is a good image that fits into a packed run. */
static bool image_is_small(struct bytes image)
{
    struct bytes member;
    double score;
    uint32_t count = 0;

    for (; image.len > 0; count++) {
        if (count == PACKED_COUNT_BOUND || !image_next(&image, &member, &score) ||
            member.len > PACKED_SIZE_BOUND)
            return false;
    }
    return true;
}

static struct object *zset_decode(struct bytes image)
{
    struct object *object = zset_object_create();
    struct bytes pairs = bytes_skip(image, 1);
    struct zset_object *zset;
    int encoding = image.len > 0 ? image.data[0] : -1;

    if (object == NULL)
        return NULL;
    zset = zset_of(object);
    if (encoding != ZSET_TREE && (encoding != ZSET_PACKED || !image_is_small(pairs)))
        goto fail;
    tree_init(zset);
    /* A small one goes through a table as well: that no member is there twice is only seen there. */
    if (encoding == ZSET_TREE)
        dict_expect(&zset->members, image_count(pairs));
    if (!decode_into(object, pairs))
        goto fail;
    if (encoding == ZSET_PACKED) {
        while (!tree_free_step(zset, UINT32_MAX))
            ;
        zset->object.encoding = ZSET_PACKED;
        if (packed_load(&zset->packed, pairs) != 0)
            goto fail;
    }
    return object;
fail:
    zset_object_destroy(object);
    return NULL;
}

static int apply_one(struct object *object, struct effect_reader *reader, uint8_t code)
{
    struct bytes member;
    double score;
    uint64_t first, count;

    if (code >= EFFECT_EXPIRE)
        return 0; /* the store's own */
    switch (code) {
    case ZSET_EFFECT_SET:
        if (!effect_read_bytes(reader, &member) || !effect_read_double(reader, &score) ||
            isnan(score))
            return ERR_CORRUPT;
        return zset_set(object, member, score, NULL);
    case ZSET_EFFECT_REMOVE:
        if (!effect_read_bytes(reader, &member) || !zset_remove(object, member, NULL))
            return ERR_CORRUPT;
        return 0;
    case ZSET_EFFECT_REMOVE_RANKS:
        if (!effect_read_u64(reader, &first) || !effect_read_u64(reader, &count) ||
            first > zset_count(object) || count > zset_count(object) - first)
            return ERR_CORRUPT;
        zset_remove_ranks(object, first, count, NULL);
        return 0;
    default:
        return ERR_CORRUPT;
    }
}

static int zset_apply(struct object *object, struct bytes ops)
{
    struct effect_reader reader;
    uint8_t code;
    uint32_t count;

    effect_reader_init(&reader, ops);
    while (effect_next(&reader, &code, &count)) {
        int err = apply_one(object, &reader, code);

        if (err != 0)
            return err;
    }
    return reader.is_bad ? ERR_CORRUPT : 0;
}

const struct object_ops zset_ops = {
    .create = zset_object_create,
    .destroy = zset_object_destroy,
    .destroy_step = zset_destroy_step,
    .count = zset_count,
    .bytes = zset_bytes,
    .encode = zset_encode,
    .decode = zset_decode,
    .apply = zset_apply,
};
