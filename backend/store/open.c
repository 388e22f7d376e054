/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store's life: opening, background work, closing.
 *
 *     log's directory -> checkpoint -> log since -> ring -> open ... work ... -> checkpoint -> closed
 *
 *   W1  Nothing is served before all that was appended is found again.
 *   W2  Background work is cut into steps of at most about 200 us; a step is done each millisecond while there is something
 *       to do, else every WORK_IDLE_MS. Where clients would have to wait for it soon a step is done each turn: then the core is
 *       left to others once in a while, as a client that shares it could not run until the scheduler takes it away.
 */
#include "backend/store/backup.h"
#include "backend/store/checkpoint.h"
#include "backend/store/cleaner.h"
#include "backend/store/replay.h"
#include "backend/store/store_private.h"

#include "common/base/mem.h"

#define WORK_BUSY_MS   1u
#define WORK_IDLE_MS   20u
#define CLOSING_STEPS  64u   /* a turn */
#define AGAIN_MS       10000u /* after a checkpoint that failed */
#define AGAIN_SOON_MS  50u    /* ... and for which there is room now, or soon */
#define DYING_ELEMENTS 2000u /* a step */
#define SWEEP_BUCKETS  256u
#define EXPIRY_BUDGET  2000u
#define COMPACT_SHARE  16u         /* of the used bytes may lie idle in pages, */
#define COMPACT_BYTES_MIN (4u << 20) /* and this much */
#define COMPACT_PAUSE_MS 5000u      /* between two walks */
#define CLEAR_ENTRIES  64u          /* moved in a step, out of what is left of a huge page */
/* LSNs left out at a start: those of changes that a power cut took are not given again, as memcache's cas shows them. */
#define LSN_GAP        (1u << 20)
#define EFFECTS_KEEP   (64u << 10)
/* By default. With less a page write that was in the log ring would not fit, whatever size it was made with. */
#define SEGMENT_SIZE_MIN (2u << 20)
#define SEGMENT_SIZE_MAX (64u << 20)
#define SEGMENTS_WANTED  512u

/* ---- the end ---------------------------------------------------------------------------------- */

static void store_free(struct store *store)
{
    backup_destroy(store);
    cleaner_destroy(store);
    replay_destroy(store);
    checkpoint_destroy(store);
    fetches_destroy(store);
    spill_destroy(store);
    while (store_dying_work(store, UINT32_MAX))
        ;
    store_keys_destroy(store);
    chains_destroy(store);
    index_destroy(&store->index);
    slab_destroy(&store->slab);
    page_stock_deinit(&store->stock);
    store_log_destroy(&store->log);
    buffer_deinit(&store->effects);
    buffer_deinit(&store->scratch);
    mem_free(store);
}

static void destroy_each(void *arg, struct entry *e)
{
    struct store *store = arg;

    if (entry_is_object(e))
        store->options.types[entry_type(e)]->destroy(entry_object(e));
    slab_put(store->slab, e, entry_size(e));
}

/* The index is left with dangling pointers: it goes next. */
void store_keys_destroy(struct store *store)
{
    uint64_t at = 0;

    if (store->index == NULL || index_count(store->index) == 0)
        return;
    do
        at = index_sweep(store->index, at, destroy_each, store);
    while (at != 0);
}

void store_destroy(struct store **store)
{
    if (*store == NULL)
        return;
    io_timer_stop(&(*store)->work_timer);
    store_free(*store);
    *store = NULL;
}

static void stock_closed(void *arg)
{
    struct store *store = arg;

    store->state = STORE_CLOSED;
    store->close_done(store->close_arg, store->close_err);
}

static void log_closed(void *arg, int err)
{
    struct store *store = arg;

    store->close_err = err;
    if (page_stock_close(&store->stock, stock_closed, store))
        stock_closed(store);
}

static void close_checkpointed(struct store *store, int err)
{
    MAYBE(err != 0); /* logged; the log has all of it */
    store_log_close(store->log, log_closed, store);
}

/* One that was under way has ended: the last one begins, unless the log has failed. */
static void close_step(struct store *store)
{
    if (checkpoint_is_running(store))
        return;
    store->is_last_checkpoint = true;
    if (store_log_error(store->log) != 0) {
        store_log_close(store->log, log_closed, store);
        return;
    }
    store_turn_end(store);
    cleaner_checkpoint_begins(store);
    checkpoint_start(store, true, close_checkpointed);
}

