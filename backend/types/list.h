/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.h - a list object. Changes go through here: each also says to `effects` what it did.
 *
 *     image = (length varint | bytes)*          from head to tail
 */
#pragma once
#include "backend/store/object.h"
#include "backend/types/deque.h"

const char *list_encoding(const struct object *object); /* as OBJECT ENCODING says */

/* For reading, and for peeking at what will be popped. */
const struct deque *list_items(const struct object *object);

/* Each item in turn becomes the one at that end. ERR_FULL: none is in. */
MUST_USE int list_push(struct object *object, enum deque_end end, const struct bytes *items,
                       uint32_t count, struct buffer *effects);
/* There must be as many. */
void list_pop(struct object *object, enum deque_end end, uint64_t count, struct buffer *effects);
/* index < count. */
MUST_USE int list_set(struct object *object, uint64_t index, struct bytes item,
                      struct buffer *effects);
/* index <= count. */
MUST_USE int list_insert(struct object *object, uint64_t index, struct bytes item,
                         struct buffer *effects);
/* As deque_remove_equal(). */
uint64_t list_remove_equal(struct object *object, struct bytes item, int64_t count,
                           struct buffer *effects);
