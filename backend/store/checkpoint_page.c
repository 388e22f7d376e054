/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page of a checkpoint: composing and parsing. The format is in checkpoint.h.
 */
#include "backend/store/checkpoint_private.h"

#include <stdio.h>

void checkpoint_path(const struct store *store, uint64_t file, char out[CHECKPOINT_PATH_MAX])
{
    if (file == 0)
        snprintf(out, CHECKPOINT_PATH_MAX, "%s/MANIFEST", store->options.dir);
    else
        snprintf(out, CHECKPOINT_PATH_MAX, "%s/checkpoint.%llu", store->options.dir, (unsigned long long)file);
}

/* ---- composing -------------------------------------------------------------------------------- */

struct page_compose {
    struct store *store;
    struct buffer *out;
    struct checkpoint_page *row;
};

static void page_entry_compose(void *arg, struct entry *e)
{
    struct page_compose *page = arg;
    struct store *store = page->store;
    struct bytes key = entry_key(e);
    uint64_t expire_ms = entry_expire_ms(e), mc_flags = entry_mc_flags(e), lsn = entry_lsn(e);
    uint64_t ids[2] = {0, 0}, sequence = 0;
    struct checkpoint_entry head = {
        .address = e->address,
        .lsn_low = (uint32_t)lsn,
        .lsn_high = (uint16_t)(lsn >> 32),
        .type = (uint8_t)entry_type(e),
        .value_len = entry_value_len(e),
        .key_len = (uint16_t)key.len,
        .db = entry_db(e),
    };

    if (head.type == STORE_NONE || store_is_flushed(store, e))
        return;
    if (entry_is_object(e)) {
        const struct object *object = entry_object(e);

        if (object->base_lsn == 0)
            return; /* new, and nothing of it is in the log yet */
        head.value_len = (uint32_t)MIN(object->image_bytes, (uint64_t)ENTRY_VALUE_LEN_MAX);
        ids[0] = object->base_lsn;
        ids[1] = object->image_lsn;
        sequence = object->image_lsn == lsn ? 0 : object->chain_sequence;
    } else if (entry_is_cold(e) && store->chains != NULL) {
        const struct chain *chain = chain_find(store, index_hash(store->index, head.db, key), e);

        if (chain != NULL) {
            ids[0] = chain->base_lsn;
            ids[1] = chain->image_lsn;
            sequence = chain->chain_sequence;
        }
    }
    head.flags = (uint8_t)((expire_ms != 0 ? CHECKPOINT_ENTRY_EXPIRES : 0) |
                           (mc_flags != 0 ? CHECKPOINT_ENTRY_MC_FLAGS : 0) |
                           (sequence != 0 ? CHECKPOINT_ENTRY_CHAIN : 0));
    buffer_append(page->out, &head, sizeof(head));
    if (expire_ms != 0)
        buffer_append(page->out, &expire_ms, 8);
    if (mc_flags != 0)
        buffer_append(page->out, &mc_flags, 8);
    if (sequence != 0) {
        buffer_append(page->out, ids, sizeof(ids));
        if (page->row->chain_sequence == 0 || sequence < page->row->chain_sequence)
            page->row->chain_sequence = sequence;
    }
    buffer_append(page->out, key.data, key.len);
    page->row->entries++;
}

void checkpoint_page_compose(struct store *store, unsigned bits, uint32_t page, uint64_t lsn,
                             struct buffer *out, struct checkpoint_page *row)
{
    struct checkpoint_page_header header = {
        .magic = CHECKPOINT_MAGIC_PAGE,
        .version = CHECKPOINT_VERSION,
        .bits = (uint16_t)bits,
        .page = page,
        .lsn = lsn,
    };
    struct page_compose compose = {store, out, row};
    size_t start = out->len;

    *row = (struct checkpoint_page){.lsn = lsn};
    buffer_append(out, &header, sizeof(header));
    index_page_each(store->index, bits, page, page_entry_compose, &compose);
    if (out->failed)
        return;
    header.entries = row->entries;
    header.len = row->len = (uint32_t)(out->len - start);
    memcpy(out->data + start, &header, sizeof(header));
    header.hash = checkpoint_page_hash(out->data + start, header.len);
    memcpy(out->data + start, &header, sizeof(header));
}

/* ---- parsing ---------------------------------------------------------------------------------- */

static int page_chain_parse(struct store *store, uint64_t hash, const struct entry_parts *parts,
                            const uint64_t ids[2])
{
    struct chain *chain = chain_add(store, hash, parts->db, parts->key);

    if (chain == NULL)
        return ERR_FULL;
    store->recount_needed = true;
    chain->base_lsn = ids[0];
    chain->image_lsn = ids[1];
    return 0;
}

static int page_entry_parse(struct store *store, unsigned bits, uint32_t page, struct bytes *cursor)
{
    struct checkpoint_key key;
    struct entry_parts parts;
    struct entry *e = NULL;
    uint64_t hash, ids[2];
    int err;

    if (!checkpoint_key_take(cursor, &key))
        return ERR_CORRUPT;
    parts = (struct entry_parts){
        .address = key.address,
        .lsn = key.lsn,
        .expire_ms = key.expire_ms,
        .mc_flags = key.mc_flags,
        .type = key.type,
        .db = key.db,
        .is_cold = true,
        .key = key.key,
        .value = bytes_of("", key.value_len),
    };
    ids[0] = key.base_lsn;
    ids[1] = key.image_lsn;
    if (parts.address != 0 && store_log_segment_find(store->log, address_sequence(parts.address)) == NULL) {
        log_error(store->text_log, "store: a segment that the checkpoint needs is missing, or its header is damaged "
                  "shard=%u dir=%s sequence=%llu", store->options.shard, store->options.dir,
                  (unsigned long long)address_sequence(parts.address));
        return ERR_CORRUPT;
    }
    hash = index_hash(store->index, parts.db, parts.key);
    if ((hash & ((1ull << bits) - 1)) != page)
        return ERR_CORRUPT;
    err = store_entry_put(store, hash, &e, &parts);
    if (err != 0)
        return err;
    store_live_add(store, e->address, store_record_bytes(e));
    return key.has_chain ? page_chain_parse(store, hash, &parts, ids) : 0;
}

int checkpoint_page_parse(struct store *store, const struct checkpoint_page *row, unsigned bits,
                          uint32_t page, struct bytes data)
{
    struct bytes cursor = bytes_skip(data, CHECKPOINT_PAGE_HEADER);
    int err = 0;

    if (!checkpoint_page_is_valid(data, row, bits, page))
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < row->entries && err == 0; i++)
        err = page_entry_parse(store, bits, page, &cursor);
    return err == 0 && cursor.len > 0 ? ERR_CORRUPT : err;
}
