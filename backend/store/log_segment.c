/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: free ones made ahead of time, the table of those in use. How they are given back: log_give.c.
 *
 *     make file ──> ready ──take──> open ──finish──> sealed ──cleaned──> cleaned ──release──┐
 *                     ^                                └───────────────give back────────────┤
 *                     └──────────────── header says that it is free ─────────────────────────┘
 *
 * A full disk is no failure: whoever needs a free segment and finds none is refused, and once a second it is tried
 * again. Of the last `reserve` free ones, clients take none, the hot log takes all but one, the cleaner that one.
 *
 * How much there may be is log_bound.c's. Where others have filled the file system within a second, or a quota ends, nothing
 * says so before a file is refused its room, and what was appended cannot be taken back: a blob without a file would hold up
 * the answers to all that comes behind it, every flush, so every checkpoint, and with them whatever could make room. So it
 * takes the file of a free segment (G10), for which there is one more in the reserve; until the room is there, appends wait
 * if the next blob would find no such segment. One that a whole segment does not hold waits for room after all, at most
 * until the log is closed (log_leave.c).
 *
 *     reserve, nobody having said how much of the disk is ours:   [a large record] [deletes] [the cleaner] [a checkpoint]
 *
 * The cleaner's is kept from the hot log only while the cleaner has no room in one that it has taken; else deletes would
 * end when it has. Nor is it, whatever the bound, if it is all that keeps a dead segment from being free.
 *
 * A recovery takes what there is, and has more made if `disk_max` has no room for them: who was killed again and again
 * leaves no free one. What is more than `disk_max` then is removed when it is free again (log_give.c).
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

#include <stdio.h>

/* ---- the table -------------------------------------------------------------------------------- */

void log_segment_path(const struct store_log *log, uint32_t slot, char path[LOG_PATH_MAX])
{
    (void)snprintf(path, LOG_PATH_MAX, "%s/%06u.seg", log->dir, slot);
}

struct segment *log_segment_create(struct store_log *log, uint32_t slot, uint64_t size)
{
    struct segment *segment = must_zalloc(sizeof(*segment));

    segment->log = log;
    segment->info.slot = slot;
    segment->info.size = size;
    log->disk_bytes += size;
    return segment;
}

void log_segment_destroy(struct segment *segment)
{
    struct store_log *log = segment->log;

    log->disk_bytes -= segment->info.size;
    if (segment->file != NULL)
        io_file_close(segment->file);
    if (list_node_is_linked(&segment->dirty))
        list_remove(&segment->dirty);
    if (list_node_is_linked(&segment->sealing))
        list_remove(&segment->sealing);
    mem_free(segment->scratch);
    mem_free(segment);
}

static void grow(struct segment ***table, uint32_t count, uint32_t *cap)
{
    if (count < *cap)
        return;
    *cap = MAX(16u, 2 * *cap);
    *table = must_realloc(*table, *cap * sizeof(struct segment *));
}

