/* SPDX-License-Identifier: Apache-2.0 */
/*
 * item.h - a byte string with its length in front, as packed runs and tables keep it, and what it costs.
 *
 *     item = length varint (LEB128) | bytes
 *
 * For bytes in memory that are known to be good: nothing is checked. Images from a disk go through
 * varint_read_bytes() (effect.h) or packed_load().
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

static inline size_t item_length_size(size_t len)
{
    size_t size = 1;

    while (UNLIKELY(len >= 0x80)) {
        len >>= 7;
        size++;
    }
    return size;
}

/* Of an item in an image of many, as they differ: so much may a count at its head be believed. */
#define ITEM_BYTES_LEAST 4u

static inline size_t item_size(size_t len)
{
    return item_length_size(len) + len;
}

/* Returns what is behind it. */
static inline const char *item_read(const char *at, struct bytes *out)
{
    unsigned char byte = (unsigned char)*at++;
    size_t len = byte & 0x7f;

    for (unsigned shift = 7; UNLIKELY(byte & 0x80); shift += 7) {
        byte = (unsigned char)*at++;
        len |= (size_t)(byte & 0x7f) << shift;
    }
    *out = bytes_of(at, len);
    return at + len;
}

/* Returns what is behind it. */
static inline char *item_write(char *at, struct bytes bytes)
{
    size_t len = bytes.len;

    while (UNLIKELY(len >= 0x80)) {
        *at++ = (char)(len | 0x80);
        len >>= 7;
    }
    *at++ = (char)len;
    if (bytes.len > 0)
        memcpy(at, bytes.data, bytes.len);
    return at + bytes.len;
}

/* What the heap takes for `size` bytes: its size classes, four for each doubling. */
static inline size_t heap_class(size_t size)
{
    size_t step = 16;

    if (size <= 8)
        return size == 0 ? 0 : 8;
    if (size > 128)
        step = (size_t)1 << (63 - __builtin_clzll(size - 1) - 2);
    return (size + step - 1) & ~(step - 1);
}
