/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory pressure: hot values go cold (store) or away (cache).
 *
 *   P1  A value goes cold only if its record can be read again: it has an address, and no chain of deltas.
 *       An object with a chain gets its image first.
 *   P2  Spilling changes neither LSN nor content; it writes nothing but images.
 *   P3  What is being freed already is not there any more: nothing else goes in its place. But it is freed faster.
 */
#include "backend/store/residency.h"
#include "backend/store/store_private.h"

#include "common/base/mem.h"

#define SPILL_BUDGET      2000u /* entries a step looks at, */
#define SPILL_LOOK        64u   /* so many between two looks at the clock, */
#define SPILL_US          200u  /* while memory is over by less than */
#define SPILL_LATE_SHARE  32u   /* 1 / that */
#define SPILL_DYING       2000u /* elements of what is being freed */
#define COLD_ENTRY_BYTES  64u /* with its place in the index, about */
#define SPILL_WORTH_BYTES 16u /* less is not gained by making a value cold */

int spill_create(struct store *store)
{
    return residency_create(store->index, &store->residency);
}

void spill_destroy(struct store *store)
{
    residency_destroy(&store->residency);
}

/* A cache's entries are cold after a start. They are small, but when they take half of the memory some must go. */
static bool spill_cold_is_much(const struct store *store)
{
    bool is_any = false;

    for (uint8_t db = 0; db < STORE_DBS; db++)
        is_any |= store->options.namespaces[db].is_cache;
    return is_any && store->cold_count * COLD_ENTRY_BYTES > store->options.memory_max / 2;
}

static void spill_pressure(struct store *store)
{
    residency_offer_cold(store->residency, spill_cold_is_much(store));
    residency_pressure_set(store->residency, store_memory_staying(store), store->options.memory_max,
                           index_count(store->index) - store->cold_count);
}

void spill_inserted(struct store *store, uint64_t hash, struct entry *e)
{
    size_t size = slab_charge(entry_size(e));

    if (entry_is_object(e))
        size += entry_object(e)->accounted_bytes;
    if (residency_inserted(store->residency, hash, size))
        e->type_flags |= ENTRY_MAIN;
    else
        e->type_flags &= (uint8_t)~ENTRY_MAIN;
}

size_t spill_entry(struct store *store, uint64_t hash, struct entry **e)
{
    struct entry_parts parts;
    struct object *object = NULL;
    size_t before = slab_charge(entry_size(*e)), gained;
    /* The key lies in the entry that goes away. */
    struct bytes key = entry_key(*e);
    uint64_t value_len;

    if (entry_is_cold(*e) || store->log == NULL)
        return 0;
    if (entry_is_object(*e)) {
        object = entry_object(*e);
        if (object->base_lsn == 0)
            return 0;
        if (object->image_lsn != entry_lsn(*e) && store_image(store, hash, *e) != 0)
            return 0;
        value_len = object->image_bytes;
        before += object->accounted_bytes;
    } else {
        value_len = entry_value_len(*e);
        if (value_len < SPILL_WORTH_BYTES)
            return 0;
    }
    ASSERT((*e)->address != 0); /* P1 */
    entry_parts_of(*e, &parts);
    buffer_clear(&store->scratch);
    buffer_append(&store->scratch, key.data, key.len);
    if (store->scratch.failed)
        return 0;
    parts.key = buffer_bytes(&store->scratch);
    parts.is_cold = true;
    parts.is_main = false;
    parts.object = NULL;
    parts.value = bytes_of("", MIN(value_len, (uint64_t)ENTRY_VALUE_LEN_MAX));
    if (store_entry_put(store, hash, e, &parts) != 0)
        return 0;
    if (object != NULL)
        store_object_destroy(store, object);
    store->stats.spills++;
    gained = before - MIN(before, slab_charge(entry_size(*e)));
    return gained;
}

/* In a cache it goes away; elsewhere it goes cold. */
static uint64_t spill_victim(void *arg, struct entry *e)
{
    struct store *store = arg;
    struct store_key key = {.name = entry_key(e), .db = entry_db(e), .entry = e};
    uint64_t before = store_memory_staying(store), after;

    if (e == store->open_key.entry)
        return 0;
    key.hash = index_hash(store->index, key.db, key.name);
    if (store->options.namespaces[store->names[key.db]].is_cache) {
        if (!store_is_flushed(store, e) && store_evict(store, &key) != 0)
            return 0;
        store->stats.evictions++;
    } else {
        spill_entry(store, key.hash, &e);
    }
    after = store_memory_staying(store);
    return before > after ? before - after : 0;
}

static void spill_each(void *arg, struct entry *e)
{
    struct store *store = arg;

    if (e != store->open_key.entry && !store_is_flushed(store, e))
        spill_entry(store, index_hash(store->index, entry_db(e), entry_key(e)), &e);
}

void store_spill_all(struct store *store)
{
    uint64_t at = 0;

    do
        at = index_sweep(store->index, at, spill_each, store);
    while (at != 0);
}

/* True: something is to be chosen. */
static bool spill_begin(struct store *store)
{
    uint64_t max = store->options.memory_max;

    spill_pressure(store);
    if (LIKELY(max == 0 || store_memory_bytes(store) <= max))
        return false;
    MAYBE(store_dying_work(store, SPILL_DYING));
    return store_memory_staying(store) > max && store->hot_holds == 0;
}

static uint64_t spill_some(struct store *store, uint32_t budget)
{
    uint64_t need = store_memory_staying(store) - store->options.memory_max;

    return residency_spill(store->residency, need, budget, spill_victim, store);
}

bool spill_step(struct store *store, uint32_t budget)
{
    return spill_begin(store) && spill_some(store, budget) > 0;
}

/* Where memory is far away an entry may cost microseconds. What is left over then, other turns see to; who is much over
 * has no time to lose (store_is_memory_full() is at twice that). */
bool spill_turn(struct store *store, uint32_t budget)
{
    uint64_t max = store->options.memory_max, until_us;
    bool is_any = false;

    if (!spill_begin(store))
        return false;
    if (store_memory_bytes(store) > max + max / SPILL_LATE_SHARE)
        return spill_some(store, budget) > 0;
    until_us = io_clock_us(store->io) + SPILL_US;
    do {
        is_any |= spill_some(store, MIN(budget, SPILL_LOOK)) > 0;
        budget -= MIN(budget, SPILL_LOOK);
    } while (budget > 0 && store_memory_staying(store) > max && io_clock_us(store->io) < until_us);
    return is_any;
}

bool spill_work(struct store *store)
{
    return spill_turn(store, SPILL_BUDGET);
}

void store_expiry_pause(struct store *store, bool paused)
{
    store->is_expiry_paused = paused;
}
