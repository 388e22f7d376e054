/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single records by address, and whole segments.
 *
 * What is not written yet is answered from memory, what is on its way too: a read beside a write may see neither. All
 * answers come from the loop. A record that does not verify is told with file and offset, never handed out.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

#define STEP_US      150u /* of a walk in pieces, at a time; */
#define STEP_RECORDS 512u /* no more of them; */
#define STEP_LOOK    4u   /* a look at the clock after so many */

struct read_part {
    struct io_op op;
    struct list_node node; /* on log->reads_done: answered from memory */
    struct store_log *log;
    char *buffer; /* owns */
    size_t skip, len; /* where the record begins, bytes in the buffer */
    int err;
    struct segment *segment; /* stays while it is read; NULL: none */
};
_Static_assert(sizeof(struct read_part) <= sizeof(((struct store_log_read *)0)->private_), "room in a read");

static struct read_part *part_of(struct store_log_read *read)
{
    return (struct read_part *)(void *)read->private_;
}

static struct store_log_read *read_of(struct read_part *part)
{
    return CONTAINER_OF((void *)part, struct store_log_read, private_);
}

static void read_end(struct store_log_read *read, int err)
{
    struct read_part *part = part_of(read);
    char *buffer = part->buffer;

    part->buffer = NULL;
    if (part->segment != NULL) {
        ASSERT(part->segment->info.reads > 0);
        part->segment->info.reads--;
    }
    part->segment = NULL;
    read->done(read, err);
    mem_free(buffer);
}

static void read_corrupt(struct store_log_read *read, const char *what)
{
    struct store_log *log = part_of(read)->log;
    const struct segment *segment = log_segment_find(log, address_sequence(read->address));
    char path[LOG_PATH_MAX] = "";

    if (segment != NULL)
        log_segment_path(log, segment->info.slot, path);
    log_error(log->text, "store: a record does not verify shard=%u file=%s offset=%llu sequence=%llu what=\"%s\"",
              log->options.shard, path, (unsigned long long)address_off(read->address),
              (unsigned long long)address_sequence(read->address), what);
    read_end(read, ERR_CORRUPT);
}

/* ---- from memory ------------------------------------------------------------------------------ */

/* The bytes from there on, if they lie in a page write that is not on disk. */
static struct bytes memory_find(const struct store_log *log, const struct segment *segment, uint64_t off)
{
    const struct log_queue *queue = segment->is_hot ? &log->hot : &log->cold;
    const struct log_page *page = &log->page;

    if (page->segment == segment && off >= page->off && off < page->off + page->at)
        return bytes_of(page->data + (off - page->off), page->at - (off - page->off));
    for (unsigned i = 0; i < LOG_CLASSES; i++) {
        const struct log_cold *cold = &log->classes[i];

        if (cold->data != NULL && cold->segment == segment && off >= cold->off && off < cold->off + cold->at)
            return bytes_of(cold->data + (off - cold->off), cold->at - (off - cold->off));
    }
    if (off < segment->written_end || list_is_empty(&queue->writes))
        return BYTES_EMPTY;
    LIST_FOR_EACH(&queue->writes, node) {
        const struct log_write *write = CONTAINER_OF(node, struct log_write, node);

        if (write->is_page && write->segment == segment && off >= write->off && off < write->off + write->size)
            return bytes_of(write->data + (off - write->off), write->size - (off - write->off));
    }
    return BYTES_EMPTY;
}

/* A copy: the ring's pages may be used again before the loop answers. */
static void memory_read(struct store_log_read *read, struct bytes bytes)
{
    struct read_part *part = part_of(read);
    size_t size = bytes.len >= RECORD_HEADER_SIZE ? record_size_announced(bytes) : 0;

    size = MIN(size, bytes.len);
    part->buffer = mem_alloc(MAX(size, (size_t)1));
    part->err = part->buffer == NULL ? ERR_FULL : 0;
    if (part->buffer != NULL)
        memcpy(part->buffer, bytes.data, size);
    part->len = size;
    part->skip = 0;
    list_push_back(&part->log->reads_done, &part->node);
    log_soon(part->log);
}

static void read_check(struct store_log_read *read)
{
    struct read_part *part = part_of(read);
    struct bytes bytes = bytes_of(part->buffer + part->skip, part->len - part->skip);

    if (record_decode(bytes, &read->record) == 0) {
        read_corrupt(read, "checksum");
        return;
    }
    if (read->key.data != NULL && !bytes_equal(read->key, read->record.key)) {
        read_corrupt(read, "another key");
        return;
    }
    read_end(read, 0);
}

void log_reads_deliver(struct store_log *log)
{
    struct list reads;
    struct list_node *node;

    list_init(&reads);
    while ((node = list_pop_front(&log->reads_done)) != NULL)
        list_push_back(&reads, node);
    while ((node = list_pop_front(&reads)) != NULL) {
        struct read_part *part = CONTAINER_OF(node, struct read_part, node);

        if (part->err == ERR_CORRUPT)
            read_corrupt(read_of(part), "no such place");
        else if (part->err != 0)
            read_end(read_of(part), part->err);
        else
            read_check(read_of(part));
    }
}

