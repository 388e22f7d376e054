/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is on disk, in the order in which it happened.
 *
 *     hot:   S1 ──prev── S2 ──prev── S3        S3: the newest that has a page write; S2.prev_end is where S1 ends
 *            │frame│frame│frame ...            each frame names the chain before it; one that does not fit is the end
 *                      └── blob                of the log, or comes behind a blob whose header has that chain
 *     cold:  each by itself
 *
 * The end of the log is where no page write belongs, or a frame does not fit. Everything behind it is let go of, if
 * no page write seen anywhere knows an LSN as durable that is missing then. Else it is damage, and nothing is cut.
 * Every opening of a hot segment notes where the log ended then, so that a decision once taken stays: what lands late
 * behind that end, by a write of a dead process, is not looked at.
 *
 * A cold segment that was never sealed ends where no page write verifies, if neither a page write behind it knows that more
 * of it was durable, nor the checkpoint names a record there: else its keys would be left behind in a file that looks
 * empty.
 *
 * A transaction's frames wait in `pending` for its last one.
 */
#include "backend/store/log_recover.h"
#include "backend/store/format_private.h"

/* ---- records ---------------------------------------------------------------------------------- */

static void recover_corrupt(struct log_recover *r, const struct segment *segment, uint64_t off, const char *what)
{
    char path[LOG_PATH_MAX];

    log_segment_path(r->log, segment->info.slot, path);
    log_error(r->log->text,
              "store: damage, nothing is cut shard=%u file=%s offset=%llu what=\"%s\" lsn=%llu durable=%llu",
              r->log->options.shard, path, (unsigned long long)off, what, (unsigned long long)r->lsn,
              (unsigned long long)r->mark);
    log_recover_end(r, ERR_CORRUPT);
}

int log_recover_frame(struct log_recover *r, struct segment *segment, uint64_t address, struct bytes data,
                      bool delivers, bool counts)
{
    struct frame frame;
    struct bytes rest;
    uint32_t count = 0;
    bool is_frame = frame_decode(data, &frame);
    int err = 0;

    ASSERT(is_frame);
    rest = frame_records(data, &frame);
    address += FRAME_HEADER_SIZE >> 4;
    for (; rest.len > 0 && err == 0; count++) {
        struct record record;
        size_t size = record_decode(rest, &record);

        if (size == 0 || record.lsn < frame.first_lsn || record.lsn > frame.last_lsn)
            return ERR_CORRUPT;
        if (counts)
            log_count_record(segment, &record, size);
        if (delivers)
            err = r->replay.record(r->replay.arg, &record, address, size, !segment->is_hot);
        address += size >> 4;
        rest = bytes_skip(rest, size);
    }
    return err == 0 && count != frame.record_count ? ERR_CORRUPT : err;
}

/* ---- transactions ----------------------------------------------------------------------------- */

struct pending_head {
    struct segment *segment;
    uint64_t address;
    uint32_t size;
    bool counts, delivers;
};

static int pending_deliver(struct log_recover *r)
{
    struct bytes rest = buffer_bytes(&r->pending);
    int err = 0;

    while (rest.len > 0 && err == 0) {
        struct pending_head head;

        memcpy(&head, rest.data, sizeof(head));
        rest = bytes_skip(rest, sizeof(head));
        err = log_recover_frame(r, head.segment, head.address, bytes_first(rest, head.size), head.delivers, false);
        rest = bytes_skip(rest, head.size);
    }
    buffer_deinit(&r->pending);
    return err;
}

static int pending_add(struct log_recover *r, struct segment *segment, uint64_t address, struct bytes data,
                       bool delivers)
{
    struct pending_head head = {
        .segment = segment, .address = address, .size = (uint32_t)data.len, .delivers = delivers,
    };

    buffer_append(&r->pending, &head, sizeof(head));
    buffer_append(&r->pending, data.data, data.len);
    return r->pending.failed ? ERR_FULL : 0;
}

