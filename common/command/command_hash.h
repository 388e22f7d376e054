/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command_hash.h - the perfect hash of command names; private to command.c and make_index.c.
 *
 * make_index tries multipliers at build time until no two rows of command.def share a slot, and writes
 * the one it found with the table. A look-up is then one hash, one slot, one comparison. The table is
 * kept sparse (8192 slots of two bytes for some 350 rows) so that a new row needs no thought; only the
 * lines of the slots in use are ever in a cache.
 */
#pragma once
#include "common/base/bytes.h"

#define COMMAND_HASH_BITS 13
#define COMMAND_HASH_SLOTS (1u << COMMAND_HASH_BITS)

static inline uint64_t command_hash_load8(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t command_hash_load4(const char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* The slot of `name`, any case, not empty, below `parent` (0: top level). Bit 0x20 is set in each byte:
 * letters lose their case; what else that makes equal, the comparison afterwards tells apart. */
static ALWAYS_INLINE uint32_t command_hash_slot(struct bytes name, uint32_t parent,
                                                uint64_t multiplier)
{
    const char *p = name.data;
    uint64_t key;

    if (name.len >= 8)
        key = (command_hash_load8(p) | 0x2020202020202020u) * 31 ^
              (command_hash_load8(p + name.len - 8) | 0x2020202020202020u);
    else if (name.len >= 4)
        key = (uint64_t)(command_hash_load4(p) | 0x20202020u) << 32 |
              command_hash_load4(p + name.len - 4) | 0x20202020u;
    else
        key = (uint64_t)((unsigned char)p[0] | 0x20) << 16 |
              (uint64_t)((unsigned char)p[name.len / 2] | 0x20) << 8 |
              ((unsigned char)p[name.len - 1] | 0x20);
    key ^= (uint64_t)parent << 40 ^ name.len << 56;
    return (uint32_t)((key * multiplier ^ key >> 29) * multiplier >> (64 - COMMAND_HASH_BITS));
}
