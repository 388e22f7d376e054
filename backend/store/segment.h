/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.h - the first and the last page of a segment's file, and what the files "shard" and "lock" of a directory say.
 *
 * All have what counts in their first 512 bytes, a sector, which is written whole or not: a torn header of today
 * and the torn one of tomorrow cannot make one that verifies.
 *
 * HEADER, 4096 bytes at 0
 *     0 u32 magic   4 u16 version   6 u8 kind   7 u8 class   8 u64 sequence   16 uuid of the directory
 *    32 u32 shard  36 u32 epoch    40 u64 size of the file
 *    48 u64 sequence of the hot segment before (of a hot blob: of the one that was open)   56 u64 where that one ends, whatever lies behind it
 *    64 u64 chain of the hot frame before        72 u64 lowest LSN that a record in it can have
 *    80 u64 created, ms   88 u64 durable mark    96 u32 flags   100 u32 zero   104 u64 given LSN   112 zeroes
 *   504 u64 XXH3_64 of 0 .. 503, zeroes
 *   A segment that was given back keeps its sequence here, with kind SEGMENT_HEADER_FREE: so sequences are never
 *   used twice.
 *
 * FOOTER, 4096 bytes at the end of the file
 *     0 u32 magic   4 u16 version   6 u8 kind   7 u8 class   8 u64 sequence   16 uuid
 *    32 u32 shard  36 u32 zero     40 u64 bytes used   48 u64 records   56 u64 bytes of records
 *    64 u64 lowest LSN   72 u64 highest LSN   80 u64 highest expiry   88 u64 created, ms
 *    96 u64 chain behind it   104 u64 given LSN   112 zeroes   504 u64 XXH3_64 of 0 .. 503, zeroes
 *   It is written when everything before it is durable: what does not verify in a segment with a footer is damage.
 *
 *   The given LSN, in both and in GIVEN, is the highest LSN that was durable when a segment was given back that the
 *   newest checkpoint of then may still name: the directory cannot be brought back to a point before the highest one of
 *   its pages, free segments' too. It is 0 where no such segment was given back before the page was written, and in
 *   files of versions that knew no such field.
 *
 * SHARD, 4096 bytes
 *     0 u32 magic   4 u16 version   6 u16 zero   8 u32 shard   12 u32 count of shards   16 uuid
 *    32 16 bytes: seed of the hashes   48 zeroes   504 u64 XXH3_64 of 0 .. 503, zeroes
 *
 * GIVEN, 4096 bytes at 4096 in the file "lock" (before it: log_open.c)
 *     0 u32 magic   4 u16 version   6 u16 zero   8 u32 shard   12 u32 zero   16 uuid
 *    32 u64 given LSN   40 zeroes   504 u64 XXH3_64 of 0 .. 503, zeroes
 *   It tells what no segment tells any more (log_given.c). Directories of versions that knew no such page, and copies,
 *   have none.
 */
#pragma once
#include "backend/store/log.h"

#define SEGMENT_HEADER_FREE 0xffu
#define SEGMENT_IS_HOT      0x01u /* flag: a blob that belongs to the hot log */

struct segment_header {
    uint8_t kind, class;
    uint32_t shard, epoch, flags;
    uint64_t sequence, size, prev_sequence, prev_end, chain_before, first_lsn, created_ms, mark,
        given_lsn;
    unsigned char uuid[16];
};
void segment_header_encode(const struct segment_header *header, char page[PAGE_SIZE_]);
bool segment_header_decode(const char page[PAGE_SIZE_], struct segment_header *out);

struct segment_footer {
    uint8_t kind, class;
    uint32_t shard;
    uint64_t sequence, used_bytes, record_count, record_bytes, first_lsn, last_lsn, expire_max_ms,
        created_ms, chain, given_lsn;
    unsigned char uuid[16];
};
void segment_footer_encode(const struct segment_footer *footer, char page[PAGE_SIZE_]);
bool segment_footer_decode(const char page[PAGE_SIZE_], struct segment_footer *out);

struct shard_file {
    uint32_t shard, shard_count;
    unsigned char uuid[16], seed[16];
};
void shard_file_encode(const struct shard_file *file, char page[PAGE_SIZE_]);
bool shard_file_decode(const char page[PAGE_SIZE_], struct shard_file *out);

/* The file "lock" begins with this while a node has it, and after it was killed; anything else: it was closed. */
#define LOCK_STATE_OPEN "weiropen"
#define LOCK_STATE_SIZE 8u
#define GIVEN_AT PAGE_SIZE_ /* in the file "lock" */

struct given_page {
    uint32_t shard;
    uint64_t given_lsn;
    unsigned char uuid[16];
};
void given_page_encode(const struct given_page *given, char page[PAGE_SIZE_]);
bool given_page_decode(const char page[PAGE_SIZE_], struct given_page *out);
