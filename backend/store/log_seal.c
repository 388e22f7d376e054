/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending the open segments before they are full, so that their files never change again: for a backup.
 *
 *     page writes closed, segments finished ──flush──> all durable: footers written ──flush──> footers durable
 *
 * Where all is durable already the first flush is none, and nothing but this asks for the footers.
 *
 * And the hot one alone, where large records are all that comes: they have files of their own, fill no segment, and can
 * only go when a later one is begun, and has something in it.
 */
#include "backend/store/log_private.h"

struct log_seal {
    struct store_log *log;
    void (*done)(void *arg, int err);
    void *arg;
    bool is_footed;
};

static void seal_flushed(void *arg, int err)
{
    struct log_seal *seal = arg;
    void (*done)(void *, int) = seal->done;
    void *done_arg = seal->arg;

    if (err == 0 && !seal->is_footed) {
        seal->is_footed = true;
        store_log_flush(seal->log, seal_flushed, seal);
        return;
    }
    mem_free(seal);
    done(done_arg, err);
}

static void open_finish(struct store_log *log)
{
    struct segment *hot = log->hot_segment;

    log_page_close(log);
    if (hot != NULL && log->last_lsn >= hot->header.first_lsn) {
        log_segment_finish(hot);
        log->hot_segment = NULL;
    }
    log_cold_end_all(log);
    log_segments_foot(log);
}

/* What nobody needs, and the next checkpoint cannot give back: behind the hot segment that a recovery would begin with, or
 * before it when it has nothing in it yet. Bytes of both. */
static void held_count(const struct store_log *log, uint64_t *behind, uint64_t *before)
{
    uint64_t from = store_log_hot_sequence(log);
    bool is_empty = true;

    *behind = *before = 0;
    for (uint32_t i = 0; i < log->used_count; i++) {
        const struct segment *segment = log->used[i];
        uint64_t sequence = segment->info.sequence;

        if (sequence == from)
            is_empty = segment->info.record_bytes == 0 && !segment->has_page;
        else if (segment->is_hot && segment->info.state == SEGMENT_CLEANED)
            *(sequence > from ? behind : before) += segment->info.size;
    }
    if (!is_empty)
        *before = 0;
}

bool store_log_roll(struct store_log *log)
{
    uint64_t behind, before;

    if (log->error != 0 || log->state != LOG_RUNNING || log->is_atomic || log->is_unit_open)
        return false;
    held_count(log, &behind, &before);
    if (behind + before < log->options.segment_size || !store_log_has_room(log) ||
        ((behind > 0 || log->hot_segment == NULL) && !log_segment_available(log, true)))
        return false;
    log_page_close(log);
    if (behind > 0 && log->hot_segment != NULL) {
        log_segment_finish(log->hot_segment);
        log->hot_segment = NULL;
    }
    return true;
}

int store_log_seal(struct store_log *log, void (*done)(void *arg, int err), void *arg)
{
    struct log_seal *seal;

    if (log->error != 0)
        return -EROFS;
    if (log->is_atomic || log->is_unit_open)
        return ERR_AGAIN;
    if (!log_segment_available(log, true)) /* for those that come after */
        return store_log_is_disk_full(log) ? -ENOSPC : ERR_AGAIN;
    store_log_turn_end(log);
    if (log->error != 0)
        return -EROFS;
    seal = must_zalloc(sizeof(*seal));
    seal->log = log;
    seal->done = done;
    seal->arg = arg;
    open_finish(log);
    store_log_flush(log, seal_flushed, seal);
    return 0;
}
