/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut.h - a shard's directory as it was at an earlier time: where its log is cut, and what stays.
 *
 *     checkpoint ───────────── hot log since ────────────┬── what came later ──
 *     (all its keys' records,    S7 ── S9 ── S12 [page│page]    S15 ── S16
 *      wherever they lie)                            cut
 *
 *   Q1  The cut is behind the last whole unit (a turn's frames; a transaction) that is within the limit, and before the
 *       first one that is not. Nothing is judged from records: a unit has one time, and rising LSNs.
 *   Q2  It is not before the newest checkpoint, whose pages show what was true at their LSN and cannot be taken back. What
 *       an older one needs may have been given back meanwhile. Nor is it before shard->given_lsn: what the pages name may be
 *       gone, and what became of it is in the log up to there. So the range is: from the later of the two to the end.
 *   Q3  Of hot segments nothing behind the cut stays; the one that is cut gets a footer, so that a recovery takes its end
 *       for an end, and not for a loss.
 *   Q4  Cold segments stay as they are: what is in them with a higher LSN than the last one of its epoch in the hot log,
 *       a recovery takes for a copy of something that never happened (backend/store/replay.c, Y5).
 *   Q5  Everything before the cut must verify, or there is no cut.
 */
#pragma once
#include "ctl/progress.h"
#include "ctl/shard.h"

struct cut_limit {
    bool is_time;   /* else an LSN */
    uint64_t value; /* ms, or the LSN: the last one that may stay */
};

struct cut {
    bool is_whole;      /* nothing is behind the limit */
    uint64_t lsn;       /* last one that stays */
    uint64_t wall_ms;   /* and its time; 0: none was read */
    uint64_t next_ms;   /* time of the first unit that does not stay; 0: none */
    uint64_t first_sequence; /* hot segments from here on were looked at; those before stay */
    const struct shard_segment *segment; /* the last hot one that stays; NULL: none of those looked at */
    uint64_t page_off;  /* the last page write that stays in it, and how much of that; 0: none */
    uint32_t frames, used;
};

/* The LSN that no cut is before (Q2). `base`: the newest checkpoint; NULL: there is none. */
uint64_t cut_floor(const struct shard *shard, const struct shard_checkpoint *base);
/* 0; ERR_INVALID: the limit is before the floor; ERR_CORRUPT (told), -errno. */
MUST_USE int cut_find(struct shard *shard, const struct shard_checkpoint *base, const struct cut_limit *limit,
                      struct progress *progress, struct cut *out);

enum cut_part { CUT_ALL, CUT_SOME, CUT_NONE };
enum cut_part cut_part_of(const struct cut *cut, const struct shard_segment *segment);
/* The segment that is cut, as it is then, in shard->data: all of its file. 0 or -errno. */
MUST_USE int cut_compose(struct shard *shard, const struct cut *cut);
