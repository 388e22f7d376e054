/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - one shard's data: keys in memory, values in memory or on disk, everything in the log.
 *
 *     command ──> store_find ──> entry ──> value (hot)  or  store_fetch (cold, one disk read)
 *        └──────> store_put_… / store_change / store_delete ──> record in this turn's frame ──> index
 *     end of the turn: store_turn_end() seals the frame ──> log ring ──> disk
 *
 * Not thread-safe; a shard has one thread. Nothing here blocks: commands run to their end in memory.
 *
 *   S1  An entry's address names a record with that key that verifies, or is 0.
 *   S2  For every key entry.lsn is the highest valid LSN of its records, <= appended.
 *   S3  durable <= written <= appended.
 *   S4  The newest checkpoint and the log behind it make exactly what is in memory.
 *   S5  No entry names a place in a segment that is free, or may become it.
 *   S6  What lives in all segments is about what entries name.
 *   S7  A deleted or expired key is never returned again, whatever is replayed.
 *   S8  Expiry times are absolute in the log; the clock that judges them never goes back.
 *   S9  What lies between store_atomic_begin() and store_atomic_end() is recovered as a whole or not at all, however
 *       many turns, frames, page writes or segments it spans: every frame but its last says that it goes on
 *       (FRAME_CONTINUES), the marks stand still before its first record, no image of what it changed is written
 *       before its end is durable (G9), no checkpoint is written meanwhile, and recovery leaves out a unit
 *       whose last frame it does not find. Time stands still within it.
 *   S10 Free segments are at least the reserve, or writes of clients stop (log_segment.c).
 *   S11 Memory is accounted to the byte: index, entries, objects.
 *   S12 Who replies with data of LSN l waits until l is committed (repl/commit.h): entry_lsn() of what it
 *       read, store_absent_lsn() where it found nothing.
 *
 * S5, S6 and S11 are counted again by store_audit() (audit.c), S4 by every test that starts a store a second time.
 *
 * LSNs: 48 bits, from 1, one for each record. Times are milliseconds of the epoch.
 */
#pragma once
#include "backend/store/entry.h"
#include "backend/store/object.h"
#include "common/base/buffer.h"
#include "common/io/io.h"

/* Rises with whatever an older binary could not read of what is on the disk or in the log ring. An upgrade between two
 * of them is refused, as it could not be taken back. */
#define STORE_FORMAT 1u

struct store;

enum store_fsync { STORE_FSYNC_NO, STORE_FSYNC_EVERYSEC, STORE_FSYNC_ALWAYS };

struct store_namespace {
    bool is_cache; /* evict under memory pressure instead of spilling */
};

enum store_change_kind {
    STORE_CHANGED, STORE_CREATED, STORE_REMOVED, STORE_EXPIRED, STORE_EVICTED,
};

/* Told from inside the call that changes; they must not call back into the store's changing functions. */
struct store_hooks {
    void *arg;
    /* The key was changed, created, removed, or has expired. For WATCH and blocked clients. */
    void (*changed)(void *arg, uint8_t db, struct bytes key, enum store_change_kind kind);
    /* A database (STORE_DBS: all) was flushed. */
    void (*flushed)(void *arg, uint8_t db);
    /* Writing became possible, or impossible: store_may_write() says. */
    void (*state)(void *arg);
    /* The committed-relevant marks moved: store_marks(). */
    void (*marks)(void *arg);
};

struct store_options {
    struct io *io;
    const char *dir;             /* of this shard; made if it is not there */
    const char *ring_path;       /* of the log ring (in /dev/shm); NULL: none */
    uint32_t shard, shard_count; /* the directory remembers them: another count is refused */
    enum store_fsync fsync;
    uint64_t memory_max;         /* bytes accounted: index, entries, objects, store_others_set(); 0: no bound */
    uint64_t disk_max;           /* bytes of segments; 0: what the file system has room for */
    uint64_t file_system;        /* bytes of it, our part of them; 0: not known */
    uint32_t segment_size;       /* 0: a 512th of disk_max, else of file_system, from 2 to 64 MiB, a power of two */
    uint32_t ring_size;          /* 0: 4 MiB */
    bool direct;                 /* O_DIRECT where the file system lets us */
    bool touch_ahead;            /* memory is made ready by a thread before it is needed: 4 MiB more */
    struct store_namespace namespaces[STORE_DBS];
    const struct object_ops *types[STORE_TYPE_COUNT]; /* NULL: no such type */
    struct store_hooks hooks;
};

