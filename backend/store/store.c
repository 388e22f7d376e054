/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/store.h"

#include "backend/store/cleaner.h"
#include "backend/store/store_private.h"

#include "common/base/mem.h"

#define ROOM_BESIDE   64u   /* of a record, beside what a command brings */
#define SPILL_AT_ONCE 4000u /* entries looked at when a write would be refused */
#define SPILL_TURN    500u  /* ... at the end of a turn */

/* ---- look-ups --------------------------------------------------------------------------------- */

/* S8, while the host's clock was set back: on from where it was, a sixteenth slower than time passes, until the host's has
 * come up to it. A clock that stood still would stop what waits for a time (the cleaner, a key set for a second), and one
 * that kept the distance would never again agree with the host's. */
#define BACK_MS     1000u /* less is waited for */
#define BACK_SLOWER 16u

static uint64_t now_from(const struct store *store, uint64_t wall_ms)
{
    uint64_t passed_ms = io_now_ms(store->io) - store->wall_at_ms;

    return wall_ms + BACK_MS > store->now_ms ? wall_ms : store->wall_ms + passed_ms - passed_ms / BACK_SLOWER;
}

void store_now_set(struct store *store, uint64_t wall_ms)
{
    uint64_t now_ms = now_from(store, wall_ms);

    if (UNLIKELY(store->is_atomic)) /* S9 */
        return;
    store->now_ms = MAX(store->now_ms, now_ms);
    if (LIKELY(now_ms == wall_ms)) {
        store->wall_ms = store->now_ms;
        store->wall_at_ms = io_now_ms(store->io);
    }
    if (store->log != NULL)
        store_log_wall_set(store->log, store->now_ms); /* frames tell when they were written */
}

uint64_t store_now_ms(const struct store *store)
{
    return store->now_ms;
}

void store_tell_changed(struct store *store, uint8_t db, struct bytes key, enum store_change_kind kind)
{
    if (store->options.hooks.changed != NULL)
        store->options.hooks.changed(store->options.hooks.arg, store->names[db], key, kind);
}

bool store_places_set(struct store *store, const uint8_t places[STORE_DBS], uint64_t lsn)
{
    uint8_t names[STORE_DBS];
    uint32_t seen = 0;

    for (uint8_t db = 0; db < STORE_DBS; db++) {
        if (places[db] >= STORE_DBS)
            return false;
        seen |= 1u << places[db];
        names[places[db]] = db;
    }
    if (seen != (1u << STORE_DBS) - 1)
        return false;
    memcpy(store->places, places, sizeof(store->places));
    memcpy(store->names, names, sizeof(store->names));
    store->swap_lsn = lsn;
    return true;
}

uint64_t store_swap_lsn(const struct store *store)
{
    return store->swap_lsn;
}

/* Without a tombstone where none can be written: the record itself says when it expired. */
void store_expire(struct store *store, uint64_t hash, struct entry *e)
{
    if (store_log_expired(store, e) != 0) {
        store->absent_lsn = MAX(store->absent_lsn, entry_lsn(e));
        store->is_unlogged = true;
    }
    store->stats.expirations++;
    store_tell_changed(store, entry_db(e), entry_key(e), STORE_EXPIRED);
    store_entry_destroy(store, hash, e);
}

/* What can no longer be seen leaves the index when somebody comes across it. */
static void store_find_gone(struct store *store, struct store_key *key)
{
    struct entry *e = key->entry;

    key->entry = NULL;
    if (store_is_flushed(store, e)) {
        store->flushed_left -= store->flushed_left > 0;
        store_entry_destroy(store, key->hash, e);
        return;
    }
    store_expire(store, key->hash, e);
}

void store_find(struct store *store, uint8_t db, struct bytes name, struct store_key *out)
{
    ASSERT(db < STORE_DBS);
    db = store->places[db];
    out->name = name;
    out->db = db;
    out->hash = index_hash(store->index, db, name);
    out->entry = index_find(store->index, out->hash, db, name);
    if (out->entry == NULL)
        return;
    if (UNLIKELY(store_is_flushed(store, out->entry) || store_is_expired(store, out->entry)))
        store_find_gone(store, out);
}