/* Index of the first with at least this sequence. */
uint32_t log_used_place(const struct store_log *log, uint64_t sequence)
{
    uint32_t low = 0, high = log->used_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (log->used[middle]->info.sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void log_segment_use(struct store_log *log, struct segment *segment)
{
    uint32_t at = log_used_place(log, segment->info.sequence);

    grow(&log->used, log->used_count, &log->used_cap);
    memmove(&log->used[at + 1], &log->used[at], (log->used_count - at) * sizeof(struct segment *));
    log->used[at] = segment;
    log->used_count++;
}

void log_used_remove(struct store_log *log, uint32_t at)
{
    log->used_count--;
    memmove(&log->used[at], &log->used[at + 1], (log->used_count - at) * sizeof(struct segment *));
    log->last_found = 0;
}

struct segment *log_segment_find(struct store_log *log, uint64_t sequence)
{
    uint32_t at = log->last_found;

    if (log->hot_segment != NULL && log->hot_segment->info.sequence == sequence)
        return log->hot_segment;
    if (at >= log->used_count || log->used[at]->info.sequence != sequence) {
        at = log_used_place(log, sequence);
        if (at == log->used_count || log->used[at]->info.sequence != sequence)
            return NULL;
        log->last_found = at;
    }
    return log->used[at];
}

uint32_t store_log_segment_count(const struct store_log *log)
{
    return log->used_count;
}

struct segment_info *store_log_segment(struct store_log *log, uint32_t i)
{
    ASSERT(i < log->used_count);
    return &log->used[i]->info;
}

struct segment_info *store_log_segment_find(struct store_log *log, uint64_t sequence)
{
    struct segment *segment = log_segment_find(log, sequence);

    return segment != NULL ? &segment->info : NULL;
}

bool store_log_has(struct store_log *log, uint64_t sequence)
{
    const struct segment *segment = log_segment_find(log, sequence);

    return segment != NULL && segment->info.state != SEGMENT_CLEANED; /* a free file of another size is in the table */
}

void store_log_pin(struct store_log *log, uint64_t sequence, bool on)
{
    struct segment *segment = log_segment_find(log, sequence);

    if (segment == NULL)
        return;
    ASSERT(on || segment->info.pins > 0);
    segment->info.pins += on ? 1u : UINT32_MAX;
}

/* Without an open one a recovery goes back to the last one: it alone tells where the log ended. What comes behind it
 * was cut, which nothing but that says until another one is opened. */
uint64_t store_log_hot_sequence(const struct store_log *log)
{
    if (log->hot_segment != NULL)
        return log->hot_segment->info.sequence;
    return log->prev_sequence != 0 ? log->prev_sequence : log->next_sequence;
}

uint64_t store_log_cold_sequence(const struct store_log *log)
{
    uint64_t lowest = log->next_sequence;

    for (unsigned i = 0; i < LOG_CLASSES; i++)
        if (log->classes[i].segment != NULL)
            lowest = MIN(lowest, log->classes[i].segment->info.sequence);
    return lowest;
}

uint64_t store_log_next_sequence(const struct store_log *log)
{
    return log->next_sequence;
}

uint64_t log_segment_end(const struct segment *segment)
{
    return segment->info.size - PAGE_SIZE_;
}

/* ---- making files ----------------------------------------------------------------------------- */

/* A free segment becomes the file of a blob (G10). Its header, which tells the file's size, is in the queue. */
static void blob_place(struct store_log *log, struct segment *blob)
{
    const struct log_queue *queue = blob->is_hot ? &log->hot : &log->cold;
    struct segment *spare = log->ready[--log->ready_count];
    struct segment_info info = blob->info;

    ASSERT(blob->file == NULL && spare->file != NULL);
    blob->file = spare->file;
    spare->file = NULL;
    blob->info.slot = spare->info.slot;
    blob->info.size = blob->header.size = spare->info.size;
    blob->header.given_lsn = log->given_lsn; /* the spare one's header may tell more than when the blob began */
    spare->info.size = info.size; /* of what is not there any more */
    log_segment_destroy(spare);
    LIST_FOR_EACH(&queue->writes, node) {
        struct log_write *write = CONTAINER_OF(node, struct log_write, node);

        if (write->segment == blob && write->off == 0)
            segment_header_encode(&blob->header, write->data);
    }
    blob->is_stalled = blob->is_making = false;
}

/* Those that the file system had no room for, in the order of the log. */
void log_blobs_place(struct store_log *log)
{
    for (uint32_t i = 0; i < log->used_count && log->ready_count > 0 && log->error == 0; i++) {
        struct segment *segment = log->used[i];

        if (!segment->is_stalled || segment->info.size > log->options.segment_size)
            continue;
        blob_place(log, segment);
        log_writes_submit(log);
    }
}

static bool is_no_space(ssize_t result)
{
    return result == -ENOSPC || result == -EDQUOT || result == -EFBIG;
}

static void space_again(struct store_log *log)
{
    log->is_out_of_space = true;
    if (!io_timer_is_running(&log->space_timer))
        io_timer_start(log->io, &log->space_timer, LOG_TIMER_MS);
}

/* Or it can not be. */
static void segment_is_made(struct store_log *log)
{
    log_open_made(log);
    log_replay_made(log);
}

/* Or will not be. Not told before it may take a free one: these are kept for it until then (log_blob_waits()). */
static void blob_is_allocated(struct segment *segment)
{
    struct store_log *log = segment->log;

    if (!segment->is_unallocated)
        return;
    segment->is_unallocated = false;
    log->unallocated_count--;
    log->unallocated_bytes -= segment->info.size;
}

static void make_given_up(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;

    if (segment == log->making) {
        log->making = NULL;
        log_segment_destroy(segment);
        log_odd_remove(log);
        segment_is_made(log);
    } else {
        segment->is_stalled = true;
        blob_is_allocated(segment);
        log_blobs_place(log);
        log_pump(log);
        store_log_room_check(log);
    }
}

static void make_failed(struct segment *segment, ssize_t result)
{
    struct store_log *log = segment->log;
    char path[LOG_PATH_MAX];

    if (!is_no_space(result)) {
        blob_is_allocated(segment);
        log_fail(log, (int)result, segment, "make segment");
        if (segment == log->making) {
            log->making = NULL;
            log_segment_destroy(segment);
        }
        segment_is_made(log);
        return;
    }
    if (!log->is_full)
        log_warn(log->text, "store: the disk is full shard=%u dir=%s why=\"%s\"", log->options.shard, log->dir,
                 err_text((int)result));
    log->is_full = true;
    space_again(log);
    if (segment->file != NULL)
        io_file_close(segment->file);
    segment->file = NULL;
    log_segment_path(log, segment->info.slot, path);
    segment->op.done = make_given_up;
    io_unlink(log->io, &segment->op, path);
}

static void make_done(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;

    if (op->result < 0) {
        make_failed(segment, op->result);
        return;
    }
    segment->is_stalled = segment->is_making = false;
    if (segment == log->making) {
        log->making = NULL;
        log_segment_add_ready(log, segment);
        log_blobs_place(log);
        log_segments_make(log);
        segment_is_made(log);
    } else {
        log_writes_submit(log);
    }
    store_log_room_check(log);
}

static void make_synced(struct io_op *op)
{
    struct segment *segment = op->arg;

    if (op->result < 0) {
        make_failed(segment, op->result);
        return;
    }
    op->done = make_done;
    io_dirsync(segment->log->io, op, segment->log->dir);
}

static void make_sized(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;

    if (op->result < 0) {
        make_failed(segment, op->result);
        return;
    }
    op->done = make_synced;
    io_file_datasync(segment->file, op);
    log->is_out_of_space = log->is_full = false;
    blob_is_allocated(segment);
    store_log_room_check(log);
}

/* Blocks that were allocated and never written are noted in the file system's journal when they are; a commit would
 * wait for that, too. Not for blobs, which are written once. */
static void make_zeroed(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;
    size_t size = (size_t)MIN(segment->info.size - segment->zero_end, (uint64_t)LOG_ZERO_SIZE);

    if (op->result < 0 || size == 0) {
        make_sized(op);
        return;
    }
    op->done = make_zeroed;
    segment->zero_end += size;
    io_file_write(segment->file, op, log->zeros, size, segment->zero_end - size);
}

static void make_allocated(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;

    if (op->result == -EOPNOTSUPP) { /* then it grows as it is written, and may be refused later */
        op->done = make_sized;
        io_file_truncate(segment->file, op, segment->info.size);
        return;
    }
    if (log->options.fsync != STORE_FSYNC_ALWAYS || segment != log->making) {
        make_sized(op);
        return;
    }
    if (log->zeros == NULL) {
        log->zeros = mem_alloc_aligned(PAGE_SIZE_, LOG_ZERO_SIZE);
        ASSERT(log->zeros != NULL);
        memset(log->zeros, 0, LOG_ZERO_SIZE);
    }
    segment->zero_end = 0;
    make_zeroed(op);
}

static void make_opened(struct io_op *op)
{
    struct segment *segment = op->arg;

    if (op->result < 0) {
        make_failed(segment, op->result);
        return;
    }
    op->done = make_allocated;
    io_file_allocate(segment->file, op, 0, segment->info.size);
}

void log_segment_make_file(struct store_log *log, struct segment *segment)
{
    char path[LOG_PATH_MAX];
    int flags = IO_FILE_READ | IO_FILE_WRITE | IO_FILE_CREATE | (log->options.direct ? IO_FILE_DIRECT : 0);

    log_segment_path(log, segment->info.slot, path);
    segment->is_making = true;
    segment->is_unallocated = segment != log->making;
    if (segment->is_unallocated) {
        log->unallocated_count++;
        log->unallocated_bytes += segment->info.size;
    }
    segment->op.done = make_opened;
    segment->op.arg = segment;
    io_file_open(log->io, &segment->op, path, flags, &segment->file);
}

/* Bytes of free segments that have another size than new ones, and go with the next checkpoints. */
static uint64_t odd_free_bytes(const struct store_log *log)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < log->used_count; i++) {
        const struct segment_info *info = &log->used[i]->info;

        if (info->state == SEGMENT_CLEANED && info->size != log->options.segment_size)
            bytes += info->size;
    }
    return bytes;
}

