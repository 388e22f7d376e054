/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of sets, but for those that combine several (cmd_set_algebra.c).
 */
#include "backend/cmd/engine.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/cmd/scan.h"
#include "backend/types/draw.h"
#include "backend/types/set.h"

static bool set_read(struct cmd *c, const struct object **out)
{
    struct store_key key;

    if (!key_read(c, c->argv[1], STORE_SET, &key))
        return false;
    *out = key.entry != NULL ? entry_object(key.entry) : NULL;
    return true;
}

/* ---- reading -------------------------------------------------------------------------------- */

void cmd_scard(struct cmd *c)
{
    const struct object *set;

    if (set_read(c, &set))
        reply_integer(c, set != NULL ? (int64_t)set_count(set) : 0);
}

void cmd_sismember(struct cmd *c)
{
    const struct object *set;

    if (set_read(c, &set))
        reply_integer(c, set != NULL && set_has(set, c->argv[2]));
}

void cmd_smismember(struct cmd *c)
{
    const struct object *set;

    if (!set_read(c, &set))
        return;
    reply_array(c, c->argc - 2);
    for (uint32_t i = 2; i < c->argc; i++)
        reply_integer(c, set != NULL && set_has(set, c->argv[i]));
}

static void reply_members(struct cmd *c, const struct object *set)
{
    struct bytes member;
    struct set_walk walk;

    set_walk_init(&walk, set);
    while (set_walk_next(&walk, &member))
        reply_bulk(c, member);
}

void cmd_smembers(struct cmd *c)
{
    const struct object *set;

    if (!set_read(c, &set))
        return;
    reply_set(c, set != NULL ? set_count(set) : 0);
    if (set != NULL)
        reply_members(c, set);
}

static void scan_member(void *arg, struct bytes member)
{
    MAYBE(scan_element(arg, member));
}

static uint64_t scan_step(struct scan *scan, const void *arg, uint64_t cursor)
{
    return set_scan(arg, cursor, scan_member, scan);
}

void cmd_sscan(struct cmd *c)
{
    const struct object *set;
    struct scan scan;

    if (!scan_cursor(c, 2, &scan) || !set_read(c, &set))
        return;
    if (set == NULL)
        scan_reply_empty(c);
    else if (scan_options(&scan, 3, false))
        scan_reply(&scan, 1, scan_step, set);
}

static void reply_member(void *arg, struct bytes member)
{
    reply_bulk(arg, member);
}

static void srandmember_count(struct cmd *c, const struct object *set, int64_t count)
{
    uint64_t random = io_random64(c->engine->io), wanted;
    char digits[SET_DIGITS_MAX];

    if (set == NULL || count == 0) {
        reply_array(c, 0);
        return;
    }
    if (count > 0) {
        wanted = MIN((uint64_t)count, set_count(set));
        reply_array(c, wanted);
        set_sample(set, wanted, random, reply_member, c);
        return;
    }
    reply_array(c, ~(uint64_t)count + 1);
    for (; count < 0 && !c->session->is_killed; count++)
        reply_bulk(c, set_random(set, draw_u64(&random), digits));
}

void cmd_srandmember(struct cmd *c)
{
    const struct object *set;
    int64_t count = 0;
    char digits[SET_DIGITS_MAX];

    if (c->argc > 3) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (c->argc == 3 && !arg_i64_range(c, 2, -INT64_MAX, INT64_MAX, &count, NULL))
        return;
    if (!set_read(c, &set))
        return;
    if (c->argc == 3)
        srandmember_count(c, set, count);
    else if (set == NULL)
        reply_null(c);
    else
        reply_bulk(c, set_random(set, io_random64(c->engine->io), digits));
}

/* ---- changing ------------------------------------------------------------------------------- */

