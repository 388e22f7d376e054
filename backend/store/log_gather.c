/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Group commit, fsync always: when the next commit starts.
 *
 * A commit costs the disk and the processor nearly the same for one record and for hundreds. Clients whose writes were
 * committed together are answered together and come back one by one: were the first of them committed at once, the others
 * would have to wait for it and then share another, two commits where one is enough. So a commit that is smaller than the
 * last one waits a little for more, as PostgreSQL's commit_delay does, in steps in which the loop sleeps.
 *
 *   W1  Never longer than half of what a commit takes here, nor than GATHER_US_MAX.
 *   W2  Not on when a step has brought next to nothing, and not once it is as large as the last one.
 *   W3  After a wait in vain the next ones start at once: 1, 2, 4 ... GATHER_SKIP_MAX of them.
 *   W4  A commit that nothing follows is not held up twice: the next one is measured by this one.
 *
 * Clients in two groups that take turns (one waits while the other's commit is under way) would stay so, each commit as
 * large as the last. Every GATHER_PROBE-th waits for both.
 */
#include "backend/store/log_private.h"

#define GATHER_US_MIN    20u   /* of a step */
#define GATHER_STEP_US   200u
#define GATHER_US_MAX    500u
#define GATHER_COUNT_MIN 4u
#define GATHER_PROBE     8u
#define GATHER_SKIP_MAX  64u

/* It goes on as it is. */
static bool gather_end(struct log_gather *gather, bool is_in_vain)
{
    if (gather->is_waiting && is_in_vain) {
        gather->backoff = MIN(MAX(gather->backoff * 2, 1u), GATHER_SKIP_MAX);
        gather->skip = gather->backoff;
    } else if (gather->is_waiting) {
        gather->backoff = 0;
    }
    gather->is_waiting = false;
    return false;
}

static bool gather_step(struct store_log *log, uint64_t count)
{
    struct log_gather *gather = &log->gather;
    uint32_t step_us = MIN(MAX(gather->commit_us / 4, GATHER_US_MIN), GATHER_STEP_US);

    if (gather->waited_us + step_us > MIN(gather->commit_us / 2, GATHER_US_MAX) || !io_linger(log->io, step_us, true))
        return gather_end(gather, count < gather->last / 2);
    gather->is_waiting = true;
    log_arm_timer(log); /* should the turn that was asked for have no end for us */
    gather->waited_us += step_us;
    gather->seen = count;
    gather->asked_us = io_now_us(log->io);
    return true;
}

bool log_gather_waits(struct store_log *log)
{
    struct log_gather *gather = &log->gather;
    uint64_t count = log->last_lsn - gather->lsn;
    uint64_t target = gather->last + (gather->commit_count % GATHER_PROBE == 0 ? gather->before : 0);

    if (count == 0)
        return false;
    if (gather->is_waiting) {
        if (gather->asked_us == io_now_us(log->io)) /* in the turn that asked */
            return true;
        if (count >= target || count - gather->seen <= gather->last / 16)
            return gather_end(gather, count < gather->last / 2);
        return gather_step(log, count);
    }
    if (target < GATHER_COUNT_MIN || count >= target)
        return false;
    if (gather->skip > 0) {
        gather->skip--;
        return false;
    }
    gather->waited_us = 0;
    return gather_step(log, count);
}

void log_gather_began(struct store_log *log)
{
    struct log_gather *gather = &log->gather;

    if (log->last_lsn == gather->lsn)
        return;
    gather->before = gather->last;
    gather->last = log->last_lsn - gather->lsn;
    gather->lsn = log->last_lsn;
    gather->commit_count++;
    gather->began_us = io_now_us(log->io);
    gather->is_under_way = true;
}

void log_gather_ended(struct store_log *log)
{
    struct log_gather *gather = &log->gather;
    uint32_t us;

    if (!gather->is_under_way || log->marks.durable < gather->lsn) /* a flush for something else */
        return;
    gather->is_under_way = false;
    us = (uint32_t)MIN(io_now_us(log->io) - gather->began_us, (uint64_t)UINT32_MAX / 8);
    gather->commit_us = gather->commit_us == 0 ? us : (gather->commit_us * 7 + us) / 8;
}

uint32_t store_log_commit_us(const struct store_log *log)
{
    return log->gather.commit_us;
}
