/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reclaims dead space: walks a victim, copies what is live to a cold segment, points the index there. The
 * victim is free after the next checkpoint.
 *
 *     victim (sealed)              index                       cold, by class
 *     [A1][B1][A2][C1][tomb D]     A: victim+2 => cold+0       [A2][C1][tomb D] ...
 *
 *   L1  A SET or IMAGE is live iff the entry's address is exactly this one: sequence and offset, not only the key
 *       and the LSN.
 *   L3  A DELTA is live iff it is in the chain: newer than the object's image, of the same base. It is not moved:
 *       the object gets a fresh image, which ends the chain.
 *   L4  A TOMB or FLUSH is live iff its LSN is above the horizon: one of the checkpoints kept may still have the key.
 *       Not one of a transaction that was cut.
 *   L8  Counts of live bytes only choose victims. A victim is done when a walk from end to end found nothing live.
 *   L9  It is free only when a checkpoint that began after that is durable.
 *   L10 The liveness check, the copy and the switch of the address happen in one call.
 *   Z1  A copy keeps LSN, epoch and content: readers and replicas cannot tell that it was moved.
 *
 * Victims: by (1 - u) * age / (1 + u) for live share u. How much: nothing while a quarter of the space is free (or,
 * without a bound, while less than half of what is used is dead), then one piece a step, more the less is free.
 */
#include "backend/store/cleaner.h"

#include "backend/store/checkpoint.h"
#include "backend/store/store_private.h"
#include "common/base/mem.h"

#define EMPTIED_MAX        4096u
#define PASSES_MAX         8u
#define HOUR_MS            3600000ull
#define DAY_MS             86400000ull
#define DEAD_PERCENT_START 50u /* of what is used, where disk_max is not set */
#define FREE_PERCENT_START 25u
#define SCRUB_PERIOD_MS    (7 * DAY_MS)
#define FETCHES_MAX        64u
#define PIECE_BYTES        (256u << 10)
#define GIVE_UP_PAUSE_MS   100u

enum cleaner_state { CLEANER_IDLE, CLEANER_WALKING, CLEANER_PAUSED, CLEANER_FETCHING, CLEANER_FLUSHING };

struct cleaner {
    uint8_t state;
    uint64_t victim, off;
    uint64_t moved_bytes, found_live; /* in this pass */
    uint32_t passes;
    uint64_t again_ms; /* not before: the last one was given up */
    int err;
    /* Deltas of cold chains in the victim: their keys come into memory first. */
    struct cleaner_fetch {
        struct store_waiter waiter;
        struct store *store;
    } fetches[FETCHES_MAX];
    uint32_t fetches_under_way;
    /* Emptied since the last checkpoint began; a checkpoint must come before they are free. */
    uint64_t emptied[EMPTIED_MAX];
    uint32_t emptied_count;
    struct store_log_walk walk;
    /* Scrubbing: */
    struct store_log_walk scrub;
    uint64_t scrub_sequence, scrub_off, scrub_next_ms;
    bool is_scrubbing;
};

/* Cold streams: young and old of {an hour, a day, longer}. "Old" is what has been moved before. */
unsigned cleaner_class(const struct store *store, uint64_t expire_ms)
{
    if (expire_ms == 0 || expire_ms > store->now_ms + DAY_MS)
        return 2;
    return expire_ms > store->now_ms + HOUR_MS ? 1 : 0;
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
    struct cleaner *cleaner = store->cleaner;
    uint64_t address;
    int err = store_log_cold_append(store->log, record, cleaner_class(store, record->expire_ms) , &address);

    if (err != 0)
        return err;
    cleaner->moved_bytes += record_size(record);
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
    if (err != 0 && err != ERR_AGAIN && cleaner->err == 0)
        cleaner->err = err;
}

