/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/checkpoint_format.h"

#include "backend/store/effect.h"
#include "backend/store/log.h"
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

uint32_t checkpoint_sum(uint32_t before, uint64_t hash)
{
    return MAX((uint32_t)checkpoint_hash(&hash, sizeof(hash), before), 1u);
}

static bool page_take(struct bytes *cursor, void *out, size_t size)
{
    if (cursor->len < size)
        return false;
    memcpy(out, cursor->data, size);
    *cursor = bytes_skip(*cursor, size);
    return true;
}

/* ---- entries ----------------------------------------------------------------------------------- */

/* Versions 1 and 2. */
static bool key_take_fixed(struct bytes *cursor, struct checkpoint_key *out)
{
    struct checkpoint_entry head;
    uint64_t ids[2] = {0, 0};

    if (!page_take(cursor, &head, sizeof(head)))
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

/* What lies between two addresses, so that small steps in either direction are small numbers. */
static uint64_t step_encode(uint64_t from, uint64_t to)
{
    uint64_t step = to - from;

    return (step >> 63) != 0 ? ~step << 1 | 1 : step << 1;
}

static uint64_t step_decode(uint64_t from, uint64_t step)
{
    return from + ((step & 1) != 0 ? ~(step >> 1) : step >> 1);
}

static bool key_take_packed(struct checkpoint_record *record, struct checkpoint_key *out)
{
    struct bytes *cursor = &record->rest;
    uint64_t back, step, value_len;
    uint8_t head;

    if (!page_take(cursor, &head, 1) || ((head & CHECKPOINT_KEY_DB) != 0 && !page_take(cursor, &out->db, 1)) ||
        !varint_read(cursor, &back) || back > record->lsn || !varint_read(cursor, &step) ||
        !varint_read(cursor, &value_len) || value_len > UINT32_MAX)
        return false;
    if ((head & CHECKPOINT_KEY_EXPIRES) != 0 && !varint_read(cursor, &out->expire_ms))
        return false;
    if ((head & CHECKPOINT_KEY_MC_FLAGS) != 0 && !varint_read(cursor, &out->mc_flags))
        return false;
    out->has_chain = (head & CHECKPOINT_KEY_CHAIN) != 0;
    if (out->has_chain && (!page_take(cursor, &out->base_lsn, 8) || !page_take(cursor, &out->image_lsn, 8)))
        return false;
    out->is_moved = (head & CHECKPOINT_KEY_MOVED) != 0;
    out->type = head & ENTRY_TYPE_MASK;
    out->lsn = record->lsn - back;
    out->address = record->address = step_decode(record->address, step);
    out->value_len = (uint32_t)value_len;
    return out->is_moved ? page_take(cursor, &out->tag, 2) && out->tag >> CHECKPOINT_TAG_BITS == 0
                         : varint_read_bytes(cursor, &out->key) && out->key.len <= STORE_KEY_MAX;
}

bool checkpoint_key_take(struct checkpoint_record *record, struct checkpoint_key *out)
{
    bool is_whole;

    *out = (struct checkpoint_key){0};
    is_whole = record->version >= 3 ? key_take_packed(record, out) : key_take_fixed(&record->rest, out);
    return is_whole && out->type != STORE_NONE && out->type < STORE_TYPE_COUNT && out->db < STORE_DBS;
}

void checkpoint_key_put(struct buffer *out, const struct checkpoint_key *key, uint64_t lsn, uint64_t address)
{
    uint8_t head[2] = {
        (uint8_t)(key->type | (key->expire_ms != 0 ? CHECKPOINT_KEY_EXPIRES : 0) |
                  (key->mc_flags != 0 ? CHECKPOINT_KEY_MC_FLAGS : 0) | (key->has_chain ? CHECKPOINT_KEY_CHAIN : 0) |
                  (key->is_moved ? CHECKPOINT_KEY_MOVED : 0) | (key->db != 0 ? CHECKPOINT_KEY_DB : 0)),
        key->db,
    };

    ASSERT(key->lsn <= lsn);
    buffer_append(out, head, key->db != 0 ? 2 : 1);
    varint_append(out, lsn - key->lsn);
    varint_append(out, step_encode(address, key->address));
    varint_append(out, key->value_len);
    if (key->expire_ms != 0)
        varint_append(out, key->expire_ms);
    if (key->mc_flags != 0)
        varint_append(out, key->mc_flags);
    if (key->has_chain) {
        buffer_append(out, &key->base_lsn, 8);
        buffer_append(out, &key->image_lsn, 8);
    }
    if (key->is_moved)
        buffer_append(out, &key->tag, 2);
    else
        varint_append_bytes(out, key->key);
}

static size_t varint_size(uint64_t number)
{
    return (70u - (unsigned)__builtin_clzll(number | 1)) / 7u;
}

size_t checkpoint_key_size(const struct checkpoint_key *key, uint64_t lsn, uint64_t address)
{
    return (key->db != 0 ? 2u : 1u) + varint_size(lsn - key->lsn) + varint_size(step_encode(address, key->address)) +
           varint_size(key->value_len) + (key->expire_ms != 0 ? varint_size(key->expire_ms) : 0) +
           (key->mc_flags != 0 ? varint_size(key->mc_flags) : 0) + (key->has_chain ? 16u : 0u) +
           (key->is_moved ? 2u : varint_size(key->key.len) + key->key.len);
}

/* ---- records ----------------------------------------------------------------------------------- */

static size_t kept_count(struct bytes kept, uint32_t version)
{
    size_t count = 0;

    if (version < 3)
        return kept.len / 8;
    for (size_t i = 0; i < kept.len; i++)
        count += (kept.data[i] & 0x80) == 0;
    return count;
}

bool checkpoint_record_take(struct bytes *cursor, unsigned bits, struct checkpoint_record *out)
{
    struct checkpoint_page_header header;
    struct bytes data;
    size_t kept;

    if (cursor->len < sizeof(header))
        return false;
    memcpy(&header, cursor->data, sizeof(header));
    if (header.magic != CHECKPOINT_MAGIC_PAGE || header.version == 0 || header.version > CHECKPOINT_PAGE_VERSION ||
        header.bits != bits || header.page >> bits != 0 || header.len < sizeof(header) || header.len > cursor->len ||
        header.hash != checkpoint_page_hash(cursor->data, header.len))
        return false;
    data = bytes_skip(bytes_first(*cursor, header.len), sizeof(header));
    kept = header.kept == CHECKPOINT_KEPT_ALL ? 0 : (size_t)header.kept * (header.version < 3 ? 8 : 1);
    if (kept > data.len)
        return false;
    *out = (struct checkpoint_record){
        .lsn = header.lsn, .hash = header.hash, .page = header.page, .len = header.len, .version = header.version,
        .entries = header.entries,
        .rest = bytes_first(data, data.len - kept),
        .kept = bytes_skip(data, data.len - kept),
        .is_kept_all = header.kept == CHECKPOINT_KEPT_ALL,
    };
    out->kept_count = kept_count(out->kept, out->version);
    *cursor = bytes_skip(*cursor, header.len);
    return header.entries <= out->rest.len / CHECKPOINT_ENTRY_MIN;
}

static int lsn_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

void checkpoint_kept_put(struct buffer *out, uint64_t lsn, uint64_t kept_lsn)
{
    ASSERT(kept_lsn <= lsn);
    varint_append(out, lsn - kept_lsn);
}

bool checkpoint_kept_sort(const struct checkpoint_record *record, uint64_t *out)
{
    struct bytes cursor = record->kept;

    if (record->kept_count == 0)
        return record->kept.len == 0;
    if (record->version < 3) {
        memcpy(out, cursor.data, cursor.len);
    } else {
        for (size_t i = 0; i < record->kept_count; i++) {
            uint64_t back;

            if (!varint_read(&cursor, &back) || back > record->lsn)
                return false;
            out[i] = record->lsn - back;
        }
        if (cursor.len > 0)
            return false;
    }
    qsort(out, record->kept_count, 8, lsn_compare);
    return true;
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
    mem_free(table->extents);
    *table = (struct checkpoint_table){0};
}

static bool table_reserve(struct checkpoint_table *table, uint32_t count)
{
    struct checkpoint_extent *extents;

    if (count <= table->extent_cap)
        return true;
    extents = mem_realloc(table->extents, sizeof(*extents) * count);
    if (extents == NULL)
        return false;
    table->extents = extents;
    table->extent_cap = count;
    return true;
}

bool checkpoint_table_add(struct checkpoint_table *table, uint64_t off, uint32_t len)
{
    struct checkpoint_extent *last = table->extent_count > 0 ? &table->extents[table->extent_count - 1] : NULL;

    ASSERT(last == NULL || off >= last->off + last->len);
    if (last != NULL && off == last->off + last->len && last->len < CHECKPOINT_EXTENT_MAX) {
        last->len += len;
        return true;
    }
    if (table->extent_count == table->extent_cap &&
        !table_reserve(table, table->extent_cap + table->extent_cap / 2 + 8))
        return false;
    table->extents[table->extent_count++] = (struct checkpoint_extent){off, len, 0};
    return true;
}

/* Of versions 1 and 2: a record a page. */
struct page_row_1 {
    uint64_t off;
    uint32_t len, entries;
    uint64_t lsn, chain_sequence;
};
_Static_assert(sizeof(struct page_row_1) == 32, "no padding");

/* Of version 3: the records of a page lie in a second table. */
struct page_row_3 {
    uint64_t chain_sequence;
    uint32_t keys, first, count, full_len;
};
struct record_row_3 {
    uint64_t off, lsn;
    uint32_t len, entries, page, zero;
};
_Static_assert(sizeof(struct page_row_3) == 24 && sizeof(struct record_row_3) == 32, "no padding");

static int extent_compare(const void *a, const void *b)
{
    const struct checkpoint_extent *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

static void table_take_1(const char *data, struct checkpoint_table *table)
{
    for (uint32_t i = 0; i < table->page_count; i++) {
        struct page_row_1 row;

        memcpy(&row, data + sizeof(row) * (size_t)i, sizeof(row));
        table->pages[i] = (struct checkpoint_page){row.lsn, row.chain_sequence, row.entries, 1, row.len, 0};
        table->extents[i] = (struct checkpoint_extent){row.off, row.len, 0};
    }
}

/* False: the records of the pages are not those that are there. */
static bool table_take_3(const char *data, struct checkpoint_table *table)
{
    const char *records = data + sizeof(struct page_row_3) * (size_t)table->page_count;
    struct record_row_3 record;
    uint32_t first = 0;

    for (uint32_t i = 0; i < table->page_count; i++) {
        struct page_row_3 row;

        memcpy(&row, data + sizeof(row) * (size_t)i, sizeof(row));
        if (row.first != first || row.count == 0 || row.count > table->extent_count - first)
            return false;
        for (uint32_t k = 0; k < row.count; k++) {
            memcpy(&record, records + sizeof(record) * (size_t)(first + k), sizeof(record));
            table->extents[first + k] = (struct checkpoint_extent){record.off, record.len, 0};
        }
        table->pages[i] = (struct checkpoint_page){record.lsn, row.chain_sequence, row.keys, row.count, row.full_len, 0};
        first += row.count;
    }
    return first == table->extent_count;
}

/* All extents lie before META, one behind the other. */
static bool table_is_valid(const struct checkpoint_table *table, uint64_t meta_off)
{
    uint64_t end = 0;

    for (uint32_t i = 0; i < table->extent_count; i++) {
        const struct checkpoint_extent *extent = &table->extents[i];

        if (extent->len < CHECKPOINT_PAGE_HEADER || extent->off < end || extent->off > meta_off ||
            extent->len > meta_off - extent->off)
            return false;
        end = extent->off + extent->len;
    }
    for (uint32_t i = 0; i < table->page_count; i++)
        if (table->pages[i].records == 0)
            return false;
    return true;
}

static bool table_take(uint32_t version, const char *data, struct checkpoint_table *table)
{
    size_t size = sizeof(*table->pages) * (size_t)table->page_count;

    if (version == 4) {
        memcpy(table->pages, data, size);
        memcpy(table->extents, data + size, sizeof(*table->extents) * (size_t)table->extent_count);
        return true;
    }
    if (version == 3 && !table_take_3(data, table))
        return false;
    if (version < 3)
        table_take_1(data, table);
    qsort(table->extents, table->extent_count, sizeof(*table->extents), extent_compare);
    return true;
}

static const uint32_t meta_sizes[CHECKPOINT_META_VERSION + 1] = {
    0, CHECKPOINT_META_SIZE_1, CHECKPOINT_META_SIZE_2, sizeof(struct checkpoint_meta), sizeof(struct checkpoint_meta),
};
/* Of the table behind it: a page, an extent (version 3: a record). */
static const uint32_t row_sizes[CHECKPOINT_META_VERSION + 1][2] = {
    {0, 0}, {sizeof(struct page_row_1), 0}, {sizeof(struct page_row_1), 0},
    {sizeof(struct page_row_3), sizeof(struct record_row_3)},
    {sizeof(struct checkpoint_page), sizeof(struct checkpoint_extent)},
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
    *table_size = row_sizes[out->version][0] * (uint64_t)out->page_count +
                  row_sizes[out->version][1] * (uint64_t)out->rows;
    if (out->version < 3)
        out->rows = out->page_count;
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
    table->page_count = out->page_count;
    table->pages = mem_alloc(sizeof(*table->pages) * (size_t)out->page_count);
    if (table->pages == NULL || !table_reserve(table, MAX(out->rows, 1u))) {
        checkpoint_table_free(table);
        return ERR_FULL;
    }
    table->extent_count = out->rows;
    if (table_take(out->version, data + meta_sizes[out->version], table) && table_is_valid(table, slot->meta_off))
        return 0;
    checkpoint_table_free(table);
    return ERR_CORRUPT;
}

bool checkpoint_meta_is_since(const struct checkpoint_meta *meta, uint64_t address)
{
    uint64_t sequence = address_sequence(address);

    if (sequence >= meta->next_sequence)
        return true;
    for (unsigned i = 0; i < CHECKPOINT_CLASSES; i++)
        if (sequence == address_sequence(meta->cold_marks[i]))
            return address >= meta->cold_marks[i];
    return false;
}