static bool is_blob_awaited(const struct store_log *log)
{
    return log->blob_bytes > 0 && io_now_ms(log->io) < log->blob_bytes_until_ms;
}

/* Of disk_max, and not for segments that are made ahead: what goes would be made again before who waits for it comes. */
static uint64_t bytes_kept(const struct store_log *log)
{
    return log->copy_bytes + (is_blob_awaited(log) ? log->blob_bytes : 0);
}

/* A start must not fail for want of a segment where all that are free have another size: what it makes, a few, may for a
 * while be too much. */
static bool may_make(const struct store_log *log)
{
    uint64_t bytes = log->disk_bytes, bound = store_log_bound(log);

    if (log->is_out_of_space || log->is_space_given)
        return false;
    if (bound == 0 || (log->is_segment_wanted && log->ready_count == 0))
        return true;
    if (log->state < LOG_RUNNING)
        bytes -= odd_free_bytes(log);
    return bytes + bytes_kept(log) + log->options.segment_size <= bound;
}

void log_segments_make(struct store_log *log)
{
    /* Who has no bound learns from the last one that is made that the disk is full: the reserve is there then. */
    uint32_t wanted = LOG_READY_TARGET + (log->options.disk_max == 0);

    if (log->is_full) /* one more than clients wait for tells whether it is full still */
        wanted = MAX(wanted, log->reserve) + 1;
    log_bound_look(log);
    if (log->making != NULL || log->error != 0 || log->state >= LOG_CLOSING ||
        log->ready_count + log->freeing_count >= wanted)
        return;
    if (!may_make(log)) {
        /* There may be room later, and nothing else that tells. */
        if ((is_blob_awaited(log) || log_bound_may_grow(log)) && !io_timer_is_running(&log->space_timer))
            io_timer_start(log->io, &log->space_timer, LOG_TIMER_MS);
        log_odd_remove(log);
        return;
    }
    log->making = log_segment_create(log, log->next_slot++, log->options.segment_size);
    log_segment_make_file(log, log->making);
}

