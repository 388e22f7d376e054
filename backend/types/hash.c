/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/hash.h"
#include "backend/store/effect.h"
#include "backend/types/draw.h"
#include "backend/types/limits.h"
#include "backend/types/types.h"
#include "common/base/err.h"
#include "common/base/mem.h"

enum { HASH_PACKED = 1, HASH_TABLE };

struct hash {
    struct object object;
    union {
        struct packed packed; /* field, value, field, value ... */
        struct {
            struct dict *dict;  /* owns; items: field | value */
            size_t item_bytes;  /* heap bytes of the items */
        };
    };
};

static inline struct hash *hash_of(const struct object *object)
{
    DCHECK(object->type == STORE_HASH);
    return (struct hash *)(uintptr_t)object;
}

static inline bool is_packed(const struct hash *hash)
{
    return hash->object.encoding == HASH_PACKED;
}

struct object *hash_create(void)
{
    struct hash *hash = mem_zalloc(sizeof(*hash));

    if (hash == NULL)
        return NULL;
    hash->object.type = STORE_HASH;
    hash->object.encoding = HASH_PACKED;
    hash->object.limits = &object_limits_default;
    packed_init(&hash->packed);
    return &hash->object;
}

uint64_t hash_count(const struct object *object)
{
    const struct hash *hash = hash_of(object);

    return is_packed(hash) ? hash->packed.count / 2 : hash->dict->count;
}

const char *hash_encoding(const struct object *object)
{
    return is_packed(hash_of(object)) ? "listpack" : "hashtable";
}

/* ---- items of the table --------------------------------------------------------------------- */

static size_t pair_size(struct bytes field, struct bytes value)
{
    return item_size(field.len) + item_size(value.len);
}

static char *pair_make(struct bytes field, struct bytes value)
{
    char *item = mem_alloc(heap_class(pair_size(field, value))); /* table_set() uses it all */

    if (item != NULL)
        item_write(item_write(item, field), value);
    return item;
}

static size_t pair_heap(const char *item)
{
    struct bytes part;

    return heap_class((size_t)(item_read(item_read(item, &part), &part) - item));
}

static void pair_free(void *arg, char *item)
{
    (void)arg;
    mem_free(item);
}

static int table_add(struct dict *dict, size_t *bytes, uint64_t hash, struct bytes field,
                     struct bytes value)
{
    char *item = pair_make(field, value);
    int err = item == NULL ? ERR_FULL : dict_insert(dict, hash, item);

    if (err != 0)
        mem_free(item);
    else
        *bytes += heap_class(pair_size(field, value));
    return err;
}

static void table_free(struct dict *dict)
{
    while (!dict_clear_step(dict, UINT32_MAX, pair_free, NULL))
        ;
    mem_free(dict);
}

static int make_table(struct hash *hash)
{
    struct dict *dict = mem_alloc(sizeof(*dict));
    size_t bytes = 0;
    int err = 0;

    if (dict == NULL)
        return ERR_FULL;
    dict_init(dict);
    for (uint32_t off = 0; off < hash->packed.len && err == 0;) {
        struct bytes field, value;

        off = packed_get(&hash->packed, off, &field);
        off = packed_get(&hash->packed, off, &value);
        err = table_add(dict, &bytes, dict_hash(field), field, value);
    }
    if (err != 0) {
        table_free(dict);
        return err;
    }
    packed_deinit(&hash->packed);
    hash->object.encoding = HASH_TABLE;
    hash->dict = dict;
    hash->item_bytes = bytes;
    return 0;
}

/* ---- fields --------------------------------------------------------------------------------- */

bool hash_get(const struct object *object, struct bytes field, struct bytes *value)
{
    const struct hash *hash = hash_of(object);
    struct bytes found;
    const char *item;
    uint32_t off;

    if (!is_packed(hash)) {
        item = dict_find(hash->dict, dict_hash(field), field);
        if (item != NULL)
            item_read(item_read(item, &found), value);
        return item != NULL;
    }
    off = packed_find(&hash->packed, field, 0, 2);
    if (off != UINT32_MAX)
        packed_get(&hash->packed, packed_get(&hash->packed, off, &found), value);
    return off != UINT32_MAX;
}

