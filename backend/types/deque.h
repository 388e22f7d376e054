/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deque.h - a sequence of byte strings that is pushed and popped at both ends: what a list is made of.
 *
 * An index counts from the head. A cursor ends with the next change. Memory that runs out leaves everything
 * as it was (ERR_FULL).
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"

struct deque_node;

struct deque {
    struct deque_node *head, *tail; /* own; NULL: empty */
    uint64_t count;                 /* items */
    size_t bytes;                   /* of heap */
};

enum deque_end { DEQUE_HEAD, DEQUE_TAIL };

static inline enum deque_end deque_other_end(enum deque_end end)
{
    return end == DEQUE_HEAD ? DEQUE_TAIL : DEQUE_HEAD;
}

void deque_init(struct deque *deque);
void deque_deinit(struct deque *deque);
/* Frees nodes with at least that many items; true: nothing is left. */
bool deque_deinit_step(struct deque *deque, uint64_t items_max);

/* `item` may not lie inside. */
MUST_USE int deque_push(struct deque *deque, enum deque_end end, struct bytes item);
/* The item at that end; there must be one. Ends with the next change. */
struct bytes deque_peek(const struct deque *deque, enum deque_end end);
/* Removes `count` items; there must be as many. */
void deque_pop(struct deque *deque, enum deque_end end, uint64_t count);

/* The new item gets this index, <= count. */
MUST_USE int deque_insert(struct deque *deque, uint64_t index, struct bytes item);
/* The item at `index` becomes `item`. */
MUST_USE int deque_set(struct deque *deque, uint64_t index, struct bytes item);
/* Removes items equal to `item`: count > 0 the first so many, < 0 the last so many, 0 all. Returns how many. */
uint64_t deque_remove_equal(struct deque *deque, struct bytes item, int64_t count);

struct deque_cursor {
    const struct deque_node *node; /* NULL: past an end */
    uint32_t off;
};
/* index < count. */
struct deque_cursor deque_seek(const struct deque *deque, uint64_t index);
struct bytes deque_item(const struct deque_cursor *cursor);
/* Returns the item and goes on towards `towards`. The cursor must be at an item. */
struct bytes deque_walk(struct deque_cursor *cursor, enum deque_end towards);
