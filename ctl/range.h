/* SPDX-License-Identifier: Apache-2.0 */
/*
 * range.h - what `weirctl restore --until` can go back to: from the newest checkpoint, or from what was given back since
 * (ctl/cut.h, Q2) to the end of the log. From headers, footers and the checkpoints' META alone; a log whose end has no
 * footer is read there, and the segment that has the change before which nothing was given back.
 */
#pragma once
#include "ctl/shard.h"

struct range {
    uint64_t from_lsn, to_lsn;
    uint64_t from_ms; /* 0: there is no checkpoint, and the log is there from its beginning */
};

/* Where it begins. `base`: the newest checkpoint, or NULL. After shard_chain_find(). 0 or -errno. */
MUST_USE int range_begin(struct shard *shard, const struct shard_checkpoint *base, struct range *out);

/* 0, or -errno. ERR_CORRUPT: told to the shard's report. */
MUST_USE int range_find(struct shard *shard, struct range *out);
/* Prints the range of a backup. What cannot be found out is told on stderr. */
void range_print(const char *backup);
