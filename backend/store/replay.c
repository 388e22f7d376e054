/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of the log become keys again, without their values: every key is a cold entry.
 *
 *     checkpoint's pages ──> entries, each page true at its own LSN
 *     segments since      ──> records, in any order of LSN (copies of the cleaner among them)
 *     log ring            ──> the last records
 *
 *   Y1  The highest LSN wins, whatever comes first. While it lasts, tombstones are entries of type NONE, so that a
 *       record older than one, which comes later, does not bring the key back. They are swept at the end.
 *   Y2  A record that is not newer than its key's page says nothing new; only its place may be: if the entry has
 *       just that LSN, the record is a copy of it that lies elsewhere, and the later one found is used. Not if it lay
 *       there already when the page was written, which chose another place then: what the page names stays in use.
 *   Y3  A delta belongs to the incarnation with its base. It is kept (as a place to read) while it is newer than
 *       the image. At the end a chain without image must begin with the delta that created the key.
 *   Y5  What is local (a copy, an image) may be on disk though the change that it shows is not: it was flushed
 *       earlier than the frames before it. Such a record is valid iff its LSN is not above the last one of its epoch
 *       in the hot log. Each life has an epoch of its own, so an LSN that is given a second time is of a later epoch,
 *       and what is left of the first one stays invalid for ever. Who comes before its epoch's end is known waits.
 *   Y4  A flush hides every record of its database with a lower LSN, before or after it.
 *   Y6  In the end every entry lies in a segment that is there. What a page names may be gone, if a copy of it, or what took
 *       its place, is in the log behind (cleaner_give.c).
 *
 * Why tombstones and pages suffice: what a page does not have was not there at the page's LSN; every record newer than that
 * is still in the log, or was dead when its segment was given back: then one that is newer still is.
 */
#include "backend/store/replay.h"

#include "backend/store/checkpoint.h"
#include "backend/store/effect.h"
#include "backend/store/store_private.h"
#include "common/base/mem.h"

bool delta_is_attribute(const struct record *record)
{
    uint8_t code = record->value.len > 0 ? (uint8_t)record->value.data[0] : 0;

    return code == EFFECT_EXPIRE || code == EFFECT_FLAGS;
}

/* A key as the record has it, cold. */
static struct entry_parts replay_parts(const struct record *record, uint64_t address)
{
    return (struct entry_parts){
        .address = address,
        .lsn = record->lsn,
        .expire_ms = record->expire_ms,
        .mc_flags = record->mc_flags,
        .type = record->type == RECORD_TOMB ? STORE_NONE : record->value_type,
        .db = record->db,
        .is_cold = true,
        .key = record->key,
        .value = bytes_of("", record->value.len),
    };
}

static int replay_put(struct store *store, uint64_t hash, struct entry *e, const struct entry_parts *parts)
{
    if (e != NULL) {
        chain_end(store, hash, e);
        store_live_remove(store, e->address, store_record_bytes(e));
    }
    if (store_entry_put(store, hash, &e, parts) != 0)
        return ERR_FULL;
    store_live_add(store, e->address, store_record_bytes(e));
    checkpoint_touch_replayed(store, hash, e);
    return 0;
}

static void replay_move(struct store *store, uint64_t hash, struct entry *e, const struct record *record,
                        uint64_t address)
{
    if (e->address == address || !checkpoint_is_news(store, hash, record->lsn, address))
        return;
    store_live_remove(store, e->address, store_record_bytes(e));
    e->address = address;
    store_live_add(store, address, store_record_bytes(e));
    checkpoint_touch_replayed(store, hash, e);
}

/* The state that the entry's address holds. */
static uint64_t replay_image_lsn(const struct store *store, uint64_t hash, const struct entry *e)
{
    const struct chain *chain = chain_find(store, hash, e);

    return chain != NULL ? chain->image_lsn : entry_lsn(e);
}

