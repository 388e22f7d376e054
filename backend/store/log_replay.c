/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a recovery: frames of the ring that the disk does not have, then everything is made durable.
 *
 * The ring stays as it is until its frames are durable in a new segment: whoever is killed meanwhile leaves it to the
 * next. They go there as they are, byte by byte. What `appended` promised must be there in the end.
 *
 * They may need more segments than are free: then it goes on when the next one is made.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_recover.h"

/* ---- into a new segment ----------------------------------------------------------------------- */

/* Frames from `from` on that go into one page write. */
static uint32_t page_frames(const struct log_recover *r, uint32_t from, size_t *size)
{
    uint32_t to = from;

    *size = PAGE_HEADER_SIZE;
    while (to < r->frame_count && (to == from || *size + r->frames[to].frame.size <= r->log->page_max))
        *size += r->frames[to++].frame.size;
    return to;
}

/* ERR_AGAIN: one is being made. */
static int segment_wait(struct store_log *log)
{
    log->is_segment_wanted = true;
    log_segments_make(log);
    if (log->making != NULL)
        return ERR_AGAIN;
    log->is_segment_wanted = false;
    return log->error != 0 ? log->error : -ENOSPC;
}

static int page_place(struct log_recover *r, size_t size, uint64_t chain)
{
    struct store_log *log = r->log;
    struct segment *segment = log->hot_segment;

    if (segment != NULL && log_segment_end(segment) - segment->info.used_bytes >= size)
        return 0;
    if (size > log->options.segment_size - 2 * PAGE_SIZE_) {
        log_error(log->text, "store: the log ring has changes of the process before that do not fit into a segment, start "
                  "once with a larger segment_size shard=%u segment_size=%llu needed=%zu", log->options.shard,
                  (unsigned long long)log->options.segment_size, size + 2 * PAGE_SIZE_);
        return -ENOSPC;
    }
    if (log->ready_count == 0)
        return segment_wait(log);
    if (segment != NULL)
        log_segment_finish(segment);
    log->chain = chain;
    log->last_lsn = r->lsn; /* a recovery that starts there begins with that */
    log->hot_segment = log_segment_take(log, SEGMENT_HOT, 0, true);
    return 0;
}

static int page_replay(struct log_recover *r, uint32_t from, uint32_t to, size_t used)
{
    struct store_log *log = r->log;
    size_t size = round_up(used, PAGE_SIZE_), at = PAGE_HEADER_SIZE;
    int err = page_place(r, size, r->frames[from].frame.chain_before);
    struct segment *segment = log->hot_segment;
    struct log_write *write;
    char *data;

    if (err != 0)
        return err;
    data = mem_alloc_aligned(size, PAGE_SIZE_);
    if (data == NULL)
        return ERR_FULL;
    memset(data, 0, size);
    for (uint32_t i = from; i < to && err == 0; i++) {
        const struct ring_frame *frame = &r->frames[i];
        struct bytes bytes = bytes_of(data + at, frame->frame.size);

        memcpy(data + at, frame->data, frame->frame.size);
        segment->chain_end = frame->frame.chain;
        err = log_recover_take(r, segment, address_of(segment->info.sequence, segment->info.used_bytes + at),
                               &frame->frame, bytes, true, true);
        at += frame->frame.size;
    }
    log_page_header(log, segment, segment->info.used_bytes, used, to - from, data);
    write = log_write_get(log, segment, data, size, segment->info.used_bytes);
    write->is_page = true;
    segment->info.used_bytes += size;
    log->heap_count++;
    log->heap_bytes += size;
    log_write_queue(write);
    return err;
}

static int frames_replay(struct log_recover *r)
{
    while (r->frame_replayed < r->frame_count) {
        size_t used;
        uint32_t to = page_frames(r, r->frame_replayed, &used);
        int err = page_replay(r, r->frame_replayed, to, used);

        if (err != 0)
            return err;
        r->frame_replayed = to;
    }
    return 0;
}

/* ---- the end ---------------------------------------------------------------------------------- */

/* Told from the loop, when nothing is under way any more: the scans' structs may be in use up the stack. */
void log_recover_end(struct log_recover *r, int err)
{
    struct store_log *log = r->log;

    r->err = err;
    r->is_over = true;
    log_soon(log);
    if (err != 0)
        return;
    log->state = LOG_RUNNING;
    r->replay.done(r->replay.arg, 0);
}

void log_recover_failed(struct log_recover *r)
{
    struct store_log *log = r->log;

    log_error(log->text, "store: the log cannot be recovered shard=%u dir=%s why=\"%s\"", log->options.shard, log->dir,
              err_text(r->err));
    log->state = LOG_CLOSED;
    r->replay.done(r->replay.arg, r->err);
}

/* The log may end below the checkpoint: a segment of its own, with nothing in it that lives, was given back. */
static uint64_t lsn_known(const struct log_recover *r)
{
    return MAX(r->lsn, r->lsn_floor);
}

/* `fsync` as it is set now: as it was then, but for who has changed it meanwhile. A newest segment that is gone with the
 * ring that told of it leaves no trace. */
