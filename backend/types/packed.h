/* SPDX-License-Identifier: Apache-2.0 */
/*
 * packed.h - a run of short byte strings in one heap block: small collections, and nodes of lists.
 *
 *     item = length varint (LEB128) | bytes            the block: items, one behind the other
 *
 * The content without the header is its own image: encode is a copy. An offset names an item until the next
 * change. Backwards walking needs the offsets: use packed_at() on short runs.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

struct packed {
    char *data;      /* owns */
    uint32_t len, cap;
    uint32_t count;  /* items */
};

void packed_init(struct packed *packed);
void packed_deinit(struct packed *packed);
/* Heap bytes. */
size_t packed_bytes(const struct packed *packed);
/* Takes over a copy of `image`; ERR_CORRUPT: items do not fit in it; ERR_FULL: no memory. */
MUST_USE int packed_load(struct packed *packed, struct bytes image);

/* The item at `off` (0 is the first); returns the offset behind it. Off must be < len. */
uint32_t packed_get(const struct packed *packed, uint32_t off, struct bytes *item);
/* Offset of item `index` (0-based; index == count: len). */
uint32_t packed_at(const struct packed *packed, uint32_t index);
/* Offset of the first item equal to `item`, looking at every `stride`-th from `first` on; UINT32_MAX: none. */
uint32_t packed_find(const struct packed *packed, struct bytes item, uint32_t first, uint32_t stride);

/* All may fail with ERR_FULL (no memory, or over 4 GiB): nothing is changed then. `item` must not lie inside. */
MUST_USE int packed_insert(struct packed *packed, uint32_t off, struct bytes item); /* off == len: append */
MUST_USE int packed_replace(struct packed *packed, uint32_t off, struct bytes item);
/* Removes `count` items from `off` on. */
void packed_remove(struct packed *packed, uint32_t off, uint32_t count);
static inline MUST_USE int packed_append(struct packed *packed, struct bytes item)
{
    return packed_insert(packed, packed->len, item);
}