/* SET and TOMB: all or nothing. */
static int replay_whole(struct store *store, uint64_t hash, struct entry *e, const struct record *record,
                        uint64_t address, bool is_old)
{
    struct entry_parts parts = replay_parts(record, address);

    if (record->type == RECORD_TOMB && (is_old || (e != NULL && entry_lsn(e) >= record->lsn)))
        return 0;
    if (e != NULL && record->type == RECORD_SET && replay_image_lsn(store, hash, e) == record->lsn &&
        entry_type(e) != STORE_NONE) {
        replay_move(store, hash, e, record, address); /* Y2 */
        return 0;
    }
    if (is_old || (e != NULL && entry_lsn(e) >= record->lsn))
        return 0;
    if (record->type == RECORD_TOMB) {
        parts.address = 0;
        store->recount_needed = true;
    }
    return replay_put(store, hash, e, &parts);
}

/* The chain of an entry's incarnation. NULL with *err: no memory; NULL without: the record is of another life. */
static struct chain *replay_chain(struct store *store, uint64_t hash, struct entry **e,
                                  const struct record *record, uint64_t base, bool is_old, int *err)
{
    struct entry_parts parts = replay_parts(record, 0);
    struct chain *chain = *e != NULL ? chain_find(store, hash, *e) : NULL;

    *err = 0;
    if (*e != NULL && entry_type(*e) != STORE_NONE && chain == NULL) {
        /* A whole value so far: a delta of its incarnation has it as its base or, after an image, a lower
         * one that the image tells. */
        if (base > entry_lsn(*e))
            *err = replay_put(store, hash, *e, &parts);
        else if (record->lsn <= entry_lsn(*e) && record->type != RECORD_IMAGE)
            return NULL;
        else if (record->type == RECORD_IMAGE && record->lsn < entry_lsn(*e))
            return NULL;
    } else if (*e == NULL || entry_type(*e) == STORE_NONE) {
        if (is_old || (*e != NULL && entry_lsn(*e) >= base))
            return NULL;
        *err = replay_put(store, hash, *e, &parts);
    } else if (base > entry_lsn(*e)) {
        *err = replay_put(store, hash, *e, &parts); /* a later life */
        chain = NULL;
    } else if (base != chain->base_lsn) {
        return NULL;
    }
    if (*err != 0)
        return NULL;
    *e = index_find(store->index, hash, record->db, record->key);
    if (chain == NULL) {
        chain = chain_add(store, hash, record->db, record->key);
        if (chain == NULL) {
            *err = ERR_FULL;
            return NULL;
        }
        store->recount_needed = true;
        chain->base_lsn = base;
        chain->image_lsn = (*e)->address != 0 ? entry_lsn(*e) : 0;
    }
    return chain;
}

static int replay_attribute(struct store *store, uint64_t hash, struct entry **e, const struct record *record)
{
    struct entry_parts parts;
    struct effect_reader reader;
    uint64_t number = 0;
    uint32_t count;
    uint8_t code;

    effect_reader_init(&reader, record->value);
    if (!effect_next(&reader, &code, &count) || count != 1 || !effect_read_u64(&reader, &number))
        return ERR_CORRUPT;
    entry_parts_of(*e, &parts);
    parts.key = record->key;
    if (code == EFFECT_EXPIRE)
        parts.expire_ms = number;
    else
        parts.mc_flags = (uint32_t)number;
    return store_entry_put(store, hash, e, &parts);
}

static int replay_delta(struct store *store, uint64_t hash, struct entry *e, const struct record *record,
                        uint64_t address, bool is_old)
{
    uint64_t base = record->base_lsn != 0 ? record->base_lsn : record->lsn;
    bool is_newest, is_new;
    int err;
    struct chain *chain = replay_chain(store, hash, &e, record, base, is_old, &err);

    if (chain == NULL || record->lsn <= chain->image_lsn)
        return err;
    err = chain_delta_add(store, chain, record->lsn, address, record_size(record));
    if (err != 0)
        return err;
    is_newest = record->lsn >= entry_lsn(e);
    is_new = record->lsn > entry_lsn(e); /* else the page that named the chain has it */
    if (is_newest)
        entry_lsn_set(e, record->lsn);
    if (is_new)
        checkpoint_touch_replayed(store, hash, e);
    return is_newest && delta_is_attribute(record) ? replay_attribute(store, hash, &e, record) : 0;
}

