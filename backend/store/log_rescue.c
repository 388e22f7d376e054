/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start after a flush that failed.
 *
 * The kernel tells once that it could not write something, and then lets go of it: reads go on to see it in memory, the
 * next flush succeeds, and a power cut shows that it never came to disk. So what is read back is no proof, nor is
 * another flush. But it is all there, and it verifies. Whatever may have such bytes is copied to a new file; that one is
 * flushed, and takes the other's place:
 *
 *     000017.seg ──read──> rescue.tmp ──flush──> rename to 000017.seg ... ──> dirsync ──> the ring forgets
 *
 *   R1  In doubt are segments without a footer, and MANIFEST. A footer is written when all before it is durable; what
 *       MANIFEST names was durable before it was written.
 *   R2  The log ring remembers the failure for exactly as long as the kernel has the bytes: both outlive every process,
 *       neither outlives the host. It forgets when all copies are durable under their names.
 *   R3  Nothing is written over: a power cut leaves the old file or the whole new one.
 *
 * Why not write the same bytes to the same place: some of it may be right on disk, and a sector that is being written
 * when the power fails may be lost.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

#include <stdio.h>

#define RESCUE_PIECE (1u << 20)
#define RESCUE_NAME  "rescue.tmp"

struct log_rescue {
    struct store_log *log;
    void (*done)(struct store_log *log, int err);
    struct io_op op;
    struct io_file *from, *to; /* from: a segment's, or owned (MANIFEST); to: owns */
    struct segment *segment;   /* NULL: MANIFEST's turn */
    uint32_t at;               /* in log->used */
    uint32_t count;
    bool is_last;
    uint64_t off, size;
    size_t piece;
    char *buffer;              /* owns */
    char path[LOG_PATH_MAX], path_new[LOG_PATH_MAX];
};

void log_rescue_free(struct store_log *log)
{
    struct log_rescue *r = log->rescue;

    if (r == NULL)
        return;
    if (r->segment == NULL && r->from != NULL)
        io_file_close(r->from);
    if (r->to != NULL)
        io_file_close(r->to);
    mem_free(r->buffer);
    mem_free(r);
    log->rescue = NULL;
}

static void rescue_end(struct log_rescue *r, int err)
{
    struct store_log *log = r->log;
    void (*done)(struct store_log *, int) = r->done;

    if (err == 0) {
        log_ring_doubt_set(&log->ring, false);
        log_info(log->text, "store: what was in doubt is copied shard=%u files=%u", log->options.shard, r->count);
    } else {
        log_error(log->text, "store: a flush has failed before, and what is in doubt since cannot be copied shard=%u "
                  "file=%s why=\"%s\"", log->options.shard, r->path, err_text(err));
    }
    log_rescue_free(log);
    done(log, err);
}

static bool step_failed(struct log_rescue *r)
{
    if (r->op.result >= 0)
        return false;
    rescue_end(r, (int)r->op.result);
    return true;
}

static void rescue_next(struct log_rescue *r);
static void piece_next(struct log_rescue *r);

/* ---- one file --------------------------------------------------------------------------------- */

static void file_renamed(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (step_failed(r))
        return;
    r->count++;
    io_file_close(r->from);
    r->from = NULL;
    if (r->segment != NULL)
        r->segment->file = r->to;
    else
        io_file_close(r->to);
    r->to = NULL;
    rescue_next(r);
}

static void file_durable(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (step_failed(r))
        return;
    op->done = file_renamed;
    io_rename(r->log->io, op, r->path_new, r->path);
}

static void piece_written(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (step_failed(r))
        return;
    r->off += r->piece;
    piece_next(r);
}

static bool is_zero_piece(const struct log_rescue *r)
{
    return r->buffer[0] == 0 && memcmp(r->buffer, r->buffer + 1, r->piece - 1) == 0;
}

