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
_Static_assert(CHECKPOINT_CLASSES == STORE_LOG_CLASSES, "META has room for all streams");

struct checkpoint_buffer {
    struct buffer bytes;
    uint64_t off;      /* of its first byte in the file */
    struct io_op op;
    struct store *store;
    bool is_busy;
};

/* A bit a page, each; one allocation, that begins with `changed`. */
struct checkpoint_bits {
    uint64_t *changed;             /* owns: since its newest record some key of it has */
    uint64_t *gone;                /* ... or is not there any more, or only a full record can tell what it is */
    uint64_t *taken, *taken_gone;  /* what the checkpoint under way took of both */
};

struct checkpoint {
    uint8_t state; /* enum checkpoint_state */
    /* The newest that is durable: */
    struct checkpoint_meta meta;
    struct checkpoint_table table;
    uint64_t generation, file_number; /* generation 0: there is none */
    uint64_t file_end;             /* of its META */
    uint64_t old_file_end;         /* of the file before, which goes with the next one; 0: there is none, or a start found it */
    uint64_t file_numbers[2];      /* which data file each slot names; 0: none */
    uint64_t lsns[2];              /* and which LSN */
    uint64_t durable_lsn;          /* that a slot knew of at the start */
    uint64_t log_bytes_then;       /* record bytes of the log when it was made */
    /* Since then: */
    struct checkpoint_bits marks;
    uint32_t bits;
    /* The one under way: */
    struct io_file *file, *manifest;
    struct io_op op;
    struct checkpoint_meta next;
    struct checkpoint_table next_table;
    struct checkpoint_table spare_table; /* of the one before the newest, or of one that failed: its memory is for the next */
    struct buffer kept;            /* of the record being composed, or applied */
    struct buffer moved;           /* the name of the key being applied */
    uint64_t next_file;
    uint32_t page;                 /* the next one to look at */
    uint32_t part, passes;         /* of the page, being looked at; passes over its chains */
    struct checkpoint_buffer buffers[CHECKPOINT_BUFFERS];
    unsigned filling;
    char *slot; /* owns: CHECKPOINT_SLOT_SIZE, page-aligned */
    uint64_t next_end;             /* of the data file, with what is in the buffers */
    uint64_t meta_off, meta_len, meta_hash, log_bytes_next;
    bool is_urgent, is_full, is_flushing;
    bool is_broken;                /* the last one failed: the next one is made anew */
    bool is_room_given;            /* the last one found no room; now there may be some */
    bool was_in_vain;              /* it found none, and nothing would have been free after it */
    uint64_t remake_again_ms;      /* not before, after there was no room for a new file */
    int err;
    void (*done)(struct store *store, int err);
    /* Loading: checkpoint_load.c's. */
    struct checkpoint_load *load;
};

/* "DIR/checkpoint.N", "DIR/MANIFEST" */
#define CHECKPOINT_PATH_MAX 4200u
void checkpoint_path(const struct store *store, uint64_t file, char out[CHECKPOINT_PATH_MAX]);
/* Whether a page whose newest record is of `page_lsn` may not know that an entry has this LSN and this place: it was
 * changed since, or moved. */
bool checkpoint_is_since(const struct checkpoint *c, uint64_t page_lsn, uint64_t lsn, uint64_t address);
/* Composes a record at the end of `out`: with all keys, or (`is_patch`) what the records before it do not have. `row` is
 * what META would say of the page if it was the only one. False: it would say nothing, and nothing was composed. */
bool checkpoint_page_compose(struct store *store, uint32_t page, bool is_patch, struct buffer *out,
                             struct checkpoint_page *row);

/* Bits for so many pages, none set. False: no memory. */
MUST_USE bool checkpoint_bits_make(struct checkpoint *c, unsigned bits);
void checkpoint_bits_clear(struct checkpoint *c);

/* Of a start that ended before it was done, too. */
void checkpoint_load_free(struct checkpoint *c);

/* What loading knows of a page while its records are applied, oldest first. */
struct checkpoint_page_load {
    uint64_t lsn;     /* of the last one */
    uint32_t records; /* so far */
    uint32_t sum;     /* of these */
    uint32_t keys;
    uint32_t missing; /* of these, whose segment is not there */
};
/* Applies one record to the index. ERR_CORRUPT, ERR_FULL. */
MUST_USE int checkpoint_record_apply(struct store *store, struct checkpoint_record *record,
                                     struct checkpoint_page_load *load);
