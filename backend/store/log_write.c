/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes and flushes.
 *
 * A flush is submitted when every write that it shall cover is done, never beside one (G3); there is one at a time.
 * With fsync always each hot write is durable by itself (RWF_DSYNC: one request in place of two): it leaves nothing
 * dirty, and the flush that would cover it has nothing to do and ends at once.
 * The first error ends the log (G4): nothing more is written, the marks stand still, what waits is told.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

static struct log_queue *queue_of(const struct log_write *write)
{
    return write->is_hot ? &write->log->hot : &write->log->cold;
}

/* ---- failure ---------------------------------------------------------------------------------- */

void log_fail(struct store_log *log, int err, const struct segment *segment, const char *what)
{
    char path[LOG_PATH_MAX] = "";

    if (log->error != 0)
        return;
    log->error = err;
    log->page.limit = log->page.found = 0;
    io_timer_stop(&log->timer);
    if (segment != NULL)
        log_segment_path(log, segment->info.slot, path);
    log_error(log->text, "store: the log has failed, nothing more is written shard=%u what=%s file=%s why=\"%s\"",
              log->options.shard, what, path, err_text(err));
    log_soon(log);
    if (log->options.failed != NULL)
        log->options.failed(log->options.arg, err);
}

void store_log_doubt(struct store_log *log)
{
    log_ring_doubt_set(&log->ring, true);
}

/* ---- writes ----------------------------------------------------------------------------------- */

struct log_write *log_write_get(struct store_log *log, struct segment *segment, char *data, size_t size,
                                uint64_t off)
{
    struct log_write *write = mem_pool_get(&log->writes);

    ASSERT(write != NULL);
    *write = (struct log_write){
        .log = log, .segment = segment, .data = data, .size = size, .off = off, .is_hot = segment->is_hot,
    };
    return write;
}

static void write_put(struct log_write *write)
{
    struct store_log *log = write->log;

    if (write->ring_count > 0) {
        log_ring_release(&log->ring, write);
    } else {
        if (!write->is_hot)
            log->cold_bytes -= write->size;
        if (write->is_hot && write->is_page) {
            log->heap_count--;
            log->heap_bytes -= write->size;
        }
        mem_free(write->data);
    }
    mem_pool_put(&log->writes, write);
}

static void writes_pop(struct store_log *log, struct log_queue *queue)
{
    struct list_node *node;

    while ((node = list_first(&queue->writes)) != NULL) {
        struct log_write *write = CONTAINER_OF(node, struct log_write, node);

        if (!write->is_done)
            return;
        list_remove(node);
        queue->done_no = write->no;
        if (write->is_page)
            write->segment->written_end = write->off + write->size;
        else if (write->off == 0)
            write->segment->has_header = true;
        if (write->committed_lsn > log->marks.written) {
            log->marks.written = write->committed_lsn;
            if (log->marks.appended < log->marks.written)
                log->marks.appended = log->marks.written;
            if (log->ring.is_shared)
                log_ring_appended_set(&log->ring, log->marks.appended);
        }
        write_put(write);
    }
}

static void write_done(struct io_op *op)
{
    struct log_write *write = op->arg;
    struct store_log *log = write->log;
    struct segment *segment = write->segment;
    struct log_queue *queue = queue_of(write);
    struct store_marks before = log->marks;

    log->writes_submitted--;
    if (op->result < 0) {
        if (write->is_durable) /* it may be its flush that failed: what is read back is no proof then, either */
            store_log_doubt(log);
        log_fail(log, (int)op->result, segment, "write");
        return; /* it stays in the queue, and with it all behind it */
    }
    ASSERT((size_t)op->result == write->size);
    log->stats.bytes_written += write->size;
    write->is_done = true;
    segment->done_count += !write->is_durable;
    if (--segment->writes_left == 0 && segment->is_finished && segment->info.state == SEGMENT_OPEN)
        segment->info.state = SEGMENT_SEALED;
    if (log->error != 0)
        return;
    if (!write->is_durable && !list_node_is_linked(&segment->dirty))
        list_push_back(&queue->dirty, &segment->dirty);
    writes_pop(log, queue);
    log_appended_update(log);
    ASSERT(log->marks.durable <= log->marks.written && log->marks.written <= log->marks.appended);
    log_pump(log);
    if (log->options.marks != NULL && (log->marks.written != before.written || log->marks.appended != before.appended))
        log->options.marks(log->options.arg);
    store_log_room_check(log);
}

