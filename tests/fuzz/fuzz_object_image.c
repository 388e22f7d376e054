/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values as the log keeps them: any bytes are an image of this type, or are refused; any operations apply to it, or
 * are refused. What comes of it has an image that reads back to the same.
 *
 *     input = type u8 (index into `types` below) | image length u16, little endian | image | operations
 */
#include "backend/types/types.h"
#include "common/base/err.h"
#include "common/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* New ones at the end: the corpus counts on their places. */
static const struct object_ops *const types[] = {&hash_ops, &set_ops, &list_ops, &zset_ops};

static void check_image(const struct object_ops *ops, const struct object *object)
{
    struct buffer image = {0}, again = {0};
    struct object *copy;

    ops->encode(object, &image);
    ASSERT(!image.failed);
    copy = ops->decode(buffer_bytes(&image));
    ASSERT(copy != NULL);
    ASSERT(ops->count(copy) == ops->count(object));
    ops->encode(copy, &again);
    ASSERT(bytes_equal(buffer_bytes(&image), buffer_bytes(&again)));
    ops->destroy(copy);
    buffer_deinit(&image);
    buffer_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct object_ops *ops;
    struct object *object;
    struct bytes image, effects;
    int err;

    if (size < 3)
        return 0;
    ops = types[data[0] % ARRAY_COUNT(types)];
    image = bytes_first(bytes_of(data + 3, size - 3), data[1] | (size_t)data[2] << 8);
    effects = bytes_skip(bytes_of(data + 3, size - 3), image.len);
    object = image.len == 0 ? ops->create() : ops->decode(image);
    if (object == NULL)
        return 0;
    if (image.len > 0)
        check_image(ops, object);
    err = ops->apply(object, effects);
    ASSERT(err == 0 || err == ERR_CORRUPT || err == ERR_FULL);
    ASSERT(ops->bytes(object) > 0);
    if (ops->count(object) > 0)
        check_image(ops, object);
    while (!ops->destroy_step(object, 3))
        ;
    return 0;
}
