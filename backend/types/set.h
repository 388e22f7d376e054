/* SPDX-License-Identifier: Apache-2.0 */
/*
 * set.h - members: sorted integers while all are, else a packed run while it is small (limits.h), else a table.
 * It never goes back.
 *
 *     image = encoding u8 | members varint | members      ints: width u8, numbers as in intset.h
 *                                                         else: items as in item.h, a table's in dict_sorted()'s order
 *
 * Views of members end with the next change of the set, and those of a walk with its next step.
 */
#pragma once
#include "backend/store/object.h"
#include "backend/types/dict.h"
#include "backend/types/intset.h"
#include "backend/types/packed.h"

/* Operations in the log, each good to be applied again. */
enum set_effect {
    SET_EFFECT_ADD = 1, /* members, there or not */
    SET_EFFECT_REMOVE,  /* members, there or not */
};

#define SET_DIGITS_MAX 21

struct object *set_create(void);
uint64_t set_count(const struct object *object);
const char *set_encoding(const struct object *object); /* as OBJECT ENCODING says */

bool set_has(const struct object *object, struct bytes member);
/* ERR_FULL: out of memory, nothing changed. `member` must not lie inside the set. */
MUST_USE int set_add(struct object *object, struct bytes member, bool *is_new);
bool set_remove(struct object *object, struct bytes member); /* whether it was there */

struct set_walk {
    const struct object *object;
    uint32_t at; /* ints: index; packed: offset */
    struct dict_walk dict;
    char digits[SET_DIGITS_MAX];
};
void set_walk_init(struct set_walk *walk, const struct object *object);
bool set_walk_next(struct set_walk *walk, struct bytes *member);

typedef void (*set_each_fn)(void *arg, struct bytes member);
/* As dict_scan(); others than tables are seen as a whole. */
uint64_t set_scan(const struct object *object, uint64_t cursor, set_each_fn each, void *arg);
/* A member, all equally likely; it may be written to `digits`. It must not be empty. */
struct bytes set_random(const struct object *object, uint64_t random, char digits[SET_DIGITS_MAX]);
/* `wanted` different members (at most all), all choices equally likely. */
void set_sample(const struct object *object, uint64_t wanted, uint64_t random, set_each_fn each, void *arg);