void store_close(struct store *store, void (*done)(void *arg, int err), void *arg)
{
    ASSERT(store->state == STORE_OPEN);
    store->state = STORE_CLOSING;
    store->close_done = done;
    store->close_arg = arg;
    if (store->log == NULL) {
        log_closed(store, 0);
        return;
    }
    store_log_leave(store->log);
    close_step(store);
    io_timer_start(store->io, &store->work_timer, 0);
}

/* ---- work ------------------------------------------------------------------------------------- */

static void sweep_each(void *arg, struct entry *e)
{
    struct store *store = arg;

    if (!store_is_flushed(store, e))
        return;
    store->flushed_left -= store->flushed_left > 0;
    store_entry_destroy(store, index_hash(store->index, entry_db(e), entry_key(e)), e);
}

/* Frees what a flush has hidden. `flushed_left` is what was counted then: the walk goes round at least once. */
static bool flushed_work(struct store *store)
{
    if (store->flushed_left == 0)
        return false;
    for (unsigned i = 0; i < SWEEP_BUCKETS; i++) {
        store->sweep_at = index_sweep(store->index, store->sweep_at, sweep_each, store);
        if (store->sweep_at == 0 && ++store->sweep_rounds >= 2) {
            store->flushed_left = 0;
            store->sweep_rounds = 0;
            return false;
        }
    }
    return true;
}

static void expire_each(void *arg, struct entry *e)
{
    struct store *store = arg;

    if (!store_is_flushed(store, e))
        store_expire(store, index_hash(store->index, entry_db(e), entry_key(e)), e);
}

static bool expiry_step(struct store *store)
{
    uint64_t expiring = 0;

    for (uint8_t db = 0; db < STORE_DBS; db++)
        expiring += store->expiring[db];
    if (store->is_expiry_paused || expiring == 0 || (store->log != NULL && !store_log_has_room(store->log)))
        return false;
    return expiry_work(&store->expiry, store->index, store->now_ms, expiring, EXPIRY_BUDGET, expire_each, store) >
           EXPIRY_BUDGET / 16;
}

static void entry_move(void *arg, void *object)
{
    struct store *store = arg;
    struct entry *e = object;
    size_t size = entry_size(e);
    struct entry *moved = slab_get(store->slab, size);

    if (moved == NULL)
        return;
    memcpy(moved, e, size);
    index_replace(store->index, index_hash(store->index, entry_db(e), entry_key(e)), e, moved);
    slab_put(store->slab, e, size);
}

static void compact_each(void *arg, struct entry *e)
{
    struct store *store = arg;
    size_t size = entry_size(e);

    if (size <= SLAB_SIZE_MAX && slab_is_sparse(store->slab, e, size))
        entry_move(store, e);
}

#ifdef DCHECK_ON
static void shake_each(void *arg, struct entry *e)
{
    if (entry_size(e) <= SLAB_SIZE_MAX)
        entry_move(arg, e);
}

/* Checked builds move entries all the time: who keeps a pointer to one too long is found out. */
static void entries_shake(struct store *store)
{
    store->shake_at = index_sweep(store->index, store->shake_at, shake_each, store);
}
#else
static void entries_shake(struct store *store)
{
    (void)store;
}
#endif

/* After many values went cold their pages hold few entries each, and their huge pages few pages: those move together. Nobody
 * keeps a pointer to an entry from one turn to the next. */
static bool compact_step(struct store *store)
{
    uint64_t used = slab_used_bytes(store->slab), pages = slab_page_bytes(store->slab);

    entries_shake(store);
    if (slab_clear(store->slab, CLEAR_ENTRIES, entry_move, store))
        return true;
    if (store->compact_at == 0 && (store->now_ms < store->compact_again_ms ||
                                   pages < used + used / COMPACT_SHARE + COMPACT_BYTES_MIN))
        return false;
    store->compact_again_ms = store->now_ms + COMPACT_PAUSE_MS;
    for (unsigned i = 0; i < SWEEP_BUCKETS; i++) {
        store->compact_at = index_sweep(store->index, store->compact_at, compact_each, store);
        if (store->compact_at == 0)
            return false;
    }
    return true;
}

static void on_state(void *arg);

static void work_checkpointed(struct store *store, int err)
{
    cleaner_checkpoint_ended(store, err == 0);
    store->checkpoint_err = err;
    if (err == 0) {
        store->checkpoint_good = store->checkpoints_begun;
    } else {
        store->is_checkpoint_wanted |= checkpoint_has_got_room(store);
        store->checkpoint_again_ms = store->now_ms + (checkpoint_has_got_room(store) ? AGAIN_SOON_MS : AGAIN_MS);
    }
    on_state(store);
}