bool log_recover_fits(struct log_recover *r, const struct frame *frame)
{
    uint64_t lsn = r->pending_lsn;

    if (frame->chain_before != r->pending_chain) {
        if (frame->chain_before != r->chain)
            return false;
        lsn = r->lsn; /* the transaction before was cut by an earlier recovery */
    }
    return frame->first_lsn > lsn || (frame->record_count == 0 && frame->first_lsn == lsn);
}

int log_recover_take(struct log_recover *r, struct segment *segment, uint64_t address, const struct frame *frame,
                     struct bytes data, bool delivers, bool counts)
{
    int err = 0;

    if (frame->chain_before != r->pending_chain)
        buffer_deinit(&r->pending);
    r->pending_chain = frame->chain;
    r->pending_lsn = frame->last_lsn;
    r->lsn_max = MAX(r->lsn_max, frame->last_lsn);
    if (counts) /* also what is not delivered in the end */
        err = log_recover_frame(r, segment, address, data, false, true);
    if (err == 0 && (frame->flags & FRAME_CONTINUES) != 0)
        return pending_add(r, segment, address, data, delivers);
    if (err == 0)
        err = pending_deliver(r);
    if (err == 0 && delivers)
        err = log_recover_frame(r, segment, address, data, true, false);
    r->chain = r->pending_chain;
    r->lsn = r->pending_lsn;
    return err;
}

/* ---- hot segments ----------------------------------------------------------------------------- */

static void hot_stuck(struct log_recover *r);
static void recover_next(struct log_recover *r);

static struct segment *chain_next(const struct log_recover *r)
{
    return r->chain_at + 1 < r->chain_count ? r->chain_segments[r->chain_at + 1] : NULL;
}

static struct segment *blob_find(const struct log_recover *r)
{
    const struct store_log *log = r->log;

    for (uint32_t i = 0; i < log->used_count; i++) {
        struct segment *segment = log->used[i];

        if (segment->info.kind == SEGMENT_BLOB && segment->is_hot && !segment->is_orphan &&
            segment->header.chain_before == r->pending_chain && segment->header.first_lsn > r->pending_lsn)
            return segment;
    }
    return NULL;
}

static void blob_done(struct log_scan *scan, int err)
{
    struct log_recover *r = scan->arg;
    struct segment *blob = scan->segment;

    log_scan_deinit(scan);
    if (r->err != 0 || (err != 0 && err != ERR_CORRUPT)) {
        log_recover_end(r, r->err != 0 ? r->err : err);
        return;
    }
    if (!r->has_blob) {
        if (blob->is_footed) {
            recover_corrupt(r, blob, PAGE_SIZE_, "a segment with a footer");
            return;
        }
        blob->is_orphan = true;
    }
    if (r->frame_at != 0)
        log_scan_go(&r->scan); /* the page write is looked at again, from frame_at on */
    else
        hot_stuck(r);
}

static bool blob_page(struct log_scan *scan, const struct page *page, struct bytes data)
{
    struct log_recover *r = scan->arg;
    struct segment *blob = scan->segment;
    struct bytes rest = bytes_skip(data, PAGE_HEADER_SIZE);
    struct frame frame;

    r->mark = MAX(r->mark, page->mark);
    scan->off += page_size(page);
    if (!log_page_is_whole(blob, page, data) || !frame_decode(rest, &frame) || !log_recover_fits(r, &frame))
        return true;
    r->has_blob = true;
    blob->info.used_bytes = scan->off;
    if (!blob->is_footed && !list_node_is_linked(&blob->dirty))
        list_push_back(&r->log->hot.dirty, &blob->dirty);
    r->err = log_recover_take(r, blob, address_of(blob->info.sequence, PAGE_SIZE_ + PAGE_HEADER_SIZE), &frame,
                              rest, blob->info.sequence >= r->hot_from, !blob->is_footed);
    return true;
}