/* A cold chain: into memory with it; the next pass makes its image. */
static void clean_fetch(struct store *store, const struct record *record, uint64_t hash, struct entry *e)
{
    struct cleaner *cleaner = store->cleaner;
    struct store_key key = {.name = record->key, .hash = hash, .entry = e, .db = record->db};

    for (uint32_t i = 0; i < FETCHES_MAX; i++) {
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
        store->cleaner->found_live++;
        return store_image(store, hash, e);
    }
    chain = entry_is_cold(e) ? chain_find(store, hash, e) : NULL;
    if (chain == NULL || chain->base_lsn != base || record->lsn <= chain->image_lsn)
        return 0;
    store->cleaner->found_live++;
    clean_fetch(store, record, hash, e);
    return 0;
}

/* A walk also tells of transactions that were cut: what those took away is still there. A copy of such a record would
 * take it away after all. */
static bool clean_has_happened(const struct store *store, const struct record *record)
{
    const struct entry *e;

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
    if (record->type == RECORD_TOMB || record->type == RECORD_FLUSH || record->type == RECORD_SWAP) {
        if (record->lsn <= checkpoint_horizon(store) || !clean_has_happened(store, record))
            return 0;
        cleaner->found_live += cleaner->passes == 0; /* a copy is enough */
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
    cleaner->found_live++;
    return clean_move(store, record, hash, e);
}

/* ---- a victim --------------------------------------------------------------------------------- */

static void clean_give_up(struct store *store, int err)
{
    struct cleaner *cleaner = store->cleaner;

    if (err != -ENOSPC) /* which the log has told */
        log_warn(store->text_log, "store: a segment cannot be cleaned shard=%u sequence=%llu why=\"%s\"",
                 store->options.shard, (unsigned long long)cleaner->victim, err_text(err));
    /* Damage stays where it is, for the peers or an operator to mend; the next victim is another one. */
    if (err == ERR_CORRUPT)
        store_log_pin(store->log, cleaner->victim, true);
    cleaner->again_ms = store->now_ms + GIVE_UP_PAUSE_MS;
    cleaner->state = CLEANER_IDLE;
    cleaner->err = 0;
}

static void clean_flushed(void *arg, int err)
{
    struct store *store = arg;
    struct cleaner *cleaner = store->cleaner;

    if (err != 0) {
        clean_give_up(store, err);
        return;
    }
    cleaner->state = CLEANER_IDLE;
    if (cleaner->emptied_count < EMPTIED_MAX)
        cleaner->emptied[cleaner->emptied_count++] = cleaner->victim;
    store->stats.cleaner_segments++;
}

static void clean_walked(void *arg, int err)
{
    struct store *store = arg;
    struct cleaner *cleaner = store->cleaner;

    if (err == ERR_AGAIN) {
        cleaner->state = CLEANER_PAUSED;
        cleaner->off = cleaner->walk.off;
        return;
    }
    if (err != 0) {
        clean_give_up(store, err);
        return;
    }
    cleaner->state = CLEANER_FETCHING; /* also without any: the next step decides */
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
    };
    store_log_walk(store->log, &cleaner->walk);
}

static void clean_pass_over(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;

    if (cleaner->fetches_under_way > 0)
        return;
    if (cleaner->err != 0) {
        clean_give_up(store, cleaner->err);
        return;
    }
    if (cleaner->found_live > 0) { /* L8: once more, from end to end */
        if (++cleaner->passes > PASSES_MAX) {
            clean_give_up(store, ERR_AGAIN);
            return;
        }
        cleaner->found_live = 0;
        clean_pass(store, 0);
        return;
    }
    cleaner->state = CLEANER_FLUSHING;
    store_log_flush(store->log, clean_flushed, store);
}

static bool is_emptied(const struct cleaner *cleaner, uint64_t sequence)
{
    for (uint32_t i = 0; i < cleaner->emptied_count; i++)
        if (cleaner->emptied[i] == sequence)
            return true;
    return false;
}

