/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET, SET and their like. A Redis SET clears memcache's flags; what changes a value in place keeps them, as it
 * keeps the time to live.
 */
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/cmd/string_edit.h"

#include <math.h>

/* ---- options of SET and GETEX ---- */

enum {
    SET_NX = 1 << 0,
    SET_XX = 1 << 1,
    SET_GET = 1 << 2,
    SET_KEEPTTL = 1 << 3,
    SET_PERSIST = 1 << 4,
    SET_EX = 1 << 5,
    SET_PX = 1 << 6,
    SET_EXAT = 1 << 7,
    SET_PXAT = 1 << 8,
};
#define SET_TIMES (SET_EX | SET_PX | SET_EXAT | SET_PXAT)

struct set_options {
    uint32_t flags;
    uint32_t time_at; /* argument with the time; 0: none */
};

/* A word: what it sets, what must not be there before it, which command has it. */
static const struct set_word {
    const char *word;
    uint32_t flag, excludes;
    bool in_set, in_get, has_time;
} set_words[] = {
    {"nx", SET_NX, SET_XX, true, false, false},
    {"xx", SET_XX, SET_NX, true, false, false},
    {"get", SET_GET, 0, true, false, false},
    {"keepttl", SET_KEEPTTL, SET_PERSIST | SET_TIMES, true, false, false},
    {"persist", SET_PERSIST, SET_KEEPTTL | SET_TIMES, false, true, false},
    {"ex", SET_EX, SET_KEEPTTL | SET_PERSIST | (SET_TIMES & ~SET_EX), true, true, true},
    {"px", SET_PX, SET_KEEPTTL | SET_PERSIST | (SET_TIMES & ~SET_PX), true, true, true},
    {"exat", SET_EXAT, SET_KEEPTTL | SET_PERSIST | (SET_TIMES & ~SET_EXAT), true, true, true},
    {"pxat", SET_PXAT, SET_KEEPTTL | SET_PERSIST | (SET_TIMES & ~SET_PXAT), true, true, true},
};

static const struct set_word *set_word_find(struct cmd *c, uint32_t i, bool is_get)
{
    for (size_t w = 0; w < ARRAY_COUNT(set_words); w++)
        if ((is_get ? set_words[w].in_get : set_words[w].in_set) && arg_is(c, i, set_words[w].word))
            return &set_words[w];
    return NULL;
}

