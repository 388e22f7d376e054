/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists, but those commands that move elements or wait (cmd_list_pop.c).
 */
#include "backend/cmd/cmd_list.h"
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"

const struct deque *list_of(const struct store_key *key)
{
    return key->entry == NULL ? NULL : list_items(entry_object(key->entry));
}

bool list_range(int64_t start, int64_t stop, uint64_t count, uint64_t *first, uint64_t *length)
{
    int64_t end = (int64_t)count;

    if (start < 0)
        start = MAX(start + end, 0);
    if (stop < 0)
        stop += end;
    if (start > stop || start >= end)
        return false;
    stop = MIN(stop, end - 1);
    *first = (uint64_t)start;
    *length = (uint64_t)(stop - start + 1);
    return true;
}

/* ---- pushing ------------------------------------------------------------------------------------ */

static void push(struct cmd *c, enum deque_end end, bool must_exist)
{
    struct store_key key;
    struct object *object;
    uint64_t count;
    int err, stored;

    if (!key_write(c, c->argv[1], STORE_LIST, &key))
        return;
    if (must_exist && key.entry == NULL) {
        reply_integer(c, 0);
        return;
    }
    object = store_object_open(c->store, &key, STORE_LIST, true);
    if (object == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    err = list_push(object, end, c->argv + 2, c->argc - 2, store_effects(c->store));
    count = list_items(object)->count;
    stored = store_change(c->store, &key); /* also when nothing was pushed: a new list goes away */
    if (!cmd_stored(c, err != 0 ? err : stored))
        return;
    notify(c, NOTIFY_LIST, end == DEQUE_HEAD ? "lpush" : "rpush", key.name);
    reply_integer(c, (int64_t)count);
}

void cmd_lpush(struct cmd *c)
{
    push(c, DEQUE_HEAD, false);
}

void cmd_rpush(struct cmd *c)
{
    push(c, DEQUE_TAIL, false);
}

void cmd_lpushx(struct cmd *c)
{
    push(c, DEQUE_HEAD, true);
}

void cmd_rpushx(struct cmd *c)
{
    push(c, DEQUE_TAIL, true);
}

/* ---- reading ------------------------------------------------------------------------------------ */

void cmd_llen(struct cmd *c)
{
    struct store_key key;

    if (key_read(c, c->argv[1], STORE_LIST, &key))
        reply_integer(c, key.entry == NULL ? 0 : (int64_t)list_of(&key)->count);
}

/* Negative: from the tail. False: there is no such index. */
static bool index_resolve(int64_t index, uint64_t count, uint64_t *out)
{
    if (index < 0)
        index += (int64_t)count;
    *out = (uint64_t)index;
    return index >= 0 && *out < count;
}

void cmd_lindex(struct cmd *c)
{
    struct store_key key;
    int64_t index;
    uint64_t at;

    if (!key_read(c, c->argv[1], STORE_LIST, &key))
        return;
    if (key.entry == NULL) {
        reply_null(c);
        return;
    }
    if (!arg_i64(c, 2, &index))
        return;
    if (index_resolve(index, list_of(&key)->count, &at)) {
        struct deque_cursor cursor = deque_seek(list_of(&key), at);

        reply_bulk(c, deque_item(&cursor));
    } else {
        reply_null(c);
    }
}

void cmd_lrange(struct cmd *c)
{
    struct store_key key;
    struct deque_cursor cursor;
    int64_t start, stop;
    uint64_t first, length;

    if (!arg_i64(c, 2, &start) || !arg_i64(c, 3, &stop))
        return;
    if (!key_read(c, c->argv[1], STORE_LIST, &key))
        return;
    if (key.entry == NULL || !list_range(start, stop, list_of(&key)->count, &first, &length)) {
        reply_array(c, 0);
        return;
    }
    reply_array(c, length);
    cursor = deque_seek(list_of(&key), first);
    for (; length > 0; length--)
        reply_bulk(c, deque_walk(&cursor, DEQUE_TAIL));
}

struct lpos {
    int64_t rank;  /* not 0; negative: from the tail */
    int64_t count; /* -1: one match, not as an array; 0: all */
    uint64_t len_max; /* 0: no bound */
};

static bool lpos_parse(struct cmd *c, struct lpos *out)
{
    *out = (struct lpos){.rank = 1, .count = -1};
    for (uint32_t i = 3; i < c->argc; i += 2) {
        int64_t len_max;

        if (arg_is(c, i, "RANK") && i + 1 < c->argc) {
            if (!arg_i64(c, i + 1, &out->rank))
                return false;
            if (out->rank == 0) {
                reply_error(c, "ERR RANK can't be zero: use 1 to start from the first match, 2 from "
                               "the second ... or use negative to start from the end of the list");
                return false;
            }
        } else if (arg_is(c, i, "COUNT") && i + 1 < c->argc) {
            if (!arg_i64_range(c, i + 1, 0, INT64_MAX, &out->count,
                               "ERR COUNT can't be negative"))
                return false;
        } else if (arg_is(c, i, "MAXLEN") && i + 1 < c->argc) {
            if (!arg_i64_range(c, i + 1, 0, INT64_MAX, &len_max, "ERR MAXLEN can't be negative"))
                return false;
            out->len_max = (uint64_t)len_max;
        } else {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* Replies the indices of matches, the last of them or none is returned: -1. */
static int64_t lpos_find(struct cmd *c, const struct deque *items, const struct lpos *lpos,
                         uint64_t *found)
{
    enum deque_end towards = lpos->rank < 0 ? DEQUE_HEAD : DEQUE_TAIL;
    struct deque_cursor cursor =
        deque_seek(items, towards == DEQUE_HEAD ? items->count - 1 : 0);
    /* The least rank has no positive twin; Redis then takes the first match. */
    int64_t skip = lpos->rank > 0 ? lpos->rank - 1 : lpos->rank == INT64_MIN ? 0 : -lpos->rank - 1;

    *found = 0;
    for (uint64_t i = 0; cursor.node != NULL && (lpos->len_max == 0 || i < lpos->len_max); i++) {
        int64_t index = (int64_t)(towards == DEQUE_HEAD ? items->count - 1 - i : i);

        if (!bytes_equal(deque_walk(&cursor, towards), c->argv[2]))
            continue;
        if (skip > 0) {
            skip--;
            continue;
        }
        (*found)++;
        if (lpos->count < 0)
            return index;
        reply_integer(c, index);
        if (lpos->count > 0 && *found >= (uint64_t)lpos->count)
            break;
    }
    return -1;
}

void cmd_lpos(struct cmd *c)
{
    struct store_key key;
    struct lpos lpos;
    uint64_t found = 0;
    int64_t index = -1;

    if (!lpos_parse(c, &lpos) || !key_read(c, c->argv[1], STORE_LIST, &key))
        return;
    if (lpos.count >= 0)
        reply_count_later(c);
    if (key.entry != NULL)
        index = lpos_find(c, list_of(&key), &lpos, &found);
    if (lpos.count >= 0)
        reply_count_array(c, found);
    else if (found == 0)
        reply_null(c);
    else
        reply_integer(c, index);
}

/* ---- changing inside ---------------------------------------------------------------------------- */

void cmd_lset(struct cmd *c)
{
    struct store_key key;
    struct object *object;
    int64_t index;
    uint64_t at;
    int err, stored;

    if (!key_write(c, c->argv[1], STORE_LIST, &key))
        return;
    if (key.entry == NULL) {
        reply_error(c, ERROR_NO_KEY);
        return;
    }
    if (!arg_i64(c, 2, &index))
        return;
    if (!index_resolve(index, list_of(&key)->count, &at)) {
        reply_error(c, ERROR_INDEX);
        return;
    }
    object = store_object_open(c->store, &key, STORE_LIST, false);
    if (object == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    err = list_set(object, at, c->argv[3], store_effects(c->store));
    stored = store_change(c->store, &key);
    if (!cmd_stored(c, err != 0 ? err : stored))
        return;
    notify(c, NOTIFY_LIST, "lset", key.name);
    reply_ok(c);
}

/* UINT64_MAX: it is not there. */
static uint64_t index_of(const struct deque *items, struct bytes item)
{
    struct deque_cursor cursor = deque_seek(items, 0);

    for (uint64_t i = 0; cursor.node != NULL; i++)
        if (bytes_equal(deque_walk(&cursor, DEQUE_TAIL), item))
            return i;
    return UINT64_MAX;
}

void cmd_linsert(struct cmd *c)
{
    bool is_after = arg_is(c, 2, "AFTER");
    struct store_key key;
    struct object *object;
    uint64_t at, count;
    int err, stored;

    if (!is_after && !arg_is(c, 2, "BEFORE")) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (!key_write(c, c->argv[1], STORE_LIST, &key))
        return;
    at = key.entry == NULL ? 0 : index_of(list_of(&key), c->argv[3]);
    if (key.entry == NULL || at == UINT64_MAX) {
        reply_integer(c, key.entry == NULL ? 0 : -1);
        return;
    }
    object = store_object_open(c->store, &key, STORE_LIST, false);
    if (object == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    err = list_insert(object, at + is_after, c->argv[4], store_effects(c->store));
    count = list_items(object)->count;
    stored = store_change(c->store, &key);
    if (!cmd_stored(c, err != 0 ? err : stored))
        return;
    notify(c, NOTIFY_LIST, "linsert", key.name);
    reply_integer(c, (int64_t)count);
}

void cmd_lrem(struct cmd *c)
{
    struct store_key key;
    struct object *object;
    int64_t count;
    uint64_t removed;

    if (!arg_i64(c, 2, &count) || !key_write(c, c->argv[1], STORE_LIST, &key))
        return;
    object = key.entry == NULL ? NULL : store_object_open(c->store, &key, STORE_LIST, false);
    if (object == NULL) {
        reply_integer(c, 0);
        return;
    }
    removed = list_remove_equal(object, c->argv[3], count, store_effects(c->store));
    if (!cmd_stored(c, store_change(c->store, &key)))
        return;
    if (removed > 0)
        notify_change(c, NOTIFY_GENERIC, "lrem", &key);
    reply_integer(c, (int64_t)removed);
}

void cmd_ltrim(struct cmd *c)
{
    struct store_key key;
    struct object *object;
    int64_t start, stop;
    uint64_t first = 0, length = 0, count;

    if (!arg_i64(c, 2, &start) || !arg_i64(c, 3, &stop))
        return;
    if (!key_write(c, c->argv[1], STORE_LIST, &key))
        return;
    object = key.entry == NULL ? NULL : store_object_open(c->store, &key, STORE_LIST, false);
    if (object == NULL) {
        reply_ok(c);
        return;
    }
    count = list_items(object)->count;
    if (!list_range(start, stop, count, &first, &length))
        first = count; /* everything goes */
    if (first > 0)
        list_pop(object, DEQUE_HEAD, first, store_effects(c->store));
    if (first + length < count)
        list_pop(object, DEQUE_TAIL, count - first - length, store_effects(c->store));
    if (!cmd_stored(c, store_change(c->store, &key)))
        return;
    if (first == 0 && length == count)
        watch_changed(c->engine, c->db, key.name); /* to Redis it has changed */
    notify_change(c, NOTIFY_LIST, "ltrim", &key);
    reply_ok(c);
}