static void blob_start(struct log_recover *r, struct segment *blob)
{
    r->has_blob = false;
    r->blob_scan.page = blob_page;
    r->blob_scan.done = blob_done;
    r->blob_scan.arg = r;
    log_scan_start(&r->blob_scan, blob, PAGE_SIZE_, log_segment_end(blob));
}

/* The frames of a page write, from frame_at on. True: all were taken. */
static bool hot_page(struct log_scan *scan, const struct page *page, struct bytes data)
{
    struct log_recover *r = scan->arg;
    struct segment *segment = scan->segment;

    r->mark = MAX(r->mark, page->mark);
    r->page_end = 0;
    if (r->frame_at == 0 && !log_page_is_whole(segment, page, data)) {
        hot_stuck(r);
        return false;
    }
    r->frame_at = MAX(r->frame_at, (size_t)PAGE_HEADER_SIZE);
    while (r->frame_at < data.len && r->err == 0) {
        struct bytes rest = bytes_skip(data, r->frame_at);
        uint64_t address = address_of(segment->info.sequence, scan->off + r->frame_at);
        struct frame frame;
        bool is_frame = frame_decode(rest, &frame);

        ASSERT(is_frame);
        if (!log_recover_fits(r, &frame)) {
            r->page_end = scan->off + page_size(page);
            hot_stuck(r);
            return false;
        }
        r->err = log_recover_take(r, segment, address, &frame, bytes_first(rest, frame.size),
                                  segment->info.sequence >= r->hot_from, !segment->is_footed);
        r->frame_at += frame.size;
    }
    if (r->err != 0) {
        if (r->err == ERR_CORRUPT)
            recover_corrupt(r, segment, scan->off, "a record in a frame that verifies");
        else
            log_recover_end(r, r->err);
        return false;
    }
    r->frame_at = 0;
    scan->off += page_size(page);
    segment->info.used_bytes = MAX(segment->info.used_bytes, scan->off);
    return true;
}

static void hot_ended(struct log_recover *r)
{
    struct segment *segment = r->chain_segments[r->chain_at];

    r->frame_at = r->page_end = 0;
    if (!segment->is_footed && !list_node_is_linked(&segment->dirty))
        list_push_back(&r->log->hot.dirty, &segment->dirty);
    r->log->prev_sequence = segment->info.sequence;
    r->log->prev_end = segment->info.used_bytes;
    r->chain_at++;
    r->at++;
    recover_next(r);
}

/* ---- torn, or damaged? ------------------------------------------------------------------------ */

static void marks_next(struct log_recover *r);

static bool marks_page(struct log_scan *scan, const struct page *page, struct bytes data)
{
    struct log_recover *r = scan->arg;

    MAYBE(data.len > 0);
    r->mark = MAX(r->mark, page->mark);
    scan->off += page_size(page);
    return true;
}

static void marks_done(struct log_scan *scan, int err)
{
    struct log_recover *r = scan->arg;

    if (err != 0) {
        log_recover_end(r, err);
        return;
    }
    r->marks_at++;
    marks_next(r);
}

static void hot_cut(struct log_recover *r)
{
    struct segment *segment = r->chain_segments[r->chain_at];
    struct store_log *log = r->log;

    log_info(log->text, "store: the end of the log shard=%u slot=%u offset=%llu lsn=%llu durable=%llu",
             log->options.shard, segment->info.slot, (unsigned long long)r->scan.off, (unsigned long long)r->lsn,
             (unsigned long long)r->mark);
    segment->info.used_bytes = MAX(r->page_end, r->scan.off);
    for (uint32_t i = r->chain_at + 1; i < r->chain_count; i++)
        log_recover_orphan(r->chain_segments[i]);
    r->chain_count = r->chain_at + 1;
    hot_ended(r);
}

