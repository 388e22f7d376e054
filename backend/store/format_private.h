/* SPDX-License-Identifier: Apache-2.0 */
/* format_private.h - little-endian fields of the log's formats. */
#pragma once
#include "common/base/base.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are copied as they are");

static inline size_t round_up(size_t size, size_t step)
{
    return (size + step - 1) & ~(step - 1);
}

static inline void put_u16(char *at, uint16_t value)
{
    memcpy(at, &value, sizeof(value));
}

static inline void put_u32(char *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
}

static inline void put_u64(char *at, uint64_t value)
{
    memcpy(at, &value, sizeof(value));
}

static inline uint16_t get_u16(const char *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint32_t get_u32(const char *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint64_t get_u64(const char *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static inline bool is_zero(const char *at, size_t size)
{
    return size == 0 || (at[0] == 0 && memcmp(at, at + 1, size - 1) == 0);
}
