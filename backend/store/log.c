/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appending. The way of most records is: encode into the open frame, done. Everything else happens when the frame or
 * the page write is full, at the end of the turn, and once a second.
 */
#include "backend/store/log.h"
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

/* ---- marks ------------------------------------------------------------------------------------ */

/* What lies in the ring survives us; what does not counts when it is written (G5). */
void log_appended_update(struct store_log *log)
{
    uint64_t lsn = log->sealed_lsn;

    if (!log->ring.is_shared)
        lsn = log->marks.written;
    else if (log->heap_count > 0) {
        LIST_FOR_EACH(&log->hot.writes, node) {
            const struct log_write *write = CONTAINER_OF(node, struct log_write, node);

            if (write->is_page && write->ring_count == 0) {
                lsn = write->committed_before;
                break;
            }
        }
    }
    if (log->page.data != NULL && log->page.ring_count == 0)
        lsn = MIN(lsn, log->page.committed_before);
    if (lsn <= log->marks.appended)
        return;
    log->marks.appended = lsn;
    ASSERT(log->marks.written <= lsn);
    if (log->ring.is_shared)
        log_ring_appended_set(&log->ring, lsn);
}

struct store_marks store_log_marks(const struct store_log *log)
{
    return log->marks;
}

uint64_t store_log_last_lsn(const struct store_log *log)
{
    return log->last_lsn;
}

void store_log_lsn_floor(struct store_log *log, uint64_t lsn)
{
    ASSERT(lsn <= STORE_LSN_MAX);
    log->last_lsn = MAX(log->last_lsn, lsn);
}

void store_log_epoch_set(struct store_log *log, uint32_t epoch)
{
    log->epoch = epoch;
}

void store_log_wall_set(struct store_log *log, uint64_t wall_ms)
{
    log->wall_ms = wall_ms;
}

void store_log_fsync_set(struct store_log *log, enum store_fsync fsync)
{
    log->options.fsync = fsync;
    if (log->state == LOG_RUNNING && fsync != STORE_FSYNC_NO)
        log_arm_timer(log);
}

static uint32_t reserve_of(const struct store_log_options *options)
{
    if (options->disk_max == 0)
        return LOG_RESERVE_FULL;
    return (uint32_t)MIN(MAX(options->disk_max / LOG_RESERVE_SHARE / options->segment_size, LOG_RESERVE_MIN),
                         LOG_RESERVE_MAX);
}

uint64_t store_log_reserve(const struct store_log *log)
{
    return (uint64_t)log->reserve * log->options.segment_size;
}

void store_log_disk_max_set(struct store_log *log, uint64_t bytes)
{
    log->options.disk_max = bytes;
    log->reserve = reserve_of(&log->options);
    if (log->state == LOG_RUNNING)
        log_segments_make(log);
}

/* ---- frames ----------------------------------------------------------------------------------- */

void log_count_record(struct segment *segment, const struct record *record, size_t size)
{
    struct segment_info *info = &segment->info;
    uint64_t expire_ms = record->expire_ms != 0 ? record->expire_ms : UINT64_MAX;

    segment->record_count++;
    info->record_bytes += size;
    if (expire_ms > info->expire_max_ms)
        info->expire_max_ms = expire_ms;
    if (record->lsn < info->first_lsn || info->first_lsn == 0)
        info->first_lsn = record->lsn;
    if (record->lsn > info->last_lsn)
        info->last_lsn = record->lsn;
    if (record_takes_away(record))
        info->takes_lsn = MAX(info->takes_lsn, record->lsn);
}

static void frame_begin(struct store_log *log)
{
    struct log_page *page = &log->page;

    page->frame_at = page->at;
    page->at += FRAME_HEADER_SIZE;
    page->record_count = 0;
    page->first_lsn = log->last_lsn + 1;
    page->limit = page->cap;
}