/* There may be room again. */
void log_space_fire(struct io_timer *timer)
{
    struct store_log *log = timer->arg;

    if (log->error != 0 || log->state == LOG_CLOSED || log->is_impatient)
        return;
    log->is_out_of_space = false;
    log_blobs_place(log);
    for (uint32_t i = 0; i < log->used_count; i++) {
        struct segment *segment = log->used[i];

        if (segment->is_stalled) {
            segment->is_stalled = false;
            log_segment_make_file(log, segment);
        }
    }
    log_segments_make(log);
}

/* Clients stop when the reserve is all that is left: the next segment that the hot log takes is one of it. */
bool store_log_is_disk_full(const struct store_log *log)
{
    uint64_t count = (uint64_t)log->ready_count + log->freeing_count + (log->making != NULL && !log->is_full);
    uint64_t bound;

    if (count > log->reserve || log->state != LOG_RUNNING)
        return false;
    if (log->is_full)
        return true;
    bound = store_log_bound(log);
    return bound != 0 && log->disk_bytes + (log->reserve + 1 - count) * log->options.segment_size > bound;
}

/* Beside the reserve, of which some may be there already, when `spare` bytes of what is there have gone. */
bool log_blob_fits_without(const struct store_log *log, size_t page_bytes, uint64_t spare)
{
    uint64_t count = (uint64_t)log->ready_count + log->freeing_count, size = log->options.segment_size;
    uint64_t need = 2 * PAGE_SIZE_ + round_up(page_bytes, PAGE_SIZE_), bound = store_log_bound(log);

    if (log->reserve > count)
        need += (log->reserve - count) * size;
    return !log->is_out_of_space && (bound == 0 || log->disk_bytes - spare + need <= bound);
}

