/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint's formats: nothing is read beyond the input, what META accepts lies where it says, and an entry that is
 * taken reads the same when it is written again.
 *
 * A hash is rarely hit by chance: the fuzzer's bytes get a right one. The first byte says for how many pages they are
 * (bits 0 to 4) and what they are: a run of records, or META.
 */
#include "backend/store/checkpoint_format.h"
#include "common/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define IS_META 0x80

static void fuzz_key(const struct checkpoint_record *record, const struct checkpoint_key *key, uint64_t before)
{
    struct buffer written = {0};
    struct checkpoint_record again = {.lsn = record->lsn, .version = CHECKPOINT_PAGE_VERSION, .address = before};
    struct checkpoint_key key_again;

    ASSERT(key->type != STORE_NONE && key->type < STORE_TYPE_COUNT && key->db < STORE_DBS);
    if (key->lsn > record->lsn) /* which versions 1 and 2 could say */
        return;
    checkpoint_key_put(&written, key, record->lsn, before);
    ASSERT(!written.failed && written.len == checkpoint_key_size(key, record->lsn, before));
    again.rest = buffer_bytes(&written);
    ASSERT(checkpoint_key_take(&again, &key_again) && again.rest.len == 0);
    ASSERT(key_again.address == key->address && key_again.lsn == key->lsn && key_again.expire_ms == key->expire_ms &&
           key_again.mc_flags == key->mc_flags && key_again.value_len == key->value_len && key_again.tag == key->tag &&
           key_again.type == key->type && key_again.db == key->db && key_again.is_moved == key->is_moved &&
           key_again.has_chain == key->has_chain && key_again.base_lsn == key->base_lsn &&
           key_again.image_lsn == key->image_lsn && bytes_equal(key_again.key, key->key));
    buffer_deinit(&written);
}

static void fuzz_kept(const struct checkpoint_record *record)
{
    uint64_t *kept = must_alloc(8 * MAX(record->kept_count, (size_t)1));

    if (checkpoint_kept_sort(record, kept))
        for (size_t i = 0; i < record->kept_count; i++) {
            ASSERT(i == 0 || kept[i - 1] <= kept[i]);
            ASSERT(checkpoint_kept_has(kept, record->kept_count, kept[i]));
        }
    mem_free(kept);
}

static void fuzz_records(unsigned bits, struct bytes input)
{
    struct checkpoint_record record;

    while (checkpoint_record_take(&input, bits, &record)) {
        struct checkpoint_key key;
        uint64_t before = 0;

        ASSERT(record.page >> bits == 0);
        for (uint32_t i = 0; i < record.entries && checkpoint_key_take(&record, &key); i++) {
            fuzz_key(&record, &key, before);
            before = key.address;
        }
        fuzz_kept(&record);
    }
}

/* Each record as long as it says, if the input is. */
static void records_seal(char *data, size_t size)
{
    for (size_t at = 0; size - at >= CHECKPOINT_PAGE_HEADER;) {
        struct checkpoint_page_header header;

        memcpy(&header, data + at, sizeof(header));
        if (header.len < sizeof(header) || header.len > size - at)
            header.len = (uint32_t)(size - at);
        header.magic = CHECKPOINT_MAGIC_PAGE;
        memcpy(data + at, &header, sizeof(header));
        header.hash = checkpoint_page_hash(data + at, header.len);
        memcpy(data + at, &header, sizeof(header));
        at += header.len;
    }
}

static void fuzz_meta(struct bytes input)
{
    struct checkpoint_slot slot = {
        .meta_off = 1ull << 40,
        .meta_len = input.len,
        .meta_hash = checkpoint_hash(input.data, input.len, CHECKPOINT_VERSION),
    };
    struct checkpoint_meta meta;
    struct checkpoint_table table;
    uint64_t end = 0;

    if (input.len < CHECKPOINT_META_SIZE_1 || checkpoint_meta_take(&slot, input.data, &meta, &table) != 0)
        return;
    ASSERT(table.page_count == 1u << meta.bits);
    for (uint32_t i = 0; i < table.page_count; i++)
        ASSERT(table.pages[i].records > 0);
    for (uint32_t i = 0; i < table.extent_count; i++) {
        ASSERT(table.extents[i].off >= end && table.extents[i].off + table.extents[i].len <= slot.meta_off);
        end = table.extents[i].off + table.extents[i].len;
    }
    checkpoint_table_free(&table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy;

    if (size == 0)
        return 0;
    copy = must_alloc(size);
    memcpy(copy, data + 1, size - 1);
    if (data[0] & IS_META) {
        fuzz_meta(bytes_of(copy, size - 1));
    } else {
        fuzz_records(data[0] & 0x1f, bytes_of(copy, size - 1));
        records_seal(copy, size - 1);
        fuzz_records(data[0] & 0x1f, bytes_of(copy, size - 1));
    }
    mem_free(copy);
    return 0;
}
