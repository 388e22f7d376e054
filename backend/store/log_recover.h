/* SPDX-License-Identifier: Apache-2.0 */
/* log_recover.h - the state of a recovery; for log_recover.c and log_replay.c. */
#pragma once
#include "backend/store/log_private.h"
#include "common/base/buffer.h"

struct log_recover {
    struct store_log *log;
    struct store_log_replay replay;
    uint64_t hot_from, cold_from;
    int err;
    uint32_t at; /* in log->used */
    struct log_scan scan, blob_scan, mark_scan;

    struct segment **chain_segments; /* owns the array; oldest first */
    uint32_t chain_count, chain_at, marks_at;
    uint64_t chain_first; /* sequence */
    struct segment **lost_segments; /* owns the array: not in the chain, with one before them missing or none of theirs begun */
    uint32_t lost_count, lost_at;
    uint64_t lost_mark;             /* highest durable LSN that they know of, */
    const struct segment *lost;     /* and who it was */

    uint64_t chain, lsn;                 /* behind the last whole unit */
    uint64_t pending_chain, pending_lsn; /* behind the last frame */
    uint64_t lsn_floor, lsn_max, mark, cold_mark;
    struct buffer pending;
    size_t frame_at;    /* in the page write at scan.off; 0: none was taken yet */
    uint64_t page_end;  /* of that one, when only its first frames fit; 0 */
    bool has_blob, is_over;

    struct ring_frame *frames; /* owns */
    uint32_t frame_count, frame_replayed;
};

/* Every record of a frame that verifies; `address` is of the frame. */
int log_recover_frame(struct log_recover *r, struct segment *segment, uint64_t address, struct bytes data,
                      bool delivers, bool counts);
/* Whether the frame continues the log. */
bool log_recover_fits(struct log_recover *r, const struct frame *frame);
/* Takes a frame that fits. */
int log_recover_take(struct log_recover *r, struct segment *segment, uint64_t address, const struct frame *frame,
                     struct bytes data, bool delivers, bool counts);
void log_recover_failed(struct log_recover *r);
void log_recover_orphan(struct segment *segment);