/* `off`: where the field is, UINT32_MAX: nowhere. */
static int packed_set(struct hash *hash, uint32_t off, struct bytes field, struct bytes value)
{
    struct bytes found;
    int err;

    if (off != UINT32_MAX)
        return packed_replace(&hash->packed, packed_get(&hash->packed, off, &found), value);
    off = hash->packed.len;
    err = packed_append(&hash->packed, field);
    if (err != 0)
        return err;
    err = packed_append(&hash->packed, value);
    if (err != 0)
        packed_remove(&hash->packed, off, 1);
    return err;
}

static int table_set(struct hash *hash, struct bytes field, struct bytes value, bool *is_new)
{
    uint64_t code = dict_hash(field);
    char *item = dict_find(hash->dict, code, field), *now;
    size_t heap = heap_class(pair_size(field, value)), had;

    *is_new = item == NULL;
    if (item == NULL)
        return table_add(hash->dict, &hash->item_bytes, code, field, value);
    had = pair_heap(item);
    if (heap == had) {
        item_write(item + item_size(field.len), value);
        return 0;
    }
    now = pair_make(field, value);
    if (now == NULL)
        return ERR_FULL;
    dict_replace(hash->dict, code, item, now);
    mem_free(item);
    hash->item_bytes += heap - had;
    return 0;
}

int hash_set(struct object *object, struct bytes field, struct bytes value, bool *is_new)
{
    struct hash *hash = hash_of(object);
    uint32_t off;
    int err;

    if (is_packed(hash)) {
        off = packed_find(&hash->packed, field, 0, 2);
        *is_new = off == UINT32_MAX;
        if (field.len <= object->limits->hash_size && value.len <= object->limits->hash_size &&
            hash_count(object) + *is_new <= object->limits->hash_fields)
            return packed_set(hash, off, field, value);
        err = make_table(hash);
        if (err != 0)
            return err;
    }
    return table_set(hash, field, value, is_new);
}

bool hash_delete(struct object *object, struct bytes field)
{
    struct hash *hash = hash_of(object);
    uint32_t off;
    char *item;

    if (!is_packed(hash)) {
        item = dict_remove(hash->dict, dict_hash(field), field);
        if (item != NULL) {
            hash->item_bytes -= pair_heap(item);
            mem_free(item);
        }
        return item != NULL;
    }
    off = packed_find(&hash->packed, field, 0, 2);
    if (off != UINT32_MAX)
        packed_remove(&hash->packed, off, 2);
    return off != UINT32_MAX;
}

/* ---- walks ---------------------------------------------------------------------------------- */

void hash_walk_init(struct hash_walk *walk, const struct object *object)
{
    walk->object = object;
    walk->off = 0;
    if (!is_packed(hash_of(object)))
        dict_walk_init(&walk->dict, hash_of(object)->dict);
}

bool hash_walk_next(struct hash_walk *walk, struct bytes *field, struct bytes *value)
{
    const struct hash *hash = hash_of(walk->object);
    const char *item;

    if (!is_packed(hash)) {
        item = dict_walk_next(&walk->dict);
        if (item != NULL)
            item_read(item_read(item, field), value);
        return item != NULL;
    }
    if (walk->off == hash->packed.len)
        return false;
    walk->off = packed_get(&hash->packed, walk->off, field);
    walk->off = packed_get(&hash->packed, walk->off, value);
    return true;
}

struct each_pair {
    hash_each_fn each;
    void *arg;
};

static void each_item(void *arg, char *item)
{
    const struct each_pair *pair = arg;
    struct bytes field, value;

    item_read(item_read(item, &field), &value);
    pair->each(pair->arg, field, value);
}