/* ---- from disk -------------------------------------------------------------------------------- */

static void read_submit(struct store_log_read *read, size_t size);

static void read_done(struct io_op *op)
{
    struct store_log_read *read = read_of(op->arg);
    struct read_part *part = part_of(read);
    size_t announced;

    part->log->reads_submitted--;
    if (op->result < 0) {
        if (op->result == ERR_EOF)
            read_corrupt(read, "the file was cut");
        else
            read_end(read, (int)op->result);
        return;
    }
    announced = record_size_announced(bytes_of(part->buffer + part->skip, RECORD_HEADER_SIZE));
    if (announced > part->len - part->skip) {
        size_t more = announced;

        mem_free(part->buffer);
        part->buffer = NULL;
        read_submit(read, more);
        return;
    }
    read_check(read);
}

static void read_submit(struct store_log_read *read, size_t size)
{
    struct read_part *part = part_of(read);
    const struct segment *segment = part->segment;
    uint64_t off = address_off(read->address), start = off & ~(uint64_t)(PAGE_SIZE_ - 1), end;

    ASSERT(segment != NULL);
    end = MIN((off + size + PAGE_SIZE_ - 1) & ~(uint64_t)(PAGE_SIZE_ - 1), segment->info.size);
    part->skip = (size_t)(off - start);
    part->len = (size_t)(end - start);
    if (segment->file == NULL || end <= off || off + size > segment->info.size) {
        part->err = ERR_CORRUPT;
        list_push_back(&part->log->reads_done, &part->node);
        log_soon(part->log);
        return;
    }
    part->buffer = mem_alloc_aligned(part->len, PAGE_SIZE_);
    if (part->buffer == NULL) {
        part->err = ERR_FULL;
        list_push_back(&part->log->reads_done, &part->node);
        log_soon(part->log);
        return;
    }
    part->op = (struct io_op){.done = read_done, .arg = part};
    part->log->reads_submitted++;
    io_file_read(segment->file, &part->op, part->buffer, part->len, start);
}

void store_log_read(struct store_log *log, struct store_log_read *read)
{
    struct read_part *part = part_of(read);
    struct segment *segment = log_segment_find(log, address_sequence(read->address));
    struct bytes memory;

    ASSERT(read->done != NULL);
    *part = (struct read_part){.log = log};
    read->record = (struct record){0};
    if (segment == NULL || address_off(read->address) < RECORD_AT) {
        part->err = ERR_CORRUPT;
        list_push_back(&log->reads_done, &part->node);
        log_soon(log);
        return;
    }
    segment->info.reads++;
    part->segment = segment;
    memory = memory_find(log, segment, address_off(read->address));
    if (memory.len > 0)
        memory_read(read, memory);
    else
        read_submit(read, MAX(read->size_hint, (size_t)RECORD_HEADER_SIZE));
}

/* ---- walks ------------------------------------------------------------------------------------ */

struct walk_part {
    struct log_scan scan;
    struct list_node node; /* on log->walks */
    struct store_log *log;
    struct store_log_walk *walk;
    uint64_t begin;
    size_t at, frame_end; /* in the page write: of the next record, and where its frame ends; 0: not begun */
    uint64_t step_until_us;
    uint32_t step_records;
    bool is_cold, is_paused;
    int err;
};

static struct walk_part *walk_part_of(struct log_scan *scan)
{
    return CONTAINER_OF(scan, struct walk_part, scan);
}

static void walk_free(struct walk_part *part)
{
    list_remove(&part->node);
    log_scan_deinit(&part->scan);
    mem_free(part);
}

/* Those of a process that has died. */
void log_walks_destroy(struct store_log *log)
{
    struct list_node *node;

    while ((node = list_first(&log->walks)) != NULL)
        walk_free(CONTAINER_OF(node, struct walk_part, node));
}

static void walk_end(struct walk_part *part, int err)
{
    struct store_log_walk *walk = part->walk;

    walk->off = part->scan.off;
    ASSERT(part->scan.segment->info.reads > 0);
    part->scan.segment->info.reads--;
    walk_free(part);
    walk->done(walk->arg, err);
}

static void walk_corrupt(struct walk_part *part, uint64_t off)
{
    char path[LOG_PATH_MAX];

    log_segment_path(part->log, part->scan.segment->info.slot, path);
    log_error(part->log->text, "store: a segment does not verify shard=%u file=%s offset=%llu",
              part->log->options.shard, path, (unsigned long long)off);
    walk_end(part, ERR_CORRUPT);
}

/* A piece is walked in steps, a turn each: verifying and copying it may take a millisecond. So its first page write waits
 * for a step, too: the read that brought it ended anywhere in a turn. */
static bool walk_must_pause(struct walk_part *part)
{
    if (part->walk->piece_bytes == 0 || ++part->step_records % STEP_LOOK != 0)
        return false;
    return part->step_records >= STEP_RECORDS || io_clock_us(part->log->io) >= part->step_until_us;
}

