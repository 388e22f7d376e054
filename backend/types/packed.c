/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/packed.h"
#include "backend/types/item.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#define VARINT_MAX 5u /* bytes of a length below 2^32 */

void packed_init(struct packed *packed)
{
    *packed = (struct packed){0};
}

void packed_deinit(struct packed *packed)
{
    mem_free(packed->data);
    *packed = (struct packed){0};
}

size_t packed_bytes(const struct packed *packed)
{
    return packed->cap;
}

/* Cap becomes at least `len`; on failure nothing changes. */
static int resize(struct packed *packed, uint64_t len)
{
    uint64_t cap = heap_class(len); /* no byte of a block is lost to us */
    char *data;

    if (len > UINT32_MAX)
        return ERR_FULL;
    cap = MIN(cap, (uint64_t)UINT32_MAX);
    data = mem_realloc(packed->data, cap);
    if (data == NULL)
        return ERR_FULL;
    packed->data = data;
    packed->cap = (uint32_t)cap;
    return 0;
}

/* The block gives memory back when half of it is idle; a margin keeps the next inserts from growing it. */
static void shrink(struct packed *packed)
{
    uint64_t wanted = (uint64_t)packed->len + packed->len / 4;

    if (packed->cap <= 64 || packed->len >= packed->cap / 2)
        return;
    if (packed->len == 0)
        packed_deinit(packed);
    else
        MAYBE(resize(packed, wanted) == 0); /* otherwise it stays large */
}

/* Whether `image` is a run of whole items with lengths in their shortest form. */
static bool image_check(struct bytes image, uint32_t *count)
{
    size_t off = 0;

    for (*count = 0; off < image.len; (*count)++) {
        uint64_t len = 0;
        unsigned shift = 0;
        unsigned char byte;

        do {
            if (off == image.len || shift == 7 * VARINT_MAX)
                return false;
            byte = (unsigned char)image.data[off++];
            len |= (uint64_t)(byte & 0x7f) << shift;
            shift += 7;
        } while (byte & 0x80);
        if ((byte == 0 && shift > 7) || len > image.len - off)
            return false;
        off += len;
    }
    return true;
}

int packed_load(struct packed *packed, struct bytes image)
{
    uint32_t count;
    int err;

    packed_init(packed);
    if (image.len > UINT32_MAX || !image_check(image, &count))
        return ERR_CORRUPT;
    if (image.len == 0)
        return 0;
    err = resize(packed, image.len);
    if (err != 0)
        return err;
    memcpy(packed->data, image.data, image.len);
    packed->len = (uint32_t)image.len;
    packed->count = count;
    return 0;
}

uint32_t packed_get(const struct packed *packed, uint32_t off, struct bytes *item)
{
    ASSERT(off < packed->len);
    off = (uint32_t)(item_read(packed->data + off, item) - packed->data);
    ASSERT(off <= packed->len);
    return off;
}

uint32_t packed_at(const struct packed *packed, uint32_t index)
{
    uint32_t off = 0;

    ASSERT(index <= packed->count);
    if (index == packed->count)
        return packed->len;
    for (uint32_t i = 0; i < index; i++) {
        struct bytes item;

        off = packed_get(packed, off, &item);
    }
    return off;
}

/* Names often differ at their end alone: that byte is looked at first. */
static inline bool item_is(struct bytes here, struct bytes item)
{
    return here.len == item.len &&
           (here.len == 0 || (here.data[here.len - 1] == item.data[item.len - 1] &&
                              memcmp(here.data, item.data, here.len) == 0));
}

uint32_t packed_find(const struct packed *packed, struct bytes item, uint32_t first, uint32_t stride)
{
    const char *at, *end;
    struct bytes here;

    ASSERT(stride > 0);
    if (first >= packed->count)
        return UINT32_MAX;
    end = packed->data + packed->len;
    for (at = packed->data + packed_at(packed, first); at < end;) {
        const char *next = item_read(at, &here);

        if (item_is(here, item))
            return (uint32_t)(at - packed->data);
        at = next;
        for (uint32_t skip = 1; skip < stride && at < end; skip++)
            at = item_read(at, &here);
    }
    return UINT32_MAX;
}

/* Makes the `old_size` bytes at `off` become `new_size`, contents undefined. */
static int make_room(struct packed *packed, uint32_t off, uint32_t old_size, uint64_t new_size)
{
    uint64_t len = (uint64_t)packed->len - old_size + new_size;
    uint32_t behind = packed->len - off - old_size;

    if (len > packed->cap) {
        int err = resize(packed, len);

        if (err != 0)
            return err;
    }
    if (behind > 0 && new_size != old_size)
        memmove(packed->data + off + new_size, packed->data + off + old_size, behind);
    packed->len = (uint32_t)len;
    return 0;
}

int packed_insert(struct packed *packed, uint32_t off, struct bytes item)
{
    int err;

    ASSERT(off <= packed->len);
    if (item.len > UINT32_MAX || packed->count == UINT32_MAX)
        return ERR_FULL;
    err = make_room(packed, off, 0, item_size(item.len));
    if (err != 0)
        return err;
    item_write(packed->data + off, item);
    packed->count++;
    return 0;
}

int packed_replace(struct packed *packed, uint32_t off, struct bytes item)
{
    struct bytes old;
    uint32_t old_size = packed_get(packed, off, &old) - off;
    int err;

    if (item.len > UINT32_MAX)
        return ERR_FULL;
    err = make_room(packed, off, old_size, item_size(item.len));
    if (err != 0)
        return err;
    item_write(packed->data + off, item);
    shrink(packed);
    return 0;
}

void packed_remove(struct packed *packed, uint32_t off, uint32_t count)
{
    uint32_t end = off;

    ASSERT(count <= packed->count);
    if (count == 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct bytes item;

        end = packed_get(packed, end, &item);
    }
    if (end < packed->len)
        memmove(packed->data + off, packed->data + end, packed->len - end);
    packed->len -= end - off;
    packed->count -= count;
    shrink(packed);
}
