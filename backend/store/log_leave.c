/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closing where the file system has no room for a large record (G11).
 *
 *     store_log_leave() ──> asked again for LOG_LEAVE_MS ──> there is room: closed as ever
 *                                                  └──> none: what lies before is flushed, the log ends, and is closed
 *
 * Who stops a process waits for it some seconds and kills it then, and nobody knows whether room will come. What has none,
 * and what lies behind it in the log, was not appended (G5), so nobody was answered; or it is a copy, and what it was copied
 * from is still there (G9). To the next start it looks as if the process had been killed before it was written. But for the
 * checkpoint, which would have told of it, everything else ends in order: all that was appended is durable, so the log ring
 * is not needed any more.
 */
#include "backend/store/log_private.h"

static bool is_any_stalled(const struct store_log *log)
{
    for (uint32_t i = 0; i < log->used_count; i++)
        if (log->used[i]->is_stalled)
            return true;
    return false;
}

/* The first of the hot log that is not written has no file: what lies before it will not grow. */
bool log_is_held_up(const struct store_log *log)
{
    const struct list_node *node = list_first(&log->hot.writes);

    return node != NULL && CONTAINER_OF(node, struct log_write, node)->segment->is_stalled;
}

static bool is_rest_durable(const struct store_log *log)
{
    return !log->is_flushing && log->hot.done_no == log->hot.durable_no &&
           (list_is_empty(&log->hot.writes) || log_is_held_up(log));
}

void log_leave_check(struct store_log *log)
{
    if (!log->is_impatient || log->error != 0 || !is_any_stalled(log) || !is_rest_durable(log))
        return;
    log->is_given_up = true;
    log->error = -ENOSPC;
    log->page.limit = log->page.found = 0;
    io_timer_stop(&log->timer);
    log_warn(log->text, "store: there is no room on the disk, and none has come while it closes: changes that waited for it "
             "were given up, none of them was answered shard=%u dir=%s lsn=%llu", log->options.shard, log->dir,
             (unsigned long long)log->marks.durable);
    log_soon(log);
}

void log_leave_fire(struct io_timer *timer)
{
    struct store_log *log = timer->arg;

    if (log->error != 0 || log->state == LOG_CLOSED)
        return;
    log->is_impatient = true;
    log_page_close(log);
    log_pump(log);
}

void store_log_leave(struct store_log *log)
{
    if (log->error != 0 || log->state != LOG_RUNNING)
        return;
    io_timer_start(log->io, &log->leave_timer, LOG_LEAVE_MS);
    if (is_any_stalled(log))
        log_space_fire(&log->space_timer);
}
