/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far back the directory can be brought, told by a page of the file "lock" when no segment may stay to tell it.
 *
 *     given back early ──> free, its header says it ─────────────────> in use again: the new header says it, too
 *                     └──> "lock" says it, durably ──> file removed <── (a free one that has to go)
 *
 *   N1  Whenever the process dies, a page of the directory tells the highest given LSN (segment.h) of all segments that are
 *       gone: no file is removed before "lock" durably tells what the log knew when it was to go.
 *   N2  What it tells does not fall: not in a life, nor from one to the next, as a start begins with the highest there is.
 *   N3  One write of it is under way at a time; what has to go meanwhile waits for the next.
 *
 * The page is made when the directory is opened, so that telling needs no room on a full disk. Had the file system none
 * even then, files go without being told of: room for clients counts more than a point in the past.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

static void given_end(struct store_log *log, int err)
{
    struct log_given *given = &log->given;
    void (*done)(struct store_log *, int) = given->done;

    given->is_writing = false;
    if (err == -ENOSPC || err == -EDQUOT) {
        if (!given->is_untold)
            log_warn(log->text, "store: no room to tell how far back the directory can be restored shard=%u dir=%s",
                     log->options.shard, log->dir);
        given->is_untold = true;
        err = 0;
    }
    if (err == 0)
        given->told_lsn = given->lsn_written;
    if (given->done != NULL) {
        given->done = NULL;
        done(log, err);
        return;
    }
    if (err != 0)
        log_fail(log, err, NULL, "write lock file");
    log_segments_unlink(log);
}

static void given_flushed(struct io_op *op)
{
    given_end(op->arg, op->result < 0 ? (int)op->result : 0);
}

static void given_written(struct io_op *op)
{
    struct store_log *log = op->arg;

    if (op->result < 0) {
        given_flushed(op);
        return;
    }
    op->done = given_flushed;
    io_file_datasync(log->lock_file, op);
}

static void given_write(struct store_log *log)
{
    struct log_given *given = &log->given;
    struct given_page said = {.shard = log->options.shard, .given_lsn = log->given_lsn};

    memcpy(said.uuid, log->shard.uuid, sizeof(said.uuid));
    given_page_encode(&said, given->page);
    given->is_writing = true;
    given->lsn_written = log->given_lsn;
    given->op = (struct io_op){.done = given_written, .arg = log};
    io_file_write(log->lock_file, &given->op, given->page, PAGE_SIZE_, GIVEN_AT);
}

/* ---- while the log opens ------------------------------------------------------------------------ */

static void given_read(struct io_op *op)
{
    struct store_log *log = op->arg;
    struct log_given *given = &log->given;
    struct given_page said;
    void (*done)(struct store_log *, int) = given->done;

    if (op->result < 0 && op->result != ERR_EOF) {
        given->done = NULL;
        done(log, (int)op->result);
        return;
    }
    if (op->result >= 0 && given_page_decode(given->page, &said) && said.shard == log->options.shard &&
        memcmp(said.uuid, log->shard.uuid, sizeof(said.uuid)) == 0) {
        log->given_lsn = MAX(log->given_lsn, said.given_lsn);
        given->told_lsn = said.given_lsn;
        given->done = NULL;
        done(log, 0);
        return;
    }
    if (op->result >= 0 && get_u32(given->page) != 0) /* else a power cut took it before it told anything */
        log_warn(log->text, "store: what tells how far back the directory can be restored does not verify, it is written "
                 "anew file=%s/lock offset=%u", log->dir, GIVEN_AT);
    given_write(log);
}

void log_given_open(struct store_log *log, void (*done)(struct store_log *log, int err))
{
    struct log_given *given = &log->given;

    given->page = mem_alloc_aligned(PAGE_SIZE_, PAGE_SIZE_);
    ASSERT(given->page != NULL);
    given->done = done;
    given->op = (struct io_op){.done = given_read, .arg = log};
    io_file_read(log->lock_file, &given->op, given->page, PAGE_SIZE_, GIVEN_AT);
}

/* ---- later -------------------------------------------------------------------------------------- */

bool log_given_is_told(struct store_log *log, uint64_t lsn)
{
    if (lsn <= log->given.told_lsn)
        return true;
    if (!log->given.is_writing)
        given_write(log);
    return false;
}
