/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - the segmented log of one shard: appending, flushing, reading, finding it again.
 *
 *     append ──> open page write in the log ring ──seal──> write ──> (flush) ──> durable
 *     cold_append ──> a buffer of its own ──> write ──> (flush)
 *
 *   G1  A record's place is known when it is appended: the open page write has its place in the open
 *       segment from the start. A page write is never written twice; a flush that is due pads it.
 *   G2  Hot frames lie in LSN order, over segments in the order of their sequence. Each hot segment names its
 *       predecessor.
 *   G3  appended >= written >= durable. `durable` moves only by a flush that was submitted after the
 *       completion of every write it covers (or by writes on a file opened for synchronous writing).
 *   G4  A failed write or flush is never tried again: the log is failed for good, its marks stand still.
 *       Nor does the next start believe what it reads back then (log_rescue.c).
 *   G5  What is sealed into the ring survives the death of the process: `appended` moves at the seal. What is too
 *       big for the ring counts as appended when it is written.
 *   G6  The segments that a dead predecessor had open are not written, cut or used again before
 *       store_log_release() has named a durable checkpoint that does not need them, or store_log_give_back() them.
 *   G7  A segment's sequence is never used twice, so (sequence, offset) names one record for ever.
 *   G8  A torn tail is cut only above the highest durable mark seen: in page writes, headers, free segments, footers, the
 *       MANIFEST. What does not verify below is corruption: reported with file and offset, never cut.
 *
 *   G9  A cold page write is submitted when the LSNs in it are durable: no copy outlives a change that was lost.
 *   G10 What was appended has its place on the disk, whatever others fill: a free segment's, or if the file of a large
 *       record is refused its room, that of a free segment which it fits (log_segment.c).
 *   G11 Who closes does not wait for room on the disk for long: what gets none is given up, and nothing of what was
 *       appended, which is durable then (log_leave.c).
 *
 * An address is sequence << 22 | offset / 16; 0 is none. Segments have 64 MiB at most, but one that holds a single
 * record larger than an eighth of that, which is as large as it needs.
 */
#pragma once
#include "backend/store/record.h"
#include "backend/store/store.h"

struct store_log;

#define STORE_LOG_OFF_BITS 22u
static inline uint64_t address_sequence(uint64_t address)
{
    return address >> STORE_LOG_OFF_BITS;
}
static inline uint64_t address_off(uint64_t address)
{
    return (address & ((1u << STORE_LOG_OFF_BITS) - 1)) << 4;
}

enum segment_state {
    SEGMENT_FREE,     /* preallocated, may be used */
    SEGMENT_OPEN,     /* being appended to */
    SEGMENT_SEALED,   /* only read */
    SEGMENT_CLEANED,  /* nothing live is left: free once a newer checkpoint is durable and no pin is on it */
};
enum segment_kind { SEGMENT_HOT, SEGMENT_COLD, SEGMENT_BLOB };

/* Of a segment in use. live_bytes is a hint for the cleaner (L8): kept by whoever owns the index. */
struct segment_info {
    uint64_t sequence;
    uint32_t slot;          /* which file */
    uint8_t state, kind, class; /* class: of cold ones, the lifetime they were separated by */
    uint32_t pins;          /* who wants to keep it: not a victim, not free */
    uint32_t reads;         /* under way in it: not free meanwhile */
    bool is_emptied;        /* the cleaner left nothing live in it */
    bool is_leaving;        /* ... and it goes when the flush under way has ended */
    uint64_t size;          /* of the file */
    uint64_t used_bytes;    /* up to where it was written */
    uint64_t named_bytes;   /* at a start: a durable checkpoint names a record that lies before */
    uint64_t record_bytes;  /* of all records in it */
    uint64_t live_bytes;
    uint64_t first_lsn, last_lsn; /* lowest and highest of its records */
    uint64_t takes_lsn;     /* highest of those that take away: TOMB, FLUSH, SWAP. 0: none */
    bool is_ours;           /* this process has filled it, so it knows of each record: the three are right */
    uint64_t expire_max_ms; /* highest expiry of its records; UINT64_MAX: some never expire */
    uint64_t created_ms;
};

