/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving segments back: as free ones, or by removing their files.
 *
 *     cleaned ──release, give back──> how many names has the file?
 *                                       one:      footer away, durably ──> header says free, durably ──> ready
 *                                       more:     a backup has it, it stays as it is ──┐
 *     of another size, or more than there are to be ───────────────────────────────────────┴──> "lock" tells ──> removed
 *     ready ──(its room is for something else)─────────────────────────────────────────────────┘
 *
 * What a start finds free and of another size goes with the next checkpoint, or when there is no room for one of ours.
 * A file is removed only while a higher sequence is on disk (G7), and when what it alone may tell is told (log_given.c).
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

#define SPARES_MIN   16u
#define SPARES_SHARE 4u  /* of those in use */
#define BLOB_WAIT_MS 1000u /* who was told to wait comes back in the next turns, or has gone */

void store_log_cleaned(struct store_log *log, uint64_t sequence)
{
    struct segment *segment = log_segment_find(log, sequence);

    if (segment == NULL)
        return;
    ASSERT(segment->info.state == SEGMENT_SEALED || segment->info.state == SEGMENT_CLEANED);
    segment->info.state = SEGMENT_CLEANED;
}

static void free_done(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;

    log->freeing_count--;
    list_remove(&segment->sealing);
    if (op->result < 0) {
        log_fail(log, (int)op->result, segment, "free segment");
        log_segment_destroy(segment);
        return;
    }
    log->stats.bytes_written += 2 * PAGE_SIZE_; /* its footer and its header */
    mem_free(segment->scratch);
    segment->scratch = NULL;
    log_segment_add_ready(log, segment);
    log_blobs_place(log);
    store_log_room_check(log);
}

static void free_written(struct io_op *op)
{
    struct segment *segment = op->arg;

    if (op->result < 0) {
        free_done(op);
        return;
    }
    op->done = free_done;
    io_file_datasync(segment->file, op);
}

static void free_flushed(struct io_op *op)
{
    struct segment *segment = op->arg;

    if (op->result < 0) {
        free_done(op);
        return;
    }
    segment_header_encode(&segment->header, segment->scratch);
    op->done = free_written;
    io_file_write(segment->file, op, segment->scratch, PAGE_SIZE_, 0);
}

static void free_unfooted(struct io_op *op)
{
    struct segment *segment = op->arg;

    if (op->result < 0) {
        free_done(op);
        return;
    }
    op->done = free_flushed;
    io_file_datasync(segment->file, op);
}

/* It keeps its sequence in the header (G7). Before that is touched it loses its footer, durably: so a footer behind a
 * header that does not verify is always damage. */
static void segment_free(struct segment *segment)
{
    segment->scratch = mem_alloc_aligned(PAGE_SIZE_, PAGE_SIZE_);
    ASSERT(segment->scratch != NULL);
    segment->header.kind = SEGMENT_HEADER_FREE;
    segment->header.mark = segment->log->marks.durable; /* it is gone because that much is safe without it */
    segment->header.given_lsn = segment->log->given_lsn;
    memset(segment->scratch, 0, PAGE_SIZE_);
    segment->op.done = free_unfooted;
    io_file_write(segment->file, &segment->op, segment->scratch, PAGE_SIZE_, log_segment_end(segment));
}

static void unlink_done(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;

    log->freeing_count--;
    if (op->result < 0 && op->result != -ENOENT)
        log_warn(log->text, "store: a segment cannot be removed shard=%u slot=%u why=\"%s\"", log->options.shard,
                 segment->info.slot, err_text((int)op->result));
    log_segment_destroy(segment);
    log_segments_make(log);
    store_log_room_check(log);
}

/* Only while a higher sequence is on disk (G7), and stays there: the highest of all waits for a higher one. */
static bool segment_may_go(const struct store_log *log, const struct segment *segment)
{
    uint64_t sequence = segment->header.sequence;

    if (log->hot_segment != NULL && log->hot_segment->has_header && log->hot_segment->info.sequence > sequence)
        return true;
    for (uint32_t i = log->used_count; i > 0 && log->used[i - 1]->info.sequence > sequence; i--)
        if (log->used[i - 1]->has_header)
            return true;
    return false;
}

static void going_unlink(struct store_log *log, struct segment *segment)
{
    char path[LOG_PATH_MAX];

    if (log->error != 0) {
        log->freeing_count--;
        log_segment_destroy(segment);
    } else if (log_given_is_told(log, segment->header.given_lsn)) {
        segment->is_going = false;
        log_segment_path(log, segment->info.slot, path);
        segment->op = (struct io_op){.done = unlink_done, .arg = segment};
        io_unlink(log->io, &segment->op, path);
    }
}

