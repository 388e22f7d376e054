/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit.h - the one place that knows what is committed.
 *
 *   C1  The commit mark never goes back.
 *   C2  It never passes what the acknowledgement level says of this node: `appended` (memory, in the log
 *       ring), `written` or `durable` for fsync: no, everysec -> appended, always -> durable.
 *   C3  A node without backups commits by itself.
 */
#pragma once
#include "backend/store/store.h"

enum commit_level { COMMIT_MEM, COMMIT_OS, COMMIT_DISK };

struct commit {
    uint8_t level;  /* enum commit_level */
    uint64_t lsn;   /* the mark: all up to here is committed */
};

void commit_init(struct commit *commit, enum store_fsync fsync);
void commit_level_set(struct commit *commit, enum store_fsync fsync);
/* Takes in this node's marks; true: the mark moved. */
bool commit_advance(struct commit *commit, struct store_marks own);
