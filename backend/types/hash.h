/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.h - fields and values: a packed run of pairs while it is small (limits.h), else a table. A table never
 * becomes a run again.
 *
 *     image = encoding u8 | fields varint | (field, value as in item.h)*     a table's in dict_sorted()'s order
 *
 * Views of fields and values end with the next change of the hash.
 */
#pragma once
#include "backend/store/object.h"
#include "backend/types/dict.h"
#include "backend/types/packed.h"

/* Operations in the log, each good to be applied again. */
enum hash_effect {
    HASH_EFFECT_SET = 1, /* field, value, field, value ... */
    HASH_EFFECT_DELETE,  /* fields, there or not */
};

struct object *hash_create(void);
uint64_t hash_count(const struct object *object);
const char *hash_encoding(const struct object *object); /* as OBJECT ENCODING says */

bool hash_get(const struct object *object, struct bytes field, struct bytes *value);
/* ERR_FULL: out of memory, nothing changed. Neither may lie inside the hash. */
MUST_USE int hash_set(struct object *object, struct bytes field, struct bytes value, bool *is_new);
bool hash_delete(struct object *object, struct bytes field); /* whether it was there */

struct hash_walk {
    const struct object *object;
    uint32_t off;
    struct dict_walk dict;
};
void hash_walk_init(struct hash_walk *walk, const struct object *object);
bool hash_walk_next(struct hash_walk *walk, struct bytes *field, struct bytes *value);

typedef void (*hash_each_fn)(void *arg, struct bytes field, struct bytes value);
/* As dict_scan(); a packed one is seen as a whole. */
uint64_t hash_scan(const struct object *object, uint64_t cursor, hash_each_fn each, void *arg);
/* A pair, all equally likely. It must not be empty. */
void hash_random(const struct object *object, uint64_t random, struct bytes *field, struct bytes *value);
/* `wanted` different pairs (at most all), all choices equally likely. */
void hash_sample(const struct object *object, uint64_t wanted, uint64_t random, hash_each_fn each, void *arg);