/* Opens and recovers; done() tells (err 0, or why not: ERR_CORRUPT, ERR_EXISTS (locked), -errno; the log has
 * file and offset). Until then nothing else may be called. */
MUST_USE int store_create(const struct store_options *options,
                          void (*done)(void *arg, int err), void *arg, struct store **out);
/* Writes what is pending, a checkpoint, and closes; done() may be called at once. Then store_destroy(). */
void store_close(struct store *store, void (*done)(void *arg, int err), void *arg);
void store_destroy(struct store **store);
/* Settings that may change while it runs. */
void store_fsync_set(struct store *store, enum store_fsync fsync);
/* Starts a checkpoint soon; its number. */
uint64_t store_checkpoint(struct store *store);
/* Of that one: 0: what had been changed when it was asked for is on the disk, in fsync mode no, too (or there is no log);
 * -EINPROGRESS: not yet, hooks.state() tells when to ask again; else why there is none. */
MUST_USE int store_checkpoint_result(const struct store *store, uint64_t number);
void store_memory_max_set(struct store *store, uint64_t bytes);
/* What the shard needs beside its data, as of now: it counts for memory_max as well. */
void store_others_set(struct store *store, uint64_t bytes);
/* Below what is in use: writes but deletes are refused until the cleaner has made room. */
void store_disk_max_set(struct store *store, uint64_t bytes);

/* ---- keys --------------------------------------------------------------------------------- */

/* A key looked up. Make one with store_find(); every call below that changes the key keeps it true. */
struct store_key {
    struct bytes name; /* borrows */
    uint64_t hash;
    struct entry *entry; /* NULL: no such key. Ends when the key is changed by other means */
    uint8_t db; /* as the records have it: SWAPDB makes it another one than was asked for */
};

/* The clock that judges expiry: set once a turn, to the host's. Never goes back (S8): while that is behind it, it goes on by
 * io_now_ms(). */
void store_now_set(struct store *store, uint64_t wall_ms);
uint64_t store_now_ms(const struct store *store);

void store_find(struct store *store, uint8_t db, struct bytes name, struct store_key *out);
/* For batches: asks for the index's cache line of a key that will be looked up soon; when that has come, for those of
 * the entry; and when that has come too, for what a long chain needs on top. */
uint64_t store_prefetch(struct store *store, uint8_t db, struct bytes name);
void store_prefetch_entry(struct store *store, uint64_t hash);
void store_prefetch_chain(struct store *store, uint64_t hash);
/* Counts a use of the value (S3-FIFO). store_find() does not. */
static inline void store_touch(struct entry *entry)
{
    uint8_t access = entry_access(entry);

    if (access < 3)
        entry_access_set(entry, (uint8_t)(access + 1));
}
/* Whether the length of a string can be told without its value: of a cold one that is long, or of which a start has left
 * deltas on the disk, it cannot. */
bool store_len_is_known(const struct store *store, const struct store_key *key);
/* The string's bytes: inline or object; not cold. Ends with the next change of the key. */
struct bytes store_string(const struct entry *entry);
/* Where a long one lies, to be held for longer (shared.h); NULL: it is inline. */
char *store_string_shared(const struct entry *entry);

/* What a reply that found nothing depends on: a key may be absent because of a removal that is not committed
 * yet. */
uint64_t store_absent_lsn(const struct store *store);

/* ---- cold values -------------------------------------------------------------------------- */