static void piece_read(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (step_failed(r))
        return;
    if (is_zero_piece(r)) { /* as the new file has it */
        r->off += r->piece;
        piece_next(r);
        return;
    }
    op->done = piece_written;
    io_file_write(r->to, op, r->buffer, r->piece, r->off);
}

static void piece_next(struct log_rescue *r)
{
    r->piece = (size_t)MIN(r->size - r->off, (uint64_t)RESCUE_PIECE);
    if (r->piece == 0) {
        r->op.done = file_durable;
        io_file_datasync(r->to, &r->op);
        return;
    }
    r->op.done = piece_read;
    io_file_read(r->from, &r->op, r->buffer, r->piece, r->off);
}

static void file_sized(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (step_failed(r))
        return;
    r->off = 0;
    piece_next(r);
}

static void file_allocated(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (op->result != -EOPNOTSUPP) {
        file_sized(op);
        return;
    }
    op->done = file_sized;
    io_file_truncate(r->to, op, r->size);
}

static void file_made(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (step_failed(r))
        return;
    op->done = file_allocated;
    io_file_allocate(r->to, op, 0, r->size);
}

static void file_copy(struct log_rescue *r)
{
    int flags = IO_FILE_READ | IO_FILE_WRITE | IO_FILE_CREATE | IO_FILE_TRUNCATE;

    if (r->segment != NULL && r->log->options.direct)
        flags |= IO_FILE_DIRECT;
    r->op.done = file_made;
    io_file_open(r->log->io, &r->op, r->path_new, flags, &r->to);
}

/* ---- which ones ------------------------------------------------------------------------------- */

static void names_durable(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (!step_failed(r))
        rescue_end(r, 0);
}

static void rescue_names(struct log_rescue *r)
{
    r->op.done = names_durable;
    io_dirsync(r->log->io, &r->op, r->log->dir);
}

static void manifest_sized(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (step_failed(r))
        return;
    r->size = (uint64_t)op->result;
    if (r->size > 0) {
        file_copy(r);
        return;
    }
    io_file_close(r->from); /* made, and never written */
    r->from = NULL;
    rescue_names(r);
}

static void manifest_opened(struct io_op *op)
{
    struct log_rescue *r = op->arg;

    if (op->result == -ENOENT) {
        r->from = NULL;
        rescue_names(r);
        return;
    }
    if (op->result < 0)
        r->from = NULL;
    if (step_failed(r))
        return;
    op->done = manifest_sized;
    io_file_size(r->from, op);
}

static void rescue_next(struct log_rescue *r)
{
    struct store_log *log = r->log;

    for (; r->at < log->used_count; r->at++) {
        struct segment *segment = log->used[r->at];

        if (segment->is_footed || segment->file == NULL || !segment->has_header)
            continue;
        r->at++;
        r->segment = segment;
        r->from = segment->file;
        r->size = segment->info.size;
        log_segment_path(log, segment->info.slot, r->path);
        file_copy(r);
        return;
    }
    r->segment = NULL;
    if (r->is_last) {
        rescue_names(r);
        return;
    }
    r->is_last = true;
    (void)snprintf(r->path, sizeof(r->path), "%s/MANIFEST", log->dir);
    r->op.done = manifest_opened;
    io_file_open(log->io, &r->op, r->path, IO_FILE_READ, &r->from);
}

void log_rescue_start(struct store_log *log, void (*done)(struct store_log *log, int err))
{
    struct log_rescue *r = must_zalloc(sizeof(*r));

    log_warn(log->text, "store: a flush has failed before this start, what may not have come to disk is copied shard=%u "
             "dir=%s", log->options.shard, log->dir);
    log->rescue = r;
    r->log = log;
    r->done = done;
    r->op.arg = r;
    r->buffer = mem_alloc_aligned(RESCUE_PIECE, PAGE_SIZE_);
    (void)snprintf(r->path_new, sizeof(r->path_new), "%s/" RESCUE_NAME, log->dir);
    if (r->buffer == NULL) {
        rescue_end(r, ERR_FULL);
        return;
    }
    rescue_next(r);
}
