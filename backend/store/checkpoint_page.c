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
    return lsn > page_lsn || checkpoint_meta_is_since(&c->meta, address);
}

struct page_compose {
    struct store *store;
    struct buffer *out;
    struct buffer *kept;  /* keys that older records have, and that stay; NULL: not wanted */
    struct checkpoint_page *row;
    uint64_t lsn;         /* of the record */
    uint64_t patch_lsn;   /* what older records have is left out; 0: nothing is */
    uint64_t address, full_address; /* of the last entry in this record; in a full one */
    uint64_t full_len;
    uint32_t entries;
};

/* The oldest segment that is needed for it; 0: none is. False: nothing of it is in the log yet. */
static bool page_entry_chain(struct store *store, const struct entry *e, uint64_t hash, struct checkpoint_key *out,
                             uint64_t *sequence)
{
    *sequence = 0;
    if (entry_is_object(e)) {
        const struct object *object = entry_object(e);

        if (object->base_lsn == 0)
            return false;
        out->value_len = (uint32_t)MIN(object->image_bytes, (uint64_t)ENTRY_VALUE_LEN_MAX);
        out->base_lsn = object->base_lsn;
        out->image_lsn = object->image_lsn;
        *sequence = object->image_lsn == entry_lsn(e) ? 0 : object->chain_sequence;
    } else if (entry_is_cold(e) && store->chains != NULL) {
        const struct chain *chain = chain_find(store, hash, e);

        if (chain != NULL) {
            out->base_lsn = chain->base_lsn;
            out->image_lsn = chain->image_lsn;
            *sequence = chain->chain_sequence;
        }
    }
    out->has_chain = *sequence != 0;
    return true;
}

/* What a patch says of an entry: all; that it has moved; nothing, as older records say the same. */
static void page_entry_patch(struct page_compose *page, struct checkpoint_key *key, uint64_t hash)
{
    const struct checkpoint *c = page->store->checkpoint;

    if (page->patch_lsn != 0 && key->lsn <= page->patch_lsn) {
        if (page->kept != NULL)
            checkpoint_kept_put(page->kept, page->lsn, key->lsn);
        if (!checkpoint_is_since(c, page->patch_lsn, key->lsn, key->address))
            return;
        key->is_moved = true;
        key->tag = hash >> c->next.bits & ((1u << CHECKPOINT_TAG_BITS) - 1);
    }
    checkpoint_key_put(page->out, key, page->lsn, page->address);
    page->address = key->address;
    page->entries++;
}

static void page_entry_compose(void *arg, struct entry *e)
{
    struct page_compose *page = arg;
    struct store *store = page->store;
    uint64_t hash, sequence;
    struct checkpoint_key key = {
        .address = e->address,
        .lsn = entry_lsn(e),
        .type = (uint8_t)entry_type(e),
        .value_len = entry_value_len(e),
        .db = entry_db(e),
        .expire_ms = entry_expire_ms(e),
        .mc_flags = entry_mc_flags(e),
        .key = entry_key(e),
    };

    if (key.type == STORE_NONE || store_is_flushed(store, e))
        return;
    hash = index_hash(store->index, key.db, key.key);
    if (!page_entry_chain(store, e, hash, &key, &sequence))
        return;
    if (sequence != 0 && (page->row->chain_sequence == 0 || sequence < page->row->chain_sequence))
        page->row->chain_sequence = sequence;
    page->row->keys++;
    page->full_len += checkpoint_key_size(&key, page->lsn, page->full_address);
    page->full_address = key.address;
    page_entry_patch(page, &key, hash);
}

/* What it says of itself, and how long it is, is known in the end. */
static void page_record_seal(struct buffer *out, size_t start, const struct page_compose *page,
                             uint32_t number, unsigned bits, uint32_t kept)
{
    struct checkpoint_page_header header = {
        .magic = CHECKPOINT_MAGIC_PAGE,
        .version = CHECKPOINT_PAGE_VERSION,
        .bits = (uint16_t)bits,
        .page = number,
        .entries = page->entries,
        .lsn = page->lsn,
        .len = (uint32_t)(out->len - start),
        .kept = kept,
    };

    memcpy(out->data + start, &header, sizeof(header));
    header.hash = checkpoint_page_hash(out->data + start, header.len);
    memcpy(out->data + start, &header, sizeof(header));
}

bool checkpoint_page_compose(struct store *store, uint32_t page, bool is_patch, struct buffer *out,
                             struct checkpoint_page *row)
{
    struct checkpoint *c = store->checkpoint;
    bool is_gone = (c->marks.gone[page / 64] & 1ull << (page % 64)) != 0;
    struct page_compose compose = {
        .store = store, .out = out, .row = row, .lsn = store_lsn(store), .full_len = CHECKPOINT_PAGE_HEADER,
    };
    size_t start = out->len;
    char header[CHECKPOINT_PAGE_HEADER] = {0};

    buffer_clear(&c->kept);
    *row = (struct checkpoint_page){.lsn = compose.lsn, .records = 1};
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
    buffer_append(out, c->kept.data, c->kept.len);
    out->failed |= c->kept.failed;
    if (!out->failed)
        page_record_seal(out, start, &compose, page, c->next.bits,
                         is_patch && !is_gone ? CHECKPOINT_KEPT_ALL : (uint32_t)c->kept.len);
    return true;
}