uint64_t hash_scan(const struct object *object, uint64_t cursor, hash_each_fn each, void *arg)
{
    const struct hash *hash = hash_of(object);
    struct each_pair pair = {.each = each, .arg = arg};
    struct bytes field, value;
    struct hash_walk walk;

    if (!is_packed(hash))
        return dict_scan(hash->dict, cursor, each_item, &pair);
    hash_walk_init(&walk, object);
    while (hash_walk_next(&walk, &field, &value))
        each(arg, field, value);
    return 0;
}

void hash_random(const struct object *object, uint64_t random, struct bytes *field, struct bytes *value)
{
    const struct hash *hash = hash_of(object);
    uint32_t off;

    ASSERT(hash_count(object) > 0);
    if (!is_packed(hash)) {
        item_read(item_read(dict_random(hash->dict, random), field), value);
        return;
    }
    off = packed_at(&hash->packed, 2 * (uint32_t)draw_below(&random, hash->packed.count / 2));
    packed_get(&hash->packed, packed_get(&hash->packed, off, field), value);
}

void hash_sample(const struct object *object, uint64_t wanted, uint64_t random, hash_each_fn each, void *arg)
{
    const struct hash *hash = hash_of(object);
    struct draw_sample sample = {.random = random, .left = hash_count(object), .wanted = wanted};
    struct each_pair pair = {.each = each, .arg = arg};
    struct bytes field, value;
    struct hash_walk walk;

    if (!is_packed(hash)) {
        dict_sample(hash->dict, wanted, random, each_item, &pair);
        return;
    }
    hash_walk_init(&walk, object);
    while (hash_walk_next(&walk, &field, &value))
        if (draw_takes(&sample))
            each(arg, field, value);
}

/* ---- operations for the store --------------------------------------------------------------- */

static bool destroy_step(struct object *object, uint32_t elements_max)
{
    struct hash *hash = hash_of(object);

    if (is_packed(hash)) {
        packed_deinit(&hash->packed);
    } else {
        if (!dict_clear_step(hash->dict, elements_max, pair_free, NULL))
            return false;
        mem_free(hash->dict);
    }
    mem_free(hash);
    return true;
}

static void destroy(struct object *object)
{
    while (!destroy_step(object, UINT32_MAX))
        ;
}

static size_t bytes(const struct object *object)
{
    const struct hash *hash = hash_of(object);
    size_t head = heap_class(sizeof(*hash));

    if (is_packed(hash))
        return head + packed_bytes(&hash->packed);
    return head + heap_class(sizeof(*hash->dict)) + hash->dict->bytes + hash->item_bytes;
}

static void append_item(void *arg, char *item)
{
    struct bytes part;

    buffer_append(arg, item, (size_t)(item_read(item_read(item, &part), &part) - item));
}

static void encode(const struct object *object, struct buffer *out)
{
    const struct hash *hash = hash_of(object);

    buffer_append(out, &object->encoding, 1);
    varint_append(out, hash_count(object));
    if (is_packed(hash))
        buffer_append(out, hash->packed.data, hash->packed.len);
    else if (dict_sorted(hash->dict, append_item, out) != 0)
        out->failed = true;
}

/* No field twice: a bit for each hash says quickly that most were not there before. */
static bool fields_differ(const struct packed *packed)
{
    uint64_t few[32] = {0}, *seen = few;
    uint32_t off = 0, words = ARRAY_COUNT(few);
    bool differ = true;

    if (packed->count > 2 * HASH_PACKED_FIELDS_MAX) {
        words = PACKED_COUNT_BOUND;
        seen = mem_zalloc(words * sizeof(seen[0]));
        if (seen == NULL)
            return false;
    }
    for (uint32_t i = 0; i < packed->count && differ; i += 2) {
        uint32_t at = off;
        struct bytes field, value;
        uint64_t hash;

        off = packed_get(packed, off, &field);
        off = packed_get(packed, off, &value);
        hash = dict_hash(field);
        differ = (seen[hash / 64 % words] >> hash % 64 & 1) == 0 || packed_find(packed, field, 0, 2) == at;
        seen[hash / 64 % words] |= 1ull << hash % 64;
    }
    if (seen != few)
        mem_free(seen);
    return differ;
}