struct store_log_options {
    struct io *io;
    const char *dir;
    const char *ring_path; /* NULL: no ring, appended == written */
    uint32_t shard, shard_count;
    uint32_t segment_size, ring_size; /* 0: 64 MiB, 4 MiB */
    uint64_t disk_max;                /* of all segments; 0: what the file system has room for */
    enum store_fsync fsync;
    bool direct;
    void *arg;
    void (*marks)(void *arg);           /* written or durable moved; from the loop */
    void (*failed)(void *arg, int err); /* once: the log has failed (G4) */
    void (*room)(void *arg);            /* after store_log_has_room() said no: now there is */
    uint64_t (*beside)(void *arg);      /* bytes that files beside the segments may come to want; NULL: none */
};

/* What recovery tells, from the loop, in the order of segments' sequences; inside one in its order. A hot frame's
 * records come only when its transaction is whole. */
struct store_log_replay {
    void *arg;
    uint64_t durable_lsn; /* known from elsewhere: a log that ends before is refused */
    /* 0, or an error that ends the recovery. The record ends with the call. */
    int (*record)(void *arg, const struct record *record, uint64_t address, size_t size, bool is_cold);
    void (*done)(void *arg, int err);
};

/* Opens the directory: looks at all segment headers, takes the lock. Then `replay` gets every record of the
 * segments with sequence >= hot_from (hot) or >= cold_from (cold), and of the ring. 0 for all. Records with a
 * lower LSN than the caller needs come as well. */
MUST_USE int store_log_create(const struct store_log_options *options, struct store_log **out);
void store_log_open(struct store_log *log, void (*done)(void *arg, int err), void *arg);
void store_log_recover(struct store_log *log, uint64_t hot_from, uint64_t cold_from,
                       const struct store_log_replay *replay);
/* It is to be closed soon, whatever has no room on the disk (G11): a log that has ended for that has the error -ENOSPC. */
void store_log_leave(struct store_log *log);
/* Seals, pads, writes and flushes what is pending, closes files. -ENOSPC: something was given up. */
void store_log_close(struct store_log *log, void (*done)(void *arg, int err), void *arg);
void store_log_destroy(struct store_log **log);

/* Epoch and clock for frames that follow. */
void store_log_epoch_set(struct store_log *log, uint32_t epoch);
void store_log_wall_set(struct store_log *log, uint64_t wall_ms);
void store_log_fsync_set(struct store_log *log, enum store_fsync fsync);
void store_log_disk_max_set(struct store_log *log, uint64_t bytes);

/* Gives the record the next LSN (in record->lsn) and a place. ERR_FULL: out of memory; -ENOSPC: no segment to be
 * had; -EROFS: failed. Nothing was appended then. */
MUST_USE int store_log_append(struct store_log *log, struct record *record, uint64_t *address);
/* Copies keep LSN and epoch; hot order does not hold for them. `class` separates lifetimes. */
MUST_USE int store_log_cold_append(struct store_log *log, const struct record *record, unsigned class,
                                   uint64_t *address);
/* Records between the two are one unit of recovery, also over several frames and turns. */
void store_log_atomic(struct store_log *log, bool begins);
/* Seals the frame of this turn; `appended` moves. Starts writes as the fsync mode wants. */
void store_log_turn_end(struct store_log *log);
/* A flush of everything appended so far, cold too; done() when it is durable. For checkpoints. */
void store_log_flush(struct store_log *log, void (*done)(void *arg, int err), void *arg);

/* Ends all open segments; done() when nothing of those in use will be written any more, and all of it is durable.
 * ERR_AGAIN: not now (a transaction is under way, a free segment is); -ENOSPC; -EROFS. */
MUST_USE int store_log_seal(struct store_log *log, void (*done)(void *arg, int err), void *arg);

