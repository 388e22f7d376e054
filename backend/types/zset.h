/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zset.h - a sorted set: members, each with a score, in the order of (score, member's bytes).
 *
 *     image = encoding u8 | (member length varint | member | score)*      in that order
 *     score = size u8 | bytes          size 8: a double, little endian; 1 to 7: a whole number, little endian, two's
 *                                      complement
 *
 * Small ones are one packed run, which is its own image. Larger ones, and those that were larger, are a table of members and a tree of
 * (score, member), which share one heap block for each member:
 *
 *     [score 8][length varint][member]
 *              ^ the item of dict.h and btree.h
 *
 * Ranks count from 0, the lowest score. Scores are no NaN. Changes say to `effects` (may be NULL) what they did.
 */
#pragma once
#include "backend/store/object.h"
#include "common/base/err.h"

#define ZSET_WALK_MAX 128u

enum zset_encoding { ZSET_PACKED, ZSET_TREE };
const char *zset_encoding(const struct object *object); /* as OBJECT ENCODING says */

/* An object that no key has yet. NULL: out of memory. */
struct object *zset_object_create(void);
void zset_object_destroy(struct object *object);

uint64_t zset_count(const struct object *object);
/* False: no such member. */
bool zset_score(const struct object *object, struct bytes member, double *score);
bool zset_rank(const struct object *object, struct bytes member, uint64_t *rank, double *score);

/* Adds the member or gives it this score. */
MUST_USE int zset_set(struct object *object, struct bytes member, double score,
                      struct buffer *effects);
/* Where the caller knows whether the member is there, and its score then. */
MUST_USE int zset_add(struct object *object, struct bytes member, double score,
                      struct buffer *effects);
MUST_USE int zset_rescore(struct object *object, struct bytes member, double old, double score,
                          struct buffer *effects);
/* False: it was not there. */
bool zset_remove(struct object *object, struct bytes member, struct buffer *effects);
/* Members of ranks first .. first + count - 1, which must be there. */
void zset_remove_ranks(struct object *object, uint64_t first, uint64_t count,
                       struct buffer *effects);

/* A place between members: before those of this score or this member, or behind them. */
struct zset_bound {
    enum zset_bound_kind { ZSET_BOUND_LOWEST, ZSET_BOUND_HIGHEST, ZSET_BOUND_SCORE, ZSET_BOUND_LEX } kind;
    bool is_behind;
    double score;
    struct bytes member; /* ZSET_BOUND_LEX: as if all scores were equal */
};
uint64_t zset_count_before(const struct object *object, const struct zset_bound *bound);

/* A walk over some members from a rank on, upwards or down. Ends with the next change. */
struct zset_walk {
    const struct object *object;
    uint64_t left; /* members to come */
    bool is_down;
    const void *leaf; /* ZSET_TREE */
    uint32_t index;   /* ZSET_TREE: in the leaf. ZSET_PACKED: of the next in offs; upwards: offset of the next */
    uint32_t rank;    /* ZSET_PACKED, down: of the member at offs[0] */
    uint32_t offs[ZSET_WALK_MAX]; /* ZSET_PACKED, down: of the next members, the last one first */
};
/* first + count, or down first + 1 >= count, within the set. */
void zset_walk_init(struct zset_walk *walk, const struct object *object, uint64_t first,
                    uint64_t count, bool is_down);
/* False: the end. The view ends with the next change. */
bool zset_walk_next(struct zset_walk *walk, struct bytes *member, double *score);

typedef void (*zset_each_fn)(void *arg, struct bytes member, double score);
/* Some members, then the next cursor, 0 at the end: Redis's guarantees of ZSCAN. A packed set comes at once. */
uint64_t zset_scan(const struct object *object, uint64_t cursor, zset_each_fn each, void *arg);
