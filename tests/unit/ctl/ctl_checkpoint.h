/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_checkpoint.h - a checkpoint put together by hand: it names whatever places a test wants.
 */
#pragma once
#include "tests/unit/ctl/ctl_test.h"

/* MANIFEST and checkpoint.1 into the shard's folder. One page has all keys; it is true at meta.lsn. */
static inline void checkpoint_write(const char *dir, struct checkpoint_meta meta, const struct checkpoint_key *keys,
                                    uint32_t count)
{
    struct checkpoint_page_header header = {
        .magic = CHECKPOINT_MAGIC_PAGE, .version = CHECKPOINT_PAGE_VERSION, .entries = count, .lsn = meta.lsn,
    };
    struct checkpoint_page page = {.lsn = meta.lsn, .keys = count, .records = 1};
    struct checkpoint_extent extent = {0};
    struct checkpoint_slot slot = {
        .magic = CHECKPOINT_MAGIC_SLOT, .version = CHECKPOINT_VERSION, .generation = 1, .file = 1,
        .meta_len = sizeof(meta) + sizeof(page) + sizeof(extent), .durable_lsn = meta.lsn,
    };
    struct buffer file = {0};
    char slots[2 * CHECKPOINT_SLOT_SIZE] = {0}, zeroes[CHECKPOINT_ALIGN] = {0};
    uint64_t address = 0;

    buffer_append(&file, &header, sizeof(header));
    for (uint32_t i = 0; i < count; i++) {
        checkpoint_key_put(&file, &keys[i], meta.lsn, address);
        address = keys[i].address;
    }
    header.len = extent.len = page.full_len = (uint32_t)file.len;
    memcpy(file.data, &header, sizeof(header));
    header.hash = checkpoint_page_hash(file.data, file.len);
    memcpy(file.data, &header, sizeof(header));
    buffer_append(&file, zeroes, CHECKPOINT_ALIGN - file.len % CHECKPOINT_ALIGN);
    slot.meta_off = file.len;
    meta.magic = CHECKPOINT_MAGIC_META;
    meta.version = CHECKPOINT_META_VERSION;
    meta.keys = count;
    meta.page_count = meta.rows = 1;
    buffer_append(&file, &meta, sizeof(meta));
    buffer_append(&file, &page, sizeof(page));
    buffer_append(&file, &extent, sizeof(extent));
    assert_false(file.failed);
    slot.meta_hash = checkpoint_hash(file.data + slot.meta_off, slot.meta_len, CHECKPOINT_VERSION);
    checkpoint_slot_seal(&slot);
    memcpy(slots + CHECKPOINT_SLOT_SIZE, &slot, sizeof(slot));
    file_put(dir, "checkpoint.1", buffer_bytes(&file));
    file_put(dir, "MANIFEST", bytes_of(slots, sizeof(slots)));
    buffer_deinit(&file);
}