static double clean_benefit(const struct store *store, const struct segment_info *segment)
{
    double used = (double)MAX(segment->record_bytes, 1u);
    double u = MIN((double)segment->live_bytes / used, 1.0);
    double age = 1.0 + (double)(store_log_next_sequence(store->log) - segment->sequence);

    return (1.0 - u) * age / (1.0 + u);
}

static bool clean_choose(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;
    double best = 0;

    cleaner->victim = 0;
    for (uint32_t i = 0; i < store_log_segment_count(store->log); i++) {
        const struct segment_info *segment = store_log_segment(store->log, i);
        double benefit;

        if (segment->state != SEGMENT_SEALED || segment->pins > 0 || is_emptied(cleaner, segment->sequence))
            continue;
        /* Moving more than nine tenths of a segment gains nothing. */
        if (segment->live_bytes * 10 > segment->record_bytes * 9)
            continue;
        benefit = clean_benefit(store, segment);
        if (benefit > best) {
            best = benefit;
            cleaner->victim = segment->sequence;
        }
    }
    return cleaner->victim != 0;
}

/* ---- when ------------------------------------------------------------------------------------- */

struct space {
    uint64_t used, dead, free, total;
};

static struct space space_of(const struct store *store)
{
    struct store_log_stats stats;
    struct space space = {0};
    uint64_t unit = store->options.segment_size != 0 ? store->options.segment_size : 64u << 20;

    store_log_stats_get(store->log, &stats);
    for (uint32_t i = 0; i < store_log_segment_count(store->log); i++) {
        const struct segment_info *segment = store_log_segment(store->log, i);

        if (segment->state != SEGMENT_SEALED || is_emptied(store->cleaner, segment->sequence))
            continue;
        space.used += segment->record_bytes;
        space.dead += segment->record_bytes - MIN(segment->live_bytes, segment->record_bytes);
    }
    space.total = store->options.disk_max;
    if (space.total != 0)
        space.free = stats.segments_free * unit +
                     (space.total > stats.disk_bytes ? space.total - stats.disk_bytes : 0);
    return space;
}

static bool cleaning_is_due(const struct store *store)
{
    struct space space = space_of(store);
    uint64_t unit = store->options.segment_size != 0 ? store->options.segment_size : 64u << 20;

    if (space.dead < 2 * unit)
        return false;
    if (space.total != 0)
        return space.free * 100 < space.total * FREE_PERCENT_START;
    return space.dead * 100 > space.used * DEAD_PERCENT_START;
}

bool cleaner_wants_checkpoint(const struct store *store)
{
    const struct cleaner *cleaner = store->cleaner;
    struct space space;

    if (cleaner->emptied_count == 0)
        return false;
    space = space_of(store);
    if (space.total == 0)
        return cleaner->emptied_count >= 16;
    /* Before the free ones run out, and not for every single one. */
    return space.free * 8 < space.total || cleaner->emptied_count >= 64 || store_log_is_disk_full(store->log);
}

void cleaner_checkpoint_begins(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;

    for (uint32_t i = 0; i < cleaner->emptied_count; i++)
        store_log_cleaned(store->log, cleaner->emptied[i]);
    cleaner->emptied_count = 0;
}

bool cleaner_work(struct store *store)
{
    struct cleaner *cleaner = store->cleaner;

    switch ((enum cleaner_state)cleaner->state) {
    case CLEANER_IDLE:
        if (store->now_ms < cleaner->again_ms || cleaner->emptied_count == EMPTIED_MAX || !cleaning_is_due(store) || !clean_choose(store))
            return false;
        cleaner->passes = 0;
        cleaner->found_live = cleaner->moved_bytes = 0;
        cleaner->err = 0;
        clean_pass(store, 0);
        return true;
    case CLEANER_PAUSED:
        clean_pass(store, cleaner->off);
        return true;
    case CLEANER_FETCHING:
        clean_pass_over(store);
        return true;
    case CLEANER_WALKING:
    case CLEANER_FLUSHING:
        return false;
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
    };
    store_log_walk(store->log, &cleaner->scrub);
}