static bool set_options_parse(struct cmd *c, uint32_t first, bool is_get, struct set_options *out)
{
    *out = (struct set_options){0};
    for (uint32_t i = first; i < c->argc; i++) {
        const struct set_word *word = set_word_find(c, i, is_get);

        if (word == NULL || (out->flags & word->excludes) != 0 || (word->has_time && i + 1 == c->argc)) {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
        out->flags |= word->flag;
        if (word->has_time)
            out->time_at = ++i;
    }
    return true;
}

/* The argument as milliseconds of the epoch. */
static bool set_time(struct cmd *c, uint32_t at, uint32_t flags, int64_t *out)
{
    bool in_seconds = (flags & (SET_EX | SET_EXAT)) != 0;
    int64_t ms;

    if (!arg_i64(c, at, &ms))
        return false;
    if (ms <= 0 || (in_seconds && ms > INT64_MAX / 1000))
        goto invalid;
    if (in_seconds)
        ms *= 1000;
    if ((flags & (SET_EX | SET_PX)) != 0 && __builtin_add_overflow(ms, (int64_t)c->now_ms, &ms))
        goto invalid;
    *out = ms;
    return true;
invalid:
    reply_error_format(c, "ERR invalid expire time in '%s' command", c->info->name);
    return false;
}

/* ---- SET ---- */

/* expire_ms 0: never. A time that is over removes the key at once. */
static bool set_store(struct cmd *c, struct store_key *key, struct bytes value,
                      struct store_attributes attributes, bool has_time)
{
    bool is_over = UNLIKELY(attributes.expire_ms != 0) && attributes.expire_ms <= c->now_ms;
    int err = is_over ? store_delete(c->store, key) : store_put_string(c->store, key, value, &attributes);

    if (UNLIKELY(!cmd_stored(c, err)))
        return false;
    notify(c, NOTIFY_STRING, "set", key->name);
    if (has_time)
        notify(c, NOTIFY_GENERIC, "expire", key->name);
    if (is_over)
        notify(c, NOTIFY_EXPIRED, "expired", key->name);
    return true;
}

static void reply_string(struct cmd *c, const struct store_key *key)
{
    if (key->entry == NULL)
        reply_null(c);
    else
        reply_bulk_value(c, key->entry);
}

void cmd_set(struct cmd *c)
{
    struct set_options options = {0};
    struct store_attributes attributes = {0};
    struct store_key key;
    int64_t at_ms;

    if (c->argc > 3) {
        if (!set_options_parse(c, 3, false, &options))
            return;
        if (options.time_at != 0) {
            if (!set_time(c, options.time_at, options.flags, &at_ms))
                return;
            attributes.expire_ms = (uint64_t)at_ms;
        }
    }
    if (!key_write(c, c->argv[1], (options.flags & SET_GET) ? STORE_STRING : STORE_NONE, &key))
        return;
    if (options.flags & SET_GET)
        reply_string(c, &key);
    if (key.entry != NULL ? (options.flags & SET_NX) : (options.flags & SET_XX)) {
        if (!(options.flags & SET_GET))
            reply_null(c);
        return;
    }
    if ((options.flags & SET_KEEPTTL) && key.entry != NULL)
        attributes.expire_ms = entry_expire_ms(key.entry);
    if (set_store(c, &key, c->argv[2], attributes, options.time_at != 0) && !(options.flags & SET_GET))
        reply_ok(c);
}

void cmd_setnx(struct cmd *c)
{
    struct store_key key;

    if (!key_write(c, c->argv[1], STORE_NONE, &key))
        return;
    if (key.entry != NULL)
        reply_integer(c, 0);
    else if (set_store(c, &key, c->argv[2], (struct store_attributes){0}, false))
        reply_integer(c, 1);
}

static void set_with_time(struct cmd *c, uint32_t unit)
{
    struct store_key key;
    int64_t at_ms;

    if (set_time(c, 2, unit, &at_ms) && key_write(c, c->argv[1], STORE_NONE, &key) &&
        set_store(c, &key, c->argv[3], (struct store_attributes){.expire_ms = (uint64_t)at_ms}, true))
        reply_ok(c);
}

void cmd_setex(struct cmd *c)
{
    set_with_time(c, SET_EX);
}

void cmd_psetex(struct cmd *c)
{
    set_with_time(c, SET_PX);
}

static bool mset_arguments_fit(struct cmd *c)
{
    if (c->argc % 2 == 1)
        return true;
    reply_error_format(c, "ERR wrong number of arguments for '%s' command", c->info->name);
    return false;
}

static bool mset_store(struct cmd *c)
{
    for (uint32_t i = 1; i < c->argc; i += 2) {
        struct store_key key;

        if (!key_write(c, c->argv[i], STORE_NONE, &key) ||
            !set_store(c, &key, c->argv[i + 1], (struct store_attributes){0}, false))
            return false;
    }
    return true;
}

void cmd_mset(struct cmd *c)
{
    if (mset_arguments_fit(c) && mset_store(c))
        reply_ok(c);
}

void cmd_msetnx(struct cmd *c)
{
    if (!mset_arguments_fit(c))
        return;
    for (uint32_t i = 1; i < c->argc; i += 2) {
        struct store_key key;

        if (!key_write(c, c->argv[i], STORE_NONE, &key))
            return;
        if (key.entry != NULL) {
            reply_integer(c, 0);
            return;
        }
    }
    if (mset_store(c))
        reply_integer(c, 1);
}

void cmd_getset(struct cmd *c)
{
    struct store_key key;

    if (!key_write(c, c->argv[1], STORE_STRING, &key))
        return;
    reply_string(c, &key);
    (void)set_store(c, &key, c->argv[2], (struct store_attributes){0}, false);
}

/* ---- GET ---- */

void cmd_get(struct cmd *c)
{
    struct store_key key;

    if (key_read(c, c->argv[1], STORE_STRING, &key))
        reply_string(c, &key);
}

/* Their lines come together, and are not yet pushed out when their turn comes. */
#define PREFETCH_KEYS 16u

static void keys_prefetch(struct cmd *c, uint32_t first, uint32_t count)
{
    uint64_t hashes[PREFETCH_KEYS];

    for (uint32_t i = 0; i < count; i++)
        hashes[i] = store_prefetch(c->store, c->db, c->argv[first + i]);
    for (uint32_t i = 0; i < count; i++)
        store_prefetch_entry(c->store, hashes[i]);
    for (uint32_t i = 0; i < count; i++)
        store_prefetch_chain(c->store, hashes[i]);
}

void cmd_mget(struct cmd *c)
{
    reply_array(c, c->argc - 1);
    for (uint32_t i = 1; i < c->argc; i++) {
        struct store_key key;

        if (i % PREFETCH_KEYS == 1)
            keys_prefetch(c, i, MIN(PREFETCH_KEYS, c->argc - i));
        if (!key_read(c, c->argv[i], STORE_NONE, &key))
            return;
        if (key.entry != NULL && entry_type(key.entry) == STORE_STRING)
            reply_bulk_value(c, key.entry);
        else
            reply_null(c);
    }
}

void cmd_getdel(struct cmd *c)
{
    struct store_key key;

    if (!key_write(c, c->argv[1], STORE_STRING, &key))
        return;
    reply_string(c, &key);
    if (key.entry != NULL && cmd_stored(c, store_delete(c->store, &key)))
        notify(c, NOTIFY_GENERIC, "del", key.name);
}

void cmd_getex(struct cmd *c)
{
    struct set_options options;
    struct store_key key;
    int64_t at_ms;

    if (!set_options_parse(c, 2, true, &options) || !key_write(c, c->argv[1], STORE_STRING, &key))
        return;
    if (key.entry == NULL) {
        reply_null(c);
        return;
    }
    if (options.time_at != 0 && !set_time(c, options.time_at, options.flags, &at_ms))
        return;
    reply_bulk_value(c, key.entry);
    if (options.time_at != 0) {
        if (key_expire_at(c, &key, at_ms))
            notify(c, NOTIFY_GENERIC, key.entry == NULL ? "del" : "expire", key.name);
    } else if ((options.flags & SET_PERSIST) && entry_expire_ms(key.entry) != 0) {
        if (cmd_stored(c, store_set_expire(c->store, &key, 0)))
            notify(c, NOTIFY_GENERIC, "persist", key.name);
    }
}

void cmd_strlen(struct cmd *c)
{
    struct store_key key;

    if (key_read(c, c->argv[1], STORE_STRING, &key))
        reply_integer(c, (int64_t)key_string(&key).len);
}

void cmd_getrange(struct cmd *c)
{
    struct store_key key;
    struct bytes value;
    int64_t start, end, len;

    if (!arg_i64(c, 2, &start) || !arg_i64(c, 3, &end) || !key_read(c, c->argv[1], STORE_STRING, &key))
        return;
    value = key_string(&key);
    len = (int64_t)value.len;
    if (start < 0 && end < 0 && start > end) {
        reply_bulk(c, BYTES_EMPTY);
        return;
    }
    if (start < 0)
        start = MAX(start + len, (int64_t)0);
    if (end < 0)
        end = MAX(end + len, (int64_t)0);
    end = MIN(end, len - 1);
    if (start > end)
        reply_bulk(c, BYTES_EMPTY);
    else
        reply_bulk(c, bytes_of(value.data + start, (size_t)(end - start + 1)));
}

void cmd_substr(struct cmd *c)
{
    cmd_getrange(c);
}

/* ---- parts ---- */

void cmd_append(struct cmd *c)
{
    struct store_key key;
    size_t len;

    if (!key_write(c, c->argv[1], STORE_STRING, &key))
        return;
    if (key.entry != NULL && !string_size_fits(c, key_string(&key).len, c->argv[2].len))
        return;
    if (!string_edit_append(c, &key, c->argv[2], &len))
        return;
    notify(c, NOTIFY_STRING, "append", key.name);
    reply_integer(c, (int64_t)len);
}

void cmd_setrange(struct cmd *c)
{
    struct string_edit edit;
    struct store_key key;
    struct bytes value = c->argv[3];
    int64_t off;

    if (!arg_i64(c, 2, &off))
        return;
    if (off < 0) {
        reply_error(c, "ERR offset is out of range");
        return;
    }
    if (!key_write(c, c->argv[1], STORE_STRING, &key))
        return;
    if (value.len == 0) {
        reply_integer(c, (int64_t)key_string(&key).len);
        return;
    }
    if (!string_size_fits(c, (uint64_t)off, value.len) ||
        !string_edit_begin(&edit, c, &key, (size_t)off + value.len))
        return;
    string_edit_write(&edit, (size_t)off, value);
    if (!string_edit_end(&edit))
        return;
    notify(c, NOTIFY_STRING, "setrange", key.name);
    reply_integer(c, (int64_t)edit.len);
}

/* ---- numbers ---- */

static void increment(struct cmd *c, int64_t by)
{
    struct store_attributes attributes;
    struct store_key key;
    char digits[21];
    int64_t value = 0;

    if (!key_write(c, c->argv[1], STORE_STRING, &key))
        return;
    if (key.entry != NULL && !bytes_to_i64(store_string(key.entry), &value)) {
        reply_error(c, ERROR_INTEGER);
        return;
    }
    if (__builtin_add_overflow(value, by, &value)) {
        reply_error(c, "ERR increment or decrement would overflow");
        return;
    }
    attributes = key_attributes(&key);
    if (!cmd_stored(c, store_put_string(c->store, &key, bytes_of(digits, i64_to_digits(value, digits)),
                                        &attributes)))
        return;
    notify(c, NOTIFY_STRING, "incrby", key.name);
    reply_integer(c, value);
}

void cmd_incr(struct cmd *c)
{
    increment(c, 1);
}

void cmd_decr(struct cmd *c)
{
    increment(c, -1);
}

void cmd_incrby(struct cmd *c)
{
    int64_t by;

    if (arg_i64(c, 2, &by))
        increment(c, by);
}

void cmd_decrby(struct cmd *c)
{
    int64_t by;

    if (!arg_i64(c, 2, &by))
        return;
    if (by == INT64_MIN)
        reply_error(c, "ERR decrement would overflow");
    else
        increment(c, -by);
}

void cmd_incrbyfloat(struct cmd *c)
{
    struct store_attributes attributes;
    struct store_key key;
    struct bytes text;
    char digits[FORMAT_HUMAN_DOUBLE_MAX];
    long double value = 0, by;

    if (!key_write(c, c->argv[1], STORE_STRING, &key))
        return;
    if ((key.entry != NULL && !parse_long_double(store_string(key.entry), &value)) ||
        !parse_long_double(c->argv[2], &by)) {
        reply_error(c, ERROR_FLOAT);
        return;
    }
    value += by;
    if (isnan(value) || isinf(value)) {
        reply_error(c, "ERR increment would produce NaN or Infinity");
        return;
    }
    attributes = key_attributes(&key);
    attributes.form = FORM_TEXT;
    text = bytes_of(digits, format_human_double(value, digits));
    if (!cmd_stored(c, store_put_string(c->store, &key, text, &attributes)))
        return;
    notify(c, NOTIFY_STRING, "incrbyfloat", key.name);
    reply_bulk(c, text);
}
