/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several sorted sets, or sets, at once: union, intersection, difference.
 */
#include "backend/cmd/cmd_zset.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/types/limits.h"
#include "backend/types/set.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>

enum algebra { UNION, INTERSECTION, DIFFERENCE, CARDINALITY };
enum aggregate { SUM, LEAST, GREATEST };

/* A set counts as one whose scores are all 1. */
struct source {
    const struct object *object; /* NULL: no such key */
    double weight;
    uint64_t count;
    uint32_t at; /* in the command: so that the order of equals is certain */
};

struct request {
    struct source *sources; /* owns */
    uint32_t count;
    enum algebra algebra;
    enum aggregate aggregate;
    bool is_store, with_scores;
    uint64_t limit; /* CARDINALITY; UINT64_MAX: none */
};

/* ---- a source of either type -------------------------------------------------------------------- */

struct source_walk {
    bool is_set;
    union {
        struct zset_walk zset;
        struct set_walk set;
    };
};

static void source_walk_init(struct source_walk *walk, const struct source *source)
{
    walk->is_set = source->object->type == STORE_SET;
    if (walk->is_set)
        set_walk_init(&walk->set, source->object);
    else
        zset_walk_init(&walk->zset, source->object, 0, source->count, false);
}

static bool source_walk_next(struct source_walk *walk, struct bytes *member, double *score)
{
    if (!walk->is_set)
        return zset_walk_next(&walk->zset, member, score);
    *score = 1;
    return set_walk_next(&walk->set, member);
}

static bool source_score(const struct source *source, struct bytes member, double *score)
{
    if (source->object == NULL)
        return false;
    if (source->object->type == STORE_ZSET)
        return zset_score(source->object, member, score);
    *score = 1;
    return set_has(source->object, member);
}

/* ---- parsing ------------------------------------------------------------------------------------ */

/* The keys from argument `at` on. */
static bool sources_read(struct cmd *c, uint32_t at, struct request *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        struct source *source = &r->sources[i];
        struct store_key key;

        if (!key_read(c, c->argv[at + i], STORE_NONE, &key))
            return false;
        *source = (struct source){.weight = 1, .at = i};
        if (key.entry == NULL)
            continue;
        if (entry_type(key.entry) == STORE_ZSET) {
            source->object = entry_object(key.entry);
            source->count = zset_count(source->object);
        } else if (entry_type(key.entry) == STORE_SET) {
            source->object = entry_object(key.entry);
            source->count = set_count(source->object);
        } else {
            reply_error(c, ERROR_WRONGTYPE);
            return false;
        }
    }
    return true;
}

static bool weights_parse(struct cmd *c, uint32_t at, struct request *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (!parse_double(c->argv[at + i], &r->sources[i].weight)) {
            reply_error(c, "ERR weight value is not a float");
            return false;
        }
    }
    return true;
}

static bool aggregate_parse(struct cmd *c, uint32_t at, struct request *r)
{
    if (arg_is(c, at, "SUM")) {
        r->aggregate = SUM;
    } else if (arg_is(c, at, "MIN")) {
        r->aggregate = LEAST;
    } else if (arg_is(c, at, "MAX")) {
        r->aggregate = GREATEST;
    } else {
        reply_error(c, ERROR_SYNTAX);
        return false;
    }
    return true;
}

