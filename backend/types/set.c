/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/set.h"
#include "backend/store/effect.h"
#include "backend/types/draw.h"
#include "backend/types/limits.h"
#include "backend/types/types.h"
#include "common/base/err.h"
#include "common/base/mem.h"

enum set_form { SET_INTS = 1, SET_PACKED, SET_TABLE };

struct set {
    struct object object;
    union {
        struct intset ints;
        struct packed packed;
        struct {
            struct dict *dict; /* owns; items: members */
            size_t item_bytes; /* heap bytes of the items */
        };
    };
};

static inline struct set *set_of(const struct object *object)
{
    DCHECK(object->type == STORE_SET);
    return (struct set *)(uintptr_t)object;
}

static inline enum set_form form(const struct set *set)
{
    return (enum set_form)set->object.encoding;
}

struct object *set_create(void)
{
    struct set *set = mem_zalloc(sizeof(*set));

    if (set == NULL)
        return NULL;
    set->object.type = STORE_SET;
    set->object.encoding = SET_INTS;
    set->object.limits = &object_limits_default;
    intset_init(&set->ints);
    return &set->object;
}

uint64_t set_count(const struct object *object)
{
    const struct set *set = set_of(object);

    switch (form(set)) {
    case SET_INTS:
        return set->ints.count;
    case SET_PACKED:
        return set->packed.count;
    case SET_TABLE:
        return set->dict->count;
    }
    UNREACHABLE("a set has one of these forms");
}

const char *set_encoding(const struct object *object)
{
    return form(set_of(object)) == SET_INTS ? "intset" : "hashtable";
}

/* ---- from one form to the next -------------------------------------------------------------- */

static void member_free(void *arg, char *item)
{
    (void)arg;
    mem_free(item);
}

static int table_add(struct dict *dict, size_t *bytes, uint64_t hash, struct bytes member)
{
    size_t size = item_size(member.len);
    char *item = mem_alloc(size);
    int err;

    if (item == NULL)
        return ERR_FULL;
    item_write(item, member);
    err = dict_insert(dict, hash, item);
    if (err != 0)
        mem_free(item);
    else
        *bytes += heap_class(size);
    return err;
}

static void table_free(struct dict *dict)
{
    while (!dict_clear_step(dict, UINT32_MAX, member_free, NULL))
        ;
    mem_free(dict);
}

static void compact_deinit(struct set *set)
{
    if (form(set) == SET_INTS)
        intset_deinit(&set->ints);
    else
        packed_deinit(&set->packed);
}

static int make_table(struct set *set)
{
    struct dict *dict = mem_alloc(sizeof(*dict));
    struct bytes member;
    struct set_walk walk;
    size_t bytes = 0;
    int err = 0;

    if (dict == NULL)
        return ERR_FULL;
    dict_init(dict);
    set_walk_init(&walk, &set->object);
    while (err == 0 && set_walk_next(&walk, &member))
        err = table_add(dict, &bytes, dict_hash(member), member);
    if (err != 0) {
        table_free(dict);
        return err;
    }
    compact_deinit(set);
    set->object.encoding = SET_TABLE;
    set->dict = dict;
    set->item_bytes = bytes;
    return 0;
}

static int make_packed(struct set *set)
{
    struct packed packed;
    struct bytes member;
    struct set_walk walk;
    int err = 0;

    packed_init(&packed);
    set_walk_init(&walk, &set->object);
    while (err == 0 && set_walk_next(&walk, &member))
        err = packed_append(&packed, member);
    if (err != 0) {
        packed_deinit(&packed);
        return err;
    }
    compact_deinit(set);
    set->object.encoding = SET_PACKED;
    set->packed = packed;
    return 0;
}

/* ---- members -------------------------------------------------------------------------------- */

