/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of hashes.
 */
#include "backend/cmd/engine.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/cmd/scan.h"
#include "backend/types/draw.h"
#include "backend/types/hash.h"

#include <math.h>

/* The hash of a command that reads; NULL: there is none, `key_read` said whether to go on. */
static bool hash_read(struct cmd *c, const struct object **out)
{
    struct store_key key;

    if (!key_read(c, c->argv[1], STORE_HASH, &key))
        return false;
    *out = key.entry != NULL ? entry_object(key.entry) : NULL;
    return true;
}

/* ---- reading -------------------------------------------------------------------------------- */

static void reply_field(struct cmd *c, const struct object *hash, struct bytes field)
{
    struct bytes value;

    if (hash != NULL && hash_get(hash, field, &value))
        reply_bulk(c, value);
    else
        reply_null(c);
}

void cmd_hget(struct cmd *c)
{
    const struct object *hash;

    if (hash_read(c, &hash))
        reply_field(c, hash, c->argv[2]);
}

void cmd_hmget(struct cmd *c)
{
    const struct object *hash;

    if (!hash_read(c, &hash))
        return;
    reply_array(c, c->argc - 2);
    for (uint32_t i = 2; i < c->argc; i++)
        reply_field(c, hash, c->argv[i]);
}

void cmd_hexists(struct cmd *c)
{
    const struct object *hash;
    struct bytes value;

    if (hash_read(c, &hash))
        reply_integer(c, hash != NULL && hash_get(hash, c->argv[2], &value));
}

void cmd_hstrlen(struct cmd *c)
{
    const struct object *hash;
    struct bytes value;

    if (hash_read(c, &hash))
        reply_integer(c, hash != NULL && hash_get(hash, c->argv[2], &value) ? (int64_t)value.len : 0);
}

void cmd_hlen(struct cmd *c)
{
    const struct object *hash;

    if (hash_read(c, &hash))
        reply_integer(c, hash != NULL ? (int64_t)hash_count(hash) : 0);
}

static void reply_pairs(struct cmd *c, const struct object *hash, bool fields, bool values)
{
    struct bytes field, value;
    struct hash_walk walk;

    if (hash == NULL)
        return;
    hash_walk_init(&walk, hash);
    while (hash_walk_next(&walk, &field, &value)) {
        if (fields)
            reply_bulk(c, field);
        if (values)
            reply_bulk(c, value);
    }
}

void cmd_hgetall(struct cmd *c)
{
    const struct object *hash;

    if (!hash_read(c, &hash))
        return;
    reply_map(c, hash != NULL ? hash_count(hash) : 0);
    reply_pairs(c, hash, true, true);
}

void cmd_hkeys(struct cmd *c)
{
    const struct object *hash;

    if (!hash_read(c, &hash))
        return;
    reply_array(c, hash != NULL ? hash_count(hash) : 0);
    reply_pairs(c, hash, true, false);
}

void cmd_hvals(struct cmd *c)
{
    const struct object *hash;

    if (!hash_read(c, &hash))
        return;
    reply_array(c, hash != NULL ? hash_count(hash) : 0);
    reply_pairs(c, hash, false, true);
}

static void scan_pair(void *arg, struct bytes field, struct bytes value)
{
    struct scan *scan = arg;

    if (scan_element(scan, field))
        reply_bulk(scan->c, value);
}

static uint64_t scan_step(struct scan *scan, const void *arg, uint64_t cursor)
{
    return hash_scan(arg, cursor, scan_pair, scan);
}

void cmd_hscan(struct cmd *c)
{
    const struct object *hash;
    struct scan scan;

    if (!scan_cursor(c, 2, &scan) || !hash_read(c, &hash))
        return;
    if (hash == NULL)
        scan_reply_empty(c);
    else if (scan_options(&scan, 3, false))
        scan_reply(&scan, 2, scan_step, hash);
}

/* ---- HRANDFIELD ----------------------------------------------------------------------------- */

struct random_reply {
    struct cmd *c;
    bool with_values;
};

