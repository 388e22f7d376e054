/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements that leave lists: popped, moved, waited for.
 *
 * A reply is composed before its elements go: they are views into the list.
 */
#include "backend/cmd/cmd_list.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/pop.h"
#include "backend/cmd/reply.h"
#include "common/base/mem.h"

static const char *pop_event(enum deque_end end)
{
    return end == DEQUE_HEAD ? "lpop" : "rpop";
}

static void pop_one(struct cmd *c, struct store_key *key, enum deque_end end)
{
    struct object *object = store_object_open(c->store, key, STORE_LIST, false);

    if (object == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    reply_bulk(c, deque_peek(list_items(object), end));
    list_pop(object, end, 1, store_effects(c->store));
    pop_change(c, key, NOTIFY_LIST, pop_event(end));
}

/* As an array of at most `count` elements, count > 0. */
static void pop_several(struct cmd *c, struct store_key *key, enum deque_end end, uint64_t count)
{
    struct object *object = store_object_open(c->store, key, STORE_LIST, false);
    const struct deque *items;
    struct deque_cursor cursor;

    if (object == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    items = list_items(object);
    count = MIN(count, items->count);
    reply_array(c, count);
    cursor = deque_seek(items, end == DEQUE_HEAD ? 0 : items->count - 1);
    for (uint64_t i = 0; i < count; i++)
        reply_bulk(c, deque_walk(&cursor, deque_other_end(end)));
    list_pop(object, end, count, store_effects(c->store));
    pop_change(c, key, NOTIFY_LIST, pop_event(end));
}

static void pop(struct cmd *c, enum deque_end end)
{
    struct store_key key;
    bool has_count = c->argc == 3;
    int64_t count = 1;

    if (c->argc > 3) {
        reply_error_format(c, "ERR wrong number of arguments for '%s' command", c->info->name);
        return;
    }
    if (has_count && !arg_i64_range(c, 2, 0, INT64_MAX, &count, ERROR_POSITIVE))
        return;
    if (!key_write(c, c->argv[1], STORE_LIST, &key))
        return;
    if (key.entry == NULL) {
        if (has_count)
            reply_null_array(c);
        else
            reply_null(c);
    } else if (count == 0) {
        reply_array(c, 0);
    } else if (has_count) {
        pop_several(c, &key, end, (uint64_t)count);
    } else {
        pop_one(c, &key, end);
    }
}

void cmd_lpop(struct cmd *c)
{
    pop(c, DEQUE_HEAD);
}

void cmd_rpop(struct cmd *c)
{
    pop(c, DEQUE_TAIL);
}

/* ---- the first of several lists ----------------------------------------------------------------- */

static const char *const end_words[2] = {[DEQUE_HEAD] = "LEFT", [DEQUE_TAIL] = "RIGHT"};

static bool end_parse(struct cmd *c, uint32_t i, enum deque_end *out)
{
    if (arg_is(c, i, end_words[DEQUE_HEAD])) {
        *out = DEQUE_HEAD;
    } else if (arg_is(c, i, end_words[DEQUE_TAIL])) {
        *out = DEQUE_TAIL;
    } else {
        reply_error(c, ERROR_SYNTAX);
        return false;
    }
    return true;
}

static void mpop_reply(struct cmd *c, struct store_key *key, const struct pop *what)
{
    reply_array(c, 2);
    reply_bulk(c, key->name);
    pop_several(c, key, (enum deque_end)what->word, what->count);
}

void cmd_lmpop(struct cmd *c)
{
    struct store_key key;
    struct pop what;

    if (!pop_parse(c, 1, end_words, &what) || !pop_find(c, what.first, what.keys, STORE_LIST, &key))
        return;
    if (key.entry == NULL)
        reply_null_array(c);
    else
        mpop_reply(c, &key, &what);
}

void cmd_blmpop(struct cmd *c)
{
    struct store_key key;
    struct pop what;
    uint64_t timeout_ms;

    if (!pop_parse(c, 2, end_words, &what) || !arg_timeout_ms(c, 1, &timeout_ms) ||
        !pop_find(c, what.first, what.keys, STORE_LIST, &key))
        return;
    if (key.entry == NULL)
        cmd_block(c, what.first, what.keys, timeout_ms, reply_null_array);
    else
        mpop_reply(c, &key, &what);
}

static void blocking_pop(struct cmd *c, enum deque_end end)
{
    struct store_key key;
    uint64_t timeout_ms;

    if (!arg_timeout_ms(c, c->argc - 1, &timeout_ms) || !pop_find(c, 1, c->argc - 2, STORE_LIST, &key))
        return;
    if (key.entry == NULL) {
        cmd_block(c, 1, c->argc - 2, timeout_ms, reply_null_array);
        return;
    }
    reply_array(c, 2);
    reply_bulk(c, key.name);
    pop_one(c, &key, end);
}

void cmd_blpop(struct cmd *c)
{
    blocking_pop(c, DEQUE_HEAD);
}

void cmd_brpop(struct cmd *c)
{
    blocking_pop(c, DEQUE_TAIL);
}

/* ---- from one list to another ------------------------------------------------------------------- */

/* The element comes to its new place before it leaves the old one, so that none is lost for lack of memory. */
static int move_element(struct cmd *c, struct store_key *source, struct store_key *target,
                        const struct bytes *item, enum deque_end from, enum deque_end to)
{
    bool is_same = bytes_equal(source->name, target->name);
    struct object *object = store_object_open(c->store, target, STORE_LIST, true);
    int err, stored;

    if (object == NULL)
        return ERR_FULL;
    err = list_push(object, to, item, 1, store_effects(c->store));
    if (err == 0 && is_same)
        list_pop(object, from, 1, store_effects(c->store)); /* its twin, if it is the same end */
    stored = store_change(c->store, target);
    if (err != 0 || stored != 0 || is_same)
        return err != 0 ? err : stored;
    object = store_object_open(c->store, source, STORE_LIST, false);
    if (object == NULL)
        return ERR_FULL;
    list_pop(object, from, 1, store_effects(c->store));
    return store_change(c->store, source);
}

/* The source has elements. */
static void move(struct cmd *c, struct store_key *source, enum deque_end from, enum deque_end to)
{
    struct store_key target;
    struct bytes item;
    char *copy;

    if (!key_write(c, c->argv[2], STORE_LIST, &target))
        return;
    item = deque_peek(list_of(source), from);
    copy = mem_alloc(MAX(item.len, (size_t)1));
    if (copy == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    memcpy(copy, item.data, item.len);
    item.data = copy;
    if (cmd_stored(c, move_element(c, source, &target, &item, from, to))) {
        notify(c, NOTIFY_LIST, to == DEQUE_HEAD ? "lpush" : "rpush", target.name);
        if (bytes_equal(source->name, target.name))
            notify(c, NOTIFY_LIST, pop_event(from), source->name);
        else
            notify_change(c, NOTIFY_LIST, pop_event(from), source);
        reply_bulk(c, item);
    }
    mem_free(copy);
}

static void move_or_null(struct cmd *c, enum deque_end from, enum deque_end to)
{
    struct store_key source;

    if (!key_write(c, c->argv[1], STORE_LIST, &source))
        return;
    if (source.entry == NULL)
        reply_null(c);
    else
        move(c, &source, from, to);
}

void cmd_lmove(struct cmd *c)
{
    enum deque_end from, to;

    if (end_parse(c, 3, &from) && end_parse(c, 4, &to))
        move_or_null(c, from, to);
}

void cmd_rpoplpush(struct cmd *c)
{
    move_or_null(c, DEQUE_TAIL, DEQUE_HEAD);
}

/* As Redis: in EXEC there is no element, after a wait there is no array of them. */
static void move_timed_out(struct cmd *c)
{
    if (c->in_exec)
        reply_null(c);
    else
        reply_null_array(c);
}

static void blocking_move(struct cmd *c, enum deque_end from, enum deque_end to)
{
    struct store_key source;
    uint64_t timeout_ms;

    if (!arg_timeout_ms(c, c->argc - 1, &timeout_ms) || !pop_find(c, 1, 1, STORE_LIST, &source))
        return;
    if (source.entry == NULL)
        cmd_block(c, 1, 1, timeout_ms, move_timed_out);
    else
        move(c, &source, from, to);
}

void cmd_blmove(struct cmd *c)
{
    enum deque_end from, to;

    if (end_parse(c, 3, &from) && end_parse(c, 4, &to))
        blocking_move(c, from, to);
}

void cmd_brpoplpush(struct cmd *c)
{
    blocking_move(c, DEQUE_TAIL, DEQUE_HEAD);
}