void log_frame_seal(struct store_log *log, bool continues)
{
    struct log_page *page = &log->page;
    struct frame frame = {
        .record_count = page->record_count,
        .epoch = log->epoch,
        .flags = continues ? FRAME_CONTINUES : 0,
        .first_lsn = page->first_lsn,
        .last_lsn = log->last_lsn,
        .chain_before = log->chain,
        .wall_ms = log->wall_ms,
    };

    if (page->frame_at == 0)
        return;
    frame.first_lsn = MIN(frame.first_lsn, frame.last_lsn);
    frame.size = (uint32_t)(page->at - page->frame_at);
    frame_seal(&frame, page->data + page->frame_at);
    log->chain = frame.chain;
    page->frame_at = page->limit = page->found = 0;
    page->frame_count++;
    page->segment->chain_end = frame.chain;
    log->stats.frames++;
    log->has_sealed = true;
    log->is_unit_open = continues;
    if (!continues)
        log->sealed_lsn = log->last_lsn;
    if (page->ring_count > 0)
        log_ring_sealed(&log->ring, page);
    log_appended_update(log);
}

/* ---- page writes ------------------------------------------------------------------------------ */

void log_page_header(const struct store_log *log, const struct segment *segment, uint64_t off, size_t used,
                     uint32_t frame_count, char *at)
{
    struct page page = {
        .kind = segment->is_hot ? PAGE_HOT : PAGE_COLD,
        .sequence = segment->info.sequence,
        .block = (uint32_t)(off / PAGE_SIZE_),
        .used = (uint32_t)used,
        .frame_count = frame_count,
        .shard = log->options.shard,
        .mark = segment->is_hot ? log->marks.durable : segment->flushed_end,
    };

    memcpy(page.uuid, log->shard.uuid, sizeof(page.uuid));
    page_seal(&page, at);
}

static void page_forget(struct store_log *log)
{
    log->page = (struct log_page){0};
    log->has_sealed = false;
}

void log_page_close(struct store_log *log)
{
    struct log_page *page = &log->page;
    size_t size = round_up(page->at, PAGE_SIZE_);
    struct segment *segment = page->segment;
    struct log_write *write;

    if (page->data == NULL)
        return;
    log_frame_seal(log, log->is_atomic);
    size = round_up(page->at, PAGE_SIZE_);
    ASSERT(page->frame_count > 0 && page->at <= page->cap);
    memset(page->data + page->at, 0, size - page->at);
    log_page_header(log, segment, page->off, page->at, page->frame_count, page->data);
    if (page->ring_count > 0)
        log_ring_give_back(&log->ring, page, size);
    segment->info.used_bytes = page->off + size;
    write = log_write_get(log, segment, page->data, size, page->off);
    write->is_page = true;
    write->ring_page = page->ring_page;
    write->ring_count = page->ring_count;
    write->ring_skip = page->ring_skip;
    write->committed_before = page->committed_before;
    write->committed_lsn = log->sealed_lsn;
    if (page->ring_count == 0) {
        ASSERT(page->heap >= size);
        log->heap_bytes -= page->heap - size;
        log->heap_count++;
    }
    page_forget(log);
    log_write_queue(write);
    log->stats.page_writes++;
    if (segment->info.kind == SEGMENT_BLOB)
        log_segment_finish(segment);
}

/* Where the next page write goes, decided before anything changes. */
struct page_plan {
    struct log_page page;
    size_t need;
    bool is_blob, is_roll;
};

/* The segment's part: 0 or -ENOSPC. */
static int plan_segment(struct store_log *log, size_t need, struct page_plan *plan)
{
    const struct log_page *page = &log->page;
    struct segment *segment = log->hot_segment;
    uint64_t off, room;

    plan->is_blob = need - PAGE_HEADER_SIZE - FRAME_HEADER_SIZE > log->blob_from;
    if (plan->is_blob) {
        plan->page.cap = round_up(need, PAGE_SIZE_);
        if (segment == NULL && !log_segment_available(log, true))
            return -ENOSPC;
        return log_blob_fits(log, need) ? 0 : -ENOSPC;
    }
    if (segment != NULL) {
        off = page->data != NULL && page->segment == segment ? page->off + round_up(page->at, PAGE_SIZE_)
                                                             : segment->info.used_bytes;
        room = log_segment_end(segment) - off;
        plan->page.cap = MIN(room, log->page_max);
        if (room >= round_up(need, PAGE_SIZE_))
            return 0;
    }
    plan->is_roll = true;
    plan->page.cap = MIN(log->page_max, (size_t)log->options.segment_size - 2 * PAGE_SIZE_);
    return log_segment_available(log, true) ? 0 : -ENOSPC;
}

