/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting again what the store counts as it goes.
 *
 *   U1  Keys, keys with a time to live and cold ones are those of the index.
 *   U2  Memory as accounted (S11): entries are what the slab has given out, objects what they said last and say now.
 *   U3  An entry's address names a segment that is there and that was not said to be empty (S5).
 *   U4  What lives in all segments is about what entries and the chains of objects name (S6). It is a hint: of one segment,
 *       as the deltas of a chain that ends are taken from where the chain began; of a record, as a time to live that came
 *       later counts as if it had had it. A flushed entry is counted for as long as its segment is there.
 */
#include "backend/store/store_private.h"

#include <stdio.h>

#define LIVE_SHARE 32u /* U4: so much of it may be wrong, */
#define LIVE_LEAST 4096u

struct audit {
    struct store *store;
    uint64_t counts[STORE_DBS], expiring[STORE_DBS];
    uint64_t cold_count, entry_bytes, object_bytes, live_bytes;
    uint64_t wrong_objects, lost_addresses; /* U2, U3 */
};

static bool address_is_there(struct store *store, uint64_t address)
{
    const struct segment_info *segment = store_log_segment_find(store->log, address_sequence(address));

    return segment != NULL && segment->state != SEGMENT_FREE && segment->state != SEGMENT_CLEANED && !segment->is_emptied;
}

static void audit_object(struct audit *audit, const struct object *object)
{
    uint64_t bytes = audit->store->options.types[object->type]->bytes(object);

    audit->object_bytes += object->accounted_bytes;
    audit->wrong_objects += bytes != object->accounted_bytes;
    if (object->chain_sequence != 0)
        audit->live_bytes += object->delta_bytes;
}

static void audit_each(void *arg, struct entry *e)
{
    struct audit *audit = arg;
    struct store *store = audit->store;
    uint8_t db = entry_db(e);

    audit->entry_bytes += slab_charge(entry_size(e));
    if (entry_is_object(e))
        audit_object(audit, entry_object(e));
    if (store->log != NULL && e->address != 0) {
        if (!store_is_flushed(store, e) || store_log_segment_find(store->log, address_sequence(e->address)) != NULL)
            audit->live_bytes += store_record_bytes(e);
        audit->lost_addresses += !store_is_flushed(store, e) && !address_is_there(store, e->address);
    }
    audit->cold_count += entry_is_cold(e);
    if (store_is_flushed(store, e))
        return;
    audit->counts[db]++;
    audit->expiring[db] += (e->type_flags & ENTRY_EXPIRES) != 0;
}

static uint64_t live_bytes(struct store *store)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; store->log != NULL && i < store_log_segment_count(store->log); i++)
        bytes += store_log_segment(store->log, i)->live_bytes;
    return bytes;
}

static bool is_equal(const char *what, uint64_t counted, uint64_t found, char *why, size_t size)
{
    if (counted != found)
        snprintf(why, size, "%s: counted %llu, found %llu", what, (unsigned long long)counted, (unsigned long long)found);
    return counted == found;
}

static bool keys_are_equal(const struct audit *audit, char *why, size_t size)
{
    const struct store *store = audit->store;

    for (uint8_t db = 0; db < STORE_DBS; db++)
        if (!is_equal("keys", store->counts[db], audit->counts[db], why, size) ||
            !is_equal("keys with a time to live", store->expiring[db], audit->expiring[db], why, size))
            return false;
    return is_equal("cold keys", store->cold_count, audit->cold_count, why, size);
}

static bool live_is_about(const struct audit *audit, char *why, size_t size)
{
    uint64_t counted = live_bytes(audit->store), found = audit->live_bytes, most = found / LIVE_SHARE + LIVE_LEAST;

    if (audit->store->chains != NULL) /* of cold objects, as recovery found them: they are not in the entries */
        return true;
    return counted + most >= found && counted <= found + most ? true : is_equal("live bytes", counted, found, why, size);
}

static void hot_each(void *arg, struct entry *e)
{
    uint64_t *count = arg;

    *count += !entry_is_cold(e);
}

static uint64_t hot_count(struct index *index)
{
    uint64_t count = 0, at = 0;

    do
        at = index_sweep_hot(index, at, hot_each, &count);
    while (at != 0);
    return count;
}

/* What spilling is offered is all that is hot. A first round is for the index to shrink as much as is due: a bucket that is
 * merged into one that the sweep is past would be missed. */
static bool hot_are_seen(const struct audit *audit, char *why, size_t size)
{
    struct index *index = audit->store->index;
    uint64_t count;

    MAYBE(hot_count(index) != 0);
    count = hot_count(index);
    return is_equal("hot keys", index_count(index) - audit->cold_count, count, why, size);
}

bool store_audit(struct store *store, char *why, size_t size)
{
    struct audit audit = {.store = store};

    if (store->open_key.entry != NULL)
        store_open_cancel(store);
    index_page_each(store->index, 0, 0, audit_each, &audit);
    return keys_are_equal(&audit, why, size) &&
           is_equal("bytes of entries", slab_used_bytes(store->slab), audit.entry_bytes, why, size) &&
           is_equal("bytes of objects", store->object_bytes - store->dying_bytes, audit.object_bytes, why, size) &&
           is_equal("objects of another size", 0, audit.wrong_objects, why, size) &&
           is_equal("places that are gone", 0, audit.lost_addresses, why, size) &&
           hot_are_seen(&audit, why, size) && live_is_about(&audit, why, size);
}