void log_segments_unlink(struct store_log *log)
{
    LIST_FOR_EACH(&log->freeing, node) {
        struct segment *segment = CONTAINER_OF(node, struct segment, sealing);

        if (segment->is_going)
            going_unlink(log, segment);
    }
}

/* It is on log->freeing. */
static void segment_unlink(struct store_log *log, struct segment *segment)
{
    segment->is_going = true;
    segment->header.given_lsn = log->given_lsn;
    going_unlink(log, segment);
}

/* So many may lie there free where nobody has said how much of the disk is ours: what comes free between two checkpoints, and a
 * part of what is used. The rest is for others. */
static uint32_t spares_max(const struct store_log *log)
{
    return log->reserve + 1 + SPARES_MIN + log->used_count / SPARES_SHARE;
}

/* More than there may be; and without this one clients can go on. */
static bool is_surplus(const struct store_log *log)
{
    uint32_t count = log->ready_count + log->freeing_count;

    if (log->options.disk_max == 0)
        return count > spares_max(log);
    return log->disk_bytes > log->options.disk_max && count > log->reserve + 1;
}

/* A backup has it under another name: then it must stay as it is, and we take another file. */
static void links_known(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;
    bool is_ours = op->result <= 1;

    if (op->result < 0) {
        free_done(op);
    } else if ((!is_ours || is_surplus(log)) && segment_may_go(log, segment)) {
        segment_unlink(log, segment);
    } else if (is_ours) {
        segment_free(segment);
    } else { /* with the next checkpoint */
        log->freeing_count--;
        list_remove(&segment->sealing);
        segment->info.state = SEGMENT_CLEANED;
        log_segment_use(log, segment);
    }
}

/* It was taken off the table. */
static void segment_give_back(struct store_log *log, struct segment *segment)
{
    if (list_node_is_linked(&segment->dirty))
        list_remove(&segment->dirty);
    if (list_node_is_linked(&segment->sealing))
        list_remove(&segment->sealing);
    log->freeing_count++;
    list_push_back(&log->freeing, &segment->sealing);
    segment->info.state = SEGMENT_FREE;
    segment->op = (struct io_op){.done = links_known, .arg = segment};
    if (segment->info.size != log->options.segment_size)
        segment_unlink(log, segment);
    else
        io_file_links(segment->file, &segment->op);
}

/* The first of those that are free beyond so many and may go; NULL: none. */
static struct segment *spare_take(struct store_log *log, uint32_t stay)
{
    for (uint32_t i = 0; i < log->ready_count && log->ready_count > stay; i++) {
        struct segment *segment = log->ready[i];

        if (!segment_may_go(log, segment))
            continue;
        log->ready[i] = log->ready[--log->ready_count];
        return segment;
    }
    return NULL;
}

static void spare_remove(struct store_log *log, struct segment *segment)
{
    log->freeing_count++;
    list_push_back(&log->freeing, &segment->sealing);
    segment->info.state = SEGMENT_FREE;
    segment_unlink(log, segment);
}

/* A free segment goes, for what needs its room, beyond so many. False: none can. */
static bool spare_give(struct store_log *log, uint32_t stay)
{
    struct segment *segment = spare_take(log, stay);

    if (segment != NULL)
        spare_remove(log, segment);
    return segment != NULL;
}

void log_spares_trim(struct store_log *log)
{
    struct segment *segment;

    if (log->options.disk_max != 0 || log->ready_count <= spares_max(log) || log->freeing_count > 0 ||
        log->state != LOG_RUNNING || log->error != 0)
        return;
    segment = spare_take(log, spares_max(log));
    if (segment != NULL)
        spare_remove(log, segment);
}

void store_log_copy_room(struct store_log *log)
{
    log->copy_bytes = log->refused_bytes;
    if (log->copy_bytes > 0 && log->freeing_count == 0)
        MAYBE(spare_give(log, log_segments_staying(log)));
}

void store_log_copy_forget(struct store_log *log)
{
    log->refused_bytes = log->copy_bytes = 0;
    log_segments_make(log);
}

int store_log_blob_room(struct store_log *log, size_t bytes)
{
    size_t page_bytes = PAGE_HEADER_SIZE + FRAME_HEADER_SIZE + bytes;
    struct segment *segment;

    if (bytes <= log->blob_from || log->error != 0 || log->state != LOG_RUNNING || log_blob_fits(log, page_bytes))
        return 0;
    if (log->freeing_count > 0)
        return ERR_AGAIN;
    /* None goes for what would not fit without all of them. */
    if (log->ready_count <= log->reserve ||
        !log_blob_fits_without(log, page_bytes, (uint64_t)(log->ready_count - log->reserve) * log->options.segment_size))
        return -ENOSPC;
    segment = spare_take(log, log->reserve);
    if (segment == NULL)
        return -ENOSPC;
    spare_remove(log, segment);
    log->blob_bytes = MAX(log->blob_bytes, round_up(page_bytes, PAGE_SIZE_) + 2 * PAGE_SIZE_);
    log->blob_bytes_until_ms = io_now_ms(log->io) + BLOB_WAIT_MS;
    return ERR_AGAIN;
}