/* The memory's part. A page write in the ring, or of the size that is needed, on the heap. */
static int plan_memory(struct store_log *log, size_t need, struct page_plan *plan)
{
    size_t size = round_up(need, PAGE_SIZE_), max = plan->page.cap;

    if (!plan->is_blob && size <= log->page_max && log_ring_take(&log->ring, size, max, &plan->page))
        return 0;
    plan->page.cap = size <= log->page_max ? max : size;
    plan->page.data = mem_alloc_aligned(plan->page.cap, PAGE_SIZE_);
    if (plan->page.data == NULL)
        return ERR_FULL;
    plan->page.heap = plan->page.cap;
    log->heap_bytes += plan->page.heap;
    return 0;
}

static void page_open(struct store_log *log, struct page_plan *plan)
{
    struct log_page *page = &log->page;
    struct segment *segment = log->hot_segment;

    if (plan->is_blob) {
        segment = plan->page.segment;
    } else if (plan->is_roll) {
        if (segment != NULL)
            log_segment_finish(segment);
        segment = log->hot_segment = log_segment_take(log, SEGMENT_HOT, 0, true);
    }
    *page = plan->page;
    page->segment = segment;
    page->off = segment->info.used_bytes;
    page->at = PAGE_HEADER_SIZE;
    if (plan->is_blob) /* one record, also if there is room behind it */
        page->cap = plan->need;
    page->address = address_of(segment->info.sequence, page->off);
    page->committed_before = log->sealed_lsn;
    if (page->ring_count > 0) {
        struct ring_entry *entry = &log->ring.table[page->ring_page];

        entry->sequence = segment->info.sequence;
        entry->block = (uint32_t)(page->off / PAGE_SIZE_);
    }
}

/* An open frame with room for a record of that size. Errors: as store_log_append(), nothing has changed then. */
static NOINLINE int append_place(struct store_log *log, size_t size)
{
    struct log_page *page = &log->page;
    size_t need = PAGE_HEADER_SIZE + FRAME_HEADER_SIZE + size;
    struct page_plan plan = {.need = need};
    int err;

    if (log->error != 0)
        return -EROFS;
    ASSERT(log->state == LOG_RUNNING);
    if (page->data != NULL && page->frame_at == 0 && page->at + FRAME_HEADER_SIZE + size <= page->cap) {
        frame_begin(log);
        return 0;
    }
    err = plan_segment(log, need, &plan);
    /* Before the next: its run's end is given back, its last frame's chain is known to a new segment's header. */
    if (err == 0)
        log_page_close(log);
    if (err == 0)
        err = plan_memory(log, need, &plan);
    /* A blob comes behind a hot segment: recovery starts with one. */
    if (err == 0 && plan.is_blob && log->hot_segment == NULL)
        log->hot_segment = log_segment_take(log, SEGMENT_HOT, 0, true);
    if (err == 0 && plan.is_blob)
        err = log_blob_begin(log, plan.page.cap, true, &plan.page.segment);
    if (err != 0) {
        if (plan.page.heap > 0) {
            log->heap_bytes -= plan.page.heap;
            mem_free(plan.page.data);
        }
        return err;
    }
    page_open(log, &plan);
    frame_begin(log);
    return 0;
}

bool store_log_takes(struct store_log *log, size_t bytes)
{
    const struct log_page *page = &log->page;
    struct page_plan plan = {.need = PAGE_HEADER_SIZE + FRAME_HEADER_SIZE + bytes};

    return log->error != 0 || (page->data != NULL && page->at + FRAME_HEADER_SIZE + bytes <= page->cap) ||
           plan_segment(log, plan.need, &plan) == 0;
}

int store_log_append(struct store_log *log, struct record *record, uint64_t *address)
{
    struct log_page *page = &log->page;
    size_t size = record_size(record);

    if (UNLIKELY(page->at + size > page->limit)) {
        int err = append_place(log, size);

        if (err != 0)
            return err;
    }
    record->lsn = ++log->last_lsn;
    record->epoch = log->epoch;
    record->size = size;
    record_encode(record, page->data + page->at);
    *address = page->address + (page->at >> 4);
    page->at += size;
    page->record_count++;
    log_count_record(page->segment, record, size);
    log->stats.record_bytes_hot += size;
    return 0;
}

void store_log_atomic(struct store_log *log, bool begins)
{
    ASSERT(log->is_atomic != begins);
    log->is_atomic = begins;
}

