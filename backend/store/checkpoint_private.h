/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint_private.h - what writing (checkpoint.c) and reading (checkpoint_load.c) share.
 */
#pragma once
#include "backend/store/checkpoint.h"
#include "backend/store/checkpoint_format.h"
#include "backend/store/store_private.h"

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
    uint64_t durable_lsn;          /* that a slot knew of at the start */
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

/* "DIR/checkpoint.N", "DIR/MANIFEST" */
#define CHECKPOINT_PATH_MAX 4200u
void checkpoint_path(const struct store *store, uint64_t file, char out[CHECKPOINT_PATH_MAX]);
/* Composes the page at the end of `out`. */
void checkpoint_page_compose(struct store *store, unsigned bits, uint32_t page, uint64_t lsn,
                             struct buffer *out, struct checkpoint_page *row);
/* Entries of one page into the index. ERR_CORRUPT, ERR_FULL. */
MUST_USE int checkpoint_page_parse(struct store *store, const struct checkpoint_page *row, unsigned bits,
                                   uint32_t page, struct bytes data);
