/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reclaims dead space: walks a victim, copies what is live to a cold segment, points the index there. The
 * victim is free when that is durable, or after the next checkpoint.
 *
 *     victim (sealed)              index                       cold, by class
 *     [A1][B1][A2][C1][tomb D]     A: victim+2 => cold+0       [A2][C1][tomb D] ...
 *
 *   L1  A SET or IMAGE is live iff the entry's address is exactly this one: sequence and offset, not only the key
 *       and the LSN.
 *   L3  A DELTA is live iff it is in the chain: newer than the object's image, of the same base. It is not moved:
 *       the object gets a fresh image, which ends the chain.
 *   L4  A TOMB or FLUSH is live iff its LSN is above the horizon: one of the checkpoints kept may still have the key.
 *       Not one of a transaction that was cut, nor one from behind the end of the log, which a restore to a point in time
 *       leaves in cold segments: a copy would wait for an LSN that may never come, and every flush behind it.
 *   L8  Counts of live bytes only choose victims. A victim is done when a walk from end to end found nothing live, or one of
 *       the index that anything is there (cleaner_index.c).
 *   L9  It is free only when a checkpoint that began after that is durable; or by cleaner_give.c's rules.
 *   L10 The liveness check, the copy and the switch of the address happen in one call.
 *   L11 Damage stays where it is, for the peers or an operator to mend, and so does what the disk has refused to give twice:
 *       the segment is no victim any more. Else one bad sector would keep the cleaner from all others.
 *   Z1  A copy keeps LSN, epoch and content: readers and replicas cannot tell that it was moved.
 *
 * Which victim, when, and how fast is cleaner_plan.c's; when it goes, cleaner_give.c's. A piece of a victim is read, and gone through, at a time.
 */
#include "backend/store/cleaner_private.h"

#include "backend/store/checkpoint.h"
#include "common/base/mem.h"

#define PASSES_MAX       8u
#define OLD_AGES         2u           /* of a hot segment that is cleaned */
#define HOUR_MS          3600000ull
#define DAY_MS           86400000ull
#define SCRUB_PERIOD_MS  (7 * DAY_MS)
#define PIECE_BYTES      (256u << 10)
#define PAUSE_MS_MAX     8u           /* between pieces, when there is time */
#define GIVE_UP_PAUSE_MS 100u
#define STARVED_PAUSE_MS 100u
#define KEPT_PAUSE_MS    1000u
#define BACKLOG_MAX      (8u << 20)   /* of copies on their way to the disk */

/* Cold streams. What expires, by when: within an hour, within a day. Of the rest, what has lived longer than what comes
 * out of the hot log usually has will go on living, and lies by itself. */
unsigned cleaner_class(const struct store *store, uint64_t expire_ms, uint64_t lsn)
{
    if (expire_ms != 0 && expire_ms <= store->now_ms + HOUR_MS)
        return 0;
    if (expire_ms != 0 && expire_ms <= store->now_ms + DAY_MS)
        return 1;
    return store_log_last_lsn(store->log) - lsn >= OLD_AGES * store->cleaner->hot_age ? 2 : 3;
}

/* A moving average. */
static void hot_age_see(struct store *store, const struct segment_info *segment)
{
    struct cleaner *cleaner = store->cleaner;
    uint64_t age = store_log_last_lsn(store->log) - segment->last_lsn;

    if (segment->kind == SEGMENT_HOT)
        cleaner->hot_age = cleaner->hot_age == 0 ? age : cleaner->hot_age - cleaner->hot_age / 16 + age / 16;
}

int cleaner_create(struct store *store)
{
    store->cleaner = mem_zalloc(sizeof(*store->cleaner));
    return store->cleaner == NULL ? ERR_FULL : 0;
}

void cleaner_destroy(struct store *store)
{
    mem_free(store->cleaner);
    store->cleaner = NULL;
}

/* ---- one record of the victim ----------------------------------------------------------------- */

/* Copies and switches (L10). */
static int clean_move(struct store *store, const struct record *record, uint64_t hash, struct entry *e)
{
    uint64_t address;
    int err = store_log_cold_append(store->log, record, cleaner_class(store, record->expire_ms, record->lsn), &address);

    if (err != 0)
        return err;
    store->stats.cleaner_bytes += record_size(record);
    if (e == NULL)
        return 0;
    store_live_remove(store, e->address, store_record_bytes(e));
    e->address = address;
    store_live_add(store, address, store_record_bytes(e));
    checkpoint_touch(store, hash);
    return 0;
}

