/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint_private.h - what writing (checkpoint.c) and reading (checkpoint_load.c) share.
 */
#pragma once
#include "backend/store/checkpoint.h"
#include "backend/store/store_private.h"

#define CHECKPOINT_MAGIC_SLOT 0x534d5257u /* "WRMS" */
#define CHECKPOINT_MAGIC_PAGE 0x47505257u /* "WRPG" */
#define CHECKPOINT_MAGIC_META 0x544d5257u /* "WRMT" */
#define CHECKPOINT_VERSION    1u
#define CHECKPOINT_SLOT_SIZE  4096u
#define CHECKPOINT_ALIGN      4096u
#define CHECKPOINT_PAGE_HEADER 40u
#define CHECKPOINT_ENTRY_SIZE 24u
#define CHECKPOINT_BITS_MAX   24u
#define CHECKPOINT_PAGE_KEYS_MAX 4096u
#define CHECKPOINT_META_MAX   (1u << 30)

#define CHECKPOINT_ENTRY_EXPIRES  1u
#define CHECKPOINT_ENTRY_MC_FLAGS 2u
#define CHECKPOINT_ENTRY_CHAIN    4u

struct checkpoint_slot {
    uint32_t magic, version;
    uint64_t generation, file, meta_off, meta_len, meta_hash, hash;
};
_Static_assert(sizeof(struct checkpoint_slot) == 56, "the slot is as checkpoint.h says");

struct checkpoint_meta {
    uint32_t magic, version;
    uint64_t lsn, hot_from, cold_from, wall_ms, keys;
    uint32_t bits, page_count, epoch, zero;
    uint64_t flush_lsn[STORE_DBS];
};
_Static_assert(sizeof(struct checkpoint_meta) == 64 + 8 * STORE_DBS, "no padding");

struct checkpoint_page {
    uint64_t off;
    uint32_t len, entries;
    uint64_t lsn, chain_sequence; /* 0: no chains */
};
_Static_assert(sizeof(struct checkpoint_page) == 32, "no padding");

struct checkpoint_page_header {
    uint32_t magic;
    uint16_t version, bits;
    uint32_t page, entries;
    uint64_t lsn;
    uint32_t len, zero;
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

enum checkpoint_state {
    CHECKPOINT_IDLE, CHECKPOINT_OPENING, CHECKPOINT_PAGES, CHECKPOINT_META, CHECKPOINT_FLUSHING,
    CHECKPOINT_MANIFEST, CHECKPOINT_ENDING,
};

#define CHECKPOINT_BUFFERS 2u

struct checkpoint_buffer {
    struct buffer bytes;
    uint64_t off;      /* of its first byte in the file */
    struct io_op op;
    struct store *store;
    bool is_busy;
};

struct checkpoint {
    uint8_t state; /* enum checkpoint_state */
    /* The newest that is durable: */
    struct checkpoint_meta meta;
    struct checkpoint_page *pages; /* owns; meta.page_count */
    uint64_t generation, file_number; /* generation 0: there is none */
    uint64_t file_numbers[2];      /* which data file each slot names; 0: none */
    uint64_t lsns[2];              /* and which LSN */
    uint64_t hot_bytes_then;       /* record bytes of the log when it was made */
    /* Since then: */
    uint64_t *dirty;               /* owns; a bit a page */
    uint32_t bits;
    /* The one under way: */
    struct io_file *file, *manifest;
    struct io_op op;
    struct checkpoint_meta next;
    struct checkpoint_page *next_pages; /* owns */
    uint64_t next_file;
    uint32_t page;                 /* the next one to look at */
    uint32_t passes;               /* over the page's chains */
    struct checkpoint_buffer buffers[CHECKPOINT_BUFFERS];
    unsigned filling;
    char *slot; /* owns: CHECKPOINT_SLOT_SIZE, page-aligned */
    uint64_t next_end;             /* of the data file, with what is in the buffers */
    uint64_t live_next;            /* bytes of the pages that count */
    uint64_t meta_off, meta_len, meta_hash, hot_bytes_next;
    bool is_urgent, is_full, is_flushing;
    bool is_broken;                /* the last one failed: the next one is made anew */
    int err;
    void (*done)(struct store *store, int err);
    /* Loading: checkpoint_load.c's. */
    struct checkpoint_load *load;
};

uint64_t checkpoint_hash(const void *data, size_t size, uint64_t seed);
/* "DIR/checkpoint.N", "DIR/MANIFEST" */
#define CHECKPOINT_PATH_MAX 4200u
void checkpoint_path(const struct store *store, uint64_t file, char out[CHECKPOINT_PATH_MAX]);
/* Composes the page at the end of `out`. */
void checkpoint_page_compose(struct store *store, unsigned bits, uint32_t page, uint64_t lsn,
                             struct buffer *out, struct checkpoint_page *row);
/* Entries of one page into the index. ERR_CORRUPT, ERR_FULL. */
MUST_USE int checkpoint_page_parse(struct store *store, const struct checkpoint_page *row, unsigned bits,
                                   uint32_t page, struct bytes data);