static void write_try_submit(struct log_write *write)
{
    struct store_log *log = write->log;

    if (write->is_submitted || write->segment->file == NULL || write->segment->is_making || log->error != 0 ||
        write->lsn_needed > log->marks.durable)
        return;
    if (write->lsn_needed != 0)
        log->held_bytes -= write->size;
    write->is_submitted = true;
    write->log->writes_submitted++;
    write->is_durable = write->is_hot && write->log->options.fsync == STORE_FSYNC_ALWAYS;
    write->op = (struct io_op){.done = write_done, .arg = write};
    if (write->is_durable)
        io_file_write_durable(write->segment->file, &write->op, write->data, write->size, write->off);
    else
        io_file_write(write->segment->file, &write->op, write->data, write->size, write->off);
}

void log_write_queue(struct log_write *write)
{
    struct log_queue *queue = queue_of(write);

    ASSERT(write->off % PAGE_SIZE_ == 0 && write->size % PAGE_SIZE_ == 0);
    write->no = ++queue->next_no;
    write->segment->writes_left++;
    list_push_back(&queue->writes, &write->node);
    if (!write->is_hot)
        write->log->cold_bytes += write->size;
    if (write->lsn_needed != 0)
        write->log->held_bytes += write->size;
    write_try_submit(write);
}

void log_writes_submit(struct store_log *log)
{
    LIST_FOR_EACH(&log->hot.writes, node)
        write_try_submit(CONTAINER_OF(node, struct log_write, node));
    LIST_FOR_EACH(&log->cold.writes, node)
        write_try_submit(CONTAINER_OF(node, struct log_write, node));
}

static void queue_destroy(struct log_queue *queue)
{
    struct list_node *node;

    while ((node = list_pop_front(&queue->writes)) != NULL) {
        struct log_write *write = CONTAINER_OF(node, struct log_write, node);

        if (write->ring_count == 0)
            mem_free(write->data);
        mem_pool_put(&write->log->writes, write);
    }
}

void log_writes_destroy(struct store_log *log)
{
    struct list_node *node;

    queue_destroy(&log->hot);
    queue_destroy(&log->cold);
    while ((node = list_pop_front(&log->waiters)) != NULL)
        mem_free(CONTAINER_OF(node, struct log_waiter, node));
    while ((node = list_pop_front(&log->waiters_done)) != NULL)
        mem_free(CONTAINER_OF(node, struct log_waiter, node));
    mem_pool_deinit(&log->writes);
    mem_free(log->zeros);
    log->zeros = NULL;
}

/* ---- flushes ---------------------------------------------------------------------------------- */

static void flush_ended(struct store_log *log)
{
    uint64_t durable = log->marks.durable;
    struct list_node *node;

    while ((node = list_pop_front(&log->flushing)) != NULL) {
        struct segment *segment = CONTAINER_OF(node, struct segment, dirty);
        struct log_queue *queue = segment->is_hot ? &log->hot : &log->cold;

        segment->flushed_end = segment->flushing_end;
        if (segment->done_count > segment->flushing_count) /* since then */
            list_push_back(&queue->dirty, &segment->dirty);
    }
    log->is_flushing = false;
    log->stats.flushes++;
    log->hot.durable_no = MAX(log->hot.durable_no, log->flush_hot_no);
    log->full_flushes += log->flush_is_full;
    if (log->flush_is_full)
        log->cold.durable_no = MAX(log->cold.durable_no, log->flush_cold_no);
    log->marks.durable = MAX(durable, log->flush_lsn);
    ASSERT(log->marks.durable <= log->marks.written);
    log_gather_ended(log);
    log_segments_foot(log);
    if (log->held_bytes > 0)
        log_writes_submit(log);
    log_pump(log);
    /* Also what a log without a ring has closed and written meanwhile, unasked. */
    if (log->options.fsync == STORE_FSYNC_ALWAYS && log->state == LOG_RUNNING &&
        (log->has_sealed || log->hot.next_no > log->hot.durable_no))
        store_log_turn_end(log);
    if (log->options.marks != NULL && log->marks.durable != durable)
        log->options.marks(log->options.arg);
}

