/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/ring.h"

#include "backend/store/format_private.h"
#include "common/base/mem.h"

#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define RING_MAGIC          0x474e4952474f4c57ull /* "WLOGRING" */
#define RING_VERSION        2u
#define RING_VERSION_BEFORE 1u /* without a hash */

size_t ring_table_size(uint32_t page_count)
{
    return round_up(page_count * sizeof(struct ring_entry), PAGE_SIZE_);
}

size_t ring_size(uint32_t page_count)
{
    return PAGE_SIZE_ + ring_table_size(page_count) + (size_t)page_count * PAGE_SIZE_;
}

uint32_t ring_page_count(size_t size)
{
    size_t per_page = PAGE_SIZE_ / sizeof(struct ring_entry); /* pages for each one of the table */
    size_t both = size / PAGE_SIZE_ > 0 ? size / PAGE_SIZE_ - 1 : 0, count = both - (both + per_page) / (per_page + 1);

    return both > 0 && count <= RING_PAGES_MAX && ring_size((uint32_t)count) == size ? (uint32_t)count : 0;
}

/* Never 0, which is "not begun". */
static uint64_t check_of(const struct ring_header *header)
{
    uint64_t check = XXH3_64bits(header, offsetof(struct ring_header, appended));

    return check != 0 ? check : 1;
}

/* Killed between any two of these stores it is not begun, or still of another boot. */
void ring_header_make(struct ring_header *header, uint32_t shard, size_t size, const unsigned char boot[16],
                      const unsigned char uuid[16], bool is_lost)
{
    __atomic_store_n(&header->appended, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&header->check, 0, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    header->magic = RING_MAGIC;
    header->version = RING_VERSION;
    header->shard = shard;
    header->size = size;
    header->doubt = 0;
    header->lost = is_lost ? 1 : 0;
    memcpy(header->boot, boot, 16);
    memcpy(header->uuid, uuid, 16);
    __atomic_store_n(&header->check, check_of(header), __ATOMIC_RELEASE);
}

enum ring_kind ring_kind_of(const char *base, uint32_t page_count, uint32_t shard, const unsigned char boot[16],
                            const unsigned char uuid[16])
{
    const struct ring_header *header = (const struct ring_header *)(const void *)base;
    bool is_before = header->magic == RING_MAGIC && header->version == RING_VERSION_BEFORE && header->check == 0;

    if (!is_before && header->check == 0 && header->appended == 0 && is_zero(base + PAGE_SIZE_, ring_table_size(page_count)))
        return RING_KIND_OTHER;
    if (!is_before &&
        (header->check != check_of(header) || header->magic != RING_MAGIC || header->version != RING_VERSION))
        return RING_KIND_DAMAGED;
    if (memcmp(header->boot, boot, 16) != 0)
        return RING_KIND_OTHER;
    return header->shard == shard && header->size == ring_size(page_count) && memcmp(header->uuid, uuid, 16) == 0
               ? RING_KIND_OURS
               : RING_KIND_DAMAGED;
}

/* ---- frames ----------------------------------------------------------------------------------- */

static int by_lsn(const void *a, const void *b)
{
    const struct frame *x = &((const struct ring_frame *)a)->frame, *y = &((const struct ring_frame *)b)->frame;

    if (x->first_lsn != y->first_lsn)
        return x->first_lsn < y->first_lsn ? -1 : 1;
    return x->last_lsn == y->last_lsn ? 0 : x->last_lsn < y->last_lsn ? -1 : 1;
}

struct ring_frame *ring_frames(const char *base, uint32_t page_count, uint32_t *count, uint64_t *bad_off)
{
    const struct ring_entry *table = (const struct ring_entry *)(const void *)(base + PAGE_SIZE_);
    const char *pages = base + PAGE_SIZE_ + ring_table_size(page_count);
    struct ring_frame *frames = NULL;
    uint32_t cap = 0;

    *count = 0;
    *bad_off = 0;
    for (uint32_t i = 0; i < page_count; i++) {
        size_t sealed = __atomic_load_n(&table[i].sealed, __ATOMIC_ACQUIRE);
        const char *page = pages + (size_t)i * PAGE_SIZE_;
        struct bytes rest;
        struct frame frame;

        if (sealed <= PAGE_HEADER_SIZE || sealed > (size_t)(page_count - i) * PAGE_SIZE_)
            continue;
        rest = bytes_skip(bytes_of(page, sealed), PAGE_HEADER_SIZE);
        for (; frame_decode(rest, &frame); rest = bytes_skip(rest, frame.size)) {
            if (*count == cap) {
                cap = MAX(64u, 2 * cap);
                frames = must_realloc(frames, cap * sizeof(*frames));
            }
            frames[(*count)++] = (struct ring_frame){frame, rest.data};
        }
        if (rest.len > 0 && *bad_off == 0)
            *bad_off = (uint64_t)(rest.data - base);
    }
    if (*count > 0)
        qsort(frames, *count, sizeof(*frames), by_lsn);
    return frames;
}

uint32_t ring_frames_choose(struct ring_frame *frames, uint32_t count, uint64_t chain, uint64_t pending_chain)
{
    uint32_t kept = 0, whole = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct frame *frame = &frames[i].frame;

        if (frame->chain_before == chain && chain != pending_chain)
            kept = whole; /* the unit before was given up */
        else if (frame->chain_before != pending_chain)
            continue;
        frames[kept++] = frames[i];
        pending_chain = frames[kept - 1].frame.chain;
        if ((frames[kept - 1].frame.flags & FRAME_CONTINUES) == 0) {
            chain = pending_chain;
            whole = kept;
        }
    }
    return whole;
}
