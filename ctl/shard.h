/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shard.h - a shard's directory as it lies on disk, read from outside: of a node that is stopped, of one that runs, of
 * a backup.
 *
 *     shard_open     the file "shard", all segments' headers and footers
 *     shard_load     one segment's bytes
 *     shard_walk     its page writes, frames and records, also behind damage
 *     shard_checkpoint_...   MANIFEST and pages
 *
 * Nothing here writes. What does not verify is told to the report, with file and offset.
 */
#pragma once
#include "backend/store/checkpoint_format.h"
#include "backend/store/frame.h"
#include "backend/store/segment.h"
#include "common/base/base.h"

#include <stdio.h>

#define SHARD_PATH_MAX 4096u
#define SHARD_DIR_MAX  3900u

/* Where findings go. */
struct report {
    FILE *out;
    uint64_t damages; /* told */
    uint64_t lines_max; /* of damages that are printed; the rest is counted. 0: all */
};
void report_damage(struct report *report, const char *path, uint64_t off, const char *format, ...)
    PRINTF_LIKE(4, 5);

struct shard_segment {
    char name[24];
    uint64_t size;
    uint64_t sequence;   /* of the header, or of its first page write if that is damaged; 0: unknown */
    struct segment_header header;
    struct segment_footer footer;
    bool has_header, is_footed, is_hot, is_free, is_blob;
    bool has_page;       /* a page write that belongs there is at its start */
    bool is_foot_bad;    /* its last page was written as a whole, and is no footer */
    bool is_chained;     /* the hot log leads through it */
    struct shard_segment *next; /* in the hot log; borrows */
    struct frame frame;  /* of a hot blob: what its only frame says */
};

struct shard {
    char dir[SHARD_DIR_MAX];
    int dir_fd;
    struct shard_file file;
    struct shard_segment *segments; /* owns; by sequence; free ones first */
    uint32_t count;
    uint64_t hot_from;   /* where a recovery would start; 0: at the beginning */
    uint64_t bytes;      /* of all segments in use */
    uint64_t given_lsn;  /* highest one that headers, footers and "lock" know, free segments' too (backend/store/segment.h) */
    bool is_running;     /* a node has it open */
    bool was_open;       /* ... or had, and was killed */
    struct report *report; /* borrows */
    char *data;          /* owns: of the segment loaded */
    size_t data_cap;
};

/* 0; -errno, ERR_CORRUPT: it is no shard's directory, or its file "shard" is damaged (told). */
MUST_USE int shard_open(const char *dir, struct report *report, struct shard *out);
/* Also without a file "shard" that verifies (told): then shard->file is what segments say, without a count of shards and
 * without the seed. ERR_NOT_FOUND: they say nothing. */
MUST_USE int shard_open_damaged(const char *dir, struct report *report, struct shard *out);
void shard_close(struct shard *shard);
/* `dir` is a shard's directory, or one with shard-0, shard-1 ...: each() is called for all of them, until one of its
 * calls is not 0. -errno, ERR_NOT_FOUND: there is none (both told on stderr); ERR_CORRUPT: one is missing (told). */
MUST_USE int shards_each(const char *dir, FILE *out, int (*each)(void *arg, const char *dir), void *arg);
/* Finds the hot log among the segments: after hot_from is known. Tells of a missing one. */
void shard_chain_find(struct shard *shard);
/* Reads the whole file into shard->data. What cannot be read is told, and zeroes. 0 or -errno. */
MUST_USE int shard_load(struct shard *shard, const struct shard_segment *segment);
/* Whether the file still has that segment: a running node may have given it back. */
bool shard_is_still(const struct shard *shard, const struct shard_segment *segment);
/* Up to where page writes must be: the footer knows, or the hot segment after it; else the end of the file. */
uint64_t shard_segment_end(const struct shard *shard, const struct shard_segment *segment);
void shard_path(const struct shard *shard, const char *name, char out[SHARD_PATH_MAX]);

/* A piece of a segment. */
struct shard_page {
    const struct shard_segment *segment;
    uint64_t off;
    struct page page;
    struct bytes data; /* header and frames */
};
/* The page write at `off`. NULL: it verifies, with all its frames and records; else what is wrong. `out` is set when
 * at least its header verifies and belongs there. */
const char *shard_page_at(const struct shard *shard, const struct shard_segment *segment, uint64_t off,
                          struct shard_page *out, bool *has_header);
/* The next offset from `off` on where a page write's header verifies and belongs; `end` if there is none. */
uint64_t shard_page_find(const struct shard *shard, const struct shard_segment *segment, uint64_t off, uint64_t end);

/* ---- checkpoint ------------------------------------------------------------------------------- */

struct shard_checkpoint {
    struct checkpoint_slot slot;
    struct checkpoint_meta meta;
    struct checkpoint_table table; /* owns */
    char *pages_bad;               /* owns: a byte a page */
    uint64_t lsn_max;              /* highest LSN of a page */
    char name[40];
};
/* The slots of the MANIFEST, newest first; those that do not verify, or whose META does not, are told and left out.
 * Returns how many: 0 to 2. */
unsigned shard_checkpoints(struct shard *shard, struct shard_checkpoint out[2]);
void shard_checkpoint_free(struct shard_checkpoint *checkpoint);
/* Calls each() for every key of pages that verify (and that no flush has taken); tells of the others. 0, -errno, or what each() returned. */
MUST_USE int shard_checkpoint_each(struct shard *shard, struct shard_checkpoint *checkpoint,
                                   int (*each)(void *arg, uint32_t page, const struct checkpoint_key *key, uint64_t hash),
                                   void *arg);
uint64_t shard_hash_seed(const struct shard *shard);
