/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/intset.h"
#include "backend/types/item.h"
#include "common/base/err.h"
#include "common/base/mem.h"

void intset_init(struct intset *set)
{
    *set = (struct intset){.width = 2};
}

void intset_deinit(struct intset *set)
{
    mem_free(set->data);
    intset_init(set);
}

static uint8_t width_of(int64_t number)
{
    if (number >= INT16_MIN && number <= INT16_MAX)
        return 2;
    return number >= INT32_MIN && number <= INT32_MAX ? 4 : 8;
}

static inline int64_t read_at(const char *data, uint8_t width, uint32_t index)
{
    const char *at = data + (size_t)index * width;
    int16_t two;
    int32_t four;
    int64_t eight;

    if (width == 2) {
        memcpy(&two, at, 2);
        return two;
    }
    if (width == 4) {
        memcpy(&four, at, 4);
        return four;
    }
    memcpy(&eight, at, 8);
    return eight;
}

/* Little endian: the low bytes are the first. */
static inline void write_at(char *data, uint8_t width, uint32_t index, int64_t number)
{
    memcpy(data + (size_t)index * width, &number, width);
}

int64_t intset_get(const struct intset *set, uint32_t index)
{
    ASSERT(index < set->count);
    return read_at(set->data, set->width, index);
}

/* Where it is, or belongs. */
static bool find(const struct intset *set, int64_t number, uint32_t *index)
{
    uint32_t low = 0, high = set->count;

    if (high > 0 && read_at(set->data, set->width, high - 1) < number)
        low = high; /* rising ids are common */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (read_at(set->data, set->width, middle) < number)
            low = middle + 1;
        else
            high = middle;
    }
    *index = low;
    return low < set->count && read_at(set->data, set->width, low) == number;
}

static int resize(struct intset *set, size_t size)
{
    size_t cap = heap_class(size);
    char *data;

    if (cap > UINT32_MAX)
        return ERR_FULL;
    data = mem_realloc(set->data, cap);
    if (data == NULL)
        return ERR_FULL;
    set->data = data;
    set->cap = (uint32_t)cap;
    return 0;
}

int intset_load(struct intset *set, uint8_t width, struct bytes image)
{
    int err;

    intset_init(set);
    if ((width != 2 && width != 4 && width != 8) || image.len % width != 0 ||
        image.len / width > UINT32_MAX)
        return ERR_CORRUPT;
    for (uint32_t i = 1; i < image.len / width; i++) {
        if (read_at(image.data, width, i - 1) >= read_at(image.data, width, i))
            return ERR_CORRUPT;
    }
    set->width = width;
    if (image.len == 0)
        return 0;
    err = resize(set, image.len);
    if (err != 0)
        return err;
    memcpy(set->data, image.data, image.len);
    set->count = (uint32_t)(image.len / width);
    return 0;
}

bool intset_has(const struct intset *set, int64_t number)
{
    uint32_t index;

    return find(set, number, &index);
}

int intset_add(struct intset *set, int64_t number, bool *is_new)
{
    uint8_t width = MAX(set->width, width_of(number)), old_width = set->width;
    size_t size = ((size_t)set->count + 1) * width;
    uint32_t index;

    *is_new = !find(set, number, &index);
    if (!*is_new)
        return 0;
    if (size > set->cap) {
        int err = resize(set, size);

        if (err != 0)
            return err;
    }
    if (width == old_width) {
        memmove(set->data + (size_t)(index + 1) * width, set->data + (size_t)index * width,
                (size_t)(set->count - index) * width);
    } else {
        /* From the end, as the wider ones overwrite what lies behind. */
        for (uint32_t i = set->count; i-- > 0;)
            write_at(set->data, width, i < index ? i : i + 1, read_at(set->data, old_width, i));
        set->width = width;
    }
    write_at(set->data, width, index, number);
    set->count++;
    return 0;
}

bool intset_remove(struct intset *set, int64_t number)
{
    uint32_t index;
    size_t size;

    if (!find(set, number, &index))
        return false;
    set->count--;
    memmove(set->data + (size_t)index * set->width, set->data + (size_t)(index + 1) * set->width,
            (size_t)(set->count - index) * set->width);
    size = (size_t)set->count * set->width;
    if (set->count == 0)
        intset_deinit(set);
    else if (set->cap > 64 && size < set->cap / 2)
        MAYBE(resize(set, size + size / 4) == 0); /* otherwise it stays large */
    return true;
}