struct store_waiter {
    struct list_node node_; /* all zero before the first use */
    /* err 0: the entry is hot (or gone, or changed: look again). ERR_CORRUPT, -EIO: its bytes cannot be had. */
    void (*done)(struct store_waiter *waiter, int err);
    void *arg;
};
/* Brings a cold value into memory. done() comes from the loop. One read for each key, however many wait. */
void store_fetch(struct store *store, const struct store_key *key, struct store_waiter *waiter);
void store_fetch_cancel(struct store_waiter *waiter);

/* ---- changes ------------------------------------------------------------------------------ */

/* Whether a command may write now. `grows`: 0 for one that only takes away, else the bytes that it brings, or anything
 * small. 0; ERR_FULL: memory (only for commands that may grow); -ENOSPC: disk, and the cleaner cannot help; -EROFS: a write or a flush failed, the shard is read-only; ERR_AGAIN: the log or the
 * cleaner is behind, park the client and try when `state` is told. */
int store_may_write(struct store *store, size_t grows);
/* Whether memory has room for that much beside what may be written in any case. */
bool store_may_grow(struct store *store, uint64_t bytes);
/* Whether what is kept on a full disk for those that only take away has so many bytes. */
bool store_may_delete(struct store *store, size_t bytes);

struct store_attributes {
    uint64_t expire_ms; /* absolute; 0: never */
    uint64_t mc_flags;  /* entry.h */
    uint8_t form;       /* enum entry_form, of a string */
};

/* All of these change memory and append to this turn's frame; they cannot fail but for memory (ERR_FULL:
 * nothing was changed). A time to live in the past is the caller's affair: delete instead. */

/* The value becomes this string, whatever it was. The bytes may not lie in the key's own entry. */
MUST_USE int store_put_string(struct store *store, struct store_key *key, struct bytes value,
                              const struct store_attributes *attributes);
/* The value becomes this object, as a whole (an IMAGE goes into the log). The store owns it on 0. */
MUST_USE int store_put_object(struct store *store, struct store_key *key, struct object *object,
                              const struct store_attributes *attributes);
/* The same where its image is at hand (COPY). */
MUST_USE int store_put_copy(struct store *store, struct store_key *key, struct object *object, struct bytes image,
                            const struct store_attributes *attributes);
/* For RENAME, MOVE: the source's object becomes the target's value, and the source is deleted. An error (as of
 * store_put_string()) has changed nothing. */
MUST_USE int store_move_object(struct store *store, struct store_key *source, struct store_key *target,
                               const struct store_attributes *attributes);

/* An object that exists, or (create) an empty one of this type; the type must fit. NULL: out of memory, or
 * absent without `create`. Then change it and end with store_change(), in the same command. */
struct object *store_object_open(struct store *store, struct store_key *key, enum store_type type,
                                 bool create);
/* Up to where collections stay compact, from now on; those that are there, too. */
void store_limits_set(struct store *store, const struct object_limits *limits);
/* For an object that is made before it has a key. */
void store_object_limit(const struct store *store, struct object *object);
/* What the store was given for this type. */
const struct object_ops *store_type_ops(const struct store *store, enum store_type type);
/* The operations' buffer of the change under way: fill it with effect_…(). */
struct buffer *store_effects(struct store *store);
/* Logs the operations and re-charges the object. An object that is empty now is removed with its key (strings
 * stay). No operations: nothing changed (an empty new object goes away). */
MUST_USE int store_change(struct store *store, struct store_key *key);

/* Whether changes of a hot string are DELTAs by now: it is long, or it was made an object for that. Else: store_put_string().
 * Its bytes move. */
bool store_string_in_place(struct store *store, struct store_key *key);
/* expire_ms 0: never. The value must be hot. */
MUST_USE int store_set_expire(struct store *store, struct store_key *key, uint64_t expire_ms);
MUST_USE int store_delete(struct store *store, struct store_key *key);
/* Removes all keys of a database, STORE_DBS: of all. O(1): memory is given back in steps. */
MUST_USE int store_flush(struct store *store, uint8_t db);
/* Each of two databases gets the other's keys. O(1). Replies of reads that come after it wait for its LSN: the
 * entries do not know of it. */
