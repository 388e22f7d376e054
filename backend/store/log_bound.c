/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much of the disk segments may take: what `disk_max` says, else what the file system has left beside.
 *
 *     |<------ segments ------>|<-------------- left -------------->|
 *     |                        |                         |<- kept ->|
 *     |<------------------- bound ---------------------->|
 *
 * Kept is what the checkpoints of this shard may come to want (those of the others are not known: they get room as on any full
 * disk, K7), and a segment for each shard of the node: to each of them all that is left is its own. So the reserve is made
 * while there is room for it, clients are told before the file system has to refuse, and what frees room has some.
 *
 *   Q1  Segments that grow leave the bound as it is, as they take from what is left what they add to what is held; so an
 *       answer is good until others use the file system. It is asked again after a second, and when so much of the room
 *       was taken that the other shards, had they taken as much, would have left half of it.
 *   Q2  What was made or removed while it was asked counts as it is worse for us.
 *   Q3  Where others have taken what was kept, as within the second in which nobody asks, or before a start, a free segment is
 *       kept in its place: is_short.
 *   Q4  A file system that does not say, or has a quota that it does not tell, refuses files: log_segment.c.
 */
#include "backend/store/log_private.h"

#define BOUND_AGE_MS 1000u

uint64_t store_log_bound(const struct store_log *log)
{
    return log->options.disk_max != 0 ? log->options.disk_max : log->bound.bytes;
}

/* Bytes of segments that the file system has given. */
static uint64_t held(const struct store_log *log)
{
    return log->disk_bytes - log->unallocated_bytes - (log->making != NULL ? log->making->info.size : 0);
}

static uint64_t kept(const struct store_log *log)
{
    uint64_t beside = log->options.beside != NULL ? log->options.beside(log->options.arg) : 0;

    return beside + (uint64_t)MAX(log->options.shard_count, 1u) * log->options.segment_size;
}

static void bound_known(struct io_op *op)
{
    struct store_log *log = op->arg;
    struct log_bound *bound = &log->bound;
    void (*done)(struct store_log *, int) = bound->done;
    uint64_t left, shards = MAX(log->options.shard_count, 1u);

    bound->is_asking = false;
    bound->done = NULL;
    bound->again_ms = io_now_ms(log->io) + BOUND_AGE_MS;
    if (op->result >= 0) {
        left = (uint64_t)op->result;
        bound->is_short = left < kept(log);
        bound->bytes = MIN(held(log), bound->held_then) + left - MIN(left, kept(log)); /* Q2 */
        bound->bytes = MAX(bound->bytes, 1u);
    }
    left = bound->bytes - MIN(bound->bytes, log->disk_bytes);
    bound->again_bytes = log->disk_bytes + MAX(left / (2 * shards), (uint64_t)log->options.segment_size);
    if (done != NULL)
        done(log, 0);
    else if (log->state == LOG_RUNNING)
        log_segments_make(log);
}

static void bound_ask(struct store_log *log)
{
    struct log_bound *bound = &log->bound;

    bound->is_asking = true;
    bound->held_then = held(log);
    bound->op = (struct io_op){.done = bound_known, .arg = log};
    io_file_space(log->lock_file, &bound->op);
}

void log_bound_open(struct store_log *log, void (*done)(struct store_log *log, int err))
{
    if (log->options.disk_max != 0) {
        done(log, 0);
        return;
    }
    log->bound.done = done;
    bound_ask(log);
}

void log_bound_look(struct store_log *log)
{
    if (log->options.disk_max == 0 && !log->bound.is_asking && log->state == LOG_RUNNING && log->error == 0 &&
        (io_now_ms(log->io) >= log->bound.again_ms || log->disk_bytes >= log->bound.again_bytes))
        bound_ask(log);
}

bool log_bound_may_grow(const struct store_log *log)
{
    return log->options.disk_max == 0 && log->bound.bytes != 0 && log->state == LOG_RUNNING;
}
