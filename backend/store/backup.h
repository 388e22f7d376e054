/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backup.h - holding a store's files still for a moment, so that somebody else can link them.
 *
 *   B1  When it is ready, the files it names together are a store as it was at `lsn`: the newest checkpoint, and all
 *       segments, none of which is written to any more. Nothing is read or copied for that: the open segments are
 *       ended, which takes two flushes.
 *   B2  Until it ends none of them is given back, and no checkpoint is written.
 *   B3  It ends by itself when nobody asks for BACKUP_LEASE_MS, as who held it may be gone. Who ends it learns whether it was
 *       still held: only then what was linked is a backup.
 *   B4  Afterwards a file that has another name is never written to again: a segment's is removed, not recycled
 *       (log_segment.c); a checkpoint is not appended to checkpoint.N, but made anew (checkpoint.c). MANIFEST is
 *       written in place: it must be copied.
 *
 * So links need no keeping of books: a crash between any two steps leaves files with more names or fewer, and a name is
 * all that a backup is.
 */
#pragma once
#include "backend/store/store.h"

#define BACKUP_LEASE_MS 60000u
#define BACKUP_NAME_MAX 40u

enum backup_state { BACKUP_NONE, BACKUP_RUNNING, BACKUP_READY, BACKUP_FAILED };

struct backup_status {
    enum backup_state state;
    int err;                   /* why it failed */
    uint64_t lsn, wall_ms;     /* what it holds */
    uint64_t given_lsn;        /* before it there is nothing to go back to (cleaner_give.c) */
    const char *dir;
    uint32_t shard, shard_count, file_count;
};

/* 0; ERR_EXISTS: one is under way; ERR_UNSUPPORTED: nothing is kept on disk; ERR_FULL; -EROFS. `id` is that one's from
 * here on. */
MUST_USE int backup_start(struct store *store, uint64_t *id);
/* And goes on holding. NONE: it was given up, or never was. */
void backup_status_get(struct store *store, uint64_t id, struct backup_status *out);
void backup_file_name(const struct store *store, uint32_t i, char out[BACKUP_NAME_MAX]);
/* False: it was not held any more. */
bool backup_end(struct store *store, uint64_t id);

/* For open.c. */
void backup_work(struct store *store);
/* Whether a checkpoint must wait. */
bool backup_holds(const struct store *store);
void backup_destroy(struct store *store);