static void flush_done(struct io_op *op)
{
    struct segment *segment = op->arg;
    struct store_log *log = segment->log;

    if (op->result < 0) {
        store_log_doubt(log);
        log_fail(log, (int)op->result, segment, "flush");
    }
    ASSERT(log->flush_count > 0);
    if (--log->flush_count > 0 || log->error != 0)
        return;
    flush_ended(log);
}

static void flush_queue(struct store_log *log, struct log_queue *queue)
{
    struct list_node *node;

    while ((node = list_pop_front(&queue->dirty)) != NULL) {
        struct segment *segment = CONTAINER_OF(node, struct segment, dirty);

        segment->flushing_end = segment->written_end;
        segment->flushing_count = segment->done_count;
        list_push_back(&log->flushing, node);
        log->flush_count++;
    }
}

static void flush_start(struct store_log *log, bool is_full)
{
    log->is_flushing = true;
    log->flush_is_full = is_full;
    log->flush_hot_no = log->hot.done_no;
    log->flush_cold_no = log->cold.done_no;
    log->flush_lsn = log->marks.written;
    flush_queue(log, &log->hot);
    if (is_full)
        flush_queue(log, &log->cold);
    if (log->flush_count == 0) {
        flush_ended(log);
        return;
    }
    LIST_FOR_EACH(&log->flushing, node) {
        struct segment *segment = CONTAINER_OF(node, struct segment, dirty);

        segment->flush_op = (struct io_op){.done = flush_done, .arg = segment};
        io_file_datasync(segment->file, &segment->flush_op);
    }
}

/* Waiters whose writes are durable, or will never be. They are told from the loop. */
static void waiters_check(struct store_log *log)
{
    struct list_node *node;

    while ((node = list_first(&log->waiters)) != NULL) {
        struct log_waiter *waiter = CONTAINER_OF(node, struct log_waiter, node);

        if (log->error == 0 &&
            (waiter->hot_no > log->hot.durable_no || waiter->cold_no > log->cold.durable_no ||
             waiter->full_no > log->full_flushes))
            break;
        list_remove(node);
        list_push_back(&log->waiters_done, node);
    }
    if (!list_is_empty(&log->waiters_done))
        log_soon(log);
}

void log_pump(struct store_log *log)
{
    struct list_node *node;
    bool is_wanted, is_full;

    log_leave_check(log);
    waiters_check(log);
    if (log->is_flushing || log->error != 0)
        return;
    if (!log->ring.is_shared && log->has_sealed && !log->is_atomic && list_is_empty(&log->hot.writes) &&
        log->state == LOG_RUNNING)
        log_page_close(log);
    is_wanted = log->flush_wanted > log->hot.durable_no && log->hot.done_no >= log->flush_wanted;
    if (UNLIKELY(log_is_held_up(log) || log->is_impatient)) /* for a file: what lies before it does not wait */
        is_wanted = log->hot.done_no > log->hot.durable_no &&
                    (log->flush_wanted > log->hot.durable_no || !list_is_empty(&log->waiters) || log->is_impatient);
    node = list_first(&log->waiters);
    is_full = node != NULL && CONTAINER_OF(node, struct log_waiter, node)->hot_no <= log->hot.done_no &&
              CONTAINER_OF(node, struct log_waiter, node)->cold_no <= log->cold.done_no;
    if (is_wanted || is_full)
        flush_start(log, is_full);
}

/* ---- told from the loop ----------------------------------------------------------------------- */

void log_soon(struct store_log *log)
{
    if (!io_timer_is_running(&log->soon))
        io_timer_start(log->io, &log->soon, 0);
}

void log_soon_fire(struct io_timer *timer)
{
    struct store_log *log = timer->arg;
    struct list_node *node;
    struct list waiters;
    int err = log->error != 0 ? -EROFS : 0;

    log_pump(log);
    log_reads_deliver(log);
    log_walks_go(log);
    list_init(&waiters); /* done() may be the end of the log */
    while ((node = list_pop_front(&log->waiters_done)) != NULL)
        list_push_back(&waiters, node);
    log_recover_soon(log);
    while ((node = list_pop_front(&waiters)) != NULL) {
        struct log_waiter *waiter = CONTAINER_OF(node, struct log_waiter, node);
        void (*done)(void *, int) = waiter->done;
        void *arg = waiter->arg;

        mem_free(waiter);
        done(arg, err);
    }
}