static int replay_image(struct store *store, uint64_t hash, struct entry *e, const struct record *record,
                        uint64_t address, bool is_old)
{
    struct entry_parts parts = replay_parts(record, address);
    struct chain *chain;
    int err;

    if (e != NULL && entry_type(e) != STORE_NONE && replay_image_lsn(store, hash, e) == record->lsn) {
        replay_move(store, hash, e, record, address);
        return 0;
    }
    chain = replay_chain(store, hash, &e, record, record->base_lsn, is_old, &err);
    if (chain == NULL || record->lsn < chain->image_lsn)
        return err;
    if (record->lsn >= entry_lsn(e)) /* the newest state: its attributes hold */
        parts.lsn = record->lsn;
    else
        parts = (struct entry_parts){0};
    chain_image_set(store, chain, record->lsn);
    store_live_remove(store, e->address, store_record_bytes(e));
    if (parts.lsn != 0) {
        err = store_entry_put(store, hash, &e, &parts);
        if (err != 0)
            return err;
    }
    e->address = address;
    entry_value_len_set(e, record->value.len);
    store_live_add(store, address, store_record_bytes(e));
    checkpoint_touch_replayed(store, hash, e);
    return 0;
}

static int replay_flush(struct store *store, const struct record *record)
{
    if (record->db > STORE_DBS)
        return ERR_CORRUPT;
    for (uint8_t db = 0; db < STORE_DBS; db++) {
        if (record->db != STORE_DBS && record->db != db)
            continue;
        if (record->lsn <= store->flush_lsn[db])
            continue;
        store->flush_lsn[db] = record->lsn;
        store->recount_needed = true;
    }
    return 0;
}

/* Highest LSN wins, as copies come in any order. */
static int replay_swap(struct store *store, const struct record *record)
{
    uint8_t places[STORE_DBS];

    if (record->value.len != sizeof(places))
        return ERR_CORRUPT;
    memcpy(places, record->value.data, sizeof(places));
    if (record->lsn <= store->swap_lsn)
        return 0;
    return store_places_set(store, places, record->lsn) ? 0 : ERR_CORRUPT;
}

/* One record that is valid. */
static int replay_valid(struct store *store, const struct record *record, uint64_t address)
{
    uint64_t hash, page_lsn;
    bool is_old;
    struct entry *e;

    store_log_lsn_floor(store->log, record->lsn);
    if (record->type == RECORD_FLUSH)
        return replay_flush(store, record);
    if (record->type == RECORD_NOP)
        return 0;
    if (record->type == RECORD_SWAP)
        return replay_swap(store, record);
    if (record->db >= STORE_DBS || record->value_type >= STORE_TYPE_COUNT)
        return ERR_CORRUPT;
    if (record->lsn <= store->flush_lsn[record->db]) /* Y4 */
        return 0;
    hash = index_hash(store->index, record->db, record->key);
    page_lsn = checkpoint_page_lsn(store, hash);
    is_old = record->lsn <= page_lsn;
    e = index_find(store->index, hash, record->db, record->key);
    switch ((enum record_type)record->type) {
    case RECORD_SET:
    case RECORD_TOMB:
        return replay_whole(store, hash, e, record, address, is_old);
    case RECORD_DELTA:
        return replay_delta(store, hash, e, record, address, is_old);
    case RECORD_IMAGE:
        return replay_image(store, hash, e, record, address, is_old);
    case RECORD_NONE:
    case RECORD_FLUSH:
    case RECORD_NOP:
    case RECORD_SWAP:
    case RECORD_TYPE_COUNT:
        break;
    }
    return ERR_CORRUPT;
}

/* ---- epochs (Y5) ------------------------------------------------------------------------------ */

struct epoch_end {
    uint32_t epoch;
    uint64_t lsn;
};