static void reply_random_pair(void *arg, struct bytes field, struct bytes value)
{
    const struct random_reply *reply = arg;

    if (reply->with_values && reply->c->session->resp > 2)
        reply_array(reply->c, 2);
    reply_bulk(reply->c, field);
    if (reply->with_values)
        reply_bulk(reply->c, value);
}

/* RESP3 has an array of pairs, RESP2 a flat one. */
static void reply_random_count(const struct random_reply *reply, uint64_t count)
{
    reply_array(reply->c, reply->with_values && reply->c->session->resp == 2 ? 2 * count : count);
}

/* A negative count: so many draws, each from all fields. */
static void reply_random_draws(struct random_reply *reply, const struct object *hash, uint64_t count)
{
    uint64_t random = io_random64(reply->c->engine->io);

    reply_random_count(reply, count);
    for (; count > 0 && !reply->c->session->is_killed; count--) {
        struct bytes field, value;

        hash_random(hash, draw_u64(&random), &field, &value);
        reply_random_pair(reply, field, value);
    }
}

static void hrandfield_count(struct cmd *c, const struct object *hash, int64_t count, bool with_values)
{
    struct random_reply reply = {.c = c, .with_values = with_values};
    uint64_t wanted;

    if (hash == NULL || count == 0) {
        reply_array(c, 0);
        return;
    }
    if (count < 0) {
        reply_random_draws(&reply, hash, ~(uint64_t)count + 1);
        return;
    }
    wanted = MIN((uint64_t)count, hash_count(hash));
    reply_random_count(&reply, wanted);
    hash_sample(hash, wanted, io_random64(c->engine->io), reply_random_pair, &reply);
}

void cmd_hrandfield(struct cmd *c)
{
    const struct object *hash;
    struct bytes field, value;
    int64_t count = 0;

    if (c->argc > 2 && !arg_i64_range(c, 2, -INT64_MAX, INT64_MAX, &count, NULL))
        return;
    if (c->argc > 4 || (c->argc == 4 && !arg_is(c, 3, "withvalues"))) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (c->argc == 4 && (count < -(INT64_MAX / 2) || count > INT64_MAX / 2)) {
        reply_error(c, ERROR_RANGE);
        return;
    }
    if (!hash_read(c, &hash))
        return;
    if (c->argc > 2) {
        hrandfield_count(c, hash, count, c->argc == 4);
    } else if (hash == NULL) {
        reply_null(c);
    } else {
        hash_random(hash, io_random64(c->engine->io), &field, &value);
        reply_bulk(c, field);
    }
}

/* ---- changing ------------------------------------------------------------------------------- */

/* Sets the pairs argv[2..]; true: done and logged. */
static bool set_pairs(struct cmd *c, struct store_key *key, uint32_t *created)
{
    struct object *hash = store_object_open(c->store, key, STORE_HASH, true);
    uint32_t i;
    int err = 0;

    *created = 0;
    if (hash == NULL) {
        cmd_out_of_memory(c);
        return false;
    }
    for (i = 2; i < c->argc; i += 2) {
        bool is_new;

        err = hash_set(hash, c->argv[i], c->argv[i + 1], &is_new);
        if (err != 0)
            break;
        *created += is_new;
    }
    /* What was done is logged, also when memory ran out in the middle. */
    if (i > 2)
        effect_begin(store_effects(c->store), HASH_EFFECT_SET, i - 2);
    for (uint32_t done = 2; done < i; done++)
        effect_bytes(store_effects(c->store), c->argv[done]);
    if (!cmd_stored(c, store_change(c->store, key)))
        return false;
    if (i > 2)
        notify(c, NOTIFY_HASH, "hset", key->name);
    return cmd_stored(c, err);
}

static bool has_pairs(struct cmd *c)
{
    if (c->argc % 2 == 0)
        return true;
    reply_error_format(c, "ERR wrong number of arguments for '%s' command", c->info->name);
    return false;
}

void cmd_hset(struct cmd *c)
{
    struct store_key key;
    uint32_t created;

    if (has_pairs(c) && key_write(c, c->argv[1], STORE_HASH, &key) && set_pairs(c, &key, &created))
        reply_integer(c, created);
}

void cmd_hmset(struct cmd *c)
{
    struct store_key key;
    uint32_t created;

    if (has_pairs(c) && key_write(c, c->argv[1], STORE_HASH, &key) && set_pairs(c, &key, &created))
        reply_ok(c);
}