bool set_has(const struct object *object, struct bytes member)
{
    const struct set *set = set_of(object);
    int64_t number;

    switch (form(set)) {
    case SET_INTS:
        return bytes_to_i64(member, &number) && intset_has(&set->ints, number);
    case SET_PACKED:
        return packed_find(&set->packed, member, 0, 1) != UINT32_MAX;
    case SET_TABLE:
        return dict_find(set->dict, dict_hash(member), member) != NULL;
    }
    UNREACHABLE("a set has one of these forms");
}

static int ints_add(struct set *set, int64_t number, bool *is_new)
{
    int err = intset_add(&set->ints, number, is_new);

    if (err != 0 || !*is_new || set->ints.count <= set->object.limits->set_ints)
        return err;
    err = make_table(set);
    if (err != 0)
        MAYBE(intset_remove(&set->ints, number));
    return err;
}

/* Of a set that is no longer integers. */
static int bytes_add(struct set *set, struct bytes member, bool *is_new)
{
    uint64_t hash;
    int err;

    *is_new = false;
    if (form(set) == SET_PACKED) {
        if (packed_find(&set->packed, member, 0, 1) != UINT32_MAX)
            return 0;
        *is_new = true;
        if (member.len <= SET_PACKED_SIZE_MAX && set->packed.count < SET_PACKED_MEMBERS_MAX)
            return packed_append(&set->packed, member);
        err = make_table(set);
        if (err != 0)
            return err;
    }
    hash = dict_hash(member);
    *is_new = dict_find(set->dict, hash, member) == NULL;
    return *is_new ? table_add(set->dict, &set->item_bytes, hash, member) : 0;
}

int set_add(struct object *object, struct bytes member, bool *is_new)
{
    struct set *set = set_of(object);
    int64_t number;
    int err;

    if (form(set) == SET_INTS) {
        if (bytes_to_i64(member, &number))
            return ints_add(set, number, is_new);
        if (set->ints.count < SET_PACKED_MEMBERS_MAX && member.len <= SET_PACKED_SIZE_MAX)
            err = make_packed(set);
        else
            err = make_table(set);
        if (err != 0)
            return err;
    }
    return bytes_add(set, member, is_new);
}

bool set_remove(struct object *object, struct bytes member)
{
    struct set *set = set_of(object);
    int64_t number;
    uint32_t off;
    char *item;

    switch (form(set)) {
    case SET_INTS:
        return bytes_to_i64(member, &number) && intset_remove(&set->ints, number);
    case SET_PACKED:
        off = packed_find(&set->packed, member, 0, 1);
        if (off != UINT32_MAX)
            packed_remove(&set->packed, off, 1);
        return off != UINT32_MAX;
    case SET_TABLE:
        item = dict_remove(set->dict, dict_hash(member), member);
        if (item != NULL)
            set->item_bytes -= heap_class(item_size(dict_item_key(item).len));
        mem_free(item);
        return item != NULL;
    }
    UNREACHABLE("a set has one of these forms");
}

/* ---- walks ---------------------------------------------------------------------------------- */

void set_walk_init(struct set_walk *walk, const struct object *object)
{
    walk->object = object;
    walk->at = 0;
    if (form(set_of(object)) == SET_TABLE)
        dict_walk_init(&walk->dict, set_of(object)->dict);
}

bool set_walk_next(struct set_walk *walk, struct bytes *member)
{
    const struct set *set = set_of(walk->object);
    const char *item;

    switch (form(set)) {
    case SET_INTS:
        if (walk->at == set->ints.count)
            return false;
        *member = bytes_of(walk->digits, i64_to_digits(intset_get(&set->ints, walk->at++), walk->digits));
        return true;
    case SET_PACKED:
        if (walk->at == set->packed.len)
            return false;
        walk->at = packed_get(&set->packed, walk->at, member);
        return true;
    case SET_TABLE:
        item = dict_walk_next(&walk->dict);
        if (item != NULL)
            *member = dict_item_key(item);
        return item != NULL;
    }
    UNREACHABLE("a set has one of these forms");
}

struct each_member {
    set_each_fn each;
    void *arg;
};