void cmd_sadd(struct cmd *c)
{
    struct object *set;
    struct store_key key;
    int64_t added = 0;
    uint32_t i;
    int err = 0;

    if (!key_write(c, c->argv[1], STORE_SET, &key))
        return;
    set = store_object_open(c->store, &key, STORE_SET, true);
    if (set == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    for (i = 2; i < c->argc; i++) {
        bool is_new;

        err = set_add(set, c->argv[i], &is_new);
        if (err != 0)
            break;
        added += is_new;
    }
    /* What was done is logged, also when memory ran out in the middle. */
    if (added > 0) {
        effect_begin(store_effects(c->store), SET_EFFECT_ADD, i - 2);
        for (uint32_t done = 2; done < i; done++)
            effect_bytes(store_effects(c->store), c->argv[done]);
    }
    if (!cmd_stored(c, store_change(c->store, &key)) || !cmd_stored(c, err))
        return;
    if (added > 0)
        notify(c, NOTIFY_SET, "sadd", key.name);
    reply_integer(c, added);
}

void cmd_srem(struct cmd *c)
{
    struct object *set;
    struct store_key key;
    int64_t removed = 0;

    if (!key_write(c, c->argv[1], STORE_SET, &key))
        return;
    set = key.entry != NULL ? store_object_open(c->store, &key, STORE_SET, false) : NULL;
    for (uint32_t i = 2; set != NULL && i < c->argc; i++)
        removed += set_remove(set, c->argv[i]);
    if (removed > 0) {
        effect_begin(store_effects(c->store), SET_EFFECT_REMOVE, c->argc - 2);
        for (uint32_t i = 2; i < c->argc; i++)
            effect_bytes(store_effects(c->store), c->argv[i]);
    }
    if (set != NULL && !cmd_stored(c, store_change(c->store, &key)))
        return;
    if (removed > 0)
        notify_change(c, NOTIFY_SET, "srem", &key);
    reply_integer(c, removed);
}

/* Adds it to one key, or takes it from there; it is known to be a change. True: done and logged. */
static bool change_one(struct cmd *c, struct store_key *key, enum set_effect effect, struct bytes member)
{
    struct object *set = store_object_open(c->store, key, STORE_SET, effect == SET_EFFECT_ADD);
    bool is_new;
    int err = set == NULL ? ERR_FULL : 0;

    if (err == 0 && effect == SET_EFFECT_ADD)
        err = set_add(set, member, &is_new);
    if (set == NULL)
        return cmd_stored(c, err);
    if (err == 0) {
        effect_begin(store_effects(c->store), (uint8_t)effect, 1);
        effect_bytes(store_effects(c->store), member);
    }
    if (effect == SET_EFFECT_REMOVE)
        MAYBE(set_remove(set, member)); /* last: it may be the set's own bytes */
    return cmd_stored(c, store_change(c->store, key)) && cmd_stored(c, err);
}

void cmd_smove(struct cmd *c)
{
    struct store_key source, target;
    struct bytes member = c->argv[3];
    bool is_there, is_new;

    if (!key_write(c, c->argv[1], STORE_SET, &source))
        return;
    if (source.entry == NULL) {
        reply_integer(c, 0);
        return;
    }
    if (!key_write(c, c->argv[2], STORE_SET, &target))
        return;
    is_there = set_has(entry_object(source.entry), member);
    if (!is_there || bytes_equal(c->argv[1], c->argv[2])) {
        reply_integer(c, is_there);
        return;
    }
    is_new = target.entry == NULL || !set_has(entry_object(target.entry), member);
    if (is_new && !change_one(c, &target, SET_EFFECT_ADD, member))
        return;
    if (!change_one(c, &source, SET_EFFECT_REMOVE, member))
        return;
    notify_change(c, NOTIFY_SET, "srem", &source);
    if (is_new)
        notify(c, NOTIFY_SET, "sadd", target.name);
    reply_integer(c, 1);
}

/* ---- SPOP ----------------------------------------------------------------------------------- */

static void spop_one(struct cmd *c, struct store_key *key)
{
    struct bytes member;
    char digits[SET_DIGITS_MAX];

    if (key->entry == NULL) {
        reply_null(c);
        return;
    }
    member = set_random(entry_object(key->entry), io_random64(c->engine->io), digits);
    if (!cmd_may_log(c, member.len))
        return;
    reply_bulk(c, member);
    if (change_one(c, key, SET_EFFECT_REMOVE, member))
        notify_change(c, NOTIFY_SET, "spop", key);
}

struct pop_log {
    struct buffer *effects;
    uint64_t left; /* members still to come */
    uint32_t room; /* in the operation begun */
};

static void log_popped(void *arg, struct bytes member)
{
    struct pop_log *pop = arg;

    if (pop->room == 0) {
        pop->room = (uint32_t)MIN(pop->left, (uint64_t)EFFECT_ARGUMENTS_MAX);
        effect_begin(pop->effects, SET_EFFECT_REMOVE, pop->room);
    }
    effect_bytes(pop->effects, member);
    pop->left--;
    pop->room--;
}

/* The sample is written to the log first, and read from there: what is removed is what is logged, and no view
 * of a member is used after a change. */
static void spop_some(struct cmd *c, struct store_key *key, uint64_t wanted)
{
    struct object *set = store_object_open(c->store, key, STORE_SET, false);
    struct pop_log pop = {.effects = store_effects(c->store), .left = wanted};
    size_t start = pop.effects->len;
    struct effect_reader reader;
    struct bytes member;
    uint32_t count;
    uint8_t code;

    set_sample(set, wanted, io_random64(c->engine->io), log_popped, &pop);
    if (pop.effects->failed) {
        buffer_clear(pop.effects);
        if (cmd_stored(c, store_change(c->store, key)))
            cmd_out_of_memory(c);
        return;
    }
    if (!cmd_may_log(c, pop.effects->len - start)) {
        buffer_clear(pop.effects);
        return;
    }
    reply_set(c, wanted);
    effect_reader_init(&reader, bytes_skip(buffer_bytes(pop.effects), start));
    while (effect_next(&reader, &code, &count)) {
        while (count-- > 0 && effect_read_bytes(&reader, &member)) {
            bool was_there = set_remove(set, member);

            ASSERT(was_there);
            reply_bulk(c, member);
        }
    }
    if (cmd_stored(c, store_change(c->store, key)))
        notify_change(c, NOTIFY_SET, "spop", key);
}

void cmd_spop(struct cmd *c)
{
    struct store_key key;
    int64_t count = 0;

    if (c->argc > 3) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (c->argc == 3 && !arg_i64_range(c, 2, 0, INT64_MAX, &count, ERROR_POSITIVE))
        return;
    if (!key_write(c, c->argv[1], STORE_SET, &key))
        return;
    if (c->argc == 2) {
        spop_one(c, &key);
    } else if (key.entry == NULL || count == 0) {
        reply_set(c, 0);
    } else if ((uint64_t)count < set_count(entry_object(key.entry))) {
        spop_some(c, &key, (uint64_t)count);
    } else {
        const struct object *set = entry_object(key.entry);

        reply_set(c, set_count(set));
        reply_members(c, set);
        if (cmd_stored(c, store_delete(c->store, &key)))
            notify_change(c, NOTIFY_SET, "spop", &key);
    }
}