bool store_log_space_give(struct store_log *log)
{
    if (log->error != 0 || log->state != LOG_RUNNING)
        return false;
    if ((!log->is_space_given || log->freeing_count == 0) && !spare_give(log, 0)) /* else one is on its way */
        return false;
    log->is_space_given = true;
    return true;
}

void store_log_space_take(struct store_log *log)
{
    if (!log->is_space_given)
        return;
    log->is_space_given = false;
    log_segments_make(log);
}

static bool is_releasable(const struct store_log *log, const struct segment *segment, uint64_t hot_from)
{
    if (segment->info.state != SEGMENT_CLEANED || segment->info.pins > 0 || segment->info.reads > 0 ||
        segment->writes_left > 0)
        return false;
    if (log->is_flushing && list_node_is_linked(&segment->dirty))
        return false;
    if (segment->info.size != log->options.segment_size && !segment_may_go(log, segment))
        return false;
    /* A recovery follows the hot chain from there on. */
    return !segment->is_hot || segment->is_orphan || (segment->info.sequence < hot_from && log->has_successor);
}

/* Whether something of the hot log from there on is durable, by a flush or, with fsync always, by itself. Otherwise a
 * recovery may have to read the newest segment before, to know how the chain goes on: all of the chain in it must be
 * there, blobs too. */
static bool has_successor(const struct store_log *log, uint64_t hot_from)
{
    for (uint32_t i = log_used_place(log, hot_from); i < log->used_count; i++) {
        const struct segment *segment = log->used[i];

        if (segment->is_hot && segment->info.kind == SEGMENT_HOT &&
            (segment->has_page || (segment->info.record_bytes > 0 && segment->info.first_lsn <= log->marks.durable)))
            return true;
    }
    return false;
}

void store_log_release(struct store_log *log, uint64_t hot_from, uint64_t cold_from)
{
    uint32_t i = 0;

    MAYBE(cold_from > 0); /* a cold segment without anything live is missed by nobody */
    log->hot_from = hot_from;
    log->has_successor = has_successor(log, hot_from);
    while (i < log->used_count && log->error == 0) {
        struct segment *segment = log->used[i];

        if (!is_releasable(log, segment, hot_from)) {
            i++;
            continue;
        }
        log_used_remove(log, i);
        segment_give_back(log, segment);
    }
}

void log_odd_remove(struct store_log *log)
{
    if (log->state != LOG_RUNNING || log->error != 0 || log->freeing_count > 0 || log->ready_count > log->reserve)
        return;
    for (uint32_t i = 0; i < log->used_count; i++) {
        struct segment *segment = log->used[i];
        bool was_free = segment->is_orphan && !segment->has_header;

        if (!was_free || segment->info.size == log->options.segment_size || !is_releasable(log, segment, 0))
            continue;
        log_used_remove(log, i);
        segment_give_back(log, segment);
        return;
    }
}

bool store_log_is_followed(const struct store_log *log, const struct segment_info *info, uint64_t hot_from)
{
    const struct segment *segment = CONTAINER_OF(info, struct segment, info);

    return segment->is_hot && !segment->is_orphan && (info->sequence >= hot_from || !has_successor(log, hot_from));
}

bool store_log_give_back(struct store_log *log, uint64_t sequence, uint64_t hot_from)
{
    struct segment *segment = log_segment_find(log, sequence);
    uint8_t state;

    if (segment == NULL || log->error != 0 || log->state != LOG_RUNNING)
        return false;
    state = segment->info.state;
    ASSERT(state == SEGMENT_SEALED || state == SEGMENT_CLEANED);
    ASSERT(!store_log_is_followed(log, &segment->info, hot_from));
    segment->info.state = SEGMENT_CLEANED;
    log->has_successor = true; /* if it is a hot one */
    if (!is_releasable(log, segment, hot_from)) {
        segment->info.state = state;
        return false;
    }
    log->given_lsn = log->marks.durable;
    log_used_remove(log, log_used_place(log, sequence));
    segment_give_back(log, segment);
    return true;
}

uint64_t store_log_given_lsn(const struct store_log *log)
{
    return log->given_lsn;
}
