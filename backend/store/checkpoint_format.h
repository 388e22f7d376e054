/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint_format.h - MANIFEST and checkpoint.N as structs: for whoever reads them (the format: checkpoint.h).
 */
#pragma once
#include "backend/store/entry.h"
#include "common/base/buffer.h"
#include "common/base/bytes.h"

#define CHECKPOINT_MAGIC_SLOT 0x534d5257u /* "WRMS" */
#define CHECKPOINT_MAGIC_PAGE 0x47505257u /* "WRPG" */
#define CHECKPOINT_MAGIC_META 0x544d5257u /* "WRMT" */
#define CHECKPOINT_VERSION    1u
#define CHECKPOINT_PAGE_VERSION 3u /* 1: nothing builds on an older record; 2: entries are struct checkpoint_entry */
#define CHECKPOINT_META_VERSION 4u /* 1: without swap_lsn and places, no database was ever swapped; 2: a record a page;
                                    * 3: a row a record */
#define CHECKPOINT_SLOT_SIZE  4096u
#define CHECKPOINT_ALIGN      4096u
#define CHECKPOINT_PAGE_HEADER 40u
#define CHECKPOINT_ENTRY_SIZE 24u      /* of versions 1 and 2 */
#define CHECKPOINT_ENTRY_MIN  5u
#define CHECKPOINT_BITS_MAX   24u
#define CHECKPOINT_PAGE_KEYS_MAX 4096u
#define CHECKPOINT_META_MAX   (1u << 30)
#define CHECKPOINT_EXTENT_MAX (1u << 20) /* a record that begins below may end above */
#define CHECKPOINT_KEPT_ALL   UINT32_MAX
#define CHECKPOINT_TAG_BITS   14u
#define CHECKPOINT_CLASSES    8u      /* cold streams */

#define CHECKPOINT_ENTRY_EXPIRES  1u
#define CHECKPOINT_ENTRY_MC_FLAGS 2u
#define CHECKPOINT_ENTRY_CHAIN    4u
/* Of version 3, in one byte with the type, whose three bits are the lowest: */
#define CHECKPOINT_KEY_EXPIRES  0x08u
#define CHECKPOINT_KEY_MC_FLAGS 0x10u
#define CHECKPOINT_KEY_CHAIN    0x20u
#define CHECKPOINT_KEY_MOVED    0x40u
#define CHECKPOINT_KEY_DB       0x80u

struct checkpoint_slot {
    uint32_t magic, version;
    uint64_t generation, file, meta_off, meta_len, meta_hash, hash;
    uint64_t durable_lsn, durable_hash;
};
_Static_assert(sizeof(struct checkpoint_slot) == 72, "the slot is as checkpoint.h says");

struct checkpoint_meta {
    uint32_t magic, version;
    uint64_t lsn, hot_from, cold_from, wall_ms, keys;
    uint32_t bits, page_count, epoch;
    uint32_t rows; /* extents; version 3: records; 1 and 2: zero */
    uint64_t flush_lsn[STORE_DBS];
    uint64_t swap_lsn;
    uint8_t places[STORE_DBS];
    uint64_t next_sequence, cold_marks[CHECKPOINT_CLASSES];
};
#define CHECKPOINT_META_SIZE_1 (64u + 8u * STORE_DBS)
#define CHECKPOINT_META_SIZE_2 (CHECKPOINT_META_SIZE_1 + 24u)
_Static_assert(sizeof(struct checkpoint_meta) == CHECKPOINT_META_SIZE_2 + 8 + 8 * CHECKPOINT_CLASSES, "no padding");

struct checkpoint_page {
    uint64_t lsn;            /* of its newest record: the page is true then */
    uint64_t chain_sequence; /* 0: no chains */
    uint32_t keys;
    uint32_t records;        /* that it is made of */
    uint32_t full_len;       /* of a record that would have all keys */
    uint32_t sum;            /* of its records, in turn: checkpoint_sum(); 0: a version that had none wrote one of them */
};
_Static_assert(sizeof(struct checkpoint_page) == 32, "no padding");

/* A run of records without a gap. */
struct checkpoint_extent {
    uint64_t off;
    uint32_t len, zero;
};
_Static_assert(sizeof(struct checkpoint_extent) == 16, "no padding");

/* What META says of pages, of any version. */
struct checkpoint_table {
    struct checkpoint_page *pages;     /* owns */
    struct checkpoint_extent *extents; /* owns: in the order of the file, which is that in which they were written */
    uint32_t page_count, extent_count, extent_cap;
};

