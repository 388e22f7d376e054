/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/hyperloglog.h"

#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/cmd/string_edit.h"

#define ERROR_HLL_CORRUPT "INVALIDOBJ Corrupted HLL object detected"

/* False: not a string, or not a HyperLogLog: the error was replied. An absent key is an empty one. */
static bool hll_fits(struct cmd *c, const struct store_key *key)
{
    if (key->entry == NULL || hll_is_valid(store_string(key->entry)))
        return true;
    reply_error(c, "WRONGTYPE Key is not a valid HyperLogLog string value.");
    return false;
}

static bool hll_read(struct cmd *c, uint32_t i, struct store_key *key)
{
    return key_read(c, c->argv[i], STORE_STRING, key) && hll_fits(c, key);
}

static bool hll_open(struct cmd *c, const struct store_key *key, struct hll *hll)
{
    if (hll_load(hll, key_string(key)) == 0)
        return true;
    cmd_out_of_memory(c);
    return false;
}

static struct store_attributes hll_attributes(const struct store_key *key)
{
    struct store_attributes attributes = key_attributes(key);

    attributes.form = FORM_RAW;
    return attributes;
}

static bool hll_store(struct cmd *c, struct store_key *key, const struct hll *hll)
{
    struct store_attributes attributes = hll_attributes(key);

    if (!cmd_stored(c, string_replace(c->store, key, hll_bytes(hll), &attributes)))
        return false;
    notify(c, NOTIFY_STRING, "pfadd", key->name);
    return true;
}

void cmd_pfadd(struct cmd *c)
{
    struct store_key key;
    struct hll hll;
    bool is_changed;

    if (!key_write(c, c->argv[1], STORE_STRING, &key) || !hll_fits(c, &key) || !hll_open(c, &key, &hll))
        return;
    is_changed = key.entry == NULL;
    for (uint32_t i = 2; i < c->argc; i++) {
        int changed = hll_add(&hll, c->argv[i]);

        if (changed < 0) {
            reply_error(c, ERROR_HLL_CORRUPT);
            goto out;
        }
        is_changed |= changed == 1;
    }
    if (is_changed) {
        hll_cache_invalidate(&hll);
        if (!hll_store(c, &key, &hll))
            goto out;
    }
    reply_integer(c, is_changed);
out:
    hll_deinit(&hll);
}

/* Every register's maximum over the keys from argument 1 on. */
static bool hll_union(struct cmd *c, uint8_t registers[HLL_REGISTERS], bool *any_dense)
{
    memset(registers, 0, HLL_REGISTERS);
    *any_dense = false;
    for (uint32_t i = 1; i < c->argc; i++) {
        struct store_key key;

        if (!hll_read(c, i, &key))
            return false;
        if (key.entry == NULL)
            continue;
        *any_dense |= hll_is_dense(store_string(key.entry));
        if (hll_merge(store_string(key.entry), registers) != 0) {
            reply_error(c, ERROR_HLL_CORRUPT);
            return false;
        }
    }
    return true;
}

/* The next PFCOUNT need not count again. It is worth a record, but no error: a shard that may not write
 * goes on counting. */
static void hll_cache(struct cmd *c, struct store_key *key, uint64_t count)
{
    struct store_attributes attributes = hll_attributes(key);
    struct hll hll;

    if (store_may_write(c->store, 0) != 0 || hll_load(&hll, store_string(key->entry)) != 0)
        return;
    hll_cache_set(&hll, count);
    if (string_replace(c->store, key, hll_bytes(&hll), &attributes) == 0)
        session_hold(c->session, store_lsn(c->store));
    hll_deinit(&hll);
}

void cmd_pfcount(struct cmd *c)
{
    uint8_t registers[HLL_REGISTERS];
    struct store_key key;
    uint64_t count = 0;
    bool any_dense;

    if (c->argc > 2) {
        if (hll_union(c, registers, &any_dense))
            reply_integer(c, (int64_t)hll_count_registers(registers));
        return;
    }
    if (!hll_read(c, 1, &key))
        return;
    if (key.entry != NULL && !hll_cached(store_string(key.entry), &count)) {
        if (hll_count(store_string(key.entry), &count) != 0) {
            reply_error(c, ERROR_HLL_CORRUPT);
            return;
        }
        hll_cache(c, &key, count);
    }
    reply_integer(c, (int64_t)count);
}

void cmd_pfmerge(struct cmd *c)
{
    uint8_t registers[HLL_REGISTERS];
    struct store_key key;
    struct hll hll;
    bool any_dense;

    if (!hll_union(c, registers, &any_dense) || !key_write(c, c->argv[1], STORE_STRING, &key) ||
        !hll_open(c, &key, &hll))
        return;
    if (any_dense && hll_make_dense(&hll) != 0) {
        reply_error(c, ERROR_HLL_CORRUPT);
        goto out;
    }
    hll_raise(&hll, registers);
    hll_cache_invalidate(&hll);
    if (hll_store(c, &key, &hll))
        reply_ok(c);
out:
    hll_deinit(&hll);
}

/* ---- for those who look inside ---- */