struct deferred {
    struct record record; /* of a key's value only the length is known */
    uint64_t address;
    char *data;           /* owns: the key, or a SWAP's value */
};

struct replay {
    struct epoch_end *ends; /* owns; rising in both */
    struct deferred *deferred; /* owns */
    size_t end_count, end_cap, deferred_count, deferred_cap;
    uint32_t epoch_max;
    uint64_t dropped;
};

/* Room for one more; false: no memory. */
static bool replay_grow(void **items, size_t *cap, size_t count, size_t size)
{
    size_t wanted = *cap == 0 ? 16 : *cap * 2;
    void *grown;

    if (count < *cap)
        return true;
    grown = mem_realloc(*items, wanted * size);
    if (grown == NULL)
        return false;
    *items = grown;
    *cap = wanted;
    return true;
}

static int epoch_note(struct replay *replay, uint32_t epoch, uint64_t lsn)
{
    struct epoch_end *last = replay->end_count > 0 ? &replay->ends[replay->end_count - 1] : NULL;

    replay->epoch_max = MAX(replay->epoch_max, epoch);
    if (last != NULL && last->epoch == epoch) {
        last->lsn = MAX(last->lsn, lsn);
        return 0;
    }
    if (last != NULL && epoch < last->epoch) /* from before the checkpoint */
        return lsn <= last->lsn ? 0 : ERR_CORRUPT;
    if (!replay_grow((void **)&replay->ends, &replay->end_cap, replay->end_count, sizeof(*last)))
        return ERR_FULL;
    replay->ends[replay->end_count++] = (struct epoch_end){epoch, lsn};
    return 0;
}

/* The last LSN known of this epoch, or of the last one before it that has any. */
static uint64_t epoch_end_lsn(const struct store *store, uint32_t epoch)
{
    const struct replay *replay = store->replay;
    size_t i = replay->end_count;

    while (i > 0 && replay->ends[i - 1].epoch > epoch)
        i--;
    return MAX(i > 0 ? replay->ends[i - 1].lsn : 0, store->stats.checkpoint_lsn);
}

static int replay_defer(struct replay *replay, const struct record *record, uint64_t address)
{
    struct deferred *deferred;
    struct bytes kept = record->type == RECORD_SWAP ? record->value : record->key;
    char *data = mem_alloc(kept.len + 1);

    replay->epoch_max = MAX(replay->epoch_max, record->epoch);
    if (data == NULL || !replay_grow((void **)&replay->deferred, &replay->deferred_cap, replay->deferred_count,
                                    sizeof(*deferred))) {
        mem_free(data);
        return ERR_FULL;
    }
    memcpy(data, kept.data, kept.len);
    deferred = &replay->deferred[replay->deferred_count++];
    *deferred = (struct deferred){*record, address, data};
    if (record->type == RECORD_SWAP) {
        deferred->record.value = bytes_of(data, kept.len);
    } else {
        deferred->record.key = bytes_of(data, kept.len);
        deferred->record.value = bytes_of("", record->value.len);
    }
    return 0;
}

int replay_begin(struct store *store, uint32_t epoch, uint64_t lsn)
{
    store->replay = mem_zalloc(sizeof(*store->replay));
    if (store->replay == NULL)
        return ERR_FULL;
    return epoch == 0 ? 0 : epoch_note(store->replay, epoch, lsn);
}

void replay_destroy(struct store *store)
{
    struct replay *replay = store->replay;

    if (replay == NULL)
        return;
    for (size_t i = 0; i < replay->deferred_count; i++)
        mem_free(replay->deferred[i].data);
    mem_free(replay->deferred);
    mem_free(replay->ends);
    mem_free(replay);
    store->replay = NULL;
}

int replay_record(struct store *store, const struct record *record, uint64_t address, bool is_cold)
{
    int err;

    if (is_cold && record->lsn > epoch_end_lsn(store, record->epoch))
        return replay_defer(store->replay, record, address);
    if (!is_cold) {
        err = epoch_note(store->replay, record->epoch, record->lsn);
        if (err != 0)
            return err;
    }
    return replay_valid(store, record, address);
}

