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

static bool hll_store(struct cmd *c, struct store_key *key, const struct hll *hll)
{
    struct store_attributes attributes = key_attributes(key);

    if (!cmd_stored(c, store_put_string(c->store, key, hll_bytes(hll), &attributes)))
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
    struct store_attributes attributes = key_attributes(key);
    struct hll hll;

    if (store_may_write(c->store, false) != 0 || hll_load(&hll, store_string(key->entry)) != 0)
        return;
    hll_cache_set(&hll, count);
    if (store_put_string(c->store, key, hll_bytes(&hll), &attributes) == 0)
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