/* ---- the end of a turn ------------------------------------------------------------------------ */

void log_arm_timer(struct store_log *log)
{
    bool is_pending = log->page.data != NULL || (log->options.fsync != STORE_FSYNC_NO &&
                                                 log->hot.next_no > log->hot.durable_no);

    if (is_pending && log->error == 0 && !io_timer_is_running(&log->timer))
        io_timer_start(log->io, &log->timer, LOG_TIMER_MS);
}

/* Group commit: what came while a flush was under way shares the next. */
static void turn_always(struct store_log *log)
{
    if (log->flush_wanted > log->hot.durable_no || log_gather_waits(log))
        return;
    log_gather_began(log);
    log_page_close(log);
    if (log->hot.next_no > log->hot.durable_no)
        log->flush_wanted = log->hot.next_no;
    log_pump(log);
}

/* A transaction's last frame said that it goes on, and then there was no place for its last record: a frame with
 * nothing in it ends it. Without a place for that either it is tried at the end of the next turn. */
static void unit_end(struct store_log *log)
{
    if (log->is_unit_open && log->page.frame_at == 0)
        MAYBE(append_place(log, 0) != 0);
}

bool store_log_is_unit_open(const struct store_log *log)
{
    return log->is_unit_open;
}

void store_log_turn_end(struct store_log *log)
{
    /* A unit that spans turns (EXEC waits for a cold value) keeps its frame open: nothing of it is sealed as whole. */
    if (log->error != 0 || log->state != LOG_RUNNING || log->is_atomic)
        return;
    unit_end(log);
    log_frame_seal(log, false);
    if (log->options.fsync == STORE_FSYNC_ALWAYS) {
        turn_always(log);
        return;
    }
    if (log->held_bytes > LOG_HELD_MAX && log->flush_wanted <= log->hot.durable_no) {
        log_page_close(log);
        log->flush_wanted = log->hot.next_no;
        log_pump(log);
    }
    if (log->page.at >= LOG_WRITE_AT || (log->page.data != NULL && (!log->ring.is_shared || log->page.ring_count == 0)))
        log_page_close(log);
    log_arm_timer(log);
}

static void timer_fire(struct io_timer *timer)
{
    struct store_log *log = timer->arg;

    if (log->error != 0 || log->state != LOG_RUNNING)
        return;
    if (log->is_atomic) { /* it ends soon */
        log_arm_timer(log);
        return;
    }
    log_page_close(log);
    if (log->options.fsync != STORE_FSYNC_NO)
        log->flush_wanted = MAX(log->flush_wanted, log->hot.next_no);
    log_pump(log);
    log_arm_timer(log);
}

void log_flush(struct store_log *log, bool is_forced, void (*done)(void *arg, int err), void *arg)
{
    struct log_waiter *waiter = must_zalloc(sizeof(*waiter));

    waiter->done = done;
    waiter->arg = arg;
    if (log->error == 0) {
        log_page_close(log);
        log_cold_close_all(log);
    }
    if (log->held_bytes > 0)
        log->flush_wanted = MAX(log->flush_wanted, log->hot.next_no);
    waiter->hot_no = log->hot.next_no;
    waiter->cold_no = log->cold.next_no;
    waiter->full_no = is_forced ? log->full_flushes + 1 + log->is_flushing : 0;
    list_push_back(&log->waiters, &waiter->node);
    log_soon(log);
}

void store_log_flush(struct store_log *log, void (*done)(void *arg, int err), void *arg)
{
    log_flush(log, false, done, arg);
}

/* ---- state ------------------------------------------------------------------------------------ */

static bool log_has_room(const struct store_log *log)
{
    uint32_t free_pages = log->ring.page_count - log->ring.used;

    if (log->error != 0)
        return true; /* appends say why not */
    if (log->heap_bytes > LOG_HEAP_MAX || log_blob_waits(log))
        return false;
    if (!log_segment_available(log, true) && !store_log_is_disk_full(log) &&
        (log->hot_segment == NULL || log->hot_segment->info.used_bytes > log->options.segment_size / 2))
        return false; /* the next segment's file is on its way */
    return (size_t)free_pages * PAGE_SIZE_ >= log->page_max || log->page.data != NULL;
}