/* Before a checkpoint: if large records that nobody needs wait for the open hot segment to end, it ends. True: a small
 * record must be appended now, for a recovery to begin with. */
bool store_log_roll(struct store_log *log);

/* A transaction that is over has not ended in the log, as there is no room for that yet. */
bool store_log_is_unit_open(const struct store_log *log);

struct store_marks store_log_marks(const struct store_log *log);
uint64_t store_log_last_lsn(const struct store_log *log); /* given to a record */
/* Recovery: no record that was given a lower LSN may come again. */
void store_log_lsn_floor(struct store_log *log, uint64_t lsn);
/* Whether appends may go on without the log falling further behind; else wait for room(). */
bool store_log_has_room(struct store_log *log);
/* So many bytes fit into the open frame, behind whose start room was found: there is no need to ask for it again. */
bool store_log_has_room_at_hand(const struct store_log *log, size_t bytes);
/* All that who grows has to ask was asked, and there is room. */
void store_log_room_found(struct store_log *log);
/* Calls room() if it is due: for timers, so that whoever waits is told whatever made the room. */
void store_log_room_check(struct store_log *log);
int store_log_error(const struct store_log *log); /* 0, or why it has failed */
/* Records of so many bytes together have a place now, whatever the disk says; true as well if the log has failed. */
bool store_log_takes(struct store_log *log, size_t bytes);
/* At the start: LSN of the last change found; and whether changes may have been lost with the ring of a killed process. */
uint64_t store_log_recovered_lsn(const struct store_log *log);
bool store_log_is_ring_lost(const struct store_log *log);
/* A flush of another file of the directory has failed: whoever starts next does not believe what it reads back. */
void store_log_doubt(struct store_log *log);
/* Bytes that segments may take together: as was said, or as the file system has room; 0: nobody knows. */
uint64_t store_log_bound(const struct store_log *log);
/* Bytes of free segments that clients leave. */
uint64_t store_log_reserve(const struct store_log *log);
/* Free segments are below the reserve: writes of clients must stop; deletes and the cleaner go on. */
bool store_log_is_disk_full(const struct store_log *log);
/* Whether a record of `bytes` has room where that is a question of its own, as a large one gets a file. 0; -ENOSPC;
 * ERR_AGAIN: free segments that nobody misses are being removed for it, ask again. */
int store_log_blob_room(struct store_log *log, size_t bytes);
/* A free segment is on its way: who was refused one asks again soon. */
bool store_log_makes_room(const struct store_log *log);
/* Of a large copy that store_log_cold_append() has refused, for which disk_max leaves no room: a free segment goes for it.
 * And: it is not tried again. */
void store_log_copy_room(struct store_log *log);
void store_log_copy_forget(struct store_log *log);
/* There is a free segment that copies may take. */
bool store_log_has_free(const struct store_log *log);
/* A record larger than a segment has no file yet as the file system is full: no flush, so no checkpoint, ends before that
 * has room. */
bool store_log_is_stalled(const struct store_log *log);

/* Reading a record by its address. `key` is checked against it, too. */
struct store_log_read {
    uint64_t address;
    size_t size_hint;    /* bytes of the record, if known; 0: not */
    void (*done)(struct store_log_read *read, int err); /* 0, ERR_CORRUPT (logged with file and offset), -EIO */
    void *arg;
    struct bytes key;     /* borrows until done; data NULL: any */
    struct record record; /* valid inside done(); views into a buffer that ends with it */
    uint64_t private_[28];
};
/* Also finds what is not written yet. The segment is pinned meanwhile. */
void store_log_read(struct store_log *log, struct store_log_read *read);
/* A sealed segment, record by record, for the cleaner and the scrubber. Also of cut transactions. The segment is pinned
 * meanwhile. */
