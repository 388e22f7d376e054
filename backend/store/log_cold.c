/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies that the cleaner and the spiller make: a buffer and a segment for each class, no ring, no order. And blobs,
 * hot or cold: a segment of their own.
 *
 * What is not durable of a copy is still where it came from, so a crash costs nothing here.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

size_t store_log_cold_backlog(const struct store_log *log)
{
    return log->cold_bytes;
}

void store_log_cold_marks(const struct store_log *log, uint64_t marks[STORE_LOG_CLASSES])
{
    for (unsigned i = 0; i < LOG_CLASSES; i++) {
        const struct log_cold *cold = &log->classes[i];

        if (cold->segment == NULL)
            marks[i] = 0;
        else
            marks[i] = address_of(cold->segment->info.sequence,
                                  cold->data != NULL ? cold->off + cold->at : cold->segment->info.used_bytes);
    }
}

static size_t cold_cap(const struct store_log *log, size_t need)
{
    return round_up(MAX(need, MIN((size_t)LOG_COLD_BUFFER, log->page_max)), PAGE_SIZE_);
}

/* One frame, one page write. */
static void cold_seal(struct store_log *log, struct log_cold *cold)
{
    struct frame frame = {
        .size = (uint32_t)(cold->at - PAGE_HEADER_SIZE),
        .record_count = cold->record_count,
        .epoch = log->epoch,
        .flags = FRAME_COLD,
        .first_lsn = cold->first_lsn,
        .last_lsn = cold->last_lsn,
        .wall_ms = log->wall_ms,
    };

    frame_seal(&frame, cold->data + PAGE_HEADER_SIZE);
    log_page_header(log, cold->segment, cold->off, cold->at, 1, cold->data);
}

void log_cold_close(struct store_log *log, struct log_cold *cold)
{
    size_t size = round_up(cold->at, PAGE_SIZE_);
    struct log_write *write;

    if (cold->data == NULL)
        return;
    ASSERT(cold->record_count > 0 && size <= cold->cap);
    cold_seal(log, cold);
    memset(cold->data + cold->at, 0, size - cold->at);
    cold->segment->info.used_bytes = cold->off + size;
    write = log_write_get(log, cold->segment, cold->data, size, cold->off);
    write->is_page = true;
    write->lsn_needed = cold->last_lsn;
    cold->data = NULL;
    log_write_queue(write);
    log->stats.page_writes++;
    log->stats.frames++;
}

void log_cold_close_all(struct store_log *log)
{
    for (unsigned i = 0; i < LOG_CLASSES; i++)
        log_cold_close(log, &log->classes[i]);
}

static void cold_end(struct store_log *log, struct log_cold *cold)
{
    log_cold_close(log, cold);
    if (cold->segment != NULL)
        log_segment_finish(cold->segment);
    cold->segment = NULL;
}

void log_cold_end_all(struct store_log *log)
{
    for (unsigned i = 0; i < LOG_CLASSES; i++)
        cold_end(log, &log->classes[i]);
}

void store_log_cold_end_dead(struct store_log *log)
{
    for (unsigned i = 0; i < LOG_CLASSES && log->state == LOG_RUNNING; i++) {
        struct log_cold *cold = &log->classes[i];

        if (cold->segment != NULL && cold->segment->info.live_bytes == 0 && cold->segment->info.record_bytes > 0)
            cold_end(log, cold);
    }
}

/* A segment for one page write of `cap` bytes; its file is made meanwhile. */
int log_blob_begin(struct store_log *log, size_t cap, bool is_hot, struct segment **out)
{
    struct segment *segment = log_segment_create(log, log->next_slot++, 2 * PAGE_SIZE_ + (uint64_t)cap);

    log->blob_bytes = 0;
    log_segment_begin(log, segment, SEGMENT_BLOB, 0, is_hot);
    log_segment_make_file(log, segment);
    *out = segment;
    return 0;
}

static void cold_put(struct log_cold *cold, const struct record *record, size_t size)
{
    record_encode(record, cold->data + cold->at);
    cold->at += size;
    cold->record_count++;
    cold->first_lsn = cold->first_lsn == 0 ? record->lsn : MIN(cold->first_lsn, record->lsn);
    cold->last_lsn = MAX(cold->last_lsn, record->lsn);
    log_count_record(cold->segment, record, size);
}