static int replay_deferred(struct store *store)
{
    struct replay *replay = store->replay;

    for (size_t i = 0; i < replay->deferred_count; i++) {
        const struct deferred *deferred = &replay->deferred[i];
        int err;

        if (deferred->record.lsn > epoch_end_lsn(store, deferred->record.epoch)) {
            replay->dropped++;
            continue;
        }
        err = replay_valid(store, &deferred->record, deferred->address);
        if (err != 0)
            return err;
    }
    return 0;
}

/* ---- the end ---------------------------------------------------------------------------------- */

struct replay_end {
    struct store *store;
    uint64_t chains_broken, places_gone;
    uint64_t counts[STORE_DBS], expiring[STORE_DBS], gone;
};

/* Y1, Y4 */
static bool replay_is_gone(const struct store *store, const struct entry *e)
{
    return entry_type(e) == STORE_NONE || store_is_flushed(store, e);
}

static void replay_drop_each(void *arg, struct entry *e)
{
    struct replay_end *end = arg;

    if (!replay_is_gone(end->store, e))
        return;
    store_entry_drop(end->store, index_hash(end->store->index, entry_db(e), entry_key(e)), e);
    end->gone--;
}

static void replay_end_each(void *arg, struct entry *e)
{
    struct replay_end *end = arg;
    struct store *store = end->store;
    uint64_t hash = index_hash(store->index, entry_db(e), entry_key(e));
    struct chain *chain;

    if (replay_is_gone(store, e)) {
        end->gone++;
        return;
    }
    end->counts[entry_db(e)]++;
    end->expiring[entry_db(e)] += (e->type_flags & ENTRY_EXPIRES) != 0;
    chain = chain_find(store, hash, e);
    if (chain == NULL)
        return;
    if (chain->count == 0) {
        chain_forget(store, hash, e);
    } else if (chain->image_lsn == 0 && chain->deltas[0].lsn != chain->base_lsn) {
        log_error(store->text_log, "store: a key's first record is missing from the log shard=%u key_len=%zu "
                  "base_lsn=%llu first_lsn=%llu", store->options.shard, entry_key(e).len,
                  (unsigned long long)chain->base_lsn, (unsigned long long)chain->deltas[0].lsn);
        end->chains_broken++; /* Y3 */
    }
}

static void replay_place_each(void *arg, struct entry *e)
{
    struct replay_end *end = arg;

    if (!replay_is_gone(end->store, e) && e->address != 0 &&
        !store_log_has(end->store->log, address_sequence(e->address)))
        end->places_gone++;
}

/* Y6 */
static int replay_places_check(struct store *store)
{
    struct replay_end end = {.store = store};
    uint64_t at = 0;

    if (!store->has_places_gone)
        return 0;
    do
        at = index_sweep(store->index, at, replay_place_each, &end);
    while (at != 0);
    if (end.places_gone == 0)
        return 0;
    log_error(store->text_log, "store: a segment that the checkpoint needs is missing, or its header is damaged shard=%u "
              "dir=%s keys=%llu", store->options.shard, store->options.dir, (unsigned long long)end.places_gone);
    store->stats.corrupt_records++;
    return ERR_CORRUPT;
}

int replay_finish(struct store *store)
{
    struct replay_end end = {.store = store};
    uint64_t at = 0;
    int err = replay_deferred(store);

    if (err == 0)
        err = replay_places_check(store);
    if (err != 0)
        return err;
    store->epoch = store->replay->epoch_max + 1;
    if (!store->recount_needed)
        return 0;
    do
        at = index_sweep(store->index, at, replay_end_each, &end);
    while (at != 0);
    /* The index shrinks as they go, which may move some to where the walk has been. */
    while (end.gone > 0)
        at = index_sweep(store->index, at, replay_drop_each, &end);
    memcpy(store->counts, end.counts, sizeof(end.counts));
    memcpy(store->expiring, end.expiring, sizeof(end.expiring));
    return end.chains_broken == 0 ? 0 : ERR_CORRUPT;
}
