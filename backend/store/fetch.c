/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cold values come back: one read for a string or an image, one more for each delta of a chain that
 * recovery left.
 *
 *   F1  One fetch for each key, however many wait. Who waits is told from the loop, never from inside
 *       store_fetch().
 *   F2  What was read is used only if the entry, looked up again, is still cold and its state is still that
 *       of the record's LSN. Else the key was changed meanwhile: if it is cold again the read starts anew,
 *       else there is nothing to do. After FETCH_RESTART_MAX of them who waits is told to look again.
 *   F3  A value becomes hot as a whole or not at all.
 *   F4  A chain ends in the state that the entry names: its last delta, or its image, has the entry's LSN.
 */
#include "backend/store/replay.h"
#include "backend/store/store_private.h"

#include "common/base/mem.h"

#define FETCH_BUCKETS     256u
#define FETCH_RESTART_MAX 16u

struct fetch {
    struct fetch *next; /* of the bucket */
    struct store *store;
    struct list waiters;
    struct store_log_read read;
    uint64_t hash;
    uint64_t image_lsn;    /* of what is being put together; F2 */
    uint32_t delta_next;   /* of the chain */
    uint32_t restarts;
    struct object *object; /* owns; of a chain, so far */
    uint64_t image_bytes;
    uint8_t db;
    uint16_t key_len;
    char key[];
};

struct fetches {
    struct fetch *buckets[FETCH_BUCKETS];
};

struct chains {
    uint64_t count;
    size_t mask;
    struct chain **buckets; /* owns */
};

/* ---- chains ----------------------------------------------------------------------------------- */

#define CHAINS_BUCKETS 4096u

static struct chain **chain_place(const struct store *store, uint64_t hash, uint8_t db, struct bytes key)
{
    struct chain **at = &store->chains->buckets[hash & store->chains->mask];

    while (*at != NULL && !((*at)->hash == hash && (*at)->db == db &&
                            bytes_equal(bytes_of((*at)->key, (*at)->key_len), key)))
        at = &(*at)->next;
    return at;
}

struct chain *chain_find(const struct store *store, uint64_t hash, const struct entry *e)
{
    return store->chains == NULL ? NULL : *chain_place(store, hash, entry_db(e), entry_key(e));
}

static void chains_grow(struct chains *chains)
{
    size_t mask = chains->mask * 4 + 3;
    struct chain **buckets = mem_zalloc(sizeof(*buckets) * (mask + 1));

    if (buckets == NULL)
        return; /* longer lists, no harm */
    for (size_t i = 0; i <= chains->mask; i++) {
        for (struct chain *chain = chains->buckets[i], *next; chain != NULL; chain = next) {
            next = chain->next;
            chain->next = buckets[chain->hash & mask];
            buckets[chain->hash & mask] = chain;
        }
    }
    mem_free(chains->buckets);
    chains->buckets = buckets;
    chains->mask = mask;
}

struct chain *chain_add(struct store *store, uint64_t hash, uint8_t db, struct bytes key)
{
    struct chain *chain = mem_zalloc(sizeof(*chain) + key.len), **at;

    if (chain == NULL)
        return NULL;
    if (store->chains == NULL) {
        store->chains = must_zalloc(sizeof(*store->chains));
        store->chains->mask = CHAINS_BUCKETS - 1;
        store->chains->buckets = must_zalloc(sizeof(struct chain *) * CHAINS_BUCKETS);
    }
    chain->hash = hash;
    chain->db = db;
    chain->key_len = (uint16_t)key.len;
    memcpy(chain->key, key.data, key.len);
    if (store->chains->count > store->chains->mask * 2)
        chains_grow(store->chains);
    at = chain_place(store, hash, db, key);
    ASSERT(*at == NULL);
    *at = chain;
    store->chains->count++;
    return chain;
}

static void chain_destroy(struct chain *chain)
{
    mem_free(chain->deltas);
    mem_free(chain);
}

void chains_destroy(struct store *store)
{
    if (store->chains == NULL)
        return;
    for (size_t i = 0; i <= store->chains->mask; i++) {
        for (struct chain *chain = store->chains->buckets[i], *next; chain != NULL; chain = next) {
            next = chain->next;
            chain_destroy(chain);
        }
    }
    mem_free(store->chains->buckets);
    mem_free(store->chains);
    store->chains = NULL;
}