static void marks_next(struct log_recover *r)
{
    struct segment *stuck = r->chain_segments[r->chain_at], *segment;

    log_scan_deinit(&r->mark_scan);
    if (r->mark > r->lsn) {
        recover_corrupt(r, stuck, r->scan.off, "page write");
        return;
    }
    if (r->marks_at == r->chain_count) {
        hot_cut(r);
        return;
    }
    segment = r->chain_segments[r->marks_at];
    r->mark = MAX(r->mark, segment->header.mark);
    r->mark_scan.page = marks_page;
    r->mark_scan.done = marks_done;
    r->mark_scan.arg = r;
    r->mark_scan.skips_bad = true;
    log_scan_start(&r->mark_scan, segment, segment == stuck ? r->scan.off : PAGE_SIZE_, log_segment_end(segment));
}

/* Nothing that fits is at scan.off (or, in the page write there, at frame_at). */
static void hot_stuck(struct log_recover *r)
{
    struct segment *segment = r->chain_segments[r->chain_at], *next = chain_next(r), *blob = blob_find(r);
    uint64_t off = MAX(r->page_end, r->scan.off);

    /* First: a blob right behind the next one's opening has the same chain before it. */
    if (next != NULL && next->header.prev_end == off &&
        (next->header.chain_before == r->pending_chain || next->header.chain_before == r->chain)) {
        segment->info.used_bytes = off;
        if (next->header.chain_before != r->pending_chain) { /* an earlier recovery gave the transaction up */
            buffer_deinit(&r->pending);
            r->pending_chain = r->chain;
            r->pending_lsn = r->lsn;
        }
        hot_ended(r);
        return;
    }
    if (blob != NULL) {
        blob_start(r, blob);
        return;
    }
    if (segment->is_footed && next == NULL && off == segment->info.used_bytes) {
        hot_ended(r);
        return;
    }
    if (segment->is_footed) {
        recover_corrupt(r, segment, r->scan.off, "a segment with a footer");
        return;
    }
    r->marks_at = r->chain_at;
    marks_next(r);
}

static void hot_done(struct log_scan *scan, int err)
{
    struct log_recover *r = scan->arg;

    if (err != 0 && err != ERR_CORRUPT) {
        log_recover_end(r, err);
        return;
    }
    hot_stuck(r); /* also at its very end: what comes next has to fit */
}

static void hot_start(struct log_recover *r, struct segment *segment)
{
    const struct segment *next = chain_next(r);
    uint64_t end = log_segment_end(segment);

    if (r->chain_at == 0) {
        r->chain = r->pending_chain = segment->header.chain_before;
        r->lsn = r->pending_lsn = r->lsn_max = segment->header.first_lsn - 1;
    }
    r->mark = MAX(r->mark, segment->header.mark);
    if (segment->is_footed)
        end = segment->info.used_bytes;
    if (next != NULL && next->header.prev_end <= end && next->header.prev_end >= PAGE_SIZE_)
        end = next->header.prev_end;
    r->scan.page = hot_page;
    r->scan.done = hot_done;
    r->scan.arg = r;
    log_scan_start(&r->scan, segment, PAGE_SIZE_, end);
}

/* ---- cold segments, and old ones that were never sealed ----------------------------------------- */

static void cold_ended(struct log_recover *r)
{
    struct segment *segment = r->log->used[r->at];

    if (!segment->is_footed && !list_node_is_linked(&segment->dirty))
        list_push_back(segment->is_hot ? &r->log->hot.dirty : &r->log->cold.dirty, &segment->dirty);
    r->at++;
    recover_next(r);
}

static bool cold_mark_page(struct log_scan *scan, const struct page *page, struct bytes data)
{
    struct log_recover *r = scan->arg;

    MAYBE(data.len > 0);
    r->cold_mark = MAX(r->cold_mark, page->mark);
    scan->off += page_size(page);
    return true;
}