static void ring_lost_tell(const struct store_log *log, uint64_t lsn)
{
    static const char *const missing[] = {
        [STORE_FSYNC_NO] = "with fsync no, changes that the kernel had not written may be missing, of about 30 seconds",
        [STORE_FSYNC_EVERYSEC] = "with fsync everysec, changes since the last flush may be missing, of about a second",
        [STORE_FSYNC_ALWAYS] = "with fsync always, all that was answered had been flushed to its files",
    };

    log_warn(log->text, "store: the node before did not stop cleanly and its log ring is gone (the host was restarted, "
             "/dev/shm was emptied, or node.id, which names it, is another one): %s; whether the newest of its files is there "
             "cannot be told without the ring shard=%u dir=%s ring=%s recovered_lsn=%llu", missing[log->options.fsync],
             log->options.shard, log->dir, log->options.ring_path, (unsigned long long)lsn);
}

static void replay_durable(void *arg, int err)
{
    struct log_recover *r = arg;
    struct store_log *log = r->log;
    uint64_t lsn;

    if (err != 0) {
        log_recover_end(r, log->error != 0 ? log->error : err);
        return;
    }
    log_ring_reset(&log->ring);
    err = log_ring_resize(log);
    if (err != 0) {
        log_recover_end(r, err);
        return;
    }
    log->chain = r->chain;
    log->last_lsn = MAX(r->lsn_floor, r->lsn_max);
    lsn = log->sealed_lsn = lsn_known(r);
    log->marks = (struct store_marks){.appended = lsn, .written = lsn, .durable = lsn};
    log->recovered_lsn = lsn;
    if (log->is_ring_lost)
        ring_lost_tell(log, lsn);
    if (log->ring.is_shared) {
        log_ring_appended_set(&log->ring, lsn);
        log_ring_lost_forget(&log->ring);
    }
    log_recover_end(r, 0);
}

/* A header that did not verify, or a segment that was not there: was anything lost with it? */
static int suspect_check(const struct log_recover *r)
{
    const struct store_log *log = r->log;
    uint64_t found = lsn_known(r), known = MAX(r->replay.durable_lsn, log->free_mark);
    char path[LOG_PATH_MAX];

    if (r->lost_mark > found) {
        log_segment_path(log, r->lost->info.slot, path);
        log_error(log->text, "store: a segment's first page write does not verify, or the segment before it is missing, "
                  "nothing is cut shard=%u file=%s offset=%u before=%llu lsn=%llu found=%llu", log->options.shard, path,
                  PAGE_SIZE_, (unsigned long long)r->lost->header.prev_sequence, (unsigned long long)r->lost_mark,
                  (unsigned long long)r->lsn);
        return ERR_CORRUPT;
    }
    if (known > found) {
        log_error(log->text, "store: changes are missing that were durable, nothing is cut shard=%u dir=%s offset=0 "
                  "lsn=%llu found=%llu", log->options.shard, log->dir, (unsigned long long)known,
                  (unsigned long long)found);
        return ERR_CORRUPT;
    }
    if (log->suspect_lsn <= r->lsn)
        return 0;
    log_segment_path(log, log->suspect_slot, path);
    log_error(log->text, "store: a segment's header is damaged, nothing is cut file=%s offset=0 lsn=%llu found=%llu",
              path, (unsigned long long)log->suspect_lsn, (unsigned long long)r->lsn);
    return ERR_CORRUPT;
}

static int promise_check(const struct log_recover *r)
{
    struct store_log *log = r->log;
    uint64_t promised = log->ring.had_content ? log_ring_appended(&log->ring) : 0;

    if (lsn_known(r) >= promised)
        return 0;
    log_error(log->text, "store: the log ring promises changes that are neither in it nor on disk: a segment may be missing; "
              "put it back, or remove the ring to go on without them ring=%s lsn=%llu found=%llu", log->options.ring_path, (unsigned long long)promised,
              (unsigned long long)r->lsn);
    return ERR_CORRUPT;
}

static void ring_replay(struct log_recover *r)
{
    int err = frames_replay(r);

    if (err == ERR_AGAIN)
        return;
    if (err == 0)
        err = promise_check(r);
    if (err != 0)
        log_recover_end(r, err);
    else
        log_flush(r->log, true, replay_durable, r);
}

void log_replay_made(struct store_log *log)
{
    if (!log->is_segment_wanted)
        return;
    log->is_segment_wanted = false;
    ring_replay(log->recover);
}

void log_replay_ring(struct log_recover *r)
{
    int err = suspect_check(r);

    if (err != 0) {
        log_recover_end(r, err);
        return;
    }
    if (r->log->ring.had_content) {
        uint64_t bad_off; /* what cannot be read counts by what was promised */

        r->frames = ring_frames(r->log->ring.base, r->log->ring.page_count, &r->frame_count, &bad_off);
        r->frame_count = ring_frames_choose(r->frames, r->frame_count, r->chain, r->pending_chain);
    }
    ring_replay(r);
}
