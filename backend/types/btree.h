/* SPDX-License-Identifier: Apache-2.0 */
/*
 * btree.h - items ordered by (score, key), with their ranks: a counted B+ tree.
 *
 * An item is an address that stays, with its key in front as in item.h; the tree neither owns items nor looks
 * behind the key. Scores are no NaN; -0 equals 0. Ranks count from 0, the lowest.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"

struct btree_leaf;

struct btree {
    void *root;      /* owns; NULL: empty */
    uint32_t height; /* 0: the root is a leaf */
    uint64_t count;
    size_t bytes; /* heap bytes of the nodes */
};

struct btree_entry {
    double score;
    char *item;
};

void btree_init(struct btree *tree);
void btree_deinit(struct btree *tree);
/* Frees nodes, about `nodes_max`; items are not looked at. True: nothing is left. */
bool btree_deinit_step(struct btree *tree, uint32_t nodes_max);

/* The pair must not be there. ERR_FULL: out of memory, nothing changed. */
MUST_USE int btree_insert(struct btree *tree, double score, char *item);
/* These ask for a pair that is there. */
void btree_remove(struct btree *tree, double score, const char *item);
uint64_t btree_rank(const struct btree *tree, double score, const char *item);
/* Gives the item another score if its place stays the same; false: it does not, nothing changed. */
bool btree_rescore(struct btree *tree, double score, const char *item, double now);

/* How many come before a bound: `is_before` is true for those, and false for all behind. */
typedef bool (*btree_before_fn)(const void *bound, double score, const char *item);
uint64_t btree_count_before(const struct btree *tree, btree_before_fn is_before, const void *bound);

/* A place among the entries; ends with the next change. */
struct btree_cursor {
    const struct btree_leaf *leaf; /* NULL: past an end */
    uint32_t index;
};
/* rank < count. */
struct btree_cursor btree_at(const struct btree *tree, uint64_t rank);
/* The entry there, which must be one; the cursor goes on. */
struct btree_entry btree_next(struct btree_cursor *cursor);
struct btree_entry btree_prev(struct btree_cursor *cursor);
/* Walks everything and asserts what holds: for tests. */
void btree_check(const struct btree *tree);
