/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sorted sets: ranges of ranks, of scores, of members. Whatever a range is given by, it is turned into ranks first.
 */
#include "backend/cmd/cmd_list.h"
#include "backend/cmd/cmd_zset.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"

#include <math.h>
#include <stdlib.h>

/* ---- bounds ------------------------------------------------------------------------------------- */

#define BOUND_TEXT_MAX 512u

/* As Redis: what strtod() takes as a whole is a number, the empty word (0) and leading blanks included. */
static bool score_bound(struct bytes text, struct zset_bound *out, bool *is_exclusive)
{
    char copy[BOUND_TEXT_MAX], *end;

    *is_exclusive = text.len > 0 && text.data[0] == '(';
    if (*is_exclusive)
        text = bytes_skip(text, 1);
    if (text.len >= sizeof(copy))
        return false;
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    *out = (struct zset_bound){.kind = ZSET_BOUND_SCORE, .score = strtod(copy, &end)};
    return *end == '\0' && !isnan(out->score);
}

bool zset_score_range(struct cmd *c, uint32_t min, uint32_t max, struct zset_range *out)
{
    bool min_exclusive, max_exclusive;

    if (!score_bound(c->argv[min], &out->min, &min_exclusive) ||
        !score_bound(c->argv[max], &out->max, &max_exclusive)) {
        reply_error(c, ERROR_SCORE_RANGE);
        return false;
    }
    out->min.is_behind = min_exclusive;
    out->max.is_behind = !max_exclusive;
    return true;
}

static bool lex_bound(struct bytes text, struct zset_bound *out, bool *is_exclusive)
{
    *out = (struct zset_bound){.kind = ZSET_BOUND_LEX, .member = bytes_skip(text, 1)};
    *is_exclusive = false;
    if (text.len == 0)
        return false;
    switch (text.data[0]) {
    case '+':
        out->kind = ZSET_BOUND_HIGHEST;
        return text.len == 1;
    case '-':
        out->kind = ZSET_BOUND_LOWEST;
        return text.len == 1;
    case '(':
        *is_exclusive = true;
        return true;
    case '[':
        return true;
    default:
        return false;
    }
}

bool zset_lex_range(struct cmd *c, uint32_t min, uint32_t max, struct zset_range *out)
{
    bool min_exclusive, max_exclusive;

    if (!lex_bound(c->argv[min], &out->min, &min_exclusive) ||
        !lex_bound(c->argv[max], &out->max, &max_exclusive)) {
        reply_error(c, ERROR_LEX_RANGE);
        return false;
    }
    out->min.is_behind = min_exclusive;
    out->max.is_behind = !max_exclusive;
    return true;
}

void zset_range_ranks(const struct object *zset, const struct zset_range *range, uint64_t *first,
                      uint64_t *count)
{
    uint64_t end = zset_count_before(zset, &range->max);

    *first = zset_count_before(zset, &range->min);
    *count = end > *first ? end - *first : 0;
}

/* ---- ZRANGE and its kin ------------------------------------------------------------------------- */

enum range_by { BY_ANY, BY_RANK, BY_SCORE, BY_LEX };
enum range_way { WAY_ANY, WAY_UP, WAY_DOWN };

struct zrange {
    enum range_by by;
    enum range_way way;
    bool with_scores, is_store;
    int64_t offset, limit; /* limit negative: none */
    int64_t start, stop;   /* BY_RANK */
    struct zset_range range;
};