/* There is what those who wait want, or there will not be. */
static bool room_is_decided(struct store *store)
{
    int err = store_log_is_disk_full(store->log) ? -ENOSPC : store_log_blob_room(store->log, store->blob_wanted);

    return err == 0 || (err == -ENOSPC && !cleaner_will_help(store));
}

static void work_roll(struct store *store)
{
    struct record record = {.type = RECORD_NOP};
    uint64_t address;

    if (!store_log_roll(store->log))
        return;
    MAYBE(store_append(store, &record, &address) != 0); /* no memory: with the next change */
    store_turn_end(store);
}

static bool log_work(struct store *store)
{
    bool is_busy = false;

    store_log_room_check(store->log);
    if (store_log_error(store->log) != 0 && !checkpoint_is_running(store))
        return false;
    if (store->state == STORE_OPEN)
        backup_work(store);
    if (!checkpoint_is_running(store) && store->state == STORE_OPEN && !backup_holds(store) &&
        store->now_ms >= store->checkpoint_again_ms &&
        (store->is_checkpoint_wanted || checkpoint_is_due(store) || cleaner_wants_checkpoint(store))) {
        store->is_checkpoint_wanted = false;
        store->checkpoints_begun++;
        store_turn_end(store);
        cleaner_checkpoint_begins(store);
        work_roll(store);
        checkpoint_start(store, false, work_checkpointed);
    }
    if (checkpoint_is_running(store))
        is_busy |= checkpoint_work(store);
    if (store->state == STORE_OPEN) {
        is_busy |= cleaner_work(store);
        cleaner_give_work(store);
        cleaner_scrub_work(store);
    }
    /* Who waits for room hears of it from the log; but also that there will be none. */
    if (store->waits_for_cleaner && room_is_decided(store)) {
        store->waits_for_cleaner = false;
        store->blob_wanted = 0;
        on_state(store);
    }
    return is_busy;
}

static bool work_step(struct store *store)
{
    bool is_busy = store_dying_work(store, DYING_ELEMENTS);

    if (store->is_atomic) /* half of a transaction is no state to write down */
        return is_busy;
    is_busy |= flushed_work(store);
    if (store->state == STORE_OPEN) {
        is_busy |= expiry_step(store);
        is_busy |= spill_work(store);
        is_busy |= compact_step(store);
    }
    if (store->log != NULL)
        is_busy |= log_work(store);
    if (store->effects.cap > EFFECTS_KEEP)
        buffer_deinit(&store->effects);
    if (store->scratch.cap > EFFECTS_KEEP)
        buffer_deinit(&store->scratch);
    return is_busy;
}

void store_work(struct store *store)
{
    MAYBE(work_step(store));
}

void store_work_soon(struct store *store, uint64_t delay_ms)
{
    uint64_t at_ms = io_now_ms(store->io) + delay_ms;

    if (store->state != STORE_OPEN && store->state != STORE_CLOSING)
        return;
    if (io_timer_is_running(&store->work_timer) && store->work_at_ms <= at_ms)
        return;
    store->work_at_ms = at_ms;
    io_timer_start(store->io, &store->work_timer, delay_ms);
}

static bool is_urgent(const struct store *store)
{
    return store->waits_for_cleaner || (store->log != NULL && cleaner_is_urgent(store));
}

static void work_fire(struct io_timer *timer)
{
    struct store *store = timer->arg;
    unsigned left = CLOSING_STEPS;
    bool is_busy;

    store_now_set(store, io_wall_us(store->io) / 1000);
    if (store->state == STORE_CLOSING) {
        if (!store->is_last_checkpoint)
            close_step(store);
        is_busy = true;
        /* The last one: nobody waits for us but the operator. */
        while (left > 0 && store->state == STORE_CLOSING && work_step(store))
            left--;
    } else {
        is_busy = work_step(store);
    }
    if (store->state != STORE_OPEN && store->state != STORE_CLOSING)
        return;
    if (is_busy && is_urgent(store)) {
        if (!store->waits_for_cleaner)
            io_yield(store->io);
        store_work_soon(store, 0);
    } else {
        store_work_soon(store, left == 0 ? 0 : is_busy ? WORK_BUSY_MS : WORK_IDLE_MS);
    }
}

