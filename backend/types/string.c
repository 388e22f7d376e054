/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/string.h"

#include "backend/store/effect.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/base/shared.h"

/* Small ones double; large ones grow by an eighth: a string of 400 MB must not take 800. */
#define STRING_DOUBLE_MAX (1u << 20)

static struct string_object *string_of(struct object *object)
{
    ASSERT(object->type == STORE_STRING);
    return (struct string_object *)object;
}

static const struct string_object *string_const_of(const struct object *object)
{
    ASSERT(object->type == STORE_STRING);
    return (const struct string_object *)object;
}

static struct object *string_create(void)
{
    struct string_object *s = mem_zalloc(sizeof(*s));

    if (s == NULL)
        return NULL;
    s->object.type = STORE_STRING;
    return &s->object;
}

static void string_destroy(struct object *object)
{
    struct string_object *s = string_of(object);

    shared_drop(s->data);
    mem_free(s);
}

static bool string_destroy_step(struct object *object, uint32_t elements_max)
{
    (void)elements_max; /* one block, whatever its size */
    string_destroy(object);
    return true;
}

static uint64_t string_count(const struct object *object)
{
    return string_const_of(object)->len;
}

static size_t string_bytes(const struct object *object)
{
    const struct string_object *s = string_const_of(object);

    return sizeof(*s) + s->cap;
}

static void string_encode(const struct object *object, struct buffer *out)
{
    const struct string_object *s = string_const_of(object);

    buffer_append(out, s->data, s->len);
}

/* Room for `len` bytes in all, to write to: what somebody is being sent stays as it was. */
static int string_reserve(struct string_object *s, size_t len)
{
    bool is_ours = s->data == NULL || shared_is_sole(s->data);
    size_t cap = s->cap;
    char *data;

    if (len > STORE_VALUE_MAX)
        return ERR_FULL;
    if (len <= cap && is_ours)
        return 0;
    if (cap == 0)
        cap = len; /* a value that is only set and read has no slack */
    else if (len > cap)
        cap = len < STRING_DOUBLE_MAX ? len * 2 : len + len / 8;
    data = is_ours ? shared_realloc(s->data, cap) : shared_alloc(cap);
    if (data == NULL)
        return ERR_FULL;
    if (!is_ours) {
        memcpy(data, s->data, s->len);
        shared_drop(s->data);
    }
    s->data = data;
    s->cap = cap;
    return 0;
}

struct object *string_object_of(struct bytes value)
{
    struct object *object = string_create();

    if (object == NULL)
        return NULL;
    if (string_append(object, value) != 0) {
        string_destroy(object);
        return NULL;
    }
    return object;
}

struct bytes string_object_bytes(const struct object *object)
{
    const struct string_object *s = string_const_of(object);

    return bytes_of(s->data, s->len);
}

int string_append(struct object *object, struct bytes bytes)
{
    return string_write(object, string_of(object)->len, bytes);
}

int string_room(struct object *object, size_t len)
{
    struct string_object *s = string_of(object);

    return string_reserve(s, MAX(len, s->len));
}

int string_write(struct object *object, size_t off, struct bytes bytes)
{
    struct string_object *s = string_of(object);
    size_t end;

    if (bytes.len == 0)
        return 0;
    if (off > STORE_VALUE_MAX || bytes.len > STORE_VALUE_MAX - off)
        return ERR_FULL;
    end = off + bytes.len;
    if (string_reserve(s, end) != 0)
        return ERR_FULL;
    if (off > s->len)
        memset(s->data + s->len, 0, off - s->len);
    memcpy(s->data + off, bytes.data, bytes.len);
    s->len = MAX(s->len, end);
    ASSERT(s->len <= s->cap);
    return 0;
}

void string_effect_append(struct buffer *effects, struct bytes bytes)
{
    effect_begin(effects, STRING_EFFECT_APPEND, 1);
    effect_bytes(effects, bytes);
}

void string_effect_write(struct buffer *effects, size_t off, struct bytes bytes)
{
    effect_begin(effects, STRING_EFFECT_WRITE, 2);
    effect_u64(effects, off);
    effect_bytes(effects, bytes);
}

static int string_apply(struct object *object, struct bytes ops)
{
    struct effect_reader reader;
    uint8_t code;
    uint32_t argument_count;

    effect_reader_init(&reader, ops);
    while (effect_next(&reader, &code, &argument_count)) {
        struct bytes bytes;
        uint64_t off = string_of(object)->len;

        if (code == STRING_EFFECT_WRITE ? argument_count != 2
                                        : code != STRING_EFFECT_APPEND || argument_count != 1)
            return ERR_CORRUPT;
        if (code == STRING_EFFECT_WRITE && !effect_read_u64(&reader, &off))
            return ERR_CORRUPT;
        if (!effect_read_bytes(&reader, &bytes))
            return ERR_CORRUPT;
        if (off > STORE_VALUE_MAX || bytes.len > STORE_VALUE_MAX - off)
            return ERR_CORRUPT;
        if (string_write(object, (size_t)off, bytes) != 0)
            return ERR_FULL;
    }
    return reader.is_bad ? ERR_CORRUPT : 0;
}

const struct object_ops string_ops = {
    .create = string_create,
    .destroy = string_destroy,
    .destroy_step = string_destroy_step,
    .count = string_count,
    .bytes = string_bytes,
    .encode = string_encode,
    .decode = string_object_of,
    .apply = string_apply,
};
