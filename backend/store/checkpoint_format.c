/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/checkpoint_format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t checkpoint_hash(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

uint64_t checkpoint_page_hash(const char *page, size_t len)
{
    const size_t before = offsetof(struct checkpoint_page_header, hash);

    return checkpoint_hash(page + CHECKPOINT_PAGE_HEADER, len - CHECKPOINT_PAGE_HEADER,
                           checkpoint_hash(page, before, CHECKPOINT_VERSION));
}

static bool page_take(struct bytes *cursor, void *out, size_t size)
{
    if (cursor->len < size)
        return false;
    memcpy(out, cursor->data, size);
    *cursor = bytes_skip(*cursor, size);
    return true;
}

bool checkpoint_key_take(struct bytes *cursor, struct checkpoint_key *out)
{
    struct checkpoint_entry head;
    uint64_t ids[2] = {0, 0};

    *out = (struct checkpoint_key){0};
    if (!page_take(cursor, &head, sizeof(head)) || head.type == STORE_NONE || head.type >= STORE_TYPE_COUNT ||
        head.db >= STORE_DBS)
        return false;
    if ((head.flags & CHECKPOINT_ENTRY_EXPIRES) && !page_take(cursor, &out->expire_ms, 8))
        return false;
    if ((head.flags & CHECKPOINT_ENTRY_MC_FLAGS) && !page_take(cursor, &out->mc_flags, 8))
        return false;
    if ((head.flags & CHECKPOINT_ENTRY_CHAIN) && !page_take(cursor, ids, sizeof(ids)))
        return false;
    if (cursor->len < head.key_len)
        return false;
    out->address = head.address;
    out->lsn = (uint64_t)head.lsn_high << 32 | head.lsn_low;
    out->base_lsn = ids[0];
    out->image_lsn = ids[1];
    out->value_len = head.value_len;
    out->type = head.type;
    out->db = head.db;
    out->has_chain = (head.flags & CHECKPOINT_ENTRY_CHAIN) != 0;
    out->key = bytes_first(*cursor, head.key_len);
    *cursor = bytes_skip(*cursor, head.key_len);
    return true;
}

bool checkpoint_page_is_valid(struct bytes data, const struct checkpoint_page *row, unsigned bits, uint32_t page)
{
    struct checkpoint_page_header header;
    struct bytes cursor = data;

    return page_take(&cursor, &header, sizeof(header)) && header.magic == CHECKPOINT_MAGIC_PAGE &&
           header.version == CHECKPOINT_VERSION && header.bits == bits && header.page == page &&
           header.len == data.len && header.entries == row->entries && header.lsn == row->lsn &&
           header.hash == checkpoint_page_hash(data.data, data.len);
}

/* ---- META, MANIFEST --------------------------------------------------------------------------- */

bool checkpoint_slot_is_valid(const struct checkpoint_slot *slot, unsigned place)
{
    return slot->magic == CHECKPOINT_MAGIC_SLOT && slot->version == CHECKPOINT_VERSION && slot->generation != 0 &&
           slot->generation % 2 == place && slot->file != 0 && slot->meta_len >= sizeof(struct checkpoint_meta) &&
           slot->meta_len <= CHECKPOINT_META_MAX &&
           slot->hash == checkpoint_hash(slot, offsetof(struct checkpoint_slot, hash), CHECKPOINT_VERSION);
}

void checkpoint_slot_seal(struct checkpoint_slot *slot)
{
    slot->hash = checkpoint_hash(slot, offsetof(struct checkpoint_slot, hash), CHECKPOINT_VERSION);
    slot->durable_hash = checkpoint_hash(slot, offsetof(struct checkpoint_slot, durable_hash), CHECKPOINT_VERSION);
}

uint64_t checkpoint_slot_durable(const struct checkpoint_slot *slot)
{
    bool is_known = slot->durable_hash ==
                    checkpoint_hash(slot, offsetof(struct checkpoint_slot, durable_hash), CHECKPOINT_VERSION);

    return is_known ? slot->durable_lsn : 0;
}

size_t checkpoint_meta_take(const char *data, struct checkpoint_meta *out)
{
    memcpy(out, data, sizeof(*out));
    if (out->version != 1)
        return sizeof(*out);
    out->swap_lsn = 0;
    for (uint8_t db = 0; db < STORE_DBS; db++)
        out->places[db] = db;
    return CHECKPOINT_META_SIZE_1;
}

bool checkpoint_meta_is_valid(const struct checkpoint_slot *slot, const char *data)
{
    struct checkpoint_meta meta;
    size_t table = checkpoint_meta_take(data, &meta);

    return checkpoint_hash(data, slot->meta_len, CHECKPOINT_VERSION) == slot->meta_hash &&
           meta.magic == CHECKPOINT_MAGIC_META && meta.version - 1 < CHECKPOINT_META_VERSION &&
           meta.bits <= CHECKPOINT_BITS_MAX && meta.page_count == 1u << meta.bits &&
           slot->meta_len == table + sizeof(struct checkpoint_page) * (size_t)meta.page_count &&
           slot->meta_off > 0;
}