static void clean_fetched(struct store_waiter *waiter, int err)
{
    struct cleaner_fetch *fetch = CONTAINER_OF(waiter, struct cleaner_fetch, waiter);
    struct cleaner *cleaner = fetch->store->cleaner;

    cleaner->fetches_under_way--;
    if (err != 0 && cleaner->err == 0)
        cleaner->err = err;
    store_work_soon(fetch->store, 0);
}

/* A cold chain: into memory with it; the next pass makes its image. */
static void clean_fetch(struct store *store, const struct record *record, uint64_t hash, struct entry *e)
{
    struct cleaner *cleaner = store->cleaner;
    struct store_key key = {.name = record->key, .hash = hash, .entry = e, .db = record->db};

    for (uint32_t i = 0; i < CLEAN_FETCHES_MAX; i++) {
        struct cleaner_fetch *fetch = &cleaner->fetches[i];

        if (list_node_is_linked(&fetch->waiter.node_))
            continue;
        fetch->store = store;
        fetch->waiter.done = clean_fetched;
        cleaner->fetches_under_way++;
        store_fetch(store, &key, &fetch->waiter);
        return;
    }
}

static int clean_delta(struct store *store, const struct record *record, uint64_t hash, struct entry *e)
{
    uint64_t base = record->base_lsn != 0 ? record->base_lsn : record->lsn;
    const struct chain *chain;

    if (e == NULL || record->lsn > entry_lsn(e))
        return 0;
    if (entry_is_object(e)) {
        const struct object *object = entry_object(e);

        if (object->base_lsn != base || record->lsn <= object->image_lsn)
            return 0;
        return store_image(store, hash, e);
    }
    chain = entry_is_cold(e) ? chain_find(store, hash, e) : NULL;
    if (chain == NULL || chain->base_lsn != base || record->lsn <= chain->image_lsn)
        return 0;
    store->cleaner->left_live++;
    clean_fetch(store, record, hash, e);
    return 0;
}

/* A walk also tells of transactions that were cut: what those took away is still there. A copy of such a record would
 * take it away after all. */
static bool clean_has_happened(const struct store *store, const struct record *record)
{
    const struct entry *e;

    if (record->lsn > store_log_last_lsn(store->log))
        return false;
    if (record->type == RECORD_FLUSH) {
        for (uint8_t db = 0; db < STORE_DBS; db++)
            if ((record->db == db || record->db == STORE_DBS) && store->flush_lsn[db] < record->lsn)
                return false;
        return true;
    }
    if (record->type == RECORD_SWAP) /* only the newest one says anything */
        return record->lsn == store->swap_lsn &&
               bytes_equal(record->value, bytes_of((const char *)store->places, sizeof(store->places)));
    e = index_find(store->index, index_hash(store->index, record->db, record->key), record->db, record->key);
    return e == NULL || entry_lsn(e) >= record->lsn;
}

static int clean_record(void *arg, const struct record *record, uint64_t address, size_t size, bool is_cold)
{
    struct store *store = arg;
    struct cleaner *cleaner = store->cleaner;
    uint64_t hash;
    struct entry *e;

    MAYBE(size);
    MAYBE(is_cold);
    if (store->state != STORE_OPEN) /* closing: the log takes no copies any more */
        return ERR_AGAIN;
    if (record->type == RECORD_NOP)
        return 0;
    if (record_takes_away(record)) {
        if (record->lsn <= checkpoint_horizon(store) || !clean_has_happened(store, record))
            return 0;
        /* A copy is enough. */
        return cleaner->passes == 0 ? clean_move(store, record, 0, NULL) : 0;
    }
    hash = index_hash(store->index, record->db, record->key);
    e = index_find(store->index, hash, record->db, record->key);
    if (e != NULL && store_is_flushed(store, e))
        e = NULL;
    if (record->type == RECORD_DELTA)
        return clean_delta(store, record, hash, e);
    if (e == NULL || e->address != address) /* L1 */
        return 0;
    return clean_move(store, record, hash, e);
}

/* ---- a victim --------------------------------------------------------------------------------- */

static void clean_give_up(struct store *store, int err)
{
    struct cleaner *cleaner = store->cleaner;

    log_warn(store->text_log, "store: a segment cannot be cleaned shard=%u sequence=%llu why=\"%s\"",
             store->options.shard, (unsigned long long)cleaner->victim, err_text(err));
    if (err == ERR_CORRUPT || (err == -EIO && cleaner->failed == cleaner->victim)) /* L11 */
        store_log_pin(store->log, cleaner->victim, true);
    cleaner->failed = cleaner->victim;
    cleaner->again_ms = store->now_ms + GIVE_UP_PAUSE_MS;
    cleaner->state = CLEANER_IDLE;
    cleaner->err = 0;
    clean_plan_forget(store);
}