MUST_USE int store_swap(struct store *store, uint8_t a, uint8_t b);
/* LSN of the last swap; 0: there was none. */
uint64_t store_swap_lsn(const struct store *store);

/* A command's or a transaction's records stand or fall together: between these two they are one unit of
 * recovery. May not nest. May span turns: nothing that is changed becomes appended or durable meanwhile, and background
 * work rests. */
void store_atomic_begin(struct store *store);
void store_atomic_end(struct store *store);
/* While somebody holds it, what is hot stays hot, even beyond maxmemory: for a command whose values did not stay in
 * memory together long enough. */
void store_hold_hot(struct store *store, bool on);

/* Seals this turn's frame. Call it from a turn hook that runs before replies are flushed. */
void store_turn_end(struct store *store);
/* LSN of the last record appended: what a reply to a change depends on. */
uint64_t store_lsn(const struct store *store);
struct store_marks {
    uint64_t appended; /* sealed in a frame, in the log ring: survives the death of the process */
    uint64_t written;  /* handed to the operating system and done */
    uint64_t durable;  /* flushed */
};
struct store_marks store_marks_of(const struct store *store);
bool store_has_log_failed(const struct store *store); /* the marks stand still for good */
uint32_t store_commit_us(const struct store *store); /* fsync always: what a commit has taken lately; 0: not known */

/* ---- walks -------------------------------------------------------------------------------- */

uint64_t store_count(const struct store *store, uint8_t db); /* keys, expired ones not yet seen included */
uint64_t store_expiring_count(const struct store *store, uint8_t db);
/* Some entries, then the next cursor; 0: the end. Every key that is there all the time is seen at least once
 * (Redis's SCAN guarantee). `each` must not change anything. Cursors are below 2^48. */
uint64_t store_scan(struct store *store, uint8_t db, uint64_t cursor,
                    void (*each)(void *arg, struct entry *entry), void *arg);
/* A random key that has not expired; NULL: none. */
struct entry *store_random(struct store *store, uint8_t db);

/* Background work of one turn: expiry, spilling, checkpoint pages, cleaning, freeing. Bounded to about
 * 200 us. Called by the store's own timer; tests may call it. */
void store_work(struct store *store);

/* Counts again, key by key, what is counted as changes come. False: `why` (a line) says what does not fit. For DEBUG and
 * tests: it takes as long as there are keys. */
MUST_USE bool store_audit(struct store *store, char *why, size_t size);
/* For tests: every value goes cold that can. */
void store_spill_all(struct store *store);
/* Whether keys are looked for that have expired and that nobody asks for. */
void store_expiry_pause(struct store *store, bool paused);

struct store_stats {
    uint64_t memory_bytes, index_bytes, entry_bytes, object_bytes; /* accounted */
    uint64_t keys, hot_keys, cold_keys;
    uint64_t fetches, fetch_hits_waiting, spills, evictions, expirations;
    uint64_t disk_bytes, segments, segments_free;
    uint64_t disk_bound; /* of disk_bytes: disk_max, or what the file system has room for; 0: not known */
    uint64_t record_bytes_client;  /* encoded records of clients' changes */
    uint64_t bytes_written;        /* all that went to the device: log, cleaner, checkpoints */
    uint64_t cleaner_bytes, cleaner_segments, cleaner_segments_by_index, segments_given, images;
    uint64_t checkpoints, checkpoint_bytes, checkpoint_lsn;
    uint64_t corrupt_records, scrubbed_bytes;
    uint64_t objects_freeing, objects_freed; /* collections that are being freed, and were, in steps */
    uint64_t write_errors;
    uint64_t recovered_lsn;        /* up to where the start found the log */
    bool is_ring_lost;             /* the process before was killed, and its log ring was gone at the start */
    bool is_read_only, is_disk_full;
    bool is_checkpointing; /* one is wanted or under way */
};
void store_stats_get(const struct store *store, struct store_stats *out);