static void each_item(void *arg, char *item)
{
    const struct each_member *member = arg;

    member->each(member->arg, dict_item_key(item));
}

uint64_t set_scan(const struct object *object, uint64_t cursor, set_each_fn each, void *arg)
{
    const struct set *set = set_of(object);
    struct each_member each_member = {.each = each, .arg = arg};
    struct bytes member;
    struct set_walk walk;

    if (form(set) == SET_TABLE)
        return dict_scan(set->dict, cursor, each_item, &each_member);
    set_walk_init(&walk, object);
    while (set_walk_next(&walk, &member))
        each(arg, member);
    return 0;
}

struct bytes set_random(const struct object *object, uint64_t random, char digits[SET_DIGITS_MAX])
{
    const struct set *set = set_of(object);
    struct bytes member;
    uint32_t index;

    ASSERT(set_count(object) > 0);
    if (form(set) == SET_TABLE)
        return dict_item_key(dict_random(set->dict, random));
    index = (uint32_t)draw_below(&random, set_count(object));
    if (form(set) == SET_INTS)
        return bytes_of(digits, i64_to_digits(intset_get(&set->ints, index), digits));
    packed_get(&set->packed, packed_at(&set->packed, index), &member);
    return member;
}

void set_sample(const struct object *object, uint64_t wanted, uint64_t random, set_each_fn each, void *arg)
{
    const struct set *set = set_of(object);
    struct draw_sample sample = {.random = random, .left = set_count(object), .wanted = wanted};
    struct each_member each_member = {.each = each, .arg = arg};
    struct bytes member;
    struct set_walk walk;

    if (form(set) == SET_TABLE) {
        dict_sample(set->dict, wanted, random, each_item, &each_member);
        return;
    }
    set_walk_init(&walk, object);
    while (set_walk_next(&walk, &member))
        if (draw_takes(&sample))
            each(arg, member);
}

/* ---- operations for the store --------------------------------------------------------------- */

static bool destroy_step(struct object *object, uint32_t elements_max)
{
    struct set *set = set_of(object);

    if (form(set) == SET_TABLE) {
        if (!dict_clear_step(set->dict, elements_max, member_free, NULL))
            return false;
        mem_free(set->dict);
    } else {
        compact_deinit(set);
    }
    mem_free(set);
    return true;
}

static void destroy(struct object *object)
{
    while (!destroy_step(object, UINT32_MAX))
        ;
}

static size_t bytes(const struct object *object)
{
    const struct set *set = set_of(object);
    size_t head = heap_class(sizeof(*set));

    switch (form(set)) {
    case SET_INTS:
        return head + set->ints.cap;
    case SET_PACKED:
        return head + packed_bytes(&set->packed);
    case SET_TABLE:
        return head + heap_class(sizeof(*set->dict)) + set->dict->bytes + set->item_bytes;
    }
    UNREACHABLE("a set has one of these forms");
}

static void append_item(void *arg, char *item)
{
    struct bytes member;

    buffer_append(arg, item, (size_t)(item_read(item, &member) - item));
}

static void encode(const struct object *object, struct buffer *out)
{
    const struct set *set = set_of(object);
    struct bytes image;

    buffer_append(out, &object->encoding, 1);
    varint_append(out, set_count(object));
    switch (form(set)) {
    case SET_INTS:
        buffer_append(out, &set->ints.width, 1);
        image = intset_image(&set->ints);
        buffer_append(out, image.data, image.len);
        break;
    case SET_PACKED:
        buffer_append(out, set->packed.data, set->packed.len);
        break;
    case SET_TABLE:
        if (dict_sorted(set->dict, append_item, out) != 0)
            out->failed = true;
        break;
    }
}