uint64_t store_prefetch(struct store *store, uint8_t db, struct bytes name)
{
    uint64_t hash = index_hash(store->index, store->places[db], name);

    index_prefetch(store->index, hash);
    return hash;
}

void store_prefetch_entry(struct store *store, uint64_t hash)
{
    index_prefetch_entry(store->index, hash);
}

void store_prefetch_chain(struct store *store, uint64_t hash)
{
    index_prefetch_chain(store->index, hash);
}

struct bytes store_string(const struct entry *entry)
{
    const struct string_object *string;

    ASSERT(entry_type(entry) == STORE_STRING && !entry_is_cold(entry));
    if (LIKELY(!entry_is_object(entry)))
        return entry_inline_value(entry);
    string = (const struct string_object *)entry_object(entry);
    return bytes_of(string->data, string->len);
}

bool store_len_is_known(const struct store *store, const struct store_key *key)
{
    const struct entry *e = key->entry;

    return !entry_is_cold(e) || (entry_value_len(e) != ENTRY_VALUE_LEN_MAX && chain_find(store, key->hash, e) == NULL);
}

char *store_string_shared(const struct entry *entry)
{
    ASSERT(entry_type(entry) == STORE_STRING && !entry_is_cold(entry));
    return entry_is_object(entry) ? ((const struct string_object *)entry_object(entry))->data : NULL;
}

uint64_t store_absent_lsn(const struct store *store)
{
    return store->absent_lsn;
}

/* ---- marks and permissions -------------------------------------------------------------------- */

uint64_t store_lsn(const struct store *store)
{
    return store->log != NULL ? store_log_last_lsn(store->log) : store->memory_lsn;
}

struct store_marks store_marks_of(const struct store *store)
{
    if (store->log != NULL)
        return store_log_marks(store->log);
    return (struct store_marks){store->memory_lsn, store->memory_lsn, store->memory_lsn};
}

bool store_has_log_failed(const struct store *store)
{
    return store->log != NULL && store_log_error(store->log) != 0;
}

uint32_t store_commit_us(const struct store *store)
{
    return store->log != NULL ? store_log_commit_us(store->log) : 0;
}

uint64_t store_memory_bytes(const struct store *store)
{
    return index_bytes(store->index) + slab_used_bytes(store->slab) + store->object_bytes + store->others_bytes;
}

uint64_t store_memory_staying(const struct store *store)
{
    return store_memory_bytes(store) - store->dying_bytes;
}

/* Values are spilled from maxmemory on, at the end of every turn; one turn may pass it by a sixteenth. What is above
 * that, and cannot be spilled at once, is refused. */
static bool store_is_memory_full(struct store *store)
{
    uint64_t max = store->options.memory_max, limit = max + max / 16;

    if (LIKELY(max == 0 || store_memory_bytes(store) <= limit))
        return false;
    MAYBE(spill_step(store, SPILL_AT_ONCE));
    return store_memory_bytes(store) > limit;
}

/* Whoever waits is told when that has changed: log_work(). */
static int store_room(struct store *store, size_t bytes)
{
    bool is_full = store_log_is_disk_full(store->log);
    bool waited = store->waits_for_cleaner;
    int err = is_full ? -ENOSPC : store_log_blob_room(store->log, bytes);

    if (LIKELY(err == 0))
        return 0;
    if (store->state != STORE_OPEN)
        return -ENOSPC;
    store->waits_for_cleaner = true; /* so the cleaner knows, of whom its help is asked */
    if (!is_full)
        store->blob_wanted = MAX(store->blob_wanted, bytes);
    if (!is_full || !waited)
        clean_plan_forget(store);
    if (err == ERR_AGAIN || cleaner_will_help(store)) {
        store_work_soon(store, 0);
        return ERR_AGAIN;
    }
    store->waits_for_cleaner = waited;
    return -ENOSPC;
}

bool store_may_delete(struct store *store, size_t bytes)
{
    return store->log == NULL || !store_log_is_disk_full(store->log) || store_log_takes(store->log, bytes);
}

