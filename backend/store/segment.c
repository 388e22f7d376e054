/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/segment.h"
#include "backend/store/format_private.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define HEADER_MAGIC 0x47455357u /* "WSEG" */
#define FOOTER_MAGIC 0x444e4557u /* "WEND" */
#define SHARD_MAGIC  0x52485357u /* "WSHR" */
#define GIVEN_MAGIC  0x56474557u /* "WEGV" */
#define FORMAT_VERSION 1u
#define HASH_AT      504u /* in the first sector: a torn write leaves the old page or none */

static void page_begin(char *page, uint32_t magic)
{
    memset(page, 0, PAGE_SIZE_);
    put_u32(page, magic);
    put_u16(page + 4, FORMAT_VERSION);
}

static void page_end(char *page)
{
    put_u64(page + HASH_AT, XXH3_64bits(page, HASH_AT));
}

static bool page_is_valid(const char *page, uint32_t magic)
{
    return get_u32(page) == magic && get_u16(page + 4) == FORMAT_VERSION &&
           get_u64(page + HASH_AT) == XXH3_64bits(page, HASH_AT);
}

void segment_header_encode(const struct segment_header *header, char page[PAGE_SIZE_])
{
    page_begin(page, HEADER_MAGIC);
    page[6] = (char)header->kind;
    page[7] = (char)header->class;
    put_u64(page + 8, header->sequence);
    memcpy(page + 16, header->uuid, 16);
    put_u32(page + 32, header->shard);
    put_u32(page + 36, header->epoch);
    put_u64(page + 40, header->size);
    put_u64(page + 48, header->prev_sequence);
    put_u64(page + 56, header->prev_end);
    put_u64(page + 64, header->chain_before);
    put_u64(page + 72, header->first_lsn);
    put_u64(page + 80, header->created_ms);
    put_u64(page + 88, header->mark);
    put_u32(page + 96, header->flags);
    put_u64(page + 104, header->given_lsn);
    page_end(page);
}

bool segment_header_decode(const char page[PAGE_SIZE_], struct segment_header *out)
{
    if (!page_is_valid(page, HEADER_MAGIC))
        return false;
    *out = (struct segment_header){
        .kind = (uint8_t)page[6],
        .class = (uint8_t)page[7],
        .sequence = get_u64(page + 8),
        .shard = get_u32(page + 32),
        .epoch = get_u32(page + 36),
        .size = get_u64(page + 40),
        .prev_sequence = get_u64(page + 48),
        .prev_end = get_u64(page + 56),
        .chain_before = get_u64(page + 64),
        .first_lsn = get_u64(page + 72),
        .created_ms = get_u64(page + 80),
        .mark = get_u64(page + 88),
        .flags = get_u32(page + 96),
        .given_lsn = get_u64(page + 104),
    };
    memcpy(out->uuid, page + 16, 16);
    return out->kind <= SEGMENT_BLOB || out->kind == SEGMENT_HEADER_FREE;
}

void segment_footer_encode(const struct segment_footer *footer, char page[PAGE_SIZE_])
{
    page_begin(page, FOOTER_MAGIC);
    page[6] = (char)footer->kind;
    page[7] = (char)footer->class;
    put_u64(page + 8, footer->sequence);
    memcpy(page + 16, footer->uuid, 16);
    put_u32(page + 32, footer->shard);
    put_u64(page + 40, footer->used_bytes);
    put_u64(page + 48, footer->record_count);
    put_u64(page + 56, footer->record_bytes);
    put_u64(page + 64, footer->first_lsn);
    put_u64(page + 72, footer->last_lsn);
    put_u64(page + 80, footer->expire_max_ms);
    put_u64(page + 88, footer->created_ms);
    put_u64(page + 96, footer->chain);
    put_u64(page + 104, footer->given_lsn);
    page_end(page);
}

bool segment_footer_decode(const char page[PAGE_SIZE_], struct segment_footer *out)
{
    if (!page_is_valid(page, FOOTER_MAGIC))
        return false;
    *out = (struct segment_footer){
        .kind = (uint8_t)page[6],
        .class = (uint8_t)page[7],
        .sequence = get_u64(page + 8),
        .shard = get_u32(page + 32),
        .used_bytes = get_u64(page + 40),
        .record_count = get_u64(page + 48),
        .record_bytes = get_u64(page + 56),
        .first_lsn = get_u64(page + 64),
        .last_lsn = get_u64(page + 72),
        .expire_max_ms = get_u64(page + 80),
        .created_ms = get_u64(page + 88),
        .chain = get_u64(page + 96),
        .given_lsn = get_u64(page + 104),
    };
    memcpy(out->uuid, page + 16, 16);
    return true;
}

void shard_file_encode(const struct shard_file *file, char page[PAGE_SIZE_])
{
    page_begin(page, SHARD_MAGIC);
    put_u32(page + 8, file->shard);
    put_u32(page + 12, file->shard_count);
    memcpy(page + 16, file->uuid, 16);
    memcpy(page + 32, file->seed, 16);
    page_end(page);
}

bool shard_file_decode(const char page[PAGE_SIZE_], struct shard_file *out)
{
    if (!page_is_valid(page, SHARD_MAGIC))
        return false;
    out->shard = get_u32(page + 8);
    out->shard_count = get_u32(page + 12);
    memcpy(out->uuid, page + 16, 16);
    memcpy(out->seed, page + 32, 16);
    return true;
}

void given_page_encode(const struct given_page *given, char page[PAGE_SIZE_])
{
    page_begin(page, GIVEN_MAGIC);
    put_u32(page + 8, given->shard);
    memcpy(page + 16, given->uuid, 16);
    put_u64(page + 32, given->given_lsn);
    page_end(page);
}

bool given_page_decode(const char page[PAGE_SIZE_], struct given_page *out)
{
    if (!page_is_valid(page, GIVEN_MAGIC))
        return false;
    out->shard = get_u32(page + 8);
    out->given_lsn = get_u64(page + 32);
    memcpy(out->uuid, page + 16, 16);
    return true;
}
