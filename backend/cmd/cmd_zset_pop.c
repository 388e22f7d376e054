/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sorted sets: members that leave from an end, and members at random.
 */
#include "backend/cmd/cmd_zset.h"
#include "backend/cmd/engine.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/pop.h"
#include "backend/cmd/reply.h"
#include "backend/types/draw.h"
#include "common/base/mem.h"

enum zset_end { ZSET_MIN, ZSET_MAX };
static const char *const end_words[2] = {[ZSET_MIN] = "MIN", [ZSET_MAX] = "MAX"};

/* Each pair in an array of its own; all in one; or all in one whose header is out already. */
enum pop_form { POP_PAIRS, POP_FLAT, POP_NO_HEADER };

/* At most `count` members of a key that is there; it goes with the last. */
static void pop_reply(struct cmd *c, struct store_key *key, enum zset_end end, uint64_t count,
                      enum pop_form form)
{
    struct object *zset = store_object_open(c->store, key, STORE_ZSET, false);
    struct zset_walk walk;
    struct bytes member;
    double score;
    uint64_t all;

    if (zset == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    all = zset_count(zset);
    count = MIN(count, all);
    if (form != POP_NO_HEADER)
        reply_array(c, form == POP_PAIRS ? count : 2 * count);
    zset_walk_init(&walk, zset, end == ZSET_MIN ? 0 : all - 1, count, end == ZSET_MAX);
    while (zset_walk_next(&walk, &member, &score)) {
        if (form == POP_PAIRS)
            reply_array(c, 2);
        reply_bulk(c, member);
        reply_double(c, score);
    }
    zset_remove_ranks(zset, end == ZSET_MIN ? 0 : all - count, count, store_effects(c->store));
    if (count > 0)
        pop_change(c, key, NOTIFY_ZSET, end == ZSET_MIN ? "zpopmin" : "zpopmax");
}

static void pop(struct cmd *c, enum zset_end end)
{
    struct store_key key;
    int64_t count = 1;

    if (c->argc > 3) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (c->argc == 3 && !arg_i64_range(c, 2, 0, INT64_MAX, &count, ERROR_POSITIVE))
        return;
    if (!key_write(c, c->argv[1], STORE_ZSET, &key))
        return;
    if (key.entry == NULL || count == 0)
        reply_array(c, 0);
    else
        pop_reply(c, &key, end, (uint64_t)count,
                  c->argc == 3 && c->session->resp == 3 ? POP_PAIRS : POP_FLAT);
}

void cmd_zpopmin(struct cmd *c)
{
    pop(c, ZSET_MIN);
}

void cmd_zpopmax(struct cmd *c)
{
    pop(c, ZSET_MAX);
}

static void mpop_reply(struct cmd *c, struct store_key *key, const struct pop *what)
{
    reply_array(c, 2);
    reply_bulk(c, key->name);
    pop_reply(c, key, (enum zset_end)what->word, what->count, POP_PAIRS);
}

void cmd_zmpop(struct cmd *c)
{
    struct store_key key;
    struct pop what;

    if (!pop_parse(c, 1, end_words, &what) ||
        !pop_find(c, what.first, what.keys, STORE_ZSET, &key))
        return;
    if (key.entry == NULL)
        reply_null_array(c);
    else
        mpop_reply(c, &key, &what);
}

void cmd_bzmpop(struct cmd *c)
{
    struct store_key key;
    struct pop what;
    uint64_t timeout_ms;

    if (!pop_parse(c, 2, end_words, &what) || !arg_timeout_ms(c, 1, &timeout_ms) ||
        !pop_find(c, what.first, what.keys, STORE_ZSET, &key))
        return;
    if (key.entry == NULL)
        cmd_block(c, what.first, what.keys, timeout_ms, reply_null_array);
    else
        mpop_reply(c, &key, &what);
}

static void blocking_pop(struct cmd *c, enum zset_end end)
{
    struct store_key key;
    uint64_t timeout_ms;

    if (!arg_timeout_ms(c, c->argc - 1, &timeout_ms) ||
        !pop_find(c, 1, c->argc - 2, STORE_ZSET, &key))
        return;
    if (key.entry == NULL) {
        cmd_block(c, 1, c->argc - 2, timeout_ms, reply_null_array);
        return;
    }
    reply_array(c, 3);
    reply_bulk(c, key.name);
    pop_reply(c, &key, end, 1, POP_NO_HEADER);
}

void cmd_bzpopmin(struct cmd *c)
{
    blocking_pop(c, ZSET_MIN);
}

void cmd_bzpopmax(struct cmd *c)
{
    blocking_pop(c, ZSET_MAX);
}

/* ---- at random ---------------------------------------------------------------------------------- */

static void reply_member(struct cmd *c, struct bytes member, double score, bool with_scores)
{
    if (with_scores && c->session->resp == 3)
        reply_array(c, 2);
    reply_bulk(c, member);
    if (with_scores)
        reply_double(c, score);
}

static void reply_rank(struct cmd *c, const struct object *zset, uint64_t rank, bool with_scores)
{
    struct zset_walk walk;
    struct bytes member = BYTES_EMPTY;
    double score = 0;
    bool is_there;

    zset_walk_init(&walk, zset, rank, 1, false);
    is_there = zset_walk_next(&walk, &member, &score);
    ASSERT(is_there);
    reply_member(c, member, score, with_scores);
}

/* How many draws are worth a walk over one member: a walk is cheaper, but sees all. */
#define DRAW_COST 16u

/* `count` different ranks, drawn one by one, in a table with open addressing. Count is far below the set's. */
static bool reply_drawn(struct cmd *c, const struct object *zset, uint64_t count, uint64_t random,
                        bool with_scores)
{
    uint64_t cap = 4, *ranks;

    while (cap < 2 * count)
        cap *= 2;
    ranks = mem_zalloc(cap * sizeof(ranks[0])); /* rank + 1; 0: free */
    if (ranks == NULL)
        return false;
    for (uint64_t i = 0; i < count;) {
        uint64_t rank = draw_below(&random, zset_count(zset));
        uint64_t at = rank * 0x9e3779b97f4a7c15u % cap;

        while (ranks[at] != 0 && ranks[at] != rank + 1)
            at = (at + 1) % cap;
        if (ranks[at] != 0)
            continue;
        ranks[at] = rank + 1;
        reply_rank(c, zset, rank, with_scores);
        i++;
    }
    mem_free(ranks);
    return true;
}

/* count < the set's: all choices equally likely. */
static void reply_sample(struct cmd *c, const struct object *zset, uint64_t count, uint64_t random,
                         bool with_scores)
{
    struct draw_sample sample = {
        .random = random, .left = zset_count(zset), .wanted = count};
    struct zset_walk walk;
    struct bytes member;
    double score;

    if (count < zset_count(zset) / DRAW_COST && reply_drawn(c, zset, count, random, with_scores))
        return;
    zset_walk_init(&walk, zset, 0, zset_count(zset), false);
    while (zset_walk_next(&walk, &member, &score))
        if (draw_takes(&sample))
            reply_member(c, member, score, with_scores);
}

static void reply_random(struct cmd *c, const struct object *zset, int64_t count, bool with_scores)
{
    uint64_t random = io_random64(c->engine->io), all = zset_count(zset);
    uint64_t told = count < 0 ? 0 - (uint64_t)count : MIN((uint64_t)count, all);

    reply_array(c, with_scores && c->session->resp == 2 ? 2 * told : told);
    if (count < 0) {
        /* The client may ask for more than it is allowed to be owed. */
        for (; told > 0 && !c->session->is_killed; told--)
            reply_rank(c, zset, draw_below(&random, all), with_scores);
    } else if (told < all) {
        reply_sample(c, zset, told, random, with_scores);
    } else {
        struct zset_walk walk;
        struct bytes member;
        double score;

        zset_walk_init(&walk, zset, all - 1, all, true);
        while (zset_walk_next(&walk, &member, &score))
            reply_member(c, member, score, with_scores);
    }
}

void cmd_zrandmember(struct cmd *c)
{
    bool with_scores = c->argc == 4;
    const struct object *zset;
    int64_t count;

    if (c->argc == 2) {
        if (!zset_read(c, 1, &zset))
            return;
        if (zset == NULL) {
            reply_null(c);
        } else {
            uint64_t random = io_random64(c->engine->io);

            reply_rank(c, zset, draw_below(&random, zset_count(zset)), false);
        }
        return;
    }
    if (!arg_i64(c, 2, &count) || !arg_i64_range(c, 2, -INT64_MAX, INT64_MAX, &count, NULL))
        return;
    if (c->argc > 4 || (with_scores && !arg_is(c, 3, "WITHSCORES"))) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (with_scores && (count < -INT64_MAX / 2 || count > INT64_MAX / 2)) {
        reply_error(c, ERROR_RANGE);
        return;
    }
    if (!zset_read(c, 1, &zset))
        return;
    if (zset == NULL || count == 0)
        reply_array(c, 0);
    else
        reply_random(c, zset, count, with_scores);
}
