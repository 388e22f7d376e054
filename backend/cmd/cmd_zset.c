/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sorted sets: members and their scores.
 */
#include "backend/cmd/cmd_zset.h"
#include "backend/cmd/engine.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/cmd/scan.h"
#include "common/base/mem.h"

#include <math.h>

const struct object *zset_of_key(const struct store_key *key)
{
    return key->entry == NULL ? NULL : entry_object(key->entry);
}

bool zset_read(struct cmd *c, uint32_t i, const struct object **out)
{
    struct store_key key;

    if (!key_read(c, c->argv[i], STORE_ZSET, &key))
        return false;
    *out = zset_of_key(&key);
    return true;
}

/* ---- adding ------------------------------------------------------------------------------------- */

enum zadd_outcome { ZADD_REFUSED, ZADD_SAME, ZADD_ADDED, ZADD_UPDATED };

double zset_stored_score(const struct object *zset, struct bytes member, double score)
{
    bool is_small = zset->encoding == ZSET_PACKED && zset_count(zset) < zset->limits->zset_members &&
                    member.len <= zset->limits->zset_size;

    return score == 0 && is_small ? 0 : score;
}

/* ERR_INVALID: the sum is no number. *score is what the member has then. */
static int add_one(struct object *zset, const struct zadd *how, struct bytes member, double *score,
                   enum zadd_outcome *outcome, struct buffer *effects)
{
    double old;

    *outcome = ZADD_REFUSED;
    if (!zset_score(zset, member, &old)) {
        if (how->xx)
            return 0;
        *outcome = ZADD_ADDED;
        return zset_add(zset, member, zset_stored_score(zset, member, *score), effects);
    }
    if (how->nx)
        return 0;
    if (how->incr) {
        *score += old;
        if (isnan(*score))
            return ERR_INVALID;
    }
    if ((how->lt && *score >= old) || (how->gt && *score <= old))
        return 0;
    *outcome = *score == old ? ZADD_SAME : ZADD_UPDATED;
    if (*score == old)
        return 0;
    return zset_rescore(zset, member, old, zset_stored_score(zset, member, *score), effects);
}

static void add_to(struct cmd *c, struct store_key *key, struct object *zset, const struct zadd *how,
                   const double *scores, uint32_t count, uint32_t first, uint32_t step)
{
    struct buffer *effects = store_effects(c->store);
    enum zadd_outcome outcome = ZADD_REFUSED;
    uint32_t added = 0, updated = 0;
    double score = 0;
    int err = 0, stored;

    for (uint32_t i = 0; i < count && err == 0; i++) {
        score = scores[i];
        err = add_one(zset, how, c->argv[first + i * step], &score, &outcome, effects);
        added += outcome == ZADD_ADDED;
        updated += outcome == ZADD_UPDATED;
    }
    stored = store_change(c->store, key); /* also when nothing came in: a new set goes away */
    if (err == ERR_INVALID)
        reply_error(c, ERROR_NAN);
    else if (!cmd_stored(c, err != 0 ? err : stored))
        return;
    if (added + updated > 0)
        notify(c, NOTIFY_ZSET, how->incr ? "zincr" : "zadd", key->name);
    if (err == ERR_INVALID)
        return;
    if (!how->incr)
        reply_integer(c, how->ch ? added + updated : added);
    else if (outcome == ZADD_REFUSED)
        reply_null(c);
    else
        reply_double(c, score);
}

void zset_add_reply(struct cmd *c, const struct zadd *how, const double *scores, uint32_t count,
                    uint32_t first, uint32_t step)
{
    struct store_key key;
    struct object *zset;

    if (!key_write(c, c->argv[1], STORE_ZSET, &key))
        return;
    if (key.entry == NULL && how->xx) {
        if (how->incr)
            reply_null(c);
        else
            reply_integer(c, 0);
        return;
    }
    zset = store_object_open(c->store, &key, STORE_ZSET, true);
    if (zset == NULL)
        cmd_out_of_memory(c);
    else
        add_to(c, &key, zset, how, scores, count, first, step);
}

/* Returns the argument behind the flags. */
static uint32_t zadd_flags(const struct cmd *c, struct zadd *out)
{
    uint32_t i = 2;

    for (*out = (struct zadd){0}; i < c->argc; i++) {
        if (arg_is(c, i, "NX"))
            out->nx = true;
        else if (arg_is(c, i, "XX"))
            out->xx = true;
        else if (arg_is(c, i, "CH"))
            out->ch = true;
        else if (arg_is(c, i, "INCR"))
            out->incr = true;
        else if (arg_is(c, i, "GT"))
            out->gt = true;
        else if (arg_is(c, i, "LT"))
            out->lt = true;
        else
            break;
    }
    return i;
}

static const char *zadd_error(const struct zadd *how, uint32_t words)
{
    if (words % 2 != 0 || words == 0)
        return ERROR_SYNTAX;
    if (how->nx && how->xx)
        return "ERR XX and NX options at the same time are not compatible";
    if ((how->gt && how->nx) || (how->lt && how->nx) || (how->gt && how->lt))
        return "ERR GT, LT, and/or NX options at the same time are not compatible";
    if (how->incr && words > 2)
        return "ERR INCR option supports a single increment-element pair";
    return NULL;
}

