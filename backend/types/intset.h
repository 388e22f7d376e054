/* SPDX-License-Identifier: Apache-2.0 */
/*
 * intset.h - different integers, sorted, in one heap block.
 *
 *     2, 4 or 8 bytes each, little endian: as wide as the widest that was ever in it
 *
 * The block's content is its own image.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

struct intset {
    char *data; /* owns */
    uint32_t count, cap; /* cap: bytes */
    uint8_t width;
};

void intset_init(struct intset *set);
void intset_deinit(struct intset *set);
static inline struct bytes intset_image(const struct intset *set)
{
    return bytes_of(set->data, (size_t)set->count * set->width);
}
/* Takes over a copy. ERR_CORRUPT: no such width, not a multiple of it, not in order; ERR_FULL: no memory. */
MUST_USE int intset_load(struct intset *set, uint8_t width, struct bytes image);

int64_t intset_get(const struct intset *set, uint32_t index);
bool intset_has(const struct intset *set, int64_t number);
/* ERR_FULL: no memory, nothing changed. */
MUST_USE int intset_add(struct intset *set, int64_t number, bool *is_new);
bool intset_remove(struct intset *set, int64_t number); /* whether it was there */