/* The words behind the bounds, from argument i on. */
static bool range_options(struct cmd *c, uint32_t i, struct zrange *r)
{
    for (; i < c->argc; i++) {
        if (!r->is_store && arg_is(c, i, "WITHSCORES")) {
            r->with_scores = true;
        } else if (arg_is(c, i, "LIMIT") && i + 2 < c->argc) {
            if (!arg_i64(c, i + 1, &r->offset) || !arg_i64(c, i + 2, &r->limit))
                return false;
            i += 2;
        } else if (r->way == WAY_ANY && arg_is(c, i, "REV")) {
            r->way = WAY_DOWN;
        } else if (r->by == BY_ANY && arg_is(c, i, "BYLEX")) {
            r->by = BY_LEX;
        } else if (r->by == BY_ANY && arg_is(c, i, "BYSCORE")) {
            r->by = BY_SCORE;
        } else {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* Bounds are arguments `at` and `at` + 1. */
static bool range_bounds(struct cmd *c, uint32_t at, struct zrange *r)
{
    uint32_t min = at, max = at + 1;

    if (r->way == WAY_DOWN) {
        min = at + 1;
        max = at;
    }
    switch (r->by) {
    case BY_SCORE:
        return zset_score_range(c, min, max, &r->range);
    case BY_LEX:
        return zset_lex_range(c, min, max, &r->range);
    case BY_ANY:
    case BY_RANK:
        return arg_i64(c, at, &r->start) && arg_i64(c, at + 1, &r->stop);
    }
    UNREACHABLE("all ways are above");
}

static bool range_parse(struct cmd *c, uint32_t at, struct zrange *r)
{
    r->limit = -1;
    if (!range_options(c, at + 2, r))
        return false;
    if (r->by == BY_ANY)
        r->by = BY_RANK;
    if (r->limit != -1 && r->by == BY_RANK) {
        reply_error(c, "ERR syntax error, LIMIT is only supported in combination with either BYSCORE "
                       "or BYLEX");
        return false;
    }
    if (r->with_scores && r->by == BY_LEX) {
        reply_error(c, "ERR syntax error, WITHSCORES not supported in combination with BYLEX");
        return false;
    }
    return range_bounds(c, at, r);
}

/* Where the walk begins, and how many it sees. False: none. */
static bool range_select(const struct object *zset, const struct zrange *r, uint64_t *first,
                         uint64_t *count)
{
    uint64_t all = zset_count(zset), skip = (uint64_t)r->offset;

    if (r->by == BY_RANK) {
        if (!list_range(r->start, r->stop, all, first, count))
            return false;
        if (r->way == WAY_DOWN)
            *first = all - 1 - *first;
        return true;
    }
    zset_range_ranks(zset, &r->range, first, count);
    if (r->offset < 0 || skip >= *count)
        return false;
    *first = r->way == WAY_DOWN ? *first + *count - 1 - skip : *first + skip;
    *count -= skip;
    if (r->limit >= 0)
        *count = MIN(*count, (uint64_t)r->limit);
    return *count > 0;
}

void zset_reply_ranks(struct cmd *c, const struct object *zset, uint64_t first, uint64_t count,
                      bool is_down, bool with_scores)
{
    bool in_pairs = with_scores && c->session->resp == 3;
    struct zset_walk walk;
    struct bytes member;
    double score;

    reply_array(c, with_scores && !in_pairs ? 2 * count : count);
    zset_walk_init(&walk, zset, first, count, is_down);
    while (zset_walk_next(&walk, &member, &score)) {
        if (in_pairs)
            reply_array(c, 2);
        reply_bulk(c, member);
        if (with_scores)
            reply_double(c, score);
    }
}

static void range(struct cmd *c, enum range_by by, enum range_way way)
{
    struct zrange r = {.by = by, .way = way};
    const struct object *zset;
    uint64_t first, count;

    if (!range_parse(c, 2, &r) || !zset_read(c, 1, &zset))
        return;
    if (zset == NULL || !range_select(zset, &r, &first, &count))
        reply_array(c, 0);
    else
        zset_reply_ranks(c, zset, first, count, r.way == WAY_DOWN, r.with_scores);
}

void cmd_zrange(struct cmd *c)
{
    range(c, BY_ANY, WAY_ANY);
}

void cmd_zrevrange(struct cmd *c)
{
    range(c, BY_RANK, WAY_DOWN);
}

void cmd_zrangebyscore(struct cmd *c)
{
    range(c, BY_SCORE, WAY_UP);
}

void cmd_zrevrangebyscore(struct cmd *c)
{
    range(c, BY_SCORE, WAY_DOWN);
}

void cmd_zrangebylex(struct cmd *c)
{
    range(c, BY_LEX, WAY_UP);
}

void cmd_zrevrangebylex(struct cmd *c)
{
    range(c, BY_LEX, WAY_DOWN);
}

/* A set of the members in the range; NULL: out of memory. */
static struct object *range_copy(struct cmd *c, const struct object *zset, const struct zrange *r)
{
    struct object *copy = zset_object_create();
    struct zset_walk walk;
    struct bytes member;
    double score;
    uint64_t first, count;

    if (copy == NULL || zset == NULL || !range_select(zset, r, &first, &count))
        return copy;
    store_object_limit(c->store, copy);
    zset_walk_init(&walk, zset, first, count, r->way == WAY_DOWN);
    while (zset_walk_next(&walk, &member, &score)) {
        score = zset_stored_score(copy, member, score);
        if (zset_add(copy, member, score, NULL) != 0) {
            zset_object_destroy(copy);
            return NULL;
        }
    }
    return copy;
}

void cmd_zrangestore(struct cmd *c)
{
    struct zrange r = {.by = BY_ANY, .is_store = true};
    const struct object *zset;

    if (range_parse(c, 3, &r) && zset_read(c, 2, &zset))
        zset_store_reply(c, 1, range_copy(c, zset, &r), "zrangestore");
}

/* ---- counting and removing ---------------------------------------------------------------------- */

static void reply_range_count(struct cmd *c, const struct zset_range *r)
{
    const struct object *zset;
    uint64_t first, count = 0;

    if (!zset_read(c, 1, &zset))
        return;
    if (zset != NULL)
        zset_range_ranks(zset, r, &first, &count);
    reply_integer(c, (int64_t)count);
}

void cmd_zcount(struct cmd *c)
{
    struct zset_range r;

    if (zset_score_range(c, 2, 3, &r))
        reply_range_count(c, &r);
}

void cmd_zlexcount(struct cmd *c)
{
    struct zset_range r;

    if (zset_lex_range(c, 2, 3, &r))
        reply_range_count(c, &r);
}

static void remove_range(struct cmd *c, enum range_by by)
{
    struct zrange r = {.by = by, .way = WAY_UP, .limit = -1};
    struct store_key key;
    struct object *zset;
    uint64_t first, count = 0;

    if (!range_bounds(c, 2, &r) || !key_write(c, c->argv[1], STORE_ZSET, &key))
        return;
    zset = key.entry == NULL ? NULL : store_object_open(c->store, &key, STORE_ZSET, false);
    if (zset == NULL || !range_select(zset, &r, &first, &count)) {
        reply_integer(c, 0);
        return;
    }
    zset_remove_ranks(zset, first, count, store_effects(c->store));
    if (!cmd_stored(c, store_change(c->store, &key)))
        return;
    if (count > 0)
        notify_change(c, NOTIFY_ZSET, c->info->name, &key);
    reply_integer(c, (int64_t)count);
}

void cmd_zremrangebyrank(struct cmd *c)
{
    remove_range(c, BY_RANK);
}

void cmd_zremrangebyscore(struct cmd *c)
{
    remove_range(c, BY_SCORE);
}

void cmd_zremrangebylex(struct cmd *c)
{
    remove_range(c, BY_LEX);
}
