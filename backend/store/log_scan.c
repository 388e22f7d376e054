/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page writes of a segment, one after the other, read in large pieces.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

#define SCAN_PIECE (2u << 20)

bool log_page_belongs(const struct segment *segment, uint64_t off, const struct page *page)
{
    return page->sequence == segment->info.sequence && (uint64_t)page->block * PAGE_SIZE_ == off &&
           page->kind == (segment->is_hot ? PAGE_HOT : PAGE_COLD) && page->shard == segment->log->options.shard &&
           memcmp(page->uuid, segment->log->shard.uuid, sizeof(page->uuid)) == 0;
}

bool log_page_is_whole(const struct segment *segment, const struct page *page, struct bytes data)
{
    struct bytes rest = bytes_skip(data, PAGE_HEADER_SIZE);
    uint32_t count = 0;
    struct frame frame;

    for (; rest.len > 0; count++) {
        if (!frame_decode(rest, &frame) || ((frame.flags & FRAME_COLD) != 0) == segment->is_hot)
            return false;
        rest = bytes_skip(rest, frame.size);
    }
    return count == page->frame_count;
}

static void scan_read_done(struct io_op *op)
{
    struct log_scan *scan = op->arg;

    scan->segment->log->reads_submitted--;
    if (op->result < 0) {
        scan->done(scan, (int)op->result);
        return;
    }
    scan->len = (size_t)op->result;
    log_scan_go(scan);
}

static void scan_read_at(struct log_scan *scan, size_t size, uint64_t off)
{
    if (size > scan->cap) {
        mem_free(scan->buffer);
        scan->buffer = mem_alloc_aligned(size, PAGE_SIZE_);
        scan->cap = scan->buffer != NULL ? size : 0;
    }
    if (scan->buffer == NULL) {
        scan->done(scan, ERR_FULL);
        return;
    }
    scan->buffer_off = scan->off;
    scan->len = 0;
    scan->op = (struct io_op){.done = scan_read_done, .arg = scan};
    scan->segment->log->reads_submitted++;
    io_file_read(scan->segment->file, &scan->op, scan->buffer, size, off);
}

/* At least `size` bytes from `off` on. */
static void scan_read(struct log_scan *scan, size_t size)
{
    uint64_t piece = scan->piece != 0 ? scan->piece : SCAN_PIECE;

    scan_read_at(scan, (size_t)MIN(MAX((uint64_t)size, piece), scan->end - scan->off), scan->off);
}

void log_scan_go(struct log_scan *scan)
{
    for (;;) {
        size_t at = (size_t)(scan->off - scan->buffer_off), left;
        struct page page;

        if (scan->off >= scan->end) {
            scan->done(scan, scan->off == scan->end ? 0 : ERR_CORRUPT);
            return;
        }
        if (scan->off < scan->buffer_off || at >= scan->len) {
            scan_read(scan, PAGE_SIZE_);
            return;
        }
        left = scan->len - at;
        if (!page_decode(scan->buffer + at, &page) || !log_page_belongs(scan->segment, scan->off, &page) ||
            page_size(&page) > scan->end - scan->off) {
            if (scan->skips_bad) {
                scan->off += PAGE_SIZE_;
                continue;
            }
            scan->done(scan, ERR_CORRUPT);
            return;
        }
        if (left < page_size(&page)) {
            scan_read(scan, page_size(&page));
            return;
        }
        if (!scan->page(scan, &page, bytes_of(scan->buffer + at, page.used)))
            return;
    }
}

void log_scan_start(struct log_scan *scan, struct segment *segment, uint64_t off, uint64_t end)
{
    scan->segment = segment;
    scan->off = off;
    scan->end = end;
    scan->buffer_off = off;
    scan->len = 0;
    if (off < end) {
        log_scan_go(scan);
        return;
    }
    scan->end = off; /* nothing to read: still done() comes from the loop, after a look at the header */
    scan_read_at(scan, PAGE_SIZE_, 0);
}

void log_scan_deinit(struct log_scan *scan)
{
    mem_free(scan->buffer);
    scan->buffer = NULL;
    scan->cap = scan->len = 0;
}