static void cold_begin(struct log_cold *cold, char *data, size_t cap)
{
    cold->data = data;
    cold->cap = cap;
    cold->at = PAGE_HEADER_SIZE + FRAME_HEADER_SIZE;
    cold->record_count = 0;
    cold->first_lsn = cold->last_lsn = 0;
    cold->off = cold->segment->info.used_bytes;
}

static int cold_blob(struct store_log *log, const struct record *record, size_t size, uint64_t *address)
{
    size_t cap = round_up(PAGE_HEADER_SIZE + FRAME_HEADER_SIZE + size, PAGE_SIZE_);
    uint64_t bytes = cap + 2 * PAGE_SIZE_, bound = store_log_bound(log);
    struct log_cold blob = {0};
    char *data;
    int err;

    if (log->is_out_of_space || (log->is_full && !log_segment_available(log, false)))
        return -ENOSPC;
    if (log->is_full && log_blob_waits(log))
        return ERR_AGAIN;
    if (bound != 0 && log->disk_bytes + bytes > bound) {
        log->refused_bytes = bytes;
        return -ENOSPC;
    }
    log->refused_bytes = log->copy_bytes = 0;
    data = mem_alloc_aligned(cap, PAGE_SIZE_);
    if (data == NULL)
        return ERR_FULL;
    err = log_blob_begin(log, cap, false, &blob.segment);
    ASSERT(err == 0);
    cold_begin(&blob, data, cap);
    *address = address_of(blob.segment->info.sequence, blob.off + blob.at);
    cold_put(&blob, record, size);
    log_cold_close(log, &blob);
    log_segment_finish(blob.segment);
    return 0;
}

/* A buffer with room for the record. Errors: nothing has changed. */
static int cold_place(struct store_log *log, struct log_cold *cold, unsigned class, size_t size)
{
    size_t need = round_up(PAGE_HEADER_SIZE + FRAME_HEADER_SIZE + size, PAGE_SIZE_);
    size_t cap = cold_cap(log, need);
    uint64_t used = cold->segment == NULL ? 0
                    : cold->data != NULL  ? cold->off + round_up(cold->at, PAGE_SIZE_)
                                          : cold->segment->info.used_bytes;
    bool is_roll = cold->segment == NULL || log_segment_end(cold->segment) - used < need;
    char *data;

    if (is_roll && !log_segment_available(log, false))
        return -ENOSPC;
    if (!is_roll)
        cap = MIN(cap, (size_t)(log_segment_end(cold->segment) - used));
    data = mem_alloc_aligned(cap, PAGE_SIZE_);
    if (data == NULL)
        return ERR_FULL;
    log_cold_close(log, cold);
    if (is_roll) {
        if (cold->segment != NULL)
            log_segment_finish(cold->segment);
        cold->segment = log_segment_take(log, SEGMENT_COLD, (uint8_t)class, false);
    }
    cold_begin(cold, data, cap);
    return 0;
}

/* Streams are for the sake of order only: without a free segment, what any other one has room for goes there. */
static int cold_place_anywhere(struct store_log *log, unsigned class, size_t size, struct log_cold **out)
{
    int err = -ENOSPC;

    for (unsigned i = 0; i < LOG_CLASSES && err == -ENOSPC; i++) {
        unsigned at = (class + i) % LOG_CLASSES;
        struct log_cold *cold = &log->classes[at];

        *out = cold;
        err = cold->data != NULL && cold->at + size <= cold->cap ? 0 : cold_place(log, cold, at, size);
    }
    return err;
}

int store_log_cold_append(struct store_log *log, const struct record *record, unsigned class,
                          uint64_t *address)
{
    struct log_cold *cold = &log->classes[class];
    size_t size = record_size(record);

    ASSERT(class < LOG_CLASSES && record->lsn > 0);
    if (log->error != 0)
        return -EROFS;
    ASSERT(log->state == LOG_RUNNING);
    log->stats.record_bytes_cold += size;
    if (size > log->blob_from)
        return cold_blob(log, record, size, address);
    if (cold->data == NULL || cold->at + size > cold->cap) {
        int err = cold_place_anywhere(log, class, size, &cold);

        if (err != 0)
            return err;
    }
    *address = address_of(cold->segment->info.sequence, cold->off + cold->at);
    cold_put(cold, record, size);
    return 0;
}
