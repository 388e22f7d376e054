/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/repl/commit.h"

void commit_level_set(struct commit *commit, enum store_fsync fsync)
{
    commit->level = fsync == STORE_FSYNC_ALWAYS ? COMMIT_DISK : COMMIT_MEM;
}

void commit_init(struct commit *commit, enum store_fsync fsync)
{
    commit->lsn = 0;
    commit_level_set(commit, fsync);
}

static uint64_t commit_own_mark(const struct commit *commit, const struct store_marks *own)
{
    switch ((enum commit_level)commit->level) {
    case COMMIT_MEM: return own->appended;
    case COMMIT_OS: return own->written;
    case COMMIT_DISK: return own->durable;
    }
    UNREACHABLE("no such level");
}

bool commit_advance(struct commit *commit, struct store_marks own)
{
    uint64_t lsn = commit_own_mark(commit, &own);

    ASSERT(own.durable <= own.written && own.written <= own.appended);
    if (lsn <= commit->lsn)
        return false;
    commit->lsn = lsn;
    return true;
}
