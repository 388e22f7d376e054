/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that do not care what a key holds.
 */
#include "backend/cmd/handlers.h"
#include "backend/cmd/key_move.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "common/base/glob.h"

#include <limits.h>

/* ---- there or not ---- */

static void delete_keys(struct cmd *c)
{
    int64_t count = 0;

    for (uint32_t i = 1; i < c->argc; i++) {
        struct store_key key;

        if (!key_write(c, c->argv[i], STORE_NONE, &key))
            return;
        if (key.entry == NULL)
            continue;
        if (!cmd_stored(c, store_delete(c->store, &key)))
            return;
        notify(c, NOTIFY_GENERIC, "del", key.name);
        count++;
    }
    reply_integer(c, count);
}

void cmd_del(struct cmd *c)
{
    delete_keys(c);
}

/* The store gives memory back in steps in any case. */
void cmd_unlink(struct cmd *c)
{
    delete_keys(c);
}

static void count_keys(struct cmd *c, bool touch)
{
    int64_t count = 0;

    for (uint32_t i = 1; i < c->argc; i++) {
        struct store_key key;

        if (!key_read(c, c->argv[i], STORE_NONE, &key))
            return;
        if (key.entry == NULL)
            continue;
        if (touch)
            store_touch(key.entry);
        count++;
    }
    reply_integer(c, count);
}

void cmd_exists(struct cmd *c)
{
    count_keys(c, false);
}

void cmd_touch(struct cmd *c)
{
    count_keys(c, true);
}

void cmd_type(struct cmd *c)
{
    struct store_key key;

    if (key_read(c, c->argv[1], STORE_NONE, &key))
        reply_status(c, key_type_name(key.entry));
}

/* ---- time to live ---- */

enum {
    EXPIRE_NX = 1 << 0,
    EXPIRE_XX = 1 << 1,
    EXPIRE_GT = 1 << 2,
    EXPIRE_LT = 1 << 3,
};

static bool expire_options_parse(struct cmd *c, uint32_t *flags)
{
    *flags = 0;
    for (uint32_t i = 3; i < c->argc; i++) {
        if (arg_is(c, i, "nx")) {
            *flags |= EXPIRE_NX;
        } else if (arg_is(c, i, "xx")) {
            *flags |= EXPIRE_XX;
        } else if (arg_is(c, i, "gt")) {
            *flags |= EXPIRE_GT;
        } else if (arg_is(c, i, "lt")) {
            *flags |= EXPIRE_LT;
        } else {
            reply_error_format(c, "ERR Unsupported option %.*s", BYTES_ARG(c->argv[i]));
            return false;
        }
    }
    if ((*flags & EXPIRE_NX) && (*flags & ~(uint32_t)EXPIRE_NX)) {
        reply_error(c, "ERR NX and XX, GT or LT options at the same time are not compatible");
        return false;
    }
    if ((*flags & EXPIRE_GT) && (*flags & EXPIRE_LT)) {
        reply_error(c, "ERR GT and LT options at the same time are not compatible");
        return false;
    }
    return true;
}

/* A key without a time to live lives longer than any. */
static bool expire_allowed(const struct entry *e, uint32_t flags, int64_t at_ms)
{
    int64_t now_at_ms = (int64_t)entry_expire_ms(e);
    bool is_endless = now_at_ms == 0;

    if ((flags & EXPIRE_NX) && !is_endless)
        return false;
    if ((flags & EXPIRE_XX) && is_endless)
        return false;
    if ((flags & EXPIRE_GT) && (is_endless || at_ms <= now_at_ms))
        return false;
    return !(flags & EXPIRE_LT) || is_endless || at_ms < now_at_ms;
}

static void expire(struct cmd *c, int64_t base_ms, int64_t unit_ms)
{
    struct store_key key;
    int64_t at_ms;
    uint32_t flags;

    if (!expire_options_parse(c, &flags) || !arg_i64(c, 2, &at_ms))
        return;
    if (__builtin_mul_overflow(at_ms, unit_ms, &at_ms) || at_ms > INT64_MAX - base_ms) {
        reply_error_format(c, "ERR invalid expire time in '%s' command", c->info->name);
        return;
    }
    at_ms += base_ms;
    if (!key_write(c, c->argv[1], STORE_NONE, &key))
        return;
    if (key.entry == NULL || !expire_allowed(key.entry, flags, at_ms)) {
        reply_integer(c, 0);
        return;
    }
    if (!key_expire_at(c, &key, at_ms))
        return;
    notify(c, NOTIFY_GENERIC, key.entry == NULL ? "del" : "expire", key.name);
    reply_integer(c, 1);
}