/* Its copies are durable before it is free: the checkpoint that has to come flushes the log, or cleaner_give.c. */
static void clean_emptied(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;
    struct segment_info *segment = store_log_segment_find(store->log, cleaner->victim);

    ASSERT(segment != NULL && segment->state == SEGMENT_SEALED);
    segment->is_emptied = true;
    if (checkpoint_was_in_vain(store))
        store->checkpoint_again_ms = 0;
    store->stats.cleaner_segments++;
    cleaner->state = CLEANER_IDLE;
    clean_plan_forget(store);
    hot_age_see(store, segment);
}

/* Until the next piece. */
static uint64_t clean_pause_ms(const struct store *store)
{
    uint32_t urgency = clean_plan_of(store)->urgency;

    return urgency >= CLEAN_URGENT ? 0 : 1 + (CLEAN_URGENT - urgency) * (PAUSE_MS_MAX - 1) / CLEAN_URGENT;
}

/* There is no segment for the copies, which the log has told, or no room for a large one. */
static uint64_t clean_starve(struct store *store)
{
    store_log_copy_room(store->log);
    store->cleaner->is_starved = !store_log_makes_room(store->log);
    return store->cleaner->is_starved ? STARVED_PAUSE_MS : 1;
}

static void clean_walked(void *arg, int err)
{
    struct store *store = arg;
    struct cleaner *cleaner = store->cleaner;

    uint64_t pause_ms = clean_pause_ms(store);

    if (err == ERR_AGAIN || err == -ENOSPC) {
        cleaner->state = CLEANER_PAUSED;
        cleaner->off = cleaner->walk.off;
        if (err == -ENOSPC)
            pause_ms = clean_starve(store);
    } else if (err != 0) {
        clean_give_up(store, err);
    } else {
        cleaner->state = CLEANER_FETCHING; /* also without any: the next step decides */
    }
    cleaner->next_ms = store->now_ms + pause_ms;
    store_work_soon(store, pause_ms);
}

static void clean_pass(struct store *store, uint64_t off)
{
    struct cleaner *cleaner = store->cleaner;

    cleaner->state = CLEANER_WALKING;
    cleaner->walk = (struct store_log_walk){
        .arg = store,
        .record = clean_record,
        .done = clean_walked,
        .sequence = cleaner->victim,
        .off = off,
        .piece_bytes = PIECE_BYTES,
        .yields = !store->waits_for_cleaner,
    };
    store_log_walk(store->log, &cleaner->walk);
}

static void clean_pass_over(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;

    if (cleaner->err != 0) {
        clean_give_up(store, cleaner->err);
        return;
    }
    if (cleaner->left_live > 0) { /* L8: once more, from end to end */
        if (++cleaner->passes > PASSES_MAX) {
            clean_give_up(store, ERR_AGAIN);
            return;
        }
        cleaner->left_live = 0;
        clean_pass(store, 0);
        return;
    }
    clean_emptied(store);
}

/* ---- steps ------------------------------------------------------------------------------------ */

void cleaner_checkpoint_begins(struct store *store)
{
    for (uint32_t i = 0; i < store_log_segment_count(store->log); i++) {
        struct segment_info *segment = store_log_segment(store->log, i);

        if (!segment->is_emptied)
            continue;
        segment->is_emptied = false;
        store_log_cleaned(store->log, segment->sequence);
    }
    store->cleaner->is_unlogged |= store->is_unlogged;
    store->is_unlogged = false;
    clean_plan_forget(store);
}

void cleaner_checkpoint_ended(struct store *store, bool is_good)
{
    if (is_good)
        store->cleaner->is_unlogged = false;
    store->cleaner->is_starved = false;
    store->cleaner->kept_again_ms = store->now_ms + KEPT_PAUSE_MS;
    store->cleaner->next_ms = store->cleaner->again_ms = 0;
    clean_plan_forget(store);
}

static bool clean_begin(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;
    uint64_t victim;

    if (store->now_ms < cleaner->again_ms)
        return false;
    victim = clean_plan_of(store)->victim;
    if (victim == 0) {
        if (clean_plan_of(store)->closing > 0)
            store_log_cold_end_dead(store->log);
        return false;
    }
    cleaner->victim = victim;
    cleaner->is_starved = false;
    store_log_copy_forget(store->log);
    cleaner->passes = 0;
    cleaner->left_live = 0;
    cleaner->err = 0;
    if (clean_index_may(store, store_log_segment_find(store->log, victim))) {
        cleaner->state = CLEANER_LOOKING;
        cleaner->index_cursor = 0;
    } else {
        clean_pass(store, 0);
    }
    return true;
}

