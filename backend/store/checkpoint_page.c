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

/* A record in the log lies behind the LSN; a copy (local, of the same LSN) where nothing was yet when the last checkpoint
 * began. */
bool checkpoint_is_since(const struct checkpoint *c, uint64_t page_lsn, uint64_t lsn, uint64_t address)
{
    uint64_t sequence = address_sequence(address);

    if (lsn > page_lsn || sequence >= c->meta.next_sequence)
        return true;
    for (unsigned i = 0; i < CHECKPOINT_CLASSES; i++)
        if (sequence == address_sequence(c->meta.cold_marks[i]))
            return address >= c->meta.cold_marks[i];
    return false;
}

struct page_compose {
    struct store *store;
    struct buffer *out;
    struct buffer *kept;  /* LSNs of the keys that are left out; NULL: not wanted */
    struct checkpoint_page *row;
    uint64_t patch_lsn;   /* what older records have is left out; 0: nothing is */
    uint64_t full_len;
    uint32_t entries;
};

/* What an entry is with all that hangs on it. */
struct page_entry {
    struct checkpoint_entry head;
    uint64_t expire_ms, mc_flags, ids[2], sequence;
    struct bytes key;
};

static void page_entry_write(struct buffer *out, const struct page_entry *entry)
{
    buffer_append(out, &entry->head, sizeof(entry->head));
    if (entry->expire_ms != 0)
        buffer_append(out, &entry->expire_ms, 8);
    if (entry->mc_flags != 0)
        buffer_append(out, &entry->mc_flags, 8);
    if (entry->sequence != 0)
        buffer_append(out, entry->ids, sizeof(entry->ids));
    buffer_append(out, entry->key.data, entry->key.len);
}

static size_t page_entry_size(const struct page_entry *entry)
{
    return sizeof(entry->head) + (entry->expire_ms != 0 ? 8u : 0u) + (entry->mc_flags != 0 ? 8u : 0u) +
           (entry->sequence != 0 ? sizeof(entry->ids) : 0u) + entry->key.len;
}

/* False: nothing of it is in the log yet. */
static bool page_entry_chain(struct store *store, const struct entry *e, struct page_entry *out)
{
    if (entry_is_object(e)) {
        const struct object *object = entry_object(e);

        if (object->base_lsn == 0)
            return false;
        out->head.value_len = (uint32_t)MIN(object->image_bytes, (uint64_t)ENTRY_VALUE_LEN_MAX);
        out->ids[0] = object->base_lsn;
        out->ids[1] = object->image_lsn;
        out->sequence = object->image_lsn == entry_lsn(e) ? 0 : object->chain_sequence;
    } else if (entry_is_cold(e) && store->chains != NULL) {
        const struct chain *chain = chain_find(store, index_hash(store->index, out->head.db, out->key), e);

        if (chain != NULL) {
            out->ids[0] = chain->base_lsn;
            out->ids[1] = chain->image_lsn;
            out->sequence = chain->chain_sequence;
        }
    }
    return true;
}

static void page_entry_compose(void *arg, struct entry *e)
{
    struct page_compose *page = arg;
    struct store *store = page->store;
    uint64_t lsn = entry_lsn(e);
    struct page_entry entry = {
        .head = {
            .address = e->address,
            .lsn_low = (uint32_t)lsn,
            .lsn_high = (uint16_t)(lsn >> 32),
            .type = (uint8_t)entry_type(e),
            .value_len = entry_value_len(e),
            .db = entry_db(e),
        },
        .expire_ms = entry_expire_ms(e),
        .mc_flags = entry_mc_flags(e),
        .key = entry_key(e),
    };

    if (entry.head.type == STORE_NONE || store_is_flushed(store, e) || !page_entry_chain(store, e, &entry))
        return;
    entry.head.key_len = (uint16_t)entry.key.len;
    entry.head.flags = (uint8_t)((entry.expire_ms != 0 ? CHECKPOINT_ENTRY_EXPIRES : 0) |
                                 (entry.mc_flags != 0 ? CHECKPOINT_ENTRY_MC_FLAGS : 0) |
                                 (entry.sequence != 0 ? CHECKPOINT_ENTRY_CHAIN : 0));
    if (entry.sequence != 0 && (page->row->chain_sequence == 0 || entry.sequence < page->row->chain_sequence))
        page->row->chain_sequence = entry.sequence;
    page->row->keys++;
    page->full_len += page_entry_size(&entry);
    if (page->patch_lsn != 0 && !checkpoint_is_since(store->checkpoint, page->patch_lsn, lsn, e->address)) {
        if (page->kept != NULL)
            buffer_append(page->kept, &lsn, 8);
        return;
    }
    page_entry_write(page->out, &entry);
    page->entries++;
}

static void page_record_seal(struct buffer *out, size_t start, const struct checkpoint_record *record, unsigned bits,
                             uint32_t kept)
{
    struct checkpoint_page_header header = {
        .magic = CHECKPOINT_MAGIC_PAGE,
        .version = CHECKPOINT_PAGE_VERSION,
        .bits = (uint16_t)bits,
        .page = record->page,
        .entries = record->entries,
        .lsn = record->lsn,
        .len = record->len,
        .kept = kept,
    };

    memcpy(out->data + start, &header, sizeof(header));
    header.hash = checkpoint_page_hash(out->data + start, header.len);
    memcpy(out->data + start, &header, sizeof(header));
}