#define SCORES_ON_STACK 64u

/* Score, member, score, member ... from argument `first` on. All scores are looked at before anything changes. */
static void add_pairs(struct cmd *c, const struct zadd *how, uint32_t first)
{
    uint32_t count = (c->argc - first) / 2;
    double few[SCORES_ON_STACK], *scores = few;

    if (count > SCORES_ON_STACK) {
        scores = mem_alloc(count * sizeof(scores[0]));
        if (scores == NULL) {
            cmd_out_of_memory(c);
            return;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        if (!arg_double(c, first + 2 * i, &scores[i]))
            goto out;
    zset_add_reply(c, how, scores, count, first + 1, 2);
out:
    if (scores != few)
        mem_free(scores);
}

void cmd_zadd(struct cmd *c)
{
    struct zadd how;
    uint32_t first = zadd_flags(c, &how);
    const char *error = zadd_error(&how, c->argc - first);

    if (error != NULL)
        reply_error(c, error);
    else
        add_pairs(c, &how, first);
}

void cmd_zincrby(struct cmd *c)
{
    static const struct zadd how = {.incr = true};

    add_pairs(c, &how, 2);
}

void cmd_zrem(struct cmd *c)
{
    struct store_key key;
    struct object *zset;
    uint32_t removed = 0;

    if (!key_write(c, c->argv[1], STORE_ZSET, &key))
        return;
    zset = key.entry == NULL ? NULL : store_object_open(c->store, &key, STORE_ZSET, false);
    if (zset == NULL) {
        reply_integer(c, 0);
        return;
    }
    for (uint32_t i = 2; i < c->argc; i++)
        removed += zset_remove(zset, c->argv[i], store_effects(c->store));
    if (!cmd_stored(c, store_change(c->store, &key)))
        return;
    if (removed > 0)
        notify_change(c, NOTIFY_ZSET, "zrem", &key);
    reply_integer(c, removed);
}

/* ---- looking ------------------------------------------------------------------------------------ */

void cmd_zcard(struct cmd *c)
{
    const struct object *zset;

    if (zset_read(c, 1, &zset))
        reply_integer(c, zset == NULL ? 0 : (int64_t)zset_count(zset));
}

static void reply_score(struct cmd *c, const struct object *zset, struct bytes member)
{
    double score;

    if (zset != NULL && zset_score(zset, member, &score))
        reply_double(c, score);
    else
        reply_null(c);
}

void cmd_zscore(struct cmd *c)
{
    const struct object *zset;

    if (zset_read(c, 1, &zset))
        reply_score(c, zset, c->argv[2]);
}

void cmd_zmscore(struct cmd *c)
{
    const struct object *zset;

    if (!zset_read(c, 1, &zset))
        return;
    reply_array(c, c->argc - 2);
    for (uint32_t i = 2; i < c->argc; i++)
        reply_score(c, zset, c->argv[i]);
}

static void rank(struct cmd *c, bool is_down)
{
    bool with_score = c->argc == 4;
    const struct object *zset;
    uint64_t place;
    double score;

    if (c->argc > 4) {
        reply_error_format(c, "ERR wrong number of arguments for '%s' command", c->info->name);
        return;
    }
    if (with_score && !arg_is(c, 3, "WITHSCORE")) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (!zset_read(c, 1, &zset))
        return;
    if (zset == NULL || !zset_rank(zset, c->argv[2], &place, &score)) {
        if (with_score)
            reply_null_array(c);
        else
            reply_null(c);
        return;
    }
    if (with_score)
        reply_array(c, 2);
    reply_integer(c, (int64_t)(is_down ? zset_count(zset) - 1 - place : place));
    if (with_score)
        reply_double(c, score);
}

void cmd_zrank(struct cmd *c)
{
    rank(c, false);
}

void cmd_zrevrank(struct cmd *c)
{
    rank(c, true);
}

static void scan_pair(void *arg, struct bytes member, double score)
{
    struct scan *scan = arg;

    if (scan_element(scan, member)) {
        char text[FORMAT_DOUBLE_MAX];

        reply_bulk(scan->c, bytes_of(text, format_double(score, text)));
    }
}

/* Redis keeps whole scores of small sets as integers, and here it shows: 100000000000000000, not 1e+17. */
static void scan_small_pair(void *arg, struct bytes member, double score)
{
    struct scan *scan = arg;

    if (fabs(score) > 0x1p62 || score != (double)(int64_t)score)
        scan_pair(arg, member, score);
    else if (scan_element(scan, member))
        reply_bulk_integer(scan->c, (int64_t)score);
}

static uint64_t scan_step(struct scan *scan, const void *arg, uint64_t cursor)
{
    const struct object *zset = arg;

    return zset_scan(zset, cursor, zset->encoding == ZSET_PACKED ? scan_small_pair : scan_pair, scan);
}

void cmd_zscan(struct cmd *c)
{
    const struct object *zset;
    struct scan scan;

    if (!scan_cursor(c, 2, &scan) || !zset_read(c, 1, &zset))
        return;
    if (zset == NULL)
        scan_reply_empty(c);
    else if (scan_options(&scan, 3, false))
        scan_reply(&scan, 2, scan_step, zset);
}
