/* SPDX-License-Identifier: Apache-2.0 */
/*
 * string.h - strings that are not inline (entry.h): one growable run of bytes.
 *
 * Its image is its bytes. A change is logged as what it wrote, so that SETBIT on 100 MB logs a few bytes:
 *
 *     STRING_EFFECT_APPEND  bytes        at the end
 *     STRING_EFFECT_WRITE   off, bytes   over what is there; zeros fill a gap behind the end
 *
 * A string never shrinks but by store_put_string(), which makes a new object.
 */
#pragma once
#include "backend/store/object.h"
#include "backend/types/types.h"
#include "common/base/bytes.h"

enum string_effect {
    STRING_EFFECT_APPEND = 1,
    STRING_EFFECT_WRITE = 2,
};

/* An object with a copy of these bytes. NULL: out of memory. */
struct object *string_object_of(struct bytes value);
/* The view ends with the next change. */
struct bytes string_object_bytes(const struct object *object);

/* Writes up to there need no memory then. 0; ERR_FULL: as below. */
MUST_USE int string_room(struct object *object, size_t len);
/* Both: 0; ERR_FULL: no memory, or over STORE_VALUE_MAX; then nothing was changed. `bytes` may not lie inside. */
MUST_USE int string_append(struct object *object, struct bytes bytes);
MUST_USE int string_write(struct object *object, size_t off, struct bytes bytes);
/* How the log gets the two. */
void string_effect_append(struct buffer *effects, struct bytes bytes);
void string_effect_write(struct buffer *effects, size_t off, struct bytes bytes);