struct checkpoint_page_header {
    uint32_t magic;
    uint16_t version, bits;
    uint32_t page, entries;
    uint64_t lsn;
    uint32_t len, kept; /* CHECKPOINT_KEPT_ALL, or the size of what follows the entries (version 2: / 8) */
    uint64_t hash;
};
_Static_assert(sizeof(struct checkpoint_page_header) == CHECKPOINT_PAGE_HEADER, "no padding");

struct checkpoint_entry {
    uint64_t address;
    uint32_t lsn_low;
    uint16_t lsn_high;
    uint8_t type, flags;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t db, zero;
};
_Static_assert(sizeof(struct checkpoint_entry) == CHECKPOINT_ENTRY_SIZE, "no padding");

uint64_t checkpoint_hash(const void *data, size_t size, uint64_t seed);
/* Of a whole page, with its header, without the field for it. */
uint64_t checkpoint_page_hash(const char *page, size_t len);
/* Of a page's records up to one with that hash; `before`: without it, 0 for the first. Never 0. */
uint32_t checkpoint_sum(uint32_t before, uint64_t hash);
/* Whether a slot of the MANIFEST verifies at its place (0 or 1). */
bool checkpoint_slot_is_valid(const struct checkpoint_slot *slot, unsigned place);
/* Sets both hashes. */
void checkpoint_slot_seal(struct checkpoint_slot *slot);
/* Of a valid one: an LSN that the log must have in the end. 0: it does not say, or that part does not verify. */
uint64_t checkpoint_slot_durable(const struct checkpoint_slot *slot);
/* META of any version that is known. 0: it verifies, and its numbers make sense, so that nobody below need ask; `table` is
 * the caller's then. ERR_CORRUPT; ERR_UNSUPPORTED: whole, and of a version that is not known; ERR_FULL. */
MUST_USE int checkpoint_meta_take(const struct checkpoint_slot *slot, const char *data, struct checkpoint_meta *out,
                                  struct checkpoint_table *table);
/* Whether a copy at this address lies where nothing was yet when the checkpoint began. */
bool checkpoint_meta_is_since(const struct checkpoint_meta *meta, uint64_t address);
void checkpoint_table_free(struct checkpoint_table *table);
/* The page is true then. */
static inline uint64_t checkpoint_table_lsn(const struct checkpoint_table *table, uint32_t page)
{
    return table->pages[page].lsn;
}
/* Adds a record's place, behind all that are there. False: no memory. */
MUST_USE bool checkpoint_table_add(struct checkpoint_table *table, uint64_t off, uint32_t len);

/* ---- records of pages -------------------------------------------------------------------------- */

/* An entry of a page. */
struct checkpoint_key {
    uint64_t address, lsn, expire_ms, mc_flags;
    uint64_t base_lsn, image_lsn; /* of one with a chain; else 0 */
    uint32_t value_len;
    uint16_t tag;                 /* of one that was moved: CHECKPOINT_TAG_BITS bits of the hash above the page's */
    uint8_t type, db;
    bool has_chain;
    bool is_moved;                /* older records have it with this LSN: its name is there */
    struct bytes key;             /* a view into the record; empty: is_moved */
};

/* One record of a page. */
struct checkpoint_record {
    uint64_t lsn, hash;
    uint32_t page, len, version;
    uint32_t entries;      /* that it has; and */
    struct bytes rest;     /* what is left of them to take, and */
    uint64_t address;      /* what the last one that was taken had */
    struct bytes kept;     /* LSNs of keys that older records have, and that stay */
    size_t kept_count;
    bool is_kept_all;      /* all of them do */
};
/* The record at the start of `cursor`, which moves behind it. False: it does not verify, or is not of such pages. */
bool checkpoint_record_take(struct bytes *cursor, unsigned bits, struct checkpoint_record *out);
/* All that older records of the page say is out of date. */
static inline bool checkpoint_record_is_full(const struct checkpoint_record *record)
{
    return !record->is_kept_all && record->kept.len == 0;
}
/* The next entry. False: it makes no sense. */
bool checkpoint_key_take(struct checkpoint_record *record, struct checkpoint_key *out);
/* How it is written (version 3) to a record of `lsn`, behind an entry with `address` (the first one: 0). */
void checkpoint_key_put(struct buffer *out, const struct checkpoint_key *key, uint64_t lsn, uint64_t address);
size_t checkpoint_key_size(const struct checkpoint_key *key, uint64_t lsn, uint64_t address);
/* `kept`, one that stays. */
void checkpoint_kept_put(struct buffer *out, uint64_t lsn, uint64_t kept_lsn);
/* The LSNs that the older records' keys must have to stay, in order. `out` has room for kept_count. False: that makes no
 * sense. */
bool checkpoint_kept_sort(const struct checkpoint_record *record, uint64_t *out);
bool checkpoint_kept_has(const uint64_t *sorted, size_t count, uint64_t lsn);