void cmd_hsetnx(struct cmd *c)
{
    struct store_key key;
    struct bytes value;
    uint32_t created;

    if (!key_write(c, c->argv[1], STORE_HASH, &key))
        return;
    if (key.entry != NULL && hash_get(entry_object(key.entry), c->argv[2], &value))
        reply_integer(c, 0);
    else if (set_pairs(c, &key, &created))
        reply_integer(c, 1);
}

void cmd_hdel(struct cmd *c)
{
    struct object *hash;
    struct store_key key;
    int64_t deleted = 0;

    if (!key_write(c, c->argv[1], STORE_HASH, &key))
        return;
    hash = key.entry != NULL ? store_object_open(c->store, &key, STORE_HASH, false) : NULL;
    for (uint32_t i = 2; hash != NULL && i < c->argc; i++)
        deleted += hash_delete(hash, c->argv[i]);
    if (deleted > 0) {
        effect_begin(store_effects(c->store), HASH_EFFECT_DELETE, c->argc - 2);
        for (uint32_t i = 2; i < c->argc; i++)
            effect_bytes(store_effects(c->store), c->argv[i]);
    }
    if (hash != NULL && !cmd_stored(c, store_change(c->store, &key)))
        return;
    if (deleted > 0)
        notify_change(c, NOTIFY_HASH, "hdel", &key);
    reply_integer(c, deleted);
}

/* The result of an increment takes the place of argv[2]'s value; it is what is logged. */
static bool set_result(struct cmd *c, struct store_key *key, struct bytes value, const char *event)
{
    struct object *hash = store_object_open(c->store, key, STORE_HASH, true);
    bool is_new;
    int err;

    if (hash == NULL) {
        cmd_out_of_memory(c);
        return false;
    }
    err = hash_set(hash, c->argv[2], value, &is_new);
    if (err == 0) {
        effect_begin(store_effects(c->store), HASH_EFFECT_SET, 2);
        effect_bytes(store_effects(c->store), c->argv[2]);
        effect_bytes(store_effects(c->store), value);
    }
    if (!cmd_stored(c, store_change(c->store, key)) || !cmd_stored(c, err))
        return false;
    notify(c, NOTIFY_HASH, event, key->name);
    return true;
}

void cmd_hincrby(struct cmd *c)
{
    struct store_key key;
    struct bytes value;
    int64_t number = 0, increment;
    char digits[21];

    if (!arg_i64(c, 3, &increment) || !key_write(c, c->argv[1], STORE_HASH, &key))
        return;
    if (key.entry != NULL && hash_get(entry_object(key.entry), c->argv[2], &value) &&
        !bytes_to_i64(value, &number)) {
        reply_error(c, "ERR hash value is not an integer");
        return;
    }
    if (__builtin_add_overflow(number, increment, &number)) {
        reply_error(c, "ERR increment or decrement would overflow");
        return;
    }
    if (set_result(c, &key, bytes_of(digits, i64_to_digits(number, digits)), "hincrby"))
        reply_integer(c, number);
}

void cmd_hincrbyfloat(struct cmd *c)
{
    struct store_key key;
    struct bytes value;
    long double number = 0, increment;
    char text[5 * 1024];

    if (!parse_long_double(c->argv[3], &increment)) {
        reply_error(c, ERROR_FLOAT);
        return;
    }
    if (isnan(increment) || isinf(increment)) {
        reply_error(c, "ERR value is NaN or Infinity");
        return;
    }
    if (!key_write(c, c->argv[1], STORE_HASH, &key))
        return;
    if (key.entry != NULL && hash_get(entry_object(key.entry), c->argv[2], &value) &&
        !parse_long_double(value, &number)) {
        reply_error(c, "ERR hash value is not a float");
        return;
    }
    number += increment;
    if (isnan(number) || isinf(number)) {
        reply_error(c, "ERR increment would produce NaN or Infinity");
        return;
    }
    value = bytes_of(text, format_human_double(number, text));
    if (set_result(c, &key, value, "hincrbyfloat"))
        reply_bulk(c, value);
}
