/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory pressure: hot values go cold (store) or away (cache).
 *
 *   P1  A value goes cold only if its record can be read again: it has an address, and no chain of deltas.
 *       An object with a chain gets its image first.
 *   P2  Spilling changes neither LSN nor content; it writes nothing but images.
 */
#include "backend/store/store_private.h"

#include "common/base/mem.h"

#define SPILL_WORTH_BYTES 16u /* less is not gained by making a value cold */

int spill_create(struct store *store)
{
    MAYBE(store);
    return 0;
}

void spill_destroy(struct store *store)
{
    MAYBE(store);
}

void spill_inserted(struct store *store, uint64_t hash, struct entry *e, bool existed)
{
    MAYBE(store);
    MAYBE(hash);
    MAYBE(e);
    MAYBE(existed);
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

bool spill_work(struct store *store)
{
    MAYBE(store);
    return false;
}
