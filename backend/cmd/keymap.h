/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keymap.h - from (database, key) to a node that somebody else owns: for tables of watchers and waiters.
 *
 * It copies the names. Its hash is seeded, so that clients cannot choose names that meet.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

struct keymap_node {
    struct keymap_node *next_;
    uint64_t hash_;
    struct bytes name; /* owned by the map, until the node is removed */
    uint8_t db;
};

struct keymap {
    struct keymap_node **buckets; /* owns; NULL while empty */
    uint32_t bucket_count, count;
    uint64_t seed;
};

void keymap_init(struct keymap *map, uint64_t seed);
void keymap_deinit(struct keymap *map); /* it is empty */
struct keymap_node *keymap_find(const struct keymap *map, uint8_t db, struct bytes name);
/* The name must not be there. False: out of memory. */
MUST_USE bool keymap_insert(struct keymap *map, struct keymap_node *node, uint8_t db, struct bytes name);
void keymap_remove(struct keymap *map, struct keymap_node *node);