void chain_forget(struct store *store, uint64_t hash, const struct entry *e)
{
    struct chain **at, *chain;

    if (store->chains == NULL)
        return;
    at = chain_place(store, hash, entry_db(e), entry_key(e));
    chain = *at;
    if (chain == NULL)
        return;
    *at = chain->next;
    chain_destroy(chain);
    if (--store->chains->count == 0)
        chains_destroy(store);
}

void chain_end(struct store *store, uint64_t hash, const struct entry *e)
{
    const struct chain *chain = chain_find(store, hash, e);

    if (chain == NULL)
        return;
    for (uint32_t i = 0; i < chain->count; i++)
        store_live_remove(store, chain->deltas[i].address, chain->deltas[i].size);
    chain_forget(store, hash, e);
}

int chain_delta_add(struct store *store, struct chain *chain, uint64_t lsn, uint64_t address, size_t size)
{
    uint32_t at = chain->count;

    while (at > 0 && chain->deltas[at - 1].lsn > lsn)
        at--;
    if (at > 0 && chain->deltas[at - 1].lsn == lsn) {
        store_live_remove(store, chain->deltas[at - 1].address, chain->deltas[at - 1].size);
        store_live_add(store, address, size);
        chain->deltas[at - 1].address = address; /* a copy of it */
        chain->chain_sequence = address_sequence(chain->deltas[0].address);
        return 0;
    }
    if (chain->count == chain->cap) {
        uint32_t cap = MAX(chain->cap * 2, 4u);
        struct chain_delta *deltas = mem_realloc(chain->deltas, sizeof(*deltas) * cap);

        if (deltas == NULL)
            return ERR_FULL;
        chain->deltas = deltas;
        chain->cap = cap;
    }
    memmove(chain->deltas + at + 1, chain->deltas + at, sizeof(*chain->deltas) * (chain->count - at));
    chain->deltas[at] = (struct chain_delta){lsn, address, size};
    chain->count++;
    store_live_add(store, address, size);
    chain->chain_sequence = address_sequence(chain->deltas[0].address);
    return 0;
}

void chain_image_set(struct store *store, struct chain *chain, uint64_t lsn)
{
    uint32_t drop = 0;

    chain->image_lsn = lsn;
    for (; drop < chain->count && chain->deltas[drop].lsn <= lsn; drop++)
        store_live_remove(store, chain->deltas[drop].address, chain->deltas[drop].size);
    chain->count -= drop;
    memmove(chain->deltas, chain->deltas + drop, sizeof(*chain->deltas) * chain->count);
    chain->chain_sequence = chain->count > 0 ? address_sequence(chain->deltas[0].address) : 0;
}

/* ---- fetches ---------------------------------------------------------------------------------- */

int fetches_create(struct store *store)
{
    store->fetches = mem_zalloc(sizeof(*store->fetches));
    return store->fetches == NULL ? ERR_FULL : 0;
}

static struct fetch **fetch_place(struct store *store, uint64_t hash, uint8_t db, struct bytes key)
{
    struct fetch **at = &store->fetches->buckets[hash % FETCH_BUCKETS];

    while (*at != NULL && !((*at)->hash == hash && (*at)->db == db &&
                            bytes_equal(bytes_of((*at)->key, (*at)->key_len), key)))
        at = &(*at)->next;
    return at;
}

static void fetch_object_drop(struct fetch *fetch)
{
    if (fetch->object != NULL)
        fetch->store->options.types[fetch->object->type]->destroy(fetch->object);
    fetch->object = NULL;
}

static void fetch_free(struct fetch *fetch)
{
    struct fetch **at = fetch_place(fetch->store, fetch->hash, fetch->db, bytes_of(fetch->key, fetch->key_len));

    ASSERT(*at == fetch);
    *at = fetch->next;
    fetch_object_drop(fetch);
    mem_free(fetch);
}

void fetches_destroy(struct store *store)
{
    if (store->fetches == NULL)
        return;
    /* The log is closed: no read is under way. */
    for (unsigned i = 0; i < FETCH_BUCKETS; i++)
        while (store->fetches->buckets[i] != NULL)
            fetch_free(store->fetches->buckets[i]);
    mem_free(store->fetches);
    store->fetches = NULL;
}

static void fetch_end(struct fetch *fetch, int err)
{
    struct list waiters;
    struct list_node *node;

    list_init(&waiters);
    list_move_all(&fetch->waiters, &waiters);
    fetch_free(fetch);
    while ((node = list_pop_front(&waiters)) != NULL) {
        struct store_waiter *waiter = CONTAINER_OF(node, struct store_waiter, node_);

        waiter->done(waiter, err);
    }
}