static void cold_mark_done(struct log_scan *scan, int err)
{
    struct log_recover *r = scan->arg;
    struct segment *segment = scan->segment;
    uint64_t off = r->scan.off, durable = MAX(r->cold_mark, segment->info.named_bytes);

    log_scan_deinit(scan);
    if (err != 0) {
        log_recover_end(r, err);
        return;
    }
    if (durable > off && segment->info.sequence >= r->cold_from) {
        recover_corrupt(r, segment, off, "cold page write");
        return;
    }
    /* One that recovery does not need keeps its extent: who reads it is told. */
    segment->info.used_bytes = MAX(off, durable);
    cold_ended(r);
}

static void cold_done(struct log_scan *scan, int err)
{
    struct log_recover *r = scan->arg;
    struct segment *segment = scan->segment;

    if (r->err != 0 || (err != 0 && err != ERR_CORRUPT)) {
        log_recover_end(r, r->err != 0 ? r->err : err);
        return;
    }
    if (err == 0 || segment->is_hot) {
        /* Of a hot one: where its successor says. Without one it was cut long ago. */
        segment->info.used_bytes = err == 0 || scan->end < log_segment_end(segment) ? scan->end : scan->off;
        cold_ended(r);
        return;
    }
    if (segment->is_footed) {
        recover_corrupt(r, segment, scan->off, "a segment with a footer");
        return;
    }
    r->mark_scan.page = cold_mark_page;
    r->mark_scan.done = cold_mark_done;
    r->mark_scan.arg = r;
    r->mark_scan.skips_bad = true;
    log_scan_start(&r->mark_scan, segment, scan->off, log_segment_end(segment));
}

static bool cold_page(struct log_scan *scan, const struct page *page, struct bytes data)
{
    struct log_recover *r = scan->arg;
    struct segment *segment = scan->segment;
    bool delivers = !segment->is_hot && segment->info.sequence >= r->cold_from;
    size_t at = PAGE_HEADER_SIZE;

    if (!log_page_is_whole(segment, page, data)) {
        cold_done(scan, ERR_CORRUPT);
        return false;
    }
    if (!segment->is_hot)
        r->cold_mark = MAX(r->cold_mark, page->mark);
    while (at < data.len && r->err == 0) {
        struct bytes rest = bytes_skip(data, at);
        struct frame frame;
        bool is_frame = frame_decode(rest, &frame);

        ASSERT(is_frame);
        r->err = log_recover_frame(r, segment, address_of(segment->info.sequence, scan->off + at), rest, delivers,
                                   !segment->is_footed);
        at += frame.size;
    }
    if (r->err != 0) {
        cold_done(scan, 0);
        return false;
    }
    scan->off += page_size(page);
    return true;
}

/* Where a hot segment ended that is older than the recovery: its latest successor knows. */
static uint64_t old_end(const struct log_recover *r, const struct segment *segment)
{
    const struct store_log *log = r->log;

    for (uint32_t i = log->used_count; i > 0; i--) {
        const struct segment *next = log->used[i - 1];

        if (next->is_hot && next->info.kind == SEGMENT_HOT &&
            next->header.prev_sequence == segment->info.sequence && next->header.prev_end <= log_segment_end(segment))
            return MAX(next->header.prev_end, (uint64_t)PAGE_SIZE_);
    }
    return log_segment_end(segment);
}

static void cold_start(struct log_recover *r, struct segment *segment)
{
    uint64_t end = segment->is_footed ? segment->info.used_bytes
                   : segment->is_hot  ? old_end(r, segment)
                                      : log_segment_end(segment);

    r->cold_mark = 0;
    r->scan.page = cold_page;
    r->scan.done = cold_done;
    r->scan.arg = r;
    log_scan_start(&r->scan, segment, PAGE_SIZE_, end);
}

/* ---- one after the other ---------------------------------------------------------------------- */

void log_recover_orphan(struct segment *segment)
{
    segment->is_orphan = true;
    segment->info.state = SEGMENT_CLEANED;
}

static bool is_chained_blob(const struct log_recover *r, const struct segment *segment)
{
    return segment->is_hot && segment->info.kind == SEGMENT_BLOB && r->chain_count > 0 &&
           segment->info.sequence > r->chain_first;
}