struct store_log_walk {
    void *arg;
    /* 0, or an error that ends the walk. */
    int (*record)(void *arg, const struct record *record, uint64_t address, size_t size, bool is_cold);
    /* 0: the end was reached; ERR_AGAIN: `piece_bytes` were read, `off` says where to go on; ERR_CORRUPT (logged with
     * file and offset), ERR_NOT_FOUND (no such segment), -EIO, or what record() returned. */
    void (*done)(void *arg, int err);
    uint64_t sequence, off; /* off 0: from the start */
    uint32_t piece_bytes;   /* 0: all of it */
    bool yields;            /* others may have the core between the steps of a piece */
    uint64_t private_[24];
};
void store_log_walk(struct store_log *log, struct store_log_walk *walk);

/* Segments. Pointers are valid until the next call that opens or frees one. */
uint32_t store_log_segment_count(const struct store_log *log);
struct segment_info *store_log_segment(struct store_log *log, uint32_t i);
struct segment_info *store_log_segment_find(struct store_log *log, uint64_t sequence); /* NULL */
/* While it opens: whether there is a segment in which something may live. */
bool store_log_has(struct store_log *log, uint64_t sequence);
void store_log_pin(struct store_log *log, uint64_t sequence, bool on);
/* Nothing live is left in it (L8 was shown by whoever calls). */
void store_log_cleaned(struct store_log *log, uint64_t sequence);
/* A checkpoint is durable that needs no segment cleaned before it began: they become free. `hot_from` and
 * `cold_from` are where a recovery would start now. */
void store_log_release(struct store_log *log, uint64_t hot_from, uint64_t cold_from);
/* Whether a recovery that starts at `hot_from` follows the hot log through it, or may have to. */
bool store_log_is_followed(const struct store_log *log, const struct segment_info *segment, uint64_t hot_from);
/* Frees a segment in which nothing lives, before a checkpoint comes: what was copied out of it, and what took the place of
 * the rest, is durable. A recovery that starts at `hot_from` does not follow the log through it. Segments from now on tell
 * that the checkpoint may name places that are gone. False: not now (it is read, or pinned); nothing has changed. */
bool store_log_give_back(struct store_log *log, uint64_t sequence, uint64_t hot_from);
/* The LSN that was durable when it last did that; 0: never, as far as is known. */
uint64_t store_log_given_lsn(const struct store_log *log);
uint64_t store_log_hot_sequence(const struct store_log *log);  /* of the open one; else of the last, or of the next */
uint64_t store_log_cold_sequence(const struct store_log *log); /* lowest of the open cold ones; none: of the next */
uint64_t store_log_next_sequence(const struct store_log *log);
#define STORE_LOG_CLASSES 8u
/* For each open cold segment the address that all later copies in it lie at or behind; 0: none is open. Copies of any
 * other segment than these have at least the sequence that is the next one now. */
void store_log_cold_marks(const struct store_log *log, uint64_t marks[STORE_LOG_CLASSES]);
/* Bytes of cold page writes that are not on the disk yet. */
size_t store_log_cold_backlog(const struct store_log *log);
/* Open cold segments in which nothing lives any more take no more copies, so that they can go. */
void store_log_cold_end_dead(struct store_log *log);

struct store_log_stats {
    uint64_t record_bytes_hot, record_bytes_cold, bytes_written, flushes, page_writes, frames;
    uint64_t segments, segments_free, disk_bytes;
    uint64_t bytes_freeing; /* of segments that are being given back or removed: free in a moment */
};
/* The file system is full, and something beside the log needs room to free segments: one that is free goes, and until
 * store_log_space_take() no new one is made of what it leaves. False: there is none. */
MUST_USE bool store_log_space_give(struct store_log *log);
void store_log_space_take(struct store_log *log);
uint32_t store_log_commit_us(const struct store_log *log); /* as store_commit_us() */
void store_log_stats_get(const struct store_log *log, struct store_log_stats *out);
uint64_t store_log_hash_seed(const struct store_log *log); /* the directory's, since it was made */
const unsigned char *store_log_uuid(const struct store_log *log); /* 16 bytes, of the directory */