/* ---- applying --------------------------------------------------------------------------------- */

struct page_apply {
    struct store *store;
    struct checkpoint_page_load *load;
    const struct checkpoint_record *record;
    bool is_first;
    const uint64_t *kept; /* sorted */
    size_t kept_count;
};

static bool is_missing(const struct store *store, uint64_t address)
{
    return address != 0 && !store_log_has(store->log, address_sequence(address));
}

/* What a checkpoint names was durable before it was (K2). */
static void address_is_named(struct store *store, uint64_t address)
{
    struct segment_info *segment = address != 0 ? store_log_segment_find(store->log, address_sequence(address)) : NULL;

    if (segment != NULL)
        segment->named_bytes = MAX(segment->named_bytes, address_off(address) + 1);
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

struct moved_search {
    uint64_t lsn;
    struct entry *found;
};

static void moved_each(void *arg, struct entry *e)
{
    struct moved_search *search = arg;

    if (entry_lsn(e) == search->lsn)
        search->found = e;
}

/* Whose name older records have. `name` gets it, as `key` must not point into an entry that is about to be replaced. */
static struct entry *apply_moved(struct page_apply *apply, struct checkpoint_key *key, struct buffer *name)
{
    struct store *store = apply->store;
    unsigned bits = store->checkpoint->meta.bits, tag_bits = CHECKPOINT_TAG_BITS;
    struct moved_search search = {.lsn = key->lsn};

    index_page_each(store->index, bits + tag_bits, apply->record->page | (uint64_t)key->tag << bits, moved_each, &search);
    if (search.found == NULL || entry_db(search.found) != key->db)
        return NULL;
    buffer_clear(name);
    buffer_append(name, entry_key(search.found).data, entry_key(search.found).len);
    key->key = buffer_bytes(name);
    return name->failed ? NULL : search.found;
}

/* The entry that the key has from older records; NULL: it has none. */
static int apply_find(struct page_apply *apply, struct checkpoint_key *key, uint64_t *hash, struct entry **e)
{
    struct store *store = apply->store;

    *e = NULL;
    if (key->is_moved) {
        *e = apply->is_first ? NULL : apply_moved(apply, key, &store->checkpoint->moved);
        if (*e == NULL)
            return store->checkpoint->moved.failed ? ERR_FULL : ERR_CORRUPT;
    }
    *hash = index_hash(store->index, key->db, key->key);
    if ((*hash & ((1ull << store->checkpoint->meta.bits) - 1)) != apply->record->page)
        return ERR_CORRUPT;
    if (!apply->is_first && !key->is_moved)
        *e = index_find(store->index, *hash, key->db, key->key);
    return 0;
}

static int apply_entry(struct page_apply *apply, struct checkpoint_key *key)
{
    struct store *store = apply->store;
    struct entry_parts parts;
    struct entry *e;
    uint64_t hash;
    int err;

    if (key->lsn < store->flush_lsn[key->db]) /* gone since, and where it was may be used again */
        return 0;
    err = apply_find(apply, key, &hash, &e);
    if (err != 0)
        return err;
    parts = (struct entry_parts){
        .address = key->address,
        .lsn = key->lsn,
        .expire_ms = key->expire_ms,
        .mc_flags = key->mc_flags,
        .type = key->type,
        .db = key->db,
        .is_cold = true,
        .key = key->key,
        .value = bytes_of("", key->value_len),
    };
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
    apply->load->missing += is_missing(store, key->address);
    address_is_named(store, key->address);
    store_live_add(store, e->address, store_record_bytes(e));
    return key->has_chain ? apply_chain(store, hash, key) : 0;
}

/* Older keys go, unless the record says that they stay. */
static int apply_kept(struct page_apply *apply)
{
    struct checkpoint *c = apply->store->checkpoint;
    const struct checkpoint_record *record = apply->record;
    uint64_t *kept;

    if (record->is_kept_all || apply->is_first)
        return 0;
    buffer_clear(&c->kept);
    kept = (uint64_t *)(void *)buffer_reserve(&c->kept, MAX(record->kept_count, (size_t)1) * 8);
    if (kept == NULL)
        return ERR_FULL;
    if (!checkpoint_kept_sort(record, kept))
        return ERR_CORRUPT;
    apply->kept = kept;
    apply->kept_count = record->kept_count;
    index_page_each(apply->store->index, c->meta.bits, record->page, apply_keep_each, apply);
    return 0;
}

int checkpoint_record_apply(struct store *store, struct checkpoint_record *record, struct checkpoint_page_load *load)
{
    struct page_apply apply = {.store = store, .load = load, .record = record, .is_first = load->records == 0};
    struct checkpoint_key key;
    int err;

    if (record->lsn < load->lsn || (apply.is_first && !checkpoint_record_is_full(record)))
        return ERR_CORRUPT;
    load->lsn = record->lsn;
    load->sum = checkpoint_sum(load->sum, record->hash);
    load->records++;
    err = apply_kept(&apply);
    for (uint32_t i = 0; i < record->entries && err == 0; i++)
        err = checkpoint_key_take(record, &key) ? apply_entry(&apply, &key) : ERR_CORRUPT;
    return err == 0 && record->rest.len > 0 ? ERR_CORRUPT : err;
}