static void recover_next(struct log_recover *r)
{
    struct store_log *log = r->log;

    while (r->at < log->used_count) {
        struct segment *segment = log->used[r->at];

        log_scan_deinit(&r->scan);
        r->scan = (struct log_scan){0};
        if (r->chain_at < r->chain_count && segment == r->chain_segments[r->chain_at]) {
            hot_start(r, segment);
            return;
        }
        if (!segment->is_orphan && !is_chained_blob(r, segment) &&
            ((!segment->is_hot && segment->info.sequence >= r->cold_from) || !segment->is_footed)) {
            cold_start(r, segment);
            return;
        }
        r->at++;
    }
    /* Blobs behind the end of the log, whose frames nothing continues. */
    for (uint32_t i = 0; i < log->used_count; i++) {
        struct segment *segment = log->used[i];

        if (is_chained_blob(r, segment) && segment->info.used_bytes <= PAGE_SIZE_)
            log_recover_orphan(segment);
    }
    log_replay_ring(r);
}

/* ---- the hot chain ---------------------------------------------------------------------------- */

static bool is_hot_segment(const struct segment *segment)
{
    return segment->is_hot && segment->info.kind == SEGMENT_HOT && !segment->is_orphan;
}

/* Whether anything was written to the log since it was opened: a page write, or a blob. What is damaged at its start is
 * looked through as those that are lost are. */
static bool is_begun(const struct store_log *log, const struct segment *segment)
{
    if (segment->has_page || (segment->is_footed && segment->info.used_bytes > PAGE_SIZE_))
        return true;
    for (uint32_t i = log->used_count; i > 0 && log->used[i - 1]->info.sequence > segment->info.sequence; i--) {
        const struct segment *blob = log->used[i - 1];

        if (blob->is_hot && blob->info.kind == SEGMENT_BLOB && blob->has_page &&
            blob->header.prev_sequence == segment->info.sequence)
            return true;
    }
    return false;
}

static void segment_lose(struct log_recover *r, struct segment *segment)
{
    log_recover_orphan(segment);
    r->lost_segments[r->lost_count++] = segment;
}

/* Segments whose predecessor is not there: a power cut may keep what was written to one file and lose the header that
 * was written to another before it. Then nothing in either was durable, and they are let go of. Otherwise one of them
 * knows of a durable LSN that will be missing in the end (log_replay_ring()). */
static uint64_t chain_lose(struct log_recover *r, uint64_t missing)
{
    log_info(r->log->text, "store: a segment is missing shard=%u dir=%s sequence=%llu", r->log->options.shard,
             r->log->dir, (unsigned long long)missing);
    for (uint32_t i = 0; i < r->chain_count; i++)
        segment_lose(r, r->chain_segments[i]);
    r->chain_count = 0;
    return missing;
}

/* From the newest with a page write back to where the recovery starts. */
static void chain_find(struct log_recover *r)
{
    struct store_log *log = r->log;
    uint64_t below = UINT64_MAX; /* only segments with a lower sequence */

    r->chain_segments = must_zalloc((log->used_count + 1) * sizeof(struct segment *));
    r->lost_segments = must_zalloc((log->used_count + 1) * sizeof(struct segment *));
    for (uint32_t i = log->used_count; i > 0; i--) {
        struct segment *segment = log->used[i - 1];

        if (segment->info.sequence >= below || !is_hot_segment(segment) || !is_begun(log, segment))
            continue;
        for (;;) {
            uint64_t before = segment->header.prev_sequence;

            r->chain_segments[r->chain_count++] = segment;
            if (before == 0 || before < r->hot_from || segment->info.sequence <= r->hot_from)
                return;
            segment = log_segment_find(log, before);
            if (segment != NULL && is_hot_segment(segment))
                continue;
            below = chain_lose(r, before);
            break;
        }
    }
}