/* True: more is to do now. */
static bool clean_look_step(struct store *store)
{
    uint64_t pause_ms = clean_pause_ms(store);

    switch (clean_index_look(store)) {
    case LOOK_DEAD:
        store->stats.cleaner_segments_by_index++;
        clean_emptied(store);
        return true;
    case LOOK_LIVE:
        clean_pass(store, 0);
        return false;
    case LOOK_ON:
        break;
    }
    store->cleaner->next_ms = store->now_ms + pause_ms;
    store_work_soon(store, pause_ms);
    return pause_ms == 0;
}

bool cleaner_work(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;

    if (cleaner->state == CLEANER_WALKING || cleaner->fetches_under_way > 0)
        return false; /* who ends that calls again */
    if (cleaner->is_starved && store_log_has_free(store->log)) {
        cleaner->is_starved = false;
        cleaner->next_ms = 0;
    }
    if (store_log_cold_backlog(store->log) > BACKLOG_MAX)
        cleaner->next_ms = MAX(cleaner->next_ms, store->now_ms + 1);
    if (store->now_ms < cleaner->next_ms) {
        if (cleaner->state != CLEANER_IDLE)
            store_work_soon(store, cleaner->next_ms - store->now_ms);
        return false;
    }
    switch ((enum cleaner_state)cleaner->state) {
    case CLEANER_IDLE:
        return clean_begin(store);
    case CLEANER_LOOKING:
        return clean_look_step(store);
    case CLEANER_PAUSED:
        cleaner->is_starved = false;
        clean_pass(store, cleaner->off);
        return false;
    case CLEANER_FETCHING:
        clean_pass_over(store);
        return true;
    case CLEANER_WALKING:
        break;
    }
    UNREACHABLE("no such state");
}

/* ---- scrubbing -------------------------------------------------------------------------------- */

static int scrub_record(void *arg, const struct record *record, uint64_t address, size_t size, bool is_cold)
{
    struct store *store = arg;

    MAYBE(record);
    MAYBE(address);
    MAYBE(is_cold);
    store->stats.scrubbed_bytes += size;
    return 0;
}

static void scrub_walked(void *arg, int err)
{
    struct store *store = arg;
    struct cleaner *cleaner = store->cleaner;

    cleaner->is_scrubbing = false;
    if (err == ERR_AGAIN) {
        cleaner->scrub_off = cleaner->scrub.off;
        return;
    }
    if (err == ERR_CORRUPT)
        store->stats.corrupt_records++; /* the log has said where */
    cleaner->scrub_sequence++;
    cleaner->scrub_off = 0;
}

/* The sealed segment with the lowest sequence from `from` on; NULL: none. */
static const struct segment_info *scrub_find(const struct store *store, uint64_t from)
{
    const struct segment_info *found = NULL;

    for (uint32_t i = 0; i < store_log_segment_count(store->log); i++) {
        const struct segment_info *segment = store_log_segment(store->log, i);

        if (segment->state == SEGMENT_SEALED && segment->sequence >= from &&
            (found == NULL || segment->sequence < found->sequence))
            found = segment;
    }
    return found;
}

/* One piece of about 1 MiB at a time, so spread that all of the disk is seen in SCRUB_PERIOD_MS. */
void cleaner_scrub_work(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;
    const struct segment_info *segment;
    struct store_log_stats stats;

    if (cleaner->is_scrubbing || store->now_ms < cleaner->scrub_next_ms)
        return;
    store_log_stats_get(store->log, &stats);
    cleaner->scrub_next_ms = store->now_ms + MIN(SCRUB_PERIOD_MS / (1 + (stats.disk_bytes >> 20)), 60000u);
    segment = scrub_find(store, cleaner->scrub_sequence);
    if (segment == NULL) {
        cleaner->scrub_sequence = cleaner->scrub_off = 0;
        return;
    }
    if (segment->sequence != cleaner->scrub_sequence)
        cleaner->scrub_off = 0;
    cleaner->scrub_sequence = segment->sequence;
    cleaner->is_scrubbing = true;
    cleaner->scrub = (struct store_log_walk){
        .arg = store,
        .record = scrub_record,
        .done = scrub_walked,
        .sequence = segment->sequence,
        .off = cleaner->scrub_off,
        .piece_bytes = PIECE_BYTES,
        .yields = true,
    };
    store_log_walk(store->log, &cleaner->scrub);
}
