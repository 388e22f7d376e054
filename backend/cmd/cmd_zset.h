/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_zset.h - what the commands of sorted sets and of geo share.
 */
#pragma once
#include "backend/cmd/cmd.h"
#include "backend/types/zset.h"

/* Of a key that was looked up as a sorted set; NULL: it is not there. */
const struct object *zset_of_key(const struct store_key *key);
/* A key to read. False: an error was replied, or the command is parked. */
bool zset_read(struct cmd *c, uint32_t i, const struct object **out);

/* What a set keeps of a score that comes in. As in Redis a small one has no -0: its list of members keeps whole numbers
 * as integers. */
double zset_stored_score(const struct object *zset, struct bytes member, double score);

/* Members from rank `first` on, `count` of them, as ZRANGE replies: with scores flat in RESP2, as pairs in RESP3. */
void zset_reply_ranks(struct cmd *c, const struct object *zset, uint64_t first, uint64_t count,
                      bool is_down, bool with_scores);

/* `zset` becomes the value of the key in argument i, whatever that was; an empty one removes the key. Takes the
 * object over. Replies how many members there are. NULL: out of memory. The event is what keyspace notifications say. */
void zset_store_reply(struct cmd *c, uint32_t i, struct object *zset, const char *event);

#define ERROR_SCORE_RANGE "ERR min or max is not a float"
#define ERROR_LEX_RANGE   "ERR min or max not valid string range item"

/* From one bound to another: what lies between. */
struct zset_range {
    struct zset_bound min, max;
};
/* Of two arguments; false: the error was replied. */
bool zset_score_range(struct cmd *c, uint32_t min, uint32_t max, struct zset_range *out);
bool zset_lex_range(struct cmd *c, uint32_t min, uint32_t max, struct zset_range *out);
/* Its ranks. */
void zset_range_ranks(const struct object *zset, const struct zset_range *range, uint64_t *first,
                      uint64_t *count);

/* ZADD's flags, without the command's words: for GEOADD. */
struct zadd {
    bool nx, xx, gt, lt, ch, incr;
};
/* Adds `count` members with these scores to the key in argument 1 and replies: member i is argument `first` + i * step. */
void zset_add_reply(struct cmd *c, const struct zadd *how, const double *scores, uint32_t count,
                    uint32_t first, uint32_t step);