uint64_t store_checkpoint(struct store *store)
{
    store->is_checkpoint_wanted = store->log != NULL;
    store_work_soon(store, 0);
    return store->checkpoints_begun + 1;
}

int store_checkpoint_result(const struct store *store, uint64_t number)
{
    bool is_running = store->log != NULL && checkpoint_is_running(store);
    uint64_t ended = store->checkpoints_begun - is_running;

    if (store->log == NULL || store->checkpoint_good >= number)
        return 0;
    if (ended >= number)
        return store->checkpoint_err;
    return is_running || store_log_error(store->log) == 0 ? -EINPROGRESS : store_log_error(store->log);
}

/* ---- the log's news --------------------------------------------------------------------------- */

static void on_marks(void *arg)
{
    struct store *store = arg;

    if (store->state == STORE_OPEN && store->options.hooks.marks != NULL)
        store->options.hooks.marks(store->options.hooks.arg);
}

static void on_state(void *arg)
{
    struct store *store = arg;

    if (store->state == STORE_OPEN && store->options.hooks.state != NULL)
        store->options.hooks.state(store->options.hooks.arg);
}

void store_break(struct store *store, int err)
{
    store->stats.write_errors++;
    if (store->stats.is_read_only)
        return;
    store->stats.is_read_only = true;
    log_line(store->text_log, LOG_ALERT, "store: a write failed, this shard is read-only until it is started "
             "again shard=%u dir=%s why=\"%s\"", store->options.shard,
             store->options.dir != NULL ? store->options.dir : "-", err_text(err));
    on_state(store);
}

static void on_failed(void *arg, int err)
{
    store_break(arg, err);
}

/* ---- opening ---------------------------------------------------------------------------------- */

static void open_end(struct store *store, int err)
{
    if (err == 0) {
        store->state = STORE_OPEN;
        if (store->options.touch_ahead)
            page_stock_open(&store->stock, store->io);
        store_work_soon(store, WORK_IDLE_MS);
    } else {
        log_error(store->text_log, "store: cannot be opened shard=%u dir=%s why=\"%s\"", store->options.shard,
                  store->options.dir, err_text(err));
    }
    store->open_done(store->open_arg, err);
}

static uint64_t keys_seen(const struct store *store)
{
    uint64_t keys = 0;

    for (uint8_t db = 0; db < STORE_DBS; db++)
        keys += store->counts[db];
    return keys;
}

static int replay_each(void *arg, const struct record *record, uint64_t address, size_t size, bool is_cold)
{
    struct store *store = arg;

    MAYBE(size);
    return replay_record(store, record, address, is_cold);
}

static void open_replayed(void *arg, int err)
{
    struct store *store = arg;

    store->is_replaying = false;
    if (err == 0)
        err = replay_finish(store);
    replay_destroy(store);
    if (err == 0) {
        store_log_epoch_set(store->log, store->epoch);
        store->lsn_gap = LSN_GAP;
        store->flushed_left = index_count(store->index) - keys_seen(store); /* of pages older than a flush */
        log_info(store->text_log, "store: open shard=%u keys=%llu lsn=%llu", store->options.shard,
                 (unsigned long long)index_count(store->index), (unsigned long long)store_lsn(store));
    }
    open_end(store, err);
}

static void open_loaded(struct store *store, int err)
{
    struct store_log_replay replay = {.arg = store, .record = replay_each, .done = open_replayed};

    if (err != 0) {
        open_end(store, err);
        return;
    }
    replay.durable_lsn = checkpoint_durable_lsn(store);
    store_log_lsn_floor(store->log, checkpoint_lsn(store));
    err = replay_begin(store, checkpoint_epoch(store), checkpoint_lsn(store));
    if (err != 0) {
        open_end(store, err);
        return;
    }
    store_log_recover(store->log, checkpoint_hot_from(store), checkpoint_cold_from(store), &replay);
}

static void open_log_opened(void *arg, int err)
{
    struct store *store = arg;

    if (err == 0)
        err = index_create(store_log_hash_seed(store->log), &store->stock, &store->index);
    if (err == 0)
        err = spill_create(store);
    if (err != 0) {
        open_end(store, err);
        return;
    }
    store->is_replaying = true;
    checkpoint_load(store, open_loaded);
}

static uint64_t on_beside(void *arg)
{
    return checkpoint_room(arg);
}