static void chain_reverse(struct log_recover *r)
{
    for (uint32_t i = 0; i < r->chain_count / 2; i++) {
        struct segment *segment = r->chain_segments[i];

        r->chain_segments[i] = r->chain_segments[r->chain_count - 1 - i];
        r->chain_segments[r->chain_count - 1 - i] = segment;
    }
    r->chain_first = r->chain_count > 0 ? r->chain_segments[0]->info.sequence : 0;
}

/* Hot segments that the chain goes past: opened by a process that died before it wrote, or cut before. Or the newest one,
 * whose first page write does not verify: torn, or damage, as its other page writes will tell. */
static void chain_orphans(struct log_recover *r)
{
    struct store_log *log = r->log;
    uint32_t at = 0;

    for (uint32_t i = 0; i < log->used_count; i++) {
        struct segment *segment = log->used[i];

        if (!is_hot_segment(segment) || segment->info.sequence < r->chain_first)
            continue;
        if (at < r->chain_count && segment == r->chain_segments[at])
            at++;
        else
            segment_lose(r, segment);
    }
}

static void lost_next(struct log_recover *r);

static void lost_knows(struct log_recover *r, const struct segment *segment, uint64_t mark)
{
    if (mark <= r->lost_mark)
        return;
    r->lost_mark = mark;
    r->lost = segment;
}

static bool lost_page(struct log_scan *scan, const struct page *page, struct bytes data)
{
    MAYBE(data.len > 0);
    lost_knows(scan->arg, scan->segment, page->mark);
    scan->off += page_size(page);
    return true;
}

static void lost_done(struct log_scan *scan, int err)
{
    struct log_recover *r = scan->arg;

    if (err != 0) {
        log_recover_end(r, err);
        return;
    }
    lost_next(r);
}

/* What the lost ones know, then the recovery of the others. */
static void lost_next(struct log_recover *r)
{
    struct segment *segment;

    log_scan_deinit(&r->mark_scan);
    if (r->lost_at == r->lost_count) {
        recover_next(r);
        return;
    }
    segment = r->lost_segments[r->lost_at++];
    lost_knows(r, segment, segment->header.mark);
    if (segment->is_footed) /* all of it was durable */
        lost_knows(r, segment, segment->info.last_lsn);
    r->mark_scan.page = lost_page;
    r->mark_scan.done = lost_done;
    r->mark_scan.arg = r;
    r->mark_scan.skips_bad = true;
    log_scan_start(&r->mark_scan, segment, PAGE_SIZE_, log_segment_end(segment));
}

void store_log_recover(struct store_log *log, uint64_t hot_from, uint64_t cold_from,
                       const struct store_log_replay *replay)
{
    struct log_recover *r = must_zalloc(sizeof(*r));

    ASSERT(log->state == LOG_OPENED);
    log->state = LOG_RECOVERING;
    log->recover = r;
    r->log = log;
    r->replay = *replay;
    r->hot_from = log->hot_from = hot_from;
    r->cold_from = cold_from;
    r->lsn_floor = log->last_lsn;
    chain_find(r);
    chain_reverse(r);
    chain_orphans(r);
    lost_next(r);
}

/* From the loop: a recovery that has failed is told, one that is over is freed. */
void log_recover_soon(struct store_log *log)
{
    struct log_recover *r = log->recover;

    if (r == NULL || !r->is_over)
        return;
    if (log->state != LOG_RECOVERING)
        log_recover_free(log);
    else if (!log_is_quiet(log))
        io_timer_start(log->io, &log->soon, 1);
    else
        log_recover_failed(r);
}

void log_recover_free(struct store_log *log)
{
    struct log_recover *r = log->recover;

    if (r == NULL)
        return;
    log_scan_deinit(&r->scan);
    log_scan_deinit(&r->blob_scan);
    log_scan_deinit(&r->mark_scan);
    buffer_deinit(&r->pending);
    mem_free(r->chain_segments);
    mem_free(r->lost_segments);
    mem_free(r->frames);
    mem_free(r);
    log->recover = NULL;
}
