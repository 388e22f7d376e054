/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/list.h"
#include "backend/store/effect.h"
#include "backend/types/item.h"
#include "backend/types/types.h"
#include "common/base/mem.h"

struct list_object {
    struct object object;
    struct deque items;
};

enum list_effect {
    LIST_EFFECT_PUSH_HEAD = 1, /* items, one after the other */
    LIST_EFFECT_PUSH_TAIL,
    LIST_EFFECT_POP_HEAD, /* count */
    LIST_EFFECT_POP_TAIL,
    LIST_EFFECT_SET,          /* index, item */
    LIST_EFFECT_INSERT,       /* index, item */
    LIST_EFFECT_REMOVE_EQUAL, /* count (two's complement), item */
};

static struct deque *items_of(struct object *object)
{
    ASSERT(object->type == STORE_LIST);
    return &CONTAINER_OF(object, struct list_object, object)->items;
}

const struct deque *list_items(const struct object *object)
{
    return items_of((struct object *)object);
}

const char *list_encoding(const struct object *object)
{
    ASSERT(object->type == STORE_LIST);
    return "quicklist";
}

/* ---- changes ------------------------------------------------------------------------------------ */

static int push_all(struct deque *items, enum deque_end end, const struct bytes *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        int err = deque_push(items, end, list[i]);

        if (err != 0) {
            deque_pop(items, end, i);
            return err;
        }
    }
    return 0;
}

int list_push(struct object *object, enum deque_end end, const struct bytes *items, uint32_t count,
              struct buffer *effects)
{
    int err = push_all(items_of(object), end, items, count);

    if (err != 0)
        return err;
    effect_begin(effects, end == DEQUE_HEAD ? LIST_EFFECT_PUSH_HEAD : LIST_EFFECT_PUSH_TAIL, count);
    for (uint32_t i = 0; i < count; i++)
        effect_bytes(effects, items[i]);
    return 0;
}

void list_pop(struct object *object, enum deque_end end, uint64_t count, struct buffer *effects)
{
    deque_pop(items_of(object), end, count);
    effect_begin(effects, end == DEQUE_HEAD ? LIST_EFFECT_POP_HEAD : LIST_EFFECT_POP_TAIL, 1);
    effect_u64(effects, count);
}

int list_set(struct object *object, uint64_t index, struct bytes item, struct buffer *effects)
{
    int err = deque_set(items_of(object), index, item);

    if (err != 0)
        return err;
    effect_begin(effects, LIST_EFFECT_SET, 2);
    effect_u64(effects, index);
    effect_bytes(effects, item);
    return 0;
}

int list_insert(struct object *object, uint64_t index, struct bytes item, struct buffer *effects)
{
    int err = deque_insert(items_of(object), index, item);

    if (err != 0)
        return err;
    effect_begin(effects, LIST_EFFECT_INSERT, 2);
    effect_u64(effects, index);
    effect_bytes(effects, item);
    return 0;
}

uint64_t list_remove_equal(struct object *object, struct bytes item, int64_t count,
                           struct buffer *effects)
{
    uint64_t removed = deque_remove_equal(items_of(object), item, count);

    if (removed == 0)
        return 0;
    effect_begin(effects, LIST_EFFECT_REMOVE_EQUAL, 2);
    effect_u64(effects, (uint64_t)count);
    effect_bytes(effects, item);
    return removed;
}

/* ---- operations of the type --------------------------------------------------------------------- */

static struct object *list_create(void)
{
    struct list_object *list = mem_zalloc(sizeof(*list));

    if (list == NULL)
        return NULL;
    list->object.type = STORE_LIST;
    deque_init(&list->items);
    return &list->object;
}

static bool list_destroy_step(struct object *object, uint32_t elements_max)
{
    if (!deque_deinit_step(items_of(object), elements_max))
        return false;
    mem_free(CONTAINER_OF(object, struct list_object, object));
    return true;
}