/* No member twice: a bit for each hash says quickly that most were not there before. */
static bool members_differ(const struct packed *packed)
{
    uint64_t seen[32] = {0};

    for (uint32_t off = 0; off < packed->len;) {
        uint32_t at = off;
        struct bytes member;
        uint64_t hash;

        off = packed_get(packed, off, &member);
        hash = dict_hash(member);
        if ((seen[hash / 64 % 32] >> hash % 64 & 1) && packed_find(packed, member, 0, 1) != at)
            return false;
        seen[hash / 64 % 32] |= 1ull << hash % 64;
    }
    return true;
}

static bool decode_table(struct set *set, uint64_t count, struct bytes image)
{
    if (make_table(set) != 0)
        return false;
    dict_expect(set->dict, MIN(count, image.len / ITEM_BYTES_LEAST));
    for (uint64_t i = 0; i < count; i++) {
        struct bytes member;
        uint64_t hash;

        if (!varint_read_bytes(&image, &member))
            return false;
        hash = dict_hash(member);
        if (dict_find(set->dict, hash, member) != NULL ||
            table_add(set->dict, &set->item_bytes, hash, member) != 0)
            return false;
    }
    return image.len == 0;
}

static bool decode_ints(struct set *set, uint64_t count, struct bytes image)
{
    if (image.len == 0 || intset_load(&set->ints, (uint8_t)image.data[0], bytes_skip(image, 1)) != 0)
        return false;
    if (set->ints.count != count)
        return false;
    return count <= INTS_COUNT_BOUND || make_table(set) == 0; /* from a time of other limits */
}

static bool decode_packed(struct set *set, uint64_t count, struct bytes image)
{
    if (count > SET_PACKED_MEMBERS_MAX)
        return decode_table(set, count, image);
    set->object.encoding = SET_PACKED;
    if (packed_load(&set->packed, image) != 0 || set->packed.count != count)
        return false;
    for (uint32_t off = 0; off < set->packed.len;) {
        struct bytes member;

        off = packed_get(&set->packed, off, &member);
        if (member.len > SET_PACKED_SIZE_MAX) {
            packed_deinit(&set->packed);
            return decode_table(set, count, image);
        }
    }
    return members_differ(&set->packed);
}

static struct object *decode(struct bytes image)
{
    uint8_t encoding = image.len > 0 ? (uint8_t)image.data[0] : 0;
    struct object *object;
    uint64_t count;
    bool is_good = false;

    image = bytes_skip(image, 1);
    if (!varint_read(&image, &count) || count == 0 || count > image.len)
        return NULL;
    object = set_create();
    if (object == NULL)
        return NULL;
    switch ((enum set_form)encoding) {
    case SET_INTS:
        is_good = decode_ints(set_of(object), count, image);
        break;
    case SET_PACKED:
        is_good = decode_packed(set_of(object), count, image);
        break;
    case SET_TABLE:
        is_good = decode_table(set_of(object), count, image);
        break;
    }
    if (!is_good)
        destroy(object);
    return is_good ? object : NULL;
}

static int apply(struct object *object, struct bytes ops)
{
    struct effect_reader reader;
    uint32_t count;
    uint8_t code;

    effect_reader_init(&reader, ops);
    while (effect_next(&reader, &code, &count)) {
        if (code >= EFFECT_EXPIRE)
            continue; /* the store's */
        if (code != SET_EFFECT_ADD && code != SET_EFFECT_REMOVE)
            return ERR_CORRUPT;
        for (uint32_t i = 0; i < count; i++) {
            struct bytes member;
            bool is_new;

            if (!effect_read_bytes(&reader, &member))
                return ERR_CORRUPT;
            if (code == SET_EFFECT_REMOVE)
                MAYBE(set_remove(object, member));
            else if (set_add(object, member, &is_new) != 0)
                return ERR_FULL;
        }
    }
    return reader.is_bad ? ERR_CORRUPT : 0;
}

const struct object_ops set_ops = {
    .create = set_create,
    .destroy = destroy,
    .destroy_step = destroy_step,
    .count = set_count,
    .bytes = bytes,
    .encode = encode,
    .decode = decode,
    .apply = apply,
};