/* An image from a time of other bounds may be larger than ours. */
static bool packed_fits(const struct packed *packed)
{
    if (packed->count > 2 * PACKED_COUNT_BOUND)
        return false;
    for (uint32_t off = 0; off < packed->len;) {
        struct bytes item;

        off = packed_get(packed, off, &item);
        if (item.len > PACKED_SIZE_BOUND)
            return false;
    }
    return true;
}

static bool decode_table(struct hash *hash, uint64_t count, struct bytes image)
{
    dict_expect(hash->dict, MIN(count, image.len / ITEM_BYTES_LEAST));
    for (uint64_t i = 0; i < count; i++) {
        struct bytes field, value;
        uint64_t code;

        if (!varint_read_bytes(&image, &field) || !varint_read_bytes(&image, &value))
            return false;
        code = dict_hash(field);
        if (dict_find(hash->dict, code, field) != NULL ||
            table_add(hash->dict, &hash->item_bytes, code, field, value) != 0)
            return false;
    }
    return image.len == 0;
}

static struct object *decode(struct bytes image)
{
    uint8_t encoding = image.len > 0 ? (uint8_t)image.data[0] : 0;
    struct object *object;
    struct hash *hash;
    uint64_t count;
    bool is_good = false;

    image = bytes_skip(image, 1);
    if (!varint_read(&image, &count) || count == 0 || count > image.len / 2)
        return NULL;
    object = hash_create();
    if (object == NULL)
        return NULL;
    hash = hash_of(object);
    if (encoding == HASH_TABLE) {
        is_good = make_table(hash) == 0 && decode_table(hash, count, image);
    } else if (encoding == HASH_PACKED && count <= UINT32_MAX / 2) {
        is_good = packed_load(&hash->packed, image) == 0 && hash->packed.count == 2 * count;
        if (is_good && packed_fits(&hash->packed))
            is_good = fields_differ(&hash->packed);
        else if (is_good) {
            packed_deinit(&hash->packed);
            is_good = make_table(hash) == 0 && decode_table(hash, count, image);
        }
    }
    if (!is_good)
        destroy(object);
    return is_good ? object : NULL;
}

static int apply_one(struct object *object, uint8_t code, uint32_t count, struct effect_reader *reader)
{
    struct bytes field, value;
    bool is_new;

    switch ((enum hash_effect)code) {
    case HASH_EFFECT_SET:
        if (count % 2 != 0)
            return ERR_CORRUPT;
        for (uint32_t i = 0; i < count; i += 2) {
            if (!effect_read_bytes(reader, &field) || !effect_read_bytes(reader, &value))
                return ERR_CORRUPT;
            if (hash_set(object, field, value, &is_new) != 0)
                return ERR_FULL;
        }
        return 0;
    case HASH_EFFECT_DELETE:
        for (uint32_t i = 0; i < count; i++) {
            if (!effect_read_bytes(reader, &field))
                return ERR_CORRUPT;
            MAYBE(hash_delete(object, field));
        }
        return 0;
    }
    return code >= EFFECT_EXPIRE ? 0 : ERR_CORRUPT; /* those from there on are the store's */
}

static int apply(struct object *object, struct bytes ops)
{
    struct effect_reader reader;
    uint32_t count;
    uint8_t code;

    effect_reader_init(&reader, ops);
    while (effect_next(&reader, &code, &count)) {
        int err = apply_one(object, code, count, &reader);

        if (err != 0)
            return err;
    }
    return reader.is_bad ? ERR_CORRUPT : 0;
}

const struct object_ops hash_ops = {
    .create = hash_create,
    .destroy = destroy,
    .destroy_step = destroy_step,
    .count = hash_count,
    .bytes = bytes,
    .encode = encode,
    .decode = decode,
    .apply = apply,
};