static void debug_decode(struct cmd *c, struct bytes string)
{
    const unsigned char *at = (const unsigned char *)string.data + HLL_HEADER_SIZE;
    const unsigned char *end = (const unsigned char *)string.data + string.len;
    struct buffer out = {0};

    if (hll_is_dense(string)) {
        reply_error(c, "ERR HLL encoding is not sparse");
        return;
    }
    while (at < end) {
        const char *blank = out.len > 0 ? " " : "";

        if ((*at & 0xc0) == 0) {
            buffer_append_format(&out, "%sz:%u", blank, (*at & 0x3fu) + 1);
            at++;
        } else if ((*at & 0xc0) == 0x40 && at + 1 < end) {
            buffer_append_format(&out, "%sZ:%u", blank, ((*at & 0x3fu) << 8 | at[1]) + 1);
            at += 2;
        } else {
            buffer_append_format(&out, "%sv:%u,%u", blank, (*at >> 2 & 0x1fu) + 1, (*at & 3u) + 1);
            at++;
        }
    }
    if (out.failed)
        cmd_out_of_memory(c);
    else
        reply_bulk(c, buffer_bytes(&out));
    buffer_deinit(&out);
}

/* True: it is dense now, *changed says whether it was not before. False: the error was replied. */
static bool debug_make_dense(struct cmd *c, struct store_key *key, bool *changed)
{
    struct store_attributes attributes = hll_attributes(key);
    struct hll hll;
    bool is_done = false;

    *changed = !hll_is_dense(store_string(key->entry));
    if (!*changed)
        return true;
    if (!hll_open(c, key, &hll))
        return false;
    if (hll_make_dense(&hll) != 0)
        reply_error(c, ERROR_HLL_CORRUPT);
    else
        is_done = cmd_stored(c, store_put_string(c->store, key, hll_bytes(&hll), &attributes));
    hll_deinit(&hll);
    return is_done;
}

static void debug_registers(struct cmd *c, struct store_key *key)
{
    uint8_t registers[HLL_REGISTERS] = {0};
    bool changed;

    if (!debug_make_dense(c, key, &changed))
        return;
    if (hll_merge(store_string(key->entry), registers) != 0) {
        reply_error(c, ERROR_HLL_CORRUPT);
        return;
    }
    reply_array(c, HLL_REGISTERS);
    for (uint32_t i = 0; i < HLL_REGISTERS; i++)
        reply_integer(c, registers[i]);
}

/* GETREG makes it dense, as Redis's does. */
void cmd_pfdebug(struct cmd *c)
{
    struct store_key key;
    bool changed;

    if (!key_write(c, c->argv[2], STORE_NONE, &key))
        return;
    if (key.entry == NULL)
        reply_error(c, "ERR The specified key does not exist");
    else if (entry_type(key.entry) != STORE_STRING)
        reply_error(c, ERROR_WRONGTYPE);
    else if (!hll_fits(c, &key))
        return;
    else if (arg_is(c, 1, "getreg"))
        debug_registers(c, &key);
    else if (arg_is(c, 1, "decode"))
        debug_decode(c, store_string(key.entry));
    else if (arg_is(c, 1, "encoding"))
        reply_status(c, hll_is_dense(store_string(key.entry)) ? "dense" : "sparse");
    else if (!arg_is(c, 1, "todense"))
        reply_error_format(c, "ERR Unknown PFDEBUG subcommand '%.*s'",
                           BYTES_ARG(bytes_first(c->argv[1], 128)));
    else if (debug_make_dense(c, &key, &changed))
        reply_integer(c, changed);
}

/* Adds numbers to a sparse and to a dense one: both must say the same, and be right within four standard errors
 * (1.04 / sqrt(16384)). */
static const char *self_test(struct hll *sparse, struct hll *dense)
{
    uint64_t by_sparse, by_dense;

    if (hll_make_dense(dense) != 0)
        return "ERR TESTFAILED an empty one cannot be made dense";
    for (uint64_t i = 1; i <= 10000; i++) {
        struct bytes element = bytes_of((const char *)&i, sizeof(i));
        double error;

        if (hll_add(sparse, element) < 0 || hll_add(dense, element) < 0)
            return "ERR TESTFAILED an element cannot be added";
        if (i != 10 && i != 100 && i != 1000 && i != 10000)
            continue;
        if (hll_count(hll_bytes(sparse), &by_sparse) != 0 || hll_count(hll_bytes(dense), &by_dense) != 0 ||
            by_sparse != by_dense)
            return "ERR TESTFAILED dense/sparse disagree";
        error = (double)by_dense - (double)i;
        if (error < 0)
            error = -error;
        if (error > 4 * 1.04 / 128 * (double)i + 1)
            return "ERR TESTFAILED Too big error";
    }
    return NULL;
}

void cmd_pfselftest(struct cmd *c)
{
    struct hll sparse = {0}, dense = {0};
    const char *error = NULL;

    if (hll_load(&sparse, BYTES_EMPTY) != 0 || hll_load(&dense, BYTES_EMPTY) != 0)
        cmd_out_of_memory(c);
    else if ((error = self_test(&sparse, &dense)) != NULL)
        reply_error(c, error);
    else
        reply_ok(c);
    hll_deinit(&sparse);
    hll_deinit(&dense);
}