bool checkpoint_page_compose(struct store *store, uint32_t page, bool is_patch, struct buffer *out,
                             struct checkpoint_page *row, struct checkpoint_record *record)
{
    struct checkpoint *c = store->checkpoint;
    bool is_gone = (c->marks.gone[page / 64] & 1ull << (page % 64)) != 0;
    struct page_compose compose = {.store = store, .out = out, .row = row, .full_len = CHECKPOINT_PAGE_HEADER};
    size_t start = out->len;
    uint32_t kept = is_patch ? CHECKPOINT_KEPT_ALL : 0;
    char header[CHECKPOINT_PAGE_HEADER] = {0};

    buffer_clear(&c->kept);
    *row = (struct checkpoint_page){0};
    if (is_patch) {
        compose.patch_lsn = MAX(checkpoint_table_lsn(&c->table, page), 1u);
        compose.kept = is_gone ? &c->kept : NULL;
    }
    buffer_append(out, header, sizeof(header));
    index_page_each(store->index, c->next.bits, page, page_entry_compose, &compose);
    row->full_len = (uint32_t)MIN(compose.full_len, (uint64_t)UINT32_MAX);
    if (is_patch && !is_gone && compose.entries == 0) {
        out->len = start;
        return false;
    }
    if (is_patch && is_gone)
        kept = (uint32_t)(c->kept.len / 8);
    buffer_append(out, c->kept.data, c->kept.len);
    out->failed |= c->kept.failed;
    if (out->failed)
        return true;
    *record = (struct checkpoint_record){
        .lsn = store_lsn(store), .len = (uint32_t)(out->len - start), .entries = compose.entries, .page = page,
    };
    page_record_seal(out, start, record, c->next.bits, kept);
    return true;
}

/* ---- applying --------------------------------------------------------------------------------- */

struct page_apply {
    struct store *store;
    struct checkpoint_page_load *load;
    const struct checkpoint_record *record;
    unsigned bits;
    bool is_first;
    const uint64_t *kept; /* sorted */
    size_t kept_count;
};

static bool is_missing(const struct store *store, uint64_t address)
{
    return address != 0 && store_log_segment_find(store->log, address_sequence(address)) == NULL;
}

/* The page is not to have it any more. */
static void apply_forget(struct page_apply *apply, uint64_t hash, struct entry *e)
{
    apply->load->keys--;
    apply->load->missing -= is_missing(apply->store, e->address);
    store_entry_drop(apply->store, hash, e);
}

static void apply_keep_each(void *arg, struct entry *e)
{
    struct page_apply *apply = arg;

    if (!checkpoint_kept_has(apply->kept, apply->kept_count, entry_lsn(e)))
        apply_forget(apply, index_hash(apply->store->index, entry_db(e), entry_key(e)), e);
}

static int apply_chain(struct store *store, uint64_t hash, const struct checkpoint_key *key)
{
    struct chain *chain = chain_add(store, hash, key->db, key->key);

    if (chain == NULL)
        return ERR_FULL;
    store->recount_needed = true;
    chain->base_lsn = key->base_lsn;
    chain->image_lsn = key->image_lsn;
    return 0;
}

static int apply_entry(struct page_apply *apply, struct bytes *cursor)
{
    struct store *store = apply->store;
    struct checkpoint_key key;
    struct entry_parts parts;
    struct entry *e = NULL;
    uint64_t hash;
    int err;

    if (!checkpoint_key_take(cursor, &key))
        return ERR_CORRUPT;
    hash = index_hash(store->index, key.db, key.key);
    if ((hash & ((1ull << apply->bits) - 1)) != apply->record->page)
        return ERR_CORRUPT;
    if (key.lsn < store->flush_lsn[key.db]) /* gone since, and where it was may be used again */
        return 0;
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
    if (!apply->is_first)
        e = index_find(store->index, hash, key.db, key.key);
    if (e != NULL) {
        apply->load->missing -= is_missing(store, e->address);
        store_live_remove(store, e->address, store_record_bytes(e));
        chain_end(store, hash, e);
    } else {
        apply->load->keys++;
    }
    err = store_entry_put(store, hash, &e, &parts);
    if (err != 0)
        return err;
    apply->load->missing += is_missing(store, key.address);
    store_live_add(store, e->address, store_record_bytes(e));
    return key.has_chain ? apply_chain(store, hash, &key) : 0;
}

int checkpoint_record_apply(struct store *store, const struct checkpoint_record *record, bool is_first,
                            struct bytes data, struct checkpoint_page_load *load)
{
    struct checkpoint *c = store->checkpoint;
    struct page_apply apply = {
        .store = store, .load = load, .record = record, .bits = c->meta.bits, .is_first = is_first,
    };
    struct checkpoint_record_view view;
    int err = 0;

    if (!checkpoint_record_take(data, record, c->meta.bits, &view) || is_first != (!view.is_kept_all && view.kept.len == 0))
        return ERR_CORRUPT;
    if (!view.is_kept_all && !is_first) {
        buffer_clear(&c->kept);
        apply.kept_count = view.kept.len / 8;
        apply.kept = (const uint64_t *)(const void *)buffer_reserve(&c->kept, view.kept.len);
        if (apply.kept == NULL)
            return ERR_FULL;
        checkpoint_kept_sort(view.kept, (uint64_t *)(void *)c->kept.data);
        index_page_each(store->index, c->meta.bits, record->page, apply_keep_each, &apply);
    }
    for (uint32_t i = 0; i < record->entries && err == 0; i++)
        err = apply_entry(&apply, &view.entries);
    return err == 0 && view.entries.len > 0 ? ERR_CORRUPT : err;
}
