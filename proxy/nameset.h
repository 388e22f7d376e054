/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nameset.h - a set of names that remembers the order in which they came: channels, patterns.
 */
#pragma once
#include "common/base/bytes.h"
#include "common/base/err.h"

struct nameset_entry {
    char *data; /* owns; NULL: removed */
    uint32_t len;
    uint64_t hash;
};

/* All zero is empty. */
struct nameset {
    struct nameset_entry *entries; /* owns; in order of arrival, with holes */
    uint32_t *table;               /* owns; open addressing, index + 1 into entries; 0: free */
    uint32_t count;                /* names in the set */
    uint32_t used, cap;            /* of entries; the table has 2 * cap places */
    uint64_t seed;
};

#define NAMESET_MAX 1000000u

/* 0; ERR_EXISTS; -ENOMEM; ERR_FULL. */
MUST_USE int nameset_add(struct nameset *set, struct bytes name);
/* ERR_NOT_FOUND. */
MUST_USE int nameset_remove(struct nameset *set, struct bytes name);
bool nameset_has(const struct nameset *set, struct bytes name);
/* Walks the names: *at starts with 0. false at the end. The view ends with the name's removal. */
bool nameset_next(const struct nameset *set, uint32_t *at, struct bytes *name);
void nameset_deinit(struct nameset *set);
