/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/checkpoint_format.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdlib.h>

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

bool checkpoint_record_take(struct bytes data, const struct checkpoint_record *record, unsigned bits,
                            struct checkpoint_record_view *out)
{
    struct checkpoint_page_header header;
    struct bytes cursor = data;
    size_t kept;

    if (!page_take(&cursor, &header, sizeof(header)) || header.magic != CHECKPOINT_MAGIC_PAGE ||
        header.version == 0 || header.version > CHECKPOINT_PAGE_VERSION || header.bits != bits ||
        header.page != record->page || header.len != data.len || header.len != record->len ||
        header.entries != record->entries || header.lsn != record->lsn ||
        header.hash != checkpoint_page_hash(data.data, data.len))
        return false;
    kept = header.kept == CHECKPOINT_KEPT_ALL ? 0 : (size_t)header.kept * 8;
    if (kept > cursor.len)
        return false;
    out->is_kept_all = header.kept == CHECKPOINT_KEPT_ALL;
    out->entries = bytes_first(cursor, cursor.len - kept);
    out->kept = bytes_skip(cursor, cursor.len - kept);
    return true;
}

static int lsn_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

void checkpoint_kept_sort(struct bytes kept, uint64_t *out)
{
    if (kept.len == 0)
        return;
    memcpy(out, kept.data, kept.len);
    qsort(out, kept.len / 8, 8, lsn_compare);
}

bool checkpoint_kept_has(const uint64_t *sorted, size_t count, uint64_t lsn)
{
    return count > 0 && bsearch(&lsn, sorted, count, 8, lsn_compare) != NULL;
}

/* ---- META, MANIFEST --------------------------------------------------------------------------- */

bool checkpoint_slot_is_valid(const struct checkpoint_slot *slot, unsigned place)
{
    return slot->magic == CHECKPOINT_MAGIC_SLOT && slot->version == CHECKPOINT_VERSION && slot->generation != 0 &&
           slot->generation % 2 == place && slot->file != 0 && slot->meta_len >= CHECKPOINT_META_SIZE_1 &&
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

/* ---- the table of pages ----------------------------------------------------------------------- */

void checkpoint_table_free(struct checkpoint_table *table)
{
    mem_free(table->pages);
    mem_free(table->records);
    *table = (struct checkpoint_table){0};
}

/* Of versions 1 and 2: a record a page. */
struct page_row_1 {
    uint64_t off;
    uint32_t len, entries;
    uint64_t lsn, chain_sequence;
};
_Static_assert(sizeof(struct page_row_1) == 32, "no padding");

static void table_take_1(const char *data, struct checkpoint_table *table)
{
    for (uint32_t i = 0; i < table->page_count; i++) {
        struct page_row_1 row;

        memcpy(&row, data + sizeof(row) * (size_t)i, sizeof(row));
        table->pages[i] = (struct checkpoint_page){row.chain_sequence, row.entries, i, 1, row.len};
        table->records[i] = (struct checkpoint_record){row.off, row.lsn, row.len, row.entries, i, 0};
    }
}

/* All records lie before META, those of a page in the order in which they were written. */
static bool table_is_valid(const struct checkpoint_table *table, uint64_t meta_off)
{
    uint32_t first = 0;

    for (uint32_t i = 0; i < table->page_count; i++) {
        const struct checkpoint_page *page = &table->pages[i];
        uint64_t end = 0, lsn = 0;

        if (page->first != first || page->count == 0 || page->count > table->record_count - first)
            return false;
        for (uint32_t k = 0; k < page->count; k++) {
            const struct checkpoint_record *record = &table->records[first + k];

            if (record->page != i || record->len < CHECKPOINT_PAGE_HEADER || record->off < end ||
                record->off > meta_off || record->len > meta_off - record->off || record->lsn < lsn)
                return false;
            end = record->off + record->len;
            lsn = record->lsn;
        }
        first += page->count;
    }
    return first == table->record_count;
}

static const uint32_t meta_sizes[CHECKPOINT_META_VERSION + 1] = {
    0, CHECKPOINT_META_SIZE_1, CHECKPOINT_META_SIZE_2, sizeof(struct checkpoint_meta),
};

/* The head, and how long the table behind it has to be. */
static int meta_head_take(const struct checkpoint_slot *slot, const char *data, struct checkpoint_meta *out,
                          uint64_t *table_size)
{
    *out = (struct checkpoint_meta){0};
    if (checkpoint_hash(data, slot->meta_len, CHECKPOINT_VERSION) != slot->meta_hash)
        return ERR_CORRUPT;
    memcpy(out, data, CHECKPOINT_META_SIZE_1);
    if (out->magic != CHECKPOINT_MAGIC_META || out->version == 0)
        return ERR_CORRUPT;
    if (out->version > CHECKPOINT_META_VERSION)
        return ERR_UNSUPPORTED;
    if (slot->meta_len < meta_sizes[out->version] || slot->meta_off == 0 || out->bits > CHECKPOINT_BITS_MAX ||
        out->page_count != 1u << out->bits)
        return ERR_CORRUPT;
    memcpy(out, data, meta_sizes[out->version]);
    for (uint8_t db = 0; db < STORE_DBS && out->version == 1; db++)
        out->places[db] = db;
    if (out->version < 3)
        out->records = out->page_count;
    *table_size = out->version < 3 ? sizeof(struct page_row_1) * (uint64_t)out->page_count
                                   : sizeof(struct checkpoint_page) * (uint64_t)out->page_count +
                                         sizeof(struct checkpoint_record) * (uint64_t)out->records;
    return slot->meta_len == meta_sizes[out->version] + *table_size ? 0 : ERR_CORRUPT;
}

int checkpoint_meta_take(const struct checkpoint_slot *slot, const char *data, struct checkpoint_meta *out,
                         struct checkpoint_table *table)
{
    uint64_t size = 0;
    int err = meta_head_take(slot, data, out, &size);

    *table = (struct checkpoint_table){0};
    if (err != 0)
        return err;
    data += meta_sizes[out->version];
    table->page_count = out->page_count;
    table->record_count = out->records;
    table->pages = mem_alloc(sizeof(*table->pages) * (size_t)out->page_count);
    table->records = mem_alloc(sizeof(*table->records) * MAX((size_t)out->records, 1u));
    if (table->pages == NULL || table->records == NULL) {
        checkpoint_table_free(table);
        return ERR_FULL;
    }
    if (out->version < 3) {
        table_take_1(data, table);
    } else {
        size = sizeof(*table->pages) * (size_t)out->page_count;
        memcpy(table->pages, data, size);
        memcpy(table->records, data + size, sizeof(*table->records) * (size_t)out->records);
    }
    if (table_is_valid(table, slot->meta_off))
        return 0;
    checkpoint_table_free(table);
    return ERR_CORRUPT;
}