static void list_destroy(struct object *object)
{
    deque_deinit(items_of(object));
    mem_free(CONTAINER_OF(object, struct list_object, object));
}

static uint64_t list_count(const struct object *object)
{
    return list_items(object)->count;
}

static size_t list_bytes(const struct object *object)
{
    return heap_class(sizeof(struct list_object)) + list_items(object)->bytes;
}

static void list_encode(const struct object *object, struct buffer *out)
{
    const struct deque *items = list_items(object);
    struct deque_cursor cursor = {0};

    if (items->count > 0)
        cursor = deque_seek(items, 0);
    while (cursor.node != NULL)
        varint_append_bytes(out, deque_walk(&cursor, DEQUE_TAIL));
}

static struct object *list_decode(struct bytes image)
{
    struct object *object = list_create();

    while (object != NULL && image.len > 0) {
        struct bytes item;

        if (!varint_read_bytes(&image, &item) ||
            deque_push(items_of(object), DEQUE_TAIL, item) != 0) {
            list_destroy(object);
            object = NULL;
        }
    }
    return object;
}

static int apply_push(struct deque *items, struct effect_reader *reader, enum deque_end end,
                      uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct bytes item;
        int err;

        if (!effect_read_bytes(reader, &item))
            return ERR_CORRUPT;
        err = deque_push(items, end, item);
        if (err != 0)
            return err;
    }
    return 0;
}

static int apply_pop(struct deque *items, struct effect_reader *reader, enum deque_end end)
{
    uint64_t count;

    if (!effect_read_u64(reader, &count) || count > items->count)
        return ERR_CORRUPT;
    deque_pop(items, end, count);
    return 0;
}

/* Those with a number and an item. */
static int apply_inside(struct deque *items, struct effect_reader *reader, uint8_t code)
{
    uint64_t number;
    struct bytes item;

    if (!effect_read_u64(reader, &number) || !effect_read_bytes(reader, &item))
        return ERR_CORRUPT;
    if (code == LIST_EFFECT_REMOVE_EQUAL)
        return deque_remove_equal(items, item, (int64_t)number) > 0 ? 0 : ERR_CORRUPT;
    if (code == LIST_EFFECT_SET)
        return number < items->count ? deque_set(items, number, item) : ERR_CORRUPT;
    return number <= items->count ? deque_insert(items, number, item) : ERR_CORRUPT;
}

static int apply_one(struct deque *items, struct effect_reader *reader, uint8_t code, uint32_t count)
{
    if (code >= EFFECT_EXPIRE)
        return 0; /* the store's own */
    switch (code) {
    case LIST_EFFECT_PUSH_HEAD:
    case LIST_EFFECT_PUSH_TAIL:
        return apply_push(items, reader, code == LIST_EFFECT_PUSH_HEAD ? DEQUE_HEAD : DEQUE_TAIL,
                          count);
    case LIST_EFFECT_POP_HEAD:
    case LIST_EFFECT_POP_TAIL:
        return apply_pop(items, reader, code == LIST_EFFECT_POP_HEAD ? DEQUE_HEAD : DEQUE_TAIL);
    case LIST_EFFECT_SET:
    case LIST_EFFECT_INSERT:
    case LIST_EFFECT_REMOVE_EQUAL:
        return apply_inside(items, reader, code);
    default:
        return ERR_CORRUPT;
    }
}

static int list_apply(struct object *object, struct bytes ops)
{
    struct effect_reader reader;
    uint8_t code;
    uint32_t count;

    effect_reader_init(&reader, ops);
    while (effect_next(&reader, &code, &count)) {
        int err = apply_one(items_of(object), &reader, code, count);

        if (err != 0)
            return err;
    }
    return reader.is_bad ? ERR_CORRUPT : 0;
}

const struct object_ops list_ops = {
    .create = list_create,
    .destroy = list_destroy,
    .destroy_step = list_destroy_step,
    .count = list_count,
    .bytes = list_bytes,
    .encode = list_encode,
    .decode = list_decode,
    .apply = list_apply,
};