/* The value is whole: the entry becomes hot. */
static int fetch_install(struct fetch *fetch, struct entry *e, struct bytes value, struct object *object)
{
    struct store *store = fetch->store;
    struct entry_parts parts;
    struct bytes key = bytes_of(fetch->key, fetch->key_len);
    int err;

    entry_parts_of(e, &parts);
    parts.key = key; /* not in the entry that may go away */
    parts.is_cold = false;
    parts.access = parts.access > 0; /* that it was used once, not how often: it has to show that again */
    parts.object = object;
    parts.value = value;
    err = store_entry_put(store, fetch->hash, &e, &parts);
    if (err != 0)
        return err;
    if (object != NULL)
        store_object_account(store, object);
    spill_inserted(store, fetch->hash, e);
    return 0;
}

static struct object *fetch_decode(struct fetch *fetch, const struct record *record)
{
    const struct object_ops *ops = fetch->store->options.types[record->value_type];
    struct object *object = ops == NULL ? NULL : ops->decode(record->value);

    if (object == NULL)
        return NULL;
    object->base_lsn = record->base_lsn != 0 ? record->base_lsn : record->lsn;
    object->image_lsn = record->lsn;
    object->image_bytes = record->value.len;
    store_object_limit(fetch->store, object);
    return object;
}

static void fetch_start(struct fetch *fetch);

static void fetch_restart(struct fetch *fetch)
{
    fetch_object_drop(fetch);
    fetch->delta_next = 0;
    if (++fetch->restarts > FETCH_RESTART_MAX)
        fetch_end(fetch, 0);
    else
        fetch_start(fetch);
}

static void fetch_corrupt(struct fetch *fetch, const struct entry *e)
{
    fetch->store->stats.corrupt_records++;
    log_error(fetch->store->text_log, "store: a value on disk does not verify shard=%u sequence=%llu offset=%llu "
              "key_len=%u lsn=%llu", fetch->store->options.shard,
              (unsigned long long)address_sequence(e->address), (unsigned long long)address_off(e->address),
              fetch->key_len, (unsigned long long)entry_lsn(e));
    fetch_end(fetch, ERR_CORRUPT);
}

/* One delta of the chain was read; `record` NULL: there is nothing to apply yet. */
static void fetch_chain_step(struct fetch *fetch, struct entry *e, struct chain *chain,
                             const struct record *record)
{
    struct store *store = fetch->store;
    const struct object_ops *ops = store->options.types[entry_type(e)];
    int err;

    if (record != NULL) {
        const struct chain_delta *delta = &chain->deltas[fetch->delta_next];

        if (record->type != RECORD_DELTA || record->lsn != delta->lsn) {
            fetch_corrupt(fetch, e);
            return;
        }
        err = delta_is_attribute(record) ? 0 : ops->apply(fetch->object, record->value);
        if (err == ERR_FULL) {
            fetch_end(fetch, err);
            return;
        }
        if (err != 0) {
            fetch_corrupt(fetch, e);
            return;
        }
        fetch->object->delta_count++;
        fetch->object->delta_bytes += record_size(record);
        fetch->delta_next++;
    }
    if (fetch->delta_next < chain->count) {
        fetch->read.address = chain->deltas[fetch->delta_next].address;
        fetch->read.size_hint = 0;
        store_log_read(store->log, &fetch->read);
        return;
    }
    if ((chain->count > 0 ? chain->deltas[chain->count - 1].lsn : chain->image_lsn) != entry_lsn(e)) { /* F4 */
        fetch_corrupt(fetch, e);
        return;
    }
    fetch->object->base_lsn = chain->base_lsn;
    fetch->object->image_lsn = chain->image_lsn;
    fetch->object->chain_sequence = chain->chain_sequence;
    err = fetch_install(fetch, e, BYTES_EMPTY, fetch->object);
    if (err == 0) {
        fetch->object = NULL;
        e = index_find(store->index, fetch->hash, fetch->db, bytes_of(fetch->key, fetch->key_len));
        chain_forget(store, fetch->hash, e);
    }
    fetch_end(fetch, err);
}