void cmd_expire(struct cmd *c)
{
    expire(c, (int64_t)c->now_ms, 1000);
}

void cmd_pexpire(struct cmd *c)
{
    expire(c, (int64_t)c->now_ms, 1);
}

void cmd_expireat(struct cmd *c)
{
    expire(c, 0, 1000);
}

void cmd_pexpireat(struct cmd *c)
{
    expire(c, 0, 1);
}

static void reply_expire(struct cmd *c, bool is_left, bool in_ms)
{
    struct store_key key;
    uint64_t at_ms;

    if (!key_read(c, c->argv[1], STORE_NONE, &key))
        return;
    if (key.entry == NULL) {
        reply_integer(c, -2);
        return;
    }
    at_ms = entry_expire_ms(key.entry);
    if (at_ms == 0) {
        reply_integer(c, -1);
        return;
    }
    if (is_left)
        at_ms = at_ms > c->now_ms ? at_ms - c->now_ms : 0;
    reply_integer(c, (int64_t)(in_ms ? at_ms : (at_ms + 500) / 1000));
}

void cmd_ttl(struct cmd *c)
{
    reply_expire(c, true, false);
}

void cmd_pttl(struct cmd *c)
{
    reply_expire(c, true, true);
}

void cmd_expiretime(struct cmd *c)
{
    reply_expire(c, false, false);
}

void cmd_pexpiretime(struct cmd *c)
{
    reply_expire(c, false, true);
}

void cmd_persist(struct cmd *c)
{
    struct store_key key;

    if (!key_write(c, c->argv[1], STORE_NONE, &key))
        return;
    if (key.entry == NULL || entry_expire_ms(key.entry) == 0) {
        reply_integer(c, 0);
        return;
    }
    if (!cmd_stored(c, store_set_expire(c->store, &key, 0)))
        return;
    notify(c, NOTIFY_GENERIC, "persist", key.name);
    reply_integer(c, 1);
}

/* ---- other names, other databases ---- */

static bool arg_db(struct cmd *c, uint32_t i, uint8_t *out)
{
    int64_t db;

    if (!arg_i64_range(c, i, INT_MIN, INT_MAX, &db, NULL))
        return false;
    if (db < 0 || db >= (int64_t)STORE_DBS) {
        reply_error(c, "ERR DB index is out of range");
        return false;
    }
    *out = (uint8_t)db;
    return true;
}

static void rename_key(struct cmd *c, bool only_new)
{
    struct store_key source, target;
    bool had_value;

    if (!key_write(c, c->argv[1], STORE_NONE, &source))
        return;
    if (source.entry == NULL) {
        reply_error(c, ERROR_NO_KEY);
        return;
    }
    if (!bytes_equal(c->argv[1], c->argv[2])) {
        key_find_in(c, c->db, c->argv[2], &target);
        if (only_new && target.entry != NULL) {
            reply_integer(c, 0);
            return;
        }
        had_value = target.entry != NULL;
        if (!key_move(c, &source, &target))
            return;
        if (had_value) /* of another key, as Redis has it; the store tells of those that were not there */
            notify(c, NOTIFY_NEW, "new", target.name);
        notify(c, NOTIFY_GENERIC, "rename_from", source.name);
        notify(c, NOTIFY_GENERIC, "rename_to", target.name);
        if (only_new)
            reply_integer(c, 1);
        else
            reply_ok(c);
    } else if (only_new) {
        reply_integer(c, 0);
    } else {
        reply_ok(c);
    }
}

void cmd_rename(struct cmd *c)
{
    rename_key(c, false);
}

void cmd_renamenx(struct cmd *c)
{
    rename_key(c, true);
}

void cmd_move(struct cmd *c)
{
    struct store_key source, target;
    uint8_t db;

    if (!arg_db(c, 2, &db))
        return;
    if (db == c->db) {
        reply_error(c, "ERR source and destination objects are the same");
        return;
    }
    if (!key_write(c, c->argv[1], STORE_NONE, &source))
        return;
    key_find_in(c, db, c->argv[1], &target);
    if (source.entry == NULL || target.entry != NULL) {
        reply_integer(c, 0);
        return;
    }
    if (!key_move(c, &source, &target))
        return;
    notify(c, NOTIFY_GENERIC, "move_from", source.name);
    notify_in_db(c, db, NOTIFY_GENERIC, "move_to", target.name);
    reply_integer(c, 1);
}

