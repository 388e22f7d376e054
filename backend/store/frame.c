/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/frame.h"
#include "backend/store/format_private.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FRAME_MAGIC   0x4d524657u /* "WFRM" */
#define PAGE_MAGIC    0x47415057u /* "WPAG" */
#define FORMAT_VERSION 1u

static uint64_t frame_chain(const char *at, size_t size)
{
    uint64_t body = XXH3_64bits(at + 56, size - 56);

    return XXH3_64bits_withSeed(at, 48, body);
}

void frame_seal(struct frame *frame, char *at)
{
    ASSERT(frame->size >= FRAME_HEADER_SIZE && frame->size % RECORD_ALIGN == 0);
    ASSERT(frame->first_lsn <= frame->last_lsn);
    put_u32(at, FRAME_MAGIC);
    put_u16(at + 4, FORMAT_VERSION);
    put_u16(at + 6, frame->flags);
    put_u32(at + 8, frame->size);
    put_u32(at + 12, frame->record_count);
    put_u32(at + 16, frame->epoch);
    put_u32(at + 20, 0);
    put_u64(at + 24, frame->first_lsn);
    put_u64(at + 32, frame->last_lsn);
    put_u64(at + 40, frame->chain_before);
    put_u64(at + 56, frame->wall_ms);
    frame->chain = frame_chain(at, frame->size);
    put_u64(at + 48, frame->chain);
}

bool frame_header_decode(const char *at, struct frame *out)
{
    if (get_u32(at) != FRAME_MAGIC || get_u16(at + 4) != FORMAT_VERSION)
        return false;
    *out = (struct frame){
        .flags = get_u16(at + 6),
        .size = get_u32(at + 8),
        .record_count = get_u32(at + 12),
        .epoch = get_u32(at + 16),
        .first_lsn = get_u64(at + 24),
        .last_lsn = get_u64(at + 32),
        .chain_before = get_u64(at + 40),
        .chain = get_u64(at + 48),
        .wall_ms = get_u64(at + 56),
    };
    return out->size >= FRAME_HEADER_SIZE && out->size % RECORD_ALIGN == 0 && get_u32(at + 20) == 0 &&
           (out->flags & ~(FRAME_CONTINUES | FRAME_COLD)) == 0 && out->first_lsn <= out->last_lsn &&
           out->last_lsn <= STORE_LSN_MAX;
}

bool frame_decode(struct bytes data, struct frame *out)
{
    return data.len >= FRAME_HEADER_SIZE && frame_header_decode(data.data, out) && out->size <= data.len &&
           frame_chain(data.data, out->size) == out->chain;
}

struct bytes frame_records(struct bytes data, const struct frame *frame)
{
    return bytes_of(data.data + FRAME_HEADER_SIZE, frame->size - FRAME_HEADER_SIZE);
}

static uint64_t page_hash(const char *at)
{
    char header[PAGE_HEADER_SIZE];

    memcpy(header, at, sizeof(header));
    put_u64(header + 40, 0);
    return XXH3_64bits(header, sizeof(header));
}

void page_seal(const struct page *page, char *at)
{
    ASSERT(page->used >= PAGE_HEADER_SIZE);
    put_u32(at, PAGE_MAGIC);
    put_u16(at + 4, FORMAT_VERSION);
    put_u16(at + 6, page->kind);
    put_u64(at + 8, page->sequence);
    put_u32(at + 16, page->block);
    put_u32(at + 20, page->used);
    put_u32(at + 24, page->frame_count);
    put_u32(at + 28, page->shard);
    put_u64(at + 32, page->mark);
    memcpy(at + 48, page->uuid, sizeof(page->uuid));
    put_u64(at + 40, page_hash(at));
}

bool page_decode(const char *at, struct page *out)
{
    if (get_u32(at) != PAGE_MAGIC || get_u16(at + 4) != FORMAT_VERSION ||
        get_u64(at + 40) != page_hash(at))
        return false;
    *out = (struct page){
        .kind = get_u16(at + 6),
        .sequence = get_u64(at + 8),
        .block = get_u32(at + 16),
        .used = get_u32(at + 20),
        .frame_count = get_u32(at + 24),
        .shard = get_u32(at + 28),
        .mark = get_u64(at + 32),
    };
    memcpy(out->uuid, at + 48, sizeof(out->uuid));
    return out->used >= PAGE_HEADER_SIZE;
}