/* The string, the image, or the chain's image was read. */
static void fetch_value_read(struct fetch *fetch, struct entry *e, const struct record *record)
{
    struct store *store = fetch->store;
    struct chain *chain = chain_find(store, fetch->hash, e);
    struct object *object = NULL;
    int err;

    if (record->type != RECORD_SET && record->type != RECORD_IMAGE) {
        fetch_corrupt(fetch, e);
        return;
    }
    /* A string's image has a base of its own, which an inline one could not tell. */
    if (record->value_type != STORE_STRING || record->value.len > STRING_INLINE_MAX || record->type == RECORD_IMAGE ||
        chain != NULL) {
        object = fetch_decode(fetch, record);
        if (object == NULL) {
            fetch_corrupt(fetch, e);
            return;
        }
    }
    if (chain != NULL) {
        fetch->object = object;
        fetch_chain_step(fetch, e, chain, NULL);
        return;
    }
    err = fetch_install(fetch, e, record->value, object);
    if (err != 0 && object != NULL)
        store->options.types[object->type]->destroy(object);
    fetch_end(fetch, err);
}

static void fetch_read(struct store_log_read *read, int err)
{
    struct fetch *fetch = read->arg;
    struct store *store = fetch->store;
    struct bytes key = bytes_of(fetch->key, fetch->key_len);
    struct entry *e = index_find(store->index, fetch->hash, fetch->db, key);
    struct chain *chain;

    if (e == NULL || !entry_is_cold(e) || store_is_flushed(store, e)) {
        fetch_end(fetch, 0); /* F2: look again */
        return;
    }
    chain = chain_find(store, fetch->hash, e);
    if (fetch->image_lsn != (chain != NULL ? chain->base_lsn : entry_lsn(e))) {
        fetch_restart(fetch);
        return;
    }
    if (err == ERR_CORRUPT || (err == 0 && !bytes_equal(read->record.key, key))) {
        fetch_corrupt(fetch, e);
        return;
    }
    if (err != 0) {
        fetch_end(fetch, err);
        return;
    }
    if (fetch->object == NULL && chain != NULL && chain->image_lsn == 0) {
        fetch->object = store->options.types[entry_type(e)]->create();
        if (fetch->object == NULL) {
            fetch_end(fetch, ERR_FULL);
            return;
        }
        store_object_limit(store, fetch->object);
    }
    if (fetch->object != NULL)
        fetch_chain_step(fetch, e, chain, &read->record);
    else if (read->record.lsn != (chain != NULL ? chain->image_lsn : entry_lsn(e)))
        fetch_corrupt(fetch, e);
    else
        fetch_value_read(fetch, e, &read->record);
}

/* The entry is there and cold. */
static void fetch_start(struct fetch *fetch)
{
    struct store *store = fetch->store;
    struct entry *e = index_find(store->index, fetch->hash, fetch->db, bytes_of(fetch->key, fetch->key_len));
    struct chain *chain = chain_find(store, fetch->hash, e);

    fetch->image_lsn = chain != NULL ? chain->base_lsn : entry_lsn(e);
    fetch->read.done = fetch_read;
    fetch->read.arg = fetch;
    if (chain != NULL && chain->image_lsn == 0) {
        fetch->read.address = chain->deltas[0].address;
        fetch->read.size_hint = 0;
    } else {
        fetch->read.address = e->address;
        fetch->read.size_hint = entry_value_len(e) == ENTRY_VALUE_LEN_MAX ? 0 : store_record_bytes(e) + 8;
    }
    ASSERT(fetch->read.address != 0);
    store_log_read(store->log, &fetch->read);
}

void store_fetch(struct store *store, const struct store_key *key, struct store_waiter *waiter)
{
    struct fetch **at = fetch_place(store, key->hash, key->db, key->name);
    struct fetch *fetch = *at;

    ASSERT(entry_is_cold(key->entry) && !list_node_is_linked(&waiter->node_));
    if (fetch != NULL) {
        list_push_back(&fetch->waiters, &waiter->node_);
        store->stats.fetch_hits_waiting++;
        return;
    }
    fetch = must_zalloc(sizeof(*fetch) + key->name.len);
    fetch->store = store;
    fetch->hash = key->hash;
    fetch->db = key->db;
    fetch->key_len = (uint16_t)key->name.len;
    memcpy(fetch->key, key->name.data, key->name.len);
    list_init(&fetch->waiters);
    list_push_back(&fetch->waiters, &waiter->node_);
    *at = fetch;
    store->stats.fetches++;
    fetch_start(fetch);
}

void store_fetch_cancel(struct store_waiter *waiter)
{
    if (list_node_is_linked(&waiter->node_))
        list_remove(&waiter->node_);
}
