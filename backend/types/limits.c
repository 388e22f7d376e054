/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/limits.h"

const struct object_limits object_limits_default = {
    .hash_fields = HASH_PACKED_FIELDS_MAX,
    .hash_size = HASH_PACKED_SIZE_MAX,
    .set_ints = SET_INTS_MAX,
    .zset_members = ZSET_PACKED_MEMBERS_MAX,
    .zset_size = ZSET_PACKED_SIZE_MAX,
};