bool log_blob_fits(const struct store_log *log, size_t page_bytes)
{
    return log_blob_fits_without(log, page_bytes, 0);
}

bool log_blob_waits(const struct store_log *log)
{
    /* With a bound on the disk there are so many, however large the reserve is. */
    uint32_t kept = MIN(log->reserve, LOG_READY_TARGET - 1);

    return log->unallocated_count > 0 && log->ready_count <= kept + log->unallocated_count;
}

bool store_log_makes_room(const struct store_log *log)
{
    return log->making != NULL || log->freeing_count > 0 || may_make(log);
}

bool store_log_has_free(const struct store_log *log)
{
    return log_segment_available(log, false);
}

/* Nothing that waits for a flush gets one before there is room outside of our segments. */
bool store_log_is_stalled(const struct store_log *log)
{
    for (uint32_t i = 0; i < log->used_count && log->is_out_of_space; i++)
        if (log->used[i]->is_stalled)
            return true;
    return false;
}

/* ---- taking, sealing -------------------------------------------------------------------------- */

void log_segment_add_ready(struct store_log *log, struct segment *segment)
{
    grow(&log->ready, log->ready_count, &log->ready_cap);
    log->ready[log->ready_count++] = segment;
}

/* The cleaner has a segment for its copies, with room for half of one at least. */
static bool has_copy_room(const struct store_log *log)
{
    for (unsigned i = 0; i < LOG_CLASSES; i++) {
        const struct segment *segment = log->classes[i].segment;

        if (segment != NULL && segment->info.used_bytes <= segment->info.size / 2)
            return true;
    }
    return false;
}

/* After a start nothing lives in the hot segment of before, which stays all the same until there is another one
 * (store_log_release()): for the last free one it comes back. */
static bool is_last_hot_dead(const struct store_log *log)
{
    const struct segment_info *info;
    uint32_t at;

    if (LIKELY(log->hot_segment != NULL))
        return false;
    at = log_used_place(log, log->prev_sequence);
    info = at < log->used_count ? &log->used[at]->info : NULL;
    return info != NULL && info->sequence == log->prev_sequence && info->state == SEGMENT_CLEANED &&
           info->size == log->options.segment_size;
}

uint32_t log_segments_staying(const struct store_log *log)
{
    return (log->is_full || log->bound.is_short) && log->reserve >= LOG_RESERVE_SHARED && !log->is_space_given;
}

bool log_segment_available(const struct store_log *log, bool is_hot)
{
    if (is_hot && is_last_hot_dead(log))
        return log->ready_count > 0;

    if (log->is_full || log->bound.is_short)
        is_hot = is_hot && !has_copy_room(log);
    return log->ready_count > log_segments_staying(log) + is_hot;
}