bool store_log_has_room(struct store_log *log)
{
    bool has_room = log_has_room(log);

    /* Who was told "no" waits to be told. */
    log->room_is_wanted |= !has_room;
    return has_room;
}

bool store_log_has_room_at_hand(const struct store_log *log, size_t bytes)
{
    return log->page.at + bytes <= log->page.found;
}

void store_log_room_found(struct store_log *log)
{
    log->page.found = log->page.limit;
}

void store_log_room_check(struct store_log *log)
{
    bool is_full;

    log_bound_look(log);
    log_spares_trim(log);
    is_full = store_log_is_disk_full(log);
    /* Errors told of a full disk are over as well. */
    log->room_is_wanted |= log->was_full && !is_full;
    log->was_full = is_full;
    if (UNLIKELY(log->room_is_wanted) && log_has_room(log) && log->options.room != NULL) {
        log->room_is_wanted = false;
        log->options.room(log->options.arg);
    }
}

int store_log_error(const struct store_log *log)
{
    return log->error;
}

uint64_t store_log_recovered_lsn(const struct store_log *log)
{
    return log->recovered_lsn;
}

bool store_log_is_ring_lost(const struct store_log *log)
{
    return log->is_ring_lost;
}

void store_log_stats_get(const struct store_log *log, struct store_log_stats *out)
{
    *out = log->stats;
    out->segments = log->used_count;
    out->segments_free = log->ready_count;
    out->disk_bytes = log->disk_bytes;
    out->bytes_freeing = 0;
    LIST_FOR_EACH(&log->freeing, node)
        out->bytes_freeing += CONTAINER_OF(node, struct segment, sealing)->info.size;
}

const unsigned char *store_log_uuid(const struct store_log *log)
{
    return log->shard.uuid;
}

uint64_t store_log_hash_seed(const struct store_log *log)
{
    uint64_t seed;

    memcpy(&seed, log->shard.seed, sizeof(seed));
    return seed;
}

/* ---- create, destroy -------------------------------------------------------------------------- */

int store_log_create(const struct store_log_options *options, struct store_log **out)
{
    struct store_log *log;
    size_t segment_size = options->segment_size != 0 ? options->segment_size : LOG_SEGMENT_SIZE;
    size_t ring_size = options->ring_size != 0 ? options->ring_size : LOG_RING_SIZE;

    *out = NULL;
    if (segment_size > LOG_SEGMENT_SIZE || segment_size < LOG_SEGMENT_MIN || segment_size % PAGE_SIZE_ != 0 ||
        ring_size % PAGE_SIZE_ != 0 || ring_size < 16 * PAGE_SIZE_ || ring_size > (1u << 30) ||
        strlen(options->dir) > LOG_PATH_MAX - 32)
        return ERR_INVALID;
    log = must_zalloc(sizeof(*log));
    log->options = *options;
    log->options.segment_size = (uint32_t)segment_size;
    log->options.ring_size = (uint32_t)ring_size;
    log->io = options->io;
    log->text = io_log(options->io);
    log->dir = must_strdup(options->dir);
    log->options.dir = log->dir;
    if (options->ring_path != NULL)
        log->options.ring_path = log->ring_path = must_strdup(options->ring_path);
    log->page_max = MIN(LOG_PAGE_MAX, MIN(segment_size / 4, ring_size / 4)) & ~(size_t)(PAGE_SIZE_ - 1);
    log->blob_from = segment_size / 8;
    log->reserve = reserve_of(&log->options);
    mem_pool_init(&log->writes, sizeof(struct log_write), 64);
    list_init(&log->hot.writes);
    list_init(&log->hot.dirty);
    list_init(&log->cold.writes);
    list_init(&log->cold.dirty);
    list_init(&log->sealing);
    list_init(&log->freeing);
    list_init(&log->flushing);
    list_init(&log->waiters);
    list_init(&log->waiters_done);
    list_init(&log->reads_done);
    list_init(&log->walks);
    log->timer = (struct io_timer){.fire = timer_fire, .arg = log};
    log->soon = (struct io_timer){.fire = log_soon_fire, .arg = log};
    log->space_timer = (struct io_timer){.fire = log_space_fire, .arg = log};
    log->leave_timer = (struct io_timer){.fire = log_leave_fire, .arg = log};
    *out = log;
    return 0;
}
