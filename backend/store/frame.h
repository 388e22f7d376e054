/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.h - a frame's header, and a page write's: composing and checking (formats: record.h).
 *
 * A frame is built in place: records are encoded behind room for its header, frame_seal() fills that in. So is a page
 * write.
 */
#pragma once
#include "backend/store/record.h"

struct frame {
    uint32_t size, record_count, epoch;
    uint16_t flags;
    uint64_t first_lsn, last_lsn, chain_before, chain, wall_ms;
};

/* Writes the header to `at`, in front of frame->size - 64 bytes of records; sets frame->chain. */
void frame_seal(struct frame *frame, char *at);
/* Whether a frame that verifies lies at the start of `data`. The records in it are not looked at. */
bool frame_decode(struct bytes data, struct frame *out);
/* Only what its header (64 bytes) says: nothing verifies that but the whole. */
bool frame_header_decode(const char *at, struct frame *out);
/* The records of a frame that was decoded. */
struct bytes frame_records(struct bytes data, const struct frame *frame);

enum page_kind { PAGE_HOT = 1, PAGE_COLD = 2 };

struct page {
    uint64_t sequence, mark;
    uint32_t block, used, frame_count, shard;
    uint16_t kind;
    unsigned char uuid[16];
};

/* Writes the header to `at`. */
void page_seal(const struct page *page, char *at);
/* Whether a header that verifies lies at `at` (64 bytes). Where it belongs is the caller's to compare. */
bool page_decode(const char *at, struct page *out);
/* Bytes on disk. */
static inline size_t page_size(const struct page *page)
{
    return ((size_t)page->used + PAGE_SIZE_ - 1) & ~(size_t)(PAGE_SIZE_ - 1);
}
