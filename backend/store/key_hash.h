/* SPDX-License-Identifier: Apache-2.0 */
/* key_hash.h - the hash that the index and a checkpoint's pages place keys by; `seed` is the first 8 bytes of the
 * directory's. */
#pragma once
#include "common/base/bytes.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static inline uint64_t key_hash(uint64_t seed, uint8_t db, struct bytes key)
{
    return XXH3_64bits_withSeed(key.data, key.len, seed + db * 0x9e3779b97f4a7c15u);
}
