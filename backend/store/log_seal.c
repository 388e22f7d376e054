/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending the open segments before they are full, so that their files never change again: for a backup.
 *
 *     page writes closed, segments finished ──flush──> all durable: footers written ──flush──> footers durable
 *
 * And the hot one alone, where large records are all that comes: they have files of their own, fill no segment, and can
 * only go when a later one is begun.
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
    log_cold_close_all(log);
    if (hot != NULL && log->last_lsn >= hot->header.first_lsn) {
        log_segment_finish(hot);
        log->hot_segment = NULL;
    }
    for (unsigned i = 0; i < LOG_CLASSES; i++) {
        if (log->classes[i].segment != NULL)
            log_segment_finish(log->classes[i].segment);
        log->classes[i].segment = NULL;
    }
}

/* Of large records behind the open hot segment, nothing lives in them. */
static uint64_t held_bytes(const struct store_log *log)
{
    uint64_t bytes = 0;

    for (uint32_t i = log->used_count; i > 0; i--) {
        const struct segment *segment = log->used[i - 1];

        if (segment == log->hot_segment)
            break;
        if (segment->is_hot && segment->info.state == SEGMENT_CLEANED)
            bytes += segment->info.size;
    }
    return bytes;
}

bool store_log_roll(struct store_log *log)
{
    if (log->error != 0 || log->state != LOG_RUNNING || log->is_atomic || log->is_unit_open || log->hot_segment == NULL ||
        held_bytes(log) < log->options.segment_size || !log_segment_available(log, true) || !store_log_has_room(log))
        return false;
    log_page_close(log);
    log_segment_finish(log->hot_segment);
    log->hot_segment = NULL;
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