void log_segment_begin(struct store_log *log, struct segment *segment, uint8_t kind, uint8_t class, bool is_hot)
{
    struct segment_header *header = &segment->header;
    char *page = mem_alloc_aligned(PAGE_SIZE_, PAGE_SIZE_);
    uint64_t size = segment->info.size;
    uint32_t slot = segment->info.slot;
    bool is_blob = kind == SEGMENT_BLOB;

    ASSERT(page != NULL);
    segment->info = (struct segment_info){
        .sequence = log->next_sequence++,
        .slot = slot,
        .state = SEGMENT_OPEN,
        .kind = kind,
        .class = class,
        .size = size,
        .used_bytes = PAGE_SIZE_,
        .created_ms = log->wall_ms,
        .is_ours = true,
    };
    segment->is_hot = is_hot;
    segment->is_footed = segment->is_finished = segment->has_header = segment->is_orphan = false;
    segment->record_count = segment->seal_no = segment->chain_end = 0;
    segment->written_end = segment->flushing_end = segment->flushed_end = 0;
    *header = (struct segment_header){
        .kind = kind,
        .class = class,
        .shard = log->options.shard,
        .epoch = log->epoch,
        .flags = is_hot && is_blob ? SEGMENT_IS_HOT : 0,
        .sequence = segment->info.sequence,
        .size = size,
        .prev_sequence = !is_hot ? 0 : is_blob ? log->hot_segment->info.sequence : log->prev_sequence,
        .prev_end = is_hot && !is_blob ? log->prev_end : 0,
        .chain_before = is_hot ? log->chain : 0,
        .first_lsn = log->last_lsn + 1,
        .created_ms = log->wall_ms,
        .mark = log->marks.durable,
        .given_lsn = log->given_lsn,
    };
    memcpy(header->uuid, log->shard.uuid, sizeof(header->uuid));
    segment_header_encode(header, page);
    log_segment_use(log, segment);
    log_write_queue(log_write_get(log, segment, page, PAGE_SIZE_, 0));
}

struct segment *log_segment_take(struct store_log *log, uint8_t kind, uint8_t class, bool is_hot)
{
    struct segment *segment;

    ASSERT(log->ready_count > 0);
    segment = log->ready[--log->ready_count];
    log_segment_begin(log, segment, kind, class, is_hot);
    log_segments_make(log);
    if (!is_hot || store_log_is_disk_full(log))
        store_log_room_check(log);
    return segment;
}

void log_segment_finish(struct segment *segment)
{
    struct store_log *log = segment->log;

    ASSERT(!segment->is_finished);
    segment->is_finished = true;
    segment->seal_no = (segment->is_hot ? &log->hot : &log->cold)->next_no;
    if (segment->writes_left == 0)
        segment->info.state = SEGMENT_SEALED;
    list_push_back(&log->sealing, &segment->sealing);
    if (segment->is_hot && segment->info.kind == SEGMENT_HOT) {
        log->prev_sequence = segment->info.sequence;
        log->prev_end = segment->info.used_bytes;
    }
}

static void segment_foot(struct store_log *log, struct segment *segment)
{
    const struct segment_info *info = &segment->info;
    char *page = mem_alloc_aligned(PAGE_SIZE_, PAGE_SIZE_);
    struct segment_footer footer = {
        .kind = info->kind,
        .class = info->class,
        .shard = log->options.shard,
        .sequence = info->sequence,
        .used_bytes = info->used_bytes,
        .record_count = segment->record_count,
        .record_bytes = info->record_bytes,
        .first_lsn = info->first_lsn,
        .last_lsn = info->last_lsn,
        .expire_max_ms = info->expire_max_ms,
        .created_ms = info->created_ms,
        .chain = segment->chain_end,
        .given_lsn = log->given_lsn,
    };

    ASSERT(page != NULL);
    memcpy(footer.uuid, log->shard.uuid, sizeof(footer.uuid));
    segment_footer_encode(&footer, page);
    segment->is_footed = true;
    log_write_queue(log_write_get(log, segment, page, PAGE_SIZE_, log_segment_end(segment)));
}

void log_segments_foot(struct store_log *log)
{
    LIST_FOR_EACH(&log->sealing, node) {
        struct segment *segment = CONTAINER_OF(node, struct segment, sealing);
        const struct log_queue *queue = segment->is_hot ? &log->hot : &log->cold;

        if (segment->seal_no > queue->durable_no)
            continue;
        list_remove(node);
        segment_foot(log, segment);
    }
}
