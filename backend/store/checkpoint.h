/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint.h - the index on disk, so that a start need not read the whole log.
 *
 * FILES, version 1 (pages: 3, META: 4), little endian
 *     MANIFEST        two slots of 4096 bytes, written in turn: the newest that verifies holds
 *       0 u32 magic  4 u32 version  8 u64 generation  16 u64 number of the data file  24 u64 offset of META
 *       32 u64 length of META  40 u64 XXH3 of META  48 u64 XXH3 of bytes 0..47
 *       56 u64 LSN that was durable  64 u64 XXH3 of bytes 0..63 (zero: of a version that did not say)
 *     checkpoint.N    records of pages, and METAs, appended, each checkpoint from a multiple of 4096 on; a new file, with
 *                     full records, when it weighs four times what those would
 *
 *     page: all keys whose hash ends in the same `bits` bits. It is made of one record or more: the oldest is full, each
 *     later one is a patch, with what was changed (or moved) since the one before it, or full again
 *       0 u32 magic  4 u16 version  6 u16 bits  8 u32 page  12 u32 entries  16 u64 lsn (the page is true then)
 *       24 u32 length  28 u32 kept  32 u64 XXH3 of the rest (bytes 0..31, 40..length)   40 entries, kept LSNs
 *       kept: 2^32 - 1: no key went away since the record before. Else so many bytes of LSNs, each a varint of the
 *       record's less this one, are at the end: keys of older records stay if theirs is among them, or they have an entry
 *       with a name here. 0: a full record.
 *     entry: u8 type (3 bits) | expires 8, mc_flags 16, chain 32, moved 64, db 128   [u8 db]
 *            varints: the record's LSN less this one | address, as a step from the entry's before it (0), times two or,
 *            of one backwards, its complement times two, plus one | value length | [expire_ms] | [mc_flags]
 *            [u64 base_lsn, u64 image_lsn]   key: varint of its length, its bytes; moved: u16, the 14 bits of its hash
 *            above the page's, as an older record has the key, with this LSN
 *     META
 *       magic, version, lsn, hot_from, cold_from, wall clock, keys, bits, pages, epoch, extents, flush_lsn of 16
 *       databases, swap_lsn, places of 16 databases, then the next sequence, and for 8 cold streams the end of the open
 *       segment, when it began;
 *       for each page: lsn, first chain segment, keys, records, length of a full record, u32 sum of the records: 0 before
 *       the first, then the lower half of XXH3 of the next one's hash, seeded with what it was, but 1 for 0 (zero: unknown);
 *       for each extent, a run of records in this file: offset, length, zero
 *
 *     Older versions, which are read: META 3 has for each page: first chain segment, keys, first record, records, length
 *     of a full record; for each record, page by page: offset, lsn, length, entries, page, zero. Version 2 ends its head
 *     with the places, version 1 with flush_lsn; both have for each page: offset, length, entries, lsn, first chain
 *     segment of its only record. Pages of version 2 count kept LSNs of 8 bytes; their entries, and those of version 1,
 *     whose records are full, are
 *            u64 address | u48 lsn, u8 type, u8 flags | u32 value length | u16 key length | u8 db | u8 zero
 *            [u64 expire_ms] [u64 mc_flags] [u64 base_lsn, u64 image_lsn]   key
 *
 *   K1  A page (the oldest of its records, mended by the others in turn) says for each of its keys what was true at the
 *       newest record's LSN, and nothing of any other key.
 *   K2  A manifest slot is written only when its data file, and the log up to the last LSN that any page has,
 *       are durable.
 *   K3  Replay from hot_from and cold_from brings every page to now: they are not newer than the first segment that
 *       was open when the checkpoint began, nor than the oldest delta of a chain that a page names. A place that a page
 *       names may be gone by then (cleaner_give.c, V1-V4).
 *   K4  A page that has not changed since it was written is as good as new: it is written again only when it
 *       changed (or the file is made anew). A record of it may leave out the name of a key whose LSN is not above the
 *       page's, and all of it if its place was written before the last durable checkpoint began: nothing but a new LSN or
 *       a copy in a cold segment changes what a page says of a key that stays, and no two keys have the same LSN.
 *   K5  Falling back to the older slot is no way to lose what was durable when the newer one was written: the log that
 *       is found must reach the LSN that any slot knows, or the start is refused. (Segments that only the older one
 *       needs may be used again already.)
 *   K6  A data file that has another name (of a backup, or of what was restored from one) is not appended to: two would
 *       write to the same place. It is made anew.
 *   K7  On a full disk what frees segments must not need what only they would free: a checkpoint that has no room, and
 *       after which segments would be free, gets that of one that is; it is tried again with
 *       patches in the file that is there, while a new one can wait. One that would have freed nothing is tried again as soon
 *       as something was emptied, and a free segment stays for it (log_segments_staying()).
 *   K8  The records that are read are those that were written: their sum is the page's. One of a checkpoint that was cut off,
 *       in the same place, or of an older file verifies by itself, and is what a lost write leaves.
 */
#pragma once
#include "backend/store/store.h"

struct checkpoint;

MUST_USE int checkpoint_create(struct store *store);
void checkpoint_destroy(struct store *store);

/* Reads the newest one that verifies: entries go into the index. done(): 0 also when there is none. */
void checkpoint_load(struct store *store, void (*done)(struct store *store, int err));
/* What replay needs after it; all 0 without a checkpoint. */
uint64_t checkpoint_hot_from(const struct store *store);
uint64_t checkpoint_cold_from(const struct store *store);
uint64_t checkpoint_lsn(const struct store *store);
uint64_t checkpoint_durable_lsn(const struct store *store); /* K5; as found at the start */
uint32_t checkpoint_epoch(const struct store *store);
uint64_t checkpoint_page_lsn(const struct store *store, uint64_t hash);
/* Records with a lower or equal LSN that took keys away are no longer needed by any checkpoint kept (L4). */
uint64_t checkpoint_horizon(const struct store *store);

/* Starts one, if none is under way. `is_urgent`: without regard to how long a turn gets (at the end). done(), may be
 * NULL, tells when it is durable, or why it is not. */
void checkpoint_start(struct store *store, bool is_urgent, void (*done)(struct store *store, int err));
bool checkpoint_is_running(const struct store *store);
/* Bytes of records, copies too, since the last one began: what a recovery would read. */
uint64_t checkpoint_log_bytes(const struct store *store);
/* Bytes that its files may come to take beside those that they have. */
uint64_t checkpoint_room(const struct store *store);
/* K7: the last one found no room, for which a free segment went: it is worth another try, soon. */
bool checkpoint_has_got_room(const struct store *store);
/* It found none, and nothing would have been free after it: once something would be, another try is worth it. */
bool checkpoint_was_in_vain(const struct store *store);
/* Whether enough has been logged since the last one. */
bool checkpoint_is_due(const struct store *store);
/* A step, at most about 200 us. True: more is to do now (not: waits for the disk). */
bool checkpoint_work(struct store *store);