static bool copy_options_parse(struct cmd *c, uint8_t *db, bool *replace)
{
    *db = c->db;
    *replace = false;
    for (uint32_t i = 3; i < c->argc; i++) {
        if (arg_is(c, i, "replace")) {
            *replace = true;
        } else if (arg_is(c, i, "db") && i + 1 < c->argc) {
            if (!arg_db(c, ++i, db))
                return false;
        } else {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
    }
    return true;
}

void cmd_copy(struct cmd *c)
{
    struct store_key source, target;
    bool replace, had_value;
    uint8_t db;

    if (!copy_options_parse(c, &db, &replace))
        return;
    if (db == c->db && bytes_equal(c->argv[1], c->argv[2])) {
        reply_error(c, "ERR source and destination objects are the same");
        return;
    }
    if (!key_read(c, c->argv[1], STORE_NONE, &source))
        return;
    key_find_in(c, db, c->argv[2], &target);
    if (source.entry == NULL || (target.entry != NULL && !replace)) {
        reply_integer(c, 0);
        return;
    }
    had_value = target.entry != NULL;
    if (!key_copy(c, &source, &target))
        return;
    if (had_value)
        notify_in_db(c, db, NOTIFY_NEW, "new", target.name);
    notify_in_db(c, db, NOTIFY_GENERIC, "copy_to", target.name);
    reply_integer(c, 1);
}

/* ---- all keys ---- */

void cmd_randomkey(struct cmd *c)
{
    const struct entry *e = store_random(c->store, c->db);

    session_hold(c->session, e != NULL ? entry_lsn(e) : store_absent_lsn(c->store));
    if (e == NULL)
        reply_null(c);
    else
        reply_bulk(c, entry_key(e));
}

struct keys_walk {
    struct cmd *c;
    struct bytes pattern;
    uint64_t count;
};

static void keys_each(void *arg, struct entry *e)
{
    struct keys_walk *walk = arg;

    if (!glob_matches(walk->pattern, entry_key(e), false))
        return;
    session_hold(walk->c->session, entry_lsn(e));
    reply_bulk(walk->c, entry_key(e));
    walk->count++;
}

void cmd_keys(struct cmd *c)
{
    struct keys_walk walk = {.c = c, .pattern = c->argv[1]};
    uint64_t cursor = 0;

    session_hold(c->session, store_absent_lsn(c->store));
    reply_count_later(c);
    do
        cursor = store_scan(c->store, c->db, cursor, keys_each, &walk);
    while (cursor != 0);
    reply_count_array(c, walk.count);
}

void cmd_dbsize(struct cmd *c)
{
    session_hold(c->session, store_lsn(c->store));
    reply_integer(c, (int64_t)store_count(c->store, c->db));
}

static void flush(struct cmd *c, uint8_t db)
{
    if (c->argc > 2 || (c->argc == 2 && !arg_is(c, 1, "sync") && !arg_is(c, 1, "async")))
        reply_error(c, ERROR_SYNTAX);
    else if (cmd_stored(c, store_flush(c->store, db)))
        reply_ok(c);
}

void cmd_flushdb(struct cmd *c)
{
    flush(c, c->db);
}

void cmd_flushall(struct cmd *c)
{
    flush(c, STORE_DBS);
}

void cmd_swapdb(struct cmd *c)
{
    int64_t a, b;

    if (!arg_i64_range(c, 1, INT_MIN, INT_MAX, &a, "ERR invalid first DB index") ||
        !arg_i64_range(c, 2, INT_MIN, INT_MAX, &b, "ERR invalid second DB index"))
        return;
    if (a < 0 || a >= (int64_t)STORE_DBS || b < 0 || b >= (int64_t)STORE_DBS) {
        reply_error(c, "ERR DB index is out of range");
        return;
    }
    if (a != b) {
        if (!cmd_stored(c, store_swap(c->store, (uint8_t)a, (uint8_t)b)))
            return;
        engine_swapped(c->engine, (uint8_t)a, (uint8_t)b);
    }
    reply_ok(c);
}

/* ---- replicas ---- */

static void wait_over(struct cmd *c)
{
    reply_integer(c, 0);
}

/* A shard by itself has no replica that could answer: who wants one waits for the time he gave. */
void cmd_wait(struct cmd *c)
{
    int64_t timeout_ms, replicas;

    if (!bytes_to_i64(c->argv[2], &timeout_ms)) {
        reply_error(c, "ERR timeout is not an integer or out of range");
        return;
    }
    if (timeout_ms < 0) {
        reply_error(c, "ERR timeout is negative");
        return;
    }
    if (timeout_ms > INT64_MAX - (int64_t)c->now_ms) {
        reply_error(c, "ERR timeout is out of range");
        return;
    }
    if (!arg_i64(c, 1, &replicas))
        return;
    if (replicas <= 0)
        wait_over(c);
    else
        cmd_block(c, 1, 0, (uint64_t)timeout_ms, wait_over);
}