static bool options_parse(struct cmd *c, uint32_t i, struct request *r)
{
    bool has_weights = r->algebra == UNION || r->algebra == INTERSECTION;
    int64_t limit;

    while (i < c->argc) {
        uint32_t left = c->argc - i;

        if (has_weights && left >= r->count + 1 && arg_is(c, i, "WEIGHTS")) {
            if (!weights_parse(c, i + 1, r))
                return false;
            i += r->count + 1;
        } else if (has_weights && left >= 2 && arg_is(c, i, "AGGREGATE")) {
            if (!aggregate_parse(c, i + 1, r))
                return false;
            i += 2;
        } else if (!r->is_store && r->algebra != CARDINALITY && arg_is(c, i, "WITHSCORES")) {
            r->with_scores = true;
            i++;
        } else if (r->algebra == CARDINALITY && left >= 2 && arg_is(c, i, "LIMIT")) {
            if (!arg_i64_range(c, i + 1, 0, INT64_MAX, &limit, "ERR LIMIT can't be negative"))
                return false;
            r->limit = limit == 0 ? UINT64_MAX : (uint64_t)limit;
            i += 2;
        } else {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* `at`: the argument with numkeys. request_deinit() in any case. */
static bool request_parse(struct cmd *c, uint32_t at, struct request *r)
{
    int64_t count;

    if (!arg_i64(c, at, &count))
        return false;
    if (count < 1) {
        reply_error_format(c, "ERR at least 1 input key is needed for '%s' command", c->info->name);
        return false;
    }
    if (count > (int64_t)c->argc - at - 1) {
        reply_error(c, ERROR_SYNTAX);
        return false;
    }
    r->count = (uint32_t)count;
    r->limit = UINT64_MAX;
    r->sources = mem_alloc(r->count * sizeof(r->sources[0]));
    if (r->sources == NULL) {
        cmd_out_of_memory(c);
        return false;
    }
    return sources_read(c, at + 1, r) && options_parse(c, at + 1 + r->count, r);
}

static void request_deinit(struct request *r)
{
    mem_free(r->sources);
}

/* ---- computing ---------------------------------------------------------------------------------- */

static double weighted(const struct source *source, double score)
{
    double value = source->weight * score;

    return isnan(value) ? 0 : value; /* 0 times infinity */
}

static double combine(enum aggregate how, double a, double b)
{
    switch (how) {
    case SUM:
        return isnan(a + b) ? 0 : a + b; /* infinity and its negative */
    case LEAST:
        return b < a ? b : a;
    case GREATEST:
        return b > a ? b : a;
    }
    UNREACHABLE("all ways are above");
}

static int compare_sources(const void *a, const void *b)
{
    const struct source *left = a, *right = b;

    if (left->count != right->count)
        return left->count < right->count ? -1 : 1;
    return left->at < right->at ? -1 : left->at > right->at;
}

static int unite(const struct request *r, struct object *result)
{
    for (uint32_t i = 0; i < r->count; i++) {
        const struct source *source = &r->sources[i];
        struct source_walk walk;
        struct bytes member;
        double score, old;

        if (source->object == NULL)
            continue;
        source_walk_init(&walk, source);
        while (source_walk_next(&walk, &member, &score)) {
            int err;

            score = weighted(source, score);
            if (zset_score(result, member, &old)) {
                score = combine(r->aggregate, old, score); /* -0 and 0 is 0 */
                err = zset_rescore(result, member, old, score, NULL);
            } else {
                err = zset_add(result, member, score, NULL);
            }
            if (err != 0)
                return err;
        }
    }
    return 0;
}

/* Whether all other sources have it; the scores are combined. */
static bool is_in_all(const struct request *r, struct bytes member, double *score)
{
    for (uint32_t i = 1; i < r->count; i++) {
        double other;

        if (!source_score(&r->sources[i], member, &other))
            return false;
        *score = combine(r->aggregate, *score, weighted(&r->sources[i], other));
    }
    return true;
}

/* The smallest is walked, which is the first. */
static int intersect(const struct request *r, struct object *result)
{
    struct source_walk walk;
    struct bytes member;
    double score;

    if (r->sources[0].object == NULL)
        return 0;
    source_walk_init(&walk, &r->sources[0]);
    while (source_walk_next(&walk, &member, &score)) {
        int err = 0;

        score = weighted(&r->sources[0], score);
        if (is_in_all(r, member, &score))
            err = zset_add(result, member, score, NULL);
        if (err != 0)
            return err;
    }
    return 0;
}

/* How large the intersection is; counted up to the limit. */
static uint64_t intersection_count(const struct request *r)
{
    struct source_walk walk;
    struct bytes member;
    uint64_t count = 0;
    double score;

    if (r->sources[0].object == NULL)
        return 0;
    source_walk_init(&walk, &r->sources[0]);
    while (count < r->limit && source_walk_next(&walk, &member, &score))
        count += is_in_all(r, member, &score);
    return count;
}

static bool is_in_another(const struct request *r, struct bytes member)
{
    double score;

    for (uint32_t i = 1; i < r->count; i++)
        if (source_score(&r->sources[i], member, &score))
            return true;
    return false;
}

static int subtract(const struct request *r, struct object *result)
{
    struct source_walk walk;
    struct bytes member;
    double score;

    if (r->sources[0].object == NULL)
        return 0;
    source_walk_init(&walk, &r->sources[0]);
    while (source_walk_next(&walk, &member, &score)) {
        int err = is_in_another(r, member) ? 0 : zset_add(result, member, score, NULL);

        if (err != 0)
            return err;
    }
    return 0;
}

/* NULL: out of memory. Sums of doubles depend on the order of the sources, which is Redis's: by size. */
static struct object *compute(struct cmd *c, struct request *r)
{
    struct object *result = zset_object_create();
    int err = 0;

    if (result == NULL)
        return NULL;
    store_object_limit(c->store, result);
    if (r->algebra != DIFFERENCE)
        qsort(r->sources, r->count, sizeof(r->sources[0]), compare_sources);
    switch (r->algebra) {
    case UNION:
        err = unite(r, result);
        break;
    case INTERSECTION:
        err = intersect(r, result);
        break;
    case CARDINALITY:
        UNREACHABLE("it has no result");
    case DIFFERENCE:
        err = subtract(r, result);
        break;
    }
    if (err == 0)
        return result;
    zset_object_destroy(result);
    return NULL;
}

/* ---- commands ----------------------------------------------------------------------------------- */

/* A small set that becomes a key's has no -0, as ZADD would not put one there. */
static int drop_negative_zeroes(struct object *zset)
{
    struct zset_bound zero = {.kind = ZSET_BOUND_SCORE};
    uint64_t rank = zset_count_before(zset, &zero), end;
    char copy[PACKED_SIZE_BOUND];

    zero.is_behind = true;
    end = zset->encoding == ZSET_PACKED ? zset_count_before(zset, &zero) : rank;
    for (; rank < end; rank++) {
        struct zset_walk walk;
        struct bytes member;
        double score;
        int err;

        zset_walk_init(&walk, zset, rank, 1, false);
        if (!zset_walk_next(&walk, &member, &score) || !signbit(score))
            continue;
        memcpy(copy, member.data, member.len); /* a member may not lie in the set that changes */
        err = zset_rescore(zset, bytes_of(copy, member.len), score, 0, NULL);
        if (err != 0)
            return err;
    }
    return 0;
}

void zset_store_reply(struct cmd *c, uint32_t i, struct object *zset, const char *event)
{
    const struct store_attributes none = {0};
    uint64_t count;
    struct store_key key;
    bool had_value;
    int err = 0;

    if (zset == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    count = zset_count(zset);
    if (!key_write(c, c->argv[i], STORE_NONE, &key)) {
        zset_object_destroy(zset);
        return;
    }
    had_value = key.entry != NULL;
    if (count > 0) {
        err = drop_negative_zeroes(zset);
        if (err == 0)
            err = store_put_object(c->store, &key, zset, &none);
    } else if (key.entry != NULL) {
        err = store_delete(c->store, &key);
    }
    if (count == 0 || err != 0)
        zset_object_destroy(zset);
    if (!cmd_stored(c, err))
        return;
    if (count > 0)
        notify(c, NOTIFY_ZSET, event, key.name);
    else if (had_value)
        notify(c, NOTIFY_GENERIC, "del", key.name);
    reply_integer(c, (int64_t)count);
}

static void algebra_reply(struct cmd *c, enum algebra algebra)
{
    struct request r = {.algebra = algebra};
    struct object *result;

    if (!request_parse(c, 1, &r))
        goto out;
    result = compute(c, &r);
    if (result == NULL) {
        cmd_out_of_memory(c);
        goto out;
    }
    zset_reply_ranks(c, result, 0, zset_count(result), false, r.with_scores);
    zset_object_destroy(result);
out:
    request_deinit(&r);
}

static void algebra_store(struct cmd *c, enum algebra algebra)
{
    struct request r = {.algebra = algebra, .is_store = true};

    if (request_parse(c, 2, &r))
        zset_store_reply(c, 1, compute(c, &r), c->info->name);
    request_deinit(&r);
}

void cmd_zunion(struct cmd *c)
{
    algebra_reply(c, UNION);
}

void cmd_zinter(struct cmd *c)
{
    algebra_reply(c, INTERSECTION);
}

void cmd_zdiff(struct cmd *c)
{
    algebra_reply(c, DIFFERENCE);
}

void cmd_zunionstore(struct cmd *c)
{
    algebra_store(c, UNION);
}

void cmd_zinterstore(struct cmd *c)
{
    algebra_store(c, INTERSECTION);
}

void cmd_zdiffstore(struct cmd *c)
{
    algebra_store(c, DIFFERENCE);
}

void cmd_zintercard(struct cmd *c)
{
    struct request r = {.algebra = CARDINALITY};

    if (request_parse(c, 1, &r)) {
        qsort(r.sources, r.count, sizeof(r.sources[0]), compare_sources);
        reply_integer(c, (int64_t)intersection_count(&r));
    }
    request_deinit(&r);
}
