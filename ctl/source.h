/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.h - all shards of a stopped node's directory, or of a backup: what backup, restore and salvage read.
 *
 * Beside the shards of a backup lies the file "backup", a few lines of text:
 *
 *     weir-backup 1
 *     taken_ms N     the wall clock before the first shard was held: what came up to then is in each
 *     given_lsn I N  shard I's (struct shard): free segments, which may know it alone, are left out
 */
#pragma once
#include "ctl/shard.h"

#define SOURCE_FILE "backup"
#define SHARDS_MAX  128u

struct source {
    const char *dir;      /* borrows */
    struct report report; /* borrowed by the shards */
    struct shard *shards; /* owns */
    uint32_t count;
    uint64_t bytes;       /* of all segments in use */
    uint64_t taken_ms;    /* 0: it is no backup */
};

/* All of them are there, belong together, and can be opened: 0; else an error: told. */
MUST_USE int source_open(struct source *source, const char *dir);
/* When the backup in that directory was taken; 0: it is none. */
uint64_t source_taken_ms(const char *dir);
/* Whether what is to be made at `path` is not inside of it, nor of a shard that is a link to elsewhere; else told. */
MUST_USE int source_outside(const struct source *source, const char *path);
void source_close(struct source *source);
/* Locks all of it, so that no node starts on it; the descriptors end with source_unlock(). Told. */
MUST_USE int source_lock(struct source *source, int locks[SHARDS_MAX]);
void source_unlock(const struct source *source, const int locks[SHARDS_MAX]);
/* Whether a segment's file has anything of the log in it, or cannot be ruled out to have. */
bool source_keeps(const struct shard *shard, const struct shard_segment *segment);