/* Behind the others: they go on by turns. */
static void walk_pause(struct walk_part *part)
{
    struct store_log *log = part->log;

    part->is_paused = true;
    log->reads_submitted++; /* the log does not end before it has gone on */
    list_remove(&part->node);
    list_push_back(&log->walks, &part->node);
    log_soon(log);
}

static struct walk_part *walk_paused(const struct store_log *log)
{
    LIST_FOR_EACH(&log->walks, node) {
        struct walk_part *part = CONTAINER_OF(node, struct walk_part, node);

        if (part->is_paused)
            return part;
    }
    return NULL;
}

void log_walks_go(struct store_log *log)
{
    struct walk_part *part = walk_paused(log);

    if (part == NULL)
        return;
    part->is_paused = false;
    log->reads_submitted--;
    if (walk_paused(log) != NULL)
        log_soon(log);
    if (part->walk->yields)
        io_yield(log->io);
    part->step_records = 0;
    part->step_until_us = io_step_begin(log->io, STEP_US);
    log->is_in_step = true;
    log_scan_go(&part->scan); /* the same page write again */
    log->is_in_step = false;
    io_step_end(log->io);
}

/* Records of the page write from `at` on. 0; ERR_AGAIN with is_paused: there are more; what record() returned. */
static int walk_records(struct walk_part *part, struct bytes data)
{
    uint64_t address = address_of(part->scan.segment->info.sequence, part->scan.off);

    while (part->at < data.len) {
        struct frame frame;
        struct record record;
        struct bytes rest = bytes_skip(data, part->at);
        size_t size;
        int err;

        if (part->frame_end == part->at || part->frame_end == 0) { /* page_is_whole() has seen it */
            bool is_frame = frame_decode(rest, &frame);

            ASSERT(is_frame);
            part->is_cold = (frame.flags & FRAME_COLD) != 0;
            part->frame_end = part->at + frame.size;
            part->at += FRAME_HEADER_SIZE;
            continue;
        }
        size = record_decode(bytes_first(rest, part->frame_end - part->at), &record);
        if (size == 0)
            return ERR_CORRUPT;
        err = part->walk->record(part->walk->arg, &record, address + (part->at >> 4), size, part->is_cold);
        if (err != 0)
            return err;
        part->at += size;
        if (walk_must_pause(part)) {
            walk_pause(part);
            return ERR_AGAIN;
        }
    }
    return 0;
}

static bool walk_page(struct log_scan *scan, const struct page *page, struct bytes data)
{
    struct walk_part *part = walk_part_of(scan);
    int err = 0;

    if (part->walk->piece_bytes != 0 && !part->log->is_in_step) {
        walk_pause(part);
        return false;
    }
    if (part->at == 0) {
        err = log_page_is_whole(scan->segment, page, data) ? 0 : ERR_CORRUPT;
        part->at = PAGE_HEADER_SIZE;
        part->frame_end = 0;
    }
    if (err == 0)
        err = walk_records(part, data);
    if (part->is_paused)
        return false;
    part->at = 0;
    if (err == ERR_CORRUPT) {
        walk_corrupt(part, scan->off);
        return false;
    }
    if (err != 0) {
        walk_end(part, err);
        return false;
    }
    scan->off += page_size(page);
    if (part->walk->piece_bytes > 0 && scan->off - part->begin >= part->walk->piece_bytes && scan->off < scan->end) {
        walk_end(part, ERR_AGAIN);
        return false;
    }
    return true;
}

static void walk_done(struct log_scan *scan, int err)
{
    struct walk_part *part = walk_part_of(scan);

    if (part->err != 0)
        walk_end(part, part->err);
    else if (err == ERR_CORRUPT)
        walk_corrupt(part, scan->off);
    else
        walk_end(part, err);
}

static void walk_not_found(struct io_op *op)
{
    struct walk_part *part = op->arg;
    struct store_log_walk *walk = part->walk;

    part->log->reads_submitted--;
    walk_free(part);
    walk->done(walk->arg, ERR_NOT_FOUND);
}

void store_log_walk(struct store_log *log, struct store_log_walk *walk)
{
    struct segment *segment = log_segment_find(log, walk->sequence);
    struct walk_part *part = must_zalloc(sizeof(*part));

    part->log = log;
    part->walk = walk;
    list_push_back(&log->walks, &part->node);
    part->scan.page = walk_page;
    part->scan.done = walk_done;
    part->scan.piece = walk->piece_bytes;
    if (segment == NULL || segment->file == NULL) { /* from the loop, by way of any op */
        part->scan.op = (struct io_op){.done = walk_not_found, .arg = part};
        log->reads_submitted++;
        io_file_size(log->lock_file, &part->scan.op);
        return;
    }
    segment->info.reads++;
    part->begin = MAX(walk->off, (uint64_t)PAGE_SIZE_);
    log_scan_start(&part->scan, segment, part->begin, segment->info.used_bytes);
}