static int open_log(struct store *store)
{
    const struct store_options *options = &store->options;
    struct store_log_options log_options = {
        .io = store->io,
        .dir = options->dir,
        .ring_path = options->ring_path,
        .shard = options->shard,
        .shard_count = options->shard_count,
        .segment_size = options->segment_size,
        .ring_size = options->ring_size,
        .disk_max = options->disk_max,
        .fsync = options->fsync,
        .direct = options->direct,
        .arg = store,
        .marks = on_marks,
        .failed = on_failed,
        .room = on_state,
        .beside = on_beside,
    };
    int err = store_log_create(&log_options, &store->log);

    if (err == 0)
        err = checkpoint_create(store);
    if (err == 0)
        err = cleaner_create(store);
    return err;
}

/* Without a directory: a cache that forgets. */
static int open_memory(struct store *store)
{
    int err = index_create(io_random64(store->io), &store->stock, &store->index);

    return err != 0 ? err : spill_create(store);
}

/* Many segments, so that the cleaner has a choice and a partly filled one is little room; a power of two, so that a disk
 * that grows somewhat goes on with the files there are. */
static uint32_t segment_size_of(const struct store_options *options)
{
    uint64_t bytes = options->disk_max != 0 ? options->disk_max : options->file_system;
    uint32_t size = SEGMENT_SIZE_MAX;

    if (options->segment_size != 0 || bytes == 0)
        return options->segment_size != 0 ? options->segment_size : size;
    while (size > SEGMENT_SIZE_MIN && bytes / size < SEGMENTS_WANTED)
        size /= 2;
    return size;
}

int store_create(const struct store_options *options, void (*done)(void *arg, int err), void *arg,
                 struct store **out)
{
    struct store *store = mem_zalloc(sizeof(*store));
    int err = store == NULL ? ERR_FULL : 0;

    *out = NULL;
    if (err != 0)
        return err;
    store->options = *options;
    store->options.segment_size = segment_size_of(options);
    store->io = options->io;
    store->text_log = io_log(options->io);
    store->open_done = done;
    store->open_arg = arg;
    store->work_timer.fire = work_fire;
    store->work_timer.arg = store;
    list_init(&store->dying);
    for (uint8_t db = 0; db < STORE_DBS; db++)
        store->places[db] = store->names[db] = db;
    expiry_init(&store->expiry);
    store_now_set(store, io_wall_us(store->io) / 1000);
    err = slab_create(&store->stock, true, &store->slab);
    if (err == 0)
        err = fetches_create(store);
    if (err == 0)
        err = options->dir != NULL ? open_log(store) : open_memory(store);
    if (err != 0) {
        store_free(store);
        return err;
    }
    *out = store;
    if (store->log != NULL)
        store_log_open(store->log, open_log_opened, store);
    else
        open_end(store, 0);
    return 0;
}

void store_fsync_set(struct store *store, enum store_fsync fsync)
{
    store->options.fsync = fsync;
    if (store->log != NULL)
        store_log_fsync_set(store->log, fsync);
}

void store_memory_max_set(struct store *store, uint64_t bytes)
{
    store->options.memory_max = bytes;
}

void store_others_set(struct store *store, uint64_t bytes)
{
    store->others_bytes = bytes;
}

void store_disk_max_set(struct store *store, uint64_t bytes)
{
    store->options.disk_max = bytes;
    if (store->log != NULL)
        store_log_disk_max_set(store->log, bytes);
}

void store_stats_get(const struct store *store, struct store_stats *out)
{
    struct store_log_stats log = {0};
    uint64_t keys = keys_seen(store);

    *out = store->stats;
    out->keys = keys;
    out->cold_keys = store->cold_count;
    out->hot_keys = keys > store->cold_count ? keys - store->cold_count : 0;
    out->index_bytes = index_bytes(store->index);
    out->entry_bytes = slab_used_bytes(store->slab);
    out->object_bytes = store->object_bytes;
    out->memory_bytes = store_memory_bytes(store);
    out->objects_freeing = store->dying_count;
    if (store->log == NULL)
        return;
    store_log_stats_get(store->log, &log);
    out->disk_bytes = log.disk_bytes;
    out->disk_bound = store_log_bound(store->log);
    out->segments = log.segments;
    out->segments_free = log.segments_free;
    out->bytes_written += log.bytes_written;
    out->is_disk_full = store_log_is_disk_full(store->log);
    out->recovered_lsn = store_log_recovered_lsn(store->log);
    out->is_ring_lost = store_log_is_ring_lost(store->log);
    out->is_checkpointing = store->is_checkpoint_wanted || checkpoint_is_running(store);
}
