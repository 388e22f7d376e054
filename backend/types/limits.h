/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.h - up to which size collections stay compact: Redis's defaults (hash-max-listpack-entries and -value,
 * set-max-intset-entries, zset-max-listpack-entries and -value), as clients see the change in OBJECT ENCODING, and the
 * bounds of these settings. A compact object is searched from its beginning, and so is a damaged image for what is there
 * twice: beyond the bounds a larger setting changes nothing.
 */
#pragma once

#include "backend/store/object.h"

#define PACKED_COUNT_BOUND      8192u /* fields, members */
#define PACKED_SIZE_BOUND       8192u /* bytes */
#define INTS_COUNT_BOUND        (1u << 20)

#define HASH_PACKED_FIELDS_MAX  512u
#define HASH_PACKED_SIZE_MAX    64u /* of a field, of a value */
#define SET_INTS_MAX            512u
/* Redis has no such form before 7.2: OBJECT ENCODING calls it a hashtable. */
#define SET_PACKED_MEMBERS_MAX  128u
#define SET_PACKED_SIZE_MAX     64u
#define ZSET_PACKED_MEMBERS_MAX 128u
#define ZSET_PACKED_SIZE_MAX    64u

extern const struct object_limits object_limits_default;
