/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log's formats: what decodes composes to the same bytes, and nothing is read beyond the input.
 */
#include "backend/store/frame.h"
#include "backend/store/segment.h"
#include "common/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_record(struct bytes input)
{
    struct record record;
    size_t size = record_decode(input, &record);
    char *again;

    if (input.len >= RECORD_HEADER_SIZE)
        ASSERT(size == 0 || record_size_announced(input) == size);
    if (size == 0)
        return;
    ASSERT(size <= input.len && record_size(&record) == size);
    again = must_alloc(size);
    record_encode(&record, again);
    ASSERT(memcmp(again, input.data, size) == 0);
    mem_free(again);
}

/* A checksum is rarely hit by chance: the fuzzer's bytes get a right one. */
static void fuzz_record_sealed(struct bytes input)
{
    char *copy;
    size_t size;
    uint32_t crc;

    if (input.len < RECORD_HEADER_SIZE)
        return;
    size = record_size_announced(input);
    if (size == 0 || size > input.len)
        return;
    copy = must_alloc(size);
    memcpy(copy, input.data, size);
    for (size_t cut = 0; cut < RECORD_ALIGN && cut < size - RECORD_HEADER_SIZE + 1; cut++) {
        crc = crc32c(0, copy + 4, size - 4 - cut);
        memcpy(copy, &crc, sizeof(crc));
        fuzz_record(bytes_of(copy, size));
    }
    mem_free(copy);
}

static void fuzz_frame(struct bytes input)
{
    struct frame frame;
    struct bytes rest;

    if (!frame_decode(input, &frame))
        return;
    ASSERT(frame.size <= input.len);
    rest = frame_records(input, &frame);
    while (rest.len > 0) {
        struct record record;
        size_t size = record_decode(rest, &record);

        if (size == 0)
            return;
        rest = bytes_skip(rest, size);
    }
}

static void fuzz_pages(struct bytes input)
{
    char page[PAGE_SIZE_] = {0}, again[PAGE_SIZE_];
    struct page header;
    struct segment_header segment;
    struct segment_footer footer;
    struct shard_file shard;

    memcpy(page, input.data, MIN(input.len, sizeof(page)));
    if (page_decode(page, &header)) {
        page_seal(&header, again);
        ASSERT(memcmp(again, page, PAGE_HEADER_SIZE) == 0);
    }
    MAYBE(segment_header_decode(page, &segment));
    MAYBE(segment_footer_decode(page, &footer));
    MAYBE(shard_file_decode(page, &shard));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes input = bytes_of(data, size);

    fuzz_record(input);
    fuzz_record_sealed(input);
    fuzz_frame(input);
    fuzz_pages(input);
    return 0;
}
