/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.h - up to which size hashes and sets stay compact: Redis's defaults (hash-max-listpack-entries and
 * -value, set-max-intset-entries), as clients see the change in OBJECT ENCODING.
 *
 * Replicas must agree on them: what an object is like inside is part of its image.
 */
#pragma once

#define HASH_PACKED_FIELDS_MAX  512u
#define HASH_PACKED_SIZE_MAX    64u /* of a field, of a value */
#define SET_INTS_MAX            512u
/* Redis has no such form before 7.2: OBJECT ENCODING calls it a hashtable. */
#define SET_PACKED_MEMBERS_MAX  128u
#define SET_PACKED_SIZE_MAX     64u