int store_may_write(struct store *store, size_t grows)
{
    int err;

    if (UNLIKELY(store->stats.is_read_only))
        return -EROFS;
    if (store->log != NULL && !(grows > 0 && store_log_has_room_at_hand(store->log, grows + ROOM_BESIDE))) {
        if (grows > 0 && (err = store_room(store, grows + ROOM_BESIDE)) != 0)
            return err;
        if (UNLIKELY(!store_log_has_room(store->log)))
            return ERR_AGAIN;
        if (grows > 0)
            store_log_room_found(store->log);
    }
    if (grows > 0 && UNLIKELY(store_is_memory_full(store)))
        return ERR_FULL;
    return 0;
}

/* As if it were there already: what SET brings has been received, and counts. */
bool store_may_grow(struct store *store, uint64_t bytes)
{
    bool is_full;

    store->others_bytes += bytes;
    is_full = store_is_memory_full(store);
    store->others_bytes -= bytes;
    return !is_full;
}

void store_atomic_begin(struct store *store)
{
    store->is_atomic = true;
    if (store->log != NULL)
        store_log_atomic(store->log, true);
}

void store_hold_hot(struct store *store, bool on)
{
    ASSERT(on || store->hot_holds > 0);
    store->hot_holds += on ? 1u : UINT32_MAX;
}

void store_atomic_end(struct store *store)
{
    store->is_atomic = false;
    if (UNLIKELY(store->open_key.entry != NULL))
        store_open_cancel(store);
    if (store->log != NULL)
        store_log_atomic(store->log, false);
}

void store_turn_end(struct store *store)
{
    if (store->open_key.entry != NULL)
        store_open_cancel(store);
    if (UNLIKELY(store->options.memory_max != 0 && store_memory_bytes(store) > store->options.memory_max))
        MAYBE(spill_turn(store, SPILL_TURN));
    if (store->log != NULL)
        store_log_turn_end(store->log);
}

/* ---- walks ------------------------------------------------------------------------------------ */

uint64_t store_count(const struct store *store, uint8_t db)
{
    ASSERT(db < STORE_DBS);
    return store->counts[store->places[db]];
}

uint64_t store_expiring_count(const struct store *store, uint8_t db)
{
    ASSERT(db < STORE_DBS);
    return store->expiring[store->places[db]];
}

struct scan {
    const struct store *store;
    void (*each)(void *arg, struct entry *entry);
    void *arg;
    uint8_t db;
};

static bool store_is_visible(const struct store *store, const struct entry *e)
{
    return !store_is_flushed(store, e) && !store_is_expired(store, e);
}

static void scan_each(void *arg, struct entry *e)
{
    const struct scan *scan = arg;

    if (entry_db(e) == scan->db && store_is_visible(scan->store, e))
        scan->each(scan->arg, e);
}

uint64_t store_scan(struct store *store, uint8_t db, uint64_t cursor,
                    void (*each)(void *arg, struct entry *entry), void *arg)
{
    struct scan scan = {.store = store, .each = each, .arg = arg, .db = store->places[db]};

    return index_scan(store->index, cursor, scan_each, &scan);
}

#define RANDOM_TRIES_MAX 1000

struct random_pick {
    struct scan scan;
    struct entry *found;
};

static void random_each(void *arg, struct entry *e)
{
    ((struct random_pick *)arg)->found = e;
}

/* Blind tries first: fair while the database holds a fair share of the keys. Then the first one that a walk from a
 * random place meets, so that a lonely key is found as well. */
struct entry *store_random(struct store *store, uint8_t db)
{
    struct random_pick pick = {.scan = {.store = store, .each = random_each}};
    uint64_t at, start;

    db = pick.scan.db = store->places[db];
    if (store->counts[db] == 0)
        return NULL;
    pick.scan.arg = &pick;
    for (int i = 0; i < RANDOM_TRIES_MAX; i++) {
        struct entry *e = index_random(store->index, io_random64(store->io));

        if (e != NULL && entry_db(e) == db && store_is_visible(store, e))
            return e;
    }
    start = at = 0;
    do
        at = index_scan(store->index, at, scan_each, &pick.scan);
    while (pick.found == NULL && at != start);
    return pick.found;
}
